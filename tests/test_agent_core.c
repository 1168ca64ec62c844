/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scenarios for the agent core: three agents, their claims on in-memory volumes, a keeper's table made up by the scenario, VMs
 * that start, stop and crash as told. Virtual time, one event at a time, through the shipped dispatch. At every start of a VM
 * the volumes themselves are looked at: the claim must be on a fence quorum of them, no other live claim beside it, and nobody
 * else may run the VM. */
#include <stdarg.h>
#include <stdio.h>

#include "agent/core/dispatch.h"
#include "tests/tap.h"

#define NODES 3
#define VOLUMES 3
#define VMS 48
#define EVENTS 1024
#define TABLE_MS 250
#define MS(ms) ((int64_t)(ms) * NS_PER_MS)
#define REGION (2 * NODES * FORMAT_CLAIMS_LEN)

static const uint8_t cluster[16] = { 'c' };

/* What will happen to an agent at some time; data and table are filled in when it does. */
struct pending {
	bool used, is_write, lands, landed;
	int64_t at, land_at;
	uint32_t node;
	unsigned life, buffer;
	struct agent_event ev;
	uint8_t block[FORMAT_CLAIMS_LEN];
	uint32_t len;
};

/* waits: for a guest to come, as number id, or holds one that was not continued; sent: stopped and inactive, its guest is whole elsewhere. */
struct process { bool runs, waits, sent, cancelled, still /* paused by somebody */; uint32_t epoch; uint64_t id; };

struct node {
	struct agent a;
	uint32_t id;
	bool powered, runs, frozen, ring, announces_newer;
	unsigned life;
	uint32_t epoch, over;
	bool gate, fresh, armed;
	uint64_t counter, claims_seq;
	uint64_t term;        /* of its gate */
	uint64_t silent_seq;  /* its keeper says that its agent is silent, in a block of that number; 0: it does not */
	uint32_t marks[VMS];  /* and that these have a process */
	unsigned n_marks;
	bool unheard;         /* its keeper does not get on with reading its table */
	bool volume_gone[VOLUMES], writes_refused[VOLUMES];
	bool crashing, refusing, deaf,
		stuck, /* systemd never answers */
		very_deaf, /* its QEMUs: end at once; the gate says no; guests, QEMU itself ignore requests */
		hangs,     /* its QEMUs say that they end, and do not */
		cannot,    /* none of them can wait for a guest */
		unheeding, /* those that send one do not hear that it is called off */
		held;      /* a write of a dead QEMU may still come */
	unsigned kills_lost; /* so many are not obeyed */
	uint32_t holder; /* who has the VM that is not adopted */
	uint32_t drain_ms, quiet_ms, start_ms, prepare_ms, cont_ms;
	struct process process[VMS];
	uint8_t read_buf[VOLUMES][REGION];
	char trace[256];
	unsigned leads_told, notes[NOTE_COUNT];
	bool led;
};

static struct {
	int64_t now, table_at;
	unsigned n, n_volumes;
	uint8_t volume[VOLUMES][REGION];
	struct node node[NODES];
	struct pending pending[EVENTS];
	struct vm_def vm[VMS];
	unsigned n_vms;
	struct catalog catalog;
	bool catalog_stuck;       /* edits are asked for and do not come about */
	uint32_t catalog_read_ms; /* a new leader's read of it */
	unsigned forgotten;
	bool migrates;            /* VMs are taken as they run */
	uint32_t send_ms;         /* how long a guest's memory takes */
	uint64_t ids;
	char broken[200];
} s;

static struct keeper_msg table;
static struct claims claims[NODES];

static struct node *node(uint32_t id) { return &s.node[id - 1]; }
static struct agent *agent(uint32_t id) { return &s.node[id - 1].a; }
static uint64_t bit(uint32_t id) { return 1ULL << (id - 1); }

__attribute__((format(printf, 1, 2))) static void broken(const char *fmt, ...)
{
	va_list ap;

	if (s.broken[0])
		return;
	va_start(ap, fmt);
	(void)vsnprintf(s.broken, sizeof(s.broken), fmt, ap);
	va_end(ap);
}

static unsigned vm_index(const uint8_t uuid[16]) { return uuid[1]; }
static bool runs(uint32_t id, unsigned vm) { return node(id)->process[vm].runs; }

static unsigned running(unsigned vm)
{
	unsigned sum = 0;

	for (uint32_t id = 1; id <= s.n; id++)
		sum += runs(id, vm);
	return sum;
}

static struct vm *vm_of(uint32_t id, unsigned vm) { return agent_vm_by_uuid(agent(id), s.vm[vm].uuid); }

static void trace(struct node *n, char what)
{
	size_t len = strlen(n->trace);

	if (len + 1 < sizeof(n->trace))
		n->trace[len] = what;
}

static bool did(uint32_t id, char what) { return strchr(node(id)->trace, what) != NULL; }

/* Both were done, the one first. */
static bool in_order(uint32_t id, char first, char then)
{
	const char *a = strchr(node(id)->trace, first);

	return a && strchr(a, then);
}

static struct pending *later(struct node *n, uint32_t ms, enum agent_event_kind kind)
{
	for (unsigned i = 0; i < EVENTS; i++) {
		struct pending *p = &s.pending[i];

		if (p->used)
			continue;
		*p = (struct pending){ .used = true, .node = n->id, .life = n->life, .at = s.now + MS(ms) };
		p->ev.kind = kind;
		return p;
	}
	broken("too many events");
	return &s.pending[0];
}

static void later_vm(struct node *n, uint32_t ms, enum agent_event_kind kind, const uint8_t uuid[16], enum vm_exit how)
{
	struct pending *p = later(n, ms, kind);

	memcpy(p->ev.uuid, uuid, 16);
	p->ev.exit = how;
}

static void later_assign(uint32_t to, uint32_t ms, uint32_t epoch, const uint8_t uuid[16])
{
	struct pending *p = later(node(to), ms, AGENT_EV_ASSIGN);

	memcpy(p->ev.uuid, uuid, 16);
	p->ev.epoch = epoch;
}

static uint8_t *place(unsigned v, uint32_t id, unsigned buffer)
{
	return s.volume[v] + (format_claims_offset(id, buffer) - FORMAT_CLAIMS_OFFSET);
}

/* The newest claims block of a node among the volumes that can be read at all. */
static const struct claims *on_disk(uint32_t id, unsigned first, unsigned end)
{
	static struct claims got[2];
	struct claims *best = &got[0], *c = &got[1], *t;

	memset(got, 0, sizeof(got));
	for (unsigned v = first; v < end; v++) {
		for (unsigned b = 0; b < 2; b++) {
			if (claims_decode(place(v, id, b), id, b, cluster,
			    c) != FORMAT_OK)
				continue;
			if (format_compare(c->epoch, c->seq, best->epoch, best->seq) <= 0)
				continue;
			t = best;
			best = c;
			c = t;
		}
	}
	return best;
}

static const struct claim *claim_in(const struct claims *c, const uint8_t uuid[16])
{
	for (uint32_t i = 0; i < c->n; i++)
		if (memcmp(c->claim[i].vm, uuid, 16) == 0)
			return &c->claim[i];
	return NULL;
}

static enum claim_state disk_state(uint32_t id, unsigned vm)
{
	const struct claim *c = claim_in(on_disk(id, 0, s.n_volumes), s.vm[vm].uuid);

	return c ? c->state : CLAIM_NONE;
}

/* S1, S2 at the moment a VM is about to run. */
static void check_start(struct node *n, const struct vm *v)
{
	unsigned holds = 0, vm = vm_index(v->def.uuid);

	for (unsigned i = 0; i < s.n_volumes; i++) {
		const struct claim *c = claim_in(on_disk(n->id, i, i + 1), v->def.uuid);

		holds += c && c->state == CLAIM_ACTIVE && c->epoch == n->a.epoch && c->generation == v->generation;
	}
	if (holds < format_fence_quorum(s.n_volumes))
		broken("node %u starts VM %u with its claim on %u volumes", n->id, vm, holds);
	for (uint32_t id = 1; id <= s.n; id++) {
		const struct claim *c = claim_in(on_disk(id, 0, s.n_volumes), v->def.uuid);

		if (id == n->id)
			continue;
		if (c && c->state == CLAIM_ACTIVE && c->epoch > node(id)->over && c->generation <= v->generation && runs(id, vm))
			broken("node %u starts VM %u beside the claim of node %u", n->id, vm, id);
		if (runs(id, vm))
			broken("node %u starts VM %u while node %u runs it", n->id, vm, id);
	}
}

static void op_write(void *edge, unsigned volume, unsigned buffer, const struct claims *c)
{
	struct node *n = edge;
	struct pending *p = later(n, 4, AGENT_EV_WRITE_DONE);
	bool refused = n->volume_gone[volume] || n->writes_refused[volume];

	for (unsigned i = 0; i < EVENTS; i++)
		if (s.pending[i].used && &s.pending[i] != p && s.pending[i].is_write && !s.pending[i].landed &&
		    s.pending[i].lands &&
		    s.pending[i].node == n->id && s.pending[i].life == n->life && s.pending[i].ev.volume == volume)
			broken("S5: node %u writes its claims over an unresolved write", n->id);
	if (volume == 0)
		trace(n, 'W');
	p->is_write = true;
	p->lands = !refused;
	p->land_at = s.now + MS(2);
	p->buffer = buffer;
	p->len = claims_block_len(c->n);
	claims_encode(c, cluster, buffer, p->block);
	p->ev.volume = volume;
	p->ev.ok = !refused;
	p->ev.definite = true;
	p = later(n, 4, AGENT_EV_WRITE_SETTLED);
	p->ev.volume = volume;
	p->ev.ok = true;
}

static void op_read(void *edge, unsigned volume)
{
	struct node *n = edge;
	struct pending *p = later(n, 4, AGENT_EV_READ_DONE);

	if (volume == 0)
		trace(n, 'R');
	p->lands = !n->volume_gone[volume];
	p->land_at = s.now + MS(2);
	p->ev.volume = volume;
	p->ev.ok = p->lands;
	p->ev.definite = true;
	p = later(n, 4, AGENT_EV_READ_SETTLED);
	p->ev.volume = volume;
}

static void op_facts(void *edge)
{
	struct node *n = edge;

	n->claims_seq = n->a.claimer.acked_seq;
	s.table_at = MIN(s.table_at, s.now + MS(10)); /* the doorbell */
}

static void op_assign(void *edge, uint32_t to, uint32_t epoch, const struct vm *v)
{
	if (node(to)->runs)
		later_assign(to, 1, epoch, v->def.uuid);
}

static void op_drain(void *edge, const struct vm *v, bool full)
{
	struct node *n = edge;

	trace(n, full ? 'D' : 'd');
	later_vm(n, full ? n->drain_ms : n->quiet_ms, AGENT_EV_DRAINED, v->def.uuid, VM_EXIT_CRASH);
}

/* Its QEMU says that the guest runs, as it is asked all the time: only then it can be sent. */
static void later_runs(struct node *n, uint32_t ms, const uint8_t uuid[16])
{
	struct pending *p = later(n, ms, AGENT_EV_HEALTH);

	memcpy(p->ev.uuid, uuid, 16);
	p->ev.fact = HEALTH_STATE;
	p->ev.run = GUEST_RUNS;
	p->ev.ok = true;
}

static void later_paused(struct node *n, uint32_t ms, const uint8_t uuid[16])
{
	struct pending *p = later(n, ms, AGENT_EV_HEALTH);

	memcpy(p->ev.uuid, uuid, 16);
	p->ev.fact = HEALTH_STATE;
	p->ev.run = GUEST_PAUSED;
	p->ev.ok = true;
}

static void op_start(void *edge, const struct vm *v)
{
	struct node *n = edge;
	struct process *p = &n->process[vm_index(v->def.uuid)];

	trace(n, 'S');
	if (n->refusing || !n->gate || n->epoch != n->a.epoch || n->term != v->term) {
		later_vm(n, 2, AGENT_EV_EXIT, v->def.uuid, VM_EXIT_REFUSED);
		return;
	}
	check_start(n, v);
	if (n->crashing) {
		later_vm(n, 5, AGENT_EV_EXIT, v->def.uuid, VM_EXIT_CRASH);
		return;
	}
	*p = (struct process){ .runs = true, .epoch = n->epoch };
	later_vm(n, n->start_ms, AGENT_EV_STARTED, v->def.uuid, VM_EXIT_CRASH);
	if (s.migrates)
		later_runs(n, n->start_ms + 10, v->def.uuid);
}

static void op_adopt(void *edge, const struct vm *v) { trace(edge, 'A'); }

/* Something else has started it: T, it is put behind the gate, as a start; N: it is not. */
static void op_take_in(void *edge, const struct vm *v, bool on, uint32_t holder)
{
	struct node *n = edge;
	struct process *p = &n->process[vm_index(v->def.uuid)];

	trace(n, on ? 'T' : 'N');
	n->holder = holder;
	if (!on)
		return;
	if (n->refusing || !n->gate || n->epoch != n->a.epoch || n->term != v->term) {
		later_vm(n, 2, AGENT_EV_EXIT, v->def.uuid, n->crashing ? VM_EXIT_CRASH : VM_EXIT_REFUSED);
		return;
	}
	check_start(n, v);
	*p = (struct process){ .runs = true, .epoch = n->epoch };
	if (!n->stuck)
		later_vm(n, n->start_ms, AGENT_EV_STARTED, v->def.uuid, VM_EXIT_CRASH);
}

static void process_ends(struct node *n, unsigned vm, uint32_t ms, enum vm_exit how)
{
	if (!n->process[vm].runs && !n->process[vm].waits && !n->process[vm].sent)
		return;
	n->process[vm] = (struct process){ .runs = false };
	later_vm(n, ms, AGENT_EV_EXIT, s.vm[vm].uuid, how);
}

static void op_powerdown(void *edge, const struct vm *v)
{
	struct node *n = edge;

	trace(n, 'P');
	if (!n->deaf)
		process_ends(n, vm_index(v->def.uuid), 50, VM_EXIT_GUEST_OFF);
}

static void op_quit(void *edge, const struct vm *v)
{
	struct node *n = edge;

	trace(n, 'Q');
	if (!n->very_deaf)
		process_ends(n, vm_index(v->def.uuid), 10, VM_EXIT_QUIT);
}

static void op_kill(void *edge, const uint8_t uuid[16])
{
	struct node *n = edge;

	trace(n, 'K');
	if (n->kills_lost > 0) {
		n->kills_lost--;
		return;
	}
	process_ends(n, vm_index(uuid), 5, n->hangs ? VM_EXIT_GUEST_OFF : VM_EXIT_KILLED);
}

static void op_lead(void *edge, bool on, uint64_t generation)
{
	struct node *n = edge;

	n->led = on;
	n->leads_told += on;
	trace(n, on ? 'L' : 'l');
	if (on)
		(void)later(n, s.catalog_read_ms, AGENT_EV_CATALOG_READ);
}

static void op_lead_checked(void *edge, bool on) { trace(edge, on ? 'C' : 'c'); }

static void op_note(void *edge, enum agent_note note, const struct vm *v, uint32_t id)
{
	struct node *n = edge;

	if ((size_t)note < ARRAY_SIZE(n->notes))
		n->notes[note]++;
}

/* The catalog as every running agent gets it; each edit has the next seq. */
static void spread_catalog(void)
{
	s.catalog.seq++;
	for (uint32_t id = 1; id <= s.n; id++)
		if (node(id)->runs)
			(void)later(node(id), 20, AGENT_EV_CATALOG);
	s.table_at = MIN(s.table_at, s.now + MS(25));
}

static void op_guest_off(void *edge, const struct vm *v)
{
	trace(edge, 'O');
	if (s.catalog_stuck)
		return;
	s.vm[vm_index(v->def.uuid)].desired = DESIRED_STOPPED;
	spread_catalog();
}

static void op_forget(void *edge, const struct vm *v)
{
	unsigned vm = vm_index(v->def.uuid);

	trace(edge, 'F');
	s.forgotten++;
	for (uint32_t id = 1; id <= s.n; id++)
		if (runs(id, vm) || (disk_state(id, vm) == CLAIM_ACTIVE && node(id)->over == 0))
			broken("VM %u is forgotten while node %u has it", vm, id);
	if (vm != s.n_vms - 1)
		broken("the scenario can forget its last VM only");
	s.n_vms = vm;
	spread_catalog();
}

static void op_move_over(void *edge, const struct vm *v, bool done)
{
	struct vm_move *m = &s.vm[vm_index(v->def.uuid)].move;

	trace(edge, done ? 'M' : 'm');
	if (s.catalog_stuck || m->number != v->def.move.number)
		return;
	m->node = 0;
	spread_catalog();
}

/* As the server edits the catalog for an agent whose host goes down. */
static void op_leave(void *edge, enum leave_policy policy, bool reboot)
{
	struct node *n = edge;

	trace(n, policy == LEAVE_FAILOVER ? 'Y' : 'X');
	if (s.catalog_stuck)
		return;
	for (unsigned vm = 0; vm < s.n_vms; vm++)
		if (runs(n->id, vm) && (s.vm[vm].move.node == 0 || s.vm[vm].move.back))
			s.vm[vm].move = agent_leave_move(policy, reboot, n->id, s.vm[vm].move.number + 1);
	s.catalog.leaving[n->id - 1] = n->a.epoch;
	spread_catalog();
}

static void op_stay(void *edge)
{
	struct node *n = edge;

	trace(n, 'x');
	if (s.catalog_stuck)
		return;
	s.catalog.leaving[n->id - 1] = 0;
	spread_catalog();
}

static void op_prepare(void *edge, uint32_t to, uint32_t epoch, const struct vm *v)
{
	struct pending *p;

	if (!node(to)->runs)
		return;
	p = later(node(to), 1, AGENT_EV_PREPARE);
	p->ev.epoch = epoch;
	memcpy(p->ev.uuid, v->def.uuid, 16);
}

static void later_news(uint32_t to, uint32_t ms, uint32_t from, unsigned vm, uint64_t id, enum migrate_news news)
{
	struct pending *p;

	if (!node(to)->runs)
		return;
	p = later(node(to), ms, AGENT_EV_MIGRATION);
	memcpy(p->ev.uuid, s.vm[vm].uuid, 16);
	p->ev.node = from;
	p->ev.migration = id;
	p->ev.news = news;
}

static void op_incoming(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = vm_index(v->def.uuid);

	trace(n, 'I');
	n->process[vm] = (struct process){ .waits = true, .id = ++s.ids };
	if (n->cannot) {
		later_news(v->migration.peer, 3, n->id, vm, 0, MIGRATE_NEWS_CANNOT);
		process_ends(n, vm, 5, VM_EXIT_CRASH);
		return;
	}
	later_news(n->id, n->prepare_ms + 20, n->id, vm, s.ids, MIGRATE_NEWS_READY);
}

static void op_offer(void *edge, uint32_t to, const struct vm *v)
{
	struct node *n = edge;
	struct pending *p;

	if (!node(to)->runs)
		return;
	p = later(node(to), 1, AGENT_EV_OFFER);
	memcpy(p->ev.uuid, v->def.uuid, 16);
	p->ev.node = n->id;
	p->ev.migration = v->migration.id;
	p->ev.held = node(to)->held;
}

static bool is_there(uint32_t id, unsigned vm, uint64_t migration) { return node(id)->process[vm].waits && node(id)->process[vm].id == migration; }

static void op_migrate(void *edge, const struct vm *v)
{
	struct node *n = edge;
	const struct vm_migration *m = &v->migration;
	unsigned vm = vm_index(v->def.uuid);

	trace(n, 'G');
	n->process[vm].cancelled = false;
	if (!is_there(m->peer, vm, m->id)) {
		later_news(n->id, 2, n->id, vm, m->id, MIGRATE_NEWS_FAILED);
		return;
	}
	later_news(m->peer, 2, m->peer, vm, m->id, MIGRATE_NEWS_LOADING);
	later_news(n->id, s.send_ms, n->id, vm, m->id, MIGRATE_NEWS_PAUSED);
}

static void op_switch(void *edge, const struct vm *v)
{
	struct node *n = edge;
	const struct vm_migration *m = &v->migration;
	unsigned vm = vm_index(v->def.uuid);
	struct process *p = &n->process[vm];

	trace(n, 'W');
	if (p->cancelled || !p->runs)
		return;
	if (!is_there(m->peer, vm, m->id)) {
		later_news(n->id, 2, n->id, vm, m->id, MIGRATE_NEWS_FAILED);
		return;
	}
	p->runs = false;
	p->sent = true;
	later_news(n->id, 5, n->id, vm, m->id, MIGRATE_NEWS_COMPLETED);
	later_news(m->peer, 5, m->peer, vm, m->id, MIGRATE_NEWS_LOADED);
}

static void op_cancel(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = vm_index(v->def.uuid);

	trace(n, 'N');
	if (n->unheeding)
		return;
	n->process[vm].cancelled = true;
	later_news(n->id, 5, n->id, vm, v->migration.id, n->process[vm].sent ? MIGRATE_NEWS_COMPLETED : MIGRATE_NEWS_FAILED);
}

static void op_go_on(void *edge, const struct vm *v)
{
	struct node *n = edge;
	struct process *p = &n->process[vm_index(v->def.uuid)];
	bool came = p->waits;

	trace(n, 'g');
	if (!p->waits && !p->sent)
		return;
	check_start(n, v);
	*p = (struct process){ .runs = true, .epoch = n->epoch, .still = v->migration.still };
	later_vm(n, n->cont_ms + 5, came ? AGENT_EV_STARTED : AGENT_EV_CONTINUED, v->def.uuid, VM_EXIT_CRASH);
	later_runs(n, n->cont_ms + 10, v->def.uuid);
}

static void op_tell(void *edge, uint32_t to, const struct vm *v, uint64_t migration, enum migrate_news news)
{
	struct node *n = edge;

	later_news(to, 2, n->id, vm_index(v->def.uuid), migration, news);
}

#define OPS \
	.write = op_write, .read = op_read, .facts = op_facts, .assign = op_assign, .drain = op_drain, .start = op_start, .adopt = op_adopt, \
	.take_in = op_take_in, .powerdown = op_powerdown, .quit = op_quit, .kill = op_kill, .guest_off = op_guest_off, .forget = op_forget, .move_over = op_move_over, .lead = op_lead, \
	.lead_checked = op_lead_checked, .leave = op_leave, .stay = op_stay, .note = op_note

static const struct agent_ops live_ops = {
	OPS, .prepare = op_prepare, .incoming = op_incoming, .offer = op_offer, .migrate = op_migrate, .migrate_switch = op_switch,
	.migrate_cancel = op_cancel, .go_on = op_go_on, .tell = op_tell,
};
static const struct agent_ops ops = { OPS };

static void give(struct node *n, struct agent_event *ev)
{
	if (n->runs && !n->frozen)
		agent_dispatch(&n->a, ev, s.now, s.migrates ? &live_ops : &ops, n);
}

static void give_table(struct node *n)
{
	struct agent_event ev = { .kind = AGENT_EV_SILENT };
	struct keeper_silent silent;

	for (uint32_t id = 1; id <= s.n; id++) {
		const struct node *x = node(id);

		if (id == n->id || x->silent_seq == 0)
			continue;
		silent = (struct keeper_silent){ .node = id, .epoch = x->epoch, .seq = x->silent_seq, .n = x->n_marks };
		memcpy(silent.mark, x->marks, sizeof(x->marks));
		ev.silent = &silent;
		give(n, &ev);
	}
	ev = (struct agent_event){ .kind = AGENT_EV_TABLE, .table = &table };
	memset(&table, 0, sizeof(table));
	table.table.gate_term = n->gate ? n->term : 0;
	table.table.read_seq = n->unheard ? 0 : n->claims_seq;
	table.table.self = n->id;
	table.table.epoch = n->epoch;
	table.table.gate_open = n->gate;
	table.table.node_limit = NODES;
	table.table.state = LEASE_ARMED;
	for (uint32_t id = 1; id <= s.n; id++) {
		const struct node *x = node(id);

		table.table.node[id - 1] = (struct keeper_table_node){
			.epoch = x->epoch, .over = MAX(x->over, x->epoch ? x->epoch - 1 : 0), .known = x->epoch != 0,
				.fresh = id == n->id ? n->gate : x->fresh,
			.state = x->armed ? HEARTBEAT_ARMED : HEARTBEAT_DISARMED, .ring = HEARTBEAT_RING_OK,
				.in_view = x->ring && n->ring,
			.committed = x->over >= x->epoch ? 2 : 0, .agent_counter = x->counter, .claims_seq = x->claims_seq, .silent_seq = x->silent_seq,
			.catalog_generation = s.catalog.generation, .catalog_seq = x->a.catalog_seq + (x->announces_newer ? 100 : 0),
		};
	}
	give(n, &ev);
}

static void deliver(struct pending *p)
{
	struct node *n = node(p->node);
	struct agent_event ev = p->ev;
	bool mine = n->runs && p->life == n->life;

	if (mine && n->frozen) {
		p->at = s.now + MS(10); /* hung: it takes it later */
		return;
	}
	p->used = false;
	if (!mine)
		return;
	ev.data = n->read_buf[ev.volume];
	if (ev.kind == AGENT_EV_CATALOG) {
		s.catalog.vm = s.vm;
		s.catalog.n = s.n_vms;
		ev.catalog = &s.catalog;
	}
	give(n, &ev);
}

static void land(struct pending *p)
{
	p->landed = true;
	if (p->is_write)
		memcpy(place(p->ev.volume, p->node, p->buffer), p->block, p->len);
	else
		memcpy(node(p->node)->read_buf[p->ev.volume], s.volume[p->ev.volume], REGION);
}

static int64_t next_at(void)
{
	int64_t at = s.table_at;

	for (unsigned i = 0; i < EVENTS; i++) {
		const struct pending *p = &s.pending[i];

		if (p->used)
			at = MIN(at, p->lands && !p->landed ? MIN(p->land_at, p->at) : p->at);
	}
	for (uint32_t id = 1; id <= s.n; id++)
		if (node(id)->runs && !node(id)->frozen)
			at = MIN(at, agent_deadline(agent(id)));
	return MAX(at, s.now);
}

static void step(void)
{
	static unsigned same;
	int64_t at = next_at();

	same = at > s.now ? 0 : same + 1;
	if (same > 20000) {
		broken("busy loop");
		same = 0;
		at += MS(1);
	}
	s.now = at;
	for (unsigned i = 0; i < EVENTS; i++) {
		struct pending *p = &s.pending[i];

		if (p->used && p->lands && !p->landed && p->land_at <= s.now) {
			land(p);
			return;
		}
	}
	/* In the order in which they were asked for. */
	for (unsigned i = 0; i < EVENTS; i++) {
		if (s.pending[i].used && s.pending[i].at <= s.now) {
			deliver(&s.pending[i]);
			return;
		}
	}
	if (s.table_at <= s.now) {
		s.table_at = s.now + MS(TABLE_MS);
		for (uint32_t id = 1; id <= s.n; id++) {
			node(id)->counter += node(id)->runs && !node(id)->frozen;
			give_table(node(id));
		}
		return;
	}
	for (uint32_t id = 1; id <= s.n; id++) {
		struct agent_event ev = { .kind = AGENT_EV_TIMER };

		if (node(id)->runs && !node(id)->frozen && agent_deadline(agent(id)) <= s.now)
			give(node(id), &ev);
	}
}

static void run(uint32_t ms)
{
	int64_t end = s.now + MS(ms);

	while (next_at() <= end)
		step();
	s.now = end;
}

#define UNTIL(ms, cond) \
	({ \
		int64_t until_end = s.now + MS(ms); \
		while (!(cond) && next_at() <= until_end) \
			step(); \
		(cond); \
	})

static void start_agent(uint32_t id)
{
	struct node *n = node(id);
	struct agent_options opt = { .self = id, .node_limit = NODES, .node_max = s.n, .n_volumes = s.n_volumes,
		.members = (1ULL << s.n) - 1 };

	timing_of_profile(TIMING_FAST, &opt.timing);
	memcpy(opt.cluster, cluster, 16);
	n->runs = true;
	n->frozen = n->led = false;
	n->life++;
	n->claims_seq = 0;
	agent_init(&n->a, &opt, s.now);
	for (unsigned v = 0; v < s.n_volumes; v++) {
		struct agent_event ev = { .kind = AGENT_EV_VOLUME, .volume = v, .ok = !n->volume_gone[v] };

		give(n, &ev);
	}
	for (unsigned vm = 0; vm < VMS; vm++)
		if (n->process[vm].runs)
			later_vm(n, 1, AGENT_EV_FOUND, s.vm[vm].uuid, VM_EXIT_CRASH);
	(void)later(n, 2, AGENT_EV_LISTED);
	(void)later(n, 30, AGENT_EV_CATALOG);
	s.table_at = MIN(s.table_at, s.now + MS(1));
}

static void stop_agent(uint32_t id)
{
	node(id)->runs = false;
	node(id)->life++;
	node(id)->led = false;
}

static void power_off(uint32_t id)
{
	stop_agent(id);
	node(id)->powered = node(id)->gate = node(id)->fresh = node(id)->ring = false;
	memset(node(id)->process, 0, sizeof(node(id)->process));
}

static void proven_over(uint32_t id)
{
	node(id)->over = node(id)->epoch;
	s.table_at = s.now;
}

static void volume(uint32_t id, unsigned v, bool there)
{
	struct agent_event ev = { .kind = AGENT_EV_VOLUME, .volume = v, .ok = there };

	node(id)->volume_gone[v] = !there;
	give(node(id), &ev);
}

static void add_vms(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct vm_def *d = &s.vm[s.n_vms];

		*d = (struct vm_def){ .uuid = { 'v', (uint8_t)s.n_vms, 1 }, .desired = DESIRED_STARTED, .restart_limit = 2,
			.restart_window_ms = 60000, .stop_timeout_ms = 3000 };
		(void)snprintf(d->name, sizeof(d->name), "vm%u", s.n_vms++);
	}
}

static void init(unsigned nodes, unsigned volumes, unsigned vms)
{
	memset(&s, 0, sizeof(s));
	s.now = MS(1000000);
	s.table_at = s.now;
	s.n = nodes;
	s.n_volumes = volumes;
	s.catalog.armed = true;
	s.catalog.generation = s.catalog.seq = 1;
	for (unsigned v = 0; v < volumes; v++)
		for (uint32_t id = 1; id <= NODES; id++)
			for (unsigned b = 0; b < 2; b++) {
				claims[0] = (struct claims){ .node = id };
				claims_encode(&claims[0], cluster, b, place(v, id, b));
			}
	for (uint32_t id = 1; id <= nodes; id++) {
		struct node *n = node(id);

		n->id = id;
		n->epoch = 1;
		n->powered = n->gate = n->fresh = n->armed = n->ring = true;
		n->drain_ms = 600;
		n->quiet_ms = 1;
		n->start_ms = 100;
	}
	add_vms(vms);
}

static void boot(unsigned nodes, unsigned volumes, unsigned vms)
{
	init(nodes, volumes, vms);
	for (uint32_t id = 1; id <= nodes; id++)
		start_agent(id);
	run(6000);
}

static void sound(const char *name)
{
	TAP_OK(!s.broken[0], "%s: and no invariant broke", name);
	if (s.broken[0])
		printf("#   %s\n", s.broken);
}

static unsigned leaders(void)
{
	unsigned sum = 0;

	for (uint32_t id = 1; id <= s.n; id++)
		sum += node(id)->runs && agent(id)->leads;
	return sum;
}

static bool all_run(void)
{
	for (unsigned vm = 0; vm < s.n_vms; vm++)
		if (running(vm) != 1)
			return false;
	return true;
}

static void test_cycle(void)
{
	init(1, 1, 1);
	s.vm[0].desired = DESIRED_STOPPED;
	start_agent(1);
	run(5000);
	TAP_OK(agent(1)->leads && running(0) == 0, "one node: it leads");
	memset(node(1)->trace, 0, sizeof(node(1)->trace));
	s.vm[0].desired = DESIRED_STARTED;
	spread_catalog();
	(void)UNTIL(5000, did(1, 'S'));
	TAP_STR(node(1)->trace, "RWWRDS", "the first start of all: read all, write own into both buffers, read all again, drain what a VM of before may have left on its disk");
	(void)UNTIL(5000, vm_of(1, 0)->state == VM_RUNNING);
	TAP_OK(running(0) == 1 && node(1)->notes[NOTE_VM_STARTED] == 1 && node(1)->notes[NOTE_VM_RECOVERED] == 0,
	       "and it runs: a first start is no recovery");
	s.vm[0].desired = DESIRED_STOPPED;
	spread_catalog();
	(void)UNTIL(9000, disk_state(1, 0) == CLAIM_RELEASED && vm_of(1, 0)->state == VM_IDLE);
	memset(node(1)->trace, 0, sizeof(node(1)->trace));
	s.vm[0].desired = DESIRED_STARTED;
	spread_catalog();
	(void)UNTIL(5000, did(1, 'S'));
	TAP_STR(node(1)->trace, "RWWRS", "a start after a clean end: only then start");
	sound("a start");

	/* The claim must be acknowledged by a fence quorum: with one of two volumes refusing writes nothing starts. */
	init(1, 2, 1);
	node(1)->writes_refused[1] = true;
	start_agent(1);
	run(10000);
	TAP_OK(running(0) == 0, "two volumes, one refuses writes: nothing is claimed");
	node(1)->writes_refused[1] = false;
	TAP_OK(UNTIL(8000, running(0) == 1), "two volumes: and then it is");
	sound("two volumes");

	init(1, 2, 1);
	node(1)->volume_gone[1] = true;
	start_agent(1);
	run(10000);
	TAP_OK(running(0) == 0 && !agent(1)->leads, "two volumes, one gone: nothing is claimed");
	volume(1, 1, true);
	TAP_OK(UNTIL(8000, running(0) == 1), "two volumes, both there: started");
	sound("two volumes, one gone");

	for (unsigned v = 0; v < 3; v++) {
		init(2, 3, 2);
		node(1)->volume_gone[v] = true;
		node(2)->volume_gone[(v + 1) % 3] = true;
		start_agent(1);
		start_agent(2);
		TAP_OK(UNTIL(8000, all_run()), "three volumes, each node without another one: all start");
		sound("three volumes");
	}

	init(1, 1, 1);
	node(1)->refusing = true;
	start_agent(1);
	run(8000);
	TAP_OK(running(0) == 0 && node(1)->notes[NOTE_VM_FAILED] == 0, "refused at the gate: not taken for a failure");
	node(1)->refusing = false;
	TAP_OK(UNTIL(2000, running(0) == 1), "and started as soon as the gate lets it");
	sound("refused at the gate");

	init(1, 1, 1);
	node(1)->gate = false;
	start_agent(1);
	run(8000);
	TAP_OK(!did(1, 'S') && !agent(1)->leads, "the gate is closed: nothing is tried");
	sound("the gate is closed");
}

static void test_conflict(void)
{
	for (uint32_t offset = 0; offset < 14; offset++) {
		boot(2, 1, 0);
		add_vms(1);
		spread_catalog();
		run(21); /* the catalog is there; the leader has not yet assigned by the table */
		later_assign(1, 1, agent(1)->epoch, s.vm[0].uuid);
		later_assign(2, 1 + offset, agent(2)->epoch, s.vm[0].uuid);
		(void)UNTIL(20000, running(0) == 1 && vm_of(1, 0)->state + vm_of(2, 0)->state == VM_RUNNING);
		run(3000);
		if (running(0) != 1 || s.broken[0])
			break;
	}
	TAP_OK(running(0) == 1, "two nodes claim the same VM at any distance: one runs it in the end");
	sound("a conflict");

	boot(2, 1, 0);
	add_vms(1);
	spread_catalog();
	run(21);
	later_assign(1, 1, agent(1)->epoch, s.vm[0].uuid);
	later_assign(2, 1, agent(2)->epoch, s.vm[0].uuid);
	TAP_OK(UNTIL(1000, node(1)->notes[NOTE_VM_CONFLICT] && node(2)->notes[NOTE_VM_CONFLICT]),
	       "both wrote: both see it and withdraw");
	(void)UNTIL(1000, disk_state(1, 0) != CLAIM_ACTIVE && disk_state(2, 0) != CLAIM_ACTIVE);
	TAP_OK(running(0) == 0, "nobody starts it meanwhile");
	TAP_OK(UNTIL(15000, running(0) == 1), "one does later");
	TAP_OK(did(1, 'D') + did(2, 'D') == 1, "nobody has run it yet: who does drains, as for every first start");
	sound("both withdraw");

	boot(2, 1, 1);
	{
		uint32_t other = runs(1, 0) ? 2 : 1;

		run(3000);
		memset(node(other)->trace, 0, 256);
		later_assign(other, 1, agent(other)->epoch, s.vm[0].uuid);
		run(3000);
		TAP_OK(node(other)->notes[NOTE_VM_BUSY] == 1 && !did(other, 'W'),
		       "asked for a VM that runs elsewhere: read, and nothing is written");
	}
	sound("a VM that runs elsewhere");

	/* Both agents are replaced in the middle of a conflict. */
	for (uint32_t ms = 1; ms < 16; ms++) {
		boot(2, 1, 0);
		add_vms(1);
		spread_catalog();
		run(21);
		later_assign(1, 1, agent(1)->epoch, s.vm[0].uuid);
		later_assign(2, 1, agent(2)->epoch, s.vm[0].uuid);
		run(ms);
		stop_agent(1);
		stop_agent(2);
		start_agent(1);
		start_agent(2);
		if (!UNTIL(20000, running(0) == 1) || s.broken[0])
			break;
	}
	TAP_OK(running(0) == 1, "both agents are restarted at any point of a conflict: it runs in the end");
	sound("restarts in a conflict");

	/* A claim reaches one volume of two only; then another node takes the VM. */
	boot(2, 2, 0);
	add_vms(1);
	s.vm[0].preferred[0] = 2;
	s.vm[0].n_preferred = 1;
	spread_catalog();
	run(21);
	node(2)->writes_refused[1] = true;
	later_assign(2, 1, agent(2)->epoch, s.vm[0].uuid);
	run(3000);
	TAP_OK(running(0) == 0, "a claim on one volume of two: not started");
	node(2)->writes_refused[1] = false;
	TAP_OK(UNTIL(15000, running(0) == 1), "and once it is on both, it runs");
	sound("a claim on one volume");
}

static void test_takeover(void)
{
	uint32_t owner, other;

	boot(3, 1, 3);
	TAP_OK(all_run() && leaders() == 1 && agent(1)->leads, "three VMs on three nodes, the lowest node leads");
	TAP_OK(runs(1, 0) + runs(2, 0) * 2 + runs(3, 0) * 3 + (runs(1, 1) + runs(2, 1) * 2 + runs(3, 1) * 3) + (runs(1,
	       2) + runs(2, 2) * 2 + runs(3, 2) * 3) == 6,
	       "spread evenly");
	memset(node(1)->trace, 0, 256);
	memset(node(2)->trace, 0, 256);
	power_off(3);
	run(3000);
	TAP_OK(!all_run() && !did(1, 'S') && !did(2, 'S'),
	       "a silent node: nothing of it is started before its epoch is over");
	proven_over(3);
	TAP_OK(UNTIL(3000, all_run()), "over: its VM runs elsewhere");
	owner = did(1, 'S') ? 1 : 2;
	TAP_OK(in_order(owner, 'D', 'S'),
	       "a takeover drains before it starts");
	TAP_OK(UNTIL(1000, node(owner)->notes[NOTE_VM_RECOVERED] == 1), "and says that it recovered the VM");
	sound("a takeover");

	/* The taker dies as well before it has started it: the next one drains, too. */
	boot(3, 1, 1);
	owner = runs(1, 0) ? 1 : runs(2, 0) ? 2 : 3;
	power_off(owner);
	run(1000);
	proven_over(owner);
	(void)UNTIL(5000, did(owner % 3 + 1, 'D') || did((owner + 1) % 3 + 1, 'D'));
	other = did(owner % 3 + 1, 'D') ? owner % 3 + 1 : (owner + 1) % 3 + 1;
	power_off(other);
	run(1000);
	proven_over(other);
	TAP_OK(UNTIL(15000, running(0) == 1) && did(6 - owner - other, 'D'),
	       "the taker dies while it drains: the third one drains again");
	sound("the taker dies");

	/* A clean move: stopped here, started there. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	other = 3 - owner;
	memset(node(other)->trace, 0, 256);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	TAP_OK(UNTIL(15000, runs(other, 0)) && !did(other, 'D'),
	       "maintenance: stopped cleanly, started elsewhere without a drain");
	TAP_OK(disk_state(owner, 0) == CLAIM_RELEASED, "its claim was given up");
	TAP_OK(UNTIL(2000, node(owner)->notes[NOTE_MAINTENANCE_DONE] == 1), "and the node says that it is empty");
	sound("maintenance");

	/* It ends well, but what others of its host write for a QEMU before it may not be over. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	other = 3 - owner;
	node(owner)->quiet_ms = 10000;
	memset(node(owner)->trace, 0, 256);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	TAP_OK(UNTIL(15000, did(owner, 'd')) && !did(owner, 'D'), "maintenance: stopped cleanly");
	run(8000);
	TAP_OK(running(0) == 0 && disk_state(owner, 0) == CLAIM_ACTIVE, "its claim is kept until that is proven");
	TAP_OK(UNTIL(15000, runs(other, 0)) && disk_state(owner, 0) == CLAIM_RELEASED, "then it starts elsewhere");
	sound("a clean end, proven late");

	/* Nobody else can take it: shutting it down would help nobody. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	other = 3 - owner;
	s.vm[0].has_required = true;
	s.vm[0].required = bit(owner);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	run(200000);
	TAP_OK(runs(owner, 0) && !did(owner, 'P') && node(owner)->notes[NOTE_VM_STAYS] == 1, "maintenance, and no other node may run it: it runs on, which is told once");
	s.vm[0].required = bit(owner) | bit(other);
	spread_catalog();
	TAP_OK(UNTIL(15000, runs(other, 0)), "one may: it leaves");
	s.vm[0].required = bit(owner);
	s.catalog.maintenance = bit(other);
	spread_catalog();
	run(20000);
	s.vm[0].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(15000, running(0) == 0), "what is to be stopped is");
	sound("maintenance of a node that is needed");

	/* QEMU had to be killed: nothing may be on its way any more. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	node(owner)->deaf = node(owner)->very_deaf = true;
	memset(node(owner)->trace, 0, 256);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	(void)UNTIL(20000, did(owner, 'K'));
	TAP_OK(in_order(owner, 'P', 'Q') && in_order(owner, 'Q', 'K'),
	       "a deaf guest: power down, quit, kill, in that order");
	TAP_OK(disk_state(owner, 0) == CLAIM_ACTIVE, "the claim is kept until it is gone");
	TAP_OK(UNTIL(15000, runs(3 - owner, 0)) && in_order(owner, 'K', 'D'),
	       "after a kill its own node drains before it gives the claim up");
	sound("a deaf guest");

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	node(owner)->deaf = node(owner)->very_deaf = true;
	node(owner)->kills_lost = 2;
	memset(node(owner)->trace, 0, 256);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	TAP_OK(UNTIL(60000, runs(3 - owner, 0)) && node(owner)->kills_lost == 0, "a kill that is lost is said again");
	sound("a lost kill");

	/* It has powered off, and QEMU waits for storage that does not answer: the agent sees the last words, and then the end. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	node(owner)->deaf = node(owner)->very_deaf = node(owner)->hangs = true;
	memset(node(owner)->trace, 0, 256);
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	(void)UNTIL(20000, did(owner, 'K'));
	TAP_OK(UNTIL(15000, runs(3 - owner, 0)) && in_order(owner, 'K', 'd') && in_order(owner, 'd', 'D'),
	       "killed after its last words: the host must be silent first, then storage answers");
	sound("killed after its last words");

	/* Everything dies and comes back. */
	boot(3, 1, 6);
	for (uint32_t id = 1; id <= 3; id++)
		power_off(id);
	run(5000);
	for (uint32_t id = 1; id <= 3; id++) {
		node(id)->epoch = 2;
		node(id)->over = 1;
		node(id)->powered = node(id)->gate = node(id)->fresh = node(id)->ring = true;
		start_agent(id);
	}
	TAP_OK(UNTIL(10000, all_run()), "cold start of everything: every VM runs once");
	sound("cold start");

	boot(2, 1, 40);
	TAP_OK(all_run(), "forty VMs on two nodes");
	power_off(2);
	run(2000);
	proven_over(2);
	TAP_OK(UNTIL(10000, all_run()), "the survivor takes all of them");
	sound("forty VMs");
}

static void test_restart(void)
{
	uint32_t owner;

	for (uint32_t id = 1; id <= 3; id++) {
		boot(3, 1, 3);
		memset(node(id)->trace, 0, 256);
		stop_agent(id);
		run(300);
		start_agent(id);
		run(6000);
		TAP_OK(all_run() && did(id, 'A') && !did(id, 'S') && !did(id, 'K'),
		       "agent %u restarted: it adopts what runs, nothing else happens", id);
		for (unsigned v = 0; v < 3; v++)
			TAP_OK(!runs(id, v) || vm_of(id, v)->health.found, "agent %u restarted: what it found may have been started just then", id);
		TAP_OK(UNTIL(10000, leaders() == 1), "agent %u restarted: there is a leader", id);
		add_vms(1);
		spread_catalog();
		TAP_OK(UNTIL(10000, all_run()), "agent %u restarted: and new VMs start", id);
		sound("an agent restarted");
	}

	/* The leader is not the lowest node. */
	init(2, 1, 1);
	start_agent(2);
	node(1)->fresh = false;
	run(10000);
	TAP_OK(agent(2)->leads, "node 2 leads while node 1 is away");
	node(1)->fresh = true;
	start_agent(1);
	run(5000);
	TAP_OK(agent(2)->leads && !agent(1)->leads, "node 1 comes and leaves it at that");
	stop_agent(2);
	run(200);
	start_agent(2);
	TAP_OK(UNTIL(15000, leaders() == 1), "agent 2 restarted: somebody leads again");
	sound("a leader that is not the lowest restarted");

	/* It died between writing the claim and starting the VM. */
	for (uint32_t ms = 1; ms < 40; ms += 2) {
		boot(2, 1, 0);
		add_vms(1);
		s.vm[0].preferred[0] = 2;
		s.vm[0].n_preferred = 1;
		spread_catalog();
		(void)UNTIL(5000, agent(2)->claimer.phase == CLAIMER_WRITING);
		run(ms);
		if (runs(2, 0))
			break;
		stop_agent(2);
		memset(node(2)->trace, 0, 256);
		start_agent(2);
		if (!UNTIL(20000, running(0) == 1) || s.broken[0])
			break;
		if (runs(2, 0) && !strstr(node(2)->trace, "RWR") && !strstr(node(2)->trace, "RWW")) {
			broken("restarted %u ms after its write: started by the old claim: %s", ms, node(2)->trace);
			break;
		}
	}
	TAP_OK(running(0) == 1, "an agent dies between claim and start: the new one goes through the cycle again");
	sound("between claim and start");

	/* A VM died while the agent was away. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	stop_agent(owner);
	node(owner)->process[0].runs = false;
	run(500);
	start_agent(owner);
	TAP_OK(UNTIL(15000, running(0) == 1), "a VM that died while the agent was away is started again");
	sound("a VM died meanwhile");

	/* What runs without a claim of ours is killed. */
	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	stop_agent(3 - owner);
	node(3 - owner)->process[7] = (struct process){ .runs = true, .epoch = 1 };
	memcpy(s.vm[7].uuid, (uint8_t[16]){ 'v', 7, 1 }, 16);
	start_agent(3 - owner);
	TAP_OK(UNTIL(5000, !runs(3 - owner, 7)), "a VM that runs without a claim is killed");
	sound("an alien VM");
}

static bool is_on(unsigned v, uint32_t id, unsigned vm)
{
	const struct claim *c = claim_in(on_disk(id, v, v + 1), s.vm[vm].uuid);

	return c && c->state == CLAIM_ACTIVE;
}

/* A volume that was away while something was claimed: it is to have it before the volume set may change. */
static void test_catch_up(void)
{
	unsigned writes = 0;

	boot(1, 3, 1);
	volume(1, 1, false);
	add_vms(1);
	spread_catalog();
	TAP_OK(UNTIL(5000, running(1) == 1) && is_on(0, 1, 1) && is_on(2, 1, 1) && !is_on(1, 1, 1), "claimed on two of three volumes");
	volume(1, 1, true);
	run(30000);
	TAP_OK(!is_on(1, 1, 1), "the third one is back: two will do");
	s.catalog.armed = false;
	spread_catalog();
	TAP_OK(UNTIL(11000, is_on(1, 1, 1)), "it gets it once the cluster is disarmed");
	memset(node(1)->trace, 0, 256);
	run(60000);
	for (const char *t = node(1)->trace; *t; t++)
		writes += *t == 'W';
	TAP_OK(writes == 0, "once: when all have it nothing is written");
	sound("a volume that was behind");
}

static void rot_newest(unsigned v, uint32_t id)
{
	for (unsigned b = 0; b < 2; b++)
		(void)claims_decode(place(v, id, b), id, b, cluster, &claims[b]);
	place(v, id, claims[1].seq > claims[0].seq)[100] ^= 1;
}

/* Node 1 is back, and of its own claims volume 1 has an older block than volumes 0 and 2. Its agent has read those of volumes 1 and 2, or of 2 alone, as 1 cannot be read, when volume 2
 * loses the newest; volume 0 is away. */
static uint64_t rotten_own(bool quorum)
{
	uint64_t generation, older;

	boot(1, 3, 1);
	older = on_disk(1, 1, 2)->seq;
	volume(1, 1, false);
	add_vms(1);
	spread_catalog();
	(void)UNTIL(5000, running(1) == 1);
	generation = claim_in(on_disk(1, 0, 3), s.vm[1].uuid)->generation;
	TAP_OK(is_on(0, 1, 1) && is_on(2, 1, 1) && !is_on(1, 1, 1), "claimed on two of three volumes");
	stop_agent(1);
	node(1)->epoch = 0; /* its keeper has not joined yet */
	node(1)->volume_gone[0] = true;
	node(1)->volume_gone[1] = false;
	for (unsigned b = 0; b < 2 && !quorum; b++)
		place(1, 1, b)[100] ^= 1;
	start_agent(1);
	node(1)->claims_seq = older;
	run(5000);
	rot_newest(2, 1);
	for (unsigned b = 0; b < 2 && !quorum; b++)
		place(1, 1, b)[100] ^= 1;
	node(1)->epoch = 1;
	return generation;
}

/* What it has read it does not take back for an older block that another volume shows. */
static void test_own_damaged(void)
{
	uint64_t generation = rotten_own(true);
	const struct claim *c;

	TAP_OK(UNTIL(5000, agent(1)->claimer.read_once) && (c = claimer_own(agent(1), s.vm[1].uuid)) && c->state == CLAIM_ACTIVE && c->generation == generation,
	       "its own newest block was damaged after it was read: it knows what that held");
	TAP_OK(UNTIL(5000, running(1) == 1), "and its VM runs on");
	sound("damaged after it was read");

	generation = rotten_own(false);
	TAP_OK(UNTIL(5000, agent(1)->claimer.read_once) && (c = claimer_own(agent(1), s.vm[1].uuid)) && c->state == CLAIM_ACTIVE && c->generation == generation,
	       "damaged after it was seen on too few volumes: an older block is none of its claims, what it saw is");
	TAP_OK(UNTIL(5000, running(1) == 1), "and its VM runs on");
	volume(1, 0, true);
	run(5000);
	sound("damaged after it was seen");
}

static void test_lost_lease(void)
{
	uint32_t owner, other;

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	other = 3 - owner;
	/* The keeper released: VMs killed, gate closed, then a new epoch. */
	node(owner)->gate = node(owner)->fresh = false;
	node(owner)->process[0].runs = false;
	node(owner)->over = 1;
	memset(node(other)->trace, 0, 256);
	TAP_OK(UNTIL(5000, runs(other, 0)) && did(other, 'D'),
	       "a node released: its VM starts elsewhere, drained");
	node(owner)->epoch = 2;
	node(owner)->gate = node(owner)->fresh = true;
	run(5000);
	TAP_OK(running(0) == 1 && vm_of(owner, 0)->state == VM_IDLE && node(owner)->notes[NOTE_VM_LOST] == 1,
	       "its agent begins anew with the next epoch");
	TAP_OK(leaders() == 1, "and somebody leads");
	sound("a lost lease");

	boot(2, 1, 1);
	s.vm[0].desired = DESIRED_STOPPED;
	spread_catalog();
	(void)UNTIL(10000, running(0) == 0);
	run(1000);
	vm_of(1, 0)->assigned = 2;
	node(1)->over = 1;
	node(1)->epoch = 2;
	TAP_OK(UNTIL(5000, agent(1)->epoch == 2) && vm_of(1, 0)->assigned == 0, "what a leader had planned ends with its epoch");

	/* In every state a VM can be in. */
	for (uint32_t ms = 0; ms < 1500; ms += 35) {
		boot(1, 1, 0);
		add_vms(1);
		spread_catalog();
		run(20 + ms);
		node(1)->gate = false;
		node(1)->process[0].runs = false;
		run(300);
		node(1)->over = 1;
		node(1)->epoch = 2;
		node(1)->gate = true;
		if (!UNTIL(20000, running(0) == 1) || s.broken[0])
			break;
	}
	TAP_OK(running(0) == 1, "a lease lost at any moment of a start: it runs again under the next epoch");
	sound("a lease lost at any moment");

	boot(1, 1, 1);
	{
		struct agent_event ev = { .kind = AGENT_EV_NO_KEEPER };

		give(node(1), &ev);
		add_vms(1);
		TAP_OK(running(0) == 1 && !agent_gate_open(agent(1)), "the keeper is away: VMs go on, the gate counts as closed");
		spread_catalog();
	}
	TAP_OK(UNTIL(10000, all_run()), "and with it back the next VM starts");
	sound("no keeper");
}

static void test_failures(void)
{
	uint32_t owner, other;

	init(2, 1, 1);
	s.vm[0].preferred[0] = 1;
	s.vm[0].n_preferred = 1;
	node(1)->crashing = true;
	start_agent(1);
	start_agent(2);
	TAP_OK(UNTIL(30000, runs(2, 0)), "a VM that does not run on its preferred node is started on another");
	TAP_OK(node(1)->notes[NOTE_VM_RESTART] == 2 && node(1)->notes[NOTE_VM_FAILED] == 1 && disk_state(1, 0) == CLAIM_FAILED,
	       "after as many restarts as allowed");
	run(10000);
	TAP_OK(runs(2, 0) && node(1)->notes[NOTE_VM_FAILED] == 1, "and stays there");
	run(60000);
	TAP_OK(disk_state(1, 0) == CLAIM_RELEASED && runs(2, 0), "the failure is forgotten after the window");
	sound("a VM that fails");

	boot(2, 1, 1);
	node(1)->crashing = node(2)->crashing = true;
	owner = runs(1, 0) ? 1 : 2;
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	run(30000);
	TAP_OK(running(0) == 0 && node(1)->notes[NOTE_VM_FAILED] + node(2)->notes[NOTE_VM_FAILED] <= 3,
	       "a VM that fails everywhere: tried slowly");
	node(1)->crashing = node(2)->crashing = false;
	TAP_OK(UNTIL(130000, running(0) == 1), "and not given up for ever");
	sound("a VM that fails everywhere");

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	memset(node(owner)->trace, 0, 256);
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	TAP_OK(UNTIL(3000, runs(owner, 0)) && strstr(node(owner)->trace, "dS"),
	       "a crash: started again here under the same claim, once this host is quiet");
	sound("a crash");

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	node(owner)->quiet_ms = 2000;
	memset(node(owner)->trace, 0, 256);
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	(void)UNTIL(3000, did(owner, 'd'));
	s.vm[0].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(10000, disk_state(owner, 0) == CLAIM_RELEASED) && in_order(owner, 'd', 'D'),
	       "stopped while a crash's host is still sending: drained in full before the next owner may start it");
	sound("a stop after a crash");

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	s.catalog_stuck = true;
	process_ends(node(owner), 0, 1, VM_EXIT_GUEST_OFF);
	run(10000);
	TAP_OK(running(0) == 0 && disk_state(owner, 0) == CLAIM_ACTIVE && did(owner, 'O') &&
	       strchr(node(owner)->trace, 'O') != strrchr(node(owner)->trace, 'O'),
	       "a guest powers itself off: the claim is kept, the catalog's edit asked for again");
	s.catalog_stuck = false;
	TAP_OK(UNTIL(5000, disk_state(owner, 0) == CLAIM_RELEASED) && s.vm[0].desired == DESIRED_STOPPED,
	       "and given up when the catalog says stopped");
	run(10000);
	TAP_OK(running(0) == 0, "nobody starts it again");
	s.vm[0].desired = DESIRED_STARTED;
	spread_catalog();
	TAP_OK(UNTIL(10000, running(0) == 1), "until somebody asks for it");
	sound("a guest powers itself off");

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	memset(node(owner)->trace, 0, 256);
	process_ends(node(owner), 0, 1, VM_EXIT_OFF_KILLED);
	TAP_OK(UNTIL(10000, did(owner, 'D')) && in_order(owner, 'O', 'd') && in_order(owner, 'd', 'D') && disk_state(owner, 0) == CLAIM_ACTIVE && s.vm[0].desired == DESIRED_STOPPED,
	       "a guest powers itself off and its QEMU is killed before it has ended: stopped, and drained in full");
	TAP_OK(UNTIL(10000, disk_state(owner, 0) == CLAIM_RELEASED) && running(0) == 0 && !did(owner, 'S'), "only then its claim is given up; it is not started again");
	sound("killed after its guest was off");

	/* Where a QEMU has just died the next one starts as soon as the host is silent. */
	for (unsigned later = 0; later < 2; later++) {
		boot(2, 1, 1);
		owner = runs(1, 0) ? 1 : 2;
		agent(owner)->opt.timing.drain_ms = 60000;
		process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
		(void)UNTIL(5000, running(0) == 0);
		(void)UNTIL(10000, running(0) == 1 && vm_of(owner, 0)->state == VM_RUNNING);
		run(later ? 60000 : 100);
		memset(node(owner)->trace, 0, 256);
		s.vm[0].desired = DESIRED_STOPPED;
		spread_catalog();
		TAP_OK(UNTIL(30000, disk_state(owner, 0) == CLAIM_RELEASED) && did(owner, 'D') == !later,
		       later ? "T_drain later it is as any other" : "a write of the one before may still land: its claim is not given up undrained");
		sound("stopped soon after a restart");
	}

	boot(2, 1, 1);
	owner = runs(1, 0) ? 1 : 2;
	s.vm[0].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(5000, running(0) == 0 && disk_state(owner, 0) == CLAIM_RELEASED), "stop: powered down, then given up");
	sound("stop");

	boot(2, 1, 2);
	s.vm[1].desired = DESIRED_REMOVED;
	spread_catalog();
	TAP_OK(UNTIL(15000, s.forgotten == 1) && running(1) == 0 && running(0) == 1, "remove: stopped, given up, then forgotten");
	run(5000);
	TAP_OK(!vm_of(1, 1) && !vm_of(2, 1), "and gone from every agent");
	sound("remove");

	/* Silent is not dead: it may have been asked to start the VM, and does not know that it is removed. */
	boot(3, 1, 1);
	owner = runs(1, 0) ? 1 : runs(2, 0) ? 2 : 3;
	power_off(owner == 3 ? 2 : 3);
	s.vm[0].desired = DESIRED_REMOVED;
	spread_catalog();
	run(15000);
	TAP_OK(running(0) == 0 && s.forgotten == 0, "removed while a node is silent that does not know: it stays pending");
	proven_over(owner == 3 ? 2 : 3);
	TAP_OK(UNTIL(5000, s.forgotten == 1), "its epoch is over: forgotten");
	sound("removed with a silent node");

	/* An old catalog, read from volumes that were rolled back, does not have a VM that was added since. */
	boot(2, 1, 3);
	owner = runs(1, 2) ? 1 : 2;
	other = runs(owner, 0) ? 0 : 1;
	TAP_OK(runs(owner, other) && runs(owner, 2), "of three VMs one node has the last one and another");
	s.vm[2].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(5000, disk_state(owner, 2) == CLAIM_RELEASED), "it is stopped");
	s.n_vms--;
	node(3 - owner)->announces_newer = true;
	spread_catalog();
	run(1000);
	s.vm[other].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(5000, disk_state(owner, other) == CLAIM_RELEASED) && disk_state(owner, 2) == CLAIM_RELEASED,
	       "while a newer catalog is known of, what the claim on it was stays to be read");
	node(3 - owner)->announces_newer = false;
	s.vm[other].desired = DESIRED_STARTED;
	spread_catalog();
	TAP_OK(UNTIL(10000, running(other) == 1), "another one starts");
	s.vm[other].desired = DESIRED_STOPPED;
	spread_catalog();
	TAP_OK(UNTIL(5000, running(other) == 0 && disk_state(owner, 2) == CLAIM_NONE), "and goes once the newest catalog does not have it");
	sound("an old catalog");

	/* Removed just when it was assigned: pending until no live claim remains. */
	for (uint32_t ms = 0; ms < 400; ms += 7) {
		boot(2, 1, 0);
		add_vms(1);
		s.vm[0].preferred[0] = 2;
		s.vm[0].n_preferred = 1;
		spread_catalog();
		run(ms);
		s.vm[0].desired = DESIRED_REMOVED;
		spread_catalog();
		if (!UNTIL(20000, s.forgotten == 1) || s.broken[0])
			break;
	}
	TAP_OK(s.forgotten == 1, "removed at any moment of its start: forgotten in the end");
	sound("removed at any moment");

	/* Stopped at any moment of its start. */
	for (uint32_t ms = 0; ms < 600; ms += 11) {
		boot(2, 1, 0);
		add_vms(1);
		spread_catalog();
		run(ms);
		s.vm[0].desired = DESIRED_STOPPED;
		spread_catalog();
		run(6000);
		if (running(0) != 0 || disk_state(1, 0) == CLAIM_ACTIVE || disk_state(2, 0) == CLAIM_ACTIVE || s.broken[0])
			break;
		s.vm[0].desired = DESIRED_STARTED;
		spread_catalog();
		if (!UNTIL(12000, running(0) == 1))
			break;
	}
	TAP_OK(running(0) == 1, "stopped at any moment of its start, and started again");
	sound("stopped at any moment");
}

static void test_leader(void)
{
	boot(3, 1, 0);
	TAP_OK(agent(1)->leads && leaders() == 1 && agent_leader(agent(3)) == 1, "the lowest node leads, and all know");
	node(1)->frozen = true;
	run(1000);
	TAP_OK(!agent(2)->leads && !agent(3)->leads, "a leader that is silent for a moment keeps its claim");
	TAP_OK(UNTIL(10000, agent(2)->leads), "silent for longer than T_leader: its claim is void, the next one leads");
	TAP_OK(agent(2)->lead_generation > agent(1)->lead_generation, "with a higher generation");
	node(1)->frozen = false;
	TAP_OK(UNTIL(3000, !agent(1)->leads), "the old one wakes up and resigns");
	run(5000);
	TAP_OK(leaders() == 1, "one leader is left");
	sound("a silent leader");

	/* A VM may have been removed while this leader was away. */
	init(3, 1, 1);
	node(3)->announces_newer = true;
	for (uint32_t id = 1; id <= 3; id++)
		start_agent(id);
	(void)UNTIL(10000, leaders() == 1);
	run(5000);
	TAP_OK(leaders() == 1 && running(0) == 0 && disk_state(1, 0) != CLAIM_ACTIVE, "a newer catalog is announced than the leader has: nothing is started");
	node(3)->announces_newer = false;
	TAP_OK(UNTIL(10000, running(0) == 1), "the leader has the newest: started");
	sound("a leader behind");

	/* Or by a leader whose heartbeat with the news never came: the slots of the catalog say it, once they are read. */
	init(3, 1, 1);
	s.catalog_read_ms = 8000;
	for (uint32_t id = 1; id <= 3; id++)
		start_agent(id);
	(void)UNTIL(10000, leaders() == 1);
	run(5000);
	TAP_OK(leaders() == 1 && running(0) == 0, "a new leader that has not read the catalog since: nothing is started");
	TAP_OK(UNTIL(10000, running(0) == 1), "it has: started");
	sound("a leader that reads first");

	boot(2, 1, 0);
	add_vms(1);
	spread_catalog();
	run(21);
	later_assign(2, 1, agent(2)->epoch - 1, s.vm[0].uuid);
	run(5);
	TAP_OK(!vm_of(2, 0) || vm_of(2, 0)->state == VM_IDLE, "asked of an epoch that has ended: refused");
	sound("a late request");

	boot(3, 1, 0);
	power_off(1);
	TAP_OK(UNTIL(10000, agent(2)->leads), "the leader's node dies: the next one leads, without waiting for its end");
	sound("a dead leader");

	boot(3, 1, 0);
	node(1)->gate = false;
	TAP_OK(UNTIL(10000, !agent(1)->leads && agent(2)->leads + agent(3)->leads == 1),
	       "a leader whose gate is closed gives it up");
	sound("a leader without a gate");

	init(3, 1, 1);
	node(1)->volume_gone[0] = true; /* its agent's path only: its keeper is well */
	for (uint32_t id = 1; id <= 3; id++)
		start_agent(id);
	TAP_OK(UNTIL(20000, leaders() == 1 && running(0) == 1),
	       "the lowest node's agent lives and cannot claim: another one leads in the end");
	sound("a lowest node that cannot lead");

	init(3, 1, 2);
	for (uint32_t id = 1; id <= 3; id++)
		node(id)->ring = false;
	for (uint32_t id = 1; id <= 3; id++)
		start_agent(id);
	run(15000);
	TAP_OK(leaders() == 1, "no ring at all: one leader all the same");
	sound("no ring");

	boot(1, 1, 0);
	add_vms(1);
	spread_catalog();
	for (unsigned i = 0; i < 2000 && running(0) == 0; i++) {
		struct agent_event ev = { .kind = AGENT_EV_CHECK_LEAD };

		run(1);
		give(node(1), &ev);
	}
	TAP_OK(running(0) == 1, "one edit of the catalog after the other, each asks for a read of the claims: a VM is claimed all the same");
	sound("an agent that is asked to read all the time");

	boot(2, 1, 0);
	{
		struct agent_event ev = { .kind = AGENT_EV_CHECK_LEAD };

		memset(node(1)->trace, 0, 256);
		give(node(1), &ev);
		(void)UNTIL(1000, did(1, 'C') || did(1, 'c'));
		TAP_OK(in_order(1, 'R', 'C'),
		       "a leader that asks whether it still leads: reads first");
	}
	sound("asking");
}

static void ask_move(unsigned vm, uint32_t to, uint32_t wait_ms)
{
	s.vm[vm].move = (struct vm_move){ .node = to, .wait_ms = wait_ms, .number = s.vm[vm].move.number + 1 };
	spread_catalog();
}

static void want(unsigned vm, enum vm_desired desired)
{
	s.vm[vm].desired = desired;
	spread_catalog();
}

static uint32_t where(unsigned vm)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (runs(id, vm))
			return id;
	return 0;
}

static unsigned notes(enum agent_note note)
{
	unsigned sum = 0;

	for (uint32_t id = 1; id <= s.n; id++)
		sum += node(id)->notes[note];
	return sum;
}

/* The node has gone down in order, or died, and comes up again. */
static void reboot(uint32_t id, uint32_t off_ms)
{
	struct node *n = node(id);

	power_off(id);
	run(off_ms);
	n->over = n->epoch++;
	n->powered = n->gate = n->fresh = n->ring = true;
	start_agent(id);
}

/* What the edit says that empties a node. */
static void leave(uint32_t id, enum leave_policy policy, bool restart, bool maintenance)
{
	for (unsigned vm = 0; vm < s.n_vms; vm++)
		if (runs(id, vm))
			s.vm[vm].move = agent_leave_move(policy, restart, id, s.vm[vm].move.number + 1);
	if (maintenance)
		s.catalog.maintenance |= bit(id);
	else
		s.catalog.leaving[id - 1] = node(id)->epoch;
	spread_catalog();
}

/* A node cannot write what it is to claim, for long: it may be the leader, so it is to hear of the others' claims all the same. */
static void test_writes_refused(void)
{
	uint32_t owner, other;

	boot(2, 3, 1);
	owner = runs(1, 0) ? 1 : 2;
	other = 3 - owner;
	memset(node(other)->writes_refused, true, sizeof(node(other)->writes_refused));
	add_vms(2);
	spread_catalog();
	TAP_OK(UNTIL(10000, agent(other)->claimer.n_wants > 0 && agent(other)->claimer.want[0].in_cycle), "a claim that no volume takes is tried");
	want(0, DESIRED_STOPPED);
	TAP_OK(UNTIL(5000, agent_owner(agent(owner), s.vm[0].uuid) == 0), "meanwhile the other node gives a VM up");
	TAP_OK(UNTIL(11000, agent_owner(agent(other), s.vm[0].uuid) == 0), "that is read between two tries");
	memset(node(other)->writes_refused, false, sizeof(node(other)->writes_refused));
	TAP_OK(UNTIL(20000, runs(1, 1) || runs(2, 1)), "once it can write all goes on");
	sound("claims that cannot be written");
}

static void test_move(void)
{
	uint32_t from, to;

	boot(3, 1, 2);
	from = where(0);
	to = from % 3 + 1;
	memset(node(from)->trace, 0, 256);
	ask_move(0, to, 0);
	TAP_OK(UNTIL(5000, runs(to, 0)) && did(from, 'P') && disk_state(from, 0) == CLAIM_RELEASED, "a move: stopped here, given up, started there");
	TAP_OK(UNTIL(3000, s.vm[0].move.node == 0) && notes(NOTE_VM_MOVED) == 1 && notes(NOTE_VM_NOT_MOVED) == 0, "and the request is taken out of the catalog");
	run(20000);
	TAP_OK(runs(to, 0) && all_run(), "it stays there");
	memset(node(to)->trace, 0, 256);
	ask_move(0, to, 0);
	TAP_OK(UNTIL(3000, s.vm[0].move.node == 0) && runs(to, 0) && !did(to, 'P'), "asked to be where it is: done, untouched");
	sound("a move");

	boot(3, 1, 1);
	from = where(0);
	power_off(3);
	run(5000);
	proven_over(3);
	from = where(0) ? where(0) : from;
	(void)UNTIL(10000, running(0) == 1);
	from = where(0);
	memset(node(from)->trace, 0, 256);
	ask_move(0, 3, 0);
	TAP_OK(UNTIL(10000, s.vm[0].move.node == 0) && notes(NOTE_VM_NOT_MOVED) == 1, "a move to a node that is off is withdrawn");
	TAP_OK(runs(from, 0) && !did(from, 'P'), "and nothing was stopped for it");
	ask_move(0, 64, 0);
	TAP_OK(UNTIL(5000, s.vm[0].move.node == 0) && runs(from, 0) && !did(from, 'P'), "so is one to a node that does not exist");
	s.catalog.maintenance = bit(3 - from);
	ask_move(0, 3 - from, 60000);
	TAP_OK(UNTIL(5000, s.vm[0].move.node == 0) && runs(from, 0) && !did(from, 'P'), "and one to a node in maintenance");
	sound("a move that cannot be");

	boot(3, 1, 1);
	from = where(0);
	to = from % 3 + 1;
	node(to)->crashing = true;
	ask_move(0, to, 0);
	TAP_OK(UNTIL(30000, disk_state(to, 0) == CLAIM_FAILED) && s.vm[0].move.node == 0, "it fails where it is asked to be: the request is over");
	TAP_OK(UNTIL(10000, running(0) == 1) && !runs(to, 0), "and it runs elsewhere");
	s.catalog_stuck = true;
	run(70000);
	ask_move(0, to, 0);
	TAP_OK(UNTIL(30000, disk_state(to, 0) == CLAIM_FAILED), "the same while the catalog cannot be edited");
	run(20000);
	TAP_OK(running(0) == 0 && notes(NOTE_VM_NOT_MOVED) > 0, "it waits for the withdrawal");
	s.catalog_stuck = false;
	TAP_OK(UNTIL(10000, running(0) == 1) && !runs(to, 0) && s.vm[0].move.node == 0, "and runs elsewhere after it");
	node(to)->crashing = false;
	ask_move(0, to, 0);
	TAP_OK(UNTIL(20000, runs(to, 0)), "asked once more, it is tried there once more, though it failed there");
	sound("a move to where it fails");

	boot(3, 1, 1);
	from = where(0);
	to = from % 3 + 1;
	node(to)->drain_ms = 36000000;
	s.catalog_stuck = true;
	ask_move(0, to, 0);
	run(30);
	power_off(from);
	run(3000);
	proven_over(from);
	TAP_OK(UNTIL(60000, disk_state(to, 0) == CLAIM_UNCLEAN), "it cannot be proven quiet where it is asked to be, and the catalog cannot be edited");
	run(30000);
	TAP_OK(disk_state(to, 0) == CLAIM_UNCLEAN && notes(NOTE_VM_NOT_MOVED) > 0, "it is not tried there again: the request is over");
	s.catalog_stuck = false;
	TAP_OK(UNTIL(10000, runs(6 - from - to, 0)) && s.vm[0].move.node == 0, "and it runs elsewhere once that is said");
	sound("a move to where it cannot be proven quiet");

	boot(3, 1, 1);
	from = where(0);
	to = from % 3 + 1;
	want(0, DESIRED_STOPPED);
	run(5000);
	ask_move(0, to, 0);
	run(10000);
	TAP_OK(running(0) == 0 && s.vm[0].move.node == to, "a VM that is stopped keeps its request");
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(5000, runs(to, 0)) && UNTIL(5000, s.vm[0].move.node == 0), "and is started there");
	sound("a move of a stopped VM");

	boot(2, 1, 0);
	power_off(2);
	run(3000);
	proven_over(2);
	add_vms(1);
	ask_move(0, 2, 30000);
	run(20000);
	TAP_OK(running(0) == 0, "a new VM waits for its node as long as it is asked to");
	TAP_OK(UNTIL(20000, runs(1, 0)), "and no longer");
	sound("a VM that waits for its node");

	/* A withdrawal that comes late must not hit a newer request. */
	boot(3, 1, 1);
	from = where(0);
	to = from % 3 + 1;
	s.catalog_stuck = true;
	ask_move(0, to, 0);
	TAP_OK(UNTIL(5000, runs(to, 0)), "the catalog cannot be edited: it moves all the same");
	run(5000);
	TAP_OK(runs(to, 0) && s.vm[0].move.node == to, "and stays, for the request is the same");
	s.catalog_stuck = false;
	ask_move(0, from, 0);
	TAP_OK(UNTIL(5000, runs(from, 0)) && UNTIL(5000, s.vm[0].move.node == 0), "a newer request is obeyed, whatever the older one's end");
	sound("two moves");
}

/* Everything that may happen to a node while a VM is on its way there. */
static void test_move_faults(void)
{
	uint32_t from = 0, to = 0;
	uint32_t ms;

	for (ms = 0; ms < 1400; ms += 23) {
		boot(3, 1, 1);
		from = where(0);
		to = from % 3 + 1;
		ask_move(0, to, 0);
		run(ms);
		power_off(to);
		run(3000);
		proven_over(to);
		if (!UNTIL(30000, running(0) == 1 && s.vm[0].move.node == 0) || s.broken[0])
			break;
	}
	TAP_OK(ms >= 1400, "its new node dies at any moment of a move: it runs on another (%u ms)", ms);
	sound("its new node dies");

	for (ms = 0; ms < 1400; ms += 23) {
		boot(3, 1, 1);
		from = where(0);
		to = from % 3 + 1;
		ask_move(0, to, 0);
		run(ms);
		power_off(from);
		run(3000);
		proven_over(from);
		if (!UNTIL(30000, runs(to, 0) && s.vm[0].move.node == 0) || s.broken[0])
			break;
	}
	TAP_OK(ms >= 1400, "its old node dies at any moment of a move: it runs on the new one (%u ms)", ms);
	sound("its old node dies");

	for (ms = 0; ms < 1400; ms += 29) {
		boot(3, 1, 1);
		from = where(0);
		to = from % 3 + 1;
		ask_move(0, to, 0);
		run(ms);
		for (uint32_t id = 1; id <= 3; id++)
			stop_agent(id);
		for (uint32_t id = 1; id <= 3; id++)
			start_agent(id);
		if (!UNTIL(40000, runs(to, 0) && s.vm[0].move.node == 0) || s.broken[0])
			break;
	}
	TAP_OK(ms >= 1400, "all agents are restarted at any moment of a move: it ends where it is asked to be (%u ms)", ms);
	sound("restarts in a move");

	for (ms = 0; ms < 1400; ms += 23) {
		boot(3, 1, 1);
		from = where(0);
		to = from % 3 + 1;
		ask_move(0, to, 0);
		run(ms);
		s.catalog.pause = PAUSE_FREEZE;
		spread_catalog();
		run(8000);
		if (running(0) != 1 || s.broken[0])
			break;
		s.catalog.pause = PAUSE_NONE;
		spread_catalog();
		if (!UNTIL(20000, runs(to, 0) && s.vm[0].move.node == 0))
			break;
	}
	TAP_OK(ms >= 1400, "frozen at any moment of a move: it is not left down, and obeys when that ends (%u ms)", ms);
	sound("a freeze in a move");
}

static void test_leave(void)
{
	static const struct { enum leave_policy policy; bool reboot; uint32_t node, wait_ms; bool back; } cases[] = {
		{ LEAVE_MIGRATE, false, 2, 0, true },      { LEAVE_MIGRATE, true, 2, 0, true },     { LEAVE_FAILOVER, false, 0, 0, false },
		{ LEAVE_FAILOVER, true, 0, 0, false },     { LEAVE_FREEZE, false, 2, 600000, false }, { LEAVE_FREEZE, true, 2, 600000, false },
		{ LEAVE_CONDITIONAL, false, 0, 0, false }, { LEAVE_CONDITIONAL, true, 2, 600000, false },
	};
	uint32_t home;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_move m = agent_leave_move(cases[i].policy, cases[i].reboot, 2, 7);

		TAP_OK(m.number == 7 && m.node == cases[i].node && m.wait_ms == cases[i].wait_ms && m.back == cases[i].back, "what a node's leaving asks for: %zu", i);
	}

	boot(3, 1, 3);
	home = where(0);
	leave(home, LEAVE_MIGRATE, false, true);
	TAP_OK(UNTIL(10000, all_run() && !runs(home, 0)) && node(home)->notes[NOTE_MAINTENANCE_DONE] == 1, "maintenance: its VM runs elsewhere");
	run(30000);
	TAP_OK(all_run() && !runs(home, 0) && s.vm[0].move.node == home && notes(NOTE_VM_NOT_MOVED) == 0, "for as long as it takes, and the way back is kept");
	stop_agent(home);
	run(3000);
	start_agent(home);
	run(10000);
	TAP_OK(!runs(home, 0), "a restart of its agent does not end it");
	s.catalog.maintenance = 0;
	spread_catalog();
	TAP_OK(UNTIL(10000, runs(home, 0)) && UNTIL(5000, s.vm[0].move.node == 0) && all_run(), "maintenance ends: it comes back, once");
	run(20000);
	TAP_OK(runs(home, 0) && all_run(), "and stays");
	sound("maintenance");

	/* Of the VMs that leave together, the first in order gets the emptier node, whoever stops first. */
	boot(3, 1, 0);
	add_vms(3);
	for (unsigned vm = 0; vm < 3; vm++)
		s.vm[vm].move = (struct vm_move){ .node = vm < 2 ? 1 : 3, .number = 1 };
	s.vm[1].priority = 5;
	spread_catalog();
	(void)UNTIL(10000, runs(1, 0) && runs(1, 1) && runs(3, 2));
	run(3000);
	process_ends(node(1), 0, 200, VM_EXIT_GUEST_OFF);
	s.vm[0].desired = DESIRED_STARTED;
	s.catalog_stuck = true;
	leave(1, LEAVE_FAILOVER, false, false);
	run(100);
	s.catalog_stuck = false;
	TAP_OK(UNTIL(10000, runs(2, 1)), "the VM of the highest priority gets the emptiest node");
	sound("leaving together");

	boot(3, 1, 3);
	home = where(0);
	leave(home, LEAVE_FAILOVER, false, false);
	TAP_OK(UNTIL(5000, all_run() && !runs(home, 0)) && node(home)->notes[NOTE_MAINTENANCE_DONE] == 1, "a shutdown with failover: elsewhere at once");
	reboot(home, 3000);
	run(10000);
	TAP_OK(all_run() && !runs(home, 0) && agent_node_usable(agent(home % 3 + 1), home), "its next epoch takes VMs again, and none comes back by itself");
	sound("failover");

	boot(3, 1, 3);
	home = where(0);
	leave(home, LEAVE_MIGRATE, false, false);
	TAP_OK(UNTIL(5000, all_run() && !runs(home, 0)), "a shutdown with migrate: elsewhere");
	reboot(home, 3000);
	TAP_OK(UNTIL(20000, runs(home, 0)) && UNTIL(5000, s.vm[0].move.node == 0), "and back when the node is");
	sound("migrate");

	boot(3, 1, 1);
	home = where(0);
	leave(home, LEAVE_CONDITIONAL, true, false);
	TAP_OK(UNTIL(5000, node(home)->notes[NOTE_MAINTENANCE_DONE] == 1) && running(0) == 0, "a reboot: its VM is stopped");
	reboot(home, 30000);
	TAP_OK(running(0) == 0, "and waits for its node");
	TAP_OK(UNTIL(20000, runs(home, 0)), "which starts it");
	sound("freeze");

	boot(3, 1, 1);
	home = where(0);
	leave(home, LEAVE_FREEZE, true, false);
	run(2000);
	power_off(home);
	run(500000);
	TAP_OK(running(0) == 0, "a node that should come up again at once, and does not");
	TAP_OK(UNTIL(130000, running(0) == 1), "is waited for ten minutes, not for ever");
	sound("freeze without a return");

	boot(2, 1, 2);
	s.catalog.leaving[0] = s.catalog.leaving[1] = 1;
	spread_catalog();
	TAP_OK(UNTIL(5000, notes(NOTE_MAINTENANCE_DONE) == 2) && running(0) + running(1) == 0, "all nodes are shut down: all VMs, too, in order");
	reboot(1, 1000);
	reboot(2, 0);
	TAP_OK(UNTIL(20000, all_run()), "and all run when they are up again");
	sound("all leave");
}

/* The node's host goes down, or does not after all. */
static void going(uint32_t id, bool down, enum leave_policy policy, bool restart, uint32_t limit_ms)
{
	struct agent_event ev = { .kind = AGENT_EV_GOING_DOWN, .ok = down, .leave_policy = policy, .reboot = restart, .limit_ms = limit_ms };

	give(node(id), &ev);
}

static unsigned times(uint32_t id, char what)
{
	unsigned n = 0;

	for (const char *t = node(id)->trace; *t; t++)
		n += *t == what;
	return n;
}

/* What the catalog says of a node that leaves: by the life of it that leaves, and by no other. */
static void test_leave_edit(void)
{
	static const struct { uint32_t leaving, known, epoch; bool on, said; uint32_t then; } t[] = {
		{ 0, 5, 5, true, true, 5 },    /* this life of it */
		{ 5, 5, 5, true, true, 5 },    /* said twice */
		{ 3, 5, 5, true, true, 5 },    /* what an earlier one had left behind */
		{ 0, 4, 5, true, true, 5 },    /* one that the editor has not heard of yet */
		{ 0, 6, 5, true, false, 0 },   /* it is back already */
		{ 6, 5, 5, true, false, 6 },   /* its next life leaves, too */
		{ 5, 5, 5, false, true, 0 },   /* not after all */
		{ 0, 5, 5, false, false, 0 },  /* nothing was said */
		{ 5, 6, 5, false, false, 5 },  /* over by itself */
		{ 6, 6, 5, false, false, 6 },  /* not the next one's */
		{ 3, 5, 5, false, false, 3 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		uint32_t leaving = t[i].leaving;
		bool said = agent_leave_edit(&leaving, t[i].known, t[i].epoch, t[i].on);

		TAP_OK(said == t[i].said && leaving == t[i].then, "epoch %u, known %u, said %u: %s%s", t[i].epoch, t[i].known, t[i].leaving,
		       t[i].on ? "it leaves" : "it stays", said ? "" : ", refused");
	}
}

static void test_going_down(void)
{
	uint32_t home;

	boot(3, 1, 3);
	home = where(0);
	memset(node(home)->trace, 0, 256);
	going(home, true, LEAVE_FAILOVER, false, 60000);
	TAP_OK(!agent_left(agent(home)), "a host that goes down waits for its VMs");
	TAP_OK(UNTIL(5000, agent_left(agent(home))) && in_order(home, 'Y', 'P') && disk_state(home, 0) == CLAIM_RELEASED,
	       "the catalog says so first, then its VM is shut down and given up, then it goes on");
	TAP_OK(UNTIL(5000, all_run() && !runs(home, 0)), "which runs elsewhere at once");
	run(10000);
	TAP_OK(times(home, 'Y') == 1 && agent_left(agent(home)), "it is said once");
	going(home, false, LEAVE_FAILOVER, false, 0);
	TAP_OK(!agent_left(agent(home)) && UNTIL(3000, s.catalog.leaving[home - 1] == 0) && UNTIL(1000, agent_node_usable(agent(home), home)),
	       "it does not go down after all: it takes VMs again");
	run(5000);
	TAP_OK(times(home, 'x') == 1, "and that is said once");
	sound("a shutdown that is called off");

	boot(3, 1, 3);
	home = where(0);
	going(home, true, LEAVE_CONDITIONAL, true, 60000);
	TAP_OK(UNTIL(5000, agent_left(agent(home))) && running(0) == 0, "conditional, a reboot: its VM is stopped");
	reboot(home, 20000);
	TAP_OK(running(0) == 0 && UNTIL(20000, runs(home, 0)), "and started there again, by its next epoch");
	run(5000);
	TAP_OK(!did(home, 'x'), "whose agent has nothing to take back");
	sound("freeze by the node itself");

	/* An agent that is started anew while its host goes down, or after that was called off, knows neither. */
	boot(3, 1, 3);
	home = where(0);
	s.catalog.leaving[home - 1] = node(home)->epoch;
	spread_catalog();
	run(5000);
	memset(node(home)->trace, 0, 256);
	TAP_OK(leave_said(agent(home)) && !did(home, 'x'), "the catalog says that it goes down: nothing is taken back before the shell has looked");
	going(home, false, LEAVE_FAILOVER, false, 0);
	TAP_OK(UNTIL(3000, s.catalog.leaving[home - 1] == 0), "it does not: that is taken back");
	sound("an old shutdown");

	boot(3, 1, 3);
	home = where(0);
	s.catalog_stuck = true;
	memset(node(home)->trace, 0, 256);
	going(home, true, LEAVE_FREEZE, false, 120000);
	run(20000);
	TAP_OK(times(home, 'X') > 5 && runs(home, 0) && !agent_left(agent(home)), "nobody writes catalogs: asked for again and again");
	TAP_OK(UNTIL(15000, !runs(home, 0)) && UNTIL(5000, agent_left(agent(home))), "but not for ever: it is shut down and given up without");
	run(10000);
	TAP_OK(!runs(home, 0), "and not started there again");
	sound("no catalog");

	/* One that is to go as it runs, and nobody takes it. */
	boot(3, 1, 3);
	home = where(0);
	s.vm[0].live = true;
	spread_catalog();
	run(1000);
	memset(node(home)->trace, 0, 256);
	going(home, true, LEAVE_MIGRATE, true, 40000);
	run(15000);
	TAP_OK(times(home, 'X') == 1 && runs(home, 0) && !agent_left(agent(home)), "a VM that is to be migrated is waited for");
	TAP_OK(UNTIL(10000, did(home, 'Y')) && UNTIL(5000, agent_left(agent(home))) && s.vm[0].move.node == 0, "after half of the time it is shut down");
	TAP_OK(UNTIL(10000, all_run()) && !runs(home, 0), "and started elsewhere");
	sound("a migration that does not come about");

	boot(3, 1, 3);
	home = where(0);
	s.vm[0].desired = DESIRED_IGNORED;
	spread_catalog();
	run(1000);
	memset(node(home)->trace, 0, 256);
	going(home, true, LEAVE_FAILOVER, false, 60000);
	TAP_OK(UNTIL(5000, agent_left(agent(home))) && times(home, 'P') == 1 && !did(home, 'O') && disk_state(home, 0) == CLAIM_ACTIVE,
	       "a VM that hands are off: its guest is told, and nothing else is done about it");
	node(home)->deaf = true;
	sound("hands off");

	boot(3, 1, 3);
	home = where(0);
	node(home)->deaf = true;
	s.vm[0].desired = DESIRED_IGNORED;
	spread_catalog();
	run(1000);
	going(home, true, LEAVE_FAILOVER, false, 60000);
	run(s.vm[0].stop_timeout_ms - 1000);
	TAP_OK(!agent_left(agent(home)), "a guest that does not listen is waited for");
	TAP_OK(UNTIL(3000, agent_left(agent(home))) && runs(home, 0), "no longer than for a stop");
	sound("hands off, deaf");
}

/* One VM that may be moved as it runs; where it is, and asked to go to another node. */
static uint32_t boot_live(uint32_t *ret_to)
{
	uint32_t from;

	boot(3, 1, 1);
	s.migrates = true;
	s.send_ms = 300;
	s.vm[0].live = true;
	spread_catalog();
	from = where(0);
	*ret_to = from % 3 + 1;
	later_runs(node(from), 10, s.vm[0].uuid);
	run(1000);
	for (uint32_t id = 1; id <= 3; id++)
		memset(node(id)->trace, 0, 256);
	return from;
}

static void ask_migration(uint32_t to)
{
	s.vm[0].move = (struct vm_move){ .node = to, .live = true, .number = s.vm[0].move.number + 1 };
	spread_catalog();
}

static bool sends(uint32_t id) { return vm_of(id, 0)->migration.phase == MIGRATE_SENDING; }

/* It stayed, and its guest was never told to end, nor started anew. */
static bool untouched(uint32_t from)
{
	for (uint32_t id = 1; id <= 3; id++)
		if (did(id, 'S') || did(id, 'P'))
			return false;
	return runs(from, 0) && running(0) == 1 && vm_of(from, 0)->state == VM_RUNNING && vm_of(from, 0)->migration.phase == MIGRATE_NONE;
}

/* Of two nodes that claimed at once: what the one that was not granted it has taken back, of the same generation. */
static void plant_withdrawn(uint32_t id, unsigned vm, uint32_t owner)
{
	struct claims c = *on_disk(id, 0, s.n_volumes);

	c.claim[c.n] = *claim_in(on_disk(owner, 0, s.n_volumes), s.vm[vm].uuid);
	c.claim[c.n].epoch = c.epoch;
	c.claim[c.n++].state = CLAIM_UNCLEAN;
	node(id)->a.claimer.mine = c;
	for (unsigned v = 0; v < s.n_volumes; v++)
		for (unsigned b = 0; b < 2; b++)
			claims_encode(&c, cluster, b, place(v, id, b));
}

static void test_migration(void)
{
	uint32_t from, to, third;

	from = boot_live(&to);
	ask_migration(to);
	TAP_OK(UNTIL(10000, runs(to, 0)) && !did(from, 'P') && !did(to, 'S') && disk_state(from, 0) == CLAIM_HANDED, "a VM is migrated: handed over, not started");
	TAP_OK(UNTIL(3000, s.vm[0].move.node == 0) && notes(NOTE_VM_MIGRATED) == 1 && !node(from)->process[0].sent, "the request is over, the source's QEMU gone");
	run(30000);
	TAP_OK(untouched(to), "and it stays");
	sound("a migration");

	TAP_OK(!node(to)->process[0].still, "its guest goes on");

	from = boot_live(&to);
	later_paused(node(from), 10, s.vm[0].uuid);
	run(100);
	ask_migration(to);
	TAP_OK(UNTIL(10000, runs(to, 0)) && node(to)->process[0].still && disk_state(from, 0) == CLAIM_HANDED, "one that somebody has paused is migrated, and stays paused");
	sound("a migration of a paused guest");

	from = boot_live(&to);
	later_paused(node(from), 10, s.vm[0].uuid);
	run(100);
	ask_migration(to);
	CHECK(UNTIL(10000, sends(from)));
	for (unsigned v = 0; v < s.n_volumes; v++)
		node(from)->volume_gone[v] = true;
	TAP_OK(UNTIL(30000, did(from, 'g')) && runs(from, 0) && node(from)->process[0].still, "it cannot be handed over: it stays so where it was");

	from = boot_live(&to);
	node(from)->held = true;
	ask_migration(to);
	run(20000);
	TAP_OK(untouched(from) && !did(from, 'G') && did(to, 'I'), "a write of a QEMU that has died there may still come: it is not sent");
	node(from)->held = false;
	later_runs(node(from), 10, s.vm[0].uuid);
	TAP_OK(UNTIL(15000, runs(to, 0)) && disk_state(from, 0) == CLAIM_HANDED, "proven: it is");
	sound("a migration that has to wait");

	from = boot_live(&to);
	plant_withdrawn(6 - from - to, 0, from);
	ask_migration(to);
	TAP_OK(UNTIL(10000, runs(to, 0)) && !did(from, 'P') && !did(to, 'S') && disk_state(6 - from - to, 0) == CLAIM_UNCLEAN,
	       "beside a claim of the same generation that was taken back: handed over all the same");
	sound("a migration beside a claim taken back");

	/* A target whose QEMU does not come to wait: three times, then it stays. */
	from = boot_live(&to);
	node(to)->cannot = true;
	ask_migration(to);
	TAP_OK(UNTIL(20000, s.vm[0].move.node == 0) && times(to, 'I') == 3 && untouched(from), "no QEMU can wait for it: over after three attempts");
	run(30000);
	TAP_OK(untouched(from) && times(to, 'I') == 3, "and that is it");
	node(to)->cannot = false;
	ask_migration(to);
	TAP_OK(UNTIL(10000, runs(to, 0)) && !did(from, 'P'), "a new request is a new one");
	sound("a target that cannot");

	from = boot_live(&to);
	third = 6 - from - to;
	node(to)->cannot = node(third)->cannot = true;
	s.vm[0].move = (struct vm_move){ .live = true, .number = s.vm[0].move.number + 1 }; /* an operator's wish of before, over */
	s.catalog.maintenance = bit(from);
	spread_catalog();
	TAP_OK(UNTIL(30000, did(from, 'P')) && times(to, 'I') + times(third, 'I') == 3, "maintenance, and nobody can take it as it runs: shut down after three attempts");
	TAP_OK(UNTIL(10000, running(0) == 1) && !runs(from, 0), "and started elsewhere");
	sound("maintenance where nobody can");

	/* Called off by an operator. */
	from = boot_live(&to);
	s.send_ms = 20000;
	ask_migration(to);
	TAP_OK(UNTIL(10000, sends(from)), "on its way");
	s.vm[0].move.node = 0;
	spread_catalog();
	TAP_OK(UNTIL(2000, did(from, 'N') && untouched(from)) && UNTIL(2000, !node(to)->process[0].waits), "called off: it stays, and the target's QEMU is killed");
	run(30000);
	TAP_OK(untouched(from) && times(to, 'I') == 1, "and that is it");
	sound("called off");

	/* The target goes into maintenance on the way, then goes down. */
	for (unsigned way = 0; way < 2; way++) {
		from = boot_live(&to);
		s.send_ms = 20000;
		ask_migration(to);
		(void)UNTIL(10000, sends(from));
		if (way == 0)
			s.catalog.maintenance = bit(to);
		else
			s.catalog.leaving[to - 1] = node(to)->epoch;
		spread_catalog();
		TAP_OK(UNTIL(2000, did(from, 'N') && untouched(from)) && UNTIL(5000, s.vm[0].move.node == 0) && UNTIL(2000, !node(to)->process[0].waits),
		       "its target is %s: called off, the request is over", way == 0 ? "in maintenance" : "shut down");
		sound("a target that is to be empty");
	}

	/* To be stopped, and QEMU does not hear that the migration is called off. */
	from = boot_live(&to);
	s.send_ms = 200000;
	node(from)->unheeding = true;
	ask_migration(to);
	(void)UNTIL(10000, sends(from));
	want(0, DESIRED_STOPPED);
	run(25000);
	TAP_OK(runs(from, 0) && times(from, 'N') > 3 && !did(from, 'P'), "called off again and again");
	TAP_OK(UNTIL(10000, !runs(from, 0)) && did(from, 'P') && UNTIL(5000, running(0) == 0), "not heard: stopped all the same");
	sound("a cancel that is not heard");
}

static void test_migration_faults(void)
{
	uint32_t from, to;

	from = boot_live(&to);
	s.send_ms = 20000;
	ask_migration(to);
	(void)UNTIL(10000, sends(from));
	power_off(to);
	later_news(from, 100, from, 0, vm_of(from, 0)->migration.id, MIGRATE_NEWS_FAILED); /* as its QEMU sees it */
	run(5000);
	TAP_OK(untouched(from), "the target is lost on the way: it stays");
	proven_over(to);
	TAP_OK(UNTIL(10000, s.vm[0].move.node == 0) && untouched(from), "and the request is over");
	sound("a target lost");

	from = boot_live(&to);
	s.send_ms = 20000;
	ask_migration(to);
	(void)UNTIL(10000, sends(from));
	power_off(from);
	run(5000);
	TAP_OK(running(0) == 0, "the source is lost on the way: nobody continues it");
	proven_over(from);
	TAP_OK(UNTIL(20000, running(0) == 1) && !did(to, 'g'), "once that is proven it is started anew");
	sound("a source lost");

	/* The target is lost after the claim was handed over, and before it has it. */
	from = boot_live(&to);
	ask_migration(to);
	TAP_OK(UNTIL(10000, vm_of(from, 0)->state == VM_HANDING), "being handed over");
	power_off(to);
	TAP_OK(UNTIL(5000, disk_state(from, 0) == CLAIM_HANDED) && UNTIL(2000, !node(from)->process[0].sent), "handed over to nobody: what is left of it is killed");
	proven_over(to);
	TAP_OK(UNTIL(20000, running(0) == 1), "and it is started anew");
	sound("a target lost at the handover");

	/* The source's agent is another one by the time that QEMU has sent the guest. */
	from = boot_live(&to);
	ask_migration(to);
	TAP_OK(UNTIL(10000, node(from)->process[0].sent), "sent");
	stop_agent(from);
	node(from)->process[0].sent = false;
	node(from)->process[0].runs = true; /* for FOUND; what it is says COMPLETED */
	start_agent(from);
	later_news(from, 200, from, 0, 0, MIGRATE_NEWS_COMPLETED);
	run(1000);
	TAP_OK(!did(to, 'g'), "an agent that does not know what was said of it hands nothing over");
	TAP_OK(UNTIL(20000, running(0) == 1) && !node(to)->process[0].waits, "it runs anew, and nothing waits for it any more");
	sound("a source's agent restarted");

	/* No volume can be written while it is handed over: nobody runs it until that is known. */
	from = boot_live(&to);
	ask_migration(to);
	(void)UNTIL(10000, vm_of(from, 0)->state == VM_HANDING);
	volume(from, 0, false);
	run(3000);
	TAP_OK(running(0) == 0 || disk_state(from, 0) == CLAIM_HANDED, "storage gone at the handover: it waits");
	volume(from, 0, true);
	TAP_OK(UNTIL(20000, running(0) == 1), "and goes on with it");
	sound("storage gone at the handover");
}

/* The target claims what was handed over to it, and its gate closes meanwhile. */
static uint32_t take_as_the_gate_closes(uint32_t *to)
{
	uint32_t from = boot_live(to);

	ask_migration(*to);
	TAP_OK(UNTIL(15000, vm_of(*to, 0)->state == VM_TAKING), "handed over, and being claimed");
	node(*to)->gate = false;
	s.table_at = s.now;
	run(1500);
	return from;
}

/* The storage was gone for all while it was being handed over: it is back, and the gates open a moment later. */
static void test_migration_hold(void)
{
	uint32_t from, to;

	from = boot_live(&to);
	ask_migration(to);
	TAP_OK(UNTIL(10000, vm_of(from, 0)->state == VM_HANDING), "being handed over");
	node(to)->gate = false;
	s.table_at = s.now;
	TAP_OK(UNTIL(5000, disk_state(from, 0) == CLAIM_HANDED), "handed over");
	run(1500);
	TAP_OK(running(0) == 0 && node(to)->process[0].waits, "with its gate closed the target waits");
	node(to)->gate = true;
	s.table_at = s.now;
	TAP_OK(UNTIL(1000, runs(to, 0)) && did(to, 'g') && !did(to, 'S') && !did(from, 'S'), "and takes it once that is open, as it runs");
	sound("a handover in a hold");

	from = boot_live(&to);
	ask_migration(to);
	(void)UNTIL(10000, vm_of(from, 0)->state == VM_HANDING);
	node(to)->gate = false;
	s.table_at = s.now;
	TAP_OK(UNTIL(15000, !node(to)->process[0].waits) && !did(to, 'g'), "not for ever: what waits is killed");
	node(to)->gate = true;
	s.table_at = s.now;
	TAP_OK(UNTIL(20000, running(0) == 1), "and the VM is started anew");
	sound("a handover to a gate that stays closed");

	/* A moment later: its own claim was on its way as the storage hung, and is written before the gates are open. */
	from = take_as_the_gate_closes(&to);
	TAP_OK(running(0) == 0 && node(to)->process[0].waits && disk_state(to, 0) == CLAIM_ACTIVE, "its claim is there, and with its gate closed the target waits");
	node(to)->gate = true;
	s.table_at = s.now;
	TAP_OK(UNTIL(1000, runs(to, 0)) && did(to, 'g') && !did(to, 'S') && !did(from, 'S'), "and lets its guest go on once that is open, as it runs");
	sound("a claim granted in a hold");

	(void)take_as_the_gate_closes(&to);
	process_ends(node(to), 0, 5, VM_EXIT_CRASH);
	TAP_OK(UNTIL(5000, disk_state(to, 0) != CLAIM_ACTIVE) && !did(to, 'g'), "what waits ends: the claim is given up");
	node(to)->gate = true;
	s.table_at = s.now;
	TAP_OK(UNTIL(20000, running(0) == 1), "and the VM is started anew");
	sound("a claim granted in a hold, and its QEMU ended");

	(void)take_as_the_gate_closes(&to);
	node(to)->process[0].waits = false; /* the keeper has killed it */
	node(to)->over = node(to)->epoch++;
	s.table_at = s.now;
	run(1000);
	TAP_OK(!did(to, 'g') && vm_of(to, 0)->state == VM_IDLE, "the epoch it was claimed in is over: never under that claim");
	node(to)->gate = true;
	s.table_at = s.now;
	TAP_OK(UNTIL(20000, running(0) == 1) && !did(to, 'g'), "and the VM is started anew");
	sound("a claim granted in a hold that ends");
}

/* Its storage is away just when its guest is to go on, and QEMU says nothing until it has taken its disks. */
static void test_migration_waits(void)
{
	uint32_t from, to;

	from = boot_live(&to);
	node(to)->cont_ms = 120000;
	ask_migration(to);
	TAP_OK(UNTIL(10000, did(to, 'g')), "handed over, and told to go on");
	TAP_OK(UNTIL(15000, vm_of(to, 0)->state == VM_RUNNING) && vm_of(to, 0)->going_on && notes(NOTE_VM_MIGRATED) == 0, "unanswered: it is watched as one that runs here");
	TAP_OK(health_ready(vm_of(to, 0)) == READY_NOT, "and is not there yet for those that wait for it");
	run(100000);
	TAP_OK(!did(to, 'K') && !did(to, 'S') && runs(to, 0) && running(0) == 1, "nobody kills it for that");
	TAP_OK(UNTIL(20000, notes(NOTE_VM_MIGRATED) == 1) && !vm_of(to, 0)->going_on && untouched(to), "answered at last: migrated");
	TAP_OK(vm_of(to, 0)->health.heard && !vm_of(to, 0)->health.found, "and that is a sign of life of its QEMU, which may have been silent for nearly HangTimeout=");
	sound("a cont that waits for storage");
	(void)from;
}

static unsigned running_on(uint32_t id)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < VMS; i++)
		sum += runs(id, i);
	return sum;
}

/* Its target's QEMU takes its time to come to wait, and those that leave the same node wait with it. */
static void test_migration_prepares(void)
{
	uint32_t from, to;

	from = boot_live(&to);
	s.vm[0].health.start_ms = 120000;
	node(to)->prepare_ms = 100000;
	ask_migration(to);
	run(95000);
	TAP_OK(times(to, 'I') == 1 && s.vm[0].move.node == to && untouched(from), "StartTimeout=2min: a target that is not ready after 95 s is waited for");
	TAP_OK(UNTIL(10000, runs(to, 0)) && !did(from, 'P') && !did(to, 'S'), "and migrated to");
	sound("a target that takes its time");

	from = boot_live(&to);
	s.vm[0].health.start_ms = 120000;
	node(to)->prepare_ms = 1000000;
	ask_migration(to);
	run(115000);
	TAP_OK(times(to, 'I') == 1 && !did(to, 'K') && untouched(from), "one that does not come to wait");
	TAP_OK(UNTIL(10000, did(to, 'K')) && untouched(from), "is killed after that time");
	sound("a target that never answers");

	/* Maintenance: one guest's targets hang, and the others wait for their turn. */
	boot(2, 1, 6);
	s.migrates = true;
	s.send_ms = 300;
	from = where(0), to = 3 - from;
	for (unsigned i = 0; i < 6; i++) {
		s.vm[i].live = true;
		s.vm[i].health.start_ms = 120000;
		later_runs(node(where(i)), 10, s.vm[i].uuid);
	}
	run(1000);
	TAP_OK(running_on(from) == 3, "three guests on a node");
	node(to)->prepare_ms = 100000;
	for (uint32_t id = 1; id <= 2; id++)
		memset(node(id)->trace, 0, 256);
	s.catalog.maintenance = bit(from);
	spread_catalog();
	TAP_OK(UNTIL(250000, running_on(to) == 6) && running_on(from) == 0 && !did(from, 'P') && !did(to, 'S'),
	       "maintenance waits for slow targets, and nobody is shut down for that");
	sound("a maintenance with slow targets");
}

/* Maintenance: guests that cannot be sent as they are, as many as may be on their way at a time, come first. */
static void unfit_first(uint32_t prepare_ms)
{
	uint32_t from, to;
	unsigned unfit = 0;

	boot(2, 1, 6);
	s.migrates = true;
	s.send_ms = 300;
	from = where(0), to = 3 - from;
	for (unsigned i = 0; i < 6; i++) {
		s.vm[i].live = true;
		s.vm[i].health.start_ms = 120000;
		later_runs(node(where(i)), 10, s.vm[i].uuid);
	}
	run(1000);
	for (unsigned i = 0; i < 6 && unfit < 2; i++) {
		if (where(i) != from)
			continue;
		vm_of(from, i)->health.run = GUEST_BUSY;
		unfit++;
	}
	node(to)->prepare_ms = prepare_ms;
	memset(node(from)->trace, 0, 256);
	s.catalog.maintenance = bit(from);
	spread_catalog();
	run(55000);
	TAP_OK(running_on(from) == 3 && !did(from, 'P'), "guests that cannot be sent have a minute until they can");
	TAP_OK(UNTIL(120000, running_on(to) == 6) && times(from, 'P') == 2 && times(from, 'G') == 1, "then they are shut down, and those behind them leave as they run");
	sound("guests that cannot be sent");
}

static void test_migration_unfit(void)
{
	unfit_first(0);
	unfit_first(5000);
}

/* Its agent says so of a VM: on this host, and to all others. */
static void says_held(unsigned vm)
{
	uint32_t from = where(vm);

	vm_of(from, vm)->health.held = true;
	for (uint32_t id = 1; id <= s.n; id++) {
		struct agent_event ev = { .kind = AGENT_EV_READY, .node = from, .ready = READY_RUNNING, .held = true };

		memcpy(ev.uuid, s.vm[vm].uuid, 16);
		give(node(id), &ev);
	}
}

static void has_memory(uint32_t of, uint32_t mib)
{
	for (uint32_t id = 1; id <= s.n; id++) {
		agent(id)->opt.memory_percent = 100;
		agent(id)->node[of - 1].cpus = 8;
		agent(id)->node[of - 1].memory_mib = mib;
	}
}

/* What a dead QEMU of it wrote may not be over: it stays where it is, takes no place elsewhere, and no turn of those that leave. */
static void test_held_in_maintenance(void)
{
	uint32_t from, to;
	unsigned held = 0;

	boot(3, 1, 2);
	s.vm[0].memory_mib = s.vm[1].memory_mib = 10;
	has_memory(1, 10);
	has_memory(2, 20);
	has_memory(3, 20);
	ask_move(0, 2, 60000);
	ask_move(1, 3, 60000);
	TAP_OK(UNTIL(20000, runs(2, 0) && runs(3, 1)), "a VM each on two of three nodes");
	run(3000);
	says_held(0);
	s.catalog.maintenance = bit(2);
	spread_catalog();
	run(5000);
	power_off(3);
	proven_over(3);
	TAP_OK(UNTIL(30000, runs(1, 1)) && runs(2, 0), "maintenance of one's node, and the other's dies: that one gets the place");
	sound("no place for one that stays");

	boot(2, 1, 6);
	s.migrates = true;
	s.send_ms = 300;
	from = where(0), to = 3 - from;
	for (unsigned i = 0; i < 6; i++) {
		s.vm[i].live = true;
		s.vm[i].health.start_ms = 120000;
		later_runs(node(where(i)), 10, s.vm[i].uuid);
	}
	run(1000);
	for (unsigned i = 0; i < 6 && held < 2; i++) {
		if (where(i) != from)
			continue;
		says_held(i);
		held++;
	}
	for (uint32_t id = 1; id <= 2; id++)
		memset(node(id)->trace, 0, 256);
	s.catalog.maintenance = bit(from);
	spread_catalog();
	TAP_OK(UNTIL(30000, running_on(from) == 2) && !did(from, 'P'), "two of three stay: the third leaves as it runs");
	run(300000);
	TAP_OK(running_on(from) == 2 && times(to, 'I') == 1, "and no QEMU is started for the two");
	sound("held guests in maintenance");
}

/* A second maintenance, with less room than at the first: what was planned then takes nobody's place. */
static void test_second_maintenance(void)
{
	boot(3, 1, 3);
	for (unsigned i = 0; i < 3; i++) {
		s.vm[i].memory_mib = 10;
		s.vm[i].priority = 10 - i;
	}
	has_memory(1, 20);
	has_memory(2, 40);
	has_memory(3, 10);
	ask_move(0, 2, 60000);
	run(8000);
	ask_move(1, 2, 60000);
	run(8000);
	ask_move(2, 3, 60000);
	run(20000);
	s.catalog.maintenance = bit(2);
	spread_catalog();
	TAP_OK(UNTIL(20000, runs(1, 0) && runs(1, 1)), "a maintenance, and room for both");
	s.catalog.maintenance = 0;
	spread_catalog();
	run(2000);
	ask_move(0, 2, 60000);
	run(10000);
	ask_move(1, 2, 60000);
	TAP_OK(UNTIL(20000, runs(2, 0) && runs(2, 1)), "both are back");
	has_memory(1, 10);
	run(1000);
	s.catalog.maintenance = bit(2);
	spread_catalog();
	run(30000);
	TAP_OK(runs(1, 0) && runs(2, 1), "the next, and room for one: that one goes, the other runs on");
	sound("a second maintenance");
}

/* A shutdown that is called off: what has not left stays, as it runs. */
static void test_shutdown_called_off(void)
{
	uint32_t home, to;

	home = boot_live(&to);
	s.send_ms = 20000;
	going(home, true, LEAVE_MIGRATE, true, 120000);
	TAP_OK(UNTIL(10000, sends(home)), "its host goes down: it is on its way");
	going(home, false, LEAVE_CONDITIONAL, false, 0);
	TAP_OK(UNTIL(5000, s.catalog.leaving[home - 1] == 0) && UNTIL(5000, did(home, 'N') && untouched(home)), "not after all: it stays, as it runs");
	run(30000);
	TAP_OK(untouched(home) && agent_node_usable(agent(home), home), "and that is it");
	sound("a shutdown called off");
}

static void test_hands_off(void)
{
	uint32_t owner;

	boot(2, 1, 1);
	owner = where(0);
	memset(node(owner)->trace, 0, 256);
	want(0, DESIRED_IGNORED);
	run(5000);
	TAP_OK(runs(owner, 0) && !did(owner, 'P'), "ignored: it runs on");
	stop_agent(owner);
	run(300);
	start_agent(owner);
	run(5000);
	TAP_OK(runs(owner, 0) && did(owner, 'A') && !did(owner, 'K'), "over a restart of its agent, too");
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	run(90000);
	TAP_OK(running(0) == 0 && disk_state(owner, 0) == CLAIM_ACTIVE && notes(NOTE_VM_FAILED) == 0, "when it crashes nobody starts it, and its claim stays");
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(5000, runs(owner, 0)), "wanted again: its owner starts it");
	want(0, DESIRED_IGNORED);
	run(3000);
	process_ends(node(owner), 0, 1, VM_EXIT_GUEST_OFF);
	run(5000);
	TAP_OK(running(0) == 0 && s.vm[0].desired == DESIRED_IGNORED && !did(owner, 'O'), "its guest powers it off: nobody writes that down");
	want(0, DESIRED_STOPPED);
	TAP_OK(UNTIL(5000, disk_state(owner, 0) == CLAIM_RELEASED), "to be stopped: its claim is given up");
	sound("ignored");

	boot(2, 1, 1);
	owner = where(0);
	want(0, DESIRED_IGNORED);
	run(1000);
	power_off(owner);
	run(3000);
	proven_over(owner);
	run(90000);
	TAP_OK(running(0) == 0, "ignored, and its node dies: nobody takes it over");
	memset(node(3 - owner)->trace, 0, 256);
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(5000, runs(3 - owner, 0)) && did(3 - owner, 'D'), "until it is wanted again: drained first");
	sound("ignored on a dead node");

	boot(2, 1, 1);
	owner = where(0);
	want(0, DESIRED_IGNORED);
	run(1000);
	stop_agent(owner);
	node(owner)->process[0].runs = false;
	start_agent(owner);
	run(20000);
	TAP_OK(running(0) == 0 && disk_state(owner, 0) == CLAIM_UNCLEAN, "ignored, and dead while its agent was away: given up as it was found");
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(5000, running(0) == 1), "wanted again: it runs");
	sound("ignored without a process");

	boot(2, 1, 2);
	owner = where(0);
	memset(node(owner)->trace, 0, 256);
	s.catalog.pause = PAUSE_FREEZE;
	s.vm[1].desired = DESIRED_STOPPED;
	ask_move(0, 3 - owner, 0);
	run(10000);
	TAP_OK(runs(owner, 0) && running(1) == 1 && !did(owner, 'P') && s.vm[0].move.node != 0, "frozen: nothing is stopped, a move waits");
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	add_vms(1);
	spread_catalog();
	run(10000);
	TAP_OK(running(0) == 0 && running(2) == 0, "nothing is restarted or started");
	s.catalog.pause = PAUSE_NONE;
	spread_catalog();
	TAP_OK(UNTIL(10000, runs(3 - owner, 0) && running(1) == 0 && running(2) == 1), "then all is done that was asked for");
	sound("frozen");

	boot(2, 1, 2);
	owner = where(0);
	s.catalog.pause = PAUSE_IGNORE;
	ask_move(0, 3 - owner, 0);
	TAP_OK(UNTIL(5000, runs(3 - owner, 0)), "hands off, and an operator moves a VM: obeyed");
	run(3000);
	process_ends(node(where(1)), 1, 1, VM_EXIT_CRASH);
	run(10000);
	TAP_OK(running(1) == 0, "but nothing is restarted");
	s.catalog.pause = PAUSE_NONE;
	spread_catalog();
	TAP_OK(UNTIL(5000, all_run()), "until that ends");
	sound("hands off");
}

static void take_in(uint32_t id, bool on)
{
	struct agent_event ev = { .kind = AGENT_EV_TAKE_IN, .ok = on };

	memcpy(ev.uuid, s.vm[0].uuid, 16);
	give(node(id), &ev);
}

static void boot_ignored(unsigned nodes)
{
	init(nodes, 3, 1);
	s.vm[0].desired = DESIRED_IGNORED;
	for (uint32_t id = 1; id <= nodes; id++)
		start_agent(id);
	run(6000);
	for (uint32_t id = 1; id <= nodes; id++)
		memset(node(id)->trace, 0, sizeof(node(id)->trace));
}

static void freeze(unsigned vm, bool on)
{
	s.vm[vm].frozen = on;
	spread_catalog();
	run(100);
}

static void test_frozen_vm(void)
{
	uint32_t owner;

	boot(2, 1, 2);
	owner = where(0);
	freeze(0, true);
	memset(node(owner)->trace, 0, sizeof(node(owner)->trace));
	ask_move(0, 3 - owner, 0);
	want(0, DESIRED_STOPPED);
	run(20000);
	TAP_OK(runs(owner, 0) && !did(owner, 'P') && s.vm[0].move.node != 0, "one VM is frozen: it is not stopped, a move waits");
	want(0, DESIRED_STARTED);
	stop_agent(owner);
	run(300);
	start_agent(owner);
	run(5000);
	TAP_OK(runs(owner, 0) && !did(owner, 'K'), "over a restart of its agent, too");
	process_ends(node(owner), 0, 1, VM_EXIT_CRASH);
	process_ends(node(where(1)), 1, 1, VM_EXIT_CRASH);
	run(30000);
	TAP_OK(running(0) == 0 && running(1) == 1, "it crashes: nobody starts it, and others are");
	freeze(0, false);
	TAP_OK(UNTIL(10000, runs(3 - owner, 0)), "unfrozen: it runs, where it was asked to be");
	sound("a frozen VM");

	boot(2, 1, 1);
	owner = where(0);
	freeze(0, true);
	power_off(owner);
	run(3000);
	proven_over(owner);
	run(60000);
	TAP_OK(running(0) == 0, "its node dies: nobody takes it over");
	freeze(0, false);
	TAP_OK(UNTIL(5000, runs(3 - owner, 0)) && did(3 - owner, 'D'), "until it is unfrozen: drained first");
	sound("a frozen VM's node dies");

	boot(2, 1, 1);
	owner = where(0);
	freeze(0, true);
	node(owner)->epoch = 2;
	node(owner)->over = 1;
	node(owner)->term++;
	memset(node(owner)->process, 0, sizeof(node(owner)->process));
	s.table_at = s.now;
	run(30000);
	TAP_OK(running(0) == 0 && node(owner)->notes[NOTE_VM_LOST] == 1, "its node loses the lease: it is ended with the others, and stays down");
	freeze(0, false);
	TAP_OK(UNTIL(5000, running(0) == 1), "until it is unfrozen");
	sound("a frozen VM's node loses its lease");

	init(2, 1, 1);
	s.vm[0].frozen = true;
	start_agent(1);
	start_agent(2);
	run(20000);
	TAP_OK(running(0) == 0 && s.catalog.seq == 1, "frozen before its first start: it is not started");
	later_assign(1, 1, 1, s.vm[0].uuid);
	run(5000);
	TAP_OK(running(0) == 0, "though a leader that does not know of it yet asks for it");
	freeze(0, false);
	TAP_OK(UNTIL(5000, running(0) == 1), "then it is");
	sound("frozen at first");

	boot(2, 1, 1);
	owner = where(0);
	s.vm[0].frozen = true;
	s.catalog.maintenance = bit(owner);
	spread_catalog();
	run(20000);
	TAP_OK(runs(owner, 0) && !did(owner, 'P'), "maintenance leaves it where it is");
	freeze(0, false);
	TAP_OK(UNTIL(10000, runs(3 - owner, 0)), "until it is unfrozen");
	sound("frozen in maintenance");
}

/* A QEMU that something else has started. */
static void test_take_in(void)
{
	boot_ignored(2);
	take_in(2, true);
	(void)UNTIL(5000, did(2, 'T'));
	TAP_STR(node(2)->trace, "RWWRDT", "a running QEMU: claimed as for a start, and what an earlier one may have left has landed, before it is put behind the gate");
	TAP_OK(UNTIL(5000, vm_of(2, 0)->state == VM_RUNNING) && node(2)->notes[NOTE_VM_TAKEN_IN] == 1 && !did(2, 'S'), "and it runs, nothing was started");
	run(3000);
	TAP_OK(runs(2, 0) && !did(2, 'P') && !did(2, 'K'), "while it is still ignored it is left alone");
	stop_agent(2);
	run(300);
	start_agent(2);
	run(5000);
	TAP_OK(runs(2, 0) && did(2, 'A') && !did(2, 'K') && vm_of(2, 0)->state == VM_RUNNING, "over a restart of its agent, too");
	want(0, DESIRED_STARTED);
	process_ends(node(2), 0, 1, VM_EXIT_CRASH);
	TAP_OK(UNTIL(5000, runs(2, 0)) && did(2, 'S'), "then it is a VM like others: it crashes, and is started again");
	power_off(2);
	run(3000);
	proven_over(2);
	TAP_OK(UNTIL(5000, vm_of(1, 0)->state == VM_RUNNING) && did(1, 'D'), "its node dies: it is taken over");
	memset(node(1)->trace, 0, sizeof(node(1)->trace));
	take_in(1, true);
	TAP_STR(node(1)->trace, "N", "what runs here already is not adopted");
	TAP_OK(runs(1, 0) && vm_of(1, 0)->state == VM_RUNNING && !vm_of(1, 0)->foreign, "and runs on");
	sound("adopted");

	boot_ignored(2);
	take_in(1, true);
	(void)UNTIL(5000, vm_of(1, 0)->state == VM_RUNNING);
	take_in(2, true);
	TAP_OK(UNTIL(5000, did(2, 'N')) && !did(2, 'T') && node(2)->holder == 1, "what another node has is refused, and named");
	run(3000);
	TAP_OK(runs(1, 0) && !runs(2, 0), "it runs where it ran");
	sound("adopted elsewhere");

	boot_ignored(2);
	take_in(1, true);
	take_in(2, true);
	run(8000);
	TAP_OK(running(0) <= 1 && did(1, 'N') + did(2, 'N') + running(0) == 2, "on two nodes at once: one at most has it, the others are told");
	sound("adopted twice at once");

	boot_ignored(1);
	node(1)->refusing = true;
	take_in(1, true);
	TAP_OK(UNTIL(5000, did(1, 'T')) && UNTIL(5000, disk_state(1, 0) == CLAIM_UNCLEAN) && did(1, 'N'), "refused at the gate: the claim is given up, as one whose disk is still written");
	TAP_OK(UNTIL(1000, vm_of(1, 0)->state == VM_IDLE) && running(0) == 0 && !did(1, 'S'), "and nothing is started");
	node(1)->refusing = false;
	memset(node(1)->trace, 0, sizeof(node(1)->trace));
	take_in(1, true);
	TAP_OK(UNTIL(5000, runs(1, 0)) && did(1, 'D'), "once more: it works");
	sound("refused at the gate");

	boot_ignored(1);
	node(1)->refusing = node(1)->crashing = true;
	take_in(1, true);
	TAP_OK(UNTIL(8000, disk_state(1, 0) == CLAIM_RELEASED) && in_order(1, 'T', 'd') && in_order(1, 'd', 'D') && did(1, 'N'),
	       "it dies just then: given up when this host sends nothing more of it, and it is quiet");
	sound("died just then");

	boot_ignored(1);
	node(1)->stuck = true;
	take_in(1, true);
	(void)UNTIL(5000, did(1, 'T'));
	run(60000);
	TAP_OK(runs(1, 0) && !did(1, 'K'), "systemd does not answer: it is not killed for that");
	node(1)->epoch = 2;
	node(1)->over = 1;
	node(1)->term++;
	memset(node(1)->process, 0, sizeof(node(1)->process));
	s.table_at = s.now;
	run(100);
	TAP_OK(did(1, 'N') && vm_of(1, 0)->state == VM_IDLE && !vm_of(1, 0)->foreign, "and the lease is lost: over");
	sound("stuck");

	boot_ignored(1);
	node(1)->drain_ms = 20000;
	take_in(1, true);
	TAP_OK(UNTIL(5000, did(1, 'D')), "its storage does not answer");
	take_in(1, false);
	TAP_OK(UNTIL(5000, disk_state(1, 0) == CLAIM_UNCLEAN) && did(1, 'N') && !did(1, 'T'), "called off: given up");
	run(30000);
	TAP_OK(!did(1, 'T') && running(0) == 0, "for good");
	sound("called off");

	boot_ignored(1);
	want(0, DESIRED_STARTED);
	(void)UNTIL(5000, running(0) == 1);
	memset(node(1)->trace, 0, sizeof(node(1)->trace));
	take_in(1, true);
	run(100);
	TAP_OK(did(1, 'N') && runs(1, 0), "one that is to be started is not adopted");
	sound("not ignored");

	boot_ignored(1);
	node(1)->gate = false;
	s.table_at = s.now;
	run(100);
	take_in(1, true);
	TAP_OK(did(1, 'N') && !did(1, 'W'), "with the gate closed nothing is claimed");
	sound("gate closed");

	boot_ignored(1);
	take_in(1, true);
	(void)UNTIL(5000, disk_state(1, 0) == CLAIM_ACTIVE);
	stop_agent(1);
	run(300);
	start_agent(1);
	TAP_OK(UNTIL(8000, disk_state(1, 0) == CLAIM_UNCLEAN) && running(0) == 0 && !did(1, 'S'), "its agent dies after the claim: given up unclean, and nothing is started");
	sound("cut off");
}

static void test_given_up(void)
{
	init(3, 1, 1);
	s.vm[0].preferred[0] = 1;
	s.vm[0].n_preferred = 1;
	s.vm[0].failed_limit = 2;
	for (uint32_t id = 1; id <= 3; id++) {
		node(id)->crashing = true;
		start_agent(id);
	}
	TAP_OK(UNTIL(60000, notes(NOTE_VM_ERROR) > 0) && notes(NOTE_VM_FAILED) == 2 && disk_state(1, 0) == CLAIM_FAILED,
	       "a VM that fails on as many nodes as it may is given up");
	for (uint32_t id = 1; id <= 3; id++)
		node(id)->crashing = false;
	run(200000);
	TAP_OK(running(0) == 0 && agent_vm_error(agent(1), vm_of(1, 0)), "for good: no window and no patience ends it");
	stop_agent(1);
	run(500);
	start_agent(1);
	run(70000);
	TAP_OK(running(0) == 0, "no restart of an agent either");
	want(0, DESIRED_STOPPED);
	TAP_OK(UNTIL(5000, disk_state(1, 0) == CLAIM_RELEASED) && !agent_vm_error(agent(1), vm_of(1, 0)), "to be stopped: its failures are forgotten");
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(10000, runs(1, 0)), "and started again it runs");
	sound("given up");

	init(2, 1, 1);
	s.vm[0].preferred[0] = 1;
	s.vm[0].n_preferred = 1;
	s.vm[0].failed_limit = 2;
	node(1)->crashing = true;
	start_agent(1);
	start_agent(2);
	TAP_OK(UNTIL(60000, runs(2, 0)) && notes(NOTE_VM_ERROR) == 0, "fails on fewer nodes than it may: runs on the next");
	run(90000);
	TAP_OK(runs(2, 0) && disk_state(1, 0) == CLAIM_RELEASED, "and while it runs the failure is forgotten after the window");
	sound("not given up");

	/* Where it was last, among equals. */
	boot(3, 1, 1);
	ask_move(0, 3, 0);
	(void)UNTIL(10000, runs(3, 0));
	run(3000);
	want(0, DESIRED_STOPPED);
	run(5000);
	want(0, DESIRED_STARTED);
	TAP_OK(UNTIL(5000, runs(3, 0)), "stopped and started again: among equals it starts where it was last");
	sound("where it was last");
}

static void test_no_place(void)
{
	init(2, 1, 1);
	s.vm[0].has_required = true;
	s.vm[0].required = 2;
	start_agent(1);
	run(300000);
	TAP_OK(running(0) == 0 && notes(NOTE_VM_NO_PLACE) == 1, "its only node is away: told, and once");
	start_agent(2);
	TAP_OK(UNTIL(90000, runs(2, 0)), "it comes: the VM runs");
	run(20000);
	want(0, DESIRED_STOPPED);
	TAP_OK(UNTIL(20000, disk_state(2, 0) == CLAIM_RELEASED), "stopped");
	run(3000);
	stop_agent(2);
	run(20000);
	TAP_OK(notes(NOTE_VM_NO_PLACE) == 1, "one that is not wanted needs no place");
	want(0, DESIRED_STARTED);
	run(300000);
	TAP_OK(running(0) == 0 && notes(NOTE_VM_NO_PLACE) == 2, "its next outage is told again");
	sound("no place");

	init(2, 1, 1);
	s.vm[0].has_required = true;
	s.vm[0].required = 2;
	start_agent(1);
	TAP_OK(UNTIL(20000, agent(1)->leads), "somebody leads");
	start_agent(2);
	TAP_OK(UNTIL(20000, runs(2, 0)) && notes(NOTE_VM_NO_PLACE) == 0, "a moment without a place, while its node comes up, is none");
	sound("a place soon");
}

/* Its storage does not answer a node: the proof that must come before a start there never comes. */
static void test_unproven(void)
{
	init(3, 1, 1);
	for (uint32_t id = 1; id <= 3; id++) {
		node(id)->drain_ms = id == 3 ? 600 : 36000000;
		start_agent(id);
	}
	TAP_OK(UNTIL(20000, vm_of(1, 0) && vm_of(1, 0)->state == VM_DRAINING), "a VM is to start where its storage does not answer");
	TAP_OK(UNTIL(60000, runs(3, 0)), "not for ever: each node is asked, also when two cannot");
	TAP_OK(disk_state(1, 0) == CLAIM_UNCLEAN && disk_state(2, 0) == CLAIM_UNCLEAN && did(3, 'D'), "and whoever takes it proves it quiet");
	node(3)->drain_ms = 36000000;
	power_off(3);
	run(3000);
	proven_over(3);
	run(100000);
	TAP_OK(running(0) == 0, "nobody's storage answers");
	node(2)->drain_ms = 600;
	TAP_OK(UNTIL(45000, runs(2, 0)), "it is gone on with, in turn: it runs soon after one's does");
	sound("unproven");

	init(2, 1, 1);
	for (uint32_t id = 1; id <= 2; id++) {
		node(id)->drain_ms = 36000000;
		start_agent(id);
	}
	(void)UNTIL(20000, vm_of(1, 0) && vm_of(1, 0)->state == VM_DRAINING);
	want(0, DESIRED_STOPPED);
	TAP_OK(UNTIL(20000, disk_state(1, 0) == CLAIM_UNCLEAN && vm_of(1, 0)->state == VM_IDLE), "not wanted any more: it does not stay in the middle of its start");
	run(30000);
	TAP_OK(running(0) == 0 && disk_state(2, 0) == CLAIM_NONE, "and nobody else is asked");
	sound("unproven and stopped");
}

/* Placement alone: who is armed, in maintenance, how loaded, where it failed, what is preferred. */
static void test_place(void)
{
	static const struct {
		const char *name;
		uint64_t armed, maintenance, failed, silent;
		unsigned load[3], preferred[3];
		uint32_t want;
		uint64_t quarantine;
	} cases[] = {
		{ "all equal: the lowest id", 7, 0, 0, 0, { 0 }, { 0 }, 1, 0 },
		{ "the least loaded", 7, 0, 0, 0, { 2, 1, 2 }, { 0 }, 2, 0 },
		{ "equal loads: the lower id", 7, 0, 0, 0, { 3, 1, 1 }, { 0 }, 2, 0 },
		{ "preference goes before load", 7, 0, 0, 0, { 0, 0, 9 }, { 3 }, 3, 0 },
		{ "the first preferred one that is usable", 3, 0, 0, 0, { 0, 9, 0 }, { 3, 2 }, 2, 0 },
		{ "none of the preferred: the least loaded", 3, 0, 0, 0, { 1, 0, 0 }, { 3 }, 2, 0 },
		{ "where it failed comes last, preferred or not", 7, 0, 4, 0, { 5, 6, 0 }, { 3 }, 1, 0 },
		{ "failed everywhere: as if nowhere", 7, 0, 7, 0, { 5, 6, 0 }, { 0 }, 3, 0 },
		{ "not into maintenance", 7, 1, 0, 0, { 0, 1, 2 }, { 1 }, 2, 0 },
		{ "not on a node whose agent is silent", 7, 0, 0, 1, { 0, 1, 2 }, { 1 }, 2, 0 },
		{ "not on a node that is not armed", 6, 0, 0, 0, { 0, 1, 2 }, { 0 }, 2, 0 },
		{ "nowhere at all", 0, 0, 0, 0, { 0 }, { 0 }, 0, 0 },
		{ "everything in maintenance", 7, 7, 0, 0, { 0 }, { 0 }, 0, 0 },
		{ "not into quarantine, preferred or not", 7, 0, 0, 0, { 0, 1, 2 }, { 1 }, 2, 1 },
		{ "only nodes in quarantine: one of those", 5, 0, 0, 0, { 1, 0, 0 }, { 0 }, 3, 7 },
		{ "rather into quarantine than where it failed", 3, 0, 1, 0, { 0 }, { 0 }, 2, 2 },
	};
	static struct agent a;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct agent_options opt = { .self = 3, .node_limit = 3, .node_max = 3, .n_volumes = 1, .members = 7 };
		struct vm *v;
		unsigned next = 1;

		timing_of_profile(TIMING_FAST, &opt.timing);
		agent_init(&a, &opt, MS(100000));
		a.have_table = true;
		a.epoch = a.table.table.epoch = 1;
		a.table.table.gate_open = cases[i].armed >> 2 & 1;
		a.catalog_armed = true;
		a.maintenance = cases[i].maintenance;
		a.quarantine = cases[i].quarantine;
		v = &a.vm[0];
		v->used = true;
		a.vm_end = 1;
		v->def.uuid[0] = 1;
		for (unsigned p = 0; p < 3 && cases[i].preferred[p]; p++)
			v->def.preferred[v->def.n_preferred++] = cases[i].preferred[p];
		for (uint32_t id = 1; id <= 3; id++) {
			struct claims *c = id == 3 ? &a.claimer.mine : &a.claimer.seen[id - 1];

			a.table.table.node[id - 1] = (struct keeper_table_node){
				.known = 1, .fresh = 1, .in_view = 1,
					.state = cases[i].armed >> (id - 1) & 1 ? HEARTBEAT_ARMED : HEARTBEAT_DISARMED,
			};
			a.node[id - 1].moved = true;
			a.node[id - 1].counter_ns = a.now_ns - (cases[i].silent >> (id - 1) & 1 ? MS(5000) : MS(100));
			if (cases[i].failed >> (id - 1) & 1) {
				c->n = 1;
				c->claim[0] = (struct claim){ .vm = { 1 }, .generation = 1, .epoch = 1, .state = CLAIM_FAILED };
			}
			for (unsigned l = 0; l < cases[i].load[id - 1]; l++, next++) {
				a.vm[next].used = true;
				a.vm[next].owner = id;
				a.vm_end = next + 1;
			}
		}
		TAP_OK(place_choose(&a, v) == cases[i].want, "placement: %s", cases[i].name);
	}
}

/* Its agent stands still; its keeper has closed the gate and says which VMs have a process. */
static void fall_silent(uint32_t id)
{
	struct node *n = node(id);

	n->frozen = true;
	n->gate = false;
	n->silent_seq = 100;
	n->n_marks = 0;
	for (unsigned vm = 0; vm < s.n_vms; vm++)
		if (n->process[vm].runs)
			n->marks[n->n_marks++] = format_vm_mark(s.vm[vm].uuid);
	s.table_at = s.now;
}

static void is_back(uint32_t id)
{
	node(id)->silent_seq = 0;
	node(id)->frozen = false;
	node(id)->gate = true;
	node(id)->term++;
	s.table_at = s.now;
}

static uint32_t runs_on(unsigned vm)
{
	for (uint32_t id = 1; id <= s.n; id++)
		if (runs(id, vm))
			return id;
	return 0;
}

static void boot_terms(unsigned nodes, unsigned vms)
{
	init(nodes, 1, vms);
	for (uint32_t id = 1; id <= nodes; id++) {
		node(id)->term = 50;
		start_agent(id);
	}
	(void)UNTIL(12000, all_run());
	run(2000);
}

static void test_silent(void)
{
	uint32_t x;
	unsigned other;

	boot_terms(2, 4);
	x = runs_on(0);
	for (other = 1; other < 4 && runs_on(other) != x; other++)
		;
	TAP_OK(all_run() && other < 4, "two nodes share four VMs");
	node(x)->frozen = true;
	node(x)->process[0].runs = false; /* and nobody there notices */
	run(15000);
	TAP_OK(running(0) == 0, "its agent hangs, a VM's process is gone: it is still claimed");
	memset(node(3 - x)->trace, 0, sizeof(node(3 - x)->trace));
	fall_silent(x);
	TAP_OK(UNTIL(8000, runs(3 - x, 0)) && in_order(3 - x, 'D', 'S'), "until its keeper says that it has no process: another node drains and starts it");
	TAP_OK(node(3 - x)->notes[NOTE_AGENT_SILENT] == 1, "and says why");
	run(20000);
	TAP_OK(all_run() && runs_on(other) == x, "the VMs that have one stay");
	later_vm(node(x), 1, AGENT_EV_EXIT, s.vm[0].uuid, VM_EXIT_CRASH);
	is_back(x);
	run(20000);
	TAP_OK(runs_on(0) == 3 - x && disk_state(x, 0) != CLAIM_ACTIVE && vm_of(x, 0)->state == VM_IDLE && all_run(), "back again, it finds its VM taken, and gives the old claim up");
	memset(node(x)->trace, 0, sizeof(node(x)->trace));
	process_ends(node(x), other, 5, VM_EXIT_CRASH);
	(void)UNTIL(2000, did(x, 'S'));
	TAP_STR(node(x)->trace, "dS", "what was its own all the time is started again without a new claim");
	sound("a silent agent");

	/* What its keeper had said before our claim was there may be taken back by now. */
	boot_terms(2, 2);
	x = runs_on(0);
	node(3 - x)->unheard = true;
	node(x)->process[0].runs = false;
	fall_silent(x);
	run(20000);
	TAP_OK(running(0) == 0 && disk_state(3 - x, 0) == CLAIM_ACTIVE, "claimed, and the keeper does not get on with its table: not started");
	later_vm(node(x), 1, AGENT_EV_EXIT, s.vm[0].uuid, VM_EXIT_CRASH);
	is_back(x);
	run(1000);
	node(3 - x)->unheard = false;
	TAP_OK(UNTIL(20000, all_run()), "its owner is back, and of the two one starts it");
	sound("a claim that is void no more");

	/* In the middle of a start, and back when another node runs the VM, or has run it. */
	for (unsigned stops = 0; stops < 2; stops++) {
		boot_terms(2, 0);
		node(1)->drain_ms = node(2)->drain_ms = 3000;
		add_vms(1);
		spread_catalog();
		(void)UNTIL(5000, did(1, 'D') || did(2, 'D'));
		x = did(1, 'D') ? 1 : 2;
		run(100);
		fall_silent(x);
		TAP_OK(UNTIL(20000, runs(3 - x, 0)), "silent in mid-start: another node takes the VM");
		run(1000);
		if (stops) {
			process_ends(node(3 - x), 0, 5, VM_EXIT_CRASH);
			fall_silent(3 - x);
		}
		memset(node(x)->trace, 0, sizeof(node(x)->trace));
		is_back(x);
		run(1000);
		TAP_OK(!did(x, 'S') && node(x)->notes[NOTE_VM_CONFIRM] == 1, "back again: it looks who owns the VM before it goes on");
		if (stops)
			is_back(3 - x);
		TAP_OK(UNTIL(30000, running(0) == 1), "and one of them runs it");
		run(10000);
		TAP_OK(running(0) == 1, "for good");
		sound("silent in mid-start");
	}

	/* A start that was claimed before is refused at the gate, and claimed anew. */
	boot_terms(1, 1);
	x = 1;
	node(1)->refusing = true;
	process_ends(node(1), 0, 5, VM_EXIT_CRASH);
	run(1000);
	node(1)->refusing = false;
	node(1)->term++;
	(void)UNTIL(1000, did(1, 'S'));
	TAP_OK(UNTIL(5000, running(0) == 1), "a new term is no obstacle to who still owns the VM");
	sound("a new term");
}

int main(void)
{
	test_silent();
	test_cycle();
	test_conflict();
	test_takeover();
	test_restart();
	test_catch_up();
	test_writes_refused();
	test_own_damaged();
	test_lost_lease();
	test_failures();
	test_leader();
	test_move();
	test_move_faults();
	test_leave();
	test_leave_edit();
	test_going_down();
	test_migration();
	test_migration_faults();
	test_migration_hold();
	test_migration_waits();
	test_migration_prepares();
	test_migration_unfit();
	test_held_in_maintenance();
	test_second_maintenance();
	test_shutdown_called_off();
	test_hands_off();
	test_frozen_vm();
	test_take_in();
	test_given_up();
	test_no_place();
	test_unproven();
	test_place();
	for (int st = 0; st < VM_STATE_COUNT; st++)
		if (strcmp(vm_state_name((enum vm_state)st), "unknown") == 0)
			TAP_OK(false, "state %d has a name", st);
	return tap_done();
}
