/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the hold is for: storage gone for all three nodes costs nobody anything; storage gone for one ends with its VMs elsewhere.
 *
 * Stands for: DESIGN "Riding through a common storage outage", last two sentences, and T_heal; hold.pml shows that it is safe.
 * A tick is one round of each node, in any order; asks and grants need no time, processes and the ring are healthy. A node whose storage has gone finds out
 * by a round that fails, and asks from then on; it goes on with grants from all. It grants while it has found out and not regained, or for HEAL ticks after regaining if it
 * has no commit against the asker. Each grant, and each gap in one's own reads, restarts t0. Without renewal for SOFT ticks a node releases.
 * ALL: storage goes for all within GOES ticks, at any moment, for any time, and comes back for all within COMES ticks: nobody releases, nobody commits. COMES is longer
 * than SOFT, so that T_heal is needed. REST: for node 0 it does not come back. ONE: it goes for node 0 only. In both: node 0 releases within a bound, nobody
 * else ever does, and both others take over within another.
 * Left out: what arbitrate.pml has (views, intents: here a silent node is committed against at once), losses of messages, dead nodes.
 *
 * run: small all -DALL -DSOFT=4 -DTWD=5 -DCOMES=5
 * run: small rest -DREST
 * run: small one -DONE
 * run: large all-long -DALL
 * run: large all-apart -DALL -DGOES=2 -DSOFT=6 -DTWD=7 -DCOMES=7
 * mutant: small all MUTANT_NO_HEAL
 * mutant: small all MUTANT_NO_GRANTS
 * mutant: small all MUTANT_T0_KEPT
 * mutant: small rest MUTANT_HEALS_FOR_EVER
 * mutant: small rest MUTANT_NO_GRANTS
 * mutant: small rest MUTANT_NO_TAKEOVER
 * mutant: small one MUTANT_GRANTS_WITH_STORAGE
 * mutant: small one MUTANT_NO_TAKEOVER
 */
#define N 3
#ifndef GOES
#define GOES 1
#endif
#ifndef COMES
#define COMES 6
#endif
#ifndef SOFT
#define SOFT 5
#endif
#ifndef TWD
#define TWD 6
#endif
#define W (2 * TWD)
#define HEAL (COMES + 2) /* a round may find out late */
#define FOUND 2          /* an outage that is over before everybody has found out is one node's own for whom it is not */
#ifdef ALL
#define LAST (GOES + 1)
#define GOES_ON (since_back < COMES + HEAL + 2)
#define LONGEST (SOFT + 2) /* ticks that all are without storage: nothing changes any more */
#else
#define LAST 60
#define GOES_ON (since_went < LAST)
#define LONGEST (SOFT + 2)
#endif
#define LAST_BACK 60
#ifdef MUTANT_NO_HEAL
#define HEALS 0
#else
#define HEALS HEAL
#endif
#define AT(i, j) ((i) * N + (j))
#define GONE (!has[0] && !has[1] && !has[2])

bit has[N] = 1, away[N], serves[N] = 1, went; /* away: it has found out */
byte heal[N], idle[N];                        /* ticks since the last renewal */
bit news[N * N], commit[N * N], over[N * N];
byte age[N * N];
byte since_went, since_back, out;             /* ticks since the first one lost it; since it came back for the first; how long all were without */
bit done[N];
hidden byte x, got;

#ifdef MUTANT_GRANTS_WITH_STORAGE
#define GRANTS(j, i) true
#elif defined(MUTANT_NO_GRANTS)
#define GRANTS(j, i) false
#else
#define GRANTS(j, i) (away[j] || (heal[j] > 0 && !commit[AT(j, i)]))
#endif

inline release(i)
{
#ifdef ALL
	assert(false); /* a common outage costs nobody its guests */
#else
	assert(i == 0); /* nor does one node's cost others theirs */
	serves[i] = 0
#endif
}

inline disk_round(j)
{
	if
	:: away[j] ->
		away[j] = 0; heal[j] = HEALS;
		x = 0;
#ifndef MUTANT_T0_KEPT
		do :: x < N -> age[AT(j, x)] = 0; x++ :: else -> break od
#endif
	:: else
	fi;
	x = 0;
	do
	:: x < N && x == j -> x++
	:: x < N && x != j ->
		news[AT(x, j)] = serves[j];
		if :: news[AT(j, x)] -> news[AT(j, x)] = 0; age[AT(j, x)] = 0 :: else fi;
		if
		:: serves[j] && !over[AT(j, x)] && age[AT(j, x)] > TWD ->
#ifdef ALL
			assert(false); /* nobody is fenced for it */
#endif
#ifndef MUTANT_NO_TAKEOVER
			commit[AT(j, x)] = 1
#endif
		:: else
		fi;
		if :: commit[AT(j, x)] && age[AT(j, x)] >= W -> over[AT(j, x)] = 1 :: else fi;
		x++
	:: else -> break
	od;
	x = 0;
	do :: x < N && serves[j] && commit[AT(x, j)] -> release(j); x++ :: x < N && !(serves[j] && commit[AT(x, j)]) -> x++ :: else -> break od;
	x = 0;
	idle[j] = 0
}

inline hold_round(j)
{
	away[j] = 1; heal[j] = 0; got = 0; x = 0;
	do
	:: x < N ->
		if
		:: serves[j] && x != j && GRANTS(x, j) -> got++;
#ifndef MUTANT_T0_KEPT
			age[AT(x, j)] = 0
#endif
		:: else
		fi;
		x++
	:: else -> break
	od;
	if
	:: got == N - 1 -> idle[j] = 0 /* must be reached */
	:: else
	fi;
	x = 0; got = 0
}

proctype Node(byte j)
{
	do
	:: d_step { !done[j] -> done[j] = 1; if :: has[j] -> disk_round(j) :: else -> hold_round(j) fi }
	od
}

inline tick()
{
	x = 0;
	do
	:: x < N ->
		done[x] = 0;
#ifndef MUTANT_HEALS_FOR_EVER
		if :: heal[x] > 0 -> heal[x]-- :: else fi;
#endif
		if :: serves[x] -> idle[x]++; if :: idle[x] > SOFT -> release(x); idle[x] = 0 :: else fi :: else fi;
		x++
	:: else -> break
	od;
	x = 0;
	do :: x < N * N -> if :: age[x] <= W -> age[x]++ :: else fi; x++ :: else -> break od;
	x = 0;
	if :: went && since_went < LAST -> since_went++ :: else fi;
	if :: went && GONE && out < LONGEST -> out++ :: else fi;
	if :: out > 0 && !GONE && since_back < LAST_BACK -> since_back++ :: else fi
#ifdef ONE
	;
	assert(since_went <= SOFT + 2 || !serves[0]); /* within seconds it is quiet, */
	assert(since_went <= W + 3 || (over[AT(1, 0)] && over[AT(2, 0)])) /* and its VMs may start elsewhere */
#endif
#ifdef REST
	;
	assert(since_back <= COMES + HEAL + SOFT + 2 || !serves[0]);
	assert(since_back <= COMES + HEAL + W + 4 || (over[AT(1, 0)] && over[AT(2, 0)]))
#endif
}

#define ALL_DONE (done[0] && done[1] && done[2])
#if defined(ONE)
#define IN_TIME true
#elif defined(REST)
#define IN_TIME ((out > 0 || since_went < GOES || GONE) && (since_back < COMES || (has[1] && has[2])))
#else
#define IN_TIME ((out > 0 || since_went < GOES || GONE) && (since_back < COMES || (has[0] && has[1] && has[2])))
#endif

proctype World()
{
	do
	:: d_step { ALL_DONE && IN_TIME && GOES_ON -> tick() }
	:: d_step { has[0] && (!went || (out == 0 && since_went <= GOES)) -> has[0] = 0; went = 1 }
#ifndef ONE
	:: d_step { has[1] && (!went || (out == 0 && since_went <= GOES)) -> has[1] = 0; went = 1 }
	:: d_step { has[2] && (!went || (out == 0 && since_went <= GOES)) -> has[2] = 0; went = 1 }
#ifdef ALL
	:: d_step { !has[0] && out >= FOUND && since_back < COMES -> has[0] = 1 }
#endif
	:: d_step { !has[1] && out >= FOUND && since_back < COMES -> has[1] = 1 }
	:: d_step { !has[2] && out >= FOUND && since_back < COMES -> has[2] = 1 }
#endif
	od
}

init { atomic { run Node(0); run Node(1); run Node(2); run World() } }
