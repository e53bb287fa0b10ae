/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A task whose memory is arriving: its record in the journal and what an owner thread keeps about
 * it. Everything here is the owner's alone; no lock. Made from the journal, whether the task is new
 * or a worker has died.
 */
#ifndef TASK_H
#define TASK_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint.h"
#include "journal.h"
#include "schedule.h"
#include "space.h"

struct worker;
struct owner;

/* A page that a task waits for. */
struct fault {
	uint64_t addr; /* of the page */
	uint64_t read_ns;
	bool write;
	bool wanted; /* the source has been asked */
	uint64_t wanted_ns;
	uint64_t again_ns; /* since when the kernel has answered EAGAIN; 0: it has not */
};

#define TASK_DISARMED 8

struct range {
	uint64_t start, end;
};

struct task {
	struct worker *worker;
	struct owner *owner;
	struct task_record *rec;
	int slot;
	const struct checkpoint_task *image;
	struct space *space;
	uint32_t tail; /* where the next message goes in the active log */
	struct fault *faults;
	size_t nfaults, faults_room;
	struct schedule schedule;
	bool gone;		/* the address space is no more */
	bool cold;		/* the sweep waits for the source */
	uint64_t ask;		/* the page server has been asked for all from the sweep to here */
	bool noted;		/* the last trouble has been logged */
	uint64_t not_before_ns; /* no background before: layout changing, no memory, read error */
	uint64_t lend_not_before_ns;	      /* no loan before: the last one brought nothing */
	struct range disarmed[TASK_DISARMED]; /* growth.h */
	size_t ndisarmed;
	struct kin *kin; /* kin.h; NULL when not looked for */
	int guard_fd;	 /* guard.h; -1: cannot be asked, or not opened yet */
	bool guard_tried;
	/* Seen without guards, and when: for the sweep and for neighbours of faults. */
	struct unguarded {
		uint64_t from, to, ns;
	} unguarded[2];
	uint64_t unread_ns;	 /* when it was last said that events cannot be read */
	uint64_t again_wait_ns;	 /* background pauses that long at the next EAGAIN */
	uint64_t stuck_since_ns; /* nothing owed could be placed since; 0: not stuck */
};

/*
 * Takes over the record in @slot: builds the map from its log, deals with forks that were read and
 * not dealt with (children come out through worker_adopt()). NULL without memory.
 */
struct task *task_open(struct worker *w, int slot);
/* Frees what the owner keeps; the record stays. */
void task_free(struct task *t);
/* Ends the task: frees slot and record, closes the descriptor, which lets waiters go on. */
void task_finish(struct task *t);

/* "task 1234" or "task 1234 (child of 1200)". */
struct task_name {
	char text[48];
};
struct task_name task_name(const struct task *t);

/* Pages still owed. */
uint64_t task_left(const struct task *t);

/* Clears @npages owed bits from @index on: placed, or there already, or given up. Waits for memory.
 */
void task_settle(struct task *t, uint64_t index, uint64_t npages);

/* Puts a new task into the journal and returns its slot, or -errno. Takes the worker's slot lock.
 */
int task_register(struct worker *w, struct task_record *r);

#endif
