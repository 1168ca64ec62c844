/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Owning VMs. One cycle changes any number of claims:
 *
 *   READING     all claims of all nodes, from a fence quorum; go on only with VMs no live claim of another node holds
 *   WRITING     own block, to a fence quorum, into one buffer and then into the other; each acknowledgement is waited for
 *   REREADING   all again, issued after it; any other live active claim, whatever its generation: withdraw
 *
 * Giving up needs only the write. What was read for policy never stands in for the reads of a cycle. What changed is written twice,
 * so that both buffers hold it before anything comes of it: one that rots later takes nothing with it, even of a node that is dead. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define RETRY_MS 100
#define REFRESH_MS 10000
#define VOID_AGAIN_MS 20 /* the keeper reads its table as soon as it hears of our write */
#define SEQ_SKIP (1ULL << 32) /* beyond anything a volume that is away just now may hold of an earlier process */

const uint8_t agent_leader_uuid[16] = { 'k', 'v', 'm', '-', 'h', 'a', ' ', 'l', 'e', 'a', 'd', 'e', 'r', 0, 0, 1 };

static bool same(const uint8_t a[16], const uint8_t b[16]) { return memcmp(a, b, 16) == 0; }

static const struct claim *find(const struct claims *c, const uint8_t vm[16])
{
	for (uint32_t i = 0; i < c->n; i++)
		if (same(c->claim[i].vm, vm))
			return &c->claim[i];
	return NULL;
}

const struct claim *claimer_own(const struct agent *a, const uint8_t vm[16])
{
	const struct claim *c = find(&a->claimer.mine, vm);

	return c && (c->epoch == a->epoch || MUTANT(OLD_EPOCH_KEPT)) ? c : NULL;
}

const struct claim *claimer_seen(const struct agent *a, uint32_t node, const uint8_t vm[16])
{
	return find(node == a->opt.self ? &a->claimer.mine : &a->claimer.seen[node - 1], vm);
}

bool claim_is_live(const struct agent *a, uint32_t node, const struct claim *c)
{
	const struct keeper_table_node *n = agent_table_node(a, node);

	if (c->state != CLAIM_ACTIVE || (MUTANT(STALE_IS_DEAD) && node != a->opt.self && !n->fresh))
		return false;
	return node == a->opt.self ? c->epoch == a->epoch : c->epoch > n->over && !claim_is_void(a, node, c);
}

/* fence/gate.c, seen from the other side. */
bool claim_is_void(const struct agent *a, uint32_t node, const struct claim *c)
{
	const struct keeper_silent *s = &a->silent[node - 1];
	const struct keeper_table_node *n = agent_table_node(a, node);

	if (node == a->opt.self || n->silent_seq == 0 || s->seq != n->silent_seq || s->epoch != n->epoch || c->epoch != n->epoch || MUTANT(SILENT_CLAIMS_KEPT))
		return false;
	for (uint32_t i = 0; i < s->n; i++)
		if (s->mark[i] == format_vm_mark(c->vm))
			return false;
	return true;
}

static bool own_active(const struct agent *a, const uint8_t vm[16])
{
	const struct claim *own = claimer_own(a, vm);

	return own && own->state == CLAIM_ACTIVE;
}

/* Another node's live claim on the VM among the blocks of this cycle's read. */
static uint32_t other_holder(const struct agent *a, const uint8_t vm[16])
{
	bool leader = same(vm, agent_leader_uuid);

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = find(&a->claimer.fresh[id - 1], vm);

		if (id == a->opt.self || !a->claimer.fresh_any[id - 1] || !c || !claim_is_live(a, id, c))
			continue;
		if (leader && lead_claim_void(a, id))
			continue;
		if (MUTANT(ONLY_NEWER_CONFLICT) && own_active(a, vm) && c->generation <= claimer_own(a, vm)->generation)
			continue;
		return id;
	}
	return 0;
}

/* The newest generation anybody has, and whether the last one that may have run the VM died with it. A withdrawn claim (NONE) never ran it. Of a VM that
 * nobody has ever claimed the disk may be that of one that was removed, whose owner has died with a write on its way. */
static uint64_t top_generation(const struct agent *a, const uint8_t vm[16], bool *ret_unclean, uint64_t *ret_run)
{
	uint64_t top = 0, top_run = 0;
	bool known = false;

	*ret_unclean = false;
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = find(&a->claimer.fresh[id - 1], vm);

		if (!a->claimer.fresh_any[id - 1] || !c)
			continue;
		known = true;
		top = MAX(top, c->generation);
		if (c->state == CLAIM_NONE || c->generation < top_run)
			continue;
		*ret_unclean = (c->generation == top_run && *ret_unclean) || (c->state == CLAIM_ACTIVE && !(MUTANT(VOID_CLEAN) && claim_is_void(a, id, c))) ||
			       c->state == CLAIM_UNCLEAN;
		top_run = c->generation;
	}
	*ret_unclean = *ret_unclean || (!known && !MUTANT(FIRST_START_CLEAN));
	*ret_run = top_run;
	return top;
}

/* The newest of all claims under which it may have run is the one that was handed over for this very migration: nobody has run it since. Our own that this
 * cycle has put there already is not looked at. */
static bool handed_over(const struct agent *a, const struct want *w)
{
	const struct claim *top = NULL;
	bool tie = false;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = find(&a->claimer.fresh[id - 1], w->vm);

		if (!a->claimer.fresh_any[id - 1] || !c || c->state == CLAIM_NONE || (id == a->opt.self && w->in_cycle))
			continue;
		if (!top || claim_is_newer(c, top)) {
			top = c;
			tie = false;
		} else if (!claim_is_newer(top, c)) {
			tie = true;
		}
	}
	if (MUTANT(RELEASE_UNREAD))
		return true;
	return top && !tie && top->state == CLAIM_HANDED && (top->migration == w->migration || MUTANT(RELEASE_OF_ANOTHER));
}

static void put(struct agent *a, const uint8_t vm[16], uint64_t generation, enum claim_state state, uint64_t migration)
{
	struct claims *m = &a->claimer.mine;
	struct claim *c = (struct claim *)find(m, vm);

	CHECK(c || m->n < FORMAT_MAX_CLAIMS); /* AGENT_MAX_VMS is well below */
	if (!c)
		c = &m->claim[m->n++];
	memcpy(c->vm, vm, 16);
	c->generation = generation;
	c->epoch = a->epoch;
	c->state = state;
	c->migration = migration;
}

static struct want *find_want(struct claimer *c, const uint8_t vm[16])
{
	for (unsigned i = 0; i < c->n_wants; i++)
		if (same(c->want[i].vm, vm))
			return &c->want[i];
	return NULL;
}

static void drop_want(struct claimer *c, struct want *w) { *w = c->want[--c->n_wants]; }

void claimer_want(struct agent *a, const uint8_t vm[16], enum want_kind kind, enum claim_state to)
{
	struct claimer *c = &a->claimer;
	struct want *w = find_want(c, vm);

	if (!w) {
		CHECK(c->n_wants < ARRAY_SIZE(c->want));
		w = &c->want[c->n_wants++];
	}
	*w = (struct want){ .kind = kind, .to = to };
	memcpy(w->vm, vm, 16);
}

void claimer_want_migration(struct agent *a, const uint8_t vm[16], enum want_kind kind, uint64_t migration)
{
	claimer_want(a, vm, kind, kind == WANT_TAKE ? CLAIM_ACTIVE : CLAIM_HANDED);
	find_want(&a->claimer, vm)->migration = migration;
}

bool claimer_take_back(struct agent *a, const uint8_t vm[16])
{
	struct want *w = find_want(&a->claimer, vm);

	if (!w || (w->in_cycle && !MUTANT(ISSUED_TAKEN_BACK)))
		return false;
	drop_want(&a->claimer, w);
	return true;
}

bool claimer_pending(const struct agent *a, const uint8_t vm[16]) { return find_want((struct claimer *)&a->claimer, vm) != NULL; }

void claimer_reset(struct agent *a)
{
	struct claimer *c = &a->claimer;

	c->n_wants = 0;
	/* What was being written may have been seen on a volume that does not have it any more: until it is written again who saw it cannot read there. */
	c->rewrite = c->rewrite || (c->changed && c->numbered);
	if (c->check_lead)
		agent_act(a, AGENT_ACT_LEAD_CHECKED)->on = false; /* somebody waits for the answer */
	c->check_lead = false;
	if (c->phase == CLAIMER_REREADING)
		c->phase = CLAIMER_READING; /* of use as a refresh only */
	/* What we gave up keeps its generation; what we held died with the epoch and stays to be seen by whoever takes over. */
}

void claimer_volume_ready(struct agent *a, unsigned volume, bool ready) { a->claimer.volume[volume].ready = ready; }

static unsigned count(const struct agent *a, bool (*fn)(const struct claimer_volume *))
{
	unsigned n = 0;

	for (unsigned v = 0; v < a->opt.n_volumes; v++)
		n += fn(&a->claimer.volume[v]);
	return n;
}

static bool waits(const struct claimer_volume *v) { return v->read_wait || v->write_wait; }
static bool was_read(const struct claimer_volume *v) { return v->read_ok; }
static bool shows_any_own(const struct claimer_volume *v) { return v->own_any; }
static bool shows_own(const struct claimer_volume *v) { return v->own_ok; }
static bool lacks_own(const struct claimer_volume *v) { return v->lacks_own; }
static bool was_written(const struct claimer_volume *v) { return v->write_ok; }
static bool may_read(const struct claimer_volume *v) { return v->ready && !v->read_busy; }
static bool may_write(const struct claimer_volume *v) { return v->ready && !v->write_busy && slot_writable(&v->slot); }

static bool settles(const struct claimer_volume *v) { return may_write(v) || (v->ready && v->write_busy && v->write_ok); }

static void start_read(struct agent *a, enum claimer_phase phase)
{
	struct claimer *c = &a->claimer;

	c->phase = phase;
	c->refresh = c->between = false;
	c->lead_checked = c->check_lead;
	c->read_ns = a->now_ns;
	c->read_epoch = a->epoch;
	c->read_term = agent_term(a);
	memset(c->fresh_any, 0, sizeof(c->fresh_any));
	for (uint32_t id = 1; id <= a->opt.node_max; id++)
		c->announced[id - 1] = agent_table_node(a, id)->claims_seq;
	for (unsigned i = 0; i < a->opt.n_volumes; i++) {
		struct claimer_volume *v = &c->volume[i];

		v->read_ok = v->own_ok = v->own_any = v->own_older = v->lacks_own = v->read_wait = v->write_wait = false; /* who is still to answer an earlier phase does not count */
		if (!may_read(v))
			continue;
		v->read_wait = v->read_busy = true;
		v->read_issued_ns = a->now_ns;
		v->expect_seq = v->acked_seq;
		agent_act(a, AGENT_ACT_READ)->volume = i;
	}
}

static bool in_cycle(const struct claimer *c)
{
	for (unsigned i = 0; i < c->n_wants; i++)
		if (c->want[i].in_cycle)
			return true;
	return false;
}

static void start_write(struct agent *a)
{
	struct claimer *c = &a->claimer;

	c->phase = CLAIMER_WRITING;
	c->mine.node = a->opt.self;
	c->mine.epoch = a->epoch;
	c->mine.seq++;
	for (unsigned i = 0; i < a->opt.n_volumes; i++) {
		struct claimer_volume *v = &c->volume[i];
		struct agent_action *act;

		v->write_ok = v->write_wait = v->read_wait = false;
		if (!may_write(v))
			continue;
		v->write_wait = v->write_busy = true;
		act = agent_act(a, AGENT_ACT_WRITE);
		act->volume = i;
		act->buffer = v->slot.buffer;
		slot_written(&v->slot, c->mine.epoch, c->mine.seq);
	}
}

/* Our claim goes, before anything else is said of this VM; of one that ran here before a restart of the agent only once this host is silent. */
static void withdraw(struct agent *a, const uint8_t vm[16], enum claim_result why, bool unclean, uint32_t holder)
{
	if (!vmlife_withdraw(a, vm, unclean))
		claimer_want(a, vm, WANT_GIVE_UP, unclean && !MUTANT(UNCLEAN_FORGOTTEN) ? CLAIM_UNCLEAN : CLAIM_NONE);
	vmlife_claim_result(a, vm, why, 0, unclean, holder);
}

static void refuse_take(struct agent *a, struct want *w, uint32_t holder)
{
	bool is_put = w->in_cycle;
	uint8_t vm[16];

	memcpy(vm, w->vm, 16);
	drop_want(&a->claimer, w);
	if (is_put)
		withdraw(a, vm, CLAIM_BUSY, false, holder);
	else
		vmlife_claim_result(a, vm, CLAIM_BUSY, 0, false, holder);
}

/* After READING: what may go into our block. Returns whether there is anything to write. */
static bool prepare(struct agent *a)
{
	struct claimer *c = &a->claimer;
	bool any = false;

	for (unsigned i = 0; i < c->n_wants;) {
		struct want *w = &c->want[i];
		uint8_t vm[16];
		uint32_t holder;

		memcpy(vm, w->vm, 16);
		if (w->kind != WANT_GIVE_UP) {
			holder = other_holder(a, vm);
			if (w->kind == WANT_TAKE && (holder != 0 || (own_active(a, vm) && !w->in_cycle) || !handed_over(a, w))) {
				refuse_take(a, w, holder);
				continue;
			}
			if (holder != 0 && !own_active(a, vm)) {
				drop_want(c, w);
				vmlife_claim_result(a, vm, CLAIM_BUSY, 0, false, holder);
				continue;
			}
			if (holder != 0) {
				/* A claim of ours that nobody runs must not stay behind: others would wait for it for ever. */
				drop_want(c, w);
				withdraw(a, vm, CLAIM_BUSY, true, holder);
				continue;
			}
			w->generation = top_generation(a, vm, &w->unclean, &w->run_generation) + !MUTANT(GENERATION_REUSED);
			if (same(vm, agent_leader_uuid)) /* newer than any catalog, too */
				w->generation = MUTANT(LEADER_GENERATION_LOW) ? 1 : MAX(w->generation, a->catalog_generation + 1);
			put(a, vm, w->generation, CLAIM_ACTIVE, 0);
		} else {
			const struct claim *own = find(&c->mine, vm);

			put(a, vm, own ? own->generation : 1, w->to, w->migration);
		}
		w->in_cycle = true;
		any = true;
		i++;
	}
	if (any) {
		c->changed = true;
		c->once_seq = 0;
	}
	return any;
}

/* Entries of VMs that are in no catalog any more. All others stay, dead ones too: they tell a taker whether the last owner gave the VM up. What is missing
 * in a catalog that others know to be an old one may have been added since. */
static void drop_removed(struct agent *a)
{
	struct claims *m = &a->claimer.mine;

	if (!a->have_catalog || agent_behind(a))
		return;
	for (uint32_t i = 0; i < m->n;) {
		if (!same(m->claim[i].vm, agent_leader_uuid) && !agent_vm_by_uuid(a, m->claim[i].vm) && !find_want(&a->claimer, m->claim[i].vm))
			m->claim[i] = m->claim[--m->n];
		else
			i++;
	}
}

static void finish_gives(struct agent *a)
{
	struct claimer *c = &a->claimer;

	for (unsigned i = 0; i < c->n_wants;) {
		struct want *w = &c->want[i];
		uint8_t vm[16];

		if (!w->in_cycle || w->kind != WANT_GIVE_UP) {
			i++;
			continue;
		}
		memcpy(vm, w->vm, 16);
		drop_want(c, w);
		vmlife_claim_result(a, vm, CLAIM_GIVEN_UP, 0, false, 0);
	}
}

/* Somebody claimed the VM between our two reads, may have run it, and is dead already: what the first read said of its last owner is no longer true,
 * and our generation is not the newest. */
static bool overtaken(const struct agent *a, const struct want *w)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = find(&a->claimer.fresh[id - 1], w->vm);

		if (id != a->opt.self && a->claimer.fresh_any[id - 1] && c && c->generation >= w->generation + MUTANT(ONLY_NEWER_CONFLICT))
			return true;
	}
	return false;
}

/* The blocks of the first read are of different moments: a node that is dead by now may have claimed and run the VM between those of its own and of the
 * one whose withdrawn claim had that generation already (tests/model/claim.pml). */
static bool ran_since(const struct agent *a, const struct want *w)
{
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *c = find(&a->claimer.fresh[id - 1], w->vm);

		if (id != a->opt.self && a->claimer.fresh_any[id - 1] && c && c->generation > w->run_generation &&
		    ((c->state == CLAIM_ACTIVE && !(MUTANT(VOID_CLEAN) && claim_is_void(a, id, c))) || c->state == CLAIM_UNCLEAN))
			return true;
	}
	return false;
}

/* A claim counts as void if its keeper says so after ours was there to be read. What was said before may have been taken back, and the VM started by an agent
 * that had read all claims before ours was among them. */
static bool void_unheard(const struct agent *a)
{
	const struct claimer *c = &a->claimer;

	for (unsigned i = 0; i < c->n_wants && a->table.table.read_seq < c->acked_seq && !MUTANT(VOID_UNHEARD); i++) {
		if (!c->want[i].in_cycle || c->want[i].kind == WANT_GIVE_UP || same(c->want[i].vm, agent_leader_uuid))
			continue;
		for (uint32_t id = 1; id <= a->opt.node_max; id++) {
			const struct claim *o = c->fresh_any[id - 1] ? find(&c->fresh[id - 1], c->want[i].vm) : NULL;

			if (o && o->state == CLAIM_ACTIVE && o->epoch > agent_table_node(a, id)->over && claim_is_void(a, id, o))
				return true;
		}
	}
	return false;
}

/* A complete read that was issued under a term of the gate, of claims that were there before: those that are still the newest may be started in that term. */
static void confirm(struct agent *a)
{
	struct claimer *c = &a->claimer;

	for (unsigned i = 0; i < a->vm_end && c->read_term != 0; i++) {
		struct vm *v = &a->vm[i];
		struct want w = { .generation = v->generation };

		if (!v->used || v->state == VM_IDLE || v->state == VM_CLAIMING || v->state == VM_RELEASING || v->state >= VM_HANDING ||
		    (v->term == c->read_term && !v->reservation.unsure))
			continue;
		memcpy(w.vm, v->def.uuid, 16);
		if (other_holder(a, w.vm) != 0 || overtaken(a, &w))
			continue;
		v->term = c->read_term;
		v->reservation.sure_ns = c->read_ns;
	}
}

/* After REREADING: granted, or withdrawn. */
static void judge(struct agent *a)
{
	struct claimer *c = &a->claimer;

	for (unsigned i = 0; i < c->n_wants;) {
		struct want w = c->want[i];
		struct vm *v;
		uint32_t holder;

		if (!w.in_cycle || w.kind == WANT_GIVE_UP) {
			i++;
			continue;
		}
		holder = other_holder(a, w.vm);
		drop_want(c, &c->want[i]);
		if (holder != 0 || (overtaken(a, &w) && !MUTANT(OVERTAKEN_IGNORED)) || (w.kind == WANT_TAKE && !handed_over(a, &w))) {
			withdraw(a, w.vm, holder ? CLAIM_CONFLICT : CLAIM_BUSY, w.unclean || (w.kind == WANT_TAKE && ran_since(a, &w)), holder);
		} else {
			v = agent_vm_by_uuid(a, w.vm);
			if (v)
				v->term = c->read_term;
			vmlife_claim_result(a, w.vm, CLAIM_GRANTED, w.generation, w.unclean || ran_since(a, &w), 0);
		}
	}
}

static bool knew_newer(const struct agent *a, uint32_t id)
{
	const struct claims *seen = &a->claimer.seen[id - 1], *fresh = &a->claimer.fresh[id - 1];

	return a->claimer.seen_any[id - 1] && format_compare(seen->epoch, seen->seq, fresh->epoch, fresh->seq) > 0;
}

/* What an earlier process of this agent wrote. It waits for nobody else's block: two nodes with a damaged one each would wait for each other. */
static void learn_own(struct agent *a)
{
	struct claimer *c = &a->claimer;
	const struct claims *own = &c->fresh[a->opt.self - 1];
	uint64_t announced = c->announced[a->opt.self - 1];
	unsigned shown = count(a, shows_own);

	if (c->numbered || c->read_epoch == 0)
		return;
	if (!c->fresh_any[a->opt.self - 1] || knew_newer(a, a->opt.self))
		own = &c->seen[a->opt.self - 1]; /* read before it was damaged */
	/* What a volume has lost since this process read it counts: it is known what it was (keep_own). */
	for (unsigned v = 0; v < a->opt.n_volumes; v++)
		shown += c->volume[v].own_older && !c->volume[v].own_ok;
	/* A quorum must be asked: of claims that were granted in the last moment nothing was announced. Of one whose newest block is damaged it is enough to
	 * know, from another, what was announced. */
	if (count(a, shows_any_own) < format_fence_quorum(a->opt.n_volumes) || shown < (announced != 0 ? 1 : format_fence_quorum(a->opt.n_volumes)) ||
	    own->seq < announced) {
		c->retry_ns = a->now_ns + agent_ms(RETRY_MS); /* our newest block is damaged, and this process does not know what it held */
		return;
	}
	if (!c->read_once) {
		c->mine = *own;
		c->read_once = true;
	}
	if (c->writable_ns != 0 && c->read_ns >= c->writable_ns) {
		/* Nothing of an earlier process can land any more, or only on a volume that is away: stay clear of all its numbers, those it
		 * may have used there, too. */
		c->mine.seq = MAX(MAX(c->mine.seq, own->seq), MAX(announced, a->opt.seq_base)) + (MUTANT(CLAIM_SEQ_NOT_SKIPPED) ? 0 : SEQ_SKIP);
		c->numbered = true;
		agent_act(a, AGENT_ACT_NUMBERED);
	}
}

/* A block has room for many claims, and holds few. */
static void copy(struct claims *to, const struct claims *from)
{
	memcpy(to, from, offsetof(struct claims, claim) + from->n * sizeof(from->claim[0]));
}

static void publish_fresh(struct agent *a)
{
	struct claimer *c = &a->claimer;

	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct claim *lead;

		if (!c->fresh_any[id - 1] || (id == a->opt.self && knew_newer(a, id)))
			continue;
		copy(&c->seen[id - 1], &c->fresh[id - 1]);
		c->seen_any[id - 1] = true;
		lead = find(&c->seen[id - 1], agent_leader_uuid);
		c->seen_lead[id - 1] = lead ? (unsigned)(lead - c->seen[id - 1].claim) + 1 : 0;
	}
}

/* A quorum of reads shows at least what each node had on a quorum before. Does it not, then a volume was rolled back, or has acknowledged what it never
 * wrote: who has read it has not read enough. */
static bool shows_announced(const struct agent *a)
{
	const struct claimer *c = &a->claimer;

	for (uint32_t id = 1; id <= a->opt.node_max; id++)
		if (id != a->opt.self && c->fresh_any[id - 1] && c->fresh[id - 1].seq < c->announced[id - 1])
			return false;
	return true;
}

static void end_phase(struct agent *a)
{
	struct claimer *c = &a->claimer;
	unsigned fence = MUTANT(CLAIM_QUORUM_SHORT) ? 1 : format_fence_quorum(a->opt.n_volumes);
	enum claimer_phase was = c->phase;

	c->phase = CLAIMER_IDLE;
	if (was == CLAIMER_WRITING) {
		if (count(a, was_written) < fence && !MUTANT(START_WITHOUT_ACK) && !MUTANT(REREAD_BEFORE_ACK)) {
			c->retry_ns = a->now_ns + agent_ms(RETRY_MS); /* the same content again, under a new number */
			return;
		}
		c->whole_seq = c->mine.seq;
		c->rewrite = c->changed && c->once_seq == 0 && !MUTANT(START_WITHOUT_ACK) && !MUTANT(REREAD_BEFORE_ACK);
		if (c->rewrite)
			c->once_seq = c->mine.seq; /* now the other buffer */
		if (c->rewrite || !c->changed)
			return;
		c->changed = false;
		c->acked_seq = c->once_seq ? c->once_seq : c->mine.seq;
		agent_act(a, AGENT_ACT_FACTS);
		finish_gives(a);
		if (MUTANT(CACHED_REREAD))
			judge(a);
		else
			start_read(a, CLAIMER_REREADING);
		return;
	}
	learn_own(a);
	if (count(a, was_read) < fence || (!shows_announced(a) && !MUTANT(CLAIMS_ANNOUNCED_IGNORED) && !MUTANT(CLAIMS_UNREADABLE_ARE_EMPTY))) {
		c->retry_ns = a->now_ns + agent_ms(RETRY_MS);
		if (was != CLAIMER_REREADING)
			return;
		if (count(a, lacks_own) > 0 || c->rewrite) { /* not there any more: all of it again, and the others' reads wait for it, too */
			c->rewrite = c->changed = true;
			c->once_seq = 0;
		} else {
			c->phase = CLAIMER_REREADING; /* only the re-read is repeated */
		}
		return;
	}
	publish_fresh(a);
	c->complete_ns = c->read_ns;
	if (was == CLAIMER_REREADING && void_unheard(a)) {
		c->phase = CLAIMER_REREADING;
		c->retry_ns = a->now_ns + agent_ms(VOID_AGAIN_MS);
		return;
	}
	confirm(a);
	if (was == CLAIMER_REREADING)
		judge(a);
	reserve_claims_read(a);
	lead_step(a);
	if (c->check_lead && c->lead_checked) {
		c->check_lead = false;
		agent_act(a, AGENT_ACT_LEAD_CHECKED)->on = a->leads || MUTANT(EDIT_UNCHECKED);
	}
	if (was == CLAIMER_READING && !c->between && a->epoch != 0 && c->numbered && c->n_wants > 0) {
		drop_removed(a);
		if (prepare(a))
			start_write(a);
	}
}

static bool must_refresh(const struct agent *a)
{
	const struct claimer *c = &a->claimer;

	if (c->refresh || c->check_lead || (!c->read_once && a->epoch != 0) || a->now_ns - c->read_ns > agent_ms(REFRESH_MS))
		return true;
	if (a->now_ns - c->read_ns < agent_ms(RETRY_MS) / 2)
		return false; /* what is announced may be on no volume we can read: do not ask at storage speed */
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		const struct keeper_table_node *n = agent_table_node(a, id);

		if (id != a->opt.self && n->known && n->fresh && c->seen[id - 1].seq < n->claims_seq)
			return true;
	}
	return false;
}

/* A volume that was busy, or away, when our block was written last lacks what that says, and nobody else would ever write it there. It matters to the volume set, which changes only
 * while the cluster is disarmed; before, a takeover might have to wait for that write. */
static bool must_catch_up(struct agent *a)
{
	struct claimer *c = &a->claimer;
	bool any = false;

	if (a->catalog_armed || c->n_wants > 0 || c->changed || c->rewrite || c->whole_seq == 0 || c->mine.epoch != a->epoch ||
	    (c->catch_up_ns != 0 && a->now_ns - c->catch_up_ns < agent_ms(REFRESH_MS)))
		return false;
	for (unsigned i = 0; i < a->opt.n_volumes; i++)
		any = any || (may_write(&c->volume[i]) && MAX(c->volume[i].acked_seq, c->volume[i].on[a->opt.self - 1].seq) < c->whole_seq);
	if (any)
		c->catch_up_ns = a->now_ns;
	return any;
}

/* A phase is over when everybody has answered, or a fence quorum has: one slow volume does not set the pace. */
static bool enough(const struct agent *a)
{
	if (MUTANT(REREAD_BEFORE_ACK) && a->claimer.phase == CLAIMER_WRITING)
		return true;
	return count(a, waits) == 0 ||
	       count(a, a->claimer.phase == CLAIMER_WRITING ? was_written : was_read) >= format_fence_quorum(a->opt.n_volumes);
}

/* Starts what is due. Called at the end of every step of the agent. */
void claimer_step(struct agent *a)
{
	struct claimer *c = &a->claimer;

	for (unsigned v = 0; v < a->opt.n_volumes; v++)
		(void)slot_tick(&c->volume[v].slot, a->now_ns, agent_ms(a->opt.timing.drain_ms));
	for (unsigned i = 0; i < 8 && c->phase != CLAIMER_IDLE && enough(a) && a->now_ns >= c->retry_ns; i++) {
		if (c->phase == CLAIMER_REREADING && c->retry_ns > c->read_ns)
			start_read(a, CLAIMER_REREADING);
		else
			end_phase(a);
	}
	if (c->phase != CLAIMER_IDLE || !a->have_table || a->now_ns < c->retry_ns)
		return;
	if (count(a, may_read) < format_fence_quorum(a->opt.n_volumes))
		return;
	if (c->writable_ns == 0 && count(a, may_write) >= format_fence_quorum(a->opt.n_volumes))
		c->writable_ns = a->now_ns;
	if (!c->numbered && c->writable_ns != 0 && a->epoch != 0) {
		start_read(a, CLAIMER_READING);
		return;
	}
	c->rewrite = must_catch_up(a) || c->rewrite;
	if (a->epoch != 0 && c->numbered && (c->rewrite || c->n_wants > 0) && count(a, may_write) >= format_fence_quorum(a->opt.n_volumes)) {
		/* Also a write that did not reach its quorum. Our own block comes first: while it is damaged nobody can read anything. But where writes fail all the time
		 * the others' claims are read in between: this node may lead. */
		bool tries = c->rewrite || in_cycle(c);

		if (tries && a->now_ns - c->read_ns <= agent_ms(MAX(REFRESH_MS, 4 * a->opt.timing.io_ms))) {
			start_write(a);
		} else {
			start_read(a, CLAIMER_READING);
			c->between = tries;
		}
	} else if (c->rewrite && count(a, settles) >= format_fence_quorum(a->opt.n_volumes)) {
		; /* the second of two writes is next: a read in between would begin the cycle anew, again and again while somebody asks for reads */
	} else if (must_refresh(a)) {
		start_read(a, CLAIMER_READING);
	}
}

/* What an earlier process wrote is known once any volume has shown it, whatever becomes of the rest of that read: by the next one the block may be damaged, and no
 * other volume need have it. */
static void keep_own(struct claimer *c, uint32_t self, const struct claims *own)
{
	if (c->numbered || (c->seen_any[self - 1] && format_compare(own->epoch, own->seq, c->seen[self - 1].epoch, c->seen[self - 1].seq) <= 0))
		return;
	copy(&c->seen[self - 1], own);
	c->seen_any[self - 1] = true;
}

/* Two buffers: the newest valid one. As for heartbeats, unreadable or older than seen before fails the volume's read. */
static bool absorb(struct agent *a, unsigned volume, const uint8_t *data, const uint8_t cluster[16])
{
	static struct claims buf[2];
	struct claimer *c = &a->claimer;
	struct claimer_volume *v = &c->volume[volume];
	bool good = true;

	v->own_ok = v->own_any = v->own_older = false;
	for (uint32_t id = 1; id <= a->opt.node_max; id++) {
		bool ok[2];
		int newest;

		for (unsigned b = 0; b < 2; b++)
			ok[b] = claims_decode(data + format_claims_offset(id, b) - FORMAT_CLAIMS_OFFSET, id, b, cluster, &buf[b]) == FORMAT_OK;
		if (id == a->opt.self)
			v->own_any = ok[0] || ok[1];
		if (!ok[0] && !ok[1]) {
			good = good && MUTANT(CLAIMS_UNREADABLE_ARE_EMPTY);
			if (id == a->opt.self) { /* ours to mend */
				slot_read(&v->slot, -1, 0, 0, v->read_issued_ns, a->now_ns);
				c->rewrite = c->rewrite || c->numbered;
			}
			continue;
		}
		newest = !ok[0] || (ok[1] && format_compare(buf[1].epoch, buf[1].seq, buf[0].epoch, buf[0].seq) > 0);
		/* One bad, and the other older than announced: the bad one may hold the claim that counts. Of our own, an earlier process' claims: what
		 * was announced of those is known only once the keeper has read it. */
		if (!(ok[0] && ok[1]) && (id != a->opt.self || !c->numbered) && !MUTANT(CLAIMS_ANNOUNCED_IGNORED) &&
		    (buf[newest].seq < c->announced[id - 1] || (id == a->opt.self && c->read_epoch == 0))) {
			good = false;
			if (id == a->opt.self)
				slot_read(&v->slot, newest, buf[newest].epoch, buf[newest].seq, v->read_issued_ns, a->now_ns);
			continue;
		}
		if (format_compare(buf[newest].epoch, buf[newest].seq, v->on[id - 1].epoch, v->on[id - 1].seq) < 0 && !MUTANT(CLAIMS_ROLLED_BACK_TAKEN)) {
			if (id == a->opt.self) { /* ours to mend */
				slot_read(&v->slot, newest, buf[newest].epoch, buf[newest].seq, v->read_issued_ns, a->now_ns);
				c->rewrite = c->rewrite || c->numbered;
				v->own_older = true;
			}
			/* The damaged one was read before it was damaged: we know what it said. */
			if (!(ok[0] && ok[1]) && format_compare(c->fresh[id - 1].epoch, c->fresh[id - 1].seq, v->on[id - 1].epoch, v->on[id - 1].seq) >= 0) {
				c->fresh_any[id - 1] = true;
				v->own_ok = v->own_ok || id == a->opt.self;
			} else {
				good = false;
			}
			continue;
		}
		v->on[id - 1].epoch = buf[newest].epoch;
		v->on[id - 1].seq = buf[newest].seq;
		/* A rotten or lost block of our own fails everybody else's read: write it again. */
		if (id == a->opt.self && c->numbered && (!(ok[0] && ok[1]) || buf[newest].seq < v->expect_seq))
			c->rewrite = true;
		if (id == a->opt.self) {
			slot_read(&v->slot, newest, buf[newest].epoch, buf[newest].seq, v->read_issued_ns, a->now_ns);
			keep_own(c, id, &buf[newest]);
		}
		v->own_ok = v->own_ok || id == a->opt.self;
		if (c->fresh_any[id - 1] && !MUTANT(LAST_READ_COUNTS) &&
		    format_compare(buf[newest].epoch, buf[newest].seq, c->fresh[id - 1].epoch, c->fresh[id - 1].seq) <= 0)
			continue;
		c->fresh_any[id - 1] = true;
		copy(&c->fresh[id - 1], &buf[newest]);
	}
	return good;
}

void claimer_read_done(struct agent *a, const struct agent_event *ev)
{
	struct claimer_volume *v = &a->claimer.volume[ev->volume];

	if (!v->read_wait)
		return;
	v->read_wait = false;
	v->read_ok = ev->ok && absorb(a, ev->volume, ev->data, a->opt.cluster);
	/* Acknowledged, but not there: that volume says nothing about whether others see our claims. */
	v->lacks_own = v->read_ok && a->claimer.phase == CLAIMER_REREADING && v->on[a->opt.self - 1].seq < a->claimer.acked_seq &&
		       !MUTANT(START_WITHOUT_ACK) && !MUTANT(REREAD_BEFORE_ACK);
	v->read_ok = v->read_ok && !v->lacks_own;
}

void claimer_write_done(struct agent *a, const struct agent_event *ev)
{
	struct claimer_volume *v = &a->claimer.volume[ev->volume];

	slot_done(&v->slot, ev->ok, ev->definite);
	if (ev->ok)
		v->acked_seq = v->slot.writing_seq;
	if (!v->write_wait)
		return;
	v->write_wait = false;
	v->write_ok = ev->ok;
}
