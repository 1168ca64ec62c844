/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What QEMU's words mean for high availability. Pure: one table each for run states, events and the reasons of SHUTDOWN. */
#pragma once

#include "qmp/qmp.h"

enum qmp_health {
	QMP_HEALTH_UNKNOWN, /* a state we do not know: report it, do nothing because of it */
	QMP_HEALTH_OK,
	QMP_HEALTH_PAUSED,  /* vCPUs stand because an operator or a tool asked for it: leave it alone, it is no failure */
	QMP_HEALTH_BUSY,    /* vCPUs stand during a snapshot or a migration, which ends by itself */
	QMP_HEALTH_ERROR,   /* vCPUs stand because something broke; somebody must act */
	QMP_HEALTH_ENDING,  /* the guest's life in this process is over: never `cont` it */
};

enum qmp_news {
	QMP_NEWS_NONE,   /* nothing to do */
	QMP_NEWS_STATE,  /* the run state has changed: ask query-status, events may come late or in bursts */
	QMP_NEWS_ERROR,  /* something broke inside the guest or below it; the run state says whether it still runs */
	QMP_NEWS_ENDING, /* QEMU is about to exit: qmp_meaning_ending() says why */
};

enum qmp_ending {
	QMP_ENDING_GUEST_OFF,   /* the guest powered itself off: it stays off */
	QMP_ENDING_GUEST_RESET, /* a reset that QEMU was told to exit on: start it again */
	QMP_ENDING_HOST_STOP,   /* somebody on this host ended it: by us or the operator, not a failure of the VM */
	QMP_ENDING_CRASH,       /* everything else: a failure, start it again within the limits */
};

enum qmp_health qmp_meaning_health(enum qmp_run_state state);
enum qmp_news qmp_meaning_news(enum qmp_event_kind kind);

/* shutdown: the first SHUTDOWN event of this process since its guest ran last, or NULL if the connection ended, or the process died, without one. Only guest and
 * reason are looked at. The end of a connection alone is not the end of the process: that is for its pidfd or its unit to say. */
enum qmp_ending qmp_meaning_ending(const struct qmp_event *shutdown);

const char *qmp_health_name(enum qmp_health h); /* words for logs and operators */
const char *qmp_news_name(enum qmp_news n);
const char *qmp_ending_name(enum qmp_ending e);

/* The tables' rows, in order, as kvm-ha-qmp(7) prints them. */
struct qmp_meaning {
	const char *table; /* "run states", "events", "shutdown": reasons of that event */
	const char *word;  /* QEMU's */
	const char *means, *text;
};
bool qmp_meaning_row(size_t i, struct qmp_meaning *ret); /* false: no more */
