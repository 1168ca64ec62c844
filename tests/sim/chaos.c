/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Swarm testing: each seed draws which faults may occur and how often. Durations are drawn around the protocol's own times, where it is most likely
 * to be wrong. */
#include "tests/sim/sim.h"

static struct { bool on; int64_t mean_ns; uint64_t drawn; } allowed[CHAOS_KIND_COUNT];
#define STREAM_SICK 1003 /* rnd_stream: no fault's, not the periods', not lively.c's */
#define STREAM_VOLSET 1006
#define ALWAYS (1ULL << CHAOS_VOLSET | 1ULL << CHAOS_MIGRATE | 1ULL << CHAOS_SHUTDOWN) /* of those of their own stream, what need not meet others */
#define STREAM_MIGRATE 1007
#define STREAM_SHUTDOWN 1008
#define STREAM_RESERVE 1009

static uint64_t chaos_number;
static int64_t burst_ns; /* 0: no bursts */
uint64_t chaos_often;
bool chaos_only;

const char *chaos_name(enum chaos_kind f)
{
	static const char *const name[CHAOS_KIND_COUNT] = {
		"power", "keeper-crash", "keeper-stop", "keeper-stall", "keeper-restart", "agent-crash", "agent-stop", "agent-stall", "qemu-crash",
		"guest-off", "volume-hang", "all-hang", "path-cut", "paths-cut", "bad-writes", "bad-reads", "lost-acks", "slow", "image-hang",
		"image-cut", "ring-split", "ring-alone", "corosync", "corosync-all", "one-way", "rot", "suspend", "operator", "all-power",
		"keeper-brink", "read-only", "misdirected", "torn-reads", "wipe", "foreign-volume", "roll-back", "image-errors", "ring-three", "ring-flap",
		"ring-late", "ring-loss", "keeper-step", "agent-step", "qemu-stop", "sleep", "slow-boot", "operators", "clone", "confirm", "sick", "volset", "migrate", "shutdown", "reserve",
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

void chaos_reset(void)
{
	shutdown_reset();
	ring_trouble(0, 0, 0);
	lively_reset();
}

/* What loses what it has acknowledged: a fault of one volume at most, since the quorums are made for one, and of no other kind on the others meanwhile. */
#define LIES (1ULL << CHAOS_MISDIRECT | 1ULL << CHAOS_WIPE | 1ULL << CHAOS_FOREIGN | 1ULL << CHAOS_ROLLBACK)

static void draw_liar(void)
{
	unsigned v = (unsigned)rnd(sim.n_volumes);
	bool lies = false;

	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++) {
		if (!(LIES >> k & 1))
			continue;
		allowed[k].on = allowed[k].on && sim.n_volumes > 1;
		lies = lies || allowed[k].on;
	}
	sim.liar = lies ? (int)v : -1;
}

/* Operators who change the volume set, of a stream of its own: what the others draw stays as it is. A change of the set meets whatever does not lose what it has
 * acknowledged. */
static void draw_volset(void)
{
	uint64_t world = sim.rng;
	bool asked = (sim.only | chaos_often) >> CHAOS_VOLSET & 1;

	sim.rng = rnd_stream(STREAM_VOLSET, 0);
	allowed[CHAOS_VOLSET].on = sim.n_volumes > 1 && (asked || (chance(200) && !sim.only && !chaos_only)) && !(sim.without >> CHAOS_VOLSET & 1);
	allowed[CHAOS_VOLSET].mean_ns = rnd_ms(5000, 60000);
	for (unsigned k = 0; k < CHAOS_KIND_COUNT && allowed[CHAOS_VOLSET].on; k++)
		allowed[k].on = allowed[k].on && !((LIES | 1ULL << CHAOS_CLONE) >> k & 1);
	sim.rng = world;
}

void chaos_draw(void)
{
	unsigned percent = chance(300) ? 10 : chance(500) ? 25 : 50;
	unsigned any = 0;
	uint64_t world;

	while (any == 0) {
		any += (sim.only & ALWAYS) != 0;
		for (unsigned k = 0; k < CHAOS_CONFIRM; k++) {
			allowed[k].on = (rnd(100) < percent || sim.only) && !(sim.without >> k & 1) && (!sim.only || sim.only >> k & 1);
			allowed[k].mean_ns = rnd_ms(5000, 1000 * (5LL << rnd(7)));
			any += allowed[k].on;
		}
	}
	allowed[CHAOS_CONFIRM].on = sim.confirms && !(sim.without >> CHAOS_CONFIRM & 1) && (!sim.only || sim.only >> CHAOS_CONFIRM & 1);
	allowed[CHAOS_CONFIRM].mean_ns = 12 * SIM_S;
	clone_reset();
	/* Swarm: as drawn; rare, so that one fault is over before the next; or in bursts. */
	burst_ns = chance(250) ? rnd_ms(4000, 30000) : 0;
	if (burst_ns || chance(250))
		for (unsigned k = 0; k < CHAOS_CONFIRM; k++)
			allowed[k].mean_ns = burst_ns ? rnd_ms(300, 6000) : rnd_ms(60000, 600000);
	allowed[CHAOS_ALL_POWER].mean_ns *= 10;
	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++) {
		allowed[k].on = allowed[k].on && !chaos_only;
		if (!(chaos_often >> k & 1))
			continue;
		allowed[k].on = true;
		allowed[k].mean_ns = rnd_ms(2000, 40000);
	}
	draw_volset();
	draw_liar();
	world = sim.rng;
	/* Of its own stream: what the others draw stays as it is. */
	sim.rng = rnd_stream(STREAM_SICK, 0);
	allowed[CHAOS_SICK].on = sim.health && (chance(600) || chaos_often >> CHAOS_SICK & 1) && !chaos_only && !(sim.without >> CHAOS_SICK & 1) &&
				 (!sim.only || sim.only >> CHAOS_SICK & 1);
	allowed[CHAOS_SICK].mean_ns = rnd_ms(5000, 60000);
	sim.rng = rnd_stream(STREAM_MIGRATE, 0);
	if (!(chaos_often >> CHAOS_MIGRATE & 1)) {
		allowed[CHAOS_MIGRATE].on = chance(600) && !chaos_only && !(sim.without >> CHAOS_MIGRATE & 1) && (!sim.only || sim.only >> CHAOS_MIGRATE & 1);
		allowed[CHAOS_MIGRATE].mean_ns = rnd_ms(2000, 60000);
	}
	sim.rng = rnd_stream(STREAM_SHUTDOWN, 0);
	if (!(chaos_often >> CHAOS_SHUTDOWN & 1)) {
		allowed[CHAOS_SHUTDOWN].on = chance(400) && !chaos_only && !(sim.without >> CHAOS_SHUTDOWN & 1) && (!sim.only || sim.only >> CHAOS_SHUTDOWN & 1);
		allowed[CHAOS_SHUTDOWN].mean_ns = rnd_ms(20000, 300000);
	}
	reserve_draw();
	sim.rng = rnd_stream(STREAM_RESERVE, 0);
	if (!(chaos_often >> CHAOS_RESERVE & 1)) {
		allowed[CHAOS_RESERVE].on = sim.reserve && chance(600) && !chaos_only && !(sim.without >> CHAOS_RESERVE & 1) && (!sim.only || sim.only >> CHAOS_RESERVE & 1);
		allowed[CHAOS_RESERVE].mean_ns = rnd_ms(5000, 60000);
	}
	sim.rng = world;
}

/* Undoing what a fault has done: one number says what. */
enum undo { UNDO_HANG, UNDO_CUT, UNDO_BAD_WRITES, UNDO_BAD_READS, UNDO_ACKS, UNDO_SLOW, UNDO_PART, UNDO_MASK, UNDO_ACTIVE, UNDO_START, UNDO_ADD, UNDO_ARM,
	UNDO_SHOW, UNDO_MISDIRECT, UNDO_TORN, UNDO_ROLLED_BACK, UNDO_REPAIR, UNDO_TROUBLE, UNDO_PAUSE, UNDO_MIGRATE, UNDO_IO, UNDO_ADOPT };

static void hurt_all(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
}

static void undo_target(enum undo what, unsigned target, uint32_t node)
{
	struct target *t = &sim.target[target];

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
	case UNDO_SHOW:
		t->shows = FORMAT_OK;
		break;
	case UNDO_MISDIRECT:
		t->misdirect = 0;
		break;
	case UNDO_TORN:
		t->torn_reads = false;
		break;
	case UNDO_ROLLED_BACK:
		hurt_all();
		damage_roll_back(target);
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			target_cut(target, id, false);
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
		edit_post(EDIT_UNFREEZE, a, 0);
		break;
	case UNDO_ADOPT: /* here, and now and then on another node, too: by whom it does not know of */
		edit_post(EDIT_IGNORE, a, 0);
		for (unsigned i = 0; i < 4; i++)
			agent_edge_take_in(sim_node(chance(800) ? node : 1 + (uint32_t)rnd(sim.n_nodes)), a, rnd_ms(0, 6000));
		break;
	case UNDO_ADD:
		edit_post(EDIT_ADD, a, 0);
		break;
	case UNDO_ARM:
		edit_post(EDIT_ARM, 0, 0);
		break;
	case UNDO_PAUSE:
		edit_post(EDIT_PAUSE, PAUSE_NONE, 0);
		break;
	case UNDO_IO: /* its storage stops a guest; where one fault is looked at alone that would be another */
		for (unsigned i = 0; i < sim.n_nodes && lively_ns() == 0; i++)
			if (sim.node[i].qemu[a].state == QEMU_RUNS && sim.node[i].qemu[a].live)
				sim.node[i].qemu[a].io_error = true;
		break;
	case UNDO_MIGRATE:
		edit_post(EDIT_CALL_OFF, a, 0);
		break;
	case UNDO_REPAIR:
		if (!damage_repaired())
			hurt_all();
		break;
	case UNDO_TROUBLE:
		ring_trouble(0, 0, 0);
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
static bool spared(unsigned target) { return sim.liar >= 0 && target < sim.n_volumes && target != (unsigned)sim.liar; }
static unsigned any_volume(void)
{
	unsigned v = (unsigned)rnd(sim.n_volumes);

	return sim.liar >= 0 ? (unsigned)sim.liar : v;
}

static struct qemu *any_guest(void)
{
	unsigned vm = (unsigned)rnd(sim.n_vms);

	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].qemu[vm].state == QEMU_RUNS && sim.node[i].qemu[vm].live)
			return &sim.node[i].qemu[vm];
	return NULL;
}

/* Something befalls a guest, not its QEMU. */
static void fall_ill(struct qemu *q)
{
	switch (rnd(4)) {
	case 0:
		q->io_error = true;
		break;
	case 1:
		q->mute = true;
		break;
	case 2:
		q->panicked = true;
		break;
	default:
		q->resets = true;
	}
	chaos_effect(CHAOS_SICK);
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
	case CHAOS_KEEPER_BRINK:
		n->brinks = 1 + (unsigned)rnd(3);
		break;
	case CHAOS_KEEPER_STALL:
		n->kproc.stall_in = 1 + (unsigned)rnd(6);
		n->kproc.stall_ns = ns;
		break;
	case CHAOS_KEEPER_RESTART:
		machine_stop_keeper(n);
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
	case CHAOS_SICK:
		if (q)
			fall_ill(q);
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

/* Somebody looks after the volume some time after it is right again. */
static void undo_content(int64_t ns, enum undo what, unsigned volume)
{
	undo_after(ns, what, volume, 0);
	undo_after(ns + rnd_ms(1000, 40000), UNDO_REPAIR, volume, 0);
}

static void fault_content(enum chaos_kind kind, int64_t ns)
{
	unsigned v = any_volume(), image = sim.vm[rnd(sim.n_vms)].target;
	struct target *t = &sim.target[v];

	switch (kind) {
	case CHAOS_ROT:
		damage_rot(v, any_node()->id);
		break;
	case CHAOS_READ_ONLY:
		t->bad_writes = true;
		t->bad_writes_by = (uint8_t)kind;
		undo_after(rnd_ms(60000, 240000), UNDO_BAD_WRITES, v, 0);
		break;
	case CHAOS_IMAGE_ERRORS:
		sim.target[image].bad_writes = true;
		sim.target[image].bad_writes_by = (uint8_t)kind;
		undo_after(ns, UNDO_BAD_WRITES, image, 0);
		break;
	case CHAOS_MISDIRECT:
		t->misdirect = 1 + (unsigned)rnd(2);
		undo_content(ns, UNDO_MISDIRECT, v);
		break;
	case CHAOS_TORN_READS:
		t->torn_reads = true;
		undo_after(ns, UNDO_TORN, v, 0);
		break;
	case CHAOS_WIPE:
	case CHAOS_FOREIGN:
		if (damage_show(v, kind == CHAOS_WIPE ? FORMAT_E_BLANK : FORMAT_E_CLUSTER))
			undo_content(ns, UNDO_SHOW, v);
		break;
	case CHAOS_ROLLBACK:
		/* It goes away for everybody, and what comes back is older than what was there. */
		if (!damage_image(v))
			break;
		undo_after(ns, UNDO_ROLLED_BACK, v, 0);
		undo_after(ns + rnd_ms(1000, 40000), UNDO_REPAIR, v, 0);
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
			if (spared(t))
				continue;
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
			if (spared(t))
				continue;
			target_cut(t, n->id, true);
			undo_after(ns + rnd_ms(0, 500), UNDO_CUT, t, n->id);
		}
		break;
	case CHAOS_BAD_WRITES:
		sim.target[v].bad_writes = true;
		sim.target[v].bad_writes_by = CHAOS_BAD_WRITES;
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
	default:
		break;
	}
}

static int64_t flap_until;

/* Views that change faster than anybody settles. */
static void on_flap(struct sim_event *ev)
{
	struct node *n = any_node();

	if (ev->arg != chaos_number)
		return;
	hurt_all();
	if (sim.now < flap_until) {
		n->part = n->part == 0 ? 1 + (unsigned)rnd(2) : 0;
		world_post(rnd_ms(50, 500), on_flap, NULL, chaos_number);
	} else {
		for (unsigned i = 0; i < sim.n_nodes; i++)
			sim.node[i].part = 0;
	}
	ring_changed();
}

/* While a ring falls apart, slow storage and a keeper that stands still for a moment make two sides see different winners. */
static void hesitate(void)
{
	const struct timing *t = &sim.timing;

	if (chance(300))
		proc_stop(&any_node()->kproc, rnd_ms(t->settle_ms, t->soft_ms + t->settle_ms));
	if (!chance(300))
		return;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		sim.target[v].near_limit = true;
		undo_after(rnd_ms(2 * t->wd_ms, 4 * t->wd_ms), UNDO_SLOW, v, 0);
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
		hesitate();
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
	case CHAOS_RING_THREE:
		for (unsigned i = 0; i < sim.n_nodes; i++)
			sim.node[i].part = i % 3;
		undo_after(ns, UNDO_PART, 0, 0);
		break;
	case CHAOS_RING_FLAP:
		flap_until = sim.now + ns;
		world_post(0, on_flap, NULL, chaos_number);
		break;
	case CHAOS_RING_LATE:
		ring_trouble(0, 0, rnd_ms(500, 8000));
		undo_after(ns, UNDO_TROUBLE, 0, 0);
		break;
	case CHAOS_RING_LOSS:
		ring_trouble(100 + (unsigned)rnd(800), rnd_ms(1, 3000), 0);
		undo_after(ns, UNDO_TROUBLE, 0, 0);
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

	switch (rnd(9)) {
	case 0:
		edit_post(EDIT_STOP, vm, 0);
		if (chance(400))
			undo_after(ns, UNDO_ADOPT, vm, n->id);
		undo_after(ns + rnd_ms(0, 60000), UNDO_START, vm, 0);
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
	case 5:
		edit_post(chance(500) ? EDIT_IGNORE : EDIT_FREEZE, vm, 0);
		undo_after(ns, UNDO_START, vm, 0);
		break;
	case 6:
		edit_post(EDIT_MOVE, vm, n->id);
		break;
	case 7:
		edit_post(EDIT_PAUSE, PAUSE_IGNORE + (unsigned)rnd(2), 0);
		undo_after(ns, UNDO_PAUSE, 0, 0);
		break;
	default:
		edit_post(EDIT_START, vm, 0);
	}
}

static bool heard(const struct keeper *k, const struct node *x) { return k->node[x->id - 1].known && k->node[x->id - 1].hb.epoch != 0; }

/* An operator looks at a node and then says that it is off: of one that is, and of one that is plainly not. Who sees a host that is on but says nothing says
 * nothing either. Others have a node fenced, dead or alive. */
static void fault_confirm(struct node *by)
{
	struct node *x = any_node();
	struct keeper_evidence e = { .kind = EVIDENCE_OPERATOR };
	bool well;

	for (unsigned i = 0; x->up && i < sim.n_nodes; i++)
		if (!sim.node[i].up)
			x = &sim.node[i]; /* sooner one of those */
	if (by == x || !by->k_runs || !proc_alive(&by->aproc) || !heard(by->keeper, x))
		return;
	e.node = x->id;
	e.epoch = by->keeper->node[x->id - 1].hb.epoch;
	well = x->up && x->k_runs && !x->kproc.stopped && x->keeper->state == LEASE_ARMED &&
	       node_now(x) - x->keeper->last_renewal_ns < keeper_ms(sim.timing.hb_ms + sim.timing.io_ms);
	if (!x->up || well) {
		chaos_effect(CHAOS_CONFIRM);
		history_add("operator at node %u: node %u is off%s", by->id, x->id, x->up ? ", which is not true" : "");
		keeper_edge_evidence(by, &e);
	}
	if (chance(200)) {
		x->hurt_ns = sim.now;
		history_add("operator at node %u: node %u is to be fenced", by->id, x->id);
		keeper_edge_fence(by, x->id, e.epoch);
	}
}

/* Now and then it is called off, before it has begun or in the middle. */
static void fault_migrate(struct node *n)
{
	unsigned vm = (unsigned)rnd(sim.n_vms);

	edit_post(EDIT_MIGRATE, vm, n->id);
	if (chance(250))
		undo_after(rnd_ms(10, 4000), UNDO_MIGRATE, vm, 0);
	if (allowed[CHAOS_SICK].on && chance(700)) /* just when it is to leave, or on its way */
		undo_after(rnd_ms(1, chance(500) ? 10 : 3000), UNDO_IO, vm, 0);
}

static int64_t off_time(void) { return chance(300) ? rnd_ms(1000, 6000) : chance(800) ? rnd_ms(6000, 60000) : rnd_ms(60000, 300000); }

/* In the middle of a dispatch: the effects before have happened, those after never do. */
static void on_step(struct sim_event *ev)
{
	struct node *n = &sim.node[ev->arg & 0xff];
	bool keeper = ev->arg >> 8 & 1;
	struct sim_proc *p = keeper ? &n->kproc : &n->aproc;

	if (ev->arg >> 24 != chaos_number || !proc_alive(p))
		return;
	if (!p->stopped) {
		if ((ev->arg >> 16 & 0xff) < 200)
			world_post(rnd_ms(1, 20), on_step, NULL, ev->arg + 0x10000);
		return;
	}
	chaos_effect(keeper ? CHAOS_KEEPER_STEP : CHAOS_AGENT_STEP);
	if (keeper) {
		keeper_edge_crash(n);
		machine_keeper_again(n, rnd_ms(20, 300));
	} else {
		agent_edge_crash(n);
		machine_agent_again(n, rnd_ms(20, 300));
	}
}

static struct qemu *any_process(void)
{
	struct node *n = any_node();
	struct qemu *q = &n->qemu[rnd(sim.n_vms)];

	return q->state != QEMU_NONE ? q : any_guest();
}

static void fault_machine(enum chaos_kind kind, struct node *n, int64_t ns)
{
	struct sim_proc *p = kind == CHAOS_KEEPER_STEP ? &n->kproc : &n->aproc;
	struct qemu *q;

	switch (kind) {
	case CHAOS_KEEPER_STEP:
	case CHAOS_AGENT_STEP:
		p->stall_in = 1 + (unsigned)rnd(6);
		p->stall_ns = rnd_ms(1000, 2000);
		world_post(0, on_step, NULL, (uint64_t)(n->id - 1) | (uint64_t)(kind == CHAOS_KEEPER_STEP) << 8 | chaos_number << 24);
		break;
	case CHAOS_QEMU_STOP:
		q = any_process();
		if (q) {
			chaos_effect(kind);
			proc_stop(&q->proc, ns);
		}
		break;
	case CHAOS_SLEEP:
		machine_sleep(n, MIN(ns, keeper_ms(3 * sim.timing.wd_ms)));
		break;
	case CHAOS_SLOW_BOOT:
		n->slow_boot_ns = rnd_ms(5000, 120000);
		break;
	case CHAOS_OPERATORS:
		/* Two at once, of two nodes: the second edit is asked for before the first is known. */
		chaos_effect(kind);
		fault_operator(n);
		fault_operator(any_node());
		break;
	default:
		break;
	}
}

void chaos_effect(enum chaos_kind kind) { sim.stats.effects[kind]++; }

/* The others tell for themselves when they have hit something. */
static void note_effect(enum chaos_kind kind, const struct node *n)
{
	bool ring = kind >= CHAOS_RING_SPLIT && kind <= CHAOS_ONE_WAY;

	if ((kind <= CHAOS_SLOW && kind != CHAOS_BAD_WRITES && kind != CHAOS_BAD_READS) || kind == CHAOS_IMAGE_HANG || kind == CHAOS_IMAGE_CUT ||
	    (ring && n->ring_up) || kind == CHAOS_SUSPEND || kind == CHAOS_ALL_POWER || kind == CHAOS_RING_THREE || kind == CHAOS_RING_FLAP ||
	    kind == CHAOS_KEEPER_BRINK || kind == CHAOS_CLONE)
		sim.stats.effects[kind] += n->up;
}

static void fault(enum chaos_kind kind)
{
	struct node *n = any_node();
	int64_t ns = duration();

	sim.stats.faults[kind]++;
	note_effect(kind, n);
	history_add("chaos: %s, node %u, %lld ms", chaos_name(kind), n->id, (long long)(ns / NS_PER_MS));
	if (kind == CHAOS_POWER) {
		machine_reset(n, "power lost", off_time());
	} else if (kind == CHAOS_ALL_POWER) {
		for (unsigned i = 0; i < sim.n_nodes; i++)
			machine_reset(&sim.node[i], "power lost", off_time());
	} else if (kind == CHAOS_SUSPEND) {
		n->hurt_ns = sim.now;
		keeper_edge_suspended(n);
	} else if (kind == CHAOS_VOLSET) {
		volset_replace(n, any_volume());
		if (chance(250))
			volset_replace(any_node(), any_volume());
	} else if (kind == CHAOS_CLONE) {
		clone_start(n->id, 10 * ns);
	} else if (kind == CHAOS_CONFIRM) {
		fault_confirm(n);
	} else if (kind == CHAOS_SHUTDOWN) {
		if (n->up)
			chaos_effect(kind);
		shutdown_begin(n, (enum leave_policy)rnd(4), chance(600), off_time());
	} else if (kind == CHAOS_RESERVE) {
		reserve_fault(n, ns);
	} else if (kind == CHAOS_MIGRATE) {
		chaos_effect(kind);
		fault_migrate(n);
	} else if (kind == CHAOS_OPERATOR) {
		chaos_effect(kind);
		fault_operator(n);
	} else if (kind >= CHAOS_RING_SPLIT && kind <= CHAOS_ONE_WAY) {
		hurt_all();
		fault_ring(kind, n, ns);
	} else if (kind >= CHAOS_VOLUME_HANG && kind <= CHAOS_IMAGE_CUT) {
		fault_storage(kind, n, ns);
	} else if (kind == CHAOS_ROT || (kind >= CHAOS_READ_ONLY && kind <= CHAOS_IMAGE_ERRORS)) {
		hurt_all();
		fault_content(kind, ns);
	} else if (kind >= CHAOS_RING_THREE && kind <= CHAOS_RING_LOSS) {
		hurt_all();
		fault_ring(kind, n, ns);
	} else if (kind >= CHAOS_KEEPER_STEP && kind <= CHAOS_OPERATORS) {
		fault_machine(kind, n, ns);
	} else {
		fault_process(kind, n, ns);
	}
}

static void next_fault(enum chaos_kind kind);

static uint64_t stream(enum chaos_kind kind) { return 1000 * (sim.period + 2) + 2 * (uint64_t)kind; }

/* Each fault draws from a stream of its own: leaving one out (--shrink) changes no other. */
static void on_fault(struct sim_event *ev)
{
	enum chaos_kind kind = (enum chaos_kind)(ev->arg & 0xff);
	uint64_t world = sim.rng;

	if (ev->arg >> 8 != chaos_number)
		return;
	sim.rng = rnd_stream(stream(kind), allowed[kind].drawn);
	if (sim_plays(sim.n_faults++, kind))
		fault(kind);
	sim.rng = world;
	next_fault(kind);
}

/* Dense bursts: much at once, then time to find out what is left of it. */
static int64_t pause_ns(void)
{
	int64_t in = burst_ns ? sim.now % (4 * burst_ns) : 0;

	return in >= burst_ns ? 4 * burst_ns - in : 0;
}

static void next_fault(enum chaos_kind kind)
{
	uint64_t world = sim.rng;

	sim.rng = rnd_stream(stream(kind) + 1, ++allowed[kind].drawn);
	world_post(lively_ns() + pause_ns() + 1 + (int64_t)rnd(2 * (uint64_t)allowed[kind].mean_ns), on_fault, NULL, kind | chaos_number << 8);
	sim.rng = world;
}

void chaos_begin(void)
{
	chaos_number++;
	sim.chaos = true;
	power_chaos();
	volset_chaos();
	lively_begin();
	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++) {
		allowed[k].drawn = 0;
		if (allowed[k].on)
			next_fault((enum chaos_kind)k);
	}
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
		target_acks(t);
		x->bad_writes = x->bad_reads = x->near_limit = false;
		x->slow = 0;
	}
	lively_reset();
	reserve_heal();
	power_heal();
	damage_heal();
	(void)damage_repaired();
	ring_trouble(0, 0, 0);
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *n = &sim.node[i];

		n->part = 0;
		n->ring_mask = 0;
		n->brinks = 0;
		n->kproc.stall_in = n->aproc.stall_in = 0;
		n->slow_boot_ns = 0;
		machine_wake(n);
		for (unsigned v = 0; v < sim.n_vms; v++) {
			proc_resume(&n->qemu[v].proc);
			qemu_well(&n->qemu[v]);
		}
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
	(void)clone_heal();
	(void)volset_heal();
	ring_changed();
	sim.n_edits = 0;
}

bool chaos_operator(void)
{
	const struct cat *c = &sim.cat_on_disk[0];
	bool removed = clone_heal();

	removed = !damage_repaired() || removed;
	if (volset_heal() || shutdown_pending())
		return true;
	if (sim.n_edits > 0)
		return true;
	for (unsigned i = 1; i < sim.n_nodes; i++) {
		const struct cat *o = &sim.cat_on_disk[i];

		if (o->generation > c->generation || (o->generation == c->generation && o->seq > c->seq))
			c = o;
	}
	if (!c->armed)
		edit_post(EDIT_ARM, 0, 0);
	if (c->pause != PAUSE_NONE)
		edit_post(EDIT_PAUSE, PAUSE_NONE, 0);
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		if (c->maintenance >> (id - 1) & 1)
			edit_post(EDIT_ACTIVE, 0, id);
	for (unsigned v = 0; v < sim.n_vms; v++) {
		if (!c->present[v])
			edit_post(EDIT_ADD, v, 0);
		else if (c->desired[v] == DESIRED_STOPPED || c->desired[v] == DESIRED_IGNORED)
			edit_post(EDIT_START, v, 0);
		if (c->present[v] && c->frozen[v])
			edit_post(EDIT_UNFREEZE, v, 0);
		removed = removed || (c->present[v] && c->desired[v] == DESIRED_REMOVED);
	}
	return sim.n_edits > 0 || removed;
}

bool chaos_hurts(const struct node *n)
{
	if (!n->up || n->kproc.stopped || !proc_alive(&n->kproc) || n->kproc.hurt_ns > sim.now - 30 * SIM_S || !n->corosync || !ring_whole())
		return true;
	if (!n->k_runs || n->keeper->state == LEASE_STARTING || client_ready(&n->kclient) < sim.n_volumes)
		return true;
	for (unsigned v = 0; v < sim.n_volumes; v++)
		if (n->keeper->volume[v].fault != FAULT_NONE /* given up until somebody looks after it */ || sim.target[v].cut >> (n->id - 1) & 1)
			return true;
	return n->io_hurt_ns > sim.now - 30 * SIM_S;
}
