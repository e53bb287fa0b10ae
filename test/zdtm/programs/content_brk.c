// SPDX-License-Identifier: GPL-2.0-or-later
/* The heap of brk(2) comes back, can grow while it is owed, and what grew reads as zeros. */
#include "lazytest.h"

int main(int argc, char **argv)
{
	const size_t bytes = 32 * MIB;
	char *p, *more;

	test_init(argc, argv);
	p = sbrk((intptr_t)(PAGE - (uintptr_t)sbrk(0) % PAGE));
	must(p != (void *)-1);
	p = sbrk((intptr_t)bytes);
	must(p != (void *)-1 && (uintptr_t)p % PAGE == 0);
	pages_fill(p, bytes, page_key(p));

	test_ready();

	pages_must_be_owed("heap", p, bytes);
	more = sbrk(4 * MIB);
	must(more == p + bytes);
	pages_check_zero("grown heap", more, 4 * MIB);
	pages_fill(more, 4 * MIB, page_key(more));
	pages_check("heap", p, bytes, page_key(p));
	pages_check("grown heap", more, 4 * MIB, page_key(more));
	must(sbrk(-8 * (intptr_t)MIB) == p + bytes + 4 * MIB);
	pages_check("shrunk heap", p, bytes - 4 * MIB, page_key(p));
	test_pass();
}
