/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a target answers to PERSISTENT RESERVE IN, and one operation on a LUN that is told whatever the input says: it ends, registers nothing where it must not,
 * preempts no stranger, and is never well with a path it has not seen registered. First byte: operation and target, second: paths; then answers, each a status,
 * a length and so much data. */
#include "storage/reservation.h"
#include "tests/fuzz/fuzz.h"

#define KEY 0x0000aa0100000005ULL
#define MAX_COMMANDS 20000

struct input { const uint8_t *p; size_t left; };

static uint8_t next_byte(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

static void read_answer(struct input *in, enum reservation_command_kind kind, struct reservation_answer *a)
{
	size_t len;
	bool ok = true;

	a->status = (enum reservation_status)(next_byte(in) % (RESERVATION_ERROR + 1));
	if (!reservation_is_in(kind))
		return;
	len = (size_t)next_byte(in) * 4;
	len = MIN(len, in->left);
	if (kind == RESERVATION_READ_KEYS)
		ok = reservation_parse_keys(in->p, len, &a->keys);
	else if (kind == RESERVATION_READ_HOLDER)
		ok = reservation_parse_holder(in->p, len, &a->holder);
	else
		ok = reservation_parse_capabilities(in->p, len, &a->capabilities);
	FUZZ_CHECK(!ok || kind != RESERVATION_READ_KEYS || a->keys.n <= RESERVATION_MAX_KEYS);
	in->p += len;
	in->left -= len;
	if (!ok && a->status == RESERVATION_GOOD)
		a->status = RESERVATION_ERROR;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct reservation_answer a;
	struct input in = { data, size };
	struct reservation_plan p;
	struct reservation_command c;
	uint8_t first = next_byte(&in);
	enum reservation_op op = (enum reservation_op)(first % (RESERVATION_RELEASE + 1));
	unsigned n_paths = 1 + next_byte(&in) % RESERVATION_MAX_PATHS, n = 0;
	uint32_t confirmed = 0;

	reservation_plan_init(&p, op, KEY, n_paths, first & 0x80);
	while ((c = reservation_next(&p)).kind != RESERVATION_END) {
		FUZZ_CHECK(++n < MAX_COMMANDS && c.path < n_paths);
		FUZZ_CHECK(c.kind != RESERVATION_REGISTER_IGNORE || ((op == RESERVATION_JOIN || op == RESERVATION_LOOK) && c.service_key == KEY));
		if (c.kind == RESERVATION_PREEMPT || c.kind == RESERVATION_PREEMPT_ABORT)
			FUZZ_CHECK(reservation_whose(KEY, c.service_key) == RESERVATION_CLUSTERS && (op == RESERVATION_OWN || op == RESERVATION_CLEAR));
		a = (struct reservation_answer){ 0 };
		read_answer(&in, c.kind, &a);
		if (c.kind == RESERVATION_REGISTER && a.status == RESERVATION_GOOD)
			confirmed |= 1U << c.path;
		reservation_answer(&p, &a);
	}
	FUZZ_CHECK(p.done && (p.result == RESERVATION_OK || *p.why) && p.away < 1ULL << n_paths);
	if (p.result == RESERVATION_OK && (op == RESERVATION_JOIN || op == RESERVATION_OWN))
		FUZZ_CHECK((confirmed & ~p.away) != 0 && (confirmed | p.away) == (n_paths == 32 ? UINT32_MAX : (1U << n_paths) - 1));
	return 0;
}
