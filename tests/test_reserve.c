/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/reserve.c with processes that say what the test wants: what is answered, once each; marks; one that hangs; what is logged; Reservation=no. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "storage/reserve_sg.h"
#include "tests/tap.h"

static const char *says = "echo 'ok '";
static struct { unsigned spawned, told, errors, warnings; char op[16], agent[32], lock[128], cannot[200]; struct agent_event ev; } seen;
static uint64_t from; /* of agents before, whose timers go on here, nothing is heard */
static struct catalog_entry entry;
static struct catalog_doc *no_doc;
static struct agentd d;
static struct reserver *r;
static struct vm v;
static uint64_t limit_ns; /* as it was set last */
static bool hurry;        /* it is over at once */
static int spawn_error;   /* 0: none */

#define LONG_MS 15000 /* nothing else takes as long */

int32_t qb_loop_timer_add(qb_loop_t *loop, enum qb_loop_priority p, uint64_t ns, void *data, qb_loop_timer_dispatch_fn on, qb_loop_timer_handle *ret)
{
	int32_t (*real)(qb_loop_t *, enum qb_loop_priority, uint64_t, void *, qb_loop_timer_dispatch_fn, qb_loop_timer_handle *);
	void *symbol = dlsym(RTLD_NEXT, "qb_loop_timer_add");

	memcpy(&real, &symbol, sizeof(real));
	if (ns >= LONG_MS * NS_PER_MS) {
		limit_ns = ns;
		ns = hurry ? 100 * NS_PER_MS : ns;
	}
	return real(loop, p, ns, data, on, ret);
}

void agentd_say(struct agentd *a, enum log_level level, const char *fmt, ...)
{
	seen.errors += level == LOG_LEVEL_ERR;
	seen.warnings += level == LOG_LEVEL_WARNING;
}

void mover_cannot(struct mover *m, const uint8_t uuid[16], const char *why) { (void)snprintf(seen.cannot, sizeof(seen.cannot), "%s", why); }

void agentd_event(struct agentd *a, const struct agent_event *ev)
{
	if (ev->number < from)
		return;
	seen.told++;
	seen.ev = *ev;
	qb_loop_stop(d.loop);
}

struct catalog_entry *catalog_by_uuid(const struct catalog_doc *c, const uint8_t uuid[16]) { return &entry; }

int spawn_piped(const char *const argv[], int in, int out, pid_t *ret)
{
	unsigned op = 1;

	for (; argv[op] && *argv[op] == '-'; op++) {
		if (strncmp(argv[op], "--agent=", 8) == 0)
			(void)snprintf(seen.agent, sizeof(seen.agent), "%s", argv[op] + 8);
		if (strncmp(argv[op], "--lock=", 7) == 0)
			(void)snprintf(seen.lock, sizeof(seen.lock), "%s", argv[op] + 7);
	}
	if (spawn_error)
		return spawn_error;
	seen.spawned++;
	(void)snprintf(seen.op, sizeof(seen.op), "%s", argv[op]);
	*ret = fork();
	if (*ret == 0) {
		(void)dup2(out, 1);
		(void)execl("/bin/sh", "sh", "-c", says, NULL);
		_exit(127);
	}
	return *ret < 0 ? -1 : 0;
}

static void on_enough(void *data) { qb_loop_stop(d.loop); }

/* Until something is told, or that long. */
static void run(int ms)
{
	qb_loop_timer_handle h;

	(void)qb_loop_timer_add(d.loop, QB_LOOP_LOW, (uint64_t)ms * NS_PER_MS, NULL, on_enough, &h);
	qb_loop_run(d.loop);
	(void)qb_loop_timer_del(d.loop, h);
}

static bool answered(enum reservation_op op, uint64_t number, enum reservation_result result)
{
	bool ok = seen.told == 1 && seen.ev.kind == AGENT_EV_RESERVED && seen.ev.reserve == op && seen.ev.number == number && seen.ev.reserved == result &&
		  memcmp(seen.ev.uuid, v.def.uuid, 16) == 0;

	if (!ok)
		printf("# told %u: op %d number %llu result %d\n", seen.told, (int)seen.ev.reserve, (unsigned long long)seen.ev.number, (int)seen.ev.reserved);
	seen.told = 0;
	return ok;
}

static void ask(enum reservation_op op, uint64_t number, const char *text)
{
	says = text;
	reserver_ask(r, &v, op, number);
}

static void begin(uint32_t epoch)
{
	d.core.epoch = epoch;
	TAP_OK(reserver_new(&d, &r) == 0, "an agent starts");
}

static bool marked(const char *word)
{
	char text[64] = "";
	FILE *f = fopen(MARK_DIR "/07000000-0000-0000-0000-000000000000", "re");

	if (!f)
		return !*word;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	(void)fclose(f);
	return *word && strncmp(text, word, strlen(word)) == 0;
}

static void test_answers(void)
{
	ask(RESERVATION_JOIN, 1, "echo 'ok '");
	TAP_OK(seen.told == 0, "nothing is told from within the question");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 1, RESERVATION_OK) && streq(seen.op, "join") && marked("joined"), "joined, and marked");
	TAP_OK(atol(seen.agent) == (long)getpid() && streq(seen.lock, MARK_DIR "/07000000-0000-0000-0000-000000000000.lock"), "who asks, and what keeps others out, is said");
	ask(RESERVATION_OWN, 2, "echo 'failed disk /dev/x: no answer'");
	run(5000);
	TAP_OK(answered(RESERVATION_OWN, 2, RESERVATION_FAILED) && marked("joined") && strstr(reserver_text(r, v.def.uuid), "/dev/x"), "failed: as it was, and why");
	ask(RESERVATION_OWN, 3, "echo rubbish");
	run(5000);
	TAP_OK(answered(RESERVATION_OWN, 3, RESERVATION_FAILED) && marked("joined"), "one word that is no result: failed");
	ask(RESERVATION_OWN, 4, "echo 'ok '; exit 3");
	run(5000);
	TAP_OK(answered(RESERVATION_OWN, 4, RESERVATION_FAILED), "an exit status: failed");
	ask(RESERVATION_OWN, 5, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_OWN, 5, RESERVATION_OK) && marked("owned"), "owned");
}

static void test_restart(void)
{
	begin(5);
	ask(RESERVATION_LEARN, 1, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEARN, 1, RESERVATION_OK) && streq(seen.op, "keep"), "after a restart: its key is looked at");
	begin(6);
	seen.spawned = 0;
	ask(RESERVATION_LEARN, 2, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEARN, 2, RESERVATION_NONE) && seen.spawned == 0, "of an epoch before: what runs is not reserved");
	begin(5);
	ask(RESERVATION_JOIN, 3, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_JOIN, 3, RESERVATION_OK);
	begin(5);
	ask(RESERVATION_LEARN, 4, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEARN, 4, RESERVATION_OK) && streq(seen.op, "own") && marked("owned"), "a migration's target that has not owned yet does");
}

/* Tried again and again: logged when something is new. */
static void test_log(void)
{
	ask(RESERVATION_JOIN, 1, "echo 'ok '");
	run(5000);
	seen.told = seen.errors = 0;
	for (unsigned i = 2; i < 6; i++) {
		ask(RESERVATION_OWN, i, i < 5 ? "echo 'failed disk /dev/x: no answer'" : "echo 'failed disk /dev/x: refused'");
		run(5000);
		(void)answered(RESERVATION_OWN, i, RESERVATION_FAILED);
	}
	TAP_OK(seen.errors == 2, "four failures, of two kinds: logged twice");
	ask(RESERVATION_OWN, 6, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_OWN, 6, RESERVATION_OK);
	ask(RESERVATION_OWN, 7, "echo 'failed disk /dev/x: refused'");
	run(5000);
	TAP_OK(answered(RESERVATION_OWN, 7, RESERVATION_FAILED) && seen.errors == 3, "and once more when it was well in between");
}

/* What was reserved before is done away with: before a start; of what runs. */
static void test_no(void)
{
	char *disk = entry.file.disks[0], file[] = "/var/lib/x.qcow2";

	begin(5);
	ask(RESERVATION_JOIN, 1, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_JOIN, 1, RESERVATION_OK);
	ask(RESERVATION_OWN, 2, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_OWN, 2, RESERVATION_OK);
	d.conf.reservation = CONF_RESERVATION_NO;
	begin(5);
	ask(RESERVATION_LEARN, 3, "echo 'failed disk /dev/x: it is still reserved'");
	run(5000);
	TAP_OK(answered(RESERVATION_LEARN, 3, RESERVATION_FAILED) && streq(seen.op, "release") && marked("owned"), "Reservation=no: what runs reserved is to be released, which fails: still marked");
	ask(RESERVATION_LEARN, 4, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEARN, 4, RESERVATION_NONE) && marked(""), "released: it runs without");
	seen.warnings = 0;
	ask(RESERVATION_JOIN, 5, "echo 'none Reservation=no'");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 5, RESERVATION_NONE) && streq(seen.op, "look") && marked("") && seen.warnings == 0, "a start: its disk is looked at, and that it goes without is no news");
	ask(RESERVATION_JOIN, 6, "echo 'stands Reservation=no'");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 6, RESERVATION_STANDS) && marked("") && !*seen.cannot, "a reservation was left");
	ask(RESERVATION_CLEAR, 7, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_CLEAR, 7, RESERVATION_OK) && streq(seen.op, "clear") && marked(""), "and is done away with");
	entry.file.disks[0] = file;
	seen.spawned = 0;
	ask(RESERVATION_JOIN, 8, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 8, RESERVATION_NONE) && seen.spawned == 0, "of a VM with no device nobody asks");
	ask(RESERVATION_LEAVE, 9, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEAVE, 9, RESERVATION_OK) && seen.spawned == 0, "nor is there a key to be taken back");
	entry.file.disks[0] = disk;
	d.core.vm[0] = (struct vm){ .used = true, .def = v.def, .state = VM_INCOMING };
	d.core.vm_end = 1;
	ask(RESERVATION_JOIN, 10, "echo 'stands Reservation=no'");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 10, RESERVATION_STANDS) && strstr(seen.cannot, "reserved"), "a migration's target: its source is told that it cannot");
	d.core.vm_end = 0;
	d.conf.reservation = CONF_RESERVATION_YES;
}

/* Whether its disk is reserved for another node nobody has seen. */
static void test_no_process(void)
{
	begin(5);
	d.conf.reservation = CONF_RESERVATION_NO;
	spawn_error = -EAGAIN;
	ask(RESERVATION_JOIN, 1, "");
	TAP_OK(seen.told == 0, "a process that cannot be made is not told from within the question");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 1, RESERVATION_FAILED) && strstr(reserver_text(r, v.def.uuid), "cannot start"), "Reservation=no, and no process to be had: failed for now, and why");
	spawn_error = -ENOENT;
	ask(RESERVATION_JOIN, 2, "");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 2, RESERVATION_NONE), "ha-reserve is not installed: without");
	d.conf.reservation = CONF_RESERVATION_YES;
	ask(RESERVATION_JOIN, 3, "");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 3, RESERVATION_FAILED), "but not where it is wanted");
	spawn_error = 0;
}

static void test_called_off(void)
{
	ask(RESERVATION_OWN, 10, "sleep 60");
	run(200);
	seen.spawned = seen.told = 0;
	ask(RESERVATION_LEAVE, 11, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_LEAVE, 11, RESERVATION_OK) && seen.spawned == 1 && streq(seen.op, "leave") && marked(""), "another question: the first is ended and not answered");
	ask(RESERVATION_OWN, 12, "sleep 60");
	ask(RESERVATION_FORGET, 13, "echo 'ok '");
	run(500);
	TAP_OK(seen.told == 0 && marked(""), "forgotten: no answer");
}

static void test_limit(void)
{
	char text[40];

	hurry = true;
	ask(RESERVATION_OWN, 14, "sleep 60");
	run(5000);
	hurry = false;
	TAP_OK(answered(RESERVATION_OWN, 14, RESERVATION_FAILED) && limit_ns > 3ULL * RESERVE_SG_ANSWER_MS * NS_PER_MS && limit_ns < 30000 * NS_PER_MS,
	       "no answer: failed, after three silent paths were waited for, and before the core's patience is over");
	(void)snprintf(text, sizeof(text), "no answer within %d s", (int)(limit_ns / NS_PER_MS / 1000));
	TAP_OK(streq(reserver_text(r, v.def.uuid), text), "which is said");
}

/* The reason why a VM goes without is asked for as long as it does. */
static void test_done(void)
{
	struct vm others = { 0 };

	begin(5);
	ask(RESERVATION_JOIN, 15, "echo 'none disk /dev/x: it is a partition'");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 15, RESERVATION_NONE) && strstr(reserver_text(r, v.def.uuid), "partition"), "one that goes without, and why");
	for (unsigned i = 1; i < 2 * AGENT_MAX_VMS; i++) {
		others.def.uuid[1] = (uint8_t)(i >> 8);
		others.def.uuid[2] = (uint8_t)i;
		reserver_ask(r, &others, RESERVATION_FORGET, 16);
	}
	TAP_OK(strstr(reserver_text(r, v.def.uuid), "partition"), "others have asked since: it is still said");
	others.def.uuid[0] = 9;
	reserver_ask(r, &others, RESERVATION_FORGET, 16);
	ask(RESERVATION_JOIN, 17, "echo 'ok '");
	run(5000);
	TAP_OK(answered(RESERVATION_JOIN, 17, RESERVATION_OK), "when there is no room left, what is done with makes some");
}

static void test_check(void)
{
	d.core.vm[0] = (struct vm){ .used = true, .def = v.def, .state = VM_INCOMING };
	d.core.vm_end = 1;
	ask(RESERVATION_JOIN, 20, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_JOIN, 20, RESERVATION_OK);
	from = 20;
	says = "echo 'lost disk /dev/x: its key is not registered any more'";
	run(14000);
	TAP_OK(answered(RESERVATION_CHECK, 20, RESERVATION_LOST) && streq(seen.op, "check"), "what has only joined makes no reservation when its key is looked at");
	ask(RESERVATION_OWN, 21, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_OWN, 21, RESERVATION_OK);
	from = 21;
	says = "echo 'lost disk /dev/x: its key is not registered any more'";
	run(14000);
	TAP_OK(answered(RESERVATION_CHECK, 21, RESERVATION_LOST) && streq(seen.op, "keep"), "its key is looked at by itself, and that it is gone is told");
	d.core.vm[0].state = VM_RESTARTING;
	ask(RESERVATION_OWN, 22, "echo 'ok '");
	run(5000);
	(void)answered(RESERVATION_OWN, 22, RESERVATION_OK);
	seen.spawned = 0;
	run(14000);
	TAP_OK(seen.spawned == 0, "not while it has no QEMU: what has come late would be reserved for nobody");
	d.core.vm_end = 0;
}

int main(void)
{
	if (mkdir(MARK_DIR, 0700) < 0)
		printf("# " MARK_DIR " is there already\n");
	d.loop = qb_loop_create();
	d.catalog = no_doc;
	d.conf.self_id = 1;
	d.conf.reservation = CONF_RESERVATION_YES;
	v.def.uuid[0] = 7;
	entry.file.disks[0] = strdup("/dev/x");
	entry.file.n_disks = 1;
	begin(5);
	test_answers();
	test_restart();
	test_log();
	test_called_off();
	test_limit();
	test_done();
	begin(5);
	test_check();
	from = 0;
	test_no();
	test_no_process();
	(void)unlink(MARK_DIR "/07000000-0000-0000-0000-000000000000");
	(void)rmdir(MARK_DIR);
	return tap_done();
}
