/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Owed: which pages of a task are still to be placed, one bit an index (extents.h). A bit goes from
 * 1 to 0 once, and never back. The bits live in the arena in copy-on-write chunks, so that a fork
 * costs a table of references, and so that a new worker finds them as they were.
 *
 * Only the owner of the task calls these, except owed_clear_shared(), which idle workers use on
 * disjoint ranges that were made private with owed_own() first.
 */
#ifndef OWED_H
#define OWED_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

struct owed; /* lives in the arena; the pointer is the same in every process */

/* @npages bits, all set. NULL when the arena is full. */
struct owed *owed_new(struct arena *a, uint64_t npages);
/* A copy that shares all chunks. NULL when the arena is full. */
struct owed *owed_fork(struct arena *a, struct owed *from);
void owed_free(struct arena *a, struct owed *o);
/* During arena recovery: counts everything that @o refers to, and sums the bits up again. */
void owed_recount(struct arena *a, struct owed *o);

uint64_t owed_npages(const struct owed *o); /* bits in all */
uint64_t owed_left(const struct owed *o);   /* bits still set */
bool owed_test(const struct owed *o, uint64_t index);
/* First set bit in [from, to), else @to. */
uint64_t owed_next(const struct owed *o, uint64_t from, uint64_t to);
/* First clear bit in [from, to), else @to. */
uint64_t owed_next_clear(const struct owed *o, uint64_t from, uint64_t to);
/* Clears [from, to). Returns how many were set, or -ENOMEM with nothing changed. */
int64_t owed_clear(struct arena *a, struct owed *o, uint64_t from, uint64_t to);
/* Makes sure that owed_clear() of the same range cannot fail. 0 or -ENOMEM. */
int owed_prepare(struct arena *a, struct owed *o, uint64_t from, uint64_t to);
/* Makes the chunks of [from, to) private, so that owed_clear_shared() may follow. 0 or -ENOMEM. */
int owed_own(struct arena *a, struct owed *o, uint64_t from, uint64_t to);
/* Clears with atomic operations in private chunks; cannot fail. Returns how many were set. */
uint64_t owed_clear_shared(struct owed *o, uint64_t from, uint64_t to);

#endif
