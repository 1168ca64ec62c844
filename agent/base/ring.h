/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A closed process group on the corosync ring (cpg_overview(8)), and the ring's own membership.
 *
 * corosync may be slow, stopped or gone and its library calls block then; so a thread of its own talks to it, and the loop only sees messages
 * through a socket pair. Sending never blocks; what cannot be sent is dropped: callers repeat or do without. The thread reconnects for ever.
 */
#pragma once

#include <qb/qbloop.h>

#include "agent/base/util.h"

#define RING_MAX_MESSAGE (256U * 1024)

struct ring;

struct ring_callbacks {
	/* Membership of the ring (not of the group): bit (nodeid - 1). up false: no connection to corosync. encrypted: totem.crypto_cipher is set. */
	void (*view)(void *user, bool up, uint64_t view, bool encrypted);
	/* A message of the group, our own included, in agreed order. data is valid during the call. */
	void (*message)(void *user, uint32_t node, const void *data, size_t len);
};

int ring_new(qb_loop_t *loop, const char *group, const struct ring_callbacks *cb, void *user, struct ring **ret);
void ring_free(struct ring *r);

/* This node's address in the ring, as corosync's configuration has it (nodelist, ring0_addr); "" while it is not known. */
const char *ring_address(const struct ring *r);

/* 0, -EAGAIN (queue full), -ENOTCONN or -EMSGSIZE. Delivery to all is not implied. */
int ring_send(struct ring *r, const void *data, size_t len);
