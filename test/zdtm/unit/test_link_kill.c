// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A worker is killed at random instants while it uses a link; the next one goes on with the same
 * connection. Every page is right, and every request is answered once. A failure prints the command
 * that runs it again (the instants are another matter).
 *
 *	test_link_kill [SEED]	default: another seed each time
 */
#include "link_bench.h"

#include <sys/prctl.h>

#define ROUNDS	  200
#define UNDER_WAY 24

static uint64_t seed;

/* What workers share beside the record. */
struct shared {
	struct link_record record;
	atomic_uint told, wrong;
};

static void ask_some(struct bench *b, struct random *r)
{
	while (link_outstanding(b->link) < UNDER_WAY) {
		uint64_t npages = 1 + random_below(r, 6);

		bench_ask(b, WHERE(random_below(r, PEER_FILES), random_below(r, BENCH_PAGES - 6)),
			  npages);
		if (random_one_in(r, 3))
			break;
	}
}

/* One step of a worker. Its user has checked each page (bench_arrived). */
static int step(struct bench *b, struct random *r)
{
	struct pollfd p = {.fd = b->record->fd};
	int ret;

	ask_some(b, r);
	ret = link_flush(b->link, &b->e);
	p.events = (short)link_events(b->link);
	if (!ret && poll(&p, 1, WAIT_MS) == 1)
		ret = link_pump(b->link, now_ns(), &b->e);
	b->nanswered = 0;
	return ret;
}

/* Until it is killed. */
static void work(struct bench *b, struct shared *s, struct random *r)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!link_resume(b->link, now_ns(), &b->e))
		while (!step(b, r))
			;
	fprintf(stderr, "worker: %s\n", b->e.text);
	atomic_fetch_add(&s->wrong, 1);
	_exit(1);
}

static void kill_one(struct bench *b, struct shared *s, uint64_t round)
{
	struct random r = random_from(seed, round);
	int status;
	pid_t pid = fork();

	if (!pid) {
		bench_link(b);
		work(b, s, &r);
	}
	usleep((useconds_t)(SLOWNESS * (300 + random_below(&r, 3000))));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL || atomic_load(&s->wrong))
		fail_msg("round %lu: status %#x\n  run again: build/test/unit/test_link_kill %lu",
			 round, status, seed);
}

/* Goes on until every request of those before has its answer. */
static void go_on(struct bench *b, uint64_t round)
{
	const struct link_record *r = b->record;
	uint64_t left, sent, received;

	bench_link(b);
	b->nanswered = 0;
	left = link_outstanding(b->link);
	if (link_resume(b->link, now_ns(), &b->e) || bench_pump_all(b))
		fail_msg("round %lu: %s\n  run again: build/test/unit/test_link_kill %lu", round,
			 b->e.text, seed);
	/* each once: an answer that was noted is not told again */
	assert_int_equal(b->nanswered, left);
	assert_int_equal(r->answer[r->active].number, r->asked);
	assert_int_equal(link_count(r->fd, &sent, &received), 0);
	assert_int_equal(sent - r->sent0, r->asked * r->layout);
	assert_int_equal(received - r->received0, r->answer[r->active].began);
	bench_drop(b);
}

static void the_next_worker_goes_on_after_kills(enum wire_layout layout)
{
	struct page_server *server = calloc(1, sizeof(*server));
	struct shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct error e = {0};
	uint64_t told;
	struct bench b;

	assert_true(s != MAP_FAILED);
	server->layout = layout;
	server->most_pages = 5;
	server->pause_us = 100;
	server->any_number = true;
	page_server_start(server);
	bench_new(&b, layout, (int[]){net_connect(&server->address, &e), -1}, &s->record);
	bench_drop(&b);
	b.told = &s->told;
	for (uint64_t round = 0; round < ROUNDS; round++) {
		kill_one(&b, s, round);
		/* the next one may be killed, too, before it gets anywhere */
		if (round % 3 == 2)
			go_on(&b, round);
	}
	go_on(&b, ROUNDS);
	bench_link(&b);
	assert_int_equal(link_resume(b.link, now_ns(), &b.e), 0);
	assert_int_equal(link_close(b.link, true, now_ns()), 0);
	assert_int_equal(bench_pump_all(&b), 0);
	assert_true(link_closed(b.link));

	/* A kill may come between the note of an answer and its being told, and nowhere else. */
	told = atomic_load(&s->told);
	assert_in_range(told, s->record.asked - 1 - ROUNDS, s->record.asked - 1);
	assert_in_range(s->record.asked, 5 * ROUNDS, UINT32_MAX); /* they got somewhere */
	assert_int_equal(atomic_load(&server->gets), s->record.asked - 1);
	assert_int_equal(atomic_load(&server->closes), 1);
	print_message("%lu requests, %lu told\n", s->record.asked, told);
	b.record = NULL;
	bench_free(&b);
	page_server_stop(server);
	free(server);
	munmap(s, sizeof(*s));
}

static void the_next_worker_goes_on_after_kills_24(void **state)
{
	(void)state;
	the_next_worker_goes_on_after_kills(WIRE_24);
}

static void the_next_worker_goes_on_after_kills_32(void **state)
{
	(void)state;
	the_next_worker_goes_on_after_kills(WIRE_32);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_worker_goes_on_after_kills_24),
		cmocka_unit_test(the_next_worker_goes_on_after_kills_32),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
	print_message("seed %lu\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
