/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stream: one connection, TCP or unix, plain or TLS, that never blocks: what cannot be done now is
 * -EAGAIN, and stream_events() says what to wait for. One thread at a time uses a stream. The
 * process ignores SIGPIPE.
 */
#ifndef CRIU_STREAM_H
#define CRIU_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct stream;
struct tls; /* credentials: tls.h */

/*
 * Wraps @fd, a connected (or still connecting) socket, which the stream owns from then on (also
 * when NULL is returned); sets O_NONBLOCK, CLOEXEC and for TCP NODELAY and keepalive. @tls NULL:
 * plain; it must outlive the stream. @server: which side of the TLS handshake. @host: what the
 * server's certificate must be for (client; NULL, or --tls-no-cn-verify: not compared). NULL
 * without memory.
 */
struct stream *stream_new(int fd, struct tls *tls, bool server, const char *host);
/* Closes the descriptor at once. NULL is fine. */
void stream_free(struct stream *s);
/* Gives the descriptor back and forgets the rest. */
int stream_detach(struct stream *s);
int stream_fd(const struct stream *s);

/* Goes on with connecting and the TLS handshake. 0: done; -EAGAIN; or why it failed. */
int stream_handshake(struct stream *s, struct error *e);

/*
 * Bytes read (> 0), 0 at the peer's end, -EAGAIN, or -errno. With TLS: -ECONNRESET when the
 * connection ended without goodbye, -EACCES when the peer refuses our certificate (which a client
 * may learn only here), -EPROTO for what is no TLS.
 */
ssize_t stream_read(struct stream *s, void *to, size_t len);
/* Bytes taken (> 0, perhaps fewer), -EAGAIN, or -errno. After -EAGAIN: the same bytes again.
 * @more: others follow at once, so wait for them to fill a packet. */
ssize_t stream_write(struct stream *s, const void *from, size_t len, bool more);
/* The same from a file, without a copy where the connection allows it. -ENODATA: the file ends. */
ssize_t stream_send_file(struct stream *s, int fd, uint64_t offset, size_t len);
/* Whether bytes lie in the stream itself (TLS), so that waiting for the descriptor is wrong. */
bool stream_pending(const struct stream *s);
/*
 * Whether what one stream_write() takes arrives as a piece (TLS). Stock CRIU waits for the socket
 * when it has read a header, although the piece may have held what follows: a header must be one.
 */
bool stream_has_records(const struct stream *s);
/* EPOLLIN or EPOLLOUT: what the last -EAGAIN waits for. */
uint32_t stream_events(const struct stream *s);

/* Says goodbye (TLS) and shuts the sending side down. 0, -EAGAIN, or -errno. */
int stream_bye(struct stream *s);
/* From now on a close, also by the death of the process, is a reset and not an orderly end.
 * -EOPNOTSUPP unless it is TCP. */
int stream_reset_on_close(struct stream *s, bool on);

#endif
