/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SCSI-3 persistent reservations on a VM's LUNs: when they are asked for, and what follows from the answers. A barrier in addition to all others: nothing waits
 * for less because of it. What is asked of the targets, and in which order, is storage/reservation.c.
 *
 *   claimed, drained --> RESERVING --JOIN, all claims read once more, OWN (or CLEAR); or there is nothing to be had, nor in the way--> STARTING
 *                          | failed, foreign: again, later and later; after TRIES the claim is given up for another node to try
 *   proven quiet -----> UNRESERVING --LEAVE, whatever came of it--> RELEASING
 *
 * A node that was held up for long may begin a start of a VM that others own by now. So it registers first, and preempts only if a read of all claims that was issued
 * after that shows the VM to be still its own: had somebody taken it before, his claim would be there; whoever takes it later finds our key, preempts it, and our own
 * PREEMPT is refused. No clock has a part in it.
 *
 * What the cluster has reserved would keep a VM from writing that is started without: one whose disks cannot be reserved (any more), or on a node with Reservation=no. The
 * answer to JOIN is STANDS then, and the same way ends with CLEAR. A migration's target does not take such a VM: its source may need that reservation.
 *
 * A migration's target JOINs before its QEMU is there, so that its guest can write from the first moment. A source that is still to preempt others takes that key with
 * theirs, so it begins to send only when it has done so, and does so no more from then on; and the target asks, once its guest is on the way, whether its key is still
 * there (CHECK) before it takes the VM. The source's key is preempted (OWN) when the guest goes on: before, the source's guest would be cut off, and its QEMU never goes on
 * once the claim is handed over. That is tried until it is verified.
 *
 * A key that was lost is never put back under a guest: whoever took it may be the owner by now. The guest is ended, and started by a way that reads all claims. That is no
 * failure of the VM, and none of the node.
 *
 * The key of a node that was held up may turn up beside the owner's at any time. So the owner looks for others (KEEP: OTHERS), and preempts them while nobody is to take
 * the VM from it as it runs. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define AGAIN_MS 2000  /* and twice as long each time, */
#define AGAIN_MAX_MS 30000 /* up to this */
#define LEAVE_MS 3000  /* whoever comes next preempts what is left */
#define STUCK_MS 30000 /* the shell answers sooner */
#define TRIES 5        /* of a start, until another node is to try */
#define CALM_MS 600000 /* what failed, or was lost, longer ago does not count */

static void ask(struct agent *a, struct vm *v, enum reservation_op op)
{
	struct vm_reservation *r = &v->reservation;
	struct agent_action *act = agent_act(a, AGENT_ACT_RESERVE);

	act->vm = v;
	act->reserve = op;
	act->number = ++r->number;
	r->asked = op != RESERVATION_FORGET;
	r->op = op;
	r->asked_ns = a->now_ns;
	r->keyed = r->keyed || op == RESERVATION_JOIN || op == RESERVATION_OWN || op == RESERVATION_LEARN;
}

/* Of how often it has failed nothing is forgotten. */
static void begin_anew(struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	*r = (struct vm_reservation){ .number = r->number, .failures = r->failures, .failed_ns = r->failed_ns };
}

static int64_t again_ns(unsigned failures) { return agent_ms(MIN(AGAIN_MS << MIN(failures, 8u), AGAIN_MAX_MS)); }

/* Once more: how long until the next try. */
static int64_t count_failure(struct agent *a, struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	if (r->failures > 0 && a->now_ns - r->failed_ns > agent_ms(CALM_MS))
		r->failures = 0;
	r->failed_ns = a->now_ns;
	return again_ns(r->failures++) / 2;
}

void reserve_start(struct agent *a, struct vm *v, bool quiet)
{
	bool before = v->reservation.reserved;

	vmlife_move(a, v, VM_RESERVING);
	v->queued = false;
	v->full_drain = quiet;
	v->reservation.reserved = v->reservation.owning = v->reservation.joined = v->reservation.unsure = v->reservation.clears = false;
	v->reservation.registered_ns = 0;
	ask(a, v, before ? RESERVATION_OWN : RESERVATION_JOIN);
}

void reserve_join(struct agent *a, struct vm *v)
{
	begin_anew(v);
	ask(a, v, RESERVATION_JOIN);
}

void reserve_found(struct agent *a, struct vm *v)
{
	if (a->opt.reserve)
		ask(a, v, RESERVATION_LEARN);
}

void reserve_may_be_keyed(const struct agent *a, struct vm *v) { v->reservation.keyed = a->opt.reserve; }

/* Nothing waits for it: a start here later is carried out after it. */
void reserve_quit(struct agent *a, struct vm *v)
{
	bool keyed = v->reservation.keyed;

	begin_anew(v);
	v->reservation.keyed = keyed; /* until it has left */
	if (a->opt.reserve)
		ask(a, v, keyed ? RESERVATION_LEAVE : RESERVATION_FORGET);
}

void reserve_leave(struct agent *a, struct vm *v, enum claim_state then)
{
	vmlife_move(a, v, VM_UNRESERVING);
	v->release_as = then;
	v->reservation.reserved = v->reservation.lost = false;
	ask(a, v, RESERVATION_LEAVE);
}

static void own(struct agent *a, struct vm *v)
{
	v->reservation.owning = true;
	v->reservation.tries = 0;
	ask(a, v, RESERVATION_OWN);
}

void reserve_own(struct agent *a, struct vm *v)
{
	if (!v->reservation.joined) { /* by an agent before this one, perhaps: the shell knows */
		v->reservation.owning = a->opt.reserve;
		reserve_found(a, v);
		return;
	}
	v->reservation.joined = false;
	v->reservation.reserved = true;
	if (!MUTANT(NEVER_OWNED))
		own(a, v);
}

bool reserve_settled(const struct vm *v) { return !v->reservation.owning && !v->reservation.asked; }

bool reserve_arrived(const struct vm *v) { return !v->reservation.joined || v->reservation.confirmed || MUTANT(TAKEN_UNCONFIRMED); }

void reserve_arriving(struct agent *a, struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	if (!r->joined || r->confirmed || (r->asked && r->op == RESERVATION_CHECK) || (r->op == RESERVATION_CHECK && a->now_ns - r->asked_ns < agent_ms(AGAIN_MS)))
		return;
	ask(a, v, RESERVATION_CHECK);
}

static void left(struct agent *a, struct vm *v)
{
	v->reservation.keyed = v->reservation.asked = false;
	vmlife_given_up(a, v, v->release_as);
}

/* Its guest may not write any more: somebody has preempted it, or the target has forgotten. */
static void lost(struct agent *a, struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	if (v->state == VM_INCOMING) {
		if (!MUTANT(TAKEN_UNCONFIRMED))
			migrate_unreserved(a, v);
		return;
	}
	if (v->state == VM_TAKING && MUTANT(TAKEN_UNCONFIRMED))
		return;
	/* It writes no more, and is told so again. One that is just shut down may have no more to write; and hands off are hands off. */
	if (v->state == VM_STOPPING || (v->state == VM_RUNNING && agent_held(a, v)))
		return;
	r->reserved = r->owning = r->joined = false;
	r->lost = true;
	v->term = 0;
	if (v->state == VM_RUNNING && v->migration.phase != MIGRATE_LOST)
		health_end(a, v, TROUBLE_RESERVATION);
	else
		agent_act(a, AGENT_ACT_KILL)->vm = v;
}

bool reserve_ended(struct agent *a, struct vm *v)
{
	if (!v->reservation.lost)
		return false;
	v->reservation.lost = false;
	v->term = 0;
	a->claimer.refresh = true;
	v->last_failure = TROUBLE_RESERVATION;
	vmlife_again(a, v, count_failure(a, v));
	return true;
}

/* Again here for a while. Where it is the node that cannot have it, another one may; where nobody can it is tried for ever, as nothing is wrong with the VM. */
static void not_started(struct agent *a, struct vm *v)
{
	int64_t wait_ns = count_failure(a, v);

	v->reservation.asked = v->reservation.unsure = false;
	v->last_failure = TROUBLE_RESERVATION;
	if (v->reservation.failures % TRIES == 0)
		vmlife_elsewhere(a, v);
	else
		vmlife_again(a, v, wait_ns);
}

static void started(struct agent *a, struct vm *v, enum reservation_result result)
{
	struct vm_reservation *r = &v->reservation;
	bool cleared = r->op == RESERVATION_CLEAR && result == RESERVATION_OK;

	r->reserved = result == RESERVATION_OK && !cleared;
	r->keyed = result != RESERVATION_NONE && !cleared;
	r->asked = r->unsure = false;
	if (result != RESERVATION_OK && result != RESERVATION_NONE) {
		not_started(a, v);
		return;
	}
	r->lost = false;
	vmlife_reserved(a, v);
}

static void on_reserving(struct agent *a, struct vm *v, enum reservation_op op, enum reservation_result result)
{
	struct vm_reservation *r = &v->reservation;

	if (op == RESERVATION_OWN && result == RESERVATION_LOST && r->registered_ns == 0) {
		ask(a, v, RESERVATION_JOIN); /* what this claim had reserved for a QEMU before */
	} else if (op == RESERVATION_JOIN && result == RESERVATION_STANDS && MUTANT(LEFT_STANDING)) {
		started(a, v, RESERVATION_NONE);
	} else if (op == RESERVATION_JOIN && (result == RESERVATION_OK || result == RESERVATION_STANDS)) {
		r->clears = result == RESERVATION_STANDS;
		r->unsure = true;
		r->registered_ns = a->now_ns;
		a->claimer.refresh = true;
		if (MUTANT(OVERTAKEN)) {
			r->unsure = false;
			ask(a, v, r->clears ? RESERVATION_CLEAR : RESERVATION_OWN);
		}
	} else {
		started(a, v, result);
	}
}

/* Whoever takes the VM after that read was issued finds our key, and preempts it before anything else: from then on we cannot preempt his. */
static void look_at_claims(struct agent *a, struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	if (a->claimer.complete_ns <= r->registered_ns) {
		a->claimer.refresh = a->claimer.refresh || a->claimer.phase == CLAIMER_IDLE || a->claimer.read_ns <= r->registered_ns;
		return;
	}
	r->unsure = false;
	if (!agent_gate_open(a)) {
		reserve_quit(a, v);
		vmlife_refused(a, v);
		return;
	}
	if (r->sure_ns <= r->registered_ns)
		v->term = 0; /* somebody else has it, perhaps: the claim cycle will tell */
	if (!vmlife_must_confirm(a, v))
		ask(a, v, r->clears ? RESERVATION_CLEAR : RESERVATION_OWN);
}

void reserve_claims_read(struct agent *a)
{
	for (unsigned i = 0; i < a->vm_end; i++)
		if (a->vm[i].used && a->vm[i].state == VM_RESERVING && a->vm[i].reservation.unsure)
			look_at_claims(a, &a->vm[i]);
}

static void on_owned(struct agent *a, struct vm *v, enum reservation_result result)
{
	struct vm_reservation *r = &v->reservation;
	bool was = r->owning;

	r->keyed = result != RESERVATION_NONE;
	if (v->state != VM_RUNNING)
		return;
	r->reserved = r->keyed;
	r->owning = result == RESERVATION_FAILED || result == RESERVATION_FOREIGN;
	r->tries = was && r->owning ? r->tries : 0;
	if (result == RESERVATION_LOST)
		lost(a, v);
}

static void on_answer(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	struct vm_reservation *r = &v->reservation;
	enum reservation_result result = ev->reserved;
	enum reservation_op op = r->op;

	r->asked = false;
	if (v->state == VM_RESERVING) {
		on_reserving(a, v, op, result);
	} else if (op == RESERVATION_LEAVE && v->state == VM_UNRESERVING) {
		left(a, v);
	} else if (op == RESERVATION_LEAVE) {
		r->keyed = result != RESERVATION_OK;
	} else if (op == RESERVATION_JOIN && v->state == VM_INCOMING) {
		r->joined = result == RESERVATION_OK;
		r->keyed = result != RESERVATION_NONE;
		migrate_joined(a, v, result == RESERVATION_OK || result == RESERVATION_NONE || (result == RESERVATION_STANDS && MUTANT(LEFT_STANDING)));
	} else if (op == RESERVATION_CHECK && v->state == VM_INCOMING) {
		r->confirmed = result == RESERVATION_OK;
		if (result == RESERVATION_LOST)
			lost(a, v);
	} else if (op == RESERVATION_OWN || op == RESERVATION_LEARN) {
		on_owned(a, v, result);
	}
}

/* Others beside us: a node's that was held up. Of one that is to take the VM as it runs we may not have heard yet: it tries again. */
static bool may_preempt(const struct agent *a, const struct vm *v)
{
	return v->state == VM_RUNNING && v->reservation.reserved && reserve_settled(v) && v->migration.phase == MIGRATE_NONE && agent_gate_open(a) &&
	       !migrate_by(a, v, a->opt.self) && !MUTANT(OTHERS_LEFT);
}

bool reserve_may_have(const struct vm *v)
{
	return v->state == VM_STARTING || v->state == VM_RUNNING || v->state == VM_STOPPING || v->state == VM_INCOMING || v->state == VM_TAKING;
}

void reserve_event(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	struct vm_reservation *r = &v->reservation;

	if (ev->number != r->number)
		return;
	if (r->asked && ev->reserve == r->op)
		on_answer(a, v, ev);
	else if (ev->reserve == RESERVATION_CHECK && ev->reserved == RESERVATION_LOST && (r->reserved || r->joined || r->lost) && reserve_may_have(v))
		lost(a, v); /* lost: it may have been told to end before it was there, or while hands were off */
	else if (ev->reserve == RESERVATION_KEEP && ev->reserved == RESERVATION_OTHERS && may_preempt(a, v))
		own(a, v);
}

void reserve_tick(struct agent *a, struct vm *v)
{
	struct vm_reservation *r = &v->reservation;

	if (v->state == VM_RUNNING && r->owning && v->migration.phase == MIGRATE_NONE && a->now_ns - r->asked_ns >= (r->asked ? agent_ms(STUCK_MS) : again_ns(r->tries))) {
		r->tries++;
		ask(a, v, r->op == RESERVATION_LEARN ? RESERVATION_LEARN : RESERVATION_OWN);
	} else if (v->state == VM_UNRESERVING && a->now_ns - v->since_ns >= agent_ms(LEAVE_MS)) {
		left(a, v);
	} else if (v->state == VM_RESERVING && a->now_ns - v->since_ns >= agent_ms(STUCK_MS)) {
		started(a, v, RESERVATION_FAILED);
	} else if (v->state == VM_RESERVING && r->unsure) {
		look_at_claims(a, v);
	}
}

int64_t reserve_deadline(const struct vm *v)
{
	return v->since_ns + agent_ms(v->state == VM_UNRESERVING ? LEAVE_MS : STUCK_MS);
}
