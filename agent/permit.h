/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One start of a VM, as its launcher asks for it: over its standard input, which systemd got from this process for this start alone. So a unit that is started by hand, or by a
 * job that systemd comes to when nobody waits for it any more, is refused (unix(7), SCM_RIGHTS). What the launcher sends and gets is in fence/launch.h. */
#pragma once

#include <qb/qbloop.h>
#include <sys/types.h>

#include "agent/base/util.h"

struct permit;

/* A launcher asks, once. pidfd: its own, for the callee to close; the process is there and waits for the answer. */
typedef bool (*permit_fn)(void *user, pid_t pid, int pidfd);

/* ret_in: what systemd is to give to the launcher, the caller's to close. 0, or negative errno. */
int permit_new(qb_loop_t *loop, permit_fn fn, void *user, struct permit **ret, int *ret_in);
void permit_free(struct permit *p); /* from now on whoever asks is refused; NULL is ignored */
