/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/voltest.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define MAGIC 0x54534554414856d8ULL /* not that of format.c: no keeper takes such a block for its own */

static int compare(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

uint32_t voltest_percentile(const uint32_t *sorted_us, size_t n, unsigned percent)
{
	CHECK(n > 0 && percent > 0 && percent <= 100);
	return sorted_us[(n / 100 * percent + (n % 100 * percent + 99) / 100) - 1];
}

void voltest_summarise(uint32_t *us, size_t n, struct voltest_summary *ret)
{
	ret->n = n;
	ret->median_us = ret->p99_us = ret->worst_us = 0;
	if (n == 0)
		return;
	qsort(us, n, sizeof(us[0]), compare);
	ret->median_us = voltest_percentile(us, n, 50);
	ret->p99_us = voltest_percentile(us, n, 99);
	ret->worst_us = us[n - 1];
}

static uint32_t needed_ms(uint32_t us, unsigned factor) { return (uint32_t)(((uint64_t)us * factor + US_PER_MS - 1) / US_PER_MS); }

_printf_(2, 3) static void unfit(struct voltest_verdict *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(v->why, sizeof(v->why), fmt, ap);
	va_end(ap);
	v->fit = false;
}

/* What I7 says if IO= were raised to what this volume needs: whether Watchdog= must follow. */
static void add_remedy(const struct timing *t, struct voltest_verdict *v)
{
	struct timing raised = *t;
	struct timing_rule_state s;
	size_t used = strlen(v->why);

	raised.io_ms = v->needed_io_ms;
	timing_rule_eval(&raised, TIMING_I7_FALSE_FENCE, &s);
	if (s.left >= s.right)
		(void)snprintf(v->why + used, sizeof(v->why) - used, "; IO=%" PRIu32 "ms would keep %s (%s)", v->needed_io_ms, s.name, s.text);
	else
		(void)snprintf(v->why + used, sizeof(v->why) - used, "; by %s (%s) IO=%" PRIu32 "ms takes Watchdog=%" PRIu64 "s", s.name, s.text,
			       v->needed_io_ms, (s.right + 999) / 1000);
}

/* Whether one kind of operation stays within T_io; else v->why says what does not. */
static bool within(const struct timing *t, const char *name, const char *what, const struct voltest_summary *s, struct voltest_verdict *v)
{
	if (needed_ms(s->worst_us, VOLTEST_WORST_FACTOR) > t->io_ms) {
		unfit(v, "the worst %s took %" PRIu32 ".%" PRIu32 " ms; %d times that is more than IO of %s, %" PRIu32 " ms", what, s->worst_us / 1000,
		      s->worst_us % 1000 / 100, VOLTEST_WORST_FACTOR, name, t->io_ms);
		return false;
	}
	if (needed_ms(s->p99_us, VOLTEST_P99_FACTOR) > t->io_ms) {
		unfit(v, "one %s in a hundred took %" PRIu32 ".%" PRIu32 " ms or more; %d times that is more than IO of %s, %" PRIu32 " ms", what,
		      s->p99_us / 1000, s->p99_us % 1000 / 100, VOLTEST_P99_FACTOR, name, t->io_ms);
		return false;
	}
	return true;
}

void voltest_judge(const struct timing *t, const char *name, const struct voltest_summary *write, const struct voltest_summary *read,
		   struct voltest_verdict *ret)
{
	const struct { const char *what; const struct voltest_summary *s; } kinds[] = { { "write", write }, { "read", read } };
	struct timing_rule_state i7;

	*ret = (struct voltest_verdict){ .fit = true };
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct voltest_summary *s = kinds[i].s;

		if (s->errors > 0 || s->timeouts > 0) {
			unfit(ret, "%" PRIu32 " %ss failed and %" PRIu32 " had no answer in time, of %zu", s->errors, kinds[i].what, s->timeouts,
			      s->n + s->errors + s->timeouts);
			return;
		}
		if (s->n < VOLTEST_ROUNDS_MIN) {
			unfit(ret, "only %zu %ss were measured; %d are the least to judge by", s->n, kinds[i].what, VOLTEST_ROUNDS_MIN);
			return;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		ret->needed_io_ms = MAX(ret->needed_io_ms, needed_ms(kinds[i].s->worst_us, VOLTEST_WORST_FACTOR));
		ret->needed_io_ms = MAX(ret->needed_io_ms, needed_ms(kinds[i].s->p99_us, VOLTEST_P99_FACTOR));
	}
	ret->needed_io_ms = MAX(ret->needed_io_ms, timing_values[TIMING_IO].min);
	for (size_t i = 0; i < ARRAY_SIZE(kinds) && ret->fit; i++)
		if (!within(t, name, kinds[i].what, kinds[i].s, ret))
			add_remedy(t, ret);
	/* IO within bounds is worth nothing if three of them do not fit between heartbeat and watchdog */
	timing_rule_eval(t, TIMING_I7_FALSE_FENCE, &i7);
	if (ret->fit && i7.left < i7.right)
		unfit(ret, "%s itself breaks %s: %s, but %" PRIu64 " is less than %" PRIu64 " %s", name, i7.name, i7.text, i7.left, i7.right, i7.unit);
}

/* Whether so many are more than chance makes of VOLTEST_MIXED_FIRST_PERMILLE: three standard deviations above what is to be expected, and three. */
static bool is_no_accident(uint32_t mixed_first, uint32_t reads)
{
	uint64_t expected = ((uint64_t)reads * VOLTEST_MIXED_FIRST_PERMILLE + 999) / 1000, over;

	if (mixed_first <= expected + 3)
		return false;
	over = mixed_first - expected - 3;
	return over * over > 9 * expected;
}

enum voltest_atomicity voltest_judge_mixes(const struct voltest_mixes *m)
{
	if (m->lasting > 0)
		return VOLTEST_FATAL;
	if (m->reads == 0)
		return VOLTEST_UNTESTED;
	if (is_no_accident(m->mixed_first, m->reads))
		return VOLTEST_FATAL;
	return m->mixed > 0 ? VOLTEST_NOT_ATOMIC : VOLTEST_ATOMIC;
}

struct unit {
	uint64_t magic, tag, seq, offset;
};
_Static_assert(sizeof(struct unit) == VOLTEST_UNIT, "a unit has no holes");

void voltest_block_fill(void *block, size_t len, uint64_t tag, uint64_t seq, uint64_t offset)
{
	/* every byte of a unit's first half differs between one write and the next, so that no mix can look whole */
	uint64_t flip = seq % 2 ? UINT64_MAX : 0;
	struct unit u = { .magic = MAGIC ^ flip, .tag = tag ^ flip, .seq = seq, .offset = offset };

	CHECK(len % sizeof(u) == 0);
	for (size_t at = 0; at < len; at += sizeof(u))
		memcpy((uint8_t *)block + at, &u, sizeof(u));
}

/* The worse the later: one bad unit decides over a block. */
enum unit_kind { UNIT_ZERO, UNIT_OURS, UNIT_OTHER, UNIT_MISPLACED, UNIT_UNKNOWN };

/* ret_torn: of ours, with parts of two writes in it. */
static enum unit_kind unit_look(const uint8_t *p, uint64_t tag, uint64_t offset, uint64_t *ret_seq, bool *ret_torn)
{
	static const struct unit zero;
	struct unit u;
	uint64_t flip;

	memcpy(&u, p, sizeof(u));
	*ret_seq = 0;
	*ret_torn = false;
	if (memcmp(&u, &zero, sizeof(u)) == 0)
		return UNIT_ZERO;
	if (u.magic != MAGIC && u.magic != ~MAGIC)
		return UNIT_UNKNOWN;
	if (u.offset != offset)
		return UNIT_MISPLACED;
	if (u.tag != tag && u.tag != ~tag)
		return UNIT_OTHER;
	flip = u.seq % 2 ? UINT64_MAX : 0;
	*ret_seq = u.seq;
	*ret_torn = u.magic != (MAGIC ^ flip) || u.tag != (tag ^ flip);
	return UNIT_OURS;
}

enum voltest_block voltest_block_check(const void *block, size_t len, uint64_t tag, uint64_t offset, uint64_t *ret_seq)
{
	static const enum voltest_block bad[] = { [UNIT_OTHER] = VOLTEST_OTHER, [UNIT_MISPLACED] = VOLTEST_MISPLACED, [UNIT_UNKNOWN] = VOLTEST_UNKNOWN };
	enum unit_kind worst = UNIT_ZERO, first = UNIT_ZERO, kind;
	uint64_t first_seq = 0, seq;
	enum voltest_block ret = VOLTEST_WHOLE;
	bool torn;

	for (size_t at = 0; at < len; at += VOLTEST_UNIT) {
		kind = unit_look((const uint8_t *)block + at, tag, offset, &seq, &torn);
		worst = MAX(worst, kind);
		if (at == 0) {
			first = kind;
			first_seq = seq;
		}
		if ((torn || kind != first || seq != first_seq) && ret == VOLTEST_WHOLE)
			ret = at < VOLTEST_SECTOR ? VOLTEST_MIXED_FIRST : VOLTEST_MIXED;
	}
	if (worst > UNIT_OURS)
		return bad[worst];
	if (worst == UNIT_ZERO)
		return VOLTEST_BLANK;
	if (ret == VOLTEST_WHOLE)
		*ret_seq = first_seq;
	return ret;
}
