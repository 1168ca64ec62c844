/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/core/agent_core.h"

#include "agent/base/mutant.h"

/* A tick is for what no event and no deadline of its own brings up: the keeper's tables come as often. */
static int64_t tick(const struct agent *a) { return agent_ms(a->opt.timing.hb_ms); }

struct agent_action *agent_act(struct agent *a, enum agent_action_kind kind)
{
	struct agent_action *act;

	CHECK(a->n_actions < AGENT_MAX_ACTIONS);
	act = &a->action[a->n_actions++];
	*act = (struct agent_action){ .kind = kind };
	return act;
}

void agent_note(struct agent *a, enum agent_note note, struct vm *vm, uint32_t node)
{
	struct agent_action *act = agent_act(a, AGENT_ACT_NOTE);

	act->note = note;
	act->vm = vm;
	act->node = node;
}

const struct keeper_table_node *agent_table_node(const struct agent *a, uint32_t id) { return &a->table.table.node[id - 1]; }

bool agent_gate_open(const struct agent *a) { return a->have_table && a->epoch != 0 && a->table.table.gate_open && a->table.table.epoch == a->epoch; }

uint64_t agent_term(const struct agent *a) { return agent_gate_open(a) ? a->table.table.gate_term : 0; }

struct vm *agent_vm_by_uuid(struct agent *a, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && memcmp(a->vm[i].def.uuid, uuid, 16) == 0)
			return &a->vm[i];
	return NULL;
}

/* The newest of the live ones: a claim that was void, and taken by another, lives again until its owner looks. */
uint32_t agent_owner(const struct agent *a, const uint8_t uuid[16])
{
	uint64_t top = 0;
	uint32_t owner = 0;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claims *c = id == a->opt.self ? &a->claimer.mine : &a->claimer.seen[id - 1];

		for (uint32_t i = 0; i < c->n; i++)
			if (memcmp(c->claim[i].vm, uuid, 16) == 0 && c->claim[i].generation > top && claim_is_live(a, id, &c->claim[i])) {
				top = c->claim[i].generation;
				owner = id;
			}
	}
	return owner;
}

void agent_init(struct agent *a, const struct agent_options *opt, int64_t now_ns)
{
	memset(a, 0, offsetof(struct agent, action));
	a->opt = *opt;
	a->now_ns = a->tick_ns = now_ns;
	a->claimer.mine.node = opt->self;
	for (unsigned v = 0; v < opt->n_volumes; v++)
		slot_init(&a->claimer.volume[v].slot, now_ns);
}

static void new_epoch(struct agent *a, uint32_t epoch)
{
	bool had = a->epoch != 0;

	a->epoch = epoch;
	a->term = 0;
	if (!had)
		return;
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && !MUTANT(OLD_EPOCH_KEPT))
			vmlife_lost_lease(a, &a->vm[i]);
	if (a->leads)
		lead_resign(a);
	a->n_asked = 0; /* what was asked of the epoch before */
	claimer_reset(a);
}

static void watch_nodes(struct agent *a, bool anew)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct keeper_table_node *n = agent_table_node(a, id);
		struct agent_node *w = &a->node[id - 1];

		/* Standing still counts only while we look. */
		if (anew || n->agent_counter != w->counter) {
			w->moved = !anew;
			w->counter_ns = a->now_ns;
			w->counter = n->agent_counter;
		}
		if (id == a->opt.self || !n->known)
			continue;
		if (w->was_fresh && !n->fresh)
			agent_note(a, NOTE_NODE_LOST, NULL, id);
		if (!w->was_fresh && n->fresh)
			agent_note(a, NOTE_NODE_BACK, NULL, id);
		if (n->over > w->over_told && n->over >= n->epoch && n->committed)
			agent_note(a, NOTE_NODE_OVER, NULL, id);
		if (w->was_silent != (n->silent_seq != 0))
			agent_note(a, n->silent_seq != 0 ? NOTE_AGENT_SILENT : NOTE_AGENT_BACK, NULL, id);
		w->was_silent = n->silent_seq != 0;
		w->was_fresh = n->fresh;
		w->over_told = MAX(w->over_told, n->over);
	}
}

static void take_table(struct agent *a, const struct keeper_msg *table)
{
	bool anew = !a->have_table;

	a->table = *table;
	a->have_table = true;
	/* 0: the keeper has just started and goes on, perhaps, with the epoch we know. Its gate is closed meanwhile. */
	if (table->table.epoch != 0 && table->table.epoch != a->epoch)
		new_epoch(a, table->table.epoch);
	if (agent_term(a) != 0 && agent_term(a) != a->term) {
		a->term = agent_term(a);
		a->claimer.refresh = true; /* what is still ours? */
	}
	watch_nodes(a, anew);
}

static struct vm *free_vm(struct agent *a)
{
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++) {
		if (a->vm[i].used)
			continue;
		memset(&a->vm[i], 0, sizeof(a->vm[i]));
		a->vm[i].used = true;
		a->vm_end = MAX(a->vm_end, i + 1);
		return &a->vm[i];
	}
	return NULL; /* a catalog of more VMs than we take was refused when it was read */
}

static bool was_found(const struct agent *a, const uint8_t uuid[16]);
static void adopt_vm(struct agent *a, struct vm *v);

static void take_catalog(struct agent *a, const struct catalog *c)
{
	bool was = agent_node_emptied(a, a->opt.self);

	for (unsigned i = 0; i < a->vm_end; i++)
		a->vm[i].in_catalog = false;
	for (unsigned i = 0; i < c->n; i++) {
		struct vm *v = agent_vm_by_uuid(a, c->vm[i].uuid);
		bool anew;

		if (!v)
			v = free_vm(a);
		if (!v)
			continue;
		/* Asked for again: what failed before is forgotten. */
		if (v->def.desired != c->vm[i].desired) {
			v->assigned_ns = 0;
			v->unheeded = v->unheeded_times = 0;
			v->remove_ns = 0;
		}
		if (v->def.move.number != c->vm[i].move.number)
			v->move_wait_ns = v->move_over_ns = v->unheeded_times = 0;
		anew = !v->in_catalog && v->def.name[0] == '\0';
		if (!anew)
			health_new_policy(a, v, &c->vm[i].health);
		v->def = c->vm[i];
		v->in_catalog = true;
		if (anew && a->adopted && was_found(a, v->def.uuid))
			adopt_vm(a, v);
	}
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && !a->vm[i].in_catalog && a->vm[i].state == VM_IDLE && !claimer_pending(a, a->vm[i].def.uuid))
			a->vm[i].used = false;
	a->have_catalog = true;
	a->catalog_generation = c->generation;
	a->catalog_seq = c->seq;
	a->catalog_armed = c->armed;
	a->pause = c->pause;
	a->maintenance = c->maintenance;
	a->quarantine = c->quarantine;
	memcpy(a->leaving, c->leaving, sizeof(a->leaving));
	a->plan_ns = 0;
	/* What was planned for an earlier maintenance is over, and would take the place of another. */
	if (!was && !a->leads && agent_node_emptied(a, a->opt.self))
		for (unsigned i = 0; i < a->vm_end; i++)
			a->vm[i].planned = 0;
	if (!was)
		a->maintenance_told = false;
}

static bool was_found(const struct agent *a, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < a->n_found; i++)
		if (memcmp(a->found[i], uuid, 16) == 0 && !a->found_incoming[i])
			return true;
	return false;
}

static void adopt_vm(struct agent *a, struct vm *v)
{
	const struct claim *own = claimer_own(a, v->def.uuid);

	if (own && own->state == CLAIM_FAILED)
		v->failed_ns = a->now_ns;
	if (!own || own->state != CLAIM_ACTIVE)
		return;
	v->generation = own->generation;
	v->since_ns = a->now_ns;
	if (was_found(a, v->def.uuid)) {
		v->state = VM_RUNNING;
		health_begin(a, v, false);
		v->health.found = true;
		agent_note(a, NOTE_VM_ADOPTED, v, 0);
		agent_act(a, AGENT_ACT_ADOPT)->vm = v;
		reserve_found(a, v);
	} else if (MUTANT(OWN_CLAIM_STARTED)) {
		v->state = VM_RESTARTING;
		v->term = agent_term(a);
	} else if (!agent_held(a, v)) { /* else it is given up unclean: nobody is to start it now */
		v->state = VM_CLAIMING; /* the claim counts as written only: read all again before starting it */
		v->ours_before = true;
		reserve_may_be_keyed(a, v);
		claimer_want(a, v->def.uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
	}
}

/* After a start of the agent, once everything is known: what runs under our claim goes on, the rest is claimed again or killed. */
static void adopt(struct agent *a)
{
	if (a->adopted || !a->have_table || a->epoch == 0 || a->table.table.epoch != a->epoch || !a->have_catalog || !a->listed || !a->claimer.read_once)
		return;
	a->adopted = true;
	/* A write of the process before us may still land: one of our own goes over it. And we do not lead because that one did. */
	a->claimer.rewrite = true;
	if (claimer_own(a, agent_leader_uuid) && claimer_own(a, agent_leader_uuid)->state == CLAIM_ACTIVE)
		claimer_want(a, agent_leader_uuid, WANT_GIVE_UP, CLAIM_RELEASED);
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used)
			adopt_vm(a, &a->vm[i]);
	for (unsigned i = 0; i < a->n_found; i++) {
		struct vm *v = agent_vm_by_uuid(a, a->found[i]);
		const struct claim *own = claimer_own(a, a->found[i]);

		/* Under our claim, but in no catalog that we know: it runs on, and is taken up when a newer catalog has it. */
		if (own && own->state == CLAIM_ACTIVE && !a->found_incoming[i])
			continue;
		/* One that waited for a guest, or held one that was not continued: whether it may be is not known any more. */
		agent_note(a, NOTE_VM_ALIEN, v, 0);
		memcpy(agent_act(a, AGENT_ACT_KILL_UNKNOWN)->uuid, a->found[i], 16);
	}
}

void agent_ask(struct agent *a, const uint8_t uuid[16], int64_t from_ns, int64_t until_ns, bool live)
{
	if (a->n_asked == AGENT_MAX_VMS)
		return; /* the leader asks again */
	memcpy(a->asked[a->n_asked].uuid, uuid, 16);
	a->asked[a->n_asked].from_ns = from_ns;
	a->asked[a->n_asked].live = live;
	a->asked[a->n_asked++].until_ns = until_ns;
}

static void take_event(struct agent *a, const struct agent_event *ev)
{
	struct claimer_volume *cv = &a->claimer.volume[ev->volume];
	struct vm *v;

	switch (ev->kind) {
	case AGENT_EV_TIMER:
		break;
	case AGENT_EV_VOLUME:
		claimer_volume_ready(a, ev->volume, ev->ok);
		break;
	case AGENT_EV_WRITE_DONE:
		claimer_write_done(a, ev);
		break;
	case AGENT_EV_WRITE_SETTLED:
		cv->write_busy = false;
		slot_settled(&cv->slot, ev->ok, a->now_ns);
		break;
	case AGENT_EV_READ_DONE:
		claimer_read_done(a, ev);
		break;
	case AGENT_EV_READ_SETTLED:
		cv->read_busy = false;
		break;
	case AGENT_EV_TABLE:
		take_table(a, ev->table);
		break;
	case AGENT_EV_SILENT:
		if (ev->silent->node >= 1 && ev->silent->node <= a->opt.node_max && ev->silent->n <= FORMAT_MAX_CLAIMS)
			a->silent[ev->silent->node - 1] = *ev->silent;
		break;
	case AGENT_EV_NO_KEEPER:
		a->have_table = false;
		break;
	case AGENT_EV_CATALOG:
		take_catalog(a, ev->catalog);
		break;
	case AGENT_EV_FOUND:
		if (a->n_found < AGENT_MAX_VMS) {
			a->found_incoming[a->n_found] = ev->incoming;
			memcpy(a->found[a->n_found++], ev->uuid, 16);
		}
		break;
	case AGENT_EV_LISTED:
		a->listed = true;
		break;
	case AGENT_EV_CHECK_LEAD:
		a->claimer.check_lead = true;
		break;
	case AGENT_EV_CATALOG_READ:
		a->lead_read = a->leads;
		break;
	case AGENT_EV_GOING_DOWN:
		leave_event(a, ev);
		break;
	case AGENT_EV_ASSIGN:
	case AGENT_EV_PREPARE:
		if (ev->epoch == a->epoch)
			agent_ask(a, ev->uuid, a->now_ns, a->now_ns + agent_ms(AGENT_ASKED_MS), ev->kind == AGENT_EV_PREPARE);
		break;
	case AGENT_EV_CAPACITY:
		if (ev->node >= 1 && ev->node <= a->opt.node_max) {
			a->node[ev->node - 1].cpus = ev->cpus;
			a->node[ev->node - 1].memory_mib = ev->memory_mib;
		}
		break;
	case AGENT_EV_READY:
		v = agent_vm_by_uuid(a, ev->uuid);
		if (v && ev->node != a->opt.self && agent_owner(a, ev->uuid) == ev->node)
			lead_ready(a, v, ev->node, ev->ready, ev->held);
		break;
	case AGENT_EV_TAKE_IN:
		v = agent_vm_by_uuid(a, ev->uuid);
		if (v)
			vmlife_take_in(a, v, ev->ok);
		break;
	case AGENT_EV_DRAINED:
	case AGENT_EV_STARTED:
	case AGENT_EV_EXIT:
	case AGENT_EV_HEALTH:
	case AGENT_EV_CONTINUED:
	case AGENT_EV_STORAGE:
	case AGENT_EV_OFFER:
	case AGENT_EV_MIGRATION:
	case AGENT_EV_RESERVED:
		v = agent_vm_by_uuid(a, ev->uuid);
		if (v)
			vmlife_event(a, v, ev);
		break;
	}
}

/* The leader may ask before its edit of the catalog has reached us, or while our gate is just opening. It asks again after a longer time. */
static void follow_assignments(struct agent *a)
{
	for (unsigned i = 0; i < a->n_asked;) {
		struct vm *v = agent_vm_by_uuid(a, a->asked[i].uuid);

		if (a->now_ns < a->asked[i].until_ns && (a->now_ns < a->asked[i].from_ns || !v || !(a->asked[i].live ? migrate_prepare(a, v) : vmlife_assign(a, v)))) {
			i++;
			continue;
		}
		if (v && !a->asked[i].live)
			v->asked_until_ns = a->asked[i].until_ns;
		a->asked[i] = a->asked[--a->n_asked];
	}
}

static void tick_vms(struct agent *a)
{
	bool any = false;

	for (unsigned i = 0; i < a->vm_end; i++) {
		if (!a->vm[i].used)
			continue;
		vmlife_tick(a, &a->vm[i]);
		any = any || a->vm[i].state != VM_IDLE;
	}
	if (!any && !a->maintenance_told && agent_node_emptied(a, a->opt.self)) {
		a->maintenance_told = true;
		agent_note(a, NOTE_MAINTENANCE_DONE, NULL, a->opt.self);
	}
}

void agent_step(struct agent *a, const struct agent_event *ev, int64_t now_ns)
{
	CHECK(now_ns >= a->now_ns);
	health_gap(a, now_ns - a->now_ns);
	a->now_ns = now_ns;
	a->n_actions = 0;
	take_event(a, ev);
	adopt(a);
	if (a->adopted) {
		follow_assignments(a);
		leave_step(a);
		tick_vms(a);
	}
	if (ev->kind == AGENT_EV_TABLE || ev->kind == AGENT_EV_CATALOG || ev->kind == AGENT_EV_CATALOG_READ || now_ns - a->tick_ns >= tick(a)) {
		a->tick_ns = now_ns;
		lead_step(a);
		if (a->adopted)
			follow_assignments(a);
	}
	claimer_step(a);
}

int64_t agent_deadline(const struct agent *a)
{
	int64_t at = a->tick_ns + tick(a);

	if (a->claimer.retry_ns > a->now_ns)
		at = MIN(at, a->claimer.retry_ns);
	for (unsigned v = 0; v < a->opt.n_volumes; v++)
		if (a->claimer.volume[v].slot.state == SLOT_DRAINING)
			at = MIN(at, a->claimer.volume[v].slot.since_ns + agent_ms(a->opt.timing.drain_ms));
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && a->vm[i].state != VM_IDLE)
			at = MIN(at, vmlife_deadline(a, &a->vm[i]));
	for (unsigned i = 0; a->adopted && i < a->n_asked; i++)
		at = MIN(at, a->asked[i].from_ns > a->now_ns ? a->asked[i].from_ns : a->asked[i].until_ns);
	return MAX(at, a->now_ns);
}
