/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extents: the lazy pages of one checkpointed task, flattened: "image range -> where the bytes
 * are", in address order. Lazy pages are numbered from 0 in that order; this number, the index, is
 * what the owed bitmap is about. Built once while the images stream in, immutable and shared by
 * everybody afterwards. Pure. 24 bytes an extent; a lookup is a binary search.
 */
#ifndef EXTENTS_H
#define EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct extent {
	uint64_t vaddr; /* image address of the first page */
	uint64_t first; /* index of the first page */
	uint64_t where; /* WHERE_FILE and WHERE_PAGE of the first page; later pages follow it */
};

#define WHERE(file, page) ((uint64_t)(file) << 48 | (uint64_t)(page))
#define WHERE_FILE(w)	  ((unsigned)((w) >> 48))
#define WHERE_PAGE(w)	  ((w) & ((UINT64_C(1) << 48) - 1)) /* in pages from the file's start */
#define WHERE_REMOTE	  0xffffu /* of a parent: the bytes were left at their source */

struct extents {
	struct extent *v; /* n of them and a sentinel: vaddr ~0, first == npages */
	size_t n;
	size_t room;
	uint64_t npages;
	uint64_t end; /* image address behind the last page added; vaddr below it is refused */
};

void extents_init(struct extents *x);
void extents_free(struct extents *x);

/*
 * Appends @npages (> 0) pages at @vaddr. Addresses must ascend (-EINVAL) and not wrap (-EOVERFLOW).
 * What continues the last extent in address and place is merged with it. -ENOMEM.
 */
int extents_add(struct extents *x, uint64_t vaddr, uint64_t npages, uint64_t where,
		struct error *e);
/* Writes the sentinel and gives spare room back. To be called once, before any lookup. */
int extents_seal(struct extents *x, struct error *e);

/* Number of pages of extent @i. */
uint64_t extent_npages(const struct extents *x, size_t i);
/* The extent that holds @vaddr, else the first one above it, else x->n. */
size_t extents_at(const struct extents *x, uint64_t vaddr);
/* The extent that holds page number @index; index < npages. */
size_t extents_of_index(const struct extents *x, uint64_t index);
/* The index of the first lazy page at or above @vaddr; npages when there is none. */
uint64_t extents_index(const struct extents *x, uint64_t vaddr);
/* The image address of page @index (< npages), and where it is. */
uint64_t extents_vaddr(const struct extents *x, uint64_t index);
uint64_t extents_where(const struct extents *x, uint64_t index);

#endif
