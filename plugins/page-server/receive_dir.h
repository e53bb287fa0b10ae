/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The images directory of a page server while a dump comes in. Until the dump is complete its files
 * are called pagemap-...img.incomplete and pages-...img.incomplete, under which nobody restores
 * them; what an earlier dump left under its real names stays whole until then. One thread; one
 * server at a time: a second one over the same directory is refused.
 */
#ifndef RECEIVE_DIR_H
#define RECEIVE_DIR_H

#include <stdbool.h>

#include "error.h"
#include "image_pagemap.h"
#include "log.h"

#define RECEIVE_NAME_MAX 64

/* An image of the dump: @kind and @id as on the wire. */
struct received {
	unsigned kind;
	uint64_t id;
	uint32_t pages_id;
};

struct receive_dir;

/* Takes the directory, and removes what a dump that never became complete has left in it. */
int receive_dir_open(struct receive_dir **out, int images_fd, const struct log *log,
		     struct error *e);
/* What has not been completed stays as it is, with its marks. NULL is fine. */
void receive_dir_close(struct receive_dir *d);

int receive_dir_fd(const struct receive_dir *d);
/* The directory and its parents. */
const struct image_chain *receive_dir_chain(const struct receive_dir *d);
const struct received *receive_dir_images(const struct receive_dir *d, size_t *n);

/* One image more. Its number of a pages file is above all that are in the directory. */
int receive_dir_add(struct receive_dir *d, unsigned kind, uint64_t id, struct received *r,
		    struct error *e);

/* Nothing more will be written to the files of this image: they go to the disk. */
int receive_dir_ended(struct receive_dir *d, const struct received *r, struct error *e);

/*
 * The dump is complete, all its images have ended: its files go to the disk and get their real
 * names. Images of an earlier dump with the same names go first, with their pages. After an error
 * nothing has its real name.
 */
int receive_dir_complete(struct receive_dir *d, struct error *e);

/* The page map of an image, in the directory or in a parent. Errors as pagemap_open(). */
int receive_pagemap_open(struct pagemap *p, const struct image_dir *dir, unsigned kind, uint64_t id,
			 struct error *e);

/* Names of files, with or without the mark. Return @name. */
const char *receive_name_pagemap(const struct received *r, bool marked,
				 char name[RECEIVE_NAME_MAX]);
const char *receive_name_pages(const struct received *r, bool marked, char name[RECEIVE_NAME_MAX]);

#endif
