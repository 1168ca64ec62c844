/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Persistent reservations: keys, what a target's answers are read as, and each operation against targets that are well, refuse, forget, or answer in vain. */
#include <stdlib.h>

#include "storage/reservation.h"
#include "tests/tap.h"

#define MAX_COMMANDS 400

static const uint8_t cluster[16] = { 1, 2, 3 }, other_cluster[16] = { 3, 2, 1 };

static void put_u32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* ---- keys ---- */

static void test_keys(void)
{
	uint64_t mine = reservation_key(cluster, 3, 17);

	TAP_OK(mine != 0 && reservation_key_node(mine) == 3 && reservation_key_epoch(mine) == 17, "a key tells node and epoch");
	TAP_OK(reservation_whose(mine, mine) == RESERVATION_MINE, "one's own key");
	TAP_OK(reservation_whose(mine, reservation_key(cluster, 3, 16)) == RESERVATION_CLUSTERS, "of an epoch before: the cluster's");
	TAP_OK(reservation_whose(mine, reservation_key(cluster, RESERVATION_MAX_NODE, UINT32_MAX)) == RESERVATION_CLUSTERS, "of another node: the cluster's");
	TAP_OK(reservation_whose(mine, reservation_key(other_cluster, 3, 17)) == RESERVATION_STRANGE, "of another cluster: a stranger's");
	TAP_OK(reservation_whose(mine, reservation_key(cluster, RESERVATION_MAX_NODE + 1, 17)) == RESERVATION_STRANGE, "of a node that cannot be: a stranger's");
	TAP_OK(reservation_whose(mine, reservation_key(cluster, 0, 17)) == RESERVATION_STRANGE, "of no node: a stranger's");
	TAP_OK(reservation_whose(mine, reservation_key(cluster, 3, 0)) == RESERVATION_STRANGE, "of no epoch: a stranger's");
	TAP_OK(reservation_whose(mine, 0) == RESERVATION_STRANGE && reservation_whose(mine, 0x123abc) == RESERVATION_STRANGE, "small ones, as people write them: a stranger's");
}

/* ---- PERSISTENT RESERVE IN ---- */

static bool keys_of(const uint8_t *data, size_t len, struct reservation_keys *ret)
{
	uint8_t *exact = len ? malloc(len) : NULL; /* an address sanitizer sees what is read beyond */
	bool ok;

	if (len)
		memcpy(exact, data, len);
	ok = reservation_parse_keys(exact, len, ret);
	free(exact);
	return ok;
}

static void test_read_keys(void)
{
	static struct reservation_keys k;
	static uint8_t data[RESERVATION_IN_LEN + 64];

	put_u32(data + 4, 16);
	for (unsigned i = 0; i < 16; i++)
		data[8 + i] = (uint8_t)i;
	TAP_OK(keys_of(data, 24, &k) && k.n == 2 && k.key[0] == 0x0001020304050607ULL && k.key[1] == 0x08090a0b0c0d0e0fULL, "READ KEYS: two keys");
	TAP_OK(keys_of(data, 200, &k) && k.n == 2, "what follows them is no key");
	for (size_t len = 0; len < 24; len++)
		if (keys_of(data, len, &k))
			TAP_OK(false, "cut off after %zu bytes it counts", len);
	TAP_OK(true, "cut off anywhere it is no answer");
	put_u32(data + 4, 0);
	TAP_OK(keys_of(data, 8, &k) && k.n == 0, "no key");
	put_u32(data + 4, 12);
	TAP_OK(!keys_of(data, 200, &k), "one and a half key: no answer");
	put_u32(data + 4, 8 * RESERVATION_MAX_KEYS);
	TAP_OK(keys_of(data, RESERVATION_IN_LEN, &k) && k.n == RESERVATION_MAX_KEYS, "as many as anybody reads");
	put_u32(data + 4, 8 * RESERVATION_MAX_KEYS + 8);
	TAP_OK(!keys_of(data, sizeof(data), &k), "one more than is read: nobody may conclude that there is none but those");
	put_u32(data + 4, 0xfffffff8);
	TAP_OK(!keys_of(data, sizeof(data), &k), "4 GiB of keys");
}

static void test_read_holder(void)
{
	struct reservation_holder h;
	uint8_t data[32] = { 0 };

	TAP_OK(reservation_parse_holder(data, 8, &h) && !h.held, "READ RESERVATION: none");
	put_u32(data + 4, 16);
	memcpy(data + 8, "\1\2\3\4\5\6\7\10", 8);
	data[21] = RESERVATION_WERO;
	TAP_OK(reservation_parse_holder(data, 24, &h) && h.held && h.key == 0x0102030405060708ULL && h.type == RESERVATION_WERO, "held");
	for (size_t len = 0; len < 24; len++)
		if (reservation_parse_holder(data, len, &h))
			TAP_OK(false, "cut off after %zu bytes it counts", len);
	data[21] = 0x10 | RESERVATION_WERO;
	TAP_OK(!reservation_parse_holder(data, 24, &h), "of another scope than the LUN");
	put_u32(data + 4, 8);
	TAP_OK(!reservation_parse_holder(data, 32, &h), "too short a descriptor");
	put_u32(data + 4, 0xffffffff);
	data[21] = RESERVATION_WERO;
	TAP_OK(!reservation_parse_holder(data, 20, &h), "a length beyond all bounds");
}

static void test_capabilities(void)
{
	struct reservation_capabilities c;
	uint8_t data[8] = { 0, 8, 1, 0x80, 0x20, 0, 0, 0 };

	TAP_OK(reservation_parse_capabilities(data, 8, &c) && c.persistent && c.says_types && c.wero, "REPORT CAPABILITIES: all");
	data[4] = 0xca;
	TAP_OK(reservation_parse_capabilities(data, 8, &c) && !c.wero, "the type is not among them");
	data[2] = 0x14;
	data[3] = 0x01;
	data[4] = 0x20;
	TAP_OK(reservation_parse_capabilities(data, 8, &c) && !c.persistent && !c.says_types && !c.wero, "it keeps nothing, and names no types: what stands there counts not; what it has switched on is no capability");
	TAP_OK(!reservation_parse_capabilities(data, 7, &c) && !reservation_parse_capabilities(data, 0, &c), "cut off");
	data[1] = 4;
	TAP_OK(!reservation_parse_capabilities(data, 8, &c), "shorter than the standard's");
}

static void test_out(void)
{
	struct reservation_command c = { .kind = RESERVATION_PREEMPT, .key = 0x0102030405060708ULL, .service_key = 0x1112131415161718ULL, .aptpl = true };
	uint8_t data[RESERVATION_OUT_LEN];

	reservation_out_parameters(&c, data);
	TAP_OK(memcmp(data, "\1\2\3\4\5\6\7\10\21\22\23\24\25\26\27\30\0\0\0\0\1\0\0\0", 24) == 0, "PERSISTENT RESERVE OUT's parameters");
	TAP_OK(reservation_service_action(RESERVATION_PREEMPT_ABORT) == 5 && reservation_service_action(RESERVATION_REGISTER_IGNORE) == 6 &&
		       reservation_is_in(RESERVATION_READ_KEYS) && !reservation_is_in(RESERVATION_REGISTER), "service actions");
}

/* ---- operations, on a target of four initiators: 0 and 1 are our paths ---- */

#define INITIATORS 4

struct target {
	uint64_t key[INITIATORS];
	bool held, no_abort, no_pr, no_report, no_aptpl, other_type, forgets_second, two_type /* write exclusive */;
	unsigned holder, errors_from; /* 1 + the first command that is not answered */
	bool executes;                /* though it is carried out */
	unsigned dead;                /* bit: a path by which nothing is answered, */
	unsigned late;                /* for now */
	enum reservation_status abort; /* what PREEMPT AND ABORT is answered with; GOOD: as it is carried out */
	bool aborts;                  /* though it is carried out */
	unsigned illegal_aptpl;       /* APTPL: 1: is illegal; 2: makes the command unknown (tgtd) */
	unsigned n;
	struct reservation_command log[MAX_COMMANDS];
};

static unsigned count(const struct target *t, enum reservation_command_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->n; i++)
		n += t->log[i].kind == kind;
	return n;
}

static void forget(struct target *t, unsigned i)
{
	t->key[i] = 0;
	if (t->held && t->holder == i)
		t->held = false;
}

static enum reservation_status preempt(struct target *t, const struct reservation_command *c)
{
	bool found = false, takes = t->held && t->key[t->holder] == c->service_key;

	if (t->key[c->path] != c->key)
		return RESERVATION_CONFLICT;
	if (c->kind == RESERVATION_PREEMPT_ABORT && (t->no_abort || (t->abort != RESERVATION_GOOD && !t->aborts)))
		return t->no_abort ? RESERVATION_REFUSED : t->abort;
	for (unsigned i = 0; i < INITIATORS; i++)
		if (t->key[i] == c->service_key) {
			forget(t, i);
			found = true;
		}
	if (takes) {
		t->held = true;
		t->holder = c->path;
	}
	if (c->kind == RESERVATION_PREEMPT_ABORT && t->abort != RESERVATION_GOOD)
		return t->abort;
	return found ? RESERVATION_GOOD : RESERVATION_CONFLICT;
}

static enum reservation_status reg(struct target *t, const struct reservation_command *c)
{
	if (c->kind == RESERVATION_REGISTER && (t->key[c->path] == 0 || t->key[c->path] != c->key))
		return RESERVATION_CONFLICT;
	if (c->service_key == 0)
		forget(t, c->path);
	t->key[c->path] = c->service_key;
	if (c->kind == RESERVATION_REGISTER_IGNORE && c->path == 1 && t->forgets_second)
		t->key[1] = 0;
	return RESERVATION_GOOD;
}

static struct reservation_answer perform(struct target *t, const struct reservation_command *c)
{
	static struct reservation_answer a;

	a = (struct reservation_answer){ .status = RESERVATION_GOOD };
	if (t->illegal_aptpl && c->aptpl) {
		a.status = t->illegal_aptpl == 2 ? RESERVATION_REFUSED : RESERVATION_ILLEGAL;
		return a;
	}
	switch (c->kind) {
	case RESERVATION_REPORT_CAPABILITIES:
		a.status = t->no_report ? RESERVATION_REFUSED : RESERVATION_GOOD;
		a.capabilities = (struct reservation_capabilities){ .persistent = !t->no_aptpl, .says_types = true, .wero = !t->other_type };
		break;
	case RESERVATION_READ_KEYS:
		for (unsigned i = 0; i < INITIATORS; i++)
			if (t->key[i])
				a.keys.key[a.keys.n++] = t->key[i];
		break;
	case RESERVATION_READ_HOLDER:
		if (t->held)
			a.holder = (struct reservation_holder){ true, t->key[t->holder], t->two_type ? 1 : RESERVATION_WERO };
		break;
	case RESERVATION_REGISTER:
	case RESERVATION_REGISTER_IGNORE:
		a.status = reg(t, c);
		break;
	case RESERVATION_RESERVE:
		if (t->key[c->path] != c->key || (t->held && t->holder != c->path)) {
			a.status = RESERVATION_CONFLICT;
			break;
		}
		t->held = true;
		t->holder = c->path;
		break;
	case RESERVATION_GIVE_UP:
		a.status = t->key[c->path] == c->key ? RESERVATION_GOOD : RESERVATION_CONFLICT;
		t->held = t->held && (a.status != RESERVATION_GOOD || t->holder != c->path);
		break;
	case RESERVATION_PREEMPT:
	case RESERVATION_PREEMPT_ABORT:
		a.status = preempt(t, c);
		break;
	case RESERVATION_END:
		break;
	}
	return a;
}

static struct reservation_plan run(struct target *t, enum reservation_op op, uint64_t key, bool volatile_ok)
{
	struct reservation_plan p;
	struct reservation_command c;

	t->n = 0;
	reservation_plan_init(&p, op, key, 2, volatile_ok);
	while ((c = reservation_next(&p)).kind != RESERVATION_END && t->n < MAX_COMMANDS) {
		struct reservation_answer a = { .status = t->no_pr ? RESERVATION_REFUSED : RESERVATION_ERROR, .later = t->late >> c.path & 1 };

		t->log[t->n++] = c;
		if (t->dead >> c.path & 1)
			;
		else if (!t->no_pr && (t->errors_from == 0 || t->n < t->errors_from))
			a = perform(t, &c);
		else if (!t->no_pr && t->executes)
			(void)perform(t, &c);
		reservation_answer(&p, &a);
	}
	return p;
}

/* As a VM is started; of the commands the last operation's are logged. */
static struct reservation_plan start(struct target *t, bool volatile_ok)
{
	uint64_t mine = reservation_key(cluster, 1, 5);
	struct reservation_plan p = run(t, RESERVATION_JOIN, mine, volatile_ok);

	return p.result == RESERVATION_OK ? run(t, RESERVATION_OWN, mine, volatile_ok) : p;
}

#define MINE reservation_key(cluster, 1, 5)
#define OLD reservation_key(cluster, 1, 4)
#define PEER reservation_key(cluster, 2, 9)
#define PEER_OLD reservation_key(cluster, 2, 8)
#define STRANGER reservation_key(other_cluster, 2, 9)

static bool alone(const struct target *t)
{
	return t->key[0] == MINE && t->key[1] == MINE && t->key[2] == 0 && t->key[3] == 0 && t->held && t->holder < 2;
}

static void test_start(void)
{
	struct target t = { 0 };
	struct reservation_plan p = start(&t, false);

	TAP_OK(p.result == RESERVATION_OK && alone(&t) && count(&t, RESERVATION_PREEMPT_ABORT) == 0, "a start on a fresh LUN: both paths registered, reserved");
	t.key[0] = t.key[1] = OLD;
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_OK && alone(&t), "a start over one's own key of before");
	t = (struct target){ .key = { 0, 0, PEER, PEER_OLD }, .held = true, .holder = 2 };
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_OK && alone(&t) && count(&t, RESERVATION_PREEMPT_ABORT) == 2, "a start after another owner: each of its keys preempted, the reservation taken over");
	t = (struct target){ .key = { 0, 0, PEER, PEER }, .held = true, .holder = 2, .no_abort = true };
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_OK && alone(&t) && count(&t, RESERVATION_PREEMPT) == 1, "where PREEMPT AND ABORT is refused: PREEMPT");
	t = (struct target){ .key = { 0, 0, STRANGER } };
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_FOREIGN && p.strange == STRANGER && t.key[2] == STRANGER && t.key[0] == 0, "a stranger's key: named and left alone, and nothing is registered");
	t = (struct target){ .forgets_second = true };
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_FAILED && *p.why, "a path whose registration did not last: not reserved");
	t = (struct target){ .held = true, .two_type = true, .key = { MINE } };
	p = start(&t, false);
	TAP_OK(p.result == RESERVATION_FAILED, "reserved in another way");
}

static void test_cannot(void)
{
	struct target t = { .no_pr = true };

	TAP_OK(start(&t, false).result == RESERVATION_NONE && t.n == 1, "a target without reservations: none");
	TAP_OK(start(&t, true).result == RESERVATION_NONE && t.n == 2, "the same with Reservation=volatile");
	t = (struct target){ .no_aptpl = true };
	TAP_OK(start(&t, false).result == RESERVATION_NONE && t.n == 1, "one that forgets with its power: none");
	TAP_OK(start(&t, true).result == RESERVATION_OK && alone(&t) && !t.log[0].aptpl, "which volatile takes as it is");
	t = (struct target){ .no_report = true };
	TAP_OK(start(&t, false).result == RESERVATION_NONE && start(&t, true).result == RESERVATION_OK,
	       "one that does not say what it can: volatile only");
	t = (struct target){ .other_type = true };
	TAP_OK(start(&t, true).result == RESERVATION_NONE, "one that does not know the type: none");
}

static void test_others(void)
{
	struct target t = { .key = { 0, 0, PEER, PEER }, .held = true, .holder = 2 };
	struct reservation_plan p = run(&t, RESERVATION_JOIN, MINE, false);

	TAP_OK(t.log[2].kind == RESERVATION_REGISTER_IGNORE && t.log[2].aptpl && t.log[2].service_key == MINE, "registered to be kept over a loss of power");
	TAP_OK(p.result == RESERVATION_OK && t.key[0] == MINE && t.key[1] == MINE && t.key[2] == PEER && t.key[3] == PEER && t.holder == 2, "JOIN: beside the source, which goes on");
	p = run(&t, RESERVATION_OWN, MINE, false);
	TAP_OK(p.result == RESERVATION_OK && alone(&t) && count(&t, RESERVATION_REGISTER_IGNORE) == 0, "OWN: the source's are preempted, nothing is registered");
	p = run(&t, RESERVATION_CHECK, MINE, false);
	TAP_OK(p.result == RESERVATION_OK && alone(&t), "CHECK: all is there");
	t.key[1] = 0;
	p = run(&t, RESERVATION_CHECK, MINE, false);
	TAP_OK(p.result == RESERVATION_LOST && t.key[1] == 0, "CHECK: a path's is gone, and is not put back");
	p = run(&t, RESERVATION_OWN, MINE, false);
	TAP_OK(p.result == RESERVATION_LOST && t.key[1] == 0, "OWN: nor then");
	p = run(&t, RESERVATION_KEEP, MINE, false);
	TAP_OK(p.result == RESERVATION_LOST && t.key[1] == 0, "KEEP: nor then");
	t = (struct target){ .key = { MINE, MINE } };
	p = run(&t, RESERVATION_CHECK, MINE, false);
	TAP_OK(p.result == RESERVATION_OK && !t.held && t.n == 2, "CHECK: registered, and nothing is reserved: left so, as a guest may run beside us that has not registered");
	p = run(&t, RESERVATION_KEEP, MINE, false);
	TAP_OK(p.result == RESERVATION_OK && t.held, "KEEP: registered, and the reservation is gone: reserved again");
	t = (struct target){ .key = { MINE, MINE, PEER }, .held = true, .holder = 2 };
	p = run(&t, RESERVATION_LEAVE, MINE, false);
	TAP_OK(p.result == RESERVATION_OK && t.key[0] == 0 && t.key[1] == 0 && t.key[2] == PEER, "LEAVE: one's own, and no other's");
	t.key[0] = OLD;
	p = run(&t, RESERVATION_LEAVE, MINE, false);
	TAP_OK(p.done && t.key[0] == OLD, "LEAVE: what is not of this epoch stays");
}

/* A dead path of two. */
static void test_dead_path(void)
{
	for (unsigned dead = 0; dead < 2; dead++) {
		struct target t = { .key = { 0, 0, PEER, PEER }, .held = true, .holder = 2, .dead = 1U << dead };
		unsigned live = 1 - dead;
		struct reservation_plan p = start(&t, false);

		TAP_OK(p.result == RESERVATION_OK && t.key[live] == MINE && t.key[dead] == 0 && t.key[2] == 0 && t.key[3] == 0 && t.held && t.holder == live && *p.why,
		       "path %u is dead: registered, preempted, reserved and verified by the other, which is said", dead);
		TAP_OK(run(&t, RESERVATION_CHECK, MINE, false).result == RESERVATION_OK && run(&t, RESERVATION_KEEP, MINE, false).result == RESERVATION_OK, "its key is there");
		t.dead = 0;
		TAP_OK(run(&t, RESERVATION_CHECK, MINE, false).result == RESERVATION_LOST && run(&t, RESERVATION_KEEP, MINE, false).result == RESERVATION_LOST && t.key[dead] == 0,
		       "it comes back: what is written by it would be refused, and nothing is registered under the guest");
		t.dead = 1U << dead;
		p = run(&t, RESERVATION_LEAVE, MINE, false);
		TAP_OK(p.result == RESERVATION_OK && t.key[live] == 0, "LEAVE: by the path that answers");
		t = (struct target){ .key = { MINE, MINE, PEER }, .held = true, .holder = 2, .dead = 1U << dead };
		p = run(&t, RESERVATION_OWN, MINE, false);
		TAP_OK(p.result == RESERVATION_OK && t.key[2] == 0 && t.key[dead] == MINE, "path %u has died since it was registered: OWN by the other", dead);
		TAP_OK(run(&t, RESERVATION_LEAVE, MINE, false).result == RESERVATION_FAILED, "LEAVE: what a dead path has registered is left");
	}
	{
		struct target t = { .dead = 3 };

		TAP_OK(run(&t, RESERVATION_JOIN, MINE, false).result == RESERVATION_FAILED && run(&t, RESERVATION_PROBE, MINE, false).result == RESERVATION_FAILED &&
			       run(&t, RESERVATION_OWN, MINE, false).result == RESERVATION_FAILED, "none answers: failed, and not \"none can be had\"");
	}
}

static bool nobody(const struct target *t)
{
	return !t->held && t->key[0] == 0 && t->key[1] == 0 && (t->key[2] == 0 || t->key[2] == STRANGER) && t->key[3] == 0;
}

/* What is not to be reserved any more, or cannot be here. */
static void test_without(void)
{
	struct target t = { .key = { 0, 0, STRANGER } };
	struct reservation_plan p = run(&t, RESERVATION_LOOK, MINE, false);

	TAP_OK(p.result == RESERVATION_NONE && t.n == 1 && t.key[0] == 0, "LOOK: no key of the cluster: nothing is done, whoever else has registered");
	t = (struct target){ .no_pr = true };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_NONE && t.n == 1, "LOOK: a target without reservations");
	t = (struct target){ .dead = 3 };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_NONE && t.n == 2, "LOOK: nothing answers, as of a disk that knows nothing of it: it goes on as ever");
	for (unsigned late = 1; late < 4; late++) {
		t = (struct target){ .key = { 0, 0, PEER }, .held = true, .holder = 2, .dead = 3, .late = late };
		p = run(&t, RESERVATION_LOOK, MINE, false);
		TAP_OK(p.result == RESERVATION_FAILED && strstr(p.why, "for now"), "LOOK: nothing answers for now by %s: what is reserved is not known", late == 3 ? "both paths" : "one path");
	}
	t = (struct target){ .dead = 1, .late = 1 };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_NONE, "LOOK: the other path answers, and nothing is reserved");
	t = (struct target){ .key = { 0, 0, PEER }, .held = true, .holder = 2, .dead = 1, .late = 1 };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_STANDS && t.key[1] == MINE, "LOOK: the other path answers, and something is");
	for (unsigned i = 0; i < 4; i++) {
		t = (struct target){ .key = { 0, 0, PEER, PEER_OLD }, .held = true, .holder = 2, .dead = i & 1, .illegal_aptpl = i & 2 };
		p = run(&t, RESERVATION_LOOK, MINE, false);
		TAP_OK(p.result == RESERVATION_STANDS && t.key[i & 1] == MINE && t.key[2] == PEER && t.holder == 2, "LOOK: a reservation that was left: registered beside it");
		p = run(&t, RESERVATION_CLEAR, MINE, false);
		TAP_OK(p.result == RESERVATION_OK && nobody(&t), "CLEAR: nobody is registered, nothing is reserved");
	}
	t = (struct target){ .key = { MINE, MINE, STRANGER }, .held = true, .holder = 1 };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_STANDS && run(&t, RESERVATION_CLEAR, MINE, false).result == RESERVATION_OK && nobody(&t) &&
		       t.key[2] == STRANGER, "one's own from before, beside a stranger's, which stays");
	t = (struct target){ .key = { OLD, OLD }, .held = true, .holder = 1 };
	TAP_OK(run(&t, RESERVATION_LOOK, MINE, false).result == RESERVATION_STANDS && run(&t, RESERVATION_CLEAR, MINE, false).result == RESERVATION_OK && nobody(&t),
	       "one's own of an epoch before");
	t = (struct target){ .key = { 0, 0, PEER }, .held = true, .holder = 2 };
	TAP_OK(run(&t, RESERVATION_CLEAR, MINE, false).result == RESERVATION_LOST && t.key[2] == PEER && t.held, "CLEAR: preempted meanwhile: whoever did that owns it");
	t = (struct target){ .key = { 0 } };
	TAP_OK(run(&t, RESERVATION_CLEAR, MINE, false).result == RESERVATION_OK, "CLEAR: a disk with nothing on it");
	for (unsigned i = 0; i < 2; i++) {
		t = (struct target){ .key = { MINE, MINE }, .held = true, .holder = i, .illegal_aptpl = i };
		p = run(&t, RESERVATION_RELEASE, MINE, false);
		TAP_OK(p.result == RESERVATION_OK && nobody(&t) && t.log[0].kind == RESERVATION_GIVE_UP && t.log[1].kind == RESERVATION_GIVE_UP,
		       "RELEASE: nothing is reserved before the first of one's keys goes");
	}
	t = (struct target){ .key = { MINE, MINE, PEER }, .held = true, .holder = 2 };
	TAP_OK(run(&t, RESERVATION_RELEASE, MINE, false).result == RESERVATION_FAILED && t.key[0] == MINE, "RELEASE: somebody else holds it: our key stays, and our guest writes on");
	t = (struct target){ .key = { MINE, MINE, STRANGER }, .held = true, .holder = 2 };
	TAP_OK(run(&t, RESERVATION_RELEASE, MINE, false).result == RESERVATION_FAILED && t.key[0] == MINE && t.key[1] == MINE, "RELEASE: nor if that is a stranger");
	t = (struct target){ .key = { MINE, MINE }, .held = true, .holder = 0, .illegal_aptpl = true };
	TAP_OK(run(&t, RESERVATION_LEAVE, MINE, false).result == RESERVATION_OK && nobody(&t), "LEAVE: of a target that keeps nothing, with volatile gone from the configuration");
	t = (struct target){ .key = { MINE, MINE, PEER }, .held = true, .holder = 0 };
	TAP_OK(run(&t, RESERVATION_KEEP, MINE, false).result == RESERVATION_OTHERS && t.key[2] == PEER, "KEEP: another node has registered, which is told");
}

static void test_abort(void)
{
	static const struct { enum reservation_status status; bool aborts; const char *name; } cases[] = {
		{ RESERVATION_REFUSED, false, "unknown" }, { RESERVATION_ILLEGAL, false, "illegal in this form" }, { RESERVATION_ERROR, false, "not answered" },
		{ RESERVATION_ERROR, true, "carried out and not answered" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct target t = { .key = { 0, 0, PEER, PEER }, .held = true, .holder = 2, .abort = cases[i].status, .aborts = cases[i].aborts };
		struct reservation_plan p = start(&t, false);

		TAP_OK(p.result == RESERVATION_OK && alone(&t) && p.away == 0 && count(&t, RESERVATION_PREEMPT_ABORT) == 1 &&
			       count(&t, RESERVATION_PREEMPT) == !cases[i].aborts, "PREEMPT AND ABORT is %s: PREEMPT, if there is still anybody", cases[i].name);
	}
}

/* From each command on nothing is answered, though it may be carried out: it ends, and never well unless all was seen. */
static void test_silence(void)
{
	static const struct { enum reservation_op op; const char *name; } ops[] = {
		{ RESERVATION_JOIN, "JOIN" }, { RESERVATION_OWN, "OWN" }, { RESERVATION_CHECK, "CHECK" }, { RESERVATION_KEEP, "KEEP" }, { RESERVATION_LEAVE, "LEAVE" },
		{ RESERVATION_CLEAR, "CLEAR" }, { RESERVATION_RELEASE, "RELEASE" },
	};

	for (unsigned o = 0; o < ARRAY_SIZE(ops); o++) {
		struct target all = { .key = { MINE, MINE, PEER }, .held = true, .holder = 2 };
		unsigned bad = 0, n;

		(void)run(&all, ops[o].op, MINE, false);
		n = all.n;
		for (unsigned from = 1; from <= n; from++)
			for (int executes = 0; executes < 2; executes++) {
				struct target t = { .key = { MINE, MINE, PEER }, .held = true, .holder = 2, .errors_from = from, .executes = executes };
				struct reservation_plan p = run(&t, ops[o].op, MINE, false);

				/* One path by which all was answered will do. */
				bad += !p.done || (p.result != RESERVATION_FAILED && ((p.result != RESERVATION_OK && p.result != RESERVATION_OTHERS) || p.away != 2 || from == 1));
				bad += ops[o].op == RESERVATION_OWN && p.result == RESERVATION_OK && (t.key[0] != MINE || t.key[2] != 0 || !t.held || t.holder > 1);
			}
		TAP_OK(bad == 0, "%s: not answered from the first to the %u. command on: it failed", ops[o].name, n);
	}
}

int main(void)
{
	test_keys();
	test_read_keys();
	test_read_holder();
	test_capabilities();
	test_out();
	test_start();
	test_cannot();
	test_others();
	test_dead_path();
	test_without();
	test_abort();
	test_silence();
	return tap_done();
}
