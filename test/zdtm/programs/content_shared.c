// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Shared memory of two processes, and of one mapping at two places, beside private memory: all of
 * it comes back, and is still shared.
 */
#include "lazytest.h"

#define SHARED (3 * MIB)
#define KEY    77

int main(int argc, char **argv)
{
	char *shared, *mine;
	uint32_t *said;
	pid_t child;

	test_init(argc, argv);
	shared = shared_map(SHARED);
	pages_fill(shared, SHARED / 2, KEY);
	/* What nobody has touched stays so, but for the last page. */
	pages_fill(shared + SHARED - PAGE, PAGE, KEY + 1000);
	mine = pages_map(2 * MIB);
	pages_fill(mine, 2 * MIB, page_key(mine));
	said = shared_map(PAGE);

	child = fork();
	must(child >= 0);
	if (!child) {
		test_wait_go();
		pages_check("shared, seen by the child", shared, SHARED / 2, KEY);
		pages_check("the child's copy", mine, 2 * MIB, page_key(mine));
		memset(shared, 5, PAGE);
		__atomic_store_n(said, 1, __ATOMIC_RELEASE);
		_exit(0);
	}
	test_ready();

	child_wait(child);
	must(__atomic_load_n(said, __ATOMIC_ACQUIRE) == 1);
	must(shared[0] == 5 && shared[PAGE - 1] == 5);
	pages_check("shared", shared + PAGE, SHARED / 2 - PAGE, KEY + 1);
	pages_check_zero("untouched", shared + SHARED / 2, SHARED / 2 - PAGE);
	pages_check("the last page", shared + SHARED - PAGE, PAGE, KEY + 1000);
	pages_check("private", mine, 2 * MIB, page_key(mine));
	test_pass();
}
