/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Named ways to break the protocol. tests/ha-sim-mutants is the simulator built with KVM_HA_MUTANTS: it breaks one rule at a time and must see an
 * invariant fail. In every other build MUTANT(NAME) is the constant false, and nothing of this is in the binary.
 *
 * X(NAME, RULE, WHAT, CAUGHT): RULE says where DESIGN.md has it ("!n" is its n-th sentence marked with an exclamation mark), WHAT is the break, CAUGHT
 * the invariants (tests/sim/check.c) that may catch it.
 *
 * Of !4, that no node may be armed has none: a frozen quorum is met by every renewal, so that nothing breaks here without it, but with --lost, which nobody uses here;
 * tests/test_setchange.c looks at that. Of !8, the checks before arming are the shell's: tests/test_watchdog.c, tests/test_conf.c, tests/test_timing.c.
 * Of !16, two definitions with one writable disk are refused when a catalog is read (agent/catalog.c): the simulator has no disks in its definitions. */
#pragma once

#include <stdbool.h>

#define MUTANT_TABLE(X) \
	/* The lease: rounds, pets, quorums */ \
	X(PETS_BY_TIMER, "lease 1, I3", "a pet at every round, renewed or not", "S4") \
	X(PETS_WHILE_RELEASING, "lease, release", "pets go on while VMs are being killed", "S4") \
	X(READS_BEFORE_WRITTEN, "lease 3", "the table is read while the own block is still being written", "S4") \
	X(RENEWS_WITHOUT_READ, "lease 4", "the own block's acknowledgement alone renews", "S4") \
	X(RENEW_QUORUM_SHORT, "quorums", "one volume of three renews", "S4") \
	X(FENCE_QUORUM_SHORT, "quorums", "one volume is enough to judge and to fence", "S3") \
	X(COMMIT_UNHEEDED, "lease 4", "a commit against this node does not end its lease", "L5") \
	X(SOFT_AFTER_WATCHDOG, "soft deadline", "the soft deadline comes after the watchdog's", "L4") \
	X(GATE_UNTIMED, "lease", "the gate stays open until somebody tells the keeper's core the time", "S3") \
	/* !1: gate, kill, proof, publication */ \
	X(GATE_STAYS_OPEN, "!1", "a release leaves the gate open", "S3") \
	X(RELEASED_BEFORE_PROOF, "!1", "released is published while VMs are still being killed", "S3") \
	X(LEFT_WITH_VMS, "!1", "a host that goes down with VM processes left says so without ending them first", "S3 S4") \
	X(LAUNCHERS_MISSED, "!1", "the kill passes over what has passed the gate but is not QEMU yet", "S3") \
	X(SILENCE_UNPROVEN, "proof of silence", "the victims' unsent data is neither dropped nor waited for", "S1") \
	X(REJOINS_AT_ONCE, "release", "a new epoch begins as soon as released is published, and arms", "L5 L4") \
	/* !2: two buffers, unreadable, rolled back */ \
	X(ONE_BUFFER, "!2", "every write goes to the same buffer", "L2 L3 L5") \
	X(OLDER_BUFFER_COUNTS, "!2", "of two valid buffers the older one counts", "L3") \
	X(UNREADABLE_IS_EMPTY, "!2", "a heartbeat that cannot be read does not fail the volume", "S3") \
	X(CLAIMS_UNREADABLE_ARE_EMPTY, "!2", "claims that cannot be read do not fail the volume", "S1") \
	X(CLAIMS_ANNOUNCED_IGNORED, "!2", "one buffer bad and the other older than announced counts", "S1") \
	X(ROLLED_BACK_TAKEN, "!2", "a volume whose heartbeats went backwards goes on counting", "S3") \
	X(CLAIMS_ROLLED_BACK_TAKEN, "!2", "a volume whose claims went backwards goes on counting", "S1") \
	/* !3: unresolved writes */ \
	X(REISSUED, "!3", "a write whose fate is unknown counts as done", "S5") \
	X(SLOT_NOT_PROBED, "!3", "no probe before T_drain", "S5") \
	X(SLOT_NOT_DRAINED, "!3", "no T_drain after the probe", "S5") \
	X(STARTS_WRITING_AT_ONCE, "!3, I6", "a starting process does not wait for its predecessor's writes", "S5") \
	/* !4: changing the volume set */ \
	X(NEW_VOLUME_COUNTS_AT_ONCE, "!4", "a new volume is put into the set before every node's state is on it", "S1 S2 S3 S6") \
	X(SET_CHANGE_UNSEEN, "!4", "who works with the former set does not see that it is no more", "S1 S2 S3 S6") \
	/* !5: epochs, numbers, foreign slots */ \
	X(EPOCH_REUSED, "!5", "a new epoch takes the highest number seen instead of the next", "S3") \
	X(MINORITY_EPOCH_ENDS, "!5", "an epoch that is on a minority of the volumes ends those before it, whose numbers may come again", "S3") \
	X(FOREIGN_SLOT_TAKEN, "!5", "another host's slot is written at once", "S3") \
	X(SEQ_NOT_SKIPPED, "S6", "a new life numbers its heartbeats from the newest it can read", "S6") \
	X(CLAIM_SEQ_NOT_SKIPPED, "S6", "a new agent numbers its claims from the newest it can read", "S6") \
	/* !6 and !8: the watchdog */ \
	X(WATCHDOG_CLOSED_EARLY, "!6", "the watchdog is closed before the VMs are proven gone", "S3 S4") \
	X(WATCHDOG_KEPT, "!6", "the watchdog is not closed after the proof", "L4") \
	X(ARMED_BEFORE_WATCHDOG, "!6, !8", "armed is published before the watchdog has answered", "S3") \
	X(DISARM_UNPUBLISHED, "!8", "the watchdog stops before disarmed is published", "S3 S4") \
	X(DISARM_UNREAD, "!8", "the watchdog stops before the table is read after disarmed", "S3 S4") \
	X(DISARMED_FENCED, "!8", "W counts for a node that says disarmed", "S3") \
	X(SILENCE_PROVES, "I5", "W counts for a node that says that its silence proves nothing", "S3") \
	/* !7: keeper restart */ \
	X(RESTART_PETS_FIRST, "!7", "a restarted keeper pets before its first full round", "S4") \
	X(RESTART_KEEPS_VMS, "!7", "VMs of an epoch that is not gone on with are not killed before the first write", "S3") \
	X(WATCHDOG_UNHELD, "!7, I2", "the keeper alone holds the descriptor of a watchdog that its close pets", "S3") \
	X(RESTART_OPENS_WATCHDOG, "!7", "a restarted keeper opens the watchdog before the VMs are proven gone", "S4") \
	/* Taking over; !9 */ \
	X(W_ONE_PERIOD, "I1", "W is half of what it must be", "S3") \
	X(W_WITHOUT_RHO, "I1", "W leaves out that clocks differ", "S3") \
	X(T0_AT_ROUND_START, "takeover 1", "t0 is the round's start, not the read's completion", "S3 L2") \
	X(NO_REREAD, "takeover 5", "heartbeats that come after the ring has lost the node do not move t0", "S3 L2") \
	X(GAP_IGNORED, "!9", "an observer that was away believes its old t0", "L2") \
	X(SUSPECTS_AT_ONCE, "takeover 2", "one missed heartbeat is enough", "L2") \
	X(COMMIT_UNACKED, "takeover 6", "over is said without the commit on a fence quorum", "S3") \
	/* !11: evidence that ends W early; brakes */ \
	X(EVIDENCE_BEFORE_REREAD, "!11", "evidence counts as soon as it is there, for whatever epoch the table shows by then", "S3") \
	X(EVIDENCE_WITHOUT_STATUS, "takeover 6", "a device's success in switching off is taken for its status", "S3") \
	X(OPERATOR_CONFIRMS_LIVE, "!11", "an operator's word counts for a node whose heartbeat moves", "S3") \
	X(POWER_BEFORE_COMMIT, "takeover 4", "a device is told to switch off before the commit is in place", "L4") \
	X(OLD_TABLE_COUNTS, "power", "an agent that stood still acts on what its keeper asked for long ago", "L4") \
	X(POWER_NOT_CALLED_OFF, "takeover 6", "a device goes on switching off though the node has moved", "L4") \
	X(BRAKE_IGNORED, "brakes", "more nodes are suspect at once than may be, and are fenced", "L2") \
	X(ARMS_LEFT_OUT, "brakes", "a node that has just come up arms though an armed one has a ring without it", "L4") \
	/* !10 and step 4: arbitration */ \
	X(SILENT_COUNTED, "!10", "nodes that were not seen since the ring changed have weight", "L5") \
	X(LOSER_BY_SUM, "!10", "who loses by its own sum releases at once", "L5") \
	X(LOSER_TO_LOWER, "!10", "an intent of a lower group is enough to release", "L5") \
	X(INTENT_KEPT, "!10", "an intent whose reason is gone stays", "L3") \
	X(EQUALS_BOTH_PROCEED, "!10", "two equal groups each believe they win", "L5") \
	X(RING_LOSS_RELEASES, "!10", "losing the ring is enough to release", "L5") \
	X(RINGLESS_FENCES, "!10", "a node without a ring fences others without one", "L2") \
	X(LOSER_FENCES, "takeover 3", "the lighter group fences, too", "L5") \
	X(NO_SETTLE, "takeover 2", "a ring view counts at once", "L2") \
	X(COMMIT_WITHOUT_INTENT, "takeover 4", "the commit comes without an intent before it", "L5") \
	X(INTENT_UNREAD, "takeover 4", "the commit follows the intent without a re-read", "L5") \
	X(COMMITS_AGAINST_INTENT, "takeover 4", "two equal groups each believe they win, and neither waits for the other's intent", "L5") \
	/* !12: commits and deaths */ \
	X(NOTHING_CARRIED, "!12", "commits and deaths are not carried into the next life", "S6") \
	X(COMMIT_DROPPED, "!12", "a commit is dropped as soon as the epoch is over", "S6") \
	X(DEATH_NOT_COPIED, "!12", "a taker claims before its own block holds the death", "S3") \
	/* !18: the hold */ \
	X(HOLD_WITH_STORAGE, "!18", "a peer that has its storage grants a hold", "L1 L5") \
	X(HOLD_TAKEOVER_GOES_ON, "!18", "a grant leaves the granter's t0 and its takeover as they are", "S3") \
	X(HOLD_ANY_ROUND, "!18", "a grant of an earlier round counts", "S4") \
	X(HOLD_GONE_IS_LEFT, "!18", "a node that is only gone from the ring is left out", "S4") \
	X(HOLD_WITHOUT_END, "!18", "a hold that leaves out somebody goes on", "S4") \
	X(NEWCOMER_WAITS_W, "!18", "a node that the silent one does not list waits W only", "S3") \
	X(JUDGES_WITHOUT_LEASE, "!18", "a node that has released, and may be left out, declares others over by their silence", "S3") \
	X(FOREIGN_BY_SILENCE, "!18, !5", "another host's slot is taken for its silence alone", "S3") \
	X(T0_BEFORE_EPOCH, "!18", "t0 may be from before the own epoch was known to all", "S3") \
	/* !13 and the claim's steps */ \
	X(CACHED_REREAD, "!13", "step 3 looks at the blocks of step 1", "S1") \
	X(REREAD_BEFORE_ACK, "!13", "step 3 is issued before the claim is acknowledged", "S1 S2") \
	X(CLAIM_QUORUM_SHORT, "!13", "one volume is enough to read claims from and to write them to", "S1 S2") \
	X(LAST_READ_COUNTS, "!13", "the volume that answers last counts, not the highest sequence", "S1 S2 S6") \
	X(START_WITHOUT_ACK, "claim 2", "the VM starts though its claim did not reach a quorum", "S2") \
	X(ONLY_NEWER_CONFLICT, "claim 3", "only claims of a higher generation conflict", "S1 S3") \
	X(OVERTAKEN_IGNORED, "claim 3", "a claim that came between the two reads and died is not seen", "S6") \
	X(GENERATION_REUSED, "claim 2", "a claim takes the highest generation seen instead of the next", "S6 S1") \
	X(UNCLEAN_FORGOTTEN, "claim 3", "a withdrawn claim forgets that the owner before was never proven quiet", "S1") \
	X(RELEASED_BEFORE_STOP, "claims", "the claim is given up before the VM is stopped", "S2") \
	X(STALE_IS_DEAD, "claims", "claims of a node that only stands still count as dead", "S1 S3") \
	X(OLD_EPOCH_KEPT, "claims", "VMs and claims of an epoch that has ended go on", "S2 S3") \
	X(TAKEN_IN_UNCLAIMED, "owning 4", "a QEMU that something else started is taken in without a claim", "S1 S2") \
	X(NOT_DRAINED, "takeover 6", "a VM of a dead owner starts at once", "S1") \
	X(PROBE_SKIPPED, "takeover 6", "T_drain is waited for without a probe", "S1") \
	X(DRAIN_SKIPPED, "takeover 6", "the probe is not followed by T_drain", "S1") \
	X(FIRST_START_CLEAN, "claims", "a VM added with the disk of one that was removed starts at once", "S1") \
	X(FAILED_UNDRAINED, "claims", "a VM given up as failed is not proven quiet", "S1") \
	X(STAYS_DOWN_UNDRAINED, "claims", "a VM that failed and is not to be restarted is released without being proven quiet", "S1") \
	X(UNQUIET_RELEASED, "claims", "a VM whose storage does not answer is released as if it were proven quiet", "S1") \
	/* Health: nobody is ended who need not be */ \
	X(GAP_COUNTS_FOR_HEALTH, "health", "time in which the agent stood still counts as the guest's silence", "H1") \
	X(HUNG_UNPROBED, "health", "a hung QEMU is ended though its storage does not answer", "H1") \
	X(GO_ON_STUCK, "health", "a migrated guest whose QEMU waits for its disks is ended as a start that hangs", "H1") \
	/* Order and place */ \
	X(ORDER_IGNORED, "order", "a VM is started before those of its After=", "P1") \
	X(PRIORITY_IGNORED, "order", "VMs are started in the order of their UUIDs", "P1") \
	X(STARTS_AT_ONCE, "order", "a node starts all of its VMs at a time", "P1") \
	X(REQUIRED_NODE_IGNORED, "place", "a VM goes to a node that is not among its RequiredNodes=", "P2") \
	X(LIMIT_IGNORED, "place", "a node gets more than its processors and memory allow", "P2") \
	X(CAPACITY_UNHEARD, "place", "a node of which nothing was heard yet is not limited", "P2") \
	X(GROUPS_IGNORED, "place", "a VM starts against its groups though they are required", "P2") \
	/* !14 */ \
	X(OWN_CLAIM_STARTED, "!14", "after a restart of the agent an own claim is started as it stands", "S1") \
	/* !15 and !16 */ \
	X(LEADER_FOR_EVER, "!15", "a leader whose agent stands still leads on", "L5") \
	X(SILENT_GATE_OPEN, "!15", "the gate stays open while a silent agent's claims are said to be void", "S3 S1 S2 S6") \
	X(LATE_START_PASSES, "!15", "a start that was claimed before its claim could be taken for void passes the gate that is open again", "S1 S2 S6") \
	X(REOPENED_UNCLEARED, "!15", "the gate opens again before the volumes say that no claim is void any more", "S3") \
	X(RUNNING_VOID, "!15", "claims of VMs that have a process are void, too", "S1") \
	X(SILENT_UNPROVEN, "!15", "a VM's process is gone, and what the host still sends of it is not waited for", "S1") \
	X(VOID_UNHEARD, "!15", "a claim is taken for void by what its keeper said before the taker's own claim was there", "S3 S1 S6") \
	X(VOID_CLEAN, "!15", "a VM whose claim was void is started without a drain", "S1") \
	X(SILENT_CLAIMS_KEPT, "!15", "the claims of a silent agent stand, process or not", "L1") \
	X(EDIT_UNCHECKED, "!15", "an edit counts without a later read of the claims", "C1") \
	X(LEADER_READS_FIRST, "!15", "a new leader edits what it read before its claim", "C1") \
	X(LEADER_GENERATION_LOW, "!15", "a leader's generation may be one that was there before", "C1 S6 L3 L5") \
	X(REMOVED_FORGOTTEN, "!16", "a removed VM leaves the catalog at once", "S1 S2") \
	/* !17: live migration */ \
	X(CONTINUED_UNCLAIMED, "!17", "the target continues the guest without claiming it", "S1 S2 S6") \
	X(HANDED_BEFORE_INACTIVE, "!17", "the claim is handed over while the guest only stands still", "S1 S2") \
	X(SOURCE_RESUMES, "!17", "the source continues its guest after it has handed it over", "S1 S2") \
	X(ISSUED_TAKEN_BACK, "!17", "a release that was issued, and not acknowledged for long, is taken back and the guest goes on", "S1 S2") \
	X(RELEASE_UNREAD, "!17", "a loaded target takes any VM that nobody holds, handed over or not", "S1 S2") \
	X(RELEASE_OF_ANOTHER, "!17", "a loaded target takes what was handed over for another migration", "S1 S2") \
	X(CONT_WHILE_SENT, "!17", "a guest that its storage had stopped is continued while it is being sent", "S1 S2") \
	X(CONT_IN_FLIGHT, "!17", "a guest is sent while QEMU has not answered yet that it is to go on here", "S1 S2") \
	X(TARGET_KEPT, "!17", "a loaded target is not killed before a cold start", "S1 S2 S6") \
	/* SCSI-3 persistent reservations */ \
	X(NOT_PREEMPTED, "PR", "a VM is started beside the keys of other nodes on its LUN", "R1") \
	X(OVERTAKEN, "PR", "a start preempts without a read of all claims after it has registered", "R1 R2") \
	X(CHECK_RESERVES, "PR", "who has only joined makes a reservation, with a source beside it that has not registered", "R2") \
	X(LEFT_STANDING, "PR", "a VM goes on without a reservation where one of the cluster stands", "R2") \
	X(TAKEN_UNCONFIRMED, "PR", "a migration's target does not ask again whether its key is still there, nor listen", "R2") \
	X(OTHERS_LEFT, "PR", "an owner does not preempt whose key turns up beside its own", "R6") \
	X(VERIFIED_ON_ONE_PATH, "PR", "a path that lost its registration is not noticed at the start", "R1") \
	X(REREGISTERED, "PR", "a key that was lost is put back under the running guest", "R3") \
	X(STRANGER_PREEMPTED, "PR", "a key that is not the cluster's is preempted", "R4") \
	X(UNREGISTERED_EARLY, "PR", "a key is taken back before the guest is proven gone", "R5") \
	X(JOIN_PREEMPTS, "PR", "a migration's target preempts the source before the handover", "R2") \
	X(NEVER_OWNED, "PR", "a migration's target leaves the source's key on the LUN", "R6")

enum mutant {
	MUTANT_NONE,
#define MUTANT_ENUM(name, rule, what, caught) MUTANT_##name,
	MUTANT_TABLE(MUTANT_ENUM)
#undef MUTANT_ENUM
	MUTANT_COUNT,
};

#ifdef KVM_HA_MUTANTS
extern enum mutant mutant_now;
#define MUTANT(name) (mutant_now == MUTANT_##name)
#else
#define MUTANT(name) false
#endif
