/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Schedule: which of a task's owed pages come next, and how many at once. The page that a task
 * waits for does not pass here (fault.c places it at once); this is about what follows: the
 * neighbours of the last fault, then the sweep from the bottom to the top. While faults are recent
 * the slices are small, because a fault waits for the slice that is under way.
 *
 * Pure: time comes in as nanoseconds of CLOCK_MONOTONIC. One a task, used by its owner thread.
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "tally.h"

#define SCHEDULE_MAX_PAGES 64 /* the largest slice: 256 KiB */

struct schedule {
	uint64_t sweep;	    /* run-time address where the sweep goes on */
	uint64_t hot;	    /* where the neighbours of the last fault go on */
	uint64_t hot_pages; /* how many of them are still to come */
	uint64_t window;    /* how many the next fault in sequence gets */
	uint64_t hot_end;   /* a fault in [fault, hot_end] continues the sequence */
	uint64_t last_fault_ns;
	bool settled;	/* something has been placed since the sweep began at the bottom */
	bool fruitless; /* the last whole sweep has placed nothing */
};

struct slice {
	uint64_t addr;
	uint64_t pages;
	enum cause cause;
};

/* A task waited for the page at @addr. */
void schedule_fault(struct schedule *s, uint64_t addr, uint64_t now_ns);
/* The next slice to gather from. */
struct slice schedule_next(struct schedule *s, uint64_t now_ns);
/*
 * The slice went up to @end (run-time address), and something was @settled; @end == 0: nothing is
 * owed from slice.addr up, the next sweep begins at the bottom.
 */
void schedule_done(struct schedule *s, const struct slice *slice, uint64_t end, bool settled);
/* Whether a fault came so lately that nothing else should hold the task's descriptor for long. */
bool schedule_busy(const struct schedule *s, uint64_t now_ns);
#endif
