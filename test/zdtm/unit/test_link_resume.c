// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A new worker goes on with a link at every byte: of requests sent, of answers taken, and where the
 * other one died between a system call and its note of it.
 */
#include "link_bench.h"

#define ANSWERS 4
#define STATUS	4

/* What is asked, in this order, and how many pages the answer has; then CLOSE. */
static const struct {
	uint64_t where;
	uint16_t npages, comes;
} asked[ANSWERS] = {
	{WHERE(0, 3), 1, 1}, {WHERE(1, 10), 3, 2}, {WHERE(0, 5), 2, 2}, {WHERE(1, 1), 1, 1}};

struct script {
	enum wire_layout layout;
	char requests[(ANSWERS + 1) * WIRE_HEADER_MAX];
	char answers[ANSWERS * (WIRE_HEADER_MAX + 2 * PAGE_SIZE) + STATUS];
	size_t nrequests, nanswers;
	size_t began[ANSWERS + 2]; /* where each answer does, the status, and the end */
};

static void write_script(struct script *s, enum wire_layout layout)
{
	const struct wire_header close = {
		.command = WIRE_CLOSE, .vaddr = WIRE_HELD, .id = WIRE_HELD};

	memset(s, 0, sizeof(*s));
	s->layout = layout;
	for (unsigned i = 0; i < ANSWERS; i++) {
		s->nrequests += peer_get(layout, asked[i].where, asked[i].npages,
					 s->requests + s->nrequests);
		s->began[i] = s->nanswers;
		s->nanswers += peer_answer(layout, asked[i].where, asked[i].comes,
					   s->answers + s->nanswers);
	}
	s->nrequests += wire_encode(layout, &close, s->requests + s->nrequests);
	s->began[ANSWERS] = s->nanswers;
	s->nanswers += STATUS;
	s->began[ANSWERS + 1] = s->nanswers;
}

static void ask_script(struct bench *b)
{
	for (unsigned i = 0; i < ANSWERS; i++)
		bench_ask(b, asked[i].where, asked[i].npages);
	assert_int_equal(link_close(b->link, true, now_ns()), 0);
}

/* The answer (or status) that byte @k of all answers is in. */
static unsigned answer_of(const struct script *s, size_t k)
{
	unsigned i = 0;

	while (k >= s->began[i + 1])
		i++;
	return i;
}

/* The last read of the one who dies: bytes from..to, into the record or into memory that is gone.
 */
static void read_unnoted(struct bench *b, const struct script *s, size_t from, size_t to)
{
	unsigned i = answer_of(s, from);
	size_t at = from - s->began[i], header = i < ANSWERS ? s->layout : STATUS;
	char away[sizeof(s->answers)];

	assert_true(to <= s->began[i + 1] && (at >= header || to <= s->began[i] + header));
	assert_true(receive_all_of(b->record->fd,
				   at < header ? (char *)b->record->header + at : away, to - from));
}

static void check_answered(const struct bench *b)
{
	assert_int_equal(b->nanswered, ANSWERS);
	for (unsigned i = 0; i < ANSWERS; i++)
		assert_int_equal(b->answered[i].where, asked[i].where);
}

/* Pages that are complete before byte @k were told to the one who died. */
static void check_arrived(const struct bench *b, const struct script *s, size_t k)
{
	for (unsigned i = 0; i < ANSWERS; i++) {
		/* of an answer that was begun, the rest of the pages is asked again */
		unsigned first = k >= s->began[i] + s->layout ? asked[i].comes : 0;

		for (unsigned page = 0; page < asked[i].npages; page++)
			assert_int_equal(b->arrived[bench_index(asked[i].where + page)],
					 page >= first && page < asked[i].comes);
	}
}

static void check_counts(const struct bench *b, const struct script *s)
{
	const struct link_record *r = b->record;
	uint64_t sent, received;

	assert_int_equal(link_count(r->fd, &sent, &received), 0);
	assert_int_equal(sent - r->sent0, s->nrequests);
	assert_int_equal(received - r->received0, s->nanswers);
	assert_int_equal(r->answer[r->active].began, s->nanswers);
	assert_int_equal(r->answer[r->active].number, ANSWERS + 1);
}

static void next_worker(struct bench *b)
{
	bench_drop(b);
	bench_link(b);
	if (link_resume(b->link, now_ns(), &b->e))
		fail_msg("%s", b->e.text);
}

/* When the other end sends what is not taken yet. */
enum rest { REST_BEFORE, REST_AFTER };

/*
 * One worker sends @j bytes of the requests and takes @k bytes of the answers, of the last
 * @unnoted of which it makes no note; the next one does the rest.
 */
static void die_at(const struct script *s, size_t j, size_t k, size_t unnoted, enum rest rest)
{
	char got[sizeof(s->requests)];
	struct bench b;

	bench_tcp(&b, s->layout);
	ask_script(&b);
	if (j == s->nrequests) {
		bench_flush(&b);
	} else {
		assert_true(send_all_of(b.record->fd, s->requests, j));
		next_worker(&b);
	}
	assert_true(send_all_of(b.server, s->answers, k - unnoted));
	assert_int_equal(bench_pump_to(&b, k - unnoted), 0);
	assert_true(send_all_of(b.server, s->answers + k - unnoted, unnoted));
	if (unnoted)
		read_unnoted(&b, s, k - unnoted, k);
	if (rest == REST_BEFORE)
		assert_true(send_all_of(b.server, s->answers + k, s->nanswers - k));
	next_worker(&b);
	bench_flush(&b);
	assert_true(receive_all_of(b.server, got, s->nrequests));
	assert_memory_equal(got, s->requests, s->nrequests);
	if (rest == REST_AFTER)
		assert_true(send_all_of(b.server, s->answers + k, s->nanswers - k));
	assert_int_equal(bench_pump_all(&b), 0);
	assert_true(link_closed(b.link));
	check_answered(&b);
	check_arrived(&b, s, k);
	check_counts(&b, s);
	assert_int_equal(recv(b.server, got, 1, MSG_DONTWAIT), -1); /* nothing asked twice */
	bench_free(&b);
}

/* Bytes worth dying at: all in and around headers, some in pages. */
static bool is_interesting(const struct script *s, size_t k)
{
	unsigned i = answer_of(s, MIN(k, s->nanswers - 1));
	size_t at = k - s->began[i], into = at - s->layout;

	return i == ANSWERS || at <= s->layout + 2 || s->began[i + 1] - k <= 2 ||
	       into % PAGE_SIZE <= 1 || into % PAGE_SIZE == PAGE_SIZE - 1 || into % 1777 == 0;
}

static void a_new_worker_goes_on_at_every_byte_taken(void **state)
{
	static const enum wire_layout layouts[] = {WIRE_24, WIRE_32};
	unsigned tried = 0;

	(void)state;
	for (unsigned l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct script s;

		write_script(&s, layouts[l]);
		for (size_t k = 0; k <= s.nanswers; k++) {
			if (!is_interesting(&s, k))
				continue;
			die_at(&s, s.nrequests, k, 0, REST_BEFORE);
			die_at(&s, s.nrequests, k, 0, REST_AFTER);
			tried++;
		}
	}
	assert_in_range(tried, 300, 2000);
}

static void a_new_worker_goes_on_after_a_read_without_a_note(void **state)
{
	unsigned tried = 0;
	struct script s;

	(void)state;
	write_script(&s, WIRE_32);
	for (size_t k = 1; k <= s.nanswers; k++) {
		unsigned i = answer_of(&s, k - 1);
		size_t header = i < ANSWERS ? s.layout : STATUS, at = k - s.began[i];
		size_t from = at <= header ? 0 : header;

		if (!is_interesting(&s, k))
			continue;
		/* one byte; as many as one read can have been; and half of it */
		die_at(&s, s.nrequests, k, 1, REST_AFTER);
		die_at(&s, s.nrequests, k, at - from, REST_BEFORE);
		die_at(&s, s.nrequests, k, (at - from + 1) / 2, REST_AFTER);
		tried++;
	}
	assert_in_range(tried, 150, 1000);
}

/* With as many answers taken as the requests that had gone out can have had. */
static void a_new_worker_goes_on_at_every_byte_sent(void **state)
{
	static const enum wire_layout layouts[] = {WIRE_24, WIRE_32};

	(void)state;
	for (unsigned l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct random r = random_from(5, l);
		struct script s;

		write_script(&s, layouts[l]);
		for (size_t j = 0; j <= s.nrequests; j++) {
			size_t whole = s.began[j / layouts[l]];

			die_at(&s, j, 0, 0, REST_AFTER);
			die_at(&s, j, whole, 0, REST_AFTER);
			die_at(&s, j, random_below(&r, whole + 1), 0, REST_AFTER);
		}
	}
}

static void one_after_the_other_may_die(void **state)
{
	struct script s;
	struct bench b;

	(void)state;
	write_script(&s, WIRE_24);
	bench_tcp(&b, WIRE_24);
	ask_script(&b);
	bench_flush(&b);
	for (size_t k = 0; k < s.nanswers; k++) {
		assert_true(send_all_of(b.server, s.answers + k, 1));
		assert_int_equal(bench_pump_to(&b, k + 1), 0);
		if (k + 1 == s.nanswers || !is_interesting(&s, k))
			continue;
		next_worker(&b);
	}
	assert_true(link_closed(b.link));
	check_answered(&b);
	check_counts(&b, &s);
	bench_free(&b);
}

/* The server has gone meanwhile: what it sent before is taken right, and then it is lost. */
static void a_new_worker_meets_the_end_where_it_is(void **state)
{
	struct script s;

	(void)state;
	write_script(&s, WIRE_32);
	for (size_t k = 0; k < s.began[ANSWERS]; k++) {
		struct bench b;

		if (!is_interesting(&s, k))
			continue;
		bench_tcp(&b, WIRE_32);
		for (unsigned i = 0; i < ANSWERS; i++)
			bench_ask(&b, asked[i].where, asked[i].npages);
		bench_flush(&b);
		assert_true(send_all_of(b.server, s.answers, k));
		assert_int_equal(bench_pump_to(&b, k), 0);
		assert_true(send_all_of(b.server, s.answers + k, s.began[ANSWERS] - k));
		assert_int_equal(shutdown(b.server, SHUT_WR), 0);
		/* the end has come to us */
		stream_wait(b.stream, POLLRDHUP);
		next_worker(&b);
		assert_int_equal(bench_pump_all(&b), -ECONNRESET);
		check_answered(&b);
		check_arrived(&b, &s, k);
		bench_free(&b);
	}
}

static void an_end_that_was_told_is_not_told_again(void **state)
{
	const int32_t good = 0;
	struct bench b;
	char c;

	(void)state;
	bench_tcp(&b, WIRE_24);
	assert_int_equal(link_close(b.link, true, now_ns()), 0);
	bench_flush(&b);
	assert_true(send_all_of(b.server, &good, sizeof(good)));
	assert_int_equal(bench_pump_all(&b), 0);
	link_say_bye(b.link); /* that far, and no further */
	next_worker(&b);
	assert_true(link_closed(b.link) && link_closing(b.link));
	bench_flush(&b);
	for (unsigned i = 0; i < WIRE_24; i++)
		assert_true(receive_all_of(b.server, &c, 1));
	assert_int_equal(recv(b.server, &c, 1, 0), 0);
	bench_free(&b);
}

static void a_status_that_was_read_before_still_counts(void **state)
{
	const int32_t bad = -1;
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_24);
	assert_int_equal(link_close(b.link, true, now_ns()), 0);
	bench_flush(&b);
	assert_true(send_all_of(b.server, &bad, sizeof(bad)));
	assert_true(receive_all_of(b.record->fd, b.record->header, sizeof(bad)));
	bench_drop(&b);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), 0);
	assert_true(link_closed(b.link));
	assert_int_equal(link_refused(b.link), bad);
	/* Once more, when it had been noted. */
	bench_drop(&b);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), 0);
	assert_int_equal(link_refused(b.link), bad);
	bench_free(&b);
}

/* Answers that were on their way before it began tell the new worker nothing of the round trip. */
static void the_pace_is_not_measured_by_what_the_other_asked(void **state)
{
	char bytes[WIRE_24 + PAGE_SIZE];
	struct bench b;
	size_t len;

	(void)state;
	bench_tcp(&b, WIRE_24);
	for (unsigned i = 0; i < 3; i++)
		bench_ask(&b, WHERE(0, i), 1);
	bench_flush(&b);
	len = peer_answer(WIRE_24, WHERE(0, 0), 1, bytes);
	assert_true(send_all_of(b.server, bytes, WIRE_24 + 7));
	assert_int_equal(bench_pump_to(&b, WIRE_24 + 7), 0);
	assert_true(send_all_of(b.server, bytes + WIRE_24 + 7, len - WIRE_24 - 7));
	bench_answer(&b, WHERE(0, 1), 1);
	bench_answer(&b, WHERE(0, 2), 1);
	next_worker(&b);
	assert_int_equal(link_pace(b.link)->outstanding, 3 * PAGE_SIZE);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_int_equal(link_pace(b.link)->outstanding, 0);
	assert_int_equal(link_pace(b.link)->rtt_ns, 0);
	bench_ask(&b, WHERE(0, 9), 1);
	bench_flush(&b);
	usleep(3000);
	bench_answer(&b, WHERE(0, 9), 1);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_in_range(link_pace(b.link)->rtt_ns, 3000000, UINT64_MAX);
	bench_free(&b);
}

static void what_never_was_used_is_taken_as_it_is(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	next_worker(&b);
	bench_ask(&b, WHERE(1, 4), 1);
	bench_flush(&b);
	bench_take_get(&b, WHERE(1, 4), 1);
	bench_answer(&b, WHERE(1, 4), 1);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_int_equal(b.arrived[bench_index(WHERE(1, 4))], 1);
	bench_free(&b);
}

static void more_than_can_have_been_is_no_place(void **state)
{
	struct bench b;

	(void)state;
	bench_tcp(&b, WIRE_32);
	bench_ask(&b, WHERE(0, 1), 1);
	bench_flush(&b);
	assert_true(send_all_of(b.record->fd, "x", 1));
	bench_drop(&b);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), -EPROTO);
	bench_drop(&b);
	b.record->sent0++;
	b.record->received0--; /* as if a byte had come */
	b.record->answer[0].began = 2;
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), -EPROTO);
	bench_free(&b);
}

/* No kernel counts what is in a unix socket, or what TLS has kept. */
static void what_is_not_counted_cannot_be_resumed(void **state)
{
	struct bench b;
	int fds[2];

	(void)state;
	unix_pair(fds);
	bench_new(&b, WIRE_32, fds, NULL);
	assert_false(b.record->exact);
	bench_ask(&b, WHERE(0, 1), 1);
	bench_drop(&b);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), -ENOTSUP);
	bench_free(&b);

	tcp_pair(fds);
	bench_new(&b, WIRE_32, fds, NULL);
	link_record_open(b.record, fds[0], WIRE_32, true);
	assert_false(b.record->exact);
	bench_ask(&b, WHERE(0, 1), 1);
	bench_drop(&b);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), -ENOTSUP);
	bench_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_worker_goes_on_at_every_byte_taken),
		cmocka_unit_test(a_new_worker_goes_on_after_a_read_without_a_note),
		cmocka_unit_test(a_new_worker_goes_on_at_every_byte_sent),
		cmocka_unit_test(one_after_the_other_may_die),
		cmocka_unit_test(a_new_worker_meets_the_end_where_it_is),
		cmocka_unit_test(an_end_that_was_told_is_not_told_again),
		cmocka_unit_test(a_status_that_was_read_before_still_counts),
		cmocka_unit_test(the_pace_is_not_measured_by_what_the_other_asked),
		cmocka_unit_test(what_never_was_used_is_taken_as_it_is),
		cmocka_unit_test(more_than_can_have_been_is_no_place),
		cmocka_unit_test(what_is_not_counted_cannot_be_resumed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
