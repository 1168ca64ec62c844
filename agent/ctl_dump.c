/* SPDX-License-Identifier: GPL-2.0-or-later */
/* volume list and volume dump: read only, with or without a running cluster. */
#include "agent/ctl.h"

#include <inttypes.h>

#include "agent/base/uuid.h"
#include "agent/ctl_client.h"
#include "agent/ctl_disk.h"

#define CATALOG_DEPTH 64
#define ASK_MS 2000

struct listed_path {
	char address[64], reason[VOLUME_REASON_LEN];
	bool good;
};

struct listed {
	uint64_t size;
	bool has_sb;
	struct superblock sb;
	char reason[CTL_DISK_ERROR_LEN]; /* "" = good */
	struct listed_path path[VOLUME_PATHS_MAX];
	unsigned n_paths, good_paths; /* 0: the URL has one address */
	char trouble[16];                /* as the keeper sees it, if the agent runs; "" = none */
	int64_t since_ms;
};

static void list_paths(struct ctl_disk *d, struct listed *ret)
{
	struct volume_path p[VOLUME_PATHS_MAX];

	ret->n_paths = ctl_disk_paths(d, p);
	for (unsigned i = 0; i < ret->n_paths; i++) {
		(void)str_copy(ret->path[i].address, sizeof(ret->path[i].address), p[i].address);
		(void)str_copy(ret->path[i].reason, sizeof(ret->path[i].reason), p[i].reason);
		ret->path[i].good = p[i].is_used;
		ret->good_paths += p[i].is_used;
	}
}

static void list_one(const struct conf *conf, size_t i, struct listed *ret)
{
	struct ctl_disk *d = NULL;
	enum format_status st = FORMAT_OK;
	const char *why = NULL;

	if (ctl_disk_open(conf->volumes[i], conf, true, &d, ret->reason, sizeof(ret->reason)) < 0)
		return;
	ret->size = ctl_disk_size(d);
	if (ctl_disk_superblock(d, &ret->sb, &st, ret->reason, sizeof(ret->reason)) < 0) {
		ctl_disk_close(d);
		return;
	}
	list_paths(d, ret);
	ctl_disk_close(d);
	ret->has_sb = st == FORMAT_OK;
	if (!ret->has_sb)
		why = st == FORMAT_E_BLANK ? "blank; `ha-ctl volume init` makes a cluster on it" : format_status_name(st);
	else if (!streq(ret->sb.cluster_name, conf->cluster))
		why = "of another cluster than [Cluster] Name=";
	else if (ret->sb.frozen)
		why = "frozen: the volume set is being changed (run the interrupted command again), or this volume was taken out of it";
	else if (ret->sb.n_volumes != conf->n_volumes)
		why = "its set has another number of volumes than Volumes=";
	else if (ret->sb.index != i)
		why = "at another place in Volumes= than in its set; put the URLs in the order of column SET";
	else if (memcmp(&ret->sb.timing, &conf->timing, sizeof(conf->timing)) != 0)
		why = "initialised with other timings than Profile= and [Timing] give";
	else if (conf->nodes[conf->n_nodes - 1].id > ret->sb.node_limit)
		why = "no room for the highest node id in Nodes=";
	else if (ret->size < format_volume_len(ret->sb.node_limit))
		why = "shorter than its node limit needs";
	if (why)
		(void)str_copy(ret->reason, sizeof(ret->reason), why);
}

/* Volumes that are good alone may still be of different sets: then nobody can tell which is right. */
static void compare_sets(struct listed *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		for (size_t k = 0; k < i; k++) {
			if (!v[i].has_sb || !v[k].has_sb || (v[i].sb.generation == v[k].sb.generation && memcmp(v[i].sb.cluster, v[k].sb.cluster, 16) == 0 &&
							     memcmp(v[i].sb.set, v[k].sb.set, sizeof(v[i].sb.set)) == 0))
				continue;
			if (memcmp(v[i].sb.cluster, v[k].sb.cluster, 16) == 0 && v[i].sb.generation != v[k].sb.generation) {
				struct listed *old = v[i].sb.generation < v[k].sb.generation ? &v[i] : &v[k];

				if (!*old->reason)
					(void)snprintf(old->reason, sizeof(old->reason), "stale: of generation %" PRIu64 ", the set is of %" PRIu64
							"; `ha-ctl volume replace` takes it in again", old->sb.generation,
						       MAX(v[i].sb.generation, v[k].sb.generation));
				continue;
			}
			if (!*v[i].reason)
				(void)snprintf(v[i].reason, sizeof(v[i].reason), "of another set than volume %zu", k + 1);
		}
}

/* What is seen only over time. Without an agent there is none to tell. */
static void ask_troubles(const struct ctl *c, const struct conf *conf, struct listed *v)
{
	json_object *request = ctl_request("status"), *answer = NULL, *list;
	char err[CTL_ERROR_LEN];
	size_t n = 0;

	if (ctl_client_ask(c->socket, request, ASK_MS, &answer, err, sizeof(err)) == 0)
		n = ctl_list(ctl_get(answer, "status", json_type_object), "volumes", &list);
	for (size_t k = 0; k < n; k++) {
		json_object *o = json_object_array_get_idx(list, k);

		for (size_t i = 0; i < conf->n_volumes; i++) {
			if (!streq(ctl_str(o, "url"), conf->volumes[i]) || streq(ctl_str(o, "trouble"), "none"))
				continue;
			(void)str_copy(v[i].trouble, sizeof(v[i].trouble), ctl_str(o, "trouble"));
			v[i].since_ms = ctl_int(o, "trouble_since_ms");
		}
	}
	json_object_put(request);
	json_object_put(answer);
}

static json_object *listed_json(const struct conf *conf, const struct listed *v, size_t i)
{
	json_object *o = json_object_new_object(), *paths;
	char uuid[UUID_STR_LEN];

	json_object_object_add(o, "url", json_object_new_string(conf->volumes[i]));
	json_object_object_add(o, "state", json_object_new_string(*v->reason ? "bad" : "good"));
	json_object_object_add(o, "reason", json_object_new_string(v->reason));
	json_object_object_add(o, "trouble", json_object_new_string(*v->trouble ? v->trouble : "none"));
	json_object_object_add(o, "trouble_since_ms", json_object_new_int64(v->since_ms));
	json_object_object_add(o, "size", json_object_new_int64((int64_t)v->size));
	if (v->has_sb) {
		uuid_format(v->sb.cluster, uuid);
		json_object_object_add(o, "cluster", json_object_new_string(v->sb.cluster_name));
		json_object_object_add(o, "uuid", json_object_new_string(uuid));
		json_object_object_add(o, "generation", json_object_new_int64((int64_t)v->sb.generation));
		json_object_object_add(o, "index", json_object_new_int64(v->sb.index));
		json_object_object_add(o, "volumes", json_object_new_int64(v->sb.n_volumes));
		json_object_object_add(o, "node_limit", json_object_new_int64(v->sb.node_limit));
	}
	if (v->n_paths == 0)
		return o;
	paths = json_object_new_array();
	for (unsigned k = 0; k < v->n_paths; k++) {
		json_object *p = json_object_new_object();

		json_object_object_add(p, "address", json_object_new_string(v->path[k].address));
		json_object_object_add(p, "state", json_object_new_string(v->path[k].good ? "good" : "bad"));
		json_object_object_add(p, "reason", json_object_new_string(v->path[k].reason));
		json_object_array_add(paths, p);
	}
	json_object_object_add(o, "paths", paths);
	return o;
}

static void list_text(const struct ctl *c, const struct conf *conf, const struct listed *v)
{
	struct ctl_table t = { .title = { "VOLUME", "STATE", "SIZE", "SET", "CLUSTER", "GENERATION", "TROUBLE", "REMARKS" }, .columns = 8 };
	char when[32];

	for (size_t i = 0; i < conf->n_volumes; i++, v++) {
		ctl_table_add(&t, 0, CTL_PLAIN, "%s", conf->volumes[i]);
		ctl_table_add(&t, 1, *v->reason ? CTL_RED : CTL_GREEN, "%s", *v->reason ? "bad" : "good");
		ctl_table_add(&t, 2, CTL_PLAIN, v->size ? "%" PRIu64 " MiB" : "-", v->size >> 20);
		ctl_table_add(&t, 3, CTL_PLAIN, v->has_sb ? "%" PRIu32 " of %" PRIu32 : "-", v->sb.index + 1, v->sb.n_volumes);
		ctl_table_add(&t, 4, CTL_PLAIN, "%s", v->has_sb ? v->sb.cluster_name : "-");
		ctl_table_add(&t, 5, CTL_PLAIN, v->has_sb ? "%" PRIu64 : "-", v->sb.generation);
		ctl_table_add(&t, 6, *v->trouble ? CTL_YELLOW : CTL_PLAIN, *v->trouble ? "%s since %s" : "-", v->trouble,
			      ctl_when(v->since_ms, when, sizeof(when)));
		if (!*v->reason && v->good_paths < v->n_paths)
			ctl_table_add(&t, 7, CTL_RED, "%u of %u paths", v->good_paths, v->n_paths);
		else
			ctl_table_add(&t, 7, CTL_PLAIN, "%s", v->reason);
		for (unsigned k = 0; k < v->n_paths; k++) {
			ctl_table_add(&t, 0, CTL_PLAIN, "  path %s", v->path[k].address);
			ctl_table_add(&t, 1, v->path[k].good ? CTL_GREEN : CTL_RED, "%s", v->path[k].good ? "good" : "bad");
			for (unsigned column = 2; column < 7; column++)
				ctl_table_add(&t, column, CTL_PLAIN, "-");
			ctl_table_add(&t, 7, CTL_PLAIN, "%s", v->path[k].reason);
		}
	}
	ctl_table_print(c, &t);
}

int ctl_volume_list(const struct ctl *c)
{
	struct listed v[CONF_MAX_VOLUMES] = { 0 };
	json_object *o, *array;
	struct conf conf;
	bool bad = false;
	int r = ctl_conf(c, &conf);

	if (r != 0)
		return r;
	for (size_t i = 0; i < conf.n_volumes; i++)
		list_one(&conf, i, &v[i]);
	compare_sets(v, conf.n_volumes);
	ask_troubles(c, &conf, v);
	for (size_t i = 0; i < conf.n_volumes; i++)
		bad = bad || *v[i].reason;
	if (!c->json) {
		list_text(c, &conf, v);
		return bad ? CTL_FAILED : CTL_OK;
	}
	o = json_object_new_object();
	array = json_object_new_array();
	json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(o, "ok", json_object_new_boolean(!bad));
	for (size_t i = 0; i < conf.n_volumes; i++)
		json_object_array_add(array, listed_json(&conf, &v[i], i));
	json_object_object_add(o, "volumes", array);
	ctl_print_json(o);
	json_object_put(o);
	return bad ? CTL_FAILED : CTL_OK;
}

/* The dump is built as JSON and printed from there, so that both forms tell the same. */
struct dump {
	const struct ctl *c;
	struct ctl_disk *disk;
	struct superblock sb;
	json_object *root;
	char err[CTL_DISK_ERROR_LEN];
};

static void add_uuid(json_object *o, const char *key, const uint8_t uuid[16])
{
	char text[UUID_STR_LEN];

	uuid_format(uuid, text);
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_int(json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_uint64(n));
}

static void add_status(json_object *o, enum format_status st)
{
	json_object_object_add(o, "block", json_object_new_string(format_status_name(st)));
}

static json_object *slot_new(json_object *array, uint32_t node, unsigned buffer)
{
	json_object *o = json_object_new_object();

	add_int(o, "node", node);
	add_int(o, "buffer", buffer);
	json_object_array_add(array, o);
	return o;
}

static void mark_newest(json_object *pair[2], const bool valid[2], int order)
{
	for (unsigned b = 0; b < 2; b++)
		json_object_object_add(pair[b], "newest", json_object_new_boolean(valid[b] && (!valid[1 - b] || (b == 0 ? order >= 0 : order < 0))));
}

static int dump_superblock(struct dump *d)
{
	uint8_t block[2 * FORMAT_BLOCK];
	json_object *copies = json_object_new_array();

	json_object_object_add(d->root, "superblock", copies);
	if (ctl_disk_read(d->disk, 0, block, sizeof(block), d->err, sizeof(d->err)) < 0)
		return -1;
	for (unsigned copy = 0; copy < 2; copy++) {
		json_object *o = json_object_new_object(), *set = json_object_new_array(), *timing = json_object_new_object();
		struct superblock sb = { 0 };
		enum format_status st = superblock_decode(block + format_superblock_offset(copy), copy, NULL, &sb);
		char text[UUID_STR_LEN];

		json_object_array_add(copies, o);
		add_int(o, "copy", copy);
		add_status(o, st);
		json_object_object_add(o, "cluster", json_object_new_string(sb.cluster_name));
		add_uuid(o, "uuid", sb.cluster);
		add_int(o, "generation", sb.generation);
		json_object_object_add(o, "frozen", json_object_new_boolean(sb.frozen));
		add_int(o, "index", sb.index);
		add_int(o, "volumes", sb.n_volumes);
		add_int(o, "node_limit", sb.node_limit);
		for (uint32_t i = 0; i < sb.n_volumes; i++) {
			uuid_format(sb.set[i], text);
			json_object_array_add(set, json_object_new_string(text));
		}
		json_object_object_add(o, "set", set);
		for (unsigned f = 0; f < TIMING_FIELD_COUNT; f++)
			add_int(timing, timing_values[f].key, timing_get(&sb.timing, (enum timing_field)f));
		json_object_object_add(o, "timing", timing);
	}
	return 0;
}

static json_object *nodes_of_view(uint64_t view)
{
	json_object *a = json_object_new_array();

	for (uint32_t i = 0; i < FORMAT_MAX_NODES; i++)
		if (view & UINT64_C(1) << i)
			json_object_array_add(a, json_object_new_int64(i + 1));
	return a;
}

/* Epochs by node id, those that are set. */
static void add_epochs(json_object *o, const char *key, const uint32_t epoch[FORMAT_MAX_NODES])
{
	json_object *list = json_object_new_object();
	char id[16];

	for (uint32_t i = 0; i < FORMAT_MAX_NODES; i++) {
		if (epoch[i] == 0)
			continue;
		(void)snprintf(id, sizeof(id), "%" PRIu32, i + 1);
		add_int(list, id, epoch[i]);
	}
	json_object_object_add(o, key, list);
}

static void add_heartbeat(json_object *o, const struct heartbeat *hb)
{
	add_int(o, "epoch", hb->epoch);
	add_int(o, "seq", hb->seq);
	json_object_object_add(o, "state", json_object_new_string(heartbeat_state_name(hb->state)));
	json_object_object_add(o, "ring", json_object_new_string(heartbeat_ring_name(hb->ring)));
	json_object_object_add(o, "view", nodes_of_view(hb->view));
	add_uuid(o, "host", hb->host);
	add_uuid(o, "life", hb->life);
	add_uuid(o, "boot", hb->boot);
	json_object_object_add(o, "evidence", json_object_new_string(hb->wd_ms == FORMAT_SILENCE_IS_NO_PROOF ? "none" : "watchdog"));
	add_int(o, "watchdog_ms", hb->wd_ms);
	add_int(o, "watchdog_delay_ms", hb->wd_delay_ms);
	add_int(o, "agent_counter", hb->agent_counter);
	json_object_object_add(o, "agent_silent", json_object_new_boolean(hb->silent));
	if (hb->silent)
		add_int(o, "vms_with_process", hb->n_marks);
	add_int(o, "claims_seq", hb->claims_seq);
	add_int(o, "catalog_generation", hb->catalog_generation);
	add_int(o, "catalog_seq", hb->catalog_seq);
	add_epochs(o, "alive", hb->alive);
	add_epochs(o, "intent", hb->intent);
	add_epochs(o, "commit", hb->commit);
	add_epochs(o, "over", hb->over);
}

static int dump_heartbeats(struct dump *d)
{
	json_object *array = json_object_new_array();

	json_object_object_add(d->root, "heartbeats", array);
	for (uint32_t node = 1; node <= d->sb.node_limit; node++) {
		uint8_t block[2 * FORMAT_BLOCK];
		json_object *pair[2];
		bool valid[2];
		struct heartbeat hb[2] = { 0 };

		if (ctl_disk_read(d->disk, format_heartbeat_offset(node, 0), block, sizeof(block), d->err, sizeof(d->err)) < 0)
			return -1;
		for (unsigned b = 0; b < 2; b++) {
			enum format_status st = heartbeat_decode(block + b * FORMAT_BLOCK, node, b, d->sb.cluster, &hb[b]);

			pair[b] = slot_new(array, node, b);
			valid[b] = st == FORMAT_OK;
			add_status(pair[b], st);
			if (valid[b])
				add_heartbeat(pair[b], &hb[b]);
		}
		mark_newest(pair, valid, format_compare(hb[0].epoch, hb[0].seq, hb[1].epoch, hb[1].seq));
	}
	return 0;
}

static void add_claims(json_object *o, const struct claims *claims)
{
	json_object *array = json_object_new_array();

	add_int(o, "epoch", claims->epoch);
	add_int(o, "seq", claims->seq);
	for (uint32_t i = 0; i < claims->n; i++) {
		json_object *one = json_object_new_object();

		add_uuid(one, "vm", claims->claim[i].vm);
		add_int(one, "generation", claims->claim[i].generation);
		add_int(one, "epoch", claims->claim[i].epoch);
		json_object_object_add(one, "state", json_object_new_string(claim_state_name(claims->claim[i].state)));
		if (claims->claim[i].state == CLAIM_HANDED)
			json_object_object_add(one, "migration", json_object_new_uint64(claims->claim[i].migration));
		json_object_array_add(array, one);
	}
	json_object_object_add(o, "claims", array);
}

static int dump_claims(struct dump *d)
{
	static struct claims claims[2];
	static uint8_t block[FORMAT_CLAIMS_LEN];
	json_object *array = json_object_new_array();

	json_object_object_add(d->root, "claims", array);
	for (uint32_t node = 1; node <= d->sb.node_limit; node++) {
		json_object *pair[2];
		bool valid[2];

		for (unsigned b = 0; b < 2; b++) {
			enum format_status st;

			if (ctl_disk_read(d->disk, format_claims_offset(node, b), block, sizeof(block), d->err, sizeof(d->err)) < 0)
				return -1;
			st = claims_decode(block, node, b, d->sb.cluster, &claims[b]);
			pair[b] = slot_new(array, node, b);
			valid[b] = st == FORMAT_OK;
			add_status(pair[b], st);
			if (valid[b])
				add_claims(pair[b], &claims[b]);
		}
		mark_newest(pair, valid, format_compare(claims[0].epoch, claims[0].seq, claims[1].epoch, claims[1].seq));
	}
	return 0;
}

static void add_catalog(json_object *o, const struct catalog_head *head, const char *payload)
{
	_cleanup_free_ char *text = strndup(payload, head->len);
	struct json_tokener *tok = json_tokener_new_ex(CATALOG_DEPTH);
	json_object *parsed;

	CHECK(text && tok);
	add_int(o, "epoch", head->epoch);
	add_int(o, "seq", head->seq);
	add_int(o, "generation", head->generation);
	add_int(o, "bytes", head->len);
	parsed = head->len ? json_tokener_parse_ex(tok, text, (int)strlen(text)) : NULL;
	if (parsed)
		json_object_object_add(o, "catalog", parsed);
	else if (head->len)
		json_object_object_add(o, "text", json_object_new_string(text)); /* not JSON: shown as it is */
	json_tokener_free(tok);
}

static int dump_catalog(struct dump *d)
{
	_cleanup_free_ uint8_t *buf = malloc(FORMAT_CATALOG_LEN);
	json_object *array = json_object_new_array();

	CHECK(buf);
	json_object_object_add(d->root, "catalog", array);
	for (uint32_t node = 1; node <= d->sb.node_limit; node++) {
		struct catalog_head head[2] = { 0 };
		json_object *pair[2];
		bool valid[2];

		for (unsigned b = 0; b < 2; b++) {
			uint32_t len = FORMAT_BLOCK;
			enum format_status st;
			const char *payload;

			if (ctl_disk_read(d->disk, format_catalog_offset(node, b), buf, FORMAT_BLOCK, d->err, sizeof(d->err)) < 0)
				return -1;
			if (catalog_peek(buf, d->sb.cluster, &head[b], &len) && len > FORMAT_BLOCK && len <= FORMAT_CATALOG_LEN &&
			    ctl_disk_read(d->disk, format_catalog_offset(node, b), buf, len, d->err, sizeof(d->err)) < 0)
				return -1;
			st = catalog_decode(buf, MIN(len, FORMAT_CATALOG_LEN), node, b, d->sb.cluster, &head[b], &payload);
			pair[b] = slot_new(array, node, b);
			valid[b] = st == FORMAT_OK;
			add_status(pair[b], st);
			if (valid[b])
				add_catalog(pair[b], &head[b], payload);
		}
		mark_newest(pair, valid, format_compare((uint32_t)MIN(head[0].generation, UINT32_MAX), head[0].seq,
							(uint32_t)MIN(head[1].generation, UINT32_MAX), head[1].seq));
	}
	return 0;
}

/* One value on its line: words and numbers bare, the rest as compact JSON. */
static void print_value(const char *indent, const char *key, json_object *v)
{
	(void)printf("%s%-20s ", indent, key);
	ctl_put(json_object_is_type(v, json_type_string) ? json_object_get_string(v) :
							   json_object_to_json_string_ext(v, JSON_C_TO_STRING_NOSLASHESCAPE));
	(void)printf("\n");
}

/* A slot nobody ever wrote is not worth its lines. */
static bool is_unused(json_object *o)
{
	return json_object_object_get_ex(o, "node", NULL) && json_object_object_get_ex(o, "epoch", NULL) && ctl_int(o, "epoch") == 0 &&
	       ctl_int(o, "seq") == 0;
}

static void print_section(const struct ctl *c, const char *title, json_object *array)
{
	size_t n = json_object_array_length(array), unused = 0;

	ctl_color_on(c, CTL_BOLD);
	(void)printf("%s\n", title);
	ctl_color_off(c);
	for (size_t i = 0; i < n; i++) {
		json_object *o = json_object_array_get_idx(array, i);
		bool newest = ctl_bool(o, "newest"), bad = !streq(ctl_str(o, "block"), format_status_name(FORMAT_OK));

		if (is_unused(o)) {
			unused++;
			continue;
		}
		if (json_object_object_get_ex(o, "node", NULL))
			(void)printf("  node %" PRId64 ", buffer %" PRId64 "%s: ", ctl_int(o, "node"), ctl_int(o, "buffer"), newest ? " (newest)" : "");
		else
			(void)printf("  copy %" PRId64 ": ", ctl_int(o, "copy"));
		ctl_color_on(c, bad ? CTL_RED : CTL_GREEN);
		(void)printf("%s\n", ctl_str(o, "block"));
		ctl_color_off(c);
		if (bad)
			continue;
		json_object_object_foreach(o, key, value)
			if (!streq(key, "node") && !streq(key, "buffer") && !streq(key, "copy") && !streq(key, "newest") && !streq(key, "block"))
				print_value("    ", key, value);
	}
	if (unused)
		(void)printf("  %zu buffers never written to by a node\n", unused);
}

static const struct {
	const char *name, *title;
	int (*run)(struct dump *d);
} parts[] = {
	{ "superblock", "Superblock", dump_superblock },
	{ "heartbeats", "Heartbeats", dump_heartbeats },
	{ "claims", "Claims", dump_claims },
	{ "catalog", "Catalog", dump_catalog },
};

static int dump_parts(struct dump *d, const char *what, bool has_sb)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!streq(what, "all") && !streq(what, parts[i].name))
			continue;
		if (i > 0 && !has_sb) {
			(void)snprintf(d->err, sizeof(d->err), "no valid superblock: without it the rest cannot be read");
			return -1;
		}
		if (parts[i].run(d) < 0)
			return -1;
	}
	return 0;
}

int ctl_volume_dump(const struct ctl *c)
{
	struct dump d = { .c = c };
	const char *what = c->what ? c->what : "all", *url = c->args[0];
	enum format_status st = FORMAT_OK;
	bool known = streq(what, "all");
	struct conf conf;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		known = known || streq(what, parts[i].name);
	if (!known)
		return ctl_fail(c, CTL_USAGE, "--what %.64s: write superblock, heartbeats, claims, catalog or all", what);
	r = ctl_conf(c, &conf);
	if (r != 0)
		return r;
	if (ctl_disk_open(url, &conf, true, &d.disk, d.err, sizeof(d.err)) < 0)
		return ctl_fail(c, CTL_FAILED, "%.600s: %s", url, d.err);
	d.root = json_object_new_object();
	json_object_object_add(d.root, "api_version", json_object_new_int(CTL_API_VERSION));
	json_object_object_add(d.root, "url", json_object_new_string(url));
	r = ctl_disk_superblock(d.disk, &d.sb, &st, d.err, sizeof(d.err));
	if (r == 0)
		r = dump_parts(&d, what, st == FORMAT_OK);
	ctl_disk_close(d.disk);
	for (size_t i = 0; !c->json && i < ARRAY_SIZE(parts); i++) {
		json_object *array = ctl_get(d.root, parts[i].name, json_type_array);

		if (array)
			print_section(c, parts[i].title, array);
	}
	if (r == 0 && c->json)
		ctl_print_json(d.root);
	json_object_put(d.root);
	return r == 0 ? CTL_OK : ctl_fail(c, CTL_FAILED, "%.600s: %s", url, d.err);
}
