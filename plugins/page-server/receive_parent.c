// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Parents of an image: see receive_parent.h. One cursor a generation, which only goes forward, as
 * what is asked for does; where the bytes of an entry are in its file is counted on the way.
 */
#include "receive_parent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "compiler.h"
#include "receive_dir.h"

struct generation {
	const struct image_dir *dir;
	struct pagemap pagemap;
	struct pagemap_entry entry; /* the current one; of no pages before the first */
	bool ended;
	uint64_t offset;	 /* of the entry's pages, if it has any, in the file; pages */
	int pages_fd;		 /* open for writing once something is to be punched, else -1 */
	uint64_t hole, hole_end; /* pages of the file that are to be punched, not yet done */
};

struct receive_parent {
	struct generation *v;
	size_t n;
	uint64_t punched;
};

static uint64_t entry_end(const struct generation *g)
{
	return g->entry.vaddr + g->entry.npages * PAGE_SIZE;
}

static void generation_close(struct generation *g)
{
	pagemap_close(&g->pagemap);
	if (g->pages_fd >= 0)
		close(g->pages_fd);
}

int receive_parent_open(struct receive_parent **out, const struct image_chain *chain, unsigned kind,
			uint64_t id, struct error *e)
{
	struct receive_parent *p;

	*out = NULL;
	if (chain->n < 2)
		return 0;
	p = calloc(1, sizeof(*p));
	if (p)
		p->v = calloc(chain->n - 1, sizeof(*p->v));
	if (!p || !p->v) {
		free(p);
		return error_errno(e, -ENOMEM, "parent");
	}
	for (size_t i = 1; i < chain->n; i++) {
		struct generation *g = &p->v[p->n];
		int ret = receive_pagemap_open(&g->pagemap, &chain->v[i], kind, id, e);

		if (ret == -ENOENT)
			break;
		if (ret) {
			receive_parent_close(p);
			return ret;
		}
		g->dir = &chain->v[i];
		g->pages_fd = -1;
		p->n++;
	}
	if (p->n)
		*out = p;
	else
		receive_parent_close(p);
	return 0;
}

void receive_parent_close(struct receive_parent *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n; i++)
		generation_close(&p->v[i]);
	free(p->v);
	free(p);
}

/* Goes on to the first entry that ends behind @vaddr. */
static int generation_seek(struct generation *g, uint64_t vaddr, struct error *e)
{
	while (!g->ended && entry_end(g) <= vaddr) {
		int ret;

		if (g->entry.flags & PAGEMAP_PRESENT)
			g->offset += g->entry.npages;
		ret = pagemap_next(&g->pagemap, &g->entry, e);
		if (ret < 0)
			return ret;
		g->ended = !ret;
	}
	return 0;
}

static int lacks(struct generation *g, uint64_t vaddr, const char *why, struct error *e)
{
	error_set(e, -ENOENT, "%#llx: is to be in the parent, and %s", (unsigned long long)vaddr,
		  why);
	return image_blame(g->pagemap.image, e);
}

static int check_at(struct receive_parent *p, size_t i, uint64_t vaddr, uint64_t npages,
		    struct error *e)
{
	struct generation *g = &p->v[i];

	while (npages) {
		uint64_t part;
		int ret = generation_seek(g, vaddr, e);

		if (ret)
			return ret;
		if (g->ended || g->entry.vaddr > vaddr)
			return lacks(g, vaddr, "is not there", e);
		part = MIN(npages, (entry_end(g) - vaddr) >> PAGE_SHIFT);
		if (g->entry.flags & PAGEMAP_PARENT) {
			if (i + 1 == p->n)
				return lacks(g, vaddr, "that has no parent with it", e);
			ret = check_at(p, i + 1, vaddr, part, e);
			if (ret)
				return ret;
		} else if (!(g->entry.flags & PAGEMAP_PRESENT)) {
			return lacks(g, vaddr, "was left at its source", e);
		}
		vaddr += part << PAGE_SHIFT;
		npages -= part;
	}
	return 0;
}

int receive_parent_check(struct receive_parent *p, uint64_t vaddr, uint64_t npages, struct error *e)
{
	return check_at(p, 0, vaddr, npages, e);
}

/* Who gives out what is in the file has it locked (image_pagemap.h): he would give out zeros. */
static int pages_take(struct generation *g, const char *file, const char *name, struct error *e)
{
	_cleanup_close_ int fd = -1;

	if (g->pages_fd >= 0)
		return 0;
	fd = openat(g->dir->fd, file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_errno(e, -errno, "%s", name);
	if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
		return error_set(e, -EBUSY, "%s: somebody restores or serves from it", name);
	g->pages_fd = steal_fd(&fd);
	return 0;
}

static int hole_make(struct receive_parent *p, struct generation *g, struct error *e)
{
	char file[32], name[IMAGE_NAME_MAX];
	int ret;

	if (g->hole == g->hole_end)
		return 0;
	snprintf(file, sizeof(file), "pages-%u.img", g->pagemap.pages_id);
	ret = pages_take(g, file, image_name(g->dir, file, name), e);
	if (ret)
		return ret;
	if (fallocate(g->pages_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(g->hole << PAGE_SHIFT),
		      (off_t)((g->hole_end - g->hole) << PAGE_SHIFT)))
		return error_errno(e, -errno, "%s", name);
	p->punched += (g->hole_end - g->hole) << PAGE_SHIFT;
	g->hole = g->hole_end;
	return 0;
}

/* Holes that touch become one call. */
static int hole_add(struct receive_parent *p, struct generation *g, uint64_t page, uint64_t npages,
		    struct error *e)
{
	if (page != g->hole_end) {
		int ret = hole_make(p, g, e);

		if (ret)
			return ret;
		g->hole = page;
	}
	g->hole_end = page + npages;
	return 0;
}

static int punch_at(struct receive_parent *p, size_t i, uint64_t vaddr, uint64_t npages,
		    struct error *e)
{
	struct generation *g = &p->v[i];
	uint64_t end = vaddr + (npages << PAGE_SHIFT);

	while (vaddr < end) {
		uint64_t part;
		int ret = generation_seek(g, vaddr, e);

		if (ret)
			return ret;
		if (g->ended || g->entry.vaddr >= end)
			return 0;
		vaddr = MAX(vaddr, g->entry.vaddr);
		part = (MIN(end, entry_end(g)) - vaddr) >> PAGE_SHIFT;
		if (g->entry.flags & PAGEMAP_PRESENT)
			ret = hole_add(p, g, g->offset + ((vaddr - g->entry.vaddr) >> PAGE_SHIFT),
				       part, e);
		if (!ret && i + 1 < p->n)
			ret = punch_at(p, i + 1, vaddr, part, e);
		if (ret)
			return ret;
		vaddr += part << PAGE_SHIFT;
	}
	return 0;
}

int receive_parent_punch(struct receive_parent *p, uint64_t vaddr, uint64_t npages, struct error *e)
{
	return punch_at(p, 0, vaddr, npages, e);
}

int receive_parent_punch_end(struct receive_parent *p, struct error *e)
{
	int ret = 0;

	for (size_t i = 0; !ret && i < p->n; i++)
		ret = hole_make(p, &p->v[i], e);
	return ret;
}

uint64_t receive_parent_punched(const struct receive_parent *p)
{
	return p->punched;
}
