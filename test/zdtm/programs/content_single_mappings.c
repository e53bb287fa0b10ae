// SPDX-License-Identifier: GPL-2.0-or-later
/* Ten thousand mappings of one page each. */
#include "lazytest.h"

#define MAPPINGS 10000UL

int main(int argc, char **argv)
{
	char *p;

	test_init(argc, argv);
	p = pages_map(2 * MAPPINGS * PAGE);
	for (size_t i = 0; i < MAPPINGS; i++) {
		char *one = p + 2 * i * PAGE;

		pages_fill(one, PAGE, page_key(one));
		must(!munmap(one + PAGE, PAGE));
	}

	test_ready();

	pages_must_be_owed("last mapping", p + 2 * (MAPPINGS - 1) * PAGE, PAGE);
	for (size_t i = 0; i < MAPPINGS; i++) {
		char *one = p + 2 * i * PAGE;

		pages_check("mapping", one, PAGE, page_key(one));
	}
	test_pass();
}
