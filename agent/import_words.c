/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One simple command of a shell: quotes, backslashes, continued lines, comments, assignments before it. What only a running shell can know
 * ($, `, globs of ~) or what is more than one command is refused with its place.
 *
 * Two texts that no shell made are understood, too: /proc/PID/cmdline (words end in NUL), and ps, which prints words without quotes: {" begins
 * no word that a shell would leave as it is, so there it is JSON up to its closing bracket. */
#include "agent/import_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/value.h"

struct reader {
	const char *source, *text;
	size_t len, pos;
	unsigned line, column;
	char *buf; /* the word being read: never longer than the text */
	size_t n;
	char *err;
	size_t err_size;
};

static int peek(const struct reader *r) { return r->pos < r->len ? (unsigned char)r->text[r->pos] : -1; }
static int peek_next(const struct reader *r) { return r->pos + 1 < r->len ? (unsigned char)r->text[r->pos + 1] : -1; }

static int take(struct reader *r)
{
	int c = peek(r);

	if (c < 0)
		return c;
	r->pos++;
	r->column++;
	if (c == '\n') {
		r->line++;
		r->column = 1;
	}
	return c;
}

static void keep(struct reader *r, int c) { r->buf[r->n++] = (char)c; }

_printf_(4, 5) static int refuse(struct reader *r, unsigned line, unsigned column, const char *fmt, ...)
{
	char reason[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	return value_refuse(r->err, r->err_size, "%s:%u:%u: %s", r->source, line, column, reason);
}

static bool is_blank(const struct reader *r)
{
	int c = peek(r);

	return c == ' ' || c == '\t' || (c == '\r' && peek_next(r) == '\n');
}

static bool is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/* $ and ` are the shell's also in double quotes; a lone $ is itself. */
static int check_expansion(struct reader *r)
{
	int c = peek(r), next = peek_next(r);

	if (c == '$' && (is_letter(next) || (next > 0 && strchr("{(0123456789'\"*@#?!$-", next))))
		return refuse(r, r->line, r->column, "$ here means something only the shell knows; write out what it stands for");
	if (c == '`')
		return refuse(r, r->line, r->column, "` runs a command in the shell; write out what it prints");
	return 0;
}

static int read_single(struct reader *r)
{
	unsigned line = r->line, column = r->column;
	int c;

	(void)take(r);
	while ((c = take(r)) != '\'') {
		if (c < 0)
			return refuse(r, line, column, "this ' is never closed; close it");
		keep(r, c);
	}
	return 0;
}

static int read_double(struct reader *r)
{
	unsigned line = r->line, column = r->column;

	(void)take(r);
	for (;;) {
		int c, err = check_expansion(r);

		/* $" is a lone $ when the quote closes this string */
		if (err < 0 && !(peek(r) == '$' && peek_next(r) == '"'))
			return err;
		c = take(r);
		if (c < 0)
			return refuse(r, line, column, "this \" is never closed; close it");
		if (c == '"')
			return 0;
		if (c == '\\') {
			int next = peek(r);

			if (next == '\n') {
				(void)take(r);
				continue;
			}
			if (next >= 0 && strchr("\\\"$`", next))
				c = take(r);
		}
		keep(r, c);
	}
}

/* JSON as ps prints it, up to the bracket that closes it. */
static int read_json(struct reader *r)
{
	unsigned line = r->line, column = r->column, depth = 0;
	bool in_string = false;
	int c;

	do {
		c = take(r);
		if (c < 0 || c == '\n')
			return refuse(r, line, column, "this { is never closed; put JSON into single quotes, or give /proc/PID/cmdline");
		keep(r, c);
		if (in_string && c == '\\' && peek(r) > 0)
			keep(r, take(r));
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '{' || c == '['))
			depth++;
		else if (!in_string && (c == '}' || c == ']'))
			depth--;
	} while (depth > 0);
	return 0;
}

static int read_plain(struct reader *r)
{
	int c = peek(r), err = check_expansion(r);

	if (err < 0)
		return err;
	if (strchr("|<>();&", c))
		return refuse(r, r->line, r->column, "%c is the shell's here; remove what it begins, or quote the word", c);
	if (c == '~' && r->n == 0)
		return refuse(r, r->line, r->column, "~ is a directory only the shell knows; write the absolute path");
	(void)take(r);
	if (c != '\\') {
		keep(r, c);
		return 0;
	}
	c = take(r);
	if (c < 0)
		return refuse(r, r->line, r->column, "the text ends in a backslash; remove it");
	if (c != '\n')
		keep(r, c);
	return 0;
}

static int add_word(struct import_words *w, const char *text, unsigned line, unsigned column, bool assigns)
{
	if (w->n == IMPORT_MAX_WORDS)
		return -E2BIG;
	w->word[w->n].text = strdup(text);
	if (!w->word[w->n].text)
		return -ENOMEM;
	w->word[w->n].line = line;
	w->word[w->n].column = column;
	w->word[w->n++].assigns = assigns;
	return 0;
}

static bool ends_word(const struct reader *r)
{
	return peek(r) < 0 || peek(r) == '\n' || is_blank(r);
}

static int read_word(struct reader *r, struct import_words *w)
{
	unsigned line = r->line, column = r->column;
	bool assigns = false, name = is_letter(peek(r));
	int err = 0;

	r->n = 0;
	if (peek(r) == '{' && peek_next(r) == '"')
		err = read_json(r);
	while (err == 0 && !ends_word(r)) {
		int c = peek(r);

		if (name && c == '=')
			assigns = true;
		name = name && !assigns && (is_letter(c) || (c >= '0' && c <= '9'));
		err = c == '\'' ? read_single(r) : c == '"' ? read_double(r) : read_plain(r);
	}
	if (err < 0)
		return err;
	r->buf[r->n] = '\0';
	err = add_word(w, r->buf, line, column, assigns);
	return err == -E2BIG ? refuse(r, line, column, "more than %d words; give one command line", IMPORT_MAX_WORDS) : err;
}

static void skip_line(struct reader *r)
{
	while (peek(r) >= 0 && peek(r) != '\n')
		(void)take(r);
}

/* An & and nothing else up to the end of the line: QEMU in the background. */
static bool ends_in_background(struct reader *r)
{
	struct reader ahead = *r;

	if (peek(r) != '&')
		return false;
	do
		(void)take(&ahead);
	while (is_blank(&ahead));
	if (peek(&ahead) >= 0 && peek(&ahead) != '\n' && peek(&ahead) != '#')
		return false;
	*r = ahead;
	return true;
}

static int split_shell(struct reader *r, struct import_words *w)
{
	bool begun = false, over = false; /* the command: its first word was there, it has ended */
	int err;

	while (peek(r) >= 0) {
		if (peek(r) == '\\' && peek_next(r) == '\n') {
			(void)take(r);
			(void)take(r);
		} else if (peek(r) == '\n') {
			/* assignments alone on their lines go on to count for what follows */
			over = over || begun;
			(void)take(r);
		} else if (is_blank(r)) {
			(void)take(r);
		} else if (peek(r) == '#') {
			skip_line(r);
		} else if (over) {
			return refuse(r, r->line, r->column, "a second command begins here; give QEMU's alone");
		} else if (ends_in_background(r)) {
			over = true;
		} else {
			err = read_word(r, w);
			if (err < 0)
				return err;
			begun = begun || !w->word[w->n - 1].assigns;
		}
	}
	return 0;
}

static int split_nul(struct reader *r, struct import_words *w)
{
	for (size_t pos = 0; pos < r->len; pos += strlen(r->text + pos) + 1) {
		int err = add_word(w, r->text + pos, 0, (unsigned)w->n + 1, false);

		if (err == -E2BIG)
			return refuse(r, 1, 1, "more than %d words; give one command line", IMPORT_MAX_WORDS);
		if (err < 0)
			return err;
	}
	return 0;
}

int import_split(const char *source, const char *text, size_t len, struct import_words *w, char *err, size_t err_size)
{
	_cleanup_free_ char *copy = malloc(len + 1), *buf = malloc(len + 1);
	struct reader r = { .source = source, .text = copy, .len = len, .line = 1, .column = 1, .buf = buf, .err = err, .err_size = err_size };

	w->n = 0;
	if (!copy || !buf)
		return -ENOMEM;
	memcpy(copy, text, len);
	copy[len] = '\0'; /* the last word of a text parted by NULs need not have its own */
	return memchr(text, '\0', len) ? split_nul(&r, w) : split_shell(&r, w);
}

void import_words_deinit(struct import_words *w)
{
	while (w->n)
		free(w->word[--w->n].text);
}

char *import_quote(const char *word)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,+@%-";
	size_t len = strlen(word), n = 0;
	bool quoted = !len || strspn(word, plain) != len;
	char quote = strchr(word, '\'') && !strchr(word, '"') ? '"' : '\'', *out = malloc(4 * len + 3);

	if (!out)
		return NULL;
	if (quoted)
		out[n++] = quote;
	for (const unsigned char *p = (const unsigned char *)word; *p; p++) {
		if (*p < 0x20 || *p >= 0x7f) {
			n += (size_t)sprintf(out + n, "\\x%02x", *p);
			continue;
		}
		if (*p == '\\' || *p == quote)
			out[n++] = '\\';
		out[n++] = (char)*p;
	}
	if (quoted)
		out[n++] = quote;
	out[n] = '\0';
	return out;
}
