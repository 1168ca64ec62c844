/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Power fencing, the decisions. Pure: time comes in, actions go out.
 *
 *   power.c      when this node's agent has a node's devices switch it off, and when it breaks that off again
 *   powerplan.c  one operation: which device is told what next, and what its answers prove
 *
 * The keeper asks (keeper_table_node.asked_*) once its commit is in place; what comes of it goes back to it as evidence about the block it asked for. Power
 * only shortens W: a device that fails, hangs or lies about a command costs nothing but this. */
#pragma once

#include "fence/keeper_proto.h"

/* ---- powerplan.c ---- */

#define POWER_MAX_DEVICES 8 /* of one node */
#define POWER_FED_MS 3000     /* nothing is switched off when the agent has not said for so long, since the operation began, that it still is to be */
#define POWER_UNFED_MS 8000   /* and what switches it off meanwhile is ended after so long: before another node may have switched it on again (ON_DELAY_MS in power.c) */
#define POWER_TABLE_MS 1000   /* older tables neither begin an operation nor feed one: a later one may have taken back what they ask for */

enum power_want { POWER_WANT_OFF, POWER_WANT_ON };
enum power_action { POWER_OFF, POWER_ON, POWER_STATUS, POWER_PAUSE /* nothing: ask for the status again after a moment */, POWER_DONE, POWER_FAILED };

/* A device's answer: what its status is, or whether a command went well. Whatever cannot be told from its answer is FAILED. */
enum power_answer { POWER_ANSWER_OK, POWER_ANSWER_IS_OFF, POWER_ANSWER_IS_ON, POWER_ANSWER_FAILED };

/* Devices of one level are needed together (a host with two power supplies), levels are tried one after the other. */
struct power_plan {
	enum power_want want;
	unsigned n, level[POWER_MAX_DEVICES]; /* ascending */
	unsigned first, end;                  /* devices of the present level */
	unsigned device;                      /* which is next */
	bool commands;                        /* they are being told to; then their status is asked for */
	bool paused;
};

void power_plan_init(struct power_plan *p, enum power_want want, const unsigned *level, unsigned n);
enum power_action power_plan_next(const struct power_plan *p, unsigned *ret_device);
/* Of the action that power_plan_next has named; after a pause any. time_left: the device may be asked once more. */
void power_plan_answer(struct power_plan *p, enum power_answer answer, bool time_left);

/* ---- power.c ---- */

enum power_job_state { POWER_IDLE, POWER_WAITING, POWER_RUNNING, POWER_TOLD };

/* One for each node: the switching off that the keeper has asked for. */
struct power_job {
	enum power_job_state state;
	uint32_t epoch; /* the block asked about */
	uint64_t seq;
	int64_t start_ns;
	unsigned tries;
};

/* One for each node: it is to be switched off once an epoch is over, until it is let out of quarantine; or on again, whatever has come of it that this node's devices were
 * told to switch it off. Stays until its devices have said that it is so. */
struct power_wish {
	bool set;
	enum power_want want;
	uint32_t epoch;
	int64_t at_ns; /* not before; 0: not known yet */
	bool quarantined; /* the node has been seen in quarantine since */
	unsigned tries;
};

/* Switched off by this node, epoch and all. An order to switch it off, which came first, stands. */
void power_wish_on_again(struct power_wish *w, uint32_t epoch);
/* An operator has it switched on, which is being done: what is tried again should that fail. */
struct power_wish power_wish_now(uint32_t epoch, int64_t now_ns);
/* may_be_on: neither PowerOn=no nor maintenance nor quarantine. True: try it now; if that fails, the next try is due by itself. It ends when its devices have done it (the caller
 * clears it), when the node is back or in another epoch (ON), or when an operator has let it out of quarantine after the first try (OFF). */
bool power_wish_step(struct power_wish *w, const struct keeper_table_node *t, bool may_be_on, bool in_quarantine, int64_t now_ns);

/* When a node was fenced, the last times: for its quarantine. Every node counts, the one that leads has the catalog say so. */
#define POWER_FENCES_KEPT 100
struct power_fences {
	int64_t at_ns[POWER_FENCES_KEPT];
	unsigned n;
	bool due;         /* more than allowed, and the catalog does not say so yet */
	int64_t asked_ns; /* it was to; 0: not yet */
};

/* Once more. */
void power_fences_add(struct power_fences *f, unsigned limit, int64_t now_ns); /* limit: so many within an hour are too many; 0: never */
/* quarantined: as the catalog says; what was before that is forgotten then, by everybody. True: it is to be edited now. */
bool power_fences_step(struct power_fences *f, bool leads, bool quarantined, int64_t now_ns);

enum power_step { POWER_STEP_NONE, POWER_STEP_START, POWER_STEP_STOP };

bool power_table_counts(const struct keeper_msg *m, int64_t host_ns);

/* The node's line of a table that counts has come, as it does every T_hb. rank: how many usable nodes with a lower id could do the same; they get a little time before us, so that
 * a device with few sessions is not asked by everybody at once. */
enum power_step power_job_step(struct power_job *j, const struct keeper_table_node *t, unsigned rank, int64_t now_ns);
/* The operation has ended. True: tell the keeper, *ret is the evidence (node is the caller's to set). */
bool power_job_ended(struct power_job *j, bool confirmed, int64_t now_ns, struct keeper_evidence *ret);
