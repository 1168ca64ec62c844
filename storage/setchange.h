/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A change of the volume set by one volume: add, remove, replace (also by itself: a volume that was wiped or rolled back). Pure; `ha-ctl volume` and the
 * simulator carry its steps out.
 *
 *   LOOK      the superblocks of all volumes of the former and of the new set
 *   STATE     heartbeats, heads of claims and catalogs from a fence quorum of the former set: may it change at all? With `lost` twice, some rounds between:
 *             no heartbeat may move. What an earlier run has frozen of a set that may not change is taken back; nothing else is frozen for that
 *   FREEZE    the superblocks of the former set: frozen, with a number drawn for this run
 *   WAIT      as long as another operator may take from looking to writing, and writes may be late; with `lost`, W
 *   RECHECK   all are still frozen by this run, else somebody else is at it: stop
 *   RESTATE   the state once more: what it says now is the last that can have been granted
 *   PREPARE   the new volume's superblock: of the new set, frozen
 *   COPY      the newest block of each node onto the new volume, then read back
 *   LAST LOOK all are still frozen by this run
 *   FINISH    superblocks of the new set: volumes of both sets first, the new one last
 *   SETTLE    in FINISH, after the first one: WAIT, and it must still be there
 *
 * Why there are never two sets with a quorum each: keeper and agent take a read of a volume for one only if its superblock, read with it, is of their set
 * and not frozen. A frozen superblock on a fence quorum of the former set is met by every renewal and by every claim's re-read. So what counts under
 * the former set was acknowledged before, and COPY, which reads from a fence quorum after, has it. The first superblock that FINISH writes
 * decides: from then on there is no way back, and running the command again goes on. Before, nothing of the new set is valid anywhere.
 * Each frozen superblock says what set is to come: whoever finds it goes on with just that, though a volume that may be decided already cannot be read.
 *
 * That is about claims, deaths and renewals. A node whose block says `armed` may be judged by W, which asks that all its renewals go to volumes we see: so
 * the set changes only if no node's newest block says so, unless its epoch is over. With two volumes of which one is lost nobody can disarm: `lost` is
 * the operator's word that no node reaches it any more, and then no heartbeat may move for W.
 *
 * Two operators: RECHECK, and every volume is looked at right before it is written, before the first superblock of FINISH all that are frozen: whoever has frozen one anew since, and
 * takes that back, does so after a WAIT that is longer. Who looked before the first superblock of FINISH was there and freezes
 * after puts it back, has done so after SETTLE's wait, and would go on: so nothing else is written before that. A process that stands still between look and
 * write for longer, while another one completes a change, can put one volume back; whoever carries the acts out does not write when the look was long ago. */
#pragma once

#include "storage/format.h"

/* What a volume's superblocks (2 * FORMAT_BLOCK bytes, as read from its start) say to somebody who works with `own` on the volume of that index. */
enum superblock_verdict {
	SUPERBLOCK_SAME,
	SUPERBLOCK_CHANGED, /* of the same cluster, frozen, or of a later generation or another set: the volume set is not what it was. By one copy, unless
			     * that is of an earlier generation and the other is ours */
	SUPERBLOCK_STALE,   /* of the same cluster and of an earlier generation */
	SUPERBLOCK_FOREIGN, /* another cluster's, or another volume of this one */
	SUPERBLOCK_WIPED,
	SUPERBLOCK_DAMAGED, /* torn or rotten: may be whole when it is read again */
};
enum superblock_verdict superblock_check(const void *data, const struct superblock *own, unsigned index);
#define SETCHANGE_MAX (FORMAT_MAX_VOLUMES + 1)

enum setchange_kind { SETCHANGE_ADD, SETCHANGE_REMOVE, SETCHANGE_REPLACE };

enum setchange_act {
	SETCHANGE_LOOK,    /* volume: read its superblocks */
	SETCHANGE_STATE,   /* volume: read the state of all nodes */
	SETCHANGE_WRITE,   /* volume: write sb to both copies, and read back */
	SETCHANGE_COPY,    /* volume: write the chosen block of each node into both buffers of its slot, and read back */
	SETCHANGE_WAIT,    /* ms */
	SETCHANGE_DONE,
	SETCHANGE_REFUSED, /* why; nothing was changed, or what was frozen is as it was */
	SETCHANGE_STOPPED, /* why; the set stays frozen, or half changed: the same command again goes on */
};

/* What a volume holds of a node. */
struct setchange_slot {
	bool readable;
	uint32_t epoch;
	uint64_t seq, generation; /* generation: a catalog's */
	/* heartbeats only */
	enum heartbeat_state state;
	uint32_t over[FORMAT_MAX_NODES], commit[FORMAT_MAX_NODES];
	uint64_t claims_seq, catalog_generation, catalog_seq;
};
enum setchange_block { SETCHANGE_HEARTBEAT, SETCHANGE_CLAIMS, SETCHANGE_CATALOG, SETCHANGE_BLOCKS };
struct setchange_state { struct setchange_slot slot[FORMAT_MAX_NODES][SETCHANGE_BLOCKS]; };

struct setchange_volume {
	bool reachable;
	int index;              /* in Volumes= as it is to be; -1: the one that goes */
	bool is_new;            /* takes part from now on, or anew: its content counts for nothing */
	enum format_status status;
	struct superblock sb;   /* valid with FORMAT_OK: the better copy, frozen if either is */
	bool torn;              /* the other copy is of another generation: sb is to be written again */
	enum format_status first_status; /* as LOOK found it */
	struct superblock first;
	bool member, frozen, finished; /* member: of the former set; frozen by this run */
	int old_index;
	bool has_state;
	struct setchange_state state;
};

struct setchange {
	/* the caller's */
	enum setchange_kind kind;
	bool lost, in_place;    /* in_place: REPLACE of a volume by itself */
	char cluster_name[64];
	uint8_t change[16], incarnation[16]; /* fresh random */
	struct timing timing;
	unsigned n;
	struct setchange_volume volume[SETCHANGE_MAX];
	/* what is to be done */
	enum setchange_act act;
	unsigned at;
	bool chained;         /* LOOK: what follows from it follows from those before it, too: its time is that of the first */
	struct superblock sb;
	uint32_t ms;
	unsigned from[FORMAT_MAX_NODES][SETCHANGE_BLOCKS]; /* COPY: volume whose block is the newest */
	const char *why;      /* REFUSED, STOPPED; */
	uint32_t node, have, need; /* about this node, so many volumes where so many are needed; 0: not about that */
	/* inside */
	unsigned step;
	bool has_looked;      /* LAST LOOK: at one of them */
	bool looked;          /* the volume has just been looked at and is to be written now */
	bool decided, was_frozen; /* an earlier run had got so far */
	int frozen_at;        /* DONE: nothing was left to do of it, but this volume is frozen for another change; -1: none */
	bool settled;         /* the first superblock of the new set is not put back any more */
	bool goes_on;         /* all that is frozen was to become what this run makes of it, but for the incarnation, and with another one nothing is decided */
	bool takes_back;      /* what an earlier run has frozen; no more than that */
	unsigned has_set;
	struct superblock former, next;
	struct { uint32_t epoch; uint64_t seq; } watched[FORMAT_MAX_NODES];
};

/* Fill the caller's part and each volume's reachable, index, is_new; then do act and say what came of it, until it is one of the last three. */
void setchange_begin(struct setchange *c);
/* How old the look, or the first of several that are chained, may be when a write is sent; the write is not sent if it is older. */
uint32_t setchange_looked_ms(const struct setchange *c);
/* ok: it was done. LOOK has filled status, sb and torn of the volume, STATE its state. */
void setchange_next(struct setchange *c, bool ok);
/* What a volume's superblocks say: if one copy is frozen or later, that one. */
enum format_status setchange_superblock(const void *data, struct superblock *ret);
/* Power went between the two copies. */
bool setchange_torn(const void *data);
/* COPY takes its time: the new volume's superblock must be this all along. */
bool setchange_holds(const struct setchange *c, enum format_status status, const struct superblock *sb);
const char *setchange_text(const struct setchange *c); /* of act, for an operator */
