/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other end of a link: what pages hold, answers as bytes, and a page server of threads that
 * does what a test tells it to. The image pid of file F of a checkpoint is PEER_PID(F).
 */
#ifndef PAGE_PEER_H
#define PAGE_PEER_H

#include "stream_pair.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>

#include "extents.h"
#include "image_pagemap.h"
#include "wire.h"

#define PEER_FILES	 2
#define PEER_PAGES	 UINT64_C(65536) /* of each task, from address 0 on */
#define PEER_PID(file)	 (UINT64_C(100) + (file))
#define PEER_CONNECTIONS 64
#define PEER_LOG	 65536

/* A page's bytes: no two are alike, and no two words of one. */
static inline void peer_page(uint64_t pid, uint64_t page, void *to)
{
	struct random r = random_from(pid, page);

	fill(&r, to, PAGE_SIZE);
}

static inline bool peer_page_is(uint64_t where, const void *bytes)
{
	char right[PAGE_SIZE];

	peer_page(PEER_PID(WHERE_FILE(where)), WHERE_PAGE(where), right);
	return !memcmp(bytes, right, PAGE_SIZE);
}

static inline size_t peer_get(enum wire_layout layout, uint64_t where, uint64_t npages, void *to)
{
	const struct wire_header h = {.command = WIRE_GET,
				      .npages = npages,
				      .vaddr = WHERE_PAGE(where) << PAGE_SHIFT,
				      .id = PEER_PID(WHERE_FILE(where))};

	return wire_encode(layout, &h, to);
}

/* An answer of @npages pages: its length in bytes. */
static inline size_t peer_answer(enum wire_layout layout, uint64_t where, uint64_t npages, char *to)
{
	const struct wire_header h = {.command = WIRE_ADD_F,
				      .flags = PAGEMAP_PRESENT,
				      .npages = npages,
				      .vaddr = WHERE_PAGE(where) << PAGE_SHIFT,
				      .id = PEER_PID(WHERE_FILE(where))};
	size_t len = wire_encode(layout, &h, to);

	for (uint64_t i = 0; i < npages; i++, len += PAGE_SIZE)
		peer_page(h.id, WHERE_PAGE(where) + i, to + len);
	return len;
}

static inline bool send_all_of(int fd, const void *from, size_t len)
{
	while (len) {
		ssize_t n = send(fd, from, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		from = (const char *)from + n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool receive_all_of(int fd, void *to, size_t len)
{
	return recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

struct page_server {
	struct net_address address;
	enum wire_layout layout;
	unsigned takes;		/* connections; then it does not listen any more. 0: any number */
	atomic_uint most_pages; /* of one answer, at random up to it; 0: all that is asked */
	atomic_uint pause_us;	/* before an answer, at random up to it */
	bool any_number;	/* of GETs, more than can be logged */
	atomic_uint hold;	/* bit N: connection N (0 is the first) gets no answers */
	atomic_bool lie;	/* an answer is of the page behind */
	atomic_uint connections, gets, closes, wrong, ends;
	atomic_uint pages; /* sent */
	struct peer_get_seen {
		unsigned connection;
		uint64_t where, npages;
	} seen[PEER_LOG]; /* GETs in the order of their coming */

	int listener;
	atomic_bool stop;
	pthread_t thread;
	pthread_mutex_t lock; /* protects fd and seen */
	struct peer_connection {
		struct page_server *server;
		unsigned number;
		int fd; /* -1: it is over */
		pthread_t thread;
	} c[PEER_CONNECTIONS];
};

static inline bool peer_serve_get(struct peer_connection *c, const struct wire_header *h,
				  struct random *r)
{
	struct page_server *s = c->server;
	uint64_t page = h->vaddr >> PAGE_SHIFT, npages = h->npages;
	uint64_t where = WHERE(h->id - PEER_PID(0), page);
	unsigned n, most = s->most_pages, pause = s->pause_us;
	_cleanup_free_ char *bytes = NULL;

	pthread_mutex_lock(&s->lock);
	n = atomic_load(&s->gets);
	s->seen[n % PEER_LOG] = (struct peer_get_seen){c->number, where, npages};
	atomic_store(&s->gets, n + 1);
	pthread_mutex_unlock(&s->lock);
	if (h->id - PEER_PID(0) >= PEER_FILES || h->vaddr % PAGE_SIZE || !npages || h->flags ||
	    page + npages > PEER_PAGES || (n >= PEER_LOG && !s->any_number)) {
		atomic_fetch_add(&s->wrong, 1);
		return false;
	}
	while (c->number < 32 && atomic_load(&s->hold) >> c->number & 1 && !atomic_load(&s->stop))
		usleep(200);
	if (atomic_load(&s->stop))
		return false;
	if (pause)
		usleep((useconds_t)random_below(r, pause));
	if (most) {
		most = 1 + (unsigned)random_below(r, most);
		npages = MIN(npages, most);
	}
	where += atomic_load(&s->lie);
	atomic_fetch_add(&s->pages, (unsigned)npages);
	bytes = malloc(WIRE_HEADER_MAX + (npages << PAGE_SHIFT));
	return send_all_of(c->fd, bytes, peer_answer(s->layout, where, npages, bytes));
}

static inline void *peer_connection_thread(void *arg)
{
	struct peer_connection *c = arg;
	struct random r = random_from(77, c->number);
	char header[WIRE_HEADER_MAX];
	int32_t status = 0;
	int one = 1;

	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (receive_all_of(c->fd, header, c->server->layout)) {
		struct wire_header h;

		wire_decode(c->server->layout, header, &h);
		if (h.command == WIRE_GET) {
			if (!peer_serve_get(c, &h, &r))
				break;
			continue;
		}
		if (h.command != WIRE_CLOSE)
			atomic_fetch_add(&c->server->wrong, 1);
		atomic_fetch_add(&c->server->closes, 1);
		if (send_all_of(c->fd, &status, sizeof(status)) && !recv(c->fd, header, 1, 0))
			atomic_fetch_add(&c->server->ends, 1); /* a plain close follows */
		break;
	}
	pthread_mutex_lock(&c->server->lock);
	close(c->fd);
	c->fd = -1;
	pthread_mutex_unlock(&c->server->lock);
	return NULL;
}

static inline void *page_server_thread(void *arg)
{
	struct page_server *s = arg;
	struct pollfd p = {.fd = s->listener, .events = POLLIN};

	while (!atomic_load(&s->stop)) {
		unsigned n = atomic_load(&s->connections);
		struct peer_connection *c = &s->c[n];
		int fd;

		if (n == PEER_CONNECTIONS || (s->takes && n == s->takes))
			break;
		if (poll(&p, 1, 5) <= 0 || (fd = accept4(p.fd, NULL, NULL, SOCK_CLOEXEC)) < 0)
			continue;
		pthread_mutex_lock(&s->lock);
		*c = (struct peer_connection){.server = s, .number = n, .fd = fd};
		pthread_mutex_unlock(&s->lock);
		pthread_create(&c->thread, NULL, peer_connection_thread, c);
		atomic_fetch_add(&s->connections, 1);
	}
	close(s->listener);
	return NULL;
}

/* Listens at s->address, or (when that is empty) at a port of its own. */
static inline void page_server_start(struct page_server *s)
{
	struct error e = {0};

	if (!s->address.len)
		s->listener = tcp_listen(&s->address);
	else
		s->listener = net_listen(&s->address, &e);
	if (s->listener < 0)
		fail_msg("%s", e.text);
	atomic_store(&s->stop, false);
	pthread_mutex_init(&s->lock, NULL);
	pthread_create(&s->thread, NULL, page_server_thread, s);
}

/* The connections end, as by a server that is killed; new ones are taken. */
static inline void page_server_cut(struct page_server *s)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < PEER_CONNECTIONS; i++)
		if (s->c[i].server && s->c[i].fd >= 0)
			shutdown(s->c[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
}

/* Whether connection @n has not ended, and nothing has come on it that was not taken. */
static inline bool page_server_has(struct page_server *s, unsigned n)
{
	bool has;
	char c;

	pthread_mutex_lock(&s->lock);
	has = s->c[n].fd >= 0 && recv(s->c[n].fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
	      errno == EAGAIN;
	pthread_mutex_unlock(&s->lock);
	return has;
}

static inline void page_server_stop(struct page_server *s)
{
	atomic_store(&s->stop, true);
	pthread_join(s->thread, NULL);
	page_server_cut(s);
	for (unsigned i = 0; i < atomic_load(&s->connections); i++)
		pthread_join(s->c[i].thread, NULL);
	pthread_mutex_destroy(&s->lock);
	assert_int_equal(atomic_load(&s->wrong), 0);
}

/* Waits for what another thread does; @what is evaluated again and again. */
#define wait_until(what) \
	do { \
		int left_ = WAIT_MS * SLOWNESS; \
		while (!(what) && left_--) \
			usleep(1000); \
		if (!(what)) \
			fail_msg("%s: not within %d ms", #what, WAIT_MS *SLOWNESS); \
	} while (0)

#endif
