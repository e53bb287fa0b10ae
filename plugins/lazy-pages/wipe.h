/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wipe: MADV_WIPEONFORK. A forked child reads zeros there, although its userfaultfd covers the
 * range and its faults look like any other; the bytes of the image are often keys or the state of a
 * random generator. Owner thread only, while a fork is applied.
 */
#ifndef WIPE_H
#define WIPE_H

#include "space.h"
#include "task.h"

/*
 * Forgives in @child, the space of a child that @t has just forked, what the kernel wipes: the
 * areas with "wf" in the parent's smaps when its pid is known, else those that had the advice
 * when they were dumped. 0 or -ENOMEM.
 */
int wipe_on_fork(const struct task *t, struct space *child);

#endif
