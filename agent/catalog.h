/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalog as a document: VM definitions and cluster-wide switches, JSON on the volumes. A document is never changed in place: an edit makes a
 * new one, which is written first and used after. */
#pragma once

#include "agent/base/conf.h"
#include "agent/core/agent_core.h"
#include "agent/vmfile.h"

#define CATALOG_MOVE_NUMBER_MAX (1ULL << 53) /* what every reader of JSON takes as it is */

struct catalog_entry {
	uint8_t uuid[16];
	char uuid_text[37];
	enum vm_desired desired;
	bool frozen;
	struct vm_move move; /* its number stays when the request is over: the next one's is above it */
	char *text;          /* the VM file */
	struct vmfile file;
};

struct catalog_doc {
	uint64_t generation, seq; /* of the block it was read from */
	bool armed;
	enum catalog_pause pause;
	uint64_t maintenance, quarantine; /* bit (id - 1) */
	uint32_t leaving[FORMAT_MAX_NODES]; /* epoch under which node id - 1 is being shut down, 0: none */
	struct catalog_entry *entry;
	unsigned n;
};

struct catalog_doc *catalog_new(void);
void catalog_free(struct catalog_doc *c);
struct catalog_doc *catalog_copy(const struct catalog_doc *c);

/* json: len bytes, 0 bytes being the empty catalog. -EINVAL with err, -ENOMEM. */
int catalog_parse(const char *json, size_t len, struct catalog_doc **ret, char *err, size_t err_size);
/* Allocated text. */
char *catalog_render(const struct catalog_doc *c, size_t *ret_len);

struct catalog_entry *catalog_by_name(const struct catalog_doc *c, const char *name);
struct catalog_entry *catalog_by_uuid(const struct catalog_doc *c, const uint8_t uuid[16]);

/* Adds a VM from its file. Refuses a name, uuid or writable disk that another VM has. Draws a uuid where the file has none. Positive: refused, err says why. */
int catalog_add(struct catalog_doc *c, const char *text, size_t len, char *err, size_t err_size);
/* Another file for the VM of its name, which keeps its UUID and desired state. Refuses what its QEMU may have been started with, and is known by: that is another
 * VM's, added once this one is removed. *ret: the entry. */
int catalog_update(struct catalog_doc *c, const char *text, size_t len, struct catalog_entry **ret, char *err, size_t err_size);
void catalog_remove(struct catalog_doc *c, const uint8_t uuid[16]);

const char *catalog_desired_name(enum vm_desired d);
const char *catalog_pause_name(enum catalog_pause p);

/* What the core needs of an entry. Preferred nodes that are not in the configuration are left out. */
void catalog_def(const struct catalog_entry *e, const struct conf *conf, struct vm_def *ret);
