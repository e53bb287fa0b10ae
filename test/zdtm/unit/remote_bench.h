/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page server as a source, with a server at its other end, and owners as it sees them: an event
 * descriptor and an epoll set.
 */
#ifndef REMOTE_BENCH_H
#define REMOTE_BENCH_H

#include "page_peer.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "clock.h"
#include "source_remote.h"

#define RANGE_MAX 128 /* pages of one fetch */

struct bench {
	struct page_server *server;
	struct journal *j;
	struct checkpoint checkpoint;
	struct pages_file files[PEER_FILES];
	struct options o;
	struct remote_start start;
	struct log log;
	struct source *source;
	struct error e;
	int kept[256]; /* descriptors that the source may still write to */
	unsigned nkept;
};

struct player {
	struct bench *b;
	int event_fd, epoll_fd;
	char *scratch;
};

/* @takes: as in struct page_server; 1 is how stock's behaves. */
static inline void bench_begin(struct bench *b, enum wire_layout layout, unsigned takes)
{
	memset(b, 0, sizeof(*b));
	b->server = calloc(1, sizeof(*b->server));
	b->server->layout = layout;
	b->server->takes = takes;
	page_server_start(b->server);
	b->j = calloc(1, sizeof(*b->j));
	b->j->tasks_forked = 1; /* players want the same pages */
	b->checkpoint.files = b->files;
	b->checkpoint.nfiles = PEER_FILES;
	for (int i = 0; i < PEER_FILES; i++)
		b->files[i] = (struct pages_file){
			.fd = -1, .pid = (int)PEER_PID(i), .npages = PEER_PAGES};
	log_init(&b->log, "test", LOG_DEBUG);
	b->log.fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	b->o = (struct options){
		.ps_socket = -1,
		.ps_layout = layout,
		.address = (char *)(uintptr_t) "127.0.0.1",
		.port = ntohs(((struct sockaddr_in *)&b->server->address.sa)->sin_port)};
	if (remote_connect(&b->start, &b->o, &b->checkpoint, b->j, &b->e))
		fail_msg("%s", b->e.text);
	b->source = source_remote_new(&b->start, &b->checkpoint, b->j, &b->log);
	assert_non_null(b->source);
}

static inline void bench_end(struct bench *b)
{
	source_close(b->source);
	while (b->nkept)
		close(b->kept[--b->nkept]);
	if (b->j->link.open)
		close(b->j->link.fd);
	remote_disconnect(&b->start);
	page_server_stop(b->server);
	close(b->log.fd);
	free(b->server);
	free(b->j);
}

static inline void bench_keep(struct bench *b, int fd)
{
	assert_true(b->nkept < ARRAY_SIZE(b->kept));
	b->kept[b->nkept++] = fd;
}

static inline struct source_state bench_state(struct bench *b)
{
	struct source_state s;

	source_state(b->source, &s);
	return s;
}

static inline void player_begin(struct player *p, struct bench *b)
{
	struct epoll_event ev = {.events = EPOLLIN};

	*p = (struct player){.b = b,
			     .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			     .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
			     .scratch = aligned_alloc(PAGE_SIZE, RANGE_MAX * PAGE_SIZE)};
	assert_int_equal(epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->event_fd, &ev), 0);
	source_watch(b->source, p->event_fd, p->epoll_fd, p);
}

static inline void player_end(struct player *p)
{
	bench_keep(p->b, p->event_fd);
	bench_keep(p->b, p->epoll_fd);
	free(p->scratch);
}

/* Waits as an owner does. False: nothing came. */
static inline bool player_wait(struct player *p, int ms)
{
	struct epoll_event ev;
	uint64_t count;

	if (epoll_wait(p->epoll_fd, &ev, 1, ms) != 1)
		return false;
	if (ev.data.ptr == p)
		source_pump(p->b->source);
	else
		(void)!read(p->event_fd, &count, sizeof(count));
	return true;
}

static inline bool player_fetch(struct player *p, uint64_t where, uint64_t npages)
{
	const void *bytes;
	int ret = source_fetch(p->b->source, where, npages, p->scratch, &bytes);

	assert_true(ret == 0 || ret == -EAGAIN);
	for (uint64_t i = 0; !ret && i < npages; i++)
		if (!peer_page_is(where + i, (const char *)bytes + i * PAGE_SIZE))
			fail_msg("page %#lx is wrong", where + i);
	return !ret;
}

static inline int player_want(struct player *p, uint64_t where, uint64_t npages, bool urgent)
{
	return source_want(p->b->source, where, npages, urgent, p->event_fd);
}

/* Asks, waits, fetches, and checks. */
static inline void player_get(struct player *p, uint64_t where, uint64_t npages, bool urgent)
{
	uint64_t end = now_ns() + (uint64_t)WAIT_MS * SLOWNESS * 1000000;

	while (!player_fetch(p, where, npages)) {
		int ret = player_want(p, where, npages, urgent);

		assert_true(ret == 0 || ret == -EAGAIN);
		if (!player_wait(p, WAIT_MS * SLOWNESS) || now_ns() > end)
			fail_msg("%lu pages at %#lx do not come", npages, where);
	}
}

#endif
