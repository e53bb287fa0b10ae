// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The connection to a dump, over real TCP: which end the dump finds, whoever dies when, and that
 * answers are taken for what they are.
 */
#include "held_pair.h"

static int setup(void **state)
{
	struct held_pair *p = calloc(1, sizeof(*p));

	held_pair_open(p);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	held_pair_close(*state);
	free(*state);
	return 0;
}

static void pages_come_in_several_short_answers(void **state)
{
	struct held_pair *p = *state;
	unsigned char to[3 * PAGE_SIZE];
	struct error e = {0};

	dump_answers(p, 12, 0x10000, 1, 'a');
	dump_answers(p, 12, 0x11000, 2, 'b');
	assert_int_equal(held_get(&p->held, 12, 0x10000, to, 3, &e), 0);
	assert_true(to[0] == 'a' && to[PAGE_SIZE] == 'b' && to[3 * PAGE_SIZE - 1] == 'b');
	assert_int_equal(dump_reads(p).npages, 3);
	assert_int_equal(dump_reads(p).vaddr, 0x11000);
	assert_false(p->busy);
}

static void another_answer_than_asked_for_is_the_last_one(void **state)
{
	struct held_pair *p = *state;
	char to[PAGE_SIZE];
	struct error e = {0};

	dump_answers(p, 12, 0x20000, 1, 'a');
	assert_int_equal(held_get(&p->held, 12, 0x10000, to, 1, &e), -EPROTO);
	dump_answers(p, 12, 0x10000, 1, 'a');
	assert_int_equal(held_get(&p->held, 12, 0x10000, to, 1, &e), -EIO);
}

static void what_a_dead_server_has_asked_for_is_not_for_the_next(void **state)
{
	struct held_pair *p = *state;
	struct error e = {0};
	char to[PAGE_SIZE];

	dump_answers(p, 12, 0x10000, 1, 'a');
	/* it has read some of it */
	assert_int_equal(recv(p->held.fd, to, 1000, 0), 1000);
	p->busy = true;
	held_init(&p->held, p->held.fd, WIRE_32, &p->busy);
	dump_answers(p, 12, 0x10000, 1, 'b');
	assert_int_equal(held_get(&p->held, 12, 0x10000, to, 1, &e), 0);
	assert_true(to[0] == 'b' && to[PAGE_SIZE - 1] == 'b');
}

/* A process that has the connection, as we have, and does something with it. */
static pid_t another(struct held_pair *p, void (*fn)(struct held_pair *p))
{
	pid_t pid = fork();

	if (!pid) {
		close(p->dump);
		fn(p);
		for (;;)
			pause();
	}
	return pid;
}

static void kill_it(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void nothing(struct held_pair *p)
{
	(void)p;
}

static void finish(struct held_pair *p)
{
	held_finish(&p->held, false, NULL);
}

static void death_of_all_is_a_reset(void **state)
{
	struct held_pair *p = *state;
	pid_t pid = another(p, nothing);
	char byte;

	close(p->held.fd);
	p->held.fd = -1;
	assert_int_equal(recv(p->dump, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	kill_it(pid);
	assert_int_equal(dump_finds_end(p), ECONNRESET);
}

static void a_reset_is_one_whoever_else_has_the_descriptor(void **state)
{
	struct held_pair *p = *state;
	pid_t pid = another(p, nothing);
	struct error e = {0};

	assert_int_equal(held_reset(&p->held, &e), 0);
	assert_int_equal(dump_finds_end(p), ECONNRESET);
	assert_int_equal(held_reset(&p->held, &e), 0);
	assert_false(held_stands(&p->held));
	kill_it(pid);
}

static void the_end_is_close_and_its_answer_and_a_plain_end(void **state)
{
	struct held_pair *p = *state;
	struct error e = {0};
	int32_t status = 0;
	pid_t pid = fork();

	if (!pid) {
		close(p->held.fd);
		if (dump_reads(p).command != WIRE_CLOSE || dump_finds_end(p))
			_exit(1);
		_exit(send(p->dump, &status, sizeof(status), 0) != sizeof(status));
	}
	close(p->dump);
	p->dump = -1;
	assert_int_equal(held_finish(&p->held, false, &e), 0);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void from_close_on_death_of_all_is_a_plain_end(void **state)
{
	struct held_pair *p = *state;
	pid_t pid = another(p, finish);
	int32_t status = 0;

	assert_int_equal(dump_reads(p).command, WIRE_CLOSE);
	assert_int_equal(dump_finds_end(p), 0);
	close(p->held.fd);
	p->held.fd = -1;
	kill_it(pid);
	assert_int_equal(send(p->dump, &status, sizeof(status), MSG_NOSIGNAL), sizeof(status));
	assert_int_equal(dump_finds_end(p), 0);
}

static void who_takes_over_sends_no_second_close(void **state)
{
	struct held_pair *p = *state;
	pid_t pid = another(p, finish);
	int32_t status = 0;
	struct error e = {0};

	assert_int_equal(dump_reads(p).command, WIRE_CLOSE);
	kill_it(pid);
	assert_int_equal(send(p->dump, &status, sizeof(status), 0), sizeof(status));
	shutdown(p->dump, SHUT_WR);
	assert_int_equal(held_finish(&p->held, true, &e), 0);
	assert_int_equal(dump_finds_end(p), 0);
}

static void a_dump_that_has_gone_cannot_be_told(void **state)
{
	struct held_pair *p = *state;
	struct error e = {0};

	close(p->dump);
	p->dump = -1;
	assert_int_equal(held_finish(&p->held, false, &e), -EIO);
}

static void a_dump_that_refuses_close_is_an_error(void **state)
{
	struct held_pair *p = *state;
	struct error e = {0};
	int32_t status = -5;
	pid_t pid = fork();

	if (!pid) {
		dump_reads(p);
		_exit(send(p->dump, &status, sizeof(status), 0) != sizeof(status));
	}
	close(p->dump);
	p->dump = -1;
	assert_int_equal(held_finish(&p->held, false, &e), -EIO);
	assert_non_null(strstr(e.text, "-5"));
	waitpid(pid, NULL, 0);
}

#define held_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		held_test(pages_come_in_several_short_answers),
		held_test(another_answer_than_asked_for_is_the_last_one),
		held_test(what_a_dead_server_has_asked_for_is_not_for_the_next),
		held_test(death_of_all_is_a_reset),
		held_test(a_reset_is_one_whoever_else_has_the_descriptor),
		held_test(the_end_is_close_and_its_answer_and_a_plain_end),
		held_test(from_close_on_death_of_all_is_a_plain_end),
		held_test(who_takes_over_sends_no_second_close),
		held_test(a_dump_that_has_gone_cannot_be_told),
		held_test(a_dump_that_refuses_close_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
