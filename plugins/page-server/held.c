// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The connection to the dump: see held.h. CLOSE and the end of our side leave as one segment: were
 * there an instant between the two, our death in it could leave the dump's answer unread, which the
 * kernel turns into a reset. A second CLOSE would be unexpected data to stock; so who takes over
 * only ends the sending side, which is enough.
 */
#include "held.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "image_pagemap.h"

#define TIMEOUT_MS 5000
#define QUIET_MS   300 /* an answer that has not come by then was never asked for */
#define GET_PAGES  16u /* what fits into the socket's buffers, so that the dump never waits */

static int linger_set(int fd, bool reset)
{
	struct linger l = {.l_onoff = reset, .l_linger = 0};

	return setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)) ? -errno : 0;
}

static int wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n = poll(&p, 1, timeout_ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n ? 0 : -ETIMEDOUT;
}

int held_connect(const struct net_address *a, struct error *e)
{
	int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
	int code = 0, ret = 0;
	socklen_t len = sizeof(code);

	if (fd < 0)
		return error_errno(e, -errno, "%s", a->text);
	ret = linger_set(fd, true);
	if (!ret && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		ret = -errno;
	if (!ret && connect(fd, (const struct sockaddr *)&a->sa, a->len) && errno != EINPROGRESS)
		ret = -errno;
	if (!ret)
		ret = wait_for(fd, POLLOUT, TIMEOUT_MS);
	if (!ret && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len))
		ret = -code;
	if (!ret)
		return fd;
	close(fd);
	return error_errno(e, ret, "%s", a->text);
}

void held_init(struct held *h, int fd, enum wire_layout layout, bool *busy)
{
	char away[4096];

	*h = (struct held){.fd = fd, .layout = layout, .busy = busy};
	pthread_mutex_init(&h->lock, NULL);
	if (!*busy)
		return;
	/* The server before us died in a GET: what it has asked for is not for us. */
	while (!wait_for(fd, POLLIN, QUIET_MS) &&
	       recv(fd, away, sizeof(away), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	*busy = false;
}

bool held_stands(const struct held *h)
{
	struct pollfd p = {.fd = h->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) == 0;
}

static int write_all(int fd, const void *from, size_t len)
{
	while (len) {
		ssize_t n = send(fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int ret = 0;

		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n < 0)
			ret = wait_for(fd, POLLOUT, TIMEOUT_MS);
		if (ret)
			return ret;
		if (n < 0)
			continue;
		from = (const char *)from + n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_all(int fd, void *to, size_t len)
{
	while (len) {
		int ret = wait_for(fd, POLLIN, TIMEOUT_MS);
		ssize_t n;

		if (ret)
			return ret;
		n = recv(fd, to, len, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		to = (char *)to + n;
		len -= (size_t)n;
	}
	return 0;
}

/* One request, one answer: how many pages have come, or -errno. */
static int64_t get_some(struct held *h, uint64_t pid, uint64_t vaddr, void *to, uint64_t npages,
			struct error *e)
{
	struct wire_header ask = {
		.command = WIRE_GET, .npages = MIN(npages, GET_PAGES), .vaddr = vaddr, .id = pid};
	unsigned char bytes[WIRE_HEADER_MAX];
	struct wire_header said;
	int ret;

	ret = write_all(h->fd, bytes, wire_encode(h->layout, &ask, bytes));
	if (!ret)
		ret = read_all(h->fd, bytes, h->layout);
	if (ret)
		return error_errno(e, ret, "the dump does not answer");
	wire_decode(h->layout, bytes, &said);
	if (said.command != WIRE_ADD_F || said.flags != PAGEMAP_PRESENT || said.vaddr != vaddr ||
	    said.id != pid || !said.npages || said.npages > ask.npages)
		return error_set(e, -EPROTO, "the dump answers with something else than the pages");
	ret = read_all(h->fd, to, said.npages << PAGE_SHIFT);
	return ret ? error_errno(e, ret, "the dump does not finish its answer")
		   : (int64_t)said.npages;
}

int held_get(struct held *h, uint64_t pid, uint64_t vaddr, void *to, uint64_t npages,
	     struct error *e)
{
	int64_t n = 0;

	pthread_mutex_lock(&h->lock);
	if (h->stuck)
		n = error_set(e, -EIO, "the dump has not answered before");
	while (npages && n >= 0) {
		*h->busy = true;
		n = get_some(h, pid, vaddr, to, npages, e);
		*h->busy = false;
		h->stuck = n < 0;
		if (n < 0)
			break;
		npages -= (uint64_t)n;
		vaddr += (uint64_t)n << PAGE_SHIFT;
		to = (char *)to + (n << PAGE_SHIFT);
	}
	pthread_mutex_unlock(&h->lock);
	return n < 0 ? (int)n : 0;
}

/* Reads to the end and keeps the last four bytes: answers that nobody has taken may be before. */
static int read_status(int fd, int32_t *status)
{
	uint64_t until = now_ns() + TIMEOUT_MS * UINT64_C(1000000);
	unsigned char piece[4096], last[4];
	size_t have = 0;

	while (now_ns() < until) {
		int ret = wait_for(fd, POLLIN, TIMEOUT_MS);
		ssize_t n = ret ? ret : recv(fd, piece, sizeof(piece), MSG_DONTWAIT);

		if (ret || (n < 0 && errno != EAGAIN))
			return ret ? ret : -errno;
		if (!n)
			break;
		for (ssize_t i = 0; i < n; i++, have++) {
			memmove(last, last + 1, sizeof(last) - 1);
			last[sizeof(last) - 1] = piece[i];
		}
	}
	if (have < sizeof(last))
		return -ECONNRESET;
	memcpy(status, last, sizeof(*status));
	return 0;
}

static int finish(struct held *h, bool again, struct error *e)
{
	struct wire_header end = {.command = WIRE_CLOSE};
	unsigned char bytes[WIRE_HEADER_MAX];
	int32_t status = -1;
	int one = 1, ret;

	if (!held_stands(h) && !again)
		return error_set(e, -EIO, "the dump has ended its connection");
	ret = linger_set(h->fd, false); /* the instant */
	if (ret)
		return error_errno(e, ret, "SO_LINGER");
	if (!again) {
		setsockopt(h->fd, IPPROTO_TCP, TCP_CORK, &one, sizeof(one));
		write_all(h->fd, bytes, wire_encode(h->layout, &end, bytes));
	}
	shutdown(h->fd, SHUT_WR);
	ret = read_status(h->fd, &status);
	if (ret && !again)
		return error_errno(e, ret == -ETIMEDOUT ? ret : -EIO,
				   "the dump has not answered CLOSE");
	if (!ret && status)
		return error_set(e, -EIO, "the dump has answered CLOSE with %d", status);
	return 0;
}

int held_finish(struct held *h, bool again, struct error *e)
{
	int ret;

	pthread_mutex_lock(&h->lock);
	ret = finish(h, again, e);
	pthread_mutex_unlock(&h->lock);
	return ret;
}

int held_reset(struct held *h, struct error *e)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	/* Not by close(2): others have the descriptor, too. EBUSY, on some kernels, while a thread
	 * waits in recv(2); none does here for longer than it takes to copy. */
	for (int i = 0; i < 1000; i++) {
		if (!connect(h->fd, &nobody, sizeof(nobody)))
			return 0;
		if (errno != EBUSY)
			break;
		usleep(1000);
	}
	return error_errno(e, -errno, "reset of the connection to the dump");
}
