/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VM on this node, from its claim to its release. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define QUIT_MS 5000      /* QEMU is given this long to quit before it is killed */
#define KILL_AGAIN_MS 5000 /* systemd may not have heard it, or not obeyed */
#define BACKOFF_MS 1000   /* the first restart is at once, each further one within the window waits this much longer */
#define GATE_RETRY_MS 200
#define BUSY_AGAIN_MS 50
#define GUEST_OFF_AGAIN_MS 1000
#define STAYS_DOWN_MS 2000 /* a keeper that kills its VMs tells of it within this: that is the node's failure, not the VM's */
#define PLACE_LOOK_MS 1000
#define STUCK_MS 30000    /* a start that systemd never answers */
#define GO_ON_MS 10000    /* a guest that came as it ran: until its QEMU is watched like any other that does not answer */
#define QUIET_MS 15000    /* beyond T_drain: a proof that takes longer is left to the next owner */

const char *vm_state_name(enum vm_state s)
{
	static const char *const name[VM_STATE_COUNT] = {
		"idle", "claiming", "draining", "reserving", "unreserving", "starting", "running", "stopping", "restarting", "releasing",
		"handing", "incoming", "taking", "discarding",
	};

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}

void vmlife_move(struct agent *a, struct vm *v, enum vm_state to)
{
	const uint16_t allowed[VM_STATE_COUNT] = {
		[VM_IDLE] = 1 << VM_CLAIMING | 1 << VM_RUNNING | 1 << VM_DRAINING | 1 << VM_INCOMING,
		[VM_CLAIMING] = 1 << VM_CLAIMING | 1 << VM_IDLE | 1 << VM_DRAINING | 1 << VM_RESERVING | 1 << VM_RESTARTING | 1 << VM_STARTING | 1 << VM_RELEASING,
		[VM_DRAINING] = 1 << VM_CLAIMING | 1 << VM_IDLE | 1 << VM_RESERVING | 1 << VM_UNRESERVING | 1 << VM_RESTARTING | 1 << VM_STARTING | 1 << VM_RELEASING | 1 << VM_DRAINING,
		[VM_RESERVING] = 1 << VM_IDLE | 1 << VM_CLAIMING | 1 << VM_DRAINING | 1 << VM_UNRESERVING | 1 << VM_RELEASING | 1 << VM_STARTING | 1 << VM_RESTARTING,
		[VM_UNRESERVING] = 1 << VM_IDLE | 1 << VM_RELEASING,
		[VM_STARTING] = 1 << VM_IDLE | 1 << VM_RUNNING | 1 << VM_RESTARTING | 1 << VM_STOPPING | 1 << VM_DRAINING | 1 << VM_RELEASING,
		[VM_RUNNING] = 1 << VM_IDLE | 1 << VM_RESTARTING | 1 << VM_STOPPING | 1 << VM_RELEASING | 1 << VM_DRAINING | 1 << VM_HANDING |
			       1 << VM_CLAIMING,
		[VM_STOPPING] = 1 << VM_IDLE | 1 << VM_RELEASING | 1 << VM_DRAINING | 1 << VM_UNRESERVING,
		[VM_RESTARTING] = 1 << VM_IDLE | 1 << VM_STARTING | 1 << VM_RELEASING | 1 << VM_DRAINING | 1 << VM_UNRESERVING,
		[VM_RELEASING] = 1 << VM_IDLE,
		[VM_HANDING] = 1 << VM_IDLE | 1 << VM_DISCARDING | 1 << VM_RUNNING /* nothing was issued */,
		[VM_INCOMING] = 1 << VM_IDLE | 1 << VM_DISCARDING | 1 << VM_TAKING | (MUTANT(CONTINUED_UNCLAIMED) ? 1 << VM_STARTING : 0),
		[VM_TAKING] = 1 << VM_IDLE | 1 << VM_DISCARDING | 1 << VM_STARTING,
		[VM_DISCARDING] = 1 << VM_IDLE,
	};

	CHECK(allowed[v->state] & (1 << to));
	if (v->state == VM_RUNNING && v->ready_node == a->opt.self)
		memset(v->ready_ns, 0, sizeof(v->ready_ns)); /* whoever leads may have looked before it ended, and look again when it runs anew */
	v->state = to;
	v->since_ns = a->now_ns;
	v->retry_ns = 0;
}

bool vmlife_wanted(const struct agent *a, const struct vm *v)
{
	uint32_t move = place_move(a, v);

	/* Ignored, so that nobody starts it while it runs unprotected, and whatever is cut off in between leaves it so. */
	if (v->foreign)
		return v->in_catalog && v->def.desired == DESIRED_IGNORED && !v->called_off && !agent_node_emptied(a, a->opt.self);
	return v->in_catalog && v->def.desired == DESIRED_STARTED && !agent_node_emptied(a, a->opt.self) && (move == 0 || move == a->opt.self);
}

bool agent_held(const struct agent *a, const struct vm *v)
{
	if (!v->in_catalog || a->pause == PAUSE_NONE)
		return v->in_catalog && (v->def.desired == DESIRED_IGNORED || v->def.frozen);
	if (v->def.frozen)
		return true;
	return a->pause == PAUSE_FREEZE || v->def.desired == DESIRED_IGNORED || v->def.move.node == 0 || v->def.move.back;
}

/* What runs here runs on as before, and is none of ours. */
static void not_taken_in(struct agent *a, struct vm *v, uint32_t holder)
{
	struct agent_action *act;

	if (!v->foreign)
		return;
	v->foreign = false;
	act = agent_act(a, AGENT_ACT_TAKE_IN);
	act->vm = v;
	act->node = holder;
}

void vmlife_given_up(struct agent *a, struct vm *v, enum claim_state to)
{
	vmlife_move(a, v, VM_RELEASING);
	claimer_want(a, v->def.uuid, WANT_GIVE_UP, to);
}

/* to: RELEASED or FAILED if it may have run and is proven quiet; NONE or UNCLEAN if this claim never started it. */
static void give_up(struct agent *a, struct vm *v, enum claim_state to)
{
	/* A QEMU that is not taken in may write on: whoever is told to start it all the same drains at least. */
	if (v->foreign)
		to = CLAIM_UNCLEAN;
	not_taken_in(a, v, 0);
	if (v->reservation.keyed && (to == CLAIM_RELEASED || to == CLAIM_FAILED)) {
		reserve_leave(a, v, to);
		return;
	}
	reserve_quit(a, v);
	vmlife_given_up(a, v, to);
}

/* Whether a start must wait for others of this node: so many at a time, those of higher priority first. */
static bool others_first(const struct agent *a, const struct vm *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->vm_end; i++) {
		const struct vm *o = &a->vm[i];

		n += o->used && o != v && (o->state == VM_STARTING || o->state == VM_RESERVING || (o->state == VM_DRAINING && o->queued && o->def.priority > v->def.priority));
	}
	return a->opt.starts_per_node != 0 && n >= a->opt.starts_per_node && !MUTANT(STARTS_AT_ONCE);
}

/* The gate was closed since this claim was last seen to be ours: others may have taken it for void. */
bool vmlife_must_confirm(struct agent *a, struct vm *v)
{
	if (v->term == agent_term(a) || agent_term(a) == 0) /* 0: the launcher will be refused */
		return false;
	agent_note(a, NOTE_VM_CONFIRM, v, 0);
	vmlife_move(a, v, VM_CLAIMING);
	v->queued = false;
	v->ours_before = true;
	claimer_want(a, v->def.uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
	return true;
}

static void launch(struct agent *a, struct vm *v)
{
	vmlife_move(a, v, VM_STARTING);
	v->queued = false;
	v->quit_sent = v->kill_sent = false;
	v->undrained_ns = v->full_drain ? 0 : a->now_ns + agent_ms(a->opt.timing.drain_ms);
	agent_act(a, AGENT_ACT_START)->vm = v;
}

void vmlife_refused(struct agent *a, struct vm *v)
{
	agent_note(a, NOTE_VM_REFUSED, v, 0);
	vmlife_move(a, v, VM_RESTARTING);
	v->queued = false;
	v->retry_ns = a->now_ns + agent_ms(GATE_RETRY_MS);
}

/* quiet: nothing of an earlier QEMU can land. */
static void start(struct agent *a, struct vm *v, bool quiet)
{
	if (vmlife_must_confirm(a, v))
		return;
	if (v->foreign) {
		vmlife_move(a, v, VM_STARTING);
		v->kill_sent = false;
		agent_act(a, AGENT_ACT_TAKE_IN)->vm = v;
		a->action[a->n_actions - 1].on = true;
		return;
	}
	if (others_first(a, v)) {
		vmlife_move(a, v, VM_DRAINING);
		v->queued = true;
		v->release_as = CLAIM_NONE;
		v->full_drain = quiet;
		return;
	}
	if (a->opt.reserve && !agent_gate_open(a)) /* somebody else may own its LUNs by now, and would be cut off from them */
		vmlife_refused(a, v);
	else if (a->opt.reserve)
		reserve_start(a, v, quiet);
	else
		launch(a, v);
}

/* Waits until no write of an earlier qemu can land: after another node's death a probe and T_drain, after one of our own only until this host
 * sends nothing more of it. release_as: what follows; NONE means start. */
static void drain(struct agent *a, struct vm *v, bool full, enum claim_state release_as)
{
	struct agent_action *act;

	vmlife_move(a, v, VM_DRAINING);
	v->queued = false;
	v->release_as = release_as;
	v->full_drain = full;
	v->then_full = v->notes_only = false;
	act = agent_act(a, AGENT_ACT_DRAIN);
	act->vm = v;
	act->on = full;
}

/* Of one whose QEMU has died on this very host by itself: what the host still sends for it may be on its way long after storage has answered a new connection.
 * First the host must be silent, then storage is asked, and T_drain passes. */
static void drain_own(struct agent *a, struct vm *v, enum claim_state release_as)
{
	drain(a, v, false, release_as);
	v->then_full = true;
}

/* Nothing of its own is on the way: its last QEMU has waited for its last write, or there was none under this claim. What somebody else of this host may still write for
 * one before that is nothing to a start here, by the same client, but another node must not have the VM as long. */
static void leave_quiet(struct agent *a, struct vm *v, enum claim_state release_as)
{
	drain(a, v, false, release_as);
	v->notes_only = true;
}

bool vmlife_waits_in_vain(const struct agent *a, const struct vm *v)
{
	return v->state == VM_DRAINING && v->notes_only && a->now_ns - v->since_ns > agent_ms(QUIET_MS);
}

void vmlife_reserved(struct agent *a, struct vm *v)
{
	if (vmlife_must_confirm(a, v)) /* it has taken its time */
		return;
	if (vmlife_wanted(a, v))
		launch(a, v);
	else if (!v->full_drain)
		drain(a, v, true, CLAIM_RELEASED);
	else
		leave_quiet(a, v, CLAIM_RELEASED);
}

bool vmlife_assign(struct agent *a, struct vm *v)
{
	if (place_possible(a, v, a->opt.self) != PLACE_FITS)
		return false; /* the leader does not know yet what this node has */
	if (v->state != VM_IDLE || !vmlife_wanted(a, v) || v->def.frozen || agent_behind(a) || !agent_gate_open(a) || claimer_pending(a, v->def.uuid))
		return false;
	v->unclean = false;
	vmlife_move(a, v, VM_CLAIMING);
	claimer_want(a, v->def.uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
	return true;
}

bool vmlife_take_back(struct agent *a, struct vm *v)
{
	if (v->state != VM_CLAIMING || v->ours_before || v->foreign || !claimer_take_back(a, v->def.uuid))
		return false;
	vmlife_move(a, v, VM_IDLE);
	reserve_quit(a, v);
	return true;
}

/* Claimed as for a start: it must run nowhere else. */
void vmlife_take_in(struct agent *a, struct vm *v, bool on)
{
	if (!on) {
		v->called_off = v->foreign;
		if (v->foreign && v->state == VM_DRAINING)
			give_up(a, v, CLAIM_UNCLEAN);
		return;
	}
	v->foreign = true;
	v->called_off = false;
	if (!a->adopted || v->state != VM_IDLE || !vmlife_wanted(a, v) || v->def.frozen || agent_behind(a) || !agent_gate_open(a) || claimer_pending(a, v->def.uuid) ||
	    place_possible(a, v, a->opt.self) != PLACE_FITS) {
		not_taken_in(a, v, 0);
		return;
	}
	v->asked_until_ns = 0;
	v->unclean = false;
	vmlife_move(a, v, VM_CLAIMING);
	if (MUTANT(TAKEN_IN_UNCLAIMED)) {
		v->term = agent_term(a);
		start(a, v, true);
		return;
	}
	claimer_want(a, v->def.uuid, WANT_ACQUIRE, CLAIM_ACTIVE);
}

bool vmlife_withdraw(struct agent *a, const uint8_t uuid[16], bool unclean)
{
	struct vm *v = memcmp(uuid, agent_leader_uuid, 16) == 0 ? NULL : agent_vm_by_uuid(a, uuid);

	if (!v || v->state != VM_CLAIMING || !v->ours_before || !unclean)
		return false;
	v->ours_before = false;
	drain(a, v, false, CLAIM_UNCLEAN);
	return true;
}

void vmlife_claim_result(struct agent *a, const uint8_t uuid[16], enum claim_result result, uint64_t generation, bool unclean, uint32_t node)
{
	struct vm *v;
	bool before;

	if (memcmp(uuid, agent_leader_uuid, 16) == 0) {
		lead_claim_result(a, result, generation);
		return;
	}
	v = agent_vm_by_uuid(a, uuid);
	if (!v || migrate_claim_result(a, v, result, generation))
		return;
	if (result == CLAIM_GIVEN_UP) {
		if (v->state != VM_RELEASING)
			return;
		vmlife_move(a, v, VM_IDLE);
		agent_note(a, NOTE_VM_GIVEN_UP, v, 0);
		return;
	}
	if (v->state != VM_CLAIMING)
		return;
	before = v->ours_before;
	v->ours_before = false;
	if (result != CLAIM_GRANTED) {
		vmlife_move(a, v, VM_IDLE);
		reserve_quit(a, v); /* beside whoever has it now our key would let through what may yet come of us */
		/* Most often the leader knew of the holder's death a moment before us: the news is on its way. */
		if (result == CLAIM_BUSY && a->now_ns + agent_ms(BUSY_AGAIN_MS) < v->asked_until_ns)
			agent_ask(a, uuid, a->now_ns + agent_ms(BUSY_AGAIN_MS), v->asked_until_ns, false);
		else
			agent_note(a, result == CLAIM_BUSY ? NOTE_VM_BUSY : NOTE_VM_CONFLICT, v, node);
		not_taken_in(a, v, node);
		return;
	}
	v->generation = generation;
	v->unclean = unclean;
	v->health.resets = 0; /* of when it was here before: it was stopped, or elsewhere, since */
	agent_note(a, NOTE_VM_CLAIMED, v, a->opt.self);
	if (!vmlife_wanted(a, v) && unclean && before)
		drain(a, v, false, CLAIM_UNCLEAN);
	else if (!vmlife_wanted(a, v))
		give_up(a, v, unclean && !MUTANT(UNCLEAN_FORGOTTEN) ? CLAIM_UNCLEAN : CLAIM_NONE);
	else if (unclean && !MUTANT(NOT_DRAINED))
		drain(a, v, !before, CLAIM_NONE); /* if it ran here, this host must be silent first */
	else
		start(a, v, true);
}

static void forget_old_failures(struct agent *a, struct vm *v)
{
	while (v->failures > 0 && a->now_ns - v->failure_ns[v->failures - 1] > agent_ms(v->def.restart_window_ms))
		v->failures--;
}

static void failed(struct agent *a, struct vm *v)
{
	bool killed = v->state == VM_RUNNING && v->health.kill_ns != 0, elsewhere = killed && v->health.elsewhere;

	v->last_failure = killed ? v->health.ending : TROUBLE_NONE;
	v->health.resets = 0; /* what they led to has come */
	v->migration.phase = MIGRATE_NONE;
	if (agent_held(a, v)) { /* it stays down, and ours, until somebody says what is to become of it */
		vmlife_move(a, v, VM_RESTARTING);
		return;
	}
	if (v->def.restart == RESTART_NEVER) {
		vmlife_move(a, v, VM_RESTARTING);
		v->guest_off = v->off_failed = true;
		v->retry_ns = a->now_ns + agent_ms(STAYS_DOWN_MS);
		return;
	}
	forget_old_failures(a, v);
	memmove(&v->failure_ns[1], &v->failure_ns[0], sizeof(v->failure_ns) - sizeof(v->failure_ns[0]));
	v->failure_ns[0] = a->now_ns;
	v->failures = MIN(v->failures + 1, AGENT_MAX_RESTARTS);
	if (v->failures > v->def.restart_limit || elsewhere) {
		agent_note(a, NOTE_VM_FAILED, v, 0);
		v->failed_ns = a->now_ns;
		v->failures = 0;
		/* The next owner takes a failed one for quiet. Where its storage does not answer that cannot be shown here, but is shown there. */
		if (elsewhere && v->last_failure == TROUBLE_IO_ERROR)
			drain(a, v, false, CLAIM_UNCLEAN);
		else if (MUTANT(FAILED_UNDRAINED))
			drain(a, v, false, CLAIM_FAILED);
		else
			drain_own(a, v, CLAIM_FAILED);
		return;
	}
	agent_note(a, NOTE_VM_RESTART, v, v->failures);
	vmlife_move(a, v, VM_RESTARTING);
	v->retry_ns = a->now_ns + agent_ms(BACKOFF_MS * (v->failures - 1));
}

void vmlife_again(struct agent *a, struct vm *v, int64_t wait_ns)
{
	v->health.resets = 0;
	v->migration.phase = MIGRATE_NONE;
	vmlife_move(a, v, VM_RESTARTING);
	v->queued = false;
	v->retry_ns = a->now_ns + wait_ns;
}

/* Nodes that gave it up as failed come last, so that each is tried in turn. Where that would count against the VM, it is unclean, which ranks them so until the VM runs. */
void vmlife_elsewhere(struct agent *a, struct vm *v)
{
	if (agent_held(a, v)) {
		vmlife_again(a, v, 0);
	} else if (v->def.failed_limit != 0) {
		leave_quiet(a, v, CLAIM_UNCLEAN);
	} else {
		agent_note(a, NOTE_VM_FAILED, v, 0);
		v->failed_ns = a->now_ns;
		drain_own(a, v, CLAIM_FAILED);
	}
}

static void stop(struct agent *a, struct vm *v)
{
	agent_note(a, NOTE_VM_STOPPING, v, 0);
	vmlife_move(a, v, VM_STOPPING);
	v->migration.phase = MIGRATE_NONE;
	v->quit_sent = v->kill_sent = false;
	agent_act(a, AGENT_ACT_POWERDOWN)->vm = v;
	if (MUTANT(UNREGISTERED_EARLY))
		reserve_quit(a, v);
	if (MUTANT(RELEASED_BEFORE_STOP))
		claimer_want(a, v->def.uuid, WANT_GIVE_UP, CLAIM_RELEASED);
}

static void on_gone(struct agent *a, struct vm *v, enum vm_exit how)
{
	bool off = how == VM_EXIT_GUEST_OFF || how == VM_EXIT_OFF_KILLED;

	v->going_on = v->migration.unanswered = false;
	if (migrate_gone(a, v))
		return;
	switch (v->state) {
	case VM_STARTING:
		if (v->foreign) {
			if (how == VM_EXIT_REFUSED) {
				give_up(a, v, CLAIM_UNCLEAN);
				break;
			}
			not_taken_in(a, v, 0);
			drain_own(a, v, CLAIM_RELEASED);
			break;
		}
		if (how == VM_EXIT_REFUSED) {
			vmlife_refused(a, v);
			return;
		}
		if (!reserve_ended(a, v))
			failed(a, v);
		break;
	case VM_RUNNING:
		if (!off && reserve_ended(a, v))
			return;
		if (how == VM_EXIT_RESET && !agent_held(a, v) && v->health.kill_ns == 0 && !health_reset_loop(a, v)) {
			vmlife_move(a, v, VM_RESTARTING); /* a reboot is no failure */
			v->retry_ns = a->now_ns;
			return;
		}
		if (!off || (v->def.restart == RESTART_ALWAYS && v->def.desired == DESIRED_STARTED)) {
			failed(a, v);
			return;
		}
		/* The claim is kept until the catalog says "stopped": given up earlier, the leader would start it again. */
		agent_note(a, NOTE_VM_STOPPED, v, 0);
		vmlife_move(a, v, VM_RESTARTING);
		v->off_failed = false;
		v->off_killed = how == VM_EXIT_OFF_KILLED || v->health.kill_ns != 0 || a->now_ns < v->undrained_ns;
		v->guest_off = v->def.desired == DESIRED_STARTED && v->leave_ns == 0; /* of a VM that is ignored nobody has a say; or we have told its guest to power off */
		v->retry_ns = a->now_ns;
		break;
	case VM_STOPPING:
		agent_note(a, NOTE_VM_STOPPED, v, 0);
		if ((how == VM_EXIT_GUEST_OFF || how == VM_EXIT_QUIT) && !v->kill_sent && v->health.kill_ns == 0 && a->now_ns >= v->undrained_ns)
			leave_quiet(a, v, CLAIM_RELEASED); /* QEMU itself waited for its last write */
		else
			drain_own(a, v, CLAIM_RELEASED);
		break;
	default:
		break;
	}
}

static void on_drained(struct agent *a, struct vm *v)
{
	if (v->state != VM_DRAINING || v->queued)
		return;
	if (v->then_full)
		drain(a, v, true, v->release_as);
	else if (v->release_as != CLAIM_NONE)
		give_up(a, v, v->release_as);
	else if (vmlife_wanted(a, v) && v->unclean && !v->full_drain)
		drain(a, v, true, CLAIM_NONE);
	else if (vmlife_wanted(a, v))
		start(a, v, v->full_drain);
	else if (!v->full_drain)
		drain(a, v, true, CLAIM_RELEASED); /* this host is silent, which is enough for us; not for the next owner */
	else
		leave_quiet(a, v, CLAIM_RELEASED); /* quiet, and never started */
}

/* How far it was where it came from: no boot is waited for. */
static bool has_arrived(const struct vm *v) { return v->migration.ready >= (v->def.health.has_check ? READY_CHECK : READY_AGENT); }

/* Its QEMU does not say that its guest goes on: it takes its disks, and waits for its storage. It may go on at any moment, and is ours: whether it hangs is judged
 * as of any other, by HangTimeout= and what its storage says. */
static void unanswered(struct agent *a, struct vm *v)
{
	v->unclean = false;
	v->health.resets = 0;
	v->migration.phase = MIGRATE_NONE;
	v->migration.unanswered = true;
	vmlife_move(a, v, VM_RUNNING);
	reserve_own(a, v);
	health_begin(a, v, has_arrived(v));
	v->health.found = true;
}

static void on_started(struct agent *a, struct vm *v)
{
	if (v->state == VM_RUNNING && v->migration.unanswered) {
		agent_note(a, NOTE_VM_MIGRATED, v, a->opt.self);
		health_answered(a, &v->health); /* at last: it does not hang */
	}
	v->migration.unanswered = false;
	v->going_on = false;
	if (v->state == VM_STARTING) {
		bool migrated = v->migration.phase == MIGRATE_LOADED, foreign = v->foreign;

		v->foreign = false;
		agent_note(a, foreign ? NOTE_VM_TAKEN_IN : migrated ? NOTE_VM_MIGRATED : v->unclean && v->generation > 1 ? NOTE_VM_RECOVERED : NOTE_VM_STARTED, v, a->opt.self);
		v->unclean = false;
		v->health.resets = migrated ? 0 : v->health.resets;
		v->migration.phase = MIGRATE_NONE;
		vmlife_move(a, v, VM_RUNNING);
		if (migrated)
			reserve_own(a, v);
		health_begin(a, v, foreign || (migrated && has_arrived(v)));
		if (v->reservation.lost && !agent_held(a, v)) /* it was told to end, perhaps before its process was there */
			health_end(a, v, TROUBLE_RESERVATION);
	}
}

void vmlife_event(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	switch (ev->kind) {
	case AGENT_EV_DRAINED:
		on_drained(a, v);
		break;
	case AGENT_EV_STARTED:
		on_started(a, v);
		break;
	case AGENT_EV_EXIT:
		on_gone(a, v, ev->exit);
		break;
	case AGENT_EV_CONTINUED:
		v->going_on = false;
		health_stood_still(a, &v->health);
		break;
	case AGENT_EV_HEALTH:
	case AGENT_EV_STORAGE:
		health_event(a, v, ev);
		break;
	case AGENT_EV_RESERVED:
		reserve_event(a, v, ev);
		break;
	case AGENT_EV_OFFER:
	case AGENT_EV_MIGRATION:
		migrate_event(a, v, ev);
		break;
	default:
		break;
	}
}

static void tick_stopping(struct agent *a, struct vm *v)
{
	int64_t since = a->now_ns - v->since_ns, limit = agent_ms(v->def.stop_timeout_ms);

	if (!v->quit_sent && since >= limit) {
		v->quit_sent = true;
		agent_act(a, AGENT_ACT_QUIT)->vm = v;
	}
	if (since >= limit + agent_ms(QUIT_MS) && a->now_ns >= v->retry_ns) {
		v->kill_sent = true;
		v->retry_ns = a->now_ns + agent_ms(KILL_AGAIN_MS);
		agent_act(a, AGENT_ACT_KILL)->vm = v;
	}
}

/* Whether the catalog is still to say so: also of a VM that was to leave this node, or it would be started on the next one. Where the host goes down it may be that which
 * has ended QEMU; and with nobody to edit the catalog there is nothing to wait for. */
static bool stays_down(const struct agent *a, const struct vm *v)
{
	return v->in_catalog && v->def.desired == DESIRED_STARTED && !a->leave.alone && !(v->off_failed && a->leave.going);
}

/* Asks for the catalog's edit until it is there: the leader may just be changing. */
static void tick_guest_off(struct agent *a, struct vm *v, bool unsaid)
{
	if (!unsaid) {
		v->guest_off = false;
		/* Powered off, QEMU has waited for its last write; one that failed, or was killed meanwhile, must be proven quiet. */
		if ((v->off_failed || v->off_killed) && !MUTANT(STAYS_DOWN_UNDRAINED))
			drain_own(a, v, CLAIM_RELEASED);
		else
			leave_quiet(a, v, CLAIM_RELEASED);
	} else if (a->now_ns >= v->retry_ns && (!v->off_failed || agent_gate_open(a))) {
		if (v->off_failed && a->now_ns - v->since_ns < agent_ms(STAYS_DOWN_MS + GUEST_OFF_AGAIN_MS))
			agent_note(a, NOTE_VM_STAYS_DOWN, v, 0);
		v->retry_ns = a->now_ns + agent_ms(GUEST_OFF_AGAIN_MS);
		agent_act(a, AGENT_ACT_GUEST_OFF)->vm = v;
	}
}

/* What failed here may be tried here again once an operator has said "stop", or after the window. With a limit of nodes that may fail, a VM that
 * nobody runs keeps its failures: they are what says that it is given up. */
static bool may_forget_failure(const struct agent *a, const struct vm *v)
{
	const struct claim *own = claimer_own(a, v->def.uuid);

	if (!own || own->state != CLAIM_FAILED || claimer_pending(a, v->def.uuid))
		return false;
	if (v->in_catalog && v->def.desired == DESIRED_STOPPED)
		return true;
	return a->now_ns - v->failed_ns > agent_ms(v->def.restart_window_ms) && (v->def.failed_limit == 0 || agent_owner(a, v->def.uuid) != 0);
}

/* In maintenance a VM that nobody else can take runs on: shutting it down would help nobody. A host that goes down does not wait for it. So does one that no other node may have
 * yet, nor if an operator asks for that. */
static bool must_stay(struct agent *a, struct vm *v)
{
	uint32_t self = a->opt.self;
	bool stays = v->stays, held = v->health.held;

	if (a->leave.alone || (a->leaving[self - 1] != 0 && a->epoch <= a->leaving[self - 1]) || !v->in_catalog || v->def.desired != DESIRED_STARTED ||
	    (!held && (!(a->maintenance >> (self - 1) & 1) || place_move(a, v) != 0))) {
		v->stays = false;
		return false;
	}
	if (held) {
		v->stays = true;
		v->migration.wait_ns = a->now_ns;
		if (!stays)
			agent_note(a, NOTE_VM_HELD, v, 0);
		if (place_move(a, v) != 0)
			migrate_withdraw(a, v);
		return true;
	}
	/* Of all of them together: where there is room for one of two, one stays. */
	if (a->plan_ns == 0 || a->now_ns - a->plan_ns >= agent_ms(PLACE_LOOK_MS)) {
		lead_plan(a);
		a->plan_ns = a->now_ns;
	}
	v->stays = v->planned == 0;
	if (v->stays)
		v->migration.wait_ns = a->now_ns; /* whoever can take it has a minute to do so as it runs */
	if (v->stays && !stays)
		agent_note(a, NOTE_VM_STAYS, v, 0);
	return v->stays;
}

void vmlife_tick(struct agent *a, struct vm *v)
{
	const struct claim *own;

	switch (v->state) {
	case VM_RUNNING:
		if (!migrate_leaves(a, v, vmlife_wanted(a, v) || agent_held(a, v)) && !must_stay(a, v)) {
			if (v->in_catalog && v->def.desired == DESIRED_STARTED && !agent_node_emptied(a, a->opt.self))
				agent_note(a, NOTE_VM_MOVING, v, v->def.move.node);
			stop(a, v);
			break;
		}
		health_tick(a, v);
		reserve_tick(a, v);
		break;
	case VM_RESERVING:
	case VM_UNRESERVING:
		reserve_tick(a, v);
		break;
	case VM_DRAINING:
		if (v->queued) {
			if (!vmlife_wanted(a, v) && v->full_drain)
				leave_quiet(a, v, CLAIM_RELEASED);
			else if (!vmlife_wanted(a, v))
				drain(a, v, true, CLAIM_RELEASED);
			else if (!agent_held(a, v))
				start(a, v, v->full_drain);
			break;
		}
		/* What holds it back is nothing to a start here. One that was to start elsewhere has waited for it as long as for anything else. */
		if (!v->full_drain && !v->foreign && vmlife_wanted(a, v) && !agent_held(a, v) &&
		    (v->release_as == CLAIM_RELEASED || (v->notes_only && a->now_ns - v->since_ns > agent_ms(QUIET_MS)))) {
			vmlife_again(a, v, 0);
			break;
		}
		/* Its storage is away from this node, perhaps from this node alone: whoever takes the VM proves it quiet instead. That goes for a start, too, or nobody
		 * else would be asked for one. */
		if (v->full_drain && a->now_ns - v->since_ns > agent_ms(a->opt.timing.drain_ms + QUIET_MS)) {
			agent_note(a, NOTE_VM_UNQUIET, v, 0);
			if (MUTANT(UNQUIET_RELEASED))
				drain(a, v, false, v->release_as == CLAIM_NONE ? CLAIM_RELEASED : v->release_as);
			else
				drain(a, v, false, CLAIM_UNCLEAN);
		}
		break;
	case VM_STARTING:
		if (v->migration.phase == MIGRATE_LOADED && !MUTANT(GO_ON_STUCK)) {
			if (a->now_ns - v->since_ns >= agent_ms(GO_ON_MS))
				unanswered(a, v);
			break;
		}
		if (!v->foreign && a->now_ns - v->since_ns > agent_ms(STUCK_MS)) {
			v->since_ns = a->now_ns;
			agent_act(a, AGENT_ACT_KILL)->vm = v; /* its exit, or its start, is still to come */
		}
		break;
	case VM_STOPPING:
		tick_stopping(a, v);
		break;
	case VM_RESTARTING:
		if (agent_held(a, v))
			break;
		if (v->guest_off) {
			tick_guest_off(a, v, stays_down(a, v));
			break;
		}
		if (!vmlife_wanted(a, v))
			drain_own(a, v, CLAIM_RELEASED);
		else if (a->now_ns >= v->retry_ns && agent_gate_open(a))
			drain(a, v, false, CLAIM_NONE);
		break;
	case VM_IDLE:
		own = claimer_own(a, v->def.uuid);
		if (own && own->state == CLAIM_ACTIVE && !claimer_pending(a, v->def.uuid))
			drain(a, v, false, CLAIM_UNCLEAN); /* nobody runs under it; somebody may have */
		if (v->failed_ns != 0 && may_forget_failure(a, v)) {
			v->failed_ns = 0;
			claimer_want(a, v->def.uuid, WANT_GIVE_UP, CLAIM_RELEASED);
		}
		break;
	default:
		migrate_tick(a, v);
		break;
	}
}

void vmlife_lost_lease(struct agent *a, struct vm *v)
{
	if (v->state == VM_IDLE)
		return;
	agent_note(a, NOTE_VM_LOST, v, 0);
	v->queued = false;
	v->state = VM_IDLE; /* from wherever it was: the keeper has killed it and the epoch of its claim is over */
	v->since_ns = a->now_ns;
	v->failures = 0;
	v->term = 0;
	v->guest_off = false;
	v->health.kill_ns = 0;
	v->going_on = v->migration.unanswered = false;
	v->migration.phase = MIGRATE_NONE;
	v->migration.id = 0;
	reserve_quit(a, v);
	not_taken_in(a, v, 0);
}

int64_t vmlife_deadline(const struct agent *a, const struct vm *v)
{
	switch (v->state) {
	case VM_STOPPING:
		if (!v->quit_sent)
			return v->since_ns + agent_ms(v->def.stop_timeout_ms);
		return v->kill_sent ? v->retry_ns : v->since_ns + agent_ms(v->def.stop_timeout_ms + QUIT_MS);
	case VM_RESTARTING:
		return agent_gate_open(a) && !agent_held(a, v) ? v->retry_ns : INT64_MAX;
	case VM_RESERVING:
	case VM_UNRESERVING:
		return reserve_deadline(v);
	case VM_STARTING:
		if (v->migration.phase == MIGRATE_LOADED)
			return v->since_ns + agent_ms(GO_ON_MS);
		return v->foreign ? INT64_MAX : v->since_ns + agent_ms(STUCK_MS); /* who takes it in knows what is the matter with systemd */
	default:
		return INT64_MAX;
	}
}
