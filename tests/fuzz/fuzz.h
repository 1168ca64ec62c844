/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the fuzz targets share. Each fuzz_*.c is one libFuzzer program that links the shipped objects; tests/fuzz/run builds and runs them.
 *   loop.c    the event loop and the clock: file descriptors are real, time is not
 *   edges.c   system calls that would leave the process, volumes and ring
 *   agentd.c  ha-agent as it is shipped, with made storage, units and QEMU
 *   keeperd.c ha-keeper as it is shipped, with made storage, watchdog and slice
 */
#pragma once

#include <qb/qbloop.h>
#include <stdio.h>

#include "agent/base/util.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold whatever comes in. */
#define FUZZ_CHECK(expr) ((expr) ? (void)0 : fuzz_failed(#expr, __FILE__, __LINE__))
_Noreturn static inline void fuzz_failed(const char *expr, const char *file, int line)
{
	(void)dprintf(STDERR_FILENO, "fuzz: does not hold: %s at %s:%d\n", expr, file, line);
	abort();
}

/* Takes the input apart from its begin; what is missing reads as 0. */
struct fuzz_input {
	const uint8_t *p;
	size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left > 0; i++) {
		v |= (uint64_t)*in->p++ << (8 * i);
		in->left--;
	}
	return v;
}

/* Up to n bytes; says how many there were. */
static inline size_t fuzz_take_bytes(struct fuzz_input *in, void *ret, size_t n)
{
	n = MIN(n, in->left);
	if (n > 0)
		memcpy(ret, in->p, n);
	in->p += n;
	in->left -= n;
	return n;
}

/* loop.c */
enum fuzz_world { FUZZ_AGENT, FUZZ_KEEPER, FUZZ_WORLDS };
void fuzz_world(enum fuzz_world w);
int64_t fuzz_now_ns(void);
bool fuzz_loop_turn(void);            /* every readable or writable file descriptor once; says whether there was one */
void fuzz_loop_run(int64_t span_ns);  /* turns and timers in order of time, then the clock stands at the end of the span */
void fuzz_loop_idle(void (*fn)(void)); /* called on each turn: what other parts have to deliver */
void fuzz_clock_set(int64_t ns);      /* also back: timers keep the time they have left */
size_t fuzz_loop_timers(void);

/* edges.c */
extern void (*fuzz_connected)(int peer, int type); /* who hears of a connect(): gets the other end, closes it */
extern void (*fuzz_sleeps)(void); /* ha-ctl does */
void fuzz_quiet(void); /* what the product writes to stderr is thrown away */
const char *fuzz_conf_dir(const char *text); /* a new directory with that kvm-ha.conf, gone when the process ends */
/* Another end for whoever listens: their next accept4() takes it. */
int fuzz_dial(int type);
void *fuzz_volume(unsigned index); /* what is on it: FUZZ_VOLUME_LEN bytes */
#define FUZZ_VOLUME_LEN (1U << 20)
#define FUZZ_VOLUMES 3
/* What was sent on the ring last, NUL-terminated; and ring messages to whom has joined. */
const char *fuzz_ring_sent(void);
void fuzz_ring_say(const char *group, uint32_t node, const void *data, size_t len);
void fuzz_ring_view(const char *group, bool up, uint64_t view, bool encrypted);
/* stdout and stderr of ha-ctl and conf_show */
void fuzz_capture_begin(void);
const char *fuzz_capture_end(size_t *ret_len); /* what went to stdout */
