/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-fence with agents that are real processes: what reaches them, what counts as proof, time limits, and that nothing of one is left running. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/base/clock.h"
#include "agent/base/util.h"
#include "tests/tap.h"

static char dir[] = "/tmp/kvm-ha-fence-XXXXXX";
static char out[8192];

static void put(const char *name, mode_t mode, const char *text)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, mode) < 0) {
		printf("Bail out! cannot write %s\n", path);
		exit(1);
	}
}

static bool there(const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void drop(const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)unlink(path);
}

static const char *slurp(const char *name)
{
	static char text[4096];
	char path[256];
	FILE *f;
	size_t len = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "re");
	if (f) {
		len = fread(text, 1, sizeof(text) - 1, f);
		(void)fclose(f);
	}
	text[len] = '\0';
	return text;
}

/* devices: whole [PowerDevice] sections; D in it stands for the folder. */
static void configure(const char *devices)
{
	char text[4096] = "[Cluster]\nName=demo\nNodes=n1:1 n2:2\nVolumes=/dev/ha\n";
	size_t len = strlen(text);

	for (const char *p = devices; *p && len < sizeof(text) - 64; p++) {
		if (p[0] == '@')
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", dir);
		else
			text[len++] = *p;
	}
	text[len] = '\0';
	put("kvm-ha.conf", 0644, text);
}

/* An agent that keeps what it was given, and then does as `body` says with $action. */
static void agent(const char *name, const char *body)
{
	char text[2048];

	(void)snprintf(text, sizeof(text),
		       "#!/bin/sh\ncat >%s/%s.in\naction=$(sed -n 's/^action=//p' %s/%s.in)\necho $action >>%s/%s.did\n%s\n", dir, name, dir, name, dir, name, body);
	put(name, 0755, text);
}

static int run(const char *what, bool fed, int feed_fd)
{
	const char *build = getenv("KVM_HA_BUILD_DIR");
	char tool[512];
	int p[2], status = 0;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	(void)snprintf(tool, sizeof(tool), "%s/ha-fence", build ? build : ".");
	(void)fflush(stdout);
	CHECK(pipe(p) == 0);
	pid = fork();
	if (pid == 0) {
		(void)dup2(p[1], STDOUT_FILENO);
		if (feed_fd >= 0)
			(void)dup2(feed_fd, STDIN_FILENO);
		(void)close_range(3, ~0U, 0);
		if (fed)
			(void)execl(tool, tool, "--config", dir, "--fed", what, "n2", NULL);
		else
			(void)execl(tool, tool, "--config", dir, what, "n2", NULL);
		_exit(99);
	}
	(void)close(p[1]);
	while (len < sizeof(out) - 1 && (n = read(p[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	(void)close(p[0]);
	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define DEVICE "[PowerDevice]\nNode=n2\nAgent=@/fence_a\nTimeout=2s\n"
#define SAYS_OFF "[ $action != status ] || { echo 'Status: OFF'; exit 2; }\nexit 0"

static void test_works(void)
{
	configure(DEVICE "Options=ip=10.1.1.2 \"username=a b\" lanplus=1\nSecretFile=@/secret\n");
	put("secret", 0600, "# not told to anybody\npassword=s3cret=x\n\n");
	agent("fence_a", SAYS_OFF);
	drop("fence_a.did");
	TAP_OK(run("off", false, -1) == 0 && strstr(out, "5 node n2: off, says its device\n"), "off, confirmed by its status");
	TAP_STR(slurp("fence_a.in"), "ip=10.1.1.2\nusername=a b\nlanplus=1\npassword=s3cret=x\naction=status\n", "what the agent is given");
	TAP_STR(slurp("fence_a.did"), "off\nstatus\n", "and asked for");
	TAP_OK(!strstr(out, "s3cret"), "the secret is not repeated");
	TAP_OK(run("status", false, -1) == 0 && strstr(out, "fence_a, level 1: off\n"), "its status");

	agent("fence_a", "[ $action = status ] && echo 'Status: ON'\nexit 0");
	TAP_OK(run("on", false, -1) == 0 && strstr(out, "node n2: on, says its device\n"), "on");
	TAP_OK(run("off", false, -1) == 1 && strstr(out, "does not say that it is off"), "told, but it stays on: no proof");
}

static void test_no_proof(void)
{
	static const struct { const char *what, *body; } bad[] = {
		{ "exit code 2 without its status", "exit 2" },
		{ "exit code 2 and how it is to be called", "[ $action != status ] || { echo 'usage: --action on|off, Status: OFF'; exit 2; }" },
		{ "its status without the exit code", "echo 'Status: OFF'; exit 0" },
		{ "another exit code", "echo 'Status: OFF'; exit 1" },
		{ "killed", "echo 'Status: OFF'; kill -9 $$" },
		{ "OFFLINE", "[ $action != status ] || { echo 'Status: OFFLINE'; exit 2; }" },
		{ "a flood", "[ $action != status ] || { head -c 3000000 /dev/zero | tr '\\0' x; echo; echo 'Status: OFF'; exit 2; }" },
	};

	configure(DEVICE);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		agent("fence_a", bad[i].body);
		TAP_OK(run("off", false, -1) == 1, "no proof: %s", bad[i].what);
	}
	configure("[PowerDevice]\nNode=n2\nAgent=fence_of_nobody\nTimeout=2s\n");
	TAP_OK(run("off", false, -1) == 1 && strstr(out, "is the package fence-agents installed"), "no such agent: says so");
}

/* A zombie that nobody has reaped yet does not. */
static bool lives(pid_t pid)
{
	char path[64], state = 'Z';
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	(void)fclose(f);
	return state != 'Z';
}

static void test_hang(void)
{
	char body[512];

	configure("[PowerDevice]\nNode=n2\nAgent=@/fence_a\nTimeout=500ms\n[PowerDevice]\nNode=n2\nAgent=@/fence_b\n");
	(void)snprintf(body, sizeof(body), "sleep 1000 & echo $! >%s/left\nwait", dir);
	agent("fence_a", body);
	agent("fence_b", SAYS_OFF);
	TAP_OK(run("off", false, -1) == 0 && strstr(out, "not answered within 500 ms"), "the first hangs: the second is asked");
	while (lives((pid_t)atoi(slurp("left"))))
		(void)usleep(1000);
	TAP_OK(true, "and what the first had started is gone");

	/* It closes its output and hangs on. */
	agent("fence_a", "exec >/dev/null 2>&1\nsleep 1000");
	TAP_OK(run("off", false, -1) == 0 && strstr(out, "not answered within 500 ms"), "nor is one waited for that says nothing more");

	configure(DEVICE "Level=1\n[PowerDevice]\nNode=n2\nAgent=@/fence_b\nLevel=1\n");
	agent("fence_a", SAYS_OFF);
	agent("fence_b", "echo broken; exit 1");
	TAP_OK(run("off", false, -1) == 1 && strstr(out, "exit code 1: broken"), "two that are needed together, one fails: no proof");
	agent("fence_b", SAYS_OFF);
	TAP_OK(run("off", false, -1) == 0 && strstr(out, "off, says its devices"), "both say so");
}

static void test_secret(void)
{
	agent("fence_a", SAYS_OFF);
	configure(DEVICE "SecretFile=@/secret\n");
	put("secret", 0640, "password=x\n");
	drop("fence_a.did");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "must belong to root with mode 0600") && !there("fence_a.did"), "a secret that others can read: refused");
	put("secret", 0600, "password = x\n");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "secret:1: write name=value"), "and one that is not name=value, with its line");
	drop("secret");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "No such file"), "and one that is not there");
	configure(DEVICE "SecretFile=@/secret\n" DEVICE);
	TAP_OK(run("off", false, -1) == 0, "another device is used all the same");
	configure("[PowerDevice]\nNode=n2\nAgent=@/fence_scsi\n");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "its \"off\" does not say that the machine has no power"), "an agent whose \"off\" is something else is not asked");
	configure(DEVICE "Options=missing_as_off=1\n");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "makes a guess"), "nor one that is to guess");
	configure(DEVICE "Options=missing_as_off=0\n");
	TAP_OK(run("off", false, -1) == 0, "it is if it is not to");
	configure("");
	TAP_OK(run("off", false, -1) == 78 && strstr(out, "has no fence device"), "a node without one");
}

/* As an agent whose keeper said so AGE_MS ago. */
static void feed(int fd, int64_t age_ms)
{
	int64_t at_ns = clock_host_ns() - age_ms * NS_PER_MS;

	CHECK(write(fd, &at_ns, sizeof(at_ns)) == sizeof(at_ns));
}

static void test_fed(void)
{
	int p[2];

	configure(DEVICE);
	agent("fence_a", SAYS_OFF);
	CHECK(pipe(p) == 0);
	drop("fence_a.did");
	TAP_OK(run("off", true, p[0]) == 1 && strstr(out, "ha-agent has not said for 3000 ms") && !there("fence_a.did"), "never fed: nothing is switched off");
	feed(p[1], 5000);
	TAP_OK(run("off", true, p[0]) == 1 && !there("fence_a.did"), "what it said was old when it was read: nothing is switched off");
	feed(p[1], 0);
	TAP_OK(run("off", true, p[0]) == 0 && there("fence_a.did"), "fed: goes on");
	(void)close(p[1]);
	drop("fence_a.did");
	TAP_OK(run("off", true, p[0]) == 1 && !there("fence_a.did"), "its agent is gone: nothing is switched off");
	(void)close(p[0]);

	/* The first device hangs for longer than the agent is believed, and nobody feeds meanwhile. */
	configure("[PowerDevice]\nNode=n2\nAgent=@/fence_a\nTimeout=2s\n[PowerDevice]\nNode=n2\nAgent=@/fence_b\n");
	agent("fence_a", "sleep 1000");
	agent("fence_b", SAYS_OFF);
	drop("fence_b.did");
	CHECK(pipe(p) == 0);
	feed(p[1], 0);
	TAP_OK(run("off", true, p[0]) == 1 && strstr(out, "ha-agent has not said for 3000 ms") && !there("fence_b.did"),
	       "not fed any more: no other device is told");

	configure("[PowerDevice]\nNode=n2\nAgent=@/fence_a\nTimeout=600s\n");
	agent("fence_a", "[ $action != off ] || sleep 1000\nexit 1");
	feed(p[1], 0);
	TAP_OK(run("off", true, p[0]) == 1 && strstr(out, "\"off\" broken off: ha-agent has not said for 8000 ms"), "nor is the one that is being told told for ever");
	(void)close(p[0]);
	(void)close(p[1]);
}

int main(void)
{
	static const char *const left[] = { "kvm-ha.conf", "secret", "left", "fence_a", "fence_a.in", "fence_a.did", "fence_b", "fence_b.in", "fence_b.did" };

	if (!mkdtemp(dir)) {
		printf("Bail out! mkdtemp\n");
		return 1;
	}
	test_works();
	test_no_proof();
	test_hang();
	test_secret();
	test_fed();
	for (size_t i = 0; i < ARRAY_SIZE(left); i++)
		drop(left[i]);
	TAP_OK(rmdir(dir) == 0, "nothing is left behind");
	return tap_done();
}
