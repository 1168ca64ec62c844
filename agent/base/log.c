/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/log.h"

#include <stdarg.h>
#include <stdio.h>

static const char *log_name;
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_to_terminal;

void log_init(const char *name, enum log_level max)
{
	log_name = name;
	log_max = max;
	log_to_terminal = isatty(STDERR_FILENO);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	if (level > log_max)
		return;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	/* What came from outside must not fake a line of its own. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' && *p != '\t')
			*p = ' ';
	if (log_to_terminal)
		(void)fprintf(stderr, "%s: %s\n", log_name ? log_name : "kvm-ha", line);
	else
		(void)fprintf(stderr, "<%d>%s\n", (int)level, line);
}

_Noreturn void check_failed(const char *expr, const char *file, int line)
{
	log_line(LOG_LEVEL_ERR, "internal error, please report: %s at %s:%d", expr, file, line);
	abort();
}
