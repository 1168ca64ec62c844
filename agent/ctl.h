/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-ctl, the operator's command. One command a function; each returns the exit code that ha-ctl(8) documents.
 *   ctl.c         command line, command table, help, configuration commands
 *   ctl_agent.c   commands the agent carries out
 *   ctl_maintenance.c node maintenance, and waiting for its end
 *   ctl_fence.c   fencing by hand; ctl_watchdog.c: what the watchdog is, and how long it takes
 *   ctl_stop.c    node stop
 *   ctl_print.c   colors, tables, lists; ctl_status.c: the status in words
 *   ctl_import.c  vm import
 *   ctl_volume.c  volume init; ctl_dump.c: volume list and dump; ctl_disk.c: what both do to a volume
 *   ctl_volset.c volume add, remove, replace
 *   ctl_voltest.c volume test; ctl_voltest_run.c: its measurement
 */
#pragma once

#include <json-c/json.h>
#include <stdio.h>

#include "agent/base/conf.h"
#include "agent/base/util.h"

#define CTL_API_VERSION 1
#define CTL_MAX_FORCE 8
#define CTL_ERROR_LEN 2048

enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILED = 1,       /* refused, or tried and failed */
	CTL_USAGE = 64,       /* the numbers of sysexits.h */
	CTL_UNAVAILABLE = 69, /* the agent does not run or does not answer */
	CTL_AGAIN = 75,
	CTL_CONFIG = 78,
};

enum ctl_color { CTL_PLAIN, CTL_RED, CTL_GREEN, CTL_YELLOW, CTL_BOLD };

struct ctl {
	const char *config_dir, *socket;
	bool json;
	bool color; /* of stdout */
	bool follow, wait, cancel, back, off, why, lost; /* back: --return */
	const char *pause;  /* freeze, ignore; NULL: not given */
	const char *force[CTL_MAX_FORCE];
	size_t n_force;
	uint32_t nodes_max; /* 0: not given */
	const char *what;   /* NULL: not given; so the others below */
	const char *file;   /* -o with another word than text or json */
	const char *libvirt, *qemu_cmdline, *name, *bridge;
	bool strict;
	const char *force_write;
	uint32_t seconds;   /* 0: not given */
	const char *remedy; /* goes behind every failure: what was done already, and what to do of it */
	char **args;        /* what follows the command's name */
	int n_args;
};

/* Says on stderr why the command fails, with -o json also on stdout, and returns code. */
int ctl_fail(const struct ctl *c, enum ctl_exit code, const char *fmt, ...) _printf_(3, 4);
/* 0, or CTL_CONFIG after saying why. */
int ctl_conf(const struct ctl *c, struct conf *ret);

/* ctl_agent.c */
int ctl_status(const struct ctl *c);
int ctl_arm(const struct ctl *c);
int ctl_disarm(const struct ctl *c);
int ctl_node_list(const struct ctl *c);
int ctl_node_leave(const struct ctl *c);
int ctl_vm_add(const struct ctl *c);
int ctl_vm_update(const struct ctl *c);
int ctl_vm_list(const struct ctl *c);
int ctl_vm_show(const struct ctl *c);
int ctl_vm_start(const struct ctl *c);
int ctl_vm_stop(const struct ctl *c);
int ctl_vm_remove(const struct ctl *c);
int ctl_adopt(const struct ctl *c);
int ctl_vm_freeze(const struct ctl *c);
int ctl_vm_unfreeze(const struct ctl *c);
int ctl_vm_ignore(const struct ctl *c);
int ctl_vm_relocate(const struct ctl *c);
int ctl_vm_migrate(const struct ctl *c);
int ctl_vm_clear_error(const struct ctl *c);
int ctl_events(const struct ctl *c);

/* For other files' commands. ctl_ask puts request; 0 and *ret, to put, or an exit code after saying why. */
json_object *ctl_request(const char *command);
int ctl_ask(const struct ctl *c, json_object *request, json_object **ret);
/* The same once more, after a moment; an agent that is being restarted is waited for as long as for an answer. The answer has key, an object. */
int ctl_ask_again(const struct ctl *c, json_object *request, const char *key, json_object **ret);
/* Of a status: false as long as an agent that has just been started cannot tell of VMs, and of what was asked for. */
bool ctl_known(json_object *status);
int64_t ctl_now_ms(void); /* CLOCK_MONOTONIC */
int ctl_check_name(const struct ctl *c, const char *what, const char *name); /* 0, or CTL_USAGE after saying why */

/* ctl_maintenance.c */
int ctl_node_maintenance(const struct ctl *c);

/* ctl_stop.c */
int ctl_node_stop(const struct ctl *c);

/* ctl_fence.c */
int ctl_node_confirm_fenced(const struct ctl *c);
int ctl_node_fence(const struct ctl *c);
int ctl_node_unfence(const struct ctl *c);
int ctl_node_power(const struct ctl *c);

/* ctl_watchdog.c */
int ctl_watchdog_query(const struct ctl *c);
int ctl_watchdog_test(const struct ctl *c);

/* ctl_import.c */
int ctl_vm_import(const struct ctl *c);

/* ctl_volume.c, ctl_dump.c */
int ctl_volume_init(const struct ctl *c);
int ctl_volume_list(const struct ctl *c);
int ctl_volume_dump(const struct ctl *c);
int ctl_volume_add(const struct ctl *c); /* ctl_volset.c */
int ctl_volume_remove(const struct ctl *c);
int ctl_volume_replace(const struct ctl *c);
int ctl_volume_test(const struct ctl *c); /* ctl_voltest.c */

/* ctl_print.c, ctl_status.c. Text from outside is printed with its control characters replaced. */
const char *ctl_when(int64_t ms, char *buf, size_t size); /* by the wall clock; local time, for people */
#define CTL_MAX_COLUMNS 8
struct ctl_table {
	const char *title[CTL_MAX_COLUMNS];
	unsigned columns;
	char **cell; /* rows * columns */
	enum ctl_color *color;
	size_t rows, room;
};

void ctl_color_on(const struct ctl *c, enum ctl_color color);
void ctl_color_off(const struct ctl *c);
void ctl_put(const char *text);
/* One cell after the other, row by row. */
void ctl_table_add(struct ctl_table *t, size_t column, enum ctl_color color, const char *fmt, ...) _printf_(4, 5);
void ctl_table_print(const struct ctl *c, struct ctl_table *t); /* and empties it */
void ctl_print_json(json_object *o);
void ctl_print_status(const struct ctl *c, json_object *status);
void ctl_print_nodes(const struct ctl *c, json_object *status);
void ctl_print_vms(const struct ctl *c, json_object *status);

/* A member of an answer, or a harmless value where it is absent or of another type: the agent's answers are input like any other. */
const char *ctl_str(json_object *o, const char *key); /* "" */
int64_t ctl_int(json_object *o, const char *key);     /* 0 */
bool ctl_bool(json_object *o, const char *key);       /* false */
size_t ctl_list(json_object *o, const char *key, json_object **ret); /* an array's length; 0 where there is none */
json_object *ctl_get(json_object *o, const char *key, enum json_type type); /* NULL */
