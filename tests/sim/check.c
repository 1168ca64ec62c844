/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The invariants of DESIGN.md, asserted where something happens that could break them.
 *
 *   S1  check_exec: never two QEMU processes of a VM; check_image_landed: nothing of an older writer lands once a newer was started
 *   S2  check_exec, check_landed: a QEMU's own claim is active on a fence quorum of the volumes for as long as it runs
 *   S3  check_over, check_exec: no process of an epoch that anybody has declared over
 *   S4  check_pet: the round before was written to a renew quorum and then read from one
 *   S5  check_write_issued: no write to a slot while another of the same writer may still land on it
 *   S6  check_landed: (epoch, seq) of a slot grows; check_write_issued: a node claims nothing below what it was granted; check_exec: across nodes */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>

#define CALM_MS 30000 /* L2: nothing was wrong with a node for this long */

static struct { uint32_t epoch; uint64_t seq; } newest[SIM_MAX_NODES][2][FORMAT_MAX_VOLUMES];
static struct { uint64_t incarnation, generation; } granted[SIM_MAX_NODES][SIM_MAX_VMS];
static uint32_t epoch_of_pet[SIM_MAX_NODES];

void check_reset(void)
{
	memset(newest, 0, sizeof(newest));
	memset(granted, 0, sizeof(granted));
	memset(epoch_of_pet, 0, sizeof(epoch_of_pet));
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

		if (c && c->state == CLAIM_ACTIVE && granted[n->id - 1][vm].incarnation == sim.vm[vm].incarnation &&
		    c->generation < granted[n->id - 1][vm].generation)
			violation("S6", "node %u claims VM %u as generation %llu after it was granted %llu", n->id, vm, (unsigned long long)c->generation,
				  (unsigned long long)granted[n->id - 1][vm].generation);
	}
}

void check_write_issued(const struct op *op)
{
	if (op->kind != OP_WRITE_HEARTBEAT && op->kind != OP_WRITE_CLAIMS)
		return;
	for (const struct op *o = sim.target[op->target].ops; o; o = o->next)
		if (o != op && o->kind == op->kind && o->node == op->node && !o->phys_done)
			violation("S5", "node %u writes volume %u (%s %u, %llu) while (%u, %llu) of %lld ms before may still land", op->node->id, op->target,
				  op->kind == OP_WRITE_CLAIMS ? "claims" : "heartbeat", block_epoch(op->block), (unsigned long long)block_seq(op->block),
				  block_epoch(o->block), (unsigned long long)block_seq(o->block), (long long)((sim.now - o->issued) / NS_PER_MS));
	if (op->kind == OP_WRITE_CLAIMS)
		check_generations(op);
}

/* NULL: one of the two is rotten, and it may have been the newer. */
static const struct block *newest_claims(unsigned volume, uint32_t node)
{
	struct block *const *b = sim.target[volume].data.block[node - 1][BLOCK_CLAIMS];

	if (b[0]->status != FORMAT_OK || b[1]->status != FORMAT_OK)
		return NULL;
	return format_compare(b[0]->cl.epoch, b[0]->cl.seq, b[1]->cl.epoch, b[1]->cl.seq) >= 0 ? b[0] : b[1];
}

/* Its claim is active on a fence quorum, so far as the blocks can be read. */
static void check_claimed(const struct qemu *q, const char *when)
{
	unsigned ok = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct block *b = newest_claims(v, q->node->id);
		const struct claim *c = b ? claim_in(b, q->vm) : NULL;

		ok += !b || (c && c->state == CLAIM_ACTIVE && c->epoch == q->stamp.epoch && c->generation == q->stamp.generation);
	}
	if (ok < format_fence_quorum(sim.n_volumes))
		violation("S2", "VM %u runs on node %u, generation %llu, epoch %u, without that claim on a fence quorum (%s)", q->vm, q->node->id,
			  (unsigned long long)q->stamp.generation, q->stamp.epoch, when);
}

static void check_landed_claims(const struct op *op)
{
	const struct node *n = op->node;

	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		if (n->qemu[vm].state == QEMU_RUNS && !n->qemu[vm].kill_pending)
			check_claimed(&n->qemu[vm], "a block of claims landed");
	}
}

void check_granted(const struct node *n, unsigned vm, uint64_t generation)
{
	granted[n->id - 1][vm].incarnation = sim.vm[vm].incarnation;
	granted[n->id - 1][vm].generation = generation;
}

void check_landed(const struct op *op)
{
	unsigned kind = op->kind == OP_WRITE_CLAIMS ? BLOCK_CLAIMS : BLOCK_HEARTBEAT;
	uint32_t epoch = block_epoch(op->block);
	uint64_t seq = block_seq(op->block);

	if (op->torn)
		return;
	if (format_compare(epoch, seq, newest[op->node->id - 1][kind][op->target].epoch, newest[op->node->id - 1][kind][op->target].seq) <= 0)
		violation("S6", "volume %u: node %u's %s (%u, %llu) lands after (%u, %llu)", op->target, op->node->id, kind ? "claims" : "heartbeat",
			  epoch, (unsigned long long)seq, newest[op->node->id - 1][kind][op->target].epoch,
			  (unsigned long long)newest[op->node->id - 1][kind][op->target].seq);
	newest[op->node->id - 1][kind][op->target].epoch = epoch;
	newest[op->node->id - 1][kind][op->target].seq = seq;
	if (kind == BLOCK_CLAIMS)
		check_landed_claims(op);
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
	im->lands++;
}

void check_exec(const struct qemu *q)
{
	struct image *im = &sim.vm[q->vm].image;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct qemu *o = &sim.node[i].qemu[q->vm];

		if (o != q && o->state == QEMU_RUNS)
			violation("S1", "VM %u is started on node %u, generation %llu, while it runs on node %u, generation %llu", q->vm, q->node->id,
				  (unsigned long long)q->stamp.generation, o->node->id, (unsigned long long)o->stamp.generation);
	}
	if (q->stamp.epoch <= sim.over[q->node->id - 1])
		violation("S3", "VM %u is started on node %u under epoch %u, which is declared over", q->vm, q->node->id, q->stamp.epoch);
	if (q->stamp.incarnation == im->runner.incarnation && (q->stamp.generation < im->runner.generation ||
	    (q->stamp.generation == im->runner.generation && (im->runner.node != q->node->id || im->runner.epoch != q->stamp.epoch))))
		violation("S6", "VM %u is started on node %u with generation %llu after node %u's %llu", q->vm, q->node->id,
			  (unsigned long long)q->stamp.generation, im->runner.node, (unsigned long long)im->runner.generation);
	check_claimed(q, "at its start");
	im->runner = q->stamp;
}

void check_pet(struct node *n)
{
	unsigned acked = 0, read = 0, quorum = format_renew_quorum(sim.n_volumes);
	int64_t last_ack = 0;

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
}

void check_keeper(struct node *n)
{
	const struct keeper *k = n->keeper;

	if (k->pets > k->renewals + 1)
		violation("S4", "node %u: %llu pets, %llu renewals", n->id, (unsigned long long)k->pets, (unsigned long long)k->renewals);
	if (k->epoch == epoch_of_pet[n->id - 1])
		return;
	epoch_of_pet[n->id - 1] = k->epoch;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state == QEMU_RUNS && n->qemu[v].stamp.epoch != k->epoch && k->epoch != 0)
			violation("S3", "node %u begins epoch %u while VM %u runs under epoch %u", n->id, k->epoch, v, n->qemu[v].stamp.epoch);
}

void check_over(struct node *by, uint32_t id, uint32_t epoch)
{
	const struct node *x = sim_node(id);

	for (unsigned v = 0; v < sim.n_vms; v++)
		if (x->qemu[v].state == QEMU_RUNS && x->qemu[v].stamp.epoch <= epoch)
			violation("S3", "node %u declares epoch %u of node %u over while VM %u runs there under epoch %u", by->id, epoch, id, v,
				  x->qemu[v].stamp.epoch);
	sim.over[id - 1] = MAX(sim.over[id - 1], epoch);
}

void check_commit(struct node *by, uint32_t id, uint32_t why)
{
	const struct node *x = sim_node(id);

	if (chaos_hurts(x) || sim.now - x->hurt_ns < CALM_MS * NS_PER_MS)
		return;
	sim.stats.false_fences++;
	violation("L2", "node %u fences node %u (%s), with which nothing was wrong for %lld s", by->id, id,
		  fence_reason_text((enum fence_reason)why), (long long)((sim.now - x->hurt_ns) / SIM_S));
}

void check_watchdog_reset(struct node *n)
{
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
	sim.vm[q->vm].gone_ns = sim.now;
	sim.vm[q->vm].gone_by_node = by_node;
}

const char *check_lively(void)
{
	static char text[160];

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct node *n = &sim.node[i];

		if (n->up && n->k_runs && n->keeper->state == LEASE_ARMED && n->a_runs && n->agent->adopted)
			continue;
		(void)snprintf(text, sizeof(text), "node %u is %s, its agent %s", n->id,
			       !n->up ? "down" : !n->k_runs ? "without a keeper" : lease_state_name(n->keeper->state),
			       n->a_runs && n->agent->adopted ? "runs" : "does not manage");
		return text;
	}
	for (unsigned v = 0; v < sim.n_vms; v++) {
		unsigned running = 0;

		for (unsigned i = 0; i < sim.n_nodes; i++)
			running += sim.node[i].qemu[v].state == QEMU_RUNS;
		if (running == 1)
			continue;
		(void)snprintf(text, sizeof(text), "VM %u runs %u times", v, running);
		return text;
	}
	return NULL;
}

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
	}
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
