/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a volume is said to suffer from: when each trouble begins, since when it is said to be there, what outranks what, and when it ends. */
#include "storage/trouble.h"
#include "tests/tap.h"

#define SLOW 100
#define FAILING 1000

static struct trouble t;
static int64_t now_ms;

static bool judge(void) { return trouble_judge(&t, FAILING, now_ms * NS_PER_MS); }
static bool is(enum volume_trouble what, int64_t since_ms) { return t.now == what && t.since_ns == since_ms * NS_PER_MS; }

static void begin(void)
{
	t = (struct trouble){ 0 };
	now_ms = 1000;
}

static void op(bool write, enum trouble_result r, uint64_t took_ms)
{
	now_ms += 10;
	trouble_operation(&t, write, r, took_ms, SLOW, now_ms * NS_PER_MS);
}

static void ops(unsigned n, enum trouble_result r, uint64_t took_ms)
{
	for (unsigned i = 0; i < n; i++)
		op(i % 2, r, took_ms);
}

static void volume(bool away, enum volume_trouble content) { trouble_volume(&t, away, content, now_ms * NS_PER_MS); }

static void slow(void)
{
	begin();
	ops(40, TROUBLE_RESULT_OK, SLOW);
	TAP_OK(!judge() && t.now == VOLUME_WELL, "as long as allowed is not slow");
	ops(15, TROUBLE_RESULT_OK, SLOW + 1);
	TAP_OK(!judge(), "15 slow ones of 32 are not yet it");
	ops(1, TROUBLE_RESULT_OK, SLOW + 1);
	TAP_OK(judge() && is(VOLUME_SLOW, now_ms), "half of the last 32 are");
	ops(20, TROUBLE_RESULT_OK, 1);
	TAP_OK(!judge() && t.now == VOLUME_SLOW, "it does not end as soon as fewer than half are");
	ops(12, TROUBLE_RESULT_OK, 1);
	TAP_OK(judge() && is(VOLUME_WELL, now_ms), "it ends when hardly any is");
}

static void failing(void)
{
	int64_t first;

	begin();
	op(true, TROUBLE_RESULT_FAILED, 1);
	first = now_ms;
	TAP_OK(!judge(), "one failed write is no trouble");
	op(false, TROUBLE_RESULT_OK, 1);
	now_ms = first + FAILING - 1;
	TAP_OK(!judge(), "nor is less than the limit, while reads work");
	now_ms++;
	TAP_OK(judge() && is(VOLUME_FAILING, first), "no write for so long is, since the first that failed");
	op(false, TROUBLE_RESULT_OK, 1);
	TAP_OK(!judge(), "a read does not end it");
	op(true, TROUBLE_RESULT_OK, 1);
	TAP_OK(judge() && t.now == VOLUME_WELL, "a write does");

	begin();
	volume(true, VOLUME_WELL);
	first = now_ms;
	now_ms += FAILING;
	volume(true, VOLUME_WELL);
	TAP_OK(judge() && is(VOLUME_FAILING, first), "no session for so long");
	volume(false, VOLUME_WELL);
	TAP_OK(judge() && t.now == VOLUME_WELL, "and a new one");

	/* Sessions that come and go, and nothing ever works on them. */
	begin();
	first = now_ms + 10;
	for (int i = 0; i < 60; i++) {
		volume(false, VOLUME_WELL);
		op(i % 2, TROUBLE_RESULT_FAILED, 1);
		volume(true, VOLUME_WELL);
		op(!(i % 2), TROUBLE_RESULT_FAILED, 1);
	}
	TAP_OK(judge() && is(VOLUME_FAILING, first), "sessions on which nothing works do not start it anew");
}

static void refused(void)
{
	int64_t first;

	begin();
	op(true, TROUBLE_RESULT_READ_ONLY, 1);
	first = now_ms;
	TAP_OK(judge() && is(VOLUME_READ_ONLY, first), "a refused write is told at once");
	op(false, TROUBLE_RESULT_OK, 1);
	now_ms += 5 * FAILING;
	TAP_OK(!judge(), "reads do not end it, and in time it is no other trouble");
	volume(false, VOLUME_STALE);
	first = now_ms;
	TAP_OK(judge() && is(VOLUME_STALE, first), "what it holds outranks it");
	now_ms += 100;
	volume(false, VOLUME_FOREIGN);
	TAP_OK(judge() && is(VOLUME_FOREIGN, now_ms), "stale, then another's: since it is that");
	first = now_ms;
	now_ms += 100;
	volume(true, VOLUME_FOREIGN);
	TAP_OK(!judge() && is(VOLUME_FOREIGN, first), "and it stays so without a session");
	volume(false, VOLUME_WELL);
	TAP_OK(judge() && t.now == VOLUME_READ_ONLY, "mended, what was there before is still there");
	op(true, TROUBLE_RESULT_OK, 1);
	TAP_OK(judge() && t.now == VOLUME_WELL, "until it takes a write");
}

static void path(void)
{
	begin();
	ops(2, TROUBLE_RESULT_OK, 1);
	trouble_path(&t, true, now_ms * NS_PER_MS);
	now_ms += FAILING - 1;
	trouble_path(&t, true, now_ms * NS_PER_MS);
	TAP_OK(!judge() && t.now == VOLUME_WELL, "a path is lost for less than it takes: not told");
	now_ms += 1;
	trouble_path(&t, true, now_ms * NS_PER_MS);
	TAP_OK(judge() && is(VOLUME_DEGRADED, now_ms - FAILING), "for as long: degraded, since it was lost");
	ops(20, TROUBLE_RESULT_OK, SLOW + 1);
	TAP_OK(judge() && t.now == VOLUME_SLOW, "slow is worse");
	ops(30, TROUBLE_RESULT_OK, 1);
	TAP_OK(judge() && t.now == VOLUME_DEGRADED, "then it is degraded still");
	trouble_path(&t, false, now_ms * NS_PER_MS);
	TAP_OK(judge() && t.now == VOLUME_WELL, "until the path is used again");
}

int main(void)
{
	path();
	slow();
	failing();
	refused();
	TAP_OK(streq(volume_trouble_name(VOLUME_READ_ONLY), "read-only") && streq(volume_trouble_name(VOLUME_TROUBLE_COUNT), "unknown"), "names");
	return tap_done();
}
