// SPDX-License-Identifier: GPL-2.0-or-later
/* The map of an address space: one named fact a test. Random operations: test_space_random.c. */
#include "unit.h"

#include <errno.h>

#include "compiler.h"
#include "space.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

/* A task with its own arena. */
struct task {
	struct arena *arena;
	struct extents x;
	struct owed *owed;
	struct space *s;
};

static void begin(struct task *t)
{
	memset(t, 0, sizeof(*t));
	assert_int_equal(arena_new(&t->arena, 64 * MIB, NULL), 0);
	extents_init(&t->x);
}

static void lazy(struct task *t, uint64_t vaddr, uint64_t bytes, uint64_t where)
{
	assert_int_equal(extents_add(&t->x, vaddr, bytes / PAGE_SIZE, where, NULL), 0);
}

static void ready(struct task *t)
{
	assert_int_equal(extents_seal(&t->x, NULL), 0);
	t->owed = owed_new(t->arena, t->x.npages);
	assert_non_null(t->owed);
	t->s = space_new(t->arena, &t->x, t->owed);
	assert_non_null(t->s);
}

/* One mapping, all lazy, in one piece of one file. */
static void begin_simple(struct task *t, uint64_t start, uint64_t bytes)
{
	begin(t);
	lazy(t, start, bytes, WHERE(0, 0));
	ready(t);
	assert_int_equal(space_add(t->s, start, start + bytes), 0);
}

static void end(struct task *t)
{
	space_free(t->s);
	owed_free(t->arena, t->owed);
	assert_int_equal(arena_used(t->arena), 0);
	extents_free(&t->x);
	arena_free(t->arena);
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

static void place(struct task *t, uint64_t index, uint64_t npages)
{
	assert_int_equal(owed_clear(t->arena, t->owed, index, index + npages), npages);
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

/* n one-page extents, every other page, as a strided writer leaves them. */
static void begin_strided(struct task *t, uint64_t n)
{
	begin(t);
	for (uint64_t i = 0; i < n; i++)
		lazy(t, GIB + 2 * i * PAGE_SIZE, PAGE_SIZE, WHERE(0, i));
	ready(t);
	assert_int_equal(space_add(t->s, GIB, GIB + 2 * n * PAGE_SIZE), 0);
}

/* CPU time of a look-up and a gather of 16 runs at a random place; the best of several rounds. */
static uint64_t strided_cost(uint64_t n)
{
	struct random r = random_from(1, n);
	uint64_t best = UINT64_MAX;
	struct task t;

	begin_strided(&t, n);
	for (int round = 0; round < 7; round++) {
		uint64_t start = cpu_ns();

		for (int i = 0; i < 2000; i++) {
			uint64_t at = random_below(&r, n - 16), index;
			uint64_t addr = GIB + 2 * at * PAGE_SIZE;
			struct run run[16];

			assert_int_equal(space_lookup(t.s, addr, &index), PAGE_OWED);
			assert_int_equal(index, at);
			assert_int_equal(space_gather(t.s, addr, 16, 16, run, 16), 16);
		}
		best = MIN(best, (cpu_ns() - start) / 2000);
	}
	end(&t);
	return best;
}

static void million_one_page_extents_lookup_is_fast(void **state)
{
	uint64_t few = strided_cost(UINT64_C(1) << 15);
	uint64_t many = strided_cost(UINT64_C(1) << 20);

	(void)state;
	print_message("32768 extents: %lu ns, 1048576: %lu ns\n", few, many);
	assert_in_range(many, 1,
			8 * few); /* 32 times as many; a walk would take 32 times as long */
	assert_in_range(many, 1, 50000 * SLOWNESS);
}

/* Drains a strided task by 16 runs a call and gives the CPU time. */
static uint64_t drain_cost(uint64_t n)
{
	uint64_t start, cost, addr = 0, calls = 0;
	struct run run[16];
	struct task t;
	size_t k;

	begin_strided(&t, n);
	start = cpu_ns();
	while ((k = space_gather(t.s, addr, 16, 16, run, 16))) {
		for (size_t i = 0; i < k; i++)
			place(&t, run[i].index, run[i].npages);
		addr = run[k - 1].addr + PAGE_SIZE;
		calls++;
	}
	cost = cpu_ns() - start;
	assert_int_equal(space_left(t.s), 0);
	assert_int_equal(calls, n / 16);
	end(&t);
	return cost;
}

static void twice_the_ranges_take_twice_the_time_to_drain(void **state)
{
	uint64_t once = UINT64_MAX, twice = UINT64_MAX;

	(void)state;
	for (int i = 0; i < 5; i++) {
		once = MIN(once, drain_cost(UINT64_C(1) << 18));
		twice = MIN(twice, drain_cost(UINT64_C(1) << 19));
	}
	print_message("262144 ranges: %lu us, 524288: %lu us\n", once / 1000, twice / 1000);
	assert_in_range(twice, 1, 3 * once);
}

static void gather_from_the_bottom_skips_what_is_placed(void **state)
{
	uint64_t n = UINT64_C(1) << 20, start, cost;
	struct run run;
	struct task t;

	(void)state;
	begin_strided(&t, n);
	/* Page by page, so that no chunk goes as a whole. */
	for (uint64_t i = 0; i < n - 1; i++)
		place(&t, i, 1);
	start = cpu_ns();
	for (int i = 0; i < 1000; i++)
		assert_int_equal(space_gather(t.s, 0, 16, 16, &run, 1), 1);
	cost = (cpu_ns() - start) / 1000;
	assert_int_equal(run.index, n - 1);
	print_message("%lu ns\n", cost);
	assert_in_range(cost, 1, 20000 * SLOWNESS);
	end(&t);
}

/* Many mappings, nothing left but in the last one: the others are stepped over, not searched. */
static void gather_passes_over_finished_mappings_quickly(void **state)
{
	uint64_t n = 60000, start, cost;
	struct run run;
	struct task t;

	(void)state;
	begin(&t);
	for (uint64_t i = 0; i < n; i++)
		lazy(&t, (1 + 2 * i) * MIB, PAGE_SIZE, WHERE(0, i));
	ready(&t);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(space_add(t.s, (1 + 2 * i) * MIB, (2 + 2 * i) * MIB), 0);
	/* The last but one is moved to the bottom, so that images do not ascend all the way. */
	assert_int_equal(space_remap(t.s, (2 * n - 3) * MIB, 0, MIB), 0);
	place(&t, 0, n - 1);
	start = cpu_ns();
	for (int i = 0; i < 20; i++)
		assert_int_equal(space_gather(t.s, 0, 16, 16, &run, 1), 1);
	cost = (cpu_ns() - start) / 20;
	assert_int_equal(run.addr, (2 * n - 1) * MIB);
	print_message("%lu ns\n", cost);
	assert_in_range(cost, 1, 1000000 * SLOWNESS); /* a search for each: 10 ms and more */
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
		cmocka_unit_test(million_one_page_extents_lookup_is_fast),
		cmocka_unit_test(twice_the_ranges_take_twice_the_time_to_drain),
		cmocka_unit_test(gather_from_the_bottom_skips_what_is_placed),
		cmocka_unit_test(gather_passes_over_finished_mappings_quickly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
