/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Strict reader for INI text in systemd's manner (systemd.syntax(7)). Pure: text in, one call a key; no file and no memory management.
 *
 *   [Section]             known sections and keys only, letter case counts
 *   Key=value             a later one wins; a list key adds to what is there, and an empty value empties the list
 *   Key=value \           a backslash at the end of a line, or
 *     more                an indented line, continues the value; both join with one blank
 *   # text, ; text        comment lines, also indented and between continued lines
 *
 * Refused: NUL and other control characters (DOS line ends too), what is not UTF-8, a key outside a section, an empty value of a key that
 * is no list, text above the limits. */
#pragma once

#include "agent/base/util.h"

#define INI_MAX_TEXT (256 * 1024)  /* bytes of one text */
#define INI_MAX_VALUE (16 * 1024)  /* bytes of one value, continued lines joined, with its NUL */
#define INI_SECTION (-1)

struct ini_key {
	const char *section, *key;
	bool list;
};

/* key: index into the table, value: trimmed, "" only for a list that is emptied; or key = INI_SECTION and value = the section that begins.
 * line: where the key stands, from 1. Returns 0, -EINVAL with err = "reason; remedy", or another negative errno. */
typedef int (*ini_fn)(void *user, int key, const char *value, unsigned int line, char *err, size_t err_size);

/* 0, -EINVAL with err = "SOURCE:LINE: reason; remedy", or what fn returned. Stops at the first mistake. */
int ini_parse(const char *source, const char *text, size_t len, const struct ini_key *keys, size_t n_keys, ini_fn fn, void *user,
	      char *err, size_t err_size);
