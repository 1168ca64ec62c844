/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transient units against a real systemd: run it as root where PID 1 is one that may be played with (units_in_container.sh).
 * test_units: everything; test_units survivor-start | survivor-check: a unit outlives the process that started it; test_units reexec: the
 * connection is lost and comes back; test_units reboot | poweroff: the host goes down, which must be the last. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/units.h"
#include "tests/tap.h"

#define WAIT_MS 20000
#define MANY 50
#define SURVIVOR 900 /* number of its unit */

static qb_loop_t *loop;
static struct units *units;

/* Answer of one call. */
struct answer {
	int calls;
	bool has_error, has_info;
	char error[256];
	struct unit_info info;
	int64_t began_us, ended_us;
	struct unit_info list[UNITS_MAX];
	size_t n_list;
};

static int64_t clock_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static const char *name(int n)
{
	static char text[4][37];
	static unsigned turn;
	char *s = text[turn++ % 4];

	(void)snprintf(s, sizeof(text[0]), "11111111-2222-4333-8444-%012x", (unsigned)n);
	return s;
}

static void on_done(void *user, const char *error, const struct unit_info *info)
{
	struct answer *a = user;

	a->calls++;
	a->ended_us = clock_us();
	a->has_error = error != NULL;
	a->has_info = info != NULL;
	(void)str_copy(a->error, sizeof(a->error), error ? error : "");
	if (info)
		a->info = *info;
}

static void on_list(void *user, const char *error, const struct unit_info *list, size_t n)
{
	struct answer *a = user;

	on_done(user, error, NULL);
	CHECK(n <= UNITS_MAX);
	if (n > 0)
		memcpy(a->list, list, n * sizeof(*list));
	a->n_list = n;
}

static void on_beat(void *user)
{
	qb_loop_stop(loop);
}

static void turn_loop(void)
{
	qb_loop_timer_handle timer;

	CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 5 * NS_PER_MS, NULL, on_beat, &timer) == 0);
	qb_loop_run(loop);
}

static bool await(const struct answer *a)
{
	int64_t end_us = clock_us() + WAIT_MS * US_PER_MS;

	while (a->calls == 0 && clock_us() < end_us)
		turn_loop();
	return a->calls == 1;
}

static void begin(struct answer *a)
{
	memset(a, 0, sizeof(*a));
	a->began_us = clock_us();
}

static bool start(int n, char *const argv[], struct answer *a)
{
	begin(a);
	return units_start(units, name(n), "a test", argv, -1, on_done, a) == 0 && await(a);
}

static bool query(int n, struct answer *a)
{
	begin(a);
	return units_query(units, name(n), on_done, a) == 0 && await(a) && !a->has_error && a->has_info;
}

static bool kill_unit(int n, int sig, struct answer *a)
{
	begin(a);
	return units_kill(units, name(n), sig, on_done, a) == 0 && await(a);
}

static bool query_until(int n, enum unit_state state, struct answer *a)
{
	int64_t end_us = clock_us() + WAIT_MS * US_PER_MS;

	while (query(n, a) && a->info.state != state && clock_us() < end_us)
		turn_loop();
	return a->info.state == state;
}

static bool file_has(pid_t pid, const char *file, const char *text)
{
	char path[64], line[1024];
	bool found = false;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		found |= strstr(line, text) != NULL;
	(void)fclose(f);
	return found;
}

/* What systemd says it holds for a unit. Whether limits and OOM score reach the process is up to the capabilities of the container. */
static bool shows(int n, const char *property)
{
	char command[256], line[1024];
	bool found = false;
	FILE *f;

	(void)snprintf(command, sizeof(command), "systemctl show " UNITS_PREFIX "%s.service", name(n));
	f = popen(command, "re");
	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		found |= streq(line, property);
	}
	CHECK(pclose(f) == 0);
	return found;
}

static void test_properties(void)
{
	static char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	static const char *const properties[] = {
		"Type=exec", "Slice=kvmha-vms.slice", "KillMode=process", "SendSIGKILL=no", "Restart=no", "OOMScoreAdjust=-500",
		"LimitMEMLOCK=infinity", "LimitMEMLOCKSoft=infinity", "LimitNOFILE=65536", "LimitNOFILESoft=65536", "CollectMode=inactive",
		"StandardOutput=journal", "StandardError=journal", "Transient=yes",
	};
	struct answer a;

	TAP_OK(start(7, sleeper, &a) && !a.has_error, "started");
	for (size_t i = 0; i < ARRAY_SIZE(properties); i++)
		TAP_OK(shows(7, properties[i]), "%s", properties[i]);
	TAP_OK(shows(7, "TimeoutStopUSec=20s"), "TimeoutStopUSec=20s");
	TAP_OK(system("systemctl show -P Before 'kvmha-vm-*' | grep -w ha-agent.service | grep -qw ha-leave.service") == 0, "Before=ha-agent.service ha-leave.service");
	TAP_OK(system("systemctl show -P After 'kvmha-vm-*' | grep -qw ha-keeper.service") == 0, "After=ha-keeper.service");
	(void)kill_unit(7, SIGKILL, &a);
}

static bool scope(int n, pid_t pid, struct answer *a)
{
	begin(a);
	return units_start_scope(units, name(n), "a foreign one", pid, on_done, a) == 0 && await(a);
}

static bool query_scope(int n, struct answer *a)
{
	begin(a);
	return units_query_scope(units, name(n), on_done, a) == 0 && await(a) && !a->has_error && a->has_info;
}

static bool kill_scope(int n, struct answer *a)
{
	begin(a);
	return units_kill_scope(units, name(n), SIGKILL, on_done, a) == 0 && await(a);
}

static pid_t sleeping_child(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		(void)execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(1);
	}
	return pid;
}

/* A process that something else has started: it is put where the units are, and killed there. */
static void test_scope(void)
{
	int64_t end_us = clock_us() + WAIT_MS * US_PER_MS;
	pid_t pid = sleeping_child(), other = sleeping_child();
	static struct answer a;
	int status, scopes = 0;

	TAP_OK(query_scope(400, &a) && a.info.state == UNIT_ABSENT, "a scope that never was is absent");
	TAP_OK(scope(400, pid, &a) && !a.has_error, "scope: %s", a.error);
	TAP_OK(file_has(pid, "cgroup", "/kvmha.slice/kvmha-vms.slice/kvmha-vm-11111111-2222-4333-8444-000000000190.scope"), "its process is in the slice");
	TAP_OK(query_scope(400, &a) && a.info.state == UNIT_RUNNING && a.info.is_scope, "query: it runs");
	TAP_OK(query(400, &a) && a.info.state == UNIT_ABSENT, "there is no service of that name");
	TAP_OK(scope(400, other, &a) && a.has_error && strstr(a.error, "already"), "a second one of it is refused: %s", a.error);
	TAP_OK(!file_has(other, "cgroup", "kvmha-vms.slice"), "and its process is left alone");
	begin(&a);
	TAP_OK(units_list(units, on_list, &a) == 0 && await(&a) && !a.has_error, "list: %s", a.error);
	for (size_t i = 0; i < a.n_list; i++)
		scopes += a.list[i].is_scope && a.list[i].state == UNIT_RUNNING && streq(a.list[i].uuid, name(400));
	TAP_OK(scopes == 1, "it is listed once");
	TAP_OK(system("systemctl show -P Slice,KillMode,SendSIGKILL 'kvmha-vm-*.scope' | tr '\n' ' ' | grep -q kvmha-vms.slice") == 0, "its slice, as systemd says");
	TAP_OK(kill_scope(400, &a) && !a.has_error && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "kill: %s", a.error);
	while (query_scope(400, &a) && a.info.state != UNIT_ABSENT && clock_us() < end_us)
		turn_loop();
	TAP_OK(a.info.state == UNIT_ABSENT, "killed: it is unloaded");
	TAP_OK(kill_scope(400, &a) && a.has_error, "kill of an absent one: %s", a.error);
	TAP_OK(scope(401, pid, &a) && a.has_error, "of a process that is gone: %s", a.error);
	(void)kill(other, SIGKILL);
	(void)waitpid(other, NULL, 0);
}

struct fate {
	int calls;
	bool has_error;
	enum units_fate fate;
};

static void on_fate(void *user, const char *error, enum units_fate fate)
{
	struct fate *f = user;

	f->calls++;
	f->has_error = error != NULL;
	f->fate = fate;
}

static bool fate_is(enum units_fate want)
{
	struct fate f = { 0 };

	if (units_fate(units, on_fate, &f) != 0)
		return false;
	while (f.calls == 0)
		turn_loop();
	return f.calls == 1 && !f.has_error && f.fate == want;
}

/* The last thing in this container: it goes down, as slowly as a unit of ours that is to end before all others. */
static void test_fate(const char *how, enum units_fate want)
{
	char command[100];

	TAP_OK(fate_is(UNITS_STAYS_UP), "nothing is being stopped");
	TAP_OK(system("systemd-run -q --unit=stays -p KillMode=process -p SendSIGKILL=no -p TimeoutStopSec=60 /bin/sh -c 'trap : TERM; while :; do sleep 1; done'") == 0,
	       "something that does not end");
	TAP_OK(system("systemctl stop --no-block stays") == 0 && fate_is(UNITS_STAYS_UP), "a unit's stop is not the host's");
	(void)snprintf(command, sizeof(command), "systemctl %s --no-block", how);
	TAP_OK(system(command) == 0 && fate_is(want), "%s", how);
}

static void test_life(void)
{
	static char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	struct answer a;
	pid_t pid;

	TAP_OK(query(1, &a) && a.info.state == UNIT_ABSENT && a.info.main_pid == 0, "a unit that never was is absent");
	TAP_OK(start(1, sleeper, &a) && !a.has_error && a.info.state == UNIT_RUNNING && a.info.main_pid > 0, "start: %s", a.error);
	printf("# first start to pid: %lld us\n", (long long)(a.ended_us - a.began_us));
	pid = a.info.main_pid;
	TAP_OK(pid > 0 && file_has(pid, "comm", "sleep"), "the pid is the program's");
	TAP_STR(a.info.description, "a test", "description");
	TAP_OK(file_has(pid, "cgroup", "/kvmha.slice/kvmha-vms.slice/kvmha-vm-11111111-2222-4333-8444-000000000001.service"), "in the slice");
	TAP_OK(query(1, &a) && a.info.state == UNIT_RUNNING && a.info.main_pid == pid, "query says the same");
	TAP_OK(start(1, sleeper, &a) && a.has_error && strstr(a.error, "already"), "a second start of it is refused: %s", a.error);
	TAP_OK(query(1, &a) && a.info.main_pid == pid, "and does not touch the first");
	TAP_OK(kill_unit(1, SIGKILL, &a) && !a.has_error, "kill");
	TAP_OK(query_until(1, UNIT_FAILED, &a) && a.info.exit_killed && a.info.exit_code == SIGKILL && a.info.main_pid == 0,
	       "killed: failed, and by which signal");
	TAP_OK(start(1, sleeper, &a) && !a.has_error && a.info.state == UNIT_RUNNING && a.info.main_pid != pid, "started again after the failure");
	TAP_OK(kill_unit(1, SIGTERM, &a) && !a.has_error && query_until(1, UNIT_ABSENT, &a), "SIGTERM is a clean end: unloaded");
	TAP_OK(kill_unit(1, SIGTERM, &a) && a.has_error && strstr(a.error, "not loaded"), "kill of an absent unit: %s", a.error);
}

static void test_exits(void)
{
	static char *const three[] = { "/bin/sh", "-c", "sleep 0.2; exit 3", NULL };
	static char *const zero[] = { "/bin/sh", "-c", "sleep 0.1", NULL };
	static char *const missing[] = { "/nonexistent/qemu", NULL };
	static char *const arguments[] = { "/bin/sh", "-c", "test \"$1\" = '$HOME ${x} $$ %n %% \\n \"' && test \"$2\" = '' && exec sleep 100",
					   "sh", "$HOME ${x} $$ %n %% \\n \"", "", NULL };
	struct answer a;

	TAP_OK(start(2, three, &a) && !a.has_error && query_until(2, UNIT_FAILED, &a) && !a.info.exit_killed && a.info.exit_code == 3,
	       "exit code");
	TAP_OK(start(3, zero, &a) && !a.has_error && query_until(3, UNIT_ABSENT, &a), "exit 0: unloaded");
	TAP_OK(start(4, missing, &a) && a.has_error && strstr(a.error, "203/EXEC"), "missing program: %s", a.error);
	TAP_OK(a.has_info && a.info.state == UNIT_FAILED && a.info.exit_code == 203, "with its exit code");
	TAP_OK(start(4, zero, &a) && !a.has_error, "the same unit with a program that exists: %s", a.error);
	TAP_OK(start(5, arguments, &a) && !a.has_error && query(5, &a) && a.info.state == UNIT_RUNNING, "arguments arrive as they were given");
	(void)poll(NULL, 0, 100);
	TAP_OK(query(5, &a) && a.info.state == UNIT_RUNNING && file_has(a.info.main_pid, "comm", "sleep"), "each of them");
	(void)kill_unit(5, SIGKILL, &a);
}

static pid_t listed(const struct answer *a, int n)
{
	for (size_t i = 0; i < a->n_list; i++)
		if (streq(a->list[i].uuid, name(n)))
			return a->list[i].main_pid;
	return 0;
}

/* KillMode=process, SendSIGKILL=no: what does not die by itself is left, and found. */
static void test_left_behind(void)
{
	static char *const leaves[] = { "/bin/sh", "-c", "sleep 1000 & sleep 0.2; exit 3", NULL };
	char command[128];
	struct answer a;
	pid_t left;

	TAP_OK(start(7, leaves, &a) && !a.has_error && query_until(7, UNIT_FAILED, &a) && a.info.main_pid != 0 && file_has(a.info.main_pid, "comm", "sleep"),
	       "a service that has failed, and left a process: which");
	left = a.info.main_pid;
	(void)snprintf(command, sizeof(command), "systemctl reset-failed " UNITS_PREFIX "%s.service", name(7));
	(void)system(command);
	TAP_OK(query(7, &a) && a.info.state != UNIT_FAILED && a.info.main_pid == left, "also when somebody has had that forgotten");
	begin(&a);
	TAP_OK(units_list(units, on_list, &a) == 0 && await(&a) && !a.has_error && listed(&a, 7) == left, "listed with it");
	(void)kill(left, SIGKILL);
	CHECK(query(7, &a));
	for (int i = 0; i < 200 && a.info.main_pid != 0; i++) {
		(void)poll(NULL, 0, 10);
		CHECK(query(7, &a));
	}
	TAP_OK(a.info.main_pid == 0, "then nothing is left");
}

/* For one start, and none that somebody else asks for. */
static void test_input(void)
{
	static char *const reads[] = { "/bin/sh", "-c", "read x && test $x = yes && exec sleep 1000", NULL };
	char command[128];
	struct answer a;
	int fd[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
	begin(&a);
	TAP_OK(units_start(units, name(8), "a test", reads, fd[1], on_done, &a) == 0 && await(&a) && !a.has_error, "started with an input");
	(void)close(fd[1]);
	CHECK(write(fd[0], "yes\n", 4) == 4);
	(void)poll(NULL, 0, 300);
	TAP_OK(query(8, &a) && a.info.state == UNIT_RUNNING && file_has(a.info.main_pid, "comm", "sleep"), "it is what the program reads");
	(void)kill_unit(8, SIGKILL, &a);
	CHECK(query_until(8, UNIT_FAILED, &a));
	(void)snprintf(command, sizeof(command), "systemctl start " UNITS_PREFIX "%s.service", name(8));
	(void)system(command);
	TAP_OK(query_until(8, UNIT_FAILED, &a) && !a.info.exit_killed && a.info.exit_code == 1, "started again by hand it has none");
	(void)close(fd[0]);
}

static void test_refused_at_once(void)
{
	static char *const relative[] = { "sleep", "1", NULL }, *const none[] = { NULL }, *const sleeper[] = { "/bin/sleep", "1", NULL };
	struct answer a;

	begin(&a);
	TAP_OK(units_start(units, "../../etc", "x", sleeper, -1, on_done, &a) == -EINVAL && units_query(units, "", on_done, &a) == -EINVAL &&
		       units_kill(units, "11111111-2222-4333-8444-00000000000g", SIGKILL, on_done, &a) == -EINVAL,
	       "no UUID, no call");
	TAP_OK(units_start(units, name(6), "x", relative, -1, on_done, &a) == -EINVAL && units_start(units, name(6), "x", none, -1, on_done, &a) == -EINVAL,
	       "no absolute path, no call");
	turn_loop();
	TAP_OK(a.calls == 0, "and no callback");
}

static void test_many(void)
{
	static char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	static struct answer answers[MANY], a;
	int ok = 0, running = 0, foreign = 0;
	int64_t began_us = clock_us(), sum_us = 0, max_us = 0;

	for (int i = 0; i < MANY; i++) {
		begin(&answers[i]);
		CHECK(units_start(units, name(100 + i), "one of many", sleeper, -1, on_done, &answers[i]) == 0);
	}
	for (int i = 0; i < MANY; i++)
		ok += await(&answers[i]) && !answers[i].has_error && answers[i].info.main_pid > 0;
	TAP_OK(ok == MANY, "%d of %d units at once", ok, MANY);
	printf("# %d at once: %lld us\n", MANY, (long long)(clock_us() - began_us));

	CHECK(system("systemctl -q reset-failed; systemd-run -q --unit=kvmha-vm-foreign /bin/sleep 1000") == 0);
	begin(&a);
	TAP_OK(units_list(units, on_list, &a) == 0 && await(&a) && !a.has_error, "list: %s", a.error);
	printf("# list of %zu: %lld us\n", a.n_list, (long long)(a.ended_us - a.began_us));
	for (size_t i = 0; i < a.n_list; i++) {
		running += a.list[i].state == UNIT_RUNNING && a.list[i].main_pid > 0 && streq(a.list[i].description, "one of many");
		foreign += strncmp(a.list[i].uuid, "11111111-", 9) != 0;
	}
	TAP_OK(running == MANY && foreign == 0, "%d running units listed, and no other's", running);
	CHECK(system("systemctl -q stop kvmha-vm-foreign.service") == 0);

	for (int i = 0; i < MANY; i++) {
		begin(&answers[i]);
		CHECK(units_kill(units, name(100 + i), SIGTERM, on_done, &answers[i]) == 0);
	}
	for (int i = ok = 0; i < MANY; i++)
		ok += await(&answers[i]) && !answers[i].has_error && query_until(100 + i, UNIT_ABSENT, &a);
	TAP_OK(ok == MANY, "all ended");
	for (int i = 0; i < 20; i++) {
		ok -= !(start(200, sleeper, &a) && !a.has_error);
		sum_us += a.ended_us - a.began_us;
		max_us = MAX(max_us, a.ended_us - a.began_us);
		(void)kill_unit(200, SIGKILL, &a);
		ok -= !query_until(200, UNIT_FAILED, &a);
	}
	TAP_OK(ok == MANY, "one after the other, the same unit 20 times");
	printf("# start to pid: mean %lld us, longest %lld us\n", (long long)(sum_us / 20), (long long)max_us);
}

static void free_units(void *user, const char *error, const struct unit_info *info)
{
	on_done(user, error, info);
	units_free(units);
	units = NULL;
}

static void test_free(void)
{
	struct answer a, b;

	begin(&a);
	begin(&b);
	CHECK(units_query(units, name(1), free_units, &a) == 0 && units_query(units, name(2), on_done, &b) == 0);
	TAP_OK(await(&a) && units == NULL, "freed in a callback");
	turn_loop();
	turn_loop();
	TAP_OK(b.calls == 0, "nothing comes after");
	CHECK(units_new(loop, &units) == 0 && units_query(units, name(2), on_done, &b) == 0);
	units_free(units);
	units_free(NULL);
	turn_loop();
	TAP_OK(b.calls == 0, "freed with a call under way");
	CHECK(units_new(loop, &units) == 0);
}

/* PID 1 executes itself anew: it hangs up on us, and the units stay. */
static void test_reexec(void)
{
	static char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	struct answer a, stuck;
	int64_t end_us = clock_us() + WAIT_MS * US_PER_MS;
	pid_t pid;
	int r;

	TAP_OK(start(300, sleeper, &a) && !a.has_error, "started");
	pid = a.info.main_pid;
	(void)kill(1, SIGTERM); /* systemd: re-execute */
	begin(&stuck);
	/* Ask until a question is caught by the loss. */
	while (!stuck.has_error && clock_us() < end_us) {
		begin(&stuck);
		if (units_query(units, name(300), on_done, &stuck) < 0)
			break;
		(void)await(&stuck);
	}
	TAP_OK(stuck.calls == 1 && streq(stuck.error, "lost the connection to systemd"), "a call under way ends: %s", stuck.error);
	do {
		begin(&a);
		r = units_query(units, name(300), on_done, &a);
		if (r == 0)
			(void)await(&a);
		else
			turn_loop();
	} while ((r < 0 || a.has_error) && clock_us() < end_us);
	TAP_OK(r == 0 && !a.has_error && a.info.state == UNIT_RUNNING && a.info.main_pid == pid, "connected again: the unit runs on");
	TAP_OK(start(301, sleeper, &a) && !a.has_error && a.info.main_pid > 0, "and a start works: %s", a.error);
	(void)kill_unit(300, SIGKILL, &a);
	(void)kill_unit(301, SIGKILL, &a);
}

int main(int argc, char **argv)
{
	static char *const sleeper[] = { "/bin/sleep", "1000", NULL };
	const char *part = argc > 1 ? argv[1] : "all";
	struct answer a;

	setvbuf(stdout, NULL, _IOLBF, 0);
	loop = qb_loop_create();
	CHECK(loop && units_new(loop, &units) == 0);
	if (streq(part, "survivor-start")) {
		TAP_OK(start(SURVIVOR, sleeper, &a) && !a.has_error && a.info.main_pid > 0, "survivor: started");
	} else if (streq(part, "survivor-check")) {
		TAP_OK(query(SURVIVOR, &a) && a.info.state == UNIT_RUNNING && a.info.main_pid > 0, "survivor: runs after its starter has gone");
		TAP_OK(kill_unit(SURVIVOR, SIGKILL, &a) && query_until(SURVIVOR, UNIT_FAILED, &a), "survivor: ended");
	} else if (streq(part, "reboot") || streq(part, "poweroff")) {
		test_fate(part, streq(part, "reboot") ? UNITS_REBOOTS : UNITS_GOES_DOWN);
	} else if (streq(part, "reexec")) {
		test_reexec();
	} else {
		test_life();
		test_properties();
		test_exits();
		test_left_behind();
		test_input();
		test_refused_at_once();
		test_scope();
		test_many();
		test_free();
	}
	units_free(units);
	qb_loop_destroy(loop);
	return tap_done();
}
