// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connections that never block: see stream.h. What is special to TLS is in tls_session.c; here is
 * the socket under it. The process must ignore SIGPIPE: sendfile(2) has no flag against it.
 */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "compiler.h"
#include "tls_session.h"

struct stream {
	int fd;
	bool tcp;
	bool connected;
	uint32_t events;
	struct tls_session *tls; /* NULL: plain */
};

/*
 * Keepalive with the times that the machine is set to: a link that was idle through an outage is to
 * be as good as before, and whoever wants to know sooner sets shorter times.
 */
static void prepare_socket(struct stream *s)
{
	int domain = 0, one = 1;
	socklen_t len = sizeof(domain);
	int flags = fcntl(s->fd, F_GETFL);

	fcntl(s->fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(s->fd, F_SETFD, FD_CLOEXEC);
	if (getsockopt(s->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len))
		return; /* no socket: the handshake says so */
	s->tcp = domain == AF_INET || domain == AF_INET6;
	if (!s->tcp)
		return;
	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

struct stream *stream_new(int fd, struct tls *tls, bool server, const char *host)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s) {
		close(fd);
		return NULL;
	}
	s->fd = fd;
	s->events = EPOLLOUT;
	if (tls) {
		s->tls = tls_session_new(fd, tls, server, host);
		if (!s->tls) {
			stream_free(s);
			return NULL;
		}
	}
	prepare_socket(s);
	return s;
}

void stream_free(struct stream *s)
{
	if (s)
		close(stream_detach(s));
}

int stream_detach(struct stream *s)
{
	int fd = s->fd;

	tls_session_free(s->tls);
	free(s);
	return fd;
}

int stream_fd(const struct stream *s)
{
	return s->fd;
}

static int connect_on(struct stream *s, struct error *e)
{
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int code = 0;

	if (getpeername(s->fd, (struct sockaddr *)&peer, &len) == 0) {
		s->connected = true;
		return 0;
	}
	if (errno != ENOTCONN)
		return error_errno(e, -errno, "connection");
	len = sizeof(code);
	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &code, &len))
		code = errno;
	if (!code && poll(&p, 1, 0) > 0)
		code = ENOTCONN; /* on its way to nowhere */
	if (code)
		return error_errno(e, -code, "connect");
	s->events = EPOLLOUT;
	return -EAGAIN;
}

int stream_handshake(struct stream *s, struct error *e)
{
	int ret;

	if (!s->connected) {
		ret = connect_on(s, e);
		if (ret)
			return ret;
	}
	return s->tls ? tls_session_handshake(s->tls, &s->events, e) : 0;
}

ssize_t stream_read(struct stream *s, void *to, size_t len)
{
	ssize_t n;

	if (s->tls)
		return tls_session_read(s->tls, to, len, &s->events);
	do
		n = recv(s->fd, to, len, 0);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN)
		s->events = EPOLLIN;
	return -errno;
}

ssize_t stream_write(struct stream *s, const void *from, size_t len, bool more)
{
	ssize_t n;

	if (s->tls)
		return tls_session_write(s->tls, from, len, more, &s->events);
	do
		n = send(s->fd, from, len, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN)
		s->events = EPOLLOUT;
	return -errno;
}

/* A piece a call: were a second one cut short, its bytes would have to be kept for the next call.
 */
static ssize_t send_copied(struct stream *s, int fd, uint64_t offset, size_t len)
{
	char piece[TLS_RECORD_MAX];
	ssize_t n;

	do
		n = pread(fd, piece, MIN(len, sizeof(piece)), (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ENODATA;
	return stream_write(s, piece, (size_t)n, (size_t)n < len);
}

ssize_t stream_send_file(struct stream *s, int fd, uint64_t offset, size_t len)
{
	off_t from = (off_t)offset;
	ssize_t n;

	if (s->tls)
		return send_copied(s, fd, offset, len);
	do
		n = sendfile(s->fd, fd, &from, len);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n == 0)
		return -ENODATA;
	if (errno == EINVAL || errno == EOVERFLOW) /* of /proc, and other files that are none */
		return send_copied(s, fd, offset, len);
	if (errno == EAGAIN)
		s->events = EPOLLOUT;
	return -errno;
}

bool stream_pending(const struct stream *s)
{
	return s->tls && tls_session_pending(s->tls);
}

bool stream_has_records(const struct stream *s)
{
	return s->tls != NULL;
}

uint32_t stream_events(const struct stream *s)
{
	return s->events;
}

int stream_bye(struct stream *s)
{
	int ret = s->tls ? tls_session_bye(s->tls, &s->events) : 0;

	if (ret)
		return ret;
	return shutdown(s->fd, SHUT_WR) ? -errno : 0;
}

int stream_reset_on_close(struct stream *s, bool on)
{
	struct linger l = {.l_onoff = on, .l_linger = 0};

	if (!s->tcp)
		return -EOPNOTSUPP;
	return setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)) ? -errno : 0;
}
