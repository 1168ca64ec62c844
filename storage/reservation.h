/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SCSI-3 persistent reservations on the LUNs that VMs use (SPC-4, 5.13 and 6.15/6.16). Pure: keys, what PERSISTENT RESERVE IN answers, and which command comes
 * next. Who sends the commands is reserve_sg.c, or the simulator.
 *
 * The type is "write exclusive, registrants only": who has registered writes, all others are refused, and anybody reads. So a node that registered, and whose
 * registration was preempted since, writes no more, whatever it does and however late: its initiator's registration is gone at the target.
 *
 *   PROBE  can this LUN be reserved for us? Changes nothing
 *   JOIN   register on each path, and leave the others alone: another node's guest may run
 *   OWN    nobody else runs the VM any more: preempt the others, reserve and verify; registers nothing: a path that is not registered (any more) is LOST
 *   CHECK  is our key still registered on each path? Changes nothing: beside us a guest may run that has not registered, and a reservation would cut it off
 *   KEEP   the same of who owns it: a reservation that has gone is made again; tells whether others have registered since (OTHERS)
 *   LEAVE  take our key back
 *
 * Of a LUN that its VM goes without, as the configuration says, or another of its disks. What the cluster has reserved before would keep it from writing:
 *   LOOK     has a node of the cluster registered? Then we do (STANDS), so that it can be done away with; else NONE. A disk of which nobody hears anything is used as ever
 *            (a USB bridge may know nothing of it), but not one whose path is only held back for now: what is reserved there cannot be seen
 *   CLEAR    nobody else runs the VM any more: preempt the cluster's others, and take back ours, so that nothing is reserved. Strangers are left alone
 *   RELEASE  our guest runs, and goes on without: end the reservation, and only then take our key back
 *
 * Whether a path is registered is asked by REGISTER with our key as the present and as the new one: a target takes that from an initiator which has
 * just this key, and refuses it (RESERVATION CONFLICT) from every other. So no question can put a key back that was preempted.
 *
 * A path that does not answer is left out from then on: one dead path of several must stop nothing, and what it was to carry another one does. One that answers is enough.
 * A path that was dead at the start is not registered when it comes back. What is written by it is refused, so CHECK and KEEP tell LOST of it. */
#pragma once

#include "agent/base/util.h"

#define RESERVATION_MAX_KEYS 256
#define RESERVATION_MAX_PATHS 32
#define RESERVATION_IN_LEN (8 + 8 * RESERVATION_MAX_KEYS) /* as much of READ KEYS as anybody reads */
#define RESERVATION_OUT_LEN 24
#define RESERVATION_WERO 5 /* write exclusive, registrants only */
#define RESERVATION_MAX_NODE 64

/* 24 bits of the cluster, 8 of the node, 32 of the epoch under which it registers; never 0. */
uint64_t reservation_key(const uint8_t cluster[16], uint32_t node, uint32_t epoch);
enum reservation_whose { RESERVATION_MINE, RESERVATION_CLUSTERS, RESERVATION_STRANGE /* another cluster's, or none that we would make */ };
enum reservation_whose reservation_whose(uint64_t mine, uint64_t other);
static inline uint32_t reservation_key_node(uint64_t key) { return (uint32_t)(key >> 32) & 0xff; }
static inline uint32_t reservation_key_epoch(uint64_t key) { return (uint32_t)key; }

struct reservation_keys { unsigned n; uint64_t key[RESERVATION_MAX_KEYS]; };
struct reservation_holder { bool held; uint64_t key; unsigned type; };
struct reservation_capabilities { bool persistent /* can keep registrations over its loss of power */, says_types, wero; };

/* Parameter data of PERSISTENT RESERVE IN, of which len bytes have come. False: no valid answer, or one that is cut off, and nothing follows from it. */
bool reservation_parse_keys(const uint8_t *data, size_t len, struct reservation_keys *ret);
bool reservation_parse_holder(const uint8_t *data, size_t len, struct reservation_holder *ret);
bool reservation_parse_capabilities(const uint8_t *data, size_t len, struct reservation_capabilities *ret);

enum reservation_op { RESERVATION_PROBE, RESERVATION_JOIN, RESERVATION_OWN, RESERVATION_CHECK, RESERVATION_LEAVE, RESERVATION_KEEP, RESERVATION_LOOK, RESERVATION_CLEAR,
	RESERVATION_RELEASE,
	/* of a VM, not of a LUN: */
	RESERVATION_LEARN, /* found running: KEEP if it was started under a reservation, OWN if it came by a migration that was not owned yet, else NONE */
	RESERVATION_FORGET, /* whatever is under way is not wanted any more; no answer */
	RESERVATION_OP_COUNT };
const char *reservation_op_name(enum reservation_op op);
bool reservation_op_parse(const char *name, enum reservation_op *ret); /* of those of a LUN */

enum reservation_result {
	RESERVATION_OK,
	RESERVATION_NONE,    /* this LUN cannot be reserved: it goes without */
	RESERVATION_STANDS,  /* the same, but the cluster's keys are on it, and now ours, too: CLEAR */
	RESERVATION_OTHERS,  /* KEEP: well, but for others' keys */
	RESERVATION_FOREIGN, /* somebody else's key is on it, who is not preempted */
	RESERVATION_LOST,    /* OWN, CHECK, KEEP: our key is gone */
	RESERVATION_FAILED,  /* for now */
	RESERVATION_RESULT_COUNT,
};
const char *reservation_result_name(enum reservation_result r);

enum reservation_command_kind { RESERVATION_END, RESERVATION_REPORT_CAPABILITIES, RESERVATION_READ_KEYS, RESERVATION_READ_HOLDER,
	RESERVATION_REGISTER_IGNORE, RESERVATION_REGISTER, RESERVATION_RESERVE, RESERVATION_GIVE_UP /* RELEASE */, RESERVATION_PREEMPT, RESERVATION_PREEMPT_ABORT };
struct reservation_command {
	enum reservation_command_kind kind;
	unsigned path;
	uint64_t key, service_key; /* service_key: the one to register, or to preempt; 0 with REGISTER: unregister */
	bool aptpl;                /* "activate persist through power loss" */
};
bool reservation_is_in(enum reservation_command_kind k);
bool reservation_is_typed(enum reservation_command_kind k); /* says which type of reservation is meant */
unsigned reservation_service_action(enum reservation_command_kind k); /* of PERSISTENT RESERVE IN or OUT */
void reservation_out_parameters(const struct reservation_command *c, uint8_t ret[RESERVATION_OUT_LEN]);

enum reservation_status { RESERVATION_GOOD, RESERVATION_CONFLICT, RESERVATION_REFUSED /* it does not know the command */, RESERVATION_ILLEGAL /* nor it in this form */,
	RESERVATION_ERROR /* no answer, or none that tells anything */ };
struct reservation_answer {
	enum reservation_status status;
	bool later;                                   /* ERROR: the kernel holds the path back for now, or the target does: it may answer another time */
	struct reservation_keys keys;                 /* READ_KEYS */
	struct reservation_holder holder;             /* READ_HOLDER */
	struct reservation_capabilities capabilities; /* REPORT_CAPABILITIES */
};

/* One operation on one LUN: next() says which command is to be sent, answer() takes what came of it, until next() says END. */
struct reservation_plan {
	enum reservation_op op;
	uint64_t key;
	unsigned n_paths, path;
	uint32_t away;      /* bit: a path that has not answered */
	bool later;         /* one of those may, another time */
	bool volatile_ok;   /* a target that loses registrations with its power will do */
	unsigned phase, rounds;
	bool no_abort;      /* it knows PREEMPT only, or has not answered the other */
	uint64_t victim;    /* to be preempted */
	bool done;
	enum reservation_result result;
	uint64_t strange;   /* FOREIGN: whose */
	const char *why;    /* in words; OK: "", unless there is something to be said */
};
void reservation_plan_init(struct reservation_plan *p, enum reservation_op op, uint64_t key, unsigned n_paths, bool volatile_ok);
struct reservation_command reservation_next(const struct reservation_plan *p);
void reservation_answer(struct reservation_plan *p, const struct reservation_answer *a);
