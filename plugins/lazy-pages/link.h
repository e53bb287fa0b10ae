/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Link: one connection to a page server as its client. Requests go out in order and answers come
 * back in that order; an answer may be shorter than asked. All that must outlive a worker is in the
 * record: what has been asked, and the header of the answer under way. How many bytes have gone and
 * come is known by the kernel (TCP_INFO), so that a new worker goes on in mid-answer, to the byte.
 *
 * One thread uses a link; it calls back into its user as bytes come. Nothing here waits.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "pace.h"
#include "stream.h"
#include "wire.h"

#define LINK_RING 1024 /* requests that may be unanswered */

struct link_request {
	uint64_t where;	 /* of its first page: file (a task of the page server) and page */
	uint16_t npages; /* 0: it is CLOSE */
	uint16_t urgent; /* of CLOSE: WIRE_HELD, see link_close() */
	uint32_t check;	 /* only to see whether the page is what it was: link_check() */
};

/*
 * Starts with zeros. In the journal for the connection that must not be lost, in private memory for
 * others. Request number n is in ring[n % LINK_RING].
 */
struct link_record {
	int fd;
	bool open;		   /* fd is a connection that must be kept */
	bool replaceable;	   /* the server takes other connections: this one may be lost */
	bool remade;		   /* there was another one before */
	bool used;		   /* a worker has sent or read something */
	bool exact;		   /* the kernel counts its bytes: TCP, not TLS */
	uint32_t layout;	   /* enum wire_layout */
	uint64_t sent0, received0; /* the kernel's counts when it was new */
	uint64_t asked;		   /* requests in the ring, ever; the commit point of one */
	/* Where the answer under way began, in bytes received, and its request's number. */
	struct link_answer {
		uint64_t began, number;
	} answer[2];
	uint32_t active; /* which of the two is in force: the commit point of an answer */
	unsigned char header[WIRE_HEADER_MAX];
	struct link_request ring[LINK_RING];
};

/* What the user of a link is asked and told, in the thread that calls link_pump(). */
struct link_user {
	/* The image pid of the task that @where is of. */
	uint64_t (*pid)(void *ctx, uint64_t where);
	/* Where to put @npages pages from @where on, which stays until answered(); NULL: away. */
	void *(*room)(void *ctx, uint64_t where, uint64_t npages);
	/* They have come, into that room. */
	void (*arrived)(void *ctx, uint64_t where, uint64_t npages);
	/* No more of the pages of @r will come: its answer is complete, or the link is lost. */
	void (*answered)(void *ctx, const struct link_request *r);
	/* Whether the page at @where is what it was when it came before: link_check(). */
	bool (*same)(void *ctx, uint64_t where, const void *page);
};

struct link;

/* @r holds an open descriptor, which @s wraps. Takes over both. NULL without memory. */
struct link *link_new(struct link_record *r, struct stream *s, const struct link_user *user,
		      void *ctx);
/* Every request that has no answer is told as lost; closes the connection. */
void link_free(struct link *l);
/* The same, but the connection stays open, and in the record: nobody uses it any more. */
void link_park(struct link *l);

/*
 * After a change of workers, for a record that was used: finds the place in both directions. 0;
 * -ENOTSUP: it cannot be found (TLS, unix), and the link must be left alone; -EPROTO.
 */
int link_resume(struct link *l, uint64_t now_ns, struct error *e);
/* The requests for pages that have no answer yet. */
void link_each(const struct link *l, void (*fn)(void *ctx, const struct link_request *r));

/* Puts a request into the ring. -ENOBUFS when it is full. link_flush() sends. */
int link_ask(struct link *l, uint64_t where, uint64_t npages, bool urgent, uint64_t now_ns);
/*
 * Asks for a page that has come before, to see whether the same source is at the other end: if it
 * is not the same, link_pump() says -EPROTO before it takes anything that was asked later.
 */
int link_check(struct link *l, uint64_t where, uint64_t now_ns);
/* What a close is from now on: stream_reset_on_close(). */
void link_reset_on_close(struct link *l, bool on);
/*
 * Asks for the end; its answer makes link_closed() true. @held: every page is in its place, or was
 * given up by a task that lived. Otherwise it may be that there is no copy here any more, and a
 * server that can keep the source does: link_refused().
 */
int link_close(struct link *l, bool held, uint64_t now_ns);
/* Sends what can be sent. 0, or why the connection is lost. */
int link_flush(struct link *l, struct error *e);
/* Takes what has come. 0, or why the connection is lost (-EPROTO: the server lies). */
int link_pump(struct link *l, uint64_t now_ns, struct error *e);

int link_fd(const struct link *l);
uint32_t link_events(const struct link *l); /* EPOLLIN, and EPOLLOUT when there is more to send */
const struct pace *link_pace(const struct link *l);
/* The request for pages that has been without an answer for longest, or NULL. */
const struct link_request *link_oldest(const struct link *l);
/* Requests without an answer. */
uint64_t link_outstanding(const struct link *l);
/* When bytes came last, or the oldest request was asked, whichever is later; 0: nothing is due. */
uint64_t link_waits_since(const struct link *l);
bool link_proven(const struct link *l);	 /* at least one answer has come */
bool link_closing(const struct link *l); /* CLOSE has been asked */
bool link_closed(const struct link *l);	 /* and answered */
int link_refused(const struct link *l);	 /* with this instead of 0 */
/* The orderly end after link_closed(): the peer sees a plain close. */
void link_say_bye(struct link *l);

/* The kernel's counts of a TCP connection: bytes handed to it, bytes taken from it. -ENOTSUP. */
int link_count(int fd, uint64_t *sent, uint64_t *received);
/* Whether a TCP connection is over, so that nothing is lost with its descriptor. */
bool link_is_gone(int fd);
/* Fills the record of a new connection; whether it is replaceable is as it was. */
void link_record_open(struct link_record *r, int fd, enum wire_layout layout, bool tls);

#endif
