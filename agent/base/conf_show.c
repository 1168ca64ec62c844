/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/conf_read.h"

/* Where the values go: lines on stdout, or a JSON array of them. */
struct show {
	const struct conf_read *r;
	json_object *values; /* NULL: text */
	const char *section; /* last one printed */
};

static void show_line(struct show *s, const char *section, const char *key, const char *value, const char *origin)
{
	json_object *o;

	if (!s->values) {
		if (!s->section || !streq(s->section, section))
			(void)printf("%s[%s]\n", s->section ? "\n" : "", section);
		s->section = section;
		(void)printf("%s=%-*s # %s\n", key, (int)(40 - MIN(strlen(key), 39)), value, origin);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "section", json_object_new_string(section));
	json_object_object_add(o, "key", json_object_new_string(key));
	json_object_object_add(o, "value", json_object_new_string(value));
	json_object_object_add(o, "origin", json_object_new_string(origin));
	json_object_array_add(s->values, o);
}

_printf_(5, 6) static void show_at(struct show *s, const struct ini_key *k, const struct conf_origin *at, const char *otherwise,
				   const char *fmt, ...)
{
	char value[CONF_URL_LEN + 32], origin[CONF_URL_LEN + 32];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (at->file)
		(void)snprintf(origin, sizeof(origin), "%s:%u", at->file, at->line);
	show_line(s, k->section, k->key, value, at->file ? origin : otherwise);
}

#define SHOW(s, key, otherwise, ...) show_at(s, &conf_keys[key], &(s)->r->origin[key], otherwise, __VA_ARGS__)

static void show_timing(struct show *s)
{
	static const char *const derived[] = { [TIMING_W - TIMING_W] = "derived: I1",
					       [TIMING_SOFT - TIMING_W] = "derived: soft-1, at least soft-2",
					       [TIMING_HEAL - TIMING_W] = "derived: how long nodes may take to reconnect",
					       [TIMING_SILENT - TIMING_W] = "derived: 5 Leader" };
	const struct conf *c = &s->r->c;
	char profile[32], value[32];

	(void)snprintf(profile, sizeof(profile), "profile %s", timing_profile_name(c->profile));
	for (unsigned int f = 0; f < TIMING_FIELD_COUNT; f++) {
		uint32_t n = timing_get(&c->timing, (enum timing_field)f);

		if (f >= TIMING_PRIMARY_COUNT) {
			(void)snprintf(value, sizeof(value), "%" PRIu32 "ms", n);
			show_line(s, "Timing", timing_values[f].key, value, derived[f - TIMING_W]);
			continue;
		}
		/* a bare number is permille, as ClockRate= takes it */
		SHOW(s, CONF_TIMING + f, f == TIMING_WD_DELAY && s->r->origin[CONF_TIMING + TIMING_WD].file ? "derived: Watchdog / 10" : profile,
		     "%" PRIu32 "%s", n, timing_values[f].permille ? "" : "ms");
	}
}

static void show_power(struct show *s, const struct conf_power *p)
{
	const struct conf_read *r = s->r;
	const struct conf_origin *at = &r->power_origin[p->section];
	const char *options = r->c.power_text + p->options, *secret = r->c.power_text + p->secret_file;

	show_at(s, &conf_keys[CONF_POWER_NODE], at, "", "%s", conf_node_by_id(&r->c, p->node)->name);
	show_at(s, &conf_keys[CONF_POWER_AGENT], at, "", "%s", p->agent);
	for (size_t len; *options; options += len + 1) {
		len = strcspn(options, "\n");
		show_at(s, &conf_keys[CONF_POWER_OPTIONS], at, "", "%.*s", (int)len, options);
	}
	if (*secret)
		show_at(s, &conf_keys[CONF_POWER_SECRET], at, "", "%s", secret);
	show_at(s, &conf_keys[CONF_POWER_TIMEOUT], at, "", "%" PRIu32 "ms", p->timeout_ms);
	show_at(s, &conf_keys[CONF_POWER_LEVEL], at, "", "%" PRIu32, p->level);
}

static void show_values(struct show *s)
{
	const struct conf_read *r = s->r;
	const struct conf *c = &r->c;

	SHOW(s, CONF_CLUSTER_NAME, "default", "%s", c->cluster);
	for (size_t i = 0; i < c->n_nodes; i++)
		show_at(s, &conf_keys[CONF_NODES], &r->node_origin[c->nodes[i].id], "default", "%s:%" PRIu32, c->nodes[i].name, c->nodes[i].id);
	for (size_t i = 0; i < c->n_volumes; i++)
		show_at(s, &conf_keys[CONF_VOLUMES], &r->volume_origin[i], "default", "%s", c->volumes[i]);
	if (*c->secret_file)
		SHOW(s, CONF_SECRET_FILE, "default", "%s", c->secret_file);
	SHOW(s, CONF_PROFILE, "default", "%s", timing_profile_name(c->profile));
	show_timing(s);
	SHOW(s, CONF_REQUIRE_ENCRYPTION, "default", "%s", c->require_ring_encryption ? "yes" : "no");
	SHOW(s, CONF_ON_RING_LOSS, "default", "%s", conf_ring_loss_name(c->on_ring_loss));
	SHOW(s, CONF_WATCHDOG_DEVICE, "default", "%s", c->watchdog);
	SHOW(s, CONF_WATCHDOG_EVIDENCE, "default", "%s", c->silence_proves ? "yes" : "no");
	SHOW(s, CONF_NODE_NAME, "host name", "%s", c->self_name);
	SHOW(s, CONF_NODE_SHUTDOWN, "default", "%s", conf_shutdown_name(c->shutdown));
	SHOW(s, CONF_NODE_SHUTDOWN_TIMEOUT, "default", "%" PRIu32 "ms", c->shutdown_ms);
	SHOW(s, CONF_NODE_FREEZE_TIMEOUT, "default", "%" PRIu32 "ms", c->freeze_ms);
	SHOW(s, CONF_HOOKS_DIRECTORY, "default", "%s", c->hooks_dir);
	SHOW(s, CONF_HOOKS_TIMEOUT, "default", "%" PRIu32 "ms", c->hook_timeout_ms);
	SHOW(s, CONF_ALERTS_SLOW, "derived: IO / 4", "%" PRIu32 "ms", c->volume_slow_ms);
	SHOW(s, CONF_ALERTS_FAILING, "derived: Heartbeat + 2 IO", "%" PRIu32 "ms", c->volume_failing_ms);
	SHOW(s, CONF_FENCING_POWER_ON, "default", "%s", c->power_on ? "yes" : "no");
	SHOW(s, CONF_FENCING_BRAKE, "default", "%" PRIu32 "%%", c->brake_percent);
	SHOW(s, CONF_FENCING_QUARANTINE, "default", "%" PRIu32, c->quarantine);
	SHOW(s, CONF_FENCING_RESERVATION, "default", "%s", conf_reservation_name(c->reservation));
	for (size_t i = 0; i < c->n_power; i++)
		show_power(s, &c->power[i]);
	SHOW(s, CONF_PLACE_MEMORY, "default", "%" PRIu32 "%%", c->memory_percent);
	SHOW(s, CONF_PLACE_VCPUS, "default", "%" PRIu32 "%%", c->vcpus_percent);
	SHOW(s, CONF_PLACE_STARTS, "default", "%" PRIu32, c->starts_per_node);
	SHOW(s, CONF_PLACE_MIGRATIONS, "default", "%" PRIu32, c->migrations_per_node);
	if (*c->tls_dir)
		SHOW(s, CONF_MIGRATION_TLS, "default", "%s", c->tls_dir);
}

static void show_rules(const struct timing *t, json_object *array)
{
	for (unsigned int i = TIMING_RULE_NONE + 1; i < TIMING_RULE_COUNT; i++) {
		struct timing_rule_state state;
		json_object *o;

		if (i == TIMING_RANGE)
			continue;
		timing_rule_eval(t, (enum timing_rule)i, &state);
		if (!array) {
			(void)printf("# %s: %s: %" PRIu64 " >= %" PRIu64 " %s: %s\n", state.name, state.text, state.left, state.right, state.unit,
				     state.left >= state.right ? "holds" : "BROKEN");
			continue;
		}
		o = json_object_new_object();
		json_object_object_add(o, "name", json_object_new_string(state.name));
		json_object_object_add(o, "rule", json_object_new_string(state.text));
		json_object_object_add(o, "left", json_object_new_int64((int64_t)state.left));
		json_object_object_add(o, "right", json_object_new_int64((int64_t)state.right));
		json_object_object_add(o, "unit", json_object_new_string(state.unit));
		json_object_object_add(o, "holds", json_object_new_boolean(state.left >= state.right));
		json_object_array_add(array, o);
	}
}

static void show_text(const struct conf_read *r)
{
	const struct timing *t = &r->c.timing;
	struct show s = { .r = r };
	uint32_t bound = timing_failover_bound_ms(t);

	show_values(&s);
	(void)printf("\n");
	show_rules(t, NULL);
	(void)printf("\n# After a power cut a VM starts on another node within %" PRIu32 ".%03" PRIu32 " s at most: Heartbeat %" PRIu32
		     " + IO %" PRIu32 " + W %" PRIu32 " + Drain %" PRIu32 " + publish, claim and probe %d x %" PRIu32 " + start %d ms.\n",
		     bound / 1000, bound % 1000, t->hb_ms, t->io_ms, t->w_ms, t->drain_ms, TIMING_TAKEOVER_IOS, t->io_ms, TIMING_START_MS);
	if (!r->c.silence_proves)
		(void)printf("# Not so of a node with Evidence=no: its VMs wait for a fence device or an operator to say that it is off.\n");
	bound = timing_silent_bound_ms(t);
	(void)printf("# A VM that ends while the agent of its node is dead or hangs starts on another node within %" PRIu32 ".%03" PRIu32
		     " s of the agent's last sign of life, or of its own end if that is later.\n", bound / 1000, bound % 1000);
	if (!r->c.self_id)
		(void)printf("# This host, %s, is not in Nodes=.\n", r->c.self_name);
}

static void show_json(const struct conf_read *r)
{
	json_object *root = json_object_new_object(), *values = json_object_new_array(), *rules = json_object_new_array();
	json_object *self = json_object_new_object();
	struct show s = { .r = r, .values = values };

	show_values(&s);
	show_rules(&r->c.timing, rules);
	json_object_object_add(root, "api_version", json_object_new_int(1));
	json_object_object_add(self, "name", json_object_new_string(r->c.self_name));
	json_object_object_add(self, "id", json_object_new_int64(r->c.self_id));
	json_object_object_add(root, "self", self);
	json_object_object_add(root, "values", values);
	json_object_object_add(root, "rules", rules);
	json_object_object_add(root, "failover_bound_ms", json_object_new_int64(timing_failover_bound_ms(&r->c.timing)));
	json_object_object_add(root, "silent_bound_ms", json_object_new_int64(timing_silent_bound_ms(&r->c.timing)));
	(void)printf("%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

int conf_show(const char *dir, const char *hostname, bool json, char *err, size_t err_size)
{
	struct conf_read r;
	int ret = conf_read_all(&r, dir, hostname, err, err_size);

	if (ret < 0)
		return ret;
	if (json)
		show_json(&r);
	else
		show_text(&r);
	conf_read_deinit(&r);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		(void)snprintf(err, err_size, "cannot write to standard output");
		return -EIO;
	}
	return 0;
}
