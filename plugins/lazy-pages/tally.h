/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tally: what has been counted so far, one a thread, kept in the journal so that a new worker goes
 * on counting where the old one died. Only the thread itself writes its tally; others read it
 * without a lock, for status.
 */
#ifndef TALLY_H
#define TALLY_H

#include <stdint.h>

enum cause {
	CAUSE_FAULT,	  /* a task waited for this page */
	CAUSE_NEIGHBOUR,  /* near a page that a task waited for */
	CAUSE_BACKGROUND, /* the sweep */
	CAUSES,
};

#define TALLY_BUCKETS 40 /* bucket i holds times of [2^i, 2^(i+1)) nanoseconds */

struct tally {
	uint64_t placed[CAUSES]; /* pages */
	uint64_t zero;		 /* pages of those that were all zeros */
	uint64_t existed;	 /* pages owed that were there already */
	uint64_t forgiven;	 /* pages that the task gave up before they came */
	uint64_t faults;	 /* messages read */
	uint64_t zero_faults;	 /* answered with zeros: discarded, or never in the image */
	uint64_t events;	 /* fork, remap, unmap, remove */
	uint64_t again;		 /* calls that met a changing layout */
	uint64_t stalls;	 /* faults whose time is in the buckets */
	uint64_t stall_ns;	 /* their sum, from being read to being placed */
	uint64_t stall_max_ns;
	uint64_t bucket[TALLY_BUCKETS];
} __attribute__((aligned(64)));

static inline void tally_stall(struct tally *t, uint64_t ns)
{
	unsigned b = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;

	t->bucket[b < TALLY_BUCKETS ? b : TALLY_BUCKETS - 1]++;
	t->stalls++;
	t->stall_ns += ns;
	if (ns > t->stall_max_ns)
		t->stall_max_ns = ns;
}

/* Adds @from to @to, counter by counter. */
void tally_add(struct tally *to, const struct tally *from);
/* The time, in nanoseconds, that @permille of 1000 stalls stay below: a bucket's upper edge. */
uint64_t tally_quantile(const struct tally *t, unsigned permille);

#endif
