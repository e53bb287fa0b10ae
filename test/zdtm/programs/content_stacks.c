// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stacks: 48 threads, each deep in calls whose frames hold patterns, return through them after the
 * restore; then the main thread grows its own stack.
 */
#include "lazytest.h"

#define THREADS 48
#define DEPTH	12
#define FRAME	(8 * PAGE)

static pthread_barrier_t barrier;

static __attribute__((noinline)) void descend(uint64_t key, int depth, bool wait)
{
	char frame[FRAME] __attribute__((aligned(8)));

	pages_fill(frame, FRAME, key + (uint64_t)depth * 100);
	if (depth) {
		descend(key, depth - 1, wait);
	} else if (wait) {
		pthread_barrier_wait(&barrier);
		test_wait_go();
	}
	pages_check("frame", frame, FRAME, key + (uint64_t)depth * 100);
}

static void *thread_main(void *arg)
{
	descend((uint64_t)(uintptr_t)arg << 32, DEPTH, true);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];

	test_init(argc, argv);
	must(!pthread_barrier_init(&barrier, NULL, THREADS + 1));
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, thread_main, (void *)(i + 1)));
	pthread_barrier_wait(&barrier);

	test_ready();

	for (int i = 0; i < THREADS; i++)
		must(!pthread_join(t[i], NULL));
	descend(1, 200, false);
	test_pass();
}
