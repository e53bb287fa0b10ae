/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map as one would write it on paper: an array with an entry for each cell of the address
 * space, and one for each cell of the image. A cell is `unit` pages, so that few cells can still
 * reach over many chunks of owed bits. It knows nothing of regions, extents, or sharing.
 */
#ifndef SPACE_MODEL_H
#define SPACE_MODEL_H

#include "unit.h"

#include "compiler.h"
#include "space.h"

#define CELLS_MAX 256

/* The image, the same for all tasks of a world. */
struct picture {
	uint64_t base; /* address of cell 0, at run time and in the image */
	uint64_t unit; /* pages in a cell */
	int cells;
	bool lazy[CELLS_MAX];
	uint64_t where[CELLS_MAX]; /* of lazy cells */
	uint64_t index[CELLS_MAX]; /* of the first page of a lazy cell */
};

struct model {
	int image[CELLS_MAX]; /* the cell of the image that is mapped here, or -1 */
	bool owed[CELLS_MAX]; /* by cell of the image */
};

static inline uint64_t cell_addr(const struct picture *p, int cell)
{
	return p->base + (uint64_t)cell * p->unit * PAGE_SIZE;
}

static inline void model_forgive(struct model *m, int from, int to)
{
	for (int c = from; c < to; c++)
		if (m->image[c] >= 0)
			m->owed[m->image[c]] = false;
}

static inline void model_unmap(struct model *m, int from, int to)
{
	model_forgive(m, from, to);
	for (int c = from; c < to; c++)
		m->image[c] = -1;
}

static inline void model_remap(struct model *m, int from, int to, int len)
{
	if (from == to)
		return;
	model_unmap(m, to, to + len);
	for (int c = 0; c < len; c++) {
		m->image[to + c] = m->image[from + c];
		m->image[from + c] = -1;
	}
}

static inline uint64_t model_left(const struct picture *p, const struct model *m)
{
	uint64_t left = 0;

	for (int c = 0; c < p->cells; c++)
		left += m->owed[c] ? p->unit : 0;
	return left;
}

static inline bool model_owes(const struct model *m, int cell)
{
	return m->image[cell] >= 0 && m->owed[m->image[cell]];
}

/* Does @cell go on from the one before it: the same mapping, moved by the same distance? */
static inline bool model_same_region(const struct model *m, int cell)
{
	return m->image[cell] >= 0 && m->image[cell - 1] >= 0 &&
	       m->image[cell] == m->image[cell - 1] + 1;
}

static inline bool picture_same_extent(const struct picture *p, int image)
{
	return p->lazy[image] && p->lazy[image - 1] &&
	       p->where[image] == p->where[image - 1] + p->unit &&
	       WHERE_FILE(p->where[image]) == WHERE_FILE(p->where[image - 1]);
}

/* What space_gather() must answer when asked from @cell on. */
static inline size_t model_gather(const struct picture *p, const struct model *m, int cell,
				  uint64_t max_pages, uint64_t span, struct run *runs,
				  size_t max_runs)
{
	uint64_t first = 0;
	size_t k = 0;

	while (cell < p->cells && !model_owes(m, cell))
		cell++;
	for (int c = cell; max_pages && c < p->cells; c++) {
		uint64_t where, n;
		int image = m->image[c];

		if (c > cell && !model_same_region(m, c))
			break;
		if (!model_owes(m, c))
			continue;
		where = p->where[image];
		if (!k)
			first = where;
		if (WHERE_FILE(where) != WHERE_FILE(first) || where < first ||
		    where - first >= span)
			break;
		n = MIN(MIN(p->unit, max_pages), span - (where - first));
		if (k && model_owes(m, c - 1) && picture_same_extent(p, image)) {
			runs[k - 1].npages += n;
		} else {
			if (k == max_runs)
				break;
			runs[k++] = (struct run){cell_addr(p, c), p->index[image], n, where};
		}
		max_pages -= n;
		if (n < p->unit)
			break;
	}
	return k;
}

#endif
