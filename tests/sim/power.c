/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Power fencing: what agent/power.c and ha-fence do, with devices that work, fail, hang, are late, or say that they have done what they have not. What they never
 * lie about is their status: nothing could be shown of one that does. All that is drawn comes from a stream of its own, so that the rest of a seed's history is
 * the same until a device does something. */
#include "agent/base/mutant.h"
#include "tests/sim/sim.h"

#define STREAM_POWER 1003 /* rnd_stream: no fault's, not the periods' */
#define STREAM_UNPROVEN 1010
#define TIMEOUT_MS 4000   /* of one answer */
#define PAUSE_MS 500
#define POLLS 6

enum mood { MOOD_WORKS, MOOD_LIES, MOOD_FAILS, MOOD_HANGS, MOOD_LATE, MOOD_COUNT };

/* One operation under way: a process of its own, which dies with the agent, but goes on while that is stopped. */
struct order {
	uint32_t life; /* of the agent; 0: none */
	uint64_t number;
	int64_t asked_ns; /* since when the keeper asks */
	int64_t fed_ns;   /* when the agent said last that it goes on */
	int64_t began_ns;
	bool waits;       /* for the first such word */
	struct power_plan plan;
	unsigned polls;
};

static struct {
	bool on;
	unsigned moods, drawn; /* bit: enum mood that its devices have at times; while there is chaos */
	unsigned n, level[3];
	uint64_t rng, number, heals;
	unsigned pending;        /* devices that have been told and will do it */
	struct order order[SIM_MAX_NODES][SIM_MAX_NODES];
	struct power_job job[SIM_MAX_NODES][SIM_MAX_NODES];
} power;

static void next(struct node *n, uint32_t id);

void power_reset(void)
{
	uint64_t world = sim.rng;

	memset(&power, 0, sizeof(power));
	sim.rng = rnd_stream(STREAM_POWER, 0);
	power.on = chance(500);
	power.moods = 1U << MOOD_WORKS | (chance(500) ? (unsigned)rnd(1U << MOOD_COUNT) : 0);
	power.n = 1 + (unsigned)rnd(3);
	for (unsigned i = 1; i < power.n; i++)
		power.level[i] = power.level[i - 1] + (unsigned)rnd(2);
	sim.brake_percent = chance(850) ? 100 : 34 + (uint32_t)rnd(40);
	sim.confirms = chance(300);
	power.drawn = power.moods;
	power.rng = sim.rng;
	sim.rng = rnd_stream(STREAM_UNPROVEN, 0);
	sim.unproven = chance(80) ? 1 + (uint32_t)rnd((1U << sim.n_nodes) - 1) : 0;
	sim.close_pets = (uint32_t)rnd(1ULL << sim.n_nodes);
	sim.rng = world;
}

void power_none(void)
{
	memset(&power, 0, sizeof(power));
	sim.brake_percent = 100;
	sim.confirms = false;
	sim.unproven = sim.close_pets = 0;
}

/* Draws below come from here on. */
static uint64_t enter(void)
{
	uint64_t world = sim.rng;

	sim.rng = power.rng;
	return world;
}

static void leave(uint64_t world)
{
	power.rng = sim.rng;
	sim.rng = world;
}

static uint64_t tag(const struct node *n, uint32_t id, const struct order *o) { return o->number << 16 | (uint64_t)n->id << 8 | id; }

static struct order *order_of(const struct sim_event *ev, struct node **ret_n, uint32_t *ret_id)
{
	struct order *o;

	*ret_id = (uint32_t)(ev->arg & 0xff);
	*ret_n = sim_node((uint32_t)(ev->arg >> 8 & 0xff));
	o = &power.order[(*ret_n)->id - 1][*ret_id - 1];
	return o->life != 0 && o->number == ev->arg >> 16 && o->life == (*ret_n)->aproc.life && proc_alive(&(*ret_n)->aproc) ? o : NULL;
}

/* The agent may stand still, or the message take its time: by then the node may have come back. */
static void on_evidence(struct sim_event *ev)
{
	struct node *n = ev->obj;
	struct power_job *j = &power.job[n->id - 1][ev->arg - 1];
	struct keeper_evidence e;

	if (!power_job_ended(j, true, node_now(n), &e))
		return;
	e.node = (uint32_t)ev->arg;
	history_add("node %u: node %u is off, says its device", n->id, e.node);
	keeper_edge_evidence(n, &e);
}

static void end(struct node *n, uint32_t id, bool confirmed)
{
	struct order *o = &power.order[n->id - 1][id - 1];
	struct keeper_evidence e;

	o->life = 0;
	if (!confirmed)
		(void)power_job_ended(&power.job[n->id - 1][id - 1], false, node_now(n), &e);
	else
		world_post_proc(&n->aproc, chance(800) ? rnd_us(50, 500) : rnd_ms(1, 12000), on_evidence, n, id);
}

static void on_status(struct sim_event *ev)
{
	uint64_t world;
	struct node *n;
	uint32_t id;
	struct order *o = order_of(ev, &n, &id);

	if (!o)
		return;
	world = enter();
	power_plan_answer(&o->plan, sim_node(id)->up ? POWER_ANSWER_IS_ON : POWER_ANSWER_IS_OFF, ++o->polls < POLLS);
	next(n, id);
	leave(world);
}

static void on_done(struct sim_event *ev)
{
	uint64_t world;
	struct node *n;
	uint32_t id;
	struct order *o = order_of(ev, &n, &id);

	if (!o)
		return;
	world = enter();
	power_plan_answer(&o->plan, POWER_ANSWER_OK, true);
	next(n, id);
	leave(world);
}

static void on_failed(struct sim_event *ev)
{
	uint64_t world;
	struct node *n;
	uint32_t id;
	struct order *o = order_of(ev, &n, &id);

	if (!o)
		return;
	world = enter();
	power_plan_answer(&o->plan, POWER_ANSWER_FAILED, false);
	next(n, id);
	leave(world);
}

bool power_pending(void) { return power.pending > 0; }

/* In the device: nothing breaks it off any more. */
static void on_power_off(struct sim_event *ev)
{
	uint64_t world;
	struct node *x = ev->obj;

	if (ev->arg != power.heals)
		return;
	power.pending--;
	world = enter();
	if (x->up)
		sim.stats.power_offs++;
	machine_reset(x, "power off by its device", chance(300) ? rnd_ms(1000, 6000) : rnd_ms(6000, 60000));
	leave(world);
}

static enum mood draw_mood(void)
{
	enum mood m;

	do
		m = (enum mood)rnd(MOOD_COUNT);
	while (!(power.moods >> m & 1));
	return m;
}

static void tell_device(struct node *n, uint32_t id, struct order *o)
{
	enum mood m = draw_mood();
	int64_t takes = rnd_ms(10, 800);

	if (sim.now - o->fed_ns > POWER_FED_MS * NS_PER_MS && !MUTANT(POWER_NOT_CALLED_OFF)) {
		end(n, id, false);
		return;
	}
	check_power(n, id, &power.job[n->id - 1][id - 1], o->asked_ns);
	history_add("node %u: tells device %u of node %u to switch it off%s", n->id, o->plan.device, id,
		    m == MOOD_LIES ? ", which it will not do" : m == MOOD_FAILS ? ", which fails" : m == MOOD_HANGS ? ", which hangs" : "");
	if (m == MOOD_WORKS || m == MOOD_LATE) {
		power.pending++;
		world_post(m == MOOD_LATE ? rnd_ms(500, 3000) : takes / 2, on_power_off, sim_node(id), power.heals);
	}
	if (m == MOOD_FAILS || m == MOOD_HANGS)
		world_post(m == MOOD_HANGS ? TIMEOUT_MS * NS_PER_MS : takes, on_failed, NULL, tag(n, id, o));
	else
		world_post(takes, on_done, NULL, tag(n, id, o));
}

static void next(struct node *n, uint32_t id)
{
	struct order *o = &power.order[n->id - 1][id - 1];
	unsigned device;

	switch (power_plan_next(&o->plan, &device)) {
	case POWER_OFF:
		tell_device(n, id, o);
		break;
	case POWER_STATUS:
		if ((power.moods >> MOOD_HANGS & 1) && chance(200))
			world_post(TIMEOUT_MS * NS_PER_MS, on_failed, NULL, tag(n, id, o));
		else
			world_post(rnd_ms(10, 300), on_status, NULL, tag(n, id, o));
		break;
	case POWER_PAUSE:
		world_post(PAUSE_MS * NS_PER_MS, on_done, NULL, tag(n, id, o));
		break;
	case POWER_DONE:
		end(n, id, true);
		break;
	default:
		end(n, id, false);
	}
}

static void start(struct node *n, uint32_t id)
{
	struct order *o = &power.order[n->id - 1][id - 1];

	o->life = n->aproc.life;
	o->number = ++power.number;
	o->polls = 0;
	o->began_ns = sim.now;
	o->waits = true;
	power_plan_init(&o->plan, POWER_WANT_OFF, power.level, power.n);
}

/* A table in which the keeper still asks. */
static void feed(struct node *n, uint32_t id, struct order *o)
{
	uint64_t world;

	o->fed_ns = sim.now;
	if (o->life == 0 || !o->waits)
		return;
	o->waits = false;
	world = enter();
	if (sim.now - o->began_ns > POWER_FED_MS * NS_PER_MS)
		end(n, id, false); /* it has not waited so long */
	else
		next(n, id);
	leave(world);
}

static unsigned rank_of(const struct node *n, const struct keeper_msg *m, uint32_t about)
{
	unsigned rank = 0;

	for (uint32_t id = 1; id < n->id; id++)
		rank += id != about && m->table.node[id - 1].fresh && m->table.node[id - 1].state == HEARTBEAT_ARMED;
	return rank;
}

static void step(struct node *n, const struct keeper_msg *m)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		struct power_job *j = &power.job[n->id - 1][id - 1];
		struct order *o = &power.order[n->id - 1][id - 1];
		const struct keeper_table_node *t = &m->table.node[id - 1];
		struct power_job was = *j;
		enum power_step s;

		if (id == n->id)
			continue;
		s = power_job_step(j, t, rank_of(n, m, id), node_now(n));
		if (was.epoch != j->epoch || was.seq != j->seq || was.state == POWER_IDLE)
			o->asked_ns = sim.now;
		if (j->state == POWER_RUNNING && s != POWER_STEP_START)
			feed(n, id, o);
		if (s == POWER_STEP_STOP)
			o->life = 0;
		if (s == POWER_STEP_START)
			start(n, id);
	}
}

/* Devices do what they are told from now on, and what they have not done yet they forget. */
void power_heal(void)
{
	power.heals++;
	power.pending = 0;
	power.moods = 1U << MOOD_WORKS;
}

/* As the seed has them. */
void power_chaos(void) { power.moods = power.drawn; }

void power_table(struct node *n, const struct keeper_msg *m)
{
	if (power.on && power_table_counts(m, node_now(n)))
		step(n, m);
}

/* A new agent knows nothing of what the one before had begun; without a keeper nobody would call it off. */
void power_forget(struct node *n)
{
	memset(power.job[n->id - 1], 0, sizeof(power.job[0]));
	for (unsigned i = 0; i < SIM_MAX_NODES; i++)
		power.order[n->id - 1][i].life = 0;
}
