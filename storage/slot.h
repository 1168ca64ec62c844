/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One double-buffered block on one volume, seen by its only writer. Pure; times are nanoseconds of the caller's monotonic clock.
 *
 *            write            done OK / definite error
 *   IDLE ------------> WRITING ----------------------> IDLE
 *                         | nobody knows
 *                         v        settled COMPLETED, or read back
 *                      UNKNOWN ------------------------------------> IDLE
 *                         | settled DESTROYED (or the writer has just started: an earlier life may have left a write)
 *                         v        probe issued after that completes          T_drain later
 *                     DESTROYED ------------------------------> DRAINING -----------------> IDLE
 *
 * At most one unresolved write a block and volume, never another over it: only IDLE may write.
 * After a write whose fate is unknown the same buffer is written again: the other one holds the last block known to be good.
 */
#pragma once

#include "agent/base/util.h"

enum slot_state { SLOT_IDLE, SLOT_WRITING, SLOT_UNKNOWN, SLOT_DESTROYED, SLOT_DRAINING };

struct slot {
	enum slot_state state;
	unsigned buffer;       /* where the next (or present) write goes */
	uint64_t writing_seq;
	uint32_t writing_epoch;
	int64_t since_ns;      /* DESTROYED: no probe issued before this counts; DRAINING: the probe's completion */
};

/* A new writer on a block whose history it does not know. */
void slot_init(struct slot *s, int64_t now_ns);
bool slot_writable(const struct slot *s);
void slot_written(struct slot *s, uint32_t epoch, uint64_t seq); /* a write was issued */
void slot_done(struct slot *s, bool ok, bool definite);          /* volume_io's done */
void slot_settled(struct slot *s, bool completed, int64_t now_ns);
/* A read of this block issued at issued_ns completed: which buffer is the newer valid one (or -1: neither known), and what it holds. */
void slot_read(struct slot *s, int newest, uint32_t epoch, uint64_t seq, int64_t issued_ns, int64_t now_ns);
/* Lets T_drain pass; returns when to look again, or INT64_MAX. */
int64_t slot_tick(struct slot *s, int64_t now_ns, int64_t drain_ns);
const char *slot_state_name(enum slot_state s);
