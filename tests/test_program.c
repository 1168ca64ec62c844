/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A daemon that is started while another of its kind runs (ha-agent --debug, typed beside the service): what counts as running, and the two programs
 * themselves, in a mount namespace with a /run of their own. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/log.h"
#include "agent/base/program.h"
#include "tests/tap.h"

#define PATIENCE_MS 10000

static char top[] = "/var/tmp/kvm-ha-test-program-XXXXXX";

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static int listen_at(const char *path, int type)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	(void)unlink(path);
	if (fd < 0 || !str_copy(addr.sun_path, sizeof(addr.sun_path), path) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 4) < 0)
		abort();
	return fd;
}

enum life { GONE, HUNG, MUTE, LIVES }; /* MUTE: it accepts, and does no more */

/* Its process, or 0. */
static pid_t one_that(enum life life, const char *path, int type)
{
	int fd = listen_at(path, type);
	char buf[64];
	pid_t pid = life == GONE ? 0 : fork();

	if (life == GONE || pid != 0) {
		(void)close(fd);
		return pid;
	}
	(void)alarm(120);
	for (;;) {
		int client = life == HUNG ? pause() : accept(fd, NULL, NULL);

		if (life == LIVES && recv(client, buf, sizeof(buf), 0) == 0)
			(void)close(client);
	}
}

static void end(pid_t pid)
{
	if (pid == 0)
		return;
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void test_answer(int type, const char *what)
{
	static const struct { enum life life; bool runs; int64_t most_ms; const char *what; } cases[] = {
		{ GONE, false, 500, "a socket that was left behind" }, { HUNG, false, 3000, "one that hangs" }, { MUTE, false, 3000, "one that answers nobody" },
		{ LIVES, true, 3000, "one that lives" },
	};
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/sock", top);
	(void)unlink(path);
	TAP_OK(!program_runs_already("test", path, type), "%s: none was ever there", what);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		pid_t pid = one_that(cases[i].life, path, type);
		int64_t t0 = now_ms();
		bool runs = program_runs_already("test", path, type);

		TAP_OK(runs == cases[i].runs && now_ms() - t0 <= cases[i].most_ms, "%s: %s %s", what, cases[i].what, runs ? "runs" : "does not count");
		end(pid);
	}
}

static pid_t start(const char *name)
{
	char path[4096];
	const char *dir = getenv("KVM_HA_BUILD_DIR");
	pid_t pid;

	(void)snprintf(path, sizeof(path), "%s/%s", dir ? dir : ".", name);
	pid = fork();
	if (pid != 0)
		return pid;
	(void)execl(path, path, "--config", top, (char *)NULL);
	_exit(127);
}

static int exit_of(const char *name)
{
	int64_t until = now_ms() + PATIENCE_MS;
	int status = 0;
	pid_t pid = start(name);

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ms() > until) {
			end(pid);
			return -1;
		}
		(void)usleep(20000);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

static void put_conf(void)
{
	char path[64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/kvm-ha.conf", top);
	f = fopen(path, "we");
	if (!f || fprintf(f, "[Cluster]\nName=lab\nNodes=n1:1\nProfile=fast\nVolumes=%s/none\n[Node]\nName=n1\n", top) < 0 || fclose(f) != 0)
		abort();
}

/* No control groups here: a keeper that is not kept back ends before it could touch a VM of this host. */
static bool own_run(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0 &&
	       mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, NULL) == 0 && mkdir("/run/kvm-ha", 0750) == 0;
}

static void beside(const char *name, const char *path, int type, pid_t pid)
{
	TAP_OK(exit_of(name) == PROGRAM_EXIT_USAGE, "%s beside another one ends", name);
	TAP_OK(program_runs_already(name, path, type), "and leaves that one's socket alone");
	end(pid);
}

static void test_programs(void)
{
	static const char agent[] = "/run/kvm-ha/agent.sock", keeper[] = "/run/kvm-ha/keeper.sock";
	int64_t until = now_ms() + PATIENCE_MS;
	pid_t pid;

	if (!own_run()) {
		TAP_OK(true, "the programs # SKIP no mount namespace: %s", strerror(errno));
		return;
	}
	put_conf();
	pid = start("ha-agent");
	while (access(agent, F_OK) < 0 && now_ms() < until)
		(void)usleep(20000);
	beside("ha-agent", agent, SOCK_STREAM, pid);
	TAP_OK(!program_runs_already("ha-agent", agent, SOCK_STREAM), "one that was killed does not count");
	beside("ha-keeper", keeper, SOCK_SEQPACKET, one_that(LIVES, keeper, SOCK_SEQPACKET)); /* a real one would need a cluster's host */
}

int main(void)
{
	char command[128];

	log_init("test_program", LOG_LEVEL_ERR);
	if (!mkdtemp(top))
		return 1;
	test_answer(SOCK_STREAM, "agent");
	test_answer(SOCK_SEQPACKET, "keeper");
	test_programs();
	(void)snprintf(command, sizeof(command), "rm -rf %s", top);
	(void)!system(command);
	return tap_done();
}
