/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/qmp_line.h"
#include "qmp/qmp_proto.h"

#include <errno.h>
#include <stdio.h>

#define ERROR_LEN 256

struct pending {
	int64_t id;
	uint64_t deadline_ms;
	qmp_reply_fn fn;
	void *user;
};

struct qmp {
	struct qmp_callbacks cb;
	void *user;
	enum qmp_phase phase;
	bool dropped; /* no callback may come any more, not even closed() */
	uint64_t handshake_deadline_ms;
	int64_t next_id;
	bool oob; /* out-of-band commands were offered and taken */
	struct qmp_buffer in, out;
	struct pending pending[QMP_MAX_PENDING]; /* oldest first */
	size_t n_pending;
	char version[48];
};

static const char *const run_state_names[] = {
	[QMP_RUN_UNKNOWN] = "unknown", [QMP_RUN_DEBUG] = "debug", [QMP_RUN_INMIGRATE] = "inmigrate",
	[QMP_RUN_INTERNAL_ERROR] = "internal-error", [QMP_RUN_IO_ERROR] = "io-error", [QMP_RUN_PAUSED] = "paused",
	[QMP_RUN_POSTMIGRATE] = "postmigrate", [QMP_RUN_PRELAUNCH] = "prelaunch", [QMP_RUN_FINISH_MIGRATE] = "finish-migrate",
	[QMP_RUN_RESTORE_VM] = "restore-vm", [QMP_RUN_RUNNING] = "running", [QMP_RUN_SAVE_VM] = "save-vm",
	[QMP_RUN_SHUTDOWN] = "shutdown", [QMP_RUN_SUSPENDED] = "suspended", [QMP_RUN_WATCHDOG] = "watchdog",
	[QMP_RUN_GUEST_PANICKED] = "guest-panicked", [QMP_RUN_COLO] = "colo",
};

static const char *const event_names[QMP_EVENT_KIND_COUNT] = {
	[QMP_EVENT_OTHER] = "other", [QMP_EVENT_SHUTDOWN] = "SHUTDOWN", [QMP_EVENT_POWERDOWN] = "POWERDOWN", [QMP_EVENT_RESET] = "RESET",
	[QMP_EVENT_STOP] = "STOP", [QMP_EVENT_RESUME] = "RESUME", [QMP_EVENT_BLOCK_IO_ERROR] = "BLOCK_IO_ERROR",
	[QMP_EVENT_GUEST_PANICKED] = "GUEST_PANICKED", [QMP_EVENT_WATCHDOG] = "WATCHDOG", [QMP_EVENT_GUEST_CRASHLOADED] = "GUEST_CRASHLOADED",
	[QMP_EVENT_MEMORY_FAILURE] = "MEMORY_FAILURE", [QMP_EVENT_MIGRATION] = "MIGRATION", [QMP_EVENT_SUSPEND] = "SUSPEND",
	[QMP_EVENT_SUSPEND_DISK] = "SUSPEND_DISK", [QMP_EVENT_WAKEUP] = "WAKEUP", [QMP_EVENT_VSERPORT_CHANGE] = "VSERPORT_CHANGE",
};

/* Commands that are not asked within the time of their kind (query-*: QUERY, all others: CONTROL), and those that QEMU may take out of band. */
static const struct {
	const char *name;
	enum qmp_class class;
	bool oob;
} commands[] = {
	{ "query-status", QMP_CLASS_LIVENESS, false },
	{ "migrate-recover", QMP_CLASS_CONTROL, true },
	{ "migrate-pause", QMP_CLASS_CONTROL, true },
	{ "yank", QMP_CLASS_CONTROL, true },
	{ "query-yank", QMP_CLASS_QUERY, true },
	{ "migrate", QMP_CLASS_LONG, false },
	{ "migrate-incoming", QMP_CLASS_LONG, false },
	{ "device_add", QMP_CLASS_LONG, false },
	{ "blockdev-add", QMP_CLASS_LONG, false },
	{ "blockdev-reopen", QMP_CLASS_LONG, false },
	{ "savevm", QMP_CLASS_LONG, false },
	{ "query-block", QMP_CLASS_LONG, false },       /* these two may have to wait for the storage */
	{ "query-named-block-nodes", QMP_CLASS_LONG, false },
};

static const uint32_t class_ms[] = {
	[QMP_CLASS_LIVENESS] = 5000, [QMP_CLASS_QUERY] = 10000, [QMP_CLASS_CONTROL] = 10000, [QMP_CLASS_LONG] = 60000,
};

const char *qmp_event_kind_name(enum qmp_event_kind k)
{
	return (size_t)k < QMP_EVENT_KIND_COUNT ? event_names[k] : event_names[QMP_EVENT_OTHER];
}

enum qmp_class qmp_command_class(const char *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (streq(commands[i].name, command))
			return commands[i].class;
	return strncmp(command, "query-", 6) == 0 ? QMP_CLASS_QUERY : QMP_CLASS_CONTROL;
}

uint32_t qmp_command_ms(const char *command) { return class_ms[qmp_command_class(command)]; }

static bool command_oob(const char *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (streq(commands[i].name, command))
			return commands[i].oob;
	return false;
}

const char *qmp_run_state_name(enum qmp_run_state s)
{
	return (size_t)s < ARRAY_SIZE(run_state_names) ? run_state_names[s] : run_state_names[QMP_RUN_UNKNOWN];
}

enum qmp_run_state qmp_run_state_parse(const char *s)
{
	for (size_t i = 1; s && i < ARRAY_SIZE(run_state_names); i++)
		if (streq(run_state_names[i], s))
			return (enum qmp_run_state)i;
	return QMP_RUN_UNKNOWN;
}

int qmp_new(const struct qmp_callbacks *cb, void *user, uint64_t now_ms, uint32_t handshake_ms, struct qmp **ret)
{
	struct qmp *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	q->cb = *cb;
	q->user = user;
	q->phase = QMP_GREETING;
	q->handshake_deadline_ms = now_ms + handshake_ms;
	q->next_id = 1;
	*ret = q;
	return 0;
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	qmp_buffer_reset(&q->in);
	qmp_buffer_reset(&q->out);
	free(q);
}

enum qmp_phase qmp_phase(const struct qmp *q)
{
	return q->phase;
}

static struct pending pending_take(struct qmp *q, size_t i)
{
	struct pending p = q->pending[i];

	q->n_pending--;
	memmove(&q->pending[i], &q->pending[i + 1], (q->n_pending - i) * sizeof(p));
	return p;
}

static void end_pending(struct qmp *q)
{
	q->phase = QMP_CLOSED;
	q->out.len = 0;
	while (q->n_pending > 0) {
		struct pending p = pending_take(q, 0);

		p.fn(p.user, NULL, "disconnected");
	}
}

void qmp_drop(struct qmp *q)
{
	q->dropped = true;
	end_pending(q);
}

void qmp_close(struct qmp *q, const char *reason)
{
	if (q->phase == QMP_CLOSED)
		return;
	end_pending(q);
	if (!q->dropped && q->cb.closed)
		q->cb.closed(q->user, reason);
}

static int command_send(struct qmp *q, const char *command, json_object *args, uint64_t deadline_ms, qmp_reply_fn fn, void *user)
{
	json_object *o = json_object_new_object(), *name = json_object_new_string(command), *id = json_object_new_int64(q->next_id);
	const char *text;
	size_t n;
	int r = -ENOMEM;

	if (!o || !name || !id || json_object_object_add(o, q->oob && command_oob(command) ? "exec-oob" : "execute", name) < 0)
		goto fail;
	name = NULL;
	if (args && json_object_object_add(o, "arguments", args) < 0)
		goto fail;
	args = NULL;
	if (json_object_object_add(o, "id", id) < 0)
		goto fail;
	id = NULL;
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &n);
	if (!text)
		goto fail;
	r = -EBUSY;
	if (q->n_pending == QMP_MAX_PENDING || n + 1 > QMP_MAX_OUTPUT - q->out.len)
		goto fail;
	r = qmp_buffer_append(&q->out, text, n);
	if (r == 0) {
		r = qmp_buffer_append(&q->out, "\n", 1);
		if (r < 0)
			q->out.len -= n;
	}
	if (r == 0)
		q->pending[q->n_pending++] = (struct pending){ q->next_id++, deadline_ms, fn, user };
fail:
	json_object_put(id);
	json_object_put(args);
	json_object_put(name);
	json_object_put(o);
	return r;
}

int qmp_execute(struct qmp *q, uint64_t now_ms, const char *command, json_object *args, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
	if (q->phase != QMP_READY) {
		json_object_put(args);
		return -ENOTCONN;
	}
	return command_send(q, command, args, now_ms + (timeout_ms == QMP_TIMEOUT_OF_CLASS ? qmp_command_ms(command) : timeout_ms), fn, user);
}

/* Handshake steps have no deadline of their own: the handshake's covers them. */
static void handshake_send(struct qmp *q, const char *command, json_object *args, qmp_reply_fn fn, enum qmp_phase next)
{
	if (command_send(q, command, args, QMP_NO_DEADLINE, fn, q) < 0)
		qmp_close(q, "out of memory");
	else
		q->phase = next;
}

static void handshake_failed(struct qmp *q, const char *step, const char *error)
{
	char reason[ERROR_LEN];

	if (q->phase == QMP_CLOSED)
		return;
	(void)snprintf(reason, sizeof(reason), "%s failed: %.160s", step, error);
	qmp_close(q, reason);
}

static void on_status(void *user, json_object *ret, const char *error)
{
	struct qmp *q = user;
	const char *status = qmp_member_text(ret, "status");

	if (error || !status) {
		handshake_failed(q, "query-status", error ? error : "no status in the answer");
		return;
	}
	q->phase = QMP_READY;
	if (q->cb.ready)
		q->cb.ready(q->user, qmp_run_state_parse(status), q->version);
}

static void on_capabilities(void *user, json_object *ret, const char *error)
{
	struct qmp *q = user;

	if (error)
		handshake_failed(q, "qmp_capabilities", error);
	else
		handshake_send(q, "query-status", NULL, on_status, QMP_QUERYING);
}

static bool offers_oob(json_object *greeting)
{
	json_object *list;

	if (!json_object_object_get_ex(greeting, "capabilities", &list) || !json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *word = json_object_array_get_idx(list, i);

		if (json_object_is_type(word, json_type_string) && streq(json_object_get_string(word), "oob"))
			return true;
	}
	return false;
}

static json_object *enable_oob(void)
{
	json_object *args = json_object_new_object(), *list = json_object_new_array();

	if (!args || !list || json_object_array_add(list, json_object_new_string("oob")) < 0 || json_object_object_add(args, "enable", list) < 0) {
		json_object_put(list);
		json_object_put(args);
		return NULL;
	}
	return args;
}

static void on_greeting(struct qmp *q, json_object *msg)
{
	json_object *greeting = NULL, *version = NULL, *qemu = NULL;
	int64_t major, minor, micro;

	if (!json_object_object_get_ex(msg, "QMP", &greeting)) {
		qmp_close(q, "first line is not a QMP greeting");
		return;
	}
	if (json_object_is_type(greeting, json_type_object) && json_object_object_get_ex(greeting, "version", &version) &&
	    json_object_is_type(version, json_type_object))
		(void)json_object_object_get_ex(version, "qemu", &qemu);
	if (!qmp_member_number(qemu, "major", INT16_MAX, &major) || !qmp_member_number(qemu, "minor", INT16_MAX, &minor) ||
	    !qmp_member_number(qemu, "micro", INT16_MAX, &micro)) {
		qmp_close(q, "QMP greeting without a version");
		return;
	}
	(void)snprintf(q->version, sizeof(q->version), "%d.%d.%d", (int)major, (int)minor, (int)micro);
	q->oob = offers_oob(greeting);
	handshake_send(q, "qmp_capabilities", q->oob ? enable_oob() : NULL, on_capabilities, QMP_NEGOTIATING);
}

static void on_event(struct qmp *q, json_object *msg)
{
	struct qmp_event ev = { .kind = QMP_EVENT_OTHER, .name = qmp_member_text(msg, "event"), .reason = "" };
	const char *reason;

	if (!ev.name || !q->cb.event)
		return;
	for (size_t i = QMP_EVENT_OTHER + 1; i < QMP_EVENT_KIND_COUNT; i++)
		if (streq(event_names[i], ev.name))
			ev.kind = (enum qmp_event_kind)i;
	if (json_object_object_get_ex(msg, "data", &ev.data) && !json_object_is_type(ev.data, json_type_object))
		ev.data = NULL;
	ev.guest = qmp_member_true(ev.data, "guest");
	ev.nospace = qmp_member_true(ev.data, "nospace");
	reason = qmp_member_text(ev.data, "reason");
	if (reason)
		ev.reason = reason;
	q->cb.event(q->user, &ev);
}

/* An error without an id is QEMU failing to read a line of ours; it answers in order, so it belongs to the oldest. An unknown id is the late
 * answer to a command that has passed its deadline. */
static bool pending_find(const struct qmp *q, json_object *msg, bool is_error, size_t *ret)
{
	json_object *id;
	int64_t n;

	if (!json_object_object_get_ex(msg, "id", &id)) {
		*ret = 0;
		return is_error && q->n_pending > 0;
	}
	if (!qmp_member_number(msg, "id", INT64_MAX - 1, &n))
		return false;
	for (size_t i = 0; i < q->n_pending; i++)
		if (q->pending[i].id == n) {
			*ret = i;
			return true;
		}
	return false;
}

static void on_reply(struct qmp *q, json_object *msg, json_object *ret, json_object *error, bool is_error)
{
	char text[ERROR_LEN];
	const char *desc;
	struct pending p;
	size_t i;

	if (!pending_find(q, msg, is_error, &i))
		return;
	p = pending_take(q, i);
	if (!is_error) {
		p.fn(p.user, ret, NULL);
		return;
	}
	desc = qmp_member_text(error, "desc");
	(void)str_copy(text, sizeof(text), desc && *desc ? desc : "error without a description");
	p.fn(p.user, NULL, text);
}

static void on_message(struct qmp *q, json_object *msg)
{
	json_object *ret = NULL, *error = NULL;
	bool has_ret = json_object_object_get_ex(msg, "return", &ret), has_error = json_object_object_get_ex(msg, "error", &error);

	if (q->phase == QMP_GREETING)
		on_greeting(q, msg);
	else if (has_ret || has_error)
		on_reply(q, msg, ret, error, has_error);
	else
		on_event(q, msg);
}

static void on_line(struct qmp *q, const char *line, size_t n)
{
	json_object *msg;
	const char *reason = qmp_line_parse(line, n, QMP_MAX_DEPTH, &msg);

	if (reason)
		qmp_close(q, reason);
	else if (msg)
		on_message(q, msg);
	json_object_put(msg);
}

void qmp_feed(struct qmp *q, const void *bytes, size_t n)
{
	const char *p = bytes;

	while (n > 0 && q->phase != QMP_CLOSED) {
		const char *end = memchr(p, '\n', n);
		size_t part = end ? (size_t)(end - p) : n;

		if (part > QMP_MAX_LINE - q->in.len) {
			qmp_close(q, "line too long");
			return;
		}
		if (qmp_buffer_append(&q->in, p, part) < 0) {
			qmp_close(q, "out of memory");
			return;
		}
		if (end) {
			on_line(q, q->in.bytes, q->in.len);
			qmp_buffer_consume(&q->in, q->in.len);
			part++;
		}
		p += part;
		n -= part;
	}
}

size_t qmp_output(const struct qmp *q, const char **ret)
{
	*ret = q->out.bytes;
	return q->out.len;
}

void qmp_sent(struct qmp *q, size_t n)
{
	CHECK(n <= q->out.len);
	qmp_buffer_consume(&q->out, n);
}

void qmp_tick(struct qmp *q, uint64_t now_ms)
{
	static const char *const waiting_for[] = {
		[QMP_GREETING] = "timeout: no greeting", [QMP_NEGOTIATING] = "timeout: qmp_capabilities not answered",
		[QMP_QUERYING] = "timeout: query-status not answered",
	};
	int64_t end = q->next_id; /* a command given by a callback waits for the next tick, even with a timeout of 0 */

	if (q->phase < QMP_READY && q->handshake_deadline_ms <= now_ms)
		qmp_close(q, waiting_for[q->phase]);
	for (size_t i = 0; i < q->n_pending && q->pending[i].id < end;) {
		struct pending p = q->pending[i];

		if (p.deadline_ms > now_ms) {
			i++;
			continue;
		}
		(void)pending_take(q, i);
		p.fn(p.user, NULL, "timeout"); /* may add commands at the end, or drop all */
	}
}

uint64_t qmp_deadline(const struct qmp *q)
{
	uint64_t deadline_ms = q->phase < QMP_READY ? q->handshake_deadline_ms : QMP_NO_DEADLINE;

	for (size_t i = 0; i < q->n_pending; i++)
		deadline_ms = MIN(deadline_ms, q->pending[i].deadline_ms);
	return deadline_ms;
}
