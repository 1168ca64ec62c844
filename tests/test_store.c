/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/store.c reading the catalog from volumes in memory: a starting agent whose newest catalog cannot be read on one of them, or on none. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agentd.h"
#include "agent/base/clock.h"
#include "storage/volop.h"
#include "tests/tap.h"

#define VOLUMES 3
#define NODES 2
#define PATIENCE_MS 5000
#define POLL_MS 2

struct volume {
	unsigned index;
	uint8_t *disk;
	bool bad[NODES][2];             /* no body of these can be read */
	enum volume_result bad_result;
	unsigned reads;                 /* of bodies */
};

static struct volume volume[VOLUMES];
static struct superblock sb = { .n_volumes = VOLUMES };
static struct agentd d;
static qb_loop_t *loop;
static unsigned catalogs, finished, told;

/* ---- volumes: bodies of two blocks, so that they are told from heads ---- */

struct volume *volset_volume(const struct volset *s, unsigned index) { return &volume[index]; }
bool volset_good(const struct volset *s, unsigned index) { return true; }
void volset_changed(struct volset *s, unsigned index) {}
const char *volume_why(const struct volume *v, enum volume_result result) { return "Medium Error"; }
void volume_write(struct volume *v, struct volume_io *io) { abort(); }

void *volset_buffer(size_t len)
{
	void *p = aligned_alloc(VOLUME_ALIGN, len);

	if (!p)
		abort();
	memset(p, 0, len);
	return p;
}

static enum volume_result read_now(struct volume *v, struct volume_io *io)
{
	if (io->len > FORMAT_BLOCK)
		v->reads++;
	for (uint32_t node = 1; node <= NODES; node++)
		for (unsigned b = 0; b < 2; b++)
			if (io->len > FORMAT_BLOCK && io->offset == format_catalog_offset(node, b) && v->bad[node - 1][b])
				return v->bad_result;
	memcpy(io->buf, v->disk + io->offset, io->len);
	return VOLUME_OK;
}

static void on_read(void *data)
{
	struct volume_io *io = data;
	enum volume_result r = read_now(io->volume, io);

	io->done(io, r);
	io->settled(io, r == VOLUME_E_SESSION ? VOLUME_DESTROYED : VOLUME_COMPLETED);
}

void volume_read(struct volume *v, struct volume_io *io)
{
	io->volume = v;
	if (qb_loop_job_add(loop, QB_LOOP_MED, io, on_read) != 0)
		abort();
}

/* ---- the rest of the agent ---- */

void agentd_event(struct agentd *x, const struct agent_event *ev) { finished += ev->kind == AGENT_EV_CATALOG_READ; }
void agentd_catalog_changed(struct agentd *x) { catalogs++; }
void agentd_set_changed(struct agentd *x) {}
const char *agentd_node_name(const struct agentd *x, uint32_t id) { return "n1"; }
void agentd_say(struct agentd *x, enum log_level level, const char *fmt, ...) { told++; }

/* ---- the tests ---- */

static void put(unsigned v, uint32_t node, unsigned buffer, uint64_t generation, uint64_t seq)
{
	static char json[FORMAT_BLOCK + 1024];
	static uint8_t block[4 * FORMAT_BLOCK];
	struct catalog_head head = { .node = node, .generation = generation, .seq = seq };

	(void)snprintf(json, sizeof(json), "{\"armed\":true,\"maintenance\":0,\"vms\":[]}%*s", FORMAT_BLOCK, "");
	head.len = (uint32_t)strlen(json);
	catalog_encode(&head, json, sb.cluster, buffer, block);
	memcpy(volume[v].disk + format_catalog_offset(node, buffer), block, catalog_block_len(head.len));
}

/* Node 1 wrote twice; on each volume its second catalog is the newest. */
static void begin(bool everywhere)
{
	memset(&d, 0, sizeof(d));
	catalogs = finished = told = 0;
	loop = d.loop = qb_loop_create();
	d.sb = &sb;
	d.conf.self_id = 2;
	d.conf.timing.io_ms = 1000;
	d.core.opt.node_max = NODES;
	for (unsigned v = 0; v < VOLUMES; v++) {
		uint8_t *disk = volume[v].disk ? volume[v].disk : calloc(1, format_catalog_offset(NODES + 1, 0));

		if (!disk)
			abort();
		volume[v] = (struct volume){ .index = v, .disk = disk, .bad_result = VOLUME_E_IO };
		for (uint32_t node = 1; node <= NODES; node++)
			for (unsigned b = 0; b < 2; b++)
				put(v, node, b, 1, node == 1 ? 5 + b : 1);
		volume[v].bad[0][1] = everywhere;
	}
}

static const unsigned *counter;
static unsigned want;
static int left_ms;

static void poll_counter(void *data)
{
	qb_loop_timer_handle h;

	left_ms -= POLL_MS;
	if ((counter && *counter >= want) || left_ms <= 0)
		qb_loop_stop(loop);
	else
		(void)qb_loop_timer_add(loop, QB_LOOP_LOW, POLL_MS * NS_PER_MS, NULL, poll_counter, &h);
}

static bool wait_for(const unsigned *what, unsigned least, int ms)
{
	counter = what;
	want = least;
	left_ms = ms;
	poll_counter(NULL);
	qb_loop_run(loop);
	return what && *what >= least;
}

static bool has(uint64_t seq) { return d.catalog && d.catalog->seq == seq; }

/* A store lives as long as its process, and so does what it has under way. */
static struct { struct store *store; qb_loop_t *loop; } kept[8];
static unsigned n_kept;

static void start(void)
{
	if (n_kept == ARRAY_SIZE(kept) || store_new(&d, &d.store) < 0)
		abort();
	kept[n_kept].store = d.store;
	kept[n_kept++].loop = loop;
}

static void test_one_bad(void)
{
	for (unsigned v = 0; v < VOLUMES; v++) {
		begin(false);
		volume[v].bad[0][1] = true;
		start();
		TAP_OK(wait_for(&catalogs, 1, PATIENCE_MS) && has(6), "the newest cannot be read on volume %u: read from another one", v + 1);
		store_lead(d.store, true);
		TAP_OK(wait_for(&finished, 1, PATIENCE_MS) && store_may_edit(d.store), "which is a whole read: a leader may edit");
		TAP_OK(told == volume[v].reads, "told if it was asked there at all");
		catalog_free(d.catalog);
	}
}

static void test_all_bad(void)
{
	begin(true);
	start();
	TAP_OK(wait_for(&catalogs, 1, PATIENCE_MS) && has(5), "the newest can be read nowhere: the one before it");
	store_lead(d.store, true);
	(void)wait_for(&finished, 1, 700);
	TAP_OK(finished == 0 && !store_may_edit(d.store), "which is no whole read: nothing is edited over what is there");
	TAP_OK(volume[0].reads > 1 && told == VOLUMES, "it is tried again and again, and told once a volume");
	volume[2].bad[0][1] = false;
	TAP_OK(wait_for(&finished, 1, PATIENCE_MS) && has(6) && store_may_edit(d.store), "read at last");
	catalog_free(d.catalog);
}

static void test_unanswered(void)
{
	begin(true);
	for (unsigned v = 0; v < VOLUMES; v++)
		volume[v].bad_result = VOLUME_E_SESSION;
	start();
	(void)wait_for(&catalogs, 1, 500);
	TAP_OK(catalogs == 0 && told == 0, "no volume answers for the newest: no older one is taken meanwhile");
	volume[1].bad[0][1] = false;
	TAP_OK(wait_for(&catalogs, 1, PATIENCE_MS) && has(6), "one does");
	catalog_free(d.catalog);
}

static void test_torn(void)
{
	begin(false);
	for (unsigned v = 0; v < VOLUMES; v++)
		volume[v].disk[format_catalog_offset(1, 1) + FORMAT_BLOCK + 7] ^= 1;
	start();
	store_lead(d.store, true);
	TAP_OK(wait_for(&finished, 1, PATIENCE_MS) && has(5) && store_may_edit(d.store), "a torn one never counted: the one before it is the newest");
	catalog_free(d.catalog);
}

int main(void)
{
	test_one_bad();
	test_all_bad();
	test_unanswered();
	test_torn();
	return tap_done();
}
