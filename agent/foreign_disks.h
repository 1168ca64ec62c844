/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a QEMU that something else started is the one that a VM file describes, as far as QEMU's answers tell: pure, JSON in. */
#pragma once

#include <json-c/json.h>

#include "agent/vmfile.h"

/* Each writes one line into err if not: what differs, by name, and what to do. */

/* query-named-block-nodes: every image that it has open for writing is in Disk=, and every Disk= is open for writing. */
bool foreign_same_disks(json_object *nodes, const struct vmfile *file, char *err, size_t err_size);
/* qom-list of /machine/peripheral or /machine/peripheral-anon: no device whose disk another process writes to. */
bool foreign_writes_itself(json_object *devices, char *err, size_t err_size);
/* query-memory-size-summary, query-cpus-fast, query-uuid. */
bool foreign_same_memory(json_object *memory, const struct vmfile *file, char *err, size_t err_size);
bool foreign_same_cpus(json_object *cpus, const struct vmfile *file, char *err, size_t err_size);
bool foreign_same_uuid(json_object *uuid, const char *want, char *err, size_t err_size);
/* query-status, query-migrate, query-block-jobs: its guest runs, and it is not about to be another's. */
bool foreign_settled(const char *command, json_object *answer, char *err, size_t err_size);
/* query-cpus-fast: every vCPU's thread is one of the process: what answers on QMP is this very process. is_thread: the shell's look at it. */
bool foreign_own_threads(json_object *cpus, bool (*is_thread)(void *user, int64_t tid), void *user);
