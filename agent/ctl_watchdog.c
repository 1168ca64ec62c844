/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the watchdog is, without arming it, and how long it takes to reset this host, by letting it: WatchdogDelay= is to be measured, not believed.
 *
 * The test starts the watchdog, pets it no more, and writes to a file, again and again, how long that is ago, until the host is reset. The last record that
 * reached the disk tells when that was. What ran before the reset is told from what runs after by a mark on /run. The record takes the place of an earlier one
 * only when the watchdog may bite at any moment: what is cut off before, by whatever, leaves the earlier one, which may say that this watchdog is too slow. */
#include "agent/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "fence/watchdog.h"
#include "fence/watchdog_facts.h"

#define STATE_DIR "/var/lib/kvm-ha"
#define RECORD_LEN 128
#define GIVE_UP_MS 60000 /* beyond twice its timeout */

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
}

static bool is_unix(const struct conf *conf) { return strncmp(conf->watchdog, "unix:", 5) == 0; }
static bool is_none(const struct conf *conf) { return streq(conf->watchdog, CONF_NO_WATCHDOG); }
static const char *state_file(const struct ctl *c) { return c->file ? c->file : WATCHDOG_RECORD; }

/* What the last test has shown. d_wd is all that comes after the timeout that the driver names: its granularity, and the reset. */
static void show_record(const struct ctl *c, const struct conf *conf, json_object *o)
{
	struct watchdog_record r;
	int64_t delay;

	if (!watchdog_record_read(state_file(c), &r) || access(WATCHDOG_TEST_MARK, F_OK) == 0)
		return;
	delay = watchdog_record_delay_ms(&r);
	if (o) {
		json_object *t = json_object_new_object();

		json_object_object_add(t, "device", json_object_new_string(r.device));
		json_object_object_add(t, "timeout_ms", json_object_new_int64(r.timeout_ms));
		json_object_object_add(t, "last_record_ms", json_object_new_int64(r.elapsed_ms));
		json_object_object_add(t, "gap_ms", json_object_new_int64(r.gap_ms));
		json_object_object_add(t, "delay_ms", json_object_new_int64(delay));
		json_object_object_add(t, "enough", json_object_new_boolean(delay <= conf->timing.wd_delay_ms));
		json_object_object_add(o, "last_test", t);
		return;
	}
	(void)printf("Last test: %s, timeout %" PRIu32 " ms: the host was reset %" PRId64 " to %" PRId64 " ms after the last pet.\n", r.device, r.timeout_ms,
		     r.elapsed_ms, r.elapsed_ms + r.gap_ms);
	if (delay <= conf->timing.wd_delay_ms)
		(void)printf("WatchdogDelay=%" PRIu32 "ms is enough: at most %" PRId64 " ms were needed.\n", conf->timing.wd_delay_ms, delay);
	else
		(void)printf("WatchdogDelay=%" PRIu32 "ms is NOT enough: up to %" PRId64 " ms were needed; set it to %" PRId64 "ms or more on every node.\n",
			     conf->timing.wd_delay_ms, delay, delay + delay / 2);
}

static int query_device(const struct ctl *c, const struct conf *conf, json_object *o)
{
	static const char *const shown[] = { "identity", "state", "timeout", "min_timeout", "max_timeout", "timeleft", "nowayout", "bootstatus" };
	char name[WATCHDOG_NAME_LEN], value[128];
	int r = watchdog_sysfs_name(WATCHDOG_SYSFS, conf->watchdog, name);

	if (r < 0 && r != -ENODATA)
		return ctl_fail(c, CTL_FAILED, "%s: %s; load the driver of this host's watchdog, or softdog", conf->watchdog,
				r == -ENOTTY ? "not a device" : strerror(-r));
	if (!o)
		(void)printf("%s (%s), asked without opening it, which would arm it:\n", conf->watchdog,
			     r == 0 ? name : "this kernel tells nothing of it under " WATCHDOG_SYSFS);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(shown); i++) {
		watchdog_sysfs_get(WATCHDOG_SYSFS, name, shown[i], value, sizeof(value));
		if (!*value)
			continue;
		if (o)
			json_object_object_add(o, shown[i], json_object_new_string(value));
		else
			(void)printf("  %-12s %s\n", shown[i], value);
	}
	return CTL_OK;
}

static bool says(const struct conf *conf, const char *attribute, const char *what)
{
	char name[WATCHDOG_NAME_LEN], value[16];

	if (is_none(conf) || is_unix(conf) || watchdog_sysfs_name(WATCHDOG_SYSFS, conf->watchdog, name) < 0)
		return false;
	watchdog_sysfs_get(WATCHDOG_SYSFS, name, attribute, value, sizeof(value));
	return streq(value, what);
}

/* The keeper's own check, with what the keeper reads; FILE in place of its record. */
static int query_fit(const struct ctl *c, const struct conf *conf, json_object *o)
{
	struct watchdog_record record;
	struct watchdog_fit fit = { .sysfs = WATCHDOG_SYSFS, .mark = WATCHDOG_TEST_MARK, .device = conf->watchdog, .timeout_ms = conf->timing.wd_ms,
				    .delay_ms = conf->timing.wd_delay_ms, .record = &record };
	char err[512] = "";
	int r;

	(void)watchdog_record_read(state_file(c), &record);
	r = watchdog_fit(&fit, err, sizeof(err));
	if (!o)
		return r == 0 ? CTL_OK : ctl_fail(c, CTL_FAILED, "%s", err);
	/* One document, whatever the answer is. */
	json_object_object_add(o, "ok", json_object_new_boolean(r == 0));
	json_object_object_add(o, "armable", json_object_new_boolean(r == 0));
	if (r < 0)
		json_object_object_add(o, "error", json_object_new_string(err));
	return r == 0 ? CTL_OK : CTL_FAILED;
}

int ctl_watchdog_query(const struct ctl *c)
{
	json_object *o = NULL;
	struct conf conf;
	int r = ctl_conf(c, &conf);

	if (r != 0)
		return r;
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
		json_object_object_add(o, "device", json_object_new_string(conf.watchdog));
	}
	if (o)
		json_object_object_add(o, "evidence", json_object_new_string(conf.silence_proves ? "watchdog" : "none"));
	else if (!conf.silence_proves)
		(void)printf("Evidence=no: whatever this host's watchdog does, nobody takes its silence for its end.\n");
	if (is_none(&conf) && !o)
		(void)printf("Device=none: there is no watchdog, nothing resets this host when it hangs.\n");
	else if (!is_none(&conf) && !is_unix(&conf))
		r = query_device(c, &conf, o);
	else if (!o)
		(void)printf("%s is a supervisor's socket: whoever connects takes it over, so it is not asked.\n", conf.watchdog);
	if (r == CTL_OK) {
		show_record(c, &conf, o);
		if (!o && says(&conf, "nowayout", "1"))
			(void)printf("nowayout: once started it is never stopped. While this node is not armed ha-keeper pets it; with ha-keeper stopped for good it resets this host.\n");
		if (!o)
			(void)fflush(stdout);
		r = query_fit(c, &conf, o);
		if (o)
			ctl_print_json(o);
	}
	json_object_put(o);
	return r;
}

/* One that is wanted started may come to run on any node at any moment, unless operators have said that none is. */
static bool may_start_any(json_object *s)
{
	json_object *vms;
	size_t n = ctl_list(s, "vms", &vms);
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		json_object *vm = json_object_array_get_idx(vms, i);

		any = any || (streq(ctl_str(vm, "desired"), "started") && !ctl_bool(vm, "frozen"));
	}
	return any && (streq(ctl_str(s, "pause"), "none") || !*ctl_str(s, "pause"));
}

/* Nobody else relies on it, and nothing is lost with this host, now or later. 0, or an exit code after saying why. */
static int check_idle(const struct ctl *c, const struct conf *conf)
{
	json_object *answer, *s, *nodes, *self = NULL;
	int64_t vms;
	bool runs, known, may_start;
	size_t n;
	int r = ctl_ask(c, ctl_request("status"), &answer);

	if (r != 0)
		return ctl_fail(c, r, "without the agent's word that no VM runs here nothing is tested");
	s = ctl_get(answer, "status", json_type_object);
	n = ctl_list(s, "nodes", &nodes);
	for (size_t i = 0; i < n; i++)
		if (streq(ctl_str(json_object_array_get_idx(nodes, i), "name"), conf->self_name))
			self = json_object_array_get_idx(nodes, i);
	known = self && ctl_known(s);
	vms = ctl_int(self, "vms");
	may_start = !ctl_bool(self, "maintenance") && may_start_any(s);
	runs = !s || ctl_bool(ctl_get(s, "watchdog", json_type_object), "running") || !streq(ctl_str(s, "lease"), "disarmed") || ctl_bool(s, "armed");
	json_object_put(answer);
	if (runs)
		return ctl_fail(c, CTL_FAILED, "the keeper uses the watchdog, or is about to: `ha-ctl disarm` first");
	if (!known)
		return ctl_fail(c, CTL_AGAIN, "the agent has not read yet which VMs run on this host: try again later");
	if (vms > 0)
		return ctl_fail(c, CTL_FAILED, "%" PRId64 " VMs run on this host: move them away first, `ha-ctl node maintenance on %s`", vms, conf->self_name);
	if (may_start)
		return ctl_fail(c, CTL_FAILED, "a VM may be started on this host meanwhile: `ha-ctl node maintenance on %s` first", conf->self_name);
	return 0;
}

static bool agreed(const struct conf *conf)
{
	char line[256] = "";

	(void)fprintf(stderr,
		      "This RESETS THIS HOST, %s: its watchdog %s is started with %" PRIu32 " s and not petted.\n"
		      "Whatever runs here ends as with a power cut. Afterwards `ha-ctl watchdog query` tells how long it took.\n"
		      "Until a second before that Ctrl-C calls it off.\n"
		      "Type the host's name to go on: ", conf->self_name, conf->watchdog, conf->timing.wd_ms / (uint32_t)MS_PER_S);
	(void)fflush(stderr);
	if (!fgets(line, sizeof(line), stdin))
		return false;
	line[strcspn(line, "\r\n")] = '\0';
	return streq(line, conf->self_name);
}

static volatile sig_atomic_t called_off;

static void on_signal(int sig) { called_off = 1; }

/* What would end it from outside. SIGTSTP never does, as the watchdog would run on beside it. */
static void set_signals(void (*handler)(int))
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction sa = { .sa_handler = handler };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		(void)sigaction(signals[i], &sa, NULL);
	sa.sa_handler = SIG_IGN;
	(void)sigaction(SIGTSTP, &sa, NULL);
}

/* So that it is there after the reset. */
static int put_in_place(const char *from, const char *to)
{
	_cleanup_close_ int dir = -1;
	char path[PATH_MAX];

	if (!str_copy(path, sizeof(path), to))
		return -ENAMETOOLONG;
	dir = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 || rename(from, to) < 0 || fsync(dir) < 0 ? -errno : 0;
}

/* Returns when it has not happened; -ECANCELED: a signal has ended it. */
static int record_until_reset(const struct ctl *c, const struct conf *conf, const struct watchdog *w, int fd, const char *unfinished, int64_t began_ms)
{
	int64_t last_ms = began_ms, gap_ms = 0, give_up_ms = 2LL * w->timeout_ms + GIVE_UP_MS;
	bool in_place = false;

	while (last_ms - began_ms < give_up_ms) {
		char text[CONF_URL_LEN + RECORD_LEN];
		struct timespec pause = { .tv_nsec = 5 * NS_PER_MS };
		int64_t now = now_ms();
		int len;

		gap_ms = MAX(gap_ms, now - last_ms);
		last_ms = now;
		len = snprintf(text, sizeof(text), "%s %" PRIu32 " %" PRId64 " %" PRId64 "%20s\n", conf->watchdog, w->timeout_ms, now - began_ms, gap_ms, "");
		if (pwrite(fd, text, (size_t)len, 0) != len || fdatasync(fd) < 0)
			return -errno;
		if (!in_place && now - began_ms >= watchdog_earliest_ms(w->timeout_ms)) {
			int r;

			set_signals(SIG_IGN); /* a record that is cut off from here on looks like a whole one */
			r = called_off ? -ECANCELED : put_in_place(unfinished, state_file(c));
			if (r < 0)
				return r;
			in_place = true;
		}
		if (called_off)
			return -ECANCELED;
		(void)nanosleep(&pause, NULL);
	}
	return -ETIMEDOUT;
}

static const char *left_running(const struct watchdog *w)
{
	return w->rests ? "; it cannot be stopped (nowayout): `systemctl kill --kill-whom=main ha-keeper` now, the next keeper takes it, or it resets this host" : "";
}

int ctl_watchdog_test(const struct ctl *c)
{
	_cleanup_close_ int fd = -1, mark = -1;
	char err[256] = "", unfinished[PATH_MAX];
	struct watchdog w;
	struct conf conf;
	int64_t began_ms;
	int r = ctl_conf(c, &conf), stopped;

	if (r == 0 && is_none(&conf))
		return ctl_fail(c, CTL_FAILED, "Device=none: there is no watchdog to test");
	if (r != 0 || (r = check_idle(c, &conf)) != 0)
		return r;
	if (says(&conf, "nowayout", "1") && says(&conf, "state", "active"))
		return ctl_fail(c, CTL_FAILED, "%s runs and cannot be stopped (nowayout), so ha-keeper holds it: reboot this host, and test before it is armed again", conf.watchdog);
	if (!agreed(&conf))
		return ctl_fail(c, CTL_FAILED, "not agreed: what was typed is not %s; nothing was done", conf.self_name);
	r = check_idle(c, &conf); /* it may be long since, and is what was agreed to */
	if (r != 0)
		return r;
	if (!c->file && mkdir(STATE_DIR, 0755) < 0 && errno != EEXIST)
		return ctl_fail(c, CTL_FAILED, STATE_DIR ": %s", strerror(errno));
	if (snprintf(unfinished, sizeof(unfinished), "%s.new", state_file(c)) >= (int)sizeof(unfinished))
		return ctl_fail(c, CTL_FAILED, "%s: %s", state_file(c), strerror(ENAMETOOLONG));
	mark = open(WATCHDOG_TEST_MARK, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (mark < 0 || write(mark, conf.watchdog, strlen(conf.watchdog)) != (ssize_t)strlen(conf.watchdog))
		return ctl_fail(c, CTL_FAILED, WATCHDOG_TEST_MARK ": %s", strerror(errno));
	fd = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0) {
		r = -errno;
		(void)unlink(WATCHDOG_TEST_MARK);
		return ctl_fail(c, CTL_FAILED, "%s: %s", unfinished, strerror(-r));
	}
	sync();
	set_signals(on_signal);
	watchdog_init(&w, conf.watchdog, NULL);
	began_ms = now_ms(); /* before its start, which pets: what is measured is never too short */
	r = watchdog_start(&w, conf.timing.wd_ms, err, sizeof(err));
	if (r < 0) {
		(void)unlink(unfinished);
		(void)unlink(WATCHDOG_TEST_MARK);
		return ctl_fail(c, CTL_FAILED, "%s%s", err, left_running(&w));
	}
	r = record_until_reset(c, &conf, &w, fd, unfinished, began_ms);
	stopped = watchdog_stop(&w, err, sizeof(err));
	if (unlink(unfinished) < 0 && errno == ENOENT) /* it took the earlier one's place, and tells of no reset */
		(void)unlink(state_file(c));
	if (r == -ECANCELED && stopped == 0) {
		(void)unlink(WATCHDOG_TEST_MARK);
		return ctl_fail(c, CTL_FAILED, "%s: called off, nothing is recorded%s", conf.watchdog, w.rests ? left_running(&w) : "; it is stopped");
	}
	if (r == -ECANCELED)
		return ctl_fail(c, CTL_FAILED, "called off, but %s: it resets this host; nothing is recorded", err);
	if (r == -ETIMEDOUT) /* the mark stays: a keeper that has read an earlier record must not arm it */
		return ctl_fail(c, CTL_FAILED, "%s has NOT reset this host within %" PRId64 " s: it is of no use, choose another Device=", conf.watchdog,
				(int64_t)((2LL * w.timeout_ms + GIVE_UP_MS) / MS_PER_S));
	(void)unlink(WATCHDOG_TEST_MARK);
	return ctl_fail(c, CTL_FAILED, "%s: %s; the watchdog was to be stopped%s", state_file(c), strerror(-r), left_running(&w));
}
