/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>

#define HISTORY_LINES 4096
#define HISTORY_LEN 200
#define CACHE_LINE 64

struct sim sim;

/* The queue: keys in order, the soonest last, and the events they stand for. Most of what is posted is due before most of what waits, so that it finds its
 * place near the end; an array that is kept in order costs less than a heap then. */
struct key {
	int64_t at;
	uint64_t order; /* of all that are posted: equal times go by it; below it the event's slot */
};

#define SLOT_BITS 18
#define STRIDE 16

static struct key queue[1 << SLOT_BITS];
static struct sim_event slots[1 << SLOT_BITS]; /* of these the lowest are in use: most stay untouched */
static uint32_t free_slots[1 << SLOT_BITS];
static size_t queue_n, n_free_slots, n_slots;
static uint64_t next_order;

/* Timers are set anew far more often than they fire, mostly to a later time: kept apart, that costs nothing. */
#define MAX_TIMERS (3 * (SIM_MAX_NODES + 1))
static struct {
	int64_t at[MAX_TIMERS];
	struct sim_timer *of[MAX_TIMERS];
	unsigned n;
	int64_t not_before; /* none is due before that */
} timers;

static char history[HISTORY_LINES][HISTORY_LEN];
static uint64_t history_n, hash;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

uint64_t rnd(uint64_t below)
{
	sim.rng += 0x9e3779b97f4a7c15ULL;
	return below ? mix(sim.rng) % below : 0;
}

uint64_t rnd_stream(uint64_t kind, uint64_t n) { return mix(mix(sim.seed * 1000 + kind + 1) + n); }

/* Objects of the pools live as long as the process: an event that is dropped at the end of a world may be the last to know one. */
void *pool_alloc(size_t size)
{
	static void *all;
	size_t whole = (CACHE_LINE + size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	void **head = aligned_alloc(CACHE_LINE, whole);

	CHECK(head);
	memset(head, 0, whole);
	*head = all;
	all = head;
	return (char *)head + CACHE_LINE;
}

static bool before(struct key a, struct key b) { return a.at != b.at ? a.at < b.at : a.order < b.order; }
static uint32_t slot_of(struct key k) { return (uint32_t)(k.order & ((1U << SLOT_BITS) - 1)); }

/* Place i is free: k goes there or, past all that are sooner, to a lower one. */
static void put_below(size_t i, struct key k)
{
	while (i >= STRIDE && before(queue[i - STRIDE], k)) {
		memmove(&queue[i - STRIDE + 1], &queue[i - STRIDE], STRIDE * sizeof(*queue));
		i -= STRIDE;
	}
	for (; i > 0 && before(queue[i - 1], k); i--)
		queue[i] = queue[i - 1];
	queue[i] = k;
}

static struct key key_of(int64_t at, uint32_t slot) { return (struct key){ at, next_order++ << SLOT_BITS | slot }; }

static void push(const struct sim_event *ev)
{
	struct key k;

	CHECK(n_free_slots > 0 || n_slots < ARRAY_SIZE(slots));
	k = key_of(ev->at, n_free_slots > 0 ? free_slots[--n_free_slots] : (uint32_t)n_slots++);
	slots[slot_of(k)] = *ev;
	put_below(queue_n++, k);
}

/* The event stays where it is until its slot is given back. */
static struct sim_event *pop(void)
{
	struct key k = queue[--queue_n];
	struct sim_event *ev = &slots[slot_of(k)];

	ev->at = k.at;
	return ev;
}

static void give_back(const struct sim_event *ev) { free_slots[n_free_slots++] = (uint32_t)(ev - slots); }

static void unset(struct sim_timer *t)
{
	unsigned last = --timers.n;

	t->set = false;
	timers.of[last]->place = t->place;
	timers.of[t->place] = timers.of[last];
	timers.at[t->place] = timers.at[last];
}

void world_reset(uint64_t seed)
{
	while (queue_n > 0)
		give_back(pop());
	while (timers.n > 0)
		timers.of[--timers.n]->set = false;
	next_order = 0;
	history_n = 0;
	hash = 0xcbf29ce484222325ULL;
	sim.now = SIM_S; /* 0 means "never" to the cores */
	sim.rng = mix(seed + 1);
}

static void post(struct sim_proc *p, int64_t delay, sim_fn fn, void *obj, uint64_t arg)
{
	struct sim_event ev = { .at = sim.now + delay, .fn = fn, .obj = obj, .arg = arg, .proc = p, .life = p ? p->life : 0 };

	CHECK(delay >= 0);
	push(&ev);
}

void world_post(int64_t delay, sim_fn fn, void *obj, uint64_t arg) { post(NULL, delay, fn, obj, arg); }

void world_post_proc(struct sim_proc *p, int64_t delay, sim_fn fn, void *obj, uint64_t arg)
{
	if (proc_alive(p))
		post(p, delay, fn, obj, arg);
}

void timer_set(struct sim_timer *t, struct sim_proc *p, int64_t at, sim_fn fn, void *obj)
{
	uint32_t life = p ? p->life : 0;

	if (t->set && t->at == at && t->life == life)
		return;
	if (!t->set) {
		CHECK(timers.n < MAX_TIMERS);
		t->set = true;
		t->place = timers.n;
		timers.of[timers.n++] = t;
	}
	t->at = timers.at[t->place] = at;
	t->order = next_order++ << SLOT_BITS;
	t->number++;
	t->life = life;
	t->proc = p;
	t->fn = fn;
	t->obj = obj;
	timers.not_before = MIN(timers.not_before, at);
}

/* The timer that is due before all events, if there is one. */
static struct sim_timer *next_timer(void)
{
	struct sim_timer *best = NULL;
	int64_t at = INT64_MAX;

	if (timers.n == 0 || (queue_n > 0 && queue[queue_n - 1].at < timers.not_before))
		return NULL;
	for (unsigned i = 0; i < timers.n; i++)
		at = MIN(at, timers.at[i]);
	timers.not_before = at;
	for (unsigned i = 0; i < timers.n; i++)
		if (timers.at[i] == at && (!best || timers.of[i]->order < best->order))
			best = timers.of[i];
	return queue_n == 0 || before((struct key){ best->at, best->order }, queue[queue_n - 1]) ? best : NULL;
}

static void keep(struct sim_proc *p, const struct sim_event *ev)
{
	if (p->n_late == p->late_size) {
		p->late_size = p->late_size ? p->late_size * 2 : 16;
		p->late = realloc(p->late, p->late_size * sizeof(*p->late));
		CHECK(p->late);
	}
	p->late[p->n_late++] = *ev;
}

void proc_wait(struct sim_proc *p, unsigned place, sim_fn fn, void *obj)
{
	struct sim_event ev = { .fn = fn, .obj = obj, .proc = p, .life = p->life };

	CHECK(p->stopped && place <= p->n_late);
	keep(p, &ev);
	memmove(&p->late[place + 1], &p->late[place], (p->n_late - 1 - place) * sizeof(ev));
	p->late[place] = ev;
}

int world_for(struct sim_proc *p, uint32_t life, const struct sim_event *ev)
{
	if (p->life != life)
		return -1;
	if (!p->stopped)
		return 1;
	keep(p, ev);
	return 0;
}

static void run(struct sim_event *ev)
{
	sim.now = ev->at;
	sim.stats.events++;
	if (!ev->proc || world_for(ev->proc, ev->life, ev) > 0)
		ev->fn(ev);
}

bool world_step(int64_t until)
{
	struct sim_timer *t = next_timer();
	struct sim_event *ev;

	if (t ? t->at > until : queue_n == 0 || queue[queue_n - 1].at > until) {
		sim.now = until;
		return false;
	}
	if (t) {
		unset(t);
		run(&(struct sim_event){ .at = t->at, .fn = t->fn, .obj = t->obj, .arg = t->number, .proc = t->proc, .life = t->life });
	} else {
		ev = pop();
		run(ev);
		give_back(ev);
	}
	return true;
}

/* Processes. */

/* What waited is handed on: in order if the process goes on, to be thrown away if it is dead. */
static void let_go(struct sim_proc *p)
{
	unsigned n = p->n_late;

	p->n_late = 0;
	for (unsigned i = 0; i < n; i++) {
		struct sim_event ev = p->late[i];

		ev.at = sim.now;
		push(&ev);
	}
}

/* Even between two quantiles. */
int64_t edge_ns(enum sim_edge e)
{
	static const unsigned permille[] = { 0, 500, 990, 1000 };
	const int64_t *us = sim.edges[e].us;
	unsigned at = (unsigned)rnd(1000), i = 0;

	while (permille[i + 1] <= at)
		i++;
	return rnd_us(us[i], us[i + 1]);
}

void proc_start(struct sim_proc *p)
{
	CHECK(!proc_alive(p));
	p->life++;
	p->stopped = false;
	p->stall_in = 0;
	p->stood_ns = 0;
	p->hurt_ns = sim.now;
}

void proc_die(struct sim_proc *p)
{
	if (!proc_alive(p))
		return;
	p->life++;
	p->stopped = false;
	p->hurt_ns = sim.now;
	let_go(p);
}

static void on_resume(struct sim_event *ev)
{
	struct sim_proc *p = ev->obj;

	if (p->stopped && p->stop_number == ev->arg)
		proc_resume(p);
}

void proc_stop(struct sim_proc *p, int64_t ns)
{
	if (!proc_alive(p) || p->stopped)
		return;
	if (sim.now - p->hurt_ns > 10 * SIM_S)
		p->still_ns = sim.now;
	p->stopped = true;
	p->hurt_ns = sim.now;
	p->stop_number++;
	world_post(ns, on_resume, p, p->stop_number);
}

void proc_resume(struct sim_proc *p)
{
	if (!p->stopped)
		return;
	p->stopped = false;
	p->hurt_ns = p->stood_ns = sim.now;
	let_go(p);
}

bool proc_stalls(struct sim_proc *p)
{
	if (p->stall_in > 0 && --p->stall_in == 0)
		proc_stop(p, p->stall_ns);
	return p->stopped;
}

/* History. */

static char *put_number(char *to, uint64_t value, unsigned width, char fill)
{
	char digits[20];
	unsigned n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while ((value /= 10) != 0);
	for (; width > n; width--)
		*to++ = fill;
	while (n > 0)
		*to++ = digits[--n];
	return to;
}

/* Nearly all that is written is plain text, %u and %s, and it is written often: printf takes several times as long. False: a case for printf. */
static bool put_simple(char *to, const char *end, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		const char *text;

		if (end - to < 21)
			return false;
		if (*fmt != '%') {
			*to++ = *fmt;
			continue;
		}
		fmt++;
		if (*fmt == 'u') {
			to = put_number(to, va_arg(ap, unsigned), 0, ' ');
		} else if (*fmt == 's') {
			for (text = va_arg(ap, const char *); *text && to < end; text++)
				*to++ = *text;
		} else if (strncmp(fmt, "llu", 3) == 0) {
			to = put_number(to, va_arg(ap, unsigned long long), 0, ' ');
			fmt += 2;
		} else {
			return false;
		}
	}
	*to = '\0';
	return true;
}

void history_add(const char *fmt, ...)
{
	char *line = history[history_n++ % HISTORY_LINES], *to;
	uint64_t us = (uint64_t)(sim.now - SIM_S) / 1000;
	va_list ap;
	bool simple;

	to = put_number(line, us / 1000000, 6, ' ');
	*to++ = '.';
	to = put_number(to, us % 1000000, 6, '0');
	*to++ = ' ';
	va_start(ap, fmt);
	simple = put_simple(to, line + HISTORY_LEN, fmt, ap);
	va_end(ap);
	if (!simple) {
		va_start(ap, fmt);
		(void)vsnprintf(to, (size_t)(line + HISTORY_LEN - to), fmt, ap);
		va_end(ap);
	}
	for (const char *c = line; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3ULL;
	if (sim.trace)
		(void)puts(line);
}

void history_print(unsigned last)
{
	uint64_t from = history_n > last ? history_n - last : 0;

	if (history_n > HISTORY_LINES && from < history_n - HISTORY_LINES)
		from = history_n - HISTORY_LINES;
	for (uint64_t i = from; i < history_n; i++)
		(void)fprintf(stderr, "%s\n", history[i % HISTORY_LINES]);
}

uint64_t history_hash(void) { return mix(hash ^ sim.rng ^ (uint64_t)sim.now); }
