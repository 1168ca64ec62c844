/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libqb's loop and the clock of decisions, for one process that is driven by its input: nothing happens but in a turn, and time passes only
 * when it is told to. Keeper and agent live in worlds of their own: descriptors, timers and time of the other stand still meanwhile. */
#include <errno.h>
#include <poll.h>

#include "agent/base/clock.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FDS 512
#define MAX_TIMERS 1024

struct watch {
	int world, fd;
	short events;
	void *data;
	qb_loop_poll_dispatch_fn fn;
};

struct timer {
	int world;
	qb_loop_timer_handle handle;
	int64_t due_ns;
	void *data;
	qb_loop_timer_dispatch_fn fn;
};

static struct watch watch[MAX_FDS];
static size_t n_watches;
static struct timer timer[MAX_TIMERS];
static size_t n_timers;
static qb_loop_timer_handle last_handle;
static int64_t now_ns[FUZZ_WORLDS] = { NS_PER_MS, NS_PER_MS };
static enum fuzz_world world;
static void (*idle[FUZZ_WORLDS])(void);

void fuzz_world(enum fuzz_world w) { world = w; }
int64_t fuzz_now_ns(void) { return now_ns[world]; }
int64_t clock_now_ns(void) { return now_ns[world]; }
int64_t clock_host_ns(void) { return clock_now_ns(); }
int64_t clock_suspended_ns(void) { return 0; }
void fuzz_loop_idle(void (*fn)(void)) { idle[world] = fn; }

qb_loop_t *qb_loop_create(void) { return (qb_loop_t *)&timer; }
void qb_loop_run(qb_loop_t *l) {} /* the target drives it */
void qb_loop_stop(qb_loop_t *l) {}
int32_t qb_loop_signal_add(qb_loop_t *l, enum qb_loop_priority p, int32_t sig, void *data, qb_loop_signal_dispatch_fn fn,
			   qb_loop_signal_handle *ret)
{
	*ret = NULL;
	return 0;
}

int32_t qb_loop_poll_add(qb_loop_t *l, enum qb_loop_priority p, int32_t fd, int32_t events, void *data, qb_loop_poll_dispatch_fn fn)
{
	for (size_t i = 0; i < n_watches; i++)
		if (watch[i].fd == fd)
			return -EEXIST;
	if (n_watches == MAX_FDS)
		return -ENOMEM;
	watch[n_watches++] = (struct watch){ (int)world, fd, (short)events, data, fn };
	return 0;
}

int32_t qb_loop_poll_mod(qb_loop_t *l, enum qb_loop_priority p, int32_t fd, int32_t events, void *data, qb_loop_poll_dispatch_fn fn)
{
	for (size_t i = 0; i < n_watches; i++)
		if (watch[i].fd == fd) {
			watch[i] = (struct watch){ (int)world, fd, (short)events, data, fn };
			return 0;
		}
	return -EBADF;
}

int32_t qb_loop_poll_del(qb_loop_t *l, int32_t fd)
{
	for (size_t i = 0; i < n_watches; i++)
		if (watch[i].fd == fd) {
			watch[i] = watch[--n_watches];
			return 0;
		}
	return -EBADF;
}

int32_t qb_loop_timer_add(qb_loop_t *l, enum qb_loop_priority p, uint64_t nsec, void *data, qb_loop_timer_dispatch_fn fn,
			  qb_loop_timer_handle *ret)
{
	FUZZ_CHECK(n_timers < MAX_TIMERS); /* nobody may make timers without end */
	FUZZ_CHECK(nsec <= (uint64_t)INT64_MAX - (uint64_t)now_ns[world]);
	timer[n_timers++] = (struct timer){ (int)world, ++last_handle, now_ns[world] + (int64_t)nsec, data, fn };
	*ret = last_handle;
	return 0;
}

int32_t qb_loop_timer_del(qb_loop_t *l, qb_loop_timer_handle handle)
{
	for (size_t i = 0; i < n_timers; i++)
		if (timer[i].handle == handle) {
			timer[i] = timer[--n_timers];
			return 0;
		}
	return -ENOENT;
}

bool fuzz_loop_turn(void)
{
	struct pollfd fds[MAX_FDS];
	size_t n = 0;
	bool any = false;

	if (idle[world])
		idle[world]();
	for (size_t i = 0; i < n_watches; i++)
		if (watch[i].world == (int)world)
			fds[n++] = (struct pollfd){ watch[i].fd, watch[i].events, 0 };
	if (n == 0 || poll(fds, n, 0) <= 0)
		return false;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; fds[i].revents && k < n_watches; k++)
			if (watch[k].fd == fds[i].fd) { /* not taken out by one before it */
				struct watch w = watch[k];

				any = true;
				if (w.fn(w.fd, fds[i].revents, w.data) < 0)
					(void)qb_loop_poll_del(NULL, w.fd);
				break;
			}
	return any;
}

void fuzz_loop_run(int64_t span_ns)
{
	int64_t *now = &now_ns[world], end_ns = *now + span_ns;

	for (;;) {
		struct timer t;
		size_t next = n_timers;

		for (int i = 0; i < 64 && fuzz_loop_turn(); i++)
			;
		for (size_t i = 0; i < n_timers; i++)
			if (timer[i].world == (int)world && timer[i].due_ns <= end_ns && (next == n_timers || timer[i].due_ns < timer[next].due_ns))
				next = i;
		if (next == n_timers)
			break;
		t = timer[next];
		timer[next] = timer[--n_timers];
		*now = MAX(*now, t.due_ns) + 1000; /* whoever asks for the present moment for ever does not get it for ever */
		t.fn(t.data);
	}
	*now = MAX(*now, end_ns);
}

void fuzz_clock_set(int64_t ns)
{
	for (size_t i = 0; i < n_timers; i++)
		if (timer[i].world == (int)world)
			timer[i].due_ns += ns - now_ns[world];
	now_ns[world] = ns;
}

size_t fuzz_loop_timers(void)
{
	size_t n = 0;

	for (size_t i = 0; i < n_timers; i++)
		n += timer[i].world == (int)world;
	return n;
}
