/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hold during a storage outage: X and two peers.
 *
 * Stands for: DESIGN "Riding through a common storage outage" (what the code must do).
 * X's round k: pet; then either on the volume (write, then read the peers' commits), or by asking both peers for a hold of round k. Storage comes and goes
 * for each at any moment: so X may leave the volume for the hold at each step, and a peer may be without storage, and grant, at each step; writes land late.
 * With storage at hand again nothing else follows for safety (the sentence on T_heal), for it may be lost at that very moment.
 * A grant ends the peer's takeover, which starts again with a fresh read. Grants are messages: late, and each serves the round it names only. Each
 * peer takes over for itself: t0, commit, re-read, W.
 * REBOOTED: peer 1's earlier epoch is known to be over when X begins; it boots at any moment, with an epoch that X's blocks do not list until X has
 * read of it. A hold that has to leave it out ends HOLD ticks after X's last successful read of the table, and the newcomer waits that long
 * more for an X whose newest block does not list it.
 * Times as in lease.pml. Left out: several volumes, release (X only goes silent here), a third peer, rounds of a released X.
 *
 * run: small both -DMAXK=3
 * run: small rebooted -DMAXK=3 -DHOLD=2 -DREBOOTED
 * run: large both-long -DMAXK=5 -DSKEW=1
 * run: large rebooted-long -DMAXK=4 -DHOLD=2 -DREBOOTED
 * mutant: small both MUTANT_W_SHORT
 * mutant: small both MUTANT_TAKEOVER_GOES_ON -DMAXK=4
 * mutant: small both MUTANT_ANY_ROUND -DMAXK=4
 * mutant: small both MUTANT_ONE_GRANT
 * mutant: small both MUTANT_GONE_IS_LEFT
 * mutant: small rebooted MUTANT_HOLD_WITHOUT_END -DMAXK=4 -DHOLD=1
 * mutant: small rebooted MUTANT_NEWCOMER_WAITS_W
 */
#ifndef MAXK
#define MAXK 4
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
#ifdef REBOOTED
#define MOST (W + HOLD)
#else
#define MOST W
#endif

#ifdef MUTANT_NEWCOMER_WAITS_W
#define WAIT W
#else
#define WAIT (listed -> W : W + HOLD)
#endif

byte hb, way;                  /* X's block on the volume; one on its way */
byte lists[MAXK + 1];          /* which peers' epochs block k lists */
bit commit[2];
bit x_up = 1, x_runs = 1;
byte wd = TWD;
byte ask;                      /* round X asks for; news of it may be late, for peers look when they like */
byte sent[2], granted[2];      /* newest grant sent by a peer, and received by X */
byte t[2], seen[2];
byte skew = SKEW;
byte since_read;               /* ticks since X's last successful read */
bit up[2] = 1;                 /* peers whose present epoch runs */
byte known = 3;                /* peers X knows to be alive */

#ifdef MUTANT_ANY_ROUND
#define GRANT(i) (granted[i] > 0)
#else
#define GRANT(i) (granted[i] == k)
#endif
#ifdef MUTANT_HOLD_WITHOUT_END
#define LEFT_OUT(i) (!(known >> (i) & 1))
#elif defined(MUTANT_GONE_IS_LEFT)
#define LEFT_OUT(i) (!(known >> (i) & 1) || gone[i])
bit gone[2];
#else
#define LEFT_OUT(i) (!(known >> (i) & 1) && since_read < HOLD)
#endif
#ifdef MUTANT_ONE_GRANT
#define HELD (GRANT(0) || GRANT(1))
#else
#define HELD ((GRANT(0) || LEFT_OUT(0)) && (GRANT(1) || LEFT_OUT(1)))
#endif

proctype Holder()
{
	byte k;

	{
	do
	:: k < MAXK ->
		d_step { k++; wd = TWD; lists[k] = known };
		if
		:: d_step { way == 0 -> way = k };
			if
			:: hb == k ->
				if
				:: commit[0] || commit[1] -> break
				:: else -> d_step { since_read = 0; known = known | up[0] | up[1] << 1 }
				fi
			:: ask = k; HELD /* half-way */
			fi
		:: ask = k; HELD /* a round without the volume: must be reached */
		fi
	:: k == MAXK -> break
	od;
	false
	} unless { !x_up }
}

proctype Peer(byte i)
{
	byte phase;
	bit listed;

	up[i];
	do
	:: d_step { ask > sent[i] ->
		sent[i] = ask;
#ifndef MUTANT_TAKEOVER_GOES_ON
		phase = 0; t[i] = 0; seen[i] = 0
#endif
		}
	:: d_step { phase == 0 -> seen[i] = hb; t[i] = 0; phase = 1 }
	:: d_step { phase == 1 -> commit[i] = 1; phase = 2 }
	:: d_step { phase == 2 || (phase == 3 && hb > seen[i]) ->
		if :: hb > seen[i] -> seen[i] = hb; t[i] = 0 :: else fi;
		listed = lists[seen[i]] >> i & 1; phase = 3 }
	:: d_step { phase == 3 && t[i] >= WAIT -> assert(!x_runs) }; break
	od
}

inline older(i) { if :: t[i] < MOST -> t[i]++ :: else fi }

proctype World()
{
	do
	:: d_step { way > 0 -> hb = way; way = 0 }
	:: d_step { way > 0 -> way = 0 }
	:: d_step { sent[0] > granted[0] -> granted[0] = sent[0] }
	:: d_step { sent[1] > granted[1] -> granted[1] = sent[1] }
#ifdef REBOOTED
	:: d_step { !up[1] -> up[1] = 1 }
#endif
#ifdef MUTANT_GONE_IS_LEFT
	:: d_step { gone[0] = 1 }
#endif
	:: d_step { wd > 0 ->
		wd--;
		if :: since_read < HOLD -> since_read++ :: else fi;
		if :: wd == 0 -> x_up = 0; x_runs = 0 :: else fi;
		older(0); older(1) }
	:: d_step { !x_up && (t[0] < MOST || t[1] < MOST) -> t[0] = MOST; t[1] = MOST; /* nothing can go wrong any more */
		way = 0; ask = 0; sent[0] = 0; sent[1] = 0; granted[0] = 0; granted[1] = 0; skew = 0; since_read = 0 }
	:: d_step { x_up && skew > 0 -> skew--; older(0); older(1) }
	:: d_step { x_up -> x_up = 0; x_runs = 0; wd = 0 }
	od
}

init
{
#ifdef REBOOTED
	d_step { up[1] = 0; known = 1 };
#endif
	lists[0] = known;
	atomic { run Holder(); run Peer(0); run Peer(1); run World() }
}
