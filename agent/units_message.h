/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The contents of messages between units.c and systemd: what a VM's unit is made of, and what systemd says about one.
 * No connection, no state. Negative errno: the message is not what it should be, or memory is short. */
#pragma once

#include <systemd/sd-bus.h>

#include "agent/base/uuid.h"
#include "agent/units.h"

#define UNITS_STOP_S 20
#define UNITS_NAME_LEN (sizeof(UNITS_PREFIX) + UUID_STR_LEN + sizeof(".service"))

struct units_props {
	struct unit_info info; /* uuid and is_scope are left alone */
	char result[32], load_state[16], active_state[16];
	bool has_job; /* it may be about to start */
};

/* Reads an answer to GetAll(""). -EBADMSG if it does not say what state the unit is in. */
int units_message_read_properties(sd_bus_message *m, struct units_props *p);

/* Appends the property list of StartTransientUnit, as units_start() promises it. */
int units_message_append_properties(sd_bus_message *m, const char *description, char *const argv[], int in);

/* The same for units_start_scope(). */
int units_message_append_scope(sd_bus_message *m, const char *description, pid_t pid);

/* Reads an answer to GetUnitProcesses: the first of them, 0 if there is none. */
int units_message_read_processes(sd_bus_message *m, pid_t *ret);

/* Reads an answer to ListJobs. */
int units_message_read_jobs(sd_bus_message *m, enum units_fate *ret);

/* The UUID in a unit's name, if it is one of ours. */
bool units_message_name_to_uuid(const char *name, char ret[UUID_STR_LEN], bool *ret_scope);
