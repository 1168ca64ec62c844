/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-fence: switches a node off or on through its fence devices, or asks them. A process of its own: ClusterLabs fence agents are scripts that may hang, and
 * read secrets; neither belongs into the agent, let alone the keeper. What they say is proof only as agent/core/powerplan.c has it.
 *
 * An agent gets its parameters as name=value lines on standard input (the FenceAgentAPI). Its "status" is off when it exits with 2 AND says "Status: OFF":
 * 2 alone is what many a script exits with that was called wrongly.
 *
 * With --fed each "off" needs a byte on standard input not older than POWER_FED_MS: ha-agent sends one for every table in which the keeper still asks, and the
 * first is waited for, since ha-agent may have stood still just before it began this. The end of the parent is the end of this, too. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/clock.h"
#include "agent/base/conf.h"
#include "agent/base/log.h"
#include "agent/core/power.h"

#define PAUSE_MS 500
#define OUTPUT_MAX 16384
#define SEARCH_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 64, EXIT_CONFIG = 78 };

struct tool {
	struct conf conf;
	const struct conf_node *node;
	const struct conf_power *device;
	size_t n;
	char secrets[POWER_MAX_DEVICES][CONF_POWER_SECRETS];
	bool usable[POWER_MAX_DEVICES];
	bool fed;
	int64_t fed_ns; /* clock_host_ns() of what says that it still is to be; 0: nothing yet */
	char output[OUTPUT_MAX + 1];
};

static volatile sig_atomic_t child; /* its process group; 0: none */

static void on_term(int sig)
{
	if (child > 0)
		(void)kill(-child, SIGKILL);
	_exit(EXIT_FAILED);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

/* A line for ha-agent, or an operator: an agent's words may be anything. */
_printf_(2, 3) static void say(enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	(void)printf("%d %s\n", (int)level, text);
	(void)fflush(stdout);
}

static const char *action_name(enum power_action a) { return a == POWER_OFF ? "off" : a == POWER_ON ? "on" : "status"; }

_Noreturn static void be_agent(const struct conf_power *p, const int in[2], const int out[2], pid_t parent)
{
	char *argv[] = { (char *)p->agent, NULL };
	sigset_t none;

	(void)setpgid(0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGTERM, SIG_DFL);
	if (dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0 || dup2(out[1], STDERR_FILENO) < 0)
		_exit(EXIT_FAILED);
	(void)close_range(3, ~0U, 0);
	(void)clearenv();
	(void)setenv("PATH", SEARCH_PATH, 1);
	(void)setenv("LANG", "C.UTF-8", 1);
	(void)execvp(p->agent, argv);
	(void)dprintf(STDERR_FILENO, "cannot run %s: %s: is the package fence-agents installed?\n", p->agent, strerror(errno));
	_exit(127);
}

static void take_food(struct tool *t)
{
	int64_t at_ns;
	ssize_t n;

	while ((n = read(STDIN_FILENO, &at_ns, sizeof(at_ns))) > 0)
		if (n == sizeof(at_ns))
			t->fed_ns = at_ns; /* this process may have stood still since it was written */
	if (n == 0)
		on_term(0); /* the agent is gone */
}

static bool fed_within(const struct tool *t, int64_t ms)
{
	int64_t age_ns = clock_host_ns() - t->fed_ns;

	return t->fed_ns != 0 && age_ns >= 0 && age_ns <= ms * NS_PER_MS;
}

/* Until the agent has closed its output and ended, or its time is up, or it switches off what nobody says is to be any more. Says whether it ended by itself. */
static bool watch(struct tool *t, int out, enum power_action a, int64_t until_ms)
{
	struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = t->fed ? STDIN_FILENO : -1, .events = POLLIN } };
	size_t len = 0;

	for (;;) {
		int64_t left = until_ms - now_ms();
		char spill[512];
		ssize_t n;

		t->output[len] = '\0';
		if (left <= 0)
			return false;
		if (poll(p, 2, (int)MIN(left, 1000)) < 0)
			p[0].revents = p[1].revents = 0;
		if (p[1].revents)
			take_food(t);
		if (a == POWER_OFF && t->fed && !fed_within(t, POWER_UNFED_MS))
			return false;
		if (!p[0].revents)
			continue;
		/* What is more than anybody reads is thrown away, so that it does not block. */
		n = len < OUTPUT_MAX ? read(out, t->output + len, OUTPUT_MAX - len) : read(out, spill, sizeof(spill));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return true;
		if (len < OUTPUT_MAX)
			len += (size_t)n;
	}
}

static bool write_parameters(struct tool *t, unsigned d, enum power_action a, int fd)
{
	char text[2 * CONF_POWER_SECRETS + 64];
	int len = snprintf(text, sizeof(text), "%s%saction=%s\n", t->conf.power_text + t->device[d].options, t->secrets[d], action_name(a));
	bool ok = len > 0 && (size_t)len < sizeof(text) && write(fd, text, (size_t)len) == len; /* an empty pipe takes more */

	explicit_bzero(text, sizeof(text));
	return ok;
}

/* Its exit status, or -1 when it had none of its own. */
static int run(struct tool *t, unsigned d, enum power_action a, int64_t until_ms)
{
	int in[2], out[2], status = 0;
	pid_t pid, self = getpid();
	bool ended, told;

	t->output[0] = '\0';
	if (pipe2(in, O_CLOEXEC) < 0)
		return -1;
	if (pipe2(out, O_CLOEXEC) < 0) {
		(void)close(in[0]);
		(void)close(in[1]);
		return -1;
	}
	pid = fork();
	if (pid == 0)
		be_agent(&t->device[d], in, out, self);
	(void)close(in[0]);
	(void)close(out[1]);
	if (pid > 0) {
		(void)setpgid(pid, pid);
		child = pid;
	}
	told = pid > 0 && write_parameters(t, d, a, in[1]);
	(void)close(in[1]);
	ended = pid > 0 && watch(t, out[0], a, until_ms);
	(void)close(out[0]);
	if (pid < 0)
		return -1;
	/* It may have closed its output and run on. */
	while (ended && waitpid(pid, &status, WNOHANG) == 0) {
		struct timespec pause = { .tv_nsec = 10 * NS_PER_MS };

		ended = now_ms() < until_ms;
		(void)nanosleep(&pause, NULL);
	}
	(void)kill(-pid, SIGKILL); /* and whatever it has left running */
	child = 0;
	if (!ended)
		(void)waitpid(pid, &status, 0);
	if (!ended || !WIFEXITED(status) || (!told && WEXITSTATUS(status) != 127))
		return -1; /* one that did not take what it was told answers something else */
	return WEXITSTATUS(status);
}

/* A line of its own that says so: an explanation of the options has the word "off" in it, too. */
static bool says(const char *output, const char *what)
{
	for (const char *line = output; line; line = strchr(line, '\n')) {
		size_t len = strlen(what);

		while (*line == '\n' || *line == ' ' || *line == '\r')
			line++;
		if (strncasecmp(line, what, len) == 0 && strchr("\r\n ", line[len])) /* or the end: strchr finds that, too */
			return true;
		if (!*line)
			break;
	}
	return false;
}

static const char *last_line(char *output)
{
	size_t len = strlen(output);
	char *line;

	while (len > 0 && (output[len - 1] == '\n' || output[len - 1] == ' '))
		output[--len] = '\0';
	line = strrchr(output, '\n');
	return line ? line + 1 : output;
}

static enum power_answer ask(struct tool *t, unsigned d, enum power_action a)
{
	const struct conf_power *p = &t->device[d];
	int64_t began = now_ms(), took;
	int status;

	if (!t->usable[d])
		return POWER_ANSWER_FAILED;
	status = run(t, d, a, began + p->timeout_ms);
	took = now_ms() - began;
	if (a == POWER_STATUS && status == 2 && says(t->output, "Status: OFF"))
		return POWER_ANSWER_IS_OFF;
	if (a == POWER_STATUS && status == 0 && !says(t->output, "Status: OFF"))
		return POWER_ANSWER_IS_ON;
	if (a != POWER_STATUS && status == 0)
		return POWER_ANSWER_OK;
	if (status >= 0)
		say(LOG_LEVEL_WARNING, "node %s: device %s: \"%s\" failed after %lld ms, exit code %d%s%s", t->node->name, p->agent, action_name(a), (long long)took,
		    status, *last_line(t->output) ? ": " : "", last_line(t->output));
	else if (a == POWER_OFF && t->fed && !fed_within(t, POWER_UNFED_MS))
		say(LOG_LEVEL_WARNING, "node %s: device %s: \"off\" broken off: ha-agent has not said for %d ms that it still is to be", t->node->name, p->agent, POWER_UNFED_MS);
	else
		say(LOG_LEVEL_WARNING, "node %s: device %s: \"%s\" not answered within %u ms%s%s", t->node->name, p->agent, action_name(a), p->timeout_ms,
		    *last_line(t->output) ? "; its last words: " : "", last_line(t->output));
	return POWER_ANSWER_FAILED;
}

/* Whoever wants it has changed his mind, or cannot say any more. */
static bool still_wanted(struct tool *t)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	if (!t->fed)
		return true;
	if (t->fed_ns == 0)
		(void)poll(&p, 1, POWER_FED_MS);
	take_food(t);
	if (fed_within(t, POWER_FED_MS))
		return true;
	say(LOG_LEVEL_WARNING, "node %s: not switched off: ha-agent has not said for %d ms that it still is to be", t->node->name, POWER_FED_MS);
	return false;
}

static int carry_out(struct tool *t, enum power_want want)
{
	unsigned level[POWER_MAX_DEVICES], d, asked = POWER_MAX_DEVICES;
	struct power_plan plan;
	int64_t until_ms = 0;

	for (size_t i = 0; i < t->n; i++)
		level[i] = t->device[i].level;
	power_plan_init(&plan, want, level, (unsigned)t->n);
	for (;;) {
		enum power_action a = power_plan_next(&plan, &d);
		struct timespec pause = { .tv_nsec = PAUSE_MS * NS_PER_MS };
		enum power_answer answer = POWER_ANSWER_OK;

		if (a == POWER_DONE) {
			say(LOG_LEVEL_NOTICE, "node %s: %s, says its device%s", t->node->name, want == POWER_WANT_OFF ? "off" : "on",
			    plan.end - plan.first > 1 ? "s" : "");
			return EXIT_DONE;
		}
		if (a == POWER_FAILED)
			return EXIT_FAILED;
		if (a == POWER_OFF && !still_wanted(t))
			return EXIT_FAILED;
		if (a == POWER_PAUSE) {
			(void)nanosleep(&pause, NULL);
		} else {
			if (a == POWER_STATUS && asked != d) {
				asked = d;
				until_ms = now_ms() + t->device[d].timeout_ms;
			}
			answer = ask(t, d, a);
		}
		if (a == POWER_STATUS && answer != (want == POWER_WANT_OFF ? POWER_ANSWER_IS_OFF : POWER_ANSWER_IS_ON) && now_ms() >= until_ms)
			say(LOG_LEVEL_WARNING, "node %s: device %s was told, but does not say that it is %s", t->node->name, t->device[d].agent,
			    want == POWER_WANT_OFF ? "off" : "on");
		power_plan_answer(&plan, answer, now_ms() < until_ms);
	}
}

static int show(struct tool *t)
{
	int r = EXIT_DONE;

	for (unsigned d = 0; d < t->n; d++) {
		enum power_answer a = ask(t, d, POWER_STATUS);

		if (a == POWER_ANSWER_FAILED)
			r = EXIT_FAILED;
		else
			say(LOG_LEVEL_NOTICE, "node %s: device %s, level %u: %s", t->node->name, t->device[d].agent, t->device[d].level,
			    a == POWER_ANSWER_IS_OFF ? "off" : "on");
	}
	return r;
}

static int prepare(struct tool *t, const char *dir, const char *name)
{
	char err[512] = "";
	bool any = false;

	if (conf_load(dir, NULL, &t->conf, err, sizeof(err)) < 0) {
		say(LOG_LEVEL_ERR, "%s", err);
		return EXIT_CONFIG;
	}
	t->node = conf_node_by_name(&t->conf, name);
	if (!t->node) {
		say(LOG_LEVEL_ERR, "no node named %.64s in Nodes=", name);
		return EXIT_CONFIG;
	}
	t->device = conf_power_of(&t->conf, t->node->id, &t->n);
	if (t->n == 0) {
		say(LOG_LEVEL_ERR, "node %s has no fence device: add a [PowerDevice] section for it", name);
		return EXIT_CONFIG;
	}
	for (unsigned d = 0; d < t->n; d++) {
		t->usable[d] = conf_power_secrets(&t->conf, &t->device[d], t->secrets[d], err, sizeof(err)) == 0;
		if (!t->usable[d])
			say(LOG_LEVEL_ERR, "node %s: device %s is of no use: %s", name, t->device[d].agent, err);
		any = any || t->usable[d];
	}
	return any ? 0 : EXIT_CONFIG;
}

static int usage(void)
{
	(void)fputs("usage: ha-fence [--config DIR] [--fed] off|on|status NODE\n"
		    "Switches a node through its [PowerDevice] sections, or asks them. Exit code 0: the devices themselves say so. See kvm-ha.conf(5).\n", stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "config", required_argument, NULL, 'c' }, { "fed", no_argument, NULL, 'f' }, { 0 } };
	static struct tool t;
	const char *dir = CONF_DIR_DEFAULT;
	int c, r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c')
			dir = optarg;
		else if (c == 'f')
			t.fed = true;
		else
			return usage();
	}
	if (argc - optind != 2 || (!streq(argv[optind], "off") && !streq(argv[optind], "on") && !streq(argv[optind], "status")))
		return usage();
	log_init("ha-fence", LOG_LEVEL_WARNING);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGTERM, on_term);
	(void)signal(SIGINT, on_term);
	if (t.fed) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
		take_food(&t); /* had the parent ended before the line above, this says so */
	}
	r = prepare(&t, dir, argv[optind + 1]);
	if (r == 0)
		r = streq(argv[optind], "status") ? show(&t) : carry_out(&t, streq(argv[optind], "off") ? POWER_WANT_OFF : POWER_WANT_ON);
	explicit_bzero(t.secrets, sizeof(t.secrets));
	return r;
}
