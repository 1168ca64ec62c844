/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU processes: unit, launcher, gate, a guest that writes its stamp to its image, and the ways it ends. */
#include "tests/sim/sim.h"

#define GATE_TIMEOUT_MS 2000

/* What waited while it was stopped has been handed back to the queue by now. */
static void forget_late(struct qemu *q)
{
	free(q->proc.late);
	q->proc.late = NULL;
	q->proc.late_size = 0;
}

static void end(struct qemu *q, enum gone how, enum vm_exit code)
{
	uint32_t life = q->proc.life;

	if (q->state == QEMU_RUNS || q->state == QEMU_ALLOWED)
		history_add("node %u: VM %u is gone", q->node->id, q->vm);
	agent_edge_qemu(q, false, code, life);
	reserve_gone(q);
	disk_writer_gone(q->node, &q->proc, life, how);
	proc_die(&q->proc);
	if (q->state == QEMU_RUNS && q->live) {
		check_gone(q, how == GONE_SILENCED);
		if (q->stopped)
			sim.vm[q->vm].away_ns = sim.now;
	}
	q->state = QEMU_NONE;
	forget_late(q);
}

static void on_gate_timeout(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (q->state == QEMU_ASKING)
		qemu_refused(q);
}

static void on_launched(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	q->state = QEMU_ASKING;
	if (!proc_alive(&q->node->kproc)) {
		qemu_refused(q);
		return;
	}
	keeper_edge_gate(q);
	world_post_proc(&q->proc, GATE_TIMEOUT_MS * NS_PER_MS, on_gate_timeout, q, 0);
}

bool qemu_launch(struct node *n, unsigned vm, uint64_t generation, uint32_t epoch, uint64_t term, bool incoming)
{
	struct qemu *q = &n->qemu[vm];
	int64_t delay;

	if (q->state != QEMU_NONE)
		return false;
	proc_start(&q->proc);
	q->state = QEMU_LAUNCH;
	q->node = n;
	q->vm = vm;
	q->term = term;
	q->stamp = (struct stamp){ sim.vm[vm].incarnation, generation, n->id, epoch, ++sim.instances };
	q->kill_pending = q->quitting = q->off = q->powering_down = q->stopped = false;
	q->io_error = q->mute = q->panicked = q->resets = false;
	q->live = q->halted = q->writing = q->loaded = q->left = q->waits = false;
	q->incoming = incoming;
	q->in_id = incoming ? (uint32_t)q->stamp.instance * 0x9e3779b1U : 0; /* no two alike */
	q->out = 0;
	q->out_id = 0;
	q->out_number++;
	q->cont_done = q->cont;
	delay = sim.edges ? edge_ns(EDGE_LAUNCH) : chance(980) || lively_ns() > 0 ? rnd_ms(3, 40) : rnd_ms(40, 4000);
	world_post_proc(&q->proc, delay, on_launched, q, 0);
	return true;
}

void qemu_refused(struct qemu *q) { end(q, GONE_SILENCED, VM_EXIT_REFUSED); }

static void image_done(struct op *op, bool ok, bool definite) {}

static void image_settled(struct op *op, bool completed)
{
	struct qemu *q = op->user;

	if (q->kill_pending && !disk_stuck(&q->proc, q->proc.life))
		end(q, q->kill_how, q->off ? VM_EXIT_OFF_KILLED : VM_EXIT_CRASH);
	else if (q->quitting && disk_pending(&q->proc, q->proc.life) == 0)
		end(q, GONE_DIED, q->off ? VM_EXIT_GUEST_OFF : VM_EXIT_QUIT);
}

static const struct op_calls image_calls = { image_done, image_settled };

static void on_write(struct sim_event *ev)
{
	struct qemu *q = ev->obj;
	struct op *op;

	q->writing = false;
	if (q->kill_pending || q->quitting || !q->live || q->halted)
		return;
	q->writing = true;
	if (disk_pending(&q->proc, q->proc.life) < 2 && !q->io_error) {
		sim.stats.guest_writes++;
		op = op_new(OP_WRITE_IMAGE, &q->proc, q->node, sim.vm[q->vm].target, &image_calls, q);
		op->stamp = q->stamp;
		op->arg = q->vm;
		op_submit(op);
	}
	world_post_proc(&q->proc, sim.guest_write_ns / 2 + (int64_t)rnd((uint64_t)sim.guest_write_ns), on_write, q, 0);
}

void qemu_writes(struct qemu *q)
{
	if (q->writing)
		return;
	q->writing = true;
	world_post_proc(&q->proc, sim.edges ? edge_ns(EDGE_GUEST) : rnd_ms(1, 50), on_write, q, 0);
}

void qemu_well(struct qemu *q)
{
	q->io_error = q->mute = q->panicked = q->resets = false;
	if (!q->left)
		return;
	q->left = q->halted = false;
	qemu_writes(q);
}

void qemu_runs(struct qemu *q)
{
	q->state = QEMU_RUNS;
	q->live = !q->incoming;
	if (!q->live)
		return;
	sim.vm[q->vm].away_ns = 0;
	reserve_runs(q);
	qemu_writes(q);
}

void qemu_kill(struct qemu *q, enum gone how)
{
	if (q->kill_pending) {
		q->kill_how = how == GONE_SILENCED ? how : q->kill_how;
		return;
	}
	if (disk_stuck(&q->proc, q->proc.life)) {
		/* In a system call that does not return: it cannot die before that does. */
		q->kill_pending = true;
		q->kill_how = how;
		return;
	}
	end(q, how, q->off ? VM_EXIT_OFF_KILLED : VM_EXIT_CRASH);
}

static void on_flushed(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (q->quitting && disk_pending(&q->proc, q->proc.life) == 0)
		end(q, GONE_DIED, q->off ? VM_EXIT_GUEST_OFF : VM_EXIT_QUIT);
}

void qemu_quit(struct qemu *q)
{
	if (q->state != QEMU_RUNS || q->quitting)
		return;
	q->quitting = true;
	world_post_proc(&q->proc, rnd_ms(5, 100), on_flushed, q, 0);
}

static void on_guest_off(struct sim_event *ev)
{
	struct qemu *q = ev->obj;

	if (q->state != QEMU_RUNS || q->quitting)
		return;
	q->powering_down = q->live && !q->halted;
	if (!q->powering_down)
		return; /* nobody in there to notice */
	q->off = true;
	qemu_quit(q);
}

void qemu_powerdown(struct qemu *q)
{
	if (q->powering_down || !chance(800))
		return;
	q->powering_down = true;
	world_post_proc(&q->proc, rnd_ms(200, 8000), on_guest_off, q, 0);
}

void qemu_crash(struct qemu *q)
{
	if (q->state == QEMU_RUNS)
		qemu_kill(q, GONE_DIED);
}

void qemu_reset(struct qemu *q)
{
	if (q->state == QEMU_NONE)
		return;
	reserve_gone(q);
	proc_die(&q->proc);
	if (q->state == QEMU_RUNS && q->live)
		check_gone(q, true);
	q->state = QEMU_NONE;
	forget_late(q);
}
