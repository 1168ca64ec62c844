/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The leader is a claim like any other, except that it is void when its agent's counter has stood still for T_leader. It edits the catalog and asks
 * nodes to start VMs, so that conflicts are rare; nothing's safety depends on it. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define ASSIGN_AGAIN_MS 5000
#define FAILED_AGAIN_MS 60000
#define LEAD_RETRY_MS 200
#define FORGET_AGAIN_MS 2000
#define MOVE_OVER_AGAIN_MS 1000
#define PREPARE_AGAIN_MS 3000
#define MOVE_UNHEEDED_MS 15000 /* beyond what a claim may take */
#define FREEZE_WAIT_MS 600000 /* for a node that was to come up again at once */

bool lead_claim_void(const struct agent *a, uint32_t node)
{
	const struct agent_node *n = &a->node[node - 1];

	return a->now_ns - n->counter_ns > agent_ms(a->opt.timing.leader_ms) && !MUTANT(LEADER_FOR_EVER);
}

static const struct claim *leader_claim(const struct agent *a, uint32_t id)
{
	const struct claims *own = &a->claimer.mine;
	unsigned at = a->claimer.seen_lead[id - 1];

	if (id != a->opt.self)
		return at != 0 ? &a->claimer.seen[id - 1].claim[at - 1] : NULL;
	for (uint32_t i = 0; i < own->n; i++)
		if (memcmp(own->claim[i].vm, agent_leader_uuid, 16) == 0)
			return &own->claim[i];
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

/* Somebody has claimed the lead after us. Silent or dead by now, its edits still beat ours: lead only by a newer claim. */
static bool outranked(const struct agent *a)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = leader_claim(a, id);

		if (id != a->opt.self && c && c->generation > a->lead_generation)
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

void lead_resign(struct agent *a)
{
	a->leads = a->lead_read = false;
	for (unsigned i = 0; i < a->vm_end; i++) {
		a->vm[i].assigned = a->vm[i].planned = 0;
		a->vm[i].unheeded = a->vm[i].unheeded_times = 0;
		a->vm[i].move_wait_ns = a->vm[i].wait_ns = a->vm[i].no_place_ns = 0;
	}
	agent_act(a, AGENT_ACT_LEAD)->on = false;
	agent_note(a, NOTE_NOT_LEADER, NULL, 0);
}

void lead_claim_result(struct agent *a, enum claim_result result, uint64_t generation)
{
	if (result == CLAIM_GRANTED) {
		a->leads = true;
		a->lead_read = false;
		a->lead_generation = generation;
		agent_act(a, AGENT_ACT_LEAD)->on = true;
		agent_note(a, NOTE_LEADER, NULL, a->opt.self);
	}
	/* Of two that met, the one with the higher id waits longer. */
	a->lead_retry_ns = a->now_ns + agent_ms(LEAD_RETRY_MS * a->opt.self);
}

/* Once an outage. For a moment that may be: who has just come up has not said yet what it has. */
static void tell_no_place(struct agent *a, struct vm *v)
{
	if (v->no_place_ns == 0)
		v->no_place_ns = a->now_ns;
	if (v->no_place_told || a->now_ns - v->no_place_ns < agent_ms(a->opt.timing.leader_ms))
		return;
	v->no_place_told = true;
	agent_note(a, NOTE_VM_NO_PLACE, v, 0);
}

static void assign(struct agent *a, struct vm *v)
{
	uint32_t move = place_move(a, v), planned = v->planned, node;
	struct agent_action *act;

	v->planned = 0;
	node = move ? move : planned && place_fits(a, v, planned) == PLACE_FITS ? planned : place_choose(a, v);
	if (node == 0) {
		v->assigned = 0; /* whoever was asked before has not done it: others need not keep out of its way there */
		if (v->assigned_ns == 0 || a->now_ns - v->assigned_ns > agent_ms(FAILED_AGAIN_MS))
			v->assigned_ns = a->now_ns;
		tell_no_place(a, v);
		return;
	}
	v->no_place_ns = 0;
	v->assigned = node;
	v->assigned_ns = a->now_ns;
	if (move != 0)
		v->move_tried = v->def.move.number;
	agent_note(a, NOTE_VM_ASSIGNED, v, node);
	if (node == a->opt.self) {
		agent_ask(a, v->def.uuid, a->now_ns, a->now_ns + agent_ms(AGENT_ASKED_MS), false);
		return;
	}
	act = agent_act(a, AGENT_ACT_ASSIGN);
	act->vm = v;
	act->node = node;
	act->epoch = agent_table_node(a, node)->epoch;
}

/* It was asked, and does not claim the VM: its PID 1, or its way to the volumes, may stand still while its heartbeat moves. Others are asked first from now on; one that is
 * asked all the same, and again in vain, lets these have another turn. */
static void unheeded(struct vm *v, uint32_t node)
{
	uint64_t bit = 1ULL << (node - 1);

	v->unheeded = v->unheeded & bit ? bit : v->unheeded | bit;
	v->unheeded_times++;
}

/* Whether the node that was asked has its time still. */
static bool is_asked(struct agent *a, struct vm *v)
{
	uint32_t node = v->assigned;

	if (node == 0)
		return false;
	if (node == a->opt.self && v->state == VM_CLAIMING)
		return true;
	if (a->now_ns - v->assigned_ns < agent_ms(ASSIGN_AGAIN_MS))
		return agent_node_usable(a, node);
	v->assigned = 0;
	if (agent_node_usable(a, node))
		unheeded(v, node);
	return false;
}

/* Failed everywhere it may run: go on trying, slowly. */
static bool failed_everywhere(const struct agent *a, const struct vm *v)
{
	bool any = false;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		if (place_fits(a, v, id) != PLACE_FITS && place_move(a, v) != id)
			continue; /* what it lacks now it may have in a moment, and is asked then */
		if (place_failed(a, id, v->def.uuid))
			any = true;
		else if (!(v->unheeded >> (id - 1) & 1))
			return false;
	}
	return any;
}

bool agent_vm_error(const struct agent *a, const struct vm *v)
{
	unsigned failed = 0;

	if (v->def.failed_limit == 0)
		return false;
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];
		uint32_t over = id == a->opt.self ? a->epoch - 1 : agent_table_node(a, id)->over;

		/* What failed in an earlier life of the node is nobody's to forget any more: it does not count. */
		for (uint32_t i = 0; i < c->n; i++)
			failed += memcmp(c->claim[i].vm, v->def.uuid, 16) == 0 && c->claim[i].state == CLAIM_FAILED && c->claim[i].epoch > over;
	}
	return failed >= v->def.failed_limit;
}

struct vm_move agent_leave_move(enum leave_policy policy, bool reboot, uint32_t node, uint64_t number)
{
	struct vm_move move = { .number = number };

	if (policy == LEAVE_CONDITIONAL)
		policy = reboot ? LEAVE_FREEZE : LEAVE_FAILOVER;
	if (policy == LEAVE_FAILOVER)
		return move;
	move.node = node;
	move.back = policy == LEAVE_MIGRATE;
	move.wait_ms = move.back ? 0 : FREEZE_WAIT_MS;
	return move;
}

bool agent_leave_edit(uint32_t *leaving, uint32_t known, uint32_t epoch, bool on)
{
	if (*leaving > epoch || known > epoch || (!on && *leaving != epoch))
		return false;
	*leaving = on ? epoch : 0;
	return true;
}

/* The node that it is to be on has been asked for so long. Its agent may have just started: it writes nothing before T_drain. */
static bool move_unheeded(const struct agent *a, const struct vm *v)
{
	const struct timing *t = &a->opt.timing;

	return agent_ms(ASSIGN_AGAIN_MS) * v->unheeded_times >= agent_ms(MOVE_UNHEEDED_MS + t->drain_ms + 4 * t->io_ms);
}

/* Whether nothing is left to do about a request: it was obeyed, or cannot be. ret_done says which. */
static bool move_is_over(struct agent *a, struct vm *v, bool *ret_done)
{
	const struct vm_move *m = &v->def.move;
	bool member = m->node <= a->opt.node_max && (a->opt.members >> (m->node - 1) & 1);

	*ret_done = member && v->owner == m->node && !agent_node_emptied(a, m->node);
	if (*ret_done || !member || (!m->back && (a->maintenance >> (m->node - 1) & 1)))
		return true;
	if (m->back || (agent_node_usable(a, m->node) && place_possible(a, v, m->node) == PLACE_FITS) || (v->owner == 0 && v->def.desired != DESIRED_STARTED)) {
		v->move_wait_ns = 0;
		/* Tried there, and failed, or given up before it ran, or not even begun. */
		return v->owner == 0 && v->assigned == 0 && v->move_tried == m->number && (place_gave_up(a, v, m->node) || move_unheeded(a, v));
	}
	if (v->move_wait_ns == 0)
		v->move_wait_ns = a->now_ns;
	return a->now_ns - v->move_wait_ns > agent_ms(MAX(m->wait_ms, a->opt.timing.leader_ms));
}

/* Says whether the VM is to be left alone because of its request: its end is asked for, or its node is waited for. */
static bool lead_move(struct agent *a, struct vm *v)
{
	struct agent_action *act;
	bool done;

	if (!move_is_over(a, v, &done))
		return v->owner == 0 && !v->def.move.back && place_move(a, v) == 0;
	if (v->move_over_ns == 0 || a->now_ns - v->move_over_ns >= agent_ms(MOVE_OVER_AGAIN_MS)) {
		if (v->move_over_ns == 0 || v->move_done != done)
			agent_note(a, done ? NOTE_VM_MOVED : NOTE_VM_NOT_MOVED, v, v->def.move.node);
		v->move_over_ns = a->now_ns;
		v->move_done = done;
		act = agent_act(a, AGENT_ACT_MOVE_OVER);
		act->vm = v;
		act->on = done;
	}
	return v->owner == 0;
}

/* Where it will go once its owner has stopped it: chosen for all VMs of a node together, in the order of their priority, not in that of their ends. */
static void plan(struct agent *a, struct vm *v)
{
	uint32_t move = place_move(a, v);

	if (v->def.desired != DESIRED_STARTED || !v->in_catalog || agent_held(a, v) || v->stays_held || !(agent_node_emptied(a, v->owner) || (move && move != v->owner)))
		v->planned = 0;
	else if (move != 0)
		v->planned = move;
	else if (v->planned == 0 || place_fits(a, v, v->planned) != PLACE_FITS) {
		v->planned = 0;
		v->planned = place_choose(a, v);
	}
}

/* While hands are off nothing is started, except what a move has stopped already. */
static bool may_start(const struct agent *a, const struct vm *v)
{
	const struct claim *last;
	uint32_t node;

	if (a->pause == PAUSE_NONE)
		return true;
	last = v->def.move.node != 0 ? agent_last_claim(a, v->def.uuid, &node) : NULL;
	return last && (last->state == CLAIM_RELEASED || last->state == CLAIM_HANDED);
}

static uint64_t claim_generation(const struct agent *a, const struct vm *v, uint32_t node)
{
	const struct claim *c = node == 0 ? NULL : node == a->opt.self ? claimer_own(a, v->def.uuid) : claimer_seen(a, node, v->def.uuid);

	return c ? c->generation : 0;
}

bool lead_ready_known(const struct agent *a, const struct vm *v, uint32_t node, enum vm_ready ready, bool held)
{
	return v->ready_node == node && v->ready_generation == claim_generation(a, v, node) && lead_known_ready(v) == ready && v->stays_held == held;
}

void lead_ready(struct agent *a, struct vm *v, uint32_t node, enum vm_ready ready, bool held)
{
	uint64_t generation = claim_generation(a, v, node);

	if (v->ready_node != node || v->ready_generation != generation)
		memset(v->ready_ns, 0, sizeof(v->ready_ns));
	v->ready_node = node;
	v->ready_generation = generation;
	v->stays_held = held;
	for (unsigned i = READY_RUNNING; i <= READY_CHECK; i++) {
		if (i > (unsigned)ready)
			v->ready_ns[i] = 0;
		else if (v->ready_ns[i] == 0)
			v->ready_ns[i] = a->now_ns;
	}
}

enum vm_ready lead_known_ready(const struct vm *v)
{
	unsigned ready = READY_NOT;

	for (unsigned i = READY_RUNNING; i <= READY_CHECK; i++)
		if (v->ready_ns[i] != 0)
			ready = i;
	return (enum vm_ready)ready;
}

/* As agent_owner, of all VMs: few of the claims are live. A keeper that has just started knows of fewer deaths: of two owners the newer claim is meant. */
static void find_owners(struct agent *a)
{
	for (unsigned i = 0; i < a->vm_end; i++) {
		a->vm[i].owner = 0;
		a->vm[i].owner_generation = a->vm[i].holders = 0;
	}
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];

		for (uint32_t i = 0; i < c->n; i++) {
			struct vm *v = claim_is_live(a, id, &c->claim[i]) ? agent_vm_by_uuid(a, c->claim[i].vm) : NULL;

			if (!v)
				continue;
			v->holders |= 1ULL << (id - 1);
			if (v->owner != 0 && c->claim[i].generation <= v->owner_generation)
				continue;
			v->owner = id;
			v->owner_generation = c->claim[i].generation;
		}
	}
}

void lead_owners(struct agent *a)
{
	find_owners(a);
	for (unsigned i = 0; i < a->vm_end; i++) {
		struct vm *v = &a->vm[i];

		if (!v->used)
			continue;
		if (v->owner == a->opt.self)
			lead_ready(a, v, v->owner, health_ready(v), v->health.held);
		else if (v->owner == 0 || v->ready_node != v->owner || v->ready_generation != v->owner_generation)
			lead_ready(a, v, 0, READY_NOT, false); /* what its owner before has said of it is over, or this one under an earlier claim */
		if (v->owner == 0 || v->owned_ns == 0)
			v->owned_ns = v->owner != 0 ? a->now_ns : 0;
		/* The claim of a silent node may seem to stand for a moment, until what its keeper says of it is here: that must not begin the wait anew. */
		if (v->owned_ns != 0 && a->now_ns - v->owned_ns >= agent_ms(a->opt.timing.leader_ms)) {
			v->wait_ns = 0;
			v->wait_told = v->no_place_told = false;
		}
	}
}

static const struct vm *by_name(const struct agent *a, const char name[AGENT_MAX_NAME])
{
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && a->vm[i].in_catalog && strncmp(a->vm[i].def.name, name, AGENT_MAX_NAME) == 0)
			return &a->vm[i];
	return NULL;
}

/* What was heard of it was said under the newest claim on it: a keeper that has just started may let an older one seem to stand. */
static bool is_of_last_claim(const struct agent *a, const struct vm *v)
{
	uint32_t node;
	const struct claim *last = agent_last_claim(a, v->def.uuid, &node);

	return !last || (node == v->ready_node && last->generation == v->ready_generation);
}

const struct vm *lead_awaited(const struct agent *a, const struct vm *v)
{
	enum vm_ready want = v->def.after_ready;

	if (v->wait_ns != 0 && a->now_ns - v->wait_ns > agent_ms(v->def.after_timeout_ms))
		return NULL;
	for (unsigned i = 0; i < v->def.n_after; i++) {
		const struct vm *o = by_name(a, v->def.after[i]);

		/* One that is not to run, or is given up, is waited for in vain. */
		if (!o || o == v || o->def.desired != DESIRED_STARTED || (o->def.frozen && o->owner == 0) || agent_vm_error(a, o))
			continue;
		if (o->ready_ns[want] == 0 || a->now_ns - o->ready_ns[want] < agent_ms(v->def.after_delay_ms) || !is_of_last_claim(a, o))
			return o;
	}
	return NULL;
}

/* Says whether its turn has not come yet. It comes in any case: who is waited for may wait for it, or have no place. */
static bool must_wait(struct agent *a, struct vm *v)
{
	if (v->def.n_after == 0 || MUTANT(ORDER_IGNORED))
		return false;
	if (v->wait_ns == 0)
		v->wait_ns = a->now_ns;
	if (lead_awaited(a, v))
		return true;
	if (a->now_ns - v->wait_ns > agent_ms(v->def.after_timeout_ms) && !v->wait_told) {
		v->wait_told = true;
		agent_note(a, NOTE_VM_NOT_AWAITED, v, 0);
	}
	return false;
}

static bool given_up(struct agent *a, struct vm *v)
{
	bool error = agent_vm_error(a, v);

	if (error && !v->error_told)
		agent_note(a, NOTE_VM_ERROR, v, 0);
	v->error_told = error;
	return error;
}

/* < 0: that node's agent knows an older catalog than ours. */
static int compare_catalog(const struct agent *a, const struct keeper_table_node *n)
{
	if (n->catalog_generation != a->catalog_generation)
		return n->catalog_generation < a->catalog_generation ? -1 : 1;
	return (n->catalog_seq > a->catalog_seq) - (n->catalog_seq < a->catalog_seq);
}

bool agent_behind(const struct agent *a)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++)
		if (agent_table_node(a, id)->known && compare_catalog(a, agent_table_node(a, id)) > 0)
			return true;
	return false;
}

/* A removed VM stays pending until no live claim on it remains and none can come: every node knows of the removal or its epoch is over (silent is not
 * enough: it may have been asked to start the VM before), and a read of the claims issued after that shows none. */
static void lead_removal(struct agent *a, struct vm *v)
{
	for (uint32_t id = 1; id <= a->opt.node_max && !MUTANT(REMOVED_FORGOTTEN); id++) {
		const struct keeper_table_node *n = agent_table_node(a, id);

		if (id != a->opt.self && n->known && n->over < n->epoch && compare_catalog(a, n) < 0)
			return;
	}
	if (v->remove_ns == 0)
		v->remove_ns = a->now_ns;
	a->claimer.refresh = a->claimer.refresh || a->claimer.complete_ns <= v->remove_ns;
	if ((v->state != VM_IDLE || a->claimer.complete_ns <= v->remove_ns) && !MUTANT(REMOVED_FORGOTTEN))
		return;
	if (a->now_ns - v->assigned_ns < agent_ms(FORGET_AGAIN_MS))
		return;
	v->assigned_ns = a->now_ns;
	agent_act(a, AGENT_ACT_FORGET)->vm = v;
}

/* It leaves its node as it runs: where it is to go is asked to take it. Its owner waits for that, and decides what else is to be done. */
static void lead_migration(struct agent *a, struct vm *v)
{
	struct agent_action *act;

	if (v->planned == 0 || v->planned == v->owner || !migrate_by(a, v, v->owner) || ++a->migrating[v->owner - 1] > migrate_parallel(a))
		return;
	if (v->prepared_ns != 0 && a->now_ns - v->prepared_ns < agent_ms(PREPARE_AGAIN_MS))
		return;
	v->prepared_ns = a->now_ns;
	if (v->planned == a->opt.self) {
		agent_ask(a, v->def.uuid, a->now_ns, a->now_ns + agent_ms(AGENT_ASKED_MS), true);
		return;
	}
	act = agent_act(a, AGENT_ACT_PREPARE);
	act->vm = v;
	act->node = v->planned;
	act->epoch = agent_table_node(a, v->planned)->epoch;
}

/* It was handed over a moment ago: its guest is whole at the target, which is about to claim it. Only once that has not come about it is started anew.
 * The moment counts from when this node sees the claim, whatever else the VM waits for meanwhile. */
static bool is_handed(struct agent *a, struct vm *v)
{
	uint32_t node;
	const struct claim *last = agent_last_claim(a, v->def.uuid, &node);

	if (!last || last->state != CLAIM_HANDED)
		return false;
	if (v->handed_generation != last->generation) {
		v->handed_generation = last->generation;
		v->handed_ns = a->now_ns;
	}
	return a->now_ns - v->handed_ns < agent_ms(a->opt.timing.leader_ms + 4 * a->opt.timing.io_ms);
}

/* Whether nothing of this node's own part in the VM has to be waited for. A QEMU that came to wait for its guest never ran, or has handed it over: that it does not end keeps only this
 * node from starting the VM. Nor does a claim of which nothing could be issued yet, as its way to the volumes is shut. */
static bool self_is_free(struct agent *a, struct vm *v)
{
	if (v->state == VM_IDLE)
		return true;
	if (a->now_ns - v->since_ns < agent_ms(ASSIGN_AGAIN_MS) || (v->state != VM_DISCARDING && !vmlife_take_back(a, v)))
		return false;
	if (v->assigned != a->opt.self)
		v->unheeded |= 1ULL << (a->opt.self - 1);
	return true;
}

static void lead_vm(struct agent *a, struct vm *v)
{
	int64_t since = a->now_ns - v->assigned_ns;
	bool handed = v->owner == 0 && v->in_catalog && v->def.desired == DESIRED_STARTED && is_handed(a, v);

	if (v->def.frozen && v->in_catalog && v->def.desired != DESIRED_REMOVED) {
		v->assigned = v->planned = 0;
		v->move_wait_ns = v->wait_ns = 0;
		return;
	}
	if (v->def.move.node != 0 && v->in_catalog && v->def.desired != DESIRED_REMOVED && lead_move(a, v))
		return;
	if (v->owner != 0 && !(MUTANT(REMOVED_FORGOTTEN) && v->def.desired == DESIRED_REMOVED)) {
		plan(a, v);
		lead_migration(a, v);
		return;
	}
	v->prepared_ns = 0;
	if (v->def.desired == DESIRED_REMOVED && v->in_catalog) {
		lead_removal(a, v);
		return;
	}
	if (v->def.desired != DESIRED_STARTED || !v->in_catalog) {
		v->planned = 0;
		v->wait_ns = v->no_place_ns = 0; /* how long it has waited for others counts from when it is wanted */
		v->wait_told = v->no_place_told = false;
		return;
	}
	if (!self_is_free(a, v))
		return;
	if (!may_start(a, v)) {
		v->wait_ns = 0;
		return;
	}
	if (handed)
		return;
	if (is_asked(a, v))
		return;
	if (given_up(a, v) || must_wait(a, v))
		return;
	if (v->assigned_ns != 0 && since < agent_ms(FAILED_AGAIN_MS) && failed_everywhere(a, v))
		return;
	assign(a, v);
}

static bool goes_before(const struct vm *v, const struct vm *o)
{
	return v->def.priority != o->def.priority && !MUTANT(PRIORITY_IGNORED) ? v->def.priority > o->def.priority : memcmp(v->def.uuid, o->def.uuid, 16) < 0;
}

/* Before anybody is given a place: one that was asked for in vain is none that a VM of lower priority keeps from one of higher. */
static void end_asking(struct agent *a)
{
	for (unsigned i = 0; i < a->vm_end; i++) {
		struct vm *v = &a->vm[i];

		if (v->used && v->owner != 0)
			v->assigned = v->unheeded = v->unheeded_times = 0;
		else if (v->used)
			(void)is_asked(a, v);
	}
}

/* Highest priority first. */
static void by_priority(struct agent *a, void (*fn)(struct agent *a, struct vm *v))
{
	bool done[AGENT_MAX_VMS] = { 0 };

	for (;;) {
		unsigned best = AGENT_MAX_VMS;

		for (unsigned i = 0; i < a->vm_end; i++)
			if (a->vm[i].used && !done[i] && (best == AGENT_MAX_VMS || goes_before(&a->vm[i], &a->vm[best])))
				best = i;
		if (best == AGENT_MAX_VMS)
			return;
		done[best] = true;
		fn(a, &a->vm[best]);
	}
}

/* As the leader does it, by the same facts. One that was stopped, and that nobody has yet, keeps its place. */
static void plan_vm(struct agent *a, struct vm *v)
{
	if (v->owner != 0)
		plan(a, v);
	else if (v->def.desired != DESIRED_STARTED || !v->in_catalog)
		v->planned = 0;
}

void lead_plan(struct agent *a)
{
	lead_owners(a);
	by_priority(a, plan_vm);
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
		lead_resign(a);
		if (claimer_own(a, agent_leader_uuid))
			claimer_want(a, agent_leader_uuid, WANT_GIVE_UP, CLAIM_RELEASED);
		return;
	}
	if (!a->leads && leader == 0 && a->now_ns >= a->lead_retry_ns && candidate(a) && !claimer_pending(a, agent_leader_uuid)) {
		a->lead_retry_ns = a->now_ns + agent_ms(LEAD_RETRY_MS);
		claimer_want(a, agent_leader_uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
		return;
	}
	/* Without its keeper it does not know whose claims stand. */
	if (!a->leads || !a->lead_read || !a->have_catalog || !a->have_table || agent_behind(a))
		return;
	lead_owners(a);
	end_asking(a);
	memset(a->migrating, 0, sizeof(a->migrating));
	by_priority(a, lead_vm);
}
