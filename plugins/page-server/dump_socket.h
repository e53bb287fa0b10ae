/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which process has a TCP socket, by the tables of /proc. Set-up thread. */
#ifndef DUMP_SOCKET_H
#define DUMP_SOCKET_H

#include <sys/types.h>

#include "error.h"
#include "net.h"

/*
 * The process that listens on @a. -ENOENT: nobody on this machine does; -EBUSY: somebody did, and
 * has taken a connection since, as a dump that is served already.
 */
int socket_listener(const struct net_address *a, pid_t *pid, struct error *e);

#endif
