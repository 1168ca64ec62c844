/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The agent core's actions, carried out in order through a struct of operations: the daemon's are real, the simulator's are not. */
#pragma once

#include "agent/core/agent_core.h"

struct agent_ops {
	void (*write)(void *edge, unsigned volume, unsigned buffer, const struct claims *claims);
	void (*read)(void *edge, unsigned volume);
	void (*numbered)(void *edge, uint64_t seq); /* carried out before any write that follows; NULL: nothing to remember */
	void (*facts)(void *edge);
	void (*assign)(void *edge, uint32_t node, uint32_t epoch, const struct vm *v);
	void (*drain)(void *edge, const struct vm *v, bool full);
	void (*start)(void *edge, const struct vm *v);
	void (*adopt)(void *edge, const struct vm *v);
	void (*take_in)(void *edge, const struct vm *v, bool on, uint32_t node); /* NULL: nobody asks for it */
	void (*powerdown)(void *edge, const struct vm *v);
	void (*quit)(void *edge, const struct vm *v);
	void (*kill)(void *edge, const uint8_t uuid[16]);
	void (*reset)(void *edge, const struct vm *v);  /* this and the next two: NULL where nobody looks at guests' health */
	void (*cont)(void *edge, const struct vm *v);
	void (*probe)(void *edge, const struct vm *v, bool others);
	void (*guest_off)(void *edge, const struct vm *v);
	void (*forget)(void *edge, const struct vm *v);
	void (*move_over)(void *edge, const struct vm *v, bool done); /* NULL: nobody asks for moves */
	/* Live migration; NULL prepare: nobody is asked to take a VM as it runs, and the others are not called. */
	void (*prepare)(void *edge, uint32_t node, uint32_t epoch, const struct vm *v);
	void (*incoming)(void *edge, const struct vm *v);
	void (*offer)(void *edge, uint32_t node, const struct vm *v);
	void (*migrate)(void *edge, const struct vm *v);
	void (*migrate_switch)(void *edge, const struct vm *v);
	void (*migrate_cancel)(void *edge, const struct vm *v);
	void (*go_on)(void *edge, const struct vm *v);
	void (*tell)(void *edge, uint32_t node, const struct vm *v, uint64_t migration, enum migrate_news news);
	void (*reserve)(void *edge, const struct vm *v, enum reservation_op op, uint64_t number); /* NULL where nothing is reserved */
	void (*lead)(void *edge, bool on, uint64_t generation);
	void (*lead_checked)(void *edge, bool on);
	void (*leave)(void *edge, enum leave_policy policy, bool reboot); /* and stay: NULL where no host goes down */
	void (*stay)(void *edge);
	void (*note)(void *edge, enum agent_note note, const struct vm *v, uint32_t node);
};

/* One step and everything that follows. No operation may call back into the core before this returns. */
void agent_dispatch(struct agent *a, const struct agent_event *ev, int64_t now_ns, const struct agent_ops *ops, void *edge);
