/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/runner.c while systemd does not tell whether a VM's QEMU lives: it is neither given up nor started anew until that is known. systemd's side is a process
 * with a real sd-bus server, which answers what the test wants or hangs up; QEMU is a process that sleeps; runner.c and units.c are the agent's own. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/base/process.h"
#include "agent/health.h"
#include "fence/launch.h"
#include "storage/format.h"
#include "tests/tap.h"

#define WAIT_MS 20000

enum answer { ANSWER_REFUSES, ANSWER_HANGS_UP, ANSWER_NONSENSE, ANSWER_RUNS, ANSWER_EXITED, ANSWER_KILLED, ANSWER_UNLOADED, ANSWER_QUEUED /* not begun, and systemd will */ };

/* Between the two processes. */
static volatile struct shared {
	int answer, pid, exit_code, left; /* left: a process in the control group of a unit that is over */
	int queries, starts, kills, connections;
	int hold; /* the answer to a start */
	int takes_kills;
	int refuses; /* the gate: a launcher ends at its agent's yes */
	int launcher, asks, told; /* the process that a start is to become; it may ask now; what the agent said, 'N' for nothing */
} *shared;

static qb_loop_t *loop;
static struct agentd d;
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_len;
static unsigned n_started, n_exits, n_cannot_tell, n_tries;
static enum vm_exit last_exit;
static enum qmp_run_state run_state; /* what QEMU has said last */
static bool qmp_is_there;
static struct qmp_conn *qmp_waits; /* a connection whose other end is not there yet */
static struct foreign_mark foreign_mark; /* pid 0: none */
static const struct qmp_callbacks *qmp_cb;
static void *qmp_user;
static struct vm vm = { .used = true, .term = 7 };

/* ---- the rest of the agent ---- */

void agentd_event(struct agentd *x, const struct agent_event *ev)
{
	n_started += ev->kind == AGENT_EV_STARTED;
	n_exits += ev->kind == AGENT_EV_EXIT;
	if (ev->kind == AGENT_EV_EXIT)
		last_exit = ev->exit;
}

void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("# %s\n", text);
	n_cannot_tell += strstr(text, "cannot tell whether its QEMU runs") != NULL;
}

struct health *health_new(struct agentd *x, const uint8_t uuid[16]) { return NULL; }
void health_free(struct health *h) {}
void health_qmp(struct health *h, struct qmp_conn *conn, enum qmp_run_state state) {}
void health_qmp_event(struct health *h, const struct qmp_event *ev) {}
enum qmp_run_state health_run_state(const struct health *h) { return run_state; }
void mover_adopted(struct mover *m, const uint8_t uuid[16]) {}
void mover_cannot(struct mover *m, const uint8_t uuid[16], const char *why) {}
void mover_forget(struct mover *m, const uint8_t uuid[16]) {}
void mover_incoming_ready(struct mover *m, const uint8_t uuid[16]) {}
int mover_mark(const uint8_t uuid[16]) { return 0; }
void mover_qmp_event(struct mover *m, const uint8_t uuid[16]) {}
void mover_unmark(const uint8_t uuid[16]) {}
bool foreign_in_scope(const uint8_t uuid[16], pid_t pid) { return true; }
void foreign_unmark(const uint8_t uuid[16]) { foreign_mark.pid = 0; }
bool foreign_marked(const uint8_t uuid[16], struct foreign_mark *ret)
{
	*ret = foreign_mark;
	return ret->pid != 0;
}

void peers_status_changed(struct peers *p) {}

/* ---- systemd ---- */

static int reply_properties(sd_bus_message *m)
{
	bool runs = shared->answer == ANSWER_RUNS, queued = shared->answer == ANSWER_QUEUED, unloaded = shared->answer == ANSWER_UNLOADED || queued;
	sd_bus_message *r = NULL;
	int e = sd_bus_message_new_method_return(m, &r);

	if (e >= 0)
		e = sd_bus_message_append(r, "a{sv}", 8, "Job", "(uo)", (uint32_t)queued, "/", "LoadState", "s", unloaded ? "not-found" : "loaded", "ActiveState", "s",
					  shared->answer == ANSWER_NONSENSE ? "confused" : runs ? "active" : unloaded ? "inactive" : "failed", "Description", "s", "a VM", "Result", "s",
					  runs ? "success" : "exit-code", "ExecMainCode", "i", (int32_t)(runs || unloaded ? 0 : shared->answer == ANSWER_KILLED ? CLD_KILLED : CLD_EXITED), "ExecMainStatus", "i",
					  (int32_t)shared->exit_code, "MainPID", "u", (uint32_t)(runs ? shared->pid : 0));
	if (e >= 0)
		e = sd_bus_send(NULL, r, NULL);
	(void)sd_bus_message_unref(r);
	return e < 0 ? e : 1;
}

static int reply_processes(sd_bus_message *m)
{
	sd_bus_message *r = NULL;
	int e = sd_bus_message_new_method_return(m, &r);

	if (e >= 0 && shared->left != 0)
		e = sd_bus_message_append(r, "a(sus)", 1, "/a", (uint32_t)shared->left, "qemu");
	else if (e >= 0)
		e = sd_bus_message_append(r, "a(sus)", 0);
	if (e >= 0)
		e = sd_bus_send(NULL, r, NULL);
	(void)sd_bus_message_unref(r);
	return e < 0 ? e : 1;
}

/* As ha-launch does it: asks when it may, and lives on a yes. */
static _Noreturn void be_launcher(int in)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	char what = LAUNCH_ASKS;
	struct iovec iov = { .iov_base = &what, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int self;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK(dup2(in, STDIN_FILENO) == STDIN_FILENO && close_range(3, ~0U, 0) == 0); /* the bus, too */
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	while (!shared->asks)
		(void)usleep(1000);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(self));
	memcpy(CMSG_DATA(c), &self, sizeof(self));
	if (sendmsg(STDIN_FILENO, &msg, MSG_NOSIGNAL) < 0 || recv(STDIN_FILENO, &what, 1, 0) != 1)
		what = 'N';
	shared->told = what;
	while (what == LAUNCH_YES && !shared->refuses)
		(void)pause();
	_exit(75);
}

static void take_start(sd_bus_message *m)
{
	const char *key;
	pid_t pid;
	int in = -1;

	CHECK(sd_bus_message_skip(m, "ss") >= 0 && sd_bus_message_enter_container(m, 'a', "(sv)") >= 0);
	while (in < 0 && sd_bus_message_enter_container(m, 'r', "sv") > 0) {
		CHECK(sd_bus_message_read(m, "s", &key) >= 0);
		if (streq(key, "StandardInputFileDescriptor"))
			CHECK(sd_bus_message_read(m, "v", "h", &in) >= 0);
		else
			CHECK(sd_bus_message_skip(m, "v") >= 0 && sd_bus_message_exit_container(m) >= 0);
	}
	CHECK(in >= 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		be_launcher(in);
	shared->launcher = pid;
}

static int on_call(sd_bus_message *m, void *user, sd_bus_error *error)
{
	bool *hangs_up = user, query = sd_bus_message_is_method_call(m, NULL, "GetAll"), start = sd_bus_message_is_method_call(m, NULL, "StartTransientUnit");
	bool kills = sd_bus_message_is_method_call(m, NULL, "KillUnit");

	if (!sd_bus_message_is_method_call(m, NULL, NULL))
		return 0;
	shared->queries += query;
	shared->starts += start;
	shared->kills += kills;
	if (start)
		take_start(m);
	while (start && shared->hold)
		(void)usleep(1000);
	if (sd_bus_message_is_method_call(m, NULL, "GetUnitProcesses"))
		return reply_processes(m);
	if ((query || start || kills) && shared->answer == ANSWER_HANGS_UP) {
		*hangs_up = true;
		return 1;
	}
	if (query && shared->answer != ANSWER_REFUSES)
		return reply_properties(m);
	if (query || start || (kills && !shared->takes_kills))
		return sd_bus_reply_method_errorf(m, "org.freedesktop.DBus.Error.NoReply", "made to fail");
	return sd_bus_reply_method_return(m, NULL); /* Subscribe, ResetFailedUnit */
}

static _Noreturn void be_systemd(int listener)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		sd_id128_t id = { .bytes = "test" };
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r = 0;
		sd_bus *bus = NULL;
		bool hangs_up = false;

		if (fd < 0)
			_exit(1);
		shared->connections++;
		if (sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, fd, fd) < 0 || sd_bus_set_server(bus, 1, id) < 0 || sd_bus_set_anonymous(bus, 1) < 0 ||
		    sd_bus_add_filter(bus, NULL, on_call, &hangs_up) < 0 || sd_bus_start(bus) < 0)
			_exit(1);
		while (!hangs_up && r >= 0) {
			r = sd_bus_process(bus, NULL);
			if (r == 0)
				r = sd_bus_wait(bus, UINT64_MAX);
		}
		(void)sd_bus_close_unref(bus);
	}
}

/* Not this machine's. */
int __wrap_sd_bus_set_address(sd_bus *bus, const char *text);
int __wrap_sd_bus_open_system(sd_bus **ret);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_qmp_conn_new(qb_loop_t *l, const char *path, uint32_t deadline_ms, const struct qmp_callbacks *cb, void *user, struct qmp_conn **ret);
int __wrap_sd_bus_set_address(sd_bus *bus, const char *text) { return -ENOENT; }
int __wrap_mkdir(const char *path, mode_t mode) { return 0; }

/* Its QMP socket is not there, or the test speaks for QEMU. */
int __wrap_qmp_conn_new(qb_loop_t *l, const char *path, uint32_t deadline_ms, const struct qmp_callbacks *cb, void *user, struct qmp_conn **ret)
{
	n_tries++;
	if (!qmp_is_there)
		return -ENOENT;
	qmp_cb = cb;
	qmp_user = user;
	*ret = qmp_waits;
	return 0;
}

void __real_qmp_conn_free(struct qmp_conn *c);
void __wrap_qmp_conn_free(struct qmp_conn *c);
void __wrap_qmp_conn_free(struct qmp_conn *c)
{
	if (c != qmp_waits)
		__real_qmp_conn_free(c);
}

int __wrap_sd_bus_open_system(sd_bus **ret)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0 && sd_bus_new(ret) >= 0);
	if (connect(fd, (struct sockaddr *)&address, address_len) < 0 || sd_bus_set_fd(*ret, fd, fd) < 0 || sd_bus_start(*ret) < 0)
		return -ECONNREFUSED;
	return 0;
}

/* ---- the tests ---- */

static void on_beat(void *user) { qb_loop_stop(loop); }

static void turn_loop(void)
{
	qb_loop_timer_handle timer;

	CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 5 * NS_PER_MS, NULL, on_beat, &timer) == 0);
	qb_loop_run(loop);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

#define UNTIL(cond)                                                                  \
	({                                                                           \
		int64_t end_ms = now_ms() + WAIT_MS;                                 \
		while (!(cond) && now_ms() < end_ms)                                 \
			turn_loop();                                                 \
		(cond);                                                              \
	})

static pid_t sleeper(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(1);
	}
	return pid;
}

static void end_sleeper(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void begin(enum answer answer, pid_t pid)
{
	shared->answer = (int)answer;
	shared->pid = pid;
	shared->exit_code = 0;
	shared->queries = shared->starts = shared->kills = 0;
	shared->left = shared->launcher = shared->asks = shared->told = 0;
	n_started = n_exits = n_cannot_tell = 0;
}

/* However systemd fails to tell: it is asked again, and what it says at last is believed. */
static void test_adopted(enum answer answer, const char *how)
{
	pid_t pid = sleeper();
	unsigned tries = n_tries;

	begin(answer, pid);
	runner_adopt(d.runner, &vm);
	TAP_OK(UNTIL(shared->queries >= 3), "%s: it is asked again and again", how);
	TAP_OK(n_exits == 0 && n_cannot_tell == 1, "%s: nobody takes it for dead, and it is said once", how);
	shared->answer = ANSWER_RUNS;
	TAP_OK(UNTIL(n_tries > tries) && n_exits == 0, "%s: systemd tells that it runs: QEMU is spoken to", how);
	end_sleeper(pid);
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == VM_EXIT_CRASH, "%s: its end is seen, as it is watched", how);
}

static void test_adopted_dead(void)
{
	pid_t pid = sleeper();

	end_sleeper(pid);
	begin(ANSWER_REFUSES, pid);
	runner_adopt(d.runner, &vm);
	TAP_OK(UNTIL(shared->queries >= 2) && n_exits == 0, "not told: not dead");
	shared->answer = ANSWER_RUNS;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1, "systemd names a process that is gone: it is dead");
	begin(ANSWER_REFUSES, 0);
	runner_adopt(d.runner, &vm);
	TAP_OK(UNTIL(shared->queries >= 2) && n_exits == 0, "not told: not dead");
	shared->answer = ANSWER_EXITED;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1, "its unit has failed: it is dead");
}

/* The answer to a start is lost: it may have been obeyed. */
static void test_started(void)
{
	pid_t pid = sleeper();
	unsigned tries = n_tries;

	begin(ANSWER_HANGS_UP, pid);
	runner_start(d.runner, &vm);
	TAP_OK(UNTIL(shared->starts == 1 && shared->queries >= 2), "the answer to a start is lost: systemd is asked for the unit");
	TAP_OK(n_exits == 0, "nobody takes it for dead");
	shared->answer = ANSWER_RUNS;
	TAP_OK(UNTIL(n_tries > tries) && n_exits == 0, "it was started, as systemd says at last: QEMU is spoken to");
	TAP_OK(shared->starts == 1, "and not a second time");
	end_sleeper(pid);
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == VM_EXIT_CRASH, "its end is seen");

	begin(ANSWER_REFUSES, 0);
	runner_start(d.runner, &vm);
	TAP_OK(UNTIL(shared->starts == 1 && shared->queries >= 2) && n_exits == 0, "the same with a refusal");
	shared->exit_code = 75;
	shared->answer = ANSWER_EXITED;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == VM_EXIT_REFUSED && n_started == 0, "it was started, and the gate was closed");
	TAP_OK(shared->starts == 1, "and not started again");
}

/* Systemd may come to a start long after its answer was due: then nobody waits for it any more. */
static void test_launcher(void)
{
	unsigned tries = n_tries;

	begin(ANSWER_REFUSES, 0);
	runner_start(d.runner, &vm);
	CHECK(UNTIL(shared->starts == 1 && shared->launcher != 0));
	shared->answer = ANSWER_QUEUED;
	shared->queries = 0;
	TAP_OK(UNTIL(shared->queries >= 2) && n_exits == 0, "systemd has not come to a start yet: it is waited for");
	shared->answer = ANSWER_UNLOADED;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1, "a start is given up");
	shared->asks = 1;
	TAP_OK(UNTIL(shared->told != 0) && shared->told == 'N', "its launcher comes later: refused");

	begin(ANSWER_REFUSES, 0);
	runner_start(d.runner, &vm);
	CHECK(UNTIL(shared->starts == 1 && shared->launcher != 0));
	shared->asks = 1;
	TAP_OK(UNTIL(shared->told != 0) && shared->told == LAUNCH_YES, "one that comes in time is let through");
	TAP_OK(UNTIL(n_tries > tries), "and spoken to");
	shared->answer = ANSWER_UNLOADED;
	(void)UNTIL(shared->queries >= 1);
	TAP_OK(n_exits == 0, "nobody takes it for dead while it lives, whatever systemd says");
	end_sleeper((pid_t)shared->launcher);
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1, "its end is seen");

	begin(ANSWER_REFUSES, 0);
	runner_start(d.runner, &vm);
	CHECK(UNTIL(shared->starts == 1 && shared->launcher != 0));
	runner_kill(d.runner, vm.def.uuid);
	(void)UNTIL(n_exits > 0);
	shared->asks = 1;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == VM_EXIT_CRASH, "killed before its launcher has asked: there is none, whether systemd answers or not");
	TAP_OK(UNTIL(shared->told != 0) && shared->told == 'N', "nor will there be: refused");
}

/* Refused at the gate it has ended before systemd answers to the start. */
static void test_refused_early(void)
{
	begin(ANSWER_REFUSES, 0);
	shared->refuses = 1;
	qmp_is_there = true;
	qmp_waits = (struct qmp_conn *)&qmp_waits;
	qmp_cb = NULL;
	shared->hold = 1;
	runner_start(d.runner, &vm);
	CHECK(UNTIL(shared->starts == 1 && shared->launcher != 0));
	shared->asks = 1;
	CHECK(UNTIL(qmp_cb != NULL && shared->told == LAUNCH_YES));
	CHECK(UNTIL(process_start((pid_t)shared->launcher) == 0));
	shared->exit_code = 75;
	shared->answer = ANSWER_EXITED;
	shared->hold = 0;
	TAP_OK(UNTIL(n_exits > 0) && last_exit == VM_EXIT_REFUSED, "refused before systemd's answer: told as that");
	for (int i = 0; i < 60; i++)
		turn_loop();
	TAP_OK(n_exits == 1, "and once");
	qmp_is_there = false;
	qmp_waits = NULL;
	shared->refuses = 0;
}

/* A QEMU that does not end is in a unit that has failed, in time. */
static void test_left_behind(void)
{
	pid_t pid = sleeper(), other = sleeper();
	unsigned tries = n_tries;

	begin(ANSWER_EXITED, 0);
	shared->left = pid;
	runner_adopt(d.runner, &vm);
	TAP_OK(UNTIL(n_tries > tries) && n_exits == 0, "its unit has failed, and its process is there: QEMU is spoken to");
	tries = n_tries;
	shared->left = other;
	end_sleeper(pid);
	TAP_OK(UNTIL(n_tries > tries) && n_exits == 0, "it ends, and another one is left: that may be QEMU");
	shared->left = 0;
	end_sleeper(other);
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1, "the end of the last is seen");
}

/* What QEMU has said before it ended, and what systemd says of its end. "!": it was not heard, but its state is `shutdown`; "+": the guest was reset, and runs again. */
static void test_ends(void)
{
	static const struct {
		const char *say[4];
		enum answer end;
		int exit_code;
		enum vm_exit how;
		const char *text;
	} table[] = {
		{ { "guest-shutdown" }, ANSWER_UNLOADED, 0, VM_EXIT_GUEST_OFF, "powered off" },
		{ { "guest-shutdown" }, ANSWER_KILLED, SIGKILL, VM_EXIT_OFF_KILLED, "powered off, and killed before it has ended" },
		{ { "guest-shutdown" }, ANSWER_EXITED, 1, VM_EXIT_OFF_KILLED, "powered off, and ended with 1" },
		{ { "guest-shutdown" }, ANSWER_REFUSES, 0, VM_EXIT_OFF_KILLED, "powered off, and systemd does not say how it ended" },
		{ { "host-qmp-quit" }, ANSWER_UNLOADED, 0, VM_EXIT_QUIT, "told to quit" },
		{ { "host-qmp-quit" }, ANSWER_KILLED, SIGKILL, VM_EXIT_CRASH, "told to quit, and killed before it has ended" },
		{ { "guest-shutdown", "!", "host-qmp-quit" }, ANSWER_UNLOADED, 0, VM_EXIT_GUEST_OFF, "powered off, kept by -no-shutdown, then told to quit" },
		{ { "guest-reset", "!", "host-qmp-quit" }, ANSWER_UNLOADED, 0, VM_EXIT_RESET, "rebooted under -no-reboot, kept, then told to quit" },
		{ { "!", "host-qmp-quit" }, ANSWER_UNLOADED, 0, VM_EXIT_GUEST_OFF, "found powered off, told to quit" },
		{ { "!" }, ANSWER_KILLED, SIGKILL, VM_EXIT_OFF_KILLED, "found powered off, and killed" },
		{ { "guest-shutdown", "!", "+" }, ANSWER_KILLED, SIGKILL, VM_EXIT_CRASH, "powered off, kept, reset and continued by somebody: it crashes like any other" },
		{ { "guest-shutdown", "!", "+", "host-qmp-quit" }, ANSWER_UNLOADED, 0, VM_EXIT_QUIT, "the same, told to quit" },
	};
	static const struct {
		const char *say;
		enum vm_exit how;
	} foreign[] = { { "guest-shutdown", VM_EXIT_OFF_KILLED }, { "host-signal", VM_EXIT_CRASH }, { "guest-reset", VM_EXIT_RESET } };

	qmp_is_there = true;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		pid_t pid = sleeper();

		begin(ANSWER_RUNS, pid);
		run_state = QMP_RUN_RUNNING;
		qmp_cb = NULL;
		runner_adopt(d.runner, &vm);
		CHECK(UNTIL(qmp_cb != NULL));
		for (size_t j = 0; j < ARRAY_SIZE(table[i].say) && table[i].say[j]; j++) {
			const char *s = table[i].say[j];
			struct qmp_event ev = { .kind = QMP_EVENT_SHUTDOWN, .guest = strncmp(s, "guest", 5) == 0, .reason = s };

			if (streq(s, "!")) {
				run_state = QMP_RUN_SHUTDOWN;
				continue;
			}
			if (streq(s, "+")) {
				run_state = QMP_RUN_RUNNING;
				ev = (struct qmp_event){ .kind = QMP_EVENT_RESET, .reason = "host-qmp-system-reset" };
				qmp_cb->event(qmp_user, &ev);
				ev.kind = QMP_EVENT_RESUME;
			}
			qmp_cb->event(qmp_user, &ev);
		}
		shared->exit_code = table[i].exit_code;
		shared->answer = (int)table[i].end;
		end_sleeper(pid);
		TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == table[i].how, "%s", table[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		const struct qmp_event ev = { .kind = QMP_EVENT_SHUTDOWN, .guest = strncmp(foreign[i].say, "guest", 5) == 0, .reason = foreign[i].say };
		pid_t pid = sleeper();

		begin(ANSWER_UNLOADED, pid);
		run_state = QMP_RUN_RUNNING;
		qmp_cb = NULL;
		foreign_mark = (struct foreign_mark){ .pid = pid, .start = process_start(pid), .socket = "/tmp/none" };
		runner_adopt(d.runner, &vm);
		CHECK(UNTIL(qmp_cb != NULL));
		qmp_cb->event(qmp_user, &ev);
		end_sleeper(pid);
		TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == foreign[i].how, "%s of one that something else started: nobody knows how it ended", foreign[i].say);
	}
	qmp_is_there = false;
}

/* It is to be killed, and systemd cannot be asked, or does not do it: the process that is watched is. */
static void test_killed(enum answer answer, const char *how)
{
	pid_t pid = sleeper();
	unsigned tries = n_tries;

	begin(ANSWER_RUNS, pid);
	runner_adopt(d.runner, &vm);
	(void)UNTIL(n_tries > tries);
	shared->answer = (int)answer;
	runner_kill(d.runner, vm.def.uuid);
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && waitpid(pid, NULL, WNOHANG) == pid, "killed, though systemd %s", how);
	shared->answer = ANSWER_RUNS;
}

/* Found running with nobody to look after it: systemd is told until it takes it, or nothing is there any more, or what is there is a VM's. */
static void test_other(void)
{
	pid_t pid = sleeper();
	unsigned tries = n_tries;
	int kills;

	begin(ANSWER_REFUSES, pid);
	runner_kill(d.runner, vm.def.uuid);
	runner_kill(d.runner, vm.def.uuid);
	TAP_OK(UNTIL(shared->kills == 1 && shared->queries >= 1), "a QEMU that is nobody's is not killed, as systemd refuses: it is looked at again");
	shared->takes_kills = 1;
	shared->answer = ANSWER_RUNS;
	TAP_OK(UNTIL(shared->kills == 2), "it is there still: killed again");
	for (int64_t end_ms = now_ms() + 1500; now_ms() < end_ms;)
		turn_loop();
	TAP_OK(shared->kills == 2, "which systemd has taken: that is all");
	shared->takes_kills = 0;

	begin(ANSWER_HANGS_UP, pid);
	runner_kill(d.runner, vm.def.uuid);
	CHECK(UNTIL(shared->kills >= 1));
	begin(ANSWER_UNLOADED, 0);
	TAP_OK(UNTIL(shared->queries >= 1) && shared->kills == 0, "gone meanwhile: nothing is left to be killed");

	begin(ANSWER_REFUSES, pid);
	runner_kill(d.runner, vm.def.uuid);
	CHECK(UNTIL(shared->kills >= 1));
	kills = shared->kills;
	shared->answer = ANSWER_RUNS;
	runner_adopt(d.runner, &vm);
	CHECK(UNTIL(n_tries > tries));
	for (int64_t end_ms = now_ms() + 1500; now_ms() < end_ms;)
		turn_loop();
	TAP_OK(shared->kills == kills && n_exits == 0, "it has become a VM's: left alone");
	end_sleeper(pid);
	CHECK(UNTIL(n_exits > 0));
}

/* It has said that it ends: what it leaves unproven (agent/base/held.h) is forgotten if its unit says that it was not killed after that. */
static void test_left(enum answer answer, bool forgotten, const char *how)
{
	const struct qmp_event shutdown = { .kind = QMP_EVENT_SHUTDOWN, .guest = true, .reason = "guest-shutdown" };
	uint32_t mark = format_vm_mark(vm.def.uuid);
	char dir[] = "/tmp/kvm-ha-runner-XXXXXX", note[128];
	pid_t pid = sleeper();
	FILE *f;

	CHECK(mkdtemp(dir));
	(void)snprintf(note, sizeof(note), "%s/%08x-%d-%" PRIu64 "-1", dir, mark, (int)pid, process_start(pid));
	f = fopen(note, "we");
	CHECK(f && fputs("none 0:1 1 /srv/disk\n", f) >= 0 && fclose(f) == 0);
	held_use(dir, "/proc");
	begin(ANSWER_RUNS, pid);
	run_state = QMP_RUN_RUNNING;
	qmp_cb = NULL;
	qmp_is_there = true;
	runner_start(d.runner, &vm);
	CHECK(UNTIL(qmp_cb != NULL));
	qmp_cb->event(qmp_user, &shutdown);
	qmp_is_there = false;
	end_sleeper(pid);
	TAP_OK(UNTIL(shared->queries >= 4) && n_exits == 0, "%s: nothing is told while systemd says that it runs", how);
	shared->answer = (int)answer;
	TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == (forgotten ? VM_EXIT_GUEST_OFF : VM_EXIT_OFF_KILLED), "%s: that is told%s", how, forgotten ? "" : ", with the guest's word");
	TAP_OK(held_quiet(HELD_FOR_NEXT, mark, NULL, 0) == forgotten, "%s: its note is %s", how, forgotten ? "forgotten" : "kept");
	(void)unlink(note);
	CHECK(rmdir(dir) == 0);
}

/* One that has given its disks away, or never had them, leaves nothing unproven, however it ends. */
static void test_inactive(void)
{
	static const struct {
		bool incoming, gave, resumed, told_on, forgotten;
		const char *text;
	} table[] = {
		{ .text = "killed" },
		{ .gave = true, .forgotten = true, .text = "killed after its guest was sent" },
		{ .gave = true, .resumed = true, .text = "the same, let run again by somebody" },
		{ .gave = true, .told_on = true, .text = "the same, told to go on after all" },
		{ .incoming = true, .forgotten = true, .text = "waited for a guest" },
		{ .incoming = true, .told_on = true, .text = "waited, and was told to let its guest go on" },
	};
	uint32_t mark = format_vm_mark(vm.def.uuid);
	char dir[] = "/tmp/kvm-ha-runner-XXXXXX", note[128];

	CHECK(mkdtemp(dir));
	held_use(dir, "/proc");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct qmp_event resume = { .kind = QMP_EVENT_RESUME };
		pid_t pid = sleeper();
		FILE *f;

		(void)snprintf(note, sizeof(note), "%s/%08x-%d-%" PRIu64 "-1", dir, mark, (int)pid, process_start(pid));
		f = fopen(note, "we");
		CHECK(f && fputs("none 0:1 1 /srv/disk\n", f) >= 0 && fclose(f) == 0);
		begin(ANSWER_RUNS, pid);
		run_state = QMP_RUN_RUNNING;
		qmp_cb = NULL;
		qmp_is_there = true;
		(table[i].incoming ? runner_incoming : runner_start)(d.runner, &vm);
		CHECK(UNTIL(qmp_cb != NULL));
		if (table[i].gave)
			runner_inactive(d.runner, vm.def.uuid, true);
		if (table[i].resumed)
			qmp_cb->event(qmp_user, &resume);
		if (table[i].told_on)
			runner_inactive(d.runner, vm.def.uuid, false);
		qmp_is_there = false;
		shared->answer = ANSWER_KILLED;
		end_sleeper(pid);
		TAP_OK(UNTIL(n_exits > 0) && n_exits == 1 && last_exit == VM_EXIT_CRASH && held_quiet(HELD_FOR_NEXT, mark, NULL, 0) == table[i].forgotten, "%s: its note is %s", table[i].text,
		       table[i].forgotten ? "forgotten" : "kept");
		(void)unlink(note);
	}
	CHECK(rmdir(dir) == 0);
}

int main(void)
{
	static const char file[] = "[VM]\nName=web\nUUID=11111111-2222-4333-8444-000000000001\nMemory=32M\nVCPUs=1\n[QEMU]\nBinary=/bin/sleep\nArguments=1000\n";
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char err[256] = "";
	pid_t systemd;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED && listener >= 0);
	address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
				  (size_t)snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "kvm-ha-test-runner-%d", (int)getpid()));
	CHECK(bind(listener, (struct sockaddr *)&address, address_len) == 0 && listen(listener, 5) == 0);
	systemd = fork();
	CHECK(systemd >= 0);
	if (systemd == 0)
		be_systemd(listener);
	log_init("test_runner", LOG_LEVEL_ERR);
	loop = d.loop = qb_loop_create();
	d.catalog = catalog_new();
	CHECK(loop && d.catalog && catalog_add(d.catalog, file, sizeof(file) - 1, err, sizeof(err)) == 0);
	memcpy(vm.def.uuid, d.catalog->entry[0].uuid, 16);
	(void)str_copy(vm.def.name, sizeof(vm.def.name), "web");
	CHECK(units_new(loop, &d.units) == 0 && runner_new(&d, &d.runner) == 0);
	test_adopted(ANSWER_REFUSES, "systemd refuses");
	test_adopted(ANSWER_HANGS_UP, "systemd hangs up");
	test_adopted(ANSWER_NONSENSE, "systemd says what we do not understand");
	test_adopted_dead();
	test_started();
	test_launcher();
	test_refused_early();
	test_left_behind();
	test_ends();
	test_killed(ANSWER_REFUSES, "refuses");
	test_killed(ANSWER_HANGS_UP, "hangs up");
	test_other();
	test_left(ANSWER_UNLOADED, true, "it ends with 0");
	test_left(ANSWER_KILLED, false, "it is killed");
	test_left(ANSWER_EXITED, false, "it fails");
	test_inactive();
	(void)kill(systemd, SIGKILL);
	(void)waitpid(systemd, NULL, 0);
	return tap_done();
}
