// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a link is told and tells, whichever it is: where bytes are to go, what has come, what is to
 * be asked again. Called by link_pump(), in the thread that has the link. See remote.h.
 */
#include "compiler.h"
#include "remote.h"

static uint64_t user_pid(void *ctx, uint64_t where)
{
	const struct remote *r = ctx;

	return (uint64_t)r->c->files[WHERE_FILE(where)].pid;
}

static void *user_room(void *ctx, uint64_t where, uint64_t npages)
{
	struct remote *r = ctx;
	struct chunk *c;
	void *to = NULL;

	pthread_mutex_lock(&r->lock);
	c = store_find(r->store, where);
	if (c && chunk_mask(where, npages) & ~c->here)
		to = chunk_bytes(c, where);
	pthread_mutex_unlock(&r->lock);
	return to;
}

static void user_arrived(void *ctx, uint64_t where, uint64_t npages)
{
	struct remote *r = ctx;
	uint64_t mask = chunk_mask(where, npages), askers = 0;
	struct chunk *c;

	pthread_mutex_lock(&r->lock);
	c = store_find(r->store, where);
	c->here |= mask;
	c->asked &= ~mask;
	identity_learn(&r->j->identity, where, chunk_bytes(c, where));
	if (c->urgent & mask) {
		c->urgent &= ~mask;
		askers = c->waiters;
	}
	pthread_mutex_unlock(&r->lock);
	remote_tell(r, askers);
}

/* What has not come is still wanted: back into the queue with it. */
static void user_answered(void *ctx, const struct link_request *q)
{
	struct remote *r = ctx;
	struct link_request left = *q;
	uint64_t askers = 0, missing;
	struct chunk *c;

	pthread_mutex_lock(&r->lock);
	c = store_find(r->store, q->where);
	c->inflight--;
	if (!q->urgent)
		r->bulk_pages -= q->npages;
	missing = chunk_mask(q->where, q->npages) & ~c->here;
	if (missing) {
		unsigned first = (unsigned)__builtin_ctzll(missing);
		unsigned end = 64 - (unsigned)__builtin_clzll(missing);

		/* Answers come from the front, so this is one run; if not, it is asked again. */
		left.where = c->base + first;
		left.npages = (uint16_t)(end - first);
		c->asked |= missing;
		if (remote_push(q->urgent ? &r->urgent : &r->bulk, &left)) {
			c->inflight++;
			r->bulk_pages += q->urgent ? 0 : left.npages;
		} else {
			c->asked &= ~missing;
		}
	}
	if (missing != chunk_mask(q->where, q->npages) || !(c->asked & missing)) {
		askers = c->waiters;
		c->waiters = missing || c->asked ? c->waiters : 0;
	}
	pthread_mutex_unlock(&r->lock);
	remote_tell(r, askers);
}

static bool user_same(void *ctx, uint64_t where, const void *page)
{
	struct remote *r = ctx;
	bool same;

	pthread_mutex_lock(&r->lock);
	same = identity_same(&r->j->identity, where, page);
	pthread_mutex_unlock(&r->lock);
	return same;
}

const struct link_user remote_arrivals = {user_pid, user_room, user_arrived, user_answered,
					  user_same};
