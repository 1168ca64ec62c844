/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP connection against real QEMU processes (TCG, no disk: the firmware finds nothing to boot, which is all we need). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "qmp/meaning.h"
#include "qmp/migrate.h"
#include "tests/tap.h"

#define QEMU_DEFAULT "/usr/bin/qemu-system-x86_64" /* KVM_HA_TEST_QEMU: another one */
#define HANDSHAKE_MS 20000
#define WAIT_MS 20000 /* a machine under load; a condition that holds is seen at once */

/* One QEMU, one connection, and what was heard. */
struct rig {
	qb_loop_t *loop;
	char path[64];
	pid_t pid;
	struct qmp_conn *conn;
	int ready, closed, replies;
	enum qmp_run_state state;
	char version[32], reason[128], error[128], result[512];
	unsigned events; /* bit mask of qmp_event_kind */
	struct qmp_event shutdown;
	char shutdown_reason[64];
	bool closed_before_reply, free_in_ready;
	int order;
	int64_t began_ms, ended_ms;
};

static int64_t clock_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static void on_ready(void *user, enum qmp_run_state state, const char *version)
{
	struct rig *r = user;

	r->ready++;
	r->state = state;
	(void)str_copy(r->version, sizeof(r->version), version);
	if (r->free_in_ready) {
		qmp_conn_free(r->conn);
		r->conn = NULL;
	}
}

static void on_event(void *user, const struct qmp_event *ev)
{
	struct rig *r = user;

	r->events |= 1U << ev->kind;
	if (ev->kind == QMP_EVENT_SHUTDOWN) {
		r->shutdown.guest = ev->guest;
		(void)str_copy(r->shutdown_reason, sizeof(r->shutdown_reason), ev->reason);
		r->shutdown.reason = r->shutdown_reason;
	}
}

static void on_closed(void *user, const char *reason)
{
	struct rig *r = user;

	r->closed++;
	r->ended_ms = clock_ms();
	(void)str_copy(r->reason, sizeof(r->reason), reason);
}

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct rig *r = user;

	r->replies++;
	r->ended_ms = clock_ms();
	r->closed_before_reply |= r->closed > 0;
	(void)str_copy(r->error, sizeof(r->error), error ? error : "");
	(void)str_copy(r->result, sizeof(r->result), ret ? json_object_to_json_string(ret) : "");
}

static const struct qmp_callbacks callbacks = { on_ready, on_event, on_closed };

static void on_beat(void *user)
{
	qb_loop_stop(user);
}

/* Turns the loop until the condition holds; false after WAIT_MS. */
static bool run_until(struct rig *r, bool (*holds)(const struct rig *r), int64_t limit_ms)
{
	int64_t end_ms = clock_ms() + limit_ms;

	while (!holds(r) && clock_ms() < end_ms) {
		qb_loop_timer_handle timer;

		CHECK(qb_loop_timer_add(r->loop, QB_LOOP_LOW, 5 * NS_PER_MS, r->loop, on_beat, &timer) == 0);
		qb_loop_run(r->loop);
	}
	return holds(r);
}

static bool is_ready(const struct rig *r) { return r->ready > 0 || r->closed > 0; }
static bool is_closed(const struct rig *r) { return r->closed > 0; }
static bool is_replied(const struct rig *r) { return r->replies > 0; }
static bool is_stopped(const struct rig *r) { return (r->events & 1U << QMP_EVENT_STOP) && r->replies > 0; }
static bool is_resumed(const struct rig *r) { return (r->events & 1U << QMP_EVENT_RESUME) && r->replies > 0; }
static bool is_reset(const struct rig *r) { return (r->events & 1U << QMP_EVENT_RESET) && r->replies > 0; }
static bool is_never(const struct rig *r) { return false; }

static void rig_connect(struct rig *r, uint32_t deadline_ms)
{
	r->began_ms = clock_ms();
	CHECK(qmp_conn_new(r->loop, r->path, deadline_ms, &callbacks, r, &r->conn) == 0);
}

static void rig_init(struct rig *r, const char *dir, const char *name)
{
	*r = (struct rig){ .loop = qb_loop_create() };
	CHECK(r->loop);
	(void)snprintf(r->path, sizeof(r->path), "%s/%s", dir, name);
}

static void qemu_start(struct rig *r, bool paused)
{
	const char *other = getenv("KVM_HA_TEST_QEMU"), *qemu = other ? other : QEMU_DEFAULT;
	char qmp[128];

	(void)snprintf(qmp, sizeof(qmp), "unix:%s,server=on,wait=off", r->path);
	r->pid = fork();
	CHECK(r->pid >= 0);
	if (r->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(qemu, qemu, "-M", "q35", "-accel", "tcg", "-m", "32", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", qmp,
		      paused ? "-S" : NULL, (char *)NULL);
		_exit(127);
	}
}

/* Exit status as waitpid() gives it; the process is ended for certain if kill_it is set. */
static int qemu_wait(struct rig *r, bool kill_it)
{
	int status = -1;

	if (r->pid <= 0)
		return -1;
	if (kill_it)
		(void)kill(r->pid, SIGKILL);
	while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
		;
	r->pid = 0;
	return status;
}

/* Returns when every thread of it stands: the signal alone lets them run on for a moment. */
static void qemu_stop(const struct rig *r)
{
	int status;

	CHECK(kill(r->pid, SIGSTOP) == 0);
	CHECK(waitpid(r->pid, &status, WUNTRACED) == r->pid && WIFSTOPPED(status));
}

static void rig_deinit(struct rig *r)
{
	qmp_conn_free(r->conn);
	(void)qemu_wait(r, true);
	qb_loop_destroy(r->loop);
	(void)unlink(r->path);
}

static void execute(struct rig *r, const char *command, uint32_t timeout_ms)
{
	r->replies = 0;
	r->error[0] = r->result[0] = '\0';
	CHECK(qmp_conn_execute(r->conn, command, NULL, timeout_ms, on_reply, r) == 0);
}

static void test_conversation(const char *dir)
{
	struct rig r;
	int status;

	rig_init(&r, dir, "talk");
	rig_connect(&r, HANDSHAKE_MS); /* nobody is there yet */
	TAP_OK(qmp_conn_peer_pid(r.conn) == 0 && qmp_conn_execute(r.conn, "stop", NULL, 1, on_reply, &r) == -ENOTCONN, "not connected at first");
	TAP_OK(!run_until(&r, is_never, 120) && r.ready == 0 && r.closed == 0, "no socket: it waits");
	qemu_start(&r, false);
	TAP_OK(run_until(&r, is_ready, WAIT_MS) && r.ready == 1 && r.state == QMP_RUN_RUNNING && r.version[0] >= '1',
	       "connects once QEMU is there: running, version %s", r.version);
	TAP_OK(qmp_conn_peer_pid(r.conn) == r.pid, "the peer is QEMU");

	execute(&r, "query-status", WAIT_MS);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && strstr(r.result, "\"running\""), "query-status: %s", r.result);
	execute(&r, "no-such-command", WAIT_MS);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && strstr(r.error, "no-such-command"), "QEMU's own words: %s", r.error);
	execute(&r, "query-qmp-schema", WAIT_MS);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && !*r.error && strlen(r.result) == sizeof(r.result) - 1, "a long answer comes through");
	execute(&r, "stop", WAIT_MS);
	TAP_OK(run_until(&r, is_stopped, WAIT_MS), "stop: STOP");
	execute(&r, "query-status", WAIT_MS);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && strstr(r.result, "\"paused\""), "and paused");
	execute(&r, "cont", WAIT_MS);
	TAP_OK(run_until(&r, is_resumed, WAIT_MS), "cont: RESUME");
	execute(&r, "system_reset", WAIT_MS);
	TAP_OK(run_until(&r, is_reset, WAIT_MS), "system_reset: RESET");
	execute(&r, "quit", WAIT_MS);
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && r.closed == 1 && streq(r.shutdown_reason, "host-qmp-quit") && !r.shutdown.guest &&
		       qmp_meaning_ending(&r.shutdown) == QMP_ENDING_HOST_STOP,
	       "quit: SHUTDOWN %s, then closed (%s)", r.shutdown_reason, r.reason);
	TAP_OK(r.replies == 1 && !r.closed_before_reply, "and the command has ended before");
	TAP_OK(qmp_conn_execute(r.conn, "stop", NULL, 1, on_reply, &r) == -ENOTCONN, "no command after the end");
	status = qemu_wait(&r, false);
	TAP_OK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "QEMU exited with 0");
	rig_deinit(&r);
}

static void test_hung(const char *dir)
{
	struct rig r;
	int64_t ms;

	rig_init(&r, dir, "hung");
	qemu_start(&r, true);
	rig_connect(&r, HANDSHAKE_MS);
	TAP_OK(run_until(&r, is_ready, WAIT_MS) && r.state == QMP_RUN_PRELAUNCH, "-S: prelaunch");
	qemu_stop(&r);
	r.began_ms = clock_ms();
	execute(&r, "query-status", 300);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && streq(r.error, "timeout") && r.closed == 0, "stopped QEMU: the command times out");
	ms = r.ended_ms - r.began_ms;
	TAP_OK(ms >= 300, "not before its deadline (%lld of 300 ms)", (long long)ms);
	(void)kill(r.pid, SIGCONT);
	execute(&r, "query-status", WAIT_MS);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && strstr(r.result, "prelaunch"), "it goes on: the next command is answered, not the late one");

	/* We stand still, QEMU answers meanwhile: the deadline has passed, but that is our fault. */
	execute(&r, "query-status", 50);
	(void)poll(NULL, 0, 400);
	TAP_OK(run_until(&r, is_replied, WAIT_MS) && strstr(r.result, "prelaunch"), "an answer that waits in the socket beats a passed deadline");

	qmp_conn_free(r.conn);
	qemu_stop(&r);
	r.conn = NULL;
	rig_connect(&r, 400);
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && streq(r.reason, "timeout: no greeting") && r.ready == 1,
	       "stopped QEMU takes a connection and says nothing: %s", r.reason);
	ms = r.ended_ms - r.began_ms;
	TAP_OK(ms >= 400, "not before its deadline (%lld of 400 ms)", (long long)ms);
	TAP_OK(qmp_conn_peer_pid(r.conn) == r.pid, "whose pid is known all the same");
	rig_deinit(&r);
}

static void test_killed(const char *dir)
{
	struct rig r;

	rig_init(&r, dir, "kill");
	qemu_start(&r, true);
	rig_connect(&r, HANDSHAKE_MS);
	TAP_OK(run_until(&r, is_ready, WAIT_MS) && r.ready == 1, "ready");
	qemu_stop(&r);
	execute(&r, "query-status", WAIT_MS);
	(void)qemu_wait(&r, true);
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && r.closed == 1 && r.replies == 1 && streq(r.error, "disconnected") && !r.closed_before_reply,
	       "SIGKILL: the command is disconnected, then closed (%s)", r.reason);
	TAP_OK(r.shutdown.reason == NULL && qmp_meaning_ending(NULL) == QMP_ENDING_CRASH, "no SHUTDOWN: a crash");
	qmp_conn_free(r.conn);
	r.conn = NULL;
	r.closed = 0;
	rig_connect(&r, 300); /* the socket's file is still there, nobody listens */
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && r.closed == 1 && strstr(r.reason, "Connection refused"), "a dead socket: %s", r.reason);
	TAP_OK(r.ended_ms - r.began_ms >= 300, "after trying until the deadline");
	rig_deinit(&r);
}

static void test_second_client(const char *dir)
{
	struct rig r, second;

	rig_init(&r, dir, "two");
	qemu_start(&r, true);
	rig_connect(&r, HANDSHAKE_MS);
	TAP_OK(run_until(&r, is_ready, WAIT_MS) && r.ready == 1, "first client ready");
	rig_init(&second, dir, "two");
	qb_loop_destroy(second.loop);
	second.loop = r.loop;
	rig_connect(&second, WAIT_MS);
	TAP_OK(!run_until(&second, is_ready, 300), "second client waits");
	second.free_in_ready = true;
	qmp_conn_free(r.conn);
	r.conn = NULL;
	TAP_OK(run_until(&second, is_ready, WAIT_MS) && second.ready == 1, "and is served when the first one has gone");
	TAP_OK(!run_until(&second, is_never, 50) && second.conn == NULL && second.closed == 0, "freed in its callback: nothing comes after");
	rig_deinit(&r);
}

/* What no QEMU would do, over a socket pair of our own making: a listener in this process. */
static void test_hostile_peer(const char *dir)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct rig r;
	int fd, peer;
	char noise[8192];
	size_t sent = 0;

	rig_init(&r, dir, "hostile");
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", r.path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	rig_connect(&r, HANDSHAKE_MS);
	TAP_OK(!run_until(&r, is_ready, 60), "no greeting yet");
	peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	CHECK(peer >= 0);
	memset(noise, '[', sizeof(noise));
	for (int i = 0; i < 10000 && r.closed == 0; i++) {
		ssize_t n = send(peer, noise, sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);

		sent += n > 0 ? (size_t)n : 0;
		(void)run_until(&r, is_never, 0);
		if (n < 0)
			(void)run_until(&r, is_closed, 10);
	}
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && streq(r.reason, "line too long") && sent <= QMP_MAX_LINE + (1U << 20),
	       "a line without end is refused: %s after at most %zu bytes", r.reason, sent);
	(void)close(peer);
	(void)close(fd);
	rig_deinit(&r);
}

/* A QEMU's answers: every command is taken, but migrate-continue only if it waits for that in this state. */
struct stand_in {
	int fd;
	const char *waits;
	char heard[512];
	const char *refuses; /* NULL: no other command */
};

static void answer(struct stand_in *s, const char *line)
{
	json_object *o = json_tokener_parse(line), *command = NULL, *id = NULL, *args = NULL, *state = NULL;
	const char *name, *wanted = "";
	char text[256];
	size_t used = strlen(s->heard);
	bool refused;

	CHECK(o && json_object_object_get_ex(o, "execute", &command) && json_object_object_get_ex(o, "id", &id));
	name = json_object_get_string(command);
	if (json_object_object_get_ex(o, "arguments", &args) && json_object_object_get_ex(args, "state", &state))
		wanted = json_object_get_string(state);
	if (streq(name, "migrate-set-parameters") && json_object_object_get_ex(args, "tls-creds", &state))
		wanted = *json_object_get_string(state) ? "tls" : "plain";
	if (streq(name, "object-add") && json_object_object_get_ex(args, "endpoint", &state))
		wanted = json_object_get_string(state);
	(void)snprintf(s->heard + used, sizeof(s->heard) - used, "%s%s%s ", name, *wanted ? "=" : "", wanted);
	refused = (streq(name, "migrate-continue") && !streq(wanted, s->waits)) || (s->refuses && streq(name, s->refuses));
	(void)snprintf(text, sizeof(text), "{\"%s, \"id\": %s}\r\n",
		       refused ? "error\": {\"class\": \"GenericError\", \"desc\": \"not in expected state\"}"
			       : streq(name, "query-status") ? "return\": {\"status\": \"running\", \"running\": true}" : "return\": {}",
		       json_object_to_json_string(id));
	CHECK(send(s->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
	json_object_put(o);
}

/* Turns the loop and answers until the condition holds. */
static bool serve_until(struct rig *r, struct stand_in *s, bool (*holds)(const struct rig *r))
{
	int64_t end_ms = clock_ms() + WAIT_MS;
	char in[4096];

	while (!holds(r) && clock_ms() < end_ms) {
		ssize_t n = recv(s->fd, in, sizeof(in) - 1, MSG_DONTWAIT);

		in[n > 0 ? n : 0] = '\0';
		for (char *save = NULL, *line = strtok_r(in, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
			answer(s, line);
		(void)run_until(r, holds, 5);
	}
	return holds(r);
}

static void on_cancel(void *user, const char *error) { on_reply(user, NULL, error); }

static int stand_in(struct rig *r, struct stand_in *s, const char *dir, const char *name)
{
	static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": []}}\r\n";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	rig_init(r, dir, name);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", r->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	rig_connect(r, HANDSHAKE_MS);
	(void)run_until(r, is_ready, 60);
	s->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	CHECK(s->fd >= 0 && send(s->fd, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL) == sizeof(greeting) - 1);
	TAP_OK(serve_until(r, s, is_ready) && r->ready == 1, "a stand-in is taken for QEMU");
	return fd;
}

/* A migration that was cancelled just as its guest stopped is woken, and it is no error that one which was not waiting is not. */
static void test_cancel(const char *dir)
{
	static const char *const waits[] = { "cancelling", "pre-switchover" };
	struct stand_in s = { 0 };
	struct rig r;
	int fd = stand_in(&r, &s, dir, "cancel");

	for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
		r.replies = 0;
		s.heard[0] = '\0';
		s.waits = waits[i];
		CHECK(qmp_migrate_cancel(r.conn, on_cancel, &r) == 0);
		TAP_OK(serve_until(&r, &s, is_replied) && streq(s.heard, "migrate_cancel migrate-continue=cancelling ") && r.error[0] == '\0',
		       "cancelled while it waits in state %s: %s", waits[i], s.heard);
	}
	r.replies = 0;
	CHECK(qmp_migrate_cancel(r.conn, on_cancel, &r) == 0);
	(void)close(s.fd);
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && r.replies == 1 && r.error[0] != '\0', "a cancel that QEMU does not live to answer: %s", r.error);
	(void)close(fd);
	rig_deinit(&r);
}

/* Certificates: those of an earlier migration go, then this one's come, and only then anything is sent; without TLS nothing is left of an earlier one's. */
static void test_tls(const char *dir)
{
	static const struct { bool tls; bool out; const char *refuses, *heard; } t[] = {
		{ true, true, "object-del", "object-del object-add=client migrate-set-capabilities migrate-set-parameters=tls migrate " },
		{ true, false, NULL, "object-del object-add=server migrate-set-capabilities migrate-set-parameters=tls migrate-incoming " },
		{ false, true, NULL, "migrate-set-capabilities migrate-set-parameters=plain migrate " },
		{ false, false, NULL, "migrate-set-capabilities migrate-set-parameters=plain migrate-incoming " },
		{ true, true, "object-add", "object-del object-add=client " },
		{ true, false, "object-add", "object-del object-add=server " },
	};
	struct stand_in s = { .waits = "" };
	struct rig r;
	int fd = stand_in(&r, &s, dir, "tls");

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct qmp_migration_options o = { .tls_dir = t[i].tls ? "/etc/kvm-ha/tls" : NULL, .tls_name = "n2" };

		r.replies = 0;
		s.heard[0] = '\0';
		s.refuses = t[i].refuses;
		CHECK((t[i].out ? qmp_migrate_outgoing(r.conn, "n2", 1, &o, on_cancel, &r) : qmp_migrate_incoming(r.conn, "n2", &o, on_cancel, &r)) == 0);
		TAP_OK(serve_until(&r, &s, is_replied) && streq(s.heard, t[i].heard) && (r.error[0] != '\0') == (t[i].refuses && streq(t[i].refuses, "object-add")),
		       "%s, %s, %s refused: %s%s", t[i].out ? "source" : "target", t[i].tls ? "TLS" : "plain", t[i].refuses ? t[i].refuses : "nothing", s.heard, r.error);
	}
	(void)close(s.fd);
	(void)run_until(&r, is_closed, WAIT_MS);
	(void)close(fd);
	rig_deinit(&r);
}

static void test_addresses(const char *dir)
{
	char path[200];
	struct rig r;

	rig_init(&r, dir, "x");
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	TAP_OK(qmp_conn_new(r.loop, path, 100, &callbacks, &r, &r.conn) == -ENAMETOOLONG && r.conn == NULL, "a path too long for a socket");
	rig_connect(&r, 150);
	TAP_OK(r.closed == 0 && run_until(&r, is_closed, WAIT_MS) && strstr(r.reason, "No such file"), "no socket until the deadline: %s", r.reason);
	qmp_conn_free(r.conn);
	r.conn = NULL;
	r.closed = 0;
	(void)str_copy(r.path, sizeof(r.path), "/dev/null/x");
	rig_connect(&r, WAIT_MS);
	TAP_OK(run_until(&r, is_closed, WAIT_MS) && r.ended_ms - r.began_ms < WAIT_MS / 2, "what waiting cannot cure ends at once: %s", r.reason);
	qmp_conn_free(NULL);
	rig_deinit(&r);
}

int main(void)
{
	char dir[] = "/tmp/kvm-ha-qmp.XXXXXX";

	CHECK(mkdtemp(dir));
	test_conversation(dir);
	test_hung(dir);
	test_killed(dir);
	test_second_client(dir);
	test_hostile_peer(dir);
	test_cancel(dir);
	test_tls(dir);
	test_addresses(dir);
	(void)rmdir(dir);
	return tap_done();
}
