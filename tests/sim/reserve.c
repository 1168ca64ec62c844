/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent reservations: what targets keep of each VM's LUN, and what agent/reserve.c and ha-reserve do for the agent core. Which command comes next is the
 * shipped storage/reservation.c. A command that was sent is executed sooner or later, whatever becomes of who sent it. What was sent by a host that has lost the VM
 * may come at any time ("ghosts"), beyond every bound that the other proofs rest on: only a reservation keeps it off.
 *
 *   R1  a VM starts reserved only with its own node's key on each path, and nobody else's on the LUN; then no ghost of another node is let through
 *   R2  a guest that nobody else runs is refused no write, whether it runs reserved or not, unless the target has lost its registration
 *   R3  no key comes back under a running guest
 *   R4  a stranger's key is left alone
 *   R5  no key is taken back while the guest runs that its LUN is reserved for
 *   R6  in a cluster that is well nobody else's key is on the LUN */
#include <stdio.h>

#include "agent/base/mutant.h"
#include "tests/sim/sim.h"

#define STREAM_RESERVE 1010
#define CHECK_MS 10000
#define LIMIT_MS 28000
#define HELD_MS 50
#define QUEUED_MS 10
#define STRANGE_KEY 0xbadc0ffee0ddf00dULL

static struct lun *lun_of(unsigned vm) { return &sim.vm[vm].lun; }
static struct reserve_job *job_of(struct node *n, unsigned vm) { return &n->reserve[vm]; }

static bool lives(const struct qemu *q) { return q->state == QEMU_RUNS && q->live; }

/* ---- the target ---- */

static void drop(struct lun *l, unsigned node, unsigned path)
{
	bool any = false;

	l->key[node][path] = 0;
	for (unsigned p = 0; p < l->n_paths; p++)
		any = any || l->key[node][p] != 0;
	l->stale[node] = l->stale[node] && any;
	if (l->held && l->holder == node && l->holder_path == path)
		l->held = false;
}

static enum reservation_status preempt(struct lun *l, unsigned self, const struct reservation_command *c, unsigned vm)
{
	bool found = false, holder = !l->held || l->key[l->holder][l->holder_path] == c->service_key;
	bool was_held = l->held;

	if (l->key[self][c->path] != c->key)
		return RESERVATION_CONFLICT;
	if (c->kind == RESERVATION_PREEMPT_ABORT && l->no_abort)
		return RESERVATION_REFUSED;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		for (unsigned p = 0; p < l->n_paths; p++)
			if (l->key[i][p] == c->service_key && c->service_key != c->key) {
				found = true;
				drop(l, i, p);
			}
	if (l->strange == c->service_key) {
		violation("R4", "VM %u: node %u preempts a stranger's key", vm, self + 1);
		l->strange = 0;
		found = true;
	}
	if (!found)
		return RESERVATION_CONFLICT;
	if (was_held && holder) {
		l->held = true;
		l->holder = self;
		l->holder_path = c->path;
	}
	return RESERVATION_GOOD;
}

static enum reservation_status register_key(struct node *n, unsigned vm, const struct reservation_command *c)
{
	struct lun *l = lun_of(vm);
	uint64_t *key = &l->key[n->id - 1][c->path], was = *key;

	if (c->kind == RESERVATION_REGISTER && (*key == 0 || *key != c->key))
		return RESERVATION_CONFLICT;
	if (was == 0 && lives(&n->qemu[vm]))
		violation("R3", "VM %u: node %u registers again under the running guest", vm, n->id);
	if (c->service_key == 0) {
		if (lives(&n->qemu[vm]) && n->qemu[vm].reserved && l->held) /* an adopted one is not: R2 is about that */
			violation("R5", "VM %u: node %u takes its key back while the guest runs", vm, n->id);
		drop(l, n->id - 1, c->path);
		return RESERVATION_GOOD;
	}
	*key = c->service_key;
	if (was == 0) /* nobody has waited for it for long; or it is to be, or not to be, the next one */
		l->stale[n->id - 1] = !job_of(n, vm)->busy || job_of(n, vm)->op == RESERVATION_JOIN;
	if (c->kind == RESERVATION_REGISTER_IGNORE && l->drop_next > 0 && c->path > 0) {
		l->drop_next--;
		chaos_effect(CHAOS_RESERVE);
		drop(l, n->id - 1, c->path);
	}
	return RESERVATION_GOOD;
}

static void perform(struct node *n, unsigned vm, const struct reservation_command *c, struct reservation_answer *a)
{
	struct lun *l = lun_of(vm);
	unsigned self = n->id - 1;

	*a = (struct reservation_answer){ .status = l->capable ? RESERVATION_GOOD : RESERVATION_REFUSED };
	if (l->dead[self] == c->path + 1)
		a->status = RESERVATION_ERROR;
	if (a->status != RESERVATION_GOOD)
		return;
	switch (c->kind) {
	case RESERVATION_REPORT_CAPABILITIES:
		a->capabilities = (struct reservation_capabilities){ true, true, true };
		break;
	case RESERVATION_READ_KEYS:
		for (unsigned i = 0; i < sim.n_nodes; i++)
			for (unsigned p = 0; p < l->n_paths; p++)
				if (l->key[i][p])
					a->keys.key[a->keys.n++] = l->key[i][p];
		if (l->strange)
			a->keys.key[a->keys.n++] = l->strange;
		break;
	case RESERVATION_READ_HOLDER:
		if (l->held)
			a->holder = (struct reservation_holder){ true, l->key[l->holder][l->holder_path], RESERVATION_WERO };
		break;
	case RESERVATION_REGISTER:
	case RESERVATION_REGISTER_IGNORE:
		a->status = register_key(n, vm, c);
		break;
	case RESERVATION_RESERVE:
		if (l->key[self][c->path] != c->key || (l->held && (l->holder != self || l->holder_path != c->path))) {
			a->status = RESERVATION_CONFLICT;
			break;
		}
		l->held = true;
		l->holder = self;
		l->holder_path = c->path;
		break;
	case RESERVATION_GIVE_UP:
		a->status = l->key[self][c->path] == c->key ? RESERVATION_GOOD : RESERVATION_CONFLICT;
		l->held = l->held && (l->holder != self || l->holder_path != c->path || a->status != RESERVATION_GOOD);
		break;
	default:
		a->status = preempt(l, self, c, vm);
	}
}

bool reserve_refuses(const struct op *op)
{
	struct lun *l = lun_of((unsigned)op->arg);
	const struct qemu *q = &op->node->qemu[op->arg];
	unsigned self = op->node->id - 1, path;

	if (!sim.reserve || !l->held)
		return false;
	path = (unsigned)rnd(l->n_paths);
	if (l->dead[self] == path + 1)
		path = 1 - path; /* by the other one then */
	if (l->key[self][path] != 0)
		return false;
	sim.stats.refused++;
	if (!op->orphan && lives(q) && !q->foreign && !q->kill_pending && !q->quitting && q->stamp.instance == op->stamp.instance && !l->excused[self] &&
	    q->stamp.epoch > sim.over[self])
		violation("R2", "VM %u: a write of its guest on node %u, which runs %sreserved, is refused", (unsigned)op->arg, op->node->id, q->reserved ? "" : "un");
	return true;
}

/* ---- the agent's side ---- */

static void step(struct node *n, unsigned vm);

static uint64_t pack(unsigned vm, uint32_t serial) { return (uint64_t)serial << 32 | vm; }

static void tell(struct node *n, unsigned vm, enum reservation_op op, enum reservation_result result)
{
	struct agent_event ev = { .kind = AGENT_EV_RESERVED, .reserve = op, .reserved = result, .number = job_of(n, vm)->number };

	memcpy(ev.uuid, sim.vm[vm].uuid, 16);
	agent_edge_event(n, &ev);
}

static void begin(struct node *n, unsigned vm, enum reservation_op op, enum reservation_op plan);

static void on_check(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct reserve_job *j = job_of(n, vm);

	enum reservation_op op = j->owned ? RESERVATION_KEEP : RESERVATION_CHECK;

	const struct vm *v = n->a_runs ? agent_vm_by_uuid(n->agent, sim.vm[vm].uuid) : NULL;

	if (j->serial != (uint32_t)(ev->arg >> 32) || j->busy || n->reserves_not || !(j->owned || j->joined))
		return;
	if (!v || !reserve_may_have(v)) {
		world_post_proc(&n->aproc, node_wait(n, CHECK_MS * NS_PER_MS), on_check, n, ev->arg);
		return;
	}
	begin(n, vm, op, op);
	j->asked = false;
}

/* By a source that was still to preempt others. Not once it sends. */
static void on_take(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)ev->arg;
	bool source = false;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct qemu *q = &sim.node[i].qemu[vm];

		if (qemu_sends(q) || qemu_sent(q))
			return;
		source = source || (i != n->id - 1 && lives(q));
	}
	if (!source || lives(&n->qemu[vm]) || !job_of(n, vm)->joined)
		return;
	chaos_effect(CHAOS_RESERVE);
	history_add("node %u: VM %u: its key is preempted by the source", n->id, vm);
	for (unsigned p = 0; p < lun_of(vm)->n_paths; p++)
		drop(lun_of(vm), n->id - 1, p);
}

static void take_joined(struct node *n, unsigned vm)
{
	const struct vm *v = agent_vm_by_uuid(n->agent, sim.vm[vm].uuid);

	if (!lun_of(vm)->take_next || !v || v->state != VM_INCOMING)
		return;
	lun_of(vm)->take_next = false;
	world_post(rnd_ms(1, 1500), on_take, n, vm);
}

static void finish(struct node *n, unsigned vm, enum reservation_result result)
{
	struct reserve_job *j = job_of(n, vm);
	enum reservation_op op = j->op;
	bool looks = !j->asked;

	j->unlooked = looks ? result == RESERVATION_FAILED : j->unlooked || (op == RESERVATION_LEARN && result == RESERVATION_OTHERS);
	j->busy = false;
	j->serial++;
	if (op == RESERVATION_JOIN || op == RESERVATION_LEAVE || (result == RESERVATION_OK && (op == RESERVATION_CLEAR || j->plan.op == RESERVATION_RELEASE)))
		j->owned = j->joined = false;
	if (result == RESERVATION_OK && j->plan.op == RESERVATION_OWN) {
		j->owned = true;
		j->joined = false;
	}
	if (result == RESERVATION_OK && j->plan.op == RESERVATION_RELEASE)
		result = RESERVATION_NONE;
	if (op == RESERVATION_JOIN && result != RESERVATION_OK && result != RESERVATION_NONE)
		agent_edge_cannot(n, vm);
	if (result == RESERVATION_OK && (op == RESERVATION_JOIN || j->plan.op == RESERVATION_OWN))
		j->marked = j->key;
	if (result == RESERVATION_OK && j->plan.op == RESERVATION_OWN) /* whoever only looks (KEEP) may look at what has come late */
		lun_of(vm)->stale[n->id - 1] = false;
	sim.stats.reserved += j->owned && op == RESERVATION_OWN;
	if (result == RESERVATION_OK && op == RESERVATION_JOIN) {
		j->joined = true;
		take_joined(n, vm);
	}
	if (!looks || result == RESERVATION_LOST)
		history_add("node %u: VM %u: %s of its LUN: %s %s", n->id, vm, op == RESERVATION_LEARN ? "learn" : reservation_op_name(op), reservation_result_name(result),
			    j->plan.why);
	if (j->owned || j->joined)
		world_post_proc(&n->aproc, node_wait(n, CHECK_MS * NS_PER_MS), on_check, n, pack(vm, j->serial));
	if (!looks || result == RESERVATION_LOST || result == RESERVATION_OTHERS)
		tell(n, vm, looks && result == RESERVATION_LOST ? RESERVATION_CHECK : op, result);
}

static void on_limit(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);

	if (job_of(n, vm)->busy && job_of(n, vm)->serial == (uint32_t)(ev->arg >> 32))
		finish(n, vm, RESERVATION_FAILED);
}

static void on_answered(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct reserve_job *j = job_of(n, vm);

	if (!j->busy || j->serial != (uint32_t)(ev->arg >> 32))
		return;
	reservation_answer(&j->plan, &j->answer);
	step(n, vm);
}

static void on_command(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);
	struct reserve_job *j = job_of(n, vm);
	struct lun *l = lun_of(vm);
	const struct target *t = &sim.target[sim.vm[vm].target];

	if (l->hung || t->hung || t->cut >> (n->id - 1) & 1) {
		world_post(HELD_MS * NS_PER_MS, on_command, n, ev->arg);
		return;
	}
	perform(n, vm, &j->sent, &j->answer);
	j->under_way = false;
	if (l->lose_acks > 0) {
		l->lose_acks--;
		chaos_effect(CHAOS_RESERVE);
		return;
	}
	world_post_proc(&n->aproc, rnd_us(50, 400), on_answered, n, ev->arg);
}

static void on_step(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);

	if (job_of(n, vm)->busy && job_of(n, vm)->serial == (uint32_t)(ev->arg >> 32))
		step(n, vm);
}

static void step(struct node *n, unsigned vm)
{
	struct reserve_job *j = job_of(n, vm);
	struct reservation_command c = reservation_next(&j->plan);

	if (c.kind == RESERVATION_END) {
		finish(n, vm, j->plan.result);
		return;
	}
	if (j->under_way) { /* of one before, which hangs: one process a VM */
		world_post_proc(&n->aproc, QUEUED_MS * NS_PER_MS, on_step, n, pack(vm, j->serial));
		return;
	}
	j->under_way = true;
	j->sent = c;
	world_post(rnd_us(50, 400), on_command, n, pack(vm, j->serial));
}

static void begin(struct node *n, unsigned vm, enum reservation_op op, enum reservation_op plan)
{
	struct reserve_job *j = job_of(n, vm);
	uint8_t cluster[16];

	memcpy(cluster, sim.sb[0].cluster, 16);
	j->busy = j->asked = true;
	j->op = op;
	j->serial++;
	if (op != RESERVATION_LEAVE || j->key == 0)
		j->key = reservation_key(cluster, n->id, n->agent->epoch);
	if (op == RESERVATION_JOIN) /* what was lost before has to be noticed */
		lun_of(vm)->excused[n->id - 1] = false;
	reservation_plan_init(&j->plan, plan, j->key, lun_of(vm)->n_paths, false);
	world_post_proc(&n->aproc, node_wait(n, LIMIT_MS * NS_PER_MS), on_limit, n, pack(vm, j->serial));
	world_post_proc(&n->aproc, rnd_ms(1, 4), on_step, n, pack(vm, j->serial));
}

static void on_none(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);

	if (job_of(n, vm)->serial == (uint32_t)(ev->arg >> 32))
		tell(n, vm, RESERVATION_LEARN, RESERVATION_NONE);
}

static void on_not_ours(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned vm = (unsigned)(ev->arg & 0xffff);

	if (job_of(n, vm)->serial == (uint32_t)(ev->arg >> 32))
		tell(n, vm, RESERVATION_OWN, RESERVATION_LOST);
}

static enum reservation_op carried_out(const struct node *n, const struct reserve_job *j, enum reservation_op op)
{
	if (op == RESERVATION_JOIN && n->reserves_not)
		return RESERVATION_LOOK;
	if (op != RESERVATION_LEARN)
		return op;
	return n->reserves_not ? RESERVATION_RELEASE : j->joined ? RESERVATION_OWN : RESERVATION_KEEP;
}

void reserve_op(struct node *n, unsigned vm, enum reservation_op op, uint64_t number)
{
	struct reserve_job *j = job_of(n, vm);
	uint8_t cluster[16];

	memcpy(cluster, sim.sb[0].cluster, 16);
	if (op == RESERVATION_LEARN && j->marked != reservation_key(cluster, n->id, n->agent->epoch)) /* of an epoch before */
		j->owned = j->joined = false;
	j->number = number;
	if (op == RESERVATION_OWN && n->reserves_not) {
		j->busy = false;
		world_post_proc(&n->aproc, rnd_ms(1, 4), on_not_ours, n, pack(vm, ++j->serial));
	} else if (op == RESERVATION_FORGET) {
		j->busy = j->owned = j->joined = false;
		j->serial++;
	} else if (op == RESERVATION_LEARN && !j->owned && !j->joined) {
		j->busy = false;
		world_post_proc(&n->aproc, rnd_ms(1, 4), on_none, n, pack(vm, ++j->serial));
	} else {
		begin(n, vm, op, carried_out(n, j, op));
	}
}

void reserve_agent_starts(struct node *n)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		job_of(n, vm)->busy = false;
		job_of(n, vm)->serial++;
		job_of(n, vm)->key = 0;
	}
	if (sim.reserve_mixed) /* an operator has changed it, here */
		n->reserves_not = chance(500);
}

/* ---- QEMU ---- */

static void check_alone(const struct qemu *q, const char *invariant, bool late)
{
	const struct lun *l = lun_of(q->vm);
	unsigned self = q->node->id - 1;

	for (unsigned i = 0; i < sim.n_nodes; i++)
		for (unsigned p = 0; p < l->n_paths; p++) {
			if (i != self && l->key[i][p] != 0 && (!l->stale[i] || !late))
				violation(invariant, "VM %u runs reserved on node %u with node %u registered", q->vm, self + 1, i + 1);
			if (i == self && l->key[i][p] == 0 && !l->excused[i] && l->dead[i] != p + 1)
				violation(invariant, "VM %u runs reserved on node %u, which is not registered on path %u", q->vm, self + 1, p);
		}
}

void reserve_runs(struct qemu *q)
{
	q->foreign = q->node->run[q->vm].foreign;
	q->reserved = sim.reserve && q->node->reserve[q->vm].owned && !q->foreign;
	if (q->reserved)
		check_alone(q, "R1", true);
}

void reserve_continued(struct qemu *q)
{
	const struct lun *l = lun_of(q->vm);
	unsigned self = q->node->id - 1;

	q->reserved = sim.reserve && q->node->reserve[q->vm].joined;
	q->foreign = false;
	for (unsigned p = 0; p < l->n_paths && q->reserved && l->held; p++)
		if (l->key[self][p] == 0 && l->dead[self] != p + 1 && !l->excused[self])
			violation("R2", "VM %u goes on where it was sent, node %u, which is not registered on path %u any more", q->vm, self + 1, p);
}

/* Has come late, from a host that was held up for however long. */
static void on_ghost(struct sim_event *ev)
{
	unsigned vm = (unsigned)(ev->arg & 0xff), from = (unsigned)(ev->arg >> 8 & 0xff);
	const struct lun *l = lun_of(vm);

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		const struct qemu *q = &sim.node[i].qemu[vm];

		if (i == from || !lives(q) || !q->reserved || !sim.node[i].reserve[vm].owned || l->excused[i] || sim.node[i].reserves_not)
			continue; /* reserves_not: from now on it is to go without */
		if (l->held && l->key[from][0] == 0) {
			sim.stats.refused++;
			continue;
		}
		for (unsigned o = 0; o < sim.n_nodes; o++)
			if (o != i && (sim.node[o].qemu[vm].state != QEMU_NONE || sim.node[o].reserve[vm].joined || sim.node[o].reserve[vm].busy))
				return; /* a migration: its target has registered */
		if (!l->stale[from])
			violation("R1", "VM %u: a late write of node %u is let through while node %u runs it", vm, from + 1, i + 1);
	}
}

void reserve_gone(const struct qemu *q)
{
	if (sim.reserve && q->state == QEMU_RUNS && q->live && q->reserved)
		world_post(rnd_ms(500, 300000), on_ghost, NULL, (uint64_t)(q->node->id - 1) << 8 | q->vm);
}

void reserve_host_gone(struct node *n)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++)
		n->reserve[vm].owned = n->reserve[vm].joined = n->reserve[vm].busy = false;
}

/* ---- seeds and faults ---- */

void reserve_reset(void)
{
	sim.reserve = sim.reserve_mixed = false;
	for (unsigned vm = 0; vm < SIM_MAX_VMS; vm++)
		*lun_of(vm) = (struct lun){ .n_paths = 1 };
}

/* Before the first agent runs; of a stream of its own, so that worlds without reservations are as they were. */
void reserve_draw(void)
{
	uint64_t world = sim.rng;

	sim.rng = rnd_stream(STREAM_RESERVE, 0);
	sim.reserve = !sim.no_reservation && (chance(350) || chaos_often >> CHAOS_RESERVE & 1);
	for (unsigned vm = 0; vm < sim.n_vms && sim.reserve; vm++) {
		struct lun *l = lun_of(vm);

		l->capable = chance(850);
		l->no_abort = chance(400);
		l->n_paths = 1 + (unsigned)rnd(2);
	}
	sim.reserve_mixed = sim.reserve && chance(300);
	sim.rng = world;
}

static void path_back(struct lun *l, unsigned node)
{
	if (l->dead[node] != 0 && l->key[node][l->dead[node] - 1] == 0)
		l->excused[node] = true; /* what comes by that path now is refused, until the guest is started again */
	l->dead[node] = 0;
}

static void on_mend(struct sim_event *ev)
{
	struct lun *l = lun_of((unsigned)(ev->arg & 0xff));

	l->hung = false;
	l->strange = 0;
	l->take_next = false;
	l->lose_acks = l->drop_next = 0;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		path_back(l, i);
}

/* A target that has restarted and kept nothing. */
static void lose_all(unsigned vm)
{
	struct lun *l = lun_of(vm);

	l->held = false;
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		l->excused[i] = true;
		for (unsigned p = 0; p < l->n_paths; p++)
			drop(l, i, p);
	}
}

static void lose_path(unsigned vm, unsigned node)
{
	struct lun *l = lun_of(vm);

	l->excused[node] = true;
	drop(l, node, (unsigned)rnd(l->n_paths));
}

/* What it sent when the VM was to be its own is executed now. */
static void register_late(struct node *n, unsigned vm)
{
	struct lun *l = lun_of(vm);
	uint8_t cluster[16];

	if (!n->up || !n->agent || n->agent->epoch == 0 || !l->capable || n->qemu[vm].state != QEMU_NONE || job_of(n, vm)->busy || l->key[n->id - 1][0] != 0)
		return;
	memcpy(cluster, sim.sb[0].cluster, 16);
	l->key[n->id - 1][0] = reservation_key(cluster, n->id, n->agent->epoch);
	l->stale[n->id - 1] = true;
}

void reserve_fault(struct node *n, int64_t ns)
{
	unsigned vm = (unsigned)rnd(sim.n_vms);
	struct lun *l = lun_of(vm);

	if (!sim.reserve)
		return;
	chaos_effect(CHAOS_RESERVE);
	switch (rnd(9)) {
	case 0:
		lose_all(vm);
		break;
	case 1:
		lose_path(vm, n->id - 1);
		break;
	case 2:
		l->strange = STRANGE_KEY;
		break;
	case 3:
		l->hung = true;
		break;
	case 4:
		if (l->n_paths == 2) {
			path_back(l, n->id - 1); /* the other one may be the dead one until now */
			l->dead[n->id - 1] = 1 + (unsigned)rnd(2);
		}
		break;
	case 5:
		l->take_next = true;
		break;
	case 6:
		register_late(n, vm);
		break;
	case 7:
		l->drop_next = 1 + (unsigned)rnd(3);
		break;
	default:
		l->lose_acks = 1 + (unsigned)rnd(4);
	}
	world_post(ns, on_mend, NULL, vm);
}

void reserve_heal(void)
{
	for (unsigned vm = 0; vm < sim.n_vms; vm++) {
		struct sim_event ev = { .arg = vm };

		on_mend(&ev);
	}
}

/* What targets forgot while they did not answer is still to be noticed. */
const char *reserve_unnoticed(void)
{
	static char text[80];

	for (unsigned vm = 0; vm < sim.n_vms && sim.reserve; vm++)
		for (unsigned i = 0; i < sim.n_nodes; i++) {
			const struct node *n = &sim.node[i];
			const struct reserve_job *j = &n->reserve[vm];
			const struct vm *v = n->a_runs ? agent_vm_by_uuid(n->agent, sim.vm[vm].uuid) : NULL;

			for (unsigned p = 0; p < lun_of(vm)->n_paths; p++)
				if (lives(&n->qemu[vm]) && n->qemu[vm].reserved && (j->owned || j->joined) && !n->reserves_not && lun_of(vm)->key[i][p] == 0 &&
				    !(v && agent_held(n->agent, v))) {
					(void)snprintf(text, sizeof(text), "VM %u runs on node %u, whose key is lost on path %u", vm, n->id, p);
					return text;
				}
		}
	return NULL;
}

/* Nothing has happened for a while. */
void reserve_check_calm(void)
{
	for (unsigned vm = 0; vm < sim.n_vms && sim.reserve; vm++) {
		const struct qemu *only = NULL;
		bool busy = false;

		for (unsigned i = 0; i < sim.n_nodes; i++) {
			const struct qemu *q = &sim.node[i].qemu[vm];

			if (lives(q) && q->reserved && !q->kill_pending && sim.node[i].reserve[vm].owned)
				only = q;
			busy = busy || (q->state != QEMU_NONE && !lives(q)) || sim.node[i].reserve[vm].busy || sim.node[i].reserve[vm].unlooked || (!lives(q) && sim.node[i].reserve[vm].joined);
			if (lives(q) && q->reserved && sim.node[i].reserve[vm].joined && !sim.node[i].reserve[vm].busy) /* or it has just arrived */
				violation("R6", "VM %u has been migrated to node %u, and others' keys are left on its LUN", vm, i + 1);
		}
		if (only && !busy)
			check_alone(only, "R6", false);
	}
}
