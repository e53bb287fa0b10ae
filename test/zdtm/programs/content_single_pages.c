// SPDX-License-Identifier: GPL-2.0-or-later
/* Forty thousand ranges of one page each: every other page of one mapping. */
#include "lazytest.h"

#define PAGES 80000UL

int main(int argc, char **argv)
{
	char *p;

	test_init(argc, argv);
	p = pages_map(PAGES * PAGE);
	must(!madvise(p, PAGES * PAGE, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < PAGES; i += 2)
		pages_fill(p + i * PAGE, PAGE, page_key(p) + i);

	test_ready();

	pages_must_be_owed("area", p, PAGES * PAGE);
	for (size_t i = PAGES; i-- > 0;) {
		if (i % 2)
			pages_check_zero("hole", p + i * PAGE, PAGE);
		else
			pages_check("page", p + i * PAGE, PAGE, page_key(p) + i);
	}
	test_pass();
}
