/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going to the background and saying that we are ready, as callers of stock CRIU expect it:
 *
 *	standard_fds_fill()	first thing: 0, 1 and 2 are open whatever the caller closed
 *	daemon_start()		--daemon: only the child returns, the parent waits for one of
 *	daemon_ready()		the socket listens: pidfile, --status-fd, the parent exits with 0
 *	daemon_failed()		it will not: the parent prints why and exits with 1
 *
 * A child that dies without a word makes the parent fail, too. One thread, before there are others.
 */
#ifndef CRIU_DAEMON_H
#define CRIU_DAEMON_H

#include "error.h"
#include "options.h"

/* Opens /dev/null on those of 0, 1 and 2 that are closed, so that nothing else can land there. */
void standard_fds_fill(void);

/* Closes @fd. A standard descriptor gets /dev/null instead: no socket shall be where messages go.
 */
void close_for_good(int fd);

/*
 * With --daemon forks and returns in the child: a new session, standard descriptors on /dev/null,
 * the directory as it was, o->report_fd open. The parent does not return. Without --daemon nothing.
 * The caller's log must not be on one of the standard descriptors: see daemon_keep_log().
 */
int daemon_start(struct options *o, struct error *e);

/* Moves a log on a standard descriptor of a --daemon to a descriptor that stays, as stock does. */
int daemon_keep_log(const struct options *o, int *log_fd, struct error *e);

/*
 * To be called once, when the socket listens: writes the pidfile (--daemon only; it must not
 * exist), one NUL byte to --status-fd, and lets the parent go. Closes status_fd and report_fd. On
 * failure the caller gives up, with daemon_failed().
 */
int daemon_ready(const struct options *o, struct error *e);

/* Instead of daemon_ready(): hands the reason to the waiting parent, if there is one. */
void daemon_failed(const struct options *o, const struct error *why);

#endif
