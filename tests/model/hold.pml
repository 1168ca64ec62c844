/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hold during a storage outage: X and two peers that may take over from it. Safety; outage.pml shows that it does what it is for.
 *
 * Stands for: DESIGN "Riding through a common storage outage" (what the code must do; W and t0 as in fence/takeover.c, the epochs seen alive as in fence/table.c,
 * table_observed: a block lists what the read of the round before has shown).
 * X's round k: pet; then either on the volume (write, then read the peers' blocks), or by grants of round k from every peer that it does not know to be
 * over. It may leave the volume for the hold at each step. Storage comes and goes for each node at any moment, so a peer may grant, and may read and write,
 * at each step: whether it grants with storage at hand (T_heal) or a commit in place makes no difference for safety, for a grant restarts its t0 and
 * ends its takeover; the commit stays. Asks and grants are messages: late, lost, and each serves the round it names only. Each peer takes over for
 * itself: t0, commit, re-read, W; reads move its t0 at any moment. A write of X lands late or never, one at a time.
 * LEAVES: peer 1 ends its epoch at any moment (publishes "left", or its death is published), and begins a new one at any later moment. X, which has read of
 * the end and not of the beginning, leaves it out, at most HOLD ticks after its last successful read of the table; and peer 1 waits as much longer for
 * an X whose newest block does not list its new epoch. Peer 0 only grants there, unless BOTH_TAKE_OVER. Peer 1 may grant in every state: also between its epochs.
 * RESTART: X's keeper is restarted at any step, goes on with the epoch, knows nothing until it has read the table, and pets after a renewed round only.
 *
 * Found by this model; DESIGN leaves both open, and both are needed as they stand here:
 * - "T_hb after the last successful table read" counts from when that read was issued, not from its end: a read may take as long as the watchdog
 *   lets it, and a newcomer's block may land behind it (MUTANT_READ_COUNTS_FROM_ITS_END).
 * - The newcomer's t0 for X is not before its own epoch's first block is on the volumes: one that it took from a read while it was starting says nothing of
 *   X's reads after it (MUTANT_T0_BEFORE_OWN_BLOCK).
 * Times as in lease.pml. HOLD: T_hb in ticks. SKEW is for all of a wait: the newcomer's T_hb needs the allowance for clock rates, too.
 * Left out: several volumes, release (X only goes silent here), a third peer, failed rounds followed by others (X stalls instead), rounds of a released X,
 * proofs other than W (power, an operator): these must be refused while asks of X arrive, for its block stands still.
 *
 * run: small both -DMAXK=3
 * run: small newcomer -DMAXK=4 -DLEAVES
 * run: small restart -DMAXK=3 -DLEAVES -DRESTART
 * run: large both-long -DMAXK=4 -DSKEW=1
 * run: large newcomer-long -DMAXK=4 -DSKEW=1 -DHOLD=2 -DLEAVES
 * run: large newcomer-both -DMAXK=3 -DSKEW=1 -DLEAVES -DBOTH_TAKE_OVER
 * run: large restart-long -DMAXK=4 -DLEAVES -DRESTART
 * mutant: small both MUTANT_W_SHORT
 * mutant: small both MUTANT_TAKEOVER_GOES_ON
 * mutant: small both MUTANT_ANY_ROUND -DMAXK=4
 * mutant: small both MUTANT_ONE_GRANT
 * mutant: small both MUTANT_GONE_IS_LEFT
 * mutant: small newcomer MUTANT_HOLD_WITHOUT_END
 * mutant: small newcomer MUTANT_NEWCOMER_WAITS_W
 * mutant: small newcomer MUTANT_ANY_EPOCH_LISTED
 * mutant: small newcomer MUTANT_READ_COUNTS_FROM_ITS_END
 * mutant: small newcomer MUTANT_T0_BEFORE_OWN_BLOCK
 * mutant: small restart MUTANT_NOBODY_KNOWN_NOBODY_ASKED
 * mutant: small restart MUTANT_PETS_FIRST
 */
#ifndef MAXK
#define MAXK 3
#endif
#define TWD 2
#ifndef SKEW
#define SKEW 0
#endif
#ifdef MUTANT_W_SHORT
#define W (2 * TWD - 2 + SKEW)
#else
#define W (2 * TWD - 1 + SKEW)
#endif
#ifndef HOLD
#define HOLD 1
#endif
#ifdef LEAVES
#define MOST (W + HOLD)
#define LEAVING(i) ((i) == 1)
#else
#define MOST W
#define LEAVING(i) 0
#endif
#if defined(LEAVES) && !defined(BOTH_TAKE_OVER)
#define TAKES_OVER(i) ((i) == 1)
#else
#define TAKES_OVER(i) 1
#endif
#define AT(k, i) (2 * (k) + (i))

byte hb, way;                  /* X's block on the volume; one on its way */
byte lists[2 * (MAXK + 1)] = 1; /* which epoch of each peer block k lists, 0: none */
byte block[2] = 1;             /* the epoch that each peer's block shows, 0: one that is over */
bit commit[2];
bit x_up = 1;
byte wd = TWD;
byte ask;                      /* round X asks for; news of it may be late, for peers look when they like */
byte sent[2], granted[2];      /* newest grant sent by a peer, and received by X */
byte t[2];                     /* ticks of the peer's clock since t0 */
byte skew = SKEW;
byte known[2] = 1;             /* each peer's epoch as X has read of it; 0: over */
byte since_read;               /* ticks since X issued its last successful read; HOLD + 1: too many, or there is none */
bit restart;
#ifdef MUTANT_GONE_IS_LEFT
bit gone[2];                   /* from the ring */
#endif

#ifdef MUTANT_ANY_ROUND
#define GRANT(i) (granted[i] > 0)
#else
#define GRANT(i) (granted[i] == k)
#endif
#if defined(MUTANT_HOLD_WITHOUT_END)
#define LEFT_OUT(i) (known[i] == 0)
#elif defined(MUTANT_GONE_IS_LEFT)
#define LEFT_OUT(i) ((known[i] == 0 || gone[i]) && since_read <= HOLD)
#elif defined(MUTANT_NOBODY_KNOWN_NOBODY_ASKED)
#define LEFT_OUT(i) (known[i] == 0 && (since_read <= HOLD || !has_read))
bit has_read = 1;
#else
#define LEFT_OUT(i) (known[i] == 0 && since_read <= HOLD)
#endif
#ifdef MUTANT_ONE_GRANT
#define HELD (GRANT(0) || GRANT(1))
#else
#define HELD ((GRANT(0) || LEFT_OUT(0)) && (GRANT(1) || LEFT_OUT(1)))
#endif

proctype Holder()
{
	byte k;
	bit renewed = 1;

again:
	{
	do
	:: k < MAXK ->
		d_step { k++; if :: renewed -> wd = TWD; renewed = 0 :: else fi; lists[AT(k, 0)] = known[0]; lists[AT(k, 1)] = known[1] };
		if
		:: d_step { way == 0 -> way = k };
			if
			:: hb == k ->
				if
				:: commit[0] || commit[1] -> break
				:: else -> d_step { known[0] = block[0]; known[1] = block[1];
#ifdef MUTANT_NOBODY_KNOWN_NOBODY_ASKED
					has_read = 1;
#endif
					since_read = 0; renewed = 1 }
#ifdef MUTANT_READ_COUNTS_FROM_ITS_END
					since_read = 0
#endif
				fi
			:: ask = k; d_step { HELD -> renewed = 1 } /* half-way: must be reached */
			fi
		:: ask = k; d_step { HELD -> renewed = 1 } /* a round without the volume: must be reached */
		fi
	:: k == MAXK -> break
	od;
	false
	} unless { restart || !x_up };
	/* The round's number goes on: grants of an earlier process serve nothing. */
	d_step { x_up -> restart = 0; known[0] = 0; known[1] = 0; since_read = HOLD + 1;
#ifdef MUTANT_NOBODY_KNOWN_NOBODY_ASKED
		has_read = 0;
#endif
#ifdef MUTANT_PETS_FIRST
		renewed = 1
#else
		renewed = 0
#endif
		};
	goto again
}

#ifdef MUTANT_ANY_EPOCH_LISTED
#define LISTED (lists[AT(seen, i)] > 0)
#else
#define LISTED (lists[AT(seen, i)] == mine)
#endif
#ifdef MUTANT_NEWCOMER_WAITS_W
#define WAIT W
#else
#define WAIT (LISTED -> W : W + HOLD)
#endif

proctype Peer(byte i)
{
	byte mine = 1, phase, seen;

	do
	:: d_step { x_up && ask > sent[i] ->
		sent[i] = ask; t[i] = 0;
#ifndef MUTANT_TAKEOVER_GOES_ON
		phase = 0
#endif
		}
#ifdef MUTANT_TAKEOVER_GOES_ON
	:: d_step { x_up && ask > sent[i] -> sent[i] = ask }
#endif
	:: d_step { x_up && TAKES_OVER(i) && hb > seen -> seen = hb; t[i] = 0 }
	/* It suspects X, at any moment or never. */
	:: d_step { x_up && TAKES_OVER(i) && phase == 0 && block[i] == mine -> commit[i] = 1; phase = 1 }
	:: d_step { phase == 1 && x_up && block[i] == mine -> if :: hb > seen -> seen = hb; t[i] = 0 :: else fi; phase = 2 }
	:: d_step { phase == 2 && x_up && block[i] == mine && t[i] >= WAIT -> assert(false) } /* X's epoch is over, and X runs */
	:: d_step { x_up && LEAVING(i) && mine == 1 -> block[i] = 0; mine = 2; phase = 0 }
	:: d_step { x_up && LEAVING(i) && mine == 2 && block[i] == 0 -> block[i] = 2;
#ifndef MUTANT_T0_BEFORE_OWN_BLOCK
		t[i] = 0
#endif
		}
	od
}

inline older(i) { if :: TAKES_OVER(i) && t[i] < MOST -> t[i]++ :: else fi }

proctype World()
{
#ifdef RESTART
	bit restarted;
#endif

	do
	:: d_step { x_up && way > 0 -> hb = way; way = 0 }
	:: d_step { x_up && way > 0 -> way = 0 }
	:: d_step { x_up && sent[0] > granted[0] -> granted[0] = sent[0] }
	:: d_step { x_up && sent[1] > granted[1] -> granted[1] = sent[1] }
#ifdef MUTANT_GONE_IS_LEFT
	:: d_step { x_up && !gone[0] -> gone[0] = 1 }
#endif
#ifdef RESTART
	:: d_step { x_up && !restarted -> restarted = 1; restart = 1 }
#endif
	:: d_step { x_up -> /* a tick */
		wd--;
		if :: since_read <= HOLD -> since_read++ :: else fi;
		if :: wd == 0 -> x_up = 0 :: else fi; /* nothing can go wrong any more */
		older(0); older(1) }
	:: d_step { x_up && skew > 0 -> skew--; older(0); older(1) }
	od
}

init { atomic { run Holder(); run Peer(0); run Peer(1); run World() } }
