/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A checkpoint as the manager needs it: the tasks of the tree, their mappings, and for each task
 * the extents of its lazy pages with the file that holds the bytes, parents resolved. Loaded whole
 * before the hand-off socket listens, so that anything damaged is refused before a restore can
 * begin; immutable afterwards and shared by keeper and workers.
 */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "extents.h"

#define MADV_BIT_DONTFORK   (UINT64_C(1) << 10)
#define MADV_BIT_HUGEPAGE   (UINT64_C(1) << 14)
#define MADV_BIT_NOHUGEPAGE (UINT64_C(1) << 15)
#define MADV_BIT_WIPEONFORK (UINT64_C(1) << 18)

struct checkpoint_vma {
	uint64_t start, end; /* bytes */
	uint64_t madv;	     /* MADV_BIT_*, bit number = madvise advice */
	uint32_t prot, flags, status;
};

struct checkpoint_task {
	int pid;     /* in the image */
	bool no_mm;  /* a zombie or dead: handed over as a negative pid, no memory */
	bool no_thp; /* PR_SET_THP_DISABLE was in force */
	struct checkpoint_vma *vmas;
	size_t nvmas;
	struct extents extents;
};

/*
 * A pages-N.img, of the top directory or of a parent; or the memory of one task at a page server,
 * where a page's number is its address / 4096.
 */
struct pages_file {
	int fd;		 /* -1 at a page server */
	int pid;	 /* of the task in the image, at a page server; else 0 */
	char *name;	 /* "pages-1.img", "parent/pages-1.img", "page server": for messages */
	uint64_t npages; /* whole pages in the file */
};

struct checkpoint {
	struct checkpoint_task *tasks; /* one per entry of pstree.img, in its order */
	size_t ntasks;
	struct pages_file *files; /* WHERE_FILE() is an index here */
	size_t nfiles;
	bool long_counts; /* pagemaps carry nr_pages (4.2 and later): the 32-byte wire */
};

/*
 * Loads the checkpoint in @dirfd (named @name in messages). @remote: LAZY pages without PRESENT are
 * at a page server; otherwise they are refused. Nothing is left behind on failure.
 */
int checkpoint_load(struct checkpoint **out, int dirfd, const char *name, bool remote,
		    struct error *e);
void checkpoint_free(struct checkpoint *c);

/* The task with @pid, or NULL. */
struct checkpoint_task *checkpoint_task(const struct checkpoint *c, int pid);

#endif
