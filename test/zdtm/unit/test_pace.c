// SPDX-License-Identifier: GPL-2.0-or-later
/* How much background may be on the way: as much as fills the link, within bounds, never nothing.
 */
#include "unit.h"

#include "compiler.h"
#include "pace.h"

#define MS    UINT64_C(1000000)
#define SEC   UINT64_C(1000000000)
#define KIB   UINT64_C(1024)
#define MIB   (KIB * KIB)
#define LEAST (256 * KIB)
#define MOST  (16 * MIB)

/*
 * A link with @rtt nanoseconds of round trip that carries @rate bytes a second: requests of 64 KiB
 * as the window allows, for @ns. Returns bytes a second.
 */
static double run(struct pace *p, uint64_t rtt, double rate, uint64_t ns)
{
	struct {
		struct pace_stamp stamp;
		double first, last;
	} q[1024];
	uint64_t head = 0, tail = 0, bytes = 64 * KIB, before = p->arrived, now = 10 * SEC;
	double free_at = (double)now, end = (double)(now + ns);

	while ((double)now < end) {
		while (p->outstanding + bytes <= pace_window(p, LEAST, MOST)) {
			double first = MAX((double)(now + rtt), free_at);

			q[head % 1024].stamp = pace_asked(p, bytes, now);
			q[head % 1024].first = first;
			q[head++ % 1024].last = free_at = first + (double)bytes / rate * 1e9;
			assert_true(head - tail < 1024);
		}
		assert_true(head > tail); /* it never stands still */
		pace_first_byte(p, q[tail % 1024].stamp, (uint64_t)q[tail % 1024].first);
		now = MAX(now, (uint64_t)q[tail % 1024].last);
		pace_answered(p, q[tail++ % 1024].stamp, bytes, bytes, now);
	}
	while (tail < head) { /* what is still on the way */
		pace_answered(p, q[tail % 1024].stamp, bytes, bytes, (uint64_t)q[tail % 1024].last);
		tail++;
	}
	return (double)(p->arrived - before) * 1e9 / (double)ns;
}

static void the_window_fills_the_link(void **state)
{
	static const struct {
		uint64_t rtt;
		double rate;
	} links[] = {{MS, 1.25e8}, {10 * MS, 1.25e8}, {50 * MS, 1.25e8}, {50 * MS, 1.25e7}};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(links); i++) {
		struct pace p = {0};
		double full = links[i].rate * (double)links[i].rtt / 1e9, got;
		uint64_t window;

		run(&p, links[i].rtt, links[i].rate, 2 * SEC);
		got = run(&p, links[i].rtt, links[i].rate, 2 * SEC);
		window = pace_window(&p, LEAST, MOST);
		if (got < 0.9 * links[i].rate)
			fail_msg("link %u: %.3g of %.3g bytes a second", i, got, links[i].rate);
		/* so that a fault waits for no more than about two round trips of background */
		if ((double)window < full || (double)window > MAX(3 * full, (double)LEAST))
			fail_msg("link %u: window %lu, the link holds %.0f", i, window, full);
	}
}

static void the_window_has_bounds_and_is_never_nothing(void **state)
{
	struct pace p = {0};

	(void)state;
	assert_int_equal(pace_window(&p, LEAST, MOST), LEAST);
	p = (struct pace){.rtt_ns = 1, .rate = 1};
	assert_int_equal(pace_window(&p, LEAST, MOST), LEAST);
	p = (struct pace){.rtt_ns = UINT64_MAX, .rate = UINT64_MAX};
	assert_int_equal(pace_window(&p, LEAST, MOST), MOST);
	p = (struct pace){.rtt_ns = 50 * MS, .rate = 20 * MIB};
	assert_int_equal(pace_window(&p, LEAST, MOST), 2 * MIB);
}

static void the_shortest_round_trip_counts(void **state)
{
	struct pace p = {0};

	(void)state;
	pace_first_byte(&p, (struct pace_stamp){SEC, 0}, SEC + 30 * MS);
	assert_int_equal(p.rtt_ns, 30 * MS);
	pace_first_byte(&p, (struct pace_stamp){SEC, 0}, SEC + 900 * MS);
	assert_int_equal(p.rtt_ns, 30 * MS);
	pace_first_byte(&p, (struct pace_stamp){SEC, 0}, SEC + 10 * MS);
	assert_int_equal(p.rtt_ns, 10 * MS);
	pace_first_byte(&p, (struct pace_stamp){SEC, 0}, SEC);
	assert_int_equal(p.rtt_ns, 1); /* 0 would be "not known" */
}

static void a_rate_is_believed_for_a_second(void **state)
{
	struct pace p = {0};
	uint64_t now = 10 * SEC;
	struct pace_stamp s = pace_asked(&p, MIB, now);

	(void)state;
	pace_answered(&p, s, MIB, MIB, now += 10 * MS);
	assert_int_equal(p.rate, 100 * MIB);
	for (int i = 0; i < 20; i++) {
		s = pace_asked(&p, MIB, now);
		pace_answered(&p, s, MIB, MIB, now += 100 * MS);
		assert_int_equal(p.rate, i < 9 ? 100 * MIB : 10 * MIB);
	}
	s = pace_asked(&p, MIB, now);
	pace_answered(&p, s, MIB, MIB, now += 5 * MS);
	assert_int_equal(p.rate, 200 * MIB);
}

static void a_short_answer_leaves_nothing_outstanding(void **state)
{
	struct pace p = {0};
	struct pace_stamp a = pace_asked(&p, 100, SEC), b = pace_asked(&p, 50, SEC);

	(void)state;
	assert_int_equal(p.outstanding, 150);
	pace_answered(&p, a, 10, 100, SEC + 1);
	assert_int_equal(p.outstanding, 50);
	assert_int_equal(p.arrived, 10);
	pace_answered(&p, b, 50, 50, SEC + 2);
	assert_int_equal(p.outstanding, 0);
	assert_int_equal(p.arrived, 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_window_fills_the_link),
		cmocka_unit_test(the_window_has_bounds_and_is_never_nothing),
		cmocka_unit_test(the_shortest_round_trip_counts),
		cmocka_unit_test(a_rate_is_believed_for_a_second),
		cmocka_unit_test(a_short_answer_leaves_nothing_outstanding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
