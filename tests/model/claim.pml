/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Owning one VM by claims: one block a node, a single writer each, no compare-and-write anywhere.
 *
 * Stands for: DESIGN "Owning a VM" with its sentences on direct reads and on restarts of the agent, "Give up: stop it, prove it, then publish", and what a
 * claim's end tells its next owner; agent/core/claimer.c (prepare, judge, overtaken, top_generation, finish_gives, publish_fresh) and
 * agent/core/vmlife.c (claim result, drain, start, stop, an own claim that nobody runs under is given up as unclean).
 *
 * Node: reads all claims block by block - writes its own - waits for the acknowledgement - reads all again - is granted, or withdraws. What it read is judged
 * at a later moment, by the deaths known then. A guest that ends leaves its last write on the way (tail) unless QEMU quit by itself. The agent may die
 * at each step, which forgets everything but the block and the guest; the keeper may lose the lease (guest killed, epoch over, agent goes on in
 * the next one); the node may crash, its epoch proven over later (lease.pml says how), and boot again with a later epoch.
 * A write lands late or never; at most one is unresolved, and a new process writes, and reads its own block, only after it is resolved; an
 * acknowledgement implies that it has landed. A dead node's unresolved write may land even after the proof of its death.
 * A block is written into both buffers before it counts, for what may rot later (blocks.pml has the buffers): one write here.
 * Not yet in the code: judge() goes by the first read alone (MUTANT_FIRST_READ_DECIDES; three nodes and a crash are needed to see it).
 * Left out: several volumes (any two fence quorums meet, so this is one register), several VMs in one block, the leader.
 * Heartbeats that announce claims only for policy appear as the cache of MUTANT_CACHED.
 *
 * run: small crash -DN=2 -DCRASHES=1
 * run: small restart -DN=2 -DRESTARTS=1
 * run: small loss -DN=2 -DLOSSES=1
 * run: small three -DN=3 -DCYCLES=1
 * run: large three-crash -DN=3 -DCYCLES=1 -DCRASHES=1
 * run: large two-all -DN=2 -DCYCLES=1 -DCRASHES=1 -DRESTARTS=1 -DLOSSES=1
 * mutant: small crash MUTANT_NO_REREAD -DGUESTS_ONLY
 * mutant: small crash MUTANT_GENERATION_RULE -DGUESTS_ONLY
 * mutant: small crash MUTANT_EARLY_START -DGUESTS_ONLY
 * mutant: small crash MUTANT_EARLY_RELEASE -DGUESTS_ONLY
 * mutant: small crash MUTANT_CACHED -DGUESTS_ONLY
 * mutant: small crash MUTANT_NO_TAIL_WAIT
 * mutant: small crash MUTANT_KILLED_IS_RELEASED
 * mutant: small crash MUTANT_WITHDRAWN_IS_CLEAN
 * mutant: small crash MUTANT_NOT_OVERTAKEN
 * mutant: large three-crash MUTANT_FIRST_READ_DECIDES
 * mutant: small restart MUTANT_RESTART_STARTS -DGUESTS_ONLY
 * mutant: small restart MUTANT_IDLE_IS_RELEASED
 */
#ifndef N
#define N 2
#endif
#ifndef CYCLES /* times a node tries to own the VM, in all its lives */
#define CYCLES 2
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef LOSSES
#define LOSSES 0
#endif

/* States of a claim. */
#define NONE 0
#define ACTIVE 1
#define RELEASED 2
#define UNCLEAN 3

byte st[N], ep[N], gen[N];        /* the blocks */
bit on_way[N];                    /* an unresolved write of it: */
byte way_st[N], way_ep[N], way_gen[N];
byte epoch[N] = 1;                /* of each node's present life */
byte over[N];                     /* epochs up to this one are proven over */
bit up[N] = 1;                    /* the node runs */
bit killed[N];                    /* its agent's process is gone */
bit lost[N];                      /* its keeper has released */
byte guest[N];                    /* epoch under which it runs the VM, 0: it does not */
bit tail;                         /* a write of a QEMU that is gone may still land */
byte crashes = CRASHES, restarts = RESTARTS, losses = LOSSES;
#ifdef MUTANT_CACHED
bit told[N];                      /* heartbeats: "my claims have changed" has reached the others */
#endif

#if N == 2
#define OTHERS(i) (guest[1 - (i)] > 0)
#else
#define OTHERS(i) (((i) != 0 && guest[0] > 0) || ((i) != 1 && guest[1] > 0) || ((i) != 2 && guest[2] > 0))
#endif

inline read_all()
{
	j = 0;
	do
	:: j < N ->
		d_step {
#ifdef MUTANT_CACHED
			if :: j == i || told[j] -> rst[j] = st[j]; rep[j] = ep[j]; rgen[j] = gen[j] :: else fi;
#else
			rst[j] = st[j]; rep[j] = ep[j]; rgen[j] = gen[j];
#endif
			j++
		}
	:: else -> break
	od;
	j = 0
}

inline forget()
{
	j = 0;
	do
	:: j < N -> rst[j] = 0; rep[j] = 0; rgen[j] = 0; j++
	:: else -> break
	od;
	j = 0
}

/* Somebody else's claim by an epoch that is not over. */
inline look_for_holder(least)
{
	busy = 0; j = 0;
	do
	:: j < N -> if :: j != i && rst[j] == ACTIVE && rep[j] > over[j] && rgen[j] >= least -> busy = 1 :: else fi; j++
	:: else -> break
	od;
	j = 0
}

inline put(s, g)
{
	!on_way[i];
	d_step { on_way[i] = 1; way_st[i] = s; way_ep[i] = epoch[i]; way_gen[i] = g;
#ifdef MUTANT_CACHED
		told[i] = 0
#endif
		}
}

inline acked() { !on_way[i] && st[i] == way_st[i] && gen[i] == way_gen[i] && ep[i] == way_ep[i] }

/* The newest generation, and whether the last one that may have run the VM has ended well. A withdrawn claim never ran it. Of one that nobody has ever
 * claimed the disk may be a removed VM's. */
inline last_owner()
{
	g = 0; unclean = 0; known = 0; j = 0;
	do
	:: j < N ->
		if
		:: rst[j] != NONE && rgen[j] > g -> g = rgen[j]; unclean = (rst[j] != RELEASED)
		:: rst[j] != NONE && rgen[j] == g && g > 0 -> unclean = (unclean || rst[j] != RELEASED)
		:: else
		fi;
		if :: rgen[j] > 0 -> known = 1 :: else fi;
		j++
	:: else -> break
	od;
	unclean = (unclean || !known);
	known = 0; j = 0
}

/* The first write may be lost: again, under a new number, until it is there. */
inline write(s, g)
{
	do
	:: put(s, g);
		!on_way[i];
		if
		:: acked() -> break
		:: else
		fi
	od
}

proctype Node(byte i)
{
	byte j, g, mine, tries, rst[N], rep[N], rgen[N];
	bit busy, unclean, was, known;

again:
	{
	!on_way[i]; /* nothing of an earlier process can land any more; only then is the own block read (blocks.pml) */
	if
	:: guest[i] > 0 -> goto runs /* found again: must be reached */
#ifdef MUTANT_RESTART_STARTS
	:: guest[i] == 0 && st[i] == ACTIVE && ep[i] == epoch[i] -> goto granted
#else
	:: guest[i] == 0 && st[i] == ACTIVE && ep[i] == epoch[i] ->
		/* Nobody runs under it, and nobody knows whether the one that ran has drained. */
#ifdef MUTANT_IDLE_IS_RELEASED
		write(RELEASED, gen[i])
#else
		write(UNCLEAN, gen[i])
#endif
#endif
	:: else
	fi;
idle:
	tries < CYCLES;
	tries++;
	read_all();
	d_step {
		look_for_holder(0);
		last_owner();
		j = 0;
		do
		:: j < N -> if :: rst[j] == NONE && rgen[j] > g -> g = rgen[j] :: else fi; j++
		:: else -> break
		od;
		forget();
		g++
	};
	if
	:: busy -> busy = 0; goto idle
	:: else
	fi;
#ifdef MUTANT_EARLY_START
	put(ACTIVE, g);
#else
	write(ACTIVE, g);
#endif
#ifdef MUTANT_NO_REREAD
	goto granted;
#endif
	read_all();
	d_step {
#ifdef MUTANT_GENERATION_RULE
		look_for_holder(g + 1);
#else
		look_for_holder(0);
#endif
#if !defined(MUTANT_NOT_OVERTAKEN) && !defined(MUTANT_GENERATION_RULE)
		/* Claimed between our two reads, perhaps run, and dead already: what the first read said is no longer true. */
		do
		:: j < N -> if :: j != i && rgen[j] >= g -> busy = 1 :: else fi; j++
		:: else -> break
		od;
#endif
#ifndef MUTANT_FIRST_READ_DECIDES
		/* The blocks of a read are of different moments: of one that was read early the claim may be news now, and older than ours. */
		rst[i] = NONE; was = unclean; mine = g;
		last_owner();
		unclean = (unclean || was); g = mine; was = 0; mine = 0;
#endif
		forget()
	};
	if
	:: busy ->
		busy = 0;
#ifdef MUTANT_WITHDRAWN_IS_CLEAN
		write(NONE, g);
#else
		if
		:: unclean -> write(UNCLEAN, g) /* must be reached */
		:: else -> write(NONE, g)
		fi;
#endif
		goto idle
	:: else
	fi;
granted:
	busy = 0;
#ifndef MUTANT_NO_TAIL_WAIT
	if
	:: unclean -> !tail /* each disk's storage answers a probe, then T_drain */
	:: else
	fi;
#endif
	atomic {
		unclean = 0;
		guest[i] = epoch[i];
#ifndef GUESTS_ONLY
		assert(!tail); /* an earlier owner's write would land over ours */
#endif
		assert(!OTHERS(i)) /* twice */
	};
runs:
	if
#ifdef MUTANT_EARLY_RELEASE
	:: true -> write(RELEASED, gen[i]); guest[i] = 0; goto idle
#endif
	:: d_step { guest[i] > 0 -> guest[i] = 0 } /* QEMU quit by itself: it waited for its last write */
	:: guest[i] == 0 ->                        /* crashed or killed */
#ifndef MUTANT_KILLED_IS_RELEASED
		!tail
#endif
	fi;
	write(RELEASED, gen[i]);
	goto idle
	} unless { killed[i] || lost[i] };
	d_step {
		killed[i] = 0; forget(); busy = 0; unclean = 0; g = 0;
		if :: lost[i] -> lost[i] = 0 :: else fi
	};
	up[i];
	goto again
}

proctype World(byte i)
{
	do
	:: d_step { on_way[i] -> st[i] = way_st[i]; ep[i] = way_ep[i]; gen[i] = way_gen[i]; on_way[i] = 0 }
	:: d_step { on_way[i] -> on_way[i] = 0 }
#ifdef MUTANT_CACHED
	:: !on_way[i] && !told[i] -> told[i] = 1
#endif
	:: d_step { tail -> tail = 0 }
	:: d_step { guest[i] > 0 -> guest[i] = 0; tail = 1 } /* QEMU crashes, or is killed */
	:: d_step { up[i] && !killed[i] && restarts > 0 -> restarts--; killed[i] = 1 }
	/* The keeper kills the guest, proves it gone, publishes "released", and begins a new epoch. */
	:: d_step { up[i] && !lost[i] && losses > 0 -> losses--; lost[i] = 1; if :: guest[i] > 0 -> guest[i] = 0; tail = 1 :: else fi;
		over[i] = epoch[i]; epoch[i]++ }
	/* A crash shows itself late: the guest may run until the proof. */
	:: d_step { up[i] && crashes > 0 -> crashes--; up[i] = 0; killed[i] = 1 }
	:: d_step { !up[i] && over[i] < epoch[i] -> if :: guest[i] > 0 -> guest[i] = 0; tail = 1 :: else fi; over[i] = epoch[i] }
	:: d_step { !up[i] && over[i] == epoch[i] && !on_way[i] -> epoch[i]++; up[i] = 1 }
	od
}

init
{
	atomic {
		run Node(0); run Node(1);
#if N > 2
		run Node(2); run World(2);
#endif
		run World(0); run World(1)
	}
}
