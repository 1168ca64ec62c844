/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-reserve with disks of the test's own: what is done with several of them, what comes of it for their VM, and paths that keep whoever asks them. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

static int open_kept(const char *name, int flags, ...);
#define open(...) open_kept(__VA_ARGS__)
int ha_reserve_main(int argc, char **argv);
#define main ha_reserve_main
#define ASK_MS 2000
#include "agent/ha_reserve.c"
#undef main
#undef open
#include "tests/tap.h"

#define KEY 0x1234560100000005ULL
#define PEER 0x1234560200000009ULL
#define STRANGER 0xbadc0ffee0ddf00dULL
#define DISKS 3
#define PATHS 2

static struct {
	enum reserve_sg_found found;
	bool no_pr, dead /* its paths are down */, mute /* no answer by any */, busy, held;
	unsigned silent, stuck; /* bit: a path that keeps whoever asks it; whoever opens it, as one whose host is in error recovery */
	uint64_t mine, other;
	unsigned registers, preempts, commands, kept;
} disk[DISKS];
static char top[64];
static pid_t self;

static int index_of(const char *name) { return name[strlen(name) - 1] - '0'; }

static void path_of(int i, unsigned path, char ret[RESERVE_SG_NAME_LEN]) { (void)snprintf(ret, RESERVE_SG_NAME_LEN, "%.40s/%u%d", top, path, i); }

enum reserve_sg_found reserve_sg_find(const char *name, const char *sys, struct reserve_sg_lun *ret, char why[RESERVE_SG_WHY_LEN])
{
	int i = index_of(name);

	ret->n = PATHS;
	ret->down = disk[i].dead ? 3 : 0;
	for (unsigned p = 0; p < PATHS; p++)
		path_of(i, p, ret->path[p]);
	(void)snprintf(why, RESERVE_SG_WHY_LEN, "why of %d", i);
	return disk[i].found;
}

static int open_kept(const char *name, int flags, ...)
{
	char path[RESERVE_SG_NAME_LEN];

	for (int i = 0; i < DISKS; i++)
		for (unsigned p = 0; p < PATHS; p++) {
			path_of(i, p, path);
			if (!streq(name, path) || !(disk[i].stuck >> p & 1))
				continue;
			while (getpid() != self)
				(void)pause();
			disk[i].kept++; /* the others would not be opened before it is over */
		}
	return open(name, flags, 0600);
}

static int disk_of(int fd, unsigned *ret_path)
{
	char name[RESERVE_SG_NAME_LEN];
	struct stat st, other;

	for (int i = 0; fstat(fd, &st) == 0 && i < DISKS; i++)
		for (unsigned p = 0; p < PATHS; p++) {
			path_of(i, p, name);
			*ret_path = p;
			if (stat(name, &other) == 0 && other.st_ino == st.st_ino)
				return i;
		}
	abort();
}

void reserve_sg_send(int fd, const struct reservation_command *c, struct reservation_answer *ret)
{
	unsigned path;
	int i = disk_of(fd, &path);

	disk[i].commands++;
	*ret = (struct reservation_answer){ .status = disk[i].no_pr ? RESERVATION_REFUSED : RESERVATION_GOOD };
	if (disk[i].silent >> path & 1) {
		while (getpid() != self)
			(void)pause();
		disk[i].kept++; /* the others would not be asked before it is over */
	}
	if ((disk[i].silent >> path & 1) || disk[i].mute || disk[i].busy)
		*ret = (struct reservation_answer){ .status = RESERVATION_ERROR, .later = disk[i].busy };
	if (ret->status != RESERVATION_GOOD)
		return;
	switch (c->kind) {
	case RESERVATION_REPORT_CAPABILITIES:
		ret->capabilities = (struct reservation_capabilities){ true, true, true };
		break;
	case RESERVATION_READ_KEYS:
		if (disk[i].mine)
			ret->keys.key[ret->keys.n++] = disk[i].mine;
		if (disk[i].other)
			ret->keys.key[ret->keys.n++] = disk[i].other;
		break;
	case RESERVATION_READ_HOLDER:
		ret->holder = (struct reservation_holder){ disk[i].held, disk[i].mine, RESERVATION_WERO };
		break;
	case RESERVATION_REGISTER:
		if (disk[i].mine != c->key)
			ret->status = RESERVATION_CONFLICT;
		else
			disk[i].mine = c->service_key;
		break;
	case RESERVATION_REGISTER_IGNORE:
		disk[i].registers++;
		disk[i].mine = c->service_key;
		break;
	case RESERVATION_RESERVE:
		disk[i].held = true;
		break;
	case RESERVATION_PREEMPT:
	case RESERVATION_PREEMPT_ABORT:
		disk[i].preempts++;
		disk[i].other = 0;
		disk[i].held = true;
		break;
	default:
		break;
	}
}

static enum reservation_result play_locked(enum reservation_op op, char *why, int lock_fd)
{
	static struct work w;
	char *names[DISKS] = { "/disk/0", "/disk/1", "/disk/2" };

	w = (struct work){ .result = RESERVATION_OK, .key = KEY, .lock = lock_fd };
	run(&w, op, names, DISKS);
	for (unsigned i = 0; i < w.n; i++)
		for (unsigned p = 0; p < PATHS; p++)
			if (w.disk[i].found == RESERVE_SG_FOUND && w.disk[i].fd[p] >= 0)
				(void)close(w.disk[i].fd[p]);
	(void)snprintf(why, sizeof(w.why), "%s", w.why);
	return w.result;
}

static enum reservation_result play(enum reservation_op op, char *why) { return play_locked(op, why, -1); }

static void test_all(void)
{
	char why[400];

	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_OK && disk[0].mine == KEY && disk[2].mine == KEY, "join: each disk");
	disk[1].other = PEER;
	TAP_OK(play(RESERVATION_KEEP, why) == RESERVATION_OTHERS && strstr(why, "/disk/1"), "keep: somebody else on one of them is told");
	TAP_OK(play(RESERVATION_OWN, why) == RESERVATION_OK && disk[0].held && disk[1].held && disk[2].held && disk[1].other == 0 && !*why, "own: each");
	disk[0].other = PEER;
	disk[1].mine = 0;
	disk[2].other = PEER;
	memset(why, 0, sizeof(why));
	disk[0].preempts = disk[2].commands = 0;
	TAP_OK(play(RESERVATION_OWN, why) == RESERVATION_LOST && disk[0].preempts == 0 && disk[2].commands == 0 && strstr(why, "/disk/1"),
	       "own: one is not registered any more: nobody is preempted on any");
}

static void test_some(void)
{
	char why[400];

	memset(disk, 0, sizeof(disk));
	disk[1].found = RESERVE_SG_NOT_NOW;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[0].registers == 0 && strstr(why, "why of 1"), "join: one cannot be asked at the moment: failed, and nothing is registered");
	disk[1].found = RESERVE_SG_ABSENT;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[0].registers == 0 && strstr(why, "why of 1"), "join: one is not there: the same");
	disk[1].found = RESERVE_SG_NEVER;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_NONE && disk[0].registers == 0 && strstr(why, "why of 1"), "join: one that cannot be reserved: none is, and why");
	disk[2].other = PEER;
	disk[2].held = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_STANDS && disk[0].registers == 0 && disk[2].mine == KEY && strstr(why, "why of 1"),
	       "but another one is reserved from before: registered there, to do away with it");
	TAP_OK(play(RESERVATION_CLEAR, why) == RESERVATION_OK && disk[2].mine == 0 && disk[2].other == 0 && disk[0].mine == 0, "clear: it is done away with");

	memset(disk, 0, sizeof(disk));
	disk[0].no_pr = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_NONE && disk[1].registers == 0, "join: a target that knows no reservations");
	disk[0].no_pr = false;
	disk[0].dead = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[1].registers == 0, "join: one whose only paths are down: failed");
	disk[0].dead = false;
	disk[1].other = STRANGER;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FOREIGN && strstr(why, "badc0ffee0ddf00d") && disk[0].registers == 0, "join: a stranger's key, named");
}

static void test_look(void)
{
	char why[400];

	memset(disk, 0, sizeof(disk));
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_NONE && disk[0].registers == 0, "look: nothing is there");
	disk[0].other = PEER;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_STANDS && disk[0].mine == KEY && disk[2].mine == 0, "look: a reservation that was left");
	disk[0].found = RESERVE_SG_NOT_NOW;
	TAP_OK(play(RESERVATION_CLEAR, why) == RESERVATION_FAILED, "clear: it is not to be had any more: failed");
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && strstr(why, "why of 0"), "look: nor can be seen whether one stands");
	disk[1].other = PEER;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && disk[1].registers == 0, "which another disk's, that does stand, does not hide");
	disk[0].found = RESERVE_SG_ABSENT;
	TAP_OK(play(RESERVATION_CLEAR, why) == RESERVATION_FAILED, "clear: it is not there at all: failed");
	disk[1].other = disk[1].mine = 0;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_NONE, "look: that is for QEMU to say, and the restart policy");

	memset(disk, 0, sizeof(disk));
	disk[0].dead = true;
	disk[0].other = PEER;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && strstr(why, "/disk/0"), "look: each path of one is down: failed");
	disk[0].dead = false;
	disk[0].busy = true;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED, "look: its target is busy: failed");
	disk[0].busy = false;
	disk[0].mute = true;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_NONE, "look: one that does not know the question is used as ever");
	memset(disk, 0, sizeof(disk));
	disk[1].found = RESERVE_SG_NEVER;
	disk[0].dead = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED, "join: of one that cannot be reserved and one that is down: failed");
}

static void test_leave(void)
{
	char why[400];

	memset(disk, 0, sizeof(disk));
	disk[0].mine = KEY;
	disk[1].found = RESERVE_SG_NEVER;
	TAP_OK(play(RESERVATION_LEAVE, why) == RESERVATION_OK && disk[0].mine == 0 && !*why, "leave: of one that cannot be reserved there is nothing to be taken back");
	disk[0].mine = KEY;
	disk[1].found = RESERVE_SG_ABSENT;
	TAP_OK(play(RESERVATION_LEAVE, why) == RESERVATION_FAILED && disk[0].mine == 0 && strstr(why, "why of 1"), "of one that is not there a key may be left");
	disk[0].found = disk[1].found = disk[2].found = RESERVE_SG_NEVER;
	TAP_OK(play(RESERVATION_LEAVE, why) == RESERVATION_OK && !*why, "leave: no disk that can be reserved");
}

/* Whoever asks such a path is kept for as long as the kernel likes. */
static void test_kept(void)
{
	char why[400], name[RESERVE_SG_NAME_LEN];
	int held, again;

	memset(disk, 0, sizeof(disk));
	disk[0].silent = 1;
	disk[1].silent = 2;
	disk[2].silent = 1;
	disk[1].other = PEER;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_OK && disk[0].mine == KEY && disk[1].mine == KEY && disk[2].mine == KEY, "join: a path of each disk keeps whoever asks it: by the others");
	TAP_OK(disk[0].kept + disk[1].kept + disk[2].kept == 0, "which wait for none of them");
	TAP_OK(play(RESERVATION_OWN, why) == RESERVATION_OK && disk[1].other == 0 && disk[0].kept + disk[1].kept + disk[2].kept == 0 && strstr(why, "not every path"), "own: the same");
	disk[1].other = PEER;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_STANDS && play(RESERVATION_CLEAR, why) == RESERVATION_OK && disk[1].mine == 0 && disk[0].kept + disk[1].kept + disk[2].kept == 0,
	       "look, and clear: the same");
	disk[2].silent = 3;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && strstr(why, "/disk/2") && disk[2].kept == 0, "look: one that keeps whoever asks it by each path: failed");
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[0].mine == 0 && disk[2].kept == 0, "join: the same");

	(void)snprintf(name, sizeof(name), "%.40s/lock", top);
	held = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	TAP_OK(held >= 0 && flock(held, LOCK_EX) == 0 && play_locked(RESERVATION_LOOK, why, held) == RESERVATION_FAILED, "under its lock");
	(void)close(held);
	again = open(name, O_RDWR | O_CLOEXEC);
	TAP_OK(again >= 0 && flock(again, LOCK_EX | LOCK_NB) == 0, "whoever is kept keeps out nobody who comes next");
	(void)close(again);
	(void)unlink(name);
}

/* The same when it is opened already. */
static void test_stuck(void)
{
	char why[400], name[RESERVE_SG_NAME_LEN];

	memset(disk, 0, sizeof(disk));
	disk[0].stuck = 1;
	disk[1].stuck = 2;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_OK && disk[0].mine == KEY && disk[1].mine == KEY && disk[2].mine == KEY && disk[0].kept + disk[1].kept == 0,
	       "join: a path keeps whoever opens it: by the others, which wait for none");
	disk[0].stuck = 3;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && strstr(why, "/disk/0") && disk[0].kept == 0, "look: each path keeps whoever opens it: failed");

	memset(disk, 0, sizeof(disk));
	path_of(0, 0, name);
	(void)unlink(name);
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_OK && disk[0].mine == KEY && strstr(why, "not every path"), "join: a path that cannot be opened: by the other");
	path_of(0, 1, name);
	(void)unlink(name);
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_FAILED && strstr(why, "/disk/0"), "look: none can: failed");
	TAP_OK(play(RESERVATION_KEEP, why) == RESERVATION_FAILED && strstr(why, "/disk/0"), "keep: the same");
}

int main(void)
{
	char template[] = "/tmp/ha_reserve.XXXXXX", name[RESERVE_SG_NAME_LEN];

	self = getpid();
	TAP_OK(mkdtemp(template), "a place for its paths");
	(void)snprintf(top, sizeof(top), "%s", template);
	for (int i = 0; i < DISKS; i++)
		for (unsigned p = 0; p < PATHS; p++) {
			path_of(i, p, name);
			(void)close(open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
		}
	test_all();
	test_some();
	test_look();
	test_leave();
	test_kept();
	test_stuck();
	for (int i = 0; i < DISKS; i++)
		for (unsigned p = 0; p < PATHS; p++) {
			path_of(i, p, name);
			(void)unlink(name);
		}
	(void)rmdir(top);
	return tap_done();
}
