/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Log lines to a socket that nobody reads, as journald's while it stands still: whoever logs goes on. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "agent/base/log.h"
#include "tests/tap.h"

#define LINES 5000
#define WAIT_MS 10000

static size_t send_limit; /* 0: none */

ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags) { return __real_send(fd, buf, send_limit ? MIN(len, send_limit) : len, flags); }

struct child {
	pid_t pid;
	int log;  /* the other end of its stderr */
	int talk; /* a byte each: it has come to the next step; it may go on */
};

static void say(int fd) { CHECK(write(fd, "x", 1) == 1); }

static bool hears(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char byte;

	return poll(&p, 1, WAIT_MS) == 1 && read(fd, &byte, 1) == 1;
}

static struct child begin(int type, void (*steps)(int talk))
{
	int log[2], talk[2];
	struct child c;

	CHECK((type ? socketpair(AF_UNIX, type, 0, log) : pipe(log)) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, talk) == 0);
	c.pid = fork();
	CHECK(c.pid >= 0);
	if (c.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		CHECK(dup2(log[1], STDERR_FILENO) == STDERR_FILENO);
		(void)close(log[0]);
		(void)close(log[1]);
		(void)close(talk[0]);
		log_init("test_log", LOG_LEVEL_INFO);
		steps(talk[1]);
		_exit(0);
	}
	(void)close(log[1]);
	(void)close(talk[1]);
	c.log = log[0];
	c.talk = talk[0];
	CHECK(fcntl(c.log, F_SETFL, O_NONBLOCK) == 0);
	return c;
}

/* What it has logged up to now. */
static char *logged(const struct child *c)
{
	static char text[LINES * 100];
	size_t n = 0;
	ssize_t r;

	while (n < sizeof(text) - 1 && (r = read(c->log, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)r;
	text[n] = '\0';
	return text;
}

static bool end(const struct child *c, bool kills)
{
	int status = 0;

	if (kills)
		(void)kill(c->pid, SIGKILL);
	(void)waitpid(c->pid, &status, 0);
	(void)close(c->log);
	(void)close(c->talk);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void log_many(int talk)
{
	for (int i = 0; i < LINES; i++)
		log_info("line %d\nof many", i);
	say(talk);
	CHECK(hears(talk));
	log_err("it is read again");
	log_info("and again");
	say(talk);
	CHECK(hears(talk));
}

/* Lines 0, 1, ... and nothing else; ret_n: how many. */
static bool are_whole(char *text, int *ret_n)
{
	char *line, *save = NULL, want[64];
	bool ok = *text && text[strlen(text) - 1] == '\n';

	*ret_n = 0;
	for (line = strtok_r(text, "\n", &save); line && ok; line = strtok_r(NULL, "\n", &save)) {
		(void)snprintf(want, sizeof(want), "<6>line %d of many", (*ret_n)++);
		ok = streq(line, want);
	}
	return ok;
}

static void test_nobody_reads(void)
{
	struct child c = begin(SOCK_STREAM, log_many);
	bool went_on = hears(c.talk), whole;
	char want[256];
	int n;

	TAP_OK(went_on, "%d lines that nobody reads: whoever logs them goes on", LINES);
	whole = are_whole(logged(&c), &n);
	TAP_OK(whole && n > 0 && n < LINES, "the first %d of them are there, whole", n);
	if (went_on) {
		say(c.talk);
		CHECK(hears(c.talk));
	}
	(void)snprintf(want, sizeof(want), "<4>%d lines were dropped: the journal did not take them\n<3>it is read again\n<6>and again\n", LINES - n);
	TAP_OK(streq(logged(&c), want), "the next one tells how many are not, once");
	if (went_on)
		say(c.talk);
	TAP_OK(end(&c, !went_on), "it ends well");
}

static void log_torn(int talk)
{
	log_info("one");
	send_limit = 5;
	log_info("two");
	send_limit = 0;
	log_info("three");
	log_info("four");
	say(talk);
}

static void test_torn(void)
{
	struct child c = begin(SOCK_STREAM, log_torn);
	bool went_on = hears(c.talk);

	TAP_STR(logged(&c), "<6>one\n<6>tw\n<4>1 lines were dropped: the journal did not take them\n<6>three\n<6>four\n", "of a line only its beginning is taken: the next one is a line of its own");
	TAP_OK(end(&c, !went_on), "it ends well");
}

static void log_two(int talk)
{
	say(talk);
	CHECK(hears(talk));
	log_info("one");
	log_info("two");
	say(talk);
}

static void test_closed(void)
{
	struct child c = begin(SOCK_STREAM, log_two);

	CHECK(hears(c.talk));
	(void)close(c.log);
	c.log = open("/dev/null", O_RDONLY | O_CLOEXEC);
	say(c.talk);
	TAP_OK(hears(c.talk) && end(&c, false), "nobody is there any more: whoever logs lives on");
}

static void test_pipe(void)
{
	struct child c = begin(0, log_two);

	CHECK(hears(c.talk));
	say(c.talk);
	CHECK(hears(c.talk));
	TAP_STR(logged(&c), "<6>one\n<6>two\n", "a pipe gets the same lines");
	(void)end(&c, false);
}

int main(void)
{
	test_nobody_reads();
	test_torn();
	test_closed();
	test_pipe();
	return tap_done();
}
