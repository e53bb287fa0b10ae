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

#include "checkpoint.h"
#include "log.h"

struct source;

struct source_ops {
	int (*fetch)(struct source *s, uint64_t where, uint64_t npages, void *scratch,
		     const void **bytes);
	const void *(*in_memory)(struct source *s, uint64_t where, uint64_t npages);
	int (*want)(struct source *s, uint64_t where, uint64_t npages, bool urgent, int event_fd);
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
 * Asks for pages; @urgent for those that a task waits for. Writes 1 to @event_fd when fetch() is
 * worth another try. -EBUSY when the queue is full (try again later).
 */
static inline int source_want(struct source *s, uint64_t where, uint64_t npages, bool urgent,
			      int event_fd)
{
	return s->ops->want(s, where, npages, urgent, event_fd);
}

static inline void source_close(struct source *s)
{
	if (s)
		s->ops->close(s);
}

/* Local image files, which belong to @c and must outlive the source. NULL without memory. */
struct source *source_image_new(const struct checkpoint *c);

#endif
