/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/disk_place.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/base/util.h"
#include "agent/base/value.h"

#define DM_DEPTH 8
#define MAX_LINKS 40 /* as path_resolution(7) */

struct mount {
	char *dir;
	enum disk_place place;
};

struct mounts {
	struct mount *mount;
	size_t n;
};

static enum disk_place place_of_type(const char *type)
{
	static const char *const shared[] = { "nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.ceph", "fuse.glusterfs", "ocfs2", "gfs2", "lustre", "gpfs",
					      "beegfs", "9p", "virtiofs", "fuse.moosefs", "fuse.seaweedfs" };
	static const char *const local[] = { "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2", "vfat", "exfat",
					     "ntfs3", "fuseblk", "tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay" };

	for (size_t i = 0; i < ARRAY_SIZE(shared); i++)
		if (streq(type, shared[i]))
			return DISK_SHARED;
	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (streq(type, local[i]))
			return DISK_LOCAL;
	return DISK_UNKNOWN;
}

/* \040 for a blank and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (const char *p = s; *p; to++) {
		if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' && p[3] <= '7') {
			*to = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
			p += 4;
		} else {
			*to = *p++;
		}
	}
	*to = '\0';
}

static void free_mounts(struct mounts *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->mount[i].dir);
	free(m->mount);
}

static int add_mount(struct mounts *m, const char *dir, enum disk_place place)
{
	struct mount *more = realloc(m->mount, (m->n + 1) * sizeof(*more));
	char *own = strdup(dir);

	if (more)
		m->mount = more;
	if (!more || !own) {
		free(own);
		return -ENOMEM;
	}
	unescape(own);
	m->mount[m->n++] = (struct mount){ .dir = own, .place = place };
	return 0;
}

static int read_mounts(const char *mountinfo, struct mounts *m)
{
	char *line = NULL, dir[4 * PATH_MAX], type[64]; /* escaped: 4 for one */
	size_t size = 0;
	int r = 0;
	FILE *f = fopen(mountinfo, "re");

	if (!f)
		return -errno;
	while (r == 0 && getline(&line, &size, f) > 0) {
		const char *dash = strstr(line, " - ");

		if (dash && strlen(line) < sizeof(dir) && sscanf(line, "%*s %*s %*s %*s %s", dir) == 1 && sscanf(dash + 3, "%63s", type) == 1)
			r = add_mount(m, dir, place_of_type(type));
	}
	free(line);
	(void)fclose(f);
	return r;
}

/* By the innermost mount that the path is in; of several on one directory the last. */
static enum disk_place place_of_path(const struct mounts *m, const char *path)
{
	enum disk_place place = DISK_UNKNOWN;
	size_t best = 0;

	for (size_t i = 0; i < m->n; i++) {
		const char *dir = m->mount[i].dir;
		size_t len = streq(dir, "/") ? 0 : strlen(dir);

		if (len < best || strncmp(path, dir, len) != 0 || (path[len] != '/' && path[len] != '\0'))
			continue;
		best = len;
		place = m->mount[i].place;
	}
	return place;
}

/* By its place in sysfs, for device mapper by what is below: one shared one is enough, and all must be local. */
static enum disk_place place_of_device(const char *sys, unsigned depth)
{
	static const char *const transports[] = { "/session", "/rport-", "/rbd", "/drbd", "/nbd", "/nvme-fabrics/" }; /* iSCSI, FC, ... */
	char path[PATH_MAX], slaves[PATH_MAX + 16];
	unsigned n = 0, n_shared = 0, n_local = 0;
	const char *ata;
	struct dirent *e;
	DIR *d;

	if (depth > DM_DEPTH || !realpath(sys, path))
		return DISK_UNKNOWN;
	for (size_t i = 0; i < ARRAY_SIZE(transports); i++)
		if (strstr(path, transports[i]))
			return DISK_SHARED;
	ata = strstr(path, "/ata");
	if (ata && ata[4] >= '0' && ata[4] <= '9')
		return DISK_LOCAL;
	(void)snprintf(slaves, sizeof(slaves), "%s/slaves", path);
	d = opendir(slaves);
	while (d && n_shared == 0 && (e = readdir(d)) != NULL) {
		char below[PATH_MAX + 300];
		enum disk_place p;

		if (*e->d_name == '.')
			continue;
		(void)snprintf(below, sizeof(below), "%s/%s", slaves, e->d_name);
		p = place_of_device(below, depth + 1);
		n++;
		n_shared += p == DISK_SHARED;
		n_local += p == DISK_LOCAL;
	}
	if (d)
		(void)closedir(d);
	return n_shared > 0 ? DISK_SHARED : n > 0 && n_local == n ? DISK_LOCAL : DISK_UNKNOWN;
}

enum disk_place disk_place_of_device(const char *sys) { return place_of_device(sys, 0); }

/* path_resolution(7) by hand, to stop where a mount begins that is not this host's own. */
struct walk {
	char at[PATH_MAX];   /* without links; "" is the root */
	char rest[PATH_MAX];
	unsigned n_links;
};

static void go_up(struct walk *w)
{
	char *last = strrchr(w->at, '/');

	if (last)
		*last = '\0';
}

/* Into the next component of what is left. 1: nothing is left. */
static int go_down(struct walk *w)
{
	size_t skip = strspn(w->rest, "/"), len = strcspn(w->rest + skip, "/"), at = strlen(w->at);
	const char *name = w->rest + skip;

	if (len == 0)
		return 1;
	if (len == 2 && strncmp(name, "..", 2) == 0) {
		go_up(w);
	} else if (len != 1 || *name != '.') {
		if (at + len + 2 > sizeof(w->at))
			return -ENAMETOOLONG;
		w->at[at] = '/';
		memcpy(w->at + at + 1, name, len);
		w->at[at + 1 + len] = '\0';
	}
	memmove(w->rest, name + len, strlen(name + len) + 1);
	return 0;
}

/* at is a link: what it says comes before what is left. */
static int follow(struct walk *w)
{
	char text[PATH_MAX];
	ssize_t n = readlink(w->at, text, sizeof(text));
	size_t rest = strlen(w->rest);

	if (n < 0)
		return -errno;
	if (++w->n_links > MAX_LINKS || (size_t)n + 1 + rest + 1 > sizeof(w->rest))
		return -ELOOP;
	memmove(w->rest + n + 1, w->rest, rest + 1);
	memcpy(w->rest, text, (size_t)n);
	w->rest[n] = '/';
	if (*text == '/')
		w->at[0] = '\0';
	else
		go_up(w);
	return 0;
}

static enum disk_place walk(struct walk *w, const struct mounts *m)
{
	struct stat st = { .st_mode = S_IFDIR };
	char sys[64];
	int r;

	while ((r = go_down(w)) == 0) {
		enum disk_place place = place_of_path(m, w->at);

		if (place != DISK_LOCAL)
			return place;
		if (lstat(*w->at ? w->at : "/", &st) < 0)
			return errno == ENOENT ? DISK_ABSENT : DISK_UNKNOWN;
		if (S_ISLNK(st.st_mode) && follow(w) < 0)
			return DISK_UNKNOWN;
	}
	if (r < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return DISK_UNKNOWN;
	if (S_ISREG(st.st_mode))
		return DISK_LOCAL;
	(void)snprintf(sys, sizeof(sys), "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return disk_place_of_device(sys);
}

enum disk_place disk_place_in(const char *mountinfo, const char *path)
{
	struct mounts m = { .n = 0 };
	struct walk w = { .at = "" };
	enum disk_place place = DISK_UNKNOWN;

	if (*path == '/' && strlen(path) < sizeof(w.rest) && read_mounts(mountinfo, &m) == 0) {
		(void)str_copy(w.rest, sizeof(w.rest), path);
		place = walk(&w, &m);
	}
	free_mounts(&m);
	return place;
}

enum disk_place disk_place(const char *path) { return disk_place_in("/proc/self/mountinfo", path); }

const char *disk_place_find(const struct vmfile *f, enum disk_place place)
{
	for (size_t i = 0; i < f->n_disks; i++)
		if (*f->disks[i] == '/' && disk_place(f->disks[i]) == place)
			return f->disks[i];
	return NULL;
}

bool disk_place_refuses(const struct vmfile *f, const char *node, char *err, size_t err_size)
{
	const char *disk = disk_place_find(f, DISK_LOCAL);

	if (disk)
		(void)value_refuse(err, err_size, "Disk=%.100s is on a local disk of node %.30s; move it to shared storage, or mount that there", disk, node);
	return disk;
}
