/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/reservation.h"

#include "agent/base/mutant.h"
#include "storage/crc32c.h"

#define MAX_ROUNDS 80 /* others may come and go while we look; each of a cluster's nodes may have a key */

enum phase { PHASE_CAPABILITIES, PHASE_LOOK, PHASE_REGISTER, PHASE_CONFIRM, PHASE_OTHERS, PHASE_PREEMPT, PHASE_HOLDER, PHASE_RESERVE, PHASE_VERIFY_KEYS,
	PHASE_VERIFY_HOLDER, PHASE_BESIDE, PHASE_RELEASE, PHASE_RELEASED, PHASE_UNREGISTER, PHASE_LEFT };

uint64_t reservation_key(const uint8_t cluster[16], uint32_t node, uint32_t epoch)
{
	return (uint64_t)(crc32c(0, cluster, 16) & 0xffffff) << 40 | (uint64_t)(node & 0xff) << 32 | epoch;
}

enum reservation_whose reservation_whose(uint64_t mine, uint64_t other)
{
	uint32_t node = reservation_key_node(other);

	if (other == mine)
		return RESERVATION_MINE;
	return other >> 40 == mine >> 40 && node >= 1 && node <= RESERVATION_MAX_NODE && reservation_key_epoch(other) != 0 ? RESERVATION_CLUSTERS : RESERVATION_STRANGE;
}

static uint32_t get_u32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }
static uint64_t get_u64(const uint8_t *p) { return (uint64_t)get_u32(p) << 32 | get_u32(p + 4); }

static void put_u64(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
}

bool reservation_parse_keys(const uint8_t *data, size_t len, struct reservation_keys *ret)
{
	uint32_t more;

	if (len < 8)
		return false;
	more = get_u32(data + 4);
	if (more % 8 != 0 || more / 8 > RESERVATION_MAX_KEYS || len - 8 < more)
		return false;
	ret->n = more / 8;
	for (unsigned i = 0; i < ret->n; i++)
		ret->key[i] = get_u64(data + 8 + 8 * i);
	return true;
}

bool reservation_parse_holder(const uint8_t *data, size_t len, struct reservation_holder *ret)
{
	uint32_t more;

	if (len < 8)
		return false;
	more = get_u32(data + 4);
	if (more == 0) {
		*ret = (struct reservation_holder){ 0 };
		return true;
	}
	/* One descriptor of 16 bytes; what a later standard may add is of no interest. */
	if (more < 16 || len < 24)
		return false;
	*ret = (struct reservation_holder){ .held = true, .key = get_u64(data + 8), .type = data[21] & 0xf };
	return (data[21] & 0xf0) == 0; /* the scope: of the whole LUN */
}

bool reservation_parse_capabilities(const uint8_t *data, size_t len, struct reservation_capabilities *ret)
{
	if (len < 8 || ((unsigned)data[0] << 8 | data[1]) < 8)
		return false;
	ret->persistent = data[2] & 1;
	ret->says_types = data[3] & 0x80;
	ret->wero = ret->says_types && (data[4] & 0x20);
	return true;
}

static const char *const ops[] = { "probe", "join", "own", "check", "leave", "keep", "look", "clear", "release" };

const char *reservation_op_name(enum reservation_op op) { return (size_t)op < ARRAY_SIZE(ops) ? ops[op] : "unknown"; }

bool reservation_op_parse(const char *name, enum reservation_op *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		if (streq(name, ops[i])) {
			*ret = (enum reservation_op)i;
			return true;
		}
	return false;
}

const char *reservation_result_name(enum reservation_result r)
{
	static const char *const name[RESERVATION_RESULT_COUNT] = { "ok", "none", "stands", "others", "foreign", "lost", "failed" };

	return (size_t)r < ARRAY_SIZE(name) ? name[r] : "unknown";
}

bool reservation_is_in(enum reservation_command_kind k)
{
	return k == RESERVATION_REPORT_CAPABILITIES || k == RESERVATION_READ_KEYS || k == RESERVATION_READ_HOLDER;
}

bool reservation_is_typed(enum reservation_command_kind k)
{
	return k == RESERVATION_RESERVE || k == RESERVATION_GIVE_UP || k == RESERVATION_PREEMPT || k == RESERVATION_PREEMPT_ABORT;
}

unsigned reservation_service_action(enum reservation_command_kind k)
{
	static const uint8_t action[] = {
		[RESERVATION_READ_KEYS] = 0x00, [RESERVATION_READ_HOLDER] = 0x01, [RESERVATION_REPORT_CAPABILITIES] = 0x02,
		[RESERVATION_REGISTER] = 0x00, [RESERVATION_RESERVE] = 0x01, [RESERVATION_GIVE_UP] = 0x02, [RESERVATION_PREEMPT] = 0x04, [RESERVATION_PREEMPT_ABORT] = 0x05,
		[RESERVATION_REGISTER_IGNORE] = 0x06,
	};

	return (size_t)k < ARRAY_SIZE(action) ? action[k] : 0;
}

void reservation_out_parameters(const struct reservation_command *c, uint8_t ret[RESERVATION_OUT_LEN])
{
	memset(ret, 0, RESERVATION_OUT_LEN);
	put_u64(ret, c->key);
	put_u64(ret + 8, c->service_key);
	ret[20] = c->aptpl ? 1 : 0;
}

/* What is not to be reserved. */
static bool goes_without(const struct reservation_plan *p) { return p->op == RESERVATION_LOOK || p->op == RESERVATION_CLEAR || p->op == RESERVATION_RELEASE; }

/* At what is there already. */
static bool looks(const struct reservation_plan *p) { return p->op == RESERVATION_CHECK || p->op == RESERVATION_KEEP; }

void reservation_plan_init(struct reservation_plan *p, enum reservation_op op, uint64_t key, unsigned n_paths, bool volatile_ok)
{
	static const uint8_t first[] = { [RESERVATION_PROBE] = PHASE_CAPABILITIES, [RESERVATION_JOIN] = PHASE_CAPABILITIES,
					 [RESERVATION_OWN] = PHASE_CONFIRM, [RESERVATION_CHECK] = PHASE_CONFIRM, [RESERVATION_KEEP] = PHASE_CONFIRM,
					 [RESERVATION_LEAVE] = PHASE_UNREGISTER, [RESERVATION_LOOK] = PHASE_LOOK, [RESERVATION_CLEAR] = PHASE_LOOK,
					 [RESERVATION_RELEASE] = PHASE_RELEASE };

	CHECK((size_t)op < ARRAY_SIZE(first) && key != 0 && n_paths > 0 && n_paths <= RESERVATION_MAX_PATHS);
	*p = (struct reservation_plan){ .op = op, .key = key, .n_paths = n_paths, .volatile_ok = volatile_ok, .phase = first[op], .why = "" };
}

struct reservation_command reservation_next(const struct reservation_plan *p)
{
	struct reservation_command c = { .path = p->path, .key = p->key };

	if (p->done)
		return c;
	switch ((enum phase)p->phase) {
	case PHASE_CAPABILITIES:
		c.kind = RESERVATION_REPORT_CAPABILITIES;
		break;
	case PHASE_LOOK:
	case PHASE_OTHERS:
	case PHASE_VERIFY_KEYS:
	case PHASE_BESIDE:
	case PHASE_LEFT:
		c.kind = RESERVATION_READ_KEYS;
		break;
	case PHASE_HOLDER:
	case PHASE_VERIFY_HOLDER:
	case PHASE_RELEASED:
		c.kind = RESERVATION_READ_HOLDER;
		break;
	case PHASE_REGISTER:
		c.kind = RESERVATION_REGISTER_IGNORE;
		c.key = 0; /* ignored */
		c.service_key = p->key;
		c.aptpl = !p->volatile_ok;
		break;
	case PHASE_CONFIRM:
		c.kind = RESERVATION_REGISTER;
		c.service_key = p->key;
		c.aptpl = !p->volatile_ok;
		if (MUTANT(REREGISTERED) && looks(p))
			c.kind = RESERVATION_REGISTER_IGNORE;
		break;
	case PHASE_PREEMPT:
		c.kind = p->no_abort ? RESERVATION_PREEMPT : RESERVATION_PREEMPT_ABORT;
		c.service_key = p->victim;
		break;
	case PHASE_RESERVE:
		c.kind = RESERVATION_RESERVE;
		break;
	case PHASE_RELEASE:
		c.kind = RESERVATION_GIVE_UP;
		break;
	case PHASE_UNREGISTER:
		c.kind = RESERVATION_REGISTER;
		c.aptpl = !p->volatile_ok;
		break;
	}
	return c;
}

static void end(struct reservation_plan *p, enum reservation_result r, const char *why)
{
	p->done = true;
	p->result = r;
	p->why = why;
}

static unsigned living(const struct reservation_plan *p, unsigned from)
{
	while (from < p->n_paths && (p->away >> from & 1))
		from++;
	return from;
}

static void go(struct reservation_plan *p, enum phase phase)
{
	p->phase = phase;
	p->path = living(p, 0);
	if (p->path == p->n_paths && p->later)
		end(p, RESERVATION_FAILED, "no path answers for now");
	else if (p->path == p->n_paths) /* what answers nothing of the kind was used without before */
		end(p, p->op == RESERVATION_LOOK && phase == PHASE_LOOK ? RESERVATION_NONE : RESERVATION_FAILED, "no path answers");
	else if (phase == PHASE_OTHERS && ++p->rounds > MAX_ROUNDS)
		end(p, RESERVATION_FAILED, "others go on registering");
}

/* Our key is where it is to be, on each path that answers. */
static void succeed(struct reservation_plan *p)
{
	if (living(p, 0) == p->n_paths)
		end(p, RESERVATION_FAILED, "no path answers");
	else
		end(p, RESERVATION_OK, p->away ? "not every path to it answers" : "");
}

/* The same on the next path; then that phase. */
static void next_path(struct reservation_plan *p, enum phase then)
{
	p->path = living(p, p->path + 1);
	if (p->path == p->n_paths)
		go(p, then);
}

static void confirmed(struct reservation_plan *p)
{
	p->path = living(p, p->path + 1);
	if (p->path < p->n_paths)
		return;
	if ((p->op == RESERVATION_JOIN && !MUTANT(JOIN_PREEMPTS)) || (p->op == RESERVATION_CHECK && !MUTANT(CHECK_RESERVES)))
		succeed(p);
	else
		go(p, looks(p) ? PHASE_HOLDER : PHASE_OTHERS);
}

static void verified(struct reservation_plan *p)
{
	p->phase = PHASE_VERIFY_KEYS;
	p->path = living(p, p->path + 1);
	if (p->path == p->n_paths)
		succeed(p);
}

/* It may have been carried out all the same. What it was to do is looked at by another path, or done by it. */
static void unanswered(struct reservation_plan *p)
{
	enum phase phase = (enum phase)p->phase;

	if (phase == PHASE_PREEMPT && !p->no_abort) { /* a target may abort this very command with those of the other, or stumble over it */
		p->no_abort = true;
		go(p, PHASE_OTHERS);
		return;
	}
	p->away |= 1u << p->path;
	if (phase == PHASE_CONFIRM)
		confirmed(p);
	else if (phase == PHASE_VERIFY_KEYS || phase == PHASE_VERIFY_HOLDER)
		verified(p);
	else if (phase == PHASE_REGISTER)
		next_path(p, PHASE_CONFIRM);
	else if (phase == PHASE_RELEASE)
		next_path(p, PHASE_RELEASED);
	else if (phase == PHASE_UNREGISTER)
		next_path(p, PHASE_LEFT);
	else if (phase == PHASE_PREEMPT || phase == PHASE_RESERVE)
		go(p, looks(p) ? PHASE_HOLDER : PHASE_OTHERS);
	else
		go(p, phase);
}

/* The first key that is somebody else's and has to go; 0: none. False: one of a stranger is there, and all is over. */
static bool find_other(struct reservation_plan *p, const struct reservation_keys *keys, uint64_t *ret)
{
	*ret = 0;
	for (unsigned i = 0; i < keys->n; i++) {
		switch (reservation_whose(p->key, keys->key[i])) {
		case RESERVATION_STRANGE:
			if (MUTANT(STRANGER_PREEMPTED)) {
				*ret = *ret ? *ret : keys->key[i];
				break;
			}
			if (goes_without(p))
				break;
			p->strange = keys->key[i];
			end(p, RESERVATION_FOREIGN, "somebody else has registered there");
			return false;
		case RESERVATION_CLUSTERS:
			*ret = *ret ? *ret : keys->key[i];
			break;
		case RESERVATION_MINE:
			break;
		}
	}
	if (MUTANT(NOT_PREEMPTED))
		*ret = 0;
	return true;
}

static bool has(const struct reservation_keys *keys, uint64_t key)
{
	for (unsigned i = 0; i < keys->n; i++)
		if (keys->key[i] == key)
			return true;
	return false;
}

/* Of a node of the cluster, ours or another's. */
static bool has_clusters(const struct reservation_plan *p, const struct reservation_keys *keys)
{
	for (unsigned i = 0; i < keys->n; i++)
		if (reservation_whose(p->key, keys->key[i]) != RESERVATION_STRANGE)
			return true;
	return false;
}

static void on_capabilities(struct reservation_plan *p, const struct reservation_answer *a)
{
	/* One that knows no such question may know reservations, but cannot say that it keeps them. */
	if (a->status == RESERVATION_REFUSED && !p->volatile_ok)
		end(p, RESERVATION_NONE, "its target knows no persistent reservations");
	else if (a->status == RESERVATION_GOOD && !a->capabilities.persistent && !p->volatile_ok)
		end(p, RESERVATION_NONE, "its target cannot keep registrations over its own loss of power (Reservation=volatile takes it as it is)");
	else if (a->status == RESERVATION_GOOD && a->capabilities.says_types && !a->capabilities.wero)
		end(p, RESERVATION_NONE, "its target does not know the type write exclusive, registrants only");
	else if (a->status == RESERVATION_GOOD || a->status == RESERVATION_REFUSED)
		go(p, PHASE_LOOK);
	else
		end(p, RESERVATION_FAILED, a->status == RESERVATION_CONFLICT ? "it is reserved by RESERVE(6) or RESERVE(10)" : "REPORT CAPABILITIES was refused");
}

/* What cannot be asked is reserved by none of us, or nobody can do anything about it. */
static void on_look_without(struct reservation_plan *p, const struct reservation_answer *a)
{
	bool any = a->status == RESERVATION_GOOD && has_clusters(p, &a->keys);

	if (p->op == RESERVATION_LOOK && !any)
		end(p, RESERVATION_NONE, "nothing is reserved");
	else if (p->op == RESERVATION_LOOK)
		go(p, PHASE_REGISTER);
	else if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ KEYS was refused");
	else if (!any)
		end(p, RESERVATION_OK, "");
	else if (!has(&a->keys, p->key))
		end(p, RESERVATION_LOST, "its key is not registered any more");
	else
		go(p, PHASE_CONFIRM);
}

static void on_look(struct reservation_plan *p, const struct reservation_answer *a)
{
	uint64_t other;

	if (goes_without(p))
		on_look_without(p, a);
	else if (a->status == RESERVATION_REFUSED)
		end(p, RESERVATION_NONE, "its target knows no persistent reservations");
	else if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ KEYS was refused");
	else if (!find_other(p, &a->keys, &other))
		return;
	else if (p->op == RESERVATION_PROBE)
		end(p, RESERVATION_OK, "");
	else
		go(p, PHASE_REGISTER);
}

/* By one path is enough. */
static void on_confirm_without(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (a->status == RESERVATION_GOOD) {
		go(p, PHASE_OTHERS);
		return;
	}
	p->away |= 1u << p->path;
	go(p, PHASE_CONFIRM);
}

static void on_registered(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "REGISTER was refused");
	else if (p->op == RESERVATION_LOOK)
		end(p, RESERVATION_STANDS, "it is reserved from before");
	else
		next_path(p, PHASE_CONFIRM);
}

static void on_confirm(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (p->op == RESERVATION_CLEAR)
		on_confirm_without(p, a);
	else if (MUTANT(VERIFIED_ON_ONE_PATH) && p->path > 0 && !looks(p))
		confirmed(p);
	else if (a->status == RESERVATION_CONFLICT && p->op != RESERVATION_JOIN)
		end(p, RESERVATION_LOST, "its key is not registered any more, or not on a path that was added or did not answer at its start");
	else if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "a path is not registered");
	else
		confirmed(p);
}

static void on_others(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ KEYS was refused");
	else if (find_other(p, &a->keys, &p->victim))
		go(p, p->victim ? PHASE_PREEMPT : p->op == RESERVATION_CLEAR ? PHASE_UNREGISTER : PHASE_HOLDER);
}

static void on_preempted(struct reservation_plan *p, const struct reservation_answer *a)
{
	if ((a->status == RESERVATION_REFUSED || a->status == RESERVATION_ILLEGAL) && !p->no_abort)
		p->no_abort = true;
	else if (a->status == RESERVATION_GOOD || a->status == RESERVATION_CONFLICT) /* it has gone meanwhile, or we have: read again */
		go(p, PHASE_OTHERS);
	else
		end(p, RESERVATION_FAILED, "PREEMPT was refused");
}

static void on_holder(struct reservation_plan *p, const struct reservation_answer *a)
{
	const struct reservation_holder *h = &a->holder;

	if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ RESERVATION was refused");
	else if (!h->held)
		go(p, PHASE_RESERVE);
	else if (h->type != RESERVATION_WERO)
		end(p, RESERVATION_FAILED, "it is reserved in another way than write exclusive, registrants only");
	else if (looks(p))
		go(p, PHASE_BESIDE); /* whoever holds it: we are registered */
	else if (h->key != p->key && !MUTANT(NOT_PREEMPTED))
		go(p, PHASE_OTHERS); /* whose key has come just now */
	else
		go(p, PHASE_VERIFY_KEYS);
}

static void on_reserved(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (looks(p) && (a->status == RESERVATION_GOOD || a->status == RESERVATION_CONFLICT))
		go(p, PHASE_BESIDE);
	else if (a->status == RESERVATION_GOOD || a->status == RESERVATION_CONFLICT)
		go(p, PHASE_OTHERS);
	else
		end(p, RESERVATION_FAILED, "RESERVE was refused");
}

static void on_verify_keys(struct reservation_plan *p, const struct reservation_answer *a)
{
	uint64_t other;

	if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ KEYS was refused");
	else if (!find_other(p, &a->keys, &other))
		return;
	else if (!has(&a->keys, p->key))
		end(p, RESERVATION_LOST, "its key is not registered any more");
	else if (other)
		go(p, PHASE_OTHERS);
	else
		p->phase = PHASE_VERIFY_HOLDER;
}

static void on_verify_holder(struct reservation_plan *p, const struct reservation_answer *a)
{
	bool ours = a->holder.held && a->holder.type == RESERVATION_WERO && (a->holder.key == p->key || MUTANT(NOT_PREEMPTED));

	if (a->status != RESERVATION_GOOD) {
		end(p, RESERVATION_FAILED, "READ RESERVATION was refused");
	} else if (!ours) {
		go(p, PHASE_OTHERS);
	} else {
		verified(p);
	}
}

static void on_beside(struct reservation_plan *p, const struct reservation_answer *a)
{
	for (unsigned i = 0; a->status == RESERVATION_GOOD && i < a->keys.n; i++)
		if (reservation_whose(p->key, a->keys.key[i]) == RESERVATION_CLUSTERS) {
			end(p, RESERVATION_OTHERS, "another node has registered, too");
			return;
		}
	succeed(p);
}

static void on_released(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (a->status != RESERVATION_GOOD)
		end(p, RESERVATION_FAILED, "READ RESERVATION was refused");
	else if (a->holder.held)
		end(p, RESERVATION_FAILED, "it is still reserved"); /* without our key its guest could not write any more */
	else
		go(p, PHASE_UNREGISTER);
}

static void on_left(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (a->status == RESERVATION_GOOD && p->op == RESERVATION_CLEAR ? !has_clusters(p, &a->keys) : a->status == RESERVATION_GOOD && !has(&a->keys, p->key))
		end(p, RESERVATION_OK, "");
	else if (p->op == RESERVATION_RELEASE && p->away) /* of a path that does not answer: it keeps nobody from writing */
		end(p, RESERVATION_OK, "not every path to it answers");
	else
		end(p, RESERVATION_FAILED, "its key is still registered, or nobody says");
}

/* Going without needs nothing that lasts: who cannot have it says so of the first such command. */
static bool takes_less(struct reservation_plan *p, const struct reservation_answer *a)
{
	if ((a->status != RESERVATION_ILLEGAL && a->status != RESERVATION_REFUSED) || p->volatile_ok || !reservation_next(p).aptpl || !(goes_without(p) || p->op == RESERVATION_LEAVE))
		return false;
	p->volatile_ok = true;
	return true;
}

void reservation_answer(struct reservation_plan *p, const struct reservation_answer *a)
{
	if (p->done)
		return;
	if (a->status == RESERVATION_ERROR) {
		p->later = p->later || a->later;
		unanswered(p);
		return;
	}
	if (takes_less(p, a))
		return;
	switch ((enum phase)p->phase) {
	case PHASE_CAPABILITIES:
		on_capabilities(p, a);
		break;
	case PHASE_LOOK:
		on_look(p, a);
		break;
	case PHASE_REGISTER:
		on_registered(p, a);
		break;
	case PHASE_CONFIRM:
		on_confirm(p, a);
		break;
	case PHASE_OTHERS:
		on_others(p, a);
		break;
	case PHASE_PREEMPT:
		on_preempted(p, a);
		break;
	case PHASE_HOLDER:
		on_holder(p, a);
		break;
	case PHASE_RESERVE:
		on_reserved(p, a);
		break;
	case PHASE_VERIFY_KEYS:
		on_verify_keys(p, a);
		break;
	case PHASE_VERIFY_HOLDER:
		on_verify_holder(p, a);
		break;
	case PHASE_BESIDE:
		on_beside(p, a);
		break;
	case PHASE_RELEASE: /* who does not hold it hears "good", too */
		next_path(p, PHASE_RELEASED);
		break;
	case PHASE_RELEASED:
		on_released(p, a);
		break;
	case PHASE_UNREGISTER: /* whatever comes of it on this path */
		next_path(p, PHASE_LEFT);
		break;
	case PHASE_LEFT:
		on_left(p, a);
		break;
	}
}
