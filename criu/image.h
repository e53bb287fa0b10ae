/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image: a file of records as CRIU writes it, read from front to back, one record in memory at a
 * time. Knows magics, lengths and protobuf; what records mean is known by image_task.h and
 * image_pagemap.h. Every length is checked against the file and a limit before anything is
 * allocated. Any thread; an image belongs to who opened it.
 *
 * Errors name file and entry ("pagemap-12.img: entry 17: ..."). Entries count from 0, as crit shows
 * them, so that in a pagemap the head is 0 and what follows counts from 1. Damage is -EBADMSG, what
 * is newer or older than we know -EOPNOTSUPP, a missing file -ENOENT.
 */
#ifndef CRIU_IMAGE_H
#define CRIU_IMAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "error.h"
#include "image_dir.h"

enum image_type {
	IMAGE_INVENTORY,
	IMAGE_PSTREE,
	IMAGE_CORE,
	IMAGE_MM,
	IMAGE_PAGEMAP,
	IMAGE_PAGEMAP_SHMEM,
};

struct image;

/*
 * Opens the image of @type; @id is the pid where there is one a task, and the number of the shared
 * memory. Reads nothing but the magics.
 */
int image_open(struct image **out, const struct image_dir *dir, enum image_type type, uint64_t id,
	       struct error *e);
void image_close(struct image *im);

/*
 * The next record, valid until the next call or image_close(). 1, or 0 at the end of the file.
 * Fields that @type does not have are in the message's unknown_fields.
 */
int image_next(struct image *im, const ProtobufCMessageDescriptor *type, const void **message,
	       struct error *e);

/* The one record of an image that has just one. */
int image_only(struct image *im, const ProtobufCMessageDescriptor *type, const void **message,
	       struct error *e);

/* Puts file and number of the entry read last in front of what is in @e. */
int image_blame(const struct image *im, struct error *e);

#endif
