/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `ha-ctl volume test` makes of its measurements: percentiles, which timings a volume is fit for, and what a test block that was read back
 * tells. Pure. Latencies in microseconds. */
#pragma once

#include "agent/base/timing.h"
#include "agent/base/util.h"

/* A test of a minute sees only some of what a volume will do in years: T_io must be this many times what it saw. */
#define VOLTEST_WORST_FACTOR 2
#define VOLTEST_P99_FACTOR 4
#define VOLTEST_ROUNDS_MIN 20 /* fewer say nothing */
#define VOLTEST_WHY_LEN 320

struct voltest_summary {
	size_t n; /* operations that succeeded: the latencies are of those */
	uint32_t median_us, p99_us, worst_us;
	uint32_t errors, timeouts;
};

struct voltest_verdict {
	bool fit;
	uint32_t needed_io_ms;     /* the smallest IO= that bears this volume with the margins; 0 if that is not known */
	char why[VOLTEST_WHY_LEN]; /* "" if fit */
};

/* The nearest rank: the smallest value that so many percent of all do not exceed. sorted has n > 0 values, 0 < percent <= 100. */
uint32_t voltest_percentile(const uint32_t *sorted_us, size_t n, unsigned percent);
/* Sorts us. errors and timeouts are the caller's. */
void voltest_summarise(uint32_t *us, size_t n, struct voltest_summary *ret);
/* Would a keeper with timing t, named name, live on this volume? */
void voltest_judge(const struct timing *t, const char *name, const struct voltest_summary *write, const struct voltest_summary *read,
		   struct voltest_verdict *ret);

/* Reads beside writes of their block that got parts of two; of several reads beside one write, the first that did. Where the bytes go through a
 * server's page cache that happens on good storage, too: the copy out of memory meets the copy into it (seen with tgt: once in 50,000 reads, even
 * within a sector; with NFS-Ganesha on a busy machine: once in 10,000), and what is read then fails its checksum once and is whole the next time. Fatal is a mix that lasts after the write was acknowledged, and one within the first 512 bytes that
 * is no rare accident. */
#define VOLTEST_MIXED_FIRST_PERMILLE 1

enum voltest_atomicity { VOLTEST_UNTESTED, VOLTEST_ATOMIC, VOLTEST_NOT_ATOMIC, VOLTEST_FATAL };

struct voltest_mixes {
	uint32_t writes, reads;
	uint32_t mixed, mixed_first; /* reads; mixed_first: within the first 512 bytes, counted in mixed, too */
	uint32_t lasting;            /* still mixed when nobody wrote any more */
};
enum voltest_atomicity voltest_judge_mixes(const struct voltest_mixes *m);

/* A test block says in every 32 bytes of it whose it is, which write made it and where it belongs. */
#define VOLTEST_UNIT 32U
#define VOLTEST_SECTOR 512U /* what the format's vital fields lie in */

enum voltest_block {
	VOLTEST_BLANK,       /* all zero */
	VOLTEST_WHOLE,       /* of one write of ours */
	VOLTEST_MIXED,       /* of several writes of ours, the first 512 bytes of one */
	VOLTEST_MIXED_FIRST, /* the first 512 bytes, too */
	VOLTEST_OTHER,       /* of another test, at its own place */
	VOLTEST_MISPLACED,   /* some test's, meant for another place */
	VOLTEST_UNKNOWN,     /* no test's */
};

void voltest_block_fill(void *block, size_t len, uint64_t tag, uint64_t seq, uint64_t offset);
/* ret_seq, only with VOLTEST_WHOLE: which write. */
enum voltest_block voltest_block_check(const void *block, size_t len, uint64_t tag, uint64_t offset, uint64_t *ret_seq);
