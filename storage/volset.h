/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cluster's volumes as one set: opens them all, reads their superblocks and reports once a fence quorum of them agrees who they are.
 * From then on a volume counts as ready only if it is of that set and in its place. Runs for ever: volumes come and go. */
#pragma once

#include "agent/base/conf.h"
#include "storage/format.h"
#include "storage/volume.h"

struct volset;

enum volset_state { VOLSET_GOOD, VOLSET_AWAY, VOLSET_WAITING, VOLSET_STALE, VOLSET_FOREIGN };
/* WAITING: for the others of the set, or for the end of a change of it. FOREIGN: or blank, or at another place. */

struct volset_callbacks {
	/* A fence quorum agrees; called once. sb stays valid as long as the set. */
	void (*known)(void *user, const struct superblock *sb);
	/* After known: a volume may be used (good), or may no longer (reason says why). */
	void (*volume)(void *user, unsigned index, bool good, const char *reason);
	/* After known: a volume's superblock is of a later set. NULL: not asked for. */
	void (*changed)(void *user);
};

/* conf is borrowed. 0 or a negative errno with err. */
int volset_new(qb_loop_t *loop, const struct conf *conf, const struct volset_callbacks *cb, void *user, struct volset **ret, char *err,
	       size_t err_size);
void volset_free(struct volset *s);

/* The caller has read that this volume's superblock is not the set's any more: it is not good until a superblock of the set is read again. */
void volset_changed(struct volset *s, unsigned index);
struct volume *volset_volume(const struct volset *s, unsigned index);
bool volset_good(const struct volset *s, unsigned index);
enum volset_state volset_state(const struct volset *s, unsigned index);
const char *volset_reason(const struct volset *s, unsigned index); /* why it is not good, "" if it is */
/* Of a volume with several addresses: one that is not in use, and why; "" if there is none. */
bool volset_lost_path(const struct volset *s, unsigned index, char *ret, size_t size);

/* Reserved for one purpose each: buffers that are aligned and never freed while a volume may still use them. */
void *volset_buffer(size_t len);
