// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The memory of frozen tasks as pages to serve: see provider_frozen.h. The tasks are stopped as
 * long as the dump holds them, so a page can be read as often as anybody asks. When the dump ends
 * they run and change their memory: so each read is followed by a look at the dump, and bytes that
 * were read too late are thrown away. Any thread.
 */
#include "provider_frozen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "compiler.h"

struct frozen_task {
	uint64_t image_pid;
	const struct checkpoint_task *task;
	/* NULL: it has no pages in its memory */
	const struct dump_task *process;
	uint64_t first; /* number of its first page */
	int mem_fd;	/* /proc/PID/mem, opened when needed first; -1 */
};

struct provider_frozen {
	struct provider provider;
	const struct checkpoint *c;
	const struct dump *d;
	struct held *held;
	struct frozen_task *tasks; /* ascending by image_pid, one for each of c */
};

/* Whether these bytes are still in the task's memory alone. */
static bool is_at_source(const struct checkpoint *c, uint64_t where)
{
	return WHERE_FILE(where) >= c->nfiles || c->files[WHERE_FILE(where)].fd < 0;
}

/* The first page of @t that only its memory has, or npages of its extents. */
static uint64_t first_at_source(const struct checkpoint *c, const struct checkpoint_task *t)
{
	for (size_t i = 0; i < t->extents.n; i++)
		if (is_at_source(c, t->extents.v[i].where))
			return t->extents.v[i].first;
	return t->extents.npages;
}

uint64_t frozen_npages(const struct checkpoint *c)
{
	uint64_t npages = 0;

	for (size_t i = 0; i < c->ntasks; i++)
		npages += c->tasks[i].extents.npages;
	return npages;
}

int frozen_check_tasks(const struct checkpoint *c, const struct dump *d, struct error *e)
{
	bool any = false;

	for (size_t i = 0; i < c->ntasks; i++) {
		const struct checkpoint_task *t = &c->tasks[i];

		if (first_at_source(c, t) == t->extents.npages)
			continue;
		any = true;
		if (!dump_task(d, t->pid))
			return error_set(e, -ESRCH,
					 "task %d of the images is none of the %zu that dump %d "
					 "holds: are these its images?",
					 t->pid, d->ntasks, d->pid);
	}
	if (!any)
		return error_set(e, -ENODATA,
				 "no task has left pages at the source: these are not the images "
				 "of a criu dump --lazy-pages");
	return 0;
}

/* How many pages it could have at once, of those that are in the memory of process @pid. */
static uint64_t read_by_call(pid_t pid, uint64_t vaddr, void *to, uint64_t npages)
{
	struct iovec local = {to, npages << PAGE_SHIFT};
	struct iovec remote = {(void *)(uintptr_t)vaddr, npages << PAGE_SHIFT};
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	return n > 0 ? (uint64_t)n >> PAGE_SHIFT : 0;
}

static int mem_open(pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The same by a file, which is slower and heeds no protection. */
static uint64_t read_by_file(struct frozen_task *t, uint64_t vaddr, void *to, uint64_t npages)
{
	int fd = __atomic_load_n(&t->mem_fd, __ATOMIC_ACQUIRE), none = -1;
	ssize_t n;

	if (fd < 0) {
		fd = mem_open(t->process->pid);
		if (fd < 0)
			return 0;
		if (!__atomic_compare_exchange_n(&t->mem_fd, &none, fd, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE)) {
			close(fd);
			fd = none;
		}
	}
	n = pread(fd, to, npages << PAGE_SHIFT, (off_t)vaddr);
	return n > 0 ? (uint64_t)n >> PAGE_SHIFT : 0;
}

/* How many pages could be had without the dump. */
static uint64_t read_directly(struct frozen_task *t, uint64_t vaddr, char *to, uint64_t npages)
{
	uint64_t done = read_by_call(t->process->pid, vaddr, to, npages);

	if (done < npages)
		done += read_by_file(t, vaddr + (done << PAGE_SHIFT), to + (done << PAGE_SHIFT),
				     npages - done);
	/* It may have been killed, and another process have its pid. The dump has its pages yet. */
	return dump_task_lives(t->process) ? done : 0;
}

static int read_memory(struct provider_frozen *p, struct frozen_task *t, uint64_t vaddr, char *to,
		       uint64_t npages, struct error *e)
{
	for (uint64_t done = 0; done < npages;) {
		uint64_t at = vaddr + (done << PAGE_SHIFT);
		char *here = to + (done << PAGE_SHIFT);
		uint64_t n = read_directly(t, at, here, npages - done);
		int ret = 0;

		/* A page alone: what is behind it may be read again. */
		if (!n) {
			ret = held_get(p->held, t->image_pid, at, here, 1, e);
			n = 1;
		}
		if (ret)
			return error_prefix(e, ret, "task %d (process %d): %#llx", t->task->pid,
					    t->process->pid, (unsigned long long)at);
		done += n;
	}
	return 0;
}

static bool still_held(const struct provider_frozen *p)
{
	return held_stands(p->held) && dump_lives(p->d);
}

static struct frozen_task *find_task(const struct provider_frozen *p, uint64_t pid)
{
	size_t low = 0, high = p->c->ntasks;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (p->tasks[middle].image_pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < p->c->ntasks && p->tasks[low].image_pid == pid ? &p->tasks[low] : NULL;
}

static int frozen_find(struct provider *provider, uint64_t pid, uint64_t vaddr, uint64_t npages,
		       struct span *span, struct error *e)
{
	struct provider_frozen *p = (struct provider_frozen *)provider;
	struct frozen_task *t = find_task(p, pid);
	const struct extents *x;
	uint64_t skip;
	size_t i;

	if (!t)
		return error_set(e, -ESRCH, "no such task in the images");
	x = &t->task->extents;
	i = extents_at(x, vaddr);
	if (i == x->n || x->v[i].vaddr > vaddr)
		return error_set(e, -EFAULT, "no lazy page there");
	skip = (vaddr - x->v[i].vaddr) >> PAGE_SHIFT;
	*span = (struct span){
		.npages = MIN(npages, extent_npages(x, i) - skip),
		.fd = -1,
		.offset = x->v[i].where + skip,
	};
	return 0;
}

/* Pages that the images have. */
static int read_file(const struct provider_frozen *p, uint64_t where, char *to, uint64_t npages,
		     struct error *e)
{
	const struct pages_file *f = &p->c->files[WHERE_FILE(where)];
	uint64_t offset = WHERE_PAGE(where) << PAGE_SHIFT, len = npages << PAGE_SHIFT;

	while (len) {
		ssize_t n = pread(f->fd, to, len, (off_t)offset);

		if (n <= 0)
			return error_errno(e, n ? -errno : -ENODATA, "%s", f->name);
		to += n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int frozen_read(struct provider *provider, uint64_t pid, uint64_t vaddr,
		       const struct span *span, void *to, uint64_t npages, struct error *e)
{
	struct provider_frozen *p = (struct provider_frozen *)provider;
	struct frozen_task *t = find_task(p, pid);
	const struct extents *x = &t->task->extents;
	uint64_t where = extents_where(x, extents_index(x, vaddr));
	int ret;

	(void)span;
	if (is_at_source(p->c, where)) {
		ret = read_memory(p, t, vaddr, to, npages, e);
		/* What could not be read then is no wonder either. */
		if (!still_held(p))
			ret = error_set(e, -ESHUTDOWN, "dump %d does not hold its tasks any more",
					p->d->pid);
	} else {
		ret = read_file(p, where, to, npages, e);
	}
	return ret;
}

static void frozen_close(struct provider *provider)
{
	struct provider_frozen *p = (struct provider_frozen *)provider;

	for (size_t i = 0; i < p->c->ntasks; i++)
		cleanup_close(&p->tasks[i].mem_fd);
	free(p->tasks);
	free(p);
}

static int by_image_pid(const void *a, const void *b)
{
	const struct frozen_task *x = a, *y = b;

	return (x->image_pid > y->image_pid) - (x->image_pid < y->image_pid);
}

struct provider *provider_frozen_new(const struct checkpoint *c, const struct dump *d,
				     struct held *h)
{
	static const struct provider_ops ops = {frozen_find, frozen_read, frozen_close};
	struct provider_frozen *p = calloc(1, sizeof(*p));
	uint64_t first = 0;

	if (p)
		p->tasks = calloc(c->ntasks + 1, sizeof(*p->tasks));
	if (!p || !p->tasks) {
		free(p);
		return NULL;
	}
	p->provider.ops = &ops;
	p->c = c;
	p->d = d;
	p->held = h;
	for (size_t i = 0; i < c->ntasks; i++) {
		p->tasks[i] = (struct frozen_task){
			.image_pid = (uint64_t)c->tasks[i].pid,
			.task = &c->tasks[i],
			.process = dump_task(d, c->tasks[i].pid),
			.first = first,
			.mem_fd = -1,
		};
		first += c->tasks[i].extents.npages;
	}
	qsort(p->tasks, c->ntasks, sizeof(*p->tasks), by_image_pid);
	return &p->provider;
}

uint64_t provider_frozen_number(struct provider *provider, uint64_t pid, uint64_t vaddr)
{
	const struct frozen_task *t = find_task((struct provider_frozen *)provider, pid);

	return t->first + extents_index(&t->task->extents, vaddr);
}

static int compare_task(struct provider *p, const struct checkpoint *c, struct held *h,
			const struct checkpoint_task *t, struct error *e)
{
	uint64_t index = first_at_source(c, t), vaddr;
	char ours[PAGE_SIZE], theirs[PAGE_SIZE];
	struct span span;
	int ret;

	if (index == t->extents.npages)
		return 0;
	vaddr = extents_vaddr(&t->extents, index);
	ret = provider_find(p, (uint64_t)t->pid, vaddr, 1, &span, e);
	if (!ret)
		ret = provider_read(p, (uint64_t)t->pid, vaddr, &span, ours, 1, e);
	if (!ret)
		ret = held_get(h, (uint64_t)t->pid, vaddr, theirs, 1, e);
	if (!ret && memcmp(ours, theirs, PAGE_SIZE))
		ret = error_set(e, -EBADMSG, "the dump's page at %#llx is not what is in memory",
				(unsigned long long)vaddr);
	return ret ? error_prefix(e, ret, "task %d", t->pid) : 0;
}

int frozen_compare(const struct checkpoint *c, const struct dump *d, struct held *h,
		   struct error *e)
{
	struct provider *p = provider_frozen_new(c, d, h);
	int ret = p ? 0 : error_errno(e, -ENOMEM, "tasks of the dump");

	for (size_t i = 0; !ret && i < c->ntasks; i++)
		ret = compare_task(p, c, h, &c->tasks[i], e);
	provider_close(p);
	return ret;
}
