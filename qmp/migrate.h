/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A migration's QMP, both ends: what is set before, how it is begun, how it stands. (QEMU's docs/devel/migration, qapi/migration.json)
 *
 * Every call returns at once, 0 or a negative errno and then without a callback. Else its callback comes exactly once: from the loop, or from
 * qmp_conn_free() with "disconnected". */
#pragma once

#include "qmp/qmp.h"

enum qmp_migration_status {
	QMP_MIGRATION_NONE, /* never, or a word that we do not know */
	QMP_MIGRATION_SETUP, QMP_MIGRATION_ACTIVE, QMP_MIGRATION_PAUSED /* pre-switchover */, QMP_MIGRATION_SWITCHING /* device */,
	QMP_MIGRATION_COMPLETED, QMP_MIGRATION_FAILED, QMP_MIGRATION_CANCELLING, QMP_MIGRATION_CANCELLED,
};
enum qmp_migration_status qmp_migration_status_parse(const char *word); /* NULL is no word */
bool qmp_migration_moves(enum qmp_migration_status s);                  /* it is under way */

struct qmp_migration_options {
	uint64_t bandwidth;     /* bytes a second; 0: QEMU's own */
	uint32_t downtime_ms;   /* 0: QEMU's own */
	bool auto_converge;
	uint32_t channels;      /* > 1: multifd with so many */
	const char *tls_dir;    /* where QEMU's certificates are (tls-creds-x509); NULL: not encrypted */
	const char *tls_name;   /* source: whose certificate it must be at the other end */
};

struct qmp_migration_progress {
	enum qmp_migration_status status;
	uint64_t total, remaining, transferred; /* bytes of memory */
	uint64_t rate, dirty_rate;              /* bytes a second */
	uint64_t passes;                        /* over all memory that was written meanwhile */
	uint64_t total_ms, downtime_ms;
	char error[200];        /* of a failed one, or "" */
	uint32_t port;          /* target: where it listens, once it does; else 0 */
};

/* error: NULL, or what was refused. */
typedef void (*qmp_migrate_done_fn)(void *user, const char *error);
typedef void (*qmp_migrate_progress_fn)(void *user, const struct qmp_migration_progress *p); /* NULL: no answer */

/* Target: listens on host (a name or an address), any port. */
int qmp_migrate_incoming(struct qmp_conn *c, const char *host, const struct qmp_migration_options *o, qmp_migrate_done_fn fn, void *user);
/* Source: sends, and stops before its disks change hands until qmp_migrate_continue(). */
int qmp_migrate_outgoing(struct qmp_conn *c, const char *host, uint32_t port, const struct qmp_migration_options *o, qmp_migrate_done_fn fn, void *user);
int qmp_migrate_continue(struct qmp_conn *c, qmp_migrate_done_fn fn, void *user);
int qmp_migrate_cancel(struct qmp_conn *c, qmp_migrate_done_fn fn, void *user);
/* The certificates of a migration that is over: QEMU keeps none of them. What it says to that is nobody's concern. */
void qmp_migrate_forget_tls(struct qmp_conn *c);
int qmp_migrate_query(struct qmp_conn *c, qmp_migrate_progress_fn fn, void *user);

/* What a query-migrate answer says. For tests. */
struct qmp_migration_progress qmp_migration_parse(json_object *ret);
