/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kin: finds out which process a forked child is. The kernel hands over a descriptor and no pid. So
 * one owed page is placed, and the one candidate in whose page table it appears at that moment is
 * the child. Only asked when something depends on it. Owner thread only; may place a few pages.
 */
#ifndef KIN_H
#define KIN_H

struct task;

/* Sets rec->real_pid if it can be found; the task must owe pages. Returns it, or 0. */
int kin_find_pid(struct task *t);

#endif
