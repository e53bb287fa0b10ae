/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Worker: the process that does all the work, and that may die at any instant. Its first thread
 * is the control thread (hand-off, control socket, timers, the end); owner threads place pages.
 * What must not be lost is in the journal; everything here is rebuilt by the next worker.
 */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint.h"
#include "clock.h"
#include "journal.h"
#include "log.h"
#include "options.h"
#include "source.h"

struct owner;
struct control_server;
struct collapser;
struct remote_start;

struct worker {
	const struct options *options;
	const struct log *log;
	const struct checkpoint *checkpoint;
	struct journal *journal;
	struct control_server *control;
	struct source *source;
	struct remote_start *remote; /* NULL: there is no page server */
	struct owner **owners;
	unsigned nowners;
	struct collapser *collapser;
	pthread_mutex_t slot_lock;    /* slots of the journal */
	int event_fd;		      /* owners tell the control thread that a task is finished */
	uint64_t background_delay_ns; /* test aid: LAZY_PAGES_TEST_BACKGROUND_DELAY_MS */
	atomic_uint live;	      /* tasks not finished */
};

/*
 * Runs until everything is over (journal->over is set) and returns the exit status. @remote: the
 * page server, or NULL: all pages are here.
 */
int worker_run(const struct options *o, const struct log *log, const struct checkpoint *c,
	       struct journal *j, struct control_server *control, struct remote_start *remote);

/* Gives the task in @slot to the owner thread with the fewest. Any thread. */
void worker_adopt(struct worker *w, int slot);
/* A task is finished. Any owner thread. */
void worker_task_finished(struct worker *w);
/* Whether the sweep may run, and if not, from when (0: not known yet). Any thread. */
bool worker_background(const struct worker *w, uint64_t now, uint64_t *from);
/* Sums of all threads so far. */
void worker_tally(const struct worker *w, struct tally *sum);

#endif
