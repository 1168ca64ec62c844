/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The gate, and an agent that is silent. Whoever has crashed for good, is stopped or hangs starts nothing again, so its claims must not keep a VM down for ever; but
 * it may go on at any moment, in the middle of a start. So its keeper says for it which claims still stand:
 *
 *   CLEARING -- blocks that say nothing of the kind are on a fence quorum: a new term --> OPEN
 *      ^                                                                      ^            | not heard for T_silent
 *      |                         heard, and nothing was said: the same term   |            v
 *      |                                                                      +-------- CLOSED -- the VMs' processes are known --> VOID
 *      +----------------------------------------------- heard <--------------------------------------------------------------------+
 *
 * In VOID each block lists the VMs with a process here; all other claims of this epoch are void, and others may take them. The list only gets shorter: nothing passes a closed
 * gate, and what has passed it before is registered, QEMU or not yet. A VM goes off the list once this host also sends nothing more for it; whoever takes it drains as after
 * a death.
 *
 * The gate admits who was claimed, or confirmed by a read of all claims, after the agent was told the present term (agent/core/claimer.c). Who takes a void claim does the
 * same the other way round: its own claim is on the volumes before it reads that the other's is (still) void. Of the two at least one sees the other. */
#include "agent/base/mutant.h"
#include "fence/keeper_core.h"

static bool leased(const struct keeper *k) { return k->state == LEASE_DISARMED || k->state == LEASE_ARMED || k->state == LEASE_DISARMING; }

static void say_nothing(struct keeper *k)
{
	k->mine.silent = false;
	k->mine.n_marks = 0;
	memset(k->mine.mark, 0, sizeof(k->mine.mark));
}

void gate_epoch_begins(struct keeper *k)
{
	/* An earlier process may have said of this epoch that claims are void, and told some of the volumes only. */
	k->gate.state = GATE_CLEARING;
	k->gate.term = 0;
	k->gate.cleared = 0;
	say_nothing(k);
}

/* The agent has said something: is it alive? */
void gate_facts(struct keeper *k, uint64_t counter)
{
	if (counter == k->agent.counter)
		return;
	k->gate.heard_ns = k->now_ns;
	if (k->gate.state == GATE_CLOSED) {
		k->gate.state = GATE_OPEN;
		keeper_act(k, KEEPER_ACT_TELL);
	} else if (k->gate.state == GATE_VOID) {
		say_nothing(k);
		k->gate.cleared = 0;
		k->gate.state = MUTANT(REOPENED_UNCLEARED) ? GATE_OPEN : GATE_CLEARING;
		k->gate.term += MUTANT(REOPENED_UNCLEARED);
		keeper_kick(k);
	} else {
		return;
	}
	keeper_note(k, NOTE_SILENT, k->opt.self, 0);
}

static int64_t silent_at(const struct keeper *k) { return k->gate.heard_ns + keeper_ms(k->opt.timing.silent_ms); }

void gate_tick(struct keeper *k)
{
	/* While CLEARING, what was said before still counts for others: it goes on from there as soon as it can. */
	if (!leased(k) || !k->published || k->gate.state != GATE_OPEN || k->now_ns < silent_at(k))
		return;
	k->gate.state = GATE_CLOSED;
	keeper_note(k, NOTE_SILENT, k->opt.self, 1);
	keeper_act(k, KEEPER_ACT_TELL);
	keeper_kick(k);
}

int64_t gate_deadline(const struct keeper *k) { return leased(k) && k->published && k->gate.state == GATE_OPEN ? silent_at(k) : INT64_MAX; }

/* The round's block is about to be made. */
void gate_round_begins(struct keeper *k)
{
	if (k->gate.state != GATE_CLOSED && k->gate.state != GATE_VOID)
		return;
	k->gate.asked++;
	keeper_act(k, KEEPER_ACT_PROCESSES);
	k->action[k->n_actions - 1].arg = k->gate.asked;
}

static bool has(const uint32_t *mark, unsigned n, uint32_t m)
{
	for (unsigned i = 0; i < n; i++)
		if (mark[i] == m)
			return true;
	return false;
}

/* What was looked at since the gate is closed; all of it, or nothing is changed. */
void gate_processes(struct keeper *k, const struct keeper_processes *p)
{
	struct heartbeat *m = &k->mine;
	unsigned n = 0;

	if (p->number != k->gate.asked || !(p->known || MUTANT(SILENT_UNPROVEN)) || p->n > FORMAT_MAX_CLAIMS)
		return;
	if (k->gate.state == GATE_CLOSED) {
		k->gate.state = GATE_VOID;
		m->silent = true;
		memcpy(m->mark, p->mark, p->n * sizeof(m->mark[0]));
		m->n_marks = MUTANT(RUNNING_VOID) ? 0 : p->n;
		keeper_kick(k);
	} else if (k->gate.state == GATE_VOID) {
		for (unsigned i = 0; i < m->n_marks; i++)
			if (has(p->mark, p->n, m->mark[i]))
				m->mark[n++] = m->mark[i];
		if (n != m->n_marks)
			keeper_kick(k);
		m->n_marks = n;
	}
}

/* acked: the round's block is on a fence quorum. Two of them are in both buffers: of one that rots the other would go back to what was said before. */
void gate_round_over(struct keeper *k, bool acked)
{
	if (k->gate.state != GATE_CLEARING || !acked || k->block.epoch != k->epoch || k->block.silent)
		return;
	if (++k->gate.cleared < 2) {
		keeper_kick(k);
		return;
	}
	k->gate.state = GATE_OPEN;
	k->gate.term = k->block.seq; /* no process of this epoch uses it twice */
	keeper_act(k, KEEPER_ACT_TELL);
}

bool keeper_gate_open(const struct keeper *k, uint32_t epoch, int64_t now_ns)
{
	/* On its way to being armed: the watchdog must run before a VM does. */
	if (k->state == LEASE_DISARMED && k->want_armed)
		return false;
	/* Nobody takes over from a node whose blocks do not say yet that it has a watchdog. */
	if (k->state == LEASE_ARMED && !k->armed_published)
		return false;
	if (k->gate.state != GATE_OPEN && !MUTANT(SILENT_GATE_OPEN))
		return false;
	return (leased(k) || MUTANT(GATE_STAYS_OPEN)) && k->published && epoch == k->epoch && !k->slot_taken &&
	       (now_ns - k->last_renewal_ns < keeper_ms(k->opt.timing.soft_ms) || MUTANT(GATE_UNTIMED));
}

bool keeper_gate_admits(const struct keeper *k, uint32_t epoch, uint64_t term, int64_t now_ns)
{
	return keeper_gate_open(k, epoch, now_ns) && (term == k->gate.term || MUTANT(LATE_START_PASSES));
}
