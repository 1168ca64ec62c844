/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A failing seed with as few faults as it takes: parts of the faults are left out, ever smaller ones, as long as the same invariant is violated. Each fault
 * draws from a stream of its own, so that those that remain are the same ones at the same times. */
#include "tests/sim/sim.h"

#include <stdio.h>

#define MAX_TRIALS 600
#define AFTER_MS 120000 /* a failure may come somewhat later with less going on */

static uint64_t kept[SIM_MAX_FAULTS]; /* numbers of the faults that are played */
static unsigned n_kept, trials;

static void leave_out(uint64_t fault, bool out)
{
	if (out)
		sim.left_out[fault / 8] |= (uint8_t)(1 << (fault % 8));
	else
		sim.left_out[fault / 8] &= (uint8_t)~(1 << (fault % 8));
}

bool shrink_only(const char *list)
{
	memset(sim.left_out, 0xff, sizeof(sim.left_out));
	for (;;) {
		char *end;
		unsigned long long n = strtoull(list, &end, 10);

		if (end == list || n >= SIM_MAX_FAULTS || (*end != ',' && *end != '\0'))
			return false;
		leave_out(n, false);
		if (*end == '\0')
			return true;
		list = end + 1;
	}
}

/* Does it still fail the same way without kept[at .. at + n - 1]? */
static bool fails_without(const struct sim_options *o, uint64_t seed, const char *invariant, unsigned at, unsigned n)
{
	bool same;

	for (unsigned i = at; i < at + n; i++)
		leave_out(kept[i], true);
	(void)sim_play(o, seed);
	same = sim.failed && streq(sim.failed_invariant, invariant);
	trials++;
	for (unsigned i = at; i < at + n && !same; i++)
		leave_out(kept[i], false);
	return same;
}

int shrink(const struct sim_options *options, uint64_t seed)
{
	struct sim_options o = *options;
	char invariant[sizeof(sim.failed_invariant)];
	unsigned before;

	(void)sim_play(&o, seed);
	if (!sim.failed) {
		(void)fprintf(stderr, "seed %llu does not fail\n", (unsigned long long)seed);
		return 64;
	}
	(void)str_copy(invariant, sizeof(invariant), sim.failed_invariant);
	o.hours = (double)(sim.failed_ns + AFTER_MS * NS_PER_MS) / 3.6e12;
	for (uint64_t i = 0; i < sim.n_faults && i < SIM_MAX_FAULTS; i++)
		if (!(sim.left_out[i / 8] >> (i % 8) & 1))
			kept[n_kept++] = i;
	(void)fprintf(stderr, "seed %llu: %s violated after %u faults\n", (unsigned long long)seed, invariant, n_kept);
	for (unsigned part = (n_kept + 1) / 2; part > 0 && trials < MAX_TRIALS; part = part > 1 ? (part + 1) / 2 : n_kept < before) {
		before = n_kept;
		for (unsigned at = 0; at < n_kept && trials < MAX_TRIALS;) {
			unsigned n = MIN(part, n_kept - at);

			if (fails_without(&o, seed, invariant, at, n)) {
				memmove(&kept[at], &kept[at + n], (n_kept - at - n) * sizeof(kept[0]));
				n_kept -= n;
			} else {
				at += n;
			}
		}
	}
	(void)sim_play(&o, seed);
	check_dump();
	history_print(UINT32_MAX);
	(void)printf("seed %llu, %u nodes, %u volumes: %s violated: %s\nfaults it takes (%u trials):", (unsigned long long)seed, sim.n_nodes, sim.n_volumes,
		     sim.failed_invariant, sim.failed_text, trials);
	for (unsigned i = 0; i < n_kept; i++)
		(void)printf(" %s", chaos_name((enum chaos_kind)sim.fault_kind[kept[i]]));
	(void)printf("\nplay it: ha-sim --seed %llu --hours %.3f --faults ", (unsigned long long)seed, o.hours);
	for (unsigned i = 0; i < n_kept; i++)
		(void)printf("%s%llu", i ? "," : "", (unsigned long long)kept[i]);
	(void)puts("");
	return 1;
}
