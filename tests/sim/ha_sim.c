/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-sim: plays clusters through faults and asserts what DESIGN.md promises. Exit status 0: no violation, 1: some, 64: usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "tests/sim/sim.h"

#define CHAOS_MS (15 * 60 * 1000)
#define HEAL_LIMIT_S 240
#define CALM_S 20 /* after everything is well again: it stays so */
#define HISTORY_SHOWN 300

struct options {
	uint64_t from, to;
	double hours;
	unsigned nodes, volumes;
	enum timing_profile profile;
	bool json, trace, keep_going;
};

static uint64_t failing_seeds[64];
static unsigned n_failing;

int sim_vm_index(const uint8_t uuid[16])
{
	CHECK(uuid[0] == 'v' && uuid[1] < sim.n_vms);
	return uuid[1];
}

static void on_abort(int sig)
{
	(void)fprintf(stderr, "\nseed %llu aborted; its history:\n", (unsigned long long)sim.seed);
	history_print(HISTORY_SHOWN);
	_exit(2);
}

/* What the seed decides before anything runs. */
static void build_storage(const struct options *o)
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

static void build(const struct options *o, uint64_t seed)
{
	sim.seed = seed;
	sim.failed = false;
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
	timing_of_profile(o->profile, &sim.timing);
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

static void run_until(int64_t at)
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

	while (asked = chaos_operator(), missing = check_lively(), !sim.failed && (asked || missing)) {
		if (sim.now - begin > HEAL_LIMIT_S * SIM_S) {
			violation("L1/L3", "%d s after everything was healed: %s", HEAL_LIMIT_S, missing ? missing : "the catalog could not be edited");
			return;
		}
		run_until(sim.now + SIM_S / 4);
	}
	sim.stats.heal_max_ms = MAX(sim.stats.heal_max_ms, (sim.now - begin) / NS_PER_MS);
	history_add("all is well %lld ms after it was healed", (long long)((sim.now - begin) / NS_PER_MS));
	begin = sim.now;
	run_until(sim.now + CALM_S * SIM_S);
	missing = sim.failed ? NULL : check_lively();
	if (missing && sim.edit_ns > begin) {
		heal_and_check(); /* an edit of before was still on its way */
		return;
	}
	if (missing)
		violation("L1/L5", "it did not stay well: %s", missing);
	sim.stats.episodes++;
}

static uint64_t run_seed(const struct options *o, uint64_t seed)
{
	int64_t end;

	disk_reset();
	world_reset(seed);
	check_reset();
	build(o, seed);
	chaos_draw();
	end = sim.now + (int64_t)(o->hours * 3600.0 * 1e9);
	heal_and_check(); /* a cold start of everything */
	while (!sim.failed && sim.now < end) {
		chaos_begin();
		run_until(MIN(end, sim.now + rnd_ms(60000, CHAOS_MS)));
		if (sim.failed)
			break;
		chaos_heal();
		heal_and_check();
	}
	sim.stats.virtual_ns += sim.now - SIM_S;
	sim.stats.seeds++;
	if (sim.failed) {
		check_dump();
		(void)fprintf(stderr, "\nseed %llu, event %llu, at %.6f s: %s violated: %s\n%u nodes, %u volumes; the history before it:\n",
			      (unsigned long long)seed, (unsigned long long)sim.stats.events, (double)(sim.failed_ns - SIM_S) / 1e9,
			      sim.failed_invariant, sim.failed_text, sim.n_nodes, sim.n_volumes);
		history_print(HISTORY_SHOWN);
		if (n_failing < ARRAY_SIZE(failing_seeds))
			failing_seeds[n_failing++] = seed;
	}
	return history_hash();
}

static double percentile(const struct stats *s, double p)
{
	uint64_t want = (uint64_t)((double)s->failovers * p), seen = 0;

	for (unsigned i = 0; i < SIM_HISTOGRAM; i++) {
		seen += s->failover_ms[i];
		if (seen > want)
			return (i + 1) * SIM_HISTOGRAM_MS / 1000.0;
	}
	return SIM_HISTOGRAM * SIM_HISTOGRAM_MS / 1000.0;
}

static void report(const struct options *o, double wall, double cpu, uint64_t hash)
{
	const struct stats *s = &sim.stats;
	double hours = (double)s->virtual_ns / 3.6e12;
	const char *sep = "";

	if (!o->json) {
		(void)printf("%llu seeds, %.2f cluster-hours, %llu events, %.1f s CPU: %.0f cluster-hours per CPU minute\n", (unsigned long long)s->seeds,
			     hours, (unsigned long long)s->events, cpu, cpu > 0 ? hours * 60 / cpu : 0);
		(void)printf("failovers %llu (median %.1f s, 95 %% %.1f s, 99 %% %.1f s), resets %llu, releases %llu, commits %llu, false fences %llu\n",
			     (unsigned long long)s->failovers, percentile(s, 0.5), percentile(s, 0.95), percentile(s, 0.99),
			     (unsigned long long)s->resets, (unsigned long long)s->releases, (unsigned long long)s->commits,
			     (unsigned long long)s->false_fences);
		(void)printf("longest recovery after healing %.1f s, writes of a QEMU that landed after its successor on the same claim %llu of %llu\n",
			     (double)s->heal_max_ms / 1000, (unsigned long long)s->late_same, (unsigned long long)s->guest_writes);
		(void)printf("history %016llx, violations %llu\n", (unsigned long long)hash, (unsigned long long)s->violations);
		return;
	}
	(void)printf("{\"seeds\": %llu, \"cluster_hours\": %.3f, \"events\": %llu, \"episodes\": %llu, \"faults\": {", (unsigned long long)s->seeds, hours,
		     (unsigned long long)s->events, (unsigned long long)s->episodes);
	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++, sep = ", ")
		(void)printf("%s\"%s\": %llu", sep, chaos_name((enum chaos_kind)k), (unsigned long long)s->faults[k]);
	(void)printf("}, \"failovers\": {\"count\": %llu, \"median_s\": %.1f, \"p95_s\": %.1f, \"p99_s\": %.1f}, ", (unsigned long long)s->failovers,
		     percentile(s, 0.5), percentile(s, 0.95), percentile(s, 0.99));
	(void)printf("\"resets\": %llu, \"releases\": %llu, \"commits\": %llu, \"false_fences\": %llu, \"heal_max_s\": %.1f, ",
		     (unsigned long long)s->resets, (unsigned long long)s->releases, (unsigned long long)s->commits,
		     (unsigned long long)s->false_fences, (double)s->heal_max_ms / 1000);
	(void)printf("\"guest_writes\": %llu, \"late_same_claim\": %llu, \"violations\": %llu, \"failing_seeds\": [", (unsigned long long)s->guest_writes,
		     (unsigned long long)s->late_same, (unsigned long long)s->violations);
	sep = "";
	for (unsigned i = 0; i < n_failing; i++, sep = ", ")
		(void)printf("%s%llu", sep, (unsigned long long)failing_seeds[i]);
	(void)printf("], \"history\": \"%016llx\", \"wall_s\": %.2f, \"cpu_s\": %.2f, \"cluster_hours_per_cpu_minute\": %.1f}\n",
		     (unsigned long long)hash, wall, cpu, cpu > 0 ? hours * 60 / cpu : 0);
}

static double clock_s(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int usage(void)
{
	(void)fputs("usage: ha-sim [--seeds A..B | --seed S] [--hours H] [--nodes N] [--volumes V] [--profile fast|standard|safe] [--json]\n"
		    "              [--without FAULT,...] [--trace] [--keep-going]\n"
		    "H cluster-hours a seed (default 1); N and V are drawn by the seed unless given.\n",
		    stderr);
	return 64;
}

static bool parse_seeds(const char *text, struct options *o)
{
	char *end;

	o->from = o->to = strtoull(text, &end, 10);
	if (end[0] == '.' && end[1] == '.')
		o->to = strtoull(end + 2, &end, 10);
	return *end == '\0' && end != text && o->to >= o->from;
}

static bool parse_without(char *list)
{
	for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
		unsigned k = 0;

		while (k < CHAOS_KIND_COUNT && !streq(word, chaos_name((enum chaos_kind)k)))
			k++;
		if (k == CHAOS_KIND_COUNT)
			return false;
		sim.without |= 1ULL << k;
	}
	return sim.without != (1ULL << CHAOS_KIND_COUNT) - 1;
}

static bool parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 's' },    { "hours", required_argument, NULL, 'h' },
		{ "nodes", required_argument, NULL, 'n' }, { "volumes", required_argument, NULL, 'v' }, { "profile", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },        { "trace", no_argument, NULL, 't' },         { "keep-going", no_argument, NULL, 'k' },
		{ "without", required_argument, NULL, 'w' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			if (!parse_seeds(optarg, o))
				return false;
			break;
		case 'h':
			o->hours = strtod(optarg, NULL);
			break;
		case 'n':
			o->nodes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'v':
			o->volumes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			if (!timing_profile_parse(optarg, &o->profile))
				return false;
			break;
		case 'j':
			o->json = true;
			break;
		case 't':
			o->trace = true;
			break;
		case 'w':
			if (!parse_without(optarg))
				return false;
			break;
		case 'k':
			o->keep_going = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc && o->hours > 0 && o->volumes <= FORMAT_MAX_VOLUMES && o->nodes <= 12;
}

int main(int argc, char **argv)
{
	struct options o = { .from = 1, .to = 10, .hours = 1, .profile = TIMING_FAST };
	double wall = clock_s(CLOCK_MONOTONIC), cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t hash = 0;

	if (!parse_options(argc, argv, &o))
		return usage();
	log_init("ha-sim", LOG_LEVEL_WARNING);
	(void)signal(SIGABRT, on_abort);
	sim.trace = o.trace;
	for (uint64_t seed = o.from; seed <= o.to; seed++) {
		hash = hash * 31 + run_seed(&o, seed);
		if (sim.failed && !o.keep_going)
			break;
	}
	report(&o, clock_s(CLOCK_MONOTONIC) - wall, clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu, hash);
	return sim.stats.violations > 0;
}
