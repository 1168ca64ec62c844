/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The only clock decisions are made by: never ahead of CLOCK_MONOTONIC or CLOCK_MONOTONIC_RAW (DESIGN I5: a waiter counts the lesser of both),
 * in nanoseconds since the first call. Not for people: those want CLOCK_REALTIME. */
#pragma once

#include "agent/base/util.h"

int64_t clock_now_ns(void);

/* CLOCK_BOOTTIME: the same for all processes of this host, and it goes on while the host sleeps. For what one process tells another; nothing is waited for by it. */
int64_t clock_host_ns(void);

/* Nanoseconds the host was suspended since the first call: growth of CLOCK_BOOTTIME over CLOCK_MONOTONIC. */
int64_t clock_suspended_ns(void);
