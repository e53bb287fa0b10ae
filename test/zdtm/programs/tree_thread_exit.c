// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Threads that end while their fault waits: each touches an owed page while the manager is stopped,
 * is signalled out of it and exits. The manager then meets faults of threads that are gone. The
 * page that each wanted, and all others, are right afterwards.
 */
#include "lazytest.h"

#define THREADS 16
#define STRIDE	MIB

static char *area;
static uint32_t *waiting;

static void on_signal(int sig)
{
	(void)sig;
	syscall(SYS_exit, 0);
}

static void *thread_main(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	/* The page of a thread of its own, or one that it shares with a neighbour. */
	volatile uint64_t *w =
		(uint64_t *)(void *)(area + me / 2 * 2 * STRIDE + (me % 4 == 1 ? STRIDE : 0));

	test_wait_go();
	while (access("touch", F_OK))
		test_sleep_ms(5);
	__atomic_fetch_add(waiting, 1, __ATOMIC_SEQ_CST);
	(void)*w;
	/* Served all the same: the manager was too fast to be stopped. */
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];

	test_init(argc, argv);
	must(signal(SIGUSR1, on_signal) != SIG_ERR);
	waiting = shared_map(PAGE);
	area = pages_map(THREADS * STRIDE);
	pages_fill(area, THREADS * STRIDE, page_key(area));
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, thread_main, (void *)i));

	test_ready();

	for (int i = 0; i < THREADS; i++)
		must(!pthread_join(t[i], NULL));
	pages_check("area", area, THREADS * STRIDE, page_key(area));
	test_pass();
}
