/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A worker without its threads: arena, journal, a checkpoint of a few tasks, a source that answers
 * from memory, and owners that the test plays itself. parts_end() checks that nothing is left.
 */
#ifndef WORKER_PARTS_H
#define WORKER_PARTS_H

#include "unit.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compiler.h"
#include "owner.h"
#include "worker.h"

#define PARTS_OWNERS 3
#define PARTS_TASKS  3

struct parts {
	struct arena *arena;
	struct log log;
	struct options options;
	struct checkpoint checkpoint;
	struct checkpoint_task tasks[PARTS_TASKS];
	struct checkpoint_vma vmas[PARTS_TASKS][4];
	struct pages_file files[1];
	struct worker w;
	struct owner owner[PARTS_OWNERS];
	struct owner *owners[PARTS_OWNERS];
};

/* A worker as it is when it begins: nobody's state but the journal's. */
static inline void parts_worker(struct parts *p)
{
	struct source *source = p->w.source;

	memset(p->owner, 0, sizeof(p->owner));
	p->w = (struct worker){.options = &p->options,
			       .log = &p->log,
			       .checkpoint = &p->checkpoint,
			       .journal = p->w.journal,
			       .source = source,
			       .owners = p->owners,
			       .nowners = PARTS_OWNERS};
	pthread_mutex_init(&p->w.slot_lock, NULL);
	p->w.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < PARTS_OWNERS; i++) {
		struct owner *o = &p->owner[i];

		p->owners[i] = o;
		o->worker = &p->w;
		o->id = i;
		o->epoll_fd = -1;
		o->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		o->tally = &p->w.journal->tally[i];
		o->scratch = aligned_alloc(PAGE_SIZE, SCHEDULE_MAX_PAGES * PAGE_SIZE);
		pthread_mutex_init(&o->inbox_lock, NULL);
	}
}

static inline void parts_worker_end(struct parts *p)
{
	for (unsigned i = 0; i < PARTS_OWNERS; i++) {
		close(p->owner[i].wake_fd);
		free(p->owner[i].scratch);
		free(p->owner[i].inbox);
	}
	close(p->w.event_fd);
}

static inline void parts_begin(struct parts *p)
{
	memset(p, 0, sizeof(*p));
	log_init(&p->log, "test", LOG_MSG);
	p->checkpoint.tasks = p->tasks;
	p->checkpoint.files = p->files;
	p->checkpoint.nfiles = 1;
	p->files[0] = (struct pages_file){.fd = -1, .name = (char *)(uintptr_t) "pages-1.img"};
	assert_int_equal(arena_new(&p->arena, UINT64_C(8) << 20, NULL), 0);
	p->w.journal = journal_new(p->arena);
	assert_non_null(p->w.journal);
	parts_worker(p);
}

static inline void parts_end(struct parts *p)
{
	parts_worker_end(p);
	for (size_t i = 0; i < p->checkpoint.ntasks; i++)
		extents_free(&p->tasks[i].extents);
	arena_free(p->arena);
}

static inline struct checkpoint_task *parts_task(struct parts *p, int pid)
{
	struct checkpoint_task *t = &p->tasks[p->checkpoint.ntasks];

	assert_true(p->checkpoint.ntasks < PARTS_TASKS);
	t->pid = pid;
	t->vmas = p->vmas[p->checkpoint.ntasks++];
	extents_init(&t->extents);
	return t;
}

static inline void parts_vma(struct checkpoint_task *t, uint64_t start, uint64_t npages)
{
	t->vmas[t->nvmas++] =
		(struct checkpoint_vma){.start = start, .end = start + npages * PAGE_SIZE};
}

static inline void parts_lazy(struct checkpoint_task *t, uint64_t start, uint64_t npages,
			      uint64_t where)
{
	assert_int_equal(extents_add(&t->extents, start, npages, where, NULL), 0);
}

static inline int parts_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	return fd;
}

static inline void parts_arm(int uffd, void *p, uint64_t npages)
{
	struct uffdio_register r = {.range = {(uint64_t)p, npages * PAGE_SIZE},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &r), 0);
}

#endif
