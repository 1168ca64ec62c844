/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/unquote.h"

#include <errno.h>

#include "agent/base/value.h"

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *p = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

	return p ? (int)(p - digits) : -1;
}

/* s is at the character after the backslash. Returns how many characters the escape takes, 0 if it is none of ours. */
static size_t escape(const char *s, char *ret)
{
	int high, low;

	switch (*s) {
	case 'n':
		*ret = '\n';
		return 1;
	case 't':
		*ret = '\t';
		return 1;
	case '\\':
	case '"':
	case '\'':
		*ret = *s;
		return 1;
	case 'x':
		high = hex_value(s[1]);
		low = high < 0 ? -1 : hex_value(s[2]);
		if (low < 0 || (high | low) == 0) /* a NUL would cut the word short */
			return 0;
		*ret = (char)(high << 4 | low);
		return 3;
	default:
		return 0;
	}
}

int unquote_next(const char *text, size_t *pos, char *buf, size_t buf_size, char *err, size_t err_size)
{
	size_t i = *pos + strspn(text + *pos, " \t"), begin = i, n = 0;
	char quote = '\0';

	if (!text[i])
		return UNQUOTE_END;
	if (text[i] == '"' || text[i] == '\'')
		quote = text[i++];
	for (;; i++) {
		char c = text[i];

		if (quote && c == quote) {
			i++;
			if (text[i] && !is_blank(text[i]))
				return value_refuse(err, err_size, "character %zu: text right after a closing quote; put the whole word in quotes", i + 1);
			break;
		}
		if (!c && quote)
			return value_refuse(err, err_size, "character %zu: this quote is never closed; close it with %c", begin + 1, quote);
		if (!c || (!quote && is_blank(c)))
			break;
		if (!quote && (c == '"' || c == '\''))
			return value_refuse(err, err_size, "character %zu: quote inside a word; put the whole word in quotes or write \\%c", i + 1, c);
		if (c == '\\') {
			size_t len = escape(text + i + 1, &c);

			if (!len)
				return value_refuse(err, err_size, "character %zu: unknown escape; use \\n \\t \\\\ \\\" \\' or \\xHH (not \\x00)", i + 1);
			i += len;
		}
		if (n + 1 >= buf_size)
			return value_refuse(err, err_size, "character %zu: this word is longer than %zu bytes; shorten it", begin + 1, buf_size - 1);
		buf[n++] = c;
	}
	buf[n] = '\0';
	*pos = i;
	return UNQUOTE_WORD;
}
