// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages from local image files. What is in the page cache is read with RWF_NOWAIT, so the caller
 * never sleeps on a disk; what is not is read by one of two threads here, urgent requests first,
 * which brings it into the cache. A file system that cannot do RWF_NOWAIT is read plainly.
 *
 * A longer span that is wholly in the cache is not read but mapped, so that the kernel copies it
 * from the cache straight into the task. Should the file be truncated at that very moment, looking
 * at the bytes kills the worker; the next one finds nothing in the cache there and gets an error
 * from reading.
 */
#include "source.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "wake.h"

#define QUEUE	    256 /* requests of each kind that may wait */
#define READERS	    2
#define AHEAD_PAGES 2048	      /* told to the kernel beyond a bulk request: 8 MiB */
#define CHUNK	    (256 * PAGE_SIZE) /* read at once */
#define FAILED_NS   1000000000u	      /* how long a failed read is believed before the next try */

struct wanted {
	uint64_t where;
	uint64_t npages;
	int event_fd;
};

struct queue {
	struct wanted v[QUEUE];
	unsigned head, n;
};

struct source_image {
	struct source source;
	const struct checkpoint *c;
	atomic_bool plain;    /* RWF_NOWAIT is not supported */
	atomic_bool unmapped; /* cachestat(2) is not supported: nothing is mapped */
	char **map;	      /* of each file; MAP_FAILED where there is none */
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t more;
	struct queue urgent, bulk;
	unsigned readers;
	bool stop;
	pthread_t thread[READERS];
	/* The read that failed last; looked at only while has_failed. */
	atomic_bool has_failed;
	struct wanted failed;
	int failed_errno;
	uint64_t failed_ns;
};

static int failed_lately(struct source_image *s, uint64_t where, uint64_t npages)
{
	int ret = 0;

	if (!atomic_load_explicit(&s->has_failed, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&s->lock);
	if (now_ns() - s->failed_ns > FAILED_NS)
		atomic_store(&s->has_failed, false);
	else if (where < s->failed.where + s->failed.npages && s->failed.where < where + npages)
		ret = s->failed_errno;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

/* cachestat(2), Linux 6.5; Debian 12's headers do not have it. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cache_range {
	uint64_t offset, len;
};

struct cache_pages {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* The bytes in the page cache themselves, if all of them are there. NULL otherwise. */
static const void *image_in_memory(struct source *source, uint64_t where, uint64_t npages)
{
	struct source_image *s = (struct source_image *)source;
	const struct pages_file *f = &s->c->files[WHERE_FILE(where)];
	char *map = s->map[WHERE_FILE(where)];
	uint64_t page = WHERE_PAGE(where);
	struct cache_range range = {page << PAGE_SHIFT, npages << PAGE_SHIFT};
	struct cache_pages pages;

	if (map == MAP_FAILED || page + npages > f->npages ||
	    atomic_load_explicit(&s->unmapped, memory_order_relaxed))
		return NULL;
	if (syscall(SYS_cachestat, f->fd, &range, &pages, 0)) {
		atomic_store(&s->unmapped, true);
		return NULL;
	}
	map += range.offset;
	if (pages.cached < npages || madvise(map, range.len, MADV_POPULATE_READ))
		return NULL;
	return map;
}

static int image_fetch(struct source *source, uint64_t where, uint64_t npages, void *scratch,
		       const void **bytes)
{
	struct source_image *s = (struct source_image *)source;
	const struct pages_file *f = &s->c->files[WHERE_FILE(where)];
	off_t offset = (off_t)(WHERE_PAGE(where) << PAGE_SHIFT);
	uint64_t len = npages << PAGE_SHIFT, done = 0;

	while (done < len) {
		struct iovec v = {(char *)scratch + done, len - done};
		int flags = atomic_load_explicit(&s->plain, memory_order_relaxed) ? 0 : RWF_NOWAIT;
		ssize_t n = preadv2(f->fd, &v, 1, offset + (off_t)done, flags);

		if (n > 0) {
			done += (uint64_t)n;
			continue;
		}
		if (n == 0)
			return -ENODATA;
		if (errno == EINTR)
			continue;
		if (errno == EOPNOTSUPP && flags) {
			atomic_store(&s->plain, true);
			continue;
		}
		if (errno != EAGAIN)
			return -errno;
		return failed_lately(s, where, npages) ?: -EAGAIN;
	}
	*bytes = scratch;
	return 0;
}

static bool queue_pop(struct queue *q, struct wanted *w)
{
	if (!q->n)
		return false;
	*w = q->v[q->head];
	q->head = (q->head + 1) % QUEUE;
	q->n--;
	return true;
}

/* Reads the pages for the sake of the page cache. */
static void bring_in(struct source_image *s, const struct wanted *w, bool bulk, void *buf)
{
	const struct pages_file *f = &s->c->files[WHERE_FILE(w->where)];
	off_t offset = (off_t)(WHERE_PAGE(w->where) << PAGE_SHIFT);
	uint64_t len = w->npages << PAGE_SHIFT, done = 0;
	int err = 0;

	if (bulk)
		posix_fadvise(f->fd, offset, (off_t)(len + AHEAD_PAGES * PAGE_SIZE),
			      POSIX_FADV_WILLNEED);
	while (done < len && !err) {
		ssize_t n = pread(f->fd, buf, MIN(len - done, CHUNK), offset + (off_t)done);

		if (n > 0)
			done += (uint64_t)n;
		else if (n == 0)
			err = -ENODATA;
		else if (errno != EINTR)
			err = -errno;
	}
	if (!err)
		return;
	pthread_mutex_lock(&s->lock);
	s->failed = *w;
	s->failed_errno = err;
	s->failed_ns = now_ns();
	atomic_store(&s->has_failed, true);
	pthread_mutex_unlock(&s->lock);
}

static void *reader(void *arg)
{
	struct source_image *s = arg;
	static_assert(CHUNK <= 1 << 20, "a reader's buffer is on its stack");
	char buf[CHUNK];

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		struct wanted w;
		bool urgent = queue_pop(&s->urgent, &w);

		if (!urgent && !queue_pop(&s->bulk, &w)) {
			pthread_cond_wait(&s->more, &s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		bring_in(s, &w, !urgent, buf);
		wake_fd(w.event_fd);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int image_want(struct source *source, uint64_t where, uint64_t npages, bool urgent,
		      int event_fd)
{
	struct source_image *s = (struct source_image *)source;
	struct queue *q = urgent ? &s->urgent : &s->bulk;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	while (s->readers < READERS) {
		if (pthread_create(&s->thread[s->readers], NULL, reader, s))
			break;
		s->readers++;
	}
	if (q->n == QUEUE || !s->readers) {
		ret = -EBUSY;
	} else {
		q->v[(q->head + q->n++) % QUEUE] = (struct wanted){where, npages, event_fd};
		pthread_cond_signal(&s->more);
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static void image_close(struct source *source)
{
	struct source_image *s = (struct source_image *)source;

	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->more);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->readers; i++)
		pthread_join(s->thread[i], NULL);
	for (size_t i = 0; i < s->c->nfiles; i++)
		if (s->map[i] != MAP_FAILED)
			munmap(s->map[i], s->c->files[i].npages << PAGE_SHIFT);
	free(s->map);
	pthread_cond_destroy(&s->more);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct source *source_image_new(const struct checkpoint *c)
{
	static const struct source_ops ops = {.fetch = image_fetch,
					      .in_memory = image_in_memory,
					      .want = image_want,
					      .close = image_close};
	struct source_image *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->source.ops = &ops;
	s->c = c;
	s->map = calloc(c->nfiles + 1, sizeof(*s->map));
	if (!s->map) {
		free(s);
		return NULL;
	}
	for (size_t i = 0; i < c->nfiles; i++)
		s->map[i] = mmap(NULL, c->files[i].npages << PAGE_SHIFT, PROT_READ, MAP_SHARED,
				 c->files[i].fd, 0);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->more, NULL);
	return &s->source;
}
