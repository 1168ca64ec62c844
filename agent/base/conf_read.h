/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between conf.c, which reads and checks, and conf_show.c, which also tells where each value came from. Not for others. */
#pragma once

#include "agent/base/conf.h"
#include "agent/base/ini.h"

#define CONF_MAX_FILES 257 /* kvm-ha.conf and 256 in conf.d */

enum conf_key {
	CONF_CLUSTER_NAME, CONF_NODES, CONF_VOLUMES, CONF_SECRET_FILE, CONF_PROFILE,
	CONF_TIMING, /* and the following TIMING_PRIMARY_COUNT - 1, in the order of enum timing_field */
	CONF_REQUIRE_ENCRYPTION = CONF_TIMING + TIMING_PRIMARY_COUNT, CONF_ON_RING_LOSS,
	CONF_WATCHDOG_DEVICE, CONF_WATCHDOG_EVIDENCE, CONF_NODE_NAME, CONF_NODE_SHUTDOWN, CONF_NODE_SHUTDOWN_TIMEOUT, CONF_NODE_FREEZE_TIMEOUT, CONF_HOOKS_DIRECTORY, CONF_HOOKS_TIMEOUT, CONF_ALERTS_SLOW, CONF_ALERTS_FAILING,
	CONF_FENCING_POWER_ON, CONF_FENCING_BRAKE, CONF_FENCING_QUARANTINE, CONF_FENCING_RESERVATION,
	CONF_POWER_NODE, CONF_POWER_AGENT, CONF_POWER_OPTIONS, CONF_POWER_SECRET, CONF_POWER_TIMEOUT, CONF_POWER_LEVEL,
	CONF_PLACE_MEMORY, CONF_PLACE_VCPUS, CONF_PLACE_STARTS, CONF_PLACE_MIGRATIONS, CONF_MIGRATION_TLS,
	CONF_KEY_COUNT,
};

struct conf_origin {
	const char *file; /* NULL: nobody set it */
	unsigned int line;
	unsigned int order; /* counts up with each key read */
};

struct conf_read {
	struct conf c;
	struct conf_origin origin[CONF_KEY_COUNT];          /* of a list: its last addition */
	struct conf_origin node_origin[CONF_MAX_NODES + 1]; /* by id */
	struct conf_origin volume_origin[CONF_MAX_VOLUMES];
	struct conf_origin power_origin[CONF_MAX_POWER]; /* where the section begins */
	char node_of_power[CONF_MAX_POWER][CONF_NAME_LEN]; /* as written */
	unsigned __int128 power_has_level; /* bit: it was written */
	struct conf_origin here; /* of the key being read */
	uint32_t timing_override[TIMING_PRIMARY_COUNT]; /* valid where origin says so */
	char *files[CONF_MAX_FILES]; /* origins point to these */
	size_t n_files;
};

extern const struct ini_key conf_keys[CONF_KEY_COUNT];

/* As conf_load, with the origins. On success end with conf_read_deinit. */
int conf_read_all(struct conf_read *r, const char *dir, const char *hostname, char *err, size_t err_size);
void conf_read_deinit(struct conf_read *r);

/* conf_power.c: sections and values of [PowerDevice], and what can be checked when all is read. */
int conf_power_begin(struct conf_read *r, char *err, size_t err_size);
int conf_power_value(struct conf_read *r, enum conf_key key, const char *value, char *err, size_t err_size);
int conf_power_check(struct conf_read *r, char *err, size_t err_size);

const char *conf_ring_loss_name(enum conf_ring_loss l);
const char *conf_reservation_name(enum conf_reservation r);

/* One file's text. 0, or a negative errno with "PATH: reason; remedy" in err. Refuses what is no regular file and what is too long. */
int conf_read_file(const char *path, char **ret_text, size_t *ret_len, char *err, size_t err_size);

/* The files to read, in order, as paths in r->files. */
int conf_read_list(struct conf_read *r, const char *dir, char *err, size_t err_size);
