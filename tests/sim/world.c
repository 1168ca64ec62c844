/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>

#define HISTORY_LINES 4096
#define HISTORY_LEN 200

struct sim sim;

/* The queue: a heap of keys, and the events they stand for. An event of a timer knows where its key is, so that it can be moved. */
struct key {
	int64_t at;
	uint64_t order;
	uint32_t slot;
	bool timer;
};

static struct key *heap;
static struct sim_event *slots;
static uint32_t *free_slots;
static size_t heap_n, heap_size, n_free_slots;
static uint64_t next_order;

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
	void **head = calloc(1, sizeof(max_align_t) + size);

	CHECK(head);
	*head = all;
	all = head;
	return (char *)head + sizeof(max_align_t);
}

static bool before(const struct key *a, const struct key *b) { return a->at != b->at ? a->at < b->at : a->order < b->order; }

static void place(size_t i, struct key k)
{
	heap[i] = k;
	if (k.timer)
		slots[k.slot].timer->place = (uint32_t)i;
}

static void rise(size_t i, struct key k)
{
	while (i > 0 && before(&k, &heap[(i - 1) / 2])) {
		place(i, heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	place(i, k);
}

static void sink(size_t i, struct key k)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= heap_n)
			break;
		if (child + 1 < heap_n && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &k))
			break;
		place(i, heap[child]);
		i = child;
	}
	place(i, k);
}

static void grow(void)
{
	size_t old = heap_size;

	heap_size = old ? old * 2 : 1024;
	heap = realloc(heap, heap_size * sizeof(*heap));
	slots = realloc(slots, heap_size * sizeof(*slots));
	free_slots = realloc(free_slots, heap_size * sizeof(*free_slots));
	CHECK(heap && slots && free_slots);
	for (size_t i = heap_size; i-- > old;)
		free_slots[n_free_slots++] = (uint32_t)i;
}

static void push(const struct sim_event *ev)
{
	uint32_t slot;

	if (n_free_slots == 0)
		grow();
	slot = free_slots[--n_free_slots];
	slots[slot] = *ev;
	rise(heap_n++, (struct key){ ev->at, ev->order, slot, ev->timer });
}

static struct sim_event pop(void)
{
	struct key top = heap[0], last = heap[--heap_n];

	if (top.timer)
		slots[top.slot].timer->queued = false;
	free_slots[n_free_slots++] = top.slot;
	slots[top.slot].at = top.at;
	if (heap_n > 0)
		sink(0, last);
	return slots[top.slot];
}

void world_reset(uint64_t seed)
{
	while (heap_n > 0)
		(void)pop(); /* timers learn that they are not queued */
	next_order = 0;
	history_n = 0;
	hash = 0xcbf29ce484222325ULL;
	sim.now = SIM_S; /* 0 means "never" to the cores */
	sim.rng = mix(seed + 1);
}

static void post(struct sim_proc *p, int64_t delay, sim_fn fn, void *obj, uint64_t arg)
{
	struct sim_event ev = { .at = sim.now + delay, .order = next_order++, .fn = fn, .obj = obj, .arg = arg, .proc = p, .life = p ? p->life : 0 };

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
	struct key k;

	if (t->queued && t->at == at && t->life == life)
		return;
	t->at = at;
	t->life = life;
	if (!t->queued) {
		struct sim_event ev = { .at = at, .order = next_order++, .fn = fn, .obj = obj, .arg = ++t->number, .proc = p, .life = life, .timer = t };

		t->queued = true;
		push(&ev);
		return;
	}
	k = heap[t->place];
	slots[k.slot].life = life;
	slots[k.slot].arg = ++t->number;
	k.at = at;
	k.order = next_order++;
	if (before(&k, &heap[t->place]))
		rise(t->place, k);
	else
		sink(t->place, k);
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

int world_for(struct sim_proc *p, uint32_t life, const struct sim_event *ev)
{
	if (p->life != life)
		return -1;
	if (!p->stopped)
		return 1;
	keep(p, ev);
	return 0;
}

bool world_step(int64_t until)
{
	struct sim_event ev;

	if (heap_n == 0 || heap[0].at > until) {
		sim.now = until;
		return false;
	}
	ev = pop();
	sim.now = ev.at;
	sim.stats.events++;
	if (!ev.proc || world_for(ev.proc, ev.life, &ev) > 0)
		ev.fn(&ev);
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
		ev.order = next_order++;
		ev.timer = NULL;
		push(&ev);
	}
}

void proc_start(struct sim_proc *p)
{
	CHECK(!proc_alive(p));
	p->life++;
	p->stopped = false;
	p->stall_in = 0;
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
	p->hurt_ns = sim.now;
	let_go(p);
}

bool proc_stalls(struct sim_proc *p)
{
	if (p->stall_in > 0 && --p->stall_in == 0)
		proc_stop(p, p->stall_ns);
	return p->stopped;
}

/* History. */

void history_add(const char *fmt, ...)
{
	char *line = history[history_n++ % HISTORY_LINES];
	int64_t us = (sim.now - SIM_S) / 1000;
	va_list ap;
	int n;

	n = snprintf(line, HISTORY_LEN, "%6lld.%06lld ", (long long)(us / 1000000), (long long)(us % 1000000));
	va_start(ap, fmt);
	(void)vsnprintf(line + n, HISTORY_LEN - (size_t)n, fmt, ap);
	va_end(ap);
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
