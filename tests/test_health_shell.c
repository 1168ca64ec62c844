/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/health.c: what it asks a QEMU and the agent in its guest, and what it tells of what it hears. Clock, timers and both connections are the test's. */
#include <stdio.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/health.h"
#include "qmp/guest_agent.h"
#include "storage/format.h"
#include "tests/tap.h"

#define MAX_TIMERS 16
#define STEP_MS 100

static struct agentd d;
static struct health *h;
static int64_t now_ns;
static struct { int64_t at_ns; void (*fn)(void *); void *data; } timer[MAX_TIMERS];
static char action[256];    /* last set-action */
static unsigned n_said, n_told_all, n_hooks, n_good, n_bad;
static enum hook_event last_hook;

/* The guest: its processes of Check= end at once, or hang. */
static bool hangs, forgetful;
static int64_t last_pid, ended_pid;
static int exit_code;
static bool held;
static unsigned n_execs, n_asked_status;
static const struct guest_agent_callbacks *guest_cb;
static void *guest_user;
static struct { const char *command; int64_t pid; qmp_reply_fn fn; void *user; } question;

/* ---- the rest of the agent ---- */

void agentd_event(struct agentd *x, const struct agent_event *ev)
{
	n_good += ev->kind == AGENT_EV_HEALTH && ev->fact == HEALTH_CHECK_GOOD;
	if (ev->kind == AGENT_EV_HEALTH && ev->fact == HEALTH_STATE)
		held = ev->held;
	n_bad += ev->kind == AGENT_EV_HEALTH && ev->fact == HEALTH_CHECK_BAD;
}

void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("# %s\n", text);
	n_said++;
}

void agentd_hook(struct agentd *x, enum hook_event event, uint32_t node, const struct vm *v, const char *reason)
{
	n_hooks++;
	last_hook = event;
}

void peers_say(struct peers *p, const char *text) { n_told_all++; }
void peers_status_changed(struct peers *p) {}

/* ---- time ---- */

int64_t __wrap_clock_now_ns(void);
int32_t __wrap_qb_loop_timer_add(qb_loop_t *l, enum qb_loop_priority p, uint64_t ns, void *data, qb_loop_timer_dispatch_fn fn, qb_loop_timer_handle *ret);
int32_t __wrap_qb_loop_timer_del(qb_loop_t *l, qb_loop_timer_handle t);
int64_t __wrap_clock_now_ns(void) { return now_ns; }

int32_t __wrap_qb_loop_timer_add(qb_loop_t *l, enum qb_loop_priority p, uint64_t ns, void *data, qb_loop_timer_dispatch_fn fn, qb_loop_timer_handle *ret)
{
	for (unsigned i = 0; i < MAX_TIMERS; i++)
		if (!timer[i].fn) {
			timer[i].at_ns = now_ns + (int64_t)ns;
			timer[i].fn = fn;
			timer[i].data = data;
			*ret = i + 1;
			return 0;
		}
	abort();
}

int32_t __wrap_qb_loop_timer_del(qb_loop_t *l, qb_loop_timer_handle t)
{
	timer[t - 1].fn = NULL;
	return 0;
}

/* ---- QEMU and guest ---- */

int __wrap_qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
void __wrap_qmp_conn_free(struct qmp_conn *c);
int __wrap_guest_agent_conn_new(qb_loop_t *loop, const char *path, uint32_t sync_ms, const struct guest_agent_callbacks *cb, void *user, struct qmp_conn **ret);
int __wrap_guest_agent_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);

int __wrap_qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	if (streq(command, "set-action"))
		(void)str_copy(action, sizeof(action), json_object_to_json_string_ext(args, JSON_C_TO_STRING_PLAIN));
	json_object_put(args);
	return streq(command, "query-status") ? -1 : 0; /* not now: it is asked again; of others the answer is still to come */
}

void __wrap_qmp_conn_free(struct qmp_conn *c) {}

int __wrap_guest_agent_conn_new(qb_loop_t *loop, const char *path, uint32_t sync_ms, const struct guest_agent_callbacks *cb, void *user, struct qmp_conn **ret)
{
	guest_cb = cb;
	guest_user = user;
	*ret = (struct qmp_conn *)&guest_cb; /* nobody looks into it */
	return 0;
}

int __wrap_guest_agent_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	json_object *pid;

	CHECK(!question.fn);
	question.command = command;
	question.pid = args && json_object_object_get_ex(args, "pid", &pid) ? json_object_get_int64(pid) : -1;
	question.fn = fn;
	question.user = user;
	json_object_put(args);
	return 0;
}

static void answer(void)
{
	qmp_reply_fn fn = question.fn;
	json_object *ret = json_object_new_object();
	bool unknown = false;

	question.fn = NULL;
	if (streq(question.command, "guest-exec")) {
		n_execs++;
		last_pid++;
		json_object_object_add(ret, "pid", json_object_new_int64(last_pid));
	} else if (streq(question.command, "guest-exec-status")) {
		bool exited = !hangs || question.pid <= ended_pid;

		n_asked_status++;
		unknown = forgetful;
		json_object_object_add(ret, "exited", json_object_new_boolean(exited));
		if (exited)
			json_object_object_add(ret, "exitcode", json_object_new_int(exit_code));
	}
	fn(question.user, unknown ? NULL : ret, unknown ? "Invalid parameter 'pid'" : NULL);
	json_object_put(ret);
}

static void pass(unsigned ms)
{
	for (unsigned n = 0; n < ms; n += STEP_MS) {
		now_ns += (int64_t)STEP_MS * NS_PER_MS;
		for (unsigned i = 0; i < MAX_TIMERS; i++)
			if (timer[i].fn && timer[i].at_ns <= now_ns) {
				void (*fn)(void *) = timer[i].fn;

				timer[i].fn = NULL;
				fn(timer[i].data);
			}
		if (question.fn)
			answer();
	}
}

static void begin(const char *health)
{
	char text[1024], err[256] = "";

	(void)snprintf(text, sizeof(text), "[VM]\nName=web\nUUID=11111111-2222-4333-8444-000000000001\nMemory=32M\nVCPUs=1\n[QEMU]\nBinary=/bin/sleep\nArguments=1000\n"
		       "[Health]\n%s", health);
	if (h)
		health_free(h);
	memset(timer, 0, sizeof(timer));
	memset(&question, 0, sizeof(question));
	catalog_free(d.catalog);
	d.catalog = catalog_new();
	CHECK(d.catalog && catalog_add(d.catalog, text, strlen(text), err, sizeof(err)) == 0);
	hangs = forgetful = false;
	exit_code = 0;
	last_pid = ended_pid = 0;
	n_said = n_told_all = n_hooks = n_good = n_bad = n_execs = n_asked_status = 0;
	action[0] = '\0';
	h = health_new(&d, d.catalog->entry[0].uuid);
	health_qmp(h, (struct qmp_conn *)&d, QMP_RUN_RUNNING);
	pass(STEP_MS);
	if (guest_cb)
		guest_cb->ready(guest_user);
}

/* ---- the tests ---- */

static void test_actions(void)
{
	begin("");
	TAP_OK(streq(action, "{\"shutdown\":\"poweroff\"}"), "its QEMU is to end with its guest: %s", action);
	begin("OnPanic=alert");
	TAP_OK(streq(action, "{\"shutdown\":\"poweroff\",\"panic\":\"pause\"}"), "OnPanic=alert: %s", action);
	begin("OnPanic=ignore");
	TAP_OK(streq(action, "{\"shutdown\":\"poweroff\",\"panic\":\"none\"}"), "OnPanic=ignore: %s", action);
}

/* As `ha-ctl vm update` does */
static void update(const char *health)
{
	char text[512], err[256] = "";
	struct catalog_entry *e;

	(void)snprintf(text, sizeof(text), "[VM]\nName=web\nMemory=32M\nVCPUs=1\n[QEMU]\nBinary=/bin/sleep\nArguments=1000\n[Health]\n%s", health);
	CHECK(catalog_update(d.catalog, text, strlen(text), &e, err, sizeof(err)) == 0);
	action[0] = '\0';
	pass(5000);
}

static void test_actions_updated(void)
{
	begin("");
	update("OnPanic=alert");
	TAP_OK(streq(action, "{\"shutdown\":\"poweroff\",\"panic\":\"pause\"}"), "OnPanic=alert while it runs: %s", action);
	update("OnPanic=alert\nOnHang=alert");
	TAP_OK(streq(action, ""), "told once");
	update("OnHang=alert");
	TAP_OK(streq(action, "{\"shutdown\":\"poweroff\",\"panic\":\"shutdown\"}"), "back again, as QEMU does by itself: %s", action);
}

static void hear(enum qmp_event_kind kind, const char *what)
{
	struct qmp_event ev = { .kind = kind, .name = qmp_event_kind_name(kind), .reason = "" };

	ev.data = json_object_new_object();
	json_object_object_add(ev.data, "action", json_object_new_string(what));
	health_qmp_event(h, &ev);
	json_object_put(ev.data);
}

/* Whom QEMU's bad news reach. */
static void test_events(void)
{
	static const struct {
		enum qmp_event_kind kind;
		const char *action, *health;
		unsigned told, hooks;
	} table[] = {
		{ QMP_EVENT_MEMORY_FAILURE, "reset", "", 1, 1 }, { QMP_EVENT_GUEST_CRASHLOADED, "run", "", 1, 1 },
		{ QMP_EVENT_BLOCK_IO_ERROR, "report", "", 1, 1 }, { QMP_EVENT_BLOCK_IO_ERROR, "report", "OnIOError=ignore", 1, 0 },
		{ QMP_EVENT_BLOCK_IO_ERROR, "stop", "", 1, 0 }, { QMP_EVENT_WATCHDOG, "inject-nmi", "", 1, 1 },
		{ QMP_EVENT_WATCHDOG, "inject-nmi", "OnWatchdog=ignore", 1, 0 }, { QMP_EVENT_WATCHDOG, "pause", "", 1, 0 },
		{ QMP_EVENT_GUEST_PANICKED, "pause", "", 1, 0 }, { QMP_EVENT_RESET, "", "", 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		begin(table[i].health);
		hear(table[i].kind, table[i].action);
		TAP_OK(n_told_all == table[i].told && n_hooks == table[i].hooks && (n_hooks == 0 || last_hook == HOOK_VM_EVENT), "%s %s %s: %s%s",
		       qmp_event_kind_name(table[i].kind), table[i].action, table[i].health, table[i].told ? "told everywhere" : "no news",
		       table[i].hooks ? ", and by a hook" : "");
	}
	begin("");
	for (int i = 0; i < 90; i++) {
		hear(QMP_EVENT_MEMORY_FAILURE, "ignore");
		hear(QMP_EVENT_BLOCK_IO_ERROR, "report");
		pass(STEP_MS);
	}
	TAP_OK(n_told_all == 2 && n_hooks == 2, "a burst of two kinds: each is told once");
	pass(2000);
	hear(QMP_EVENT_MEMORY_FAILURE, "ignore");
	TAP_OK(n_told_all == 3 && n_hooks == 3, "and again later");
}

#define CHECKED "GuestAgent=yes\nCheck=/bin/true\nCheckInterval=5s\nCheckTimeout=2s\n"

static void test_checks(void)
{
	begin(CHECKED);
	pass(60000);
	TAP_OK(n_good >= 10 && n_bad == 0 && n_execs - n_good <= 1, "a check that ends: good each interval (%u of %u)", n_good, n_execs);

	exit_code = 1;
	n_good = n_bad = 0;
	pass(60000);
	TAP_OK(n_good == 0 && n_bad >= 10, "exit status 1 is bad");

	begin(CHECKED);
	hangs = true;
	pass(3500);
	hangs = false;
	pass(10000);
	TAP_OK(n_bad == 1 && n_good >= 1 && n_execs >= 2, "one hangs: it is bad, the next is begun all the same");

	begin(CHECKED);
	hangs = true;
	pass(600000);
	TAP_OK(n_execs == 4 && n_bad >= 80, "all hang for 10 minutes: no more than 4 are begun (%u), each interval is bad (%u)", n_execs, n_bad);
	n_bad = n_asked_status = 0;
	pass(60000);
	TAP_OK(n_execs == 4 && n_bad >= 7 && n_asked_status + 4 >= 4 * n_bad, "each that is left is asked for each time");
	ended_pid = 2;
	pass(60000);
	TAP_OK(n_execs == 6, "two of them end: two more are begun (%u)", n_execs - 4);
	hangs = false;
	n_good = 0;
	pass(12000);
	TAP_OK(n_good >= 1 && n_bad >= 10, "all have ended: it is checked as before");

	begin(CHECKED);
	hangs = true;
	pass(120000);
	CHECK(n_execs == 4);
	forgetful = true;
	pass(10000);
	TAP_OK(n_execs > 4, "the guest's agent was started anew and knows none of them: checked again");

	begin(CHECKED);
	hangs = true;
	pass(120000);
	CHECK(n_execs == 4);
	hear(QMP_EVENT_RESET, "");
	pass(6000);
	TAP_OK(n_execs == 5 && question.pid != 4, "the guest was reset: none of them is left");
}

/* Whether something is left of a QEMU before this one: told with its state, until nothing is. */
static void test_held(void)
{
	char dir[] = "/tmp/kvm-ha-health-XXXXXX", note[128];
	FILE *f;

	CHECK(mkdtemp(dir));
	held_use(dir, "/proc");
	(void)snprintf(note, sizeof(note), "%s/%08x-%d-%d-1", dir, format_vm_mark(d.catalog->entry[0].uuid), (int)getpid(), 1); /* that number is another's now */
	f = fopen(note, "we");
	CHECK(f && fputs("none 0:1 1 /srv/disk\n", f) >= 0 && fclose(f) == 0);
	begin("");
	TAP_OK(held, "an unproven file of a dead QEMU of it: told");
	CHECK(unlink(note) == 0);
	health_qmp(h, (struct qmp_conn *)&d, QMP_RUN_RUNNING);
	TAP_OK(!held, "it is proven: told");
	CHECK(rmdir(dir) == 0);
}

int main(void)
{
	log_init("test_health_shell", LOG_LEVEL_ERR);
	test_actions();
	test_actions_updated();
	test_events();
	test_checks();
	test_held();
	health_free(h);
	catalog_free(d.catalog);
	return tap_done();
}
