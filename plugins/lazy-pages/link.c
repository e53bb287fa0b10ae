// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Asking and taking answers: see link.h. What is to be sent is a function of the ring and of the
 * number of bytes sent; what is being read, of the record and of the number of bytes received.
 */
#include "link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "compiler.h"
#include "extents.h"
#include "image_pagemap.h"

#define SEND_BATCH   32
#define STATUS_BYTES 4			   /* the answer of CLOSE */
#define PUMP_BYTES   (UINT64_C(512) << 10) /* taken at one go */
#define COUNT_TRIES  100000
/* Of tcpi_state; <netinet/tcp.h> has names, but a shorter struct tcp_info. */
#define STATE_ESTABLISHED 1
#define STATE_CLOSE	  7 /* over: reset, or given up by the kernel */
#define STATE_CLOSE_WAIT  8 /* the peer has ended its side */
#define AWAY		  (UINT64_C(64) << 10)

struct link {
	struct link_record *r;
	struct stream *s;
	const struct link_user *user;
	void *ctx;
	struct pace pace;
	struct pace_stamp stamp[LINK_RING];
	uint64_t sent;	   /* bytes, of all requests ever */
	uint64_t received; /* bytes, of all answers ever */
	uint64_t heard_ns; /* when bytes came last */
	uint64_t resumed;  /* requests below it were asked by another worker */
	/* Of the answer under way. */
	uint64_t npages; /* 0: its header is not complete */
	uint64_t told;	 /* pages of it that arrived() knows of */
	char *to;	 /* NULL: thrown away */
	int32_t refused; /* the answer of CLOSE */
	bool proven, closed, blocked;
	char away[AWAY];
};

static void commit_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static const struct link_answer *answer(const struct link *l)
{
	return &l->r->answer[l->r->active];
}

static struct link_request *request(const struct link *l, uint64_t number)
{
	return &l->r->ring[number % LINK_RING];
}

int link_count(int fd, uint64_t *sent, uint64_t *received)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	int in, out, in_after, out_after, tries = COUNT_TRIES;

	/* While it is counted an acknowledgement or bytes may come: then once more. */
	do {
		if (ioctl(fd, SIOCINQ, &in) || ioctl(fd, SIOCOUTQ, &out) ||
		    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
		    len < offsetof(struct tcp_info, tcpi_segs_out) ||
		    ioctl(fd, SIOCINQ, &in_after) || ioctl(fd, SIOCOUTQ, &out_after) || !tries--)
			return -ENOTSUP;
	} while (in != in_after || out != out_after);
	/* The end of the peer is counted as a byte that came, but not among those that wait; once
	 * the connection is gone, it cannot be told whether there was one. */
	if (info.tcpi_state != STATE_ESTABLISHED && info.tcpi_state != STATE_CLOSE_WAIT)
		return -ENOTSUP;
	*sent = info.tcpi_bytes_acked + (uint64_t)out;
	*received = info.tcpi_bytes_received - (uint64_t)in - (info.tcpi_state == STATE_CLOSE_WAIT);
	return 0;
}

bool link_is_gone(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_state == STATE_CLOSE;
}

void link_record_open(struct link_record *r, int fd, enum wire_layout layout, bool tls)
{
	/* Between any two of these a worker may be killed: the layout must never be lost. */
	r->open = false;
	commit_barrier();
	r->remade = r->layout != WIRE_UNKNOWN;
	r->layout = layout;
	r->fd = fd;
	r->used = false;
	r->asked = 0;
	memset(r->answer, 0, sizeof(r->answer));
	r->active = 0;
	r->exact = !tls && !link_count(fd, &r->sent0, &r->received0);
	commit_barrier();
	r->open = true;
}

struct link *link_new(struct link_record *r, struct stream *s, const struct link_user *user,
		      void *ctx)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->r = r;
	l->s = s;
	l->user = user;
	l->ctx = ctx;
	return l;
}

static bool is_for_pages(const struct link_request *q)
{
	return q->npages && !q->check;
}

static void all_lost(struct link *l)
{
	for (uint64_t n = answer(l)->number; n < l->r->asked; n++)
		if (is_for_pages(request(l, n)))
			l->user->answered(l->ctx, request(l, n));
}

void link_free(struct link *l)
{
	if (!l)
		return;
	all_lost(l);
	l->r->open = false;
	commit_barrier();
	stream_free(l->s);
	free(l);
}

void link_park(struct link *l)
{
	all_lost(l);
	stream_detach(l->s);
	free(l);
}

static int put(struct link *l, struct link_request q, uint64_t now)
{
	struct link_record *r = l->r;

	if (r->asked - answer(l)->number == LINK_RING)
		return -ENOBUFS;
	*request(l, r->asked) = q;
	l->stamp[r->asked % LINK_RING] =
		pace_asked(&l->pace, (uint64_t)q.npages << PAGE_SHIFT, now);
	r->used = true;
	commit_barrier();
	r->asked++;
	commit_barrier();
	return 0;
}

int link_ask(struct link *l, uint64_t where, uint64_t npages, bool urgent, uint64_t now)
{
	return put(
		l,
		(struct link_request){.where = where, .npages = (uint16_t)npages, .urgent = urgent},
		now);
}

int link_check(struct link *l, uint64_t where, uint64_t now)
{
	return put(l, (struct link_request){.where = where, .npages = 1, .check = 1}, now);
}

void link_reset_on_close(struct link *l, bool on)
{
	stream_reset_on_close(l->s, on);
}

int link_close(struct link *l, bool held, uint64_t now)
{
	/* Every page is held: whatever ends the connection now, the source must not go on. */
	stream_reset_on_close(l->s, false);
	return link_ask(l, 0, 0, held, now);
}

static uint64_t page_address(uint64_t where)
{
	return WHERE_PAGE(where) << PAGE_SHIFT;
}

static size_t encode(const struct link *l, uint64_t number, void *to)
{
	const struct link_request *q = request(l, number);
	uint64_t held = q->urgent ? WIRE_HELD : 0;
	struct wire_header h = {.command = WIRE_CLOSE, .vaddr = held, .id = held};

	if (q->npages)
		h = (struct wire_header){
			.command = WIRE_GET,
			.npages = q->npages,
			.vaddr = page_address(q->where),
			.id = l->user->pid(l->ctx, q->where),
		};
	return wire_encode(l->r->layout, &h, to);
}

int link_flush(struct link *l, struct error *e)
{
	uint32_t header = l->r->layout;

	l->blocked = false;
	while (l->sent < l->r->asked * header) {
		char buf[SEND_BATCH * WIRE_HEADER_MAX];
		uint64_t first = l->sent / header, n = MIN(l->r->asked - first, SEND_BATCH);
		size_t skip = l->sent % header;
		ssize_t done;

		for (uint64_t i = 0; i < n; i++)
			encode(l, first + i, buf + i * header);
		done = stream_write(l->s, buf + skip, n * header - skip, false);
		if (done == -EAGAIN) {
			l->blocked = true;
			return 0;
		}
		if (done < 0)
			return error_errno(e, (int)done, "sending");
		l->sent += (uint64_t)done;
	}
	return 0;
}

/* A header has come whole: what it says must be an answer to the oldest request. */
static int begin(struct link *l, uint64_t now, struct error *e)
{
	uint64_t number = answer(l)->number;
	const struct link_request *q = request(l, number);
	uint64_t pid = l->user->pid(l->ctx, q->where);
	struct wire_header h;

	wire_decode(l->r->layout, l->r->header, &h);
	if (h.command != WIRE_ADD_F || h.flags != PAGEMAP_PRESENT || h.id != pid ||
	    h.vaddr != page_address(q->where) || !h.npages || h.npages > q->npages)
		return error_set(
			e, -EPROTO,
			"asked for %u pages at 0x%llx of task %llu, the answer is: command "
			"%#x, flags %#x, %llu pages at 0x%llx of task %llu",
			q->npages, (unsigned long long)page_address(q->where),
			(unsigned long long)pid, h.command, h.flags, (unsigned long long)h.npages,
			(unsigned long long)h.vaddr, (unsigned long long)h.id);
	l->npages = h.npages;
	l->told = 0;
	l->to = q->check ? NULL : l->user->room(l->ctx, q->where, h.npages);
	/* When another worker asked is not known, and bytes may have waited here since. */
	if (number >= l->resumed)
		pace_first_byte(&l->pace, l->stamp[number % LINK_RING], now);
	return 0;
}

/* The answer under way is complete. */
static int end(struct link *l, uint64_t bytes, uint64_t now, struct error *e)
{
	struct link_answer *next = &l->r->answer[!l->r->active];
	uint64_t number = answer(l)->number, npages = l->npages;
	struct link_request q = *request(l, number);

	*next = (struct link_answer){answer(l)->began + bytes, number + 1};
	commit_barrier();
	l->r->active = !l->r->active;
	commit_barrier();
	l->npages = 0;
	if (!q.npages) {
		l->closed = true;
		return 0;
	}
	if (q.check && !l->user->same(l->ctx, q.where, l->away))
		return error_set(
			e, -EPROTO,
			"this is another source: page 0x%llx of task %llu is not what it was",
			(unsigned long long)page_address(q.where),
			(unsigned long long)l->user->pid(l->ctx, q.where));
	l->proven = true;
	pace_answered(&l->pace, l->stamp[number % LINK_RING], npages << PAGE_SHIFT,
		      (uint64_t)q.npages << PAGE_SHIFT, now);
	if (!q.check)
		l->user->answered(l->ctx, &q);
	return 0;
}

/* The status that answers CLOSE has come whole. */
static int end_of_all(struct link *l, uint64_t now, struct error *e)
{
	memcpy(&l->refused, l->r->header, sizeof(l->refused));
	return end(l, STATUS_BYTES, now, e);
}

static ssize_t take(struct link *l, void *to, uint64_t len, uint64_t now)
{
	ssize_t n = stream_read(l->s, to, len);

	if (n > 0) {
		l->r->used = true;
		l->received += (uint64_t)n;
		l->heard_ns = now;
	}
	return n;
}

/* The next bytes of the header, or of the status that answers CLOSE. */
static ssize_t take_header(struct link *l, uint64_t got, uint64_t now, struct error *e)
{
	const struct link_request *q = request(l, answer(l)->number);
	uint64_t len = q->npages ? l->r->layout : STATUS_BYTES;
	ssize_t n = take(l, l->r->header + got, len - got, now);
	int ret;

	if (n <= 0 || got + (uint64_t)n < len)
		return n;
	if (q->npages) {
		ret = begin(l, now, e);
		return ret ? ret : n;
	}
	ret = end_of_all(l, now, e);
	return ret ? ret : n;
}

/* The next bytes of pages. */
static ssize_t take_pages(struct link *l, uint64_t at, uint64_t now, struct error *e)
{
	const struct link_request *q = request(l, answer(l)->number);
	uint64_t len = l->npages << PAGE_SHIFT, where = q->where, whole;
	ssize_t n;
	int ret;

	if (l->to)
		n = take(l, l->to + at, len - at, now);
	else if (q->check)
		n = take(l, l->away + at, len - at, now);
	else
		n = take(l, l->away, MIN(len - at, AWAY), now);
	if (n <= 0)
		return n;
	whole = (at + (uint64_t)n) >> PAGE_SHIFT;
	if (l->to && whole > l->told) {
		l->user->arrived(l->ctx, where + l->told, whole - l->told);
		l->told = whole;
	}
	if (at + (uint64_t)n < len)
		return n;
	ret = end(l, l->r->layout + len, now, e);
	return ret ? ret : n;
}

int link_pump(struct link *l, uint64_t now, struct error *e)
{
	uint64_t before = l->received;

	for (;;) {
		uint64_t at = l->received - answer(l)->began;
		ssize_t n;

		if ((answer(l)->number + 1) * l->r->layout > l->sent) {
			char c;

			/* Nothing that was sent is due: what comes is wrong, the end is the end. */
			n = stream_read(l->s, &c, 1);
			if (n > 0)
				return error_set(e, -EPROTO, "bytes came that nobody asked for");
		} else if (!l->npages) {
			n = take_header(l, at, now, e);
		} else {
			n = take_pages(l, at - l->r->layout, now, e);
		}
		if (n == -EAGAIN)
			return 0;
		if (n == 0)
			return error_set(e, -ECONNRESET, "the server closed the connection");
		if (n < 0 && e->code)
			return (int)n;
		if (n == -EACCES)
			return error_set(e, -EACCES, "the server refuses our certificate");
		if (n < 0)
			return error_errno(e, (int)n, "receiving");
		if (l->closed)
			return 0;
		/* The rest is still there when the next requests are on their way. */
		if (l->received - before > PUMP_BYTES && !stream_pending(l->s))
			return 0;
	}
}

int link_resume(struct link *l, uint64_t now, struct error *e)
{
	struct link_record *r = l->r;
	uint64_t sent, received, header = r->layout, at;

	if (!r->used)
		return 0;
	if (r->asked && answer(l)->number == r->asked && !request(l, r->asked - 1)->npages) {
		/* After the end nothing is sent or read, and the connection may be half closed. */
		memcpy(&l->refused, r->header, sizeof(l->refused));
		l->closed = true;
		l->sent = r->asked * header;
		l->received = answer(l)->began;
		return 0;
	}
	if (!r->exact || link_count(r->fd, &sent, &received))
		return error_set(e, -ENOTSUP, "the place in the stream cannot be found again");
	l->sent = sent - r->sent0;
	l->received = received - r->received0;
	/* A request that was written down and not sent is sent now: the ring says so. */
	if (l->sent > r->asked * header || l->received < answer(l)->began)
		return error_set(
			e, -EPROTO, "%llu bytes sent for %llu requests, %llu received of %llu",
			(unsigned long long)l->sent, (unsigned long long)r->asked,
			(unsigned long long)l->received, (unsigned long long)answer(l)->began);
	for (uint64_t n = answer(l)->number; n < r->asked; n++)
		l->stamp[n % LINK_RING] =
			pace_asked(&l->pace, (uint64_t)request(l, n)->npages << PAGE_SHIFT, now);
	l->resumed = r->asked;
	at = l->received - answer(l)->began;
	if (answer(l)->number == r->asked) {
		/* The source waits for our end, and for nothing else. */
		l->closed = r->asked && !request(l, r->asked - 1)->npages;
		return at ? error_set(e, -EPROTO, "bytes came that nobody asked for") : 0;
	}
	if (!request(l, answer(l)->number)->npages)
		return at < STATUS_BYTES ? 0 : end_of_all(l, now, e);
	if (at < header)
		return 0;
	if (begin(l, now, e))
		return -EPROTO;
	/* Pages that the other worker has read are with it: they are asked again. */
	l->to = NULL;
	/* It may have died between the last byte and the note of it. */
	if (at == header + (l->npages << PAGE_SHIFT))
		return end(l, at, now, e);
	return 0;
}

void link_each(const struct link *l, void (*fn)(void *ctx, const struct link_request *r))
{
	for (uint64_t n = answer(l)->number; n < l->r->asked; n++)
		if (is_for_pages(request(l, n)))
			fn(l->ctx, request(l, n));
}

int link_fd(const struct link *l)
{
	return stream_fd(l->s);
}

uint32_t link_events(const struct link *l)
{
	return EPOLLIN | (l->blocked ? EPOLLOUT : 0u);
}

const struct pace *link_pace(const struct link *l)
{
	return &l->pace;
}

const struct link_request *link_oldest(const struct link *l)
{
	const struct link_request *q = request(l, answer(l)->number);

	return link_outstanding(l) && is_for_pages(q) ? q : NULL;
}

uint64_t link_outstanding(const struct link *l)
{
	return l->r->asked - answer(l)->number;
}

uint64_t link_waits_since(const struct link *l)
{
	if (!link_outstanding(l))
		return 0;
	return MAX(l->heard_ns, l->stamp[answer(l)->number % LINK_RING].ns);
}

bool link_proven(const struct link *l)
{
	return l->proven;
}

bool link_closing(const struct link *l)
{
	return l->closed || (link_outstanding(l) && !request(l, l->r->asked - 1)->npages);
}

int link_refused(const struct link *l)
{
	return l->refused;
}

bool link_closed(const struct link *l)
{
	return l->closed;
}

void link_say_bye(struct link *l)
{
	stream_bye(l->s);
}
