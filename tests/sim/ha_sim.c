/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-sim: plays clusters through faults and asserts what DESIGN.md promises. Exit status 0: no violation, 1: some, 64: usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "tests/sim/sim.h"

#define HISTORY_SHOWN 300
#define MAX_CUTS 1000000

struct options {
	struct sim_options play;
	uint64_t from, to;
	bool json, keep_going, shrink;
	unsigned cuts; /* --failover */
};

static uint64_t failing_seeds[64];
static unsigned n_failing;

static void on_abort(int sig)
{
	(void)fprintf(stderr, "\nseed %llu aborted; its history:\n", (unsigned long long)sim.seed);
	history_print(HISTORY_SHOWN);
	_exit(2);
}

static void tell_failure(void)
{
	check_dump();
	(void)fprintf(stderr, "\nseed %llu, event %llu, at %.6f s: %s violated: %s\n%u nodes, %u volumes; the history before it:\n",
		      (unsigned long long)sim.seed, (unsigned long long)sim.stats.events, (double)(sim.failed_ns - SIM_S) / 1e9,
		      sim.failed_invariant, sim.failed_text, sim.n_nodes, sim.n_volumes);
	history_print(HISTORY_SHOWN);
}

static uint64_t run_seed(const struct options *o, uint64_t seed)
{
	uint64_t hash = sim_play(&o->play, seed);

	if (!sim.failed)
		return hash;
	tell_failure();
	if (n_failing < ARRAY_SIZE(failing_seeds))
		failing_seeds[n_failing++] = seed;
	return hash;
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
		(void)printf("holds %llu, outages that hit everybody and nothing else %llu; silent agents %llu, VMs taken from them %llu\n", (unsigned long long)s->holds,
			     (unsigned long long)s->outages, (unsigned long long)s->silences, (unsigned long long)s->voids);
		(void)printf("history %016llx, violations %llu\n", (unsigned long long)hash, (unsigned long long)s->violations);
		return;
	}
	(void)printf("{\"seeds\": %llu, \"cluster_hours\": %.3f, \"events\": %llu, \"episodes\": %llu, \"faults\": {", (unsigned long long)s->seeds, hours,
		     (unsigned long long)s->events, (unsigned long long)s->episodes);
	for (unsigned k = 0; k < CHAOS_KIND_COUNT; k++, sep = ", ")
		(void)printf("%s\"%s\": %llu", sep, chaos_name((enum chaos_kind)k), (unsigned long long)s->faults[k]);
	(void)printf("}, \"failovers\": {\"count\": %llu, \"median_s\": %.1f, \"p95_s\": %.1f, \"p99_s\": %.1f}, ", (unsigned long long)s->failovers,
		     percentile(s, 0.5), percentile(s, 0.95), percentile(s, 0.99));
	(void)printf("\"holds\": %llu, \"outages\": %llu, \"silent_agents\": %llu, \"voids\": %llu, ", (unsigned long long)s->holds, (unsigned long long)s->outages,
		     (unsigned long long)s->silences, (unsigned long long)s->voids);
	(void)printf("\"resets\": %llu, \"releases\": %llu, \"commits\": %llu, \"false_fences\": %llu, \"heal_max_s\": %.1f, "
		     "\"power_offs\": %llu, \"proofs\": {\"power\": %llu, \"operator\": %llu}, ",
		     (unsigned long long)s->resets, (unsigned long long)s->releases, (unsigned long long)s->commits,
		     (unsigned long long)s->false_fences, (double)s->heal_max_ms / 1000, (unsigned long long)s->power_offs,
		     (unsigned long long)s->proofs[EVIDENCE_POWER], (unsigned long long)s->proofs[EVIDENCE_OPERATOR]);
	(void)printf("\"migrations\": %llu, \"ordered\": %llu, \"placed\": %llu, \"guest_writes\": %llu, \"late_same_claim\": %llu, \"violations\": %llu, \"failing_seeds\": [", (unsigned long long)s->migrations, (unsigned long long)s->ordered, (unsigned long long)s->placed,
		     (unsigned long long)s->guest_writes,
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
		    "              [--without FAULT,...] [--only FAULT,...] [--no-placement] [--no-reservation] [--trace] [--keep-going] [--paranoid]\n"
		    "       ha-sim --failover CUTS [--seed S] [--nodes N] [--volumes V] [--profile fast|standard|safe] [--json]\n"
		    "       ha-sim --seed S [the same] --shrink\n"
		    "       ha-sim --seed S [the same] --faults NUMBER,...\n"
		    "H cluster-hours a seed (default 1); N, V and the profile are drawn by the seed unless given. --shrink leaves out the faults of a failing seed\n"
		    "that its failure does not need, --faults plays only these. --failover cuts the power of the node that runs a VM that many times, in a cluster of 3 nodes\n"
		    "and 3 volumes unless told otherwise that is well each time, and tells when each phase of the takeover was reached, for each profile.\n"
		    "--no-placement: no VM has an order, groups, nodes it must run on or memory that a node may lack. --no-reservation: no VM has its LUNs reserved.\n"
		    "--paranoid does what is left out because it would change nothing, and aborts should it change anything.\n",
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

static bool parse_kinds(char *list, uint64_t *ret)
{
	for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
		unsigned k = 0;

		while (k < CHAOS_KIND_COUNT && !streq(word, chaos_name((enum chaos_kind)k)))
			k++;
		if (k == CHAOS_KIND_COUNT)
			return false;
		*ret |= 1ULL << k;
	}
	return sim.without != (1ULL << CHAOS_KIND_COUNT) - 1 && (sim.only == 0 || (sim.only & ~sim.without) != 0);
}

static bool parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 's' }, { "seed", required_argument, NULL, 's' },    { "hours", required_argument, NULL, 'h' },
		{ "nodes", required_argument, NULL, 'n' }, { "volumes", required_argument, NULL, 'v' }, { "profile", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },        { "trace", no_argument, NULL, 't' },         { "keep-going", no_argument, NULL, 'k' },
		{ "without", required_argument, NULL, 'w' }, { "only", required_argument, NULL, 'o' }, { "shrink", no_argument, NULL, 'S' },
		{ "faults", required_argument, NULL, 'f' }, { "failover", required_argument, NULL, 'F' }, { "paranoid", no_argument, NULL, 'P' },
		{ "no-placement", no_argument, NULL, 'N' }, { "no-reservation", no_argument, NULL, 'R' },
		{ 0 },
	};
	enum timing_profile profile;
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			if (!parse_seeds(optarg, o))
				return false;
			break;
		case 'F':
			o->cuts = (unsigned)strtoul(optarg, &end, 10);
			if (o->cuts == 0 || o->cuts > MAX_CUTS || *end)
				return false;
			break;
		case 'h':
			o->play.hours = strtod(optarg, NULL);
			break;
		case 'n':
			o->play.nodes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'v':
			o->play.volumes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			if (!timing_profile_parse(optarg, &profile))
				return false;
			o->play.profile = (int)profile;
			break;
		case 'j':
			o->json = true;
			break;
		case 't':
			sim.trace = true;
			break;
		case 'S':
			o->shrink = true;
			break;
		case 'f':
			if (!shrink_only(optarg))
				return false;
			break;
		case 'w':
			if (!parse_kinds(optarg, &sim.without))
				return false;
			break;
		case 'o':
			if (!parse_kinds(optarg, &sim.only))
				return false;
			break;
		case 'P':
			sim.paranoid = true;
			break;
		case 'N':
			sim.no_placement = true;
			break;
		case 'R':
			sim.no_reservation = true;
			break;
		case 'k':
			o->keep_going = true;
			break;
		default:
			return false;
		}
	}
	return optind == argc && o->play.hours > 0 && o->play.volumes <= FORMAT_MAX_VOLUMES && o->play.nodes <= 12 &&
	       !(o->cuts && o->play.nodes == 1);
}

static int failover(struct options *o)
{
	int only = o->play.profile;

	o->play.nodes = o->play.nodes ? o->play.nodes : 3;
	o->play.volumes = o->play.volumes ? o->play.volumes : 3;
	for (int p = 0; p < TIMING_PROFILE_COUNT; p++) {
		if (only >= 0 && p != only)
			continue;
		o->play.profile = p;
		failover_play(&o->play, o->cuts, o->from, o->json);
		if (sim.failed)
			tell_failure();
	}
	return sim.stats.violations > 0;
}

int main(int argc, char **argv)
{
	struct options o = { .play = { .hours = 1, .profile = -1 }, .from = 1, .to = 10 };
	double wall = clock_s(CLOCK_MONOTONIC), cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t hash = 0;

	if (!parse_options(argc, argv, &o))
		return usage();
	log_init("ha-sim", LOG_LEVEL_WARNING);
	(void)signal(SIGABRT, on_abort);
	if (o.cuts)
		return failover(&o);
	if (o.shrink)
		return shrink(&o.play, o.from);
	for (uint64_t seed = o.from; seed <= o.to; seed++) {
		hash = hash * 31 + run_seed(&o, seed);
		if (sim.failed && !o.keep_going)
			break;
	}
	report(&o, clock_s(CLOCK_MONOTONIC) - wall, clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu, hash);
	return sim.stats.violations > 0;
}
