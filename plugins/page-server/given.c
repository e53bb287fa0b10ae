// SPDX-License-Identifier: GPL-2.0-or-later
/* A bitmap that knows how many of its bits are set: see given.h. */
#include "given.h"

#include <stdlib.h>

#include "compiler.h"

struct given {
	uint64_t count;
	uint64_t bits[];
};

struct given *given_new(uint64_t npages)
{
	return calloc(1, sizeof(struct given) + (npages + 63) / 64 * sizeof(uint64_t));
}

void given_free(struct given *g)
{
	free(g);
}

void given_note(struct given *g, uint64_t first, uint64_t npages)
{
	uint64_t fresh = 0;

	for (uint64_t i = first, end = first + npages; i < end;) {
		uint64_t n = MIN(64 - i % 64, end - i), *word = &g->bits[i / 64];
		uint64_t mask = (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << i % 64;

		fresh += (uint64_t)__builtin_popcountll(mask & ~*word);
		*word |= mask;
		i += n;
	}
	__atomic_store_n(&g->count, g->count + fresh, __ATOMIC_RELAXED);
}

uint64_t given_count(const struct given *g)
{
	return __atomic_load_n(&g->count, __ATOMIC_RELAXED);
}
