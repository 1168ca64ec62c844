/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether a path is on storage that other hosts can have, too, as far as this host can tell. Looks at nothing but this host's own file systems, its list of
 * mounts and sysfs: what a network file system holds is never touched, so that one that hangs hangs nobody here.
 *
 * Sources: proc_pid_mountinfo(5), Documentation/ABI/stable/sysfs-block of Linux.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "agent/vmfile.h"

enum disk_place {
	DISK_SHARED,
	DISK_LOCAL,   /* certainly: a file of a file system that one host alone can mount, or what is on SATA disks */
	DISK_UNKNOWN,
	DISK_ABSENT,
};

enum disk_place disk_place(const char *path);

/* The first of a VM's Disk= whose place is that; NULL: none. */
const char *disk_place_find(const struct vmfile *f, enum disk_place place);

/* A disk that is LOCAL on the node is not the one of the same name on another: true, and why no guest is sent from or to it, with a remedy, is put into err. */
bool disk_place_refuses(const struct vmfile *f, const char *node, char *err, size_t err_size);

/* For tests: by another list of mounts; and of a block device, by its link in /sys/dev/block. */
enum disk_place disk_place_in(const char *mountinfo, const char *path);
enum disk_place disk_place_of_device(const char *sys);
