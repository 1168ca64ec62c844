/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looking after one running QEMU: asks it for its state, and the agent in its guest whether that lives and its service works. What it hears goes to the
 * core as facts (AGENT_EV_HEALTH); what is to be done about it the core decides. */
#pragma once

#include "agent/agentd.h"
#include "qmp/meaning.h"

struct health;

/* CHECKs that there is memory. Freed with its run. */
struct health *health_new(struct agentd *d, const uint8_t uuid[16]);
void health_free(struct health *h); /* NULL is ignored */

/* QMP is there, with this state, or gone (NULL). conn stays the caller's, and is not used after the next call. */
void health_qmp(struct health *h, struct qmp_conn *conn, enum qmp_run_state state);
void health_qmp_event(struct health *h, const struct qmp_event *ev);

enum qmp_run_state health_run_state(const struct health *h);
