/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What unit tests share: cmocka with its includes, random numbers that a seed repeats, and the
 * time that this thread was on a CPU (other work on the machine does not count).
 */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* Absolute limits on time hold for code as it is shipped. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWNESS 20
#else
#define SLOWNESS 1
#endif

struct random {
	uint64_t state;
};

/* Marsaglia's xorshift64*; the state must not be 0. */
static inline uint64_t random_next(struct random *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * UINT64_C(0x2545f4914f6cdd1d);
}

/* Different (seed, stream) pairs give unrelated sequences, small numbers too. */
static inline struct random random_from(uint64_t seed, uint64_t stream)
{
	struct random r = {(seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^
			   (stream + 1) * UINT64_C(0xd1342543de82ef95)};

	if (!r.state)
		r.state = 1;
	for (int i = 0; i < 8; i++)
		random_next(&r);
	return r;
}

/* 0 .. n-1 */
static inline uint64_t random_below(struct random *r, uint64_t n)
{
	return (random_next(r) >> 11) % n;
}

static inline bool random_one_in(struct random *r, uint64_t n)
{
	return !random_below(r, n);
}

static inline uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

#endif
