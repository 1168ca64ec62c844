/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What both daemons do first: command line, log, configuration. */
#pragma once

#include "agent/base/conf.h"

/* name: "ha-keeper"; purpose: one line for --help. Returns -1 to go on (*ret_dir set, the log begun), else the status to exit with. */
int program_options(int argc, char **argv, const char *name, const char *purpose, const char **ret_dir);

/* conf_load, and this host must be one of its nodes; whatever is wrong is logged. 0 or a negative errno. */
int program_conf(const char *dir, struct conf *ret);
/* For a daemon that waits for volumes: has Volumes= changed since? Reads the files: not for one that holds a lease. */
bool program_volumes_changed(const char *dir, const struct conf *conf);
