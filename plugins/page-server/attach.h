/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attach: stands in front of a `criu dump --lazy-pages` on this machine. Holds the one connection
 * that the dump takes, serves the frozen tasks' memory to any number of clients, and lets the dump
 * end only when one of them holds everything, or calls it off. See attach.c for the states.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include "error.h"
#include "log.h"
#include "options.h"

struct tls;

#define ATTACH_CALLED_OFF 3 /* exit status: the source goes on, as somebody wished */

/*
 * Finds the dump at o->attach and its tasks, connects, says that it is ready (daemon.h), and serves
 * who connects to @listen_fd, which is at @where, until one of the ends that attach.c tells of.
 * SIGTERM and SIGINT are blocked; one thread. The exit status; negative, with @e, when it could not
 * begin: then the source is as it was, or has been let go on.
 */
int attach_run(const struct options *o, const struct log *log, int listen_fd, const char *where,
	       struct tls *tls, struct error *e);

#endif
