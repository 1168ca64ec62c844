/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A QEMU that sends its guest to one on another node. What counts here: whose disks are active (q->live), whether the memory that a target holds still fits
 * the image (no write of anybody since it was sent), and that each step may fail, take long, or be overtaken by the end of any of the processes. */
#include "tests/sim/sim.h"

enum { OUT_NONE, OUT_SENDING, OUT_PAUSED, OUT_SWITCHING, OUT_DONE };

static struct qemu *target_of(const struct qemu *q)
{
	struct node *to = sim_node(q->out_to);
	struct qemu *t = &to->qemu[q->vm];

	/* Its own network is the ring's. */
	return q->node->up && to->up && ring_connected(q->node, to) && t->state == QEMU_RUNS && t->incoming && t->in_id == q->out_id && !t->loaded &&
		       !t->kill_pending ? t : NULL;
}

static void let_run(struct qemu *q)
{
	q->halted = false;
	qemu_writes(q);
}

/* A guest that its storage has stopped before stays as it is. */
static void fail(struct qemu *q, const char *why)
{
	if (q->out != OUT_SENDING && q->out != OUT_PAUSED && q->out != OUT_SWITCHING)
		return;
	history_add("node %u: VM %u is not sent to node %u: %s", q->node->id, q->vm, q->out_to, why);
	q->out = OUT_NONE;
	q->left = q->io_error;
	if (q->left)
		q->halted = true;
	else
		let_run(q);
	agent_edge_migration(q, MIGRATE_NEWS_FAILED);
}

static void on_finish(struct sim_event *ev)
{
	struct qemu *q = ev->obj, *t = target_of(q);

	if (ev->arg != q->out_number || q->out != OUT_SWITCHING)
		return;
	if (disk_pending(&q->proc, q->proc.life) > 0) { /* QEMU waits for its writes before it says anything */
		world_post_proc(&q->proc, rnd_ms(1, 20), on_finish, q, ev->arg);
		return;
	}
	if (!t || chance(40)) {
		fail(q, "the rest does not get there");
		return;
	}
	history_add("node %u: VM %u is sent to node %u", q->node->id, q->vm, q->out_to);
	q->out = OUT_DONE;
	q->live = false;
	sim.vm[q->vm].away_ns = sim.now;
	agent_edge_migration(q, MIGRATE_NEWS_COMPLETED);
	if (lively_ns() == 0 && chance(20)) { /* there it would be one fault more */
		qemu_kill(t, GONE_DIED); /* cannot load what it got */
		return;
	}
	t->loaded = true;
	t->loaded_lands = sim.vm[q->vm].image.lands;
	t->io_error = q->io_error;
	t->mute = q->mute;
	agent_edge_migration(t, MIGRATE_NEWS_LOADED);
}

static void on_sent(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (ev->arg != q->out_number || q->out != OUT_SENDING)
		return;
	if (!target_of(q) || chance(40)) {
		fail(q, "connection lost");
		return;
	}
	q->out = OUT_PAUSED;
	q->halted = true;
	agent_edge_migration(q, MIGRATE_NEWS_PAUSED);
}

static void on_begin(struct sim_event *ev)
{
	struct qemu *q = ev->obj, *t = target_of(q);

	if (ev->arg != q->out_number || q->out != OUT_SENDING)
		return;
	if (!t) {
		fail(q, "no connection");
		return;
	}
	agent_edge_migration(t, MIGRATE_NEWS_LOADING);
	world_post_proc(&q->proc, chance(700) ? rnd_ms(20, 1500) : chance(900) ? rnd_ms(1500, 30000) : rnd_ms(30000, 3600000), on_sent, q, ev->arg);
}

void qemu_migrate(struct qemu *q, uint32_t to, uint64_t id)
{
	if (q->state != QEMU_RUNS || !q->live || q->quitting || q->out != OUT_NONE) {
		agent_edge_migration(q, MIGRATE_NEWS_FAILED);
		return;
	}
	q->out = OUT_SENDING;
	q->left = false;
	q->out_to = to;
	q->out_id = id;
	world_post_proc(&q->proc, rnd_ms(1, 50), on_begin, q, ++q->out_number);
}

void qemu_switch(struct qemu *q)
{
	if (q->out != OUT_PAUSED)
		return;
	q->out = OUT_SWITCHING;
	world_post_proc(&q->proc, chance(900) ? rnd_ms(1, 60) : rnd_ms(60, 15000), on_finish, q, q->out_number);
}

static void on_cancel(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (ev->arg == q->out_number)
		fail(q, "cancelled");
}

void qemu_cancel(struct qemu *q) { world_post_proc(&q->proc, chance(900) ? rnd_ms(1, 60) : rnd_ms(60, 8000), on_cancel, q, q->out_number); }

bool qemu_sends(const struct qemu *q) { return q->out == OUT_SENDING || q->out == OUT_PAUSED || q->out == OUT_SWITCHING; }
bool qemu_sent(const struct qemu *q) { return q->out == OUT_DONE && !q->live; }

void qemu_go_on(struct qemu *q, uint64_t generation)
{
	if (q->state != QEMU_RUNS || q->kill_pending || q->quitting)
		return;
	if (q->incoming) {
		if (!q->loaded)
			violation("S1", "node %u continues VM %u, of which nothing was loaded", q->node->id, q->vm);
		q->stamp.generation = generation;
		q->incoming = false;
		check_continued(q);
		check_exec(q);
		reserve_continued(q);
		check_running(q->vm);
		history_add("node %u: VM %u goes on, generation %llu, epoch %u", q->node->id, q->vm, (unsigned long long)generation, q->stamp.epoch);
		sim.stats.migrations++;
	} else if (qemu_sent(q)) {
		history_add("node %u: VM %u goes on where it was", q->node->id, q->vm);
		check_resumed(q);
	} else {
		agent_edge_went_on(q); /* it does already */
		return;
	}
	q->live = true;
	sim.vm[q->vm].away_ns = 0;
	q->io_error = q->io_error && !agent_edge_storage(q->node, q->vm);
	q->out = OUT_NONE;
	let_run(q);
	agent_edge_went_on(q);
}

void qemu_cont(struct qemu *q)
{
	if (q->state != QEMU_RUNS || q->kill_pending || q->quitting)
		return;
	if (qemu_sent(q) || q->incoming) {
		history_add("node %u: VM %u goes on, though its guest was sent or never came", q->node->id, q->vm);
		q->live = true;
		sim.vm[q->vm].away_ns = 0;
		q->out = OUT_NONE;
		check_resumed(q);
	}
	q->io_error = !agent_edge_storage(q->node, q->vm);
	if (q->out == OUT_PAUSED || q->out == OUT_SWITCHING)
		return; /* QEMU refuses it in the middle of that */
	q->left = false;
	let_run(q);
}
