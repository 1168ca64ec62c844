/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operators change the volume set: `ha-ctl volume replace` as shipped (storage/setchange.c), one act after the other on a node's paths. A run may be cut off
 * before any act and be begun again elsewhere, stand still for long, or meet a second operator.
 *
 * Place v of the set is target v. What is replaced there goes on as `old` of that target: processes that were started before still talk to it. What
 * takes its place is `next` until a first superblock of the new set is written, and the target's data from then on. */
#include "storage/setchange.h"
#include "tests/sim/sim.h"

#define OPERATORS 2
#define TRIES 25
#define PATIENCE 10

static struct operator {
	bool busy;
	bool running;           /* in the middle of a run */
	uint64_t number;        /* of its present process */
	struct node *node;
	unsigned volume, tries, runs;
	bool in_place;
	unsigned old;           /* places whose device was replaced by another one since this run began: it goes on with the one that it has opened */
	bool froze;             /* a run of its has written something: it must be brought to an end */
	int64_t looked;
	struct setchange c;
} operators[OPERATORS];
static uint64_t next_number;
static uint8_t next_incarnation;
static bool healing;
static unsigned turn; /* healing: whose command is run; they have talked */

static void unref_all(struct volume_data *d)
{
	for (unsigned i = 0; i < SIM_MAX_NODES; i++)
		for (unsigned k = 0; k < 2; k++)
			for (unsigned b = 0; b < 2; b++) {
				block_unref(d->block[i][k][b]);
				d->block[i][k][b] = NULL;
			}
}

void volset_reset(void)
{
	for (unsigned v = 0; v < SIM_MAX_TARGETS; v++) {
		unref_all(&sim.target[v].old);
		unref_all(&sim.target[v].next);
	}
	memset(operators, 0, sizeof(operators));
	next_incarnation = 100;
	healing = false;
	turn = 0;
}

/* What the operator's i-th volume is: the set's places, then the one that goes. */
static struct volume_data *device(const struct operator *o, unsigned i)
{
	struct target *t = &sim.target[i < sim.n_volumes ? i : o->volume];

	if (i == sim.n_volumes || (o->old >> i & 1 && (o->in_place || i != o->volume)))
		return t->swapped ? &t->old : &t->data;
	return t->has_next && i == o->volume && !o->in_place ? &t->next : &t->data;
}

static bool reaches(const struct operator *o, unsigned i, bool write)
{
	const struct target *t = &sim.target[i < sim.n_volumes ? i : o->volume];

	return o->node->up && !t->hung && !(t->cut >> (o->node->id - 1) & 1) && !t->bad_reads && !(write && t->bad_writes) && t->shows == FORMAT_OK;
}

/* A first superblock of the new set is on a volume: from now on the set is another one. */
static void decide(struct operator *o)
{
	struct target *t = &sim.target[o->volume];

	for (unsigned v = 0; v < sim.n_volumes; v++)
		sim.sb[v] = o->c.sb;
	for (unsigned v = 0; v < sim.n_volumes; v++)
		sim.sb[v].index = v;
	if (o->in_place || !t->has_next)
		return;
	history_add("operator: volume %u is another device now", o->volume);
	sim.stats.effects[CHAOS_VOLSET]++;
	unref_all(&t->old);
	t->old = t->data;
	t->data = t->next;
	t->next = (struct volume_data){ 0 };
	t->has_next = false;
	t->swapped = true;
	for (unsigned i = 0; i < OPERATORS; i++)
		if (&operators[i] != o && operators[i].running)
			operators[i].old |= 1U << o->volume;
	for (struct op *op = t->ops; op; op = op->next)
		op->old = op->old || op->client;
	/* Volumes= was changed before: who still waits for a set opens the new device. */
	for (unsigned i = 0; i < sim.n_nodes; i++) {
		sim.node[i].kclient.old |= (unsigned)sim.node[i].kclient.known << o->volume;
		sim.node[i].aclient.old |= (unsigned)sim.node[i].aclient.known << o->volume;
	}
	check_new_device(o->volume);
}

/* Some volume says that the set is what it was last decided to be. */
static bool is_shown(void)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct volume_data *d = &sim.target[v].data;

		if (d->sb == FORMAT_OK && !d->super.frozen && d->super.generation == sim.sb[0].generation && memcmp(d->super.set, sim.sb[0].set, sizeof(d->super.set)) == 0)
			return true;
	}
	return false;
}

/* Another operator, who had looked just before, has frozen the one volume that said so, and has decided on something else: what came into the set by that is of it no more. */
static void take_back(const struct operator *o)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		struct target *t = &sim.target[v];
		struct volume_data now = t->data;

		if (v == o->volume || !t->swapped || !(o->old >> v & 1))
			continue;
		history_add("operator on node %u: volume %u is the former device again", o->node->id, v);
		t->data = t->old;
		t->old = (struct volume_data){ 0 };
		t->next = now;
		t->has_next = true;
		t->swapped = false;
		for (struct op *op = t->ops; op; op = op->next)
			op->old = false;
		for (unsigned i = 0; i < sim.n_nodes; i++) {
			sim.node[i].kclient.old &= ~(1U << v);
			sim.node[i].aclient.old &= ~(1U << v);
		}
		for (unsigned i = 0; i < OPERATORS; i++)
			operators[i].old &= ~(1U << v);
		check_new_device(v);
	}
}

static void write_superblock(struct operator *o, struct volume_data *d)
{
	const struct superblock *sb = &o->c.sb;
	bool again = !sb->frozen && sb->generation == sim.sb[0].generation && memcmp(sb->set, sim.sb[0].set, sizeof(sb->set)) != 0 && !is_shown();

	o->froze = true;
	d->sb = FORMAT_OK;
	d->super = *sb;
	history_add("operator on node %u: volume %u is %s, generation %llu", o->node->id, o->c.at, sb->frozen ? "frozen" : "of the set",
		    (unsigned long long)sb->generation);
	if (again)
		take_back(o);
	if (!sb->frozen && (again || sb->generation > sim.sb[0].generation))
		decide(o);
}

static void read_state(struct operator *o, const struct volume_data *d)
{
	struct setchange_state *st = &o->c.volume[o->c.at].state;

	memset(st, 0, sizeof(*st));
	for (uint32_t id = 1; id <= sim.n_nodes; id++) {
		struct setchange_slot *s = st->slot[id - 1];

		s[SETCHANGE_CATALOG].readable = true; /* catalogs are not kept as blocks here */
		for (unsigned b = 0; b < 2; b++) {
			const struct block *hb = d->block[id - 1][BLOCK_HEARTBEAT][b], *cl = d->block[id - 1][BLOCK_CLAIMS][b];

			if (hb->status == FORMAT_OK && (!s[SETCHANGE_HEARTBEAT].readable ||
							format_compare(hb->hb.epoch, hb->hb.seq, s[SETCHANGE_HEARTBEAT].epoch, s[SETCHANGE_HEARTBEAT].seq) > 0)) {
				s[SETCHANGE_HEARTBEAT] = (struct setchange_slot){
					.readable = true, .epoch = hb->hb.epoch, .seq = hb->hb.seq, .state = hb->hb.state, .claims_seq = hb->hb.claims_seq,
				};
				memcpy(s[SETCHANGE_HEARTBEAT].over, hb->hb.over, sizeof(hb->hb.over));
				memcpy(s[SETCHANGE_HEARTBEAT].commit, hb->hb.commit, sizeof(hb->hb.commit));
			}
			if (cl->status == FORMAT_OK && (!s[SETCHANGE_CLAIMS].readable ||
							format_compare(cl->cl.epoch, cl->cl.seq, s[SETCHANGE_CLAIMS].epoch, s[SETCHANGE_CLAIMS].seq) > 0))
				s[SETCHANGE_CLAIMS] = (struct setchange_slot){ .readable = true, .epoch = cl->cl.epoch, .seq = cl->cl.seq };
		}
	}
}

static struct block *newest(struct volume_data *d, uint32_t id, enum block_kind kind)
{
	struct block **b = d->block[id - 1][kind];

	if (b[0]->status != FORMAT_OK || b[1]->status != FORMAT_OK)
		return b[0]->status == FORMAT_OK ? b[0] : b[1];
	return format_compare(block_epoch(b[0]), block_seq(b[0]), block_epoch(b[1]), block_seq(b[1])) >= 0 ? b[0] : b[1];
}

static bool copy_all(struct operator *o, struct volume_data *to)
{
	for (uint32_t id = 1; id <= sim.n_nodes; id++)
		for (unsigned kind = 0; kind < 2; kind++) {
			unsigned from = o->c.from[id - 1][kind == BLOCK_CLAIMS ? SETCHANGE_CLAIMS : SETCHANGE_HEARTBEAT];
			struct block *b = newest(device(o, from), id, (enum block_kind)kind);

			if (b->status != FORMAT_OK || !reaches(o, from, false))
				return false;
			for (unsigned buffer = 0; buffer < 2; buffer++)
				block_land(to, b, id, buffer);
		}
	if (o->in_place)
		sim.target[o->volume].copied_ns = sim.now;
	if (o->in_place)
		check_new_device(o->volume);
	return true;
}

static void on_act(struct sim_event *ev);
static void on_run(struct sim_event *ev);

static void later(struct operator *o, int64_t ns, sim_fn fn) { world_post(ns, fn, o, o->number); }

static bool others_at(const struct operator *o)
{
	for (unsigned i = 0; i < OPERATORS; i++)
		if (&operators[i] != o && operators[i].busy && operators[i].volume == o->volume)
			return true;
	return false;
}

static bool others_busy(const struct operator *o)
{
	for (unsigned i = 0; i < OPERATORS; i++)
		if (&operators[i] != o && operators[i].busy)
			return true;
	return false;
}

static void over(struct operator *o)
{
	o->busy = o->running = false;
	o->old = 0;
	if (!others_at(o)) {
		sim.target[o->volume].has_next = false;
		unref_all(&sim.target[o->volume].next);
	}
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
	if (!volset_busy())
		edit_post(EDIT_ARM, 0, 0);
}

static bool is_of_the_set(unsigned v)
{
	const struct volume_data *d = &sim.target[v].data;

	return d->sb == FORMAT_OK && !d->super.frozen && d->super.generation == sim.sb[0].generation;
}

/* Refused for another volume, which an earlier run has left behind: that one first. In the end also one that is prepared for a change which nobody can go on with. */
static void mend_another(struct operator *o)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct volume_data *d = &sim.target[v].data;
		bool prepared = o->runs > PATIENCE && d->sb == FORMAT_OK && d->super.frozen && d->super.generation > sim.sb[0].generation;

		if (v == o->volume || is_of_the_set(v) || !(is_of_the_set(o->volume) || prepared))
			continue;
		history_add("operator on node %u: takes volume %u in again instead", o->node->id, v);
		o->volume = v;
		o->in_place = true;
		return;
	}
}

static void run_ends(struct operator *o)
{
	enum setchange_act how = o->c.act;

	o->running = false;
	o->old = 0;
	history_add("operator on node %u: volume %u %s%s%s", o->node->id, o->volume, how == SETCHANGE_DONE ? "is replaced" : how == SETCHANGE_REFUSED ?
		    "is not replaced: " : "is half replaced: ", how == SETCHANGE_DONE ? "" : o->c.why, o->c.decided ? " (of an earlier run)" : "");
	/* What is half done may be the other one's, who goes on with it now. */
	if (how == SETCHANGE_REFUSED && healing)
		turn = (unsigned)(o == operators);
	/* He is told so, and does as he is told. */
	if (how == SETCHANGE_DONE && o->c.frozen_at >= 0 && !others_busy(o)) {
		history_add("operator on node %u: takes volume %d in again, which is frozen", o->node->id, o->c.frozen_at);
		o->volume = (unsigned)o->c.frozen_at;
		o->in_place = true;
		o->number = ++next_number;
		later(o, rnd_ms(500, 3000), on_run);
		return;
	}
	/* Refused while others have frozen it, too: they bring it to an end, or the next run finds it as it was. */
	if (how == SETCHANGE_DONE || (how == SETCHANGE_REFUSED && !volset_frozen() && (healing || o->froze || ++o->tries > TRIES))) {
		over(o);
		return;
	}
	if (how == SETCHANGE_REFUSED && o->c.node != 0 && sim.n_edits == 0)
		edit_post(EDIT_DISARM, 0, 0); /* somebody has armed it again */
	if (how == SETCHANGE_REFUSED && healing && o->runs > 2)
		mend_another(o);
	o->number = ++next_number;
	later(o, rnd_ms(500, 3000), on_run);
}

static void on_act(struct sim_event *ev)
{
	struct operator *o = ev->obj;
	struct setchange *c = &o->c;
	struct volume_data *d;
	bool write, ok;

	if (ev->arg != o->number || !o->busy)
		return;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		sim.node[i].hurt_ns = sim.now;
	if (c->act >= SETCHANGE_DONE) {
		run_ends(o);
		return;
	}
	if (!healing && chance(40)) {
		history_add("operator on node %u: is cut off", o->node->id);
		o->running = false;
		o->old = 0;
		o->number = ++next_number;
		later(o, rnd_ms(100, 20000), on_run);
		return;
	}
	if (c->act == SETCHANGE_WAIT) {
		setchange_next(c, true);
		later(o, 0, on_act);
		return;
	}
	d = device(o, c->at);
	write = c->act == SETCHANGE_WRITE || c->act == SETCHANGE_COPY;
	ok = reaches(o, c->at, write) && d->block[0][0][0];
	if (c->act == SETCHANGE_LOOK) {
		if (!c->chained)
			o->looked = sim.now;
		ok = reaches(o, c->at, false);
		c->volume[c->at].status = ok ? d->sb : FORMAT_E_BLANK;
		if (d->sb == FORMAT_OK)
			c->volume[c->at].sb = d->super;
	} else if (c->act == SETCHANGE_STATE && ok) {
		read_state(o, d);
	} else if (c->act == SETCHANGE_WRITE && ok) {
		ok = sim.now - o->looked <= setchange_looked_ms(c) * NS_PER_MS;
		if (ok)
			write_superblock(o, d);
	} else if (c->act == SETCHANGE_COPY && ok) {
		ok = sim.now - o->looked <= setchange_looked_ms(c) * NS_PER_MS && copy_all(o, d);
	}
	setchange_next(c, ok);
	later(o, c->act == SETCHANGE_WAIT ? keeper_ms(c->ms) : !healing && chance(20) ? rnd_ms(1000, 60000) : rnd_ms(1, 30), on_act);
}

/* One process of ha-ctl. */
static void on_run(struct sim_event *ev)
{
	struct operator *o = ev->obj;
	struct setchange *c = &o->c;
	struct target *t = &sim.target[o->volume];

	if (ev->arg != o->number || !o->busy)
		return;
	if (healing && o == &operators[!turn] && operators[turn].busy) {
		later(o, SIM_S, on_run);
		return;
	}
	o->running = true;
	o->old = 0;
	o->runs++;
	if (healing && !o->node->up)
		o->node = &sim.node[rnd(sim.n_nodes)];
	memset(c, 0, sizeof(*c));
	c->kind = SETCHANGE_REPLACE;
	c->in_place = o->in_place;
	c->timing = sim.timing;
	memcpy(c->cluster_name, sim.sb[0].cluster_name, sizeof(c->cluster_name));
	memcpy(c->change, &o->number, sizeof(o->number));
	c->incarnation[0] = ++next_incarnation;
	c->incarnation[1] = (uint8_t)(o->number);
	c->incarnation[2] = (uint8_t)(o->number >> 8);
	c->n = sim.n_volumes + !o->in_place;
	for (unsigned i = 0; i < c->n; i++)
		c->volume[i] = (struct setchange_volume){ .reachable = true, .index = i < sim.n_volumes ? (int)i : -1, .is_new = i == o->volume };
	if (!o->in_place && !t->has_next && !t->swapped) {
		t->has_next = true;
		volset_blank(&t->next);
	}
	setchange_begin(c);
	later(o, rnd_ms(1, 30), on_act);
}

bool volset_frozen(void)
{
	for (unsigned v = 0; v < sim.n_volumes; v++)
		if (!is_of_the_set(v))
			return true;
	return false;
}

static void dump(const char *what, unsigned v, const struct volume_data *d)
{
	const struct superblock *s = &d->super;

	history_add("volume %u%s: %s, generation %llu%s, index %u, incarnations %u.%u %u.%u %u.%u, written by run %llu", v, what, format_status_name(d->sb),
		    (unsigned long long)s->generation, s->frozen ? " frozen" : "", s->index, s->set[0][0], s->set[0][1], s->set[1][0], s->set[1][1], s->set[2][0],
		    s->set[2][1], (unsigned long long)s->change[0] | (unsigned long long)s->change[1] << 8);
}

void volset_dump(void)
{
	if (!volset_busy() && !volset_frozen())
		return;
	for (unsigned i = 0; i < OPERATORS; i++)
		if (operators[i].busy)
			history_add("operator on node %u: at volume %u%s, run %llu%s", operators[i].node->id, operators[i].volume,
				    operators[i].in_place ? " in place" : "", (unsigned long long)operators[i].number, operators[i].running ? ", running" : "");
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct target *t = &sim.target[v];

		dump("", v, &t->data);
		if (t->swapped)
			dump(", before", v, &t->old);
		if (t->has_next)
			dump(", next", v, &t->next);
	}
}

bool volset_busy(void) { return operators[0].busy || operators[1].busy; }

void volset_replace(struct node *n, unsigned v)
{
	struct operator *o = !operators[0].busy ? &operators[0] : &operators[1];

	if (o->busy || sim.n_volumes < 2 || ((operators[0].old | operators[1].old) >> v & 1) || (o == &operators[1] && operators[0].in_place && operators[0].volume == v))
		return;
	/* Two operators replace the same volume by the same one, or each another one. */
	*o = (struct operator){ .busy = true, .node = n, .volume = v, .number = ++next_number, .in_place = sim.n_volumes > 2 && chance(300) };
	if (o == &operators[1] && operators[0].volume == v)
		o->in_place = false;
	if (others_at(o)) {
		later(o, rnd_ms(0, 5000), on_run);
		return;
	}
	sim.target[v].swapped = false;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		if ((sim.node[i].kclient.old | sim.node[i].aclient.old) >> v & 1) {
			o->busy = false; /* not while somebody still talks to it */
			return;
		}
	edit_post(EDIT_DISARM, 0, 0);
	later(o, rnd_ms(0, 5000), on_run);
}

/* All is healed: operators finish what they have begun. */
bool volset_heal(void)
{
	healing = true;
	return volset_busy();
}

void volset_chaos(void) { healing = false; }
