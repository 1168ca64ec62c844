/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small helpers every folder may use. Nothing here touches a file, a clock or memory management. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define MS_PER_S 1000LL
#define US_PER_MS 1000LL
#define NS_PER_MS 1000000LL

/* Guards our own bugs; stays on in release builds: a dead agent is safe, a wrong one is not. */
_Noreturn void check_failed(const char *expr, const char *file, int line);
#define CHECK(expr) ((expr) ? (void)0 : check_failed(#expr, __FILE__, __LINE__))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void freep(void *p) { free(*(void **)p); }
static inline void closep(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
#define _cleanup_free_ __attribute__((cleanup(freep)))
#define _cleanup_close_ __attribute__((cleanup(closep)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))

static inline bool streq(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* Copies at most size - 1 bytes of src and always ends dst with NUL; says whether all of it fitted. */
static inline bool str_copy(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size);

	if (n == size) {
		memcpy(dst, src, size - 1);
		dst[size - 1] = '\0';
		return false;
	}
	memcpy(dst, src, n + 1);
	return true;
}
