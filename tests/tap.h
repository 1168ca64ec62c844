/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Test Anything Protocol for the C tests: TAP_OK(cond, "what") for each check, `return tap_done();` at the end of main. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failures;

__attribute__((format(printf, 4, 5), unused)) static int tap_ok(int ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	printf("%s %d - ", ok ? "ok" : "not ok", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!ok) {
		tap_failures++;
		printf("# failed at %s:%d\n", file, line);
	}
	fflush(stdout);
	return ok;
}

__attribute__((unused)) static int tap_str(const char *got, const char *want, const char *file, int line, const char *what)
{
	int ok = strcmp(got, want) == 0;

	tap_ok(ok, file, line, "%s", what);
	if (!ok)
		printf("#   got:  %s\n#   want: %s\n", got, want);
	return ok;
}

#define TAP_OK(cond, ...) tap_ok(!!(cond), __FILE__, __LINE__, __VA_ARGS__)
#define TAP_STR(got, want, what) tap_str(got, want, __FILE__, __LINE__, what)

__attribute__((unused)) static int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failures ? 1 : 0;
}
