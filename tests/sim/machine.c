/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A node's power, boot, clock, and the init system that starts its daemons again. */
#include "tests/sim/sim.h"

int64_t node_now(const struct node *n) { return n->clock_offset + sim.now + ((sim.now >> 12) * n->clock_rate); }

int64_t node_wait(const struct node *n, int64_t local_ns)
{
	/* Never early: a timer that fires before its time is no timer. */
	return local_ns * 4096 / (4096 + n->clock_rate) + 4097;
}

static bool same_boot(const struct node *n, uint64_t boots) { return n->up && n->boots == boots; }

static void on_keeper(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (same_boot(n, ev->arg) && !proc_alive(&n->kproc))
		keeper_edge_start(n);
}

void machine_keeper_again(struct node *n, int64_t after) { world_post(after, on_keeper, n, n->boots); }

static void on_agent(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (same_boot(n, ev->arg) && !proc_alive(&n->aproc))
		agent_edge_start(n);
}

void machine_agent_again(struct node *n, int64_t after) { world_post(after, on_agent, n, n->boots); }

static void on_merge(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (n->part >= SIM_PART_ALONE) {
		n->part = 0;
		ring_changed();
	}
}

/* A ring of one at first; it meets the others a little later. */
static void on_corosync(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!same_boot(n, ev->arg) || n->corosync)
		return;
	n->corosync = true;
	n->part = SIM_PART_ALONE + n->id;
	world_post(rnd_ms(100, 2500), on_merge, n, 0);
	ring_changed();
}

void machine_corosync(struct node *n, bool on, int64_t after)
{
	if (on) {
		world_post(after, on_corosync, n, n->boots);
		return;
	}
	n->corosync = false;
	ring_changed();
}

void machine_boot(struct node *n)
{
	if (n->up)
		return;
	n->up = true;
	n->boots++;
	n->hurt_ns = sim.now;
	n->saved.valid = false;
	n->wd.running = false;
	n->clock_offset = (int64_t)rnd(1000) * SIM_S; /* a clock of its own since boot; the cores only ask that it never goes back */
	for (unsigned i = 0; i < 16; i++)
		n->k_boot[i] = (uint8_t)rnd(256);
	history_add("node %u: boots", n->id);
	machine_corosync(n, true, rnd_ms(100, 3000));
	machine_keeper_again(n, rnd_ms(300, 5000));
	machine_agent_again(n, rnd_ms(300, 6000));
}

static void on_boot(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!n->up && n->boots == ev->arg)
		machine_boot(n);
}

void machine_reset(struct node *n, const char *why, int64_t off_ns)
{
	if (!n->up)
		return;
	history_add("node %u: RESET (%s)", n->id, why);
	n->up = n->corosync = false;
	n->hurt_ns = sim.now;
	n->wd.running = false;
	n->wd.number++;
	n->k_runs = n->k_known = n->a_runs = n->leading = false;
	if (n->cat_writing)
		edit_post(n->cat_edit.kind, n->cat_edit.vm, n->cat_edit.node);
	n->cat_writing = false;
	disk_writer_gone(n, NULL, 0, GONE_RESET);
	for (unsigned v = 0; v < sim.n_vms; v++)
		qemu_reset(&n->qemu[v]);
	proc_die(&n->kproc);
	proc_die(&n->aproc);
	n->ring_target = 0;
	n->ring_up = false;
	ring_changed();
	if (off_ns != SIM_NEVER)
		world_post(off_ns, on_boot, n, n->boots);
}
