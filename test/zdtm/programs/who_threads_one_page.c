// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * 32 threads meet at one page that is owed and touch it at the same instant, half of them reading,
 * half adding to a counter in it; then at the next page. All see the same page, no addition is
 * lost.
 */
#include "lazytest.h"

#define THREADS 32
#define PAGES	200

static pthread_barrier_t barrier;
static char *area;

static void *thread_main(void *arg)
{
	uintptr_t me = (uintptr_t)arg;

	test_wait_go();
	for (size_t i = 0; i < PAGES; i++) {
		/* Far apart, so that no neighbour is brought in with another. */
		char *page = area + i * 64 * PAGE;

		pthread_barrier_wait(&barrier);
		if (me % 2)
			__atomic_fetch_add((uint64_t *)(void *)page, 1, __ATOMIC_RELAXED);
		else
			pages_check("half a page", page + PAGE / 2, 8, ~0UL);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];

	test_init(argc, argv);
	area = pages_map(PAGES * 64 * PAGE);
	for (size_t i = 0; i < PAGES * 64; i++) {
		uint64_t *w = (uint64_t *)(void *)(area + i * PAGE);

		pages_fill(w, PAGE, i);
		w[0] = i;
		w[256] = page_word(~0UL, 0);
	}
	must(!pthread_barrier_init(&barrier, NULL, THREADS));
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, thread_main, (void *)i));

	test_ready();

	for (int i = 0; i < THREADS; i++)
		must(!pthread_join(t[i], NULL));
	for (size_t i = 0; i < PAGES * 64; i++) {
		uint64_t *w = (uint64_t *)(void *)(area + i * PAGE);
		uint64_t expected = i + (i % 64 ? 0 : THREADS / 2);

		if (w[0] != expected)
			test_fail("page %zu: the counter is %lu, not %lu", i, w[0], expected);
		w[0] = page_word(i, 0);
		w[256] = page_word(i, 256);
		pages_check("the rest of the page", w, PAGE, i);
	}
	test_pass();
}
