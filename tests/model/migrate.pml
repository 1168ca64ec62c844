/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Live migration: who may run the guest, and with which memory.
 *
 * Stands for: DESIGN "Live migration" (agent/core/migrate.c, which takes nothing back warm) and FACTS on migration.
 * X runs the VM and migrates it to Y, ATTEMPTS times, each with an id of its own. X's QEMU fails (the guest goes on by itself) or completes (stopped, inactive)
 * whatever becomes of its agent. Then the agent resumes it by "cont", if it knows that no release was issued for it, or issues the release, which lands late
 * or never; resolved, landed or not, it may take the VM back by a new claim: with the memory that it has kept if nobody else has claimed in between, cold
 * otherwise. Y's QEMU may load a completed state at any later moment. Y claims under the release with its id, then "cont"s; or somebody, X, Y or Z, claims what is
 * free, whatever its id, and starts it cold, while Y may hold a loaded target that is good for nothing then.
 * FAULTS of these, at any step: an agent is restarted (X's: it forgets whether a release is out; Y's: it forgets what it was about to do); X or Y dies, its guest
 * running on until that is proven; X or Y loses its lease (all its QEMUs killed and proven gone, its claims over). X, Y and Z stop the guest and give it up, too.
 * "cont" may stay on its way in QEMU's monitor; a new agent's first answer from QEMU says that nothing earlier is.
 * A running guest writes the image: memory that was saved before is stale from then on. A target that ends by "quit" instead of SIGKILL would write, too, and so
 * would one that activates its disks when it has loaded (no late-block-activate).
 * A claim is one register here, taken in one step by reading it: claim.pml shows why that may be assumed, if the target's re-read asks, too, whether the release with its id is
 * still the newest generation. Also there: the image's drains.
 *
 * Found by this model: an agent restarted at the target between claim and "cont", or between claim and kill, sees its own live claim and a loaded QEMU in both
 * cases; so the claim must carry the id it was made for, and what does not match is killed (MUTANT_OWN_CLAIM_SUFFICES). A source may take the VM back with the memory it
 * holds only if its own claim or release is still the newest generation (MUTANT_WARM_AFTER_OTHERS), and must otherwise be killed before its node claims for a
 * cold start: an agent restarted between that claim and the kill would take its own live claim for the other case (MUTANT_SOURCE_KEPT).
 *
 * run: small one -DATTEMPTS=1 -DFAULTS=2
 * run: small two-attempts -DATTEMPTS=2 -DFAULTS=1
 * run: large two-attempts-long -DATTEMPTS=2 -DFAULTS=2 -DMAXG=5
 * mutant: small one MUTANT_CONTINUE_UNCLAIMED
 * mutant: small one MUTANT_DEATH_SUFFICES
 * mutant: small one MUTANT_RELEASE_EARLY
 * mutant: small one MUTANT_RESUME_AFTER_RELEASE
 * mutant: small one MUTANT_RESTART_RESUMES
 * mutant: small one MUTANT_CLAIM_UNRESOLVED
 * mutant: small one MUTANT_WARM_AFTER_OTHERS
 * mutant: small one MUTANT_SOURCE_KEPT
 * mutant: small one MUTANT_COMMAND_IN_FLIGHT
 * mutant: small one MUTANT_OWN_CLAIM_SUFFICES
 * mutant: small one MUTANT_COLD_BESIDE_TARGET
 * mutant: small one MUTANT_QUIT_TARGET
 * mutant: small one MUTANT_ACTIVE_TARGET
 * mutant: small two-attempts MUTANT_ANY_RELEASE
 * mutant: small two-attempts MUTANT_ID_REUSED
 */
#ifndef ATTEMPTS
#define ATTEMPTS 1
#endif
#ifndef FAULTS
#define FAULTS 1
#endif
#ifndef MAXG /* generations */
#define MAXG 4
#endif
#define NOBODY 0
#define X 1
#define Y 2
#define Z 3

byte owner = X;               /* the newest claim's node; NOBODY: it has ended, */
byte freed;                   /* by the release for the migration of this id, 0: otherwise */
byte claim_id;                /* the migration for which the newest claim was made, 0: none */
byte generation = 1;
byte own = 1;                 /* generation of X's newest claim, as its block says */
bit way;                      /* X's release on its way to the volumes: */
byte way_id, way_generation;
byte runs = X;                /* whose guest runs */
bit alive[4] = 1, proven[4];  /* proven: the death is */
bit restart_x, restart_y;
byte faults = FAULTS;

byte out;                     /* X's QEMU migrates, by this id */
bit cont;                     /* its agent has told it to go on */
byte left, ids;               /* it has completed this migration; ids used */
byte sent, loaded;            /* the last completed migration's stream; what Y's incoming QEMU holds; 0: none */
bit left_stale, sent_stale, loaded_stale; /* the image has changed since that memory was saved */

#define UNDER_OWN (owner == X && generation == own)
#define FREE (owner == NOBODY || proven[owner])
#define MAY_CLAIM (FREE && generation < MAXG)

/* A guest begins to run, or goes on: in one step with the asking whether its node is still there. */
inline run_on(n) { assert(runs == NOBODY || runs == n); runs = n /* twice */ }
inline write_image() { left_stale = 1; sent_stale = (sent > 0); loaded_stale = (loaded > 0) }
inline claim(n, id) { owner = n; generation++; freed = 0; claim_id = id }
inline kill_target() { loaded = 0; loaded_stale = 0; sent = 0; sent_stale = 0 }
inline kill_source() { left = 0; left_stale = 0; cont = 0; out = 0 }

#ifdef MUTANT_ID_REUSED
#define ID 1
#else
#define ID ids
#endif

proctype Source()
{
	bit issued;               /* a release may be out */

again:
	{
	do
	/* Nothing is decided while a command of ours may be on its way. */
	:: d_step { alive[X] && !cont && out == 0 && left == 0 && runs == X && UNDER_OWN && ids < ATTEMPTS ->
		ids++; out = ID; issued = 0 }
	:: d_step { alive[X] && left > 0 && !issued && UNDER_OWN && !cont -> cont = 1 } /* completed, and never released: it resumes */
#ifdef MUTANT_RELEASE_EARLY
	:: d_step { alive[X] && out > 0 && !issued && UNDER_OWN && !way ->
		way = 1; way_id = out; way_generation = own; issued = 1 }
#endif
#ifdef MUTANT_COMMAND_IN_FLIGHT
	:: d_step { alive[X] && left > 0 && !issued && UNDER_OWN && !way ->
#else
	:: d_step { alive[X] && left > 0 && !issued && UNDER_OWN && !way && !cont ->
#endif
		way = 1; way_id = left; way_generation = own; issued = 1 }
#ifdef MUTANT_RESUME_AFTER_RELEASE
	:: d_step { alive[X] && left > 0 && issued && UNDER_OWN && !cont -> cont = 1 }
#endif
	/* Perhaps it landed for nobody to take: back by a new claim, as soon as nothing can land over it, and while nobody else has claimed. */
#if defined(MUTANT_CLAIM_UNRESOLVED)
	:: d_step { alive[X] && issued && left > 0 && (FREE || owner == X) && generation == own && generation < MAXG && !cont ->
#elif defined(MUTANT_WARM_AFTER_OTHERS)
	:: d_step { alive[X] && issued && left > 0 && !way && (FREE || owner == X) && generation < MAXG && !cont ->
#else
	:: d_step { alive[X] && issued && left > 0 && !way && (FREE || owner == X) && generation == own && generation < MAXG && !cont ->
#endif
		claim(X, 0); own = generation };
		if
		:: d_step { alive[X] && UNDER_OWN && left > 0 -> cont = 1; issued = 0 } /* must be reached */
		:: d_step { alive[X] && UNDER_OWN -> kill_source(); issued = 0; run_on(X) }
		:: !UNDER_OWN /* lost with the lease */
		fi
	/* A source that is not needed any more: its image is not active. It goes before a claim for a cold start, which a restarted agent could not
	 * tell from one for what the source holds. */
	:: d_step { alive[X] && left > 0 && !UNDER_OWN && !cont -> kill_source(); issued = 0 }
#ifdef MUTANT_SOURCE_KEPT
	:: d_step { alive[X] && !cont && out == 0 && !way && runs != X && MAY_CLAIM -> claim(X, 0); own = generation };
#else
	:: d_step { alive[X] && left == 0 && out == 0 && !way && runs != X && MAY_CLAIM -> claim(X, 0); own = generation };
#endif
		if
		:: d_step { alive[X] && UNDER_OWN -> kill_source(); run_on(X) }
		:: !UNDER_OWN
		fi
	:: d_step { alive[X] && owner == X && runs == X && out == 0 && !cont && !way -> runs = NOBODY; owner = NOBODY; freed = 0 } /* stopped, given up */
	od
	} unless { restart_x };
	/* The new agent waits until nothing of the old one is on its way, to QEMU or to the volumes; of a completed source it does not know what was said. */
#ifdef MUTANT_RESTART_RESUMES
	d_step { issued = 0; restart_x = 0 };
#else
	!way && !cont;
	d_step { issued = 1; restart_x = 0 };
	if
	:: d_step { alive[X] && owner == X && runs != X && left == 0 && out == 0 -> owner = NOBODY; freed = 0 } /* a claim that nobody runs under */
	:: else
	fi;
#endif
	goto again
}

proctype Target()
{
	byte mine;

again:
	{
	do
	/* Takes the claim that was released for the state it holds. */
#if defined(MUTANT_ANY_RELEASE)
	:: d_step { alive[Y] && loaded > 0 && owner == NOBODY && generation < MAXG -> claim(Y, loaded); mine = generation };
#elif defined(MUTANT_DEATH_SUFFICES)
	:: d_step { alive[Y] && loaded > 0 && generation < MAXG && ((owner == NOBODY && freed == loaded) || (owner == X && proven[X])) -> claim(Y, loaded); mine = generation };
#else
	:: d_step { alive[Y] && loaded > 0 && owner == NOBODY && freed == loaded && generation < MAXG -> claim(Y, loaded); mine = generation };
#endif
		if
		:: d_step { alive[Y] && owner == Y && generation == mine && loaded > 0 && loaded == claim_id ->
			assert(!loaded_stale); /* stale memory over a newer image */
			kill_target(); run_on(Y) } /* must be reached */
		:: !(owner == Y && generation == mine && loaded == claim_id)
		fi
#ifdef MUTANT_CONTINUE_UNCLAIMED
	:: d_step { alive[Y] && loaded > 0 -> kill_target(); run_on(Y) }
#endif
	/* In every other case it is SIGKILLed before any cold start here. */
	:: d_step { alive[Y] && runs != Y && MAY_CLAIM -> claim(Y, 0); mine = generation };
#ifndef MUTANT_COLD_BESIDE_TARGET
		kill_target();
#endif
		if
		:: d_step { alive[Y] && owner == Y && generation == mine -> run_on(Y) }
		:: !(owner == Y && generation == mine)
		fi
#ifdef MUTANT_COLD_BESIDE_TARGET
	:: d_step { alive[Y] && runs == Y && loaded > 0 -> assert(!loaded_stale); kill_target() } /* and then the incoming one is continued, too */
#endif
#ifdef MUTANT_QUIT_TARGET
	:: d_step { alive[Y] && loaded > 0 -> assert(runs == NOBODY || runs == Y); kill_target() }
#else
	:: d_step { alive[Y] && loaded > 0 -> kill_target() }
#endif
	:: d_step { alive[Y] && owner == Y && runs == Y -> runs = NOBODY; owner = NOBODY; freed = 0 }
	od
	} unless { restart_y };
	d_step { restart_y = 0; mine = generation };
	if
#ifdef MUTANT_OWN_CLAIM_SUFFICES
	:: d_step { alive[Y] && owner == Y && runs != Y && loaded > 0 ->
#else
	:: d_step { alive[Y] && owner == Y && runs != Y && loaded > 0 && loaded == claim_id ->
#endif
		assert(!loaded_stale); kill_target(); run_on(Y) } /* must be reached */
	:: d_step { alive[Y] && owner == Y && runs != Y -> kill_target(); owner = NOBODY; freed = 0 }
	:: owner != Y || runs == Y || !alive[Y]
	fi;
	goto again
}

proctype Other()
{
	do
	:: d_step { MAY_CLAIM -> claim(Z, 0) };
		d_step { run_on(Z) }
	:: d_step { owner == Z && runs == Z -> runs = NOBODY; owner = NOBODY; freed = 0 }
	od
}

/* All of a node's QEMUs are gone. */
inline silence(n)
{
	if :: runs == n -> runs = NOBODY :: else fi;
	if :: n == X -> kill_source() :: else loaded = 0; loaded_stale = 0 fi
}

proctype World()
{
	do
	/* X's block is a register: a late release lands over a newer claim of X, too. */
	:: d_step { way && (owner == X || (owner == NOBODY && generation == way_generation)) -> owner = NOBODY; freed = way_id; way = 0 }
	:: d_step { way -> way = 0 } /* never lands, or behind a newer claim */
	/* X's QEMU, whatever its agent does. */
	:: d_step { out > 0 && runs == X -> out = 0 } /* failed, cancelled: the guest goes on */
	:: d_step { out > 0 && runs == X -> runs = NOBODY; left = out; left_stale = 0; sent = out; sent_stale = 0; out = 0 }
	:: d_step { cont && left > 0 -> assert(!left_stale); cont = 0; left = 0; left_stale = 0; run_on(X) }
	:: d_step { cont && restart_x -> cont = 0 } /* dropped with the connection */
	:: d_step { runs != NOBODY && (!left_stale || (sent > 0 && !sent_stale) || (loaded > 0 && !loaded_stale)) -> write_image() }
	/* The stream may arrive late; a QEMU that has ended loads nothing. */
	:: d_step { sent > 0 && loaded == 0 && runs != Y && alive[Y] -> loaded = sent; loaded_stale = sent_stale;
#ifdef MUTANT_ACTIVE_TARGET
		assert(runs == NOBODY)
#endif
		}
	:: d_step { faults > 0 && alive[X] && !restart_x -> faults--; restart_x = 1 }
	:: d_step { faults > 0 && alive[Y] && !restart_y -> faults--; restart_y = 1 }
	:: d_step { faults > 0 && alive[X] -> faults--; alive[X] = 0 }
	:: d_step { faults > 0 && alive[Y] -> faults--; alive[Y] = 0 }
	:: d_step { !alive[X] && !proven[X] -> proven[X] = 1; silence(X) }
	:: d_step { !alive[Y] && !proven[Y] -> proven[Y] = 1; silence(Y) }
	:: d_step { faults > 0 && alive[X] -> faults--; silence(X); if :: owner == X -> owner = NOBODY; freed = 0 :: else fi } /* the lease: killed, proven, published */
	:: d_step { faults > 0 && alive[Y] -> faults--; silence(Y); if :: owner == Y -> owner = NOBODY; freed = 0 :: else fi }
	od
}

init { atomic { run Source(); run Target(); run Other(); run World() } }
