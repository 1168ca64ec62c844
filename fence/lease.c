/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lease: round k is pet, write seq = k to a renew quorum, then read the table from a renew quorum. Nobody's commit names (us, our epoch):
 * renewed, the next round may pet. One pet for each successful renewal; no timer ever pets. */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

void keeper_act(struct keeper *k, enum keeper_action_kind kind)
{
	/* What only reports the state once it is final need not be said twice. */
	if (kind == KEEPER_ACT_TELL || kind == KEEPER_ACT_SAVE)
		for (unsigned i = 0; i < k->n_actions; i++)
			if (k->action[i].kind == kind)
				return;
	CHECK(k->n_actions < KEEPER_MAX_ACTIONS);
	k->action[k->n_actions++] = (struct keeper_action){ .kind = kind };
}

static void act_volume(struct keeper *k, enum keeper_action_kind kind, unsigned volume)
{
	keeper_act(k, kind);
	k->action[k->n_actions - 1].volume = volume;
	k->action[k->n_actions - 1].buffer = k->volume[volume].slot.buffer;
}

void keeper_note(struct keeper *k, enum keeper_note note, uint32_t node, uint32_t arg)
{
	/* Notes are for people: with many at once the last ones are dropped, never an action. */
	if (k->n_actions >= KEEPER_MAX_ACTIONS / 2)
		return;
	keeper_act(k, KEEPER_ACT_NOTE);
	k->action[k->n_actions - 1].note = note;
	k->action[k->n_actions - 1].node = node;
	k->action[k->n_actions - 1].arg = arg;
}

void keeper_kick(struct keeper *k)
{
	k->kick = true;
	k->bell_due = true;
}

bool keeper_is_member(const struct keeper *k, uint32_t node) { return k->opt.members >> (node - 1) & 1; }

/* A volume that is away just now may hold later blocks of our last life: stay clear of their numbers. */
#define SEQ_SKIP (1ULL << 32)

static enum heartbeat_state published_state(enum lease_state s)
{
	static const enum heartbeat_state of[LEASE_STATE_COUNT] = {
		[LEASE_DISARMED] = HEARTBEAT_DISARMED, [LEASE_ARMED] = HEARTBEAT_ARMED,       [LEASE_DISARMING] = HEARTBEAT_DISARMED,
		[LEASE_RELEASED] = HEARTBEAT_RELEASED, [LEASE_LEAVING] = HEARTBEAT_LEFT,      [LEASE_LEFT] = HEARTBEAT_LEFT,
	};

	if (MUTANT(RELEASED_BEFORE_PROOF) && s == LEASE_RELEASING)
		return HEARTBEAT_RELEASED;
	return of[s];
}

static void move(struct keeper *k, enum lease_state to)
{
	static const uint16_t allowed[LEASE_STATE_COUNT] = {
		[LEASE_STARTING] = 1 << LEASE_DISARMED | 1 << LEASE_ARMED | 1 << LEASE_DISARMING | 1 << LEASE_RELEASING | 1 << LEASE_LEFT,
		[LEASE_DISARMED] = 1 << LEASE_ARMED | 1 << LEASE_RELEASING | 1 << LEASE_LEAVING | 1 << LEASE_LEFT,
		[LEASE_ARMED] = 1 << LEASE_DISARMING | 1 << LEASE_RELEASING | 1 << LEASE_LEAVING,
		[LEASE_DISARMING] = 1 << LEASE_DISARMED | 1 << LEASE_ARMED | 1 << LEASE_RELEASING | 1 << LEASE_LEAVING,
		[LEASE_RELEASING] = 1 << LEASE_RELEASED | 1 << LEASE_STARTING,
		[LEASE_RELEASED] = 1 << LEASE_DISARMED | 1 << LEASE_LEAVING | 1 << LEASE_LEFT,
		[LEASE_LEAVING] = 1 << LEASE_LEFT,
	};

	CHECK(allowed[k->state] & (1 << to));
	k->state = to;
	k->state_ns = k->now_ns;
	k->rounds_in_state = 0;
	k->armed_published = false;
	if (to != LEASE_ARMED && to != LEASE_DISARMING)
		hold_over(k);
	k->mine.state = published_state(to);
	keeper_note(k, NOTE_STATE, k->opt.self, to);
	keeper_act(k, KEEPER_ACT_SAVE);
	keeper_act(k, KEEPER_ACT_TELL);
	keeper_kick(k);
}

static bool leased(enum lease_state s) { return s == LEASE_DISARMED || s == LEASE_ARMED || s == LEASE_DISARMING; }
static bool watched(enum lease_state s) { return s == LEASE_ARMED || s == LEASE_DISARMING; }
bool lease_may_hold(const struct keeper *k)
{
	unsigned good = 0;

	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		good += k->volume[v].fault == FAULT_NONE; /* away, not wiped, rolled back or another's: nobody knows what becomes of those */
	return watched(k->state) && k->on_quorum && k->hold.ready && !k->slot_taken && !k->earlier_life && good >= format_renew_quorum(k->opt.n_volumes);
}

bool lease_may_judge(const struct keeper *k) { return (leased(k->state) && k->known_to_all) || MUTANT(JUDGES_WITHOUT_LEASE); }

/* Not once another host has begun the same epoch: our word of its end would be taken for the other's. */
static bool writes(const struct keeper *k)
{
	if (k->epoch_shared)
		return false;
	return k->state != LEASE_STARTING && (k->state != LEASE_RELEASING || MUTANT(RELEASED_BEFORE_PROOF)) && k->state != LEASE_LEFT;
}

/* Nothing but a renewal since the last pet allows one. */
static bool may_pet(const struct keeper *k)
{
	if (MUTANT(PETS_BY_TIMER))
		return watched(k->state);
	if (MUTANT(PETS_WHILE_RELEASING) && k->state == LEASE_RELEASING)
		return k->wd_running;
	if (k->wd_asked && !k->wd_starting)
		return false; /* it is being stopped */
	return watched(k->state) && k->renewed;
}

static void release(struct keeper *k, enum release_reason why, uint32_t by)
{
	if (!leased(k->state))
		return;
	k->release = why;
	k->release_by = by;
	keeper_note(k, NOTE_RELEASE, by, why);
	move(k, LEASE_RELEASING);
	memset(k->mine.intent, 0, sizeof(k->mine.intent));
	evidence_unread(k);
	keeper_act(k, KEEPER_ACT_KILL);
	if (MUTANT(WATCHDOG_CLOSED_EARLY))
		keeper_act(k, KEEPER_ACT_WD_STOP);
}

static void begin_epoch(struct keeper *k, uint32_t epoch, const uint8_t life[16])
{
	k->epoch = epoch;
	k->mine.epoch = epoch;
	memcpy(k->mine.life, life, 16);
	k->published = k->on_quorum = k->known_to_all = false;
	k->epoch_renewals = 0;
	k->renewed = false;
	k->release = RELEASE_NONE;
	k->earlier_life = false;
	hold_epoch_begins(k);
	gate_epoch_begins(k);
	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		k->volume[v].later = false;
	k->last_renewal_ns = k->now_ns;
}

/* A new epoch's life: the random one of this process, told apart by the epoch. */
static void new_life(const struct keeper *k, uint32_t epoch, uint8_t ret[16])
{
	memcpy(ret, k->opt.life, 16);
	for (unsigned i = 0; i < 4; i++)
		ret[i] ^= (uint8_t)(epoch >> (8 * i));
}

void keeper_init(struct keeper *k, const struct keeper_options *opt, int64_t now_ns)
{
	CHECK(opt->self >= 1 && opt->self <= opt->node_limit && opt->node_limit <= FORMAT_MAX_NODES);
	CHECK(opt->n_volumes >= 1 && opt->n_volumes <= FORMAT_MAX_VOLUMES && opt->brake_percent >= 1);
	memset(k, 0, sizeof(*k));
	k->opt = *opt;
	k->state = LEASE_STARTING;
	k->now_ns = k->state_ns = k->view_ns = k->hold.lost_ns = k->gate.heard_ns = now_ns;
	k->ring = HEARTBEAT_RING_LOST;
	k->seq = opt->resume_seq; /* what is saved before the first block of this life must not be less */
	k->mine.node = opt->self;
	k->mine.wd_ms = opt->wd_ms;
	k->mine.wd_delay_ms = opt->wd_delay_ms;
	memcpy(k->mine.host, opt->host, 16);
	memcpy(k->mine.boot, opt->boot, 16);
	k->mine.members = opt->members;
	k->wd_running = opt->watchdog_runs;
	for (unsigned v = 0; v < opt->n_volumes; v++)
		slot_init(&k->volume[v].slot, now_ns);
}

static unsigned count_volumes(const struct keeper *k, bool (*fn)(const struct keeper_volume *))
{
	unsigned n = 0;

	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		n += fn(&k->volume[v]);
	return n;
}

/* Acknowledged, by a volume that is still trusted after its read. */
static bool was_written(const struct keeper_volume *v) { return v->write_ok && v->fault == FAULT_NONE; }
static bool waits(const struct keeper_volume *v) { return v->write_wait || v->read_wait; }

static bool may_write(const struct keeper_volume *v)
{
	return v->ready && v->fault == FAULT_NONE && !v->later && !v->write_busy && slot_writable(&v->slot) && v->looked;
}

static void start_reads(struct keeper *k)
{
	k->phase = ROUND_READING;
	k->read_ns = k->now_ns;
	k->asked_seq = k->agent.claims_seq;
	for (unsigned i = 0; i < k->opt.n_volumes; i++) {
		struct keeper_volume *v = &k->volume[i];

		if (!v->ready || v->fault != FAULT_NONE || v->read_busy)
			continue;
		v->read_wait = v->read_busy = true;
		v->read_issued_ns = k->now_ns;
		v->expect_epoch = v->acked_epoch;
		v->expect_seq = v->acked_seq;
		act_volume(k, KEEPER_ACT_READ, i);
	}
}

static void end_writing(struct keeper *k)
{
	unsigned acks = count_volumes(k, was_written), n = k->opt.n_volumes;

	if (writes(k) && acks < format_fence_quorum(n))
		hold_round_unwritten(k, acks >= format_renew_quorum(n));
	start_reads(k);
}

static void write_block(struct keeper *k)
{
	for (unsigned i = 0; i < k->opt.n_volumes; i++) {
		struct keeper_volume *v = &k->volume[i];

		if (v->in_round || !may_write(v))
			continue;
		v->write_wait = v->write_busy = true;
		v->looked = false;
		v->wrote_ns = k->now_ns;
		v->in_round = true;
		act_volume(k, KEEPER_ACT_WRITE, i);
		slot_written(&v->slot, k->epoch, k->seq);
	}
}

/* A volume that was busy with the round before when this one began takes part after all: of a quorum that wrote, and another one that read, there may be less than a
 * quorum free. So storage of which no operation takes T_io costs nobody his lease (I7). */
static void write_late(struct keeper *k)
{
	bool said = k->block.state == k->mine.state && k->block.epoch == k->epoch; /* what is out of date is not written any more */

	if (k->phase == ROUND_WRITING && said && writes(k))
		write_block(k);
}

/* Until when what this volume still does for an earlier round is waited for; 0: no use. */
static int64_t joins_by(const struct keeper *k, const struct keeper_volume *v)
{
	if (v->in_round || !v->ready || v->fault != FAULT_NONE || v->later || !(v->write_busy || (v->read_busy && slot_writable(&v->slot))))
		return 0;
	return MAX(v->write_busy ? v->wrote_ns : 0, v->read_busy ? v->read_issued_ns : 0) + keeper_ms(k->opt.timing.io_ms);
}

static int64_t join_deadline(const struct keeper *k)
{
	int64_t at = 0;

	for (unsigned i = 0; i < k->opt.n_volumes; i++)
		at = MAX(at, joins_by(k, &k->volume[i]));
	return at;
}

static void start_round(struct keeper *k)
{
	k->kick = false;
	k->round_ns = k->now_ns;
	k->next_round_ns = k->now_ns + keeper_ms(k->opt.timing.hb_ms);
	if (may_pet(k)) {
		k->renewed = false;
		k->last_pet_ns = k->now_ns;
		k->pets++;
		keeper_act(k, KEEPER_ACT_PET);
	}
	/* Answers to an earlier round that are still to come count for nothing but their slot. */
	for (unsigned i = 0; i < k->opt.n_volumes; i++)
		k->volume[i].write_ok = k->volume[i].read_ok = k->volume[i].write_wait = k->volume[i].read_wait = k->volume[i].in_round = false;
	if (!writes(k)) {
		start_reads(k);
		return;
	}
	gate_round_begins(k);
	k->mine.seq = ++k->seq;
	k->mine.ring = k->ring;
	k->mine.view = k->view;
	k->mine.agent_counter = k->agent.counter;
	k->mine.claims_seq = k->agent.claims_seq;
	k->mine.catalog_generation = k->agent.catalog_generation;
	k->mine.catalog_seq = k->agent.catalog_seq;
	k->block = k->mine;
	hold_round_begins(k);
	k->phase = ROUND_WRITING;
	write_block(k);
	if (MUTANT(READS_BEFORE_WRITTEN))
		start_reads(k);
}

/* Somebody who is armed has a ring without us: it would fence us at once, or we it. */
static bool left_out(const struct keeper *k)
{
	if (k->opt.keep_on_ring_loss && k->ring == HEARTBEAT_RING_LOST)
		return false;
	for (uint32_t id = 1; id <= k->opt.node_limit; id++) {
		const struct table_node *n = &k->node[id - 1];

		if (id != k->opt.self && n->fresh && n->hb.state == HEARTBEAT_ARMED && n->hb.ring == HEARTBEAT_RING_OK &&
		    !(n->hb.view >> (k->opt.self - 1) & 1))
			return true;
	}
	return false;
}

/* A new epoch would not be fenced at once again. */
static bool may_rejoin(const struct keeper *k)
{
	if (MUTANT(REJOINS_AT_ONCE))
		return !k->wd_running;
	if (k->slot_taken || k->n_actions >= KEEPER_MAX_ACTIONS / 2 || k->wd_running || k->rounds_in_state < 2)
		return false;
	if (k->now_ns - k->state_ns < 4 * keeper_ms(k->opt.timing.hb_ms))
		return false;
	return !left_out(k);
}

/* It said so itself on another volume, or a later epoch was on a renew quorum, for which somebody has waited for it. */
static bool foreign_gone(const struct keeper *k, const struct keeper_volume *v)
{
	if (v->foreign.epoch < k->mine.settled)
		return true;
	for (unsigned i = 0; i < k->opt.n_volumes; i++) {
		const struct keeper_volume *o = &k->volume[i];

		if (o->foreign.epoch != 0 && memcmp(o->foreign.host, v->foreign.host, 16) == 0 &&
		    format_compare(o->foreign.epoch, o->foreign.seq, v->foreign.epoch, v->foreign.seq) >= 0 &&
		    (o->foreign.state == HEARTBEAT_LEFT || o->foreign.state == HEARTBEAT_RELEASED))
			return true;
	}
	return false;
}

static bool foreign_owner(struct keeper *k)
{
	int64_t wait = keeper_ms(k->opt.timing.w_ms + k->opt.timing.hb_ms);
	bool alone = (k->opt.members & ~(1ULL << (k->opt.self - 1))) == 0; /* there is nobody else, so no hold either */
	uint32_t over = 0;
	bool any = false;

	for (uint32_t id = 1; id <= k->opt.node_limit; id++)
		if (id != k->opt.self && k->node[id - 1].known)
			over = MAX(over, k->node[id - 1].hb.over[k->opt.self - 1]);
	for (unsigned i = 0; i < k->opt.n_volumes; i++) {
		const struct keeper_volume *v = &k->volume[i];
		bool told = over >= v->foreign.epoch;

		if (v->foreign.epoch == 0 || foreign_gone(k, v))
			continue;
		/* Another host has this slot: let its lease run out. W says nothing of a node that was not armed, whose VMs may run on for ever: an operator
		 * must say to the others that it is off. Of one that was armed those who are asked for a hold must have said that it is over: we never are,
		 * the ring has one node of each id. */
		if (!told && (v->foreign.state != HEARTBEAT_ARMED || (!alone && !MUTANT(FOREIGN_BY_SILENCE))))
			return true;
		any = true;
	}
	return any && k->now_ns - MAX(k->foreign_ns, k->state_ns) < wait; /* which moves whenever it writes */
}

static void stop_watchdog(struct keeper *k)
{
	if (k->wd_running && !k->wd_asked && !(MUTANT(WATCHDOG_KEPT) && k->state == LEASE_RELEASED)) {
		k->wd_asked = true;
		k->wd_starting = false;
		keeper_act(k, KEEPER_ACT_WD_STOP);
	}
}

static bool begin_next_epoch(struct keeper *k)
{
	uint32_t epoch = table_next_epoch(k);
	uint8_t life[16];

	if (epoch == 0) {
		if (!k->epochs_spent)
			keeper_note(k, NOTE_EPOCHS_SPENT, k->opt.self, 0);
		k->epochs_spent = true;
		return false;
	}
	new_life(k, epoch, life);
	begin_epoch(k, epoch, life);
	return true;
}

/* The epoch that this process was to go on with is not to be had: its VMs must be proven gone before anything is written. */
static void start_anew(struct keeper *k)
{
	k->opt.resume = false;
	move(k, LEASE_RELEASING);
	keeper_act(k, KEEPER_ACT_KILL);
}

static void on_suspended(struct keeper *k)
{
	if (k->state == LEASE_STARTING && k->opt.resume) {
		k->release = RELEASE_SUSPEND;
		keeper_note(k, NOTE_RELEASE, 0, RELEASE_SUSPEND);
		start_anew(k);
	} else {
		release(k, RELEASE_SUSPEND, 0);
	}
}

static void try_start(struct keeper *k, bool observed)
{
	const struct table_node *self = &k->node[k->opt.self - 1];
	bool resume = k->opt.resume && self->known && self->hb.epoch == k->opt.resume_epoch &&
		      memcmp(self->hb.life, k->opt.resume_life, 16) == 0 && self->hb.state != HEARTBEAT_LEFT && self->hb.state != HEARTBEAT_RELEASED &&
		      (self->hb.state != HEARTBEAT_ARMED || k->wd_running); /* whose silence would prove nothing */

	if (observed && k->opt.resume && !resume) {
		start_anew(k);
		return;
	}
	/* Whom we go on as has looked at that when it began. */
	if (observed && !resume && !MUTANT(FOREIGN_SLOT_TAKEN) && foreign_owner(k)) {
		if (!k->foreign_seen)
			keeper_note(k, NOTE_FOREIGN_OWNER, k->opt.self, 0);
		k->foreign_seen = true;
		k->release = RELEASE_SLOT_TAKEN; /* for those who ask why nothing runs here */
		return;
	}
	if (count_volumes(k, may_write) < format_renew_quorum(k->opt.n_volumes)) {
		k->writable_ns = 0;
		return;
	}
	/* Our own newest block must be read after nothing of an earlier life could land any more: its number must not be used twice. */
	if (k->writable_ns == 0) {
		k->writable_ns = k->now_ns;
		k->kick = true;
	}
	if (!observed || k->round_ns <= k->writable_ns)
		return;
	if (self->known) {
		/* Commits and deaths are carried into one's own next epoch. */
		if (!MUTANT(NOTHING_CARRIED)) {
			for (unsigned i = 0; i < FORMAT_MAX_NODES; i++) {
				k->mine.commit[i] = MAX(k->mine.commit[i], self->hb.commit[i]);
				k->mine.over[i] = MAX(k->mine.over[i], self->hb.over[i]);
			}
		}
		k->agent.claims_seq = MAX(k->agent.claims_seq, self->hb.claims_seq);
		k->seq = MAX(MAX(self->hb.seq, k->seq), k->opt.resume_seq) + (MUTANT(SEQ_NOT_SKIPPED) ? 0 : SEQ_SKIP); /* saved before the first write */
	}
	k->last_pet_ns = k->now_ns;
	if (resume) {
		if (k->wd_running && k->opt.wd_left_ms != 0) /* it has run on since the earlier process' last pet */
			k->last_pet_ns = k->state_ns + keeper_ms(k->opt.wd_left_ms) - keeper_ms(k->opt.timing.wd_ms);
		begin_epoch(k, k->opt.resume_epoch, k->opt.resume_life);
		k->on_quorum = self->hb.state == HEARTBEAT_ARMED || self->hb.settled == k->epoch || k->wd_running;
		if (k->on_quorum)
			k->mine.settled = k->epoch;
		if (self->hb.silent) /* and has not been heard since */
			k->gate.heard_ns = k->now_ns - keeper_ms(k->opt.timing.silent_ms);
		k->renewed = MUTANT(RESTART_PETS_FIRST);
		k->want_armed = self->hb.state == HEARTBEAT_ARMED;
		/* With a watchdog that runs: armed, or died between publishing disarmed and stopping it. */
		move(k, k->want_armed ? LEASE_ARMED : k->wd_running ? LEASE_DISARMING : LEASE_DISARMED);
		return;
	}
	if (begin_next_epoch(k)) {
		stop_watchdog(k);
		move(k, LEASE_DISARMED);
	}
}

static void try_arm(struct keeper *k)
{
	if (k->state != LEASE_DISARMED || !k->want_armed || !k->published || k->wd_asked)
		return;
	/* A node that has just come up into a ring that is still split must not begin the fencing anew, again and again. */
	if (left_out(k) && !MUTANT(ARMS_LEFT_OUT) && !MUTANT(REJOINS_AT_ONCE))
		return;
	if (!k->wd_running) {
		k->wd_asked = k->wd_starting = true;
		keeper_act(k, KEEPER_ACT_WD_START);
		if (!MUTANT(ARMED_BEFORE_WATCHDOG))
			return;
	}
	k->renewed = false;
	k->last_pet_ns = k->now_ns; /* starting it is a pet */
	move(k, LEASE_ARMED);
}

static int64_t soft_ns(const struct keeper *k)
{
	if (MUTANT(SOFT_AFTER_WATCHDOG))
		return keeper_ms(2 * (k->opt.timing.wd_ms + k->opt.timing.wd_delay_ms));
	return keeper_ms(k->opt.timing.soft_ms);
}

/* What a finished round allows. acked: our block is on a fence quorum; done: it is on a renew quorum and the table was read after; renewed: and
 * nobody's commit is against us. */
static void after_round(struct keeper *k, bool observed, bool acked, bool done, bool renewed)
{
	bool said = k->block.state == k->mine.state && k->block.epoch == k->epoch;
	uint32_t lost_to;

	switch (k->state) {
	case LEASE_STARTING:
		try_start(k, observed);
		break;
	case LEASE_DISARMING:
		if (MUTANT(DISARM_UNPUBLISHED) || (said && acked && ((observed && renewed) || MUTANT(DISARM_UNREAD)))) {
			if (k->wd_running)
				stop_watchdog(k);
			else
				move(k, LEASE_DISARMED);
		}
		break;
	case LEASE_RELEASED:
		stop_watchdog(k);
		if (said && done && observed && may_rejoin(k) && begin_next_epoch(k))
			move(k, LEASE_DISARMED);
		break;
	case LEASE_LEAVING:
		if (k->epoch_shared || (said && acked)) {
			stop_watchdog(k);
			if (!k->wd_running) {
				move(k, LEASE_LEFT);
				keeper_act(k, KEEPER_ACT_EXIT);
			}
		}
		break;
	case LEASE_DISARMED:
		if (!k->want_armed)
			stop_watchdog(k); /* one that could not be stopped before */
		try_arm(k);
		break;
	default:
		break;
	}
	if (leased(k->state) && observed) {
		lost_to = takeover_lost_to(k);
		if (lost_to != 0)
			release(k, RELEASE_INTENT, lost_to);
	}
}

static void end_round(struct keeper *k)
{
	unsigned acks = count_volumes(k, was_written), reads = table_reads(k);
	unsigned renew = MUTANT(RENEW_QUORUM_SHORT) ? 1 : format_renew_quorum(k->opt.n_volumes);
	unsigned fence = MUTANT(FENCE_QUORUM_SHORT) ? 1 : format_fence_quorum(k->opt.n_volumes);
	bool wrote = writes(k), observed = reads >= fence, acked = wrote && acks >= fence, done, renewed;
	uint32_t committer = wrote ? table_commit_against(k) : 0;

	k->phase = ROUND_IDLE;
	k->rounds_in_state++;
	done = wrote && acks >= renew && (reads >= renew || MUTANT(RENEWS_WITHOUT_READ)) && !k->slot_taken && k->block.epoch == k->epoch;
	renewed = done && committer == 0 && !k->earlier_life;
	if (renewed) {
		k->renewed = true;
		k->renewals++;
		k->last_renewal_ns = k->now_ns;
		if (k->state == LEASE_ARMED && k->block.state == HEARTBEAT_ARMED && !k->armed_published) {
			k->armed_published = true;
			keeper_act(k, KEEPER_ACT_TELL);
		}
		if (!k->published && ++k->epoch_renewals == 2) {
			k->published = k->on_quorum = true;
			k->mine.settled = k->epoch;
			keeper_act(k, KEEPER_ACT_TELL);
		} else if (!k->published) {
			keeper_kick(k);
		}
	}
	gate_round_over(k, acked);
	if (observed) {
		k->read_seq = k->asked_seq;
		table_observed(k);
	}
	/* Whoever holds without us has not read of this epoch, so not from now on: before, its silence said nothing to us. */
	if (acked && observed && !k->known_to_all && k->block.epoch == k->epoch) { /* observed: the volumes show it, too */
		k->known_to_all = true;
		for (unsigned i = 0; i < k->opt.node_limit && !MUTANT(T0_BEFORE_EPOCH); i++)
			k->node[i].t0_ns = k->now_ns;
	}
	hold_round_over(k, observed && (acked || !wrote), reads >= renew, renewed);
	if (k->slot_taken)
		release(k, RELEASE_SLOT_TAKEN, 0);
	else if (k->earlier_life)
		release(k, RELEASE_EARLIER_LIFE, 0);
	else if (committer != 0)
		release(k, RELEASE_COMMIT, committer);
	if (observed)
		takeover_round(k, acked);
	else
		evidence_unread(k);
	after_round(k, observed, acked, done, renewed);
	if (acks >= renew && k->bell_due) {
		k->bell_due = false;
		keeper_act(k, KEEPER_ACT_BELL);
	}
	keeper_act(k, KEEPER_ACT_TELL);
}

static void on_ring(struct keeper *k, bool up, uint64_t view)
{
	uint64_t self = 1ULL << (k->opt.self - 1);
	enum heartbeat_ring ring;

	view = up ? view | self : 0;
	if (!up)
		ring = HEARTBEAT_RING_LOST;
	else if (!(view & ~self) && (!k->ring_up || k->ring == HEARTBEAT_RING_JOINING))
		ring = HEARTBEAT_RING_JOINING; /* a ring of one just after it came up: it may not have met the others yet */
	else
		ring = HEARTBEAT_RING_OK;
	if (up == k->ring_up && ring == k->ring && view == k->view)
		return;
	if (ring != k->ring || view != k->view) {
		k->view_ns = k->now_ns;
		for (unsigned i = 0; i < FORMAT_MAX_NODES; i++)
			k->node[i].advanced_in_view = false;
	}
	if (ring != k->ring)
		k->ring_ns = k->now_ns;
	k->ring_up = up;
	k->ring = ring;
	k->view = view;
	keeper_kick(k);
}

/* A restarted keeper with VMs and a watchdog that runs on has this long for its first round: then as much must be left for the kill and its proof as
 * the soft deadline leaves. */
static int64_t start_limit_ns(const struct keeper *k)
{
	uint32_t reserve = k->opt.timing.wd_ms - MIN(k->opt.timing.soft_ms, k->opt.timing.wd_ms);

	if (k->opt.wd_left_ms == 0)
		return keeper_ms(k->opt.timing.soft_ms) / 2;
	return keeper_ms(k->opt.wd_left_ms - MIN(reserve, k->opt.wd_left_ms));
}

static void on_time(struct keeper *k)
{
	if (k->ring == HEARTBEAT_RING_JOINING && k->now_ns - k->ring_ns >= keeper_ms(k->opt.timing.ring_grace_ms)) {
		k->ring = HEARTBEAT_RING_OK;
		k->ring_ns = k->view_ns = k->now_ns;
		keeper_kick(k);
	}
	if (MUTANT(RING_LOSS_RELEASES) && k->ring == HEARTBEAT_RING_LOST && k->now_ns - k->ring_ns >= keeper_ms(k->opt.timing.ring_grace_ms))
		release(k, RELEASE_INTENT, 0);
	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		(void)slot_tick(&k->volume[v].slot, k->now_ns, keeper_ms(k->opt.timing.drain_ms));
	if (k->state == LEASE_STARTING && k->opt.resume && k->wd_running && k->now_ns - k->state_ns >= start_limit_ns(k))
		start_anew(k); /* storage is away: as below, before the watchdog does more */
	gate_tick(k);
	/* Before the watchdog's deadline: a lost volume costs VMs, not hosts. */
	if (watched(k->state) && k->now_ns - k->last_pet_ns >= soft_ns(k) && !k->renewed)
		release(k, RELEASE_STORAGE, 0);
}

/* No VM is left and the gate is closed: nothing needs the watchdog from here on, whatever the volumes do. */
static void leave(struct keeper *k)
{
	k->want_leave = true;
	k->want_armed = false;
	if (k->epoch_shared)
		release(k, RELEASE_SLOT_TAKEN, 0);
	if (k->state == LEASE_RELEASING)
		return; /* once it is proven */
	/* Saved first: a keeper that comes after this one must not go on with what no watchdog looks after. */
	if (k->state == LEASE_STARTING || !k->on_quorum || (k->epoch_shared && k->state == LEASE_RELEASED)) {
		move(k, LEASE_LEFT);
		stop_watchdog(k);
		keeper_act(k, KEEPER_ACT_EXIT);
		return;
	}
	if (leased(k->state) || k->state == LEASE_RELEASED)
		move(k, LEASE_LEAVING);
	stop_watchdog(k);
}

/* Nothing runs and nothing is published: the epoch to come is above whatever is read now. */
static void start_again(struct keeper *k)
{
	k->opt.resume = k->earlier_life = false;
	k->writable_ns = 0;
	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		k->volume[v].later = false;
	move(k, LEASE_STARTING);
}

static void on_silent(struct keeper *k)
{
	if (k->state != LEASE_RELEASING)
		return;
	/* An epoch that is on a minority of the volumes only may be begun once more by a life that does not see them: its end is not to be published. */
	if (!k->on_quorum)
		start_again(k);
	else
		move(k, LEASE_RELEASED);
	stop_watchdog(k);
	if (k->want_leave)
		leave(k);
}

static void on_watchdog(struct keeper *k, const struct keeper_event *ev)
{
	k->wd_asked = false;
	if (!ev->ok) {
		keeper_note(k, NOTE_WD_FAILED, k->opt.self, k->wd_running);
		if (!k->wd_running)
			k->want_armed = false;
		return;
	}
	k->wd_running = k->wd_starting;
	if (k->wd_running) {
		try_arm(k);
		if (k->state != LEASE_ARMED)
			stop_watchdog(k); /* not wanted any more */
	} else if (k->state == LEASE_DISARMING) {
		move(k, LEASE_DISARMED);
	}
}

static void on_write_done(struct keeper *k, const struct keeper_event *ev)
{
	struct keeper_volume *v = &k->volume[ev->volume];

	slot_done(&v->slot, ev->ok, ev->definite);
	if (ev->ok) {
		v->acked_epoch = v->slot.writing_epoch;
		v->acked_seq = v->slot.writing_seq;
	}
	if (!v->write_wait)
		return;
	v->write_wait = false;
	v->write_ok = ev->ok;
}

static void on_read_done(struct keeper *k, const struct keeper_event *ev)
{
	struct keeper_volume *v = &k->volume[ev->volume];

	if (!v->read_wait) {
		if (ev->ok)
			table_look(k, ev->volume, ev->data);
		return;
	}
	v->read_wait = false;
	v->read_ok = ev->ok && table_absorb(k, ev->volume, ev->data);
}

/* The number of the claims that a quorum is known to hold never goes back: an agent or a keeper that has just started knows less of them, and what they held
 * stays there. It is what tells a lost newest block from one that was never written. */
static void take_facts(struct keeper *k, const struct keeper_agent_facts *facts)
{
	struct keeper_agent_facts f = *facts;

	gate_facts(k, f.counter);
	f.claims_seq = MAX(f.claims_seq, k->agent.claims_seq);
	if (memcmp(&k->agent, &f, sizeof(f)) == 0)
		return;
	if (f.claims_seq != k->agent.claims_seq || f.catalog_seq != k->agent.catalog_seq || f.catalog_generation != k->agent.catalog_generation)
		keeper_kick(k);
	k->agent = f;
}

static void take_event(struct keeper *k, const struct keeper_event *ev)
{
	switch (ev->kind) {
	case KEEPER_EV_TIMER:
		break;
	case KEEPER_EV_VOLUME:
		k->volume[ev->volume].ready = ev->ok;
		break;
	case KEEPER_EV_WRITE_DONE:
		on_write_done(k, ev);
		break;
	case KEEPER_EV_WRITE_SETTLED:
		k->volume[ev->volume].write_busy = false;
		slot_settled(&k->volume[ev->volume].slot, ev->ok, k->now_ns);
		break;
	case KEEPER_EV_READ_DONE:
		on_read_done(k, ev);
		break;
	case KEEPER_EV_READ_SETTLED:
		k->volume[ev->volume].read_busy = false;
		break;
	case KEEPER_EV_RING:
		on_ring(k, ev->ok, ev->view);
		break;
	case KEEPER_EV_BELL:
		k->kick = true;
		break;
	case KEEPER_EV_SILENT:
		on_silent(k);
		break;
	case KEEPER_EV_ARM:
		k->want_armed = true;
		if (k->state == LEASE_DISARMING && k->wd_running && !k->wd_asked)
			move(k, LEASE_ARMED); /* it was never stopped */
		break;
	case KEEPER_EV_DISARM:
		k->want_armed = false;
		if (k->state == LEASE_ARMED)
			move(k, LEASE_DISARMING);
		break;
	case KEEPER_EV_WATCHDOG:
		on_watchdog(k, ev);
		break;
	case KEEPER_EV_LEAVE:
		leave(k);
		break;
	case KEEPER_EV_SHUTDOWN:
		/* With nothing leased nobody here may end them and say so: the watchdog is left as it is. */
		k->want_leave = k->want_leave || leased(k->state) || k->state == LEASE_RELEASING;
		if (MUTANT(LEFT_WITH_VMS))
			leave(k);
		else
			release(k, RELEASE_SHUTDOWN, 0);
		break;
	case KEEPER_EV_SUSPENDED:
		on_suspended(k);
		break;
	case KEEPER_EV_AGENT:
		take_facts(k, &ev->agent);
		break;
	case KEEPER_EV_PROCESSES:
		gate_processes(k, ev->processes);
		break;
	case KEEPER_EV_HOLD:
		hold_message(k, &ev->hold);
		break;
	case KEEPER_EV_EVIDENCE:
		evidence_event(k, &ev->evidence);
		break;
	case KEEPER_EV_FENCE:
		evidence_wish(k, ev->evidence.node, ev->evidence.epoch);
		break;
	}
}

/* A phase is over when everybody has answered, or a fence quorum has: one slow volume does not set the pace. */
static bool enough(const struct keeper *k, unsigned answers)
{
	return answers >= format_fence_quorum(k->opt.n_volumes) || count_volumes(k, waits) == 0;
}

static bool may_join(const struct keeper *k)
{
	return count_volumes(k, was_written) < format_fence_quorum(k->opt.n_volumes) && k->now_ns < join_deadline(k);
}

/* Peers have granted this round late, and its I/O still hangs: what the volumes may yet say of it is not waited for, or the watchdog would act. */
static bool must_pet(const struct keeper *k)
{
	return k->phase != ROUND_IDLE && may_pet(k) && k->renewed && k->now_ns - k->last_pet_ns >= soft_ns(k);
}

void keeper_step(struct keeper *k, const struct keeper_event *ev, int64_t now_ns)
{
	CHECK(now_ns >= k->now_ns);
	k->now_ns = now_ns;
	k->n_actions = 0;
	take_event(k, ev);
	on_time(k);
	write_late(k);
	if (k->phase == ROUND_WRITING && enough(k, count_volumes(k, was_written)) && !may_join(k))
		end_writing(k);
	if (k->phase == ROUND_READING && enough(k, table_reads(k)))
		end_round(k);
	if (must_pet(k)) {
		hold_round_over(k, false, false, false);
		k->phase = ROUND_IDLE;
		k->kick = true;
	}
	if (k->phase == ROUND_IDLE && k->state != LEASE_LEFT &&
	    (k->kick || now_ns >= k->next_round_ns || now_ns >= takeover_deadline(k)))
		start_round(k);
	/* With nothing to write to or read from, the round is over at once and the next one is T_hb away. */
	if (k->phase == ROUND_WRITING && count_volumes(k, waits) == 0 && !may_join(k))
		start_reads(k);
	if (k->phase == ROUND_READING && count_volumes(k, waits) == 0) {
		k->phase = ROUND_IDLE;
		k->kick = false;
		hold_round_empty(k);
		evidence_unread(k);
		keeper_act(k, KEEPER_ACT_TELL); /* the gate closes with time */
	}
}

int64_t keeper_deadline(const struct keeper *k)
{
	int64_t at = k->phase == ROUND_IDLE ? MIN(k->next_round_ns, takeover_deadline(k)) : INT64_MAX;

	if (k->state == LEASE_STARTING && k->opt.resume && k->wd_running)
		at = MIN(at, k->state_ns + start_limit_ns(k));
	if (watched(k->state) && (!k->renewed || (k->phase != ROUND_IDLE && may_pet(k))))
		at = MIN(at, k->last_pet_ns + soft_ns(k));
	if (k->phase == ROUND_WRITING && count_volumes(k, waits) == 0)
		at = MIN(at, join_deadline(k));
	at = MIN(at, gate_deadline(k));
	if (k->ring == HEARTBEAT_RING_JOINING)
		at = MIN(at, k->ring_ns + keeper_ms(k->opt.timing.ring_grace_ms));
	for (unsigned v = 0; v < k->opt.n_volumes; v++)
		if (k->volume[v].slot.state == SLOT_DRAINING)
			at = MIN(at, k->volume[v].slot.since_ns + keeper_ms(k->opt.timing.drain_ms));
	return at;
}

const char *lease_state_name(enum lease_state s)
{
	static const char *const name[LEASE_STATE_COUNT] = {
		"starting", "disarmed", "armed", "disarming", "releasing", "released", "leaving", "left",
	};

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}

const char *release_reason_text(enum release_reason r)
{
	static const char *const text[] = {
		"none",
		"another node has committed a fence against this one",
		"this node lost the arbitration after the ring split",
		"no quorum of the volumes could be written and read in time",
		"another host writes to this node's slot: two hosts with one node id, or a cloned disk",
		"the host was suspended",
		"a volume that was away holds a later block of an earlier life of this node",
		"the host goes down",
	};

	return (size_t)r < ARRAY_SIZE(text) ? text[r] : "unknown";
}

const char *fence_reason_text(enum fence_reason r)
{
	static const char *const text[] = {
		"none",
		"its heartbeat stands still",
		"the ring has split and its side lost the arbitration",
		"it has lost the ring for longer than the grace",
		"an operator says so",
	};

	return (size_t)r < ARRAY_SIZE(text) ? text[r] : "unknown";
}

const char *volume_fault_text(enum volume_fault f)
{
	static const char *const text[] = {
		"none",
		"wiped: the superblock is gone",
		"foreign: the superblock is another cluster's or belongs to another volume",
		"rolled back: a block is older than one seen before",
		"this node's slot was written by another host",
		"damaged",
		"the volume set is being changed, or was changed",
		"stale: of an earlier volume set",
	};

	return (size_t)f < ARRAY_SIZE(text) ? text[f] : "unknown";
}
