/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The measurement of `volume test`. Two sessions, as two nodes have: the first writes and measures, the second reads what the first wrote.
 *
 *   open both -> what is on it? -> take a lane -> ask the target -> rounds (write, read table, look from the other session)
 *   -> writes and reads of one block at the same time -> put the lane back as it was -> look that it is
 *
 * Nothing is ever written outside FORMAT_SCRATCH_OFFSET.. of the volume. That area is cut into lanes, so that tests from several hosts run
 * beside each other: a test takes one that holds no test's block, writes its tag, and looks after a while that it is still there. Every block
 * says whose it is and where it belongs, so another test in the lane, or a misdirected write, shows and is not taken for a fault of atomicity.
 *
 * A write that nobody answered may land later. Its block is not written again, the test goes on in the lane's next one, and before the lane
 * is put back such writes get drain_ms after a completed read (DESIGN: T_drain after a probe). */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/base/uuid.h"
#include "agent/ctl_voltest.h"
#include "storage/volume.h"

#define OPEN_MS 10000
#define PACE_MS 20   /* a round at most so often: as many as a dozen nodes of profile fast */
#define TICK_MS 50   /* how soon a signal or a deadline is seen */
#define SETTLE_MS 300 /* a lane is ours if nobody else wrote into it so long */
#define PROBE_MS 5000
#define ATOMIC_MS_MAX 10000
#define ATOMIC_MS_MIN 1000
#define RESTORE_TRIES 3
#define BUF_LEN (1U << 20) /* of an operation: any table, and the scratch area */

#define LANE_LEN (64U << 10)
#define LANES (FORMAT_SCRATCH_LEN / LANE_LEN)
#define LANE_BLOCKS (LANE_LEN / FORMAT_BLOCK)
#define ROUND_BLOCKS 8U                  /* 0..7: rounds; the next after each write of unknown fate */
#define ATOMIC_BLOCK ROUND_BLOCKS
#define PROBE_BLOCK (LANE_BLOCKS - 1)
_Static_assert(FORMAT_TABLE_OFFSET + 2ULL * FORMAT_MAX_NODES * FORMAT_BLOCK <= BUF_LEN && FORMAT_SCRATCH_LEN <= BUF_LEN, "fits the buffer");

struct op {
	struct volume_io io;
	bool is_done, is_settled;
	bool is_orphan; /* given up while a system call holds it: goes when settled */
	enum volume_result result;
	int64_t sent_ns, done_ns;
	void (*then)(struct op *op); /* NULL: stops the loop */
	void *user;
};

struct session {
	struct volume *volume;
	struct op *op; /* NULL after one was orphaned */
	bool was_ready;
	uint32_t lost;
	char reason[VOLUME_REASON_LEN];
};

struct tester {
	struct voltest_run *x;
	qb_loop_t *loop;
	qb_loop_timer_handle tick;
	struct session writer, reader;
	uint64_t tag, seq;
	bool may_write, has_lane;
	uint64_t lane; /* offset on the volume */
	uint8_t *area; /* the scratch area as it was before, FORMAT_SCRATCH_LEN */
	uint32_t dirty, unresolved; /* bits: blocks of the lane */
	unsigned block;             /* of the rounds */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig) { interrupted = 1; }

void voltest_note(struct voltest_notes *notes, const char *fmt, ...)
{
	char text[VOLTEST_NOTE_LEN];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (unsigned i = 0; i < notes->n; i++)
		if (streq(notes->text[i], text))
			return;
	if (notes->n < VOLTEST_NOTES_MAX)
		(void)str_copy(notes->text[notes->n++], VOLTEST_NOTE_LEN, text);
}

static void on_tick(void *data)
{
	struct tester *t = data;

	(void)qb_loop_timer_add(t->loop, QB_LOOP_HIGH, TICK_MS * NS_PER_MS, t, on_tick, &t->tick);
	qb_loop_stop(t->loop);
}

static void on_state(struct volume *v, enum volume_state state, const char *reason, void *user)
{
	struct session *s = user;

	if (state == VOLUME_READY)
		s->was_ready = true;
	else if (state == VOLUME_BACKOFF) {
		s->lost += s->was_ready;
		s->was_ready = false;
		(void)str_copy(s->reason, sizeof(s->reason), reason);
	}
}

static void op_free(struct op *op)
{
	free(op->io.buf);
	free(op);
}

static void on_done(struct volume_io *io, enum volume_result result)
{
	struct op *op = io->user;

	op->result = result;
	op->done_ns = clock_now_ns();
	op->is_done = true;
}

static void on_settled(struct volume_io *io, enum volume_settle how)
{
	struct op *op = io->user;

	op->is_settled = true;
	if (op->is_orphan)
		op_free(op);
	else if (op->then)
		op->then(op);
}

static struct op *op_of(struct tester *t, struct session *s)
{
	void *buf = NULL;

	if (s->op)
		return s->op;
	s->op = calloc(1, sizeof(*s->op));
	CHECK(s->op && posix_memalign(&buf, VOLUME_ALIGN, BUF_LEN) == 0);
	s->op->io.buf = buf;
	s->op->io.done = on_done;
	s->op->io.settled = on_settled;
	s->op->io.timeout_ms = t->x->op_ms;
	s->op->io.user = s->op;
	s->op->is_settled = true;
	return s->op;
}

static void op_send(struct session *s, struct op *op, uint64_t offset, uint32_t len, bool write)
{
	CHECK(op->is_settled && len <= BUF_LEN);
	CHECK(!write || (offset >= FORMAT_SCRATCH_OFFSET && offset + len <= FORMAT_SCRATCH_OFFSET + FORMAT_SCRATCH_LEN));
	op->io.offset = offset;
	op->io.len = len;
	op->is_done = op->is_settled = false;
	op->sent_ns = clock_now_ns();
	if (write)
		volume_write(s->volume, &op->io);
	else
		volume_read(s->volume, &op->io);
}

static bool is_unknown(enum volume_result r) { return r == VOLUME_E_TIMEOUT || r == VOLUME_E_SESSION; }

/* The volume ends every operation by its deadline, so this does, too. A buffer that is still held afterwards is given up. */
static void op_wait(struct tester *t, struct session *s)
{
	struct op *op = s->op;

	while (!op->is_done || (!op->is_settled && !is_unknown(op->result)))
		qb_loop_run(t->loop);
	if (op->is_settled)
		return;
	op->is_orphan = true;
	s->op = NULL;
}

static void stop_loop(struct op *op) { qb_loop_stop(((struct tester *)op->user)->loop); }

static enum volume_result transfer(struct tester *t, struct session *s, uint64_t offset, void *data, uint32_t len, bool write, int64_t *ret_ns)
{
	struct op *op = op_of(t, s);
	enum volume_result result;

	op->user = t;
	op->then = stop_loop;
	if (write)
		memcpy(op->io.buf, data, len);
	op_send(s, op, offset, len, write);
	op_wait(t, s);
	result = op->result; /* an orphan stays allocated until the loop runs again */
	if (ret_ns)
		*ret_ns = op->done_ns - op->sent_ns;
	if (result == VOLUME_OK && !write)
		memcpy(data, op->io.buf, len);
	return result;
}

static void pause_until(struct tester *t, int64_t until_ns)
{
	while (!interrupted) {
		int64_t now = clock_now_ns();

		if (now >= until_ns)
			return;
		if (until_ns - now < TICK_MS * NS_PER_MS) { /* nothing is under way */
			(void)usleep((useconds_t)((until_ns - now) / 1000));
			return;
		}
		qb_loop_run(t->loop);
	}
}

static bool wait_ready(struct tester *t, struct session *s, int64_t until_ns)
{
	while (volume_state(s->volume) != VOLUME_READY && clock_now_ns() < until_ns && !interrupted)
		qb_loop_run(t->loop);
	return volume_state(s->volume) == VOLUME_READY;
}

static bool open_session(struct tester *t, struct session *s)
{
	struct voltest_run *x = t->x;
	struct volume_options options = { .connect_timeout_ms = OPEN_MS, .secret_file = x->secret_file };
	char err[VOLTEST_NOTE_LEN] = "";

	if (volume_open(t->loop, x->url, &options, on_state, s, &s->volume, err, sizeof(err)) < 0) {
		voltest_note(&x->problems, "%s", err);
		return false;
	}
	if (wait_ready(t, s, clock_now_ns() + OPEN_MS * NS_PER_MS))
		return true;
	voltest_note(&x->problems, "cannot be opened: %s", *s->reason ? s->reason : "no answer");
	return false;
}

static bool failed(struct tester *t, const char *doing, enum volume_result result)
{
	voltest_note(&t->x->problems, "%s failed: %s", doing, volume_result_name(result));
	return false;
}

static bool all_zero(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

static bool is_test_block(const uint8_t *block, uint64_t offset)
{
	uint64_t seq;
	enum voltest_block kind = voltest_block_check(block, FORMAT_BLOCK, 0, offset, &seq);

	return kind == VOLTEST_OTHER || kind == VOLTEST_MISPLACED;
}

/* Nothing but zeroes and what tests leave there. */
static bool is_scratch_free(const uint8_t *area)
{
	for (uint32_t at = 0; at < FORMAT_SCRATCH_LEN; at += FORMAT_BLOCK)
		if (!all_zero(area + at, FORMAT_BLOCK) && !is_test_block(area + at, FORMAT_SCRATCH_OFFSET + at))
			return false;
	return true;
}

/* What is on it decides what may be written. A volume too short for any slot has no scratch area either. */
static bool look(struct tester *t)
{
	struct voltest_run *x = t->x;
	uint64_t need = format_volume_len(x->node_limit);
	uint8_t *chunk = malloc(BUF_LEN);
	enum format_status first = FORMAT_E_BLANK, second;
	bool blank = true;
	enum volume_result r = VOLUME_OK;

	CHECK(chunk);
	_Static_assert(FORMAT_SCRATCH_OFFSET % BUF_LEN == 0 && FORMAT_SCRATCH_LEN == BUF_LEN, "the scratch area is one chunk");
	for (uint64_t at = 0; at < MIN(need, x->size) && r == VOLUME_OK && !interrupted; at += BUF_LEN) {
		uint32_t len = (uint32_t)MIN(MIN(need, x->size) - at, BUF_LEN);

		r = transfer(t, &t->writer, at, chunk, len, false, NULL);
		if (r != VOLUME_OK)
			break;
		if (at == 0 && len >= 2 * FORMAT_BLOCK && !all_zero(chunk, 2 * FORMAT_BLOCK)) {
			first = superblock_decode(chunk, 0, NULL, &x->sb);
			second = first == FORMAT_OK ? FORMAT_OK : superblock_decode(chunk + FORMAT_BLOCK, 1, NULL, &x->sb);
			if (second == FORMAT_OK || first == FORMAT_E_BLANK || first == FORMAT_E_FOREIGN)
				first = second;
		}
		if (at == FORMAT_SCRATCH_OFFSET && len == BUF_LEN) {
			memcpy(t->area, chunk, BUF_LEN);
			blank = blank && is_scratch_free(chunk);
		} else
			blank = blank && all_zero(chunk, len);
		if (!blank && at >= FORMAT_SCRATCH_OFFSET)
			break;
	}
	free(chunk);
	if (r != VOLUME_OK)
		return failed(t, "reading it", r);
	x->foreign_why = first == FORMAT_E_BLANK ? FORMAT_E_FOREIGN : first;
	x->content = first == FORMAT_OK ? VOLTEST_CONTENT_CLUSTER : blank ? VOLTEST_CONTENT_BLANK : VOLTEST_CONTENT_FOREIGN;
	if (x->content == VOLTEST_CONTENT_CLUSTER) {
		x->node_limit = x->sb.node_limit;
		need = format_volume_len(x->node_limit);
		if (!is_scratch_free(t->area))
			voltest_note(&x->problems, "its scratch area at byte %llu, which nothing uses, holds unknown data",
				     (unsigned long long)FORMAT_SCRATCH_OFFSET);
	}
	x->table_len = format_table_len(x->node_limit);
	if (x->size < need)
		voltest_note(&x->problems, "%" PRIu64 " bytes long; room for %" PRIu32 " nodes takes %" PRIu64 " (%" PRIu64 " MiB)", x->size, x->node_limit,
			     need, need >> 20);
	x->table_len = (uint32_t)MIN(x->table_len, x->size);
	t->may_write = x->size >= FORMAT_SCRATCH_OFFSET + FORMAT_SCRATCH_LEN &&
		       (x->force_write || x->content == VOLTEST_CONTENT_BLANK || (x->content == VOLTEST_CONTENT_CLUSTER && is_scratch_free(t->area)));
	return !interrupted;
}

/* A write of one block of the lane. */
static enum volume_result put_block(struct tester *t, unsigned block, const void *data, int64_t *ret_ns)
{
	enum volume_result r;

	CHECK(!(t->unresolved & 1U << block));
	t->dirty |= 1U << block;
	r = transfer(t, &t->writer, t->lane + (uint64_t)block * FORMAT_BLOCK, (void *)data, FORMAT_BLOCK, true, ret_ns);
	if (is_unknown(r))
		t->unresolved |= 1U << block;
	if (r == VOLUME_OK)
		t->x->wrote = true;
	if (r == VOLUME_E_NOT_READY || r == VOLUME_E_READONLY)
		t->dirty &= ~(1U << block); /* never sent, or refused: see volume.h */
	return r;
}

static bool lane_holds_test(const uint8_t *area, unsigned lane)
{
	for (uint32_t at = lane * LANE_LEN; at < (lane + 1) * LANE_LEN; at += FORMAT_BLOCK)
		if (is_test_block(area + at, FORMAT_SCRATCH_OFFSET + at))
			return true;
	return false;
}

static void samples_add(struct voltest_samples *s, enum volume_result r, int64_t ns)
{
	if (r == VOLUME_E_NOT_READY)
		return;
	if (r != VOLUME_OK) {
		if (r == VOLUME_E_TIMEOUT)
			s->timeouts++;
		else
			s->errors++;
		return;
	}
	if (s->n == s->room) {
		s->room = s->room ? s->room * 2 : 4096;
		s->us = realloc(s->us, s->room * sizeof(s->us[0]));
		CHECK(s->us);
	}
	s->us[s->n++] = (uint32_t)MIN((ns + 999) / 1000, (int64_t)UINT32_MAX);
}

/* What another session reads of a block of ours after its write of seq was acknowledged. False if the lane is not ours alone any more. */
static bool check_block(struct tester *t, const uint8_t *block, uint64_t offset, uint64_t want, const char *where)
{
	struct voltest_notes *problems = &t->x->problems;
	uint64_t seq = 0;

	switch (voltest_block_check(block, FORMAT_BLOCK, t->tag, offset, &seq)) {
	case VOLTEST_WHOLE:
		if (seq < want)
			voltest_note(problems, "%s: an acknowledged write was not there when another session read it: an old copy was served", where);
		return true;
	case VOLTEST_OTHER:
		voltest_note(problems, "%s: another test's block in a place that this test had taken: somebody else is testing there, or writes are misdirected",
			     where);
		return false;
	case VOLTEST_MISPLACED:
		voltest_note(problems, "%s: a test's block that belongs to another place: writes are misdirected", where);
		return false;
	case VOLTEST_BLANK:
		voltest_note(problems, "%s: an acknowledged write was gone when another session read its block", where);
		return false;
	case VOLTEST_UNKNOWN:
		voltest_note(problems, "%s: an acknowledged write read back as something else: somebody writes there, or data rots", where);
		return false;
	case VOLTEST_MIXED:
	case VOLTEST_MIXED_FIRST: /* nobody wrote when this was read */
		voltest_note(problems, "%s: an acknowledged write reads as a mix of two", where);
		return true;
	}
	return true;
}

enum lane_result { LANE_OURS, LANE_TAKEN, LANE_FAILED };

static enum lane_result lane_claim(struct tester *t, unsigned lane)
{
	uint8_t block[FORMAT_BLOCK];
	uint64_t seq = 0;
	enum volume_result r;
	enum voltest_block kind;

	t->lane = FORMAT_SCRATCH_OFFSET + (uint64_t)lane * LANE_LEN;
	voltest_block_fill(block, sizeof(block), t->tag, ++t->seq, t->lane);
	r = put_block(t, 0, block, NULL);
	if (r == VOLUME_E_READONLY || r == VOLUME_E_NOSPACE) {
		voltest_note(&t->x->problems, r == VOLUME_E_READONLY ? "read-only" : "no space: writes are refused");
		t->may_write = false;
		return LANE_FAILED;
	}
	t->has_lane = t->dirty != 0;
	if (r != VOLUME_OK) {
		(void)failed(t, "the first write", r);
		return LANE_FAILED;
	}
	pause_until(t, clock_now_ns() + SETTLE_MS * NS_PER_MS);
	r = transfer(t, &t->reader, t->lane, block, sizeof(block), false, NULL);
	if (r != VOLUME_OK) {
		(void)failed(t, "reading the first write by the other session", r);
		return LANE_FAILED;
	}
	kind = voltest_block_check(block, sizeof(block), t->tag, t->lane, &seq);
	if (kind == VOLTEST_WHOLE && seq == t->seq)
		return LANE_OURS;
	if (kind == VOLTEST_OTHER) {
		t->has_lane = false; /* theirs now; they put it back */
		t->dirty = 0;
		return LANE_TAKEN;
	}
	(void)check_block(t, block, t->lane, t->seq, "after the first write");
	return LANE_FAILED;
}

/* Lanes whose tests were killed. Only what did not move for seconds is taken for that. */
static bool sweep_wanted(const struct voltest_run *x) { return x->content == VOLTEST_CONTENT_BLANK || x->content == VOLTEST_CONTENT_CLUSTER; }

static bool lane_take(struct tester *t)
{
	unsigned start = (unsigned)(t->tag % LANES);

	for (unsigned i = 0; i < LANES && !interrupted; i++) {
		unsigned lane = (start + i) % LANES;

		if (transfer(t, &t->writer, FORMAT_SCRATCH_OFFSET + (uint64_t)lane * LANE_LEN, t->area + (size_t)lane * LANE_LEN, LANE_LEN, false, NULL) !=
		    VOLUME_OK)
			return failed(t, "reading its scratch area", VOLUME_E_IO);
		if (lane_holds_test(t->area, lane))
			continue;
		switch (lane_claim(t, lane)) {
		case LANE_OURS:
			return true;
		case LANE_FAILED:
			return false;
		case LANE_TAKEN:
			break;
		}
	}
	if (!interrupted)
		voltest_note(&t->x->problems, "all %u lanes of its scratch area hold blocks of other tests; a test that ends clears what killed ones left",
			     LANES);
	return false;
}

/* No block of ours may turn up in a superblock or a heartbeat slot. */
static void check_table(struct tester *t, const uint8_t *table)
{
	for (uint32_t at = 0; at + FORMAT_BLOCK <= t->x->table_len; at += FORMAT_BLOCK)
		if (is_test_block(table + at, at))
			voltest_note(&t->x->problems, "a block of a test was found in the table, at byte %" PRIu32 ": writes are misdirected", at);
}

static void round_write(struct tester *t, bool *ret_written)
{
	uint8_t block[FORMAT_BLOCK];
	enum volume_result r;
	int64_t ns;

	while (t->block < ROUND_BLOCKS && t->unresolved & 1U << t->block)
		t->block++;
	if (t->block == ROUND_BLOCKS) {
		voltest_note(&t->x->problems, "%u writes were never answered; writing was stopped there", ROUND_BLOCKS);
		t->may_write = false;
		return;
	}
	voltest_block_fill(block, sizeof(block), t->tag, ++t->seq, t->lane + (uint64_t)t->block * FORMAT_BLOCK);
	r = put_block(t, t->block, block, &ns);
	samples_add(&t->x->write, r, ns);
	*ret_written = r == VOLUME_OK;
	if (r == VOLUME_E_READONLY || r == VOLUME_E_NOSPACE)
		voltest_note(&t->x->problems, "writes are refused: %s", volume_result_name(r));
}

/* What the other session reads of the block that was written. ret_ns: how long that took. */
static enum volume_result round_verify(struct tester *t, int64_t *ret_ns)
{
	uint64_t offset = t->lane + (uint64_t)t->block * FORMAT_BLOCK;
	uint8_t block[FORMAT_BLOCK];
	enum volume_result r;

	if (volume_state(t->reader.volume) != VOLUME_READY)
		return VOLUME_E_NOT_READY; /* seen as a lost session */
	r = transfer(t, &t->reader, offset, block, sizeof(block), false, ret_ns);
	if (r == VOLUME_OK && !check_block(t, block, offset, t->seq, "after a heartbeat"))
		t->may_write = false;
	return r;
}

static void measure(struct tester *t)
{
	struct voltest_run *x = t->x;
	int64_t begin = clock_now_ns(), end = begin + x->seconds * MS_PER_S * NS_PER_MS;
	uint8_t *table = malloc(BUF_LEN);

	CHECK(table);
	while (!interrupted && clock_now_ns() < end) {
		int64_t start = clock_now_ns(), ns, other_ns = 0;
		bool written = false;
		enum volume_result r, other;

		if (!wait_ready(t, &t->writer, end))
			break;
		if (t->may_write)
			round_write(t, &written);
		r = transfer(t, &t->writer, 0, table, x->table_len, false, &ns);
		if (r == VOLUME_OK)
			check_table(t, table);
		x->rounds += r == VOLUME_OK && (written || !t->has_lane);
		other = written ? round_verify(t, &other_ns) : VOLUME_E_NOT_READY;
		if (r == VOLUME_OK && other == VOLUME_OK)
			ns = MAX(ns, other_ns); /* a round's read: the slower of the two sessions' */
		else
			samples_add(&x->read, other, other_ns);
		samples_add(&x->read, r, ns);
		pause_until(t, MIN(start + PACE_MS * NS_PER_MS, end));
	}
	x->elapsed_ms = (uint32_t)((clock_now_ns() - begin) / NS_PER_MS);
	free(table);
}

/* One block, written and read at the same time over two sessions. After a mix the writer rests until a read that was sent with no write under
 * way tells whether it lasts. */
struct duel {
	struct tester *t;
	uint64_t offset, acknowledged, expected; /* expected: acknowledged when the read was sent */
	int64_t until_ns;
	bool writing, reading, is_spoilt;
	bool wants_quiet; /* the writer shall rest */
	bool was_quiet;   /* it rested when the read was sent */
};

static bool duel_goes_on(const struct duel *d) { return !interrupted && !d->is_spoilt && clock_now_ns() < d->until_ns; }

static void duel_write(struct duel *d)
{
	struct op *op = d->t->writer.op;

	d->writing = true;
	voltest_block_fill(op->io.buf, FORMAT_BLOCK, d->t->tag, ++d->t->seq, d->offset);
	op_send(&d->t->writer, op, d->offset, FORMAT_BLOCK, true);
}

static void duel_send_read(struct duel *d)
{
	d->reading = true;
	d->expected = d->acknowledged;
	d->was_quiet = !d->writing;
	op_send(&d->t->reader, d->t->reader.op, d->offset, FORMAT_BLOCK, false);
}

static void duel_written(struct op *op)
{
	struct duel *d = op->user;

	d->writing = false;
	if (op->result == VOLUME_OK) {
		d->t->x->mixes.writes++;
		d->acknowledged = d->t->seq;
		if (duel_goes_on(d) && !d->wants_quiet)
			duel_write(d);
	} else
		d->is_spoilt = true;
	qb_loop_stop(d->t->loop);
}

static void duel_look(struct duel *d, const uint8_t *block)
{
	struct voltest_mixes *m = &d->t->x->mixes;
	uint64_t seq = 0;
	enum voltest_block kind = voltest_block_check(block, FORMAT_BLOCK, d->t->tag, d->offset, &seq);
	bool mixed = kind == VOLTEST_MIXED || kind == VOLTEST_MIXED_FIRST;

	if (d->was_quiet) {
		m->lasting += mixed;
		d->wants_quiet = false;
	} else {
		m->reads++;
		if (!d->wants_quiet) { /* else this write's mix is counted */
			m->mixed += mixed;
			m->mixed_first += kind == VOLTEST_MIXED_FIRST;
		}
		d->wants_quiet = mixed || d->wants_quiet;
	}
	if (!mixed && !check_block(d->t, block, d->offset, d->expected, "beside writes"))
		d->is_spoilt = true;
}

/* Goes on until the writer has ended and nothing is left to be looked at. */
static void duel_read(struct op *op)
{
	struct duel *d = op->user;

	d->reading = false;
	if (op->result == VOLUME_OK) {
		duel_look(d, op->io.buf);
		if (d->writing || (d->wants_quiet && !d->is_spoilt))
			duel_send_read(d);
		else if (duel_goes_on(d)) {
			duel_write(d);
			duel_send_read(d);
		}
	} else
		d->is_spoilt = true;
	qb_loop_stop(d->t->loop);
}

/* An operation that ended with nobody knowing has no settled to wait for. */
static bool is_over(const struct op *op, bool under_way) { return !under_way || (op->is_done && is_unknown(op->result)); }

static void give_up(struct session *s)
{
	if (s->op->is_settled)
		return;
	s->op->is_orphan = true;
	s->op = NULL;
}

static void duel(struct tester *t)
{
	uint32_t ms = MIN(MAX(t->x->seconds * 1000 / 6, ATOMIC_MS_MIN), ATOMIC_MS_MAX);
	struct duel d = { .t = t, .offset = t->lane + (uint64_t)ATOMIC_BLOCK * FORMAT_BLOCK };
	uint8_t block[FORMAT_BLOCK];
	struct op *w, *r;

	voltest_block_fill(block, sizeof(block), t->tag, ++t->seq, d.offset);
	if (interrupted || put_block(t, ATOMIC_BLOCK, block, NULL) != VOLUME_OK || volume_state(t->reader.volume) != VOLUME_READY)
		return; /* mixes with what was there before would mean nothing */
	d.acknowledged = t->seq;
	d.until_ns = clock_now_ns() + ms * NS_PER_MS;
	w = op_of(t, &t->writer);
	r = op_of(t, &t->reader);
	w->user = r->user = &d;
	w->then = duel_written;
	r->then = duel_read;
	duel_write(&d);
	duel_send_read(&d);
	while (!is_over(w, d.writing) || !is_over(r, d.reading))
		qb_loop_run(t->loop);
	d.is_spoilt = true; /* nothing more is sent from callbacks */
	if (is_unknown(w->result))
		t->unresolved |= 1U << ATOMIC_BLOCK;
	if (w->result != VOLUME_OK || r->result != VOLUME_OK)
		voltest_note(&t->x->problems, "reading and writing a block at the same time failed: %s",
			     volume_result_name(w->result != VOLUME_OK ? w->result : r->result));
	give_up(&t->writer);
	give_up(&t->reader);
}

/* Whether what was written in the lane is as it was before. */
static bool lane_is_back(struct tester *t, uint8_t *buf, const uint8_t *want)
{
	if (!wait_ready(t, &t->reader, clock_now_ns() + OPEN_MS * NS_PER_MS) ||
	    transfer(t, &t->reader, t->lane, buf, LANE_LEN, false, NULL) != VOLUME_OK)
		return false;
	for (unsigned b = 0; b < LANE_BLOCKS; b++)
		if (t->dirty & 1U << b && memcmp(buf + b * FORMAT_BLOCK, want + b * FORMAT_BLOCK, FORMAT_BLOCK) != 0)
			return false;
	return true;
}

static bool lane_write_back(struct tester *t, const uint8_t *want)
{
	for (unsigned b = 0; b < LANE_BLOCKS; b++)
		if (t->dirty & 1U << b && transfer(t, &t->writer, t->lane + (uint64_t)b * FORMAT_BLOCK, (void *)(want + b * FORMAT_BLOCK), FORMAT_BLOCK,
						   true, NULL) != VOLUME_OK)
			return false;
	return true;
}

/* buf: the lane as it is now. Whoever took the lane from us puts it back himself. */
static bool lane_is_ours(struct tester *t, const uint8_t *buf)
{
	for (unsigned b = 0; b < LANE_BLOCKS; b++) {
		uint64_t seq, offset = t->lane + (uint64_t)b * FORMAT_BLOCK;

		if (t->dirty & 1U << b && voltest_block_check(buf + b * FORMAT_BLOCK, FORMAT_BLOCK, t->tag, offset, &seq) == VOLTEST_OTHER)
			return false;
	}
	return true;
}

static void restore(struct tester *t)
{
	const uint8_t *want = t->area + (t->lane - FORMAT_SCRATCH_OFFSET);
	uint8_t *buf = malloc(LANE_LEN);
	bool back = false;

	CHECK(buf);
	interrupted = 0; /* another signal only ends waits in here early */
	for (unsigned i = 0; i < RESTORE_TRIES && !back; i++) {
		if (!wait_ready(t, &t->writer, clock_now_ns() + OPEN_MS * NS_PER_MS) ||
		    transfer(t, &t->writer, t->lane, buf, LANE_LEN, false, NULL) != VOLUME_OK)
			continue;
		if (!lane_is_ours(t, buf))
			break;
		if (t->unresolved || i > 0) /* late writes */
			pause_until(t, clock_now_ns() + t->x->drain_ms * NS_PER_MS);
		back = lane_write_back(t, want) && lane_is_back(t, buf, want);
	}
	if (!back)
		voltest_note(&t->x->problems, "bytes %" PRIu64 " to %" PRIu64 " could not be put back as they were (%s); they hold nothing but blocks of this test",
			     t->lane, t->lane + LANE_LEN - 1, t->x->content == VOLTEST_CONTENT_FOREIGN ? "what you forced to be overwritten" : "zeroes");
	free(buf);
}

/* Clears lanes of tests that were killed: what holds a test's blocks and did not change from our start to our end. */
static void sweep(struct tester *t)
{
	static const uint8_t zero[FORMAT_BLOCK];
	uint8_t *now = malloc(FORMAT_SCRATCH_LEN);
	unsigned swept = 0;

	CHECK(now);
	if (transfer(t, &t->writer, FORMAT_SCRATCH_OFFSET, now, FORMAT_SCRATCH_LEN, false, NULL) == VOLUME_OK)
		for (unsigned lane = 0; lane < LANES; lane++) {
			uint32_t from = lane * LANE_LEN;

			if (FORMAT_SCRATCH_OFFSET + from == t->lane || !lane_holds_test(now, lane) || memcmp(now + from, t->area + from, LANE_LEN) != 0)
				continue;
			swept++;
			for (uint32_t at = from; at < from + LANE_LEN; at += FORMAT_BLOCK)
				if (!all_zero(now + at, FORMAT_BLOCK))
					(void)transfer(t, &t->writer, FORMAT_SCRATCH_OFFSET + at, (void *)zero, FORMAT_BLOCK, true, NULL);
		}
	if (swept > 0)
		voltest_note(&t->x->warnings, "%u lane%s of its scratch area held blocks of a test that was killed: cleared", swept, swept == 1 ? "" : "s");
	free(now);
}

static void ask_target(struct tester *t)
{
	uint64_t offset = t->lane + (uint64_t)PROBE_BLOCK * FORMAT_BLOCK;
	uint8_t block[FORMAT_BLOCK];
	bool has_block = false;

	if (t->has_lane) {
		voltest_block_fill(block, sizeof(block), t->tag, ++t->seq, offset);
		has_block = put_block(t, PROBE_BLOCK, block, NULL) == VOLUME_OK;
	}
	probe_volume(t->x->url, t->x->secret_file, has_block ? block : NULL, offset, PROBE_MS, &t->x->probe);
}

#define SWEEP_SECONDS_MIN 10 /* a test that lives writes many times in this */

static void run(struct tester *t)
{
	struct voltest_run *x = t->x;

	if (!open_session(t, &t->writer) || !open_session(t, &t->reader))
		return;
	x->opened = true;
	x->size = volume_size(t->writer.volume);
	if (x->size < FORMAT_TABLE_OFFSET) {
		voltest_note(&x->problems, "only %" PRIu64 " bytes long", x->size);
		return;
	}
	if (!look(t))
		return;
	if (t->may_write && !lane_take(t))
		t->may_write = false;
	ask_target(t);
	measure(t);
	if (t->has_lane && t->may_write)
		duel(t);
	x->interrupted = interrupted;
	if (t->has_lane)
		restore(t);
	if (t->has_lane && sweep_wanted(x) && x->elapsed_ms >= SWEEP_SECONDS_MIN * 1000)
		sweep(t);
	x->sessions_lost = t->writer.lost + t->reader.lost;
	if (x->sessions_lost > 0)
		voltest_note(&x->problems, "sessions were lost, %" PRIu32 " in all; the last: %s", x->sessions_lost,
			     *t->writer.reason ? t->writer.reason : t->reader.reason);
}

static void session_close(struct session *s)
{
	if (s->volume)
		volume_close(s->volume);
	if (s->op)
		op_free(s->op);
}

void voltest_run(struct voltest_run *x)
{
	struct sigaction action = { .sa_handler = on_signal }, old[3];
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct tester t = { .x = x };
	uint8_t random[16];

	CHECK(uuid_random(random) == 0);
	memcpy(&t.tag, random, sizeof(t.tag));
	t.area = calloc(1, FORMAT_SCRATCH_LEN);
	t.loop = qb_loop_create();
	CHECK(t.area && t.loop);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		(void)sigaction(signals[i], &action, &old[i]);
	on_tick(&t);
	run(&t);
	x->interrupted |= interrupted;
	session_close(&t.writer);
	session_close(&t.reader);
	(void)qb_loop_timer_del(t.loop, t.tick);
	/* the loop stays: a worker of a path that hangs may still hold a reference into it */
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		(void)sigaction(signals[i], &old[i], NULL);
	free(t.area);
}
