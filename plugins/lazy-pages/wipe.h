/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wipe: MADV_WIPEONFORK. A forked child reads zeros there, although its userfaultfd covers the
 * range and its faults look like any other; the bytes of the image are often keys or the state of a
 * random generator. MADV_DONTFORK, too: the child has nothing there, but a mapping that it lets
 * grow into the hole is armed. Owner thread only, while a fork is applied.
 */
#ifndef WIPE_H
#define WIPE_H

#include <stdbool.h>

#include "space.h"
#include "task.h"

/* What a process does not hand on to its children, by its mappings at one moment after the fork. */
struct wipes {
	bool known; /* read from a process that was alive; else only part, or nothing */
	struct ranges {
		struct range *v; /* ascending */
		size_t n, room;
	} armed, wiped;
};

/*
 * Reads the mappings with "um", and of those the ones with "wf" or "dc", in the smaps of process
 * @pid. To be called as soon as the fork is known of: the process has gone on. 0, or -ENOMEM (also
 * when descriptors are short): try again. A process that is gone gives 0 and .known false.
 */
int wipes_read(struct wipes *w, int pid);
void wipes_free(struct wipes *w);

/*
 * Forgives in @child, the space of a child that @t has just forked, what @w says. @later are @n
 * events of the parent since the fork: what they have moved is looked for where it is now. What
 * cannot be found any more is judged by the advice it had when it was dumped. 0 or -ENOMEM.
 */
int wipes_apply(const struct wipes *w, const struct task *t, struct space *child,
		const struct uffd_msg *later, size_t n);

#endif
