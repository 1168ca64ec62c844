/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What QMP and the guest agent's protocol share: a line of JSON from somebody who is not trusted, and bytes on their way. Internal to qmp/. */
#pragma once

#include <json-c/json.h>

#include "agent/base/util.h"

#define QMP_MAX_VALUES 65536U /* values in one line: bounds what a line may cost in memory once it is parsed */

struct qmp_buffer {
	char *bytes;
	size_t len, size;
};

int qmp_buffer_append(struct qmp_buffer *b, const void *bytes, size_t n); /* 0 or -ENOMEM: then nothing was added */
void qmp_buffer_consume(struct qmp_buffer *b, size_t n);                  /* from its begin */
void qmp_buffer_reset(struct qmp_buffer *b);

/* NULL, with the object in *ret (NULL for a blank line), or why it is refused. */
const char *qmp_line_parse(const char *line, size_t n, int depth, json_object **ret);

/* Members of an object; o may be of any type, or NULL. Text: NULL also if a NUL within would make C see another word than the one that was sent.
 * Number: an integer of 0..max. */
const char *qmp_member_text(json_object *o, const char *key);
bool qmp_member_true(json_object *o, const char *key);
bool qmp_member_number(json_object *o, const char *key, int64_t max, int64_t *ret);
