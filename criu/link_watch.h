/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Link watch: a descriptor that becomes readable when the kernel says that a network link, address
 * or route has come (libnl-route, rtnetlink multicast groups). Used to try a lost connection again
 * at once instead of when its pause is over. One thread at a time.
 */
#ifndef CRIU_LINK_WATCH_H
#define CRIU_LINK_WATCH_H

#include <stdbool.h>

#include "error.h"

struct link_watch;

/* NULL when the kernel does not tell (no rtnetlink): then only time helps. */
struct link_watch *link_watch_open(struct error *e);
void link_watch_close(struct link_watch *w);
int link_watch_fd(const struct link_watch *w);
/* Takes what has come. True when something has come up, added or changed for the better. */
bool link_watch_read(struct link_watch *w);

#endif
