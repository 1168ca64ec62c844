/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-ctl's socket: a JSON object a line each way. What only shows is answered here; what changes the catalog is done by the leader, here or by
 * way of the ring. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"

#define MAX_LINE (1024U * 1024)
#define MAX_CLIENTS 64
#define JSON_DEPTH 64
#define API_VERSION 1
#define PARK_MS 50
#define PARK_LIMIT_MS 8000

struct ctl_client {
	struct server *s;
	int fd; /* -1: free */
	uint64_t serial;
	char *in, *out;
	size_t in_len, in_size, out_len, out_sent;
	bool busy;
};

struct server {
	struct agentd *d;
	int fd;
	uint64_t serial;
	struct ctl_client client[MAX_CLIENTS];
};

struct pending {
	struct server *s;
	server_answer_fn fn;
	void *user;
	json_object *answer; /* on success */
	char what[128];
	bool has_hook;
	enum hook_event hook;
	uint32_t hook_node;
};

json_object *server_ok(void)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "api_version", json_object_new_int(API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(true));
	return o;
}

json_object *server_error(bool temporary, const char *fmt, ...)
{
	json_object *o = json_object_new_object();
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_object_add(o, "api_version", json_object_new_int(API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(false));
	json_object_object_add(o, "error", json_object_new_string(text));
	json_object_object_add(o, "temporary", json_object_new_boolean(temporary));
	return o;
}

static void answer_with(server_answer_fn fn, void *user, json_object *answer)
{
	fn(user, answer);
	json_object_put(answer);
}

static const char *string_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

static bool bool_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_get_boolean(v);
}

/* Edits: each makes a new document and says what to answer, or refuses. */

struct edit {
	struct agentd *d;
	struct catalog_doc *doc;
	json_object *request, *answer;
	char err[512];
	char what[128];
	bool has_hook;
	enum hook_event hook;
	uint32_t hook_node;
};

static struct catalog_entry *edit_vm(struct edit *e)
{
	const char *name = string_of(e->request, "name");
	struct catalog_entry *vm = name ? catalog_by_name(e->doc, name) : NULL;

	if (!vm)
		(void)snprintf(e->err, sizeof(e->err), "no VM named %.64s: see `ha-ctl vm list`", name ? name : "");
	return vm;
}

static bool edit_arm(struct edit *e, bool on)
{
	const struct agent *a = &e->d->core;

	if (on && e->d->conf.require_ring_encryption && a->have_table && a->table.table.ring != HEARTBEAT_RING_LOST &&
	    !a->table.table.ring_encrypted) {
		(void)snprintf(e->err, sizeof(e->err), "the corosync ring is not encrypted: set crypto_cipher and crypto_hash in corosync.conf, or "
						       "[Ring] RequireEncryption=no in kvm-ha.conf if its network can be trusted");
		return false;
	}
	e->doc->armed = on;
	(void)snprintf(e->what, sizeof(e->what), "cluster %s", on ? "armed" : "disarmed");
	return true;
}

static bool edit_maintenance(struct edit *e)
{
	const char *name = string_of(e->request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&e->d->conf, name) : NULL;
	uint64_t bit = n ? 1ULL << (n->id - 1) : 0;
	bool on = bool_of(e->request, "on");

	if (!n) {
		(void)snprintf(e->err, sizeof(e->err), "no node named %.64s in Nodes=: see `ha-ctl node list`", name ? name : "");
		return false;
	}
	e->doc->maintenance = on ? e->doc->maintenance | bit : e->doc->maintenance & ~bit;
	e->has_hook = true;
	e->hook = on ? HOOK_MAINTENANCE_ON : HOOK_MAINTENANCE_OFF;
	e->hook_node = n->id;
	(void)snprintf(e->what, sizeof(e->what), "node %.64s: maintenance %s", n->name, on ? "on" : "off");
	return true;
}

static bool edit_add(struct edit *e)
{
	const char *text = string_of(e->request, "text");
	struct catalog_entry *vm;

	if (!text || catalog_add(e->doc, text, strlen(text), e->err, sizeof(e->err)) < 0) {
		if (!text)
			(void)snprintf(e->err, sizeof(e->err), "the request has no VM file");
		return false;
	}
	vm = &e->doc->entry[e->doc->n - 1];
	for (size_t i = 0; i < vm->file.n_disks; i++) {
		char why[256];

		if (volume_url_check(vm->file.disks[i], why, sizeof(why)) < 0) {
			(void)snprintf(e->err, sizeof(e->err), "Disk=%.150s: %s", vm->file.disks[i], why);
			return false;
		}
	}
	json_object_object_add(e->answer, "name", json_object_new_string(vm->file.name));
	json_object_object_add(e->answer, "uuid", json_object_new_string(vm->uuid_text));
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s added", vm->file.name);
	return true;
}

static bool edit_desired(struct edit *e, enum vm_desired to)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (to == DESIRED_REMOVED && vm->desired == DESIRED_STARTED) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is to run: stop it first, `ha-ctl vm stop %.64s`", vm->file.name, vm->file.name);
		return false;
	}
	if (vm->desired == DESIRED_REMOVED) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is being removed; add it again once it is gone", vm->file.name);
		return false;
	}
	vm->desired = to;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: to be %s", vm->file.name,
		       to == DESIRED_STARTED ? "started" : to == DESIRED_STOPPED ? "stopped" : "removed");
	return true;
}

/* From an agent, not from an operator. */
static bool edit_guest_off(struct edit *e)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (vm->desired == DESIRED_STARTED)
		vm->desired = DESIRED_STOPPED;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: powered off by its guest", vm->file.name);
	return true;
}

static bool edit_forget(struct edit *e)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm || vm->desired != DESIRED_REMOVED)
		return false;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s removed", vm->file.name);
	catalog_remove(e->doc, vm->uuid);
	return true;
}

static bool edit(struct edit *e, const char *command)
{
	if (streq(command, "arm"))
		return edit_arm(e, true);
	if (streq(command, "disarm"))
		return edit_arm(e, false);
	if (streq(command, "node-maintenance"))
		return edit_maintenance(e);
	if (streq(command, "vm-add"))
		return edit_add(e);
	if (streq(command, "vm-start"))
		return edit_desired(e, DESIRED_STARTED);
	if (streq(command, "vm-stop"))
		return edit_desired(e, DESIRED_STOPPED);
	if (streq(command, "vm-remove"))
		return edit_desired(e, DESIRED_REMOVED);
	if (streq(command, "vm-guest-off"))
		return edit_guest_off(e);
	return edit_forget(e);
}

static bool is_edit(const char *command)
{
	static const char *const edits[] = { "arm", "disarm", "node-maintenance", "vm-add", "vm-start", "vm-stop", "vm-remove", "vm-guest-off",
					     "vm-forget" };

	for (size_t i = 0; i < ARRAY_SIZE(edits); i++)
		if (streq(command, edits[i]))
			return true;
	return false;
}

static void on_written(void *user, const char *error, bool temporary)
{
	struct pending *p = user;

	if (error) {
		answer_with(p->fn, p->user, server_error(temporary, "%s", error));
	} else {
		agentd_say(p->s->d, LOG_LEVEL_NOTICE, "%s", p->what);
		if (p->has_hook)
			agentd_hook(p->s->d, p->hook, p->hook_node, NULL, p->what);
		answer_with(p->fn, p->user, json_object_get(p->answer));
	}
	json_object_put(p->answer);
	free(p);
}

/* An edit that cannot be made at this moment: a leader is being found, or another change is being written. It waits here for a while. */
struct parked {
	struct server *s;
	json_object *request;
	bool forwarded;
	int64_t until_ns;
	server_answer_fn fn;
	void *user;
};

static void edit_anywhere(struct server *s, json_object *request, bool forwarded, int64_t until_ns, server_answer_fn fn, void *user);

static void on_parked(void *data)
{
	struct parked *k = data;

	edit_anywhere(k->s, k->request, k->forwarded, k->until_ns, k->fn, k->user);
	json_object_put(k->request);
	free(k);
}

static void park(struct server *s, json_object *request, bool forwarded, int64_t until_ns, server_answer_fn fn, void *user, const char *why)
{
	struct parked *k = calloc(1, sizeof(*k));
	qb_loop_timer_handle h;

	if (clock_now_ns() >= until_ns || !k) {
		free(k);
		answer_with(fn, user, server_error(true, "%s", why));
		return;
	}
	*k = (struct parked){ s, json_object_get(request), forwarded, until_ns, fn, user };
	CHECK(qb_loop_timer_add(s->d->loop, QB_LOOP_MED, PARK_MS * NS_PER_MS, k, on_parked, &h) == 0);
}

static void edit_here(struct server *s, const char *command, json_object *request, server_answer_fn fn, void *user)
{
	struct edit e = { .d = s->d, .request = request };
	struct pending *p;
	int r;

	e.doc = catalog_copy(s->d->catalog);
	p = calloc(1, sizeof(*p));
	CHECK(e.doc && p);
	e.answer = server_ok();
	if (!edit(&e, command)) {
		answer_with(fn, user, server_error(false, "%s", e.err[0] ? e.err : "nothing to do"));
		json_object_put(e.answer);
		catalog_free(e.doc);
		free(p);
		return;
	}
	*p = (struct pending){ .s = s, .fn = fn, .user = user, .answer = e.answer, .has_hook = e.has_hook, .hook = e.hook, .hook_node = e.hook_node };
	(void)str_copy(p->what, sizeof(p->what), e.what);
	r = store_write_catalog(s->d->store, e.doc, on_written, p);
	if (r < 0) {
		answer_with(fn, user, r == -EFBIG ? server_error(false, "the catalog would not fit its place on the volumes (%u KiB)",
								 FORMAT_CATALOG_MAX_PAYLOAD / 1024)
						  : server_error(true, "another change is being written: try again"));
		json_object_put(e.answer);
		free(p);
	}
}

static void on_forwarded(void *user, json_object *answer)
{
	struct pending *p = user;

	if (answer)
		p->fn(p->user, answer);
	else
		answer_with(p->fn, p->user, server_error(true, "the leader did not answer in time: check with `ha-ctl status`, then try again"));
	free(p);
}

static void edit_anywhere(struct server *s, json_object *request, bool forwarded, int64_t until_ns, server_answer_fn fn, void *user)
{
	uint32_t leader = s->d->core_runs ? agent_leader(&s->d->core) : 0;
	struct pending *p;

	if (s->d->core_runs && s->d->core.leads) {
		if (store_may_edit(s->d->store))
			edit_here(s, string_of(request, "command"), request, fn, user);
		else
			park(s, request, forwarded, until_ns, fn, user, "another change is being written, or this leader still reads the catalog: try again");
		return;
	}
	if (leader == 0 || forwarded) {
		park(s, request, forwarded, until_ns, fn, user, "no node leads at the moment: `ha-ctl status` says why; try again");
		return;
	}
	p = calloc(1, sizeof(*p));
	CHECK(p);
	*p = (struct pending){ .s = s, .fn = fn, .user = user };
	if (peers_forward(s->d->peers, leader, request, on_forwarded, p) < 0) {
		answer_with(fn, user, server_error(true, "node %s leads, but the ring does not reach it: run the command there",
						   agentd_node_name(s->d, leader)));
		free(p);
	}
}

static json_object *show_vm(struct agentd *d, json_object *request)
{
	const char *name = string_of(request, "name");
	struct catalog_entry *e = name && d->catalog ? catalog_by_name(d->catalog, name) : NULL;
	json_object *o, *vm;

	if (!e)
		return server_error(false, "no VM named %.64s: see `ha-ctl vm list`", name ? name : "");
	o = server_ok();
	vm = status_vm(d, e);
	json_object_object_add(vm, "text", json_object_new_string(e->text));
	json_object_object_add(o, "vm", vm);
	return o;
}

static json_object *show_events(struct agentd *d, json_object *request)
{
	static const char *const level[] = { "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug" };
	json_object *o = server_ok(), *list = json_object_new_array(), *since;
	uint64_t after = json_object_object_get_ex(request, "since", &since) ? json_object_get_uint64(since) : 0;
	uint64_t first = d->next_log_id > AGENTD_LOG ? d->next_log_id - AGENTD_LOG : 0;

	for (uint64_t id = MAX(first, after) + 1; id <= d->next_log_id; id++) {
		const struct log_entry *e = &d->log[id % AGENTD_LOG];
		json_object *line;

		if (e->id != id)
			continue; /* before this agent's start */
		line = json_object_new_object();
		json_object_object_add(line, "id", json_object_new_uint64(e->id));
		json_object_object_add(line, "time_ms", json_object_new_int64(e->time_ms));
		json_object_object_add(line, "level", json_object_new_string(level[e->level]));
		json_object_object_add(line, "text", json_object_new_string(e->text));
		json_object_array_add(list, line);
	}
	json_object_object_add(o, "events", list);
	return o;
}

void server_request(struct server *s, json_object *request, bool forwarded, server_answer_fn fn, void *user)
{
	const char *command = string_of(request, "command");
	json_object *o;

	if (!command) {
		answer_with(fn, user, server_error(false, "the request has no command"));
	} else if (is_edit(command)) {
		edit_anywhere(s, request, forwarded, clock_now_ns() + PARK_LIMIT_MS * NS_PER_MS, fn, user);
	} else if (streq(command, "status")) {
		o = server_ok();
		json_object_object_add(o, "status", status_build(s->d));
		answer_with(fn, user, o);
	} else if (streq(command, "vm-show")) {
		answer_with(fn, user, show_vm(s->d, request));
	} else if (streq(command, "events")) {
		answer_with(fn, user, show_events(s->d, request));
	} else {
		answer_with(fn, user, server_error(false, "unknown command %.64s: is ha-ctl newer than this agent?", command));
	}
}

/* Connections. */

static void client_close(struct ctl_client *c)
{
	(void)qb_loop_poll_del(c->s->d->loop, c->fd);
	(void)close(c->fd);
	free(c->in);
	free(c->out);
	*c = (struct ctl_client){ .s = c->s, .fd = -1 };
}

static int32_t on_client(int32_t fd, int32_t revents, void *data);

static void client_flush(struct ctl_client *c)
{
	while (c->out_sent < c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			(void)qb_loop_poll_mod(c->s->d->loop, QB_LOOP_LOW, c->fd, POLLOUT, c, on_client);
			return;
		}
		if (n < 0) {
			client_close(c);
			return;
		}
		c->out_sent += (size_t)n;
	}
	free(c->out);
	c->out = NULL;
	c->out_len = c->out_sent = 0;
	c->busy = false;
	(void)qb_loop_poll_mod(c->s->d->loop, QB_LOOP_LOW, c->fd, POLLIN, c, on_client);
}

struct client_ref {
	struct ctl_client *c;
	uint64_t serial;
};

static void on_client_answer(void *user, json_object *answer)
{
	struct client_ref *ref = user;
	struct ctl_client *c = ref->c;
	const char *text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);

	if (c->fd >= 0 && c->serial == ref->serial && asprintf(&c->out, "%s\n", text) >= 0) {
		c->out_len = strlen(c->out);
		c->out_sent = 0;
		client_flush(c);
	}
	free(ref);
}

static void client_line(struct ctl_client *c, const char *line, size_t len)
{
	json_tokener *tok = json_tokener_new_ex(JSON_DEPTH);
	json_object *request = tok ? json_tokener_parse_ex(tok, line, (int)len) : NULL;
	struct client_ref *ref = malloc(sizeof(*ref));

	CHECK(ref);
	*ref = (struct client_ref){ c, c->serial };
	c->busy = true;
	if (json_object_is_type(request, json_type_object))
		server_request(c->s, request, false, on_client_answer, ref);
	else
		answer_with(on_client_answer, ref, server_error(false, "the request is not a JSON object on one line"));
	json_object_put(request);
	if (tok)
		json_tokener_free(tok);
}

static int32_t on_client(int32_t fd, int32_t revents, void *data)
{
	struct ctl_client *c = data;
	char *end;
	ssize_t n;

	if (c->out) {
		client_flush(c);
		return 0;
	}
	if (c->in_size - c->in_len < 4096) {
		size_t size = c->in_size ? c->in_size * 2 : 8192;
		char *more = size <= 2 * MAX_LINE ? realloc(c->in, size) : NULL;

		if (!more) {
			client_close(c); /* too long a line */
			return 0;
		}
		c->in = more;
		c->in_size = size;
	}
	n = recv(fd, c->in + c->in_len, c->in_size - c->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		client_close(c);
		return 0;
	}
	c->in_len += (size_t)n;
	end = memchr(c->in, '\n', c->in_len);
	if (end && !c->busy) {
		size_t len = (size_t)(end - c->in);
		char *line = strndup(c->in, len);

		memmove(c->in, end + 1, c->in_len - len - 1);
		c->in_len -= len + 1;
		CHECK(line);
		client_line(c, line, len);
		free(line);
	}
	return 0;
}

static int32_t on_connect(int32_t listen_fd, int32_t revents, void *data)
{
	struct server *s = data;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; i < MAX_CLIENTS && fd >= 0; i++) {
		struct ctl_client *c = &s->client[i];

		if (c->fd >= 0)
			continue;
		*c = (struct ctl_client){ .s = s, .fd = fd, .serial = ++s->serial };
		if (qb_loop_poll_add(s->d->loop, QB_LOOP_LOW, fd, POLLIN, c, on_client) == 0)
			return 0;
		c->fd = -1;
		break;
	}
	if (fd >= 0)
		(void)close(fd);
	return 0;
}

int server_new(struct agentd *d, struct server **ret)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = AGENTD_SOCKET };
	struct server *s = calloc(1, sizeof(*s));
	mode_t old;
	int r;

	if (!s)
		return -ENOMEM;
	s->d = d;
	for (unsigned i = 0; i < MAX_CLIENTS; i++)
		s->client[i].fd = -1;
	(void)unlink(AGENTD_SOCKET);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	old = umask(0077); /* root only */
	r = s->fd < 0 || bind(s->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(s->fd, MAX_CLIENTS) < 0 ? -errno : 0;
	(void)umask(old);
	if (r < 0 || (r = qb_loop_poll_add(d->loop, QB_LOOP_LOW, s->fd, POLLIN, s, on_connect)) < 0) {
		if (s->fd >= 0)
			(void)close(s->fd);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}
