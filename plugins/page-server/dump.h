/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dump: the `criu dump --lazy-pages` that holds the tasks, found by the socket that it listens on,
 * and its tasks, found by who traces them. As long as it lives and its connection stands it keeps
 * them stopped: when it dies the kernel lets them run. Immutable once found; any thread.
 */
#ifndef DUMP_H
#define DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "error.h"
#include "net.h"

struct dump_task {
	int image_pid; /* in the innermost pid namespace: what the images call it */
	pid_t pid;     /* as we see it */
	int pidfd;     /* of just that process, whoever gets its pid later */
};

struct dump {
	pid_t pid;
	int pidfd;
	int stat_fd;		 /* /proc/PID/task/PID/stat */
	struct dump_task *tasks; /* ascending by image_pid */
	size_t ntasks;
};

/*
 * Looks, and touches nothing: the socket that listens on @a, its process, whom that traces.
 * -ENOENT: nobody listens; -EBUSY: the dump has its one connection; -EINVAL: it is no dump.
 */
int dump_find(struct dump **out, const struct net_address *a, struct error *e);
void dump_free(struct dump *d);

/* The task that the images call @image_pid, or NULL. */
const struct dump_task *dump_task(const struct dump *d, int image_pid);
/* Whether its pid is still its own: then what was read by pid before was read from it. */
bool dump_task_lives(const struct dump_task *t);

/*
 * Whether it has not begun to end. The kernel marks a process as ending before it lets go of what
 * that traces: what was read from a task before this was true is from before the task ran again.
 */
bool dump_lives(const struct dump *d);
/* Whether it has ended for good. */
bool dump_has_ended(const struct dump *d);

/* What is so of the process @pid and all its threads: @tracer traces one of them. */
bool task_is_traced(pid_t pid, pid_t tracer);
/* It has no memory any more: dead, or a zombie. */
bool task_is_gone(pid_t pid);

#endif
