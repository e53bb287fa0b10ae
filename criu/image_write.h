/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing what image_pagemap.h reads: pagemap-ID.img, entry by entry, in a form that CRIU 4.1 and
 * 4.2 both read, because an entry has its count of pages in either field. Entries that a reader
 * would refuse are refused. A fixed buffer; nothing is synced or renamed here: files have the names
 * that the caller gives. Any thread; a writer belongs to who opened it.
 */
#ifndef CRIU_IMAGE_WRITE_H
#define CRIU_IMAGE_WRITE_H

#include "image_pagemap.h"

struct pagemap_writer;

/* Makes @file in @dirfd, which must not exist (-EEXIST), and writes the head. */
int pagemap_writer_open(struct pagemap_writer **out, int dirfd, const char *file, uint32_t pages_id,
			struct error *e);
/* long_count of @n is not looked at. After an error that is not about @n the file is no image. */
int pagemap_writer_add(struct pagemap_writer *w, const struct pagemap_entry *n, struct error *e);
/* Writes what is in the buffer. */
int pagemap_writer_flush(struct pagemap_writer *w, struct error *e);
/* Drops what has not been flushed. NULL is fine. */
void pagemap_writer_close(struct pagemap_writer *w);

/* Writes all of it, however often the kernel takes less. 0 or -errno. */
int write_whole(int fd, const void *bytes, size_t len);

#endif
