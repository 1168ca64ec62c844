/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/slot.h"

#include "agent/base/mutant.h"

static void slot_move(struct slot *s, enum slot_state to)
{
	static const uint8_t allowed[] = {
		[SLOT_IDLE] = 1 << SLOT_WRITING,
		[SLOT_WRITING] = 1 << SLOT_IDLE | 1 << SLOT_UNKNOWN,
		[SLOT_UNKNOWN] = 1 << SLOT_IDLE | 1 << SLOT_DESTROYED,
		[SLOT_DESTROYED] = 1 << SLOT_IDLE | 1 << SLOT_DRAINING,
		[SLOT_DRAINING] = 1 << SLOT_IDLE,
	};

	CHECK(allowed[s->state] & (1 << to));
	s->state = to;
}

void slot_init(struct slot *s, int64_t now_ns)
{
	*s = (struct slot){ .state = MUTANT(STARTS_WRITING_AT_ONCE) ? SLOT_IDLE : SLOT_DESTROYED, .since_ns = now_ns };
}

bool slot_writable(const struct slot *s) { return s->state == SLOT_IDLE; }

void slot_written(struct slot *s, uint32_t epoch, uint64_t seq)
{
	slot_move(s, SLOT_WRITING);
	s->writing_epoch = epoch;
	s->writing_seq = seq;
}

void slot_done(struct slot *s, bool ok, bool definite)
{
	if (s->state != SLOT_WRITING)
		return;
	if (ok && !MUTANT(ONE_BUFFER))
		s->buffer ^= 1;
	slot_move(s, ok || definite || MUTANT(REISSUED) ? SLOT_IDLE : SLOT_UNKNOWN);
}

void slot_settled(struct slot *s, bool completed, int64_t now_ns)
{
	if (s->state != SLOT_UNKNOWN)
		return; /* ended by done already, or read back */
	if (completed) {
		slot_move(s, SLOT_IDLE);
		return;
	}
	slot_move(s, SLOT_DESTROYED);
	s->since_ns = now_ns;
	if (MUTANT(SLOT_NOT_PROBED))
		slot_move(s, SLOT_DRAINING);
}

void slot_read(struct slot *s, int newest, uint32_t epoch, uint64_t seq, int64_t issued_ns, int64_t now_ns)
{
	if (s->state == SLOT_IDLE || s->state == SLOT_WRITING)
		return;
	if (newest >= 0 && s->writing_seq != 0 && epoch == s->writing_epoch && seq == s->writing_seq) {
		s->buffer = (unsigned)newest ^ 1;
		slot_move(s, SLOT_IDLE); /* it landed: nothing of it is left on the way */
		return;
	}
	if (s->state != SLOT_DESTROYED || issued_ns < s->since_ns)
		return;
	if (newest >= 0)
		s->buffer = (unsigned)newest ^ 1;
	s->since_ns = now_ns;
	slot_move(s, SLOT_DRAINING);
}

int64_t slot_tick(struct slot *s, int64_t now_ns, int64_t drain_ns)
{
	if (s->state != SLOT_DRAINING)
		return INT64_MAX;
	if (now_ns - s->since_ns < drain_ns && !MUTANT(SLOT_NOT_DRAINED))
		return s->since_ns + drain_ns;
	slot_move(s, SLOT_IDLE);
	return INT64_MAX;
}

const char *slot_state_name(enum slot_state s)
{
	static const char *const name[] = { "idle", "writing", "unknown", "destroyed", "draining" };

	return (size_t)s < ARRAY_SIZE(name) ? name[s] : "unknown";
}
