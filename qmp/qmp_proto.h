/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP protocol as a state machine: bytes in, callbacks and bytes out. It has no fd and no clock; now_ms comes in with each call,
 * on any clock that only grows, and the next deadline goes out. Internal to qmp/ and its tests; qmp_conn.c puts it on a socket.
 *
 *                greeting            {"return"} of           {"return"} of
 *                                   qmp_capabilities         query-status
 *   QMP_GREETING ---------> QMP_NEGOTIATING ---------> QMP_QUERYING ---------> QMP_READY
 *        |                        |                        |                      |
 *        +------------------------+-- bad input, error answer, deadline, close ---+----> QMP_CLOSED
 *
 * Callbacks may call qmp_execute() and qmp_drop() on the machine they come from, but not qmp_free().
 */
#pragma once

#include "qmp/qmp.h"
#include "qmp/qmp_line.h"

#define QMP_MAX_OUTPUT (1024U * 1024)   /* bytes not yet taken by the socket; a hung QEMU reads nothing */

enum qmp_phase { QMP_GREETING, QMP_NEGOTIATING, QMP_QUERYING, QMP_READY, QMP_CLOSED };

struct qmp;

/* cb is copied. handshake_ms: QMP_READY must be reached within this from now. Returns 0 or -ENOMEM. */
int qmp_new(const struct qmp_callbacks *cb, void *user, uint64_t now_ms, uint32_t handshake_ms, struct qmp **ret);
void qmp_free(struct qmp *q); /* silent; NULL is ignored */

/* Bytes from QEMU, cut anywhere. */
void qmp_feed(struct qmp *q, const void *bytes, size_t n);

/* Bytes for QEMU, valid until the next call; qmp_sent() says how many of them are gone. */
size_t qmp_output(const struct qmp *q, const char **ret);
void qmp_sent(struct qmp *q, size_t n);

/* Ends every command, and the handshake, whose deadline is not after now_ms. */
void qmp_tick(struct qmp *q, uint64_t now_ms);
uint64_t qmp_deadline(const struct qmp *q);

/* As qmp_conn_execute(). Also -ENOMEM; -EBUSY too with QMP_MAX_OUTPUT bytes unsent. args are taken over in every case. */
int qmp_execute(struct qmp *q, uint64_t now_ms, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);

/* Connection over: "disconnected" to every outstanding command, in the order they were sent, then closed(reason).
 * A second call does nothing. */
void qmp_close(struct qmp *q, const char *reason);

/* Connection over and nobody wants to hear of it: outstanding commands end with "disconnected", as they do once in any case, and no callback comes after. */
void qmp_drop(struct qmp *q);

enum qmp_phase qmp_phase(const struct qmp *q);
