/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/watchdog_facts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define LEGACY_MAJOR 10 /* misc devices */
#define LEGACY_MINOR 130 /* their /dev/watchdog: the same as /dev/watchdog0 */
#define MAX_DEVICES 32 /* as the kernel's MAX_DOGS */

static int refuse(char *err, size_t err_size, const char *fmt, ...) _printf_(3, 4);

static int refuse(char *err, size_t err_size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err, err_size, fmt, ap);
	va_end(ap);
	return -EOPNOTSUPP;
}

/* The first line of a file, "" if there is none. */
static void first_line(const char *path, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");

	ret[0] = '\0';
	if (!f)
		return;
	if (!fgets(ret, (int)size, f))
		ret[0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	(void)fclose(f);
}

bool watchdog_record_read(const char *path, struct watchdog_record *ret)
{
	FILE *f = fopen(path, "re");
	struct watchdog_record r = { .timeout_ms = 0 };
	bool ok;

	*ret = r;
	if (!f)
		return false;
	ok = fscanf(f, "%511s %" SCNu32 " %" SCNd64 " %" SCNd64, r.device, &r.timeout_ms, &r.elapsed_ms, &r.gap_ms) == 4 && r.timeout_ms > 0 &&
	     r.elapsed_ms >= 0 && r.elapsed_ms <= UINT32_MAX && r.gap_ms >= 0 && r.gap_ms <= UINT32_MAX &&
	     r.elapsed_ms + r.gap_ms >= watchdog_earliest_ms(r.timeout_ms);
	(void)fclose(f);
	if (ok)
		*ret = r;
	return ok;
}

int64_t watchdog_earliest_ms(uint32_t timeout_ms) { return timeout_ms - MIN(timeout_ms / 2, (uint32_t)MS_PER_S); }
int64_t watchdog_record_delay_ms(const struct watchdog_record *r) { return MAX(r->elapsed_ms + r->gap_ms - (int64_t)r->timeout_ms, 0); }

void watchdog_sysfs_get(const char *sysfs, const char *name, const char *attribute, char *ret, size_t size)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s/%s", sysfs, name, attribute);
	first_line(path, ret, size);
}

int watchdog_sysfs_name(const char *sysfs, const char *device, char ret[WATCHDOG_NAME_LEN])
{
	char dev[64], want[64];
	struct stat st;

	if (stat(device, &st) < 0)
		return -errno;
	if (!S_ISCHR(st.st_mode))
		return -ENOTTY;
	(void)snprintf(want, sizeof(want), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	for (unsigned i = 0; i < MAX_DEVICES; i++) {
		(void)snprintf(ret, WATCHDOG_NAME_LEN, "watchdog%u", i);
		watchdog_sysfs_get(sysfs, ret, "dev", dev, sizeof(dev));
		if (streq(dev, want) || (i == 0 && *dev && major(st.st_rdev) == LEGACY_MAJOR && minor(st.st_rdev) == LEGACY_MINOR))
			return 0;
	}
	return -ENODATA;
}

static bool records(const struct watchdog_fit *f) { return f->record->timeout_ms > 0 && streq(f->record->device, f->device); }

/* W counts on a reset so long after the last pet, whoever pets. A kernel that pets by itself, for a driver whose hardware cannot wait as long, is told from others
 * only by this: its driver names no longest timeout. What it does then has to have been seen. */
static int fit_limit(const struct watchdog_fit *f, char *err, size_t err_size)
{
	char name[WATCHDOG_NAME_LEN] = "", value[32] = "";
	int told = watchdog_sysfs_name(f->sysfs, f->device, name);
	bool limited;

	if (told < 0 && told != -ENODATA)
		return 0; /* opening it says why it cannot be */
	if (told == 0)
		watchdog_sysfs_get(f->sysfs, name, "max_timeout", value, sizeof(value));
	limited = *value && !streq(value, "0");
	if (limited && strtoul(value, NULL, 10) < f->timeout_ms / MS_PER_S)
		return refuse(err, err_size, "watchdog %s takes %s s at most, asked for are %u s; lower Watchdog=", f->device, value,
			      (unsigned)(f->timeout_ms / MS_PER_S));
	if (limited || (records(f) && f->record->timeout_ms == f->timeout_ms))
		return 0;
	return refuse(err, err_size,
		      "watchdog %s: %s, so nothing tells whether the kernel pets it by itself beyond what the hardware can wait; "
		      "let `ha-ctl watchdog test` measure it with Watchdog=%us, once, then it is armed",
		      f->device, told == 0 ? "its driver names no longest timeout (max_timeout)" : "this kernel tells nothing of it under " WATCHDOG_SYSFS,
		      (unsigned)(f->timeout_ms / MS_PER_S));
}

int watchdog_fit(const struct watchdog_fit *f, char *err, size_t err_size)
{
	bool device = strncmp(f->device, "unix:", 5) != 0 && !streq(f->device, CONF_NO_WATCHDOG);
	char marked[CONF_URL_LEN];
	int r;

	first_line(f->mark, marked, sizeof(marked));
	if (streq(marked, f->device))
		return refuse(err, err_size, "watchdog %s is being tested, or has not reset this host when it was, since the last boot: see `ha-ctl watchdog test`; "
			      "choose another Device=, or boot and test it again", f->device);
	r = device ? fit_limit(f, err, err_size) : 0;
	if (r == 0 && records(f) && watchdog_record_delay_ms(f->record) > f->delay_ms)
		return refuse(err, err_size, "watchdog %s: `ha-ctl watchdog test` has measured a delay of up to %" PRId64
			      " ms, WatchdogDelay= is %" PRIu32 "ms: set it to %" PRId64 "ms or more on every node, or test again",
			      f->device, watchdog_record_delay_ms(f->record), f->delay_ms, watchdog_record_delay_ms(f->record) * 3 / 2);
	return r;
}
