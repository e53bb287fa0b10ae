/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serve: pages out of a provider for any number of clients. A few threads (o->threads), each with
 * an epoll of its own and its share of the connections; none of them ever waits for one client.
 */
#ifndef SERVE_H
#define SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "log.h"
#include "options.h"
#include "provider.h"

struct tls;

enum serve_verdict {
	SERVE_ON = 0,
	SERVE_END = 1,	  /* stop serving; serve_run() returns 0 */
	SERVE_REFUSE = 2, /* from readable(): drop all clients, and those who come from now on */
};

/* What somebody else wants to know and decide. Each may be NULL. */
struct serve_hooks {
	void *context;
	/* A client is about to be served; it is what this returns to those below. Any thread. */
	void *(*joined)(void *context);
	/* Pages that the provider has read for it go out. Any thread, one at a time a client. */
	void (*given)(void *context, void *client, uint64_t pid, uint64_t vaddr, uint64_t npages);
	/* It is no more. Any thread. */
	void (*left)(void *context, void *client);
	/*
	 * The client, @peer, has sent CLOSE: it holds every page. @sure: it is one that says so
	 * only when it is true (WIRE_HELD); stock says it also after a failure. SERVE_ON or
	 * SERVE_END: it gets status 0, and with SERVE_END serving ends once it has; negative: it
	 * gets that number instead, @e is logged, and its connection is closed.
	 */
	int (*confirmed)(void *context, void *client, const char *peer, bool sure, struct error *e);
	/* @fd (or -1: none) can be read. Never while confirmed() is under way, and the reverse. */
	enum serve_verdict (*readable)(void *context);
	int fd;
};

/*
 * Serves who connects to @listen_fd (or, with o->ps_socket, who is at its other end) until SIGTERM
 * or SIGINT, which the caller has blocked, or with o->once until a client has confirmed. @hooks
 * NULL: none; @tls NULL: plain text. The exit status; 0 also after a signal. What failed is in
 * @log. Owns none of what it is given.
 */
int serve_run(const struct options *o, const struct log *log, struct provider *p, int listen_fd,
	      struct tls *tls, const struct serve_hooks *hooks);

#endif
