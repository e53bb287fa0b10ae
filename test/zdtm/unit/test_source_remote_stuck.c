// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * States of the links in which nothing would ever happen again by itself, or too much: a page must
 * come if any way to it is open, and the end is the last that a source hears.
 */
#include "remote_bench.h"

static void wait_for_two_links(struct bench *b, struct player *p)
{
	uint64_t page = PEER_PAGES - 64;

	for (; bench_state(b).links < 2; page -= 64) {
		assert_true(page > PEER_PAGES / 2);
		player_get(p, WHERE(1, page), 1, true);
		usleep(2000 * SLOWNESS);
	}
}

/* The one who has asked does nothing more than wait. */
static void wait_for_page(struct player *p, uint64_t where)
{
	while (!player_fetch(p, where, 1))
		assert_true(player_wait(p, WAIT_MS * SLOWNESS));
}

/* The thread of the links has gone to sleep before, for there was nothing to wait for. */
static void a_second_link_that_falls_silent_is_given_up(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	usleep(100000 * SLOWNESS);
	atomic_store(&b.server->hold, 2);
	assert_int_equal(player_want(&p, WHERE(0, 5), 1, true), 0);
	wait_for_page(&p, WHERE(0, 5));
	assert_in_range(bench_state(&b).lost_times, 1, 3);
	player_end(&p);
	bench_end(&b);
}

/* The first connection is kept and not used; the only other one is lost before it has answered. */
static void beside_a_link_that_is_kept_others_are_made_again(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	atomic_store(&b.server->lie, true);
	atomic_store(&b.server->hold, 2);
	assert_int_equal(player_want(&p, WHERE(0, 64), 1, true), 0);
	wait_until(bench_state(&b).parked);
	wait_until(atomic_load(&b.server->gets) == 2);
	atomic_store(&b.server->lie, false);
	page_server_cut(b.server);
	wait_for_page(&p, WHERE(0, 64));
	wait_until(!bench_state(&b).parked);
	player_end(&p);
	bench_end(&b);
}

/* A stock dump that reads anything behind CLOSE has failed, and lets its tasks run on. */
static void nothing_is_sent_behind_the_end(void **state)
{
	unsigned gets;
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	player_get(&p, WHERE(0, 0), 1, true);
	gets = atomic_load(&b.server->gets);
	atomic_store(&b.server->hold, 1);
	usleep(20000); /* the background holds back after a fault */
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(player_want(&p, WHERE(0, i * 64), 15, false), 0);
	wait_until(atomic_load(&b.server->gets) > gets);
	assert_int_equal(source_finish(b.source, true, p.event_fd), -EAGAIN);
	usleep(50000 * SLOWNESS);
	b.server->most_pages = 3; /* what their tasks, who have ended, do not need any more */
	b.server->pause_us = 50000;
	atomic_store(&b.server->hold, 0);
	wait_until(!source_finish(b.source, true, p.event_fd));
	wait_until(atomic_load(&b.server->ends) == 1);
	assert_int_equal(atomic_load(&b.server->closes), 1);
	assert_int_equal(atomic_load(&b.server->gets), gets + 3);
	player_end(&p);
	bench_end(&b);
}

/* A worker and the connection die at one time; what comes next has all of the work to do. */
static void a_connection_that_is_gone_is_not_kept(void **state)
{
	const struct linger reset = {.l_onoff = 1};
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 2);
	player_begin(&p, &b);
	atomic_store(&b.server->hold, 1);
	assert_int_equal(player_want(&p, WHERE(0, 0), 1, true), 0);
	wait_until(atomic_load(&b.server->gets) == 1);
	player_end(&p);
	source_close(b.source);
	setsockopt(b.server->c[0].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	atomic_store(&b.server->hold, 0);
	page_server_cut(b.server);
	wait_until(b.server->c[0].fd < 0);
	b.source = source_remote_new(&b.start, &b.checkpoint, b.j, &b.log);
	player_begin(&p, &b);
	player_get(&p, WHERE(0, 0), 64, false);
	for (uint64_t i = 1; i < 20; i++)
		player_get(&p, WHERE(0, i * 64), 64, false);
	player_end(&p);
	bench_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_second_link_that_falls_silent_is_given_up),
		cmocka_unit_test(beside_a_link_that_is_kept_others_are_made_again),
		cmocka_unit_test(nothing_is_sent_behind_the_end),
		cmocka_unit_test(a_connection_that_is_gone_is_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
