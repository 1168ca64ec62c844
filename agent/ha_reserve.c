/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-reserve: one operation (storage/reservation.h) on each of a VM's disks, for ha-agent: the kernel may keep a process in such a command for as long as it likes.
 *
 *   ha-reserve [--volatile] [--agent PID] [--lock FILE] probe|join|own|check|keep|leave|look|clear|release KEY DISK...
 *
 * One line on stdout: the result's name, then why, in words. A VM is reserved only if all its disks are: join looks at all of them before it registers anywhere. If one
 * cannot be, the others are to go without, too, and it looks at them (look); own asks first whether all are still registered, and preempts nobody else.
 *
 * One process a VM: what an agent that is gone has begun may be in the kernel still, and its end is waited for (--lock).
 *
 * What a start waits for asks all paths of all disks at once first, by a process each, and leaves out which do not answer: one after the other they would take longer than anybody
 * waits. That process opens the path, too: the kernel keeps whoever opens a disk while the path's host is in error recovery. The question changes nothing, so who is still in it is
 * left behind. What is asked every few seconds (keep, check) would leave one more behind each time, and what has only a few (leave) would be over before all have answered: those
 * go by the paths in turn. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "storage/reserve_sg.h"

#define MAX_DISKS 16
#define EXIT_USAGE 64
#ifndef ASK_MS /* a test has its own */
#define ASK_MS RESERVE_SG_ANSWER_MS /* for all paths together. A time-out is an answer; what takes longer is kept by the kernel */
#endif

struct disk {
	const char *name;
	enum reserve_sg_found found;
	struct reserve_sg_lun lun;
	int fd[RESERVATION_MAX_PATHS]; /* -1: cannot be opened, or is not to be */
	uint32_t silent; /* bit: is not opened: it is down, or has not answered */
	uint32_t later; /* bit: but may another time */
};

struct work {
	uint64_t key;
	bool volatile_ok;
	int lock; /* -1: none */
	struct disk disk[MAX_DISKS];
	unsigned n;
	enum reservation_result result;
	char why[400];
};

/* Of several disks': the graver. */
static int weight(enum reservation_result r)
{
	static const int weight[RESERVATION_RESULT_COUNT] = {
		[RESERVATION_OK] = 0, [RESERVATION_NONE] = 1, [RESERVATION_STANDS] = 2, [RESERVATION_OTHERS] = 3, [RESERVATION_FAILED] = 4, [RESERVATION_FOREIGN] = 5,
		[RESERVATION_LOST] = 6,
	};

	return weight[r];
}

_printf_(3, 4) static void judge(struct work *w, enum reservation_result r, const char *fmt, ...)
{
	va_list ap;

	if (weight(r) < weight(w->result) || (r == w->result && *w->why))
		return;
	w->result = r;
	va_start(ap, fmt);
	(void)vsnprintf(w->why, sizeof(w->why), fmt, ap);
	va_end(ap);
}

/* For reading: SG_IO asks for CAP_SYS_RAWIO instead, and udev would look at the disk anew each time that one who could have written closes it. */
static int open_path(const struct disk *d, unsigned path) { return open(d->lun.path[path], O_RDONLY | O_NONBLOCK | O_CLOEXEC); }

static void find(struct work *w, const char *name, enum reservation_op op)
{
	struct disk *d = &w->disk[w->n++];
	char why[RESERVE_SG_WHY_LEN];

	d->name = name;
	d->found = reserve_sg_find(name, "/sys", &d->lun, why);
	d->silent = d->later = d->found == RESERVE_SG_FOUND ? d->lun.down : 0;
	/* One that nobody can open, QEMU neither, hides nothing: what comes of its start is for the restart policy. One that cannot be reserved has no key to be taken back. */
	if (d->found == RESERVE_SG_FOUND || (op == RESERVATION_LOOK && d->found != RESERVE_SG_NOT_NOW) ||
	    ((op == RESERVATION_CLEAR || op == RESERVATION_LEAVE) && d->found == RESERVE_SG_NEVER))
		return;
	judge(w, d->found == RESERVE_SG_NEVER && (op == RESERVATION_JOIN || op == RESERVATION_PROBE) ? RESERVATION_NONE : RESERVATION_FAILED, "disk %s: %s", name, why);
}

static void open_paths(struct disk *d)
{
	for (unsigned i = 0; d->found == RESERVE_SG_FOUND && i < d->lun.n; i++) {
		d->fd[i] = d->silent >> i & 1 ? -1 : open_path(d, i);
		d->later |= d->fd[i] < 0 && !(d->silent >> i & 1) ? 1U << i : 0;
	}
}

static void leave_out(struct disk *d, unsigned path, bool later)
{
	(void)close(d->fd[path]);
	d->fd[path] = -1;
	d->later |= later ? 1U << path : 0;
}

/* ---- all paths at once ---- */

struct asked { uint8_t disk, path; bool answers, later; };

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * MS_PER_S + t.tv_nsec / NS_PER_MS;
}

/* In a process of its own. It may be in the kernel for long: whoever comes next, and whoever reads our stdout, need not wait for that. */
_Noreturn static void ask_path(const struct work *w, struct asked a, int out)
{
	static struct reservation_answer answer;
	struct reservation_command c = { .kind = RESERVATION_READ_KEYS, .path = a.path, .key = w->key };
	int fd;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)close(STDOUT_FILENO);
	if (w->lock >= 0)
		(void)close(w->lock);
	fd = open_path(&w->disk[a.disk], a.path);
	if (fd >= 0)
		reserve_sg_send(fd, &c, &answer);
	a.answers = fd >= 0 && answer.status != RESERVATION_ERROR;
	a.later = fd < 0 || answer.later;
	_exit(write(out, &a, sizeof(a)) == (ssize_t)sizeof(a) ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* Whoever was asked counts as one that may answer another time, until something is heard. */
static void hear_paths(struct work *w, int in)
{
	int64_t until = now_ms() + ASK_MS;
	struct pollfd fd = { .fd = in, .events = POLLIN };
	struct asked a;
	int64_t left;

	while ((left = until - now_ms()) > 0) {
		if (poll(&fd, 1, (int)left) <= 0)
			continue;
		if (read(in, &a, sizeof(a)) != (ssize_t)sizeof(a)) /* nobody is left in it */
			return;
		if (a.answers)
			w->disk[a.disk].silent &= ~(1U << a.path);
		if (a.answers || !a.later)
			w->disk[a.disk].later &= ~(1U << a.path);
	}
}

/* Who cannot be asked this way is asked in its turn. */
static void ask_paths(struct work *w)
{
	unsigned n = 0;
	int fd[2];
	pid_t pid;

	for (unsigned i = 0; i < w->n; i++)
		for (unsigned p = 0; w->disk[i].found == RESERVE_SG_FOUND && p < w->disk[i].lun.n; p++)
			n += !(w->disk[i].silent >> p & 1);
	if (n < 2 || pipe2(fd, O_CLOEXEC) < 0)
		return;
	for (unsigned i = 0; i < w->n; i++)
		for (unsigned p = 0; w->disk[i].found == RESERVE_SG_FOUND && p < w->disk[i].lun.n; p++) {
			if (w->disk[i].silent >> p & 1)
				continue;
			pid = fork();
			if (pid == 0)
				ask_path(w, (struct asked){ .disk = (uint8_t)i, .path = (uint8_t)p }, fd[1]);
			if (pid > 0) {
				w->disk[i].silent |= 1U << p;
				w->disk[i].later |= 1U << p;
			}
		}
	(void)close(fd[1]);
	hear_paths(w, fd[0]);
	(void)close(fd[0]);
}

/* ---- plans ---- */

/* A path that has not answered is not waited for in each plan anew. */
static enum reservation_result carry_out(struct work *w, struct disk *d, enum reservation_op op)
{
	static struct reservation_answer answer;
	struct reservation_plan p;
	struct reservation_command c;

	reservation_plan_init(&p, op, w->key, d->lun.n, w->volatile_ok);
	while ((c = reservation_next(&p)).kind != RESERVATION_END) {
		if (d->fd[c.path] >= 0)
			reserve_sg_send(d->fd[c.path], &c, &answer);
		else
			answer = (struct reservation_answer){ .status = RESERVATION_ERROR, .later = d->later >> c.path & 1 };
		reservation_answer(&p, &answer);
	}
	for (unsigned i = 0; i < d->lun.n; i++)
		if ((p.away >> i & 1) && d->fd[i] >= 0)
			leave_out(d, i, p.later);
	if (p.result == RESERVATION_FOREIGN)
		judge(w, p.result, "disk %s: key 0x%016llx is registered, which is none of this cluster's: if nobody uses the LUN any more, remove it with `sg_persist --out --clear` "
		      "from an initiator that has registered", d->name, (unsigned long long)p.strange);
	else if (*p.why)
		judge(w, p.result, "disk %s: %s", d->name, p.why);
	else
		judge(w, p.result, "%s", "");
	return p.result;
}

/* all: whatever comes of it on one disk it is done on the others, too. */
static void on_each(struct work *w, enum reservation_op op, bool all)
{
	enum reservation_result r;

	for (unsigned i = 0; i < w->n; i++) {
		if (w->disk[i].found != RESERVE_SG_FOUND)
			continue;
		r = carry_out(w, &w->disk[i], op);
		if (!all && r != RESERVATION_OK)
			return;
	}
}

/* What its other disks still have from before: why it goes without is said already. */
static void look(struct work *w)
{
	struct work l = *w;

	l.result = RESERVATION_OK;
	l.why[0] = '\0';
	on_each(&l, RESERVATION_LOOK, true);
	if (l.result == RESERVATION_STANDS)
		w->result = RESERVATION_STANDS;
	else if (weight(l.result) > weight(RESERVATION_STANDS))
		*w = l;
}

static void run(struct work *w, enum reservation_op op, char **names, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		find(w, names[i], op);
	if (op == RESERVATION_JOIN || op == RESERVATION_OWN || op == RESERVATION_LOOK || op == RESERVATION_CLEAR)
		ask_paths(w);
	for (unsigned i = 0; i < n; i++)
		open_paths(&w->disk[i]);
	switch (op) {
	case RESERVATION_JOIN:
		if (n == 0)
			judge(w, RESERVATION_NONE, "its file has no Disk=");
		on_each(w, RESERVATION_PROBE, true);
		if (w->result == RESERVATION_OK)
			on_each(w, RESERVATION_JOIN, false);
		else if (w->result == RESERVATION_NONE)
			look(w);
		break;
	case RESERVATION_LOOK:
		if (w->result != RESERVATION_OK) /* what is reserved of one of them cannot be seen now */
			break;
		judge(w, RESERVATION_NONE, "Reservation=no");
		look(w);
		break;
	case RESERVATION_OWN:
		if (w->result == RESERVATION_OK)
			on_each(w, RESERVATION_CHECK, false);
		/* fall through */
	case RESERVATION_CLEAR:
		if (w->result == RESERVATION_OK)
			on_each(w, op, false);
		break;
	default:
		on_each(w, op, true);
	}
}

/* Its end is waited for as long as the agent lets us: it may be in the kernel, whatever has killed it. */
static bool lock(struct work *w, const char *path)
{
	w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return w->lock >= 0 && flock(w->lock, LOCK_EX) == 0;
}

static int usage(void)
{
	(void)fputs("usage: ha-reserve [--volatile] [--agent PID] [--lock FILE] probe|join|own|check|keep|leave|look|clear|release KEY DISK...\n"
		    "For ha-agent: SCSI-3 persistent reservations of a VM's disks. See Reservation= in kvm-ha.conf(5).\n", stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "volatile", no_argument, NULL, 'v' }, { "agent", required_argument, NULL, 'a' }, { "lock", required_argument, NULL, 'l' }, { 0 } };
	static struct work w = { .result = RESERVATION_OK, .lock = -1 };
	const char *lock_path = NULL;
	enum reservation_op op;
	char *end = NULL;
	long agent = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'v')
			w.volatile_ok = true;
		else if (c == 'a')
			agent = strtol(optarg, NULL, 10);
		else if (c == 'l')
			lock_path = optarg;
		else
			return usage();
	}
	if (argc - optind < 2 || argc - optind - 2 > MAX_DISKS || !reservation_op_parse(argv[optind], &op))
		return usage();
	errno = 0;
	w.key = strtoull(argv[optind + 1], &end, 16);
	if (errno != 0 || *end || w.key == 0)
		return usage();
	/* What it has begun under its agent's word ends with that agent, which may have ended already. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (agent != 0 && getppid() != agent)
		return EXIT_FAILURE;
	if (lock_path && !lock(&w, lock_path))
		judge(&w, RESERVATION_FAILED, "%s: %s", lock_path, strerror(errno));
	else
		run(&w, op, argv + optind + 2, (unsigned)(argc - optind - 2));
	for (char *p = w.why; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	(void)printf("%s %s\n", reservation_result_name(w.result), w.why);
	return 0;
}
