// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The owners' side of the page server: find pages in the store, ask for those that are not there.
 * See source_remote.h, remote.h.
 */
#include "source_remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "remote.h"
#include "wake.h"

#define BUSY_NS UINT64_C(10000000) /* after a fault the background holds back for so long */

bool remote_push(struct remote_queue *q, const struct link_request *r)
{
	if (q->n == REMOTE_QUEUE)
		return false;
	q->v[(q->head + q->n++) % REMOTE_QUEUE] = *r;
	return true;
}

bool remote_pop(struct remote_queue *q, struct link_request *r)
{
	if (!q->n)
		return false;
	*r = q->v[q->head];
	q->head = (q->head + 1) % REMOTE_QUEUE;
	q->n--;
	return true;
}

uint64_t remote_bulk_limit(const struct remote *r, uint64_t now)
{
	return now - r->urgent_ns < BUSY_NS ? r->busy_limit : r->bulk_limit;
}

void remote_tell(struct remote *r, uint64_t askers)
{
	for (; askers; askers &= askers - 1)
		wake_fd(r->asker[__builtin_ctzll(askers)]);
}

void remote_kick(struct remote *r)
{
	if (atomic_exchange(&r->asleep, false))
		wake_fd(r->event_fd);
}

/* The bit of an asker, 0 for nobody. Caller holds the lock. More than there are bits for share the
 * last one. */
static uint64_t asker_bit(struct remote *r, int event_fd)
{
	unsigned i = 0;

	if (event_fd < 0)
		return 0;
	while (i < r->naskers && r->asker[i] != event_fd)
		i++;
	if (i == r->naskers && i < REMOTE_ASKERS)
		r->asker[r->naskers++] = event_fd;
	return UINT64_C(1) << MIN(i, REMOTE_ASKERS - 1u);
}

/* What was fetched into @scratch before is not read any more. Caller holds the lock. */
static struct remote_pin *unpin(struct remote *r, const void *scratch)
{
	struct remote_pin *p = r->pin;

	while (p->scratch && p->scratch != scratch && p < &r->pin[REMOTE_ASKERS])
		p++;
	if (p->chunk)
		p->chunk->pins--;
	*p = (struct remote_pin){.scratch = scratch};
	return p;
}

static int remote_fetch(struct source *source, uint64_t where, uint64_t npages, void *scratch,
			const void **bytes)
{
	struct remote *r = (struct remote *)source;
	uint64_t done = 0, n;
	struct remote_pin *p;

	pthread_mutex_lock(&r->lock);
	p = unpin(r, scratch);
	for (; done < npages; done += n) {
		struct chunk *c = store_find(r->store, where + done);
		uint64_t mask;

		n = MIN(chunk_rest(where + done), npages - done);
		mask = chunk_mask(where + done, n);
		if (!c || mask & ~c->here)
			break;
		c->taken |= mask;
		if (n == npages) {
			c->pins++;
			p->chunk = c;
			*bytes = chunk_bytes(c, where);
		} else {
			memcpy((char *)scratch + (done << PAGE_SHIFT), chunk_bytes(c, where + done),
			       n << PAGE_SHIFT);
			*bytes = scratch;
		}
	}
	pthread_mutex_unlock(&r->lock);
	return done < npages ? -EAGAIN : 0;
}

/* Makes requests for the pages of @need, run by run. False: the queue is full. Caller holds the
 * lock. */
static bool queue_runs(struct remote *r, struct chunk *c, uint64_t need, bool urgent)
{
	while (need) {
		unsigned from = (unsigned)__builtin_ctzll(need);
		uint64_t rest = ~(need >> from), n = rest ? (uint64_t)__builtin_ctzll(rest) : 64;
		struct link_request q;

		n = MIN(n, UINT64_C(64) - from);
		q = (struct link_request){
			.where = c->base + from, .npages = (uint16_t)n, .urgent = urgent};
		if (!remote_push(urgent ? &r->urgent : &r->bulk, &q))
			return false;
		need &= ~chunk_mask(q.where, n);
		c->asked |= chunk_mask(q.where, n);
		c->inflight++;
		r->bulk_pages += urgent ? 0 : n;
	}
	return true;
}

/*
 * Somebody waits for a page that is queued with the background: its request goes in front, with
 * all that it asks for. False: it is on the wire. Caller holds the lock.
 */
static bool promote(struct remote *r, uint64_t where)
{
	struct remote_queue *b = &r->bulk;

	for (unsigned i = 0; i < b->n; i++) {
		struct link_request *q = &b->v[(b->head + i) % REMOTE_QUEUE], moved = *q;

		if (where < q->where || where >= q->where + q->npages)
			continue;
		moved.urgent = true;
		if (!remote_push(&r->urgent, &moved))
			return true;
		r->bulk_pages -= moved.npages;
		for (; i + 1 < b->n; i++)
			b->v[(b->head + i) % REMOTE_QUEUE] = b->v[(b->head + i + 1) % REMOTE_QUEUE];
		b->n--;
		return true;
	}
	return false;
}

/*
 * A page that somebody waits for is on the wire behind others: with a second link it is asked for
 * there as well, once, and comes on whichever is faster. Caller holds the lock.
 */
static void ask_twice(struct remote *r, struct chunk *c, uint64_t where)
{
	struct link_request q = {.where = where, .npages = 1, .urgent = true};

	if (r->state.links < 2 || c->doubled & chunk_mask(where, 1) || !remote_push(&r->urgent, &q))
		return;
	c->doubled |= chunk_mask(where, 1);
	c->inflight++;
}

/* Whether more background may be asked for. Caller holds the lock. */
static bool has_room(struct remote *r)
{
	if (r->bulk_pages >= remote_bulk_limit(r, now_ns()))
		return false;
	if (store_fresh(r->store) < store_chunks(r->store) / 2)
		return true;
	/* Pages that nobody fetches: their task has gone, or has them already. */
	if (!r->bulk_pages)
		store_forget_fresh(r->store);
	return false;
}

/* The part of a request that lies in one chunk. Caller holds the lock. */
static int want_in_chunk(struct remote *r, uint64_t where, uint64_t npages, bool urgent,
			 uint64_t asker, bool *here)
{
	struct chunk *c = store_find(r->store, where);
	uint64_t mask = chunk_mask(where, npages), need = mask & ~(c ? c->here | c->asked : 0);

	if (need && ((!urgent && !has_room(r)) || !(c = store_make(r->store, where)))) {
		r->room_waiters |= asker;
		return -EAGAIN;
	}
	*here &= !(mask & ~c->here);
	if (mask & ~c->here)
		c->waiters |= asker;
	if (urgent)
		c->urgent |= mask & ~c->here;
	if (need && !queue_runs(r, c, need, urgent)) {
		r->room_waiters |= asker;
		return -EAGAIN;
	}
	if (!need && urgent && mask & c->asked && !promote(r, where))
		ask_twice(r, c, where);
	return 0;
}

static int remote_want(struct source *source, uint64_t where, uint64_t npages, bool urgent,
		       int event_fd)
{
	struct remote *r = (struct remote *)source;
	bool here = true;
	uint64_t asker, n;
	int ret = 0;

	pthread_mutex_lock(&r->lock);
	asker = asker_bit(r, event_fd);
	store_keep(r->store, r->j->tasks_forked);
	if (urgent)
		r->urgent_ns = now_ns();
	for (uint64_t done = 0; done < npages && !ret; done += n) {
		n = MIN(chunk_rest(where + done), npages - done);
		ret = want_in_chunk(r, where + done, n, urgent, asker, &here);
	}
	pthread_mutex_unlock(&r->lock);
	if (!ret && here) {
		if (event_fd >= 0)
			wake_fd(event_fd);
	} else if (!urgent || !remote_fast_send(r, event_fd)) {
		remote_kick(r);
	}
	return ret;
}

static int remote_finish(struct source *source, bool held, int event_fd)
{
	struct remote *r = (struct remote *)source;
	int ret;

	pthread_mutex_lock(&r->lock);
	if (r->end == END_NOT_ASKED)
		r->end = END_ASKED;
	r->end_fd = event_fd;
	r->end_held = held;
	ret = r->end == END_TOLD ? 0 : -EAGAIN;
	pthread_mutex_unlock(&r->lock);
	remote_kick(r);
	return ret;
}

static void remote_state(struct source *source, struct source_state *state)
{
	struct remote *r = (struct remote *)source;

	pthread_mutex_lock(&r->lock);
	*state = r->state;
	pthread_mutex_unlock(&r->lock);
}

static void remote_free(struct remote *r)
{
	store_free(r->store);
	cleanup_close(&r->event_fd);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->fast_lock);
	free(r);
}

static void remote_close(struct source *source)
{
	struct remote *r = (struct remote *)source;

	atomic_store(&r->stop, true);
	remote_kick(r);
	pthread_join(r->thread, NULL);
	remote_free(r);
}

struct source *source_remote_new(struct remote_start *start, const struct checkpoint *c,
				 struct journal *j, const struct log *log)
{
	static const struct source_ops ops = {
		.fetch = remote_fetch,
		.want = remote_want,
		.watch = remote_fast_watch,
		.pump = remote_fast_pump,
		.finish = remote_finish,
		.state = remote_state,
		.close = remote_close,
	};
	struct remote *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->source.ops = &ops;
	r->c = c;
	r->log = log;
	r->j = j;
	r->start = start;
	r->end_fd = -1;
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->fast_lock, NULL);
	r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->store = store_new(REMOTE_CHUNKS);
	if (r->store && r->event_fd >= 0 &&
	    !pthread_create(&r->thread, NULL, remote_links_thread, r))
		return &r->source;
	remote_free(r);
	return NULL;
}
