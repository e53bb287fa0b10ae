/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serve: pages out of a provider for any number of clients. A few threads (o->threads), each with
 * an epoll of its own and its share of the connections; none of them ever waits for one client.
 */
#ifndef SERVE_H
#define SERVE_H

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

/* What somebody else wants to know and decide. Each may be NULL. Called by one thread at a time. */
struct serve_hooks {
	void *context;
	/*
	 * The client @peer has sent CLOSE: it holds every page. SERVE_ON or SERVE_END: it gets
	 * status 0, and with SERVE_END serving ends once it has; negative: it gets that number
	 * instead, @e is logged, and its connection is closed.
	 */
	int (*confirmed)(void *context, const char *peer, struct error *e);
	/* @fd (or -1: none) can be read. */
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
