// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * As many MiB as the argument says, all of it filled. When the file "change" appears, every third
 * page of the first quarter gets new contents, and the file "changed" says so.
 */
#include "lazytest.h"

static uint64_t key_of(const char *page, size_t i, size_t npages, bool changed)
{
	return page_key(page) + (changed && i < npages / 4 && i % 3 == 0 ? 1UL << 40 : 0);
}

int main(int argc, char **argv)
{
	size_t npages;
	bool changed = false;
	char *p;

	test_init(argc, argv);
	npages = strtoul(test_arg(0), NULL, 0) * MIB / PAGE;
	p = pages_map(npages * PAGE);
	for (size_t i = 0; i < npages; i++)
		pages_fill(p + i * PAGE, PAGE, key_of(p + i * PAGE, i, npages, false));
	must(close(open("ready", O_WRONLY | O_CREAT, 0600)) == 0);

	while (access("go", F_OK)) {
		if (!changed && !access("change", F_OK)) {
			changed = true;
			for (size_t i = 0; i < npages / 4; i += 3)
				pages_fill(p + i * PAGE, PAGE,
					   key_of(p + i * PAGE, i, npages, true));
			must(close(open("changed", O_WRONLY | O_CREAT, 0600)) == 0);
		}
		test_sleep_ms(5);
	}
	for (size_t i = 0; i < npages; i++)
		pages_check("page", p + i * PAGE, PAGE, key_of(p + i * PAGE, i, npages, changed));
	test_pass();
}
