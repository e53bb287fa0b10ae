// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Extents: see extents.h. Two binary searches over one array, by address and by index; the
 * sentinel behind the last extent makes "where does this one end" a plain difference.
 */
#include "extents.h"

#include <errno.h>
#include <string.h>

#include "compiler.h"

#define WHERE_PAGES (UINT64_C(1) << 48)

void extents_init(struct extents *x)
{
	memset(x, 0, sizeof(*x));
}

void extents_free(struct extents *x)
{
	free(x->v);
	extents_init(x);
}

static int make_room(struct extents *x, struct error *e)
{
	size_t room = x->room ? 2 * x->room : 64;
	struct extent *v;

	if (x->n < x->room)
		return 0;
	v = reallocarray(x->v, room, sizeof(*v));
	if (!v)
		return error_errno(e, -ENOMEM, "%zu extents", room);
	x->v = v;
	x->room = room;
	return 0;
}

int extents_add(struct extents *x, uint64_t vaddr, uint64_t npages, uint64_t where, struct error *e)
{
	struct extent *last = x->n ? &x->v[x->n - 1] : NULL;
	unsigned long long at = vaddr;
	int ret;

	if (!npages || vaddr % PAGE_SIZE)
		return error_set(e, -EINVAL, "%#llx: not whole pages", at);
	if (npages > (UINT64_MAX - vaddr) / PAGE_SIZE)
		return error_set(e, -EOVERFLOW, "%#llx: %llu pages reach past the end of memory",
				 at, (unsigned long long)npages);
	if (vaddr < x->end)
		return error_set(e, -EINVAL, "%#llx: below the end of the entry before (%#llx)", at,
				 (unsigned long long)x->end);
	if (npages > WHERE_PAGES - WHERE_PAGE(where))
		return error_set(e, -EOVERFLOW, "%#llx: page %llu of the file", at,
				 (unsigned long long)WHERE_PAGE(where));

	if (!last || x->end != vaddr || last->where + (x->npages - last->first) != where ||
	    WHERE_FILE(last->where) != WHERE_FILE(where)) {
		ret = make_room(x, e);
		if (ret)
			return ret;
		x->v[x->n++] = (struct extent){vaddr, x->npages, where};
	}
	x->npages += npages;
	x->end = vaddr + npages * PAGE_SIZE;
	return 0;
}

int extents_seal(struct extents *x, struct error *e)
{
	struct extent *v = reallocarray(x->v, x->n + 1, sizeof(*v));

	if (!v)
		return error_errno(e, -ENOMEM, "%zu extents", x->n + 1);
	x->v = v;
	x->room = x->n + 1;
	x->v[x->n] = (struct extent){UINT64_MAX, x->npages, 0};
	return 0;
}

uint64_t extent_npages(const struct extents *x, size_t i)
{
	return x->v[i + 1].first - x->v[i].first;
}

size_t extents_at(const struct extents *x, uint64_t vaddr)
{
	size_t lo = 0, hi = x->n;

	/* Ends with the first extent that starts above vaddr. */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (x->v[mid].vaddr <= vaddr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo && (vaddr - x->v[lo - 1].vaddr) / PAGE_SIZE < extent_npages(x, lo - 1))
		lo--;
	return lo;
}

size_t extents_of_index(const struct extents *x, uint64_t index)
{
	size_t lo = 0, hi = x->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (x->v[mid].first <= index)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

uint64_t extents_index(const struct extents *x, uint64_t vaddr)
{
	size_t i = extents_at(x, vaddr);

	if (i == x->n || x->v[i].vaddr >= vaddr)
		return x->v[i].first;
	return x->v[i].first + (vaddr - x->v[i].vaddr) / PAGE_SIZE;
}

uint64_t extents_vaddr(const struct extents *x, uint64_t index)
{
	const struct extent *t = &x->v[extents_of_index(x, index)];

	return t->vaddr + (index - t->first) * PAGE_SIZE;
}

uint64_t extents_where(const struct extents *x, uint64_t index)
{
	const struct extent *t = &x->v[extents_of_index(x, index)];

	return t->where + (index - t->first);
}
