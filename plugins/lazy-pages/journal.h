/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal: what cannot be had twice, in the arena, where it outlives a worker. Descriptors, the
 * hand-off in progress, and each task's layout events. read(2) and recvmsg(2) write straight into
 * it, so that nothing is ever out of the kernel and not yet here: memory that is zero beforehand
 * and that the kernel always fills with something not zero tells what has arrived.
 *
 * A task's map is a function of the regions and messages here; the owed bits live beside it. What a
 * crash can interrupt is ordered so that doing it again is right: see each commit point below.
 *
 * A record is written by its owner thread, the hand-off part by the control thread; slots are
 * taken and given back under a lock of the worker (task.h).
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "arena.h"
#include "link.h"
#include "owed.h"
#include "remote_identity.h"
#include "root_end.h"
#include "space.h"
#include "tally.h"

#define JOURNAL_MESSAGES 511   /* a log is 16 KiB */
#define JOURNAL_READ	 64    /* messages asked for with one read */
#define JOURNAL_TASKS	 65536 /* at one time; a finished one frees its slot */
#define JOURNAL_THREADS	 64

/* An event that has been dealt with and must not be done again (forks); faults are skipped too. */
#define JOURNAL_EVENT_DONE 0x7f

/*
 * The regions as they were when the log began, and what the kernel has said since. Ends at the
 * first message whose event is 0. JOURNAL_READ messages of room are touched before each read, so
 * that the kernel's store into it cannot fault.
 */
struct task_log {
	uint64_t base; /* serial number of msg[0] */
	struct region *regions;
	uint64_t nregions;
	uint64_t run_pages; /* of the run that holds the regions */
	struct uffd_msg msg[JOURNAL_MESSAGES];
};

struct task_record {
	int uffd;
	int pid;	 /* in the image; a forked child has its ancestor's */
	int real_pid;	 /* as we see it; 0 when unknown (forked, or of another pid namespace) */
	uint32_t image;	 /* which task of the checkpoint */
	uint64_t parent; /* .unique of the parent for a forked child, else 0 */
	int parent_pid;	 /* .real_pid of the parent as far as it was known, else 0 */
	bool embryo;	 /* what is wiped on fork has not been forgiven yet: no owner */
	uint64_t born;	 /* serial number of the parent's fork message */
	uint64_t unique; /* never used twice */
	struct owed *owed;
	uint32_t active; /* which log is in force: the commit point of a snapshot */
	struct task_log *log[2];
};

struct handoff_record {
	int listen_fd; /* -1 when no longer listening */
	int conn_fd;   /* -1 before the restore has connected, or after it has closed */
	bool connected;
	/* The item that is coming in: a word, then, for a live task, a byte with a descriptor. */
	int32_t word;
	char byte;
	uint32_t items;
	char control[128] __attribute__((aligned(8)));
};

struct journal {
	struct arena *arena;
	/* Set once, by the worker, when everything is over; what the keeper exits with. */
	bool over;
	int exit_status;
	bool restore_finished;
	bool finish_asked; /* somebody waits for the last page: no limits on the background */
	uint64_t began_ns, finished_ns, connected_ns; /* CLOCK_MONOTONIC */
	uint32_t workers;			      /* how many there have been */
	/* Written by the kernel during clone, so that no process can exist that is not named here.
	 */
	pid_t keeper_pid[2];
	int keeper_pidfd[2];
	pid_t worker_pid;
	int worker_pidfd;
	uint32_t senior; /* which keeper starts workers */
	struct handoff_record handoff;
	struct remote_identity identity;
	struct link_record link; /* to the page server: the connection that must not be lost */
	uint64_t unique;
	uint32_t nslots; /* slots at or above it were never used */
	struct tally tally[JOURNAL_THREADS];
	uint64_t tasks_seen, tasks_forked;
	struct root_record root;
	struct task_record *slot[JOURNAL_TASKS]; /* storing a record here is its commit point */
};

/* Makes an empty journal in @a; NULL when the arena is full. */
struct journal *journal_new(struct arena *a);

/*
 * A record in no slot yet, with @n regions at @v as the start of its log. It owns @owed from then
 * on. NULL when the arena is full.
 */
struct task_record *journal_record_new(struct journal *j, struct owed *owed, const struct region *v,
				       size_t n);
void journal_record_free(struct journal *j, struct task_record *r);
/* Puts the record into a free slot and returns its number, or -ENOSPC. Caller holds the slot lock.
 */
int journal_slot_take(struct journal *j, struct task_record *r);

/*
 * Starts the other log with @n regions at @v and an empty list, and makes it the active one. All
 * messages of the old one must have been dealt with. 0, or -ENOMEM with nothing changed.
 */
int journal_snapshot(struct journal *j, struct task_record *r, const struct region *v, size_t n);

/* After the death of a worker: makes the arena's counts right for what the journal names. */
void journal_recount(struct journal *j);

/*
 * After the death of a worker, before any task is given to an owner: marks the forks whose child
 * got as far as being ready, so that they are not looked for again when the child may be gone.
 */
void journal_settle_forks(struct journal *j);

/* Whether the journal names descriptor @fd (as a task's, or in a message not yet dealt with). */
bool journal_names_fd(const struct journal *j, int fd);

#endif
