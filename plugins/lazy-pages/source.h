/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source: where bytes come from. fetch() never waits: it has the bytes, or says -EAGAIN, and then
 * want() asks for them in the background and the asker's eventfd is written when it is worth
 * trying again. So an owner thread goes on answering other faults while a disk or a link is slow.
 *
 * Any thread may call; the source does its own locking, never across a wait.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "checkpoint.h"
#include "log.h"

struct source;

/* How a source at another machine is doing. */
struct source_state {
	bool remote;	   /* else nothing else is set */
	bool lost;	   /* no link */
	bool parked;	   /* a link that is kept and cannot be used: source_remote.c */
	uint64_t since_ns; /* CLOCK_MONOTONIC, of the last change of the two */
	unsigned links;	   /* in use */
	uint64_t lost_times;
	uint64_t rtt_ns, rate, window; /* of the background's link; bytes a second, bytes */
	char why[512];		       /* the last loss */
	char address[160];
};

struct source_ops {
	int (*fetch)(struct source *s, uint64_t where, uint64_t npages, void *scratch,
		     const void **bytes);
	const void *(*in_memory)(struct source *s, uint64_t where, uint64_t npages);
	int (*want)(struct source *s, uint64_t where, uint64_t npages, bool urgent, int event_fd);
	/* May be NULL: nothing to watch, no end to tell, nothing to say. */
	void (*watch)(struct source *s, int event_fd, int epoll_fd, void *tag);
	void (*pump)(struct source *s);
	int (*finish)(struct source *s, bool held, int event_fd);
	void (*state)(struct source *s, struct source_state *state);
	void (*close)(struct source *s);
};

struct source {
	const struct source_ops *ops;
};

/*
 * Bytes of @npages pages from @where on. *bytes points into @scratch (room for @npages pages) or
 * into memory of the source that stays valid until the next fetch with the same scratch. 0;
 * -EAGAIN when they are not here yet; any other -errno when they could not be had just now
 * (-ENODATA: the file ends before them).
 */
static inline int source_fetch(struct source *s, uint64_t where, uint64_t npages, void *scratch,
			       const void **bytes)
{
	return s->ops->fetch(s, where, npages, scratch, bytes);
}

/*
 * The same bytes without a copy, in memory of the source that stays mapped as long as it does; NULL
 * if not all of them can be had so, or fewer than are in the file. Worth asking for several pages.
 */
static inline const void *source_in_memory(struct source *s, uint64_t where, uint64_t npages)
{
	return s->ops->in_memory ? s->ops->in_memory(s, where, npages) : NULL;
}

/*
 * Asks for pages, all of them owed and in one extent; @urgent for those that a task waits for.
 * Writes 1 to @event_fd when fetch() is worth another try. Asking again for what is under way costs
 * nothing. -EBUSY when the queue is full (try again later); -EAGAIN: not asked, but @event_fd will
 * be written when it is worth asking. @event_fd may be -1: nobody is told.
 */
static inline int source_want(struct source *s, uint64_t where, uint64_t npages, bool urgent,
			      int event_fd)
{
	return s->ops->want(s, where, npages, urgent, event_fd);
}

/*
 * An owner's descriptors: the one that it gives to want(), and the epoll set that it waits with.
 * The source may put descriptors of its own into that set, with @tag; when one has something, the
 * owner calls source_pump() and then looks again for what it waits for.
 */
static inline void source_watch(struct source *s, int event_fd, int epoll_fd, void *tag)
{
	if (s->ops->watch)
		s->ops->watch(s, event_fd, epoll_fd, tag);
}

static inline void source_pump(struct source *s)
{
	if (s->ops->pump)
		s->ops->pump(s);
}

/*
 * All is over: tells who has to know. @held: every page is in its place, or was given up by a task
 * that lived; else there may be no copy here. 0 when there is nothing (more) to tell; -EAGAIN
 * when it is being told, and 1 will be written to @event_fd.
 */
static inline int source_finish(struct source *s, bool held, int event_fd)
{
	return s->ops->finish ? s->ops->finish(s, held, event_fd) : 0;
}

static inline void source_state(struct source *s, struct source_state *state)
{
	memset(state, 0, sizeof(*state));
	if (s->ops->state)
		s->ops->state(s, state);
}

static inline void source_close(struct source *s)
{
	if (s)
		s->ops->close(s);
}

/* Local image files, which belong to @c and must outlive the source. NULL without memory. */
struct source *source_image_new(const struct checkpoint *c);
/*
 * Some pages in files, the others at a page server (pages_file.pid): @image and @remote, which it
 * owns from then on. NULL without memory (then both are closed).
 */
struct source *source_chain_new(const struct checkpoint *c, struct source *image,
				struct source *remote);

#endif
