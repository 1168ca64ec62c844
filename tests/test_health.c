/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/core/health.c: what is found to be the matter with a guest, and what is done about it, for one VM on one node. Time is passed in. */
#include <stdio.h>

#include "agent/core/agent_core.h"
#include "tests/tap.h"

#define S (1000 * NS_PER_MS)
#define STEP (500 * NS_PER_MS)

static struct agent a;
static struct vm *v;
static unsigned acts[AGENT_ACT_NOTE + 1], notes[NOTE_COUNT];
static bool probed_others;
static bool answers = true, pings, storage, conts = true; /* what is heard while time passes */
static enum guest_run run;

static const struct health_policy defaults = {
	.agent = true, .hang_ms = 60000, .silence_ms = 60000, .io_elsewhere_ms = 30000, .check_failures = 3, .reset_limit = 3, .reset_window_ms = 60000,
};

static void count(void)
{
	for (unsigned i = 0; i < a.n_actions; i++) {
		acts[a.action[i].kind]++;
		if (a.action[i].kind == AGENT_ACT_NOTE)
			notes[a.action[i].note]++;
		if (a.action[i].kind == AGENT_ACT_PROBE)
			probed_others = probed_others || a.action[i].on;
	}
	a.n_actions = 0;
}

static void fact(enum health_fact f, enum guest_run r, bool ok)
{
	struct agent_event ev = { .kind = AGENT_EV_HEALTH, .fact = f, .run = r, .ok = ok };

	health_event(&a, v, &ev);
}

static void storage_says(uint32_t node, bool ok)
{
	struct agent_event ev = { .kind = AGENT_EV_STORAGE, .node = node, .ok = ok };

	health_event(&a, v, &ev);
}

static void continued(void) { vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_CONTINUED }); }

static void tick(void)
{
	if (v->state == VM_RUNNING)
		health_tick(&a, v);
	count();
}

/* Time passes in small steps, and what is to be heard is heard. */
static void pass(int64_t ns)
{
	for (int64_t end = a.now_ns + ns; a.now_ns < end;) {
		unsigned before = acts[AGENT_ACT_PROBE], told = acts[AGENT_ACT_CONT];

		a.now_ns += STEP;
		if (answers)
			fact(HEALTH_STATE, run, true);
		if (answers && pings && run == GUEST_RUNS)
			fact(HEALTH_PING, GUEST_UNKNOWN, true);
		tick();
		if (acts[AGENT_ACT_PROBE] > before)
			storage_says(1, storage);
		if (acts[AGENT_ACT_CONT] > told && conts)
			continued();
	}
}

static void exits(enum vm_exit how)
{
	struct agent_event ev = { .kind = AGENT_EV_EXIT, .exit = how };

	vmlife_event(&a, v, &ev);
	count();
}

/* A VM that runs here, under a claim that holds. */
static void begin(const struct health_policy *p)
{
	struct keeper_table_node *n;

	memset(&a, 0, sizeof(a));
	memset(acts, 0, sizeof(acts));
	memset(notes, 0, sizeof(notes));
	probed_others = pings = false;
	answers = storage = conts = true;
	run = GUEST_RUNS;
	a.now_ns = 1000 * S;
	a.opt = (struct agent_options){ .self = 1, .node_max = 3, .members = 7, .n_volumes = 1 };
	a.opt.timing.drain_ms = 2000;
	a.opt.timing.leader_ms = 5000;
	a.vm_end = 1;
	a.adopted = a.have_table = a.have_catalog = true;
	a.epoch = a.table.table.epoch = 7;
	a.table.table.gate_open = true;
	n = &a.table.table.node[0];
	n->epoch = 7;
	n->state = HEARTBEAT_ARMED;
	a.catalog_armed = true;
	v = &a.vm[0];
	v->used = v->in_catalog = true;
	v->def.uuid[0] = 1;
	v->def.desired = DESIRED_STARTED;
	v->def.restart_limit = 3;
	v->def.restart_window_ms = 600000;
	v->def.health = *p;
	v->state = VM_RUNNING;
	v->generation = 5;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_ACTIVE };
	health_begin(&a, v, false);
	count();
}

static void test_hung(void)
{
	struct health_policy p = defaults;

	begin(&p);
	pass(600 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && notes[NOTE_VM_TROUBLE] == 0, "a QEMU that answers is left alone");
	answers = false;
	pass(59 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && acts[AGENT_ACT_KILL] == 0, "silent for 59 s: nothing yet");
	pass(2 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && notes[NOTE_VM_TROUBLE] == 1, "silent for 61 s: hung, and told");
	pass(3 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && acts[AGENT_ACT_PROBE] >= 1, "its storage answers, perhaps only just: a moment more");
	pass(5 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "silent still: killed");
	pass(20 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "once");
	pass(15 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 2, "again after half a minute: it may have been in a system call");
	TAP_OK(notes[NOTE_VM_STUCK] == 0, "it may yet end");
	pass(300 * S);
	TAP_OK(notes[NOTE_VM_STUCK] == 1 && acts[AGENT_ACT_KILL] > 5, "it does not: told with the third time, once");
	exits(VM_EXIT_CRASH);
	TAP_OK(v->state == VM_RESTARTING && v->failures == 1 && v->last_failure == TROUBLE_HUNG, "its exit is a failure, restarted here");

	begin(&p);
	answers = storage = false;
	pass(300 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && acts[AGENT_ACT_KILL] == 0, "its storage is silent, too: hung for five minutes and not killed");
	storage = true;
	pass(4 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "that is back: QEMU has a moment to find out");
	storage = false;
	pass(5 * S);
	storage = true;
	pass(4 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "another one after each gap");
	pass(6 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "killed when it is silent still");

	begin(&p);
	answers = storage = false;
	pass(120 * S);
	answers = true;
	pass(5 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && notes[NOTE_VM_WELL] == 1 && acts[AGENT_ACT_KILL] == 0, "it answers again: well, and told");

	/* An agent that is started anew may find a unit whose launcher is not QEMU yet. */
	begin(&p);
	v->health.found = true;
	answers = storage = false;
	pass(69 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "found by a new agent: its start, if it is one, does not count as silence");
	TAP_OK(health_ready(v) == READY_NOT, "nor does it count as running before it has answered");
	pass(2 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG, "but then");
	answers = true;
	pass(S);
	answers = false;
	pass(61 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && notes[NOTE_VM_TROUBLE] == 2, "once it has answered it has no more than others");

	/* Started by this agent, but its QEMU hangs in opening its disks: STARTED is told after a while all the same. */
	begin(&p);
	answers = false;
	pass(30 * S);
	TAP_OK(health_ready(v) == READY_NOT, "started, and never heard of: nobody's After= is fulfilled");
	answers = true;
	pass(S);
	TAP_OK(health_ready(v) == READY_RUNNING, "it has answered: it is");
	answers = false;
	pass(30 * S);
	TAP_OK(health_ready(v) == READY_RUNNING, "what is silent for a while later has been started all the same");

	/* A start takes as long as it takes. */
	p.start_ms = 300000;
	begin(&p);
	answers = false, storage = true;
	pass(299 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "just started, it has StartTimeout= for its first answer");
	pass(10 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && acts[AGENT_ACT_KILL] == 1, "then it is hung");
	begin(&p);
	answers = false;
	pass(100 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "it is at its start for a while");
	answers = true;
	pass(S);
	answers = false;
	pass(61 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG, "once it has answered HangTimeout= counts");
	begin(&p);
	v->health.found = true;
	answers = false;
	pass(71 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG, "and for what an agent has found");
	p.hang_ms = 600000;
	begin(&p);
	answers = false;
	pass(599 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "a HangTimeout= that is longer counts from the start");
	p = defaults;

	p.hang = REACT_ALERT;
	begin(&p);
	answers = false;
	pass(300 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && notes[NOTE_VM_TROUBLE] == 1 && acts[AGENT_ACT_KILL] == 0, "OnHang=alert: told once, left alone");
	p.hang = REACT_IGNORE;
	begin(&p);
	answers = false;
	pass(300 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && notes[NOTE_VM_TROUBLE] == 0, "OnHang=ignore: not even told");
}

/* Time in which this agent itself stood still says nothing about anybody. */
static void test_gap(void)
{
	struct health_policy p = defaults;
	int64_t gap = 600 * S;

	begin(&p);
	pings = true;
	pass(20 * S);
	health_gap(&a, gap);
	a.now_ns += gap;
	answers = false;
	tick();
	TAP_OK(v->health.trouble == TROUBLE_NONE && acts[AGENT_ACT_PROBE] == 0, "ten minutes of standing still ourselves are not QEMU's silence");
	pass(58 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "it has its whole time from then on");
	pass(4 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG, "and no more");
}

static void test_held(void)
{
	struct health_policy p = defaults;

	begin(&p);
	v->def.desired = DESIRED_IGNORED;
	answers = false;
	pass(120 * S);
	TAP_OK(v->health.trouble == TROUBLE_HUNG && acts[AGENT_ACT_KILL] == 0 && acts[AGENT_ACT_PROBE] == 0, "of an ignored VM it is told, no more");
	begin(&p);
	a.pause = PAUSE_FREEZE;
	fact(HEALTH_PANIC, GUEST_UNKNOWN, true);
	pass(10 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "frozen: not killed");
	a.pause = PAUSE_NONE;
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "until the cluster is armed again");
}

static void test_states(void)
{
	static const struct {
		const char *what;
		enum guest_run run;
		enum vm_trouble trouble;
		bool kill;
	} table[] = {
		{ "running", GUEST_RUNS, TROUBLE_NONE, false }, { "asleep", GUEST_ASLEEP, TROUBLE_NONE, false },
		{ "paused by somebody", GUEST_PAUSED, TROUBLE_NONE, false }, { "busy", GUEST_BUSY, TROUBLE_NONE, false },
		{ "powered off and kept", GUEST_OVER, TROUBLE_NONE, false } /* test_kept */, { "a state nobody knows", GUEST_UNKNOWN, TROUBLE_NONE, false },
		{ "panicked", GUEST_PANICKED, TROUBLE_PANIC, true }, { "its watchdog ran out", GUEST_WATCHDOG, TROUBLE_WATCHDOG, true },
		{ "internal error", GUEST_INTERNAL_ERROR, TROUBLE_INTERNAL_ERROR, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		begin(&defaults);
		run = table[i].run;
		pass(300 * S);
		TAP_OK(v->health.trouble == table[i].trouble && (acts[AGENT_ACT_KILL] > 0) == table[i].kill, "%s for five minutes: %s", table[i].what,
		       table[i].kill ? "killed" : "left alone");
	}
	for (int r = REACT_RESTART; r <= REACT_IGNORE; r++) {
		struct health_policy p = defaults;

		p.panic = (enum vm_reaction)r;
		begin(&p);
		fact(HEALTH_PANIC, GUEST_UNKNOWN, true);
		pass(10 * S);
		TAP_OK((acts[AGENT_ACT_KILL] == 1) == (r == REACT_RESTART) && (notes[NOTE_VM_TROUBLE] == 1) == (r != REACT_IGNORE),
		       "GUEST_PANICKED, policy %d", r);
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
		pass(2 * S);
		TAP_OK(r == REACT_RESTART || v->health.trouble == TROUBLE_NONE, "somebody has reset it: over");
	}
}

/* As take_catalog does */
static void policy(const struct health_policy *p)
{
	health_new_policy(&a, v, p);
	v->def.health = *p;
}

static void test_update(void)
{
	struct health_policy p = defaults;

	p.boot_ms = 0;
	begin(&p);
	pings = true;
	pass(3600 * S);
	p.has_check = true;
	p.boot_ms = 60000;
	policy(&p);
	pass(600 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0 && v->health.trouble == TROUBLE_NONE, "it has been up for an hour and is to pass a check now: it need not boot again for it");
	fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pass(59 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "after a reboot it has its time");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1, "and then is expected to pass it");

	p = defaults;
	p.boot_ms = 0;
	begin(&p);
	pass(3600 * S);
	p.boot_ms = 60000;
	policy(&p);
	pass(59 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "not up for an hour, and given a time now: it has that");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1, "and no more");
	p.panic = REACT_IGNORE;
	policy(&p);
	fact(HEALTH_RESET, GUEST_UNKNOWN, false);
	pass(61 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "another change does not give it more");
}

static void test_boot(void)
{
	struct health_policy p = defaults;

	p.boot_ms = 120000;
	begin(&p);
	pass(119 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "it has its time to boot");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1 && notes[NOTE_VM_TROUBLE] == 1, "not up: reset");
	fact(HEALTH_RESET, GUEST_UNKNOWN, false);
	pass(119 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1 && acts[AGENT_ACT_KILL] == 0, "it has its time once more");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1 && acts[AGENT_ACT_KILL] == 1, "not up again: killed");
	exits(VM_EXIT_CRASH);
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_FAILED && v->last_failure == TROUBLE_NOT_BOOTED, "and given up here, for another node");

	begin(&p);
	pass(100 * S);
	pings = true;
	pass(300 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0 && v->health.pinged && health_ready(v) == READY_AGENT, "its agent answers: up");
	fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pings = false;
	TAP_OK(health_ready(v) == READY_RUNNING, "it reboots: not any more");
	pass(119 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0 && v->health.trouble == TROUBLE_NONE, "a reboot is no silence");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1, "it hangs half-way through: reset");

	p.has_check = true;
	begin(&p);
	pings = true;
	pass(121 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1, "with a check of its service an agent that answers is not enough");
	begin(&p);
	pings = true;
	pass(50 * S);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "checks before the service was ever up are not its failure");
	fact(HEALTH_CHECK_GOOD, GUEST_UNKNOWN, true);
	pass(100 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0 && health_ready(v) == READY_CHECK, "a good one is");

	begin(&p);
	run = GUEST_PAUSED;
	pass(300 * S);
	run = GUEST_RUNS;
	pass(100 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "while it is paused it cannot boot");
	begin(&p);
	answers = false;
	pass(59 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "QEMU is silent: nothing is said of the guest");
}

static void test_agent_and_service(void)
{
	struct health_policy p = defaults;

	begin(&p);
	pass(600 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "an agent that was never heard is not silent");
	pings = true;
	pass(10 * S);
	pings = false;
	pass(62 * S);
	TAP_OK(v->health.trouble == TROUBLE_SILENT && acts[AGENT_ACT_KILL] == 1, "one that was, is");
	p.silence = REACT_ALERT;
	begin(&p);
	pings = true;
	pass(10 * S);
	pings = false;
	pass(300 * S);
	TAP_OK(v->health.trouble == TROUBLE_SILENT && acts[AGENT_ACT_KILL] == 0 && notes[NOTE_VM_TROUBLE] == 1, "OnSilence=alert");
	run = GUEST_PAUSED;
	pass(10 * S);
	run = GUEST_RUNS;
	pass(30 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "paused and continued: it has its time anew");

	p = defaults;
	p.has_check = true;
	begin(&p);
	pings = true;
	fact(HEALTH_CHECK_GOOD, GUEST_UNKNOWN, true);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	pass(5 * S);
	fact(HEALTH_CHECK_GOOD, GUEST_UNKNOWN, true);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	pass(5 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "two bad checks in a row, twice");
	fact(HEALTH_CHECK_BAD, GUEST_UNKNOWN, false);
	pass(1 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1 && v->health.ending == TROUBLE_CHECK, "three in a row: its service is dead");
}

static void test_resets(void)
{
	struct health_policy p = defaults;

	begin(&p);
	for (int i = 0; i < 20; i++) {
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
		pass(30 * S);
	}
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "two reboots a minute may be");
	for (int i = 0; i < 40; i++)
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pass(1 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && v->health.trouble == TROUBLE_NONE, "one reboot that QEMU tells forty times is one");
	for (int i = 0; i < 4; i++) {
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
		pass(2 * S);
	}
	TAP_OK(acts[AGENT_ACT_KILL] == 1 && v->health.ending == TROUBLE_RESETS, "more than three, one after the other: a loop");
	exits(VM_EXIT_CRASH);
	v->state = VM_RUNNING;
	health_begin(&a, v, false);
	pass(10 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && acts[AGENT_ACT_KILL] == 1, "its next life begins anew");
	begin(&p);
	for (int i = 0; i < 20; i++)
		fact(HEALTH_RESET, GUEST_UNKNOWN, false);
	pass(1 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "resets from outside are not the guest's");
	p.reset_limit = 0;
	begin(&p);
	for (int i = 0; i < 200; i++)
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pass(1 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "ResetLimit=0: never");

	p.reset_limit = 3;
	begin(&p);
	for (int i = 0; i < 3; i++) {
		exits(VM_EXIT_RESET);
		TAP_OK(v->state == VM_RESTARTING && v->failures == 0 && v->retry_ns == a.now_ns, "a reboot that ends QEMU is no failure");
		v->state = VM_RUNNING;
		health_begin(&a, v, false);
		pass(2 * S);
	}
	exits(VM_EXIT_RESET);
	TAP_OK(v->failures == 1, "until it is a loop");

	begin(&p);
	for (int i = 0; i < 3; i++) {
		fact(HEALTH_RESET, GUEST_UNKNOWN, true);
		pass(2 * S);
	}
	v->state = VM_CLAIMING;
	vmlife_claim_result(&a, v->def.uuid, CLAIM_GRANTED, 6, false, 0);
	v->state = VM_RUNNING;
	health_begin(&a, v, false);
	fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && v->health.trouble == TROUBLE_NONE, "what it did here before it was given up counts no more");
}

static void test_storage(void)
{
	struct health_policy p = defaults;
	unsigned n;

	begin(&p);
	pass(5 * S);
	run = GUEST_IO_ERROR;
	storage = false;
	pass(20 * S);
	TAP_OK(v->health.trouble == TROUBLE_IO_ERROR && acts[AGENT_ACT_CONT] == 0 && acts[AGENT_ACT_PROBE] >= 5, "its storage is away: asked about, again and again");
	storage = true;
	pass(3 * S);
	TAP_OK(acts[AGENT_ACT_CONT] >= 1, "it is back: goes on");
	run = GUEST_RUNS;
	pass(2 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && acts[AGENT_ACT_KILL] == 0, "well again");

	begin(&p);
	run = GUEST_IO_ERROR;
	pass(300 * S);
	n = acts[AGENT_ACT_CONT];
	TAP_OK(n >= 8 && n <= 20, "a full disk answers, and fails again: tried less and less often (%u times in five minutes)", n);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && !probed_others, "and it stays: no other node would do better");

	begin(&p);
	run = GUEST_IO_ERROR;
	storage = false;
	pass(25 * S);
	storage_says(2, true);
	pass(1 * S);
	TAP_OK(!probed_others && acts[AGENT_ACT_KILL] == 0, "not elsewhere before its time");
	pass(10 * S);
	TAP_OK(probed_others && acts[AGENT_ACT_KILL] == 0, "the others are asked");
	storage_says(2, false);
	storage_says(3, false);
	pass(60 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "away for all: it waits");
	for (int i = 0; i < 3; i++) {
		storage_says(3, true);
		pass(8 * S);
	}
	TAP_OK(acts[AGENT_ACT_KILL] == 0, "another node has it now and then: it waits");
	for (int i = 0; i < 3; i++) {
		TAP_OK(acts[AGENT_ACT_KILL] == 0, "another node has had it for %d s: it may come back here as well", 2 * i);
		storage_says(3, true);
		storage_says(2, false);
		pass(2 * S);
	}
	storage_says(3, true);
	tick();
	TAP_OK(acts[AGENT_ACT_KILL] == 1, "another node has had it for 6 s: ended here");
	exits(VM_EXIT_CRASH);
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_UNCLEAN && !v->full_drain, "for whoever takes it to prove it quiet: here that cannot be");

	begin(&p);
	run = GUEST_IO_ERROR;
	storage = false;
	pass(60 * S);
	storage_says(2, true);
	pass(2 * S);
	storage_says(2, true);
	storage = true;
	pass(2 * S);
	storage_says(2, true);
	pass(2 * S);
	storage_says(2, true);
	pass(5 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && acts[AGENT_ACT_CONT] >= 1, "back here as well, a little later: it stays");

	p.io_elsewhere_ms = 0;
	begin(&p);
	run = GUEST_IO_ERROR;
	storage = false;
	pass(600 * S);
	storage_says(2, true);
	pass(5 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 0 && !probed_others, "IOErrorTimeout=0: it stays");
	p.io_error = REACT_ALERT;
	begin(&p);
	run = GUEST_IO_ERROR;
	pass(60 * S);
	TAP_OK(acts[AGENT_ACT_CONT] == 0 && notes[NOTE_VM_TROUBLE] == 1, "OnIOError=alert");
}

/* It goes on only while it is ours. */
static void test_not_ours(void)
{
	for (int i = 0; i < 5; i++) {
		begin(&defaults);
		run = GUEST_IO_ERROR;
		if (i == 0)
			a.table.table.gate_open = false;
		else if (i == 1)
			a.claimer.mine.claim[0].generation = 6;
		else if (i == 2)
			a.claimer.mine.claim[0].state = CLAIM_UNCLEAN;
		else if (i == 3)
			a.claimer.mine.claim[0].epoch = 6;
		else
			a.table.table.epoch = 8;
		pass(60 * S);
		TAP_OK(acts[AGENT_ACT_CONT] == 0, "storage back, but the VM is not ours (%d): it does not go on", i);
	}
}

/* Node 2 is there, and an operator wants it there, as it runs. */
static void to_node_2(void)
{
	struct keeper_table_node *n = &a.table.table.node[1];

	n->epoch = 3;
	n->known = n->fresh = n->in_view = true;
	n->state = HEARTBEAT_ARMED;
	a.node[1].moved = true;
	a.node[1].counter_ns = INT64_MAX / 2; /* its agent never stands still */
	v->def.live = true;
	v->def.move = (struct vm_move){ .node = 2, .number = 1, .live = true };
}

static void news(enum migrate_news what)
{
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_MIGRATION, .migration = 77, .news = what });
	count();
}

static bool offered(void)
{
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_OFFER, .node = 2, .migration = 77 });
	count();
	return v->migration.phase == MIGRATE_SENDING;
}

/* A guest that is to leave, is leaving, or has come as it runs. */
static void test_migration(void)
{
	struct health_policy p = defaults;
	unsigned n;

	begin(&p);
	to_node_2();
	pass(1 * S);
	TAP_OK(offered() && acts[AGENT_ACT_MIGRATE] == 1, "a guest that is well is sent");
	run = GUEST_IO_ERROR;
	pass(60 * S);
	TAP_OK(v->health.trouble == TROUBLE_IO_ERROR && acts[AGENT_ACT_CONT] == 0, "stopped by its storage on the way: no cont, though that is back");
	news(MIGRATE_NEWS_PAUSED);
	TAP_OK(acts[AGENT_ACT_SWITCH] == 1, "the rest may go");
	pass(5 * S);
	TAP_OK(acts[AGENT_ACT_CONT] == 0, "none in the middle of that either");
	news(MIGRATE_NEWS_COMPLETED);
	run = GUEST_SENT;
	pass(60 * S);
	TAP_OK(v->state == VM_HANDING && acts[AGENT_ACT_CONT] == 0 && acts[AGENT_ACT_GO_ON] == 0, "nor once it is sent");
	/* Claims cannot be written: of two volumes one is away. */
	v->since_ns = v->health.answer_ns = a.now_ns;
	a.now_ns += 9 * S;
	migrate_tick(&a, v);
	count();
	TAP_OK(v->state == VM_HANDING && acts[AGENT_ACT_GO_ON] == 0 && claimer_pending(&a, v->def.uuid), "its release waits to be issued");
	a.claimer.want[0].in_cycle = true;
	a.now_ns += 60 * S;
	migrate_tick(&a, v);
	count();
	TAP_OK(v->state == VM_HANDING && acts[AGENT_ACT_GO_ON] == 0, "one that is issued is never taken back");
	a.claimer.want[0].in_cycle = false;
	v->migration.gone = true;
	migrate_tick(&a, v);
	count();
	TAP_OK(v->state == VM_HANDING && acts[AGENT_ACT_GO_ON] == 0, "nor one whose QEMU is gone: there is nothing to go on with");
	v->migration.gone = false;
	n = acts[AGENT_ACT_TELL];
	migrate_tick(&a, v);
	count();
	TAP_OK(v->state == VM_RUNNING && v->migration.phase == MIGRATE_NONE && acts[AGENT_ACT_GO_ON] == 1 && acts[AGENT_ACT_TELL] == n + 1 &&
	       !claimer_pending(&a, v->def.uuid), "one that never was is, after a while: its guest goes on here, and the target is told");
	TAP_OK(v->health.answer_ns == a.now_ns, "what it has said meanwhile was not heard, and is no silence");

	/* The rest takes its time: as long as the VM's file allows, and some more. */
	for (unsigned i = 0; i < 2; i++) {
		begin(&p);
		to_node_2();
		v->def.downtime_ms = i * 40000;
		pass(1 * S);
		(void)offered();
		news(MIGRATE_NEWS_PAUSED);
		for (unsigned s = 0; s < (i ? 49 : 9); s++) {
			a.now_ns += S;
			(void)migrate_leaves(&a, v, false);
		}
		count();
		TAP_OK(v->migration.phase == MIGRATE_SWITCHING, "with DowntimeLimit=%us it may take that long, and 10 s more", i * 40);
		for (unsigned s = 0; s < 3; s++) {
			a.now_ns += S;
			(void)migrate_leaves(&a, v, false);
		}
		count();
		TAP_OK(v->migration.phase == MIGRATE_CANCELLING && acts[AGENT_ACT_CANCEL] == 1, "then it is called off");
	}

	begin(&p);
	to_node_2();
	run = GUEST_IO_ERROR;
	conts = false;
	pass(3 * S);
	TAP_OK(acts[AGENT_ACT_CONT] == 1 && v->going_on, "a cont is on its way");
	run = GUEST_RUNS;
	pass(60 * S);
	TAP_OK(!offered() && acts[AGENT_ACT_TELL] == 1 && acts[AGENT_ACT_CONT] == 1, "and not answered: nothing is sent, however long that is");
	continued();
	TAP_OK(offered(), "answered: it may go");

	begin(&p);
	to_node_2();
	run = GUEST_IO_ERROR;
	storage = false;
	pass(2 * S);
	TAP_OK(!offered(), "a guest that stands still for its storage stays");
	run = GUEST_RUNS;
	pass(2 * S);
	(void)offered();
	run = GUEST_IO_ERROR;
	pass(2 * S);
	run = GUEST_SENT;
	news(MIGRATE_NEWS_FAILED);
	pass(4 * S);
	TAP_OK(v->state == VM_RUNNING && acts[AGENT_ACT_KILL] == 0 && acts[AGENT_ACT_CONT] == 0 && v->health.trouble == TROUBLE_IO_ERROR,
	       "not sent after all, and QEMU left it as it was: waited for its storage");
	storage = true;
	pass(4 * S);
	TAP_OK(acts[AGENT_ACT_CONT] >= 1, "then it goes on");

	begin(&p);
	run = GUEST_SENT;
	pass(1 * S);
	TAP_OK(acts[AGENT_ACT_CONT] == 0 && acts[AGENT_ACT_KILL] == 1 && v->migration.phase == MIGRATE_LOST, "sent by an earlier process of this agent: never continued");
	pass(100 * S);
	exits(VM_EXIT_CRASH);
	TAP_OK(v->state == VM_CLAIMING && v->ours_before && v->failures == 0 && acts[AGENT_ACT_CONT] == 0, "claimed anew, and no failure of the VM");

	begin(&p);
	to_node_2();
	pass(1 * S);
	(void)offered();
	answers = false;
	pass(70 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1 && v->health.ending == TROUBLE_HUNG, "hung while it is being sent: ended");
	n = acts[AGENT_ACT_TELL];
	exits(VM_EXIT_CRASH);
	TAP_OK(acts[AGENT_ACT_TELL] == n + 1 && v->migration.phase == MIGRATE_NONE && v->state == VM_RESTARTING, "and the target is told");

	p.boot_ms = 30000;
	begin(&p);
	to_node_2();
	pass(1 * S);
	(void)offered();
	news(MIGRATE_NEWS_PAUSED);
	pass(60 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0, "no reset while its state is on the way");
	begin(&p);
	health_begin(&a, v, true);
	pass(600 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 0 && acts[AGENT_ACT_KILL] == 0, "it was up before it came: no boot is waited for");
	fact(HEALTH_RESET, GUEST_UNKNOWN, true);
	pass(40 * S);
	TAP_OK(acts[AGENT_ACT_RESET] == 1, "until it boots here");
}

/* The time that a migration itself had it stand still is no silence of a guest, wherever it goes on. */
static void test_called_off(void)
{
	struct health_policy p = defaults;

	p.silence = REACT_RESTART;
	begin(&p);
	to_node_2();
	pings = true;
	pass(1 * S);
	(void)offered();
	pings = false;
	pass(59 * S);
	news(MIGRATE_NEWS_PAUSED);
	a.table.table.gate_open = false;
	news(MIGRATE_NEWS_COMPLETED);
	a.table.table.gate_open = true;
	TAP_OK(v->state == VM_RUNNING && acts[AGENT_ACT_GO_ON] == 1, "called off before anything was released: it is to go on");
	pass(70 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE, "which opens its disks first: no silence of the guest");
	continued();
	pass(59 * S);
	TAP_OK(v->health.trouble == TROUBLE_NONE && acts[AGENT_ACT_KILL] == 0, "from then on it has all of SilenceTimeout=");
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_KILL] == 1 && v->health.ending == TROUBLE_SILENT, "and no more");
}

static void test_restart(void)
{
	begin(&defaults);
	v->def.restart = RESTART_NEVER;
	exits(VM_EXIT_CRASH);
	TAP_OK(v->state == VM_RESTARTING && v->guest_off && v->off_failed, "Restart=never: it is not started again");
	vmlife_tick(&a, v);
	count();
	TAP_OK(acts[AGENT_ACT_GUEST_OFF] == 0, "whose failure it was is not known yet");
	a.now_ns += 2 * S;
	a.table.table.gate_open = false;
	vmlife_tick(&a, v);
	count();
	TAP_OK(acts[AGENT_ACT_GUEST_OFF] == 0, "the gate is closed: it was the node's");
	a.table.table.gate_open = true;
	vmlife_tick(&a, v);
	count();
	TAP_OK(acts[AGENT_ACT_GUEST_OFF] == 1 && notes[NOTE_VM_STAYS_DOWN] == 1 && v->state == VM_RESTARTING, "the catalog is to say so; the claim is kept until it does");
	v->def.desired = DESIRED_STOPPED;
	vmlife_tick(&a, v);
	count();
	TAP_OK(v->state == VM_DRAINING && !v->full_drain && v->release_as == CLAIM_RELEASED, "then this host must be silent first: what it still sends for the dead QEMU lands late");
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_DRAINED });
	count();
	TAP_OK(v->state == VM_DRAINING && v->full_drain && v->release_as == CLAIM_RELEASED, "then its storage is asked: it is proven quiet before it is given up");
	a.now_ns += 20 * S;
	vmlife_tick(&a, v);
	count();
	TAP_OK(v->state == VM_DRAINING && !v->full_drain && v->release_as == CLAIM_UNCLEAN && notes[NOTE_VM_UNQUIET] == 1,
	       "its storage does not answer: left to the next owner to prove");

	begin(&defaults);
	v->def.restart = RESTART_NEVER;
	exits(VM_EXIT_GUEST_OFF);
	TAP_OK(v->guest_off && !v->off_failed, "powered off: no failure");
	begin(&defaults);
	v->def.restart = RESTART_ALWAYS;
	exits(VM_EXIT_GUEST_OFF);
	TAP_OK(v->state == VM_RESTARTING && !v->guest_off && v->failures == 1, "Restart=always: started again, within the limits");
}

static void ticks(void)
{
	vmlife_tick(&a, v);
	count();
}

/* It ends by itself where it was not to stay. */
static void test_off_on_its_way(void)
{
	begin(&defaults);
	a.maintenance = 1;
	ticks();
	TAP_OK(v->state == VM_RUNNING && v->stays, "in maintenance, and nobody else can take it");
	exits(VM_EXIT_GUEST_OFF);
	ticks();
	TAP_OK(v->state == VM_RESTARTING && acts[AGENT_ACT_GUEST_OFF] == 1, "it powers itself off: the catalog is to say so, as ever");
	v->def.desired = DESIRED_STOPPED;
	ticks();
	TAP_OK(v->state == VM_DRAINING && v->notes_only, "then only what others still write for it is waited for");
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_DRAINED });
	TAP_OK(v->state == VM_RELEASING, "then it is given up");

	begin(&defaults);
	a.table.table.node[1] = (struct keeper_table_node){ .known = 1, .fresh = 1, .in_view = 1, .epoch = 7, .state = HEARTBEAT_ARMED };
	a.node[1].moved = true;
	a.node[1].counter_ns = a.now_ns;
	v->def.move = (struct vm_move){ .node = 2, .number = 1 };
	exits(VM_EXIT_GUEST_OFF);
	ticks();
	TAP_OK(!vmlife_wanted(&a, v) && v->state == VM_RESTARTING && acts[AGENT_ACT_GUEST_OFF] == 1, "just when it is asked to be elsewhere: it is not started there");

	begin(&defaults);
	a.maintenance = 1;
	v->def.restart = RESTART_NEVER;
	exits(VM_EXIT_CRASH);
	a.now_ns += 2 * S;
	ticks();
	TAP_OK(v->state == VM_RESTARTING && acts[AGENT_ACT_GUEST_OFF] == 1 && notes[NOTE_VM_STAYS_DOWN] == 1, "Restart=never, and it has failed in maintenance: it stays down");
	a.leave.going = true;
	ticks();
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_RELEASED, "its host goes down, and has ended it perhaps: it is started elsewhere");

	begin(&defaults);
	a.leave.going = a.leave.alone = true;
	exits(VM_EXIT_GUEST_OFF);
	ticks();
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_DRAINED });
	TAP_OK(v->state == VM_RELEASING && acts[AGENT_ACT_GUEST_OFF] == 0, "nobody edits the catalog while the host goes down: that is not waited for");

	begin(&defaults);
	v->leave_ns = a.now_ns; /* hands are off it, and its host goes down: we have told its guest */
	exits(VM_EXIT_GUEST_OFF);
	ticks();
	TAP_OK(acts[AGENT_ACT_GUEST_OFF] == 0, "it was told to power off: that is not its own wish");
}

/* Off, but its process stays: -no-shutdown. */
static void test_kept(void)
{
	unsigned n;

	begin(&defaults);
	pass(10 * S);
	run = GUEST_OVER;
	pass(2 * S);
	TAP_OK(acts[AGENT_ACT_QUIT] > 0 && acts[AGENT_ACT_KILL] == 0 && notes[NOTE_VM_TROUBLE] == 0, "powered off and kept: QEMU is told to quit");
	TAP_OK(health_ready(v) == READY_NOT, "it is not ready for anybody");
	exits(VM_EXIT_GUEST_OFF);
	TAP_OK(v->state == VM_RESTARTING && v->guest_off && v->failures == 0, "and that was its own end");

	begin(&defaults);
	v->def.desired = DESIRED_STOPPED;
	vmlife_tick(&a, v);
	count();
	fact(HEALTH_STATE, GUEST_OVER, true);
	count();
	TAP_OK(v->state == VM_STOPPING && acts[AGENT_ACT_POWERDOWN] == 1 && acts[AGENT_ACT_QUIT] == 1, "shut down and kept: StopTimeout= is not waited for");

	begin(&defaults);
	v->def.desired = DESIRED_IGNORED;
	run = GUEST_OVER;
	pass(60 * S);
	TAP_OK(acts[AGENT_ACT_QUIT] == 0, "an ignored one is left as it is");
	begin(&defaults);
	v->migration.phase = MIGRATE_SWITCHING;
	fact(HEALTH_STATE, GUEST_OVER, true);
	count();
	TAP_OK(acts[AGENT_ACT_QUIT] == 0, "no word in the middle of a switch-over");

	/* It says SHUTDOWN, waits for its storage to take the last writes, and is killed while it does. */
	begin(&defaults);
	answers = false;
	pass(70 * S);
	n = acts[AGENT_ACT_KILL];
	exits(VM_EXIT_GUEST_OFF);
	v->def.desired = DESIRED_STOPPED;
	vmlife_tick(&a, v);
	count();
	TAP_OK(n == 1 && v->state == VM_DRAINING && v->release_as == CLAIM_RELEASED && v->then_full, "powered off, and killed on its way out: proven quiet before it is given up");
	begin(&defaults);
	v->def.desired = DESIRED_STOPPED;
	v->def.stop_timeout_ms = 1000;
	vmlife_tick(&a, v);
	a.now_ns += 10 * S;
	vmlife_tick(&a, v);
	count();
	n = acts[AGENT_ACT_KILL];
	exits(VM_EXIT_GUEST_OFF);
	TAP_OK(n == 1 && v->state == VM_DRAINING && v->then_full && v->release_as == CLAIM_RELEASED, "the same when it was told to stop");

	/* Killed by somebody else, or of unknown end. */
	begin(&defaults);
	exits(VM_EXIT_OFF_KILLED);
	TAP_OK(v->state == VM_RESTARTING && v->guest_off && v->failures == 0, "powered off, and killed by somebody: no failure, it stays off");
	v->def.desired = DESIRED_STOPPED;
	vmlife_tick(&a, v);
	count();
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_RELEASED && v->then_full, "proven quiet before it is given up");
	begin(&defaults);
	v->def.desired = DESIRED_STOPPED;
	vmlife_tick(&a, v);
	exits(VM_EXIT_OFF_KILLED);
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_RELEASED && v->then_full, "the same when it was told to stop");
	for (enum vm_exit how = VM_EXIT_CRASH; how <= VM_EXIT_OFF_KILLED; how++) {
		begin(&defaults);
		v->def.desired = DESIRED_STOPPED;
		vmlife_tick(&a, v);
		exits(how);
		TAP_OK(v->state == VM_DRAINING && !v->full_drain && v->notes_only == (how == VM_EXIT_GUEST_OFF || how == VM_EXIT_QUIT) && v->then_full == !v->notes_only,
		       "told to stop, exit %d: %s", (int)how, v->notes_only ? "only what others write for a QEMU before it is waited for" : "drained");
		vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_DRAINED });
		TAP_OK((v->state == VM_RELEASING) == (how == VM_EXIT_GUEST_OFF || how == VM_EXIT_QUIT), "then %s", v->state == VM_RELEASING ? "given up" : "its storage is asked");
	}
}

static void says_held(bool held)
{
	struct agent_event ev = { .kind = AGENT_EV_HEALTH, .fact = HEALTH_STATE, .run = GUEST_RUNS, .ok = true, .held = held };

	vmlife_event(&a, v, &ev);
	count();
}

/* Of a QEMU of it that has died here a write may still come: no other node is to have the VM. */
static void test_left_writes(void)
{
	struct keeper_table_node *n = &a.table.table.node[1];

	begin(&defaults);
	says_held(true);
	a.maintenance = 1;
	ticks();
	ticks();
	TAP_OK(v->state == VM_RUNNING && acts[AGENT_ACT_POWERDOWN] == 0 && notes[NOTE_VM_HELD] == 1, "maintenance: it runs on, as nobody else may have it, which is told once");
	a.leaving[0] = 7;
	ticks();
	TAP_OK(v->state == VM_STOPPING && acts[AGENT_ACT_POWERDOWN] == 1, "its host goes down: no more");

	begin(&defaults);
	*n = (struct keeper_table_node){ .known = true, .fresh = true, .in_view = true, .epoch = 3, .state = HEARTBEAT_ARMED };
	a.node[1] = (struct agent_node){ .moved = true, .counter_ns = a.now_ns };
	v->def.move = (struct vm_move){ .node = 2, .number = 1 };
	CHECK(place_move(&a, v) == 2);
	says_held(true);
	ticks();
	TAP_OK(v->state == VM_RUNNING && acts[AGENT_ACT_POWERDOWN] == 0 && acts[AGENT_ACT_MOVE_OVER] == 1, "it is to be on another node: it is not stopped for that, and the request is taken back");
	says_held(false);
	ticks();
	TAP_OK(v->state == VM_STOPPING, "proven meanwhile: it moves");

	begin(&defaults);
	says_held(true);
	v->def.desired = DESIRED_STOPPED;
	ticks();
	exits(VM_EXIT_QUIT);
	for (unsigned i = 0; i < 100; i++) {
		a.now_ns += S;
		ticks();
	}
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_RELEASED && a.claimer.n_wants == 0, "told to stop it stops, and its claim is kept until that is proven");
	v->def.desired = DESIRED_STARTED;
	ticks();
	TAP_OK(v->state == VM_RESTARTING, "wanted again: it starts here");
	ticks();
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_NONE && !v->full_drain, "as after any end");

	begin(&defaults);
	v->state = VM_RESERVING;
	v->def.failed_limit = 2;
	vmlife_elsewhere(&a, v);
	TAP_OK(v->state == VM_DRAINING && v->notes_only && v->release_as == CLAIM_UNCLEAN, "it cannot be reserved here, and is another node's to try: not before that is proven");
	a.now_ns += 14 * S;
	ticks();
	TAP_OK(v->state == VM_DRAINING, "waited for");
	a.now_ns += 2 * S;
	ticks();
	TAP_OK(v->state == VM_RESTARTING, "but not for ever: it is tried here again");
}

int main(void)
{
	test_hung();
	test_gap();
	test_held();
	test_states();
	test_boot();
	test_update();
	test_agent_and_service();
	test_resets();
	test_storage();
	test_left_writes();
	test_not_ours();
	test_migration();
	test_called_off();
	test_restart();
	test_off_on_its_way();
	test_kept();
	return tap_done();
}
