/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fence/keeper.c as it starts: with which earlier process' epoch it goes on, and what becomes of the watchdog and the VMs that this has left. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <qb/qbloop.h>

#include "agent/base/clock.h"
#include "agent/base/held.h"
#include "agent/base/orphans.h"
#include "agent/base/paths.h"
#include "tests/tap.h"

static int64_t suspended_ns;
static char state_path[64], new_path[72];
static const char *path_of(const char *path) { return strstr(path, ".new") ? new_path : strstr(path, "keeper.state") ? state_path : "/nonexistent"; }
static int64_t test_suspended_ns(void) { return suspended_ns; }
static FILE *test_fopen(const char *path, const char *mode) { return fopen(path_of(path), mode); }
static int test_rename(const char *from, const char *to) { return rename(path_of(from), path_of(to)); }
static bool marked, leave_over;
static int test_access(const char *path, int mode)
{
	return (strcmp(path, PATHS_GOING_DOWN) == 0 && marked) || (strcmp(path, PATHS_LEAVE_OVER) == 0 && leave_over) ? 0 : -1;
}
static unsigned loop_stops;
static void test_loop_stop(qb_loop_t *loop) { loop_stops++; }
int keeper_main(int argc, char **argv);

#define main keeper_main
#define clock_suspended_ns test_suspended_ns
#define access test_access
#define orphans_quiet() true
#define held_quiet(...) true
#define qb_loop_stop test_loop_stop
#define fopen test_fopen
#define rename test_rename
#include "fence/keeper.c"
#undef main
#undef fopen

/* ---- what is around it ---- */

static bool held;          /* by systemd: the watchdog's fd, and it runs */
static unsigned stops, takes, kills;
static int vms;
static void (*silent)(void *user);
static void *silent_user;

int sd_listen_fds_with_names(int unset, char ***ret)
{
	if (!held)
		return 0;
	*ret = calloc(2, sizeof(**ret));
	(*ret)[0] = strdup("watchdog");
	return 1;
}

void watchdog_init(struct watchdog *w, const char *device, const char *pet_file) { *w = (struct watchdog){ .fd = -1 }; }

int watchdog_adopt(struct watchdog *w, int fd, uint32_t wanted_ms, bool may_rest, char *err, size_t err_size)
{
	w->fd = fd;
	w->left_ms = 1000;
	return 0;
}

int watchdog_stop(struct watchdog *w, char *err, size_t err_size)
{
	stops++;
	w->fd = -1;
	return 0;
}

int watchdog_take(struct watchdog *w, char *err, size_t err_size)
{
	takes++;
	return 0;
}

int watchdog_drop(struct watchdog *w, int fd, char *err, size_t err_size) { return 0; }
int watchdog_start(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size) { return 0; }
int watchdog_pet(struct watchdog *w) { return 0; }
int watchdog_keep_resting(const struct watchdog *w) { return 0; }
int watchdog_fit(const struct watchdog_fit *f, char *err, size_t err_size) { return 0; }
bool watchdog_record_read(const char *path, struct watchdog_record *ret) { return false; }

void vmslice_kill(struct vmslice *s, void (*fn)(void *user), void *user)
{
	kills++;
	silent = fn;
	silent_user = user;
}

int vmslice_find_root(char *ret, size_t size) { return -ENOENT; }
int vmslice_new(qb_loop_t *loop, const char *root, struct vmslice **ret) { return -ENOENT; }
int vmslice_count(struct vmslice *s) { return vms; }
bool vmslice_marks(struct vmslice *s, uint32_t *ret, unsigned max, unsigned *ret_n) { return true; }
int prover_start(const char *root) { return 0; }
int daemon_listen(struct daemon *d) { return -ENOENT; }
void daemon_volumes_init(struct daemon *d) {}
void daemon_write(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block) {}
void daemon_read(void *edge, unsigned volume) {}
void daemon_troubles(struct daemon *d) {}
void daemon_tell(void *edge, const struct keeper *k) {}
void daemon_text(struct daemon *d, int level, const char *fmt, ...) {}

/* ---- */

static struct daemon d;

static void write_state(const char *state)
{
	FILE *f = fopen(state_path, "we");

	(void)fprintf(f, "5 11111111-2222-3333-4444-555555555555 %s 77\n", state);
	(void)fclose(f);
}

static const char *saved(void)
{
	static char state[32];
	unsigned epoch = 0;
	FILE *f = fopen(state_path, "re");

	state[0] = '\0';
	if (!f || fscanf(f, "%u %*s %31s", &epoch, state) != 2 || epoch != 5)
		state[0] = '\0';
	if (f)
		(void)fclose(f);
	return state;
}

static void end(void)
{
	if (d.loop)
		qb_loop_destroy(d.loop);
}

/* As start() does it. */
static void begin(const char *state, bool watchdog)
{
	held = watchdog;
	stops = takes = kills = 0;
	silent = NULL;
	write_state(state);
	end();
	memset(&d, 0, sizeof(d));
	d.listen_fd = d.unfit_fd = -1;
	timing_of_profile(TIMING_FAST, &d.conf.timing);
	d.loop = qb_loop_create();
	watchdog_init(&d.watchdog, "", "");
	find_earlier_life(&d);
	if (d.resume)
		on_clean(&d);
	else
		vmslice_kill(d.slice, on_clean, &d);
}

static void all_silent(void)
{
	void (*fn)(void *user) = silent;

	silent = NULL;
	fn(silent_user);
}

static void test_adopted(void)
{
	static const struct { const char *state; bool resumes; } of[] = {
		{ "starting", false }, { "disarmed", true }, { "armed", true }, { "disarming", true }, { "releasing", false }, { "released", false }, { "leaving", false }, { "left", false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(of); i++) {
		begin(of[i].state, true);
		TAP_OK(d.resume == of[i].resumes && stops == 0, "%s: the earlier epoch is %sgone on with, and the watchdog runs", of[i].state, d.resume ? "" : "not ");
		if (d.resume) {
			TAP_OK(d.clean && kills == 0 && strcmp(saved(), of[i].state) == 0, "%s: nothing is killed", of[i].state);
			continue;
		}
		TAP_OK(!d.clean && kills == 1, "%s: first what is left of it is killed", of[i].state);
		all_silent();
		TAP_OK(d.clean && stops == 1 && d.watchdog.fd < 0 && strcmp(saved(), "releasing") == 0,
		       "%s: once that is proven gone the watchdog is stopped, whatever the volumes do", of[i].state);
	}
	begin("releasing", false);
	all_silent();
	TAP_OK(d.clean && stops == 0 && takes == 1, "none held: none to be stopped");
}

/* No volume set is known yet, so the core does not run. */
static void test_suspended(void)
{
	for (unsigned armed = 0; armed < 2; armed++) {
		begin(armed ? "armed" : "disarmed", armed);
		on_tick(&d);
		TAP_OK(d.resume && kills == 0, "%s: going on, if a volume set is found", armed ? "armed" : "disarmed");
		suspended_ns += 60 * MS_PER_S * NS_PER_MS;
		on_tick(&d);
		TAP_OK(!d.resume && !d.clean && kills == 1, "suspended meanwhile: its VMs are killed");
		on_tick(&d);
		TAP_OK(kills == 1 && stops == 0, "once");
		all_silent();
		TAP_OK(d.clean && stops == armed, "and the watchdog is stopped, if there is one");
	}
	begin("armed", true);
	on_tick(&d);
	TAP_OK(d.resume && kills == 0, "an earlier suspend: nothing to it");
}

/* SIGTERM: what is done about the VMs. */
static void test_stopped(void)
{
	static const struct { const char *name; int vms; bool down, over, ends, leaves; } of[] = {
		{ "no VM", 0, false, false, true, true },
		{ "VMs, and the host stays: the next process goes on", 3, false, false, true, false },
		{ "the host goes down, and its VMs still leave: it goes on", 3, true, false, false, false },
		{ "the host goes down, and none is left", 0, true, false, true, true },
		{ "the host goes down, and they are waited for no more", 3, true, true, true, true },
		{ "an earlier time's mark, and the host stays", 3, false, true, true, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(of); i++) {
		begin("disarmed", false);
		vms = of[i].vms;
		marked = of[i].down;
		leave_over = of[i].over;
		loop_stops = 0;
		stop_service(&d);
		TAP_OK((loop_stops > 0) == of[i].ends && d.stopping == of[i].leaves && d.stop_kills == (of[i].leaves && vms != 0), "told to end, %s", of[i].name);
	}
	vms = 0;
	marked = leave_over = false;
	begin("armed", true);
	stop_service(&d);
	TAP_OK(stops == 1 && streq(saved(), "releasing"), "told to end before its core runs, without VMs: the watchdog of its life before is stopped");
	vms = 1;
	begin("armed", true);
	stop_service(&d);
	TAP_OK(stops == 0 && streq(saved(), "armed"), "not with VMs");
}

int main(void)
{
	(void)snprintf(state_path, sizeof(state_path), "/tmp/kvm-ha-test-keeper.%d", getpid());
	(void)snprintf(new_path, sizeof(new_path), "%s.new", state_path);
	test_adopted();
	test_suspended();
	test_stopped();
	end();
	(void)unlink(state_path);
	return tap_done();
}
