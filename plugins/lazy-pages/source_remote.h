/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page server as a source. Owner threads find what has arrived in the store and ask for more;
 * one thread here sends requests and takes answers, on one link to a stock server, on two to ours:
 * then faults have a link of their own. A lost link is an ordinary state: see source_remote.c.
 */
#ifndef SOURCE_REMOTE_H
#define SOURCE_REMOTE_H

#include "connector.h"
#include "journal.h"
#include "log.h"
#include "options.h"
#include "source.h"

/* The first connection, made before there is a worker. */
struct remote_start {
	struct peer peer;
	struct stream *stream; /* for the first worker alone; NULL afterwards */
};

/*
 * Connects as the options say and notes the connection in the journal. In the keeper, before a
 * restore can begin. 0, or why the server cannot be reached.
 */
int remote_connect(struct remote_start *start, const struct options *o, const struct checkpoint *c,
		   struct journal *j, struct error *e);
/* Forgets it all; a connection that is still open is reset: the source goes on. */
void remote_disconnect(struct remote_start *start);

/* For the worker. All arguments must outlive the source. NULL without memory or thread. */
struct source *source_remote_new(struct remote_start *start, const struct checkpoint *c,
				 struct journal *j, const struct log *log);

#endif
