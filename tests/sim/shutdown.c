/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A host that goes down in order, as systemd does it with our units: `ha-ctl node leave` asks the agent until nothing is left to wait for, or for so long;
 * then the agent is stopped, then the units of the VMs that are left get SIGTERM, then the keeper is stopped, then the host is off. None of the processes is started
 * again once its turn has come. What else happens meanwhile is chaos's. */
#include "tests/sim/sim.h"

#define LOOK_MS 200
#define UNITS_MS 20000  /* TimeoutStopSec= of a VM's unit, */
#define KEEPER_MS 13000 /* and as fence/keeper.c */

enum stage { STAGE_NONE, STAGE_LEAVING, STAGE_UNITS, STAGE_KEEPER };

static struct {
	enum stage stage;
	enum leave_policy policy;
	bool reboot;
	uint64_t boots;
	int64_t since, limit_ns, off_ns, call_off_ns; /* call off: 0 never */
} down[SIM_MAX_NODES];

void shutdown_reset(void) { memset(down, 0, sizeof(down)); }

static enum stage stage_of(const struct node *n)
{
	if (n != sim_node(n->id) || down[n->id - 1].boots != n->boots) /* a clone is a host of its own */
		return STAGE_NONE;
	return down[n->id - 1].stage;
}

bool shutdown_pending(void)
{
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if (sim.node[i].up && stage_of(&sim.node[i]) != STAGE_NONE)
			return true;
	return false;
}

bool shutdown_ends_agents(const struct node *n) { return stage_of(n) > STAGE_LEAVING; }
bool shutdown_ends_keepers(const struct node *n) { return stage_of(n) == STAGE_KEEPER; }

static void next_stage(struct node *n, enum stage to)
{
	down[n->id - 1].stage = to;
	down[n->id - 1].since = sim.now;
}

static void ask(struct node *n, bool goes)
{
	struct agent_event a = { .kind = AGENT_EV_GOING_DOWN, .ok = goes, .reboot = down[n->id - 1].reboot, .leave_policy = down[n->id - 1].policy,
				 .limit_ms = (uint32_t)(down[n->id - 1].limit_ns / NS_PER_MS) };

	if (!n->a_runs || n->aproc.stopped)
		return;
	n->going_down = goes;
	agent_edge_event(n, &a);
}

/* A new agent asks systemd, too: what was called off before it came is none of its. */
void shutdown_agent_starts(struct node *n)
{
	if (n == sim_node(n->id) && down[n->id - 1].boots == n->boots && down[n->id - 1].stage == STAGE_NONE)
		ask(n, false);
}

static bool has_qemu(const struct node *n)
{
	for (unsigned v = 0; v < sim.n_vms; v++)
		if (n->qemu[v].state != QEMU_NONE)
			return true;
	return false;
}

static void leaving(struct node *n, int64_t waited)
{
	bool over = waited > down[n->id - 1].limit_ns || !sim.chaos; /* once all is healed nobody waits for it */

	if (down[n->id - 1].call_off_ns != 0 && waited > down[n->id - 1].call_off_ns && n->a_runs && !n->aproc.stopped) {
		history_add("node %u: its shutdown is called off", n->id);
		ask(n, false);
		next_stage(n, STAGE_NONE);
		return;
	}
	ask(n, true);
	if (!over && !(n->a_runs && agent_left(n->agent)))
		return;
	history_add("node %u: goes down, %s", n->id, over ? "with VMs left, perhaps" : "its VMs have left");
	next_stage(n, STAGE_UNITS);
	agent_edge_crash(n);
	for (unsigned v = 0; v < sim.n_vms; v++)
		qemu_quit(&n->qemu[v]);
}

static void on_look(struct sim_event *ev)
{
	struct node *n = ev->obj;
	int64_t waited = sim.now - down[n->id - 1].since;

	if (!n->up || ev->arg != n->boots || stage_of(n) == STAGE_NONE)
		return;
	n->hurt_ns = sim.now;
	switch (stage_of(n)) {
	case STAGE_LEAVING:
		leaving(n, waited);
		break;
	case STAGE_UNITS:
		if (!has_qemu(n) || waited > UNITS_MS * NS_PER_MS) {
			next_stage(n, STAGE_KEEPER);
			keeper_edge_stop_service(n);
		}
		break;
	case STAGE_KEEPER:
		if (!proc_alive(&n->kproc) || waited > KEEPER_MS * NS_PER_MS) {
			machine_reset(n, down[n->id - 1].reboot ? "reboot" : "shut down", sim.chaos ? down[n->id - 1].off_ns : SIM_S);
			return;
		}
		break;
	default:
		break;
	}
	world_post(LOOK_MS * NS_PER_MS, on_look, n, n->boots);
}

void shutdown_begin(struct node *n, enum leave_policy policy, bool reboot, int64_t off_ns)
{
	int64_t limit_ns = rnd_ms(10000, 120000), call_off_ns = chance(150) ? rnd_ms(100, 20000) : 0;

	if (!n->up || n->sleeps || stage_of(n) != STAGE_NONE)
		return;
	history_add("node %u: is to %s, policy %d", n->id, reboot ? "reboot" : "power off", (int)policy);
	down[n->id - 1].policy = policy;
	down[n->id - 1].reboot = reboot;
	down[n->id - 1].boots = n->boots;
	down[n->id - 1].limit_ns = limit_ns;
	down[n->id - 1].call_off_ns = call_off_ns;
	down[n->id - 1].off_ns = reboot ? rnd_ms(1000, 6000) : off_ns;
	next_stage(n, STAGE_LEAVING);
	world_post(LOOK_MS * NS_PER_MS, on_look, n, n->boots);
}
