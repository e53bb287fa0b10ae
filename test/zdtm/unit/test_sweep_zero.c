// SPDX-License-Identifier: GPL-2.0-or-later
/* Pages of zeros: told apart from all others to the last bit, and made without memory of their
 * own. */
#include "lazy_area.h"

#include "place.h"
#include "sweep.h"

static void zeros_of_every_length_are_zero(void **state)
{
	char *p = calloc(2, PAGE_SIZE);

	(void)state;
	memset(p, 0xff, 64);
	memset(p + PAGE_SIZE + 64, 0xff, PAGE_SIZE - 64); /* what lies around is of no interest */
	for (size_t len = 64; len <= PAGE_SIZE; len += 64)
		assert_true(bytes_are_zero(p + 64, len));
	free(p);
}

static void one_bit_anywhere_is_not_zero(void **state)
{
	static const size_t lengths[] = {64, 128, 192, 1024, PAGE_SIZE};
	char *p = calloc(1, PAGE_SIZE);

	(void)state;
	for (size_t l = 0; l < ARRAY_SIZE(lengths); l++)
		for (size_t bit = 0; bit < 8 * lengths[l]; bit++) {
			p[bit / 8] = (char)(1 << bit % 8);
			assert_false(bytes_are_zero(p, lengths[l]));
			p[bit / 8] = 0;
			assert_true(bytes_are_zero(p, lengths[l]));
		}
	free(p);
}

/* A comparison of the page with itself must not take a pattern for zeros. */
static void patterns_are_not_zero(void **state)
{
	uint64_t *p = calloc(1, PAGE_SIZE);

	(void)state;
	for (size_t period = 1; period <= PAGE_SIZE / 8; period++) {
		for (size_t i = 0; i < PAGE_SIZE / 8; i++)
			p[i] = i % period == period - 1;
		assert_false(bytes_are_zero(p, PAGE_SIZE));
	}
	memset(p, 0xff, PAGE_SIZE);
	assert_false(bytes_are_zero(p, PAGE_SIZE));
	free(p);
}

static void nothing_outside_is_read(void **state)
{
	char *p = mmap(NULL, 3 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_int_equal(mprotect(p + PAGE_SIZE, PAGE_SIZE, PROT_READ), 0);
	assert_true(bytes_are_zero(p + PAGE_SIZE, PAGE_SIZE));
	assert_true(bytes_are_zero(p + 2 * PAGE_SIZE - 64, 64));
	munmap(p, 3 * PAGE_SIZE);
}

/* The number of the page frame behind an address. */
static uint64_t frame_of(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	assert_int_equal(pread(fd, &entry, 8, (off_t)((uint64_t)p / PAGE_SIZE * 8)), 8);
	close(fd);
	return entry & ((UINT64_C(1) << 55) - 1);
}

static void sweep_all(struct lazy_area *a)
{
	for (int i = 0; task_left(a->t); i++) {
		sweep_slice(a->t, now_ns());
		assert_true(i < 10000);
	}
}

static void pages_of_zeros_get_no_memory(void **state)
{
	struct random r = random_from(61, 0);
	struct lazy_area a;
	uint64_t zeros = 0, zero_frame;
	struct tally sum;

	(void)state;
	area_begin(&a, 1000, 1);
	for (uint64_t i = 0; i < a.npages; i++) {
		if (i % 100 < 40 || random_one_in(&r, 3)) { /* long runs and single ones */
			memset(a.bytes + i * PAGE_SIZE, 0, PAGE_SIZE);
			zeros++;
		} else if (random_one_in(&r, 3)) { /* all but one byte */
			memset(a.bytes + i * PAGE_SIZE, 0, PAGE_SIZE);
			a.bytes[i * PAGE_SIZE + random_below(&r, PAGE_SIZE)] = 1;
		}
	}
	sweep_all(&a);
	assert_int_equal(area_placed(&a), a.npages);
	worker_tally(&a.p.w, &sum);
	assert_int_equal(sum.zero, zeros);
	assert_int_equal(area_tally(&a), a.npages);
	zero_frame = frame_of(a.p0);
	for (uint64_t i = 0; i < a.npages; i++) {
		const char *page = a.bytes + i * PAGE_SIZE;
		bool zero = !page[0] && !memcmp(page, page + 1, PAGE_SIZE - 1);

		assert_int_equal(frame_of(a.p0 + i * PAGE_SIZE) == zero_frame, zero);
	}
	/* They are the task's own when it writes. */
	a.p0[0] = 1;
	assert_int_equal(a.p0[PAGE_SIZE], 0);
	area_end(&a);
}

static void a_page_that_is_there_already_is_left_alone(void **state)
{
	struct lazy_area a;
	struct tally sum;

	(void)state;
	area_begin(&a, 64, 1);
	/* Somebody else has put something there: it is the task's from then on. */
	place_copy(a.t->rec->uffd, (uint64_t)a.p0 + 10 * PAGE_SIZE, a.bytes, PAGE_SIZE);
	sweep_all(&a);
	worker_tally(&a.p.w, &sum);
	assert_int_equal(sum.existed, 1);
	assert_int_equal(sum.placed[CAUSE_BACKGROUND], 63);
	memcpy(a.bytes + 10 * PAGE_SIZE, a.bytes, PAGE_SIZE);
	assert_int_equal(area_placed(&a), 64);
	area_end(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zeros_of_every_length_are_zero),
		cmocka_unit_test(one_bit_anywhere_is_not_zero),
		cmocka_unit_test(patterns_are_not_zero),
		cmocka_unit_test(nothing_outside_is_read),
		cmocka_unit_test(pages_of_zeros_get_no_memory),
		cmocka_unit_test(a_page_that_is_there_already_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
