// SPDX-License-Identifier: GPL-2.0-or-later
/* Owed bits whose worker is killed at random instants: what is found in the arena is right. */
#include "unit.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "owed.h"

#define CHUNK 32768

/* What a worker would have in its journal: live sets of bits, and how far it has cleared them. */
struct notes {
	struct owed *o[4];
	uint64_t done[4]; /* bits below it are clear; the next step may be half done */
};

#define CRASH_PAGES (2 * CHUNK + 777)
#define CRASH_STEP  13

static void crash_worker(struct arena *a, struct notes *j, struct random *r)
{
	for (;;) {
		size_t k = random_below(r, 4), from = random_below(r, 4);
		struct owed *old = j->o[k];

		if (k != from && random_one_in(r, 200)) {
			uint64_t done = j->done[from];

			/* Slot k gets a fork of another; named only when it is complete. */
			__atomic_store_n(&j->o[k], NULL, __ATOMIC_SEQ_CST);
			owed_free(a, old);
			old = owed_fork(a, j->o[from]);
			__atomic_store_n(&j->done[k], done, __ATOMIC_SEQ_CST);
			__atomic_store_n(&j->o[k], old, __ATOMIC_SEQ_CST);
		} else if (j->done[k] >= CRASH_PAGES) {
			__atomic_store_n(&j->o[k], NULL, __ATOMIC_SEQ_CST);
			owed_free(a, old);
			old = owed_new(a, CRASH_PAGES);
			__atomic_store_n(&j->done[k], 0, __ATOMIC_SEQ_CST);
			__atomic_store_n(&j->o[k], old, __ATOMIC_SEQ_CST);
		} else {
			uint64_t done = j->done[k];

			owed_clear(a, old, done, done + CRASH_STEP);
			__atomic_store_n(&j->done[k], done + CRASH_STEP, __ATOMIC_SEQ_CST);
		}
	}
}

static void check_after_crash(struct owed *o, uint64_t done)
{
	uint64_t first = owed_next(o, 0, CRASH_PAGES), left = 0;

	/* A step may have cleared a part of its bits, but no other. */
	assert_in_range(first, MIN(done, CRASH_PAGES), done + CRASH_STEP);
	for (uint64_t i = 0; i < CRASH_PAGES; i++)
		left += owed_test(o, i);
	assert_int_equal(owed_left(o), left);
	assert_in_range(left, CRASH_PAGES - MIN(CRASH_PAGES, done + CRASH_STEP),
			CRASH_PAGES - MIN(CRASH_PAGES, done));
}

static void bits_and_sums_are_right_after_kills(void **state)
{
	struct arena *a = NULL;
	struct notes *j;
	uint64_t cleared = 0;

	(void)state;
	assert_int_equal(arena_new(&a, UINT64_C(128) * ARENA_PAGE, NULL), 0);
	j = arena_run_new(a, 1);
	for (int k = 0; k < 4; k++)
		j->o[k] = owed_new(a, CRASH_PAGES);
	for (uint64_t round = 0; round < 150; round++) {
		struct random r = random_from(11, round);
		uint64_t used = ARENA_PAGE;
		int status;
		pid_t pid = fork();

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			crash_worker(a, j, &r);
		}
		usleep((useconds_t)(500 + random_below(&r, 3000)));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		arena_reset_lock(a);
		arena_recount_begin(a);
		arena_run_ref(a, j, 1);
		for (int k = 0; k < 4; k++)
			if (j->o[k])
				owed_recount(a, j->o[k]);
		arena_recount_end(a);
		for (int k = 0; k < 4; k++) {
			if (!j->o[k]) {
				j->o[k] = owed_new(a, CRASH_PAGES);
				j->done[k] = 0;
			}
			check_after_crash(j->o[k], j->done[k]);
			cleared += j->done[k] != 0;
			used += (1 + 3) * ARENA_PAGE;
		}
		assert_in_range(arena_used(a), 5 * ARENA_PAGE, used);
	}
	assert_in_range(cleared, 100, 600); /* the workers did get somewhere */
	for (int k = 0; k < 4; k++)
		owed_free(a, j->o[k]);
	assert_int_equal(arena_used(a), ARENA_PAGE);
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_and_sums_are_right_after_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
