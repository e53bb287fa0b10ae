/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arena: memory that outlives a worker. One sparse memfd, mapped shared and locked-on-touch at
 * one address before the first clone, so that a pointer into it means the same in keeper and
 * worker. It hands out runs of 4096-byte pages, zeroed. Single pages carry a reference count,
 * because owed bitmaps are shared copy-on-write between a task and its forked children.
 *
 * After a crash counts may be too high, never too low: arena_recount_begin() sets all counts to
 * zero, the recovering worker calls arena_page_ref() for every page that the journal still names,
 * and arena_recount_end() frees the rest. Allocation is guarded by a lock that a new
 * worker resets (arena_reset_lock()). Any thread may allocate; never on the way of a fault.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct arena;

#define ARENA_PAGE 4096

/* Makes an arena that may grow to @max_bytes (reserved, not used). Freed with the process. */
int arena_new(struct arena **out, uint64_t max_bytes, struct error *e);
void arena_free(struct arena *a);

/* A zeroed run of @npages consecutive pages, each with count 1; NULL when the arena is full. */
void *arena_run_new(struct arena *a, size_t npages);
/* Gives a run back; all its counts must be 1 (anything else is a bug, and aborts). */
void arena_run_free(struct arena *a, void *run, size_t npages);

/* One page with count 1; contents are undefined unless @zero. NULL when the arena is full. */
void *arena_page_new(struct arena *a, int zero);
void arena_page_ref(struct arena *a, void *page);
/* Drops one count; the page is free at zero. */
void arena_page_put(struct arena *a, void *page);
/* The count, read with acquire semantics: 1 means that the caller alone has the page. */
uint32_t arena_page_refs(const struct arena *a, const void *page);

/* For a new process: makes the lock anew, and locks what is touched into memory, if allowed. */
void arena_reset_lock(struct arena *a);
/* From here to the end of the recount nothing may be allocated or freed. */
void arena_recount_begin(struct arena *a);
/* During a recount: counts a run of @npages once. */
void arena_run_ref(struct arena *a, void *run, size_t npages);
void arena_recount_end(struct arena *a);

/* Bytes in use, for status. */
uint64_t arena_used(const struct arena *a);

#endif
