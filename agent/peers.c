/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages between agents over the ring. All of it is convenience: what is lost is asked for again, or seen on the volumes. JSON, bounded by the
 * ring's message size; what does not parse is dropped. */
#include <errno.h>

#include "agent/agentd.h"
#include "agent/base/uuid.h"

#define FORWARD_MS 20000
#define MAX_FORWARDS 64
#define STATUS_MS 2000
#define JSON_DEPTH 32

struct forward {
	struct peers *p;
	bool used;
	int64_t id;
	peers_reply_fn fn;
	void *user;
	qb_loop_timer_handle timer;
};

struct peers {
	struct agentd *d;
	struct forward forward[MAX_FORWARDS];
	int64_t next_id;
	json_object *status[FORMAT_MAX_NODES]; /* what each node last said of its VMs */
	qb_loop_timer_handle timer;
	bool soon;
};

/* Ownership of message passes on. */
static int send_to(struct peers *p, uint32_t node, const char *type, json_object *message)
{
	const char *text;
	int r;

	json_object_object_add(message, "type", json_object_new_string(type));
	json_object_object_add(message, "to", json_object_new_int64(node));
	text = json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN);
	r = p->d->ring ? ring_send(p->d->ring, text, strlen(text)) : -ENOTCONN;
	json_object_put(message);
	return r;
}

void peers_assign(struct peers *p, uint32_t node, uint32_t epoch, const uint8_t uuid[16])
{
	json_object *m = json_object_new_object();
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	json_object_object_add(m, "vm", json_object_new_string(text));
	json_object_object_add(m, "epoch", json_object_new_int64(epoch));
	(void)send_to(p, node, "assign", m); /* the leader repeats it */
}

void peers_say(struct peers *p, const char *text)
{
	json_object *m = json_object_new_object();

	json_object_object_add(m, "text", json_object_new_string(text));
	(void)send_to(p, 0, "say", m);
}

static void forward_end(struct forward *f, json_object *answer)
{
	peers_reply_fn fn = f->fn;
	void *user = f->user;

	if (f->timer)
		(void)qb_loop_timer_del(f->p->d->loop, f->timer);
	f->timer = 0;
	f->used = false;
	fn(user, answer);
}

static void on_forward_timeout(void *data)
{
	struct forward *f = data;

	f->timer = 0;
	forward_end(f, NULL);
}

int peers_forward(struct peers *p, uint32_t node, json_object *request, peers_reply_fn fn, void *user)
{
	json_object *m;

	for (unsigned i = 0; i < MAX_FORWARDS; i++) {
		struct forward *f = &p->forward[i];
		int r;

		if (f->used)
			continue;
		m = json_object_new_object();
		*f = (struct forward){ .p = p, .used = true, .id = ++p->next_id, .fn = fn, .user = user };
		json_object_object_add(m, "id", json_object_new_int64(f->id));
		json_object_object_add(m, "request", json_object_get(request));
		r = send_to(p, node, "request", m);
		if (r < 0) {
			f->used = false;
			return r;
		}
		return qb_loop_timer_add(p->d->loop, QB_LOOP_MED, FORWARD_MS * NS_PER_MS, f, on_forward_timeout, &f->timer);
	}
	return -EBUSY;
}

static const char *string_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

static int64_t int_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_int64(v) : 0;
}

struct reply {
	struct peers *p;
	uint32_t node;
	int64_t id;
};

static void on_answer(void *user, json_object *answer)
{
	struct reply *r = user;
	json_object *m = json_object_new_object();

	json_object_object_add(m, "id", json_object_new_int64(r->id));
	json_object_object_add(m, "answer", json_object_get(answer));
	(void)send_to(r->p, r->node, "answer", m);
	free(r);
}

static void take_request(struct peers *p, uint32_t node, json_object *m)
{
	struct reply *r = malloc(sizeof(*r));
	json_object *request;

	if (!r || !json_object_object_get_ex(m, "request", &request)) {
		free(r);
		return;
	}
	*r = (struct reply){ p, node, int_of(m, "id") };
	server_request(p->d->server, request, true, on_answer, r);
}

static void take_answer(struct peers *p, json_object *m)
{
	int64_t id = int_of(m, "id");
	json_object *answer;

	for (unsigned i = 0; i < MAX_FORWARDS; i++) {
		if (!p->forward[i].used || p->forward[i].id != id || !json_object_object_get_ex(m, "answer", &answer))
			continue;
		forward_end(&p->forward[i], answer);
		return;
	}
}

static void take_assign(struct peers *p, uint32_t node, json_object *m)
{
	struct agent_event ev = { .kind = AGENT_EV_ASSIGN, .node = node };
	json_object *epoch;

	if (!uuid_parse(string_of(m, "vm"), ev.uuid) || !json_object_object_get_ex(m, "epoch", &epoch))
		return;
	ev.epoch = (uint32_t)json_object_get_int64(epoch);
	agentd_event(p->d, &ev);
}

void peers_probe(struct peers *p, const uint8_t uuid[16])
{
	json_object *m = json_object_new_object();
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	json_object_object_add(m, "vm", json_object_new_string(text));
	(void)send_to(p, 0, "probe", m); /* asked again while it is of interest */
}

struct probe_for {
	struct peers *p;
	uint32_t node;
};

static void on_probed(void *user, const uint8_t uuid[16], bool ok)
{
	struct probe_for *f = user;
	json_object *m = json_object_new_object();
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	json_object_object_add(m, "vm", json_object_new_string(text));
	json_object_object_add(m, "ok", json_object_new_boolean(ok));
	(void)send_to(f->p, f->node, "probed", m);
	free(f);
}

/* Only a node that could take the VM has a say in where its storage is to be had. */
static void take_probe(struct peers *p, uint32_t node, json_object *m)
{
	struct probe_for *f;
	uint8_t uuid[16];

	if (node == p->d->conf.self_id || !uuid_parse(string_of(m, "vm"), uuid) || !p->d->catalog || !agent_node_usable(&p->d->core, p->d->conf.self_id))
		return;
	f = malloc(sizeof(*f));
	if (!f)
		return;
	*f = (struct probe_for){ p, node };
	if (!drainer_ask(p->d->drainer, uuid, on_probed, f))
		free(f);
}

static void take_probed(struct peers *p, uint32_t node, json_object *m)
{
	struct agent_event ev = { .kind = AGENT_EV_STORAGE, .node = node };
	json_object *ok;

	ev.ok = json_object_object_get_ex(m, "ok", &ok) && json_object_get_boolean(ok);
	if (node != p->d->conf.self_id && uuid_parse(string_of(m, "vm"), ev.uuid))
		agentd_event(p->d, &ev);
}

static void take_ready(struct peers *p, uint32_t node, const char *uuid, json_object *vm)
{
	struct agent_event ev = { .kind = AGENT_EV_READY, .node = node };
	const char *ready = json_object_is_type(vm, json_type_object) ? string_of(vm, "ready") : "";
	json_object *held;
	const struct vm *v;

	ev.held = json_object_is_type(vm, json_type_object) && json_object_object_get_ex(vm, "held", &held) && json_object_get_boolean(held);
	for (unsigned i = READY_NOT; i <= READY_CHECK; i++)
		if (streq(ready, vm_ready_name((enum vm_ready)i)))
			ev.ready = (enum vm_ready)i;
	if (!uuid_parse(uuid, ev.uuid))
		return;
	v = agent_vm_by_uuid(&p->d->core, ev.uuid);
	if (v && !lead_ready_known(&p->d->core, v, node, ev.ready, ev.held)) /* most often it is no news */
		agentd_event(p->d, &ev);
}

static const char *const news_word[] = {
	[MIGRATE_NEWS_HANDED] = "handed", [MIGRATE_NEWS_OFF] = "off", [MIGRATE_NEWS_ASK] = "ask",
	[MIGRATE_NEWS_PREPARING] = "preparing", [MIGRATE_NEWS_STILL] = "still",
};

static void take_prepare(struct peers *p, uint32_t node, json_object *m)
{
	struct agent_event ev = { .kind = AGENT_EV_PREPARE, .node = node };
	int64_t epoch = int_of(m, "epoch");

	if (uuid_parse(string_of(m, "vm"), ev.uuid) && epoch > 0 && epoch <= UINT32_MAX) {
		ev.epoch = (uint32_t)epoch;
		agentd_event(p->d, &ev);
	}
}

static bool flag_of(json_object *m, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(m, key, &v) && json_object_get_boolean(v);
}

static void take_offer(struct peers *p, uint32_t node, json_object *m)
{
	int64_t id = int_of(m, "migration");
	uint8_t uuid[16];

	if (uuid_parse(string_of(m, "vm"), uuid) && id > 0)
		mover_offered(p->d->mover, node, uuid, (uint64_t)id, string_of(m, "host"), int_of(m, "port"), flag_of(m, "tls"));
}

static void take_refusal(struct peers *p, uint32_t node, json_object *m)
{
	uint8_t uuid[16];

	if (uuid_parse(string_of(m, "vm"), uuid))
		mover_refused(p->d->mover, node, uuid, string_of(m, "why"));
}

static void take_migration(struct peers *p, uint32_t node, json_object *m)
{
	struct agent_event ev = { .kind = AGENT_EV_MIGRATION, .node = node };
	int64_t id = int_of(m, "migration");

	if (!uuid_parse(string_of(m, "vm"), ev.uuid) || id <= 0)
		return;
	ev.migration = (uint64_t)id;
	for (size_t i = 0; i < ARRAY_SIZE(news_word); i++) {
		if (!news_word[i] || !streq(news_word[i], string_of(m, "news")))
			continue;
		ev.news = (enum migrate_news)i;
		agentd_event(p->d, &ev);
	}
}

static void take_status(struct peers *p, uint32_t node, json_object *m)
{
	struct agent_event capacity = { .kind = AGENT_EV_CAPACITY };
	const struct agent_node *known = &p->d->core.node[node - 1];
	json_object *vms;

	if (!json_object_object_get_ex(m, "vms", &vms) || !json_object_is_type(vms, json_type_object))
		return;
	json_object_put(p->status[node - 1]);
	p->status[node - 1] = json_object_get(vms);
	if (node == p->d->conf.self_id)
		return;
	capacity.node = node;
	capacity.cpus = (uint32_t)MIN(MAX(int_of(m, "cpus"), 0), UINT32_MAX);
	capacity.memory_mib = (uint32_t)MIN(MAX(int_of(m, "memory_mib"), 0), UINT32_MAX);
	if (capacity.cpus != known->cpus || capacity.memory_mib != known->memory_mib)
		agentd_event(p->d, &capacity);
	json_object_object_foreach(vms, uuid, vm)
		take_ready(p, node, uuid, vm);
}

static void take_say(struct peers *p, uint32_t node, json_object *m)
{
	if (node != p->d->conf.self_id)
		agentd_say(p->d, LOG_LEVEL_NOTICE, "%s (said by node %s)", string_of(m, "text"), agentd_node_name(p->d, node));
}

static json_object *about(const uint8_t uuid[16])
{
	json_object *m = json_object_new_object();
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	json_object_object_add(m, "vm", json_object_new_string(text));
	return m;
}

void peers_prepare(struct peers *p, uint32_t node, uint32_t epoch, const uint8_t uuid[16])
{
	json_object *m = about(uuid);

	json_object_object_add(m, "epoch", json_object_new_int64(epoch));
	(void)send_to(p, node, "prepare", m);
}

void peers_offer(struct peers *p, uint32_t node, const uint8_t uuid[16], uint64_t id, const char *host, uint32_t port, bool tls)
{
	json_object *m = about(uuid);

	json_object_object_add(m, "migration", json_object_new_int64((int64_t)id));
	json_object_object_add(m, "host", json_object_new_string(host));
	json_object_object_add(m, "port", json_object_new_int64(port));
	json_object_object_add(m, "tls", json_object_new_boolean(tls));
	(void)send_to(p, node, "offer", m);
}

void peers_refuse(struct peers *p, uint32_t node, const uint8_t uuid[16], const char *why)
{
	json_object *m = about(uuid);

	json_object_object_add(m, "why", json_object_new_string(why));
	(void)send_to(p, node, "refuse", m);
}

void peers_migration(struct peers *p, uint32_t node, const uint8_t uuid[16], uint64_t id, enum migrate_news news)
{
	json_object *m = about(uuid);

	json_object_object_add(m, "migration", json_object_new_int64((int64_t)id));
	json_object_object_add(m, "news", json_object_new_string(news_word[news]));
	(void)send_to(p, node, "migration", m);
}

static void on_message(struct peers *p, uint32_t node, const char *data, size_t len)
{
	json_tokener *tok = json_tokener_new_ex(JSON_DEPTH);
	json_object *m = tok ? json_tokener_parse_ex(tok, data, (int)len) : NULL;
	const char *type;
	int64_t to;

	if (json_object_is_type(m, json_type_object) && node >= 1 && node <= FORMAT_MAX_NODES && p->d->core_runs) {
		type = string_of(m, "type");
		to = int_of(m, "to");
		if (streq(type, "status"))
			take_status(p, node, m);
		else if (streq(type, "say"))
			take_say(p, node, m);
		else if (streq(type, "probe"))
			take_probe(p, node, m);
		else if (to != p->d->conf.self_id)
			(void)0; /* not for us */
		else if (streq(type, "assign"))
			take_assign(p, node, m);
		else if (streq(type, "probed"))
			take_probed(p, node, m);
		else if (streq(type, "prepare"))
			take_prepare(p, node, m);
		else if (streq(type, "offer"))
			take_offer(p, node, m);
		else if (streq(type, "refuse"))
			take_refusal(p, node, m);
		else if (streq(type, "migration"))
			take_migration(p, node, m);
		else if (streq(type, "request"))
			take_request(p, node, m);
		else if (streq(type, "answer"))
			take_answer(p, m);
	}
	json_object_put(m);
	if (tok)
		json_tokener_free(tok);
}

static void on_view(void *user, bool up, uint64_t view, bool encrypted)
{
	struct peers *p = user;

	p->d->ring_up = up;
	p->d->ring_view = view;
	if (up)
		peers_status_changed(p);
}

static void on_ring_message(void *user, uint32_t node, const void *data, size_t len) { on_message(user, node, data, len); }

static void send_status(void *data)
{
	struct peers *p = data;
	uint32_t cpus, memory_mib;
	json_object *m;

	p->timer = 0;
	p->soon = false;
	if (p->d->core_runs && p->d->catalog) {
		m = json_object_new_object();
		json_object_object_add(m, "vms", status_local_vms(p->d));
		agentd_capacity(&cpus, &memory_mib);
		json_object_object_add(m, "cpus", json_object_new_int64(cpus));
		json_object_object_add(m, "memory_mib", json_object_new_int64(memory_mib));
		(void)send_to(p, 0, "status", m);
	}
	(void)qb_loop_timer_add(p->d->loop, QB_LOOP_LOW, STATUS_MS * NS_PER_MS, p, send_status, &p->timer);
}

void peers_status_changed(struct peers *p)
{
	if (!p || p->soon)
		return;
	p->soon = true;
	if (p->timer)
		(void)qb_loop_timer_del(p->d->loop, p->timer);
	(void)qb_loop_timer_add(p->d->loop, QB_LOOP_MED, 20 * NS_PER_MS, p, send_status, &p->timer);
}

json_object *peers_vm_status(struct peers *p, uint32_t node, const char *uuid)
{
	json_object *v;

	return node >= 1 && node <= FORMAT_MAX_NODES && p->status[node - 1] && json_object_object_get_ex(p->status[node - 1], uuid, &v) ? v : NULL;
}

int peers_new(struct agentd *d, struct peers **ret)
{
	static const struct ring_callbacks cb = { .view = on_view, .message = on_ring_message };
	struct peers *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->d = d;
	p->next_id = (int64_t)getpid() << 20; /* answers to an earlier process of ours find nobody */
	r = ring_new(d->loop, "kvm-ha-agent", &cb, p, &d->ring);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	send_status(p);
	return 0;
}
