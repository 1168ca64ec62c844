/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hooks with real processes: small shell scripts in a directory of this test, which write what they see to a log. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/log.h"
#include "agent/hooks.h"
#include "tests/tap.h"

#define PATIENCE_MS 20000

static char top[] = "/tmp/kvm-ha-test-hooks-XXXXXX";
static char hooks_dir[CONF_URL_LEN], log_path[CONF_URL_LEN];
static struct conf conf;

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 5 * NS_PER_MS };

	(void)nanosleep(&ts, NULL);
}

static void write_hook(const char *name, mode_t mode, const char *body)
{
	char path[CONF_URL_LEN + 64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", hooks_dir, name);
	f = fopen(path, "we");
	if (!f || fprintf(f, "#!/bin/sh\n%s\n", body) < 0 || fclose(f) != 0 || chmod(path, mode) < 0)
		abort();
}

static void clear(void)
{
	char command[2 * CONF_URL_LEN + 64];

	(void)snprintf(command, sizeof(command), "rm -rf %s/* %s", hooks_dir, log_path);
	if (system(command) != 0)
		abort();
}

static char *log_text(void)
{
	static char text[65536];
	FILE *f = fopen(log_path, "re");
	size_t n = 0;

	if (f) {
		n = fread(text, 1, sizeof(text) - 1, f);
		(void)fclose(f);
	}
	text[n] = '\0';
	return text;
}

static bool wait_for_text(const char *want)
{
	int64_t until = now_ms() + PATIENCE_MS;

	while (now_ms() < until) {
		if (strstr(log_text(), want))
			return true;
		nap();
	}
	return false;
}

static unsigned occurrences(const char *text, const char *what)
{
	unsigned n = 0;

	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

static struct hooks *start(uint32_t timeout_ms)
{
	struct hooks *h = NULL;

	conf.hook_timeout_ms = timeout_ms;
	if (hooks_new(&conf, &h) != 0)
		abort();
	return h;
}

/* An operator learns of events from ha-agent(8). */
static void test_man(void)
{
	char path[512], text[65536] = "", word[64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/man/ha-agent.8", getenv("srcdir") ? getenv("srcdir") : ".");
	f = fopen(path, "re");
	if (f) {
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		(void)fclose(f);
	}
	for (unsigned e = 0; e < HOOK_EVENT_COUNT; e++) {
		const char *name = hook_event_name((enum hook_event)e);
		size_t n = 0;

		for (size_t i = 0; name[i] && n + 3 < sizeof(word); i++) {
			if (name[i] == '-')
				word[n++] = '\\';
			word[n++] = name[i];
		}
		word[n] = '\0';
		TAP_OK(!streq(name, "unknown") && strstr(text, word), "ha-agent(8) has %s", name);
	}
}

static void test_order_and_environment(void)
{
	struct hook_facts f = { .event = HOOK_VM_FAILED, .node = "n2", .vm = "web 1", .vm_uuid = "u-u", .reason = "guest 'panicked'\n$(id)\thard" };
	struct hooks *h;

	clear();
	write_hook("20-second", 0755, "echo second >>$(dirname \"$0\")/../log; echo done >>$(dirname \"$0\")/../log");
	write_hook("10-first", 0700, "env | sort >>$(dirname \"$0\")/../log; readlink /proc/self/fd/0 >>$(dirname \"$0\")/../log;"
				      "ls /proc/$$/fd | tr '\\n' ' ' >>$(dirname \"$0\")/../log");
	h = start(5000);
	hooks_run(h, &f);
	TAP_OK(wait_for_text("done\n"), "both hooks ran");
	TAP_OK(strstr(log_text(), "PATH=") < strstr(log_text(), "second"), "in lexical order");
	TAP_OK(strstr(log_text(), "KVM_HA_EVENT=vm-failed\n") && strstr(log_text(), "KVM_HA_CLUSTER=lab\n") && strstr(log_text(), "KVM_HA_HOST=n1\n") &&
	       strstr(log_text(), "KVM_HA_NODE=n2\n") && strstr(log_text(), "KVM_HA_VM=web 1\n") && strstr(log_text(), "KVM_HA_VM_UUID=u-u\n"),
	       "the variables are there");
	TAP_OK(strstr(log_text(), "KVM_HA_REASON=guest 'panicked' $(id) hard\n"), "the reason is one line of data, not shell");
	TAP_OK(strstr(log_text(), "KVM_HA_TIME=20") && strstr(log_text(), "Z\n"), "the time is RFC 3339 in UTC");
	TAP_OK(!strstr(log_text(), "KVM_HA_TEST_SECRET"), "nothing else of our environment is");
	TAP_OK(strstr(log_text(), "/dev/null\n"), "stdin is /dev/null");
	hooks_free(h);
}

static void test_permissions(void)
{
	struct hook_facts f = { .event = HOOK_NODE_LOST };
	char path[512], captured[4096];
	int saved = dup(STDERR_FILENO), fd;
	struct hooks *h;
	ssize_t n;

	clear();
	(void)snprintf(path, sizeof(path), "%s/stderr", top);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	(void)dup2(fd, STDERR_FILENO);
	write_hook("10-group", 0775, "echo bad >>$(dirname \"$0\")/../log");
	write_hook("11-other", 0757, "echo bad >>$(dirname \"$0\")/../log");
	write_hook("12-plain", 0644, "echo bad >>$(dirname \"$0\")/../log");
	write_hook("13-backup~", 0755, "echo bad >>$(dirname \"$0\")/../log");
	write_hook("14-stranger", 0755, "echo bad >>$(dirname \"$0\")/../log");
	(void)snprintf(captured, sizeof(captured), "%s/14-stranger", hooks_dir);
	TAP_OK(chown(captured, 12345, 12345) == 0, "(a file of another user)");
	(void)snprintf(captured, sizeof(captured), "%s/15-link", hooks_dir);
	TAP_OK(symlink("/bin/true", captured) == 0, "(a link)");
	write_hook("90-good", 0755, "echo good-$KVM_HA_EVENT >>$(dirname \"$0\")/../log");
	h = start(5000);
	hooks_run(h, &f);
	f.event = HOOK_NODE_BACK;
	hooks_run(h, &f);
	TAP_OK(wait_for_text("good-node-back"), "the good one ran for both events");
	(void)dup2(saved, STDERR_FILENO);
	n = pread(fd, captured, sizeof(captured) - 1, 0);
	captured[MAX(n, 0)] = '\0';
	TAP_OK(!strstr(log_text(), "bad"), "none of the others did");
	TAP_OK(occurrences(captured, "10-group is skipped") == 1 && occurrences(captured, "11-other is skipped") == 1 &&
	       occurrences(captured, "12-plain is skipped") == 1 && occurrences(captured, "14-stranger is skipped") == 1 &&
	       occurrences(captured, "15-link is skipped") == 1, "one warning for each");
	hooks_free(h);
	TAP_OK(chmod(hooks_dir, 0777) == 0, "(a directory others may write to)");
	(void)unlink(log_path);
	h = start(5000);
	(void)dup2(fd, STDERR_FILENO);
	hooks_run(h, &f);
	for (int64_t until = now_ms() + PATIENCE_MS; now_ms() < until; nap()) {
		n = pread(fd, captured, sizeof(captured) - 1, 0);
		captured[MAX(n, 0)] = '\0';
		if (strstr(captured, "hooks.d/ is skipped"))
			break;
	}
	(void)dup2(saved, STDERR_FILENO);
	TAP_OK(strstr(captured, "hooks.d/ is skipped") && !*log_text(), "nothing runs from a directory others may write to");
	hooks_free(h);
	(void)chmod(hooks_dir, 0755);
	(void)close(fd);
	(void)close(saved);
}

static pid_t pid_in_log(const char *label)
{
	const char *p = strstr(log_text(), label);

	return p ? (pid_t)atol(p + strlen(label)) : 0;
}

static bool is_gone(pid_t pid)
{
	char path[64], state = 0;
	int64_t until = now_ms() + PATIENCE_MS;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (; now_ms() < until; nap()) {
		FILE *f = fopen(path, "re");

		if (!f)
			return true;
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		(void)fclose(f);
		if (state == 'Z') /* an orphan where PID 1 does not reap */
			return true;
	}
	return false;
}

static void test_time_limit(void)
{
	struct hook_facts f = { .event = HOOK_VOLUME_FAILING };
	struct hooks *h;
	int64_t t0;

	clear();
	write_hook("10-hangs", 0755, "trap '' TERM; sleep 1000 & echo child=$! >>$(dirname \"$0\")/../log; echo self=$$ >>$(dirname \"$0\")/../log;"
				     "while :; do wait; done");
	write_hook("20-next", 0755, "echo next >>$(dirname \"$0\")/../log");
	h = start(300);
	t0 = now_ms();
	hooks_run(h, &f);
	TAP_OK(wait_for_text("next"), "a hook that ignores SIGTERM does not keep the next one");
	TAP_OK(now_ms() - t0 >= 1300, "it had its time and one second more");
	TAP_OK(pid_in_log("self=") > 1 && is_gone(pid_in_log("self=")), "it is gone");
	TAP_OK(pid_in_log("child=") > 1 && is_gone(pid_in_log("child=")), "and so is its child");
	hooks_free(h);
}

/* A process that SIGKILL does not end, as one that a dead NFS keeps in the kernel. */
static atomic_bool immortal;

int __real_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig) { return sig == SIGKILL && atomic_load(&immortal) ? 0 : __real_kill(pid, sig); }

static bool event_reaches_next(struct hooks *h, const char *reason)
{
	struct hook_facts f = { .event = HOOK_VOLUME_FAILING, .reason = reason };
	char want[32];

	(void)snprintf(want, sizeof(want), "next-%s.", reason);
	hooks_run(h, &f);
	return wait_for_text(want);
}

static void test_immortal(void)
{
	char path[512], captured[8192];
	int saved = dup(STDERR_FILENO), fd;
	struct hooks *h;
	ssize_t n;
	pid_t pid;

	clear();
	(void)snprintf(path, sizeof(path), "%s/stderr", top);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	(void)dup2(fd, STDERR_FILENO);
	write_hook("10-stuck", 0755, "trap '' TERM; echo self=$$ stuck-$KVM_HA_REASON. >>$(dirname \"$0\")/../log; while :; do sleep 0.05; done");
	write_hook("20-next", 0755, "echo next-$KVM_HA_REASON. >>$(dirname \"$0\")/../log");
	h = start(300);
	atomic_store(&immortal, true);
	TAP_OK(event_reaches_next(h, "a"), "a hook that cannot be killed does not keep the next one");
	TAP_OK(event_reaches_next(h, "b") && event_reaches_next(h, "c"), "nor the next events");
	TAP_OK(strstr(log_text(), "stuck-a.") && !strstr(log_text(), "stuck-b.") && !strstr(log_text(), "stuck-c."), "it is not started beside itself");
	n = pread(fd, captured, sizeof(captured) - 1, 0);
	captured[MAX(n, 0)] = '\0';
	TAP_OK(occurrences(captured, "does not when killed") == 1 && occurrences(captured, "10-stuck is skipped") == 1, "which is told once");
	atomic_store(&immortal, false);
	pid = pid_in_log("self=");
	TAP_OK(pid > 1 && kill(-pid, SIGKILL) == 0 && is_gone(pid), "(it ends)");
	TAP_OK(event_reaches_next(h, "d") && strstr(log_text(), "stuck-d."), "then it is run again");
	TAP_OK(kill(pid, 0) < 0 && errno == ESRCH, "and what was left of it is reaped");
	(void)dup2(saved, STDERR_FILENO);
	hooks_free(h);
	(void)close(fd);
	(void)close(saved);
}

static void test_overflow_and_speed(void)
{
	struct hook_facts f = { .event = HOOK_VM_STARTED };
	char number[16], go[64];
	struct hooks *h;
	int64_t t0, slowest = 0;

	clear();
	write_hook("10-slow", 0755, "echo ran-$KVM_HA_REASON. >>$(dirname \"$0\")/../log; while [ ! -e $(dirname \"$0\")/../go ]; do sleep 0.02; done");
	h = start(PATIENCE_MS);
	f.reason = "first";
	hooks_run(h, &f);
	TAP_OK(wait_for_text("ran-first."), "(the worker is busy)");
	for (unsigned i = 0; i < HOOKS_QUEUE + 6; i++) {
		(void)snprintf(number, sizeof(number), "%u", i);
		f.reason = number;
		t0 = now_ms();
		hooks_run(h, &f);
		slowest = MAX(slowest, now_ms() - t0);
	}
	TAP_OK(slowest < 200, "enqueueing does not wait for a hook (slowest %lld ms)", (long long)slowest);
	(void)snprintf(go, sizeof(go), "%s/go", top);
	(void)close(open(go, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	TAP_OK(wait_for_text("ran-69."), "the newest event is kept");
	TAP_OK(!strstr(log_text(), "ran-0.") && !strstr(log_text(), "ran-5.") && strstr(log_text(), "ran-6."), "the oldest six are dropped");
	TAP_OK(occurrences(log_text(), "ran-") == HOOKS_QUEUE + 1, "all others ran once");
	hooks_free(h);
}

static void test_free(void)
{
	struct hook_facts f = { .event = HOOK_VM_STOPPED };
	struct hooks *h;
	int64_t t0;

	clear();
	write_hook("10-hangs", 0755, "trap '' TERM; echo self=$$ >>$(dirname \"$0\")/../log; while :; do sleep 0.05; done");
	h = start(60000);
	hooks_run(h, &f);
	hooks_run(h, &f);
	TAP_OK(wait_for_text("self="), "(a hook runs)");
	t0 = now_ms();
	hooks_free(h);
	TAP_OK(now_ms() - t0 < 2500, "ending takes no longer than 2 s");
	TAP_OK(is_gone(pid_in_log("self=")), "and leaves no hook behind");
	hooks_free(NULL);
}

int main(void)
{
	char command[128];

	log_init("test_hooks", LOG_LEVEL_DEBUG);
	if (!mkdtemp(top))
		return 1;
	(void)snprintf(hooks_dir, sizeof(hooks_dir), "%s/hooks.d", top);
	(void)snprintf(log_path, sizeof(log_path), "%s/log", top);
	(void)mkdir(hooks_dir, 0755);
	(void)setenv("KVM_HA_TEST_SECRET", "x", 1);
	(void)str_copy(conf.cluster, sizeof(conf.cluster), "lab");
	(void)str_copy(conf.self_name, sizeof(conf.self_name), "n1");
	(void)str_copy(conf.hooks_dir, sizeof(conf.hooks_dir), hooks_dir);
	test_man();
	test_order_and_environment();
	test_permissions();
	test_time_limit();
	test_immortal();
	test_overflow_and_speed();
	test_free();
	(void)snprintf(command, sizeof(command), "rm -rf %s", top);
	(void)!system(command);
	return tap_done();
}
