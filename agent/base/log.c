/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define LINE_LEN 1024

static const char *log_name;
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_to_terminal, log_to_socket;
static unsigned long n_dropped; /* since a line went through; under stderr's lock, as is_torn */
static bool is_torn;            /* only the beginning of the last one that was taken is there */

void log_init(const char *name, enum log_level max)
{
	struct stat st;

	log_name = name;
	log_max = max;
	log_to_terminal = isatty(STDERR_FILENO);
	log_to_socket = fstat(STDERR_FILENO, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* To journald, which may stand still, as anybody may who reads there: what it does not take at once is dropped, and told with what it takes next. */
static void send_line(enum log_level level, const char *line)
{
	char text[LINE_LEN + 128];
	ssize_t sent;
	int len = 0;

	flockfile(stderr); /* as of any line that is printed */
	if (is_torn)
		text[len++] = '\n';
	if (n_dropped > 0)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "<%d>%lu lines were dropped: the journal did not take them\n", (int)LOG_LEVEL_WARNING, n_dropped);
	len += snprintf(text + len, sizeof(text) - (size_t)len, "<%d>%s\n", (int)level, line);
	sent = send(STDERR_FILENO, text, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent > 0)
		is_torn = sent < len;
	n_dropped = sent == len ? 0 : n_dropped + 1;
	funlockfile(stderr);
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_LEN];
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
	if (log_to_socket)
		send_line(level, line);
	else if (log_to_terminal)
		(void)fprintf(stderr, "%s: %s\n", log_name ? log_name : "kvm-ha", line);
	else
		(void)fprintf(stderr, "<%d>%s\n", (int)level, line);
}

_Noreturn void check_failed(const char *expr, const char *file, int line)
{
	log_line(LOG_LEVEL_ERR, "internal error, please report: %s at %s:%d", expr, file, line);
	abort();
}
