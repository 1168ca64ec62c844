/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/mutant.h"
#include "agent/core/power.h"

#define RANK_MS 1000
#define AGAIN_MS 2000 /* after one that confirmed nothing; twice as long each time, */
#define HOUR_MS (3600 * MS_PER_S)
#define AGAIN_TIMES 4 /* so often */
#define ON_DELAY_MS 10000 /* by then no other node's devices are still being told to switch it off */
#define WISH_AGAIN_MS 10000
#define WISH_AGAIN_TIMES 5
#define EDIT_AGAIN_MS 10000 /* an edit of the catalog may fail, or its leader */

bool power_table_counts(const struct keeper_msg *m, int64_t host_ns)
{
	return host_ns - m->table.at_ns <= POWER_TABLE_MS * NS_PER_MS || MUTANT(OLD_TABLE_COUNTS);
}

static void begin(struct power_job *j, const struct keeper_table_node *t, unsigned rank, int64_t now_ns)
{
	j->state = POWER_WAITING;
	j->epoch = t->asked_epoch;
	j->seq = t->asked_seq;
	j->start_ns = now_ns + (int64_t)rank * RANK_MS * NS_PER_MS;
	j->tries = 0;
}

enum power_step power_job_step(struct power_job *j, const struct keeper_table_node *t, unsigned rank, int64_t now_ns)
{
	bool ran = j->state == POWER_RUNNING;

	if (ran && MUTANT(POWER_NOT_CALLED_OFF))
		return POWER_STEP_NONE;
	if (t->asked_epoch == 0) {
		j->state = POWER_IDLE;
		return ran ? POWER_STEP_STOP : POWER_STEP_NONE;
	}
	if (j->state == POWER_IDLE || (j->state == POWER_TOLD && now_ns >= j->start_ns) || t->asked_epoch != j->epoch || t->asked_seq != j->seq) {
		/* The same node, though it has moved meanwhile: what a device was told, or has answered, before that is nothing any more. */
		begin(j, t, rank, now_ns);
		if (ran)
			return POWER_STEP_STOP;
	}
	if (j->state != POWER_WAITING || now_ns < j->start_ns)
		return POWER_STEP_NONE;
	j->state = POWER_RUNNING;
	j->tries++;
	return POWER_STEP_START;
}

bool power_job_ended(struct power_job *j, bool confirmed, int64_t now_ns, struct keeper_evidence *ret)
{
	if (j->state != POWER_RUNNING)
		return false;
	if (!confirmed) {
		j->state = POWER_WAITING;
		j->start_ns = now_ns + (AGAIN_MS << MIN(j->tries - 1, AGAIN_TIMES)) * NS_PER_MS;
		return false;
	}
	j->state = POWER_TOLD;
	j->start_ns = now_ns + AGAIN_MS * NS_PER_MS; /* should the keeper still ask then, it has not heard it */
	*ret = (struct keeper_evidence){ .kind = EVIDENCE_POWER, .epoch = j->epoch, .seq = j->seq };
	return true;
}

void power_wish_on_again(struct power_wish *w, uint32_t epoch)
{
	if (!w->set || w->want == POWER_WANT_ON)
		*w = (struct power_wish){ .set = true, .want = POWER_WANT_ON, .epoch = epoch };
}

struct power_wish power_wish_now(uint32_t epoch, int64_t now_ns)
{
	return (struct power_wish){ .set = true, .want = POWER_WANT_ON, .epoch = epoch, .at_ns = now_ns + WISH_AGAIN_MS * NS_PER_MS, .tries = 1 };
}

bool power_wish_step(struct power_wish *w, const struct keeper_table_node *t, bool may_be_on, bool in_quarantine, int64_t now_ns)
{
	bool on = w->want == POWER_WANT_ON;

	w->quarantined = w->quarantined || in_quarantine;
	if (w->set && (on ? t->epoch != w->epoch || t->fresh : (w->quarantined || w->tries > 0) && !in_quarantine))
		w->set = false;
	if (!w->set || t->over < w->epoch || (on && !may_be_on))
		return false;
	if (w->at_ns == 0)
		w->at_ns = now_ns + (on ? ON_DELAY_MS * NS_PER_MS : 0);
	if (now_ns < w->at_ns)
		return false;
	w->at_ns = now_ns + ((int64_t)WISH_AGAIN_MS << MIN(w->tries, WISH_AGAIN_TIMES)) * NS_PER_MS;
	w->tries++;
	return true;
}

void power_fences_add(struct power_fences *f, unsigned limit, int64_t now_ns)
{
	unsigned n = f->n++;

	f->at_ns[n % POWER_FENCES_KEPT] = now_ns;
	if (limit != 0 && limit <= POWER_FENCES_KEPT && n + 1 >= limit && now_ns - f->at_ns[(n + 1 - limit) % POWER_FENCES_KEPT] <= HOUR_MS * NS_PER_MS)
		f->due = true;
}

bool power_fences_step(struct power_fences *f, bool leads, bool quarantined, int64_t now_ns)
{
	/* Once an operator lets it out it begins anew, whoever leads by then. */
	if (quarantined) {
		f->n = 0;
		f->due = false;
		f->asked_ns = 0;
	}
	if (f->due && now_ns - f->at_ns[(f->n - 1) % POWER_FENCES_KEPT] > HOUR_MS * NS_PER_MS)
		f->due = false; /* nobody could edit the catalog for so long */
	if (!f->due || !leads || (f->asked_ns != 0 && now_ns - f->asked_ns < EDIT_AGAIN_MS * NS_PER_MS))
		return false;
	f->asked_ns = now_ns;
	return true;
}
