// SPDX-License-Identifier: GPL-2.0-or-later
/* Writes all over its memory without a pause, from before the dump on; passes when told to go. */
#include "lazytest.h"

int main(int argc, char **argv)
{
	const size_t pages = 8 * MIB / PAGE;
	volatile uint64_t *p;
	int fd;

	test_init(argc, argv);
	p = (volatile uint64_t *)pages_map(pages * PAGE);
	for (size_t i = 0; i < pages; i++)
		p[i * 512] = 1;
	fd = open("ready", O_WRONLY | O_CREAT, 0600);
	must(fd >= 0);
	for (uint64_t n = 2; access("go", F_OK); n++)
		for (size_t i = 0; i < pages; i++)
			p[i * 512] = n;
	test_pass();
}
