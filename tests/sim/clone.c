/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A second host with the node id of another: a cloned disk, or a slip in the configuration. Only its keeper runs; corosync does not let it in. Somebody
 * notices after a while: an operator, who stops it in good order (started again if need be, until its slot says "left") and starts the keeper again that
 * it has driven out. Where each of the two waits for the other nobody runs that node's VMs: then the word that it is off, at another node. */
#include "tests/sim/sim.h"

static struct node clone; /* one a seed, always of the same node: what it has sent may still be on its way */
static uint64_t clones;

void clone_reset(void)
{
	struct node old = clone;

	clone = (struct node){ .keeper = old.keeper, .agent = old.agent };
	clone.kproc.late = old.kproc.late;
	clone.kproc.late_size = old.kproc.late_size;
}

static void on_stop(struct sim_event *ev)
{
	if (ev->arg == clones)
		clone.up = false; /* from here on clone_heal sees to it */
}

void clone_start(uint32_t id, int64_t ns)
{
	if (clone.up || proc_alive(&clone.kproc))
		return;
	if (!clone.keeper)
		clone.keeper = calloc(1, sizeof(*clone.keeper));
	if (!clone.agent)
		clone.agent = calloc(1, sizeof(*clone.agent));
	CHECK(clone.keeper && clone.agent);
	if (clone.id == 0) {
		clone.id = id;
		clone.clock_offset = (int64_t)rnd(1000) * SIM_S;
		clone.clock_rate = (uint32_t)rnd(41);
	}
	clone.up = clone.is_clone = true;
	clone.saved.valid = false;
	sim_node(clone.id)->hurt_ns = sim.now;
	history_add("a clone of node %u comes up", clone.id);
	keeper_edge_start(&clone);
	world_post(ns, on_stop, NULL, ++clones);
}

bool clone_of(uint32_t id) { return clone.id == id; }

/* Its host is the last that wrote the slot, and has not left. */
static bool holds_the_slot(void)
{
	const struct heartbeat *top = NULL;

	for (unsigned i = 0; i < 2 * sim.n_volumes; i++) {
		const struct block *b = sim.target[i / 2].data.block[clone.id - 1][BLOCK_HEARTBEAT][i % 2];

		if (b->status == FORMAT_OK && (!top || format_compare(b->hb.epoch, b->hb.seq, top->epoch, top->seq) > 0))
			top = &b->hb;
	}
	return top && top->host[1] != 0 && top->state != HEARTBEAT_LEFT;
}

static bool is_kept_out(const struct node *n) { return n->k_runs && n->keeper->state == LEASE_STARTING && n->keeper->foreign_seen; }

static bool has_lease(const struct node *n) { return n->k_runs && !n->keeper->slot_taken && (n->keeper->state == LEASE_ARMED || n->keeper->state == LEASE_DISARMED); }

/* As the log of a keeper says that is kept out of its slot. */
static void say_off(void)
{
	struct node *x = sim_node(clone.id);

	for (unsigned v = 0; v < sim.n_vms; v++)
		if (x->qemu[v].state != QEMU_NONE)
			return;
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *by = &sim.node[i];
		struct keeper_evidence e = { .kind = EVIDENCE_OPERATOR, .node = clone.id };

		if (by == x || !by->k_runs || by->keeper->state != LEASE_ARMED || !by->keeper->node[clone.id - 1].known)
			continue;
		e.epoch = by->keeper->node[clone.id - 1].hb.epoch;
		if (by->keeper->mine.over[clone.id - 1] >= e.epoch)
			return;
		history_add("operator at node %u: neither host of node %u runs anything", by->id, clone.id);
		keeper_edge_evidence(by, &e);
		return;
	}
}

bool clone_heal(void)
{
	bool busy = false;

	clone.up = false;
	if (clone.id != 0 && proc_alive(&clone.kproc)) {
		busy = true;
		if (!clone.k_stopping && (!clone.k_runs || clone.keeper->state != LEASE_STARTING || clone.keeper->slot_taken || !holds_the_slot() || has_lease(sim_node(clone.id))))
			machine_stop_keeper(&clone);
		else if (is_kept_out(&clone) && is_kept_out(sim_node(clone.id)))
			say_off();
	} else if (clone.id != 0 && holds_the_slot() && !has_lease(sim_node(clone.id))) {
		busy = true;
		clone.saved.valid = false;
		keeper_edge_start(&clone);
	} else if (clone.id != 0 && is_kept_out(sim_node(clone.id))) {
		busy = true; /* by what the twin, stopped by now, has left on some volume */
		say_off();
	}
	for (unsigned i = 0; i < sim.n_nodes && !busy; i++) {
		struct node *n = &sim.node[i];

		if (!n->up || !n->k_runs || !n->keeper->slot_taken)
			continue;
		busy = true;
		keeper_edge_crash(n);
		machine_keeper_again(n, rnd_ms(500, 5000));
	}
	return busy;
}
