/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/migrate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define COMMAND_MS 10000
#define TLS_OBJECT "kvm-ha-migration-tls"

/* The commands, in order. An earlier migration's certificates go first: they may be others by now, and QEMU takes no second object of one name. */
enum step { STEP_NO_TLS, STEP_TLS, STEP_CAPABILITIES, STEP_PARAMETERS, STEP_BEGIN };

struct chain {
	struct qmp_conn *c;
	struct qmp_migration_options o;
	bool out;
	enum step step;
	char uri[320], tls_dir[PATH_MAX], tls_name[256];
	qmp_migrate_done_fn fn;
	void *user;
};

struct call {
	struct qmp_conn *conn;
	qmp_migrate_done_fn done;
	qmp_migrate_progress_fn progress;
	void *user;
};

enum qmp_migration_status qmp_migration_status_parse(const char *word)
{
	static const struct { const char *word; enum qmp_migration_status status; } table[] = {
		{ "setup", QMP_MIGRATION_SETUP },          { "wait-unplug", QMP_MIGRATION_SETUP },   { "active", QMP_MIGRATION_ACTIVE },
		{ "pre-switchover", QMP_MIGRATION_PAUSED }, { "device", QMP_MIGRATION_SWITCHING },    { "completed", QMP_MIGRATION_COMPLETED },
		{ "failed", QMP_MIGRATION_FAILED },        { "cancelling", QMP_MIGRATION_CANCELLING }, { "cancelled", QMP_MIGRATION_CANCELLED },
	};

	for (size_t i = 0; word && i < ARRAY_SIZE(table); i++)
		if (streq(table[i].word, word))
			return table[i].status;
	return QMP_MIGRATION_NONE;
}

bool qmp_migration_moves(enum qmp_migration_status s)
{
	return s == QMP_MIGRATION_SETUP || s == QMP_MIGRATION_ACTIVE || s == QMP_MIGRATION_PAUSED || s == QMP_MIGRATION_SWITCHING ||
	       s == QMP_MIGRATION_CANCELLING;
}

static json_object *member(json_object *o, const char *key, enum json_type type)
{
	json_object *v;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) && json_object_is_type(v, type) ? v : NULL;
}

static uint64_t number(json_object *o, const char *key)
{
	json_object *v = member(o, key, json_type_int);
	int64_t n = v ? json_object_get_int64(v) : 0;

	return n > 0 ? (uint64_t)n : 0;
}

static double real_number(json_object *o, const char *key)
{
	json_object *v = NULL;
	double n = 0;

	if (json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) &&
	    (json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int)))
		n = json_object_get_double(v);
	return n > 0 && n < 1e12 ? n : 0; /* NaN is neither */
}

struct qmp_migration_progress qmp_migration_parse(json_object *ret)
{
	struct qmp_migration_progress p = { 0 };
	json_object *status = member(ret, "status", json_type_string), *ram = member(ret, "ram", json_type_object);
	json_object *error = member(ret, "error-desc", json_type_string), *at = member(ret, "socket-address", json_type_array);
	uint64_t page = number(ram, "page-size");
	unsigned port = 0;

	p.status = qmp_migration_status_parse(status ? json_object_get_string(status) : NULL);
	p.total = number(ram, "total");
	p.remaining = MIN(number(ram, "remaining"), p.total);
	p.transferred = number(ram, "transferred");
	p.rate = (uint64_t)(real_number(ram, "mbps") * 1e6 / 8);
	p.dirty_rate = MIN(number(ram, "dirty-pages-rate"), UINT64_MAX / MAX(page, 1U)) * page;
	p.passes = number(ram, "dirty-sync-count");
	p.total_ms = number(ret, "total-time");
	p.downtime_ms = number(ret, "downtime");
	(void)str_copy(p.error, sizeof(p.error), error ? json_object_get_string(error) : "");
	for (size_t i = 0; at && i < json_object_array_length(at) && p.port == 0; i++) {
		json_object *text = member(json_object_array_get_idx(at, i), "port", json_type_string);

		if (text && sscanf(json_object_get_string(text), "%5u", &port) == 1 && port <= UINT16_MAX)
			p.port = port;
	}
	return p;
}

static void add_capability(json_object *list, const char *name, bool on)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "capability", json_object_new_string(name));
	json_object_object_add(o, "state", json_object_new_boolean(on));
	json_object_array_add(list, o);
}

static json_object *capabilities(const struct chain *ch)
{
	json_object *args = json_object_new_object(), *list = json_object_new_array();

	add_capability(list, "events", true);
	add_capability(list, "late-block-activate", true);
	add_capability(list, "pause-before-switchover", ch->out);
	add_capability(list, "auto-converge", ch->out && ch->o.auto_converge);
	add_capability(list, "multifd", ch->o.channels > 1);
	json_object_object_add(args, "capabilities", list);
	return args;
}

static json_object *parameters(const struct chain *ch)
{
	json_object *args = json_object_new_object();

	if (ch->out && ch->o.bandwidth)
		json_object_object_add(args, "max-bandwidth", json_object_new_int64((int64_t)ch->o.bandwidth));
	if (ch->out && ch->o.downtime_ms)
		json_object_object_add(args, "downtime-limit", json_object_new_int64(ch->o.downtime_ms));
	if (ch->o.channels > 1)
		json_object_object_add(args, "multifd-channels", json_object_new_int64(ch->o.channels));
	/* Never what is left of the one before: "" is none. */
	json_object_object_add(args, "tls-creds", json_object_new_string(*ch->tls_dir ? TLS_OBJECT : ""));
	json_object_object_add(args, "tls-hostname", json_object_new_string(ch->out ? ch->tls_name : ""));
	return args;
}

static json_object *tls_object(const struct chain *ch)
{
	json_object *args = json_object_new_object();

	json_object_object_add(args, "qom-type", json_object_new_string("tls-creds-x509"));
	json_object_object_add(args, "id", json_object_new_string(TLS_OBJECT));
	json_object_object_add(args, "dir", json_object_new_string(ch->tls_dir));
	json_object_object_add(args, "endpoint", json_object_new_string(ch->out ? "client" : "server"));
	json_object_object_add(args, "verify-peer", json_object_new_boolean(true));
	return args;
}

static json_object *tls_id(void)
{
	json_object *args = json_object_new_object();

	json_object_object_add(args, "id", json_object_new_string(TLS_OBJECT));
	return args;
}

static void end(struct chain *ch, const char *error)
{
	qmp_migrate_done_fn fn = ch->fn;
	void *user = ch->user;

	free(ch);
	fn(user, error);
}

static int next(struct chain *ch);

static void on_step(void *user, json_object *ret, const char *error)
{
	struct chain *ch = user;

	if (error && ch->step == STEP_NO_TLS && !streq(error, "disconnected") && !streq(error, "timeout"))
		error = NULL; /* there was none */
	if (error || ch->step == STEP_BEGIN) {
		end(ch, error);
		return;
	}
	ch->step++;
	if (next(ch) < 0)
		end(ch, "disconnected");
}

static int next(struct chain *ch)
{
	json_object *args;

	switch (ch->step) {
	case STEP_NO_TLS:
		return qmp_conn_execute(ch->c, "object-del", tls_id(), COMMAND_MS, on_step, ch);
	case STEP_TLS:
		return qmp_conn_execute(ch->c, "object-add", tls_object(ch), COMMAND_MS, on_step, ch);
	case STEP_CAPABILITIES:
		return qmp_conn_execute(ch->c, "migrate-set-capabilities", capabilities(ch), COMMAND_MS, on_step, ch);
	case STEP_PARAMETERS:
		return qmp_conn_execute(ch->c, "migrate-set-parameters", parameters(ch), COMMAND_MS, on_step, ch);
	default:
		args = json_object_new_object();
		json_object_object_add(args, "uri", json_object_new_string(ch->uri));
		return qmp_conn_execute(ch->c, ch->out ? "migrate" : "migrate-incoming", args, QMP_TIMEOUT_OF_CLASS, on_step, ch);
	}
}

static int begin(struct qmp_conn *c, const char *host, uint32_t port, const struct qmp_migration_options *o, bool out, qmp_migrate_done_fn fn, void *user)
{
	struct chain *ch = calloc(1, sizeof(*ch));
	bool v6 = strchr(host, ':');
	int r;

	if (!ch)
		return -ENOMEM;
	*ch = (struct chain){ .c = c, .o = *o, .out = out, .step = o->tls_dir ? STEP_NO_TLS : STEP_CAPABILITIES, .fn = fn, .user = user };
	if ((size_t)snprintf(ch->uri, sizeof(ch->uri), "tcp:%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", port) >= sizeof(ch->uri) ||
	    !str_copy(ch->tls_dir, sizeof(ch->tls_dir), o->tls_dir ? o->tls_dir : "") ||
	    !str_copy(ch->tls_name, sizeof(ch->tls_name), o->tls_dir && o->tls_name ? o->tls_name : "")) {
		free(ch);
		return -ENAMETOOLONG;
	}
	r = next(ch);
	if (r < 0)
		free(ch);
	return r;
}

int qmp_migrate_incoming(struct qmp_conn *c, const char *host, const struct qmp_migration_options *o, qmp_migrate_done_fn fn, void *user)
{
	return begin(c, host, 0, o, false, fn, user);
}

int qmp_migrate_outgoing(struct qmp_conn *c, const char *host, uint32_t port, const struct qmp_migration_options *o, qmp_migrate_done_fn fn, void *user)
{
	return begin(c, host, port, o, true, fn, user);
}

static void on_called(void *user, json_object *ret, const char *error)
{
	struct call call = *(struct call *)user;
	struct qmp_migration_progress p;

	free(user);
	if (call.done) {
		call.done(call.user, error);
		return;
	}
	p = qmp_migration_parse(ret);
	call.progress(call.user, error ? NULL : &p);
}

static int one_call(struct qmp_conn *c, const char *command, json_object *args, const struct call *what)
{
	struct call *call = malloc(sizeof(*call));
	int r;

	if (!call) {
		json_object_put(args);
		return -ENOMEM;
	}
	*call = *what;
	r = qmp_conn_execute(c, command, args, COMMAND_MS, on_called, call);
	if (r < 0)
		free(call);
	return r;
}

int qmp_migrate_continue(struct qmp_conn *c, qmp_migrate_done_fn fn, void *user)
{
	json_object *args = json_object_new_object();

	json_object_object_add(args, "state", json_object_new_string("pre-switchover"));
	return one_call(c, "migrate-continue", args, &(struct call){ .done = fn, .user = user });
}

static void finish(struct call *call, const char *error)
{
	struct call end = *call;

	free(call);
	end.done(end.user, error);
}

/* Refused where it was not waiting: all is well then. */
static void on_woken(void *user, json_object *ret, const char *error)
{
	(void)ret;
	(void)error;
	finish(user, NULL);
}

static void on_cancelled(void *user, json_object *ret, const char *error)
{
	struct call *call = user;
	json_object *args;

	(void)ret;
	if (!error) {
		args = json_object_new_object();
		json_object_object_add(args, "state", json_object_new_string("cancelling"));
		if (qmp_conn_execute(call->conn, "migrate-continue", args, COMMAND_MS, on_woken, call) == 0)
			return;
	}
	finish(call, error);
}

/* A cancel that QEMU (7.2) hears just when it has stopped the guest finds it about to wait for migrate-continue, and does not wake it: the guest would
 * stand still, "cancelling", for ever. Whenever that stop had to wait for storage it is heard then. A cancelled migration that is woken does not complete. */
int qmp_migrate_cancel(struct qmp_conn *c, qmp_migrate_done_fn fn, void *user)
{
	struct call *call = malloc(sizeof(*call));
	int r;

	if (!call)
		return -ENOMEM;
	*call = (struct call){ .conn = c, .done = fn, .user = user };
	r = qmp_conn_execute(c, "migrate_cancel", NULL, COMMAND_MS, on_cancelled, call);
	if (r < 0)
		free(call);
	return r;
}

static void on_forgotten(void *user, json_object *ret, const char *error) {}

void qmp_migrate_forget_tls(struct qmp_conn *c)
{
	json_object *args = json_object_new_object();

	json_object_object_add(args, "tls-creds", json_object_new_string(""));
	json_object_object_add(args, "tls-hostname", json_object_new_string(""));
	(void)qmp_conn_execute(c, "migrate-set-parameters", args, COMMAND_MS, on_forgotten, NULL);
	(void)qmp_conn_execute(c, "object-del", tls_id(), COMMAND_MS, on_forgotten, NULL);
}

int qmp_migrate_query(struct qmp_conn *c, qmp_migrate_progress_fn fn, void *user)
{
	return one_call(c, "query-migrate", NULL, &(struct call){ .progress = fn, .user = user });
}
