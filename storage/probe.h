/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks what is behind a volume's URL what it can do. For `ha-ctl volume test` only: these calls wait, each for deadline_ms at most. */
#pragma once

#include "agent/base/util.h"

#define PROBE_TEXT_LEN 48
#define PROBE_ERROR_LEN 160

enum probe_answer { PROBE_UNKNOWN, PROBE_NO, PROBE_YES };

enum probe_kind { PROBE_NONE, PROBE_ISCSI, PROBE_NFS, PROBE_PATH };

/* LUNs: SPC-4, SBC-3, RFC 7143. */
struct probe_iscsi {
	char vendor[PROBE_TEXT_LEN], product[PROBE_TEXT_LEN], revision[PROBE_TEXT_LEN];
	uint32_t block_size, physical_block_size;
	enum probe_answer thin, write_protected;
	enum probe_answer fua;                          /* DPOFUA: a write may demand to be stable */
	enum probe_answer write_cache;                  /* mode page 8, WCE */
	enum probe_answer report_opcodes;               /* REPORT SUPPORTED OPERATION CODES is answered */
	enum probe_answer compare_and_write;
	enum probe_answer pr, pr_wero, pr_persistent;   /* PERSISTENT RESERVE IN; Write Exclusive - Registrants Only; over power loss (PTPL_C) */
	enum probe_answer pr_preempt, pr_preempt_abort; /* as REPORT SUPPORTED OPERATION CODES tells */
	enum probe_answer abort_task;                   /* task management */
};

/* RFC 1813 */
struct probe_nfs {
	uint32_t version, read_max, write_max;
	enum probe_answer read_only;
	enum probe_answer sync_writes; /* a WRITE with FILE_SYNC was answered FILE_SYNC */
	uint64_t size, used, available;
};

struct probe_path {
	bool is_block;
	char fs[PROBE_TEXT_LEN]; /* a file system's type, or what a block device hangs on; "" if nobody knows */
	enum probe_answer shared; /* can another host see it? by the kind only */
	enum probe_answer o_direct, read_only;
	enum probe_answer write_cache; /* a block device that says "write back" */
	uint32_t alignment;            /* 512 or 4096: what O_DIRECT takes; 0 if neither */
	uint32_t sector_size, physical_sector_size;
	uint64_t size, used;
};

struct probe_result {
	enum probe_kind kind;
	char error[PROBE_ERROR_LEN]; /* why it ended before all was asked; "" */
	union {
		struct probe_iscsi iscsi;
		struct probe_nfs nfs;
		struct probe_path path;
	};
};

/* scratch: NULL, or one block of 4096 bytes that is at offset on the volume and nobody else's: it may be written again as it is.
 * secret_file: NULL for none. */
void probe_volume(const char *url, const char *secret_file, const void *scratch, uint64_t offset, uint32_t deadline_ms, struct probe_result *ret);
const char *probe_answer_name(enum probe_answer a); /* "unknown", "no", "yes" */
