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
	/* The thread is about to wait, or waits: whoever gives it something to do kicks it. It sets
	 * this first and looks then, so nothing is missed. */
	atomic_bool asleep;

	pthread_mutex_t lock; /* protects what follows; never held across a wait */
	struct store *store;
	struct remote_queue urgent, bulk;
	uint64_t bulk_pages;	  /* queued or on the way */
	uint64_t bulk_limit;	  /* of them; 0 while there is no link */
	uint64_t busy_limit;	  /* the same for a while after a fault */
	uint64_t urgent_ns;	  /* when a page was asked for that somebody waits for */
	int asker[REMOTE_ASKERS]; /* event descriptors */
	unsigned naskers;
	uint64_t room_waiters; /* askers that were told to wait for room */
	struct remote_pin {
		const void *scratch;
		struct chunk *chunk;
	} pin[REMOTE_ASKERS + 1];
	enum remote_end end;
	int end_fd; /* written when it is told */
	bool end_held;
	struct source_state state;

	/* remote_fast.c. The lock protects the link itself, too; it is taken before the other. */
	pthread_mutex_t fast_lock;
	struct link *fast; /* for faults alone; NULL: there is none */
	bool fast_failed;
	struct error fast_error;
	struct remote_watch {
		int event_fd, epoll_fd;
		void *tag;
		bool watching; /* the link of now */
	} watch[REMOTE_ASKERS];
	unsigned nwatch;
};

/* Appends; false when it is full. Caller holds the lock. */
bool remote_push(struct remote_queue *q, const struct link_request *r);
bool remote_pop(struct remote_queue *q, struct link_request *r);
/* Pages of background that may be queued or on the way. Caller holds the lock. */
uint64_t remote_bulk_limit(const struct remote *r, uint64_t now_ns);
/* Writes to the event descriptors of @askers (bits). Any thread. */
void remote_tell(struct remote *r, uint64_t askers);
/* Makes the thread of the links look, after what it is to see is there. */
void remote_kick(struct remote *r);

extern const struct link_user remote_arrivals; /* its ctx is the struct remote */

/*
 * The fast link: owners send requests of faults themselves and take the answers, so that no other
 * thread has to be woken in between. Publish and withdraw: the thread of the links.
 */
void remote_fast_publish(struct remote *r, struct link *l);
void remote_fast_withdraw(struct remote *r);
bool remote_fast_failed(struct remote *r, struct error *e);
bool remote_fast_watched(struct remote *r); /* somebody takes its answers */
uint64_t remote_fast_waits_since(struct remote *r, uint64_t *rtt_ns);
/* Sends what is queued for faults, for the owner of @event_fd. False: there is no fast link. */
bool remote_fast_send(struct remote *r, int event_fd);
/* source_ops */
void remote_fast_watch(struct source *s, int event_fd, int epoll_fd, void *tag);
void remote_fast_pump(struct source *s);

void *remote_links_thread(void *remote);

#endif
