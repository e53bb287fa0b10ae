// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mremap of locked memory that grows, while the mapping is armed: the kernel populates what is new
 * before it tells anybody of the move (see growth.h of the manager). Then the mapping moves as a
 * whole, which it can only if it still is one.
 */
#include "event.h"

#define OLD 64
#define NEW 200

static void setup(void)
{
	struct arena *a = ev_arena(0, 1024);

	ev_map(a, 0, OLD, RW);
	ev_write(a, 0, OLD);
	ev_map(a, 900, 100, RW);
	ev_write(a, 900, 100);
}

static void grow(uint32_t to)
{
	struct arena *a = arena[0];

	ev_lock(a, 0, OLD, 1);
	ev_remap(a, 0, OLD, to, NEW, to ? MOVE : 0);
	ev_check(a, to, NEW);
	ev_move(a, to, NEW, 600);
	ev_check_all();
}

static void in_place(void)
{
	grow(0);
}

static void moved(void)
{
	grow(300);
}

/* The kernel chooses the place. */
static void anywhere(void)
{
	struct arena *a = arena[0];
	char *p;

	ev_lock(a, 0, OLD, 1);
	ev_map(a, OLD, 1, RW); /* in the way */
	p = mremap(ev_at(a, 0), OLD * PAGE, NEW * PAGE, MREMAP_MAYMOVE);
	must(p != MAP_FAILED);
	for (uint32_t s = 0; s < NEW; s++)
		if (ev_differs(a, p + s * PAGE, s < OLD ? a->slot[s].tag : 0) >= 0)
			ev_fail(a, "page %u of the grown mapping is wrong", s);
	must(!munmap(p, NEW * PAGE));
	memset(a->slot, 0, OLD * sizeof(a->slot[0]));
}

static const struct act acts[] = {
	{"in_place", setup, in_place},
	{"moved", setup, moved},
	{"anywhere", setup, anywhere},
};

EV_MAIN(acts)
