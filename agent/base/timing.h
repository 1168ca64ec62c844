/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The timings all nodes share, how they follow from a profile, and the inequalities (DESIGN, I1..I7) they must satisfy.
 * Pure: no clock, file or memory management. All values in milliseconds unless the name says otherwise. */
#pragma once

#include "agent/base/util.h"

enum timing_profile { TIMING_FAST, TIMING_STANDARD, TIMING_SAFE, TIMING_PROFILE_COUNT };

struct timing {
	uint32_t wd_ms;         /* T_wd: watchdog timeout; a node not petting is reset after this */
	uint32_t wd_delay_ms;   /* d_wd: granularity and reset delay of the watchdog */
	uint32_t hb_ms;         /* T_hb: one heartbeat round starts this long after the one before */
	uint32_t io_ms;         /* T_io: deadline of one storage operation */
	uint32_t drain_ms;      /* T_drain: a write cannot land later than this after its session's end and a completed probe */
	uint32_t rho_permille;  /* clock rate error, >= 10 */
	uint32_t w_ms;          /* W: a silent armed node is reset for certain this long after t0 */
	uint32_t soft_ms;       /* T_soft: no renewal for this long after a pet: kill the VMs, before the watchdog does more */
	uint32_t settle_ms;     /* ring views must differ this long before anybody is fenced for it */
	uint32_t ring_grace_ms; /* a node without corosync is left alone this long */
	uint32_t leader_ms;     /* T_leader: an agent whose counter stands still this long leads no more */
	uint32_t silent_ms;     /* T_silent: an agent that its keeper has not heard for this long is silent: the gate closes. Derived; not on the volumes */
	uint32_t heal_ms;       /* T_heal: after an outage of the storage peers may still take this long to be back. Derived; not on the volumes */
};

enum timing_rule {
	TIMING_RULE_NONE,
	TIMING_I1_W, TIMING_I6_DRAIN, TIMING_I7_FALSE_FENCE, TIMING_SOFT_BEFORE_WATCHDOG, TIMING_SOFT_AFTER_ROUND,
	TIMING_RHO, TIMING_RANGE, TIMING_WATCHDOG_WHOLE_SECONDS,
	TIMING_HOLD_IN_TIME, /* all find out about an outage, ask and answer before the soft deadline */
	TIMING_SETTLE_ROUND, TIMING_LEADER_ROUND, /* a ring view and a counter change once a heartbeat, and are seen a read later */
	TIMING_RULE_COUNT,
};

/* The values in the order of struct timing; the configuration's keys of [Timing] are made from this table. */
enum timing_field {
	TIMING_WD, TIMING_WD_DELAY, TIMING_HB, TIMING_IO, TIMING_DRAIN, TIMING_CLOCK_RATE, TIMING_SETTLE, TIMING_RING_GRACE, TIMING_LEADER,
	TIMING_PRIMARY_COUNT,
	TIMING_W = TIMING_PRIMARY_COUNT, TIMING_SOFT, TIMING_HEAL, TIMING_SILENT,
	TIMING_FIELD_COUNT,
};

struct timing_value {
	const char *key;   /* in [Timing]; of W, Soft, Heal and Silent, which cannot be set, the name to show */
	size_t offset;     /* in struct timing */
	uint32_t min, max; /* a lower limit that a rule of its own explains is 0 here */
	bool permille;     /* else milliseconds */
};

/* One rule with its numbers: it holds when left >= right. */
struct timing_rule_state {
	const char *name;     /* "I1" */
	const char *text;     /* the inequality in words */
	const char *unit;     /* of left and right */
	uint64_t left, right;
	uint32_t fields;      /* bit set of enum timing_field: the values an operator may change to mend it */
};

const char *timing_profile_name(enum timing_profile p);              /* "fast", "standard", "safe" */
bool timing_profile_parse(const char *s, enum timing_profile *ret);
void timing_of_profile(enum timing_profile p, struct timing *ret);

/* d_wd where nobody measured it: a tenth of T_wd. */
uint32_t timing_wd_delay_default_ms(uint32_t wd_ms);

/* Recomputes what follows from the primary values (wd, wd_delay, hb, io, drain, rho, leader): w, soft, heal, silent. Saturates; check afterwards. */
void timing_derive(struct timing *t);

/* After an outage the last session is back when the attempt to connect that met its end has failed, the longest wait between two attempts has passed and the
 * superblock has been read, perhaps at the second try; then T_drain passes until the block may be written, and a round. */
#define TIMING_CONNECT_MIN_MS 1000       /* storage/volset.c: the larger of this and T_io */
#define TIMING_RECONNECT_WAIT_MS 1600    /* storage/volume.c: 16 times the 100 ms that storage/volset.c asks for */
#define TIMING_SUPERBLOCK_AGAIN_MS 1000  /* storage/volset.c */
static inline uint32_t timing_heal_ms(const struct timing *t)
{
	uint64_t connect = (uint64_t)MAX(t->io_ms, TIMING_CONNECT_MIN_MS) + TIMING_RECONNECT_WAIT_MS + TIMING_SUPERBLOCK_AGAIN_MS;
	uint64_t round = (uint64_t)t->hb_ms + 3ULL * t->io_ms;

	return (uint32_t)MIN(connect + t->drain_ms + t->hb_ms + round, UINT32_MAX);
}

/* Longer than a restart or an upgrade of an agent takes, and than it takes to find another leader: those are no reason to move anything. */
#define TIMING_SILENT_LEADERS 5
static inline uint32_t timing_silent_ms(const struct timing *t)
{
	return (uint32_t)MIN((uint64_t)t->leader_ms * TIMING_SILENT_LEADERS, UINT32_MAX);
}

extern const struct timing_value timing_values[TIMING_FIELD_COUNT];
uint32_t timing_get(const struct timing *t, enum timing_field f);
void timing_set(struct timing *t, enum timing_field f, uint32_t value);

/* Every rule but TIMING_RULE_NONE and TIMING_RANGE. */
void timing_rule_eval(const struct timing *t, enum timing_rule rule, struct timing_rule_state *ret);

/* First value out of its range, or TIMING_FIELD_COUNT; err as in timing_check. */
enum timing_field timing_check_ranges(const struct timing *t, char *err, size_t err_size);

/* First broken rule, or TIMING_RULE_NONE. err gets the sentence an operator needs: the rule, the numbers, which value to change. */
enum timing_rule timing_check(const struct timing *t, char *err, size_t err_size);

/* Power cut to qemu exec on a survivor, at most: T_hb + T_io until its last heartbeat was read, W, the death's publication (two storage operations), the
 * claim (four), the probe of its disks (one), T_drain, start. Holds while every storage operation stays within T_io. Saturates at UINT32_MAX. */
#define TIMING_TAKEOVER_IOS 7
#define TIMING_START_MS 1000
uint32_t timing_failover_bound_ms(const struct timing *t);

/* QEMU's end on a node whose agent has just died or hung to qemu exec on another node, at most: T_silent; the round under way and the one that says so; a peer's that
 * reads it; the claim (four operations), a heartbeat of the keeper there and one of ours to see that it stands; the probe, T_drain, start. With T_io as above. */
#define TIMING_SILENT_ROUNDS 5
#define TIMING_SILENT_IOS 5
uint32_t timing_silent_bound_ms(const struct timing *t);
