/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One table each for run states, events and the reasons of SHUTDOWN, in QEMU's words. man/kvm-ha-qmp.7 has the same rows: tests/test_qmp_meaning.c
 * compares them. */
#include "qmp/meaning.h"

static const struct state_row {
	enum qmp_health health;
	const char *text;
} states[] = {
	[QMP_RUN_UNKNOWN] = { QMP_HEALTH_UNKNOWN, "A state that this version of kvm-ha does not know: shown, nothing is done because of it." },
	[QMP_RUN_RUNNING] = { QMP_HEALTH_OK, "The guest runs." },
	[QMP_RUN_SUSPENDED] = { QMP_HEALTH_OK, "The guest put itself to sleep (ACPI S3) and can be woken; it cannot answer, and need not." },
	[QMP_RUN_COLO] = { QMP_HEALTH_OK, "The guest runs in lock step with a secondary." },
	[QMP_RUN_PAUSED] = { QMP_HEALTH_PAUSED, "Somebody asked for it (stop): left alone, and no failure. Not healthy either: the guest does no work." },
	[QMP_RUN_PRELAUNCH] = { QMP_HEALTH_PAUSED, "Started with -S and not continued yet." },
	[QMP_RUN_DEBUG] = { QMP_HEALTH_PAUSED, "A debugger holds it." },
	[QMP_RUN_INMIGRATE] = { QMP_HEALTH_BUSY, "It waits for an incoming migration, or loads it." },
	[QMP_RUN_FINISH_MIGRATE] = { QMP_HEALTH_BUSY, "The last part of an outgoing migration: it ends by itself." },
	[QMP_RUN_SAVE_VM] = { QMP_HEALTH_BUSY, "A snapshot is being taken: it ends by itself." },
	[QMP_RUN_RESTORE_VM] = { QMP_HEALTH_BUSY, "A snapshot is being loaded: it ends by itself." },
	[QMP_RUN_INTERNAL_ERROR] = { QMP_HEALTH_ERROR, "KVM could not go on with the guest; only a new start helps." },
	[QMP_RUN_IO_ERROR] = { QMP_HEALTH_ERROR, "A disk failed, with werror=stop or rerror=stop: continued once its storage is back." },
	[QMP_RUN_WATCHDOG] = { QMP_HEALTH_ERROR, "The guest's own watchdog ran out, with action pause." },
	[QMP_RUN_GUEST_PANICKED] = { QMP_HEALTH_ERROR, "The guest's kernel panicked (pvpanic), with action pause." },
	[QMP_RUN_SHUTDOWN] = { QMP_HEALTH_ENDING, "The guest is powered off and -no-shutdown keeps the process: ended (quit), as if it had ended by itself." },
	[QMP_RUN_POSTMIGRATE] = { QMP_HEALTH_ENDING, "The migration's target has it: continued here it would run twice." },
};

static const struct event_row {
	enum qmp_news news;
	const char *text;
} events[QMP_EVENT_KIND_COUNT] = {
	[QMP_EVENT_SHUTDOWN] = { QMP_NEWS_ENDING, "QEMU is about to exit, or with -no-shutdown to stop for good; the reason says why, see below." },
	[QMP_EVENT_POWERDOWN] = { QMP_NEWS_NONE, "The power button was pressed; the guest may well ignore it." },
	[QMP_EVENT_RESET] = { QMP_NEWS_STATE,
		"The guest rebooted, or was reset: no failure, unless it comes too often. Most error "
		"states end with it." },
	[QMP_EVENT_STOP] = { QMP_NEWS_STATE, "The vCPUs stand; the run state says why." },
	[QMP_EVENT_RESUME] = { QMP_NEWS_STATE, "The vCPUs run again." },
	[QMP_EVENT_SUSPEND] = { QMP_NEWS_STATE, "The guest put itself to sleep." },
	[QMP_EVENT_SUSPEND_DISK] = { QMP_NEWS_NONE, "The guest saved itself to its disk; a SHUTDOWN follows." },
	[QMP_EVENT_WAKEUP] = { QMP_NEWS_STATE, "The guest was woken." },
	[QMP_EVENT_BLOCK_IO_ERROR] = { QMP_NEWS_ERROR,
		"A disk failed, or is full (nospace). With an action of stop the run state becomes "
		"io-error; with report the guest runs on and sees the error itself." },
	[QMP_EVENT_GUEST_PANICKED] = { QMP_NEWS_ERROR,
		"The guest's kernel panicked. What follows depends on the panic action: an exit, a pause, "
		"or nothing." },
	[QMP_EVENT_GUEST_CRASHLOADED] = { QMP_NEWS_ERROR,
		"The guest's kernel panicked and its crash kernel has taken over: it writes its dump and "
		"reboots by itself, so it is not ended." },
	[QMP_EVENT_WATCHDOG] = { QMP_NEWS_ERROR, "The guest's own watchdog ran out; what follows depends on its action." },
	[QMP_EVENT_MEMORY_FAILURE] = { QMP_NEWS_ERROR, "Memory of the host is broken; the guest was told, reset, or nobody was." },
	[QMP_EVENT_MIGRATION] = { QMP_NEWS_STATE, "A migration has come to its next step." },
	[QMP_EVENT_VSERPORT_CHANGE] = { QMP_NEWS_NONE, "The guest opened or closed a virtio-serial port, such as its agent's." },
	[QMP_EVENT_OTHER] = { QMP_NEWS_NONE, "Any event not named here: written to the log at most." },
};

/* ShutdownCause of QEMU's schema; the last three are for what is not in it, and for silence. */
static const struct ending_row {
	const char *reason;
	enum qmp_ending ending;
	const char *text;
} endings[] = {
	{ "guest-shutdown", QMP_ENDING_GUEST_OFF, "The guest powered itself off: no failure, it stays off unless Restart=always." },
	{ "guest-reset", QMP_ENDING_GUEST_RESET, "The guest rebooted under -no-reboot: started again, and no failure." },
	{ "subsystem-reset", QMP_ENDING_GUEST_RESET, "A part of the guest asked for a reset (s390x): as guest-reset." },
	{ "host-qmp-system-reset", QMP_ENDING_GUEST_RESET, "system_reset under -no-reboot: whoever resets a guest wants it to run." },
	{ "guest-panic", QMP_ENDING_CRASH, "The guest panicked. It has the guest flag, but nobody wanted this: a failure." },
	{ "host-qmp-quit", QMP_ENDING_HOST_STOP, "The command quit, by the agent or somebody else." },
	{ "host-signal", QMP_ENDING_HOST_STOP, "SIGTERM, SIGINT or SIGHUP." },
	{ "host-ui", QMP_ENDING_HOST_STOP, "Its window was closed." },
	{ "host-error", QMP_ENDING_CRASH, "QEMU could not go on: a failure." },
	{ "snapshot-load", QMP_ENDING_CRASH, "QEMU's own business; an exit because of it is a failure." },
	{ "other-guest", QMP_ENDING_GUEST_OFF, "A reason not named here, with the guest flag: taken for a power-off." },
	{ "other-host", QMP_ENDING_CRASH, "A reason not named here, without the guest flag: starting the VM again beats losing it." },
	{ "none", QMP_ENDING_CRASH,
		"The process is gone and no SHUTDOWN was heard: a failure. The end of the connection "
		"alone, while the process lives, is no end at all." },
};

enum { OTHER_GUEST = ARRAY_SIZE(endings) - 3, OTHER_HOST, NO_SHUTDOWN };

static const char *const health_names[] = {
	[QMP_HEALTH_UNKNOWN] = "unknown", [QMP_HEALTH_OK] = "ok", [QMP_HEALTH_PAUSED] = "paused", [QMP_HEALTH_BUSY] = "busy",
	[QMP_HEALTH_ERROR] = "error", [QMP_HEALTH_ENDING] = "ending",
};

static const char *const news_names[] = {
	[QMP_NEWS_NONE] = "nothing", [QMP_NEWS_STATE] = "state", [QMP_NEWS_ERROR] = "error", [QMP_NEWS_ENDING] = "ending",
};

static const char *const ending_names[] = {
	[QMP_ENDING_GUEST_OFF] = "guest powered off", [QMP_ENDING_GUEST_RESET] = "guest reset",
	[QMP_ENDING_HOST_STOP] = "stopped on the host", [QMP_ENDING_CRASH] = "crashed",
};

enum qmp_health qmp_meaning_health(enum qmp_run_state state)
{
	return (size_t)state < ARRAY_SIZE(states) ? states[state].health : QMP_HEALTH_UNKNOWN;
}

enum qmp_news qmp_meaning_news(enum qmp_event_kind kind)
{
	return (size_t)kind < ARRAY_SIZE(events) ? events[kind].news : QMP_NEWS_NONE;
}

enum qmp_ending qmp_meaning_ending(const struct qmp_event *shutdown)
{
	if (!shutdown)
		return endings[NO_SHUTDOWN].ending;
	for (size_t i = 0; shutdown->reason && i < OTHER_GUEST; i++)
		if (streq(endings[i].reason, shutdown->reason))
			return endings[i].ending;
	return endings[shutdown->guest ? OTHER_GUEST : OTHER_HOST].ending;
}

const char *qmp_health_name(enum qmp_health h)
{
	return (size_t)h < ARRAY_SIZE(health_names) ? health_names[h] : "unknown";
}

const char *qmp_ending_name(enum qmp_ending e)
{
	return (size_t)e < ARRAY_SIZE(ending_names) ? ending_names[e] : "unknown";
}

const char *qmp_news_name(enum qmp_news n)
{
	return (size_t)n < ARRAY_SIZE(news_names) ? news_names[n] : "nothing";
}

bool qmp_meaning_row(size_t i, struct qmp_meaning *ret)
{
	if (i < ARRAY_SIZE(states)) {
		*ret = (struct qmp_meaning){ "run states", qmp_run_state_name((enum qmp_run_state)i), qmp_health_name(states[i].health), states[i].text };
		return true;
	}
	i -= ARRAY_SIZE(states);
	if (i < ARRAY_SIZE(events)) {
		*ret = (struct qmp_meaning){ "events", qmp_event_kind_name((enum qmp_event_kind)i), qmp_news_name(events[i].news), events[i].text };
		return true;
	}
	i -= ARRAY_SIZE(events);
	if (i >= ARRAY_SIZE(endings))
		return false;
	*ret = (struct qmp_meaning){ "shutdown", endings[i].reason, qmp_ending_name(endings[i].ending), endings[i].text };
	return true;
}
