/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One volume operation with its own buffer, reported the way the cores want it: a definite end only once the operation is settled, so that the
 * buffer may be used again at once; an unknown one at its deadline, followed by settled whenever that comes. */
#pragma once

#include "storage/volume.h"

struct volop {
	struct volume_io io;
	unsigned volume; /* for the caller */
	bool busy;       /* not settled: neither io nor buffer may be touched */
	enum volume_result result;
	int64_t begun_ns;
	void (*done)(struct volop *op, bool ok, bool definite);
	void (*settled)(struct volop *op, bool completed); /* may be NULL */
	void *user;
};

/* Allocates the buffer of size bytes, which lives as long as the process. */
void volop_init(struct volop *op, unsigned volume, size_t size, void (*done)(struct volop *, bool, bool), void (*settled)(struct volop *, bool),
		void *user);
void volop_read(struct volop *op, struct volume *v, uint64_t offset, uint32_t len, uint32_t timeout_ms);
void volop_write(struct volop *op, struct volume *v, uint64_t offset, uint32_t len, uint32_t timeout_ms);
