/* SPDX-License-Identifier: GPL-2.0-or-later */
/* volume init: makes a new cluster on blank volumes.
 *
 *   look at all of them -> [force: watch for W that nobody lives there -> wipe the superblocks] -> empty blocks into every slot -> read them
 *   back -> superblocks -> read them back
 *
 * Each step is done on all volumes before the next one begins. A superblock is what makes a volume count, so whatever stops this half way
 * leaves volumes that no keeper accepts; if it stops among the superblocks, those already written are wiped again. */
#include "agent/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <time.h>

#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/ctl_disk.h"

#define DEFAULT_NODE_LIMIT 16
#define WATCH_STEP_MS 250

struct target {
	struct ctl_disk *disk;
	bool blank, ours;     /* ours: something of our format is on it */
	bool has_old;
	struct superblock old; /* valid with has_old */
	uint8_t *table;        /* as first seen, CTL_DISK_TABLE_LEN bytes; only with ours */
};

struct init {
	const struct ctl *c;
	struct conf conf;
	uint32_t limit;
	struct superblock sb;
	struct target target[CONF_MAX_VOLUMES];
	bool force_used[CTL_MAX_FORCE];
	char err[CTL_DISK_ERROR_LEN];
};

static int failed(struct init *x, struct target *t, const char *doing)
{
	return ctl_fail(x->c, CTL_FAILED, "%s: %s failed: %s", ctl_disk_url(t->disk), doing, x->err);
}

_printf_(2, 3) static void say(const struct init *x, const char *fmt, ...)
{
	va_list ap;

	if (x->c->json)
		return;
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	(void)fflush(stdout);
}

static bool all_zero(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

static int look(struct init *x, struct target *t)
{
	_cleanup_free_ uint8_t *chunk = malloc(CTL_DISK_CHUNK);
	uint64_t need = format_volume_len(x->limit), end;
	enum format_status st = FORMAT_OK;

	CHECK(chunk);
	if (ctl_disk_size(t->disk) < need)
		return ctl_fail(x->c, CTL_FAILED, "%s has %" PRIu64 " bytes; room for %" PRIu32 " nodes takes %" PRIu64 " (%" PRIu64
				" MiB): make it larger, or give a smaller --nodes-max", ctl_disk_url(t->disk), ctl_disk_size(t->disk), x->limit, need,
				need >> 20);
	t->blank = true;
	for (uint64_t at = 0; at < need && t->blank; at = end) {
		end = MIN(at + CTL_DISK_CHUNK, need);
		if (ctl_disk_read(t->disk, at, chunk, (size_t)(end - at), x->err, sizeof(x->err)) < 0)
			return failed(x, t, "reading it");
		t->blank = all_zero(chunk, (size_t)(end - at));
	}
	if (t->blank)
		return 0;
	if (ctl_disk_superblock(t->disk, &t->old, &st, x->err, sizeof(x->err)) < 0)
		return failed(x, t, "reading its superblock");
	t->has_old = st == FORMAT_OK;
	t->ours = st != FORMAT_E_BLANK && st != FORMAT_E_FOREIGN;
	t->table = malloc(CTL_DISK_TABLE_LEN);
	CHECK(t->table);
	if (ctl_disk_read(t->disk, 0, t->table, CTL_DISK_TABLE_LEN, x->err, sizeof(x->err)) < 0)
		return failed(x, t, "reading its heartbeats");
	for (unsigned i = 0; i < CTL_DISK_SLOTS && !t->ours; i++)
		t->ours = ctl_disk_is_ours(t->table, i);
	return 0;
}

static bool is_forced(struct init *x, const struct target *t)
{
	bool forced = false;

	for (size_t i = 0; i < x->c->n_force; i++)
		if (streq(x->c->force[i], ctl_disk_url(t->disk)) || (t->has_old && streq(x->c->force[i], t->old.cluster_name)))
			x->force_used[i] = forced = true;
	return forced;
}

static int judge(struct init *x, struct target *t)
{
	const char *url = ctl_disk_url(t->disk);

	if (is_forced(x, t) || t->blank) {
		say(x, "%s: %s, %" PRIu64 " MiB\n", url, t->blank ? "blank" : "not blank, to be overwritten as you said", ctl_disk_size(t->disk) >> 20);
		return 0;
	}
	if (t->has_old)
		return ctl_fail(x->c, CTL_FAILED, "%s belongs to cluster %s (volume %" PRIu32 " of %" PRIu32
				"). If that cluster is given up, add --force %s or --force %s",
				url, t->old.cluster_name, t->old.index + 1, t->old.n_volumes, t->old.cluster_name, url);
	if (t->ours)
		return ctl_fail(x->c, CTL_FAILED, "%s holds kvm-ha blocks without a valid superblock: damaged, or an initialisation that broke off. "
				"If nothing on it is needed, add --force %s", url, url);
	return ctl_fail(x->c, CTL_FAILED, "%s holds data that is not ours. Check that it is the right volume; if nothing on it is needed, add --force %s",
			url, url);
}

/* Says who lives if a slot has changed since it was first read. */
static int look_for_life(struct init *x, struct target *t, uint8_t *table)
{
	int node = ctl_disk_who_lives(t->disk, t->table, table, x->err, sizeof(x->err));

	if (node < 0)
		return failed(x, t, "reading its heartbeats");
	return node == 0 ? 0 : ctl_fail(x->c, CTL_FAILED, "%s is in use: node %d of cluster %s writes heartbeats. Stop ha-agent and ha-keeper on all of its nodes first",
					ctl_disk_url(t->disk), node, t->has_old ? t->old.cluster_name : "(superblock damaged)");
}

/* A keeper writes every Heartbeat; what does not move for W is over (DESIGN, taking over). */
static int watch(struct init *x)
{
	_cleanup_free_ uint8_t *table = malloc(CTL_DISK_TABLE_LEN);
	struct timespec step = { .tv_nsec = WATCH_STEP_MS * NS_PER_MS };
	uint32_t w_ms = 0;
	int r;

	CHECK(table);
	for (size_t i = 0; i < x->conf.n_volumes; i++) {
		struct target *t = &x->target[i];

		if (t->ours)
			w_ms = MAX(w_ms, MAX(x->conf.timing.w_ms, t->has_old ? t->old.timing.w_ms : 0));
	}
	if (w_ms == 0)
		return 0;
	if (w_ms > timing_values[TIMING_W].max)
		w_ms = timing_values[TIMING_W].max; /* read from a volume: a number like any other */
	say(x, "watching for %" PRIu32 ".%" PRIu32 " s whether the former cluster still lives ...\n", w_ms / 1000, w_ms % 1000 / 100);
	for (uint32_t waited = 0; waited <= w_ms; waited += WATCH_STEP_MS) {
		(void)nanosleep(&step, NULL);
		for (size_t i = 0; i < x->conf.n_volumes; i++) {
			r = x->target[i].ours ? look_for_life(x, &x->target[i], table) : 0;
			if (r != 0)
				return r;
		}
	}
	return 0;
}

static int wipe_superblocks(struct init *x, struct target *t)
{
	static const uint8_t zero[2 * FORMAT_BLOCK];

	return ctl_disk_write(t->disk, 0, zero, sizeof(zero), x->err, sizeof(x->err));
}

/* Heartbeats and claims of all slots as they lie on the volume; the catalogs' first blocks are written one by one. */
static int write_slots(struct init *x, struct target *t)
{
	size_t table_len = format_table_len(x->limit) - FORMAT_TABLE_OFFSET, claims_len = 2ULL * x->limit * FORMAT_CLAIMS_LEN;
	_cleanup_free_ uint8_t *table = malloc(table_len), *claims = malloc(claims_len);
	uint8_t block[FORMAT_BLOCK];
	int r;

	CHECK(table && claims && catalog_block_len(0) == sizeof(block));
	for (uint32_t i = 0; i < 2 * x->limit; i++) {
		struct heartbeat hb = { .node = i / 2 + 1 };
		static struct claims none;

		none.node = hb.node;
		heartbeat_encode(&hb, x->sb.cluster, i % 2, table + format_heartbeat_offset(hb.node, i % 2) - FORMAT_TABLE_OFFSET);
		claims_encode(&none, x->sb.cluster, i % 2, claims + format_claims_offset(hb.node, i % 2) - FORMAT_CLAIMS_OFFSET);
	}
	r = ctl_disk_write(t->disk, FORMAT_TABLE_OFFSET, table, table_len, x->err, sizeof(x->err));
	if (r == 0)
		r = ctl_disk_write(t->disk, FORMAT_CLAIMS_OFFSET, claims, claims_len, x->err, sizeof(x->err));
	for (uint32_t i = 0; r == 0 && i < 2 * x->limit; i++) {
		struct catalog_head head = { .node = i / 2 + 1 };

		catalog_encode(&head, "", x->sb.cluster, i % 2, block);
		r = ctl_disk_write(t->disk, format_catalog_offset(head.node, i % 2), block, sizeof(block), x->err, sizeof(x->err));
	}
	return r;
}

/* 0, -EIO if it cannot be read, -EBADMSG if a slot does not hold what was written. */
static int check_slot(struct init *x, struct target *t, uint32_t node, unsigned buffer, uint8_t *buf)
{
	static struct claims claims;
	struct heartbeat hb;
	struct catalog_head head;
	const char *payload;

	if (ctl_disk_read(t->disk, format_heartbeat_offset(node, buffer), buf, FORMAT_BLOCK, x->err, sizeof(x->err)) < 0)
		return -EIO;
	if (heartbeat_decode(buf, node, buffer, x->sb.cluster, &hb) != FORMAT_OK || hb.epoch != 0)
		return -EBADMSG;
	if (ctl_disk_read(t->disk, format_claims_offset(node, buffer), buf, FORMAT_CLAIMS_LEN, x->err, sizeof(x->err)) < 0)
		return -EIO;
	if (claims_decode(buf, node, buffer, x->sb.cluster, &claims) != FORMAT_OK || claims.n != 0)
		return -EBADMSG;
	if (ctl_disk_read(t->disk, format_catalog_offset(node, buffer), buf, FORMAT_BLOCK, x->err, sizeof(x->err)) < 0)
		return -EIO;
	if (catalog_decode(buf, FORMAT_BLOCK, node, buffer, x->sb.cluster, &head, &payload) != FORMAT_OK || head.len != 0)
		return -EBADMSG;
	return 0;
}

static int check_slots(struct init *x, struct target *t)
{
	_cleanup_free_ uint8_t *buf = malloc(FORMAT_CLAIMS_LEN);

	CHECK(buf);
	for (uint32_t i = 0; i < 2 * x->limit; i++) {
		int r = check_slot(x, t, i / 2 + 1, i % 2, buf);

		if (r == -EBADMSG)
			(void)snprintf(x->err, sizeof(x->err), "slot of node %" PRIu32 " does not hold what was written: does something else write to it?",
				       i / 2 + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_superblocks(struct init *x, struct target *t, uint32_t index)
{
	uint8_t want[2 * FORMAT_BLOCK], got[2 * FORMAT_BLOCK];
	struct superblock sb = x->sb;
	int r;

	sb.index = index;
	for (unsigned copy = 0; copy < 2; copy++)
		superblock_encode(&sb, copy, want + format_superblock_offset(copy));
	r = ctl_disk_write(t->disk, 0, want, sizeof(want), x->err, sizeof(x->err));
	if (r == 0)
		r = ctl_disk_read(t->disk, 0, got, sizeof(got), x->err, sizeof(x->err));
	if (r == 0 && memcmp(want, got, sizeof(want)) != 0) {
		(void)snprintf(x->err, sizeof(x->err), "the superblock does not read back as it was written");
		return -EBADMSG;
	}
	return r;
}

static int write_all(struct init *x)
{
	static const struct {
		const char *doing;
		int (*run)(struct init *x, struct target *t);
	} steps[] = { { "wiping its superblock", wipe_superblocks }, { "writing its slots", write_slots }, { "checking its slots", check_slots } };
	size_t n = x->conf.n_volumes;

	for (size_t s = 0; s < ARRAY_SIZE(steps); s++)
		for (size_t i = 0; i < n; i++)
			if (steps[s].run(x, &x->target[i]) < 0)
				return failed(x, &x->target[i], steps[s].doing);
	for (size_t i = 0; i < n; i++) {
		int r;

		if (write_superblocks(x, &x->target[i], (uint32_t)i) == 0) {
			say(x, "%s: initialised and read back\n", ctl_disk_url(x->target[i].disk));
			continue;
		}
		r = failed(x, &x->target[i], "writing its superblock");
		for (size_t k = 0; k <= i; k++)
			if (wipe_superblocks(x, &x->target[k]) < 0)
				(void)fprintf(stderr, "ha-ctl: %s: its superblock could not be taken back: %s; initialise again before any use\n",
					      ctl_disk_url(x->target[k].disk), x->err);
		return r;
	}
	return 0;
}

static int check_arguments(struct init *x)
{
	const struct ctl *c = x->c;
	char err[160] = "";
	uint32_t highest = x->conf.nodes[x->conf.n_nodes - 1].id;

	x->limit = c->nodes_max ? c->nodes_max : MAX(DEFAULT_NODE_LIMIT, highest);
	if (x->limit < highest)
		return ctl_fail(c, CTL_USAGE, "--nodes-max %" PRIu32 ": Nodes= has a node with id %" PRIu32, x->limit, highest);
	if (c->n_args > 0 && (size_t)c->n_args != x->conf.n_volumes)
		return ctl_fail(c, CTL_FAILED, "%d URLs are given and Volumes= has %zu; give the same, in the same order, or none", c->n_args,
				x->conf.n_volumes);
	for (int i = 0; i < c->n_args; i++) {
		if (value_place_check(c->args[i], err, sizeof(err)) < 0)
			return ctl_fail(c, CTL_USAGE, "argument %d: %s", i + 1, err);
		if (!value_same_place(c->args[i], x->conf.volumes[i]))
			return ctl_fail(c, CTL_FAILED, "%s is not volume %d of Volumes= (%s); give the same, in the same order, or none", c->args[i], i + 1,
					x->conf.volumes[i]);
	}
	return 0;
}

static int draw(struct init *x)
{
	int r;

	x->sb.generation = 1;
	x->sb.n_volumes = (uint32_t)x->conf.n_volumes;
	x->sb.node_limit = x->limit;
	x->sb.timing = x->conf.timing;
	(void)str_copy(x->sb.cluster_name, sizeof(x->sb.cluster_name), x->conf.cluster);
	r = uuid_random(x->sb.cluster);
	for (size_t i = 0; r == 0 && i < x->conf.n_volumes; i++)
		r = uuid_random(x->sb.set[i]);
	return r == 0 ? 0 : ctl_fail(x->c, CTL_AGAIN, "no randomness yet: %s; try again when the host has been up a little longer", strerror(-r));
}

static int run(struct init *x)
{
	int r = check_arguments(x);

	for (size_t i = 0; r == 0 && i < x->conf.n_volumes; i++)
		if (ctl_disk_open(x->conf.volumes[i], &x->conf, false, &x->target[i].disk, x->err, sizeof(x->err)) < 0)
			r = ctl_fail(x->c, CTL_FAILED, "%s: %s", x->conf.volumes[i], x->err);
	for (size_t i = 0; r == 0 && i < x->conf.n_volumes; i++) {
		r = look(x, &x->target[i]);
		if (r == 0)
			r = judge(x, &x->target[i]);
	}
	for (size_t i = 0; r == 0 && i < x->c->n_force; i++)
		if (!x->force_used[i])
			r = ctl_fail(x->c, CTL_FAILED, "--force %.200s: no volume of Volumes= has this URL or belongs to a cluster of this name; nothing was written",
				     x->c->force[i]);
	if (r == 0)
		r = watch(x);
	if (r == 0)
		r = draw(x);
	return r == 0 ? write_all(x) : r;
}

static void print_result(const struct init *x)
{
	char uuid[UUID_STR_LEN];
	json_object *o, *urls;

	uuid_format(x->sb.cluster, uuid);
	if (!x->c->json) {
		(void)printf("Cluster %s is made: %zu volume%s, room for node ids 1 to %" PRIu32 ", UUID %s.\n"
			     "Next: start corosync, ha-keeper and ha-agent on every node, then `ha-ctl arm`.\n",
			     x->sb.cluster_name, x->conf.n_volumes, x->conf.n_volumes == 1 ? "" : "s", x->limit, uuid);
		return;
	}
	o = json_object_new_object();
	urls = json_object_new_array();
	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(true));
	json_object_object_add(o, "cluster", json_object_new_string(x->sb.cluster_name));
	json_object_object_add(o, "uuid", json_object_new_string(uuid));
	json_object_object_add(o, "node_limit", json_object_new_int64(x->limit));
	for (size_t i = 0; i < x->conf.n_volumes; i++)
		json_object_array_add(urls, json_object_new_string(x->conf.volumes[i]));
	json_object_object_add(o, "volumes", urls);
	ctl_print_json(o);
	json_object_put(o);
}

int ctl_volume_init(const struct ctl *c)
{
	struct init *x = calloc(1, sizeof(*x));
	int r;

	CHECK(x);
	x->c = c;
	r = ctl_conf(c, &x->conf);
	if (r == 0) {
		r = run(x);
		if (r == 0)
			print_result(x);
	}
	for (size_t i = 0; i < CONF_MAX_VOLUMES; i++) {
		ctl_disk_close(x->target[i].disk);
		free(x->target[i].table);
	}
	free(x);
	return r;
}
