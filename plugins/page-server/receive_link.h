/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connection that a dump comes in on: headers, bytes and answers out of a stream, which waits
 * where the stream would not, for a bounded time. The layout of headers is settled by the first one
 * (or by --ps-layout). A fixed buffer. One thread.
 */
#ifndef RECEIVE_LINK_H
#define RECEIVE_LINK_H

#include "error.h"
#include "receive.h"
#include "stream.h"
#include "wire.h"

struct receive_link;

/* @s is not owned. The TLS handshake, if any, is done before this returns. */
int receive_link_open(struct receive_link **out, struct stream *s, enum wire_layout layout,
		      const struct receive_limits *limits, struct error *e);
void receive_link_close(struct receive_link *l);

enum wire_layout receive_link_layout(const struct receive_link *l);

/* 1, or 0 when the peer has ended the connection where a header might begin. */
int receive_link_header(struct receive_link *l, struct wire_header *h, struct error *e);
/*
 * The next @max bytes, or as many of them as the buffer can hold: how many, or an error. Valid
 * until the next call.
 */
ssize_t receive_link_bytes(struct receive_link *l, const void **bytes, uint64_t max,
			   struct error *e);
int receive_link_answer(struct receive_link *l, const void *bytes, size_t len, struct error *e);

/* Waits until the peer ends the connection, but not for long, and says goodbye. */
void receive_link_bye(struct receive_link *l);

#endif
