// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Space: see space.h. Every change is the same few steps: find the regions that a range touches,
 * make sure of all memory, forgive what is owed there, replace those regions by what is left of
 * them. Neighbours that continue each other in both addresses are joined, so that the number of
 * regions stays near that of the task's mappings however often something moves back and forth.
 */
#include "space.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "compiler.h"

struct space {
	struct arena *arena;
	const struct extents *x;
	struct owed *owed;
	struct region *v; /* sorted by start, disjoint */
	size_t n, room;
};

static uint64_t image_end(const struct region *r)
{
	return r->image + (r->end - r->start);
}

/* The first region that ends above @addr. */
static size_t region_at(const struct space *s, uint64_t addr)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Behind the last region that starts below @end, when region_at(start) is @lo. */
static size_t region_behind(const struct space *s, size_t lo, uint64_t end)
{
	size_t hi = region_at(s, end);

	if (hi < s->n && s->v[hi].start < end)
		hi++;
	return MAX(lo, hi);
}

/* The part of @r inside [start, end); they overlap. */
static struct region clip(const struct region *r, uint64_t start, uint64_t end)
{
	struct region part = *r;

	if (part.start < start) {
		part.image += start - part.start;
		part.start = start;
	}
	part.end = MIN(part.end, end);
	return part;
}

static int check_range(uint64_t start, uint64_t end)
{
	return start < end && start % PAGE_SIZE == 0 && end % PAGE_SIZE == 0 ? 0 : -EINVAL;
}

static int reserve(struct space *s, size_t n)
{
	size_t room = MAX(s->room, 16);
	struct region *v;

	if (n <= s->room)
		return 0;
	while (room < n)
		room *= 2;
	v = reallocarray(s->v, room, sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->v = v;
	s->room = room;
	return 0;
}

/* Puts @k regions in the place of [lo, hi); room for them is there. */
static void replace(struct space *s, size_t lo, size_t hi, const struct region *v, size_t k)
{
	if (s->n > hi)
		memmove(&s->v[lo + k], &s->v[hi], (s->n - hi) * sizeof(*v));
	if (k)
		memcpy(&s->v[lo], v, k * sizeof(*v));
	s->n = s->n - (hi - lo) + k;
}

/* Joins region @i to the one before it if it continues it. */
static void join(struct space *s, size_t i)
{
	struct region *before;

	if (!i || i >= s->n)
		return;
	before = &s->v[i - 1];
	if (before->end != s->v[i].start || image_end(before) != s->v[i].image)
		return;
	before->end = s->v[i].end;
	replace(s, i, i + 1, NULL, 0);
}

/* The index range of the lazy pages of @part. */
static void indexes(const struct space *s, const struct region *part, uint64_t *from, uint64_t *to)
{
	*from = extents_index(s->x, part->image);
	*to = extents_index(s->x, image_end(part));
}

/* Clears what is owed in [start, end), which touches the regions [lo, hi). All or nothing. */
static int forgive(struct space *s, size_t lo, size_t hi, uint64_t start, uint64_t end)
{
	struct region part;
	uint64_t from, to;

	for (size_t i = lo; i < hi; i++) {
		part = clip(&s->v[i], start, end);
		indexes(s, &part, &from, &to);
		if (owed_prepare(s->arena, s->owed, from, to))
			return -ENOMEM;
	}
	for (size_t i = lo; i < hi; i++) {
		part = clip(&s->v[i], start, end);
		indexes(s, &part, &from, &to);
		(void)owed_clear(s->arena, s->owed, from, to);
	}
	return 0;
}

/* Cuts [start, end) out; there is room for one more region. */
static void cut(struct space *s, uint64_t start, uint64_t end)
{
	size_t lo = region_at(s, start);
	size_t hi = region_behind(s, lo, end);
	struct region left[2];
	size_t k = 0;

	if (lo == hi)
		return;
	if (s->v[lo].start < start)
		left[k++] = clip(&s->v[lo], 0, start);
	if (s->v[hi - 1].end > end)
		left[k++] = clip(&s->v[hi - 1], end, UINT64_MAX);
	replace(s, lo, hi, left, k);
}

struct space *space_new(struct arena *a, const struct extents *x, struct owed *o)
{
	struct space *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->arena = a;
	s->x = x;
	s->owed = o;
	return s;
}

void space_free(struct space *s)
{
	if (!s)
		return;
	free(s->v);
	free(s);
}

int space_add(struct space *s, uint64_t start, uint64_t end)
{
	struct region r = {start, end, start};

	if (check_range(start, end) || (s->n && start < s->v[s->n - 1].end))
		return -EINVAL;
	if (reserve(s, s->n + 1))
		return -ENOMEM;
	replace(s, s->n, s->n, &r, 1);
	join(s, s->n - 1);
	return 0;
}

int space_unmap(struct space *s, uint64_t start, uint64_t end)
{
	size_t lo;

	if (check_range(start, end))
		return -EINVAL;
	lo = region_at(s, start);
	if (reserve(s, s->n + 1) || forgive(s, lo, region_behind(s, lo, end), start, end))
		return -ENOMEM;
	cut(s, start, end);
	return 0;
}

int space_remove(struct space *s, uint64_t start, uint64_t end)
{
	size_t lo;

	if (check_range(start, end))
		return -EINVAL;
	lo = region_at(s, start);
	return forgive(s, lo, region_behind(s, lo, end), start, end);
}

int space_remap(struct space *s, uint64_t from, uint64_t to, uint64_t len)
{
	_cleanup_free_ struct region *moved = NULL;
	size_t lo, k;

	if (check_range(from, from + len) || check_range(to, to + len))
		return -EINVAL;
	if (from == to)
		return 0;
	if ((from < to ? to - from : from - to) < len)
		return -EINVAL;

	lo = region_at(s, from);
	k = region_behind(s, lo, from + len) - lo;
	if (k) {
		moved = reallocarray(NULL, k, sizeof(*moved));
		if (!moved)
			return -ENOMEM;
	}
	for (size_t i = 0; i < k; i++) {
		moved[i] = clip(&s->v[lo + i], from, from + len);
		moved[i].start += to - from;
		moved[i].end += to - from;
	}

	/* Both cuts may split one region, and then the k parts come on top. */
	lo = region_at(s, to);
	if (reserve(s, s->n + 2 + k) ||
	    forgive(s, lo, region_behind(s, lo, to + len), to, to + len))
		return -ENOMEM;
	cut(s, to, to + len);
	cut(s, from, from + len);
	lo = region_at(s, to);
	replace(s, lo, lo, moved, k);
	join(s, lo + k);
	join(s, lo);
	return 0;
}

struct space *space_fork(const struct space *s, struct owed *child_owed)
{
	struct space *child = space_new(s->arena, s->x, child_owed);

	if (!child)
		return NULL;
	if (reserve(child, s->n)) {
		space_free(child);
		return NULL;
	}
	replace(child, 0, 0, s->v, s->n);
	return child;
}

enum page_state space_lookup(const struct space *s, uint64_t addr, uint64_t *index)
{
	size_t i = region_at(s, addr);
	uint64_t image, at;
	size_t t;

	if (i == s->n || s->v[i].start > addr)
		return PAGE_UNKNOWN;
	image = s->v[i].image + (addr - s->v[i].start);
	t = extents_at(s->x, image);
	if (t == s->x->n || s->x->v[t].vaddr > image)
		return PAGE_CLEAR;
	at = s->x->v[t].first + (image - s->x->v[t].vaddr) / PAGE_SIZE;
	if (!owed_test(s->owed, at))
		return PAGE_CLEAR;
	*index = at;
	return PAGE_OWED;
}

/* The extent of page @index, which is not below those of extent @t. */
static size_t extent_onward(const struct extents *x, size_t t, uint64_t index)
{
	if (index < x->v[t + 1].first)
		return t;
	if (index < x->v[t + 2].first)
		return t + 1;
	return extents_of_index(x, index);
}

/* Gathers in region @r from index @at, which is owed, up to @end. See space_gather(). */
static size_t gather(const struct space *s, const struct region *r, uint64_t at, uint64_t end,
		     uint64_t max_pages, uint64_t span_pages, struct run *runs, size_t max_runs)
{
	size_t t = extents_of_index(s->x, at);
	uint64_t first = s->x->v[t].where + (at - s->x->v[t].first);
	size_t k = 0;

	while (k < max_runs && max_pages && at < end) {
		const struct extent *x = &s->x->v[t];
		uint64_t where = x->where + (at - x->first);
		uint64_t limit = MIN(end, x[1].first) - at;

		if (WHERE_FILE(where) != WHERE_FILE(first) || where < first ||
		    where - first >= span_pages)
			break;
		limit = MIN(MIN(limit, max_pages), span_pages - (where - first));
		runs[k].addr = r->start + (x->vaddr + (at - x->first) * PAGE_SIZE - r->image);
		runs[k].index = at;
		runs[k].npages = owed_next_clear(s->owed, at, at + limit) - at;
		runs[k].where = where;

		max_pages -= runs[k].npages;
		at = owed_next(s->owed, at + runs[k].npages, end);
		if (at < end)
			t = extent_onward(s->x, t, at);
		k++;
	}
	return k;
}

/*
 * The region after @r in which to look, when nothing is owed in @r. As long as image addresses
 * ascend along with the regions, those that end below the next owed page are stepped over.
 */
static size_t next_region(const struct space *s, size_t r, uint64_t index_behind)
{
	uint64_t at = owed_next(s->owed, index_behind, s->x->npages);
	uint64_t vaddr = at < s->x->npages ? extents_vaddr(s->x, at) : UINT64_MAX;
	uint64_t reached = image_end(&s->v[r]);

	for (r++; r < s->n; r++) {
		if (s->v[r].image < reached || image_end(&s->v[r]) > vaddr)
			break;
		reached = image_end(&s->v[r]);
	}
	return r;
}

size_t space_gather(const struct space *s, uint64_t addr, uint64_t max_pages, uint64_t span_pages,
		    struct run *runs, size_t max_runs)
{
	size_t r = region_at(s, addr);

	while (r < s->n) {
		struct region part = clip(&s->v[r], addr, UINT64_MAX);
		uint64_t from, to, at;

		indexes(s, &part, &from, &to);
		at = owed_next(s->owed, from, to);
		if (at < to)
			return gather(s, &part, at, to, max_pages, span_pages, runs, max_runs);
		r = next_region(s, r, to);
	}
	return 0;
}

uint64_t space_region_end(const struct space *s, uint64_t addr)
{
	size_t i = region_at(s, addr);

	return i < s->n && s->v[i].start <= addr ? s->v[i].end : addr;
}

uint64_t space_left(const struct space *s)
{
	return owed_left(s->owed);
}

size_t space_regions(const struct space *s, const struct region **v)
{
	*v = s->v;
	return s->n;
}

int space_set_regions(struct space *s, const struct region *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (check_range(v[i].start, v[i].end) || v[i].image % PAGE_SIZE)
			return -EINVAL;
		if (image_end(&v[i]) < v[i].image || (i && v[i].start < v[i - 1].end))
			return -EINVAL;
	}
	if (reserve(s, n))
		return -ENOMEM;
	s->n = 0;
	replace(s, 0, 0, v, n);
	return 0;
}
