/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on volumes for tests: counted, and waited for in the loop. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "storage/volume.h"
#include "tests/tap.h"

#define PATIENCE_MS 30000
#define OP_MS 5000

static qb_loop_t *loop;

struct watched {
	struct volume *v;
	int ready, backoff, opening;
	char reason[VOLUME_REASON_LEN];
};

struct op {
	struct volume_io io;
	int done, settled;
	enum volume_result result;
	enum volume_settle how;
	uint64_t begun_ms, done_ms;
	void (*then)(struct op *op);
	struct volume *then_volume;
};

static inline uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline void on_state(struct volume *v, enum volume_state state, const char *reason, void *user)
{
	struct watched *w = user;

	w->ready += state == VOLUME_READY;
	w->backoff += state == VOLUME_BACKOFF;
	w->opening += state == VOLUME_OPENING;
	if (state == VOLUME_BACKOFF)
		(void)str_copy(w->reason, sizeof(w->reason), reason);
}

/* The loop runs until a counter gets to a value or patience ends. */
static struct {
	const int *counter;
	int want;
	uint64_t until_ms;
} waiting;

static inline void poll_counter(void *data)
{
	qb_loop_timer_handle handle;

	if (*waiting.counter >= waiting.want || now_ms() >= waiting.until_ms)
		qb_loop_stop(loop);
	else
		(void)qb_loop_timer_add(loop, QB_LOOP_LOW, 2 * NS_PER_MS, NULL, poll_counter, &handle);
}

static inline bool wait_for(const int *counter, int want, unsigned patience_ms)
{
	waiting.counter = counter;
	waiting.want = want;
	waiting.until_ms = now_ms() + patience_ms;
	(void)qb_loop_job_add(loop, QB_LOOP_LOW, NULL, poll_counter);
	qb_loop_run(loop);
	return *counter >= want;
}

static inline bool open_volume(struct watched *w, const char *url, const struct volume_options *o)
{
	char err[256] = "";

	memset(w, 0, sizeof(*w));
	if (volume_open(loop, url, o, on_state, w, &w->v, err, sizeof(err)) == 0)
		return true;
	printf("# %s\n", err);
	return false;
}

static inline void *buffer(size_t len, int fill)
{
	void *p = NULL;

	if (posix_memalign(&p, VOLUME_ALIGN, len) != 0)
		abort();
	memset(p, fill, len);
	return p;
}

static inline void op_done(struct volume_io *io, enum volume_result result)
{
	struct op *op = io->user;

	op->done++;
	op->result = result;
	op->done_ms = now_ms();
	if (op->then && result != VOLUME_OK)
		op->then(op);
}

static inline void op_settled(struct volume_io *io, enum volume_settle how)
{
	struct op *op = io->user;

	op->settled++;
	op->how = how;
	if (op->then && op->result == VOLUME_OK)
		op->then(op);
}

static inline void start(struct op *op, struct volume *v, void *buf, uint64_t offset, uint32_t len, bool is_write, uint32_t timeout_ms)
{
	memset(op, 0, sizeof(*op));
	op->io = (struct volume_io){ .buf = buf, .offset = offset, .len = len, .timeout_ms = timeout_ms, .done = op_done,
				     .settled = op_settled, .user = op };
	op->begun_ms = now_ms();
	if (is_write)
		volume_write(v, &op->io);
	else
		volume_read(v, &op->io);
}

static inline enum volume_result transfer(struct volume *v, void *buf, uint64_t offset, uint32_t len, bool is_write)
{
	struct op op;

	start(&op, v, buf, offset, len, is_write, OP_MS);
	TAP_OK(op.done == 0 && op.settled == 0, "nothing is reported from inside the submit");
	if (!wait_for(&op.settled, 1, PATIENCE_MS))
		abort(); /* op is on this stack */
	TAP_OK(op.done == 1 && op.settled == 1 && op.how == VOLUME_COMPLETED, "done once, settled once, completed (%s)",
	       volume_result_name(op.result));
	return op.result;
}
