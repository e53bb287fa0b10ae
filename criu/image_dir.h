/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A directory of images and, behind its "parent" link, those that it builds upon: a chain of any
 * length. A chain that comes back to itself is refused. Any thread; immutable once opened.
 */
#ifndef CRIU_IMAGE_DIR_H
#define CRIU_IMAGE_DIR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

#define IMAGE_NAME_MAX 160

struct image_dir {
	int fd;
	unsigned depth;	  /* 0: where the checkpoint is; 1: its parent, and so on */
	uint32_t version; /* of the images: from the inventory of the top directory */
	dev_t dev;
	ino_t ino;
};

struct image_chain {
	struct image_dir *v;
	size_t n;
	int broken; /* why the chain ends before its last link does: negative errno, or 0 */
};

/* @dirfd is not owned: the chain keeps a duplicate. */
int image_chain_open(struct image_chain *c, int dirfd, struct error *e);
void image_chain_close(struct image_chain *c);

/* How messages name @file of @dir: "file", "parent/file", "parent/parent/file" ... */
const char *image_name(const struct image_dir *dir, const char *file, char name[IMAGE_NAME_MAX]);

#endif
