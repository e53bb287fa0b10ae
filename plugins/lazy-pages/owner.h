/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Owner: a thread that alone reads the descriptors of its tasks and places their pages, so that the
 * map needs no lock. Faults first; between two slices of background it looks at every descriptor.
 */
#ifndef OWNER_H
#define OWNER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loan.h"
#include "schedule.h"
#include "space.h"
#include "task.h"

struct owner {
	struct worker *worker;
	unsigned id;
	pthread_t thread;
	int epoll_fd;
	int wake_fd; /* eventfd: inbox, source, restore finished, stop */
	struct task **tasks;
	size_t ntasks, tasks_room;
	size_t turn;	     /* whose slice is next */
	size_t nwaiting;     /* tasks with faults that have to wait for the kernel or memory */
	size_t nwanted;	     /* tasks with faults that the source will tell of */
	struct tally *tally; /* in the journal */
	char *scratch;	     /* SCHEDULE_MAX_PAGES pages */
	/* What has been mapped of the source last, for the sweep and for neighbours of faults. */
	struct window {
		uint64_t where, npages;
		const char *bytes;
	} window[2];
	struct run runs[SCHEDULE_MAX_PAGES];
	struct loan loan; /* of one of its tasks, to others */
	atomic_bool idle; /* about to sleep, or asleep: would help with a loan */
	atomic_uint load; /* tasks owned or in the inbox */
	atomic_bool stop;
	pthread_mutex_t inbox_lock; /* protects the inbox */
	int *inbox;		    /* slots */
	size_t ninbox, inbox_room;
};

/* Starts the thread. NULL when there is no memory or no thread to be had. */
struct owner *owner_start(struct worker *w, unsigned id);
void owner_stop(struct owner *o);
/* Any thread: hands over the task in @slot. -ENOMEM. */
int owner_give(struct owner *o, int slot);
/* Any thread: makes it look again. */
void owner_wake(struct owner *o);

#endif
