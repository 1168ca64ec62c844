/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP state machine and what its words mean, by tables: no socket, time is passed in. */
#include <errno.h>
#include <limits.h>

#include "qmp/meaning.h"
#include "qmp/migrate.h"
#include "qmp/qmp_proto.h"
#include "tests/tap.h"

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define CAPS_OK "{\"return\": {}, \"id\": 1}\r\n"
#define STATUS_OK "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}, \"id\": 2}\r\n"
#define HANDSHAKE GREETING CAPS_OK STATUS_OK
#define HANDSHAKE_MS 1000

/* Everything that comes out is written down here, a line each. */
struct record {
	struct qmp *q;
	char log[8192];
	size_t len;
	int closed;
	bool execute_in_callback, drop_in_callback;
	int execute_result;
};

static void note(struct record *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(struct record *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(r->log + r->len, sizeof(r->log) - r->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		r->len = MIN(r->len + (size_t)n, sizeof(r->log) - 1);
}

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct record *r = user;

	note(r, "reply %s\n", error ? error : json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (r->execute_in_callback)
		r->execute_result = qmp_execute(r->q, 0, "again", NULL, 0, on_reply, r);
	if (r->drop_in_callback)
		qmp_drop(r->q);
}

static void on_ready(void *user, enum qmp_run_state state, const char *version)
{
	note(user, "ready %s %s\n", qmp_run_state_name(state), version);
}

static void on_event(void *user, const struct qmp_event *ev)
{
	note(user, "event %s %d guest=%d reason=%s nospace=%d data=%d\n", ev->name, (int)ev->kind, ev->guest, ev->reason, ev->nospace,
	     ev->data != NULL);
}

static void on_closed(void *user, const char *reason)
{
	struct record *r = user;

	r->closed++;
	note(r, "closed %s\n", reason);
}

static const struct qmp_callbacks callbacks = { on_ready, on_event, on_closed };

static void begin(struct record *r)
{
	*r = (struct record){ 0 };
	CHECK(qmp_new(&callbacks, r, 0, HANDSHAKE_MS, &r->q) == 0);
}

static void feed(struct record *r, const char *s)
{
	qmp_feed(r->q, s, strlen(s));
}

static void begin_ready(struct record *r)
{
	const char *out;

	begin(r);
	feed(r, HANDSHAKE);
	qmp_sent(r->q, qmp_output(r->q, &out));
	r->len = 0;
	r->log[0] = '\0';
}

static bool output_is(const struct qmp *q, const char *want)
{
	const char *out;
	size_t n = qmp_output(q, &out);

	return n == strlen(want) && (n == 0 || memcmp(out, want, n) == 0);
}

static void test_handshake(void)
{
	struct record r;
	const char *out;

	begin(&r);
	TAP_OK(output_is(r.q, "") && qmp_execute(r.q, 0, "stop", NULL, 10, on_reply, &r) == -ENOTCONN, "nothing is sent before the greeting");
	feed(&r, GREETING);
	TAP_OK(output_is(r.q, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":1}\n"),
	       "the greeting is answered with qmp_capabilities, which takes what is offered");
	qmp_sent(r.q, 5);
	TAP_OK(output_is(r.q, "cute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":1}\n"), "a part was sent: the rest remains");
	qmp_sent(r.q, qmp_output(r.q, &out));
	feed(&r, CAPS_OK);
	TAP_OK(output_is(r.q, "{\"execute\":\"query-status\",\"id\":2}\n") && r.len == 0, "then query-status; not ready yet");
	feed(&r, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n");
	feed(&r, STATUS_OK);
	TAP_STR(r.log, "event SHUTDOWN 1 guest=1 reason=guest-shutdown nospace=0 data=1\nready running 7.2.3\n",
		"an event before ready is not lost");
	TAP_OK(qmp_deadline(r.q) == QMP_NO_DEADLINE, "no deadline is left after the handshake");
	qmp_free(r.q);
}

/* One conversation, fed whole, byte by byte, and cut in two at every position: always the same result. */
static void test_every_split(void)
{
	static const char bytes[] = HANDSHAKE
		"{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n"
		"\r\n"
		"{\"timestamp\": {}, \"event\": \"BLOCK_IO_ERROR\", \"data\": {\"nospace\": true, \"reason\": \"No \\u0073pace \\\"\\n\"}}\n"
		"{\"event\": \"NOT_YET_INVENTED\", \"data\": [1]}\r\n"
		"{\"event\": \"RESET\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}  \r\n";
	static const char want[] = "ready running 7.2.3\n"
		"event STOP 4 guest=0 reason= nospace=0 data=0\n"
		"event BLOCK_IO_ERROR 6 guest=0 reason=No space \"\n nospace=1 data=1\n"
		"event NOT_YET_INVENTED 0 guest=0 reason= nospace=0 data=0\n"
		"event RESET 3 guest=1 reason=guest-reset nospace=0 data=1\n";
	size_t n = sizeof(bytes) - 1, wrong = 0;
	struct record r;

	for (size_t cut = 0; cut <= n; cut++) {
		begin(&r);
		qmp_feed(r.q, bytes, cut);
		qmp_feed(r.q, bytes + cut, n - cut);
		wrong += strcmp(r.log, want) != 0;
		qmp_free(r.q);
	}
	TAP_OK(wrong == 0, "cut in two at each of %zu positions: same result (%zu differ)", n + 1, wrong);
	begin(&r);
	for (size_t i = 0; i < n; i++)
		qmp_feed(r.q, bytes + i, 1);
	TAP_STR(r.log, want, "fed byte by byte");
	qmp_free(r.q);
}

static void test_hostile(void)
{
	static const struct {
		const char *what, *bytes, *log;
		size_t n; /* 0: strlen */
		bool before_greeting;
	} table[] = {
		{ "an array", "[]\n", "closed not a JSON object\n", 0, false },
		{ "a number", "17\n", "closed not a JSON object\n", 0, false },
		{ "null", "null\n", "closed not a JSON object\n", 0, false },
		{ "no JSON", "hello\n", "closed not a JSON object\n", 0, false },
		{ "half an object", "{\"event\": \"STOP\"\n", "closed not JSON\n", 0, false },
		{ "an object and more", "{\"event\": \"STOP\"} {}\n", "closed not JSON\n", 0, false },
		{ "a trailing comma", "{\"event\": \"STOP\",}\n", "closed not JSON\n", 0, false },
		{ "single quotes", "{'event': 'STOP'}\n", "closed not JSON\n", 0, false },
		{ "bad UTF-8", "{\"event\": \"\xff\xfe\"}\n", "closed not JSON\n", 0, false },
		{ "a NUL byte within", "{\"event\": \0\"STOP\"}\n", "closed NUL byte in a line\n", 19, false },
		{ "a NUL byte after", "{\"event\": \"STOP\"}\0\n", "closed NUL byte in a line\n", 19, false },
		{ "a NUL byte alone", "\0\n", "closed NUL byte in a line\n", 2, false },
		{ "an escaped NUL in an event's name", "{\"event\": \"STOP\\u0000\"}\n", "", 0, false },
		{ "an event that is no string", "{\"event\": {\"a\": 1}}\n", "", 0, false },
		{ "data that is no object", "{\"event\": \"STOP\", \"data\": \"x\"}\n",
		  "event STOP 4 guest=0 reason= nospace=0 data=0\n", 0, false },
		{ "data of the wrong types", "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": 1, \"reason\": true}}\n",
		  "event SHUTDOWN 1 guest=0 reason= nospace=0 data=1\n", 0, false },
		{ "a duplicate key: the last one wins", "{\"event\": \"RESUME\", \"event\": \"STOP\"}\n",
		  "event STOP 4 guest=0 reason= nospace=0 data=0\n", 0, false },
		{ "an integer that overflows", "{\"event\": \"STOP\", \"data\": {\"x\": 99999999999999999999999999}}\n",
		  "event STOP 4 guest=0 reason= nospace=0 data=1\n", 0, false },
		{ "nothing known", "{\"what\": 1}\n", "", 0, false },
		{ "empty object", "{}\n", "", 0, false },
		{ "empty line", "\r\n\n", "", 0, false },
		{ "an unasked reply", "{\"return\": {}, \"id\": 77}\n", "", 0, false },
		{ "an unasked error without id", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}\n", "", 0, false },
		{ "a second greeting", GREETING, "", 0, false },
		{ "an event before the greeting", "{\"event\": \"STOP\"}\n", "closed first line is not a QMP greeting\n", 0, true },
		{ "a greeting of the wrong type", "{\"QMP\": []}\n", "closed QMP greeting without a version\n", 0, true },
		{ "a greeting without version", "{\"QMP\": {}}\n", "closed QMP greeting without a version\n", 0, true },
		{ "a version that overflows", "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 99999999999999999999, \"minor\": 0, \"micro\": 0}}}}\n",
		  "closed QMP greeting without a version\n", 0, true },
		{ "a negative version", "{\"QMP\": {\"version\": {\"qemu\": {\"major\": -7, \"minor\": 0, \"micro\": 0}}}}\n",
		  "closed QMP greeting without a version\n", 0, true },
		{ "refused capabilities", GREETING "{\"error\": {\"desc\": \"no\"}, \"id\": 1}\n", "closed qmp_capabilities failed: no\n", 0, true },
		{ "query-status without status", GREETING CAPS_OK "{\"return\": [], \"id\": 2}\n",
		  "closed query-status failed: no status in the answer\n", 0, true },
		{ "an unknown run state", GREETING CAPS_OK "{\"return\": {\"status\": \"dancing\"}, \"id\": 2}\n", "ready unknown 7.2.3\n", 0, true },
	};
	struct record r;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].before_greeting)
			begin(&r);
		else
			begin_ready(&r);
		qmp_feed(r.q, table[i].bytes, table[i].n ? table[i].n : strlen(table[i].bytes));
		TAP_STR(r.log, table[i].log, table[i].what);
		qmp_free(r.q);
	}
}

/* An event whose data is n arrays, one within the other. */
static char *nested(size_t n)
{
	char *s = malloc(2 * n + 32), *p = s;

	CHECK(s);
	p = stpcpy(p, "{\"data\":");
	memset(p, '[', n);
	memset(p + n, ']', n);
	(void)stpcpy(p + 2 * n, ",\"event\":\"DEEP\"}\n");
	return s;
}

static void test_limits(void)
{
	struct record r;
	char *s;

	begin_ready(&r);
	s = nested(QMP_MAX_DEPTH - 2);
	feed(&r, s);
	free(s);
	TAP_STR(r.log, "event DEEP 0 guest=0 reason= nospace=0 data=0\n", "as deep as allowed");
	r.log[r.len = 0] = '\0';
	s = nested(QMP_MAX_DEPTH + 1);
	feed(&r, s);
	free(s);
	TAP_STR(r.log, "closed nested too deeply\n", "one too deep");
	qmp_free(r.q);

	/* The longest line: spaces between the parts cost nothing. */
	s = malloc(QMP_MAX_LINE + 2);
	CHECK(s);
	memset(s, ' ', QMP_MAX_LINE);
	memcpy(s, "{\"event\":", 9);
	memcpy(s + QMP_MAX_LINE - 7, "\"LONG\"}", 7);
	memcpy(s + QMP_MAX_LINE, "\n", 2);
	begin_ready(&r);
	feed(&r, s);
	TAP_STR(r.log, "event LONG 0 guest=0 reason= nospace=0 data=0\n", "a line of exactly QMP_MAX_LINE bytes");
	r.log[r.len = 0] = '\0';
	s[QMP_MAX_LINE] = ' ';
	qmp_feed(r.q, s, QMP_MAX_LINE);
	TAP_OK(r.closed == 0, "QMP_MAX_LINE bytes without an end are still waited for");
	qmp_feed(r.q, " ", 1);
	TAP_STR(r.log, "closed line too long\n", "one byte more");
	qmp_feed(r.q, "{\"event\":\"STOP\"}\n", 17);
	TAP_OK(r.closed == 1 && strstr(r.log, "STOP") == NULL, "what comes after the end is not looked at");
	qmp_free(r.q);

	memset(s, ',', QMP_MAX_LINE);
	s[QMP_MAX_LINE] = '\n';
	begin_ready(&r);
	feed(&r, s);
	TAP_STR(r.log, "closed too many values in a line\n", "a line that would cost too much memory");
	qmp_free(r.q);
	free(s);
}

static void test_replies(void)
{
	struct record r;
	json_object *args = json_object_new_object();
	char desc[2048];

	begin_ready(&r);
	CHECK(json_object_object_add(args, "id", json_object_new_string("a\"b\n")) == 0);
	TAP_OK(qmp_execute(r.q, 0, "device_del", args, 100, on_reply, &r) == 0 &&
	       output_is(r.q, "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"a\\\"b\\n\"},\"id\":3}\n"), "arguments are sent, in one line");
	(void)qmp_execute(r.q, 0, "b", NULL, 100, on_reply, &r);
	(void)qmp_execute(r.q, 0, "c", NULL, 100, on_reply, &r);
	(void)qmp_execute(r.q, 0, "d", NULL, 100, on_reply, &r);
	feed(&r, "{\"id\": 5, \"return\": [1]}\n{\"id\": 3, \"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device not found\"}}\n");
	feed(&r, "{\"id\": 3, \"return\": {}}\n{\"id\": \"4\", \"return\": {}}\n{\"id\": -1, \"return\": {}}\n{\"return\": {}}\n");
	feed(&r, "{\"id\": 99999999999999999999999, \"return\": {}}\n{\"id\": 4.0, \"return\": {}}\n");
	TAP_STR(r.log, "reply [1]\nreply Device not found\n", "each answer to its command; unknown, repeated and odd ids are ignored");
	r.log[r.len = 0] = '\0';
	feed(&r, "{\"error\": {\"desc\": \"JSON parse error\"}}\n{\"id\": 6, \"error\": 17, \"return\": {}}\n");
	TAP_STR(r.log, "reply JSON parse error\nreply error without a description\n", "an error without id ends the oldest; error beats return");
	r.log[r.len = 0] = '\0';
	(void)qmp_execute(r.q, 0, "e", NULL, 100, on_reply, &r);
	(void)snprintf(desc, sizeof(desc), "{\"id\": 7, \"error\": {\"desc\": \"%01500d\"}}\n", 0);
	feed(&r, desc);
	TAP_OK(r.len < 300 && r.len > 200, "a long description is cut");
	(void)qmp_execute(r.q, 0, "f", NULL, 100, on_reply, &r);
	r.log[r.len = 0] = '\0';
	feed(&r, "{\"id\": 8, \"return\": null}\n");
	TAP_STR(r.log, "reply null\n", "null is an answer");
	qmp_free(r.q);
}

static void test_full(void)
{
	struct record r;
	int n = 0;
	json_object *args = json_object_new_object();
	char *s = malloc(QMP_MAX_OUTPUT + 1);

	CHECK(s);
	begin_ready(&r);
	while (n < 100 && qmp_execute(r.q, 0, "x", NULL, 100, on_reply, &r) == 0)
		n++;
	TAP_OK(n == QMP_MAX_PENDING && qmp_execute(r.q, 0, "x", NULL, 1, on_reply, &r) == -EBUSY, "busy with QMP_MAX_PENDING outstanding");
	qmp_tick(r.q, 100);
	memset(s, 'x', QMP_MAX_OUTPUT);
	s[QMP_MAX_OUTPUT] = '\0';
	CHECK(json_object_object_add(args, "x", json_object_new_string(s)) == 0);
	TAP_OK(qmp_execute(r.q, 0, "x", args, 1, on_reply, &r) == -EBUSY && qmp_execute(r.q, 0, "x", NULL, 1, on_reply, &r) == 0,
	       "busy with QMP_MAX_OUTPUT unsent, and only for what does not fit");
	qmp_free(r.q);
	free(s);
}

static void test_deadlines(void)
{
	struct record r;

	begin(&r);
	TAP_OK(qmp_deadline(r.q) == HANDSHAKE_MS, "the handshake has a deadline");
	qmp_tick(r.q, HANDSHAKE_MS - 1);
	TAP_OK(r.closed == 0, "not before its time");
	qmp_tick(r.q, HANDSHAKE_MS);
	qmp_tick(r.q, HANDSHAKE_MS + 1);
	TAP_STR(r.log, "closed timeout: no greeting\n", "no greeting in time, told once");
	qmp_free(r.q);
	begin(&r);
	feed(&r, GREETING);
	qmp_tick(r.q, HANDSHAKE_MS);
	TAP_STR(r.log, "closed timeout: qmp_capabilities not answered\n", "a greeting alone is not enough");
	qmp_free(r.q);
	begin(&r);
	feed(&r, GREETING CAPS_OK);
	qmp_tick(r.q, HANDSHAKE_MS);
	TAP_STR(r.log, "closed timeout: query-status not answered\n", "nor are capabilities");
	qmp_free(r.q);

	begin_ready(&r);
	(void)qmp_execute(r.q, 5000, "slow", NULL, 300, on_reply, &r);
	(void)qmp_execute(r.q, 5000, "fast", NULL, 100, on_reply, &r);
	TAP_OK(qmp_deadline(r.q) == 5100, "the nearest deadline counts");
	qmp_tick(r.q, 5099);
	TAP_OK(r.len == 0, "nothing is due yet");
	qmp_tick(r.q, 5100);
	TAP_OK(streq(r.log, "reply timeout\n") && qmp_deadline(r.q) == 5300 && r.closed == 0, "a command times out, the connection stays");
	feed(&r, "{\"id\": 4, \"return\": {}}\n{\"id\": 3, \"return\": {}}\n");
	TAP_STR(r.log, "reply timeout\nreply {}\n", "its late answer is ignored, the next one's is not");
	r.execute_in_callback = true;
	(void)qmp_execute(r.q, 6000, "x", NULL, 0, on_reply, &r);
	r.log[r.len = 0] = '\0';
	qmp_tick(r.q, 6000);
	TAP_OK(streq(r.log, "reply timeout\n") && r.execute_result == 0, "a command given in a callback waits for the next tick");
	qmp_free(r.q);
}

static void test_end(void)
{
	struct record r;

	begin_ready(&r);
	r.execute_in_callback = true;
	(void)qmp_execute(r.q, 0, "a", NULL, 10, on_reply, &r);
	(void)qmp_execute(r.q, 0, "b", NULL, 10, on_reply, &r);
	qmp_close(r.q, "end of file");
	qmp_close(r.q, "again");
	qmp_tick(r.q, 1000);
	feed(&r, "{\"event\": \"STOP\"}\n");
	TAP_STR(r.log, "reply disconnected\nreply disconnected\nclosed end of file\n", "all outstanding end first, then closed, once");
	TAP_OK(r.execute_result == -ENOTCONN && output_is(r.q, ""), "no command is taken any more");
	qmp_free(r.q);

	begin_ready(&r);
	r.drop_in_callback = true;
	(void)qmp_execute(r.q, 0, "a", NULL, 10, on_reply, &r);
	(void)qmp_execute(r.q, 0, "b", NULL, 10, on_reply, &r);
	qmp_close(r.q, "end of file");
	TAP_STR(r.log, "reply disconnected\nreply disconnected\n", "dropped in a callback: what is outstanding ends, and no closed()");
	qmp_free(r.q);

	begin_ready(&r);
	r.drop_in_callback = true;
	(void)qmp_execute(r.q, 0, "a", NULL, 10, on_reply, &r);
	feed(&r, "{\"id\": 3, \"return\": {}}\n{\"event\": \"STOP\"}\n");
	qmp_tick(r.q, 1000);
	TAP_STR(r.log, "reply {}\n", "dropped in mid-feed: the rest is not looked at");
	qmp_free(r.q);
}

static void test_meaning_of_states(void)
{
	static const struct {
		const char *state;
		enum qmp_health want;
	} table[] = {
		{ "running", QMP_HEALTH_OK }, { "suspended", QMP_HEALTH_OK }, { "colo", QMP_HEALTH_OK }, { "paused", QMP_HEALTH_PAUSED },
		{ "prelaunch", QMP_HEALTH_PAUSED }, { "debug", QMP_HEALTH_PAUSED }, { "inmigrate", QMP_HEALTH_BUSY },
		{ "finish-migrate", QMP_HEALTH_BUSY }, { "save-vm", QMP_HEALTH_BUSY }, { "restore-vm", QMP_HEALTH_BUSY },
		{ "internal-error", QMP_HEALTH_ERROR }, { "io-error", QMP_HEALTH_ERROR }, { "watchdog", QMP_HEALTH_ERROR },
		{ "guest-panicked", QMP_HEALTH_ERROR }, { "shutdown", QMP_HEALTH_ENDING }, { "postmigrate", QMP_HEALTH_ENDING },
		{ "unknown", QMP_HEALTH_UNKNOWN }, { "", QMP_HEALTH_UNKNOWN }, { "Running", QMP_HEALTH_UNKNOWN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		enum qmp_run_state s = qmp_run_state_parse(table[i].state);

		TAP_OK(qmp_meaning_health(s) == table[i].want && (s == QMP_RUN_UNKNOWN || streq(qmp_run_state_name(s), table[i].state)),
		       "run state \"%s\" means %s", table[i].state, qmp_health_name(table[i].want));
	}
	TAP_OK(qmp_run_state_parse(NULL) == QMP_RUN_UNKNOWN && qmp_meaning_health((enum qmp_run_state)99) == QMP_HEALTH_UNKNOWN,
	       "nothing, and what is not in the table, is unknown");
}

static void test_meaning_of_events(void)
{
	static const struct {
		bool guest;
		const char *reason;
		enum qmp_ending want;
	} table[] = {
		{ true, "guest-shutdown", QMP_ENDING_GUEST_OFF }, { true, "guest-reset", QMP_ENDING_GUEST_RESET },
		{ true, "guest-panic", QMP_ENDING_CRASH }, { false, "host-qmp-quit", QMP_ENDING_HOST_STOP },
		{ false, "host-signal", QMP_ENDING_HOST_STOP }, { false, "host-ui", QMP_ENDING_HOST_STOP },
		{ false, "host-error", QMP_ENDING_CRASH }, { false, "host-qmp-system-reset", QMP_ENDING_GUEST_RESET },
		{ true, "subsystem-reset", QMP_ENDING_GUEST_RESET }, { true, "a-later-word", QMP_ENDING_GUEST_OFF },
		{ false, "a-later-word", QMP_ENDING_CRASH }, { true, "", QMP_ENDING_GUEST_OFF }, { false, NULL, QMP_ENDING_CRASH },
	};
	static const enum qmp_news news[] = {
		[QMP_EVENT_OTHER] = QMP_NEWS_NONE, [QMP_EVENT_SHUTDOWN] = QMP_NEWS_ENDING, [QMP_EVENT_POWERDOWN] = QMP_NEWS_NONE,
		[QMP_EVENT_RESET] = QMP_NEWS_STATE, [QMP_EVENT_STOP] = QMP_NEWS_STATE, [QMP_EVENT_RESUME] = QMP_NEWS_STATE,
		[QMP_EVENT_BLOCK_IO_ERROR] = QMP_NEWS_ERROR, [QMP_EVENT_GUEST_PANICKED] = QMP_NEWS_ERROR,
		[QMP_EVENT_WATCHDOG] = QMP_NEWS_ERROR, [QMP_EVENT_GUEST_CRASHLOADED] = QMP_NEWS_ERROR,
		[QMP_EVENT_MEMORY_FAILURE] = QMP_NEWS_ERROR, [QMP_EVENT_MIGRATION] = QMP_NEWS_STATE, [QMP_EVENT_SUSPEND] = QMP_NEWS_STATE,
		[QMP_EVENT_SUSPEND_DISK] = QMP_NEWS_NONE, [QMP_EVENT_WAKEUP] = QMP_NEWS_STATE, [QMP_EVENT_VSERPORT_CHANGE] = QMP_NEWS_NONE,
	};
	_Static_assert(ARRAY_SIZE(news) == QMP_EVENT_KIND_COUNT, "every kind has its row");

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct qmp_event ev = { .kind = QMP_EVENT_SHUTDOWN, .guest = table[i].guest, .reason = table[i].reason };

		TAP_OK(qmp_meaning_ending(&ev) == table[i].want, "SHUTDOWN %s, guest=%d: %s", table[i].reason ? table[i].reason : "(none)",
		       table[i].guest, qmp_ending_name(table[i].want));
	}
	TAP_OK(qmp_meaning_ending(NULL) == QMP_ENDING_CRASH, "an end without SHUTDOWN is a crash");
	for (size_t i = 0; i < ARRAY_SIZE(news); i++)
		TAP_OK(qmp_meaning_news((enum qmp_event_kind)i) == news[i], "news of event kind %zu", i);
}

/* Which commands go out of band, and when; how long each class may take. */
static void test_classes(void)
{
	static const struct {
		const char *command;
		uint32_t ms;
	} table[] = {
		{ "query-status", 5000 }, { "query-migrate", 10000 }, { "cont", 10000 }, { "system_reset", 10000 }, { "quit", 10000 },
		{ "device_add", 60000 }, { "query-block", 60000 }, { "migrate", 60000 }, { "yank", 10000 }, { "not-yet-invented", 10000 },
	};
	struct record r;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		begin_ready(&r);
		(void)qmp_execute(r.q, 1000, table[i].command, NULL, QMP_TIMEOUT_OF_CLASS, on_reply, &r);
		TAP_OK(qmp_deadline(r.q) == 1000 + table[i].ms && qmp_command_ms(table[i].command) == table[i].ms, "%s is given %u ms",
		       table[i].command, table[i].ms);
		qmp_free(r.q);
	}
	begin_ready(&r);
	(void)qmp_execute(r.q, 0, "stop", NULL, 100, on_reply, &r);
	(void)qmp_execute(r.q, 0, "yank", NULL, 100, on_reply, &r);
	TAP_OK(output_is(r.q, "{\"execute\":\"stop\",\"id\":3}\n{\"exec-oob\":\"yank\",\"id\":4}\n"), "what may be is sent out of band");
	feed(&r, "{\"id\": 4, \"return\": 4}\n{\"id\": 3, \"return\": 3}\n");
	TAP_STR(r.log, "reply 4\nreply 3\n", "and its answer may overtake");
	qmp_free(r.q);
	begin(&r);
	feed(&r, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 10}, \"package\": \"\"}, \"capabilities\": [7, \"later\"]}}\n");
	TAP_OK(output_is(r.q, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n"), "what is not offered is not asked for");
	feed(&r, CAPS_OK STATUS_OK);
	(void)qmp_execute(r.q, 0, "yank", NULL, 100, on_reply, &r);
	TAP_OK(strstr(r.log, "ready running 10.0.0") && r.closed == 0, "QEMU 10 is ready");
	qmp_free(r.q);
}

static struct qmp_migration_progress progress_of(const char *text)
{
	json_object *o = json_tokener_parse(text);
	struct qmp_migration_progress p = qmp_migration_parse(o);

	json_object_put(o);
	return p;
}

static void test_migration(void)
{
	struct qmp_migration_progress p = progress_of("{\"status\":\"active\",\"total-time\":900,\"ram\":{\"total\":34086912,\"remaining\":1048576,"
						      "\"transferred\":599158,\"mbps\":8.0,\"page-size\":4096,\"dirty-pages-rate\":256}}");

	TAP_OK(p.status == QMP_MIGRATION_ACTIVE && p.total == 34086912 && p.remaining == 1048576 && p.transferred == 599158 && p.rate == 1000000 &&
	       p.dirty_rate == 1048576 && p.total_ms == 900 && p.port == 0, "a migration's progress");
	p = progress_of("{\"socket-address\":[{\"port\":\"36095\",\"ipv4\":true,\"host\":\"127.0.0.1\",\"type\":\"inet\"}]}");
	TAP_OK(p.status == QMP_MIGRATION_NONE && p.port == 36095, "where a target listens");
	p = progress_of("{\"status\":\"failed\",\"error-desc\":\"no way\"}");
	TAP_OK(p.status == QMP_MIGRATION_FAILED && streq(p.error, "no way"), "why it failed");
	p = progress_of("{\"status\":7,\"ram\":[],\"socket-address\":[1,{\"port\":70000},{\"port\":\"70000\"},{}],\"total-time\":-1}");
	TAP_OK(p.status == QMP_MIGRATION_NONE && p.port == 0 && p.total == 0 && p.total_ms == 0, "words of another type say nothing");
	p = progress_of("{\"status\":\"active\",\"ram\":{\"total\":10,\"remaining\":99,\"mbps\":1e300,\"page-size\":9223372036854775807,"
			"\"dirty-pages-rate\":9223372036854775807}}");
	TAP_OK(p.remaining == 10 && p.rate == 0, "nor numbers that cannot be");
	p = qmp_migration_parse(NULL);
	TAP_OK(p.status == QMP_MIGRATION_NONE, "no answer");
	TAP_OK(qmp_migration_moves(QMP_MIGRATION_PAUSED) && qmp_migration_moves(QMP_MIGRATION_SWITCHING) && !qmp_migration_moves(QMP_MIGRATION_COMPLETED) &&
	       !qmp_migration_moves(qmp_migration_status_parse("a later word")), "which are under way");
}

int main(void)
{
	test_handshake();
	test_classes();
	test_every_split();
	test_hostile();
	test_limits();
	test_replies();
	test_full();
	test_deadlines();
	test_end();
	test_meaning_of_states();
	test_meaning_of_events();
	test_migration();
	return tap_done();
}
