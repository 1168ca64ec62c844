/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scenarios for the keeper core: what happens to a cluster of keepers, and what must come of it. The invariants are looked at
 * after every step by tests/sim_keeper.h; each scenario ends with "and nothing broke". Profile "fast": heartbeat 250 ms, I/O
 * 500, watchdog 2000, soft 1600, W 4444. */
#include "tests/sim_keeper.h"
#include "tests/tap.h"

static struct sim s;

static struct keeper *k(uint32_t id) { return &sim_node(&s, id)->k; }
static struct sim_node *n(uint32_t id) { return sim_node(&s, id); }
static enum lease_state state(uint32_t id) { return k(id)->state; }
static uint64_t bit(uint32_t id) { return 1ULL << (id - 1); }
static uint32_t w_ms(void) { return s.timing.w_ms; }

/* From a node's last heartbeat to its death being known, when nothing else is wrong. */
static uint32_t over_bound_ms(void) { return w_ms() + 2 * s.timing.hb_ms + 2 * s.timing.io_ms; }

static bool all_are(enum lease_state st)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (n(id)->runs && state(id) != st)
			return false;
	return true;
}

static void start_all(unsigned nodes, unsigned volumes)
{
	sim_init(&s, nodes, volumes);
	for (uint32_t id = 1; id <= nodes; id++)
		sim_start(&s, id);
	(void)SIM_UNTIL(&s, 5000, all_are(LEASE_DISARMED));
	sim_run(&s, 600);
}

static void arm_all(void)
{
	for (uint32_t id = 1; id <= s.n; id++)
		sim_say(&s, id, KEEPER_EV_ARM);
	(void)SIM_UNTIL(&s, 5000, all_are(LEASE_ARMED));
	sim_run(&s, 1000);
}

static void armed_cluster(unsigned nodes, unsigned volumes)
{
	start_all(nodes, volumes);
	arm_all();
}

static unsigned total(enum keeper_note note)
{
	unsigned sum = 0;

	for (uint32_t id = 1; id <= s.n; id++)
		sum += n(id)->notes[note];
	return sum;
}

static unsigned resets(void)
{
	unsigned sum = 0;

	for (uint32_t id = 1; id <= s.n; id++)
		sum += n(id)->resets;
	return sum;
}

static bool undisturbed(void) { return total(NOTE_RELEASE) == 0 && total(NOTE_COMMIT) == 0 && resets() == 0; }

static void sound(const char *name)
{
	TAP_OK(!s.broken[0], "%s: and no invariant broke", name);
	if (s.broken[0])
		printf("#   %s\n", s.broken);
}

static struct heartbeat on_disk(uint32_t id, unsigned volume)
{
	struct heartbeat hb[2] = { 0 };

	for (unsigned b = 0; b < 2; b++)
		(void)heartbeat_decode(s.volume[volume] + format_heartbeat_offset(id, b), id, b, sim_cluster, &hb[b]);
	return format_compare(hb[0].epoch, hb[0].seq, hb[1].epoch, hb[1].seq) > 0 ? hb[0] : hb[1];
}

/* Puts a block on every volume, as another host that believes to be this node would; both buffers, so that the age of either
 * cannot matter. */
static void forge(uint32_t id, const struct heartbeat *hb)
{
	for (unsigned v = 0; v < s.n_volumes; v++)
		for (unsigned b = 0; b < 2; b++)
			heartbeat_encode(hb, sim_cluster, b, s.volume[v] + format_heartbeat_offset(id, b));
}

static void test_start(void)
{
	int64_t began, wrote;

	sim_init(&s, 2, 1);
	began = s.now;
	sim_start(&s, 1);
	TAP_OK(SIM_UNTIL(&s, 5000, on_disk(1, 0).epoch == 1), "start: the first epoch is 1");
	wrote = s.now;
	TAP_OK(wrote - began >= SIM_MS(s.timing.drain_ms), "start: nothing is written before T_drain has passed");
	TAP_OK(on_disk(1, 0).state == HEARTBEAT_DISARMED && !n(1)->wd_running, "start: disarmed, without a watchdog");
	TAP_OK(!keeper_gate_open(k(1), 1, s.now), "start: the gate is closed until the epoch is known to be published");
	sim_run(&s, 500);
	TAP_OK(keeper_gate_open(k(1), 1, s.now) && !keeper_gate_open(k(1), 0, s.now) && !keeper_gate_open(k(1), 2, s.now),
	       "start: then open for this epoch only");
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	sim_start(&s, 1);
	sim_run(&s, 2000);
	TAP_OK(k(1)->epoch == 2 && on_disk(1, 0).epoch == 2, "start: after a power cut the next epoch");
	n(1)->k.mine.over[1] = 40;
	sim_run(&s, 500);
	sim_start(&s, 2);
	sim_run(&s, 2000);
	TAP_OK(k(2)->epoch == 41, "start: above everything that names the node, here a death");
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	n(1)->k.mine.over[1] = FORMAT_MAX_EPOCH;
	sim_run(&s, 500);
	sim_start(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(state(2) == LEASE_STARTING && n(2)->notes[NOTE_EPOCHS_SPENT] == 1 && on_disk(2, 0).epoch == 41, "start: not above the highest number there is");
	sound("start");
}

static void spoil(uint32_t id, unsigned volume)
{
	for (unsigned b = 0; b < 2; b++)
		memset(s.volume[volume] + format_heartbeat_offset(id, b) + 512, 0xa5, 64);
}

/* A quorum is one for each node's block: what is damaged in different places takes nothing away. */
static void test_damage_apart(void)
{
	armed_cluster(3, 3);
	spoil(2, 0);
	spoil(3, 1);
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	spoil(2, 0);
	spoil(3, 1);
	sim_start(&s, 1);
	TAP_OK(SIM_UNTIL(&s, 5000, state(1) == LEASE_DISARMED), "a cold start, two nodes' blocks damaged on a volume each: it starts");
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	spoil(3, 2);
	sim_start(&s, 1);
	sim_run(&s, 5000);
	TAP_OK(state(1) == LEASE_STARTING, "one node's damaged on two volumes of three: nobody knows what it said");
	sound("damage apart");
}

/* An epoch that is on a minority of the volumes may be begun again by a life that does not see it: nothing may say that it is over. */
static void test_unpublished(void)
{
	sim_init(&s, 1, 3);
	for (unsigned v = 1; v < 3; v++)
		sim_path(&s, 1, v, SIM_REFUSE_WRITES);
	sim_start(&s, 1);
	sim_run(&s, 4000);
	TAP_OK(state(1) == LEASE_DISARMED && on_disk(1, 0).epoch == 1 && on_disk(1, 1).epoch == 0 && !keeper_gate_open(k(1), 1, s.now),
	       "an epoch that one volume of three has: the gate stays closed");
	sim_leave(&s, 1);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_LEFT && on_disk(1, 0).state == HEARTBEAT_DISARMED, "it leaves without a word");
	sound("leaving unpublished");
}

/* Nor by a later number: one that is on a minority, too, may be forgotten together with it. */
static void test_minority(void)
{
	uint32_t was;

	armed_cluster(3, 3);
	was = k(2)->epoch;
	TAP_OK(on_disk(2, 0).settled == was, "an epoch that is published is settled");
	for (unsigned i = 1; i <= 2; i++) {
		sim_power_cut(&s, 2, SIM_CUT_DROP);
		for (unsigned v = 1; v < 3; v++)
			sim_path(&s, 2, v, SIM_REFUSE_WRITES);
		sim_start(&s, 2);
		sim_run(&s, 4000);
		TAP_OK(on_disk(2, 0).epoch == was + i && on_disk(2, 0).settled == was && on_disk(2, 1).epoch == was && k(1)->mine.over[1] == was,
		       "number %u that one volume of three has ends what was published, and no more", i);
	}
	for (unsigned v = 1; v < 3; v++)
		sim_path(&s, 2, v, SIM_OK);
	sim_run(&s, 4000);
	TAP_OK(on_disk(2, 1).settled == was + 2 && k(1)->mine.over[1] == was + 1, "once it is on a quorum it ends them all");
	sound("numbers on a minority");
}

static void test_arm(void)
{
	uint64_t pets;

	start_all(2, 1);
	sim_say(&s, 1, KEEPER_EV_ARM);
	TAP_OK(SIM_UNTIL(&s, 1000, n(1)->wd_running) && on_disk(1, 0).state == HEARTBEAT_DISARMED, "arm: the watchdog first");
	TAP_OK(SIM_UNTIL(&s, 1000, state(1) == LEASE_ARMED) && !keeper_gate_open(k(1), 1, s.now), "arm: nothing may start before the word is out");
	TAP_OK(SIM_UNTIL(&s, 1000, on_disk(1, 0).state == HEARTBEAT_ARMED), "arm: then the word");
	TAP_OK(SIM_UNTIL(&s, 1000, keeper_gate_open(k(1), 1, s.now)), "arm: and the gate");
	sim_run(&s, 10000);
	TAP_OK(state(1) == LEASE_ARMED && resets() == 0 && n(1)->pets > 30, "arm: and it is petted, once a round");
	sim_say(&s, 1, KEEPER_EV_DISARM);
	TAP_OK(n(1)->wd_running, "disarm: not stopped at once");
	TAP_OK(SIM_UNTIL(&s, 2000, !n(1)->wd_running) && on_disk(1, 0).state == HEARTBEAT_DISARMED,
	       "disarm: the word first, then the watchdog");
	pets = n(1)->pets;
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_DISARMED && n(1)->pets == pets && resets() == 0, "disarm: no pets after");
	sound("arm and disarm");

	armed_cluster(2, 1);
	sim_say(&s, 1, KEEPER_EV_DISARM);
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_ARMED && n(1)->wd_running, "disarm and arm at once: armed, watched");
	sound("disarm and arm at once");

	armed_cluster(2, 1);
	sim_say(&s, 1, KEEPER_EV_DISARM);
	(void)SIM_UNTIL(&s, 2000, !n(1)->wd_running);
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_ARMED && n(1)->wd_running && resets() == 0,
	       "arm just after the watchdog was stopped: it is started again first");
	sound("arm just after the watchdog was stopped");

	armed_cluster(2, 1);
	n(1)->wd_slow = true;
	sim_say(&s, 1, KEEPER_EV_DISARM);
	(void)SIM_UNTIL(&s, 2000, n(1)->wd_owes);
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 400);
	n(1)->wd_slow = false;
	sim_wd_answer(&s, 1);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_ARMED && n(1)->wd_running && resets() == 0, "arm while the watchdog is being stopped");
	sound("arm while the watchdog is being stopped");

	start_all(2, 1);
	n(1)->wd_slow = true;
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_say(&s, 1, KEEPER_EV_DISARM);
	n(1)->wd_slow = false;
	sim_wd_answer(&s, 1);
	sim_run(&s, 5000);
	TAP_OK(state(1) == LEASE_DISARMED && !n(1)->wd_running && resets() == 0,
	       "disarm while the watchdog is being started: it is stopped again");
	sound("disarm while the watchdog is being started");

	start_all(2, 1);
	n(1)->wd_broken = true;
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_DISARMED && on_disk(1, 0).state == HEARTBEAT_DISARMED && n(1)->notes[NOTE_WD_FAILED] > 0,
	       "a watchdog that does not start: stays disarmed, and says so");
	sound("a watchdog that does not start");

	armed_cluster(2, 1);
	n(1)->wd_stuck = true;
	sim_say(&s, 1, KEEPER_EV_DISARM);
	sim_run(&s, 10000);
	TAP_OK(state(1) == LEASE_DISARMING && resets() == 0, "a watchdog that cannot be stopped is petted on");
	n(1)->wd_stuck = false;
	sim_run(&s, 2000);
	TAP_OK(state(1) == LEASE_DISARMED && !n(1)->wd_running, "and stopped when that works");
	sound("a watchdog that cannot be stopped");

	armed_cluster(2, 2);
	sim_path(&s, 1, 1, SIM_GONE);
	sim_say(&s, 1, KEEPER_EV_DISARM);
	sim_run(&s, 10000);
	TAP_OK(state(1) == LEASE_DISARMING && n(1)->wd_running && resets() == 0, "disarm without a fence quorum waits, watched");
	sim_path(&s, 1, 1, SIM_OK);
	sim_run(&s, 3000);
	TAP_OK(state(1) == LEASE_DISARMED, "and ends once there is one");
	sound("disarm without a fence quorum");
}

static void test_power_cut(void)
{
	static const char *const name[] = { "power cut, writes lost", "power cut, the last write lands after it",
		"power cut in the middle of a write" };

	for (unsigned how = SIM_CUT_DROP; how <= SIM_CUT_TEAR; how++) {
		int64_t cut, t0;

		armed_cluster(3, 1);
		(void)SIM_UNTIL(&s, 1000, k(3)->phase == ROUND_WRITING);
		sim_power_cut(&s, 3, (enum sim_cut)how);
		cut = s.now;
		(void)SIM_UNTIL(&s, 20000, k(1)->mine.over[2] != 0 || k(2)->mine.over[2] != 0);
		t0 = MAX(k(1)->node[2].t0_ns, k(2)->node[2].t0_ns);
		TAP_OK(s.now - MIN(k(1)->node[2].t0_ns, k(2)->node[2].t0_ns) >= SIM_MS(w_ms()),
		       "%s: over not before W after t0", name[how]);
		TAP_OK(s.now - cut <= SIM_MS(over_bound_ms()),
		       "%s: and in time (%lld ms)", name[how], (long long)((s.now - cut) / NS_PER_MS));
		TAP_OK(SIM_UNTIL(&s, 1000, k(1)->mine.over[2] == 1 && k(2)->mine.over[2] == 1) && t0 != 0,
		       "%s: both survivors know", name[how]);
		TAP_OK(state(1) == LEASE_ARMED && state(2) == LEASE_ARMED && resets() == 0 && total(NOTE_RELEASE) == 0 &&
		       n(1)->fault[0] == FAULT_NONE, "%s: and go on", name[how]);
		sim_start(&s, 3);
		sim_say(&s, 3, KEEPER_EV_ARM);
		sim_run(&s, 5000);
		TAP_OK(k(3)->epoch == 2 && state(3) == LEASE_ARMED && total(NOTE_RELEASE) == 0,
		       "%s: back with the next epoch, not fenced for the old one", name[how]);
		TAP_OK(k(1)->mine.commit[2] == 0 && k(1)->mine.over[2] == 1,
		       "%s: the commit is dropped, the death is kept", name[how]);
		sound(name[how]);
	}

	armed_cluster(3, 1);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	(void)SIM_UNTIL(&s, 20000, n(1)->notes[NOTE_COMMIT] > 0);
	sim_start(&s, 3);
	sim_run(&s, 6000);
	TAP_OK(k(3)->epoch == 2 && state(3) == LEASE_DISARMED && k(1)->mine.over[2] == 1 && total(NOTE_RELEASE) == 0,
	       "back during its own fence: new epoch, the old one over");
	sound("back during its own fence");

	armed_cluster(3, 1);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 10000, k(1)->mine.over[1] == 1 && k(1)->mine.over[2] == 1),
	       "two of three die at once: the last one standing takes over from both");
	sound("two of three die");

	/* A death outlives its publisher. */
	armed_cluster(3, 1);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	(void)SIM_UNTIL(&s, 20000, on_disk(1, 0).over[2] == 1);
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	sim_start(&s, 1);
	sim_run(&s, 2000);
	TAP_OK(k(1)->epoch == 2 && k(1)->mine.over[2] == 1, "a proven death is carried into the publisher's next epoch");
	sound("a death is carried on");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		sim_power_cut(&s, id, SIM_CUT_TEAR);
	sim_run(&s, 30000);
	for (uint32_t id = 1; id <= 3; id++)
		sim_start(&s, id);
	(void)SIM_UNTIL(&s, 5000, all_are(LEASE_DISARMED));
	arm_all();
	sim_run(&s, 10000);
	TAP_OK(all_are(LEASE_ARMED) && k(1)->epoch == 2 && k(3)->epoch == 2 && k(1)->mine.over[2] == 1 && undisturbed(),
	       "all power off and on: all back, all old epochs over");
	sound("all power off and on");

	armed_cluster(2, 1);
	for (uint32_t id = 1; id <= 2; id++)
		sim_power_cut(&s, id, SIM_CUT_DROP);
	n(2)->view = n(1)->view = bit(2);
	sim_start(&s, 2);
	(void)SIM_UNTIL(&s, 5000, state(2) == LEASE_DISARMED);
	sim_say(&s, 2, KEEPER_EV_ARM);
	TAP_OK(SIM_UNTIL(&s, 20000, k(2)->mine.over[0] == 1),
	       "cold start of one of two: takes over from the other, which stays away");
	sound("cold start of one of two");
}

static void test_stale(void)
{
	static const uint32_t pause_ms[] = { 300, 900, 1500 };

	for (size_t i = 0; i < ARRAY_SIZE(pause_ms); i++) {
		armed_cluster(3, 1);
		n(3)->paused = true;
		sim_run(&s, pause_ms[i]);
		n(3)->paused = false;
		sim_run(&s, 10000);
		TAP_OK(undisturbed() && all_are(LEASE_ARMED), "stopped for %u ms: never fenced", pause_ms[i]);
		sound("stopped for a while");
	}
	armed_cluster(3, 1);
	n(3)->paused = true;
	sim_run(&s, 3000);
	TAP_OK(n(3)->resets == 1, "stopped for longer than the watchdog waits: reset");
	TAP_OK(SIM_UNTIL(&s, 5000, k(1)->mine.over[2] == 1), "and over after W");
	sound("stopped for good");

	armed_cluster(3, 1);
	sim_path(&s, 3, 0, SIM_HANG);
	sim_run(&s, 400);
	sim_path(&s, 3, 0, SIM_OK);
	sim_run(&s, 10000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "storage that hangs for a moment: never fenced");
	sound("storage hangs for a moment");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		n(id)->latency_ms[0] = 450;
	sim_run(&s, 60000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "slow storage, each operation below T_io: nobody is fenced");
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, 20000, k(1)->mine.over[2] == 1), "slow storage, below T_io: a death is still found out");
	sound("slow storage");

	/* The observer was away: what it did not see proves nothing. */
	armed_cluster(2, 1);
	n(1)->paused = true;
	sim_run(&s, 1500);
	n(1)->paused = false;
	sim_run(&s, 600);
	TAP_OK(n(1)->notes[NOTE_GAP] > 0 && undisturbed(), "a gap in one's own reads starts every t0 anew");
	sim_run(&s, 2000);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	sim_run(&s, 4000);
	n(1)->paused = true;
	sim_run(&s, 1500);
	n(1)->paused = false;
	sim_run(&s, 2000);
	TAP_OK(k(1)->mine.over[1] == 0, "a gap in the middle of a takeover: W begins again");
	TAP_OK(SIM_UNTIL(&s, 5000, k(1)->mine.over[1] == 1), "and ends");
	sound("a gap in the observer's reads");
}

static void test_split(void)
{
	int64_t began;

	armed_cluster(3, 1);
	began = s.now;
	sim_ring_of(&s, bit(1) | bit(2));
	sim_ring_of(&s, bit(3));
	TAP_OK(SIM_UNTIL(&s, 5000, state(3) == LEASE_RELEASING), "split 2/1: the loser releases");
	TAP_OK(s.now - began >= SIM_MS(s.timing.settle_ms), "split 2/1: after the views have settled");
	TAP_OK(n(3)->released_for == RELEASE_INTENT || n(3)->released_for == RELEASE_COMMIT,
	       "split 2/1: for the winner's word, not its own sum");
	TAP_OK(SIM_UNTIL(&s, 1000, k(1)->mine.over[2] == 1 && k(2)->mine.over[2] == 1),
	       "split 2/1: the winners see it, without a wait");
	TAP_OK(s.now - began < SIM_MS(w_ms()), "split 2/1: in less than W (%lld ms)", (long long)((s.now - began) / NS_PER_MS));
	sim_run(&s, 10000);
	TAP_OK(state(3) == LEASE_RELEASED && !n(3)->wd_running && resets() == 0,
	       "split 2/1: it stays out, alive, while the split lasts");
	TAP_OK(state(1) == LEASE_ARMED && state(2) == LEASE_ARMED && k(1)->epoch == 1, "split 2/1: the winners go on");
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	TAP_OK(SIM_UNTIL(&s, 10000, state(3) == LEASE_ARMED) && k(3)->epoch == 2, "split 2/1: healed, it is back by itself");
	sim_run(&s, 5000);
	TAP_OK(all_are(LEASE_ARMED) && n(3)->kills == 1, "split 2/1: and stays");
	sound("split 2/1");

	armed_cluster(2, 1);
	sim_ring_of(&s, bit(1));
	sim_ring_of(&s, bit(2));
	TAP_OK(SIM_UNTIL(&s, 5000, k(1)->mine.over[1] == 1) && state(1) == LEASE_ARMED && n(2)->kills == 1,
	       "split 1/1: the lower id goes on, the other releases");
	sim_run(&s, 5000);
	TAP_OK(n(1)->kills == 0 && resets() == 0, "split 1/1: never both");
	sound("split 1/1");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		sim_ring_of(&s, bit(id));
	TAP_OK(SIM_UNTIL(&s, 5000, k(1)->mine.over[1] == 1 && k(1)->mine.over[2] == 1) && n(1)->kills == 0,
	       "three groups of one: the lowest id goes on");
	sound("three groups of one");

	armed_cluster(4, 1);
	sim_ring_of(&s, bit(1) | bit(4));
	sim_ring_of(&s, bit(2) | bit(3));
	sim_run(&s, 8000);
	TAP_OK(state(1) == LEASE_ARMED && state(4) == LEASE_ARMED && n(2)->kills == 1 && n(3)->kills == 1,
	       "split 2/2: the pair with the lowest id goes on");
	sound("split 2/2");

	armed_cluster(3, 1);
	sim_ring(&s, 3, bit(3));
	sim_run(&s, 30000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "one-way loss, the others still see it: nobody is fenced");
	sound("one-way loss");

	/* A node comes up; its view of the ring and the others' do not agree yet for longer than a split takes to settle. */
	armed_cluster(3, 1);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_ring_of(&s, bit(1) | bit(2));
	(void)SIM_UNTIL(&s, 20000, k(1)->mine.over[2] != 0 && k(2)->mine.over[2] != 0);
	sim_start(&s, 3);
	sim_ring(&s, 3, bit(1) | bit(3));
	sim_say(&s, 3, KEEPER_EV_ARM);
	(void)SIM_UNTIL(&s, 5000, state(3) == LEASE_DISARMED);
	sim_run(&s, 4LL * s.timing.settle_ms);
	TAP_OK(state(3) == LEASE_DISARMED && !keeper_gate_open(k(3), k(3)->epoch, s.now) && total(NOTE_RELEASE) == 0,
	       "not yet in the others' ring after a boot: it waits, unarmed, and nobody fences it");
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 10000);
	TAP_OK(state(3) == LEASE_ARMED && total(NOTE_RELEASE) == 0, "and arms once it is");
	TAP_OK(state(3) == LEASE_ARMED && total(NOTE_RELEASE) == 0, "it joins, and stays");
	sound("a late join");

	/* Both sides lose members while they decide; a short split is no reason for anything. */
	armed_cluster(3, 1);
	sim_ring_of(&s, bit(1) | bit(2));
	sim_ring_of(&s, bit(3));
	sim_run(&s, 500);
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 10000);
	TAP_OK(undisturbed(), "a split shorter than it takes to settle: nothing");
	sound("a short split");

	armed_cluster(3, 1);
	for (unsigned i = 0; i < 40; i++) {
		sim_ring_of(&s, bit(1) | bit(2) | (i & 1 ? bit(3) : 0));
		if (!(i & 1))
			sim_ring_of(&s, bit(3));
		sim_run(&s, 400 + 37 * i);
	}
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 10000);
	TAP_OK(all_are(LEASE_ARMED) && n(1)->kills == 0 && n(2)->kills == 0 && resets() == 0,
	       "flapping views: it settles, the majority never releases");
	sound("flapping views");

	/* Their configurations differ, so each computes that it wins: an intent against us must be waited for. */
	armed_cluster(2, 1);
	k(2)->opt.members = bit(2);
	sim_ring_of(&s, bit(1));
	sim_ring_of(&s, bit(2));
	sim_run(&s, 20000);
	TAP_OK(n(1)->notes[NOTE_INTENT] > 0 && n(2)->notes[NOTE_INTENT] > 0 && n(1)->kills + n(2)->kills <= 1,
	       "two that both believe to win: never both released");
	sound("two that both believe to win");

	/* The winner dies while it is about to fence. */
	armed_cluster(2, 1);
	sim_ring_of(&s, bit(1));
	sim_ring_of(&s, bit(2));
	(void)SIM_UNTIL(&s, 5000, n(1)->notes[NOTE_INTENT] > 0);
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	sim_run(&s, 30000);
	TAP_OK(state(2) == LEASE_ARMED && k(2)->mine.over[0] == 1,
	       "split 1/1, then the winner dies: the other one runs in the end");
	sound("the winner dies");
}

static void test_ring_lost(void)
{
	armed_cluster(3, 1);
	sim_ring(&s, 3, 0);
	sim_ring_of(&s, bit(1) | bit(2));
	sim_run(&s, s.timing.ring_grace_ms - 500);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "ring lost by one, within the grace: nothing");
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 10000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "and back: nothing");
	sound("ring lost within the grace");

	armed_cluster(3, 1);
	sim_ring(&s, 3, 0);
	sim_ring_of(&s, bit(1) | bit(2));
	TAP_OK(SIM_UNTIL(&s, 10000, k(1)->mine.over[2] == 1) && n(3)->kills == 1 && resets() == 0,
	       "ring lost by one for longer: it releases");
	sim_run(&s, 10000);
	TAP_OK(state(3) == LEASE_RELEASED, "and stays out as long");
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 5000);
	TAP_OK(all_are(LEASE_ARMED) && n(3)->kills == 1, "and comes back with the ring");
	sound("ring lost for longer");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		k(id)->opt.keep_on_ring_loss = true;
	sim_ring(&s, 3, 0);
	sim_ring_of(&s, bit(1) | bit(2));
	sim_run(&s, 30000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "ring lost by one, OnRingLoss=keep: nothing");
	sound("ring lost, keep");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		sim_ring(&s, id, 0);
	sim_run(&s, 60000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "ring lost everywhere: nobody is fenced");
	for (uint32_t id = 1; id <= 3; id++) {
		sim_ring_of(&s, bit(id));
		sim_run(&s, 1000);
	}
	sim_ring_of(&s, bit(1) | bit(2) | bit(3));
	sim_run(&s, 10000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "rings come back one by one: nobody is fenced");
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, over_bound_ms(), k(1)->mine.over[1] == 1), "and a real death is still one");
	sound("ring lost everywhere");

	armed_cluster(3, 1);
	for (uint32_t id = 1; id <= 3; id++)
		sim_ring(&s, id, 0);
	sim_run(&s, 8000);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, over_bound_ms(), k(1)->mine.over[1] == 1 && k(3)->mine.over[1] == 1),
	       "no ring anywhere and one dies: over after W all the same");
	sound("no ring and a death");
}

static void test_storage(void)
{
	int64_t began, last;

	armed_cluster(3, 1);
	began = s.now;
	sim_path(&s, 3, 0, SIM_GONE);
	TAP_OK(SIM_UNTIL(&s, 5000, n(3)->kills == 1), "storage lost by one: it kills its VMs");
	TAP_OK(s.now - began < SIM_MS(s.timing.wd_ms) && n(3)->released_for == RELEASE_STORAGE,
	       "storage lost by one: before the watchdog would");
	TAP_OK(!keeper_gate_open(k(3), 1, s.now), "storage lost by one: the gate is closed before the kill");
	sim_run(&s, 10000);
	TAP_OK(resets() == 0 && state(3) == LEASE_RELEASED && !n(3)->wd_running, "storage lost by one: released, not reset");
	TAP_OK(k(1)->mine.over[2] == 1 && n(3)->vm_epoch == 0, "storage lost by one: the others take over");
	sim_path(&s, 3, 0, SIM_OK);
	TAP_OK(SIM_UNTIL(&s, 10000, state(3) == LEASE_ARMED) && k(3)->epoch == 2, "storage lost by one: back by itself");
	sound("storage lost by one");

	armed_cluster(3, 1);
	sim_path(&s, 3, 0, SIM_HANG_WRITES);
	sim_run(&s, 8000);
	TAP_OK(n(3)->kills == 1 && resets() == 0 && k(1)->mine.over[2] == 1, "reads work, writes hang: no renewal, released");
	sim_path(&s, 3, 0, SIM_OK);
	sim_run(&s, 8000);
	TAP_OK(state(3) == LEASE_ARMED && k(3)->epoch == 2, "and back");
	sound("reads work, writes hang");

	armed_cluster(3, 1);
	n(3)->kill_fails = true;
	sim_path(&s, 3, 0, SIM_GONE);
	sim_run(&s, 3000);
	TAP_OK(n(3)->resets == 1, "VMs that cannot be proven gone: no pets, the watchdog acts");
	sound("an unproven kill");

	for (unsigned mode = SIM_GONE; mode <= SIM_REFUSE_WRITES; mode++) {
		static const char *const name[] = { "", "gone", "writes hang", "hung", "refuses writes" };

		armed_cluster(3, 3);
		for (uint32_t id = 1; id <= 3; id++)
			sim_path(&s, id, 2, (enum sim_path)mode);
		sim_run(&s, 30000);
		TAP_OK(undisturbed() && all_are(LEASE_ARMED), "three volumes, one %s: nothing happens", name[mode]);
		sim_power_cut(&s, 3, SIM_CUT_DROP);
		last = s.now;
		TAP_OK(SIM_UNTIL(&s, over_bound_ms(), k(1)->mine.over[2] == 1),
		       "three volumes, one %s: a death is known in time (%lld ms)", name[mode],
		       (long long)((s.now - last) / NS_PER_MS));
		for (uint32_t id = 1; id <= 2; id++)
			sim_path(&s, id, 2, SIM_OK);
		sim_run(&s, 5000);
		TAP_OK(k(1)->volume[2].read_ok && k(1)->volume[2].fault == FAULT_NONE && on_disk(1, 2).seq + 2 >= k(1)->seq,
		       "three volumes, one %s: used again after", name[mode]);
		sound(name[mode]);

		armed_cluster(2, 2);
		for (uint32_t id = 1; id <= 2; id++)
			sim_path(&s, id, 1, (enum sim_path)mode);
		sim_run(&s, 20000);
		TAP_OK(undisturbed() && all_are(LEASE_ARMED), "two volumes, one %s: leases go on", name[mode]);
		sim_power_cut(&s, 2, SIM_CUT_DROP);
		sim_run(&s, 20000);
		TAP_OK(k(1)->mine.over[1] == 0 && k(1)->mine.commit[1] == 0,
		       "two volumes, one %s: nobody is fenced without both", name[mode]);
		sim_path(&s, 1, 1, SIM_OK);
		TAP_OK(SIM_UNTIL(&s, over_bound_ms() + s.timing.wd_ms, k(1)->mine.over[1] == 1),
		       "two volumes, one %s: but once it is back", name[mode]);
		sound(name[mode]);
	}

	/* Each node has lost another volume: majorities still meet. */
	armed_cluster(3, 3);
	for (uint32_t id = 1; id <= 3; id++)
		sim_path(&s, id, id - 1, SIM_GONE);
	sim_run(&s, 20000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "three volumes, each node has lost another one: nothing happens");
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	TAP_OK(SIM_UNTIL(&s, over_bound_ms(), k(2)->mine.over[0] == 1 && k(3)->mine.over[0] == 1),
	       "and a death is seen by both others");
	sound("each has lost another volume");

	armed_cluster(2, 3);
	sim_path(&s, 2, 0, SIM_GONE);
	sim_path(&s, 2, 1, SIM_GONE);
	sim_run(&s, 8000);
	TAP_OK(n(2)->kills == 1 && k(1)->mine.over[1] == 1 && resets() == 0,
	       "two of three volumes lost by one node: it releases");
	sound("two of three lost");
}

/* Storage away for everybody, in each of the ways it can be. */
static void outage(enum sim_path how)
{
	for (uint32_t id = 1; id <= s.n; id++)
		sim_path_all(&s, id, how);
}

static bool all_hold(void)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (k(id)->hold.since_ns == 0)
			return false;
	return true;
}

static bool none_holds(void)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (k(id)->hold.since_ns != 0)
			return false;
	return true;
}

static void test_hold_of_all(void)
{
	static const enum sim_path how[] = { SIM_GONE, SIM_HANG, SIM_HANG_WRITES, SIM_REFUSE_WRITES };
	static const uint32_t lasts_ms[] = { 1000, 3000, 10000, 60000 };

	for (unsigned volumes = 1; volumes <= 3; volumes += 2)
		for (unsigned h = 0; h < ARRAY_SIZE(how); h++)
			for (unsigned d = 0; d < ARRAY_SIZE(lasts_ms); d++) {
				armed_cluster(3, volumes);
				outage(how[h]);
				sim_run(&s, lasts_ms[d]);
				TAP_OK(undisturbed() && all_are(LEASE_ARMED) && (lasts_ms[d] < 3000 || all_hold()),
				       "storage gone for all, way %u, %u volumes, %u ms: everybody holds, nobody is released or reset", h, volumes, lasts_ms[d]);
				TAP_OK(lasts_ms[d] < 3000 || !keeper_gate_open(k(1), k(1)->epoch, s.now), "the gate is closed meanwhile");
				outage(SIM_OK);
				sim_run(&s, s.timing.heal_ms + 10000);
				TAP_OK(undisturbed() && all_are(LEASE_ARMED) && none_holds() && n(2)->vm_epoch == 1 && keeper_gate_open(k(1), 1, s.now),
				       "and when it is back all is as it was");
				sound("storage gone for all");
			}
}

/* What is left until the soft deadline is for hosts that stall meanwhile. */
static void test_hold_soon(void)
{
	static const enum sim_path how[] = { SIM_HANG, SIM_HANG_WRITES };
	unsigned soon = 0, tried = 0;

	for (unsigned volumes = 1; volumes <= 3; volumes++)
		for (unsigned h = 0; h < ARRAY_SIZE(how); h++)
			for (unsigned phase = 0; phase < 10; phase++) {
				armed_cluster(3, volumes);
				sim_run(&s, phase * s.timing.hb_ms / 10);
				outage(how[h]);
				sim_run(&s, 2 * s.timing.hb_ms + s.timing.io_ms);
				tried++;
				soon += undisturbed() && all_hold();
			}
	TAP_OK(soon == tried, "storage hangs for all: everybody holds once its writes are known to hang, reads are not waited for (%u of %u)", soon, tried);
	sound("storage that hangs");
}

static void test_hold_of_one(void)
{
	int64_t regained;

	armed_cluster(3, 1);
	outage(SIM_GONE);
	sim_run(&s, 10000);
	for (uint32_t id = 1; id <= 2; id++)
		sim_path_all(&s, id, SIM_OK);
	(void)SIM_UNTIL(&s, 3000, k(1)->hold.lost_ns == 0 && k(2)->hold.lost_ns == 0);
	regained = s.now;
	sim_run(&s, s.timing.heal_ms - 1000);
	TAP_OK(undisturbed() && k(3)->hold.since_ns != 0, "storage back for all but one: that one is waited for");
	TAP_OK(SIM_UNTIL(&s, 1000 + s.timing.wd_ms, n(3)->kills == 1) && s.now - regained < SIM_MS(s.timing.heal_ms + s.timing.wd_ms) && n(3)->resets == 0,
	       "for T_heal: then it releases");
	sim_run(&s, over_bound_ms() + s.timing.wd_ms);
	TAP_OK(k(1)->mine.over[2] == 1 && total(NOTE_RELEASE) == 1, "and is taken over");
	sound("storage back for all but one");

	/* A volume of the others that fails for a moment again and again is no reason to keep up one that has lost its own for good. */
	armed_cluster(2, 1);
	sim_path(&s, 2, 0, SIM_GONE);
	for (unsigned i = 0; i < 20 && n(2)->kills == 0; i++) {
		sim_run(&s, s.timing.soft_ms);
		sim_path(&s, 1, 0, SIM_REFUSE_WRITES);
		sim_run(&s, s.timing.hb_ms);
		sim_path(&s, 1, 0, SIM_OK);
	}
	TAP_OK(n(2)->kills == 1 && n(1)->kills == 0, "one has lost the storage, the other's flaps: no hold for long");
	sound("flapping storage");

	/* Two of three are cut off, the third is not: it grants nothing. */
	armed_cluster(3, 1);
	sim_path_all(&s, 1, SIM_HANG);
	sim_path_all(&s, 2, SIM_HANG);
	sim_run(&s, s.timing.wd_ms);
	TAP_OK(n(1)->kills == 1 && n(2)->kills == 1 && n(3)->kills == 0 && resets() == 0, "storage gone for two of three: both release");
	sound("storage gone for two of three");
}

static void test_hold_asks_all(void)
{
	uint64_t pets;

	armed_cluster(3, 1);
	s.mute = bit(3);
	sim_ring(&s, 1, 3);
	sim_ring(&s, 2, 3);
	outage(SIM_GONE);
	sim_run(&s, s.timing.wd_ms);
	TAP_OK(n(1)->kills == 1 && n(2)->kills == 1, "a node that is gone from the ring may see the storage: no hold without its word");
	sound("gone from the ring");

	armed_cluster(3, 1);
	sim_leave(&s, 3);
	sim_run(&s, 2000);
	outage(SIM_GONE);
	sim_run(&s, s.timing.wd_ms);
	TAP_OK(n(1)->kills == 1 && n(2)->kills == 1, "it may come back and see the storage: no hold without it beyond T_hb");
	sound("one has left");

	/* Granted rounds, one by one. */
	armed_cluster(2, 1);
	outage(SIM_GONE);
	(void)SIM_UNTIL(&s, 5000, k(1)->hold.rounds == 1);
	sim_run(&s, s.timing.hb_ms + 50);
	pets = n(1)->pets;
	s.mute = bit(2);
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = s.last_grant.to == 1 ? s.last_grant : (struct hold_msg){
		.kind = HOLD_GRANT, .from = 2, .to = 1, .epoch = 1, .seq = k(1)->seq - 1 } });
	sim_run(&s, s.timing.soft_ms + 2 * s.timing.hb_ms);
	TAP_OK(n(1)->kills == 1 && n(1)->pets <= pets + 1, "a grant of an earlier round counts for nothing");
	sound("one round, one grant");

	armed_cluster(2, 1);
	outage(SIM_GONE);
	(void)SIM_UNTIL(&s, 5000, k(1)->hold.rounds == 1);
	s.mute = bit(2);
	(void)SIM_UNTIL(&s, 1000, k(1)->seq > k(1)->hold.counted_seq && !k(1)->renewed);
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = { .kind = HOLD_GRANT, .from = 2, .to = 1, .epoch = 1, .seq = k(1)->seq,
		.host = { 1 } } });
	TAP_OK(!k(1)->renewed, "nor does one of another host with a peer's id");
	sound("another host grants");
}

static void word(uint32_t about, uint32_t epoch) { sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_EVIDENCE, .evidence = { .kind = EVIDENCE_OPERATOR, .node = about, .epoch = epoch } }); }

static void power(uint32_t about, uint32_t epoch, uint64_t seq)
{
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_EVIDENCE, .evidence = { .kind = EVIDENCE_POWER, .node = about, .epoch = epoch, .seq = seq } });
}

/* Node 2 stands still, and for so long that an operator's word would be taken. */
static void silent_peer(void)
{
	armed_cluster(2, 1);
	n(2)->paused = true;
	sim_run(&s, s.timing.wd_ms + s.timing.wd_delay_ms + 2 * s.timing.hb_ms);
}

/* A device's "off", an operator's word: W is not waited for. */
static void test_evidence(void)
{
	int64_t began;
	uint64_t seq;

	armed_cluster(2, 1);
	word(2, 1);
	sim_run(&s, 3000);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 1 && k(1)->mine.over[1] == 0 && k(1)->mine.commit[1] == 0 && undisturbed(), "an operator confirms a live node: refused");
	sound("a live node");

	silent_peer();
	word(2, 2);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 1, "of another epoch: refused");
	began = s.now;
	word(2, 1);
	TAP_OK(SIM_UNTIL(&s, 3000, k(1)->mine.over[1] == 1) && s.now - began < SIM_MS(4 * s.timing.hb_ms), "of one that stands still: its epoch is over a few rounds later");
	TAP_OK(n(1)->notes[NOTE_EVIDENCE] == 1 && k(1)->mine.commit[1] == 1, "with a commit in place, and it is said what proves it");
	sound("an operator's word");

	/* It writes nothing, but it asks for a hold: it is alive. */
	silent_peer();
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = { .kind = HOLD_ASK, .from = 2, .epoch = 1, .seq = k(2)->seq + 1 } });
	word(2, 1);
	TAP_OK(n(1)->notes[NOTE_REFUSED] == 1 && k(1)->mine.over[1] == 0, "of one that asks for a hold: refused");
	silent_peer();
	word(2, 1);
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = { .kind = HOLD_ASK, .from = 2, .epoch = 1, .seq = k(2)->seq + 1 } });
	began = s.now;
	sim_run(&s, 2 * s.timing.hb_ms);
	TAP_OK(k(1)->mine.over[1] == 0 && n(1)->notes[NOTE_EVIDENCE_VOID] == 1, "and a word given just before is void");
	sound("one that asks for a hold");

	/* Devices are asked only once the commit is out, about one block. */
	armed_cluster(2, 1);
	n(2)->paused = true;
	sim_ring(&s, 1, 1);
	(void)SIM_UNTIL(&s, 30000, k(1)->node[1].asked.epoch != 0);
	TAP_OK(k(1)->node[1].asked.epoch == 1 && k(1)->node[1].commit_published && k(1)->mine.over[1] == 0, "devices are asked with the commit in place");
	seq = k(1)->node[1].asked.seq;
	power(2, 1, seq - 1);
	sim_run(&s, s.timing.hb_ms);
	TAP_OK(k(1)->mine.over[1] == 0 && n(1)->notes[NOTE_EVIDENCE_VOID] == 1, "an answer about an earlier block is void");
	power(2, 1, seq);
	began = s.now;
	TAP_OK(SIM_UNTIL(&s, 3000, k(1)->mine.over[1] == 1) && s.now - began < SIM_MS(3 * s.timing.hb_ms), "about this one: over after one whole round more");
	sound("a fence device");
}

/* What a grant does to the granter. */
static void test_hold_grant(void)
{
	int64_t asked;

	/* Node 2 stops; before its death is proven node 1 loses the storage for two rounds and gives its word to a message of node 2 that comes late. */
	armed_cluster(2, 1);
	n(2)->paused = true;
	n(2)->wd_running = false; /* what if it lived on */
	sim_run(&s, s.timing.wd_ms - 200);
	TAP_OK(k(1)->mine.commit[1] == 0, "nobody is fenced yet");
	sim_path(&s, 1, 0, SIM_REFUSE_WRITES);
	sim_run(&s, 2LL * s.timing.hb_ms + 20);
	TAP_OK(k(1)->hold.lost_ns != 0, "node 1 has no quorum now");
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = { .kind = HOLD_ASK, .from = 2, .epoch = 1, .seq = k(2)->seq } });
	asked = s.now;
	TAP_OK(s.last_grant.kind == HOLD_GRANT && s.last_grant.to == 2 && s.last_grant.seq == k(2)->seq, "so it grants");
	TAP_OK(k(1)->node[1].t0_ns == s.now && k(1)->mine.intent[1] == 0, "its wait starts anew, its intent is withdrawn");
	sim_path(&s, 1, 0, SIM_OK);
	TAP_OK(SIM_UNTIL(&s, w_ms() + 10000, k(1)->mine.over[1] == 1) && s.now - asked >= SIM_MS(w_ms()), "the death is proven W after the grant, not sooner");
	sim_event(n(1), (struct keeper_event){ .kind = KEEPER_EV_HOLD, .hold = { .kind = HOLD_ASK, .from = 2, .epoch = 1, .seq = k(2)->seq + 1 } });
	TAP_OK(s.last_grant.seq == k(2)->seq, "who is over is granted nothing");
	n(2)->vm_epoch = 0;

	/* A newcomer, whom the dead one never listed. */
	armed_cluster(3, 1);
	sim_power_cut(&s, 3, SIM_CUT_DROP);
	sim_run(&s, over_bound_ms() + s.timing.wd_ms);
	sim_power_cut(&s, 1, SIM_CUT_DROP);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	asked = s.now;
	sim_start(&s, 3);
	sim_ring_of(&s, bit(3));
	(void)SIM_UNTIL(&s, 5000, k(3)->known_to_all);
	asked = s.now;
	sim_say(&s, 3, KEEPER_EV_ARM);
	TAP_OK(SIM_UNTIL(&s, 60000, k(3)->mine.over[0] == 1) && s.now - asked >= SIM_MS(w_ms() + s.timing.hb_ms),
	       "a node that the silent one does not list waits W + T_hb, from when its own epoch is known");
	sound("a newcomer");

	/* A node of whom the silent one's configuration does not know. */
	armed_cluster(2, 1);
	k(2)->mine.members = bit(2);
	sim_run(&s, 1000);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	sim_run(&s, 30000);
	TAP_OK(k(1)->mine.over[1] == 0 && k(1)->mine.commit[1] == 0, "whom the silent one could never ask does not go by its silence");
	sound("not in its configuration");
}

static void test_unresolved(void)
{
	static const struct { const char *name; uint32_t late_ms, settle_ms; } cases[] = {
		{ "a hung write that is lost", 0, 0 },
		{ "a hung write that lands while it is unknown", 450, 0 },
		{ "a hung write that lands during T_drain", 900, 0 },
		{ "a hung system call that lands soon and returns late", 550, 2600 },
		{ "a hung system call that lands just before it returns", 2500, 2600 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		armed_cluster(2, 3);
		for (unsigned round = 0; round < 3; round++) {
			n(1)->late_ms[2] = cases[i].late_ms;
			n(1)->settle_ms[2] = cases[i].settle_ms;
			sim_path(&s, 1, 2, SIM_HANG_WRITES);
			sim_run(&s, 300 + 1100 * round);
			sim_path(&s, 1, 2, SIM_OK);
			sim_run(&s, 400 + 900 * round);
		}
		sim_path(&s, 1, 2, SIM_OK);
		sim_run(&s, 6000);
		TAP_OK(undisturbed() && k(2)->volume[2].fault == FAULT_NONE && k(1)->volume[2].fault == FAULT_NONE,
		       "%s: never another over it, no block goes back", cases[i].name);
		TAP_OK(on_disk(1, 2).seq + 2 >= k(1)->seq, "%s: the volume is written again after", cases[i].name);
		sound(cases[i].name);
	}

	/* The call of a write that was read back long ago returns while a later one is unknown: that says nothing of the later. */
	armed_cluster(2, 3);
	n(1)->late_ms[2] = 450;
	n(1)->settle_ms[2] = 1900;
	sim_path(&s, 1, 2, SIM_HANG_WRITES);
	(void)SIM_UNTIL(&s, 1000, k(1)->volume[2].write_wait);
	sim_path(&s, 1, 2, SIM_OK);
	(void)SIM_UNTIL(&s, 2000, slot_writable(&k(1)->volume[2].slot));
	n(1)->late_ms[2] = 2900;
	n(1)->settle_ms[2] = 3000;
	sim_path(&s, 1, 2, SIM_HANG_WRITES);
	sim_run(&s, 1000);
	sim_path(&s, 1, 2, SIM_OK);
	sim_run(&s, 10000);
	TAP_OK(undisturbed() && k(2)->volume[2].fault == FAULT_NONE && on_disk(1, 2).seq + 2 >= k(1)->seq,
	       "an old call returns while a later write is unknown");
	sound("an old call returns");

	/* The process is replaced in mid-write: the new one knows nothing of the old one's writes. */
	armed_cluster(2, 3);
	n(1)->late_ms[2] = 450; /* within T_drain of the session's end, which is the process' */
	sim_path(&s, 1, 2, SIM_HANG_WRITES);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_WRITING && k(1)->volume[2].write_wait);
	sim_crash(&s, 1);
	sim_path(&s, 1, 2, SIM_OK);
	sim_start(&s, 1);
	sim_run(&s, 5000);
	TAP_OK(undisturbed() && k(1)->epoch == 1 && k(2)->volume[2].fault == FAULT_NONE,
	       "a write of the process before: waited for");
	sound("a write of the process before");
}

static void latencies(uint32_t id, uint32_t a, uint32_t b, uint32_t c)
{
	n(id)->latency_ms[0] = a;
	n(id)->latency_ms[1] = b;
	n(id)->latency_ms[2] = c;
}

/* A round begins while one volume is still busy with the write of the round before and another with the read: it counts with the first of them that is free,
 * and waits for that also if it has the free volume's answer long before. */
static void busy_volumes(uint32_t free_ms)
{
	uint64_t before;

	armed_cluster(2, 3);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_IDLE);
	latencies(1, 150, 200, 490);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_WRITING);
	latencies(1, 50, 490, 60);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_READING);
	latencies(1, free_ms, 490, 490);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_WRITING);
	TAP_OK(k(1)->volume[0].write_wait && !k(1)->volume[1].write_wait && !k(1)->volume[2].write_wait, "two of three volumes are busy as the round begins");
	before = k(1)->renewals;
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_READING);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase != ROUND_READING);
	TAP_OK(k(1)->renewals == before + 1, "no operation took T_io: that round renews (free volume: %u ms)", free_ms);
	latencies(1, 2, 2, 2);
	sim_run(&s, 3000);
	TAP_OK(undisturbed(), "nobody released");
	sound("busy volumes");
}

/* A busy volume that hangs is waited for no longer than an operation may take. */
static void test_busy_volumes(void)
{
	busy_volumes(490);
	busy_volumes(2);

	armed_cluster(2, 3);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_IDLE);
	n(1)->path[2] = SIM_HANG;
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_WRITING);
	(void)SIM_UNTIL(&s, 1000, k(1)->phase == ROUND_IDLE);
	n(1)->path[1] = SIM_HANG;
	(void)SIM_UNTIL(&s, 2000, k(1)->phase == ROUND_WRITING);
	TAP_OK(SIM_UNTIL(&s, s.timing.hb_ms + 2 * s.timing.io_ms + 100, k(1)->hold.due), "two of three volumes hang: a hold is due");
}

static void test_commit(void)
{
	armed_cluster(3, 1);
	k(1)->mine.commit[2] = 1;
	TAP_OK(SIM_UNTIL(&s, 2000, state(3) == LEASE_RELEASING), "a commit against us: release");
	TAP_OK(n(3)->released_for == RELEASE_COMMIT && n(3)->released_by == 1, "a commit against us: and who it was is known");
	TAP_OK(SIM_UNTIL(&s, 1000, k(2)->mine.over[2] == 1), "a commit against us: published when the VMs are gone");
	sim_run(&s, 5000);
	TAP_OK(state(3) == LEASE_ARMED && k(3)->epoch == 2 && k(1)->mine.commit[2] == 0,
	       "a commit against us: then back, and the commit is dropped");
	sound("a commit against us");

	armed_cluster(3, 1);
	sim_say(&s, 3, KEEPER_EV_SUSPENDED);
	TAP_OK(n(3)->kills == 1 && n(3)->released_for == RELEASE_SUSPEND, "suspended: release");
	sim_run(&s, 5000);
	TAP_OK(state(3) == LEASE_ARMED && k(3)->epoch == 2, "suspended: and back with the next epoch");
	sound("suspended");

	armed_cluster(3, 1);
	sim_say(&s, 3, KEEPER_EV_SHUTDOWN);
	TAP_OK(n(3)->kills == 1 && n(3)->released_for == RELEASE_SHUTDOWN && state(3) == LEASE_RELEASING && !keeper_gate_open(k(3), 1, s.now),
	       "its host goes down with VMs left: they are ended first");
	sim_run(&s, 3000);
	TAP_OK(state(3) == LEASE_LEFT && on_disk(3, 0).state == HEARTBEAT_LEFT && on_disk(3, 0).epoch == 1 && k(1)->mine.commit[2] == 0 && k(2)->mine.commit[2] == 0,
	       "then it leaves, and nobody fences it");
	sound("shut down with VMs left");

	sim_init(&s, 1, 1);
	sim_start(&s, 1);
	sim_say(&s, 1, KEEPER_EV_SHUTDOWN);
	TAP_OK(state(1) == LEASE_STARTING && n(1)->kills == 0, "before there is a lease: nothing is done that nobody could prove");

	start_all(2, 1);
	for (uint32_t id = 1; id <= 2; id++) {
		for (unsigned kind = KEEPER_EV_TIMER; kind <= KEEPER_EV_SUSPENDED; kind++) {
			if (kind == KEEPER_EV_LEAVE || kind == KEEPER_EV_SHUTDOWN || kind == KEEPER_EV_READ_DONE)
				continue;
			sim_event(n(id), (struct keeper_event){ .kind = (enum keeper_event_kind)kind, .ok = true, .view = 3 });
			sim_event(n(id), (struct keeper_event){ .kind = (enum keeper_event_kind)kind, .view = 3 });
		}
		sim_run(&s, 200);
	}
	TAP_OK(true, "events nobody waits for do no harm");
}

static void test_restart(void)
{
	uint64_t pets;
	struct heartbeat hb;

	armed_cluster(3, 1);
	sim_crash(&s, 3);
	sim_run(&s, 300);
	pets = n(3)->pets;
	sim_start(&s, 3);
	TAP_OK(SIM_UNTIL(&s, 5000, n(3)->pets > pets) && k(3)->renewals == 1 && k(3)->pets == 1,
	       "keeper restarted: the first pet is paid for by a full round");
	sim_run(&s, 10000);
	TAP_OK(k(3)->epoch == 1 && state(3) == LEASE_ARMED && undisturbed() && n(3)->vm_epoch == 1,
	       "keeper restarted: same epoch, nothing happens");
	sound("keeper restarted");

	start_all(2, 1);
	sim_crash(&s, 1);
	sim_start(&s, 1);
	sim_run(&s, 3000);
	TAP_OK(k(1)->epoch == 1 && state(1) == LEASE_DISARMED && !n(1)->wd_running, "keeper restarted, disarmed: same epoch");
	sound("keeper restarted, disarmed");

	armed_cluster(2, 1);
	sim_crash(&s, 2);
	k(1)->mine.commit[1] = 1;
	sim_run(&s, 400);
	sim_start(&s, 2);
	sim_run(&s, 800);
	TAP_OK(n(2)->kills == 1 && n(2)->released_for == RELEASE_COMMIT, "keeper restarted under a commit: no pet, release");
	sound("keeper restarted under a commit");

	/* Restarted while storage is away: the VMs can be killed, the host need not be. */
	for (uint32_t ms = 0; ms <= 1000; ms += 500) {
		armed_cluster(2, 1);
		sim_crash(&s, 2);
		sim_path(&s, 2, 0, SIM_GONE);
		sim_run(&s, ms);
		sim_start(&s, 2);
		sim_run(&s, 5000);
		TAP_OK(n(2)->resets == 0 && n(2)->kills == 1,
		       "keeper restarted after %u ms, without storage: a release suffices", ms);
		sim_path(&s, 2, 0, SIM_OK);
		sim_run(&s, 10000);
		TAP_OK(state(2) == LEASE_DISARMED && k(2)->epoch == 2,
		       "keeper restarted without storage: back with it, in the next epoch");
		sound("keeper restarted without storage");
	}

	/* Storage is lost once it has gone on: the watchdog counts from the process before, and so must the kill. */
	for (uint32_t ms = 300; ms <= 1200; ms += 300) {
		armed_cluster(2, 1);
		(void)SIM_UNTIL(&s, 1000, n(2)->wd_deadline_ns - s.now == SIM_MS(s.timing.wd_ms));
		sim_crash(&s, 2);
		sim_run(&s, ms);
		sim_start(&s, 2);
		(void)SIM_UNTIL(&s, 1000, state(2) != LEASE_STARTING);
		sim_path(&s, 2, 0, SIM_HANG);
		sim_run(&s, 3000);
		TAP_OK(n(2)->resets == 0 && n(2)->kills == 1, "keeper restarted after %u ms, and storage lost when it has gone on: a release suffices", ms);
		sound("keeper restarted, storage lost then");
	}

	/* Suspended before it has read anything. */
	armed_cluster(2, 1);
	sim_crash(&s, 2);
	sim_path(&s, 2, 0, SIM_GONE);
	sim_start(&s, 2);
	sim_say(&s, 2, KEEPER_EV_SUSPENDED);
	TAP_OK(n(2)->kills == 1 && n(2)->released_for == RELEASE_SUSPEND && state(2) == LEASE_RELEASING, "keeper restarted, and suspended before it goes on: its VMs are killed");
	sim_path(&s, 2, 0, SIM_OK);
	sim_run(&s, 10000);
	TAP_OK(k(2)->epoch == 2 && resets() == 0, "and back with the next epoch");
	sim_crash(&s, 2);
	n(2)->saved.any = false;
	sim_start(&s, 2);
	sim_say(&s, 2, KEEPER_EV_SUSPENDED);
	TAP_OK(n(2)->kills == 1 && state(2) == LEASE_STARTING, "suspended where nothing of an earlier life runs: nothing to it");
	sim_run(&s, 10000);
	sound("keeper restarted, and suspended");

	/* Crashed at every step of a disarm. */
	for (unsigned ms = 0; ms < 800; ms += 40) {
		armed_cluster(2, 1);
		sim_say(&s, 1, KEEPER_EV_DISARM);
		sim_run(&s, ms);
		sim_crash(&s, 1);
		sim_start(&s, 1);
		sim_run(&s, 4000);
		if (resets() != 0 || s.broken[0] || n(1)->vm_epoch != 1)
			break;
	}
	TAP_OK(resets() == 0 && n(1)->vm_epoch == 1, "keeper restarted in the middle of a disarm: no reset, no VM lost");
	sound("keeper restarted in the middle of a disarm");

	armed_cluster(2, 1);
	sim_say(&s, 1, KEEPER_EV_DISARM);
	(void)SIM_UNTIL(&s, 2000, on_disk(1, 0).state == HEARTBEAT_DISARMED);
	sim_crash(&s, 1);
	n(1)->wd_stuck = true;
	sim_start(&s, 1);
	sim_run(&s, 6000);
	TAP_OK(resets() == 0, "restarted disarmed with a watchdog that does not stop: it is petted on");
	sound("restarted disarmed with a watchdog that does not stop");

	/* What it finds is not what it left: nothing of the old epoch may be called over while its VMs run. */
	for (unsigned armed = 0; armed < 2; armed++) {
		start_all(2, 1);
		if (armed)
			arm_all();
		sim_crash(&s, 2);
		n(2)->saved.life[0] ^= 1;
		sim_start(&s, 2);
		(void)SIM_UNTIL(&s, 3000, k(2)->epoch == 2);
		TAP_OK(k(2)->epoch == 2 && n(2)->kills == 1 && resets() == 0,
		       "restarted with %s and another life in the slot: VMs are killed, then a new epoch",
		       armed ? "an armed" : "a disarmed");
		sim_run(&s, 5000);
		sound("another life in the slot at a restart");
	}

	start_all(2, 1);
	sim_crash(&s, 2);
	hb = on_disk(2, 0);
	hb.seq += 5;
	hb.state = HEARTBEAT_ARMED;
	memset(hb.life, 0x77, 16);
	memset(hb.host, 0x77, 16);
	forge(2, &hb);
	sim_start(&s, 2);
	sim_run(&s, 1000);
	TAP_OK(n(2)->vm_epoch == 0 && n(2)->kills == 1,
	       "another host in the slot at a restart, disarmed: VMs are killed at once, it may do what it likes");
	sim_run(&s, 15000);
	TAP_OK(state(2) == LEASE_STARTING, "and nobody who is armed has said yet that its lease is over: it may hold");
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 15000);
	TAP_OK(k(2)->epoch == 2 && k(1)->mine.over[1] >= 1, "an armed node has: it goes on");
	sound("another host in the slot at a restart");

	/* A volume that was away holds later blocks of the same epoch. */
	start_all(2, 3);
	sim_path(&s, 1, 0, SIM_REFUSE_WRITES);
	sim_path(&s, 1, 1, SIM_GONE);
	sim_run(&s, 20000);
	sim_crash(&s, 1);
	sim_path(&s, 1, 0, SIM_OK);
	sim_path(&s, 1, 1, SIM_OK);
	sim_path(&s, 1, 2, SIM_GONE);
	sim_start(&s, 1);
	sim_run(&s, 3000);
	sim_path(&s, 1, 2, SIM_OK);
	sim_run(&s, 5000);
	TAP_OK(k(1)->epoch == 1 && state(1) == LEASE_DISARMED && !k(1)->slot_taken && total(NOTE_RELEASE) == 0,
	       "a volume far ahead that was away at the restart: still our own blocks");
	sound("a volume far ahead");

	/* An epoch that only one volume has heard of, and that volume was away at the start. */
	for (uint32_t ahead = 0; ahead < 3; ahead++) {
		armed_cluster(2, 3);
		sim_path(&s, 1, 2, SIM_GONE);
		sim_path(&s, 2, 2, SIM_GONE);
		hb = on_disk(1, 2);
		hb.epoch = k(1)->epoch + ahead;
		hb.seq += 1ULL << 40;
		memset(hb.life, 0x77, 16);
		for (unsigned b = 0; b < 2; b++)
			heartbeat_encode(&hb, sim_cluster, b, s.volume[2] + format_heartbeat_offset(1, b));
		sim_path(&s, 1, 2, SIM_OK);
		sim_run(&s, 10000);
		TAP_OK(state(1) == LEASE_ARMED && k(1)->epoch == hb.epoch + 1 && !k(1)->slot_taken && resets() == 0,
		       "an epoch %u above ours, of an earlier life, on a volume that was away: we go on above it", ahead);
		sim_path(&s, 2, 2, SIM_OK);
		sim_run(&s, 5000);
		TAP_OK(undisturbed() || (n(1)->kills == 1 && n(2)->kills == 0 && all_are(LEASE_ARMED)),
		       "and the other node does not mind");
		sound("an epoch on one volume");
	}
}

/* What was saved last says that it was not armed, its block says that it is, and no watchdog is held. */
static void test_resume_unwatched(void)
{
	armed_cluster(2, 3);
	sim_crash(&s, 1);
	n(1)->wd_running = false;
	n(1)->wd_deadline_ns = SIM_NEVER;
	n(1)->saved.state = LEASE_DISARMED;
	sim_start(&s, 1);
	TAP_OK(SIM_UNTIL(&s, 20000, state(1) == LEASE_ARMED || (state(1) == LEASE_DISARMED && k(1)->epoch == 2)) && state(1) != LEASE_ARMED, "an armed epoch that no watchdog looks after is not gone on with");
	sound("an armed epoch without its watchdog");
}

static void test_slot_owner(void)
{
	struct heartbeat hb, after;
	int64_t began;

	armed_cluster(2, 1);
	hb = on_disk(2, 0);
	hb.epoch++;
	memset(hb.life, 0x55, 16);
	memset(hb.host, 0x55, 16);
	(void)SIM_UNTIL(&s, 1000, k(2)->phase == ROUND_IDLE);
	forge(2, &hb);
	sim_run(&s, 3000);
	after = on_disk(2, 0);
	TAP_OK(n(2)->released_for == RELEASE_SLOT_TAKEN && n(2)->kills == 1, "another host writes our slot: release");
	TAP_OK(after.epoch == hb.epoch && memcmp(after.life, hb.life, 16) == 0,
	       "another host writes our slot: never written over");
	sim_run(&s, 10000);
	TAP_OK(n(2)->vm_epoch == 0 && state(2) != LEASE_ARMED, "another host writes our slot: this one stays out");

	/* What another host's later epoch says is not ours to say: no reader would take a block that does. (That host has not waited for us, so
	 * not all is sound here.) */
	armed_cluster(2, 3);
	hb = on_disk(2, 0);
	hb.epoch += 2;
	hb.settled = hb.epoch;
	memset(hb.life, 0x55, 16);
	memset(hb.host, 0x55, 16);
	(void)SIM_UNTIL(&s, 1000, k(2)->phase == ROUND_IDLE);
	for (unsigned b = 0; b < 2; b++)
		heartbeat_encode(&hb, sim_cluster, b, s.volume[0] + format_heartbeat_offset(2, b));
	sim_run(&s, 3000);
	TAP_OK(state(2) == LEASE_RELEASED && on_disk(2, 1).state == HEARTBEAT_RELEASED && on_disk(2, 1).settled == k(2)->epoch && k(1)->mine.over[1] >= k(2)->epoch,
	       "another host's later epoch on one volume of three: released, and everybody can read that");
	TAP_OK(n(1)->released_for == RELEASE_NONE && state(1) == LEASE_ARMED, "and the others go on");

	armed_cluster(2, 1);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	n(2)->host = 55; /* another board, the same name */
	began = s.now;
	sim_start(&s, 2);
	sim_run(&s, w_ms());
	TAP_OK(on_disk(2, 0).epoch == 1 && n(2)->notes[NOTE_FOREIGN_OWNER] > 0,
	       "another host's armed block in the slot: waits as for any node");
	TAP_OK(SIM_UNTIL(&s, 5000, on_disk(2, 0).epoch == 2) && s.now - began >= SIM_MS(w_ms() + s.timing.hb_ms),
	       "and goes on after W + T_hb");
	sound("another host's armed block");

	armed_cluster(2, 1);
	sim_leave(&s, 2);
	sim_run(&s, 1000);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	n(2)->host = 55;
	sim_start(&s, 2);
	sim_run(&s, 1500);
	TAP_OK(state(2) == LEASE_DISARMED && k(2)->epoch == 2, "another host's block that says left: no wait");
	sound("another host's block that says left");

	start_all(2, 1);
	hb = on_disk(2, 0);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	n(2)->host = 55;
	sim_start(&s, 2);
	sim_run(&s, 60000);
	TAP_OK(on_disk(2, 0).epoch == 1, "another host's disarmed block: time proves nothing, it is not taken over");
	TAP_OK(k(2)->release == RELEASE_SLOT_TAKEN, "and whoever asks is told why nothing runs here");
	sim_say(&s, 1, KEEPER_EV_ARM);
	sim_run(&s, 2000);
	word(2, 1);
	TAP_OK(SIM_UNTIL(&s, 1000 + w_ms() + s.timing.hb_ms, on_disk(2, 0).epoch == 2), "until an operator says that it is off");
	sound("another host's disarmed block");
}

/* On one volume of three, over whatever is there. */
static void forge_on_one(uint32_t id, const struct heartbeat *hb)
{
	for (unsigned b = 0; b < 2; b++)
		heartbeat_encode(hb, sim_cluster, b, s.volume[0] + format_heartbeat_offset(id, b));
}

/* Two hosts with one id have begun the same epoch. Who sees the other, be it in the older buffer, ends its VMs and says nothing more: the epoch may be the other's. */
static void test_twin_in_one_epoch(void)
{
	struct heartbeat twin;
	unsigned older;

	armed_cluster(2, 3);
	(void)SIM_UNTIL(&s, 1000, k(2)->phase == ROUND_IDLE);
	twin = on_disk(2, 1);
	(void)heartbeat_decode(s.volume[1] + format_heartbeat_offset(2, 0), 2, 0, sim_cluster, &twin);
	older = twin.seq == on_disk(2, 1).seq;
	twin.seq = on_disk(2, 1).seq - 1;
	memset(twin.life, 0x55, 16);
	memset(twin.host, 0x55, 16);
	heartbeat_encode(&twin, sim_cluster, older, s.volume[1] + format_heartbeat_offset(2, older));
	k(2)->volume[1].slot.buffer = older ^ 1; /* it has just written there by turns with the other */
	sim_run(&s, 3000);
	TAP_OK(n(2)->released_for == RELEASE_SLOT_TAKEN && n(2)->kills == 1, "another host's block of the same epoch in the older buffer: release");
	sim_run(&s, 10000);
	for (unsigned v = 0; v < 3; v++)
		TAP_OK(on_disk(2, v).state == HEARTBEAT_ARMED, "and not a word of it on volume %u: the other may be armed under that epoch", v);
	TAP_OK(k(1)->mine.over[1] == 0 || s.now - k(1)->node[1].t0_ns >= SIM_MS(w_ms()), "nobody believes that it is over but for its silence");
	sim_leave(&s, 2);
	sim_run(&s, 2000);
	TAP_OK(state(2) == LEASE_LEFT && on_disk(2, 0).state == HEARTBEAT_ARMED, "it can be stopped, still without a word");
	sound("two hosts in one epoch");
}

/* The node's other host has begun a later epoch, and this one, which can write the slot and not read it, does not know. */
static void test_twin_unread(void)
{
	struct heartbeat twin;
	uint64_t seq;

	armed_cluster(2, 1);
	sim_path(&s, 2, 0, SIM_REFUSE_READS);
	twin = on_disk(2, 0);
	twin.epoch++;
	memset(twin.life, 55, 16);
	memset(twin.host, 55, 16);
	forge_on_one(2, &twin);
	sim_run(&s, 15000);
	TAP_OK(n(2)->released_for == RELEASE_STORAGE && on_disk(2, 0).epoch == twin.epoch, "what cannot be read is not written over in both buffers");
	sim_path(&s, 2, 0, SIM_OK);
	sim_run(&s, 10000);
	TAP_OK(k(2)->slot_taken && on_disk(2, 0).epoch == twin.epoch, "and once it can, the other one is seen");

	/* A volume whose answers come after the others' rounds is read late, and written all the same. */
	armed_cluster(2, 3);
	n(2)->latency_ms[2] = 400;
	sim_run(&s, 3000);
	seq = on_disk(2, 2).seq;
	sim_run(&s, 3000);
	TAP_OK(on_disk(2, 2).seq >= seq + 2 && undisturbed(), "one volume is slow: what it shows late counts for that");
	sound("a slot that is not read");
}

/* Of two hosts with one id one has been on a volume that the other does not use. */
static void test_twin_on_one_volume(void)
{
	struct heartbeat twin;
	int64_t began;

	for (unsigned later = 0; later < 2; later++) {
		armed_cluster(2, 3);
		sim_path(&s, 2, 0, SIM_GONE);
		sim_run(&s, 1000);
		twin = on_disk(2, 0);
		twin.epoch += later;
		twin.seq += 1ULL << 40;
		twin.state = HEARTBEAT_DISARMED;
		twin.settled = 0;
		memset(twin.life, 55, 16);
		memset(twin.host, 55, 16);
		forge_on_one(2, &twin);
		sim_run(&s, 15000);
		TAP_OK(k(1)->node[1].fresh && undisturbed() && (later || k(1)->node[1].hb.state == HEARTBEAT_ARMED), "a number on one volume, %s: the node is whoever moves",
		       later ? "a later one" : "begun twice");
		word(2, twin.epoch);
		sim_run(&s, 2000);
		TAP_OK(n(1)->notes[NOTE_REFUSED] == 1 && k(1)->mine.over[1] == 0, "and no operator's word ends it");
		sound("a twin on one volume");

		sim_power_cut(&s, 2, SIM_CUT_DROP);
		sim_path(&s, 2, 0, SIM_OK);
		n(2)->host = 55;
		began = s.now;
		sim_start(&s, 2);
		sim_run(&s, w_ms());
		TAP_OK(state(2) == LEASE_STARTING && n(2)->notes[NOTE_FOREIGN_OWNER] == 1, "the twin comes up: it waits for the other, though its own block is the newest");
		if (later) { /* nobody fences what was not armed: that is the newest for all others */
			word(2, twin.epoch);
			sim_run(&s, 1000);
		}
		TAP_OK(SIM_UNTIL(&s, 2 * w_ms(), on_disk(2, 1).epoch == twin.epoch + 1) && s.now - began >= SIM_MS(w_ms() + s.timing.hb_ms), "and goes on when that is over");
		sound("a twin that comes up");
	}

	/* What a volume shows that missed the change of hosts is of the past. */
	armed_cluster(2, 3);
	twin = on_disk(2, 0);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	n(2)->host = 55;
	sim_start(&s, 2);
	(void)SIM_UNTIL(&s, 4 * w_ms(), state(2) == LEASE_DISARMED);
	sim_run(&s, 1000);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	forge_on_one(2, &twin);
	sim_start(&s, 2);
	TAP_OK(SIM_UNTIL(&s, 3000, state(2) == LEASE_DISARMED), "an old host's block on a volume that was away since: no wait");
	sound("an old host's block");
}

static void test_bad_volumes(void)
{
	static uint8_t kept[SIM_TABLE];
	struct superblock sb;

	armed_cluster(2, 1);
	memset(s.volume[0], 0, SIM_TABLE);
	(void)SIM_UNTIL(&s, 2000, n(1)->fault[0] == FAULT_WIPED && n(2)->fault[0] == FAULT_WIPED);
	memcpy(kept, s.volume[0], SIM_TABLE);
	sim_run(&s, 5000);
	TAP_OK(n(1)->fault[0] == FAULT_WIPED && n(1)->kills == 1 && n(2)->kills == 1 && resets() == 0,
	       "a wiped volume: said, and released for");
	TAP_OK(memcmp(kept, s.volume[0], SIM_TABLE) == 0, "a wiped volume: never written again");
	sound("a wiped volume");

	/* Living nodes write over their own blocks before they look; those of one that has left tell. */
	armed_cluster(3, 3);
	memcpy(kept, s.volume[1], SIM_TABLE);
	sim_run(&s, 3000);
	sim_leave(&s, 3);
	sim_run(&s, 2000);
	memcpy(s.volume[1], kept, SIM_TABLE);
	sim_run(&s, 10000);
	TAP_OK(n(1)->fault[1] == FAULT_ROLLED_BACK && n(2)->fault[1] == FAULT_ROLLED_BACK,
	       "a volume rolled back: noticed by all");
	TAP_OK(undisturbed() && state(1) == LEASE_ARMED && state(2) == LEASE_ARMED,
	       "a volume rolled back: the other two carry on");
	sound("a volume rolled back");

	armed_cluster(2, 3);
	(void)superblock_decode(s.volume[1], 0, sim_cluster, &sb);
	memset(sb.cluster, 'x', 16);
	for (unsigned c = 0; c < 2; c++)
		superblock_encode(&sb, c, s.volume[1] + format_superblock_offset(c));
	sim_run(&s, 3000);
	TAP_OK(n(1)->fault[1] == FAULT_FOREIGN && undisturbed(), "another cluster's volume: not used any more");
	sound("another cluster's volume");

	armed_cluster(2, 3);
	memcpy(s.volume[1], s.volume[2], SIM_TABLE);
	sim_run(&s, 3000);
	TAP_OK(n(1)->fault[1] == FAULT_FOREIGN && undisturbed(),
	       "a volume that is a copy of another one of the set: not used any more");
	sound("a copied volume");

	armed_cluster(2, 1);
	s.volume[0][100] ^= 1;
	sim_run(&s, 5000);
	TAP_OK(undisturbed() && all_are(LEASE_ARMED), "one superblock damaged: the other one does");
	sound("one superblock damaged");

	/* Both buffers of a node unreadable: never taken for empty. */
	armed_cluster(2, 3);
	sim_power_cut(&s, 2, SIM_CUT_DROP);
	for (unsigned b = 0; b < 2; b++)
		s.volume[0][format_heartbeat_offset(2, b) + 70] ^= 1;
	TAP_OK(SIM_UNTIL(&s, over_bound_ms(), k(1)->mine.over[1] == 1),
	       "a dead node's block unreadable on one of three volumes: the others suffice");
	TAP_OK(!k(1)->volume[0].read_ok && k(1)->volume[0].fault == FAULT_NONE, "and that volume counts for nothing");
	sim_start(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(k(2)->epoch == 2 && k(1)->volume[0].read_ok, "its owner comes back and mends it");
	sound("an unreadable block");

	for (unsigned v = 1; v <= 2; v++) {
		armed_cluster(2, v);
		sim_power_cut(&s, 2, SIM_CUT_DROP);
		for (unsigned b = 0; b < 2; b++)
			s.volume[0][format_heartbeat_offset(2, b) + 70] ^= 1;
		sim_run(&s, 15000);
		TAP_OK(k(1)->mine.over[1] == 0,
		       "a dead node's block unreadable, %u volume%s: not proven dead", v, v > 1 ? "s" : "");
		sound("an unreadable block without a quorum of others");
	}

	/* Whatever a valid block says, the keeper lives. */
	for (unsigned i = 0; i < 8; i++) {
		struct heartbeat hb;

		armed_cluster(2, 1);
		sim_power_cut(&s, 2, SIM_CUT_DROP);
		hb = on_disk(2, 0);
		hb.epoch = i & 1 ? FORMAT_MAX_EPOCH : hb.epoch;
		hb.seq = i & 2 ? UINT64_MAX : hb.seq + 1;
		hb.wd_ms = hb.wd_delay_ms = i & 4 ? UINT32_MAX : 0;
		for (unsigned j = 0; j < FORMAT_MAX_NODES; j++)
			hb.alive[j] = hb.intent[j] = hb.over[j] = i & 1 ? 0 : FORMAT_MAX_EPOCH;
		forge(2, &hb);
		sim_run(&s, 3000);
		sim_start(&s, 2);
		sim_run(&s, 8000);
	}
	TAP_OK(true, "hostile numbers in valid blocks crash nobody");
}

static void test_leave(void)
{
	int64_t began;

	armed_cluster(3, 1);
	began = s.now;
	sim_leave(&s, 3);
	TAP_OK(!keeper_gate_open(k(3), 1, s.now), "leave: the gate is closed");
	TAP_OK(SIM_UNTIL(&s, 2000, n(3)->exits == 1) && !n(3)->wd_running && on_disk(3, 0).state == HEARTBEAT_LEFT,
	       "leave: published, the watchdog stopped, and out");
	TAP_OK(SIM_UNTIL(&s, 2000, k(1)->mine.over[2] == 1) && s.now - began < SIM_MS(2000),
	       "leave: over at once for the others");
	sim_run(&s, 10000);
	TAP_OK(undisturbed() && state(1) == LEASE_ARMED, "leave: nobody is fenced for it");
	sound("leave");

	armed_cluster(2, 2);
	sim_path(&s, 2, 1, SIM_GONE);
	sim_leave(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(n(2)->resets == 0, "leave without a fence quorum: no reset, nothing runs any more");
	sound("leave without a fence quorum");

	armed_cluster(2, 1);
	sim_path(&s, 2, 0, SIM_GONE);
	sim_leave(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(n(2)->resets == 0, "leave without any storage: no reset");
	sound("leave without storage");

	armed_cluster(2, 1);
	sim_crash(&s, 2);
	n(2)->vm_epoch = 0;
	sim_path(&s, 2, 0, SIM_GONE);
	sim_start(&s, 2);
	sim_leave(&s, 2);
	sim_run(&s, 5000);
	TAP_OK(n(2)->resets == 0, "leave while starting with a held watchdog: no reset");
	sound("leave while starting");

	armed_cluster(2, 1);
	n(2)->kill_ms = 300;
	sim_say(&s, 2, KEEPER_EV_SUSPENDED);
	sim_leave(&s, 2);
	TAP_OK(SIM_UNTIL(&s, 5000, n(2)->exits == 1) && on_disk(2, 0).state == HEARTBEAT_LEFT,
	       "leave during a release: not forgotten");
	sound("leave during a release");

	start_all(2, 1);
	sim_leave(&s, 2);
	sim_leave(&s, 2);
	sim_say(&s, 2, KEEPER_EV_ARM);
	sim_run(&s, 2000);
	TAP_OK(n(2)->exits == 1 && state(2) == LEASE_LEFT && !n(2)->wd_running, "leave twice, and arm: left");
	sound("leave twice");
}

int main(void)
{
	test_start();
	test_damage_apart();
	test_unpublished();
	test_minority();
	test_arm();
	test_power_cut();
	test_stale();
	test_split();
	test_ring_lost();
	test_storage();
	test_hold_of_all();
	test_hold_soon();
	test_hold_of_one();
	test_hold_asks_all();
	test_evidence();
	test_hold_grant();
	test_unresolved();
	test_busy_volumes();
	test_commit();
	test_restart();
	test_resume_unwatched();
	test_slot_owner();
	test_twin_in_one_epoch();
	test_twin_unread();
	test_twin_on_one_volume();
	test_bad_volumes();
	test_leave();
	for (int st = 0; st < LEASE_STATE_COUNT; st++)
		if (strcmp(lease_state_name((enum lease_state)st), "unknown") == 0)
			TAP_OK(false, "state %d has a name", st);
	TAP_STR(lease_state_name((enum lease_state)99), "unknown", "a state out of range is unknown");
	return tap_done();
}
