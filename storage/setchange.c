/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/setchange.h"

#include "agent/base/mutant.h"

enum step {
	STEP_LOOK, STEP_STATE, STEP_LISTEN, STEP_LISTENED, STEP_FREEZE, STEP_WAIT, STEP_RECHECK, STEP_RESTATE, STEP_PREPARE, STEP_COPY, STEP_LAST_LOOK, STEP_FINISH_LOOK, STEP_FINISH_WRITE, STEP_SETTLE, STEP_SETTLE_LOOK, STEP_THAW, STEP_END,
};

#define LOOKED_MS 1000 /* between a look at a volume, or two operations if that is longer, and the write that follows from it; of looks at several, an operation more for each */
#define OTHERS "somebody else changes the volume set at the same time: see `ha-ctl volume list`, then run this again"
#define AWAY "a volume is away now: bring it back and run this again"

static uint32_t looked_ms(const struct setchange *c) { return MAX(LOOKED_MS, 2 * c->timing.io_ms); }

static void end(struct setchange *c, enum setchange_act how)
{
	c->act = how;
	c->step = STEP_END;
	c->at = 0;
}

static void enter(struct setchange *c, enum step step)
{
	c->step = step;
	c->at = 0;
	c->has_set = 0;
}

static bool fail(struct setchange *c, enum setchange_act how, const char *why)
{
	c->why = why;
	c->node = c->have = c->need = 0;
	end(c, how);
	return false;
}

static bool fail_count(struct setchange *c, uint32_t node, unsigned have, unsigned need, const char *why)
{
	(void)fail(c, SETCHANGE_REFUSED, why);
	c->node = node;
	c->have = have;
	c->need = need;
	return false;
}

/* The copies are written together, but power may go between them: frozen, or later, counts if either says so. Not so what is earlier than the other copy, which is of our set: that was
 * the last write then, and has decided. */
enum superblock_verdict superblock_check(const void *data, const struct superblock *own, unsigned index)
{
	enum format_status st[2];
	struct superblock sb;
	enum superblock_verdict best = SUPERBLOCK_WIPED, now;
	bool any = false;

	for (unsigned c = 0; c < 2; c++) {
		st[c] = superblock_decode((const uint8_t *)data + format_superblock_offset(c), c, own->cluster, &sb);
		if (st[c] != FORMAT_OK)
			continue;
		if (sb.generation > own->generation || (sb.generation == own->generation && (sb.frozen || memcmp(sb.set, own->set, sizeof(sb.set)) != 0)))
			return SUPERBLOCK_CHANGED;
		if (sb.generation == own->generation)
			now = sb.index == index ? SUPERBLOCK_SAME : SUPERBLOCK_FOREIGN;
		else
			now = sb.frozen ? SUPERBLOCK_CHANGED : SUPERBLOCK_STALE;
		if (!any || now == SUPERBLOCK_SAME || (now == SUPERBLOCK_CHANGED && best != SUPERBLOCK_SAME))
			best = now;
		any = true;
	}
	if (any)
		return best;
	for (unsigned c = 0; c < 2; c++)
		if (st[c] == FORMAT_E_CLUSTER || st[c] == FORMAT_E_MISPLACED || st[c] == FORMAT_E_VERSION)
			return SUPERBLOCK_FOREIGN;
	return st[0] == FORMAT_E_CRC || st[1] == FORMAT_E_CRC ? SUPERBLOCK_DAMAGED : SUPERBLOCK_WIPED;
}

enum format_status setchange_superblock(const void *data, struct superblock *ret)
{
	enum format_status st[2];
	struct superblock sb[2];

	for (unsigned i = 0; i < 2; i++)
		st[i] = superblock_decode((const uint8_t *)data + format_superblock_offset(i), i, NULL, &sb[i]);
	if (st[0] != FORMAT_OK && st[1] != FORMAT_OK)
		return st[0] == FORMAT_E_BLANK || st[0] == FORMAT_E_FOREIGN ? st[1] : st[0];
	if (st[0] == FORMAT_OK && st[1] == FORMAT_OK)
		*ret = sb[1].generation > sb[0].generation || (sb[1].generation == sb[0].generation && sb[1].frozen) ? sb[1] : sb[0];
	else
		*ret = sb[st[0] != FORMAT_OK];
	return FORMAT_OK;
}

bool setchange_torn(const void *data)
{
	struct superblock sb[2];

	for (unsigned i = 0; i < 2; i++)
		if (superblock_decode((const uint8_t *)data + format_superblock_offset(i), i, NULL, &sb[i]) != FORMAT_OK)
			return false;
	return memcmp(sb[0].cluster, sb[1].cluster, 16) == 0 && sb[0].generation != sb[1].generation;
}

static unsigned fence(const struct setchange *c) { return format_fence_quorum(c->former.n_volumes); }
/* What a volume that is replaced holds is not to be believed: of three a fence quorum is left without it. Of two both are read, and the newest counts.
 * Nor may it be copied: an epoch that only this volume shows may have been begun anew since, and would end that one when it came to be on a quorum. */
static bool counts(const struct setchange *c, const struct setchange_volume *v)
{
	return v->reachable && v->member && !v->is_new && (v->index >= 0 || c->kind != SETCHANGE_REPLACE || c->former.n_volumes < FORMAT_MAX_VOLUMES);
}
/* How many must be frozen and read. */
static unsigned needed(const struct setchange *c) { return c->lost && c->former.n_volumes == 2 ? 1 : fence(c); }

static bool same_members(const struct superblock *a, const struct superblock *b)
{
	return a->generation == b->generation && a->n_volumes == b->n_volumes && memcmp(a->set, b->set, sizeof(a->set)) == 0;
}

/* The place in the next set that the change is about. */
static unsigned place_of_change(const struct setchange *c, int goes) { return c->kind == SETCHANGE_ADD ? c->next.n_volumes - 1 : (unsigned)goes; }

/* Was this to come, and is it what is asked for now, but for the incarnation that was drawn? */
static bool is_same_change(const struct setchange *c, int goes, const uint8_t to[FORMAT_MAX_VOLUMES][16])
{
	uint8_t set[FORMAT_MAX_VOLUMES][16];
	unsigned at = place_of_change(c, goes);

	memcpy(set, c->next.set, sizeof(set));
	/* What came into the present set last, and was not told so yet, names that very set: it brings nothing new to this place, least of all who is to go. */
	if (c->kind != SETCHANGE_REMOVE && memcmp(to[at], c->former.set[at], 16) == 0)
		return false;
	if (c->kind != SETCHANGE_REMOVE)
		memcpy(set[at], to[at], 16);
	return memcmp(set, to, sizeof(set)) == 0;
}

/* Those that stay are the first to get the next set: where each is seen without it nothing is decided. */
static bool all_stay_seen(const struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->volume[i].index >= 0 && !c->volume[i].is_new && !c->volume[i].member)
			return false;
	return true;
}

/* An earlier run of this very change: it is gone on with, by the incarnation it drew if the new volume shows it. Else that may be on a disk which an earlier run took for the new
 * one: two disks in one place would be a quorum each. */
static bool goes_on(struct setchange *c, int goes)
{
	const uint8_t (*to)[16] = NULL;
	const struct setchange_volume *new = NULL;
	bool one = true;

	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (!v->reachable || v->status != FORMAT_OK || !v->sb.frozen)
			continue;
		if (v->is_new && v->sb.generation == c->next.generation && is_same_change(c, goes, v->sb.set))
			new = v;
		if (!v->member)
			continue;
		if (!is_same_change(c, goes, v->sb.to))
			return false;
		one = one && (!to || memcmp(to, v->sb.to, sizeof(v->sb.to)) == 0);
		to = v->sb.to;
	}
	if (!to && !new)
		return false;
	if (c->kind == SETCHANGE_REMOVE)
		return true;
	if (!one || !new || (to && memcmp(new->sb.set, to, sizeof(new->sb.set)) != 0))
		return all_stay_seen(c);
	memcpy(c->next.set, new->sb.set, sizeof(c->next.set));
	return true;
}

static void make_next(struct setchange *c, int goes)
{
	struct superblock *n = &c->next;
	unsigned to = 0;

	*n = c->former;
	n->frozen = false;
	memset(n->to, 0, sizeof(n->to));
	memcpy(n->change, c->change, 16);
	n->generation++;
	if (c->kind == SETCHANGE_REPLACE) {
		memcpy(n->set[goes], c->incarnation, 16);
	} else if (c->kind == SETCHANGE_ADD) {
		memcpy(n->set[n->n_volumes++], c->incarnation, 16);
	} else {
		memset(n->set, 0, sizeof(n->set));
		for (unsigned i = 0; i < c->former.n_volumes; i++)
			if ((int)i != goes)
				memcpy(n->set[to++], c->former.set[i], 16);
		n->n_volumes = to;
	}
	c->goes_on = goes_on(c, goes);
}

/* The former set is of the highest generation that a volume of it shows. */
static bool find_former(struct setchange *c)
{
	const struct superblock *top = NULL;

	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (!v->reachable || v->status != FORMAT_OK || v->is_new)
			continue;
		if (strcmp(v->sb.cluster_name, c->cluster_name) != 0 || (top && memcmp(top->cluster, v->sb.cluster, 16) != 0))
			return fail(c, SETCHANGE_REFUSED, "a volume of Volumes= belongs to another cluster: see `ha-ctl volume list`");
		if (!top || v->sb.generation > top->generation)
			top = &v->sb;
	}
	/* An earlier run has come to its end, and another one has frozen the others once more. */
	for (unsigned i = 0; i < c->n && top && !c->in_place; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (v->is_new && v->reachable && v->status == FORMAT_OK && memcmp(v->sb.cluster, top->cluster, 16) == 0 && !v->sb.frozen &&
		    v->sb.generation > top->generation)
			top = &v->sb;
	}
	if (!top)
		return fail(c, SETCHANGE_REFUSED, "no volume of the present set that is to stay can be read: with the quorum the claims are lost");
	c->former = *top;
	c->was_frozen = top->frozen;
	return true;
}

static void assign_members(struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct setchange_volume *v = &c->volume[i];

		v->member = v->reachable && v->status == FORMAT_OK && memcmp(v->sb.cluster, c->former.cluster, 16) == 0 && same_members(&v->sb, &c->former);
		v->old_index = v->member ? (int)v->sb.index : -1;
		c->was_frozen = c->was_frozen || (v->member && v->sb.frozen);
	}
}

/* One that was late by more than a whole change of somebody else's has put a superblock of its own where that one's set is. */
static bool is_at_odds(const struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (v->reachable && v->status == FORMAT_OK && !v->is_new && !v->sb.frozen && memcmp(v->sb.cluster, c->former.cluster, 16) == 0 &&
		    v->sb.generation == c->former.generation && !same_members(&v->sb, &c->former))
			return true;
	}
	return false;
}

static const struct setchange_volume *new_volume(const struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->volume[i].is_new)
			return &c->volume[i];
	return NULL;
}

static unsigned count_frozen(const struct setchange *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->volume[i].member && c->volume[i].sb.frozen;
	return n;
}

static unsigned count_members(const struct setchange *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += counts(c, &c->volume[i]);
	return n;
}

/* One that is to go from a set may still lack the superblock of that set. */
static unsigned place_of(const struct setchange_volume *v) { return v->index >= 0 ? (unsigned)v->index : v->sb.index; }

static bool is_of(const struct setchange_volume *v, const struct superblock *set)
{
	return v->reachable && v->status == FORMAT_OK && memcmp(v->sb.cluster, set->cluster, 16) == 0 && place_of(v) < set->n_volumes &&
	       memcmp(v->sb.set[v->sb.index], set->set[place_of(v)], 16) == 0;
}

/* Frozen for another set than its own; else it was prepared for its own, and has still to be told that this is the present one. */
static bool frozen_for_later(const struct setchange *c, const struct superblock *sb)
{
	return sb->frozen && same_members(sb, &c->former) && memcmp(sb->to, sb->set, sizeof(sb->to)) != 0;
}

/* A change was decided by an earlier run: a volume shows its set, unfrozen, and another one is still frozen, or shows it in one copy only; not if the next change has begun since. */
static bool is_decided(struct setchange *c)
{
	bool decided = false;

	if (c->former.frozen)
		return false;
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (v->reachable && v->status == FORMAT_OK && frozen_for_later(c, &v->sb))
			return false;
		if (is_of(v, &c->former) && v->sb.frozen)
			decided = decided || v->sb.generation + 1 == c->former.generation || (v->is_new && same_members(&v->sb, &c->former));
		if (is_of(v, &c->former) && v->member && !v->sb.frozen)
			decided = decided || v->torn;
	}
	return decided;
}

/* Nothing is left to do of what is asked for. */
static bool is_done(const struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (c->former.frozen || !v->reachable || v->status != FORMAT_OK || memcmp(v->sb.cluster, c->former.cluster, 16) != 0)
			continue;
		if (v->is_new && !c->in_place && is_of(v, &c->former) && v->member)
			return true;
		if (c->kind == SETCHANGE_REMOVE && v->index < 0 && v->sb.frozen && v->sb.generation + 1 == c->former.generation &&
		    c->former.n_volumes + 1 == v->sb.n_volumes)
			return true;
	}
	return false;
}

/* The former set's index of the volume that goes: the one nobody else has. */
static int index_that_goes(const struct setchange *c)
{
	bool taken[FORMAT_MAX_VOLUMES] = { false };
	int goes = -1;

	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (v->member && (v->index < 0 || v->is_new))
			return v->old_index;
		if (v->member)
			taken[v->old_index] = true;
	}
	for (unsigned i = 0; i < c->former.n_volumes; i++)
		if (!taken[i])
			goes = goes < 0 ? (int)i : FORMAT_MAX_VOLUMES;
	return goes;
}

static bool check_places(struct setchange *c, int goes)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];
		int place = c->kind == SETCHANGE_ADD ? (int)c->next.n_volumes - 1 : goes;

		if (v->is_new ? v->index == place
			      : v->index < 0 || !v->member ||
					(v->index < (int)c->next.n_volumes && memcmp(c->next.set[v->index], c->former.set[v->old_index], 16) == 0))
			continue;
		return fail(c, SETCHANGE_REFUSED, "Volumes= has another order than the set, see `ha-ctl volume list`: who replaces a volume takes its place, "
			    "one that is added comes last");
	}
	return true;
}

/* Of the present set, but it has missed the change that made it. */
static bool is_stale(const struct setchange *c, const struct setchange_volume *v)
{
	return v->reachable && v->status == FORMAT_OK && memcmp(v->sb.cluster, c->former.cluster, 16) == 0 && v->sb.generation < c->former.generation &&
	       v->sb.index < c->former.n_volumes && memcmp(v->sb.set[v->sb.index], c->former.set[v->sb.index], 16) == 0;
}

/* Replaced by itself, and prepared for that by an earlier run. */
static bool is_prepared(const struct setchange *c, const struct setchange_volume *v)
{
	return c->in_place && v->is_new && v->reachable && v->status == FORMAT_OK && memcmp(v->sb.cluster, c->former.cluster, 16) == 0 && v->sb.frozen;
}

/* Each volume of the present set is seen, and nothing is decided on it. */
static bool all_readable(const struct setchange *c)
{
	unsigned seen = 0;

	for (unsigned i = 0; i < c->n; i++)
		seen += c->volume[i].member || is_stale(c, &c->volume[i]) || is_prepared(c, &c->volume[i]);
	return seen == c->former.n_volumes;
}

/* An interrupted change to another set may be decided on a volume that is not seen now; one to the same set only goes on. */
static bool check_earlier(struct setchange *c)
{
	if (!c->was_frozen || all_readable(c) || c->goes_on)
		return true;
	return fail(c, SETCHANGE_REFUSED, "an earlier change of the set was interrupted, and not every volume can be read to tell how far it came: run that command "
		    "again, or bring all volumes back");
}

/* Nothing of the new set can be on a volume. */
static bool may_go_back(const struct setchange *c)
{
	return all_readable(c) || (all_stay_seen(c) && c->goes_on);
}

/* What is to be new is another volume of the set, by another address or mapped wrongly, or a copy of it: who knows which? Written over, it might be that one. */
static bool is_another(const struct setchange *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];

		if (v->is_new && v->member && v->old_index != v->index)
			return true;
	}
	return false;
}

static bool check_kind(struct setchange *c, int goes)
{
	if (c->kind == SETCHANGE_ADD && c->former.n_volumes == FORMAT_MAX_VOLUMES)
		return fail(c, SETCHANGE_REFUSED, "the set has three volumes, and more are of no use");
	if (c->kind != SETCHANGE_ADD && c->former.n_volumes == 1)
		return fail(c, SETCHANGE_REFUSED, "the only volume cannot be taken out: add the new one first (`ha-ctl volume add`), then remove the old one");
	if (c->kind != SETCHANGE_ADD && goes < 0)
		return fail(c, SETCHANGE_REFUSED, "the volume that is to go is not of the present set");
	if (c->kind != SETCHANGE_ADD && goes >= (int)c->former.n_volumes)
		return fail(c, SETCHANGE_REFUSED, "more than one volume of the set cannot be read");
	return true;
}

/* Not a set that has been prepared on its new volume, and no more. */
static bool is_in_force(const struct setchange *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->volume[i].member;
	return n >= fence(c);
}

/* It is refused, and what an earlier run has frozen thaws. Nothing else is frozen for that: others may live by it. */
static bool take_back(struct setchange *c)
{
	if (!c->was_frozen || !is_in_force(c) || !may_go_back(c))
		return false;
	c->takes_back = true;
	enter(c, STEP_FREEZE);
	return true;
}

static bool plan(struct setchange *c)
{
	unsigned members, survivors = 0;
	int goes;

	if (!find_former(c))
		return false;
	c->timing = c->former.timing;
	assign_members(c);
	if (is_at_odds(c))
		return fail(c, SETCHANGE_REFUSED, "the volumes show two sets, both said to be the latest: see `ha-ctl volume list`. The one that most of its volumes show is in force: with "
			    "it in Volumes=, replace each other volume by itself (`ha-ctl volume replace`)");
	if (is_decided(c)) {
		c->decided = true;
		c->next = c->former;
		for (unsigned i = 0; i < c->n; i++)
			c->volume[i].member = is_of(&c->volume[i], &c->next);
		return true;
	}
	if (is_done(c)) {
		for (unsigned i = 0; i < c->n; i++)
			c->frozen_at = c->volume[i].reachable && c->volume[i].status == FORMAT_OK && frozen_for_later(c, &c->volume[i].sb) ? (int)i : c->frozen_at;
		end(c, SETCHANGE_DONE);
		return false;
	}
	if (new_volume(c) && !new_volume(c)->reachable)
		return fail(c, SETCHANGE_REFUSED, "the new volume cannot be read");
	if (is_another(c))
		return fail(c, SETCHANGE_REFUSED, "what is to be new shows another volume of this set: it is that one's disk, by this address, too, or a copy of it. See where it "
			    "is mapped to; if it is a disk of its own, overwrite its first 8 KiB with zeros and run this again");
	if (c->lost && c->former.n_volumes != 2)
		return fail(c, SETCHANGE_REFUSED, "--lost is for a set of two volumes of which one is lost: leave it out");
	members = count_members(c);
	if (members < needed(c)) {
		(void)fail_count(c, 0, members, needed(c), "too few volumes of the present set can be read to know every node's state (the one that is replaced "
				 "may not count); if of two volumes one is lost for every node, stop keeper and agent on all nodes and add --lost");
		if (!c->lost && take_back(c))
			c->why = "what an earlier change had frozen was taken back; this one is not possible, as the volumes that stay are too few to know every node's state";
		return false;
	}
	goes = c->kind == SETCHANGE_ADD ? -1 : index_that_goes(c);
	if (!check_kind(c, goes))
		return false;
	make_next(c, goes);
	if (!check_places(c, goes) || !check_earlier(c))
		return false;
	for (unsigned i = 0; i < c->n; i++)
		survivors += c->volume[i].reachable && c->volume[i].index >= 0 && (c->volume[i].is_new || c->volume[i].member);
	if (survivors < format_fence_quorum(c->next.n_volumes))
		return fail_count(c, 0, survivors, format_fence_quorum(c->next.n_volumes), "the new set would have no fence quorum");
	return true;
}

/* Of all volumes that count, the newest. */
static const struct setchange_slot *newest(struct setchange *c, uint32_t id, enum setchange_block kind, unsigned *ret_shown)
{
	const struct setchange_slot *top = NULL;

	*ret_shown = 0;
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_volume *v = &c->volume[i];
		const struct setchange_slot *s = &v->state.slot[id - 1][kind];

		if (!counts(c, v) || !v->has_state || !s->readable)
			continue;
		++*ret_shown;
		if (top && (kind == SETCHANGE_CATALOG ? s->generation < top->generation || (s->generation == top->generation && s->seq <= top->seq)
						      : format_compare(s->epoch, s->seq, top->epoch, top->seq) <= 0))
			continue;
		top = s;
		c->from[id - 1][kind] = i;
	}
	return top;
}

static bool is_over(struct setchange *c, uint32_t id, uint32_t epoch)
{
	for (uint32_t by = 1; by <= c->former.node_limit; by++) {
		unsigned shown;
		const struct setchange_slot *s = newest(c, by, SETCHANGE_HEARTBEAT, &shown);

		if (by != id && s && s->over[id - 1] >= epoch)
			return true;
	}
	return false;
}

/* A volume that stays alone must have what the one that goes has: of a dead node nobody writes it again. */
static bool up_to_date(const struct setchange *c, uint32_t id, const struct setchange_slot *const top[SETCHANGE_BLOCKS])
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct setchange_slot *s = c->volume[i].state.slot[id - 1];

		if (!counts(c, &c->volume[i]) || c->volume[i].index < 0)
			continue;
		if (s[SETCHANGE_CLAIMS].epoch != top[SETCHANGE_CLAIMS]->epoch || s[SETCHANGE_CLAIMS].seq != top[SETCHANGE_CLAIMS]->seq ||
		    s[SETCHANGE_CATALOG].generation != top[SETCHANGE_CATALOG]->generation || s[SETCHANGE_CATALOG].seq != top[SETCHANGE_CATALOG]->seq ||
		    s[SETCHANGE_HEARTBEAT].epoch != top[SETCHANGE_HEARTBEAT]->epoch ||
		    memcmp(s[SETCHANGE_HEARTBEAT].over, top[SETCHANGE_HEARTBEAT]->over, sizeof(s->over)) != 0 ||
		    memcmp(s[SETCHANGE_HEARTBEAT].commit, top[SETCHANGE_HEARTBEAT]->commit, sizeof(s->commit)) != 0)
			return false;
	}
	return true;
}

static bool judge_node(struct setchange *c, uint32_t id, bool again)
{
	const struct setchange_slot *s[SETCHANGE_BLOCKS], *hb;
	unsigned shown;

	for (unsigned kind = 0; kind < SETCHANGE_BLOCKS; kind++) {
		s[kind] = newest(c, id, (enum setchange_block)kind, &shown);
		if (shown < needed(c))
			return fail_count(c, id, shown, needed(c), "its heartbeat, claims or catalog cannot be read on enough volumes");
	}
	hb = s[SETCHANGE_HEARTBEAT];
	if (hb->epoch == 0)
		return true;
	if (s[SETCHANGE_CLAIMS]->seq < hb->claims_seq)
		return fail_count(c, id, 0, 0, "the volumes show older claims than it has announced: wait until all volumes can be read");
	if (hb->state == HEARTBEAT_ARMED && !c->lost && !is_over(c, id, hb->epoch))
		return fail_count(c, id, 0, 0, "it is armed, and the volume set changes only while no node is: `ha-ctl disarm` first; a dead node must have been fenced "
				  "before");
	if (c->kind == SETCHANGE_REMOVE && !up_to_date(c, id, s))
		return fail_count(c, id, 0, 0, "a volume that stays lacks what the one that goes has of it: try again in some seconds");
	if (c->lost && again && (c->watched[id - 1].epoch != hb->epoch || c->watched[id - 1].seq != hb->seq))
		return fail_count(c, id, 0, 0, "it is alive: with --lost keeper and agent must be stopped on all nodes");
	c->watched[id - 1].epoch = hb->epoch;
	c->watched[id - 1].seq = hb->seq;
	return true;
}

static bool judge_state(struct setchange *c, bool again)
{
	for (uint32_t id = 1; id <= c->former.node_limit; id++)
		if (!judge_node(c, id, again))
			return false;
	return true;
}

static void write_sb(struct setchange *c, unsigned volume, const struct superblock *sb, unsigned index, bool frozen)
{
	c->act = SETCHANGE_WRITE;
	c->at = volume;
	c->sb = *sb;
	c->sb.index = index;
	c->sb.frozen = frozen;
	memset(c->sb.to, 0, sizeof(c->sb.to));
	if (frozen)
		memcpy(c->sb.to, c->next.set, sizeof(c->sb.to));
	memcpy(c->sb.change, c->change, 16);
}

static bool takes_new(const struct setchange_volume *v) { return v->is_new && v->reachable && v->index >= 0; }

static bool writes(enum step step) { return step == STEP_FREEZE || step == STEP_PREPARE || step == STEP_COPY || step == STEP_THAW; }

/* Does the step have something to do on this volume? Then act says what; a write comes after a look. */
static bool offer(struct setchange *c, unsigned i)
{
	struct setchange_volume *v = &c->volume[i];
	bool any = false;

	c->at = i;
	switch ((enum step)c->step) {
	case STEP_LOOK:
		any = v->reachable;
		break;
	case STEP_RECHECK:
	case STEP_LAST_LOOK:
	case STEP_THAW:
		any = v->frozen;
		break;
	case STEP_STATE:
	case STEP_LISTENED:
	case STEP_RESTATE:
		any = counts(c, v);
		break;
	case STEP_FREEZE:
		any = v->member && (c->takes_back ? v->sb.frozen : !takes_new(v));
		break;
	case STEP_PREPARE:
	case STEP_COPY:
		any = takes_new(v);
		break;
	default:
		break;
	}
	c->act = c->step == STEP_STATE || c->step == STEP_LISTENED || c->step == STEP_RESTATE ? SETCHANGE_STATE : SETCHANGE_LOOK;
	c->looked = false;
	if (any) {
		c->chained = c->step == STEP_LAST_LOOK && c->has_looked;
		c->has_looked = c->step == STEP_LAST_LOOK;
	}
	return any;
}

static bool frozen_by_us(const struct setchange *c, enum format_status status, const struct superblock *sb)
{
	return status == FORMAT_OK && sb->frozen && memcmp(sb->change, c->change, 16) == 0;
}

bool setchange_holds(const struct setchange *c, enum format_status status, const struct superblock *sb) { return frozen_by_us(c, status, sb) && same_members(sb, &c->next); }

/* Nobody has written there since this run began. */
static bool as_found(const struct setchange_volume *v)
{
	return v->status == v->first_status && (v->status != FORMAT_OK || (same_members(&v->sb, &v->first) && v->sb.frozen == v->first.frozen &&
									   memcmp(v->sb.change, v->first.change, 16) == 0));
}

/* After the look: what is written, or why not. */
static bool ready_to_write(struct setchange *c)
{
	struct setchange_volume *v = &c->volume[c->at];
	bool good = c->step == STEP_COPY ? setchange_holds(c, v->status, &v->sb) : c->step == STEP_THAW ? frozen_by_us(c, v->status, &v->sb) : as_found(v);

	if (!good)
		return fail(c, SETCHANGE_STOPPED, OTHERS);
	c->looked = true;
	if (c->step == STEP_COPY)
		c->act = SETCHANGE_COPY;
	else if (c->step == STEP_PREPARE)
		write_sb(c, c->at, &c->next, (unsigned)v->index, true);
	else
		write_sb(c, c->at, &c->former, (unsigned)v->old_index, c->step == STEP_FREEZE);
	return true;
}

/* Finishing goes volume by volume, those of both sets first; each is looked at right before it is written. */
static int next_to_finish(const struct setchange *c)
{
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < c->n; i++) {
			const struct setchange_volume *v = &c->volume[i];
			bool is_new = takes_new(v);

			if (v->finished || (v->index < 0 && !c->decided) || !v->reachable || is_new != (pass == 1) || (!is_new && !v->member))
				continue;
			/* One that is not what was prepared: it is replaced again later. */
			if (is_new && c->decided && !(v->member && same_members(&v->sb, &c->next)))
				continue;
			return (int)i;
		}
	return -1;
}

static void finish_next(struct setchange *c)
{
	int i = next_to_finish(c);

	c->step = STEP_FINISH_LOOK;
	if (i < 0) {
		end(c, SETCHANGE_DONE);
		return;
	}
	c->at = (unsigned)i;
	c->act = SETCHANGE_LOOK;
	c->chained = false;
}

/* Longer than another operator takes from a look to its write, and than that may be late. */
static void wait_for_others(struct setchange *c)
{
	uint32_t late = c->timing.drain_ms + c->timing.drain_ms / 50;

	c->act = SETCHANGE_WAIT;
	c->ms = FORMAT_MAX_VOLUMES * c->timing.io_ms + MAX(2 * c->timing.io_ms + looked_ms(c), c->timing.io_ms + late);
}

/* This volume shows the new set: written by us, or by an earlier run. */
static void finished(struct setchange *c, unsigned volume)
{
	c->volume[volume].finished = true;
	if (c->settled) {
		finish_next(c);
		return;
	}
	c->step = STEP_SETTLE;
	c->at = volume;
	wait_for_others(c);
}

static void settle_looked(struct setchange *c, bool ok)
{
	const struct setchange_volume *v = &c->volume[c->at];

	if (!ok) {
		(void)fail(c, SETCHANGE_STOPPED, AWAY);
	} else if (v->status != FORMAT_OK || v->sb.frozen || !same_members(&v->sb, &c->next)) {
		(void)fail(c, SETCHANGE_STOPPED, OTHERS);
	} else {
		c->settled = true;
		c->volume[c->at].finished = !v->torn;
		finish_next(c);
	}
}

/* An earlier run's decision: which volume shows it. */
static unsigned shows_next(const struct setchange *c)
{
	unsigned i = 0;

	while (i + 1 < c->n && !(c->volume[i].reachable && c->volume[i].status == FORMAT_OK && !c->volume[i].sb.frozen && same_members(&c->volume[i].sb, &c->next)))
		i++;
	return i;
}

/* The step is over on all volumes: what comes next. */
static void turn(struct setchange *c)
{
	switch ((enum step)c->step) {
	case STEP_LOOK:
		if (!plan(c))
			return;
		if (c->decided)
			finished(c, shows_next(c));
		else /* where a quorum is frozen nobody lives by it: that is brought to an end, or taken back, by one that holds it */
			enter(c, count_frozen(c) >= fence(c) && !c->lost ? STEP_FREEZE : STEP_STATE);
		return;
	case STEP_STATE:
		if (!judge_state(c, false)) {
			(void)take_back(c);
		} else if (c->lost) {
			enter(c, STEP_LISTEN);
			c->act = SETCHANGE_WAIT;
			c->ms = 2 * (c->timing.hb_ms + 2 * c->timing.io_ms);
		} else {
			enter(c, STEP_FREEZE);
		}
		return;
	case STEP_LISTENED:
		if (judge_state(c, true))
			enter(c, STEP_FREEZE);
		else
			(void)take_back(c);
		return;
	case STEP_PREPARE:
		if (MUTANT(NEW_VOLUME_COUNTS_AT_ONCE))
			finish_next(c);
		else
			enter(c, STEP_COPY);
		return;
	case STEP_FREEZE:
		if (c->has_set < needed(c) && !c->takes_back) {
			(void)fail(c, SETCHANGE_STOPPED, "the present set could not be frozen on enough volumes");
			return;
		}
		enter(c, STEP_WAIT);
		wait_for_others(c);
		if (c->lost)
			c->ms = MAX(c->ms, c->timing.w_ms + c->timing.w_ms / 50 + c->timing.hb_ms);
		return;
	case STEP_RECHECK:
		enter(c, c->takes_back ? STEP_THAW : STEP_RESTATE);
		return;
	case STEP_RESTATE:
		if (judge_state(c, true))
			enter(c, STEP_PREPARE);
		else if (c->was_frozen && !may_go_back(c))
			c->act = SETCHANGE_STOPPED; /* it may be decided already */
		else
			enter(c, STEP_THAW);
		return;
	case STEP_COPY:
		enter(c, STEP_LAST_LOOK);
		return;
	case STEP_LAST_LOOK:
		finish_next(c);
		c->chained = true; /* what it decides follows from all that were looked at */
		return;
	case STEP_THAW:
		end(c, SETCHANGE_REFUSED);
		return;
	default:
		return;
	}
}

/* Goes to the next volume that has something to do, over as many steps as it takes. */
static void seek(struct setchange *c)
{
	while (c->step != STEP_END && c->step != STEP_WAIT && c->step != STEP_LISTEN && c->step != STEP_FINISH_LOOK && c->step != STEP_SETTLE) {
		unsigned i = c->at;

		while (i < c->n && !offer(c, i))
			i++;
		if (i < c->n)
			return;
		turn(c);
	}
}

void setchange_begin(struct setchange *c)
{
	c->frozen_at = -1;
	enter(c, STEP_LOOK);
	seek(c);
}

static bool look_again(struct setchange *c, bool ok)
{
	const struct setchange_volume *v = &c->volume[c->at];

	if (!ok)
		return fail(c, SETCHANGE_STOPPED, AWAY);
	if (!frozen_by_us(c, v->status, &v->sb))
		return fail(c, SETCHANGE_STOPPED, OTHERS);
	return true;
}

static void finish_looked(struct setchange *c, bool ok)
{
	struct setchange_volume *v = &c->volume[c->at];
	bool there = ok && v->status == FORMAT_OK && !v->sb.frozen && same_members(&v->sb, &c->next) && !v->torn;

	if (there) {
		finished(c, c->at);
		return;
	}
	/* Going on with what was decided before: by whomever it was frozen, its outcome is known. */
	if (!c->decided && !look_again(c, ok))
		return;
	if (c->decided && (!ok || !as_found(v))) {
		(void)fail(c, SETCHANGE_STOPPED, OTHERS);
		return;
	}
	c->step = STEP_FINISH_WRITE;
	write_sb(c, c->at, &c->next, place_of(v), false);
}

void setchange_next(struct setchange *c, bool ok)
{
	struct setchange_volume *v = &c->volume[c->at];

	if (writes((enum step)c->step) && !c->looked && ok) {
		(void)ready_to_write(c);
		return;
	}
	switch ((enum step)c->step) {
	case STEP_LOOK:
		v->reachable = ok;
		v->first_status = v->status;
		v->first = v->sb;
		break;
	case STEP_STATE:
	case STEP_LISTENED:
	case STEP_RESTATE:
		v->has_state = ok;
		break;
	case STEP_PREPARE:
		if (!ok && !fail(c, SETCHANGE_STOPPED, "the new volume cannot be written"))
			return;
		break;
	case STEP_FREEZE:
		c->has_set += ok && counts(c, v);
		v->frozen = ok;
		if (!ok && !fail(c, SETCHANGE_STOPPED, "a volume of the present set cannot be written"))
			return;
		break;
	case STEP_LISTEN:
	case STEP_WAIT:
		enter(c, c->step == STEP_LISTEN ? STEP_LISTENED : STEP_RECHECK);
		seek(c);
		return;
	case STEP_RECHECK:
	case STEP_LAST_LOOK:
		if (!look_again(c, ok))
			return;
		break;
	case STEP_COPY:
		if (!ok && !fail(c, SETCHANGE_STOPPED, "the new volume cannot be written and read back"))
			return;
		break;
	case STEP_FINISH_LOOK:
		finish_looked(c, ok);
		return;
	case STEP_FINISH_WRITE:
		if (!ok && !fail(c, SETCHANGE_STOPPED, "a volume cannot be written"))
			return;
		finished(c, c->at);
		return;
	case STEP_SETTLE:
		c->step = STEP_SETTLE_LOOK;
		c->act = SETCHANGE_LOOK;
		c->chained = false;
		return;
	case STEP_SETTLE_LOOK:
		settle_looked(c, ok);
		return;
	case STEP_THAW:
		if (!ok && !fail(c, SETCHANGE_STOPPED, "a volume that was frozen cannot be written"))
			return;
		break;
	case STEP_END:
		return;
	}
	c->at++;
	seek(c);
}

uint32_t setchange_looked_ms(const struct setchange *c) { return looked_ms(c) + (c->chained ? FORMAT_MAX_VOLUMES * c->timing.io_ms : 0); }

const char *setchange_text(const struct setchange *c)
{
	switch ((enum step)c->step) {
	case STEP_STATE:
	case STEP_LISTENED:
	case STEP_RESTATE:
		return "reading every node's state";
	case STEP_PREPARE:
		return "preparing it";
	case STEP_FREEZE:
		return "freezing the present set";
	case STEP_LISTEN:
	case STEP_WAIT:
	case STEP_SETTLE:
		return "waiting";
	case STEP_COPY:
		return "copying every node's state onto it";
	case STEP_FINISH_WRITE:
		return "putting it into the new set";
	case STEP_THAW:
		return "taking the present set back";
	default:
		return "reading its superblock";
	}
}
