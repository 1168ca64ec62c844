/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One question to the agent: a line of JSON there, a line of JSON back, over a UNIX stream socket. */
#pragma once

#include <json-c/json.h>

#include "agent/base/util.h"

#define CTL_CLIENT_SOCKET "/run/kvm-ha/agent.sock"
#define CTL_CLIENT_MAX_LINE (1U << 20)
#define CTL_CLIENT_MAX_DEPTH 64
#define CTL_CLIENT_TIMEOUT_MS 30000

/* Sends request (borrowed) and waits for the answer, timeout_ms in all. 0 and *ret, an object to put, whatever it says; or a negative errno with
 * err = what an operator should know and do: -ECONNREFUSED the agent does not run, -ETIMEDOUT it is silent, -EACCES, -EPROTO, ... */
int ctl_client_ask(const char *path, json_object *request, int timeout_ms, json_object **ret, char *err, size_t err_size);
