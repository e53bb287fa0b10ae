// SPDX-License-Identifier: GPL-2.0-or-later
/* Pages from a server: what is asked comes, once, what somebody waits for first. */
#include "remote_bench.h"

static void pages_come_as_they_are(void **state)
{
	static const enum wire_layout layouts[] = {WIRE_24, WIRE_32};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct bench b;
		struct player p;

		bench_begin(&b, layouts[i], 0);
		player_begin(&p, &b);
		assert_false(player_fetch(&p, WHERE(0, 7), 1));
		player_get(&p, WHERE(0, 7), 1, true);
		player_get(&p, WHERE(1, 60), 100, false); /* over two borders of chunks */
		player_get(&p, WHERE(0, PEER_PAGES - 1), 1, false);
		assert_true(player_fetch(&p, WHERE(1, 100), 60));
		player_end(&p);
		bench_end(&b);
	}
}

/* The server sends no page twice, however often and by whom it is wanted. */
struct wanderer {
	struct player p;
	struct random r;
	pthread_t thread;
	unsigned rounds;
	uint64_t pages; /* of the area */
};

static void *wander(void *arg)
{
	struct wanderer *w = arg;

	while (w->rounds--) {
		uint64_t npages = 1 + random_below(&w->r, random_one_in(&w->r, 4) ? 100 : 8);
		uint64_t where = WHERE(random_below(&w->r, PEER_FILES),
				       random_below(&w->r, w->pages - npages));

		if (random_one_in(&w->r, 3))
			player_want(&w->p, where, npages, false);
		else
			player_get(&w->p, where, random_one_in(&w->r, 2) ? 1 : npages,
				   random_one_in(&w->r, 2));
	}
	return NULL;
}

static void wander_about(struct bench *b, unsigned rounds, uint64_t pages)
{
	struct wanderer w[2];

	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		w[i] = (struct wanderer){.r = random_from(9, i), .rounds = rounds, .pages = pages};
		player_begin(&w[i].p, b);
		pthread_create(&w[i].thread, NULL, wander, &w[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++)
		player_end(&w[i].p);
}

static void two_owners_never_make_a_page_come_twice(void **state)
{
	uint64_t pages = UINT64_C(100) * 64; /* all of it fits */
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	b.server->most_pages = 20;
	wander_about(&b, 1000, pages);
	player_begin(&p, &b);
	for (unsigned file = 0; file < PEER_FILES; file++)
		for (uint64_t page = 0; page < pages; page += 64)
			player_get(&p, WHERE(file, page), 64, false);
	assert_int_equal(atomic_load(&b.server->pages), pages * PEER_FILES);
	assert_int_equal(atomic_load(&b.server->connections), 1);
	assert_int_equal(bench_state(&b).links, 1);
	assert_int_equal(bench_state(&b).lost_times, 0);
	player_end(&p);
	bench_end(&b);
}

static void more_than_there_is_room_for_comes_too(void **state)
{
	struct bench b;

	(void)state;
	bench_begin(&b, WIRE_24, 0);
	b.server->most_pages = 50;
	wander_about(&b, 1500, PEER_PAGES / 2);
	bench_end(&b);
}

/* One answer on the first link, and another one is made; one there, and it is for faults. */
static void make_two_links(struct bench *b, struct player *p)
{
	uint64_t page = PEER_PAGES - 64;

	while (bench_state(b).links < 2) {
		player_get(p, WHERE(1, page), 1, true);
		page -= 64;
		assert_true(page > PEER_PAGES / 2);
		usleep(2000 * SLOWNESS);
	}
	assert_int_equal(atomic_load(&b->server->connections), 2);
}

static void a_server_that_takes_two_links_has_two(void **state)
{
	unsigned gets;
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	make_two_links(&b, &p);
	gets = atomic_load(&b.server->gets);
	player_get(&p, WHERE(0, 0), 64, false);
	player_get(&p, WHERE(0, 64), 1, true);
	assert_int_equal(atomic_load(&b.server->gets), gets + 2); /* and no page twice */
	assert_int_equal(b.server->seen[gets].connection, 0);
	assert_int_equal(b.server->seen[gets + 1].connection, 1);
	player_end(&p);
	bench_end(&b);
}

static void a_page_that_is_on_its_way_is_overtaken_on_the_second_link(void **state)
{
	unsigned gets;
	struct bench b;
	struct player p, q;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	player_begin(&q, &b);
	make_two_links(&b, &p);
	atomic_store(&b.server->hold, 1);
	gets = atomic_load(&b.server->gets);
	assert_int_equal(player_want(&p, WHERE(0, 0), 64, false), 0);
	wait_until(atomic_load(&b.server->gets) == gets + 1);
	for (int i = 0; i < 3; i++)
		player_want(&q, WHERE(0, 5), 1, true); /* asked once more, but not thrice */
	player_get(&q, WHERE(0, 5), 1, true);
	assert_false(player_fetch(&q, WHERE(0, 6), 1));
	assert_int_equal(atomic_load(&b.server->gets), gets + 2);
	assert_int_equal(b.server->seen[gets + 1].connection, 1);
	atomic_store(&b.server->hold, 0);
	player_get(&p, WHERE(0, 0), 64, false);
	assert_int_equal(atomic_load(&b.server->gets), gets + 2);
	player_end(&p);
	player_end(&q);
	bench_end(&b);
}

/* More background than may be under way: it is told when there is room again, and not before. */
static void who_waits_for_room_is_left_alone_until_there_is_some(void **state)
{
	unsigned told = 0, refused = 0;
	uint64_t began, cpu;
	struct timespec t;
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	make_two_links(&b, &p);
	atomic_store(&b.server->hold, 1);
	/* far apart, so that they take much of the store and little of the window */
	for (uint64_t i = 0; i < 200; i++)
		refused += player_want(&p, WHERE(0, i * 64), 1, false) == -EAGAIN;
	assert_in_range(refused, 1, 199);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	cpu = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	for (began = now_ns(); now_ns() - began < 500000000;)
		if (player_wait(&p, 100)) {
			told++;
			player_want(&p, WHERE(0, 199 * 64), 1, false);
		}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	cpu = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec - cpu;
	assert_in_range(told, 0, 3);
	assert_in_range(cpu, 0, UINT64_C(100000000) * SLOWNESS);
	atomic_store(&b.server->hold, 0);
	for (uint64_t i = 0; i < 200; i++)
		player_get(&p, WHERE(0, i * 64), 1, false);
	player_end(&p);
	bench_end(&b);
}

/* What nobody fetches must not keep the others out for ever. */
static void pages_that_nobody_fetches_make_room(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	for (uint64_t i = 0; i < 600; i++)
		while (player_want(&p, WHERE(0, i * 64), 64, false))
			assert_true(player_wait(&p, WAIT_MS * SLOWNESS));
	player_get(&p, WHERE(1, 0), 64, false);
	player_end(&p);
	bench_end(&b);
}

/* Bytes that were handed out stay until the next fetch with the same scratch. */
static void what_is_being_read_stays(void **state)
{
	const void *bytes;
	struct bench b;
	struct player p, q;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	player_begin(&q, &b);
	player_get(&q, WHERE(1, 64), 64, false);
	assert_int_equal(source_fetch(b.source, WHERE(1, 64), 64, q.scratch, &bytes), 0);
	assert_ptr_not_equal(bytes, q.scratch); /* not a copy */
	for (uint64_t i = 0; i < 400; i++)
		player_get(&p, WHERE(0, i * 64), 64, false);
	for (uint64_t i = 0; i < 64; i++)
		assert_true(peer_page_is(WHERE(1, 64 + i), (const char *)bytes + i * PAGE_SIZE));
	assert_false(player_fetch(&q, WHERE(1, 0), 1));
	for (uint64_t i = 400; i < 800; i++)
		player_get(&p, WHERE(0, i * 64), 64, false);
	assert_false(player_fetch(&q, WHERE(1, 64), 1)); /* now it has gone */
	player_end(&p);
	player_end(&q);
	bench_end(&b);
}

static void it_closes_at_once_whatever_is_under_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		struct random r = random_from(3, i);
		uint64_t began;
		struct bench b;
		struct player p;

		bench_begin(&b, WIRE_32, i % 2);
		player_begin(&p, &b);
		atomic_store(&b.server->hold, i % 3 ? 1 : 0);
		for (uint64_t k = 0; k < 5; k++)
			player_want(&p, WHERE(0, k * 7), 20, k % 2);
		usleep((useconds_t)random_below(&r, 3000));
		began = now_ns();
		source_close(b.source);
		b.source = NULL;
		assert_in_range(now_ns() - began, 0, UINT64_C(300000000) * SLOWNESS);
		player_end(&p);
		bench_end(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_come_as_they_are),
		cmocka_unit_test(two_owners_never_make_a_page_come_twice),
		cmocka_unit_test(more_than_there_is_room_for_comes_too),
		cmocka_unit_test(a_server_that_takes_two_links_has_two),
		cmocka_unit_test(a_page_that_is_on_its_way_is_overtaken_on_the_second_link),
		cmocka_unit_test(who_waits_for_room_is_left_alone_until_there_is_some),
		cmocka_unit_test(pages_that_nobody_fetches_make_room),
		cmocka_unit_test(what_is_being_read_stays),
		cmocka_unit_test(it_closes_at_once_whatever_is_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
