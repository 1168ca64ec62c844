/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The front of a volume: states, deadlines, and who is told what, when.
 *
 *   OPENING --ready--> READY --lost--> BACKOFF --timer--> OPENING
 *      +------lost or connect_timeout_ms-----^
 *
 * Everything a back end or a timer notices is only noted (is_lost, is_ready, a result in an io) and a timer of 0 ns is set; volume_work() then
 * ends the session first, so that nothing more can leave this node, and tells the user after. The user's callbacks are made by
 * deliver_one() and report_state() alone (and by part_ended() for what outlived its volume) and may do anything, even close the
 * volume: is_closed and depth keep it alive until they return. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "storage/backend.h"

#define CONNECT_TIMEOUT_MS 2000
#define BACKOFF_MS 250
#define BACKOFF_FACTOR_MAX 16

static void session_begin(struct volume *v);
static void volume_work(void *data);

static uint64_t now_ns(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void schedule(struct volume *v)
{
	if (v->is_scheduled || v->is_closed)
		return;
	/* Not a job: with nothing but jobs to do libqb's loop sleeps for 50 ms before it looks at them. */
	CHECK(qb_loop_timer_add(v->loop, QB_LOOP_HIGH, 0, v, volume_work, &v->work_timer) == 0);
	v->is_scheduled = true;
}

static void phase_timer_stop(struct volume *v)
{
	if (v->has_phase_timer)
		(void)qb_loop_timer_del(v->loop, v->phase_timer);
	v->has_phase_timer = false;
}

static void phase_timer_start(struct volume *v, uint32_t ms, qb_loop_timer_dispatch_fn fn)
{
	phase_timer_stop(v);
	CHECK(qb_loop_timer_add(v->loop, QB_LOOP_HIGH, ms * (uint64_t)NS_PER_MS, v, fn, &v->phase_timer) == 0);
	v->has_phase_timer = true;
}

static void deadline_timer_stop(struct volume *v)
{
	if (v->deadline_ns != 0)
		(void)qb_loop_timer_del(v->loop, v->deadline_timer);
	v->deadline_ns = 0;
}

static void on_deadline(void *data);

/* Lets the timer wait for the earliest operation without a result. */
static void deadline_timer_update(struct volume *v)
{
	uint64_t first = 0, now;

	for (struct volume_io *io = v->ios; io; io = io->next)
		if (!io->has_result && (first == 0 || io->deadline_ns < first))
			first = io->deadline_ns;
	if (first == v->deadline_ns)
		return;
	deadline_timer_stop(v);
	if (first == 0)
		return;
	now = now_ns();
	CHECK(qb_loop_timer_add(v->loop, QB_LOOP_HIGH, first > now ? first - now : 0, v, on_deadline, &v->deadline_timer) == 0);
	v->deadline_ns = first;
}

static void on_deadline(void *data)
{
	struct volume *v = data;
	uint64_t now = now_ns();

	v->deadline_ns = 0;
	for (struct volume_io *io = v->ios; io; io = io->next) {
		if (io->has_result || io->deadline_ns > now)
			continue;
		io->has_result = true;
		io->result = VOLUME_E_TIMEOUT;
		backend_lost(v, "no answer to a %s within %u ms", io->is_write ? "write" : "read", io->timeout_ms);
	}
	deadline_timer_update(v);
}

static void on_connect_timeout(void *data)
{
	struct volume *v = data;

	v->has_phase_timer = false;
	backend_lost(v, "no answer within %u ms while %s", v->connect_timeout_ms, v->step);
}

static void on_backoff_over(void *data)
{
	struct volume *v = data;

	v->has_phase_timer = false;
	v->is_unreported = true;
	session_begin(v);
}

static void session_begin(struct volume *v)
{
	v->state = VOLUME_OPENING;
	v->step = "connecting";
	v->is_ready = false;
	v->is_lost = false;
	phase_timer_start(v, v->connect_timeout_ms, on_connect_timeout);
	v->backend->open(v);
	schedule(v);
}

/* Closes the session; what was under way on it is unknown for ever, save the parts a system call holds, which will be reported. */
static void session_close(struct volume *v)
{
	v->backend->close(v);
	while (v->parts) {
		struct volume_part *part = v->parts;

		v->parts = part->next;
		part->volume = NULL;
		if (part->is_stuck)
			continue;
		part->io->is_lost = true;
		part->io->parts_left--;
		free(part);
	}
	for (struct volume_io *io = v->ios; io; io = io->next) {
		if (!io->has_result)
			io->result = VOLUME_E_SESSION;
		io->has_result = true;
	}
	deadline_timer_stop(v);
}

static void session_end(struct volume *v)
{
	session_close(v);
	v->is_lost = false;
	v->is_ready = false;
	v->state = VOLUME_BACKOFF;
	v->is_unreported = true;
	phase_timer_start(v, v->wait_ms, on_backoff_over);
	v->wait_ms = MIN(v->wait_ms * 2, v->backoff_ms * BACKOFF_FACTOR_MAX);
}

static void unlink_io(struct volume *v, struct volume_io *io)
{
	struct volume_io **p = &v->ios;

	while (*p != io)
		p = &(*p)->next;
	*p = io->next;
	io->next = NULL;
	io->volume = NULL;
}

/* Makes one callback that is due. A result with parts left exists only after the session's end: those parts are stuck in a system
 * call, and the io leaves the volume to be settled from there. */
static bool deliver_one(struct volume *v)
{
	struct volume_io *io;

	for (io = v->ios; io; io = io->next)
		if (io->has_result)
			break;
	if (!io)
		return false;
	if (io->is_done) {
		unlink_io(v, io);
		io->settled(io, io->is_lost ? VOLUME_DESTROYED : VOLUME_COMPLETED);
		return true;
	}
	io->is_done = true;
	if (io->parts_left > 0)
		unlink_io(v, io);
	io->done(io, io->result);
	return true;
}

static void report_state(struct volume *v)
{
	if (!v->is_unreported)
		return;
	v->is_unreported = false;
	if (v->on_state)
		v->on_state(v, v->state, v->state == VOLUME_READY ? "" : v->reason, v->user);
}

static void volume_free(struct volume *v)
{
	explicit_bzero(&v->secrets, sizeof(v->secrets));
	free(v);
}

static void volume_work(void *data)
{
	struct volume *v = data;

	v->is_scheduled = false;
	v->depth++;
	report_state(v);
	if (!v->is_closed && v->is_lost)
		session_end(v);
	if (!v->is_closed && v->is_ready) {
		v->is_ready = false;
		phase_timer_stop(v);
		v->state = VOLUME_READY;
		v->reason[0] = '\0';
		v->is_unreported = true;
	}
	while (!v->is_closed && !v->is_lost && deliver_one(v))
		;
	if (!v->is_closed)
		report_state(v);
	if (!v->is_closed)
		deadline_timer_update(v);
	if (--v->depth == 0 && v->is_closed)
		volume_free(v);
}

void backend_ready(struct volume *v, uint64_t size, uint32_t max_part, bool target_read_only)
{
	v->size = size - size % VOLUME_ALIGN;
	v->max_part = MAX(max_part - max_part % VOLUME_ALIGN, (uint32_t)VOLUME_ALIGN);
	v->target_read_only = target_read_only;
	v->is_ready = true;
	schedule(v);
}

void backend_lost(struct volume *v, const char *fmt, ...)
{
	va_list ap;

	if (v->is_lost)
		return;
	v->is_lost = true;
	va_start(ap, fmt);
	(void)vsnprintf(v->reason, sizeof(v->reason), fmt, ap);
	va_end(ap);
	for (char *c = v->reason; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' '; /* one line, whatever a library put in */
	schedule(v);
}

void backend_retry_now(struct volume *v)
{
	if (v->state == VOLUME_BACKOFF && v->has_phase_timer)
		phase_timer_start(v, 0, on_backoff_over);
}

/* One part less: answered or, with the session, lost. */
static void part_ended(struct volume_io *io)
{
	if (--io->parts_left > 0)
		return;
	io->has_result = true;
	if (io->volume)
		schedule(io->volume);
	else
		io->settled(io, io->is_lost ? VOLUME_DESTROYED : VOLUME_COMPLETED);
}

static void unlink_part(struct volume *v, struct volume_part *part)
{
	struct volume_part **p = &v->parts;

	while (*p != part)
		p = &(*p)->next;
	*p = part->next;
}

void backend_part_done(struct volume_part *part, enum volume_result result)
{
	struct volume_io *io = part->io;
	struct volume *v = part->volume;

	if (v) {
		unlink_part(v, part);
		if (result == VOLUME_OK) {
			v->is_write_failing &= !part->is_write;
			if (!v->is_write_failing)
				v->wait_ms = v->backoff_ms;
			v->refusal[0] = '\0';
		}
	}
	free(part);
	if (result != VOLUME_OK && io->result == VOLUME_OK)
		io->result = result;
	part_ended(io);
}

void backend_refused(struct volume_part *part, enum volume_result result, const char *fmt, ...)
{
	va_list ap;

	if (part->volume) {
		va_start(ap, fmt);
		(void)vsnprintf(part->volume->refusal, sizeof(part->volume->refusal), fmt, ap);
		va_end(ap);
	}
	backend_part_done(part, result);
}

enum volume_result backend_result_of_errno(int err, bool is_write)
{
	if (is_write && (err == EROFS || err == EPERM || err == EACCES))
		return VOLUME_E_READONLY;
	if (is_write && (err == ENOSPC || err == EDQUOT))
		return VOLUME_E_NOSPACE;
	return VOLUME_E_IO;
}

/* Sends the part that begins at a byte of io; if that fails the session is lost. A library may answer from inside the submit, so all is in
 * place before. */
static bool issue_part(struct volume *v, struct volume_io *io, uint32_t at)
{
	struct volume_part *part = calloc(1, sizeof(*part));
	int r = -ENOMEM;

	if (part) {
		*part = (struct volume_part){ .next = v->parts, .volume = v, .io = io, .buf = (uint8_t *)io->buf + at,
			.offset = io->offset + at, .len = MIN(io->len - at, v->max_part), .is_write = io->is_write };
		v->parts = part;
		io->parts_left++;
		r = v->backend->submit(v, part);
		if (r == 0)
			return true;
		io->parts_left--;
		unlink_part(v, part);
		free(part);
	}
	backend_lost(v, "cannot send a %s: %s", io->is_write ? "write" : "read", strerror(-r));
	return false;
}

/* Cuts io into parts and sends them. If memory or the library gives out on the way, what was sent ends with the session. */
static void issue(struct volume *v, struct volume_io *io)
{
	io->parts_left = 1; /* so that it does not end before all of it is sent */
	for (uint32_t at = 0; at < io->len; at += v->max_part) {
		if (issue_part(v, io, at))
			continue;
		io->result = at == 0 ? VOLUME_E_NOT_READY : VOLUME_E_SESSION;
		io->is_lost = at > 0;
		break;
	}
	part_ended(io);
}

static void submit(struct volume *v, struct volume_io *io, bool is_write)
{
	struct volume_io **tail = &v->ios;
	enum volume_result refused = VOLUME_OK;

	CHECK(!v->is_closed);
	CHECK(io->done && io->settled && io->timeout_ms > 0 && io->len > 0 && io->len <= VOLUME_MAX_LEN);
	CHECK((uintptr_t)io->buf % VOLUME_ALIGN == 0 && io->offset % VOLUME_ALIGN == 0 && io->len % VOLUME_ALIGN == 0);
	io->volume = v;
	io->next = NULL;
	io->deadline_ns = now_ns() + io->timeout_ms * (uint64_t)NS_PER_MS;
	io->parts_left = 0;
	io->result = VOLUME_OK;
	io->is_write = is_write;
	io->has_result = io->is_done = io->is_lost = false;
	while (*tail)
		tail = &(*tail)->next;
	*tail = io;

	if (v->state != VOLUME_READY || v->is_lost)
		refused = VOLUME_E_NOT_READY;
	else if (is_write && (v->read_only || v->target_read_only))
		refused = VOLUME_E_READONLY;
	else if (io->offset > v->size || io->len > v->size - io->offset)
		refused = VOLUME_E_IO;
	if (refused != VOLUME_OK) {
		io->has_result = true;
		io->result = refused;
		schedule(v);
		return;
	}
	issue(v, io);
	deadline_timer_update(v);
}

void volume_read(struct volume *v, struct volume_io *io)
{
	submit(v, io, false);
}

void volume_write(struct volume *v, struct volume_io *io)
{
	submit(v, io, true);
}

int volume_url_check(const char *url, char *err, size_t err_size)
{
	struct volume_address address;

	return volume_address_parse(url, &address, err, err_size);
}

int volume_open(qb_loop_t *loop, const char *url, const struct volume_options *options, volume_state_fn on_state, void *user,
		struct volume **ret, char *err, size_t err_size)
{
	static const struct volume_options defaults;
	static const struct backend *const backends[] = { [VOLUME_ISCSI] = &backend_iscsi, [VOLUME_NFS] = &backend_nfs,
							  [VOLUME_PATH] = &backend_path };
	const struct volume_options *o = options ? options : &defaults;
	struct volume *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return -ENOMEM;
	r = volume_address_parse(url, &v->address, err, err_size);
	if (r == 0 && v->address.kind == VOLUME_ISCSI) {
		r = volume_initiator_set(o->initiator, v->initiator, err, err_size);
		if (r == 0 && o->secret_file)
			r = volume_secrets_load(o->secret_file, v->address.target, &v->secrets, err, err_size);
	}
	if (r < 0) {
		volume_free(v);
		return r;
	}
	(void)str_copy(v->url, sizeof(v->url), url);
	v->loop = loop;
	if (v->address.n_hosts > 1) {
		r = volume_multi_new(v, o, err, err_size);
		if (r < 0) {
			volume_free(v);
			return r;
		}
	}
	v->backend = v->address.n_hosts > 1 ? &backend_multi : backends[v->address.kind];
	v->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	v->backoff_ms = o->backoff_ms ? o->backoff_ms : BACKOFF_MS;
	v->wait_ms = v->backoff_ms;
	v->read_only = o->read_only;
	v->is_path = o->is_path;
	v->on_path = o->on_path;
	v->on_state = on_state;
	v->user = user;
	session_begin(v);
	*ret = v;
	return 0;
}

void volume_close(struct volume *v)
{
	if (!v)
		return;
	CHECK(!v->is_closed);
	v->is_closed = true;
	v->depth++;
	if (v->is_scheduled)
		(void)qb_loop_timer_del(v->loop, v->work_timer);
	phase_timer_stop(v);
	session_close(v);
	while (deliver_one(v))
		;
	if (v->backend->forget)
		v->backend->forget(v);
	if (--v->depth == 0)
		volume_free(v);
}

enum volume_state volume_state(const struct volume *v)
{
	return v->state;
}

const char *volume_refusal(const struct volume *v)
{
	return v->refusal;
}

const char *volume_reason(const struct volume *v)
{
	return v->state == VOLUME_READY ? "" : v->reason;
}

const char *volume_why(const struct volume *v, enum volume_result result)
{
	const char *text = "";

	if (result == VOLUME_E_IO || result == VOLUME_E_READONLY || result == VOLUME_E_NOSPACE)
		text = volume_refusal(v);
	else if (result == VOLUME_E_SESSION)
		text = volume_reason(v);
	return *text ? text : volume_result_name(result);
}

const char *volume_url(const struct volume *v)
{
	return v->url;
}

uint64_t volume_size(const struct volume *v)
{
	return v->size;
}

const char *volume_result_name(enum volume_result r)
{
	static const char *const names[] = {
		[VOLUME_OK] = "ok", [VOLUME_E_IO] = "I/O error", [VOLUME_E_READONLY] = "read-only", [VOLUME_E_NOSPACE] = "no space",
		[VOLUME_E_NOT_READY] = "volume not ready", [VOLUME_E_TIMEOUT] = "no answer in time", [VOLUME_E_SESSION] = "session lost",
	};

	return (size_t)r < ARRAY_SIZE(names) ? names[r] : "unknown";
}

const char *volume_state_name(enum volume_state s)
{
	static const char *const names[] = { [VOLUME_OPENING] = "opening", [VOLUME_READY] = "ready", [VOLUME_BACKOFF] = "waiting to retry" };

	return (size_t)s < ARRAY_SIZE(names) ? names[s] : "unknown";
}
