// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The task asks the kernel for all its pages at once, by the way that the argument names: mlockall,
 * mlock, populate-read or populate-write. It gets them, and they are the right ones.
 */
#include "lazytest.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

static void ask(char *p, size_t bytes)
{
	if (!strcmp(test_arg(0), "mlockall"))
		must(!mlockall(MCL_CURRENT | MCL_FUTURE));
	else if (!strcmp(test_arg(0), "mlock"))
		must(!mlock(p, bytes));
	else if (!strcmp(test_arg(0), "populate-read"))
		must(!madvise(p, bytes, MADV_POPULATE_READ));
	else if (!strcmp(test_arg(0), "populate-write"))
		must(!madvise(p, bytes, MADV_POPULATE_WRITE));
	else
		test_fail("unknown way: %s", test_arg(0));
}

int main(int argc, char **argv)
{
	const size_t bytes = 32 * MIB;
	size_t missing;
	char *p;

	test_init(argc, argv);
	p = pages_map(bytes);
	for (size_t i = 0; i < bytes; i += 4 * PAGE)
		pages_fill(p + i, 2 * PAGE, page_key(p + i));

	test_ready();

	pages_must_be_owed("area", p, bytes);
	ask(p, bytes);
	missing = pages_missing(p, bytes);
	if (missing)
		test_fail("%zu pages are still missing", missing);
	for (size_t i = 0; i < bytes; i += 4 * PAGE) {
		pages_check("page", p + i, 2 * PAGE, page_key(p + i));
		pages_check_zero("hole", p + i + 2 * PAGE, 2 * PAGE);
	}
	test_pass();
}
