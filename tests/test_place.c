/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a VM is tried and when: agent/core/place.c by tables, and the leader's order of starts, on one leader's view of four nodes. */
#include <stdio.h>

#include "agent/core/agent_core.h"
#include "tests/tap.h"

#define S (1000 * NS_PER_MS)

static struct agent a;

static struct vm *vm(unsigned i) { return &a.vm[i]; }

static struct vm *add(unsigned i, uint32_t memory_mib, uint32_t vcpus)
{
	struct vm *v = vm(i);

	v->used = v->in_catalog = true;
	v->def = (struct vm_def){ .uuid = { (uint8_t)(i + 1) }, .desired = DESIRED_STARTED, .memory_mib = memory_mib, .vcpus = vcpus, .priority = 100,
				  .after_ready = READY_RUNNING, .after_timeout_ms = 60000 };
	(void)snprintf(v->def.name, sizeof(v->def.name), "vm%u", i);
	return v;
}

/* Four nodes of 4 processors and 8 GiB; this is node 1. */
static void begin(void)
{
	memset(&a, 0, sizeof(a));
	a.now_ns = 1000 * S;
	a.opt = (struct agent_options){ .self = 1, .node_max = 4, .members = 15, .n_volumes = 1, .memory_percent = 100, .vcpus_percent = 200 };
	a.opt.timing.leader_ms = 5000;
	a.opt.timing.drain_ms = 2000;
	a.vm_end = 16;
	a.adopted = a.have_table = a.have_catalog = a.catalog_armed = true;
	a.epoch = a.table.table.epoch = 7;
	a.table.table.gate_open = true;
	for (unsigned i = 0; i < 4; i++) {
		struct keeper_table_node *n = &a.table.table.node[i];

		n->known = n->fresh = n->in_view = true;
		n->epoch = 7;
		n->state = HEARTBEAT_ARMED;
		a.node[i].moved = true;
		a.node[i].counter_ns = a.now_ns;
		a.node[i].cpus = 4;
		a.node[i].memory_mib = 8192;
	}
}

static void is(const struct vm *v, uint32_t want, const char *what)
{
	uint32_t got = place_choose(&a, v);

	TAP_OK(got == want, "%s: node %u (got %u)", what, want, got);
}

static void group(char list[][AGENT_GROUP_LEN], unsigned *n, const char *name) { (void)str_copy(list[(*n)++], AGENT_GROUP_LEN, name); }

static void test_limits(void)
{
	struct vm *v;

	begin();
	v = add(0, 1024, 1);
	is(v, 1, "all alike: the lowest");
	add(1, 1024, 1)->owner = 1;
	is(v, 2, "fewest VMs");
	v->def.preferred[v->def.n_preferred++] = 4;
	is(v, 4, "preferred before fewest");
	v->def.has_required = true;
	v->def.required = 1 << 2 | 1 << 0;
	is(v, 3, "required before preferred");
	TAP_OK(place_fits(&a, v, 4) == PLACE_NOT_REQUIRED, "and why");
	v->def.required = 0;
	is(v, 0, "required ones that are not in the configuration: nowhere");

	begin();
	v = add(0, 1024, 5);
	is(v, 0, "more vCPUs than any node has processors: nowhere");
	TAP_OK(place_fits(&a, v, 2) == PLACE_CPUS && place_possible(&a, v, 2) == PLACE_CPUS, "and why, whatever the overcommit");
	a.node[2].cpus = 8;
	is(v, 3, "but where there are enough");
	a.node[2].cpus = 0;
	TAP_OK(place_fits(&a, v, 3) == PLACE_UNKNOWN && place_possible(&a, v, 3) == PLACE_FITS, "not where nobody knows yet");
	a.node[2].cpus = 8;
	a.node[2].memory_mib = 0;
	TAP_OK(place_fits(&a, v, 3) == PLACE_UNKNOWN, "nor where nobody knows yet how much memory there is");
	a.opt.memory_percent = a.opt.vcpus_percent = 0;
	is(v, 3, "unless nothing is limited");

	begin();
	v = add(0, 4096, 1);
	add(1, 4097, 1)->owner = 1;
	add(2, 4096, 1)->owner = 2;
	add(3, 1, 1)->owner = 2;
	add(4, 1, 1)->assigned = 3;
	add(5, 4096, 1)->planned = 3;
	add(6, 1, 1)->assigned = 4;
	add(7, 1, 1)->assigned = 4;
	add(8, 1, 1)->assigned = 4;
	is(v, 4, "memory: of those that run, are started and are on their way");
	TAP_OK(place_fits(&a, v, 1) == PLACE_MEMORY && place_fits(&a, v, 2) == PLACE_MEMORY && place_fits(&a, v, 3) == PLACE_MEMORY, "and why");
	v->owner = 2;
	vm(3)->owner = 0;
	TAP_OK(place_fits(&a, v, 2) == PLACE_FITS, "itself is not counted twice");
	v->owner = 0;
	a.opt.memory_percent = 101;
	TAP_OK(place_fits(&a, v, 1) == PLACE_FITS, "overcommitted");
	a.opt.memory_percent = 0;
	TAP_OK(place_fits(&a, v, 3) == PLACE_FITS, "not limited");

	begin();
	v = add(0, 1, 4);
	for (unsigned i = 1; i <= 5; i++)
		add(i, 1, 1)->owner = 1;
	TAP_OK(place_fits(&a, v, 1) == PLACE_VCPUS && place_fits(&a, v, 2) == PLACE_FITS, "vCPUs: twice the processors, and no more");
	vm(5)->owner = 0;
	TAP_OK(place_fits(&a, v, 1) == PLACE_FITS, "exactly twice");
}

static void test_nodes(void)
{
	static const enum place_why want[4] = { PLACE_EMPTIED, PLACE_NOT_ONLINE, PLACE_NOT_ARMED, PLACE_NO_AGENT };
	struct vm *v;

	begin();
	v = add(0, 1, 1);
	a.maintenance = 1;
	a.table.table.node[1].fresh = false;
	a.table.table.node[2].state = HEARTBEAT_DISARMED;
	a.node[3].counter_ns = a.now_ns - 6 * S;
	for (uint32_t id = 1; id <= 4; id++)
		TAP_OK(place_fits(&a, v, id) == want[id - 1] && strlen(place_why_text(want[id - 1])) > 5, "node %u %s", id, place_why_text(place_fits(&a, v, id)));
	is(v, 0, "nowhere");
}

static void test_groups(void)
{
	struct vm *v;

	begin();
	for (unsigned i = 0; i < 6; i++) {
		v = add(i, 1, 1);
		group(v->def.apart, &v->def.n_apart, "web");
	}
	vm(0)->owner = 1;
	vm(1)->owner = 2;
	vm(2)->assigned = 3;
	is(vm(3), 4, "apart: the node that has none of them");
	vm(3)->owner = 4;
	is(vm(4), 1, "all have one: rather two together than none");
	vm(4)->def.groups_required = true;
	is(vm(4), 0, "required: rather none");
	TAP_OK(place_fits(&a, vm(4), 2) == PLACE_APART, "and why");
	group(vm(4)->def.apart, &vm(4)->def.n_apart, "db");
	vm(3)->def.n_apart = 0;
	is(vm(4), 4, "groups are told by their names");

	begin();
	for (unsigned i = 0; i < 3; i++) {
		v = add(i, 1, 1);
		group(v->def.together, &v->def.n_together, "app");
	}
	is(vm(0), 1, "together: the first one goes anywhere");
	vm(0)->owner = 3;
	add(3, 1, 1)->owner = 3;
	is(vm(1), 3, "the next where it is, though others are emptier");
	a.maintenance = 1 << 2;
	is(vm(1), 1, "which is not to be had: elsewhere");
	vm(1)->def.groups_required = true;
	is(vm(1), 0, "required: nowhere");
	TAP_OK(place_fits(&a, vm(1), 2) == PLACE_TOGETHER, "and why");
	/* The claim of an earlier life of node 1, whose end a keeper that has just started has not read of. */
	vm(0)->holders = 1 << 0 | 1 << 2;
	is(vm(1), 0, "two seem to hold the other one: where it is not known is not where it is");
	vm(0)->holders = 1 << 2;
	a.maintenance = 0;
	is(vm(1), 3, "one holds it: there");
}

/* Claims: node 2 has given it up as failed, node 3 could not prove it quiet. */
static void test_history(void)
{
	struct vm *v;

	begin();
	v = add(0, 1, 1);
	a.claimer.seen_any[1] = true;
	a.claimer.seen[1].n = 1;
	a.claimer.seen[1].claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_FAILED };
	v->def.preferred[v->def.n_preferred++] = 2;
	is(v, 1, "not where it has failed, though that is preferred");
	a.claimer.seen[2].n = 1;
	a.claimer.seen[2].claim[0] = (struct claim){ .vm = { 1 }, .generation = 6, .epoch = 7, .state = CLAIM_UNCLEAN };
	a.maintenance = 1 | 1 << 3;
	is(v, 2, "all that is left has failed: as preferred");
	v->def.n_preferred = 0;
	v->def.preferred[v->def.n_preferred++] = 3;
	is(v, 2, "or could not prove it quiet: who has tried longest ago");
	a.claimer.seen[1].claim[0].generation = 7;
	is(v, 3, "each in its turn");
	a.claimer.seen[1].claim[0].generation = 5;
	a.maintenance = 1 << 3;
	is(v, 1, "but then rather another one");
	a.claimer.seen[3].n = 1;
	a.claimer.seen[3].claim[0] = (struct claim){ .vm = { 1 }, .generation = 8, .epoch = 7, .state = CLAIM_UNCLEAN };
	is(v, 1, "though a later one could not, either");
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .vm = { 1 }, .generation = 7, .epoch = 7, .state = CLAIM_RELEASED };
	is(v, 3, "what could not be done before it ran again is forgotten");
	a.claimer.mine.n = a.claimer.seen[3].n = 0;
	a.claimer.seen[2].claim[0].state = CLAIM_RELEASED;
	is(v, 3, "where it was last and stopped well");
	a.maintenance = 1 << 3;
	v->def.n_preferred = 0;
	v->def.preferred[v->def.n_preferred++] = 2;
	is(v, 3, "node 2 is preferred, and it has failed there");
	a.table.table.node[1].over = 7;
	a.table.table.node[1].epoch = 8;
	is(v, 2, "in an earlier life of the node: that counts no more");
}

static void test_order(void)
{
	struct vm *v, *db;
	const struct vm *none = NULL;

	begin();
	db = add(0, 1, 1);
	v = add(1, 1, 1);
	TAP_OK(lead_awaited(&a, v) == none, "who waits for nobody need not wait");
	(void)str_copy(v->def.after[v->def.n_after++], AGENT_MAX_NAME, "vm0");
	TAP_OK(lead_awaited(&a, v) == db, "not ready: waited for");
	lead_ready(&a, db, 2, READY_RUNNING, false);
	TAP_OK(lead_awaited(&a, v) == none, "it runs");
	v->def.after_delay_ms = 5000;
	TAP_OK(lead_awaited(&a, v) == db, "and has to for a while");
	a.now_ns += 5 * S;
	lead_ready(&a, db, 2, READY_RUNNING, false);
	TAP_OK(lead_awaited(&a, v) == none, "which is over: since it first did");
	v->def.after_ready = READY_CHECK;
	lead_ready(&a, db, 2, READY_AGENT, false);
	TAP_OK(lead_awaited(&a, v) == db, "its agent is not enough");
	lead_ready(&a, db, 2, READY_CHECK, false);
	a.now_ns += 5 * S;
	TAP_OK(lead_awaited(&a, v) == none, "its check is");
	lead_ready(&a, db, 2, READY_RUNNING, false);
	TAP_OK(lead_awaited(&a, v) == db, "it has rebooted: not any more");
	db->def.desired = DESIRED_STOPPED;
	TAP_OK(lead_awaited(&a, v) == none, "who is not to run is not waited for");
	db->def.desired = DESIRED_STARTED;
	v->wait_ns = a.now_ns;
	a.now_ns += 60 * S;
	TAP_OK(lead_awaited(&a, v) == db, "it has its time");
	a.now_ns += S;
	TAP_OK(lead_awaited(&a, v) == none, "and no more");
	(void)str_copy(v->def.after[v->def.n_after++], AGENT_MAX_NAME, "nobody");
	v->wait_ns = 0;
	lead_ready(&a, db, 2, READY_CHECK, false);
	a.now_ns += 5 * S;
	TAP_OK(lead_awaited(&a, v) == none, "a name that nobody has is not waited for");
	/* Our own, which ends and runs anew by the same claim while nobody looks. */
	db->state = VM_RUNNING;
	lead_ready(&a, db, a.opt.self, READY_CHECK, false);
	a.now_ns += 5 * S;
	vmlife_move(&a, db, VM_RESTARTING);
	vmlife_move(&a, db, VM_STARTING);
	vmlife_move(&a, db, VM_RUNNING);
	lead_ready(&a, db, a.opt.self, READY_CHECK, false);
	TAP_OK(lead_awaited(&a, v) == db, "it has ended and runs anew: its time begins anew");
	db->state = VM_IDLE;
	/* What an owner has said is over with its ownership. */
	lead_owners(&a);
	TAP_OK(lead_awaited(&a, v) == db, "nobody owns it: it is not ready, whatever was said");
	a.claimer.seen_any[1] = true;
	a.claimer.seen[1].n = 1;
	a.claimer.seen[1].claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_ACTIVE };
	lead_ready(&a, db, 2, READY_CHECK, false);
	a.now_ns += 5 * S;
	lead_owners(&a);
	TAP_OK(db->owner == 2 && lead_awaited(&a, v) == none, "its owner has said that it is ready");
	/* A claim after that one, whose node is proven over; that node 2's was before is not known yet. */
	a.claimer.seen_any[2] = true;
	a.claimer.seen[2].n = 1;
	a.claimer.seen[2].claim[0] = (struct claim){ .vm = { 1 }, .generation = 6, .epoch = 7, .state = CLAIM_RELEASED };
	lead_owners(&a);
	TAP_OK(db->owner == 2 && lead_awaited(&a, v) == db, "another one has had it since: what was said before counts no more");
	a.claimer.seen_any[2] = false;
	a.claimer.seen[2].n = 0;
	a.claimer.seen[1].claim[0].generation = 7;
	lead_owners(&a);
	TAP_OK(db->owner == 2 && lead_awaited(&a, v) == db, "under an earlier claim than this one: it has begun anew since");
	/* A keeper that has just started does not know yet that the life of node 2 is over. */
	a.claimer.seen_any[2] = true;
	a.claimer.seen[2].n = 1;
	a.claimer.seen[2].claim[0] = (struct claim){ .vm = { 1 }, .generation = 9, .epoch = 7, .state = CLAIM_ACTIVE };
	lead_owners(&a);
	TAP_OK(db->owner == 3, "of two claims that seem to stand the newer one names the owner");
	a.opt.memory_percent = 100;
	db->def.memory_mib = a.node[1].memory_mib;
	a.node[1].counter_ns = a.now_ns;
	TAP_OK(place_fits(&a, v, 2) == PLACE_MEMORY, "until one of them is withdrawn it counts on both nodes");
	a.claimer.seen[1].n = 0;
	lead_owners(&a);
	TAP_OK(place_fits(&a, v, 2) == PLACE_FITS, "and then no more");
}

static unsigned assigned(const struct vm *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a.n_actions; i++)
		n += a.action[i].kind == AGENT_ACT_ASSIGN && a.action[i].vm == v;
	a.n_actions = 0;
	return n;
}

/* Seconds until the leader has it started, of at most `most`. */
static unsigned started_after(const struct vm *v, unsigned most)
{
	for (unsigned s = 0; s <= most; s++) {
		lead_step(&a);
		if (assigned(v) > 0)
			return s;
		a.now_ns += S;
		for (unsigned i = 0; i < 4; i++)
			a.node[i].counter_ns = a.now_ns; /* all agents are there */
	}
	return most + 1;
}

/* How long it waits counts from when it may be started, and not from an earlier time that it was wanted. */
static void test_waiting(void)
{
	struct vm *v;

	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	add(0, 1, 1)->def.required = 0;
	vm(0)->def.has_required = true; /* it has no place: nobody runs it */
	v = add(1, 1, 1);
	v->def.preferred[v->def.n_preferred++] = 2;
	(void)str_copy(v->def.after[v->def.n_after++], AGENT_MAX_NAME, "vm0");
	TAP_OK(started_after(v, 50) == 51, "it waits");
	v->def.desired = DESIRED_STOPPED;
	TAP_OK(started_after(v, 30) == 31, "stopped: it is not started");
	v->def.desired = DESIRED_STARTED;
	TAP_OK(started_after(v, 50) == 51, "wanted again: it waits anew");
	a.pause = PAUSE_FREEZE;
	TAP_OK(started_after(v, 30) == 31, "hands off all: it is not started");
	a.pause = PAUSE_NONE;
	TAP_OK(started_after(v, 100) == 61, "its time counts from then");

	/* As the claim of a node whose agent is silent, which seems to stand whenever its keeper has just written. */
	v->assigned = 0;
	v->wait_ns = 0;
	a.claimer.seen_any[1] = true;
	a.claimer.seen[1].claim[0] = (struct claim){ .vm = { 2 }, .generation = 3, .epoch = 7, .state = CLAIM_ACTIVE };
	for (unsigned s = 0; s < 60; s++) {
		a.claimer.seen[1].n = s % 3 == 0;
		(void)started_after(v, 0);
	}
	a.claimer.seen[1].n = 0;
	TAP_OK(v->assigned == 0 && started_after(v, 100) == 2, "an owner for a moment does not begin its time anew");
	v->assigned = 0;
	a.claimer.seen[1].n = 1;
	(void)started_after(v, 10);
	a.claimer.seen[1].n = 0;
	TAP_OK(started_after(v, 50) == 51, "one that stays does");
}

/* Node 3 was asked and did nothing; by then nobody can take it. */
static void test_asked_in_vain(void)
{
	struct vm *v;

	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	v = add(0, 1, 1);
	v->assigned = 3;
	v->assigned_ns = a.now_ns;
	a.maintenance = 15;
	TAP_OK(started_after(v, 10) == 11 && v->assigned == 0, "it counts on no node any more");
	a.maintenance = 1; /* the others are to start it */
	a.have_table = false;
	TAP_OK(started_after(v, 3) == 4, "without its keeper, which tells whose claims stand, nobody has anything started");
	a.have_table = true;
	TAP_OK(started_after(v, 3) == 0, "with it: at once");
}

/* Which node the leader asks next, within `most` seconds; 0: none. */
static uint32_t asks_next(const struct vm *v, unsigned most)
{
	return started_after(v, most) <= most ? v->assigned : 0;
}

/* Its heartbeat moves, and it never does what it is asked for. */
static void test_unheeded(void)
{
	struct vm *v;

	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	a.table.table.node[0].state = HEARTBEAT_DISARMED; /* others are to start it */
	v = add(0, 1, 1);
	v->def.preferred[v->def.n_preferred++] = 2;
	TAP_OK(asks_next(v, 1) == 2, "asked: the node it prefers");
	TAP_OK(asks_next(v, 10) == 3 && asks_next(v, 10) == 4, "which does nothing, and so the next one: each is asked");
	TAP_OK(asks_next(v, 10) == 2 && asks_next(v, 10) == 3, "and again, as nobody has done it");
	a.claimer.seen_any[3] = true;
	a.claimer.seen[3].n = 1;
	a.claimer.seen[3].claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_ACTIVE };
	(void)started_after(v, 5);
	a.claimer.seen[3].claim[0].state = CLAIM_RELEASED;
	TAP_OK(asks_next(v, 1) == 2, "one has: what was before is forgotten");
	a.claimer.seen[2].n = a.claimer.seen[3].n = 1;
	a.claimer.seen[2].claim[0] = (struct claim){ .vm = { 1 }, .generation = 7, .epoch = 7, .state = CLAIM_FAILED };
	a.claimer.seen[3].claim[0] = (struct claim){ .vm = { 1 }, .generation = 6, .epoch = 7, .state = CLAIM_FAILED };
	TAP_OK(started_after(v, 100) == 60, "it has failed on the others, and this one does nothing: tried again after a minute");
	TAP_OK(v->assigned == 3, "there, and not where nothing is done");

	/* A request of an operator. */
	v->assigned = 0;
	a.claimer.seen[2].n = 0;
	a.claimer.seen[3].claim[0].state = CLAIM_ACTIVE;
	(void)started_after(v, 5);
	a.claimer.seen[3].claim[0].state = CLAIM_RELEASED;
	v->def.move = (struct vm_move){ .node = 2, .number = 1 };
	TAP_OK(asks_next(v, 1) == 2 && asks_next(v, 10) == 2 && asks_next(v, 10) == 2 && asks_next(v, 10) == 2, "asked to be there: that one is asked for some time");
	TAP_OK(asks_next(v, 60) == 0 && v->move_over_ns != 0 && !v->move_done, "and not for ever: the request is over");
	v->def.move.node = 0;
	TAP_OK(asks_next(v, 1) == 4, "it runs elsewhere");
}

/* Both were asked for in vain; only where the one of lower priority was asked for there is room for the other one. */
static void test_places_in_vain(void)
{
	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	a.maintenance = 1 | 1 << 2;
	a.node[1].memory_mib = 4096;
	add(0, 6000, 1)->def.priority = 200;
	add(1, 4000, 1);
	for (unsigned i = 0; i < 2; i++) {
		vm(i)->assigned = i == 0 ? 3 : 4;
		vm(i)->assigned_ns = a.now_ns - 5 * S;
	}
	lead_step(&a);
	TAP_OK(vm(0)->assigned == 4 && vm(1)->assigned == 2, "what was asked for in vain keeps nobody of higher priority from a place");
	a.n_actions = 0;
}

/* The leader's own part in the VM does not come to an end. */
static void test_stuck_leader(void)
{
	struct vm *v;

	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	v = add(0, 1, 1);
	v->state = VM_DISCARDING; /* its QEMU came to wait for the guest, is killed, and does not end; who had the VM is over */
	v->since_ns = a.now_ns;
	TAP_OK(started_after(v, 60) == 5 && v->assigned == 2, "a QEMU that does not end here: another node is asked");
	TAP_OK(started_after(v, 60) == 5 && v->assigned == 3, "and the next one");

	v->state = VM_IDLE;
	v->assigned = 0;
	v->unheeded = 0;
	lead_step(&a);
	v->asked_until_ns = a.now_ns;
	TAP_OK(v->assigned == 1 && vmlife_assign(&a, v) && v->state == VM_CLAIMING && claimer_pending(&a, v->def.uuid), "it claims it itself");
	a.n_actions = 0;
	TAP_OK(started_after(v, 60) == 5 && v->assigned == 2 && v->state == VM_IDLE && !claimer_pending(&a, v->def.uuid),
	       "but nothing of that can be issued: it takes that back and asks another one");
	v->state = VM_IDLE;
	v->assigned = 0;
	v->unheeded = 0;
	lead_step(&a);
	(void)vmlife_assign(&a, v);
	a.claimer.want[0].in_cycle = true;
	a.n_actions = 0;
	TAP_OK(started_after(v, 60) == 61 && v->state == VM_CLAIMING, "what is issued is not taken back");
}

/* It has failed on node 2; the others have no room. */
static void test_failed_everywhere(void)
{
	struct vm *v;

	begin();
	a.leads = a.lead_read = true;
	a.lead_generation = 4;
	a.claimer.read_once = true;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 4, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	v = add(0, 8000, 1);
	for (unsigned i = 1; i < 4; i++) {
		struct claims *c = i == 1 ? &a.claimer.mine : &a.claimer.seen[i];

		add(i, 1000, 1);
		a.claimer.seen_any[i] = true;
		c->claim[c->n++] = (struct claim){ .vm = { (uint8_t)(i + 1) }, .generation = 3, .epoch = 7, .state = CLAIM_ACTIVE };
	}
	vm(1)->state = VM_RUNNING;
	vm(1)->def.health.hang = REACT_IGNORE;
	a.claimer.seen_any[1] = true;
	a.claimer.seen[1].n = 1;
	a.claimer.seen[1].claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_FAILED };
	v->assigned_ns = a.now_ns;
	TAP_OK(started_after(v, 100) == 60, "failed where there is room for it, and only there: tried again after a minute");
	v->assigned = 0;
	v->def.move = (struct vm_move){ .node = 3, .number = 1 };
	TAP_OK(started_after(v, 100) == 0 && v->assigned == 3, "where an operator wants it: at once");
	v->def.move.node = 0;
	v->assigned = 0;
	a.claimer.seen[2].n = 0;
	TAP_OK(started_after(v, 100) == 0 && v->assigned == 3, "there is room on another node: at once");
}

/* Node 2 has handed it over, and whom it was for does not claim it. */
static struct vm *handed(void)
{
	struct vm *v;

	begin();
	a.opt.timing.io_ms = 1000;
	a.table.table.node[0].state = HEARTBEAT_DISARMED; /* others are to start it */
	a.claimer.read_once = a.leads = a.lead_read = true;
	a.lead_generation = 9;
	a.claimer.mine.n = 1;
	a.claimer.mine.claim[0] = (struct claim){ .generation = 9, .epoch = 7, .state = CLAIM_ACTIVE };
	memcpy(a.claimer.mine.claim[0].vm, agent_leader_uuid, 16);
	v = add(0, 1, 1);
	a.claimer.seen_any[1] = true;
	a.claimer.seen[1].n = 1;
	a.claimer.seen[1].claim[0] = (struct claim){ .vm = { 1 }, .generation = 5, .epoch = 7, .state = CLAIM_HANDED, .migration = 77 };
	return v;
}

static void test_handed(void)
{
	struct vm *v = handed();

	TAP_OK(started_after(v, 60) == 9, "handed over and not claimed: started anew after T_leader + 4 T_io");
	v = handed();
	v->def.move = (struct vm_move){ .node = 3, .number = 1, .live = true };
	a.maintenance = 1 << 2;
	for (unsigned i = 0; i < 20; i++) { /* its request is withdrawn only after a while */
		lead_step(&a);
		(void)assigned(v);
		a.now_ns += S / 2;
		for (unsigned j = 0; j < 4; j++)
			a.node[j].counter_ns = a.now_ns;
	}
	v->def.move.node = 0;
	TAP_OK(started_after(v, 60) == 0, "a request to be where it cannot be took longer than that: at once after it");
	a.claimer.seen[1].claim[0].generation = 6;
	v->assigned = 0;
	TAP_OK(started_after(v, 60) == 9, "handed over once more: its target has its time again");
}

static void grant(struct vm *v)
{
	v->state = VM_CLAIMING;
	vmlife_claim_result(&a, v->def.uuid, CLAIM_GRANTED, 1, false, 0);
}

static void happens(struct vm *v, enum agent_event_kind kind)
{
	struct agent_event ev = { .kind = kind, .exit = VM_EXIT_CRASH };

	vmlife_event(&a, v, &ev);
	for (unsigned i = 0; i < 8; i++)
		if (vm(i)->used)
			vmlife_tick(&a, vm(i));
	a.n_actions = 0;
}

static void test_parallel(void)
{
	begin();
	a.opt.starts_per_node = 2;
	for (unsigned i = 0; i < 6; i++)
		add(i, 1, 1)->def.priority = i == 5 ? 200 : 100;
	for (unsigned i = 0; i < 6; i++)
		grant(vm(i));
	a.n_actions = 0;
	TAP_OK(vm(0)->state == VM_STARTING && vm(1)->state == VM_STARTING && vm(2)->state == VM_DRAINING && vm(5)->state == VM_DRAINING,
	       "two at a time: the others wait, claimed and proven");
	happens(vm(0), AGENT_EV_DRAINED);
	happens(vm(2), AGENT_EV_DRAINED);
	TAP_OK(vm(2)->state == VM_DRAINING && vm(2)->queued, "a late proof starts nothing out of turn");
	happens(vm(0), AGENT_EV_STARTED);
	TAP_OK(vm(0)->state == VM_RUNNING && vm(5)->state == VM_STARTING && vm(2)->state == VM_DRAINING, "one runs: the highest priority is next");
	happens(vm(1), AGENT_EV_STARTED);
	TAP_OK((vm(2)->state == VM_STARTING) + (vm(3)->state == VM_STARTING) + (vm(4)->state == VM_STARTING) == 1, "and so on");
	vm(4)->def.desired = vm(3)->def.desired = DESIRED_STOPPED;
	happens(vm(5), AGENT_EV_STARTED);
	happens(vm(3), AGENT_EV_DRAINED);
	happens(vm(4), AGENT_EV_DRAINED);
	TAP_OK(vm(3)->state == VM_RELEASING || vm(4)->state == VM_RELEASING, "one that is not wanted any more is given up, never started");
	a.opt.starts_per_node = 0;
	begin();
	for (unsigned i = 0; i < 6; i++)
		grant(add(i, 1, 1));
	TAP_OK(vm(0)->state == VM_STARTING && vm(5)->state == VM_STARTING, "0: all at once");
}

/* This node goes into maintenance with two VMs of 4 GiB, whose leader is another. Nodes 3 and 4 are full, node 2 has room for one. */
static void test_emptied_together(bool room_for_both)
{
	begin();
	for (unsigned i = 0; i < 5; i++) {
		struct claims *c = i < 2 ? &a.claimer.mine : &a.claimer.seen[i - 1];

		add(i, i < 2 ? 4096 : i == 2 || room_for_both ? 4000 : 8000, 1);
		vm(i)->def.stop_timeout_ms = 60000;
		if (i >= 2)
			a.claimer.seen_any[i - 1] = true;
		c->claim[c->n++] = (struct claim){ .vm = { (uint8_t)(i + 1) }, .generation = 3, .epoch = 7, .state = CLAIM_ACTIVE };
		if (i < 2)
			vm(i)->state = VM_RUNNING;
	}
	a.maintenance = 1;
	vmlife_tick(&a, vm(0));
	vmlife_tick(&a, vm(1));
	a.n_actions = 0;
}

static void test_maintenance(void)
{
	test_emptied_together(true);
	TAP_OK(vm(0)->state == VM_STOPPING && vm(1)->state == VM_STOPPING, "maintenance: there is room for both: both go at once");
	test_emptied_together(false);
	TAP_OK(vm(0)->state == VM_STOPPING && vm(1)->state == VM_RUNNING && vm(1)->stays, "there is room for one: the other one runs on");
	vm(0)->state = VM_IDLE;
	a.claimer.mine.claim[0].state = CLAIM_RELEASED;
	a.now_ns += 2 * S;
	vmlife_tick(&a, vm(1));
	TAP_OK(vm(1)->state == VM_RUNNING, "also while nobody has started the first one yet");
	a.claimer.seen[2].claim[0].state = CLAIM_RELEASED;
	a.now_ns += 2 * S;
	vmlife_tick(&a, vm(1));
	TAP_OK(vm(1)->state == VM_STOPPING, "room elsewhere: it goes, too");
	a.n_actions = 0;
}

int main(void)
{
	test_limits();
	test_nodes();
	test_groups();
	test_history();
	test_order();
	test_waiting();
	test_asked_in_vain();
	test_unheeded();
	test_places_in_vain();
	test_stuck_leader();
	test_failed_everywhere();
	test_handed();
	test_parallel();
	test_maintenance();
	return tap_done();
}
