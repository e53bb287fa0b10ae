// SPDX-License-Identifier: GPL-2.0-or-later
/* Huge pages after the transfer, by process_madvise(MADV_COLLAPSE): see collapse.h. */
#include "collapse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "compiler.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE	   (UINT64_C(2) << 20)
#define HUGE_PAGES (HUGE / PAGE_SIZE)

struct job {
	struct job *next;
	int pid;
	size_t n;
	uint64_t addr[]; /* of huge pages */
};

struct collapser {
	const struct log *log;
	bool always; /* the system's default, without advice */
	pthread_t thread;
	pthread_mutex_t lock; /* protects the queue and stop */
	pthread_cond_t more;
	struct job *first, **last;
	bool stop;
};

static void job_run(struct collapser *c, const struct job *job)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, job->pid, 0);
	size_t done = 0;

	for (size_t i = 0; fd >= 0 && i < job->n; i++) {
		struct iovec v = {(void *)(uintptr_t)job->addr[i], HUGE};
		long ret = syscall(SYS_process_madvise, fd, &v, 1, MADV_COLLAPSE, 0);

		if (ret < 0 && errno == ESRCH)
			break;
		done += ret >= 0;
	}
	log_info(c->log, "pid %d: %zu of %zu huge pages are back", job->pid, done, job->n);
}

static void *collapser_thread(void *arg)
{
	struct collapser *c = arg;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		struct job *job = c->first;

		if (!job && c->stop)
			break;
		if (!job) {
			pthread_cond_wait(&c->more, &c->lock);
			continue;
		}
		c->first = job->next;
		if (!c->first)
			c->last = &c->first;
		pthread_mutex_unlock(&c->lock);
		job_run(c, job);
		free(job);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* "[always]", "[madvise]" or "[never]" in the kernel's setting. */
static bool system_setting(bool *always)
{
	_cleanup_close_ int fd =
		open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	char text[64] = "";

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return false;
	*always = strstr(text, "[always]");
	return !strstr(text, "[never]");
}

struct collapser *collapser_start(const struct log *log, bool enabled)
{
	struct collapser *c;
	bool always = false;

	if (!enabled || !system_setting(&always))
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->log = log;
	c->always = always;
	c->last = &c->first;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->more, NULL);
	if (pthread_create(&c->thread, NULL, collapser_thread, c)) {
		free(c);
		return NULL;
	}
	return c;
}

void collapser_finish(struct collapser *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->more);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->more);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* Whether all pages of the 2 MiB at image address @vaddr came from the image. */
static bool was_full(const struct task *t, uint64_t vaddr)
{
	const struct extents *x = &t->image->extents;

	return extents_index(x, vaddr + HUGE) - extents_index(x, vaddr) == HUGE_PAGES;
}

/* Counts the huge pages of region @r in mapping @vma, and stores their addresses if @out. */
static size_t huge_pages(const struct task *t, const struct region *r,
			 const struct checkpoint_vma *vma, uint64_t *out)
{
	uint64_t from = MAX(r->image, vma->start);
	uint64_t to = MIN(r->image + (r->end - r->start), vma->end);
	uint64_t shift = r->start - r->image; /* image to run-time address, modulo 2^64 */
	uint64_t addr;
	size_t n = 0;

	if (from >= to)
		return 0;
	for (addr = (from + shift + HUGE - 1) & ~(HUGE - 1); addr + HUGE <= to + shift;
	     addr += HUGE) {
		if (!was_full(t, addr - shift))
			continue;
		if (out)
			out[n] = addr;
		n++;
	}
	return n;
}

static size_t all_huge_pages(const struct collapser *c, const struct task *t, uint64_t *out)
{
	const struct region *v;
	size_t nv = space_regions(t->space, &v), n = 0;

	for (size_t i = 0; i < t->image->nvmas; i++) {
		const struct checkpoint_vma *vma = &t->image->vmas[i];

		if (vma->madv & MADV_BIT_NOHUGEPAGE)
			continue;
		if (!c->always && !(vma->madv & MADV_BIT_HUGEPAGE))
			continue;
		for (size_t k = 0; k < nv; k++)
			n += huge_pages(t, &v[k], vma, out ? out + n : NULL);
	}
	return n;
}

void collapse_task(struct collapser *c, const struct task *t)
{
	struct job *job;
	size_t n;

	if (!c || t->image->no_thp || !t->rec->real_pid)
		return;
	n = all_huge_pages(c, t, NULL);
	if (!n)
		return;
	job = malloc(sizeof(*job) + n * sizeof(job->addr[0]));
	if (!job)
		return;
	job->next = NULL;
	job->pid = t->rec->real_pid;
	job->n = all_huge_pages(c, t, job->addr);
	pthread_mutex_lock(&c->lock);
	*c->last = job;
	c->last = &job->next;
	pthread_cond_signal(&c->more);
	pthread_mutex_unlock(&c->lock);
}
