/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Swarm testing: each seed draws which faults may occur and how often. Durations are drawn around the protocol's own times, where it is most likely
 * to be wrong. */
#include "tests/sim/sim.h"

static struct { bool on; int64_t mean_ns; } allowed[CHAOS_KIND_COUNT];
static uint64_t chaos_number;

const char *chaos_name(enum chaos_kind f)
{
	static const char *const name[CHAOS_KIND_COUNT] = {
		"power", "keeper-crash", "keeper-stop", "keeper-stall", "keeper-restart", "agent-crash", "agent-stop", "agent-stall", "qemu-crash",
		"guest-off", "volume-hang", "all-hang", "path-cut", "paths-cut", "bad-writes", "bad-reads", "lost-acks", "slow", "image-hang",
		"image-cut", "ring-split", "ring-alone", "corosync", "corosync-all", "one-way", "rot", "suspend", "operator", "all-power",
	};

	return name[f];
}

static int64_t duration(void)
{
	const struct timing *t = &sim.timing;

	switch (rnd(7)) {
	case 0:
		return rnd_ms(1, t->io_ms);
	case 1:
		return rnd_ms(t->io_ms, 2 * t->io_ms);
	case 2:
		return rnd_ms(t->soft_ms - t->hb_ms, t->soft_ms + t->io_ms);
	case 3:
		return rnd_ms(t->wd_ms - t->hb_ms, t->wd_ms + t->wd_delay_ms);
	case 4:
		return rnd_ms(t->w_ms - t->io_ms, t->w_ms + 2 * t->io_ms);
	case 5:
		return rnd_ms(100, 10000);
	default:
		return rnd_ms(5000, 60000);
	}
}

void chaos_draw(void)
{
	unsigned percent = chance(300) ? 10 : chance(500) ? 25 : 50;
	unsigned any = 0;

	while (any == 0) {
		for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++) {
			allowed[k].on = rnd(100) < percent && !(sim.without >> k & 1);
			allowed[k].mean_ns = rnd_ms(5000, 1000 * (5LL << rnd(7)));
			any += allowed[k].on;
		}
	}
	allowed[CHAOS_ALL_POWER].mean_ns *= 10;
}

/* Undoing what a fault has done: one number says what. */
enum undo { UNDO_HANG, UNDO_CUT, UNDO_BAD_WRITES, UNDO_BAD_READS, UNDO_ACKS, UNDO_SLOW, UNDO_PART, UNDO_MASK, UNDO_ACTIVE, UNDO_START, UNDO_ADD, UNDO_ARM };

static void hurt_all(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
}

static void undo_target(enum undo what, unsigned target, uint32_t node)
{
	struct target *t = &sim.target[target];

	hurt_all();
	switch (what) {
	case UNDO_HANG:
		target_hang(target, false);
		break;
	case UNDO_CUT:
		target_cut(target, node, false);
		break;
	case UNDO_BAD_WRITES:
		t->bad_writes = false;
		break;
	case UNDO_BAD_READS:
		t->bad_reads = false;
		break;
	case UNDO_ACKS:
		t->lose_acks = 0;
		break;
	case UNDO_SLOW:
		t->slow = 0;
		t->near_limit = false;
		break;
	default:
		break;
	}
}

static void on_undo(struct sim_event *ev)
{
	enum undo what = (enum undo)(ev->arg & 0xff);
	unsigned a = (unsigned)(ev->arg >> 8 & 0xff);
	uint32_t node = (uint32_t)(ev->arg >> 16 & 0xff);

	if (ev->arg >> 24 != chaos_number)
		return; /* healed since */
	history_add("chaos: undo %d of %u, node %u", (int)what, a, node);
	switch (what) {
	case UNDO_PART:
		for (unsigned i = 0; i < sim.n_nodes; i++)
			sim.node[i].part = 0;
		ring_changed();
		break;
	case UNDO_MASK:
		sim_node(node)->ring_mask = 0;
		ring_changed();
		break;
	case UNDO_ACTIVE:
		edit_post(EDIT_ACTIVE, 0, node);
		break;
	case UNDO_START:
		edit_post(EDIT_START, a, 0);
		break;
	case UNDO_ADD:
		edit_post(EDIT_ADD, a, 0);
		break;
	case UNDO_ARM:
		edit_post(EDIT_ARM, 0, 0);
		break;
	default:
		undo_target(what, a, node);
	}
}

static void undo_after(int64_t ns, enum undo what, unsigned a, uint32_t node)
{
	world_post(ns, on_undo, NULL, (uint64_t)what | (uint64_t)a << 8 | (uint64_t)node << 16 | chaos_number << 24);
}

static struct node *any_node(void) { return &sim.node[rnd(sim.n_nodes)]; }
static unsigned any_volume(void) { return (unsigned)rnd(sim.n_volumes); }

static struct qemu *any_guest(void)
{
	unsigned vm = (unsigned)rnd(sim.n_vms);

	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].qemu[vm].state == QEMU_RUNS)
			return &sim.node[i].qemu[vm];
	return NULL;
}

static void fault_process(enum chaos_kind kind, struct node *n, int64_t ns)
{
	struct qemu *q = any_guest();

	switch (kind) {
	case CHAOS_KEEPER_CRASH:
		if (!proc_alive(&n->kproc))
			break;
		keeper_edge_crash(n);
		machine_keeper_again(n, chance(800) ? rnd_ms(20, 300) : ns);
		break;
	case CHAOS_KEEPER_STOP:
		proc_stop(&n->kproc, ns);
		break;
	case CHAOS_KEEPER_STALL:
		n->kproc.stall_in = 1 + (unsigned)rnd(6);
		n->kproc.stall_ns = ns;
		break;
	case CHAOS_KEEPER_RESTART:
		keeper_edge_stop_service(n);
		break;
	case CHAOS_AGENT_CRASH:
		if (!proc_alive(&n->aproc))
			break;
		agent_edge_crash(n);
		machine_agent_again(n, chance(800) ? rnd_ms(20, 300) : ns);
		break;
	case CHAOS_AGENT_STOP:
		proc_stop(&n->aproc, ns);
		break;
	case CHAOS_AGENT_STALL:
		n->aproc.stall_in = 1 + (unsigned)rnd(4);
		n->aproc.stall_ns = ns;
		break;
	case CHAOS_QEMU_CRASH:
		if (q)
			qemu_crash(q);
		break;
	case CHAOS_GUEST_OFF:
		if (q) {
			q->off = true;
			qemu_quit(q);
			undo_after(rnd_ms(5000, 60000), UNDO_START, q->vm, 0);
		}
		break;
	default:
		break;
	}
}

static void fault_storage(enum chaos_kind kind, struct node *n, int64_t ns)
{
	unsigned v = any_volume(), image = sim.vm[rnd(sim.n_vms)].target;

	switch (kind) {
	case CHAOS_VOLUME_HANG:
		target_hang(v, true);
		undo_after(ns, UNDO_HANG, v, 0);
		break;
	case CHAOS_ALL_HANG:
		for (unsigned t = 0; t < sim.n_targets; t++) {
			target_hang(t, true);
			undo_after(ns + rnd_ms(0, 500), UNDO_HANG, t, 0);
		}
		break;
	case CHAOS_PATH_CUT:
		target_cut(v, n->id, true);
		undo_after(ns, UNDO_CUT, v, n->id);
		break;
	case CHAOS_PATHS_CUT:
		for (unsigned t = 0; t < sim.n_targets; t++) {
			target_cut(t, n->id, true);
			undo_after(ns + rnd_ms(0, 500), UNDO_CUT, t, n->id);
		}
		break;
	case CHAOS_BAD_WRITES:
		sim.target[v].bad_writes = true;
		undo_after(ns, UNDO_BAD_WRITES, v, 0);
		break;
	case CHAOS_BAD_READS:
		sim.target[v].bad_reads = true;
		undo_after(ns, UNDO_BAD_READS, v, 0);
		break;
	case CHAOS_LOST_ACKS:
		sim.target[v].lose_acks = 20 + (unsigned)rnd(400);
		undo_after(ns, UNDO_ACKS, v, 0);
		break;
	case CHAOS_SLOW:
		sim.target[v].near_limit = chance(500);
		sim.target[v].slow = sim.target[v].near_limit ? 0 : 5 + (unsigned)rnd(300);
		undo_after(ns, UNDO_SLOW, v, 0);
		break;
	case CHAOS_IMAGE_HANG:
		target_hang(image, true);
		undo_after(ns, UNDO_HANG, image, 0);
		break;
	case CHAOS_IMAGE_CUT:
		target_cut(image, n->id, true);
		undo_after(ns, UNDO_CUT, image, n->id);
		break;
	case CHAOS_ROT: {
		uint32_t id = any_node()->id;
		struct block *const *b = sim.target[v].data.block[id - 1][rnd(2)];
		unsigned buffer = (unsigned)rnd(2);

		if (b[0]->status == FORMAT_OK && b[1]->status == FORMAT_OK)
			block_rot(&sim.target[v].data, b[0]->kind, id, buffer);
		break;
	}
	default:
		break;
	}
}

static void fault_ring(enum chaos_kind kind, struct node *n, int64_t ns)
{
	unsigned parts = 2 + (chance(200) && sim.n_nodes > 3);

	switch (kind) {
	case CHAOS_RING_SPLIT:
		for (unsigned i = 0; i < sim.n_nodes; i++)
			sim.node[i].part = (unsigned)rnd(parts);
		undo_after(ns, UNDO_PART, 0, 0);
		break;
	case CHAOS_RING_ALONE:
		n->part = 100 + n->id;
		undo_after(ns, UNDO_PART, 0, 0);
		break;
	case CHAOS_COROSYNC:
		machine_corosync(n, false, 0);
		machine_corosync(n, true, ns);
		break;
	case CHAOS_COROSYNC_ALL:
		for (unsigned i = 0; i < sim.n_nodes; i++) {
			machine_corosync(&sim.node[i], false, 0);
			machine_corosync(&sim.node[i], true, ns + rnd_ms(0, 1000));
		}
		break;
	case CHAOS_ONE_WAY:
		n->ring_mask = 1ULL << rnd(sim.n_nodes) & ~(1ULL << (n->id - 1));
		undo_after(ns, UNDO_MASK, 0, n->id);
		break;
	default:
		break;
	}
	ring_changed();
}

static void fault_operator(struct node *n)
{
	unsigned vm = (unsigned)rnd(sim.n_vms);
	int64_t ns = rnd_ms(2000, 90000);

	switch (rnd(6)) {
	case 0:
		edit_post(EDIT_STOP, vm, 0);
		undo_after(ns, UNDO_START, vm, 0);
		break;
	case 1:
		edit_post(EDIT_REMOVE, vm, 0);
		undo_after(ns, UNDO_ADD, vm, 0);
		break;
	case 2:
	case 3:
		edit_post(EDIT_MAINTENANCE, 0, n->id);
		undo_after(ns, UNDO_ACTIVE, 0, n->id);
		break;
	case 4:
		edit_post(EDIT_DISARM, 0, 0);
		undo_after(ns, UNDO_ARM, 0, 0);
		break;
	default:
		edit_post(EDIT_START, vm, 0);
	}
}

static int64_t off_time(void) { return chance(300) ? rnd_ms(1000, 6000) : chance(800) ? rnd_ms(6000, 60000) : rnd_ms(60000, 300000); }

static void fault(enum chaos_kind kind)
{
	struct node *n = any_node();
	int64_t ns = duration();

	sim.stats.faults[kind]++;
	history_add("chaos: %s, node %u, %lld ms", chaos_name(kind), n->id, (long long)(ns / NS_PER_MS));
	if (kind == CHAOS_POWER) {
		machine_reset(n, "power lost", off_time());
	} else if (kind == CHAOS_ALL_POWER) {
		for (unsigned i = 0; i < sim.n_nodes; i++)
			machine_reset(&sim.node[i], "power lost", off_time());
	} else if (kind == CHAOS_SUSPEND) {
		n->hurt_ns = sim.now;
		keeper_edge_suspended(n);
	} else if (kind == CHAOS_OPERATOR) {
		fault_operator(n);
	} else if (kind >= CHAOS_RING_SPLIT && kind <= CHAOS_ONE_WAY) {
		hurt_all();
		fault_ring(kind, n, ns);
	} else if (kind >= CHAOS_VOLUME_HANG && kind <= CHAOS_IMAGE_CUT) {
		hurt_all();
		fault_storage(kind, n, ns);
	} else if (kind == CHAOS_ROT) {
		hurt_all();
		fault_storage(kind, n, ns);
	} else {
		fault_process(kind, n, ns);
	}
}

static void on_fault(struct sim_event *ev)
{
	enum chaos_kind kind = (enum chaos_kind)(ev->arg & 0xff);

	if (ev->arg >> 8 != chaos_number)
		return;
	fault(kind);
	world_post(1 + (int64_t)rnd(2 * (uint64_t)allowed[kind].mean_ns), on_fault, NULL, ev->arg);
}

void chaos_begin(void)
{
	chaos_number++;
	sim.chaos = true;
	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++)
		if (allowed[k].on)
			world_post(1 + (int64_t)rnd(2 * (uint64_t)allowed[k].mean_ns), on_fault, NULL, k | chaos_number << 8);
}

void chaos_heal(void)
{
	chaos_number++;
	sim.chaos = false;
	history_add("chaos: everything is healed");
	hurt_all();
	for (unsigned t = 0; t < sim.n_targets; t++) {
		struct target *x = &sim.target[t];

		target_hang(t, false);
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			target_cut(t, id, false);
		x->bad_writes = x->bad_reads = x->near_limit = false;
		x->lose_acks = x->slow = 0;
	}
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *n = &sim.node[i];

		n->part = 0;
		n->ring_mask = 0;
		n->kproc.stall_in = n->aproc.stall_in = 0;
		proc_resume(&n->kproc);
		proc_resume(&n->aproc);
		if (!n->up) {
			machine_boot(n);
			continue;
		}
		machine_corosync(n, true, rnd_ms(0, 500));
		machine_keeper_again(n, rnd_ms(0, 500));
		machine_agent_again(n, rnd_ms(0, 500));
	}
	ring_changed();
	sim.n_edits = 0;
}

bool chaos_operator(void)
{
	const struct cat *c = &sim.cat_on_disk[0];
	bool removed = false;

	if (sim.n_edits > 0)
		return true;
	for (unsigned i = 1; i < sim.n_nodes; i++) {
		const struct cat *o = &sim.cat_on_disk[i];

		if (o->generation > c->generation || (o->generation == c->generation && o->seq > c->seq))
			c = o;
	}
	if (!c->armed)
		edit_post(EDIT_ARM, 0, 0);
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		if (c->maintenance >> (id - 1) & 1)
			edit_post(EDIT_ACTIVE, 0, id);
	for (unsigned v = 0; v < sim.n_vms; v++) {
		if (!c->present[v])
			edit_post(EDIT_ADD, v, 0);
		else if (c->desired[v] == DESIRED_STOPPED)
			edit_post(EDIT_START, v, 0);
		removed = removed || (c->present[v] && c->desired[v] == DESIRED_REMOVED);
	}
	return sim.n_edits > 0 || removed;
}

bool chaos_hurts(const struct node *n)
{
	if (!n->up || n->kproc.stopped || !proc_alive(&n->kproc) || n->kproc.hurt_ns > sim.now - 30 * SIM_S || !n->corosync || !ring_whole())
		return true;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct target *t = &sim.target[v];

		if (t->hung || t->cut >> (n->id - 1) & 1 || t->bad_writes || t->bad_reads || t->lose_acks || t->slow)
			return true;
	}
	return false;
}
