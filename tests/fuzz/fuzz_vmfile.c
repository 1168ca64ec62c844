/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VM files: what is taken keeps its promises, is the same with a UUID put in, and what is refused is refused with a reason. */
#include "agent/base/uuid.h"
#include "agent/base/value.h"
#include "agent/vmfile.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>

static bool is_text(const char *s, size_t size) { return strnlen(s, size) < size; }

static void check(const struct vmfile *v)
{
	char err[256];

	FUZZ_CHECK(is_text(v->name, sizeof(v->name)) && value_name_check(v->name, sizeof(v->name), err, sizeof(err)) == 0);
	FUZZ_CHECK(v->memory_mib > 0 && v->vcpus > 0 && v->priority <= 1000 && v->restart_limit <= 100);
	FUZZ_CHECK(v->binary && *v->binary == '/' && v->n_args <= VMFILE_MAX_ARGS && !v->args[v->n_args] && v->n_disks <= VMFILE_MAX_DISKS);
	for (size_t i = 0; i < v->n_args; i++)
		FUZZ_CHECK(v->args[i]);
	for (size_t i = 0; i < v->n_disks; i++) {
		FUZZ_CHECK(value_place_check(v->disks[i], err, sizeof(err)) == 0 && value_same_place(v->disks[i], v->disks[i]));
		for (size_t j = 0; j < i; j++)
			FUZZ_CHECK(!value_same_place(v->disks[i], v->disks[j]) && !value_same_place(v->disks[j], v->disks[i]));
	}
	FUZZ_CHECK(v->n_preferred <= VMFILE_MAX_NODES && (!v->has_uuid || !uuid_is_zero(v->uuid)));
	for (size_t i = 0; i < v->n_preferred; i++)
		FUZZ_CHECK(is_text(v->preferred[i], VMFILE_NAME_LEN));
}

static void check_same(const struct vmfile *a, const struct vmfile *b)
{
	FUZZ_CHECK(streq(a->name, b->name) && a->memory_mib == b->memory_mib && a->vcpus == b->vcpus && streq(a->binary, b->binary));
	FUZZ_CHECK(a->n_args == b->n_args && a->n_disks == b->n_disks && a->n_preferred == b->n_preferred && a->start == b->start);
	FUZZ_CHECK(a->priority == b->priority && a->restart_limit == b->restart_limit && a->restart_window_ms == b->restart_window_ms);
	FUZZ_CHECK(a->stop_timeout_ms == b->stop_timeout_ms);
	for (size_t i = 0; i < a->n_args; i++)
		FUZZ_CHECK(streq(a->args[i], b->args[i]));
	for (size_t i = 0; i < a->n_disks; i++)
		FUZZ_CHECK(streq(a->disks[i], b->disks[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16 };
	struct vmfile v, w, untouched;
	char err[512] = "", *text = malloc(size), *full = NULL; /* not NUL-terminated, as promised */
	int r;

	FUZZ_CHECK(text || size == 0);
	if (size > 0)
		memcpy(text, data, size);
	memset(&v, 0xee, sizeof(v));
	untouched = v;
	r = vmfile_parse("FILE", text, size, &v, err, sizeof(err));
	if (r < 0) {
		FUZZ_CHECK(r == -EINVAL && strncmp(err, "FILE:", 5) == 0 && is_text(err, sizeof(err)) && memcmp(&v, &untouched, sizeof(v)) == 0);
		if (vmfile_with_uuid(text, size, uuid, &full) == 0)
			free(full);
		free(text);
		return 0;
	}
	check(&v);
	r = vmfile_with_uuid(text, size, uuid, &full);
	FUZZ_CHECK(v.has_uuid ? r == -EEXIST : r == 0 || (r == -E2BIG && size > VMFILE_MAX_TEXT - 64));
	if (r == 0) {
		FUZZ_CHECK(vmfile_parse("FILE", full, strlen(full), &w, err, sizeof(err)) == 0);
		check(&w);
		check_same(&v, &w);
		FUZZ_CHECK(w.has_uuid && memcmp(w.uuid, uuid, 16) == 0);
		vmfile_deinit(&w);
		free(full);
	}
	vmfile_deinit(&v);
	free(text);
	return 0;
}
