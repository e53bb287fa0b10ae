// SPDX-License-Identifier: GPL-2.0-or-later
/* One connection to a page server: answers in order, short ones, lies, and every kind of end. */
#include "link_bench.h"

#include <sys/epoll.h>

#define P(page) WHERE(0, page)

static const enum wire_layout layouts[] = {WIRE_24, WIRE_32};

static void pages_come_as_asked(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct bench b;

		bench_tcp(&b, layouts[i]);
		bench_ask(&b, P(7), 1);
		bench_ask(&b, WHERE(1, 1000), 64);
		assert_false(link_proven(b.link));
		assert_int_equal(link_outstanding(b.link), 2);
		assert_int_equal(link_oldest(b.link)->where, P(7));
		bench_flush(&b);
		bench_take_get(&b, P(7), 1);
		bench_take_get(&b, WHERE(1, 1000), 64);
		bench_answer(&b, P(7), 1);
		bench_answer(&b, WHERE(1, 1000), 64);
		assert_int_equal(bench_pump_all(&b), 0);
		assert_int_equal(b.nanswered, 2);
		assert_int_equal(b.arrived[bench_index(P(7))], 1);
		for (uint64_t page = 1000; page < 1064; page++)
			assert_int_equal(b.arrived[bench_index(WHERE(1, page))], 1);
		assert_true(link_proven(b.link));
		assert_null(link_oldest(b.link));
		assert_int_equal(link_waits_since(b.link), 0);
		assert_int_equal(link_pace(b.link)->outstanding, 0);
		assert_int_equal(link_pace(b.link)->arrived, 65 * PAGE_SIZE);
		bench_free(&b);
	}
}

/* On a new connection the first thing asked is what has come before. */
static void the_same_source_is_known_again(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	assert_int_equal(link_check(b.link, P(5), now_ns()), 0);
	bench_ask(&b, P(5), 2);
	bench_flush(&b);
	bench_take_get(&b, P(5), 1);
	bench_take_get(&b, P(5), 2);
	bench_answer(&b, P(5), 1);
	bench_answer(&b, P(5), 2);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_true(link_proven(b.link));
	assert_int_equal(b.nanswered, 1);
	assert_int_equal(b.arrived[bench_index(P(5))], 1);
	bench_free(&b);
}

static void nothing_is_taken_from_another_source(void **state)
{
	char bytes[WIRE_HEADER_MAX + 3 * PAGE_SIZE];
	struct bench b;
	size_t len;

	(void)state;
	bench_tcp(&b, WIRE_32);
	assert_int_equal(link_check(b.link, P(5), now_ns()), 0);
	bench_ask(&b, P(5), 2);
	bench_flush(&b);
	len = peer_answer(WIRE_32, P(5), 1, bytes);
	bytes[len - 1] ^= 1;
	assert_int_equal(send(b.server, bytes, len, 0), len);
	bench_answer(&b, P(5), 2);
	assert_int_equal(bench_pump_all(&b), -EPROTO);
	assert_non_null(strstr(b.e.text, "another source: page 0x5000 of task 100"));
	assert_false(link_proven(b.link));
	assert_int_equal(b.rooms, 0);
	assert_int_equal(b.nanswered, 0);
	bench_free(&b);
}

static void a_short_answer_is_an_answer(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	bench_ask(&b, P(0), 64);
	bench_ask(&b, P(64), 2);
	bench_flush(&b);
	bench_answer(&b, P(0), 3);
	bench_answer(&b, P(64), 2);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_int_equal(b.nanswered, 2);
	assert_int_equal(b.answered[0].npages, 64);
	assert_int_equal(b.arrived[bench_index(P(2))], 1);
	assert_int_equal(b.arrived[bench_index(P(3))], 0);
	assert_int_equal(b.arrived[bench_index(P(65))], 1);
	assert_int_equal(link_pace(b.link)->outstanding, 0);
	bench_free(&b);
}

static void pages_are_told_one_by_one_as_they_come(void **state)
{
	_cleanup_free_ char *bytes = malloc(WIRE_HEADER_MAX + 3 * PAGE_SIZE);
	size_t sent = 0, len;
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_24);
	bench_ask(&b, P(0), 3);
	bench_flush(&b);
	len = peer_answer(WIRE_24, P(0), 3, bytes);
	for (uint64_t page = 0; page < 3; page++) {
		size_t to = WIRE_24 + (page + 1) * PAGE_SIZE;

		assert_true(send_all_of(b.server, bytes + sent, to - 1 - sent));
		assert_int_equal(bench_pump_to(&b, to - 1), 0);
		assert_int_equal(b.arrived[bench_index(P(page))], 0);
		assert_true(send_all_of(b.server, bytes + to - 1, 1));
		assert_int_equal(bench_pump_to(&b, to), 0);
		assert_int_equal(b.arrived[bench_index(P(page))], 1);
		assert_int_equal(b.nanswered, page == 2);
		sent = to;
	}
	assert_int_equal(sent, len);
	bench_free(&b);
}

static void what_has_no_room_is_thrown_away(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	bench_ask(&b, P(0), 40);
	bench_ask(&b, P(100), 1);
	bench_flush(&b);
	b.no_room = true;
	bench_answer(&b, P(0), 40);
	assert_int_equal(bench_pump_to(&b, WIRE_32 + 40 * PAGE_SIZE), 0);
	assert_int_equal(b.nanswered, 1);
	assert_int_equal(b.arrived[bench_index(P(0))], 0);
	b.no_room = false;
	bench_answer(&b, P(100), 1);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_int_equal(b.arrived[bench_index(P(100))], 1);
	bench_free(&b);
}

/* A server thread, random requests and short answers, several times around the ring. */
static void many_requests_are_under_way(void **state)
{
	struct random r = random_from(1, 1);

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct page_server *s = calloc(1, sizeof(*s));
		unsigned left = 5000, most = 0;
		struct error e = {0};
		struct bench b;

		s->layout = layouts[i];
		s->most_pages = 3;
		page_server_start(s);
		bench_new(&b, layouts[i], (int[]){net_connect(&s->address, &e), -1}, NULL);
		while (left || link_outstanding(b.link)) {
			uint64_t npages = 1 + random_below(&r, 4);
			uint64_t page = random_below(&r, BENCH_PAGES - npages);

			if (left && link_outstanding(b.link) < LINK_RING) {
				bench_ask(&b, WHERE(random_below(&r, PEER_FILES), page), npages);
				left--;
				most = MAX(most, (unsigned)link_outstanding(b.link));
			}
			b.nanswered = 0;
			if (random_one_in(&r, 1000) || !left ||
			    link_outstanding(b.link) == LINK_RING) {
				if (link_flush(b.link, &b.e) || link_pump(b.link, now_ns(), &b.e))
					fail_msg("%s", b.e.text);
			}
		}
		assert_int_equal(most, LINK_RING);
		assert_int_equal(b.record->asked, 5000);
		assert_int_equal(atomic_load(&s->gets), 5000);
		bench_free(&b);
		page_server_stop(s);
		free(s);
	}
}

static void a_full_ring_takes_no_more_until_an_answer(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	for (uint64_t i = 0; i < LINK_RING; i++)
		bench_ask(&b, P(i), 1);
	assert_int_equal(link_ask(b.link, P(LINK_RING), 1, false, 0), -ENOBUFS);
	assert_int_equal(link_close(b.link, true, 0), -ENOBUFS);
	bench_flush(&b);
	bench_answer(&b, P(0), 1);
	assert_int_equal(bench_pump_to(&b, WIRE_32 + PAGE_SIZE), 0);
	bench_ask(&b, P(LINK_RING), 1);
	assert_int_equal(link_ask(b.link, P(0), 1, false, 0), -ENOBUFS);
	bench_flush(&b);
	for (uint64_t i = 0; i <= LINK_RING; i++)
		bench_take_get(&b, P(i), 1);
	bench_free(&b);
	assert_int_equal(b.nanswered, 1 + LINK_RING); /* those without an answer are lost */
}

/* With room for few requests in the sockets. */
static void narrow_pair(int fds[2])
{
	struct net_address a;
	struct error e = {0};
	int one = 1, listener = tcp_listen(&a);

	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &one, sizeof(one));
	setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &one, sizeof(one));
	fds[0] = net_connect(&a, &e);
	assert_true(fds[0] >= 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &one, sizeof(one));
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	close(listener);
}

static void requests_go_out_in_pieces_when_the_socket_is_full(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		uint64_t taken = 0, blocked = 0;
		struct bench b;
		int fds[2];

		narrow_pair(fds);
		bench_new(&b, layouts[i], fds, NULL);
		for (uint64_t n = 0; n < LINK_RING; n++)
			bench_ask(&b, P(n), 1);
		while (taken < LINK_RING) {
			bench_flush(&b);
			if (link_events(b.link) & EPOLLOUT)
				blocked++;
			bench_take_get(&b, P(taken), 1);
			taken++;
		}
		bench_flush(&b);
		assert_int_equal(link_events(b.link), EPOLLIN);
		assert_in_range(blocked, 10, LINK_RING);
		bench_free(&b);
	}
}

/* What the answer to GET of 4 pages at P(5) says, with one thing changed. */
static void expect_lie(enum wire_layout layout, struct wire_header h)
{
	char bytes[WIRE_HEADER_MAX];
	struct bench b;

	bench_tcp(&b, layout);
	bench_ask(&b, P(5), 4);
	bench_flush(&b);
	assert_true(send_all_of(b.server, bytes, wire_encode(layout, &h, bytes)));
	assert_int_equal(bench_pump_all(&b), -EPROTO);
	assert_non_null(strstr(b.e.text, "asked for 4 pages at 0x5000 of task 100, the answer is"));
	assert_int_equal(b.rooms, 0);
	assert_int_equal(b.nanswered, 0);
	assert_false(link_proven(b.link));
	bench_free(&b);
	assert_int_equal(b.nanswered, 1); /* lost, with the link */
}

static void every_lie_is_seen(void **state)
{
	const struct wire_header right = {.command = WIRE_ADD_F,
					  .flags = PAGEMAP_PRESENT,
					  .npages = 4,
					  .vaddr = 5 * PAGE_SIZE,
					  .id = PEER_PID(0)};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct wire_header lies[16];
		unsigned n = 0;

		for (unsigned k = 0; k < ARRAY_SIZE(lies); k++)
			lies[k] = right;
		lies[n++].command = WIRE_GET;
		lies[n++].command = WIRE_ADD;
		lies[n++].command = WIRE_CLOSE;
		lies[n++].flags = 0;
		lies[n++].flags = PAGEMAP_LAZY;
		lies[n++].flags = PAGEMAP_PRESENT | PAGEMAP_LAZY;
		lies[n++].npages = 0;
		lies[n++].npages = 5;
		lies[n++].npages = UINT32_MAX;
		lies[n++].vaddr += 1;
		lies[n++].vaddr += PAGE_SIZE;
		lies[n++].vaddr |= UINT64_C(1) << 63;
		lies[n++].id = PEER_PID(1);
		lies[n++].id |= UINT64_C(1) << 32;
		if (layouts[i] == WIRE_32)
			lies[n++].npages = UINT64_C(1) << 32 | 4;
		for (unsigned k = 0; k < n; k++)
			expect_lie(layouts[i], lies[k]);
	}
}

static void bytes_that_nobody_asked_for_are_a_lie(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	assert_true(send_all_of(b.server, "x", 1));
	stream_wait(b.stream, EPOLLIN);
	assert_int_equal(link_pump(b.link, now_ns(), &b.e), -EPROTO);
	bench_free(&b);

	bench_tcp(&b, WIRE_32);
	bench_ask(&b, P(1), 1);
	bench_flush(&b);
	bench_answer(&b, P(1), 1);
	bench_answer(&b, P(1), 1);
	assert_int_equal(bench_pump_to(&b, 2 * (WIRE_32 + PAGE_SIZE)), -EPROTO);
	assert_int_equal(b.nanswered, 1);
	bench_free(&b);
}

/* The right answer, but to a request that only our ring knows of. */
static void an_answer_before_its_request_is_a_lie(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	bench_ask(&b, P(1), 1);
	bench_flush(&b);
	bench_ask(&b, P(2), 1);
	bench_answer(&b, P(1), 1);
	bench_answer(&b, P(2), 1);
	assert_int_equal(bench_pump_to(&b, 2 * (WIRE_32 + PAGE_SIZE)), -EPROTO);
	assert_int_equal(b.nanswered, 1);
	bench_free(&b);
}

/* CLOSE goes out behind the requests, and its answer is the last thing. */
static void the_end_is_asked_and_answered(void **state)
{
	const int32_t statuses[] = {0, -1, 1};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(layouts) * ARRAY_SIZE(statuses); i++) {
		int32_t status = statuses[i / 2];
		char got[WIRE_HEADER_MAX];
		struct wire_header h;
		struct bench b;

		bench_tcp(&b, layouts[i % 2]);
		bench_ask(&b, P(3), 1);
		assert_false(link_closing(b.link));
		assert_int_equal(link_close(b.link, true, now_ns()), 0);
		assert_true(link_closing(b.link));
		bench_flush(&b);
		bench_take_get(&b, P(3), 1);
		assert_true(receive_all_of(b.server, got, layouts[i % 2]));
		wire_decode(layouts[i % 2], got, &h);
		assert_int_equal(h.command, WIRE_CLOSE);
		bench_answer(&b, P(3), 1);
		assert_true(send_all_of(b.server, &status, sizeof(status)));
		assert_int_equal(bench_pump_all(&b), 0);
		assert_true(link_closed(b.link));
		assert_int_equal(link_refused(b.link), status);
		assert_int_equal(b.nanswered, 1);
		link_say_bye(b.link);
		assert_int_equal(recv(b.server, got, 1, 0), 0);
		bench_free(&b);
	}
}

/* The connection ends after @n bytes of the answer. */
static void expect_end(const char *bytes, size_t n, bool reset)
{
	struct linger now = {.l_onoff = 1};
	struct bench b;
	int ret;

	bench_tcp(&b, WIRE_24);
	bench_ask(&b, P(9), 2);
	bench_flush(&b);
	bench_take_get(&b, P(9), 2);
	assert_true(send_all_of(b.server, bytes, n));
	if (reset)
		setsockopt(b.server, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(b.server);
	b.server = -1;
	ret = bench_pump_all(&b);
	assert_int_equal(ret, -ECONNRESET);
	assert_int_equal(b.nanswered, 0);
	bench_free(&b);
	assert_int_equal(b.nanswered, 1);
	assert_int_equal(b.answered[0].npages, 2);
}

static void an_end_at_any_byte_is_a_lost_link(void **state)
{
	char bytes[WIRE_24 + 2 * PAGE_SIZE];
	size_t len = peer_answer(WIRE_24, P(9), 2, bytes);

	(void)state;
	for (size_t n = 0; n < len; n = n <= WIRE_24 ? n + 1 : n + 1365) {
		expect_end(bytes, n, false);
		expect_end(bytes, n, true);
	}
}

static void a_parked_link_stays_open(void **state)
{
	struct bench b;
	char c;

	(void)state;
	bench_tcp(&b, WIRE_32);
	bench_ask(&b, P(1), 1);
	bench_flush(&b);
	link_park(b.link);
	b.link = NULL;
	assert_int_equal(b.nanswered, 1);
	assert_true(b.record->open);
	bench_take_get(&b, P(1), 1);
	assert_int_equal(recv(b.server, &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	close(b.record->fd);
	assert_int_equal(recv(b.server, &c, 1, 0), 0);
	bench_free(&b);
}

static void it_says_since_when_it_waits(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	assert_int_equal(link_waits_since(b.link), 0);
	assert_int_equal(link_ask(b.link, P(1), 1, false, 1000), 0);
	assert_int_equal(link_ask(b.link, P(2), 1, false, 2000), 0);
	assert_int_equal(link_waits_since(b.link), 1000);
	bench_flush(&b);
	bench_answer(&b, P(1), 1);
	stream_wait(b.stream, EPOLLIN);
	while (b.nanswered < 1)
		assert_int_equal(link_pump(b.link, 1500, &b.e), 0);
	assert_int_equal(link_waits_since(b.link), 2000);
	assert_true(send_all_of(b.server, "x", 1));
	stream_wait(b.stream, EPOLLIN);
	assert_int_equal(link_pump(b.link, 3000, &b.e), 0);
	assert_int_equal(link_waits_since(b.link), 3000);
	bench_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_come_as_asked),
		cmocka_unit_test(the_same_source_is_known_again),
		cmocka_unit_test(nothing_is_taken_from_another_source),
		cmocka_unit_test(a_short_answer_is_an_answer),
		cmocka_unit_test(pages_are_told_one_by_one_as_they_come),
		cmocka_unit_test(what_has_no_room_is_thrown_away),
		cmocka_unit_test(many_requests_are_under_way),
		cmocka_unit_test(a_full_ring_takes_no_more_until_an_answer),
		cmocka_unit_test(requests_go_out_in_pieces_when_the_socket_is_full),
		cmocka_unit_test(every_lie_is_seen),
		cmocka_unit_test(bytes_that_nobody_asked_for_are_a_lie),
		cmocka_unit_test(an_answer_before_its_request_is_a_lie),
		cmocka_unit_test(the_end_is_asked_and_answered),
		cmocka_unit_test(an_end_at_any_byte_is_a_lost_link),
		cmocka_unit_test(a_parked_link_stays_open),
		cmocka_unit_test(it_says_since_when_it_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
