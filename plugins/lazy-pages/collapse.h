/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Collapse: gives a task its huge pages back after its last page has come. Pages that are placed
 * one by one are never huge, and khugepaged would take minutes. One thread, so that a task's memory
 * is worked on from one side at a time; what fails is left to khugepaged.
 */
#ifndef COLLAPSE_H
#define COLLAPSE_H

#include <stdbool.h>

#include "log.h"
#include "task.h"

struct collapser;

/* Starts the thread. NULL when huge pages are off (@enabled false, or in the kernel). */
struct collapser *collapser_start(const struct log *log, bool enabled);
/* Does what is still in the queue, then ends the thread and frees. NULL is fine. */
void collapser_finish(struct collapser *c);
/* Queues what was eligible of @t when it was dumped, and full. Any thread. NULL is fine. */
void collapse_task(struct collapser *c, const struct task *t);

#endif
