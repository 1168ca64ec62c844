/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The mass-failure brake. When more than the configured share of the nodes is suspect at once, a switch or the storage is more likely at fault than each of
 * them, and whoever is left could hardly carry all their VMs: nobody is fenced until it is fewer, or an operator decides node by node (evidence.c).
 *
 * A brake stops new fences and nothing else. What is committed goes its way, and no wait becomes shorter by it. */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

/* Sooner than a node may be fenced: of many that fail together the first must not be committed against before the last is counted. */
static bool suspect(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];
	const struct timing *t = &k->opt.timing;

	if (k->now_ns - n->t0_ns > keeper_ms(t->hb_ms + 2 * t->io_ms))
		return true;
	return k->ring == HEARTBEAT_RING_OK && !(k->view >> (id - 1) & 1);
}

void brake_round(struct keeper *k)
{
	unsigned nodes = 1, suspects = 0, was = k->braked;

	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		const struct table_node *n = &k->node[id - 1];

		/* Only who might be fenced: armed, and not proven over already. */
		if (id == k->opt.self || !keeper_is_member(k, id) || !n->known || n->hb.state != HEARTBEAT_ARMED || k->mine.over[id - 1] >= n->hb.epoch)
			continue;
		nodes++;
		suspects += suspect(k, id);
	}
	k->braked = k->state == LEASE_ARMED && suspects * 100 > k->opt.brake_percent * nodes ? suspects : 0;
	if ((k->braked != 0) != (was != 0))
		keeper_note(k, NOTE_BRAKE, k->opt.self, k->braked);
}
