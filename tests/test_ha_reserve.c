/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-reserve with disks of the test's own: what is done with several of them, and what comes of it for their VM. */
#include <stdlib.h>

int ha_reserve_main(int argc, char **argv);
#define main ha_reserve_main
#include "agent/ha_reserve.c"
#undef main
#include "tests/tap.h"

#define KEY 0x1234560100000005ULL
#define PEER 0x1234560200000009ULL
#define STRANGER 0xbadc0ffee0ddf00dULL
#define DISKS 3

static struct { enum reserve_sg_found found; bool no_pr, dead, held; uint64_t mine, other; unsigned registers, preempts, commands; } disk[DISKS];
static int fd_of[DISKS]; /* as it was opened last */

static int index_of(const char *name) { return name[strlen(name) - 1] - '0'; }

enum reserve_sg_found reserve_sg_find(const char *name, const char *sys, struct reserve_sg_lun *ret, char why[RESERVE_SG_WHY_LEN])
{
	int i = index_of(name);

	ret->n = 1;
	ret->down = disk[i].dead ? 1 : 0;
	(void)snprintf(ret->path[0], RESERVE_SG_NAME_LEN, "/dev/null");
	(void)snprintf(why, RESERVE_SG_WHY_LEN, "why of %d", i);
	return disk[i].found;
}

/* Descriptors come in the disks' order. */
static int disk_of(int fd)
{
	for (int i = 0; i < DISKS; i++)
		if (fd_of[i] == fd)
			return i;
	for (int i = 0; i < DISKS; i++)
		if (fd_of[i] < 0 && disk[i].found == RESERVE_SG_FOUND && !disk[i].dead) {
			fd_of[i] = fd;
			return i;
		}
	return 0;
}

void reserve_sg_send(int fd, const struct reservation_command *c, struct reservation_answer *ret)
{
	int i = disk_of(fd);

	disk[i].commands++;
	*ret = (struct reservation_answer){ .status = disk[i].no_pr ? RESERVATION_REFUSED : RESERVATION_GOOD };
	if (disk[i].no_pr)
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

static enum reservation_result play(enum reservation_op op, char *why)
{
	static struct work w;
	char *names[DISKS] = { "/disk/0", "/disk/1", "/disk/2" };

	w = (struct work){ .result = RESERVATION_OK, .key = KEY };
	for (unsigned i = 0; i < DISKS; i++)
		fd_of[i] = -1;
	run(&w, op, names, DISKS);
	for (unsigned i = 0; i < w.n; i++)
		if (w.disk[i].found == RESERVE_SG_FOUND && w.disk[i].fd[0] >= 0)
			(void)close(w.disk[i].fd[0]);
	(void)snprintf(why, sizeof(w.why), "%s", w.why);
	return w.result;
}

int main(void)
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

	memset(disk, 0, sizeof(disk));
	disk[1].found = RESERVE_SG_NOT_NOW;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[0].registers == 0 && strstr(why, "why of 1"), "join: one is not there at the moment: failed, and nothing is registered");
	disk[1].found = RESERVE_SG_NEVER;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_NONE && disk[0].registers == 0 && strstr(why, "why of 1"), "join: one that cannot be reserved: none is, and why");
	disk[2].other = PEER;
	disk[2].held = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_STANDS && disk[0].registers == 0 && disk[2].mine == KEY && strstr(why, "why of 1"),
	       "but another one is reserved from before: registered there, to do away with it");
	TAP_OK(play(RESERVATION_CLEAR, why) == RESERVATION_OK && disk[2].mine == 0 && disk[2].other == 0 && disk[0].mine == 0, "clear: it is done away with");
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_NONE && disk[0].registers == 0, "look: nothing is there");
	disk[0].other = PEER;
	TAP_OK(play(RESERVATION_LOOK, why) == RESERVATION_STANDS && disk[0].mine == KEY && disk[2].mine == 0, "look: a reservation that was left");
	disk[0].found = RESERVE_SG_NOT_NOW;
	TAP_OK(play(RESERVATION_CLEAR, why) == RESERVATION_FAILED, "clear: it is not there any more: failed");

	memset(disk, 0, sizeof(disk));
	disk[0].no_pr = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_NONE && disk[1].registers == 0, "join: a target that knows no reservations");
	disk[0].no_pr = false;
	disk[0].dead = true;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FAILED && disk[1].registers == 0, "join: one whose only path is down: failed");
	disk[0].dead = false;
	disk[1].other = STRANGER;
	TAP_OK(play(RESERVATION_JOIN, why) == RESERVATION_FOREIGN && strstr(why, "badc0ffee0ddf00d") && disk[0].registers == 0, "join: a stranger's key, named");
	return tap_done();
}
