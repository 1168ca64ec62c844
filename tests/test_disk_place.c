/* SPDX-License-Identifier: GPL-2.0-or-later */
/* agent/disk_place.c: a tree of directories, links and files with a list of mounts of the test's own, and trees as sysfs has them. */
#include "agent/disk_place.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/util.h"
#include "tests/tap.h"

static char top[] = "/tmp/test_disk_place.XXXXXX";
static char path[4][PATH_MAX];

_printf_(1, 2) static const char *at(const char *fmt, ...)
{
	static unsigned next;
	char *p = path[next++ % ARRAY_SIZE(path)];
	int n = snprintf(p, PATH_MAX, "%s/", top);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(p + n, PATH_MAX - (size_t)n, fmt, ap);
	va_end(ap);
	return p;
}

static void dir(const char *name) { CHECK(mkdir(at("%s", name), 0755) == 0); }
static void link_to(const char *text, const char *name) { CHECK(symlink(text, at("%s", name)) == 0); }

static void file(const char *name, const char *text)
{
	FILE *f = fopen(at("%s", name), "we");

	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void put_mounts(void)
{
	char text[16 * PATH_MAX];

	(void)snprintf(text, sizeof(text),
		       "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
		       "23 22 0:40 / %1$s/nfs rw shared:2 master:3 - nfs4 10.0.0.1:/srv rw\n24 22 0:41 / %1$s/ext4\\040blank rw - cifs //x/y rw\n"
		       "25 22 0:42 / %1$s/auto rw - autofs systemd-1 rw\n26 22 0:43 / %1$s/strange rw - fuse.strange x rw\n"
		       "27 22 0:44 / %1$s/over rw - nfs x rw\n28 27 8:1 / %1$s/over rw - xfs /dev/sda1 rw\n"
		       "29 23 8:2 / %1$s/nfs/local rw - ext4 /dev/sda2 rw\nshort line\n", top);
	file("mountinfo", text);
}

static void test_paths(void)
{
	static const struct { const char *path; enum disk_place want; const char *what; } table[] = {
		{ "ext4/a.raw", DISK_LOCAL, "a file on ext4" },
		{ "ext4/none.raw", DISK_ABSENT, "none there" },
		{ "ext4", DISK_UNKNOWN, "a directory is no disk" },
		{ "nfs/a.raw", DISK_SHARED, "on NFS" },
		{ "nfs/not/there.raw", DISK_SHARED, "on NFS, which is not asked whether it is there" },
		{ "ext4/../ext4//./a.raw", DISK_LOCAL, "points and slashes" },
		{ "ext4/../nfs/a.raw", DISK_SHARED, "up and over" },
		{ "ext4/images/a.raw", DISK_SHARED, "a link from ext4 to NFS" },
		{ "ext4/near/a.raw", DISK_SHARED, "a relative one" },
		{ "ext4/file.raw", DISK_LOCAL, "a link to a file" },
		{ "ext4/loop/a.raw", DISK_UNKNOWN, "a link to itself" },
		{ "ext4/gone/a.raw", DISK_ABSENT, "a link to nowhere" },
		{ "ext4 blank/a.raw", DISK_SHARED, "a mount with a blank in its name" },
		{ "ext4bis/a.raw", DISK_LOCAL, "a name that goes on is not below it" },
		{ "auto/web/a.raw", DISK_UNKNOWN, "autofs is not woken" },
		{ "strange/a.raw", DISK_UNKNOWN, "a type that is not known" },
		{ "over/a.raw", DISK_LOCAL, "mounted over what is shared" },
		{ "nfs/local/a.raw", DISK_SHARED, "what is mounted within what is shared is not looked for" },
	};

	for (const char *const *d = (const char *const[]){ "ext4", "nfs", "nfs/local", "ext4 blank", "ext4bis", "auto", "strange", "over", NULL }; *d; d++)
		dir(*d);
	for (const char *const *f = (const char *const[]){ "ext4/a.raw", "nfs/a.raw", "nfs/local/a.raw", "ext4 blank/a.raw", "ext4bis/a.raw", "strange/a.raw", "over/a.raw", NULL }; *f; f++)
		file(*f, "");
	link_to(at("nfs"), "ext4/images");
	link_to("../nfs/", "ext4/near");
	link_to("a.raw", "ext4/file.raw");
	link_to("loop", "ext4/loop");
	link_to("/no/where/at/all", "ext4/gone");
	put_mounts();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		TAP_OK(disk_place_in(at("mountinfo"), at("%s", table[i].path)) == table[i].want, "%s: %s", table[i].path, table[i].what);
	TAP_OK(disk_place_in(at("mountinfo"), "nfs/a.raw") == DISK_UNKNOWN, "not an absolute path");
	TAP_OK(disk_place_in(at("none"), at("ext4/a.raw")) == DISK_UNKNOWN, "without a list of mounts nothing is known");
	TAP_OK(disk_place("/dev/null") == DISK_UNKNOWN, "a character device");
}

/* of: what dm-N is on */
static void device(const char *name, const char *of1, const char *of2)
{
	char text[64];

	CHECK(snprintf(text, sizeof(text), "sys/%s", name) < (int)sizeof(text));
	dir(text);
	CHECK(snprintf(text, sizeof(text), "sys/%s/slaves", name) < (int)sizeof(text));
	dir(text);
	for (unsigned i = 0; i < 2; i++)
		if (i ? of2 : of1) {
			CHECK(snprintf(text, sizeof(text), "sys/%s/slaves/%u", name, i) < (int)sizeof(text));
			link_to(at("sys/%s", i ? of2 : of1), text);
		}
}

static void test_devices(void)
{
	static const struct { const char *name; enum disk_place want; } table[] = {
		{ "ata1-sda", DISK_LOCAL }, { "session1-sdb", DISK_SHARED }, { "host2-sdc", DISK_UNKNOWN }, { "atari-sdd", DISK_UNKNOWN },
		{ "dm-0", DISK_LOCAL }, { "dm-1", DISK_SHARED }, { "dm-2", DISK_UNKNOWN }, { "dm-3", DISK_UNKNOWN }, { "dm-4", DISK_SHARED }, { "dm-5", DISK_LOCAL },
		{ "dm-6", DISK_UNKNOWN }, { "none", DISK_UNKNOWN },
	};

	dir("sys");
	device("ata1-sda", NULL, NULL);
	device("session1-sdb", NULL, NULL);
	device("host2-sdc", NULL, NULL);
	device("atari-sdd", NULL, NULL);
	device("dm-0", "ata1-sda", NULL);
	device("dm-1", "session1-sdb", "ata1-sda");
	device("dm-2", "ata1-sda", "host2-sdc");
	device("dm-3", NULL, NULL);
	device("dm-4", "dm-1", NULL);
	device("dm-5", "dm-0", "ata1-sda");
	device("dm-6", "dm-6", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		TAP_OK(disk_place_of_device(at("sys/%s", table[i].name)) == table[i].want, "device %s", table[i].name);
}

static void test_vm(void)
{
	struct vmfile f = { .n_disks = 2 };
	char err[256] = "";

	f.disks[0] = "iscsi://10.0.0.1/iqn.2026-11.org.example:t/1";
	f.disks[1] = (char *)at("none.raw");
	TAP_OK(!disk_place_refuses(&f, "n1", err, sizeof(err)) && !*err, "a URL, and a path where nothing is: not refused");
	TAP_OK(disk_place_find(&f, DISK_ABSENT) == f.disks[1], "but absent");
	f.disks[1] = (char *)at("ext4/a.raw");
	if (disk_place(f.disks[1]) != DISK_LOCAL)
		printf("# /tmp is on no local disk here\n");
	else
		TAP_OK(disk_place_refuses(&f, "n1", err, sizeof(err)) && strstr(err, f.disks[1]) && strstr(err, "node n1"), "a disk of this host is refused: %s", err);
}

int main(void)
{
	char command[PATH_MAX];

	CHECK(mkdtemp(top));
	test_paths();
	test_devices();
	test_vm();
	(void)snprintf(command, sizeof(command), "rm -rf %s", top);
	CHECK(system(command) == 0);
	return tap_done();
}
