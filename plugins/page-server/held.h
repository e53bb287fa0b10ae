/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Held: the one connection that a dump takes. What ends it decides what becomes of the source:
 *
 *	reset		stock lets the tasks run again
 *	plain end	stock reports success and kills the tasks
 *
 * From before it is connected it has SO_LINGER 0, so that the death of all who hold it is a reset.
 * held_finish() takes that away: this one system call is the instant from which on the source is
 * given up, whoever dies then. held_reset() ends it for every process that has the descriptor.
 *
 * The descriptor is shared by holder and servers; everything else here belongs to one server.
 */
#ifndef HELD_H
#define HELD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "net.h"
#include "wire.h"

struct held {
	int fd;
	enum wire_layout layout;
	bool *busy;	      /* in memory that outlives us: an answer is under way */
	bool stuck;	      /* where the next answer begins is not known any more: no GETs */
	pthread_mutex_t lock; /* of one GET, and the end */
};

/* A connected descriptor that resets when closed, or -errno. Waits. */
int held_connect(const struct net_address *a, struct error *e);
/* @busy must be what the server before us had, if there was one. */
void held_init(struct held *h, int fd, enum wire_layout layout, bool *busy);

/* Whether both sides have it open. */
bool held_stands(const struct held *h);
/* Pages by way of the dump. They must be LAZY and not PRESENT in its page maps. Waits. */
int held_get(struct held *h, uint64_t pid, uint64_t vaddr, void *to, uint64_t npages,
	     struct error *e);
/*
 * Gives the source up: plain end from now on, CLOSE, and waits for the answer. 0 when the dump has
 * said 0; -EIO when it has gone without a word. @again: somebody has begun this before us.
 */
int held_finish(struct held *h, bool again, struct error *e);
/* Resets; the dump lets its tasks run. */
int held_reset(struct held *h, struct error *e);

#endif
