// SPDX-License-Identifier: GPL-2.0-or-later
/* What a client has been given, against an array of bytes. */
#include "unit.h"

#include "given.h"

#define PAGES 1000

static void counts_each_page_once(void **state)
{
	struct random r = random_from(7, 0);

	(void)state;
	for (int round = 0; round < 200; round++) {
		struct given *g = given_new(PAGES);
		bool has[PAGES] = {0};
		uint64_t count = 0;

		assert_int_equal(given_count(g), 0);
		for (int i = 0; i < 50; i++) {
			uint64_t first = random_below(&r, PAGES);
			uint64_t n = random_below(&r, random_one_in(&r, 3) ? PAGES : 70) + 1;

			n = first + n > PAGES ? PAGES - first : n;
			given_note(g, first, n);
			for (uint64_t k = first; k < first + n; k++) {
				count += !has[k];
				has[k] = true;
			}
			assert_int_equal(given_count(g), count);
		}
		given_note(g, 0, PAGES);
		assert_int_equal(given_count(g), PAGES);
		given_free(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_each_page_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
