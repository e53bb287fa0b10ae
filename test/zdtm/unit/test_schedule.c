// SPDX-License-Identifier: GPL-2.0-or-later
/* What comes next: neighbours of a fault before the sweep, more of them for who reads in order. */
#include "unit.h"

#include "compiler.h"
#include "schedule.h"

#define MS   UINT64_C(1000000)
#define NOW  (1000 * MS)
#define LATE (NOW + 1000 * MS) /* nothing is busy any more */
#define BASE UINT64_C(0x7f0000000000)

/* Where everything is owed: each slice is placed whole. Returns the pages that came as neighbours.
 */
static uint64_t neighbours(struct schedule *s, uint64_t from, uint64_t now)
{
	uint64_t pages = 0;

	for (;;) {
		struct slice slice = schedule_next(s, now);

		if (slice.cause != CAUSE_NEIGHBOUR)
			return pages;
		assert_int_equal(slice.addr, from + pages * PAGE_SIZE);
		assert_in_range(slice.pages, 1, SCHEDULE_MAX_PAGES);
		pages += slice.pages;
		assert_in_range(pages, 1, 100000); /* it ends */
		schedule_done(s, &slice, slice.addr + slice.pages * PAGE_SIZE, true);
	}
}

/* How many neighbours a fault at @addr gets. */
static uint64_t ahead_of(struct schedule *s, uint64_t addr)
{
	schedule_fault(s, addr, NOW);
	return neighbours(s, addr + PAGE_SIZE, LATE);
}

/* The background goes on: one slice, of which @pages were in the way, and @settled. */
static struct slice sweep(struct schedule *s, bool settled)
{
	struct slice slice = schedule_next(s, LATE);

	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	schedule_done(s, &slice, slice.addr + slice.pages * PAGE_SIZE, settled);
	return slice;
}

/* The background finds nothing owed above. */
static void sweep_ends(struct schedule *s)
{
	struct slice slice = schedule_next(s, LATE);

	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	schedule_done(s, &slice, 0, false);
}

static void the_sweep_begins_at_the_bottom_with_the_largest_slice(void **state)
{
	struct schedule s = {0};
	struct slice slice = schedule_next(&s, NOW);

	(void)state;
	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	assert_int_equal(slice.addr, 0);
	assert_int_equal(slice.pages, SCHEDULE_MAX_PAGES);
	assert_false(schedule_busy(&s, NOW));
}

static void neighbours_follow_a_fault_and_then_the_sweep_goes_on(void **state)
{
	struct schedule s = {0};
	struct slice before = sweep(&s, true), slice;

	(void)state;
	assert_in_range(ahead_of(&s, BASE), 2, 64);
	slice = schedule_next(&s, LATE);
	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	assert_int_equal(slice.addr, before.addr + before.pages * PAGE_SIZE);
}

static void a_newer_fault_takes_the_place_of_an_older_one(void **state)
{
	struct schedule s = {0};

	(void)state;
	schedule_fault(&s, BASE, NOW);
	schedule_fault(&s, BASE - 1000 * PAGE_SIZE, NOW);
	assert_int_equal(schedule_next(&s, NOW).addr, BASE - 999 * PAGE_SIZE);
}

static void faults_in_sequence_double_the_window_up_to_a_limit(void **state)
{
	struct schedule s = {0};
	uint64_t addr = BASE, first = ahead_of(&s, addr), last = first;
	int doubled = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		uint64_t n;

		addr += (1 + last) * PAGE_SIZE; /* the first page that has not come */
		n = ahead_of(&s, addr);
		if (n != last) {
			assert_int_equal(n, 2 * last);
			doubled++;
		}
		last = n;
	}
	assert_in_range(doubled, 3, 10);
}

/* The reader may be a little ahead of what has come, or in it while it is still on its way. */
static void a_sequence_need_not_be_exact(void **state)
{
	(void)state;
	for (uint64_t skip = 0; skip <= 2; skip++) {
		struct schedule s = {0};
		uint64_t n = ahead_of(&s, BASE);

		assert_int_equal(ahead_of(&s, BASE + (1 + n + skip) * PAGE_SIZE), 2 * n);
	}
	for (uint64_t page = 1; page <= 2; page++) {
		struct schedule s = {0};
		uint64_t n = ahead_of(&s, BASE);

		s = (struct schedule){0};
		schedule_fault(&s, BASE, NOW); /* no neighbour has come yet */
		assert_int_equal(ahead_of(&s, BASE + page * PAGE_SIZE), 2 * n);
	}
}

static void a_fault_elsewhere_shrinks_the_window_again(void **state)
{
	struct schedule s = {0};
	uint64_t first = ahead_of(&s, BASE), addr = BASE + (1 + first) * PAGE_SIZE;

	(void)state;
	assert_int_equal(ahead_of(&s, addr), 2 * first);
	/* below, and far above */
	assert_int_equal(ahead_of(&s, BASE - PAGE_SIZE), first);
	assert_int_equal(ahead_of(&s, BASE + 100000 * PAGE_SIZE), first);
	/* and a sequence can begin there */
	assert_int_equal(ahead_of(&s, BASE + (100001 + first) * PAGE_SIZE), 2 * first);
}

static void random_faults_never_grow_the_window(void **state)
{
	struct random r = random_from(3, 0);
	struct schedule s = {0};
	uint64_t first = ahead_of(&s, BASE);

	(void)state;
	for (int i = 0; i < 1000; i++) {
		/* at least 2000 pages from the one before */
		uint64_t slot = 2 * random_below(&r, 1 << 20) + (uint64_t)(i & 1);

		assert_int_equal(ahead_of(&s, BASE + slot * 2000 * PAGE_SIZE), first);
	}
}

/* 100 MiB of neighbours that nobody owes any more are passed over with the first slice. */
static void neighbours_are_counted_by_address_not_by_what_was_owed(void **state)
{
	struct schedule s = {0};
	struct slice slice;

	(void)state;
	schedule_fault(&s, BASE, NOW);
	slice = schedule_next(&s, LATE);
	schedule_done(&s, &slice, slice.addr + 25600 * PAGE_SIZE, true);
	assert_int_equal(schedule_next(&s, LATE).cause, CAUSE_BACKGROUND);
}

static void neighbours_end_where_nothing_is_owed_above(void **state)
{
	struct schedule s = {0};
	struct slice slice;

	(void)state;
	sweep(&s, true);
	schedule_fault(&s, BASE, NOW);
	slice = schedule_next(&s, LATE);
	assert_int_equal(slice.cause, CAUSE_NEIGHBOUR);
	schedule_done(&s, &slice, 0, false);
	slice = schedule_next(&s, LATE);
	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	assert_int_not_equal(slice.addr, 0); /* the sweep is where it was */
}

static void slices_are_small_while_faults_are_recent(void **state)
{
	struct schedule s = {0};
	uint64_t addr = BASE;
	struct slice slice;

	(void)state;
	for (int i = 0; i < 10; i++) /* a wide window */
		addr += (1 + ahead_of(&s, addr)) * PAGE_SIZE;
	schedule_fault(&s, addr, NOW);
	for (uint64_t ns = 0; ns <= 2 * MS; ns += MS / 2) {
		assert_true(schedule_busy(&s, NOW + ns));
		slice = schedule_next(&s, NOW + ns);
		assert_int_equal(slice.cause, CAUSE_NEIGHBOUR);
		assert_in_range(slice.pages * PAGE_SIZE, PAGE_SIZE, 64 << 10);
	}
	assert_false(schedule_busy(&s, NOW + 50 * MS));
	assert_int_equal(schedule_next(&s, NOW + 50 * MS).pages, SCHEDULE_MAX_PAGES);
	/* the sweep, too */
	neighbours(&s, addr + PAGE_SIZE, LATE);
	slice = schedule_next(&s, NOW + MS);
	assert_int_equal(slice.cause, CAUSE_BACKGROUND);
	assert_in_range(slice.pages * PAGE_SIZE, PAGE_SIZE, 64 << 10);
	assert_int_equal(schedule_next(&s, LATE).pages, SCHEDULE_MAX_PAGES);
}

static void the_last_slice_of_neighbours_is_what_is_left(void **state)
{
	struct schedule s = {0};
	struct slice slice;
	uint64_t n = ahead_of(&s, BASE);

	(void)state;
	s = (struct schedule){0};
	schedule_fault(&s, BASE, NOW);
	slice = schedule_next(&s, LATE);
	schedule_done(&s, &slice, slice.addr + (n - 1) * PAGE_SIZE, true);
	slice = schedule_next(&s, LATE);
	assert_int_equal(slice.cause, CAUSE_NEIGHBOUR);
	assert_int_equal(slice.pages, 1);
	assert_int_equal(slice.addr, BASE + n * PAGE_SIZE);
}

static void the_sweep_wraps_to_the_bottom(void **state)
{
	struct schedule s = {0};

	(void)state;
	for (int round = 0; round < 3; round++) {
		uint64_t expected = 0;

		for (int i = 0; i < 5; i++) {
			struct slice slice = sweep(&s, true);

			assert_int_equal(slice.addr, expected);
			expected += slice.pages * PAGE_SIZE;
		}
		sweep_ends(&s);
		assert_int_equal(schedule_next(&s, LATE).addr, 0);
	}
}

static void a_sweep_that_placed_nothing_is_fruitless(void **state)
{
	struct schedule s = {0};

	(void)state;
	for (int i = 0; i < 3; i++) {
		sweep(&s, false);
		assert_false(s.fruitless); /* it is not over yet */
	}
	sweep_ends(&s);
	assert_true(s.fruitless);
	sweep(&s, false);
	assert_true(s.fruitless); /* the last whole one was */
	sweep(&s, true);
	assert_false(s.fruitless);
	sweep_ends(&s);
	assert_false(s.fruitless);
	/* what one sweep has placed does not count for the next */
	sweep(&s, false);
	sweep_ends(&s);
	assert_true(s.fruitless);
}

static void one_page_placed_anywhere_makes_a_sweep_fruitful(void **state)
{
	(void)state;
	for (int at = 0; at < 4; at++) {
		struct schedule s = {0};

		for (int i = 0; i < 4; i++)
			sweep(&s, i == at);
		sweep_ends(&s);
		assert_false(s.fruitless);
	}
}

static void a_neighbour_placed_meanwhile_makes_a_sweep_fruitful(void **state)
{
	struct schedule s = {0};

	(void)state;
	sweep(&s, false);
	ahead_of(&s, BASE);
	sweep(&s, false);
	sweep_ends(&s);
	assert_false(s.fruitless);
}

/* Faults at the edges of 64 bits and times at the edges of the clock. */
static void random_states_give_slices_of_sound_size(void **state)
{
	struct random r = random_from(17, 1);
	struct schedule s = {0};
	uint64_t now = 1;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct slice slice;

		now += random_below(&r, 10 * MS);
		if (random_one_in(&r, 3))
			schedule_fault(&s, random_next(&r) & ~(PAGE_SIZE - 1), now);
		slice = schedule_next(&s, now);
		assert_in_range(slice.pages, 1, SCHEDULE_MAX_PAGES);
		assert_int_equal(slice.addr % PAGE_SIZE, 0);
		if (schedule_busy(&s, now))
			assert_in_range(slice.pages, 1, 16);
		if (random_one_in(&r, 20))
			schedule_done(&s, &slice, 0, false);
		else
			schedule_done(&s, &slice,
				      slice.addr + random_below(&r, 2 * slice.pages) * PAGE_SIZE,
				      random_one_in(&r, 2));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sweep_begins_at_the_bottom_with_the_largest_slice),
		cmocka_unit_test(neighbours_follow_a_fault_and_then_the_sweep_goes_on),
		cmocka_unit_test(a_newer_fault_takes_the_place_of_an_older_one),
		cmocka_unit_test(faults_in_sequence_double_the_window_up_to_a_limit),
		cmocka_unit_test(a_sequence_need_not_be_exact),
		cmocka_unit_test(a_fault_elsewhere_shrinks_the_window_again),
		cmocka_unit_test(random_faults_never_grow_the_window),
		cmocka_unit_test(neighbours_are_counted_by_address_not_by_what_was_owed),
		cmocka_unit_test(neighbours_end_where_nothing_is_owed_above),
		cmocka_unit_test(slices_are_small_while_faults_are_recent),
		cmocka_unit_test(the_last_slice_of_neighbours_is_what_is_left),
		cmocka_unit_test(the_sweep_wraps_to_the_bottom),
		cmocka_unit_test(a_sweep_that_placed_nothing_is_fruitless),
		cmocka_unit_test(one_page_placed_anywhere_makes_a_sweep_fruitful),
		cmocka_unit_test(a_neighbour_placed_meanwhile_makes_a_sweep_fruitful),
		cmocka_unit_test(random_states_give_slices_of_sound_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
