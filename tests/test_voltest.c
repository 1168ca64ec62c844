/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>

#include "agent/voltest.h"
#include "tests/tap.h"

#define BLOCK 4096U
#define TAG 0x0123456789abcdefULL
#define PLACE 6295552ULL

static void test_percentiles(void)
{
	static const struct { size_t n; unsigned percent; uint32_t want; } table[] = {
		/* of 1, 2, .. n */
		{ 1, 50, 1 }, { 1, 99, 1 }, { 2, 50, 1 }, { 3, 50, 2 }, { 4, 50, 2 }, { 99, 99, 99 }, { 100, 99, 99 }, { 101, 99, 100 },
		{ 100, 50, 50 }, { 100, 100, 100 }, { 100, 1, 1 }, { 200, 99, 198 }, { 1000, 99, 990 }, { 1001, 99, 991 }, { 4321, 99, 4278 },
	};
	static uint32_t us[5000];
	struct voltest_summary s = { .errors = 3, .timeouts = 4 };

	for (uint32_t i = 0; i < ARRAY_SIZE(us); i++)
		us[i] = i + 1;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		TAP_OK(voltest_percentile(us, table[i].n, table[i].percent) == table[i].want, "%u %% of 1 to %zu is %u", table[i].percent, table[i].n,
		       table[i].want);
	for (uint32_t i = 0; i < ARRAY_SIZE(us); i++)
		us[i] = (i * 1237 + 11) % 5000; /* each of 0 to 4999 once: 1237 and 5000 have no common divisor */
	voltest_summarise(us, ARRAY_SIZE(us), &s);
	TAP_OK(s.n == 5000 && s.median_us == 2499 && s.p99_us == 4949 && s.worst_us == 4999, "a shuffled series");
	TAP_OK(s.errors == 3 && s.timeouts == 4, "errors are left as they are");
	us[0] = UINT32_MAX;
	us[1] = 0;
	voltest_summarise(us, 2, &s);
	TAP_OK(s.median_us == 0 && s.worst_us == UINT32_MAX, "values far apart are sorted right");
	voltest_summarise(us, 0, &s);
	TAP_OK(s.n == 0 && s.median_us == 0 && s.worst_us == 0, "nothing measured");
}

static struct voltest_summary summary(uint32_t p99_us, uint32_t worst_us)
{
	return (struct voltest_summary){ .n = 3000, .median_us = p99_us / 2, .p99_us = p99_us, .worst_us = worst_us };
}

/* fast has IO 500 ms, standard 1250, safe 4000; worst counts twice, the 99th percentile four times */
static const struct {
	uint32_t write_p99, write_worst, read_p99, read_worst;
	bool fast, standard, safe;
	uint32_t needed_ms;
} judged[] = {
	{ 300, 2000, 500, 3000, true, true, true, 50 },
	{ 125000, 250000, 125000, 250000, true, true, true, 500 },
	{ 125001, 250000, 1, 1, false, true, true, 501 },
	{ 1, 250001, 1, 1, false, true, true, 501 },
	{ 1, 1, 125001, 125001, false, true, true, 501 },
	{ 1, 1, 1, 250001, false, true, true, 501 },
	{ 1, 625000, 312500, 400000, false, true, true, 1250 },
	{ 1, 625001, 1, 1, false, false, true, 1251 },
	{ 1, 1, 1000000, 1000000, false, false, true, 4000 },
	{ 1, 2000000, 1, 1, false, false, true, 4000 },
	{ 1, 2000001, 1, 1, false, false, false, 4001 },
	{ 1, 1, 1, UINT32_MAX, false, false, false, 8589935 },
};

static void test_profiles(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(judged); i++) {
		struct voltest_summary w = summary(judged[i].write_p99, judged[i].write_worst), r = summary(judged[i].read_p99, judged[i].read_worst);
		const bool want[TIMING_PROFILE_COUNT] = { judged[i].fast, judged[i].standard, judged[i].safe };

		for (unsigned p = 0; p < TIMING_PROFILE_COUNT; p++) {
			struct voltest_verdict v;
			struct timing t;

			timing_of_profile((enum timing_profile)p, &t);
			voltest_judge(&t, timing_profile_name((enum timing_profile)p), &w, &r, &v);
			TAP_OK(v.fit == want[p] && v.fit == !*v.why && v.needed_io_ms == judged[i].needed_ms, "row %zu, %s: fit %d, IO %u: %s", i,
			       timing_profile_name((enum timing_profile)p), v.fit, v.needed_io_ms, v.why);
		}
	}
}

static void test_reasons(void)
{
	struct voltest_summary good = summary(100, 200), bad;
	struct voltest_verdict v;
	struct timing t;

	timing_of_profile(TIMING_FAST, &t);
	bad = summary(100, 250001);
	voltest_judge(&t, "fast", &bad, &good, &v);
	TAP_STR(v.why, "the worst write took 250.0 ms; 2 times that is more than IO of fast, 500 ms; IO=501ms would keep I7 (Watchdog >= Heartbeat + 3 IO)",
		"a little too slow: IO may be raised");
	bad = summary(100, 400000);
	voltest_judge(&t, "fast", &good, &bad, &v);
	TAP_STR(v.why, "the worst read took 400.0 ms; 2 times that is more than IO of fast, 500 ms; by I7 (Watchdog >= Heartbeat + 3 IO) IO=800ms takes "
		"Watchdog=3s", "too slow for the watchdog: that must follow");
	bad = summary(200000, 210000);
	voltest_judge(&t, "fast", &bad, &good, &v);
	TAP_OK(!v.fit && strstr(v.why, "one write in a hundred took 200.0 ms or more; 4 times that"), "the 99th percentile: %s", v.why);

	bad = good;
	bad.errors = 1;
	voltest_judge(&t, "fast", &good, &bad, &v);
	TAP_STR(v.why, "1 reads failed and 0 had no answer in time, of 3001", "one error is one too many");
	bad.errors = 0;
	bad.timeouts = 2;
	voltest_judge(&t, "fast", &bad, &good, &v);
	TAP_STR(v.why, "0 writes failed and 2 had no answer in time, of 3002", "so is a time-out");
	TAP_OK(!v.fit && v.needed_io_ms == 0, "no IO is said to bear it");
	bad = good;
	bad.n = VOLTEST_ROUNDS_MIN - 1;
	voltest_judge(&t, "fast", &good, &bad, &v);
	TAP_OK(!v.fit && strstr(v.why, "only 19 reads"), "too few to judge: %s", v.why);
	bad.n = VOLTEST_ROUNDS_MIN;
	voltest_judge(&t, "fast", &good, &bad, &v);
	TAP_OK(v.fit, "just enough");
	bad.n = 0;
	voltest_judge(&t, "fast", &bad, &good, &v);
	TAP_OK(!v.fit && strstr(v.why, "only 0 writes"), "no writes at all are no reason to call it fit");

	t.wd_ms = 1749; /* 250 + 3 * 500 = 1750 */
	voltest_judge(&t, "configured", &good, &good, &v);
	TAP_OK(!v.fit && strstr(v.why, "configured itself breaks I7"), "timings that break I7 fit no volume: %s", v.why);
	t.wd_ms = 1750;
	voltest_judge(&t, "configured", &good, &good, &v);
	TAP_OK(v.fit, "timings that just keep it do");
}

static void test_mixes(void)
{
	static const struct { struct voltest_mixes m; enum voltest_atomicity want; } table[] = {
		{ { 0 }, VOLTEST_UNTESTED },
		{ { 1000, 1000, 0, 0, 0 }, VOLTEST_ATOMIC },
		{ { 1000, 1000, 1000, 0, 0 }, VOLTEST_NOT_ATOMIC },
		{ { 1000, 1000, 3, 0, 1 }, VOLTEST_FATAL },
		{ { 1000, 0, 0, 0, 1 }, VOLTEST_FATAL },
		{ { 100, 100, 1, 1, 0 }, VOLTEST_NOT_ATOMIC }, /* one alone says nothing */
		{ { 700, 700, 2, 2, 0 }, VOLTEST_NOT_ATOMIC },
		{ { 1000, 1000, 7, 7, 0 }, VOLTEST_NOT_ATOMIC }, /* expected 1: 7 = 1 + 3 + 3 * sqrt(1) */
		{ { 1000, 1000, 8, 8, 0 }, VOLTEST_FATAL },
		{ { 1000, 1001, 8, 8, 0 }, VOLTEST_NOT_ATOMIC }, /* expected 2 */
		{ { 1000, 1000, 1000, 7, 0 }, VOLTEST_NOT_ATOMIC },
		{ { 9, 4000000000U, 4006003, 4006003, 0 }, VOLTEST_NOT_ATOMIC },
		{ { 9, 4000000000U, 4006004, 4006004, 0 }, VOLTEST_FATAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		TAP_OK(voltest_judge_mixes(&table[i].m) == table[i].want, "mixes, row %zu", i);
}

static enum voltest_block check(const uint8_t *block)
{
	uint64_t seq = 0;
	enum voltest_block kind = voltest_block_check(block, BLOCK, TAG, PLACE, &seq);

	return kind;
}

/* A block of write old whose bytes from..to are of write new. */
static enum voltest_block mix(uint64_t old, uint64_t new, size_t from, size_t to)
{
	static uint8_t a[BLOCK], b[BLOCK];

	voltest_block_fill(a, BLOCK, TAG, old, PLACE);
	voltest_block_fill(b, BLOCK, TAG, new, PLACE);
	memcpy(a + from, b + from, to - from);
	return check(a);
}

static void test_blocks(void)
{
	static uint8_t block[BLOCK], other[BLOCK];
	uint64_t seq = 0;
	bool all = true;

	TAP_OK(check(block) == VOLTEST_BLANK, "zeroes");
	voltest_block_fill(block, BLOCK, TAG, 77, PLACE);
	TAP_OK(voltest_block_check(block, BLOCK, TAG, PLACE, &seq) == VOLTEST_WHOLE && seq == 77, "what was filled is whole, and says which write");
	TAP_OK(voltest_block_check(block, BLOCK, TAG + 1, PLACE, &seq) == VOLTEST_OTHER, "to another test it is another's");
	TAP_OK(voltest_block_check(block, BLOCK, TAG, PLACE + BLOCK, &seq) == VOLTEST_MISPLACED, "in another place it is misplaced");
	TAP_OK(voltest_block_check(block, BLOCK, TAG + 1, PLACE + BLOCK, &seq) == VOLTEST_MISPLACED, "also to another test");

	TAP_OK(mix(2, 3, 0, BLOCK) == VOLTEST_WHOLE, "all of the new write");
	TAP_OK(mix(2, 3, 0, 512) == VOLTEST_MIXED, "its first sector only");
	TAP_OK(mix(2, 3, 512, BLOCK) == VOLTEST_MIXED, "all but the first sector");
	TAP_OK(mix(2, 4, 2048, 2560) == VOLTEST_MIXED, "a sector of a write of the same pattern");
	TAP_OK(mix(2, 3, BLOCK - 32, BLOCK) == VOLTEST_MIXED, "the last 32 bytes");
	TAP_OK(mix(2, 3, 256, 512) == VOLTEST_MIXED_FIRST, "half of the first sector");
	TAP_OK(mix(2, 3, 256, BLOCK) == VOLTEST_MIXED_FIRST, "all but half of the first sector");
	TAP_OK(mix(2, 3, 0, 32) == VOLTEST_MIXED_FIRST, "the first 32 bytes");
	for (size_t at = 8; at < BLOCK - 8; at += 8) {
		size_t visible = at % VOLTEST_UNIT == 24 ? at + 8 : at; /* the last 8 bytes of a unit are its place: the same in both */
		enum voltest_block want = visible < VOLTEST_SECTOR ? VOLTEST_MIXED_FIRST : VOLTEST_MIXED;

		all = all && mix(8, 9, at, BLOCK) == want && mix(9, 8, at, BLOCK) == want;
	}
	TAP_OK(all, "a mix shows wherever it begins");

	voltest_block_fill(other, BLOCK, TAG + 5, 1, PLACE);
	memcpy(block + 1024, other + 1024, 512);
	TAP_OK(check(block) == VOLTEST_OTHER, "a mix with another test's write is no lack of atomicity");
	memset(block + 3000, 'x', 40);
	TAP_OK(check(block) == VOLTEST_UNKNOWN, "bytes of nobody are worse");
	voltest_block_fill(block, BLOCK, TAG, 1, PLACE);
	memset(block + 512, 0, BLOCK - 512);
	TAP_OK(check(block) == VOLTEST_MIXED, "a write that ends in zeroes");
	memset(block, 0, 512);
	voltest_block_fill(block + 512, 512, TAG, 1, PLACE);
	TAP_OK(check(block) == VOLTEST_MIXED, "a write that begins with zeroes");
	memset(block, 'x', BLOCK);
	TAP_OK(check(block) == VOLTEST_UNKNOWN, "something else");
}

int main(void)
{
	test_percentiles();
	test_profiles();
	test_reasons();
	test_mixes();
	test_blocks();
	return tap_done();
}
