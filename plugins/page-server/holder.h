/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holder: a process that has every descriptor of its server and does nothing but wait and, when the
 * server has died, start the next one. The server may die and the holder goes on; the holder may
 * die and the server goes on, without a second life. What has to be known over a death is the
 * caller's, in shared memory. One thread; before it is called there are no others.
 */
#ifndef HOLDER_H
#define HOLDER_H

#include <stdbool.h>

#include "log.h"

/* In shared memory; starts with zeros. */
struct holder_state {
	bool over; /* the server has come to its end and needs no successor */
	int exit_status;
};

/* Runs in each new server. What it returns is the exit status, and the end of everything. */
typedef int holder_fn(void *arg);

/*
 * Returns the exit status when it is over. SIGTERM and SIGINT, which the caller has blocked, are
 * passed on to the server.
 */
int holder_run(struct holder_state *state, const struct log *log, holder_fn *fn, void *arg);

#endif
