/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process that somebody else started, told from another one that has its number later: by number and start time together. (proc(5)) */
#pragma once

#include <sys/types.h>

#include "agent/base/util.h"

/* Start time, in the kernel's ticks since boot. 0: there is no such process, or it is a zombie. */
uint64_t process_start(pid_t pid);
/* A pidfd of just that one, for the caller to close; -ESRCH: it is gone; another negative errno: that cannot be told. */
int process_open(pid_t pid, uint64_t start);
bool process_gone(int pidfd);
int process_kill(int pidfd); /* SIGKILL; 0 or negative errno */
/* Whether it has a child; -1: that cannot be told. */
int process_has_child(pid_t pid);
/* Whether both live in the same network namespace. */
bool process_same_net(pid_t a, pid_t b);
/* Whether it is in a control group of that name, or (below) in one below such a one. */
bool process_in_cgroup(pid_t pid, const char *name, bool below);
