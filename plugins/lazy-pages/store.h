/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Store: pages of a page server between their arrival and their placing, in a fixed number of
 * chunks of 64 pages. A chunk holds pages of one task that lie together in its image; bit i of each
 * mask is its page i. What is here stays until its room is needed for something else, so that a
 * forked child finds what its parent has just placed. Pure; the caller has the lock.
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHUNK_PAGES 64

struct chunk {
	uint64_t base;		     /* WHERE() of its first page, a multiple of CHUNK_PAGES */
	uint64_t asked;		     /* queued or on the wire, and not here */
	uint64_t doubled;	     /* asked a second time on the urgent link */
	uint64_t here;		     /* arrived */
	uint64_t taken;		     /* fetched at least once */
	uint64_t urgent;	     /* a fault waits for it */
	uint64_t waiters;	     /* who is to be told of an arrival: bits of the caller's */
	unsigned inflight;	     /* requests under way that write into bytes */
	unsigned pins;		     /* readers of bytes outside the lock */
	char *bytes;		     /* CHUNK_PAGES pages */
	struct chunk *next;	     /* with the same hash */
	struct chunk *newer, *older; /* in the order of use */
};

struct store;

/* @chunks > 0. NULL without memory. */
struct store *store_new(size_t chunks);
void store_free(struct store *s);

/* The chunk of the page at @where, or NULL. Counts as a use. */
struct chunk *store_find(struct store *s, uint64_t where);
/*
 * The same; makes it if need be, in the room of the chunk that was used longest ago and that nobody
 * reads or fills. NULL when there is none.
 */
struct chunk *store_make(struct store *s, uint64_t where);

/* The bits of @npages pages from @where on, all in one chunk. */
uint64_t chunk_mask(uint64_t where, uint64_t npages);
/* Where a page's bytes are. */
char *chunk_bytes(const struct chunk *c, uint64_t where);
/* How many pages from @where on are in the same chunk. */
uint64_t chunk_rest(uint64_t where);

/*
 * Whether what has been fetched may be wanted again, by a forked child. If not (the default is that
 * it may) what was fetched lately makes room first, but for the last two: its memory is still in
 * the caches.
 */
void store_keep(struct store *s, bool fetched);

/* Chunks with something under way or not fetched yet. */
size_t store_fresh(const struct store *s);
size_t store_chunks(const struct store *s);
/* Nothing that is here is waited for any more: whoever wants it may still find it. */
void store_forget_fresh(struct store *s);

#endif
