// SPDX-License-Identifier: GPL-2.0-or-later
/* The arena: what it hands out, counts, threads, and what a killed worker leaves behind. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"
#include "compiler.h"

#define SMALL (UINT64_C(64) * ARENA_PAGE)
#define LARGE (UINT64_C(1) << 30)

static struct arena *new_arena(uint64_t bytes)
{
	struct arena *a = NULL;
	struct error e = {0};

	if (arena_new(&a, bytes, &e))
		fail_msg("%s", e.text);
	return a;
}

/* Are all words of the run @value? */
static bool filled(const uint64_t *run, size_t npages, uint64_t value)
{
	for (size_t i = 0; i < npages * ARENA_PAGE / sizeof(*run); i++)
		if (run[i] != value)
			return false;
	return true;
}

static void fill(uint64_t *run, size_t npages, uint64_t value)
{
	for (size_t i = 0; i < npages * ARENA_PAGE / sizeof(*run); i++)
		run[i] = value;
}

static void size_that_cannot_be_is_refused(void **state)
{
	struct arena *a;
	struct error e;

	(void)state;
	assert_int_equal(arena_new(&a, 0, &e), -EINVAL);
	assert_int_equal(arena_new(&a, ARENA_PAGE - 1, &e), -EINVAL);
	assert_int_equal(arena_new(&a, UINT64_MAX, &e), -EINVAL);
}

static void terabyte_is_reserved_not_used(void **state)
{
	struct arena *a = new_arena(UINT64_C(1) << 40);

	(void)state;
	assert_int_equal(arena_used(a), 0);
	assert_non_null(arena_page_new(a, 1));
	assert_int_equal(arena_used(a), ARENA_PAGE);
	arena_free(a);
}

static void run_is_zeroed_when_used_before(void **state)
{
	struct arena *a = new_arena(SMALL);

	(void)state;
	for (size_t n = 1; n <= 64; n++) {
		uint64_t *run = arena_run_new(a, n);

		assert_non_null(run);
		assert_true(filled(run, n, 0));
		fill(run, n, ~n);
		arena_run_free(a, run, n);
	}
	assert_int_equal(arena_used(a), 0);
	arena_free(a);
}

static void page_is_zeroed_when_asked(void **state)
{
	struct arena *a = new_arena(SMALL);

	(void)state;
	for (int i = 0; i < 4; i++) {
		uint64_t *page = arena_page_new(a, 1);

		assert_true(filled(page, 1, 0));
		fill(page, 1, 7);
		arena_page_put(a, page);
	}
	arena_free(a);
}

static void all_pages_can_be_had_and_no_more(void **state)
{
	struct arena *a = new_arena(SMALL);
	void *page[64];

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 64; i++) {
			page[i] = arena_page_new(a, 0);
			assert_non_null(page[i]);
			for (int j = 0; j < i; j++)
				assert_ptr_not_equal(page[i], page[j]);
		}
		assert_null(arena_page_new(a, 0));
		assert_null(arena_run_new(a, 1));
		assert_int_equal(arena_used(a), SMALL);
		for (int i = 0; i < 64; i++)
			arena_page_put(a, page[(i * 29 + round) % 64]);
		assert_int_equal(arena_used(a), 0);
	}
	arena_free(a);
}

/* Freed neighbours join, in whatever order they come: the whole arena is one run again. */
static void freed_neighbours_join(void **state)
{
	struct arena *a = new_arena(SMALL);
	void *run[16];

	(void)state;
	for (size_t stride = 1; stride < 16; stride += 2) {
		for (size_t i = 0; i < 16; i++)
			run[i] = arena_run_new(a, 4);
		assert_null(arena_run_new(a, 1));
		for (size_t i = 0; i < 16; i++)
			arena_run_free(a, run[i * stride % 16], 4);
		run[0] = arena_run_new(a, 64);
		assert_non_null(run[0]);
		arena_run_free(a, run[0], 64);
	}
	arena_free(a);
}

static void hole_is_used_before_new_pages(void **state)
{
	struct arena *a = new_arena(SMALL);
	char *hole = arena_run_new(a, 5);
	char *last = arena_run_new(a, 1);

	(void)state;
	arena_run_free(a, hole, 5);
	assert_ptr_equal(arena_run_new(a, 5), hole); /* not a power of two: a look at its class */
	arena_run_free(a, hole, 5);
	assert_ptr_equal(arena_run_new(a, 2), hole);
	assert_ptr_equal(arena_page_new(a, 0), hole + 2 * ARENA_PAGE);
	assert_ptr_equal(arena_run_new(a, 3), last + ARENA_PAGE); /* only two are left there */
	assert_ptr_equal(arena_run_new(a, 2), hole + 3 * ARENA_PAGE);
	arena_free(a);
}

static void page_is_free_when_the_last_count_goes(void **state)
{
	struct arena *a = new_arena(SMALL);
	void *page = arena_page_new(a, 0);

	(void)state;
	assert_int_equal(arena_page_refs(a, page), 1);
	arena_page_ref(a, page);
	arena_page_ref(a, page);
	assert_int_equal(arena_page_refs(a, page), 3);
	arena_page_put(a, page);
	arena_page_put(a, page);
	assert_int_equal(arena_page_refs(a, page), 1);
	assert_int_equal(arena_used(a), ARENA_PAGE);
	arena_page_put(a, page);
	assert_int_equal(arena_page_refs(a, page), 0);
	assert_int_equal(arena_used(a), 0);
	arena_free(a);
}

enum misuse { PUT_TWICE, REF_FREED, FREE_SHARED, PUT_FOREIGN, PUT_INSIDE };

/* Whoever frees twice corrupts somebody else's bits: better that the worker dies. */
static void misuse_aborts(void **state)
{
	struct arena *a = new_arena(SMALL);

	(void)state;
	for (enum misuse m = PUT_TWICE; m <= PUT_INSIDE; m++) {
		char *page = arena_page_new(a, 0);
		int status;
		pid_t pid = fork();

		if (!pid) {
			signal(SIGABRT, SIG_DFL);
			if (m == PUT_TWICE || m == REF_FREED)
				arena_page_put(a, page);
			if (m == PUT_TWICE)
				arena_page_put(a, page);
			if (m == REF_FREED)
				arena_page_ref(a, page);
			if (m == FREE_SHARED) {
				arena_page_ref(a, page);
				arena_run_free(a, page, 1);
			}
			if (m == PUT_FOREIGN)
				arena_page_put(a, &m);
			if (m == PUT_INSIDE)
				arena_page_put(a, page + 8);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
	arena_free(a);
}

/*
 * Random runs and pages, each filled with a number of its own that nobody else may touch. Says what
 * went wrong, or NULL: cmocka's checks are for the main thread only.
 */
static const char *churn(struct arena *a, struct random *r, int steps)
{
	struct {
		uint64_t *run;
		size_t npages;
		uint64_t value;
	} held[32] = {0};

	for (int i = 0; i < steps + 32; i++) {
		int h = i < steps ? (int)random_below(r, 32) : i - steps;

		if (held[h].run) {
			if (!filled(held[h].run, held[h].npages, held[h].value))
				return "somebody else wrote to a run";
			arena_run_free(a, held[h].run, held[h].npages);
			held[h].run = NULL;
		} else if (i < steps) {
			held[h].npages = random_one_in(r, 2) ? 1 : 1 + random_below(r, 12);
			held[h].value = random_next(r);
			held[h].run = arena_run_new(a, held[h].npages);
			if (!held[h].run)
				continue;
			if (!filled(held[h].run, held[h].npages, 0))
				return "a run is not zeroed";
			fill(held[h].run, held[h].npages, held[h].value);
		}
	}
	return NULL;
}

static void churn_well(struct arena *a, struct random *r, int steps)
{
	const char *wrong = churn(a, r, steps);

	if (wrong)
		fail_msg("%s", wrong);
}

static void random_runs_never_overlap(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct arena *a = new_arena(SMALL << seed % 4);
		struct random r = random_from(seed, 0);

		churn_well(a, &r, 5000);
		assert_int_equal(arena_used(a), 0);
		/* Nothing is lost to fragmentation when all is free. */
		assert_non_null(arena_run_new(a, (SMALL << seed % 4) / ARENA_PAGE));
		arena_free(a);
	}
}

struct thread {
	pthread_t id;
	struct arena *a;
	struct random r;
	char *shared;
};

static void *churn_in_thread(void *arg)
{
	struct thread *t = arg;
	const char *wrong = NULL;

	for (int i = 0; i < 20 && !wrong; i++) {
		wrong = churn(t->a, &t->r, 400);
		for (int n = 0; n < 1000; n++)
			arena_page_ref(t->a, t->shared);
		for (int n = 0; n < 1000; n++)
			arena_page_put(t->a, t->shared);
	}
	return (void *)wrong;
}

static void threads_never_get_the_same_page(void **state)
{
	struct arena *a = new_arena(LARGE);
	char *shared = arena_page_new(a, 0);
	struct thread t[4];

	(void)state;
	for (uint64_t i = 0; i < ARRAY_SIZE(t); i++) {
		t[i] = (struct thread){.a = a, .r = random_from(7, i), .shared = shared};
		assert_int_equal(pthread_create(&t[i].id, NULL, churn_in_thread, &t[i]), 0);
	}
	for (uint64_t i = 0; i < ARRAY_SIZE(t); i++) {
		void *wrong;

		assert_int_equal(pthread_join(t[i].id, &wrong), 0);
		if (wrong)
			fail_msg("%s", (char *)wrong);
	}
	assert_int_equal(arena_page_refs(a, shared), 1);
	assert_int_equal(arena_used(a), ARENA_PAGE);
	arena_free(a);
}

static void recount_frees_what_nobody_names(void **state)
{
	struct arena *a = new_arena(SMALL);
	char *run = arena_run_new(a, 3);
	char *leak = arena_page_new(a, 0);
	char *page = arena_page_new(a, 0);

	(void)state;
	arena_run_new(a, 7);
	arena_page_ref(a, page); /* by somebody who is gone */
	fill((uint64_t *)run, 3, 3);

	arena_recount_begin(a);
	arena_run_ref(a, run, 3);
	arena_page_ref(a, page);
	arena_recount_end(a);
	assert_int_equal(arena_used(a), 4 * ARENA_PAGE);
	assert_int_equal(arena_page_refs(a, page), 1);
	assert_int_equal(arena_page_refs(a, leak), 0);
	assert_true(filled((uint64_t *)run, 3, 3));
	assert_ptr_equal(arena_page_new(a, 0), leak);
	assert_ptr_equal(arena_run_new(a, 59), page + ARENA_PAGE);
	assert_null(arena_page_new(a, 0));
	arena_free(a);
}

/*
 * A process that shares the arena is killed at a random instant, the lock perhaps in its hands.
 * What was held before is untouched, all the rest can be had again, whole and zeroed.
 */
static void recount_after_crash_frees_leaks(void **state)
{
	struct arena *a = new_arena(4 * SMALL);
	uint64_t *run[8];

	(void)state;
	for (uint64_t i = 0; i < 8; i++) {
		run[i] = arena_run_new(a, 1 + i);
		fill(run[i], 1 + i, i);
		arena_page_new(a, 0); /* a leak between two that stay */
	}
	for (uint64_t round = 0; round < 100; round++) {
		struct random r = random_from(3, round);
		uint64_t used = 0, rest = 0;
		int status;
		pid_t pid = fork();

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (!churn(a, &r, 1000))
				continue;
			_exit(1);
		}
		usleep((useconds_t)random_below(&r, 3000));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		arena_reset_lock(a);
		arena_recount_begin(a);
		for (size_t i = 0; i < 8; i++)
			arena_run_ref(a, run[i], 1 + i);
		arena_recount_end(a);
		for (size_t i = 0; i < 8; i++) {
			assert_true(filled(run[i], 1 + i, i));
			used += 1 + i;
		}
		assert_int_equal(arena_used(a), used * ARENA_PAGE);
		churn_well(a, &r, 200);
		assert_int_equal(arena_used(a), used * ARENA_PAGE);
		while (arena_page_new(a, 0))
			rest++;
		assert_int_equal(used + rest, 4 * SMALL / ARENA_PAGE);
	}
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_that_cannot_be_is_refused),
		cmocka_unit_test(terabyte_is_reserved_not_used),
		cmocka_unit_test(run_is_zeroed_when_used_before),
		cmocka_unit_test(page_is_zeroed_when_asked),
		cmocka_unit_test(all_pages_can_be_had_and_no_more),
		cmocka_unit_test(freed_neighbours_join),
		cmocka_unit_test(hole_is_used_before_new_pages),
		cmocka_unit_test(page_is_free_when_the_last_count_goes),
		cmocka_unit_test(misuse_aborts),
		cmocka_unit_test(random_runs_never_overlap),
		cmocka_unit_test(threads_never_get_the_same_page),
		cmocka_unit_test(recount_frees_what_nobody_names),
		cmocka_unit_test(recount_after_crash_frees_leaks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
