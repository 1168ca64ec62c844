/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/catalog.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/uuid.h"
#include "agent/base/value.h"

#define JSON_DEPTH 16

#define MOVE_WAIT_MAX_MS (24U * 3600 * 1000)

static const char *const desired_name[] = { "started", "stopped", "removed", "ignored" };
static const char *const pause_name[] = { "none", "ignore", "freeze" };

const char *catalog_desired_name(enum vm_desired d) { return desired_name[d]; }
const char *catalog_pause_name(enum catalog_pause p) { return pause_name[p]; }

struct catalog_doc *catalog_new(void)
{
	struct catalog_doc *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->entry = calloc(AGENT_MAX_VMS, sizeof(*c->entry));
	if (!c->entry) {
		free(c);
		return NULL;
	}
	return c;
}

static void entry_deinit(struct catalog_entry *e)
{
	vmfile_deinit(&e->file);
	free(e->text);
	memset(e, 0, sizeof(*e));
}

void catalog_free(struct catalog_doc *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n; i++)
		entry_deinit(&c->entry[i]);
	free(c->entry);
	free(c);
}

struct catalog_entry *catalog_by_name(const struct catalog_doc *c, const char *name)
{
	for (unsigned i = 0; i < c->n; i++)
		if (streq(c->entry[i].file.name, name))
			return &c->entry[i];
	return NULL;
}

struct catalog_entry *catalog_by_uuid(const struct catalog_doc *c, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < c->n; i++)
		if (memcmp(c->entry[i].uuid, uuid, 16) == 0)
			return &c->entry[i];
	return NULL;
}

static int refuse(char *err, size_t err_size, const char *fmt, ...) _printf_(3, 4);
static int refuse(char *err, size_t err_size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err, err_size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int check_unique(const struct catalog_doc *c, const struct vmfile *f, const uint8_t uuid[16], char *err, size_t err_size)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct catalog_entry *e = &c->entry[i];

		if (streq(e->file.name, f->name))
			return refuse(err, err_size, "a VM named %s exists: choose another Name=, or remove that one first", f->name);
		if (memcmp(e->uuid, uuid, 16) == 0)
			return refuse(err, err_size, "VM %s has the same UUID=: each VM needs its own", e->file.name);
		for (size_t a = 0; a < e->file.n_disks; a++)
			for (size_t b = 0; b < f->n_disks; b++)
				if (value_same_place(e->file.disks[a], f->disks[b]))
					return refuse(err, err_size, "VM %s has the writable disk %s already: no two VMs may share one", e->file.name, f->disks[b]);
	}
	return 0;
}

/* Does e wait, perhaps by way of others, for the VM of that name? */
static bool waits_for(const struct catalog_doc *c, const struct catalog_entry *e, const char *name, bool seen[AGENT_MAX_VMS])
{
	if (seen[e - c->entry])
		return false;
	seen[e - c->entry] = true;
	for (size_t i = 0; i < e->file.n_after; i++) {
		const struct catalog_entry *next = catalog_by_name(c, e->file.after[i]);

		if (streq(e->file.after[i], name) || (next && waits_for(c, next, name, seen)))
			return true;
	}
	return false;
}

static int check_order(const struct catalog_doc *c, const struct catalog_entry *e, char *err, size_t err_size)
{
	bool seen[AGENT_MAX_VMS] = { 0 };

	if (!waits_for(c, e, e->file.name, seen))
		return 0;
	return refuse(err, err_size, "After= in [HA]: through the VMs it waits for %s would wait for itself; remove one of them", e->file.name);
}

/* text: ownership passes on in every case. */
static int append(struct catalog_doc *c, char *text, enum vm_desired desired, const char *source, char *err, size_t err_size)
{
	struct catalog_entry *e = &c->entry[c->n];
	int r;

	if (c->n == AGENT_MAX_VMS) {
		free(text);
		return refuse(err, err_size, "the catalog is full: %d VMs", AGENT_MAX_VMS);
	}
	r = vmfile_parse(source, text, strlen(text), &e->file, err, err_size);
	if (r < 0) {
		free(text);
		return r;
	}
	r = e->file.has_uuid ? check_unique(c, &e->file, e->file.uuid, err, err_size) : refuse(err, err_size, "%s: no UUID=", source);
	if (r < 0) {
		vmfile_deinit(&e->file);
		free(text);
		return r;
	}
	memcpy(e->uuid, e->file.uuid, 16);
	uuid_format(e->uuid, e->uuid_text);
	e->text = text;
	e->desired = desired;
	c->n++;
	return 0;
}

int catalog_add(struct catalog_doc *c, const char *text, size_t len, char *err, size_t err_size)
{
	struct vmfile f;
	uint8_t uuid[16];
	char *full = NULL;
	bool start;
	int r = vmfile_parse("VM file", text, len, &f, err, err_size);

	if (r < 0)
		return r;
	r = vmfile_check_writes("VM file", &f, err, err_size);
	if (r < 0) {
		vmfile_deinit(&f);
		return r;
	}
	start = f.start;
	if (f.has_uuid) {
		full = strndup(text, len);
		r = full ? 0 : -ENOMEM;
	} else {
		r = uuid_random(uuid);
		if (r == 0)
			r = vmfile_with_uuid(text, len, uuid, &full);
	}
	vmfile_deinit(&f);
	if (r < 0)
		return refuse(err, err_size, "cannot store the VM file: %s", strerror(-r));
	r = append(c, full, start ? DESIRED_STARTED : DESIRED_STOPPED, "VM file", err, err_size);
	if (r == 0) {
		r = check_order(c, &c->entry[c->n - 1], err, err_size);
		if (r < 0)
			catalog_remove(c, c->entry[c->n - 1].uuid);
	}
	return r;
}

/* f is e's new file. */
static int check_update(const struct catalog_entry *e, const struct vmfile *f, char *err, size_t err_size)
{
	const char *key;

	if (f->has_uuid && memcmp(f->uuid, e->uuid, 16) != 0)
		return refuse(err, err_size, "VM file: UUID=: VM %s has %s, and with another it would be another VM; leave the line out", f->name, e->uuid_text);
	if (e->desired == DESIRED_REMOVED)
		return refuse(err, err_size, "VM %s is being removed; add it again once it is gone", f->name);
	key = vmfile_other_qemu(&e->file, f);
	if (key)
		return refuse(err, err_size, "VM file: %s differs, and QEMU is started with that: `ha-ctl vm stop %s`, `ha-ctl vm remove %s`, then `ha-ctl vm add` this file",
			      key, f->name, f->name);
	return 0;
}

int catalog_update(struct catalog_doc *c, const char *text, size_t len, struct catalog_entry **ret, char *err, size_t err_size)
{
	struct catalog_entry *e;
	struct vmfile f;
	char *full = NULL;
	int r = vmfile_parse("VM file", text, len, &f, err, err_size);

	if (r < 0)
		return r;
	e = catalog_by_name(c, f.name);
	if (!e)
		r = refuse(err, err_size, "no VM named %s: `ha-ctl vm add` adds it", f.name);
	else
		r = check_update(e, &f, err, err_size);
	if (r < 0) {
		vmfile_deinit(&f);
		return r;
	}
	if (f.has_uuid) {
		full = strndup(text, len);
		r = full ? 0 : -ENOMEM;
	} else {
		r = vmfile_with_uuid(text, len, e->uuid, &full);
	}
	if (r < 0) {
		vmfile_deinit(&f);
		return refuse(err, err_size, "cannot store the VM file: %s", strerror(-r));
	}
	free(e->text);
	vmfile_deinit(&e->file);
	e->text = full;
	e->file = f;
	memcpy(e->file.uuid, e->uuid, 16);
	e->file.has_uuid = true;
	*ret = e;
	return check_order(c, e, err, err_size);
}

void catalog_remove(struct catalog_doc *c, const uint8_t uuid[16])
{
	struct catalog_entry *e = catalog_by_uuid(c, uuid);
	unsigned at;

	if (!e)
		return;
	at = (unsigned)(e - c->entry);
	entry_deinit(e);
	memmove(e, e + 1, (c->n - at - 1) * sizeof(*e));
	c->n--;
	memset(&c->entry[c->n], 0, sizeof(*e));
}

/* A whole number of 0 to max; 0 where there is none. */
static int parse_number(json_object *o, const char *key, uint64_t max, uint64_t *ret, char *err, size_t err_size)
{
	json_object *v;
	int64_t n;

	*ret = 0;
	if (!json_object_object_get_ex(o, key, &v))
		return 0;
	n = json_object_get_int64(v); /* one that it cannot hold becomes the nearest that it can */
	if (!json_object_is_type(v, json_type_int) || n < 0 || (uint64_t)n > max)
		return refuse(err, err_size, "the catalog has \"%s\" that is no whole number from 0 to %" PRIu64, key, max);
	*ret = (uint64_t)n;
	return 0;
}

static int parse_move(json_object *o, struct vm_move *ret, char *err, size_t err_size)
{
	uint64_t node, wait_ms, number;
	json_object *move, *back, *live;
	int r;

	if (!json_object_object_get_ex(o, "move", &move))
		return 0;
	if (!json_object_is_type(move, json_type_object))
		return refuse(err, err_size, "the catalog has a \"move\" that is not an object");
	if ((r = parse_number(move, "node", FORMAT_MAX_NODES, &node, err, err_size)) < 0 ||
	    (r = parse_number(move, "wait_ms", MOVE_WAIT_MAX_MS, &wait_ms, err, err_size)) < 0 ||
	    (r = parse_number(move, "number", CATALOG_MOVE_NUMBER_MAX, &number, err, err_size)) < 0)
		return r;
	if (node != 0 && number == 0)
		return refuse(err, err_size, "the catalog has a move without its number");
	if (json_object_object_get_ex(move, "back", &back) && !json_object_is_type(back, json_type_boolean))
		return refuse(err, err_size, "the catalog has a move whose \"back\" is neither true nor false");
	if (json_object_object_get_ex(move, "live", &live) && !json_object_is_type(live, json_type_boolean))
		return refuse(err, err_size, "the catalog has a move whose \"live\" is neither true nor false");
	*ret = (struct vm_move){ .node = (uint32_t)node, .wait_ms = (uint32_t)wait_ms, .number = number, .back = json_object_get_boolean(back),
				 .live = json_object_get_boolean(live) };
	return 0;
}

static int parse_vm(struct catalog_doc *c, json_object *o, char *err, size_t err_size)
{
	json_object *text, *desired, *frozen = NULL;
	enum vm_desired want = DESIRED_STOPPED;
	struct vm_move move = { 0 };
	char *copy;
	int r;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "file", &text) || !json_object_is_type(text, json_type_string) ||
	    !json_object_object_get_ex(o, "desired", &desired) || !json_object_is_type(desired, json_type_string))
		return refuse(err, err_size, "the catalog has a VM without file or desired state");
	for (size_t i = 0; i < ARRAY_SIZE(desired_name); i++)
		if (streq(json_object_get_string(desired), desired_name[i]))
			want = (enum vm_desired)i;
	if (strlen(json_object_get_string(text)) != (size_t)json_object_get_string_len(text))
		return refuse(err, err_size, "the catalog has a VM file with a NUL byte in it");
	if (json_object_object_get_ex(o, "frozen", &frozen) && !json_object_is_type(frozen, json_type_boolean))
		return refuse(err, err_size, "the catalog has a VM whose \"frozen\" is neither true nor false");
	r = parse_move(o, &move, err, err_size);
	if (r < 0)
		return r;
	copy = strdup(json_object_get_string(text));
	r = copy ? append(c, copy, want, "catalog", err, err_size) : -ENOMEM;
	if (r == 0) {
		c->entry[c->n - 1].move = move;
		c->entry[c->n - 1].frozen = json_object_get_boolean(frozen);
	}
	return r;
}

static int parse_pause(struct catalog_doc *c, json_object *o, char *err, size_t err_size)
{
	json_object *v;

	if (!json_object_object_get_ex(o, "pause", &v))
		return 0;
	for (size_t i = 0; json_object_is_type(v, json_type_string) && i < ARRAY_SIZE(pause_name); i++) {
		if (streq(json_object_get_string(v), pause_name[i])) {
			c->pause = (enum catalog_pause)i;
			return 0;
		}
	}
	return refuse(err, err_size, "the catalog has a \"pause\" that is not none, ignore or freeze");
}

static int parse_leaving(struct catalog_doc *c, json_object *o, char *err, size_t err_size)
{
	json_object *list;
	uint64_t node, epoch;
	int r;

	if (!json_object_object_get_ex(o, "leaving", &list))
		return 0;
	if (!json_object_is_type(list, json_type_array))
		return refuse(err, err_size, "the catalog has \"leaving\" that is not a list");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *n = json_object_array_get_idx(list, i);

		if (!json_object_is_type(n, json_type_object))
			return refuse(err, err_size, "the catalog has a leaving node that is not an object");
		if ((r = parse_number(n, "node", FORMAT_MAX_NODES, &node, err, err_size)) < 0 ||
		    (r = parse_number(n, "epoch", UINT32_MAX, &epoch, err, err_size)) < 0)
			return r;
		if (node == 0 || epoch == 0 || c->leaving[node - 1] != 0)
			return refuse(err, err_size, "the catalog has a leaving node without its number or epoch, or twice");
		c->leaving[node - 1] = (uint32_t)epoch;
	}
	return 0;
}

static int parse_doc(struct catalog_doc *c, json_object *o, char *err, size_t err_size)
{
	json_object *armed, *maintenance, *quarantine, *vms;
	int r = 0;

	if (!json_object_is_type(o, json_type_object))
		return refuse(err, err_size, "the catalog is not a JSON object");
	if (json_object_object_get_ex(o, "armed", &armed))
		c->armed = json_object_get_boolean(armed);
	if (json_object_object_get_ex(o, "maintenance", &maintenance))
		c->maintenance = json_object_get_uint64(maintenance);
	if (json_object_object_get_ex(o, "quarantine", &quarantine)) {
		if (!json_object_is_type(quarantine, json_type_int))
			return refuse(err, err_size, "the catalog's \"quarantine\" is not a number");
		c->quarantine = json_object_get_uint64(quarantine);
	}
	if ((r = parse_pause(c, o, err, err_size)) < 0 || (r = parse_leaving(c, o, err, err_size)) < 0)
		return r;
	if (!json_object_object_get_ex(o, "vms", &vms) || !json_object_is_type(vms, json_type_array))
		return refuse(err, err_size, "the catalog has no list of VMs");
	for (size_t i = 0; i < json_object_array_length(vms) && r == 0; i++)
		r = parse_vm(c, json_object_array_get_idx(vms, i), err, err_size);
	return r;
}

int catalog_parse(const char *json, size_t len, struct catalog_doc **ret, char *err, size_t err_size)
{
	struct catalog_doc *c = catalog_new();
	json_tokener *tok = json_tokener_new_ex(JSON_DEPTH);
	json_object *o = NULL;
	int r = -ENOMEM;

	if (c && tok && len == 0) {
		r = 0;
	} else if (c && tok) {
		o = json_tokener_parse_ex(tok, json, (int)len);
		r = o ? parse_doc(c, o, err, err_size) : refuse(err, err_size, "the catalog is not JSON");
	}
	json_object_put(o);
	if (tok)
		json_tokener_free(tok);
	if (r < 0) {
		catalog_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static json_object *move_to_json(const struct vm_move *m)
{
	json_object *o = json_object_new_object();

	json_object_object_add(o, "node", json_object_new_int64(m->node));
	json_object_object_add(o, "wait_ms", json_object_new_int64(m->wait_ms));
	json_object_object_add(o, "number", json_object_new_uint64(m->number));
	json_object_object_add(o, "back", json_object_new_boolean(m->back));
	if (m->live)
		json_object_object_add(o, "live", json_object_new_boolean(true));
	return o;
}

static json_object *leaving_to_json(const struct catalog_doc *c)
{
	json_object *list = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(c->leaving); i++) {
		json_object *n;

		if (c->leaving[i] == 0)
			continue;
		n = json_object_new_object();
		json_object_object_add(n, "node", json_object_new_int64((int64_t)i + 1));
		json_object_object_add(n, "epoch", json_object_new_int64(c->leaving[i]));
		json_object_array_add(list, n);
	}
	return list;
}

/* What was never asked for is left out: its room is the VMs'. */
static json_object *to_json(const struct catalog_doc *c)
{
	json_object *o = json_object_new_object(), *vms = json_object_new_array(), *leaving = leaving_to_json(c);

	json_object_object_add(o, "armed", json_object_new_boolean(c->armed));
	json_object_object_add(o, "maintenance", json_object_new_uint64(c->maintenance));
	if (c->quarantine != 0)
		json_object_object_add(o, "quarantine", json_object_new_uint64(c->quarantine));
	if (c->pause != PAUSE_NONE)
		json_object_object_add(o, "pause", json_object_new_string(pause_name[c->pause]));
	if (json_object_array_length(leaving) > 0)
		json_object_object_add(o, "leaving", json_object_get(leaving));
	json_object_put(leaving);
	for (unsigned i = 0; i < c->n; i++) {
		json_object *vm = json_object_new_object();

		json_object_object_add(vm, "desired", json_object_new_string(desired_name[c->entry[i].desired]));
		json_object_object_add(vm, "file", json_object_new_string(c->entry[i].text));
		if (c->entry[i].frozen)
			json_object_object_add(vm, "frozen", json_object_new_boolean(true));
		if (c->entry[i].move.number != 0)
			json_object_object_add(vm, "move", move_to_json(&c->entry[i].move));
		json_object_array_add(vms, vm);
	}
	json_object_object_add(o, "vms", vms);
	return o;
}

char *catalog_render(const struct catalog_doc *c, size_t *ret_len)
{
	json_object *o = to_json(c);
	char *text = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));

	json_object_put(o);
	if (text)
		*ret_len = strlen(text);
	return text;
}

struct catalog_doc *catalog_copy(const struct catalog_doc *c)
{
	struct catalog_doc *copy = NULL;
	char err[256];
	size_t len = 0;
	char *text = catalog_render(c, &len);

	if (text && catalog_parse(text, len, &copy, err, sizeof(err)) == 0) {
		copy->generation = c->generation;
		copy->seq = c->seq;
	}
	free(text);
	return copy;
}

void catalog_def(const struct catalog_entry *e, const struct conf *conf, struct vm_def *ret)
{
	const struct vmfile *f = &e->file;
	char why[256];

	*ret = (struct vm_def){
		.desired = e->desired,
		.memory_mib = f->memory_mib,
		.vcpus = f->vcpus,
		.priority = f->priority,
		.restart_limit = f->restart_limit,
		.restart_window_ms = f->restart_window_ms,
		.stop_timeout_ms = f->stop_timeout_ms,
		.restart = f->restart,
		.has_required = f->n_required > 0,
		.groups_required = f->groups_required,
		.after_ready = f->after_ready,
		.after_delay_ms = f->after_delay_ms,
		.after_timeout_ms = f->after_timeout_ms,
		.health = f->health,
		.failed_limit = f->relocate_limit ? f->relocate_limit + 1 : 0, /* it may fail where it was, and wherever it is moved to */
		.frozen = e->frozen, .move = e->move,
		.live = vmfile_can_migrate(f, why, sizeof(why)), .downtime_ms = f->migrate_downtime_ms,
	};
	memcpy(ret->uuid, e->uuid, 16);
	(void)str_copy(ret->name, sizeof(ret->name), f->name);
	for (size_t i = 0; i < f->n_preferred && ret->n_preferred < AGENT_MAX_PREFERRED; i++) {
		const struct conf_node *n = conf_node_by_name(conf, f->preferred[i]);

		if (n)
			ret->preferred[ret->n_preferred++] = n->id;
	}
	for (size_t i = 0; i < f->n_required; i++) {
		const struct conf_node *n = conf_node_by_name(conf, f->required[i]);

		if (n)
			ret->required |= 1ULL << (n->id - 1);
	}
	for (; ret->n_apart < f->n_apart; ret->n_apart++)
		(void)str_copy(ret->apart[ret->n_apart], AGENT_GROUP_LEN, f->apart[ret->n_apart]);
	for (; ret->n_together < f->n_together; ret->n_together++)
		(void)str_copy(ret->together[ret->n_together], AGENT_GROUP_LEN, f->together[ret->n_together]);
	for (; ret->n_after < f->n_after; ret->n_after++)
		(void)str_copy(ret->after[ret->n_after], AGENT_MAX_NAME, f->after[ret->n_after]);
}
