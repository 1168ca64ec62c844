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
	*ret = (struct arbitration){ 0 };
	for (unsigned i = 0; i < n; i++) {
		if (!in_a_ring(&nodes[i], i))
			continue;
		for (unsigned j = 0; j < n; j++)
			if (in_a_ring(&nodes[j], j) && nodes[j].view == nodes[i].view)
				ret->group[i] |= 1ULL << j;
		ret->any_group = true;
		if (arbitrate_higher(ret->group[i], ret->winner))
			ret->winner = ret->group[i];
	}
}
