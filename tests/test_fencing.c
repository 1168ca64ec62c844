/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fencing with more than the watchdog's word: devices, operators, brakes (fence/evidence.c, fence/brake.c), and what the agent does with devices
 * (agent/core/power.c, powerplan.c). Profile "fast", as in test_keeper_core.c. */
#include "agent/core/power.h"
#include "tests/sim_keeper.h"
#include "tests/tap.h"

static struct sim s;

static struct keeper *k(uint32_t id) { return &sim_node(&s, id)->k; }
static struct sim_node *n(uint32_t id) { return sim_node(&s, id); }
static enum lease_state state(uint32_t id) { return k(id)->state; }
static uint64_t bit(uint32_t id) { return 1ULL << (id - 1); }
static struct table_node *about(uint32_t by, uint32_t id) { return &k(by)->node[id - 1]; }
static bool over(uint32_t by, uint32_t id, uint32_t epoch) { return k(by)->mine.over[id - 1] >= epoch; }

static bool all_are(enum lease_state st)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (n(id)->runs && state(id) != st)
			return false;
	return true;
}

static void cluster_of(unsigned nodes, uint64_t armed, uint32_t brake, uint64_t unproven)
{
	sim_init(&s, nodes, 1);
	s.brake_percent = brake;
	for (uint32_t id = 1; id <= nodes; id++)
		n(id)->wd_none = unproven & bit(id);
	for (uint32_t id = 1; id <= nodes; id++)
		sim_start(&s, id);
	(void)SIM_UNTIL(&s, 5000, all_are(LEASE_DISARMED));
	sim_run(&s, 600);
	for (uint32_t id = 1; id <= nodes; id++)
		if (armed & bit(id))
			sim_say(&s, id, KEEPER_EV_ARM);
	sim_run(&s, 2000);
}

static void cluster(unsigned nodes, uint64_t armed, uint32_t brake) { cluster_of(nodes, armed, brake, 0); }

static void sound(const char *name)
{
	TAP_OK(!s.broken[0], "%s: and no invariant broke", name);
	if (s.broken[0])
		printf("#   %s\n", s.broken);
}

static void say(uint32_t by, enum fence_evidence kind, uint32_t id, uint32_t epoch, uint64_t seq)
{
	sim_event(n(by), (struct keeper_event){ .kind = KEEPER_EV_EVIDENCE, .evidence = { .kind = kind, .node = id, .epoch = epoch, .seq = seq } });
}

static void wish(uint32_t by, uint32_t id, uint32_t epoch)
{
	sim_event(n(by), (struct keeper_event){ .kind = KEEPER_EV_FENCE, .evidence = { .node = id, .epoch = epoch } });
}

/* A block of the node that comes from nowhere: it has gone on after all. */
static void goes_on(uint32_t id)
{
	struct heartbeat hb = about(1, id)->hb;

	hb.seq++;
	for (unsigned b = 0; b < 2; b++)
		heartbeat_encode(&hb, sim_cluster, b, s.volume[0] + format_heartbeat_offset(id, b));
}

/* Its power fails, and the ring of the others (of three) loses it. */
static void falls(uint32_t id)
{
	sim_power_cut(&s, id, SIM_CUT_DROP);
	for (uint32_t other = 1; other <= 3; other++)
		if (other != id)
			sim_ring(&s, other, 7 - bit(id));
}

static void comes(uint32_t id)
{
	sim_start(&s, id);
	sim_say(&s, id, KEEPER_EV_ARM);
	for (uint32_t other = 1; other <= 3; other++)
		sim_ring(&s, other, 7);
}

static void test_power(void)
{
	int64_t t0;
	uint64_t seq;
	bool early = false;

	cluster(3, 7, 100);
	falls(3);
	while (about(1, 3)->asked.epoch == 0 && s.now < SIM_MS(1040000)) {
		early = early || (k(1)->mine.commit[2] == 0 && about(1, 3)->asked.epoch != 0);
		sim_step(&s);
	}
	t0 = about(1, 3)->t0_ns;
	TAP_OK(!early && about(1, 3)->asked.epoch == 1 && about(1, 3)->asked.seq == about(1, 3)->hb.seq && about(1, 3)->commit_published && k(1)->block.commit[2] == 1,
	       "the devices are asked for once the commit is in place, about the block that stands still");
	say(1, EVIDENCE_POWER, 3, 1, about(1, 3)->asked.seq);
	TAP_OK(!over(1, 3, 1), "its \"off\" is no proof yet:");
	TAP_OK(SIM_UNTIL(&s, 200, over(1, 3, 1)) && n(1)->notes[NOTE_EVIDENCE] == 1, "it is one after one more round");
	TAP_OK(SIM_UNTIL(&s, 1000, over(2, 3, 1)) && s.now - t0 < SIM_MS(s.timing.w_ms), "both know before W has passed");
	sim_run(&s, 500);
	TAP_OK(about(1, 3)->asked.epoch == 0 && about(2, 3)->asked.epoch == 0, "and nobody asks any more");
	comes(3);
	sim_run(&s, 6000);
	TAP_OK(k(3)->epoch == 2 && state(3) == LEASE_ARMED && n(1)->notes[NOTE_EVIDENCE_VOID] == 0 && n(3)->notes[NOTE_RELEASE] == 0,
	       "switched on again it is back, and not fenced for its old life");
	sound("power");

	cluster(3, 7, 100);
	seq = about(1, 3)->hb.seq;
	say(1, EVIDENCE_POWER, 3, 1, seq);
	sim_run(&s, 2000);
	TAP_OK(k(1)->mine.over[2] == 0 && n(1)->notes[NOTE_EVIDENCE_VOID] == 1 && state(3) == LEASE_ARMED, "an answer that nobody has asked for is none");
	falls(3);
	(void)SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch != 0);
	say(1, EVIDENCE_POWER, 3, 1, seq);
	sim_run(&s, 300);
	TAP_OK(!over(1, 3, 1) && n(1)->notes[NOTE_EVIDENCE_VOID] == 2, "neither is one about an earlier block");
	say(1, EVIDENCE_POWER, 3, 2, about(1, 3)->asked.seq);
	sim_run(&s, 300);
	TAP_OK(!over(1, 3, 1), "nor one about another epoch");
	seq = about(1, 3)->asked.seq;
	say(1, EVIDENCE_POWER, 3, 1, seq);
	goes_on(3);
	t0 = s.now;
	sim_run(&s, 1000);
	TAP_OK(!over(1, 3, 1) && n(1)->notes[NOTE_EVIDENCE_VOID] == 4, "nor one that the re-read belies");
	(void)SIM_UNTIL(&s, 20000, over(1, 3, 1) || over(2, 3, 1));
	TAP_OK(s.now - t0 >= SIM_MS(s.timing.w_ms) && (over(1, 3, 1) || over(2, 3, 1)), "then W counts, from its last sign of life");
	sound("void evidence");

	cluster(3, 7, 100);
	falls(3);
	(void)SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch != 0);
	seq = about(1, 3)->asked.seq;
	goes_on(3);
	sim_run(&s, 1000);
	TAP_OK(about(1, 3)->asked.epoch == 0, "a node that goes on is no more to be switched off");
	TAP_OK(SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch == 1 || over(1, 3, 1)) && about(1, 3)->asked.seq == seq + 1, "until it stands still again, about that block");
	sound("called off");

	cluster(3, 7, 100);
	falls(3);
	(void)SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch != 0);
	sim_path(&s, 1, 0, SIM_GONE);
	TAP_OK(SIM_UNTIL(&s, 1200, about(1, 3)->asked.epoch == 0) && state(1) == LEASE_ARMED, "a keeper that cannot read has nobody switched off");
	sim_run(&s, 10000);
	TAP_OK(about(1, 3)->asked.epoch == 0, "nor has it once it has released");
	sound("unread");

	cluster(3, 7, 100);
	falls(3);
	(void)SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch != 0 && k(1)->phase == ROUND_IDLE);
	sim_path(&s, 1, 0, SIM_GONE);
	TAP_OK(SIM_UNTIL(&s, 1200, about(1, 3)->asked.epoch == 0), "nor one that has lost its storage between two rounds");
	sim_run(&s, 10000);
	TAP_OK(state(1) != LEASE_ARMED && about(1, 3)->asked.epoch == 0, "nor has it once it has released, with no round at all");
	sound("no round");

	/* Without storage it cannot say that it has released: but it can, and its host stays up. */
	cluster(3, 7, 100);
	sim_path(&s, 3, 0, SIM_GONE);
	early = false;
	while (!over(1, 3, 1) && s.now < SIM_MS(1040000)) {
		sim_run(&s, 10);
		early = early || about(1, 3)->asked.epoch != 0 || about(2, 3)->asked.epoch != 0;
	}
	TAP_OK(!early && over(1, 3, 1) && n(3)->resets == 0 && state(3) == LEASE_RELEASED, "a node that has only lost its storage, and is in the ring, is not switched off");
	sound("no storage");

	/* It lives, and releases by itself: the commit is enough. */
	cluster(3, 7, 100);
	sim_ring(&s, 3, bit(3));
	sim_ring(&s, 1, bit(1) | bit(2));
	sim_ring(&s, 2, bit(1) | bit(2));
	while (!over(1, 3, 1) && s.now < SIM_MS(1040000)) {
		early = early || about(1, 3)->asked.epoch != 0 || about(2, 3)->asked.epoch != 0;
		sim_step(&s);
	}
	TAP_OK(!early && over(1, 3, 1) && n(3)->resets == 0, "a node that is split off and releases is never to be switched off");
	sound("split off");
}

static void test_operator(void)
{
	cluster(3, 7, 100);
	say(1, EVIDENCE_OPERATOR, 3, 1, 0);
	sim_run(&s, 3000);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 1 && k(1)->mine.over[2] == 0 && state(3) == LEASE_ARMED && k(1)->mine.commit[2] == 0,
	       "an operator's word is refused while the heartbeat moves");
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_run(&s, 1000);
	say(1, EVIDENCE_OPERATOR, 3, 1, 0);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 2, "and when it stands still for a moment only");
	say(1, EVIDENCE_OPERATOR, 3, 2, 0);
	say(1, EVIDENCE_OPERATOR, 1, 1, 0);
	say(1, EVIDENCE_OPERATOR, 4, 1, 0);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 5, "and about another epoch, itself, a node that is none");
	(void)SIM_UNTIL(&s, 20000, about(1, 3)->commit_published);
	say(1, EVIDENCE_OPERATOR, 3, 1, 0);
	TAP_OK(SIM_UNTIL(&s, 200, over(1, 3, 1)) && n(1)->notes[NOTE_REFUSED] == 5 && s.now - about(1, 3)->t0_ns < SIM_MS(s.timing.w_ms),
	       "it is taken for one that is dead, before W has passed");
	say(1, EVIDENCE_OPERATOR, 3, 1, 0);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 6, "what is over need not be confirmed");
	sound("operator");

	/* What nothing else can prove: it was not armed. */
	cluster(3, 3, 100);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_run(&s, 20000);
	TAP_OK(k(1)->mine.commit[2] == 0 && k(1)->mine.over[2] == 0, "a dead node that was not armed stays as it is");
	say(3 - 2, EVIDENCE_OPERATOR, 3, 1, 0);
	TAP_OK(SIM_UNTIL(&s, 2000, over(1, 3, 1) && over(2, 3, 1)) && k(1)->block.commit[2] == 1, "until an operator confirms it; with intent and commit");
	sound("operator, not armed");

	cluster(3, 3, 100);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_run(&s, 5000);
	wish(2, 3, 1);
	TAP_OK(SIM_UNTIL(&s, 2000, about(2, 3)->asked.epoch == 1), "or wants it fenced: then its devices are asked");
	sim_run(&s, 20000);
	TAP_OK(!over(1, 3, 1), "W says nothing of it, however long");
	say(2, EVIDENCE_POWER, 3, 1, about(2, 3)->asked.seq);
	TAP_OK(SIM_UNTIL(&s, 1000, over(1, 3, 1)), "their answer does");
	sound("fenced, not armed");
}

static void test_wish(void)
{
	cluster(3, 7, 100);
	wish(1, 3, 1);
	TAP_OK(SIM_UNTIL(&s, 2000, over(1, 3, 1) && over(2, 3, 1)) && n(3)->released_for == RELEASE_COMMIT, "a live node that is to be fenced releases");
	sim_run(&s, 5000);
	TAP_OK(n(3)->resets == 0 && k(3)->epoch == 2 && state(1) == LEASE_ARMED && state(2) == LEASE_ARMED, "it is not reset, and back in the next epoch");
	wish(1, 3, 1);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 1, "a wish about an epoch that is over is refused");
	sound("wish");

	cluster(3, 7, 100);
	sim_ring(&s, 3, bit(3));
	sim_ring(&s, 1, bit(1) | bit(2));
	sim_ring(&s, 2, bit(1) | bit(2));
	sim_run(&s, 400);
	wish(3, 1, 1);
	sim_run(&s, 5000);
	TAP_OK(n(3)->notes[NOTE_REFUSED] == 1 && state(1) == LEASE_ARMED && over(1, 3, 1), "the losing side does not fence for an operator either");
	sound("wish of the losing side");

	cluster(2, 3, 100);
	wish(1, 2, 1);
	wish(2, 1, 1);
	sim_run(&s, 30000);
	TAP_OK(n(1)->notes[NOTE_RELEASE] + n(2)->notes[NOTE_RELEASE] <= 1 && k(1)->mine.intent[1] == 0 && k(2)->mine.intent[0] == 0 && state(1) == LEASE_ARMED,
	       "two that are to fence each other: not both, and not for ever");
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 20000, over(1, 2, k(2)->epoch)), "and a real death is still found out");
	sound("wishes against each other");
}

/* Evidence=no: a node without a watchdog, or one that somebody may pause for as long as he likes. */
static void test_no_proof(void)
{
	uint32_t for_ever_ms;

	cluster_of(3, 7, 100, bit(3));
	for_ever_ms = 100 * s.timing.w_ms;
	TAP_OK(all_are(LEASE_ARMED) && about(1, 3)->hb.wd_ms == FORMAT_SILENCE_IS_NO_PROOF && about(1, 2)->hb.wd_ms == s.timing.wd_ms, "it is armed like others, and its block says so");
	n(3)->paused = true;
	TAP_OK(SIM_UNTIL(&s, 20000, about(1, 3)->asked.epoch == 1) && about(1, 3)->commit_published, "paused: it is committed against, its devices are asked");
	sim_run(&s, for_ever_ms);
	TAP_OK(!over(1, 3, 1) && !over(2, 3, 1) && n(3)->vm_epoch == 1, "W proves nothing of it, however long");
	n(3)->paused = false;
	TAP_OK(SIM_UNTIL(&s, 20000, over(1, 3, 1) && over(2, 3, 1)) && n(3)->released_for == RELEASE_COMMIT && n(3)->resets == 0, "going on it releases, and says so");
	TAP_OK(SIM_UNTIL(&s, 20000, all_are(LEASE_ARMED)) && k(3)->epoch == 2, "and is back");
	sound("paused");

	n(3)->paused = true;
	(void)SIM_UNTIL(&s, 20000, about(2, 3)->asked.epoch == 2);
	sim_run(&s, for_ever_ms);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	say(2, EVIDENCE_POWER, 3, 2, about(2, 3)->asked.seq);
	TAP_OK(SIM_UNTIL(&s, 1000, over(1, 3, 2) && over(2, 3, 2)), "its devices' word ends it");
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 20000, over(1, 2, 1)), "of the others W says what it always does");
	sound("switched off");

	cluster_of(3, 7, 100, 7);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_run(&s, for_ever_ms);
	TAP_OK(!over(1, 3, 1), "nobody has one: the same");
	say(1, EVIDENCE_OPERATOR, 3, 1, 0);
	TAP_OK(SIM_UNTIL(&s, 1000, over(1, 3, 1)), "an operator's word ends it");
	sim_crash(&s, 2);
	sim_start(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(k(2)->epoch == 1 && state(2) == LEASE_ARMED && n(2)->vm_epoch == 1, "a keeper that is killed and started again goes on");
	sound("no watchdog");
}

static void test_brake(void)
{
	cluster(4, 15, 50);
	for (uint32_t id = 2; id <= 4; id++)
		sim_power_cut(&s, id, SIM_CUT_DROP);
	sim_run(&s, 30000);
	TAP_OK(k(1)->braked == 3 && n(1)->notes[NOTE_BRAKE] == 1 && n(1)->notes[NOTE_COMMIT] == 0 && n(1)->notes[NOTE_INTENT] == 0,
	       "three of four silent at once, half allowed: nobody is fenced");
	wish(1, 2, 1);
	TAP_OK(SIM_UNTIL(&s, 10000, over(1, 2, 1)) && !over(1, 3, 1), "an operator's wish is");
	sim_run(&s, 10000);
	TAP_OK(k(1)->braked == 2 && !over(1, 3, 1) && !over(1, 4, 1), "two of the three that are left are still too many");
	sim_start(&s, 3);
	sim_say(&s, 3, KEEPER_EV_ARM);
	TAP_OK(SIM_UNTIL(&s, 10000, k(1)->braked == 0) && n(1)->notes[NOTE_BRAKE] == 2, "with one back the brake is released");
	TAP_OK(SIM_UNTIL(&s, 10000, over(1, 4, 1)), "and the last one fenced");
	sound("brake");

	cluster(4, 15, 50);
	for (uint32_t id = 3; id <= 4; id++)
		sim_power_cut(&s, id, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 10000, over(1, 3, 1) && over(1, 4, 1)) && n(1)->notes[NOTE_BRAKE] == 0, "two of four: as without a brake");
	sound("no brake");

	/* Silent one after the other: what is over does not count any more. */
	cluster(4, 15, 50);
	for (uint32_t id = 4; id >= 3; id--) {
		sim_power_cut(&s, id, SIM_CUT_DROP);
		TAP_OK(SIM_UNTIL(&s, 10000, over(1, id, 1) && over(2, id, 1)), "node %u alone", id);
	}
	TAP_OK(n(1)->notes[NOTE_BRAKE] == 0, "one after the other: no brake");
	sound("one after the other");

	/* A commit that is in place is not taken back, and its W goes on. */
	cluster(4, 15, 50);
	sim_power_cut(&s, 4, SIM_CUT_DROP);
	(void)SIM_UNTIL(&s, 10000, about(1, 4)->commit_published && about(2, 4)->commit_published);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 1500, k(1)->braked == 3), "the brake comes on after a commit");
	TAP_OK(k(1)->mine.commit[3] == 1 && SIM_UNTIL(&s, 10000, over(1, 4, 1)) && !over(1, 3, 1) && !over(1, 2, 1), "which goes its way; no other does");
	sound("brake after a commit");

	/* In one and the same read somebody says that node 2 is over, whose own block looks alive: one of three is silent then, and not one of four. */
	cluster(4, 15, 30);
	sim_power_cut(&s, 4, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 10000, k(1)->mine.intent[3] != 0) && k(1)->braked == 0, "one of four: to be fenced");
	k(1)->block.intent[3] = k(1)->mine.intent[3];
	about(1, 3)->hb.over[1] = about(1, 2)->hb.epoch;
	takeover_round(k(1), true);
	TAP_OK(over(1, 2, about(1, 2)->hb.epoch) && k(1)->braked == 1 && k(1)->mine.commit[3] == 0 && k(1)->mine.intent[3] == 0,
	       "another one is over: it does not count any more, and the brake is on before anything is committed");
}

/* What power_plan_next says, and what it is told: o command, S status; + went well, - failed, 0 off, 1 on, t on and its time is up. */
static void play(const char *name, enum power_want want, const unsigned *level, unsigned count, const char *script, enum power_action end)
{
	static const char actions[] = { [POWER_OFF] = 'o', [POWER_ON] = 'o', [POWER_STATUS] = 'S', [POWER_PAUSE] = 'p' };
	struct power_plan p;
	unsigned device;
	bool as_said = true;

	power_plan_init(&p, want, level, count);
	for (; *script; script += 3) {
		enum power_action a = power_plan_next(&p, &device);
		char what = script[2];

		if (a == POWER_PAUSE) {
			power_plan_answer(&p, POWER_ANSWER_FAILED, true);
			a = power_plan_next(&p, &device);
		}
		as_said = as_said && a < POWER_DONE && actions[a] == script[0] && device == (unsigned)(script[1] - '0') && (a != POWER_ON || want == POWER_WANT_ON);
		power_plan_answer(&p, what == '+' ? POWER_ANSWER_OK : what == '-' ? POWER_ANSWER_FAILED : what == '0' ? POWER_ANSWER_IS_OFF : POWER_ANSWER_IS_ON,
				  what != 't');
	}
	TAP_OK(as_said && power_plan_next(&p, &device) == end, "plan: %s", name);
}

static void test_plan(void)
{
	static const unsigned one[] = { 1 }, two[] = { 1, 2 }, both[] = { 1, 1 }, three[] = { 1, 1, 2 };

	play("off, and says so", POWER_WANT_OFF, one, 1, "o0+S00", POWER_DONE);
	play("the command alone is nothing", POWER_WANT_OFF, one, 1, "o0+", POWER_STATUS);
	play("off takes its time", POWER_WANT_OFF, one, 1, "o0+S01S01S00", POWER_DONE);
	play("never says so", POWER_WANT_OFF, one, 1, "o0+S01S0t", POWER_FAILED);
	play("no status to be had", POWER_WANT_OFF, one, 1, "o0+S0-", POWER_FAILED);
	play("the command fails, but it is off", POWER_WANT_OFF, one, 1, "o0-S00", POWER_DONE);
	play("an answer to a command is no status", POWER_WANT_OFF, one, 1, "o00S0t", POWER_FAILED);
	play("the second device instead", POWER_WANT_OFF, two, 2, "o0-S0-o1+S10", POWER_DONE);
	play("the first suffices", POWER_WANT_OFF, two, 2, "o0+S00", POWER_DONE);
	play("two needed together", POWER_WANT_OFF, both, 2, "o0+o1+S00S10", POWER_DONE);
	play("one of two is not enough", POWER_WANT_OFF, both, 2, "o0+o1-S00S1t", POWER_FAILED);
	play("both fail, a third is off", POWER_WANT_OFF, three, 3, "o0+o1-S00S1-o2+S20", POWER_DONE);
	play("on", POWER_WANT_ON, one, 1, "o0+S00S01", POWER_DONE);
	play("no devices", POWER_WANT_OFF, one, 0, "", POWER_FAILED);
}

static void test_job(void)
{
	struct keeper_table_node t = { .epoch = 3 };
	struct keeper_evidence ev = { 0 };
	struct power_job j = { 0 };
	int64_t now = SIM_MS(1000);
	static struct keeper_msg table;

	table.table.at_ns = now;
	TAP_OK(power_table_counts(&table, now + SIM_MS(POWER_TABLE_MS)) && !power_table_counts(&table, now + SIM_MS(POWER_TABLE_MS + 1)),
	       "an agent that stood still finds old tables: they count for nothing");
	TAP_OK(power_job_step(&j, &t, 0, now) == POWER_STEP_NONE, "job: nobody asks");
	t.asked_epoch = 3;
	t.asked_seq = 70;
	TAP_OK(power_job_step(&j, &t, 0, now) == POWER_STEP_START && power_job_step(&j, &t, 0, now) == POWER_STEP_NONE, "job: asked, started once");
	TAP_OK(!power_job_ended(&j, false, now, &ev) && power_job_step(&j, &t, 0, now) == POWER_STEP_NONE &&
	       power_job_step(&j, &t, 0, now + SIM_MS(3000)) == POWER_STEP_START, "job: confirmed nothing, tried again after a while");
	t.asked_seq = 71;
	TAP_OK(power_job_step(&j, &t, 0, now + SIM_MS(3050)) == POWER_STEP_STOP && power_job_step(&j, &t, 0, now + SIM_MS(3150)) == POWER_STEP_START,
	       "job: the node has moved and stands still again: anew");
	TAP_OK(power_job_ended(&j, true, now + SIM_MS(3200), &ev) && ev.kind == EVIDENCE_POWER && ev.epoch == 3 && ev.seq == 71, "job: its evidence is about that block");
	TAP_OK(power_job_step(&j, &t, 0, now + SIM_MS(3300)) == POWER_STEP_NONE, "job: told");
	TAP_OK(power_job_step(&j, &t, 0, now + SIM_MS(9000)) == POWER_STEP_START, "job: still asked long after: told again");
	t.asked_epoch = 0;
	TAP_OK(power_job_step(&j, &t, 0, now + SIM_MS(9100)) == POWER_STEP_STOP && !power_job_ended(&j, true, now + SIM_MS(9200), &ev), "job: called off, its answer is nothing");
	t.asked_epoch = 3;
	TAP_OK(power_job_step(&j, &t, 2, now + SIM_MS(10000)) == POWER_STEP_NONE && power_job_step(&j, &t, 2, now + SIM_MS(11900)) == POWER_STEP_NONE &&
	       power_job_step(&j, &t, 2, now + SIM_MS(12100)) == POWER_STEP_START, "job: after those with lower ids");
}

static void test_power_wish(void)
{
	struct keeper_table_node t = { .epoch = 3, .over = 2 };
	struct power_wish w = { 0 };
	int64_t now = SIM_MS(1000);

	TAP_OK(!power_wish_step(&w, &t, true, false, now), "wish: none");
	power_wish_on_again(&w, 3);
	TAP_OK(!power_wish_step(&w, &t, true, false, now + SIM_MS(60000)), "wish: not on before it is proven over");
	t.over = 3;
	TAP_OK(!power_wish_step(&w, &t, false, false, now) && w.set, "wish: not on in maintenance, but remembered");
	TAP_OK(!power_wish_step(&w, &t, true, false, now) && !power_wish_step(&w, &t, true, false, now + SIM_MS(9999)) && power_wish_step(&w, &t, true, false, now + SIM_MS(10000)),
	       "wish: on after a while");
	now += SIM_MS(10000);
	for (int64_t again = 10; again <= 320; again *= 2) {
		TAP_OK(!power_wish_step(&w, &t, true, false, now + SIM_MS(again * 1000 - 1)) && power_wish_step(&w, &t, true, false, now + SIM_MS(again * 1000)),
		       "wish: that failed, once more after %d s", (int)again);
		now += SIM_MS(again * 1000);
	}
	TAP_OK(power_wish_step(&w, &t, true, false, now + SIM_MS(320000)), "wish: and for as long as it takes, every 320 s");
	t.fresh = true;
	TAP_OK(!power_wish_step(&w, &t, true, false, now + SIM_MS(900000)) && !w.set, "wish: it is back");
	t.fresh = false;
	power_wish_on_again(&w, 3);
	t.epoch = 4;
	TAP_OK(!power_wish_step(&w, &t, true, false, now) && !w.set, "wish: it was back");

	w = (struct power_wish){ .set = true, .want = POWER_WANT_OFF, .epoch = 4 };
	TAP_OK(!power_wish_step(&w, &t, true, true, now) && w.set, "wish: not off before that lease is over");
	power_wish_on_again(&w, 4);
	TAP_OK(w.set && w.want == POWER_WANT_OFF, "wish: what an operator wants off is not to be switched on again");
	t.over = 4;
	TAP_OK(power_wish_step(&w, &t, true, true, now) && !power_wish_step(&w, &t, true, true, now) && power_wish_step(&w, &t, true, true, now + SIM_MS(10000)),
	       "wish: off at once, and again if that failed");
	TAP_OK(!power_wish_step(&w, &t, true, false, now + SIM_MS(90000)) && !w.set, "wish: not after it was let out of quarantine");

	w = (struct power_wish){ .set = true, .want = POWER_WANT_OFF, .epoch = 5 };
	TAP_OK(!power_wish_step(&w, &t, true, false, now) && w.set && !power_wish_step(&w, &t, true, true, now) && w.set, "wish: off once it is over, in quarantine");
	t.over = 5;
	TAP_OK(!power_wish_step(&w, &t, true, false, now) && !w.set, "wish: let out before it was over: not switched off later");

	w = power_wish_now(4, now);
	TAP_OK(!power_wish_step(&w, &t, true, false, now + SIM_MS(9999)) && power_wish_step(&w, &t, true, false, now + SIM_MS(10000)), "wish: an operator's order that failed is tried again");
}

static bool is_too_many(struct power_fences *f, unsigned limit, int64_t now_ns)
{
	f->due = false;
	f->asked_ns = 0;
	power_fences_add(f, limit, now_ns);
	return power_fences_step(f, true, false, now_ns);
}

static void test_fences(void)
{
	struct power_fences f = { 0 };
	int64_t minute = 60 * 1000 * NS_PER_MS;
	bool any = false;

	TAP_OK(!is_too_many(&f, 3, 0) && !is_too_many(&f, 3, 30 * minute) && is_too_many(&f, 3, 60 * minute), "quarantine: the third within an hour");
	TAP_OK(!is_too_many(&f, 3, 91 * minute), "quarantine: not with one that was longer ago");
	f = (struct power_fences){ 0 };
	for (unsigned i = 0; i < 1000; i++)
		any = any || is_too_many(&f, 0, (int64_t)i);
	TAP_OK(!any && is_too_many(&f, POWER_FENCES_KEPT, 1000) && !is_too_many(&f, POWER_FENCES_KEPT + 1, 1001), "quarantine: never, and as often as can be");
	f = (struct power_fences){ 0 };
	TAP_OK(is_too_many(&f, 1, 5), "quarantine: at the first");

	f = (struct power_fences){ 0 };
	power_fences_add(&f, 2, minute);
	power_fences_add(&f, 2, 2 * minute);
	TAP_OK(!power_fences_step(&f, false, false, 2 * minute), "quarantine: who does not lead edits nothing");
	TAP_OK(power_fences_step(&f, true, false, 3 * minute) && !power_fences_step(&f, true, false, 3 * minute + SIM_MS(9999)), "quarantine: who leads by then does");
	TAP_OK(power_fences_step(&f, true, false, 3 * minute + SIM_MS(10000)), "quarantine: and again while the catalog does not say so");
	TAP_OK(!power_fences_step(&f, true, true, 4 * minute) && !power_fences_step(&f, true, true, 5 * minute), "quarantine: it does");
	power_fences_add(&f, 2, 6 * minute);
	(void)power_fences_step(&f, false, true, 6 * minute);
	TAP_OK(!power_fences_step(&f, true, false, 7 * minute), "quarantine: let out, it is not put there again for what was before, whoever leads");
	power_fences_add(&f, 2, 8 * minute);
	TAP_OK(!power_fences_step(&f, true, false, 8 * minute), "quarantine: nor by one more fence");
	power_fences_add(&f, 2, 9 * minute);
	TAP_OK(power_fences_step(&f, true, false, 9 * minute), "quarantine: by two more");
	f.asked_ns = 0;
	TAP_OK(!power_fences_step(&f, true, false, 70 * minute), "quarantine: not an hour later, when nobody could edit the catalog before");
}

int main(void)
{
	test_power();
	test_operator();
	test_wish();
	test_no_proof();
	test_brake();
	test_plan();
	test_job();
	test_power_wish();
	test_fences();
	return tap_done();
}
