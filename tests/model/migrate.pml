/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Live migration: who may run the guest, and with which memory.
 *
 * Stands for: DESIGN "Live migration" (the code for it is not there yet: this is what it must do) and FACTS on migration.
 * X runs the VM and tries ATTEMPTS migrations to Y, each with an id of its own. A migration may fail before it completes (X resumes), complete without a
 * release (X may resume under its claim as long as it has issued no release), or complete and be released. The write of the release lands late, or never;
 * X sees it landed, or gives up waiting: then it may run the VM again only by a new claim, made after the write is resolved. Y's QEMU may load a
 * completed state at any later moment. X, Y and Z may die; their deaths are proven later, their guests run until then. Y or Z may also
 * start the VM cold, once the last owner has released it or is dead.
 * A running guest changes the image; a QEMU that continues a loaded state must find the image as it was when that state was taken. A target that
 * ends by "quit" instead of SIGKILL would write, too.
 * A claim is one register here, taken in one step by reading it (claim.pml shows why that may be assumed); the image's drains are claim.pml's, too.
 *
 * run: small two-attempts -DATTEMPTS=2
 * mutant: small two-attempts MUTANT_CONTINUE_UNCLAIMED
 * mutant: small two-attempts MUTANT_ANY_RELEASE
 * mutant: small two-attempts MUTANT_DEATH_SUFFICES
 * mutant: small two-attempts MUTANT_RELEASE_EARLY
 * mutant: small two-attempts MUTANT_RESUME_AFTER_RELEASE
 * mutant: small two-attempts MUTANT_CLAIM_UNRESOLVED
 * mutant: small two-attempts MUTANT_COLD_BESIDE_TARGET
 * mutant: small two-attempts MUTANT_QUIT_TARGET
 */
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#define X 1
#define Y 2
#define Z 3
#define NOBODY 0

byte owner = X;               /* the newest claim's node; NOBODY: released, */
byte freed;                   /* for the migration of this id, 0: for anybody */
byte generation = 1;
bit way;                      /* a release on its way to the volumes: */
byte way_id;
byte runs = X;                /* whose guest runs */
bit x_stopped;                /* by a migration */
bit alive[4] = 1, proven[4];  /* proven: the death is */
byte image = 1;               /* version; a running guest makes new ones */
byte sent, sent_image;        /* the last completed migration, its memory goes with this image */
byte loaded, loaded_image;    /* what Y's incoming QEMU holds; 0: none */

/* A guest begins to run, or goes on. */
inline run_on(n)
{
	atomic { if :: alive[n] -> assert(runs == NOBODY || runs == n); runs = n /* twice */ :: else fi }
}

proctype Source()
{
	byte id;
	byte mine;

	do
	:: runs == X && owner == X && alive[X] && id < ATTEMPTS ->
		id++;
		mine = generation;
#ifdef MUTANT_RELEASE_EARLY
		d_step { way = 1; way_id = id };
#endif
		if
		:: alive[X] && runs == X -> x_stopped = 0 /* failed, cancelled: it goes on */
		:: d_step { alive[X] && runs == X -> runs = NOBODY; x_stopped = 1; sent = id; sent_image = image };
			if
			:: alive[X] && owner == X && generation == mine -> /* completed, but the release is never issued: it resumes */
				x_stopped = 0;
				run_on(X)
#ifndef MUTANT_RELEASE_EARLY
			:: d_step { alive[X] -> way = 1; way_id = id };
#else
			:: alive[X] ->
#endif
				if
				:: alive[X] && !way /* landed, or definitely not */
				:: alive[X] && way -> /* timed out */
#ifdef MUTANT_RESUME_AFTER_RELEASE
					if :: owner == X && alive[X] -> run_on(X); goto next :: else fi
#endif
#ifndef MUTANT_CLAIM_UNRESOLVED
					!way
#endif
				fi;
				/* Perhaps it landed for nobody to take: the VM runs here again by a new claim only, and cold (its own state is as it was). */
				if
				:: d_step { alive[X] && (owner == NOBODY || (owner == X && generation == mine)) ->
					owner = X; generation++; freed = 0 } -> /* must be reached */
					x_stopped = 0;
					run_on(X)
				:: skip
				fi
			fi
		fi;
next:
		mine = 0
	:: d_step { runs == X -> image = (image < 4 -> image + 1 : 1) }
	:: !alive[X] -> break
	od
}

proctype Target()
{
	do
	/* The stream may arrive late; a QEMU that has ended loads nothing. */
	:: d_step { sent > 0 && loaded == 0 && runs != Y && alive[Y] -> loaded = sent; loaded_image = sent_image }
	/* Takes the claim that was released for the state it holds. */
#if defined(MUTANT_ANY_RELEASE)
	:: d_step { alive[Y] && loaded > 0 && owner == NOBODY -> owner = Y; generation++ };
#elif defined(MUTANT_DEATH_SUFFICES)
	:: d_step { alive[Y] && loaded > 0 && ((owner == NOBODY && freed == loaded) || (owner == X && proven[X])) -> owner = Y; generation++ };
#elif defined(MUTANT_CONTINUE_UNCLAIMED)
	:: alive[Y] && loaded > 0 ->
#else
	:: d_step { alive[Y] && loaded > 0 && owner == NOBODY && freed == loaded -> owner = Y; generation++; freed = 0 };
#endif
		atomic {
			if
			:: alive[Y] ->
				assert(runs == NOBODY || runs == Y);
				assert(loaded_image == image); /* stale memory over a newer image */
				loaded = 0; sent = 0; runs = Y /* must be reached */
			:: else
			fi
		}
	/* In every other case it is SIGKILLed before any cold start here. */
	:: d_step { alive[Y] && (owner == NOBODY || (owner == X && proven[X]) || (owner == Z && proven[Z])) && runs != Y ->
		owner = Y; generation++; freed = 0;
#ifndef MUTANT_COLD_BESIDE_TARGET
		loaded = 0; sent = 0
#endif
		};
		run_on(Y)
#ifdef MUTANT_COLD_BESIDE_TARGET
	:: d_step { runs == Y && loaded > 0 -> assert(loaded_image == image); loaded = 0 } /* and then the incoming one is continued, too */
#endif
#ifdef MUTANT_QUIT_TARGET
	:: d_step { alive[Y] && loaded > 0 -> assert(runs == NOBODY || runs == Y); loaded = 0 }
#else
	:: d_step { alive[Y] && loaded > 0 -> loaded = 0 }
#endif
	:: d_step { runs == Y -> image = (image < 4 -> image + 1 : 1) }
	:: !alive[Y] -> break
	od
}

proctype Other()
{
	do
	:: d_step { alive[Z] && ((owner == NOBODY && freed == 0) || (owner == X && proven[X]) || (owner == Y && proven[Y]) ||
		   (owner == NOBODY && proven[Y])) -> owner = Z; generation++; freed = 0 };
		run_on(Z)
	:: d_step { runs == Z -> image = (image < 4 -> image + 1 : 1) }
	:: !alive[Z] -> break
	od
}

proctype World()
{
	byte n;

	do
	:: d_step { way && owner == X -> owner = NOBODY; freed = way_id; way = 0 } /* X's block is a register: late, it lands over a newer claim */
	:: d_step { way -> way = 0 }
	:: d_step { alive[X] -> alive[X] = 0 }
	:: d_step { alive[Y] -> alive[Y] = 0 }
	:: d_step { !alive[X] && !proven[X] && !way -> proven[X] = 1; if :: runs == X -> runs = NOBODY :: else fi }
	:: d_step { !alive[Y] && !proven[Y] -> proven[Y] = 1; loaded = 0; if :: runs == Y -> runs = NOBODY :: else fi }
	od
}

init { atomic { run Source(); run Target(); run Other(); run World() } }
