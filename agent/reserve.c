/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent reservations, carried out: one ha-reserve process a VM at most, watched by its pidfd. The loop never waits for one. One that the kernel keeps is killed, and
 * left behind until it ends; nothing else is begun for that VM before.
 *
 * With Reservation=no a VM's disks are looked at, too, before it is started or taken from another node: what the cluster has reserved before would keep it from writing.
 * And what runs reserved from before is released.
 *
 * What a VM's QEMU runs under outlives the agent as a mark on this host's tmpfs: "joined KEY" (a migration's target that has not preempted the source yet) or "owned KEY". */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/uuid.h"

#ifndef MARK_DIR /* a test has its own */
#define MARK_DIR "/run/kvm-ha/reserve"
#endif
#define LIMIT_MS 28000 /* of one question: three silent paths one after the other; the core waits for 30 s */
#define CHECK_MS 10000 /* each VM's keys; */
#define CHECK_SLICES 10 /* so many groups of them one after the other, so that hundreds of processes do not begin at once */
#define TEXT_LEN 400

enum mark { MARK_NONE, MARK_JOINED, MARK_OWNED };
static const char *const mark_name[] = { "", "joined", "owned" };

struct job {
	struct reserver *r;
	bool used, wanted, checks; /* wanted: op is to be begun, or its answer to be told; checks: its key is looked at by ourselves */
	uint8_t uuid[16];
	char name[VMFILE_NAME_LEN], *disk[VMFILE_MAX_DISKS];
	size_t n_disks;
	enum reservation_op op, running;
	uint64_t number, key;
	enum mark mark;
	int pidfd, out;            /* pidfd -1: no process */
	qb_loop_timer_handle timer, later;
	enum reservation_result late; /* LEARN, or what could not be begun: told from the loop, as the core waits for nobody */
	char text[TEXT_LEN];       /* what the last operation said, for people */
	char told[TEXT_LEN];       /* what was last logged of what fails, or is done without */
};

struct reserver {
	struct agentd *d;
	struct job job[2 * AGENT_MAX_VMS]; /* of removed VMs a process may hang */
	qb_loop_timer_handle timer;
	unsigned slice;
};

static void begin(struct job *j);

/* ---- marks ---- */

static void mark_path(const uint8_t uuid[16], char *ret, size_t size)
{
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	(void)snprintf(ret, size, MARK_DIR "/%s", text);
}

static void put_mark(struct job *j, enum mark m)
{
	char path[128], text[64];
	int fd, n;

	j->mark = m;
	mark_path(j->uuid, path, sizeof(path));
	if (m == MARK_NONE) {
		(void)unlink(path);
		return;
	}
	(void)mkdir(MARK_DIR, 0700);
	n = snprintf(text, sizeof(text), "%s %016" PRIx64 "\n", mark_name[m], j->key);
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		agentd_say(j->r->d, LOG_LEVEL_WARNING, "VM %s: cannot write %s: %s: after a restart of ha-agent it does not count as reserved", j->name, path, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
}

/* Of another key, of an epoch before, it is not for what runs now. */
static enum mark read_mark(const uint8_t uuid[16], uint64_t key)
{
	char path[128], word[16] = "";
	uint64_t of = 0;
	FILE *f;

	mark_path(uuid, path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return MARK_NONE;
	if (fscanf(f, "%15s %" SCNx64, word, &of) != 2 || of != key)
		*word = '\0';
	(void)fclose(f);
	return streq(word, mark_name[MARK_JOINED]) ? MARK_JOINED : streq(word, mark_name[MARK_OWNED]) ? MARK_OWNED : MARK_NONE;
}

/* ---- a process ---- */

static bool parse(char *line, enum reservation_result *ret, const char **ret_why)
{
	char *why = strchr(line, ' ');

	if (!why)
		return false;
	*why++ = '\0';
	why[strcspn(why, "\n")] = '\0';
	for (unsigned i = 0; i < RESERVATION_RESULT_COUNT; i++)
		if (streq(line, reservation_result_name((enum reservation_result)i))) {
			*ret = (enum reservation_result)i;
			*ret_why = why;
			return true;
		}
	return false;
}

static void tell(struct job *j, enum reservation_op op, enum reservation_result result)
{
	struct agent_event ev = { .kind = AGENT_EV_RESERVED, .reserve = op, .reserved = result, .number = j->number };

	memcpy(ev.uuid, j->uuid, 16);
	agentd_event(j->r->d, &ev);
}

static bool is_on(const struct job *j) { return j->r->d->conf.reservation != CONF_RESERVATION_NO; }

/* Logged when it changes: what fails may be tried for hours. */
static bool is_news(struct job *j, const char *why)
{
	if (streq(j->told, why))
		return false;
	(void)snprintf(j->told, sizeof(j->told), "%s", why);
	return true;
}

static void say(struct job *j, enum reservation_op op, enum reservation_result result, const char *why)
{
	bool bad = result != RESERVATION_OK && result != RESERVATION_NONE && result != RESERVATION_STANDS && result != RESERVATION_OTHERS;

	if (op != RESERVATION_CLEAR || result != RESERVATION_OK) /* why it goes without was said before */
		(void)snprintf(j->text, sizeof(j->text), "%s", why);
	if (op == RESERVATION_LEAVE && bad && is_news(j, why))
		agentd_say(j->r->d, LOG_LEVEL_WARNING, "VM %s: its disks may stay reserved for this node until it is started again anywhere: %s", j->name, why);
	if (op == RESERVATION_LEAVE)
		return;
	if (bad && is_news(j, why))
		agentd_say(j->r->d, LOG_LEVEL_ERR, "VM %s: reservation: %s: %s", j->name, reservation_op_name(op), why);
	else if ((result == RESERVATION_NONE || result == RESERVATION_STANDS) && is_on(j) && is_news(j, why))
		agentd_say(j->r->d, LOG_LEVEL_WARNING, "VM %s: goes without a reservation: %s", j->name, why);
	else if (result == RESERVATION_OK && op == RESERVATION_OWN)
		agentd_say(j->r->d, LOG_LEVEL_INFO, "VM %s: its disks are reserved for this node%s%s", j->name, *why ? ": " : "", why);
	else if (result == RESERVATION_OK && (op == RESERVATION_CLEAR || op == RESERVATION_RELEASE))
		agentd_say(j->r->d, LOG_LEVEL_INFO, "VM %s: what was reserved of its disks before is done away with", j->name);
	if (result == RESERVATION_OK && op == RESERVATION_OWN)
		j->told[0] = '\0';
}

/* Its source is to try another node, or stop it. */
static void cannot_take(struct job *j, enum reservation_result result, const char *why)
{
	const struct vm *v = agent_vm_by_uuid(&j->r->d->core, j->uuid);
	char text[TEXT_LEN + 80];

	if (!v || v->state != VM_INCOMING || result == RESERVATION_OK || result == RESERVATION_NONE)
		return;
	(void)snprintf(text, sizeof(text), "%s%s", result == RESERVATION_STANDS ? "its disks are reserved, and would not be there: " : "", why);
	mover_cannot(j->r->d->mover, j->uuid, text);
}

static void finish(struct job *j, enum reservation_op op, enum reservation_result result, const char *why)
{
	bool looks = op == RESERVATION_CHECK || op == RESERVATION_KEEP;

	if (op == RESERVATION_JOIN || op == RESERVATION_LOOK || op == RESERVATION_LEAVE)
		put_mark(j, op == RESERVATION_JOIN && result == RESERVATION_OK ? MARK_JOINED : MARK_NONE);
	else if (op == RESERVATION_OWN && result == RESERVATION_OK)
		put_mark(j, MARK_OWNED);
	else if ((op == RESERVATION_CLEAR || op == RESERVATION_RELEASE) && result == RESERVATION_OK)
		put_mark(j, MARK_NONE);
	if (!looks || result == RESERVATION_LOST) /* of what does not answer nothing is known */
		say(j, op, result, why);
	if (op == RESERVATION_RELEASE && result == RESERVATION_OK)
		result = RESERVATION_NONE; /* as the core sees it: what runs has none */
	j->checks = j->mark != MARK_NONE && is_on(j);
	if (j->wanted) {
		if (op == RESERVATION_JOIN || op == RESERVATION_LOOK)
			cannot_take(j, result, why);
		j->wanted = false;
		tell(j, j->op, result);
	} else if (looks && result == RESERVATION_LOST) { /* by ourselves */
		tell(j, RESERVATION_CHECK, result);
	} else if (op == RESERVATION_KEEP && result == RESERVATION_OTHERS) {
		tell(j, op, result);
	}
}

static void on_later(void *data)
{
	struct job *j = data;

	j->later = 0;
	if (!j->wanted)
		return;
	j->wanted = false;
	tell(j, j->op, j->late);
}

static void tell_later(struct job *j, enum reservation_result result)
{
	j->late = result;
	if (!j->later)
		(void)qb_loop_timer_add(j->r->d->loop, QB_LOOP_MED, 0, j, on_later, &j->later);
}

static int32_t on_end(int32_t fd, int32_t revents, void *data)
{
	struct job *j = data;
	enum reservation_result result = RESERVATION_FAILED;
	const char *why = "ha-reserve has ended without an answer";
	char line[TEXT_LEN + 32];
	siginfo_t info = { 0 };
	bool own = j->timer != 0; /* nobody has called it off */
	ssize_t n;

	if (waitid(P_PIDFD, (id_t)j->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
		return 0;
	n = read(j->out, line, sizeof(line) - 1);
	if (n > 0 && info.si_code == CLD_EXITED && info.si_status == 0) {
		line[n] = '\0';
		if (!parse(line, &result, &why))
			result = RESERVATION_FAILED;
	}
	(void)qb_loop_poll_del(j->r->d->loop, j->pidfd);
	(void)close(j->pidfd);
	(void)close(j->out);
	j->pidfd = -1;
	if (j->timer)
		(void)qb_loop_timer_del(j->r->d->loop, j->timer);
	j->timer = 0;
	if (own)
		finish(j, j->running, result, why);
	else if (j->wanted)
		begin(j);
	return 0;
}

/* The kernel may keep it for longer. */
static void call_off(struct job *j)
{
	if (j->pidfd < 0 || !j->timer)
		return;
	(void)qb_loop_timer_del(j->r->d->loop, j->timer);
	j->timer = 0;
	(void)pidfd_send_signal(j->pidfd, SIGKILL, NULL, 0);
}

static void on_limit(void *data)
{
	struct job *j = data;
	char why[40];

	j->timer = 0;
	(void)pidfd_send_signal(j->pidfd, SIGKILL, NULL, 0);
	(void)snprintf(why, sizeof(why), "no answer within %d s", (int)(LIMIT_MS / MS_PER_S));
	finish(j, j->running, RESERVATION_FAILED, why);
}

static int run(struct job *j, const char *const argv[])
{
	int out[2], r;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	r = spawn_piped(argv, -1, out[1], &pid);
	(void)close(out[1]);
	if (r == 0) {
		j->pidfd = pidfd_open(pid, 0);
		r = j->pidfd < 0 ? -errno : qb_loop_poll_add(j->r->d->loop, QB_LOOP_MED, j->pidfd, POLLIN, j, on_end);
		if (r < 0) { /* nobody would reap it */
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, NULL, WNOHANG); /* at worst it stays a zombie: the kernel may keep it for longer than the loop can wait */
			if (j->pidfd >= 0)
				(void)close(j->pidfd);
			j->pidfd = -1;
		}
	}
	if (r < 0)
		(void)close(out[0]);
	else
		j->out = out[0];
	return r;
}

static enum reservation_op carried_out(const struct job *j)
{
	if (j->op == RESERVATION_JOIN && !is_on(j))
		return RESERVATION_LOOK;
	if (j->op != RESERVATION_LEARN)
		return j->op;
	return !is_on(j) ? RESERVATION_RELEASE : j->mark == MARK_JOINED ? RESERVATION_OWN : RESERVATION_KEEP;
}

static void start(struct job *j, enum reservation_op op)
{
	const char *argv[VMFILE_MAX_DISKS + 12] = { PKGLIBEXECDIR "/ha-reserve" };
	char key[24], self[40], path[128], lock[160];
	size_t n = 1;
	int r;

	if (j->r->d->conf.reservation == CONF_RESERVATION_VOLATILE)
		argv[n++] = "--volatile";
	(void)mkdir(MARK_DIR, 0700);
	mark_path(j->uuid, path, sizeof(path));
	(void)snprintf(lock, sizeof(lock), "--lock=%s.lock", path);
	(void)snprintf(self, sizeof(self), "--agent=%ld", (long)getpid());
	(void)snprintf(key, sizeof(key), "%016" PRIx64, j->key);
	argv[n++] = self;
	argv[n++] = lock;
	argv[n++] = "--";
	argv[n++] = reservation_op_name(op);
	argv[n++] = key;
	for (size_t i = 0; i < j->n_disks; i++)
		argv[n++] = j->disk[i];
	j->running = op;
	r = run(j, argv);
	if (r == 0) {
		(void)qb_loop_timer_add(j->r->d->loop, QB_LOOP_MED, LIMIT_MS * NS_PER_MS, j, on_limit, &j->timer);
		return;
	}
	(void)snprintf(j->text, sizeof(j->text), "cannot start %s: %s", argv[0], strerror(-r));
	agentd_say(j->r->d, LOG_LEVEL_ERR, "VM %s: %s", j->name, j->text);
	/* Where it is not installed, a VM that is to have no reservation is started as ever. For want of memory, say, it waits: another node's reservation may be in its way. */
	tell_later(j, op == RESERVATION_LOOK && r == -ENOENT ? RESERVATION_NONE : RESERVATION_FAILED);
}

static void begin(struct job *j) { start(j, carried_out(j)); }

/* ---- what the core asks for ---- */

static void forget_disks(struct job *j)
{
	for (size_t i = 0; i < j->n_disks; i++)
		free(j->disk[i]);
	j->n_disks = 0;
}

/* Of one that is in the catalog no more: as it was. */
static void take_disks(struct job *j)
{
	struct catalog_entry *e = catalog_by_uuid(j->r->d->catalog, j->uuid);

	if (!e)
		return;
	forget_disks(j);
	(void)str_copy(j->name, sizeof(j->name), e->file.name);
	for (size_t i = 0; i < e->file.n_disks; i++) {
		j->disk[i] = strdup(e->file.disks[i]);
		CHECK(j->disk[i]);
		j->n_disks++;
	}
}

/* What might be a SCSI disk: of files, and of what QEMU opens by itself, nobody need look. */
static bool has_device(const struct job *j)
{
	for (size_t i = 0; i < j->n_disks; i++)
		if (strncmp(j->disk[i], "/dev/", 5) == 0)
			return true;
	return false;
}

/* What was said of one that is done with is still asked for, so it is taken over only when there is no other, and no process of its is left. */
static struct job *job_of(struct reserver *r, const uint8_t uuid[16])
{
	struct job *unused = NULL, *done = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(r->job); i++) {
		struct job *j = &r->job[i];

		if (j->used && memcmp(j->uuid, uuid, 16) == 0)
			return j;
		if (!j->used)
			unused = unused ? unused : j;
		else if (!done && !j->wanted && !j->checks && !j->later && j->pidfd < 0)
			done = j;
	}
	return unused ? unused : done;
}

void reserver_ask(struct reserver *r, const struct vm *v, enum reservation_op op, uint64_t number)
{
	struct job *j = job_of(r, v->def.uuid);
	uint64_t key = reservation_key(r->d->core.opt.cluster, r->d->conf.self_id, r->d->core.epoch);

	CHECK(j);
	if (!j->used || memcmp(j->uuid, v->def.uuid, 16) != 0) {
		forget_disks(j);
		*j = (struct job){ .r = r, .used = true, .pidfd = -1 };
		memcpy(j->uuid, v->def.uuid, 16);
	}
	j->op = op;
	j->number = number;
	j->wanted = op != RESERVATION_FORGET;
	call_off(j);
	if (j->later)
		(void)qb_loop_timer_del(r->d->loop, j->later);
	j->later = 0;
	if (op == RESERVATION_FORGET) {
		put_mark(j, MARK_NONE);
		j->checks = false;
		j->text[0] = '\0';
		return;
	}
	take_disks(j);
	if (op != RESERVATION_LEAVE || j->key == 0)
		j->key = key;
	if (op == RESERVATION_LEARN)
		j->mark = read_mark(j->uuid, j->key);
	if (op == RESERVATION_LEARN && j->mark == MARK_NONE) {
		(void)snprintf(j->text, sizeof(j->text), "its QEMU was started without one");
		tell_later(j, RESERVATION_NONE);
		return;
	}
	if (op == RESERVATION_OWN && !is_on(j)) { /* of a QEMU before, when it was on: by JOIN, that looks at what is there */
		tell_later(j, RESERVATION_LOST);
		return;
	}
	if ((op == RESERVATION_JOIN || op == RESERVATION_LEAVE) && !is_on(j) && !has_device(j)) {
		put_mark(j, MARK_NONE);
		j->checks = false;
		tell_later(j, op == RESERVATION_JOIN ? RESERVATION_NONE : RESERVATION_OK);
		return;
	}
	if (j->pidfd < 0)
		begin(j);
}

const char *reserver_text(struct reserver *r, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < ARRAY_SIZE(r->job); i++)
		if (r->job[i].used && memcmp(r->job[i].uuid, uuid, 16) == 0)
			return r->job[i].text;
	return "";
}

static void on_check(void *data)
{
	struct reserver *r = data;

	for (unsigned i = r->slice; i < ARRAY_SIZE(r->job); i += CHECK_SLICES) {
		const struct vm *v = r->job[i].used ? agent_vm_by_uuid(&r->d->core, r->job[i].uuid) : NULL;

		if (v && reserve_may_have(v) && r->job[i].checks && !r->job[i].wanted && r->job[i].pidfd < 0)
			start(&r->job[i], r->job[i].mark == MARK_OWNED ? RESERVATION_KEEP : RESERVATION_CHECK);
	}
	r->slice = (r->slice + 1) % CHECK_SLICES;
	(void)qb_loop_timer_add(r->d->loop, QB_LOOP_LOW, CHECK_MS / CHECK_SLICES * NS_PER_MS, r, on_check, &r->timer);
}

int reserver_new(struct agentd *d, struct reserver **ret)
{
	struct reserver *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->d = d;
	for (unsigned i = 0; i < ARRAY_SIZE(r->job); i++)
		r->job[i].pidfd = -1;
	if (d->conf.reservation != CONF_RESERVATION_NO)
		(void)qb_loop_timer_add(d->loop, QB_LOOP_LOW, CHECK_MS / CHECK_SLICES * NS_PER_MS, r, on_check, &r->timer);
	*ret = r;
	return 0;
}
