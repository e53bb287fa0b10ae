// SPDX-License-Identifier: GPL-2.0-or-later
/* Keeper, deputy and worker killed at random, alone or two at once: there is always a next one. */
#include "keeper_family.h"

/*
 * Any of the three, or the worker together with one of the others, at any moment; never keeper and
 * deputy at once. Time goes fast, so that no life is too short.
 */
static void kill_at_random(struct fixture *f, struct random *r, unsigned *killed)
{
	pid_t pids[3] = {f->j->worker_pid, senior(f), deputy(f)};
	size_t k = random_below(r, 3);
	bool worker_first = k && random_one_in(r, 4), worker_last = k && random_one_in(r, 3);

	usleep((useconds_t)random_below(r, 3000));
	if (worker_first) {
		kill_one(pids[0]);
		usleep((useconds_t)random_below(r, 300));
	}
	kill_one(pids[k]);
	if (worker_last) {
		usleep((useconds_t)random_below(r, 300));
		kill_one(f->j->worker_pid);
	}
	killed[0] += worker_first + worker_last;
	killed[k]++;
	wait_until(!alive(pids[k]));
	all_three_are_there(f);
	while (waitpid(-1, NULL, WNOHANG) > 0) {
	}
}

static void a_hundred_random_kills(void **state)
{
	for (uint64_t seed = 41; seed < 44; seed++) {
		struct fixture *f = *state;
		struct random r = random_from(seed, 0);
		unsigned killed[3] = {0};

		f->n->clock_factor = 2000;
		begin(f, beats);
		all_three_are_there(f);
		while (killed[0] + killed[1] + killed[2] < 100)
			kill_at_random(f, &r, killed);
		for (int i = 0; i < 3; i++)
			assert_true(killed[i] > 10);
		assert_true(f->n->lives > 20);
		assert_int_equal(f->n->together, 0);
		/* What so many dead have had open is closed. */
		assert_in_range(f->n->nfds[1], f->n->nfds[0] - 3, f->n->nfds[0] + 3);
		end_with(f, 77);
		teardown(state);
		setup(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		keeper_test(a_hundred_random_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
