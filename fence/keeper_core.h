/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper's decisions. Pure: events and time come in, actions go out; no fd, clock, log or memory management. The daemon and the
 * simulator run the same code through the same dispatch (fence/dispatch.h).
 *
 *   lease.c      rounds (pet, write, then read), epochs, arm and disarm, release
 *   table.c      what the heartbeat table says: newest blocks, their t0, damaged and rolled back volumes
 *   takeover.c   suspicion, intents, commits, deaths
 *   evidence.c   what shortens W: a device's "off", an operator's word; and whom an operator wants fenced
 *   brake.c      when too many are suspect at once nobody is fenced
 *   arbitrate.c  who wins when the ring falls apart
 *   hold.c       an outage of the storage for everybody: peers grant each other round after round
 *   gate.c       who may start a VM; an agent that is silent, and which of its claims still stand
 *
 *              fence quorum read, drained          arm                      commit or higher intent against us,
 *   STARTING -----------------------> DISARMED <---------> ARMED --------+  storage lost, own slot taken, suspend
 *                                        ^     DISARMING <--+            v
 *                                        |         new epoch         RELEASING (gate closed, VMs being killed; no pets)
 *                                        +--------------- RELEASED <-----+ proven silent
 *   DISARMED, ARMED -- service stops, no VM left --> LEAVING --> LEFT
 *   STARTING -- resume is not possible after all, VMs run --> RELEASING -- proven silent --> STARTING, with a new epoch to come; the same way goes an epoch
 *   that was never on a quorum of the volumes
 */
#pragma once

#include "agent/base/timing.h"
#include "fence/arbitrate.h"
#include "storage/format.h"
#include "storage/slot.h"

enum lease_state {
	LEASE_STARTING, LEASE_DISARMED, LEASE_ARMED, LEASE_DISARMING, LEASE_RELEASING, LEASE_RELEASED, LEASE_LEAVING, LEASE_LEFT, LEASE_STATE_COUNT,
};
const char *lease_state_name(enum lease_state s);

enum release_reason {
	RELEASE_NONE, RELEASE_COMMIT, RELEASE_INTENT, RELEASE_STORAGE, RELEASE_SLOT_TAKEN, RELEASE_SUSPEND, RELEASE_EARLIER_LIFE, RELEASE_SHUTDOWN,
};
const char *release_reason_text(enum release_reason r); /* for an operator */

enum fence_reason { FENCE_NONE, FENCE_STALE, FENCE_SPLIT, FENCE_NO_RING, FENCE_OPERATOR };
const char *fence_reason_text(enum fence_reason r);

/* POWER: a fence device has said "off" when asked for its status, after it was told to switch off. OPERATOR: somebody has looked. */
enum fence_evidence { EVIDENCE_NONE, EVIDENCE_POWER, EVIDENCE_OPERATOR };
const char *fence_evidence_text(enum fence_evidence e);

/* Why an operator's word or wish is not taken. */
enum fence_refusal { REFUSAL_NONE, REFUSAL_UNKNOWN, REFUSAL_EPOCH, REFUSAL_OVER, REFUSAL_ALIVE, REFUSAL_LOSING };
const char *fence_refusal_text(enum fence_refusal r);

enum volume_fault { FAULT_NONE, FAULT_WIPED, FAULT_FOREIGN, FAULT_ROLLED_BACK, FAULT_SLOT_TAKEN, FAULT_DAMAGED, FAULT_CHANGED, FAULT_STALE };
const char *volume_fault_text(enum volume_fault f);

enum keeper_event_kind {
	KEEPER_EV_TIMER,         /* the deadline given by keeper_deadline, or any other moment: harmless */
	KEEPER_EV_VOLUME,        /* volume: its session came (ok) or went */
	KEEPER_EV_WRITE_DONE,    /* volume, ok, definite */
	KEEPER_EV_WRITE_SETTLED, /* volume, ok = completed */
	KEEPER_EV_READ_DONE,     /* volume, ok, data: format_table_len bytes (superblocks and table) */
	KEEPER_EV_READ_SETTLED,  /* volume */
	KEEPER_EV_RING,          /* ok = connected, view */
	KEEPER_EV_BELL,          /* a peer has written something worth reading */
	KEEPER_EV_SILENT,        /* every VM process is proven gone and no write of one is on its way */
	KEEPER_EV_ARM,           /* checked by the shell: driver, ring encryption */
	KEEPER_EV_DISARM,
	KEEPER_EV_WATCHDOG,      /* answer to START and STOP: ok */
	KEEPER_EV_LEAVE,         /* the service stops and no VM process is left */
	KEEPER_EV_SHUTDOWN,      /* the service stops for good, and VM processes are left: they are ended first */
	KEEPER_EV_SUSPENDED,
	KEEPER_EV_AGENT,         /* agent: its counter and what it has written */
	KEEPER_EV_HOLD,          /* hold: a peer asks for a hold, or grants one; message.from is who the ring says it is */
	KEEPER_EV_EVIDENCE,      /* evidence */
	KEEPER_EV_PROCESSES,     /* processes: answer to PROCESSES */
	KEEPER_EV_FENCE,         /* an operator wants (evidence.node, evidence.epoch) fenced, though it may be alive */
};

/* About one block of a node: POWER carries what keeper_table_node.asked_* said when the device was first told to switch off, so that it counts for
 * that life of the node and for no other. OPERATOR: seq is not looked at, what counts is that the heartbeat stands still. */
struct keeper_evidence {
	enum fence_evidence kind;
	uint32_t node, epoch;
	uint64_t seq;
};

struct keeper_agent_facts {
	uint64_t counter, claims_seq, catalog_generation, catalog_seq;
};

/* The VMs with a process on this node, as format_vm_mark. known: each one was found out, and nothing is sent any more for one that had a process before. */
struct keeper_processes {
	uint32_t number; /* of the question */
	bool known;
	unsigned n;
	uint32_t mark[FORMAT_MAX_CLAIMS];
};

/* What keepers say to each other over the ring, beside the bell. */
enum hold_kind { HOLD_ASK = 1, HOLD_GRANT, HOLD_KIND_END };

struct hold_msg {
	enum hold_kind kind;
	uint32_t from, to;  /* to: 0 = everybody */
	uint32_t epoch;     /* the asker's round, in both kinds */
	uint64_t seq;
	uint8_t host[16];   /* of who sends it: two hosts with one node id are not one node */
};

struct keeper_event {
	enum keeper_event_kind kind;
	unsigned volume;
	bool ok, definite;
	const void *data;
	union {
		uint64_t view;
		struct keeper_agent_facts agent;
		struct hold_msg hold;
		struct keeper_evidence evidence;
		const struct keeper_processes *processes; /* stays until another question is put */
	};
};

enum keeper_action_kind {
	KEEPER_ACT_PET,
	KEEPER_ACT_WRITE,     /* volume, buffer: keeper.block */
	KEEPER_ACT_READ,      /* volume: superblocks and table */
	KEEPER_ACT_BELL,
	KEEPER_ACT_HOLD,      /* hold: to send */
	KEEPER_ACT_KILL,      /* close the gate (it is), kill all VMs, answer SILENT */
	KEEPER_ACT_WD_START,
	KEEPER_ACT_WD_STOP,
	KEEPER_ACT_PROCESSES, /* arg: number of the question; answer PROCESSES */
	KEEPER_ACT_TELL,      /* tell the agent what the table says */
	KEEPER_ACT_SAVE,      /* remember epoch, life and state for a restart of this process */
	KEEPER_ACT_EXIT,      /* LEFT is published: the process may end */
	KEEPER_ACT_NOTE,      /* something an operator wants to know: note, node, arg */
};

enum keeper_note {
	NOTE_STATE,          /* arg: enum lease_state */
	NOTE_RELEASE,        /* arg: enum release_reason, node: who fences us, 0 unknown */
	NOTE_INTENT,         /* node, arg: enum fence_reason */
	NOTE_WITHDRAWN,      /* node */
	NOTE_COMMIT,         /* node, arg: enum fence_reason */
	NOTE_OVER,           /* node, arg: epoch */
	NOTE_NODE_ALIVE,     /* node, arg: epoch */
	NOTE_NODE_STALE,     /* node */
	NOTE_VOLUME_FAULT,   /* node: volume index, arg: enum volume_fault */
	NOTE_GAP,            /* arg: milliseconds between two of our own reads: all t0 start anew */
	NOTE_WD_FAILED,      /* arg: 1 it could not be stopped, 0 started */
	NOTE_EVIDENCE,       /* node, arg: enum fence_evidence: it is what proves the node over */
	NOTE_EVIDENCE_VOID,  /* node, arg: enum fence_evidence: its block has changed since */
	NOTE_REFUSED,        /* node, arg: enum fence_refusal: an operator's word or wish is not taken */
	NOTE_BRAKE,          /* arg: how many are suspect, so that nobody is fenced; 0: the brake is off again */
	NOTE_EPOCHS_SPENT,   /* a block names us with the highest epoch there is: none can be begun; told once */
	NOTE_FOREIGN_OWNER,  /* our slot holds another host's identity: waiting for its lease to run out */
	NOTE_SILENT,         /* arg: 1 this node's agent is silent and the gate closes, 0 it was heard again */
	NOTE_HOLD,           /* arg: 1 a hold begins, 0 it is over */
};

struct keeper_action {
	enum keeper_action_kind kind;
	unsigned volume, buffer;
	enum keeper_note note;
	uint32_t node, arg;
	struct hold_msg hold;
};

#define KEEPER_MAX_ACTIONS 64

struct table_node {
	bool known;             /* a valid block with an epoch was seen */
	bool advanced;          /* it moved since this keeper started */
	bool advanced_in_view;  /* it moved since our own ring view changed */
	bool fresh;             /* as of the last evaluation */
	struct heartbeat hb;    /* newest */
	int64_t t0_ns;          /* completion of our first read that showed it */
	int64_t view_ns;        /* since when it publishes its present view */
	uint32_t joined;        /* its epoch that was in our ring once */
	int64_t no_ring_ns;     /* since when its blocks say "no ring"; 0 = it has one */
	enum fence_reason reason;
	int64_t heard_ns;       /* when its newest block was read, no gap of ours being before it; 0: not since. t0 moves without it, too, by a gap or a grant */
	bool intent_published, commit_published;
	struct { uint32_t epoch; uint64_t seq; } asked;  /* the block that its devices are to be asked about; epoch 0: none */
	struct { enum fence_evidence kind; uint32_t epoch; uint64_t seq; int64_t ns; } proof; /* ns: a round that begins then or later re-reads it */
	struct { uint32_t epoch; int64_t until_ns; } wanted; /* fenced by an operator; epoch 0: not */
	uint32_t over_published;
	/* Its newest request for a hold; since: of a series without a pause. */
	struct { uint32_t epoch; uint64_t seq; int64_t at_ns, since_ns; bool granted; } ask;
	struct { uint32_t epoch; uint64_t seq; } on[FORMAT_MAX_VOLUMES]; /* newest seen on each volume */
};

enum round_phase { ROUND_IDLE, ROUND_WRITING, ROUND_READING };

struct keeper_volume {
	bool ready;
	enum volume_fault fault; /* sticky until the keeper starts again */
	bool later;              /* it was away and holds a later block of an earlier life: not to be written over by this epoch */
	struct slot slot;
	bool looked;             /* our slot was read since our last write there was issued: only then the next one may be. A second host with this node's id, which can
				  * write and not read, must not end up with both buffers: they would hide what the first one has published */
	int64_t wrote_ns;        /* when that write was issued */
	bool read_busy, write_busy; /* not settled: no other operation of that kind on this volume */
	bool in_round, write_wait, write_ok, read_wait, read_ok; /* this round */
	uint64_t unread;         /* bit (id - 1): nodes of which the last read showed no block that counts */
	int64_t read_issued_ns;
	struct { uint32_t epoch; uint64_t seq; enum heartbeat_state state; uint8_t host[16]; } foreign; /* another host's block in our slot, while we start; epoch 0: none */
	uint32_t acked_epoch;    /* newest own block known to be on it */
	uint64_t acked_seq;
	uint32_t expect_epoch;   /* the same when the read under way was issued: what it must show at least */
	uint64_t expect_seq;
};

/* See hold.c. */
struct hold {
	bool ready;          /* this process has renewed on the volumes under this epoch */
	bool due;            /* the round before was not renewed on the volumes: ask */
	uint64_t granted;    /* bit (id - 1): who has granted the round under way */
	uint64_t rounds, counted_seq; /* that counted by grants; the last of them */
	int64_t since_ns;    /* the present hold's first round; 0 = none */
	int64_t read_ns;     /* when the last read of the table that succeeded was issued */
	/* As a peer of others. */
	int64_t good_ns;     /* end of our last round on a fence quorum */
	int64_t lost_ns;     /* since when we have no fence quorum; 0 = we have one */
	bool had_storage;    /* since this process started */
	int64_t outage_ns, regained_ns; /* the last time without one */
};

enum gate_state { GATE_CLEARING, GATE_OPEN, GATE_CLOSED, GATE_VOID }; /* as far as the agent is concerned; the lease has its own say */

/* See gate.c. */
struct gate {
	enum gate_state state;
	uint64_t term;       /* a start must have been claimed or confirmed under it */
	int64_t heard_ns;    /* when the agent's counter moved last, or since when we listen */
	uint32_t asked;      /* number of the last question for the processes */
	unsigned cleared;    /* CLEARING: so many blocks of a quorum say nothing of void claims */
};

struct keeper_options {
	uint32_t self;
	uint8_t cluster[16], host[16], boot[16], life[16]; /* life: fresh random */
	struct superblock set;   /* what every volume of the set says, but for its index */
	uint32_t n_volumes, node_limit;
	struct timing timing;
	uint64_t members;        /* bit (id - 1): nodes of the configuration */
	bool keep_on_ring_loss;  /* OnRingLoss=keep: never fence or be fenced for a lost ring while heartbeats go on */
	uint32_t brake_percent;  /* of the nodes; with more suspect at once nobody is fenced; 100: never */
	uint32_t wd_ms, wd_delay_ms; /* as read back from the driver; wd_ms may be FORMAT_SILENCE_IS_NO_PROOF */
	/* A restarted keeper that still holds the watchdog goes on with the epoch and life it had. */
	bool resume;
	uint32_t resume_epoch;   /* of the process before in this boot, whether it is gone on with or not; 0 unknown */
	uint8_t resume_life[16];
	uint64_t resume_seq;     /* where that life began to number */
	bool watchdog_runs;      /* its held fd is armed */
	uint32_t wd_left_ms;     /* then: until it fires; 0 = not known */
};

struct keeper {
	struct keeper_options opt;
	enum lease_state state;
	bool want_armed, want_leave, wd_running;
	bool wd_asked, wd_starting; /* START or STOP is under way; which */
	uint32_t epoch;
	uint64_t seq;
	struct heartbeat block;  /* being (or last) written */
	struct heartbeat mine;   /* what the next write will say */
	enum release_reason release;
	uint32_t release_by;
	bool slot_taken, epoch_shared, earlier_life, foreign_seen, epochs_spent;
	int64_t foreign_ns;      /* while we start: when another host's block in our slot was last seen to move */

	enum round_phase phase;
	bool kick, bell_due;
	bool renewed;            /* a renewal succeeded since the last pet */
	bool on_quorum;          /* this epoch was on a renew quorum, perhaps in the life we go on with: nobody can take its number for a free one */
	bool armed_published;    /* and since it is armed, a block that says so */
	bool published;          /* this epoch is on a renew quorum, in both buffers: a block that rots does not take it back */
	bool known_to_all;       /* this epoch is on a fence quorum: who reads the table from now on knows of it */
	int64_t round_ns, read_ns, next_round_ns, last_pet_ns, last_renewal_ns, last_observed_ns, state_ns, writable_ns;
	unsigned rounds_in_state, epoch_renewals;
	uint64_t pets, renewals; /* S4 */

	bool ring_up;
	enum heartbeat_ring ring;
	uint64_t view;
	int64_t ring_ns, view_ns;

	struct table_node node[FORMAT_MAX_NODES];
	struct keeper_volume volume[FORMAT_MAX_VOLUMES];
	struct arbitration arb;
	int64_t winner_ns;       /* since when the same group wins */
	unsigned braked;         /* so many are suspect at once that nobody is fenced; 0: go on */
	struct keeper_agent_facts agent;
	uint64_t asked_seq, read_seq; /* what the agent had said of its claims when the reads under way, and when the last ones of a fence quorum, were issued */
	struct gate gate;
	struct hold hold;

	struct keeper_action action[KEEPER_MAX_ACTIONS];
	unsigned n_actions;
	int64_t now_ns;
};

void keeper_init(struct keeper *k, const struct keeper_options *opt, int64_t now_ns);
void keeper_step(struct keeper *k, const struct keeper_event *ev, int64_t now_ns);
int64_t keeper_deadline(const struct keeper *k); /* when to send KEEPER_EV_TIMER at the latest */
bool keeper_gate_open(const struct keeper *k, uint32_t epoch, int64_t now_ns);
bool keeper_gate_admits(const struct keeper *k, uint32_t epoch, uint64_t term, int64_t now_ns); /* a launcher that comes with these */

/* Between the files of the core. */
void keeper_act(struct keeper *k, enum keeper_action_kind kind);
void keeper_note(struct keeper *k, enum keeper_note note, uint32_t node, uint32_t arg);
void keeper_kick(struct keeper *k); /* the next round starts as soon as this one is over, and peers are told to read */
bool keeper_is_member(const struct keeper *k, uint32_t node);
static inline int64_t keeper_ms(uint32_t ms) { return (int64_t)ms * NS_PER_MS; }

/* table.c: takes in what a volume's read showed. Says whether the read counts, for all nodes but those in `unread`. */
bool table_absorb(struct keeper *k, unsigned volume, const void *data);
/* The same of a read that came too late for its round, which says only who has written to our slot. */
void table_look(struct keeper *k, unsigned volume, const void *data);
/* On how many volumes this round's reads have shown the block of every node: a quorum is one for each node's block. */
unsigned table_reads(const struct keeper *k);
/* A fence quorum of reads has completed. */
void table_observed(struct keeper *k);
/* First node whose fence commit names (us, our epoch), or 0. */
uint32_t table_commit_against(const struct keeper *k);
/* 1 + the highest epoch anything on the volumes names us with. */
/* 0: there is none. */
uint32_t table_next_epoch(const struct keeper *k);

/* takeover.c: after an observed round; acked: the round's block is on a fence quorum. */
void takeover_round(struct keeper *k, bool acked);
/* A fresh intent against us that we too compute as higher: its node, or 0. */
uint32_t takeover_lost_to(const struct keeper *k);
uint32_t takeover_ended_by_later(const struct heartbeat *hb);
int64_t takeover_deadline(const struct keeper *k);
/* Our intent against a node is withdrawn, if there is one. */
void takeover_withdraw(struct keeper *k, uint32_t id);

/* hold.c: with each round's begin, when its block is made; and with its end: fence: a fence quorum was read and, if anything was to be written, written before, read: read from
 * a renew quorum, renewed: on the volumes. */
void hold_round_begins(struct keeper *k);
void hold_round_unwritten(struct keeper *k, bool renew); /* its writes are over, and not on a fence quorum; renew: they are on a renew quorum */
void hold_round_over(struct keeper *k, bool fence, bool read, bool renewed);
void hold_round_empty(struct keeper *k);
void hold_epoch_begins(struct keeper *k);
void hold_over(struct keeper *k);
void hold_message(struct keeper *k, const struct hold_msg *m);
/* A lease that a hold may carry through an outage. */
bool lease_may_hold(const struct keeper *k);
/* Another's silence says something to us: while our epoch lives, and whoever reads the table knows of it, so that nobody holds without our word. */
bool lease_may_judge(const struct keeper *k);

/* gate.c */
void gate_epoch_begins(struct keeper *k);
void gate_facts(struct keeper *k, uint64_t counter); /* before they are taken */
void gate_tick(struct keeper *k);
void gate_round_begins(struct keeper *k);
void gate_round_over(struct keeper *k, bool acked);
void gate_processes(struct keeper *k, const struct keeper_processes *p);
int64_t gate_deadline(const struct keeper *k);

#define HOLD_MSG_LEN 64U
void hold_encode(const struct hold_msg *m, const uint8_t cluster[16], uint8_t buf[HOLD_MSG_LEN]);
/* from: who the ring says it is from. False: no such message, or another cluster's; *ret is untouched then. */
bool hold_decode(const void *buf, size_t len, uint32_t from, const uint8_t cluster[16], struct hold_msg *ret);

bool takeover_wins(const struct keeper *k); /* our group is the one that fences */
bool takeover_silence_proves(const struct table_node *n); /* W of it says that its VMs have ended */

/* evidence.c */
void evidence_event(struct keeper *k, const struct keeper_evidence *ev);
void evidence_wish(struct keeper *k, uint32_t node, uint32_t epoch);
bool evidence_wants(const struct keeper *k, uint32_t id);  /* an operator does, or has said that the node is dead */
bool evidence_counts(const struct keeper *k, uint32_t id); /* its epoch is over, W or not. With our commit against it, after an observed round */
void evidence_unread(struct keeper *k); /* a round without a fence quorum of reads: nobody is switched off on what was read before */
void evidence_round(struct keeper *k, uint32_t id);        /* what is asked for from now on; what holds no more is forgotten */

/* brake.c: before anybody is judged in an observed round. */
void brake_round(struct keeper *k);
