/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two streams that are connected to each other, and to wait on them. */
#ifndef STREAM_PAIR_H
#define STREAM_PAIR_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "net.h"
#include "stream.h"

#define WAIT_MS 10000

struct pair {
	struct stream *client, *server;
};

static inline int tcp_listen(struct net_address *a)
{
	struct error e = {0};
	int fd = -1;

	if (net_resolve(a, "127.0.0.1", 0, &e) || (fd = net_listen(a, &e)) < 0)
		fail_msg("%s", e.text);
	return fd;
}

/* fds[0] connected, fds[1] accepted */
static inline void tcp_pair(int fds[2])
{
	struct net_address a;
	struct error e = {0};
	int listener = tcp_listen(&a);
	struct pollfd p = {.fd = listener, .events = POLLIN};

	fds[0] = net_connect(&a, &e);
	if (fds[0] < 0)
		fail_msg("%s", e.text);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	close(listener);
}

static inline void unix_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static inline void stream_wait(const struct stream *s, uint32_t events)
{
	struct pollfd p = {.fd = stream_fd(s), .events = (short)events};

	if (poll(&p, 1, WAIT_MS) != 1)
		fail_msg("nothing to %s for %d ms", events & POLLIN ? "read" : "write", WAIT_MS);
}

/* What reading gives once it is not "later". */
static inline ssize_t read_some(struct stream *s, void *to, size_t len)
{
	ssize_t n;

	while ((n = stream_read(s, to, len)) == -EAGAIN)
		stream_wait(s, stream_events(s));
	return n;
}

static inline void read_all(struct stream *s, void *to, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read_some(s, (char *)to + done, len - done);

		if (n <= 0)
			fail_msg("read: %zd after %zu bytes", n, done);
		done += (size_t)n;
	}
}

static inline void write_all(struct stream *s, const void *from, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = stream_write(s, (const char *)from + done, len - done, false);

		if (n == -EAGAIN) {
			stream_wait(s, stream_events(s));
			continue;
		}
		if (n <= 0 || (size_t)n > len - done)
			fail_msg("write: %zd of %zu bytes", n, len - done);
		done += (size_t)n;
	}
}

static inline void fill(struct random *r, void *to, size_t len)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		uint64_t word = random_next(r);

		memcpy((char *)to + i, &word, 8);
	}
}

static inline void pair_free(struct pair *p)
{
	stream_free(p->client);
	stream_free(p->server);
}

#endif
