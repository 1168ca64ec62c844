/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/ctl.h"

#include <inttypes.h>
#include <stdarg.h>

void ctl_color_on(const struct ctl *c, enum ctl_color color)
{
	static const char *const codes[] = { "", "\033[31m", "\033[32m", "\033[33m", "\033[1m" };

	if (c->color)
		(void)fputs(codes[color], stdout);
}

void ctl_color_off(const struct ctl *c)
{
	if (c->color)
		(void)fputs("\033[0m", stdout);
}

void ctl_put(const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f; /* U+0080 to U+009F: terminals obey some of these, too */

		(void)putchar(c1 || (*p < ' ' && *p != '\n' && *p != '\t') || *p == 0x7f ? '?' : *p);
		p += c1;
	}
}

json_object *ctl_get(json_object *o, const char *key, enum json_type type)
{
	json_object *v = NULL;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, type))
		return NULL;
	return v;
}

const char *ctl_str(json_object *o, const char *key)
{
	json_object *v = ctl_get(o, key, json_type_string);

	return v ? json_object_get_string(v) : "";
}

int64_t ctl_int(json_object *o, const char *key)
{
	json_object *v = ctl_get(o, key, json_type_int);

	return v ? json_object_get_int64(v) : 0;
}

bool ctl_bool(json_object *o, const char *key)
{
	json_object *v = ctl_get(o, key, json_type_boolean);

	return v && json_object_get_boolean(v);
}

void ctl_print_json(json_object *o)
{
	(void)puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* Characters, not bytes, of UTF-8. */
static size_t width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

void ctl_table_add(struct ctl_table *t, size_t column, enum ctl_color color, const char *fmt, ...)
{
	size_t at;
	va_list ap;

	if (column == 0) {
		if (t->rows == t->room) {
			t->room = t->room ? t->room * 2 : 16;
			t->cell = realloc(t->cell, t->room * t->columns * sizeof(t->cell[0]));
			t->color = realloc(t->color, t->room * t->columns * sizeof(t->color[0]));
			CHECK(t->cell && t->color);
		}
		memset(t->cell + t->rows * t->columns, 0, t->columns * sizeof(t->cell[0]));
		t->rows++;
	}
	at = (t->rows - 1) * t->columns + column;
	t->color[at] = color;
	va_start(ap, fmt);
	CHECK(vasprintf(&t->cell[at], fmt, ap) >= 0);
	va_end(ap);
	for (char *p = t->cell[at]; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
}

void ctl_table_print(const struct ctl *c, struct ctl_table *t)
{
	size_t w[CTL_MAX_COLUMNS] = { 0 };

	for (unsigned k = 0; k < t->columns; k++) {
		w[k] = width(t->title[k]);
		for (size_t i = 0; i < t->rows; i++)
			w[k] = MAX(w[k], width(t->cell[i * t->columns + k]));
	}
	ctl_color_on(c, CTL_BOLD);
	for (unsigned k = 0; k < t->columns; k++)
		(void)printf("%s%*s", t->title[k], k + 1 < t->columns ? (int)(w[k] - width(t->title[k]) + 2) : 0, "");
	ctl_color_off(c);
	(void)printf("\n");
	for (size_t i = 0; i < t->rows; i++) {
		unsigned last = t->columns; /* no blanks at the end of a line */

		while (last > 0 && !*t->cell[i * t->columns + last - 1])
			last--;
		for (unsigned k = 0; k < t->columns; k++) {
			char *cell = t->cell[i * t->columns + k];

			ctl_color_on(c, t->color[i * t->columns + k]);
			ctl_put(cell);
			ctl_color_off(c);
			if (k + 1 < last)
				(void)printf("%*s", (int)(w[k] - width(cell) + 2), "");
			free(cell);
		}
		(void)printf("\n");
	}
	free(t->cell);
	free(t->color);
	t->cell = NULL;
	t->color = NULL;
	t->rows = t->room = 0;
}

size_t ctl_list(json_object *o, const char *key, json_object **ret)
{
	*ret = ctl_get(o, key, json_type_array);
	return *ret ? json_object_array_length(*ret) : 0;
}

static enum ctl_color color_of(const char *state)
{
	static const char *const good[] = { "online", "running", "ready" }, *const bad[] = { "suspect", "fencing", "offline", "failed", "error", "unknown",
		"hung", "panicked", "internal-error", "watchdog", "reset-loop", "io-error", "not-booted", "silent", "check-failed" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (streq(state, good[i]))
			return CTL_GREEN;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (streq(state, bad[i]))
			return CTL_RED;
	return streq(state, "stopped") || streq(state, "left") ? CTL_PLAIN : CTL_YELLOW;
}

void ctl_print_nodes(const struct ctl *c, json_object *status)
{
	struct ctl_table t = { .title = { "NODE", "ID", "STATE", "ARMED", "RING", "AGENT", "VMS", "REMARKS" }, .columns = 8 };
	const char *self = ctl_str(status, "self"), *leader = ctl_str(status, "leader");
	json_object *nodes;
	size_t n = ctl_list(status, "nodes", &nodes);

	for (size_t i = 0; i < n; i++) {
		json_object *node = json_object_array_get_idx(nodes, i);
		const char *name = ctl_str(node, "name"), *reason = ctl_str(node, "reason");

		ctl_table_add(&t, 0, CTL_PLAIN, "%s", name);
		ctl_table_add(&t, 1, CTL_PLAIN, "%" PRId64, ctl_int(node, "id"));
		ctl_table_add(&t, 2, color_of(ctl_str(node, "state")), "%s", ctl_str(node, "state"));
		ctl_table_add(&t, 3, CTL_PLAIN, "%s", ctl_bool(node, "armed") ? "yes" : "no");
		ctl_table_add(&t, 4, CTL_PLAIN, "%s", ctl_str(node, "ring"));
		ctl_table_add(&t, 5, CTL_PLAIN, "%s", ctl_bool(node, "agent") ? "yes" : "no");
		if (ctl_known(status))
			ctl_table_add(&t, 6, CTL_PLAIN, "%" PRId64, ctl_int(node, "vms"));
		else
			ctl_table_add(&t, 6, CTL_PLAIN, "-");
		ctl_table_add(&t, 7, CTL_PLAIN, "%s%s%s%s", streq(name, leader) ? "leader " : "", streq(name, self) ? "(this node) " : "",
			      ctl_bool(node, "maintenance") ? "maintenance " : "", reason);
	}
	ctl_table_print(c, &t);
}

void ctl_print_vms(const struct ctl *c, json_object *status)
{
	struct ctl_table t = { .title = { "VM", "STATE", "NODE", "WANTED", "RESTARTS", "REMARKS" }, .columns = 6 };
	json_object *vms;
	size_t n = ctl_list(status, "vms", &vms);

	if (!ctl_known(status)) {
		(void)printf("The agent of this node has just been started: which VMs there are, and where, it does not know yet.\n");
		return;
	}
	if (n == 0) {
		(void)printf("No VMs. Add one: `ha-ctl vm add FILE`; kvm-ha.vm(5) tells what is in FILE.\n");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		json_object *vm = json_object_array_get_idx(vms, i);

		ctl_table_add(&t, 0, CTL_PLAIN, "%s", ctl_str(vm, "name"));
		ctl_table_add(&t, 1, color_of(ctl_str(vm, "state")), "%s", ctl_str(vm, "state"));
		ctl_table_add(&t, 2, CTL_PLAIN, "%s", *ctl_str(vm, "node") ? ctl_str(vm, "node") : "-");
		ctl_table_add(&t, 3, CTL_PLAIN, "%s", ctl_str(vm, "desired"));
		ctl_table_add(&t, 4, CTL_PLAIN, "%" PRId64, ctl_int(vm, "restarts"));
		ctl_table_add(&t, 5, CTL_PLAIN, "%s", ctl_str(vm, "reason"));
	}
	ctl_table_print(c, &t);
}
