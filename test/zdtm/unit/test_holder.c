// SPDX-License-Identifier: GPL-2.0-or-later
/* A process that waits for another and starts the next one, whatever it has inherited. */
#include "unit.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "holder.h"

struct shared {
	struct holder_state state;
	int lives;
};

/* Dies in its first life. */
static int server(void *arg)
{
	struct shared *s = arg;

	if (!s->lives++)
		raise(SIGKILL);
	return 7;
}

static void run(void)
{
	struct shared *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct log log;

	assert_ptr_not_equal(s, MAP_FAILED);
	log_init(&log, "page-server", LOG_MSG);
	alarm(20);
	assert_int_equal(holder_run(&s->state, &log, server, s), 7);
	alarm(0);
	assert_int_equal(s->lives, 2);
	munmap(s, sizeof(*s));
}

static void after_a_death_the_next_one_is_started(void **state)
{
	(void)state;
	run();
}

/* As some that start daemons have it. */
static void an_ignored_sigchld_changes_nothing(void **state)
{
	(void)state;
	signal(SIGCHLD, SIG_IGN);
	run();
	signal(SIGCHLD, SIG_DFL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_death_the_next_one_is_started),
		cmocka_unit_test(an_ignored_sigchld_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
