/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who wins when the ring has fallen apart. Pure: every node computes the same from the views published in the heartbeat table.
 *
 * A group is the set of counted nodes that publish the same ring view and are in it themselves. The heaviest group wins: most nodes, then the
 * lowest id. Two nodes, and the last one standing, are no special case. Nodes whose ring is lost or still joining are in no group.
 */
#pragma once

#include "agent/base/util.h"

#ifndef ARBITRATE_MAX
#define ARBITRATE_MAX 64
#endif

struct arbitrate_node {
	bool counts;   /* alive for certain: itself, or its heartbeat advanced since one's own view changed */
	bool ring_ok;
	uint64_t view; /* bit (id - 1) */
};

struct arbitration {
	bool any_group;              /* false: no counted node has a ring; then nobody is fenced for the ring */
	uint64_t winner;             /* members of the winning group */
	uint64_t group[ARBITRATE_MAX]; /* by id - 1: members of that node's group, 0 if it has none */
};

/* nodes: of ids 1 to n. */
void arbitrate(const struct arbitrate_node *nodes, unsigned n, struct arbitration *ret);

/* Does group a rank above group b? An empty group ranks below all others. */
bool arbitrate_higher(uint64_t a, uint64_t b);
