/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/foreign_disks.h"

#include <stdio.h>

#include "agent/base/value.h"

#define JSON_PREFIX "json:"
#define JSON_DEPTH 32
#define PLACE_LEN 1024

static const char *text_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ?
		       json_object_get_string(v) : NULL;
}

static json_object *member(json_object *o, const char *key)
{
	json_object *v;

	return json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, key, &v) ? v : NULL;
}

static int64_t int_of(json_object *o, const char *key)
{
	json_object *v = member(o, key);

	return v ? json_object_get_int64(v) : 0; /* QEMU writes some of them as text */
}

/* QEMU's options of an image as Disk= would spell it. False: in no way that Disk= knows. */
static bool place_of_options(json_object *o, char *ret, size_t size)
{
	const char *driver;
	json_object *file;
	int n = -1;

	while ((file = member(o, "file")) && json_object_is_type(file, json_type_object))
		o = file;
	driver = text_of(o, "driver");
	if (!driver)
		return false;
	if (streq(driver, "iscsi") && text_of(o, "portal") && text_of(o, "target"))
		n = snprintf(ret, size, "iscsi://%s/%s/%lld", text_of(o, "portal"), text_of(o, "target"), (long long)int_of(o, "lun"));
	else if (streq(driver, "nfs") && text_of(member(o, "server"), "host") && text_of(o, "path"))
		n = snprintf(ret, size, "nfs://%s%s", text_of(member(o, "server"), "host"), text_of(o, "path"));
	else if ((streq(driver, "file") || streq(driver, "host_device")) && text_of(o, "filename"))
		n = snprintf(ret, size, "%s", text_of(o, "filename"));
	return n > 0 && (size_t)n < size;
}

static bool place_of(const char *file, char *ret, size_t size)
{
	json_object *o;
	bool ok;

	if (strncmp(file, JSON_PREFIX, sizeof(JSON_PREFIX) - 1) != 0)
		return snprintf(ret, size, "%s", strncmp(file, "file:", 5) == 0 ? file + 5 : file) < (int)size;
	o = json_tokener_parse(file + sizeof(JSON_PREFIX) - 1);
	ok = o && place_of_options(o, ret, size);
	json_object_put(o);
	return ok;
}

static bool is_nothing(json_object *node)
{
	const char *drv = text_of(node, "drv");

	return drv && (streq(drv, "null-co") || streq(drv, "null-aio"));
}

static bool is_written(json_object *node)
{
	json_object *ro = member(node, "ro");

	return !(ro && json_object_get_boolean(ro)) && !is_nothing(node);
}

bool foreign_same_disks(json_object *nodes, const struct vmfile *file, char *err, size_t err_size)
{
	bool seen[VMFILE_MAX_DISKS] = { false };
	char place[PLACE_LEN];

	if (!json_object_is_type(nodes, json_type_array)) {
		(void)snprintf(err, err_size, "QEMU does not say which images it has open");
		return false;
	}
	for (size_t i = 0; i < json_object_array_length(nodes); i++) {
		json_object *node = json_object_array_get_idx(nodes, i);
		const char *name = text_of(node, "file");
		bool found = false;

		if (!is_written(node))
			continue;
		if (!name || !place_of(name, place, sizeof(place))) {
			(void)snprintf(err, err_size, "QEMU writes to %.300s, and it cannot be told which Disk= that is", name ? name : "an image without a name");
			return false;
		}
		for (size_t d = 0; d < file->n_disks; d++)
			if (value_same_place(place, file->disks[d]))
				found = seen[d] = true;
		if (!found) {
			(void)snprintf(err, err_size, "QEMU writes to %.300s, which is in no Disk= of the VM's file%s", place,
				       place[0] != '/' && !strstr(place, "://") ? " (there by its absolute path, and QEMU was given another one)" : "");
			return false;
		}
	}
	for (size_t d = 0; d < file->n_disks; d++)
		if (!seen[d]) {
			(void)snprintf(err, err_size, "the VM's file has Disk=%.300s, and QEMU does not have that open for writing, or spelt in another way", file->disks[d]);
			return false;
		}
	return true;
}

bool foreign_writes_itself(json_object *devices, char *err, size_t err_size)
{
	static const char *const others[] = { "child<vhost-user-blk", "child<vhost-user-scsi", "child<vhost-scsi" };

	if (!json_object_is_type(devices, json_type_array)) {
		(void)snprintf(err, err_size, "QEMU does not say which devices it has");
		return false;
	}
	for (size_t i = 0; i < json_object_array_length(devices); i++) {
		const char *type = text_of(json_object_array_get_idx(devices, i), "type");

		for (size_t k = 0; type && k < ARRAY_SIZE(others); k++)
			if (strncmp(type, others[k], strlen(others[k])) == 0) {
				(void)snprintf(err, err_size, "it has a %.60s device: another process writes to that disk, and would write on when this one is killed",
					       others[k] + strlen("child<"));
				return false;
			}
	}
	return true;
}

bool foreign_same_memory(json_object *memory, const struct vmfile *file, char *err, size_t err_size)
{
	int64_t mib = (int_of(memory, "base-memory") + int_of(memory, "plugged-memory")) >> 20;

	if (mib == (int64_t)file->memory_mib)
		return true;
	(void)snprintf(err, err_size, "its guest has %lld MiB of memory, and the VM's file says Memory=%uM", (long long)mib, file->memory_mib);
	return false;
}

bool foreign_same_cpus(json_object *cpus, const struct vmfile *file, char *err, size_t err_size)
{
	size_t n = json_object_is_type(cpus, json_type_array) ? json_object_array_length(cpus) : 0;

	if (n == file->vcpus)
		return true;
	(void)snprintf(err, err_size, "its guest has %zu CPUs, and the VM's file says VCPUs=%u", n, file->vcpus);
	return false;
}

bool foreign_same_uuid(json_object *uuid, const char *want, char *err, size_t err_size)
{
	const char *is = text_of(uuid, "UUID");

	/* Zero: it was given none. */
	if (is && (streq(is, "00000000-0000-0000-0000-000000000000") || strcasecmp(is, want) == 0))
		return true;
	(void)snprintf(err, err_size, "its UUID is %.40s, and the VM's is %s: it is another VM, or the file needs its UUID=", is ? is : "not known", want);
	return false;
}

bool foreign_settled(const char *command, json_object *answer, char *err, size_t err_size)
{
	static const char *const still[] = { "none", "completed", "cancelled", "failed" };
	const char *status = text_of(answer, "status");
	bool ok = false;

	if (streq(command, "query-status")) {
		ok = status && (streq(status, "running") || streq(status, "suspended"));
		(void)snprintf(err, err_size, "its guest does not run but is %.40s: let it go on first (`cont`)", status ? status : "in no known state");
	} else if (streq(command, "query-migrate")) {
		ok = json_object_is_type(answer, json_type_object) && !status;
		for (size_t i = 0; i < ARRAY_SIZE(still) && status; i++)
			ok = ok || streq(status, still[i]);
		(void)snprintf(err, err_size, "it is being migrated or saved (%.40s): wait for the end of that", status ? status : "?");
	} else {
		ok = json_object_is_type(answer, json_type_array) && json_object_array_length(answer) == 0;
		(void)snprintf(err, err_size, "it has a block job under way (`query-block-jobs`): wait for its end, or end it");
	}
	return ok;
}

bool foreign_own_threads(json_object *cpus, bool (*is_thread)(void *user, int64_t tid), void *user)
{
	size_t n = json_object_is_type(cpus, json_type_array) ? json_object_array_length(cpus) : 0;

	for (size_t i = 0; i < n; i++)
		if (!is_thread(user, int_of(json_object_array_get_idx(cpus, i), "thread-id")))
			return false;
	return n > 0;
}
