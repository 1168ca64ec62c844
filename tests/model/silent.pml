/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A node X whose agent may stand still at any step and for any time, in the middle of a start too; its keeper closes the gate and says which claims are void; another node Y
 * takes the VM. Never both run it.
 *
 * Stands for: DESIGN "Owning a VM": "If an agent is silent, its keeper closes the gate and publishes which claims have a process; the others are void"; fence/gate.c;
 * agent/core/claimer.c (claim_is_void, void_unheard, confirm) and vmlife.c (must_confirm); fence/launch.c.
 *
 * X's claim is there from the beginning, granted in the gate's first term. Its heartbeats go to three volumes, land in any order or, when the keeper dies, not at all; at most one
 * is unresolved a volume; two acknowledgements are a quorum. Y reads two volumes, one after the other, and goes by the newer block. Claims are registers: their own quorums
 * are in claim.pml. The keeper cannot tell an agent that is dead from one that is slow: it takes it for silent, and hears it, whenever it likes. A launcher asks with the term of its
 * start at any later moment. X's QEMU may end at any moment; that nothing of it is on its way then is orphans_quiet() and the drain. The keeper may be restarted.
 * Left out: leases and epochs (lease.pml, gate.pml), more than one taker, Y's own silence: it is X's side again.
 *
 * run: small once -DSILENCES=1
 * run: small twice -DSILENCES=2
 * run: small restart -DSILENCES=1 -DRESTARTS=1
 * run: small three -DSILENCES=1 -DVOLUMES=3
 * run: large three-restart -DSILENCES=1 -DRESTARTS=1 -DVOLUMES=3
 * mutant: small once MUTANT_GATE_OPEN
 * mutant: small once MUTANT_LOOKS_BEFORE_IT_CLOSES
 * mutant: small once MUTANT_ANY_TERM
 * mutant: small once MUTANT_OPENS_UNCLEARED
 * mutant: small once MUTANT_FIRST_TABLE_COUNTS
 * mutant: small once MUTANT_TABLE_BEFORE_ACK
 * mutant: small once MUTANT_CONFIRMED_BY_AN_OLD_READ
 * mutant: small restart MUTANT_RESTART_KEEPS_TERM
 * mutant: large three-restart MUTANT_RESTART_KEEPS_TERM
 */
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef VOLUMES
#define VOLUMES 1
#endif
#define QUORUM (VOLUMES / 2 + 1)

/* What the volumes have, and what is on its way to them: a number, and whether X's claim is void in it. */
byte seq[VOLUMES], pend[VOLUMES];
bit says[VOLUMES], pend_says[VOLUMES];
byte last;                      /* number of the keeper's last block */
bit open = 1, alive = 1;
byte term = 1, next_term = 2, told = 1;
byte launch;                    /* a launcher is on its way, with that term; 0: none */
bit runs_x, runs_y;
bit claim_y;                    /* acknowledged */
byte silences, restarts;

#if VOLUMES == 1
#define ACKS(s) (seq[0] >= s)
#define SETTLED (pend[0] == 0)
#else
#define ACKS(s) ((seq[0] >= s) + (seq[1] >= s) + (seq[2] >= s))
#define SETTLED (pend[0] == 0 && pend[1] == 0 && pend[2] == 0)
#endif

/* Next block to every volume that has none on its way. */
inline publish(void)
{
	atomic {
		last++;
		v = 0;
		do
		:: v < VOLUMES -> if :: pend[v] == 0 -> pend[v] = last; pend_says[v] = void :: else fi; v++
		:: else -> break
		od;
		v = 0
	}
}

proctype Storage()
{
	do
	:: d_step { pend[0] > 0 -> seq[0] = pend[0]; says[0] = pend_says[0]; pend[0] = 0 }
#if VOLUMES == 3
	:: d_step { pend[1] > 0 -> seq[1] = pend[1]; says[1] = pend_says[1]; pend[1] = 0 }
	:: d_step { pend[2] > 0 -> seq[2] = pend[2]; says[2] = pend_says[2]; pend[2] = 0 }
	:: d_step { !alive && pend[1] > 0 -> pend[1] = 0 }
	:: d_step { !alive && pend[2] > 0 -> pend[2] = 0 }
#endif
	:: d_step { !alive && pend[0] > 0 -> pend[0] = 0 }
	od
}

proctype Keeper()
{
	byte v;
	bit process, was_void;

silent_or_not:
	do
	:: silences < SILENCES ->
		silences++;
#ifdef MUTANT_LOOKS_BEFORE_IT_CLOSES
		process = runs_x;
#endif
#ifndef MUTANT_GATE_OPEN
		open = 0;
#endif
#ifndef MUTANT_LOOKS_BEFORE_IT_CLOSES
		process = runs_x;
#endif
		publish(!process);
		/* Each round looks again, as long as nobody is heard. */
		do
		:: process && !runs_x -> process = 0; publish(1)
		:: restarts < RESTARTS -> goto dies
		:: break
		od;
		publish(0);
#ifndef MUTANT_OPENS_UNCLEARED
		do
		:: ACKS(last) >= QUORUM -> break
		:: ACKS(last) < QUORUM && SETTLED -> publish(0) /* one on its way was in the way */
		:: restarts < RESTARTS -> goto dies
		od;
#endif
		atomic { term = next_term; next_term++ };
		open = 1;
		told = term
	:: restarts < RESTARTS -> goto dies
	:: break
	od;
	goto end;
dies:
	atomic { restarts++; alive = 0; open = 0 };
	SETTLED; /* drained: must be reached */
	/* It reads any two of the three, and numbers its blocks beyond all that may be there. */
#if VOLUMES == 1
	was_void = says[0];
#else
	if
	:: was_void = (seq[0] > seq[1] -> says[0] : says[1])
	:: was_void = (seq[0] > seq[2] -> says[0] : says[2])
	:: was_void = (seq[1] > seq[2] -> says[1] : says[2])
	fi;
#endif
	atomic { alive = 1; last = last + 2 };
#ifdef MUTANT_RESTART_KEEPS_TERM
	if
	:: !was_void -> open = 1; goto silent_or_not
	:: was_void
	fi;
#endif
	publish(0);
	do
	:: ACKS(last) >= QUORUM -> break
	:: ACKS(last) < QUORUM && SETTLED -> publish(0)
	od;
	atomic { term = next_term; next_term++ };
	open = 1;
	told = term;
	goto silent_or_not;
end:
	skip
}

/* Asks at the gate at any moment after it was started. */
proctype Launcher()
{
	do
#ifdef MUTANT_ANY_TERM
	:: atomic { launch > 0 && alive && open -> launch = 0; runs_x = 1; assert(!runs_y) /* must be reached */ }
#else
	:: atomic { launch > 0 && alive && open && launch == term -> launch = 0; runs_x = 1; assert(!runs_y) /* must be reached */ }
#endif
	:: d_step { launch > 0 && (!alive || !open || launch != term) -> launch = 0 }
	:: d_step { runs_x -> runs_x = 0 } /* QEMU ends */
	od
}

proctype Agent()
{
	byte mine = 1, at;      /* mine: the term that our claim was granted or confirmed in */
	bit lost;

	do
	:: launch == 0 && !runs_x && !lost -> d_step { if :: launch == 0 -> launch = mine :: else fi }
	:: told != mine && !lost ->
		at = told;
#ifndef MUTANT_CONFIRMED_BY_AN_OLD_READ
		lost = claim_y; /* a read of all claims, issued now */
#endif
		if :: !lost -> mine = at :: lost fi
#ifdef MUTANT_CONFIRMED_BY_AN_OLD_READ
	:: told == mine && !lost -> lost = claim_y
#endif
	:: lost -> break /* and gives its claim up: must be reached */
	od
}

inline table(ret)
{
#if VOLUMES == 1
	ret = says[0]
#else
	if
	:: v = 0; w = 1
	:: v = 1; w = 2
	:: v = 2; w = 0
	fi;
	d_step { s = seq[v]; ret = says[v] };
	if
	:: d_step { seq[w] > s -> ret = says[w]; s = 0; v = 0; w = 0 }
	:: d_step { seq[w] <= s -> s = 0; v = 0; w = 0 }
	fi
#endif
}

proctype Taker()
{
	byte v, w, s, tries;
	bit void_;

	do
	:: tries < 2 ->
		tries++;
		table(void_);
		if
		:: !void_ -> skip
		:: void_ ->
#ifdef MUTANT_TABLE_BEFORE_ACK
			table(void_);
#endif
			claim_y = 1;
#if !defined(MUTANT_FIRST_TABLE_COUNTS) && !defined(MUTANT_TABLE_BEFORE_ACK)
			table(void_);
#endif
			if
			:: void_ -> atomic { runs_y = 1; assert(!runs_x) /* must be reached */ }; break
			:: !void_ -> claim_y = 0
			fi
		fi
	:: break
	od
}

init { atomic { run Storage(); run Keeper(); run Launcher(); run Agent(); run Taker() } }
