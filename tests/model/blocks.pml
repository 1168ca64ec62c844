/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One block with two buffers on one volume: its only writer, which may be restarted or lose power, and whoever reads it.
 *
 * Stands for: DESIGN "What is on a volume", the sentences on two buffers and on the one unresolved write; storage/slot.c (all of it), the choice of the newest
 * valid buffer in fence/table.c (newest_of, table_absorb) and agent/core/claimer.c (absorb), "one bad, and the other older than announced".
 * Writes are on the way until they land (whole, or torn by a power cut in the middle), or are lost; a session's end ends none of them, only T_drain does.
 * ROT: one buffer goes bad by itself.
 * Asserted of each reader at each moment: what was acknowledged stays (a read shows it or something newer, or fails); what was once read does not go back;
 * a number stands for one content; and a torn write alone never makes a block unreadable.
 * Left out: several volumes, misdirected writes (the offset in each block), roll-backs of a whole volume.
 *
 * run: small torn -DWRITES=5
 * run: small rot -DWRITES=4 -DROT
 * run: large long -DWRITES=6 -DROT -DRESTARTS=3
 * mutant: small torn MUTANT_RESTART_UNDRAINED
 * mutant: small torn MUTANT_READ_UNDRAINED
 * mutant: small torn MUTANT_WRITE_OVER_UNKNOWN
 * mutant: small torn MUTANT_OVER_NEWEST
 * mutant: small torn MUTANT_ONE_BUFFER
 * mutant: small torn MUTANT_ANY_BUFFER
 * mutant: small torn MUTANT_READ_UNDRAINED -DONLY_NUMBERS
 * mutant: small rot MUTANT_ANY_BUFFER -DONLY_NUMBERS
 * mutant: small rot MUTANT_BAD_IS_EMPTY
 */
#ifndef WRITES
#define WRITES 5
#endif
#ifndef RESTARTS
#define RESTARTS 2
#endif
#define BAD 255

byte buf[2] = 0;               /* number of the block in each buffer, or BAD */
bit what[WRITES + 2];          /* content of a number: which process wrote it (parity) */
bit holds[2];                  /* content in the buffer */
/* Writes on the way: one is all there should ever be; a second one in a mutant. */
bit way[2], way_buf[2], way_what[2];
byte way_seq[2];
byte seq, acked, last;         /* writer's number; highest acknowledged; newest a reader saw */
bit drained = 1;               /* nothing of an earlier process or session can land any more */
bit killed, dead, rotten;
byte restarts = RESTARTS;

#define VALID(b) (buf[b] != BAD)
#define BEST(b) (VALID(b) && (!VALID(1 - (b)) || buf[b] > buf[1 - (b)]))

inline issue()
{
	d_step {
		if
		:: !way[0] -> way[0] = 1; way_buf[0] = b; way_seq[0] = seq; way_what[0] = process
		:: else -> way[1] = 1; way_buf[1] = b; way_seq[1] = seq; way_what[1] = process
		fi
	}
}

proctype Writer()
{
	bit b = 1, process = 0;
	byte n;

again:
	{
	skip;
start: skip; /* DESTROYED, then DRAINING: a probe, and T_drain */
#ifdef MUTANT_READ_UNDRAINED
	d_step { if :: BEST(0) -> seq = buf[0]; b = 1 :: BEST(1) -> seq = buf[1]; b = 0 :: else -> skip fi };
	drained;
#else
#ifndef MUTANT_RESTART_UNDRAINED
	drained;
#endif
	d_step { if :: BEST(0) -> seq = buf[0]; b = 1 :: BEST(1) -> seq = buf[1]; b = 0 :: else -> skip fi };
#endif
#ifdef MUTANT_ANY_BUFFER
	b = 1;
#endif
#ifdef ROT
	/* Its own rotten block: numbers go on above all that may have been used (saved before the first write). */
	if :: acked > seq -> seq = acked :: else fi;
#endif
	do
	:: n < WRITES ->
		n++;
		d_step { seq++; what[seq] = process };
#ifdef MUTANT_ONE_BUFFER
		b = 0;
#endif
#ifdef MUTANT_OVER_NEWEST
		b = 1 - b;
#endif
		issue();
		if
		:: VALID(b) && buf[b] == seq && holds[b] == process -> /* acknowledged */
			d_step { if :: seq > acked -> acked = seq :: else fi; b = 1 - b }
#ifdef MUTANT_WRITE_OVER_UNKNOWN
		:: skip /* timed out: on with the next */
#else
		:: !way[0] && !way[1] && buf[b] != seq -> skip /* a definite error; the same buffer again */
		:: drained = 0; goto start    /* nobody knows: the session is destroyed: must be reached */
#endif
		fi
	:: n >= WRITES -> false
	od
	} unless { killed };
	d_step { killed = 0; process = 1 - process; seq = 0; drained = 0; b = 1 };
	!dead;
	goto again
}

inline land(w)
{
	d_step { way[w] ->
		way[w] = 0;
		if
		:: buf[way_buf[w]] = way_seq[w]; holds[way_buf[w]] = way_what[w]
		fi
	}
}

proctype Storage()
{
	do
	:: land(0)
	:: land(1)
	:: d_step { way[0] -> way[0] = 0 }
	:: d_step { way[1] -> way[1] = 0 }
	:: d_step { !drained && !way[0] && !way[1] -> drained = 1 } /* T_drain has passed: all has landed, or never will */
	:: d_step { restarts > 0 && !killed -> restarts--; killed = 1; drained = 0 } /* the process, or the host */
	/* Power goes in mid-write. */
	:: d_step { way[0] && restarts > 0 && !killed -> restarts--; killed = 1; way[0] = 0; buf[way_buf[0]] = BAD; drained = 0 }
#ifdef ROT
	:: d_step { !rotten && VALID(0) && buf[0] > 0 -> rotten = 1; buf[0] = BAD }
	:: d_step { !rotten && VALID(1) && buf[1] > 0 -> rotten = 1; buf[1] = BAD }
#endif
	od
}

proctype Reader()
{
	byte got, told;
	bit fails, content;

	do
	:: told = acked; /* announced in the writer's heartbeats */
		atomic {
			if
			:: BEST(0) -> got = buf[0]; content = holds[0]
			:: BEST(1) -> got = buf[1]; content = holds[1]
			:: else ->
				got = 0;
				if :: VALID(0) -> got = buf[0]; content = holds[0] :: else fi;
				fails = (!VALID(0) && !VALID(1))
			fi;
			assert(!fails || rotten); /* one power cut must not stop the others */
#ifndef MUTANT_BAD_IS_EMPTY
			/* One bad, the other older than announced: the bad one may hold what counts. */
			if :: (!VALID(0) || !VALID(1)) && got < told -> fails = 1 :: else fi;
#else
			fails = 0;
#endif
			if
			:: !fails ->
#ifndef ONLY_NUMBERS
				assert(got >= told); /* what was acknowledged stays */
				assert(rotten || got >= last); /* and nothing goes back */
#endif
				assert(got == 0 || content == what[got]); /* a number is used once */
				last = got
			:: else
			fi;
			got = 0; fails = 0; content = 0; told = 0
		}
	od
}

init { atomic { run Writer(); run Storage(); run Reader() } }
