/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looks at a file or block device from a child process: any system call on it may hang for ever, and a child can be left behind. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "storage/probe_job.h"

/* Whether a kind of file system can be seen by another host. What is not here may be either. */
static const struct { const char *fs; enum probe_answer shared; } file_systems[] = {
	{ "ext2", PROBE_NO }, { "ext3", PROBE_NO }, { "ext4", PROBE_NO }, { "xfs", PROBE_NO }, { "btrfs", PROBE_NO }, { "zfs", PROBE_NO },
	{ "f2fs", PROBE_NO }, { "bcachefs", PROBE_NO }, { "jfs", PROBE_NO }, { "vfat", PROBE_NO }, { "tmpfs", PROBE_NO }, { "ramfs", PROBE_NO },
	{ "overlay", PROBE_NO }, { "devtmpfs", PROBE_NO },
	{ "nfs", PROBE_YES }, { "nfs4", PROBE_YES }, { "ceph", PROBE_YES }, { "fuse.glusterfs", PROBE_YES }, { "fuse.ceph-fuse", PROBE_YES },
	{ "ocfs2", PROBE_YES }, { "gfs2", PROBE_YES }, { "lustre", PROBE_YES }, { "gpfs", PROBE_YES }, { "cifs", PROBE_YES }, { "smb3", PROBE_YES },
};

/* What a block device hangs on, told by the path of its directory in /sys. */
static const struct { const char *in_path, *name; enum probe_answer shared; } buses[] = {
	{ "/session", "iSCSI by the kernel", PROBE_YES }, { "/rport-", "Fibre Channel", PROBE_YES }, { "/nvme-fabrics", "NVMe over fabrics", PROBE_YES },
	{ "/rbd", "Ceph RBD", PROBE_YES }, { "/block/drbd", "DRBD", PROBE_YES }, { "/block/loop", "loop device", PROBE_NO },
	{ "/block/ram", "RAM disk", PROBE_NO }, { "/block/zram", "RAM disk", PROBE_NO }, { "/block/md", "software RAID", PROBE_UNKNOWN },
	{ "/block/dm-", "device mapper", PROBE_UNKNOWN }, { "/usb", "USB", PROBE_NO }, { "/ata", "ATA", PROBE_NO }, { "/nvme", "NVMe", PROBE_UNKNOWN },
	{ "/virtio", "virtio", PROBE_UNKNOWN },
};

struct report { /* through the pipe */
	struct probe_path path;
	char error[PROBE_ERROR_LEN];
};

static bool read_line(const char *path, char *ret, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

/* The type of the file system that holds fd, by the mount it was opened through. */
static void find_fs(int fd, char ret[PROBE_TEXT_LEN])
{
	char path[64], line[4096], type[PROBE_TEXT_LEN];
	int want = -1, id;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		(void)sscanf(line, "mnt_id: %d", &want);
	if (f)
		(void)fclose(f);
	f = fopen("/proc/self/mountinfo", "re");
	while (f && fgets(line, sizeof(line), f)) {
		const char *dash = strstr(line, " - ");

		if (dash && sscanf(line, "%d", &id) == 1 && id == want && sscanf(dash, " - %47s", type) == 1)
			(void)str_copy(ret, PROBE_TEXT_LEN, type);
	}
	if (f)
		(void)fclose(f);
}

static void look_at_file(int fd, const struct stat *st, struct probe_path *p)
{
	p->size = (uint64_t)st->st_size;
	p->used = (uint64_t)st->st_blocks * 512;
	find_fs(fd, p->fs);
	for (size_t i = 0; i < ARRAY_SIZE(file_systems); i++)
		if (streq(p->fs, file_systems[i].fs))
			p->shared = file_systems[i].shared;
}

static void look_at_device(int fd, const struct stat *st, struct probe_path *p)
{
	char link[64], real[PATH_MAX], queue[PATH_MAX], text[64];
	int sector = 0, read_only = 0;
	unsigned physical = 0;

	p->is_block = true;
	if (ioctl(fd, BLKSSZGET, &sector) == 0)
		p->sector_size = (uint32_t)sector;
	if (ioctl(fd, BLKPBSZGET, &physical) == 0)
		p->physical_sector_size = physical;
	if (ioctl(fd, BLKROGET, &read_only) == 0 && read_only)
		p->read_only = PROBE_YES;
	(void)ioctl(fd, BLKGETSIZE64, &p->size);
	p->used = p->size;
	(void)snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(st->st_rdev), minor(st->st_rdev));
	if (!realpath(link, real))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(buses) && !*p->fs; i++)
		if (strstr(real, buses[i].in_path)) {
			(void)str_copy(p->fs, sizeof(p->fs), buses[i].name);
			p->shared = buses[i].shared;
		}
	/* a partition's queue is its disk's */
	for (unsigned up = 0; up < 2 && p->write_cache == PROBE_UNKNOWN; up++) {
		(void)snprintf(queue, sizeof(queue), "%.3000s%s/queue/write_cache", real, up ? "/.." : "");
		if (read_line(queue, text, sizeof(text)))
			p->write_cache = streq(text, "write back") ? PROBE_YES : PROBE_NO;
	}
}

/* Reads the second 512 bytes, then the second 4096: which does O_DIRECT take? */
static uint32_t find_alignment(int fd)
{
	static const uint32_t sizes[] = { 512, VOLUME_ALIGN };
	void *buf = NULL;
	uint32_t found = 0;

	if (posix_memalign(&buf, VOLUME_ALIGN, 2 * VOLUME_ALIGN) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(sizes) && !found; i++)
		if (pread(fd, (uint8_t *)buf + sizes[i], sizes[i], (off_t)sizes[i]) == (ssize_t)sizes[i])
			found = sizes[i];
	free(buf);
	return found;
}

static void look(const char *name, struct report *ret)
{
	struct probe_path *p = &ret->path;
	int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	_cleanup_close_ int fd = open(name, O_RDWR | O_DIRECT | O_DSYNC | flags);
	struct stat st;

	p->read_only = fd >= 0 ? PROBE_NO : PROBE_UNKNOWN;
	if (fd < 0 && (errno == EROFS || errno == EACCES || errno == EPERM)) {
		p->read_only = PROBE_YES;
		fd = open(name, O_RDONLY | O_DIRECT | flags);
	}
	p->o_direct = fd >= 0 ? PROBE_YES : PROBE_UNKNOWN;
	if (fd < 0 && errno == EINVAL) {
		p->o_direct = PROBE_NO;
		fd = open(name, O_RDONLY | flags);
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		(void)snprintf(ret->error, sizeof(ret->error), "cannot open it: %s", strerror(errno));
		return;
	}
	if (S_ISBLK(st.st_mode))
		look_at_device(fd, &st, p);
	else
		look_at_file(fd, &st, p);
	if (p->o_direct == PROBE_YES)
		p->alignment = find_alignment(fd);
}

static void child(const char *name, int out)
{
	struct report report = { 0 };

	look(name, &report);
	_exit(write(out, &report, sizeof(report)) == (ssize_t)sizeof(report) ? 0 : 1);
}

void probe_path(const struct probe_job *job)
{
	struct report report;
	struct pollfd p = { .events = POLLIN };
	int pipes[2], left;
	pid_t pid;

	job->ret->kind = PROBE_PATH;
	if (pipe2(pipes, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		probe_fail(job, "cannot start a process: %s", strerror(errno));
		return;
	}
	if (pid == 0)
		child(job->address->path, pipes[1]);
	(void)close(pipes[1]);
	p.fd = pipes[0];
	do
		left = (int)probe_left_ms(job);
	while (poll(&p, 1, left) < 0 && errno == EINTR && left > 0);
	/* smaller than a pipe's atomic size: all of it is there, or nothing */
	_Static_assert(sizeof(report) <= 512, "one write of a pipe");
	if (p.revents & POLLIN && read(pipes[0], &report, sizeof(report)) == (ssize_t)sizeof(report)) {
		job->ret->path = report.path;
		if (*report.error)
			probe_fail(job, "%.140s", report.error);
	} else
		probe_fail(job, "looking at it hangs; a process was left behind until that returns");
	(void)close(pipes[0]);
	(void)kill(pid, SIGKILL); /* of no effect while a system call holds it */
	(void)waitpid(pid, NULL, WNOHANG);
}
