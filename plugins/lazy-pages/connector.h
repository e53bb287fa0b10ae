/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connector: a thread that makes connections to the page server, however long that takes. Between
 * two attempts it pauses, longer each time up to half a second, a little at random; when the kernel
 * says that a network link, address or route has come, it tries at once.
 */
#ifndef CONNECTOR_H
#define CONNECTOR_H

#include <stdbool.h>

#include "error.h"
#include "log.h"
#include "net.h"

struct connector;
struct stream;
struct tls;

/* Who is to be reached, and as whom. */
struct peer {
	struct net_address address;
	bool known;	  /* false: only a descriptor was given, it cannot be reached again */
	struct tls *tls;  /* NULL: plain text */
	const char *host; /* that its certificate must be for, or NULL */
};

/* One attempt, by the calling thread, of at most @timeout_ms. The stream, or NULL and @e. */
struct stream *peer_connect(const struct peer *p, int timeout_ms, struct error *e);

/* 1 is written to @event_fd when there is something to take. NULL without memory or thread. */
struct connector *connector_new(const struct peer *p, int event_fd);
void connector_free(struct connector *c);

/* Asks for one connection: one attempt, or (@until) attempts until there is one. */
void connector_want(struct connector *c, bool until);
/* Whether it is at work, or has something to take. */
bool connector_busy(struct connector *c);
/* A connection, or NULL; then *failed tells that the one attempt failed. @e: the last failure. */
struct stream *connector_take(struct connector *c, bool *failed, struct error *e);

#endif
