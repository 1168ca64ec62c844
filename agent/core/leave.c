/* SPDX-License-Identifier: GPL-2.0-or-later */
/* This node's host goes down in order. The shell says so, and the host waits until agent_left():
 *
 *   GOING_DOWN --> the catalog is to say so, with what becomes of this node's VMs: asked for until it does --> each VM leaves as that says --> left
 *                    | nobody writes catalogs for LEAVE_ALONE_MS            | after half the time: who still waits for a migration is shut down
 *                    +--> alone: the VMs are shut down and their claims given up, as with failover
 *
 * How long the host waits is the shell's and systemd's; whatever stalls here, the keeper comes last and lets nothing run on. */
#include "agent/base/mutant.h"
#include "agent/core/agent_core.h"

#define SAY_AGAIN_MS 2000
#define LEAVE_ALONE_MS 30000

bool leave_said(const struct agent *a)
{
	uint32_t said = a->leaving[a->opt.self - 1];

	return a->epoch != 0 && said != 0 && a->epoch <= said;
}

void leave_event(struct agent *a, const struct agent_event *ev)
{
	struct leave *l = &a->leave;

	if (!ev->ok) {
		*l = (struct leave){ .known = true };
		for (unsigned i = 0; i < a->vm_end; i++)
			a->vm[i].leave_ns = 0;
		return;
	}
	if (!l->going)
		*l = (struct leave){ .since_ns = a->now_ns };
	l->known = l->going = true;
	l->reboot = ev->reboot;
	l->policy = ev->leave_policy;
	l->limit_ms = ev->limit_ms;
}

static void say(struct agent *a, enum agent_action_kind kind, enum leave_policy policy)
{
	struct agent_action *act;

	if (a->leave.said_ns != 0 && a->now_ns - a->leave.said_ns < agent_ms(SAY_AGAIN_MS))
		return;
	a->leave.said_ns = a->now_ns;
	act = agent_act(a, kind);
	act->leave_policy = policy;
	act->on = a->leave.reboot;
}

/* It goes as it runs, or was to. */
static bool is_to_migrate(const struct agent *a, const struct vm *v)
{
	return v->state == VM_RUNNING && v->def.move.back && v->def.move.node == a->opt.self;
}

/* Hands are off it, but its host ends: better its guest hears of that than not. Nobody waits for it longer than for a stop. */
static bool held_waits(struct agent *a, struct vm *v)
{
	if (v->state != VM_RUNNING)
		return false;
	if (v->leave_ns == 0 && v->migration.phase == MIGRATE_NONE) {
		v->leave_ns = a->now_ns;
		agent_note(a, NOTE_VM_STOPPING, v, 0);
		agent_act(a, AGENT_ACT_POWERDOWN)->vm = v;
	}
	return v->leave_ns == 0 || a->now_ns - v->leave_ns < agent_ms(v->def.stop_timeout_ms);
}

void leave_step(struct agent *a)
{
	struct leave *l = &a->leave;
	bool said = leave_said(a), late;
	unsigned left = 0, migrating = 0;

	if (!l->going) {
		if (l->known && said)
			say(a, AGENT_ACT_STAY, LEAVE_CONDITIONAL);
		return;
	}
	late = a->now_ns - l->since_ns > agent_ms(l->limit_ms / 2);
	l->alone = l->alone || (!said && a->now_ns - l->since_ns > agent_ms(LEAVE_ALONE_MS));
	for (unsigned i = 0; i < a->vm_end; i++) {
		struct vm *v = &a->vm[i];

		if (!v->used || v->state == VM_IDLE)
			continue;
		if (agent_held(a, v) && (v->state == VM_RUNNING || v->state == VM_RESTARTING))
			left += (said || l->alone) && held_waits(a, v);
		else if (!vmlife_waits_in_vain(a, v)) /* as may one of which only this host's end is the proof */
			left++;
		migrating += is_to_migrate(a, v);
	}
	if (!said || (late && migrating > 0))
		say(a, AGENT_ACT_LEAVE, late ? LEAVE_FAILOVER : l->policy);
	l->asked = said || l->alone;
	l->left = left;
}

bool agent_left(const struct agent *a) { return a->leave.going && a->leave.asked && a->leave.left == 0; }
