/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lease of one node X and its takeover by others, with everything that may end or interrupt it.
 *
 * Stands for: DESIGN "The lease" 1-4, its sentences on release, restart, arming and disarming, "Taking over" 1, 4-7, I1, I2, I6;
 * fence/lease.c (start_round, end_round, after_round, release, try_start, try_arm), fence/table.c (take_newer, table_commit_against,
 * table_next_epoch), fence/takeover.c (advance, collect_proofs).
 *
 * X: rounds of pet, write, then read, on 1, 2 or 3 volumes with the project's quorums; a round may fail half-way and be followed by another one without a
 * pet; release at any moment (commit read, soft deadline); disarm and arm again; one restart of the keeper (same epoch, the watchdog runs on) or
 * one reset and boot (later epoch). Writes land late, in any order of volumes, after the writer's death too, or never; at most one is unresolved on
 * each volume. A block is its number; what it says (state, epoch) is kept beside, for it has one writer and never changes.
 * Takers: each fences for itself, at any moment (whom to suspect, and who may, is arbitrate.pml's matter), with its own t0 and its own commit; a commit
 * reaches the volumes one by one; a read shows a volume's content of one moment and completes at a later one.
 * Time: the watchdog resets X TWD ticks after the last pet (its delay d_wd included) or earlier, for X may crash at any moment; everything else may take
 * any time at all. A taker's clock runs ahead by up to SKEW ticks. "T_wd after the pet" is up to TWD - 1 ticks after a pet seen between two ticks, so
 * I1 reads W = 2 TWD - 1 + SKEW here.
 * DISARM, RESTART, BOOT: with these. PLAIN: X never releases, and a read completes at the moment it shows.
 * Left out: torn and rotten blocks (blocks.pml), one step's duration, more than one restart or boot, a foreign host in X's slot, leaving, the second renewal that an
 * epoch needs before its gate opens, an epoch that is on no quorum yet and ends without a word (start_again), and the time limits of gate and start.
 *
 * run: small one -DVOLUMES=1 -DMAXB=5
 * run: small one-disarm -DVOLUMES=1 -DMAXB=4 -DDISARM
 * run: small one-restart -DVOLUMES=1 -DMAXB=4 -DRESTART
 * run: small one-boot -DVOLUMES=1 -DMAXB=4 -DBOOT
 * run: small close-pets -DVOLUMES=1 -DMAXB=4 -DRESTART -DCLOSE_PETS -DPETS=3
 * run: small two -DVOLUMES=2 -DMAXB=4 -DPLAIN -DSKEW=0
 * run: small three -DVOLUMES=3 -DMAXB=3 -DPLAIN -DSKEW=0
 * run: large one-two-takers -DVOLUMES=1 -DTAKERS=2 -DMAXB=3
 * run: large one-all -DVOLUMES=1 -DMAXB=5 -DDISARM -DRESTART -DBOOT
 * run: large three-plain -DVOLUMES=3 -DMAXB=4 -DPLAIN -DSKEW=0
 * run: large three-release -DVOLUMES=3 -DMAXB=3
 * mutant: small one MUTANT_W_SHORT
 * mutant: small one MUTANT_NO_SKEW
 * mutant: small one MUTANT_NO_REREAD
 * mutant: small one MUTANT_READ_FIRST
 * mutant: small one MUTANT_IGNORE_COMMIT
 * mutant: small one MUTANT_TIMER_PETS
 * mutant: small one MUTANT_T0_AT_START
 * mutant: small one MUTANT_RELEASE_UNPROVEN
 * mutant: small one MUTANT_CLOSE_BEFORE_PROOF
 * mutant: small one MUTANT_EPOCH_REUSED
 * mutant: small one-disarm MUTANT_DISARM_UNREAD
 * mutant: small one-disarm MUTANT_DISARMED_COUNTS
 * mutant: small one-disarm MUTANT_ARMED_BEFORE_START -DMAXB=6
 * mutant: small one-restart MUTANT_RESUME_PETS
 * mutant: small one-restart CLOSE_PETS
 * mutant: small two MUTANT_FENCE_ONE
 * mutant: small three MUTANT_W_SHORT
 * mutant: large three-plain MUTANT_FENCE_ONE
 */
#ifndef VOLUMES
#define VOLUMES 1
#endif
#ifndef TAKERS
#define TAKERS 1
#endif
#ifndef MAXB /* blocks X writes in all */
#define MAXB 6
#endif
#ifndef TWD
#define TWD 2
#endif
#ifndef SKEW
#define SKEW 1
#endif
#ifndef PETS
#define PETS 2
#endif
#if defined(MUTANT_W_SHORT)
#define W (PETS * TWD - 2 + SKEW)
#elif defined(MUTANT_NO_SKEW)
#define W (PETS * TWD - 1)
#else
#define W (PETS * TWD - 1 + SKEW)
#endif
#if VOLUMES == 3
#define RENEW 2
#else
#define RENEW 1
#endif
#if VOLUMES == 1 || defined(MUTANT_FENCE_ONE)
#define FENCE 1
#else
#define FENCE 2
#endif
#define COUNT(m) (((m) & 1) + ((m) >> 1 & 1) + ((m) >> 2 & 1))

/* What a block says. */
#define DISARMED 1
#define ARMED 2
#define RELEASED 3
byte said[MAXB + 1], said_epoch[MAXB + 1];

byte newest[VOLUMES];         /* block on the volume */
byte way[VOLUMES];            /* unresolved write to it, 0 if none */
byte commit[TAKERS * VOLUMES]; /* epoch a taker's block commits a fence against, 0 if none */

bit running = 1;              /* the host is up */
bit killed;                   /* the keeper's process is gone; the next one is to come */
byte n = 1;                   /* last block issued */
byte wd;                      /* ticks until the watchdog fires, 0: stopped */
byte vm;                      /* epoch under which X's guests run, 0: none */
byte kept_epoch, kept_state;  /* what a restarted keeper finds of the one before, saved at each change of state; RELEASED: from the decision on */
byte over;                    /* X's epochs up to this one are proven over */
byte t[TAKERS];               /* ticks of the taker's clock since t0 */
#ifdef MUTANT_T0_AT_START
byte since_start[TAKERS];
#endif
byte skew = SKEW;
bit resumed;                  /* instance 2 goes on with the epoch of instance 1 */
bit booted;

#define ON(v) (newest[v] == n)
#if VOLUMES == 1
#define ACKS ON(0)
#define ISSUE(v) if :: way[v] == 0 -> way[v] = n :: else fi
#define WRITE ISSUE(0)
#define SETTLED (way[0] == 0)
#define CARRY (commit[i] == c)
#elif VOLUMES == 2
#define ACKS (ON(0) + ON(1))
#define ISSUE(v) if :: way[v] == 0 -> way[v] = n :: else fi
#define WRITE ISSUE(0); ISSUE(1)
#define SETTLED (way[0] == 0 && way[1] == 0)
#define CARRY ((commit[2 * i] == c) + (commit[2 * i + 1] == c))
#else
#define ACKS (ON(0) + ON(1) + ON(2))
#define ISSUE(v) if :: way[v] == 0 -> way[v] = n :: else fi
#define WRITE ISSUE(0); ISSUE(1); ISSUE(2)
#define SETTLED (way[0] == 0 && way[1] == 0 && way[2] == 0)
#define CARRY ((commit[3 * i] == c) + (commit[3 * i + 1] == c) + (commit[3 * i + 2] == c))
#endif

#define NAMED(e, c) (commit[c] >= (e))
#if TAKERS == 1
#define AGAINST(e, v) NAMED(e, v)
#define TOP_COMMIT(v) commit[v]
#else
#define AGAINST(e, v) (NAMED(e, v) || NAMED(e, VOLUMES + (v)))
#define TOP_COMMIT(v) (commit[v] > commit[VOLUMES + (v)] -> commit[v] : commit[VOLUMES + (v)])
#endif

/* X reads one volume: is there a commit against it? */
inline look(v)
{
	d_step { !(got & 1 << v) -> got = got | 1 << v; if :: AGAINST(epoch, v) -> hit = 1 :: else fi }
}

/* X reads one volume: which epochs are taken? */
inline learn(v)
{
	d_step {
		!(got & 1 << v) -> got = got | 1 << v;
		if :: newest[v] > last -> last = newest[v] :: else fi;
		if :: said_epoch[newest[v]] > top -> top = said_epoch[newest[v]] :: else fi;
		if :: TOP_COMMIT(v) > top -> top = TOP_COMMIT(v) :: else fi
	}
}

inline look_all(quorum)
{
	hit = 0;
	do
	:: look(0)
#if VOLUMES > 1
	:: look(1)
#endif
#if VOLUMES > 2
	:: look(2)
#endif
	:: COUNT(got) >= quorum -> break
	od;
	got = 0
}

inline learn_all()
{
	do
	:: learn(0)
#if VOLUMES > 1
	:: learn(1)
#endif
#if VOLUMES > 2
	:: learn(2)
#endif
	:: COUNT(got) >= FENCE -> break
	od;
	got = 0
}

proctype Keeper()
{
	byte state = DISARMED, epoch = 1, top = 0, last = 0, got = 0;
	bit renewed = 0, hit = 0, disarming = 0, first = 1;

again:
	{

	if
	:: first -> first = 0; goto arm /* block 1, "disarmed", is on all volumes */
	:: !first -> SETTLED; learn_all() /* an earlier writer's writes land no more, and only then the volumes are read */
	fi;
	if
	:: resumed && (kept_state == DISARMED || kept_state == ARMED && wd > 0) && said_epoch[last] == kept_epoch && said[last] != RELEASED ->
		d_step { state = said[last]; epoch = kept_epoch; disarming = (state == DISARMED && wd > 0); top = 0; last = 0 };
#ifdef MUTANT_RESUME_PETS
		if :: wd > 0 -> wd = TWD :: else fi
#endif
	:: else ->
		vm = 0;
#ifdef MUTANT_EPOCH_REUSED
		d_step { wd = 0; epoch = top; top = 0; last = 0 }
#else
		d_step { wd = 0; epoch = top + 1; top = 0; last = 0; kept_state = DISARMED; kept_epoch = epoch }
#endif
	fi;
round:
	n < MAXB; /* else: silent for ever */
	if
	:: renewed && state != RELEASED && wd > 0 -> d_step { wd = TWD; renewed = 0 } /* one pet for each renewal */
	:: else -> renewed = 0
	fi;
#ifdef MUTANT_READ_FIRST
	look_all(RENEW);
#endif
	d_step { n++; said[n] = state; said_epoch[n] = epoch; kept_epoch = epoch; WRITE };
	if
	:: ACKS >= (disarming -> FENCE : RENEW) -> skip
	:: goto round /* this round has failed */
	:: state == ARMED -> goto release /* the soft deadline */
	fi;
#ifndef MUTANT_READ_FIRST
	look_all((disarming -> FENCE : RENEW));
#endif
	if
#ifndef MUTANT_IGNORE_COMMIT
	:: hit && state != RELEASED -> hit = 0; goto release
#endif
	:: else -> hit = 0; renewed = 1
	fi;
	if
	:: state == RELEASED -> /* and nobody speaks against a new epoch */
		learn_all();
#ifdef MUTANT_EPOCH_REUSED
		d_step { state = DISARMED; renewed = 0; top = 0; last = 0; kept_state = DISARMED; kept_epoch = epoch }
#else
		d_step { state = DISARMED; epoch = (top > epoch -> top : epoch) + 1; renewed = 0; top = 0; last = 0; kept_state = DISARMED; kept_epoch = epoch }
#endif
	:: state == DISARMED && disarming -> d_step { disarming = 0; wd = 0; renewed = 0; kept_state = DISARMED } /* the guests run on: must be reached */
	:: state == DISARMED && !disarming -> goto arm
	:: state == ARMED ->
		d_step { vm = epoch; assert(over < epoch) };
		if
		:: skip
		:: goto release
#ifdef DISARM
		:: n < MAXB - 1 ->
			d_step {
#ifdef MUTANT_DISARM_UNREAD
				wd = 0;
#endif
				state = DISARMED; disarming = 1 }
#endif
		fi
	fi;
	goto round;
arm:
#ifdef MUTANT_ARMED_BEFORE_START
	if
	:: vm == 0 -> skip
	:: else -> n < MAXB; d_step { n++; said[n] = ARMED; said_epoch[n] = epoch; kept_epoch = epoch; WRITE }; ACKS >= RENEW
	fi;
#endif
	wd = TWD; /* starting it is a pet */
	d_step { state = ARMED; renewed = 0; kept_state = ARMED };
	goto round;
release:
#ifdef PLAIN
	false;
#endif
	kept_state = RELEASED;
#ifdef MUTANT_CLOSE_BEFORE_PROOF
	wd = 0;
#endif
#ifdef MUTANT_RELEASE_UNPROVEN
	d_step { wd = 0; state = RELEASED; disarming = 0; renewed = 0 };
#else
	vm = 0; /* gate closed, killed, proven silent; this may take for ever, and then the watchdog acts */
	d_step { wd = 0; state = RELEASED; disarming = 0; renewed = 0 };
#endif
	goto round
	} unless { killed };
	d_step { killed = 0; state = 0; epoch = 0; top = 0; last = 0; got = 0; renewed = 0; hit = 0; disarming = 0; first = 0 };
	running; /* must be reached */
	goto again
}

/* A read shows what a volume held at one moment, and completes at a later one. */
inline see(v)
{
#ifdef MUTANT_T0_AT_START
	d_step { !(got & 1 << v) -> since_start[i] = 0 };
#endif
#ifndef PLAIN
	d_step { !(got & 1 << v) -> got = got | 1 << v; r = newest[v] };
	d_step {
#else
	d_step {
		!(got & 1 << v) -> got = got | 1 << v; r = newest[v];
#endif
		if
		:: r > seen ->
			seen = r;
#ifdef MUTANT_T0_AT_START
			t[i] = since_start[i]
#else
			t[i] = 0
#endif
		:: else
		fi;
		r = 0
	}
}

proctype Taker(byte i)
{
	byte seen = 1, r = 0, got = 0, c = 0;
	bit published = 0;

	do
	:: c > 0 && !published -> /* the write of a round */
		if
		:: commit[i * VOLUMES] != c -> commit[i * VOLUMES] = c
#if VOLUMES > 1
		:: commit[i * VOLUMES + 1] != c -> commit[i * VOLUMES + 1] = c
#endif
#if VOLUMES > 2
		:: commit[i * VOLUMES + 2] != c -> commit[i * VOLUMES + 2] = c
#endif
		:: CARRY >= FENCE -> published = 1
		fi
	:: c == 0 || published -> /* and its read */
#ifdef MUTANT_NO_REREAD
		if :: published -> goto judge :: else fi;
#endif
		do
		:: see(0)
#if VOLUMES > 1
		:: see(1)
#endif
#if VOLUMES > 2
		:: see(2)
#endif
		:: COUNT(got) >= FENCE -> break
		od;
#ifdef MUTANT_NO_REREAD
judge:
#endif
		got = 0;
		d_step {
			if
			:: over < said_epoch[seen] - 1 -> over = said_epoch[seen] - 1 /* a later epoch */
			:: else
			fi;
			if
			:: said[seen] == RELEASED && over < said_epoch[seen] -> over = said_epoch[seen]
			:: else
			fi;
			if
			:: c > 0 && said_epoch[seen] > c -> c = 0; published = 0 /* dropped: it names an epoch that is past */
#ifdef MUTANT_DISARMED_COUNTS
			:: published && said_epoch[seen] == c && t[i] >= W && over < c -> over = c
#else
			:: published && said[seen] == ARMED && said_epoch[seen] == c && t[i] >= W && over < c -> over = c
#endif
			:: else
			fi;
			assert(vm == 0 || vm > over)
		};
		if
		:: c == 0 && said[seen] == ARMED && over < said_epoch[seen] -> c = said_epoch[seen] /* suspected: at any time, or never */
		:: over == said_epoch[seen] && published -> skip /* taken over by W or by others: must be reached */
		:: skip
		fi
	od
}

proctype Storage()
{
	do
	:: d_step { way[0] > 0 -> newest[0] = way[0]; way[0] = 0 }
	:: d_step { way[0] > 0 -> way[0] = 0 }
#if VOLUMES > 1
	:: d_step { way[1] > 0 -> newest[1] = way[1]; way[1] = 0 }
	:: d_step { way[1] > 0 -> way[1] = 0 }
#endif
#if VOLUMES > 2
	:: d_step { way[2] > 0 -> newest[2] = way[2]; way[2] = 0 }
	:: d_step { way[2] > 0 -> way[2] = 0 }
#endif
	od
}

inline older(i)
{
	if :: t[i] < W -> t[i]++ :: else fi;
#ifdef MUTANT_T0_AT_START
	if :: since_start[i] < W -> since_start[i]++ :: else fi
#endif
}

inline all_older()
{
	older(0);
#if TAKERS > 1
	older(1)
#endif
}

proctype World()
{
	do
	:: d_step { /* a tick */
		if
		:: wd > 0 -> wd--; if :: wd == 0 -> running = 0; killed = 1; vm = 0 :: else fi
		:: else
		fi;
		all_older() }
	:: d_step { skew > 0 -> skew--; all_older() }
	:: d_step { running -> running = 0; killed = 1; vm = 0; wd = 0 } /* crash, power cut, and a watchdog that fires early */
#ifdef BOOT
	:: d_step { !running && n < MAXB && !booted -> booted = 1; running = 1 }
#endif
#ifdef RESTART
	:: d_step { running && !booted -> booted = 1; resumed = 1; killed = 1; /* the keeper dies, its watchdog is held */
#ifdef CLOSE_PETS
		if :: wd > 0 -> wd = TWD :: else fi
#endif
		}
#endif
#ifdef MUTANT_TIMER_PETS
	:: d_step { running && wd > 0 -> wd = TWD }
#endif
	od
}


init
{
	d_step {
		said[1] = DISARMED; said_epoch[1] = 1; newest[0] = 1;
#if VOLUMES > 1
		newest[1] = 1;
#endif
#if VOLUMES > 2
		newest[2] = 1;
#endif
	}
	atomic {
		run Keeper(); run Storage(); run World(); run Taker(0);
#if TAKERS > 1
		run Taker(1)
#endif
	}
}
