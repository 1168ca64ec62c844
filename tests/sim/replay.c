/* SPDX-License-Identifier: GPL-2.0-or-later */
/* replay-proxmox: see replay.h. Exit status 0: all played and, with --compare, every difference has its documented reason; 1: not so, or a scenario that cannot
 * be read; 2: an invariant broke; 64: usage. */
#include <getopt.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>

#include "tests/sim/replay.h"

#define HISTORY_SHOWN 200

struct options {
	bool compare, expect, trace;
	unsigned long seeds;
	const char *reasons;
};

static struct { unsigned scenarios, agree, documented, differ, broken, unreadable; } sum;

static void on_abort(int sig)
{
	(void)fprintf(stderr, "\naborted; the history:\n");
	history_print(HISTORY_SHOWN);
	_exit(2);
}

static json_object *list(const struct scenario *s, uint64_t bits, bool nodes)
{
	json_object *a = json_object_new_array();

	for (unsigned i = 0; i < (nodes ? s->n_nodes : s->n_services); i++)
		if (bits >> i & 1)
			json_object_array_add(a, json_object_new_string(nodes ? s->node[i] : s->service[i].name));
	return a;
}

static void print_json(const struct scenario *s, const struct outcome *o)
{
	json_object *top = json_object_new_object(), *final = json_object_new_object();

	for (unsigned v = 0; v < s->n_services; v++) {
		json_object *one = json_object_new_object();
		bool gone = o->final[v].state == SERVICE_GONE || o->final[v].node == 0;

		json_object_object_add(one, "node", gone ? NULL : json_object_new_string(s->node[o->final[v].node - 1]));
		json_object_object_add(one, "state", json_object_new_string(service_state_name(o->final[v].state)));
		json_object_object_add(final, s->service[v].name, one);
	}
	json_object_object_add(top, "scenario", json_object_new_string(s->name));
	json_object_object_add(top, "fenced", list(s, o->fenced, true));
	json_object_object_add(top, "final", final);
	json_object_object_add(top, "ran_twice", list(s, o->ran_twice, false));
	json_object_object_add(top, "unsupported", json_object_new_array()); /* a command that is not understood is an error */
	(void)printf("%s\n", json_object_to_json_string_ext(top, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(top);
}

static bool play(const struct scenario *s, uint64_t seed, struct outcome *ret)
{
	if (scenario_play(s, seed, ret))
		return true;
	check_dump();
	(void)fprintf(stderr, "%s, seed %llu, at %.3f s: %s violated: %s\n", s->name, (unsigned long long)seed, (double)(sim.failed_ns - SIM_S) / 1e9,
		      sim.failed_invariant, sim.failed_text);
	history_print(HISTORY_SHOWN);
	sum.broken++;
	return false;
}

/* The same outcome from every seed, or that of each that differs. */
static void compare(const struct scenario *s, const struct options *o, struct reasons *r, const struct outcome *theirs)
{
	unsigned found = 0, bad = 0, n;
	struct outcome first, ours;

	for (uint64_t seed = 1; seed <= o->seeds; seed++) {
		if (!play(s, seed, &ours))
			return;
		if (seed > 1 && memcmp(&first, &ours, sizeof(ours)) == 0)
			continue;
		if (seed == 1)
			first = ours;
		found += expect_compare(s, theirs, &ours, r, seed, &n);
		bad += n;
	}
	n = reasons_unused(r, s->name);
	found += n;
	bad += n;
	(void)printf("%s: %s\n", s->name, found == 0 ? "agrees" : bad == 0 ? "differs as documented" : "DIFFERS");
	sum.agree += found == 0;
	sum.documented += found > 0 && bad == 0;
	sum.differ += bad > 0;
}

static void run(const char *dir, const struct options *o, struct reasons *r)
{
	static struct scenario s;
	struct outcome ours, theirs;
	char err[REPLAY_ERR];

	sum.scenarios++;
	if (scenario_load(dir, &s, err) < 0 || ((o->compare || o->expect) && expect_derive(&s, &theirs, err) < 0)) {
		(void)fflush(stdout);
		(void)fprintf(stderr, "replay-proxmox: %s\n", err);
		sum.unreadable++;
		return;
	}
	if (o->expect) {
		print_json(&s, &theirs);
	} else if (o->compare) {
		compare(&s, o, r, &theirs);
	} else {
		(void)play(&s, o->seeds, &ours); /* up to where an invariant broke, if one did: ran_twice says what the history tells */
		print_json(&s, &ours);
	}
}

static int usage(void)
{
	(void)fputs("usage: replay-proxmox [--trace] [--seed N] DIR...                       one JSON object for each scenario\n"
		    "       replay-proxmox --expect DIR...                                   the same from their log.expect\n"
		    "       replay-proxmox --compare [--seeds N] [--reasons FILE] DIR...     differences, and which of them are documented in FILE\n",
		    stderr);
	return 64;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "compare", no_argument, NULL, 'c' }, { "expect", no_argument, NULL, 'e' }, { "reasons", required_argument, NULL, 'r' },
		{ "seed", required_argument, NULL, 's' }, { "seeds", required_argument, NULL, 's' }, { "trace", no_argument, NULL, 't' }, { 0 },
	};
	struct options o = { .seeds = 1 };
	struct reasons *reasons = NULL;
	char err[REPLAY_ERR];
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			o.compare = true;
		else if (c == 'e')
			o.expect = true;
		else if (c == 'r')
			o.reasons = optarg;
		else if (c == 's')
			o.seeds = strtoul(optarg, NULL, 10);
		else if (c == 't')
			sim.trace = true;
		else
			return usage();
	}
	if (optind == argc || o.seeds == 0 || (o.compare && o.expect))
		return usage();
	log_init("replay-proxmox", LOG_LEVEL_WARNING);
	(void)signal(SIGABRT, on_abort);
	if (o.reasons && reasons_load(o.reasons, &reasons, err) < 0) {
		(void)fprintf(stderr, "replay-proxmox: %s\n", err);
		return 1;
	}
	for (int i = optind; i < argc; i++)
		run(argv[i], &o, reasons);
	reasons_free(reasons);
	if (o.compare)
		(void)printf("%u scenarios: %u agree, %u differ as documented, %u differ without a reason, %u broke an invariant, %u could not be read\n",
			     sum.scenarios, sum.agree, sum.documented, sum.differ, sum.broken, sum.unreadable);
	return sum.broken ? 2 : sum.differ || sum.unreadable;
}
