/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inner side of source_remote.h: what owner threads (source_remote.c) and the thread of the
 * links (remote_links.c) share. A request is queued by an owner, moved to a link's ring, and gone
 * when its answer has come; until then its pages are "asked" in the store. A request whose answer
 * was short or lost goes back into the queue: what has been asked is never forgotten.
 */
#ifndef REMOTE_H
#define REMOTE_H

#include <pthread.h>
#include <stdatomic.h>

#include "link.h"
#include "source_remote.h"
#include "store.h"

#define REMOTE_QUEUE  4096 /* requests of each kind: more than two rings hold */
#define REMOTE_ASKERS 64
#define REMOTE_CHUNKS 256 /* 64 MiB of pages between arrival and placing */

struct remote_queue {
	struct link_request v[REMOTE_QUEUE];
	unsigned head, n;
};

enum remote_end { END_NOT_ASKED, END_ASKED, END_TOLD };

struct remote {
	struct source source;
	const struct checkpoint *c;
	const struct log *log;
	struct journal *j;
	struct remote_start *start;
	pthread_t thread;
	int event_fd; /* something was queued, a connection was made, stop */
	atomic_bool stop;

	pthread_mutex_t lock; /* protects what follows; never held across a wait */
	struct store *store;
	struct remote_queue urgent, bulk;
	uint64_t bulk_pages;	  /* queued or on the way */
	uint64_t bulk_limit;	  /* of them; 0 while there is no link */
	int asker[REMOTE_ASKERS]; /* event descriptors */
	unsigned naskers;
	uint64_t room_waiters; /* askers that were told to wait for room */
	struct remote_pin {
		const void *scratch;
		struct chunk *chunk;
	} pin[REMOTE_ASKERS + 1];
	enum remote_end end;
	int end_fd; /* written when it is told */
	struct source_state state;
};

/* Appends; false when it is full. Caller holds the lock. */
bool remote_push(struct remote_queue *q, const struct link_request *r);
bool remote_pop(struct remote_queue *q, struct link_request *r);
/* Writes to the event descriptors of @askers (bits). Any thread. */
void remote_tell(struct remote *r, uint64_t askers);
void remote_tell_fd(int event_fd);
/* Makes the thread of the links look. */
void remote_kick(struct remote *r);

void *remote_links_thread(void *remote);

#endif
