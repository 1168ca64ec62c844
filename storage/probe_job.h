/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of probe.h share. */
#pragma once

#include "storage/backend.h"
#include "storage/probe.h"

struct probe_job {
	const struct volume_address *address;
	const struct volume_secrets *secrets;
	const char *initiator;
	const void *scratch; /* NULL or one block, at offset */
	uint64_t offset;
	int64_t deadline_ns; /* CLOCK_MONOTONIC */
	struct probe_result *ret;
};

int64_t probe_left_ms(const struct probe_job *job); /* 0 once the deadline has passed */
void probe_fail(const struct probe_job *job, const char *fmt, ...) _printf_(2, 3); /* the first one stays */

void probe_iscsi(const struct probe_job *job);
void probe_nfs(const struct probe_job *job);
void probe_path(const struct probe_job *job);
