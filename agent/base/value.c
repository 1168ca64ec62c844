/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/value.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

int value_refuse(char *err, size_t err_size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err, err_size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

int value_bool(const char *s, bool *ret, char *err, size_t err_size)
{
	static const char *const yes[] = { "yes", "true", "on", "1" }, *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		if (streq(s, yes[i]) || streq(s, no[i])) {
			*ret = streq(s, yes[i]);
			return 0;
		}
	return value_refuse(err, err_size, "neither yes nor no; write yes or no");
}

/* Decimal digits with at most `decimals` digits after a point, scaled by 10^decimals. Returns the first character after it, or NULL. */
static const char *scan_number(const char *s, unsigned int decimals, uint64_t *ret)
{
	uint64_t n = 0;
	bool after_point = false;

	if (!is_digit(*s))
		return NULL;
	for (;; s++) {
		if (*s == '.' && !after_point && decimals && is_digit(s[1])) {
			after_point = true;
			continue;
		}
		if (!is_digit(*s))
			break;
		if (after_point && decimals-- == 0)
			return NULL;
		if (n > UINT64_MAX / 100000000) /* leaves room for the scale and the unit */
			return NULL;
		n = n * 10 + (uint64_t)(*s - '0');
	}
	while (decimals--)
		n *= 10;
	*ret = n;
	return s;
}

int value_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret, char *err, size_t err_size)
{
	uint64_t n;
	const char *end = scan_number(s, 0, &n);

	if (!end || *end || n < min || n > max)
		return value_refuse(err, err_size, "not a whole number from %" PRIu32 " to %" PRIu32, min, max);
	*ret = (uint32_t)n;
	return 0;
}

static uint64_t span_unit_ms(const char *s, size_t len)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "min", 60 * 1000 }, { "h", 3600 * 1000 } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strlen(units[i].name) == len && memcmp(s, units[i].name, len) == 0)
			return units[i].ms;
	return 0;
}

int value_span_ms(const char *s, uint32_t *ret, char *err, size_t err_size)
{
	uint64_t total = 0;

	for (const char *p = s; *p;) {
		uint64_t n, unit;
		const char *end = scan_number(p, 3, &n);
		size_t len;

		if (!end)
			return value_refuse(err, err_size, "not a time; write a number and ms, s, min or h, such as 5s");
		len = strspn(end, " \t");
		if (!end[len] || is_digit(end[len]))
			return value_refuse(err, err_size, "a time needs a unit, write %.*ss", (int)MIN(end - p, 12), p);
		end += len;
		len = strcspn(end, " \t.0123456789");
		unit = span_unit_ms(end, len);
		if (!unit)
			return value_refuse(err, err_size, "unknown unit of time; use ms, s, min or h");
		if (n > (uint64_t)UINT32_MAX * 1000 || n * unit / 1000 > UINT32_MAX - total)
			return value_refuse(err, err_size, "longer than 49 days; write less");
		if (n * unit % 1000)
			return value_refuse(err, err_size, "finer than a millisecond; write whole milliseconds");
		total += n * unit / 1000;
		p = end + len;
		p += strspn(p, " \t");
	}
	*ret = (uint32_t)total;
	return 0;
}

int value_size_mib(const char *s, uint32_t *ret, char *err, size_t err_size)
{
	static const char units[] = "KMGT";
	uint64_t n;
	const char *end = scan_number(s, 0, &n), *unit;
	unsigned int shift;

	if (!end)
		return value_refuse(err, err_size, "not a size; write a whole number and K, M, G or T, such as 2G");
	if (!*end)
		return value_refuse(err, err_size, "a size needs a unit, write %.*sM or %.*sG", (int)MIN(end - s, 12), s, (int)MIN(end - s, 12), s);
	unit = strchr(units, *end);
	if (!unit || end[1])
		return value_refuse(err, err_size, "unknown unit of size; use K, M, G or T");
	if (*unit == 'K') {
		if (n % 1024)
			return value_refuse(err, err_size, "not a whole number of MiB; round it to 1024K");
		n /= 1024;
		shift = 0;
	} else {
		shift = 10 * (unsigned int)(unit - units - 1);
	}
	if (n > ((uint64_t)UINT32_MAX >> shift))
		return value_refuse(err, err_size, "larger than can be counted; write less");
	*ret = (uint32_t)(n << shift);
	return 0;
}

int value_permille(const char *s, uint32_t *ret, char *err, size_t err_size)
{
	uint64_t n;
	const char *end = scan_number(s, 1, &n); /* tenths: of a permille, or of a percent, which is a permille */

	if (!end || !(streq(end, "%") || (!*end && n % 10 == 0)))
		return value_refuse(err, err_size, "not a rate; write permille such as 10, or percent such as 1%%");
	if (!*end)
		n /= 10;
	if (n > 1000)
		return value_refuse(err, err_size, "more than 100%%; write permille such as 10, or percent such as 1%%");
	*ret = (uint32_t)n;
	return 0;
}

int value_name_check(const char *s, size_t size, char *err, size_t err_size)
{
	if (!*s)
		return value_refuse(err, err_size, "the name is empty; give one");
	if (strlen(s) >= size)
		return value_refuse(err, err_size, "the name has %zu characters; use at most %zu", strlen(s), size - 1);
	if (!is_alnum(*s))
		return value_refuse(err, err_size, "a name begins with a letter or digit");
	for (const char *p = s; *p; p++)
		if (!is_alnum(*p) && !strchr("._-", *p))
			return value_refuse(err, err_size, "bad character at position %zu of the name; use letters, digits, '.', '_' and '-'",
					    (size_t)(p - s) + 1);
	return 0;
}

int value_path_check(const char *s, char *err, size_t err_size)
{
	if (*s != '/')
		return value_refuse(err, err_size, "not an absolute path; begin it with /");
	if (strlen(s) >= VALUE_PLACE_LEN)
		return value_refuse(err, err_size, "the path has %zu bytes; use at most %d", strlen(s), VALUE_PLACE_LEN - 1);
	for (const char *p = s; *p; p++) {
		size_t len;

		if (is_control(*p))
			return value_refuse(err, err_size, "control character in the path; remove it");
		if (*p != '/')
			continue;
		len = strcspn(p + 1, "/");
		if ((len == 1 && p[1] == '.') || (len == 2 && p[1] == '.' && p[2] == '.'))
			return value_refuse(err, err_size, "\".\" or \"..\" in the path; write it out");
	}
	return 0;
}

static const char *after_scheme(const char *s)
{
	if (strncmp(s, "iscsi://", 8) == 0)
		return s + 8;
	return strncmp(s, "nfs://", 6) == 0 ? s + 6 : NULL;
}

int value_place_check(const char *s, char *err, size_t err_size)
{
	const char *host = after_scheme(s);
	size_t len;

	if (*s == '/')
		return value_path_check(s, err, err_size);
	if (!host)
		return value_refuse(err, err_size, "neither a URL nor an absolute path; write iscsi://..., nfs://... or /...");
	if (strlen(s) >= VALUE_PLACE_LEN)
		return value_refuse(err, err_size, "the URL has %zu bytes; use at most %d", strlen(s), VALUE_PLACE_LEN - 1);
	for (const char *p = s; *p; p++)
		if (is_control(*p) || *p == ' ')
			return value_refuse(err, err_size, "blank or control character in the URL; remove it");
	len = strcspn(host, "/?");
	if (memchr(host, '@', len))
		return value_refuse(err, err_size, "user or password in the URL; keep them in a file that only root reads");
	if (!len || host[len] != '/' || !host[len + 1])
		return value_refuse(err, err_size, "the URL lacks a host or a path; write iscsi://IP/IQN/LUN or nfs://IP/PATH");
	return 0;
}

/* Next character of the canonical spelling, or 0 at the end; *p moves on. host_end: where the host part ends, or NULL. */
static char canonical_next(const char *s, const char **p, const char *host_end)
{
	static const char default_port[] = ":3260";
	size_t len = sizeof(default_port) - 1;

	if (host_end && *p < host_end && strncmp(s, "iscsi:", 6) == 0 && *p + len == host_end && memcmp(*p, default_port, len) == 0)
		*p += len;
	if (**p == '/' && (!host_end || *p >= host_end)) {
		*p += strspn(*p, "/");
		if (!**p)
			return '\0'; /* a slash at the end */
		return '/';
	}
	return **p ? *(*p)++ : '\0';
}

/* Where the canonical spelling ends: options of a URL say how to get to a place, not which it is. */
static const char *place_end(const char *s)
{
	return s + (after_scheme(s) ? strcspn(s, "?") : strlen(s));
}

/* Both with one address at most. */
static bool same_spelling(const char *a, const char *b)
{
	const char *pa = a, *pb = b, *ha = after_scheme(a), *hb = after_scheme(b), *ea = place_end(a), *eb = place_end(b);

	if (ha)
		ha += strcspn(ha, "/");
	if (hb)
		hb += strcspn(hb, "/");
	for (;;) {
		char ca = pa < ea ? canonical_next(a, &pa, ha) : '\0', cb = pb < eb ? canonical_next(b, &pb, hb) : '\0';

		if (ca != cb)
			return false;
		if (!ca)
			return true;
	}
}

/* s with the i-th address of its list only; false if it has no such. A path has one. */
static bool one_address(const char *s, unsigned i, char ret[VALUE_PLACE_LEN])
{
	const char *hosts = after_scheme(s), *host = hosts, *end = hosts ? hosts + strcspn(hosts, "/") : NULL;

	if (!hosts)
		return i == 0 && str_copy(ret, VALUE_PLACE_LEN, s);
	for (; i > 0; i--) {
		host += strcspn(host, ",/");
		if (host == end)
			return false;
		host++;
	}
	return snprintf(ret, VALUE_PLACE_LEN, "%.*s%.*s%s", (int)(hosts - s), s, (int)strcspn(host, ",/"), host, end) < VALUE_PLACE_LEN;
}

bool value_same_place(const char *a, const char *b)
{
	char x[VALUE_PLACE_LEN], y[VALUE_PLACE_LEN];

	for (unsigned i = 0; one_address(a, i, x); i++)
		for (unsigned j = 0; one_address(b, j, y); j++)
			if (same_spelling(x, y))
				return true;
	return false;
}

size_t value_distance(const char *a, const char *b)
{
	size_t row[VALUE_DISTANCE_MAX_LEN + 1], la = strlen(a), lb = strlen(b);

	if (la > VALUE_DISTANCE_MAX_LEN || lb > VALUE_DISTANCE_MAX_LEN)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t change = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));

			diagonal = row[j];
			row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[lb];
}
