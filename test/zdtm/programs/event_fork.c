// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Forks while memory is owed: every child finds what its parent had at that moment, however deep
 * the line and however many threads fork or fault meanwhile; MADV_WIPEONFORK and MADV_DONTFORK
 * hold.
 */
#include "event.h"

#define PAGES	4096
#define THREADS 4

static void areas_of(int arenas, uint32_t pages)
{
	for (int k = 0; k < arenas; k++) {
		ev_arena(k, pages);
		ev_map(arena[k], 0, pages, RW);
		ev_write(arena[k], 0, pages);
	}
}

static void setup_one(void)
{
	areas_of(1, PAGES);
}

static void setup_four(void)
{
	areas_of(THREADS, 1024);
}

/* ---- fork: parent and child go on with different contents ---- */

static void child_goes_its_own_way(void *unused)
{
	struct arena *a = arena[0];

	(void)unused;
	ev_write(a, 100, 300);
	ev_check(a, 0, 512);
	ev_unmap(a, 1000, 50);
	ev_move(a, 2000, 200, 1000 - 200);
	ev_check_all();
}

static void run_fork(void)
{
	struct arena *a = arena[0];
	pid_t pid = ev_fork(NULL, child_goes_its_own_way, NULL);

	ev_write(a, 50, 100);
	ev_advise(a, 350, 100, MADV_DONTNEED);
	ev_move(a, 1900, 200, 3000);
	ev_check(a, 0, 2048);
	child_wait(pid);
}

/* ---- a line of forks, each with something of its own ---- */

static void generation(void *depth)
{
	struct arena *a = arena[0];
	uint32_t d = *(uint32_t *)depth;
	uint32_t next = d + 1;
	pid_t pid = 0;

	ev_check(a, d * 700, 100);
	ev_write(a, d * 700 + 50, 100);
	ev_advise(a, d * 700 + 200, 50, MADV_DONTNEED);
	ev_move(a, d * 700 + 300, 50, d * 700 + 400);
	if (d < 5)
		pid = ev_fork(NULL, generation, &next);
	/* After the fork: nothing of this may reach the child. */
	ev_write(a, 30, 20);
	ev_advise(a, 600, 50, MADV_DONTNEED);
	if (pid)
		child_wait(pid);
	ev_check_all();
}

static void run_deep(void)
{
	uint32_t first = 0;

	generation(&first);
}

/* ---- threads that fork as fast as they can, each with an arena of its own ---- */

static void storm_child(void *unused)
{
	(void)unused;
	ev_check_all();
}

static void *storm_thread(void *number)
{
	uint32_t k = (uint32_t)(uintptr_t)number;
	struct arena *a = arena[k];
	uint64_t random = k;

	for (int round = 0; round < 20; round++) {
		uint32_t s = (uint32_t)(random_next(&random) % (a->n - 64));
		pid_t one, two;

		ev_write(a, s, 8);
		one = ev_fork(a, storm_child, NULL);
		s = (uint32_t)(random_next(&random) % (a->n - 64));
		ev_advise(a, s, 16, MADV_DONTNEED);
		two = ev_fork(a, storm_child, NULL);
		ev_check(a, s, 64);
		child_wait(one);
		child_wait(two);
	}
	return NULL;
}

static void run_threads(void *(*fn)(void *), int n, pthread_t *t)
{
	for (int i = 0; i < n; i++)
		must(!pthread_create(&t[i], NULL, fn, (void *)(uintptr_t)i));
}

static void run_storm(void)
{
	pthread_t t[THREADS];

	run_threads(storm_thread, THREADS, t);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

/* ---- vfork and exec: the child borrows the address space, then has none ---- */

static __attribute__((noinline)) pid_t vfork_true(const struct arena *a, uint32_t s)
{
	const volatile uint64_t *p = (const uint64_t *)ev_at(a, s);
	uint64_t expected = ev_word(a, a->slot[s].tag, ev_key(a, a->slot[s].tag), 1);
	pid_t pid = vfork();

	if (pid)
		return pid;
	/* A fault in the parent's memory, then the address space is let go. */
	if (p[1] != expected)
		_exit(9);
	execl("/bin/true", "true", (char *)NULL);
	_exit(8);
}

static void run_vfork(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 30; i++) {
		pid_t pid = vfork_true(a, i * 100);

		must(pid > 0);
		child_wait(pid);
		ev_check(a, i * 100 + 1, 10);
	}
}

/* ---- forks while faults of other threads wait ---- */

static volatile int stop;

static void *reads_a_stripe(void *number)
{
	struct arena *a = arena[0];

	for (uint32_t s = (uint32_t)(uintptr_t)number; s < a->n && !stop; s += 3)
		ev_check(a, s, 1);
	return NULL;
}

static void run_pending(void)
{
	pthread_t t[3];
	pid_t pid[12];

	run_threads(reads_a_stripe, 3, t);
	for (int i = 0; i < 12; i++)
		pid[i] = ev_fork(NULL, ev_child_checks, NULL);
	for (int i = 0; i < 12; i++)
		child_wait(pid[i]);
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/* ---- memory that a child does not get ---- */

static void setup_dontfork(void)
{
	setup_one();
	ev_advise(arena[0], 512, 512, MADV_DONTFORK);
	ev_advise(arena[0], 3000, 100, MADV_DONTFORK);
}

/* The place is free in the child, and what comes there is new. */
static void dontfork_child(void *unused)
{
	struct arena *a = arena[0];

	(void)unused;
	ev_map(a, 600, 100, RW);
	must(!ev_remap(a, 400, 112, 400, 162, 0));
	ev_remap(a, 1030, 20, 2100, 60, MOVE);
	ev_move(a, 1100, 20, 2200);
	ev_check_all();
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* Nothing is touched until the background has come by, which finds holes. */
static void dontfork_child_waits(void *unused)
{
	(void)unused;
	test_wait_finished();
	ev_check_all();
}

static void run_dontfork(void)
{
	struct arena *a = arena[0];
	pid_t pid;

	ev_advise(a, 2048, 256, MADV_DONTFORK);
	ev_advise(a, 3000, 100, MADV_DOFORK);
	pid = ev_fork(NULL, dontfork_child, NULL);
	ev_check(a, 500, 100);
	child_wait(pid);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

static void run_dontfork_waits(void)
{
	child_wait(ev_fork(NULL, dontfork_child_waits, NULL));
}

/* A child that touches nothing gets everything as well. */
static void child_waits(void *unused)
{
	(void)unused;
	test_wait_finished();
	if (pages_missing(ev_at(arena[0], 0), arena[0]->n * PAGE))
		ev_fail(arena[0], "finished, but %zu pages are missing",
			pages_missing(ev_at(arena[0], 0), arena[0]->n * PAGE));
	ev_check_all();
}

static void run_children_wait(void)
{
	pid_t pid[4];

	for (int i = 0; i < 4; i++)
		pid[i] = ev_fork(NULL, child_waits, NULL);
	for (int i = 0; i < 4; i++)
		child_wait(pid[i]);
}

/* ---- memory that a child must find empty ---- */

static void wipe_grandchild(void *unused)
{
	(void)unused;
	ev_check_all();
	ev_write(arena[0], 0, 64);
	ev_check_all();
}

static void wipe_child(void *unused)
{
	struct arena *a = arena[0];

	(void)unused;
	ev_check(a, 0, 1024);
	ev_write(a, 1100, 20);
	child_wait(ev_fork(NULL, wipe_grandchild, NULL));
	/* Kept from here on: the grandchild gets what is here, which is not what the image has. */
	ev_advise(a, 1024, 512, MADV_KEEPONFORK);
	child_wait(ev_fork(NULL, wipe_grandchild, NULL));
	ev_check_all();
}

static void setup_wipe(void)
{
	setup_one();
	ev_advise(arena[0], 256, 2048, MADV_WIPEONFORK);
}

static void run_wipe_before(void)
{
	pid_t pid = ev_fork(NULL, wipe_child, NULL);

	ev_check(arena[0], 200, 400);
	child_wait(pid);
	ev_check_all();
}

static void run_wipe_after(void)
{
	struct arena *a = arena[0];
	pid_t pid;

	/* One fork before the advice: its child has all bytes. */
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_advise(a, 512, 1024, MADV_WIPEONFORK);
	pid = ev_fork(NULL, wipe_child, NULL);
	ev_check(a, 500, 100);
	child_wait(pid);
	ev_check_all();
}

/* The image says "wipe", the task no longer does: the child gets the bytes. */
static void run_wipe_revoked(void)
{
	struct arena *a = arena[0];

	ev_advise(a, 256, 1024, MADV_KEEPONFORK);
	child_wait(ev_fork(NULL, wipe_child, NULL));
}

/* The advice moves with the mapping, and what comes where it was has none. */
static void run_wipe_moved(void)
{
	struct arena *a = arena[0];

	ev_move(a, 1500, 300, 3000);
	ev_map(a, 1500, 300, RW);
	ev_move(a, 3500, 100, 1600);
	child_wait(ev_fork(NULL, wipe_child, NULL));
}

/*
 * What is wiped is so as it was at the moment of the fork, whatever the parent does right after it.
 */
static void run_wipe_then_changed(void)
{
	struct arena *a = arena[0];
	pid_t pid[30];

	for (uint32_t i = 0; i < 30; i++) {
		uint32_t s = 300 + i * 60;

		pid[i] = ev_fork(NULL, ev_child_checks, NULL);
		if (i % 3 == 0)
			ev_map(a, s, 40, RW);
		else if (i % 3 == 1)
			ev_unmap(a, s, 40);
		else
			ev_move(a, s, 40, 2500 + i * 50);
	}
	for (uint32_t i = 0; i < 30; i++)
		child_wait(pid[i]);
}

/*
 * Advice of the image that was changed since, and a line of forks at once: no child has done
 * anything by which it could be known, and each inherits what its parent had, not what the image
 * says.
 */
static void setup_inherited(void)
{
	setup_wipe();
	ev_advise(arena[0], 3000, 500, MADV_DONTFORK);
}

static void forks_at_once(void *depth)
{
	uint32_t next = *(uint32_t *)depth + 1;

	if (next < 5)
		child_wait(ev_fork(NULL, forks_at_once, &next));
	ev_check_all();
}

static void run_inherited(void)
{
	uint32_t first = 0;
	pid_t pid[6];

	ev_advise(arena[0], 512, 512, MADV_KEEPONFORK);
	ev_advise(arena[0], 2500, 100, MADV_WIPEONFORK);
	ev_advise(arena[0], 3100, 200, MADV_DOFORK);
	for (int i = 0; i < 6; i++)
		pid[i] = ev_fork(NULL, forks_at_once, &first);
	for (int i = 0; i < 6; i++)
		child_wait(pid[i]);
}

/* The advice comes in the child, which owes all of it. */
static void advises_in_child(void *unused)
{
	struct arena *a = arena[0];

	(void)unused;
	ev_advise(a, 1000, 500, MADV_WIPEONFORK);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_advise(a, 1200, 500, MADV_KEEPONFORK);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_check_all();
}

static void run_wipe_in_child(void)
{
	child_wait(ev_fork(NULL, advises_in_child, NULL));
}

static const struct act acts[] = {
	{"fork", setup_one, run_fork},
	{"deep", setup_one, run_deep},
	{"storm", setup_four, run_storm},
	{"vfork", setup_one, run_vfork},
	{"pending", setup_one, run_pending},
	{"children_wait", setup_one, run_children_wait},
	{"dontfork", setup_dontfork, run_dontfork},
	{"dontfork_waits", setup_dontfork, run_dontfork_waits},
	{"wipe_before", setup_wipe, run_wipe_before},
	{"wipe_after", setup_one, run_wipe_after},
	{"wipe_revoked", setup_wipe, run_wipe_revoked},
	{"wipe_moved", setup_wipe, run_wipe_moved},
	{"wipe_then_changed", setup_wipe, run_wipe_then_changed},
	{"inherited", setup_inherited, run_inherited},
	{"wipe_in_child", setup_one, run_wipe_in_child},
};

EV_MAIN(acts)
