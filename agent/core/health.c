/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running guest: what is the matter with it, and what is done about it.
 *
 * The shell brings facts only: QEMU has answered, the guest's agent has, a check of the service was good or bad. That nothing was heard is judged
 * here, by the time since, and only while this agent itself looked all the time. Whatever ends a guest for its good kills QEMU and goes on from its
 * exit, as after a crash (vmlife.c): so limits, back-off and the proofs before a start are the same. One fact above all others: a guest is ended
 * because of QEMU's silence only if its storage answers: while storage is away for everybody, guests stall and nobody is reset.
 */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define GAP_MS 3000          /* between two steps: longer means that nobody looked */
#define HEARD_MS 15000       /* QEMU's last answer: the guest's silence means something only after one as young as this */
#define START_MS 10000       /* until QEMU's first answer, as in agent/runner.c: its silence counts from then on */
#define PROBE_AGAIN_MS 2000
#define STORAGE_FRESH_MS 5000
#define STORAGE_BACK_MS 5000 /* a QEMU whose storage is back has so long to find that out, and a node that others are ahead of */
#define CONT_MIN_MS 1000
#define CONT_MAX_MS 30000
#define KILL_AGAIN_MS 30000
#define KILLS_TOLD 3         /* what so many do not end only its node's end will */
#define RESET_BURST_MS 1000  /* a guest that reboots asks for it several times, and QEMU tells each */

static const struct {
	const char *name, *text;
} troubles[TROUBLE_COUNT] = {
	[TROUBLE_NONE] = { "", "its QEMU has ended" },
	[TROUBLE_HUNG] = { "hung", "QEMU does not answer, though its process lives" },
	[TROUBLE_PANIC] = { "panicked", "its guest has panicked" },
	[TROUBLE_INTERNAL_ERROR] = { "internal-error", "QEMU cannot go on with its guest (internal-error)" },
	[TROUBLE_WATCHDOG] = { "watchdog", "its guest's own watchdog has run out" },
	[TROUBLE_RESETS] = { "reset-loop", "its guest resets again and again" },
	[TROUBLE_IO_ERROR] = { "io-error", "stopped by an error of its storage, or by a full disk" },
	[TROUBLE_NOT_BOOTED] = { "not-booted", "its guest is not up within BootTimeout=" },
	[TROUBLE_SILENT] = { "silent", "its guest's agent has fallen silent" },
	[TROUBLE_CHECK] = { "check-failed", "the check of its service has failed too often" },
	[TROUBLE_RESERVATION] = { "not-reserved", "its disks are not, or no more, reserved for it (SCSI-3 persistent reservations)" },
};

const char *vm_trouble_name(enum vm_trouble t) { return (size_t)t < TROUBLE_COUNT ? troubles[t].name : ""; }
const char *vm_trouble_text(enum vm_trouble t) { return (size_t)t < TROUBLE_COUNT ? troubles[t].text : ""; }

const char *vm_ready_name(enum vm_ready r)
{
	static const char *const name[] = { "no", "running", "agent", "check" };

	return (size_t)r < ARRAY_SIZE(name) ? name[r] : "no";
}

static void booted(struct agent *a, struct vm_health *h)
{
	h->boot_ns = a->now_ns;
	h->pinged = h->checked = h->panicked = h->arrived = false;
	h->check_bad = 0;
}

void health_begin(struct agent *a, struct vm *v, bool arrived)
{
	struct vm_health *h = &v->health;
	unsigned resets = h->resets;
	int64_t reset_ns[AGENT_MAX_RESETS];

	memcpy(reset_ns, h->reset_ns, sizeof(reset_ns));
	memset(h, 0, sizeof(*h));
	/* Resets that end QEMU (-no-reboot) are counted over its lives. */
	h->resets = resets;
	memcpy(h->reset_ns, reset_ns, sizeof(reset_ns));
	h->answer_ns = a->now_ns;
	booted(a, h);
	h->arrived = arrived;
}

void health_unwatched(struct vm *v, int64_t ns)
{
	struct vm_health *h = &v->health;

	h->answer_ns += ns;
	h->boot_ns += ns;
	h->ping_ns += ns;
	h->trouble_ns += ns;
}

void health_gap(struct agent *a, int64_t gap_ns)
{
	if (gap_ns <= agent_ms(GAP_MS) || MUTANT(GAP_COUNTS_FOR_HEALTH))
		return;
	for (unsigned i = 0; i < a->vm_end; i++)
		health_unwatched(&a->vm[i], gap_ns);
}

static bool can_answer(const struct vm_health *h) { return h->run == GUEST_RUNS || h->run == GUEST_UNKNOWN; }

enum vm_ready health_ready(const struct vm *v)
{
	const struct vm_health *h = &v->health;

	/* What an agent has found may be no QEMU yet, and one that it has started itself may hang in opening its disks. */
	if (v->state != VM_RUNNING || !h->heard || h->kill_ns != 0 || (!can_answer(h) && h->run != GUEST_ASLEEP))
		return READY_NOT;
	if (!h->pinged)
		return READY_RUNNING;
	return h->checked ? READY_CHECK : READY_AGENT;
}

static bool reset_loop(const struct agent *a, const struct vm *v)
{
	const struct health_policy *p = &v->def.health;
	const struct vm_health *h = &v->health;

	return p->reset_limit != 0 && h->resets > p->reset_limit && a->now_ns - h->reset_ns[p->reset_limit] <= agent_ms(p->reset_window_ms);
}

bool health_reset_loop(struct agent *a, struct vm *v)
{
	const struct health_policy *p = &v->def.health;
	struct vm_health *h = &v->health;

	if (h->resets > 0 && a->now_ns - h->reset_ns[0] < agent_ms(RESET_BURST_MS))
		return reset_loop(a, v);
	while (h->resets > 0 && a->now_ns - h->reset_ns[h->resets - 1] > agent_ms(p->reset_window_ms))
		h->resets--;
	memmove(&h->reset_ns[1], &h->reset_ns[0], sizeof(h->reset_ns) - sizeof(h->reset_ns[0]));
	h->reset_ns[0] = a->now_ns;
	h->resets = MIN(h->resets + 1, AGENT_MAX_RESETS);
	return reset_loop(a, v);
}

void health_answered(const struct agent *a, struct vm_health *h)
{
	h->answer_ns = a->now_ns;
	h->heard = true;
	h->found = false;
}

void health_stood_still(const struct agent *a, struct vm_health *h)
{
	h->boot_ns = MAX(h->boot_ns, a->now_ns);
	h->ping_ns = a->now_ns;
}

static void take_state(struct agent *a, struct vm_health *h, enum guest_run run)
{
	if (!can_answer(h) || (run != GUEST_RUNS && run != GUEST_UNKNOWN))
		health_stood_still(a, h);
	health_answered(a, h);
	h->run = run;
	if (run == GUEST_RUNS || run == GUEST_ASLEEP || run == GUEST_PAUSED) /* in the last part of a migration QEMU says only that of it */
		h->still = run == GUEST_PAUSED;
}

static void take_fact(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	struct vm_health *h = &v->health;

	switch (ev->fact) {
	case HEALTH_STATE:
		take_state(a, h, ev->run);
		h->held = ev->held;
		if (ev->run == GUEST_SENT && v->migration.phase == MIGRATE_NONE && !v->migration.kept && !v->going_on)
			migrate_lost(a, v);
		break;
	case HEALTH_PING:
		h->pinged = true;
		h->ping_ns = a->now_ns;
		break;
	case HEALTH_CHECK_GOOD:
		h->checked = true;
		h->check_bad = 0;
		break;
	case HEALTH_CHECK_BAD:
		h->check_bad += h->checked; /* a service that was never up is for BootTimeout= to judge */
		break;
	case HEALTH_PANIC:
		h->panicked = true;
		break;
	case HEALTH_RESET:
		booted(a, h);
		if (ev->ok)
			(void)health_reset_loop(a, v); /* find_trouble() looks */
		break;
	}
}

/* Its guest has powered itself off, or reboots under -no-reboot, and -no-shutdown keeps the process: nothing of it will ever run again. */
static void end_kept(struct agent *a, struct vm *v)
{
	if (!agent_held(a, v) && v->migration.phase <= MIGRATE_SENDING)
		agent_act(a, AGENT_ACT_QUIT)->vm = v; /* with each answer until it has ended */
}

static bool storage_answers(const struct agent *a, const struct vm_health *h)
{
	return h->storage_ns != 0 && a->now_ns - h->storage_ns <= agent_ms(STORAGE_FRESH_MS);
}

void health_event(struct agent *a, struct vm *v, const struct agent_event *ev)
{
	if (ev->kind == AGENT_EV_HEALTH && ev->fact == HEALTH_STATE && ev->run == GUEST_OVER && (v->state == VM_RUNNING || v->state == VM_STOPPING))
		end_kept(a, v);
	if (v->state != VM_RUNNING)
		return;
	if (ev->kind == AGENT_EV_HEALTH) {
		take_fact(a, v, ev);
	} else if (ev->node == a->opt.self) {
		if (!storage_answers(a, &v->health))
			v->health.answers_ns = a->now_ns;
		v->health.storage_ns = ev->ok ? a->now_ns : 0;
	} else if (ev->ok && v->health.trouble == TROUBLE_IO_ERROR && v->health.storage_ns == 0 && v->def.health.io_elsewhere_ms != 0 &&
		   a->now_ns - v->health.trouble_ns > agent_ms(v->def.health.io_elsewhere_ms)) {
		if (v->health.others_ns == 0 || a->now_ns - v->health.others_ns > agent_ms(STORAGE_FRESH_MS))
			v->health.others_since_ns = a->now_ns;
		v->health.others_ns = a->now_ns;
	}
}

/* Another node has had for a while what this one has not. What comes back for all does not come back for all at the same moment. */
static bool is_elsewhere(const struct agent *a, const struct vm_health *h)
{
	return h->storage_ns == 0 && h->others_ns != 0 && a->now_ns - h->others_ns <= agent_ms(STORAGE_FRESH_MS) &&
	       h->others_ns - h->others_since_ns >= agent_ms(STORAGE_BACK_MS);
}

/* QEMU does not take up a guest again, after a migration that failed, which its storage had stopped before. */
static bool left_behind(const struct vm *v) { return v->health.run == GUEST_SENT && v->migration.phase == MIGRATE_NONE && v->migration.kept; }

static bool is_up(const struct health_policy *p, const struct vm_health *h) { return h->pinged && (h->checked || !p->has_check); }

/* A guest that was up is so, whatever is to be asked of it from now on; one that was not has all the time that it is given now. */
void health_new_policy(const struct agent *a, struct vm *v, const struct health_policy *p)
{
	struct vm_health *h = &v->health;

	if (p->boot_ms == v->def.health.boot_ms && p->has_check == v->def.health.has_check)
		return;
	if (is_up(&v->def.health, h))
		h->arrived = true;
	else
		h->boot_ns = MAX(h->boot_ns, a->now_ns);
}

/* A start takes memory and opens disks first, which may take long. What an agent has found may be at its start, too, but most often is not. */
static uint32_t silence_limit(const struct health_policy *p, const struct vm_health *h)
{
	if (h->heard)
		return p->hang_ms;
	return h->found ? p->hang_ms + START_MS : MAX(p->hang_ms, p->start_ms);
}

static enum vm_trouble find_trouble(const struct agent *a, const struct vm *v)
{
	const struct health_policy *p = &v->def.health;
	const struct vm_health *h = &v->health;

	if (p->hang_ms != 0 && p->hang != REACT_IGNORE && a->now_ns - h->answer_ns > agent_ms(silence_limit(p, h)))
		return TROUBLE_HUNG;
	if (p->panic != REACT_IGNORE && (h->panicked || h->run == GUEST_PANICKED))
		return TROUBLE_PANIC;
	if (h->run == GUEST_INTERNAL_ERROR)
		return TROUBLE_INTERNAL_ERROR;
	if (p->watchdog != REACT_IGNORE && h->run == GUEST_WATCHDOG)
		return TROUBLE_WATCHDOG;
	if (reset_loop(a, v))
		return TROUBLE_RESETS;
	if (p->io_error != REACT_IGNORE && (h->run == GUEST_IO_ERROR || left_behind(v)))
		return TROUBLE_IO_ERROR;
	if (!p->agent || !can_answer(h) || v->going_on || a->now_ns - h->answer_ns > agent_ms(HEARD_MS))
		return TROUBLE_NONE;
	if (p->boot_ms != 0 && !is_up(p, h) && !h->arrived && a->now_ns - h->boot_ns > agent_ms(p->boot_ms))
		return TROUBLE_NOT_BOOTED;
	if (p->silence != REACT_IGNORE && h->pinged && a->now_ns - h->ping_ns > agent_ms(p->silence_ms))
		return TROUBLE_SILENT;
	if (p->check != REACT_IGNORE && p->check_failures != 0 && h->check_bad >= p->check_failures)
		return TROUBLE_CHECK;
	return TROUBLE_NONE;
}

static enum vm_reaction reaction(const struct health_policy *p, enum vm_trouble t)
{
	switch (t) {
	case TROUBLE_HUNG:
		return p->hang;
	case TROUBLE_PANIC:
		return p->panic;
	case TROUBLE_WATCHDOG:
		return p->watchdog;
	case TROUBLE_SILENT:
		return p->silence;
	case TROUBLE_CHECK:
		return p->check;
	case TROUBLE_IO_ERROR:
		return p->io_error;
	default:
		return REACT_RESTART;
	}
}

static void probe(struct agent *a, struct vm *v, bool others)
{
	struct vm_health *h = &v->health;
	struct agent_action *act;

	if (a->now_ns < h->probe_ns)
		return;
	h->probe_ns = a->now_ns + agent_ms(PROBE_AGAIN_MS);
	act = agent_act(a, AGENT_ACT_PROBE);
	act->vm = v;
	act->on = others;
}

static void end(struct agent *a, struct vm *v, bool elsewhere)
{
	struct vm_health *h = &v->health;

	h->ending = h->trouble;
	h->elsewhere = elsewhere;
	h->kill_ns = a->now_ns;
	h->kills = 1;
	agent_note(a, NOTE_VM_ENDED, v, 0);
	agent_act(a, AGENT_ACT_KILL)->vm = v;
}

void health_end(struct agent *a, struct vm *v, enum vm_trouble why)
{
	if (v->health.kill_ns != 0)
		return;
	v->health.trouble = why;
	v->health.trouble_ns = a->now_ns;
	end(a, v, false);
}

/* It may go on only while it is ours: the claim stands, the lease does, nobody has asked for another place, and it is not on its way there. */
static bool may_go_on(const struct agent *a, const struct vm *v)
{
	const struct claim *own = claimer_own(a, v->def.uuid);

	if ((v->migration.phase != MIGRATE_NONE && !MUTANT(CONT_WHILE_SENT)) || v->going_on)
		return false;
	return agent_gate_open(a) && own && own->state == CLAIM_ACTIVE && own->generation == v->generation;
}

static void by_storage(struct agent *a, struct vm *v)
{
	struct vm_health *h = &v->health;
	bool long_gone = v->def.health.io_elsewhere_ms != 0 && a->now_ns - h->trouble_ns > agent_ms(v->def.health.io_elsewhere_ms);

	if (is_elsewhere(a, h)) {
		end(a, v, true);
	} else if (storage_answers(a, h) && a->now_ns >= h->cont_ns && may_go_on(a, v)) {
		h->cont_wait_ms = MIN(MAX(2 * h->cont_wait_ms, CONT_MIN_MS), CONT_MAX_MS);
		h->cont_ns = a->now_ns + agent_ms(h->cont_wait_ms);
		v->going_on = true;
		agent_note(a, NOTE_VM_CONT, v, 0);
		agent_act(a, AGENT_ACT_CONT)->vm = v;
	} else {
		probe(a, v, long_gone && h->storage_ns == 0);
	}
}

static void react(struct agent *a, struct vm *v)
{
	struct vm_health *h = &v->health;

	switch (h->trouble) {
	case TROUBLE_HUNG:
		if ((storage_answers(a, h) && a->now_ns - h->answers_ns >= agent_ms(STORAGE_BACK_MS)) || MUTANT(HUNG_UNPROBED) ||
		    (storage_answers(a, h) && MUTANT(GAP_COUNTS_FOR_HEALTH)))
			end(a, v, false);
		else
			probe(a, v, false);
		break;
	case TROUBLE_IO_ERROR:
		by_storage(a, v);
		break;
	case TROUBLE_NOT_BOOTED:
		if (v->migration.phase > MIGRATE_SENDING)
			break; /* it is about to be there: no reset in the middle of its state */
		if (h->boot_reset) {
			end(a, v, true);
			break;
		}
		h->boot_reset = true;
		h->boot_ns = a->now_ns;
		agent_note(a, NOTE_VM_RESET, v, 0);
		agent_act(a, AGENT_ACT_RESET)->vm = v;
		break;
	case TROUBLE_NONE:
		break;
	default:
		end(a, v, false);
	}
}

void health_tick(struct agent *a, struct vm *v)
{
	struct vm_health *h = &v->health;
	enum vm_trouble t = h->kill_ns != 0 ? h->trouble : find_trouble(a, v);

	if (v->migration.phase == MIGRATE_LOST)
		return; /* it is being killed for that */
	if (t != h->trouble) {
		h->trouble_ns = a->now_ns;
		h->storage_ns = h->probe_ns = h->others_ns = 0;
		h->trouble = t;
		agent_note(a, t == TROUBLE_NONE ? NOTE_VM_WELL : NOTE_VM_TROUBLE, v, 0);
	}
	if (is_up(&v->def.health, h))
		h->boot_reset = false;
	if (h->run == GUEST_RUNS && a->now_ns - h->cont_ns > agent_ms(2 * CONT_MAX_MS))
		h->cont_wait_ms = 0;
	if (h->kill_ns != 0 && a->now_ns - h->kill_ns > agent_ms(KILL_AGAIN_MS)) {
		h->kill_ns = a->now_ns; /* in a system call that does not return, perhaps */
		if (++h->kills == KILLS_TOLD)
			agent_note(a, NOTE_VM_STUCK, v, a->opt.self);
		agent_act(a, AGENT_ACT_KILL)->vm = v;
	}
	/* Also one that is to leave as it runs: it could not. */
	if (h->kill_ns == 0 && !agent_held(a, v) && (vmlife_wanted(a, v) || migrate_by(a, v, a->opt.self)) &&
	    reaction(&v->def.health, t) == REACT_RESTART)
		react(a, v);
}
