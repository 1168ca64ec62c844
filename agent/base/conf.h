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
#define CONF_MAX_POWER 128         /* fence devices of all nodes */
#define CONF_POWER_TEXT (16 * 1024) /* their options and secret files */
#define CONF_MAX_LEVEL 9
#define CONF_AGENT_LEN 128
#define CONF_NO_WATCHDOG "none"

/* In the order of enum leave_policy. */
enum conf_shutdown { CONF_SHUTDOWN_CONDITIONAL, CONF_SHUTDOWN_MIGRATE, CONF_SHUTDOWN_FAILOVER, CONF_SHUTDOWN_FREEZE, CONF_SHUTDOWN_COUNT };
enum conf_reservation { CONF_RESERVATION_NO, CONF_RESERVATION_YES, CONF_RESERVATION_VOLATILE, CONF_RESERVATION_COUNT };
enum conf_ring_loss { CONF_RING_LOSS_RELEASE, CONF_RING_LOSS_KEEP };

struct conf_node {
	uint32_t id; /* corosync nodeid, 1..CONF_MAX_NODES; the slot on the volumes is id - 1 */
	char name[CONF_NAME_LEN];
};

/* A [PowerDevice] section. Devices of one node and level are needed together; levels are tried in order. */
struct conf_power {
	uint32_t node, level, timeout_ms;
	uint16_t section; /* which of the files' sections it is, from 0 */
	char agent[CONF_AGENT_LEN];     /* fence_*, or a path that ends in one */
	uint16_t options, secret_file;  /* conf.power_text + this: "name=value\n" lines; a path or "" */
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
	char watchdog[CONF_URL_LEN]; /* "/dev/watchdog", "unix:/path" of a lab's supervisor, or CONF_NO_WATCHDOG */
	bool silence_proves;         /* default yes: who hears nothing of this node for W takes it for reset. no: it has no watchdog, or may be paused from outside */
	char hooks_dir[CONF_URL_LEN];
	uint32_t hook_timeout_ms;
	uint32_t volume_slow_ms, volume_failing_ms; /* operations that take longer are slow; none for so long is failing */
	bool power_on;             /* default yes: a node that was switched off is switched on again */
	uint32_t brake_percent;    /* of the nodes suspect at once, above which none is fenced; 100: no brake */
	uint32_t quarantine;       /* fences within an hour after which a node gets no VMs; 0: never */
	enum conf_reservation reservation; /* SCSI-3 persistent reservations of VMs' disks; volatile: of targets that lose them with their power, too */
	struct conf_power power[CONF_MAX_POWER]; /* by node, then level, then as they stand in the files */
	size_t n_power;
	char power_text[CONF_POWER_TEXT];
	size_t power_text_len;
	uint32_t memory_percent, vcpus_percent; /* of a node's own that its VMs may have together; 0: not limited */
	uint32_t starts_per_node;               /* at a time; 0: not limited */
	uint32_t migrations_per_node;           /* away from it, at a time */
	enum conf_shutdown shutdown;            /* what becomes of this node's VMs when its host is shut down */
	uint32_t shutdown_ms, freeze_ms;        /* how long the host waits for that; how long frozen VMs wait for it to be back */
	char tls_dir[CONF_URL_LEN];             /* certificates that migrations go under; "": they go as they are */
};

/* Reads DIR/kvm-ha.conf and DIR/conf.d/ *.conf. hostname: this host's name without domain, or NULL for gethostname. On failure returns
 * -EINVAL or the errno of reading, err holds "FILE:LINE: reason; remedy", and *ret is untouched. */
int conf_load(const char *dir, const char *hostname, struct conf *ret, char *err, size_t err_size);

/* A node's devices are neighbours: the first, and how many. */
const struct conf_power *conf_power_of(const struct conf *c, uint32_t node, size_t *ret_n);
/* The lines of a device's secret file, "name=value\n" each, as its agent takes them; "" for a device without one. Refuses a file that others can read.
 * 0 or a negative errno with err. The caller wipes ret. */
#define CONF_POWER_SECRETS 4096
int conf_power_secrets(const struct conf *c, const struct conf_power *p, char ret[CONF_POWER_SECRETS], char *err, size_t err_size);

const char *conf_shutdown_name(enum conf_shutdown s);
const struct conf_node *conf_node_by_id(const struct conf *c, uint32_t id);
const struct conf_node *conf_node_by_name(const struct conf *c, const char *name);

/* `ha-ctl config show`: every value in force, where it came from (file:line, profile or derived) and the failover bound, to stdout. */
int conf_show(const char *dir, const char *hostname, bool json, char *err, size_t err_size);
