/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's side of its agent's port. The first byte draws how the rest is cut and what we do between the pieces; where the input has the byte 0xFE, the id
 * of our last sync stands, so that it can get in step. Fed whole and cut it must tell the same story; a command ends once, and nothing follows the end. */
#include <stdarg.h>

#include "qmp/guest_agent.h"
#include "tests/fuzz/fuzz.h"

#define STORY_LEN 16384
#define SYNC_MS 1000

struct story {
	char text[STORY_LEN];
	size_t len;
	struct guest_agent *g;
	unsigned begun, ended, closed;
	bool over, asks;
	uint64_t now_ms;
	char id[16];
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

static void on_reply(void *user, json_object *ret, const char *error);

static void ask(struct story *s)
{
	s->begun++;
	if (guest_agent_execute(s->g, s->now_ms, "guest-ping", NULL, 50, on_reply, s) < 0)
		s->begun--;
}

static void on_reply(void *user, json_object *ret, const char *error)
{
	struct story *s = user;

	s->ended++;
	FUZZ_CHECK(s->ended == s->begun && !(ret && error));
	tell(s, "reply %s\n", error ? error : json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (s->asks)
		ask(s);
}

static void on_ready(void *user)
{
	struct story *s = user;

	FUZZ_CHECK(s->closed == 0 && !guest_agent_is_closed(s->g));
	tell(s, "ready\n");
	ask(s);
}

static void on_closed(void *user, const char *reason)
{
	struct story *s = user;

	FUZZ_CHECK(++s->closed == 1 && *reason && s->ended == s->begun);
	tell(s, "closed %s\n", reason);
}

static const struct guest_agent_callbacks callbacks = { on_ready, on_closed };

/* The id of the newest sync, out of what it says. */
static void learn(struct story *s)
{
	const char *out;
	size_t n = guest_agent_output(s->g, &out);

	FUZZ_CHECK(n <= 65536);
	for (size_t i = 0; i + 5 < n; i++) {
		size_t k = 0;

		if (memcmp(out + i, "\"id\":", 5) != 0)
			continue;
		while (i + 5 + k < n && k + 1 < sizeof(s->id) && out[i + 5 + k] >= '0' && out[i + 5 + k] <= '9') {
			s->id[k] = out[i + 5 + k];
			k++;
		}
		s->id[k] = '\0';
	}
	guest_agent_sent(s->g, n);
}

static void feed(struct story *s, const uint8_t *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		learn(s);
		if (data[i] == 0xfe)
			guest_agent_feed(s->g, s->id, strlen(s->id));
		else
			guest_agent_feed(s->g, data + i, 1);
	}
}

static void begin(struct story *s)
{
	memset(s, 0, sizeof(*s));
	FUZZ_CHECK(guest_agent_new(&callbacks, s, 0, SYNC_MS, 7, &s->g) == 0);
}

static void finish(struct story *s)
{
	guest_agent_close(s->g, "the end");
	FUZZ_CHECK(s->closed == 1 && s->ended == s->begun && guest_agent_is_closed(s->g));
	guest_agent_close(s->g, "again");
	s->over = true;
	guest_agent_feed(s->g, "\xff{\"return\": 7}\n", 15);
	guest_agent_tick(s->g, UINT64_MAX - 1);
	guest_agent_free(s->g);
}

static uint32_t draw(uint32_t *state)
{
	*state = *state * 1664525U + 1013904223U;
	return *state >> 16;
}

static void lively(struct story *s, const uint8_t *data, size_t size, uint32_t seed)
{
	begin(s);
	s->asks = seed & 1;
	for (size_t i = 0; i < size; i++) {
		feed(s, data + i, 1);
		if (draw(&seed) % 4 == 0)
			ask(s);
		if (draw(&seed) % 8 == 0) {
			s->now_ms += draw(&seed) % 300;
			guest_agent_tick(s->g, s->now_ms);
			FUZZ_CHECK(guest_agent_is_closed(s->g) || guest_agent_deadline(s->g) > s->now_ms || s->asks);
		}
		if (draw(&seed) % 4096 == 0) {
			guest_agent_drop(s->g);
			s->over = true;
			feed(s, data + i, size - i);
			guest_agent_free(s->g);
			return;
		}
	}
	finish(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct story whole, bytes;
	const char *out;

	if (size == 0)
		return 0;
	begin(&bytes);
	feed(&bytes, data + 1, size - 1);
	finish(&bytes);
	if (!memchr(data + 1, 0xfe, size - 1)) {
		begin(&whole);
		guest_agent_sent(whole.g, guest_agent_output(whole.g, &out));
		guest_agent_feed(whole.g, data + 1, size - 1);
		finish(&whole);
		FUZZ_CHECK(whole.len == bytes.len && memcmp(whole.text, bytes.text, whole.len) == 0);
	}
	lively(&bytes, data + 1, size - 1, data[0] + 1U);
	return 0;
}
