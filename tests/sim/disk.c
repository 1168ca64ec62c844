/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes and image storage. What an operation goes through:
 *
 *   on this host --arrives--> at the target --executed: lands or is sampled--> stable --answer--> its client
 *
 * A reset, or a session that is destroyed, takes with it what is still on the host (half of what is on the wire gets through). What has arrived lands
 * whenever the target gets to it, unless a later operation shows that the target works: then at most T_drain after that (DESIGN's assumption). What a
 * process that simply died had handed to the kernel is sent on for as long as the host lives. */
#include "agent/base/mutant.h"
#include "tests/sim/sim.h"

#define ASSUMED_DRAIN_PERMILLE 985 /* waiters' clocks may be fast by rho */
#define CONNECT_MS 1000
#define WIRE_US 300
#define BACKOFF_MS 100
#define BACKOFF_MAX_MS 1600
#define SUPERBLOCK_AGAIN_MS 1000

static struct op *free_ops;
static uint64_t next_serial;

static void on_exec(struct sim_event *ev);
static void on_answer(struct sim_event *ev);
static void on_timeout(struct sim_event *ev);
static void session_lost(struct client *c, unsigned volume);

static bool writes_block(const struct op *op) { return op->kind == OP_WRITE_HEARTBEAT || op->kind == OP_WRITE_CLAIMS; }
static bool is_write(const struct op *op) { return writes_block(op) || op->kind == OP_WRITE_IMAGE; }
static bool is_cut(const struct op *op) { return sim.target[op->target].cut >> (op->node->id - 1) & 1; }
static bool arrived(const struct op *op) { return !op->blocked && op->arrive <= sim.now; }

static void link_op(struct op *op)
{
	struct target *t = &sim.target[op->target];

	op->prev = t->last_op;
	op->next = NULL;
	*(op->prev ? &op->prev->next : &t->ops) = op;
	t->last_op = op;
	op->linked = true;
	if (writes_block(op))
		t->writing[op->node->id - 1][op->block->kind]++;
}

static void written(struct op *op)
{
	if (!op->phys_done && op->linked && writes_block(op))
		sim.target[op->target].writing[op->node->id - 1][op->block->kind]--;
	op->phys_done = true;
}

static void op_free(struct op *op)
{
	struct target *t = &sim.target[op->target];

	written(op);
	if (op->linked) {
		if (op->prev)
			op->prev->next = op->next;
		else
			t->ops = op->next;
		if (op->next)
			op->next->prev = op->prev;
		else
			t->last_op = op->prev;
	}
	if (op->orphan)
		t->n_orphans--;
	block_unref(op->block);
	snapshot_free(op->snap);
	op->serial = op->token = 0;
	op->next_free = free_ops;
	free_ops = op;
}

struct op *op_new(enum op_kind kind, struct sim_proc *p, struct node *n, unsigned target, const struct op_calls *calls, void *user)
{
	struct op *op = free_ops;

	if (op)
		free_ops = op->next_free;
	else
		op = pool_alloc(sizeof(*op));
	CHECK(op);
	*op = (struct op){ .kind = kind, .calls = calls, .proc = p, .life = p->life, .node = n, .target = target, .user = user, .serial = ++next_serial };
	return op;
}

static void schedule(struct op *op, int64_t at, sim_fn fn)
{
	op->token = ++next_serial;
	world_post(MAX(at - sim.now, 0), fn, op, op->token);
}

static void stop(struct op *op) { op->token = 0; }

static void need_timeout(struct op *op)
{
	int64_t at;

	if (!op->client || op->timed || op->told)
		return;
	op->timed = true;
	at = op->issued + node_wait(op->node, keeper_ms(sim.timing.io_ms));
	world_post(MAX(at - sim.now, 0), on_timeout, op, op->serial);
}

static int64_t service_ns(const struct target *t)
{
	if (sim.edges)
		return edge_ns(EDGE_STORAGE);
	if (t->slow && chance(t->slow))
		return rnd_ms(sim.timing.io_ms, 3 * sim.timing.io_ms);
	if (t->near_limit)
		return rnd_ms(sim.timing.io_ms / 4, sim.timing.io_ms * 9 / 10);
	return chance(950) ? rnd_us(100, 1000) : rnd_us(1000, 20000);
}

static void go(struct op *op)
{
	struct target *t = &sim.target[op->target];

	op->issued = sim.now;
	op->old = op->client && op->client->old >> op->target & 1;
	op->arrive = sim.now + (sim.edges ? NS_PER_MS / 50 : rnd_us(20, WIRE_US));
	op->exec = op->arrive + service_ns(t);
	check_write_issued(op);
	link_op(op);
	if (is_cut(op))
		op->blocked = true;
	else if (t->hung)
		op->held = true;
	else
		schedule(op, op->exec, on_exec);
	if (op->blocked || op->held || op->exec - op->issued > keeper_ms(sim.timing.io_ms) * 9 / 10)
		need_timeout(op);
}

/* L2 is about a node whose own operations are all well. */
static void hurt_until(const struct client *c, int64_t ns)
{
	if (c == &c->node->kclient)
		c->node->io_hurt_ns = MAX(c->node->io_hurt_ns, ns);
}

static void hurt(const struct client *c) { hurt_until(c, sim.now); }

static void on_refused(struct sim_event *ev)
{
	struct op *op = ev->obj;
	int r = world_for(op->proc, op->life, ev);

	if (r == 0)
		return;
	hurt(op->client);
	if (r > 0 && op->calls) {
		op->calls->done(op, false, true);
		op->calls->settled(op, true);
	}
	op_free(op);
}

void op_submit_session(struct op *op, struct client *c)
{
	op->client = c;
	if (c->session[op->target].state == SESSION_READY)
		go(op);
	else
		world_post(0, on_refused, op, 0);
}

void op_submit(struct op *op) { go(op); }

/* The target has answered something sent at P's time: whatever was orphaned before lands within T_drain. */
static void bound_orphans(struct target *t, const struct op *p)
{
	int64_t limit = sim.now + keeper_ms(sim.timing.drain_ms) * ASSUMED_DRAIN_PERMILLE / 1000;

	for (struct op *o = t->ops; o && t->n_orphans > 0; o = o->next) {
		if (!o->orphan || o == p || o->orphan_at > p->issued || o->land_by <= limit)
			continue;
		o->land_by = limit;
		if (o->exec > limit) {
			o->exec = chance(500) ? limit : sim.now + (int64_t)rnd((uint64_t)(limit - sim.now));
			schedule(o, o->exec, on_exec);
		}
	}
}

static struct volume_data *data_of(const struct op *op) { return op->old ? &sim.target[op->target].old : &sim.target[op->target].data; }

static void land(struct op *op)
{
	struct target *t = &sim.target[op->target];
	struct volume_data *d = data_of(op);

	if (op->kind == OP_WRITE_IMAGE) {
		check_image_landed(op);
		return;
	}
	if (t->shows != FORMAT_OK) {
		damage_foreign_write(op);
		return;
	}
	if (t->misdirect > 0 && !op->orphan) {
		t->misdirect--;
		damage_misdirect(op);
		return;
	}
	/* Not on top of a rotten buffer: two faults at once in one slot are an operator's business. */
	if (op->torn && d->block[op->node->id - 1][op->block->kind][!op->buffer]->status == FORMAT_OK)
		block_tear(d, op->block, op->node->id, op->buffer);
	else
		block_land(d, op->block, op->node->id, op->buffer);
	if (!op->old && op->issued >= t->copied_ns)
		check_landed(op);
}

static void execute(struct op *op)
{
	struct target *t = &sim.target[op->target];
	int64_t late;

	stop(op);
	if (t->n_orphans > 0 && !op->orphan)
		bound_orphans(t, op);
	written(op);
	op->ok = !(is_write(op) ? t->bad_writes : t->bad_reads && t->is_volume);
	if (op->ok && op->kind == OP_WRITE_IMAGE && sim.reserve && reserve_refuses(op))
		op->ok = false;
	if (op->ok && is_write(op))
		land(op);
	if (op->kind == OP_READ_TABLE || op->kind == OP_READ_CLAIMS)
		op->snap = snapshot_take(op->target, data_of(op), op->kind == OP_READ_TABLE ? BLOCK_HEARTBEAT : BLOCK_CLAIMS);
	if (op->snap && t->torn_reads)
		damage_torn_read(op);
	if (!op->ok && (is_write(op) ? t->bad_writes : true))
		chaos_effect(is_write(op) ? t->bad_writes_by : CHAOS_BAD_READS);
	if (!op->calls || op->orphan || op->proc->life != op->life) {
		op_free(op);
		return;
	}
	if (op->client && t->lose_acks && chance(t->lose_acks)) {
		need_timeout(op);
		if (!t->is_path)
			return;
		op->no_path_back = true; /* the kernel tries again for as long as it takes */
		late = sim.now + rnd_ms(1000, 30000);
		hurt_until(op->client, late);
		schedule(op, late, on_answer);
		return;
	}
	if (is_cut(op)) {
		op->no_path_back = true;
		need_timeout(op);
		return;
	}
	schedule(op, sim.now + (sim.edges ? NS_PER_MS / 50 : rnd_us(30, 300)), on_answer);
}

static void on_exec(struct sim_event *ev)
{
	struct op *op = ev->obj;

	if (op->token == ev->arg)
		execute(op);
}

static void on_answer(struct sim_event *ev)
{
	struct op *op = ev->obj;
	int r;

	if (op->token != ev->arg)
		return;
	r = world_for(op->proc, op->life, ev);
	if (r == 0)
		return;
	if (r < 0) {
		op_free(op);
		return;
	}
	/* A process that slept finds the answer and the deadline passed: either may come first. */
	if (op->client && !op->told && sim.now - op->issued > node_wait(op->node, keeper_ms(sim.timing.io_ms)) && chance(500)) {
		bool is_path = sim.target[op->target].is_path;

		session_lost(op->client, op->target);
		if (is_path)
			schedule(op, sim.now, on_answer);
		return;
	}
	if (op->client && !op->ok)
		hurt(op->client);
	stop(op);
	op->in_call = true;
	if (!op->told)
		op->calls->done(op, op->ok, true);
	op->calls->settled(op, true);
	op_free(op);
}

static void on_timeout(struct sim_event *ev)
{
	struct op *op = ev->obj;

	if (op->serial != ev->arg || op->told || !op->calls)
		return;
	if (world_for(op->proc, op->life, ev) <= 0)
		return;
	session_lost(op->client, op->target);
}

static void make_orphan(struct op *op)
{
	struct target *t = &sim.target[op->target];
	unsigned how = (unsigned)rnd(10);

	op->calls = NULL;
	if (op->orphan)
		return;
	op->orphan = true;
	op->orphan_at = MAX(sim.now, op->arrive);
	op->land_by = SIM_NEVER;
	t->n_orphans++;
	if (op->held)
		return;
	if (how >= 5 && !sim.edges)
		op->exec = MAX(sim.now, op->arrive) + (how < 8 ? rnd_ms(0, 5000) : rnd_ms(1000, 60000));
	schedule(op, op->exec, on_exec);
}

/* Still in the host's send queue, perhaps between two retransmissions. */
static bool on_host(const struct op *op) { return op->blocked || op->arrive > sim.now + WIRE_US * 1000; }

/* Nobody waits for it any more and the host sends nothing more of it. */
static void abandon(struct op *op, bool reset)
{
	if (op->phys_done || !is_write(op) || on_host(op) || (!arrived(op) && chance(500))) {
		op_free(op);
		return;
	}
	if (reset && op->kind != OP_WRITE_IMAGE && chance(200))
		op->torn = 1;
	make_orphan(op);
}

void op_cancel(struct op *op)
{
	op->calls = NULL;
	if (!is_write(op))
		op_free(op);
}

static void session_try(struct sim_event *ev);

static void session_lost(struct client *c, unsigned volume)
{
	struct target *t = &sim.target[volume];
	struct session *s = &c->session[volume];
	struct op *all[64];
	unsigned n = 0;

	hurt(c);
	s->state = SESSION_DOWN;
	s->wait_ns = BACKOFF_MS * NS_PER_MS;
	for (struct op *op = t->ops; op; op = op->next) {
		if (op->client != c || op->life != c->proc->life || op->told || !op->calls)
			continue;
		CHECK(n < ARRAY_SIZE(all));
		all[n++] = op;
	}
	for (unsigned i = 0; i < n; i++) {
		struct op *op = all[i];

		op->told = true;
		op->calls->done(op, false, false);
		if (t->is_path)
			continue; /* the system call has not returned */
		op->calls->settled(op, false);
		abandon(op, false);
	}
	c->changed(c, volume, false);
	world_post_proc(c->proc, s->wait_ns, session_try, c, volume);
}

/* As storage/volset.c judges the superblock it has read. While no quorum has agreed it is kept, and whoever completes the quorum goes on for all. */
static bool joins_set(struct client *c, unsigned v)
{
	const struct target *t = &sim.target[v];
	const struct volume_data *d = c->old >> v & 1 ? &t->old : &t->data;
	unsigned agree = 0;

	c->has_sb[v] = d->sb == FORMAT_OK && t->shows == FORMAT_OK;
	if (c->has_sb[v] && c->known && !MUTANT(SET_CHANGE_UNSEEN) && d->super.generation > c->set.generation)
		c->set_changed(c->node);
	c->has_sb[v] = c->has_sb[v] && !d->super.frozen;
	if (!c->has_sb[v])
		return false;
	c->sb[v] = d->super;
	if (c->known)
		return superblock_same_set(&c->sb[v], &c->set);
	for (unsigned i = 0; i < sim.n_volumes; i++)
		agree += c->has_sb[i] && superblock_same_set(&c->sb[i], &c->sb[v]);
	return agree >= format_fence_quorum(sim.n_volumes);
}

static void session_try(struct sim_event *ev)
{
	struct client *c = ev->obj;
	unsigned v = (unsigned)ev->arg;
	struct session *s = &c->session[v];
	struct target *t = &sim.target[v];
	int64_t again = CONNECT_MS * NS_PER_MS + s->wait_ns;

	if (s->state == SESSION_READY)
		return;
	if (t->hung || t->cut >> (c->node->id - 1) & 1 || t->bad_reads) {
		c->has_sb[v] = false;
		s->wait_ns = MIN(2 * s->wait_ns, BACKOFF_MAX_MS * NS_PER_MS);
		world_post_proc(c->proc, t->bad_reads ? SUPERBLOCK_AGAIN_MS * NS_PER_MS : again, session_try, c, v);
		return;
	}
	if (!joins_set(c, v)) {
		world_post_proc(c->proc, SUPERBLOCK_AGAIN_MS * NS_PER_MS, session_try, c, v);
		return;
	}
	s->wait_ns = BACKOFF_MS * NS_PER_MS;
	if (c->known) {
		s->state = SESSION_READY;
		c->changed(c, v, true);
		return;
	}
	c->known = true;
	c->set = c->sb[v];
	for (unsigned i = 0; i < sim.n_volumes; i++)
		if (c->has_sb[i] && superblock_same_set(&c->sb[i], &c->set))
			c->session[i].state = SESSION_READY;
	for (unsigned i = 0; i < sim.n_volumes; i++)
		if (c->session[i].state == SESSION_READY)
			c->changed(c, i, true);
}

void client_open(struct client *c)
{
	c->old = 0;
	c->known = false;
	memset(c->has_sb, 0, sizeof(c->has_sb));
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		c->session[v] = (struct session){ SESSION_DOWN, BACKOFF_MS * NS_PER_MS };
		world_post_proc(c->proc, rnd_ms(1, 20), session_try, c, v);
	}
}

unsigned client_ready(const struct client *c)
{
	unsigned n = 0;

	for (unsigned v = 0; v < sim.n_volumes; v++)
		n += c->session[v].state == SESSION_READY;
	return n;
}

static void on_give_up_sending(struct sim_event *ev)
{
	struct op *op = ev->obj;

	if (op->serial == ev->arg && op->sending && op->blocked)
		op_free(op);
}

/* The process is gone, not its host: the kernel goes on sending what it was given. */
static void leave_to_kernel(struct op *op)
{
	struct target *t = &sim.target[op->target];

	if (op->phys_done || !is_write(op)) {
		op_free(op);
		return;
	}
	if (arrived(op)) {
		make_orphan(op);
		return;
	}
	op->calls = NULL;
	op->orphan = op->sending = true;
	op->orphan_at = op->blocked ? SIM_NEVER : op->arrive;
	op->land_by = SIM_NEVER;
	t->n_orphans++;
	if (op->blocked)
		world_post(rnd_ms(20000, 100000), on_give_up_sending, op, op->serial);
}

void disk_writer_gone(struct node *n, const struct sim_proc *p, uint32_t life, enum gone how)
{
	for (unsigned t = 0; t < sim.n_targets; t++) {
		struct op *next;

		for (struct op *op = sim.target[t].ops; op; op = next) {
			next = op->next;
			if (op->in_call || op->node != n || (p && (op->proc != p || op->life != life)))
				continue;
			if (op->orphan) {
				if (how == GONE_RESET && op->sending && !arrived(op))
					op_free(op);
				continue;
			}
			/* The daemons' own connections are reset when they close, however that comes. */
			if (how == GONE_DIED && (sim.target[t].is_path || (p != &n->kproc && p != &n->aproc)))
				leave_to_kernel(op);
			else
				abandon(op, how == GONE_RESET);
		}
	}
}

bool disk_host_sends(const struct node *n)
{
	for (unsigned t = 0; t < sim.n_targets; t++)
		for (const struct op *op = sim.target[t].ops; op; op = op->next)
			if (op->node == n && op->sending && !arrived(op))
				return true;
	return false;
}

unsigned disk_pending(const struct sim_proc *p, uint32_t life)
{
	unsigned n = 0;

	for (unsigned t = 0; t < sim.n_targets; t++)
		for (const struct op *op = sim.target[t].ops; op; op = op->next)
			n += op->proc == p && op->life == life && !op->orphan && !op->phys_done;
	return n;
}

bool disk_stuck(const struct sim_proc *p, uint32_t life)
{
	for (unsigned t = 0; t < sim.n_targets; t++)
		for (const struct op *op = sim.target[t].ops; op && sim.target[t].is_path; op = op->next)
			if (op->proc == p && op->life == life && !op->phys_done)
				return true;
	return false;
}

void target_hang(unsigned i, bool on)
{
	struct target *t = &sim.target[i];
	struct op *next;

	if (t->hung == on)
		return;
	t->hung = on;
	t->hung_ns = on ? sim.now : 0;
	for (struct op *op = t->ops; op; op = next) {
		next = op->next;
		if (op->phys_done || op->blocked)
			continue;
		if (!on) {
			op->held = false;
			op->exec = MAX(sim.now, op->arrive) + rnd_us(50, 20000);
			schedule(op, op->exec, on_exec);
		} else if (op->orphan && op->land_by != SIM_NEVER) {
			execute(op); /* it was promised to land by then */
		} else {
			op->held = true;
			stop(op);
			need_timeout(op);
		}
	}
}

static void cut_op(struct op *op)
{
	if (op->phys_done && op->token) {
		op->no_path_back = true;
		stop(op);
		need_timeout(op);
	} else if (!op->phys_done && op->arrive > sim.now && !op->blocked) {
		op->blocked = true;
		op->held = false;
		if (op->orphan)
			op->orphan_at = SIM_NEVER;
		stop(op);
		need_timeout(op);
	}
}

static void mend_op(struct op *op)
{
	struct target *t = &sim.target[op->target];

	if (op->no_path_back) {
		op->no_path_back = false;
		schedule(op, sim.now + rnd_ms(1, 400), on_answer);
	} else if (op->blocked) {
		op->blocked = false;
		op->arrive = sim.now + rnd_ms(1, 400); /* the next retransmission */
		op->exec = op->arrive + service_ns(t);
		if (op->orphan)
			op->orphan_at = op->arrive;
		op->held = t->hung;
		if (!t->hung)
			schedule(op, op->exec, on_exec);
	}
}

void target_cut(unsigned i, uint32_t node, bool on)
{
	struct target *t = &sim.target[i];
	uint64_t bit = 1ULL << (node - 1);

	if (((t->cut & bit) != 0) == on)
		return;
	t->cut ^= bit;
	for (struct op *op = t->ops; op; op = op->next) {
		if (op->node->id != node)
			continue;
		if (on)
			cut_op(op);
		else
			mend_op(op);
	}
}

void target_acks(unsigned i)
{
	sim.target[i].lose_acks = 0;
	for (struct op *op = sim.target[i].ops; op; op = op->next) {
		if (!op->no_path_back)
			continue;
		op->node->io_hurt_ns = MIN(op->node->io_hurt_ns, sim.now);
		mend_op(op);
	}
}

void disk_reset(void)
{
	damage_reset();
	volset_reset();
	chaos_reset();
	for (unsigned i = 0; i < SIM_MAX_TARGETS; i++) {
		struct target *t = &sim.target[i];

		while (t->ops)
			op_free(t->ops);
		for (unsigned n = 0; n < SIM_MAX_NODES; n++)
			for (unsigned k = 0; k < 2; k++)
				for (unsigned b = 0; b < 2; b++)
					block_unref(t->data.block[n][k][b]);
		*t = (struct target){ 0 };
	}
	next_serial = 0;
}
