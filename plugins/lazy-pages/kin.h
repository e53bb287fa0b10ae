/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kin: finds out which process a forked child is. The kernel hands over a descriptor and no pid.
 * The child is the one candidate in whose page table a page appears when it is placed: so its first
 * faults tell, at the cost of two looks at a few page tables. Only a task that forks before it has
 * touched anything is asked for with pages placed for the purpose. Owner thread only.
 */
#ifndef KIN_H
#define KIN_H

#include <stdint.h>

struct task;
struct kin;

/* Around the placing of one owed page of @t for a fault. */
void kin_before(struct task *t, uint64_t addr);
void kin_after(struct task *t, uint64_t addr);
/* Sets rec->real_pid if it can be found soon; may place a few pages. Returns it, or 0. */
int kin_find_pid(struct task *t);
/* NULL is fine. */
void kin_free(struct kin *k);

#endif
