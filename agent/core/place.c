/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a VM should be tried: preferred nodes in their order, then the node with the fewest VMs, then where it was last, then the lowest id. Nodes where
 * it has failed come last, and before them those in quarantine: they have been fenced too often. The same facts give the same answer everywhere. An operator's request to have it on a node goes before all that. */
#include "agent/core/agent_core.h"

bool agent_node_emptied(const struct agent *a, uint32_t id)
{
	uint32_t epoch = id == a->opt.self ? a->epoch : agent_table_node(a, id)->epoch;

	return (a->maintenance >> (id - 1) & 1) || (a->leaving[id - 1] != 0 && epoch <= a->leaving[id - 1]);
}

bool agent_node_usable(const struct agent *a, uint32_t id)
{
	const struct keeper_table_node *n = agent_table_node(a, id);
	bool self = id == a->opt.self;

	if (!(a->opt.members >> (id - 1) & 1) || agent_node_emptied(a, id))
		return false;
	if (n->state != HEARTBEAT_ARMED && (a->catalog_armed || n->state != HEARTBEAT_DISARMED))
		return false;
	if (self)
		return agent_gate_open(a);
	return n->fresh && n->in_view && a->node[id - 1].moved &&
	       a->now_ns - a->node[id - 1].counter_ns < agent_ms(a->opt.timing.leader_ms);
}

bool place_failed(const struct agent *a, uint32_t id, const uint8_t uuid[16])
{
	const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];

	for (uint32_t i = 0; i < c->n; i++)
		if (memcmp(c->claim[i].vm, uuid, 16) == 0)
			return c->claim[i].state == CLAIM_FAILED;
	return false;
}

static unsigned load_of(const struct agent *a, uint32_t id)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end; i++) {
		const struct vm *v = &a->vm[i];

		if (v->used && (v->owner == id || v->assigned == id || v->planned == id))
			n++;
	}
	return n;
}

static unsigned preference(const struct vm *v, uint32_t id)
{
	for (unsigned i = 0; i < v->def.n_preferred; i++)
		if (v->def.preferred[i] == id)
			return i;
	return v->def.n_preferred;
}

const struct claim *agent_last_claim(const struct agent *a, const uint8_t uuid[16], uint32_t *ret_node)
{
	const struct claim *last = NULL;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];

		for (uint32_t i = 0; i < c->n; i++) {
			if (memcmp(c->claim[i].vm, uuid, 16) != 0 || c->claim[i].state == CLAIM_NONE ||
			    (last && c->claim[i].generation <= last->generation))
				continue;
			last = &c->claim[i];
			*ret_node = id;
		}
	}
	return last;
}

uint32_t place_move(const struct agent *a, const struct vm *v)
{
	uint32_t to = v->def.move.node;

	return to != 0 && to <= a->opt.node_max && agent_node_usable(a, to) ? to : 0;
}

uint32_t place_choose(const struct agent *a, const struct vm *v)
{
	uint32_t best = 0, last = 0;
	unsigned best_key[5] = { 0 };

	(void)agent_last_claim(a, v->def.uuid, &last);
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		unsigned key[5];
		int order = 0;

		if (!agent_node_usable(a, id))
			continue;
		key[0] = place_failed(a, id, v->def.uuid);
		key[1] = a->quarantine >> (id - 1) & 1;
		key[2] = preference(v, id);
		key[3] = load_of(a, id);
		key[4] = id != last;
		for (unsigned i = 0; i < ARRAY_SIZE(key) && order == 0; i++)
			order = (key[i] > best_key[i]) - (key[i] < best_key[i]);
		if (best != 0 && order >= 0)
			continue;
		best = id;
		memcpy(best_key, key, sizeof(key));
	}
	return best;
}
