/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"
#include "storage/setchange.h"

/* Two buffers a node: the newest valid one counts. Returns its number, or -1; *ret is where it was decoded, *ret_other the older one, if it is valid. */
static int newest_of(const struct keeper *k, const uint8_t *table, uint32_t node, struct heartbeat space[2], const struct heartbeat **ret, const struct heartbeat **ret_other)
{
	const struct heartbeat *hb[2];
	int newest;

	for (unsigned b = 0; b < 2; b++)
		hb[b] = heartbeat_view(table + format_heartbeat_offset(node, b), node, b, k->opt.cluster, &space[b]);
	if (!hb[0] || !hb[1])
		newest = hb[0] ? 0 : hb[1] ? 1 : -1;
	else
		newest = (format_compare(hb[0]->epoch, hb[0]->seq, hb[1]->epoch, hb[1]->seq) >= 0) != MUTANT(OLDER_BUFFER_COUNTS) ? 0 : 1;
	*ret = newest >= 0 ? hb[newest] : NULL;
	*ret_other = newest >= 0 ? hb[!newest] : NULL;
	return newest;
}

static enum volume_fault check_superblock(const struct keeper *k, unsigned volume, const uint8_t *data)
{
	static const enum volume_fault of[] = {
		[SUPERBLOCK_SAME] = FAULT_NONE, [SUPERBLOCK_CHANGED] = FAULT_CHANGED, [SUPERBLOCK_STALE] = FAULT_STALE,
		[SUPERBLOCK_FOREIGN] = FAULT_FOREIGN, [SUPERBLOCK_WIPED] = FAULT_WIPED, [SUPERBLOCK_DAMAGED] = FAULT_DAMAGED,
	};
	enum volume_fault fault = of[superblock_check(data, &k->opt.set, volume)];

	return MUTANT(SET_CHANGE_UNSEEN) && (fault == FAULT_CHANGED || fault == FAULT_STALE) ? FAULT_NONE : fault;
}

static void set_fault(struct keeper *k, unsigned volume, enum volume_fault fault)
{
	if (k->volume[volume].fault != FAULT_NONE)
		return;
	k->volume[volume].fault = fault;
	keeper_note(k, NOTE_VOLUME_FAULT, volume, fault);
}

/* Of two lives that have begun the same number the one of which a renew quorum has it is the node: the other's block, on volumes that this one does not use,
 * must not hide it. */
static bool is_newer(const struct heartbeat *a, const struct heartbeat *b)
{
	bool settled = a->settled >= a->epoch;

	if (a->epoch == b->epoch && settled != (b->settled >= b->epoch) && memcmp(a->life, b->life, 16) != 0)
		return settled;
	return format_compare(a->epoch, a->seq, b->epoch, b->seq) > 0;
}

/* A newer block from any volume is news at once: moving t0 forward is always safe. */
static void take_newer(struct keeper *k, struct table_node *n, const struct heartbeat *hb, bool moved)
{
	if (hb->epoch == 0 || (n->known && !is_newer(hb, &n->hb))) {
		/* Nor while neither is settled, nor behind a later number. */
		if (n->known && moved && memcmp(hb->life, n->hb.life, 16) != 0 && hb->epoch > takeover_ended_by_later(&n->hb))
			n->t0_ns = k->now_ns;
		return;
	}
	if (n->known) {
		if (!n->advanced || n->hb.epoch != hb->epoch)
			keeper_note(k, NOTE_NODE_ALIVE, hb->node, hb->epoch);
		n->advanced = true;
		n->advanced_in_view = true;
	}
	if (!n->known || n->hb.ring != hb->ring || n->hb.view != hb->view)
		n->view_ns = k->now_ns;
	if (hb->ring == HEARTBEAT_RING_OK)
		n->no_ring_ns = 0;
	else if (n->no_ring_ns == 0 || n->hb.epoch != hb->epoch)
		n->no_ring_ns = k->now_ns;
	n->known = true;
	n->hb = *hb;
	n->heard_ns = k->now_ns;
	if (MUTANT(NO_REREAD) && k->ring == HEARTBEAT_RING_OK && !(k->view >> (hb->node - 1) & 1) && n->t0_ns != 0)
		return;
	n->t0_ns = MUTANT(T0_AT_ROUND_START) ? k->round_ns : k->now_ns;
}

/* While we start: what another host has in our slot. One that lives need not be the newest of all: of two with one id each may reach volumes that the other
 * does not use. */
static void note_owner(struct keeper *k, struct keeper_volume *v, const struct heartbeat *hb)
{
	bool moved = v->foreign.epoch != hb->epoch || v->foreign.seq != hb->seq;

	if (hb->epoch == 0 || memcmp(hb->host, k->opt.host, 16) == 0) {
		v->foreign.epoch = 0;
		return;
	}
	if (moved)
		k->foreign_ns = k->now_ns;
	v->foreign.epoch = hb->epoch;
	v->foreign.seq = hb->seq;
	v->foreign.state = hb->state;
	memcpy(v->foreign.host, hb->host, 16);
}

/* Our own slot: what is there must be what we wrote, in both buffers: of two hosts that write it by turns the one with the higher numbers would not see the other. */
static bool check_own(struct keeper *k, unsigned volume, int buffer, const struct heartbeat *hb, const struct heartbeat *other)
{
	struct keeper_volume *v = &k->volume[volume];
	struct table_node *self = &k->node[k->opt.self - 1];

	slot_read(&v->slot, buffer, hb->epoch, hb->seq, v->read_issued_ns, k->now_ns);
	if (!self->known || format_compare(hb->epoch, hb->seq, self->hb.epoch, self->hb.seq) > 0) {
		self->known = hb->epoch != 0;
		self->hb = *hb;
		self->t0_ns = k->now_ns;
	}
	if (k->state == LEASE_STARTING) {
		k->mine.settled = MAX(k->mine.settled, hb->settled);
		note_owner(k, v, hb);
		return true;
	}
	if (format_compare(hb->epoch, hb->seq, v->expect_epoch, v->expect_seq) < 0) {
		if (other)
			set_fault(k, volume, FAULT_ROLLED_BACK);
		return false;
	}
	if (other && other->epoch == k->epoch && memcmp(other->host, k->opt.host, 16) != 0)
		hb = other;
	if (hb->epoch > k->epoch || (hb->epoch == k->epoch && (hb->seq > k->seq || memcmp(hb->life, k->mine.life, 16) != 0))) {
		if (memcmp(hb->host, k->opt.host, 16) == 0) {
			k->earlier_life = v->later = true; /* begin an epoch above it */
			return false;
		}
		k->slot_taken = true;
		k->epoch_shared = k->epoch_shared || hb->epoch == k->epoch;
		set_fault(k, volume, FAULT_SLOT_TAKEN);
		return false;
	}
	/* Not of a block that is beyond our epoch: ours would contradict itself with that, and nobody could read our slot any more. */
	k->mine.settled = MAX(k->mine.settled, hb->settled);
	return true;
}

static void looked(struct keeper_volume *v)
{
	if (v->read_issued_ns >= v->wrote_ns)
		v->looked = true;
}

void table_look(struct keeper *k, unsigned volume, const void *data)
{
	struct heartbeat space[2];
	const struct heartbeat *hb, *other;

	if (check_superblock(k, volume, data) != FAULT_NONE || newest_of(k, data, k->opt.self, space, &hb, &other) < 0)
		return;
	/* Another host's block of our epoch or a later one is for a read that counts. */
	if ((hb->epoch < k->epoch || memcmp(hb->host, k->opt.host, 16) == 0) && (!other || other->epoch < k->epoch || memcmp(other->host, k->opt.host, 16) == 0))
		looked(&k->volume[volume]);
}

bool table_absorb(struct keeper *k, unsigned volume, const void *data)
{
	const uint8_t *table = data;
	enum volume_fault fault = check_superblock(k, volume, table);
	uint64_t unread = 0;

	if (fault == FAULT_DAMAGED)
		return false; /* torn or rotten: this round fails, the next may not */
	if (fault != FAULT_NONE) {
		set_fault(k, volume, fault);
		return false;
	}
	for (uint32_t node = 1; node <= k->opt.node_limit; node++) {
		struct table_node *n = &k->node[node - 1];
		struct heartbeat space[2];
		const struct heartbeat *hb, *other;
		uint64_t bit = 1ULL << (node - 1);
		bool moved;
		int buffer = newest_of(k, table, node, space, &hb, &other);

		if (node == k->opt.self)
			looked(&k->volume[volume]);
		if (buffer < 0) {
			unread |= MUTANT(UNREADABLE_IS_EMPTY) ? 0 : bit; /* unreadable is never empty */
			if (node == k->opt.self) /* but ours to mend: as soon as nothing of an earlier life can land any more */
				slot_read(&k->volume[volume].slot, -1, 0, 0, k->volume[volume].read_issued_ns, k->now_ns);
			continue;
		}
		if (format_compare(hb->epoch, hb->seq, n->on[volume].epoch, n->on[volume].seq) < 0 && !MUTANT(ROLLED_BACK_TAKEN)) {
			if (other)
				set_fault(k, volume, FAULT_ROLLED_BACK);
			else if (n->known && format_compare(n->hb.epoch, n->hb.seq, n->on[volume].epoch, n->on[volume].seq) >= 0) {
				/* The newest block is damaged, but we know what it said: no news of a node that may be dead, and our own to mend. */
				if (node == k->opt.self)
					slot_read(&k->volume[volume].slot, -1, 0, 0, k->volume[volume].read_issued_ns, k->now_ns);
				continue;
			}
			unread |= bit;
			continue;
		}
		moved = n->on[volume].epoch != hb->epoch || n->on[volume].seq != hb->seq;
		n->on[volume].epoch = hb->epoch;
		n->on[volume].seq = hb->seq;
		if (node != k->opt.self)
			take_newer(k, n, hb, moved);
		else if (!check_own(k, volume, buffer, hb, other))
			unread |= bit;
	}
	k->volume[volume].unread = unread;
	return k->volume[volume].fault == FAULT_NONE;
}

unsigned table_reads(const struct keeper *k)
{
	unsigned least = FORMAT_MAX_VOLUMES, read = 0;
	uint64_t unread = 0;

	for (unsigned v = 0; v < k->opt.n_volumes; v++) {
		read += k->volume[v].read_ok;
		unread |= k->volume[v].read_ok ? k->volume[v].unread : 0;
	}
	if (unread == 0)
		return read;
	for (unsigned id = 1; id <= k->opt.node_limit; id++) {
		unsigned n = 0;

		for (unsigned v = 0; v < k->opt.n_volumes; v++)
			n += k->volume[v].read_ok && !(k->volume[v].unread >> (id - 1) & 1);
		least = MIN(least, n);
	}
	return least;
}

void table_observed(struct keeper *k)
{
	int64_t gap = k->now_ns - k->last_observed_ns;
	int64_t fresh_ns = keeper_ms(MUTANT(SUSPECTS_AT_ONCE) ? k->opt.timing.hb_ms : k->opt.timing.wd_ms + k->opt.timing.wd_delay_ms);

	/* We were paused, or our storage was away: silence of others during it proves nothing. A round whose write and read each took T_io is no gap. */
	if (k->last_observed_ns != 0 && !MUTANT(GAP_IGNORED) && gap > keeper_ms(k->opt.timing.hb_ms + 2 * k->opt.timing.io_ms)) {
		keeper_note(k, NOTE_GAP, 0, (uint32_t)(gap / NS_PER_MS));
		for (unsigned i = 0; i < k->opt.node_limit; i++) {
			k->node[i].t0_ns = k->now_ns;
			k->node[i].heard_ns = 0; /* a block that is news to us may be as old as the gap */
		}
	}
	k->last_observed_ns = k->now_ns;
	for (unsigned i = 0; i < k->opt.node_limit; i++) {
		struct table_node *n = &k->node[i];
		bool fresh = n->known && n->advanced && k->now_ns - n->t0_ns <= fresh_ns;

		if (i + 1 != k->opt.self && n->fresh && !fresh)
			keeper_note(k, NOTE_NODE_STALE, i + 1, 0);
		n->fresh = fresh;
		k->mine.alive[i] = fresh ? n->hb.epoch : 0;
	}
}

uint32_t table_commit_against(const struct keeper *k)
{
	if (MUTANT(COMMIT_UNHEEDED))
		return 0;
	for (uint32_t node = 1; node <= k->opt.node_limit; node++)
		if (node != k->opt.self && k->node[node - 1].known && k->node[node - 1].hb.commit[k->opt.self - 1] >= k->epoch)
			return node;
	return 0;
}

uint32_t table_next_epoch(const struct keeper *k)
{
	unsigned me = k->opt.self - 1;
	uint32_t top = MAX(MAX(k->epoch, k->opt.resume_epoch), k->node[me].known ? k->node[me].hb.epoch : 0);

	for (unsigned i = 0; i < k->opt.node_limit; i++) {
		const struct heartbeat *hb = &k->node[i].hb;

		if (!k->node[i].known)
			continue;
		top = MAX(top, hb->alive[me]);
		top = MAX(top, hb->intent[me]);
		top = MAX(top, hb->commit[me]);
		top = MAX(top, hb->over[me]);
	}
	if (top >= FORMAT_MAX_EPOCH)
		return 0;
	return MUTANT(EPOCH_REUSED) && top > 0 ? top : top + 1;
}
