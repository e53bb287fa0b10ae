/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses as CRIU's options name them: --address HOST --port PORT, or a path (anything with a
 * slash) in --address for a unix socket. Any thread.
 */
#ifndef CRIU_NET_H
#define CRIU_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "error.h"

struct net_address {
	struct sockaddr_storage sa;
	socklen_t len;
	char text[160]; /* "192.0.2.1:27", "/run/ps.sock": for messages */
};

/* Resolves @host (NULL: any IPv4 address) and @port; of a name with both, the IPv4 address.
 * -EADDRNOTAVAIL with the resolver's words, or -ENAMETOOLONG. May block. */
int net_resolve(struct net_address *a, const char *host, uint16_t port, struct error *e);
/* "HOST:PORT", "[v6]:PORT" or a path, of --attach. */
int net_parse(struct net_address *a, const char *text, struct error *e);

/* A socket on its way to @a (connecting, not blocking): descriptor or -errno. -EAGAIN: the unix
 * socket's queue is full, later there may be room. */
int net_connect(const struct net_address *a, struct error *e);
/* A listening socket, not blocking. @a gets the real port when it was 0. A unix socket's file that
 * nobody listens on any more is replaced, and is the caller's to unlink in the end. */
int net_listen(struct net_address *a, struct error *e);
/* Whether only this machine can reach it. */
bool net_is_local(const struct net_address *a);

#endif
