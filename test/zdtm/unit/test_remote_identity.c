// SPDX-License-Identifier: GPL-2.0-or-later
/* A source is known by a few of its pages. */
#include "unit.h"

#include "compiler.h"
#include "remote_identity.h"

static uint64_t page[PAGE_SIZE / 8];

static const void *page_of(uint64_t i)
{
	memset(page, 0, sizeof(page));
	page[i % ARRAY_SIZE(page)] = i;
	return page;
}

static void what_was_learned_is_known_again(void **state)
{
	struct remote_identity id = {0};

	(void)state;
	for (uint64_t i = 1; i <= 2 * IDENTITY_PAGES; i++)
		identity_learn(&id, 1000 + i, page_of(i));
	assert_int_equal(id.n, IDENTITY_PAGES);
	for (uint64_t i = 1; i <= IDENTITY_PAGES; i++) {
		assert_true(identity_same(&id, 1000 + i, page_of(i)));
		assert_false(identity_same(&id, 1000 + i, page_of(i + 1)));
		assert_false(identity_same(&id, 1000 + i, page_of(0)));
	}
	assert_true(identity_same(&id, 5, page_of(7)));
}

static void pages_that_tell_nothing_are_not_learned(void **state)
{
	struct remote_identity id = {0};

	(void)state;
	identity_learn(&id, 1, page_of(0));
	assert_int_equal(id.n, 0);
	identity_learn(&id, 2, page_of(3));
	identity_learn(&id, 9, page_of(3));
	assert_int_equal(id.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_learned_is_known_again),
		cmocka_unit_test(pages_that_tell_nothing_are_not_learned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
