// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which areas a child does not inherit: see wipe.h. The parent goes on when its FORK event is read,
 * so its mappings are those of a moment after the fork. A system call that changes them waits for
 * us to read its event, so there is seldom more than one to take into account.
 */
#include "wipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler.h"

static int add(struct ranges *r, uint64_t start, uint64_t end)
{
	if (r->n == r->room) {
		size_t room = r->room ? r->room * 2 : 16;
		struct range *v = reallocarray(r->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		r->v = v;
		r->room = room;
	}
	r->v[r->n++] = (struct range){start, end};
	return 0;
}

static bool has(const struct ranges *r, uint64_t addr)
{
	size_t lo = 0, hi = r->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < r->n && r->v[lo].start <= addr;
}

void wipes_free(struct wipes *w)
{
	free(w->armed.v);
	free(w->wiped.v);
	*w = (struct wipes){0};
}

/* A process that has exited has an empty list of mappings, and one that is exiting a cut one. */
static bool is_alive(int pid)
{
	_cleanup_close_ int fd = -1;
	char path[32], c;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &c, 1) == 1;
}

static int add_mapping(struct wipes *w, const char *flags, uint64_t start, uint64_t end)
{
	int ret = 0;

	if (start < end && strstr(flags, " um"))
		ret = add(&w->armed, start, end);
	if (!ret && start < end && (strstr(flags, " wf") || strstr(flags, " dc")))
		ret = add(&w->wiped, start, end);
	return ret;
}

int wipes_read(struct wipes *w, int pid)
{
	_cleanup_free_ char *line = NULL;
	_cleanup_fclose_ FILE *f = NULL;
	uint64_t start = 0, end = 0;
	char path[32];
	size_t room = 0;
	int ret = 0;

	w->armed.n = w->wiped.n = 0;
	w->known = false;
	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT || errno == ESRCH || errno == EACCES ? 0 : -ENOMEM;
	while (!ret && getline(&line, &room, f) > 0) {
		char *p;

		if (line[0] >= 'a' || (line[0] >= '0' && line[0] <= '9')) {
			start = strtoull(line, &p, 16);
			end = *p == '-' ? strtoull(p + 1, NULL, 16) : start;
		} else if (!strncmp(line, "VmFlags:", 8)) {
			ret = add_mapping(w, line, start, end);
		}
	}
	if (!ret && !feof(f) && errno == ENOMEM)
		ret = -ENOMEM;
	w->known = !ret && is_alive(pid);
	return ret;
}

/* Where a page of the time of the fork is after the events @later. False: it was unmapped. */
static bool follow(const struct uffd_msg *later, size_t n, uint64_t *addr)
{
	for (size_t i = 0; i < n; i++) {
		const struct uffd_msg *m = &later[i];

		if (m->event == UFFD_EVENT_REMAP && *addr >= m->arg.remap.from &&
		    *addr < m->arg.remap.from + m->arg.remap.len)
			*addr += m->arg.remap.to - m->arg.remap.from;
		else if (m->event == UFFD_EVENT_UNMAP && *addr >= m->arg.remove.start &&
			 *addr < m->arg.remove.end)
			return false;
	}
	return true;
}

/*
 * What can be said without the parent's mappings. A page that a forked parent still owes was not
 * wiped when the parent itself was forked, so advice of the image that covers it has been revoked.
 */
static bool wiped_as_dumped(const struct task *t, uint64_t image)
{
	if (t->rec->parent)
		return false;
	for (size_t i = 0; i < t->image->nvmas; i++) {
		const struct checkpoint_vma *vma = &t->image->vmas[i];

		if (image >= vma->start && image < vma->end)
			return vma->madv & (MADV_BIT_WIPEONFORK | MADV_BIT_DONTFORK);
	}
	return false;
}

static bool page_is_wiped(const struct wipes *w, const struct task *t, const struct run *page,
			  const struct uffd_msg *later, size_t n)
{
	uint64_t now = page->addr;

	if (w->known && follow(later, n, &now) && has(&w->armed, now))
		return has(&w->wiped, now);
	/* The event may have come after the look at the mappings. */
	if (w->known && now != page->addr && has(&w->armed, page->addr))
		return has(&w->wiped, page->addr);
	return wiped_as_dumped(t, extents_vaddr(&t->image->extents, page->index));
}

/* Whether the mappings of the parent tell of all of @r as it was: all there, and nothing moved. */
static bool is_as_it_was(const struct wipes *w, const struct region *r,
			 const struct uffd_msg *later, size_t n)
{
	uint64_t addr = r->start;

	for (size_t i = 0; i < n; i++)
		if (later[i].event == UFFD_EVENT_REMAP || later[i].event == UFFD_EVENT_UNMAP)
			return false;
	for (size_t i = 0; i < w->armed.n && addr < r->end; i++)
		if (w->armed.v[i].start <= addr && addr < w->armed.v[i].end)
			addr = w->armed.v[i].end;
	return w->known && addr >= r->end;
}

static int wipe_pages(const struct wipes *w, const struct task *t, struct space *child,
		      const struct region *r, const struct uffd_msg *later, size_t n)
{
	struct run page;

	for (uint64_t addr = r->start; addr < r->end; addr = page.addr + PAGE_SIZE) {
		if (!space_gather(child, addr, 1, 1, &page, 1) || page.addr >= r->end)
			break;
		if (page_is_wiped(w, t, &page, later, n) &&
		    space_remove(child, page.addr, page.addr + PAGE_SIZE))
			return -ENOMEM;
	}
	return 0;
}

static int wipe_ranges(const struct wipes *w, struct space *child, const struct region *r)
{
	for (size_t i = 0; i < w->wiped.n; i++) {
		uint64_t from = MAX(w->wiped.v[i].start, r->start);
		uint64_t to = MIN(w->wiped.v[i].end, r->end);

		if (from < to && space_remove(child, from, to))
			return -ENOMEM;
	}
	return 0;
}

int wipes_apply(const struct wipes *w, const struct task *t, struct space *child,
		const struct uffd_msg *later, size_t n)
{
	const struct region *v;
	size_t nv = space_regions(child, &v);
	int ret = 0;

	/* Forgiving changes bits, never regions, so @v stays as it is. */
	for (size_t i = 0; i < nv && !ret && space_left(child); i++)
		ret = is_as_it_was(w, &v[i], later, n) ? wipe_ranges(w, child, &v[i])
						       : wipe_pages(w, t, child, &v[i], later, n);
	return ret;
}
