/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What ends W early: a fence device's own "off", an operator's word.
 *
 *   commit on a fence quorum, X's block re-read, it stands still -> asked (epoch, seq) -> "off" about (epoch, seq) -> one whole round more -> over
 *
 * Nothing is asked of a device before the commit is in place: a node that may still renew is not switched off. The answer counts for the very block it was
 * asked about: X switched off, on again and in a new epoch is another block, and so is an X that went on. The whole round after it reads that block again.
 * A node that is in our ring is not switched off: its storage is gone, most likely, its VMs end by its own release or by its watchdog, and its host may stay up. W is
 * waited for, where its silence proves anything.
 * An operator's word is bound to X's block in the same way, when it comes; it is refused while X's heartbeat moves.
 *
 * Whether a device's word is true is beyond any protocol. That it is its status and not the success of a command is the agent's part (agent/core/powerplan.c). */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

static struct table_node *node_of(struct keeper *k, uint32_t id) { return &k->node[id - 1]; }

/* Its newest block says that it may hold a lease. */
static bool may_live(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];

	return n->known && k->mine.over[id - 1] < n->hb.epoch && (n->hb.state == HEARTBEAT_ARMED || n->hb.state == HEARTBEAT_DISARMED);
}

static bool stands_still(const struct keeper *k, const struct table_node *n)
{
	return !n->fresh && k->now_ns - n->t0_ns > keeper_ms(k->opt.timing.wd_ms + k->opt.timing.wd_delay_ms);
}

/* Without storage it writes nothing and may live by a hold: who asks for one is alive. */
static bool asks(const struct keeper *k, const struct table_node *n)
{
	return n->ask.at_ns != 0 && n->ask.epoch >= n->hb.epoch && k->now_ns - n->ask.at_ns <= keeper_ms(k->opt.timing.wd_ms + k->opt.timing.wd_delay_ms);
}

/* No device is needed for it, and one would cost a host that may be about to release. */
static bool ends_by_itself(const struct keeper *k, uint32_t id)
{
	return takeover_silence_proves(&k->node[id - 1]) && k->ring == HEARTBEAT_RING_OK && (k->view >> (id - 1) & 1);
}

static bool shows(const struct table_node *n, uint32_t epoch, uint64_t seq) { return n->hb.epoch == epoch && n->hb.seq == seq; }

static bool valid_node(const struct keeper *k, uint32_t id) { return id >= 1 && id <= k->opt.node_limit && id != k->opt.self && keeper_is_member(k, id); }

static enum fence_refusal refusal(const struct keeper *k, uint32_t id, uint32_t epoch)
{
	const struct table_node *n;

	if (!valid_node(k, id))
		return REFUSAL_UNKNOWN;
	n = &k->node[id - 1];
	if (!n->known)
		return REFUSAL_UNKNOWN;
	if (n->hb.epoch != epoch)
		return REFUSAL_EPOCH;
	if (!may_live(k, id))
		return REFUSAL_OVER;
	return k->state != LEASE_ARMED || !takeover_wins(k) ? REFUSAL_LOSING : REFUSAL_NONE;
}

static void take_proof(struct keeper *k, uint32_t id, enum fence_evidence kind)
{
	struct table_node *n = node_of(k, id);

	n->proof.kind = kind;
	n->proof.epoch = n->hb.epoch;
	n->proof.seq = n->hb.seq;
	n->proof.ns = k->now_ns + (k->phase != ROUND_IDLE); /* of the round under way some may have been read before */
	keeper_kick(k);
}

void evidence_event(struct keeper *k, const struct keeper_evidence *ev)
{
	enum fence_refusal no = refusal(k, ev->node, ev->epoch);
	const struct table_node *n;

	if (ev->kind == EVIDENCE_OPERATOR) {
		n = no == REFUSAL_UNKNOWN ? NULL : node_of(k, ev->node);
		if (no == REFUSAL_NONE && (!stands_still(k, n) || asks(k, n)) && !MUTANT(OPERATOR_CONFIRMS_LIVE))
			no = REFUSAL_ALIVE;
		if (no != REFUSAL_NONE)
			keeper_note(k, NOTE_REFUSED, ev->node, no);
		else
			take_proof(k, ev->node, EVIDENCE_OPERATOR);
		return;
	}
	if (ev->kind != EVIDENCE_POWER || no == REFUSAL_UNKNOWN)
		return;
	n = node_of(k, ev->node);
	if (MUTANT(EVIDENCE_BEFORE_REREAD) || (n->asked.epoch == ev->epoch && n->asked.seq == ev->seq && shows(n, ev->epoch, ev->seq)))
		take_proof(k, ev->node, EVIDENCE_POWER);
	else
		keeper_note(k, NOTE_EVIDENCE_VOID, ev->node, EVIDENCE_POWER);
}

void evidence_wish(struct keeper *k, uint32_t node, uint32_t epoch)
{
	enum fence_refusal no = refusal(k, node, epoch);

	if (no != REFUSAL_NONE) {
		keeper_note(k, NOTE_REFUSED, node, no);
		return;
	}
	node_of(k, node)->wanted.epoch = epoch;
	/* Two operators may want each other's node fenced: neither intent would ever give way to the other. */
	node_of(k, node)->wanted.until_ns = k->now_ns + keeper_ms(k->opt.timing.w_ms);
	keeper_kick(k);
}

bool evidence_wants(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];

	if (!may_live(k, id))
		return false;
	if (n->proof.kind == EVIDENCE_OPERATOR && (shows(n, n->proof.epoch, n->proof.seq) || MUTANT(OPERATOR_CONFIRMS_LIVE)))
		return true;
	return n->wanted.epoch == n->hb.epoch && k->now_ns < n->wanted.until_ns;
}

bool evidence_counts(const struct keeper *k, uint32_t id)
{
	const struct table_node *n = &k->node[id - 1];

	if (n->proof.kind == EVIDENCE_NONE)
		return false;
	if (MUTANT(EVIDENCE_BEFORE_REREAD))
		return true;
	if ((!shows(n, n->proof.epoch, n->proof.seq) || (n->proof.kind == EVIDENCE_OPERATOR && asks(k, n))) && !MUTANT(OPERATOR_CONFIRMS_LIVE))
		return false;
	return n->commit_published && k->round_ns >= n->proof.ns;
}

void evidence_round(struct keeper *k, uint32_t id)
{
	struct table_node *n = node_of(k, id);
	uint32_t commit = k->mine.commit[id - 1];
	bool ask = commit != 0 && n->hb.epoch == commit && may_live(k, id) && stands_still(k, n) && n->commit_published && k->state == LEASE_ARMED &&
		   takeover_wins(k) && !ends_by_itself(k, id);

	if (MUTANT(POWER_BEFORE_COMMIT))
		ask = may_live(k, id) && n->hb.state == HEARTBEAT_ARMED && k->state == LEASE_ARMED && !n->fresh;
	if (n->proof.kind == EVIDENCE_OPERATOR && asks(k, n) && !MUTANT(OPERATOR_CONFIRMS_LIVE)) {
		keeper_note(k, NOTE_EVIDENCE_VOID, id, n->proof.kind);
		n->proof.kind = EVIDENCE_NONE;
	}
	if (n->proof.kind != EVIDENCE_NONE && !shows(n, n->proof.epoch, n->proof.seq) && !MUTANT(EVIDENCE_BEFORE_REREAD) && !MUTANT(OPERATOR_CONFIRMS_LIVE)) {
		if (k->mine.over[id - 1] < n->proof.epoch)
			keeper_note(k, NOTE_EVIDENCE_VOID, id, n->proof.kind);
		n->proof.kind = EVIDENCE_NONE;
	}
	if (n->wanted.epoch != 0 && (n->wanted.epoch != n->hb.epoch || k->now_ns >= n->wanted.until_ns || commit == n->wanted.epoch))
		n->wanted.epoch = 0;
	if ((n->asked.epoch != 0) == ask && (!ask || shows(n, n->asked.epoch, n->asked.seq)))
		return;
	n->asked.epoch = ask ? n->hb.epoch : 0;
	n->asked.seq = ask ? n->hb.seq : 0;
	keeper_act(k, KEEPER_ACT_TELL);
}

void evidence_unread(struct keeper *k)
{
	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		if (node_of(k, id)->asked.epoch == 0)
			continue;
		node_of(k, id)->asked.epoch = 0;
		node_of(k, id)->asked.seq = 0;
		keeper_act(k, KEEPER_ACT_TELL);
	}
}

const char *fence_evidence_text(enum fence_evidence e)
{
	static const char *const text[] = { "none", "its power is off, by its fence device's own status", "an operator has confirmed that it is off" };

	return (size_t)e < ARRAY_SIZE(text) ? text[e] : "unknown";
}

const char *fence_refusal_text(enum fence_refusal r)
{
	static const char *const text[] = {
		"none",
		"this keeper has never seen that node",
		"the node is in another epoch by now: look at `ha-ctl node list`",
		"nothing is left to fence: it has no lease, its VMs may run elsewhere",
		"its heartbeat moves, or stood still for too short a time: it is alive",
		"this node is not armed, or its side of the ring is not the one that fences: use a node that is",
	};

	return (size_t)r < ARRAY_SIZE(text) ? text[r] : "unknown";
}
