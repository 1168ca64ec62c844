/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VM's definition: one INI file, the same text in the catalog on the volumes. */
#pragma once

#include "agent/base/util.h"
#include "agent/core/agent_core.h"

#define VMFILE_NAME_LEN 64      /* name: letters, digits, '.', '_', '-'; begins with a letter or digit */
#define VMFILE_MAX_ARGS 256
#define VMFILE_MAX_DISKS 16
#define VMFILE_MAX_NODES 16
#define VMFILE_MAX_CHECK 16     /* words of Check= */
#define VMFILE_MAX_GROUPS 4     /* of each kind */
#define VMFILE_GROUP_LEN 32
#define VMFILE_MAX_AFTER 8
#define VMFILE_MAX_TEXT (64 * 1024) /* bytes of one file */

struct vmfile {
	char name[VMFILE_NAME_LEN];
	uint8_t uuid[16];
	bool has_uuid;           /* without one, `ha-ctl vm add` draws it and writes it into the text it stores */
	uint32_t memory_mib;
	uint32_t vcpus;
	char *binary;            /* absolute path of the QEMU binary */
	char *args[VMFILE_MAX_ARGS + 1]; /* unquoted, NULL-terminated */
	size_t n_args;
	char *disks[VMFILE_MAX_DISKS];   /* writable images: iscsi://, nfs:// or a path */
	size_t n_disks;
	bool start;              /* [HA] State=started (default) or stopped: desired state when added */
	uint32_t priority;       /* 0..1000, higher starts first; default 100 */
	uint32_t restart_limit;  /* local restarts within the window before it goes elsewhere; default 3 */
	uint32_t restart_window_ms; /* default 600 s */
	uint32_t relocate_limit;    /* failed on one node after the other: so often it is moved on before it is given up; default 0: always */
	enum vm_restart restart;
	uint32_t stop_timeout_ms;   /* clean shutdown may take this long, then quit; default 60 s */
	uint32_t migrate_bandwidth_mib; /* a second; 0: QEMU's own; so the next two */
	uint32_t migrate_downtime_ms;
	uint32_t migrate_channels;
	bool migrate_auto_converge;
	uint32_t migrate_timeout_ms; /* of an attempt, until its guest stands still; 0: as long as it takes */
	bool migrate;               /* Migrate=yes (default): it may be moved as it runs */
	char preferred[VMFILE_MAX_NODES][VMFILE_NAME_LEN]; /* in order */
	size_t n_preferred;
	char required[VMFILE_MAX_NODES][VMFILE_NAME_LEN]; /* it runs on these only; none: on all */
	size_t n_required;
	char apart[VMFILE_MAX_GROUPS][VMFILE_GROUP_LEN], together[VMFILE_MAX_GROUPS][VMFILE_GROUP_LEN];
	size_t n_apart, n_together;
	bool groups_required;
	char after[VMFILE_MAX_AFTER][VMFILE_NAME_LEN];
	size_t n_after;
	enum vm_ready after_ready;
	uint32_t after_delay_ms, after_timeout_ms;
	struct health_policy health;
	char *agent_path;        /* socket of a port among Arguments=; NULL: the agent adds one (if health.agent) */
	char *check[VMFILE_MAX_CHECK + 1];
	size_t n_check;
	uint32_t check_interval_ms, check_timeout_ms;
};

/* Parses text (not NUL-terminated, len bytes). source names it in messages. 0, or -EINVAL / -ENOMEM with err = "SOURCE:LINE: reason; remedy";
 * then *ret is untouched. A disk that has no Disk= line is not protected against a second definition: the agent does not guess at
 * QEMU's arguments. */
int vmfile_parse(const char *source, const char *text, size_t len, struct vmfile *ret, char *err, size_t err_size);
/* Whether QEMU itself writes to its disks, and lets nothing lie: what another process writes, or the host's memory keeps, goes on when QEMU is killed, and nobody
 * proves its end. Asked of a VM that is to be added; what is in the catalog stays there. 0 or -EINVAL as above. */
int vmfile_check_writes(const char *source, const struct vmfile *v, char *err, size_t err_size);
/* The key of what QEMU is started with, or what proves that it is silent, in which two definitions of a VM differ; NULL: in none. */
const char *vmfile_other_qemu(const struct vmfile *a, const struct vmfile *b);
/* Whether it can be migrated while it runs, as far as its definition tells: if not, why is put into err, with a remedy. */
bool vmfile_can_migrate(const struct vmfile *v, char *err, size_t err_size);
void vmfile_deinit(struct vmfile *v);

/* Text with "UUID=..." put right after the first [VM] line; the rest is left as it is. *ret is NUL-terminated and for the caller to free.
 * -EINVAL: not INI, or no [VM] in it; -EEXIST: it has a UUID already; -E2BIG: it would pass VMFILE_MAX_TEXT; -ENOMEM. */
int vmfile_with_uuid(const char *text, size_t len, const uint8_t uuid[16], char **ret);
