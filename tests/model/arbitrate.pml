/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two or three nodes that may all be alive fence each other: suspicion, groups, intents, commits, releases, new epochs.
 *
 * Stands for: DESIGN "Taking over" 1-7 with the sentences of step 3 and 4 on losers, intents and equals, L5; fence/arbitrate.c (all), fence/takeover.c (all),
 * fence/table.c (take_newer, table_observed, table_commit_against, table_next_epoch), fence/lease.c (end_round, after_round, may_rejoin, try_start).
 * The decisions below are those of the code, line by line, with ticks for milliseconds.
 *
 * Time: a tick is one heartbeat. A node does one round a tick: pet, write, then read and judge, in steps that interleave freely with the others'.
 * The tick ends when every node has done its round and knows its ring view; each time it ends before that (a node stalls, or corosync is late) costs one of
 * LATES. A node that does not pet for TWD ticks is reset; one that is late may release by itself (the soft deadline) before.
 * The ring: CHANGES times it falls into any parts, or becomes whole, or leaves one node without a ring (RINGLOSS); each node learns of its part at a moment
 * of its own. CRASHES: a node dies, its last write may still land; it may boot again.
 * At any moment the world may become calm: no more faults. SETTLED ticks later everything must be in order, see calm_and_settled.
 * That is the bounded form of "never both fenced for good": both released, both waiting for each other, and fencing each other in turns for
 * ever are all found. Nobody's epoch may go beyond LAST_EPOCH: so many fences from so few faults are an endless quarrel.
 * Safety: who declares an epoch over must be right at that moment, and guests of that epoch never run later.
 * Found by this model, and mended in the code since: the gate opened before "armed" was on the volumes, so that nobody could take over from a node that died
 * then (MUTANT_GATE_BEFORE_ARMED); and a node released for the intent of one against which it had committed, so that both sides released,
 * again and again for ever where a split lasts and the nodes come back at different times (MUTANT_INTENT_BEATS_COMMIT).
 * The code also waits until the winning group has been the same for a while (winner_ns, for weights change with arming): then intents, the waiting for them
 * and the order of commits are a second line of defence, which nothing here can get through. NO_WINNER_SETTLE: without the first line each of them is needed.
 * COARSE: pet and write are one step. REJOIN: begins with a lasting split of 0 from 1 and 2, where 2 is about to arm. ONE_CUT: the ring breaks in that way only.
 * CRASHER: who may crash, as a mask.
 * Left out: several volumes and the parts of a block on the way (lease.pml), disarming, table reads that see the nodes' blocks at different moments,
 * power fencing, the longer grace for nodes that were never in one ring, on_ring_loss = keep. A read and what is decided by it are one moment; until its consequence is written any time may pass.
 *
 * run: small two -DN=2 -DCHANGES=3
 * run: small two-late -DN=2 -DCHANGES=1 -DLATES=1
 * run: small two-crash -DN=2 -DCHANGES=2 -DCRASHES=1
 * run: small two-ringloss -DN=2 -DCHANGES=2 -DRINGLOSS
 * run: small three -DN=3 -DCHANGES=1 -DCOARSE -DONE_CUT
 * run: small three-rejoin -DN=3 -DCHANGES=0 -DCOARSE -DREJOIN -DSETTLED=24
 * run: small three-unsettled -DN=3 -DCHANGES=0 -DCOARSE -DREJOIN -DSETTLED=24 -DNO_WINNER_SETTLE
 * run: large three-all-cuts -DN=3 -DCHANGES=1 -DCOARSE
 * run: large two-late-long -DN=2 -DCHANGES=1 -DLATES=2
 * run: large three-rejoin-crash -DN=3 -DCHANGES=0 -DCRASHES=1 -DCOARSE -DREJOIN -DSETTLED=24 -DLAST_EPOCH=6
 * run: large three-crash -DN=3 -DCHANGES=1 -DCRASHES=1 -DCRASHER=1 -DCOARSE -DONE_CUT -DSETTLED=24 -DLAST_EPOCH=6 cc-DCOLLAPSE
 * run: large three-two-changes -DN=3 -DCHANGES=2 -DCOARSE -DONE_CUT cc-DCOLLAPSE
 * mutant: small two MUTANT_NO_SETTLE
 * mutant: small two MUTANT_OWN_SUM
 * mutant: small two MUTANT_INTENT_STAYS
 * mutant: small two MUTANT_REJOIN_ALWAYS
 * mutant: small two MUTANT_NEVER_REJOIN
 * mutant: small two MUTANT_EPOCH_REUSED
 * mutant: small two-late MUTANT_W_SHORT
 * mutant: small two-crash MUTANT_WAIT_FOR_DEAD
 * mutant: small two-crash MUTANT_STALE_BARS
 * mutant: small two-crash MUTANT_GATE_BEFORE_ARMED
 * mutant: small three-unsettled MUTANT_NO_INTENT
 * mutant: small three-unsettled MUTANT_NO_WAIT
 * mutant: small three-unsettled MUTANT_INTENT_BEATS_COMMIT
 * mutant: small three-unsettled MUTANT_INTENT_BEATS_COMMIT -DQUARREL -DSETTLED=80 -DLAST_EPOCH=9
 */
#ifndef N
#define N 2
#endif
#ifndef CHANGES
#define CHANGES 1
#endif
#ifndef LATES
#define LATES 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef LAST_EPOCH
#define LAST_EPOCH 4
#endif
#ifndef CRASHER
#define CRASHER ALL
#endif
#define TWD 2
#ifdef MUTANT_W_SHORT
#define W (2 * TWD - 2)
#else
#define W (2 * TWD - 1)
#endif
#define SETTLE 2 /* ring views must differ this long, and a node be without a ring, before anybody is fenced for it */
#define OLD (TWD + 2)
#ifndef SETTLED
#define SETTLED 14
#endif
#define ALL ((1 << N) - 1)
#define AT(i, j) ((i) * N + (j))
#define COUNT(m) (((m) & 1) + ((m) >> 1 & 1) + ((m) >> 2 & 1))
/* Most nodes, then the lowest id; an empty group below all. */
#define RANK(m) ((m) == 0 -> 0 : COUNT(m) * 4 + ((m) & 1 -> 3 : ((m) & 2 -> 2 : 1)))

/* Of a node; on the disk, too. Armed: its guests run. */
#define DOWN 0
#define ARMED 1
#define RELEASED 2
#define DISARMED 3

/* Where a node is in its round. */
#define IDLE 0
#define PETTED 1
#define WRITTEN 2
#define DONE 3

byte mode[N], epoch[N], phase[N], wd[N], view[N]; /* view: 0 without a ring */
bit renewed[N], late[N];
byte calls[N];                      /* rounds since the release */
byte guests[N], ran[N];             /* epoch under which its guests run, 0: none do; the last such epoch */
byte intent[N * N], commit[N * N], over[N * N];
/* On the disk. */
byte d_mode[N], d_epoch[N], d_view[N], d_intent[N * N], d_commit[N * N], d_over[N * N];
bit on_way[N];                      /* a dead node's last write may still land */
/* What i has seen of j: index AT(i, j). */
bit news[N * N];                    /* j's block has changed since i read it */
bit advanced[N * N];                /* j's block was seen to change since i's own view did */
byte age[N * N];                    /* ticks since t0 */
byte seen_view[N * N], view_age[N * N];
byte own_view_age[N];
byte seen_winner[N], winner_age[N];  /* weights change with arming, too */
/* The world. */
byte ring[N];                       /* the part of the ring a node is in; 0: its corosync is gone */
byte lates = LATES, changes = CHANGES, crashes = CRASHES;
bit calm, stalled, broken_long;
byte calm_ticks, broken;            /* ticks since the ring was whole */

hidden byte x, y, m, own, top, grp[N], best, hit, winner;

#ifdef NO_WINNER_SETTLE
#define WINNER_SETTLED(i) 1
#else
#define WINNER_SETTLED(i) (winner_age[i] >= SETTLE)
#endif
#define LEASED(i) (mode[i] == ARMED || mode[i] == DISARMED)
#define FRESH(i, j) (age[AT(i, j)] <= TWD)
#define COUNTS(i, j) ((i) == (j) -> mode[i] == ARMED : FRESH(i, j) && advanced[AT(i, j)] && d_mode[j] == ARMED)
#define VIEW(i, j) ((i) == (j) -> view[i] : d_view[j])
#define INTENDS(i, j) (FRESH(i, j) && d_mode[j] == ARMED && over[AT(i, j)] < d_epoch[j] && d_intent[AT(j, i)] >= epoch[i])

inline let_go(i)
{
	/* A ring that was broken for less than SETTLE ticks, with nobody late or dead, costs nobody its guests. */
	assert(broken_long || stalled);
	/* While nobody is late or dies, some node serves at any moment. */
#ifndef RINGLOSS
	m = 0; own = 0;
	do :: m < N -> if :: m != i && LEASED(m) -> own = 1 :: else fi; m++ :: else -> break od;
	assert(own || stalled);
#endif
	printf("%d releases epoch %d\n", i, epoch[i]);
	mode[i] = RELEASED; calls[i] = 0; renewed[i] = 0; guests[i] = 0;
	m = 0;
	do :: m < N -> intent[AT(i, m)] = 0; m++ :: else -> break od
}

inline write_block(i)
{
	d_mode[i] = (mode[i] == DOWN -> ARMED : mode[i]); d_epoch[i] = epoch[i]; d_view[i] = view[i];
	m = 0;
	do
	:: m < N ->
		d_intent[AT(i, m)] = intent[AT(i, m)]; d_commit[AT(i, m)] = commit[AT(i, m)]; d_over[AT(i, m)] = over[AT(i, m)];
		news[AT(m, i)] = 1; m++
	:: else -> break
	od
}

inline declare_over(i, j, e)
{
	if
	:: e > over[AT(i, j)] ->
		printf("%d: epoch %d of %d is over\n", i, e, j);
		over[AT(i, j)] = e;
		assert(guests[j] == 0 || guests[j] > e) /* twice */
	:: else
	fi
}

inline observe(i)
{
	x = 0;
	do
	:: x < N ->
		if
		:: x != i && news[AT(i, x)] ->
			news[AT(i, x)] = 0; age[AT(i, x)] = 0; advanced[AT(i, x)] = 1;
			if :: seen_view[AT(i, x)] != d_view[x] -> seen_view[AT(i, x)] = d_view[x]; view_age[AT(i, x)] = 0 :: else fi
		:: else
		fi;
		x++
	:: else -> break
	od
}

/* Counted nodes that publish the same view and are in it are a group. */
inline compute_groups(i)
{
	winner = 0; best = 0; x = 0;
	do
	:: x < N ->
		grp[x] = 0;
		if
		:: COUNTS(i, x) && (VIEW(i, x) >> x & 1) ->
			y = 0;
			do
			:: y < N -> if :: COUNTS(i, y) && (VIEW(i, y) >> y & 1) && VIEW(i, y) == VIEW(i, x) -> grp[x] = grp[x] | 1 << y :: else fi; y++
			:: else -> break
			od;
			if :: RANK(grp[x]) > best -> best = RANK(grp[x]); winner = grp[x] :: else fi
		:: else
		fi;
		x++
	:: else -> break
	od;
#ifndef NO_WINNER_SETTLE
	if :: seen_winner[i] != winner -> seen_winner[i] = winner; winner_age[i] = 0 :: else fi
#else
	skip
#endif
}

/* hit: is there a reason to fence x? */
inline reason(i, x)
{
	if
	:: d_mode[x] != ARMED || mode[i] != ARMED || over[AT(i, x)] >= d_epoch[x] || (winner != 0 && !(winner >> i & 1)) -> hit = 0
	:: else ->
		if
		:: !FRESH(i, x) -> hit = 1
		:: else ->
#ifdef MUTANT_NO_SETTLE
			hit = (view[i] != 0 && !(view[i] >> x & 1) && advanced[AT(i, x)] && !(winner >> x & 1))
#else
			hit = (view[i] != 0 && !(view[i] >> x & 1) && advanced[AT(i, x)] && own_view_age[i] >= SETTLE && view_age[AT(i, x)] >= SETTLE &&
			       WINNER_SETTLED(i) && !(winner >> x & 1))
#endif
		fi
	fi
}

inline must_wait(i)
{
	hit = 0; y = 0;
	do
#ifdef MUTANT_WAIT_FOR_DEAD
	:: y < N -> if :: y != i && d_mode[y] == ARMED && d_intent[AT(y, i)] >= epoch[i] -> hit = 1 :: else fi; y++
#else
	:: y < N -> if :: y != i && INTENDS(i, y) -> hit = 1 :: else fi; y++
#endif
	:: else -> break
	od
}

inline set_commit(i, j)
{
	printf("%d commits a fence of %d, epoch %d\n", i, j, d_epoch[j]);
	commit[AT(i, j)] = d_epoch[j]; intent[AT(i, j)] = 0;
	/* Of two mutual intents at least one sees the other. A node that stalls between its read and its commit may be late for that. */
	assert(stalled || d_epoch[j] < epoch[j] || commit[AT(j, i)] < epoch[i])
}

inline take_over(i)
{
	x = 0;
	do
	:: x < N && x == i -> x++
	:: x < N && x != i ->
		declare_over(i, x, d_epoch[x] - 1);
		if :: d_mode[x] == RELEASED -> declare_over(i, x, d_epoch[x]) :: else fi;
		y = 0;
		do
		:: y < N -> if :: y != i && y != x -> declare_over(i, x, d_over[AT(y, x)]) :: else fi; y++
		:: else -> break
		od;
		if
		:: commit[AT(i, x)] != 0 && d_epoch[x] > commit[AT(i, x)] -> commit[AT(i, x)] = 0
		:: else
		fi;
		if
		:: commit[AT(i, x)] != 0 ->
			intent[AT(i, x)] = 0;
			/* The block just read back carries the commit, if it was decided in an earlier round. */
			if
			:: d_commit[AT(i, x)] == commit[AT(i, x)] && d_mode[x] == ARMED && age[AT(i, x)] >= W -> declare_over(i, x, commit[AT(i, x)])
			:: else
			fi
		:: else ->
			reason(i, x);
			if
			:: intent[AT(i, x)] != 0 && (!hit || intent[AT(i, x)] != d_epoch[x]) ->
#ifndef MUTANT_INTENT_STAYS
				intent[AT(i, x)] = 0;
#endif
				hit = 0
			:: else
			fi;
			if
			:: hit && intent[AT(i, x)] == 0 ->
#ifdef MUTANT_NO_INTENT
				set_commit(i, x)
#else
				printf("%d intends to fence %d, epoch %d\n", i, x, d_epoch[x]);
				intent[AT(i, x)] = d_epoch[x]
#endif
			:: hit && intent[AT(i, x)] != 0 ->
#ifdef MUTANT_NO_WAIT
				hit = 0;
#else
				must_wait(i);
#endif
				if :: !hit && d_intent[AT(i, x)] == intent[AT(i, x)] -> set_commit(i, x) :: else fi
			:: else
			fi
		fi;
		x++
	:: else -> break
	od
}

/* hit: a fresh intent against i by a group that i, too, computes as higher. */
inline lost_to(i)
{
	hit = 0; x = 0;
	do
	:: x < N ->
		if
#ifndef MUTANT_INTENT_BEATS_COMMIT /* what we have committed against is about to release */
		:: x != i && commit[AT(i, x)] >= d_epoch[x] -> skip
#endif
		:: x != i && INTENDS(i, x) && d_view[x] != 0 && !(d_view[x] >> i & 1) && (view[i] == 0 || RANK(grp[x]) > RANK(grp[i])) -> hit = 1
		:: else
		fi;
		x++
	:: else -> break
	od;
#ifdef MUTANT_OWN_SUM
	if :: mode[i] == ARMED && view[i] != 0 && winner != 0 && !(winner >> i & 1) -> hit = 1 :: else fi
#endif
}

/* hit: nobody who can be seen has a ring without i. */
inline may_rejoin(i)
{
	hit = 1;
#ifndef MUTANT_REJOIN_ALWAYS
	x = 0;
	do
	:: x < N ->
#ifdef MUTANT_STALE_BARS
		if :: x != i && d_mode[x] == ARMED && d_view[x] != 0 && !(d_view[x] >> i & 1) -> hit = 0 :: else fi;
#else
		if :: x != i && FRESH(i, x) && d_mode[x] == ARMED && d_view[x] != 0 && !(d_view[x] >> i & 1) -> hit = 0 :: else fi;
#endif
		x++
	:: else -> break
	od
#endif
}

inline next_epoch(i)
{
	top = (epoch[i] > d_epoch[i] -> epoch[i] : d_epoch[i]); x = 0;
	do
	:: x < N ->
		if :: d_intent[AT(x, i)] > top -> top = d_intent[AT(x, i)] :: else fi;
		if :: d_commit[AT(x, i)] > top -> top = d_commit[AT(x, i)] :: else fi;
		if :: d_over[AT(x, i)] > top -> top = d_over[AT(x, i)] :: else fi;
		x++
	:: else -> break
	od;
#ifndef MUTANT_EPOCH_REUSED
	top++;
#endif
	printf("%d begins epoch %d\n", i, top);
	epoch[i] = top; mode[i] = DISARMED; renewed[i] = 0;
	assert(top <= LAST_EPOCH)
}

inline read_and_judge(i)
{
	hit = 0; x = 0;
	do
	:: x < N -> if :: x != i && d_commit[AT(x, i)] >= epoch[i] -> hit = 1 :: else fi; x++
	:: else -> break
	od;
	observe(i);
	if
	:: hit && LEASED(i) -> let_go(i)
	:: else ->
		renewed[i] = 1;
		/* The gate opens once "armed" is on the volumes: of a node that did not say it nobody could take over. */
		if :: mode[i] == ARMED && d_mode[i] == ARMED && d_epoch[i] == epoch[i] -> guests[i] = epoch[i]; ran[i] = epoch[i] :: else fi
	fi;
	compute_groups(i);
	take_over(i);
	if
	:: mode[i] == RELEASED && d_mode[i] == RELEASED && d_epoch[i] == epoch[i] ->
		calls[i]++;
		if
		:: calls[i] >= 2 ->
			calls[i] = 2;
			may_rejoin(i);
#ifdef MUTANT_NEVER_REJOIN
			hit = 0;
#endif
			if :: hit -> next_epoch(i); calls[i] = 0 :: else fi
		:: else
		fi
	:: else
	fi;
	if
	:: LEASED(i) -> lost_to(i); if :: hit -> let_go(i) :: else fi
	:: else
	fi
}

inline die(i)
{
	printf("%d dies\n", i);
	stalled = 1;
	on_way[i] = (phase[i] == PETTED && mode[i] == ARMED);
	mode[i] = DOWN; guests[i] = 0; phase[i] = IDLE; renewed[i] = 0; wd[i] = 0; late[i] = 0; calls[i] = 0
}

proctype Node(byte i)
{
	do
	:: d_step { mode[i] != DOWN && phase[i] == IDLE -> phase[i] = PETTED;
		if
		:: mode[i] == ARMED && renewed[i] -> wd[i] = TWD; renewed[i] = 0
		:: mode[i] == DISARMED && renewed[i] -> wd[i] = TWD; renewed[i] = 0; mode[i] = ARMED; printf("%d is armed\n", i) /* starting it is a pet */
#ifdef MUTANT_GATE_BEFORE_ARMED
			; guests[i] = epoch[i]; ran[i] = epoch[i]
#endif
		:: else
		fi;
#ifdef COARSE
		phase[i] = WRITTEN; write_block(i); m = 0
#endif
		}
#ifndef COARSE
	:: d_step { mode[i] != DOWN && phase[i] == PETTED -> phase[i] = WRITTEN; write_block(i); m = 0 }
#endif
	:: d_step { mode[i] != DOWN && phase[i] == WRITTEN -> phase[i] = DONE; read_and_judge(i); late[i] = 0 }
	/* Its part of the ring is news to it. */
	:: d_step { mode[i] != DOWN && view[i] != ring[i] -> view[i] = ring[i]; printf("%d sees ring %d\n", i, view[i]); own_view_age[i] = 0; x = 0;
		do :: x < N -> advanced[AT(i, x)] = 0; x++ :: else -> break od;
		x = 0 }
	:: d_step { mode[i] == ARMED && late[i] -> late[i] = 0; let_go(i); m = 0 } /* the soft deadline */
	:: d_step { mode[i] != DOWN && crashes > 0 && !calm && (CRASHER >> i & 1) -> crashes--; die(i) }
	:: d_step { mode[i] == DOWN && on_way[i] -> on_way[i] = 0; printf("a late write of %d lands\n", i); write_block(i); m = 0 }
	:: d_step { mode[i] == DOWN && on_way[i] -> on_way[i] = 0 }
	/* Boots: its own block's commits and deaths are carried on. */
	:: d_step { mode[i] == DOWN && !on_way[i] && !calm -> next_epoch(i); phase[i] = IDLE; view[i] = ring[i]; own_view_age[i] = 0; x = 0;
		do
		:: x < N ->
			advanced[AT(i, x)] = 0; age[AT(i, x)] = 0; news[AT(i, x)] = 0; seen_view[AT(i, x)] = d_view[x]; view_age[AT(i, x)] = 0;
			intent[AT(i, x)] = 0; commit[AT(i, x)] = d_commit[AT(i, x)]; over[AT(i, x)] = d_over[AT(i, x)]; x++
		:: else -> break
		od;
		x = 0 }
	od
}

#define BUSY(i) (mode[i] != DOWN && (phase[i] != DONE || view[i] != ring[i]))
#if N == 2
#define ANY_BUSY (BUSY(0) || BUSY(1))
#define ANY_ON_WAY (on_way[0] || on_way[1])
#else
#define ANY_BUSY (BUSY(0) || BUSY(1) || BUSY(2))
#define ANY_ON_WAY (on_way[0] || on_way[1] || on_way[2])
#endif

/* Long after the last fault: somebody who is alive is armed; all armed nodes that have a ring are in one part of it; everybody alive in that part is armed; and
 * of everybody else all armed nodes know that its guests are gone. */
inline calm_and_settled()
{
	m = 0; own = 0; top = 0;
	do
	:: m < N ->
		if :: mode[m] != DOWN -> top = 1 :: else fi;
		if :: mode[m] == ARMED -> own = own | 1 << m :: else fi;
		m++
	:: else -> break
	od;
	assert(top == 0 || own != 0); /* both fenced for good */
	m = 0;
	do
	:: m < N ->
		y = 0;
		do
		:: y < N ->
			if
			:: y != m && mode[m] == ARMED && view[m] != 0 ->
				/* two parts go on, nobody yields */
				assert(!(mode[y] == ARMED && view[y] != 0 && !(view[m] >> y & 1)));
				assert(!(mode[y] != DOWN && (view[m] >> y & 1) && mode[y] != ARMED)); /* kept out for good */
				assert(mode[y] == ARMED || over[AT(m, y)] >= ran[y]) /* nobody takes over */
			:: else
			fi;
			y++
		:: else -> break
		od;
		m++
	:: else -> break
	od
}

inline tick()
{
	printf("- tick\n");
	x = 0;
	do
	:: x < N ->
		if
		:: BUSY(x) -> late[x] = (phase[x] != DONE); stalled = 1
		:: else -> phase[x] = IDLE
		fi;
		if :: phase[x] == DONE -> phase[x] = IDLE :: else fi;
		if :: own_view_age[x] < SETTLE -> own_view_age[x]++ :: else fi;
#ifndef NO_WINNER_SETTLE
		if :: winner_age[x] < SETTLE -> winner_age[x]++ :: else fi;
#endif
		y = 0;
		do
		:: y < N ->
			if :: x != y && age[AT(x, y)] < OLD -> age[AT(x, y)]++ :: else fi;
			if :: x != y && view_age[AT(x, y)] < SETTLE -> view_age[AT(x, y)]++ :: else fi;
			y++
		:: else -> break
		od;
		x++
	:: else -> break
	od;
	x = 0;
	do
	:: x < N ->
		if :: mode[x] == ARMED -> wd[x]--; if :: wd[x] == 0 -> die(x) :: else fi :: else fi;
		x++
	:: else -> break
	od;
	if :: ring[0] == ALL -> broken = 0 :: ring[0] != ALL && broken < SETTLE -> broken++ :: else fi;
	if :: broken >= SETTLE -> broken_long = 1 :: else fi;
	if
	:: calm -> calm_ticks++; if :: calm_ticks == SETTLED -> calm_and_settled() :: else fi
	:: else
	fi
}

#if N == 2
#define SET_RING(a, b, c) ring[0] = a; ring[1] = b
#else
#define SET_RING(a, b, c) ring[0] = a; ring[1] = b; ring[2] = c
#endif

proctype World()
{
	do
	:: d_step { !ANY_BUSY && !ANY_ON_WAY && calm_ticks < SETTLED -> tick(); x = 0 }
	:: d_step { ANY_BUSY && !ANY_ON_WAY && lates > 0 && !calm -> lates--; tick(); x = 0 }
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(ALL, ALL, ALL) }
#ifndef ONE_CUT
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(1, 2, 4) }
#endif
#ifdef RINGLOSS
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(0, ALL - 1, ALL - 1); broken_long = 1 }
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(ALL - 2, 0, ALL - 2); broken_long = 1 }
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(0, 0, 0); broken_long = 1 }
#endif
#if N > 2
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(1, 6, 6) }
#ifndef ONE_CUT
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(5, 2, 5) }
	:: d_step { changes > 0 && !calm -> changes--; SET_RING(3, 3, 4) }
#endif
#endif
	:: d_step { !calm && !ANY_ON_WAY -> calm = 1; printf("- calm\n") }
	od
}

init
{
	d_step {
		x = 0;
		do
		:: x < N ->
			mode[x] = ARMED; epoch[x] = 1; guests[x] = 1; ran[x] = 1; wd[x] = TWD; view[x] = ALL; ring[x] = ALL; renewed[x] = 1; own_view_age[x] = SETTLE; seen_winner[x] = ALL; winner_age[x] = SETTLE;
			d_mode[x] = ARMED; d_epoch[x] = 1; d_view[x] = ALL;
			y = 0;
			do :: y < N -> seen_view[AT(x, y)] = ALL; view_age[AT(x, y)] = SETTLE; advanced[AT(x, y)] = 1; y++ :: else -> break od;
			x++
		:: else -> break
		od
	}
#ifdef REJOIN
	d_step {
		SET_RING(1, 6, 6); broken = SETTLE; broken_long = 1;
		x = 0;
		do
		:: x < N ->
			view[x] = ring[x]; d_view[x] = ring[x]; y = 0;
			do :: y < N -> seen_view[AT(x, y)] = ring[y]; y++ :: else -> break od;
			x++
		:: else -> break
		od;
#ifdef QUARREL
		stalled = 1; /* let it go on after everybody has released once */
#endif
		mode[2] = DISARMED; epoch[2] = 2; guests[2] = 0; d_mode[2] = RELEASED
	};
	if :: renewed[2] = 0 :: renewed[2] = 1 fi;
#endif
	atomic {
		run Node(0); run Node(1);
#if N > 2
		run Node(2);
#endif
		run World()
	}
}
