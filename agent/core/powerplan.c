/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/mutant.h"
#include "agent/core/power.h"

static void begin_level(struct power_plan *p, unsigned first)
{
	p->first = p->device = p->end = first;
	while (p->end < p->n && p->level[p->end] == p->level[first])
		p->end++;
	p->commands = true;
	p->paused = false;
}

void power_plan_init(struct power_plan *p, enum power_want want, const unsigned *level, unsigned n)
{
	CHECK(n <= POWER_MAX_DEVICES);
	*p = (struct power_plan){ .want = want, .n = n };
	for (unsigned i = 0; i < n; i++)
		p->level[i] = level[i];
	begin_level(p, 0);
}

enum power_action power_plan_next(const struct power_plan *p, unsigned *ret_device)
{
	*ret_device = p->device;
	if (p->first >= p->n)
		return POWER_FAILED;
	if (p->device == p->end)
		return POWER_DONE;
	if (p->paused)
		return POWER_PAUSE;
	if (p->commands)
		return p->want == POWER_WANT_OFF ? POWER_OFF : POWER_ON;
	return POWER_STATUS;
}

void power_plan_answer(struct power_plan *p, enum power_answer answer, bool time_left)
{
	if (p->first >= p->n || p->device == p->end)
		return;
	if (p->paused) {
		p->paused = false;
		return;
	}
	if (p->commands) {
		/* However it went: what counts is what the devices say of themselves, and one that has failed may have done it. */
		if (++p->device == p->end && !(MUTANT(EVIDENCE_WITHOUT_STATUS) && answer == POWER_ANSWER_OK)) {
			p->commands = false;
			p->device = p->first;
		}
		return;
	}
	if (answer == (p->want == POWER_WANT_OFF ? POWER_ANSWER_IS_OFF : POWER_ANSWER_IS_ON))
		p->device++;
	else if (answer != POWER_ANSWER_FAILED && time_left)
		p->paused = true; /* some take their time */
	else
		begin_level(p, p->end);
}
