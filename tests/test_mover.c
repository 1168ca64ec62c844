/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/mover.c with a QEMU that answers late, not at all, or on another connection. What it is asked is caught where it would go out; the rest of the agent is
 * what the test says. */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "agent/agentd.h"
#include "agent/base/held.h"
#include "agent/disk_place.h"
#include "qmp/qmp.h"
#include "storage/format.h"
#include "tests/tap.h"

#define WAIT_MS 10000

static qb_loop_t *loop;
static struct agentd d;
static struct vm vm = { .used = true, .state = VM_RUNNING, .migration = { .id = 77, .peer = 2 } };
static bool connected = true;
static bool has_disks = true, offer_held;
static unsigned n_started, n_kills, n_continued, n_refused, n_slow;
static unsigned news[MIGRATE_NEWS_CANNOT + 1];

/* ---- QEMU ---- */

static struct asked { bool used; char command[40]; uint32_t timeout_ms; qmp_reply_fn fn; void *user; } asked[32];

int __wrap_qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user);
int __wrap_qmp_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	json_object_put(args);
	for (size_t i = 0; connected && i < ARRAY_SIZE(asked); i++)
		if (!asked[i].used) {
			asked[i] = (struct asked){ .used = true, .timeout_ms = timeout_ms, .fn = fn, .user = user };
			(void)str_copy(asked[i].command, sizeof(asked[i].command), command);
			return 0;
		}
	return -ENOTCONN;
}

static unsigned times(const char *command)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(asked); i++)
		n += asked[i].used && streq(asked[i].command, command);
	return n;
}

/* error: NULL, or instead of the answer. False: it was not asked that. */
static bool answer(const char *command, const char *json, const char *error)
{
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		struct asked a = asked[i];
		json_object *o;

		if (!a.used || !streq(a.command, command))
			continue;
		asked[i].used = false;
		o = error ? NULL : json_tokener_parse(json);
		a.fn(a.user, o, error);
		json_object_put(o);
		return true;
	}
	return false;
}

/* ---- the rest of the agent ---- */

void agentd_event(struct agentd *x, const struct agent_event *ev)
{
	n_started += ev->kind == AGENT_EV_STARTED;
	if (ev->kind == AGENT_EV_OFFER)
		offer_held = ev->held;
	if (ev->kind == AGENT_EV_MIGRATION)
		news[ev->news]++;
}

void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("# %s\n", text);
}

void agentd_hook(struct agentd *x, enum hook_event event, uint32_t node, const struct vm *v, const char *text) { n_slow += event == HOOK_VM_SLOW_MIGRATION; }
const char *agentd_node_name(const struct agentd *x, uint32_t id) { return "n2"; }
void peers_offer(struct peers *p, uint32_t node, const uint8_t uuid[16], uint64_t id, const char *host, uint32_t port, bool tls) {}
void peers_refuse(struct peers *p, uint32_t node, const uint8_t uuid[16], const char *why) { n_refused++; }
void peers_say(struct peers *p, const char *text) {}
void peers_status_changed(struct peers *p) {}
const char *ring_address(const struct ring *r) { return "192.0.2.1"; }
void runner_continued(struct runner *r, const uint8_t uuid[16]) { n_continued++; }
void runner_inactive(struct runner *r, const uint8_t uuid[16], bool inactive) { has_disks = !inactive; }
void runner_kill(struct runner *r, const uint8_t uuid[16]) { n_kills++; }
struct qmp_conn *runner_qmp(struct runner *r, const uint8_t uuid[16]) { return connected ? (struct qmp_conn *)&asked : NULL; }

/* ---- the tests ---- */

static void on_beat(void *user) { qb_loop_stop(loop); }

static void turn_loop(void)
{
	qb_loop_timer_handle timer;

	CHECK(qb_loop_timer_add(loop, QB_LOOP_LOW, 5 * NS_PER_MS, NULL, on_beat, &timer) == 0);
	qb_loop_run(loop);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

#define UNTIL(cond)                                                                  \
	({                                                                           \
		int64_t end_ms = now_ms() + WAIT_MS;                                 \
		while (!(cond) && now_ms() < end_ms)                                 \
			turn_loop();                                                 \
		(cond);                                                              \
	})

/* Every command is ended, if only by the end of its connection. */
static void hang_up(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		struct asked a = asked[i];

		asked[i].used = false;
		if (a.used)
			a.fn(a.user, NULL, "connection closed");
	}
}

static void begin(void)
{
	mover_forget(d.mover, vm.def.uuid);
	connected = false;
	hang_up();
	memset(news, 0, sizeof(news));
	connected = true;
	n_started = n_kills = n_continued = n_refused = n_slow = 0;
}

/* Its guest is to go on, and QEMU waits for storage to take its disks again: nobody is killed for that. */
static void test_cont_waits(void)
{
	begin();
	mover_go_on(d.mover, &vm);
	TAP_OK(times("cont") == 1, "a guest is to go on");
	(void)answer("cont", NULL, "timeout");
	TAP_OK(n_kills == 0 && n_started == 0 && times("query-status") == 1, "no answer in time: it may be obeyed yet, and QEMU is asked");
	for (int i = 0; i < 5; i++)
		(void)answer("query-status", NULL, "timeout");
	TAP_OK(n_kills == 0 && n_started == 0 && times("query-status") == 1, "for as long as that takes");
	(void)answer("query-status", "{\"status\": \"running\"}", NULL);
	TAP_OK(n_kills == 0 && n_started == 1 && n_continued == 1, "it runs: it was obeyed");

	begin();
	mover_go_on(d.mover, &vm);
	(void)answer("cont", NULL, "timeout");
	(void)answer("query-status", "{\"status\": \"io-error\"}", NULL);
	TAP_OK(n_kills == 0 && n_started == 1, "stopped by its storage by now: it had gone on");

	begin();
	mover_go_on(d.mover, &vm);
	(void)answer("cont", NULL, "timeout");
	(void)answer("query-status", "{\"status\": \"postmigrate\"}", NULL);
	TAP_OK(n_kills == 1 && n_started == 0, "it stands as before: it was refused, and is killed");

	begin();
	mover_go_on(d.mover, &vm);
	(void)answer("cont", NULL, "Could not reopen its disk");
	TAP_OK(n_kills == 1 && n_started == 0, "refused: killed");
}

/* Its guest was paused by somebody: it takes its disks, and stays so. */
static void test_still(void)
{
	struct vm still = vm;

	still.migration.still = true;
	begin();
	mover_go_on(d.mover, &still);
	TAP_OK(times("cont") == 1 && times("stop") == 1, "a guest that was paused takes its disks, and is stopped at once");
	(void)(answer("cont", "{}", NULL) && answer("stop", "{}", NULL));
	TAP_OK(n_started == 1 && n_kills == 0, "it is there");

	begin();
	mover_go_on(d.mover, &still);
	(void)(answer("cont", NULL, "timeout") && answer("stop", NULL, "timeout") && answer("query-status", "{\"status\": \"paused\"}", NULL));
	TAP_OK(n_started == 1 && n_kills == 0, "no answer in time, and found paused: that is how it is to be");

	begin();
	mover_go_on(d.mover, &still);
	(void)(answer("cont", NULL, "timeout") && answer("stop", NULL, "timeout") && answer("query-status", "{\"status\": \"postmigrate\"}", NULL));
	TAP_OK(n_started == 0 && n_kills == 1, "found as it was sent: it was refused, and is killed");

	begin();
	mover_go_on(d.mover, &vm);
	TAP_OK(times("cont") == 1 && times("stop") == 0, "any other goes on");
	begin();
}

static void test_cont_connection(void)
{
	begin();
	connected = false;
	mover_go_on(d.mover, &vm);
	turn_loop();
	TAP_OK(n_kills == 0, "no connection to QEMU just now: none is killed for that");
	connected = true;
	TAP_OK(UNTIL(times("cont") == 1), "told once there is one");
	connected = false;
	(void)answer("cont", NULL, "disconnected");
	connected = true;
	TAP_OK(n_kills == 0 && UNTIL(times("cont") == 1), "the connection is lost: told again on the next one");
	(void)answer("cont", NULL, "timeout");
	(void)answer("query-status", NULL, "disconnected");
	TAP_OK(n_kills == 0 && UNTIL(times("cont") == 1), "lost while it was waited for: the same");
	mover_qmp_event(d.mover, vm.def.uuid);
	TAP_OK(times("query-migrate") == 0, "nothing else is asked meanwhile");
	(void)answer("cont", "{}", NULL);
	TAP_OK(n_started == 1 && n_kills == 0, "it goes on");

	begin();
	mover_go_on(d.mover, &vm);
	mover_forget(d.mover, vm.def.uuid);
	(void)answer("cont", NULL, "disconnected");
	TAP_OK(n_started == 0 && n_kills == 0 && times("cont") == 0, "its QEMU has ended: that is all");
}

/* Only of a QEMU that says both - all is sent, and it stands - nothing can be on its way any more, until it is to go on after all. */
static void test_inactive(void)
{
	begin();
	mover_offered(d.mover, 2, vm.def.uuid, 77, "192.0.2.2", 4444, false);
	mover_migrate(d.mover, &vm);
	(void)(answer("migrate-set-capabilities", "{}", NULL) && answer("migrate-set-parameters", "{}", NULL) && answer("migrate", "{}", NULL));
	TAP_OK(answer("query-migrate", "{\"status\": \"completed\"}", NULL) && answer("query-status", "{\"status\": \"finish-migrate\"}", NULL) && has_disks && news[MIGRATE_NEWS_COMPLETED] == 0,
	       "all is sent, but QEMU has not stopped yet: it may write");
	TAP_OK(UNTIL(times("query-migrate") == 1) && answer("query-migrate", "{\"status\": \"completed\"}", NULL) && answer("query-status", "{\"status\": \"postmigrate\"}", NULL) && !has_disks &&
	       news[MIGRATE_NEWS_COMPLETED] == 1, "it has given its disks away: no more");
	mover_go_on(d.mover, &vm);
	TAP_OK(has_disks && times("cont") == 1, "its guest is to go on after all: it may");
}

/* What a dead QEMU of the VM has left here is looked for with each offer. */
static void test_offer_held(void)
{
	char dir[] = "/tmp/kvm-ha-mover-XXXXXX", note[128];
	FILE *f;

	CHECK(mkdtemp(dir));
	held_use(dir, "/proc");
	begin();
	mover_offered(d.mover, 2, vm.def.uuid, 77, "192.0.2.2", 4444, false);
	TAP_OK(!offer_held, "an offer, and nothing is left of an earlier QEMU");
	(void)snprintf(note, sizeof(note), "%s/%08x-%d-%d-1", dir, format_vm_mark(vm.def.uuid), (int)getpid(), 1); /* that number is another's now */
	f = fopen(note, "we");
	CHECK(f && fputs("none 0:1 1 /srv/disk\n", f) >= 0 && fclose(f) == 0);
	mover_offered(d.mover, 2, vm.def.uuid, 77, "192.0.2.2", 4444, false);
	TAP_OK(offer_held, "an unproven file of a dead one: that is told with it");
	CHECK(unlink(note) == 0 && rmdir(dir) == 0);
	begin();
}

static uint32_t deadline(const char *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++)
		if (asked[i].used && streq(asked[i].command, command))
			return asked[i].timeout_ms;
	return 0;
}

/* What may open files or wait for storage has the time that its class has. */
static void test_deadlines(void)
{
	begin();
	mover_incoming_ready(d.mover, vm.def.uuid);
	(void)(answer("migrate-set-capabilities", "{}", NULL) && answer("migrate-set-parameters", "{}", NULL));
	TAP_OK(deadline("migrate-incoming") == QMP_TIMEOUT_OF_CLASS && qmp_command_ms("migrate-incoming") == 60000, "a QEMU that is to wait for a guest may take a minute to say so");

	begin();
	mover_offered(d.mover, 2, vm.def.uuid, 77, "192.0.2.2", 4444, false);
	mover_migrate(d.mover, &vm);
	(void)(answer("migrate-set-capabilities", "{}", NULL) && answer("migrate-set-parameters", "{}", NULL));
	TAP_OK(deadline("migrate") == QMP_TIMEOUT_OF_CLASS && qmp_command_ms("migrate") == 60000, "and one that is to send its guest");
	(void)answer("migrate", NULL, "timeout");
	TAP_OK(times("query-migrate") == 1 && news[MIGRATE_NEWS_FAILED] == 0, "then it is looked at: it may send all the same");
	(void)answer("query-migrate", "{\"status\": \"active\"}", NULL);
	TAP_OK(times("migrate_cancel") == 1 && news[MIGRATE_NEWS_FAILED] == 0, "and called off, as its target has given up");
	(void)(answer("migrate_cancel", "{}", NULL) && answer("migrate-continue", NULL, "not waiting") && answer("query-migrate", "{\"status\": \"cancelled\"}", NULL));
	TAP_OK(news[MIGRATE_NEWS_FAILED] == 1, "over once QEMU says so");
}

/* The next answer to query-migrate: under way for so long, over all memory so often, MiB a second that are sent and written. */
static bool progress(unsigned s, unsigned passes, unsigned sent, unsigned dirtied)
{
	char json[400];

	(void)snprintf(json, sizeof(json), "{\"status\": \"active\", \"total-time\": %u, \"ram\": {\"total\": 1073741824, \"remaining\": 536870912, \"transferred\": 1073741824, "
		       "\"mbps\": %u, \"page-size\": 4096, \"dirty-pages-rate\": %u, \"dirty-sync-count\": %u}}", s * 1000, sent * 8389 / 1000, dirtied * 256, passes);
	return UNTIL(times("query-migrate") == 1) && answer("query-migrate", json, NULL);
}

static void test_pace(void)
{
	catalog_by_name(d.catalog, "web")->file.migrate_timeout_ms = 300000;
	begin();
	mover_offered(d.mover, 2, vm.def.uuid, 77, "192.0.2.2", 4444, false);
	mover_migrate(d.mover, &vm);
	(void)(answer("migrate-set-capabilities", "{}", NULL) && answer("migrate-set-parameters", "{}", NULL) && answer("migrate", "{}", NULL));
	TAP_OK(progress(59, 9, 100, 200) && progress(61, 2, 100, 200) && progress(61, 9, 100, 80) && progress(61, 9, 0, 0) && n_slow == 0,
	       "slow for less than a minute, in its first passes, or written less than is sent: nothing is told");
	TAP_OK(progress(61, 3, 100, 95) && n_slow == 1, "written as fast as it is sent: told");
	TAP_OK(progress(62, 4, 100, 200) && n_slow == 1, "once");
	TAP_OK(progress(299, 9, 100, 200) && times("migrate_cancel") == 0, "it goes on");
	TAP_OK(progress(300, 9, 100, 50) && times("migrate_cancel") == 1 && news[MIGRATE_NEWS_FAILED] == 0, "longer than its Timeout=: called off");
	(void)(answer("migrate_cancel", "{}", NULL) && answer("migrate-continue", NULL, "not waiting"));
	TAP_OK(UNTIL(times("query-migrate") == 1) && answer("query-migrate", "{\"status\": \"cancelled\"}", NULL) && news[MIGRATE_NEWS_FAILED] == 1, "which is a failure once QEMU says so");
	catalog_by_name(d.catalog, "web")->file.migrate_timeout_ms = 0;
}

static unsigned n_asked(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(asked); i++)
		n += asked[i].used;
	return n;
}

/* What its file calls its disk is one of this node's own; or there is none, for all that can be seen. */
static void test_local_disk(void)
{
	char path[] = "/tmp/test_mover.XXXXXX", text[512], err[256] = "";
	int fd = mkstemp(path);
	struct vm *v = &d.core.vm[0];

	CHECK(fd >= 0 && close(fd) == 0);
	(void)snprintf(text, sizeof(text), "[VM]\nName=db\nUUID=11111111-2222-4333-8444-000000000002\nMemory=32M\nVCPUs=1\nDisk=%s\n[QEMU]\nBinary=/bin/sleep\n"
		       "Arguments=-drive file=%s\n", path, path);
	CHECK(catalog_add(d.catalog, text, strlen(text), err, sizeof(err)) == 0);
	*v = vm;
	memcpy(v->def.uuid, catalog_by_name(d.catalog, "db")->uuid, 16);
	d.core.vm_end = 1;
	if (disk_place(path) != DISK_LOCAL) {
		printf("# /tmp is on no local disk here\n");
		CHECK(unlink(path) == 0);
		return;
	}
	for (int local = 1; local >= 0; local--) {
		mover_forget(d.mover, v->def.uuid);
		begin();
		mover_offered(d.mover, 2, v->def.uuid, v->migration.id, "192.0.2.2", 4444, false);
		mover_migrate(d.mover, v);
		TAP_OK((news[MIGRATE_NEWS_FAILED] == 1) == local && (n_asked() == 0) == local, "source: %s", local ? "nothing is sent of a local disk" : "else it is");
		mover_forget(d.mover, v->def.uuid);
		begin();
		mover_incoming_ready(d.mover, v->def.uuid);
		TAP_OK((n_kills == 1 && n_refused == 1) == local && (n_asked() == 0) == local, "target: %s", local ? "none is taken, and why is told" : "else it is");
		CHECK(!local || unlink(path) == 0);
	}
	mover_forget(d.mover, v->def.uuid);
	begin();
}

int main(void)
{
	static const char file[] = "[VM]\nName=web\nUUID=11111111-2222-4333-8444-000000000001\nMemory=32M\nVCPUs=1\n[QEMU]\nBinary=/bin/sleep\nArguments=1000\n";
	char err[256] = "";

	log_init("test_mover", LOG_LEVEL_ERR);
	loop = d.loop = qb_loop_create();
	d.catalog = catalog_new();
	CHECK(loop && d.catalog && catalog_add(d.catalog, file, sizeof(file) - 1, err, sizeof(err)) == 0);
	memcpy(vm.def.uuid, d.catalog->entry[0].uuid, 16);
	CHECK(mover_new(&d, &d.mover) == 0);
	test_cont_waits();
	test_still();
	test_cont_connection();
	test_offer_held();
	test_inactive();
	test_deadlines();
	test_pace();
	test_local_disk();
	return tap_done();
}
