/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest agent's protocol by tables: getting in step over what others have left behind, deadlines, and a guest that means no good. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "qmp/guest_agent.h"
#include "tests/tap.h"

#define SYNC_MS 1000

struct record {
	struct guest_agent *g;
	char log[1024];
	size_t len;
	bool execute_in_callback, drop_in_callback;
};

__attribute__((format(printf, 2, 3))) static void note(struct record *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(r->log + r->len, sizeof(r->log) - r->len, fmt, ap);
	va_end(ap);
	r->len = MIN(r->len + (size_t)n, sizeof(r->log) - 1);
}

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct record *r = user;

	note(r, "reply %s\n", error ? error : json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (r->execute_in_callback)
		note(r, "again %d\n", guest_agent_execute(r->g, 0, "guest-ping", NULL, 100, on_reply, r));
	if (r->drop_in_callback)
		guest_agent_drop(r->g);
}

static void on_ready(void *user) { note(user, "ready\n"); }
static void on_closed(void *user, const char *reason) { note(user, "closed %s\n", reason); }
static const struct guest_agent_callbacks callbacks = { on_ready, on_closed };

/* What it has said, and forgets of it; the id of the sync in it. */
static unsigned take_sync(struct record *r)
{
	const char *out, *p;
	char text[256] = "";
	size_t n = guest_agent_output(r->g, &out);
	unsigned id = 0;

	memcpy(text, out, MIN(n, sizeof(text) - 1));
	TAP_OK(n > 0 && text[0] == '\xff' && text[n - 1] == '\n', "a sync begins with 0xFF and ends its line");
	p = strstr(text, "\"id\":");
	TAP_OK(strstr(text, "guest-sync-delimited") && p && sscanf(p, "\"id\":%u", &id) == 1, "and has an id");
	guest_agent_sent(r->g, n);
	return id;
}

static void feed(struct record *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void feed(struct record *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	guest_agent_feed(r->g, text, (size_t)n);
}

static unsigned begin(struct record *r)
{
	*r = (struct record){ 0 };
	CHECK(guest_agent_new(&callbacks, r, 0, SYNC_MS, 4711, &r->g) == 0);
	return take_sync(r);
}

static void begin_ready(struct record *r)
{
	unsigned id = begin(r);

	feed(r, "\xff{\"return\": %u}\n", id);
	r->log[r->len = 0] = '\0';
}

static void test_sync(void)
{
	static const struct {
		const char *what, *before;
		bool whole; /* nothing but the answer follows */
	} table[] = {
		{ "at once", "", true },
		{ "after half an answer to somebody else", "turn\": {}}\n", true },
		{ "after a whole answer", "{\"return\": {}}\n", true },
		{ "after an answer to another's sync", "\xff{\"return\": 5}\n", true },
		{ "after a wrong line behind a delimiter", "\xff{}\n", true },
		{ "after an error that complains of our 0xFF", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n", true },
		{ "after no JSON behind a delimiter", "\xff}{\n", true },
		{ "after two delimiters", "\xff\xff", true },
		{ "after a delimiter in the middle of a line", "\xff{\"return\": \xff", true },
	};
	struct record r;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		unsigned id = begin(&r);

		guest_agent_feed(r.g, table[i].before, strlen(table[i].before));
		TAP_STR(r.log, "", "not in step yet");
		feed(&r, "\xff{\"return\": %u}\n", id);
		TAP_STR(r.log, "ready\n", table[i].what);
		guest_agent_free(r.g);
	}
	for (int i = 0; i < 3; i++) {
		unsigned id = begin(&r);

		if (i == 0)
			feed(&r, "{\"return\": %u}\n", id);
		else if (i == 1)
			feed(&r, "\xff{\"return\": %u}\n", id + 1);
		else
			feed(&r, "\xff{\"return\": \"%u\"}\n", id);
		TAP_STR(r.log, "", i == 0 ? "its id without a delimiter is nothing" : i == 1 ? "nor is another id" : "nor a string");
		TAP_OK(guest_agent_execute(r.g, 0, "guest-ping", NULL, 10, on_reply, &r) == -ENOTCONN, "no command is taken out of step");
		guest_agent_tick(r.g, SYNC_MS - 1);
		TAP_STR(r.log, "", "it has its time");
		guest_agent_tick(r.g, SYNC_MS);
		guest_agent_tick(r.g, SYNC_MS + 1);
		TAP_STR(r.log, "closed timeout: the guest's agent does not answer\n", "and no more, told once");
		guest_agent_free(r.g);
	}
}

static void test_commands(void)
{
	json_object *args = json_object_new_object();
	struct record r;
	const char *out;
	size_t n;
	unsigned id;

	begin_ready(&r);
	CHECK(json_object_object_add(args, "pid", json_object_new_int(7)) == 0);
	TAP_OK(guest_agent_execute(r.g, 50, "guest-exec-status", args, 100, on_reply, &r) == 0, "a command is taken");
	n = guest_agent_output(r.g, &out);
	TAP_OK(n == 54 && memcmp(out, "{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":7}}\n", n) == 0, "sent in one line (%zu)", n);
	guest_agent_sent(r.g, n);
	TAP_OK(guest_agent_execute(r.g, 50, "guest-ping", NULL, 100, on_reply, &r) == -EBUSY && guest_agent_deadline(r.g) == 150, "one at a time");
	feed(&r, "{\"return\": {\"exited\": true}}\n{\"return\": {\"stray\": 1}}\n");
	TAP_STR(r.log, "reply {\"exited\":true}\n", "answered; what nobody asked for is dropped");
	TAP_OK(guest_agent_deadline(r.g) == QMP_NO_DEADLINE, "no deadline is left");
	r.log[r.len = 0] = '\0';
	(void)guest_agent_execute(r.g, 200, "guest-ping", NULL, 100, on_reply, &r);
	feed(&r, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command guest-ping has not been found\"}}\n");
	TAP_STR(r.log, "reply The command guest-ping has not been found\n", "an error");
	n = guest_agent_output(r.g, &out);
	guest_agent_sent(r.g, n);
	r.log[r.len = 0] = '\0';

	(void)guest_agent_execute(r.g, 300, "guest-ping", NULL, 100, on_reply, &r);
	guest_agent_sent(r.g, guest_agent_output(r.g, &out));
	guest_agent_tick(r.g, 400);
	TAP_STR(r.log, "reply timeout\n", "a deadline that passes ends the command");
	id = take_sync(&r);
	feed(&r, "{\"return\": {}}\n\xff{\"return\": %u}\n", id);
	TAP_STR(r.log, "reply timeout\nready\n", "it gets in step anew, and the late answer is nobody's");
	(void)guest_agent_execute(r.g, 500, "guest-ping", NULL, 100, on_reply, &r);
	guest_agent_tick(r.g, 600);
	guest_agent_tick(r.g, 600 + SYNC_MS);
	TAP_STR(r.log, "reply timeout\nready\nreply timeout\nclosed timeout: the guest's agent does not answer\n", "silence after a sync ends it");
	guest_agent_free(r.g);
}

/* Of the newest sync among what was said. */
static unsigned last_id(const char *out, size_t n)
{
	char text[96] = "";
	const char *p;
	unsigned id = 0;

	memcpy(text, out + n - MIN(n, sizeof(text) - 1), MIN(n, sizeof(text) - 1));
	p = strstr(text, "\"id\":");
	if (p)
		(void)sscanf(p, "\"id\":%u", &id);
	return id;
}

static void test_hostile(void)
{
	size_t most = 0;
	int last = 0;
	static const struct {
		const char *what, *bytes, *log;
		size_t n;
	} table[] = {
		{ "an array", "[]\n", "reply disconnected\nclosed not a JSON object\n", 0 },
		{ "no JSON", "{hello\n", "reply disconnected\nclosed not JSON\n", 0 },
		{ "a NUL", "{\"return\": \0{}}\n", "reply disconnected\nclosed NUL byte in a line\n", 16 },
		{ "neither return nor error", "{\"event\": \"x\"}\n", "", 0 },
		{ "an error of the wrong type", "{\"error\": []}\n", "reply error without a description\n", 0 },
		{ "blank lines", "\r\n\n", "", 0 },
		{ "a delimiter on its own", "\xff", "", 0 },
	};
	struct record r;
	char *s;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		begin_ready(&r);
		(void)guest_agent_execute(r.g, 0, "guest-ping", NULL, 100, on_reply, &r);
		guest_agent_feed(r.g, table[i].bytes, table[i].n ? table[i].n : strlen(table[i].bytes));
		TAP_STR(r.log, table[i].log, table[i].what);
		guest_agent_free(r.g);
	}
	s = malloc(GUEST_AGENT_MAX_LINE + 1);
	CHECK(s);
	memset(s, 'x', GUEST_AGENT_MAX_LINE + 1);
	begin_ready(&r);
	guest_agent_feed(r.g, s, GUEST_AGENT_MAX_LINE);
	TAP_STR(r.log, "", "the longest line is waited for");
	guest_agent_feed(r.g, s, 1);
	TAP_STR(r.log, "closed line too long\n", "one byte more");
	guest_agent_free(r.g);
	begin(&r);
	feed(&r, "\xff");
	guest_agent_feed(r.g, s, GUEST_AGENT_MAX_LINE + 1);
	guest_agent_feed(r.g, s, GUEST_AGENT_MAX_LINE + 1);
	TAP_STR(r.log, "", "out of step it is passed over");
	guest_agent_free(r.g);
	free(s);

	begin_ready(&r);
	for (int i = 0; i < 5000 && !guest_agent_is_closed(r.g); i++) {
		const char *out;
		size_t n;

		last = guest_agent_execute(r.g, 0, "guest-ping", NULL, 0, on_reply, &r);
		guest_agent_tick(r.g, 0);
		n = guest_agent_output(r.g, &out);
		most = MAX(most, n);
		if (n > 0)
			feed(&r, "\xff{\"return\": %u}\n", last_id(out, n));
		if (!guest_agent_is_closed(r.g))
			r.log[r.len = 0] = '\0';
	}
	TAP_OK(most > 60000 && most <= 65536 && (last == -EBUSY || guest_agent_is_closed(r.g)),
	       "a guest that answers and never reads cannot make us keep without end what it is to read");
	guest_agent_free(r.g);
}

static void test_callbacks(void)
{
	struct record r;
	const char *out;

	begin_ready(&r);
	r.execute_in_callback = true;
	(void)guest_agent_execute(r.g, 0, "guest-ping", NULL, 100, on_reply, &r);
	feed(&r, "{\"return\": {}}\n");
	TAP_STR(r.log, "reply {}\nagain 0\n", "the next command may be given by the answer to the one before");
	r.execute_in_callback = false;
	guest_agent_close(r.g, "end of file");
	guest_agent_close(r.g, "again");
	TAP_OK(streq(r.log, "reply {}\nagain 0\nreply disconnected\nclosed end of file\n") && guest_agent_output(r.g, &out) == 0, "closed: once, the command first");
	guest_agent_free(r.g);
	begin_ready(&r);
	r.drop_in_callback = true;
	(void)guest_agent_execute(r.g, 0, "guest-ping", NULL, 100, on_reply, &r);
	feed(&r, "{\"return\": {}}\n[]\n");
	TAP_STR(r.log, "reply {}\n", "dropped in a callback: silence");
	guest_agent_free(r.g);
	guest_agent_free(NULL);
}

int main(void)
{
	test_sync();
	test_commands();
	test_hostile();
	test_callbacks();
	return tap_done();
}
