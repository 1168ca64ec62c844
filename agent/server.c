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
#include "agent/base/volume_url.h"
#include "agent/disk_place.h"

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

static int64_t int_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_int64(v) : 0;
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

/* Arming ends it; disarming says anew how much is left to the operator. */
static bool take_pause(struct edit *e, bool on)
{
	const char *pause = on ? NULL : string_of(e->request, "pause");

	if (pause && !streq(pause, "ignore") && !streq(pause, "freeze")) {
		(void)snprintf(e->err, sizeof(e->err), "VMs can be frozen or ignored, not %.64s", pause);
		return false;
	}
	e->doc->pause = !pause ? PAUSE_NONE : streq(pause, "freeze") ? PAUSE_FREEZE : PAUSE_IGNORE;
	return true;
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
	if (!take_pause(e, on))
		return false;
	e->doc->armed = on;
	(void)snprintf(e->what, sizeof(e->what), "cluster %s%s", on ? "armed" : "disarmed",
		       e->doc->pause == PAUSE_FREEZE   ? ", VMs frozen: none is started, stopped, restarted or moved"
		       : e->doc->pause == PAUSE_IGNORE ? ", VMs ignored: none is started, stopped or restarted" : "");
	return true;
}

/* For the next request. Nobody asks so often that it comes round. */
static uint64_t next_number(const struct vm_move *m) { return m->number < CATALOG_MOVE_NUMBER_MAX ? m->number + 1 : 1; }

/* What becomes of the node's VMs; should an operator have asked for another place for one, that is what counts. */
static void empty_node(struct edit *e, uint32_t node, enum leave_policy policy, bool reboot)
{
	for (unsigned i = 0; i < e->doc->n; i++) {
		struct catalog_entry *vm = &e->doc->entry[i];

		if (agent_owner(&e->d->core, vm->uuid) == node && (vm->move.node == 0 || vm->move.back))
			vm->move = agent_leave_move(policy, reboot, node, next_number(&vm->move));
	}
}

static void keep_away(struct catalog_doc *c, uint32_t node)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->entry[i].move.node == node && c->entry[i].move.back)
			c->entry[i].move.node = 0;
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
	if (on && !(e->doc->maintenance & bit))
		empty_node(e, n->id, LEAVE_MIGRATE, false);
	if (!on && !bool_of(e->request, "return"))
		keep_away(e->doc, n->id);
	e->doc->maintenance = on ? e->doc->maintenance | bit : e->doc->maintenance & ~bit;
	e->has_hook = true;
	e->hook = on ? HOOK_MAINTENANCE_ON : HOOK_MAINTENANCE_OFF;
	e->hook_node = n->id;
	(void)snprintf(e->what, sizeof(e->what), "node %.64s: maintenance %s", n->name, on ? "on" : "off");
	return true;
}

static bool leave_policy_of(const char *name, enum leave_policy *ret)
{
	for (unsigned p = 0; name && p < CONF_SHUTDOWN_COUNT; p++)
		if (streq(name, conf_shutdown_name((enum conf_shutdown)p))) {
			*ret = (enum leave_policy)p;
			return true;
		}
	return false;
}

static uint32_t epoch_of(const struct agentd *d, uint32_t id) { return id == d->conf.self_id ? d->core.epoch : agent_table_node(&d->core, id)->epoch; }

/* By the node's own agent: its host goes down, or does not after all. */
static bool edit_leaving(struct edit *e)
{
	const char *name = string_of(e->request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&e->d->conf, name) : NULL;
	bool on = bool_of(e->request, "on"), reboot = bool_of(e->request, "reboot");
	int64_t epoch = int_of(e->request, "epoch"), freeze_ms = int_of(e->request, "freeze_ms");
	enum leave_policy policy = LEAVE_CONDITIONAL;

	if (!n || epoch < 1 || epoch > UINT32_MAX || (on && (!leave_policy_of(string_of(e->request, "policy"), &policy) || freeze_ms < 1 || freeze_ms > UINT32_MAX))) {
		(void)snprintf(e->err, sizeof(e->err), "a node that is shut down must say its name, epoch and policy: is its ha-agent of another version?");
		return false;
	}
	if (!agent_leave_edit(&e->doc->leaving[n->id - 1], epoch_of(e->d, n->id), (uint32_t)epoch, on))
		return false;
	if (on)
		empty_node(e, n->id, policy, reboot);
	for (unsigned i = 0; on && i < e->doc->n; i++)
		if (e->doc->entry[i].move.node == n->id && e->doc->entry[i].move.wait_ms != 0 && agent_owner(&e->d->core, e->doc->entry[i].uuid) == n->id)
			e->doc->entry[i].move.wait_ms = (uint32_t)freeze_ms;
	if (on)
		(void)snprintf(e->what, sizeof(e->what), "node %.64s: %s, ShutdownPolicy=%s", n->name, reboot ? "is rebooted" : "is shut down",
			       conf_shutdown_name((enum conf_shutdown)policy));
	else
		(void)snprintf(e->what, sizeof(e->what), "node %.64s: not shut down after all", n->name);
	return true;
}

/* By an operator (node fence, node unfence), or by the leader after so many fences. */
static bool edit_quarantine(struct edit *e)
{
	const char *name = string_of(e->request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&e->d->conf, name) : NULL;
	uint64_t bit = n ? 1ULL << (n->id - 1) : 0;
	bool on = bool_of(e->request, "on");
	json_object *fences;

	if (!n) {
		(void)snprintf(e->err, sizeof(e->err), "no node named %.64s in Nodes=: see `ha-ctl node list`", name ? name : "");
		return false;
	}
	e->has_hook = (e->doc->quarantine & bit) != (on ? bit : 0);
	e->doc->quarantine = on ? e->doc->quarantine | bit : e->doc->quarantine & ~bit;
	e->hook = on ? HOOK_QUARANTINE_ON : HOOK_QUARANTINE_OFF;
	e->hook_node = n->id;
	if (json_object_object_get_ex(e->request, "fences", &fences))
		(void)snprintf(e->what, sizeof(e->what), "node %.40s: in quarantine, fenced %d times within an hour", n->name, json_object_get_int(fences));
	else
		(void)snprintf(e->what, sizeof(e->what), "node %.64s: %s", n->name, on ? "in quarantine, an operator has it fenced" : "quarantine ended");
	return true;
}

/* The request's VM file, with its length: what follows a NUL must be refused, not dropped. NULL: there is none. */
static const char *file_of(struct edit *e, size_t *ret_len)
{
	const char *text = string_of(e->request, "text");
	json_object *v = NULL;

	if (!text || !json_object_object_get_ex(e->request, "text", &v)) {
		(void)snprintf(e->err, sizeof(e->err), "the request has no VM file");
		return NULL;
	}
	*ret_len = (size_t)json_object_get_string_len(v);
	return text;
}

static void answer_with_vm(struct edit *e, const struct catalog_entry *vm, const char *what)
{
	json_object_object_add(e->answer, "name", json_object_new_string(vm->file.name));
	json_object_object_add(e->answer, "uuid", json_object_new_string(vm->uuid_text));
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s%s", vm->file.name, what);
}

static bool edit_add(struct edit *e)
{
	size_t len;
	const char *text = file_of(e, &len);
	struct catalog_entry *vm;

	if (!text || catalog_add(e->doc, text, len, e->err, sizeof(e->err)) < 0)
		return false;
	vm = &e->doc->entry[e->doc->n - 1];
	for (size_t i = 0; i < vm->file.n_disks; i++) {
		struct volume_address address;
		char why[256];

		if (volume_address_parse(vm->file.disks[i], &address, why, sizeof(why)) < 0) {
			(void)snprintf(e->err, sizeof(e->err), "Disk=%.150s: %s", vm->file.disks[i], why);
			return false;
		}
		if (address.n_hosts > 1) { /* what a QEMU had sent by one of them would not be over when another answers */
			(void)snprintf(e->err, sizeof(e->err), "Disk=%.150s: several addresses; QEMU uses one, write that, or the path of a multipath device",
				       vm->file.disks[i]);
			return false;
		}
	}
	answer_with_vm(e, vm, " added");
	return true;
}

/* How it is treated, not what QEMU runs with. Whether it is to run, and where it is asked to, stays. */
static bool edit_update(struct edit *e)
{
	size_t len;
	const char *text = file_of(e, &len);
	struct catalog_entry *vm;

	if (!text || catalog_update(e->doc, text, len, &vm, e->err, sizeof(e->err)) < 0)
		return false;
	answer_with_vm(e, vm, ": has another definition");
	return true;
}

static bool in_error(struct edit *e, const struct catalog_entry *vm)
{
	const struct vm *v = agent_vm_by_uuid(&e->d->core, vm->uuid);

	return vm->desired == DESIRED_STARTED && v && agent_owner(&e->d->core, vm->uuid) == 0 && agent_vm_error(&e->d->core, v);
}

static bool edit_desired(struct edit *e, enum vm_desired to)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (to == DESIRED_REMOVED && (vm->desired == DESIRED_STARTED || vm->desired == DESIRED_IGNORED)) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is %s: stop it first, `ha-ctl vm stop %.64s`", vm->file.name,
			       vm->desired == DESIRED_STARTED ? "to run" : "ignored and may run", vm->file.name);
		return false;
	}
	if (vm->desired == DESIRED_REMOVED) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is being removed; add it again once it is gone", vm->file.name);
		return false;
	}
	if (vm->frozen && (to == DESIRED_REMOVED || to == DESIRED_IGNORED)) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is frozen: `ha-ctl vm unfreeze %.64s` first", vm->file.name, vm->file.name);
		return false;
	}
	if (to == DESIRED_STARTED && in_error(e, vm)) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is given up, not stopped: `ha-ctl vm clear-error %.64s` tries again", vm->file.name, vm->file.name);
		return false;
	}
	vm->desired = to;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: to be %s%s", vm->file.name, catalog_desired_name(to), vm->frozen ? ", once it is unfrozen" : "");
	return true;
}

static bool edit_freeze(struct edit *e, bool on)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (vm->frozen == on || (on && (vm->desired == DESIRED_REMOVED || vm->desired == DESIRED_IGNORED))) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is %s", vm->file.name,
			       vm->frozen ? "frozen already" : !on ? "not frozen" : vm->desired == DESIRED_REMOVED ? "being removed" : "ignored: nobody touches it anyway");
		return false;
	}
	vm->frozen = on;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: %s", vm->file.name, on ? "frozen: neither started, stopped, moved nor restarted" : "unfrozen");
	return true;
}

static bool cannot_take(struct edit *e, const struct conf_node *n, const struct catalog_entry *vm)
{
	const struct vm *v = agent_vm_by_uuid(&e->d->core, vm->uuid);
	const struct agent *a = &e->d->core;
	const char *state = status_node_state(e->d, n->id);

	if (agent_node_usable(a, n->id) && (!v || place_possible(a, v, n->id) == PLACE_FITS))
		return false;
	if (agent_node_usable(a, n->id))
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s: node %.64s %s", vm->file.name, n->name, place_why_text(place_possible(a, v, n->id)));
	else if (a->maintenance >> (n->id - 1) & 1)
		(void)snprintf(e->err, sizeof(e->err), "node %.64s is in maintenance: end that first, `ha-ctl node maintenance off %.64s`", n->name, n->name);
	else if (agent_node_emptied(a, n->id))
		(void)snprintf(e->err, sizeof(e->err), "node %.64s is being shut down", n->name);
	else if (!streq(state, "online"))
		(void)snprintf(e->err, sizeof(e->err), "node %.64s is not online but %s: `ha-ctl node list` says why", n->name, state);
	else
		(void)snprintf(e->err, sizeof(e->err), "node %.64s is online but takes no VMs at the moment: `ha-ctl status` says why", n->name);
	return true;
}

/* Says whether the VM is in a state in which nobody would move it, and why. */
static bool cannot_move(struct edit *e, const struct catalog_entry *vm)
{
	const char *name = vm->file.name;

	if (vm->desired == DESIRED_REMOVED)
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is being removed", name);
	else if (vm->desired == DESIRED_IGNORED)
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is ignored: `ha-ctl vm start %.64s` first", name, name);
	else if (vm->frozen)
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is frozen: `ha-ctl vm unfreeze %.64s` first", name, name);
	else if (e->doc->pause == PAUSE_FREEZE)
		(void)snprintf(e->err, sizeof(e->err), "all VMs are frozen: `ha-ctl arm`, or `ha-ctl disarm` without --freeze, first");
	else if (in_error(e, vm))
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is given up: `ha-ctl vm clear-error %.64s` first", name, name);
	else
		return false;
	return true;
}

/* It is to be on its way as it runs: only what runs can be, and only what is not tied to its host. */
static bool cannot_migrate(struct edit *e, const struct catalog_entry *vm, uint32_t owner, uint32_t to)
{
	const char *name = vm->file.name;
	uint32_t self = e->d->conf.self_id;
	char why[256];

	if (!vmfile_can_migrate(&vm->file, why, sizeof(why)))
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s cannot be migrated: %.200s; `ha-ctl vm relocate` stops it here and starts it there", name, why);
	else if (vm->desired != DESIRED_STARTED || owner == 0)
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s does not run: `ha-ctl vm relocate` says where it is to be started", name);
	else if ((owner == self || to == self) && disk_place_refuses(&vm->file, agentd_node_name(e->d, self), why, sizeof(why)))
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s cannot be migrated: %.200s", name, why); /* the other of the two looks when it begins */
	else
		return false;
	return true;
}

static bool edit_call_off(struct edit *e)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (vm->move.node == 0 || !vm->move.live) {
		(void)snprintf(e->err, sizeof(e->err), "no migration of VM %.64s was asked for%s", vm->file.name,
			       vm->move.node != 0 && !vm->move.back ? ", but a relocation" : "");
		return false;
	}
	vm->move.node = 0;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: its migration is called off", vm->file.name);
	return true;
}

static bool edit_relocate(struct edit *e, bool live)
{
	const char *name = string_of(e->request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&e->d->conf, name) : NULL;
	struct catalog_entry *vm = edit_vm(e);
	uint32_t owner;

	if (!vm)
		return false;
	if (!n) {
		(void)snprintf(e->err, sizeof(e->err), "no node named %.64s in Nodes=: see `ha-ctl node list`", name ? name : "");
		return false;
	}
	if (cannot_move(e, vm))
		return false;
	owner = agent_owner(&e->d->core, vm->uuid);
	/* With a request for another node under way this one calls it back. */
	if (owner == n->id && (vm->move.node == 0 || vm->move.node == n->id || vm->move.back)) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is on node %.64s already", vm->file.name, n->name);
		return false;
	}
	if (cannot_take(e, n, vm) || (live && cannot_migrate(e, vm, owner, n->id)))
		return false;
	vm->move = (struct vm_move){ .node = n->id, .number = next_number(&vm->move), .live = live };
	json_object_object_add(e->answer, "from", owner ? json_object_new_string(agentd_node_name(e->d, owner)) : NULL);
	json_object_object_add(e->answer, "to", json_object_new_string(n->name));
	json_object_object_add(e->answer, "number", json_object_new_uint64(vm->move.number));
	json_object_object_add(e->answer, "desired", json_object_new_string(catalog_desired_name(vm->desired)));
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: to be %s to node %.30s", vm->file.name, live ? "migrated" : "moved", n->name);
	return true;
}

/* The first half: while it is to be stopped every node forgets that it failed there. ha-ctl sees that they have, and starts it. */
static bool edit_clear_error(struct edit *e)
{
	struct catalog_entry *vm = edit_vm(e);

	if (!vm)
		return false;
	if (!in_error(e, vm) || vm->frozen) {
		(void)snprintf(e->err, sizeof(e->err), "VM %.64s is %s", vm->file.name,
			       vm->frozen ? "frozen: `ha-ctl vm unfreeze` it first" :
			       vm->desired == DESIRED_STOPPED ? "not in error but wanted stopped: `ha-ctl vm start` starts it" : "not in error");
		return false;
	}
	vm->desired = DESIRED_STOPPED;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: its failures are to be forgotten", vm->file.name);
	return true;
}

/* From the leader's core, which has told how it ended. A newer request is not hit. */
/* From an agent, not from an operator: it names the VM by its uuid, too. */
static struct catalog_entry *edit_this_vm(struct edit *e)
{
	struct catalog_entry *vm = edit_vm(e);
	const char *uuid = string_of(e->request, "uuid");

	return vm && uuid && streq(uuid, vm->uuid_text) ? vm : NULL;
}

static bool edit_move_over(struct edit *e)
{
	struct catalog_entry *vm = edit_this_vm(e);
	json_object *number;

	if (!vm || vm->move.node == 0 || !json_object_object_get_ex(e->request, "number", &number) ||
	    json_object_get_uint64(number) != vm->move.number)
		return false;
	vm->move.node = 0;
	return true;
}

static bool edit_guest_off(struct edit *e)
{
	struct catalog_entry *vm = edit_this_vm(e);

	if (!vm)
		return false;
	if (vm->desired == DESIRED_STARTED)
		vm->desired = DESIRED_STOPPED;
	(void)snprintf(e->what, sizeof(e->what), "VM %.64s: %s", vm->file.name,
		       bool_of(e->request, "failed") ? "failed, stays down (Restart=never)" : "powered off by its guest");
	return true;
}

/* By the agent of a node where a QEMU of the VM runs that something else started (foreign.c). */
static bool edit_adopt(struct edit *e)
{
	const char *step = string_of(e->request, "step"), *name = string_of(e->request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&e->d->conf, name) : NULL;
	struct catalog_entry *vm = edit_this_vm(e);
	uint32_t owner = vm ? agent_owner(&e->d->core, vm->uuid) : 0;

	if (!vm || !n || !step)
		return false;
	if (streq(step, "begin")) {
		if (vm->desired != DESIRED_STOPPED && vm->desired != DESIRED_IGNORED)
			(void)snprintf(e->err, sizeof(e->err), "it is %s meanwhile", catalog_desired_name(vm->desired));
		else if (vm->frozen)
			(void)snprintf(e->err, sizeof(e->err), "it is frozen: `ha-ctl vm unfreeze %.64s` first", vm->file.name);
		else if (e->doc->pause == PAUSE_FREEZE)
			(void)snprintf(e->err, sizeof(e->err), "all VMs are frozen: `ha-ctl arm`, or `ha-ctl disarm` without --freeze, first");
		else if (owner != 0 && owner != n->id)
			(void)snprintf(e->err, sizeof(e->err), "node %.64s holds the VM", agentd_node_name(e->d, owner));
		if (e->err[0])
			return false;
		json_object_object_add(e->answer, "was", json_object_new_string(catalog_desired_name(vm->desired)));
		vm->desired = DESIRED_IGNORED;
		(void)snprintf(e->what, sizeof(e->what), "VM %.60s: ignored, while node %.30s adopts it", vm->file.name, n->name);
		return true;
	}
	if (vm->desired != DESIRED_IGNORED) {
		(void)snprintf(e->err, sizeof(e->err), "it is %s meanwhile", catalog_desired_name(vm->desired));
		return false;
	}
	if (streq(step, "done")) {
		vm->desired = DESIRED_STARTED;
		(void)snprintf(e->what, sizeof(e->what), "VM %.60s: adopted, and protected from now on", vm->file.name);
	} else {
		vm->desired = DESIRED_STOPPED;
	}
	return true;
}

static bool edit_forget(struct edit *e)
{
	struct catalog_entry *vm = edit_this_vm(e);
	json_object *generation;

	if (!vm || vm->desired != DESIRED_REMOVED || !json_object_object_get_ex(e->request, "generation", &generation) ||
	    json_object_get_uint64(generation) != e->d->core.lead_generation)
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
	if (streq(command, "node-quarantine"))
		return edit_quarantine(e);
	if (streq(command, "node-leaving"))
		return edit_leaving(e);
	if (streq(command, "vm-add"))
		return edit_add(e);
	if (streq(command, "vm-update"))
		return edit_update(e);
	if (streq(command, "vm-start"))
		return edit_desired(e, DESIRED_STARTED);
	if (streq(command, "vm-stop"))
		return edit_desired(e, DESIRED_STOPPED);
	if (streq(command, "vm-remove"))
		return edit_desired(e, DESIRED_REMOVED);
	if (streq(command, "vm-ignore"))
		return edit_desired(e, DESIRED_IGNORED);
	if (streq(command, "vm-freeze") || streq(command, "vm-unfreeze"))
		return edit_freeze(e, streq(command, "vm-freeze"));
	if (streq(command, "vm-relocate"))
		return edit_relocate(e, false);
	if (streq(command, "vm-migrate"))
		return edit_relocate(e, true);
	if (streq(command, "vm-migrate-cancel"))
		return edit_call_off(e);
	if (streq(command, "vm-clear-error"))
		return edit_clear_error(e);
	if (streq(command, "vm-guest-off"))
		return edit_guest_off(e);
	if (streq(command, "vm-move-over"))
		return edit_move_over(e);
	if (streq(command, "vm-adopt-step"))
		return edit_adopt(e);
	return edit_forget(e);
}

static bool is_edit(const char *command)
{
	static const char *const edits[] = { "arm", "disarm", "node-maintenance", "node-quarantine", "node-leaving", "vm-add", "vm-update", "vm-start", "vm-stop", "vm-remove", "vm-ignore", "vm-freeze", "vm-unfreeze",
					     "vm-relocate", "vm-migrate", "vm-migrate-cancel", "vm-clear-error", "vm-guest-off", "vm-move-over", "vm-forget",
					     "vm-adopt-step" };

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
		if (p->what[0]) {
			agentd_say(p->s->d, LOG_LEVEL_NOTICE, "%s", p->what);
			peers_say(p->s->d->peers, p->what);
		}
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

/* Fencing by an operator: this node's keeper is told, whoever leads. */

static json_object *fence_target(struct agentd *d, json_object *request, uint32_t *ret)
{
	const char *name = string_of(request, "node");
	const struct conf_node *n = name ? conf_node_by_name(&d->conf, name) : NULL;

	if (!n)
		return server_error(false, "no node named %.64s in Nodes=: see `ha-ctl node list`", name ? name : "");
	if (n->id == d->conf.self_id)
		return server_error(false, "%s is this very node: run the command on another one", n->name);
	if (!d->core_runs || !d->core.have_table)
		return server_error(true, "the keeper of this node does not answer, or has no quorum of the volumes");
	if (!agent_table_node(&d->core, n->id)->known)
		return server_error(false, "node %s has never been seen: there is nothing to fence", n->name);
	*ret = n->id;
	return NULL;
}

/* What the keeper would refuse, refused with better words. */
static json_object *refuse_confirmation(const struct agentd *d, json_object *request, uint32_t node)
{
	const struct keeper_table_node *t = agent_table_node(&d->core, node);
	const char *name = agentd_node_name(d, node);
	json_object *epoch;

	if (t->fresh)
		return server_error(false, "node %s is alive, its heartbeat moves: `ha-ctl node fence %s` fences a node that is", name, name);
	if (t->over >= t->epoch || t->state == HEARTBEAT_RELEASED || t->state == HEARTBEAT_LEFT)
		return server_error(false, "nothing is to be confirmed: the lease of node %s is over, its VMs may run elsewhere", name);
	if (!json_object_object_get_ex(request, "epoch", &epoch) || json_object_get_int64(epoch) != t->epoch)
		return server_error(false, "node %s is in epoch %u by now: look at it again", name, t->epoch);
	if (d->core.table.table.state != LEASE_ARMED)
		return server_error(true, "this node is not armed itself: run the command on one that is");
	return NULL;
}

static json_object *confirm_fenced(struct agentd *d, json_object *request)
{
	struct keeper_evidence ev = { .kind = EVIDENCE_OPERATOR };
	json_object *no = fence_target(d, request, &ev.node);
	char text[160];

	if (!no)
		no = refuse_confirmation(d, request, ev.node);
	if (no)
		return no;
	ev.epoch = agent_table_node(&d->core, ev.node)->epoch;
	if (!keeper_link_evidence(d->keeper, KEEPER_MSG_EVIDENCE, &ev))
		return server_error(true, "the keeper of this node cannot be told: see `ha-ctl status`, and try again");
	(void)snprintf(text, sizeof(text), "node %.64s: an operator confirms that it is off", agentd_node_name(d, ev.node));
	agentd_say(d, LOG_LEVEL_WARNING, "%s", text);
	peers_say(d->peers, text);
	return server_ok();
}

struct fencing {
	struct server *s;
	server_answer_fn fn;
	void *user;
	uint32_t node;
	bool off, on;
};

/* Some seconds may have gone by since the command was accepted: neither the keeper nor this node's lease need be as they were. */
static bool ask_for_fence(struct agentd *d, const struct keeper_evidence *ev)
{
	return d->core_runs && d->core.have_table && d->core.table.table.state == LEASE_ARMED && keeper_link_evidence(d->keeper, KEEPER_MSG_FENCE, ev);
}

/* Its quarantine is in the catalog, or is not any more. */
static void on_quarantined(void *user, json_object *answer)
{
	struct fencing *f = user;
	struct agentd *d = f->s->d;
	const struct keeper_table_node *t = agent_table_node(&d->core, f->node);
	struct keeper_evidence ev = { .kind = EVIDENCE_OPERATOR, .node = f->node, .epoch = t->epoch };
	bool lives = t->over < t->epoch && (t->state == HEARTBEAT_ARMED || t->state == HEARTBEAT_DISARMED);
	bool unasked = false;
	int r = 0;

	if (bool_of(answer, "ok") && !f->on) {
		unasked = lives && !ask_for_fence(d, &ev);
		if (f->off && !unasked)
			power_off_when_over(d->power, f->node, t->epoch - !lives);
		json_object_object_add(answer, "fencing", json_object_new_string(lives ? "asked" : "over"));
	} else if (bool_of(answer, "ok") && !t->fresh && power_has_devices(d->power, f->node)) {
		r = power_switch_on(d->power, f->node);
	}
	if (unasked)
		answer_with(f->fn, f->user, server_error(true, "node %s is in quarantine, but is not being fenced: this node is not armed any more, or its keeper does not answer; run the command again, "
							 "here or on a node that is armed", agentd_node_name(d, f->node)));
	else if (r < 0)
		answer_with(f->fn, f->user, server_error(true, "the quarantine is over, but the node cannot be switched on: %s",
							 r == -EBUSY ? "its devices are being told something else" : strerror(-r)));
	else
		f->fn(f->user, answer);
	free(f);
}

static void fence(struct server *s, json_object *request, bool on, server_answer_fn fn, void *user)
{
	struct agentd *d = s->d;
	uint32_t node = 0;
	json_object *no = fence_target(d, request, &node), *o;
	struct fencing *f;

	if (!no && on && bool_of(request, "off") && !power_has_devices(d->power, node))
		no = server_error(false, "node %s has no fence device to switch it off: add a [PowerDevice] section for it", agentd_node_name(d, node));
	if (!no && on && d->core.table.table.state != LEASE_ARMED)
		no = server_error(true, "this node is not armed itself: run the command on one that is");
	if (no) {
		answer_with(fn, user, no);
		return;
	}
	f = calloc(1, sizeof(*f));
	CHECK(f);
	*f = (struct fencing){ s, fn, user, node, on && bool_of(request, "off"), !on };
	o = json_object_new_object();
	json_object_object_add(o, "command", json_object_new_string("node-quarantine"));
	json_object_object_add(o, "node", json_object_new_string(agentd_node_name(d, node)));
	json_object_object_add(o, "on", json_object_new_boolean(on));
	edit_anywhere(s, o, false, clock_now_ns() + PARK_LIMIT_MS * NS_PER_MS, on_quarantined, f);
	json_object_put(o);
}

/* What it has asked others to do only the leader knows. Says whether it is asked; without one this node's own view must do. */
static bool ask_leader(struct server *s, json_object *request, server_answer_fn fn, void *user)
{
	uint32_t leader = s->d->core_runs ? agent_leader(&s->d->core) : 0;
	struct pending *p;

	if (leader == 0 || leader == s->d->conf.self_id)
		return false;
	p = calloc(1, sizeof(*p));
	CHECK(p);
	*p = (struct pending){ .s = s, .fn = fn, .user = user };
	if (peers_forward(s->d->peers, leader, request, on_forwarded, p) == 0)
		return true;
	free(p);
	return false;
}

static json_object *show_vm(struct agentd *d, json_object *request)
{
	const char *name = string_of(request, "name");
	struct catalog_entry *e = name && d->catalog ? catalog_by_name(d->catalog, name) : NULL;
	json_object *o, *vm;

	if (!d->core_runs || !d->core.have_catalog)
		return server_error(true, "this agent has just been started and has not read the catalog yet");
	if (!e)
		return server_error(false, "no VM named %.64s: see `ha-ctl vm list`", name ? name : "");
	o = server_ok();
	vm = status_vm(d, e);
	json_object_object_add(vm, "text", json_object_new_string(e->text));
	if (bool_of(request, "why"))
		json_object_object_add(vm, "why", status_why(d, e));
	json_object_object_add(o, "vm", vm);
	return o;
}

static json_object *show_events(struct agentd *d, json_object *request)
{
	static const char *const level[] = { "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug" };
	json_object *o = server_ok(), *list = json_object_new_array(), *since;
	uint64_t after = json_object_object_get_ex(request, "since", &since) ? json_object_get_uint64(since) : 0;
	uint64_t first = d->next_log_id > AGENTD_LOG ? d->next_log_id - AGENTD_LOG : 0;

	/* What was asked for may be any number: no step beyond the newest. */
	for (uint64_t id = MIN(MAX(first, after), d->next_log_id) + 1; id <= d->next_log_id; id++) {
		const struct log_entry *e = &d->log[id % AGENTD_LOG];
		json_object *line;

		if (e->id != id)
			continue; /* before this agent's start */
		line = json_object_new_object();
		json_object_object_add(line, "id", json_object_new_uint64(e->id));
		json_object_object_add(line, "time_ms", json_object_new_int64(e->time_ms));
		/* MIN: the level of a keeper's line is what it said. */
		json_object_object_add(line, "level", json_object_new_string(level[MIN((size_t)e->level, ARRAY_SIZE(level) - 1)]));
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
	} else if (streq(command, "vm-adopt")) {
		foreign_request(s->d->foreign, request, fn, user);
	} else if (streq(command, "node-leave")) {
		leaver_request(s->d->leaver, fn, user);
	} else if (streq(command, "node-confirm-fenced")) {
		answer_with(fn, user, confirm_fenced(s->d, request));
	} else if (streq(command, "node-fence") || streq(command, "node-unfence")) {
		fence(s, request, streq(command, "node-fence"), fn, user);
	} else if (streq(command, "vm-show") && bool_of(request, "why") && !forwarded && ask_leader(s, request, fn, user)) {
		return;
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

static char *client_line_end(const struct ctl_client *c) { return c->in_len > 0 ? memchr(c->in, '\n', c->in_len) : NULL; }

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
	/* A line that came together with the one before is here already: the next turn of the loop takes it. */
	(void)qb_loop_poll_mod(c->s->d->loop, QB_LOOP_LOW, c->fd, client_line_end(c) ? POLLOUT : POLLIN, c, on_client);
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

/* Says whether there was a whole line, and it could be taken. */
static bool client_take_line(struct ctl_client *c)
{
	char *end = c->busy ? NULL : client_line_end(c), *line;
	size_t len;

	if (!end)
		return false;
	len = (size_t)(end - c->in);
	line = malloc(len + 1); /* what it asks for may close the connection */
	CHECK(line);
	memcpy(line, c->in, len);
	line[len] = '\0';
	memmove(c->in, end + 1, c->in_len - len - 1);
	c->in_len -= len + 1;
	(void)qb_loop_poll_mod(c->s->d->loop, QB_LOOP_LOW, c->fd, POLLIN, c, on_client);
	client_line(c, line, len);
	free(line);
	return true;
}

static int32_t on_client(int32_t fd, int32_t revents, void *data)
{
	struct ctl_client *c = data;
	ssize_t n;

	if (c->out) {
		client_flush(c);
		return 0;
	}
	if (client_take_line(c))
		return 0;
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
	(void)client_take_line(c);
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
