/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VM that goes to another node while it runs.
 *
 *   source                                          target
 *                                                   asked by the leader, who has planned it: PREPARING, a QEMU that waits, never continued
 *   RUNNING, phase SENDING    <------ offer ------  OFFERED, under a random number of this QEMU's own
 *      | guest stands still, disks still ours       LOADING
 *   phase SWITCHING                                 LOADED
 *      | completed: stopped and inactive
 *   HANDING: claim becomes "handed, that number" (not to be issued for HAND_MS: taken back, RUNNING)
 *      | on a fence quorum, in both buffers
 *   DISCARDING, IDLE          ------ handed ----->  TAKING: the whole claim cycle, only if that claim is the newest of all
 *                                                   STARTING: its guest goes on; RUNNING
 *
 * Until the handed claim is written nothing binds the source: whatever fails, its guest goes on there. Once that write is issued the source never
 * continues it; whoever holds the next claim runs the VM. A loaded target that does not get that claim, for whatever reason, is killed (never told to
 * quit: it would write) and gone before the VM may be started on its node. Messages only say when to look: what counts is read from the volumes.
 * A source whose agent was restarted cannot know what that one had issued: of a completed migration it kills what is left and claims anew. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define PREPARE_MS 30000  /* until a QEMU waits, if its file does not say */
#define OFFER_MS 20000    /* until the source has begun */
#define OFFER_AGAIN_MS 1000
#define ASK_AGAIN_MS 3000 /* whether the source still means it */
#define ARRIVE_MS 10000   /* handed over: the rest is here within this */
#define SWITCH_MS 10000   /* the guest stands still meanwhile: beyond what its file allows, */
#define DOWNTIME_MS 300   /* or QEMU by itself */
#define HAND_MS 10000     /* until its release is issued: claims may not be to be had just now (of two volumes one is away) */
#define CANCEL_AGAIN_MS 5000
#define CANCEL_MS 30000   /* it does not listen: a VM that is to be stopped is stopped */
#define KILL_AGAIN_MS 2000
#define TRIES 3
#define PARALLEL 2
#define NO_OFFER_MS 60000 /* with none of this node's VMs on its way */
#define PREPARING_MS 10000 /* a target that prepares says so each ASK_AGAIN_MS */
#define WITHDRAW_AGAIN_MS 1000

static void set_phase(struct agent *a, struct vm *v, enum migrate_phase phase)
{
	v->migration.phase = phase;
	v->migration.since_ns = v->migration.told_ns = a->now_ns;
}

static int64_t since(const struct agent *a, const struct vm *v) { return a->now_ns - v->migration.since_ns; }

/* Once every so often. */
static bool due(struct agent *a, struct vm *v, uint32_t ms)
{
	if (a->now_ns - v->migration.told_ns < agent_ms(ms))
		return false;
	v->migration.told_ns = a->now_ns;
	return true;
}

static void tell(struct agent *a, struct vm *v, uint32_t node, uint64_t id, enum migrate_news news)
{
	struct agent_action *act = agent_act(a, AGENT_ACT_TELL);

	act->vm = v;
	act->node = node;
	act->migration = id;
	act->news = news;
}

bool migrate_by(const struct agent *a, const struct vm *v, uint32_t owner)
{
	uint32_t to = place_move(a, v);

	if (!v->def.live || owner == 0 || !v->in_catalog || v->def.desired != DESIRED_STARTED || agent_held(a, v))
		return false;
	if (to != 0)
		return to != owner && (v->def.move.live || v->def.move.back);
	if (a->maintenance >> (owner - 1) & 1)
		return true;
	/* Its host goes down, and it is to be back when that is: what only waits for its node has another request. */
	return v->def.move.back && v->def.move.node == owner && agent_node_emptied(a, owner);
}

/* ---- the source ---- */

unsigned migrate_parallel(const struct agent *a) { return a->opt.migrations_per_node ? a->opt.migrations_per_node : PARALLEL; }

static unsigned outgoing(const struct agent *a)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end; i++)
		n += a->vm[i].used && (a->vm[i].state == VM_HANDING || (a->vm[i].state == VM_RUNNING && a->vm[i].migration.phase != MIGRATE_NONE));
	return n;
}

static bool sending(const struct vm *v) { return v->state == VM_RUNNING && v->migration.phase != MIGRATE_NONE; }

/* It may still go there. */
static bool may_go(const struct agent *a, const struct vm *v, uint32_t to)
{
	uint32_t asked = place_move(a, v);

	return agent_gate_open(a) && !vmlife_wanted(a, v) && migrate_by(a, v, a->opt.self) && agent_node_usable(a, to) && (asked == 0 || asked == to);
}

/* What is to be ended for its health, or stands still for another reason than an operator's, stays until that is over. No attempt begins while a cont is on
 * its way: QEMU obeys that whenever it comes, even after the guest was handed over. Nor while others' keys are to be preempted: the target's would go with them. Nor while
 * a write of a QEMU before it may land: over those of the next owner that would be one of another node's. */
static bool is_fit(const struct agent *a, const struct vm *v)
{
	const struct vm_health *h = &v->health;

	if (MUTANT(CONT_IN_FLIGHT))
		return h->kill_ns == 0;
	return h->kill_ns == 0 && !h->held && a->now_ns >= v->undrained_ns && !v->going_on && reserve_settled(v) && (h->run == GUEST_RUNS || h->run == GUEST_ASLEEP || h->run == GUEST_PAUSED);
}

static void on_offer(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	struct vm_migration *m = &v->migration;

	if (m->id == ev->migration && (sending(v) || v->state == VM_HANDING || v->state == VM_DISCARDING))
		return; /* it was said twice */
	v->health.held = v->health.held || ev->held;
	if (v->state == VM_RUNNING && m->phase == MIGRATE_NONE && !is_fit(a, v))
		m->preparing_ns = a->now_ns; /* a target has it in work all the same, in vain, and others' turn comes after it */
	if (v->state != VM_RUNNING || m->phase != MIGRATE_NONE || !is_fit(a, v) || !may_go(a, v, ev->node) || m->failures >= TRIES || outgoing(a) >= migrate_parallel(a)) {
		tell(a, v, ev->node, ev->migration, MIGRATE_NEWS_OFF);
		return;
	}
	m->id = ev->migration;
	m->peer = ev->node;
	m->peer_generation = 0;
	m->counts = true;
	m->gone = m->kept = m->still = false;
	set_phase(a, v, MIGRATE_SENDING);
	agent_note(a, NOTE_VM_MIGRATING, v, ev->node);
	agent_act(a, AGENT_ACT_MIGRATE)->vm = v;
}

/* A target asks what has become of it: what it was told may be lost. */
static void on_asked(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	const struct claim *own = claimer_own(a, v->def.uuid);

	if (ev->migration == v->migration.id && (sending(v) || v->state == VM_HANDING))
		return;
	tell(a, v, ev->node, ev->migration, own && own->state == CLAIM_HANDED && own->migration == ev->migration ? MIGRATE_NEWS_HANDED : MIGRATE_NEWS_OFF);
}

/* counts: it was not called off. */
static void cancel(struct agent *a, struct vm *v, bool counts)
{
	v->migration.counts = counts;
	set_phase(a, v, MIGRATE_CANCELLING);
	agent_act(a, AGENT_ACT_CANCEL)->vm = v;
}

static void hand_over(struct agent *a, struct vm *v)
{
	CHECK(!v->going_on || MUTANT(CONT_IN_FLIGHT) || MUTANT(CONT_WHILE_SENT));
	vmlife_move(a, v, VM_HANDING);
	set_phase(a, v, MIGRATE_NONE);
	v->migration.still = v->health.still;
	if (v->migration.still)
		tell(a, v, v->migration.peer, v->migration.id, MIGRATE_NEWS_STILL);
	claimer_want_migration(a, v->def.uuid, WANT_GIVE_UP, v->migration.id);
}

static void on_paused(struct agent *a, struct vm *v)
{
	if (v->migration.phase != MIGRATE_SENDING)
		return;
	if (!may_go(a, v, v->migration.peer)) {
		cancel(a, v, false);
		return;
	}
	set_phase(a, v, MIGRATE_SWITCHING);
	agent_act(a, AGENT_ACT_SWITCH)->vm = v;
	if (MUTANT(HANDED_BEFORE_INACTIVE))
		claimer_want_migration(a, v->def.uuid, WANT_GIVE_UP, v->migration.id);
}

static void ended(struct agent *a, struct vm *v)
{
	struct vm_migration *m = &v->migration;

	m->failures += m->counts;
	m->wait_ns = a->now_ns;
	agent_note(a, NOTE_VM_NOT_MIGRATED, v, m->peer);
	tell(a, v, m->peer, m->id, MIGRATE_NEWS_OFF);
	set_phase(a, v, MIGRATE_NONE);
}

/* An attempt of this one, too, though it never came to an offer: tried again where that may help, and not for ever. */
static void on_cannot(struct agent *a, struct vm *v)
{
	struct vm_migration *m = &v->migration;

	if (v->state != VM_RUNNING || m->phase != MIGRATE_NONE || !migrate_by(a, v, a->opt.self) || m->failures >= TRIES)
		return;
	m->failures++;
	m->wait_ns = a->now_ns;
	m->preparing_ns = 0;
}

static void on_preparing(struct agent *a, struct vm *v, uint64_t generation)
{
	if (v->state == VM_RUNNING && generation == v->generation)
		v->migration.preparing_ns = a->now_ns;
}

/* A target has one of this node's VMs in work: the others' turn comes after it. */
static bool prepared_for(const struct agent *a)
{
	for (unsigned i = 0; i < a->vm_end; i++) {
		const struct vm *v = &a->vm[i];

		if (v->used && v->state == VM_RUNNING && v->migration.preparing_ns != 0 && a->now_ns - v->migration.preparing_ns < agent_ms(PREPARING_MS))
			return true;
	}
	return false;
}

/* Whatever was said of it before, nothing is handed over: its guest goes on here. */
static void let_go_on(struct agent *a, struct vm *v)
{
	v->going_on = true;
	health_stood_still(a, &v->health);
	agent_act(a, AGENT_ACT_GO_ON)->vm = v;
}

void migrate_lost(struct agent *a, struct vm *v)
{
	set_phase(a, v, MIGRATE_LOST);
	agent_act(a, AGENT_ACT_KILL)->vm = v;
}

static void on_completed(struct agent *a, struct vm *v, uint64_t id)
{
	const struct vm_migration *m = &v->migration;

	if (v->state == VM_STOPPING) { /* nothing was released: the guest has to hear that it is to shut down */
		v->migration.still = false;
		let_go_on(a, v);
		agent_act(a, AGENT_ACT_POWERDOWN)->vm = v;
		return;
	}
	if (v->state != VM_RUNNING)
		return;
	if (id != m->id || (m->phase != MIGRATE_SWITCHING && m->phase != MIGRATE_CANCELLING)) {
		/* An earlier process may have issued the release: only a new claim may run it, and cold. */
		migrate_lost(a, v);
	} else if (m->phase == MIGRATE_SWITCHING && agent_gate_open(a) && agent_node_usable(a, m->peer)) {
		hand_over(a, v);
	} else {
		v->migration.still = v->health.still;
		let_go_on(a, v); /* called off in time, as nothing was released */
		ended(a, v);
	}
}

/* An operator's wish that cannot be had: the VM stays. */
void migrate_withdraw(struct agent *a, struct vm *v)
{
	struct agent_action *act;

	if (!due(a, v, WITHDRAW_AGAIN_MS))
		return;
	act = agent_act(a, AGENT_ACT_MOVE_OVER);
	act->vm = v;
	act->on = false;
}

static void watch_sending(struct agent *a, struct vm *v)
{
	struct vm_migration *m = &v->migration;

	switch (m->phase) {
	case MIGRATE_SENDING: /* for as long as it takes */
		if (!may_go(a, v, m->peer))
			cancel(a, v, false);
		break;
	case MIGRATE_SWITCHING:
		if (since(a, v) > agent_ms(SWITCH_MS + (v->def.downtime_ms ? v->def.downtime_ms : DOWNTIME_MS)))
			cancel(a, v, true);
		break;
	case MIGRATE_CANCELLING:
		if (due(a, v, CANCEL_AGAIN_MS))
			agent_act(a, AGENT_ACT_CANCEL)->vm = v;
		break;
	case MIGRATE_LOST:
		if (due(a, v, KILL_AGAIN_MS))
			agent_act(a, AGENT_ACT_KILL)->vm = v;
		break;
	default:
		break;
	}
}

bool migrate_leaves(struct agent *a, struct vm *v, bool wanted)
{
	struct vm_migration *m = &v->migration;

	if (m->phase != MIGRATE_NONE) {
		watch_sending(a, v);
		/* One that is to be stopped waits for the end of it, but not for ever. */
		return wanted || m->phase != MIGRATE_CANCELLING || migrate_by(a, v, a->opt.self) || since(a, v) < agent_ms(CANCEL_MS);
	}
	if (wanted) {
		m->wait_ns = 0;
		return true;
	}
	if (!migrate_by(a, v, a->opt.self))
		return false;
	if (m->wait_ns == 0 || m->number != v->def.move.number) {
		m->number = v->def.move.number;
		m->failures = 0;
		m->wait_ns = a->now_ns;
	}
	/* Its turn comes; or has come, but its guest cannot be sent as it is: it has its time for that, and those behind it do not wait for ever. */
	if (m->failures < TRIES && (outgoing(a) > 0 || (prepared_for(a) && is_fit(a, v))))
		m->wait_ns = a->now_ns;
	if (m->failures < TRIES && a->now_ns - m->wait_ns < agent_ms(NO_OFFER_MS))
		return true;
	if (v->def.move.node == 0 || !v->def.move.live)
		return false; /* no operator's wish: it has to leave, by a stop here and a start there */
	migrate_withdraw(a, v);
	return true;
}

/* ---- the target ---- */

static void drop(struct agent *a, struct vm *v)
{
	bool no_qemu = v->migration.phase == MIGRATE_JOINING;

	agent_note(a, NOTE_VM_DISCARDED, v, v->migration.peer);
	set_phase(a, v, MIGRATE_NONE);
	if (no_qemu) {
		reserve_quit(a, v);
		vmlife_move(a, v, VM_IDLE);
		return;
	}
	if (MUTANT(TARGET_KEPT)) {
		vmlife_move(a, v, VM_IDLE);
		return;
	}
	vmlife_move(a, v, VM_DISCARDING);
	agent_act(a, AGENT_ACT_KILL)->vm = v;
}

bool migrate_prepare(struct agent *a, struct vm *v)
{
	uint32_t owner = agent_owner(a, v->def.uuid);
	struct vm_migration *m = &v->migration;

	if (v->state != VM_IDLE || owner == 0 || owner == a->opt.self || !migrate_by(a, v, owner) || !agent_node_usable(a, a->opt.self) ||
	    place_possible(a, v, a->opt.self) != PLACE_FITS || !vmlife_wanted(a, v) || v->def.frozen || claimer_pending(a, v->def.uuid))
		return false;
	*m = (struct vm_migration){ .peer = owner, .peer_generation = claimer_seen(a, owner, v->def.uuid)->generation };
	vmlife_move(a, v, VM_INCOMING);
	agent_note(a, NOTE_VM_INCOMING, v, owner);
	if (a->opt.reserve) {
		set_phase(a, v, MIGRATE_JOINING);
		reserve_join(a, v);
		return true;
	}
	set_phase(a, v, MIGRATE_PREPARING);
	agent_act(a, AGENT_ACT_INCOMING)->vm = v;
	return true;
}

void migrate_joined(struct agent *a, struct vm *v, bool ok)
{
	if (v->migration.phase != MIGRATE_JOINING)
		return;
	if (!ok) {
		drop(a, v);
		return;
	}
	set_phase(a, v, MIGRATE_PREPARING);
	agent_act(a, AGENT_ACT_INCOMING)->vm = v;
}

void migrate_unreserved(struct agent *a, struct vm *v)
{
	tell(a, v, v->migration.peer, v->migration.id, MIGRATE_NEWS_OFF);
	drop(a, v);
}

static void go_on(struct agent *a, struct vm *v, uint64_t generation)
{
	v->generation = generation;
	v->unclean = false;
	v->kill_sent = v->quit_sent = false;
	vmlife_move(a, v, VM_STARTING);
	agent_note(a, NOTE_VM_CLAIMED, v, a->opt.self);
	let_go_on(a, v);
}

static void try_take(struct agent *a, struct vm *v)
{
	const struct vm_migration *m = &v->migration;
	const struct claim *c = claimer_seen(a, m->peer, v->def.uuid);
	bool handed = m->handed || (c && c->state == CLAIM_HANDED && (c->migration == m->id || MUTANT(RELEASE_OF_ANOTHER)));

	if (v->state != VM_INCOMING || m->phase != MIGRATE_LOADED)
		return;
	/* Storage that is back for all is there a moment before the gates are open again: a claim now would be given up, and the guest lost with it. */
	if (!agent_gate_open(a))
		return;
	if (MUTANT(CONTINUED_UNCLAIMED)) {
		go_on(a, v, m->peer_generation + 1);
		return;
	}
	if (!reserve_arrived(v))
		return;
	if (!handed && !(MUTANT(RELEASE_UNREAD) && agent_owner(a, v->def.uuid) == 0))
		return;
	vmlife_move(a, v, VM_TAKING);
	claimer_want_migration(a, v->def.uuid, WANT_TAKE, m->id);
}

static int64_t prepare_ns(const struct vm *v) { return agent_ms(v->def.health.start_ms ? v->def.health.start_ms : PREPARE_MS); }

/* The life of the source that it came from is the one that may hand it over. */
static bool source_stands(const struct agent *a, const struct vm *v)
{
	const struct vm_migration *m = &v->migration;
	const struct claim *c = claimer_seen(a, m->peer, v->def.uuid);

	if ((MUTANT(RELEASE_UNREAD) || MUTANT(RELEASE_OF_ANOTHER)) && m->phase == MIGRATE_LOADED)
		return true;
	if (!c || c->generation != m->peer_generation)
		return false;
	return claim_is_live(a, m->peer, c) || (c->state == CLAIM_HANDED && c->migration == m->id);
}

static void tick_incoming(struct agent *a, struct vm *v)
{
	struct vm_migration *m = &v->migration;
	const struct claim *c = claimer_seen(a, m->peer, v->def.uuid);
	bool in_time = true;

	if (c && c->state == CLAIM_HANDED && c->migration == m->id && m->id != 0 && !m->handed) {
		m->handed = true;
		m->since_ns = a->now_ns;
	}
	if (m->handed)
		in_time = since(a, v) < agent_ms(ARRIVE_MS);
	else if (m->phase == MIGRATE_JOINING || m->phase == MIGRATE_PREPARING)
		in_time = since(a, v) < prepare_ns(v);
	else if (m->phase == MIGRATE_OFFERED)
		in_time = since(a, v) < agent_ms(OFFER_MS);
	if (v->ready_node == m->peer) /* while it is there: of a VM that nobody has nothing is known */
		m->ready = lead_known_ready(v);
	/* Loading, and loaded and not handed over yet: for as long as its source goes on with it. */
	if (!in_time || !source_stands(a, v) || !v->in_catalog || v->def.desired == DESIRED_REMOVED) {
		drop(a, v);
		return;
	}
	if (m->phase == MIGRATE_OFFERED && due(a, v, OFFER_AGAIN_MS)) {
		struct agent_action *act = agent_act(a, AGENT_ACT_OFFER);

		act->vm = v;
		act->node = m->peer;
	}
	if (m->phase == MIGRATE_PREPARING && due(a, v, ASK_AGAIN_MS))
		tell(a, v, m->peer, m->peer_generation, MIGRATE_NEWS_PREPARING);
	if (m->phase >= MIGRATE_LOADING && due(a, v, ASK_AGAIN_MS))
		tell(a, v, m->peer, m->id, MIGRATE_NEWS_ASK);
	if (m->phase >= MIGRATE_LOADING)
		reserve_arriving(a, v);
	try_take(a, v);
}

static void on_ready(struct agent *a, struct vm *v, uint64_t id)
{
	struct agent_action *act;

	if (v->migration.phase != MIGRATE_PREPARING || id == 0)
		return;
	v->migration.id = id;
	set_phase(a, v, MIGRATE_OFFERED);
	act = agent_act(a, AGENT_ACT_OFFER);
	act->vm = v;
	act->node = v->migration.peer;
}

static void target_news(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	struct vm_migration *m = &v->migration;

	if (ev->news == MIGRATE_NEWS_READY) {
		on_ready(a, v, ev->migration);
		return;
	}
	if (ev->migration != m->id || m->id == 0)
		return;
	switch (ev->news) {
	case MIGRATE_NEWS_LOADING:
		if (m->phase == MIGRATE_OFFERED)
			set_phase(a, v, MIGRATE_LOADING);
		break;
	case MIGRATE_NEWS_LOADED:
		if (m->phase == MIGRATE_OFFERED || m->phase == MIGRATE_LOADING)
			set_phase(a, v, MIGRATE_LOADED);
		try_take(a, v);
		break;
	case MIGRATE_NEWS_HANDED:
		if (!m->handed)
			m->since_ns = a->now_ns;
		m->handed = true;
		try_take(a, v);
		break;
	case MIGRATE_NEWS_STILL:
		m->still = true;
		break;
	case MIGRATE_NEWS_OFF:
		if ((!MUTANT(RELEASE_UNREAD) && !MUTANT(RELEASE_OF_ANOTHER)) || m->phase != MIGRATE_LOADED)
			drop(a, v);
		break;
	default:
		break;
	}
}

/* ---- both ---- */

void migrate_event(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	if (ev->kind == AGENT_EV_OFFER) {
		on_offer(a, v, ev);
		return;
	}
	if (v->state == VM_INCOMING) {
		if (ev->news != MIGRATE_NEWS_ASK)
			target_news(a, v, ev);
		return;
	}
	switch (ev->news) {
	case MIGRATE_NEWS_PAUSED:
		if (sending(v) && ev->migration == v->migration.id)
			on_paused(a, v);
		break;
	case MIGRATE_NEWS_ASK:
		on_asked(a, v, ev);
		break;
	case MIGRATE_NEWS_CANNOT:
		on_cannot(a, v);
		break;
	case MIGRATE_NEWS_PREPARING:
		on_preparing(a, v, ev->migration);
		break;
	case MIGRATE_NEWS_COMPLETED:
		on_completed(a, v, ev->migration);
		break;
	case MIGRATE_NEWS_FAILED:
		if (sending(v) && ev->migration == v->migration.id && v->migration.phase != MIGRATE_LOST) {
			v->migration.kept = true;
			ended(a, v);
		}
		break;
	default:
		break;
	}
}

static void not_taken(struct agent *a, struct vm *v)
{
	if (v->migration.gone) {
		reserve_quit(a, v);
		vmlife_move(a, v, VM_IDLE);
	} else {
		drop(a, v);
	}
}

/* The claim is ours. Storage may have hung since it was written: nothing begins then, and a guest that stands still loses nothing by it. It goes on when the gate is
 * open again: an epoch that has gone on is one that nobody has taken a claim from. */
static void taken(struct agent *a, struct vm *v)
{
	bool of_use = !v->migration.gone && v->in_catalog && v->def.desired != DESIRED_REMOVED;

	if (of_use && !agent_gate_open(a))
		return;
	if (of_use) {
		go_on(a, v, v->migration.taken); /* wanted here or not: what is to be done with it is done with its guest */
		return;
	}
	claimer_want(a, v->def.uuid, WANT_GIVE_UP, CLAIM_NONE);
	not_taken(a, v);
}

bool migrate_claim_result(struct agent *a, struct vm *v, enum claim_result result, uint64_t generation)
{
	struct vm_migration *m = &v->migration;

	if (v->state == VM_HANDING && result == CLAIM_GIVEN_UP) {
		agent_note(a, NOTE_VM_HANDED, v, m->peer);
		tell(a, v, m->peer, m->id, MIGRATE_NEWS_HANDED);
		if (MUTANT(SOURCE_RESUMES)) {
			vmlife_move(a, v, VM_RUNNING);
			agent_act(a, AGENT_ACT_GO_ON)->vm = v;
			return true;
		}
		vmlife_move(a, v, m->gone ? VM_IDLE : VM_DISCARDING);
		if (m->gone)
			reserve_quit(a, v);
		else
			agent_act(a, AGENT_ACT_KILL)->vm = v;
		return true;
	}
	if (v->state != VM_TAKING)
		return false;
	if (result == CLAIM_GRANTED) {
		m->taken = generation;
		taken(a, v);
	} else {
		not_taken(a, v);
	}
	return true;
}

/* It was handed over to nobody's use: where it was to go it is started anew at once, and not only when the leader's patience is over. */
static void start_instead(struct agent *a, struct vm *v)
{
	const struct claim *c = claimer_seen(a, v->migration.peer, v->def.uuid);

	if (c && c->state == CLAIM_HANDED && agent_owner(a, v->def.uuid) == 0)
		agent_ask(a, v->def.uuid, a->now_ns, a->now_ns + agent_ms(AGENT_ASKED_MS), false);
}

bool migrate_gone(struct agent *a, struct vm *v)
{
	switch (v->state) {
	case VM_HANDING:
	case VM_TAKING: /* what becomes of the claim is still to come */
		v->migration.gone = true;
		return true;
	case VM_INCOMING:
		agent_note(a, NOTE_VM_DISCARDED, v, v->migration.peer);
		/* fall through */
	case VM_DISCARDING:
		set_phase(a, v, MIGRATE_NONE);
		vmlife_move(a, v, VM_IDLE);
		reserve_quit(a, v);
		if (v->migration.peer != a->opt.self && v->migration.peer_generation != 0)
			start_instead(a, v);
		return true;
	case VM_RUNNING:
		if (v->migration.phase == MIGRATE_LOST) {
			set_phase(a, v, MIGRATE_NONE);
			vmlife_move(a, v, VM_CLAIMING);
			v->ours_before = true;
			claimer_want(a, v->def.uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
			return true;
		}
		if (v->migration.phase != MIGRATE_NONE)
			ended(a, v);
		return false;
	default:
		return false;
	}
}

/* Its release cannot be written, and nothing of it is: its guest goes on here. Once it is issued there is no way back. */
static void tick_handing(struct agent *a, struct vm *v)
{
	if (v->migration.gone || a->now_ns - v->since_ns < agent_ms(HAND_MS) || !claimer_take_back(a, v->def.uuid))
		return;
	health_unwatched(v, a->now_ns - v->since_ns); /* what QEMU has said while it was being handed over was not listened to */
	vmlife_move(a, v, VM_RUNNING);
	let_go_on(a, v);
	ended(a, v);
}

void migrate_tick(struct agent *a, struct vm *v)
{
	if (v->state == VM_HANDING)
		tick_handing(a, v);
	else if (v->state == VM_INCOMING)
		tick_incoming(a, v);
	else if (v->state == VM_TAKING && v->migration.taken != 0)
		taken(a, v);
	else if (v->state == VM_DISCARDING && due(a, v, KILL_AGAIN_MS))
		agent_act(a, AGENT_ACT_KILL)->vm = v;
}
