// SPDX-License-Identifier: GPL-2.0-or-later
/* The link is lost, comes back, ends; a worker dies and the next one has the same connection. */
#include "remote_bench.h"

static bool is_lost(struct bench *b)
{
	return bench_state(b).lost;
}

static void wait_for_two_links(struct bench *b, struct player *p)
{
	uint64_t page = PEER_PAGES - 64;

	for (; bench_state(b).links < 2; page -= 64) {
		assert_true(page > PEER_PAGES / 2);
		player_get(p, WHERE(1, page), 1, true);
		usleep(2000 * SLOWNESS);
	}
}

/* The server stops, and later one listens again at the same address. */
static void server_goes(struct bench *b)
{
	page_server_stop(b->server);
	memset(b->server->c, 0, sizeof(b->server->c));
}

static void server_comes(struct bench *b)
{
	atomic_store(&b->server->connections, 0);
	atomic_store(&b->server->gets, 0);
	page_server_start(b->server);
}

/* The one who wants does so once: what was asked is not forgotten with the link. */
static void what_was_on_its_way_comes_on_the_next_link(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		struct bench b;
		struct player p, q;
		bool all = false;

		bench_begin(&b, i % 2 ? WIRE_24 : WIRE_32, 0);
		player_begin(&p, &b);
		player_begin(&q, &b);
		if (i % 3)
			wait_for_two_links(&b, &p);
		else
			player_get(&p, WHERE(1, 0), 1, true);
		atomic_store(&b.server->hold, 3);
		assert_int_equal(player_want(&p, WHERE(0, 10), 20, false), 0);
		assert_int_equal(player_want(&q, WHERE(0, 70), 1, true), 0);
		usleep(5000);
		page_server_cut(b.server);
		for (int waits = 0; !all && waits < 20; waits++) {
			all = player_fetch(&p, WHERE(0, 10), 20);
			if (!all)
				assert_true(player_wait(&p, WAIT_MS * SLOWNESS));
		}
		assert_true(all);
		while (!player_fetch(&q, WHERE(0, 70), 1))
			assert_true(player_wait(&q, WAIT_MS * SLOWNESS));
		assert_false(is_lost(&b));
		assert_in_range(bench_state(&b).lost_times, 1, 2);
		player_end(&p);
		player_end(&q);
		bench_end(&b);
	}
}

/* Nothing comes and nothing ends: a firewall, or a server that stands still. */
static void a_silent_link_is_given_up_where_there_can_be_another(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	atomic_store(&b.server->hold, 3);
	assert_int_equal(player_want(&p, WHERE(0, 64), 10, false), 0);
	player_get(&p, WHERE(0, 0), 1, true);
	player_get(&p, WHERE(0, 64), 10, false);
	assert_in_range(bench_state(&b).lost_times, 1, 2);
	assert_non_null(strstr(bench_state(&b).why, "silent for"));
	player_end(&p);
	bench_end(&b);
}

static void faults_go_on_the_first_link_when_theirs_is_silent(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	atomic_store(&b.server->hold, 2);
	assert_int_equal(player_want(&p, WHERE(0, 0), 1, true), 0);
	while (!player_fetch(&p, WHERE(0, 0), 1)) /* wanted once */
		assert_true(player_wait(&p, WAIT_MS * SLOWNESS));
	assert_int_equal(bench_state(&b).lost_times, 1);
	player_end(&p);
	bench_end(&b);
}

static void a_silent_link_that_may_be_the_only_one_is_kept(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	player_get(&p, WHERE(1, 0), 1, true);
	atomic_store(&b.server->hold, 1);
	assert_int_equal(player_want(&p, WHERE(0, 64), 10, false), 0);
	while (player_wait(&p, 2500))
		assert_false(player_fetch(&p, WHERE(0, 64), 10));
	assert_int_equal(bench_state(&b).lost_times, 0);
	assert_true(page_server_has(b.server, 0));
	atomic_store(&b.server->hold, 0);
	player_get(&p, WHERE(0, 64), 10, false);
	player_end(&p);
	bench_end(&b);
}

static void *cut_now_and_then(void *arg)
{
	struct bench *b = arg;
	struct random r = random_from(4, 4);

	while (atomic_load(&b->server->connections) < 40) {
		usleep((useconds_t)random_below(&r, 20000));
		page_server_cut(b->server);
	}
	return NULL;
}

static void pages_are_right_while_links_come_and_go(void **state)
{
	pthread_t cutter;
	struct bench b;
	struct player p, q;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	player_begin(&q, &b);
	b.server->most_pages = 9;
	wait_for_two_links(&b, &p);
	pthread_create(&cutter, NULL, cut_now_and_then, &b);
	for (uint64_t page = 0; page < 64 * 60; page += 16) {
		player_want(&q, WHERE(0, page), 16, false);
		player_get(&p, WHERE(1, page * 7919 % 12000), 1, true);
		player_get(&q, WHERE(0, page), 16, false);
	}
	pthread_join(cutter, NULL);
	assert_in_range(bench_state(&b).lost_times, 5, 1000);
	player_end(&p);
	player_end(&q);
	bench_end(&b);
}

static void a_server_that_was_away_is_found_again(void **state)
{
	struct source_state s;
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	server_goes(&b);
	wait_until(is_lost(&b));
	s = bench_state(&b);
	assert_true(s.remote && !s.links && s.since_ns);
	assert_string_equal(s.address, b.server->address.text);
	assert_true(s.why[0]);
	assert_int_equal(player_want(&p, WHERE(0, 5), 1, true), 0);
	assert_int_equal(player_want(&p, WHERE(0, 100), 64, false), -EAGAIN);
	while (player_wait(&p, 1000)) /* it may be told too often, but not without end */
		assert_false(player_fetch(&p, WHERE(0, 5), 1));
	server_comes(&b);
	player_get(&p, WHERE(0, 5), 1, true);
	player_get(&p, WHERE(0, 100), 64, false);
	assert_false(is_lost(&b));
	player_end(&p);
	bench_end(&b);
}

/* Background that could not be sent waits; what a task needs of it goes first, with all of it. */
static void a_page_in_the_queue_is_promoted(void **state)
{
	unsigned first = 0;
	struct bench b;
	struct player p, q;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	player_begin(&q, &b);
	player_get(&p, WHERE(1, 0), 1, true);
	wait_for_two_links(&b, &p);
	atomic_store(&b.server->hold, 3);
	usleep(20000); /* the background holds back after a fault */
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(player_want(&p, WHERE(0, i * 64), 10, false), 0);
	server_goes(&b);
	wait_until(is_lost(&b));
	assert_int_equal(player_want(&q, WHERE(0, 2 * 64 + 3), 1, true), 0);
	atomic_store(&b.server->hold, 0);
	server_comes(&b);
	for (uint64_t i = 0; i < 4; i++)
		player_get(&p, WHERE(0, i * 64), 10, false);
	/* Behind the pages by which the server is known again. */
	while (b.server->seen[first].npages == 1)
		first++;
	assert_in_range(first, 1, IDENTITY_PAGES);
	assert_int_equal(b.server->seen[first].where, WHERE(0, 2 * 64));
	assert_int_equal(b.server->seen[first].npages, 10);
	assert_true(player_wait(&q, 0)); /* it was told */
	player_end(&p);
	player_end(&q);
	bench_end(&b);
}

static void finish(struct bench *b)
{
	struct pollfd p = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN};

	assert_int_equal(source_finish(b->source, true, p.fd), -EAGAIN);
	assert_int_equal(poll(&p, 1, 2 * WAIT_MS), 1);
	assert_int_equal(source_finish(b->source, true, p.fd), 0);
	bench_keep(b, p.fd);
}

static void the_end_is_told_and_then_the_link_ends_in_order(void **state)
{
	(void)state;
	for (unsigned takes = 0; takes < 2; takes++) {
		struct bench b;
		struct player p;

		bench_begin(&b, WIRE_24, takes);
		player_begin(&p, &b);
		if (takes)
			player_get(&p, WHERE(0, 0), 64, false);
		else
			wait_for_two_links(&b, &p);
		assert_int_equal(atomic_load(&b.server->closes), 0);
		finish(&b);
		assert_int_equal(atomic_load(&b.server->closes), 1);
		wait_until(atomic_load(&b.server->ends) == 1);
		player_end(&p);
		bench_end(&b);
	}
}

static void the_end_is_told_on_a_new_link_if_need_be(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	server_goes(&b);
	wait_until(is_lost(&b));
	server_comes(&b);
	finish(&b);
	assert_int_equal(atomic_load(&b.server->closes), 1);
	player_end(&p);
	bench_end(&b);
}

/* Stock's has gone: there is nobody to tell, and that holds up nothing. */
static void an_end_that_nobody_can_be_told_is_an_end(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	player_get(&p, WHERE(0, 0), 1, true);
	page_server_cut(b.server);
	wait_until(is_lost(&b));
	finish(&b);
	assert_int_equal(atomic_load(&b.server->closes), 0);
	player_end(&p);
	bench_end(&b);
}

/* The server takes one connection: if it were lost, nothing more would come. */
static void the_next_worker_has_the_same_connection(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	for (unsigned i = 0; i < 20; i++) {
		struct random r = random_from(6, i);

		player_begin(&p, &b);
		player_get(&p, WHERE(0, i), 1, true);
		b.server->pause_us = 1000;
		for (uint64_t k = 0; k < 6; k++)
			player_want(&p, WHERE(1, 64 * (6 * i + k)), 30, k % 2);
		usleep((useconds_t)random_below(&r, 4000));
		source_close(b.source);
		player_end(&p);
		assert_true(b.j->link.open && b.j->link.used && !b.j->link.replaceable);
		b.source = source_remote_new(&b.start, &b.checkpoint, b.j, &b.log);
		assert_non_null(b.source);
	}
	player_begin(&p, &b);
	player_get(&p, WHERE(1, 0), 64, true);
	assert_int_equal(bench_state(&b).lost_times, 0);
	finish(&b);
	assert_int_equal(atomic_load(&b.server->connections), 1);
	assert_int_equal(atomic_load(&b.server->closes), 1);
	player_end(&p);
	bench_end(&b);
}

/* What the keeper has kept of the first connection is not taken for a later one. */
static void an_unused_later_connection_is_made_anew(void **state)
{
	struct bench b;
	struct player p;
	int fds[2];
	char c;

	(void)state;
	bench_begin(&b, WIRE_32, 0);
	player_begin(&p, &b);
	wait_for_two_links(&b, &p);
	server_goes(&b);
	wait_until(is_lost(&b));
	server_comes(&b);
	wait_until(!is_lost(&b));
	source_close(b.source);
	player_end(&p);
	assert_true(b.j->link.open && b.j->link.remade);
	unix_pair(fds);
	b.start.stream = stream_new(fds[0], NULL, false, NULL);
	b.source = source_remote_new(&b.start, &b.checkpoint, b.j, &b.log);
	player_begin(&p, &b);
	player_get(&p, WHERE(0, 0), 64, true);
	assert_int_equal(recv(fds[1], &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	close(fds[1]);
	player_end(&p);
	bench_end(&b);
}

/* A source may be frozen at the other end: a plain end would tell it that all is well. */
static void a_link_that_lies_is_kept_and_not_used(void **state)
{
	struct bench b;
	struct player p;

	(void)state;
	bench_begin(&b, WIRE_32, 1);
	player_begin(&p, &b);
	player_get(&p, WHERE(0, 0), 1, true);
	atomic_store(&b.server->lie, true);
	player_want(&p, WHERE(0, 64), 1, true);
	wait_until(bench_state(&b).parked);
	assert_false(player_fetch(&p, WHERE(0, 64), 1));
	assert_true(is_lost(&b));
	assert_non_null(strstr(bench_state(&b).why, "the answer is"));
	usleep(300000);
	assert_true(b.j->link.open);
	assert_true(page_server_has(b.server, 0));
	source_close(b.source);
	/* the next worker knows no better */
	b.source = source_remote_new(&b.start, &b.checkpoint, b.j, &b.log);
	wait_until(bench_state(&b).parked);
	assert_true(page_server_has(b.server, 0));
	player_end(&p);
	bench_end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_on_its_way_comes_on_the_next_link),
		cmocka_unit_test(a_silent_link_is_given_up_where_there_can_be_another),
		cmocka_unit_test(faults_go_on_the_first_link_when_theirs_is_silent),
		cmocka_unit_test(a_silent_link_that_may_be_the_only_one_is_kept),
		cmocka_unit_test(pages_are_right_while_links_come_and_go),
		cmocka_unit_test(a_server_that_was_away_is_found_again),
		cmocka_unit_test(a_page_in_the_queue_is_promoted),
		cmocka_unit_test(the_end_is_told_and_then_the_link_ends_in_order),
		cmocka_unit_test(the_end_is_told_on_a_new_link_if_need_be),
		cmocka_unit_test(an_end_that_nobody_can_be_told_is_an_end),
		cmocka_unit_test(the_next_worker_has_the_same_connection),
		cmocka_unit_test(an_unused_later_connection_is_made_anew),
		cmocka_unit_test(a_link_that_lies_is_kept_and_not_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
