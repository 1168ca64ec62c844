/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "agent/base/ini.h"
#include "agent/base/unquote.h"
#include "agent/base/value.h"
#include "tests/tap.h"

static const struct ini_key keys[] = { { "A", "One", false }, { "A", "List", true }, { "B", "Two", false } };

struct trace {
	char text[1024];
	size_t len;
};

static int record(void *user, int key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct trace *t = user;

	t->len += (size_t)snprintf(t->text + t->len, sizeof(t->text) - t->len, "%u:%s=%s|", line, key < 0 ? "section" : keys[key].key, value);
	if (streq(value, "refuse"))
		return value_refuse(err, err_size, "told to");
	return streq(value, "memory") ? -ENOMEM : 0;
}

#define TEXT(s) s, sizeof(s) - 1
/* want: the calls; or, where the text is refused, the message */
static const struct {
	const char *text;
	size_t len;
	int r;
	const char *want;
} texts[] = {
	{ TEXT(""), 0, "" },
	{ TEXT("# only\n\n; comments\n"), 0, "" },
	{ TEXT("[A]\nOne=1\nOne = 2 \nList=\n[B]\nTwo=x=y"), 0, "1:section=A|2:One=1|3:One=2|4:List=|5:section=B|6:Two=x=y|" },
	{ TEXT("[A]\nList=a \\\n  b\\\n# no\nc\nOne=1\n"), 0, "1:section=A|2:List=a b c|6:One=1|" },
	{ TEXT("[A]\nList=\n  a\n\tb\n  # no\n c\n"), 0, "1:section=A|2:List=a b c|" },
	{ TEXT("[A]\nList=a\\\\\nOne=1\n"), 0, "1:section=A|2:List=a\\\\|3:One=1|" },
	{ TEXT("[A]\nList=a \\\n\nOne=1\n"), 0, "1:section=A|2:List=a|4:One=1|" },
	{ TEXT("[A]\nOne=\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\n"), 0, "1:section=A|2:One=\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80|" },
	{ TEXT("[A]\nOne=memory\n"), -ENOMEM, "" },
	{ TEXT("[A]\n\nOne=refuse\n"), -EINVAL, "f:3: One=refuse: told to" },
	{ TEXT("[A]\nOne=1\n\n  x\n"), -EINVAL, "f:4: an indented line continues the value above, and there is none; begin it at column 1" },
	{ TEXT("[A\n"), -EINVAL, "f:1: not a section line; write [Section] and nothing else on it" },
	{ TEXT("[A] x\n"), -EINVAL, "f:1: not a section line; write [Section] and nothing else on it" },
	{ TEXT("[a]\n"), -EINVAL, "f:1: unknown section [a]; did you mean [A]?" },
	{ TEXT("[A]\n=1\n"), -EINVAL, "f:2: no key before '='; write Key=value" },
	{ TEXT("[A]\none=1\n"), -EINVAL, "f:2: unknown key one= in [A]; did you mean One=?" },
	{ TEXT("[A]\nTwo=1\n"), -EINVAL, "f:2: Two= is no key of [A]; it belongs to [B]" },
	{ TEXT("[A]\nOne=\n[B]\n"), -EINVAL, "f:2: One= is empty; give it a value or remove the line" },
	{ TEXT("\xef\xbb\xbf[A]\n"), -EINVAL, "f:1: byte order mark at column 1; save the file without it" },
	{ TEXT("# \xc0\x80\n"), -EINVAL, "f:1: column 3 is not UTF-8; save the file as UTF-8" },
	{ TEXT("# \xed\xa0\x80\n"), -EINVAL, "f:1: column 3 is not UTF-8; save the file as UTF-8" },
	{ TEXT("# \xf4\x90\x80\x80\n"), -EINVAL, "f:1: column 3 is not UTF-8; save the file as UTF-8" },
	{ TEXT("# \xe2\x82"), -EINVAL, "f:1: column 3 is not UTF-8; save the file as UTF-8" },
	{ TEXT("# \xc2\x85\n"), -EINVAL, "f:1: control character at column 3; remove it" },
	{ TEXT("# \x1b[31m\n"), -EINVAL, "f:1: control character at column 3; remove it" },
	{ TEXT("# \0\n"), -EINVAL, "f:1: control character at column 3; remove it" },
};

static void check_texts(void)
{
	static char big[INI_MAX_TEXT + 1];
	struct trace t;
	char err[256];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		int r;

		memset(&t, 0, sizeof(t));
		err[0] = '\0';
		r = ini_parse("f", texts[i].text, texts[i].len, keys, ARRAY_SIZE(keys), record, &t, err, sizeof(err));
		TAP_OK(r == texts[i].r, "text %zu returns %d", i, texts[i].r);
		TAP_STR(r == 0 ? t.text : err, texts[i].want, "text: calls or message");
	}
	memset(big, '\n', sizeof(big));
	TAP_OK(ini_parse("f", big, INI_MAX_TEXT, keys, ARRAY_SIZE(keys), record, &t, err, sizeof(err)) == 0, "the longest text");
	TAP_OK(ini_parse("f", big, sizeof(big), keys, ARRAY_SIZE(keys), record, &t, err, sizeof(err)) == -EINVAL, "one byte more");
	memset(big, 'x', sizeof(big));
	memcpy(big, "[A]\nOne=", 8);
	TAP_OK(ini_parse("f", big, sizeof(big) - 1, keys, ARRAY_SIZE(keys), record, &t, err, sizeof(err)) == -EINVAL, "a value too long");
}

/* want: the words, each with a bar; or the message */
static const struct {
	const char *text;
	const char *want;
	bool bad;
} words[] = {
	{ "", "", false },
	{ " \t ", "", false },
	{ "a  b\tc ", "a|b|c|", false },
	{ "\"a b\" 'c \"d\"' \"\"", "a b|c \"d\"||", false },
	{ "\\x41\\n\\t\\\\\\\"\\' 'a\\'b'", "A\n\t\\\"'|a'b|", false },
	{ "$HOME %n *", "$HOME|%n|*|", false },
	{ "a\"b\"", "character 2: quote inside a word; put the whole word in quotes or write \\\"", true },
	{ "x 'a'b", "character 6: text right after a closing quote; put the whole word in quotes", true },
	{ "x 'a", "character 3: this quote is never closed; close it with '", true },
	{ "a\\", "character 2: unknown escape; use \\n \\t \\\\ \\\" \\' or \\xHH (not \\x00)", true },
	{ "\\x0", "character 1: unknown escape; use \\n \\t \\\\ \\\" \\' or \\xHH (not \\x00)", true },
	{ "\\x00", "character 1: unknown escape; use \\n \\t \\\\ \\\" \\' or \\xHH (not \\x00)", true },
	{ "ok 01234567890123456789", "character 4: this word is longer than 15 bytes; shorten it", true },
};

static void check_words(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		char got[256] = "", word[16], err[160];
		size_t pos = 0, len = 0;
		int r;

		while ((r = unquote_next(words[i].text, &pos, word, sizeof(word), err, sizeof(err))) == UNQUOTE_WORD)
			len += (size_t)snprintf(got + len, sizeof(got) - len, "%s|", word);
		TAP_OK((r < 0) == words[i].bad, "words of <%s>", words[i].text);
		TAP_STR(r < 0 ? err : got, words[i].want, "words or message");
	}
}

static const struct {
	const char *text;
	int64_t want; /* -1: refused */
} spans[] = {
	{ "5s", 5000 }, { "250ms", 250 }, { "1min 30s", 90000 }, { "1min30s", 90000 }, { "2 h", 7200000 }, { "1.5s", 1500 }, { "0s", 0 },
	{ "0.001s", 1 }, { "4294967295ms", UINT32_MAX }, { "4294967296ms", -1 }, { "5", -1 }, { "5 6s", -1 }, { "s", -1 }, { "-5s", -1 },
	{ "0.5ms", -1 }, { "1.s", -1 }, { "5us", -1 }, { "5S", -1 }, { "99999999999999999999s", -1 }, { "1.2.3s", -1 }, { "1.2345s", -1 },
	{ "4294967295ms 1ms", -1 },
}, sizes[] = {
	{ "1M", 1 }, { "2G", 2048 }, { "64T", 67108864 }, { "1024K", 1 }, { "1025K", -1 }, { "2048", -1 }, { "2g", -1 }, { "2GB", -1 },
	{ "1.5G", -1 }, { "0M", 0 }, { "4096T", -1 }, { "4095T", 4293918720 }, { "", -1 }, { "-1G", -1 },
}, rates[] = { { "10", 10 }, { "1%", 10 }, { "1.5%", 15 }, { "1.55%", -1 }, { "1.5", -1 }, { "x", -1 }, { "101%", -1 }, { "1000", 1000 } };

static void check_values(void)
{
	char err[160];
	uint32_t n;
	bool b;

	for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
		TAP_OK((value_span_ms(spans[i].text, &n, err, sizeof(err)) ? -1 : (int64_t)n) == spans[i].want, "time %s", spans[i].text);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		TAP_OK((value_size_mib(sizes[i].text, &n, err, sizeof(err)) ? -1 : (int64_t)n) == sizes[i].want, "size %s", sizes[i].text);
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++)
		TAP_OK((value_permille(rates[i].text, &n, err, sizeof(err)) ? -1 : (int64_t)n) == rates[i].want, "rate %s", rates[i].text);
	TAP_OK(value_bool("on", &b, err, sizeof(err)) == 0 && b && value_bool("false", &b, err, sizeof(err)) == 0 && !b, "booleans");
	TAP_OK(value_bool("Yes", &b, err, sizeof(err)) == -EINVAL && value_bool("", &b, err, sizeof(err)) == -EINVAL, "no booleans");
	TAP_OK(value_distance("kitten", "sitting") == 3 && value_distance("IO", "io") == 0 && value_distance("", "abc") == 3, "distance");
	TAP_OK(value_same_place("/a//b", "/a/b/") && !value_same_place("/a/b", "/a/bc"), "paths: same place");
	TAP_OK(value_same_place("iscsi://h:3260/i/1", "iscsi://h/i/1") && !value_same_place("iscsi://h:3261/i/1", "iscsi://h/i/1"), "iSCSI port");
	TAP_OK(value_same_place("iscsi://a,b:3260/i/1", "iscsi://c,b/i/1") && value_same_place("nfs://b/x", "nfs://a,b/x"), "an address in common: same place");
	TAP_OK(!value_same_place("iscsi://a,b/i/1", "iscsi://c,d/i/1") && !value_same_place("iscsi://a,b/i/1", "iscsi://a,b/i/2"), "none, or another LUN: other place");
	TAP_OK(value_same_place("iscsi://h/i/1?header-digest=crc32c", "iscsi://h/i/1") && !value_same_place("/a?b", "/a"), "options of a URL");
	TAP_OK(!value_same_place("nfs://h:3260/a", "nfs://h/a") && !value_same_place("iscsi://h/i/1", "iscsi://h/i/2"), "URLs: other place");
}

int main(void)
{
	check_texts();
	check_words();
	check_values();
	return tap_done();
}
