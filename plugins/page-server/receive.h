/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Receive: the images of one criu dump --page-server, written into the images directory
 * (o->images_fd). One connection, one thread.
 *
 * The dump is complete when its CLOSE has come and every file is on the disk under its real name;
 * then CLOSE is answered, and only then does the dump let its tasks go. However it ends otherwise,
 * nothing is answered, the dump fails and its tasks go on; what has come keeps a name that nobody
 * restores, until the next dump into the directory removes it.
 */
#ifndef RECEIVE_H
#define RECEIVE_H

#include "error.h"
#include "log.h"
#include "options.h"
#include "stream.h"

/* How long a sender may say nothing: milliseconds. */
struct receive_limits {
	int within;  /* in the middle of a header or of pages */
	int between; /* before the next header: a dump has other things to do, too */
};

/*
 * Takes from @s, which is connected, does not block, and has its TLS handshake before it; polls
 * itself. SIGTERM and SIGINT have their default effect. Does not free @s. Returns the exit status;
 * when it is not 0, @e says why, and the caller logs that.
 */
int receive_run(const struct options *o, const struct log *log, struct stream *s, struct error *e);
/* The same with other limits. */
int receive_run_limited(const struct options *o, const struct log *log, struct stream *s,
			const struct receive_limits *limits, struct error *e);

#endif
