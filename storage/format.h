/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The on-disk format: what is where on a volume, and bytes <-> structs. Pure.
 *
 *   0        superblock, two copies              written by `ha-ctl volume init` and by changes of the volume set (setchange.h)
 *   8 KiB    heartbeat table                     a node's two buffers are neighbours; superblock and table are one read
 *   1 MiB    claims, two buffers of 32 KiB       a node
 *   6 MiB    scratch, 1 MiB                      `ha-ctl volume test` while it runs; zero else, and never read by anybody else
 *   8 MiB    catalog, two buffers of 1 MiB       a node
 *
 * All numbers are little-endian. Every block begins with the same header: magic, kind, format version, CRC-32C of the whole block, cluster,
 * its own offset (a misdirected write shows), its length, node, epoch, seq. A block is valid or it is not: nothing is ever read from an
 * invalid one, and "invalid" is never taken for "empty": `volume init` writes a valid empty block into every slot.
 */
#pragma once

#include "agent/base/timing.h"
#include "agent/base/util.h"
#include "storage/crc32c.h"

/* 2: a claim has a migration's number, 40 bytes instead of 32. There is no mixture: to a node of the other version every block, the superblock first, is "made by
 * another format version": it does not use that volume, writes nothing to it and does not arm, and `ha-ctl volume init` overwrites it only with --force.
 * So all nodes are stopped, upgraded, and the volumes made anew. */
#define FORMAT_VERSION 2
#define FORMAT_BLOCK 4096U
#ifndef FORMAT_MAX_NODES /* a simulator of many small clusters takes less */
#define FORMAT_MAX_NODES 64
#define FORMAT_MAX_CLAIMS 512
#endif
#define FORMAT_MAX_EPOCH 0xfffffff0U /* the next one must still be one */
#define FORMAT_SILENCE_IS_NO_PROOF UINT32_MAX /* as wd_ms; who does not know of it waits for 99 days */
#define FORMAT_MAX_VOLUMES 3
#define FORMAT_HEADER_LEN 64U

#define FORMAT_TABLE_OFFSET (2ULL * FORMAT_BLOCK)
#define FORMAT_CLAIMS_OFFSET (1ULL << 20)
#define FORMAT_CLAIMS_LEN (32U << 10)
/* Behind the claims of the highest node id, before all catalogs: free on every volume, whatever its node limit. Behind the
 * catalog there is no room: a volume may end there. */
#define FORMAT_SCRATCH_OFFSET (6ULL << 20)
#define FORMAT_SCRATCH_LEN (1U << 20)
#define FORMAT_CATALOG_OFFSET (8ULL << 20)
#define FORMAT_CATALOG_LEN (1U << 20)
#define FORMAT_CATALOG_MAX_PAYLOAD (FORMAT_CATALOG_LEN - 128U)
_Static_assert(FORMAT_CLAIMS_OFFSET + 2ULL * FORMAT_MAX_NODES * FORMAT_CLAIMS_LEN <= FORMAT_SCRATCH_OFFSET, "scratch lies behind the claims");
_Static_assert(FORMAT_SCRATCH_OFFSET + FORMAT_SCRATCH_LEN <= FORMAT_CATALOG_OFFSET, "and before the catalogs");

enum format_kind { FORMAT_SUPERBLOCK = 1, FORMAT_HEARTBEAT, FORMAT_CLAIMS, FORMAT_CATALOG, FORMAT_KIND_END };

enum format_status {
	FORMAT_OK = 0,
	FORMAT_E_BLANK,     /* all zero */
	FORMAT_E_FOREIGN,   /* no magic of ours */
	FORMAT_E_CRC,       /* torn, rotten or cut short */
	FORMAT_E_VERSION,   /* ours, made by another format version */
	FORMAT_E_CLUSTER,   /* another cluster's */
	FORMAT_E_MISPLACED, /* valid, but meant for another place */
	FORMAT_E_CONTENT,   /* valid checksum, impossible content */
};
const char *format_status_name(enum format_status s); /* words for an operator */

struct format_header {
	enum format_kind kind;
	uint8_t cluster[16];
	uint32_t node; /* 1..64; 0 in a superblock */
	uint32_t epoch;
	uint64_t seq;
};

struct superblock {
	uint8_t cluster[16];
	char cluster_name[64];
	uint64_t generation;    /* of the volume set */
	uint8_t set[FORMAT_MAX_VOLUMES][16]; /* incarnation of each volume of the set */
	uint32_t n_volumes;
	uint32_t index;         /* this volume's place in the set */
	uint32_t node_limit;
	bool frozen;            /* the set is being changed, or this volume was taken out of it: it counts for nothing */
	uint8_t change[16];     /* who froze it: drawn for each run of the change */
	uint8_t to[FORMAT_MAX_VOLUMES][16]; /* frozen: the set that is to come; else zero */
	struct timing timing;   /* what all nodes must share */
};

enum heartbeat_state { HEARTBEAT_NONE, HEARTBEAT_DISARMED, HEARTBEAT_ARMED, HEARTBEAT_RELEASED, HEARTBEAT_LEFT, HEARTBEAT_STATE_END };
enum heartbeat_ring { HEARTBEAT_RING_LOST, HEARTBEAT_RING_JOINING, HEARTBEAT_RING_OK, HEARTBEAT_RING_END };

struct heartbeat {
	uint32_t node;
	uint32_t epoch;
	uint64_t seq;
	enum heartbeat_state state;
	enum heartbeat_ring ring;
	uint64_t view;          /* bit (id - 1): nodes in this one's ring, while ring is JOINING or OK */
	uint8_t host[16];       /* who this is: hash of machine-id and DMI uuid */
	uint8_t life[16];       /* drawn for each epoch */
	uint8_t boot[16];
	uint32_t wd_ms;         /* the watchdog's real timeout, as read back from the driver; FORMAT_SILENCE_IS_NO_PROOF: it has none, or may be paused from outside */
	uint32_t wd_delay_ms;
	uint64_t agent_counter; /* moves while the agent lives */
	uint64_t claims_seq;
	uint64_t catalog_generation;
	uint64_t catalog_seq;
	uint32_t settled;       /* highest epoch of this node that is known to have been on a renew quorum: none up to it is ever begun again */
	uint64_t members;       /* bit (id - 1): nodes of its configuration, whom it asks for a hold; 0: it never holds */
	/* Its agent is silent and its gate is closed: its claims on VMs that have no process here are void. Each VM with a process is in the list, by its mark. */
	bool silent;
	uint32_t n_marks;
	uint32_t mark[FORMAT_MAX_CLAIMS];
	/* Indexed by node id - 1; each entry an epoch, 0 = none. */
	uint32_t alive[FORMAT_MAX_NODES];  /* seen alive by this node */
	uint32_t intent[FORMAT_MAX_NODES]; /* wants to fence */
	uint32_t commit[FORMAT_MAX_NODES]; /* fences: that epoch may not renew again */
	uint32_t over[FORMAT_MAX_NODES];   /* this epoch and all before it are proven over */
};

enum claim_state {
	CLAIM_NONE,     /* withdrawn: this claim never ran the VM */
	CLAIM_ACTIVE,   /* the node may run the VM under this epoch */
	CLAIM_RELEASED, /* given up after a clean stop */
	CLAIM_FAILED,   /* given up because it does not run here */
	CLAIM_UNCLEAN,  /* withdrawn, and the owner before had not given the VM up: whoever takes it must still drain */
	CLAIM_HANDED,   /* given up for one migration: its guest is stopped and inactive here, and whole at that migration's target */
	CLAIM_STATE_END,
};

struct claim {
	uint8_t vm[16];
	uint64_t generation;
	uint32_t epoch;
	enum claim_state state;
	uint64_t migration; /* HANDED: the random number of that migration, never 0; else 0 */
};

struct claims {
	uint32_t node;
	uint32_t epoch;
	uint64_t seq;
	uint32_t n;
	struct claim claim[FORMAT_MAX_CLAIMS];
};

struct catalog_head {
	uint32_t node;
	uint32_t epoch;
	uint64_t seq;
	uint64_t generation; /* of the leader that wrote it */
	uint32_t len;        /* bytes of JSON that follow */
};

uint64_t format_superblock_offset(unsigned copy);
uint64_t format_heartbeat_offset(uint32_t node, unsigned buffer);
uint64_t format_claims_offset(uint32_t node, unsigned buffer);
uint64_t format_catalog_offset(uint32_t node, unsigned buffer);
uint32_t format_table_len(uint32_t node_limit);  /* bytes from 0 to the end of the table */
uint64_t format_volume_len(uint32_t node_limit); /* bytes a volume must have */

/* The same set: generation, incarnations, and all that its volumes share. */
bool superblock_same_set(const struct superblock *a, const struct superblock *b);

/* A VM in a heartbeat. Two VMs may have the same one: then both have a process if either has, which keeps a claim that could be void. */
static inline uint32_t format_vm_mark(const uint8_t vm[16]) { return crc32c(0, vm, 16); }

/* Encoders fill a whole block: FORMAT_BLOCK, claims_block_len or catalog_block_len bytes. */
void superblock_encode(const struct superblock *s, unsigned copy, void *buf);
void heartbeat_encode(const struct heartbeat *h, const uint8_t cluster[16], unsigned buffer, void *buf);
void claims_encode(const struct claims *c, const uint8_t cluster[16], unsigned buffer, void *buf);
/* payload: JSON of head->len <= FORMAT_CATALOG_MAX_PAYLOAD bytes. */
void catalog_encode(const struct catalog_head *head, const void *payload, const uint8_t cluster[16], unsigned buffer, void *buf);

/* Decoders validate everything; *ret is untouched unless FORMAT_OK. cluster NULL (superblock only): any. */
enum format_status superblock_decode(const void *buf, unsigned copy, const uint8_t *cluster, struct superblock *ret);
enum format_status heartbeat_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *ret);
/* As heartbeat_decode; NULL if the block is not valid. The struct is *space, or one that stays as it is for longer: a simulator has them at hand. */
const struct heartbeat *heartbeat_view(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *space);
enum format_status claims_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct claims *ret);
enum format_status catalog_decode(const void *buf, uint32_t len, uint32_t node, unsigned buffer, const uint8_t cluster[16],
				  struct catalog_head *ret, const char **ret_payload);
uint32_t claims_block_len(uint32_t n);
/* Bytes to write (and read) for a payload of that size: whole blocks. */
uint32_t catalog_block_len(uint32_t payload_len);
/* What a catalog's first block claims to be, before its checksum can be known: how much to read, and which is worth reading. */
bool catalog_peek(const void *first_block, const uint8_t cluster[16], struct catalog_head *ret, uint32_t *ret_len);

const char *heartbeat_state_name(enum heartbeat_state s);
const char *heartbeat_ring_name(enum heartbeat_ring r);
const char *claim_state_name(enum claim_state s);

/* -1, 0, 1: order of (epoch, seq). */
static inline int format_compare(uint32_t epoch_a, uint64_t seq_a, uint32_t epoch_b, uint64_t seq_b)
{
	if (epoch_a != epoch_b)
		return epoch_a < epoch_b ? -1 : 1;
	if (seq_a != seq_b)
		return seq_a < seq_b ? -1 : 1;
	return 0;
}

/* How many of n volumes: to renew the lease, and to fence, claim and judge others. renew + fence > n. */
static inline unsigned format_renew_quorum(unsigned n) { return n <= 2 ? 1 : n / 2 + 1; }
static inline unsigned format_fence_quorum(unsigned n) { return n <= 2 ? n : n / 2 + 1; }
