// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mremap while memory is owed: what was owed at the old address is owed at the new one, what was at
 * the target is gone, and faults that wait in either, or come before the move is known, are
 * answered with the right bytes or with the signal that the task would have got.
 */
#include "event.h"

#define PAGES 4096
#define HALF  (PAGES / 2)

/* The lower half has contents, the upper half is free. */
static void setup_half(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, HALF, RW);
	ev_write(arena[0], 0, HALF);
}

/* Two mappings that are not each other's continuation. */
static void setup_two(void)
{
	setup_half();
	ev_map(arena[0], HALF + 1, HALF - 1, RW);
	ev_write(arena[0], HALF + 1, HALF - 1);
}

static void setup_all(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_write(arena[0], 0, PAGES);
}

/* ---- one thing after the other ---- */

static void run_move(void)
{
	struct arena *a = arena[0];

	ev_check(a, 300, 10);
	ev_move(a, 0, HALF, HALF);
	ev_check(a, HALF + 290, 30);
	ev_check(a, 0, 16);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* Pieces out of the middle, each to a place of its own. */
static void run_pieces(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 100; i++) {
		ev_move(a, i * 20 + 5, 10, HALF + (i * 37 % 100) * 20);
		if (i % 3 == 0)
			ev_check(a, HALF + (i * 37 % 100) * 20, 4);
	}
	/* And other memory where the pieces were. */
	for (uint32_t i = 0; i < 100; i += 2)
		ev_map(a, i * 20 + 5, 10, RW);
}

static void run_grow(void)
{
	struct arena *a = arena[0];

	must(!ev_remap(a, 0, HALF, 0, HALF + 500, 0));
	ev_check(a, HALF - 20, 60);
	ev_write(a, HALF + 100, 50);
	must(!ev_remap(a, 0, HALF + 500, 0, HALF + 1000, 0));
	ev_check(a, HALF, 1000);
	/* Grown and moved at once: there is room for the whole above it after the cut. */
	ev_unmap(a, 1000, PAGES - 1000 - 1096);
	ev_remap(a, 0, 1000, 1500, 1500, MOVE);
}

/*
 * Linux fills what is new in locked memory before it tells of the move, and until it has told it
 * refuses every page: who only answers with pages lets the task wait for ever (6.18).
 */
static void run_grow_locked(void)
{
	struct arena *a = arena[0];

	ev_lock(a, 100, 20, 1);
	ev_remap(a, 100, 20, HALF + 100, 60, MOVE);
	ev_check(a, HALF + 90, 80);
	must(!ev_remap(a, HALF + 100, 60, HALF + 100, 100, 0));
	ev_check(a, HALF + 90, 120);
	/* Onto pages that are owed. */
	ev_lock(a, 200, 20, 1);
	ev_remap(a, 200, 20, 1000, 40, MOVE);
	ev_check(a, 990, 60);
	ev_lock(a, 300, 10, 1);
	ev_advise(a, 320, 10, MADV_DONTNEED);
	ev_remap(a, 300, 10, HALF + 500, 20, MOVE);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* In a child, of which the manager knows only the descriptor, and in a child of that. */
static void grows_locked(void *depth)
{
	struct arena *a = arena[0];
	uint32_t d = *(uint32_t *)depth, next = d + 1;

	if (d < 3)
		child_wait(ev_fork(NULL, grows_locked, &next));
	ev_lock(a, 100, 20, 1);
	ev_remap(a, 100, 20, 1000, 60, MOVE);
	ev_lock(a, 300, 20, 1);
	ev_remap(a, 300, 20, HALF + 100, 60, MOVE);
	ev_check_all();
}

static void run_grow_locked_in_child(void)
{
	uint32_t first = 0;

	child_wait(ev_fork(NULL, grows_locked, &first));
}

static void run_shrink(void)
{
	struct arena *a = arena[0];

	ev_remap(a, 0, HALF, 0, HALF - 700, 0);
	ev_check(a, HALF - 720, 40);
	/* Room again, with other contents. */
	must(!ev_remap(a, 0, HALF - 700, 0, HALF - 200, 0));
	ev_check(a, HALF - 720, 400);
	/* Moved and cut: the rest is gone in both places. */
	ev_remap(a, 0, HALF - 200, HALF, 600, MOVE);
	ev_check(a, HALF + 300, 400);
}

static void run_onto(void)
{
	struct arena *a = arena[0];

	ev_move(a, 100, 200, HALF + 400);
	ev_check(a, HALF + 390, 220);
	/* What has come by a move is in turn moved upon. */
	ev_move(a, 600, 50, HALF + 450);
	ev_check(a, HALF + 440, 70);
	ev_move(a, HALF + 1000, 300, 1000);
	ev_move(a, 1050, 100, HALF + 1500);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

static void run_dontunmap(void)
{
	struct arena *a = arena[0];

	ev_remap(a, 100, 400, HALF + 100, 400, MOVE | MREMAP_DONTUNMAP);
	ev_check(a, 150, 50);
	ev_check(a, HALF + 150, 50);
	ev_write(a, 200, 50);
	/* From where it has come to, and back over what it has left. */
	ev_remap(a, HALF + 100, 400, 1000, 400, MOVE | MREMAP_DONTUNMAP);
	ev_move(a, 1000, 400, 100);
	ev_check(a, 100, 400);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

static void run_back_and_forth(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 100; i++) {
		ev_move(a, 500, 400, HALF + 10 * i);
		if (i % 4 == 0)
			ev_check(a, HALF + 10 * i + i, 2);
		if (i % 7 == 0)
			ev_advise(a, HALF + 10 * i + 2 * i, 2, MADV_DONTNEED);
		ev_move(a, HALF + 10 * i, 400, 500);
		if (i % 5 == 0)
			ev_check(a, 500 + 3 * i, 2);
	}
}

/* Two areas change places by way of a third. */
static void run_swap(void)
{
	struct arena *a = arena[0];

	ev_unmap(a, 600, 200);
	for (uint32_t i = 0; i < 30; i++) {
		ev_move(a, 0, 200, 600);
		ev_move(a, 300, 200, 0);
		ev_move(a, 600, 200, 300);
		ev_check(a, i * 6, 2);
	}
}

/* One mapping to the task must stay one: the move of all of it does not fail. */
static void run_after_dontneed(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 20; i++)
		ev_advise(a, i * 100 + 30, 10, i & 1 ? MADV_DONTNEED : MADV_FREE);
	ev_move(a, 0, HALF, HALF);
	ev_check(a, HALF, 1000);
	ev_advise(a, HALF + 500, 100, MADV_DONTNEED);
	ev_move(a, HALF, HALF, 0);
	must(!ev_remap(a, 0, HALF, 0, HALF + 100, 0));
}

/* ---- faults in other threads ---- */

static volatile uint32_t touched_slot; /* where the readers look; the round */
static volatile int stop;
static volatile uint64_t answers;

/*
 * A page may be read where it was, where it is, or not be mapped; never may a reader see a page
 * that is neither the one nor the other. @allowed: zero is right too (in a mapping left behind).
 */
static void read_moving(const struct arena *a, uint32_t slot, uint32_t tag, uint32_t other,
			bool zero)
{
	uint64_t word;

	if (ev_probe(ev_at(a, slot), &word))
		return;
	answers++;
	if (word == ev_word(a, tag, 0, 0) || (other && word == ev_word(a, other, 0, 0)) ||
	    (zero && !word))
		return;
	ev_fail(a, "%p (slot %u): expected contents %u or %u, got word %#llx", ev_at(a, slot), slot,
		tag, other, (unsigned long long)word);
}

static void start_readers(void *(*fn)(void *), pthread_t *t, int n)
{
	for (int i = 0; i < n; i++)
		must(!pthread_create(&t[i], NULL, fn, (void *)(uintptr_t)i));
}

static void stop_readers(pthread_t *t, int n)
{
	stop = 1;
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

/* Slot s of the lower half holds contents s + 1 as long as nobody writes. */
static void *reads_the_lower_half(void *number)
{
	struct arena *a = arena[0];
	uint64_t random = (uint64_t)(uintptr_t)number;

	while (!stop) {
		uint32_t s = (uint32_t)(random_next(&random) % HALF);

		read_moving(a, s, s + 1, 0, false);
		read_moving(a, HALF + s, s + 1, 0, false);
	}
	return NULL;
}

/* Faults wait at the old address when the mapping goes, and at the new one when it goes back. */
static void run_waiting(void)
{
	struct arena *a = arena[0];
	pthread_t t[3];

	start_readers(reads_the_lower_half, t, 3);
	for (uint32_t i = 0; i < 155; i++) {
		/*
		 * A piece that was without contents when it went is a mapping of its own when it
		 * comes back (the kernel renumbers it), so pieces must not overlap.
		 */
		uint32_t s = i * 37 % 31 * 64;

		ev_move(a, s, 64, HALF + s);
		if (i % 3 == 0)
			test_sleep_ms(1);
		ev_move(a, HALF + s, 64, s);
	}
	stop_readers(t, 3);
}

/*
 * Readers hammer the pages that a move is about to reach, so that their faults overtake the event.
 * Slots HALF + s, before: free; after: contents s + 1. Each round moves 4 pages.
 */
static void *reads_ahead(void *number)
{
	struct arena *a = arena[0];
	uint32_t lane = (uint32_t)(uintptr_t)number;

	while (!stop) {
		uint32_t s = touched_slot + lane;

		read_moving(a, HALF + s, s + 1, 0, false);
	}
	return NULL;
}

static void run_overtaken(void)
{
	struct arena *a = arena[0];
	pthread_t t[4];

	start_readers(reads_ahead, t, 4);
	for (uint32_t i = 0; i < HALF / 4; i++) {
		uint64_t before = answers;

		touched_slot = i * 4;
		ev_move(a, i * 4, 4, HALF + i * 4);
		/* Until someone has been answered at the new place; the next round is as the first.
		 */
		for (int spin = 0; answers == before && spin < 100000; spin++)
			__asm__ volatile("pause");
	}
	stop_readers(t, 4);
}

/* The same onto other contents: HALF + s before: HALF + s; after: s + 1. */
static void *reads_the_target(void *number)
{
	struct arena *a = arena[0];
	uint32_t lane = (uint32_t)(uintptr_t)number;

	while (!stop) {
		uint32_t s = touched_slot + lane;

		read_moving(a, HALF + s, s + 1, HALF + s, false);
	}
	return NULL;
}

static void run_overtaken_onto(void)
{
	struct arena *a = arena[0];
	pthread_t t[4];

	start_readers(reads_the_target, t, 4);
	for (uint32_t i = 1; i < HALF / 4; i++) {
		touched_slot = i * 4;
		if (i & 1)
			test_sleep_ms(0);
		ev_move(a, i * 4, 4, HALF + i * 4);
		if (i & 2)
			ev_check(a, HALF + i * 4, 4);
	}
	stop_readers(t, 4);
}

/* And with the old mapping left behind: contents s + 1 or, once left, zero. */
static void *reads_what_is_left(void *number)
{
	struct arena *a = arena[0];
	uint32_t lane = (uint32_t)(uintptr_t)number;

	while (!stop) {
		uint32_t s = touched_slot + lane;

		read_moving(a, s, s + 1, 0, true);
		read_moving(a, HALF + s, s + 1, 0, false);
	}
	return NULL;
}

static void run_overtaken_dontunmap(void)
{
	struct arena *a = arena[0];
	pthread_t t[4];

	start_readers(reads_what_is_left, t, 4);
	for (uint32_t i = 0; i < HALF / 4; i++) {
		touched_slot = i * 4;
		ev_remap(a, i * 4, 4, HALF + i * 4, 4, MOVE | MREMAP_DONTUNMAP);
		if (i & 1)
			ev_check(a, i * 4, 4);
	}
	stop_readers(t, 4);
}

static const struct act acts[] = {
	{"move", setup_half, run_move},
	{"pieces", setup_half, run_pieces},
	{"grow", setup_half, run_grow},
	{"grow_locked", setup_half, run_grow_locked},
	{"grow_locked_in_child", setup_half, run_grow_locked_in_child},
	{"shrink", setup_half, run_shrink},
	{"onto", setup_two, run_onto},
	{"dontunmap", setup_half, run_dontunmap},
	{"back_and_forth", setup_half, run_back_and_forth},
	{"swap", setup_all, run_swap},
	{"after_dontneed", setup_half, run_after_dontneed},
	{"waiting", setup_half, run_waiting},
	{"overtaken", setup_half, run_overtaken},
	{"overtaken_onto", setup_two, run_overtaken_onto},
	{"overtaken_dontunmap", setup_half, run_overtaken_dontunmap},
};

EV_MAIN(acts)
