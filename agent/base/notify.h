/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the service tells systemd, without ever waiting for it: sd_notify(3) blocks as soon as a PID 1 that stands still has a few hundred messages to read. */
#pragma once

#include <stdbool.h>

/* Lines as of sd_notify(3), now or never. fd: goes with them, -1: none. false: systemd does not take them at the moment. */
bool notify_now(const char *lines, int fd);
/* Until they are sent: in order, and before whatever is said later. */
void notify_send(const char *lines);
