/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Log lines to stderr in the form journald understands ("<3>text"). Never waits for journald: where stderr is a socket, what does not fit is dropped, and the next line
 * that goes through says how many. A terminal, file or pipe is written to as usual.
 * One line, where the error is handled, with node, VM and cause. Secrets never go here. */
#pragma once

#include "agent/base/util.h"

enum log_level { LOG_LEVEL_ERR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* name: program name to put before each line when stderr is a terminal; max: lines above this level are dropped. */
void log_init(const char *name, enum log_level max);
void log_line(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_err(...) log_line(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
