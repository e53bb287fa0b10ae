// SPDX-License-Identifier: GPL-2.0-or-later
/* Headers and bytes of a dump that comes in: see receive_link.h. */
#include "receive_link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "clock.h"
#include "compiler.h"

/*
 * What CRIU sends at once, 256 pages, and the header behind it: with one write for all of it, which
 * begins and ends with a page, the kernel has the least to do.
 */
#define CHUNK_BYTES  ((size_t)256 << PAGE_SHIFT)
#define BUFFER_BYTES (CHUNK_BYTES + PAGE_SIZE)
#define BYE_MS	     5000

struct receive_link {
	struct stream *s;
	enum wire_layout layout;
	struct receive_limits limits;
	size_t pos, end; /* buf[pos..end) has come and is not used yet */
	uint8_t buf[BUFFER_BYTES];
};

/* Waits until the stream can go on. */
static int link_wait(struct receive_link *l, int limit_ms, struct error *e)
{
	uint64_t until = now_ns() + (uint64_t)limit_ms * 1000000;

	for (;;) {
		struct pollfd p = {
			.fd = stream_fd(l->s),
			.events = stream_events(l->s) & EPOLLOUT ? POLLOUT : POLLIN,
		};
		uint64_t now = now_ns();
		int ret = poll(&p, 1, now < until ? (int)((until - now + 999999) / 1000000) : 0);

		if (ret > 0)
			return 0;
		if (ret < 0 && errno != EINTR)
			return error_errno(e, -errno, "poll");
		if (!ret)
			return error_set(e, -ETIMEDOUT, "the sender has said nothing for %d s",
					 limit_ms / 1000);
	}
}

int receive_link_open(struct receive_link **out, struct stream *s, enum wire_layout layout,
		      const struct receive_limits *limits, struct error *e)
{
	struct receive_link *l = malloc(sizeof(*l));
	int ret;

	if (!l)
		return error_errno(e, -ENOMEM, "connection");
	l->s = s;
	l->layout = layout;
	l->limits = *limits;
	l->pos = l->end = 0;
	while ((ret = stream_handshake(s, e)) == -EAGAIN &&
	       !(ret = link_wait(l, limits->within, e)))
		;
	if (ret) {
		free(l);
		return ret;
	}
	*out = l;
	return 0;
}

void receive_link_close(struct receive_link *l)
{
	free(l);
}

enum wire_layout receive_link_layout(const struct receive_link *l)
{
	return l->layout;
}

/*
 * Reads at most @max bytes of what there is behind what the buffer holds, waiting for the first of
 * it. 0: the end.
 */
static ssize_t link_read(struct receive_link *l, size_t max, int limit_ms, struct error *e)
{
	size_t before = l->end, end = MIN(BUFFER_BYTES, l->end + max);
	ssize_t n;

	while ((n = stream_read(l->s, l->buf + l->end, end - l->end)) == -EAGAIN) {
		int ret = link_wait(l, limit_ms, e);

		if (ret)
			return ret;
	}
	if (n < 0)
		return error_errno(e, (int)n, "connection");
	l->end += (size_t)n;
	/* TLS gives a record at a time, however much has come. */
	while (n > 0 && l->end < end && stream_pending(l->s)) {
		n = stream_read(l->s, l->buf + l->end, end - l->end);
		if (n > 0)
			l->end += (size_t)n;
	}
	return (ssize_t)(l->end - before);
}

static size_t header_wants(const struct receive_link *l)
{
	return l->layout ? (size_t)l->layout : WIRE_24;
}

/* A CLOSE that comes first is the same in both layouts as far as the short one goes. */
static bool is_lone_close(const void *first)
{
	struct wire_header h;

	wire_decode(WIRE_24, first, &h);
	return h.command == WIRE_CLOSE || h.command == WIRE_FORCE_CLOSE;
}

int receive_link_header(struct receive_link *l, struct wire_header *h, struct error *e)
{
	enum wire_layout guess = l->layout;

	if (l->pos == l->end)
		l->pos = l->end = 0;
	if (BUFFER_BYTES - l->pos < WIRE_HEADER_MAX) {
		memmove(l->buf, l->buf + l->pos, l->end - l->pos);
		l->end -= l->pos;
		l->pos = 0;
	}
	while (l->end - l->pos < header_wants(l)) {
		bool between = l->pos == l->end;
		ssize_t n = link_read(l, BUFFER_BYTES,
				      between ? l->limits.between : l->limits.within, e);

		if (n < 0)
			return (int)n;
		if (!n && between)
			return 0;
		if (!n)
			return error_set(e, -EPIPE, "the connection ended within a header");
		if (!l->layout && l->end - l->pos >= WIRE_24) {
			guess = wire_guess(l->buf + l->pos, l->end - l->pos);
			if (is_lone_close(l->buf + l->pos))
				guess = WIRE_24;
			l->layout = guess;
		}
	}
	wire_decode(l->layout, l->buf + l->pos, h);
	l->pos += l->layout;
	return 1;
}

/* Of large pieces, nothing but the header behind them, so that the next one is whole, too. */
static size_t read_ahead(const struct receive_link *l, uint64_t max)
{
	if (max < CHUNK_BYTES / 4)
		return BUFFER_BYTES;
	return (size_t)MIN(max - (l->end - l->pos) + WIRE_HEADER_MAX, BUFFER_BYTES);
}

ssize_t receive_link_bytes(struct receive_link *l, const void **bytes, uint64_t max,
			   struct error *e)
{
	size_t n;

	if (l->pos == l->end)
		l->pos = l->end = 0;
	while (l->end < BUFFER_BYTES && l->end - l->pos < max) {
		ssize_t got = link_read(l, read_ahead(l, max), l->limits.within, e);

		if (got < 0)
			return got;
		if (!got)
			return error_set(e, -EPIPE,
					 "the connection ended before all bytes had come");
	}
	n = MIN(l->end - l->pos, max);
	*bytes = l->buf + l->pos;
	l->pos += n;
	return (ssize_t)n;
}

int receive_link_answer(struct receive_link *l, const void *bytes, size_t len, struct error *e)
{
	while (len) {
		ssize_t n = stream_write(l->s, bytes, len, false);

		if (n == -EAGAIN) {
			int ret = link_wait(l, l->limits.within, e);

			if (ret)
				return ret;
			continue;
		}
		if (n < 0)
			return error_errno(e, (int)n, "connection");
		bytes = (const char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}

void receive_link_bye(struct receive_link *l)
{
	uint64_t until = now_ns() + (uint64_t)BYE_MS * 1000000;
	ssize_t n;

	do {
		l->end = 0;
		n = link_read(l, BUFFER_BYTES, BYE_MS, NULL);
	} while (n > 0 && now_ns() < until);
	stream_bye(l->s);
}
