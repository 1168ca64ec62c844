/* SPDX-License-Identifier: GPL-2.0-or-later */
/* corosync as the keepers see it: a member of a partition sees its other members, some time after the fact. */
#include "tests/sim/sim.h"

static struct { unsigned lost; int64_t delay_ns, late_ns; } trouble;

void ring_trouble(unsigned lost_permille, int64_t delay_ns, int64_t late_ns)
{
	trouble.lost = lost_permille;
	trouble.delay_ns = delay_ns;
	trouble.late_ns = late_ns;
}

static bool in_ring(const struct node *n) { return n->up && n->corosync; }

bool ring_connected(const struct node *a, const struct node *b)
{
	return in_ring(a) && in_ring(b) && a->part == b->part && !(a->ring_mask >> (b->id - 1) & 1) && !(b->ring_mask >> (a->id - 1) & 1);
}

bool ring_whole(void)
{
	uint64_t all = (2ULL << (sim.n_nodes - 1)) - 1;

	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].up && proc_alive(&sim.node[i].kproc) && (!sim.node[i].ring_up || sim.node[i].ring_view != all))
			return false;
	return true;
}

bool ring_carries(const struct node *from, const struct node *to, int64_t *ret_delay)
{
	if (!ring_connected(from, to) || (!sim.no_message_lost && chance(20)) || (trouble.lost && chance(trouble.lost)))
		return false;
	*ret_delay = rnd_us(100, 2000) + (trouble.delay_ns ? (int64_t)rnd((uint64_t)trouble.delay_ns) : 0);
	if (trouble.lost || trouble.delay_ns)
		chaos_effect(CHAOS_RING_LOSS);
	return true;
}

static uint64_t view_of(const struct node *n)
{
	uint64_t view = 0;

	if (!in_ring(n))
		return 0;
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct node *o = &sim.node[i];

		if (in_ring(o) && o->part == n->part && proc_alive(&o->kproc) && !(n->ring_mask >> i & 1))
			view |= 1ULL << i;
	}
	return view;
}

static void on_view(struct sim_event *ev)
{
	struct node *n = ev->obj;

	if (ev->arg != n->ring_number)
		return;
	/* However late: a connection that has broken is noticed before the next one tells anything. */
	if (n->ring_broke && n->ring_target != 0)
		keeper_edge_ring(n, false, 0);
	n->ring_broke = false;
	keeper_edge_ring(n, n->ring_target != 0, n->ring_target);
}

/* Did members go because a process ended (corosync tells at once), or does the token have to be missed first? */
static bool is_clean(uint64_t lost)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (lost >> i & 1 && (!in_ring(&sim.node[i]) || proc_alive(&sim.node[i].kproc)))
			return false;
	return true;
}

void ring_changed(void)
{
	int64_t token = 0, join = 0;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *n = &sim.node[i];
		uint64_t view, lost;
		int64_t delay;

		if (!n->up || !proc_alive(&n->kproc))
			continue;
		view = view_of(n);
		if (view == n->ring_target)
			continue;
		if (token == 0) {
			token = sim.edges ? edge_ns(EDGE_TOKEN) : rnd_ms(1000, 2600);
			join = rnd_ms(20, 1200);
		}
		lost = n->ring_target & ~view;
		delay = view == 0 || (lost && is_clean(lost)) ? rnd_ms(1, 50) : (lost ? token : join) + rnd_ms(0, 40);
		if (!sim.edges && chance(60))
			delay += rnd_ms(0, 3000);
		if (trouble.late_ns) {
			delay += (int64_t)rnd((uint64_t)trouble.late_ns); /* one node knows, the other does not yet */
			chaos_effect(CHAOS_RING_LATE);
		}
		n->ring_target = view;
		n->ring_broke = n->ring_broke || view == 0;
		n->ring_number++;
		world_post_proc(&n->kproc, delay, on_view, n, n->ring_number);
	}
}

void ring_joined(struct node *n)
{
	n->ring_target = 0;
	n->ring_broke = false;
	n->ring_number++;
	ring_changed();
}
