// SPDX-License-Identifier: GPL-2.0-or-later
/* A MAP_NORESERVE area of 4 GiB with 64 MiB at its two ends and in the middle. */
#include "lazytest.h"

int main(int argc, char **argv)
{
	const size_t bytes = 4 * GIB, part = 64 * MIB / 3 / PAGE * PAGE;
	const size_t at[] = {0, bytes / 2 - PAGE, bytes - part};
	char *p;

	test_init(argc, argv);
	p = pages_map_flags(bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	for (int i = 0; i < 3; i++)
		pages_fill(p + at[i], part, page_key(p + at[i]));

	test_ready();

	for (int i = 2; i >= 0; i--) {
		pages_must_be_owed("part", p + at[i], part);
		pages_check("part", p + at[i], part, page_key(p + at[i]));
	}
	pages_check_zero("hole behind the first part", p + part, 64 * PAGE);
	pages_check_zero("hole before the last part", p + bytes - part - 64 * PAGE, 64 * PAGE);
	test_pass();
}
