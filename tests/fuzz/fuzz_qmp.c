/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's side of a QMP connection. The first byte draws how the rest is cut and what we do between the pieces. Fed whole, byte by byte and cut at
 * random, it must tell the same story; with commands, deadlines and a drop in between, each command ends once and nothing follows the end. */
#include "qmp/meaning.h"
#include "qmp/qmp_proto.h"
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>

#define STORY_LEN 16384
#define MAX_COMMANDS 256

struct story {
	char text[STORY_LEN];
	size_t len;
	struct qmp *q;
	unsigned begun, ended, closed, ready;
	bool over, asks; /* asks: a command in each callback */
	uint64_t now_ms;
};

__attribute__((format(printf, 2, 3))) static void tell(struct story *s, const char *fmt, ...)
{
	va_list ap;
	int n;

	FUZZ_CHECK(!s->over);
	va_start(ap, fmt);
	n = vsnprintf(s->text + s->len, sizeof(s->text) - s->len, fmt, ap);
	va_end(ap);
	s->len = MIN(s->len + (size_t)n, sizeof(s->text) - 1);
}

static void ask(struct story *s);

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct story *s = user;

	s->ended++;
	FUZZ_CHECK(s->ended <= s->begun && !(ret && error));
	tell(s, "reply %s\n", error ? error : json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (s->asks)
		ask(s);
}

static void ask(struct story *s)
{
	json_object *args = json_object_new_object();
	int r;

	if (s->begun >= MAX_COMMANDS) {
		json_object_put(args);
		return;
	}
	json_object_object_add(args, "node", json_object_new_int(1));
	s->begun++;
	r = qmp_execute(s->q, s->now_ms, "query-status", args, s->begun % 7, on_reply, s);
	if (r < 0)
		s->begun--;
}

static void on_ready(void *user, enum qmp_run_state state, const char *version)
{
	struct story *s = user;

	FUZZ_CHECK(++s->ready == 1 && s->closed == 0 && qmp_phase(s->q) == QMP_READY);
	FUZZ_CHECK(qmp_run_state_parse(qmp_run_state_name(state)) == state && *qmp_health_name(qmp_meaning_health(state)));
	tell(s, "ready %s %s\n", qmp_run_state_name(state), version);
}

static void on_event(void *user, const struct qmp_event *ev)
{
	struct story *s = user;

	FUZZ_CHECK(s->closed == 0 && ev->name && ev->reason && qmp_meaning_news(ev->kind) <= QMP_NEWS_ENDING);
	tell(s, "event %d %s %d %s %d %s %s\n", (int)ev->kind, ev->name, ev->guest, ev->reason, ev->nospace, qmp_ending_name(qmp_meaning_ending(ev)),
	     ev->data ? json_object_to_json_string_ext(ev->data, JSON_C_TO_STRING_PLAIN) : "");
	if (s->asks)
		ask(s);
}

static void on_closed(void *user, const char *reason)
{
	struct story *s = user;

	FUZZ_CHECK(++s->closed == 1 && *reason && s->ended == s->begun && qmp_phase(s->q) == QMP_CLOSED);
	tell(s, "closed %s\n", reason);
}

static const struct qmp_callbacks callbacks = { on_ready, on_event, on_closed };

static void begin(struct story *s)
{
	memset(s, 0, offsetof(struct story, len) + sizeof(s->len));
	*s->text = '\0';
	s->begun = s->ended = s->closed = s->ready = 0;
	s->over = s->asks = false;
	s->now_ms = 0;
	FUZZ_CHECK(qmp_new(&callbacks, s, 0, 1000, &s->q) == 0);
}

static void finish(struct story *s)
{
	const char *out;
	size_t n = qmp_output(s->q, &out);

	FUZZ_CHECK(n <= QMP_MAX_OUTPUT && (n == 0 || out[n - 1] == '\n'));
	qmp_sent(s->q, n);
	qmp_close(s->q, "the end");
	FUZZ_CHECK(s->closed == 1 && s->ended == s->begun);
	qmp_close(s->q, "again");
	s->over = true;
	qmp_feed(s->q, "{\"event\":\"STOP\"}\n", 17);
	qmp_tick(s->q, UINT64_MAX - 1);
	qmp_free(s->q);
}

static uint32_t draw(uint32_t *state)
{
	*state = *state * 1664525U + 1013904223U;
	return *state >> 16;
}

static size_t piece(uint32_t *seed, size_t left, uint32_t most)
{
	size_t n = draw(seed) % most + 1;

	return MIN(n, left);
}

static void in_pieces(struct story *s, const uint8_t *data, size_t size, uint32_t seed)
{
	begin(s);
	while (size > 0) {
		size_t n = seed ? piece(&seed, size, 97) : 1;

		qmp_feed(s->q, data, n);
		data += n;
		size -= n;
	}
	finish(s);
}

static void lively(struct story *s, const uint8_t *data, size_t size, uint32_t seed)
{
	const char *out;

	begin(s);
	s->asks = seed & 1;
	while (size > 0 && !s->over) {
		size_t n = piece(&seed, size, 193);

		qmp_feed(s->q, data, n);
		data += n;
		size -= n;
		switch (draw(&seed) % 8) {
		case 0:
		case 1:
			ask(s);
			break;
		case 2:
			s->now_ms += draw(&seed) % 300;
			qmp_tick(s->q, s->now_ms);
			FUZZ_CHECK(qmp_phase(s->q) == QMP_CLOSED || qmp_deadline(s->q) > s->now_ms || s->asks);
			break;
		case 3:
			n = qmp_output(s->q, &out);
			qmp_sent(s->q, n ? draw(&seed) % (n + 1) : 0);
			break;
		case 4:
			if (draw(&seed) % 64 == 0) {
				qmp_drop(s->q);
				s->over = true;
				qmp_feed(s->q, data, size);
				qmp_tick(s->q, UINT64_MAX - 1);
				qmp_close(s->q, "after the drop");
				qmp_free(s->q);
				return;
			}
			break;
		default:
			break;
		}
	}
	qmp_sent(s->q, qmp_output(s->q, &out));
	finish(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct story whole, cut;
	uint32_t seed = size > 0 ? data[0] + 1U : 1;

	if (size == 0)
		return 0;
	data++;
	size--;
	begin(&whole);
	qmp_feed(whole.q, data, size);
	finish(&whole);
	in_pieces(&cut, data, size, 0);
	FUZZ_CHECK(whole.len == cut.len && memcmp(whole.text, cut.text, cut.len) == 0);
	in_pieces(&cut, data, size, seed);
	FUZZ_CHECK(whole.len == cut.len && memcmp(whole.text, cut.text, cut.len) == 0);
	lively(&cut, data, size, seed * 7919);
	return 0;
}
