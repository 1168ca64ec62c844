/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration: /etc/kvm-ha/kvm-ha.conf and conf.d/ *.conf in lexical order (later wins), systemd-style INI, strict.
 * Read once at start by keeper, agent and ha-ctl; the same files everywhere in a cluster. */
#pragma once

#include "agent/base/timing.h"
#include "agent/base/util.h"

#define CONF_DIR_DEFAULT "/etc/kvm-ha"
#define CONF_MAX_NODES 64
#define CONF_MAX_VOLUMES 3
#define CONF_NAME_LEN 64
#define CONF_URL_LEN 512

enum conf_ring_loss { CONF_RING_LOSS_RELEASE, CONF_RING_LOSS_KEEP };

struct conf_node {
	uint32_t id; /* corosync nodeid, 1..CONF_MAX_NODES; the slot on the volumes is id - 1 */
	char name[CONF_NAME_LEN];
};

struct conf {
	char cluster[CONF_NAME_LEN];
	struct conf_node nodes[CONF_MAX_NODES]; /* sorted by id */
	size_t n_nodes;
	uint32_t self_id; /* whose name is this host's; 0 if it is in no Nodes= (ha-ctl volume init may still run) */
	char self_name[CONF_NAME_LEN];
	char volumes[CONF_MAX_VOLUMES][CONF_URL_LEN];
	size_t n_volumes;
	char secret_file[CONF_URL_LEN]; /* "" = none */
	enum timing_profile profile;
	struct timing timing;
	bool require_ring_encryption; /* default yes */
	enum conf_ring_loss on_ring_loss;
	char watchdog[CONF_URL_LEN]; /* "/dev/watchdog", or "unix:/path" of a lab's supervisor */
	char hooks_dir[CONF_URL_LEN];
	uint32_t hook_timeout_ms;
};

/* Reads DIR/kvm-ha.conf and DIR/conf.d/ *.conf. hostname: this host's name without domain, or NULL for gethostname. On failure returns
 * -EINVAL or the errno of reading, err holds "FILE:LINE: reason; remedy", and *ret is untouched. */
int conf_load(const char *dir, const char *hostname, struct conf *ret, char *err, size_t err_size);

const struct conf_node *conf_node_by_id(const struct conf *c, uint32_t id);
const struct conf_node *conf_node_by_name(const struct conf *c, const char *name);

/* `ha-ctl config show`: every value in force, where it came from (file:line, profile or derived) and the failover bound, to stdout. */
int conf_show(const char *dir, const char *hostname, bool json, char *err, size_t err_size);
