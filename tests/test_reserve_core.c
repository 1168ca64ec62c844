/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/core/reserve.c by itself: what is asked of a VM's LUNs, and what follows from each answer. */
#include "agent/core/agent_core.h"
#include "tests/tap.h"

static struct agent a;
static struct vm *v;

static void set_up(enum vm_state state)
{
	struct agent_options opt = { .self = 1, .node_limit = 2, .node_max = 2, .n_volumes = 1, .members = 3, .reserve = true, .timing = { .hb_ms = 1000, .leader_ms = 5000, .drain_ms = 4000, .io_ms = 1000 } };

	agent_init(&a, &opt, 1000 * NS_PER_MS);
	a.have_table = a.adopted = a.have_catalog = true;
	a.epoch = a.table.table.epoch = 7;
	a.table.table.gate_open = true;
	a.table.table.gate_term = a.term = 3;
	a.vm_end = 1;
	v = &a.vm[0];
	*v = (struct vm){ .used = true, .in_catalog = true, .state = state, .term = 3, .generation = 5, .since_ns = a.now_ns };
	v->def.uuid[0] = 9;
	v->def.desired = DESIRED_STARTED;
	v->def.restart_limit = 3;
	v->def.restart_window_ms = 600000;
	v->def.live = true;
}

static const struct agent_action *done(enum agent_action_kind kind)
{
	for (unsigned i = a.n_actions; i > 0; i--)
		if (a.action[i - 1].kind == kind)
			return &a.action[i - 1];
	return NULL;
}

static bool asked(enum reservation_op op) { return done(AGENT_ACT_RESERVE) && done(AGENT_ACT_RESERVE)->reserve == op; }

static void pass(int64_t ms)
{
	a.now_ns += ms * NS_PER_MS;
	a.n_actions = 0;
}

static void answer(enum reservation_op op, enum reservation_result result)
{
	struct agent_event ev = { .kind = AGENT_EV_RESERVED, .reserve = op, .reserved = result, .number = v->reservation.number };

	pass(1);
	reserve_event(&a, v, &ev);
}

/* A complete read of all claims that was issued then; ours: it shows the VM to be ours. */
static void claims_read(int64_t issued_ns, bool ours)
{
	a.n_actions = 0;
	a.claimer.read_ns = a.claimer.complete_ns = issued_ns;
	if (ours)
		v->reservation.sure_ns = issued_ns;
	reserve_claims_read(&a);
}

static void exits(enum vm_exit how)
{
	struct agent_event ev = { .kind = AGENT_EV_EXIT, .exit = how };

	pass(1);
	vmlife_event(&a, v, &ev);
}

static void joined(enum reservation_result result)
{
	set_up(VM_DRAINING);
	reserve_start(&a, v, true);
	answer(RESERVATION_JOIN, result);
}

static void test_start(void)
{
	set_up(VM_DRAINING);
	reserve_start(&a, v, true);
	TAP_OK(v->state == VM_RESERVING && asked(RESERVATION_JOIN), "a start: it registers");
	answer(RESERVATION_JOIN, RESERVATION_OK);
	TAP_OK(!done(AGENT_ACT_RESERVE) && a.claimer.refresh, "registered: nobody is preempted before all claims are read");
	claims_read(a.now_ns, true);
	TAP_OK(!done(AGENT_ACT_RESERVE), "a read that was issued at that moment, or before, does not count");
	claims_read(a.now_ns + 1, true);
	TAP_OK(asked(RESERVATION_OWN), "one that was issued after it, and shows the VM to be ours, does");
	answer(RESERVATION_OWN, RESERVATION_OK);
	TAP_OK(v->state == VM_STARTING && done(AGENT_ACT_START) && v->reservation.reserved, "reserved, and started");

	joined(RESERVATION_OK);
	claims_read(a.now_ns + 1, false);
	TAP_OK(v->state == VM_CLAIMING && !done(AGENT_ACT_RESERVE), "it is not ours any more: the claim cycle says what becomes of it");
	joined(RESERVATION_OK);
	a.table.table.gate_open = false;
	claims_read(a.now_ns + 1, true);
	TAP_OK(v->state == VM_RESTARTING && asked(RESERVATION_LEAVE), "the gate is closed: nobody is preempted, and our key goes");

	joined(RESERVATION_STANDS);
	claims_read(a.now_ns + 1, true);
	TAP_OK(asked(RESERVATION_CLEAR), "it goes without, where a reservation was left: that goes the same way");
	answer(RESERVATION_CLEAR, RESERVATION_OK);
	TAP_OK(v->state == VM_STARTING && !v->reservation.reserved && !v->reservation.keyed, "and it is started without");
	joined(RESERVATION_NONE);
	TAP_OK(v->state == VM_STARTING && !v->reservation.reserved, "nothing to be had, nor in the way: started at once");
}

static void test_failures(void)
{
	int64_t waits[4];
	unsigned n = 0;

	set_up(VM_DRAINING);
	for (n = 0; n < 4; n++) {
		reserve_start(&a, v, true);
		answer(RESERVATION_JOIN, n & 1 ? RESERVATION_FOREIGN : RESERVATION_FAILED);
		if (v->state != VM_RESTARTING)
			break;
		waits[n] = v->retry_ns - a.now_ns;
		v->state = VM_DRAINING;
	}
	TAP_OK(n == 4 && waits[0] < waits[1] && waits[1] < waits[2] && waits[2] < waits[3], "it cannot be had: again, later and later");
	reserve_start(&a, v, true);
	answer(RESERVATION_JOIN, RESERVATION_FAILED);
	TAP_OK(v->state == VM_DRAINING && v->release_as == CLAIM_FAILED && v->failures == 0 && v->failed_ns != 0, "then it is the other nodes' turn");
	set_up(VM_DRAINING);
	v->def.failed_limit = 1;
	v->reservation.failures = 4;
	v->reservation.failed_ns = a.now_ns;
	reserve_start(&a, v, true);
	answer(RESERVATION_JOIN, RESERVATION_FAILED);
	TAP_OK(v->state == VM_DRAINING && v->notes_only && v->release_as == CLAIM_UNCLEAN, "nor where that would be counted, once this host writes nothing for a QEMU before");
	a.n_actions = 0;
	vmlife_event(&a, v, &(struct agent_event){ .kind = AGENT_EV_DRAINED });
	TAP_OK(v->state == VM_RELEASING && asked(RESERVATION_LEAVE) && a.claimer.n_wants == 1 && a.claimer.want[0].to == CLAIM_UNCLEAN && v->failures == 0,
	       "where that would be counted it is no failure");
}

static void test_lost(void)
{
	set_up(VM_RUNNING);
	v->reservation.reserved = v->reservation.keyed = true;
	v->def.restart = RESTART_NEVER;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(v->state == VM_RUNNING && done(AGENT_ACT_KILL), "a key is lost: its guest is ended");
	exits(VM_EXIT_KILLED);
	TAP_OK(v->state == VM_RESTARTING && v->failures == 0 && !v->guest_off && v->term == 0 && a.claimer.refresh && a.claimer.n_wants == 0,
	       "and started again, which is no failure, once all claims were read");
	set_up(VM_RUNNING);
	v->reservation.reserved = true;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	exits(VM_EXIT_GUEST_OFF);
	TAP_OK(v->state == VM_RESTARTING && v->guest_off, "a guest that has just powered itself off stays off");
	set_up(VM_STOPPING);
	v->reservation.reserved = true;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(v->state == VM_STOPPING && !done(AGENT_ACT_KILL), "one that is being shut down goes on with that");
	set_up(VM_RUNNING);
	v->reservation.reserved = v->def.frozen = true;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(v->state == VM_RUNNING && !done(AGENT_ACT_KILL), "hands off: it is left alone");
	v->def.frozen = false;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(done(AGENT_ACT_KILL), "hands on again: it is ended");
	set_up(VM_STARTING);
	v->reservation.reserved = true;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	exits(VM_EXIT_KILLED);
	TAP_OK(v->state == VM_RESTARTING && v->failures == 0, "the same of one that is just starting");
}

static void starts(void)
{
	struct agent_event ev = { .kind = AGENT_EV_STARTED };

	pass(1);
	vmlife_event(&a, v, &ev);
}

static void lost_before_it_was_there(void)
{
	set_up(VM_STARTING);
	v->reservation.reserved = v->reservation.keyed = true;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
}

/* What is told to end before its process is there does not hear it. */
static void test_lost_early(void)
{
	lost_before_it_was_there();
	TAP_OK(v->state == VM_STARTING && done(AGENT_ACT_KILL), "a key is lost while its QEMU is being started: it is told to end");
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(done(AGENT_ACT_KILL), "and again, each time that is seen");
	starts();
	TAP_OK(v->state == VM_RUNNING && done(AGENT_ACT_KILL) && v->health.ending == TROUBLE_RESERVATION, "its QEMU was not there then, and is now: it is ended");
	pass(30001);
	health_tick(&a, v);
	TAP_OK(done(AGENT_ACT_KILL), "again, if it does not listen");
	exits(VM_EXIT_KILLED);
	TAP_OK(v->state == VM_RESTARTING && v->failures == 0 && v->last_failure == TROUBLE_RESERVATION && a.claimer.refresh, "and started again, once all claims were read");

	lost_before_it_was_there();
	v->def.frozen = true;
	starts();
	TAP_OK(v->state == VM_RUNNING && !done(AGENT_ACT_KILL), "hands off when it is there: it is left alone");
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(!done(AGENT_ACT_KILL), "for as long as they are");
	v->def.frozen = false;
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(done(AGENT_ACT_KILL), "hands on again: it is ended");

	lost_before_it_was_there();
	v->state = VM_DRAINING;
	reserve_leave(&a, v, CLAIM_RELEASED);
	TAP_OK(!v->reservation.lost, "given up: of what comes next nothing is lost");
}

static void incoming(enum migrate_phase phase)
{
	set_up(VM_INCOMING);
	v->migration = (struct vm_migration){ .phase = phase, .peer = 2, .peer_generation = 5, .id = 77, .since_ns = a.now_ns };
	v->reservation.joined = v->reservation.keyed = true;
}

static void test_incoming(void)
{
	struct agent_event handed = { .kind = AGENT_EV_MIGRATION, .migration = 77, .news = MIGRATE_NEWS_HANDED, .node = 2 };

	incoming(MIGRATE_OFFERED);
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(v->state == VM_DISCARDING && done(AGENT_ACT_KILL) && done(AGENT_ACT_TELL) && done(AGENT_ACT_TELL)->news == MIGRATE_NEWS_OFF, "a target's key is lost: it is not taken");

	incoming(MIGRATE_LOADED);
	pass(1);
	migrate_event(&a, v, &handed);
	TAP_OK(v->state == VM_INCOMING, "handed over: not taken before its key is known to be there since its source sends");
	reserve_arriving(&a, v);
	TAP_OK(asked(RESERVATION_CHECK), "which is asked");
	answer(RESERVATION_CHECK, RESERVATION_FAILED);
	migrate_event(&a, v, &handed);
	reserve_arriving(&a, v);
	TAP_OK(v->state == VM_INCOMING && !done(AGENT_ACT_RESERVE), "no answer: not yet");
	pass(2000);
	reserve_arriving(&a, v);
	TAP_OK(asked(RESERVATION_CHECK), "asked again");
	answer(RESERVATION_CHECK, RESERVATION_OK);
	migrate_event(&a, v, &handed);
	TAP_OK(v->state == VM_TAKING, "it is there: taken");
	answer(RESERVATION_CHECK, RESERVATION_LOST);
	TAP_OK(v->state == VM_TAKING && done(AGENT_ACT_KILL), "lost while its claim is on its way: its QEMU is ended");

	incoming(MIGRATE_LOADED);
	v->reservation.joined = false;
	migrate_event(&a, v, &handed);
	TAP_OK(v->state == VM_TAKING, "of one that goes without nothing is asked");
	set_up(VM_INCOMING);
	v->migration = (struct vm_migration){ .phase = MIGRATE_JOINING, .peer = 2 };
	reserve_join(&a, v);
	answer(RESERVATION_JOIN, RESERVATION_STANDS);
	TAP_OK(v->state == VM_IDLE && asked(RESERVATION_LEAVE), "one that would go without behind the source's reservation is not taken");
}

static void test_owner(void)
{
	set_up(VM_RUNNING);
	v->reservation.reserved = true;
	answer(RESERVATION_KEEP, RESERVATION_OTHERS);
	TAP_OK(asked(RESERVATION_OWN) && v->reservation.owning, "somebody else has registered: preempted");
	answer(RESERVATION_OWN, RESERVATION_FAILED);
	pass(1998);
	reserve_tick(&a, v);
	TAP_OK(!done(AGENT_ACT_RESERVE), "which has failed: not at once");
	pass(1);
	reserve_tick(&a, v);
	TAP_OK(asked(RESERVATION_OWN), "but again");
	answer(RESERVATION_OWN, RESERVATION_FAILED);
	pass(3000);
	reserve_tick(&a, v);
	TAP_OK(!done(AGENT_ACT_RESERVE), "later each time");
	v->migration.phase = MIGRATE_SENDING;
	pass(60000);
	reserve_tick(&a, v);
	TAP_OK(!done(AGENT_ACT_RESERVE), "and not while its guest is being sent: the target's key would go, too");
	set_up(VM_RUNNING);
	v->reservation.reserved = true;
	v->def.move = (struct vm_move){ .node = 1, .live = true };
	a.maintenance = 1;
	v->def.move.node = 0;
	answer(RESERVATION_KEEP, RESERVATION_OTHERS);
	TAP_OK(!done(AGENT_ACT_RESERVE), "nor while somebody may be about to take it as it runs");
}

static void test_end(void)
{
	set_up(VM_STOPPING);
	reserve_found(&a, v);
	answer(RESERVATION_LEARN, RESERVATION_OK);
	TAP_OK(v->reservation.keyed, "what is learnt of a VM that is being stopped is kept, too");
	set_up(VM_STOPPING);
	reserve_found(&a, v);
	TAP_OK(v->reservation.keyed, "and before it is known it may be");
	set_up(VM_IDLE);
	v->reservation.keyed = true;
	reserve_quit(&a, v);
	TAP_OK(asked(RESERVATION_LEAVE), "its key is taken back");
	pass(1);
	reserve_quit(&a, v);
	TAP_OK(asked(RESERVATION_LEAVE), "still, if that was not answered");
	answer(RESERVATION_LEAVE, RESERVATION_OK);
	reserve_quit(&a, v);
	TAP_OK(asked(RESERVATION_FORGET), "then there is nothing but its mark");
}

int main(void)
{
	test_start();
	test_failures();
	test_lost();
	test_lost_early();
	test_incoming();
	test_owner();
	test_end();
	return tap_done();
}
