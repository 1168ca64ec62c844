/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/qmp_line.h"

#include <errno.h>

#define KEEP_BYTES 65536 /* a buffer that one long line made larger than this is given back */

int qmp_buffer_append(struct qmp_buffer *b, const void *bytes, size_t n)
{
	if (b->size - b->len < n) {
		size_t size = MAX(b->len + n, b->size ? 2 * b->size : 4096);
		char *p = realloc(b->bytes, size);

		if (!p)
			return -ENOMEM;
		b->bytes = p;
		b->size = size;
	}
	if (n > 0)
		memcpy(b->bytes + b->len, bytes, n);
	b->len += n;
	return 0;
}

void qmp_buffer_reset(struct qmp_buffer *b)
{
	free(b->bytes);
	*b = (struct qmp_buffer){ 0 };
}

void qmp_buffer_consume(struct qmp_buffer *b, size_t n)
{
	b->len -= n;
	if (b->len == 0 && b->size > KEEP_BYTES)
		qmp_buffer_reset(b);
	else if (b->len > 0 && n > 0)
		memmove(b->bytes, b->bytes + n, b->len);
}

const char *qmp_member_text(json_object *o, const char *key)
{
	json_object *v;
	const char *s;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	s = json_object_get_string(v);
	return strlen(s) == (size_t)json_object_get_string_len(v) ? s : NULL;
}

bool qmp_member_true(json_object *o, const char *key)
{
	json_object *v;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_boolean) &&
	       json_object_get_boolean(v);
}

/* json-c saturates what does not fit 64 bits, so it lands outside too. */
bool qmp_member_number(json_object *o, const char *key, int64_t max, int64_t *ret)
{
	json_object *v;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int) ||
	    json_object_get_int64(v) < 0 || json_object_get_int64(v) > max)
		return false;
	*ret = json_object_get_int64(v);
	return true;
}

/* What can be refused without parsing: json-c would stop at a NUL, and takes some hundred bytes of memory for a value of two. */
static const char *line_check(const char *line, size_t n)
{
	size_t values = 0;

	for (size_t i = 0; i < n; i++) {
		if (line[i] == '\0')
			return "NUL byte in a line";
		if (line[i] == ',' || line[i] == '[' || line[i] == '{')
			values++;
	}
	return values > QMP_MAX_VALUES ? "too many values in a line" : NULL;
}

const char *qmp_line_parse(const char *line, size_t n, int depth, json_object **ret)
{
	const char *reason = line_check(line, n);
	struct json_tokener *tok;
	json_object *msg;

	*ret = NULL;
	while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' ' || line[n - 1] == '\t'))
		n--;
	while (n > 0 && (*line == ' ' || *line == '\t')) {
		line++;
		n--;
	}
	if (reason || n == 0)
		return reason;
	if (*line != '{')
		return "not a JSON object";
	tok = json_tokener_new_ex(depth);
	if (!tok)
		return "out of memory";
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	msg = json_tokener_parse_ex(tok, line, (int)n);
	if (json_tokener_get_error(tok) == json_tokener_error_depth)
		reason = "nested too deeply";
	else if (json_tokener_get_error(tok) != json_tokener_success || json_tokener_get_parse_end(tok) != n ||
		 !json_object_is_type(msg, json_type_object))
		reason = "not JSON";
	json_tokener_free(tok);
	if (reason)
		json_object_put(msg);
	else
		*ret = msg;
	return reason;
}
