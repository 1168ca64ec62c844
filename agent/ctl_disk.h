/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume for a command that has nothing else to do: each call runs the loop until it is over. One operation at a time; after a failure
 * the session is of no more use. */
#pragma once

#include "agent/base/conf.h"
#include "agent/base/volume_url.h"
#include "storage/format.h"
#include "storage/volume.h"

#define CTL_DISK_CHUNK (1U << 20)
#define CTL_DISK_ERROR_LEN 256

struct ctl_disk;

/* 0, or a negative errno with err = one line. conf gives the secrets. */
int ctl_disk_open(const char *url, const struct conf *conf, bool read_only, struct ctl_disk **ret, char *err, size_t err_size);
void ctl_disk_close(struct ctl_disk *d); /* NULL is ignored */
uint64_t ctl_disk_size(const struct ctl_disk *d);
const char *ctl_disk_url(const struct ctl_disk *d);

/* Waits until it is known of every path whether it leads to the volume; what is returned lives as long as d. 0: the URL has one address only. */
unsigned ctl_disk_paths(struct ctl_disk *d, struct volume_path ret[VOLUME_PATHS_MAX]);

/* offset and len are multiples of FORMAT_BLOCK; buf needs no alignment. */
int ctl_disk_read(struct ctl_disk *d, uint64_t offset, void *buf, size_t len, char *err, size_t err_size);
int ctl_disk_write(struct ctl_disk *d, uint64_t offset, const void *buf, size_t len, char *err, size_t err_size);

/* Superblocks and the whole heartbeat table, as they lie at a volume's start. */
#define CTL_DISK_TABLE_LEN (2 * FORMAT_BLOCK * (FORMAT_MAX_NODES + 1))
#define CTL_DISK_SLOTS (2 * FORMAT_MAX_NODES)
/* A block of our format, whole or damaged, of whatever cluster, in slot i of that. */
bool ctl_disk_is_ours(const uint8_t *table, unsigned i);
/* Reads it once more, into now: the node whose heartbeat is another than in was; 0: nobody's; negative: reading failed, err says why. */
int ctl_disk_who_lives(struct ctl_disk *d, const uint8_t *was, uint8_t *now, char *err, size_t err_size);

/* The better of the two superblock copies. st: of the first copy if neither is valid. */
int ctl_disk_superblock(struct ctl_disk *d, struct superblock *ret, enum format_status *st, char *err, size_t err_size);
