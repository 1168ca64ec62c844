/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One fault that nobody mends, in a cluster that was well: within a bound every VM runs on whoever is left, and stays (L1, L5). After chaos everything is
 * healed before liveness is asked for; here it is asked for while something is gone. */
#include "tests/sim/sim.h"

#define STREAM_LASTING 1001 /* rnd_stream: no fault's, not the periods' */
#define SLACK_MS 20000      /* beyond twice the stated bound: a leader to be found, an assignment that is lost, a slow start */
#define STAYS_MS 3000
#define SYSTEMD_MS 35000    /* WatchdogSec= and TimeoutStopSec= of ha-agent.service */

enum lasting { LASTING_POWER, LASTING_SPLIT, LASTING_PATHS, LASTING_VOLUME, LASTING_AGENT, LASTING_NO_RING, LASTING_COUNT };

static struct node *silent; /* whose agent is stopped */

static uint64_t all_nodes(void) { return (2ULL << (sim.n_nodes - 1)) - 1; }
static bool in(uint64_t set, uint32_t id) { return set >> (id - 1) & 1; }

/* Neither empty nor all. */
static uint64_t some_nodes(void)
{
	uint64_t set;

	do
		set = rnd(all_nodes());
	while (set == 0);
	return set;
}

static void power_off(uint64_t nodes)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		if (in(nodes, id))
			machine_reset(sim_node(id), "power lost for good", SIM_NEVER);
}

static void split(uint64_t nodes)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		sim_node(id)->part = in(nodes, id);
	ring_changed();
}

/* A stopped agent, and work for the others: its node's VMs run on, those of another must find a new place. */
static uint64_t stop_agent(uint32_t id)
{
	uint64_t gone = 1ULL << (id % sim.n_nodes);

	silent = sim_node(id);
	proc_stop(&silent->aproc, SIM_NEVER / 2);
	if (sim.n_nodes < 3)
		return 0;
	power_off(gone);
	return gone;
}

/* Returns the nodes that are to be left with a lease; ret_managed: whose agents are to work. ret_or: or those: views come late, and of a side whose
 * members do not all see it yet the other one may win. */
static uint64_t begin(enum lasting what, uint64_t *ret_managed, uint64_t *ret_or)
{
	uint64_t some = some_nodes(), all = all_nodes(), left = all;
	uint32_t id = 1 + (uint32_t)rnd(sim.n_nodes);
	unsigned v = (unsigned)rnd(sim.n_volumes);

	*ret_managed = *ret_or = 0;
	switch (what) {
	case LASTING_POWER:
		power_off(some);
		left = all & ~some;
		break;
	case LASTING_SPLIT:
		split(some);
		left = some;
		*ret_or = all & ~some;
		break;
	case LASTING_PATHS:
		for (unsigned t = 0; t < sim.n_targets; t++)
			target_cut(t, id, true);
		left = all & ~(1ULL << (id - 1));
		break;
	case LASTING_VOLUME:
		if (sim.n_volumes > 1)
			target_hang(v, true);
		break;
	case LASTING_AGENT:
		left = all & ~stop_agent(id);
		*ret_managed = 1ULL << (id - 1);
		break;
	default:
		for (uint32_t i = 1; i <= sim.n_nodes; i++)
			machine_corosync(sim_node(i), false, 0);
	}
	history_add("lasting: fault %d, nodes %llx, node %u, volume %u; left with a lease: %llx", (int)what, (unsigned long long)some, id, v,
		    (unsigned long long)left);
	*ret_managed = left & ~*ret_managed;
	return left;
}

/* An acknowledgement that was lost before the healing: a kernel takes its time until it asks again. */
static bool storage_is_quiet(void)
{
	for (unsigned t = 0; t < sim.n_targets; t++)
		for (const struct op *op = sim.target[t].ops; op; op = op->next)
			if (op->told)
				return false;
	return true;
}

static void run_until(int64_t at)
{
	while (!sim.failed && world_step(at))
		;
}

/* systemd ends an agent that does not answer and starts it again; here only where a guest waits for it: one that was sent stands still until the agent
 * of its node says what becomes of it, and nobody else may (DESIGN: the target continues it only under a release with its id). */
static bool systemd_acts(int64_t since)
{
	bool waits = false;

	for (unsigned v = 0; v < sim.n_vms && silent; v++)
		waits = waits || qemu_sent(&silent->qemu[v]);
	if (!waits || sim.now - since < SYSTEMD_MS * NS_PER_MS)
		return false;
	history_add("lasting: systemd starts the agent of node %u again, for which a guest waits", silent->id);
	agent_edge_crash(silent);
	if (!proc_alive(&silent->aproc))
		machine_agent_again(silent, 0);
	silent = NULL;
	return true;
}

void lasting_check(void)
{
	int64_t wait = (2LL * timing_failover_bound_ms(&sim.timing) + SLACK_MS + sim_order_ms()) * NS_PER_MS, begun, limit, stays = 0;
	uint64_t world = sim.rng, left, or, managed;
	enum lasting what;
	const char *missing;
	bool claims;

	while (!sim.failed && !storage_is_quiet())
		run_until(sim.now + SIM_S);
	begun = sim.now;
	limit = begun + wait;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
	silent = NULL;
	sim.rng = rnd_stream(STREAM_LASTING, sim.period);
	what = (enum lasting)rnd(LASTING_COUNT);
	left = begin(what, &managed, &or);
	/* DESIGN: of two volumes claiming needs both, and once a release is issued the source never resumes: one that is on its way may have to wait for them. */
	claims = what != LASTING_VOLUME || sim.n_volumes != 2;
	if (chance(300)) /* storage that is slow, though in time */
		for (unsigned t = 0; t < sim.n_volumes; t++)
			sim.target[t].near_limit = true;
	sim.rng = world;
	while (!sim.failed && (stays == 0 || sim.now < stays)) {
		run_until(sim.now + SIM_S / 4);
		if (systemd_acts(begun))
			limit = sim.now + wait;
		missing = check_lively_on(left, managed, claims && stays == 0);
		if (missing && or != 0)
			missing = check_lively_on(or, or, claims && stays == 0);
		if (!missing && stays == 0)
			stays = sim.now + STAYS_MS * NS_PER_MS;
		if (missing && !sim.failed && (stays != 0 || sim.now > limit))
			violation("L1/L5", "%s one fault: %s", stays ? "it did not stay well with" : "not well in time after", missing);
	}
}
