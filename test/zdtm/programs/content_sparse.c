// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs of pages and of holes, both of random length, come back; the holes read as zeros. Both are
 * looked at in a random order.
 */
#include "lazytest.h"

#define PAGES (256 * MIB / PAGE)

static bool page_is_there(uint64_t page)
{
	/* Blocks of 1 to 64 pages: all of the same decision. */
	unsigned order = random_mix(test_context.seed ^ (page >> 6)) % 7;

	return random_mix((page >> order) ^ (test_context.seed << 1)) % 3 == 0;
}

int main(int argc, char **argv)
{
	uint64_t step, at = 0;
	char *p;

	test_init(argc, argv);
	p = pages_map(PAGES * PAGE);
	for (uint64_t i = 0; i < PAGES; i++)
		if (page_is_there(i))
			pages_fill(p + i * PAGE, PAGE, i);

	test_ready();

	pages_must_be_owed("area", p, PAGES * PAGE);
	/* An odd step visits each of a power of two pages once. */
	step = random_mix(test_context.seed) | 1;
	for (uint64_t i = 0; i < PAGES; i++) {
		at = (at + step) % PAGES;
		if (page_is_there(at))
			pages_check("page", p + at * PAGE, PAGE, at);
		else
			pages_check_zero("hole", p + at * PAGE, PAGE);
	}
	test_pass();
}
