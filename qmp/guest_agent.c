/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/guest_agent.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "qmp/qmp_line.h"
#include "qmp/qmp_wire.h"

#define DELIMITER '\xff'
#define MAX_OUTPUT 65536U /* what a guest that reads nothing may leave unsent */

enum phase { SYNCING, READY, CLOSED };

struct guest_agent {
	struct guest_agent_callbacks cb;
	void *user;
	enum phase phase;
	bool dropped;
	bool delimited;       /* SYNCING: 0xFF was seen: what follows may be our line */
	bool cutting;         /* SYNCING: the line is too long to be ours: it is passed over up to the next 0xFF */
	uint32_t sync_ms, id;
	uint64_t deadline_ms; /* of the sync */
	bool busy;
	uint64_t command_ms;
	qmp_reply_fn fn;
	void *fn_user;
	struct qmp_buffer in, out;
};

static int say(struct guest_agent *g, const char *text, size_t n)
{
	if (n > MAX_OUTPUT - MIN(g->out.len, MAX_OUTPUT))
		return -EBUSY;
	return qmp_buffer_append(&g->out, text, n);
}

/* A delimiter of our own first: it ends whatever half a line the agent may have of somebody before us. */
static void begin_sync(struct guest_agent *g, uint64_t now_ms)
{
	char text[96];
	int n;

	g->phase = SYNCING;
	g->delimited = g->cutting = false;
	g->in.len = 0;
	g->id = g->id * 1664525U + 1013904223U; /* only to be told from the one before */
	g->deadline_ms = now_ms + g->sync_ms;
	n = snprintf(text, sizeof(text), "%c{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%u}}\n", DELIMITER, g->id & INT32_MAX);
	if (say(g, text, (size_t)n) < 0)
		guest_agent_close(g, "it takes no commands");
}

int guest_agent_new(const struct guest_agent_callbacks *cb, void *user, uint64_t now_ms, uint32_t sync_ms, uint32_t id, struct guest_agent **ret)
{
	struct guest_agent *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	g->cb = *cb;
	g->user = user;
	g->sync_ms = sync_ms;
	g->id = id;
	begin_sync(g, now_ms);
	*ret = g;
	return 0;
}

void guest_agent_free(struct guest_agent *g)
{
	if (!g)
		return;
	qmp_buffer_reset(&g->in);
	qmp_buffer_reset(&g->out);
	free(g);
}

static void command_end(struct guest_agent *g, json_object *ret, const char *error)
{
	qmp_reply_fn fn = g->fn;

	if (!g->busy)
		return;
	g->busy = false;
	fn(g->fn_user, ret, error);
}

void guest_agent_close(struct guest_agent *g, const char *reason)
{
	if (g->phase == CLOSED)
		return;
	g->phase = CLOSED;
	g->out.len = 0;
	command_end(g, NULL, "disconnected");
	if (!g->dropped && g->cb.closed)
		g->cb.closed(g->user, reason);
}

void guest_agent_drop(struct guest_agent *g)
{
	g->phase = CLOSED;
	g->out.len = 0;
	command_end(g, NULL, "disconnected");
	g->dropped = true;
}

bool guest_agent_is_closed(const struct guest_agent *g) { return g->phase == CLOSED; }

static void on_reply(struct guest_agent *g, json_object *msg)
{
	json_object *ret = NULL, *error = NULL;
	char text[160];
	const char *desc;

	if (json_object_object_get_ex(msg, "error", &error)) {
		desc = qmp_member_text(error, "desc");
		(void)snprintf(text, sizeof(text), "%s", desc && *desc ? desc : "error without a description");
		command_end(g, NULL, text);
	} else if (json_object_object_get_ex(msg, "return", &ret)) {
		command_end(g, ret, NULL);
	}
}

static void on_line(struct guest_agent *g)
{
	json_object *msg;
	const char *reason = qmp_line_parse(g->in.bytes ? g->in.bytes : "", g->in.len, GUEST_AGENT_MAX_DEPTH, &msg);
	int64_t id;

	g->in.len = 0;
	if (g->phase == SYNCING) {
		g->delimited = false; /* ours or not, the next one needs a delimiter of its own */
		if (!reason && qmp_member_number(msg, "return", INT32_MAX, &id) && id == (int64_t)(g->id & INT32_MAX)) {
			g->phase = READY;
			if (g->cb.ready)
				g->cb.ready(g->user);
		}
	} else if (reason) {
		guest_agent_close(g, reason);
	} else if (msg) {
		on_reply(g, msg);
	}
	json_object_put(msg);
}

static void take_byte(struct guest_agent *g, char c)
{
	if (g->phase == SYNCING && c == DELIMITER) {
		g->delimited = true;
		g->cutting = false;
		g->in.len = 0;
	} else if (g->phase == SYNCING && (!g->delimited || g->cutting)) {
		return; /* an answer to somebody else */
	} else if (c == '\n') {
		on_line(g);
	} else if (c == DELIMITER) {
		return; /* an answer to a sync of ours that came too late, or a delimiter that nobody asked for */
	} else if (g->in.len == GUEST_AGENT_MAX_LINE) {
		if (g->phase == SYNCING)
			g->cutting = true;
		else
			guest_agent_close(g, "line too long");
	} else if (qmp_buffer_append(&g->in, &c, 1) < 0) {
		guest_agent_close(g, "out of memory");
	}
}

void guest_agent_feed(struct guest_agent *g, const void *bytes, size_t n)
{
	const char *p = bytes;

	for (size_t i = 0; i < n && g->phase != CLOSED; i++)
		take_byte(g, p[i]);
}

size_t guest_agent_output(const struct guest_agent *g, const char **ret)
{
	*ret = g->out.bytes;
	return g->out.len;
}

void guest_agent_sent(struct guest_agent *g, size_t n)
{
	CHECK(n <= g->out.len);
	qmp_buffer_consume(&g->out, n);
}

void guest_agent_tick(struct guest_agent *g, uint64_t now_ms)
{
	if (g->phase == SYNCING && g->deadline_ms <= now_ms) {
		guest_agent_close(g, "timeout: the guest's agent does not answer");
		return;
	}
	if (g->phase == READY && g->busy && g->command_ms <= now_ms) {
		begin_sync(g, now_ms);
		command_end(g, NULL, "timeout");
	}
}

uint64_t guest_agent_deadline(const struct guest_agent *g)
{
	if (g->phase == SYNCING)
		return g->deadline_ms;
	return g->phase == READY && g->busy ? g->command_ms : QMP_NO_DEADLINE;
}

int guest_agent_execute(struct guest_agent *g, uint64_t now_ms, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	json_object *o = json_object_new_object();
	const char *text;
	size_t n;
	int r = g->phase != READY ? -ENOTCONN : g->busy ? -EBUSY : !o ? -ENOMEM : 0;

	if (r == 0)
		r = json_object_object_add(o, "execute", json_object_new_string(command)) < 0 ? -ENOMEM : 0;
	if (r == 0 && args)
		r = json_object_object_add(o, "arguments", json_object_get(args)) < 0 ? -ENOMEM : 0;
	json_object_put(args);
	if (r == 0) {
		text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &n);
		r = text ? say(g, text, n) : -ENOMEM;
		if (r == 0)
			r = say(g, "\n", 1);
	}
	json_object_put(o);
	if (r < 0)
		return r;
	g->busy = true;
	g->command_ms = now_ms + timeout_ms;
	g->fn = fn;
	g->fn_user = user;
	return 0;
}

static void wire_feed(void *p, const void *bytes, size_t n) { guest_agent_feed(p, bytes, n); }
static size_t wire_output(const void *p, const char **ret) { return guest_agent_output(p, ret); }
static void wire_sent(void *p, size_t n) { guest_agent_sent(p, n); }
static void wire_tick(void *p, uint64_t now_ms) { guest_agent_tick(p, now_ms); }
static uint64_t wire_deadline(const void *p) { return guest_agent_deadline(p); }
static void wire_close(void *p, const char *reason) { guest_agent_close(p, reason); }
static void wire_drop(void *p) { guest_agent_drop(p); }
static void wire_free(void *p) { guest_agent_free(p); }
static bool wire_is_closed(const void *p) { return guest_agent_is_closed(p); }

static const struct qmp_wire guest_agent_over_wire = { wire_feed, wire_output, wire_sent, wire_tick, wire_deadline, wire_close, wire_drop, wire_free,
						       wire_is_closed };

int guest_agent_conn_new(qb_loop_t *loop, const char *path, uint32_t sync_ms, const struct guest_agent_callbacks *cb, void *user, struct qmp_conn **ret)
{
	struct guest_agent *g;
	uint32_t id;
	int r;

	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != sizeof(id))
		id = (uint32_t)qmp_conn_now_ms() ^ (uint32_t)getpid() << 16;
	r = guest_agent_new(cb, user, qmp_conn_now_ms(), sync_ms, id, &g);
	return r < 0 ? r : qmp_conn_open(loop, path, &guest_agent_over_wire, g, ret);
}

int guest_agent_conn_execute(struct qmp_conn *c, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	int r = guest_agent_execute(qmp_conn_proto(c), qmp_conn_now_ms(), command, args, timeout_ms, fn, user);

	if (r == 0)
		qmp_conn_asked(c);
	return r;
}
