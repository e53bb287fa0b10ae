/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fault: answers the pages that a task waits for, before anything else is done. A page that is owed
 * gets its bytes; one that is not gets zeros, but only once the event queue has been seen
 * empty, because faults overtake the events that explain them. Owner thread only.
 */
#ifndef FAULT_H
#define FAULT_H

#include "task.h"

/* Reads and answers until the queue is empty and every fault is answered, or has to wait. */
void fault_serve(struct task *t);
/* Puts a fault on the list, unless its page is there already. */
void fault_add(struct task *t, uint64_t addr, bool write, uint64_t now_ns);

#endif
