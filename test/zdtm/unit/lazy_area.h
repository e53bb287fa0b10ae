/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A task whose memory arrives in this very process: an armed area, and a source that has the bytes
 * in memory and can be made to wait, or to have nothing. Made from worker_parts.h.
 */
#ifndef LAZY_AREA_H
#define LAZY_AREA_H

#include "worker_parts.h"

#include <errno.h>
#include <stdatomic.h>

struct memory_source {
	struct source source;
	const char *bytes; /* of page 0 */
	atomic_uint fetches;
	atomic_int error;    /* what fetch returns, or 0 */
	atomic_bool hold;    /* fetches wait while it is set */
	atomic_uint waiting; /* fetches that do */
};

struct lazy_area {
	struct parts p;
	struct memory_source source;
	struct task *t;
	uint64_t npages;
	char *bytes; /* what the pages are to hold */
	char *p0;    /* where they are */
};

static inline int memory_fetch(struct source *source, uint64_t where, uint64_t npages,
			       void *scratch, const void **bytes)
{
	struct memory_source *s = (struct memory_source *)source;

	atomic_fetch_add(&s->fetches, 1);
	atomic_fetch_add(&s->waiting, 1);
	while (atomic_load(&s->hold))
		usleep(100);
	atomic_fetch_sub(&s->waiting, 1);
	if (atomic_load(&s->error))
		return atomic_load(&s->error);
	memcpy(scratch, s->bytes + WHERE_PAGE(where) * PAGE_SIZE, npages * PAGE_SIZE);
	*bytes = scratch;
	return 0;
}

static inline int memory_want(struct source *source, uint64_t where, uint64_t npages, bool urgent,
			      int event_fd)
{
	(void)source;
	(void)where;
	(void)npages;
	(void)urgent;
	(void)event_fd;
	return 0;
}

/* Page @i of an area: not zero, and not like any other. */
static inline void area_fill(char *page, uint64_t i)
{
	for (uint64_t k = 0; k < PAGE_SIZE / 8; k++)
		((uint64_t *)page)[k] = (i + 1) << 32 | (k + 1);
}

/* The area is owned by the first owner; the mapping is in @regions pieces of equal size. */
static inline void area_begin(struct lazy_area *a, uint64_t npages, unsigned regions)
{
	static const struct source_ops ops = {.fetch = memory_fetch, .want = memory_want};
	struct checkpoint_task *image;
	struct task_record *r;
	struct region v[16];
	int slot;

	memset(a, 0, sizeof(*a));
	a->npages = npages;
	a->bytes = aligned_alloc(PAGE_SIZE, npages * PAGE_SIZE);
	for (uint64_t i = 0; i < npages; i++)
		area_fill(a->bytes + i * PAGE_SIZE, i);
	a->p0 = mmap(NULL, npages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	a->source.source.ops = &ops;
	a->source.bytes = a->bytes;
	a->p.w.source = &a->source.source;
	parts_begin(&a->p);
	a->p.w.source = &a->source.source;
	image = parts_task(&a->p, 100);
	parts_vma(image, (uint64_t)a->p0, npages);
	parts_lazy(image, (uint64_t)a->p0, npages, WHERE(0, 0));
	assert_int_equal(extents_seal(&image->extents, NULL), 0);
	for (unsigned i = 0; i < regions; i++) {
		uint64_t start = (uint64_t)a->p0 + npages / regions * i * PAGE_SIZE;

		v[i] = (struct region){start, start + npages / regions * PAGE_SIZE, start};
	}
	r = journal_record_new(a->p.w.journal, owed_new(a->p.arena, npages), v, regions);
	assert_non_null(r);
	r->uffd = parts_uffd();
	parts_arm(r->uffd, a->p0, npages);
	slot = task_register(&a->p.w, r);
	assert_int_equal(slot, 0);
	a->p.w.journal->restore_finished = true;
	a->t = task_open(&a->p.w, slot);
	assert_non_null(a->t);
	a->t->owner = a->p.owners[0];
	a->t->guard_tried = true; /* nobody looks for guards */
}

static inline void area_end(struct lazy_area *a)
{
	close(a->t->rec->uffd);
	task_free(a->t);
	parts_end(&a->p);
	munmap(a->p0, a->npages * PAGE_SIZE);
	free(a->bytes);
}

static inline bool area_has(const struct lazy_area *a, uint64_t page)
{
	unsigned char in_core;

	assert_int_equal(mincore(a->p0 + page * PAGE_SIZE, PAGE_SIZE, &in_core), 0);
	return in_core & 1;
}

/* Pages that are there, all of which must be right and no longer owed. */
static inline uint64_t area_placed(const struct lazy_area *a)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < a->npages; i++) {
		assert_int_equal(area_has(a, i), !owed_test(a->t->rec->owed, i));
		if (!area_has(a, i))
			continue;
		n++;
		assert_memory_equal(a->p0 + i * PAGE_SIZE, a->bytes + i * PAGE_SIZE, PAGE_SIZE);
	}
	return n;
}

static inline uint64_t area_tally(const struct lazy_area *a)
{
	struct tally sum;

	worker_tally(&a->p.w, &sum);
	assert_int_equal(sum.existed, 0); /* nothing was placed twice */
	return sum.placed[CAUSE_BACKGROUND] + sum.placed[CAUSE_NEIGHBOUR];
}

#endif
