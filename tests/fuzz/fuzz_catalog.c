/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalog: JSON off a volume. What is taken is the same after being written and read again; a VM added to it and removed leaves it as it was. */
#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/catalog.h"
#include "tests/fuzz/fuzz.h"

static const char vm_text[] = "[VM]\nName=added-by-the-target\nMemory=1G\nVCPUs=2\nDisk=/dev/added-by-the-target\n"
			      "[QEMU]\nBinary=/q\nArguments=-drive file=/dev/added-by-the-target\n";

static void check(const struct catalog_doc *c)
{
	static const struct conf conf = { .nodes = { { 1, "n1" }, { 2, "n2" } }, .n_nodes = 2 };
	struct vm_def def;

	FUZZ_CHECK(c->n <= AGENT_MAX_VMS);
	for (unsigned i = 0; i < c->n; i++) {
		const struct catalog_entry *e = &c->entry[i];

		FUZZ_CHECK(e->text && e->file.has_uuid && memcmp(e->uuid, e->file.uuid, 16) == 0 && e->desired <= DESIRED_IGNORED && e->move.node <= FORMAT_MAX_NODES && (e->move.node == 0 || e->move.number != 0));
		FUZZ_CHECK(catalog_by_name(c, e->file.name) == e && catalog_by_uuid(c, e->uuid) == e);
		catalog_def(e, &conf, &def);
		FUZZ_CHECK(streq(def.name, e->file.name) && def.n_preferred <= 2 && def.restart_limit < AGENT_MAX_RESTARTS && def.failed_limit <= FORMAT_MAX_NODES && def.move.node == e->move.node);
		/* No two definitions share a writable disk, however it is spelt. */
		for (unsigned j = 0; j < i; j++)
			for (size_t a = 0; a < e->file.n_disks; a++)
				for (size_t b = 0; b < c->entry[j].file.n_disks; b++)
					FUZZ_CHECK(!value_same_place(e->file.disks[a], c->entry[j].file.disks[b]));
	}
}

static char *render(const struct catalog_doc *c, size_t *len)
{
	char *text = catalog_render(c, len);

	FUZZ_CHECK(text && strlen(text) == *len);
	return text;
}

static void same(const struct catalog_doc *c, const char *text, size_t len)
{
	size_t n;
	char *now = render(c, &n);

	FUZZ_CHECK(n == len && memcmp(now, text, n) == 0);
	free(now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct catalog_doc *c = NULL, *copy;
	char err[512] = "", *json = malloc(size), *text;
	size_t len = 0;
	int r;

	FUZZ_CHECK(json || size == 0);
	if (size > 0)
		memcpy(json, data, size);
	r = catalog_parse(json, size, &c, err, sizeof(err));
	free(json);
	if (r < 0) {
		FUZZ_CHECK(!c && *err);
		return 0;
	}
	check(c);
	text = render(c, &len);
	copy = catalog_copy(c);
	FUZZ_CHECK(copy); /* the agent's edits begin with one */
	check(copy);
	same(copy, text, len);
	FUZZ_CHECK(copy->armed == c->armed && copy->maintenance == c->maintenance && copy->n == c->n && copy->pause == c->pause &&
		   memcmp(copy->leaving, c->leaving, sizeof(c->leaving)) == 0);
	r = catalog_add(copy, vm_text, sizeof(vm_text) - 1, err, sizeof(err));
	if (r == 0) {
		check(copy);
		FUZZ_CHECK(copy->n == c->n + 1 && !uuid_is_zero(copy->entry[c->n].uuid));
		catalog_remove(copy, copy->entry[c->n].uuid);
		same(copy, text, len);
	}
	/* A definition may have to leave before it may come back. */
	if (c->n > 0) {
		const struct catalog_entry *e = &c->entry[0];

		FUZZ_CHECK(catalog_add(copy, e->text, strlen(e->text), err, sizeof(err)) != 0 && copy->n == c->n);
		catalog_remove(copy, e->uuid);
		FUZZ_CHECK(copy->n == c->n - 1 && !catalog_by_uuid(copy, e->uuid));
		FUZZ_CHECK(vmfile_check_writes("", &e->file, err, sizeof(err)) < 0 ||
			   (catalog_add(copy, e->text, strlen(e->text), err, sizeof(err)) == 0 && copy->n == c->n));
	}
	catalog_free(copy);
	catalog_free(c);
	free(text);
	return 0;
}
