/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both daemons do first: command line, log, configuration. */
#pragma once

#include "agent/base/conf.h"

/* name: "ha-keeper"; purpose: one line for --help. Returns -1 to go on (*ret_dir set, the log begun), else the status to exit with. */
int program_options(int argc, char **argv, const char *name, const char *purpose, const char **ret_dir);

#define PROGRAM_EXIT_USAGE 64

/* Whether another of these lives: it takes a connection at its socket (type: SOCK_STREAM or SOCK_SEQPACKET) and hangs up on who has nothing to say. One that
 * hangs, or is about to end, does not. Blocks for a few seconds; only before the main loop. If so it is logged, and the process is to end. */
bool program_runs_already(const char *name, const char *socket_path, int type);

/* conf_load, and this host must be one of its nodes; whatever is wrong is logged. 0 or a negative errno. */
int program_conf(const char *dir, struct conf *ret);
/* For a daemon that waits for volumes: has Volumes= changed since? Reads the files: not for one that holds a lease. */
bool program_volumes_changed(const char *dir, const struct conf *conf);
