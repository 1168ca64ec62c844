/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/arbitrate.h"

bool arbitrate_higher(uint64_t a, uint64_t b)
{
	int na = __builtin_popcountll(a), nb = __builtin_popcountll(b);

	if (na != nb)
		return na > nb;
	return a != 0 && __builtin_ctzll(a) < __builtin_ctzll(b);
}

static bool in_a_ring(const struct arbitrate_node *n, unsigned i) { return n->counts && n->ring_ok && (n->view >> i & 1); }

void arbitrate(const struct arbitrate_node *nodes, unsigned n, struct arbitration *ret)
{
	unsigned first[ARBITRATE_MAX]; /* of its group */

	*ret = (struct arbitration){ 0 };
	for (unsigned i = 0; i < n; i++) {
		if (!in_a_ring(&nodes[i], i))
			continue;
		for (first[i] = 0; !in_a_ring(&nodes[first[i]], first[i]) || nodes[first[i]].view != nodes[i].view;)
			first[i]++;
		ret->group[first[i]] |= 1ULL << i;
		ret->any_group = true;
	}
	for (unsigned i = 0; i < n; i++) {
		if (!in_a_ring(&nodes[i], i))
			continue;
		if (first[i] != i)
			ret->group[i] = ret->group[first[i]];
		else if (arbitrate_higher(ret->group[i], ret->winner))
			ret->winner = ret->group[i];
	}
}
