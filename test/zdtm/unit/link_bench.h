/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A link with its user, and the descriptor at its other end. The user has room for BENCH_PAGES
 * pages of each task and checks every page as it arrives. The record may be shared with others.
 */
#ifndef LINK_BENCH_H
#define LINK_BENCH_H

#include "page_peer.h"

#include "clock.h"
#include "link.h"

#define BENCH_PAGES    2048
#define BENCH_ANSWERED 4096

struct bench {
	struct link_record *record;
	struct link *link;
	struct stream *stream;
	int server; /* blocking, with a time limit; -1: somebody else has it */
	char *room;
	bool no_room; /* what comes is to be thrown away */
	unsigned arrived[PEER_FILES * BENCH_PAGES];
	unsigned rooms;
	struct link_request answered[BENCH_ANSWERED]; /* in the order of their coming */
	unsigned nanswered;
	atomic_uint *told; /* counts them, too, if set */
	struct error e;
};

static inline size_t bench_index(uint64_t where)
{
	assert_true(WHERE_FILE(where) < PEER_FILES && WHERE_PAGE(where) < BENCH_PAGES);
	return WHERE_FILE(where) * BENCH_PAGES + WHERE_PAGE(where);
}

static inline uint64_t bench_pid(void *ctx, uint64_t where)
{
	(void)ctx;
	return PEER_PID(WHERE_FILE(where));
}

static inline void *bench_room(void *ctx, uint64_t where, uint64_t npages)
{
	struct bench *b = ctx;

	bench_index(where + npages - 1);
	b->rooms++;
	return b->no_room ? NULL : b->room + bench_index(where) * PAGE_SIZE;
}

static inline void bench_arrived(void *ctx, uint64_t where, uint64_t npages)
{
	struct bench *b = ctx;

	assert_true(npages > 0);
	for (; npages--; where++) {
		if (!peer_page_is(where, b->room + bench_index(where) * PAGE_SIZE))
			fail_msg("page %#lx is wrong", where);
		b->arrived[bench_index(where)]++;
	}
}

static inline void bench_answered(void *ctx, const struct link_request *r)
{
	struct bench *b = ctx;

	assert_true(b->nanswered < BENCH_ANSWERED && r->npages);
	b->answered[b->nanswered++] = *r;
	if (b->told)
		atomic_fetch_add(b->told, 1);
}

static inline bool bench_same(void *ctx, uint64_t where, const void *page)
{
	(void)ctx;
	return peer_page_is(where, page);
}

/* Makes the link over b->record, whose descriptor is open. */
static inline void bench_link(struct bench *b)
{
	static const struct link_user user = {bench_pid, bench_room, bench_arrived, bench_answered,
					      bench_same};

	b->stream = stream_new(b->record->fd, NULL, false, NULL);
	b->link = link_new(b->record, b->stream, &user, b);
	assert_non_null(b->link);
}

/* As the death of a worker leaves it: the record and the descriptor stay, memory is gone. */
static inline void bench_drop(struct bench *b)
{
	stream_detach(b->stream);
	free(b->link);
	b->link = NULL;
	memset(b->arrived, 0, sizeof(b->arrived));
	madvise(b->room, PEER_FILES * BENCH_PAGES * PAGE_SIZE, MADV_DONTNEED);
}

static inline void bench_new(struct bench *b, enum wire_layout layout, const int fds[2],
			     struct link_record *record)
{
	int one = 1;
	struct timeval limit = {.tv_sec = WAIT_MS / 1000};
	size_t len = PEER_FILES * BENCH_PAGES * PAGE_SIZE;

	memset(b, 0, sizeof(*b));
	b->record = record ? record : calloc(1, sizeof(*record));
	b->room = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(b->room != MAP_FAILED);
	b->server = fds[1];
	setsockopt(b->server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(b->server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(b->server, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	link_record_open(b->record, fds[0], layout, false);
	bench_link(b);
}

static inline void bench_tcp(struct bench *b, enum wire_layout layout)
{
	int fds[2];

	tcp_pair(fds);
	bench_new(b, layout, fds, NULL);
	assert_true(b->record->open && b->record->exact && !b->record->used);
}

static inline void bench_free(struct bench *b)
{
	link_free(b->link);
	munmap(b->room, PEER_FILES * BENCH_PAGES * PAGE_SIZE);
	if (b->server >= 0)
		close(b->server);
	free(b->record);
}

static inline void bench_ask(struct bench *b, uint64_t where, uint64_t npages)
{
	assert_int_equal(link_ask(b->link, where, npages, false, now_ns()), 0);
}

static inline void bench_flush(struct bench *b)
{
	if (link_flush(b->link, &b->e))
		fail_msg("%s", b->e.text);
}

/* Takes what comes until @done bytes of answers, ever, have come (or the link fails). */
static inline int bench_pump_to(struct bench *b, uint64_t done)
{
	struct pollfd p = {.fd = b->record->fd, .events = POLLIN};
	uint64_t sent, received = 0;
	int ret = 0;

	while (!ret && !link_count(p.fd, &sent, &received) &&
	       received - b->record->received0 < done) {
		if (poll(&p, 1, WAIT_MS) != 1)
			fail_msg("%lu of %lu bytes came", received - b->record->received0, done);
		ret = link_pump(b->link, now_ns(), &b->e);
	}
	return ret;
}

/* The same, until every request has its answer. */
static inline int bench_pump_all(struct bench *b)
{
	struct pollfd p = {.fd = b->record->fd, .events = POLLIN};
	int ret = 0;

	while (!ret && link_outstanding(b->link)) {
		ret = link_flush(b->link, &b->e);
		if (ret)
			break;
		p.events = (short)link_events(b->link);
		if (poll(&p, 1, WAIT_MS) != 1)
			fail_msg("%lu requests have no answer", link_outstanding(b->link));
		ret = link_pump(b->link, now_ns(), &b->e);
	}
	return ret;
}

/* What the other end does: takes a GET that must be this one, and answers it. */
static inline void bench_take_get(struct bench *b, uint64_t where, uint64_t npages)
{
	char right[WIRE_HEADER_MAX], got[WIRE_HEADER_MAX];
	size_t len = peer_get(b->record->layout, where, npages, right);

	assert_true(receive_all_of(b->server, got, len));
	assert_memory_equal(got, right, len);
}

static inline void bench_answer(struct bench *b, uint64_t where, uint64_t npages)
{
	_cleanup_free_ char *bytes = malloc(WIRE_HEADER_MAX + npages * PAGE_SIZE);

	assert_true(send_all_of(b->server, bytes,
				peer_answer(b->record->layout, where, npages, bytes)));
}

#endif
