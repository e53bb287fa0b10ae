// SPDX-License-Identifier: GPL-2.0-or-later
/* The flattened pagemap: numbering, merging, look-ups, and what is refused. */
#include "unit.h"

#include <errno.h>

#include "compiler.h"
#include "extents.h"

#define TOP (UINT64_MAX - PAGE_SIZE + 1) /* the last page of all starts here */

static void add(struct extents *x, uint64_t vaddr, uint64_t npages, uint64_t where)
{
	struct error e = {0};

	if (extents_add(x, vaddr, npages, where, &e))
		fail_msg("%s", e.text);
}

static void seal(struct extents *x)
{
	assert_int_equal(extents_seal(x, NULL), 0);
}

static void no_extents_answer_nothing(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x);
	seal(&x);
	assert_int_equal(x.npages, 0);
	assert_int_equal(extents_at(&x, 0), 0);
	assert_int_equal(extents_at(&x, UINT64_MAX), 0);
	assert_int_equal(extents_index(&x, 0), 0);
	assert_int_equal(extents_index(&x, TOP), 0);
	extents_free(&x);
}

static void what_continues_in_address_and_place_is_merged(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x);
	add(&x, 0x10000, 4, WHERE(2, 100));
	add(&x, 0x14000, 4, WHERE(2, 104)); /* goes on */
	add(&x, 0x18000, 4, WHERE(2, 200)); /* another place */
	add(&x, 0x1d000, 4, WHERE(2, 204)); /* another address */
	add(&x, 0x21000, 4, WHERE(3, 208)); /* another file */
	seal(&x);
	assert_int_equal(x.n, 4);
	assert_int_equal(x.npages, 20);
	assert_int_equal(extent_npages(&x, 0), 8);
	assert_int_equal(extent_npages(&x, 3), 4);
	assert_int_equal(extents_where(&x, 7), WHERE(2, 107));
	assert_int_equal(extents_where(&x, 8), WHERE(2, 200));
	extents_free(&x);
}

static void last_page_of_one_file_does_not_run_into_the_next(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x);
	add(&x, 0x10000, 1, WHERE(2, (UINT64_C(1) << 48) - 1));
	add(&x, 0x11000, 1, WHERE(3, 0));
	assert_int_equal(x.n, 2);
	extents_free(&x);
}

static void remote_pages_merge_like_others(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x);
	add(&x, 0x10000, 2, WHERE(WHERE_REMOTE, 0x10));
	add(&x, 0x12000, 2, WHERE(WHERE_REMOTE, 0x12));
	seal(&x);
	assert_int_equal(x.n, 1);
	assert_int_equal(WHERE_FILE(extents_where(&x, 3)), WHERE_REMOTE);
	assert_int_equal(WHERE_PAGE(extents_where(&x, 3)), 0x13);
	extents_free(&x);
}

static void what_does_not_ascend_or_wraps_is_refused(void **state)
{
	struct extents x;
	struct error e;

	(void)state;
	extents_init(&x);
	add(&x, 0x10000, 4, WHERE(0, 0));
	assert_int_equal(extents_add(&x, 0x13000, 1, WHERE(0, 9), &e), -EINVAL);
	assert_non_null(strstr(e.text, "0x13000"));
	assert_int_equal(extents_add(&x, 0, 1, WHERE(0, 9), NULL), -EINVAL);
	assert_int_equal(extents_add(&x, 0x20000, 0, WHERE(0, 9), NULL), -EINVAL);
	assert_int_equal(extents_add(&x, 0x20001, 1, WHERE(0, 9), NULL), -EINVAL);
	assert_int_equal(extents_add(&x, TOP, 1, WHERE(0, 9), NULL), -EOVERFLOW);
	assert_int_equal(extents_add(&x, 0x20000, UINT64_MAX, WHERE(0, 9), NULL), -EOVERFLOW);
	assert_int_equal(extents_add(&x, 0x20000, UINT64_C(1) << 52, WHERE(0, 9), NULL),
			 -EOVERFLOW);
	assert_int_equal(extents_add(&x, 0x20000, 2, WHERE(0, (UINT64_C(1) << 48) - 1), NULL),
			 -EOVERFLOW);
	assert_int_equal(x.n, 1);
	assert_int_equal(x.npages, 4);
	add(&x, TOP - PAGE_SIZE, 1, WHERE(0, 4));
	seal(&x);
	assert_int_equal(extents_index(&x, TOP - PAGE_SIZE), 4);
	assert_int_equal(extents_index(&x, TOP), 5);
	extents_free(&x);
}

static void addresses_inside_a_page_belong_to_it(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x);
	add(&x, 0x10000, 2, WHERE(0, 0));
	seal(&x);
	assert_int_equal(extents_index(&x, 0x10fff), 0);
	assert_int_equal(extents_index(&x, 0x11001), 1);
	assert_int_equal(extents_at(&x, 0x11fff), 0);
	assert_int_equal(extents_at(&x, 0x12000), 1);
	extents_free(&x);
}

/* Look-ups against a walk over all pages of random extents. */
static void lookups_agree_with_a_walk_over_all_pages(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct random r = random_from(seed, 0);
		uint64_t vaddr = 0x10000, index = 0, page = 0;
		struct extents x;

		extents_init(&x);
		while (x.npages < 300) {
			uint64_t n = 1 + random_below(&r, 5);

			vaddr += random_below(&r, 3) * PAGE_SIZE;
			page += random_one_in(&r, 4);
			add(&x, vaddr, n, WHERE(0, page));
			vaddr += n * PAGE_SIZE;
			page += n;
		}
		seal(&x);
		for (uint64_t at = 0; at < vaddr + 2 * PAGE_SIZE; at += PAGE_SIZE) {
			size_t i = extents_at(&x, at);
			bool lazy = index < x.npages && extents_vaddr(&x, index) == at;

			if (extents_index(&x, at) != index)
				fail_msg("seed %lu: index of %#lx", seed, at);
			if (lazy != (i < x.n && x.v[i].vaddr <= at))
				fail_msg("seed %lu: extent at %#lx", seed, at);
			if (lazy &&
			    (extents_of_index(&x, index) != i ||
			     extents_where(&x, index) != x.v[i].where + index - x.v[i].first))
				fail_msg("seed %lu: page %lu", seed, index);
			index += lazy;
		}
		assert_int_equal(index, x.npages);
		extents_free(&x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_extents_answer_nothing),
		cmocka_unit_test(what_continues_in_address_and_place_is_merged),
		cmocka_unit_test(last_page_of_one_file_does_not_run_into_the_next),
		cmocka_unit_test(remote_pages_merge_like_others),
		cmocka_unit_test(what_does_not_ascend_or_wraps_is_refused),
		cmocka_unit_test(addresses_inside_a_page_belong_to_it),
		cmocka_unit_test(lookups_agree_with_a_walk_over_all_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
