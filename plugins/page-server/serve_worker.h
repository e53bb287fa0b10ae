/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Worker: a thread of the page server and the connections that it was given, which it keeps to
 * their ends. An epoll, edge-triggered, so that a connection costs no system call but those that
 * move its bytes.
 *
 * Who asks for little comes before who is sent much: between two pieces of long replies every
 * connection that has something to read has its turn. Long replies take turns, one piece each.
 */
#ifndef SERVE_WORKER_H
#define SERVE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "client.h"
#include "error.h"

struct serve_worker;

struct serve_count {
	uint64_t clients;   /* connections that were given to it */
	uint64_t confirmed; /* of them: have said CLOSE and were given status 0 */
	uint64_t replies, pages;
};

/*
 * Starts a thread. Whenever one of its clients ends, it writes to @event_fd, of which it needs
 * nothing else. The calling thread's signals are blocked in it, too.
 */
int serve_worker_new(struct serve_worker **out, const struct client_shared *shared, int event_fd,
		     struct error *e);
/* Ends the thread and closes its connections. Adds what it has done to @count. NULL is fine. */
void serve_worker_free(struct serve_worker *w, struct serve_count *count);

/* Owns @s, also on failure. Any thread. */
int serve_worker_add(struct serve_worker *w, struct stream *s, const char *peer, struct error *e);
/* Closes all connections, soon. Any thread. */
void serve_worker_drop_all(struct serve_worker *w);

/* Connections that it has now. Any thread. */
unsigned serve_worker_load(const struct serve_worker *w);
/* The highest verdict (serve.h) of clients that have been told it and have gone; or -1. */
int serve_worker_verdict(const struct serve_worker *w);

#endif
