/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Space: the map of one task's address space as far as lazy memory is concerned. A sorted array of
 * regions [start, end) -> image address; what a region maps and the owed bitmap still names is to
 * be placed. The number of regions follows the number of mappings, never of pages. Pure: no system
 * call, no clock; belongs to the task's owner thread. It is a function of the image's mappings and
 * the userfaultfd events since, which is how a new worker gets it back (the owed bits stay).
 *
 * All addresses and lengths are bytes, multiples of 4096, up to the top of 64 bits; an end of 0
 * from wrap-around is refused with -EINVAL. Functions that return int give 0 or -ENOMEM/-EINVAL
 * and change nothing when they fail.
 */
#ifndef SPACE_H
#define SPACE_H

#include "extents.h"
#include "owed.h"

struct region {
	uint64_t start, end; /* run-time addresses */
	uint64_t image;	     /* image address of start */
};

struct space;

/* Neither the extents nor the owed bits are owned. Starts without regions. */
struct space *space_new(struct arena *a, const struct extents *x, struct owed *o);
void space_free(struct space *s);

/* Adds the identity region of a mapping of the image; mappings come in ascending order. Contiguous
 * regions with contiguous image addresses merge. */
int space_add(struct space *s, uint64_t start, uint64_t end);

/* The task unmapped [start, end): regions are cut, what was owed in them is forgiven. */
int space_unmap(struct space *s, uint64_t start, uint64_t end);
/* The task discarded contents (MADV_DONTNEED and the like): forgiven, the regions stay. */
int space_remove(struct space *s, uint64_t start, uint64_t end);
/* mremap: what was at [from, from+len) is now at [to, to+len); what was at the target is forgiven,
 * except that a kernel may report overlapping growth in place (from == to: nothing changes). */
int space_remap(struct space *s, uint64_t from, uint64_t to, uint64_t len);
/* The child's space: a copy of the regions over @child_owed (owed_fork of the parent's). */
struct space *space_fork(const struct space *s, struct owed *child_owed);

enum page_state {
	PAGE_UNKNOWN, /* in no region: reads as zeros */
	PAGE_CLEAR,   /* in a region, but not lazy, or placed, or forgiven */
	PAGE_OWED,
};
/* @index is set for PAGE_OWED. */
enum page_state space_lookup(const struct space *s, uint64_t addr, uint64_t *index);

/* A run of owed pages, contiguous in the task, in the index and in place. */
struct run {
	uint64_t addr; /* run-time address */
	uint64_t index;
	uint64_t npages;
	uint64_t where; /* of its first page */
};
/*
 * Gathers owed runs at or above @addr in address order: at most @max_runs runs and @max_pages
 * pages, all in one region, and with all pages in one file within @span_pages of the first page
 * there, so that one read gets them all. Returns the number of runs; 0 when nothing is owed from
 * @addr up. The search does not wrap around. Cost: O(log n) and the runs.
 */
size_t space_gather(const struct space *s, uint64_t addr, uint64_t max_pages, uint64_t span_pages,
		    struct run *runs, size_t max_runs);

/* The end of the region that holds @addr; @addr itself when there is none. */
uint64_t space_region_end(const struct space *s, uint64_t addr);

/* Pages still owed that a region maps (owed_left() of its bits). */
uint64_t space_left(const struct space *s);

/* For snapshots, status and collapse. */
size_t space_regions(const struct space *s, const struct region **v);
/* Replaces all regions by @n from @v (sorted, disjoint): from a snapshot. */
int space_set_regions(struct space *s, const struct region *v, size_t n);

#endif
