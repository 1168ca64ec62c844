/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hold: riding through an outage of the storage that hits everybody (tests/model/hold.pml).
 *
 * A node X whose round could not be renewed on the volumes asks its peers over the ring, each round anew, naming it. A grant is a promise about W: the
 * granter counts its t0 of X from the grant, and has given up what it had begun against X. So X may count the named round as renewed, which allows one pet and
 * nothing else: the gate goes by renewals on the volumes, and so do claims. Every node that may take over from X must have promised:
 *
 *   - each node of X's configuration grants, unless it is known to be over or has published that it left: "gone from the ring" says nothing, for it may
 *     see the storage that X does not. Who is over may come back meanwhile with an epoch that X has not read of: a hold that leaves out anybody ends T_hb
 *     after the last read of the table that succeeded was issued.
 *   - such a newcomer is not listed in X's newest block; it waits T_hb longer than W (takeover.c), counted from when its own epoch is on a fence quorum:
 *     whatever X reads after that shows it (lease.c, known_to_all).
 *   - a node that is not in X's configuration is never asked; so it takes over from X only by the word of others (takeover.c, heartbeat.members).
 *   - a process that has just started has read of nobody, so it asks nobody: its first pets come from rounds on the volumes.
 *
 * A peer grants while it has no fence quorum itself, so that storage lost by one node alone is no outage: nobody grants, it releases, its VMs start
 * elsewhere. It grants for T_heal after it has its quorum back, since X may take longer to reconnect; after a short outage only to those
 * who asked for nothing before it, or a flapping volume would keep up a node that has lost the storage for good. Not while a commit of its own is
 * out: X will have to release for it as soon as it reads it, and its VMs are better off elsewhere soon. */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

#define HOLD_MAGIC "KVMHAHD1"

/* Longer than any round: a node that did not ask for so long had no need to. */
static int64_t pause_ns(const struct keeper *k) { return keeper_ms(k->opt.timing.hb_ms + 2 * k->opt.timing.io_ms); }
/* Whoever's write or read met an outage in which others ran into T_io has had no good round for at least as long. */
static int64_t disturbed_ns(const struct keeper *k) { return keeper_ms(MAX(k->opt.timing.io_ms, k->opt.timing.hb_ms + k->opt.timing.hb_ms / 2)); }
static bool in(uint64_t set, uint32_t id) { return set >> (id - 1) & 1; }

static void send(struct keeper *k, enum hold_kind kind, uint32_t to, uint32_t epoch, uint64_t seq)
{
	struct hold_msg *m;

	keeper_act(k, KEEPER_ACT_HOLD);
	m = &k->action[k->n_actions - 1].hold;
	*m = (struct hold_msg){ .kind = kind, .from = k->opt.self, .to = to, .epoch = epoch, .seq = seq };
	memcpy(m->host, k->opt.host, 16);
}

/* X's side. */

/* Its own word, or a proof: nothing of that epoch can take over from anybody. */
static bool over_or_left(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];

	if (MUTANT(HOLD_GONE_IS_LEFT) && !in(k->view, id))
		return true;
	return !n->known || n->hb.state == HEARTBEAT_RELEASED || n->hb.state == HEARTBEAT_LEFT || k->mine.over[id - 1] >= n->hb.epoch;
}

static bool may_count(const struct keeper *k)
{
	bool left_out = false;

	if ((k->opt.members & ~(1ULL << (k->opt.self - 1))) == 0)
		return false; /* nobody could promise anything, and another host with our id goes by our silence (lease.c) */
	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		if (id == k->opt.self || !keeper_is_member(k, id) || in(k->hold.granted, id))
			continue;
		if (!over_or_left(k, id))
			return false;
		left_out = true;
	}
	return !left_out || k->now_ns - k->hold.read_ns < keeper_ms(k->opt.timing.hb_ms) || MUTANT(HOLD_WITHOUT_END);
}

static void try_count(struct keeper *k)
{
	if (k->renewed || !k->hold.due || !lease_may_hold(k) || table_commit_against(k) != 0 || !may_count(k))
		return;
	k->renewed = true;
	k->hold.rounds++;
	k->hold.counted_seq = k->seq;
	if (k->hold.since_ns == 0) {
		k->hold.since_ns = k->now_ns;
		keeper_note(k, NOTE_HOLD, k->opt.self, 1);
		keeper_act(k, KEEPER_ACT_TELL);
	}
}

static void ask(struct keeper *k)
{
	if (!k->hold.due || !lease_may_hold(k))
		return;
	send(k, HOLD_ASK, 0, k->epoch, k->seq);
	try_count(k); /* there may be nobody who is not over */
}

void hold_round_begins(struct keeper *k)
{
	if (!MUTANT(HOLD_ANY_ROUND))
		k->hold.granted = 0;
	ask(k);
}

void hold_epoch_begins(struct keeper *k)
{
	k->hold.ready = k->hold.due = false;
	k->hold.granted = 0;
	k->hold.read_ns = 0;
}

void hold_over(struct keeper *k)
{
	if (k->hold.since_ns == 0)
		return;
	k->hold.since_ns = 0;
	keeper_note(k, NOTE_HOLD, k->opt.self, 0);
	keeper_act(k, KEEPER_ACT_TELL);
}

/* A peer's side. */

static bool has_storage(const struct keeper *k) { return k->hold.lost_ns == 0; }

static bool heals(const struct keeper *k, const struct table_node *x)
{
	const struct hold *h = &k->hold;
	int64_t heal = keeper_ms(k->opt.timing.heal_ms);

	if (h->regained_ns == 0 || k->now_ns - h->regained_ns >= heal)
		return false;
	return h->regained_ns - h->outage_ns >= heal || x->ask.since_ns >= h->outage_ns - pause_ns(k);
}

static void try_grant(struct keeper *k, uint32_t id)
{
	struct table_node *x = &k->node[id - 1];

	if (x->ask.epoch == 0 || x->ask.granted || k->now_ns - x->ask.at_ns > pause_ns(k) || k->state == LEASE_LEFT)
		return;
	if (k->mine.over[id - 1] >= x->ask.epoch || k->mine.commit[id - 1] >= x->ask.epoch || (x->known && x->hb.epoch > x->ask.epoch))
		return;
	if (has_storage(k) && !heals(k, x) && !MUTANT(HOLD_WITH_STORAGE))
		return;
	if (k->n_actions >= KEEPER_MAX_ACTIONS / 2)
		return; /* it asks again */
	x->ask.granted = true;
	if (!MUTANT(HOLD_TAKEOVER_GOES_ON)) {
		x->t0_ns = k->now_ns;
		takeover_withdraw(k, id);
	}
	send(k, HOLD_GRANT, id, x->ask.epoch, x->ask.seq);
}

static void asked(struct keeper *k, const struct hold_msg *m)
{
	struct table_node *x = &k->node[m->from - 1];

	if (format_compare(m->epoch, m->seq, x->ask.epoch, x->ask.seq) < 0)
		return; /* late: it asks for a later round by now */
	if (x->ask.at_ns == 0 || k->now_ns - x->ask.at_ns > pause_ns(k) || x->ask.epoch != m->epoch)
		x->ask.since_ns = k->now_ns;
	x->ask.epoch = m->epoch;
	x->ask.seq = m->seq;
	x->ask.at_ns = k->now_ns;
	x->ask.granted = false;
	try_grant(k, m->from);
}

static void granted(struct keeper *k, const struct hold_msg *m)
{
	const struct table_node *n = &k->node[m->from - 1];

	if (m->to != k->opt.self || m->epoch != k->epoch || (m->seq != k->seq && !MUTANT(HOLD_ANY_ROUND)))
		return;
	if (n->known && memcmp(n->hb.host, m->host, 16) != 0)
		return; /* of another host with that node's id: the node itself has promised nothing */
	k->hold.granted |= 1ULL << (m->from - 1);
	try_count(k);
}

void hold_message(struct keeper *k, const struct hold_msg *m)
{
	if (m->from == 0 || m->from > k->opt.node_limit || m->from == k->opt.self || m->epoch == 0 || m->epoch > FORMAT_MAX_EPOCH)
		return;
	if (m->kind == HOLD_ASK)
		asked(k, m);
	else if (m->kind == HOLD_GRANT)
		granted(k, m);
}

/* Both sides. */

/* They may have found out sooner than we did. */
static void grant_all(struct keeper *k)
{
	for (uint32_t id = 1; id <= k->opt.node_limit; id++)
		if (id != k->opt.self)
			try_grant(k, id);
}

/* What this round has not written it will not renew, whatever it reads: a hung volume's reads, which take T_io more, are not waited for. */
void hold_round_unwritten(struct keeper *k, bool renew)
{
	struct hold *h = &k->hold;

	if (!renew && !h->due) {
		h->due = true;
		ask(k);
	}
	if (h->lost_ns == 0) {
		h->lost_ns = k->now_ns;
		grant_all(k);
	}
}

void hold_round_over(struct keeper *k, bool fence, bool read, bool renewed)
{
	struct hold *h = &k->hold;

	h->due = !renewed;
	if (read)
		h->read_ns = k->read_ns;
	if (renewed) {
		h->ready = true;
		hold_over(k);
	}
	if (fence && h->lost_ns != 0) {
		h->outage_ns = h->lost_ns;
		h->regained_ns = h->had_storage ? k->now_ns : 0;
		h->lost_ns = 0;
		h->had_storage = true;
	} else if (fence && h->good_ns != 0 && k->now_ns - h->good_ns > disturbed_ns(k)) {
		/* Too short for us to lose a round, but others may have lost theirs: they have a write to wait out that is still on its way. */
		h->outage_ns = h->good_ns;
		h->regained_ns = k->now_ns;
	} else if (!fence && h->lost_ns == 0) {
		h->lost_ns = k->now_ns;
	} else {
		h->good_ns = fence ? k->now_ns : h->good_ns;
		return;
	}
	if (fence)
		h->good_ns = k->now_ns;
	grant_all(k);
}

/* There was no volume to write to or to read from. Just after a good round that may only be one whose last operation has not settled yet. */
void hold_round_empty(struct keeper *k)
{
	if (k->hold.lost_ns != 0 || k->now_ns - k->hold.good_ns > keeper_ms(k->opt.timing.hb_ms))
		hold_round_over(k, false, false, false);
}

/* Messages: magic 8, cluster 16, host 16, kind 4, to 4, epoch 4, zero 4, seq 8; little-endian. */

static void put(uint8_t *p, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

void hold_encode(const struct hold_msg *m, const uint8_t cluster[16], uint8_t buf[HOLD_MSG_LEN])
{
	memcpy(buf, HOLD_MAGIC, 8);
	memcpy(buf + 8, cluster, 16);
	memcpy(buf + 24, m->host, 16);
	put(buf + 40, m->kind, 4);
	put(buf + 44, m->to, 4);
	put(buf + 48, m->epoch, 4);
	put(buf + 52, 0, 4);
	put(buf + 56, m->seq, 8);
}

bool hold_decode(const void *buf, size_t len, uint32_t from, const uint8_t cluster[16], struct hold_msg *ret)
{
	const uint8_t *p = buf;
	uint64_t kind;

	if (len != HOLD_MSG_LEN || memcmp(p, HOLD_MAGIC, 8) != 0 || memcmp(p + 8, cluster, 16) != 0)
		return false;
	kind = get(p + 40, 4);
	if (kind < HOLD_ASK || kind >= HOLD_KIND_END)
		return false;
	*ret = (struct hold_msg){ .kind = (enum hold_kind)kind, .from = from, .to = (uint32_t)get(p + 44, 4), .epoch = (uint32_t)get(p + 48, 4),
				  .seq = get(p + 56, 8) };
	memcpy(ret->host, p + 24, 16);
	return true;
}
