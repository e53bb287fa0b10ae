// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Eight threads read and write random words of one area, each its own words. No word is lost. With
 * the argument "paced" they take their time: two seconds at least.
 */
#include "lazytest.h"

#define THREADS 8
#define PAGES	(64 * MIB / PAGE)
#define TOUCHES 40000

static uint64_t *area;

/* Word 64 * me + 1 of a page belongs to thread me: it counts the visits of that thread. */
static void *thread_main(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t state = me;
	bool paced = !strcmp(test_arg(0), "paced");

	test_wait_go();
	for (int i = 0; i < TOUCHES; i++) {
		if (paced && i % 20 == 0)
			test_sleep_ms(1);
		uint64_t page = random_next(&state) % PAGES;
		uint64_t *w = area + page * 512 + me * 64;

		if (w[0] != page_word(page, (unsigned)me * 64))
			test_fail("page %lu at %p: expected %016lx, got %016lx", page, (void *)w,
				  page_word(page, (unsigned)me * 64), w[0]);
		w[1]++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static uint32_t visits[THREADS][PAGES];
	pthread_t t[THREADS];

	test_init(argc, argv);
	area = (uint64_t *)(void *)pages_map(PAGES * PAGE);
	pages_fill(area, PAGES * PAGE, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, thread_main, (void *)i));

	test_ready();

	for (int i = 0; i < THREADS; i++)
		must(!pthread_join(t[i], NULL));
	for (uintptr_t me = 0; me < THREADS; me++) {
		uint64_t state = me;

		for (int i = 0; i < TOUCHES; i++)
			visits[me][random_next(&state) % PAGES]++;
		for (uint64_t page = 0; page < PAGES; page++)
			area[page * 512 + me * 64 + 1] -= visits[me][page];
	}
	pages_check("area, visits taken back", area, PAGES * PAGE, 0);
	test_pass();
}
