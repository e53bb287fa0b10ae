/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Provider: where a page server has the bytes of lazy pages: image files, or the memory of the
 * frozen tasks themselves. Immutable once made; any thread may call.
 */
#ifndef PROVIDER_H
#define PROVIDER_H

#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct provider;

/* Pages that follow each other in the task and where they are. */
struct span {
	uint64_t npages; /* > 0 */
	int fd;		 /* a file to send them from, or -1: only read() has them */
	uint64_t offset; /* bytes, in that file; for read() whatever the provider wants to know */
};

struct provider_ops {
	int (*find)(struct provider *p, uint64_t pid, uint64_t vaddr, uint64_t npages,
		    struct span *span, struct error *e);
	int (*read)(struct provider *p, uint64_t pid, uint64_t vaddr, const struct span *span,
		    void *to, uint64_t npages, struct error *e);
	void (*close)(struct provider *p);
};

struct provider {
	const struct provider_ops *ops;
};

/*
 * What can be given at once of @npages pages from @vaddr on of the task that the images call @pid.
 * 0, -ESRCH: no such task, -EFAULT: the first page is not lazy or not held.
 */
static inline int provider_find(struct provider *p, uint64_t pid, uint64_t vaddr, uint64_t npages,
				struct span *span, struct error *e)
{
	return p->ops->find(p, pid, vaddr, npages, span, e);
}

/*
 * The bytes of the first @npages pages of a span that find() gave. May block. 0 or -errno; of those
 * -ESHUTDOWN: nobody gets any more, and why is for others to say.
 */
static inline int provider_read(struct provider *p, uint64_t pid, uint64_t vaddr,
				const struct span *span, void *to, uint64_t npages, struct error *e)
{
	return p->ops->read(p, pid, vaddr, span, to, npages, e);
}

static inline void provider_close(struct provider *p)
{
	if (p)
		p->ops->close(p);
}

struct checkpoint;
/* Out of the pages files of @c, which must outlive it. NULL without memory. */
struct provider *provider_images_new(const struct checkpoint *c);

#endif
