/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Orphaned TCP connections: their process is gone, and the kernel goes on sending what it had left, for minutes if it must. Until that is over
 * nothing that a dead QEMU wrote to iSCSI or NFS can be called silent. (proc(5), /proc/net/tcp: inode 0, tx_queue) */
#pragma once

#include "agent/base/util.h"

/* No orphan of this host has data left to send, to whomever: which of them was a disk's cannot be told any more. */
bool orphans_quiet(void);

/* A line of /proc/net/tcp or tcp6. */
bool orphans_line_sends(const char *line);
