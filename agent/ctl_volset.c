/* SPDX-License-Identifier: GPL-2.0-or-later */
/* volume add, remove, replace: carries out what storage/setchange.h decides, one step after the other. */
#include "agent/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/base/clock.h"
#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/ctl_disk.h"
#include "storage/setchange.h"

#define LOCK_DIR "/run/kvm-ha"
#define LOCK_FILE LOCK_DIR "/volume.lock"
#define ALIVE_MS 1000 /* a target ends the session of an initiator that answers none of its pings for some seconds; they are answered while something is read */

struct change {
	const struct ctl *c;
	struct conf conf;
	struct setchange s;
	struct ctl_disk *disk[SETCHANGE_MAX];
	const char *url[SETCHANGE_MAX];
	int64_t looked_ns;
	char err[CTL_DISK_ERROR_LEN], last_err[CTL_DISK_ERROR_LEN]; /* last: with its volume, of the step that failed */
	uint8_t *a, *b; /* FORMAT_CATALOG_LEN bytes each */
};

static int rd(struct change *x, unsigned v, uint64_t at, void *buf, size_t len) { return ctl_disk_read(x->disk[v], at, buf, len, x->err, sizeof(x->err)); }

/* One process on this host; the kernel lets go when it ends, however it does. */
static int lock(const struct ctl *c)
{
	int fd;

	(void)mkdir(LOCK_DIR, 0750);
	fd = open(LOCK_FILE, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return ctl_fail(c, CTL_FAILED, "cannot open " LOCK_FILE ": %s", strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return ctl_fail(c, CTL_AGAIN, "another ha-ctl changes the volume set on this host: wait for it");
	return 0;
}

static void add_volume(struct change *x, const char *url, int index, bool is_new)
{
	x->url[x->s.n] = url;
	x->s.volume[x->s.n] = (struct setchange_volume){ .index = index, .is_new = is_new };
	x->s.n++;
}

static int place_in_conf(const struct conf *conf, const char *url)
{
	for (size_t i = 0; i < conf->n_volumes; i++)
		if (value_same_place(url, conf->volumes[i]))
			return (int)i;
	return -1;
}

static int take_arguments(struct change *x, enum setchange_kind kind)
{
	const struct ctl *c = x->c;
	const char *goes = kind == SETCHANGE_ADD ? NULL : c->args[0];
	const char *comes = kind == SETCHANGE_ADD ? c->args[0] : kind == SETCHANGE_REMOVE ? NULL : c->n_args > 1 ? c->args[1] : c->args[0];
	char err[160] = "";

	for (int i = 0; i < c->n_args; i++)
		if (value_place_check(c->args[i], err, sizeof(err)) < 0)
			return ctl_fail(c, CTL_USAGE, "argument %d: %s", i + 1, err);
	x->s.in_place = goes && comes && value_same_place(goes, comes);
	if (comes && place_in_conf(&x->conf, comes) < 0)
		return ctl_fail(c, CTL_FAILED, "%s is not in Volumes=: put it there on every node first, %s", comes,
				goes ? "in the place of the one it replaces" : "as the last one");
	if (goes && !x->s.in_place && place_in_conf(&x->conf, goes) >= 0)
		return ctl_fail(c, CTL_FAILED, "%s is still in Volumes=: take it out on every node first", goes);
	for (size_t i = 0; i < x->conf.n_volumes; i++)
		add_volume(x, x->conf.volumes[i], (int)i, comes && value_same_place(comes, x->conf.volumes[i]));
	if (goes && !x->s.in_place)
		add_volume(x, goes, -1, false);
	x->s.kind = kind;
	x->s.lost = c->lost;
	x->s.timing = x->conf.timing;
	(void)str_copy(x->s.cluster_name, sizeof(x->s.cluster_name), x->conf.cluster);
	return uuid_random(x->s.change) == 0 && uuid_random(x->s.incarnation) == 0 ? 0 : ctl_fail(c, CTL_AGAIN, "no randomness yet: try again later");
}

static int look(struct change *x, unsigned v)
{
	uint8_t block[2 * FORMAT_BLOCK];

	if (!x->s.chained)
		x->looked_ns = clock_host_ns();
	if (!x->disk[v] || rd(x, v, 0, block, sizeof(block)) < 0)
		return -EIO;
	x->s.volume[v].status = setchange_superblock(block, &x->s.volume[v].sb);
	x->s.volume[v].torn = setchange_torn(block);
	return 0;
}

/* Which of a slot's two buffers is the newer valid one, decoded; -1: neither. */
static int newest_heartbeat(const uint8_t *pair, uint32_t node, const uint8_t cluster[16], struct heartbeat *ret)
{
	int newest = -1;

	for (unsigned b = 0; b < 2; b++) {
		struct heartbeat hb;

		if (heartbeat_decode(pair + b * FORMAT_BLOCK, node, b, cluster, &hb) != FORMAT_OK)
			continue;
		if (newest >= 0 && format_compare(hb.epoch, hb.seq, ret->epoch, ret->seq) <= 0)
			continue;
		*ret = hb;
		newest = (int)b;
	}
	return newest;
}

static int newest_claims(const uint8_t *pair, uint32_t node, const uint8_t cluster[16], struct claims *ret)
{
	static struct claims cl;
	int newest = -1;

	for (unsigned b = 0; b < 2; b++) {
		if (claims_decode(pair + (size_t)b * FORMAT_CLAIMS_LEN, node, b, cluster, &cl) != FORMAT_OK)
			continue;
		if (newest >= 0 && format_compare(cl.epoch, cl.seq, ret->epoch, ret->seq) <= 0)
			continue;
		*ret = cl;
		newest = (int)b;
	}
	return newest;
}

/* Leaves the newest whole catalog of the node in x->a; 1: there is none, negative: reading failed. */
static int newest_catalog(struct change *x, unsigned v, uint32_t node, struct catalog_head *ret, const char **ret_payload)
{
	bool any = false;

	for (unsigned b = 0; b < 2; b++) {
		struct catalog_head head;
		uint32_t len;
		const char *payload;

		if (rd(x, v, format_catalog_offset(node, b), x->b, FORMAT_BLOCK) < 0)
			return -EIO;
		if (!catalog_peek(x->b, x->s.former.cluster, &head, &len) || len > FORMAT_CATALOG_LEN)
			continue;
		if (len > FORMAT_BLOCK && rd(x, v, format_catalog_offset(node, b), x->b, len) < 0)
			return -EIO;
		if (catalog_decode(x->b, len, node, b, x->s.former.cluster, &head, &payload) != FORMAT_OK)
			continue;
		if (any && (head.generation < ret->generation || (head.generation == ret->generation && head.seq <= ret->seq)))
			continue;
		*ret = head;
		*ret_payload = (const char *)x->a + (payload - (const char *)x->b);
		memcpy(x->a, x->b, len);
		any = true;
	}
	return any ? 0 : 1;
}

static int read_state(struct change *x, unsigned v)
{
	static struct claims claims;
	struct setchange_state *st = &x->s.volume[v].state;
	const uint8_t *cluster = x->s.former.cluster;

	memset(st, 0, sizeof(*st));
	for (uint32_t id = 1; id <= x->s.former.node_limit; id++) {
		struct setchange_slot *s = st->slot[id - 1];
		struct heartbeat hb;
		struct catalog_head head;
		const char *payload;
		int r;

		if (rd(x, v, format_heartbeat_offset(id, 0), x->a, 2 * FORMAT_BLOCK) < 0)
			return -EIO;
		if (newest_heartbeat(x->a, id, cluster, &hb) >= 0) {
			s[SETCHANGE_HEARTBEAT] = (struct setchange_slot){
				.readable = true, .epoch = hb.epoch, .seq = hb.seq, .state = hb.state, .claims_seq = hb.claims_seq,
			};
			memcpy(s[SETCHANGE_HEARTBEAT].over, hb.over, sizeof(hb.over));
			memcpy(s[SETCHANGE_HEARTBEAT].commit, hb.commit, sizeof(hb.commit));
		}
		if (rd(x, v, format_claims_offset(id, 0), x->a, 2UL * FORMAT_CLAIMS_LEN) < 0)
			return -EIO;
		if (newest_claims(x->a, id, cluster, &claims) >= 0)
			s[SETCHANGE_CLAIMS] = (struct setchange_slot){ .readable = true, .epoch = claims.epoch, .seq = claims.seq };
		r = newest_catalog(x, v, id, &head, &payload);
		if (r < 0)
			return r;
		if (r == 0)
			s[SETCHANGE_CATALOG] = (struct setchange_slot){ .readable = true, .epoch = head.epoch, .seq = head.seq, .generation = head.generation };
	}
	return 0;
}

static bool stood_still(struct change *x)
{
	if (clock_host_ns() - x->looked_ns <= setchange_looked_ms(&x->s) * NS_PER_MS)
		return false;
	(void)snprintf(x->err, sizeof(x->err), "this host stood still for too long, or the volumes are very slow");
	return true;
}

static int write_and_check(struct change *x, unsigned v, uint64_t at, const void *buf, size_t len)
{
	_cleanup_free_ uint8_t *got = malloc(len);

	CHECK(got);
	if (stood_still(x))
		return -ETIMEDOUT;
	if (ctl_disk_write(x->disk[v], at, buf, len, x->err, sizeof(x->err)) < 0 || rd(x, v, at, got, len) < 0)
		return -EIO;
	if (memcmp(buf, got, len) == 0)
		return 0;
	(void)snprintf(x->err, sizeof(x->err), "what was written at byte %" PRIu64 " does not read back", at);
	return -EBADMSG;
}

static int write_superblock(struct change *x, unsigned v)
{
	uint8_t block[2 * FORMAT_BLOCK];

	for (unsigned copy = 0; copy < 2; copy++)
		superblock_encode(&x->s.sb, copy, block + format_superblock_offset(copy));
	return write_and_check(x, v, 0, block, sizeof(block));
}

/* The look is as old as one operation then, however slow the volume is. */
static int copy_block(struct change *x, unsigned to, uint64_t at, const void *buf, size_t len)
{
	int r = look(x, to);

	if (r == 0 && !setchange_holds(&x->s, x->s.volume[to].status, &x->s.volume[to].sb)) {
		(void)snprintf(x->err, sizeof(x->err), "somebody else writes to it");
		return -EBUSY;
	}
	return r < 0 ? r : write_and_check(x, to, at, buf, len);
}

static int copy_node(struct change *x, unsigned to, uint32_t id)
{
	static struct claims claims;
	const unsigned *from = x->s.from[id - 1];
	const uint8_t *cluster = x->s.former.cluster;
	_cleanup_free_ uint8_t *out = malloc(FORMAT_CATALOG_LEN);
	struct heartbeat hb;
	struct catalog_head head;
	const char *payload;

	CHECK(out);
	memset(&claims, 0, sizeof(claims));
	if (rd(x, from[SETCHANGE_HEARTBEAT], format_heartbeat_offset(id, 0), x->a, 2 * FORMAT_BLOCK) < 0)
		return -EIO;
	if (newest_heartbeat(x->a, id, cluster, &hb) < 0)
		return -EBADMSG;
	if (rd(x, from[SETCHANGE_CLAIMS], format_claims_offset(id, 0), x->a, 2UL * FORMAT_CLAIMS_LEN) < 0)
		return -EIO;
	if (newest_claims(x->a, id, cluster, &claims) < 0)
		return -EBADMSG;
	for (unsigned b = 0; b < 2; b++) {
		heartbeat_encode(&hb, cluster, b, out);
		if (copy_block(x, to, format_heartbeat_offset(id, b), out, FORMAT_BLOCK) < 0)
			return -EIO;
		claims_encode(&claims, cluster, b, out);
		if (copy_block(x, to, format_claims_offset(id, b), out, claims_block_len(claims.n)) < 0)
			return -EIO;
	}
	if (newest_catalog(x, from[SETCHANGE_CATALOG], id, &head, &payload) != 0)
		return -EIO;
	for (unsigned b = 0; b < 2; b++) {
		catalog_encode(&head, payload, cluster, b, out);
		if (copy_block(x, to, format_catalog_offset(id, b), out, catalog_block_len(head.len)) < 0)
			return -EIO;
	}
	return 0;
}

static int copy_all(struct change *x, unsigned to)
{
	int r = 0;

	for (uint32_t id = 1; r == 0 && id <= x->s.former.node_limit; id++)
		r = copy_node(x, to, id);
	return r;
}

static bool any_finished(const struct setchange *s)
{
	bool any = false;

	for (unsigned i = 0; i < s->n; i++)
		any = any || s->volume[i].finished;
	return any;
}

static bool any_frozen(const struct setchange *s)
{
	bool any = any_finished(s);

	for (unsigned i = 0; i < s->n; i++)
		any = any || s->volume[i].frozen;
	return any;
}

/* One that cannot be read is found so when it is looked at next. */
static void wait_and_read(struct change *x, uint32_t ms)
{
	uint8_t block[FORMAT_BLOCK];
	char err[CTL_DISK_ERROR_LEN];

	for (uint32_t step_ms; ms > 0; ms -= step_ms) {
		struct timespec ts;

		step_ms = MIN(ms, ALIVE_MS);
		ts = (struct timespec){ .tv_sec = step_ms / 1000, .tv_nsec = (long)(step_ms % 1000) * NS_PER_MS };
		while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
			;
		for (unsigned v = 0; v < x->s.n; v++)
			if (x->disk[v])
				(void)ctl_disk_read(x->disk[v], 0, block, sizeof(block), err, sizeof(err));
	}
}

static bool step(struct change *x)
{
	unsigned v = x->s.at;
	int r = 0;

	*x->err = '\0';
	switch (x->s.act) {
	case SETCHANGE_LOOK:
		r = look(x, v);
		break;
	case SETCHANGE_STATE:
		r = read_state(x, v);
		break;
	case SETCHANGE_WRITE:
		r = write_superblock(x, v);
		break;
	case SETCHANGE_COPY:
		r = copy_all(x, v);
		break;
	case SETCHANGE_WAIT:
		if (!x->c->json && !any_frozen(&x->s))
			(void)printf("watching for %" PRIu32 " s whether a node lives ...\n", x->s.ms / 1000 + 1);
		else if (!x->c->json)
			(void)printf("%s: no VM is started for about %" PRIu32 " s; guests run on ...\n",
				     any_finished(&x->s) ? "a first volume shows the new set; it must stay so" : "the present set is frozen", x->s.ms / 1000 + 1);
		(void)fflush(stdout);
		wait_and_read(x, x->s.ms);
		break;
	default:
		return false;
	}
	if (r < 0)
		(void)snprintf(x->last_err, sizeof(x->last_err), "%.120s: %s: %.100s", x->url[v], setchange_text(&x->s), *x->err ? x->err : strerror(-r));
	setchange_next(&x->s, r == 0);
	return true;
}

static bool all_zero(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

static bool is_forced(const struct change *x, unsigned v)
{
	for (size_t i = 0; i < x->c->n_force; i++)
		if (value_same_place(x->c->force[i], x->url[v]))
			return true;
	return false;
}

/* What a volume's first blocks say of whose it is. */
struct owner {
	bool ours, kvm_ha, has_sb; /* ours: this cluster's; kvm_ha: blocks of our format are on it */
	struct superblock sb;      /* with has_sb */
};

/* A superblock says whose a volume is; of two copies that differ another cluster's. Only where it is blank or damaged do the slots tell, all of them together: those of a cluster that has gone lie there for ever,
 * under another cluster's superblock, or another program's data. */
static void find_owner(const uint8_t *table, const uint8_t cluster[16], uint32_t limit, struct owner *ret)
{
	bool others = false;
	struct heartbeat hb;

	*ret = (struct owner){ .ours = false };
	for (unsigned i = 0; i < CTL_DISK_SLOTS; i++)
		ret->kvm_ha = ret->kvm_ha || ctl_disk_is_ours(table, i);
	for (unsigned copy = 0; copy < 2; copy++) {
		struct superblock sb;
		enum format_status st = superblock_decode(table + format_superblock_offset(copy), copy, NULL, &sb);

		ret->kvm_ha = ret->kvm_ha || (st != FORMAT_E_BLANK && st != FORMAT_E_FOREIGN);
		others = others || st == FORMAT_E_FOREIGN || st == FORMAT_E_VERSION;
		if (st != FORMAT_OK || (ret->has_sb && !ret->ours))
			continue;
		ret->has_sb = true;
		ret->ours = memcmp(sb.cluster, cluster, 16) == 0;
		ret->sb = sb;
	}
	if (ret->has_sb)
		return;
	for (uint32_t id = 1; id <= limit; id++) {
		const uint8_t *pair = table + format_heartbeat_offset(id, 0);

		ret->ours = ret->ours || newest_heartbeat(pair, id, cluster, &hb) >= 0;
		for (unsigned b = 0; b < 2; b++)
			others = others || heartbeat_decode(pair + b * FORMAT_BLOCK, id, b, cluster, &hb) == FORMAT_E_CLUSTER;
	}
	ret->ours = ret->ours && !others;
}

/* A cluster that is given up writes nothing any more: as long as one of its nodes could take to be over. */
static int check_given_up(struct change *x, unsigned v, const struct owner *o, const uint8_t *table)
{
	_cleanup_free_ uint8_t *now = malloc(CTL_DISK_TABLE_LEN);
	uint32_t w_ms = MIN(MAX(x->conf.timing.w_ms, o->has_sb ? o->sb.timing.w_ms : 0), timing_values[TIMING_W].max);
	int node = 0;

	CHECK(now);
	if (!x->c->json)
		(void)printf("%s: watching for %" PRIu32 " s whether its former cluster still lives ...\n", x->url[v], w_ms / 1000 + 1);
	(void)fflush(stdout);
	for (uint32_t waited_ms = 0; waited_ms <= w_ms && node == 0; waited_ms += ALIVE_MS) {
		wait_and_read(x, ALIVE_MS);
		node = ctl_disk_who_lives(x->disk[v], table, now, x->err, sizeof(x->err));
	}
	if (node < 0)
		return ctl_fail(x->c, CTL_FAILED, "%s: reading it failed: %s", x->url[v], x->err);
	return node == 0 ? 0 : ctl_fail(x->c, CTL_FAILED, "%s is in use: node %d of cluster %s writes heartbeats. Nothing was written", x->url[v], node,
					o->has_sb ? o->sb.cluster_name : "(superblock damaged)");
}

/* Nobody's data is overwritten unasked: blank, or of this cluster, or forced. */
static int check_new(struct change *x, unsigned v, const uint8_t cluster[16], uint32_t limit)
{
	_cleanup_free_ uint8_t *table = malloc(CTL_DISK_TABLE_LEN);
	uint64_t need = format_volume_len(limit);
	struct owner o;
	bool blank = true;

	CHECK(table);
	if (ctl_disk_size(x->disk[v]) < need)
		return ctl_fail(x->c, CTL_FAILED, "%s has %" PRIu64 " bytes, the cluster's volumes need %" PRIu64 ": make it larger", x->url[v],
				ctl_disk_size(x->disk[v]), need);
	for (uint64_t at = 0; at < need && blank; at += CTL_DISK_CHUNK) {
		size_t n = (size_t)MIN(need - at, CTL_DISK_CHUNK);

		if (rd(x, v, at, x->a, n) < 0)
			return ctl_fail(x->c, CTL_FAILED, "%s: reading it failed: %s", x->url[v], x->err);
		blank = all_zero(x->a, n);
	}
	if (blank)
		return 0;
	if (rd(x, v, 0, table, CTL_DISK_TABLE_LEN) < 0)
		return ctl_fail(x->c, CTL_FAILED, "%s: reading it failed: %s", x->url[v], x->err);
	find_owner(table, cluster, limit, &o);
	if (o.ours)
		return 0;
	if (is_forced(x, v))
		return o.kvm_ha ? check_given_up(x, v, &o, table) : 0;
	if (o.has_sb)
		return ctl_fail(x->c, CTL_FAILED, "%s is not this cluster's: it belongs to cluster %s (volume %" PRIu32 " of %" PRIu32 "). If that one is given up, add --force %s",
				x->url[v], o.sb.cluster_name, o.sb.index + 1, o.sb.n_volumes, x->url[v]);
	return ctl_fail(x->c, CTL_FAILED, "%s holds data that is not this cluster's%s. Check that it is the right volume; if nothing on it is needed, add --force %s",
			x->url[v], o.kvm_ha ? " alone: kvm-ha blocks without a valid superblock" : "", x->url[v]);
}

static int open_all(struct change *x)
{
	const struct superblock *sb = NULL;

	for (unsigned v = 0; v < x->s.n; v++) {
		struct setchange_volume *m = &x->s.volume[v];

		if (ctl_disk_open(x->url[v], &x->conf, false, &x->disk[v], x->err, sizeof(x->err)) < 0) {
			if (m->is_new)
				return ctl_fail(x->c, CTL_FAILED, "%s: %s", x->url[v], x->err);
			(void)fprintf(stderr, "ha-ctl: %s cannot be opened: %s\n", x->url[v], x->err);
			continue;
		}
		m->reachable = true;
		if (!m->is_new && look(x, v) == 0 && m->status == FORMAT_OK && !sb)
			sb = &m->sb;
	}
	if (!sb)
		return ctl_fail(x->c, CTL_FAILED, "no volume of the present set that is to stay can be read: with the quorum the claims are lost");
	for (unsigned v = 0; v < x->s.n; v++)
		if (x->s.volume[v].is_new) {
			int r = check_new(x, v, sb->cluster, sb->node_limit);

			if (r != 0)
				return r;
		}
	return 0;
}

static int fail_with_reason(struct change *x)
{
	const struct setchange *s = &x->s;
	bool stopped = s->act == SETCHANGE_STOPPED;
	char who[64] = "", count[64] = "";

	if (s->node) {
		const struct conf_node *n = conf_node_by_id(&x->conf, s->node);

		(void)snprintf(who, sizeof(who), "node %.40s: ", n ? n->name : "of no name");
		if (!n)
			(void)snprintf(who, sizeof(who), "node id %" PRIu32 ": ", s->node);
	}
	if (s->need)
		(void)snprintf(count, sizeof(count), " (%" PRIu32 " of %" PRIu32 ")", s->have, s->need);
	return ctl_fail(x->c, CTL_FAILED, "%s%s%s%s%s%s", who, s->why, count, *x->last_err ? "; " : "", x->last_err,
			stopped ? "\nThe volume set stays frozen, no VM can be started: when it is mended run the same command again." :
				  "\nThe volume set is as it was.");
}

static int say_done(struct change *x)
{
	const struct setchange *s = &x->s;
	uint64_t generation = MAX(s->next.generation, s->former.generation);
	json_object *o;

	if (!x->c->json) {
		(void)printf("%sThe volume set is of generation %" PRIu64 " now, %zu volume%s. Keepers and agents start again by themselves with it and their Volumes=.\n"
			     "See `ha-ctl volume list`; then `ha-ctl arm`.\n",
			     s->decided ? "An interrupted change was finished; if it was another one, run this command again.\n" : "", generation,
			     x->conf.n_volumes, x->conf.n_volumes == 1 ? "" : "s");
		if (s->frozen_at >= 0)
			(void)printf("%s is frozen for another change, and no VM can be started. If nobody is at that: run its command again, or take it back by\n"
				     "`ha-ctl volume replace %s`.\n", x->url[s->frozen_at], x->url[s->frozen_at]);
		return CTL_OK;
	}
	o = json_object_new_object();
	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(true));
	json_object_object_add(o, "generation", json_object_new_uint64(generation));
	json_object_object_add(o, "finished_earlier", json_object_new_boolean(s->decided));
	json_object_object_add(o, "frozen", s->frozen_at < 0 ? NULL : json_object_new_string(x->url[s->frozen_at]));
	ctl_print_json(o);
	json_object_put(o);
	return CTL_OK;
}

static int change(const struct ctl *c, enum setchange_kind kind)
{
	struct change *x = calloc(1, sizeof(*x));
	int r;

	CHECK(x);
	x->c = c;
	x->a = malloc(FORMAT_CATALOG_LEN);
	x->b = malloc(FORMAT_CATALOG_LEN);
	CHECK(x->a && x->b);
	r = ctl_conf(c, &x->conf);
	if (r == 0)
		r = take_arguments(x, kind);
	if (r == 0)
		r = lock(c);
	if (r == 0)
		r = open_all(x);
	if (r == 0) {
		setchange_begin(&x->s);
		while (step(x))
			;
		r = x->s.act == SETCHANGE_DONE ? say_done(x) : fail_with_reason(x);
	}
	for (unsigned v = 0; v < SETCHANGE_MAX; v++)
		ctl_disk_close(x->disk[v]);
	free(x->a);
	free(x->b);
	free(x);
	return r;
}

int ctl_volume_add(const struct ctl *c) { return change(c, SETCHANGE_ADD); }
int ctl_volume_remove(const struct ctl *c) { return change(c, SETCHANGE_REMOVE); }
int ctl_volume_replace(const struct ctl *c) { return change(c, SETCHANGE_REPLACE); }
