/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same image in the parents of the images directory, nearest first, read along with an image
 * that comes in: every pagemap streams past once, whatever its size. The chain of an image ends
 * with the first parent that does not have it. One thread.
 *
 * Questions must come in ascending order of addresses. Errors name the file in the parent.
 */
#ifndef RECEIVE_PARENT_H
#define RECEIVE_PARENT_H

#include "error.h"
#include "image_dir.h"

struct receive_parent;

/*
 * @kind and @id as on the wire (wire.h). *out is NULL when the nearest parent does not have the
 * image, or there is none. @chain must outlive it.
 */
int receive_parent_open(struct receive_parent **out, const struct image_chain *chain, unsigned kind,
			uint64_t id, struct error *e);
void receive_parent_close(struct receive_parent *p);

/* 0 when the bytes of all these pages are in there, in whichever generation. */
int receive_parent_check(struct receive_parent *p, uint64_t vaddr, uint64_t npages,
			 struct error *e);

/*
 * Gives the space of these pages back in every generation that has them: they have come anew.
 * A parent either checks or punches. punch_end() does what has been put off.
 */
int receive_parent_punch(struct receive_parent *p, uint64_t vaddr, uint64_t npages,
			 struct error *e);
int receive_parent_punch_end(struct receive_parent *p, struct error *e);
/* Bytes of files that have been punched out. */
uint64_t receive_parent_punched(const struct receive_parent *p);

#endif
