// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Worker threads: see serve_worker.h. The list of connections has a lock, for others add to it;
 * everything else of a connection belongs to the thread from the moment it is in the epoll.
 */
#include "serve_worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "clock.h"
#include "compiler.h"
#include "wake.h"

#define TURN	 (256u << 10) /* bytes a connection may move before it is the next one's turn */
#define EVENTS	 64
#define SWEEP_MS 1000 /* how often deadlines are looked at while there are any */

struct connection {
	struct client *client;
	int fd;
	struct connection *next, **link; /* of all; @link is what points here */
	struct connection *queue_next;
	bool queued;
	bool timed; /* counted in worker->timed */
};

struct serve_worker {
	const struct client_shared *shared;
	int epoll_fd, wake_fd, event_fd;
	pthread_t thread;
	bool has_thread;
	atomic_bool stop, drop;
	atomic_uint load, timed; /* connections; those that have a deadline */
	atomic_int verdict;
	pthread_mutex_t lock; /* protects the list of all connections */
	struct connection *all;
	/* Of the thread alone. */
	struct connection *queue, **queue_end; /* have more to do and wait for their turn */
	uint64_t swept_ns;
	struct serve_count count; /* but clients, which is under the lock */
};

static void list_insert(struct serve_worker *w, struct connection *c)
{
	pthread_mutex_lock(&w->lock);
	c->next = w->all;
	c->link = &w->all;
	if (c->next)
		c->next->link = &c->next;
	w->all = c;
	w->count.clients++;
	pthread_mutex_unlock(&w->lock);
}

static void list_remove(struct serve_worker *w, struct connection *c)
{
	pthread_mutex_lock(&w->lock);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	pthread_mutex_unlock(&w->lock);
}

static void note_deadline(struct serve_worker *w, struct connection *c)
{
	bool timed = client_deadline(c->client) != 0;

	if (timed != c->timed)
		atomic_fetch_add(&w->timed, timed ? 1u : -1u);
	c->timed = timed;
}

/* Frees it. */
static void connection_forget(struct serve_worker *w, struct connection *c)
{
	/* Somebody else may have the socket, too (--ps-socket): to close it is not enough. */
	epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	list_remove(w, c);
	if (c->timed)
		atomic_fetch_sub(&w->timed, 1);
	atomic_fetch_sub(&w->load, 1);
	client_free(c->client);
	free(c);
}

static void connection_end(struct serve_worker *w, struct connection *c)
{
	int verdict = client_verdict(c->client);
	struct client_count n = client_count(c->client);

	w->count.replies += n.replies;
	w->count.pages += n.pages;
	if (verdict >= 0)
		w->count.confirmed++;
	if (verdict > atomic_load(&w->verdict))
		atomic_store(&w->verdict, verdict);
	connection_forget(w, c);
	wake_fd(w->event_fd);
}

static void queue_push(struct serve_worker *w, struct connection *c)
{
	c->queued = true;
	c->queue_next = NULL;
	*w->queue_end = c;
	w->queue_end = &c->queue_next;
}

static struct connection *queue_pop(struct serve_worker *w)
{
	struct connection *c = w->queue;

	w->queue = c->queue_next;
	if (!w->queue)
		w->queue_end = &w->queue;
	c->queued = false;
	return c;
}

static void connection_run(struct serve_worker *w, struct connection *c, uint64_t now)
{
	switch (client_run(c->client, TURN, now)) {
	case CLIENT_ENDED:
		connection_end(w, c);
		return;
	case CLIENT_GOES_ON:
		queue_push(w, c);
		break;
	case CLIENT_WAITS:
		break;
	}
	note_deadline(w, c);
}

/* None of them is in the queue when this frees it: who waits for a turn is left to that turn. */
static void sweep(struct serve_worker *w, uint64_t now)
{
	struct connection *c, *next;

	w->swept_ns = now;
	pthread_mutex_lock(&w->lock);
	c = w->all;
	pthread_mutex_unlock(&w->lock);
	for (; c; c = next) {
		/* others only insert in front */
		next = c->next;
		if (c->queued || !client_deadline(c->client) || now < client_deadline(c->client))
			continue;
		client_expire(c->client);
		connection_end(w, c);
	}
}

static void end_all(struct serve_worker *w)
{
	w->queue = NULL;
	w->queue_end = &w->queue;
	for (;;) {
		struct connection *c;

		pthread_mutex_lock(&w->lock);
		c = w->all;
		pthread_mutex_unlock(&w->lock);
		if (!c)
			return;
		connection_end(w, c);
	}
}

static void take_event(struct serve_worker *w, struct connection *c, uint64_t now)
{
	uint64_t told;

	if (!c) {
		if (read(w->wake_fd, &told, sizeof(told)) < 0) {
			/* EAGAIN: taken already */
		}
	} else if (!c->queued && client_is_bulk(c->client)) {
		queue_push(w, c);
	} else if (!c->queued) {
		connection_run(w, c, now);
	}
}

static void *worker_thread(void *arg)
{
	struct serve_worker *w = arg;
	struct epoll_event events[EVENTS];

	while (!atomic_load(&w->stop)) {
		int wait_ms = w->queue ? 0 : atomic_load(&w->timed) ? SWEEP_MS : -1;
		int n = epoll_wait(w->epoll_fd, events, EVENTS, wait_ms);
		uint64_t now = now_ns();

		for (int i = 0; i < n; i++)
			take_event(w, events[i].data.ptr, now);
		if (w->queue)
			connection_run(w, queue_pop(w), now);
		if (atomic_exchange(&w->drop, false))
			end_all(w);
		if (atomic_load(&w->timed) && now - w->swept_ns >= SWEEP_MS * UINT64_C(1000000))
			sweep(w, now);
	}
	end_all(w);
	return NULL;
}

int serve_worker_new(struct serve_worker **out, const struct client_shared *shared, int event_fd,
		     struct error *e)
{
	struct serve_worker *w = calloc(1, sizeof(*w));
	struct epoll_event event = {.events = EPOLLIN};
	int ret;

	if (!w)
		return error_errno(e, -ENOMEM, "thread of the page server");
	w->shared = shared;
	w->event_fd = event_fd;
	w->verdict = -1;
	w->queue_end = &w->queue;
	pthread_mutex_init(&w->lock, NULL);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->wake_fd < 0 || w->epoll_fd < 0 ||
	    epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, &event))
		ret = -errno;
	else
		ret = -pthread_create(&w->thread, NULL, worker_thread, w);
	if (ret) {
		serve_worker_free(w, NULL);
		return error_errno(e, ret, "thread of the page server");
	}
	w->has_thread = true;
	*out = w;
	return 0;
}

void serve_worker_free(struct serve_worker *w, struct serve_count *count)
{
	if (!w)
		return;
	if (w->has_thread) {
		atomic_store(&w->stop, true);
		wake_fd(w->wake_fd);
		pthread_join(w->thread, NULL);
	}
	if (count) {
		count->clients += w->count.clients;
		count->confirmed += w->count.confirmed;
		count->replies += w->count.replies;
		count->pages += w->count.pages;
	}
	cleanup_close(&w->epoll_fd);
	cleanup_close(&w->wake_fd);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int serve_worker_add(struct serve_worker *w, struct stream *s, const char *peer, struct error *e)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				    .data.ptr = c};
	int ret;

	if (!c) {
		stream_free(s);
		return error_errno(e, -ENOMEM, "%s", peer);
	}
	c->fd = stream_fd(s);
	c->client = client_new(w->shared, s, peer, now_ns());
	if (!c->client) {
		free(c);
		return error_errno(e, -ENOMEM, "%s", peer);
	}
	atomic_fetch_add(&w->load, 1);
	note_deadline(w, c);
	list_insert(w, c);
	/* From here on the thread may have ended and freed it. */
	if (!epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, c->fd, &event))
		return 0;
	ret = -errno;
	connection_forget(w, c);
	return error_errno(e, ret, "%s: epoll", peer);
}

void serve_worker_drop_all(struct serve_worker *w)
{
	atomic_store(&w->drop, true);
	wake_fd(w->wake_fd);
}

unsigned serve_worker_load(const struct serve_worker *w)
{
	return atomic_load(&w->load);
}

int serve_worker_verdict(const struct serve_worker *w)
{
	return atomic_load(&w->verdict);
}
