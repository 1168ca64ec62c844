/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What operators see: table, claims, catalog and what the peers say of their VMs, in one object and in words. */
#include <stdio.h>

#include "agent/agentd.h"
#include "agent/base/uuid.h"

static void put_string(json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, value ? json_object_new_string(value) : NULL);
}

static void put_bool(json_object *o, const char *key, bool v) { json_object_object_add(o, key, json_object_new_boolean(v)); }
static void put_int(json_object *o, const char *key, int64_t v) { json_object_object_add(o, key, json_object_new_int64(v)); }

static const char *local_state(const struct agent *a, const struct vm *v)
{
	switch (v->state) {
	case VM_RESTARTING:
		return agent_held(a, v) ? "stopped" : "starting";
	case VM_RUNNING:
		return v->health.trouble != TROUBLE_NONE ? vm_trouble_name(v->health.trouble) : "running";
	case VM_STOPPING:
	case VM_UNRESERVING:
	case VM_RELEASING:
		return "stopping";
	case VM_HANDING:
	case VM_TAKING:
		return "migrating";
	case VM_IDLE:
	case VM_INCOMING: /* not ours yet, or no more */
	case VM_DISCARDING:
		return "stopped";
	default:
		return "starting";
	}
}

/* While others' keys may still be on its disks it is not what "yes" says. */
static void put_reserved(json_object *vm, struct agentd *d, const struct vm *v)
{
	const struct vm_reservation *r = &v->reservation;
	bool done = r->reserved && !r->owning;
	char text[500];

	(void)snprintf(text, sizeof(text), "%s%s", done ? "yes" : r->reserved || r->joined ? "not yet: " : "no: ", done ? "" : reserver_text(d->reserver, v->def.uuid));
	put_string(vm, "reserved", text);
}

json_object *status_local_vms(struct agentd *d)
{
	json_object *o = json_object_new_object();
	char uuid[UUID_STR_LEN];

	for (unsigned i = 0; i < AGENT_MAX_VMS; i++) {
		const struct vm *v = &d->core.vm[i];
		json_object *vm, *migration, *failure;
		const char *reason;

		if (!v->used || v->state == VM_IDLE)
			continue;
		vm = json_object_new_object();
		uuid_format(v->def.uuid, uuid);
		reason = v->state == VM_RESTARTING && agent_held(&d->core, v) ? "QEMU has ended"
			 : v->state == VM_DRAINING ? drainer_reason(d->drainer, v->def.uuid) : v->guest_off ? v->off_failed ? "it failed, and Restart=never" : "its guest powered it off"
			 : v->state == VM_RUNNING && v->health.trouble != TROUBLE_NONE ? vm_trouble_text(v->health.trouble)
			 : v->state == VM_RUNNING || v->state == VM_STARTING				   ? runner_detail(d->runner, v->def.uuid)
													   : vm_state_name(v->state);
		put_string(vm, "state", local_state(&d->core, v));
		put_string(vm, "reason", streq(reason, "running") ? "" : reason);
		put_int(vm, "restarts", v->failures);
		put_string(vm, "ready", vm_ready_name(health_ready(v)));
		if (v->health.held)
			put_bool(vm, "held", true);
		if (d->conf.reservation != CONF_RESERVATION_NO)
			put_reserved(vm, d, v);
		if (v->failures > 0)
			put_string(vm, "last_failure", vm_trouble_text(v->last_failure));
		migration = v->state == VM_RUNNING || v->state == VM_HANDING ? mover_status(d->mover, v->def.uuid) : NULL;
		if (migration)
			json_object_object_add(vm, "migration", migration);
		failure = v->state == VM_RUNNING ? mover_failure(d->mover, v->def.uuid) : NULL;
		if (failure)
			json_object_object_add(vm, "not_migrated", failure);
		json_object_object_add(o, uuid, vm);
	}
	return o;
}

static bool failed_somewhere(const struct agentd *d, const uint8_t uuid[16])
{
	for (uint32_t id = 1; id <= d->core.opt.node_max; id++)
		if (place_failed(&d->core, id, uuid))
			return true;
	return false;
}

/* The nodes that have given it up as failed and can forget that again: not those that have died since. */
static json_object *failed_on(const struct agentd *d, const uint8_t uuid[16])
{
	json_object *list = json_object_new_array();

	for (uint32_t id = 1; id <= d->core.opt.node_max; id++) {
		const struct claims *c = id == d->conf.self_id ? &d->core.claimer.mine : &d->core.claimer.seen[id - 1];
		uint32_t over = agent_table_node(&d->core, id)->over;

		for (uint32_t i = 0; i < c->n; i++)
			if (memcmp(c->claim[i].vm, uuid, 16) == 0 && c->claim[i].state == CLAIM_FAILED && (id == d->conf.self_id || c->claim[i].epoch > over))
				json_object_array_add(list, json_object_new_string(agentd_node_name(d, id)));
	}
	return list;
}

static bool died_with_node(const struct agentd *d, const uint8_t uuid[16])
{
	for (uint32_t id = 1; id <= d->core.opt.node_max; id++) {
		const struct claims *c = &d->core.claimer.seen[id - 1];

		if (id == d->conf.self_id || agent_table_node(&d->core, id)->fresh)
			continue;
		for (uint32_t i = 0; i < c->n; i++)
			if (memcmp(c->claim[i].vm, uuid, 16) == 0 && c->claim[i].state == CLAIM_ACTIVE)
				return true;
	}
	return false;
}

static bool in_error(struct agentd *d, const uint8_t uuid[16])
{
	struct vm *v = agent_vm_by_uuid(&d->core, uuid);

	return v && agent_vm_error(&d->core, v);
}

static void unowned(struct agentd *d, const struct catalog_entry *e, json_object *vm)
{
	const char *why = d->catalog->pause != PAUSE_NONE || e->frozen ? "" : "waiting for the leader to find it a place";
	const struct vm *v = agent_vm_by_uuid(&d->core, e->uuid), *awaited = v ? lead_awaited(&d->core, v) : NULL;
	char text[160];

	if (e->desired != DESIRED_STARTED) {
		put_string(vm, "state", "stopped");
		put_string(vm, "reason", e->desired == DESIRED_REMOVED ? "being removed"
					 : e->desired == DESIRED_IGNORED && died_with_node(d, e->uuid) ? "its last node is down" : "");
		return;
	}
	if (in_error(d, e->uuid)) {
		put_string(vm, "state", "error");
		put_string(vm, "reason", "it has failed on more nodes than RelocateLimit= allows and is given up");
		return;
	}
	if (awaited) {
		(void)snprintf(text, sizeof(text), "waits until %s is ready (After=)", awaited->def.name);
		why = text;
	}
	if (died_with_node(d, e->uuid))
		why = e->frozen ? "its last node is down" : "its last node is down: being taken over";
	if (e->frozen)
		; /* nobody is waited for */
	else if (failed_somewhere(d, e->uuid))
		why = "it did not run where it was tried: trying on, slowly; see `ha-ctl events`";
	else if (agent_leader(&d->core) == 0)
		why = "no node leads at the moment";
	else if (e->move.node != 0 && !e->move.back && d->catalog->pause == PAUSE_NONE)
		why = "about to be started where it was asked to be";
	put_string(vm, "state", failed_somewhere(d, e->uuid) ? "failed" : "waiting");
	put_string(vm, "reason", why);
}

static const char *name_or_null(const struct agentd *d, uint32_t id, bool on) { return on && id != 0 ? agentd_node_name(d, id) : NULL; }

/* A string of what a peer has said, or of what was put together of it; other is what stands for anything else. */
static const char *said_string(json_object *o, const char *key, const char *other)
{
	json_object *v;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string)
		       ? json_object_get_string(v) : other;
}

/* What an operator has said of it, before what is the matter with it. */
static void put_requests(struct agentd *d, const struct catalog_entry *e, json_object *vm)
{
	bool back = e->move.node != 0 && e->move.back && agent_node_emptied(&d->core, e->move.node);
	const char *to = name_or_null(d, e->move.node, !back), *hands_off = "", *reason = "";
	char text[512];
	size_t len;

	if (e->desired == DESIRED_IGNORED)
		hands_off = "ignored: nobody starts, stops or recovers it; ";
	else if (e->frozen)
		hands_off = "frozen until `ha-ctl vm unfreeze`; ";
	else if (d->catalog->pause != PAUSE_NONE)
		hands_off = d->catalog->pause == PAUSE_FREEZE ? "frozen until `ha-ctl arm`; " : "left alone until `ha-ctl arm`; ";

	put_string(vm, "move_to", to);
	put_int(vm, "move_number", (int64_t)e->move.number);
	put_string(vm, "return_to", name_or_null(d, e->move.node, back));
	json_object_object_add(vm, "failed_on", failed_on(d, e->uuid));
	if (!streq(said_string(vm, "reason", ""), said_string(vm, "state", ""))) /* which need not be said twice */
		reason = said_string(vm, "reason", "");
	(void)snprintf(text, sizeof(text), "%s%s%s%s%s", hands_off, !to ? "" : e->desired == DESIRED_STARTED ? "moving to " : "to be started on ",
		       to ? to : "", to ? "; " : "", reason);
	len = strlen(text);
	if (len >= 2 && streq(text + len - 2, "; "))
		text[len - 2] = '\0';
	put_string(vm, "reason", text);
}

json_object *status_vm(struct agentd *d, const struct catalog_entry *e)
{
	json_object *vm = json_object_new_object(), *said = NULL, *v;
	uint32_t owner = agent_owner(&d->core, e->uuid);

	put_string(vm, "name", e->file.name);
	put_string(vm, "uuid", e->uuid_text);
	put_string(vm, "node", owner ? agentd_node_name(d, owner) : NULL);
	put_string(vm, "desired", catalog_desired_name(e->desired));
	json_object_object_add(vm, "frozen", json_object_new_boolean(e->frozen));
	if (owner == d->conf.self_id) {
		json_object *all = status_local_vms(d);

		if (json_object_object_get_ex(all, e->uuid_text, &said))
			json_object_get(said);
		json_object_put(all);
	} else if (owner) {
		said = json_object_get(peers_vm_status(d->peers, owner, e->uuid_text));
	}
	if (!owner) {
		unowned(d, e, vm);
		put_int(vm, "restarts", 0);
	} else {
		const char *state = agent_table_node(&d->core, owner)->fresh ? "running" : "waiting";

		if (agent_table_node(&d->core, owner)->fresh)
			state = said_string(said, "state", state);
		put_string(vm, "state", state);
		put_string(vm, "reason", agent_table_node(&d->core, owner)->fresh ? said_string(said, "reason", "")
										  : "its node's heartbeat stands still: it is being fenced");
		put_string(vm, "ready", said_string(said, "ready", ""));
		put_string(vm, "reserved", said_string(said, "reserved", ""));
		put_string(vm, "last_failure", said_string(said, "last_failure", ""));
		put_int(vm, "restarts", said && json_object_object_get_ex(said, "restarts", &v) ? json_object_get_int64(v) : 0);
	}
	if (json_object_is_type(said, json_type_object) && json_object_object_get_ex(said, "migration", &v) && json_object_is_type(v, json_type_object))
		json_object_object_add(vm, "migration", json_object_get(v));
	if (json_object_is_type(said, json_type_object) && json_object_object_get_ex(said, "not_migrated", &v) && json_object_is_type(v, json_type_object))
		json_object_object_add(vm, "not_migrated", json_object_get(v));
	json_object_put(said);
	put_requests(d, e, vm);
	return vm;
}

/* Why it is where it is, or where it would be started: the same function that decides, with what this node knows. The leader knows most. */
json_object *status_why(struct agentd *d, const struct catalog_entry *e)
{
	json_object *o = json_object_new_object(), *nodes = json_object_new_array();
	struct vm *v = agent_vm_by_uuid(&d->core, e->uuid);
	const struct vm *awaited = NULL;
	uint32_t choice = 0, owner;

	lead_owners(&d->core);
	owner = v ? v->owner : 0;
	if (v) {
		choice = place_move(&d->core, v);
		choice = choice ? choice : place_choose(&d->core, v);
		awaited = v->owner == 0 ? lead_awaited(&d->core, v) : NULL;
	}
	for (size_t i = 0; v && i < d->conf.n_nodes; i++) {
		uint32_t id = d->conf.nodes[i].id;
		enum place_why why = place_fits(&d->core, v, id);
		json_object *n = json_object_new_object(), *rank = json_object_new_array();
		unsigned key[PLACE_KEY_COUNT];

		place_rank(&d->core, v, id, key);
		put_string(n, "node", d->conf.nodes[i].name);
		put_bool(n, "fits", why == PLACE_FITS);
		put_string(n, "why", place_why_text(why));
		for (unsigned k = 0; k < PLACE_KEY_COUNT; k++) {
			json_object *r = json_object_new_object();

			put_string(r, "what", place_key_text((enum place_key)k));
			put_int(r, "value", key[k]);
			json_object_array_add(rank, r);
		}
		json_object_object_add(n, "rank", rank);
		json_object_array_add(nodes, n);
	}
	put_string(o, "owner", name_or_null(d, owner, true));
	put_string(o, "choice", name_or_null(d, choice, true));
	put_string(o, "waits_for", awaited ? awaited->def.name : NULL);
	put_bool(o, "by_leader", d->core.leads);
	json_object_object_add(o, "nodes", nodes);
	return o;
}

const char *status_node_state(const struct agentd *d, uint32_t id)
{
	const struct keeper_table_node *n = agent_table_node(&d->core, id);

	if (!d->core.have_table || !n->known)
		return "unknown";
	if (n->state == HEARTBEAT_RELEASED)
		return "released";
	if (n->state == HEARTBEAT_LEFT)
		return "left";
	if (n->fresh)
		return n->committed ? "fencing" : "online";
	if (n->over >= n->epoch)
		return "offline";
	return n->committed ? "fencing" : "suspect";
}

/* It said so before it went, and has not come back since. */
static bool is_leaving(const struct agentd *d, uint32_t id)
{
	uint32_t said = d->core.leaving[id - 1];

	return said != 0 && agent_table_node(&d->core, id)->epoch <= said;
}

static void node_reason(const struct agentd *d, uint32_t id, char *ret, size_t size)
{
	const struct keeper_table_node *n = agent_table_node(&d->core, id);
	const char *state = status_node_state(d, id);

	*ret = '\0';
	if (streq(state, "fencing") && (n->state != HEARTBEAT_ARMED || n->silence_is_no_proof))
		(void)snprintf(ret, size, "being fenced: %s; it has no watchdog to wait for: a fence device or `ha-ctl node confirm-fenced` must say that it is off",
			       fence_reason_text((enum fence_reason)n->reason));
	else if (streq(state, "fencing"))
		(void)snprintf(ret, size, "being fenced: %s; its VMs start elsewhere once epoch %u is proven over", fence_reason_text((enum fence_reason)n->reason),
			       n->epoch);
	else if (streq(state, "offline"))
		(void)snprintf(ret, size, "no heartbeat; epoch %u is proven over, its VMs may run elsewhere", n->epoch);
	else if (streq(state, "suspect"))
		(void)snprintf(ret, size, "no heartbeat; %s", n->state != HEARTBEAT_ARMED ? "it was not armed: only an operator can have it fenced"
				       : d->core.table.table.braked ? "the brake keeps it from being fenced" : "it will be fenced");
	else if (streq(state, "released"))
		(void)snprintf(ret, size, "it gave up its VMs and waits to rejoin");
	else if (streq(state, "unknown"))
		(void)snprintf(ret, size, "%s", d->core.have_table ? "never seen" : "the keeper of this node does not answer");
	else if (is_leaving(d, id))
		(void)snprintf(ret, size, streq(state, "left") ? "its host was shut down or rebooted" : "its host is being shut down or rebooted");
	else if (n->state == HEARTBEAT_ARMED && n->ring != HEARTBEAT_RING_OK)
		(void)snprintf(ret, size, "no corosync ring");
}

static json_object *node_object(struct agentd *d, const struct conf_node *c)
{
	const struct keeper_table_node *n = agent_table_node(&d->core, c->id);
	json_object *o = json_object_new_object();
	bool self = c->id == d->conf.self_id, agent;
	char reason[256];
	int vms = 0;

	for (unsigned i = 0; d->catalog && i < d->catalog->n; i++)
		vms += agent_owner(&d->core, d->catalog->entry[i].uuid) == c->id;
	agent = self || (n->fresh && !lead_claim_void(&d->core, c->id));
	put_string(o, "name", c->name);
	put_int(o, "id", c->id);
	put_string(o, "state", status_node_state(d, c->id));
	put_bool(o, "armed", n->state == HEARTBEAT_ARMED);
	put_bool(o, "maintenance", d->core.maintenance >> (c->id - 1) & 1);
	put_bool(o, "leaving", is_leaving(d, c->id));
	put_bool(o, "quarantine", d->core.quarantine >> (c->id - 1) & 1);
	put_int(o, "epoch", n->epoch);
	put_int(o, "over", n->over);
	put_string(o, "power", power_state(d->power, c->id));
	put_string(o, "ring", heartbeat_ring_name((enum heartbeat_ring)n->ring));
	put_string(o, "evidence", n->silence_is_no_proof ? "none" : "watchdog");
	put_bool(o, "agent", agent);
	put_int(o, "vms", vms);
	put_int(o, "cpus", d->core.node[c->id - 1].cpus);
	put_int(o, "memory_mib", d->core.node[c->id - 1].memory_mib);
	node_reason(d, c->id, reason, sizeof(reason));
	if (reason[0] == '\0' && !agent && n->fresh)
		(void)snprintf(reason, sizeof(reason), "its ha-agent does not run or hangs: its VMs go on, %s",
			       n->silent_seq ? "one that ends is started elsewhere" : "but nothing is started there");
	put_string(o, "reason", reason);
	return o;
}

static json_object *volumes(struct agentd *d, unsigned *ret_good)
{
	json_object *list = json_object_new_array();

	*ret_good = 0;
	for (unsigned v = 0; v < d->conf.n_volumes; v++) {
		json_object *o = json_object_new_object();
		bool here = d->volset && volset_good(d->volset, v);
		unsigned fault = d->core.have_table ? d->core.table.table.volume[v].fault : 0;
		bool keeper = d->core.have_table && d->core.table.table.volume[v].good;
		const char *reason = fault ? volume_fault_text((enum volume_fault)fault) : "";

		if (!fault && !here)
			reason = d->volset ? volset_reason(d->volset, v) : "not opened";
		else if (!fault && !keeper)
			reason = d->core.have_table ? d->core.table.table.volume[v].reason : "the keeper does not answer";
		else if (!fault && d->trouble[v].now != VOLUME_WELL)
			reason = d->core.table.table.volume[v].reason;
		*ret_good += !fault && here && keeper;
		put_string(o, "url", d->conf.volumes[v]);
		put_string(o, "state", fault ? "failed" : here && keeper ? "ready" : "connecting");
		put_string(o, "reason", reason);
		put_string(o, "trouble", volume_trouble_name(d->core.have_table ? d->trouble[v].now : VOLUME_WELL));
		put_int(o, "trouble_since_ms", d->core.have_table && d->trouble[v].now != VOLUME_WELL ? d->trouble[v].since_ms : 0);
		json_object_array_add(list, o);
	}
	return list;
}

static void add_lease(struct agentd *d, json_object *s, unsigned good)
{
	const struct keeper_msg *t = &d->core.table;
	unsigned n = (unsigned)d->conf.n_volumes;
	json_object *quorum = json_object_new_object(), *ring = json_object_new_object(), *wd = json_object_new_object();

	put_string(s, "keeper", d->core.have_table ? "connected" : "absent");
	put_string(s, "lease", d->core.have_table ? lease_state_name((enum lease_state)t->table.state) : "unknown");
	put_int(s, "epoch", d->core.epoch);
	put_string(s, "reason", d->core.have_table && t->table.release_reason ? release_reason_text((enum release_reason)t->table.release_reason) : "");
	put_int(s, "hold_since_ms", d->core.have_table ? d->hold_ms : 0);
	put_int(quorum, "volumes", n);
	put_int(quorum, "good", good);
	put_int(quorum, "renew", format_renew_quorum(n));
	put_int(quorum, "fence", format_fence_quorum(n));
	put_bool(quorum, "ok", good >= format_fence_quorum(n));
	json_object_object_add(s, "quorum", quorum);
	put_string(ring, "state", d->core.have_table ? heartbeat_ring_name((enum heartbeat_ring)t->table.ring) : d->ring_up ? "ok" : "lost");
	put_bool(ring, "encrypted", d->core.have_table && t->table.ring_encrypted);
	json_object_object_add(s, "ring", ring);
	put_string(wd, "device", d->conf.watchdog);
	put_bool(wd, "running", d->core.have_table && t->table.wd_running);
	json_object_object_add(s, "watchdog", wd);
}

json_object *status_build(struct agentd *d)
{
	json_object *s = json_object_new_object(), *nodes = json_object_new_array(), *vms = json_object_new_array(), *list;
	uint32_t leader = d->core_runs ? agent_leader(&d->core) : 0;
	unsigned good;

	put_string(s, "cluster", d->conf.cluster);
	/* An agent that has just been started is asked, too. */
	put_bool(s, "known", d->core_runs && d->core.have_catalog && d->core.claimer.complete_ns != 0 && (d->core.epoch == 0 || d->core.claimer.read_once));
	put_bool(s, "armed", d->catalog && d->catalog->armed);
	put_string(s, "pause", catalog_pause_name(d->catalog ? d->catalog->pause : PAUSE_NONE));
	put_int(s, "brake", d->core.have_table ? d->core.table.table.braked : 0);
	put_string(s, "leader", leader ? agentd_node_name(d, leader) : NULL);
	put_string(s, "self", d->conf.self_name);
	list = volumes(d, &good);
	add_lease(d, s, good);
	for (size_t i = 0; i < d->conf.n_nodes; i++)
		json_object_array_add(nodes, node_object(d, &d->conf.nodes[i]));
	json_object_object_add(s, "nodes", nodes);
	json_object_object_add(s, "volumes", list);
	for (unsigned i = 0; d->catalog && i < d->catalog->n; i++)
		json_object_array_add(vms, status_vm(d, &d->catalog->entry[i]));
	json_object_object_add(s, "vms", vms);
	return s;
}
