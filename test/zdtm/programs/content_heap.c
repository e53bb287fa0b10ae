// SPDX-License-Identifier: GPL-2.0-or-later
/* An anonymous area of 64 MiB, with zero pages strewn in, comes back byte for byte. */
#include "lazytest.h"

int main(int argc, char **argv)
{
	const size_t bytes = 64 * MIB;
	char *p;

	test_init(argc, argv);
	p = pages_map(bytes);
	for (size_t i = 0; i < bytes; i += PAGE) {
		if (i / PAGE % 7 == 3)
			memset(p + i, 0, PAGE);
		else
			pages_fill(p + i, PAGE, page_key(p + i));
	}

	test_ready();

	pages_must_be_owed("heap", p, bytes);
	for (size_t i = 0; i < bytes; i += PAGE) {
		if (i / PAGE % 7 == 3)
			pages_check_zero("zero page", p + i, PAGE);
		else
			pages_check("page", p + i, PAGE, page_key(p + i));
	}
	test_pass();
}
