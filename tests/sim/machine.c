/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A node's power, boot, clock, and the init system that starts its daemons again. */
#include "tests/sim/sim.h"

static int64_t at_rate(const struct node *n, int64_t now) { return now + ((now >> 12) * n->clock_rate); }

int64_t node_now(const struct node *n) { return n->clock_offset + at_rate(n, n->asleep_ns ? n->asleep_ns : sim.now); }

int64_t node_wait(const struct node *n, int64_t local_ns)
{
	/* Never early: a timer that fires before its time is no timer. */
	return local_ns * 4096 / (4096 + n->clock_rate) + 4097;
}

static uint64_t sleep_number;

static bool same_boot(const struct node *n, uint64_t boots) { return n->up && n->boots == boots; }

static void on_keeper(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (!same_boot(n, ev->arg) || proc_alive(&n->kproc) || shutdown_ends_keepers(n))
		return;
	keeper_edge_start(n);
}

void machine_keeper_again(struct node *n, int64_t after) { world_post(after, on_keeper, n, n->boots); }

static void on_agent(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (same_boot(n, ev->arg) && !proc_alive(&n->aproc) && !shutdown_ends_agents(n))
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

	if (!n->up || n->corosync || n->corosync_life != ev->arg)
		return;
	n->corosync = true;
	n->part = SIM_PART_ALONE + n->id;
	world_post(rnd_ms(100, 2500), on_merge, n, 0);
	ring_changed();
}

void machine_corosync(struct node *n, bool on, int64_t after)
{
	if (on) {
		world_post(after, on_corosync, n, n->corosync_life);
		return;
	}
	n->corosync = false;
	n->corosync_life++;
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
	n->a_seq_base = 0;
	n->wd.running = false;
	n->asleep_ns = 0;
	n->sleeps = 0;
	n->clock_offset = (int64_t)rnd(1000) * SIM_S; /* a clock of its own since boot; the cores only ask that it never goes back */
	for (unsigned i = 0; i < 16; i++)
		n->k_boot[i] = (uint8_t)rnd(256);
	history_add("node %u: boots", n->id);
	if (n->slow_boot_ns)
		chaos_effect(CHAOS_SLOW_BOOT);
	machine_corosync(n, true, n->slow_boot_ns + rnd_ms(100, 3000));
	machine_keeper_again(n, n->slow_boot_ns + rnd_ms(300, 5000));
	machine_agent_again(n, n->slow_boot_ns / 2 + rnd_ms(300, 6000));
	n->slow_boot_ns = 0;
}

void machine_wake(struct node *n)
{
	if (!n->sleeps)
		return;
	history_add("node %u: wakes up", n->id);
	if (n->asleep_ns)
		n->clock_offset -= at_rate(n, sim.now) - at_rate(n, n->asleep_ns);
	n->sleeps = 0;
	n->asleep_ns = 0;
	n->hurt_ns = sim.now;
	for (unsigned v = 0; v < sim.n_vms; v++)
		proc_resume(&n->qemu[v].proc);
	proc_resume(&n->aproc);
	keeper_edge_woken(n);
}

static void on_wake(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (n->sleeps == ev->arg)
		machine_wake(n);
}

static void on_stop_limit(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (n->kproc.life != ev->arg || !n->k_stopping)
		return;
	history_add("node %u: its keeper cannot leave in time", n->id);
	keeper_edge_crash(n);
	machine_keeper_again(n, rnd_ms(500, 20000));
}

/* The service waits STOP_LIMIT_MS (fence/keeper.c) for a quorum that takes its farewell. */
void machine_stop_keeper(struct node *n)
{
	keeper_edge_stop_service(n);
	if (n->k_stopping)
		world_post(5 * SIM_S, on_stop_limit, n, n->kproc.life);
}

/* Also what is stopped already: it is not to go on before the host does. */
static void sleep_proc(struct sim_proc *p, int64_t ns)
{
	proc_resume(p);
	proc_stop(p, ns + SIM_S);
}

/* All its processes stand still, and so does its CLOCK_MONOTONIC (every other time: some hypervisors let it run on). The watchdog is hardware of its own and
 * counts on, so it may bite. What the keeper sees first on waking up is the gap of CLOCK_BOOTTIME. Wall clocks are not in here: nothing of the cores sees one. */
void machine_sleep(struct node *n, int64_t ns)
{
	if (!n->up || n->sleeps)
		return;
	chaos_effect(CHAOS_SLEEP);
	n->hurt_ns = sim.now;
	if (chance(500))
		n->asleep_ns = sim.now;
	sleep_proc(&n->kproc, ns);
	sleep_proc(&n->aproc, ns);
	for (unsigned v = 0; v < sim.n_vms; v++)
		sleep_proc(&n->qemu[v].proc, ns);
	n->sleeps = ++sleep_number;
	world_post(ns, on_wake, n, n->sleeps);
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
	n->up = n->corosync = n->going_down = false;
	n->corosync_life++;
	n->hurt_ns = sim.now;
	n->wd.running = false;
	n->k_runs = n->k_known = n->a_runs = n->leading = false;
	if (n->cat_writing)
		edit_ask(&n->cat_edit);
	n->cat_writing = false;
	disk_writer_gone(n, NULL, 0, GONE_RESET);
	for (unsigned v = 0; v < sim.n_vms; v++)
		qemu_reset(&n->qemu[v]);
	reserve_host_gone(n);
	proc_die(&n->kproc);
	proc_die(&n->aproc);
	n->ring_target = 0;
	n->ring_up = false;
	ring_changed();
	if (off_ns != SIM_NEVER)
		world_post(off_ns, on_boot, n, n->boots);
}
