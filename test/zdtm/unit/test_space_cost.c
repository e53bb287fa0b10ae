// SPDX-License-Identifier: GPL-2.0-or-later
/* What the map costs: it must not grow with the number of extents, nor of finished mappings. */
#include "space_task.h"

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
		cmocka_unit_test(million_one_page_extents_lookup_is_fast),
		cmocka_unit_test(twice_the_ranges_take_twice_the_time_to_drain),
		cmocka_unit_test(gather_from_the_bottom_skips_what_is_placed),
		cmocka_unit_test(gather_passes_over_finished_mappings_quickly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
