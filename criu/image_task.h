/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The images of a tree and its tasks, read and checked: the version of the format, the pids, who is
 * alive, and what each has mapped. Errors as in image.h. Any thread.
 */
#ifndef CRIU_IMAGE_TASK_H
#define CRIU_IMAGE_TASK_H

#include <stdbool.h>

#include "image.h"
#include "images/mm.pb-c.h"

/* Formats: 1 is without common magics, 2 is what 4.2 writes, 3 has compressed pages. */
int image_inventory(const struct image_dir *dir, uint32_t *version, struct error *e);

/* One pid a task, in the order of the file; each valid and there once. To be freed. */
int image_pstree(const struct image_dir *dir, uint32_t **pids, size_t *npids, struct error *e);

/* Whether the task has an address space: the alive and the stopped do, the dead do not. */
int image_core(const struct image_dir *dir, uint32_t pid, bool *has_mm, struct error *e);

/* Mappings ascend, are not empty, whole pages, and disjoint. */
struct image_mm {
	struct image *image;
	const Image__Mm *record;
};
int image_mm_open(struct image_mm *mm, const struct image_dir *dir, uint32_t pid, struct error *e);
void image_mm_close(struct image_mm *mm);

#endif
