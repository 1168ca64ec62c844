/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/format.h"

#include "storage/crc32c.h"

#define MAGIC 0x4b4c4241484d564bULL /* "KVMHABLK" */
#define CRC_AT 12U

struct cursor {
	uint8_t *p;
	uint8_t *end;
};

static void put(struct cursor *c, uint64_t v, unsigned bytes)
{
	CHECK(c->p + bytes <= c->end);
	for (unsigned i = 0; i < bytes; i++)
		*c->p++ = (uint8_t)(v >> (8 * i));
}

static void put_bytes(struct cursor *c, const void *data, size_t n)
{
	CHECK(c->p + n <= c->end);
	memcpy(c->p, data, n);
	c->p += n;
}

static uint64_t get(struct cursor *c, unsigned bytes)
{
	uint64_t v = 0;

	CHECK(c->p + bytes <= c->end);
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)*c->p++ << (8 * i);
	return v;
}

static void get_bytes(struct cursor *c, void *data, size_t n)
{
	CHECK(c->p + n <= c->end);
	memcpy(data, c->p, n);
	c->p += n;
}

static struct cursor cursor_of(const void *buf, uint32_t len)
{
	return (struct cursor){ (uint8_t *)buf, (uint8_t *)buf + len };
}

uint64_t format_superblock_offset(unsigned copy) { return (uint64_t)copy * FORMAT_BLOCK; }

uint64_t format_heartbeat_offset(uint32_t node, unsigned buffer)
{
	return FORMAT_TABLE_OFFSET + ((uint64_t)(node - 1) * 2 + buffer) * FORMAT_BLOCK;
}

uint64_t format_claims_offset(uint32_t node, unsigned buffer)
{
	return FORMAT_CLAIMS_OFFSET + ((uint64_t)(node - 1) * 2 + buffer) * FORMAT_CLAIMS_LEN;
}

uint64_t format_catalog_offset(uint32_t node, unsigned buffer)
{
	return FORMAT_CATALOG_OFFSET + ((uint64_t)(node - 1) * 2 + buffer) * FORMAT_CATALOG_LEN;
}

uint32_t format_table_len(uint32_t node_limit) { return (uint32_t)format_heartbeat_offset(node_limit + 1, 0); }
uint64_t format_volume_len(uint32_t node_limit) { return format_catalog_offset(node_limit + 1, 0); }

/* Header: magic 8, kind 2, version 2, crc 4, cluster 16, offset 8, length 4, node 4, epoch 4, zero 4, seq 8 = 64 bytes. */
static struct cursor begin(void *buf, uint32_t len, uint64_t offset, const struct format_header *h)
{
	struct cursor c = cursor_of(buf, len);

	memset(buf, 0, len);
	put(&c, MAGIC, 8);
	put(&c, h->kind, 2);
	put(&c, FORMAT_VERSION, 2);
	put(&c, 0, 4);
	put_bytes(&c, h->cluster, 16);
	put(&c, offset, 8);
	put(&c, len, 4);
	put(&c, h->node, 4);
	put(&c, h->epoch, 4);
	put(&c, 0, 4);
	put(&c, h->seq, 8);
	return c;
}

static uint32_t sum(const uint8_t *buf, uint32_t len)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, buf, CRC_AT);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, buf + CRC_AT + 4, len - CRC_AT - 4);
}

static void finish(void *buf, uint32_t len)
{
	struct cursor c = cursor_of((uint8_t *)buf + CRC_AT, 4);

	put(&c, sum(buf, len), 4);
}

static bool all_zero(const uint8_t *p, uint32_t len) { return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0; }

/* The checksum covers as many bytes as the header says: claims and catalog are written and summed only as far as they are filled. */
static enum format_status open_block(const void *buf, uint32_t len, uint64_t offset, enum format_kind kind, const uint8_t *cluster, uint32_t node,
				     struct format_header *ret, struct cursor *ret_body)
{
	struct cursor c = cursor_of(buf, len);
	struct format_header h = { 0 };
	uint64_t at, length;
	uint32_t version, crc, found_kind;

	if (get(&c, 8) != MAGIC)
		return all_zero(buf, len) ? FORMAT_E_BLANK : FORMAT_E_FOREIGN;
	found_kind = (uint32_t)get(&c, 2);
	version = (uint32_t)get(&c, 2);
	crc = (uint32_t)get(&c, 4);
	get_bytes(&c, h.cluster, 16);
	at = get(&c, 8);
	length = get(&c, 4);
	h.node = (uint32_t)get(&c, 4);
	h.epoch = (uint32_t)get(&c, 4);
	(void)get(&c, 4);
	h.seq = get(&c, 8);
	if (length < FORMAT_HEADER_LEN || length > len || sum(buf, (uint32_t)length) != crc)
		return FORMAT_E_CRC;
	if (version != FORMAT_VERSION)
		return FORMAT_E_VERSION;
	if (cluster && memcmp(cluster, h.cluster, 16) != 0)
		return FORMAT_E_CLUSTER;
	if (found_kind != kind || at != offset || h.node != node)
		return FORMAT_E_MISPLACED;
	h.kind = kind;
	c.end = (uint8_t *)buf + length;
	*ret = h;
	*ret_body = c;
	return FORMAT_OK;
}

static size_t left(const struct cursor *c) { return (size_t)(c->end - c->p); }

static void put_timing(struct cursor *c, const struct timing *t)
{
	const uint32_t v[] = { t->wd_ms, t->wd_delay_ms, t->hb_ms, t->io_ms, t->drain_ms, t->rho_permille,
			       t->w_ms, t->soft_ms, t->settle_ms, t->ring_grace_ms, t->leader_ms };

	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		put(c, v[i], 4);
}

static void get_timing(struct cursor *c, struct timing *t)
{
	uint32_t *const v[] = { &t->wd_ms, &t->wd_delay_ms, &t->hb_ms, &t->io_ms, &t->drain_ms, &t->rho_permille,
				&t->w_ms, &t->soft_ms, &t->settle_ms, &t->ring_grace_ms, &t->leader_ms };

	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		*v[i] = (uint32_t)get(c, 4);
	t->heal_ms = timing_heal_ms(t); /* these follow from the others, and from the code */
	t->silent_ms = timing_silent_ms(t);
}

void superblock_encode(const struct superblock *s, unsigned copy, void *buf)
{
	struct format_header h = { .kind = FORMAT_SUPERBLOCK, .seq = s->generation };
	struct cursor c;

	memcpy(h.cluster, s->cluster, 16);
	c = begin(buf, FORMAT_BLOCK, format_superblock_offset(copy), &h);
	put(&c, s->n_volumes, 4);
	put(&c, s->index, 4);
	put(&c, s->node_limit, 4);
	put(&c, s->frozen, 4);
	put_bytes(&c, s->set, sizeof(s->set));
	put_bytes(&c, s->cluster_name, sizeof(s->cluster_name));
	put_timing(&c, &s->timing);
	put_bytes(&c, s->change, sizeof(s->change));
	put_bytes(&c, s->to, sizeof(s->to));
	finish(buf, FORMAT_BLOCK);
}

enum format_status superblock_decode(const void *buf, unsigned copy, const uint8_t *cluster, struct superblock *ret)
{
	struct superblock s = { 0 };
	struct format_header h;
	struct cursor c;
	enum format_status st;
	uint32_t frozen;

	st = open_block(buf, FORMAT_BLOCK, format_superblock_offset(copy), FORMAT_SUPERBLOCK, cluster, 0, &h, &c);
	if (st != FORMAT_OK)
		return st;
	if (left(&c) != FORMAT_BLOCK - FORMAT_HEADER_LEN)
		return FORMAT_E_CONTENT;
	memcpy(s.cluster, h.cluster, 16);
	s.generation = h.seq;
	s.n_volumes = (uint32_t)get(&c, 4);
	s.index = (uint32_t)get(&c, 4);
	s.node_limit = (uint32_t)get(&c, 4);
	frozen = (uint32_t)get(&c, 4);
	s.frozen = frozen != 0;
	get_bytes(&c, s.set, sizeof(s.set));
	get_bytes(&c, s.cluster_name, sizeof(s.cluster_name));
	get_timing(&c, &s.timing);
	get_bytes(&c, s.change, sizeof(s.change));
	get_bytes(&c, s.to, sizeof(s.to));
	if (s.n_volumes < 1 || s.n_volumes > FORMAT_MAX_VOLUMES || s.index >= s.n_volumes || s.node_limit < 1 ||
	    s.node_limit > FORMAT_MAX_NODES || frozen > 1 || s.cluster_name[sizeof(s.cluster_name) - 1] != '\0')
		return FORMAT_E_CONTENT;
	*ret = s;
	return FORMAT_OK;
}

bool superblock_same_set(const struct superblock *a, const struct superblock *b)
{
	return memcmp(a->cluster, b->cluster, 16) == 0 && a->generation == b->generation && memcmp(a->set, b->set, sizeof(a->set)) == 0 &&
	       a->n_volumes == b->n_volumes && a->node_limit == b->node_limit && memcmp(&a->timing, &b->timing, sizeof(a->timing)) == 0;
}

void heartbeat_encode(const struct heartbeat *b, const uint8_t cluster[16], unsigned buffer, void *buf)
{
	struct format_header h = { .kind = FORMAT_HEARTBEAT, .node = b->node, .epoch = b->epoch, .seq = b->seq };
	const uint32_t *const lists[] = { b->alive, b->intent, b->commit, b->over };
	struct cursor c;

	memcpy(h.cluster, cluster, 16);
	c = begin(buf, FORMAT_BLOCK, format_heartbeat_offset(b->node, buffer), &h);
	put(&c, b->state, 1);
	put(&c, b->ring, 1);
	put(&c, b->silent, 1);
	put(&c, 0, 1);
	put(&c, b->settled, 4);
	put(&c, b->view, 8);
	put_bytes(&c, b->host, 16);
	put_bytes(&c, b->life, 16);
	put_bytes(&c, b->boot, 16);
	put(&c, b->wd_ms, 4);
	put(&c, b->wd_delay_ms, 4);
	put(&c, b->agent_counter, 8);
	put(&c, b->claims_seq, 8);
	put(&c, b->catalog_generation, 8);
	put(&c, b->catalog_seq, 8);
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < FORMAT_MAX_NODES; i++)
			put(&c, lists[l][i], 4);
	put(&c, b->members, 8);
	CHECK(b->n_marks <= FORMAT_MAX_CLAIMS);
	put(&c, b->n_marks, 4);
	for (uint32_t i = 0; i < b->n_marks; i++)
		put(&c, b->mark[i], 4);
	finish(buf, FORMAT_BLOCK);
}

enum format_status heartbeat_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *ret)
{
	struct format_header h;
	struct heartbeat b = { 0 };
	uint32_t *const lists[] = { b.alive, b.intent, b.commit, b.over };
	struct cursor c;
	unsigned state, ring, silent;
	enum format_status st;

	st = open_block(buf, FORMAT_BLOCK, format_heartbeat_offset(node, buffer), FORMAT_HEARTBEAT, cluster, node, &h, &c);
	if (st != FORMAT_OK)
		return st;
	if (left(&c) != FORMAT_BLOCK - FORMAT_HEADER_LEN)
		return FORMAT_E_CONTENT;
	b.node = h.node;
	b.epoch = h.epoch;
	b.seq = h.seq;
	state = (unsigned)get(&c, 1);
	ring = (unsigned)get(&c, 1);
	silent = (unsigned)get(&c, 1);
	(void)get(&c, 1);
	b.settled = (uint32_t)get(&c, 4);
	b.view = get(&c, 8);
	get_bytes(&c, b.host, 16);
	get_bytes(&c, b.life, 16);
	get_bytes(&c, b.boot, 16);
	b.wd_ms = (uint32_t)get(&c, 4);
	b.wd_delay_ms = (uint32_t)get(&c, 4);
	b.agent_counter = get(&c, 8);
	b.claims_seq = get(&c, 8);
	b.catalog_generation = get(&c, 8);
	b.catalog_seq = get(&c, 8);
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < FORMAT_MAX_NODES; i++)
			lists[l][i] = (uint32_t)get(&c, 4);
	b.members = get(&c, 8);
	b.n_marks = (uint32_t)get(&c, 4);
	if (state >= HEARTBEAT_STATE_END || ring >= HEARTBEAT_RING_END || b.epoch > FORMAT_MAX_EPOCH || b.settled > b.epoch || silent > 1 ||
	    b.n_marks > FORMAT_MAX_CLAIMS)
		return FORMAT_E_CONTENT;
	for (uint32_t i = 0; i < b.n_marks; i++)
		b.mark[i] = (uint32_t)get(&c, 4);
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < FORMAT_MAX_NODES; i++)
			if (lists[l][i] > FORMAT_MAX_EPOCH)
				return FORMAT_E_CONTENT;
	b.state = (enum heartbeat_state)state;
	b.ring = (enum heartbeat_ring)ring;
	b.silent = silent;
	*ret = b;
	return FORMAT_OK;
}

const struct heartbeat *heartbeat_view(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *space)
{
	return heartbeat_decode(buf, node, buffer, cluster, space) == FORMAT_OK ? space : NULL;
}

#define CLAIMS_BODY 8U
#define CLAIM_LEN 40U

uint32_t claims_block_len(uint32_t n)
{
	return (FORMAT_HEADER_LEN + CLAIMS_BODY + n * CLAIM_LEN + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

void claims_encode(const struct claims *cl, const uint8_t cluster[16], unsigned buffer, void *buf)
{
	struct format_header h = { .kind = FORMAT_CLAIMS, .node = cl->node, .epoch = cl->epoch, .seq = cl->seq };
	uint32_t len = claims_block_len(cl->n);
	struct cursor c;

	CHECK(cl->n <= FORMAT_MAX_CLAIMS);
	memcpy(h.cluster, cluster, 16);
	c = begin(buf, len, format_claims_offset(cl->node, buffer), &h);
	put(&c, cl->n, 4);
	put(&c, 0, 4);
	for (uint32_t i = 0; i < cl->n; i++) {
		put_bytes(&c, cl->claim[i].vm, 16);
		put(&c, cl->claim[i].generation, 8);
		put(&c, cl->claim[i].epoch, 4);
		put(&c, cl->claim[i].state, 4);
		put(&c, cl->claim[i].migration, 8);
	}
	finish(buf, len);
}

enum format_status claims_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct claims *ret)
{
	struct format_header h;
	struct cursor c;
	uint32_t n;
	enum format_status st;

	st = open_block(buf, FORMAT_CLAIMS_LEN, format_claims_offset(node, buffer), FORMAT_CLAIMS, cluster, node, &h, &c);
	if (st != FORMAT_OK)
		return st;
	if (left(&c) < CLAIMS_BODY)
		return FORMAT_E_CONTENT;
	n = (uint32_t)get(&c, 4);
	(void)get(&c, 4);
	if (n > FORMAT_MAX_CLAIMS || left(&c) < n * CLAIM_LEN)
		return FORMAT_E_CONTENT;
	for (uint32_t i = 0; i < n; i++) {
		struct cursor look = c;
		uint64_t state;

		look.p += i * CLAIM_LEN + 28;
		state = get(&look, 4);
		if (state >= CLAIM_STATE_END || (get(&look, 8) != 0) != (state == CLAIM_HANDED))
			return FORMAT_E_CONTENT;
		for (uint32_t j = 0; j < i; j++)
			if (memcmp(c.p + i * CLAIM_LEN, c.p + j * CLAIM_LEN, 16) == 0)
				return FORMAT_E_CONTENT; /* two claims on one VM */
	}
	ret->node = h.node;
	ret->epoch = h.epoch;
	ret->seq = h.seq;
	ret->n = n;
	for (uint32_t i = 0; i < n; i++) {
		get_bytes(&c, ret->claim[i].vm, 16);
		ret->claim[i].generation = get(&c, 8);
		ret->claim[i].epoch = (uint32_t)get(&c, 4);
		ret->claim[i].state = (enum claim_state)get(&c, 4);
		ret->claim[i].migration = get(&c, 8);
	}
	return FORMAT_OK;
}

#define CATALOG_BODY 16U

uint32_t catalog_block_len(uint32_t payload_len)
{
	return (FORMAT_HEADER_LEN + CATALOG_BODY + payload_len + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

void catalog_encode(const struct catalog_head *head, const void *payload, const uint8_t cluster[16], unsigned buffer, void *buf)
{
	struct format_header h = { .kind = FORMAT_CATALOG, .node = head->node, .epoch = head->epoch, .seq = head->seq };
	uint32_t len = catalog_block_len(head->len);
	struct cursor c;

	CHECK(head->len <= FORMAT_CATALOG_MAX_PAYLOAD);
	memcpy(h.cluster, cluster, 16);
	c = begin(buf, len, format_catalog_offset(head->node, buffer), &h);
	put(&c, head->generation, 8);
	put(&c, head->len, 4);
	put(&c, 0, 4);
	put_bytes(&c, payload, head->len);
	finish(buf, len);
}

/* Body of a catalog block whose header has been looked at; the payload may lie beyond what was read. */
static bool catalog_body(struct cursor *c, const struct format_header *h, struct catalog_head *ret)
{
	struct catalog_head head = { .node = h->node, .epoch = h->epoch, .seq = h->seq };

	if (left(c) < CATALOG_BODY)
		return false;
	head.generation = get(c, 8);
	head.len = (uint32_t)get(c, 4);
	(void)get(c, 4);
	if (head.len > FORMAT_CATALOG_MAX_PAYLOAD)
		return false;
	*ret = head;
	return true;
}

bool catalog_peek(const void *first_block, const uint8_t cluster[16], struct catalog_head *ret, uint32_t *ret_len)
{
	struct cursor c = cursor_of(first_block, FORMAT_BLOCK);
	struct format_header h = { 0 };
	struct catalog_head head;
	uint32_t len;

	if (get(&c, 8) != MAGIC || get(&c, 2) != FORMAT_CATALOG || get(&c, 2) != FORMAT_VERSION)
		return false;
	(void)get(&c, 4);
	get_bytes(&c, h.cluster, 16);
	(void)get(&c, 8);
	len = (uint32_t)get(&c, 4);
	h.node = (uint32_t)get(&c, 4);
	h.epoch = (uint32_t)get(&c, 4);
	(void)get(&c, 4);
	h.seq = get(&c, 8);
	if (memcmp(cluster, h.cluster, 16) != 0 || !catalog_body(&c, &h, &head) || len != catalog_block_len(head.len))
		return false;
	*ret = head;
	*ret_len = len;
	return true;
}

enum format_status catalog_decode(const void *buf, uint32_t len, uint32_t node, unsigned buffer, const uint8_t cluster[16],
				  struct catalog_head *ret, const char **ret_payload)
{
	struct format_header h;
	struct catalog_head head;
	struct cursor c;
	enum format_status st;

	st = open_block(buf, len, format_catalog_offset(node, buffer), FORMAT_CATALOG, cluster, node, &h, &c);
	if (st != FORMAT_OK)
		return st;
	if (!catalog_body(&c, &h, &head) || head.len > left(&c))
		return FORMAT_E_CONTENT;
	*ret = head;
	*ret_payload = (const char *)c.p;
	return FORMAT_OK;
}

const char *format_status_name(enum format_status s)
{
	static const char *const name[] = {
		[FORMAT_OK] = "valid",
		[FORMAT_E_BLANK] = "blank",
		[FORMAT_E_FOREIGN] = "not a kvm-ha block",
		[FORMAT_E_CRC] = "damaged (checksum)",
		[FORMAT_E_VERSION] = "made by another format version",
		[FORMAT_E_CLUSTER] = "belongs to another cluster",
		[FORMAT_E_MISPLACED] = "a block that belongs elsewhere",
		[FORMAT_E_CONTENT] = "impossible content",
	};

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}

const char *heartbeat_state_name(enum heartbeat_state s)
{
	static const char *const name[] = { "none", "disarmed", "armed", "released", "left" };

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}

const char *heartbeat_ring_name(enum heartbeat_ring r)
{
	static const char *const name[] = { "lost", "joining", "ok" };

	return (size_t)r < ARRAY_SIZE(name) ? name[r] : "unknown";
}

const char *claim_state_name(enum claim_state s)
{
	static const char *const name[] = { "none", "active", "released", "failed", "unclean", "handed" };

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}
