/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Receive: the images of one criu dump --page-server, written into the images directory
 * (o->images_fd). One connection, one thread.
 */
#ifndef RECEIVE_H
#define RECEIVE_H

#include "error.h"
#include "log.h"
#include "options.h"
#include "stream.h"

/*
 * Takes from @s, which is connected, does not block, and has its TLS handshake before it; polls
 * itself. SIGTERM and SIGINT have their default effect. Does not free @s. Returns the exit status;
 * when it is not 0, @e says why, and the caller logs that.
 */
int receive_run(const struct options *o, const struct log *log, struct stream *s, struct error *e);

#endif
