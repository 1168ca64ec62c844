/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Splits a value into words, quoted as in systemd unit files (systemd.syntax(7), QUOTING): words are parted by blanks; "..." and '...'
 * hold blanks; a quote opens only at the begin of a word and its closing one ends the word; backslash escapes \n \t \\ \" \' \xHH work
 * inside and outside of quotes. No variables, no globbing. Pure. */
#pragma once

#include "agent/base/util.h"

enum unquote_result { UNQUOTE_END = 0, UNQUOTE_WORD = 1 };

/* Puts the word that begins at or after text[*pos] into buf and moves *pos behind it. Returns UNQUOTE_WORD, UNQUOTE_END, or -EINVAL with
 * err = "character N: reason; remedy" (N counts bytes from 1). *pos and buf are undefined after a failure. */
int unquote_next(const char *text, size_t *pos, char *buf, size_t buf_size, char *err, size_t err_size);
