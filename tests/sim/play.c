/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One seed: what it decides, a cold start, chaos and healing in turn until its time is over. */
#include <stdio.h>

#include "tests/sim/sim.h"

#define CHAOS_MS (15 * 60 * 1000)
#define HEAL_LIMIT_S 240
#define CALM_S 20 /* after everything is well again: it stays so */
#define STREAM_PERIOD 1000 /* rnd_stream: no fault's */
#define STREAM_POLICY 1004
#define STREAM_SILENT 1005

int sim_vm_index(const uint8_t uuid[16])
{
	CHECK(uuid[0] == 'v' && uuid[1] < sim.n_vms);
	return uuid[1];
}

bool sim_plays(uint64_t fault, unsigned kind)
{
	if (fault < SIM_MAX_FAULTS)
		sim.fault_kind[fault] = (uint8_t)kind;
	return fault >= SIM_MAX_FAULTS || !(sim.left_out[fault / 8] >> (fault % 8) & 1);
}

/* What the seed decides before anything runs. */
static void build_storage(const struct sim_options *o)
{
	unsigned images = 1 + (unsigned)rnd(2);

	sim.n_volumes = o->volumes ? o->volumes : 1 + (unsigned)rnd(3);
	sim.n_targets = sim.n_volumes + images;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		struct superblock *sb = &sim.sb[v];

		*sb = (struct superblock){ .generation = 1, .n_volumes = sim.n_volumes, .index = v, .node_limit = sim.n_nodes, .timing = sim.timing };
		memcpy(sb->cluster, "simulatedcluster", 16);
		memcpy(sb->cluster_name, "sim", 4);
		for (unsigned i = 0; i < sim.n_volumes; i++)
			sb->set[i][0] = (uint8_t)(i + 1);
		sim.target[v].is_volume = true;
		sim.target[v].is_path = chance(300);
		blocks_format(v);
	}
	for (unsigned t = sim.n_volumes; t < sim.n_targets; t++)
		sim.target[t].is_path = chance(300);
	for (unsigned v = 0; v < sim.n_vms; v++) {
		sim.vm[v] = (struct sim_vm){ .uuid = { 'v', (uint8_t)v, 1 } };
		sim.vm[v].target = chance(300) ? 0 : sim.n_volumes + v % images;
	}
}

/* In half of the seeds guests are looked after; of a stream of its own, so that the others are what they are without it. */
static void build_policies(void)
{
	uint64_t world = sim.rng;

	sim.rng = rnd_stream(STREAM_POLICY, 0);
	sim.health = chance(500) || chaos_often >> CHAOS_SICK & 1;
	for (unsigned v = 0; v < sim.n_vms && sim.health; v++) {
		struct vm_def *d = &sim.vm[v].own_policy;

		*d = (struct vm_def){ .memory_mib = 1024, .vcpus = 1, .priority = (uint32_t)rnd(3), .restart_limit = (uint32_t)rnd(4),
				      .restart_window_ms = 30000, .stop_timeout_ms = 5000, .live = v % 4 != 3 };
		d->restart = chance(600) ? RESTART_ON_FAILURE : chance(300) ? RESTART_ALWAYS : RESTART_NEVER;
		d->health = (struct health_policy){ .agent = chance(700), .hang_ms = (uint32_t)(8000 + rnd(12000)), .boot_ms = chance(500) ? 15000 : 0,
						    .silence_ms = 15000, .io_elsewhere_ms = chance(700) ? 6000 : 0, .check_failures = 3,
						    .reset_limit = (uint32_t)rnd(4), .reset_window_ms = 60000 };
		if (chance(400)) {
			d->n_apart = 1;
			(void)str_copy(d->apart[0], sizeof(d->apart[0]), chance(500) ? "a" : "b");
		}
		if (v > 0 && chance(300)) {
			d->n_after = 1;
			(void)snprintf(d->after[0], sizeof(d->after[0]), "vm%u", (unsigned)rnd(v));
			d->after_ready = chance(500) ? READY_RUNNING : READY_AGENT;
			d->after_delay_ms = (uint32_t)rnd(500);
			d->after_timeout_ms = SIM_AFTER_MS;
		}
		sim.vm[v].policy = d;
	}
	sim.rng = world;
}

static void build(const struct sim_options *o, uint64_t seed)
{
	enum timing_profile profile;

	sim.seed = seed;
	sim.failed = false;
	sim.n_faults = sim.period = 0;
	for (unsigned i = 0; i < SIM_MAX_NODES; i++) {
		struct node *n = &sim.node[i], old = *n;

		*n = (struct node){ .id = i + 1, .keeper = old.keeper, .agent = old.agent };
		n->kproc.late = old.kproc.late;
		n->kproc.late_size = old.kproc.late_size;
		n->aproc.late = old.aproc.late;
		n->aproc.late_size = old.aproc.late_size;
	}
	sim.n_nodes = o->nodes ? o->nodes : 2 + (unsigned)rnd(5);
	sim.n_vms = sim.n_nodes + (unsigned)rnd(sim.n_nodes);
	if (o->vms)
		sim.n_vms = o->vms;
	profile = (enum timing_profile)rnd(TIMING_PROFILE_COUNT);
	timing_of_profile(o->profile >= 0 ? (enum timing_profile)o->profile : profile, &sim.timing);
	if (rnd_stream(STREAM_SILENT, 0) % 2) /* agents stop for longer than that more often */
		sim.timing.silent_ms = sim.timing.leader_ms;
	sim.guest_write_ns = rnd_ms(200, 2000);
	sim.keep_on_ring_loss = chance(200);
	sim.n_edits = 0;
	sim.edit_ns = 0;
	sim.instances = 0;
	memset(sim.over, 0, sizeof(sim.over));
	memset(sim.cat_on_disk, 0, sizeof(sim.cat_on_disk));
	sim.cat_on_disk[0].seq = 1;
	sim.cat_on_disk[0].armed = true;
	for (unsigned v = 0; v < sim.n_vms; v++)
		sim.cat_on_disk[0].present[v] = true;
	build_storage(o);
	power_reset();
	build_policies();
	places_draw();
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *n = &sim.node[i];

		if (!n->keeper)
			n->keeper = calloc(1, sizeof(*n->keeper));
		if (!n->agent)
			n->agent = calloc(1, sizeof(*n->agent));
		CHECK(n->keeper && n->agent);
		n->clock_rate = (uint32_t)rnd(41); /* of 4096: within rho = 1 % of each other */
		machine_boot(n);
	}
}

void sim_run_until(int64_t at)
{
	while (!sim.failed && world_step(at))
		;
}

/* All well again within the bound, and it stays so. */
static void heal_and_check(void)
{
	int64_t begin = sim.now;
	const char *missing;
	bool asked;

	sim_run_until(begin + keeper_ms(sim.timing.wd_ms + sim.timing.wd_delay_ms)); /* who was not petted before may still bite */
	while (asked = chaos_operator(), missing = check_arrived(), missing = missing ? missing : reserve_unnoticed(), !sim.failed && (asked || missing || power_pending())) {
		if (sim.now - begin > HEAL_LIMIT_S * SIM_S) {
			violation("L1/L3", "%d s after everything was healed: %s", HEAL_LIMIT_S, missing ? missing : "the catalog could not be edited");
			return;
		}
		sim_run_until(sim.now + SIM_S / 4);
	}
	sim.stats.heal_max_ms = MAX(sim.stats.heal_max_ms, (sim.now - begin) / NS_PER_MS);
	history_add("all is well %lld ms after it was healed", (long long)((sim.now - begin) / NS_PER_MS));
	begin = sim.now;
	sim_run_until(sim.now + CALM_S * SIM_S);
	missing = sim.failed ? NULL : check_lively();
	if (missing && sim.edit_ns > begin) {
		heal_and_check(); /* an edit of before was still on its way */
		return;
	}
	if (missing)
		violation("L1/L5", "it did not stay well: %s", missing);
	if (!sim.failed)
		reserve_check_calm();
	sim.stats.episodes++;
}

void sim_begin(const struct sim_options *o, uint64_t seed)
{
	disk_reset();
	reserve_reset();
	world_reset(seed);
	check_reset();
	build(o, seed);
}

uint64_t sim_play(const struct sim_options *o, uint64_t seed)
{
	int64_t end, period;

	sim_begin(o, seed);
	chaos_draw();
	end = sim.now + (int64_t)(o->hours * 3600.0 * 1e9);
	heal_and_check(); /* a cold start of everything */
	while (!sim.failed && sim.now < end) {
		uint64_t world = sim.rng;

		sim.rng = rnd_stream(STREAM_PERIOD, sim.period);
		period = rnd_ms(60000, CHAOS_MS);
		sim.rng = world;
		chaos_begin();
		sim_run_until(MIN(end, sim.now + period));
		if (sim.failed)
			break;
		chaos_heal();
		heal_and_check();
		if (!sim.failed && sim.brake_percent == 100 && !sim.unproven) /* with a brake, or without a watchdog, what is left may wait for an operator */
			lasting_check();
		if (!sim.failed)
			chaos_heal();
		heal_and_check();
		sim.period++;
	}
	sim.stats.virtual_ns += sim.now - SIM_S;
	sim.stats.seeds++;
	return history_hash();
}
