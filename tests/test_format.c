/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks: round trips, places, and the refusal of everything that is not exactly what was written. */
#include <stddef.h>

#include "storage/crc32c.h"
#include "storage/format.h"
#include "tests/tap.h"

static const uint8_t cluster[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const uint8_t other[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17 };
static uint8_t buf[FORMAT_CATALOG_LEN], copy[FORMAT_CATALOG_LEN];

/* Offsets in the header (storage/format.c), for forging. */
enum { AT_KIND = 8, AT_VERSION = 10, AT_CRC = 12, AT_OFFSET = 32, AT_LENGTH = 40, AT_NODE = 44, AT_EPOCH = 48, AT_BODY = 64 };

static void poke(uint8_t *b, unsigned at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		b[at + i] = (uint8_t)(v >> (8 * i));
}

/* Content that only a program with a bug, or a forger, could have written: the checksum is right. */
static void seal(uint8_t *b, uint32_t len)
{
	poke(b, AT_CRC, 0, 4);
	poke(b, AT_CRC, crc32c(0, b, len), 4);
}

/* Fills a struct with a pattern, so that a field that is not carried over shows. */
static void fill(void *p, size_t n, unsigned seed)
{
	uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(seed + i * 37 + (i >> 5));
}

static struct superblock a_superblock(void)
{
	struct superblock s = { .generation = 7, .n_volumes = 3, .index = 2, .node_limit = 12 };

	memcpy(s.cluster, cluster, 16);
	memcpy(s.cluster_name, "alpha", 6);
	fill(s.set, sizeof(s.set), 3);
	timing_of_profile(TIMING_STANDARD, &s.timing);
	return s;
}

static struct heartbeat a_heartbeat(void)
{
	struct heartbeat h = { 0 };

	fill(h.host, 16, 1);
	fill(h.life, 16, 2);
	fill(h.boot, 16, 3);
	h.node = 5;
	h.epoch = 0x89abcdef; /* its highest bit set: no sign may creep in */
	h.seq = 0x0123456789abcdefULL;
	h.state = HEARTBEAT_ARMED;
	h.ring = HEARTBEAT_RING_OK;
	h.view = 0x8000000000000011ULL;
	h.settled = 0x89abcdee;
	h.wd_ms = 5000;
	h.wd_delay_ms = 500;
	h.agent_counter = 1ULL << 40;
	h.claims_seq = 2ULL << 40;
	h.catalog_generation = 3ULL << 40;
	h.catalog_seq = 4ULL << 40;
	for (unsigned i = 0; i < FORMAT_MAX_NODES; i++) {
		h.alive[i] = 1000 + i;
		h.intent[i] = 2000 + i;
		h.commit[i] = 3000 + i;
		h.over[i] = 0xffffff00U + i;
	}
	h.silent = true;
	h.n_marks = FORMAT_MAX_CLAIMS;
	for (unsigned i = 0; i < FORMAT_MAX_CLAIMS; i++)
		h.mark[i] = 0xfffff000U + i;
	return h;
}

static struct claims claims_buf, claims_got;

static struct claims *some_claims(uint32_t n)
{
	struct claims *c = &claims_buf;

	memset(c, 0, sizeof(*c));
	c->node = 3;
	c->epoch = 9;
	c->seq = 77;
	c->n = n;
	for (uint32_t i = 0; i < n; i++) {
		fill(c->claim[i].vm, 16, i);
		c->claim[i].vm[0] = (uint8_t)(i >> 8);
		c->claim[i].generation = (1ULL << 33) + i;
		c->claim[i].epoch = 9 + i;
		c->claim[i].state = (enum claim_state)(i % CLAIM_STATE_END);
		c->claim[i].migration = c->claim[i].state == CLAIM_HANDED ? (1ULL << 63) + i : 0;
	}
	return c;
}

static bool same_claims(const struct claims *a, const struct claims *b)
{
	if (a->node != b->node || a->epoch != b->epoch || a->seq != b->seq || a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (memcmp(a->claim[i].vm, b->claim[i].vm, 16) != 0 || a->claim[i].generation != b->claim[i].generation ||
		    a->claim[i].epoch != b->claim[i].epoch || a->claim[i].state != b->claim[i].state || a->claim[i].migration != b->claim[i].migration)
			return false;
	return true;
}

/* One decoder's answer for a block of each kind at the place it was made for. */
enum kind { K_SUPERBLOCK, K_HEARTBEAT, K_CLAIMS, K_CATALOG, K_COUNT };
static const char *const kind_name[K_COUNT] = { "superblock", "heartbeat", "claims", "catalog" };
static const char payload[] = "{ \"vms\": [ { \"name\": \"web\" } ] }";

static uint32_t make(enum kind k)
{
	struct catalog_head head = { .node = 4, .epoch = 6, .seq = 8, .generation = 10, .len = sizeof(payload) };
	struct superblock s = a_superblock();
	struct heartbeat h = a_heartbeat();

	memset(buf, 0, sizeof(buf));
	switch (k) {
	case K_SUPERBLOCK:
		superblock_encode(&s, 1, buf);
		return FORMAT_BLOCK;
	case K_HEARTBEAT:
		heartbeat_encode(&h, cluster, 1, buf);
		return FORMAT_BLOCK;
	case K_CLAIMS:
		claims_encode(some_claims(20), cluster, 1, buf);
		return claims_block_len(20);
	default:
		catalog_encode(&head, payload, cluster, 1, buf);
		return catalog_block_len(head.len);
	}
}

static enum format_status try_at(enum kind k, uint32_t len, const uint8_t *of, uint32_t node, unsigned buffer)
{
	struct superblock s;
	struct heartbeat h;
	struct catalog_head head;
	const char *text;

	switch (k) {
	case K_SUPERBLOCK:
		return superblock_decode(buf, buffer, of, &s);
	case K_HEARTBEAT:
		return heartbeat_decode(buf, node, buffer, of, &h);
	case K_CLAIMS:
		return claims_decode(buf, node, buffer, of, &claims_got);
	default:
		return catalog_decode(buf, len, node, buffer, of, &head, &text);
	}
}

static const uint32_t node_of[K_COUNT] = { 0, 5, 3, 4 };

static enum format_status try_one(enum kind k, uint32_t len) { return try_at(k, len, cluster, node_of[k], 1); }

static void test_round_trips(void)
{
	struct superblock s = a_superblock(), s2;
	struct heartbeat h = a_heartbeat(), h2;
	struct catalog_head head = { .node = 64, .epoch = 6, .seq = 8, .generation = 10 }, head2;
	uint32_t n, peeked;
	const char *text;

	memset(&s2, 0, sizeof(s2));
	superblock_encode(&s, 0, buf);
	TAP_OK(superblock_decode(buf, 0, cluster, &s2) == FORMAT_OK && memcmp(&s, &s2, sizeof(s)) == 0,
	       "a superblock comes back");
	TAP_OK(superblock_decode(buf, 0, NULL, &s2) == FORMAT_OK, "and to one who does not know the cluster");
	memset(&h2, 0, sizeof(h2));
	heartbeat_encode(&h, cluster, 0, buf);
	TAP_OK(heartbeat_decode(buf, 5, 0, cluster, &h2) == FORMAT_OK && memcmp(&h, &h2, sizeof(h)) == 0,
	       "a heartbeat comes back");
	for (n = 0; n <= FORMAT_MAX_CLAIMS; n += n < 3 ? 1 : 73) {
		claims_encode(some_claims(n), cluster, 0, buf);
		if (claims_decode(buf, 3, 0, cluster, &claims_got) != FORMAT_OK || !same_claims(&claims_buf, &claims_got))
			break;
	}
	TAP_OK(n > FORMAT_MAX_CLAIMS, "claims come back, whatever their number");
	claims_encode(some_claims(FORMAT_MAX_CLAIMS), cluster, 0, buf);
	TAP_OK(claims_decode(buf, 3, 0, cluster, &claims_got) == FORMAT_OK && same_claims(&claims_buf, &claims_got),
	       "the most there may be, too");
	TAP_OK(claims_block_len(FORMAT_MAX_CLAIMS) <= FORMAT_CLAIMS_LEN && claims_block_len(0) == FORMAT_BLOCK,
	       "and they fit their place");
	fill(copy, sizeof(copy), 9);
	for (n = 0; n <= FORMAT_CATALOG_MAX_PAYLOAD; n += n < 4 ? 1 : 349493) {
		head.len = n;
		catalog_encode(&head, copy, cluster, 1, buf);
		if (catalog_decode(buf, catalog_block_len(n), 64, 1, cluster, &head2, &text) != FORMAT_OK ||
		    memcmp(text, copy, n) != 0 ||
		    head2.len != n || head2.generation != 10 || head2.seq != 8 || head2.epoch != 6 || head2.node != 64)
			break;
		if (!catalog_peek(buf, cluster, &head2, &peeked) || peeked != catalog_block_len(n) || head2.len != n ||
		    head2.seq != 8)
			break;
	}
	TAP_OK(n > FORMAT_CATALOG_MAX_PAYLOAD, "catalogs come back, and their first block says how long they are");
	TAP_OK(catalog_block_len(FORMAT_CATALOG_MAX_PAYLOAD) <= FORMAT_CATALOG_LEN, "the longest fits its place");
}

static void test_status(void)
{
	static const struct { const char *name; unsigned at; uint64_t value; unsigned bytes; enum format_status want; } forged[] = {
		{ "no magic", 0, 0x1122334455667788ULL, 8, FORMAT_E_FOREIGN },
		{ "another kind", AT_KIND, 77, 2, FORMAT_E_MISPLACED },
		{ "another format version", AT_VERSION, FORMAT_VERSION + 1, 2, FORMAT_E_VERSION },
		{ "another offset", AT_OFFSET, 4096ULL * 99, 8, FORMAT_E_MISPLACED },
		{ "another node", AT_NODE, 63, 4, FORMAT_E_MISPLACED },
		{ "a length of nothing", AT_LENGTH, 0, 4, FORMAT_E_CRC },
		{ "a length inside the header", AT_LENGTH, AT_BODY - 1, 4, FORMAT_E_CRC },
		{ "a length beyond the place", AT_LENGTH, FORMAT_CATALOG_LEN + 1, 4, FORMAT_E_CRC },
		{ "the longest length there is", AT_LENGTH, 0xffffffffU, 4, FORMAT_E_CRC },
	};

	for (enum kind k = 0; k < K_COUNT; k++) {
		uint32_t len = make(k);

		TAP_OK(try_one(k, len) == FORMAT_OK, "%s: valid at its place", kind_name[k]);
		TAP_OK(try_at(k, len, other, node_of[k], 1) == FORMAT_E_CLUSTER, "%s: another cluster's", kind_name[k]);
		TAP_OK(try_at(k, len, cluster, node_of[k], 0) == FORMAT_E_MISPLACED, "%s: in the other buffer", kind_name[k]);
		if (k != K_SUPERBLOCK)
			TAP_OK(try_at(k, len, cluster, node_of[k] + 1, 1) == FORMAT_E_MISPLACED,
			       "%s: in another node's place", kind_name[k]);
		for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
			len = make(k);
			poke(buf, forged[i].at, forged[i].value, forged[i].bytes);
			seal(buf, len);
			TAP_OK(try_one(k, len) == forged[i].want, "%s: %s", kind_name[k], forged[i].name);
		}
		memset(buf, 0, len);
		TAP_OK(try_one(k, len) == FORMAT_E_BLANK, "%s: all zero is blank", kind_name[k]);
		memset(buf, 0xff, len);
		TAP_OK(try_one(k, len) == FORMAT_E_FOREIGN, "%s: all ones is foreign", kind_name[k]);
	}
	for (int s = FORMAT_OK; s <= FORMAT_E_CONTENT; s++)
		if (!*format_status_name((enum format_status)s) || strcmp(format_status_name((enum format_status)s),
		    "unknown") == 0)
			TAP_OK(false, "status %d has a name", s);
	TAP_STR(format_status_name((enum format_status)99), "unknown", "a status out of range is unknown");
}

static void test_damage(void)
{
	for (enum kind k = 0; k < K_COUNT; k++) {
		uint32_t len = make(k), used = len, bad = 0;

		for (uint32_t bit = 0; bit < len * 8; bit++) {
			buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
			bad += try_one(k, len) == FORMAT_OK;
			buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		TAP_OK(bad == 0, "%s: each of %u flipped bits is noticed", kind_name[k], len * 8);
		while (buf[used - 1] == 0)
			used--;
		memcpy(copy, buf, len);
		for (uint32_t cut = 0; cut < used; cut++) {
			memset(buf + cut, 0, len - cut);
			bad += try_one(k, len) == FORMAT_OK;
			memcpy(buf, copy, len);
		}
		TAP_OK(bad == 0, "%s: cut short anywhere it is refused", kind_name[k]);
		/* A power cut leaves whole sectors: the new block's first ones and then the old block's. */
		for (uint32_t cut = 512; cut < used; cut += 512) {
			memset(buf + cut, 0xaa, len - cut);
			bad += try_one(k, len) == FORMAT_OK;
			memcpy(buf, copy, len);
		}
		TAP_OK(bad == 0, "%s: torn between sectors it is refused", kind_name[k]);
	}
	make(K_CATALOG);
	TAP_OK(try_one(K_CATALOG, FORMAT_HEADER_LEN) == FORMAT_E_CRC, "a catalog read too short is refused");
}

static void test_content(void)
{
	static const struct { enum kind kind; const char *name; unsigned at; uint64_t value; unsigned bytes; } forged[] = {
		{ K_SUPERBLOCK, "no volume", AT_BODY, 0, 4 },
		{ K_SUPERBLOCK, "four volumes", AT_BODY, 4, 4 },
		{ K_SUPERBLOCK, "an index outside the set", AT_BODY + 4, 3, 4 },
		{ K_SUPERBLOCK, "no node", AT_BODY + 8, 0, 4 },
		{ K_SUPERBLOCK, "65 nodes", AT_BODY + 8, 65, 4 },
		{ K_SUPERBLOCK, "a name that does not end", AT_BODY + 16 + 48 + 63, 'x', 1 },
		{ K_HEARTBEAT, "a state out of range", AT_BODY, HEARTBEAT_STATE_END, 1 },
		{ K_HEARTBEAT, "a ring out of range", AT_BODY + 1, HEARTBEAT_RING_END, 1 },
		{ K_HEARTBEAT, "255 for a state", AT_BODY, 255, 1 },
		{ K_HEARTBEAT, "an epoch that has no next one", AT_EPOCH, 0xffffffffU, 4 },
		{ K_HEARTBEAT, "a fence of an epoch that has no next one", AT_BODY + 104 + 2 * 4 * FORMAT_MAX_NODES, 0xffffffffU,
			4 },
		{ K_CLAIMS, "more claims than fit the block", AT_BODY, 127, 4 },
		{ K_CLAIMS, "513 claims", AT_BODY, FORMAT_MAX_CLAIMS + 1, 4 },
		{ K_CLAIMS, "a number whose length wraps around", AT_BODY, 0x08000001U, 4 },
		{ K_CLAIMS, "the highest number there is", AT_BODY, 0xffffffffU, 4 },
		{ K_CLAIMS, "a claim state out of range", AT_BODY + 8 + 28, CLAIM_STATE_END, 4 },
		{ K_CLAIMS, "a claim handed over for no migration", AT_BODY + 8 + 28, CLAIM_HANDED, 4 },
		{ K_CLAIMS, "a claim with a migration that was not handed over", AT_BODY + 8 + 32, 1, 8 },
		{ K_CLAIMS, "a claim state out of range, the last", AT_BODY + 8 + 19 * 32 + 28, 0xffffffffU, 4 },
		{ K_CATALOG, "a payload beyond the block", AT_BODY + 8, FORMAT_BLOCK, 4 },
		{ K_CATALOG, "the longest payload there is", AT_BODY + 8, 0xffffffffU, 4 },
	};
	struct superblock s = a_superblock();
	struct heartbeat h = a_heartbeat(), kept = h;
	struct catalog_head head;
	uint32_t len;

	for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
		len = make(forged[i].kind);
		poke(buf, forged[i].at, forged[i].value, forged[i].bytes);
		seal(buf, len);
		TAP_OK(try_one(forged[i].kind, len) == FORMAT_E_CONTENT,
		       "%s with the right checksum: %s", kind_name[forged[i].kind], forged[i].name);
	}
	len = make(K_CLAIMS);
	memcpy(buf + AT_BODY + 8 + 19 * 40, buf + AT_BODY + 8, 16);
	seal(buf, len);
	TAP_OK(try_one(K_CLAIMS, len) == FORMAT_E_CONTENT, "claims with the right checksum: two on one VM");
	/* A block whose checksum covers only its header has no body. */
	for (enum kind k = 0; k < K_COUNT; k++) {
		len = make(k);
		poke(buf, AT_LENGTH, AT_BODY, 4);
		seal(buf, AT_BODY);
		TAP_OK(try_one(k, len) == FORMAT_E_CONTENT, "%s: a header alone is impossible content", kind_name[k]);
	}
	make(K_HEARTBEAT);
	buf[100] ^= 1;
	TAP_OK(heartbeat_decode(buf, 5, 1, cluster, &h) != FORMAT_OK && memcmp(&h, &kept, sizeof(h)) == 0,
	       "a refused block leaves the result alone");
	superblock_encode(&s, 0, buf);
	TAP_OK(!catalog_peek(buf, cluster, &head, &len), "a superblock is no catalog to peek at");
	make(K_CATALOG);
	TAP_OK(!catalog_peek(buf, other, &head, &len), "nor is another cluster's catalog");
	poke(buf, AT_BODY + 8, 0xffffffffU, 4);
	TAP_OK(!catalog_peek(buf, cluster, &head, &len), "nor one with an impossible length");
}

static void test_places(void)
{
	bool apart = true;

	for (uint32_t n = 1; n <= FORMAT_MAX_NODES; n++) {
		for (unsigned b = 0; b < 2; b++) {
			uint32_t next = n + b;
			unsigned nb = b ^ 1;

			apart = apart && format_heartbeat_offset(next, nb) - format_heartbeat_offset(n, b) == FORMAT_BLOCK;
			apart = apart && format_claims_offset(next, nb) - format_claims_offset(n, b) == FORMAT_CLAIMS_LEN;
			apart = apart && format_catalog_offset(next, nb) - format_catalog_offset(n, b) == FORMAT_CATALOG_LEN;
		}
	}
	TAP_OK(apart, "no two places overlap");
	TAP_OK(format_superblock_offset(1) + FORMAT_BLOCK <= format_heartbeat_offset(1, 0), "superblocks end before the table");
	TAP_OK(format_table_len(FORMAT_MAX_NODES) <= FORMAT_CLAIMS_OFFSET, "the table ends before the claims");
	TAP_OK(format_claims_offset(FORMAT_MAX_NODES + 1, 0) <= FORMAT_CATALOG_OFFSET, "the claims end before the catalog");
	TAP_OK(format_volume_len(3) == format_catalog_offset(3, 1) + FORMAT_CATALOG_LEN,
	       "a volume ends with the last node's catalog");
	TAP_OK(format_compare(1, 9, 2, 0) == -1 && format_compare(2, 0, 1, 9) == 1 && format_compare(2, 5, 2, 5) == 0 &&
	       format_compare(2, 4, 2, 5) == -1,
	       "epoch orders before seq");
	for (unsigned n = 1; n <= FORMAT_MAX_VOLUMES; n++)
		TAP_OK(format_renew_quorum(n) + format_fence_quorum(n) > n, "%u volumes: renewals and fences meet", n);
	TAP_OK(format_renew_quorum(1) == 1 && format_renew_quorum(2) == 1 && format_renew_quorum(3) == 2 &&
	       format_fence_quorum(1) == 1 &&
	       format_fence_quorum(2) == 2 && format_fence_quorum(3) == 2, "quorums are as DESIGN says");
}

int main(void)
{
	test_round_trips();
	test_status();
	test_damage();
	test_content();
	test_places();
	TAP_STR(heartbeat_state_name(HEARTBEAT_RELEASED), "released", "states of a node have names");
	TAP_STR(heartbeat_ring_name(HEARTBEAT_RING_JOINING), "joining", "so have those of its ring");
	TAP_STR(claim_state_name(CLAIM_UNCLEAN), "unclean", "and those of a claim");
	return tap_done();
}
