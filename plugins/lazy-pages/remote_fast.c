// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The link that faults have for themselves, in the hands of the owner threads: see remote.h. An
 * owner that has sent a request on it watches it from then on; which owner takes an answer does not
 * matter, the others are told.
 */
#include <sys/epoll.h>

#include "clock.h"
#include "compiler.h"
#include "remote.h"

/* Caller holds the fast lock. */
static void unwatch(struct remote *r)
{
	for (unsigned i = 0; i < r->nwatch; i++) {
		if (r->watch[i].watching)
			epoll_ctl(r->watch[i].epoll_fd, EPOLL_CTL_DEL, link_fd(r->fast), NULL);
		r->watch[i].watching = false;
	}
}

void remote_fast_publish(struct remote *r, struct link *l)
{
	pthread_mutex_lock(&r->fast_lock);
	r->fast = l;
	r->fast_failed = false;
	pthread_mutex_unlock(&r->fast_lock);
}

void remote_fast_withdraw(struct remote *r)
{
	pthread_mutex_lock(&r->fast_lock);
	/* Its descriptor leaves their sets when it is closed, but may not be closed at once. */
	unwatch(r);
	r->fast = NULL;
	pthread_mutex_unlock(&r->fast_lock);
}

bool remote_fast_failed(struct remote *r, struct error *e)
{
	bool failed;

	pthread_mutex_lock(&r->fast_lock);
	failed = r->fast_failed;
	*e = r->fast_error;
	pthread_mutex_unlock(&r->fast_lock);
	return failed;
}

bool remote_fast_watched(struct remote *r)
{
	bool watched = false;

	pthread_mutex_lock(&r->fast_lock);
	for (unsigned i = 0; i < r->nwatch; i++)
		watched |= r->watch[i].watching;
	pthread_mutex_unlock(&r->fast_lock);
	return watched;
}

uint64_t remote_fast_waits_since(struct remote *r, uint64_t *rtt_ns)
{
	uint64_t since;

	pthread_mutex_lock(&r->fast_lock);
	since = r->fast ? link_waits_since(r->fast) : 0;
	*rtt_ns = r->fast ? link_pace(r->fast)->rtt_ns : 0;
	pthread_mutex_unlock(&r->fast_lock);
	return since;
}

/* The thread of the links takes it back. Caller holds the fast lock. */
static void failed(struct remote *r, const struct error *e)
{
	r->fast_failed = true;
	r->fast_error = *e;
	remote_kick(r);
}

/* Caller holds the fast lock. */
static void watch(struct remote *r, int event_fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	for (unsigned i = 0; i < r->nwatch; i++) {
		struct remote_watch *w = &r->watch[i];

		if (w->event_fd != event_fd || w->watching)
			continue;
		ev.data.ptr = w->tag;
		w->watching = !epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, link_fd(r->fast), &ev);
	}
}

/* Caller holds the fast lock. */
static void send_urgent(struct remote *r)
{
	uint64_t now = now_ns();
	struct error e = {0};

	while (link_outstanding(r->fast) < LINK_RING) {
		struct link_request q;
		bool any;

		pthread_mutex_lock(&r->lock);
		any = remote_pop(&r->urgent, &q);
		pthread_mutex_unlock(&r->lock);
		if (!any)
			break;
		link_ask(r->fast, q.where, q.npages, true, now);
	}
	if (link_flush(r->fast, &e))
		failed(r, &e);
}

bool remote_fast_send(struct remote *r, int event_fd)
{
	bool done = false;

	pthread_mutex_lock(&r->fast_lock);
	if (r->fast && !r->fast_failed) {
		send_urgent(r);
		watch(r, event_fd);
		done = true;
	}
	pthread_mutex_unlock(&r->fast_lock);
	return done;
}

void remote_fast_watch(struct source *source, int event_fd, int epoll_fd, void *tag)
{
	struct remote *r = (struct remote *)source;

	pthread_mutex_lock(&r->fast_lock);
	if (r->nwatch < REMOTE_ASKERS)
		r->watch[r->nwatch++] = (struct remote_watch){event_fd, epoll_fd, tag, false};
	pthread_mutex_unlock(&r->fast_lock);
}

void remote_fast_pump(struct source *source)
{
	struct remote *r = (struct remote *)source;
	struct error e = {0};

	pthread_mutex_lock(&r->fast_lock);
	if (r->fast && !r->fast_failed) {
		if (link_pump(r->fast, now_ns(), &e))
			failed(r, &e);
		else
			send_urgent(r); /* what came short */
	}
	/* Until it is taken back, nobody looks at it again. */
	if (r->fast && r->fast_failed)
		unwatch(r);
	pthread_mutex_unlock(&r->fast_lock);
}
