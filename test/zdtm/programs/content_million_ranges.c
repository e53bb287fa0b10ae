// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An area of 8 GiB, empty when dumped. The harness writes a million ranges of one page each into
 * the image: every even page, each 1021st of them with the pattern, the others all zeros.
 */
#include "lazytest.h"

#define AREA   0x300000000000UL
#define RANGES 1000000UL
#define STEP   1021UL

int main(int argc, char **argv)
{
	const size_t bytes = 8 * GIB;
	size_t missing;
	char *p;

	test_init(argc, argv);
	p = mmap((void *)AREA, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	must(p == (void *)AREA && !madvise(p, bytes, MADV_NOHUGEPAGE));

	test_ready();

	pages_must_be_owed("area", p, bytes);
	for (size_t i = 0; i < RANGES; i += STEP) {
		size_t from_above = (RANGES - 1) / STEP * STEP - i;
		char *page = p + 2 * from_above * PAGE;

		pages_check("range", page, PAGE, page_key(page));
		pages_check_zero("empty range", page + 2 * PAGE, PAGE);
	}
	test_wait_finished();
	/* The holes between the ranges are not there: nobody has touched them. */
	missing = pages_missing(p, bytes);
	if (bytes / PAGE - missing != RANGES)
		test_fail("%zu pages are there, not %lu", bytes / PAGE - missing, RANGES);
	for (size_t i = 0; i < RANGES; i += STEP)
		pages_check("range, at the end", p + 2 * i * PAGE, PAGE,
			    page_key(p + 2 * i * PAGE));
	test_pass();
}
