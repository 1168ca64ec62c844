/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Alert hooks: the executables of hooks.d, run for every event in lexical order by one worker thread, one at a time.
 *
 * The agent's loop only enqueues: no file, no process and no waiting on its side. A hook that hangs is ended at its time limit with its whole process
 * group; one that SIGKILL does not end at once is left, and not run again while it is there; a burst that hooks cannot follow loses its oldest events. Safety never depends on a hook.
 */
#pragma once

#include "agent/base/conf.h"
#include "agent/base/util.h"

#define HOOKS_QUEUE 64
#define HOOKS_REASON_LEN 256

struct hooks;

enum hook_event {
	HOOK_NODE_LOST, HOOK_NODE_FENCED, HOOK_NODE_BACK, HOOK_VM_FAILED, HOOK_VM_RECOVERED, HOOK_VM_STARTED, HOOK_VM_STOPPED,
	HOOK_VM_UNHEALTHY, HOOK_VM_HEALTHY, HOOK_VM_EVENT, HOOK_VM_STUCK, HOOK_VM_NO_PLACE, HOOK_VM_ERROR, HOOK_VM_SLOW_MIGRATION,
	HOOK_AGENT_SILENT, HOOK_AGENT_BACK,
	HOOK_MAINTENANCE_ON, HOOK_MAINTENANCE_OFF, HOOK_VOLUME_SLOW, HOOK_VOLUME_FAILING, HOOK_VOLUME_READ_ONLY, HOOK_VOLUME_STALE, HOOK_VOLUME_FOREIGN, HOOK_VOLUME_DEGRADED,
	HOOK_VOLUME_GOOD, HOOK_HOLD_BEGIN, HOOK_HOLD_END, HOOK_POWER_OFF, HOOK_POWER_FAILED,
	HOOK_BRAKE_ON, HOOK_BRAKE_OFF, HOOK_QUARANTINE_ON, HOOK_QUARANTINE_OFF, HOOK_EVENT_COUNT,
};
const char *hook_event_name(enum hook_event e); /* KVM_HA_EVENT: "node-lost", ... */

/* All copied; NULL where it does not apply: the variable is then empty. */
struct hook_facts {
	enum hook_event event;
	const char *node;    /* whom it is about */
	const char *vm;      /* name */
	const char *vm_uuid;
	const char *volume;  /* URL */
	const char *reason;
};

/* Takes from conf what it needs. 0 or a negative errno. */
int hooks_new(const struct conf *conf, struct hooks **ret);
/* Never blocks. */
void hooks_run(struct hooks *h, const struct hook_facts *facts);
/* Forgets what is queued and ends a running hook; waits at most 2 s. A worker that hangs in the file system is left to itself. */
void hooks_free(struct hooks *h);
