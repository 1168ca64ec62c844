/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The invariants of DESIGN.md, asserted where something happens that could break them.
 *
 *   S1  check_exec: never two QEMU processes of a VM; check_image_landed: nothing of an older writer lands once a newer was started
 *   S2  check_exec, check_landed: a QEMU's own claim is active on a fence quorum of the volumes for as long as it runs
 *   S3  check_over, check_exec: no process of an epoch that anybody has declared over
 *   S4  check_pet: the round before was written to a renew quorum and then read from one; check_hold: or everybody has granted just that round
 *   S5  check_write_issued: no write to a slot while another of the same writer may still land on it
 *   S3  check_gate, check_void_taken: while a keeper says that claims of its node are void its gate is closed, and nobody goes by what it has taken back
 *   S6  check_landed: (epoch, seq) of a slot grows, commits and deaths are carried on; check_write_issued: a node claims nothing below what it was
 *       granted; check_exec: across nodes
 *   C1  check_edit_counts: an edit of the catalog that counted is in every later one that counts
 *   L2  check_commit, check_intent, check_release: nobody is fenced, suspected or driven out who did nothing for it
 *   L6  check_release, check_watchdog_reset, check_gone: nobody is released or reset and no VM ends for an outage of the storage that hits everybody
 *   L4  check_watchdog_reset;  L5  check_release, check_commit: two groups never end each other;  L1, L3: check_lively */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>

#define HANDOVER_MS 3000
#define CALM_MS 30000 /* L2: nothing was wrong with a node for this long */

static struct { uint32_t epoch; uint64_t seq; } newest[SIM_MAX_NODES][2][FORMAT_MAX_VOLUMES];
/* The same, and back where the volume is when it was rolled back over what no other volume had: those numbers are lost, and may come again. */
static struct { uint32_t epoch; uint64_t seq; bool copied; } landed[SIM_MAX_NODES][2][FORMAT_MAX_VOLUMES];
static uint32_t ever_epoch[SIM_MAX_NODES]; /* that was on a volume which was replaced since */
static struct { uint64_t incarnation, generation; uint32_t life; } granted[SIM_MAX_NODES][SIM_MAX_VMS];
static struct { uint64_t incarnation, generation, migration; } handed[SIM_MAX_VMS]; /* the last release for a migration that was issued */
static uint32_t epoch_of_pet[SIM_MAX_NODES];
static struct number { uint32_t life, epoch; uint64_t seq, boots; } used[SIM_MAX_NODES][2]; /* highest that was written, and by which process */
/* Newest that a process has read of a slot on a volume. */
static struct seen { uint32_t life, epoch; uint64_t seq; } seen[SIM_MAX_NODES][2][FORMAT_MAX_VOLUMES][SIM_MAX_NODES];
/* A keeper's own reads of the table: the last, by its clock, and when it was back from a gap. */
static struct away { uint32_t life; int64_t observed_ns, back_ns; } away[SIM_MAX_NODES];
/* Generation under which a node was the last to run a VM, while no later claim has said that it is quiet; 0: it was not. */
static struct { uint64_t incarnation, generation; } ran[SIM_MAX_NODES][SIM_MAX_VMS];

/* What a node has had on a fence quorum of the volumes about each other one, and in which of its blocks first. */
struct carried { uint32_t epoch; struct { uint32_t epoch; uint64_t seq; } since; };
static struct carried death[SIM_MAX_NODES][SIM_MAX_NODES], commitment[SIM_MAX_NODES][SIM_MAX_NODES];
static uint32_t said_over[SIM_MAX_NODES];                  /* highest epoch that is over by the word of a block that has landed */
static struct { uint32_t epoch; int64_t ns; } named[SIM_MAX_NODES][SIM_MAX_NODES]; /* last issue or landing of an intent or commit of the first against the second */
static struct { uint32_t against, own; } split_commit[SIM_MAX_NODES][SIM_MAX_NODES];
static struct { uint32_t by; int64_t ns; } lost[SIM_MAX_NODES];
#define BEATS 64
/* Heartbeats that reached a renew quorum: when the first volume had them, when the quorum. */
static struct { struct { int64_t first, quorum; } at[BEATS]; unsigned n; uint32_t epoch, counted_epoch; uint64_t seq, counted_seq; bool counted; int64_t first; } beats[SIM_MAX_NODES];
static struct { uint32_t life, epoch; } proven[SIM_MAX_NODES][SIM_MAX_NODES]; /* by evidence: the second's epoch, for the first */
static uint32_t state_of[SIM_MAX_NODES];
/* The newest heartbeat that has landed on a volume; and in which one a node's keeper has said last that claims are void, until when: 0: they are. */
static struct { uint32_t epoch; uint64_t seq, silent_seq /* the newest of that epoch that says so; 0: none */; unsigned cleared; /* buffers that hold one which has landed since: a bit each */ } told[SIM_MAX_NODES][FORMAT_MAX_VOLUMES];
static struct { uint32_t epoch; uint64_t seq /* newest that says so */; int64_t cleared_ns, sure_ns /* without a volume that may lose it again */; } voided[SIM_MAX_NODES];
/* The newest word that none of its claims is void which the storage has acknowledged and lost: another device stood in, or it went astray. */
static struct { uint32_t epoch; uint64_t seq; } swallowed[SIM_MAX_NODES][FORMAT_MAX_VOLUMES];
/* The newest generation of a node's active claim that has landed on each volume, and when it was on a fence quorum. */
static struct { uint64_t on[FORMAT_MAX_VOLUMES], quorum; int64_t quorum_ns; } claimed[SIM_MAX_NODES][SIM_MAX_VMS];
#define EDITS 65536
/* The last grant that a node gave, by its clock, to each other one. */
static struct { uint32_t life, epoch; uint64_t seq; int64_t ns; } grants[SIM_MAX_NODES][SIM_MAX_NODES];
static struct { uint32_t life; uint64_t rounds; } held[SIM_MAX_NODES];
/* Since when a node's epoch is on a fence quorum, by its clock. */
static struct { uint32_t life, epoch; int64_t ns; } began[SIM_MAX_NODES];
static uint32_t edit_base[EDITS], n_edits_made, last_counted;

void check_reset(void)
{
	memset(newest, 0, sizeof(newest));
	memset(landed, 0, sizeof(landed));
	memset(ever_epoch, 0, sizeof(ever_epoch));
	memset(granted, 0, sizeof(granted));
	memset(handed, 0, sizeof(handed));
	memset(epoch_of_pet, 0, sizeof(epoch_of_pet));
	memset(ran, 0, sizeof(ran));
	memset(seen, 0, sizeof(seen));
	memset(used, 0, sizeof(used));
	memset(away, 0, sizeof(away));
	memset(death, 0, sizeof(death));
	memset(commitment, 0, sizeof(commitment));
	memset(said_over, 0, sizeof(said_over));
	memset(named, 0, sizeof(named));
	memset(split_commit, 0, sizeof(split_commit));
	memset(lost, 0, sizeof(lost));
	memset(proven, 0, sizeof(proven));
	memset(state_of, 0, sizeof(state_of));
	memset(beats, 0, sizeof(beats));
	memset(told, 0, sizeof(told));
	memset(voided, 0, sizeof(voided));
	memset(swallowed, 0, sizeof(swallowed));
	memset(claimed, 0, sizeof(claimed));
	memset(grants, 0, sizeof(grants));
	memset(held, 0, sizeof(held));
	memset(began, 0, sizeof(began));
	n_edits_made = last_counted = 0;
	places_reset();
}

void violation(const char *invariant, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	history_add("VIOLATION %s: %s", invariant, text);
	sim.stats.violations++;
	if (!sim.failed) {
		(void)str_copy(sim.failed_invariant, sizeof(sim.failed_invariant), invariant);
		(void)str_copy(sim.failed_text, sizeof(sim.failed_text), text);
		sim.failed_ns = sim.now;
	}
	sim.failed = true;
}

static const struct claim *claim_in(const struct block *b, unsigned vm)
{
	for (uint32_t i = 0; i < b->cl.n; i++)
		if (memcmp(b->cl.claim[i].vm, sim.vm[vm].uuid, 16) == 0)
			return &b->cl.claim[i];
	return NULL;
}

static void check_generations(const struct op *op)
{
	const struct node *n = op->node;

	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		const struct claim *c = claim_in(op->block, vm);

		/* A claim that started nothing, on a volume that has lost it and one other: those who read that volume and the third never see it. */
		if (sim.liar >= 0 && (sim.vm[vm].image.runner.node != n->id || sim.vm[vm].image.runner.generation < granted[n->id - 1][vm].generation))
			continue;
		if (c && c->state == CLAIM_ACTIVE && granted[n->id - 1][vm].incarnation == sim.vm[vm].incarnation &&
		    c->generation < granted[n->id - 1][vm].generation)
			violation("S6", "node %u claims VM %u as generation %llu after it was granted %llu", n->id, vm, (unsigned long long)c->generation,
				  (unsigned long long)granted[n->id - 1][vm].generation);
	}
}

/* NULL: one of the two is rotten, and it may have been the newer. */
static const struct block *newest_claims(unsigned volume, uint32_t node)
{
	struct block *const *b = sim.target[volume].data.block[node - 1][BLOCK_CLAIMS];

	if (b[0]->status != FORMAT_OK || b[1]->status != FORMAT_OK)
		return NULL;
	return format_compare(b[0]->cl.epoch, b[0]->cl.seq, b[1]->cl.epoch, b[1]->cl.seq) >= 0 ? b[0] : b[1];
}

static const struct heartbeat *heartbeat_on(unsigned volume, uint32_t node, unsigned buffer)
{
	const struct block *b = sim.target[volume].data.block[node - 1][BLOCK_HEARTBEAT][buffer];

	return b->status == FORMAT_OK ? &b->hb : NULL;
}

/* On how many volumes a block of the node says at least that much, or has said it. A rotten one says it all, and a volume that went back to an old image has said it:
 * what storage has lost no node is to blame for. */
static unsigned volumes_that_say(uint32_t node, uint32_t about, uint32_t epoch, bool commit, bool said)
{
	unsigned n = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		bool says = said && (sim.target[v].rolled_back || sim.liar == (int)v);

		for (unsigned b = 0; b < 2; b++) {
			const struct heartbeat *hb = heartbeat_on(v, node, b);

			says = says || (said && !hb) || (hb && (commit ? hb->commit : hb->over)[about - 1] >= epoch);
		}
		n += says;
	}
	return n;
}

/* What is left of them: whoever reads it knows that the VM was given up, whatever the rotten one was. */
static const struct block *newest_valid_claims(unsigned volume, uint32_t node)
{
	struct block *const *b = sim.target[volume].data.block[node - 1][BLOCK_CLAIMS];

	if (newest_claims(volume, node))
		return newest_claims(volume, node);
	return b[0]->status == FORMAT_OK ? b[0] : b[1]->status == FORMAT_OK ? b[1] : NULL;
}

/* A later block of the same node, on whatever volume, gave the VM up. */
static bool is_superseded(const struct block *b, uint32_t node, unsigned vm)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct block *x = newest_valid_claims(v, node);
		const struct claim *c = x ? claim_in(x, vm) : NULL;

		if (c && c->state != CLAIM_ACTIVE && format_compare(x->cl.epoch, x->cl.seq, b->cl.epoch, b->cl.seq) > 0)
			return true;
	}
	return false;
}

/* Its active claim as each fence quorum of the volumes shows it, and as its newest block does: one that reached fewer nobody need have seen, of volumes that
 * have lost what they acknowledged an older quorum may be left, and one that is written again after it was given up has yet to reach a quorum. */
static const struct claim *acked_claim(uint32_t node, unsigned vm)
{
	const struct block *newest_block = NULL;
	const struct claim *found;
	unsigned on = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct block *b = newest_valid_claims(v, node);

		if (b && (!newest_block || format_compare(b->cl.epoch, b->cl.seq, newest_block->cl.epoch, newest_block->cl.seq) > 0))
			newest_block = b;
	}
	found = newest_block ? claim_in(newest_block, vm) : NULL;
	for (unsigned v = 0; found && v < sim.n_volumes; v++) {
		const struct block *b = newest_claims(v, node);
		const struct claim *c = b ? claim_in(b, vm) : NULL;

		/* Two lives may choose the same number, where neither is on a quorum. */
		on += c && c->state == CLAIM_ACTIVE && c->generation == found->generation && c->epoch == found->epoch && !sim.target[v].rolled_back && !is_superseded(b, node, vm);
	}
	return found && found->state == CLAIM_ACTIVE && on >= format_fence_quorum(sim.n_volumes) ? found : NULL;
}

/* How many volumes have a later word of it. */
static unsigned unsilent_on(uint32_t node, bool sure)
{
	unsigned n = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		bool later = format_compare(told[node - 1][v].epoch, told[node - 1][v].seq, voided[node - 1].epoch, voided[node - 1].seq) > 0;

		/* One block is not sure: of two buffers it may be the one that rots, and the gate opens only after two. Nor are two in one buffer: after a write whose fate
		 * nobody knew it is written again.
		 * What was written while another device stood in for it, that one has: it said nothing of the kind, nor that it is over. */
		n += sim.liar == (int)v ? !sure && (later || told[node - 1][v].silent_seq != told[node - 1][v].seq ||
						   format_compare(swallowed[node - 1][v].epoch, swallowed[node - 1][v].seq, voided[node - 1].epoch, voided[node - 1].seq) > 0)
					: later && (!sure || told[node - 1][v].cleared == 3);
	}
	return n;
}

static int64_t since(int64_t before, bool now)
{
	return !now ? 0 : before ? before : sim.now;
}

void check_swallowed(const struct op *op)
{
	const struct heartbeat *hb = &op->block->hb;
	unsigned me = op->node->id - 1;

	if (op->block->kind != BLOCK_HEARTBEAT || hb->silent)
		return;
	swallowed[me][op->target].epoch = hb->epoch;
	swallowed[me][op->target].seq = hb->seq;
	voided[me].cleared_ns = since(voided[me].cleared_ns, unsilent_on(hb->node, false) >= format_fence_quorum(sim.n_volumes));
}

static void note_silence(const struct op *op)
{
	const struct heartbeat *hb = &op->block->hb;
	unsigned me = hb->node - 1;

	if (told[me][op->target].epoch != hb->epoch)
		told[me][op->target].silent_seq = 0;
	told[me][op->target].epoch = hb->epoch;
	told[me][op->target].seq = hb->seq;
	told[me][op->target].cleared = hb->silent ? 0 : told[me][op->target].cleared | 1U << op->buffer;
	if (hb->silent)
		told[me][op->target].silent_seq = hb->seq;
	if (hb->silent && format_compare(hb->epoch, hb->seq, voided[me].epoch, voided[me].seq) > 0) {
		voided[me].epoch = hb->epoch;
		voided[me].seq = hb->seq;
	}
	voided[me].cleared_ns = since(voided[me].cleared_ns, unsilent_on(hb->node, false) >= format_fence_quorum(sim.n_volumes));
	voided[me].sure_ns = since(voided[me].sure_ns, unsilent_on(hb->node, true) >= format_fence_quorum(sim.n_volumes));
}

static void note_claimed(const struct op *op)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		const struct claim *c = claim_in(op->block, vm);
		unsigned on = 0;

		if (!c || c->state != CLAIM_ACTIVE)
			continue;
		claimed[op->node->id - 1][vm].on[op->target] = c->generation;
		for (unsigned v = 0; v < sim.n_volumes; v++)
			on += claimed[op->node->id - 1][vm].on[v] == c->generation;
		if (on >= format_fence_quorum(sim.n_volumes) && claimed[op->node->id - 1][vm].quorum != c->generation) {
			claimed[op->node->id - 1][vm].quorum = c->generation;
			claimed[op->node->id - 1][vm].quorum_ns = sim.now;
		}
	}
}

/* A claim of an epoch that is not over is passed over. */
static void check_void_taken(const struct node *n, unsigned vm, uint64_t generation, uint32_t id, uint32_t epoch)
{
	int64_t own = claimed[n->id - 1][vm].quorum_ns, back = voided[id - 1].sure_ns;

	sim.stats.voids++;
	history_add("node %u is granted VM %u, the claim of node %u is void", n->id, vm, id);
	if (claimed[n->id - 1][vm].quorum == generation && back != 0 && back < own)
		violation("S3", "node %u is granted VM %u as if the claim of node %u, epoch %u, were void, which was taken back %lld ms before its own was there", n->id, vm, id,
			  epoch, (long long)((own - back) / NS_PER_MS));
}

static bool is_later_claim(uint32_t id, uint32_t than, unsigned vm, uint64_t generation, uint64_t other)
{
	return claimed[id - 1][vm].quorum == generation && claimed[than - 1][vm].quorum == other && claimed[id - 1][vm].quorum_ns > claimed[than - 1][vm].quorum_ns;
}

/* Whoever takes over copies the death first: it must outlive its publisher. Asked when the claim is granted: one that is written may yet be withdrawn. */
static void check_death_copied(const struct node *n, unsigned vm, uint64_t generation)
{
	/* A claim under an epoch that is over starts nothing (check_exec). */
	if (n->agent->epoch <= sim.over[n->id - 1])
		return;
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		const struct claim *c = id == n->id ? NULL : acked_claim(id, vm);

		/* Of two claims on their way whoever's was there later finds the other's: it need not be found itself, with whatever number. */
		if (c && is_later_claim(id, n->id, vm, c->generation, generation))
			continue;
		if (!c || c->generation >= generation || volumes_that_say(n->id, id, c->epoch, false, true) >= format_fence_quorum(sim.n_volumes))
			continue;
		if (claim_is_void(n->agent, id, c))
			check_void_taken(n, vm, generation, id, c->epoch);
		else
			violation("S3", "node %u is granted VM %u, and its blocks do not say that epoch %u of its owner %u is over", n->id, vm, c->epoch, id);
	}
}

/* A claim that is withdrawn as one that never ran the VM must not hide one of before that did. */
static void check_quiet(const struct op *op)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		const struct claim *c = claim_in(op->block, vm);

		for (unsigned i = 0; i < sim.n_nodes && c; i++)
			if (ran[i][vm].incarnation != sim.vm[vm].incarnation ||
			    ((c->state == CLAIM_RELEASED || c->state == CLAIM_FAILED || c->state == CLAIM_HANDED) && c->generation >= ran[i][vm].generation))
				ran[i][vm].generation = 0;
		if (c && c->state == CLAIM_NONE && ran[op->node->id - 1][vm].generation != 0)
			violation("S1", "node %u withdraws its claim on VM %u as if it had never run it", op->node->id, vm);
	}
}

/* A process uses no number that an earlier one of this boot has used, on whatever volume that was. */
static void check_numbers(const struct op *op)
{
	struct number *u = &used[op->node->id - 1][op->kind == OP_WRITE_CLAIMS];
	int order = format_compare(block_epoch(op->block), block_seq(op->block), u->epoch, u->seq);

	if (clone_of(op->node->id))
		return;
	if (op->life != u->life && order <= 0 && u->boots == op->node->boots && u->epoch == block_epoch(op->block))
		violation("S6", "node %u writes %s (%u, %llu), an earlier process has written (%u, %llu)", op->node->id,
			  op->kind == OP_WRITE_CLAIMS ? "claims" : "a heartbeat", block_epoch(op->block), (unsigned long long)block_seq(op->block), u->epoch,
			  (unsigned long long)u->seq);
	if (order > 0)
		*u = (struct number){ op->life, block_epoch(op->block), block_seq(op->block), op->node->boots };
}

static void note_named(const struct heartbeat *hb)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		uint32_t against = MAX(hb->intent[id - 1], hb->commit[id - 1]);

		if (against == 0)
			continue;
		named[hb->node - 1][id - 1].epoch = against;
		named[hb->node - 1][id - 1].ns = sim.now;
	}
}

static void note_handed(const struct block *b)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		const struct claim *c = claim_in(b, vm);

		if (!c || c->state != CLAIM_HANDED || (handed[vm].incarnation == sim.vm[vm].incarnation && c->generation <= handed[vm].generation))
			continue;
		handed[vm].incarnation = sim.vm[vm].incarnation;
		handed[vm].generation = c->generation;
		handed[vm].migration = c->migration;
	}
}

void check_write_issued(const struct op *op)
{
	bool writing;

	if (op->kind != OP_WRITE_HEARTBEAT && op->kind != OP_WRITE_CLAIMS)
		return;
	writing = sim.target[op->target].writing[op->node->id - 1][op->block->kind] > 0;
	for (const struct op *o = writing || sim.paranoid ? sim.target[op->target].ops : NULL; o; o = o->next) {
		if (o == op || o->kind != op->kind || o->node != op->node || o->phys_done)
			continue;
		CHECK(writing);
		violation("S5", "node %u writes volume %u (%s %u, %llu) while (%u, %llu) of %lld ms before may still land", op->node->id, op->target,
			  op->kind == OP_WRITE_CLAIMS ? "claims" : "heartbeat", block_epoch(op->block), (unsigned long long)block_seq(op->block),
			  block_epoch(o->block), (unsigned long long)block_seq(o->block), (long long)((sim.now - o->issued) / NS_PER_MS));
	}
	check_numbers(op);
	if (op->kind == OP_WRITE_HEARTBEAT)
		note_named(&op->block->hb); /* a torn read may show it, also if it never lands */
	if (op->kind == OP_WRITE_CLAIMS) {
		note_handed(op->block);
		check_generations(op);
		check_quiet(op);
	}
}

/* Its claim is active on a fence quorum, so far as the blocks can be read. */
static void check_claimed(const struct qemu *q, const char *when)
{
	unsigned ok = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct block *b = newest_claims(v, q->node->id);
		const struct claim *c = b ? claim_in(b, q->vm) : NULL;

		ok += !b || sim.liar == (int)v || (c && c->state == CLAIM_ACTIVE && c->epoch == q->stamp.epoch && c->generation == q->stamp.generation);
	}
	if (ok < format_fence_quorum(sim.n_volumes))
		violation("S2", "VM %u runs on node %u, generation %llu, epoch %u, without that claim on a fence quorum (%s)", q->vm, q->node->id,
			  (unsigned long long)q->stamp.generation, q->stamp.epoch, when);
}

void check_new_device(unsigned volume)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		for (unsigned kind = 0; kind < 2; kind++) {
			struct block *const *b = sim.target[volume].data.block[id - 1][kind];
			unsigned top = format_compare(block_epoch(b[1]), block_seq(b[1]), block_epoch(b[0]), block_seq(b[0])) > 0;

			ever_epoch[id - 1] = MAX(ever_epoch[id - 1], newest[id - 1][BLOCK_HEARTBEAT][volume].epoch);
			newest[id - 1][kind][volume].epoch = block_epoch(b[top]);
			newest[id - 1][kind][volume].seq = block_seq(b[top]);
			landed[id - 1][kind][volume].epoch = block_epoch(b[top]);
			landed[id - 1][kind][volume].seq = block_seq(b[top]);
			landed[id - 1][kind][volume].copied = true;
			for (unsigned n = 0; n < SIM_MAX_NODES; n++)
				memset(&seen[n][kind][volume][id - 1], 0, sizeof(seen[n][kind][volume][id - 1]));
		}
	for (unsigned vm = 0; vm < sim.n_vms; vm++)
		for (unsigned i = 0; i < sim.n_nodes; i++)
			if (sim.node[i].qemu[vm].state == QEMU_RUNS && sim.node[i].qemu[vm].live && !sim.node[i].qemu[vm].kill_pending)
				check_claimed(&sim.node[i].qemu[vm], "a volume was replaced");
}

static void check_landed_claims(const struct op *op)
{
	const struct node *n = op->node;

	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		if (n->qemu[vm].state == QEMU_RUNS && n->qemu[vm].live && !n->qemu[vm].kill_pending)
			check_claimed(&n->qemu[vm], "a block of claims landed");
	}
}

void check_granted(const struct node *n, unsigned vm, uint64_t generation)
{
	const struct claimer *c = &n->agent->claimer;

	check_managed(n, vm, generation);
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		const struct claims *f = &c->fresh[id - 1];

		/* A migration's target says so only when its key is there, too: of a read that has begun since some volumes may be lacking. */
		if (id == n->id || !c->fresh_any[id - 1] || c->phase == CLAIMER_READING || c->phase == CLAIMER_REREADING)
			continue;
		if (f->seq < c->announced[id - 1])
			violation("S1", "node %u is granted VM %u though it has read less of node %u's claims than was announced", n->id, vm, id);
		for (uint32_t i = 0; i < f->n; i++)
			if (memcmp(f->claim[i].vm, sim.vm[vm].uuid, 16) == 0 && f->claim[i].generation >= generation)
				violation("S6", "node %u is granted VM %u with generation %llu, and has read %llu of node %u", n->id, vm,
					  (unsigned long long)generation, (unsigned long long)f->claim[i].generation, id);
	}
	check_death_copied(n, vm, generation);
}

void check_managed(const struct node *n, unsigned vm, uint64_t generation)
{
	granted[n->id - 1][vm].incarnation = sim.vm[vm].incarnation;
	granted[n->id - 1][vm].generation = generation;
	granted[n->id - 1][vm].life = n->aproc.life;
}

/* Only what this process of the agent was granted, or found running. */
void check_started(const struct node *n, unsigned vm, uint64_t generation)
{
	if (granted[n->id - 1][vm].life != n->aproc.life || granted[n->id - 1][vm].generation != generation)
		violation("S1", "node %u starts VM %u by a claim that was not granted to this process of its agent", n->id, vm);
}

/* Anywhere, ever. */
static bool has_shown_later(uint32_t id, uint32_t epoch)
{
	for (unsigned v = 0; v < sim.n_volumes; v++)
		if (newest[id - 1][BLOCK_HEARTBEAT][v].epoch > epoch)
			return true;
	if (ever_epoch[id - 1] > epoch)
		return true;
	for (unsigned i = 0; i < 2 * sim.n_volumes; i++) {
		const struct heartbeat *x = heartbeat_on(i / 2, id, i % 2); /* a torn block may be a valid one */

		if (x && x->epoch > epoch)
			return true;
	}
	return false;
}

static void check_carried(const struct heartbeat *hb, uint32_t id, struct carried *c, bool commit)
{
	uint32_t epoch = (commit ? hb->commit : hb->over)[id - 1];

	if (epoch == c->epoch || clone_of(hb->node))
		return;
	if (epoch < c->epoch && format_compare(hb->epoch, hb->seq, c->since.epoch, c->since.seq) > 0 && !has_shown_later(id, c->epoch)) {
		violation("S6", "node %u does not say any more that epoch %u of node %u is %s", hb->node, c->epoch, id, commit ? "fenced" : "over");
	} else if (epoch > c->epoch && volumes_that_say(hb->node, id, epoch, commit, false) >= format_fence_quorum(sim.n_volumes)) {
		c->epoch = epoch;
		c->since.epoch = hb->epoch;
		c->since.seq = hb->seq;
	}
}

/* It counted as said because a fence quorum had it. */
static void forget(uint32_t node, uint32_t id, struct carried *c, bool commit)
{
	if (c->epoch != 0 && volumes_that_say(node, id, c->epoch, commit, false) < format_fence_quorum(sim.n_volumes))
		c->epoch = 0;
}

void check_lost(uint32_t node)
{
	unsigned left = 0;

	/* Heartbeats that storage has lost before anybody may have read them: who reads a fence quorum must find one of a renew quorum. */
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		bool has = false;

		for (unsigned b = 0; b < 2; b++) {
			const struct heartbeat *hb = heartbeat_on(v, node, b);

			has = has || (hb && format_compare(hb->epoch, hb->seq, beats[node - 1].counted_epoch, beats[node - 1].counted_seq) >= 0);
		}
		left += has;
	}
	for (unsigned i = 0; left < format_renew_quorum(sim.n_volumes) && i < BEATS; i++)
		beats[node - 1].at[i].first = 0;
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		forget(node, id, &death[node - 1][id - 1], false);
		forget(node, id, &commitment[node - 1][id - 1], true);
	}
}

/* By a block of a later epoch: numbers that were on a minority only may be begun again. */
static uint32_t ended_by(const struct heartbeat *hb) { return hb->settled >= hb->epoch ? hb->epoch - 1 : hb->settled; }

static void says_over(const struct heartbeat *hb)
{
	unsigned me = hb->node - 1;

	said_over[me] = MAX(said_over[me], hb->state == HEARTBEAT_RELEASED || hb->state == HEARTBEAT_LEFT ? hb->epoch : ended_by(hb));
	for (unsigned i = 0; i < sim.n_nodes; i++)
		said_over[i] = MAX(said_over[i], hb->over[i]);
}

static void begin_beat(const struct heartbeat *hb)
{
	unsigned me = hb->node - 1;

	if (format_compare(hb->epoch, hb->seq, beats[me].epoch, beats[me].seq) <= 0)
		return;
	beats[me].epoch = hb->epoch;
	beats[me].seq = hb->seq;
	beats[me].counted = false;
	beats[me].first = sim.now;
}

static unsigned epoch_is_on(uint32_t node, uint32_t epoch)
{
	unsigned n = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++)
		n += sim.liar == (int)v || newest[node - 1][BLOCK_HEARTBEAT][v].epoch >= epoch;
	return n;
}

static void check_heartbeat(const struct heartbeat *hb)
{
	unsigned me = hb->node - 1, on = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++)
		on += format_compare(newest[me][BLOCK_HEARTBEAT][v].epoch, newest[me][BLOCK_HEARTBEAT][v].seq, hb->epoch, hb->seq) >= 0;
	begin_beat(hb);
	if (epoch_is_on(hb->node, hb->epoch) >= format_fence_quorum(sim.n_volumes) &&
	    (hb->epoch > began[me].epoch || (hb->epoch == began[me].epoch && began[me].life != sim.node[me].kproc.life))) {
		began[me].epoch = hb->epoch;
		began[me].life = sim.node[me].kproc.life;
		began[me].ns = node_now(&sim.node[me]);
	}
	if (on >= format_renew_quorum(sim.n_volumes) && hb->seq == beats[me].seq && !beats[me].counted) {
		beats[me].counted = true;
		beats[me].counted_epoch = hb->epoch;
		beats[me].counted_seq = hb->seq;
		beats[me].at[beats[me].n].first = beats[me].first;
		beats[me].at[beats[me].n].quorum = sim.now;
		beats[me].n = (beats[me].n + 1) % BEATS;
	}
	says_over(hb);
	note_named(hb);
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		check_carried(hb, id, &death[me][id - 1], false);
		check_carried(hb, id, &commitment[me][id - 1], true);
	}
}

void check_rolled_back(unsigned volume)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		for (unsigned kind = 0; kind < 2; kind++) {
			uint32_t epoch = newest[id - 1][kind][volume].epoch;
			bool elsewhere = false;

			for (unsigned v = 0; v < sim.n_volumes; v++)
				elsewhere = elsewhere || (v != volume && newest[id - 1][kind][v].epoch >= epoch);
			if (elsewhere)
				continue;
			memset(&landed[id - 1][kind][volume], 0, sizeof(landed[id - 1][kind][volume]));
			for (unsigned b = 0; b < 2; b++) {
				const struct block *x = sim.target[volume].data.block[id - 1][kind][b];

				if (x->status == FORMAT_OK &&
				    format_compare(block_epoch(x), block_seq(x), landed[id - 1][kind][volume].epoch, landed[id - 1][kind][volume].seq) > 0) {
					landed[id - 1][kind][volume].epoch = block_epoch(x);
					landed[id - 1][kind][volume].seq = block_seq(x);
				}
			}
		}
	}
}

/* Of two hosts with one slot each writes its own numbers. */
static void note_newest(const struct op *op)
{
	unsigned kind = op->kind == OP_WRITE_CLAIMS ? BLOCK_CLAIMS : BLOCK_HEARTBEAT;
	uint32_t epoch = block_epoch(op->block);
	uint64_t seq = block_seq(op->block);

	if (format_compare(epoch, seq, newest[op->node->id - 1][kind][op->target].epoch, newest[op->node->id - 1][kind][op->target].seq) > 0) {
		newest[op->node->id - 1][kind][op->target].epoch = epoch;
		newest[op->node->id - 1][kind][op->target].seq = seq;
	}
}

void check_landed(const struct op *op)
{
	unsigned kind = op->kind == OP_WRITE_CLAIMS ? BLOCK_CLAIMS : BLOCK_HEARTBEAT;
	uint32_t epoch = block_epoch(op->block);
	uint64_t seq = block_seq(op->block);

	if (op->torn) {
		const struct block *b = sim.target[op->target].data.block[op->node->id - 1][kind][op->buffer];

		if (b->status == FORMAT_OK && block_epoch(b) == epoch && block_seq(b) == seq)
			note_newest(op); /* what counts of it is there */
		if (kind == BLOCK_HEARTBEAT)
			begin_beat(&op->block->hb); /* what counts of it may be whole: whoever reads that has seen it move */
		return;
	}
	if (!clone_of(op->node->id) &&
	    format_compare(epoch, seq, landed[op->node->id - 1][kind][op->target].epoch, landed[op->node->id - 1][kind][op->target].seq) <
		    (landed[op->node->id - 1][kind][op->target].copied ? 0 : 1)) /* the copy of another volume's may be this very block */
		violation("S6", "volume %u: node %u's %s (%u, %llu) lands after (%u, %llu)", op->target, op->node->id, kind ? "claims" : "heartbeat",
			  epoch, (unsigned long long)seq, landed[op->node->id - 1][kind][op->target].epoch,
			  (unsigned long long)landed[op->node->id - 1][kind][op->target].seq);
	landed[op->node->id - 1][kind][op->target].epoch = epoch;
	landed[op->node->id - 1][kind][op->target].seq = seq;
	landed[op->node->id - 1][kind][op->target].copied = false;
	note_newest(op);
	if (kind == BLOCK_CLAIMS) {
		note_claimed(op);
		check_landed_claims(op);
		places_claims(op);
	} else {
		note_silence(op);
		check_heartbeat(&op->block->hb);
	}
}

void check_image_landed(const struct op *op)
{
	struct image *im = &sim.vm[op->arg].image;
	const struct stamp *s = &op->stamp;

	if (s->incarnation < im->runner.incarnation || (s->incarnation == im->runner.incarnation && s->generation < im->runner.generation))
		violation("S1", "VM %u: a write of node %u, generation %llu, epoch %u lands after node %u was started with generation %llu",
			  (unsigned)op->arg, s->node, (unsigned long long)s->generation, s->epoch, im->runner.node,
			  (unsigned long long)im->runner.generation);
	else if (s->incarnation == im->runner.incarnation && s->generation == im->runner.generation && (s->node != im->runner.node || s->epoch != im->runner.epoch))
		violation("S1", "VM %u: nodes %u and %u write with the same generation %llu", (unsigned)op->arg, s->node, im->runner.node,
			  (unsigned long long)s->generation);
	else if (s->instance < im->runner.instance)
		sim.stats.late_same++;
	if (sim.failed && sim.failed_ns == sim.now)
		history_add("  that write: issued %lld ms ago, arrived %lld ms ago, sent by the kernel %d, orphan for %lld ms, to land by %lld ms from now",
			    (long long)((sim.now - op->issued) / NS_PER_MS), (long long)((sim.now - op->arrive) / NS_PER_MS), op->sending,
			    (long long)((sim.now - op->orphan_at) / NS_PER_MS), (long long)((op->land_by - sim.now) / NS_PER_MS));
	im->last = *s;
	im->lands += s->instance >= im->runner.instance; /* what is late of an earlier one comes under its successor, migrated or not */
	if (!op->orphan)
		failover_at(FAILOVER_WRITES, (uint32_t)op->arg);
}

void check_exec(const struct qemu *q)
{
	struct image *im = &sim.vm[q->vm].image;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct qemu *o = &sim.node[i].qemu[q->vm];

		if (o != q && o->state == QEMU_RUNS && o->live)
			violation("S1", "VM %u is started on node %u, generation %llu, while it runs on node %u, generation %llu", q->vm, q->node->id,
				  (unsigned long long)q->stamp.generation, o->node->id, (unsigned long long)o->stamp.generation);
	}
	if (q->stamp.epoch <= sim.over[q->node->id - 1])
		violation("S3", "VM %u is started on node %u under epoch %u, which is declared over", q->vm, q->node->id, q->stamp.epoch);
	if (q->stamp.incarnation == im->runner.incarnation && (q->stamp.generation < im->runner.generation ||
	    (q->stamp.generation == im->runner.generation && (im->runner.node != q->node->id || im->runner.epoch != q->stamp.epoch))))
		violation("S6", "VM %u is started on node %u with generation %llu after node %u's %llu", q->vm, q->node->id,
			  (unsigned long long)q->stamp.generation, im->runner.node, (unsigned long long)im->runner.generation);
	for (unsigned i = 0; i < sim.n_nodes; i++)
		ran[i][q->vm].generation = i + 1 == q->node->id ? q->stamp.generation : 0;
	ran[q->node->id - 1][q->vm].incarnation = q->stamp.incarnation;
	check_claimed(q, "at its start");
	places_runs(q);
	im->runner = q->stamp;
}

void check_grant(const struct node *n, const struct hold_msg *m)
{
	grants[n->id - 1][m->to - 1].life = n->kproc.life;
	grants[n->id - 1][m->to - 1].epoch = m->epoch;
	grants[n->id - 1][m->to - 1].seq = m->seq;
	grants[n->id - 1][m->to - 1].ns = node_now(n);
}

/* When a renew quorum was last asked for the table, of reads that succeeded: not before this. */
static int64_t last_table_read(const struct node *n)
{
	unsigned quorum = format_renew_quorum(sim.n_volumes);
	int64_t best = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		unsigned later = 0;

		for (unsigned o = 0; o < sim.n_volumes; o++)
			later += n->table_read[o] >= n->table_read[v];
		if (later >= quorum)
			best = MAX(best, n->table_read[v]);
	}
	return best;
}

/* A round that counts without the volumes. Returns whether the last one did. */
static bool check_hold(const struct node *n)
{
	const struct keeper *k = n->keeper;
	bool left_out = false;

	if (held[n->id - 1].life != n->kproc.life) {
		held[n->id - 1].life = n->kproc.life;
		held[n->id - 1].rounds = 0;
	}
	if (held[n->id - 1].rounds == k->hold.rounds)
		return k->hold.rounds > 0 && k->hold.counted_seq + 1 == k->seq;
	held[n->id - 1].rounds = k->hold.rounds;
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		const struct table_node *t = &k->node[id - 1];

		if (id == n->id || (grants[id - 1][n->id - 1].epoch == k->epoch && grants[id - 1][n->id - 1].seq == k->hold.counted_seq))
			continue;
		left_out = true;
		if (t->known && t->hb.epoch > k->mine.over[id - 1] && t->hb.state != HEARTBEAT_RELEASED && t->hb.state != HEARTBEAT_LEFT)
			violation("S4", "node %u counts round %llu by a hold, and node %u, epoch %u, has not granted it", n->id,
				  (unsigned long long)k->hold.counted_seq, id, t->hb.epoch);
	}
	if (left_out && k->now_ns - last_table_read(n) > keeper_ms(sim.timing.hb_ms))
		violation("S4", "node %u counts a round by a hold that leaves somebody out, %lld ms after its last read of the table", n->id,
			  (long long)((k->now_ns - last_table_read(n)) / NS_PER_MS));
	return true;
}

/* The one that released it has claimed it again over that, and so has another: but nobody else was granted it since. */
static bool was_handed(const struct qemu *q)
{
	if (handed[q->vm].incarnation != sim.vm[q->vm].incarnation || handed[q->vm].migration != q->in_id)
		return false;
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		if (id != q->node->id && granted[id - 1][q->vm].incarnation == sim.vm[q->vm].incarnation &&
		    granted[id - 1][q->vm].generation > handed[q->vm].generation)
			return false;
	return true;
}

/* Its memory fits the image, and the owner before has handed it over for this very migration: has issued that, which binds it wherever the write has got to. */
void check_continued(const struct qemu *q)
{
	unsigned most = 0;

	if (q->loaded_lands != sim.vm[q->vm].image.lands)
		violation("S1", "node %u continues VM %u, whose image was written since its guest was sent", q->node->id, q->vm);
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		unsigned on = 0;

		for (unsigned v = 0; v < sim.n_volumes && id != q->node->id; v++) {
			const struct block *b = newest_claims(v, id);
			const struct claim *c = b ? claim_in(b, q->vm) : NULL;

			on += !b || sim.liar == (int)v || (c && c->state == CLAIM_HANDED && c->migration == q->in_id);
		}
		most = MAX(most, on);
	}
	if (most == 0 && !was_handed(q))
		violation("S2", "node %u continues VM %u without a release for its migration", q->node->id, q->vm);
}

void check_resumed(const struct qemu *q)
{
	check_claimed(q, "goes on where it was");
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct qemu *o = &sim.node[i].qemu[q->vm];

		if (o != q && o->state == QEMU_RUNS && o->live)
			violation("S1", "VM %u goes on on node %u while it runs on node %u", q->vm, q->node->id, o->node->id);
	}
}

void check_pet(struct node *n)
{
	unsigned acked = 0, read = 0, quorum = format_renew_quorum(sim.n_volumes);
	int64_t last_ack = 0;

	if (n->keeper->state != LEASE_ARMED && n->keeper->state != LEASE_DISARMING)
		violation("S4", "node %u pets while %s", n->id, lease_state_name(n->keeper->state));
	if (!n->is_clone && check_hold(n))
		return;
	/* The first pets of an epoch's watchdog may stand for rounds of a time when it was not watched. */
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		acked += n->oracle[v].acked;
		if (n->oracle[v].acked)
			last_ack = last_ack == 0 ? n->oracle[v].acked_ns : MIN(last_ack, n->oracle[v].acked_ns);
	}
	for (unsigned v = 0; v < sim.n_volumes; v++)
		read += n->oracle[v].read && n->oracle[v].read_issued >= last_ack;
	if (acked < quorum || read < quorum)
		violation("S4", "node %u pets though its last round was written to %u volumes and then read from %u", n->id, acked, read);
	for (unsigned v = 0; v < sim.n_volumes; v++)
		n->oracle[v].acked = false; /* one pet a round */
}

static enum heartbeat_state newest_state(unsigned volume, uint32_t node)
{
	const struct heartbeat *a = heartbeat_on(volume, node, 0), *b = heartbeat_on(volume, node, 1);

	if (!a || !b)
		return HEARTBEAT_DISARMED; /* rotten: it may have said so */
	return (format_compare(a->epoch, a->seq, b->epoch, b->seq) > 0 ? a : b)->state;
}

static bool has_vms(const struct node *n)
{
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state == QEMU_RUNS)
			return true;
	return false;
}

/* Its own process was not in order a moment ago: it may go by what it read before. */
static bool was_hurt(const struct node *n) { return n->kproc.stopped || sim.now - n->kproc.hurt_ns < 5 * SIM_S; }

/* Opening it pets; stopping it takes away what others count on. */
void check_watchdog(const struct node *n, bool start)
{
	unsigned said = 0, read = 0, fence = format_fence_quorum(sim.n_volumes);
	int64_t last_ack = 0;

	if (!has_vms(n))
		return;
	if (start) {
		if (!n->k_runs || n->keeper->state == LEASE_STARTING || n->keeper->state == LEASE_RELEASING)
			violation("S4", "node %u opens its watchdog before its VMs are proven gone", n->id);
		return;
	}
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		said += sim.liar == (int)v || newest_state(v, n->id) == HEARTBEAT_DISARMED;
		if (n->oracle[v].acked)
			last_ack = last_ack == 0 ? n->oracle[v].acked_ns : MIN(last_ack, n->oracle[v].acked_ns);
	}
	for (unsigned v = 0; v < sim.n_volumes; v++)
		read += n->oracle[v].read && last_ack != 0 && n->oracle[v].read_issued >= last_ack;
	/* A keeper that stood still in between may carry it out in its next round. */
	if (said < fence || (n->keeper->state == LEASE_DISARMING && read < fence && !was_hurt(n)))
		violation("S4", "node %u stops its watchdog while VMs run, %u volumes say disarmed and %u were read since", n->id, said, read);
}

void check_keeper(struct node *n)
{
	const struct keeper *k = n->keeper;
	struct away *w = &away[n->id - 1];

	if (n->is_clone)
		return;
	if (k->state == LEASE_STARTING && !k->opt.resume && has_vms(n))
		violation("S3", "node %u starts anew while VMs of an earlier epoch run", n->id);
	if (w->life != n->kproc.life)
		*w = (struct away){ .life = n->kproc.life };
	if (w->observed_ns != 0 && k->last_observed_ns - w->observed_ns > keeper_ms(sim.timing.hb_ms + 2 * sim.timing.io_ms))
		w->back_ns = sim.now;
	w->observed_ns = k->last_observed_ns;
	(void)check_hold(n);
	if (k->pets > k->renewals + k->hold.rounds + 1)
		violation("S4", "node %u: %llu pets, %llu renewals, %llu rounds held", n->id, (unsigned long long)k->pets, (unsigned long long)k->renewals,
			  (unsigned long long)k->hold.rounds);
	if (k->epoch == epoch_of_pet[n->id - 1])
		return;
	epoch_of_pet[n->id - 1] = k->epoch;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state == QEMU_RUNS && n->qemu[v].stamp.epoch != k->epoch && k->epoch != 0)
			violation("S3", "node %u begins epoch %u while VM %u runs under epoch %u", n->id, k->epoch, v, n->qemu[v].stamp.epoch);
}

/* Blocks that came to where they are by other ways than a write that landed. */
static void read_words(void)
{
	for (unsigned i = 0; i < 2 * sim.n_volumes; i++)
		for (uint32_t id = 1; id <= sim.n_nodes; id++) {
			const struct heartbeat *hb = heartbeat_on(i / 2, id, i % 2);

			if (hb && hb->epoch != 0)
				says_over(hb);
		}
}

/* By nobody's word, so by the wait. What it counts from: what this node has read of the other, has granted it, and when it became known itself. */
static void check_wait(const struct node *by, uint32_t id, uint32_t epoch)
{
	const struct table_node *t = &by->keeper->node[id - 1];
	const struct timing *tm = &sim.timing;
	int64_t from = t->t0_ns, wait = keeper_ms(tm->w_ms);

	/* A fence device's word, or an operator's. */
	if (proven[by->id - 1][id - 1].life == by->kproc.life && proven[by->id - 1][id - 1].epoch == epoch)
		return;
	/* It may have read a word while the block was still landing. */
	if (ended_by(&t->hb) >= epoch || t->hb.state == HEARTBEAT_RELEASED || t->hb.state == HEARTBEAT_LEFT)
		return;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (by->keeper->node[i].known && by->keeper->node[i].hb.over[id - 1] >= epoch)
			return;
	if (grants[by->id - 1][id - 1].life == by->kproc.life)
		from = MAX(from, grants[by->id - 1][id - 1].ns);
	if (began[by->id - 1].life == by->kproc.life && began[by->id - 1].epoch == by->keeper->epoch)
		from = MAX(from, began[by->id - 1].ns);
	if (t->hb.alive[by->id - 1] != by->keeper->epoch)
		wait += keeper_ms(tm->hb_ms);
	if (said_over[by->id - 1] >= by->keeper->epoch)
		violation("S3", "node %u declares node %u over by its silence, and has published itself that its epoch is over", by->id, id);
	if (by->keeper->now_ns - from < wait)
		violation("S3", "node %u declares node %u over by its silence of %lld ms, %lld ms are due", by->id, id,
			  (long long)((by->keeper->now_ns - from) / NS_PER_MS), (long long)(wait / NS_PER_MS));
}

void check_over(struct node *by, uint32_t id, uint32_t epoch)
{
	const struct node *x = sim_node(id);

	for (unsigned v = 0; v < sim.n_vms; v++)
		if (x->qemu[v].state == QEMU_RUNS && x->qemu[v].stamp.epoch <= epoch)
			violation("S3", "node %u declares epoch %u of node %u over while VM %u runs there under epoch %u", by->id, epoch, id, v,
				  x->qemu[v].stamp.epoch);
	read_words();
	if (said_over[id - 1] < epoch && volumes_that_say(by->id, id, epoch, true, true) < format_fence_quorum(sim.n_volumes))
		violation("S3", "node %u declares epoch %u of node %u over without its commit on a fence quorum", by->id, epoch, id);
	if (said_over[id - 1] < epoch && !by->is_clone)
		check_wait(by, id, epoch);
	if (epoch > sim.over[id - 1])
		places_over(id, epoch);
	sim.over[id - 1] = MAX(sim.over[id - 1], epoch);
}

/* The commit follows an intent that a fence quorum has, and a read of the table issued after that: else two groups may not see each other's. And not
 * against an intent that was read. */
static void check_step4(const struct node *by, uint32_t id)
{
	unsigned on = 0, read = 0, fence = format_fence_quorum(sim.n_volumes);
	uint32_t epoch = by->keeper->mine.commit[id - 1];
	int64_t last_ack = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct heartbeat *a = heartbeat_on(v, by->id, 0), *b = heartbeat_on(v, by->id, 1);

		on += sim.liar == (int)v || !a || !b || a->intent[id - 1] >= epoch || b->intent[id - 1] >= epoch;
		if (by->oracle[v].acked)
			last_ack = last_ack == 0 ? by->oracle[v].acked_ns : MIN(last_ack, by->oracle[v].acked_ns);
	}
	for (unsigned v = 0; v < sim.n_volumes; v++)
		read += by->oracle[v].read && last_ack != 0 && by->oracle[v].read_issued >= last_ack;
	if (on < fence || read < fence)
		violation("L5", "node %u commits against node %u, %u volumes have its intent, %u were read since", by->id, id, on, read);
	for (uint32_t z = 1; z <= sim.n_nodes; z++) {
		const struct table_node *t = &by->keeper->node[z - 1];

		if (z != by->id && t->known && t->fresh && t->hb.state == HEARTBEAT_ARMED && t->hb.intent[by->id - 1] >= by->keeper->epoch)
			violation("L5", "node %u commits against node %u though it has read an intent of node %u against itself", by->id, id, z);
	}
}

/* Two live groups that have fallen apart must not both commit: at least one of them sees the other's intent. */
static void check_mutual(const struct node *by, uint32_t id)
{
	const struct node *x = sim_node(id);

	split_commit[by->id - 1][id - 1].against = by->keeper->mine.commit[id - 1];
	split_commit[by->id - 1][id - 1].own = by->keeper->epoch;
	if (split_commit[id - 1][by->id - 1].against >= by->keeper->epoch && x->k_runs && x->keeper->epoch == split_commit[id - 1][by->id - 1].own &&
	    x->keeper->state == LEASE_ARMED)
		violation("L5", "nodes %u and %u have committed against each other", by->id, id);
}

void check_gate(const struct qemu *q)
{
	const struct node *n = q->node;
	int64_t ago = node_now(n) - n->keeper->last_renewal_ns;

	if (voided[n->id - 1].epoch == q->stamp.epoch && voided[n->id - 1].cleared_ns == 0 && !clone_of(n->id))
		violation("S3", "VM %u passes the gate of node %u, whose blocks say that claims of its are void", q->vm, n->id);
	if (ago >= keeper_ms(sim.timing.soft_ms))
		violation("S3", "VM %u passes the gate of node %u, whose lease was renewed %lld ms ago", q->vm, n->id, (long long)(ago / NS_PER_MS));
}

void check_intent(const struct node *by, uint32_t id, uint32_t why)
{
	int64_t from = sim.now - keeper_ms(sim.timing.wd_ms) * 9 / 10, to = sim.now - 2 * keeper_ms(sim.timing.io_ms);

	if (by->keeper->arb.any_group && !(by->keeper->arb.winner >> (by->id - 1) & 1))
		violation("L5", "node %u wants to fence node %u, and its own group is not the heaviest it knows", by->id, id);
	if (why == FENCE_STALE && away[by->id - 1].back_ns > from)
		violation("L2", "node %u takes node %u for silent, but was away itself until %lld ms ago", by->id, id,
			  (long long)((sim.now - away[by->id - 1].back_ns) / NS_PER_MS));
	for (unsigned i = 0; why == FENCE_STALE && i < BEATS; i++)
		if (beats[id - 1].at[i].first > from && beats[id - 1].at[i].quorum < to) {
			violation("L2", "node %u takes node %u for silent, whose heartbeat moved %lld ms ago", by->id, id,
				  (long long)((sim.now - beats[id - 1].at[i].quorum) / NS_PER_MS));
			return;
		}
}

/* A write of it is under way: a torn read may show it before it has landed. */
static bool is_naming(uint32_t by, const struct node *n)
{
	const struct node *b = sim_node(by);

	return b->k_runs && b->keeper->phase == ROUND_WRITING && b->keeper->block.intent[n->id - 1] >= n->keeper->epoch;
}

/* The newest block of some volume still says so: what withdraws it has not got there. */
static bool is_named_on_disk(uint32_t by, const struct node *n)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		struct block *const *b = sim.target[v].data.block[by - 1][BLOCK_HEARTBEAT];
		const struct block *x = b[0]->status == FORMAT_OK ? b[0] : b[1];

		if (x == b[0] && b[1]->status == FORMAT_OK && format_compare(block_epoch(b[1]), block_seq(b[1]), block_epoch(b[0]), block_seq(b[0])) > 0)
			x = b[1];
		if (x->status == FORMAT_OK && MAX(x->hb.intent[n->id - 1], x->hb.commit[n->id - 1]) >= n->keeper->epoch)
			return true;
	}
	return false;
}

void check_release(const struct node *n, uint32_t by, uint32_t why)
{
	const struct timing *t = &sim.timing;
	int64_t settle = keeper_ms(t->settle_ms + 4 * t->hb_ms);

	if (sim.outage)
		violation("L6", "node %u is released (%s) for an outage of the storage that hits everybody", n->id, release_reason_text((enum release_reason)why));
	if (why == RELEASE_STORAGE && !chaos_hurts(n) && sim.now - n->hurt_ns >= CALM_MS * NS_PER_MS)
		violation("L2", "node %u releases for its storage, with which nothing was wrong for %lld s", n->id, (long long)((sim.now - n->hurt_ns) / SIM_S));
	if (why != RELEASE_INTENT || was_hurt(n))
		return;
	if (by == 0 || (!is_naming(by, n) && !is_named_on_disk(by, n) && (named[by - 1][n->id - 1].epoch < n->keeper->epoch ||
					      sim.now - named[by - 1][n->id - 1].ns > keeper_ms(4 * t->io_ms + 2 * t->hb_ms)))) {
		violation("L5", "node %u releases for an intent of node %u that was not there", n->id, by);
		return;
	}
	if (n->keeper->ring == HEARTBEAT_RING_OK && !arbitrate_higher(n->keeper->arb.group[by - 1], n->keeper->arb.group[n->id - 1]))
		violation("L5", "node %u releases for an intent of node %u, whose group it does not compute as higher", n->id, by);
	/* While views still change two may well give way to each other. */
	if (lost[by - 1].by == n->id && sim.now - lost[by - 1].ns < settle && n->keeper->now_ns - n->keeper->view_ns > settle &&
	    sim_node(by)->keeper->now_ns - sim_node(by)->keeper->view_ns > settle)
		violation("L5", "nodes %u and %u have released for each other", n->id, by);
	lost[n->id - 1].by = by;
	lost[n->id - 1].ns = sim.now;
}

/* A volume whose block of a node cannot be read counts for nothing as far as that node goes; one whose block went backwards, not at all. */
void check_read(const struct node *n, const struct op *op, uint64_t counted)
{
	enum block_kind kind = op->kind == OP_READ_CLAIMS ? BLOCK_CLAIMS : BLOCK_HEARTBEAT;
	const char *invariant = kind == BLOCK_CLAIMS ? "S1" : "S3";

	if (op->snap->shows != FORMAT_OK || clone_of(n->id))
		return;
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		const struct block *a = op->snap->block[id - 1][0], *b = op->snap->block[id - 1][1], *top;
		bool good_a = a->status == FORMAT_OK, good_b = b->status == FORMAT_OK;
		struct seen *before = &seen[n->id - 1][kind][op->target][id - 1];
		bool counts = counted >> (id - 1) & 1;

		if (id == n->id || clone_of(id))
			continue;
		if (!good_a && !good_b) {
			if (counts)
				violation(invariant, "node %u counts volume %u, where node %u's slot cannot be read", n->id, op->target, id);
			continue;
		}
		top = !good_b || (good_a && format_compare(block_epoch(a), block_seq(a), block_epoch(b), block_seq(b)) > 0) ? a : b;
		if (before->life == op->life && good_a && good_b && counts &&
		    format_compare(block_epoch(top), block_seq(top), before->epoch, before->seq) < 0)
			violation(invariant, "node %u counts volume %u, where node %u's slot went backwards", n->id, op->target, id);
		if (counts)
			*before = (struct seen){ op->life, block_epoch(top), block_seq(top) };
	}
}

uint32_t check_edit(uint32_t base)
{
	CHECK(n_edits_made + 1 < EDITS);
	edit_base[++n_edits_made] = base;
	return n_edits_made;
}

void check_edit_counts(uint32_t version)
{
	uint32_t v = MAX(version, last_counted), older = MIN(version, last_counted);

	/* Of two that count the later one was made from the earlier one. */
	while (v > older)
		v = edit_base[v];
	if (v != older)
		violation("C1", "an edit of the catalog counts that was made without an earlier one that counts");
	last_counted = MAX(version, last_counted);
}

/* No node is fenced while more than the configured share of those that count are silent for it, at the time of that very step. */
static void check_brake(const struct node *by, uint32_t id)
{
	const struct keeper *k = by->keeper;
	unsigned all = 1, silent = 0;

	for (uint32_t z = 1; z <= sim.n_nodes; z++) {
		const struct table_node *t = &k->node[z - 1];

		if (z == by->id || !t->known || t->hb.state != HEARTBEAT_ARMED || k->mine.over[z - 1] >= t->hb.epoch)
			continue;
		all++;
		silent += k->now_ns - t->t0_ns > keeper_ms(sim.timing.hb_ms + 2 * sim.timing.io_ms);
	}
	if (silent * 100 > sim.brake_percent * all)
		violation("L2", "node %u fences node %u, and %u of %u nodes are silent at once", by->id, id, silent, all);
}

void check_proof(const struct node *by, uint32_t id)
{
	proven[by->id - 1][id - 1].life = by->kproc.life;
	proven[by->id - 1][id - 1].epoch = by->keeper->node[id - 1].hb.epoch;
}

void check_state(const struct node *n, uint32_t state)
{
	const struct keeper *k = n->keeper;
	uint32_t before = state_of[n->id - 1];

	state_of[n->id - 1] = state;
	if (state != LEASE_ARMED || before != LEASE_DISARMED || (k->opt.keep_on_ring_loss && k->ring == HEARTBEAT_RING_LOST))
		return;
	for (uint32_t z = 1; z <= sim.n_nodes; z++) {
		const struct table_node *t = &k->node[z - 1];

		if (z != n->id && t->fresh && t->hb.state == HEARTBEAT_ARMED && t->hb.ring == HEARTBEAT_RING_OK && !(t->hb.view >> (n->id - 1) & 1))
			violation("L4", "node %u arms, and node %u has a ring without it", n->id, z);
	}
}

/* The commit comes first; and a node that goes on after it was asked for is left alone: it has to release by itself. */
void check_power(const struct node *by, uint32_t id, const struct power_job *j, int64_t asked_ns)
{
	int64_t by_now = sim.now - 2 * keeper_ms(sim.timing.hb_ms + 3 * sim.timing.io_ms) - POWER_FED_MS * NS_PER_MS;

	/* A volume may have lost it since, another host may have written over it. */
	if (!clone_of(by->id) && beats[id - 1].epoch <= j->epoch && volumes_that_say(by->id, id, j->epoch, true, true) + (sim.liar >= 0) < format_fence_quorum(sim.n_volumes))
		violation("L4", "node %u has node %u switched off without its commit on a fence quorum", by->id, id);
	if (!sim_node(id)->up || by->kproc.stopped || sim.now - by->kproc.hurt_ns < 60 * SIM_S || sim.now - by->io_hurt_ns < 60 * SIM_S || away[by->id - 1].back_ns > asked_ns)
		return;
	for (unsigned i = 0; i < BEATS; i++)
		if (beats[id - 1].at[i].first > asked_ns && beats[id - 1].at[i].quorum < by_now) {
			violation("L4", "node %u has node %u switched off, whose heartbeat has moved since: %lld ms ago", by->id, id,
				  (long long)((sim.now - beats[id - 1].at[i].quorum) / NS_PER_MS));
			return;
		}
}

void check_commit(struct node *by, uint32_t id, uint32_t why)
{
	const struct node *x = sim_node(id);

	check_step4(by, id);
	if (why == FENCE_SPLIT) {
		check_mutual(by, id);
		if (by->keeper->now_ns - by->keeper->view_ns < keeper_ms(sim.timing.settle_ms))
			violation("L2", "node %u fences node %u for a ring view of %lld ms ago", by->id, id,
				  (long long)((by->keeper->now_ns - by->keeper->view_ns) / NS_PER_MS));
	}
	if (why == FENCE_OPERATOR)
		return;
	check_brake(by, id);
	if (why != FENCE_STALE && by->keeper->ring != HEARTBEAT_RING_OK)
		violation("L2", "node %u, without a ring itself, fences node %u for the ring", by->id, id);
	if (chaos_hurts(x) || sim.now - x->hurt_ns < CALM_MS * NS_PER_MS)
		return;
	if (x->k_runs && x->keeper->state == LEASE_RELEASING)
		return; /* it has given its lease up, and cannot prove that its VMs are silent */
	if (x->k_runs && x->keeper->epoch != by->keeper->node[id - 1].hb.epoch)
		return; /* an epoch of an earlier life, which nobody goes on with: only its end is said */
	sim.stats.false_fences++;
	violation("L2", "node %u fences node %u (%s), with which nothing was wrong for %lld s", by->id, id,
		  fence_reason_text((enum fence_reason)why), (long long)((sim.now - x->hurt_ns) / SIM_S));
}

void check_watchdog_reset(struct node *n)
{
	if (sim.outage)
		violation("L6", "node %u is reset for an outage of the storage that hits everybody", n->id);
	if (n->kproc.hurt_ns >= n->wd.pet_ns || n->kproc.stopped || !proc_alive(&n->kproc) || disk_host_sends(n))
		return;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].kill_pending)
			return;
	violation("L4", "node %u is reset by its watchdog though its keeper runs and could have released it", n->id);
}

void check_running(unsigned vm)
{
	struct sim_vm *v = &sim.vm[vm];
	int64_t ms = (sim.now - v->gone_ns) / NS_PER_MS;

	if (v->gone_ns != 0 && v->gone_by_node) {
		sim.stats.failovers++;
		sim.stats.failover_ms[MIN(ms / SIM_HISTOGRAM_MS, SIM_HISTOGRAM - 1)]++;
		history_add("VM %u: recovered after %lld ms", vm, (long long)ms);
	}
	v->gone_ns = 0;
}

void check_gone(const struct qemu *q, bool by_node)
{
	if (sim.outage && !q->quitting)
		violation("L6", "VM %u ends on node %u in an outage of the storage that hits everybody", q->vm, q->node->id);
	sim.vm[q->vm].gone_ns = sim.now;
	places_gone(q->vm);
	sim.vm[q->vm].gone_by_node = by_node;
}

/* H1: a guest is ended for its silence only if QEMU was silent while the agent was awake, and its storage was to be had: who was stopped is, who answers is not. */
void check_ended(const struct node *n, unsigned vm, enum vm_trouble why)
{
	const struct qemu *q = &n->qemu[vm];
	const struct vm *v = agent_vm_by_uuid(n->agent, sim.vm[vm].uuid);
	int64_t half = v ? (int64_t)v->def.health.hang_ms * NS_PER_MS / 2 : 0;
	int64_t awake_ns = n->aproc.hurt_ns > sim.now - half ? n->aproc.still_ns : sim.now; /* it has heard nothing since then */

	if (why == TROUBLE_HUNG && !q->proc.stopped && v && q->proc.hurt_ns < awake_ns - half && !q->kill_pending && !q->quitting)
		violation("H1", "node %u ends VM %u as hung, which answers", n->id, vm);
	if (why == TROUBLE_HUNG && sim.target[sim.vm[vm].target].hung && sim.now - sim.target[sim.vm[vm].target].hung_ns > 10 * SIM_S)
		violation("H1", "node %u ends VM %u as hung, whose storage hangs, too", n->id, vm);
}

/* Of these nodes those that a VM may be given to: without any ring the leader can ask nobody but itself. */
static uint64_t askable(uint64_t nodes)
{
	uint64_t leads = 0;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		if (sim.node[i].up && sim.node[i].corosync)
			return nodes;
		leads |= sim.node[i].a_runs && sim.node[i].agent->leads ? 1ULL << i : 0;
	}
	return nodes & leads;
}

const char *check_lively_on(uint64_t nodes, uint64_t managed, bool arrived)
{
	static char text[160];

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct node *n = &sim.node[i];
		bool lease = n->up && n->k_runs && n->keeper->state == LEASE_ARMED;

		if (!(nodes >> i & 1)) {
			if (!lease)
				continue;
			(void)snprintf(text, sizeof(text), "node %u still has its lease", n->id);
			return text;
		}
		for (uint32_t id = 1; id <= sim.n_nodes && lease; id++) {
			if (n->keeper->mine.intent[id - 1] == 0 || !(nodes >> (id - 1) & 1))
				continue;
			(void)snprintf(text, sizeof(text), "node %u still wants to fence node %u", n->id, id);
			return text;
		}
		if (lease && (!(managed >> i & 1) || (n->a_runs && n->agent->adopted)))
			continue;
		(void)snprintf(text, sizeof(text), "node %u is %s, its agent %s", n->id,
			       !n->up ? "down" : !n->k_runs ? "without a keeper" : lease_state_name(n->keeper->state),
			       n->a_runs && n->agent->adopted ? "runs" : "does not manage");
		return text;
	}
	for (unsigned v = 0; v < sim.n_vms; v++) {
		unsigned running = 0;
		bool waits = false;

		for (unsigned i = 0; i < sim.n_nodes; i++) {
			const struct qemu *q = &sim.node[i].qemu[v];

			running += q->state == QEMU_RUNS && q->live && (nodes >> i & 1);
			waits = waits || (q->state == QEMU_RUNS && q->waits && (nodes >> i & 1) && sim.target[sim.vm[v].target].hung);
		}
		if (running == 0 && waits)
			continue; /* it has arrived where its storage hangs for everybody */
		/* On its way, by a migration or by a stop and a start; or handed over (two writes) to a target that could not go on with it: whoever leads by now starts it anew T_leader + 4 T_io
		 * after that was read, by a claim like any other. */
		if (running == 0 && !arrived && sim.vm[v].away_ns != 0 &&
		    sim.now - sim.vm[v].away_ns < (int64_t)(sim.timing.leader_ms + 12 * sim.timing.io_ms + HANDOVER_MS) * NS_PER_MS)
			continue;
		if (running == 1)
			places_has_run(v);
		if (running == 1 || (running == 0 && places_may_lack(v, askable(nodes & managed))))
			continue;
		(void)snprintf(text, sizeof(text), "VM %u runs %u times", v, running);
		return text;
	}
	return NULL;
}

const char *check_lively(void) { return check_lively_on(~0ULL, ~0ULL, false); }
const char *check_arrived(void) { return check_lively_on(~0ULL, ~0ULL, true); }

/* What everybody believes, for whoever has to find out why. */
void check_dump(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct node *n = &sim.node[i];
		const struct keeper *k = n->keeper;
		const struct agent *a = n->agent;

		history_add("node %u: up %d, keeper %d%s, %s, epoch %u, wants armed %d, published %d, phase %d, ring %d view %llx, watchdog %d asked %d",
			    n->id, n->up, n->k_runs, n->kproc.stopped ? " stopped" : "", lease_state_name(k->state), k->epoch, k->want_armed, k->published,
			    (int)k->phase, (int)k->ring, (unsigned long long)k->view, k->wd_running, k->wd_asked);
		for (unsigned v = 0; v < sim.n_volumes; v++)
			history_add("  volume %u: ready %d, %s, slot %s, write busy %d wait %d, read busy %d wait %d; agent: ready %d, slot %s, read busy %d", v,
				    k->volume[v].ready, volume_fault_text(k->volume[v].fault), slot_state_name(k->volume[v].slot.state),
				    k->volume[v].write_busy, k->volume[v].write_wait, k->volume[v].read_busy, k->volume[v].read_wait,
				    a->claimer.volume[v].ready, slot_state_name(a->claimer.volume[v].slot.state), a->claimer.volume[v].read_busy);
		history_add("  agent: runs %d%s, adopted %d, epoch %u, table %d, catalog %d, listed %d, leads %d, phase %d, wants %u, read once %d, leader %u",
			    n->a_runs, n->aproc.stopped ? " stopped" : "", a->adopted, a->epoch, a->have_table, a->have_catalog, a->listed, a->leads,
			    (int)a->claimer.phase, a->claimer.n_wants, a->claimer.read_once, n->a_runs ? agent_leader(a) : 0);
		history_add("  catalog (%llu, %llu): leading %d, complete %d, writing %d, checking %d, scanning %d; %u edits wait", (unsigned long long)n->cat.generation,
			    (unsigned long long)n->cat.seq, n->leading, n->cat_complete, n->cat_writing, n->cat_checking, n->cat_scanning, sim.n_edits);
		for (unsigned v = 0; v < AGENT_MAX_VMS && n->a_runs; v++)
			if (a->vm[v].used)
				history_add("  %s: %s, wanted %d, owner %u, assigned to %u, unit %d", a->vm[v].def.name, vm_state_name(a->vm[v].state),
					    (int)a->vm[v].def.desired, agent_owner(a, a->vm[v].def.uuid), a->vm[v].assigned,
					    (int)n->qemu[sim_vm_index(a->vm[v].def.uuid)].state);
		for (unsigned v = 0; v < AGENT_MAX_VMS && n->a_runs && a->leads; v++)
			for (unsigned id = 1; id <= sim.n_nodes && a->vm[v].used; id++)
				if (place_fits(a, &a->vm[v], id) != PLACE_FITS)
					history_add("  %s: node %u %s", a->vm[v].def.name, id, place_why_text(place_fits(a, &a->vm[v], id)));
	}
	volset_dump();
	for (unsigned v = 0; v < sim.n_volumes; v++)
		for (unsigned i = 0; i < sim.n_nodes; i++)
			for (unsigned k = 0; k < 2; k++)
				for (unsigned b = 0; b < 2; b++)
					if (sim.target[v].data.block[i][k][b]->status != FORMAT_OK)
						history_add("volume %u: node %u's %s, buffer %u: %s", v, i + 1, k ? "claims" : "heartbeat", b,
							    format_status_name(sim.target[v].data.block[i][k][b]->status));
	for (unsigned t = 0; t < sim.n_targets; t++)
		for (const struct op *op = sim.target[t].ops; op; op = op->next)
			history_add("target %u: op %d of node %u, %lld ms old, blocked %d, held %d, done %d, told %d, orphan %d, %s", t, (int)op->kind,
				    op->node->id, (long long)((sim.now - op->issued) / NS_PER_MS), op->blocked, op->held, op->phys_done, op->told,
				    op->orphan, op->proc->life == op->life ? "its process lives" : "its process is gone");
}
