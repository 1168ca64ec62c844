/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The images of a command line, and which of them the VM writes to. An image counts as writable unless it is shown that it is not:
 *
 *   its node is read-only; or all nodes above it are, or have it as their backing file; or only CD drives use it.
 *
 * Writable ones become Disk=, which keeps a second VM from writing to them. Disk= takes paths, iscsi:// and nfs:// as they stand in Arguments=.
 * -blockdev knows no iSCSI or NFS URLs, -drive does: such a chain, format over protocol, becomes a -drive with the name of the upper node, under
 * which devices find it as before. */
#include "agent/import_parts.h"

#include <stdio.h>

#include "agent/base/value.h"

#define ERR_LEN 256

/* Keys of a node under which other nodes are; a backing file is only read. */
static const char *const children[] = { "file", "backing", "data-file", "children", "image", "test", "raw", "log", "top", "bottom", "target" };

/* The child of that key, or NULL; "target" is a name for iSCSI. */
static json_object *child_of(json_object *node, const char *key)
{
	const char *driver = import_get(node, "driver");
	json_object *child = NULL;

	if (streq(key, "target") && !(driver && streq(driver, "copy-before-write")))
		return NULL;
	return json_object_object_get_ex(node, key, &child) ? child : NULL;
}

static void visit(struct import *im, struct import_option *o, json_object *node, bool writable, unsigned depth);

static void add_image(struct import *im, struct import_option *o, const char *place, bool writable)
{
	for (size_t i = 0; i < im->n_images; i++)
		if (streq(im->image[i].place, place)) {
			im->image[i].writable |= writable;
			return;
		}
	if (im->n_images == IMPORT_MAX_IMAGES) {
		import_refuse(im, o, "more than %d images; use fewer", IMPORT_MAX_IMAGES);
		return;
	}
	if (str_copy(im->image[im->n_images].place, sizeof(im->image[0].place), place))
		im->image[im->n_images++].writable = writable;
	else
		import_refuse(im, o, "a path or URL of more than %zu bytes; use a shorter one", sizeof(im->image[0].place) - 1);
}

/* What file= or filename= names. */
static void add_file(struct import *im, struct import_option *o, const char *file, bool writable)
{
	char err[ERR_LEN] = "";

	if (strncmp(file, "file:", 5) == 0)
		file += 5;
	if (!*file || strncmp(file, "null-co:", 8) == 0 || strncmp(file, "null-aio:", 9) == 0)
		return;
	if (strncmp(file, "/dev/fdset/", 11) == 0)
		import_refuse(im, o, "%s is a file that whoever started QEMU had opened; write its path", file);
	else if (strncmp(file, "fat:", 4) == 0 || strncmp(file, "vvfat:", 6) == 0)
		import_warn(im, true, "%s is a directory of this host; make an image of it on shared storage", file);
	else if (*file == '/' || strncmp(file, "iscsi://", 8) == 0 || strncmp(file, "nfs://", 6) == 0) {
		if (value_place_check(file, err, sizeof(err)) == 0)
			add_image(im, o, file, writable);
		else
			import_refuse(im, o, "this image: %s", err);
	} else if (strchr(file, ':') && (strstr(file, ":key=") || strchr(file, '@'))) { /* rbd, ssh, http: who may not be told */
		import_refuse(im, o, "a user or password may stand in this image's address, and the VM file is kept on the volumes; use -blockdev with a secret of "
			      "-object secret,file=");
	} else if (strchr(file, ':') && (!strchr(file, '/') || strchr(file, ':') < strchr(file, '/')))
		import_warn(im, writable, "%.*s: storage that Disk= has no spelling for: it %s", (int)strcspn(file, ":"), file, /* a URL may hold a password */
			    writable ? "is not protected against a second VM that writes to it" : "must be reachable from every node");
	else
		import_refuse(im, o, "%s is a relative path, and the agent starts QEMU in another directory; write the absolute path", file);
}

static bool is_read_only(json_object *node) { return import_is_on(node, "read-only", false) || import_is_on(node, "readonly", false); }

static struct import_option *find_node(struct import *im, const char *name)
{
	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];
		const char *id = streq(o->name, "-blockdev") && o->fate == IMPORT_KEEP ? import_get(o->props, "node-name") : NULL;

		if (id && streq(id, name))
			return o;
	}
	return NULL;
}

static void visit_child(struct import *im, struct import_option *o, json_object *child, bool writable, unsigned depth)
{
	struct import_option *node;

	if (json_object_object_get_ex(child, "0", NULL)) { /* children.0=NODE,children.1=NODE */
		json_object_object_foreach(child, index, v) {
			(void)index;
			visit_child(im, o, v, writable, depth + 1);
		}
	} else if (json_object_is_type(child, json_type_object)) {
		visit(im, o, child, writable && !is_read_only(child), depth + 1);
	} else if (json_object_is_type(child, json_type_string)) {
		node = find_node(im, json_object_get_string(child));
		if (node)
			visit(im, node, node->props, writable && !is_read_only(node->props), depth + 1);
		else
			import_refuse(im, o, "there is no -blockdev with node-name %.64s; add it", json_object_get_string(child));
	} else if (json_object_is_type(child, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(child); i++)
			visit_child(im, o, json_object_array_get_idx(child, i), writable, depth + 1);
	}
}

/* Drivers that have no file below them and no filename. */
static void visit_protocol(struct import *im, struct import_option *o, json_object *node, const char *driver, bool writable)
{
	static const char *const none[] = { "null-co", "null-aio" };
	static const char *const host[] = { "nvme", "nvme-io_uring", "virtio-blk-vfio-pci", "virtio-blk-vhost-vdpa", "virtio-blk-vhost-user", "vvfat" };
	const char *file = import_get(node, "filename"), *what = import_get(node, "target");

	what = what ? what : import_get(node, "image");
	what = what ? what : import_get(node, "path");
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		if (streq(driver, none[i]))
			return;
	for (size_t i = 0; i < ARRAY_SIZE(host); i++)
		if (streq(driver, host[i])) {
			import_warn(im, true, "block driver %s uses a device of this host: the VM runs on no other node", driver);
			return;
		}
	if (file)
		add_file(im, o, file, writable);
	else
		import_warn(im, writable, "block driver %s%s%s: storage that Disk= has no spelling for: it %s", driver, what ? ", " : "", what ? what : "",
			    writable ? "is not protected against a second VM that writes to it" : "must be reachable from every node");
}

/* writable: as seen from above, read-only= of this node included. */
static void visit(struct import *im, struct import_option *o, json_object *node, bool writable, unsigned depth)
{
	const char *driver = import_get(node, "driver");
	bool any = false;

	if (depth > IMPORT_MAX_DEPTH) {
		import_refuse(im, o, "images nest deeper than %d; use a shorter chain", IMPORT_MAX_DEPTH);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
		json_object *child = child_of(node, children[i]);

		if (!child)
			continue;
		visit_child(im, o, child, writable && !streq(children[i], "backing"), depth);
		any |= !streq(children[i], "backing");
	}
	if (!any)
		visit_protocol(im, o, node, driver ? driver : "(none)", writable);
}

/* Do only CD drives use the drive or node of this id? QEMU then writes nothing, whatever read-only= says. */
static bool only_cds_use(const struct import *im, const char *id)
{
	bool any = false;

	for (size_t i = 0; id && i < im->n_options; i++) {
		const struct import_option *o = &im->option[i];
		const char *drive = streq(o->name, "-device") ? import_get(o->props, "drive") : NULL, *driver = drive ? import_get(o->props, "driver") : NULL;
		size_t len = driver ? strlen(driver) : 0;

		if (!drive || !streq(drive, id))
			continue;
		if (len < 3 || !streq(driver + len - 3, "-cd"))
			return false;
		any = true;
	}
	return any;
}

static bool refers(json_object *o, const char *name)
{
	if (json_object_is_type(o, json_type_string))
		return streq(json_object_get_string(o), name);
	if (json_object_is_type(o, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(o); i++)
			if (refers(json_object_array_get_idx(o, i), name))
				return true;
	} else if (json_object_is_type(o, json_type_object)) {
		for (size_t i = 0; i < ARRAY_SIZE(children); i++)
			if (refers(child_of(o, children[i]), name))
				return true;
		json_object_object_foreach(o, key, v)
			if (*key >= '0' && *key <= '9' && refers(v, name))
				return true;
	}
	return false;
}

/* Does a node above use it? Then that one decides. */
static bool is_below_another(const struct import *im, const char *name)
{
	for (size_t i = 0; i < im->n_options; i++)
		if (streq(im->option[i].name, "-blockdev") && im->option[i].fate != IMPORT_LEFT_OUT && refers(im->option[i].props, name))
			return true;
	return false;
}

static bool device_uses(const struct import *im, const char *id)
{
	for (size_t i = 0; i < im->n_options; i++) {
		const struct import_option *o = &im->option[i];

		if (o->fate != IMPORT_LEFT_OUT && (streq(o->name, "-device") || streq(o->name, "-machine")) && import_mentions(o->value, id))
			return true;
	}
	return false;
}

static void visit_blockdev(struct import *im, struct import_option *o)
{
	const char *name = import_get(o->props, "node-name");

	if (name && is_below_another(im, name) && !device_uses(im, name))
		return;
	visit(im, o, o->props, !is_read_only(o->props) && !only_cds_use(im, name), 0);
}

static void visit_drive(struct import *im, struct import_option *o)
{
	const char *file = import_get(o->props, "file"), *media = import_get(o->props, "media"), *why = "";
	bool writable = !is_read_only(o->props) && !(media && streq(media, "cdrom")) && !import_is_on(o->props, "snapshot", false) &&
			!only_cds_use(im, import_get(o->props, "id"));
	json_object *node, *child;

	if (file && strncmp(file, "json:", 5) == 0) {
		node = import_props(file + 5, NULL, NULL, &why);
		if (node) /* -drive's own readonly=, off without a word, counts, and not the node's */
			visit(im, o, node, writable, 0);
		else
			import_refuse(im, o, "%s", why);
		json_object_put(node);
	} else if (file) {
		add_file(im, o, file, writable);
	} else if (json_object_object_get_ex(o->props, "file", &child) || import_get(o->props, "filename")) {
		visit(im, o, o->props, writable, 0);
	}
}

/* Only keys that mean the same to -drive. */
static bool has_only(json_object *o, const char *const *keys, size_t n)
{
	json_object_object_foreach(o, key, v) {
		bool found = false;

		(void)v;
		for (size_t i = 0; i < n && !found; i++)
			found = streq(key, keys[i]);
		if (!found)
			return false;
	}
	return true;
}

/* To free; NULL if the node is not iSCSI or NFS in a way that a URL can say. */
static char *url_of(json_object *node)
{
	static const char *const iscsi[] = { "driver", "node-name", "portal", "target", "lun", "transport", "initiator-name", "cache", "discard",
					     "read-only", "auto-read-only", "detect-zeroes" };
	static const char *const nfs[] = { "driver", "node-name", "server", "path", "cache", "discard", "read-only", "auto-read-only", "detect-zeroes" };
	const char *driver = import_get(node, "driver"), *transport = import_get(node, "transport"), *lun = import_get(node, "lun");
	const char *portal = import_get(node, "portal"), *target = import_get(node, "target");
	const char *host = import_get(node, "server.host"), *path = import_get(node, "path");
	char *url = NULL;

	if (driver && streq(driver, "iscsi") && portal && target && (!transport || streq(transport, "tcp")) && has_only(node, iscsi, ARRAY_SIZE(iscsi)))
		return asprintf(&url, "iscsi://%s/%s/%s", portal, target, lun ? lun : "0") < 0 ? NULL : url;
	if (driver && streq(driver, "nfs") && host && path && *path == '/' && has_only(node, nfs, ARRAY_SIZE(nfs)))
		return asprintf(&url, "nfs://%s%s", host, path) < 0 ? NULL : url;
	return NULL;
}

static void set(json_object *o, const char *key, const char *value)
{
	if (value)
		json_object_object_add(o, key, json_object_new_string(value));
}

static const char *on_off(json_object *o, const char *key)
{
	return !import_get(o, key) ? NULL : import_is_on(o, key, false) ? "on" : "off";
}

/* upper: the node that devices use; lower: the protocol below it, or upper itself. */
static void turn_into_drive(struct import *im, struct import_option *upper, struct import_option *lower, const char *url)
{
	_cleanup_free_ char *text = NULL;
	json_object *d = json_object_new_object();
	const char *id = import_get(upper->props, "node-name");

	set(d, "file", url);
	set(d, "format", upper == lower ? "raw" : import_get(upper->props, "driver"));
	set(d, "if", "none");
	set(d, "id", id);
	if (only_cds_use(im, id))
		set(d, "media", "cdrom");
	set(d, "cache.direct", on_off(upper->props, "cache.direct"));
	set(d, "cache.no-flush", on_off(upper->props, "cache.no-flush"));
	set(d, "discard", import_get(upper->props, "discard"));
	set(d, "detect-zeroes", import_get(upper->props, "detect-zeroes"));
	set(d, "file.initiator-name", import_get(lower->props, "initiator-name"));
	if (is_read_only(upper->props))
		set(d, "readonly", "on");
	text = import_props_text(d, false, NULL);
	json_object_put(d);
	if (!text) {
		im->no_memory = true;
		return;
	}
	import_change(im, upper, "-drive", text, "with a URL, so that Disk= can name it");
	if (lower != upper)
		import_leave_out(im, lower, "is in the -drive with its URL");
}

static void urls_for_blockdevs(struct import *im)
{
	static const char *const format[] = { "driver", "node-name", "file", "cache", "discard", "read-only", "auto-read-only", "detect-zeroes" };

	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *lower = &im->option[i], *upper = NULL;
		_cleanup_free_ char *url = streq(lower->name, "-blockdev") && lower->fate == IMPORT_KEEP ? url_of(lower->props) : NULL;
		const char *name = url ? import_get(lower->props, "node-name") : NULL, *file;
		char err[ERR_LEN] = "";
		unsigned users = 0;

		if (!name || value_place_check(url, err, sizeof(err)) < 0)
			continue;
		for (size_t k = 0; k < im->n_options; k++) {
			struct import_option *o = &im->option[k];

			if (o == lower || o->fate != IMPORT_KEEP || !o->value || !import_mentions(o->value, name))
				continue;
			upper = o;
			users++;
		}
		if (users != 1)
			continue;
		file = import_get(upper->props, streq(upper->name, "-device") ? "drive" : "file");
		if (!file || !streq(file, name))
			continue;
		if (streq(upper->name, "-device")) {
			turn_into_drive(im, lower, lower, url);
			continue;
		}
		if (streq(upper->name, "-blockdev") && has_only(upper->props, format, ARRAY_SIZE(format)) && import_get(upper->props, "node-name") &&
		    !is_below_another(im, import_get(upper->props, "node-name")))
			turn_into_drive(im, upper, lower, url);
	}
}

static void check_storage(struct import *im)
{
	for (size_t i = 0; i < im->n_images; i++) {
		const char *place = im->image[i].place;
		enum disk_place where = *place == '/' ? im->in->storage(im->in->user, place) : DISK_SHARED;

		if (where == DISK_SHARED)
			continue;
		if (!im->image[i].writable)
			import_warn(im, false, "%s is only read; it must be on every node under this path, or on shared storage", place);
		else if (where == DISK_LOCAL)
			import_warn(im, true, "%s is on a local disk of this host: no other node can run the VM; move it to shared storage", place);
		else if (where == DISK_UNKNOWN)
			import_warn(im, true, "%s is not known to be on shared storage: look whether it is the same disk on every node", place);
		else
			import_warn(im, true, "%s does not exist on this host, so that nobody knows if it is shared storage; look where it does", place);
	}
}

/* What a guest writes into memory that is a shared mapping of a file, an NVDIMM's, is on the disk. */
static void visit_memory(struct import *im, struct import_option *o)
{
	const char *path = import_get(o->props, "mem-path");

	/* the guest's memory in a directory of libvirt's is no disk, and goes with the process: import_nets() refuses it */
	if (path && strncmp(path, "/dev/", 5) != 0 && !import_is_libvirts(path) && import_is_on(o->props, "share", false))
		add_file(im, o, path, !is_read_only(o->props));
}

/* Files that QEMU reads when it starts. A ROM's bare name is one of QEMU's own directory, an empty one is none. */
static void visit_read(struct import *im, struct import_option *o)
{
	static const struct {
		const char *option, *driver, *key;
	} files[] = {
		{ "-fw_cfg", NULL, "file" }, { "-acpitable", NULL, "file" }, { "-acpitable", NULL, "data" }, { "-smbios", NULL, "file" }, { "-smbios", NULL, "path" },
		{ "-device", "loader", "file" }, { "-device", NULL, "romfile" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		const char *file = streq(o->name, files[i].option) ? import_get(o->props, files[i].key) : NULL, *driver = import_get(o->props, "driver");

		if (file && (!files[i].driver || (driver && streq(driver, files[i].driver))) && (strchr(file, '/') || !streq(files[i].key, "romfile")))
			add_file(im, o, file, false);
	}
}

void import_disks(struct import *im)
{
	static const char *const written[] = { "-hda", "-hdb", "-hdc", "-hdd", "-fda", "-fdb", "-sd", "-pflash", "-mtdblock", "" };
	static const char *const read[] = { "-cdrom", "-kernel", "-initrd", "-dtb", "-bios", "-option-rom" };

	urls_for_blockdevs(im);
	for (size_t i = 0; i < im->n_options; i++) {
		struct import_option *o = &im->option[i];

		if (o->fate == IMPORT_LEFT_OUT)
			continue;
		if (streq(o->name, "-blockdev"))
			visit_blockdev(im, o);
		if (streq(o->name, "-drive"))
			visit_drive(im, o);
		if (streq(o->name, "-object"))
			visit_memory(im, o);
		visit_read(im, o);
		for (size_t k = 0; o->value && k < ARRAY_SIZE(written); k++)
			if (streq(o->name, written[k]))
				add_file(im, o, o->value, true);
		/* -bios and -option-rom may be bare names from QEMU's own directory */
		for (size_t k = 0; o->value && k < ARRAY_SIZE(read); k++)
			if (streq(o->name, read[k]) && (strchr(o->value, '/') || k < 4))
				add_file(im, o, o->value, false);
	}
	check_storage(im);
}

bool import_is_image(const struct import *im, const char *value)
{
	for (size_t i = 0; i < im->n_images; i++)
		if (import_mentions(value, im->image[i].place))
			return true;
	return false;
}
