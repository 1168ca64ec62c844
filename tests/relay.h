/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A TCP relay before a storage server: one path to it. SIGKILL cuts the path, SIGSTOP hangs it. relay_hold() makes it hang just when a write comes by:
 * the write is kept, and goes to the server when relay_release() lets the path live again, however long its sender has been gone. So it plays a
 * controller that hangs with a write in its queue. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum relay_kind { RELAY_ISCSI, RELAY_NFS };

struct relay {
	pid_t pid;
	int held_fd; /* a byte comes when it holds a write */
};

/* Listens at ip:port when this returns; the server is at 127.0.0.1:to_port. */
void relay_start(struct relay *r, enum relay_kind kind, const char *ip, uint16_t port, uint16_t to_port);
void relay_stop(struct relay *r); /* kills it: every connection is reset */
void relay_hold(const struct relay *r);    /* the next write; returns when the relay knows */
void relay_hold_answer(const struct relay *r); /* the same, but the write goes to the server first: what hangs is its answer */
bool relay_holds(const struct relay *r, int patience_ms); /* waits until it holds a write; once for each */
void relay_release(const struct relay *r);
/* NFS: it answers every write with this status itself, until relay_release(). Returns when the relay knows. */
void relay_refuse(const struct relay *r, uint32_t status);
