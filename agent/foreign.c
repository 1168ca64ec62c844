/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ha-ctl adopt`: a QEMU that something else started becomes a VM.
 *
 *   CHECK     the process, its QMP socket and the VM's file belong together (foreign_disks.c says what is compared)
 *   BEGIN     the catalog says "ignored": nobody starts the VM while its QEMU runs unprotected, however this ends
 *   KNOWN     this node's agent has that catalog
 *   CLAIM     the core claims it, as for a start: it runs nowhere else
 *   AGAIN     all that was checked, once more
 *   GATE      the keeper lets it through, and from then on kills it with all others
 *   SCOPE     systemd puts it into a scope of the VM slice
 *   DONE      the catalog says "started": from then on it is recovered
 *
 * What is refused before GATE was not touched; after it the keeper is told that it is nobody's. Cut off anywhere the VM is ignored: it is started nowhere, and where
 * it runs it may run on; the same command again goes on. What is known of the process is its number, its start time and a pidfd, held from the first look on;
 * that QMP is spoken by it is shown twice: by the socket's peer (SO_PEERCRED), and by the threads of its vCPUs, which must be the process' own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/process.h"
#include "agent/base/uuid.h"
#include "agent/foreign_disks.h"
#include "qmp/qmp.h"

#define MAX_OPS 8
#define LOOK_MS 50
#define SCOPE_AGAIN_MS 1000
#define QMP_MS 5000
#define GATE_MS 5000
#define KNOWN_MS 15000
#define WHOLE_MS 90000 /* then it is given up where it can be, and else the operator is told that it goes on */
#define ERROR_LEN 480
#define OOM_ADJUST "-500" /* as of a VM's own unit */

enum phase { IS_FREE, IN_CHECK, IN_BEGIN, IN_KNOWN, IN_CLAIM, IN_AGAIN, IN_GATE, IN_SCOPE, IN_DONE, IN_BACK };

struct op {
	struct foreign *f;
	enum phase phase;
	server_answer_fn fn; /* NULL: it has been answered */
	void *user;
	uint8_t uuid[16];
	char uuid_text[UUID_STR_LEN], name[VMFILE_NAME_LEN];
	struct foreign_mark mark;
	int pidfd;
	struct qmp_conn *qmp;
	unsigned step;            /* of the questions to QEMU */
	unsigned calls;           /* to systemd, not answered yet */
	bool was_stopped;         /* what the catalog said before */
	bool off;                 /* the core has given it up */
	char why[ERROR_LEN];
	int64_t until_ns, phase_ns;
	qb_loop_timer_handle timer;
};

struct foreign {
	struct agentd *d;
	struct op op[MAX_OPS];
};

/* The mark: "PID START SOCKET" beside the QMP sockets, on a tmpfs. */

static void mark_path(const uint8_t uuid[16], const char *suffix, char *ret, size_t size)
{
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	(void)snprintf(ret, size, AGENTD_VM_DIR "/%s.foreign%s", text, suffix);
}

bool foreign_marked(const uint8_t uuid[16], struct foreign_mark *ret)
{
	char path[128];
	int pid = 0;
	bool ok;
	FILE *f;

	mark_path(uuid, "", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return false;
	ok = fscanf(f, "%d %" SCNu64 " %107[^\n]", &pid, &ret->start, ret->socket) == 3 && pid > 1;
	(void)fclose(f);
	ret->pid = pid;
	return ok;
}

void foreign_unmark(const uint8_t uuid[16])
{
	char path[128];

	mark_path(uuid, "", path, sizeof(path));
	(void)unlink(path);
}

static int write_mark(const struct op *o)
{
	char path[128], anew[128];
	FILE *f;

	mark_path(o->uuid, "", path, sizeof(path));
	mark_path(o->uuid, ".new", anew, sizeof(anew));
	f = fopen(anew, "we");
	if (!f)
		return -errno;
	if (fprintf(f, "%d %" PRIu64 " %s\n", (int)o->mark.pid, o->mark.start, o->mark.socket) < 0) {
		(void)fclose(f);
		return -EIO;
	}
	return fclose(f) != 0 || rename(anew, path) != 0 ? -errno : 0;
}

bool foreign_in_scope(const uint8_t uuid[16], pid_t pid)
{
	char text[UUID_STR_LEN], scope[96];

	uuid_format(uuid, text);
	(void)snprintf(scope, sizeof(scope), UNITS_PREFIX "%s.scope", text);
	return process_in_cgroup(pid, scope, false);
}

static void set_timer(struct op *o, uint32_t ms, void (*fn)(void *))
{
	if (o->timer)
		(void)qb_loop_timer_del(o->f->d->loop, o->timer);
	o->timer = 0;
	if (fn)
		CHECK(qb_loop_timer_add(o->f->d->loop, QB_LOOP_MED, ms * NS_PER_MS, o, fn, &o->timer) == 0);
}

static void move(struct op *o, enum phase to)
{
	o->phase = to;
	o->phase_ns = clock_now_ns();
}

static bool late(const struct op *o, uint32_t ms) { return clock_now_ns() - o->phase_ns > (int64_t)ms * NS_PER_MS || clock_now_ns() > o->until_ns; }

static void drop_qmp(struct op *o)
{
	struct qmp_conn *c = o->qmp;

	o->qmp = NULL; /* its outstanding questions end now, and mean nothing any more */
	qmp_conn_free(c);
}

static void answer(struct op *o, json_object *with)
{
	server_answer_fn fn = o->fn;

	o->fn = NULL;
	if (fn)
		fn(o->user, with);
	json_object_put(with);
}

static void end(struct op *o)
{
	set_timer(o, 0, NULL);
	drop_qmp(o);
	if (o->pidfd >= 0)
		(void)close(o->pidfd);
	o->pidfd = -1;
	o->phase = IS_FREE;
}

static void tell_core(struct op *o, enum agent_event_kind kind, bool ok)
{
	struct agent_event ev = { .kind = kind, .ok = ok, .exit = VM_EXIT_REFUSED };

	memcpy(ev.uuid, o->uuid, 16);
	agentd_event(o->f->d, &ev);
}

/* An edit of the catalog, here or at the leader. */
static void ask_edit(struct op *o, const char *step, server_answer_fn fn)
{
	json_object *r = json_object_new_object();

	json_object_object_add(r, "command", json_object_new_string("vm-adopt-step"));
	json_object_object_add(r, "name", json_object_new_string(o->name));
	json_object_object_add(r, "uuid", json_object_new_string(o->uuid_text));
	json_object_object_add(r, "node", json_object_new_string(o->f->d->conf.self_name));
	json_object_object_add(r, "step", json_object_new_string(step));
	server_request(o->f->d->server, r, false, fn, o);
	json_object_put(r);
}

static void refused(struct op *o)
{
	agentd_say(o->f->d, LOG_LEVEL_WARNING, "VM %s: process %d is not adopted: %s", o->name, (int)o->mark.pid, o->why);
	answer(o, server_error(false, "VM %s: process %d is not adopted: %s", o->name, (int)o->mark.pid, o->why));
	end(o);
}

static void on_back(void *user, json_object *a)
{
	struct op *o = user;
	json_object *ok;

	if (!json_object_object_get_ex(a, "ok", &ok) || !json_object_get_boolean(ok)) {
		size_t n = strlen(o->why);

		(void)snprintf(o->why + n, sizeof(o->why) - n, "; it is ignored now: `ha-ctl vm stop %s` ends that", o->name);
	}
	refused(o);
}

/* What was begun is taken back; QEMU is as it was. */
static void fail(struct op *o, const char *fmt, ...) _printf_(2, 3);
static void fail(struct op *o, const char *fmt, ...)
{
	enum phase was = o->phase;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(o->why, sizeof(o->why), fmt, ap);
	va_end(ap);
	set_timer(o, 0, NULL);
	drop_qmp(o);
	if (was == IN_CHECK || was == IN_BEGIN) {
		refused(o);
		return;
	}
	move(o, IN_BACK);
	if (was >= IN_GATE) {
		(void)keeper_link_adopt(o->f->d->keeper, o->uuid, o->mark.pid, o->mark.start, 0, 0);
		foreign_unmark(o->uuid);
	}
	if (was >= IN_AGAIN && !o->off)
		tell_core(o, AGENT_EV_EXIT, false);
	else if (was == IN_CLAIM && !o->off)
		tell_core(o, AGENT_EV_TAKE_IN, false);
	if (o->was_stopped)
		ask_edit(o, "back", on_back);
	else
		refused(o);
}

static const struct vmfile *file_of(const struct op *o)
{
	struct catalog_entry *e = catalog_by_uuid(o->f->d->catalog, o->uuid);

	return e ? &e->file : NULL;
}

/* The process itself. False: it has failed. */
static bool check_process(struct op *o)
{
	const struct vmfile *file = file_of(o);
	char path[64], exe[256], *base;
	ssize_t n;
	int child;

	(void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)o->mark.pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	exe[MAX(n, 0)] = '\0';
	base = strrchr(exe, '/');
	base = base ? base + 1 : exe;
	child = process_has_child(o->mark.pid);
	if (!file)
		fail(o, "the VM was removed meanwhile");
	else if (process_gone(o->pidfd))
		fail(o, "it has ended meanwhile");
	else if (strncmp(base, "qemu", 4) != 0 && strncmp(base, "kvm", 3) != 0)
		fail(o, "it is no QEMU but %.200s", n > 0 ? exe : "a program that cannot be told");
	else if (!process_same_net(o->mark.pid, getpid()))
		fail(o, "it lives in another network namespace: what it leaves unsent when it dies could not be seen");
	else if (child != 0)
		fail(o, "it has a child process, or that cannot be told: what that writes would not end with it");
	else if (process_in_cgroup(o->mark.pid, UNITS_SLICE, true) && !foreign_in_scope(o->uuid, o->mark.pid))
		fail(o, "it is in " UNITS_SLICE " already, for another VM");
	else if (file->health.agent && !file->agent_path)
		fail(o, "GuestAgent=yes is for a port that only a QEMU started by ha-agent has: write GuestAgent=/PATH of this one's socket, or GuestAgent=no");
	else
		return true;
	return false;
}

static bool is_thread(void *user, int64_t tid)
{
	const struct op *o = user;
	char path[64];

	if (tid <= 0 || tid > INT32_MAX)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)o->mark.pid, (int)tid);
	return access(path, F_OK) == 0;
}

static const struct {
	const char *command, *key, *value;
} questions[] = {
	{ "query-status", NULL, NULL }, { "query-uuid", NULL, NULL }, { "query-cpus-fast", NULL, NULL }, { "query-memory-size-summary", NULL, NULL },
	{ "query-named-block-nodes", "flat", NULL }, { "query-block-jobs", NULL, NULL }, { "query-migrate", NULL, NULL },
	{ "qom-list", "path", "/machine/peripheral" }, { "qom-list", "path", "/machine/peripheral-anon" },
};

static void next_question(struct op *o);
static void checked(struct op *o);

static bool good_answer(struct op *o, const char *command, json_object *ret, char *err, size_t size)
{
	const struct vmfile *file = file_of(o);

	if (!file)
		return false;
	if (streq(command, "query-uuid"))
		return foreign_same_uuid(ret, o->uuid_text, err, size);
	if (streq(command, "query-memory-size-summary"))
		return foreign_same_memory(ret, file, err, size);
	if (streq(command, "query-named-block-nodes"))
		return foreign_same_disks(ret, file, err, size);
	if (streq(command, "qom-list"))
		return foreign_writes_itself(ret, err, size);
	if (!streq(command, "query-cpus-fast"))
		return foreign_settled(command, ret, err, size);
	if (!foreign_own_threads(ret, is_thread, o)) {
		(void)snprintf(err, size, "what answers at %s is another process, or one in another PID namespace: its CPUs' threads are not those of process %d",
			       o->mark.socket, (int)o->mark.pid);
		return false;
	}
	return foreign_same_cpus(ret, file, err, size);
}

static void on_answer(void *user, json_object *ret, const char *error)
{
	struct op *o = user;
	char err[ERROR_LEN] = "the VM was removed meanwhile";

	if (!o->qmp)
		return; /* nobody asks any more */
	if (error)
		fail(o, "QEMU does not answer %s: %.200s", questions[o->step].command, error);
	else if (!good_answer(o, questions[o->step].command, ret, err, sizeof(err)))
		fail(o, "%s", err);
	else if (++o->step < ARRAY_SIZE(questions))
		next_question(o);
	else
		checked(o);
}

static void next_question(struct op *o)
{
	json_object *args = NULL;
	int r;

	if (questions[o->step].key) {
		args = json_object_new_object();
		json_object_object_add(args, questions[o->step].key, questions[o->step].value ? json_object_new_string(questions[o->step].value) : json_object_new_boolean(true));
	}
	r = qmp_conn_execute(o->qmp, questions[o->step].command, args, QMP_TIMEOUT_OF_CLASS, on_answer, o);
	if (r < 0)
		fail(o, "QEMU cannot be asked: %s", strerror(-r));
}

static void ask_all(struct op *o)
{
	if (!check_process(o))
		return;
	if (!o->qmp) {
		fail(o, "its QMP connection has ended meanwhile");
		return;
	}
	o->step = 0;
	next_question(o);
}

static void on_qmp_ready(void *user, enum qmp_run_state state, const char *version)
{
	struct op *o = user;
	pid_t peer = qmp_conn_peer_pid(o->qmp);

	if (peer == o->mark.pid)
		ask_all(o);
	else if (peer == 0)
		fail(o, "the socket %s was made in another PID namespace: it cannot be told whose it is", o->mark.socket);
	else
		fail(o, "the socket %s is not its own but process %d's: a proxy, another QEMU, or who started it and made the socket for it", o->mark.socket, (int)peer);
}

static void on_qmp_event(void *user, const struct qmp_event *ev)
{
	/* What it means now will be seen in the second look. */
}

static void on_qmp_closed(void *user, const char *reason)
{
	struct op *o = user;

	if (!o->qmp)
		return;
	if (o->phase == IN_BEGIN) { /* the edit's answer comes first: it may have to be taken back */
		drop_qmp(o);
		return;
	}
	fail(o, "no QMP at %s: %.200s. Is it the path of a `-qmp unix:...,server=on` (a monitor of its own, nobody else's), and is nobody else connected to it?", o->mark.socket, reason);
}

/* The gate and what follows. */

static void on_scope(void *user, const char *error, const struct unit_info *info);
static void start_scope(void *data);
static void on_look(void *data);

static void on_done(void *user, json_object *a)
{
	struct op *o = user;
	json_object *ok, *error;

	if (json_object_object_get_ex(a, "ok", &ok) && json_object_get_boolean(ok)) {
		answer(o, server_ok());
		end(o);
	} else if (clock_now_ns() < o->until_ns) {
		set_timer(o, SCOPE_AGAIN_MS, on_look);
	} else {
		answer(o, server_error(true, "VM %s: adopted, but still ignored, so that nobody would recover it: %.200s; `ha-ctl vm start %s` ends that", o->name,
				       json_object_object_get_ex(a, "error", &error) ? json_object_get_string(error) : "no answer", o->name));
		end(o);
	}
}

static void adjust_oom(const struct op *o)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)o->mark.pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, OOM_ADJUST, strlen(OOM_ADJUST)) < 0)
		agentd_say(o->f->d, LOG_LEVEL_WARNING, "VM %s: its QEMU is not spared when memory runs out: %s: %s", o->name, path, strerror(errno));
	(void)close(fd);
}

static void in_scope(struct op *o)
{
	const struct vm *v = agent_vm_by_uuid(&o->f->d->core, o->uuid);

	set_timer(o, 0, NULL);
	if (o->off || !v) {
		fail(o, "this node has lost its lease meanwhile, or the VM was removed");
		return;
	}
	adjust_oom(o);
	runner_take_in(o->f->d->runner, v);
	move(o, IN_DONE);
	tell_core(o, AGENT_EV_STARTED, true);
	ask_edit(o, "done", on_done);
}

/* What systemd has said last is not believed: the kernel is asked. In it, and alive, it was in it as this process. */
static void on_scope_known(void *user, const char *error, const struct unit_info *info)
{
	struct op *o = user;

	o->calls--;
	if (o->phase != IN_SCOPE)
		return;
	if (foreign_in_scope(o->uuid, o->mark.pid) && !process_gone(o->pidfd) && !error)
		in_scope(o);
	else if (error || info->state == UNIT_STARTING)
		set_timer(o, SCOPE_AGAIN_MS, on_look); /* it may still come to be in it: nothing else is safe to assume */
	else
		fail(o, "systemd did not put it into a scope: %s", o->why[0] ? o->why : "it has ended");
}

static void on_scope(void *user, const char *error, const struct unit_info *info)
{
	struct op *o = user;

	(void)str_copy(o->why, sizeof(o->why), error ? error : "");
	if (units_query_scope(o->f->d->units, o->uuid_text, on_scope_known, o) == 0)
		return; /* the same count */
	o->calls--;
	if (o->phase == IN_SCOPE)
		set_timer(o, SCOPE_AGAIN_MS, on_look);
}

static void start_scope(void *data)
{
	struct op *o = data;
	char description[96];
	int r;

	(void)snprintf(description, sizeof(description), "VM %s (kvm-ha, adopted)", o->name);
	r = units_start_scope(o->f->d->units, o->uuid_text, description, o->mark.pid, on_scope, o);
	if (r == 0) {
		o->calls++;
		set_timer(o, SCOPE_AGAIN_MS, on_look);
	} else if ((r == -ENOTCONN || r == -EBUSY) && !late(o, KNOWN_MS)) {
		set_timer(o, LOOK_MS, start_scope);
	} else {
		fail(o, "cannot ask systemd to put it into a scope: %s", strerror(-r));
	}
}

static void enter_gate(struct op *o)
{
	const struct agent *a = &o->f->d->core;
	const struct vm *v = agent_vm_by_uuid((struct agent *)a, o->uuid);
	int r = write_mark(o);

	drop_qmp(o); /* a monitor takes one client at a time: the next one is the runner's */
	if (r < 0) {
		fail(o, AGENTD_VM_DIR ": %s", strerror(-r));
		return;
	}
	move(o, IN_GATE);
	set_timer(o, LOOK_MS, on_look);
	if (!v || !keeper_link_adopt(o->f->d->keeper, o->uuid, o->mark.pid, o->mark.start, a->epoch, v->term))
		fail(o, "the keeper does not answer");
}

void foreign_gate(struct foreign *f, bool ok, const char *text)
{
	/* One is at the gate at a time. */
	for (unsigned i = 0; i < MAX_OPS; i++) {
		struct op *o = &f->op[i];

		if (o->phase != IN_GATE)
			continue;
		if (!ok) {
			fail(o, "not let through the gate: %.200s", text);
		} else {
			move(o, IN_SCOPE);
			o->why[0] = '\0';
			start_scope(o);
		}
		return;
	}
}

/* A keeper that has ended knows nothing of it; one that lives on kills it with the others, at worst. */
void foreign_no_keeper(struct foreign *f)
{
	for (unsigned i = 0; i < MAX_OPS; i++)
		if (f->op[i].phase == IN_GATE)
			fail(&f->op[i], "the connection to the keeper was lost");
}

static bool gate_taken(const struct foreign *f)
{
	for (unsigned i = 0; i < MAX_OPS; i++)
		if (f->op[i].phase == IN_GATE)
			return true;
	return false;
}

static void on_begun(void *user, json_object *a)
{
	struct op *o = user;
	json_object *v;

	if (!json_object_object_get_ex(a, "ok", &v) || !json_object_get_boolean(v)) {
		fail(o, "%s", json_object_object_get_ex(a, "error", &v) ? json_object_get_string(v) : "the leader does not answer");
		return;
	}
	o->was_stopped = json_object_object_get_ex(a, "was", &v) && streq(json_object_get_string(v), "stopped");
	move(o, IN_KNOWN);
	on_look(o);
}

static void checked(struct op *o)
{
	if (o->phase == IN_AGAIN) {
		enter_gate(o);
		return;
	}
	move(o, IN_BEGIN);
	ask_edit(o, "begin", on_begun);
}

static void look_known(struct op *o)
{
	struct agent *a = &o->f->d->core;
	const struct vm *v = agent_vm_by_uuid(a, o->uuid);

	if (late(o, KNOWN_MS)) {
		fail(o, "this node's agent does not get to know that the VM is ignored, or still gives it up; `ha-ctl status` says more");
		return;
	}
	if (!v || !v->in_catalog || v->def.desired != DESIRED_IGNORED || agent_behind(a) || v->state != VM_IDLE || claimer_pending(a, v->def.uuid)) {
		set_timer(o, LOOK_MS, on_look);
		return;
	}
	move(o, IN_CLAIM);
	set_timer(o, LOOK_MS, on_look);
	tell_core(o, AGENT_EV_TAKE_IN, true);
}

/* The second look, now that it is claimed. */
static void look_again(struct op *o)
{
	if (gate_taken(o->f))
		set_timer(o, LOOK_MS, on_look);
	else
		ask_all(o);
}

static void on_look(void *data)
{
	struct op *o = data;

	o->timer = 0;
	switch (o->phase) {
	case IN_KNOWN:
		look_known(o);
		break;
	case IN_CLAIM:
		if (process_gone(o->pidfd) || late(o, WHOLE_MS))
			fail(o, "%s", process_gone(o->pidfd) ? "it has ended meanwhile" : "it cannot be claimed in time: its storage does not answer, or the volumes");
		else
			set_timer(o, LOOK_MS, on_look);
		break;
	case IN_AGAIN:
		look_again(o);
		break;
	case IN_GATE:
		if (late(o, GATE_MS))
			fail(o, "the keeper does not answer; is it of the same release?");
		else
			set_timer(o, LOOK_MS, on_look);
		break;
	case IN_SCOPE:
		if (o->fn && clock_now_ns() > o->until_ns)
			answer(o, server_error(true, "VM %s: systemd does not say whether it has put process %d into its scope; the agent goes on asking", o->name,
					       (int)o->mark.pid));
		if (o->calls == 0 && units_query_scope(o->f->d->units, o->uuid_text, on_scope_known, o) == 0)
			o->calls++;
		set_timer(o, SCOPE_AGAIN_MS, on_look);
		break;
	case IN_DONE:
		ask_edit(o, "done", on_done);
		break;
	default:
		break;
	}
}

/* Claimed, and to be put behind the gate; or the core has given it up. */
void foreign_take_in(struct foreign *f, const struct vm *v, bool on, uint32_t node)
{
	for (unsigned i = 0; i < MAX_OPS; i++) {
		struct op *o = &f->op[i];

		if (o->phase < IN_CLAIM || o->phase > IN_SCOPE || memcmp(o->uuid, v->def.uuid, 16) != 0)
			continue;
		if (on && o->phase == IN_CLAIM) {
			move(o, IN_AGAIN);
			set_timer(o, 0, on_look);
			return;
		}
		if (on)
			continue;
		o->off = true;
		if (o->phase == IN_SCOPE)
			return; /* systemd's answer comes first */
		if (node != 0)
			fail(o, "node %.64s holds the VM: it runs there, or did last and is not proven gone", agentd_node_name(f->d, node));
		else
			fail(o, "this node cannot have it at the moment: its lease does not live, it is to be emptied, or the VM's file does not allow it; `ha-ctl vm show %s --why` "
				"says more", o->name);
		return;
	}
	if (on) { /* nobody asks any more */
		struct agent_event ev = { .kind = AGENT_EV_EXIT, .exit = VM_EXIT_REFUSED };

		memcpy(ev.uuid, v->def.uuid, 16);
		agentd_event(f->d, &ev);
	}
}

static struct op *free_op(struct foreign *f)
{
	for (unsigned i = 0; i < MAX_OPS; i++)
		if (f->op[i].phase == IS_FREE && f->op[i].calls == 0)
			return &f->op[i];
	return NULL;
}

static bool under_way(const struct foreign *f, const uint8_t uuid[16], pid_t pid)
{
	for (unsigned i = 0; i < MAX_OPS; i++)
		if (f->op[i].phase != IS_FREE && (memcmp(f->op[i].uuid, uuid, 16) == 0 || f->op[i].mark.pid == pid))
			return true;
	return false;
}

/* Of an earlier attempt that was cut off after it was taken in: only the catalog is to say so. */
static bool is_ours_already(const struct foreign *f, const struct catalog_entry *e, pid_t pid)
{
	const struct vm *v = agent_vm_by_uuid(&f->d->core, e->uuid);
	struct foreign_mark mark;

	return v && v->state == VM_RUNNING && foreign_marked(e->uuid, &mark) && mark.pid == pid && process_start(pid) == mark.start;
}

static json_object *refuse_request(struct foreign *f, const char *name, int64_t pid, const char *path)
{
	const struct agentd *d = f->d;
	struct catalog_entry *e;
	uint32_t owner;

	if (!name || !path || pid <= 1 || pid > INT32_MAX || path[0] != '/' || strlen(path) >= FOREIGN_SOCKET_LEN || strchr(path, '\n'))
		return server_error(false, "to adopt takes the VM's name, the number of its QEMU and the absolute path of its QMP socket (at most %d bytes)", FOREIGN_SOCKET_LEN - 1);
	if (!d->core_runs || !d->core.adopted || !d->core.have_catalog)
		return server_error(true, "this agent has just been started and does not know yet what runs here");
	e = catalog_by_name(d->catalog, name);
	if (!e)
		return server_error(false, "no VM named %.64s: add its file first, with State=stopped (`ha-ctl vm import --qemu-cmdline` makes one)", name);
	if (under_way(f, e->uuid, (pid_t)pid))
		return server_error(true, "VM %.64s, or process %d, is just being adopted", name, (int)pid);
	if (is_ours_already(f, e, (pid_t)pid))
		return e->desired == DESIRED_IGNORED ? NULL : server_error(false, "process %d is VM %.64s already", (int)pid, name);
	owner = agent_owner(&d->core, e->uuid);
	if (owner != 0 && owner != d->conf.self_id)
		return server_error(false, "VM %.64s runs on node %.64s: it cannot run here as well. Two QEMUs on one disk? Look at both, now", name, agentd_node_name(d, owner));
	if (e->desired != DESIRED_STOPPED && e->desired != DESIRED_IGNORED)
		return server_error(false, "VM %.64s is %s: only one that is stopped can be adopted (`ha-ctl vm stop %.64s`)", name, catalog_desired_name(e->desired), name);
	if (process_start((pid_t)pid) == 0)
		return server_error(false, "there is no process %d on node %.64s", (int)pid, d->conf.self_name);
	if (!agent_gate_open(&d->core))
		return server_error(true, "this node starts no VMs at the moment, and adopts none: `ha-ctl status` says why");
	return NULL;
}

static const struct qmp_callbacks qmp_calls = { .ready = on_qmp_ready, .event = on_qmp_event, .closed = on_qmp_closed };

void foreign_request(struct foreign *f, json_object *request, server_answer_fn fn, void *user)
{
	json_object *n, *p, *s, *no;
	const char *name = json_object_object_get_ex(request, "name", &n) ? json_object_get_string(n) : NULL;
	const char *path = json_object_object_get_ex(request, "socket", &s) ? json_object_get_string(s) : NULL;
	int64_t pid = json_object_object_get_ex(request, "pid", &p) ? json_object_get_int64(p) : 0;
	struct op *o = free_op(f);
	struct catalog_entry *e;
	int r;

	no = refuse_request(f, name, pid, path);
	if (!no && !o)
		no = server_error(true, "%d adoptions are under way: wait for one to end", MAX_OPS);
	if (no) {
		fn(user, no);
		json_object_put(no);
		return;
	}
	e = catalog_by_name(f->d->catalog, name);
	*o = (struct op){ .f = f, .fn = fn, .user = user, .until_ns = clock_now_ns() + WHOLE_MS * NS_PER_MS, .pidfd = -1 };
	memcpy(o->uuid, e->uuid, 16);
	uuid_format(o->uuid, o->uuid_text);
	(void)str_copy(o->name, sizeof(o->name), e->file.name);
	(void)str_copy(o->mark.socket, sizeof(o->mark.socket), path);
	o->mark.pid = (pid_t)pid;
	o->mark.start = process_start(o->mark.pid);
	if (is_ours_already(f, e, o->mark.pid)) {
		move(o, IN_DONE);
		ask_edit(o, "done", on_done);
		return;
	}
	move(o, IN_CHECK);
	o->pidfd = process_open(o->mark.pid, o->mark.start);
	if (o->pidfd < 0) {
		fail(o, "%s", o->pidfd == -ESRCH ? "it has just ended" : strerror(-o->pidfd));
		return;
	}
	if (!check_process(o))
		return;
	r = qmp_conn_new(f->d->loop, path, QMP_MS, &qmp_calls, o, &o->qmp);
	if (r < 0)
		fail(o, "%s: %s", path, strerror(-r));
}

int foreign_new(struct agentd *d, struct foreign **ret)
{
	struct foreign *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->d = d;
	for (unsigned i = 0; i < MAX_OPS; i++)
		f->op[i] = (struct op){ .f = f, .pidfd = -1 };
	*ret = f;
	return 0;
}
