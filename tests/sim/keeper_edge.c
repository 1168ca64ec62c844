/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What fence/keeper*.c does for the keeper core: one function here for each operation there. */
#include <stdio.h>

#include "agent/base/mutant.h"
#include "tests/sim/sim.h"

#define DYING_MS 10
#define KILL_AGAIN_MS 10
#define KEEPER_WRITE_OPS 2
#define FOLLOW_MS 500

static void k_event(struct node *n, const struct keeper_event *ev);
static void k_events(struct node *n, const struct keeper_event *ev, bool more);
static void start_core(struct node *n);

/* Events that meet the process while it is stopped wait in its sockets and timers. */
static void on_late_event(struct sim_event *ev)
{
	struct keeper_event *k = ev->obj;
	struct node *n = sim_node((uint32_t)(ev->arg >> 32));
	int r = world_for(&n->kproc, (uint32_t)ev->arg, ev);

	if (r == 0)
		return;
	/* Where things stand by now: what came first in this process' sockets may have been handed on before this. */
	if (k->kind == KEEPER_EV_RING) {
		k->ok = n->ring_up;
		k->view = n->ring_view;
	} else if (k->kind == KEEPER_EV_VOLUME) {
		k->ok = n->kclient.session[k->volume].state == SESSION_READY;
	}
	if (r > 0)
		k_event(n, k);
	free(k);
}

static void on_timer(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct keeper_event k = { .kind = KEEPER_EV_TIMER };

	if (ev->arg == n->k_timer.number)
		k_event(n, &k);
}

static void arm_timer(struct node *n)
{
	int64_t at = keeper_deadline(n->keeper), wait = at == INT64_MAX ? SIM_S : MAX(at - node_now(n), 0);

	timer_set(&n->k_timer, &n->kproc, sim.now + node_wait(n, wait), on_timer, n);
}

/* Storage. */

static void k_volume_event(struct op *op, enum keeper_event_kind kind, bool ok, bool definite, const void *data)
{
	struct keeper_event ev = { .kind = kind, .volume = op->target, .ok = ok, .definite = definite, .data = data };

	/* An answer is said to be done, and then settled, at one moment. */
	k_events(op->node, &ev, op->in_call && (kind == KEEPER_EV_WRITE_DONE || kind == KEEPER_EV_READ_DONE));
}

static void write_done(struct op *op, bool ok, bool definite)
{
	struct node *n = op->node;

	if (ok && block_seq(op->block) == n->oracle_seq) {
		n->oracle[op->target].acked = true;
		n->oracle[op->target].acked_ns = sim.now;
	}
	k_volume_event(op, KEEPER_EV_WRITE_DONE, ok, definite, NULL);
}

static void write_settled(struct op *op, bool completed)
{
	op->node->k_write_ops[op->target]--;
	k_volume_event(op, KEEPER_EV_WRITE_SETTLED, completed, false, NULL);
}

static void read_done(struct op *op, bool ok, bool definite)
{
	struct node *n = op->node;

	if (ok) {
		n->oracle[op->target].read = true;
		n->oracle[op->target].read_issued = op->issued;
		n->table_read[op->target] = node_now(n) - (sim.now - op->issued);
	}
	k_volume_event(op, KEEPER_EV_READ_DONE, ok, definite, ok ? snapshot_use(op->snap, BLOCK_HEARTBEAT) : NULL);
	if (ok && n->k_runs && !n->kproc.stopped)
		check_read(n, op, n->keeper->volume[op->target].read_ok ? ~n->keeper->volume[op->target].unread : 0);
}

static void read_settled(struct op *op, bool completed) { k_volume_event(op, KEEPER_EV_READ_SETTLED, completed, false, NULL); }

static const struct op_calls write_calls = { write_done, write_settled };
static const struct op_calls read_calls = { read_done, read_settled };

static void late_submit(struct sim_event *ev)
{
	struct op *op = ev->obj;
	int r = world_for(op->proc, op->life, ev);

	if (r > 0)
		op_submit_session(op, &op->node->kclient);
	else if (r < 0)
		op_cancel(op);
}

/* A process that was stopped before this effect of a step carries it out when it goes on. */
static void submit(struct node *n, struct op *op)
{
	if (proc_stalls(&n->kproc))
		world_post(0, late_submit, op, 0);
	else
		op_submit_session(op, &n->kclient);
}

static void no_buffer(struct sim_event *ev)
{
	struct keeper_event k = { .kind = KEEPER_EV_WRITE_DONE, .volume = (unsigned)ev->arg, .definite = true };

	k_event(ev->obj, &k);
}

static void op_write(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block)
{
	struct node *n = edge;
	struct op *op;

	if (n->k_write_ops[volume] == KEEPER_WRITE_OPS) {
		world_post_proc(&n->kproc, 0, no_buffer, n, volume);
		return;
	}
	n->k_write_ops[volume]++;
	op = op_new(OP_WRITE_HEARTBEAT, &n->kproc, n, volume, &write_calls, n);
	op->block = block_of_heartbeat(block);
	op->buffer = buffer;
	if (n->oracle_seq != block->seq) {
		n->oracle_seq = block->seq;
		for (unsigned v = 0; v < sim.n_volumes; v++)
			n->oracle[v].acked = n->oracle[v].read = false;
	}
	submit(n, op);
}

static void op_read(void *edge, unsigned volume)
{
	struct node *n = edge;

	submit(n, op_new(OP_READ_TABLE, &n->kproc, n, volume, &read_calls, n));
}

/* The watchdog: bites T_wd after the last pet, up to its granularity later; the reset takes the rest of its declared delay. */

static void on_wd_reset(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!n->up || !n->wd.running || ev->arg != n->wd.timer.number)
		return;
	check_watchdog_reset(n);
	sim.stats.resets++;
	machine_reset(n, "watchdog", chance(300) ? rnd_ms(2000, 6000) : rnd_ms(10000, 60000));
}

static bool wd_none(const struct node *n) { return sim.unproven >> (n->id - 1) & 1; }

static void wd_pet(struct node *n)
{
	int64_t delay = keeper_ms(sim.timing.wd_delay_ms), grain = (int64_t)rnd((uint64_t)delay), rest = (int64_t)rnd((uint64_t)(delay - grain));

	if (n->wd.running && sim.now >= n->wd.fires)
		return; /* it has bitten already, the reset is on its way */
	if (chance(200) || n->brinks > 0) {
		grain = delay;
		rest = 0;
	}
	n->wd.pet_ns = sim.now;
	if (wd_none(n))
		return;
	n->wd.fires = sim.now + node_wait(n, keeper_ms(sim.timing.wd_ms) + grain);
	timer_set(&n->wd.timer, NULL, n->wd.fires + node_wait(n, rest), on_wd_reset, n);
}

static bool close_pets(const struct node *n) { return sim.close_pets >> (n->id - 1) & 1; }

/* I2: systemd holds the descriptor, so the end of the process is not its last close. */
static void wd_closed(struct node *n)
{
	if (MUTANT(WATCHDOG_UNHELD) && n->wd.running && close_pets(n))
		wd_pet(n);
}

/* One that hangs is killed, by systemd. */
static void on_hung(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!proc_alive(&n->kproc) || n->kproc.life != ev->arg)
		return;
	keeper_edge_crash(n);
	machine_keeper_again(n, rnd_ms(50, 500));
}

static void late_pet(struct sim_event *ev)
{
	struct node *n = ev->obj;

	wd_pet(n);
	if (n->brinks == 1) {
		proc_stop(&n->kproc, 2 * keeper_ms(sim.timing.w_ms)); /* that was the last one */
		if (close_pets(n) && n->wd.running && n->wd.fires != SIM_NEVER)
			world_post(MAX(n->wd.fires - sim.now - (int64_t)(5 * NS_PER_MS), 0), on_hung, n, n->kproc.life);
	}
	n->brinks -= n->brinks > 0;
}

/* The worst a stalled keeper can do: it pets at the last moment before its watchdog bites, and then stands still. W is made for it. */
static void go_to_the_brink(struct node *n)
{
	int64_t early;

	if (n->brinks == 0 || !n->wd.running || n->wd.fires == SIM_NEVER || n->wd.fires <= sim.now)
		return;
	early = rnd_us(1, 5000); /* drawn once: MAX() would do so twice */
	proc_stop(&n->kproc, MAX(n->wd.fires - sim.now - early, 0));
}

static void op_pet(void *edge)
{
	struct node *n = edge;

	check_pet(n);
	go_to_the_brink(n);
	if (proc_stalls(&n->kproc))
		world_post_proc(&n->kproc, 0, late_pet, n, 0);
	else
		wd_pet(n);
}

static void on_watchdog(struct sim_event *ev)
{
	struct keeper_event k = { .kind = KEEPER_EV_WATCHDOG, .ok = ev->arg };

	k_event(ev->obj, &k);
}

/* A driver may refuse to start: taken away, or open elsewhere. */
#define WD_REFUSES_PERMILLE 50

static void do_watchdog(struct node *n, bool start)
{
	check_watchdog(n, start);
	if (start && !sim.edges && chance(WD_REFUSES_PERMILLE)) {
		world_post_proc(&n->kproc, 0, on_watchdog, n, 0);
		return;
	}
	if (start) {
		n->wd.running = true;
		n->wd.fires = SIM_NEVER;
		wd_pet(n);
	} else if (n->wd.running && sim.now < n->wd.fires) {
		n->wd.running = false;
	}
	world_post_proc(&n->kproc, 0, on_watchdog, n, 1);
}

static void late_watchdog(struct sim_event *ev) { do_watchdog(ev->obj, ev->arg); }

static void op_watchdog(void *edge, bool start)
{
	struct node *n = edge;

	if (proc_stalls(&n->kproc))
		world_post_proc(&n->kproc, 0, late_watchdog, n, start);
	else
		do_watchdog(n, start);
}

/* The VM slice. */

static unsigned slice_count(const struct node *n)
{
	unsigned c = 0;

	for (unsigned v = 0; v < sim.n_vms; v++)
		c += MUTANT(LAUNCHERS_MISSED) ? n->qemu[v].state == QEMU_RUNS : n->qemu[v].state != QEMU_NONE;
	return c;
}

static void kill_round(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct keeper_event k = { .kind = KEEPER_EV_SILENT };

	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state != QEMU_NONE && !(MUTANT(LAUNCHERS_MISSED) && n->qemu[v].state == QEMU_ALLOWED))
			qemu_kill(&n->qemu[v], MUTANT(SILENCE_UNPROVEN) ? GONE_DIED : GONE_SILENCED);
	if (disk_host_sends(n))
		n->kproc.hurt_ns = sim.now; /* L4: a reset that comes of this wait is as it should be */
	if (slice_count(n) > 0 || (disk_host_sends(n) && !MUTANT(SILENCE_UNPROVEN))) {
		world_post_proc(&n->kproc, KILL_AGAIN_MS * NS_PER_MS, kill_round, n, 0);
		return;
	}
	n->k_killing = false;
	if (n->k_kill_start) {
		if (n->wd.running && sim.now < n->wd.fires)
			n->wd.running = false;
		n->k_kill_start = false;
		n->k_clean = true;
		start_core(n);
		return;
	}
	history_add("node %u: every VM process is proven gone", n->id);
	k_event(n, &k);
}

static void begin_kill(struct node *n, bool at_start)
{
	n->k_kill_start = at_start;
	if (!n->k_killing)
		world_post_proc(&n->kproc, 0, kill_round, n, 0);
	n->k_killing = true;
}

static void op_kill(void *edge) { begin_kill(edge, false); }

static void on_processes(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct keeper_event k = { .kind = KEEPER_EV_PROCESSES, .processes = &n->k_processes };

	if (n->k_processes.number == (uint32_t)ev->arg)
		k_event(n, &k);
}

/* A launcher in the slice counts, too: nobody tells it from QEMU. */
static void op_processes(void *edge, uint32_t number)
{
	struct node *n = edge;

	n->k_processes = (struct keeper_processes){ .number = number, .known = !disk_host_sends(n) };
	for (unsigned v = 0; v < sim.n_vms; v++) {
		uint8_t uuid[16];

		if (n->qemu[v].state == QEMU_NONE)
			continue;
		memcpy(uuid, sim.vm[v].uuid, 16);
		uuid[2] = (uint8_t)(n->qemu[v].stamp.incarnation + 1); /* of a VM that was added again it may be the one before */
		n->k_processes.mark[n->k_processes.n++] = format_vm_mark(uuid);
	}
	world_post_proc(&n->kproc, 0, on_processes, n, number);
}

/* Ring. */

static void on_bell(struct sim_event *ev)
{
	struct keeper_event k = { .kind = KEEPER_EV_BELL };

	k_event(ev->obj, &k);
}

static void op_bell(void *edge)
{
	struct node *n = edge;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *o = &sim.node[i];
		int64_t delay;

		if (o != n && proc_alive(&o->kproc) && ring_carries(n, o, &delay))
			world_post_proc(&o->kproc, delay, on_bell, o, 0);
	}
}

/* A message on its way. */
struct hold_mail { struct hold_msg msg; struct node *from; struct hold_mail *next; };
static struct hold_mail *spare_mail;

static void on_hold_mail(struct sim_event *ev)
{
	struct hold_mail *m = ev->obj;
	struct node *n = sim_node((uint32_t)ev->arg);
	struct keeper_event k = { .kind = KEEPER_EV_HOLD, .hold = m->msg };

	m->next = spare_mail;
	spare_mail = m;
	if (proc_alive(&n->kproc))
		k_event(n, &k);
}

static struct hold_mail *mail_new(struct node *from, const struct hold_msg *msg)
{
	struct hold_mail *m = spare_mail;

	if (m)
		spare_mail = m->next;
	else
		m = pool_alloc(sizeof(*m));
	*m = (struct hold_mail){ .msg = *msg, .from = from };
	return m;
}

static void send_hold(struct node *n, const struct hold_msg *msg)
{
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *o = &sim.node[i];
		int64_t delay;

		/* What was sent may well reach the next process there: nothing says for which it was. */
		if (o != n && proc_alive(&o->kproc) && ring_carries(n, o, &delay))
			world_post(delay, on_hold_mail, mail_new(n, msg), o->id);
	}
}

static void late_hold(struct sim_event *ev)
{
	struct hold_mail *m = ev->obj;
	struct node *n = m->from;
	int r = world_for(&n->kproc, (uint32_t)ev->arg, ev);

	if (r == 0)
		return;
	if (r > 0)
		send_hold(n, &m->msg);
	m->next = spare_mail;
	spare_mail = m;
}

static void op_hold(void *edge, const struct hold_msg *msg)
{
	struct node *n = edge;

	if (msg->kind == HOLD_GRANT)
		check_grant(n, msg);
	if (proc_stalls(&n->kproc))
		world_post(0, late_hold, mail_new(n, msg), n->kproc.life);
	else
		send_hold(n, msg);
}

void keeper_edge_ring(struct node *n, bool up, uint64_t view)
{
	struct keeper_event k = { .kind = KEEPER_EV_RING, .ok = up, .view = view };

	n->ring_up = up;
	n->ring_view = view;
	k_event(n, &k);
}

/* The agent. */

static void fill_node(const struct keeper *k, uint32_t id, struct keeper_table_node *ret)
{
	const struct table_node *t = &k->node[id - 1];
	bool self = id == k->opt.self;

	*ret = (struct keeper_table_node){
		.epoch = self ? k->epoch : t->hb.epoch,
		.over = self ? (k->epoch ? k->epoch - 1 : 0) : t->over_published,
		.known = self || t->known,
		.fresh = self ? keeper_gate_open(k, k->epoch, k->now_ns) : t->fresh,
		.state = self ? k->mine.state : t->hb.state,
		.ring = self ? k->ring : t->hb.ring,
		.reason = t->reason,
		.committed = k->mine.commit[id - 1] != 0 ? 2 : k->mine.intent[id - 1] != 0,
		.in_view = k->ring_up && (k->view >> (id - 1) & 1),
		.agent_counter = self ? k->agent.counter : t->hb.agent_counter,
		.claims_seq = self ? k->agent.claims_seq : t->hb.claims_seq,
		.catalog_generation = self ? k->agent.catalog_generation : t->hb.catalog_generation,
		.catalog_seq = self ? k->agent.catalog_seq : t->hb.catalog_seq,
		.silent_seq = !self && t->known && t->hb.silent ? t->hb.seq : 0,
		.asked_epoch = t->asked.epoch,
		.asked_seq = t->asked.seq,
	};
}

static void tell_silent(struct node *n, const struct heartbeat *hb)
{
	struct table_msg *t = table_msg_new();
	struct keeper_silent *s = &t->msg.silent;

	t->msg.kind = KEEPER_MSG_SILENT;
	*s = (struct keeper_silent){ .node = hb->node, .epoch = hb->epoch, .seq = hb->seq, .n = hb->n_marks };
	memcpy(s->mark, hb->mark, sizeof(s->mark));
	agent_edge_table(n, t);
}

static void tell(struct node *n)
{
	const struct keeper *k = n->keeper;
	struct table_msg *t;
	struct keeper_msg *m;

	if (n->k_agent_life != n->aproc.life || !proc_alive(&n->aproc))
		return;
	for (uint32_t id = 1; n->k_runs && id <= sim.n_nodes; id++)
		if (id != n->id && k->node[id - 1].known && k->node[id - 1].hb.silent)
			tell_silent(n, &k->node[id - 1].hb);
	t = table_msg_new();
	m = &t->msg;
	memset(m, 0, offsetof(struct keeper_msg, table.node) + sim.n_nodes * sizeof(m->table.node[0]));
	m->kind = KEEPER_MSG_TABLE;
	m->table.at_ns = node_now(n);
	m->table.self = n->id;
	m->table.n_volumes = sim.n_volumes;
	m->table.vms = (int32_t)slice_count(n);
	if (n->k_runs) {
		m->table.node_limit = k->opt.node_limit;
		m->table.set_generation = k->opt.set.generation;
		m->table.epoch = k->published ? k->epoch : 0;
		m->table.state = k->state;
		m->table.gate_open = keeper_gate_open(k, k->epoch, k->now_ns) && !n->k_stopping;
		m->table.gate_term = m->table.gate_open ? k->gate.term : 0;
		m->table.read_seq = k->read_seq;
		m->table.release_reason = k->release;
		m->table.release_by = k->release_by;
		m->table.want_armed = k->want_armed;
		m->table.wd_running = k->wd_running;
		m->table.holding = k->hold.since_ns != 0;
		m->table.observed = k->last_observed_ns != 0;
		m->table.ring = k->ring;
		m->table.view = k->view;
		m->table.braked = k->braked;
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			fill_node(k, id, &m->table.node[id - 1]);
	}
	agent_edge_table(n, t);
}

static void op_tell(void *edge, const struct keeper *k) { tell(edge); }

static void op_save(void *edge, const struct keeper *k)
{
	struct node *n = edge;

	n->saved.valid = true;
	n->saved.epoch = k->epoch;
	n->saved.seq = k->seq;
	n->saved.state = k->state;
	memcpy(n->saved.life, k->mine.life, 16);
}

static void on_exit_now(struct sim_event *ev)
{
	struct node *n = ev->obj;

	history_add("node %u: keeper has left", n->id);
	keeper_edge_crash(n);
	machine_keeper_again(n, rnd_ms(500, 20000));
}

static void op_exit(void *edge) { world_post_proc(&((struct node *)edge)->kproc, 0, on_exit_now, edge, 0); }

/* A new volume set is for a new process. */
static void on_follow(struct sim_event *ev)
{
	struct node *n = ev->obj;
	enum lease_state s = n->keeper->state;

	if (s == LEASE_ARMED || s == LEASE_DISARMING || s == LEASE_RELEASING) {
		world_post_proc(&n->kproc, FOLLOW_MS * NS_PER_MS, on_follow, n, 0);
		return;
	}
	history_add("node %u: its keeper starts again with another volume set", n->id);
	keeper_edge_crash(n);
	machine_keeper_again(n, rnd_ms(20, 300));
}

static void set_changed(struct node *n)
{
	if (n->k_set_changed)
		return;
	n->k_set_changed = true;
	world_post_proc(&n->kproc, rnd_ms(0, FOLLOW_MS), on_follow, n, 0);
}

static void op_note(void *edge, enum keeper_note note, uint32_t id, uint32_t arg)
{
	struct node *n = edge;
	uint32_t self = n->id;

	switch (note) {
	case NOTE_STATE:
		history_add("node %u: %s, epoch %u", self, lease_state_name((enum lease_state)arg), n->keeper->epoch);
		check_state(n, arg);
		break;
	case NOTE_RELEASE:
		sim.stats.releases++;
		history_add("node %u: releases epoch %u: %s, by %u", self, n->keeper->epoch, release_reason_text((enum release_reason)arg), id);
		check_release(n, id, arg);
		break;
	case NOTE_INTENT:
		history_add("node %u: wants to fence %u: %s", self, id, fence_reason_text((enum fence_reason)arg));
		check_intent(n, id, arg);
		break;
	case NOTE_WITHDRAWN:
		history_add("node %u: withdraws its intent against %u", self, id);
		break;
	case NOTE_COMMIT:
		sim.stats.commits++;
		history_add("node %u: commits against %u: %s", self, id, fence_reason_text((enum fence_reason)arg));
		check_commit(n, id, arg);
		failover_at(FAILOVER_FENCED, id);
		break;
	case NOTE_OVER:
		history_add("node %u: epoch %u of %u is over", self, arg, id);
		check_over(n, id, arg);
		failover_at(FAILOVER_OVER, id);
		break;
	case NOTE_NODE_ALIVE:
		history_add("node %u: sees %u alive, epoch %u", self, id, arg);
		break;
	case NOTE_NODE_STALE:
		history_add("node %u: %u stands still", self, id);
		failover_at(FAILOVER_SILENT, id);
		break;
	case NOTE_VOLUME_FAULT:
		history_add("node %u: volume %u not used any more: %s", self, id, volume_fault_text((enum volume_fault)arg));
		if (arg == FAULT_CHANGED)
			set_changed(n);
		break;
	case NOTE_GAP:
		history_add("node %u: %u ms between two reads", self, arg);
		break;
	case NOTE_WD_FAILED:
		history_add("node %u: watchdog failed", self);
		break;
	case NOTE_EVIDENCE:
		sim.stats.proofs[arg]++;
		check_proof(n, id);
		history_add("node %u: node %u is proven over: %s", self, id, fence_evidence_text((enum fence_evidence)arg));
		break;
	case NOTE_EVIDENCE_VOID:
		history_add("node %u: evidence %u about node %u is void", self, arg, id);
		break;
	case NOTE_REFUSED:
		history_add("node %u: an operator's word about node %u is refused: %s", self, id, fence_refusal_text((enum fence_refusal)arg));
		break;
	case NOTE_BRAKE:
		history_add("node %u: brake: %u suspect", self, arg);
		break;
	case NOTE_EPOCHS_SPENT:
		history_add("node %u: no epoch is left", self);
		break;
	case NOTE_FOREIGN_OWNER:
		history_add("node %u: slot of another host", self);
		break;
	case NOTE_SILENT:
		sim.stats.silences += arg;
		history_add("node %u: its agent %s", self, arg ? "is silent: the gate closes" : "is heard again");
		break;
	case NOTE_HOLD:
		sim.stats.holds += arg;
		history_add("node %u: a hold %s", self, arg ? "begins" : "is over");
		break;
	}
}

static const struct keeper_ops ops = {
	.pet = op_pet, .write = op_write, .read = op_read, .bell = op_bell, .hold = op_hold, .kill = op_kill,
	.watchdog = op_watchdog, .processes = op_processes, .tell = op_tell, .save = op_save, .exit = op_exit, .note = op_note,
};

/* more: another event follows at once, and the timer need not be set for this one. */
static void k_events(struct node *n, const struct keeper_event *ev, bool more)
{
	struct keeper_event *copy;

	if (!n->k_runs)
		return;
	if (n->kproc.stopped) {
		copy = malloc(sizeof(*copy));
		CHECK(copy);
		*copy = *ev;
		copy->data = NULL;
		copy->ok = copy->ok && !ev->data;
		world_post(0, on_late_event, copy, (uint64_t)n->id << 32 | n->kproc.life);
		return;
	}
	keeper_dispatch(n->keeper, ev, node_now(n), &ops, n);
	check_keeper(n);
	if (!more || n->kproc.stopped)
		arm_timer(n);
}

static void k_event(struct node *n, const struct keeper_event *ev) { k_events(n, ev, false); }

/* Start and end of the process. */

static uint32_t wd_left_ms(const struct node *n)
{
	int64_t left = keeper_ms(sim.timing.wd_ms) - (sim.now - n->wd.pet_ns);

	if (n->wd.running && wd_none(n))
		return sim.timing.soft_ms / 2 + sim.timing.wd_ms - sim.timing.soft_ms;
	return n->wd.running && left > 0 ? (uint32_t)(left / NS_PER_MS) : 0;
}

/* A restarted keeper that knows no volume set yet has no core that could release: the same. */
static void release_early(struct node *n, const char *why)
{
	if (n->k_runs || !n->k_resume)
		return;
	history_add("node %u: %s: VMs are killed", n->id, why);
	n->k_resume = n->k_clean = false;
	begin_kill(n, true);
}

static void on_outage(struct sim_event *ev) { release_early(ev->obj, "no volume reached after the restart of the keeper"); }

static void watch_for_outage(struct node *n)
{
	uint32_t reserve = sim.timing.wd_ms - sim.timing.soft_ms, left = wd_left_ms(n);

	if (n->k_resume && n->wd.running)
		world_post_proc(&n->kproc, keeper_ms(left - MIN(left, reserve)), on_outage, n, 0);
}

static void start_core(struct node *n)
{
	struct keeper_options opt = {
		.self = n->id,
		.n_volumes = sim.n_volumes,
		.node_limit = sim.n_nodes,
		.timing = sim.timing,
		.members = (2ULL << (sim.n_nodes - 1)) - 1,
		.keep_on_ring_loss = sim.keep_on_ring_loss,
		.brake_percent = sim.brake_percent,
		.wd_ms = wd_none(n) ? FORMAT_SILENCE_IS_NO_PROOF : sim.timing.wd_ms,
		.wd_delay_ms = sim.timing.wd_delay_ms,
		.resume = n->k_resume,
		.resume_epoch = n->k_resume_epoch,
		.resume_seq = n->k_resume_seq,
		.watchdog_runs = n->wd.running,
		.wd_left_ms = wd_left_ms(n),
	};
	struct keeper_event ev;

	if (n->k_runs || !n->k_known || !n->k_clean)
		return;
	memcpy(opt.cluster, sim.sb[0].cluster, 16);
	opt.set = n->kclient.set;
	opt.host[0] = (uint8_t)n->id;
	opt.host[1] = n->is_clone;
	memcpy(opt.boot, n->k_boot, 16);
	memcpy(opt.life, n->k_life, 16);
	memcpy(opt.resume_life, n->k_resume_life, 16);
	keeper_init(n->keeper, &opt, node_now(n));
	n->k_runs = true;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		ev = (struct keeper_event){ .kind = KEEPER_EV_VOLUME, .volume = v, .ok = n->kclient.session[v].state == SESSION_READY };
		k_event(n, &ev);
	}
	ev = (struct keeper_event){ .kind = KEEPER_EV_RING, .ok = n->ring_up, .view = n->ring_view };
	k_event(n, &ev);
}

static void volume_changed(struct client *c, unsigned volume, bool ready)
{
	struct keeper_event ev = { .kind = KEEPER_EV_VOLUME, .volume = volume, .ok = ready };
	struct node *n = c->node;

	n->io_hurt_ns = sim.now; /* L2: its storage was away, or is now */
	if (!n->k_known && client_ready(c) >= format_fence_quorum(sim.n_volumes)) {
		n->k_known = true;
		start_core(n);
		return;
	}
	k_event(n, &ev);
}

void keeper_edge_start(struct node *n)
{
	bool armed = n->saved.valid && (n->saved.state == LEASE_ARMED || n->saved.state == LEASE_DISARMING);

	proc_start(&n->kproc);
	n->kclient.proc = &n->kproc;
	n->kclient.node = n;
	n->kclient.changed = volume_changed;
	n->kclient.set_changed = set_changed;
	n->k_set_changed = false;
	n->k_known = n->k_runs = n->k_stopping = n->k_killing = n->k_kill_start = false;
	n->k_agent_life = 0;
	n->ring_up = false;
	n->ring_view = 0;
	n->oracle_seq = 0;
	memset(n->oracle, 0, sizeof(n->oracle));
	memset(n->table_read, 0, sizeof(n->table_read));
	n->brinks = 0;
	memset(n->k_write_ops, 0, sizeof(n->k_write_ops));
	for (unsigned i = 0; i < 16; i++)
		n->k_life[i] = (uint8_t)rnd(256);
	n->k_resume = n->saved.valid && ((armed && n->wd.running) || n->saved.state == LEASE_DISARMED);
	n->k_resume_epoch = n->saved.epoch;
	n->k_resume_seq = n->saved.valid ? n->saved.seq : 0;
	memcpy(n->k_resume_life, n->saved.life, 16);
	history_add("node %u: keeper starts%s", n->id, n->k_resume ? ", goes on with its epoch" : "");
	client_open(&n->kclient);
	n->k_clean = n->k_resume || MUTANT(RESTART_KEEPS_VMS);
	if (MUTANT(RESTART_OPENS_WATCHDOG) && !n->k_resume)
		do_watchdog(n, true);
	if (!n->k_clean)
		begin_kill(n, true);
	watch_for_outage(n);
	ring_joined(n);
}

static void on_dying(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!proc_alive(&n->kproc) || n->kproc.life != ev->arg)
		return;
	keeper_edge_crash(n);
	if (!proc_alive(&n->kproc))
		machine_keeper_again(n, rnd_ms(50, 500));
}

void keeper_edge_crash(struct node *n)
{
	uint32_t life = n->kproc.life;

	if (!proc_alive(&n->kproc))
		return;
	if (disk_stuck(&n->kproc, life)) { /* in D state: killed, but not gone before its block device has answered */
		proc_stop(&n->kproc, SIM_NEVER / 2);
		world_post(DYING_MS * NS_PER_MS, on_dying, n, life);
		return;
	}
	n->k_runs = n->k_known = false;
	wd_closed(n);
	proc_die(&n->kproc);
	disk_writer_gone(n, &n->kproc, life, GONE_DIED);
	ring_changed();
	agent_edge_no_keeper(n);
}

void keeper_edge_stop_service(struct node *n)
{
	struct keeper_event ev = { .kind = KEEPER_EV_LEAVE };

	if (!proc_alive(&n->kproc) || n->kproc.stopped)
		return;
	if (slice_count(n) > 0 && n->going_down && !shutdown_ends_agents(n))
		return;
	if (slice_count(n) > 0 && n->going_down && n->k_runs && !n->k_stopping) {
		n->k_stopping = true;
		ev.kind = KEEPER_EV_SHUTDOWN;
		k_event(n, &ev);
		return;
	}
	if (slice_count(n) > 0 || disk_host_sends(n) || !n->k_runs) {
		keeper_edge_crash(n);
		machine_keeper_again(n, rnd_ms(20, 2000));
		return;
	}
	n->k_stopping = true;
	k_event(n, &ev);
}

void keeper_edge_suspended(struct node *n)
{
	struct keeper_event ev = { .kind = KEEPER_EV_SUSPENDED };

	if (!proc_alive(&n->kproc))
		return;
	if (!n->k_runs)
		release_early(n, "suspended after the restart of the keeper");
	k_event(n, &ev);
}

static void on_suspended(struct sim_event *ev) { keeper_edge_suspended(ev->obj); }

static bool is_effect(sim_fn fn) { return fn == late_submit || fn == late_pet || fn == late_watchdog || fn == late_hold; }

/* What it sees first, before all that has waited for it, except for the rest of the step in which it came to stand still. */
void keeper_edge_woken(struct node *n)
{
	struct sim_proc *p = &n->kproc;
	unsigned rest = 0;

	while (rest < p->n_late && is_effect(p->late[rest].fn))
		rest++;
	if (p->stopped && rest > 0) {
		proc_wait(p, rest, on_suspended, n);
		proc_resume(p);
	} else {
		proc_resume(p);
		keeper_edge_suspended(n);
	}
}

/* Messages of the agent and of launchers; they come as events of the keeper's process. */

static void on_facts(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct keeper_event k = { .kind = KEEPER_EV_AGENT, .agent = n->facts };
	bool anew;

	if (ev->arg != n->aproc.life)
		return;
	anew = n->k_agent_life != n->aproc.life;
	n->k_agent_life = n->aproc.life;
	k_event(n, &k);
	if (anew || !n->k_runs)
		tell(n);
}

void keeper_edge_facts(struct node *n) { world_post_proc(&n->kproc, rnd_us(20, 100), on_facts, n, n->aproc.life); }

struct late_evidence { struct node *n; struct keeper_event ev; };

static void on_evidence(struct sim_event *ev)
{
	struct late_evidence *l = ev->obj;
	int r = world_for(&l->n->kproc, (uint32_t)ev->arg, ev);

	if (r == 0)
		return;
	if (r > 0)
		k_event(l->n, &l->ev);
	free(l);
}

static void post_evidence(struct node *n, const struct keeper_event *ev)
{
	struct late_evidence *l = malloc(sizeof(*l));

	CHECK(l);
	*l = (struct late_evidence){ n, *ev };
	world_post(rnd_us(20, 100), on_evidence, l, n->kproc.life);
}

void keeper_edge_evidence(struct node *n, const struct keeper_evidence *e)
{
	post_evidence(n, &(struct keeper_event){ .kind = KEEPER_EV_EVIDENCE, .evidence = *e });
}

void keeper_edge_fence(struct node *n, uint32_t id, uint32_t epoch)
{
	post_evidence(n, &(struct keeper_event){ .kind = KEEPER_EV_FENCE, .evidence = { .node = id, .epoch = epoch } });
}

static void on_arm(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct keeper_event k = { .kind = ev->arg ? KEEPER_EV_ARM : KEEPER_EV_DISARM };

	if (n->k_runs && n->keeper->want_armed != (bool)ev->arg)
		k_event(n, &k);
}

void keeper_edge_arm(struct node *n, bool on) { world_post_proc(&n->kproc, rnd_us(20, 100), on_arm, n, on); }

static void on_allowed(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (q->state != QEMU_ALLOWED)
		return;
	if (q->incoming) {
		qemu_runs(q);
		history_add("node %u: VM %u is waited for, epoch %u", q->node->id, q->vm, q->stamp.epoch);
		agent_edge_migration(q, MIGRATE_NEWS_READY);
		return;
	}
	check_exec(q);
	qemu_runs(q);
	history_add("node %u: VM %u runs, generation %llu, epoch %u", q->node->id, q->vm, (unsigned long long)q->stamp.generation, q->stamp.epoch);
	check_running(q->vm);
	agent_edge_qemu(q, true, VM_EXIT_CRASH, q->proc.life);
}

static void on_gate(struct sim_event *ev)
{
	struct qemu *q = ev->obj;
	struct node *n = q->node;

	if (q->proc.life != (uint32_t)ev->arg || q->state != QEMU_ASKING)
		return;
	if (!n->k_runs || !keeper_gate_admits(n->keeper, q->stamp.epoch, q->term, node_now(n)) || n->k_stopping) {
		qemu_refused(q);
		return;
	}
	check_gate(q);
	failover_at(FAILOVER_EXEC, q->vm);
	q->state = QEMU_ALLOWED;
	/* The launcher may be slow to become QEMU: it is registered by now. */
	world_post_proc(&q->proc, sim.no_message_lost || chance(950) ? rnd_us(50, 3000) : rnd_ms(3, 8000), on_allowed, q, 0);
}

void keeper_edge_gate(struct qemu *q) { world_post_proc(&q->node->kproc, rnd_us(30, 200), on_gate, q, q->proc.life); }
