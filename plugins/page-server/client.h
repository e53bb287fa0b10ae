/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client: one connection to the page server that serves, as a state machine that never waits:
 *
 *	HANDSHAKE -> HEADER <-> REPLY
 *	               `-> CLOSE: STATUS -> LEAVING -> gone
 *
 * Whatever a client says is checked before it is believed; what is wrong ends its connection, with
 * one line in the log, and nobody else's. Its memory is bounded: a few headers, and while a reply
 * is on its way at most one buffer. One thread at a time; see serve.c for who.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"
#include "provider.h"
#include "serve.h"
#include "stream.h"
#include "wire.h"

#define CLIENT_NAME_MAX 96

struct client;

/* What all clients have in common. Immutable, but for what close() does. */
struct client_shared {
	struct provider *provider;
	const struct log *log;
	enum wire_layout layout; /* forced, or WIRE_UNKNOWN */
	/* The hook confirmed() of serve.h, for any thread to call. */
	int (*close)(void *context, void *client, const char *peer, bool sure, struct error *e);
	void *context;
	const struct serve_hooks *hooks; /* joined(), given(), left(); or NULL */
};

enum client_turn {
	CLIENT_WAITS,	/* for its socket */
	CLIENT_GOES_ON, /* has had its turn and wants another */
	CLIENT_ENDED,	/* to be freed */
};

struct client_count {
	uint64_t replies, pages; /* whole replies, and pages in them */
};

/* Owns @s, also on failure. NULL without memory. Says in the log that @peer is there. */
struct client *client_new(const struct client_shared *shared, struct stream *s, const char *peer,
			  uint64_t now_ns);
/* NULL is fine. */
void client_free(struct client *c);

/* One turn, of at most about @budget bytes. */
enum client_turn client_run(struct client *c, size_t budget, uint64_t now_ns);

/* When it must have gone on from where it is, or is closed by client_expire(); 0: it has time. */
uint64_t client_deadline(const struct client *c);
/* Says in the log that the deadline is over. */
void client_expire(const struct client *c);

/* Whether a long reply is on its way, so that others should come first. */
bool client_is_bulk(const struct client *c);
/* It has sent CLOSE and has been given status 0: the hook's verdict. Else negative. */
int client_verdict(const struct client *c);
struct client_count client_count(const struct client *c);

/* Who is at the other end of a connected socket: "192.0.2.1:4711", "pid 12 (unix)". */
const char *peer_name(int fd, char name[CLIENT_NAME_MAX]);

#endif
