/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume with several addresses: each is a path, a volume of its own with its own session, deadlines and back-off.
 *
 * Read: on every path, each into a buffer of its own; the first good answer is the operation's, an error counts when no path does better.
 *
 * Write: never on two paths, and never on one that has not just answered. Each path is asked to read one block where the write will go; the first
 * that answers gets the write. So a path that was cut or hangs is not what a write gets stuck on, save in the moment between the two. A write that no
 * path was found for was not issued: a definite end.
 *
 *   asking --a path answers--> sent --its answer--> over
 *      |                        | nobody knows
 *      v no path in time        v
 *    over, not issued         lost: the volume's session ends; settled when this path, in a new session, has read the place again, or any path reads
 *                                   what was written
 *
 * A write that is lost on one path may still wait in whatever is behind this path (a controller that hangs, say). That another path answers says nothing
 * of it. So the volume tells that it is "destroyed", from where on T_drain counts, only when the same path has answered a read that was sent after the
 * end of the write's session. Before that only its own content, read back by any path, ends it: there is no second copy of it on the way, and the place held
 * something else when the path was asked. That is what a cut finds mostly, as a request is on the wire for less time than its answer takes. If neither
 * comes what is left is to start the daemon again, whose first write waits as after any crash.
 *
 * Paths must lead to the same disk: the first that gets ready says which, for the life of the volume, and others are not used. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "storage/backend.h"

#define ASK_LEN ((uint32_t)VOLUME_ALIGN)
#define CHECK_LEN_MAX (64U * 1024) /* longer writes are not looked for */
#define PROOF_MS 5000

enum leg_kind { LEG_READ, LEG_ASK, LEG_WRITE, LEG_PROOF, LEG_CHECK };

struct multi;
struct transfer;

struct path {
	struct multi *m;
	struct volume *volume;
	unsigned index;
	char address[INET6_ADDRSTRLEN + 8];
	bool is_used;    /* ready, and of the same disk as the others */
	bool is_proving; /* a LEG_PROOF is under way */
	unsigned losses;
	char reason[VOLUME_REASON_LEN]; /* why it is not used; "" if it is */
};

/* One operation on one path. Legs are kept for the next operations. */
struct leg {
	struct leg *next;
	struct volume_io io;
	struct path *path;
	struct transfer *transfer; /* NULL: nobody waits for it any more, or a proof */
	enum leg_kind kind;
	enum volume_result result;
	bool is_busy;
	void *buf; /* of size bytes */
	uint32_t size;
};

/* What is done for one part of the front. Freed when neither the part nor a leg is left. */
struct transfer {
	struct transfer *next;
	struct multi *m;
	struct volume_part *part; /* NULL once it was reported, or dropped with the session */
	unsigned legs;
	unsigned asked, answered, erred; /* writing: paths as bits: no answer yet; good answer, not tried; the read has failed there, not tried */
	enum volume_result worst;
	struct path *sent_on;     /* the write went this way */
	bool is_new;              /* the place held something else than what is written */
	bool is_lost;             /* its fate is unknown, its session is gone */
	bool is_proving;          /* lost before the proof that is under way was sent */
};

struct multi {
	struct volume *v;
	struct path path[VOLUME_PATHS_MAX];
	unsigned n;
	struct leg *legs;
	struct transfer *transfers;
	uint8_t identity[VOLUME_IDENTITY_LEN];
	unsigned identity_len; /* 0: no path was ready yet */
	uint64_t size;
	bool is_checking;      /* a LEG_CHECK is under way */
	unsigned depth;        /* of callbacks on the stack */
	bool is_over;
};

static uint32_t left_ms(const struct volume_part *part)
{
	struct timespec ts;
	uint64_t now;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	now = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
	return part->io->deadline_ns > now ? (uint32_t)((part->io->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

static void on_leg_done(struct volume_io *io, enum volume_result result);
static void on_leg_settled(struct volume_io *io, enum volume_settle how);

static struct leg *leg_get(struct multi *m, uint32_t size)
{
	struct leg *l;

	for (l = m->legs; l; l = l->next)
		if (!l->is_busy && l->size >= size)
			return l;
	size = MAX(size, ASK_LEN);
	l = calloc(1, sizeof(*l));
	if (!l || posix_memalign(&l->buf, VOLUME_ALIGN, size) != 0) {
		free(l);
		return NULL;
	}
	l->size = size;
	l->next = m->legs;
	m->legs = l;
	return l;
}

/* buf: NULL for the leg's own. False if there is no memory for it. */
static bool leg_start(struct path *p, struct transfer *t, enum leg_kind kind, void *buf, uint64_t offset, uint32_t len, uint32_t timeout_ms)
{
	struct leg *l = leg_get(p->m, buf ? 0 : len);

	if (!l)
		return false;
	l->is_busy = true;
	l->path = p;
	l->transfer = t;
	l->kind = kind;
	l->io = (struct volume_io){ .buf = buf ? buf : l->buf, .offset = offset, .len = len, .timeout_ms = timeout_ms, .done = on_leg_done,
				    .settled = on_leg_settled, .user = l };
	if (t)
		t->legs++;
	if (kind == LEG_WRITE)
		volume_write(p->volume, &l->io);
	else
		volume_read(p->volume, &l->io);
	return true;
}

static void transfer_release(struct transfer *t)
{
	struct transfer **p = &t->m->transfers;

	if (t->part || t->legs > 0)
		return;
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	free(t);
}

static void transfer_over(struct transfer *t, enum volume_result result)
{
	struct volume_part *part = t->part;

	t->part = NULL;
	backend_part_done(part, result);
}

static bool is_unknown(enum volume_result r) { return r == VOLUME_E_TIMEOUT || r == VOLUME_E_SESSION; }

/* legs counts this one, too. */
static void read_answered(struct transfer *t, const struct leg *l)
{
	if (l->result == VOLUME_OK) {
		memcpy(t->part->buf, l->buf, t->part->len);
		transfer_over(t, VOLUME_OK);
		return;
	}
	if (t->worst == VOLUME_OK || is_unknown(t->worst))
		t->worst = l->result;
	if (t->legs > 1)
		return;
	if (is_unknown(t->worst))
		backend_lost(t->m->v, "no path has answered a read");
	else
		transfer_over(t, t->worst);
}

/* Sends the write on a path that has answered, or ends it when there is none and none to wait for. */
static void write_send(struct transfer *t)
{
	struct multi *m = t->m;
	uint32_t left = left_ms(t->part);

	if (t->asked == 0 && t->answered == 0)
		t->answered = t->erred; /* a place that cannot be read may still be written; the target's own word is better than ours, too */
	while (t->answered != 0 && left > 0 && t->part->volume && !m->v->is_lost) {
		struct path *p = &m->path[__builtin_ctz(t->answered)];

		t->answered &= ~(1U << p->index);
		t->erred &= ~(1U << p->index);
		if (!p->is_used || !leg_start(p, t, LEG_WRITE, t->part->buf, t->part->offset, t->part->len, left))
			continue;
		t->sent_on = p;
		return;
	}
	if (t->asked == 0 || !t->part->volume)
		transfer_over(t, VOLUME_E_NOT_READY);
}

static void ask_answered(struct transfer *t, const struct leg *l)
{
	unsigned bit = 1U << l->path->index;

	t->asked &= ~bit;
	if (l->result == VOLUME_OK)
		t->answered |= bit;
	if (l->result == VOLUME_OK && !t->sent_on)
		t->is_new = l->io.len == t->part->len && memcmp(l->buf, t->part->buf, l->io.len) != 0;
	else if (l->result == VOLUME_E_IO)
		t->erred |= bit;
	if (!t->sent_on && t->part)
		write_send(t);
}

static void write_answered(struct transfer *t, const struct leg *l)
{
	if (l->result == VOLUME_E_NOT_READY) { /* the path was lost meanwhile: it was not issued there */
		t->sent_on = NULL;
		write_send(t);
	} else
		transfer_over(t, l->result);
}

static void on_leg_done(struct volume_io *io, enum volume_result result)
{
	struct leg *l = io->user;
	struct transfer *t = l->transfer;

	l->result = result;
	if (t && result != VOLUME_OK && t->part && t->part->volume)
		(void)str_copy(t->m->v->refusal, sizeof(t->m->v->refusal), volume_refusal(l->path->volume));
	if (l->kind == LEG_WRITE && is_unknown(result) && t->part->volume)
		backend_lost(t->m->v, "path %s: no answer to a write: nothing newer goes out before it is known to be over", l->path->address);
}

/* Lost writes whose wait has ended: those of a path that its proof covers, or all (p NULL) because the volume goes. */
static void resolve(struct multi *m, const struct path *p)
{
	struct transfer *t = m->transfers;

	while (t) {
		struct volume_part *part = t->part;

		if (!t->is_lost || part->volume || (p && (t->sent_on != p || !t->is_proving))) {
			t = t->next;
			continue;
		}
		t->part = NULL;
		t->is_lost = false;
		transfer_release(t);
		part->io->is_lost = true;
		backend_part_done(part, VOLUME_E_SESSION);
		t = m->transfers; /* the callback may have done anything */
	}
}

/* Is it alone in its place, so that what is read there can only be its own? */
static bool can_be_seen(const struct transfer *t)
{
	if (!t->is_lost || !t->is_new || t->part->volume)
		return false;
	for (const struct transfer *o = t->m->transfers; o; o = o->next)
		if (o != t && o->part && o->sent_on && o->part->offset < t->part->offset + t->part->len && t->part->offset < o->part->offset + o->part->len)
			return false;
	return true;
}

static struct transfer *first_to_see(const struct multi *m)
{
	for (struct transfer *t = m->transfers; t; t = t->next)
		if (can_be_seen(t))
			return t;
	return NULL;
}

/* Looks whether a lost write has landed; p has just answered something. */
static void check(struct path *p)
{
	struct transfer *t = p->m->is_checking || !p->is_used || p->m->is_over ? NULL : first_to_see(p->m);

	if (t)
		p->m->is_checking = leg_start(p, t, LEG_CHECK, NULL, t->part->offset, t->part->len, PROOF_MS);
}

/* The transfer of a check cannot be over in another way meanwhile without its part being gone. */
static void checked(struct transfer *t, const struct leg *l)
{
	if (!t->part || l->result != VOLUME_OK || !can_be_seen(t) || memcmp(l->buf, t->part->buf, l->io.len) != 0)
		return;
	t->is_lost = false;
	transfer_over(t, VOLUME_OK);
}

static void prove(struct path *p)
{
	const struct transfer *any = NULL;

	if (p->is_proving || !p->is_used || p->m->is_over)
		return;
	for (struct transfer *t = p->m->transfers; t; t = t->next) {
		if (t->sent_on != p)
			continue; /* the other paths' proofs go on */
		t->is_proving = t->is_lost;
		if (t->is_proving)
			any = t;
	}
	if (any)
		p->is_proving = leg_start(p, NULL, LEG_PROOF, NULL, any->part->offset, ASK_LEN, PROOF_MS);
}

static void leave(struct multi *m)
{
	if (--m->depth == 0 && m->is_over)
		free(m);
}

/* A user's callback may run in here, and close the volume. */
static void on_leg_settled(struct volume_io *io, enum volume_settle how)
{
	struct leg *l = io->user;
	struct path *p = l->path;
	struct multi *m = p->m;
	struct transfer *t = l->transfer;
	enum leg_kind kind = l->kind;
	bool is_ok = l->result == VOLUME_OK;

	m->depth++;
	l->is_busy = false;
	if (l->kind == LEG_PROOF) {
		p->is_proving = false;
		if (is_ok)
			resolve(m, p);
	} else if (l->kind == LEG_CHECK) {
		m->is_checking = false;
		checked(t, l);
	} else if (l->kind == LEG_WRITE && is_unknown(l->result) && how == VOLUME_DESTROYED)
		t->is_lost = true;
	else if (l->kind == LEG_WRITE)
		write_answered(t, l);
	else if (t->part && t->part->volume && l->kind == LEG_READ)
		read_answered(t, l);
	else if (t->part && t->part->volume)
		ask_answered(t, l);
	if (t) {
		t->legs--;
		transfer_release(t);
	}
	if (is_ok)
		prove(p);
	if (is_ok && kind != LEG_CHECK) /* once for each answer, not in a circle */
		check(p);
	leave(m);
}

static bool any_used(const struct multi *m)
{
	for (unsigned i = 0; i < m->n; i++)
		if (m->path[i].is_used)
			return true;
	return false;
}

static bool any_opening(const struct multi *m)
{
	for (unsigned i = 0; i < m->n; i++)
		if (volume_state(m->path[i].volume) == VOLUME_OPENING)
			return true;
	return false;
}

static void no_path(struct multi *m)
{
	char text[VOLUME_REASON_LEN] = "";
	size_t n = 0;

	for (unsigned i = 0; i < m->n && n < sizeof(text) - 1; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? "; " : "", m->path[i].reason);
	backend_lost(m->v, "no path: %s", text);
}

/* What the paths are now, for the front. */
static void update(struct multi *m)
{
	struct volume *v = m->v;
	bool read_only = true;

	for (unsigned i = 0; i < m->n; i++)
		if (m->path[i].is_used && !m->path[i].volume->target_read_only)
			read_only = false;
	if (any_used(m)) {
		v->target_read_only = read_only;
		if (v->state == VOLUME_BACKOFF)
			backend_retry_now(v);
		else if (v->state == VOLUME_OPENING && !v->is_ready && !v->is_lost)
			backend_ready(v, m->size, VOLUME_MAX_LEN, read_only);
	} else if (v->state == VOLUME_READY || v->is_ready || (v->state == VOLUME_OPENING && !any_opening(m)))
		no_path(m);
}

static bool is_same_disk(struct path *p)
{
	struct multi *m = p->m;
	const struct volume *v = p->volume;
	const char *why = NULL;

	if (v->identity_len == 0)
		why = "the LUN has no name (INQUIRY page 83h) to tell it from others; use one address";
	else if (m->identity_len == 0) {
		m->identity_len = v->identity_len;
		memcpy(m->identity, v->identity, v->identity_len);
		m->size = v->size;
	} else if (m->identity_len != v->identity_len || memcmp(m->identity, v->identity, v->identity_len) != 0)
		why = "another disk than before; correct the address, or restart the daemon if it was replaced";
	else if (m->size != v->size)
		why = "the disk has another size than it had; restart the daemon if it was resized";
	if (why)
		(void)snprintf(p->reason, sizeof(p->reason), "%.50s: %.105s", p->address, why);
	return !why;
}

static void on_path_state(struct volume *volume, enum volume_state state, const char *reason, void *user)
{
	struct path *p = user;
	struct multi *m = p->m;
	struct volume *v = m->v;
	bool was_used = p->is_used;
	char before[VOLUME_REASON_LEN];

	(void)str_copy(before, sizeof(before), p->reason);
	p->is_used = state == VOLUME_READY && is_same_disk(p);
	if (p->is_used)
		p->reason[0] = '\0';
	else if (state == VOLUME_BACKOFF)
		(void)str_copy(p->reason, sizeof(p->reason), reason);
	p->losses += was_used && !p->is_used;
	m->depth++;
	update(m);
	prove(p);
	if (v->on_path && (was_used != p->is_used || !streq(before, p->reason)))
		v->on_path(v, p->index, v->user);
	leave(m);
}

int volume_multi_new(struct volume *v, const struct volume_options *options, char *err, size_t err_size)
{
	struct volume_options o = *options;
	struct multi *m = calloc(1, sizeof(*m));
	struct volume_address address;
	char url[VOLUME_URL_LEN];
	int r = 0;

	if (!m)
		return -ENOMEM;
	o.is_path = true;
	o.on_path = NULL;
	m->v = v;
	for (; m->n < v->address.n_hosts && r == 0; m->n += r == 0) {
		struct path *p = &m->path[m->n];

		*p = (struct path){ .m = m, .index = m->n };
		volume_url_of_path(v->url, m->n, url);
		r = volume_address_parse(url, &address, err, err_size);
		(void)snprintf(p->address, sizeof(p->address), address.port == 0 ? "%s" : address.is_ipv6 ? "[%s]:%u" : "%s:%u", address.host, address.port);
		(void)str_copy(p->reason, sizeof(p->reason), "connecting");
		if (r == 0)
			r = volume_open(v->loop, url, &o, on_path_state, p, &p->volume, err, err_size);
	}
	if (r < 0) {
		for (unsigned i = 0; i < m->n; i++)
			volume_close(m->path[i].volume);
		free(m);
		return r;
	}
	v->home = m;
	return 0;
}

/* The sessions are the paths' own and go on. */
static void multi_session_open(struct volume *v)
{
	v->step = "waiting for a path";
	update(v->home);
}

static int multi_session_submit(struct volume *v, struct volume_part *part)
{
	struct multi *m = v->home;
	struct transfer *t = calloc(1, sizeof(*t));
	uint32_t left = MAX(left_ms(part), 1U); /* asking ends before it, so that a write that no path was found for is known not to be issued */

	if (!t)
		return -ENOMEM;
	t->m = m;
	for (unsigned i = 0; i < m->n; i++) {
		struct path *p = &m->path[i];

		if (!p->is_used || (part->is_write && p->volume->target_read_only))
			continue;
		if (!part->is_write)
			(void)leg_start(p, t, LEG_READ, NULL, part->offset, part->len, left);
		else if (leg_start(p, t, LEG_ASK, NULL, part->offset, part->len <= CHECK_LEN_MAX ? part->len : ASK_LEN, MAX(left - left / 8, 1U)))
			t->asked |= 1U << i;
	}
	if (t->legs == 0) {
		free(t);
		return -ENOTCONN;
	}
	t->part = part;
	t->next = m->transfers;
	m->transfers = t;
	return 0;
}

/* A write that was sent stays with its path; what else was under way is not waited for any more. */
static void multi_session_close(struct volume *v)
{
	struct multi *m = v->home;
	struct transfer *t, *next;

	for (t = m->transfers; t; t = next) {
		next = t->next;
		if (!t->part || !t->part->volume)
			continue;
		if (t->sent_on)
			t->part->is_stuck = true;
		else
			t->part = NULL;
		transfer_release(t);
	}
}

static void multi_forget(struct volume *v)
{
	struct multi *m = v->home;

	m->is_over = true;
	m->depth++;
	for (unsigned i = 0; i < m->n; i++)
		volume_close(m->path[i].volume);
	resolve(m, NULL);
	while (m->legs) {
		struct leg *l = m->legs;

		CHECK(!l->is_busy); /* a network session's end settles everything */
		m->legs = l->next;
		free(l->buf);
		free(l);
	}
	leave(m);
}

unsigned volume_paths(const struct volume *v)
{
	return v->backend == &backend_multi ? v->address.n_hosts : 0;
}

void volume_path(const struct volume *v, unsigned i, struct volume_path *ret)
{
	const struct multi *m = v->home;
	const struct path *p = &m->path[i];
	unsigned unresolved = 0;

	CHECK(i < volume_paths(v));
	for (const struct transfer *t = m->transfers; t; t = t->next)
		unresolved += t->is_lost && t->sent_on == p;
	*ret = (struct volume_path){ .address = p->address, .state = volume_state(p->volume), .is_used = p->is_used, .reason = p->reason,
				     .losses = p->losses, .unresolved = unresolved };
}

const struct backend backend_multi = {
	.open = multi_session_open,
	.submit = multi_session_submit,
	.close = multi_session_close,
	.forget = multi_forget,
};
