/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values as an operator writes them: times, sizes, numbers, names, paths, places of a disk. Pure: no file, clock or memory management.
 * The parsers return 0, or -EINVAL with err = what is wrong and what to write instead; *ret is untouched on failure. */
#pragma once

#include "agent/base/util.h"

#define VALUE_PLACE_LEN 512 /* longest URL or path, with its NUL */

/* Writes the reason and returns -EINVAL, so that a check reads `return value_refuse(err, err_size, "...")`. */
int value_refuse(char *err, size_t err_size, const char *fmt, ...) _printf_(3, 4);

int value_bool(const char *s, bool *ret, char *err, size_t err_size); /* yes no true false on off 1 0 */
int value_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret, char *err, size_t err_size);

/* "5s", "1min 30s", "1.5s": units ms, s, min, h; a number without a unit is refused. */
int value_span_ms(const char *s, uint32_t *ret, char *err, size_t err_size);

/* "512M", "4G": units K, M, G, T, powers of 1024; a number without a unit or a part of a MiB is refused. */
int value_size_mib(const char *s, uint32_t *ret, char *err, size_t err_size);

/* "10" (permille) or "1%", "1.5%". */
int value_permille(const char *s, uint32_t *ret, char *err, size_t err_size);

/* Letters, digits, '.', '_', '-', the first a letter or digit; with its NUL at most size bytes. */
int value_name_check(const char *s, size_t size, char *err, size_t err_size);

/* Absolute, no control characters, no "." or ".." in it, at most VALUE_PLACE_LEN - 1 bytes. */
int value_path_check(const char *s, char *err, size_t err_size);

/* iscsi://HOST/..., nfs://HOST/... or an absolute path. Syntax of scheme and host part only; credentials in a URL are refused, and a
 * refused text is never repeated in err when it may hold some. */
int value_place_check(const char *s, char *err, size_t err_size);

/* Two spellings of one place: repeated slashes, iSCSI's default port and options do not count, and one address in common is enough. Both must have
 * passed value_place_check. */
bool value_same_place(const char *a, const char *b);

/* Levenshtein distance, letter case ignored; SIZE_MAX if a text is longer than a key can be. */
#define VALUE_DISTANCE_MAX_LEN 64
size_t value_distance(const char *a, const char *b);
