/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/trouble.h"

#define WINDOW 32U
#define SLOW_FROM 16 /* of WINDOW operations; */
#define SLOW_UNTIL 4 /* fewer than before, or it would come and go */

const char *volume_trouble_name(enum volume_trouble t)
{
	static const char *const names[VOLUME_TROUBLE_COUNT] = { "none", "slow", "failing", "read-only", "stale", "foreign", "degraded" };

	return (unsigned)t < VOLUME_TROUBLE_COUNT ? names[t] : "unknown";
}

static void begins(int64_t *since, int64_t now_ns)
{
	if (*since == 0)
		*since = now_ns;
}

static void count_slow(struct trouble *t, bool slow, int64_t now_ns)
{
	unsigned n;

	t->slow = t->slow << 1 | slow;
	t->n = MIN(t->n + 1, WINDOW);
	n = (unsigned)__builtin_popcount(t->slow);
	if (n >= SLOW_FROM)
		begins(&t->slow_ns, now_ns);
	else if (n <= SLOW_UNTIL)
		t->slow_ns = 0;
}

void trouble_operation(struct trouble *t, bool write, enum trouble_result r, uint64_t took_ms, uint32_t slow_ms, int64_t now_ns)
{
	count_slow(t, took_ms > slow_ms, now_ns);
	if (r == TROUBLE_RESULT_OK)
		t->failing_ns[write] = 0;
	else
		begins(&t->failing_ns[write], now_ns);
	if (write && r == TROUBLE_RESULT_READ_ONLY)
		begins(&t->read_only_ns, now_ns);
	else if (write && r == TROUBLE_RESULT_OK)
		t->read_only_ns = 0;
}

void trouble_volume(struct trouble *t, bool away, enum volume_trouble content, int64_t now_ns)
{
	if (away)
		begins(&t->away_ns, now_ns);
	else
		t->away_ns = 0;
	if (content != t->content)
		t->content_ns = now_ns;
	t->content = content;
}

void trouble_path(struct trouble *t, bool lost, int64_t now_ns)
{
	if (lost)
		begins(&t->path_ns, now_ns);
	else
		t->path_ns = 0;
}

/* The longest of what makes it failing; 0: nothing. */
static int64_t failing_since(const struct trouble *t)
{
	int64_t since = t->away_ns;

	for (unsigned w = 0; w < ARRAY_SIZE(t->failing_ns); w++)
		if (t->failing_ns[w] != 0 && (since == 0 || t->failing_ns[w] < since))
			since = t->failing_ns[w];
	return since;
}

bool trouble_judge(struct trouble *t, uint32_t failing_ms, int64_t now_ns)
{
	int64_t failing = failing_since(t), since = now_ns;
	enum volume_trouble now = VOLUME_WELL;

	if (t->content != VOLUME_WELL) {
		now = t->content;
		since = t->content_ns;
	} else if (t->read_only_ns != 0) {
		now = VOLUME_READ_ONLY;
		since = t->read_only_ns;
	} else if (failing != 0 && now_ns - failing >= (int64_t)failing_ms * NS_PER_MS) {
		now = VOLUME_FAILING;
		since = failing;
	} else if (t->slow_ns != 0) {
		now = VOLUME_SLOW;
		since = t->slow_ns;
	} else if (t->path_ns != 0 && now_ns - t->path_ns >= (int64_t)failing_ms * NS_PER_MS) {
		now = VOLUME_DEGRADED;
		since = t->path_ns;
	}
	if (now == t->now)
		return false;
	t->now = now;
	t->since_ns = since;
	return true;
}
