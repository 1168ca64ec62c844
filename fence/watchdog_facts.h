/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of a watchdog without opening it, which would arm it: what the kernel tells under /sys/class/watchdog, and what the last `ha-ctl watchdog test`
 * of this host has measured. By both: whether W, as the other nodes count it, is evidence of this host. */
#pragma once

#include "agent/base/conf.h"

#define WATCHDOG_SYSFS "/sys/class/watchdog"
#define WATCHDOG_RECORD "/var/lib/kvm-ha/watchdog-test"
#define WATCHDOG_TEST_MARK "/run/kvm-ha-watchdog-test" /* names the device that is being tested, or that a test of this boot has shown not to bite */
#define WATCHDOG_NAME_LEN 64

/* As far as the last test of this host came before the reset. */
struct watchdog_record {
	char device[CONF_URL_LEN];
	uint32_t timeout_ms; /* 0: there is no record */
	int64_t elapsed_ms;  /* from the last pet to the last record */
	int64_t gap_ms;      /* longest time between two records: the host was reset within it */
};

/* False with ret->timeout_ms = 0 where there is none, or no whole one: of a test that ended before the watchdog could have bitten. */
bool watchdog_record_read(const char *path, struct watchdog_record *ret);
/* So long after the last pet a watchdog may bite. Hardware counts whole ticks, none longer than the second that the kernel's interface counts in, and may be one of them
 * early. A record that ends before was cut off and tells nothing of a reset. No earlier than that: from here on nothing in a record shows that it was cut off. */
int64_t watchdog_earliest_ms(uint32_t timeout_ms);
/* All that came after the timeout that the driver names, at most. */
int64_t watchdog_record_delay_ms(const struct watchdog_record *r);

/* The name under sysfs of a device node. Returns 0, -ENODATA if the kernel tells nothing of it, -ENOTTY if it is no device, or a negative errno. */
int watchdog_sysfs_name(const char *sysfs, const char *device, char ret[WATCHDOG_NAME_LEN]);
/* One attribute; "" where the kernel has none. */
void watchdog_sysfs_get(const char *sysfs, const char *name, const char *attribute, char *ret, size_t size);

/* What is compared before arming; sysfs and mark are parameters for tests. */
struct watchdog_fit {
	const char *sysfs, *mark, *device;
	uint32_t timeout_ms, delay_ms;        /* Watchdog=, WatchdogDelay= */
	const struct watchdog_record *record; /* timeout_ms = 0: none */
};

/* 0, or -EOPNOTSUPP with why it must not be armed and what to do. Does not block: it reads no file but of sysfs and /run. */
int watchdog_fit(const struct watchdog_fit *f, char *err, size_t err_size);
