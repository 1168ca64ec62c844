/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What agent/{agent,store,keeper_link,runner,drain,peers}.c do for the agent core. The catalog is not kept as blocks: each node has one newest version on
 * disk, which is written and read whole by a quorum's worth of reachable volumes; who may write and which one counts is as in store.c. */
#include <stdio.h>

#include "agent/base/mutant.h"
#include "storage/setchange.h"
#include "tests/sim/sim.h"

#define CLAIM_WRITE_OPS 2
#define RECONNECT_MS 50
#define SCAN_AGAIN_MS 200
#define CATALOG_LIMIT_MS 10000
#define START_TRIES 250
#define START_AGAIN_MS 20
#define LOOK_MS 10
#define DYING_MS 10
#define MAX_TABLES_WAITING 64

static struct table_msg *free_tables;
static uint32_t next_number;

static void a_event(struct node *n, const struct agent_event *ev);
static void a_events(struct node *n, const struct agent_event *ev, bool more);
static void scan(struct node *n);

struct table_msg *table_msg_new(void)
{
	struct table_msg *t = free_tables;

	if (t)
		free_tables = t->next;
	else
		t = pool_alloc(sizeof(*t));
	CHECK(t);
	return t;
}

static void table_msg_free(struct table_msg *t)
{
	t->next = free_tables;
	free_tables = t;
}

static struct agent_event about(enum agent_event_kind kind, unsigned vm)
{
	struct agent_event ev = { .kind = kind };

	memcpy(ev.uuid, sim.vm[vm].uuid, 16);
	return ev;
}

static void on_late_event(struct sim_event *ev)
{
	struct agent_event *a = ev->obj;
	struct node *n = sim_node((uint32_t)(ev->arg >> 32));
	int r = world_for(&n->aproc, (uint32_t)ev->arg, ev);

	if (r == 0)
		return;
	if (r > 0)
		a_event(n, a);
	free(a);
}

static void on_timer(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct agent_event a = { .kind = AGENT_EV_TIMER };

	if (ev->arg == n->a_timer.number)
		a_event(n, &a);
}

static void arm_timer(struct node *n)
{
	timer_set(&n->a_timer, &n->aproc, sim.now + node_wait(n, MAX(agent_deadline(n->agent) - node_now(n), 0)), on_timer, n);
}

/* Claims on the volumes. */

static void claim_event(struct op *op, enum agent_event_kind kind, bool ok, bool definite, const void *data)
{
	struct agent_event ev = { .kind = kind, .volume = op->target, .ok = ok, .definite = definite, .data = data };

	a_events(op->node, &ev, op->in_call && (kind == AGENT_EV_WRITE_DONE || kind == AGENT_EV_READ_DONE));
}

static void write_done(struct op *op, bool ok, bool definite) { claim_event(op, AGENT_EV_WRITE_DONE, ok, definite, NULL); }

static void write_settled(struct op *op, bool completed)
{
	op->node->a_write_ops[op->target]--;
	claim_event(op, AGENT_EV_WRITE_SETTLED, completed, true, NULL);
}

static void on_set_changed(struct sim_event *ev)
{
	struct node *n = ev->obj;

	history_add("node %u: its agent starts again with another volume set", n->id);
	agent_edge_crash(n);
	machine_agent_again(n, rnd_ms(20, 300));
}

static void set_changed(struct node *n) { world_post_proc(&n->aproc, 0, on_set_changed, n, 0); }

static void read_done(struct op *op, bool ok, bool definite)
{
	struct node *n = op->node;

	/* As agent/store.c: the superblock comes with it. */
	if (ok && !MUTANT(SET_CHANGE_UNSEEN)) {
		enum superblock_verdict v = superblock_check(snapshot_use(op->snap, BLOCK_CLAIMS), &n->aclient.set, op->target);

		ok = v == SUPERBLOCK_SAME;
		if (v == SUPERBLOCK_CHANGED)
			set_changed(n);
	}

	claim_event(op, AGENT_EV_READ_DONE, ok, definite, ok ? snapshot_use(op->snap, BLOCK_CLAIMS) : NULL);
	if (ok && n->a_runs && !n->aproc.stopped)
		check_read(n, op, n->agent->claimer.volume[op->target].read_ok ? ~0ULL : 0);
}

static void read_settled(struct op *op, bool completed) { claim_event(op, AGENT_EV_READ_SETTLED, completed, true, NULL); }

static const struct op_calls write_calls = { write_done, write_settled };
static const struct op_calls read_calls = { read_done, read_settled };

static void late_submit(struct sim_event *ev)
{
	struct op *op = ev->obj;
	int r = world_for(op->proc, op->life, ev);

	if (r > 0)
		op_submit_session(op, &op->node->aclient);
	else if (r < 0)
		op_cancel(op);
}

/* Never left this host. */
static void on_unreachable(struct sim_event *ev)
{
	struct op *op = ev->obj;
	int r = world_for(op->proc, op->life, ev);

	if (r == 0)
		return;
	if (r > 0) {
		op->calls->done(op, false, true);
		op->calls->settled(op, true);
	}
	op_cancel(op);
}

static void submit(struct node *n, struct op *op)
{
	if (n->a_cut)
		world_post(node_wait(n, keeper_ms(sim.timing.io_ms)), on_unreachable, op, 0);
	else if (proc_stalls(&n->aproc))
		world_post(0, late_submit, op, 0);
	else
		op_submit_session(op, &n->aclient);
}

static void no_buffer(struct sim_event *ev)
{
	struct agent_event a = { .kind = AGENT_EV_WRITE_DONE, .volume = (unsigned)ev->arg, .definite = true };

	a_event(ev->obj, &a);
}

static void op_write(void *edge, unsigned volume, unsigned buffer, const struct claims *c)
{
	struct node *n = edge;
	struct op *op;

	if (n->a_write_ops[volume] == CLAIM_WRITE_OPS) {
		world_post_proc(&n->aproc, 0, no_buffer, n, volume);
		return;
	}
	n->a_write_ops[volume]++;
	op = op_new(OP_WRITE_CLAIMS, &n->aproc, n, volume, &write_calls, n);
	op->block = block_of_claims(c);
	op->buffer = buffer;
	submit(n, op);
}

static void op_read(void *edge, unsigned volume)
{
	struct node *n = edge;

	submit(n, op_new(OP_READ_CLAIMS, &n->aproc, n, volume, &read_calls, n));
}

/* Link to the keeper. */

static void send_facts(struct node *n)
{
	if (!n->a_runs || n->a_keeper_life != n->kproc.life)
		return;
	n->facts.counter = n->a_counter;
	n->facts.claims_seq = n->agent->claimer.acked_seq;
	n->facts.catalog_generation = n->have_cat ? n->cat.generation : 0;
	n->facts.catalog_seq = n->have_cat ? n->cat.seq : 0;
	keeper_edge_facts(n);
}

static void op_facts(void *edge) { send_facts(edge); }
static void op_numbered(void *edge, uint64_t seq) { ((struct node *)edge)->a_seq_base = seq; }

static void try_edit(struct node *n);
static void look_after(struct node *n);
static void tell_capacity(struct node *n);

static void on_tick(struct sim_event *ev)
{
	struct node *n = ev->obj;
	bool up;

	if (n->a_keeper_life != n->kproc.life && proc_alive(&n->kproc))
		n->a_keeper_life = n->kproc.life;
	up = n->a_keeper_life == n->kproc.life && proc_alive(&n->kproc);
	n->a_counter++;
	if (up)
		send_facts(n);
	if (up && n->a_runs && n->have_cat && n->agent->have_catalog && n->agent->have_table &&
	    n->agent->table.table.want_armed != n->cat.armed && n->a_counter % 4 == 0)
		keeper_edge_arm(n, n->cat.armed);
	try_edit(n);
	if (n->a_counter % 4 == 0)
		look_after(n);
	world_post_proc(&n->aproc, node_wait(n, keeper_ms(up ? sim.timing.hb_ms : RECONNECT_MS)), on_tick, n, 0);
}

static void on_no_keeper(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct agent_event a = { .kind = AGENT_EV_NO_KEEPER };

	if (n->a_keeper_life == n->kproc.life)
		return;
	n->a_keeper_life = 0;
	power_forget(n);
	a_event(n, &a);
}

void agent_edge_no_keeper(struct node *n) { world_post_proc(&n->aproc, rnd_us(20, 200), on_no_keeper, n, 0); }

static bool newer(uint64_t generation_a, uint64_t seq_a, const struct cat *b)
{
	return generation_a != b->generation ? generation_a > b->generation : seq_a > b->seq;
}

static void on_table(struct sim_event *ev)
{
	struct table_msg *t = ev->obj;
	struct node *n = t->node;
	struct agent_event a = { .kind = AGENT_EV_TABLE, .table = &t->msg }, silent = { .kind = AGENT_EV_SILENT, .silent = &t->msg.silent };
	int r = n->aproc.stopped && n->aproc.n_late > MAX_TABLES_WAITING ? -1 : world_for(&n->aproc, t->life, ev);

	if (r == 0)
		return;
	if (r > 0 && t->msg.kind == KEEPER_MSG_SILENT) {
		a_event(n, &silent);
	} else if (r > 0) {
		if (n->a_runs && t->msg.table.set_generation > n->aclient.set.generation && !MUTANT(SET_CHANGE_UNSEEN))
			set_changed(n);
		a_event(n, &a);
		power_table(n, &t->msg);
		for (uint32_t id = 1; id <= sim.n_nodes && n->have_cat; id++) {
			const struct keeper_table_node *o = &t->msg.table.node[id - 1];

			if (id != n->id && newer(o->catalog_generation, o->catalog_seq, &n->cat))
				scan(n);
		}
	}
	table_msg_free(t);
}

void agent_edge_table(struct node *n, struct table_msg *t)
{
	t->node = n;
	t->life = n->aproc.life;
	world_post(rnd_us(20, 80), on_table, t, 0);
}

/* Catalog. */

static unsigned usable_volumes(const struct node *n, bool writing)
{
	unsigned c = 0;

	for (unsigned v = 0; v < sim.n_volumes && !n->a_cut; v++) {
		const struct target *t = &sim.target[v];

		c += n->aclient.session[v].state == SESSION_READY && !t->hung && !(t->cut >> (n->id - 1) & 1) && !t->bad_reads &&
		     !(writing && t->bad_writes);
	}
	return c;
}

static void use_cat(struct node *n, const struct cat *cat)
{
	static struct vm_def def[SIM_MAX_VMS];
	struct catalog c = { .generation = cat->generation, .seq = cat->seq, .armed = cat->armed, .pause = cat->pause,
			     .maintenance = cat->maintenance, .vm = def };
	struct agent_event ev = { .kind = AGENT_EV_CATALOG, .catalog = &c };
	bool first = !n->have_cat;

	n->cat = *cat;
	n->have_cat = true;
	memcpy(c.leaving, cat->leaving, sizeof(cat->leaving));
	for (unsigned v = 0; v < sim.n_vms; v++) {
		struct vm_def *d = &def[c.n];

		if (!cat->present[v])
			continue;
		c.n++;
		*d = sim.vm[v].policy ? *sim.vm[v].policy :
				      (struct vm_def){ .memory_mib = 1024, .vcpus = 1, .priority = v % 3, .restart_limit = 3,
						       .restart_window_ms = 30000, .stop_timeout_ms = 5000, .live = v % 4 != 3 };
		d->desired = cat->desired[v];
		d->frozen = cat->frozen[v];
		d->move = cat->move[v];
		memcpy(d->uuid, sim.vm[v].uuid, 16);
		d->uuid[2] = (uint8_t)(cat->incarnation[v] + 1);
		(void)snprintf(d->name, sizeof(d->name), "vm%u", v);
	}
	a_event(n, &ev);
	send_facts(n);
	if (first)
		tell_capacity(n);
}

static void tell_catalog_read(struct node *n)
{
	struct agent_event a = { .kind = AGENT_EV_CATALOG_READ };

	if (n->leading && n->cat_complete)
		a_event(n, &a);
}

static void on_scan(struct sim_event *ev)
{
	struct node *n = ev->obj;
	const struct cat *best = &sim.cat_on_disk[0];

	if (usable_volumes(n, false) < format_fence_quorum(sim.n_volumes)) {
		world_post_proc(&n->aproc, SCAN_AGAIN_MS * NS_PER_MS, on_scan, n, 0);
		return;
	}
	n->cat_scanning = false;
	for (unsigned i = 1; i < sim.n_nodes; i++)
		if (newer(sim.cat_on_disk[i].generation, sim.cat_on_disk[i].seq, best))
			best = &sim.cat_on_disk[i];
	n->cat_complete = true;
	if (!n->have_cat || newer(best->generation, best->seq, &n->cat))
		use_cat(n, best);
	tell_catalog_read(n);
	if (n->cat_again) {
		n->cat_again = false;
		scan(n);
	}
}

static void scan(struct node *n)
{
	if (n->cat_scanning) {
		n->cat_again = true;
		return;
	}
	n->cat_scanning = true;
	world_post_proc(&n->aproc, rnd_ms(1, 10), on_scan, n, 0);
}

static void op_lead(void *edge, bool on, uint64_t generation)
{
	struct node *n = edge;

	n->leading = on;
	n->cat_complete = n->cat_complete && MUTANT(LEADER_READS_FIRST);
	scan(n);
}

void edit_ask(const struct edit *e)
{
	if (sim.n_edits < ARRAY_SIZE(sim.edit))
		sim.edit[sim.n_edits++] = *e;
}

void edit_post(enum edit_kind kind, unsigned vm, uint32_t node) { edit_ask(&(struct edit){ .kind = kind, .vm = vm, .node = node }); }

/* The node is to be empty: what that says of each VM it owns goes into the catalog with it. What an operator has asked for goes before. */
static void empty_node(const struct node *n, struct cat *c, uint32_t node, enum leave_policy policy, bool reboot)
{
	for (unsigned v = 0; v < sim.n_vms; v++) {
		if (c->present[v] && agent_owner(n->agent, sim.vm[v].uuid) == node && (c->move[v].node == 0 || c->move[v].back))
			c->move[v] = agent_leave_move(policy, reboot, node, c->move[v].number + 1);
	}
}

/* An agent still has to do with the VM as it was before its removal, or will when it goes on: what units, jobs and the LUN here say is about one of a name only,
 * where a host has one for each uuid. */
static bool is_remembered(unsigned vm)
{
	uint8_t uuid[16];

	memcpy(uuid, sim.vm[vm].uuid, 16);
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		for (unsigned b = 1; b <= UINT8_MAX && sim.node[i].agent; b++) {
			const struct vm *v;

			uuid[2] = (uint8_t)b;
			v = agent_vm_by_uuid(sim.node[i].agent, uuid);
			if (v && proc_alive(&sim.node[i].aproc) && v->state != VM_IDLE)
				return true;
		}
	}
	return false;
}

static void move(struct cat *c, unsigned vm, uint32_t node, uint32_t wait_ms)
{
	c->move[vm] = (struct vm_move){ .node = node, .wait_ms = wait_ms, .number = c->move[vm].number + 1 };
}

static uint32_t epoch_of(const struct node *n, uint32_t id) { return id == n->id ? n->agent->epoch : agent_table_node(n->agent, id)->epoch; }

static void apply(const struct node *n, struct cat *c, const struct edit *e)
{
	static const enum vm_desired desired[] = { [EDIT_START] = DESIRED_STARTED, [EDIT_STOP] = DESIRED_STOPPED, [EDIT_REMOVE] = DESIRED_REMOVED,
						   [EDIT_IGNORE] = DESIRED_IGNORED };
	uint64_t bit = e->node ? 1ULL << (e->node - 1) : 0;

	switch (e->kind) {
	case EDIT_ARM:
	case EDIT_DISARM:
		c->armed = e->kind == EDIT_ARM;
		break;
	case EDIT_START:
	case EDIT_STOP:
	case EDIT_REMOVE:
	case EDIT_IGNORE:
		if (c->present[e->vm] && c->desired[e->vm] != DESIRED_REMOVED)
			c->desired[e->vm] = desired[e->kind];
		break;
	case EDIT_FREEZE:
	case EDIT_UNFREEZE:
		c->frozen[e->vm] = e->kind == EDIT_FREEZE && c->present[e->vm] && c->desired[e->vm] != DESIRED_REMOVED && c->desired[e->vm] != DESIRED_IGNORED;
		break;
	case EDIT_FORGET:
		if (c->desired[e->vm] == DESIRED_REMOVED && c->incarnation[e->vm] == e->incarnation && n->agent->lead_generation == e->number)
			c->present[e->vm] = false;
		break;
	case EDIT_ADD:
		if (!c->present[e->vm] && !is_remembered(e->vm)) {
			c->present[e->vm] = true;
			c->incarnation[e->vm]++;
			c->desired[e->vm] = DESIRED_STARTED;
			c->frozen[e->vm] = false;
			move(c, e->vm, e->node, SIM_START_WAIT_MS);
		}
		break;
	case EDIT_MAINTENANCE:
		if (!(c->maintenance & bit))
			empty_node(n, c, e->node, LEAVE_MIGRATE, false);
		c->maintenance |= bit;
		break;
	case EDIT_ACTIVE:
		c->maintenance &= ~bit;
		c->leaving[e->node - 1] = 0;
		break;
	case EDIT_LEAVE:
		empty_node(n, c, e->node, (enum leave_policy)(e->vm / 2), e->vm % 2);
		c->leaving[e->node - 1] = epoch_of(n, e->node);
		break;
	case EDIT_LEAVING: /* as agent/server.c */
		if (agent_leave_edit(&c->leaving[e->node - 1], epoch_of(n, e->node), (uint32_t)e->number, true))
			empty_node(n, c, e->node, (enum leave_policy)(e->vm / 2), e->vm % 2);
		break;
	case EDIT_STAY:
		(void)agent_leave_edit(&c->leaving[e->node - 1], epoch_of(n, e->node), (uint32_t)e->number, false);
		break;
	case EDIT_MOVE:
		if (c->present[e->vm])
			move(c, e->vm, e->node, 0);
		break;
	case EDIT_MIGRATE:
		if (c->present[e->vm] && e->vm % 4 != 3) {
			move(c, e->vm, e->node, 0);
			c->move[e->vm].live = true;
		}
		break;
	case EDIT_CALL_OFF:
		if (c->move[e->vm].live)
			c->move[e->vm].node = 0;
		break;
	case EDIT_MOVE_OVER:
		if (c->move[e->vm].number == e->number && c->incarnation[e->vm] == e->incarnation)
			c->move[e->vm].node = 0;
		break;
	case EDIT_PAUSE:
		c->pause = (enum catalog_pause)e->vm;
		break;
	case EDIT_GUEST_OFF:
		if (c->desired[e->vm] == DESIRED_STARTED && c->incarnation[e->vm] == e->incarnation)
			c->desired[e->vm] = DESIRED_STOPPED;
		break;
	}
}

static void write_end(struct node *n, bool ok)
{
	n->cat_writing = n->cat_checking = false;
	if (!ok) {
		edit_ask(&n->cat_edit); /* the operator tries again */
		scan(n);
		return;
	}
	history_add("catalog: edit %d of VM %u, node %u by node %u counts (%llu, %llu)", (int)n->cat_edit.kind, n->cat_edit.vm, n->cat_edit.node,
		    n->id, (unsigned long long)n->cat_new.generation, (unsigned long long)n->cat_new.seq);
	check_edit_counts(n->cat_new.version);
	use_cat(n, &n->cat_new);
}

/* Added again: another VM, with the disk of the one before. */
static void be_another(struct sim_vm *v, uint8_t incarnation)
{
	if (v->incarnation == incarnation)
		v->image.runner.generation = 0; /* added before in a catalog that did not count in the end: generations begin anew */
	v->incarnation = MAX(v->incarnation, incarnation);
	v->uuid[2] = (uint8_t)(v->incarnation + 1);
}

static void on_cat_write(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct agent_event a = { .kind = AGENT_EV_CHECK_LEAD };

	if (usable_volumes(n, true) >= format_fence_quorum(sim.n_volumes)) {
		sim.cat_on_disk[n->id - 1] = n->cat_new;
		sim.edit_ns = sim.now;
		if (n->cat_edit.kind == EDIT_ADD && !n->cat.present[n->cat_edit.vm] && n->cat_new.present[n->cat_edit.vm])
			be_another(&sim.vm[n->cat_edit.vm], n->cat_new.incarnation[n->cat_edit.vm]);
		n->cat_checking = true;
		a_event(n, &a);
		return;
	}
	if (sim.now - n->cat_write_ns > CATALOG_LIMIT_MS * NS_PER_MS || !n->leading)
		write_end(n, false);
	else
		world_post_proc(&n->aproc, SCAN_AGAIN_MS * NS_PER_MS, on_cat_write, n, 0);
}

static void try_edit(struct node *n)
{
	if (!n->a_runs || !n->leading || !n->cat_complete || n->cat_writing || !n->have_cat || sim.n_edits == 0)
		return;
	n->cat_edit = sim.edit[0];
	memmove(&sim.edit[0], &sim.edit[1], --sim.n_edits * sizeof(sim.edit[0]));
	n->cat_new = n->cat;
	n->cat_new.version = check_edit(n->cat.version);
	apply(n, &n->cat_new, &n->cat_edit);
	n->cat_seq = MAX(n->cat_seq, n->cat.seq) + 1;
	n->cat_new.seq = n->cat_seq;
	n->cat_new.generation = n->agent->lead_generation;
	n->cat_writing = true;
	n->cat_write_ns = sim.now;
	world_post_proc(&n->aproc, rnd_ms(1, 10), on_cat_write, n, 0);
}

static void on_lead_checked(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (n->cat_writing && n->cat_checking)
		write_end(n, ev->arg && n->cat_new.generation == n->agent->lead_generation); /* the leadership that it was made under */
}

static void op_lead_checked(void *edge, bool on) { world_post_proc(&((struct node *)edge)->aproc, 0, on_lead_checked, edge, on); }

/* Peers. */

static void on_assign(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_ASSIGN, (unsigned)(ev->arg & 0xff));

	a.node = (uint32_t)(ev->arg >> 8 & 0xff);
	a.epoch = (uint32_t)(ev->arg >> 16);
	a_event(ev->obj, &a);
}

void agent_edge_assign(struct node *n, uint32_t from, uint32_t epoch, unsigned vm, int64_t delay)
{
	world_post_proc(&n->aproc, delay, on_assign, n, (uint64_t)epoch << 16 | from << 8 | vm);
}

static void op_assign(void *edge, uint32_t node, uint32_t epoch, const struct vm *v)
{
	struct node *n = edge, *to = sim_node(node);
	int64_t delay = 0;

	if (to == n || ring_carries(n, to, &delay))
		agent_edge_assign(to, n->id, epoch, (unsigned)sim_vm_index(v->def.uuid), delay);
}

static void on_prepare(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_PREPARE, (unsigned)(ev->arg & 0xff));

	a.node = (uint32_t)(ev->arg >> 8 & 0xff);
	a.epoch = (uint32_t)(ev->arg >> 16);
	a_event(ev->obj, &a);
}

static void op_prepare(void *edge, uint32_t node, uint32_t epoch, const struct vm *v)
{
	struct node *n = edge, *to = sim_node(node);
	int64_t delay = 0;

	places_prepared(n, (unsigned)sim_vm_index(v->def.uuid), node);
	if (to == n || ring_carries(n, to, &delay))
		world_post_proc(&to->aproc, delay, on_prepare, to, (uint64_t)epoch << 16 | n->id << 8 | (unsigned)sim_vm_index(v->def.uuid));
}

/* Migration, in 64 bits: its number, the news (or that it is an offer), the node and the VM. */
#define NEWS_OFFER 0xff
static uint64_t pack_news(unsigned vm, uint32_t node, unsigned news, uint64_t id) { return id << 32 | (uint64_t)news << 16 | node << 8 | vm; }

static void on_news(struct sim_event *ev)
{
	unsigned news = (unsigned)(ev->arg >> 16 & 0xff);
	struct agent_event a = about(news == NEWS_OFFER ? AGENT_EV_OFFER : AGENT_EV_MIGRATION, (unsigned)(ev->arg & 0xff));

	a.node = (uint32_t)(ev->arg >> 8 & 0xff);
	a.news = news == NEWS_OFFER ? 0 : (enum migrate_news)news;
	a.migration = ev->arg >> 32;
	a_event(ev->obj, &a);
}

static void send_news(struct node *n, uint32_t node, const struct vm *v, unsigned news, uint64_t id)
{
	struct node *to = sim_node(node);
	int64_t delay = 0;

	if (ring_carries(n, to, &delay))
		world_post_proc(&to->aproc, delay, on_news, to, pack_news((unsigned)sim_vm_index(v->def.uuid), n->id, news, id));
}

static void op_offer(void *edge, uint32_t node, const struct vm *v) { send_news(edge, node, v, NEWS_OFFER, v->migration.id); }
void agent_edge_cannot(struct node *n, unsigned vm)
{
	const struct vm *v = agent_vm_by_uuid(n->agent, sim.vm[vm].uuid);

	if (v && v->state == VM_INCOMING)
		send_news(n, v->migration.peer, v, MIGRATE_NEWS_CANNOT, 0);
}

static void op_tell(void *edge, uint32_t node, const struct vm *v, uint64_t id, enum migrate_news news) { send_news(edge, node, v, news, id); }

/* What QEMU says. Of a migration that was begun by an earlier process of this agent only that it is over. */
static void on_qemu_news(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xff);
	struct run *r = &n->run[vm];
	struct agent_event a = about(AGENT_EV_MIGRATION, vm);

	if (!r->used || r->number != (uint32_t)(ev->arg >> 32))
		return;
	a.news = (enum migrate_news)(ev->arg >> 16 & 0xff);
	if (a.news == MIGRATE_NEWS_READY)
		r->migration = n->qemu[vm].in_id;
	a.migration = r->migration;
	if (r->migration != 0)
		a_event(n, &a);
}

void agent_edge_migration(struct qemu *q, enum migrate_news news)
{
	struct node *n = q->node;
	struct run *r = &n->run[q->vm];

	if (r->used && r->life == q->proc.life)
		world_post_proc(&n->aproc, rnd_ms(1, 30), on_qemu_news, n, (uint64_t)r->number << 32 | (uint64_t)news << 16 | q->vm);
}

/* Units. */

static uint64_t pack(unsigned vm, uint32_t number, bool started, enum vm_exit how)
{
	return (uint64_t)number << 32 | (uint64_t)how << 17 | (uint64_t)started << 16 | vm;
}

static void on_qemu(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct run *r = &n->run[vm];
	struct agent_event a = about(ev->arg >> 16 & 1 ? AGENT_EV_STARTED : AGENT_EV_EXIT, vm);

	if (!r->used || r->number != (uint32_t)(ev->arg >> 32))
		return;
	if (a.kind == AGENT_EV_STARTED) {
		if (r->adopted || r->told)
			return;
		r->told = true;
	} else {
		r->used = false;
		a.exit = (enum vm_exit)(ev->arg >> 17 & 7);
	}
	a_event(n, &a);
}

/* A cont that a migration has ended with is answered, whatever was said of this QEMU before. */
static void on_went_on(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xff);
	struct run *r = &n->run[vm];
	struct agent_event a = about(AGENT_EV_STARTED, vm);

	if (!r->used || r->number != (uint32_t)(ev->arg >> 32))
		return;
	r->told = true;
	a_event(n, &a);
}

void agent_edge_went_on(struct qemu *q)
{
	struct node *n = q->node;
	struct run *r = &n->run[q->vm];

	if (r->used && r->life == q->proc.life)
		world_post_proc(&n->aproc, rnd_ms(1, 30), on_went_on, n, (uint64_t)r->number << 32 | q->vm);
}

static void exit_later(struct node *n, unsigned vm, enum vm_exit how, int64_t delay)
{
	world_post_proc(&n->aproc, delay, on_qemu, n, pack(vm, n->run[vm].number, false, how));
}

void agent_edge_qemu(struct qemu *q, bool started, enum vm_exit how, uint32_t life)
{
	struct node *n = q->node;
	struct run *r = &n->run[q->vm];

	if (r->used && r->life == life)
		world_post_proc(&n->aproc, started ? rnd_ms(30, 300) : rnd_ms(1, 110), on_qemu, n, pack(q->vm, r->number, started, how));
}

static void on_launch(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct run *r = &n->run[vm];

	if (!r->used || r->number != (uint32_t)(ev->arg >> 32))
		return;
	if (sim.vm[vm].fail_starts > 0 && (sim.vm[vm].fail_node == 0 || sim.vm[vm].fail_node == n->id)) {
		sim.vm[vm].fail_starts--;
		exit_later(n, vm, VM_EXIT_CRASH, rnd_ms(20, 200));
		return;
	}
	if (!n->cat.present[vm]) {
		exit_later(n, vm, VM_EXIT_CRASH, START_AGAIN_MS * NS_PER_MS);
		return;
	}
	if (MUTANT(TARGET_KEPT) && n->qemu[vm].incoming && n->qemu[vm].state == QEMU_RUNS) {
		r->life = n->qemu[vm].proc.life;
		if (n->qemu[vm].loaded)
			qemu_go_on(&n->qemu[vm], r->generation);
		else
			qemu_kill(&n->qemu[vm], GONE_DIED);
		return;
	}
	if (qemu_launch(n, vm, r->generation, r->epoch, r->term, r->incoming)) {
		r->life = n->qemu[vm].proc.life;
		return;
	}
	if (++r->tries < START_TRIES)
		world_post_proc(&n->aproc, START_AGAIN_MS * NS_PER_MS, on_launch, n, ev->arg);
	else
		exit_later(n, vm, VM_EXIT_CRASH, 0);
}

static void op_start(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);

	check_started(n, vm, v->generation);
	places_starts(n, vm);
	n->run[vm] = (struct run){ .used = true, .number = ++next_number, .generation = v->generation, .term = v->term, .epoch = n->agent->epoch };
	world_post_proc(&n->aproc, 0, on_launch, n, pack(vm, next_number, false, VM_EXIT_CRASH));
}

/* What ran before under nobody's protection is not looked at: from the gate on it is a QEMU like others. */
static void op_take_in(void *edge, const struct vm *v, bool on, uint32_t holder)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);

	if (!on) {
		history_add("node %u: VM %u is not adopted", n->id, vm);
		return;
	}
	op_start(edge, v);
	n->run[vm].foreign = true;
	if (chance(150)) {
		n->run[vm].number = ++next_number; /* something is wrong with it before it is at the gate */
		exit_later(n, vm, chance(500) ? VM_EXIT_REFUSED : VM_EXIT_CRASH, rnd_ms(1, 2000));
	}
}

static void on_take_in(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_TAKE_IN, (unsigned)(ev->arg & 0xff));

	a.ok = ev->arg >> 8 & 1;
	a_event(ev->obj, &a);
}

void agent_edge_take_in(struct node *n, unsigned vm, int64_t delay)
{
	world_post_proc(&n->aproc, delay, on_take_in, n, 1 << 8 | vm);
	if (chance(200)) /* he thinks better of it */
		world_post_proc(&n->aproc, delay + rnd_ms(1, 3000), on_take_in, n, vm);
}

static void op_incoming(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);

	n->run[vm] = (struct run){ .used = true, .incoming = true, .number = ++next_number, .term = agent_term(n->agent), .epoch = n->agent->epoch };
	world_post_proc(&n->aproc, 0, on_launch, n, pack(vm, next_number, false, VM_EXIT_CRASH));
}

static void op_adopt(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);
	struct qemu *q = &n->qemu[vm];

	n->run[vm] = (struct run){ .used = true, .adopted = true, .number = ++next_number, .life = n->qemu[vm].proc.life };
	if (n->qemu[vm].state == QEMU_NONE)
		exit_later(n, vm, VM_EXIT_CRASH, rnd_ms(1, 10));
	else if (qemu_sends(q))
		qemu_cancel(q); /* whoever began it is gone */
}

static struct qemu *qemu_of(struct node *n, const uint8_t uuid[16], bool of_run)
{
	unsigned vm = (unsigned)sim_vm_index(uuid);
	struct qemu *q = &n->qemu[vm];

	if (q->state == QEMU_NONE || (of_run && (!n->run[vm].used || n->run[vm].life != q->proc.life)))
		return NULL;
	return q;
}

static void op_powerdown(void *edge, const struct vm *v)
{
	struct qemu *q = qemu_of(edge, v->def.uuid, true);

	if (!q)
		return;
	q->stopped = true;
	if (!sim.vm[q->vm].deaf)
		qemu_powerdown(q);
}

static void op_quit(void *edge, const struct vm *v)
{
	struct qemu *q = qemu_of(edge, v->def.uuid, true);

	if (q)
		qemu_quit(q);
}

static void on_continued(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_CONTINUED, (unsigned)(ev->arg & 0xff));

	if (((struct node *)ev->obj)->run[ev->arg & 0xff].number == (uint32_t)(ev->arg >> 32))
		a_event(ev->obj, &a);
}

/* QEMU obeys when it gets to it, whatever has become of its guest or of the agent meanwhile. */
static void on_cont(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (ev->arg >> 32 <= q->cont_done)
		return;
	q->cont_done = ev->arg >> 32;
	qemu_cont(q);
	if (q->node->run[q->vm].number == (uint32_t)ev->arg)
		world_post_proc(&q->node->aproc, rnd_ms(1, 20), on_continued, q->node, ev->arg << 32 | q->vm);
}

/* It serves one connection after the other: what an agent that is gone has sent comes before what this one sends. */
static void obey_the_dead(struct qemu *q)
{
	if (q->cont_done == q->cont || q->cont_by == q->node->aproc.life)
		return;
	q->cont_done = q->cont;
	qemu_cont(q);
}

static void op_migrate(void *edge, const struct vm *v)
{
	struct node *n = edge;
	struct qemu *q = qemu_of(n, v->def.uuid, true);

	n->run[sim_vm_index(v->def.uuid)].migration = v->migration.id;
	if (!q)
		return;
	obey_the_dead(q);
	qemu_migrate(q, v->migration.peer, v->migration.id);
}

static void op_migrate_switch(void *edge, const struct vm *v)
{
	struct qemu *q = qemu_of(edge, v->def.uuid, true);

	if (q)
		qemu_switch(q);
}

static void op_migrate_cancel(void *edge, const struct vm *v)
{
	struct qemu *q = qemu_of(edge, v->def.uuid, true);

	if (q)
		qemu_cancel(q);
}

/* QEMU takes its disks again first. While their storage is away it may wait for that, and its path there may take its time by itself. */
static bool waits_for_disks(struct qemu *q)
{
	bool away = !agent_edge_storage(q->node, q->vm);

	if (!q->waits) {
		if (away ? chance(300) : !sim.chaos || lively_ns() > 0 || !chance(30))
			return false;
		q->waits = true;
		q->waits_by = q->node->aproc.life;
		q->waits_ns = sim.now + (away ? 0 : rnd_ms(1000, sim.health ? 4000 : 45000));
		history_add("node %u: VM %u waits for its disks to go on", q->node->id, q->vm);
	}
	q->waits = away || sim.now < q->waits_ns;
	return q->waits;
}

static void on_go_on(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xff);
	struct run *r = &n->run[vm];

	if (!r->used || r->number != (uint32_t)(ev->arg >> 32) || r->life != n->qemu[vm].proc.life)
		n->qemu[vm].waits = false; /* another agent's now, which ends it or finds it as it is */
	else if (waits_for_disks(&n->qemu[vm]))
		world_post_proc(&n->qemu[vm].proc, rnd_ms(100, 1000), on_go_on, n, ev->arg);
	else
		qemu_go_on(&n->qemu[vm], r->generation);
}

static void op_go_on(void *edge, const struct vm *v)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);

	n->run[vm].generation = v->generation;
	world_post_proc(&n->qemu[vm].proc, rnd_ms(1, 10), on_go_on, n, (uint64_t)n->run[vm].number << 32 | vm);
}

static void op_kill(void *edge, const uint8_t uuid[16])
{
	struct node *n = edge;
	struct qemu *q = qemu_of(edge, uuid, false);
	const struct vm *v = agent_vm_by_uuid(n->agent, uuid);

	if (q && v && v->state == VM_RUNNING && v->health.kill_ns != 0)
		check_ended(n, q->vm, v->health.ending);
	/* Not for what it waits for; for a registration that a fault has taken from it it is. */
	if (q && v && q->waits && q->waits_by == n->aproc.life && (v->state == VM_STARTING || v->state == VM_RUNNING) && !q->proc.stopped &&
	    !sim.vm[q->vm].lun.excused[n->id - 1])
		violation("H1", "node %u ends VM %u, which waits for its disks to go on after a migration", n->id, q->vm);
	if (q)
		qemu_kill(q, GONE_DIED);
}

bool agent_edge_storage(const struct node *n, unsigned vm)
{
	const struct target *t = &sim.target[sim.vm[vm].target];

	return !t->hung && !(t->cut >> (n->id - 1) & 1);
}

static void op_reset(void *edge, const struct vm *v)
{
	struct node *n = edge;
	struct qemu *q = qemu_of(n, v->def.uuid, true);

	history_add("node %u: VM %s is reset", n->id, v->def.name);
	if (q)
		q->mute = q->mute && chance(500);
}

static void op_cont(void *edge, const struct vm *v)
{
	struct node *n = edge;
	struct qemu *q = qemu_of(n, v->def.uuid, true);

	history_add("node %u: VM %s is to go on", n->id, v->def.name);
	if (!q)
		return;
	obey_the_dead(q);
	q->cont_by = n->aproc.life;
	world_post_proc(&q->proc, chance(500) ? rnd_ms(1, 20) : rnd_ms(20, 8000), on_cont, q, ++q->cont << 32 | n->run[q->vm].number);
}

static enum guest_run run_of(const struct qemu *q)
{
	if (q->incoming || q->halted)
		return qemu_sent(q) || q->left ? GUEST_SENT : GUEST_BUSY;
	return q->panicked ? GUEST_PANICKED : q->io_error ? GUEST_IO_ERROR : GUEST_RUNS;
}

/* The number of the node that was asked, and what it said. */
static void on_storage(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_STORAGE, (unsigned)(ev->arg & 0xffff));

	a.node = (uint32_t)(ev->arg >> 16 & 0xff);
	a.ok = ev->arg >> 24 & 1;
	a_event(ev->obj, &a);
}

static void op_probe(void *edge, const struct vm *v, bool others)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);
	int64_t there, back;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *o = &sim.node[i];
		uint64_t what = (uint64_t)vm | (uint64_t)o->id << 16 | (uint64_t)agent_edge_storage(o, vm) << 24;

		if (o == n)
			world_post_proc(&n->aproc, rnd_ms(2, 300), on_storage, n, what);
		else if (others && o->a_runs && !o->aproc.stopped && agent_node_usable(o->agent, o->id) && ring_carries(n, o, &there) && ring_carries(o, n, &back))
			world_post_proc(&n->aproc, there + back + rnd_ms(2, 300), on_storage, n, what);
	}
}

static void on_ready(struct sim_event *ev)
{
	struct agent_event a = about(AGENT_EV_READY, (unsigned)(ev->arg & 0xffff));

	a.node = (uint32_t)(ev->arg >> 16 & 0xff);
	a.ready = (enum vm_ready)(ev->arg >> 24);
	places_heard(ev->obj, (unsigned)(ev->arg & 0xffff), a.node);
	a_event(ev->obj, &a);
}

static void health_fact(struct node *n, unsigned vm, enum health_fact fact, enum guest_run run)
{
	struct agent_event a = about(AGENT_EV_HEALTH, vm);

	a.fact = fact;
	a.run = run;
	a.ok = true;
	a_event(n, &a);
}

static void on_capacity(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct agent_event a = places_capacity((uint32_t)ev->arg);

	if (n->a_runs && (n->agent->node[a.node - 1].cpus != a.cpus || n->agent->node[a.node - 1].memory_mib != a.memory_mib))
		a_event(n, &a);
}

static void tell_capacity(struct node *n)
{
	int64_t delay;

	for (unsigned i = 0; i < sim.n_nodes && places_drawn() && n->a_runs && n->have_cat; i++)
		if (&sim.node[i] != n && ring_carries(n, &sim.node[i], &delay))
			world_post_proc(&sim.node[i].aproc, delay, on_capacity, &sim.node[i], n->id);
}

/* What health.c and peers.c of the agent do from time to time. QEMU's state always, as it says what a migration has come to. */
static void look_after(struct node *n)
{
	int64_t delay;

	tell_capacity(n);
	for (unsigned vm = 0; vm < sim.n_vms && n->a_runs; vm++) {
		const struct run *r = &n->run[vm];
		struct qemu *q = &n->qemu[vm];

		if (!r->used || r->life != q->proc.life || q->state != QEMU_RUNS || q->proc.stopped || q->quitting || q->kill_pending || q->waits)
			continue;
		health_fact(n, vm, HEALTH_STATE, run_of(q));
		if (!sim.health || q->halted || !q->live)
			continue;
		if (q->resets)
			health_fact(n, vm, HEALTH_RESET, GUEST_UNKNOWN);
		else if (!q->mute && !q->panicked && !q->io_error)
			health_fact(n, vm, HEALTH_PING, GUEST_UNKNOWN);
	}
	for (unsigned vm = 0; vm < sim.n_vms && n->a_runs && (sim.health || places_drawn()); vm++) {
		const struct vm *v = agent_vm_by_uuid(n->agent, sim.vm[vm].uuid);

		for (unsigned i = 0; i < sim.n_nodes && v && v->state != VM_IDLE; i++)
			if (&sim.node[i] != n && ring_carries(n, &sim.node[i], &delay))
				world_post_proc(&sim.node[i].aproc, delay, on_ready, &sim.node[i],
						(uint64_t)vm | (uint64_t)n->id << 16 | (uint64_t)health_ready(v) << 24);
	}
}

/* What agents ask for names this VM, not one that may have been added since. */
static void ask_about(enum edit_kind kind, const struct vm *v, uint32_t node, uint64_t number)
{
	edit_ask(&(struct edit){ .kind = kind, .vm = (unsigned)sim_vm_index(v->def.uuid), .incarnation = (uint8_t)(v->def.uuid[2] - 1), .node = node, .number = number });
}

/* Of one that failed and stays down an operator hears, and starts it again, sooner or later. */
static void op_guest_off(void *edge, const struct vm *v)
{
	ask_about(EDIT_GUEST_OFF, v, 0, 0);
	if (v->off_failed && chance(300))
		edit_post(EDIT_START, (unsigned)sim_vm_index(v->def.uuid), 0);
}

static void op_forget(void *edge, const struct vm *v) { ask_about(EDIT_FORGET, v, 0, ((struct node *)edge)->agent->lead_generation); }
static void op_move_over(void *edge, const struct vm *v, bool done) { ask_about(EDIT_MOVE_OVER, v, v->def.move.node, v->def.move.number); }

static void op_leave(void *edge, enum leave_policy policy, bool reboot)
{
	struct node *n = edge;

	edit_ask(&(struct edit){ .kind = EDIT_LEAVING, .vm = (unsigned)policy * 2 + reboot, .node = n->id, .number = n->agent->epoch });
}

static void op_stay(void *edge)
{
	struct node *n = edge;

	edit_ask(&(struct edit){ .kind = EDIT_STAY, .node = n->id, .number = n->agent->epoch });
}

static void on_listed(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct agent_event a;

	for (unsigned v = 0; v < sim.n_vms; v++) {
		if (n->qemu[v].state == QEMU_NONE)
			continue;
		a = about(AGENT_EV_FOUND, v);
		a.incoming = n->qemu[v].incoming;
		a_event(n, &a);
	}
	a = (struct agent_event){ .kind = AGENT_EV_LISTED };
	a_event(n, &a);
}

/* Drains. */

static void on_drained(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct agent_event a = about(AGENT_EV_DRAINED, vm);

	if (!n->drain[vm].used || n->drain[vm].number != (uint32_t)(ev->arg >> 32))
		return;
	n->drain[vm].used = false;
	a_event(n, &a);
}

static void probe_done(struct op *op, bool ok, bool definite)
{
	struct node *n = op->node;
	unsigned vm = (unsigned)(op->arg & 0xffff);
	struct drain_job *j = &n->drain[vm];

	if (!j->used || j->answered || j->number != (uint32_t)(op->arg >> 32) || j->tries != (op->arg >> 16 & 0xffff))
		return;
	j->answered = true;
	world_post_proc(&n->aproc, MUTANT(DRAIN_SKIPPED) ? 0 : node_wait(n, keeper_ms(sim.timing.drain_ms)), on_drained, n, op->arg & ~0xffff0000ULL);
}

static void probe_settled(struct op *op, bool completed) {}

static const struct op_calls probe_calls = { probe_done, probe_settled };

/* A session for each try: an answer that comes after its deadline finds nobody. */
static void on_probe(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct drain_job *j = &n->drain[vm];
	struct op *op;

	if (!j->used || j->answered || j->number != (uint32_t)(ev->arg >> 32))
		return;
	j->tries = (j->tries + 1) & 0xffff;
	op = op_new(OP_PROBE, &n->aproc, n, sim.vm[vm].target, &probe_calls, n);
	op->arg = ev->arg | (uint64_t)j->tries << 16;
	op_submit(op);
	world_post_proc(&n->aproc, node_wait(n, keeper_ms(sim.timing.io_ms)) + rnd_ms(100, 400), on_probe, n, ev->arg);
}

static void on_quick(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (disk_host_sends(n))
		world_post_proc(&n->aproc, LOOK_MS * NS_PER_MS, on_quick, n, ev->arg);
	else
		on_drained(ev);
}

static void op_drain(void *edge, const struct vm *v, bool full)
{
	struct node *n = edge;
	unsigned vm = (unsigned)sim_vm_index(v->def.uuid);
	struct drain_job *j = &n->drain[vm];

	*j = (struct drain_job){ .used = true, .number = ++next_number };
	if (full && MUTANT(PROBE_SKIPPED))
		world_post_proc(&n->aproc, node_wait(n, keeper_ms(sim.timing.drain_ms)), on_drained, n, (uint64_t)j->number << 32 | vm);
	else
		world_post_proc(&n->aproc, full && !sim.edges ? rnd_ms(1, 10) : 0, full ? on_probe : v->notes_only ? on_drained : on_quick /* there are no notes here */, n, (uint64_t)j->number << 32 | vm);
}

static void op_reserve(void *edge, const struct vm *v, enum reservation_op op, uint64_t number) { reserve_op(edge, (unsigned)sim_vm_index(v->def.uuid), op, number); }

/* Notes, start and end. */

static const char *const note_text[] = {
	[NOTE_VM_TAKEN_IN] = "adopted on", [NOTE_VM_CLAIMED] = "claimed", [NOTE_VM_BUSY] = "busy, held by", [NOTE_VM_CONFLICT] = "conflict with", [NOTE_VM_STARTED] = "started on",
	[NOTE_VM_RECOVERED] = "recovered on", [NOTE_VM_FAILED] = "failed here too often", [NOTE_VM_RESTART] = "restart here",
	[NOTE_VM_GIVEN_UP] = "claim given up", [NOTE_VM_STOPPING] = "shutting down", [NOTE_VM_STOPPED] = "stopped", [NOTE_VM_REFUSED] = "gate is closed",
	[NOTE_VM_ADOPTED] = "adopted", [NOTE_VM_ALIEN] = "runs without a claim: killed", [NOTE_VM_LOST] = "lost with the lease",
	[NOTE_VM_ASSIGNED] = "assigned to", [NOTE_VM_NO_PLACE] = "no place", [NOTE_LEADER] = "this node leads", [NOTE_NOT_LEADER] = "leads no more",
	[NOTE_VM_MOVING] = "is to be on", [NOTE_VM_STAYS] = "stays, since nobody can take it,", [NOTE_VM_HELD] = "stays, since nobody may have it yet,", [NOTE_VM_MOVED] = "moved to", [NOTE_VM_NOT_MOVED] = "cannot be moved to", [NOTE_VM_ERROR] = "given up for good",
	[NOTE_VM_TROUBLE] = "in trouble", [NOTE_VM_WELL] = "well again", [NOTE_VM_ENDED] = "killed for its health", [NOTE_VM_STAYS_DOWN] = "stays down",
	[NOTE_VM_UNQUIET] = "cannot be proven quiet", [NOTE_VM_NOT_AWAITED] = "waits no longer",
	[NOTE_VM_CONFIRM] = "claimed anew", [NOTE_AGENT_SILENT] = "silent:", [NOTE_AGENT_BACK] = "not silent any more:",
	[NOTE_VM_MIGRATING] = "is sent to", [NOTE_VM_MIGRATED] = "migrated to", [NOTE_VM_NOT_MIGRATED] = "runs on here, not on", [NOTE_VM_HANDED] = "handed to",
	[NOTE_VM_INCOMING] = "waited for from", [NOTE_VM_DISCARDED] = "not taken from", [NOTE_MAINTENANCE_DONE] = "no VM is left on",
};

static void op_note(void *edge, enum agent_note note, const struct vm *v, uint32_t id)
{
	const struct node *n = edge;

	/* Of one that was removed and added again meanwhile a claim may still come; it is not started (check_started). */
	if (v && memcmp(v->def.uuid, sim.vm[sim_vm_index(v->def.uuid)].uuid, 16) != 0)
		return;
	if (note == NOTE_VM_CLAIMED) {
		check_granted(n, (unsigned)sim_vm_index(v->def.uuid), v->generation);
		failover_at(FAILOVER_CLAIMED, (uint32_t)sim_vm_index(v->def.uuid));
	}
	if (note == NOTE_VM_LOST)
		places_lost(n, (unsigned)sim_vm_index(v->def.uuid));
	if (note == NOTE_VM_ASSIGNED)
		places_assigned(n, (unsigned)sim_vm_index(v->def.uuid), id);
	if (note == NOTE_VM_TAKEN_IN)
		edit_post(EDIT_START, (unsigned)sim_vm_index(v->def.uuid), 0); /* as the shell asks for it */
	if (note == NOTE_VM_ADOPTED)
		check_managed(n, (unsigned)sim_vm_index(v->def.uuid), v->generation);
	if ((size_t)note < ARRAY_SIZE(note_text) && note_text[note])
		history_add("node %u: agent: %s %s %u", n->id, v ? v->def.name : "", note_text[note], id);
}

static const struct agent_ops ops = {
	.write = op_write, .read = op_read, .numbered = op_numbered, .facts = op_facts, .assign = op_assign, .drain = op_drain, .start = op_start, .adopt = op_adopt,
	.take_in = op_take_in, .powerdown = op_powerdown, .quit = op_quit, .kill = op_kill, .reset = op_reset, .cont = op_cont, .probe = op_probe,
	.guest_off = op_guest_off, .forget = op_forget, .move_over = op_move_over, .lead = op_lead,
	.prepare = op_prepare, .incoming = op_incoming, .offer = op_offer, .migrate = op_migrate, .migrate_switch = op_migrate_switch,
	.migrate_cancel = op_migrate_cancel, .go_on = op_go_on, .tell = op_tell,
	.lead_checked = op_lead_checked, .leave = op_leave, .stay = op_stay, .reserve = op_reserve, .note = op_note,
};

/* more: as in keeper_edge.c. */
static void a_events(struct node *n, const struct agent_event *ev, bool more)
{
	struct agent_event *copy;

	if (!n->a_runs)
		return;
	if (n->aproc.stopped) {
		if (ev->table || ev->silent || ev->catalog)
			return; /* asked for again */
		copy = malloc(sizeof(*copy));
		CHECK(copy);
		*copy = *ev;
		copy->data = NULL;
		copy->ok = copy->ok && !ev->data;
		world_post(0, on_late_event, copy, (uint64_t)n->id << 32 | n->aproc.life);
		return;
	}
	agent_dispatch(n->agent, ev, node_now(n), &ops, n);
	if (!more || n->aproc.stopped)
		arm_timer(n);
}

static void a_event(struct node *n, const struct agent_event *ev) { a_events(n, ev, false); }
void agent_edge_event(struct node *n, const struct agent_event *ev) { a_events(n, ev, false); }

static void volume_changed(struct client *c, unsigned volume, bool ready)
{
	struct node *n = c->node;
	struct agent_event ev = { .kind = AGENT_EV_VOLUME, .volume = volume, .ok = ready };
	struct agent_options opt = { .self = n->id, .node_limit = sim.n_nodes, .node_max = sim.n_nodes, .n_volumes = sim.n_volumes,
				     .members = (2ULL << (sim.n_nodes - 1)) - 1, .timing = sim.timing,
				     .seq_base = n->a_seq_base, .starts_per_node = sim.health ? 2 : 0, .reserve = sim.reserve };

	if (n->a_runs || client_ready(c) < format_fence_quorum(sim.n_volumes)) {
		a_event(n, &ev);
		return;
	}
	memcpy(opt.cluster, sim.sb[0].cluster, 16);
	places_options(&opt);
	agent_init(n->agent, &opt, node_now(n));
	n->a_runs = true;
	if (places_drawn()) {
		struct agent_event own = places_capacity(n->id);

		a_event(n, &own);
	}
	world_post_proc(&n->aproc, rnd_ms(1, 50), on_listed, n, 0);
	scan(n);
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		ev.volume = v;
		ev.ok = c->session[v].state == SESSION_READY;
		a_event(n, &ev);
	}
	shutdown_agent_starts(n);
}

void agent_edge_start(struct node *n)
{
	proc_start(&n->aproc);
	n->aclient.proc = &n->aproc;
	n->aclient.node = n;
	n->aclient.changed = volume_changed;
	n->aclient.set_changed = set_changed;
	n->a_runs = n->have_cat = n->leading = n->cat_complete = n->cat_scanning = n->cat_again = n->cat_checking = n->cat_writing = false;
	n->a_keeper_life = 0;
	n->a_counter = 0;
	power_forget(n);
	memset(n->a_write_ops, 0, sizeof(n->a_write_ops));
	memset(n->run, 0, sizeof(n->run));
	memset(n->drain, 0, sizeof(n->drain));
	reserve_agent_starts(n);
	n->cat_seq = sim.cat_on_disk[n->id - 1].seq;
	client_open(&n->aclient);
	world_post_proc(&n->aproc, 0, on_tick, n, 0);
}

static void on_dying(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!proc_alive(&n->aproc) || n->aproc.life != ev->arg)
		return;
	agent_edge_crash(n);
	if (!proc_alive(&n->aproc))
		machine_agent_again(n, rnd_ms(50, 500));
}

void agent_edge_crash(struct node *n)
{
	uint32_t life = n->aproc.life;

	if (!proc_alive(&n->aproc))
		return;
	if (disk_stuck(&n->aproc, life)) { /* as in keeper_edge.c */
		proc_stop(&n->aproc, SIM_NEVER / 2);
		world_post(DYING_MS * NS_PER_MS, on_dying, n, life);
		return;
	}
	if (n->cat_writing)
		edit_ask(&n->cat_edit);
	n->a_runs = n->leading = n->cat_writing = false;
	proc_die(&n->aproc);
	disk_writer_gone(n, &n->aproc, life, GONE_DIED);
}
