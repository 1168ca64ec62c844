/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every path of the diagram in storage/slot.h, as lists of steps: what happens, and the state and buffer that must follow. */
#include "storage/slot.h"
#include "tests/tap.h"

#define DRAIN 500

enum step_kind { WRITTEN, DONE_OK, DONE_REFUSED, DONE_UNKNOWN, SETTLED_COMPLETED, SETTLED_DESTROYED, READ, TICK };

struct step {
	enum step_kind kind;
	int64_t now;
	enum slot_state state;
	unsigned buffer;
	/* WRITTEN and READ */
	uint32_t epoch;
	uint64_t seq;
	/* READ */
	int newest;
	int64_t issued;
};

struct path {
	const char *name;
	bool known; /* the first steps of a writer that knows its block are skipped: it begins IDLE with buffer 0 */
	struct step step[12];
	unsigned n;
};

static const struct path paths[] = {
	{ "a new writer reads first, waits T_drain, and writes over the older buffer", false, {
		{ TICK, 5000, SLOT_DESTROYED, 0, 0, 0, 0, 0 },
		{ READ, 1010, SLOT_DRAINING, 1, 4, 70, 0, 1005 },
		{ TICK, 1010 + DRAIN - 1, SLOT_DRAINING, 1, 0, 0, 0, 0 },
		{ TICK, 1010 + DRAIN, SLOT_IDLE, 1, 0, 0, 0, 0 },
	}, 4 },
	{ "a probe issued before the writer started proves nothing", false, {
		{ READ, 1010, SLOT_DESTROYED, 0, 4, 70, 0, 999 },
		{ READ, 1020, SLOT_DRAINING, 0, 4, 70, 1, 1000 },
	}, 2 },
	{ "neither buffer readable: drained all the same", false, {
		{ READ, 1010, SLOT_DRAINING, 0, 0, 0, -1, 1005 },
		{ TICK, 1010 + DRAIN, SLOT_IDLE, 0, 0, 0, 0, 0 },
	}, 2 },
	{ "a new writer does not take a virgin block for its own", false, {
		{ READ, 1010, SLOT_DRAINING, 1, 0, 0, 0, 1005 },
	}, 1 },
	{ "writes alternate between the buffers", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_OK, 2001, SLOT_IDLE, 1, 0, 0, 0, 0 },
		{ SETTLED_COMPLETED, 2001, SLOT_IDLE, 1, 0, 0, 0, 0 },
		{ WRITTEN, 2002, SLOT_WRITING, 1, 5, 2, 0, 0 },
		{ DONE_OK, 2003, SLOT_IDLE, 0, 0, 0, 0, 0 },
	}, 5 },
	{ "a refused write leaves the good buffer alone", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_REFUSED, 2001, SLOT_IDLE, 0, 0, 0, 0, 0 },
	}, 2 },
	{ "a read during a write changes nothing", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ READ, 2001, SLOT_WRITING, 0, 5, 1, 0, 2000 },
		{ SETTLED_DESTROYED, 2002, SLOT_WRITING, 0, 0, 0, 0, 0 },
		{ DONE_OK, 2003, SLOT_IDLE, 1, 0, 0, 0, 0 },
	}, 4 },
	{ "unknown, then completed after all", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_UNKNOWN, 2500, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ TICK, 99999, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ SETTLED_COMPLETED, 99999, SLOT_IDLE, 0, 0, 0, 0, 0 },
	}, 4 },
	{ "unknown, then read back: it landed, the other buffer is next", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_UNKNOWN, 2500, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ READ, 2600, SLOT_UNKNOWN, 0, 5, 0, 1, 2550 },
		{ READ, 2700, SLOT_UNKNOWN, 0, 4, 1, 1, 2650 },
		{ READ, 2800, SLOT_UNKNOWN, 0, 0, 0, -1, 2750 },
		{ READ, 2900, SLOT_IDLE, 1, 5, 1, 0, 2850 },
	}, 6 },
	{ "destroyed: a later probe, then T_drain, then the same buffer again", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_UNKNOWN, 2500, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ SETTLED_DESTROYED, 2500, SLOT_DESTROYED, 0, 0, 0, 0, 0 },
		{ READ, 2600, SLOT_DESTROYED, 0, 5, 0, 1, 2499 },
		{ READ, 2700, SLOT_DRAINING, 0, 5, 0, 1, 2500 },
		{ SETTLED_COMPLETED, 2701, SLOT_DRAINING, 0, 0, 0, 0, 0 },
		{ TICK, 3199, SLOT_DRAINING, 0, 0, 0, 0, 0 },
		{ TICK, 3200, SLOT_IDLE, 0, 0, 0, 0, 0 },
	}, 8 },
	{ "destroyed, but it had landed: read back at once", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_UNKNOWN, 2500, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ SETTLED_DESTROYED, 2500, SLOT_DESTROYED, 0, 0, 0, 0, 0 },
		{ READ, 2600, SLOT_IDLE, 1, 5, 1, 0, 2400 },
	}, 4 },
	{ "it lands while T_drain passes", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_UNKNOWN, 2500, SLOT_UNKNOWN, 0, 0, 0, 0, 0 },
		{ SETTLED_DESTROYED, 2500, SLOT_DESTROYED, 0, 0, 0, 0, 0 },
		{ READ, 2600, SLOT_DRAINING, 0, 5, 0, 1, 2550 },
		{ READ, 2700, SLOT_IDLE, 1, 5, 1, 0, 2650 },
		{ TICK, 9999, SLOT_IDLE, 1, 0, 0, 0, 0 },
	}, 6 },
	{ "a second answer to a finished write is ignored", true, {
		{ WRITTEN, 2000, SLOT_WRITING, 0, 5, 1, 0, 0 },
		{ DONE_OK, 2001, SLOT_IDLE, 1, 0, 0, 0, 0 },
		{ DONE_UNKNOWN, 2002, SLOT_IDLE, 1, 0, 0, 0, 0 },
		{ SETTLED_DESTROYED, 2003, SLOT_IDLE, 1, 0, 0, 0, 0 },
	}, 4 },
};

static void take(struct slot *s, const struct step *st)
{
	switch (st->kind) {
	case WRITTEN:
		slot_written(s, st->epoch, st->seq);
		break;
	case DONE_OK:
	case DONE_REFUSED:
	case DONE_UNKNOWN:
		slot_done(s, st->kind == DONE_OK, st->kind != DONE_UNKNOWN);
		break;
	case SETTLED_COMPLETED:
	case SETTLED_DESTROYED:
		slot_settled(s, st->kind == SETTLED_COMPLETED, st->now);
		break;
	case READ:
		slot_read(s, st->newest, st->epoch, st->seq, st->issued, st->now);
		break;
	case TICK:
		(void)slot_tick(s, st->now, DRAIN);
		break;
	}
}

int main(void)
{
	struct slot s;

	for (size_t p = 0; p < ARRAY_SIZE(paths); p++) {
		unsigned i;

		slot_init(&s, 1000);
		if (paths[p].known)
			s = (struct slot){ .state = SLOT_IDLE };
		for (i = 0; i < paths[p].n; i++) {
			const struct step *st = &paths[p].step[i];

			take(&s, st);
			if (s.state != st->state || s.buffer != st->buffer || slot_writable(&s) != (s.state == SLOT_IDLE)) {
				printf("# step %u: %s, buffer %u\n", i + 1, slot_state_name(s.state), s.buffer);
				break;
			}
		}
		TAP_OK(i == paths[p].n, "%s", paths[p].name);
	}
	slot_init(&s, 1000);
	slot_read(&s, 0, 1, 1, 1000, 1100);
	TAP_OK(slot_tick(&s, 1200, DRAIN) == 1100 + DRAIN, "slot_tick says when to look again");
	TAP_OK(slot_tick(&s, 1100 + DRAIN, DRAIN) == INT64_MAX, "and that nothing is left to wait for");
	TAP_STR(slot_state_name(SLOT_DESTROYED), "destroyed", "states have names");
	TAP_STR(slot_state_name((enum slot_state)99), "unknown", "a state out of range has one, too");
	return tap_done();
}
