/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A scenario's folder: hardware_status, service_config and cmdlist must be there, manager_status and datacenter.cfg may be. What is not understood is an
 * error, never passed over: a setting that we do not know may be the one that matters. */
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/replay.h"

#define MAX_WORDS 8
#define FILE_LIMIT (1 << 20)

static int fail(char *err, const char *fmt, ...) _printf_(2, 3);
static int fail(char *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err, REPLAY_ERR, fmt, ap);
	va_end(ap);
	return -1;
}

const char *service_state_name(enum service_state s)
{
	static const char *const name[SERVICE_STATE_COUNT] = { "started", "stopped", "error", "ignored", "gone" };

	return name[s];
}

int scenario_file(const struct scenario *s, const char *file, char **ret, char *err)
{
	char path[640], *text;
	size_t n;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", s->dir, file);
	f = fopen(path, "r");
	if (!f)
		return fail(err, "%s: %s", path, strerror(errno));
	text = malloc(FILE_LIMIT + 1);
	CHECK(text);
	n = fread(text, 1, FILE_LIMIT + 1, f);
	if (ferror(f) || n > FILE_LIMIT) {
		(void)fail(err, "%s: %s", path, ferror(f) ? strerror(errno) : "too long for a scenario's file");
		(void)fclose(f);
		free(text);
		return -1;
	}
	(void)fclose(f);
	text[n] = '\0';
	*ret = text;
	return 0;
}

static bool have_file(const struct scenario *s, const char *file)
{
	char path[640];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", s->dir, file);
	f = fopen(path, "r");
	if (f)
		(void)fclose(f);
	return f != NULL;
}

static int load_json(const struct scenario *s, const char *file, enum json_type type, json_object **ret, char *err)
{
	struct json_tokener *tok;
	unsigned line = 1;
	json_object *o;
	char *text;

	if (scenario_file(s, file, &text, err) < 0)
		return -1;
	tok = json_tokener_new();
	CHECK(tok);
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	o = json_tokener_parse_ex(tok, text, (int)strlen(text) + 1);
	for (int i = 0; i < tok->char_offset && text[i]; i++)
		line += text[i] == '\n';
	if (!o || !json_object_is_type(o, type)) {
		enum json_tokener_error e = json_tokener_get_error(tok);

		(void)fail(err, "%s/%s, line %u: %s", s->dir, file, line,
			   e != json_tokener_success ? json_tokener_error_desc(e) : type == json_type_array ? "not a JSON array" : "not a JSON object");
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(tok);
	free(text);
	*ret = o;
	return o ? 0 : -1;
}

uint32_t scenario_node(const struct scenario *s, const char *name, size_t len)
{
	for (unsigned i = 0; i < s->n_nodes; i++)
		if (strlen(s->node[i]) == len && memcmp(s->node[i], name, len) == 0)
			return i + 1;
	return 0;
}

int scenario_service(const struct scenario *s, const char *name, size_t len)
{
	for (unsigned i = 0; i < s->n_services; i++)
		if (strlen(s->service[i].name) == len && memcmp(s->service[i].name, name, len) == 0)
			return (int)i;
	return -1;
}

static bool parse_on(const char *word, bool *ret)
{
	*ret = streq(word, "on");
	return *ret || streq(word, "off");
}

static bool parse_number(const char *word, unsigned *ret)
{
	char *end;
	unsigned long n = strtoul(word, &end, 10);

	*ret = (unsigned)n;
	return word[0] >= '0' && word[0] <= '9' && *end == '\0' && n <= 100000;
}

static bool parse_state(const char *word, enum service_state *ret)
{
	static const struct { const char *word; enum service_state state; } states[] = {
		{ "started", SERVICE_STARTED }, { "enabled", SERVICE_STARTED }, { "stopped", SERVICE_STOPPED },
		{ "disabled", SERVICE_STOPPED }, { "ignored", SERVICE_IGNORED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		if (streq(word, states[i].word)) {
			*ret = states[i].state;
			return true;
		}
	}
	return false;
}

static const char *text_of(json_object *o) { return o ? json_object_get_string(o) : ""; }

static int load_hardware(struct scenario *s, char *err)
{
	json_object *o;
	int r = load_json(s, "hardware_status", json_type_object, &o, err);

	if (r < 0)
		return r;
	json_object_object_foreach(o, name, value)
	{
		unsigned at = s->n_nodes;

		(void)value;
		if (at == SIM_MAX_NODES || strlen(name) >= REPLAY_NAME) {
			r = fail(err, "%s/hardware_status: more than %d nodes, or a name that is too long", s->dir, SIM_MAX_NODES);
			break;
		}
		/* Their order is that of the names; our ids follow it. */
		for (; at > 0 && strcmp(s->node[at - 1], name) > 0; at--)
			memcpy(s->node[at], s->node[at - 1], REPLAY_NAME);
		(void)str_copy(s->node[at], REPLAY_NAME, name);
		s->n_nodes++;
	}
	if (r == 0 && s->n_nodes == 0)
		r = fail(err, "%s/hardware_status: no nodes", s->dir);
	for (unsigned i = 0; i < s->n_nodes && r == 0; i++) {
		json_object *node = json_object_object_get(o, s->node[i]);

		if (!json_object_is_type(node, json_type_object) || !parse_on(text_of(json_object_object_get(node, "power")), &s->power[i]) ||
		    !parse_on(text_of(json_object_object_get(node, "network")), &s->network[i]))
			r = fail(err, "%s/hardware_status: %s: power and network must be on or off", s->dir, s->node[i]);
	}
	json_object_put(o);
	return r;
}

static int add_service(struct scenario *s, const char *name, char *err)
{
	unsigned at = s->n_services;
	struct service new = { .max_restart = 1, .max_relocate = 1, .state = SERVICE_STOPPED };
	const char *digit = name + 3;

	if (at == SIM_MAX_VMS || strlen(name) >= REPLAY_NAME || strlen(name) < 4 || name[2] != ':')
		return fail(err, "%s: service %s: more than %d services, or not a name of one", s->dir, name, SIM_MAX_VMS);
	(void)str_copy(new.name, REPLAY_NAME, name);
	/* fa:abcdef: b starts fail, c migrations likewise (a move is a start elsewhere here), d: it does not shut down, f: on that node only */
	if (strncmp(name, "fa:", 3) == 0) {
		unsigned d[6] = { 0 };

		for (unsigned i = 0; i < 6 && digit[i]; i++) {
			if (digit[i] < '0' || digit[i] > '9')
				return fail(err, "%s: service %s: not digits", s->dir, name);
			d[i] = (unsigned)(digit[i] - '0');
		}
		new.fail_starts = d[1] + d[2];
		new.deaf = d[3] != 0;
		new.fail_node = d[5];
	}
	for (; at > 0 && strcmp(s->service[at - 1].name, name) > 0; at--)
		s->service[at] = s->service[at - 1];
	s->service[at] = new;
	s->n_services++;
	return 0;
}

static int load_service(struct scenario *s, const char *name, json_object *o, char *err)
{
	int at = scenario_service(s, name, strlen(name));
	struct service *v = &s->service[at];

	if (!json_object_is_type(o, json_type_object))
		return fail(err, "%s/service_config: %s: not an object", s->dir, name);
	v->at_start = true;
	json_object_object_foreach(o, key, value)
	{
		const char *text = text_of(value);
		bool ok;

		if (streq(key, "node"))
			ok = (v->node = scenario_node(s, text, strlen(text))) != 0;
		else if (streq(key, "state"))
			ok = parse_state(text, &v->state);
		else if (streq(key, "max_restart"))
			ok = parse_number(text, &v->max_restart);
		else if (streq(key, "max_relocate"))
			ok = parse_number(text, &v->max_relocate);
		else
			ok = streq(key, "comment");
		if (!ok)
			return fail(err, "%s/service_config: %s: \"%s\": \"%s\" is not understood", s->dir, name, key, text);
	}
	return v->node ? 0 : fail(err, "%s/service_config: %s: no node", s->dir, name);
}

static int load_services(struct scenario *s, char *err)
{
	json_object *o;
	int r = load_json(s, "service_config", json_type_object, &o, err);

	if (r < 0)
		return r;
	json_object_object_foreach(o, name, value)
	{
		(void)value;
		if (r == 0)
			r = add_service(s, name, err);
	}
	json_object_object_foreach(o, name2, value2)
	{
		if (r == 0)
			r = load_service(s, name2, value2, err);
	}
	json_object_put(o);
	return r;
}

/* What their manager believed when it was last stopped. We have no such file: it is read to derive their outcome only. */
static int load_manager(struct scenario *s, char *err)
{
	json_object *o, *all = NULL;

	if (!have_file(s, "manager_status"))
		return 0;
	if (load_json(s, "manager_status", json_type_object, &o, err) < 0)
		return -1;
	if (json_object_object_get_ex(o, "service_status", &all) && json_object_is_type(all, json_type_object)) {
		json_object_object_foreach(all, name, value)
		{
			int at = scenario_service(s, name, strlen(name));
			const char *node = text_of(json_object_object_get(value, "node")), *state = text_of(json_object_object_get(value, "state"));

			if (at < 0)
				continue;
			s->service[at].known = true;
			s->service[at].known_node = scenario_node(s, node, strlen(node));
			s->service[at].known_state = streq(state, "stopped") || streq(state, "request_stop") ? SERVICE_STOPPED :
						     streq(state, "error") ? SERVICE_ERROR : SERVICE_STARTED;
		}
	}
	json_object_put(o);
	return 0;
}

static int load_datacenter(struct scenario *s, char *err)
{
	static const char *const policies[] = {
		[LEAVE_CONDITIONAL] = "conditional", [LEAVE_MIGRATE] = "migrate", [LEAVE_FAILOVER] = "failover", [LEAVE_FREEZE] = "freeze",
	};
	json_object *o, *ha = NULL;
	int r = 0;

	if (!have_file(s, "datacenter.cfg"))
		return 0;
	if (load_json(s, "datacenter.cfg", json_type_object, &o, err) < 0)
		return -1;
	json_object_object_foreach(o, section, value)
	{
		if (streq(section, "ha") && json_object_is_type(value, json_type_object))
			ha = value;
		else
			r = fail(err, "%s/datacenter.cfg: \"%s\" is not understood", s->dir, section);
	}
	if (ha && r == 0) {
		json_object_object_foreach(ha, key, setting)
		{
			unsigned p = 0;

			while (p < ARRAY_SIZE(policies) && !streq(text_of(setting), policies[p]))
				p++;
			if (!streq(key, "shutdown_policy") || p == ARRAY_SIZE(policies))
				r = fail(err, "%s/datacenter.cfg: \"%s\": \"%s\" is not understood", s->dir, key, text_of(setting));
			else
				s->policy = (enum leave_policy)p;
		}
	}
	json_object_put(o);
	return r;
}

/* Commands: each parse function says whether it understood all words. */

struct words { const char *w[MAX_WORDS]; size_t n; };

static bool parse_service_command(struct scenario *s, const struct words *w, struct command *c)
{
	const char *what = w->w[2];
	int at = scenario_service(s, w->w[1], strlen(w->w[1]));
	enum service_state state;

	if (at < 0)
		return false;
	c->service = (unsigned)at;
	c->node = w->n == 4 ? scenario_node(s, w->w[3], strlen(w->w[3])) : 0;
	if (w->n == 3 && parse_state(what, &state)) {
		c->kind = CMD_STATE;
		c->number = state;
		return true;
	}
	if (streq(what, "migrate") || streq(what, "relocate") || streq(what, "manual-migrate")) {
		c->kind = CMD_MOVE;
		return c->node != 0;
	}
	if (streq(what, "stop")) {
		c->kind = CMD_STOP;
		return w->n == 4 && parse_number(w->w[3], &c->number);
	}
	if (streq(what, "lock") || streq(what, "unlock")) {
		c->kind = CMD_LOCK;
		c->on = streq(what, "lock");
		return w->n == 3 || (w->n == 4 && c->on);
	}
	if (streq(what, "delete")) {
		c->kind = CMD_DELETE;
		return w->n == 3;
	}
	if (!streq(what, "add") || w->n < 4 || w->n > 6)
		return false;
	c->kind = CMD_ADD;
	c->node = scenario_node(s, w->w[3], strlen(w->w[3]));
	state = SERVICE_STOPPED;
	if (w->n >= 5 && !parse_state(w->w[4], &state))
		return false;
	c->number = state;
	return c->node != 0 && (w->n < 6 || streq(w->w[5], "running") || streq(w->w[5], "1") || streq(w->w[5], "0"));
}

static bool parse_crm(const struct words *w, struct command *c)
{
	const char *what = w->w[2];

	if (streq(what, "disarm-ha")) {
		c->kind = CMD_DISARM;
		c->number = w->n == 4 && streq(w->w[3], "freeze") ? PAUSE_FREEZE : PAUSE_IGNORE;
		return w->n == 4 && (c->number == PAUSE_FREEZE || streq(w->w[3], "ignore"));
	}
	if (streq(what, "arm-ha"))
		c->kind = CMD_ARM;
	else if (streq(what, "enable-node-maintenance") || streq(what, "disable-node-maintenance"))
		c->kind = CMD_MAINTENANCE;
	else if (streq(what, "start") || streq(what, "stop"))
		c->kind = CMD_CRM;
	else
		return false;
	c->on = streq(what, "start") || streq(what, "enable-node-maintenance");
	return w->n == 3;
}

static bool parse_node_command(const struct words *w, struct command *c)
{
	const char *what = w->w[0];

	if (streq(what, "power") || streq(what, "network")) {
		c->kind = streq(what, "power") ? CMD_POWER : CMD_NETWORK;
		return w->n == 3 && parse_on(w->w[2], &c->on);
	}
	if (streq(what, "cfs")) {
		c->kind = CMD_CFS;
		c->on = w->n == 4 && streq(w->w[3], "work");
		return w->n == 4 && (streq(w->w[2], "rw") || streq(w->w[2], "update")) && (c->on || streq(w->w[3], "fail"));
	}
	if (streq(what, "crm"))
		return w->n >= 3 && parse_crm(w, c);
	if (streq(what, "reboot"))
		c->kind = CMD_REBOOT;
	else if (streq(what, "shutdown"))
		c->kind = CMD_SHUTDOWN;
	else if (streq(what, "restart-lrm"))
		c->kind = CMD_RESTART_LRM;
	else
		return false;
	return w->n == 2;
}

static bool parse_words(struct scenario *s, const struct words *w, struct command *c)
{
	if (w->n < 2)
		return false;
	if (streq(w->w[0], "delay")) {
		c->kind = CMD_DELAY;
		return w->n == 2 && parse_number(w->w[1], &c->number);
	}
	if (streq(w->w[0], "skip-round")) {
		c->kind = CMD_SKIP_ROUND;
		c->on = streq(w->w[1], "crm");
		c->number = 1;
		return (c->on || streq(w->w[1], "lrm")) && (w->n == 2 || (w->n == 3 && parse_number(w->w[2], &c->number)));
	}
	if (streq(w->w[0], "service"))
		return w->n >= 3 && parse_service_command(s, w, c);
	c->node = scenario_node(s, w->w[1], strlen(w->w[1]));
	return c->node != 0 && parse_node_command(w, c);
}

static void split(char *text, struct words *w)
{
	char *save;

	for (char *word = strtok_r(text, " \t", &save); word && w->n < MAX_WORDS; word = strtok_r(NULL, " \t", &save))
		w->w[w->n++] = word;
}

static int load_command(struct scenario *s, unsigned group, unsigned at, json_object *o, char *err)
{
	struct command *c = &s->command[s->n_commands];
	struct words w = { .n = 0 };
	char text[sizeof(c->text)];

	if (!json_object_is_type(o, json_type_string) || s->n_commands == REPLAY_MAX_COMMANDS || strlen(text_of(o)) >= sizeof(text))
		return fail(err, "%s/cmdlist: group %u, command %u: not a string, too long, or one of more than %d", s->dir, group + 1, at + 1,
			    REPLAY_MAX_COMMANDS);
	*c = (struct command){ .group = group };
	(void)str_copy(c->text, sizeof(c->text), text_of(o));
	(void)str_copy(text, sizeof(text), c->text);
	split(text, &w);
	if (!parse_words(s, &w, c))
		return fail(err, "%s/cmdlist: group %u, command %u: \"%s\" is not understood", s->dir, group + 1, at + 1, c->text);
	s->n_commands++;
	return 0;
}

/* Services that are only added later: every one has its place from the beginning. */
static int find_added(struct scenario *s, json_object *group, char *err)
{
	for (size_t i = 0; i < json_object_array_length(group); i++) {
		struct words w = { .n = 0 };
		char text[160];

		if (!str_copy(text, sizeof(text), text_of(json_object_array_get_idx(group, i))))
			continue;
		split(text, &w);
		if (w.n >= 3 && streq(w.w[0], "service") && streq(w.w[2], "add") && scenario_service(s, w.w[1], strlen(w.w[1])) < 0 &&
		    add_service(s, w.w[1], err) < 0)
			return -1;
	}
	return 0;
}

static int load_commands(struct scenario *s, char *err)
{
	json_object *o;
	int r = load_json(s, "cmdlist", json_type_array, &o, err);

	if (r < 0)
		return r;
	s->n_groups = (unsigned)json_object_array_length(o);
	for (unsigned g = 0; g < s->n_groups && r == 0; g++) {
		json_object *group = json_object_array_get_idx(o, g);

		r = json_object_is_type(group, json_type_array) ? find_added(s, group, err) :
								  fail(err, "%s/cmdlist: group %u is not an array", s->dir, g + 1);
	}
	for (unsigned g = 0; g < s->n_groups && r == 0; g++) {
		json_object *group = json_object_array_get_idx(o, g);

		for (unsigned i = 0; i < json_object_array_length(group) && r == 0; i++)
			r = load_command(s, g, i, json_object_array_get_idx(group, i), err);
	}
	json_object_put(o);
	return r;
}

int scenario_load(const char *dir, struct scenario *ret, char *err)
{
	size_t len = strlen(dir);
	const char *name;

	memset(ret, 0, sizeof(*ret));
	while (len > 1 && dir[len - 1] == '/')
		len--;
	if (len >= sizeof(ret->dir))
		return fail(err, "%.100s...: too long a path", dir);
	memcpy(ret->dir, dir, len);
	name = strrchr(ret->dir, '/');
	(void)str_copy(ret->name, sizeof(ret->name), name ? name + 1 : ret->dir);
	if (load_hardware(ret, err) < 0 || load_services(ret, err) < 0 || load_commands(ret, err) < 0)
		return -1;
	return load_manager(ret, err) < 0 || load_datacenter(ret, err) < 0 ? -1 : 0;
}
