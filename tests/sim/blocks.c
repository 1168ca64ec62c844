/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is on the volumes. A block is kept as the struct it stands for; the core's decoders are wrapped at link time and look it up. Torn blocks, and a
 * sample of all others, do go through bytes and the real decoders. */
#include "tests/sim/sim.h"

#define SAMPLE 2048 /* one in so many heartbeats is encoded and decoded for real */

enum format_status __real_superblock_decode(const void *buf, unsigned copy, const uint8_t *cluster, struct superblock *ret);
enum format_status __real_claims_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct claims *ret);
enum format_status __wrap_superblock_decode(const void *buf, unsigned copy, const uint8_t *cluster, struct superblock *ret);
const struct heartbeat *__wrap_heartbeat_view(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *space);
enum format_status __wrap_claims_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct claims *ret);

static struct block *free_blocks[2];
static struct snapshot *free_snapshots[256];
static unsigned n_free_snapshots;
static const struct snapshot *in_use;
/* The core only computes addresses in it. */
static uint8_t address_space[2 * FORMAT_CLAIMS_LEN * FORMAT_MAX_NODES];

static struct block *new_block(enum block_kind kind)
{
	struct block *b = free_blocks[kind];

	if (b)
		free_blocks[kind] = b->next_free;
	else
		b = pool_alloc(kind == BLOCK_HEARTBEAT ? offsetof(struct block, hb) + sizeof(b->hb) : sizeof(*b));
	CHECK(b);
	b->refs = 1;
	b->kind = kind;
	b->status = FORMAT_OK;
	return b;
}

struct block *block_ref(struct block *b)
{
	b->refs++;
	return b;
}

void block_unref(struct block *b)
{
	if (!b || --b->refs > 0)
		return;
	b->next_free = free_blocks[b->kind];
	free_blocks[b->kind] = b;
}

static void check_bytes(const struct heartbeat *hb)
{
	static uint8_t buf[FORMAT_BLOCK];
	static struct heartbeat back;

	heartbeat_encode(hb, sim.sb[0].cluster, 1, buf);
	CHECK(heartbeat_decode(buf, hb->node, 1, sim.sb[0].cluster, &back) == FORMAT_OK);
	CHECK(back.epoch == hb->epoch && back.seq == hb->seq && back.view == hb->view && memcmp(back.over, hb->over, sizeof(back.over)) == 0 &&
	      memcmp(back.commit, hb->commit, sizeof(back.commit)) == 0 && memcmp(back.intent, hb->intent, sizeof(back.intent)) == 0);
}

struct block *block_of_heartbeat(const struct heartbeat *hb)
{
	struct block *b = new_block(BLOCK_HEARTBEAT);

	b->hb = *hb;
	CHECK(hb->epoch <= FORMAT_MAX_EPOCH && hb->settled <= hb->epoch); /* else no reader would take it */
	if (hb->seq % SAMPLE == 0)
		check_bytes(hb);
	return b;
}

struct block *block_of_claims(const struct claims *c)
{
	struct block *b = new_block(BLOCK_CLAIMS);

	CHECK(c->n <= SIM_MAX_CLAIMS);
	b->cl.node = c->node;
	b->cl.epoch = c->epoch;
	b->cl.seq = c->seq;
	b->cl.n = c->n;
	memcpy(b->cl.claim, c->claim, c->n * sizeof(c->claim[0]));
	return b;
}

void block_land(struct volume_data *d, struct block *b, uint32_t node, unsigned buffer)
{
	struct block **at = &d->block[node - 1][b->kind][buffer];

	block_unref(*at);
	*at = block_ref(b);
}

static void to_bytes(const struct block *b, uint32_t node, unsigned buffer, uint8_t buf[FORMAT_BLOCK])
{
	static struct claims c;

	if (b->status != FORMAT_OK) {
		memset(buf, 0xa5, FORMAT_BLOCK);
		return;
	}
	if (b->kind == BLOCK_HEARTBEAT) {
		struct heartbeat hb = b->hb;

		hb.node = node;
		heartbeat_encode(&hb, sim.sb[0].cluster, buffer, buf);
		return;
	}
	c.node = node;
	c.epoch = b->cl.epoch;
	c.seq = b->cl.seq;
	c.n = b->cl.n;
	memcpy(c.claim, b->cl.claim, c.n * sizeof(c.claim[0]));
	claims_encode(&c, sim.sb[0].cluster, buffer, buf);
}

/* The first sectors of the new one, the rest of the old one, as the real decoders see it. */
static struct block *mix(const struct block *before, const struct block *b, uint32_t node, unsigned buffer)
{
	static uint8_t old[FORMAT_CLAIMS_LEN], new[FORMAT_CLAIMS_LEN];
	static struct claims c;
	struct heartbeat hb;
	struct block *torn = new_block(b->kind);

	to_bytes(before, node, buffer, old);
	to_bytes(b, node, buffer, new);
	memcpy(old, new, 512 * (1 + rnd(6)));
	torn->status = b->kind == BLOCK_HEARTBEAT ? heartbeat_decode(old, node, buffer, sim.sb[0].cluster, &hb) :
						    __real_claims_decode(old, node, buffer, sim.sb[0].cluster, &c);
	if (torn->status == FORMAT_OK && b->kind == BLOCK_HEARTBEAT) {
		torn->hb = hb;
	} else if (torn->status == FORMAT_OK) {
		block_unref(torn);
		torn = block_of_claims(&c);
	}
	return torn;
}

void block_tear(struct volume_data *d, const struct block *b, uint32_t node, unsigned buffer)
{
	struct block *torn = mix(d->block[node - 1][b->kind][buffer], b, node, buffer);

	block_land(d, torn, node, buffer);
	block_unref(torn);
}

bool snapshot_tear(struct snapshot *s, const struct block *b, uint32_t node, unsigned buffer)
{
	struct block **at = &s->block[node - 1][buffer], *torn = mix(*at, b, node, buffer);

	/* All that differs was written already: whoever reads after this must see it, too. Not what is wanted here. */
	if (torn->status == FORMAT_OK) {
		block_unref(torn);
		return false;
	}
	block_unref(*at);
	*at = torn;
	return true;
}

void block_spoil(struct volume_data *d, enum block_kind kind, uint32_t node, unsigned buffer, enum format_status status)
{
	struct block *b = new_block(kind);

	b->status = status;
	block_land(d, b, node, buffer);
	block_unref(b);
	if (kind == BLOCK_HEARTBEAT)
		check_lost(node);
}

/* `ha-ctl volume init`: a valid empty block in every slot. */
void blocks_format(unsigned volume)
{
	struct volume_data *d = &sim.target[volume].data;

	volset_blank(d);
	d->sb = FORMAT_OK;
	d->super = sim.sb[volume];
}

void volset_blank(struct volume_data *d)
{
	d->sb = FORMAT_E_BLANK;
	for (uint32_t node = 1; node <= sim.n_nodes; node++) {
		struct heartbeat hb = { .node = node };

		for (unsigned b = 0; b < 2; b++) {
			static struct claims c;
			struct block *h = block_of_heartbeat(&hb), *e;

			c.node = node;
			c.n = 0;
			e = block_of_claims(&c);
			block_land(d, h, node, b);
			block_land(d, e, node, b);
			block_unref(h);
			block_unref(e);
		}
	}
}

struct snapshot *snapshot_take(unsigned volume, const struct volume_data *d, enum block_kind kind)
{
	struct snapshot *s = n_free_snapshots ? free_snapshots[--n_free_snapshots] : malloc(sizeof(*s));

	CHECK(s);
	s->volume = volume;
	s->shows = sim.target[volume].shows;
	s->sb = s->shows ? s->shows : d->sb;
	s->super = d->super;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		for (unsigned b = 0; b < 2; b++)
			s->block[i][b] = block_ref(d->block[i][kind][b]);
	return s;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		for (unsigned b = 0; b < 2; b++)
			block_unref(s->block[i][b]);
	if (n_free_snapshots < ARRAY_SIZE(free_snapshots))
		free_snapshots[n_free_snapshots++] = s;
	else
		free(s);
}

const void *snapshot_use(const struct snapshot *s, enum block_kind kind)
{
	in_use = s;
	return address_space;
}

enum format_status __wrap_superblock_decode(const void *buf, unsigned copy, const uint8_t *cluster, struct superblock *ret)
{
	if (in_use->sb == FORMAT_OK)
		*ret = in_use->super;
	return in_use->sb;
}

const struct heartbeat *__wrap_heartbeat_view(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct heartbeat *space)
{
	const struct block *b = in_use->block[node - 1][buffer];

	return in_use->shows == FORMAT_OK && b->status == FORMAT_OK ? &b->hb : NULL;
}

enum format_status __wrap_claims_decode(const void *buf, uint32_t node, unsigned buffer, const uint8_t cluster[16], struct claims *ret)
{
	const struct block *b = in_use->block[node - 1][buffer];

	if (in_use->shows != FORMAT_OK)
		return in_use->shows;
	if (b->status != FORMAT_OK)
		return b->status;
	ret->node = b->cl.node;
	ret->epoch = b->cl.epoch;
	ret->seq = b->cl.seq;
	ret->n = b->cl.n;
	memcpy(ret->claim, b->cl.claim, b->cl.n * sizeof(b->cl.claim[0]));
	return FORMAT_OK;
}
