/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real storage servers for tests, in namespaces of the test's own so that nothing of them touches or outlives the host's. Needs root. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#define SERVERS_ISCSI_PORT 13260
#define SERVERS_OTHER_ISCSI_PORT 13261
#define SERVERS_NFS_PORT 12049
#define SERVERS_MOUNT_PORT 12050

/* Runs body(dir) in new network, mount and process namespaces with an empty directory on a disk, removed after; every process started
 * in it is dead when this returns. Returns what body returned, or 1. */
int servers_sandbox(int (*body)(const char *dir));

int servers_run(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* a shell command; its exit status */
void servers_signal(pid_t pid, int sig);                                      /* SIGKILL waits for the end, SIGSTOP for the stop */
void servers_file(const char *path, uint64_t size, mode_t mode, const char *text); /* text NULL: zeroes up to size */

/* dir/small: a file system with this much room, for files that claim to be of 16 MiB. */
#define SERVERS_SMALL_ROOM "1m"

/* Each returns once the server answers; -1 if it does not within 20 s. */
pid_t servers_start_tgtd(const char *dir);    /* LUN 1 of iqn.2026-01.test:plain, :chap (user "guest", password "correct-horse"; proves itself
					       * as "disk", "battery-staple"), :oneway (the same user, proves nothing), :fixed (read-only); backing
					       * files dir/plain, ...; :full is dir/small/lun; :native has blocks of 4096 bytes, :odd of 1024. At 127.0.0.1 and [::1] */
pid_t servers_start_other_tgtd(const char *dir); /* its LUN 1 of iqn.2026-01.test:plain is another disk: dir/other */
pid_t servers_start_ganesha(const char *dir); /* version 3; dir/export for writing, dir/fixed-export read-only, dir/squashed-export with root
					       * squash, dir/small; each has the file sub/volume */
pid_t servers_start_rpcbind(void);
