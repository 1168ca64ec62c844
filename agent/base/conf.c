/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "agent/base/conf_read.h"
#include "agent/base/unquote.h"
#include "agent/base/value.h"
#include "agent/base/volume_url.h"

#define HOOK_TIMEOUT_DEFAULT_MS 10000
#define MEMORY_PERCENT_DEFAULT 100
#define VCPUS_PERCENT_DEFAULT 1600
#define PARALLEL_STARTS_DEFAULT 16
#define PARALLEL_MIGRATIONS_DEFAULT 2
#define OVERCOMMIT_MAX 10000
#define HOOK_TIMEOUT_MIN_MS 100
#define HOOK_TIMEOUT_MAX_MS (3600 * 1000)
#define ALERT_MIN_MS 1
#define ALERT_MAX_MS (3600 * 1000)
#define QUARANTINE_DEFAULT 3
#define QUARANTINE_MAX 100
#define SHUTDOWN_DEFAULT_MS (10 * 60 * 1000)
#define SHUTDOWN_MIN_MS 10000
#define SHUTDOWN_MAX_MS (20 * 60 * 1000) /* ha-leave.service ends it after 25 min, and systemd resets the host after 30 */
#define FREEZE_DEFAULT_MS (10 * 60 * 1000)
#define FREEZE_MIN_MS 10000
#define FREEZE_MAX_MS (24 * 3600 * 1000)
#define UNIX_SOCKET_PATH_MAX 107 /* sun_path without its NUL */

const struct ini_key conf_keys[CONF_KEY_COUNT] = {
	[CONF_CLUSTER_NAME] = { "Cluster", "Name", false },
	[CONF_NODES] = { "Cluster", "Nodes", true },
	[CONF_VOLUMES] = { "Cluster", "Volumes", true },
	[CONF_SECRET_FILE] = { "Cluster", "SecretFile", false },
	[CONF_PROFILE] = { "Cluster", "Profile", false },
	[CONF_TIMING + TIMING_WD] = { "Timing", "Watchdog", false },
	[CONF_TIMING + TIMING_WD_DELAY] = { "Timing", "WatchdogDelay", false },
	[CONF_TIMING + TIMING_HB] = { "Timing", "Heartbeat", false },
	[CONF_TIMING + TIMING_IO] = { "Timing", "IO", false },
	[CONF_TIMING + TIMING_DRAIN] = { "Timing", "Drain", false },
	[CONF_TIMING + TIMING_CLOCK_RATE] = { "Timing", "ClockRate", false },
	[CONF_TIMING + TIMING_SETTLE] = { "Timing", "RingSettle", false },
	[CONF_TIMING + TIMING_RING_GRACE] = { "Timing", "RingGrace", false },
	[CONF_TIMING + TIMING_LEADER] = { "Timing", "Leader", false },
	[CONF_REQUIRE_ENCRYPTION] = { "Ring", "RequireEncryption", false },
	[CONF_ON_RING_LOSS] = { "Ring", "OnRingLoss", false },
	[CONF_WATCHDOG_DEVICE] = { "Watchdog", "Device", false },
	[CONF_WATCHDOG_EVIDENCE] = { "Watchdog", "Evidence", false },
	[CONF_NODE_NAME] = { "Node", "Name", false },
	[CONF_NODE_SHUTDOWN] = { "Node", "ShutdownPolicy", false },
	[CONF_NODE_SHUTDOWN_TIMEOUT] = { "Node", "ShutdownTimeout", false },
	[CONF_NODE_FREEZE_TIMEOUT] = { "Node", "FreezeTimeout", false },
	[CONF_HOOKS_DIRECTORY] = { "Hooks", "Directory", false },
	[CONF_HOOKS_TIMEOUT] = { "Hooks", "Timeout", false },
	[CONF_ALERTS_SLOW] = { "Alerts", "VolumeSlow", false },
	[CONF_ALERTS_FAILING] = { "Alerts", "VolumeFailing", false },
	[CONF_FENCING_POWER_ON] = { "Fencing", "PowerOn", false },
	[CONF_FENCING_BRAKE] = { "Fencing", "Brake", false },
	[CONF_FENCING_QUARANTINE] = { "Fencing", "Quarantine", false },
	[CONF_FENCING_RESERVATION] = { "Fencing", "Reservation", false },
	[CONF_POWER_NODE] = { "PowerDevice", "Node", false },
	[CONF_POWER_AGENT] = { "PowerDevice", "Agent", false },
	[CONF_POWER_OPTIONS] = { "PowerDevice", "Options", true },
	[CONF_POWER_SECRET] = { "PowerDevice", "SecretFile", false },
	[CONF_POWER_TIMEOUT] = { "PowerDevice", "Timeout", false },
	[CONF_POWER_LEVEL] = { "PowerDevice", "Level", false },
	[CONF_PLACE_MEMORY] = { "Placement", "MemoryOvercommit", false },
	[CONF_PLACE_VCPUS] = { "Placement", "VCPUOvercommit", false },
	[CONF_PLACE_STARTS] = { "Placement", "ParallelStarts", false },
	[CONF_PLACE_MIGRATIONS] = { "Placement", "ParallelMigrations", false },
	[CONF_MIGRATION_TLS] = { "Migration", "TLSDirectory", false },
};

const char *conf_ring_loss_name(enum conf_ring_loss l) { return l == CONF_RING_LOSS_KEEP ? "keep" : "release"; }

const char *conf_reservation_name(enum conf_reservation r)
{
	static const char *const name[CONF_RESERVATION_COUNT] = { "no", "yes", "volatile" };

	return (size_t)r < ARRAY_SIZE(name) ? name[r] : "unknown";
}

const char *conf_shutdown_name(enum conf_shutdown s)
{
	static const char *const name[CONF_SHUTDOWN_COUNT] = {
		[CONF_SHUTDOWN_CONDITIONAL] = "conditional",
		[CONF_SHUTDOWN_MIGRATE] = "migrate",
		[CONF_SHUTDOWN_FAILOVER] = "failover",
		[CONF_SHUTDOWN_FREEZE] = "freeze",
	};

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}

const struct conf_node *conf_node_by_id(const struct conf *c, uint32_t id)
{
	for (size_t i = 0; i < c->n_nodes; i++)
		if (c->nodes[i].id == id)
			return &c->nodes[i];
	return NULL;
}

const struct conf_node *conf_node_by_name(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->n_nodes; i++)
		if (streq(c->nodes[i].name, name))
			return &c->nodes[i];
	return NULL;
}

static void set_defaults(struct conf *c)
{
	c->profile = TIMING_STANDARD;
	c->require_ring_encryption = c->silence_proves = true;
	c->on_ring_loss = CONF_RING_LOSS_RELEASE;
	c->hook_timeout_ms = HOOK_TIMEOUT_DEFAULT_MS;
	c->power_on = true;
	c->brake_percent = 100;
	c->quarantine = QUARANTINE_DEFAULT;
	c->power_text_len = 1; /* offset 0 is "" */
	c->memory_percent = MEMORY_PERCENT_DEFAULT;
	c->vcpus_percent = VCPUS_PERCENT_DEFAULT;
	c->starts_per_node = PARALLEL_STARTS_DEFAULT;
	c->migrations_per_node = PARALLEL_MIGRATIONS_DEFAULT;
	c->shutdown = CONF_SHUTDOWN_CONDITIONAL;
	c->shutdown_ms = SHUTDOWN_DEFAULT_MS;
	c->freeze_ms = FREEZE_DEFAULT_MS;
	(void)str_copy(c->watchdog, sizeof(c->watchdog), "/dev/watchdog");
	(void)str_copy(c->hooks_dir, sizeof(c->hooks_dir), CONF_DIR_DEFAULT "/hooks.d");
}

/* word: "NAME:ID" */
static int add_node(struct conf_read *r, char *word, char *err, size_t err_size)
{
	struct conf *c = &r->c;
	struct conf_node node = { 0 };
	char reason[160], *colon = strrchr(word, ':');
	const struct conf_node *other;
	size_t at = 0;

	if (!colon)
		return value_refuse(err, err_size, "a node without an id; write NAME:ID, such as n1:1");
	*colon = '\0';
	if (value_name_check(word, sizeof(node.name), reason, sizeof(reason)) < 0)
		return value_refuse(err, err_size, "name of a node: %s", reason);
	if (value_u32(colon + 1, 1, CONF_MAX_NODES, &node.id, reason, sizeof(reason)) < 0)
		return value_refuse(err, err_size, "id of node %s: %s; write its corosync nodeid", word, reason);
	(void)str_copy(node.name, sizeof(node.name), word);
	other = conf_node_by_id(c, node.id);
	if (other)
		return value_refuse(err, err_size, "id %" PRIu32 " is given to %s and to %s; give each node its own", node.id, other->name, word);
	other = conf_node_by_name(c, word);
	if (other)
		return value_refuse(err, err_size, "node %s is listed with id %" PRIu32 " and with id %" PRIu32 "; remove one", word, other->id, node.id);
	while (at < c->n_nodes && c->nodes[at].id < node.id) /* ids differ and are at most CONF_MAX_NODES: there is room */
		at++;
	memmove(&c->nodes[at + 1], &c->nodes[at], (c->n_nodes - at) * sizeof(c->nodes[0]));
	c->nodes[at] = node;
	c->n_nodes++;
	r->node_origin[node.id] = r->here;
	return 0;
}

static int add_volume(struct conf_read *r, char *word, char *err, size_t err_size)
{
	struct conf *c = &r->c;
	struct volume_address address;
	int ret = value_place_check(word, err, err_size);

	if (ret == 0)
		ret = volume_address_parse(word, &address, err, err_size);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < c->n_volumes; i++)
		if (value_same_place(c->volumes[i], word))
			return value_refuse(err, err_size, "%s is listed twice; each volume must be a disk of its own", word);
	if (c->n_volumes == CONF_MAX_VOLUMES)
		return value_refuse(err, err_size, "%s is volume %d; list 1 to %d", word, CONF_MAX_VOLUMES + 1, CONF_MAX_VOLUMES);
	(void)str_copy(c->volumes[c->n_volumes], sizeof(c->volumes[0]), word);
	r->volume_origin[c->n_volumes++] = r->here;
	return 0;
}

static int read_words(struct conf_read *r, const char *value, int (*add)(struct conf_read *, char *, char *, size_t), char *err,
		      size_t err_size)
{
	char word[CONF_URL_LEN];
	size_t pos = 0;
	int ret;

	while ((ret = unquote_next(value, &pos, word, sizeof(word), err, err_size)) == UNQUOTE_WORD) {
		ret = add(r, word, err, err_size);
		if (ret < 0)
			return ret;
	}
	return ret;
}

static int read_path(const char *value, char *ret, size_t size, char *err, size_t err_size)
{
	int r = value_path_check(value, err, err_size);

	if (r == 0 && !str_copy(ret, size, value))
		return value_refuse(err, err_size, "the path is longer than %zu bytes; shorten it", size - 1);
	return r;
}

static int read_watchdog(struct conf *c, const char *value, char *err, size_t err_size)
{
	const char *path = strncmp(value, "unix:", 5) == 0 ? value + 5 : value;
	int r = streq(value, CONF_NO_WATCHDOG) ? 0 : value_path_check(path, err, err_size);

	if (r < 0)
		return r;
	if (path != value && strlen(path) > UNIX_SOCKET_PATH_MAX)
		return value_refuse(err, err_size, "path of a socket longer than %d bytes; shorten it", UNIX_SOCKET_PATH_MAX);
	if (!str_copy(c->watchdog, sizeof(c->watchdog), value))
		return value_refuse(err, err_size, "the path is longer than %zu bytes; shorten it", sizeof(c->watchdog) - 1);
	return 0;
}

static int read_name(const char *value, char *ret, char *err, size_t err_size)
{
	int r = value_name_check(value, CONF_NAME_LEN, err, err_size);

	if (r == 0)
		(void)str_copy(ret, CONF_NAME_LEN, value);
	return r;
}

static int read_timing(struct conf_read *r, enum timing_field f, const char *value, char *err, size_t err_size)
{
	const struct timing_value *v = &timing_values[f];
	uint32_t n;
	int ret = v->permille ? value_permille(value, &n, err, err_size) : value_span_ms(value, &n, err, err_size);

	if (ret < 0)
		return ret;
	if (n < v->min || n > v->max)
		return value_refuse(err, err_size, "out of range; use %" PRIu32 " to %" PRIu32 " %s", v->min, v->max, v->permille ? "permille" : "ms");
	r->timing_override[f] = n;
	return 0;
}

/* N% of what a node has; 0% or a bare 0: not limited. */
static int read_percent(uint32_t *ret, const char *value, char *err, size_t err_size)
{
	char number[16];
	size_t len = strlen(value);

	if (!streq(value, "0") && (len < 2 || value[len - 1] != '%'))
		return value_refuse(err, err_size, "not a percentage; write one such as 150%%, or 0 for no limit");
	if (len >= sizeof(number))
		return value_refuse(err, err_size, "out of range; use 0%% to %d%%", OVERCOMMIT_MAX);
	(void)str_copy(number, sizeof(number), value);
	if (value[len - 1] == '%')
		number[len - 1] = '\0';
	return value_u32(number, 0, OVERCOMMIT_MAX, ret, err, err_size);
}

static int read_span(uint32_t *ret, const char *value, uint32_t min_ms, uint32_t max_ms, char *err, size_t err_size)
{
	uint32_t n;
	int r = value_span_ms(value, &n, err, err_size);

	if (r < 0)
		return r;
	if (n < min_ms || n > max_ms)
		return value_refuse(err, err_size, "out of range; use %" PRIu32 " to %" PRIu32 " ms", min_ms, max_ms);
	*ret = n;
	return 0;
}

static int read_ring_loss(struct conf *c, const char *value, char *err, size_t err_size)
{
	if (!streq(value, "release") && !streq(value, "keep"))
		return value_refuse(err, err_size, "unknown policy; write release or keep");
	c->on_ring_loss = streq(value, "keep") ? CONF_RING_LOSS_KEEP : CONF_RING_LOSS_RELEASE;
	return 0;
}

static int read_shutdown(struct conf *c, const char *value, char *err, size_t err_size)
{
	for (unsigned s = 0; s < CONF_SHUTDOWN_COUNT; s++)
		if (streq(value, conf_shutdown_name((enum conf_shutdown)s))) {
			c->shutdown = (enum conf_shutdown)s;
			return 0;
		}
	return value_refuse(err, err_size, "unknown policy; write conditional, migrate, failover or freeze");
}

static int read_reservation(struct conf *c, const char *value, char *err, size_t err_size)
{
	for (unsigned i = 0; i < CONF_RESERVATION_COUNT; i++)
		if (streq(value, conf_reservation_name((enum conf_reservation)i))) {
			c->reservation = (enum conf_reservation)i;
			return 0;
		}
	return value_refuse(err, err_size, "unknown; write no, yes or volatile");
}

static int read_brake(struct conf *c, const char *value, char *err, size_t err_size)
{
	uint32_t permille;
	int r = value_permille(value, &permille, err, err_size);

	if (r < 0)
		return r;
	if (!strchr(value, '%') || permille < 10 || permille > 1000 || permille % 10 != 0)
		return value_refuse(err, err_size, "write whole percent of the nodes, 1%% to 100%%; 100%% is no brake");
	c->brake_percent = permille / 10;
	return 0;
}

static int read_value(struct conf_read *r, enum conf_key key, const char *value, char *err, size_t err_size)
{
	struct conf *c = &r->c;

	switch (key) {
	case CONF_CLUSTER_NAME:
		return read_name(value, c->cluster, err, err_size);
	case CONF_NODES:
		if (!*value)
			c->n_nodes = 0;
		return read_words(r, value, add_node, err, err_size);
	case CONF_VOLUMES:
		if (!*value)
			c->n_volumes = 0;
		return read_words(r, value, add_volume, err, err_size);
	case CONF_SECRET_FILE:
		return read_path(value, c->secret_file, sizeof(c->secret_file), err, err_size);
	case CONF_PROFILE:
		return timing_profile_parse(value, &c->profile) ? 0 :
			       value_refuse(err, err_size, "unknown profile; write fast, standard or safe");
	case CONF_REQUIRE_ENCRYPTION:
		return value_bool(value, &c->require_ring_encryption, err, err_size);
	case CONF_ON_RING_LOSS:
		return read_ring_loss(c, value, err, err_size);
	case CONF_WATCHDOG_DEVICE:
		return read_watchdog(c, value, err, err_size);
	case CONF_WATCHDOG_EVIDENCE:
		return value_bool(value, &c->silence_proves, err, err_size);
	case CONF_NODE_NAME:
		return read_name(value, c->self_name, err, err_size);
	case CONF_NODE_SHUTDOWN:
		return read_shutdown(c, value, err, err_size);
	case CONF_NODE_SHUTDOWN_TIMEOUT:
		return read_span(&c->shutdown_ms, value, SHUTDOWN_MIN_MS, SHUTDOWN_MAX_MS, err, err_size);
	case CONF_NODE_FREEZE_TIMEOUT:
		return read_span(&c->freeze_ms, value, FREEZE_MIN_MS, FREEZE_MAX_MS, err, err_size);
	case CONF_HOOKS_DIRECTORY:
		return read_path(value, c->hooks_dir, sizeof(c->hooks_dir), err, err_size);
	case CONF_PLACE_MEMORY:
		return read_percent(&c->memory_percent, value, err, err_size);
	case CONF_PLACE_VCPUS:
		return read_percent(&c->vcpus_percent, value, err, err_size);
	case CONF_PLACE_STARTS:
		return value_u32(value, 0, 1000, &c->starts_per_node, err, err_size);
	case CONF_PLACE_MIGRATIONS:
		return value_u32(value, 1, 64, &c->migrations_per_node, err, err_size);
	case CONF_MIGRATION_TLS:
		return read_path(value, c->tls_dir, sizeof(c->tls_dir), err, err_size);
	case CONF_HOOKS_TIMEOUT:
		return read_span(&c->hook_timeout_ms, value, HOOK_TIMEOUT_MIN_MS, HOOK_TIMEOUT_MAX_MS, err, err_size);
	case CONF_ALERTS_SLOW:
		return read_span(&c->volume_slow_ms, value, ALERT_MIN_MS, ALERT_MAX_MS, err, err_size);
	case CONF_ALERTS_FAILING:
		return read_span(&c->volume_failing_ms, value, ALERT_MIN_MS, ALERT_MAX_MS, err, err_size);
	case CONF_FENCING_POWER_ON:
		return value_bool(value, &c->power_on, err, err_size);
	case CONF_FENCING_BRAKE:
		return read_brake(c, value, err, err_size);
	case CONF_FENCING_QUARANTINE:
		return value_u32(value, 0, QUARANTINE_MAX, &c->quarantine, err, err_size);
	case CONF_FENCING_RESERVATION:
		return read_reservation(c, value, err, err_size);
	case CONF_POWER_NODE:
	case CONF_POWER_AGENT:
	case CONF_POWER_OPTIONS:
	case CONF_POWER_SECRET:
	case CONF_POWER_TIMEOUT:
	case CONF_POWER_LEVEL:
		return conf_power_value(r, key, value, err, err_size);
	default:
		return read_timing(r, (enum timing_field)(key - CONF_TIMING), value, err, err_size);
	}
}

static int on_key(void *user, int key, const char *value, unsigned int line, char *err, size_t err_size)
{
	struct conf_read *r = user;
	int ret;

	if (key == INI_SECTION) {
		r->here.line = line;
		return streq(value, "PowerDevice") ? conf_power_begin(r, err, err_size) : 0;
	}
	r->here.line = line;
	r->here.order++;
	ret = read_value(r, (enum conf_key)key, value, err, err_size);
	if (ret == 0)
		r->origin[key] = r->here;
	return ret;
}

/* The line to blame: the most recent override among the fields, else the most recent of all of [Timing] and Profile=. */
static const struct conf_origin *timing_culprit(const struct conf_read *r, uint32_t fields)
{
	const struct conf_origin *best = NULL;

	for (unsigned int f = 0; f < TIMING_PRIMARY_COUNT; f++) {
		const struct conf_origin *o = &r->origin[CONF_TIMING + f];

		if (o->file && (fields & UINT32_C(1) << f) && (!best || o->order > best->order))
			best = o;
	}
	if (!best && fields != UINT32_MAX)
		return timing_culprit(r, UINT32_MAX);
	return best ? best : &r->origin[CONF_PROFILE];
}

static int apply_timing(struct conf_read *r, char *err, size_t err_size)
{
	struct timing *t = &r->c.timing;
	struct timing_rule_state state;
	char reason[400];
	enum timing_rule rule;
	uint32_t fields = UINT32_MAX;
	const struct conf_origin *o;

	timing_of_profile(r->c.profile, t);
	for (unsigned int f = 0; f < TIMING_PRIMARY_COUNT; f++)
		if (r->origin[CONF_TIMING + f].file)
			timing_set(t, (enum timing_field)f, r->timing_override[f]);
	if (!r->origin[CONF_TIMING + TIMING_WD_DELAY].file)
		t->wd_delay_ms = timing_wd_delay_default_ms(t->wd_ms);
	timing_derive(t);
	if (r->c.volume_slow_ms == 0)
		r->c.volume_slow_ms = MAX(t->io_ms / 4, 1U);
	if (r->c.volume_failing_ms == 0)
		r->c.volume_failing_ms = t->hb_ms + 2 * t->io_ms;
	rule = timing_check(t, reason, sizeof(reason));
	if (rule == TIMING_RULE_NONE)
		return 0;
	if (rule != TIMING_RANGE) {
		timing_rule_eval(t, rule, &state);
		fields = state.fields;
	}
	o = timing_culprit(r, fields);
	return value_refuse(err, err_size, "%s:%u: %s", o->file ? o->file : r->files[0], o->line, reason);
}

static int find_self(struct conf_read *r, const char *hostname, char *err, size_t err_size)
{
	char host[256], own[256] = "", reason[160];
	const struct conf_node *self;

	if (!r->origin[CONF_NODE_NAME].file) {
		if (!hostname) {
			if (gethostname(own, sizeof(own) - 1) < 0) {
				int ret = -errno;

				(void)value_refuse(err, err_size, "cannot read this host's name: %s; set Name= in [Node]", strerror(-ret));
				return ret;
			}
			hostname = own;
		}
		(void)str_copy(host, sizeof(host), hostname);
		host[strcspn(host, ".")] = '\0';
		if (value_name_check(host, sizeof(r->c.self_name), reason, sizeof(reason)) < 0)
			return value_refuse(err, err_size, "%s: this host's name cannot be used: %s; set Name= in [Node]", r->files[0], reason);
		(void)str_copy(r->c.self_name, sizeof(r->c.self_name), host);
	}
	self = conf_node_by_name(&r->c, r->c.self_name);
	r->c.self_id = self ? self->id : 0;
	return 0;
}

static int check_whole(struct conf_read *r, char *err, size_t err_size)
{
	const char *file = r->files[0];
	int ret;

	if (!r->origin[CONF_CLUSTER_NAME].file)
		return value_refuse(err, err_size, "%s: Name= is missing in [Cluster]; add it", file);
	if (!r->c.n_nodes)
		return value_refuse(err, err_size, "%s: no nodes; add Nodes=NAME:ID ... to [Cluster]", file);
	if (!r->c.n_volumes)
		return value_refuse(err, err_size, "%s: no volumes; add Volumes= with 1 to %d URLs or paths to [Cluster]", file, CONF_MAX_VOLUMES);
	if (streq(r->c.watchdog, CONF_NO_WATCHDOG) && r->c.silence_proves)
		return value_refuse(err, err_size, "%s:%u: Device=none: without a watchdog this node's silence proves nothing to the others; say so with Evidence=no in "
				    "[Watchdog], or name a device such as /dev/watchdog",
				    r->origin[CONF_WATCHDOG_DEVICE].file, r->origin[CONF_WATCHDOG_DEVICE].line);
	ret = conf_power_check(r, err, err_size);
	return ret < 0 ? ret : apply_timing(r, err, err_size);
}

int conf_read_all(struct conf_read *r, const char *dir, const char *hostname, char *err, size_t err_size)
{
	int ret;

	memset(r, 0, sizeof(*r));
	set_defaults(&r->c);
	ret = conf_read_list(r, dir, err, err_size);
	for (size_t i = 0; ret == 0 && i < r->n_files; i++) {
		_cleanup_free_ char *text = NULL;
		size_t len;

		ret = conf_read_file(r->files[i], &text, &len, err, err_size);
		if (ret < 0)
			break;
		r->here.file = r->files[i];
		ret = ini_parse(r->files[i], text, len, conf_keys, CONF_KEY_COUNT, on_key, r, err, err_size);
	}
	if (ret == 0)
		ret = check_whole(r, err, err_size);
	if (ret == 0)
		ret = find_self(r, hostname, err, err_size);
	if (ret < 0)
		conf_read_deinit(r);
	return ret;
}

void conf_read_deinit(struct conf_read *r)
{
	while (r->n_files)
		free(r->files[--r->n_files]);
}

int conf_load(const char *dir, const char *hostname, struct conf *ret, char *err, size_t err_size)
{
	struct conf_read r;
	int n = conf_read_all(&r, dir, hostname, err, err_size);

	if (n < 0)
		return n;
	*ret = r.c;
	conf_read_deinit(&r);
	return 0;
}
