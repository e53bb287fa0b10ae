// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The store against a plain list in the order of use: what is found, what has to go, what never
 * goes. A failure prints the command that runs it again.
 *
 *	test_store [SEED]	default: another seed each time
 */
#include "unit.h"

#include "compiler.h"
#include "store.h"

#define ROUNDS	   100
#define OPERATIONS 4000
#define BASES	   64
#define CHUNKS_MAX 24

struct entry {
	uint64_t base, asked, here, taken, stamp;
	unsigned inflight, pins;
};

/* The newest is entry 0. */
struct model {
	size_t max, n;
	struct entry e[CHUNKS_MAX];
};

static uint64_t seed;

#define check(what) \
	do { \
		if (!(what)) \
			fail_msg("%s\n  run again: build/test/unit/test_store %lu", #what, seed); \
	} while (0)

static struct entry *model_use(struct model *m, size_t i)
{
	struct entry e = m->e[i];

	memmove(m->e + 1, m->e, i * sizeof(e));
	m->e[0] = e;
	return m->e;
}

static struct entry *model_find(struct model *m, uint64_t where)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->e[i].base == where / CHUNK_PAGES * CHUNK_PAGES)
			return model_use(m, i);
	return NULL;
}

static struct entry *model_make(struct model *m, uint64_t where)
{
	size_t i = m->n;

	if (model_find(m, where))
		return m->e;
	if (m->n < m->max) {
		m->n++;
	} else {
		while (i && (m->e[i - 1].inflight || m->e[i - 1].pins || m->e[i - 1].asked))
			i--;
		if (!i--)
			return NULL;
	}
	m->e[i] = (struct entry){.base = where / CHUNK_PAGES * CHUNK_PAGES};
	return model_use(m, i);
}

static size_t model_fresh(const struct model *m)
{
	size_t fresh = 0;

	for (size_t i = 0; i < m->n; i++)
		fresh += m->e[i].asked || m->e[i].here & ~m->e[i].taken;
	return fresh;
}

static void check_same(const struct chunk *c, const struct entry *e)
{
	uint64_t stamp;

	check(!c == !e);
	if (!c)
		return;
	check(c->base == e->base && c->asked == e->asked && c->here == e->here &&
	      c->taken == e->taken && c->inflight == e->inflight && c->pins == e->pins);
	if (!e->stamp)
		return;
	/* the bytes are its own: nobody else has written there */
	memcpy(&stamp, c->bytes, sizeof(stamp));
	check(stamp == e->stamp);
	memcpy(&stamp, chunk_bytes(c, c->base + CHUNK_PAGES - 1), sizeof(stamp));
	check(stamp == e->stamp);
}

/* What users do to a chunk, in both. */
static void change(struct chunk *c, struct entry *e, struct random *r)
{
	uint64_t mask = random_next(r) & random_next(r);

	switch (random_below(r, 8)) {
	case 0:
		c->asked = e->asked |= mask;
		break;
	case 1:
		c->asked = e->asked = 0;
		c->here = e->here |= mask;
		break;
	case 2:
		c->taken = e->taken = e->here;
		break;
	case 3:
		c->inflight = e->inflight = (unsigned)random_below(r, 2);
		break;
	case 4:
		c->pins = e->pins = (unsigned)random_below(r, 2);
		break;
	case 5:
		e->stamp = random_next(r) | 1;
		memcpy(c->bytes, &e->stamp, sizeof(e->stamp));
		memcpy(c->bytes + (CHUNK_PAGES - 1) * PAGE_SIZE, &e->stamp, sizeof(e->stamp));
		break;
	default: /* it may go */
		c->asked = e->asked = 0;
		c->inflight = e->inflight = 0;
		c->pins = e->pins = 0;
	}
}

static uint64_t pick(struct random *r)
{
	uint64_t file = random_below(r, 2) * random_below(r, 60000) << 48;

	return file + random_below(r, BASES) * CHUNK_PAGES * (1 + 1023 * random_below(r, 2)) +
	       random_below(r, CHUNK_PAGES);
}

static void one_round(struct random *r, unsigned *refused, unsigned *evicted)
{
	struct model m = {.max = 1 + random_below(r, CHUNKS_MAX)};
	struct store *s = store_new(m.max);

	check(s && store_chunks(s) == m.max);
	for (unsigned i = 0; i < OPERATIONS; i++) {
		uint64_t where = pick(r);
		struct chunk *c;
		struct entry *e;

		if (m.n && random_one_in(r, 2))
			where = m.e[random_below(r, m.n)].base + random_below(r, CHUNK_PAGES);
		if (random_one_in(r, 2)) {
			c = store_find(s, where);
			e = model_find(&m, where);
		} else {
			bool full = m.n == m.max && !model_find(&m, where);

			c = store_make(s, where);
			e = model_make(&m, where);
			*refused += !e;
			*evicted += full && e;
		}
		check_same(c, e);
		if (c)
			change(c, e, r);
		check(store_fresh(s) == model_fresh(&m));
		if (random_one_in(r, 500)) {
			store_forget_fresh(s);
			for (size_t j = 0; j < m.n; j++)
				m.e[j].taken = m.e[j].here;
		}
	}
	for (size_t i = 0; i < m.n; i++) { /* all are still there, from the oldest on */
		uint64_t base = m.e[m.n - 1].base;

		check_same(store_find(s, base), model_find(&m, base));
	}
	store_free(s);
}

static void it_keeps_what_a_list_by_use_keeps(void **state)
{
	unsigned refused = 0, evicted = 0;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct random r = random_from(seed, i);

		one_round(&r, &refused, &evicted);
	}
	assert_true(refused > 100 && evicted > 1000); /* it came to that */
}

static void a_full_store_keeps_what_is_asked_in_flight_or_read(void **state)
{
	struct store *s = store_new(3);

	(void)state;
	store_make(s, 0)->asked = 1;
	store_make(s, 64)->inflight = 1;
	store_make(s, 128)->pins = 1;
	assert_null(store_make(s, 192));
	assert_non_null(store_make(s, 128 + 5)); /* it is there */
	store_find(s, 0)->asked = 0;
	assert_non_null(store_make(s, 192));
	assert_null(store_find(s, 0));
	assert_non_null(store_find(s, 64));
	assert_non_null(store_find(s, 128));
	store_free(s);
	store_free(NULL);
}

static void the_one_used_longest_ago_goes_first(void **state)
{
	struct store *s = store_new(3);

	(void)state;
	for (uint64_t i = 0; i < 3; i++)
		store_make(s, i * 64);
	store_find(s, 5); /* a use of the first */
	store_make(s, 3 * 64);
	assert_non_null(store_find(s, 0));
	assert_null(store_find(s, 64));
	store_free(s);
}

/* Fetched and not wanted again: the third last makes room, whatever else there is. */
static void what_was_fetched_lately_goes_first_when_nobody_else_wants_it(void **state)
{
	struct store *s = store_new(8);
	struct chunk *c;
	const char *bytes;

	(void)state;
	for (uint64_t i = 0; i < 5; i++) {
		c = store_make(s, i * CHUNK_PAGES);
		c->here = 0xff;
		c->taken = i < 4 ? 0xff : 0xf;
	}
	store_keep(s, false);
	/* Fetched, the newest first: 3, 2, 1, 0. */
	bytes = store_find(s, 1 * CHUNK_PAGES)->bytes;
	store_find(s, 2 * CHUNK_PAGES);
	store_find(s, 3 * CHUNK_PAGES);
	c = store_make(s, 100 * CHUNK_PAGES);
	assert_ptr_equal(c->bytes, bytes);
	assert_null(store_find(s, 1 * CHUNK_PAGES));
	assert_non_null(store_find(s, 4 * CHUNK_PAGES));
	/* None but the spared ones and the oldest: that one. */
	bytes = store_find(s, 0)->bytes;
	store_find(s, 2 * CHUNK_PAGES);
	store_find(s, 3 * CHUNK_PAGES);
	assert_ptr_equal(store_make(s, 101 * CHUNK_PAGES)->bytes, bytes);
	/* None but the spared ones: room that was never used. */
	assert_non_null(store_make(s, 102 * CHUNK_PAGES));
	assert_non_null(store_find(s, 2 * CHUNK_PAGES));
	assert_non_null(store_find(s, 3 * CHUNK_PAGES));
	store_free(s);
}

static void masks_are_of_the_pages_in_their_chunk(void **state)
{
	(void)state;
	assert_int_equal(chunk_mask(0, 0), 0);
	assert_int_equal(chunk_mask(64, 64), UINT64_MAX);
	assert_int_equal(chunk_mask(64 + 63, 1), UINT64_C(1) << 63);
	assert_int_equal(chunk_mask(UINT64_C(7) << 48 | (128 + 4), 3), 0x70);
	assert_int_equal(chunk_rest(128), 64);
	assert_int_equal(chunk_rest(128 + 63), 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_keeps_what_a_list_by_use_keeps),
		cmocka_unit_test(a_full_store_keeps_what_is_asked_in_flight_or_read),
		cmocka_unit_test(the_one_used_longest_ago_goes_first),
		cmocka_unit_test(what_was_fetched_lately_goes_first_when_nobody_else_wants_it),
		cmocka_unit_test(masks_are_of_the_pages_in_their_chunk),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
	print_message("seed %lu\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
