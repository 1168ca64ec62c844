/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-launch and the agent's permit for it, the shipped program: who may go on to the keeper's gate, and who not. There is no keeper here, which is how the two are told apart. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/permit.h"
#include "tests/tap.h"

#define REFUSED 75
#define NO_START "this is no start that ha-agent waits for"
#define NO_KEEPER "the keeper does not answer"

static qb_loop_t *loop;
static unsigned asked;
static pid_t asked_by;
static bool says_yes, lives;
static char out[1024];

static bool on_launcher(void *user, pid_t pid, int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	asked++;
	asked_by = pid;
	lives = poll(&p, 1, 0) == 0;
	(void)close(pidfd);
	return says_yes;
}

static void on_beat(void *user) { qb_loop_stop(loop); }

/* in: its standard input. Returns its exit status. */
static int launch(int in, pid_t *ret_pid)
{
	const char *dir = getenv("KVM_HA_BUILD_DIR");
	char path[4096];
	int end[2], status;
	ssize_t n;
	size_t len = 0;
	pid_t pid;

	CHECK(pipe2(end, O_CLOEXEC) == 0);
	(void)snprintf(path, sizeof(path), "%s/ha-launch", dir ? dir : ".");
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (dup2(in, STDIN_FILENO) == 0 && dup2(end[1], STDERR_FILENO) > 0)
			(void)execl(path, path, "11111111-2222-4333-8444-000000000001", "1", "1", "/bin/true", NULL);
		_exit(99);
	}
	(void)close(end[1]);
	CHECK(fcntl(end[0], F_SETFL, O_NONBLOCK) == 0);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		qb_loop_timer_handle timer;

		CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 5 * NS_PER_MS, NULL, on_beat, &timer) == 0);
		qb_loop_run(loop);
	}
	while (len < sizeof(out) - 1 && (n = read(end[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	(void)close(end[0]);
	*ret_pid = pid;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(void)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), in;
	struct permit *p;
	pid_t pid;

	loop = qb_loop_create();
	CHECK(loop && null >= 0);

	TAP_OK(launch(null, &pid) == REFUSED && strstr(out, NO_START), "a unit that somebody starts by hand: refused");

	CHECK(permit_new(loop, on_launcher, NULL, &p, &in) == 0);
	says_yes = true;
	TAP_OK(launch(in, &pid) == REFUSED && strstr(out, NO_KEEPER), "one that the agent waits for: on to the keeper");
	TAP_OK(asked == 1 && asked_by == pid && lives, "the agent knows which process that is, and can watch it");
	TAP_OK(launch(in, &pid) == REFUSED && strstr(out, NO_START) && asked == 1, "a second time: refused, and nobody is asked");
	permit_free(p);
	(void)close(in);

	CHECK(permit_new(loop, on_launcher, NULL, &p, &in) == 0);
	says_yes = false;
	TAP_OK(launch(in, &pid) == REFUSED && strstr(out, NO_START) && asked == 2, "one that the agent refuses: refused");
	permit_free(p);
	(void)close(in);

	CHECK(permit_new(loop, on_launcher, NULL, &p, &in) == 0);
	permit_free(p);
	TAP_OK(launch(in, &pid) == REFUSED && strstr(out, NO_START) && asked == 2, "one that the agent waits for no more: refused");
	(void)close(in);

	(void)close(null);
	qb_loop_destroy(loop);
	return tap_done();
}
