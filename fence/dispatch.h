/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper core's actions, carried out in order through a struct of operations: the daemon's are real, the simulator's are not. */
#pragma once

#include "fence/keeper_core.h"

struct keeper_ops {
	void (*pet)(void *edge);
	void (*write)(void *edge, unsigned volume, unsigned buffer, const struct heartbeat *block); /* answers WRITE_DONE, WRITE_SETTLED */
	void (*read)(void *edge, unsigned volume);        /* answers READ_DONE, READ_SETTLED */
	void (*bell)(void *edge);
	void (*hold)(void *edge, const struct hold_msg *m); /* to all keepers of the ring; may be lost */
	void (*kill)(void *edge);                         /* answers SILENT */
	void (*watchdog)(void *edge, bool start);         /* answers WATCHDOG */
	void (*processes)(void *edge, uint32_t number);
	void (*tell)(void *edge, const struct keeper *k);
	void (*save)(void *edge, const struct keeper *k);
	void (*exit)(void *edge);
	void (*note)(void *edge, enum keeper_note note, uint32_t node, uint32_t arg);
};

/* One step and everything that follows from it. No operation may call back into the core before this returns: answers are later events. */
void keeper_dispatch(struct keeper *k, const struct keeper_event *ev, int64_t now_ns, const struct keeper_ops *ops, void *edge);
