/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The outcome out of their log. Its lines: LEVEL SECONDS WHO: TEXT, where WHO is node/crm (their manager), node/lrm (their local one), watchdog, reboot, ...
 *
 * fenced: the watchdog cut its power, or the manager says that the fence succeeded. State: the manager's last word; a service that it calls started counts
 * as started only if the local manager of a node that still has power started it. */
#include <errno.h>
#include <stdio.h>

#include "tests/sim/replay.h"

#define MAX_REASONS 128

struct reason { char scenario[REPLAY_NAME], item[REPLAY_NAME], theirs[160], ours[160]; bool used; };
struct reasons { struct reason r[MAX_REASONS]; unsigned n; };

struct seen {
	const struct scenario *s;
	struct outcome *out;
	uint32_t runs_on[SIM_MAX_VMS];
	bool error[SIM_MAX_VMS];
};

/* The word in quotes that follows the n-th occurrence of key. */
static bool quoted(const char *text, const char *key, const char **ret, size_t *ret_len)
{
	const char *at = strstr(text, key), *end;

	if (!at)
		return false;
	at += strlen(key);
	end = strchr(at, '\'');
	if (!end)
		return false;
	*ret = at;
	*ret_len = (size_t)(end - at);
	return true;
}

static int service_in(const struct scenario *s, const char *text, const char *key)
{
	const char *name;
	size_t len;

	return quoted(text, key, &name, &len) ? scenario_service(s, name, len) : -1;
}

static uint32_t node_in(const struct scenario *s, const char *text, const char *key)
{
	const char *name;
	size_t len;

	return quoted(text, key, &name, &len) ? scenario_node(s, name, len) : 0;
}

/* (node = X, target = Y) */
static uint32_t node_of_parenthesis(const struct scenario *s, const char *text)
{
	const char *at = strstr(text, "(node = ");
	size_t len = at ? strcspn(at + 8, ",)") : 0;

	return at ? scenario_node(s, at + 8, len) : 0;
}

static void manager_state(struct seen *e, int v, const char *text)
{
	const char *to = strstr(text, "' to '");
	uint32_t node = node_of_parenthesis(e->s, text);

	if (!to)
		return;
	to += 6;
	if (node)
		e->out->final[v].node = node;
	if (strncmp(to, "error'", 6) == 0)
		e->out->final[v].state = SERVICE_ERROR;
	else if (strncmp(to, "stopped'", 8) == 0 || strncmp(to, "request_stop'", 13) == 0)
		e->out->final[v].state = SERVICE_STOPPED;
	else if (strncmp(to, "freeze'", 7) != 0)
		e->out->final[v].state = SERVICE_STARTED;
}

static void manager_line(struct seen *e, const char *text)
{
	const struct scenario *s = e->s;
	uint32_t node;
	int v;

	if ((v = service_in(s, text, "adding new service '")) >= 0) {
		e->out->final[v].node = node_in(s, text, "' on node '");
		e->out->final[v].state = SERVICE_STOPPED;
	} else if ((v = service_in(s, text, "removing stale service '")) >= 0) {
		e->out->final[v].state = strstr(text, "(ignored state requested)") ? SERVICE_IGNORED : SERVICE_GONE;
	} else if ((node = node_in(s, text, "fencing: acknowledged - got agent lock for node '"))) {
		e->out->fenced |= 1ULL << (node - 1);
	} else if ((v = service_in(s, text, "service '")) >= 0) {
		if (strstr(text, "': state changed from '"))
			manager_state(e, v, text);
		else if ((node = node_in(s, text, "' => '")) && strstr(text, "': updating node '"))
			e->out->final[v].node = node;
	}
}

static void local_line(struct seen *e, uint32_t node, const char *text)
{
	const char *name, *after;
	int v;

	if (streq(text, "killed by poweroff")) {
		for (unsigned i = 0; i < e->s->n_services; i++)
			e->runs_on[i] = e->runs_on[i] == node ? 0 : e->runs_on[i];
		return;
	}
	if (strncmp(text, "service status ", 15) == 0) {
		name = text + 15;
		v = scenario_service(e->s, name, strcspn(name, " "));
		after = name + strcspn(name, " ");
		if (v < 0)
			return;
		if (streq(after, " started")) {
			if (e->runs_on[v] != 0 && e->runs_on[v] != node)
				e->out->ran_twice |= 1ULL << v;
			e->runs_on[v] = node;
		} else if (streq(after, " stopped") && e->runs_on[v] == node) {
			e->runs_on[v] = 0;
		}
		return;
	}
	/* A live migration: it runs on over there, which says so by starting it. */
	if (strncmp(text, "service ", 8) == 0 && strstr(text, " - end ")) {
		name = text + 8;
		v = scenario_service(e->s, name, strcspn(name, " "));
		if (v >= 0 && e->runs_on[v] == node)
			e->runs_on[v] = 0;
	}
}

static void other_line(struct seen *e, const char *who, const char *text)
{
	size_t len;
	uint32_t node;
	int v;

	if (streq(who, "watchdog") && strncmp(text, "execute power ", 14) == 0) {
		len = strcspn(text + 14, " ");
		node = scenario_node(e->s, text + 14, len);
		if (node && streq(text + 14 + len, " off"))
			e->out->fenced |= 1ULL << (node - 1);
	}
	/* Somebody moved it behind their manager's back. */
	if (streq(who, "cmdlist") && strncmp(text, "execute service ", 16) == 0 && strstr(text, " manual-migrate ")) {
		v = scenario_service(e->s, text + 16, strcspn(text + 16, " "));
		if (v >= 0)
			e->runs_on[v] = 0;
	}
}

static void take_line(struct seen *e, char *line)
{
	char *who = line, *text, *slash;
	uint32_t node;

	for (unsigned i = 0; i < 2; i++) { /* level, time */
		who += strcspn(who, " \t");
		who += strspn(who, " \t");
	}
	text = strstr(who, ": ");
	if (!text)
		return;
	*text = '\0';
	text += 2;
	slash = strchr(who, '/');
	if (!slash) {
		other_line(e, who, text);
		return;
	}
	node = scenario_node(e->s, who, (size_t)(slash - who));
	if (streq(slash, "/crm"))
		manager_line(e, text);
	else if (streq(slash, "/lrm") && node)
		local_line(e, node, text);
}

int expect_derive(const struct scenario *s, struct outcome *ret, char *err)
{
	struct seen e = { .s = s, .out = ret };
	char *text, *save, *line;
	unsigned lines = 0;

	memset(ret, 0, sizeof(*ret));
	if (scenario_file(s, "log.expect", &text, err) < 0)
		return -1;
	for (unsigned v = 0; v < s->n_services; v++) {
		ret->final[v].node = s->service[v].known ? s->service[v].known_node : s->service[v].node;
		ret->final[v].state = s->service[v].known ? s->service[v].known_state : s->service[v].at_start ? SERVICE_STOPPED : SERVICE_GONE;
	}
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++)
		take_line(&e, line);
	free(text);
	if (lines == 0) {
		(void)snprintf(err, REPLAY_ERR, "%s/log.expect: empty", s->dir);
		return -1;
	}
	for (unsigned v = 0; v < s->n_services; v++)
		if (ret->final[v].state == SERVICE_STARTED && e.runs_on[v] != ret->final[v].node)
			ret->final[v].state = SERVICE_STOPPED;
	return 0;
}

/* Documented reasons: the rows of a table in Markdown, | scenario | what | theirs | ours | why |, the first four as this program prints them. */

static char *cell(char **at)
{
	char *c = *at + strspn(*at, " \t"), *end = strchr(c, '|');

	if (!end)
		return NULL;
	*at = end + 1;
	while (end > c && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*end = '\0';
	return c;
}

static int add_reason(struct reasons *r, char *line, unsigned number, const char *path, char *err)
{
	struct reason *x = &r->r[r->n];
	char *at = line + 1, *c[5];

	for (unsigned i = 0; i < ARRAY_SIZE(c); i++)
		c[i] = cell(&at);
	if (r->n == MAX_REASONS || !c[4] || c[4][0] == '\0' || !str_copy(x->scenario, sizeof(x->scenario), c[0]) || !str_copy(x->item, sizeof(x->item), c[1]) ||
	    !str_copy(x->theirs, sizeof(x->theirs), c[2]) || !str_copy(x->ours, sizeof(x->ours), c[3])) {
		(void)snprintf(err, REPLAY_ERR, "%s, line %u: not | scenario | what | theirs | ours | why |, or too long", path, number);
		return -1;
	}
	r->n++;
	return 0;
}

int reasons_load(const char *path, struct reasons **ret, char *err)
{
	struct reasons *r = calloc(1, sizeof(*r));
	char line[2048];
	unsigned number = 0;
	int status = 0;
	FILE *f = fopen(path, "r");

	CHECK(r);
	if (!f) {
		(void)snprintf(err, REPLAY_ERR, "%s: %s", path, strerror(errno));
		free(r);
		return -1;
	}
	while (status == 0 && fgets(line, sizeof(line), f)) {
		number++;
		if (strncmp(line, "| test-", 7) == 0)
			status = add_reason(r, line, number, path, err);
	}
	(void)fclose(f);
	if (status < 0) {
		free(r);
		return -1;
	}
	*ret = r;
	return 0;
}

void reasons_free(struct reasons *r) { free(r); }

static bool has_reason(struct reasons *r, const char *scenario, const char *item, const char *theirs, const char *ours)
{
	for (unsigned i = 0; r && i < r->n; i++) {
		struct reason *x = &r->r[i];

		if (streq(x->scenario, scenario) && streq(x->item, item) && streq(x->theirs, theirs) && streq(x->ours, ours)) {
			x->used = true;
			return true;
		}
	}
	return false;
}

unsigned reasons_unused(const struct reasons *r, const char *scenario)
{
	unsigned n = 0;

	for (unsigned i = 0; r && i < r->n; i++) {
		if (r->r[i].used || !streq(r->r[i].scenario, scenario))
			continue;
		(void)printf("  %s: documented, but NOT SEEN: %s: theirs %s, ours %s\n", scenario, r->r[i].item, r->r[i].theirs, r->r[i].ours);
		n++;
	}
	return n;
}

static void names(const struct scenario *s, uint64_t bits, bool nodes, char *buf, size_t size)
{
	size_t n = 0;

	(void)str_copy(buf, size, "none");
	for (unsigned i = 0; i < 64 && n < size; i++)
		if (bits >> i & 1)
			n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? " " : "", nodes ? s->node[i] : s->service[i].name);
}

static void ending(const struct scenario *s, const struct outcome *o, unsigned v, char *buf, size_t size)
{
	uint32_t node = o->final[v].node;

	if (o->final[v].state == SERVICE_GONE || node == 0)
		(void)str_copy(buf, size, service_state_name(o->final[v].state));
	else
		(void)snprintf(buf, size, "%s on %s", service_state_name(o->final[v].state), s->node[node - 1]);
}

static void tell(const struct scenario *s, const char *item, const char *theirs, const char *ours, struct reasons *r, uint64_t seed, unsigned *n, unsigned *bad)
{
	bool documented;

	if (streq(theirs, ours))
		return;
	documented = has_reason(r, s->name, item, theirs, ours);
	(void)printf("  %s: %s: theirs %s, ours %s (%s, seed %llu)\n", s->name, item, theirs, ours, documented ? "documented" : "NO REASON",
		     (unsigned long long)seed);
	*n += 1;
	*bad += !documented;
}

unsigned expect_compare(const struct scenario *s, const struct outcome *theirs, const struct outcome *ours, struct reasons *r, uint64_t seed,
			unsigned *ret_without_reason)
{
	char a[256], b[256];
	unsigned n = 0;

	*ret_without_reason = 0;
	names(s, theirs->fenced, true, a, sizeof(a));
	names(s, ours->fenced, true, b, sizeof(b));
	tell(s, "fenced", a, b, r, seed, &n, ret_without_reason);
	for (unsigned v = 0; v < s->n_services; v++) {
		ending(s, theirs, v, a, sizeof(a));
		ending(s, ours, v, b, sizeof(b));
		tell(s, s->service[v].name, a, b, r, seed, &n, ret_without_reason);
	}
	names(s, theirs->ran_twice, false, a, sizeof(a));
	names(s, ours->ran_twice, false, b, sizeof(b));
	tell(s, "ran_twice", a, b, r, seed, &n, ret_without_reason);
	return n;
}
