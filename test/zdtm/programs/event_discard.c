// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Contents that the task throws away while they are owed: MADV_DONTNEED and MADV_FREE, once and
 * again and again, and guards (Linux 6.13), of which no event tells. What is thrown away never
 * comes back.
 */
#include "event.h"

#define PAGES 4096

static void setup_one(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_write(arena[0], 0, PAGES);
}

/* ---- MADV_DONTNEED, MADV_FREE ---- */

static void discard(int advice)
{
	struct arena *a = arena[0];

	ev_advise(a, 0, 1, advice);
	ev_advise(a, PAGES - 1, 1, advice);
	ev_check(a, 500, 50);
	ev_advise(a, 450, 150, advice);
	ev_check(a, 400, 250);
	for (uint32_t i = 10; i < 60; i++) {
		ev_advise(a, i * 64, i, advice);
		ev_check(a, i * 64 + i / 2, i);
		ev_write(a, i * 64 + i / 4, i / 4);
	}
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

static void run_dontneed(void)
{
	discard(MADV_DONTNEED);
}

static void run_free(void)
{
	discard(MADV_FREE);
}

static void run_everything(void)
{
	ev_advise(arena[0], 0, PAGES, MADV_DONTNEED);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* The same pages, every time with something else in between. */
static void run_again_and_again(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 100; i++) {
		ev_advise(a, 1000, 64, i & 1 ? MADV_FREE : MADV_DONTNEED);
		if (i % 3 == 0)
			ev_check(a, 990, 84);
		ev_write(a, 1000 + i % 32, 32);
		if (i % 5 == 0)
			ev_check(a, 1000, 64);
		if (i % 20 == 0)
			child_wait(ev_fork(NULL, ev_child_checks, NULL));
		ev_advise(a, 1000 + i % 40, 8, MADV_DONTNEED);
		ev_advise(a, 2000 + i, 10, MADV_DONTNEED);
	}
}

/* A child's discards are not the parent's, and the other way round. */
static void child_discards(void *unused)
{
	struct arena *a = arena[0];

	(void)unused;
	ev_advise(a, 0, 1000, MADV_DONTNEED);
	ev_write(a, 100, 100);
	ev_check_all();
}

static void run_in_child(void)
{
	struct arena *a = arena[0];
	pid_t pid = ev_fork(NULL, child_discards, NULL);

	ev_advise(a, 2000, 1000, MADV_FREE);
	ev_write(a, 2100, 100);
	child_wait(pid);
	ev_check_all();
}

/* Threads touch pages that are being discarded: contents first, zeros from then on. */
static volatile uint32_t discarded;
static volatile int stop;

static void *reads_discarded(void *number)
{
	struct arena *a = arena[0];
	uint64_t random = (uint64_t)(uintptr_t)number;

	while (!stop) {
		uint32_t before = discarded;
		uint32_t s = (uint32_t)(random_next(&random) % (before + 32));
		uint64_t word = *(const volatile uint64_t *)ev_at(a, s % PAGES);

		if (s >= PAGES)
			continue;
		if (word && (s < before || word != ev_word(a, s + 1, 0, 0)))
			ev_fail(a, "%p (slot %u): expected %s, got word %#llx", ev_at(a, s), s,
				s < before ? "zero" : "contents or zero", (unsigned long long)word);
	}
	return NULL;
}

static void run_while_read(void)
{
	struct arena *a = arena[0];
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		must(!pthread_create(&t[i], NULL, reads_discarded, (void *)(uintptr_t)i));
	for (uint32_t s = 0; s < PAGES; s += 8) {
		ev_advise(a, s, 8, MADV_DONTNEED);
		discarded = s + 8;
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/* ---- guards ---- */

static void guard(struct arena *a, uint32_t s, uint32_t n)
{
	ev_guard_soft = !test_held();
	if (ev_advise(a, s, n, MADV_GUARD_INSTALL))
		test_skip("MADV_GUARD_INSTALL: this kernel has none (Linux 6.13)");
}

/* Over pages that have come: their contents are gone for good. */
static void run_guard_placed(void)
{
	struct arena *a = arena[0];

	ev_check(a, 1000, 200);
	guard(a, 1050, 100);
	ev_check(a, 1000, 200);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_advise(a, 1060, 40, MADV_GUARD_REMOVE);
	ev_check(a, 1000, 200);
	ev_write(a, 1070, 10);
	ev_write(a, 2000, 100);
	guard(a, 2020, 20);
	ev_advise(a, 2020, 20, MADV_GUARD_REMOVE);
}

/* Over pages that are owed: they are guarded, and nobody stumbles over them. */
static void run_guard_owed(void)
{
	struct arena *a = arena[0];

	guard(a, 1000, 500);
	ev_check(a, 990, 520);
	ev_move(a, 1400, 200, 3000);
	ev_check(a, 3000, 200);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_advise(a, 1100, 20, MADV_DONTNEED);
	ev_check(a, 1090, 40);
	/* The manager comes by while the guard is there. */
	ev_check_all();
	test_wait_finished();
	ev_check_all();
}

/*
 * Owed, guarded and opened again before the manager has looked: zeros when it has looked, what was
 * owed when it has not. Never anything else, and the same on every later look.
 */
static void run_guard_removed(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 50; i++) {
		guard(a, i * 80, 60);
		ev_check(a, i * 80 + 50, 20);
		ev_advise(a, i * 80 + 10, 30, MADV_GUARD_REMOVE);
		ev_check(a, i * 80 + 5, 20);
		ev_write(a, i * 80 + 30, 5);
	}
	ev_check_all();
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* ---- areas that want huge pages ---- */

static void setup_huge(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_advise(arena[0], 0, PAGES, MADV_HUGEPAGE);
	ev_write(arena[0], 0, PAGES);
}

static void run_huge(void)
{
	struct arena *a = arena[0];

	ev_check(a, 0, 600);
	ev_advise(a, 1024, 512, MADV_DONTNEED);
	ev_write(a, 1100, 10);
	ev_advise(a, 2048 + 100, 10, MADV_DONTNEED);
	ev_move(a, 3072, 512, 2560);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_check(a, 1024, 1024);
	/* And as huge pages, if they have become so, they behave. */
	test_wait_finished();
	ev_check_all();
	ev_write(a, 10, 10);
	ev_advise(a, 100, 100, MADV_DONTNEED);
	ev_move(a, 512 + 7, 300, 3072);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

static const struct act acts[] = {
	{"dontneed", setup_one, run_dontneed},
	{"free", setup_one, run_free},
	{"everything", setup_one, run_everything},
	{"again_and_again", setup_one, run_again_and_again},
	{"in_child", setup_one, run_in_child},
	{"while_read", setup_one, run_while_read},
	{"guard_placed", setup_one, run_guard_placed},
	{"guard_owed", setup_one, run_guard_owed},
	{"guard_removed", setup_one, run_guard_removed},
	{"huge", setup_huge, run_huge},
};

EV_MAIN(acts)
