/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-sim-mutants: the simulator with one rule of the protocol broken (agent/base/mutant.h). Some invariant must fail, one that is named for the mutant;
 * on the same seeds, with the rule in force, none may. Exit status 0: so it is, 1: not, 64: usage.
 *
 * Each mutant runs in a process of its own, so that one that trips an assertion of the cores takes nothing with it. */
#include <getopt.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/mutant.h"
#include "tests/sim/sim.h"

#define MAX_JOBS 16
#define CPU_LIMIT_S 300 /* of one process: a mutant that never gets on is a survivor */

enum mutant mutant_now;

static const struct { const char *name, *rule, *what, *caught; } table[MUTANT_COUNT] = {
	[MUTANT_NONE] = { "NONE", "", "nothing is broken", "" },
#define ROW(name, rule, what, caught) [MUTANT_##name] = { #name, rule, what, caught },
	MUTANT_TABLE(ROW)
#undef ROW
};

/* Where to look: how big a cluster, which faults to play often or not at all. Never which seed. */
#define OFTEN(kind) (1ULL << CHAOS_##kind)
static const struct hint { unsigned nodes, volumes; uint64_t often; bool only; } hints[MUTANT_COUNT] = {
	[MUTANT_RENEW_QUORUM_SHORT] = { .volumes = 3, .often = OFTEN(VOLUME_HANG) },
	[MUTANT_FENCE_QUORUM_SHORT] = { .volumes = 2, .often = OFTEN(PATH_CUT) },
	[MUTANT_GATE_UNTIMED] = { .nodes = 3, .often = OFTEN(KEEPER_STOP) | OFTEN(QEMU_CRASH), .only = true },
	[MUTANT_RELEASED_BEFORE_PROOF] = { .often = OFTEN(IMAGE_HANG) | OFTEN(PATHS_CUT) },
	[MUTANT_LEFT_WITH_VMS] = { .often = OFTEN(SHUTDOWN) },
	[MUTANT_LAUNCHERS_MISSED] = { .often = OFTEN(PATHS_CUT) | OFTEN(QEMU_CRASH) },
	[MUTANT_SILENCE_UNPROVEN] = { .often = OFTEN(PATHS_CUT) | OFTEN(IMAGE_CUT) },
	[MUTANT_ONE_BUFFER] = { .volumes = 1, .often = OFTEN(POWER) | OFTEN(SLOW) },
	[MUTANT_UNREADABLE_IS_EMPTY] = { .volumes = 3, .often = OFTEN(ROT) | OFTEN(ROLLBACK) },
	[MUTANT_CLAIMS_UNREADABLE_ARE_EMPTY] = { .volumes = 3, .often = OFTEN(ROT) | OFTEN(ROLLBACK) },
	[MUTANT_CLAIMS_ANNOUNCED_IGNORED] = { .volumes = 3, .often = OFTEN(ROLLBACK) | OFTEN(MISDIRECT) | OFTEN(ROT) },
	[MUTANT_NEW_VOLUME_COUNTS_AT_ONCE] = { .volumes = 3, .often = OFTEN(VOLSET) | OFTEN(PATH_CUT) },
	[MUTANT_SET_CHANGE_UNSEEN] = { .volumes = 3, .often = OFTEN(VOLSET) | OFTEN(QEMU_CRASH) | OFTEN(PATH_CUT) },
	[MUTANT_STARTS_WRITING_AT_ONCE] = { .often = OFTEN(KEEPER_CRASH) | OFTEN(AGENT_CRASH) },
	[MUTANT_ROLLED_BACK_TAKEN] = { .volumes = 3, .often = OFTEN(ROLLBACK) | OFTEN(PATH_CUT) | OFTEN(POWER) },
	[MUTANT_CLAIMS_ROLLED_BACK_TAKEN] = { .volumes = 3, .often = OFTEN(ROLLBACK) | OFTEN(PATH_CUT) | OFTEN(POWER) },
	[MUTANT_FOREIGN_SLOT_TAKEN] = { .often = OFTEN(CLONE) },
	[MUTANT_FOREIGN_BY_SILENCE] = { .nodes = 3, .often = OFTEN(CLONE) | OFTEN(READ_ONLY) | OFTEN(BAD_WRITES) },
	[MUTANT_SEQ_NOT_SKIPPED] = { .volumes = 3, .often = OFTEN(KEEPER_CRASH) | OFTEN(PATH_CUT) | OFTEN(POWER) },
	[MUTANT_CLAIM_SEQ_NOT_SKIPPED] = { .volumes = 3, .often = OFTEN(AGENT_CRASH) | OFTEN(PATH_CUT) | OFTEN(QEMU_CRASH) },
	[MUTANT_ARMED_BEFORE_WATCHDOG] = { .often = OFTEN(POWER) | OFTEN(KEEPER_STOP) },
	[MUTANT_DISARM_UNPUBLISHED] = { .often = OFTEN(OPERATOR) | OFTEN(SLOW) },
	[MUTANT_DISARM_UNREAD] = { .often = OFTEN(OPERATOR) | OFTEN(BAD_READS) | OFTEN(SLOW) },
	[MUTANT_SILENCE_PROVES] = { .often = OFTEN(KEEPER_STOP) },
	[MUTANT_DISARMED_FENCED] = { .often = OFTEN(OPERATOR) | OFTEN(KEEPER_STOP) },
	[MUTANT_RESTART_KEEPS_VMS] = { .often = OFTEN(KEEPER_CRASH) | OFTEN(PATHS_CUT) | OFTEN(IMAGE_HANG) },
	[MUTANT_RESTART_OPENS_WATCHDOG] = { .often = OFTEN(KEEPER_CRASH) | OFTEN(PATHS_CUT) },
	[MUTANT_WATCHDOG_UNHELD] = { .nodes = 4, .often = OFTEN(KEEPER_BRINK), .only = true },
	[MUTANT_W_WITHOUT_RHO] = { .nodes = 5, .often = OFTEN(KEEPER_BRINK), .only = true },
	[MUTANT_T0_AT_ROUND_START] = { .nodes = 4, .often = OFTEN(KEEPER_BRINK) | OFTEN(SLOW), .only = true },
	[MUTANT_NO_REREAD] = { .nodes = 4, .often = OFTEN(KEEPER_BRINK) | OFTEN(RING_SPLIT) | OFTEN(RING_ALONE), .only = true },
	[MUTANT_GAP_IGNORED] = { .volumes = 1, .often = OFTEN(KEEPER_STOP) | OFTEN(POWER) | OFTEN(ALL_HANG), .only = true },
	[MUTANT_COMMIT_UNACKED] = { .often = OFTEN(KEEPER_BRINK) | OFTEN(BAD_WRITES) | OFTEN(PATHS_CUT) },
	[MUTANT_MINORITY_EPOCH_ENDS] = { .nodes = 3, .volumes = 3, .often = OFTEN(BAD_WRITES) | OFTEN(BAD_READS) | OFTEN(POWER), .only = true },
	[MUTANT_EVIDENCE_BEFORE_REREAD] = { .nodes = 3, .often = OFTEN(KEEPER_BRINK) | OFTEN(POWER) | OFTEN(AGENT_STOP), .only = true },
	[MUTANT_EVIDENCE_WITHOUT_STATUS] = { .often = OFTEN(KEEPER_BRINK) | OFTEN(POWER) },
	[MUTANT_OPERATOR_CONFIRMS_LIVE] = { .often = OFTEN(CONFIRM) },
	[MUTANT_POWER_BEFORE_COMMIT] = { .often = OFTEN(KEEPER_BRINK) | OFTEN(POWER) },
	[MUTANT_OLD_TABLE_COUNTS] = { .nodes = 5, .often = OFTEN(AGENT_STOP) | OFTEN(KEEPER_STOP) | OFTEN(COROSYNC), .only = true },
	[MUTANT_POWER_NOT_CALLED_OFF] = { .often = OFTEN(KEEPER_STOP) | OFTEN(POWER), .only = true },
	[MUTANT_BRAKE_IGNORED] = { .nodes = 5, .often = OFTEN(POWER) | OFTEN(KEEPER_STOP) },
	[MUTANT_ARMS_LEFT_OUT] = { .nodes = 3, .often = OFTEN(POWER) | OFTEN(RING_ALONE) },
	[MUTANT_SILENT_COUNTED] = { .often = OFTEN(POWER) },
	[MUTANT_LOSER_TO_LOWER] = { .nodes = 5, .volumes = 1, .often = OFTEN(RING_SPLIT) | OFTEN(RING_THREE) | OFTEN(RING_LATE) | OFTEN(SLOW), .only = true },
	[MUTANT_INTENT_KEPT] = { .often = OFTEN(RING_SPLIT) | OFTEN(SLOW) },
	[MUTANT_EQUALS_BOTH_PROCEED] = { .nodes = 2, .often = OFTEN(RING_SPLIT) | OFTEN(SLOW), .only = true },
	[MUTANT_LOSER_FENCES] = { .nodes = 5, .volumes = 1, .often = OFTEN(RING_SPLIT) | OFTEN(RING_THREE) | OFTEN(RING_LATE) | OFTEN(SLOW), .only = true },
	[MUTANT_NO_SETTLE] = { .often = OFTEN(RING_SPLIT) | OFTEN(RING_ALONE) | OFTEN(ONE_WAY) },
	[MUTANT_COMMIT_WITHOUT_INTENT] = { .nodes = 4, .volumes = 1, .often = OFTEN(RING_SPLIT) | OFTEN(RING_THREE) | OFTEN(RING_LATE) | OFTEN(RING_FLAP) | OFTEN(SLOW), .only = true },
	[MUTANT_INTENT_UNREAD] = { .nodes = 4, .volumes = 1, .often = OFTEN(RING_SPLIT) | OFTEN(RING_THREE) | OFTEN(RING_LATE) | OFTEN(RING_FLAP) | OFTEN(SLOW), .only = true },
	[MUTANT_COMMITS_AGAINST_INTENT] = { .nodes = 2, .often = OFTEN(RING_SPLIT) | OFTEN(SLOW), .only = true },
	[MUTANT_DEATH_NOT_COPIED] = { .often = OFTEN(POWER) | OFTEN(SLOW) },
	[MUTANT_CACHED_REREAD] = { .often = OFTEN(AGENT_STALL) | OFTEN(SLOW) },
	[MUTANT_CLAIM_QUORUM_SHORT] = { .often = OFTEN(PATH_CUT) | OFTEN(VOLUME_HANG) },
	[MUTANT_LAST_READ_COUNTS] = { .volumes = 3, .often = OFTEN(PATH_CUT) },
	[MUTANT_REREAD_BEFORE_ACK] = { .often = OFTEN(AGENT_STALL) | OFTEN(SLOW) | OFTEN(POWER) },
	[MUTANT_START_WITHOUT_ACK] = { .volumes = 3, .often = OFTEN(PATH_CUT) | OFTEN(BAD_WRITES) | OFTEN(POWER) },
	[MUTANT_ONLY_NEWER_CONFLICT] = { .often = OFTEN(AGENT_STALL) | OFTEN(AGENT_CRASH) | OFTEN(SLOW) | OFTEN(POWER) },
	[MUTANT_OVERTAKEN_IGNORED] = { .nodes = 4, .volumes = 3, .often = OFTEN(AGENT_STOP) | OFTEN(AGENT_STALL) | OFTEN(KEEPER_RESTART) | OFTEN(RING_ALONE) | OFTEN(SLOW) | OFTEN(OPERATOR) },
	[MUTANT_UNCLEAN_FORGOTTEN] = { .nodes = 3, .often = OFTEN(OPERATOR) | OFTEN(OPERATORS) | OFTEN(AGENT_CRASH) | OFTEN(POWER) | OFTEN(IMAGE_HANG) },
	[MUTANT_DRAIN_SKIPPED] = { .often = OFTEN(POWER) | OFTEN(IMAGE_HANG) },
	[MUTANT_FIRST_START_CLEAN] = { .nodes = 2, .volumes = 1, .often = OFTEN(OPERATOR) | OFTEN(OPERATORS) | OFTEN(POWER) | OFTEN(IMAGE_HANG) | OFTEN(IMAGE_CUT), .only = true },
	[MUTANT_FAILED_UNDRAINED] = { .nodes = 2, .often = OFTEN(QEMU_CRASH) | OFTEN(IMAGE_HANG) | OFTEN(IMAGE_CUT) },
	[MUTANT_STAYS_DOWN_UNDRAINED] = { .nodes = 2, .often = OFTEN(QEMU_CRASH) | OFTEN(IMAGE_HANG) | OFTEN(IMAGE_CUT) | OFTEN(OPERATOR) | OFTEN(OPERATORS) | OFTEN(SICK) },
	[MUTANT_UNQUIET_RELEASED] = { .nodes = 3, .often = OFTEN(IMAGE_HANG) | OFTEN(IMAGE_CUT) | OFTEN(QEMU_CRASH) | OFTEN(OPERATOR) | OFTEN(SICK) },
	[MUTANT_GAP_COUNTS_FOR_HEALTH] = { .often = OFTEN(AGENT_STOP) | OFTEN(SICK) },
	[MUTANT_HUNG_UNPROBED] = { .often = OFTEN(IMAGE_HANG) | OFTEN(QEMU_STOP) | OFTEN(SICK) },
	[MUTANT_GO_ON_STUCK] = { .nodes = 3, .often = OFTEN(MIGRATE) },
	[MUTANT_OWN_CLAIM_STARTED] = { .often = OFTEN(AGENT_CRASH) | OFTEN(SLOW) },
	[MUTANT_LEADER_FOR_EVER] = { .nodes = 4, .often = OFTEN(AGENT_STOP) },
	[MUTANT_SILENT_GATE_OPEN] = { .often = OFTEN(AGENT_STALL) | OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) },
	[MUTANT_TAKEN_IN_UNCLAIMED] = { .often = OFTEN(OPERATOR) },
	[MUTANT_LATE_START_PASSES] = { .often = OFTEN(AGENT_STALL) | OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) },
	[MUTANT_REOPENED_UNCLEARED] = { .often = OFTEN(AGENT_STALL) | OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) | OFTEN(SLOW) },
	[MUTANT_RUNNING_VOID] = { .often = OFTEN(AGENT_STOP) },
	[MUTANT_SILENT_UNPROVEN] = { .often = OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) | OFTEN(IMAGE_CUT) },
	[MUTANT_VOID_UNHEARD] = { .nodes = 3, .volumes = 1, .often = OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) | OFTEN(SLOW), .only = true },
	[MUTANT_VOID_CLEAN] = { .often = OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) | OFTEN(IMAGE_HANG) },
	[MUTANT_SILENT_CLAIMS_KEPT] = { .nodes = 3 },
	[MUTANT_LEADER_READS_FIRST] = { .often = OFTEN(OPERATOR) | OFTEN(AGENT_STOP) | OFTEN(POWER) },
	[MUTANT_EDIT_UNCHECKED] = { .often = OFTEN(OPERATOR) | OFTEN(AGENT_STALL) },
	[MUTANT_CONTINUED_UNCLAIMED] = { .nodes = 3, .often = OFTEN(MIGRATE) },
	[MUTANT_HANDED_BEFORE_INACTIVE] = { .nodes = 3, .often = OFTEN(MIGRATE) },
	[MUTANT_SOURCE_RESUMES] = { .nodes = 3, .often = OFTEN(MIGRATE) },
	[MUTANT_ISSUED_TAKEN_BACK] = { .nodes = 3, .often = OFTEN(MIGRATE) | OFTEN(VOLUME_HANG) },
	[MUTANT_RELEASE_UNREAD] = { .nodes = 3, .often = OFTEN(MIGRATE) | OFTEN(AGENT_CRASH) | OFTEN(AGENT_STEP) | OFTEN(QEMU_CRASH) },
	[MUTANT_RELEASE_OF_ANOTHER] = { .nodes = 4, .often = OFTEN(MIGRATE) | OFTEN(RING_LOSS) | OFTEN(AGENT_STALL), .only = true },
	[MUTANT_CONT_WHILE_SENT] = { .nodes = 3, .often = OFTEN(MIGRATE) | OFTEN(SICK) },
	[MUTANT_CONT_IN_FLIGHT] = { .nodes = 4, .often = OFTEN(MIGRATE) | OFTEN(SICK) },
	[MUTANT_TARGET_KEPT] = { .nodes = 3, .often = OFTEN(MIGRATE) | OFTEN(QEMU_CRASH) | OFTEN(AGENT_STALL) },
	[MUTANT_NOT_PREEMPTED] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(POWER) },
	[MUTANT_OVERTAKEN] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(AGENT_STALL) | OFTEN(AGENT_STOP) | OFTEN(QEMU_CRASH) },
	[MUTANT_CHECK_RESERVES] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(MIGRATE) | OFTEN(AGENT_CRASH) },
	[MUTANT_LEFT_STANDING] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(POWER) | OFTEN(AGENT_CRASH) },
	[MUTANT_TAKEN_UNCONFIRMED] = { .nodes = 4, .often = OFTEN(RESERVE) | OFTEN(MIGRATE) },
	[MUTANT_OTHERS_LEFT] = { .nodes = 3, .often = OFTEN(RESERVE) },
	[MUTANT_VERIFIED_ON_ONE_PATH] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(QEMU_CRASH) },
	[MUTANT_REREGISTERED] = { .nodes = 3, .often = OFTEN(RESERVE) },
	[MUTANT_STRANGER_PREEMPTED] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(QEMU_CRASH) },
	[MUTANT_UNREGISTERED_EARLY] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(OPERATOR) },
	[MUTANT_JOIN_PREEMPTS] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(MIGRATE) },
	[MUTANT_NEVER_OWNED] = { .nodes = 3, .often = OFTEN(RESERVE) | OFTEN(MIGRATE) },
	[MUTANT_REMOVED_FORGOTTEN] = { .often = OFTEN(OPERATOR) | OFTEN(OPERATORS) | OFTEN(AGENT_STOP) | OFTEN(AGENT_CRASH) },
};

/* What came of a mutant so far; shared with its process. */
struct tally {
	uint64_t seeds, caught, other, aborted, seed; /* seed: the present one */
	uint64_t first;                               /* 0: not yet */
	char by[16], text[160], first_by[16], other_by[16], other_text[160];
	unsigned by_invariant[32];
	double cpu_s;
};

struct options {
	uint64_t from, to;
	double hours;
	unsigned jobs;
	int profile;
	bool count, json, verbose, trace, clean;
	enum mutant only;
};

static const char *const invariants[] = { "S1", "S2", "S3", "S4", "S5", "S6", "L1", "L2", "L3", "L4", "L5", "L6", "C1", "H1", "P1", "P2", "R1", "R2", "R3", "R4", "R5", "R6" };

static bool expected(enum mutant m, const char *invariant)
{
	char list[64], *save;

	(void)str_copy(list, sizeof(list), table[m].caught);
	for (char *word = strtok_r(list, " ", &save); word; word = strtok_r(NULL, " ", &save))
		if (strstr(invariant, word))
			return true;
	return false;
}

static void note_failure(struct tally *t, enum mutant m)
{
	if (!expected(m, sim.failed_invariant)) {
		t->other++;
		(void)str_copy(t->other_by, sizeof(t->other_by), sim.failed_invariant);
		(void)str_copy(t->other_text, sizeof(t->other_text), sim.failed_text);
		return;
	}
	t->caught++;
	for (unsigned i = 0; i < ARRAY_SIZE(invariants); i++)
		t->by_invariant[i] += strstr(sim.failed_invariant, invariants[i]) != NULL;
	if (t->first != 0)
		return;
	t->first = sim.seed;
	(void)str_copy(t->first_by, sizeof(t->first_by), sim.failed_invariant);
	(void)str_copy(t->text, sizeof(t->text), sim.failed_text);
}

static double cpu_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The process of one mutant, from a seed on; `rule` is what is broken, which is nothing in the clean run beside it. */
_Noreturn static void play(const struct options *o, enum mutant m, enum mutant broken, uint64_t from, uint64_t to, struct tally *t)
{
	struct sim_options so = { .hours = o->hours, .nodes = hints[m].nodes, .volumes = hints[m].volumes, .profile = o->profile };
	struct rlimit limit = { CPU_LIMIT_S, CPU_LIMIT_S };
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	double cpu = t->cpu_s;

	(void)setrlimit(RLIMIT_CPU, &limit);
	sim.trace = o->trace && (broken == MUTANT_NONE) == o->clean;
	(void)dup2(sim.trace ? STDOUT_FILENO : null, STDOUT_FILENO);
	(void)dup2(null, STDERR_FILENO);
	mutant_now = broken;
	chaos_often = hints[m].often;
	chaos_only = hints[m].only;
	sim.no_reservation = !(hints[m].often & OFTEN(RESERVE)); /* it would hide what others are to catch */
	for (uint64_t seed = from; seed <= to; seed++) {
		t->seed = seed;
		(void)sim_play(&so, seed);
		t->seeds++;
		t->cpu_s = cpu + cpu_now();
		if (sim.failed && broken == MUTANT_NONE) {
			t->other++;
			(void)str_copy(t->other_by, sizeof(t->other_by), sim.failed_invariant);
			(void)str_copy(t->other_text, sizeof(t->other_text), sim.failed_text);
		} else if (sim.failed) {
			note_failure(t, m);
		}
		if (t->caught > 0 && !o->count)
			break;
	}
	(void)fflush(stdout);
	_exit(0);
}

struct job { pid_t pid; enum mutant m; bool clean; uint64_t to; struct tally *t; struct tally *clean_t; };

static bool start(struct job *j, const struct options *o, uint64_t from)
{
	(void)fflush(NULL);
	j->pid = fork();
	if (j->pid == 0)
		play(o, j->m, j->clean ? MUTANT_NONE : j->m, from, j->to, j->clean ? j->clean_t : j->t);
	return j->pid > 0;
}

static void by_text(const struct tally *t, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < ARRAY_SIZE(invariants) && n < size; i++)
		if (t->by_invariant[i] > 0)
			n += (size_t)snprintf(buf + n, size - n, "%s%s %u", n ? ", " : "", invariants[i], t->by_invariant[i]);
}

static bool good(const struct job *j) { return j->t->caught > 0 && j->clean_t->other == 0 && j->clean_t->aborted == 0; }

static void report(const struct job *j, const struct options *o)
{
	const struct tally *t = j->t, *c = j->clean_t;
	char by[200];

	by_text(t, by, sizeof(by));
	if (o->json) {
		(void)printf("{\"mutant\": \"%s\", \"rule\": \"%s\", \"what\": \"%s\", \"expected\": \"%s\", \"caught\": %llu, \"seeds\": %llu, \"first_seed\": %llu, "
			     "\"first_by\": \"%s\", \"by\": \"%s\", \"otherwise\": %llu, \"aborted\": %llu, \"clean_seeds\": %llu, \"clean_failures\": %llu, "
			     "\"cpu_s\": %.2f}\n",
			     table[j->m].name, table[j->m].rule, table[j->m].what, table[j->m].caught, (unsigned long long)t->caught,
			     (unsigned long long)t->seeds, (unsigned long long)t->first, t->first_by, by, (unsigned long long)t->other,
			     (unsigned long long)t->aborted, (unsigned long long)c->seeds, (unsigned long long)(c->other + c->aborted), t->cpu_s + c->cpu_s);
		return;
	}
	(void)printf("%s %s: ", good(j) ? "caught" : t->caught ? "DIRTY" : "SURVIVED", table[j->m].name);
	if (o->count || t->caught == 0)
		(void)printf("in %llu of %llu seeds", (unsigned long long)t->caught, (unsigned long long)t->seeds);
	else
		(void)printf("after %llu seeds", (unsigned long long)t->seeds);
	if (t->caught > 0)
		(void)printf("%s%llu by %s (%s)", o->count ? ", first in seed " : ", in seed ", (unsigned long long)t->first, t->first_by, o->count ? by : table[j->m].what);
	if (t->other + t->aborted > 0)
		(void)printf("; %llu seeds failed otherwise (%s %s), %llu aborted", (unsigned long long)t->other, t->other_by, t->other_text,
			     (unsigned long long)t->aborted);
	(void)printf("; the same seeds without it: %llu failed", (unsigned long long)(c->other + c->aborted));
	if (c->other > 0)
		(void)printf(" (%s %s)", c->other_by, c->other_text);
	(void)printf("; %.1f s\n", t->cpu_s + c->cpu_s);
	if (o->verbose && t->caught > 0)
		(void)printf("  %s\n", t->text);
	(void)fflush(stdout);
}

/* Its process has ended. Returns whether all is said of the mutant. */
static bool ended(struct job *j, const struct options *o, int status)
{
	struct tally *t = j->clean ? j->clean_t : j->t;

	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		t->aborted++;
		t->seeds++;
		if (!j->clean && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(table[j->m].caught, "CHECK")) {
			t->caught++;
			if (t->first == 0) {
				t->first = t->seed;
				(void)str_copy(t->first_by, sizeof(t->first_by), "CHECK");
			}
		}
		if (t->seed < j->to && (t->caught == 0 || o->count) && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
			return !start(j, o, t->seed + 1);
	}
	if (j->clean)
		return true;
	/* The same seeds with the rule in force. */
	j->clean = true;
	j->to = o->count || t->caught == 0 ? t->seed : t->first;
	return t->caught == 0 || !start(j, o, o->from);
}

static int play_all(const struct options *o)
{
	struct job job[MAX_JOBS] = { 0 };
	unsigned running = 0, bad = 0;
	enum mutant next = o->only ? o->only : 1, end = o->only ? o->only + 1 : MUTANT_COUNT;
	struct tally *all = mmap(NULL, sizeof(*all) * 2 * MUTANT_COUNT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	CHECK(all != MAP_FAILED);
	for (;;) {
		for (unsigned i = 0; i < o->jobs && next < end; i++) {
			if (job[i].pid != 0)
				continue;
			job[i] = (struct job){ .m = next, .clean = o->clean, .to = o->to, .t = &all[next], .clean_t = &all[MUTANT_COUNT + next] };
			CHECK(start(&job[i], o, o->from));
			running++;
			next++;
		}
		if (running == 0)
			break;
		pid = wait(&status);
		for (unsigned i = 0; i < o->jobs; i++) {
			if (pid <= 0 || job[i].pid != pid || !ended(&job[i], o, status))
				continue;
			report(&job[i], o);
			bad += !good(&job[i]);
			job[i].pid = 0;
			running--;
		}
	}
	return bad > 0;
}

static int list(void)
{
	for (enum mutant m = 1; m < MUTANT_COUNT; m++)
		(void)printf("%-28s %-18s %-9s %s\n", table[m].name, table[m].rule, table[m].caught, table[m].what);
	return 0;
}

static int usage(void)
{
	(void)fputs("usage: ha-sim-mutants --list\n"
		    "       ha-sim-mutants --all | --mutant NAME [--seeds A..B] [--count] [--hours H] [--profile fast|standard|safe] [--jobs J] [--json] [--verbose]\n"
		    "                      [--trace [--clean]]\n"
		    "Each mutant until it is caught, or, with --count, on all the seeds; then the same seeds without it. --clean: only those.\n",
		    stderr);
	return 64;
}

static bool parse_mutant(const char *name, enum mutant *ret)
{
	for (enum mutant m = 1; m < MUTANT_COUNT; m++)
		if (streq(table[m].name, name)) {
			*ret = m;
			return true;
		}
	return false;
}

static bool parse_seeds(const char *text, struct options *o)
{
	char *end;

	o->from = o->to = strtoull(text, &end, 10);
	if (end[0] == '.' && end[1] == '.')
		o->to = strtoull(end + 2, &end, 10);
	return *end == '\0' && end != text && o->to >= o->from && o->from > 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "list", no_argument, NULL, 'l' },        { "all", no_argument, NULL, 'a' },    { "mutant", required_argument, NULL, 'm' },
		{ "seeds", required_argument, NULL, 's' }, { "count", no_argument, NULL, 'c' },  { "hours", required_argument, NULL, 'h' },
		{ "jobs", required_argument, NULL, 'j' },  { "json", no_argument, NULL, 'J' },   { "verbose", no_argument, NULL, 'v' },
		{ "profile", required_argument, NULL, 'p' }, { "trace", no_argument, NULL, 't' },  { "clean", no_argument, NULL, 'C' },
		{ 0 },
	};
	struct options o = { .from = 1, .to = 400, .hours = 0.1, .jobs = 1, .profile = TIMING_FAST };
	enum timing_profile profile;
	bool all = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			return list();
		case 'a':
			all = true;
			break;
		case 'm':
			if (!parse_mutant(optarg, &o.only))
				return usage();
			break;
		case 's':
			if (!parse_seeds(optarg, &o))
				return usage();
			break;
		case 'c':
			o.count = true;
			break;
		case 'h':
			o.hours = strtod(optarg, NULL);
			break;
		case 'j':
			o.jobs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'J':
			o.json = true;
			break;
		case 'v':
			o.verbose = true;
			break;
		case 't':
			o.trace = true;
			break;
		case 'C':
			o.clean = true;
			break;
		case 'p':
			if (!timing_profile_parse(optarg, &profile))
				return usage();
			o.profile = (int)profile;
			break;
		default:
			return usage();
		}
	}
	if (optind != argc || all == (o.only != MUTANT_NONE) || o.jobs < 1 || o.jobs > MAX_JOBS || o.hours <= 0)
		return usage();
	log_init("ha-sim-mutants", LOG_LEVEL_WARNING);
	return play_all(&o);
}
