// SPDX-License-Identifier: GPL-2.0-or-later
/* The owed bits: single facts, random operations against bytes, threads that share. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "compiler.h"
#include "owed.h"

#define CHUNK 32768
#define ROOMY (UINT64_C(64) << 20)

static struct arena *new_arena(uint64_t bytes)
{
	struct arena *a = NULL;

	assert_int_equal(arena_new(&a, bytes, NULL), 0);
	return a;
}

static struct owed *new_owed(struct arena *a, uint64_t npages)
{
	struct owed *o = owed_new(a, npages);

	assert_non_null(o);
	assert_int_equal(owed_left(o), npages);
	return o;
}

static void no_pages_are_all_clear(void **state)
{
	struct arena *a = new_arena(ROOMY);
	struct owed *o = new_owed(a, 0), *child = owed_fork(a, o);

	(void)state;
	assert_int_equal(owed_npages(child), 0);
	assert_false(owed_test(o, 0));
	assert_int_equal(owed_next(o, 0, 0), 0);
	assert_int_equal(owed_next(o, 0, 100), 100);
	assert_int_equal(owed_next_clear(o, 0, 100), 0);
	assert_int_equal(owed_clear(a, o, 0, 100), 0);
	owed_free(a, o);
	owed_free(a, child);
	assert_int_equal(arena_used(a), 0);
	arena_free(a);
}

static void bits_behind_the_last_page_are_clear(void **state)
{
	struct arena *a = new_arena(ROOMY);
	struct owed *o = new_owed(a, CHUNK + 70);

	(void)state;
	for (int has_page = 0; has_page < 2; has_page++) {
		assert_true(owed_test(o, CHUNK + 69));
		assert_false(owed_test(o, CHUNK + 70));
		assert_false(owed_test(o, UINT64_MAX));
		assert_int_equal(owed_next_clear(o, CHUNK + 1, CHUNK + 200), CHUNK + 70);
		assert_int_equal(owed_next(o, CHUNK + 70, CHUNK + 200), CHUNK + 200);
		assert_int_equal(owed_own(a, o, 0, UINT64_MAX), 0);
	}
	assert_int_equal(owed_clear(a, o, CHUNK - 1, UINT64_MAX), 71);
	assert_int_equal(owed_left(o), CHUNK - 1);
	owed_free(a, o);
	arena_free(a);
}

static void cleared_twice_counts_once(void **state)
{
	struct arena *a = new_arena(ROOMY);
	struct owed *o = new_owed(a, 1000);

	(void)state;
	assert_int_equal(owed_clear(a, o, 10, 200), 190);
	assert_int_equal(owed_clear(a, o, 0, 200), 10);
	assert_int_equal(owed_clear(a, o, 0, 200), 0);
	assert_int_equal(owed_clear_shared(o, 100, 201), 1);
	assert_int_equal(owed_left(o), 799);
	assert_int_equal(owed_next(o, 0, 1000), 201);
	owed_free(a, o);
	arena_free(a);
}

static void whole_chunks_take_no_memory(void **state)
{
	struct arena *a = new_arena(ROOMY);
	struct owed *o = new_owed(a, 100 * CHUNK), *child;
	uint64_t used = arena_used(a);

	(void)state;
	assert_int_equal(owed_clear(a, o, 0, 50 * CHUNK), 50 * CHUNK);
	assert_int_equal(arena_used(a), used);
	assert_int_equal(owed_clear(a, o, 50 * CHUNK, 50 * CHUNK + 1), 1);
	assert_int_equal(arena_used(a), used + ARENA_PAGE);
	assert_int_equal(owed_clear(a, o, 50 * CHUNK, 51 * CHUNK), CHUNK - 1);
	assert_int_equal(arena_used(a), used);

	/* A chunk that went bit by bit may still be in a borrower's hands; a fork is a safe time.
	 */
	for (uint64_t i = 51 * CHUNK; i < 52 * CHUNK; i++)
		assert_int_equal(owed_clear(a, o, i, i + 1), 1);
	assert_int_equal(arena_used(a), used + ARENA_PAGE);
	child = owed_fork(a, o);
	assert_int_equal(arena_used(a), 2 * used);
	owed_free(a, child);
	owed_free(a, o);
	arena_free(a);
}

static void fork_of_100_gib_takes_microseconds(void **state)
{
	struct arena *a = new_arena(ROOMY);
	struct owed *o = new_owed(a, (UINT64_C(100) << 30) / ARENA_PAGE);
	uint64_t best = UINT64_MAX;

	(void)state;
	for (uint64_t i = 0; i < 800; i++)
		assert_int_equal(owed_clear(a, o, i * CHUNK + i, i * CHUNK + i + 1), 1);
	for (int i = 0; i < 100; i++) {
		uint64_t start = cpu_ns();
		struct owed *child = owed_fork(a, o);

		best = MIN(best, cpu_ns() - start);
		assert_int_equal(owed_left(child), owed_left(o));
		owed_free(a, child);
	}
	print_message("%lu ns\n", best);
	assert_in_range(best, 1, 50000 * SLOWNESS);
	owed_free(a, o);
	assert_int_equal(arena_used(a), 0);
	arena_free(a);
}

static void without_room_nothing_changes(void **state)
{
	struct arena *a = new_arena(UINT64_C(3) * ARENA_PAGE);
	struct owed *o = new_owed(a, 3 * CHUNK), *child = owed_fork(a, o);

	(void)state;
	/* One page is left, and this needs one at each end. */
	assert_int_equal(owed_clear(a, o, 1, 3 * CHUNK - 1), -ENOMEM);
	assert_int_equal(owed_left(o), 3 * CHUNK);
	assert_int_equal(owed_next_clear(o, 0, 3 * CHUNK), 3 * CHUNK);
	assert_int_equal(owed_own(a, o, 0, 3 * CHUNK), -ENOMEM);
	assert_null(owed_fork(a, o));
	/* Whole chunks need none. */
	assert_int_equal(owed_clear(a, o, CHUNK, 2 * CHUNK), CHUNK);
	assert_int_equal(owed_clear(a, o, 1, 2 * CHUNK), CHUNK - 1);
	assert_int_equal(owed_left(child), 3 * CHUNK);
	owed_free(a, o);
	owed_free(a, child);
	assert_int_equal(arena_used(a), 0);
	arena_free(a);
}

/* A set of bits with its copy in bytes. */
struct pair {
	struct owed *o;
	uint8_t *bit;
	uint64_t n;
};

static struct pair pair_new(struct arena *a, uint64_t n)
{
	struct pair p = {owed_new(a, n), malloc(n), n};

	memset(p.bit, 1, n);
	return p;
}

static struct pair pair_fork(struct arena *a, const struct pair *from)
{
	struct pair p = {owed_fork(a, from->o), malloc(from->n), from->n};

	memcpy(p.bit, from->bit, p.n);
	return p;
}

static void pair_free(struct arena *a, struct pair *p)
{
	owed_free(a, p->o);
	free(p->bit);
}

static bool pair_clear(struct arena *a, struct pair *p, uint64_t from, uint64_t to)
{
	int64_t set = 0;

	for (uint64_t i = from; i < to; i++) {
		set += p->bit[i];
		p->bit[i] = 0;
	}
	return owed_clear(a, p->o, from, to) == set;
}

/* The same bits, met in three ways. */
static bool pair_same(const struct pair *p)
{
	uint64_t left = 0, at = 0, next;

	for (uint64_t i = 0; i < p->n; i++) {
		left += p->bit[i];
		if (owed_test(p->o, i) != p->bit[i])
			return false;
	}
	for (bool set = true; at < p->n; at = next, set = !set) {
		next = set ? owed_next(p->o, at, p->n) : owed_next_clear(p->o, at, p->n);
		/* [at, next) is the other kind, and what is at next is of this kind. */
		if (memchr(p->bit + at, set, next - at) || (next < p->n && p->bit[next] != set))
			return false;
	}
	return left == owed_left(p->o);
}

static void pick(struct random *r, uint64_t n, uint64_t *from, uint64_t *to)
{
	uint64_t most = random_one_in(r, 3) ? n : random_one_in(r, 2) ? 200 : 3;

	*from = random_below(r, n);
	*to = *from + 1 + random_below(r, MIN(most, n - *from));
	if (random_one_in(r, 4))
		*from = *from / CHUNK * CHUNK;
	if (random_one_in(r, 4))
		*to = MIN(n, (*to + CHUNK - 1) / CHUNK * CHUNK);
}

static void random_clears_and_forks_agree_with_bytes(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct random r = random_from(seed, 1);
		struct arena *a = new_arena(ROOMY);
		struct pair p[8];
		uint64_t from, to;
		size_t n = 1;

		p[0] = pair_new(a, 1 + random_below(&r, 3 * CHUNK));
		for (int i = 0; i < 150; i++) {
			size_t k = random_below(&r, n);

			pick(&r, p[k].n, &from, &to);
			if (!pair_clear(a, &p[k], from, to) || !pair_same(&p[k]))
				fail_msg("seed %lu, step %d: [%lu, %lu)", seed, i, from, to);
			if (n < ARRAY_SIZE(p) && random_one_in(&r, 8)) {
				p[n] = pair_fork(a, &p[k]);
				n++;
			} else if (n > 1 && random_one_in(&r, 16)) {
				pair_free(a, &p[k]);
				p[k] = p[--n];
			}
		}
		while (n--) {
			if (!pair_same(&p[n]))
				fail_msg("seed %lu: at the end", seed);
			pair_free(a, &p[n]);
		}
		assert_int_equal(arena_used(a), 0);
		arena_free(a);
	}
}

struct owner {
	pthread_t id;
	pthread_barrier_t *start;
	struct arena *a;
	struct pair pair;
	struct random r;
	bool right;
};

/* Owns one of several copies that share their chunks with those of other threads. */
static void *clear_own_copy(void *arg)
{
	struct owner *w = arg;
	uint64_t from, to;

	w->right = true;
	pthread_barrier_wait(w->start);
	for (int i = 0; i < 40; i++) {
		from = random_below(&w->r, w->pair.n);
		to = from + 1 + random_below(&w->r, MIN(300, w->pair.n - from));
		w->right &= pair_clear(w->a, &w->pair, from, to);
		if (random_one_in(&w->r, 10)) {
			/* A child that shares with us, and through us with the others. */
			struct pair child = pair_fork(w->a, &w->pair);

			w->right &= pair_clear(w->a, &child, from / 2, to);
			w->right &= pair_clear(w->a, &w->pair, from / 2, from / 2 + 1);
			w->right &= pair_same(&child);
			pair_free(w->a, &child);
		}
	}
	w->right &= pair_same(&w->pair);
	pair_free(w->a, &w->pair);
	return NULL;
}

static void relatives_in_several_threads_never_see_each_other(void **state)
{
	struct arena *a = new_arena(ROOMY);
	pthread_barrier_t start;

	(void)state;
	pthread_barrier_init(&start, NULL, 4);
	for (uint64_t round = 0; round < 150; round++) {
		struct pair parent = pair_new(a, 2 * CHUNK + 500);
		struct owner w[4];

		pair_clear(a, &parent, 5, 6); /* pages, not marks, are shared */
		pair_clear(a, &parent, CHUNK + 5, CHUNK + 6);
		pair_clear(a, &parent, 2 * CHUNK + 5, 2 * CHUNK + 6);
		for (uint64_t i = 0; i < ARRAY_SIZE(w); i++)
			w[i] = (struct owner){.start = &start,
					      .a = a,
					      .pair = i ? pair_fork(a, &parent) : parent,
					      .r = random_from(round, i)};
		for (size_t i = 0; i < ARRAY_SIZE(w); i++)
			assert_int_equal(pthread_create(&w[i].id, NULL, clear_own_copy, &w[i]), 0);
		for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
			assert_int_equal(pthread_join(w[i].id, NULL), 0);
			assert_true(w[i].right);
		}
		assert_int_equal(arena_used(a), 0);
	}
	pthread_barrier_destroy(&start);
	arena_free(a);
}

/* One of two that clear every other bit of the same words at the same time, word by word. */
struct side {
	pthread_t id;
	struct arena *a; /* of the owner; a borrower has none */
	struct owed *o;
	struct side *other;
	uint64_t first, n;
	uint64_t step;	  /* the word that we are in, from 1 */
	uint64_t cleared; /* bits */
};

static void *clear_every_other_bit(void *arg)
{
	struct side *s = arg;

	for (uint64_t at = s->first; at < s->n; at += 2) {
		uint64_t step = at / 64 + 1;

		if (s->step != step) {
			__atomic_store_n(&s->step, step, __ATOMIC_RELEASE);
			for (int i = 0; __atomic_load_n(&s->other->step, __ATOMIC_ACQUIRE) < step;
			     i++)
				if (i > 1000)
					sched_yield();
		}
		s->cleared += s->a ? (uint64_t)owed_clear(s->a, s->o, at, at + 1)
				   : owed_clear_shared(s->o, at, at + 1);
	}
	return NULL;
}

static void owner_and_borrower_clear_every_bit_once(void **state)
{
	uint64_t n = 2 * CHUNK + 100;
	struct arena *a = new_arena(ROOMY);

	(void)state;
	for (int round = 0; round < 10; round++) {
		struct owed *o = new_owed(a, n), *child = owed_fork(a, o), *after;
		struct side owner = {.a = a, .o = o, .first = 0, .n = n};
		struct side borrower = {.o = o, .first = 1, .n = n};
		uint64_t used = arena_used(a);

		owner.other = &borrower;
		borrower.other = &owner;
		assert_int_equal(owed_own(a, o, 0, n), 0);
		assert_int_equal(
			pthread_create(&borrower.id, NULL, clear_every_other_bit, &borrower), 0);
		clear_every_other_bit(&owner);
		assert_int_equal(pthread_join(borrower.id, NULL), 0);
		assert_int_equal(owner.cleared + borrower.cleared, n);
		assert_int_equal(owed_next(o, 0, n), n);
		assert_int_equal(owed_left(o), 0);
		assert_int_equal(owed_left(child), n);
		/* The sums of the chunks are right too: a fork sees that they are empty. */
		after = owed_fork(a, o);
		assert_int_equal(arena_used(a), used + ARENA_PAGE);
		owed_free(a, after);
		owed_free(a, o);
		owed_free(a, child);
		assert_int_equal(arena_used(a), 0);
	}
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_pages_are_all_clear),
		cmocka_unit_test(bits_behind_the_last_page_are_clear),
		cmocka_unit_test(cleared_twice_counts_once),
		cmocka_unit_test(whole_chunks_take_no_memory),
		cmocka_unit_test(fork_of_100_gib_takes_microseconds),
		cmocka_unit_test(without_room_nothing_changes),
		cmocka_unit_test(random_clears_and_forks_agree_with_bytes),
		cmocka_unit_test(relatives_in_several_threads_never_see_each_other),
		cmocka_unit_test(owner_and_borrower_clear_every_bit_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
