/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Client of the agent in a guest (qemu-ga, docs/interop/qemu-ga), through a virtio-serial port's socket. In two layers, as qmp.h: struct guest_agent is
 * the protocol, guest_agent_conn_*() puts it on a socket.
 *
 *              0xFF + this sync's id
 *   SYNCING ---------------------------> READY --- a command's deadline ---> SYNCING
 *      |                                   |
 *      +-- deadline, bad input, close -----+----> CLOSED
 *
 * The port's other end may be anybody's, may be half a line into an answer to somebody who is gone, and may never answer: so everything is dropped until
 * the byte 0xFF and, in the line after it, the random id of our own guest-sync-delimited; and after every deadline that passes this is done again.
 * What the guest says is not trusted: GUEST_AGENT_MAX_LINE bytes a line, GUEST_AGENT_MAX_DEPTH deep. One command at a time, for answers carry no id.
 */
#pragma once

#include "qmp/qmp.h"

#define GUEST_AGENT_MAX_LINE (256U * 1024)
#define GUEST_AGENT_MAX_DEPTH 32

struct guest_agent_callbacks {
	void (*ready)(void *user);                      /* in step: each time that it is */
	void (*closed)(void *user, const char *reason); /* over; a command under way was ended before; exactly once */
};

/* Connects, as qmp_conn_new(). sync_ms: how long it may take from now, or from a deadline that has passed, to get in step; then closed("timeout..."). */
int guest_agent_conn_new(qb_loop_t *loop, const char *path, uint32_t sync_ms, const struct guest_agent_callbacks *cb, void *user, struct qmp_conn **ret);

/* As qmp_conn_execute(): -ENOTCONN out of step, -EBUSY with a command under way. To be freed with qmp_conn_free(). */
int guest_agent_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);

/* The protocol, for tests. id: what the first sync is known by; later ones are made of it. */
struct guest_agent;
int guest_agent_new(const struct guest_agent_callbacks *cb, void *user, uint64_t now_ms, uint32_t sync_ms, uint32_t id, struct guest_agent **ret);
void guest_agent_free(struct guest_agent *g);
void guest_agent_feed(struct guest_agent *g, const void *bytes, size_t n);
size_t guest_agent_output(const struct guest_agent *g, const char **ret);
void guest_agent_sent(struct guest_agent *g, size_t n);
void guest_agent_tick(struct guest_agent *g, uint64_t now_ms);
uint64_t guest_agent_deadline(const struct guest_agent *g);
int guest_agent_execute(struct guest_agent *g, uint64_t now_ms, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
void guest_agent_close(struct guest_agent *g, const char *reason);
void guest_agent_drop(struct guest_agent *g);
bool guest_agent_is_closed(const struct guest_agent *g);
