/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The other end of the hand-off, as `criu restore --lazy-pages` plays it. */
#ifndef RESTORE_PEER_H
#define RESTORE_PEER_H

#include "worker_parts.h"

#include <sys/socket.h>

#define RESTORE_FINISHED 0x52535446

static inline void peer_bytes(int peer, const void *p, size_t n)
{
	assert_int_equal(send(peer, p, n, MSG_NOSIGNAL), n);
}

static inline void peer_word(int peer, int32_t word)
{
	peer_bytes(peer, &word, sizeof(word));
}

/* A byte with descriptor @fd, which stays the caller's. */
static inline void peer_fd(int peer, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	assert_int_equal(sendmsg(peer, &m, MSG_NOSIGNAL), 1);
}

static inline void peer_uffd(int peer)
{
	int fd = parts_uffd();

	peer_fd(peer, fd);
	close(fd); /* as the restorer does */
}

static inline void peer_item(int peer, int pid)
{
	peer_word(peer, pid);
	peer_uffd(peer);
}

#endif
