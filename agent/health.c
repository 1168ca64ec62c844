/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/health.h"

#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/base/held.h"
#include "agent/base/uuid.h"
#include "qmp/guest_agent.h"
#include "storage/format.h"

#define LOOK_MS 2000         /* between two questions to QEMU */
#define PING_MS 5000         /* between two to the guest's agent, and how long each may take */
#define GUEST_MS 500         /* how often it is seen to what the guest is to be asked next */
#define STILL_MS 5000 /* longer than any of these timers */
#define SYNC_MS 5000
#define RECONNECT_MS 1000
#define EVENT_GAP_MS 10000   /* a guest's errors come in bursts: one line in so long */
#define CHECKS_LEFT 4        /* so many of a check's processes may hang in the guest before no more are begun */

struct health {
	struct agentd *d;
	uint8_t uuid[16];
	char uuid_text[UUID_STR_LEN];
	struct qmp_conn *qmp;
	enum qmp_run_state state;
	enum vm_reaction panic;      /* as QEMU does, as far as it takes what it was told last */
	bool quiet;                  /* nothing of a QEMU of it before this one is left to be proven: nor will there be */
	bool asking, ask_again;      /* query-status is under way; and the answer may be old already */
	qb_loop_timer_handle look_timer;
	int64_t told_ns[QMP_EVENT_KIND_COUNT]; /* when events of the kind were told last; 0: never */
	/* the guest's agent */
	struct qmp_conn *guest;
	bool in_step, busy;
	qb_loop_timer_handle guest_timer;
	int64_t ping_ns, check_ns;   /* next */
	int64_t check_until_ns;      /* 0: no check is under way */
	int64_t tick_ns;             /* when on_guest_tick came last */
	int64_t check_pid;           /* in the guest; -1: not begun yet */
	int64_t left_pid[CHECKS_LEFT]; /* not ended within CheckTimeout=; */
	unsigned n_left, left_at;    /* seen to, before the next one is begun, up to this one */
	bool check_told;
};

static void set_timer(struct health *h, qb_loop_timer_handle *t, uint32_t ms, void (*fn)(void *))
{
	if (*t)
		(void)qb_loop_timer_del(h->d->loop, *t);
	*t = 0;
	if (fn)
		(void)qb_loop_timer_add(h->d->loop, QB_LOOP_MED, ms * NS_PER_MS, h, fn, t);
}

static const struct vmfile *file_of(const struct health *h)
{
	const struct catalog_entry *e = catalog_by_uuid(h->d->catalog, h->uuid);

	return e ? &e->file : NULL;
}

static const char *name_of(const struct health *h)
{
	const struct vmfile *f = file_of(h);

	return f ? f->name : h->uuid_text;
}

static void tell(struct health *h, enum health_fact fact, enum guest_run run, bool ok)
{
	struct agent_event ev = { .kind = AGENT_EV_HEALTH, .fact = fact, .run = run, .ok = ok };

	memcpy(ev.uuid, h->uuid, 16);
	ev.held = !h->quiet;
	agentd_event(h->d, &ev);
}

/* QEMU's state. */

static enum guest_run run_of(enum qmp_run_state s)
{
	switch (s) {
	case QMP_RUN_SUSPENDED:
		return GUEST_ASLEEP;
	case QMP_RUN_IO_ERROR:
		return GUEST_IO_ERROR;
	case QMP_RUN_GUEST_PANICKED:
		return GUEST_PANICKED;
	case QMP_RUN_WATCHDOG:
		return GUEST_WATCHDOG;
	case QMP_RUN_INTERNAL_ERROR:
		return GUEST_INTERNAL_ERROR;
	case QMP_RUN_POSTMIGRATE:
		return GUEST_SENT;
	default:
		break;
	}
	switch (qmp_meaning_health(s)) {
	case QMP_HEALTH_OK:
		return GUEST_RUNS;
	case QMP_HEALTH_PAUSED:
		return GUEST_PAUSED;
	case QMP_HEALTH_BUSY:
		return GUEST_BUSY;
	case QMP_HEALTH_ENDING:
		return GUEST_OVER;
	default:
		return GUEST_UNKNOWN;
	}
}

static void ask(struct health *h);
static void set_actions(struct health *h);

static void on_look(void *data)
{
	struct health *h = data;
	const struct vmfile *f = file_of(h);

	h->look_timer = 0;
	if (h->qmp && f && f->health.panic != h->panic)
		set_actions(h);
	ask(h);
}

static void take_state(struct health *h, enum qmp_run_state s)
{
	if (s != h->state)
		peers_status_changed(h->d->peers);
	h->state = s;
	h->quiet = h->quiet || held_quiet(HELD_FOR_NEXT, format_vm_mark(h->uuid), NULL, 0);
	tell(h, HEALTH_STATE, run_of(s), true);
}

static void on_status(void *user, json_object *ret, const char *error)
{
	struct health *h = user;
	json_object *v;

	h->asking = false;
	if (!error && json_object_is_type(ret, json_type_object) && json_object_object_get_ex(ret, "status", &v) && json_object_is_type(v, json_type_string))
		take_state(h, qmp_run_state_parse(json_object_get_string(v)));
	if (h->qmp)
		set_timer(h, &h->look_timer, h->ask_again || error ? 0 : LOOK_MS, on_look);
}

static void ask(struct health *h)
{
	if (!h->qmp || h->asking) {
		h->ask_again = h->asking;
		return;
	}
	h->ask_again = false;
	h->asking = qmp_conn_execute(h->qmp, "query-status", NULL, QMP_TIMEOUT_OF_CLASS, on_status, h) == 0;
	if (!h->asking)
		set_timer(h, &h->look_timer, LOOK_MS, on_look);
}

static void on_set_action(void *user, json_object *ret, const char *error)
{
	const struct health *h = user;

	const struct vmfile *f = file_of(h);

	/* One that cannot end by itself is ended when its guest is found powered off. */
	if (error && !streq(error, "disconnected") && f && f->health.panic != REACT_RESTART)
		agentd_say(h->d, LOG_LEVEL_WARNING, "VM %s: QEMU does not take OnPanic=: %.100s", name_of(h), error);
}

/* A guest that powers itself off takes its QEMU with it, -no-shutdown or not (libvirt's all have that); one that is not to be ended by its panic stays for
 * whoever looks at it. */
static void set_actions(struct health *h)
{
	const struct vmfile *f = file_of(h);
	json_object *args = json_object_new_object();

	json_object_object_add(args, "shutdown", json_object_new_string("poweroff"));
	if (f && f->health.panic != REACT_RESTART)
		json_object_object_add(args, "panic", json_object_new_string(f->health.panic == REACT_ALERT ? "pause" : "none"));
	else if (h->panic != REACT_RESTART) /* `ha-ctl vm update`: as QEMU does by itself */
		json_object_object_add(args, "panic", json_object_new_string("shutdown"));
	h->panic = f ? f->health.panic : REACT_RESTART;
	(void)qmp_conn_execute(h->qmp, "set-action", args, QMP_TIMEOUT_OF_CLASS, on_set_action, h);
}

static void on_guest_tick(void *data);

void health_qmp(struct health *h, struct qmp_conn *conn, enum qmp_run_state state)
{
	h->qmp = conn;
	h->asking = h->ask_again = false;
	set_timer(h, &h->look_timer, LOOK_MS, conn ? on_look : NULL);
	if (!conn)
		return;
	set_actions(h);
	take_state(h, state);
	if (!h->guest_timer)
		set_timer(h, &h->guest_timer, 0, on_guest_tick);
}

static const char *word_of(const struct qmp_event *ev, const char *key)
{
	json_object *v;

	return ev->data && json_object_object_get_ex(ev->data, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

/* Whether no run state follows, and so no trouble that would be told: the guest runs on with it, or goes on by itself. */
static bool stands_alone(const struct health *h, const struct qmp_event *ev)
{
	const struct vmfile *f = file_of(h);

	switch (ev->kind) {
	case QMP_EVENT_MEMORY_FAILURE:
	case QMP_EVENT_GUEST_CRASHLOADED:
		return true;
	case QMP_EVENT_BLOCK_IO_ERROR:
		return !streq(word_of(ev, "action"), "stop") && f && f->health.io_error != REACT_IGNORE;
	case QMP_EVENT_WATCHDOG:
		return !streq(word_of(ev, "action"), "pause") && f && f->health.watchdog != REACT_IGNORE;
	default:
		return false;
	}
}

static void tell_event(struct health *h, const struct qmp_event *ev)
{
	int64_t now_ns = clock_now_ns(), *told_ns = &h->told_ns[ev->kind];
	const char *id = word_of(ev, "device");
	char text[256];

	if (*told_ns != 0 && now_ns - *told_ns < EVENT_GAP_MS * NS_PER_MS)
		return;
	*told_ns = now_ns;
	(void)snprintf(text, sizeof(text), "VM %s: %s %.40s %.100s%s", name_of(h), ev->name, *id ? id : word_of(ev, "action"), ev->reason,
		       ev->nospace ? " (no space left)" : "");
	agentd_say(h->d, LOG_LEVEL_WARNING, "%s", text);
	peers_say(h->d->peers, text); /* this node's alone, and an operator may be anywhere */
	if (stands_alone(h, ev))
		agentd_hook(h->d, HOOK_VM_EVENT, h->d->conf.self_id, agent_vm_by_uuid(&h->d->core, h->uuid), text);
}

void health_qmp_event(struct health *h, const struct qmp_event *ev)
{
	enum qmp_news news = qmp_meaning_news(ev->kind);

	if (news == QMP_NEWS_ERROR)
		tell_event(h, ev);
	if (h->state == QMP_RUN_SHUTDOWN && (ev->kind == QMP_EVENT_RESET || ev->kind == QMP_EVENT_RESUME))
		h->state = QMP_RUN_UNKNOWN; /* until it is asked */
	if (ev->kind == QMP_EVENT_GUEST_PANICKED)
		tell(h, HEALTH_PANIC, GUEST_UNKNOWN, true);
	if (ev->kind == QMP_EVENT_RESET) {
		h->check_until_ns = 0;
		h->n_left = 0; /* nothing of it is left */
		tell(h, HEALTH_RESET, GUEST_UNKNOWN, ev->guest);
	}
	if (news == QMP_NEWS_STATE || news == QMP_NEWS_ERROR)
		ask(h);
}

enum qmp_run_state health_run_state(const struct health *h) { return h->state; }

/* The guest's agent: one question at a time, the next one when the one before is over. */

static bool no_answer(const char *error) { return error && (streq(error, "timeout") || streq(error, "disconnected")); }

static void on_ping(void *user, json_object *ret, const char *error)
{
	struct health *h = user;

	h->busy = false;
	if (!no_answer(error))
		tell(h, HEALTH_PING, GUEST_UNKNOWN, true); /* a refusal is a sign of life, too */
}

static bool guest_ask(struct health *h, const char *command, json_object *args, qmp_reply_fn fn)
{
	h->busy = guest_agent_conn_execute(h->guest, command, args, PING_MS, fn, h) == 0;
	return h->busy;
}

static void check_over(struct health *h, bool good, const char *why)
{
	const struct vmfile *f = file_of(h);

	h->check_until_ns = 0;
	h->check_ns = clock_now_ns() + (int64_t)(f ? f->check_interval_ms : PING_MS) * NS_PER_MS;
	h->left_at = 0;
	if (!good && !h->check_told)
		agentd_say(h->d, LOG_LEVEL_WARNING, "VM %s: Check= of its service is not good: %.150s", name_of(h), why);
	h->check_told = !good;
	tell(h, good ? HEALTH_CHECK_GOOD : HEALTH_CHECK_BAD, GUEST_UNKNOWN, good);
}

/* The guest's agent cannot end it, and keeps it in mind until it is told that it has ended. */
static void leave_check(struct health *h, int64_t pid)
{
	if (pid >= 0 && h->n_left < CHECKS_LEFT)
		h->left_pid[h->n_left++] = pid;
}

static bool member_of(json_object *o, const char *key, enum json_type type, json_object **ret)
{
	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, ret) && json_object_is_type(*ret, type);
}

static void on_exec(void *user, json_object *ret, const char *error)
{
	struct health *h = user;
	json_object *pid;
	bool begun = member_of(ret, "pid", json_type_int, &pid);

	h->busy = false;
	if (begun && h->check_until_ns != 0)
		h->check_pid = json_object_get_int64(pid);
	else if (begun)
		leave_check(h, json_object_get_int64(pid)); /* too late */
	else if (h->check_until_ns != 0)
		check_over(h, false, error ? error : "guest-exec gave no pid");
}

static bool has_exited(json_object *ret)
{
	json_object *exited;

	return member_of(ret, "exited", json_type_boolean, &exited) && json_object_get_boolean(exited);
}

static void on_exec_status(void *user, json_object *ret, const char *error)
{
	struct health *h = user;
	json_object *code;
	char why[64];

	h->busy = false;
	if (h->check_until_ns == 0)
		return;
	if (error && !streq(error, "timeout")) {
		if (no_answer(error))
			leave_check(h, h->check_pid);
		check_over(h, false, error);
		return;
	}
	if (!has_exited(ret))
		return; /* asked again until CheckTimeout= */
	if (!member_of(ret, "exitcode", json_type_int, &code)) {
		check_over(h, false, "it was ended by a signal");
		return;
	}
	(void)snprintf(why, sizeof(why), "exit status %d", json_object_get_int(code));
	check_over(h, json_object_get_int64(code) == 0, why);
}

/* Unknown: the guest's agent was started anew. */
static void on_left_status(void *user, json_object *ret, const char *error)
{
	struct health *h = user;

	h->busy = false;
	if (no_answer(error))
		h->left_at = h->n_left; /* the next check will show it */
	else if (h->left_at < h->n_left && (error || has_exited(ret)))
		h->left_pid[h->left_at] = h->left_pid[--h->n_left];
	else
		h->left_at++;
}

static void begin_check(struct health *h, const struct vmfile *f)
{
	json_object *args = json_object_new_object(), *list = json_object_new_array();

	json_object_object_add(args, "path", json_object_new_string(f->check[0]));
	for (size_t i = 1; i < f->n_check; i++)
		json_object_array_add(list, json_object_new_string(f->check[i]));
	json_object_object_add(args, "arg", list);
	h->check_pid = -1;
	h->check_until_ns = clock_now_ns() + (int64_t)f->check_timeout_ms * NS_PER_MS;
	if (!guest_ask(h, "guest-exec", args, on_exec))
		h->check_until_ns = 0;
}

static void ask_process(struct health *h, int64_t pid, qmp_reply_fn fn)
{
	json_object *args = json_object_new_object();

	json_object_object_add(args, "pid", json_object_new_int64(pid));
	(void)guest_ask(h, "guest-exec-status", args, fn);
}

static void next_check(struct health *h, const struct vmfile *f)
{
	if (h->left_at < h->n_left)
		ask_process(h, h->left_pid[h->left_at], on_left_status);
	else if (h->n_left < CHECKS_LEFT)
		begin_check(h, f);
	else
		check_over(h, false, "too many before it have not ended");
}

static void on_guest_ready(void *user)
{
	struct health *h = user;

	h->in_step = true;
	h->busy = false;
	tell(h, HEALTH_PING, GUEST_UNKNOWN, true); /* it has answered our sync */
}

static void on_guest_closed(void *user, const char *reason)
{
	struct health *h = user;

	qmp_conn_free(h->guest);
	h->guest = NULL;
	h->in_step = h->busy = false;
	set_timer(h, &h->guest_timer, RECONNECT_MS, on_guest_tick);
}

static void connect_guest(struct health *h, const struct vmfile *f)
{
	static const struct guest_agent_callbacks cb = { .ready = on_guest_ready, .closed = on_guest_closed };
	char path[128];

	(void)snprintf(path, sizeof(path), "%s", f->agent_path ? f->agent_path : "");
	if (!f->agent_path)
		(void)snprintf(path, sizeof(path), AGENTD_VM_DIR "/%s.agent", h->uuid_text);
	if (guest_agent_conn_new(h->d->loop, path, SYNC_MS, &cb, h, &h->guest) < 0)
		h->guest = NULL;
}

static void ask_guest(struct health *h, const struct vmfile *f)
{
	int64_t now_ns = clock_now_ns();

	if (h->check_until_ns != 0 && now_ns > h->check_until_ns) {
		leave_check(h, h->check_pid);
		check_over(h, false, "it did not end within CheckTimeout=");
		return;
	}
	if (!h->in_step || h->busy)
		return;
	if (now_ns >= h->ping_ns) {
		h->ping_ns = now_ns + PING_MS * NS_PER_MS;
		(void)guest_ask(h, "guest-ping", NULL, on_ping);
	} else if (h->check_until_ns != 0 && h->check_pid >= 0) {
		ask_process(h, h->check_pid, on_exec_status);
	} else if (h->check_until_ns == 0 && f->n_check > 0 && now_ns >= h->check_ns) {
		next_check(h, f);
	}
}

/* A guest that stands still is asked nothing: it could not answer. */
static void on_guest_tick(void *data)
{
	struct health *h = data;
	const struct vmfile *f = file_of(h);
	int64_t now_ns = clock_now_ns();

	h->guest_timer = 0;
	/* Time in which the agent itself stood still is nobody's: the answer may be in the socket. */
	if (h->check_until_ns != 0 && now_ns - h->tick_ns > STILL_MS * NS_PER_MS)
		h->check_until_ns += now_ns - h->tick_ns;
	h->tick_ns = now_ns;
	if (f && f->health.agent && run_of(h->state) == GUEST_RUNS) {
		if (!h->guest)
			connect_guest(h, f);
		else
			ask_guest(h, f);
	}
	if (!h->guest_timer)
		set_timer(h, &h->guest_timer, GUEST_MS, on_guest_tick);
}

struct health *health_new(struct agentd *d, const uint8_t uuid[16])
{
	struct health *h = calloc(1, sizeof(*h));

	CHECK(h);
	h->d = d;
	memcpy(h->uuid, uuid, 16);
	uuid_format(uuid, h->uuid_text);
	return h;
}

void health_free(struct health *h)
{
	if (!h)
		return;
	set_timer(h, &h->look_timer, 0, NULL);
	set_timer(h, &h->guest_timer, 0, NULL);
	h->check_until_ns = 0; /* whose answer is not waited for any more */
	qmp_conn_free(h->guest);
	free(h);
}
