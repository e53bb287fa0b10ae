/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sweep: places one slice of what nobody waits for yet. All-zero pages become zero pages. Owner
 * thread only; a slice is short, and the owner looks for faults after each.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "task.h"

#define SWEEP_PAGES 16 /* placed with one call: 64 KiB; a fault waits for no more than that */

/* One slice. Returns true when it placed or settled something. */
bool sweep_slice(struct task *t, uint64_t now_ns);

/* Asks the page server for what follows @addr, as background: whoever waits there will go on to it.
 * Nothing for pages that are here. */
void sweep_ask_near(struct task *t, uint64_t addr);

/* Opens what is needed to see guards of @t, once its pid is known. Before it is lent. */
void sweep_watch_guards(struct task *t);

/*
 * Places what is owed in [addr, end) of @t, at most SCHEDULE_MAX_PAGES pages, while @t is lent. @by
 * is the thread that does it, the owner or a borrower. Returns the pages settled; what could not be
 * placed stays owed.
 */
uint64_t sweep_lent(struct task *t, struct owner *by, uint64_t addr, uint64_t end);

/* Whether the @len bytes at @p, a multiple of 64, are all zero. */
bool bytes_are_zero(const void *p, size_t len);

#endif
