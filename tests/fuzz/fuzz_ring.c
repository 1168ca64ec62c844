/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes over the ring. The first byte is the agent's state. Then lines: the first byte of each says from which node a message is ('0' + id), the
 * rest is the message; "$id" in it stands for the number of the request this agent forwarded last. Or the first byte is one of
 *   ~  time passes, a second     ?  the status is asked for      @  a change is asked for, which a follower forwards
 *   #  a message in the keepers' group, from the node in the byte that follows       &  the view: a byte, bit (id - 1)
 */
#include <stdio.h>

#include "tests/fuzz/agentd.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keeperd.h"

#define MAX_STEPS 48
#define REQUESTS 4 /* that may be under way at once, so that each ends */

static unsigned asked, answered;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_quiet();
	fuzz_agent_init();
	fuzz_keeper_init();
	return 0;
}

static void on_answer(void *user, json_object *answer)
{
	const char *text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);

	FUZZ_CHECK(text && ++answered <= asked);
}

static void ask(struct agentd *d, const char *text)
{
	json_object *o = json_tokener_parse(text);

	FUZZ_CHECK(o);
	asked++;
	server_request(d->server, o, false, on_answer, NULL);
	json_object_put(o);
}

static int64_t last_id(void)
{
	json_object *o = json_tokener_parse(fuzz_ring_sent()), *id;
	int64_t n = o && json_object_object_get_ex(o, "id", &id) ? json_object_get_int64(id) : 0;

	json_object_put(o);
	return n;
}

static void hear(uint32_t node, const char *text, size_t len, int64_t id)
{
	const char *mark = memmem(text, len, "$id", 3);
	char *with = NULL;
	int n;

	if (!mark) {
		fuzz_agent_hears(node, text, len);
		return;
	}
	n = asprintf(&with, "%.*s%lld%.*s", (int)(mark - text), text, (long long)id, (int)(text + len - mark - 3), mark + 3);
	FUZZ_CHECK(n >= 0);
	fuzz_agent_hears(node, with, (size_t)n);
	free(with);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct agentd *d;
	struct daemon *k;
	int64_t id = 0;

	if (size == 0)
		return 0;
	asked = answered = 0;
	d = fuzz_agent_begin(fuzz_take(&in, 1) % FUZZ_AGENT_STATES);
	for (int step = 0; step < MAX_STEPS && in.left > 0; step++) {
		const uint8_t *line = in.p, *end = memchr(in.p, '\n', in.left);
		size_t len = end ? (size_t)(end - line) : in.left;

		in.p += len + (end != NULL);
		in.left -= len + (end != NULL);
		if (len == 0)
			continue;
		if (*line == '~') {
			fuzz_loop_run(1000 * NS_PER_MS);
		} else if (*line == '?') {
			ask(d, "{\"command\":\"status\"}");
		} else if (*line == '@' && asked - answered < REQUESTS) {
			ask(d, "{\"command\":\"vm-start\",\"name\":\"db\"}");
			id = last_id();
		} else if (*line == '&') {
			fuzz_ring_view("kvm-ha-agent", len > 1, len > 1 ? line[1] : 0, true);
		} else if (*line == '#') {
			k = fuzz_keeper_begin(true);
			fuzz_ring_say("kvm-ha-keeper", len > 1 ? line[1] : 0, line + MIN(len, 2U), len - MIN(len, 2U));
			FUZZ_CHECK(k->core.state == LEASE_ARMED); /* a message never ends a lease */
			fuzz_keeper_end();
			fuzz_world(FUZZ_AGENT);
		} else if (*line != '@') {
			hear((uint32_t)*line - '0', (const char *)line + 1, len - 1, id);
		}
	}
	ask(d, "{\"command\":\"status\"}");
	fuzz_agent_end();
	FUZZ_CHECK(answered == asked);
	return 0;
}
