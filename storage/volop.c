/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/volop.h"

#include "agent/base/clock.h"
#include "storage/volset.h"

static bool definite(enum volume_result r) { return r != VOLUME_E_TIMEOUT && r != VOLUME_E_SESSION; }

static void on_done(struct volume_io *io, enum volume_result result)
{
	struct volop *op = io->user;

	op->result = result;
	if (!definite(result))
		op->done(op, false, false);
}

static void on_settled(struct volume_io *io, enum volume_settle how)
{
	struct volop *op = io->user;

	op->busy = false;
	if (definite(op->result))
		op->done(op, op->result == VOLUME_OK, true);
	if (op->settled)
		op->settled(op, how == VOLUME_COMPLETED);
}

void volop_init(struct volop *op, unsigned volume, size_t size, void (*done)(struct volop *, bool, bool), void (*settled)(struct volop *, bool),
		void *user)
{
	*op = (struct volop){ .volume = volume, .done = done, .settled = settled, .user = user };
	op->io.buf = volset_buffer(size);
	op->io.done = on_done;
	op->io.settled = on_settled;
	op->io.user = op;
}

static void prepare(struct volop *op, uint64_t offset, uint32_t len, uint32_t timeout_ms)
{
	CHECK(!op->busy);
	op->busy = true;
	op->begun_ns = clock_now_ns();
	op->io.offset = offset;
	op->io.len = len;
	op->io.timeout_ms = timeout_ms;
}

void volop_read(struct volop *op, struct volume *v, uint64_t offset, uint32_t len, uint32_t timeout_ms)
{
	prepare(op, offset, len, timeout_ms);
	volume_read(v, &op->io);
}

void volop_write(struct volop *op, struct volume *v, uint64_t offset, uint32_t len, uint32_t timeout_ms)
{
	prepare(op, offset, len, timeout_ms);
	volume_write(v, &op->io);
}
