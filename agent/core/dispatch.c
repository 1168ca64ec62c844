/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/core/dispatch.h"

static void carry_out(struct agent *a, const struct agent_action *act, const struct agent_ops *ops, void *edge)
{
	switch (act->kind) {
	case AGENT_ACT_WRITE:
		ops->write(edge, act->volume, act->buffer, &a->claimer.mine);
		break;
	case AGENT_ACT_READ:
		ops->read(edge, act->volume);
		break;
	case AGENT_ACT_NUMBERED:
		if (ops->numbered)
			ops->numbered(edge, a->claimer.mine.seq);
		break;
	case AGENT_ACT_FACTS:
		ops->facts(edge);
		break;
	case AGENT_ACT_ASSIGN:
		ops->assign(edge, act->node, act->epoch, act->vm);
		break;
	case AGENT_ACT_DRAIN:
		ops->drain(edge, act->vm, act->on);
		break;
	case AGENT_ACT_START:
		ops->start(edge, act->vm);
		break;
	case AGENT_ACT_ADOPT:
		ops->adopt(edge, act->vm);
		break;
	case AGENT_ACT_TAKE_IN:
		if (ops->take_in)
			ops->take_in(edge, act->vm, act->on, act->node);
		break;
	case AGENT_ACT_POWERDOWN:
		ops->powerdown(edge, act->vm);
		break;
	case AGENT_ACT_QUIT:
		ops->quit(edge, act->vm);
		break;
	case AGENT_ACT_KILL:
		ops->kill(edge, act->vm->def.uuid);
		break;
	case AGENT_ACT_RESET:
		if (ops->reset)
			ops->reset(edge, act->vm);
		break;
	case AGENT_ACT_CONT:
		if (ops->cont)
			ops->cont(edge, act->vm);
		break;
	case AGENT_ACT_PROBE:
		if (ops->probe)
			ops->probe(edge, act->vm, act->on);
		break;
	case AGENT_ACT_KILL_UNKNOWN:
		ops->kill(edge, act->uuid);
		break;
	case AGENT_ACT_GUEST_OFF:
		ops->guest_off(edge, act->vm);
		break;
	case AGENT_ACT_FORGET:
		ops->forget(edge, act->vm);
		break;
	case AGENT_ACT_MOVE_OVER:
		if (ops->move_over)
			ops->move_over(edge, act->vm, act->on);
		break;
	case AGENT_ACT_PREPARE:
		if (ops->prepare)
			ops->prepare(edge, act->node, act->epoch, act->vm);
		break;
	case AGENT_ACT_INCOMING:
		ops->incoming(edge, act->vm);
		break;
	case AGENT_ACT_OFFER:
		ops->offer(edge, act->node, act->vm);
		break;
	case AGENT_ACT_MIGRATE:
		ops->migrate(edge, act->vm);
		break;
	case AGENT_ACT_SWITCH:
		ops->migrate_switch(edge, act->vm);
		break;
	case AGENT_ACT_CANCEL:
		ops->migrate_cancel(edge, act->vm);
		break;
	case AGENT_ACT_GO_ON:
		ops->go_on(edge, act->vm);
		break;
	case AGENT_ACT_TELL:
		ops->tell(edge, act->node, act->vm, act->migration, act->news);
		break;
	case AGENT_ACT_RESERVE:
		if (ops->reserve)
			ops->reserve(edge, act->vm, act->reserve, act->number);
		break;
	case AGENT_ACT_LEAD:
		ops->lead(edge, act->on, a->lead_generation);
		break;
	case AGENT_ACT_LEAD_CHECKED:
		ops->lead_checked(edge, act->on);
		break;
	case AGENT_ACT_LEAVE:
		if (ops->leave)
			ops->leave(edge, act->leave_policy, act->on);
		break;
	case AGENT_ACT_STAY:
		if (ops->stay)
			ops->stay(edge);
		break;
	case AGENT_ACT_NOTE:
		ops->note(edge, act->note, act->vm, act->node);
		break;
	}
}

void agent_dispatch(struct agent *a, const struct agent_event *ev, int64_t now_ns, const struct agent_ops *ops, void *edge)
{
	agent_step(a, ev, now_ns);
	for (unsigned i = 0; i < a->n_actions; i++)
		carry_out(a, &a->action[i], ops, edge);
}
