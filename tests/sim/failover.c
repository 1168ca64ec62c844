/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-sim --failover: lone power cuts of the node that runs a VM, in a cluster that is well before each, and when each phase of the takeover was reached.
 * contrib/bench does the same to real clusters (contrib/lab) and puts both beside each other: two VMs in turn, each with a node of its own that it prefers;
 * a node comes back once the VM writes elsewhere. So that the two can be compared, the edges take as long here as in the lab: edges[]. */
#include <stdio.h>

#include "tests/sim/sim.h"

#define N_VMS 2
#define CUTS_OF_WORLD 20
#define WELL_LIMIT_S 120
#define PAUSE_MS 1000  /* after all is well: the lab's next cut takes about that long to begin */
#define SLOPPY_MS 50   /* rounding of timers */
#define LAB_WRITE_MS 110 /* contrib/lab.d/guest.S: STAMP_TICKS */

/* Measured in contrib/lab (three nodes, iSCSI + NFS + iSCSI), on a machine with two cores and a load of 3 to 7, before what README "How fast" tells. */
static const struct sim_quantiles edges[EDGE_COUNT] = {
	[EDGE_STORAGE] = { { 100, 230, 3000, 8000 } },               /* `ha-ctl volume test --seconds 15` of an iSCSI and an NFS volume, cluster running */
	[EDGE_TOKEN] = { { 2037000, 2100000, 2197000, 2202000 } },   /* power cut -> the keeper's log of the new ring, token 1 s; 7 cuts */
	[EDGE_LAUNCH] = { { 7000, 24000, 50000, 58000 } },           /* claimed -> gate without Drain: probe's session, systemd's job, launcher; 28 cuts */
	[EDGE_GUEST] = { { 90000, 234000, 400000, 412000 } },        /* gate -> first stamp on the server, QEMU under TCG; 28 cuts */
};

static const char *const phase_name[FAILOVER_COUNT] = { "silent", "fenced", "over", "claimed", "exec", "writes" };

static struct failover {
	bool under_way;
	uint32_t node;
	unsigned vm, leaders; /* cuts that took the leader */
	uint64_t violations; /* of before */
	int64_t cut_ns, at_ns[FAILOVER_COUNT]; /* 0: not yet */
	int64_t *sample[FAILOVER_COUNT];
	unsigned n[FAILOVER_COUNT];
} fo;

void failover_at(enum failover_phase phase, uint32_t id)
{
	bool of_node = phase <= FAILOVER_OVER;

	if (fo.under_way && fo.at_ns[phase] == 0 && id == (of_node ? fo.node : fo.vm))
		fo.at_ns[phase] = sim.now;
}

static struct node *owner(unsigned vm)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].qemu[vm].state == QEMU_RUNS)
			return &sim.node[i];
	return NULL;
}

static bool all_well(void)
{
	int64_t limit = sim.now + WELL_LIMIT_S * SIM_S;
	const char *missing;

	while (missing = check_lively(), !sim.failed && missing && sim.now < limit)
		sim_run_until(sim.now + 50 * NS_PER_MS);
	if (missing && !sim.failed)
		violation("L1/L3", "not well %d s after the last power cut: %s", WELL_LIMIT_S, missing);
	return !sim.failed;
}

/* What safety needs, a heartbeat each until the last one of the lost node is read and until the round that finds W over, and edges that are quick: much
 * less than the bound, which holds while every storage operation may take T_io. */
static int64_t limit_ns(void)
{
	const struct timing *t = &sim.timing;
	int64_t quick_us = TIMING_TAKEOVER_IOS * edges[EDGE_STORAGE].us[3] + edges[EDGE_LAUNCH].us[3];

	return (int64_t)(t->w_ms + t->drain_ms + 2 * t->hb_ms + SLOPPY_MS) * NS_PER_MS + quick_us * 1000;
}

static void cut(unsigned vm)
{
	struct node *n;

	sim_run_until(sim.now + rnd_ms(PAUSE_MS, PAUSE_MS + sim.timing.hb_ms));
	n = owner(vm);
	if (sim.failed || !n)
		return;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
	fo.under_way = true;
	fo.node = n->id;
	fo.vm = vm;
	fo.leaders += n->leading;
	fo.cut_ns = sim.now;
	memset(fo.at_ns, 0, sizeof(fo.at_ns));
	machine_reset(n, "power lost", SIM_NEVER);
	while (!sim.failed && fo.at_ns[FAILOVER_WRITES] == 0) {
		sim_run_until(sim.now + 10 * NS_PER_MS);
		if (fo.at_ns[FAILOVER_EXEC] == 0 && sim.now - fo.cut_ns > limit_ns())
			violation("L1", "VM %u does not run %lld ms after its node was lost, and nothing else was wrong or slow", vm,
				  (long long)(limit_ns() / NS_PER_MS));
	}
	fo.under_way = false;
	for (unsigned p = 0; p < FAILOVER_COUNT && !sim.failed; p++)
		if (fo.at_ns[p] != 0)
			fo.sample[p][fo.n[p]++] = fo.at_ns[p] - fo.cut_ns;
	machine_boot(n);
}

static void build(void)
{
	static struct vm_def policy[N_VMS];

	power_none(); /* as in the lab */
	places_reset();
	sim.edges = edges;
	sim.no_message_lost = true;
	sim.guest_write_ns = LAB_WRITE_MS * NS_PER_MS;
	for (unsigned t = 0; t < sim.n_targets; t++)
		sim.target[t].is_path = false;
	for (unsigned v = 0; v < sim.n_vms; v++) {
		sim.vm[v].target = sim.n_volumes;
		policy[v] = (struct vm_def){ .memory_mib = 32, .vcpus = 1, .restart_limit = 3, .restart_window_ms = 30000, .stop_timeout_ms = 5000,
					     .n_preferred = 1, .preferred = { v == 0 ? 3 : 2 } };
		sim.vm[v].policy = &policy[v];
	}
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].clock_rate = 0; /* the lab's nodes share one clock */
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The smallest sample that so many do not exceed; bench's spread() does the same. */
static double at_percent(const int64_t *sorted, unsigned n, unsigned percent)
{
	unsigned rank = (n * percent + 99) / 100;

	return (double)sorted[rank > 0 ? rank - 1 : 0] / 1e9;
}

static void report(const struct sim_options *o, bool json)
{
	static const struct { const char *name; unsigned percent; } shown[] = { { "min", 0 }, { "median", 50 }, { "p90", 90 }, { "p99", 99 }, { "max", 100 } };
	const char *profile = timing_profile_name((enum timing_profile)o->profile), *sep = "";

	if (json)
		(void)printf("{\"profile\": \"%s\", \"nodes\": %u, \"volumes\": %u, \"cuts\": %u, \"of_leaders\": %u, \"bound_s\": %.3f, "
			     "\"violations\": %llu, \"phases\": {", profile, sim.n_nodes, sim.n_volumes, fo.n[FAILOVER_EXEC], fo.leaders,
			     timing_failover_bound_ms(&sim.timing) / 1000.0, (unsigned long long)(sim.stats.violations - fo.violations));
	else
		(void)printf("profile %s, %u nodes, %u volumes, %u power cuts, %u of the leader, bound %.3f s, violations %llu; seconds since the cut:\n",
			     profile, sim.n_nodes, sim.n_volumes, fo.n[FAILOVER_EXEC], fo.leaders, timing_failover_bound_ms(&sim.timing) / 1000.0,
			     (unsigned long long)(sim.stats.violations - fo.violations));
	for (unsigned p = 0; p < FAILOVER_COUNT; p++) {
		if (fo.n[p] == 0)
			continue;
		qsort(fo.sample[p], fo.n[p], sizeof(fo.sample[p][0]), ascending);
		(void)printf(json ? "%s\"%s\": {\"n\": %u" : "%s  %-8s n %u", sep, phase_name[p], fo.n[p]);
		sep = json ? ", " : "";
		for (unsigned i = 0; i < ARRAY_SIZE(shown); i++)
			(void)printf(json ? ", \"%s\": %.3f" : "   %s %.3f", shown[i].name, at_percent(fo.sample[p], fo.n[p], shown[i].percent));
		(void)printf(json ? "}" : "\n");
	}
	(void)printf(json ? "}}\n" : "");
}

void failover_play(const struct sim_options *options, unsigned cuts, uint64_t seed, bool json)
{
	struct sim_options o = *options;

	o.vms = N_VMS;
	fo.leaders = 0;
	fo.violations = sim.stats.violations;
	for (unsigned p = 0; p < FAILOVER_COUNT; p++) {
		fo.n[p] = 0;
		fo.sample[p] = calloc(cuts, sizeof(fo.sample[p][0]));
		CHECK(fo.sample[p]);
	}
	sim.failed = false;
	for (unsigned done = 0; done < cuts && !sim.failed; done++) {
		if (done % CUTS_OF_WORLD == 0) {
			sim_begin(&o, seed++);
			build();
		}
		if (all_well())
			cut(done % N_VMS);
	}
	report(&o, json);
	for (unsigned p = 0; p < FAILOVER_COUNT; p++)
		free(fo.sample[p]);
	sim.edges = NULL;
	sim.no_message_lost = false;
}
