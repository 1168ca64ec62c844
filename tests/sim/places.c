/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where VMs are started and in which order: what a seed's VM files say of it, what its nodes have, and what follows from both.
 *
 *   P1  order: no VM is assigned before those of its After= have run, unless its time is over; of those assigned in one instant the one of higher priority comes
 *       first; no node starts more at a time than ParallelStarts=
 *   P2  place: no QEMU is executed, and no guest goes on, on a node that is not in RequiredNodes= or has fewer processors than it has vCPUs; none is assigned
 *       against its groups where they are required, or above what the node may be given, unless an operator has asked for that node
 *
 * A leader goes by what it has read and heard, which is a moment old: what has just begun or ended counts for nothing here. Nor does anything of a leader that
 * stood still, or did not get at the volumes. */
#include <stdio.h>

#include "tests/sim/sim.h"

#define STREAM_PLACES 1009 /* rnd_stream: no fault's */
#define LAG_MS 5000
#define SETTLED_MS 20000   /* a VM runs on a node for so long: every leader knows */
#define STARTS_PER_NODE 2
#define NEWS_MS 1000       /* an end is noticed, and news of it arrive, within */

static struct { int64_t from, until, before /* until, of the life before this one */; } ran[SIM_MAX_VMS]; /* 0: never */
static uint32_t held[SIM_MAX_NODES][SIM_MAX_VMS]; /* epoch of its active claim on the newest block that has landed; 0: none */
static struct { uint32_t epoch; uint64_t seq; } landed[SIM_MAX_NODES];
static struct { uint32_t by; int64_t ns; } heard[SIM_MAX_NODES][SIM_MAX_VMS]; /* who last told a node whether that VM is ready */
static int64_t held_until[SIM_MAX_VMS], placeless_ns[SIM_MAX_VMS]; /* when it was last seen to have no place */
static struct { const struct node *by; int64_t ns; uint64_t event; unsigned vm; uint32_t version; } last;
static struct { uint32_t cpus, memory_mib; } has[SIM_MAX_NODES];
static uint32_t memory_percent, vcpus_percent;
static bool drawn;

void places_reset(void)
{
	memset(ran, 0, sizeof(ran));
	memset(held, 0, sizeof(held));
	memset(landed, 0, sizeof(landed));
	memset(heard, 0, sizeof(heard));
	memset(held_until, 0, sizeof(held_until));
	memset(placeless_ns, 0, sizeof(placeless_ns));
	memset(&last, 0, sizeof(last));
	drawn = false;
}

bool places_drawn(void) { return drawn; }

/* ---- what the seed draws ---- */

static void draw_groups(struct vm_def *d)
{
	if (d->n_apart == 0 && chance(250)) {
		d->n_apart = 1;
		(void)str_copy(d->apart[0], sizeof(d->apart[0]), chance(500) ? "a" : "b");
	}
	if (chance(200)) {
		d->n_together = 1;
		(void)str_copy(d->together[0], sizeof(d->together[0]), chance(500) ? "x" : "y");
	}
	d->groups_required = d->n_apart + d->n_together > 0 && chance(400);
}

static void draw_nodes(struct vm_def *d)
{
	if (chance(250)) {
		d->has_required = true;
		d->required = 1 + rnd((2ULL << (sim.n_nodes - 1)) - 1);
	}
	if (chance(300))
		d->preferred[d->n_preferred++] = 1 + (uint32_t)rnd(sim.n_nodes);
}

static void draw_after(struct vm_def *d, unsigned v)
{
	unsigned n = v == 0 || d->n_after > 0 || chance(600) ? 0 : 1 + (unsigned)rnd(2);

	for (unsigned i = 0; i < n; i++)
		(void)snprintf(d->after[d->n_after++], sizeof(d->after[0]), "vm%u", (unsigned)rnd(v));
	if (n == 0)
		return;
	d->after_ready = READY_RUNNING;
	d->after_delay_ms = chance(500) ? 0 : (uint32_t)rnd(3000);
	d->after_timeout_ms = SIM_AFTER_MS;
}

void places_draw(void)
{
	uint64_t world = sim.rng, total = 0;
	uint32_t share, largest = 0;

	sim.rng = rnd_stream(STREAM_PLACES, 0);
	drawn = chance(500) && !sim.no_placement;
	for (unsigned v = 0; v < sim.n_vms && drawn; v++) {
		struct vm_def *d = &sim.vm[v].own_policy;

		if (!sim.vm[v].policy)
			*d = (struct vm_def){ .priority = v % 3, .restart_limit = 3, .restart_window_ms = 30000, .stop_timeout_ms = 5000, .live = v % 4 != 3 };
		d->memory_mib = 512 * (1 + (uint32_t)rnd(8));
		d->vcpus = 1 + (uint32_t)rnd(4);
		draw_nodes(d);
		draw_groups(d);
		draw_after(d, v);
		sim.vm[v].policy = d;
		total += d->memory_mib;
		largest = MAX(largest, d->memory_mib);
	}
	memory_percent = chance(700) ? 100 : chance(500) ? 150 : 0;
	vcpus_percent = chance(500) ? 100 + 100 * (uint32_t)rnd(3) : 0;
	share = 250 + (uint32_t)rnd(900);
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		has[i].cpus = 2 + (uint32_t)rnd(7);
		has[i].memory_mib = MAX(largest, (uint32_t)(total * (share + rnd(100)) / 1000));
	}
	sim.rng = world;
}

void places_options(struct agent_options *opt)
{
	if (!drawn)
		return;
	opt->starts_per_node = STARTS_PER_NODE;
	opt->memory_percent = memory_percent;
	opt->vcpus_percent = vcpus_percent;
}

/* What the agent of that node says of it. */
struct agent_event places_capacity(uint32_t id)
{
	return (struct agent_event){ .kind = AGENT_EV_CAPACITY, .node = id, .cpus = has[id - 1].cpus, .memory_mib = has[id - 1].memory_mib };
}

/* ---- what has happened ---- */

static bool lives(unsigned vm)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].qemu[vm].state == QEMU_RUNS && sim.node[i].qemu[vm].live)
			return true;
	return false;
}

static int64_t ran_until(unsigned vm) { return lives(vm) ? sim.now : MAX(ran[vm].until, sim.vm[vm].away_ns); }

void places_gone(unsigned vm) { ran[vm].until = sim.now; }

static void let_go(uint32_t id, unsigned vm)
{
	if (held[id - 1][vm] != 0)
		held_until[vm] = sim.now;
	held[id - 1][vm] = 0;
}

void places_over(uint32_t id, uint32_t epoch)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++)
		if (held[id - 1][vm] <= epoch)
			let_go(id, vm);
}

void places_lost(const struct node *n, unsigned vm) { let_go(n->id, vm); }

void places_claims(const struct op *op)
{
	const struct node *n = op->node;
	const struct block *b = op->block;

	if (format_compare(block_epoch(b), block_seq(b), landed[n->id - 1].epoch, landed[n->id - 1].seq) <= 0)
		return;
	landed[n->id - 1].epoch = block_epoch(b);
	landed[n->id - 1].seq = block_seq(b);
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		uint32_t epoch = 0;

		for (uint32_t i = 0; i < b->cl.n; i++)
			if (memcmp(b->cl.claim[i].vm, sim.vm[vm].uuid, 16) == 0 && b->cl.claim[i].state == CLAIM_ACTIVE && b->cl.claim[i].epoch == n->agent->epoch)
				epoch = b->cl.claim[i].epoch;
		if (epoch != held[n->id - 1][vm])
			let_go(n->id, vm);
		held[n->id - 1][vm] = epoch;
	}
}

static bool holds(uint32_t id, unsigned vm) { return held[id - 1][vm] > sim.over[id - 1]; }

/* ---- the checks ---- */

static const struct vm_def *policy_of(unsigned vm) { return drawn || sim.health ? sim.vm[vm].policy : NULL; }

static bool share(const char a[][AGENT_GROUP_LEN], unsigned n_a, const char b[][AGENT_GROUP_LEN], unsigned n_b)
{
	for (unsigned i = 0; i < n_a; i++)
		for (unsigned j = 0; j < n_b; j++)
			if (streq(a[i], b[j]))
				return true;
	return false;
}

static bool may_be_on(const struct vm_def *d, uint32_t id)
{
	return (!d->has_required || d->required >> (id - 1) & 1) && (!drawn || d->vcpus <= has[id - 1].cpus);
}

void places_runs(const struct qemu *q)
{
	const struct vm_def *d = policy_of(q->vm);

	ran[q->vm].before = ran_until(q->vm);
	ran[q->vm].from = sim.now;
	if (d && !may_be_on(d, q->node->id))
		violation("P2", "VM %u runs on node %u, which is not among its required nodes or has too few processors", q->vm, q->node->id);
}

void places_starts(const struct node *n, unsigned vm)
{
	struct agent *a = n->agent;
	const struct vm *v = agent_vm_by_uuid(a, sim.vm[vm].uuid);
	unsigned others = 0;

	if ((v && v->foreign) || sim.no_placement)
		return; /* it runs already */
	/* Those that go on here, migrated or taken in, wait for nobody. */
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		others += a->vm[i].used && a->vm[i].state == VM_STARTING && !a->vm[i].foreign && a->vm[i].migration.phase == MIGRATE_NONE && memcmp(a->vm[i].def.uuid, sim.vm[vm].uuid, 16) != 0;
	if (a->opt.starts_per_node != 0 && others >= a->opt.starts_per_node)
		violation("P1", "node %u starts VM %u while it starts %u others", n->id, vm, others);
}

/* A leader's view is older than it seems: its agent stood still, does not get at what it would have to read (it asks each 10 s), or reads a volume that has lost what it
 * had acknowledged. */
static bool is_dim(const struct node *n)
{
	for (unsigned v = 0; v < sim.n_volumes; v++)
		if (sim.target[v].rolled_back)
			return true;
	return (n->aproc.stood_ns != 0 && sim.now - n->aproc.stood_ns < SETTLED_MS * NS_PER_MS) || n->a_cut ||
	       n->agent->now_ns - n->agent->claimer.complete_ns > SETTLED_MS * NS_PER_MS;
}

/* Its owner's news come every second, but not through every ring: whether it was told that this one ended before it ran again. */
static bool has_heard_since(const struct node *n, unsigned vm)
{
	uint32_t owner = sim.vm[vm].image.runner.node;

	return n->id == owner || (heard[n->id - 1][vm].by == owner && heard[n->id - 1][vm].ns > ran[vm].before + NEWS_MS * NS_PER_MS);
}

void places_heard(const struct node *n, unsigned vm, uint32_t by)
{
	heard[n->id - 1][vm].by = by;
	heard[n->id - 1][vm].ns = sim.now;
}

static void check_after(const struct node *n, unsigned vm, const struct vm_def *d)
{
	const struct vm *v = agent_vm_by_uuid(n->agent, sim.vm[vm].uuid);

	/* It has waited as long as its file says; how that time is counted, tests/test_place.c asks. */
	if (v && v->wait_ns != 0 && n->agent->now_ns - v->wait_ns > (int64_t)d->after_timeout_ms * NS_PER_MS)
		return;
	for (unsigned i = 0; i < d->n_after; i++) {
		unsigned o = (unsigned)strtoul(&d->after[i][2], NULL, 10);
		bool believed = false;

		/* Its owner's end may not be known there yet. */
		believed = ran[o].from != 0 && sim.vm[o].image.runner.node == agent_owner(n->agent, sim.vm[o].uuid);
		/* An agent that finds a process takes it for a QEMU that runs: it may be a launcher yet. */
		for (unsigned k = 0; k < sim.n_nodes; k++)
			believed = believed || sim.node[k].qemu[o].state != QEMU_NONE;
		if (!n->cat.present[o] || n->cat.desired[o] != DESIRED_STARTED || n->cat.frozen[o])
			continue;
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			believed = believed || (holds(id, o) && sim.vm[o].image.runner.node == id && sim.vm[o].image.runner.epoch == held[id - 1][o] &&
						ran[o].from != 0);
		sim.stats.ordered++;
		if (!lives(o) && !believed && sim.now - MAX(ran_until(o), held_until[o]) > LAG_MS * NS_PER_MS)
			violation("P1", "node %u has VM %u started, and VM %u, which it comes after, does not run", n->id, vm, o);
		else if (lives(o) && ran[o].from - ran[o].before > LAG_MS * NS_PER_MS && has_heard_since(n, o) && sim.now - ran[o].from < (int64_t)d->after_delay_ms * NS_PER_MS)
			violation("P1", "node %u has VM %u started %lld ms after VM %u, and %u ms were to pass", n->id, vm,
				  (long long)((sim.now - ran[o].from) / NS_PER_MS), o, d->after_delay_ms);
	}
}

/* So that every leader knows. */
static bool settled(unsigned vm, uint32_t id)
{
	const struct qemu *q = &sim_node(id)->qemu[vm];

	return q->state == QEMU_RUNS && q->live && !q->kill_pending && !q->quitting && sim.now - ran[vm].from > SETTLED_MS * NS_PER_MS;
}

/* It will follow: the leader has planned for both. */
static bool is_leaving(const struct node *n, unsigned vm, uint32_t id)
{
	return (n->cat.maintenance >> (id - 1) & 1) || n->cat.leaving[id - 1] != 0 || n->cat.move[vm].node != 0;
}

static void check_place(const struct node *n, unsigned vm, const struct vm_def *d, uint32_t id)
{
	uint64_t memory = d->memory_mib, vcpus = d->vcpus;

	for (unsigned o = 0; o < sim.n_vms; o++) {
		const struct vm_def *x = sim.vm[o].policy;

		if (o == vm)
			continue;
		if (settled(o, id)) {
			memory += x->memory_mib;
			vcpus += x->vcpus;
			if (d->groups_required && share(d->apart, d->n_apart, x->apart, x->n_apart))
				violation("P2", "node %u has VM %u started on node %u, where VM %u is, which it must keep apart from", n->id, vm, id, o);
		} else if (d->groups_required && share(d->together, d->n_together, x->together, x->n_together)) {
			for (uint32_t i = 1; i <= sim.n_nodes; i++)
				if (settled(o, i) && !is_leaving(n, o, i))
					violation("P2", "node %u has VM %u started on node %u, and VM %u, which it must be with, is on node %u", n->id, vm, id, o, i);
		}
	}
	sim.stats.placed++;
	if (memory_percent != 0 && memory * 100 > (uint64_t)has[id - 1].memory_mib * memory_percent)
		violation("P2", "node %u has VM %u started on node %u, whose VMs have %llu MiB with it, of %u, %u %%", n->id, vm, id, (unsigned long long)memory,
			  has[id - 1].memory_mib, memory_percent);
	if (vcpus_percent != 0 && vcpus * 100 > (uint64_t)has[id - 1].cpus * vcpus_percent)
		violation("P2", "node %u has VM %u started on node %u, whose VMs have %llu vCPUs with it, of %u processors, %u %%", n->id, vm, id,
			  (unsigned long long)vcpus, has[id - 1].cpus, vcpus_percent);
}

void places_prepared(const struct node *n, unsigned vm, uint32_t id)
{
	const struct vm_def *d = policy_of(vm);

	if (drawn && d && n->cat.move[vm].node != id && !is_dim(n))
		check_place(n, vm, d, id);
}

/* What must be with others goes where they are: it may find a place only once one of them was sent elsewhere (seed 42000158). */
static bool awaits_place(const struct vm_def *d, const struct vm_def *before)
{
	return d->groups_required && (share(d->together, d->n_together, before->together, before->n_together) ||
				      share(d->apart, d->n_apart, before->apart, before->n_apart));
}

void places_assigned(const struct node *n, unsigned vm, uint32_t id)
{
	const struct vm_def *d = policy_of(vm), *before = policy_of(last.vm);

	if (!d || sim.no_placement)
		return;
	if (is_dim(n))
		return;
	if (last.by == n && last.ns == sim.now && last.event == sim.stats.events && last.version == n->cat.version && before && !awaits_place(d, before) &&
	    (before->priority < d->priority || (before->priority == d->priority && last.vm > vm)))
		violation("P1", "node %u has VM %u, priority %u, started before VM %u, priority %u", n->id, last.vm, before->priority, vm, d->priority);
	last.by = n;
	last.ns = sim.now;
	last.event = sim.stats.events; /* two at one time are two looks: a node may have become armed in between */
	last.vm = vm;
	last.version = n->cat.version;
	check_after(n, vm, d);
	places_prepared(n, vm, id);
}

/* Of a node that has lost its lease nothing stays. */
static bool is_on(const struct node *n, unsigned vm)
{
	return n->up && n->k_runs && n->keeper->state == LEASE_ARMED && (n->qemu[vm].state != QEMU_NONE || holds(n->id, vm));
}

/* Whether a VM that does not run could on one of these nodes, as everything is now. */
bool places_has_place(unsigned vm, uint64_t nodes)
{
	const struct vm_def *d = policy_of(vm);

	for (uint32_t id = 1; id <= sim.n_nodes && d && drawn; id++) {
		uint64_t memory = d->memory_mib, vcpus = d->vcpus;
		bool fits = nodes >> (id - 1) & 1 && may_be_on(d, id);

		for (unsigned o = 0; o < sim.n_vms; o++) {
			const struct vm_def *x = sim.vm[o].policy;
			bool here = is_on(sim_node(id), o), elsewhere = false;

			for (uint32_t i = 1; i <= sim.n_nodes; i++)
				elsewhere = elsewhere || (i != id && is_on(sim_node(i), o));
			if (o == vm)
				continue;
			memory += here ? x->memory_mib : 0;
			vcpus += here ? x->vcpus : 0;
			fits = fits && !(d->groups_required && here && share(d->apart, d->n_apart, x->apart, x->n_apart));
			fits = fits && !(d->groups_required && elsewhere && share(d->together, d->n_together, x->together, x->n_together));
		}
		fits = fits && (memory_percent == 0 || memory * 100 <= (uint64_t)has[id - 1].memory_mib * memory_percent);
		fits = fits && (vcpus_percent == 0 || vcpus * 100 <= (uint64_t)has[id - 1].cpus * vcpus_percent);
		if (fits)
			return true;
	}
	return !d || !drawn;
}

/* Whether a VM need not run: it has no place, or one that was made for it, by others that move, a moment ago; from then on it waits for those that it starts after. */
void places_has_run(unsigned vm) { placeless_ns[vm] = 0; }

bool places_may_lack(unsigned vm, uint64_t nodes)
{
	if (places_has_place(vm, nodes)) {
		const struct vm_def *d = policy_of(vm);
		int64_t bound_ms = (int64_t)timing_failover_bound_ms(&sim.timing) + (d && d->n_after > 0 ? sim_order_ms() : 0);

		return placeless_ns[vm] != 0 && sim.now - placeless_ns[vm] < bound_ms * NS_PER_MS;
	}
	placeless_ns[vm] = sim.now;
	return true;
}
