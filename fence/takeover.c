/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taking over from a node X, one step a round:
 *
 *   suspect -> intent published to a fence quorum, table re-read -> commit published, X re-read -> evidence -> over published
 *
 * Every node of the winning group does this for itself with its own t0 and its own commit: there is nobody whose failure could delay it.
 * W counts from t0, however late the commit comes (model/lease.pml: a renewal that the commit did not stop shows in the re-read and moves t0);
 * so for a silent node the commit waits until it must have begun its own release: a short stall never costs anybody a fence. */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

static struct table_node *node_of(struct keeper *k, uint32_t id) { return &k->node[id - 1]; }
static bool in(uint64_t set, uint32_t id) { return set >> (id - 1) & 1; }

/* What its block says of views and intents is of now. After a hold of ours it may be as old as the outage. */
static bool heard(const struct keeper *k, const struct table_node *n)
{
	return n->fresh && n->heard_ns != 0 && k->now_ns - n->heard_ns <= keeper_ms(k->opt.timing.wd_ms + k->opt.timing.wd_delay_ms);
}

static void compute_groups(struct keeper *k)
{
	struct arbitrate_node an[ARBITRATE_MAX] = { 0 };
	uint64_t winner = k->arb.winner;

	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		struct table_node *n = node_of(k, id);

		/* Who is not armed can neither fence nor be fenced: it has no weight. */
		if (n->fresh && k->ring == HEARTBEAT_RING_OK && in(k->view, id))
			n->joined = n->hb.epoch;
		if (id == k->opt.self)
			an[id - 1] = (struct arbitrate_node){ k->state == LEASE_ARMED, k->ring == HEARTBEAT_RING_OK, k->view };
		else if (keeper_is_member(k, id) && ((heard(k, n) && n->advanced_in_view) || MUTANT(SILENT_COUNTED)) && n->hb.state == HEARTBEAT_ARMED)
			an[id - 1] = (struct arbitrate_node){ true, n->hb.ring == HEARTBEAT_RING_OK, n->hb.view };
	}
	arbitrate(an, k->opt.node_limit, &k->arb);
	if (k->arb.winner != winner)
		k->winner_ns = k->now_ns;
}

/* Of equals the lower id proceeds; false: so it is. */
static bool both_proceed(uint64_t a, uint64_t b)
{
	return (MUTANT(EQUALS_BOTH_PROCEED) || MUTANT(COMMITS_AGAINST_INTENT)) && __builtin_popcountll(a) == __builtin_popcountll(b);
}

bool takeover_wins(const struct keeper *k)
{
	if (MUTANT(LOSER_FENCES) || both_proceed(k->arb.group[k->opt.self - 1], k->arb.winner))
		return true;
	return !k->arb.any_group || in(k->arb.winner, k->opt.self);
}

/* A node whose configuration does not have us yet never asks us for a hold: its silence says nothing to us. (0: of an older version, which never holds.) */
static bool knows_us(const struct keeper *k, const struct table_node *n) { return n->hb.members == 0 || in(n->hb.members, k->opt.self); }

/* W is for a lease that a watchdog enforces. */
static bool has_watchdog(const struct table_node *n)
{
	return n->hb.state == HEARTBEAT_ARMED || (MUTANT(DISARMED_FENCED) && n->hb.state == HEARTBEAT_DISARMED);
}

/* Where its own operator says that it does not (I5), only its own word, power or an operator ends an epoch of it. */
bool takeover_silence_proves(const struct table_node *n)
{
	return has_watchdog(n) && (n->hb.wd_ms != FORMAT_SILENCE_IS_NO_PROOF || MUTANT(SILENCE_PROVES));
}

static enum fence_reason own_reason(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];
	const struct timing *t = &k->opt.timing;
	int64_t settle;

	if (!n->known || !has_watchdog(n) || !knows_us(k, n) || !takeover_wins(k) || k->state != LEASE_ARMED)
		return FENCE_NONE;
	if (!n->fresh)
		return MUTANT(SUSPECTS_AT_ONCE) || k->now_ns - n->t0_ns > keeper_ms(t->wd_ms + t->wd_delay_ms) ? FENCE_STALE : FENCE_NONE;
	if ((k->ring != HEARTBEAT_RING_OK && !MUTANT(RINGLESS_FENCES)) || in(k->view, id) || !n->advanced_in_view || !heard(k, n))
		return FENCE_NONE;
	/* A node that was never in our ring has hardly been split off: it, or we, have just come up. */
	settle = keeper_ms(n->joined == n->hb.epoch ? t->settle_ms : MAX(t->settle_ms, t->ring_grace_ms));
	if ((k->now_ns - k->view_ns < settle || k->now_ns - n->view_ns < settle) && !MUTANT(NO_SETTLE))
		return FENCE_NONE;
	/* Weights change with arming, too. Without this two sides may end each other again and again (tests/model/arbitrate.pml). */
	if (k->now_ns - k->winner_ns < keeper_ms(t->settle_ms) && !MUTANT(NO_SETTLE))
		return FENCE_NONE;
	if (n->hb.ring == HEARTBEAT_RING_OK)
		return in(k->arb.winner, id) && in(k->arb.winner, k->opt.self) ? FENCE_NONE : FENCE_SPLIT;
	if (k->opt.keep_on_ring_loss)
		return FENCE_NONE;
	/* Counted while we have one: corosync may have been gone everywhere, and we are just the first to meet again. */
	if (n->no_ring_ns == 0 || k->now_ns - MAX(n->no_ring_ns, k->ring_ns) < keeper_ms(t->ring_grace_ms))
		return FENCE_NONE;
	return FENCE_NO_RING;
}

static enum fence_reason reason_to_fence(const struct keeper *k, uint32_t id)
{
	if (evidence_wants(k, id))
		return takeover_wins(k) && k->state == LEASE_ARMED ? FENCE_OPERATOR : FENCE_NONE;
	return k->braked && !MUTANT(BRAKE_IGNORED) ? FENCE_NONE : own_reason(k, id);
}

/* A fresh node that wants to fence us. */
static bool intends_us(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];

	return id != k->opt.self && n->known && n->fresh && n->hb.state == HEARTBEAT_ARMED && k->mine.over[id - 1] < n->hb.epoch &&
	       n->hb.intent[k->opt.self - 1] >= k->epoch;
}

uint32_t takeover_lost_to(const struct keeper *k)
{
	uint64_t own = k->arb.group[k->opt.self - 1];

	if (MUTANT(LOSER_BY_SUM) && own != 0 && !in(k->arb.winner, k->opt.self))
		return (uint32_t)__builtin_ctzll(k->arb.winner) + 1;
	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		const struct heartbeat *hb = &k->node[id - 1].hb;
		uint64_t theirs = k->arb.group[id - 1];

		/* A view with us in it wants us fenced because our heartbeat stands still for them: only their commit counts. */
		if (!intends_us(k, id) || !heard(k, &k->node[id - 1]) || hb->ring != HEARTBEAT_RING_OK || in(hb->view, k->opt.self))
			continue;
		if (both_proceed(theirs, own))
			continue;
		/* Our commit outranks its intent: it is about to release, and not both sides may. */
		if (k->mine.commit[id - 1] >= hb->epoch)
			continue;
		if (k->ring != HEARTBEAT_RING_OK ? !k->opt.keep_on_ring_loss : arbitrate_higher(theirs, own) || MUTANT(LOSER_TO_LOWER))
			return id;
	}
	return 0;
}

/* A lower group's intent against us: wait until it is withdrawn, committed, or its writer is stale. */
static bool must_wait(const struct keeper *k)
{
	if (MUTANT(COMMITS_AGAINST_INTENT))
		return false;
	for (uint32_t id = 1; id <= k->opt.node_limit; id++)
		if (intends_us(k, id))
			return true;
	return false;
}

void takeover_withdraw(struct keeper *k, uint32_t id)
{
	if (k->mine.intent[id - 1] == 0)
		return;
	k->mine.intent[id - 1] = 0;
	node_of(k, id)->intent_published = false;
	node_of(k, id)->reason = FENCE_NONE;
	keeper_note(k, NOTE_WITHDRAWN, id, 0);
	keeper_kick(k);
}

static void over(struct keeper *k, uint32_t id, uint32_t epoch)
{
	if (epoch == 0 || k->mine.over[id - 1] >= epoch)
		return;
	k->mine.over[id - 1] = epoch;
	keeper_note(k, NOTE_OVER, id, epoch);
	keeper_kick(k);
}

/* X's epochs that its newest block ends by being there. Between the last that was on a renew quorum and this one may be numbers that a later life of X, which
 * does not see the minority of volumes that has them, begins again: of those a later number says nothing. */
uint32_t takeover_ended_by_later(const struct heartbeat *hb)
{
	return MUTANT(MINORITY_EPOCH_ENDS) || hb->settled >= hb->epoch ? hb->epoch - 1 : hb->settled;
}

/* Highest epoch of each node that a block of somebody else says is over. */
static struct words { uint32_t over[FORMAT_MAX_NODES]; } collect_words(const struct keeper *k)
{
	struct words w = { { 0 } };

	for (uint32_t peer = 1; peer <= k->opt.node_limit; peer++) {
		if (peer == k->opt.self || !k->node[peer - 1].known)
			continue;
		for (unsigned i = 0; i < FORMAT_MAX_NODES; i++)
			w.over[i] = MAX(w.over[i], k->node[peer - 1].hb.over[i]);
	}
	return w;
}

/* What ends an epoch without a wait: X said so itself, or somebody proved it (word: the highest epoch of which anybody says so). */
static void collect_proofs(struct keeper *k, uint32_t id, uint32_t word)
{
	const struct table_node *n = node_of(k, id);

	if (n->known) {
		over(k, id, takeover_ended_by_later(&n->hb));
		if (n->hb.state == HEARTBEAT_RELEASED || n->hb.state == HEARTBEAT_LEFT)
			over(k, id, n->hb.epoch);
	}
	for (uint32_t peer = 1; peer <= k->opt.node_limit && k->mine.over[id - 1] < word; peer++)
		if (peer != k->opt.self && k->node[peer - 1].known)
			over(k, id, k->node[peer - 1].hb.over[id - 1]);
}

static int64_t w_of(const struct keeper *k, uint32_t id)
{
	const struct heartbeat *hb = &k->node[id - 1].hb;
	int64_t own = 2LL * ((int64_t)hb->wd_ms + hb->wd_delay_ms) * (1000 + k->opt.timing.rho_permille) / 1000 + 1, newcomer = 0;

	/* It may be in a hold that has left us out, until T_hb after it could have read of our epoch (hold.c). */
	if (hb->alive[k->opt.self - 1] != k->epoch && !MUTANT(NEWCOMER_WAITS_W))
		newcomer = (int64_t)k->opt.timing.hb_ms * (1000 + k->opt.timing.rho_permille) / 1000 + 1;
	if (MUTANT(SILENCE_PROVES) && hb->wd_ms == FORMAT_SILENCE_IS_NO_PROOF)
		own = 0;
	if (MUTANT(W_ONE_PERIOD))
		return own * NS_PER_MS / 2;
	if (MUTANT(W_WITHOUT_RHO))
		return own * NS_PER_MS / (1000 + k->opt.timing.rho_permille) * 1000;
	return (MAX(own, (int64_t)k->opt.timing.w_ms) + newcomer) * NS_PER_MS;
}

static void advance(struct keeper *k, uint32_t id, bool acked)
{
	struct table_node *n = node_of(k, id);
	uint32_t *intent = &k->mine.intent[id - 1], *commit = &k->mine.commit[id - 1];
	uint32_t epoch = n->hb.epoch;
	enum fence_reason why;

	if (!n->known)
		return;
	/* Dropped only when X shows a later epoch that stays: until then it is raised, if need be. */
	if (*commit != 0 && (takeover_ended_by_later(&n->hb) >= *commit || (MUTANT(COMMIT_DROPPED) && k->mine.over[id - 1] >= *commit))) {
		*commit = 0;
		n->commit_published = false;
	}
	if (*commit >= epoch) {
		*intent = 0;
		n->commit_published = n->commit_published || (acked && k->block.commit[id - 1] == *commit) || MUTANT(COMMIT_UNACKED);
		if (epoch == *commit && k->mine.over[id - 1] < epoch && evidence_counts(k, id)) {
			keeper_note(k, NOTE_EVIDENCE, id, n->proof.kind);
			over(k, id, epoch);
		}
		if (n->commit_published && takeover_silence_proves(n) && knows_us(k, n) && lease_may_judge(k) && epoch == *commit && k->now_ns - n->t0_ns >= w_of(k, id))
			over(k, id, epoch);
		return;
	}
	why = k->mine.over[id - 1] >= epoch ? FENCE_NONE : reason_to_fence(k, id);
	if (*intent != 0 && (why == FENCE_NONE || *intent != epoch) && !MUTANT(INTENT_KEPT)) {
		takeover_withdraw(k, id);
		return;
	}
	if (why == FENCE_NONE)
		return;
	if (*intent == 0 && !MUTANT(COMMIT_WITHOUT_INTENT)) {
		*intent = epoch;
		n->reason = why;
		n->intent_published = false;
		keeper_note(k, NOTE_INTENT, id, why);
		keeper_kick(k);
		return;
	}
	/* This round's write carried the intent to a fence quorum and its read came after: that was the re-read. */
	if (!MUTANT(INTENT_UNREAD) && (!acked || k->block.intent[id - 1] != *intent || must_wait(k)))
		return;
	*commit = epoch;
	*intent = 0;
	n->reason = why;
	n->commit_published = false;
	keeper_note(k, NOTE_COMMIT, id, why);
	keeper_kick(k);
}

void takeover_round(struct keeper *k, bool acked)
{
	struct words words;

	compute_groups(k);
	words = collect_words(k);
	for (uint32_t id = 1; id <= k->opt.node_limit; id++)
		if (id != k->opt.self)
			collect_proofs(k, id, words.over[id - 1]);
	/* Who is over does not count for it: a word of that may come before the node's own block shows anything. */
	brake_round(k);
	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		uint32_t told;

		if (id == k->opt.self)
			continue;
		advance(k, id, acked);
		evidence_round(k, id);
		told = MUTANT(DEATH_NOT_COPIED) ? k->mine.over[id - 1] : k->block.over[id - 1];
		if (acked && node_of(k, id)->over_published != told) {
			node_of(k, id)->over_published = told;
			keeper_act(k, KEEPER_ACT_TELL);
		}
	}
}

int64_t takeover_deadline(const struct keeper *k)
{
	int64_t soonest = INT64_MAX;

	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		const struct table_node *n = &k->node[id - 1];
		int64_t at;

		if (k->mine.over[id - 1] >= k->mine.commit[id - 1] || !n->commit_published || !takeover_silence_proves(n))
			continue;
		at = n->t0_ns + w_of(k, id);
		if (at > k->round_ns)
			soonest = MIN(soonest, at);
	}
	return soonest;
}
