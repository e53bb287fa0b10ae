// SPDX-License-Identifier: GPL-2.0-or-later
/* What comes next for a task: see schedule.h. */
#include "schedule.h"

#include "compiler.h"

#define BUSY_NS	   2500000 /* after a fault, small slices for this long */
#define BUSY_PAGES 16	   /* 64 KiB: about 20 us */
#define WINDOW_MIN 16
#define WINDOW_MAX 512

void schedule_fault(struct schedule *s, uint64_t addr, uint64_t now_ns)
{
	/* A reader that runs into the end of what has come is sequential: give it more ahead. */
	if (s->window && addr >= s->hot - PAGE_SIZE && addr <= s->hot_end)
		s->window = MIN(s->window * 2, WINDOW_MAX);
	else
		s->window = WINDOW_MIN;
	s->hot = addr + PAGE_SIZE;
	s->hot_pages = s->window;
	s->hot_end = s->hot + (s->window + WINDOW_MIN) * PAGE_SIZE;
	s->last_fault_ns = now_ns;
}

bool schedule_busy(const struct schedule *s, uint64_t now_ns)
{
	return s->last_fault_ns && now_ns - s->last_fault_ns < BUSY_NS;
}

struct slice schedule_next(struct schedule *s, uint64_t now_ns)
{
	uint64_t most = schedule_busy(s, now_ns) ? BUSY_PAGES : SCHEDULE_MAX_PAGES;

	if (s->hot_pages)
		return (struct slice){s->hot, MIN(most, s->hot_pages), CAUSE_NEIGHBOUR};
	return (struct slice){s->sweep, most, CAUSE_BACKGROUND};
}

void schedule_done(struct schedule *s, const struct slice *slice, uint64_t end, bool settled)
{
	s->settled |= settled;
	if (slice->cause == CAUSE_NEIGHBOUR) {
		uint64_t pages = end > slice->addr ? (end - slice->addr) / PAGE_SIZE : UINT64_MAX;

		s->hot_pages -= MIN(pages, s->hot_pages);
		s->hot = end;
		return;
	}
	s->sweep = end;
	if (end) {
		s->fruitless &= !settled;
		return;
	}
	/* A sweep that did not begin at the bottom says nothing; the next one will. */
	s->fruitless = !s->settled;
	s->settled = false;
}
