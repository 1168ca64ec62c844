/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The watchdog: /dev/watchdog (Linux watchdog-api), the supervisor of a lab node behind a UNIX socket ("unix:PATH"), or "none": then all there is of it is an fd to be held
 * for the next keeper of this boot. Nothing bites, and the node's blocks must say that its silence proves nothing.
 *
 * Opening /dev/watchdog arms it, so nothing is opened before watchdog_start; a start that fails after opening closes it the safe way. The fd is
 * meant to be held by systemd as well (FDSTORE), so that the death of the keeper is not a close.
 *
 * Many drivers (softdog) do not tell how long it is until they fire. So the time before each pet is written to a file that whoever goes on with the fd reads.
 *
 * One that its driver never stops (nowayout) rests instead: while no lease counts on it the keeper pets it by time. Who goes on with the fd knows by that file.
 */
#pragma once

#include "agent/base/util.h"

struct watchdog {
	const char *device;   /* the one that is used: borrowed, or held */
	const char *chosen;   /* borrowed; Device= */
	char held[64];        /* another one that was found running: it goes on until it is stopped */
	const char *pet_file; /* borrowed; NULL: pets are not written down */
	const char *sysfs;    /* borrowed; WATCHDOG_SYSFS but in tests */
	bool is_unix, is_none;
	bool rests;          /* it runs, but no lease counts on it: watchdog_keep_resting is due */
	int fd, pet_fd;      /* -1 while not running; while nothing was written down */
	uint32_t timeout_ms; /* as read back */
	uint32_t rest_ms;    /* while it rests: it resets the host so long after the keeper's last sign */
	uint32_t left_ms;    /* after watchdog_adopt: until it fires, never more than there is; 0 = not known */
};

/* pet_file: on a memory file system (writing it must not block) that is empty after each boot. */
void watchdog_init(struct watchdog *w, const char *device, const char *pet_file);

/* Asks for wanted_ms, reads back what the driver took, refuses what is longer than that (I4), what is shorter (it would come before the soft deadline, L4), what
 * any close would stop, and what cannot be petted. Returns 0 or a negative errno with err; after an error it does not run, or rests. watchdog_fit
 * (watchdog_facts.h) comes before it: this alone arms what was never measured. */
int watchdog_start(struct watchdog *w, uint32_t wanted_ms, char *err, size_t err_size);
/* Goes on with a running one whose fd was held over a restart. Does not pet it, but where may_rest, as nothing here was armed, and the last keeper wrote that it rests.
 * An fd of another watchdog than Device= is gone on with all the same, until that is stopped. -ENODEV: it was stopped, so whoever holds the fd may close it. After
 * any other error the fd is the caller's still; once nothing runs here any more it is stopped by watchdog_drop. */
int watchdog_adopt(struct watchdog *w, int fd, uint32_t wanted_ms, bool may_rest, char *err, size_t err_size);
/* One that was left running, that nobody holds and that has nowayout, rests from here on. Opening it pets it: only where no lease of this host counts on any
 * watchdog. Any other is left alone. Returns 0 or a negative errno with err. */
int watchdog_take(struct watchdog *w, char *err, size_t err_size);
/* Stops one that could not be adopted, or lets it rest. Takes over fd. */
int watchdog_drop(struct watchdog *w, int fd, char *err, size_t err_size);
int watchdog_pet(struct watchdog *w);
/* Pets one that rests; nothing for any other. */
int watchdog_keep_resting(const struct watchdog *w);
/* Magic close. After success it does not run: at once where the kernel tells whether it does (sysfs), else once every other holder of the fd has closed it, too.
 * Or it rests, its fd open as before. */
int watchdog_stop(struct watchdog *w, char *err, size_t err_size);
