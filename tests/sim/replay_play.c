/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A scenario in our world. Their cluster has one file system that all managers share and that needs the network; ours has volumes. So:
 *
 *   power N off / on          power cut / boot (with its network, as theirs does)
 *   network N off             the ring and every path to volumes and images: nothing of the node reaches anybody
 *   cfs N rw|update fail      the node's agent reaches no volume; its keeper, which holds the lease, does
 *   crm N stop, restart-lrm N the agent of the node ends, and starts again at "crm N start" or after a second
 *   skip-round crm|lrm n      the leader's agent, all agents, stand still for n of their rounds of 20 s
 *   crm N enable-...          ha-ctl's edits of the catalog; disarm-ha freeze|ignore is our disarm, with hands off all VMs
 *   shutdown N, reboot N      the node is to be emptied as the policy says, then agent, keeper and machine go down in order
 *   migrate, relocate,        an operator's request to have the VM on a node: stopped here, started there. Nobody can move a VM past the gate, so
 *   manual-migrate            a manual migration is the same request
 *   lock, unlock              nothing: claims are the only lock there is, and they die with their epoch
 *
 * A node counts as fenced when its epoch was ended against its will: by the commit of another node, by its own keeper (lease lost: all its VMs killed), or
 * by its watchdog. */
#include <stdio.h>

#include "tests/sim/replay.h"

#define ROUND_S 20
#define LOOK_MS 50
#define EMPTY_LIMIT_S 120 /* a node that is shut down does not wait for its VMs any longer than that */
#define LEAVE_LIMIT_S 15
#define REBOOT_MS 5000

static struct {
	const struct scenario *s;
	struct outcome *out;
	struct vm_def policy[SIM_MAX_VMS];
	uint64_t off;        /* bit: nodes that are down because they were told to */
	uint64_t no_network; /* bit */
	struct { bool on, reboot, leaving; int64_t since; uint64_t boots; } down[SIM_MAX_NODES];
	bool was_up[SIM_MAX_NODES];
	uint32_t over[SIM_MAX_NODES], ran_on[SIM_MAX_VMS];
} play;

/* The world. */

static void build_volumes(unsigned images)
{
	sim.n_volumes = 3;
	sim.n_targets = sim.n_volumes + images;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		struct superblock *sb = &sim.sb[v];

		*sb = (struct superblock){ .generation = 1, .n_volumes = sim.n_volumes, .index = v, .node_limit = sim.n_nodes, .timing = sim.timing };
		memcpy(sb->cluster, "simulatedcluster", 16);
		for (unsigned i = 0; i < sim.n_volumes; i++)
			sb->set[i][0] = (uint8_t)(i + 1);
		sim.target[v].is_volume = true;
		sim.target[v].is_path = chance(300);
		blocks_format(v);
	}
	for (unsigned t = sim.n_volumes; t < sim.n_targets; t++)
		sim.target[t].is_path = chance(300);
}

static void build_vm(unsigned v, const struct service *from)
{
	struct cat *c = &sim.cat_on_disk[0];
	struct vm_def *d = &play.policy[v];

	*d = (struct vm_def){ .memory_mib = 1024, .vcpus = 1, .restart_limit = from->max_restart, .restart_window_ms = 120000, .stop_timeout_ms = 10000,
			      .failed_limit = from->max_relocate + 1 };
	sim.vm[v] = (struct sim_vm){ .uuid = { 'v', (uint8_t)v, 1 }, .policy = d, .fail_starts = from->fail_starts, .fail_node = from->fail_node,
				     .deaf = from->deaf, .target = sim.n_volumes };
	if (!from->at_start)
		return;
	c->present[v] = true;
	c->desired[v] = from->state == SERVICE_STARTED ? DESIRED_STARTED : from->state == SERVICE_IGNORED ? DESIRED_IGNORED : DESIRED_STOPPED;
	c->move[v] = (struct vm_move){ .node = from->node, .wait_ms = SIM_START_WAIT_MS, .number = 1 };
}

static void forget_world(void)
{
	struct { struct keeper *k; struct agent *a; struct sim_event *k_late, *a_late; unsigned k_size, a_size; } old[SIM_MAX_NODES];
	bool trace = sim.trace;

	disk_reset();
	for (unsigned i = 0; i < SIM_MAX_NODES; i++) {
		struct node *n = &sim.node[i];

		old[i].k = n->keeper;
		old[i].a = n->agent;
		old[i].k_late = n->kproc.late;
		old[i].a_late = n->aproc.late;
		old[i].k_size = n->kproc.late_size;
		old[i].a_size = n->aproc.late_size;
	}
	memset(&sim, 0, sizeof(sim));
	sim.trace = trace;
	for (unsigned i = 0; i < SIM_MAX_NODES; i++) {
		struct node *n = &sim.node[i];

		n->id = i + 1;
		n->keeper = old[i].k ? old[i].k : calloc(1, sizeof(*n->keeper));
		n->agent = old[i].a ? old[i].a : calloc(1, sizeof(*n->agent));
		CHECK(n->keeper && n->agent);
		n->kproc.late = old[i].k_late;
		n->aproc.late = old[i].a_late;
		n->kproc.late_size = old[i].k_size;
		n->aproc.late_size = old[i].a_size;
	}
}

static void build(const struct scenario *s, uint64_t seed)
{
	forget_world();
	world_reset(seed);
	check_reset();
	sim.seed = seed;
	sim.n_nodes = s->n_nodes;
	sim.n_vms = s->n_services;
	timing_of_profile(TIMING_STANDARD, &sim.timing);
	power_none();
	sim.guest_write_ns = rnd_ms(200, 2000);
	sim.no_message_lost = true; /* no faults but the scenario's */
	sim.cat_on_disk[0].seq = 1;
	sim.cat_on_disk[0].armed = true;
	build_volumes(1);
	for (unsigned v = 0; v < sim.n_vms; v++)
		build_vm(v, &s->service[v]);
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].clock_rate = (uint32_t)rnd(41);
}

static void hurt_all(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
}

/* Commands. */

static void network(uint32_t id, bool on)
{
	uint64_t all = (2ULL << (sim.n_nodes - 1)) - 1, bit = 1ULL << (id - 1);

	play.no_network = on ? play.no_network & ~bit : play.no_network | bit;
	for (unsigned t = 0; t < sim.n_targets; t++)
		target_cut(t, id, !on);
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].ring_mask = (play.no_network >> i & 1 ? all : play.no_network) & ~(1ULL << i);
	ring_changed();
}

static void power(uint32_t id, bool on)
{
	struct node *n = sim_node(id);
	uint64_t bit = 1ULL << (id - 1);

	play.down[id - 1].on = false;
	if (on) {
		play.off &= ~bit;
		network(id, true);
		machine_boot(n);
		return;
	}
	play.off |= bit;
	machine_reset(n, "power off", SIM_NEVER);
}

static bool empty(const struct node *n)
{
	if (!n->a_runs || !n->have_cat || n->cat.leaving[n->id - 1] == 0)
		return false;
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state != QEMU_NONE)
			return false;
	for (unsigned i = 0; i < AGENT_MAX_VMS; i++)
		if (n->agent->vm[i].used && n->agent->vm[i].state != VM_IDLE)
			return false;
	return true;
}

static void on_going_down(struct sim_event *ev)
{
	struct node *n = ev->obj;
	unsigned at = n->id - 1;
	bool reboot = play.down[at].reboot;

	if (!play.down[at].on || !n->up || n->boots != play.down[at].boots)
		return;
	if (!play.down[at].leaving && (empty(n) || sim.now - play.down[at].since > EMPTY_LIMIT_S * SIM_S)) {
		play.down[at].leaving = true;
		play.down[at].since = sim.now;
		agent_edge_crash(n);
		keeper_edge_stop_service(n);
	}
	if (play.down[at].leaving && (!proc_alive(&n->kproc) || sim.now - play.down[at].since > LEAVE_LIMIT_S * SIM_S)) {
		play.down[at].on = false;
		play.off |= reboot ? 0 : 1ULL << at;
		play.was_up[at] = false;
		machine_reset(n, reboot ? "reboot" : "shut down", reboot ? REBOOT_MS * NS_PER_MS : SIM_NEVER);
		return;
	}
	world_post(LOOK_MS * NS_PER_MS, on_going_down, n, 0);
}

static void go_down(struct node *n, bool reboot)
{
	if (!n->up)
		return;
	play.down[n->id - 1].on = true;
	play.down[n->id - 1].reboot = reboot;
	play.down[n->id - 1].leaving = false;
	play.down[n->id - 1].since = sim.now;
	play.down[n->id - 1].boots = n->boots;
	edit_post(EDIT_LEAVE, (unsigned)play.s->policy * 2 + reboot, n->id);
	world_post(LOOK_MS * NS_PER_MS, on_going_down, n, 0);
}

static struct node *leader(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].a_runs && sim.node[i].leading)
			return &sim.node[i];
	return NULL;
}

/* There may be no leader yet: then it stands still as soon as there is one. */
static void on_skip(struct sim_event *ev)
{
	struct node *n = leader();

	if (n)
		proc_stop(&n->aproc, (int64_t)ev->arg);
	else
		world_post(LOOK_MS * NS_PER_MS, on_skip, NULL, ev->arg);
}

static void skip_rounds(bool crm, unsigned rounds)
{
	int64_t ns = rounds * ROUND_S * SIM_S;

	if (crm) {
		world_post(0, on_skip, NULL, (uint64_t)ns);
		return;
	}
	for (unsigned i = 0; i < sim.n_nodes; i++)
		proc_stop(&sim.node[i].aproc, ns);
}

static void set_state(unsigned v, enum service_state state)
{
	edit_post(state == SERVICE_STARTED ? EDIT_START : state == SERVICE_IGNORED ? EDIT_IGNORE : EDIT_STOP, v, 0);
}

static void service_command(const struct command *c)
{
	switch (c->kind) {
	case CMD_STATE:
		set_state(c->service, (enum service_state)c->number);
		break;
	case CMD_MOVE:
		edit_post(EDIT_MOVE, c->service, c->node);
		break;
	case CMD_STOP:
		play.policy[c->service].stop_timeout_ms = c->number * 1000;
		edit_post(EDIT_STOP, c->service, 0);
		break;
	case CMD_ADD:
		edit_post(EDIT_ADD, c->service, c->node);
		set_state(c->service, (enum service_state)c->number);
		break;
	case CMD_DELETE:
		edit_post(EDIT_REMOVE, c->service, 0);
		break;
	default:
		break; /* lock, unlock */
	}
}

static void node_command(const struct command *c)
{
	struct node *n = sim_node(c->node);

	switch (c->kind) {
	case CMD_POWER:
		power(c->node, c->on);
		break;
	case CMD_NETWORK:
		network(c->node, c->on);
		break;
	case CMD_CFS:
		n->a_cut = !c->on;
		break;
	case CMD_CRM:
	case CMD_RESTART_LRM:
		if (c->kind == CMD_RESTART_LRM || !c->on)
			agent_edge_crash(n);
		if (c->kind == CMD_RESTART_LRM || c->on)
			machine_agent_again(n, SIM_S);
		break;
	case CMD_MAINTENANCE:
		edit_post(c->on ? EDIT_MAINTENANCE : EDIT_ACTIVE, 0, c->node);
		break;
	case CMD_DISARM:
		edit_post(EDIT_PAUSE, c->number, 0);
		edit_post(EDIT_DISARM, 0, 0);
		break;
	case CMD_ARM:
		edit_post(EDIT_ARM, 0, 0);
		edit_post(EDIT_PAUSE, PAUSE_NONE, 0);
		break;
	case CMD_REBOOT:
	case CMD_SHUTDOWN:
		go_down(n, c->kind == CMD_REBOOT);
		break;
	default:
		break; /* delay is the order of events */
	}
}

static void on_command(struct sim_event *ev)
{
	const struct command *c = ev->obj;

	hurt_all();
	history_add("command: %s", c->text);
	if (c->kind == CMD_SKIP_ROUND)
		skip_rounds(c->on, c->number);
	else if (c->kind >= CMD_STATE)
		service_command(c);
	else
		node_command(c);
}

/* When each command comes; returns when the last group does. */
static int64_t post_commands(const struct scenario *s)
{
	int64_t at = ROUND_S * SIM_S, delay = 0;

	for (unsigned g = 0, i = 0; g < s->n_groups; g++) {
		at = (ROUND_S + g * REPLAY_GROUP_S) * SIM_S + delay;
		for (; i < s->n_commands && s->command[i].group == g; i++) {
			if (s->command[i].kind == CMD_DELAY)
				delay += s->command[i].number * SIM_S;
			else
				world_post(at, on_command, (void *)&s->command[i], 0);
			at = (ROUND_S + g * REPLAY_GROUP_S) * SIM_S + delay;
		}
	}
	return at;
}

/* What happens, looked at after every step. */

static void fenced(unsigned i, const char *how)
{
	if (!(play.out->fenced >> i & 1))
		history_add("node %u: fenced: %s", i + 1, how);
	play.out->fenced |= 1ULL << i;
}

static bool committed_against(unsigned i, uint32_t epoch)
{
	for (unsigned b = 0; b < sim.n_nodes; b++)
		if (b != i && sim.node[b].k_runs && sim.node[b].keeper->mine.commit[i] >= epoch)
			return true;
	return false;
}

static void look_at_node(unsigned i)
{
	const struct node *n = &sim.node[i];

	if (play.was_up[i] && !n->up && !(play.off >> i & 1))
		fenced(i, "reset by its watchdog");
	play.was_up[i] = n->up;
	if (n->k_runs && n->keeper->state == LEASE_RELEASING)
		fenced(i, release_reason_text(n->keeper->release));
	if (sim.over[i] > play.over[i] && committed_against(i, sim.over[i]))
		fenced(i, "by a commit");
	play.over[i] = sim.over[i];
}

static void look_at_vm(unsigned v)
{
	unsigned running = 0;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		if (sim.node[i].qemu[v].state != QEMU_RUNS)
			continue;
		play.ran_on[v] = i + 1;
		running++;
	}
	if (running > 1)
		play.out->ran_twice |= 1ULL << v;
}

static void look(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		look_at_node(i);
	for (unsigned v = 0; v < sim.n_vms; v++)
		look_at_vm(v);
}

/* Any agent that knows the claims: the leader, if there is one. */
static struct agent *somebody(void)
{
	struct node *n = leader();

	for (unsigned i = 0; i < sim.n_nodes && !n; i++)
		if (sim.node[i].a_runs && sim.node[i].agent->claimer.read_once)
			n = &sim.node[i];
	return n ? n->agent : NULL;
}

static const struct cat *newest_cat(void)
{
	const struct cat *c = &sim.cat_on_disk[0];

	for (unsigned i = 1; i < sim.n_nodes; i++) {
		const struct cat *o = &sim.cat_on_disk[i];

		if (o->generation > c->generation || (o->generation == c->generation && o->seq > c->seq))
			c = o;
	}
	return c;
}

static void judge_vm(unsigned v)
{
	const struct cat *c = newest_cat();
	struct agent *a = somebody();
	const struct vm *vm = a ? agent_vm_by_uuid(a, sim.vm[v].uuid) : NULL;
	uint32_t node = 0;
	bool runs = false;

	for (unsigned i = 0; i < sim.n_nodes; i++)
		runs = runs || sim.node[i].qemu[v].state == QEMU_RUNS;
	/* Where it runs; else where it is to run next; else where it was last. */
	if (!runs && c->move[v].node != 0 && !c->move[v].back)
		node = c->move[v].node;
	else if (runs || !a || !agent_last_claim(a, sim.vm[v].uuid, &node))
		node = play.ran_on[v] ? play.ran_on[v] : play.s->service[v].node;
	play.out->final[v].node = node;
	if (!c->present[v])
		play.out->final[v].state = SERVICE_GONE;
	else if (c->desired[v] == DESIRED_IGNORED)
		play.out->final[v].state = SERVICE_IGNORED;
	else if (runs)
		play.out->final[v].state = SERVICE_STARTED;
	else
		play.out->final[v].state = vm && agent_vm_error(a, vm) ? SERVICE_ERROR : SERVICE_STOPPED;
}

bool scenario_play(const struct scenario *s, uint64_t seed, struct outcome *ret)
{
	int64_t end;

	memset(&play, 0, sizeof(play));
	memset(ret, 0, sizeof(*ret));
	play.s = s;
	play.out = ret;
	build(s, seed);
	end = sim.now + post_commands(s) + REPLAY_END_S * SIM_S;
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		play.off |= 1ULL << i;
		if (s->power[i])
			power(i + 1, true);
		if (!s->network[i] && s->power[i])
			network(i + 1, false);
	}
	while (!sim.failed && world_step(end))
		look();
	for (unsigned v = 0; v < sim.n_vms; v++)
		judge_vm(v);
	return !sim.failed;
}
