/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The leader is a claim like any other, except that it is void when its agent's counter has stood still for T_leader. It edits the catalog and asks
 * nodes to start VMs, so that conflicts are rare; nothing's safety depends on it. */
#include "agent/core/agent_core.h"

#define ASSIGN_AGAIN_MS 5000
#define FAILED_AGAIN_MS 60000
#define LEAD_RETRY_MS 200
#define FORGET_AGAIN_MS 2000

bool lead_claim_void(const struct agent *a, uint32_t node)
{
	const struct agent_node *n = &a->node[node - 1];

	return a->now_ns - n->counter_ns > agent_ms(a->opt.timing.leader_ms);
}

static const struct claim *leader_claim(const struct agent *a, uint32_t id)
{
	const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];

	for (uint32_t i = 0; i < c->n; i++)
		if (memcmp(c->claim[i].vm, agent_leader_uuid, 16) == 0)
			return &c->claim[i];
	return NULL;
}

uint32_t agent_leader(const struct agent *a)
{
	uint64_t top = 0;
	uint32_t leader = 0;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = leader_claim(a, id);

		if (!c || !claim_is_live(a, id, c) || c->generation <= top || (id == a->opt.self ? !a->leads : lead_claim_void(a, id)))
			continue;
		top = c->generation;
		leader = id;
	}
	return leader;
}

/* Somebody has claimed the lead after us. Should it be silent just now, its edits still beat ours: lead only by a newer claim. */
static bool outranked(const struct agent *a)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = leader_claim(a, id);

		if (id != a->opt.self && c && claim_is_live(a, id, c) && c->generation > a->lead_generation)
			return true;
	}
	return false;
}

/* The lowest node whose agent lives and whose lease stands tries first; should it never succeed, the next one's patience ends one T_leader later. */
static bool candidate(const struct agent *a)
{
	int64_t patience = a->now_ns - a->no_leader_ns;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct keeper_table_node *n = agent_table_node(a, id);

		if (id == a->opt.self)
			return agent_gate_open(a);
		if (n->fresh && (n->state == HEARTBEAT_ARMED || n->state == HEARTBEAT_DISARMED) && !lead_claim_void(a, id) && n->in_view) {
			patience -= agent_ms(a->opt.timing.leader_ms);
			if (patience < 0)
				return false;
		}
	}
	return false;
}

static void resign(struct agent *a)
{
	a->leads = false;
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		a->vm[i].assigned = 0;
	agent_act(a, AGENT_ACT_LEAD)->on = false;
	agent_note(a, NOTE_NOT_LEADER, NULL, 0);
}

void lead_claim_result(struct agent *a, enum claim_result result, uint64_t generation)
{
	if (result == CLAIM_GRANTED) {
		a->leads = true;
		a->lead_generation = generation;
		agent_act(a, AGENT_ACT_LEAD)->on = true;
		agent_note(a, NOTE_LEADER, NULL, a->opt.self);
	}
	/* Of two that met, the one with the higher id waits longer. */
	a->lead_retry_ns = a->now_ns + agent_ms(LEAD_RETRY_MS * a->opt.self);
}

static void assign(struct agent *a, struct vm *v)
{
	uint32_t node = place_choose(a, v);
	struct agent_action *act;

	if (node == 0) {
		if (v->assigned_ns == 0 || a->now_ns - v->assigned_ns > agent_ms(FAILED_AGAIN_MS)) {
			agent_note(a, NOTE_VM_NO_PLACE, v, 0);
			v->assigned_ns = a->now_ns;
		}
		return;
	}
	v->assigned = node;
	v->assigned_ns = a->now_ns;
	agent_note(a, NOTE_VM_ASSIGNED, v, node);
	if (node == a->opt.self) {
		agent_ask(a, v->def.uuid, a->now_ns, a->now_ns + agent_ms(AGENT_ASKED_MS));
		return;
	}
	act = agent_act(a, AGENT_ACT_ASSIGN);
	act->vm = v;
	act->node = node;
}

/* Failed everywhere it may run: go on trying, slowly. */
static bool failed_everywhere(const struct agent *a, const struct vm *v)
{
	bool any = false;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];
		bool failed = false;

		if (!agent_node_usable(a, id))
			continue;
		for (uint32_t i = 0; i < c->n; i++)
			failed = failed || (memcmp(c->claim[i].vm, v->def.uuid, 16) == 0 && c->claim[i].state == CLAIM_FAILED);
		if (!failed)
			return false;
		any = true;
	}
	return any;
}

/* A removed VM stays pending until no live claim on it remains: every living node knows of the removal (so none claims it any more), and a read of the
 * claims issued after that shows none. */
static void lead_removal(struct agent *a, struct vm *v)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct keeper_table_node *n = agent_table_node(a, id);

		if (id != a->opt.self && n->fresh &&
		    (n->catalog_generation < a->catalog_generation ||
		     (n->catalog_generation == a->catalog_generation && n->catalog_seq < a->catalog_seq)))
			return;
	}
	if (v->remove_ns == 0) {
		v->remove_ns = a->now_ns;
		a->claimer.refresh = true;
	}
	if (v->state != VM_IDLE || a->claimer.complete_ns <= v->remove_ns || a->now_ns - v->assigned_ns < agent_ms(FORGET_AGAIN_MS))
		return;
	v->assigned_ns = a->now_ns;
	agent_act(a, AGENT_ACT_FORGET)->vm = v;
}

static void lead_vm(struct agent *a, struct vm *v)
{
	int64_t since = a->now_ns - v->assigned_ns;

	if (v->owner != 0) {
		v->assigned = 0;
		return;
	}
	if (v->def.desired == DESIRED_REMOVED && v->in_catalog) {
		lead_removal(a, v);
		return;
	}
	if (v->def.desired != DESIRED_STARTED || !v->in_catalog || v->state != VM_IDLE)
		return;
	if (v->assigned != 0 && since < agent_ms(ASSIGN_AGAIN_MS) && agent_node_usable(a, v->assigned))
		return;
	if (failed_everywhere(a, v) && v->assigned_ns != 0 && since < agent_ms(FAILED_AGAIN_MS))
		return;
	assign(a, v);
}

/* Highest priority first. */
static void by_priority(struct agent *a, void (*fn)(struct agent *a, struct vm *v))
{
	bool done[AGENT_MAX_VMS] = { 0 };

	for (;;) {
		unsigned best = AGENT_MAX_VMS;

		for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
			if (a->vm[i].used && !done[i] && (best == AGENT_MAX_VMS || a->vm[i].def.priority > a->vm[best].def.priority))
				best = i;
		if (best == AGENT_MAX_VMS)
			return;
		done[best] = true;
		fn(a, &a->vm[best]);
	}
}

void lead_step(struct agent *a)
{
	uint32_t leader = agent_leader(a);

	if (!a->adopted || a->epoch == 0 || !a->claimer.read_once)
		return;
	if (leader != 0 || a->no_leader_ns == 0)
		a->no_leader_ns = a->now_ns;
	if (agent_gate_open(a))
		a->gate_open_ns = a->now_ns;
	/* A gate that is closed for a moment, as while being armed, is no reason to change the leader. */
	if (a->leads && (leader != a->opt.self || outranked(a) || a->now_ns - a->gate_open_ns > agent_ms(a->opt.timing.leader_ms))) {
		resign(a);
		if (claimer_own(a, agent_leader_uuid))
			claimer_want(a, agent_leader_uuid, WANT_GIVE_UP, CLAIM_RELEASED);
		return;
	}
	if (!a->leads && leader == 0 && a->now_ns >= a->lead_retry_ns && candidate(a) && !claimer_pending(a, agent_leader_uuid)) {
		a->lead_retry_ns = a->now_ns + agent_ms(LEAD_RETRY_MS);
		claimer_want(a, agent_leader_uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
		return;
	}
	if (!a->leads || !a->have_catalog)
		return;
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		a->vm[i].owner = a->vm[i].used ? agent_owner(a, a->vm[i].def.uuid) : 0;
	by_priority(a, lead_vm);
}
