// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process with four threads ends while its memory is arriving, in the way of the first argument:
 *
 *	exit		the main thread leaves with status 7
 *	exec		the main thread calls this program anew; it then passes
 *	thread-exec	another thread does
 *	killed		it does nothing of its own accord; somebody kills it
 *
 * With "busy" as second argument the threads are reading all over the area at that moment; with
 * "waiting" each waits for a page (the manager is stopped) until the file `act` is there.
 */
#include "lazytest.h"

#define THREADS 4
#define BYTES	(128 * MIB)

static char *area;
static char **arguments;

static void end_it(void)
{
	const char *way = test_arg(0);

	if (!strcmp(way, "exit"))
		_exit(7);
	if (!strcmp(way, "exec") || !strcmp(way, "thread-exec")) {
		char *argv[] = {arguments[0], arguments[1], "after", NULL};

		execv("/proc/self/exe", argv);
		test_fail("execv: %s", strerror(errno));
	}
	for (;;)
		pause();
}

/* Every thread comes by here before it reads, so that it needs no other page than the area's. */
static bool act(void)
{
	return !access("act", F_OK);
}

static void *thread_main(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t state = me, n = 0;
	bool busy = !strcmp(test_arg(1), "busy"), mine;

	test_wait_go();
	while (!busy && access("touch", F_OK))
		test_sleep_ms(5);
	mine = me == 0 && !strcmp(test_arg(0), "thread-exec");
	if (mine && !busy) {
		while (!act())
			test_sleep_ms(1);
		end_it();
	}
	for (;;) {
		char *page = area + (me * (BYTES / THREADS) / PAGE +
				     random_next(&state) % (BYTES / THREADS / PAGE)) *
					    PAGE;

		pages_check("page", page, PAGE, page_key(page));
		if (mine && ++n == 200)
			end_it();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t state = 99;
	pthread_t t;

	test_init(argc, argv);
	if (!strcmp(test_arg(0), "after"))
		test_pass();
	arguments = argv;
	area = pages_map(BYTES);
	pages_fill(area, BYTES, page_key(area));
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&t, NULL, thread_main, (void *)i));
	must(!act());

	test_ready();

	pages_must_be_owed("area", area, BYTES);
	if (!strcmp(test_arg(1), "busy")) {
		test_sleep_ms(random_next(&state) % 30);
	} else {
		while (!act())
			test_sleep_ms(1);
	}
	if (!strcmp(test_arg(0), "thread-exec"))
		for (;;)
			pause();
	end_it();
}
