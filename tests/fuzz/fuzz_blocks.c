/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of a volume, of each kind. Input: kind, node and buffer, what of the header is put right, then the block. The checksum is put right nearly
 * always: a fuzzer does not guess it. What is taken must survive encoding and decoding, and to the byte. */
#include "storage/crc32c.h"
#include "storage/format.h"
#include "tests/fuzz/fuzz.h"

enum mend { MEND_MAGIC = 1, MEND_PLACE = 2, MEND_CLUSTER = 4, MEND_LENGTH = 8, SPOIL_CRC = 16 };

#define CRC_AT 12

static const uint8_t cluster[16] = "cluster of test";
static uint8_t again[FORMAT_CATALOG_LEN], third[FORMAT_CATALOG_LEN];

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t length_of(const uint8_t *b) { return (uint32_t)b[40] | (uint32_t)b[41] << 8 | (uint32_t)b[42] << 16 | (uint32_t)b[43] << 24; }

static void mend_crc(uint8_t *b, uint32_t len)
{
	put(b + CRC_AT, 0, 4);
	put(b + CRC_AT, crc32c(0, b, len), 4);
}

static void mend(uint8_t *b, uint32_t len, uint32_t body, enum format_kind kind, uint64_t offset, uint32_t node, unsigned what)
{
	if (what & MEND_MAGIC) {
		memcpy(b, "KVMHABLK", 8);
		put(b + 10, FORMAT_VERSION, 2);
	}
	if (what & MEND_PLACE) {
		put(b + 8, kind, 2);
		put(b + 32, offset, 8);
		put(b + 44, node, 4);
	}
	if (what & MEND_CLUSTER)
		memcpy(b + 16, cluster, 16);
	if (what & MEND_LENGTH)
		put(b + 40, body, 4);
	if (!(what & SPOIL_CRC))
		mend_crc(b, MIN(length_of(b), len));
}

/* What a decoder does not look at: zero in what an encoder makes. */
static void blank(uint8_t *b, uint32_t from, uint32_t to)
{
	if (to > from)
		memset(b + from, 0, to - from);
}

static void same(uint8_t *b, uint32_t len)
{
	put(b + 40, len, 4);
	blank(b, 52, 56);
	mend_crc(b, len);
	FUZZ_CHECK(memcmp(b, again, len) == 0);
}

static void try_superblock(uint8_t *b, unsigned copy)
{
	struct superblock s, t;
	enum format_status st;

	memset(&s, 0xee, sizeof(s));
	memset(&t, 0xee, sizeof(t));
	st = superblock_decode(b, copy, NULL, &s);
	FUZZ_CHECK(*format_status_name(st));
	if (st != FORMAT_OK) {
		FUZZ_CHECK(memcmp(&s, &t, sizeof(s)) == 0);
		return;
	}
	FUZZ_CHECK(s.n_volumes >= 1 && s.n_volumes <= FORMAT_MAX_VOLUMES && s.index < s.n_volumes && s.node_limit <= FORMAT_MAX_NODES);
	FUZZ_CHECK(strnlen(s.cluster_name, sizeof(s.cluster_name)) < sizeof(s.cluster_name));
	superblock_encode(&s, copy, again);
	FUZZ_CHECK(superblock_decode(again, copy, s.cluster, &t) == FORMAT_OK);
	FUZZ_CHECK(t.generation == s.generation && t.timing.leader_ms == s.timing.leader_ms);
	FUZZ_CHECK(superblock_decode(again, !copy, NULL, &t) == FORMAT_E_MISPLACED);
	blank(b, 44, 52); /* node: refused unless 0; epoch */
	blank(b, 80 + sizeof(s.set) + sizeof(s.cluster_name) + 11 * 4 + sizeof(s.change) + sizeof(s.to), FORMAT_BLOCK);
	same(b, FORMAT_BLOCK);
}

static void try_heartbeat(uint8_t *b, uint32_t node, unsigned buffer)
{
	struct heartbeat h, t;
	enum format_status st;

	memset(&h, 0xee, sizeof(h));
	memset(&t, 0xee, sizeof(t));
	st = heartbeat_decode(b, node, buffer, cluster, &h);
	if (st != FORMAT_OK) {
		FUZZ_CHECK(memcmp(&h, &t, sizeof(h)) == 0);
		return;
	}
	FUZZ_CHECK(h.node == node && h.epoch <= FORMAT_MAX_EPOCH && h.settled <= h.epoch && h.state < HEARTBEAT_STATE_END && h.ring < HEARTBEAT_RING_END);
	for (unsigned i = 0; i < FORMAT_MAX_NODES; i++)
		FUZZ_CHECK(MAX(MAX(h.alive[i], h.intent[i]), MAX(h.commit[i], h.over[i])) <= FORMAT_MAX_EPOCH);
	heartbeat_encode(&h, cluster, buffer, again);
	FUZZ_CHECK(heartbeat_decode(again, node, buffer, cluster, &t) == FORMAT_OK);
	FUZZ_CHECK(format_compare(h.epoch, h.seq, t.epoch, t.seq) == 0 && *heartbeat_state_name(t.state) && *heartbeat_ring_name(t.ring));
	FUZZ_CHECK(heartbeat_decode(again, node, !buffer, cluster, &t) == FORMAT_E_MISPLACED);
	FUZZ_CHECK(h.n_marks <= FORMAT_MAX_CLAIMS);
	blank(b, 67, 68);
	blank(b, 64 + 8 + 8 + 48 + 8 + 32 + 4 * 4 * FORMAT_MAX_NODES + 8 + 4 + 4 * h.n_marks, FORMAT_BLOCK);
	same(b, FORMAT_BLOCK);
}

static void try_claims(uint8_t *b, uint32_t node, unsigned buffer)
{
	static struct claims c, t, before;
	uint32_t len;
	enum format_status st;

	memset(&c, 0xee, sizeof(c));
	before = c;
	st = claims_decode(b, node, buffer, cluster, &c);
	if (st != FORMAT_OK) {
		FUZZ_CHECK(memcmp(&c, &before, sizeof(c)) == 0);
		return;
	}
	FUZZ_CHECK(c.node == node && c.n <= FORMAT_MAX_CLAIMS);
	for (uint32_t i = 0; i < c.n; i++) {
		FUZZ_CHECK(c.claim[i].state < CLAIM_STATE_END && *claim_state_name(c.claim[i].state));
		FUZZ_CHECK((c.claim[i].migration != 0) == (c.claim[i].state == CLAIM_HANDED));
		for (uint32_t j = 0; j < i; j++)
			FUZZ_CHECK(memcmp(c.claim[i].vm, c.claim[j].vm, 16) != 0);
	}
	len = claims_block_len(c.n);
	FUZZ_CHECK(len <= FORMAT_CLAIMS_LEN);
	claims_encode(&c, cluster, buffer, again);
	FUZZ_CHECK(claims_decode(again, node, buffer, cluster, &t) == FORMAT_OK && t.n == c.n);
	claims_encode(&t, cluster, buffer, third);
	FUZZ_CHECK(memcmp(again, third, len) == 0);
	blank(b, 68, 72);
	blank(b, 72 + 40 * c.n, len);
	same(b, len);
}

static void try_catalog(uint8_t *b, uint32_t room, uint32_t node, unsigned buffer)
{
	struct catalog_head h = { 0 }, peeked = { 0 };
	const char *payload = NULL;
	uint32_t len = 0, want = 0;
	bool peek = catalog_peek(b, cluster, &peeked, &want);

	FUZZ_CHECK(!peek || (want <= FORMAT_CATALOG_LEN && want % FORMAT_BLOCK == 0 && want == catalog_block_len(peeked.len)));
	if (catalog_decode(b, room, node, buffer, cluster, &h, &payload) != FORMAT_OK) {
		FUZZ_CHECK(!payload);
		return;
	}
	FUZZ_CHECK(h.node == node && h.len <= FORMAT_CATALOG_MAX_PAYLOAD && (const uint8_t *)payload + h.len <= b + room);
	if (peek)
		FUZZ_CHECK(peeked.len == h.len && peeked.generation == h.generation && peeked.seq == h.seq);
	len = catalog_block_len(h.len);
	FUZZ_CHECK(len <= FORMAT_CATALOG_LEN);
	catalog_encode(&h, payload, cluster, buffer, again);
	/* What we write ourselves can be found by its first block. */
	FUZZ_CHECK(catalog_peek(again, cluster, &peeked, &want) && want == len);
	FUZZ_CHECK(catalog_decode(again, len, node, buffer, cluster, &peeked, &payload) == FORMAT_OK && peeked.len == h.len);
	FUZZ_CHECK(memcmp(payload, b + 80, h.len) == 0);
	if (len > room)
		return;
	blank(b, 76, 80);
	blank(b, 80 + h.len, len);
	same(b, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	enum format_kind kind = (enum format_kind)(fuzz_take(&in, 1) % 4 + FORMAT_SUPERBLOCK);
	uint32_t node = (uint32_t)fuzz_take(&in, 1) % FORMAT_MAX_NODES + 1, len = FORMAT_BLOCK, body;
	unsigned wrong = (unsigned)fuzz_take(&in, 1), buffer = wrong >> 7; /* wrong: enum mend, what is left as it came */
	uint64_t offset;
	uint8_t *b;

	if (kind == FORMAT_CLAIMS)
		len = FORMAT_CLAIMS_LEN;
	else if (kind == FORMAT_CATALOG)
		len = (uint32_t)MIN(MAX(in.left + FORMAT_BLOCK - 1, 1U) / FORMAT_BLOCK * FORMAT_BLOCK + FORMAT_BLOCK, FORMAT_CATALOG_LEN);
	b = calloc(1, len); /* of its own size: what reads behind it is found */
	FUZZ_CHECK(b);
	body = (uint32_t)fuzz_take_bytes(&in, b, len);
	body = kind == FORMAT_SUPERBLOCK || kind == FORMAT_HEARTBEAT ? len : MAX((body + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK, FORMAT_BLOCK);
	offset = kind == FORMAT_SUPERBLOCK ? format_superblock_offset(buffer) : kind == FORMAT_HEARTBEAT ? format_heartbeat_offset(node, buffer) :
		 kind == FORMAT_CLAIMS ? format_claims_offset(node, buffer) : format_catalog_offset(node, buffer);
	mend(b, len, MIN(body, len), kind, offset, kind == FORMAT_SUPERBLOCK ? 0 : node, (~wrong & 0xf) | ((wrong & 0x30) == 0x30 ? SPOIL_CRC : 0));
	if (kind == FORMAT_SUPERBLOCK)
		try_superblock(b, buffer);
	else if (kind == FORMAT_HEARTBEAT)
		try_heartbeat(b, node, buffer);
	else if (kind == FORMAT_CLAIMS)
		try_claims(b, node, buffer);
	else
		try_catalog(b, len, node, buffer);
	free(b);
	return 0;
}
