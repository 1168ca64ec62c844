/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/meaning.h"

static const enum qmp_health healths[] = {
	[QMP_RUN_UNKNOWN] = QMP_HEALTH_UNKNOWN,
	[QMP_RUN_RUNNING] = QMP_HEALTH_OK,
	[QMP_RUN_SUSPENDED] = QMP_HEALTH_OK,            /* the guest put itself to sleep (ACPI S3) and can be woken */
	[QMP_RUN_COLO] = QMP_HEALTH_OK,                 /* runs in lock step with a secondary */
	[QMP_RUN_PAUSED] = QMP_HEALTH_PAUSED,           /* `stop` */
	[QMP_RUN_PRELAUNCH] = QMP_HEALTH_PAUSED,        /* started with -S, no `cont` yet */
	[QMP_RUN_DEBUG] = QMP_HEALTH_PAUSED,            /* a debugger holds it */
	[QMP_RUN_INMIGRATE] = QMP_HEALTH_BUSY,          /* waits for, or loads, an incoming migration */
	[QMP_RUN_FINISH_MIGRATE] = QMP_HEALTH_BUSY,     /* last part of an outgoing migration */
	[QMP_RUN_SAVE_VM] = QMP_HEALTH_BUSY,
	[QMP_RUN_RESTORE_VM] = QMP_HEALTH_BUSY,
	[QMP_RUN_INTERNAL_ERROR] = QMP_HEALTH_ERROR,    /* KVM could not go on; only a reset helps */
	[QMP_RUN_IO_ERROR] = QMP_HEALTH_ERROR,          /* a disk failed with werror/rerror=stop: `cont` once the storage is back */
	[QMP_RUN_WATCHDOG] = QMP_HEALTH_ERROR,          /* the guest's own watchdog ran out, with action pause */
	[QMP_RUN_GUEST_PANICKED] = QMP_HEALTH_ERROR,    /* pvpanic, with action pause */
	[QMP_RUN_SHUTDOWN] = QMP_HEALTH_ENDING,         /* powered off, process kept by -no-shutdown */
	[QMP_RUN_POSTMIGRATE] = QMP_HEALTH_ENDING,      /* the target has it: resuming here would run it twice */
};

static const enum qmp_news news[] = {
	[QMP_EVENT_OTHER] = QMP_NEWS_NONE,
	[QMP_EVENT_SHUTDOWN] = QMP_NEWS_ENDING,
	[QMP_EVENT_POWERDOWN] = QMP_NEWS_NONE,          /* the button was pressed; the guest may well ignore it */
	[QMP_EVENT_RESET] = QMP_NEWS_STATE,             /* rebooted; clears most error states */
	[QMP_EVENT_STOP] = QMP_NEWS_STATE,
	[QMP_EVENT_RESUME] = QMP_NEWS_STATE,
	[QMP_EVENT_BLOCK_IO_ERROR] = QMP_NEWS_ERROR,    /* with werror=report the guest runs on and sees the error itself */
	[QMP_EVENT_GUEST_PANICKED] = QMP_NEWS_ERROR,    /* what follows depends on the panic action */
	[QMP_EVENT_WATCHDOG] = QMP_NEWS_ERROR,
};

/* ShutdownCause of QEMU's schema. */
static const struct {
	const char *reason;
	enum qmp_ending ending;
} endings[] = {
	{ "guest-shutdown", QMP_ENDING_GUEST_OFF },
	{ "guest-reset", QMP_ENDING_GUEST_RESET },        /* with -no-reboot */
	{ "subsystem-reset", QMP_ENDING_GUEST_RESET },    /* part of the guest asked for it (s390x) */
	{ "host-qmp-system-reset", QMP_ENDING_GUEST_RESET }, /* system_reset with -no-reboot: whoever resets wants it to run */
	{ "guest-panic", QMP_ENDING_CRASH },              /* the guest flag is set, but nobody wanted this */
	{ "host-qmp-quit", QMP_ENDING_HOST_STOP },
	{ "host-signal", QMP_ENDING_HOST_STOP },          /* SIGTERM, SIGINT, SIGHUP */
	{ "host-ui", QMP_ENDING_HOST_STOP },              /* its window was closed */
	{ "host-error", QMP_ENDING_CRASH },
};

static const char *const health_names[] = {
	[QMP_HEALTH_UNKNOWN] = "unknown", [QMP_HEALTH_OK] = "ok", [QMP_HEALTH_PAUSED] = "paused", [QMP_HEALTH_BUSY] = "busy",
	[QMP_HEALTH_ERROR] = "error", [QMP_HEALTH_ENDING] = "ending",
};

static const char *const ending_names[] = {
	[QMP_ENDING_GUEST_OFF] = "guest powered off", [QMP_ENDING_GUEST_RESET] = "guest reset",
	[QMP_ENDING_HOST_STOP] = "stopped on the host", [QMP_ENDING_CRASH] = "crashed",
};

enum qmp_health qmp_meaning_health(enum qmp_run_state state)
{
	return (size_t)state < ARRAY_SIZE(healths) ? healths[state] : QMP_HEALTH_UNKNOWN;
}

enum qmp_news qmp_meaning_news(enum qmp_event_kind kind)
{
	return (size_t)kind < ARRAY_SIZE(news) ? news[kind] : QMP_NEWS_NONE;
}

enum qmp_ending qmp_meaning_ending(const struct qmp_event *shutdown)
{
	if (!shutdown)
		return QMP_ENDING_CRASH;
	for (size_t i = 0; shutdown->reason && i < ARRAY_SIZE(endings); i++)
		if (streq(endings[i].reason, shutdown->reason))
			return endings[i].ending;
	/* A word from a later QEMU: the flag is all there is. Without it, starting the VM again beats losing it. */
	return shutdown->guest ? QMP_ENDING_GUEST_OFF : QMP_ENDING_CRASH;
}

const char *qmp_health_name(enum qmp_health h)
{
	return (size_t)h < ARRAY_SIZE(health_names) ? health_names[h] : "unknown";
}

const char *qmp_ending_name(enum qmp_ending e)
{
	return (size_t)e < ARRAY_SIZE(ending_names) ? ending_names[e] : "unknown";
}
