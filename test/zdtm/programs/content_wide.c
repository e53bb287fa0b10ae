// SPDX-License-Identifier: GPL-2.0-or-later
/* 8 GiB of address space with one page in every 16 MiB, looked at from the top down. */
#include "lazytest.h"

#define STRIDE (16 * MIB)

int main(int argc, char **argv)
{
	const size_t bytes = 8 * GIB;
	char *p;

	test_init(argc, argv);
	p = pages_map_flags(bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	must(!madvise(p, bytes, MADV_NOHUGEPAGE));
	for (size_t i = 0; i < bytes; i += STRIDE) {
		char *page = p + i + random_mix(test_context.seed ^ i) % (STRIDE / PAGE) * PAGE;

		pages_fill(page, PAGE, page_key(page));
	}

	test_ready();

	for (size_t i = bytes; i > 0; i -= STRIDE) {
		char *page = p + i - STRIDE +
			     random_mix(test_context.seed ^ (i - STRIDE)) % (STRIDE / PAGE) * PAGE;

		pages_must_be_owed("page", page, PAGE);
		pages_check("page", page, PAGE, page_key(page));
		pages_check_zero("start of the stride", p + i - STRIDE,
				 page == p + i - STRIDE ? 0 : PAGE);
	}
	test_pass();
}
