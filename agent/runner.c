/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMs of this node: a transient unit each, its pidfd, its QMP connection. Says STARTED once QEMU answers (or lives and stays silent for a while),
 * EXIT once the process is gone and what it said last has been read. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/base/process.h"
#include "agent/base/uuid.h"
#include "agent/health.h"
#include "agent/permit.h"
#include "qmp/meaning.h"
#include "storage/format.h"

#define QMP_START_MS 10000 /* until QEMU's first answer */
#define QMP_AGAIN_MS 5000
#define LOOK_AGAIN_MS 1000 /* what cannot be told now */
#define LAST_WORDS_MS 100  /* between the pidfd and QMP's end of file */
#define START_AGAIN_MS 20  /* a unit of that name is not quite gone yet */
#define START_TRIES 250
#define END_AGAIN_MS 20    /* systemd has not seen its end yet */
#define END_TRIES 250
#define MAX_RUNS AGENT_MAX_VMS
#define EXIT_GATE 75       /* ha-launch: refused */

struct run {
	struct runner *r;
	bool used;
	unsigned calls; /* to systemd, not answered yet: the place is not given to another VM before */
	uint8_t uuid[16];
	char uuid_text[UUID_STR_LEN], name[VMFILE_NAME_LEN];
	uint32_t epoch;
	uint64_t term; /* of the gate */
	unsigned tries;
	struct permit *permit; /* of the last start that systemd was asked for */
	int pidfd;
	bool started_told, gone, adopted, starting, want_powerdown;
	bool left;     /* found in a unit that is over: there may be more than this process */
	bool unseen;   /* nobody can tell at the moment whether it lives: said */
	bool cont_unanswered;
	bool foreign;  /* something else started it: it is in a scope, and its QMP socket is where that has put it */
	char socket[FOREIGN_SOCKET_LEN];
	pid_t pid;     /* 0: not seen yet */
	bool incoming; /* waits for a guest, or holds one that was not continued */
	bool inactive; /* has no disks, for now or yet: nothing that it has written is on its way, however it ends */
	struct qmp_conn *qmp;
	bool qmp_up, was_up; /* now; ever */
	struct health *health;
	bool saw_shutdown, by_guest; /* since the guest ran last */
	char shutdown_reason[32];
	enum vm_exit how;
	qb_loop_timer_handle timer; /* START_AGAIN, QMP_AGAIN, LAST_WORDS or END_AGAIN: never two at once */
};

/* Of no VM that runs here: it is to be killed, and systemd has not taken that yet. */
struct other {
	struct runner *r;
	bool used;
	uint8_t uuid[16];
	qb_loop_timer_handle timer;
};

struct runner {
	struct agentd *d;
	struct run run[2 * MAX_RUNS]; /* half of them may wait for late answers */
	struct other other[MAX_RUNS];
};

static struct run *find(struct runner *r, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < ARRAY_SIZE(r->run); i++)
		if (r->run[i].used && memcmp(r->run[i].uuid, uuid, 16) == 0)
			return &r->run[i];
	return NULL;
}

static void set_timer(struct run *n, uint32_t ms, void (*fn)(void *))
{
	if (n->timer)
		(void)qb_loop_timer_del(n->r->d->loop, n->timer);
	n->timer = 0;
	if (fn)
		(void)qb_loop_timer_add(n->r->d->loop, QB_LOOP_HIGH, ms * NS_PER_MS, n, fn, &n->timer);
}

static void forget(struct run *n)
{
	struct runner *r = n->r;
	unsigned calls = n->calls;

	set_timer(n, 0, NULL);
	permit_free(n->permit);
	qmp_conn_free(n->qmp);
	health_free(n->health);
	if (n->pidfd >= 0) {
		(void)qb_loop_poll_del(n->r->d->loop, n->pidfd);
		(void)close(n->pidfd);
	}
	*n = (struct run){ .r = r, .calls = calls, .pidfd = -1 };
}

/* An answer from systemd: is it still of interest? */
static bool answered(struct run *n)
{
	n->calls--;
	return n->used;
}

static struct run *new_run(struct runner *r, const struct vm *v)
{
	struct run *n = find(r, v->def.uuid);

	if (n)
		forget(n);
	n = NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(r->run) && !n; i++)
		if (!r->run[i].used && r->run[i].calls == 0)
			n = &r->run[i];
	CHECK(n);
	*n = (struct run){ .r = r, .used = true, .pidfd = -1, .epoch = r->d->core.epoch, .term = v->term };
	memcpy(n->uuid, v->def.uuid, 16);
	uuid_format(n->uuid, n->uuid_text);
	(void)str_copy(n->name, sizeof(n->name), v->def.name);
	n->health = health_new(r->d, n->uuid);
	return n;
}

static void tell(struct run *n, enum agent_event_kind kind, enum vm_exit how)
{
	struct agent_event ev = { .kind = kind, .exit = how };
	struct agentd *d = n->r->d;

	memcpy(ev.uuid, n->uuid, 16);
	if (kind == AGENT_EV_EXIT) {
		if (n->gone && n->inactive && n->pid != 0)
			held_forget(format_vm_mark(n->uuid), n->pid);
		mover_forget(d->mover, n->uuid);
		mover_unmark(n->uuid);
		foreign_unmark(n->uuid);
		forget(n);
	}
	agentd_event(d, &ev);
}

static void tell_started(struct run *n)
{
	if (n->started_told || n->adopted || n->incoming)
		return;
	n->started_told = true;
	tell(n, AGENT_EV_STARTED, VM_EXIT_CRASH);
}

static void connect_qmp(void *data);
static void on_look(void *user, const char *error, const struct unit_info *info);

/* -ESRCH: it is gone; another negative errno: that cannot be told. */
static int watch(struct run *n, pid_t pid);

/* May it live, nobody starts it anew and nobody gives it up: systemd is asked until it answers, and the process looked at until it can be. */
static void look(void *data)
{
	struct run *n = data;

	set_timer(n, 0, NULL);
	if (units_query(n->r->d->units, n->uuid_text, on_look, n) == 0)
		n->calls++;
	else
		set_timer(n, LOOK_AGAIN_MS, look);
}

static void on_look(void *user, const char *error, const struct unit_info *info)
{
	struct run *n = user;
	int r = -EIO;
	bool refused;

	if (!answered(n) || n->pidfd >= 0)
		return;
	if (n->gone)
		r = -ESRCH;
	else if (!error && info->main_pid != 0) {
		r = watch(n, info->main_pid);
		n->left = info->state == UNIT_FAILED || info->state == UNIT_EXITED || info->state == UNIT_ABSENT;
		if (n->left && r == -ESRCH)
			r = -EAGAIN; /* there may be others */
	} else if (!error)
		r = info->state == UNIT_STARTING ? -EAGAIN : -ESRCH;
	if (r == 0) {
		connect_qmp(n);
		return;
	}
	if (r != -ESRCH) {
		if (!n->unseen && r != -EAGAIN)
			agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: cannot tell whether its QEMU runs: %s; trying on", n->name, error ? error : strerror(-r));
		n->unseen = r != -EAGAIN;
		set_timer(n, LOOK_AGAIN_MS, look);
		return;
	}
	n->gone = true;
	if (n->adopted) {
		tell(n, AGENT_EV_EXIT, VM_EXIT_CRASH);
		return;
	}
	refused = !error && !info->exit_killed && info->exit_code == EXIT_GATE;
	if (!error && !refused && !n->was_up)
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: QEMU ended before it answered (%s %d): see journalctl -u " UNITS_PREFIX "%s", n->name,
			   info->exit_killed ? "signal" : "exit status", info->exit_code, n->uuid_text);
	if (!error && !refused && !n->was_up && n->incoming)
		mover_cannot(n->r->d->mover, n->uuid, info->exit_killed ? "QEMU was killed, or did not answer within StartTimeout=: see the journal there" :
									 "QEMU ended before it answered: see journalctl of its unit there");
	tell(n, AGENT_EV_EXIT, refused ? VM_EXIT_REFUSED : VM_EXIT_CRASH);
}

/* What ended the guest counts, not what then ends a QEMU that -no-shutdown has kept. */
static void take_shutdown(struct run *n, bool by_guest, const char *reason)
{
	if (n->saw_shutdown)
		return;
	n->saw_shutdown = true;
	n->by_guest = by_guest;
	(void)str_copy(n->shutdown_reason, sizeof(n->shutdown_reason), reason);
}

/* Found off: this agent has not heard why. */
static void was_off(struct run *n)
{
	if (health_run_state(n->health) == QMP_RUN_SHUTDOWN)
		take_shutdown(n, true, "guest-shutdown");
}

static void ask_end(void *data);

/* Whoever ends with 0 has waited for its last write. QEMU says SHUTDOWN before it does, and may be killed, or fail, while it waits: what its guest wanted stands,
 * but what it has written must be proven to be over. */
static void tell_unproven(struct run *n)
{
	tell(n, AGENT_EV_EXIT, n->how == VM_EXIT_GUEST_OFF ? VM_EXIT_OFF_KILLED : n->how == VM_EXIT_RESET ? VM_EXIT_RESET : VM_EXIT_CRASH);
}

static void on_end(void *user, const char *error, const struct unit_info *info)
{
	struct run *n = user;

	if (!answered(n) || !n->gone)
		return;
	if (!error && (info->state == UNIT_STOPPING || info->state == UNIT_RUNNING) && n->tries++ < END_TRIES) {
		set_timer(n, END_AGAIN_MS, ask_end);
		return;
	}
	if (error || (info->state != UNIT_ABSENT && (info->state != UNIT_EXITED || info->exit_killed || info->exit_code != 0))) {
		tell_unproven(n);
		return;
	}
	held_forget(format_vm_mark(n->uuid), n->pid);
	tell(n, AGENT_EV_EXIT, n->how);
}

static void ask_end(void *data)
{
	struct run *n = data;

	n->timer = 0;
	if (units_query(n->r->d->units, n->uuid_text, on_end, n) == 0)
		n->calls++;
	else
		tell_unproven(n);
}

/* It has ended after it had said so. Nobody knows the exit status of one that something else started. */
static void end_well(struct run *n, enum vm_exit how)
{
	n->how = how;
	n->tries = 0;
	if (n->foreign)
		tell_unproven(n);
	else
		ask_end(n);
}

/* The process is gone and its last words were heard: what was it? */
static void judge_exit(struct run *n)
{
	struct qmp_event shutdown = { .kind = QMP_EVENT_SHUTDOWN };
	enum qmp_ending ending;
	enum vm_exit how = VM_EXIT_CRASH;

	was_off(n);
	shutdown.guest = n->by_guest;
	shutdown.reason = n->shutdown_reason;
	ending = qmp_meaning_ending(n->saw_shutdown ? &shutdown : NULL);
	set_timer(n, 0, NULL);
	if (ending == QMP_ENDING_GUEST_OFF)
		how = VM_EXIT_GUEST_OFF;
	else if (ending == QMP_ENDING_GUEST_RESET)
		how = VM_EXIT_RESET;
	else if (ending == QMP_ENDING_HOST_STOP)
		how = VM_EXIT_QUIT;
	if (how != VM_EXIT_CRASH) {
		end_well(n, how);
		return;
	}
	if (!n->started_told && !n->adopted && units_query(n->r->d->units, n->uuid_text, on_look, n) == 0) {
		n->calls++; /* never answered: the exit status tells a closed gate from a bad command line */
		return;
	}
	tell(n, AGENT_EV_EXIT, how);
}

static void on_last_words_over(void *data)
{
	struct run *n = data;

	n->timer = 0;
	judge_exit(n);
}

static int32_t on_pidfd(int32_t fd, int32_t revents, void *data)
{
	struct run *n = data;

	n->gone = !n->left;
	(void)qb_loop_poll_del(n->r->d->loop, n->pidfd);
	(void)close(n->pidfd);
	n->pidfd = -1;
	if (n->left) {
		qmp_conn_free(n->qmp);
		n->qmp = NULL;
		n->qmp_up = n->left = false;
		health_qmp(n->health, NULL, QMP_RUN_UNKNOWN);
		set_timer(n, 0, look);
	} else if (n->qmp)
		set_timer(n, LAST_WORDS_MS, on_last_words_over); /* its SHUTDOWN event may be in the socket */
	else
		judge_exit(n);
	return 0;
}

/* Takes the pidfd over. */
static int watch_pidfd(struct run *n, pid_t pid, int pidfd)
{
	int r;

	n->pid = pid;
	if (!n->incoming)
		mover_unmark(n->uuid); /* the mark of an earlier process of it */
	n->pidfd = pidfd;
	r = qb_loop_poll_add(n->r->d->loop, QB_LOOP_HIGH, n->pidfd, POLLIN, n, on_pidfd);
	if (r == 0)
		return 0;
	(void)close(n->pidfd);
	n->pidfd = -1;
	return r == -ESRCH ? -EIO : r;
}

static int watch(struct run *n, pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	n->pid = pid;
	return pidfd < 0 ? -errno : watch_pidfd(n, pid, pidfd);
}

/* From the yes on it is a QEMU for all that is known here, and watched. One that asks when the start was given up gets no answer any more: the permit is gone. */
static bool on_launcher(void *user, pid_t pid, int pidfd)
{
	struct run *n = user;

	if (n->pidfd >= 0 || n->gone) {
		(void)close(pidfd);
		return !n->gone && pid == n->pid;
	}
	if (watch_pidfd(n, pid, pidfd) < 0)
		return false;
	set_timer(n, 0, NULL);
	connect_qmp(n); /* systemd's answer to the start is waited for no more: it may be late, or lost */
	return true;
}

static void on_command_done(void *user, json_object *ret, const char *error)
{
	/* Its effect is an event or the end of the process; without one the core's own deadlines go on. */
}

/* QEMU has done what a cont asks for, or never will. */
static void end_cont(struct run *n)
{
	if (!n->cont_unanswered)
		return;
	n->cont_unanswered = false;
	tell(n, AGENT_EV_CONTINUED, VM_EXIT_CRASH);
}

/* Without an answer in time it may still be obeyed: until something that was asked later is answered. */
static void on_cont(void *user, json_object *ret, const char *error)
{
	struct run *n = user;

	if (error && streq(error, "disconnected"))
		return; /* the next connection will tell */
	if (!error || !streq(error, "timeout") || qmp_conn_execute(n->qmp, "query-status", NULL, QMP_TIMEOUT_OF_CLASS, on_cont, n) < 0)
		end_cont(n);
}

static void on_qmp_ready(void *user, enum qmp_run_state state, const char *version)
{
	struct run *n = user;

	if (n->foreign && qmp_conn_peer_pid(n->qmp) != n->pid) {
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: at %s answers process %d and not its QEMU, which is process %d", n->name, n->socket,
			   (int)qmp_conn_peer_pid(n->qmp), (int)n->pid);
		qmp_conn_free(n->qmp);
		n->qmp = NULL;
		set_timer(n, QMP_AGAIN_MS, connect_qmp);
		return;
	}
	n->inactive = n->inactive && (n->incoming || !n->was_up); /* somebody may have let it go on meanwhile */
	n->qmp_up = n->was_up = true;
	end_cont(n); /* it has answered on this connection what came after a cont on the one before */
	if (!n->used)
		return;
	agentd_say(n->r->d, LOG_LEVEL_INFO, "VM %s: QEMU %s answers, %s", n->name, version, qmp_run_state_name(state));
	tell_started(n);
	if (!n->used)
		return;
	health_qmp(n->health, n->qmp, state);
	if (!n->used)
		return;
	if (n->incoming)
		mover_incoming_ready(n->r->d->mover, n->uuid);
	else if (n->adopted)
		mover_adopted(n->r->d->mover, n->uuid);
	if (n->want_powerdown) {
		n->want_powerdown = false;
		(void)qmp_conn_execute(n->qmp, "system_powerdown", NULL, QMP_TIMEOUT_OF_CLASS, on_command_done, NULL);
	}
	peers_status_changed(n->r->d->peers);
}

static void on_qmp_event(void *user, const struct qmp_event *ev)
{
	struct run *n = user;

	if (ev->kind == QMP_EVENT_SHUTDOWN) {
		was_off(n);
		take_shutdown(n, ev->guest, ev->reason);
	} else if (ev->kind == QMP_EVENT_RESET || ev->kind == QMP_EVENT_RESUME) {
		n->saw_shutdown = false; /* kept, and somebody lets it run again */
		n->inactive = n->inactive && ev->kind != QMP_EVENT_RESUME;
	} else if (ev->kind == QMP_EVENT_MIGRATION) {
		mover_qmp_event(n->r->d->mover, n->uuid);
	}
	health_qmp_event(n->health, ev);
}

/* The connection is gone and the process lives: only its pidfd says it is dead. Silent or not, it was started. */
static void on_qmp_lost(void *data)
{
	struct run *n = data;

	n->timer = 0;
	agentd_say(n->r->d, LOG_LEVEL_WARNING, "VM %s: QEMU does not answer on QMP; its process lives", n->name);
	tell_started(n);
	if (n->used)
		set_timer(n, QMP_AGAIN_MS, connect_qmp);
}

static void on_qmp_closed(void *user, const char *reason)
{
	struct run *n = user;

	qmp_conn_free(n->qmp);
	n->qmp = NULL;
	n->qmp_up = false;
	health_qmp(n->health, NULL, QMP_RUN_UNKNOWN);
	if (n->gone)
		judge_exit(n);
	else
		set_timer(n, LAST_WORDS_MS, on_qmp_lost); /* a dying QEMU's pidfd follows within this time */
}

static void connect_qmp(void *data)
{
	static const struct qmp_callbacks cb = { .ready = on_qmp_ready, .event = on_qmp_event, .closed = on_qmp_closed };
	struct run *n = data;
	char path[108];

	n->timer = 0;
	if (n->foreign)
		(void)str_copy(path, sizeof(path), n->socket);
	else
		(void)snprintf(path, sizeof(path), AGENTD_VM_DIR "/%s.qmp", n->uuid_text);
	if (qmp_conn_new(n->r->d->loop, path, QMP_START_MS, &cb, n, &n->qmp) < 0) {
		n->qmp = NULL;
		set_timer(n, QMP_AGAIN_MS, connect_qmp);
	}
}

static void launch(void *data);

static void on_unit_started(void *user, const char *error, const struct unit_info *info)
{
	struct run *n = user;

	if (!answered(n) || !n->starting)
		return;
	n->starting = false;
	if (n->gone || n->pidfd >= 0)
		return; /* its launcher has come through, and has perhaps ended: that is judged */
	if (error && n->tries < START_TRIES && strstr(error, "already")) {
		set_timer(n, START_AGAIN_MS, launch);
		return;
	}
	if (error)
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: systemd could not start it: %s", n->name, error);
	if (error || info->main_pid == 0 || watch(n, info->main_pid) < 0)
		look(n); /* the answer to the start may be lost, and the start not */
	else
		connect_qmp(n);
}

struct argv {
	char *word[VMFILE_MAX_ARGS + 28];
	size_t n;
};

static void add(struct argv *a, const char *fmt, ...) _printf_(2, 3);
static void add(struct argv *a, const char *fmt, ...)
{
	va_list ap;

	CHECK(a->n + 1 < ARRAY_SIZE(a->word));
	va_start(ap, fmt);
	CHECK(vasprintf(&a->word[a->n], fmt, ap) >= 0);
	va_end(ap);
	a->word[++a->n] = NULL;
}

/* The port that a guest's agent listens on by default. Last, so that no device of the file gets another place because of it. */
static void add_agent_port(struct argv *a, const char *uuid)
{
	char path[108];

	(void)snprintf(path, sizeof(path), AGENTD_VM_DIR "/%s.agent", uuid);
	(void)unlink(path);
	add(a, "-chardev");
	add(a, "socket,id=kvmha-agent,path=%s,server=on,wait=off", path);
	add(a, "-device");
	add(a, "virtio-serial,id=kvmha-serial");
	add(a, "-device");
	add(a, "virtserialport,bus=kvmha-serial.0,chardev=kvmha-agent,name=org.qemu.guest_agent.0");
}

static void launch(void *data)
{
	struct run *n = data;
	struct catalog_entry *e = catalog_by_uuid(n->r->d->catalog, n->uuid);
	struct argv a = { 0 };
	char description[96], path[108];
	int r = -ENOENT, in = -1;

	n->timer = 0;
	permit_free(n->permit);
	n->permit = NULL;
	n->tries++;
	foreign_unmark(n->uuid); /* of an earlier life: what is started now is in a unit of its own */
	if (e) {
		(void)snprintf(path, sizeof(path), AGENTD_VM_DIR "/%s.qmp", n->uuid_text);
		if (n->tries == 1) /* what is in the way later may be QEMU with it */
			(void)unlink(path);
		add(&a, "%s/ha-launch", PKGLIBEXECDIR);
		add(&a, "%s", n->uuid_text);
		add(&a, "%u", n->epoch);
		add(&a, "%" PRIu64, n->term);
		add(&a, "%s", e->file.binary);
		add(&a, "-name");
		add(&a, "guest=%s,process=qemu-%s", e->file.name, e->file.name);
		add(&a, "-uuid");
		add(&a, "%s", n->uuid_text);
		add(&a, "-m");
		add(&a, "%uM", e->file.memory_mib);
		add(&a, "-smp");
		add(&a, "%u", e->file.vcpus);
		add(&a, "-qmp");
		add(&a, "unix:%s,server=on,wait=off", path);
		if (n->incoming) {
			add(&a, "-S");
			add(&a, "-incoming");
			add(&a, "defer");
		}
		for (size_t i = 0; i < e->file.n_args; i++)
			add(&a, "%s", e->file.args[i]);
		if (e->file.health.agent && !e->file.agent_path)
			add_agent_port(&a, n->uuid_text);
		(void)snprintf(description, sizeof(description), "VM %s (kvm-ha)", e->file.name);
		r = permit_new(n->r->d->loop, on_launcher, n, &n->permit, &in);
		n->starting = r == 0;
		if (r == 0)
			r = units_start(n->r->d->units, n->uuid_text, description, a.word, in, on_unit_started, n);
		if (in >= 0)
			(void)close(in);
		n->calls += r == 0;
	}
	for (size_t i = 0; i < a.n; i++)
		free(a.word[i]);
	if (r == -ENOTCONN || r == -EBUSY) {
		n->starting = false;
		set_timer(n, START_AGAIN_MS, launch); /* the bus is just being connected */
	} else if (r < 0) {
		n->starting = false;
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: cannot ask systemd to start it: %s", n->name, strerror(-r));
		set_timer(n, START_AGAIN_MS, look); /* an earlier try may have been obeyed */
	}
}

void runner_start(struct runner *r, const struct vm *v)
{
	struct run *n = new_run(r, v);

	set_timer(n, 0, launch);
}

/* The mark is there before the process is: nobody takes it for a running VM. */
void runner_incoming(struct runner *r, const struct vm *v)
{
	struct run *n = new_run(r, v);
	int e = mover_mark(n->uuid);

	n->incoming = n->inactive = true; /* until it is told to let its guest go on it writes nothing */
	n->term = agent_term(&r->d->core); /* no claim yet: it is let through to wait, and goes on only under one */
	if (e == 0) {
		set_timer(n, 0, launch);
		return;
	}
	agentd_say(r->d, LOG_LEVEL_ERR, "VM %s: cannot be waited for: " AGENTD_VM_DIR ": %s", n->name, strerror(-e));
	n->gone = true;
	set_timer(n, START_AGAIN_MS, on_last_words_over);
}

void runner_continued(struct runner *r, const uint8_t uuid[16])
{
	struct run *n = find(r, uuid);

	if (n) {
		n->incoming = false;
		n->started_told = true;
	}
}

void runner_inactive(struct runner *r, const uint8_t uuid[16], bool inactive)
{
	struct run *n = find(r, uuid);

	if (n)
		n->inactive = inactive;
}

struct qmp_conn *runner_qmp(struct runner *r, const uint8_t uuid[16])
{
	struct run *n = find(r, uuid);

	return n && n->qmp_up ? n->qmp : NULL;
}

/* -ESRCH: it is gone; another negative errno: that cannot be told. */
static int watch_foreign(struct run *n)
{
	struct foreign_mark m;
	int fd, r;

	if (!foreign_marked(n->uuid, &m))
		return -ESRCH;
	n->foreign = true;
	n->pid = m.pid;
	(void)str_copy(n->socket, sizeof(n->socket), m.socket);
	fd = process_open(m.pid, m.start);
	if (fd < 0)
		return fd;
	r = watch(n, m.pid);
	if (r == 0 && process_gone(fd)) /* alive by now: it is no other that is watched */
		r = -ESRCH;
	(void)close(fd);
	return r;
}

/* Out of its scope the keeper would not kill it with the others. */
static void adopt_foreign(void *data)
{
	struct run *n = data;
	int r = watch_foreign(n);

	n->timer = 0;
	if (r == -ESRCH && n->pidfd < 0) {
		n->gone = true;
		judge_exit(n);
	} else if (n->pidfd < 0) {
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: cannot look at its QEMU, process %d: %s; trying on", n->name, (int)n->pid, strerror(-r));
		set_timer(n, QMP_AGAIN_MS, adopt_foreign);
	} else if (!foreign_in_scope(n->uuid, n->pid)) {
		agentd_say(n->r->d, LOG_LEVEL_ERR, "VM %s: its QEMU, process %d, was taken out of its control group: killed", n->name, (int)n->pid);
		(void)process_kill(n->pidfd);
	} else {
		connect_qmp(n);
	}
}

void runner_take_in(struct runner *r, const struct vm *v)
{
	struct run *n = new_run(r, v);

	n->adopted = true;
	set_timer(n, 0, adopt_foreign);
}

void runner_adopt(struct runner *r, const struct vm *v)
{
	struct run *n = new_run(r, v);
	struct foreign_mark mark;

	n->adopted = true;
	set_timer(n, 0, foreign_marked(n->uuid, &mark) ? adopt_foreign : look);
}

void runner_powerdown(struct runner *r, const struct vm *v)
{
	struct run *n = find(r, v->def.uuid);

	if (!n)
		return;
	if (n->qmp_up)
		(void)qmp_conn_execute(n->qmp, "system_powerdown", NULL, QMP_TIMEOUT_OF_CLASS, on_command_done, NULL);
	else
		n->want_powerdown = true;
}

static void command(struct runner *r, const struct vm *v, const char *what)
{
	struct run *n = find(r, v->def.uuid);

	if (n && n->qmp_up)
		(void)qmp_conn_execute(n->qmp, what, NULL, QMP_TIMEOUT_OF_CLASS, on_command_done, NULL);
}

void runner_quit(struct runner *r, const struct vm *v)
{
	command(r, v, "quit");
}

/* systemd cannot be asked: what is watched is killed all the same. */
static void kill_watched(struct run *n)
{
	if (n && n->used && n->pidfd >= 0)
		(void)process_kill(n->pidfd);
}

static void tell_unkilled(struct runner *r, const char *error)
{
	agentd_say(r->d, LOG_LEVEL_WARNING, "a VM's unit could not be killed: %s", error);
}

static void on_killed(void *user, const char *error, const struct unit_info *info)
{
	struct run *n = user;
	struct runner *r = n->r;
	bool used = answered(n);

	if (!error)
		return;
	tell_unkilled(r, error);
	if (used)
		kill_watched(n);
}

static void look_at_other(void *data);

static void look_at_other_later(struct other *o)
{
	(void)qb_loop_timer_add(o->r->d->loop, QB_LOOP_HIGH, LOOK_AGAIN_MS * NS_PER_MS, o, look_at_other, &o->timer);
}

static void on_other_killed(void *user, const char *error, const struct unit_info *info)
{
	struct other *o = user;

	o->used = error != NULL;
	if (!error)
		return;
	tell_unkilled(o->r, error);
	look_at_other_later(o);
}

static void kill_other(struct other *o)
{
	struct foreign_mark mark;
	char text[UUID_STR_LEN];

	uuid_format(o->uuid, text);
	if ((foreign_marked(o->uuid, &mark) ? units_kill_scope : units_kill)(o->r->d->units, text, SIGKILL, on_other_killed, o) < 0)
		look_at_other_later(o);
}

/* What has been started since under that name is this agent's own, and has somebody who looks after it. */
static void on_other(void *user, const char *error, const struct unit_info *info)
{
	struct other *o = user;

	if (find(o->r, o->uuid))
		o->used = false;
	else if (error)
		look_at_other_later(o);
	else if (info->main_pid != 0 || info->state == UNIT_STARTING || info->state == UNIT_RUNNING || info->state == UNIT_STOPPING)
		kill_other(o);
	else
		o->used = false;
}

static void look_at_other(void *data)
{
	struct other *o = data;
	struct foreign_mark mark;
	char text[UUID_STR_LEN];

	o->timer = 0;
	uuid_format(o->uuid, text);
	if ((foreign_marked(o->uuid, &mark) ? units_query_scope : units_query)(o->r->d->units, text, on_other, o) < 0)
		look_at_other_later(o);
}

static void begin_other(struct runner *r, const uint8_t uuid[16])
{
	struct other *room = NULL;

	for (unsigned i = 0; i < MAX_RUNS; i++) {
		if (r->other[i].used && memcmp(r->other[i].uuid, uuid, 16) == 0)
			return; /* it is being tried */
		if (!r->other[i].used && !room)
			room = &r->other[i];
	}
	CHECK(room); /* there are no more units */
	*room = (struct other){ .r = r, .used = true };
	memcpy(room->uuid, uuid, 16);
	kill_other(room);
}

static void on_withdrawn(void *data)
{
	struct run *n = data;

	n->timer = 0;
	n->gone = true;
	tell(n, AGENT_EV_EXIT, VM_EXIT_CRASH);
}

void runner_kill(struct runner *r, const uint8_t uuid[16])
{
	struct run *n = find(r, uuid);
	struct foreign_mark mark;
	char text[UUID_STR_LEN];
	int e;

	if (n && n->permit && n->pidfd < 0 && !n->gone) { /* a start that is still under way: nobody has come through, and nobody will */
		permit_free(n->permit);
		n->permit = NULL;
		n->starting = false;
		set_timer(n, 0, on_withdrawn);
	}
	if (!n) {
		begin_other(r, uuid);
		return;
	}
	uuid_format(uuid, text);
	e = (foreign_marked(uuid, &mark) ? units_kill_scope : units_kill)(r->d->units, text, SIGKILL, on_killed, n);
	if (e < 0)
		kill_watched(n);
	else
		n->calls++;
}

void runner_reset(struct runner *r, const struct vm *v) { command(r, v, "system_reset"); }

void runner_cont(struct runner *r, const struct vm *v)
{
	struct run *n = find(r, v->def.uuid);

	if (!n)
		return; /* its exit is on the way */
	n->cont_unanswered = true;
	n->inactive = false;
	if (!n->qmp_up || qmp_conn_execute(n->qmp, "cont", NULL, QMP_TIMEOUT_OF_CLASS, on_cont, n) < 0)
		end_cont(n); /* it was never told */
}

const char *runner_detail(struct runner *r, const uint8_t uuid[16])
{
	struct run *n = find(r, uuid);

	if (!n || n->starting)
		return "";
	return n->qmp_up ? qmp_run_state_name(health_run_state(n->health)) : "QEMU does not answer";
}

int runner_new(struct agentd *d, struct runner **ret)
{
	struct runner *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->d = d;
	if (mkdir(AGENTD_VM_DIR, 0700) < 0 && errno != EEXIST) {
		free(r);
		return -errno;
	}
	*ret = r;
	return 0;
}
