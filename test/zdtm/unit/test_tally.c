// SPDX-License-Identifier: GPL-2.0-or-later
/* Counting: times fall into the right buckets, quantiles are a bucket's edge, sums miss nothing. */
#include "unit.h"

#include "compiler.h"
#include "tally.h"

static void a_time_is_counted_between_its_powers_of_two(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < TALLY_BUCKETS; bit++) {
		struct tally t = {0};

		tally_stall(&t, UINT64_C(1) << bit);
		tally_stall(&t, (UINT64_C(2) << bit) - 1);
		assert_int_equal(t.bucket[bit], 2);
		assert_int_equal(t.stalls, 2);
		assert_int_equal(t.stall_ns, (UINT64_C(3) << bit) - 1);
		assert_int_equal(t.stall_max_ns, (UINT64_C(2) << bit) - 1);
	}
}

static void no_time_and_all_time_have_a_bucket(void **state)
{
	struct tally t = {0};

	(void)state;
	tally_stall(&t, 0);
	tally_stall(&t, UINT64_MAX);
	tally_stall(&t, UINT64_C(1) << TALLY_BUCKETS);
	assert_int_equal(t.bucket[0], 1);
	assert_int_equal(t.bucket[TALLY_BUCKETS - 1], 2);
	assert_int_equal(t.stall_max_ns, UINT64_MAX);
}

static void the_longest_time_stays_the_longest(void **state)
{
	struct tally t = {0};

	(void)state;
	tally_stall(&t, 500);
	tally_stall(&t, 9000);
	tally_stall(&t, 7);
	assert_int_equal(t.stall_max_ns, 9000);
}

static void quantiles_of_nothing_are_zero(void **state)
{
	struct tally t = {0};

	(void)state;
	assert_int_equal(tally_quantile(&t, 0), 0);
	assert_int_equal(tally_quantile(&t, 500), 0);
	assert_int_equal(tally_quantile(&t, 1000), 0);
}

static void quantiles_pass_over_empty_buckets(void **state)
{
	struct tally t = {0};

	(void)state;
	for (int i = 0; i < 990; i++)
		tally_stall(&t, 1000); /* below 1024 */
	for (int i = 0; i < 10; i++)
		tally_stall(&t, 5000000); /* below 8388608 */
	assert_int_equal(tally_quantile(&t, 0), 1024);
	assert_int_equal(tally_quantile(&t, 500), 1024);
	assert_int_equal(tally_quantile(&t, 990), 1024);
	assert_int_equal(tally_quantile(&t, 991), 8388608);
	assert_int_equal(tally_quantile(&t, 1000), 8388608);
}

static void one_time_is_every_quantile(void **state)
{
	struct tally t = {0};

	(void)state;
	tally_stall(&t, 300);
	for (unsigned permille = 0; permille <= 1000; permille++)
		assert_int_equal(tally_quantile(&t, permille), 512);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Against a sorted list: the n-th shortest time is within its factor of two. */
static void quantiles_are_the_edge_above_the_sorted_times(void **state)
{
	static uint64_t times[3000];

	(void)state;
	for (uint64_t round = 0; round < 50; round++) {
		struct random r = random_from(5, round);
		size_t n = 1 + random_below(&r, ARRAY_SIZE(times));
		struct tally t = {0};

		for (size_t i = 0; i < n; i++) {
			times[i] = 1 + random_next(&r) % (UINT64_C(2) << random_below(&r, 38));
			tally_stall(&t, times[i]);
		}
		qsort(times, n, sizeof(times[0]), compare);
		for (unsigned permille = 1; permille <= 1000; permille += 37) {
			uint64_t rank = (n * permille + 999) / 1000;
			uint64_t edge = tally_quantile(&t, permille);

			assert_true(times[rank - 1] < edge);
			assert_true(times[rank - 1] >= edge / 2);
		}
	}
}

/* All members are 64-bit counters, so none can be forgotten unseen. */
static void a_sum_has_every_counter(void **state)
{
	enum { WORDS = offsetof(struct tally, bucket) / sizeof(uint64_t) + TALLY_BUCKETS };
	struct tally a = {0}, b = {0};
	uint64_t *x = (uint64_t *)&a, *y = (uint64_t *)&b;
	size_t longest = offsetof(struct tally, stall_max_ns) / sizeof(uint64_t);

	(void)state;
	for (size_t i = 0; i < WORDS; i++) {
		x[i] = 1 + i;
		y[i] = 1000000 * (1 + i);
	}
	tally_add(&a, &b);
	for (size_t i = 0; i < WORDS; i++) {
		assert_int_equal(x[i], i == longest ? 1000000 * (1 + i) : 1000001 * (1 + i));
		assert_int_equal(y[i], 1000000 * (1 + i));
	}
	b.stall_max_ns = 5;
	tally_add(&a, &b);
	assert_int_equal(a.stall_max_ns, 1000000 * (1 + longest));
}

static void a_sum_has_the_quantiles_of_all(void **state)
{
	struct tally a = {0}, b = {0}, sum = {0};

	(void)state;
	for (int i = 0; i < 3; i++)
		tally_stall(&a, 100);
	tally_stall(&b, 100000);
	tally_add(&sum, &a);
	tally_add(&sum, &b);
	assert_int_equal(tally_quantile(&sum, 750), 128);
	assert_int_equal(tally_quantile(&sum, 751), 131072);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_time_is_counted_between_its_powers_of_two),
		cmocka_unit_test(no_time_and_all_time_have_a_bucket),
		cmocka_unit_test(the_longest_time_stays_the_longest),
		cmocka_unit_test(quantiles_of_nothing_are_zero),
		cmocka_unit_test(quantiles_pass_over_empty_buckets),
		cmocka_unit_test(one_time_is_every_quantile),
		cmocka_unit_test(quantiles_are_the_edge_above_the_sorted_times),
		cmocka_unit_test(a_sum_has_every_counter),
		cmocka_unit_test(a_sum_has_the_quantiles_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
