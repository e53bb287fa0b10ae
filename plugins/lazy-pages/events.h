/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: reads what the kernel says on a task's userfaultfd, straight into the journal, and
 * applies it to the map: fork, remap, unmap, remove. Page faults are put on the task's list for
 * fault.c. Owner thread only; no placing happens between the read and the application.
 */
#ifndef EVENTS_H
#define EVENTS_H

#include "task.h"

/*
 * One read(2). Returns the number of messages, 0 when there was none. *drained is set when the
 * queue was seen empty. Never fails: what cannot be done for want of memory is tried until it can.
 */
size_t events_read(struct task *t, uint64_t now_ns, bool *drained);

/* Applies all messages in the journal again to the map that the log begins with. */
void events_replay(struct task *t);

#endif
