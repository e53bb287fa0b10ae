/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeper: the process that waits, so that the worker may die. Keeper, its deputy and the worker
 * share one descriptor table (clone with CLONE_FILES), so every userfaultfd, a forked child's
 * included, is held by all of them at the moment it arrives. When the worker dies, tasks block
 * until the keeper has started another. When the keeper dies, the deputy takes its place.
 *
 * Keeper and deputy have one thread and never touch a task, so that either can always be copied: a
 * worker with threads could not make a clean copy of itself.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include "journal.h"
#include "log.h"

/* Runs in each new worker; its return value is the worker's exit status. */
typedef int worker_fn(void *arg);

/* Starts deputy and worker and returns the exit status when everything is over. */
int keeper_run(struct journal *j, const struct log *log, worker_fn *fn, void *arg);

#endif
