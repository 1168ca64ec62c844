/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a VM should be tried: among the nodes that can take it (its file's RequiredNodes=, processors, memory, groups) first those where it has not
 * failed and that have not given it up unrun, nor been asked in vain, then those not in quarantine (fenced too often), then as its groups want it, its preferred nodes in their order, the node with the fewest VMs, where it was last, the lowest id. The same facts
 * give the same answer everywhere. An operator's request to have it on a node goes before all that, except what is not possible there at all. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

bool agent_node_emptied(const struct agent *a, uint32_t id)
{
	uint32_t epoch = id == a->opt.self ? a->epoch : agent_table_node(a, id)->epoch;

	if (id == a->opt.self && a->leave.alone)
		return true;
	return (a->maintenance >> (id - 1) & 1) || (a->leaving[id - 1] != 0 && epoch <= a->leaving[id - 1]);
}

static enum place_why node_why(const struct agent *a, uint32_t id)
{
	const struct keeper_table_node *n = agent_table_node(a, id);
	bool self = id == a->opt.self;

	if (!(a->opt.members >> (id - 1) & 1))
		return PLACE_NO_MEMBER;
	if (agent_node_emptied(a, id))
		return PLACE_EMPTIED;
	if (n->state != HEARTBEAT_ARMED && (a->catalog_armed || n->state != HEARTBEAT_DISARMED))
		return PLACE_NOT_ARMED;
	if (self)
		return agent_gate_open(a) ? PLACE_FITS : PLACE_NOT_ONLINE;
	if (!n->fresh || !n->in_view)
		return PLACE_NOT_ONLINE;
	return a->node[id - 1].moved && a->now_ns - a->node[id - 1].counter_ns < agent_ms(a->opt.timing.leader_ms) ? PLACE_FITS : PLACE_NO_AGENT;
}

bool agent_node_usable(const struct agent *a, uint32_t id) { return node_why(a, id) == PLACE_FITS; }

/* What failed in an earlier life of the node is nobody's to forget any more: it does not count. */
static bool is_of_this_life(const struct agent *a, uint32_t id, const struct claim *c)
{
	return id == a->opt.self ? c->epoch == a->epoch : c->epoch > agent_table_node(a, id)->over;
}

bool place_failed(const struct agent *a, uint32_t id, const uint8_t uuid[16])
{
	const struct claim *c = claimer_seen(a, id, uuid);

	return c && c->state == CLAIM_FAILED && is_of_this_life(a, id, c);
}

/* It is on the node, or on its way there. */
static bool is_on(const struct vm *v, uint32_t id)
{
	return v->used && (v->owner == id || v->assigned == id || v->planned == id || (v->holders >> (id - 1) & 1));
}

static unsigned load_of(const struct agent *a, uint32_t id)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end; i++)
		n += is_on(&a->vm[i], id);
	return n;
}

static bool shares_group(const char a[][AGENT_GROUP_LEN], unsigned n_a, const char b[][AGENT_GROUP_LEN], unsigned n_b)
{
	for (unsigned i = 0; i < n_a; i++)
		for (unsigned j = 0; j < n_b; j++)
			if (strncmp(a[i], b[j], AGENT_GROUP_LEN) == 0)
				return true;
	return false;
}

/* VMs on the node that it is to keep apart from. */
static unsigned too_near(const struct agent *a, const struct vm *v, uint32_t id)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end && v->def.n_apart > 0; i++) {
		const struct vm *o = &a->vm[i];

		n += o != v && is_on(o, id) && shares_group(v->def.apart, v->def.n_apart, o->def.apart, o->def.n_apart);
	}
	return n;
}

/* Where it is, or is to be, and nobody else has it, for all that is known: of two that hold it one is about to withdraw, or did so in a life that this node has not heard the end of. */
static bool is_only_on(const struct vm *v, uint32_t id)
{
	if (v->planned != 0 || v->assigned != 0)
		return (v->planned != 0 ? v->planned : v->assigned) == id;
	return v->owner == id && (v->holders & ~(1ULL << (id - 1))) == 0;
}

/* VMs that it is to be with and that are on another node. */
static unsigned too_far(const struct agent *a, const struct vm *v, uint32_t id)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end && v->def.n_together > 0; i++) {
		const struct vm *o = &a->vm[i];

		if (o == v || !o->used || !shares_group(v->def.together, v->def.n_together, o->def.together, o->def.n_together))
			continue;
		n += (o->owner != 0 || o->assigned != 0 || o->planned != 0) && !is_only_on(o, id);
	}
	return n;
}

enum place_why place_possible(const struct agent *a, const struct vm *v, uint32_t id)
{
	uint32_t cpus = a->node[id - 1].cpus;

	if (v->def.has_required && !MUTANT(REQUIRED_NODE_IGNORED) && !(v->def.required >> (id - 1) & 1))
		return PLACE_NOT_REQUIRED;
	return cpus != 0 && v->def.vcpus > cpus && !MUTANT(LIMIT_IGNORED) ? PLACE_CPUS : PLACE_FITS;
}

enum place_why place_fits(const struct agent *a, const struct vm *v, uint32_t id)
{
	const struct agent_node *n = &a->node[id - 1];
	uint64_t memory = v->def.memory_mib, vcpus = v->def.vcpus;
	bool limited = (a->opt.vcpus_percent != 0 || a->opt.memory_percent != 0) && !MUTANT(LIMIT_IGNORED);
	enum place_why why = node_why(a, id);

	if (why == PLACE_FITS)
		why = place_possible(a, v, id);
	if (why != PLACE_FITS)
		return why;
	/* An agent that has just started would give a node it has not heard of yet whatever there is. */
	if (limited && (n->cpus == 0 || n->memory_mib == 0) && !MUTANT(CAPACITY_UNHEARD))
		return PLACE_UNKNOWN;
	for (unsigned i = 0; i < a->vm_end; i++) {
		if (&a->vm[i] == v || !is_on(&a->vm[i], id))
			continue;
		memory += a->vm[i].def.memory_mib;
		vcpus += a->vm[i].def.vcpus;
	}
	if (limited && a->opt.vcpus_percent != 0 && n->cpus != 0 && vcpus * 100 > (uint64_t)n->cpus * a->opt.vcpus_percent)
		return PLACE_VCPUS;
	if (limited && a->opt.memory_percent != 0 && n->memory_mib != 0 && memory * 100 > (uint64_t)n->memory_mib * a->opt.memory_percent)
		return PLACE_MEMORY;
	if (v->def.groups_required && too_near(a, v, id) > 0 && !MUTANT(GROUPS_IGNORED))
		return PLACE_APART;
	return v->def.groups_required && !MUTANT(GROUPS_IGNORED) && too_far(a, v, id) > 0 ? PLACE_TOGETHER : PLACE_FITS;
}

const char *place_why_text(enum place_why w)
{
	static const char *const text[PLACE_WHY_COUNT] = {
		[PLACE_FITS] = "can take it",
		[PLACE_NO_MEMBER] = "is not in Nodes=",
		[PLACE_EMPTIED] = "is in maintenance, or being shut down",
		[PLACE_NOT_ONLINE] = "is not online",
		[PLACE_NOT_ARMED] = "is not armed",
		[PLACE_NO_AGENT] = "has no agent that answers",
		[PLACE_UNKNOWN] = "has not said yet how many processors and how much memory it has",
		[PLACE_NOT_REQUIRED] = "is not among its RequiredNodes=",
		[PLACE_CPUS] = "has fewer processors than it has vCPUs",
		[PLACE_VCPUS] = "would have more vCPUs than VCPUOvercommit= allows",
		[PLACE_MEMORY] = "has not enough memory left (MemoryOvercommit=)",
		[PLACE_APART] = "has a VM that it must keep apart from (KeepApart=)",
		[PLACE_TOGETHER] = "is not where the VMs are that it must be with (KeepTogether=)",
	};

	return (size_t)w < PLACE_WHY_COUNT ? text[w] : "";
}

const char *place_key_text(enum place_key k)
{
	static const char *const text[PLACE_KEY_COUNT] = {
		[PLACE_KEY_FAILED] = "it has failed there, or could not be run there, or that was asked for in vain",
		[PLACE_KEY_QUARANTINE] = "it is in quarantine",
		[PLACE_KEY_APART] = "VMs there that it should keep apart from",
		[PLACE_KEY_TOGETHER] = "VMs elsewhere that it should be with",
		[PLACE_KEY_PREFERENCE] = "place among its preferred nodes",
		[PLACE_KEY_LOAD] = "VMs there",
		[PLACE_KEY_MOVES] = "it was not there last",
	};

	return (size_t)k < PLACE_KEY_COUNT ? text[k] : "";
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
			if (memcmp(c->claim[i].vm, uuid, 16) != 0 || c->claim[i].state == CLAIM_NONE || (last && !claim_is_newer(&c->claim[i], last)))
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

	return to != 0 && to <= a->opt.node_max && agent_node_usable(a, to) && place_possible(a, v, to) == PLACE_FITS ? to : 0;
}

/* The generation under which a node, in its present life, has given the VM up as failed; or, since it ran anywhere, as one that it could not prove quiet or get to run. 0: it has not. */
static uint64_t gave_up(const struct agent *a, uint32_t id, const struct vm *v, uint64_t ran, bool *ret_failed)
{
	const struct claim *c = claimer_seen(a, id, v->def.uuid);

	*ret_failed = place_failed(a, id, v->def.uuid);
	if (*ret_failed)
		return c->generation;
	return c && c->state == CLAIM_UNCLEAN && c->generation > ran && is_of_this_life(a, id, c) ? c->generation : 0;
}

/* The newest claim under which somebody had it to run it. */
static uint64_t last_ran(const struct agent *a, const struct vm *v)
{
	uint64_t ran = 0;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = claimer_seen(a, id, v->def.uuid);

		if (c && (c->state == CLAIM_ACTIVE || c->state == CLAIM_RELEASED || c->state == CLAIM_HANDED))
			ran = MAX(ran, c->generation);
	}
	return ran;
}

bool place_gave_up(const struct agent *a, const struct vm *v, uint32_t id)
{
	bool failed;

	return gave_up(a, id, v, last_ran(a, v), &failed) != 0;
}

/* 0: it may do well there. Of those that have failed all are alike; but one that could not prove it quiet may yet do so, once it reaches the VM's storage again: with such a one among them each has its turn,
 * who has tried it longest ago first. */
static unsigned failures(const struct agent *a, const struct vm *v, uint32_t id)
{
	uint64_t ran = last_ran(a, v), of_id, other;
	unsigned before = 0;
	bool failed, turns;

	of_id = gave_up(a, id, v, ran, &failed);
	if (of_id == 0)
		return 0;
	turns = !failed;
	for (uint32_t o = 1; o <= a->opt.node_max; o++) {
		other = gave_up(a, o, v, ran, &failed);
		turns = turns || (other != 0 && !failed);
		before += other != 0 && other < of_id;
	}
	return turns ? 1 + before : 1;
}

void place_rank(const struct agent *a, const struct vm *v, uint32_t id, unsigned ret[PLACE_KEY_COUNT])
{
	uint32_t last = 0;

	(void)agent_last_claim(a, v->def.uuid, &last);
	/* One that does not do what it is asked for comes after those that have tried. */
	ret[PLACE_KEY_FAILED] = v->unheeded >> (id - 1) & 1 ? FORMAT_MAX_NODES + 1 : failures(a, v, id);
	ret[PLACE_KEY_QUARANTINE] = a->quarantine >> (id - 1) & 1;
	ret[PLACE_KEY_APART] = too_near(a, v, id);
	ret[PLACE_KEY_TOGETHER] = too_far(a, v, id);
	ret[PLACE_KEY_PREFERENCE] = preference(v, id);
	ret[PLACE_KEY_LOAD] = load_of(a, id);
	ret[PLACE_KEY_MOVES] = id != last;
}

uint32_t place_choose(const struct agent *a, const struct vm *v)
{
	unsigned best_key[PLACE_KEY_COUNT] = { 0 };
	uint32_t best = 0;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		unsigned key[PLACE_KEY_COUNT];
		int order = 0;

		if (place_fits(a, v, id) != PLACE_FITS)
			continue;
		place_rank(a, v, id, key);
		for (unsigned i = 0; i < PLACE_KEY_COUNT && order == 0; i++)
			order = (key[i] > best_key[i]) - (key[i] < best_key[i]);
		if (best != 0 && order >= 0)
			continue;
		best = id;
		memcpy(best_key, key, sizeof(key));
	}
	return best;
}
