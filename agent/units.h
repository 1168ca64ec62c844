/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMs as transient systemd services, over sd-bus driven by the qb_loop: systemd is qemu's parent and keeps its exit status when the agent
 * restarts. Never waits: every call returns at once and answers by callback. (org.freedesktop.systemd1(5)) */
#pragma once

#include <qb/qbloop.h>
#include <sys/types.h>

#include "agent/base/util.h"

#define UNITS_SLICE "kvmha-vms.slice"      /* every VM's unit is in it; the keeper kills what is in it */
#define UNITS_PREFIX "kvmha-vm-"           /* unit name: kvmha-vm-UUID.service, or .scope */
#define UNITS_MAX 512

struct units;

enum units_fate { UNITS_STAYS_UP, UNITS_GOES_DOWN, UNITS_REBOOTS };
enum unit_state { UNIT_ABSENT, UNIT_STARTING, UNIT_RUNNING, UNIT_STOPPING, UNIT_EXITED, UNIT_FAILED };

struct unit_info {
	char uuid[37];
	enum unit_state state;
	pid_t main_pid;        /* of a unit that is over, or even forgotten: a process that it has left all the same, which may be its QEMU; 0 if none */
	int exit_code;         /* CLD_EXITED status or CLD_KILLED signal, see exit_killed; valid in EXITED and FAILED */
	bool exit_killed;
	char description[96];
	bool is_scope;         /* of a process that something else started: main_pid is not known while it runs */
};

/* error: NULL on success, else one line. info: NULL after units_kill, and where systemd told nothing; set with an error when a start failed
 * after all (exit_code says why). A program that ends at once with 0 makes its start succeed with UNIT_ABSENT: CollectMode=inactive unloads
 * a unit after a clean exit. After an error a start may still take place, or have taken place: query before relying on either.
 *
 * The calls return 0, -EINVAL (no UUID, argv[0] no absolute path), -EBUSY (UNITS_MAX under way), -ENOTCONN (no connection now: try again
 * later) or the errno of building the message; with anything but 0 there is no callback. A lost connection ends every call under way with
 * "lost the connection to systemd"; list again then. Callbacks come from the loop only and may call everything here, units_free too. */
typedef void (*units_done_fn)(void *user, const char *error, const struct unit_info *info);
typedef void (*units_list_fn)(void *user, const char *error, const struct unit_info *units, size_t n);

/* Connects to the system bus (the private socket of PID 1 or dbus), asynchronously; reconnects with back-off when the bus goes away. */
int units_new(qb_loop_t *loop, struct units **ret);
void units_free(struct units *u); /* silent: no callback comes after; NULL is ignored */

/* Starts kvmha-vm-UUID.service: resets a failed one of that name first, then StartTransientUnit with argv as ExecStart. done comes when
 * systemd's job has finished and MainPID is known, or with the error. Type=exec, Slice=UNITS_SLICE, KillMode=process, SendSIGKILL=no,
 * Restart=no, OOMScoreAdjust=-500, After=ha-keeper.service, Before=ha-agent.service ha-leave.service (at shutdown: ha-leave, agent, VMs, keeper),
 * TimeoutStopSec=20, LimitMEMLOCK=infinity, LimitNOFILE=65536, CollectMode=inactive. Standard output and error go
 * to the journal. in: its standard input, this time and no other (the caller's to close afterwards); -1: none. */
int units_start(struct units *u, const char *uuid, const char *description, char *const argv[], int in, units_done_fn done, void *user);

/* Puts a process that something else started into kvmha-vm-UUID.scope of the same slice, as far as that can be with the properties above. systemd takes a
 * number: that it was the right process is shown by its being alive afterwards. */
int units_start_scope(struct units *u, const char *uuid, const char *description, pid_t pid, units_done_fn done, void *user);
int units_kill_scope(struct units *u, const char *uuid, int signal, units_done_fn done, void *user);
int units_query_scope(struct units *u, const char *uuid, units_done_fn done, void *user);

/* Sends a signal to the unit's processes (KillUnit, "all"). */
int units_kill(struct units *u, const char *uuid, int signal, units_done_fn done, void *user);

/* State, MainPID and exit status of one unit. */
int units_query(struct units *u, const char *uuid, units_done_fn done, void *user);

/* Whether systemd is stopping everything, and whether to come up again: by the jobs it has. Rescue and emergency mode end VMs as well. */
typedef void (*units_fate_fn)(void *user, const char *error, enum units_fate fate);
int units_fate(struct units *u, units_fate_fn done, void *user);

/* Every loaded unit with our prefix, scopes too. */
int units_list(struct units *u, units_list_fn done, void *user);
