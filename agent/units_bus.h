/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of units: the connection (units_bus.c) and the requests that live on it (units.c). Nobody else includes this. */
#pragma once

#include <systemd/sd-bus.h>

#include "agent/units.h"
#include "agent/units_message.h"

#define UNITS_NEVER UINT64_MAX
#define UNITS_DESTINATION "org.freedesktop.systemd1"
#define UNITS_MANAGER_PATH "/org/freedesktop/systemd1"
#define UNITS_MANAGER UNITS_DESTINATION ".Manager"
#define UNITS_CALL_MS 10000 /* PID 1 answers a call within this */

enum units_step { UNITS_STEP_RESET, UNITS_STEP_START, UNITS_STEP_JOB, UNITS_STEP_KILL, UNITS_STEP_LIST, UNITS_STEP_PROPERTIES, UNITS_STEP_PROCESSES, UNITS_STEP_JOBS };

struct units_request {
	struct units *units;
	struct units_request *next;
	enum units_step step;
	bool is_start;
	sd_bus_slot *slot;         /* the call under way */
	uint64_t deadline_us;      /* of UNITS_STEP_JOB; the bus watches over calls */
	char name[UNITS_NAME_LEN];
	char job[128];             /* object path */
	char job_result[32];       /* "" until JobRemoved */
	sd_bus_message *start;     /* StartTransientUnit, ready to be sent */
	struct units_props props;  /* as of the last UNITS_STEP_PROPERTIES; info.uuid always */
	struct unit_info *list;    /* a list's answer as it grows */
	size_t n_list, next_list;
	units_done_fn done;
	units_list_fn list_done;
	units_fate_fn fate_done;
	enum units_fate fate;
	void *user;
};

struct units {
	qb_loop_t *loop;
	sd_bus *bus;
	bool is_private, is_proven; /* proven: this connection has answered */
	bool prefer_system;         /* the private socket took us and then did not talk */
	int fd, events;             /* as known to the loop; fd -1: not polled */
	qb_loop_timer_handle timer;
	bool has_timer;
	uint64_t timer_us;
	uint64_t connect_us;        /* next try while bus is NULL, else when it must be proven */
	uint32_t backoff_ms;
	struct units_request *requests;
	size_t n_requests;
	bool in_round, is_freed, is_lost;
};

uint64_t units_bus_clock_us(void);

/* After a call outside a round may have queued output. */
void units_bus_wake(struct units *u);

/* An answer came: this connection works. */
void units_bus_proven(struct units *u);

/* What units.c does for the connection. */
int units_request_job_removed(sd_bus_message *m, void *user, sd_bus_error *error);
void units_request_end_all(struct units *u, const char *error); /* with their callbacks */
void units_request_expire(struct units *u);                     /* jobs past their deadline */
void units_request_drop_all(struct units *u);                   /* silently */
