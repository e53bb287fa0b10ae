/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sweep: places one slice of what nobody waits for yet. All-zero pages become zero pages. Owner
 * thread only; a slice is short, and the owner looks for faults after each.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "task.h"

/* One slice. Returns true when it placed or settled something. */
bool sweep_slice(struct task *t, uint64_t now_ns);

/* Whether the @len bytes at @p, a multiple of 64, are all zero. */
bool bytes_are_zero(const void *p, size_t len);

#endif
