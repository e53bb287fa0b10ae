// SPDX-License-Identifier: GPL-2.0-or-later
/* The map of an address space: one named fact a test. Random operations: test_space_random.c. */
#include "space_task.h"

#include <errno.h>

/* One mapping, all lazy, in one piece of one file. */
static void begin_simple(struct task *t, uint64_t start, uint64_t bytes)
{
	begin(t);
	lazy(t, start, bytes, WHERE(0, 0));
	ready(t);
	assert_int_equal(space_add(t->s, start, start + bytes), 0);
}

static void expect(const struct space *s, uint64_t addr, enum page_state state, uint64_t index)
{
	uint64_t found = 0;

	assert_int_equal(space_lookup(s, addr, &found), state);
	if (state == PAGE_OWED)
		assert_int_equal(found, index);
}

static size_t regions(const struct space *s)
{
	const struct region *v;

	return space_regions(s, &v);
}

static void munmap_of_3_tib_forgives_all(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 0x10000000000, 3 * TIB);
	assert_int_equal(space_left(t.s), 3 * TIB / PAGE_SIZE);
	assert_int_equal(space_unmap(t.s, 0x10000000000, 0x10000000000 + 3 * TIB), 0);
	assert_int_equal(space_left(t.s), 0);
	assert_int_equal(regions(t.s), 0);
	expect(t.s, 0x10000000000, PAGE_UNKNOWN, 0);
	end(&t);
}

static void munmap_of_5_gib_in_the_middle_leaves_both_ends(void **state)
{
	uint64_t base = 0x7f0000000000, to = base + PAGE_SIZE + 5 * GIB;
	struct task t;

	(void)state;
	begin_simple(&t, base, 5 * GIB + 3 * PAGE_SIZE);
	assert_int_equal(space_unmap(t.s, base + PAGE_SIZE, to), 0);
	assert_int_equal(space_left(t.s), 3);
	assert_int_equal(regions(t.s), 2);
	expect(t.s, base, PAGE_OWED, 0);
	expect(t.s, base + PAGE_SIZE, PAGE_UNKNOWN, 0);
	expect(t.s, to - PAGE_SIZE, PAGE_UNKNOWN, 0);
	expect(t.s, to, PAGE_OWED, 5 * GIB / PAGE_SIZE + 1);
	end(&t);
}

static void munmap_of_everything_at_once_reaches_all_mappings(void **state)
{
	struct task t;

	(void)state;
	begin(&t);
	for (uint64_t i = 0; i < 1000; i++)
		lazy(&t, (1 + 2 * i) * MIB, 64 * KIB, WHERE(0, i * 100));
	ready(&t);
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(space_add(t.s, (1 + 2 * i) * MIB, (2 + 2 * i) * MIB), 0);
	assert_int_equal(regions(t.s), 1000);
	assert_int_equal(space_unmap(t.s, 0, UINT64_MAX - PAGE_SIZE + 1), 0);
	assert_int_equal(space_left(t.s), 0);
	assert_int_equal(regions(t.s), 0);
	end(&t);
}

static void mappings_in_a_row_are_one_region(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * MIB);
	assert_int_equal(space_add(t.s, 2 * MIB, 3 * MIB), 0);
	assert_int_equal(regions(t.s), 1);
	assert_int_equal(space_add(t.s, 4 * MIB, 5 * MIB), 0);
	assert_int_equal(regions(t.s), 2);
	assert_int_equal(space_add(t.s, 3 * MIB, 4 * MIB), -EINVAL);
	end(&t);
}

static void remove_keeps_region_and_never_brings_back_the_image(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * MIB);
	for (int again = 0; again < 3; again++) {
		assert_int_equal(space_remove(t.s, 1 * MIB, 1 * MIB + 64 * KIB), 0);
		assert_int_equal(space_left(t.s), 256 - 16);
		assert_int_equal(regions(t.s), 1);
		expect(t.s, 1 * MIB, PAGE_CLEAR, 0);
		expect(t.s, 1 * MIB + 64 * KIB, PAGE_OWED, 16);
	}
	/* And the area still moves in one piece. */
	assert_int_equal(space_remap(t.s, 1 * MIB, 8 * MIB, 1 * MIB), 0);
	assert_int_equal(regions(t.s), 1);
	expect(t.s, 8 * MIB, PAGE_CLEAR, 0);
	expect(t.s, 8 * MIB + 64 * KIB, PAGE_OWED, 16);
	end(&t);
}

static void remap_onto_itself_changes_nothing(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * MIB);
	place(&t, 3, 1);
	assert_int_equal(space_remap(t.s, 1 * MIB, 1 * MIB, 1 * MIB), 0);
	assert_int_equal(space_left(t.s), 255);
	assert_int_equal(regions(t.s), 1);
	expect(t.s, 1 * MIB + 3 * PAGE_SIZE, PAGE_CLEAR, 0);
	expect(t.s, 1 * MIB + 4 * PAGE_SIZE, PAGE_OWED, 4);
	end(&t);
}

static void remap_takes_its_pages_along_and_leaves_zeros(void **state)
{
	struct run run;
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * MIB);
	place(&t, 10, 1);
	assert_int_equal(space_remap(t.s, 1 * MIB, 16 * TIB, 512 * KIB), 0);
	assert_int_equal(space_left(t.s), 255);
	expect(t.s, 1 * MIB, PAGE_UNKNOWN, 0); /* gone, or empty after MREMAP_DONTUNMAP */
	expect(t.s, 1 * MIB + 512 * KIB, PAGE_OWED, 128);
	expect(t.s, 16 * TIB, PAGE_OWED, 0);
	expect(t.s, 16 * TIB + 10 * PAGE_SIZE, PAGE_CLEAR, 0);
	expect(t.s, 16 * TIB + 512 * KIB, PAGE_UNKNOWN, 0);
	assert_int_equal(space_gather(t.s, 2 * MIB, 1000, 1000, &run, 1), 1);
	assert_int_equal(run.addr, 16 * TIB);
	assert_int_equal(run.npages, 10);
	end(&t);
}

static void remap_onto_another_mapping_forgives_that_one(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 4 * MIB);
	assert_int_equal(space_remap(t.s, 1 * MIB, 4 * MIB, 1 * MIB), 0);
	assert_int_equal(space_left(t.s), 3 * MIB / PAGE_SIZE);
	expect(t.s, 1 * MIB, PAGE_UNKNOWN, 0);
	expect(t.s, 4 * MIB, PAGE_OWED, 0);
	end(&t);
}

static void remap_of_nothing_forgives_the_target(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * MIB);
	assert_int_equal(space_remap(t.s, 8 * MIB, 1 * MIB, 64 * KIB), 0);
	assert_int_equal(space_left(t.s), 256 - 16);
	expect(t.s, 1 * MIB, PAGE_UNKNOWN, 0);
	expect(t.s, 8 * MIB, PAGE_UNKNOWN, 0);
	end(&t);
}

static void remap_back_and_forth_does_not_add_regions(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 4 * MIB);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(space_remap(t.s, 2 * MIB, 64 * MIB, 1 * MIB), 0);
		assert_int_equal(regions(t.s), 3);
		assert_int_equal(space_remap(t.s, 64 * MIB, 2 * MIB, 1 * MIB), 0);
		assert_int_equal(regions(t.s), 1);
	}
	assert_int_equal(space_left(t.s), 4 * MIB / PAGE_SIZE);
	end(&t);
}

static void overlapping_remap_is_refused(void **state)
{
	struct task t;

	(void)state;
	begin_simple(&t, 1 * MIB, 4 * MIB);
	assert_int_equal(space_remap(t.s, 1 * MIB, 2 * MIB, 2 * MIB), -EINVAL);
	assert_int_equal(space_remap(t.s, 2 * MIB, 1 * MIB, 2 * MIB), -EINVAL);
	assert_int_equal(space_left(t.s), 4 * MIB / PAGE_SIZE);
	end(&t);
}

static void last_page_that_has_an_end_is_like_any_other(void **state)
{
	uint64_t top = UINT64_MAX - PAGE_SIZE + 1;
	struct task t;

	(void)state;
	begin_simple(&t, top - MIB, 1 * MIB);
	expect(t.s, top - 1, PAGE_OWED, 255);
	expect(t.s, top, PAGE_UNKNOWN, 0);
	expect(t.s, UINT64_MAX, PAGE_UNKNOWN, 0);
	assert_int_equal(space_unmap(t.s, top - PAGE_SIZE, top + PAGE_SIZE), -EINVAL);
	assert_int_equal(space_remap(t.s, top - PAGE_SIZE, top, PAGE_SIZE), -EINVAL);
	assert_int_equal(space_remap(t.s, top - MIB, 0, MIB), 0);
	expect(t.s, 0, PAGE_OWED, 0);
	assert_int_equal(space_unmap(t.s, 0, top), 0);
	assert_int_equal(space_left(t.s), 0);
	end(&t);
}

static void fork_shares_until_written(void **state)
{
	struct task t, child;
	uint64_t used;

	(void)state;
	begin_simple(&t, 1 * MIB, 1 * GIB);
	place(&t, 0, 1); /* one chunk of bits of its own */
	child = t;
	used = arena_used(t.arena);
	child.owed = owed_fork(t.arena, t.owed);
	child.s = space_fork(t.s, child.owed);
	assert_non_null(child.s);
	assert_int_equal(arena_used(t.arena) - used, ARENA_PAGE); /* the table */

	place(&child, 1, 1);
	assert_int_equal(arena_used(t.arena) - used, 2 * ARENA_PAGE);
	expect(t.s, 1 * MIB + PAGE_SIZE, PAGE_OWED, 1);
	expect(child.s, 1 * MIB + PAGE_SIZE, PAGE_CLEAR, 0);

	assert_int_equal(space_unmap(t.s, 1 * MIB, 513 * MIB), 0);
	assert_int_equal(space_left(t.s), 512 * MIB / PAGE_SIZE);
	assert_int_equal(space_left(child.s), 1 * GIB / PAGE_SIZE - 2);
	expect(child.s, 512 * MIB, PAGE_OWED, 511 * MIB / PAGE_SIZE);

	/* The child goes on when the parent is gone. */
	space_free(t.s);
	owed_free(t.arena, t.owed);
	expect(child.s, 1 * MIB, PAGE_CLEAR, 0);
	expect(child.s, 1 * MIB + 2 * PAGE_SIZE, PAGE_OWED, 2);
	end(&child);
}

static void gather_stays_in_one_region_one_file_and_the_span(void **state)
{
	struct run run[8];
	struct task t;

	(void)state;
	begin(&t);
	lazy(&t, 16 * MIB, 64 * KIB, WHERE(0, 0));		/* 0..15 */
	lazy(&t, 16 * MIB + 128 * KIB, 64 * KIB, WHERE(0, 20)); /* 16..31, near */
	lazy(&t, 16 * MIB + 256 * KIB, 64 * KIB, WHERE(0, 90)); /* 32..47, far */
	lazy(&t, 16 * MIB + 384 * KIB, 64 * KIB, WHERE(1, 91)); /* 48..63, another file */
	lazy(&t, 32 * MIB, 64 * KIB, WHERE(1, 107));		/* 64..79, another region */
	ready(&t);
	assert_int_equal(space_add(t.s, 16 * MIB, 17 * MIB), 0);
	assert_int_equal(space_add(t.s, 32 * MIB, 33 * MIB), 0);

	assert_int_equal(space_gather(t.s, 0, 1000, 30, run, 8), 2);
	assert_int_equal(run[0].addr, 16 * MIB);
	assert_int_equal(run[0].npages, 16);
	assert_int_equal(run[1].addr, 16 * MIB + 128 * KIB);
	assert_int_equal(run[1].npages, 10); /* the span ends within */
	assert_int_equal(space_gather(t.s, 0, 1000, 1000, run, 8), 3);
	assert_int_equal(run[2].where, WHERE(0, 90));
	assert_int_equal(space_gather(t.s, 0, 20, 1000, run, 8), 2);
	assert_int_equal(run[1].npages, 4);
	assert_int_equal(space_gather(t.s, 0, 1000, 1000, run, 1), 1);
	assert_int_equal(space_gather(t.s, 16 * MIB + 300 * KIB, 1000, 1000, run, 8), 1);
	assert_int_equal(run[0].addr, 16 * MIB + 300 * KIB);
	assert_int_equal(run[0].where, WHERE(0, 101));
	assert_int_equal(run[0].npages, 5);
	assert_int_equal(space_gather(t.s, 16 * MIB + 320 * KIB, 1000, 1000, run, 8), 1);
	assert_int_equal(run[0].where, WHERE(1, 91));
	assert_int_equal(space_gather(t.s, 17 * MIB, 1000, 1000, run, 8), 1);
	assert_int_equal(run[0].index, 64);
	assert_int_equal(space_gather(t.s, 33 * MIB, 1000, 1000, run, 8), 0);
	end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(munmap_of_3_tib_forgives_all),
		cmocka_unit_test(munmap_of_5_gib_in_the_middle_leaves_both_ends),
		cmocka_unit_test(munmap_of_everything_at_once_reaches_all_mappings),
		cmocka_unit_test(mappings_in_a_row_are_one_region),
		cmocka_unit_test(remove_keeps_region_and_never_brings_back_the_image),
		cmocka_unit_test(remap_onto_itself_changes_nothing),
		cmocka_unit_test(remap_takes_its_pages_along_and_leaves_zeros),
		cmocka_unit_test(remap_onto_another_mapping_forgives_that_one),
		cmocka_unit_test(remap_of_nothing_forgives_the_target),
		cmocka_unit_test(remap_back_and_forth_does_not_add_regions),
		cmocka_unit_test(overlapping_remap_is_refused),
		cmocka_unit_test(last_page_that_has_an_end_is_like_any_other),
		cmocka_unit_test(fork_shares_until_written),
		cmocka_unit_test(gather_stays_in_one_region_one_file_and_the_span),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
