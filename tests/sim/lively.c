/* SPDX-License-Identifier: GPL-2.0-or-later */
/* L1 with the bounds that `ha-ctl config show` prints: a cluster that is well loses one node, by power or by all its paths to storage, and nothing else
 * happens meanwhile. Every VM of that node runs elsewhere within timing_failover_bound_ms. Or an agent dies or stops for good, and one of its node's VMs
 * ends, then or later: it runs elsewhere within timing_silent_bound_ms, and the others go on where they are.
 * L6: or all storage is gone for everybody, in one of three ways, and comes back: nobody is released or reset, and no VM ends. */
#include "tests/sim/sim.h"

#define STREAM_LIVELY 1002 /* rnd_stream: no fault's, not the periods' */
#define LONE_PERMILLE 350
#define OUTAGE_PERMILLE 400 /* of those */
#define SILENT_PERMILLE 400 /* of the rest */
#define AFTER_MS 1000      /* nothing else for that much longer */
#define SLOPPY_MS 50       /* rounding of timers and clocks that are fast */

static int64_t quiet_until, lone_ns, outage_ns;
static uint64_t lone_number;
static struct { uint32_t id; unsigned vm; int64_t ends_ns; uint32_t life[SIM_MAX_VMS]; } mute; /* whose agent is silent; which VM ends; the others' processes */

int64_t lively_ns(void) { return MAX(quiet_until - sim.now, 0); }

int64_t sim_order_ms(void) { return sim.health || places_drawn() ? (int64_t)sim.n_vms * (SIM_AFTER_MS + 2000) : 0; }

static int64_t bound_ns(void) { return ((int64_t)timing_failover_bound_ms(&sim.timing) + SLOPPY_MS + sim_order_ms()) * NS_PER_MS; }

static uint64_t running_nodes(uint32_t but)
{
	uint64_t nodes = 0;

	for (unsigned i = 0; i < sim.n_nodes; i++)
		nodes |= (uint64_t)(sim.node[i].up && sim.node[i].id != but) << i;
	return nodes;
}

static void on_bound(struct sim_event *ev)
{
	if (ev->arg != lone_number)
		return;
	sim.no_message_lost = false;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (sim.vm[v].gone_ns == lone_ns && !sim.failed && places_has_place(v, running_nodes(0)))
			violation("L1", "VM %u does not run %u ms after its node was lost, and nothing else was wrong", v, timing_failover_bound_ms(&sim.timing));
}

static void on_lone(struct sim_event *ev)
{
	struct node *n = &sim.node[ev->arg & 0xff];

	if (ev->arg >> 8 != lone_number)
		return;
	history_add("lively: node %u is lost, and nothing else happens for %lld ms", n->id, (long long)(bound_ns() / NS_PER_MS));
	lone_ns = sim.now;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
	machine_reset(n, "power lost", bound_ns() + rnd_ms(AFTER_MS, 20000));
	world_post(bound_ns(), on_bound, NULL, lone_number);
}

static int64_t silent_bound_ns(void) { return ((int64_t)timing_silent_bound_ms(&sim.timing) + SLOPPY_MS + sim_order_ms()) * NS_PER_MS; }

static void on_silent_bound(struct sim_event *ev)
{
	struct node *n = sim_node(mute.id);

	if (ev->arg != lone_number)
		return;
	for (unsigned v = 0; v < sim.n_vms && !sim.failed; v++) {
		if (v == mute.vm && sim.vm[v].gone_ns != 0 && places_has_place(v, running_nodes(mute.id)))
			violation("L1", "VM %u ended while its node's agent was silent, and does not run %u ms later", v, timing_silent_bound_ms(&sim.timing));
		else if (v != mute.vm && mute.life[v] != 0 && (n->qemu[v].state != QEMU_RUNS || n->qemu[v].proc.life != mute.life[v]))
			violation("L4", "VM %u does not run on as it did, and only its node's agent was silent", v);
	}
	sim.no_message_lost = false;
	proc_resume(&n->aproc);
	if (!proc_alive(&n->aproc))
		machine_agent_again(n, 0);
}

static void on_silent_end(struct sim_event *ev)
{
	struct qemu *q = &sim_node(mute.id)->qemu[mute.vm];

	if (ev->arg != lone_number)
		return;
	history_add("lively: VM %u ends on node %u, whose agent is silent or will be", mute.vm, mute.id);
	qemu_crash(q);
}

/* A VM whose guest is just switching it off is none to follow. */
static void on_silent(struct sim_event *ev)
{
	struct node *n = sim_node(mute.id);

	if (ev->arg != lone_number)
		return;
	mute.vm = SIM_MAX_VMS;
	for (unsigned v = 0; v < sim.n_vms; v++) {
		mute.life[v] = n->qemu[v].state == QEMU_RUNS && !n->qemu[v].quitting && !n->qemu[v].powering_down ? n->qemu[v].proc.life : 0;
		if (mute.life[v] != 0 && (mute.vm == SIM_MAX_VMS || chance(500)))
			mute.vm = v;
	}
	if (check_lively() || mute.vm == SIM_MAX_VMS) {
		sim.no_message_lost = false;
		return;
	}
	history_add("lively: the agent of node %u is silent for good, and nothing else happens for %lld ms but an end of VM %u", n->id,
		    (long long)((mute.ends_ns + silent_bound_ns()) / NS_PER_MS), mute.vm);
	if (chance(500))
		proc_stop(&n->aproc, SIM_NEVER / 2);
	else
		agent_edge_crash(n);
	world_post(mute.ends_ns, on_silent_end, NULL, lone_number);
	world_post(mute.ends_ns + silent_bound_ns(), on_silent_bound, NULL, lone_number);
}

enum outage { OUTAGE_HANG, OUTAGE_CUT, OUTAGE_ERRORS, OUTAGE_COUNT };

static void outage_of(unsigned target, enum outage how, bool on)
{
	switch (how) {
	case OUTAGE_HANG:
		target_hang(target, on);
		break;
	case OUTAGE_CUT:
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			target_cut(target, id, on);
		break;
	default:
		sim.target[target].bad_writes = on;
		sim.target[target].bad_reads = on;
		sim.target[target].bad_writes_by = CHAOS_BAD_WRITES;
	}
}

/* Nodes are as long at reconnecting as T_heal says; then a lease may still be at its last pet. */
static int64_t healing_ns(void) { return keeper_ms(sim.timing.heal_ms + sim.timing.wd_ms + sim.timing.wd_delay_ms + AFTER_MS); }

static void on_outage_over(struct sim_event *ev)
{
	const char *missing = check_lively();

	if (ev->arg != lone_number)
		return;
	sim.outage = sim.no_message_lost = false;
	if (missing && !sim.failed)
		violation("L6", "%lld ms after an outage of the storage that hit everybody: %s", (long long)(healing_ns() / NS_PER_MS), missing);
}

static void on_back(struct sim_event *ev)
{
	if (ev->arg >> 16 == lone_number)
		outage_of((unsigned)(ev->arg & 0xff), (enum outage)(ev->arg >> 8 & 0xff), false);
}

static void on_outage(struct sim_event *ev)
{
	enum outage how = (enum outage)(ev->arg & 0xff);
	int64_t ns = outage_ns;

	if (ev->arg >> 8 != lone_number)
		return;
	if (check_lively()) {
		sim.no_message_lost = false; /* an edit of before has come through meanwhile */
		return;
	}
	history_add("lively: all storage is gone for everybody (%d) for %lld ms", (int)how, (long long)(ns / NS_PER_MS));
	sim.stats.outages++;
	sim.outage = true;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now + ns;
	for (unsigned t = 0; t < sim.n_targets; t++) {
		outage_of(t, how, true);
		world_post(ns, on_back, NULL, lone_number << 16 | (uint64_t)how << 8 | t);
	}
	world_post(ns + healing_ns(), on_outage_over, NULL, lone_number);
}

void lively_reset(void)
{
	sim.outage = false;
	quiet_until = lone_ns = 0;
	lone_number++;
	sim.no_message_lost = false;
}

void lively_begin(void)
{
	uint64_t world = sim.rng;

	lone_number++;
	quiet_until = 0;
	sim.no_message_lost = false;
	if (sim.brake_percent < 100 || sim.unproven || check_lively())
		return; /* a brake may wait for an operator, and so may the end of a node without a watchdog */
	sim.rng = rnd_stream(STREAM_LIVELY, sim.period);
	if (chance(LONE_PERMILLE)) {
		int64_t wait = rnd_ms(1000, 3000);

		sim.no_message_lost = true;
		if (chance(OUTAGE_PERMILLE)) {
			outage_ns = chance(400) ? rnd_ms(100, 3 * sim.timing.wd_ms) : chance(900) ? rnd_ms(3000, 90000) : rnd_ms(300000, 600000);
			quiet_until = sim.now + wait + outage_ns + healing_ns() + AFTER_MS * NS_PER_MS;
			world_post(wait, on_outage, NULL, lone_number << 8 | rnd(OUTAGE_COUNT));
			sim.rng = world;
			return;
		}
		if (chance(SILENT_PERMILLE) && sim.timing.silent_ms == timing_silent_ms(&sim.timing)) {
			mute.id = 1 + (uint32_t)rnd(sim.n_nodes);
			mute.ends_ns = chance(300) ? rnd_us(0, 100) : rnd_ms(0, 2 * sim.timing.silent_ms);
			quiet_until = sim.now + wait + mute.ends_ns + silent_bound_ns() + AFTER_MS * NS_PER_MS;
			world_post(wait, on_silent, NULL, lone_number);
			sim.rng = world;
			return;
		}
		quiet_until = sim.now + wait + bound_ns() + AFTER_MS * NS_PER_MS;
		world_post(wait, on_lone, NULL, lone_number << 8 | rnd(sim.n_nodes));
	}
	sim.rng = world;
}
