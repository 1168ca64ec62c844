/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The certificates that live migrations go under, as QEMU's tls-creds-x509 looks for them in a directory: ca-cert.pem, server-cert.pem and server-key.pem for
 * what comes to this node, client-cert.pem and client-key.pem for what leaves it. Checked with GnuTLS, as QEMU does, before anything depends on them.
 * Reads files: not for a main loop that runs. */
#pragma once

#include <time.h>

#include "agent/base/util.h"

/* node: the name that the others expect in server-cert.pem. 0, and *ret_until is when the first of them expires; or a negative errno with "FILE: reason;
 * remedy" in err and *ret_until untouched. */
int tlscert_check(const char *dir, const char *node, time_t now, time_t *ret_until, char *err, size_t err_size);
