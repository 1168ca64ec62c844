/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing the volume set: what is refused, that the new volume has every node's newest blocks, and that cut off at every step, run again, or run by two
 * operators at once there are never two sets with a quorum each. */
#include <stdio.h>
#include <stdlib.h>

#include "storage/setchange.h"
#include "tests/tap.h"

#define NODES 3
#define DISKS 5

/* What lies on each device. Disk 3 is the blank one. */
static struct disk { bool up; bool has_sb, torn; struct superblock sb; struct setchange_state state; } disk[DISKS];

static void reset(unsigned n)
{
	memset(disk, 0, sizeof(disk));
	for (unsigned d = 0; d < DISKS; d++) {
		struct superblock *sb = &disk[d].sb;

		disk[d].up = true;
		if (d >= n)
			continue;
		disk[d].has_sb = true;
		*sb = (struct superblock){ .generation = 5, .n_volumes = n, .index = d, .node_limit = NODES };
		memcpy(sb->cluster_name, "c", 2);
		sb->cluster[0] = 9;
		timing_of_profile(TIMING_FAST, &sb->timing);
		for (unsigned i = 0; i < n; i++)
			sb->set[i][0] = (uint8_t)(i + 1);
		for (uint32_t id = 1; id <= NODES; id++)
			for (unsigned k = 0; k < SETCHANGE_BLOCKS; k++)
				disk[d].state.slot[id - 1][k] = (struct setchange_slot){ .readable = true, .epoch = 4, .seq = 10 * id, .state = HEARTBEAT_DISARMED };
	}
}

struct op { struct setchange c; unsigned disk[SETCHANGE_MAX]; };

static struct op *op_new(enum setchange_kind kind, const unsigned *conf, unsigned n, int fresh, int goes)
{
	static uint8_t number;
	struct op *o = calloc(1, sizeof(*o));

	o->c.kind = kind;
	memcpy(o->c.cluster_name, "c", 2);
	o->c.change[0] = ++number;
	o->c.incarnation[0] = number;
	o->c.incarnation[1] = 1; /* as none of reset() */
	timing_of_profile(TIMING_FAST, &o->c.timing);
	for (unsigned i = 0; i < n; i++) {
		o->disk[i] = conf[i];
		o->c.volume[i] = (struct setchange_volume){ .reachable = disk[conf[i]].up, .index = (int)i, .is_new = (int)conf[i] == fresh };
	}
	o->c.n = n;
	if (goes >= 0 && goes != fresh) {
		o->disk[n] = (unsigned)goes;
		o->c.volume[n] = (struct setchange_volume){ .reachable = disk[goes].up, .index = -1 };
		o->c.n++;
	}
	o->c.in_place = goes == fresh;
	setchange_begin(&o->c);
	return o;
}

static bool over(const struct op *o) { return o->c.act >= SETCHANGE_DONE; }

/* Carries out one act. */
static void step(struct op *o)
{
	struct setchange *c = &o->c;
	struct disk *d = &disk[o->disk[c->at]];
	bool ok = d->up;

	if (c->act == SETCHANGE_LOOK && ok) {
		c->volume[c->at].status = d->has_sb ? FORMAT_OK : FORMAT_E_BLANK;
		c->volume[c->at].sb = d->sb;
		c->volume[c->at].torn = d->torn;
	} else if (c->act == SETCHANGE_STATE && ok) {
		c->volume[c->at].state = d->state;
	} else if (c->act == SETCHANGE_WRITE && ok) {
		d->has_sb = true;
		d->sb = c->sb;
		d->torn = false;
	} else if (c->act == SETCHANGE_COPY && ok) {
		for (uint32_t id = 1; id <= NODES; id++)
			for (unsigned k = 0; k < SETCHANGE_BLOCKS; k++)
				d->state.slot[id - 1][k] = disk[o->disk[c->from[id - 1][k]]].state.slot[id - 1][k];
	}
	setchange_next(c, ok || c->act == SETCHANGE_WAIT);
}

static enum setchange_act run(struct op *o)
{
	enum setchange_act how;

	while (!over(o))
		step(o);
	how = o->c.act;
	if (how != SETCHANGE_DONE && getenv("VERBOSE"))
		(void)printf("# %s: %s (node %u)\n", how == SETCHANGE_REFUSED ? "refused" : "stopped", o->c.why, o->c.node);
	free(o);
	return how;
}

static bool same_set(const struct superblock *a, const struct superblock *b)
{
	return a->generation == b->generation && a->n_volumes == b->n_volumes && memcmp(a->set, b->set, sizeof(a->set)) == 0;
}

/* How many different sets have a fence quorum of unfrozen members; two volumes in the same place are of two. */
static unsigned sets_with_quorum(void)
{
	unsigned sets = 0;

	for (unsigned i = 0; i < DISKS; i++)
		for (unsigned j = 0; j < i; j++)
			sets += disk[i].has_sb && disk[j].has_sb && !disk[i].sb.frozen && !disk[j].sb.frozen && same_set(&disk[i].sb, &disk[j].sb) &&
				disk[i].sb.index == disk[j].sb.index;

	for (unsigned i = 0; i < DISKS; i++) {
		unsigned agree = 0;
		bool first = true;

		for (unsigned j = 0; j < DISKS; j++) {
			bool same = disk[i].has_sb && disk[j].has_sb && !disk[i].sb.frozen && !disk[j].sb.frozen && same_set(&disk[i].sb, &disk[j].sb);

			agree += same;
			first = first && !(same && j < i);
		}
		sets += first && disk[i].has_sb && !disk[i].sb.frozen && agree >= format_fence_quorum(disk[i].sb.n_volumes);
	}
	return sets;
}

/* Every fence quorum of the valid set shows at least seq of node 1's claims. */
static bool quorums_show(uint64_t seq)
{
	for (unsigned i = 0; i < DISKS; i++) {
		unsigned lack = 0;

		if (!disk[i].has_sb || disk[i].sb.frozen)
			continue;
		for (unsigned j = 0; j < DISKS; j++)
			lack += disk[j].has_sb && !disk[j].sb.frozen && same_set(&disk[i].sb, &disk[j].sb) && disk[j].state.slot[0][SETCHANGE_CLAIMS].seq < seq;
		if (lack >= format_fence_quorum(disk[i].sb.n_volumes))
			return false;
	}
	return true;
}

static void acknowledge(unsigned a, unsigned b, uint64_t seq)
{
	disk[a].state.slot[0][SETCHANGE_CLAIMS].seq = disk[b].state.slot[0][SETCHANGE_CLAIMS].seq = seq;
}

struct how { const char *name; enum setchange_kind kind; unsigned before, conf[3], n; int fresh, goes; };
static const struct how hows[] = {
	{ "add to one", SETCHANGE_ADD, 1, { 0, 3 }, 2, 3, -1 },
	{ "add to two", SETCHANGE_ADD, 2, { 0, 1, 3 }, 3, 3, -1 },
	{ "replace one of two", SETCHANGE_REPLACE, 2, { 0, 3 }, 2, 3, 1 },
	{ "replace one of three", SETCHANGE_REPLACE, 3, { 0, 3, 2 }, 3, 3, 1 },
	{ "replace one of three by itself", SETCHANGE_REPLACE, 3, { 0, 1, 2 }, 3, 1, 1 },
	{ "remove one of three", SETCHANGE_REMOVE, 3, { 0, 2 }, 2, -1, 1 },
	{ "remove one of two", SETCHANGE_REMOVE, 2, { 1 }, 1, -1, 0 },
	{ "replace the other of two", SETCHANGE_REPLACE, 2, { 4, 1 }, 2, 4, 0 },
	{ "replace one of three by another one", SETCHANGE_REPLACE, 3, { 0, 4, 2 }, 3, 4, 1 },
	{ "replace another of three", SETCHANGE_REPLACE, 3, { 4, 1, 2 }, 3, 4, 0 },
};

static struct op *begin(const struct how *h) { return op_new(h->kind, h->conf, h->n, h->fresh, h->goes); }

static void plain(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hows); i++) {
		const struct how *h = &hows[i];
		bool good = true;

		reset(h->before);
		good = run(begin(h)) == SETCHANGE_DONE && sets_with_quorum() == 1;
		for (unsigned v = 0; v < h->n; v++)
			good = good && disk[h->conf[v]].sb.generation == 6 && disk[h->conf[v]].sb.index == v && !disk[h->conf[v]].sb.frozen &&
			       disk[h->conf[v]].sb.n_volumes == h->n && memcmp(&disk[h->conf[v]].state, &disk[h->conf[0]].state, sizeof(disk[0].state)) == 0;
		TAP_OK(good, "%s: done, each in its place and with every node's state", h->name);
		TAP_OK(h->goes < 0 || h->goes == h->fresh || disk[h->goes].sb.frozen, "%s: who went is frozen", h->name);
		TAP_OK(h->goes == h->fresh || run(begin(h)) == SETCHANGE_DONE, "%s: once more: nothing to do", h->name);
	}
}

/* Power goes before the n-th act, for every n; one more volume may be away when it is run again. */
static void cut_off(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hows); i++) {
		const struct how *h = &hows[i];
		bool never_two = true, finishes = true, keeps = true;
		unsigned cuts = 0;

		for (bool more = true; more; cuts++) {
			struct op *o;

			reset(h->before);
			if (h->before == 3 && h->kind != SETCHANGE_REMOVE)
				acknowledge(1, 2, 99); /* disk 0 lags */
			else
				for (unsigned d = 0; d < h->before; d++)
					disk[d].state.slot[0][SETCHANGE_CLAIMS].seq = 99;
			o = begin(h);
			for (unsigned n = 0; n < cuts && !over(o); n++) {
				step(o);
				never_two = never_two && sets_with_quorum() <= 1;
			}
			more = !over(o);
			free(o);
			keeps = keeps && (h->goes == h->fresh || quorums_show(99));
			finishes = finishes && run(begin(h)) == SETCHANGE_DONE && sets_with_quorum() == 1;
			/* By itself: a change that was finished only is asked for once more. */
			keeps = keeps && quorums_show(99);
		}
		TAP_OK(never_two, "%s: cut off at each of %u acts: never two sets with a quorum", h->name, cuts);
		TAP_OK(finishes, "%s: cut off anywhere, the same command again finishes", h->name);
		TAP_OK(keeps, "%s: cut off anywhere, what was acknowledged is on every quorum", h->name);
	}
}

static bool any_torn(void)
{
	bool any = false;

	for (unsigned d = 0; d < DISKS; d++)
		any = any || disk[d].torn;
	return any;
}

/* Power goes in the middle of a write that ends a change: one copy of the new set, the other of the former. */
static void torn(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hows); i++) {
		const struct how *h = &hows[i];
		bool finishes = true, more = true;
		unsigned n_torn = 0;

		for (unsigned cuts = 0; more; cuts++) {
			struct op *o;
			struct disk *d;

			reset(h->before);
			o = begin(h);
			for (unsigned n = 0; n < cuts && !over(o); n++)
				step(o);
			more = !over(o);
			d = &disk[o->disk[o->c.at]];
			if (more && o->c.act == SETCHANGE_WRITE && !o->c.sb.frozen && d->sb.generation < o->c.sb.generation) {
				d->sb = o->c.sb;
				d->torn = true;
				n_torn++;
				free(o);
				finishes = finishes && run(begin(h)) == SETCHANGE_DONE && !any_torn() && sets_with_quorum() == 1 && disk[h->conf[0]].sb.generation == 6;
				continue;
			}
			free(o);
		}
		TAP_OK(finishes && n_torn > 0, "%s: torn at each of %u superblocks of the new set: the same command again writes it whole", h->name, n_torn);
	}
}

/* What a daemon that works with generation 5 makes of two copies, in either order. */
static void copies(void)
{
	static const struct { const char *name; int a, b; bool a_frozen, b_frozen; enum superblock_verdict verdict; bool torn; } of[] = {
		{ "ours", 5, 5, false, false, SUPERBLOCK_SAME, false },
		{ "ours, one copy damaged", 5, 0, false, false, SUPERBLOCK_SAME, false },
		{ "ours, and one copy from before, frozen: the last write of the change went half", 5, 4, false, true, SUPERBLOCK_SAME, true },
		{ "ours, and one copy from before", 5, 4, false, false, SUPERBLOCK_SAME, true },
		{ "being frozen: one copy is", 5, 5, false, true, SUPERBLOCK_CHANGED, false },
		{ "frozen", 5, 5, true, true, SUPERBLOCK_CHANGED, false },
		{ "of the next set, and ours frozen", 6, 5, false, true, SUPERBLOCK_CHANGED, true },
		{ "of the next set, and ours", 6, 5, false, false, SUPERBLOCK_CHANGED, true },
		{ "of the next set, frozen, and ours", 6, 5, true, false, SUPERBLOCK_CHANGED, true },
		{ "of the next set", 6, 6, false, false, SUPERBLOCK_CHANGED, false },
		{ "ours frozen, and one copy from before, frozen", 5, 4, true, true, SUPERBLOCK_CHANGED, true },
		{ "from before, frozen", 4, 4, true, true, SUPERBLOCK_CHANGED, false },
		{ "from before", 4, 4, false, false, SUPERBLOCK_STALE, false },
		{ "from before, one copy frozen", 4, 4, false, true, SUPERBLOCK_CHANGED, false },
	};
	struct superblock own;

	reset(3);
	own = disk[1].sb;
	for (unsigned i = 0; i < ARRAY_SIZE(of); i++)
		for (unsigned swap = 0; swap < 2; swap++) {
			uint8_t data[2 * FORMAT_BLOCK] = { 0 };

			for (unsigned c = 0; c < 2; c++) {
				struct superblock sb = own;
				bool second = c != swap;
				int generation = second ? of[i].b : of[i].a;

				sb.generation = (uint64_t)generation;
				sb.set[0][0] = (uint8_t)(generation + 1);
				if (generation == 5)
					memcpy(sb.set, own.set, sizeof(sb.set));
				sb.frozen = second ? of[i].b_frozen : of[i].a_frozen;
				if (generation != 0)
					superblock_encode(&sb, c, data + format_superblock_offset(c));
			}
			TAP_OK(superblock_check(data, &own, 1) == of[i].verdict && setchange_torn(data) == of[i].torn, "a superblock %s%s", of[i].name,
			       swap ? ", the other way round" : "");
		}
}

/* What goes is dead for good: the first run was cut off anywhere, and the same command must get by without it. */
static void dead_for_good(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hows); i++) {
		const struct how *h = &hows[i];
		bool finishes = true, one = true, more = h->goes >= 0 && h->goes != h->fresh, done;

		if (!more)
			continue;
		for (unsigned cuts = 0; more; cuts++) {
			struct op *o;

			reset(h->before);
			disk[h->goes].up = false;
			o = begin(h);
			o->c.lost = h->before == 2;
			for (unsigned n = 0; n < cuts && !over(o); n++)
				step(o);
			more = !over(o);
			free(o);
			o = begin(h);
			o->c.lost = h->before == 2;
			/* Removed and dead, it cannot say any more that it was removed. */
			done = h->kind == SETCHANGE_REMOVE && sets_with_quorum() == 1 && disk[h->conf[0]].sb.generation == 6;
			finishes = finishes && (run(o) == SETCHANGE_DONE || done);
			disk[h->goes].up = true;
			one = one && sets_with_quorum() == 1 && !disk[h->conf[0]].sb.frozen && disk[h->conf[0]].sb.generation == 6;
		}
		TAP_OK(finishes, "%s, which is dead: cut off anywhere, the same command again finishes", h->name);
		TAP_OK(one, "%s, which is dead: one set, and it comes back as no part of it", h->name);
	}
}

/* A volume has missed the change before. */
static void missed_one(void)
{
	const struct how *three = &hows[3], *two = &hows[2];
	struct op *o;

	reset(3);
	disk[0].sb.generation = disk[2].sb.generation = 6;
	disk[1].sb.frozen = true;
	TAP_OK(run(begin(three)) == SETCHANGE_DONE && disk[1].sb.generation == 6 && !disk[1].sb.frozen, "what has missed a change is seen, and brought up first");
	disk[1].sb.generation = 5;
	o = begin(three);
	while (o->c.act != SETCHANGE_WAIT && !over(o))
		step(o);
	free(o);
	memset(disk[0].sb.to, 0x77, 16); /* two operators: the other one's wish */
	TAP_OK(run(begin(three)) == SETCHANGE_DONE && disk[3].sb.generation == 7 && sets_with_quorum() == 1, "what has missed a change is seen, and replaced in the middle of another");

	reset(2);
	disk[0].sb.generation = 6;
	disk[0].sb.set[0][0] = 50;
	disk[1].sb.frozen = true;
	TAP_OK(run(begin(two)) == SETCHANGE_DONE && disk[1].sb.generation == 6 && !disk[1].sb.frozen && disk[1].sb.index == 1 && sets_with_quorum() == 1,
	       "one that is to go gets the superblock of its set first");
	TAP_OK(run(begin(two)) == SETCHANGE_DONE && disk[3].sb.generation == 7 && disk[1].sb.frozen && sets_with_quorum() == 1, "and then goes");

	/* Not to be taken for it: frozen, as it was taken out of the set that is. */
	reset(2);
	disk[1].sb.generation = 6;
	disk[1].sb.n_volumes = 1;
	memcpy(disk[1].sb.set[0], disk[1].sb.set[1], 16);
	memset(disk[1].sb.set[1], 0, 16);
	disk[1].sb.index = 0;
	disk[0].sb.frozen = true;
	memcpy(disk[0].sb.to, disk[1].sb.set, sizeof(disk[0].sb.to));
	disk[1].up = false;
	o = begin(two);
	o->c.lost = true;
	TAP_OK(run(o) == SETCHANGE_REFUSED && disk[0].sb.frozen && sets_with_quorum() == 1, "a volume that was taken out does not carry on for the one that stayed");
}

/* Another command after one that was cut off, with any one volume away, and the former one again: it goes on, or is refused; never two sets. */
static void other_after(void)
{
	unsigned runs = 0, bad = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(hows); i++)
		for (unsigned k = 0; k < ARRAY_SIZE(hows); k++)
			for (unsigned away = 0; away <= DISKS; away++)
				for (unsigned cut = 0; cut < 60; cut++) {
					struct op *o;

					if (hows[i].before != hows[k].before)
						continue;
					reset(hows[i].before);
					o = begin(&hows[i]);
					for (unsigned n = 0; n < cut && !over(o); n++)
						step(o);
					free(o);
					if (away < DISKS)
						disk[away].up = false;
					(void)run(begin(&hows[k]));
					bad += sets_with_quorum() > 1;
					(void)run(begin(&hows[i]));
					bad += sets_with_quorum() > 1;
					if (away < DISKS)
						disk[away].up = true;
					(void)run(begin(&hows[i]));
					bad += sets_with_quorum() > 1;
					runs++;
				}
	TAP_OK(bad == 0, "another command after one that was cut off, a volume away: never two sets with a quorum (%u of %u)", bad, runs);
}

/* Two at once, in any order of their acts. */
/* A change that was decided, and whose new volume has not been told: it names the set that is, which is no change to come for whoever replaces another one. */
static void not_told(void)
{
	static const unsigned same[] = { 0, 1, 2 }, other[] = { 3, 1, 2 };
	enum setchange_act how;
	struct op *o;

	reset(3);
	o = op_new(SETCHANGE_REPLACE, same, 3, 2, 2);
	while (!over(o) && !(disk[0].sb.generation == 6 && !disk[0].sb.frozen && disk[1].sb.generation == 6 && !disk[1].sb.frozen))
		step(o);
	TAP_OK(!over(o) && disk[2].sb.frozen && disk[2].sb.generation == 6, "replaced by itself, and cut off before it was told");
	free(o);
	how = run(op_new(SETCHANGE_REPLACE, other, 3, 3, 0));
	if (how != SETCHANGE_DONE)
		how = run(op_new(SETCHANGE_REPLACE, other, 3, 3, 0));
	TAP_OK(how == SETCHANGE_DONE && disk[3].sb.generation == 7 && sets_with_quorum() == 1, "another volume is replaced after that");
	TAP_OK(disk[3].sb.set[0][1] == 1 && memcmp(disk[3].sb.set[0], disk[0].sb.set[0], 16) != 0, "by one that is not mistaken for the one that goes");
}

static bool is_about_to_write(const struct op *o, unsigned d) { return o->c.act == SETCHANGE_WRITE && o->disk[o->c.at] == d; }

/* One has looked at what the other has frozen, and freezes it again right after the other's first superblock of the new set. */
static void put_back(void)
{
	struct op *a, *b;
	enum setchange_act how_a, how_b;

	reset(2);
	a = begin(&hows[2]);
	while (!over(a) && a->c.act != SETCHANGE_WAIT)
		step(a);
	b = begin(&hows[7]);
	for (unsigned looks = 0; looks < 3; looks++)
		step(b);
	step(a);
	while (!over(a) && !is_about_to_write(a, 0))
		step(a);
	while (!over(b) && !is_about_to_write(b, 0))
		step(b);
	TAP_OK(!over(a) && !over(b), "two operators: both are about to write the volume that is in both sets");
	step(a);
	while (!over(a) && a->c.act != SETCHANGE_WAIT)
		step(a);
	step(b);
	how_a = run(a);
	how_b = run(b);
	TAP_OK(how_a == SETCHANGE_STOPPED && how_b == SETCHANGE_DONE && sets_with_quorum() == 1, "whose was put back stops");
}

/* A replaces volume 1 by 4 in a set into which B has brought volume 3: up to where it has frozen it. */
static struct op *frozen_after(void)
{
	struct op *a;

	reset(3);
	(void)run(op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 1, 3 }, 3, 3, 2));
	disk[1].up = false;
	a = op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 4, 3 }, 3, 4, 1);
	while (!over(a) && a->c.act != SETCHANGE_WAIT)
		step(a);
	disk[1].up = true;
	return a;
}

/* Between its look at a volume and its deciding on another one. */
static void taken_back(void)
{
	struct op *a = frozen_after(), *b;
	enum setchange_act how;

	disk[0].up = false;
	b = op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 1, 3 }, 3, 3, 2);
	while (!over(b))
		step(b);
	TAP_OK(b->c.act == SETCHANGE_DONE && disk[3].sb.frozen && sets_with_quorum() == 0, "the change before asked for again: the next one's freeze is none of its own");
	TAP_OK(b->c.frozen_at == 2, "and it is told that it is frozen");
	free(b);
	disk[0].up = true;
	TAP_OK(run(a) == SETCHANGE_DONE && disk[4].sb.generation == 7 && sets_with_quorum() == 1, "which comes to its end");

	a = frozen_after();
	while (!over(a) && a->c.act != SETCHANGE_COPY)
		step(a);
	step(a);
	disk[3].sb.frozen = false;
	how = run(a);
	TAP_OK(how == SETCHANGE_STOPPED && disk[0].sb.frozen && disk[0].sb.generation == 6, "what was frozen and has been taken back since: nothing is decided");
}

static void two_operators(void)
{
	unsigned bad = 0, done = 0, unfinished = 0;

	srand(1);
	for (unsigned n = 0; n < 20000; n++) {
		const struct how *a = &hows[rand() % (int)ARRAY_SIZE(hows)], *b = &hows[rand() % (int)ARRAY_SIZE(hows)];
		struct op *o[2];
		bool waited[2] = { false, false };
		unsigned again = 3; /* who is refused, or stopped, says it again */

		if (a->before != b->before)
			continue;
		reset(a->before);
		o[0] = begin(a);
		o[1] = begin(b);
		while (!over(o[0]) || !over(o[1])) {
			unsigned w = (unsigned)rand() % 2;

			if (over(o[w]) && o[w]->c.act != SETCHANGE_DONE && again > 0) {
				again--;
				free(o[w]);
				o[w] = begin(w ? b : a);
				waited[w] = false;
			}
			if (over(o[w]))
				w ^= 1;
			/* WAIT is longer than the other takes from a look to its write: each act of the other that is no wait comes first. */
			if (o[w]->c.act == SETCHANGE_WAIT && !over(o[!w]) && o[!w]->c.act != SETCHANGE_WAIT && !waited[w]) {
				for (unsigned k = 0; k < 2 && !over(o[!w]) && o[!w]->c.act != SETCHANGE_WAIT; k++)
					step(o[!w]);
				waited[w] = true;
			} else if (o[w]->c.act != SETCHANGE_WAIT) {
				waited[w] = false;
			}
			step(o[w]);
			bad += sets_with_quorum() > 1;
		}
		done += o[0]->c.act == SETCHANGE_DONE || o[1]->c.act == SETCHANGE_DONE;
		free(o[0]);
		free(o[1]);
		unfinished += run(begin(a)) == SETCHANGE_STOPPED;
	}
	TAP_OK(bad == 0, "two operators at once: never two sets with a quorum");
	TAP_OK(done > 0 && unfinished == 0, "two operators at once: a third run finishes or is refused (%u were done at once)", done);
}

/* What was frozen on fewer volumes than a quorum; the cluster is armed since, and lives by the others. */
static void half_frozen(void)
{
	const struct how *three = &hows[3], *another = &hows[9];
	bool others = false;

	for (unsigned i = 0; i < 4; i++) {
		enum setchange_act how;
		struct op *o;

		reset(3);
		o = begin(three);
		while (!disk[0].sb.frozen)
			step(o);
		free(o);
		for (unsigned d = 0; d < 3; d++)
			disk[d].state.slot[0][SETCHANGE_HEARTBEAT].state = HEARTBEAT_ARMED;
		disk[1].up = i < 2;
		o = begin(i & 1 ? another : three);
		while (!over(o)) {
			step(o);
			others = others || disk[1].sb.frozen || disk[2].sb.frozen;
		}
		how = o->c.act;
		free(o);
		TAP_OK(how == SETCHANGE_REFUSED && disk[0].sb.frozen == (i == 3) && disk[0].sb.generation == 5, "armed since, one volume frozen: refused, %s",
		       i == 3 ? "and left, as it may be decided on one that is away" : "and it thaws");
	}
	TAP_OK(!others, "what the cluster lives by is never frozen for that");
	/* Of another command's change nothing but its new volume is seen: prepared, it is no set that anybody lives by. */
	reset(3);
	{
		struct op *o = op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 1, 2 }, 3, 2, 2);

		while (!over(o) && !(disk[2].sb.frozen && disk[2].sb.generation == 6))
			step(o);
		free(o);
		for (unsigned i = 0; i < 2; i++) {
			(void)run(op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 3, 2 }, 3, 3, 1));
			TAP_OK(disk[2].sb.frozen && sets_with_quorum() == 0, "what was only prepared never thaws");
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		struct op *o;
		enum setchange_act how;

		reset(2);
		o = begin(&hows[2]);
		while (!disk[0].sb.frozen)
			step(o);
		free(o);
		disk[1].up = i == 0;
		how = run(op_new(SETCHANGE_REPLACE, (unsigned[]){ 0, 1 }, 2, 0, 0));
		TAP_OK(how == SETCHANGE_REFUSED && disk[0].sb.frozen == i && disk[0].sb.generation == 5, "of two, one is to be replaced by itself that was frozen: refused%s",
		       i ? "" : ", and it thaws");
	}
}

/* A superblock that was on its way for longer than another operator took for a change of his own, from look to end. */
static void at_odds(void)
{
	const struct how *three = &hows[3], *other = &hows[9];
	struct op *a, *b;
	struct disk before[DISKS], late;

	reset(3);
	a = begin(three);
	while (!over(a) && !(a->c.act == SETCHANGE_WRITE && !a->c.sb.frozen))
		step(a);
	late = disk[a->disk[a->c.at]];
	late.sb = a->c.sb;
	b = begin(other);
	TAP_OK(run(b) == SETCHANGE_DONE && sets_with_quorum() == 1, "another change comes to its end meanwhile");
	disk[a->disk[a->c.at]] = late;
	free(a);
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "the late one asked for again: refused, as the volumes show two sets");
	TAP_OK(sets_with_quorum() <= 1, "of which one at most has a quorum");
}

static void refused(void)
{
	const struct how *three = &hows[3], *two = &hows[2], *by_itself = &hows[4];
	struct disk before[DISKS];
	struct op *o;

	reset(3);
	disk[0].state.slot[1][SETCHANGE_HEARTBEAT].state = disk[2].state.slot[1][SETCHANGE_HEARTBEAT].state = HEARTBEAT_ARMED;
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "an armed node: refused, and nothing is written");
	disk[0].state.slot[0][SETCHANGE_HEARTBEAT].over[1] = 4;
	TAP_OK(run(begin(three)) == SETCHANGE_DONE, "an armed node whose epoch is over: done");

	reset(3);
	o = begin(three);
	while (o->c.act != SETCHANGE_WAIT)
		step(o);
	disk[0].state.slot[2][SETCHANGE_HEARTBEAT].state = HEARTBEAT_ARMED;
	disk[0].state.slot[2][SETCHANGE_HEARTBEAT].seq = 1000;
	TAP_OK(run(o) == SETCHANGE_REFUSED && !disk[0].sb.frozen && !disk[1].sb.frozen && !disk[2].sb.frozen && disk[0].sb.generation == 5 && sets_with_quorum() == 1,
	       "armed while the set is frozen: refused, and the set is as it was");

	reset(3);
	disk[2].up = false;
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED, "one is replaced and another away: refused");
	TAP_OK(run(begin(by_itself)) == SETCHANGE_REFUSED, "so for one that is replaced by itself");
	reset(3);
	disk[0].state.slot[0][SETCHANGE_HEARTBEAT].claims_seq = 12;
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED, "claims older than announced: refused");
	reset(3);
	disk[0].state.slot[0][SETCHANGE_CLAIMS].readable = false;
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED, "claims that too few volumes show: refused");
	reset(3);
	disk[0].state.slot[0][SETCHANGE_CLAIMS].seq = 3;
	TAP_OK(run(begin(&hows[5])) == SETCHANGE_REFUSED, "remove, and one that stays lags behind: refused");
	reset(3);
	o = op_new(SETCHANGE_REPLACE, (const unsigned[]){ 3, 0, 2 }, 3, 3, 1);
	TAP_OK(run(o) == SETCHANGE_REFUSED, "another order in Volumes=: refused");
	/* It may be the very same disk. */
	reset(3);
	disk[1] = disk[0];
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(begin(by_itself)) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "to be replaced by itself, and shows another of the set: refused");
	reset(3);
	disk[3] = disk[0];
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "the new volume shows another of the set: refused");
	reset(2);
	disk[3] = disk[0];
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(begin(&hows[1])) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "one of the set is added once more: refused");
	reset(3);
	disk[3].up = false;
	TAP_OK(run(begin(three)) == SETCHANGE_REFUSED && disk[0].sb.generation == 5 && !disk[0].sb.frozen, "the new volume away: refused");
	reset(3);
	disk[1].has_sb = false;
	TAP_OK(run(begin(by_itself)) == SETCHANGE_DONE, "a wiped volume is taken in again");

	reset(2);
	disk[1].up = false;
	TAP_OK(run(begin(two)) == SETCHANGE_REFUSED, "one of two lost: refused without the operator's word");
	reset(2);
	disk[1].up = false;
	o = op_new(SETCHANGE_REPLACE, two->conf, 2, 3, 1);
	o->c.lost = true;
	while (o->c.act != SETCHANGE_WAIT)
		step(o);
	disk[0].state.slot[0][SETCHANGE_HEARTBEAT].seq++;
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(o) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "with it: a heartbeat that moves is a refusal, and nothing was frozen");
	o = op_new(SETCHANGE_REPLACE, two->conf, 2, 3, 1);
	o->c.lost = true;
	while (!disk[0].sb.frozen || o->c.act != SETCHANGE_WAIT)
		step(o);
	TAP_OK(o->c.ms > o->c.timing.w_ms, "W is waited for");
	disk[0].state.slot[0][SETCHANGE_HEARTBEAT].seq++;
	TAP_OK(run(o) == SETCHANGE_REFUSED && !disk[0].sb.frozen, "and a heartbeat that moves then is one, too");
	reset(3);
	o = begin(three);
	o->c.lost = true;
	memcpy(before, disk, sizeof(disk));
	TAP_OK(run(o) == SETCHANGE_REFUSED && memcmp(before, disk, sizeof(disk)) == 0, "of three: refused");
	reset(2);
	disk[1].up = false;
	disk[0].state.slot[0][SETCHANGE_HEARTBEAT].state = HEARTBEAT_ARMED;
	o = op_new(SETCHANGE_REPLACE, two->conf, 2, 3, 1);
	o->c.lost = true;
	TAP_OK(run(o) == SETCHANGE_DONE, "else it is done");
	reset(1);
	TAP_OK(run(op_new(SETCHANGE_REPLACE, (const unsigned[]){ 3 }, 1, 3, 0)) == SETCHANGE_REFUSED, "the only volume is not replaced in one step");
}

int main(void)
{
	plain();
	dead_for_good();
	missed_one();
	cut_off();
	torn();
	copies();
	other_after();
	not_told();
	put_back();
	taken_back();
	two_operators();
	half_frozen();
	at_odds();
	refused();
	return tap_done();
}
