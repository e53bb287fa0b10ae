// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lazy pages out of image files: a task is looked up by its pid, an address in the task's extents,
 * and the answer is a stretch of a pages file, which the kernel can send by itself. Nothing is read
 * here before somebody asks for it, so the size of the images does not matter. Any thread.
 */
#include "provider.h"

#include <errno.h>
#include <string.h>

#include "checkpoint.h"
#include "compiler.h"

struct pid_entry {
	uint64_t pid;
	const struct checkpoint_task *task;
};

struct provider_images {
	struct provider provider;
	const struct checkpoint *c;
	struct pid_entry *by_pid; /* ascending; one for each task */
};

static int compare_pids(const void *a, const void *b)
{
	const struct pid_entry *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static const struct checkpoint_task *find_task(const struct provider_images *p, uint64_t pid)
{
	struct pid_entry key = {.pid = pid}, *found;

	found = bsearch(&key, p->by_pid, p->c->ntasks, sizeof(key), compare_pids);
	return found ? found->task : NULL;
}

static int images_find(struct provider *provider, uint64_t pid, uint64_t vaddr, uint64_t npages,
		       struct span *span, struct error *e)
{
	struct provider_images *p = (struct provider_images *)provider;
	const struct checkpoint_task *t = find_task(p, pid);
	const struct extents *x;
	uint64_t skip, where;
	size_t i;

	if (!t)
		return error_set(e, -ESRCH, "no such task in the images");
	x = &t->extents;
	i = extents_at(x, vaddr);
	if (i == x->n || x->v[i].vaddr > vaddr)
		return error_set(e, -EFAULT, "no lazy page there");
	skip = (vaddr - x->v[i].vaddr) / PAGE_SIZE;
	where = x->v[i].where + skip;
	if (WHERE_FILE(where) >= p->c->nfiles)
		return error_set(e, -EFAULT, "no bytes for this page in the images");
	*span = (struct span){
		.npages = MIN(npages, extent_npages(x, i) - skip),
		.fd = p->c->files[WHERE_FILE(where)].fd,
		.offset = WHERE_PAGE(where) << PAGE_SHIFT,
	};
	return 0;
}

static int images_read(struct provider *provider, uint64_t pid, uint64_t vaddr,
		       const struct span *span, void *to, uint64_t npages, struct error *e)
{
	uint64_t len = npages << PAGE_SHIFT, done = 0;

	(void)provider;
	(void)pid;
	(void)vaddr;
	while (done < len) {
		ssize_t n = pread(span->fd, (char *)to + done, len - done,
				  (off_t)(span->offset + done));

		if (n > 0)
			done += (uint64_t)n;
		else if (n == 0)
			return error_set(e, -ENODATA, "the file of pages has been cut short");
		else if (errno != EINTR)
			return error_errno(e, -errno, "reading the file of pages");
	}
	return 0;
}

static void images_close(struct provider *provider)
{
	struct provider_images *p = (struct provider_images *)provider;

	free(p->by_pid);
	free(p);
}

struct provider *provider_images_new(const struct checkpoint *c)
{
	static const struct provider_ops ops = {images_find, images_read, images_close};
	struct provider_images *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->provider.ops = &ops;
	p->c = c;
	p->by_pid = calloc(c->ntasks + 1, sizeof(*p->by_pid));
	if (!p->by_pid) {
		free(p);
		return NULL;
	}
	for (size_t i = 0; i < c->ntasks; i++)
		p->by_pid[i] = (struct pid_entry){(uint64_t)c->tasks[i].pid, &c->tasks[i]};
	qsort(p->by_pid, c->ntasks, sizeof(*p->by_pid), compare_pids);
	return &p->provider;
}
