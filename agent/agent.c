/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-agent: start, loop, the core's actions and what operators read of them. May crash, hang or be replaced at any moment: VMs and keeper go on. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "agent/base/notify.h"
#include "agent/base/program.h"
#include "agent/base/uuid.h"
#include "agent/tlscert.h"

#define WAITED_TICKS 4
#define TICK_MS 1000
#define CERTIFICATES_SOON_S (30 * 24 * 3600)
#define SEQ_FILE "/run/kvm-ha/agent.seq"

const char *agentd_node_name(const struct agentd *d, uint32_t id)
{
	const struct conf_node *n = conf_node_by_id(&d->conf, id);

	return n ? n->name : "?";
}

void agentd_say(struct agentd *d, enum log_level level, const char *fmt, ...)
{
	struct log_entry *e = &d->log[++d->next_log_id % AGENTD_LOG];
	struct timespec ts;
	va_list ap;

	(void)clock_gettime(CLOCK_REALTIME, &ts); /* for people */
	e->id = d->next_log_id;
	e->time_ms = ts.tv_sec * MS_PER_S + ts.tv_nsec / NS_PER_MS;
	e->level = level;
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	log_line(level, "%s", e->text);
}

void agentd_hook(struct agentd *d, enum hook_event event, uint32_t node, const struct vm *v, const char *reason)
{
	char uuid[UUID_STR_LEN] = "";
	struct hook_facts facts = { .event = event, .node = node ? agentd_node_name(d, node) : NULL, .reason = reason };

	if (v) {
		uuid_format(v->def.uuid, uuid);
		facts.vm = v->def.name;
		facts.vm_uuid = uuid;
	}
	hooks_run(d->hooks, &facts);
}

void agentd_volume_hook(struct agentd *d, enum hook_event event, unsigned volume, const char *reason)
{
	struct hook_facts facts = { .event = event, .node = d->conf.self_name, .volume = d->conf.volumes[volume], .reason = reason };

	hooks_run(d->hooks, &facts);
}

static void on_timer(void *data);

static void arm_timer(struct agentd *d)
{
	int64_t wait = MAX(agent_deadline(&d->core) - clock_now_ns(), 0);

	if (d->timer)
		(void)qb_loop_timer_del(d->loop, d->timer);
	d->timer = 0;
	CHECK(qb_loop_timer_add(d->loop, QB_LOOP_HIGH, (uint64_t)wait, d, on_timer, &d->timer) == 0);
}

/* Actions of the core. */

static void op_write(void *edge, unsigned volume, unsigned buffer, const struct claims *c)
{
	store_write_claims(((struct agentd *)edge)->store, volume, buffer, c);
}

static void op_read(void *edge, unsigned volume) { store_read_claims(((struct agentd *)edge)->store, volume); }
/* On a tmpfs: lives as long as this boot, as an epoch does. */
static void op_numbered(void *edge, uint64_t seq)
{
	FILE *f = fopen(SEQ_FILE ".new", "we");

	if (!f || fprintf(f, "%" PRIu64 "\n", seq) < 0 || fclose(f) != 0 || rename(SEQ_FILE ".new", SEQ_FILE) != 0) {
		log_err("cannot write " SEQ_FILE ": %s: without it claims could be numbered twice", strerror(errno));
		abort();
	}
}

static uint64_t last_number(void)
{
	FILE *f = fopen(SEQ_FILE, "re");
	uint64_t seq = 0;

	if (f) {
		if (fscanf(f, "%" SCNu64, &seq) != 1)
			seq = 0;
		(void)fclose(f);
	}
	return seq;
}

static void op_facts(void *edge) { keeper_link_facts(((struct agentd *)edge)->keeper); }

static void op_assign(void *edge, uint32_t node, uint32_t epoch, const struct vm *v)
{
	struct agentd *d = edge;
	struct agent_event ev = { .kind = AGENT_EV_ASSIGN, .node = node, .epoch = epoch };

	if (node != d->conf.self_id) {
		peers_assign(d->peers, node, epoch, v->def.uuid);
		return;
	}
	memcpy(ev.uuid, v->def.uuid, 16);
	agentd_event(d, &ev);
}

static void op_drain(void *edge, const struct vm *v, bool full) { drainer_start(((struct agentd *)edge)->drainer, v, full); }
static void op_start(void *edge, const struct vm *v) { runner_start(((struct agentd *)edge)->runner, v); }
static void op_adopt(void *edge, const struct vm *v) { runner_adopt(((struct agentd *)edge)->runner, v); }
static void op_take_in(void *edge, const struct vm *v, bool on, uint32_t node) { foreign_take_in(((struct agentd *)edge)->foreign, v, on, node); }
static void op_powerdown(void *edge, const struct vm *v) { runner_powerdown(((struct agentd *)edge)->runner, v); }
static void op_quit(void *edge, const struct vm *v) { runner_quit(((struct agentd *)edge)->runner, v); }
static void op_kill(void *edge, const uint8_t uuid[16]) { runner_kill(((struct agentd *)edge)->runner, uuid); }

static void op_reset(void *edge, const struct vm *v) { runner_reset(((struct agentd *)edge)->runner, v); }
static void op_cont(void *edge, const struct vm *v) { runner_cont(((struct agentd *)edge)->runner, v); }

static void on_storage(void *user, const uint8_t uuid[16], bool ok)
{
	struct agentd *d = user;
	struct agent_event ev = { .kind = AGENT_EV_STORAGE, .node = d->conf.self_id, .ok = ok };

	memcpy(ev.uuid, uuid, 16);
	agentd_event(d, &ev);
}

static void op_probe(void *edge, const struct vm *v, bool others)
{
	struct agentd *d = edge;

	(void)drainer_ask(d->drainer, v->def.uuid, on_storage, d);
	if (others)
		peers_probe(d->peers, v->def.uuid);
}

static void on_internal_answer(void *user, json_object *answer)
{
	/* Asked again by the core until it has come about. */
}

static json_object *about_vm(const char *command, const struct vm *v)
{
	json_object *o = json_object_new_object();
	char uuid[UUID_STR_LEN];

	uuid_format(v->def.uuid, uuid);
	json_object_object_add(o, "command", json_object_new_string(command));
	json_object_object_add(o, "name", json_object_new_string(v->def.name));
	json_object_object_add(o, "uuid", json_object_new_string(uuid)); /* it may wait until another VM has this name */
	return o;
}

static void internal_request(struct agentd *d, json_object *o)
{
	server_request(d->server, o, false, on_internal_answer, NULL);
	json_object_put(o);
}

void agentd_request(struct agentd *d, json_object *request) { internal_request(d, request); }

static void op_guest_off(void *edge, const struct vm *v)
{
	json_object *o = about_vm("vm-guest-off", v);

	json_object_object_add(o, "failed", json_object_new_boolean(v->off_failed));
	internal_request(edge, o);
}

/* Only the leader that has seen that nobody can claim it any more may do it. */
static void op_forget(void *edge, const struct vm *v)
{
	json_object *o = about_vm("vm-forget", v);

	json_object_object_add(o, "generation", json_object_new_uint64(((struct agentd *)edge)->core.lead_generation));
	internal_request(edge, o);
}

static void op_move_over(void *edge, const struct vm *v, bool done)
{
	json_object *o = about_vm("vm-move-over", v);

	json_object_object_add(o, "number", json_object_new_uint64(v->def.move.number));
	internal_request(edge, o);
}

static void op_prepare(void *edge, uint32_t node, uint32_t epoch, const struct vm *v)
{
	peers_prepare(((struct agentd *)edge)->peers, node, epoch, v->def.uuid);
}

static void op_incoming(void *edge, const struct vm *v) { runner_incoming(((struct agentd *)edge)->runner, v); }
static void op_offer(void *edge, uint32_t node, const struct vm *v) { mover_offer(((struct agentd *)edge)->mover, node, v); }
static void op_migrate(void *edge, const struct vm *v) { mover_migrate(((struct agentd *)edge)->mover, v); }
static void op_migrate_switch(void *edge, const struct vm *v) { mover_switch(((struct agentd *)edge)->mover, v); }
static void op_migrate_cancel(void *edge, const struct vm *v) { mover_cancel(((struct agentd *)edge)->mover, v); }
static void op_go_on(void *edge, const struct vm *v) { mover_go_on(((struct agentd *)edge)->mover, v); }

static void op_tell(void *edge, uint32_t node, const struct vm *v, uint64_t migration, enum migrate_news news)
{
	peers_migration(((struct agentd *)edge)->peers, node, v->def.uuid, migration, news);
}

static void op_reserve(void *edge, const struct vm *v, enum reservation_op op, uint64_t number) { reserver_ask(((struct agentd *)edge)->reserver, v, op, number); }
static void op_leave(void *edge, enum leave_policy policy, bool reboot) { leaver_say(((struct agentd *)edge)->leaver, policy, reboot); }
static void op_stay(void *edge) { leaver_take_back(((struct agentd *)edge)->leaver); }
static void op_lead(void *edge, bool on, uint64_t generation) { store_lead(((struct agentd *)edge)->store, on); }
static void op_lead_checked(void *edge, bool on) { store_lead_checked(((struct agentd *)edge)->store, on); }

/* One living agent speaks of other nodes: the leader, or who will be. */
static bool speaks(const struct agentd *d)
{
	uint32_t leader = agent_leader(&d->core);

	if (leader && (leader == d->conf.self_id || agent_table_node(&d->core, leader)->fresh)) /* its lead may outlast it by a moment */
		return leader == d->conf.self_id;
	for (uint32_t id = 1; id < d->conf.self_id; id++)
		if (agent_table_node(&d->core, id)->fresh && !lead_claim_void(&d->core, id))
			return false;
	return true;
}

struct note_text {
	enum log_level level;
	const char *text; /* %s: VM, then node where there is one */
	int hook;         /* enum hook_event, -1 none */
	bool everywhere;  /* one node's alone, and an operator may be anywhere: into all nodes' events */
	bool of_cluster;  /* the hook's: it is about no node */
};

static const struct note_text vm_note[] = {
	[NOTE_VM_CLAIMED] = { LOG_LEVEL_INFO, "VM %s: claimed", -1 },
	[NOTE_VM_BUSY] = { LOG_LEVEL_NOTICE, "VM %s: not claimed, node %s holds it", -1 },
	[NOTE_VM_CONFLICT] = { LOG_LEVEL_NOTICE, "VM %s: claim withdrawn, node %s claimed it at the same time", -1 },
	[NOTE_VM_STARTED] = { LOG_LEVEL_NOTICE, "VM %s: started on node %s", HOOK_VM_STARTED },
	[NOTE_VM_RECOVERED] = { LOG_LEVEL_NOTICE, "VM %s: recovered on node %s", HOOK_VM_RECOVERED },
	[NOTE_VM_FAILED] = { LOG_LEVEL_ERR, "VM %s: given up on this node, after failures, or for its storage: to be tried elsewhere", HOOK_VM_FAILED },
	[NOTE_VM_RESTART] = { LOG_LEVEL_WARNING, "VM %s: restarting it here: %s", HOOK_VM_FAILED },
	[NOTE_VM_STAYS_DOWN] = { LOG_LEVEL_ERR, "VM %s: failed, and stays down (Restart=never): %s", HOOK_VM_FAILED, true },
	[NOTE_VM_TROUBLE] = { LOG_LEVEL_ERR, "VM %s: %s", HOOK_VM_UNHEALTHY, true },
	[NOTE_VM_WELL] = { LOG_LEVEL_NOTICE, "VM %s: is well again", HOOK_VM_HEALTHY, true },
	[NOTE_VM_ENDED] = { LOG_LEVEL_WARNING, "VM %s: its QEMU is being killed: %s", -1 },
	[NOTE_VM_NOT_AWAITED] = { LOG_LEVEL_WARNING, "VM %s: a VM of its After= has not become ready within AfterTimeout=: started without it", -1, true },
	[NOTE_VM_RESET] = { LOG_LEVEL_WARNING, "VM %s: being reset: %s", -1 },
	[NOTE_VM_CONT] = { LOG_LEVEL_NOTICE, "VM %s: its storage answers: going on", -1 },
	[NOTE_VM_UNQUIET] = { LOG_LEVEL_WARNING, "VM %s: its storage does not answer this node: left to its next owner to prove it quiet", -1 },
	[NOTE_VM_GIVEN_UP] = { LOG_LEVEL_INFO, "VM %s: claim given up", -1 },
	[NOTE_VM_STOPPING] = { LOG_LEVEL_NOTICE, "VM %s: shutting down", -1 },
	[NOTE_VM_STOPPED] = { LOG_LEVEL_NOTICE, "VM %s: stopped", HOOK_VM_STOPPED },
	[NOTE_VM_REFUSED] = { LOG_LEVEL_WARNING, "VM %s: the keeper's gate is closed", -1 },
	[NOTE_VM_ADOPTED] = { LOG_LEVEL_NOTICE, "VM %s: found running, managed again", -1 },
	[NOTE_VM_TAKEN_IN] = { LOG_LEVEL_NOTICE, "VM %s: its running QEMU is adopted, on node %s", HOOK_VM_STARTED },
	[NOTE_VM_ALIEN] = { LOG_LEVEL_ERR, "VM %s: runs here without a claim of this node: killed", -1 },
	[NOTE_VM_LOST] = { LOG_LEVEL_ERR, "VM %s: lost with this node's lease", -1 },
	[NOTE_VM_ASSIGNED] = { LOG_LEVEL_INFO, "VM %s: node %s is to start it", -1 },
	[NOTE_VM_NO_PLACE] = { LOG_LEVEL_ERR, "VM %s: no node can take it at the moment; trying on: `ha-ctl vm show %s --why` says why", HOOK_VM_NO_PLACE, true, true },
	[NOTE_VM_CONFIRM] = { LOG_LEVEL_INFO, "VM %s: claimed anew: the gate was closed meanwhile, other nodes may have taken it", -1 },
	[NOTE_VM_STAYS] = { LOG_LEVEL_WARNING, "VM %s: runs on here, in maintenance, since no other node can take it: ha-ctl vm show --why", -1 },
	[NOTE_VM_HELD] = { LOG_LEVEL_WARNING, "VM %s: runs on here: what a dead QEMU of it has written may not be over, and no other node may have it (kvm-ha.vm(5), PROOF OF SILENCE)", -1 },
	[NOTE_VM_MOVING] = { LOG_LEVEL_NOTICE, "VM %s: on its way to node %s", -1 },
	[NOTE_VM_MOVED] = { LOG_LEVEL_NOTICE, "VM %s: moved to node %s", -1, true },
	[NOTE_VM_NOT_MOVED] = { LOG_LEVEL_ERR, "VM %s: not moved: node %s cannot take it, or it failed there", -1, true },
	[NOTE_VM_MIGRATING] = { LOG_LEVEL_NOTICE, "VM %s: being migrated to node %s", -1 },
	[NOTE_VM_MIGRATED] = { LOG_LEVEL_NOTICE, "VM %s: migrated, its guest goes on on node %s", -1 },
	[NOTE_VM_NOT_MIGRATED] = { LOG_LEVEL_WARNING, "VM %s: not migrated to node %s; it is still this node's", -1 },
	[NOTE_VM_HANDED] = { LOG_LEVEL_NOTICE, "VM %s: handed over to node %s", -1 },
	[NOTE_VM_INCOMING] = { LOG_LEVEL_INFO, "VM %s: to be taken over from node %s as it runs", -1 },
	[NOTE_VM_DISCARDED] = { LOG_LEVEL_NOTICE, "VM %s: not taken over from node %s: what was to become of it is killed", -1 },
	[NOTE_VM_ERROR] = { LOG_LEVEL_ERR, "VM %s: given up: it has failed on more nodes than RelocateLimit= allows; `ha-ctl vm clear-error` tries again", HOOK_VM_ERROR, true, true },
	[NOTE_VM_STUCK] = { LOG_LEVEL_ERR, "VM %s: its QEMU was killed again and again and does not end; it goes elsewhere once node %s does: see its kernel's log, or `ha-ctl node fence` it",
			    HOOK_VM_STUCK, true },
};

static void op_vm_note(struct agentd *d, enum agent_note note, const struct vm *v, uint32_t node)
{
	const struct note_text *t = &vm_note[note];
	char text[AGENTD_LOG_TEXT];
	const char *name = v ? v->def.name : "(unknown)", *what = node ? agentd_node_name(d, node) : "";

	if (note == NOTE_VM_TROUBLE || note == NOTE_VM_RESET)
		what = vm_trouble_text(v->health.trouble);
	else if (note == NOTE_VM_ENDED)
		what = vm_trouble_text(v->health.ending);
	else if (note == NOTE_VM_NO_PLACE)
		what = name;
	else if (note == NOTE_VM_RESTART || note == NOTE_VM_STAYS_DOWN)
		what = vm_trouble_text(v->last_failure);
	/* The formats are the table's own. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	(void)snprintf(text, sizeof(text), t->text, name, what);
#pragma GCC diagnostic pop
	agentd_say(d, t->level, "%s", text);
	if (t->everywhere)
		peers_say(d->peers, text);
	if (t->hook >= 0 && v)
		agentd_hook(d, (enum hook_event)t->hook, t->of_cluster ? 0 : d->conf.self_id, v, text);
}

static void op_note(void *edge, enum agent_note note, const struct vm *v, uint32_t node)
{
	struct agentd *d = edge;
	const char *name = node ? agentd_node_name(d, node) : "";

	peers_status_changed(d->peers);
	if (note < ARRAY_SIZE(vm_note) && vm_note[note].text) {
		op_vm_note(d, note, v, node);
		return;
	}
	switch (note) {
	case NOTE_LEADER:
		agentd_say(d, LOG_LEVEL_NOTICE, "this node leads");
		break;
	case NOTE_NOT_LEADER:
		agentd_say(d, LOG_LEVEL_NOTICE, "this node leads no more");
		break;
	case NOTE_NODE_LOST:
		if (speaks(d))
			agentd_hook(d, HOOK_NODE_LOST, node, NULL, "its heartbeat stands still");
		break;
	case NOTE_NODE_OVER:
		if (speaks(d))
			agentd_hook(d, HOOK_NODE_FENCED, node, NULL, "it is proven to be over: its VMs start elsewhere");
		power_fenced(d->power, node);
		break;
	case NOTE_NODE_BACK:
		if (speaks(d))
			agentd_hook(d, HOOK_NODE_BACK, node, NULL, "its heartbeat moves");
		break;
	case NOTE_AGENT_SILENT:
		agentd_say(d, LOG_LEVEL_ERR, "node %s: its ha-agent does not run or hangs: its VMs go on, those that end there are started elsewhere", name);
		if (speaks(d))
			agentd_hook(d, HOOK_AGENT_SILENT, node, NULL, "its ha-agent does not run or hangs: its VMs go on, those that end there are started elsewhere");
		break;
	case NOTE_AGENT_BACK:
		agentd_say(d, LOG_LEVEL_NOTICE, "node %s: its ha-agent works again, or its lease has ended", name);
		if (speaks(d))
			agentd_hook(d, HOOK_AGENT_BACK, node, NULL, "its ha-agent works again, or its lease has ended");
		break;
	case NOTE_MAINTENANCE_DONE:
		agentd_say(d, LOG_LEVEL_NOTICE, "maintenance: no VM is left on node %s", name);
		break;
	default:
		break;
	}
}

static const struct agent_ops ops = {
	.write = op_write, .read = op_read, .numbered = op_numbered, .facts = op_facts, .assign = op_assign, .drain = op_drain, .start = op_start, .adopt = op_adopt,
	.take_in = op_take_in, .powerdown = op_powerdown, .quit = op_quit, .kill = op_kill, .reset = op_reset, .cont = op_cont, .probe = op_probe,
	.guest_off = op_guest_off, .forget = op_forget, .move_over = op_move_over,
	.prepare = op_prepare, .incoming = op_incoming, .offer = op_offer, .migrate = op_migrate, .migrate_switch = op_migrate_switch,
	.migrate_cancel = op_migrate_cancel, .go_on = op_go_on, .tell = op_tell,
	.lead = op_lead, .lead_checked = op_lead_checked, .leave = op_leave, .stay = op_stay, .reserve = op_reserve, .note = op_note,
};

void agentd_event(struct agentd *d, const struct agent_event *ev)
{
	unsigned next = 0;

	if (!d->core_runs)
		return;
	if (d->dispatching) {
		/* What points into the caller's memory must not wait: only answers without data come from inside an action. */
		CHECK(!ev->data && !ev->table && !ev->silent && ev->kind != AGENT_EV_CATALOG && d->n_queue < AGENTD_MAX_EVENTS);
		d->queue[d->n_queue++] = *ev;
		return;
	}
	d->dispatching = true;
	log_debug("event %d", (int)ev->kind);
	agent_dispatch(&d->core, ev, clock_now_ns(), &ops, d);
	while (next < d->n_queue) {
		struct agent_event again = d->queue[next++];

		if (next == d->n_queue)
			next = d->n_queue = 0; /* room for what this one brings */
		agent_dispatch(&d->core, &again, clock_now_ns(), &ops, d);
	}
	d->n_queue = 0;
	d->dispatching = false;
	arm_timer(d);
}

void agentd_catalog_changed(struct agentd *d)
{
	struct vm_def *def = calloc(MAX(d->catalog->n, 1U), sizeof(*def));
	struct catalog c = {
		.generation = d->catalog->generation, .seq = d->catalog->seq, .armed = d->catalog->armed, .maintenance = d->catalog->maintenance,
		.quarantine = d->catalog->quarantine,
		.pause = d->catalog->pause, .vm = def, .n = d->catalog->n,
	};
	struct agent_event ev = { .kind = AGENT_EV_CATALOG, .catalog = &c };

	CHECK(def);
	memcpy(c.leaving, d->catalog->leaving, sizeof(c.leaving));
	for (unsigned i = 0; i < c.n; i++)
		catalog_def(&d->catalog->entry[i], &d->conf, &def[i]);
	agentd_event(d, &ev);
	free(def);
	keeper_link_facts(d->keeper);
	if (!d->capacity_told)
		peers_status_changed(d->peers); /* no leader that limits nodes gives this one a VM before it knows what the node has */
	d->capacity_told = true;
}

static void on_timer(void *data)
{
	struct agentd *d = data;
	struct agent_event ev = { .kind = AGENT_EV_TIMER };

	d->timer = 0;
	agentd_event(d, &ev);
}

static void on_units(void *user, const char *error, const struct unit_info *units, size_t n);

static void list_units(void *data)
{
	struct agentd *d = data;
	qb_loop_timer_handle h;

	if (units_list(d->units, on_units, d) < 0)
		(void)qb_loop_timer_add(d->loop, QB_LOOP_MED, 200 * NS_PER_MS, d, list_units, &h);
}

static void on_scope_killed(void *user, const char *error, const struct unit_info *info)
{
	/* Listed again until it is gone. */
}

/* What runs here already: an earlier agent started it. */
static void on_units(void *user, const char *error, const struct unit_info *units, size_t n)
{
	struct agentd *d = user;
	struct agent_event ev = { .kind = AGENT_EV_FOUND };
	qb_loop_timer_handle h;

	if (error) {
		log_warning("cannot list the VM units: %s; trying on", error);
		(void)qb_loop_timer_add(d->loop, QB_LOOP_MED, 200 * NS_PER_MS, d, list_units, &h);
		return;
	}
	/* Of a process of which nobody knows any more how to watch it none can be taken for the VM, and none may be started beside it. */
	for (size_t i = 0; i < n; i++) {
		struct foreign_mark mark;

		if (!units[i].is_scope || (units[i].state != UNIT_RUNNING && units[i].main_pid == 0) || !uuid_parse(units[i].uuid, ev.uuid) || foreign_marked(ev.uuid, &mark))
			continue;
		agentd_say(d, LOG_LEVEL_ERR, "VM %s: an adopted QEMU of it runs here, and " AGENTD_VM_DIR " does not say how to reach it any more: killed", units[i].uuid);
		(void)units_kill_scope(d->units, units[i].uuid, SIGKILL, on_scope_killed, d);
		(void)qb_loop_timer_add(d->loop, QB_LOOP_MED, 200 * NS_PER_MS, d, list_units, &h);
		return;
	}
	/* Whatever its unit is in: what has a process has a QEMU that may yet write. */
	for (size_t i = 0; i < n; i++)
		if ((units[i].state == UNIT_RUNNING || units[i].state == UNIT_STARTING || units[i].main_pid != 0) && uuid_parse(units[i].uuid, ev.uuid)) {
			ev.incoming = mover_marked(ev.uuid);
			agentd_event(d, &ev);
		}
	ev = (struct agent_event){ .kind = AGENT_EV_LISTED };
	agentd_event(d, &ev);
}

void agentd_capacity(uint32_t *ret_cpus, uint32_t *ret_memory_mib)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	*ret_cpus = cpus > 0 ? (uint32_t)cpus : 0;
	*ret_memory_mib = pages > 0 && size > 0 ? (uint32_t)((uint64_t)pages * (uint64_t)size >> 20) : 0;
}

static void on_known(void *user, const struct superblock *sb)
{
	struct agentd *d = user;
	struct agent_options opt = { .self = d->conf.self_id, .node_limit = sb->node_limit, .n_volumes = sb->n_volumes, .timing = d->conf.timing,
				     .seq_base = last_number(), .starts_per_node = d->conf.starts_per_node, .migrations_per_node = d->conf.migrations_per_node,
				     .memory_percent = d->conf.memory_percent, .vcpus_percent = d->conf.vcpus_percent,
				     .reserve = true };
	struct agent_event own = { .kind = AGENT_EV_CAPACITY, .node = d->conf.self_id };

	memcpy(opt.cluster, sb->cluster, 16);
	for (size_t i = 0; i < d->conf.n_nodes; i++) {
		opt.members |= 1ULL << (d->conf.nodes[i].id - 1);
		opt.node_max = MAX(opt.node_max, d->conf.nodes[i].id);
	}
	d->sb = sb;
	agent_init(&d->core, &opt, clock_now_ns());
	CHECK(store_new(d, &d->store) == 0);
	d->core_runs = true;
	agentd_capacity(&own.cpus, &own.memory_mib);
	agentd_event(d, &own);
	arm_timer(d);
	list_units(d);
}

void agentd_set_changed(struct agentd *d)
{
	if (d->set_changed)
		return;
	d->set_changed = true;
	log_notice("the volume set has changed: starting again with it; VMs go on");
	qb_loop_stop(d->loop);
}

static void on_changed(void *user) { agentd_set_changed(user); }

static void on_volume(void *user, unsigned index, bool good, const char *reason)
{
	struct agentd *d = user;

	agentd_say(d, good ? LOG_LEVEL_NOTICE : LOG_LEVEL_WARNING, "volume %s: %s", d->conf.volumes[index], good ? "usable" : reason);
	if (d->store)
		store_volume(d->store, index, good);
}

/* Nothing runs yet that could be disturbed: an operator may just be changing the volume set. */
static void follow_conf(struct agentd *d)
{
	if (d->core_runs || ++d->waited % WAITED_TICKS != 0 || !program_volumes_changed(d->config_dir, &d->conf))
		return;
	log_notice("Volumes= has changed: starting again with it");
	qb_loop_stop(d->loop);
}

static void on_tick(void *data)
{
	struct agentd *d = data;
	qb_loop_timer_handle h;

	(void)notify_now("WATCHDOG=1", -1);
	follow_conf(d);
	if (!d->ready_told && d->core.adopted) {
		d->ready_told = true;
		notify_send("READY=1\nSTATUS=managing this node's VMs");
	}
	(void)qb_loop_timer_add(d->loop, QB_LOOP_MED, TICK_MS * NS_PER_MS, d, on_tick, &h);
}

static int32_t on_signal(int32_t sig, void *data)
{
	struct agentd *d = data;

	log_notice("stopping; VMs go on");
	notify_send("STOPPING=1");
	qb_loop_stop(d->loop);
	return 0;
}

static void begin_log(struct agentd *d)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	d->next_log_id = ((uint64_t)ts.tv_sec * MS_PER_S + (uint64_t)ts.tv_nsec / NS_PER_MS) * 1000;
}

static int start(struct agentd *d)
{
	static const struct volset_callbacks volset_cb = { .known = on_known, .volume = on_volume, .changed = on_changed };
	qb_loop_signal_handle sig[2];
	char err[512] = "";
	int r;

	d->loop = qb_loop_create();
	if (!d->loop)
		return -ENOMEM;
	(void)qb_loop_signal_add(d->loop, QB_LOOP_HIGH, SIGTERM, d, on_signal, &sig[0]);
	(void)qb_loop_signal_add(d->loop, QB_LOOP_HIGH, SIGINT, d, on_signal, &sig[1]);
	if ((r = server_new(d, &d->server)) < 0 || (r = hooks_new(&d->conf, &d->hooks)) < 0 || (r = units_new(d->loop, &d->units)) < 0 ||
	    (r = runner_new(d, &d->runner)) < 0 || (r = drainer_new(d, &d->drainer)) < 0 || (r = mover_new(d, &d->mover)) < 0 || (r = peers_new(d, &d->peers)) < 0 ||
	    (r = power_new(d, &d->power)) < 0 || (r = reserver_new(d, &d->reserver)) < 0 || (r = leaver_new(d, &d->leaver)) < 0 || (r = foreign_new(d, &d->foreign)) < 0 || (r = keeper_link_new(d, &d->keeper)) < 0) {
		log_err("cannot start: %s", strerror(-r));
		return r;
	}
	r = volset_new(d->loop, &d->conf, &volset_cb, d, &d->volset, err, sizeof(err));
	if (r < 0)
		log_err("%s", err);
	return r;
}

/* Certificates that are no good cost migrations, and nothing else: QEMU reads them anew each time. */
static void check_certificates(struct agentd *d)
{
	char err[AGENTD_LOG_TEXT] = "", date[32];
	time_t now = time(NULL), until;
	struct tm tm;

	if (!*d->conf.tls_dir)
		return;
	if (tlscert_check(d->conf.tls_dir, d->conf.self_name, now, &until, err, sizeof(err)) < 0)
		agentd_say(d, LOG_LEVEL_ERR, "no VM can be migrated from or to this node: TLSDirectory=: %s", err);
	else if (until - now < CERTIFICATES_SOON_S && gmtime_r(&until, &tm) && strftime(date, sizeof(date), "%F %T UTC", &tm) > 0)
		agentd_say(d, LOG_LEVEL_WARNING, "TLSDirectory=: a certificate in %s expires on %s, and VMs cannot be migrated after that", d->conf.tls_dir, date);
}

int main(int argc, char **argv)
{
	static struct agentd d;
	const char *dir;
	int r = program_options(argc, argv, "ha-agent", "Manages this node's VMs.", &dir);

	if (r >= 0)
		return r;
	if (program_runs_already("ha-agent", AGENTD_SOCKET, SOCK_STREAM)) /* both would write this node's claims */
		return PROGRAM_EXIT_USAGE;
	if (program_conf(dir, &d.conf) < 0)
		return 1;
	d.config_dir = dir;
	begin_log(&d);
	if (start(&d) < 0)
		return 1;
	check_certificates(&d);
	on_tick(&d);
	notify_send("STATUS=waiting for the keeper and a quorum of the volumes");
	qb_loop_run(d.loop);
	hooks_free(d.hooks);
	return 0;
}
