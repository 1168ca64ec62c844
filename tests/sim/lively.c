/* SPDX-License-Identifier: GPL-2.0-or-later */
/* L1 with the bound that `ha-ctl config show` prints: a cluster that is well loses one node, by power or by all its paths to storage, and nothing else
 * happens meanwhile. Every VM of that node runs elsewhere within timing_failover_bound_ms. */
#include "tests/sim/sim.h"

#define STREAM_LIVELY 1002 /* rnd_stream: no fault's, not the periods' */
#define LONE_PERMILLE 350
#define AFTER_MS 1000      /* nothing else for that much longer */
#define SLOPPY_MS 50       /* rounding of timers and clocks that are fast */

static int64_t quiet_until, lone_ns;
static uint64_t lone_number;

int64_t lively_ns(void) { return MAX(quiet_until - sim.now, 0); }

static int64_t bound_ns(void) { return (int64_t)(timing_failover_bound_ms(&sim.timing) + SLOPPY_MS) * NS_PER_MS; }

static void on_bound(struct sim_event *ev)
{
	if (ev->arg != lone_number)
		return;
	sim.no_message_lost = false;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (sim.vm[v].gone_ns == lone_ns && !sim.failed)
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

void lively_reset(void)
{
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
	if (sim.brake_percent < 100 || check_lively())
		return; /* a brake may wait for an operator */
	sim.rng = rnd_stream(STREAM_LIVELY, sim.period);
	if (chance(LONE_PERMILLE)) {
		int64_t wait = rnd_ms(1000, 3000);

		sim.no_message_lost = true;
		quiet_until = sim.now + wait + bound_ns() + AFTER_MS * NS_PER_MS;
		world_post(wait, on_lone, NULL, lone_number << 8 | rnd(sim.n_nodes));
	}
	sim.rng = world;
}
