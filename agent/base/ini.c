/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/ini.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/value.h"

#define INI_NAME_LEN 64
#define INI_REASON_LEN 512
#define INI_SHOWN_VALUE_LEN 60 /* a longer value is not repeated in a message */

struct ini {
	const char *source;
	const struct ini_key *keys;
	size_t n_keys;
	ini_fn fn;
	void *user;
	char *err;
	size_t err_size;

	unsigned int line, key_line;
	const char *section;        /* of the table, NULL before the first */
	int key;                    /* whose value is being read */
	bool open;                  /* key is valid; the next indented line belongs to it */
	bool more;                  /* the last line ended in a backslash */
	char value[INI_MAX_VALUE];
	size_t value_len;
};

_printf_(3, 4) static int ini_refuse(struct ini *ini, unsigned int line, const char *fmt, ...)
{
	char reason[INI_REASON_LEN + INI_NAME_LEN];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	return value_refuse(ini->err, ini->err_size, "%s:%u: %s", ini->source, line, reason);
}

/* Length of the valid UTF-8 sequence at s (RFC 3629: no overlong forms, surrogates or values above 10FFFF), 0 if there is none. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
	uint32_t c;

	if (len < 2)
		return len;
	if (len > n)
		return 0;
	c = s[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

static int check_characters(struct ini *ini, const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		const unsigned char *p = (const unsigned char *)s + i;
		size_t len = utf8_len(p, n - i);

		if (!len)
			return ini_refuse(ini, ini->line, "column %zu is not UTF-8; save the file as UTF-8", i + 1);
		if (*p == '\r')
			return ini_refuse(ini, ini->line, "carriage return at column %zu; save the file with UNIX line ends", i + 1);
		if (len == 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
			return ini_refuse(ini, ini->line, "byte order mark at column %zu; save the file without it", i + 1);
		if ((*p < 0x20 && *p != '\t') || *p == 0x7f || (len == 2 && *p == 0xc2 && p[1] < 0xa0))
			return ini_refuse(ini, ini->line, "control character at column %zu; remove it", i + 1);
		i += len;
	}
	return 0;
}

/* What belongs after "[", as a section of the table; NULL if it is none, then *nearest is the one to suggest. */
static const char *find_section(const struct ini *ini, const char *name, const char **nearest)
{
	size_t best = SIZE_MAX;

	*nearest = ini->keys[0].section;
	for (size_t i = 0; i < ini->n_keys; i++) {
		size_t d = value_distance(name, ini->keys[i].section);

		if (streq(name, ini->keys[i].section))
			return ini->keys[i].section;
		if (d < best) {
			best = d;
			*nearest = ini->keys[i].section;
		}
	}
	return NULL;
}

static int refuse_key(struct ini *ini, const char *key)
{
	char where[128] = "";
	const char *nearest = "";
	size_t best = SIZE_MAX, len = 0;

	for (size_t i = 0; i < ini->n_keys; i++) {
		const struct ini_key *k = &ini->keys[i];
		size_t d = value_distance(key, k->key);

		if (streq(k->key, key) && len < sizeof(where))
			len += (size_t)snprintf(where + len, sizeof(where) - len, "%s[%s]", len ? " or " : "", k->section);
		if (streq(k->section, ini->section) && d < best) {
			best = d;
			nearest = k->key;
		}
	}
	if (len)
		return ini_refuse(ini, ini->line, "%s= is no key of [%s]; it belongs to %s", key, ini->section, where);
	return ini_refuse(ini, ini->line, "unknown key %s= in [%s]; did you mean %s=?", key, ini->section, nearest);
}

/* Hands a finished value on. */
static int flush(struct ini *ini)
{
	const struct ini_key *k;
	char reason[INI_REASON_LEN] = "";
	int r;

	if (!ini->open)
		return 0;
	ini->open = false;
	k = &ini->keys[ini->key];
	ini->value[ini->value_len] = '\0';
	if (!ini->value_len && !k->list)
		return ini_refuse(ini, ini->key_line, "%s= is empty; give it a value or remove the line", k->key);
	r = ini->fn(ini->user, ini->key, ini->value, ini->key_line, reason, sizeof(reason));
	if (r != -EINVAL)
		return r;
	/* A list may be long, or hold a URL with a password: its function names the word where that is safe. */
	if (k->list || ini->value_len > INI_SHOWN_VALUE_LEN)
		return ini_refuse(ini, ini->key_line, "%s=: %s", k->key, reason);
	return ini_refuse(ini, ini->key_line, "%s=%s: %s", k->key, ini->value, reason);
}

static size_t trimmed_len(const char *s, size_t n)
{
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return n;
}

/* Adds one line's part of a value. raw_len counts blanks at the end too, n does not. */
static int append(struct ini *ini, const char *s, size_t n, size_t raw_len)
{
	size_t backslashes = 0;

	while (n && (*s == ' ' || *s == '\t')) {
		s++;
		n--;
		raw_len--;
	}
	while (backslashes < n && s[n - 1 - backslashes] == '\\')
		backslashes++;
	ini->more = backslashes % 2 == 1;
	if (ini->more) {
		if (raw_len > n)
			return ini_refuse(ini, ini->line, "blank after the backslash at the end of the line; remove it");
		n = trimmed_len(s, n - 1);
	}
	if (!n)
		return 0;
	if (ini->value_len + 1 + n >= sizeof(ini->value))
		return ini_refuse(ini, ini->line, "value longer than %zu bytes; split it over several lines with their own %s=",
				  sizeof(ini->value) - 2, ini->keys[ini->key].key);
	if (ini->value_len)
		ini->value[ini->value_len++] = ' ';
	memcpy(ini->value + ini->value_len, s, n);
	ini->value_len += n;
	return 0;
}

static int read_section(struct ini *ini, const char *s, size_t n)
{
	char name[INI_NAME_LEN], reason[INI_REASON_LEN] = "";
	const char *nearest;
	int r;

	if (n < 3 || s[n - 1] != ']' || n - 2 >= sizeof(name))
		return ini_refuse(ini, ini->line, "not a section line; write [Section] and nothing else on it");
	memcpy(name, s + 1, n - 2);
	name[n - 2] = '\0';
	ini->section = find_section(ini, name, &nearest);
	if (!ini->section)
		return ini_refuse(ini, ini->line, "unknown section [%s]; did you mean [%s]?", name, nearest);
	r = ini->fn(ini->user, INI_SECTION, ini->section, ini->line, reason, sizeof(reason));
	return r == -EINVAL ? ini_refuse(ini, ini->line, "[%s]: %s", ini->section, reason) : r;
}

static int read_key(struct ini *ini, const char *s, size_t n, size_t raw_len)
{
	const char *equals = memchr(s, '=', n);
	char key[INI_NAME_LEN];
	size_t key_len = equals ? trimmed_len(s, (size_t)(equals - s)) : 0, skip;

	if (!equals)
		return ini_refuse(ini, ini->line, "no '=' in this line; write Key=value, [Section] or a comment that begins with #");
	if (!key_len || key_len >= sizeof(key))
		return ini_refuse(ini, ini->line, "no key before '='; write Key=value");
	memcpy(key, s, key_len);
	key[key_len] = '\0';
	if (!ini->section)
		return ini_refuse(ini, ini->line, "%s= stands before any section; put [%s] or another section above it", key,
				  ini->keys[0].section);
	for (size_t i = 0; i < ini->n_keys; i++) {
		if (!streq(ini->keys[i].section, ini->section) || !streq(ini->keys[i].key, key))
			continue;
		ini->key = (int)i;
		ini->key_line = ini->line;
		ini->open = true;
		ini->value_len = 0;
		skip = (size_t)(equals - s) + 1;
		return append(ini, equals + 1, n - skip, raw_len - skip);
	}
	return refuse_key(ini, key);
}

static int read_line(struct ini *ini, const char *s, size_t raw_len)
{
	size_t n = trimmed_len(s, raw_len), indent = 0;
	int r = check_characters(ini, s, raw_len);

	if (r < 0)
		return r;
	while (indent < n && (s[indent] == ' ' || s[indent] == '\t'))
		indent++;
	if (indent < n && (s[indent] == '#' || s[indent] == ';'))
		return 0;
	if (ini->more)
		return append(ini, s, n, raw_len);
	if (indent && n) {
		if (!ini->open)
			return ini_refuse(ini, ini->line, "an indented line continues the value above, and there is none; begin it at column 1");
		return append(ini, s, n, raw_len);
	}
	r = flush(ini);
	if (r < 0 || !n)
		return r;
	return *s == '[' ? read_section(ini, s, n) : read_key(ini, s, n, raw_len);
}

int ini_parse(const char *source, const char *text, size_t len, const struct ini_key *keys, size_t n_keys, ini_fn fn, void *user,
	      char *err, size_t err_size)
{
	struct ini ini = { .source = source, .keys = keys, .n_keys = n_keys, .fn = fn, .user = user, .err = err, .err_size = err_size };

	if (len > INI_MAX_TEXT)
		return value_refuse(err, err_size, "%s: %zu bytes; use at most %d", source, len, INI_MAX_TEXT);
	for (size_t pos = 0; pos < len;) {
		const char *end = memchr(text + pos, '\n', len - pos);
		size_t n = end ? (size_t)(end - (text + pos)) : len - pos;
		int r;

		ini.line++;
		r = read_line(&ini, text + pos, n);
		if (r < 0)
			return r;
		pos += n + 1;
	}
	if (ini.more)
		return ini_refuse(&ini, ini.line, "the file ends in a continued line; remove the backslash");
	return flush(&ini);
}
