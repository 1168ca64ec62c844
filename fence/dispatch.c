/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/dispatch.h"

void keeper_dispatch(struct keeper *k, const struct keeper_event *ev, int64_t now_ns, const struct keeper_ops *ops, void *edge)
{
	keeper_step(k, ev, now_ns);
	for (unsigned i = 0; i < k->n_actions; i++) {
		const struct keeper_action *a = &k->action[i];

		switch (a->kind) {
		case KEEPER_ACT_PET:
			ops->pet(edge);
			break;
		case KEEPER_ACT_WRITE:
			ops->write(edge, a->volume, a->buffer, &k->block);
			break;
		case KEEPER_ACT_READ:
			ops->read(edge, a->volume);
			break;
		case KEEPER_ACT_BELL:
			ops->bell(edge);
			break;
		case KEEPER_ACT_HOLD:
			ops->hold(edge, &a->hold);
			break;
		case KEEPER_ACT_KILL:
			ops->kill(edge);
			break;
		case KEEPER_ACT_WD_START:
		case KEEPER_ACT_WD_STOP:
			ops->watchdog(edge, a->kind == KEEPER_ACT_WD_START);
			break;
		case KEEPER_ACT_PROCESSES:
			ops->processes(edge, a->arg);
			break;
		case KEEPER_ACT_TELL:
			ops->tell(edge, k);
			break;
		case KEEPER_ACT_SAVE:
			ops->save(edge, k);
			break;
		case KEEPER_ACT_EXIT:
			ops->exit(edge);
			break;
		case KEEPER_ACT_NOTE:
			ops->note(edge, a->note, a->node, a->arg);
			break;
		}
	}
}
