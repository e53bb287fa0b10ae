// SPDX-License-Identifier: GPL-2.0-or-later
/* Making connections, and making them again: see connector.h. */
#include "connector.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "link_watch.h"
#include "stream.h"
#include "wake.h"

#define PAUSE_MIN_MS   20
#define PAUSE_MAX_MS   320 /* half as much more at most */
#define ATTEMPT_MIN_MS 500 /* a first packet that is lost is sent again only after a second */
#define ATTEMPT_MAX_MS 4000
#define YOUNG_NS       UINT64_C(250000000)
/* A connection that is lost sooner was none, and is an attempt that has failed: the peer closes it
 * as soon as it has looked at our certificate, say. That takes a round trip, and a longer one is a
 * pause of its own. */
#define SHORT_LIFE_NS UINT64_C(100000000)

struct connector {
	const struct peer *peer;
	int event_fd; /* the user's */
	int kick_fd;
	struct link_watch *watch;
	pthread_t thread;
	pthread_mutex_t lock; /* protects what follows */
	bool wanted, until, stop, failed;
	struct stream *made;
	struct error last;
};

/* What may cut an attempt short, beside its time: each may be missing. */
struct cut {
	int kick_fd;
	struct link_watch *watch;
};

/* Waits for the stream or for news of the network. False: a kick, or the time. */
static bool wait_for(const struct stream *s, const struct cut *c, int timeout_ms, bool *news)
{
	struct pollfd p[] = {
		{.fd = stream_fd(s), .events = stream_events(s) & EPOLLOUT ? POLLOUT : POLLIN},
		{.fd = c->kick_fd, .events = POLLIN},
		{.fd = c->watch ? link_watch_fd(c->watch) : -1, .events = POLLIN}};

	if (poll(p, 3, timeout_ms) <= 0 || p[1].revents)
		return false;
	*news |= p[2].revents && link_watch_read(c->watch);
	return true;
}

/*
 * One attempt. What it has sent before there were news may have gone nowhere, and would be sent
 * again only after seconds: then it ends with -ENETRESET, unless it is young.
 */
static struct stream *attempt(const struct peer *p, const struct cut *c, int timeout_ms,
			      struct error *e)
{
	uint64_t began = now_ns(), end = began + (uint64_t)timeout_ms * 1000000;
	bool news = false;
	struct stream *s;
	int ret, fd = net_connect(&p->address, e);

	if (fd < 0)
		return NULL;
	s = stream_new(fd, p->tls, false, p->host);
	if (!s) {
		error_errno(e, -ENOMEM, "%s", p->address.text);
		return NULL;
	}
	while ((ret = stream_handshake(s, e)) == -EAGAIN) {
		uint64_t now = now_ns(), until = news ? MIN(end, began + YOUNG_NS) : end;

		if (now < until && wait_for(s, c, (int)((until - now) / 1000000) + 1, &news))
			continue;
		ret = news ? error_set(e, -ENETRESET, "the network has changed")
			   : error_errno(e, -ETIMEDOUT, "no answer within %d ms", timeout_ms);
		break;
	}
	if (!ret)
		return s;
	error_prefix(e, ret, "%s", p->address.text);
	stream_free(s);
	return NULL;
}

struct stream *peer_connect(const struct peer *p, int timeout_ms, struct error *e)
{
	return attempt(p, &(struct cut){.kick_fd = -1}, timeout_ms, e);
}

/* Also takes kicks that have come, for they are about what is looked at here. */
static bool is_wanted(struct connector *c, bool *until, bool *stop)
{
	uint64_t count;
	bool wanted;

	pthread_mutex_lock(&c->lock);
	(void)!read(c->kick_fd, &count, sizeof(count));
	*stop = c->stop;
	*until = c->until;
	wanted = c->wanted && !c->made && !c->stop;
	pthread_mutex_unlock(&c->lock);
	return wanted;
}

/* Waits for a kick, news of the network, or the time. True: try at once. */
static bool pause_ms(struct connector *c, int ms)
{
	int watch_fd = c->watch ? link_watch_fd(c->watch) : -1;
	struct pollfd p[] = {{.fd = c->kick_fd, .events = POLLIN},
			     {.fd = watch_fd, .events = POLLIN}};
	uint64_t count, end = now_ns() + (uint64_t)(ms < 0 ? 0 : ms) * 1000000;

	while (poll(p, 2, ms) > 0) {
		if (p[0].revents)
			return read(c->kick_fd, &count, sizeof(count)) > 0;
		if (link_watch_read(c->watch))
			return true;
		if (ms >= 0) {
			uint64_t now = now_ns();

			ms = now < end ? (int)((end - now) / 1000000) : 0;
		}
	}
	return false;
}

/* Hands over what an attempt has brought. Returns whether there is to be another. */
static bool deliver(struct connector *c, struct stream *s, const struct error *e)
{
	bool again, news;

	pthread_mutex_lock(&c->lock);
	again = !s && c->until;
	if (!s)
		c->last = *e;
	c->made = s;
	c->wanted = again;
	c->failed = !s && !again;
	news = !again;
	pthread_mutex_unlock(&c->lock);
	if (news)
		wake_fd(c->event_fd);
	return again;
}

/* The pause after an attempt that has failed, the next one being longer. True: it was cut short. */
static bool pause_longer(struct connector *c, int *pause, unsigned *seed)
{
	int ms = *pause / 2 + (int)(rand_r(seed) % (unsigned)*pause);

	*pause = MIN(*pause * 2, PAUSE_MAX_MS);
	return pause_ms(c, ms);
}

static void *connector_thread(void *arg)
{
	struct connector *c = arg;
	int pause = PAUSE_MIN_MS, patience = ATTEMPT_MIN_MS;
	unsigned seed = (unsigned)now_ns();
	uint64_t made_ns = 0;
	bool until, stop = false;

	pthread_setname_np(pthread_self(), "lazy-connector");
	while (!stop) {
		struct cut cut = {.kick_fd = c->kick_fd};
		struct error e = {0};
		struct stream *s;

		if (!is_wanted(c, &until, &stop)) {
			if (!stop)
				pause_ms(c, -1);
			patience = ATTEMPT_MIN_MS;
			if (!made_ns || now_ns() - made_ns > SHORT_LIFE_NS)
				pause = PAUSE_MIN_MS;
			else
				pause_longer(c, &pause, &seed);
			continue;
		}
		cut.watch = until ? c->watch : NULL;
		s = attempt(c->peer, &cut, patience, &e);
		made_ns = s ? now_ns() : 0;
		if (!deliver(c, s, &e))
			continue;
		if (e.code == -ENETRESET) {
			patience = ATTEMPT_MIN_MS;
			continue;
		}
		if (e.code == -ETIMEDOUT)
			patience = MIN(patience * 2, ATTEMPT_MAX_MS);
		if (pause_longer(c, &pause, &seed))
			patience = ATTEMPT_MIN_MS;
	}
	return NULL;
}

struct connector *connector_new(const struct peer *p, int event_fd)
{
	struct connector *c = calloc(1, sizeof(*c));
	struct error e = {0};

	if (!c)
		return NULL;
	c->peer = p;
	c->event_fd = event_fd;
	c->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->watch = link_watch_open(&e);
	pthread_mutex_init(&c->lock, NULL);
	if (c->kick_fd >= 0 && !pthread_create(&c->thread, NULL, connector_thread, c))
		return c;
	link_watch_close(c->watch);
	cleanup_close(&c->kick_fd);
	free(c);
	return NULL;
}

void connector_free(struct connector *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_mutex_unlock(&c->lock);
	wake_fd(c->kick_fd);
	pthread_join(c->thread, NULL);
	stream_free(c->made);
	link_watch_close(c->watch);
	close(c->kick_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

void connector_want(struct connector *c, bool until)
{
	pthread_mutex_lock(&c->lock);
	c->wanted = true;
	c->until = until;
	c->failed = false;
	wake_fd(c->kick_fd); /* under the lock: a kick that came later would end the attempt */
	pthread_mutex_unlock(&c->lock);
}

bool connector_busy(struct connector *c)
{
	bool busy;

	pthread_mutex_lock(&c->lock);
	busy = c->wanted || c->made;
	pthread_mutex_unlock(&c->lock);
	return busy;
}

struct stream *connector_take(struct connector *c, bool *failed, struct error *e)
{
	struct stream *s;

	pthread_mutex_lock(&c->lock);
	s = steal_pointer(&c->made);
	*failed = c->failed;
	c->failed = false;
	*e = c->last;
	pthread_mutex_unlock(&c->lock);
	return s;
}
