/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who wins which split. A case is the list of published views, written as the node ids seen; "-" = ring lost or joining, "!" =
 * does not count. */
#include "fence/arbitrate.h"
#include "tests/tap.h"

struct table_case {
	const char *name;
	const char *view[6]; /* by node id - 1 */
	uint64_t winner;     /* 0: no group at all */
	const char *groups;  /* expected group of each node, '|' between */
};

#define N(id) (1ULL << ((id) - 1))

static const struct table_case cases[] = {
	{ "all together", { "123", "123", "123" }, N(1) | N(2) | N(3), "123|123|123" },
	{ "two nodes together", { "12", "12" }, N(1) | N(2), "12|12" },
	{ "two nodes apart: the lower id", { "1", "2" }, N(1), "1|2" },
	{ "the last one standing", { NULL, NULL, "3" }, N(3), "||3" },
	{ "2/1: the pair, wherever the lowest id is", { "1", "23", "23" }, N(2) | N(3), "1|23|23" },
	{ "2/1 with the lowest id in the pair", { "12", "12", "3" }, N(1) | N(2), "12|12|3" },
	{ "2/2: the lower id", { "14", "23", "23", "14" }, N(1) | N(4), "14|23|23|14" },
	{ "three groups of one", { "1", "2", "3" }, N(1), "1|2|3" },
	{ "2/2/1", { "12", "12", "34", "34", "5" }, N(1) | N(2), "12|12|34|34|5" },
	{ "1/2/2", { "1", "23", "23", "45", "45" }, N(2) | N(3), "1|23|23|45|45" },
	{ "3 hears nobody, the others still see it: the connected two win", { "123", "123", "3" }, N(1) | N(2), "12|12|3" },
	{ "3 hears all, nobody hears 3", { "12", "12", "123" }, N(1) | N(2), "12|12|3" },
	{ "a line 1-2-3: nobody agrees, the lowest id", { "12", "123", "23" }, N(1), "1|2|3" },
	{ "a view without oneself is no ring", { "23", "23", "23" }, N(2) | N(3), "|23|23" },
	{ "one ring lost", { "-", "23", "23" }, N(2) | N(3), "|23|23" },
	{ "all but one lost: that one has a ring", { "-", "-", "3" }, N(3), "||3" },
	{ "all rings lost: no group", { "-", "-", "-" }, 0, "||" },
	{ "nobody counts", { "!123", "!123", "!123" }, 0, "||" },
	{ "a dead one in everybody's view changes nothing", { "123", "123", "!123" }, N(1) | N(2), "12|12|" },
	{ "the heavier side is dead", { "1", "!23", "!23" }, N(1), "1||" },
	{ "equal after one has died", { "1", "23", "!23" }, N(1), "1|2|" },
	{ "stale views of a group do not add up", { "12", "123", "123" }, N(2) | N(3), "1|23|23" },
};

static uint64_t bits(const char *s)
{
	uint64_t set = 0;

	for (; *s && *s != '|'; s++)
		if (*s >= '1' && *s <= '9')
			set |= N(*s - '0');
	return set;
}

static bool run(const struct table_case *c)
{
	struct arbitrate_node nodes[ARBITRATE_MAX] = { 0 };
	struct arbitration a;
	const char *g = c->groups;

	for (unsigned i = 0; i < ARRAY_SIZE(c->view); i++) {
		const char *v = c->view[i];

		if (v)
			nodes[i] = (struct arbitrate_node){ .counts = *v != '!', .ring_ok = *v != '-', .view = bits(v) };
	}
	arbitrate(nodes, ARBITRATE_MAX, &a);
	if (a.winner != c->winner || a.any_group != (c->winner != 0))
		return false;
	for (unsigned i = 0; g; i++) {
		if (a.group[i] != bits(g))
			return false;
		g = strchr(g, '|');
		g = g ? g + 1 : NULL;
	}
	return true;
}

int main(void)
{
	struct arbitrate_node nodes[ARBITRATE_MAX];
	struct arbitration a;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		TAP_OK(run(&cases[i]), "%s", cases[i].name);

	for (unsigned i = 0; i < ARBITRATE_MAX; i++)
		nodes[i] = (struct arbitrate_node){ true, true, i < 32 ? 0xffffffffULL : 0xffffffffULL << 32 };
	arbitrate(nodes, ARBITRATE_MAX, &a);
	TAP_OK(a.winner == 0xffffffffULL && a.group[63] == 0xffffffffULL << 32, "64 nodes in two halves: the half of node 1");
	nodes[0].counts = false;
	arbitrate(nodes, ARBITRATE_MAX, &a);
	TAP_OK(a.winner == 0xffffffffULL << 32, "one fewer there: the half of node 64");

	TAP_OK(arbitrate_higher(N(1) | N(3), N(2)), "two are higher than one");
	TAP_OK(arbitrate_higher(N(1), N(2)) && !arbitrate_higher(N(2), N(1)), "of equals the one with the lowest id");
	TAP_OK(arbitrate_higher(N(64), 0) && !arbitrate_higher(0, N(64)), "an empty group is below all");
	TAP_OK(!arbitrate_higher(0, 0) && !arbitrate_higher(N(5), N(5)), "nothing is higher than itself");
	return tap_done();
}
