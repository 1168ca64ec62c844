/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP client, in two layers.
 *
 * struct qmp is the protocol: bytes in, bytes out, no fd and no clock (time comes in with each call); tested by tables.
 * struct qmp_conn puts it on a UNIX socket and a qb_loop.
 *
 * QEMU's output is untrusted input: a line longer than QMP_MAX_LINE, nesting deeper than QMP_MAX_DEPTH or anything that is not an object
 * ends the connection with a reason; unknown keys, events and run states are ignored. A greeting alone proves nothing: ready is
 * reported after qmp_capabilities and a first query-status were answered. (QEMU's docs/interop/qmp-spec)
 */
#pragma once

#include <json-c/json.h>
#include <qb/qbloop.h>

#include "agent/base/util.h"

#define QMP_MAX_LINE (4U * 1024 * 1024)
#define QMP_MAX_DEPTH 256
#define QMP_MAX_PENDING 32
#define QMP_NO_DEADLINE UINT64_MAX

/* RunState of QEMU's schema; what is not known here is QMP_RUN_UNKNOWN. */
enum qmp_run_state {
	QMP_RUN_UNKNOWN, QMP_RUN_DEBUG, QMP_RUN_INMIGRATE, QMP_RUN_INTERNAL_ERROR, QMP_RUN_IO_ERROR, QMP_RUN_PAUSED, QMP_RUN_POSTMIGRATE,
	QMP_RUN_PRELAUNCH, QMP_RUN_FINISH_MIGRATE, QMP_RUN_RESTORE_VM, QMP_RUN_RUNNING, QMP_RUN_SAVE_VM, QMP_RUN_SHUTDOWN,
	QMP_RUN_SUSPENDED, QMP_RUN_WATCHDOG, QMP_RUN_GUEST_PANICKED, QMP_RUN_COLO,
};
const char *qmp_run_state_name(enum qmp_run_state s);
enum qmp_run_state qmp_run_state_parse(const char *s);

/* Events that mean something to us (qmp/meaning.c says what); OTHER is passed on with its name, for logs. */
enum qmp_event_kind {
	QMP_EVENT_OTHER, QMP_EVENT_SHUTDOWN, QMP_EVENT_POWERDOWN, QMP_EVENT_RESET, QMP_EVENT_STOP, QMP_EVENT_RESUME, QMP_EVENT_BLOCK_IO_ERROR,
	QMP_EVENT_GUEST_PANICKED, QMP_EVENT_WATCHDOG, QMP_EVENT_GUEST_CRASHLOADED, QMP_EVENT_MEMORY_FAILURE, QMP_EVENT_MIGRATION,
	QMP_EVENT_SUSPEND, QMP_EVENT_SUSPEND_DISK, QMP_EVENT_WAKEUP, QMP_EVENT_VSERPORT_CHANGE, QMP_EVENT_KIND_COUNT,
};
const char *qmp_event_kind_name(enum qmp_event_kind k); /* QEMU's name for it */

/* How long an answer may take, by what the command has to do: 5 s for query-status, by which a hung QEMU is known; 10 s for other queries and for
 * what only flips a switch; 60 s for what may open files or wait for storage. */
enum qmp_class { QMP_CLASS_LIVENESS, QMP_CLASS_QUERY, QMP_CLASS_CONTROL, QMP_CLASS_LONG };
enum qmp_class qmp_command_class(const char *command);
uint32_t qmp_command_ms(const char *command);
#define QMP_TIMEOUT_OF_CLASS UINT32_MAX /* as timeout_ms: qmp_command_ms() */

struct qmp_event {
	enum qmp_event_kind kind;
	const char *name;    /* valid during the callback */
	bool guest;          /* SHUTDOWN, RESET: caused by the guest */
	const char *reason;  /* SHUTDOWN, RESET, BLOCK_IO_ERROR: QEMU's word for it, or "" */
	bool nospace;        /* BLOCK_IO_ERROR */
	json_object *data;   /* borrowed, may be NULL */
};

/* ret: the "return" member (borrowed), NULL on any failure; error: NULL, or QEMU's description, "timeout" or "disconnected". */
typedef void (*qmp_reply_fn)(void *user, json_object *ret, const char *error);

struct qmp_callbacks {
	void (*ready)(void *user, enum qmp_run_state state, const char *qemu_version); /* negotiated and first query-status answered */
	void (*event)(void *user, const struct qmp_event *event);
	void (*closed)(void *user, const char *reason); /* connection over; every outstanding command was ended before; exactly once */
};

struct qmp_conn;

/* Connects to a UNIX stream socket without blocking; retries every 50 ms until deadline_ms while the socket does not exist yet or refuses.
 * Callbacks come from the loop only. handshake must be complete within deadline_ms from this call, else closed("...").
 * Returns 0, -ENOMEM or -ENAMETOOLONG. */
int qmp_conn_new(qb_loop_t *loop, const char *path, uint32_t deadline_ms, const struct qmp_callbacks *cb, void *user, struct qmp_conn **ret);
/* Outstanding commands end with "disconnected" before it returns: their callbacks own what they were given. Nothing comes after, and no closed(). NULL is ignored. */
void qmp_conn_free(struct qmp_conn *c);

/* pid of the process that listens on the socket (SO_PEERCRED), 0 before it is connected. */
pid_t qmp_conn_peer_pid(const struct qmp_conn *c);

/* Sends a command, out of band if QEMU offers that and the command may be. args may be NULL; ownership passes on. fn is called exactly once: answer, error, deadline or disconnect. Returns 0,
 * -ENOTCONN before ready, -EBUSY with QMP_MAX_PENDING outstanding. */
int qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
