/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The gate that each VM's start passes, against a release that comes at any moment.
 *
 * Stands for: DESIGN "Parts", launcher: "Release first closes the gate, then kills all registered processes and everything in the VM slice, then proves, then
 * publishes"; fence/launch.c, fence/keeper_clients.c (registration), fence/lease.c (release, keeper_gate_open), fence/vmslice.c.
 * Two launchers ask with the epoch their agent knows, at any moment, and exec at any later one; a killed process does nothing any more. The keeper
 * releases epoch 1, publishes it, and opens the gate again for epoch 2. Another node starts the VM once it has read "released": guests of epoch 1 must be
 * gone by then. Left out: the watchdog, should the proof never come (lease.pml); that the gate is closed, too, when no renewal came in time; D state, in which a process counts as running.
 *
 * run: small release
 * mutant: small release MUTANT_CLOSE_AFTER_KILL
 * mutant: small release MUTANT_YES_BEFORE_REGISTERED
 * mutant: small release MUTANT_CHECK_AND_REGISTER_APART
 * mutant: small release MUTANT_NO_PROOF
 * mutant: small release MUTANT_PUBLISH_FIRST
 * mutant: small release MUTANT_ANY_EPOCH
 */
#define LAUNCHERS 2
bit open = 1;
byte epoch = 1;                 /* of the gate */
bit known[LAUNCHERS];           /* registered with the keeper, which holds its pidfd */
bit alive[LAUNCHERS] = 1;
byte runs[LAUNCHERS];           /* QEMU, started under this epoch */
byte released;                  /* the volumes say: this epoch is over */
bit elsewhere;                  /* the VM of epoch 1 runs on another node */

#define NONE_OF_1 (runs[0] != 1 && runs[1] != 1)

proctype Launcher(byte i)
{
	byte mine;

	/* What the agent believes when it asks systemd for the unit. */
	if :: mine = 1 :: released > 0 -> mine = 2 fi;
#ifdef MUTANT_CHECK_AND_REGISTER_APART
	if :: open && mine == epoch -> skip :: !open || mine != epoch -> goto refused fi;
	d_step { alive[i] -> known[i] = 1 };
#elif defined(MUTANT_YES_BEFORE_REGISTERED)
	if :: open && mine == epoch -> skip :: !open || mine != epoch -> goto refused fi;
#elif defined(MUTANT_ANY_EPOCH)
	if :: d_step { open && alive[i] -> known[i] = 1 } :: !open -> goto refused fi;
#else
	if :: d_step { open && mine == epoch && alive[i] -> known[i] = 1 } :: !open || mine != epoch -> goto refused fi;
#endif
	atomic { alive[i] -> runs[i] = mine; assert(!(elsewhere && mine == 1)) /* slipped past the release: must be reached */ };
#ifdef MUTANT_YES_BEFORE_REGISTERED
	known[i] = 1;
#endif
refused:
	skip
}

proctype Keeper()
{
	byte i;

#ifdef MUTANT_PUBLISH_FIRST
	released = 1;
#endif
#ifndef MUTANT_CLOSE_AFTER_KILL
	open = 0;
#endif
	i = 0;
	do
	:: i < LAUNCHERS -> d_step { if :: known[i] -> alive[i] = 0 :: else fi; i++ }
	:: else -> break
	od;
#ifdef MUTANT_CLOSE_AFTER_KILL
	open = 0;
#endif
#ifndef MUTANT_NO_PROOF
	(!known[0] || !runs[0]) && (!known[1] || !runs[1]); /* reaped: must be reached */
#endif
	released = 1;
	d_step { epoch = 2; i = 0; do :: i < LAUNCHERS -> if :: !alive[i] -> known[i] = 0 :: else fi; i++ :: else -> break od; i = 0 };
	open = 1
}

/* A SIGKILL takes its time. */
proctype Kernel()
{
	do
	:: d_step { !alive[0] && runs[0] > 0 -> runs[0] = 0 }
	:: d_step { !alive[1] && runs[1] > 0 -> runs[1] = 0 }
	od
}

proctype Elsewhere()
{
	released >= 1;
	atomic { elsewhere = 1; assert(NONE_OF_1) }
}

init { atomic { run Launcher(0); run Launcher(1); run Keeper(); run Kernel(); run Elsewhere() } }
