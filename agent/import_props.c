/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The value of an option such as -device, in either of QEMU's spellings, as one JSON object: KEY=VALUE,... with ",," for a comma, a first word
 * without key, words without '=' ("server" is server=on, "nowait" wait=off); or JSON. */
#include "agent/import_parts.h"

#include <stdio.h>

static json_object *from_json(const char *value, const char **why)
{
	struct json_tokener *tok = json_tokener_new_ex(IMPORT_MAX_DEPTH);
	size_t len = strlen(value), end = 0;
	json_object *o = NULL;

	if (tok) {
		o = json_tokener_parse_ex(tok, value, (int)len);
		end = json_tokener_get_parse_end(tok);
		json_tokener_free(tok);
	}
	end += strspn(value + end, " \t\n");
	if (json_object_is_type(o, json_type_object) && end == len)
		return o;
	*why = "this begins like JSON and is none; check its quoting, or give /proc/PID/cmdline";
	json_object_put(o);
	return NULL;
}

/* Up to the next comma, ",," being one; to free. *p moves behind it. */
static char *next_word(const char **p)
{
	char *word = malloc(strlen(*p) + 1);
	size_t n = 0;

	if (!word)
		return NULL;
	while (**p && ((*p)[0] != ',' || (*p)[1] == ',')) {
		*p += **p == ',';
		word[n++] = *(*p)++;
	}
	*p += **p == ',';
	word[n] = '\0';
	return word;
}

json_object *import_props(const char *value, const char *implied, bool *ret_repeats, const char **why)
{
	json_object *o;
	bool first = true, repeats = false;

	if (*value == '{')
		return from_json(value, why);
	o = json_object_new_object();
	*why = "out of memory";
	while (o && *value) {
		_cleanup_free_ char *word = next_word(&value);
		char *equals = word ? strchr(word, '=') : NULL;
		bool no = word && !equals && strncmp(word, "no", 2) == 0 && word[2];

		if (!word) {
			json_object_put(o);
			return NULL;
		}
		if (equals)
			*equals = '\0';
		if (!equals && first && implied) {
			json_object_object_add(o, implied, json_object_new_string(word));
		} else if (*word) {
			const char *key = word + (no ? 2 : 0);

			repeats = repeats || json_object_object_get_ex(o, key, NULL);
			json_object_object_add(o, key, json_object_new_string(equals ? equals + 1 : no ? "off" : "on"));
		}
		first = false;
	}
	if (ret_repeats)
		*ret_repeats = repeats;
	return o;
}

static void put_word(FILE *f, const char *s)
{
	for (; *s; s++) {
		(void)fputc(*s, f);
		if (*s == ',')
			(void)fputc(*s, f);
	}
}

char *import_props_text(json_object *o, bool json, const char *implied)
{
	char *text = NULL;
	size_t size;
	bool first = true;
	FILE *f;

	if (json) {
		const char *s = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

		return s ? strdup(s) : NULL;
	}
	f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	json_object_object_foreach(o, key, v) {
		(void)fputs(first ? "" : ",", f);
		if (!first || !implied || !streq(key, implied)) {
			put_word(f, key);
			(void)fputc('=', f);
		}
		put_word(f, json_object_get_string(v));
		first = false;
	}
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

const char *import_get(json_object *o, const char *key)
{
	const char *dot = strchr(key, '.');
	json_object *v = NULL;
	char head[64];

	if (!json_object_is_type(o, json_type_object))
		return NULL;
	if (json_object_object_get_ex(o, key, &v))
		return v && !json_object_is_type(v, json_type_object) && !json_object_is_type(v, json_type_array) ? json_object_get_string(v) : NULL;
	if (!dot || (size_t)(dot - key) >= sizeof(head))
		return NULL;
	memcpy(head, key, (size_t)(dot - key));
	head[dot - key] = '\0';
	return json_object_object_get_ex(o, head, &v) ? import_get(v, dot + 1) : NULL;
}

bool import_is_on(json_object *o, const char *key, bool otherwise)
{
	static const char *const yes[] = { "on", "yes", "true", "y" };
	const char *v = import_get(o, key);

	for (size_t i = 0; v && i < ARRAY_SIZE(yes); i++)
		if (streq(v, yes[i]))
			return true;
	return v ? false : otherwise;
}

/* -drive file=PATH,file.locking=off: file is the image, and not an object of options. */
static bool is_word(json_object *o, const char *key, size_t len)
{
	_cleanup_free_ char *head = strndup(key, len);
	json_object *v = NULL;

	return head && json_object_object_get_ex(o, head, &v) && json_object_is_type(v, json_type_string);
}

json_object *import_nest(json_object *o)
{
	json_object *out = json_object_new_object();

	json_object_object_foreach(o, key, v) {
		json_object *into = out, *next = NULL;
		const char *name = key, *dot;
		unsigned depth = 0;

		while ((dot = strchr(name, '.')) != NULL && depth++ < IMPORT_MAX_DEPTH && !is_word(o, key, (size_t)(dot - key))) {
			_cleanup_free_ char *head = strndup(name, (size_t)(dot - name));

			if (!head || !*head)
				break;
			if (!json_object_object_get_ex(into, head, &next) || !json_object_is_type(next, json_type_object)) {
				next = json_object_new_object();
				json_object_object_add(into, head, next);
			}
			into = next;
			name = dot + 1;
		}
		json_object_object_add(into, name, json_object_get(v));
	}
	return out;
}

bool import_mentions(const char *text, const char *word)
{
	static const char inside[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";
	size_t len = strlen(word);

	for (const char *p = text; len && (p = strstr(p, word)); p++)
		if ((p == text || !strchr(inside, p[-1])) && (!p[len] || !strchr(inside, p[len])))
			return true;
	return false;
}
