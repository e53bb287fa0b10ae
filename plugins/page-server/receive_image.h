/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One image of a dump that comes in: its page map and its file of pages, written from front to
 * back under marked names (receive_dir.h). The sender's word is checked: order and size of its
 * entries, and that what is to be in the parent is there. Memory is bounded. One thread.
 */
#ifndef RECEIVE_IMAGE_H
#define RECEIVE_IMAGE_H

#include <stdbool.h>

#include "receive_dir.h"

struct receive_image;

/* -EEXIST when this dump has had the image before. @d must outlive it. */
int receive_image_open(struct receive_image **out, struct receive_dir *d, unsigned kind,
		       uint64_t id, struct error *e);
/* Drops what has not been written. NULL is fine. */
void receive_image_close(struct receive_image *im);

bool receive_image_has_parent(const struct receive_image *im);

/* The next entry. When it is PRESENT its bytes must follow before anything else. */
int receive_image_add(struct receive_image *im, const struct pagemap_entry *n, struct error *e);
/* Bytes of the last entry, in as many pieces as one likes. */
int receive_image_write(struct receive_image *im, const void *bytes, size_t len, struct error *e);
/* All entries have come. Closes it, also when it fails; it is on its way to the disk. */
int receive_image_end(struct receive_image *im, struct error *e);

/* Punches out of the parents what a completed image has itself (--auto-dedup); bytes in @punched.
 */
int receive_image_dedup(const struct receive_dir *d, const struct received *r, uint64_t *punched,
			struct error *e);

#endif
