/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pagemap-PID.img, entry by entry, whichever version wrote it: where the contents of which pages
 * are. Entries come in ascending order, do not overlap, are whole pages, are not empty, do not wrap
 * around, and their flags make sense; everything else is refused. Errors as in image.h.
 */
#ifndef CRIU_IMAGE_PAGEMAP_H
#define CRIU_IMAGE_PAGEMAP_H

#include <stdbool.h>

#include "image.h"

enum pagemap_flag {
	PAGEMAP_PARENT = 1,  /* the bytes are in the parent directory */
	PAGEMAP_LAZY = 2,    /* a lazy restore leaves these pages to the manager */
	PAGEMAP_PRESENT = 4, /* the bytes are the next ones in pages-N.img */
};

struct pagemap_entry {
	uint64_t vaddr, npages;
	uint32_t flags;	 /* LAZY with or without PARENT or PRESENT, or one of these two */
	bool long_count; /* as 4.2 and later count */
};

struct pagemap {
	struct image *image;
	uint32_t pages_id; /* N of pages-N.img */
	uint64_t end;	   /* of the last entry */
};

/* Reads the head. -ENOENT when there is no such file. */
int pagemap_open(struct pagemap *p, const struct image_dir *dir, uint32_t pid, struct error *e);
/* The same for shared memory: pagemap-shmem-ID.img, whose addresses are offsets. */
int pagemap_open_shmem(struct pagemap *p, const struct image_dir *dir, uint64_t id,
		       struct error *e);
void pagemap_close(struct pagemap *p);

/* 1, or 0 behind the last entry. */
int pagemap_next(struct pagemap *p, struct pagemap_entry *entry, struct error *e);

/* Whether @n may follow an entry that ends at @end: what every entry that is read has passed. */
int pagemap_entry_check(const struct pagemap_entry *n, uint64_t end, struct error *e);

/*
 * Opens pages-N.img in @dir and counts its pages. As long as it is open it is locked (LOCK_SH), and
 * --auto-dedup takes no pages out of it.
 */
int pages_open(int *fd, uint64_t *npages, const struct image_dir *dir, uint32_t pages_id,
	       struct error *e);

#endif
