/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a volume suffers from, and since when, for operators: nothing is decided by it. Pure.
 *
 *   foreign    it is another cluster's, wiped, or another host writes into our slot
 *   stale      it was rolled back, or has missed a change of the volume set
 *   read-only  writes are refused
 *   failing    nothing is read or nothing is written, for longer than failing_ms
 *   slow       half of the last operations took longer than slow_ms
 *   degraded   one of its paths is not in use, for longer than failing_ms: it goes by the others
 *
 * The first of these that is so counts. The first three are told at once, as what they rest on is an answer and no silence. */
#pragma once

#include "agent/base/util.h"

enum volume_trouble { VOLUME_WELL, VOLUME_SLOW, VOLUME_FAILING, VOLUME_READ_ONLY, VOLUME_STALE, VOLUME_FOREIGN, VOLUME_DEGRADED, VOLUME_TROUBLE_COUNT };
const char *volume_trouble_name(enum volume_trouble t); /* "slow", ...; "none" */

/* How an operation ended. */
enum trouble_result { TROUBLE_RESULT_OK, TROUBLE_RESULT_FAILED, TROUBLE_RESULT_READ_ONLY };

struct trouble {
	enum volume_trouble now;
	int64_t since_ns; /* when it began, or the last one ended */
	/* inside; 0: it is not so */
	enum volume_trouble content;
	int64_t content_ns, read_only_ns, away_ns, failing_ns[2], slow_ns, path_ns; /* failing: reads, writes */
	uint32_t slow;    /* bit: an operation that was, the last one is bit 0 */
	uint32_t n;       /* operations seen, up to 32 */
};

void trouble_operation(struct trouble *t, bool write, enum trouble_result r, uint64_t took_ms, uint32_t slow_ms, int64_t now_ns);
/* away: no session, or its superblock cannot be read. content: what is known of what it holds: VOLUME_WELL, _STALE or _FOREIGN. */
void trouble_volume(struct trouble *t, bool away, enum volume_trouble content, int64_t now_ns);
void trouble_path(struct trouble *t, bool lost, int64_t now_ns);
/* Says whether now has changed. */
bool trouble_judge(struct trouble *t, uint32_t failing_ms, int64_t now_ns);
