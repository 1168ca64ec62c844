/* SPDX-License-Identifier: GPL-2.0-or-later */
/* volume test: what the parts tell each other. ctl_voltest.c has the command and its output, ctl_voltest_run.c the measurement; storage/probe.h asks
 * the target what it can do; voltest.h judges. */
#pragma once

#include "agent/voltest.h"
#include "storage/format.h"
#include "storage/probe.h"

#define VOLTEST_NOTES_MAX 16
#define VOLTEST_NOTE_LEN 256

enum voltest_content {
	VOLTEST_CONTENT_UNKNOWN, /* it could not be read */
	VOLTEST_CONTENT_BLANK,
	VOLTEST_CONTENT_CLUSTER, /* valid superblock: a cluster uses it, this one's or another's */
	VOLTEST_CONTENT_FOREIGN, /* anything else, damaged volumes of ours included */
};

struct voltest_notes {
	char text[VOLTEST_NOTES_MAX][VOLTEST_NOTE_LEN];
	unsigned n;
};

struct voltest_samples {
	uint32_t *us;
	size_t n, room;
	uint32_t errors, timeouts;
};

struct voltest_run {
	/* given by the caller */
	const char *url, *secret_file; /* secret_file: NULL for none */
	uint32_t seconds, op_ms;       /* op_ms: deadline of one operation */
	uint32_t drain_ms, node_limit; /* of a volume that has no superblock */
	bool force_write;              /* also on foreign content; what was in the blocks used is put back */

	/* what was found */
	enum voltest_content content;
	enum format_status foreign_why; /* with FOREIGN */
	struct superblock sb;           /* with CLUSTER */
	uint64_t size;
	bool opened, wrote, interrupted;
	uint32_t rounds, elapsed_ms, sessions_lost, table_len;
	struct voltest_samples write, read;
	struct voltest_mixes mixes;
	struct probe_result probe;
	struct voltest_notes problems, warnings; /* a problem makes a volume unfit for any profile */
};

/* Measures. What goes wrong is in the problems; says nothing itself. Ends early, and cleans up, on SIGINT, SIGTERM and SIGHUP. */
void voltest_run(struct voltest_run *x);
void voltest_note(struct voltest_notes *notes, const char *fmt, ...) _printf_(2, 3); /* the same text only once; none above VOLTEST_NOTES_MAX */
