/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tables of qmp/meaning.c and those of man/kvm-ha-qmp.7 say the same: every row of the one is a row of the other, and no more. */
#include <stdio.h>

#include "qmp/meaning.h"
#include "tests/data_files.h"
#include "tests/tap.h"

struct reader {
	char *at;
	char section[64];
};

/* A line of the page without its NUL-terminated end, \\- read as -. */
static bool next_line(struct reader *r, char *ret, size_t size)
{
	size_t n = 0;

	if (!*r->at)
		return false;
	while (*r->at && *r->at != '\n') {
		if (r->at[0] == '\\' && r->at[1] == '-')
			r->at++;
		if (n + 1 < size)
			ret[n++] = *r->at;
		r->at++;
	}
	ret[n] = '\0';
	if (*r->at)
		r->at++;
	return true;
}

static void lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
}

static void take_section(struct reader *r, const char *line)
{
	size_t n = 0;

	for (line += 4; *line; line++)
		if (*line != '"' && n + 1 < sizeof(r->section))
			r->section[n++] = *line;
	r->section[n] = '\0';
	lower(r->section);
}

static bool is_table(const char *section) { return streq(section, "run states") || streq(section, "events") || streq(section, "shutdown"); }

/* The next .TP of a table: word, meaning, text. */
static bool next_row(struct reader *r, char word[128], char means[128], char text[512])
{
	char line[512];

	while (next_line(r, line, sizeof(line))) {
		if (strncmp(line, ".SH ", 4) == 0)
			take_section(r, line);
		if (!streq(line, ".TP") || !is_table(r->section))
			continue;
		if (!next_line(r, line, sizeof(line)) || strncmp(line, ".B ", 3) != 0 || !str_copy(word, 128, line + 3) ||
		    !next_line(r, line, sizeof(line)) || strncmp(line, ".I ", 3) != 0 || !str_copy(means, 128, line + 3) ||
		    !next_line(r, line, sizeof(line)) || !str_copy(text, 512, line)) {
			TAP_OK(false, "a row of the page is .B WORD, .I MEANING, one line of text: %s", line);
			return false;
		}
		return true;
	}
	return false;
}

struct page_row {
	char section[64], word[128], means[128], text[512];
	bool seen;
};

int main(void)
{
	static struct page_row rows[128];
	struct qmp_meaning row;
	struct reader r = { 0 };
	size_t len, n = 0, n_page = 0;
	char *page = data_read("man/kvm-ha-qmp.7", &len);

	r.at = page;
	while (n_page < ARRAY_SIZE(rows) && next_row(&r, rows[n_page].word, rows[n_page].means, rows[n_page].text))
		(void)str_copy(rows[n_page++].section, sizeof(r.section), r.section);
	for (; qmp_meaning_row(n, &row); n++) {
		struct page_row *p = NULL;

		for (size_t i = 0; i < n_page && !p; i++)
			if (!rows[i].seen && streq(rows[i].section, row.table) && streq(rows[i].word, row.word))
				p = &rows[i];
		TAP_OK(p, "%s: the page has %s", row.table, row.word);
		if (!p)
			continue;
		p->seen = true;
		TAP_STR(p->means, row.means, row.word);
		TAP_STR(p->text, row.text ? row.text : "", row.word);
		TAP_OK(strlen(p->text) > 10, "%s: it says something", row.word);
	}
	for (size_t i = 0; i < n_page; i++)
		if (!rows[i].seen)
			TAP_OK(false, "%s: %s of the page is in the code", rows[i].section, rows[i].word);
	TAP_OK(n > 40 && n == n_page, "%zu rows in the code, %zu in the page", n, n_page);
	free(page);
	return tap_done();
}
