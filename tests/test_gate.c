/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper's gate when its agent is silent (fence/gate.c): what it says of the claims, to whom it opens again, and when. Profile "fast", as in test_keeper_core.c. */
#include "tests/sim_keeper.h"
#include "tests/tap.h"

static struct sim s;
static uint64_t counter = 1;
static uint64_t stopped; /* bit (id - 1): whose agent says nothing */

static struct keeper *k(uint32_t id) { return &sim_node(&s, id)->k; }
static struct sim_node *n(uint32_t id) { return sim_node(&s, id); }
static bool opens(uint32_t id, uint64_t term) { return keeper_gate_admits(k(id), k(id)->epoch, term, s.now); }

/* Agents speak every T_hb. */
static void run(uint32_t ms)
{
	for (int64_t end = s.now + SIM_MS(ms); s.now < end;) {
		counter++;
		for (uint32_t id = 1; id <= s.n; id++)
			if (!(stopped >> (id - 1) & 1))
				sim_event(n(id), (struct keeper_event){ .kind = KEEPER_EV_AGENT, .agent = { .counter = counter } });
		sim_run(&s, (uint32_t)MIN((end - s.now) / NS_PER_MS, (int64_t)s.timing.hb_ms));
	}
}

static void cluster(unsigned volumes)
{
	stopped = 0;
	sim_init(&s, 2, volumes);
	s.timing.silent_ms = timing_silent_ms(&s.timing);
	for (uint32_t id = 1; id <= s.n; id++) {
		sim_start(&s, id);
		n(id)->processes = (struct keeper_processes){ .known = true, .n = 2, .mark = { 11, 12 } };
	}
	run(3000);
	for (uint32_t id = 1; id <= s.n; id++)
		sim_say(&s, id, KEEPER_EV_ARM);
	run(3000);
}

static const struct heartbeat *seen(uint32_t by, uint32_t id) { return &k(by)->node[id - 1].hb; }
static bool says(uint32_t id, bool silent, unsigned marks) { return seen(3 - id, id)->silent == silent && seen(3 - id, id)->n_marks == marks; }

static void fall_silent(void)
{
	stopped = 1;
	run(s.timing.silent_ms + 2 * s.timing.hb_ms + 100);
}

/* In how many buffers of its slots on all volumes a node says so. */
static unsigned buffers_that_say(uint32_t id, bool silent)
{
	struct heartbeat hb;
	unsigned sum = 0;

	for (unsigned v = 0; v < s.n_volumes; v++)
		for (unsigned b = 0; b < 2; b++)
			sum += heartbeat_decode(s.volume[v] + format_heartbeat_offset(id, b), id, b, sim_cluster, &hb) == FORMAT_OK && hb.silent == silent;
	return sum;
}

static void sound(const char *name)
{
	TAP_OK(!s.broken[0], "%s: and no invariant broke", name);
	if (s.broken[0])
		printf("#   %s\n", s.broken);
}

static void test_silence(void)
{
	uint64_t term;

	cluster(1);
	term = k(1)->gate.term;
	TAP_OK(term != 0 && opens(1, term) && !opens(1, term + 1) && !opens(1, 0), "the gate admits what was claimed under its term, and nothing else");
	run(3 * s.timing.silent_ms);
	TAP_OK(k(1)->gate.term == term && n(1)->questions == 0 && says(1, false, 0), "an agent that speaks: nothing changes");
	stopped = 1;
	run(s.timing.silent_ms - 2 * s.timing.hb_ms);
	TAP_OK(opens(1, term) && n(1)->notes[NOTE_SILENT] == 0, "silent for a little less than T_silent: open");
	run(4 * s.timing.hb_ms);
	TAP_OK(!opens(1, term) && n(1)->notes[NOTE_SILENT] == 1 && says(1, true, 2) && seen(2, 1)->mark[0] == 11, "then it is closed, and says which VMs have a process");
	TAP_OK(k(1)->state == LEASE_ARMED && n(1)->kills == 0, "its lease goes on, nobody is killed");
	n(1)->processes.n = 1;
	run(3 * s.timing.hb_ms);
	TAP_OK(says(1, true, 1) && seen(2, 1)->mark[0] == 11, "one ends: it goes off the list");
	n(1)->processes = (struct keeper_processes){ .known = true, .n = 3, .mark = { 11, 12, 13 } };
	run(3 * s.timing.hb_ms);
	TAP_OK(says(1, true, 1), "what comes to the slice now is a launcher that will be refused: the list does not grow");
	n(1)->processes = (struct keeper_processes){ .known = false };
	run(3 * s.timing.hb_ms);
	TAP_OK(says(1, true, 1), "while it cannot be told, or the host still sends, nobody goes off it");
	n(1)->processes.known = true;
	run(3 * s.timing.hb_ms);
	TAP_OK(says(1, true, 0), "then the last one does");
	stopped = 0;
	run(1);
	TAP_OK(!opens(1, term) && !opens(1, k(1)->gate.term), "heard again: still closed, until its blocks say so");
	(void)SIM_UNTIL(&s, 1000, opens(1, k(1)->gate.term));
	TAP_OK(opens(1, k(1)->gate.term) && buffers_that_say(1, false) == 2, "both of them: one that rots takes nothing back");
	run(3 * s.timing.hb_ms);
	TAP_OK(says(1, false, 0) && k(1)->gate.term > term && opens(1, k(1)->gate.term) && !opens(1, term),
	       "then open, for what is claimed or confirmed after that, and not for what was before");
	TAP_OK(n(1)->notes[NOTE_SILENT] == 2, "both are told");
	sound("silence");
}

static void test_unknown(void)
{
	uint64_t term;

	cluster(1);
	term = k(1)->gate.term;
	n(1)->processes.known = false;
	fall_silent();
	TAP_OK(!opens(1, term) && n(1)->questions > 1 && says(1, false, 0), "nothing is said before every process is known, and asked again and again");
	stopped = 0;
	run(300);
	TAP_OK(opens(1, term), "nothing was said: the gate opens for the same term");
	n(1)->processes.known = true;
	n(1)->processes_late = true;
	fall_silent();
	stopped = 0;
	run(300);
	stopped = 1;
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_PROCESSES, .processes = &n(1)->processes });
	run(s.timing.silent_ms - 1000);
	TAP_OK(opens(1, term) && says(1, false, 0), "an answer that comes when the gate is open again says nothing");
	run(2000);
	n(1)->processes.number--;
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_PROCESSES, .processes = &n(1)->processes });
	run(600);
	TAP_OK(!opens(1, term) && says(1, false, 0), "nor does one to an earlier question");
	sound("unknown");
}

static void test_quorum(void)
{
	uint64_t term;

	cluster(3);
	term = k(1)->gate.term;
	fall_silent();
	TAP_OK(says(1, true, 2), "three volumes: it says so");
	sim_path(&s, 1, 1, SIM_REFUSE_WRITES);
	sim_path(&s, 1, 2, SIM_REFUSE_WRITES);
	stopped = 0;
	run(600);
	TAP_OK(!opens(1, k(1)->gate.term) && k(1)->gate.term == term, "taken back on one volume of three: closed");
	sim_path(&s, 1, 1, SIM_OK);
	run(1500);
	TAP_OK(opens(1, k(1)->gate.term) && k(1)->gate.term > term, "on two: open");
	sound("quorum");
	cluster(2);
	fall_silent();
	sim_path(&s, 1, 1, SIM_REFUSE_WRITES);
	stopped = 0;
	run(2000);
	TAP_OK(k(1)->state == LEASE_ARMED && !opens(1, k(1)->gate.term), "two volumes: one renews the lease, and does not open the gate");
	sim_path(&s, 1, 1, SIM_OK);
	run(2000);
	TAP_OK(opens(1, k(1)->gate.term), "both do");
	sound("two volumes");
}

static void test_restart(void)
{
	uint64_t term, next;

	cluster(3);
	term = k(1)->gate.term;
	sim_crash(&s, 1);
	sim_start(&s, 1);
	run(2500);
	next = k(1)->gate.term;
	TAP_OK(k(1)->epoch == 1 && next > term && opens(1, next) && !opens(1, term), "a keeper that starts again cannot know what was said of its claims: a new term");
	fall_silent();
	TAP_OK(says(1, true, 2), "silent");
	sim_crash(&s, 1);
	n(1)->processes.n = 1;
	sim_start(&s, 1);
	run(s.timing.drain_ms + 2500);
	TAP_OK(k(1)->epoch == 1 && says(1, true, 1) && !opens(1, k(1)->gate.term), "it starts again meanwhile: silent at once, not T_silent later");
	stopped = 0;
	run(1000);
	TAP_OK(opens(1, k(1)->gate.term) && k(1)->gate.term > next && says(1, false, 0), "and heard at last");
	sound("restart");
}

static void test_release(void)
{
	cluster(1);
	fall_silent();
	sim_path_all(&s, 1, SIM_HANG);
	run(s.timing.wd_ms);
	TAP_OK(n(1)->kills == 1 && n(1)->resets == 0, "a node whose agent is silent releases as any other");
	sim_path_all(&s, 1, SIM_OK);
	run(15000);
	TAP_OK(k(1)->epoch == 2 && says(1, true, 2) && !opens(1, k(1)->gate.term), "its next epoch has nobody to start anything either");
	stopped = 0;
	run(1000);
	TAP_OK(opens(1, k(1)->gate.term) && says(1, false, 0), "until the agent is heard");
	sound("release");
}

int main(void)
{
	test_silence();
	test_unknown();
	test_quorum();
	test_restart();
	test_release();
	return tap_done();
}
