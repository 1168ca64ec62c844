/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/clock.h"

#include <time.h>

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;

	CHECK(clock_gettime(id, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

int64_t clock_now_ns(void)
{
	static int64_t last_mono, last_raw, now = 1;
	int64_t mono = read_ns(CLOCK_MONOTONIC), raw = read_ns(CLOCK_MONOTONIC_RAW);

	if (last_mono != 0)
		now += MAX(0, MIN(mono - last_mono, raw - last_raw));
	last_mono = mono;
	last_raw = raw;
	return now;
}

int64_t clock_host_ns(void) { return read_ns(CLOCK_BOOTTIME); }

int64_t clock_suspended_ns(void)
{
	static int64_t first = -1;
	int64_t before, boot, gap;

	/* Of one moment: a stall in between is no suspend. */
	do {
		before = read_ns(CLOCK_MONOTONIC);
		boot = read_ns(CLOCK_BOOTTIME);
	} while (read_ns(CLOCK_MONOTONIC) - before > 10 * NS_PER_MS);
	gap = boot - before;
	if (first < 0)
		first = gap;
	return gap - first;
}
