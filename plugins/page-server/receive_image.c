// SPDX-License-Identifier: GPL-2.0-or-later
/* An image that comes in, and what it makes superfluous in its parents: see receive_image.h. */
#include "receive_image.h"

#include <errno.h>
#include <fcntl.h>

#include "compiler.h"
#include "image_write.h"
#include "receive_parent.h"

/* So often the disk is told to begin, so that little is left to wait for when the dump is over. */
#define WRITE_OUT_BYTES (UINT64_C(8) << 20)

struct receive_image {
	struct receive_dir *dir;
	struct received what;
	int pages_fd;
	struct pagemap_writer *pagemap;
	struct receive_parent *parent; /* NULL: it has none */
	uint64_t vaddr;		       /* of the next byte that is to come */
	uint64_t npages;	       /* that entries have promised */
	uint64_t written, written_out; /* bytes */
	char pages_name[RECEIVE_NAME_MAX];
};

int receive_image_open(struct receive_image **out, struct receive_dir *d, unsigned kind,
		       uint64_t id, struct error *e)
{
	struct receive_image *im = calloc(1, sizeof(*im));
	char name[RECEIVE_NAME_MAX];
	int ret;

	if (!im)
		return error_errno(e, -ENOMEM, "image");
	im->pages_fd = -1;
	im->dir = d;
	ret = receive_dir_add(d, kind, id, &im->what, e);
	if (ret)
		goto fail;
	ret = pagemap_writer_open(&im->pagemap, receive_dir_fd(d),
				  receive_name_pagemap(&im->what, true, name), im->what.pages_id,
				  e);
	if (ret)
		goto fail;
	ret = receive_parent_open(&im->parent, receive_dir_chain(d), kind, id, e);
	if (ret)
		goto fail;
	receive_name_pages(&im->what, true, im->pages_name);
	im->pages_fd = openat(receive_dir_fd(d), im->pages_name,
			      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (im->pages_fd < 0) {
		ret = error_errno(e, -errno, "%s", im->pages_name);
		goto fail;
	}
	*out = im;
	return 0;
fail:
	receive_image_close(im);
	return ret;
}

void receive_image_close(struct receive_image *im)
{
	if (!im)
		return;
	pagemap_writer_close(im->pagemap);
	receive_parent_close(im->parent);
	if (im->pages_fd >= 0)
		close(im->pages_fd);
	free(im);
}

bool receive_image_has_parent(const struct receive_image *im)
{
	return im->parent;
}

/* A restore needs the bytes of each page: here, or in a parent that has them. */
static int check_bytes(struct receive_image *im, const struct pagemap_entry *n, struct error *e)
{
	unsigned long long at = n->vaddr;

	if (n->flags & PAGEMAP_PARENT) {
		if (!im->parent)
			return error_set(e, -ENOENT,
					 "%#llx: is to be in the parent, and there is none", at);
		return receive_parent_check(im->parent, n->vaddr, n->npages, e);
	}
	if (!(n->flags & PAGEMAP_PRESENT))
		return error_set(e, -EREMOTE, "%#llx: comes without its bytes", at);
	if (n->npages > (INT64_MAX >> PAGE_SHIFT) - im->npages)
		return error_set(e, -EFBIG, "%#llx: %llu pages more than a file can hold", at,
				 (unsigned long long)n->npages);
	return 0;
}

int receive_image_add(struct receive_image *im, const struct pagemap_entry *n, struct error *e)
{
	/* First, for it sees to the order, which the parent depends on. */
	int ret = pagemap_writer_add(im->pagemap, n, e);

	if (!ret)
		ret = check_bytes(im, n, e);
	if (ret || !(n->flags & PAGEMAP_PRESENT))
		return ret;
	im->vaddr = n->vaddr;
	im->npages += n->npages;
	return 0;
}

static void write_out(struct receive_image *im)
{
	uint64_t end = im->written & ~(PAGE_SIZE - 1);

	/* A hint: whether it worked is seen when the dump is completed. */
	sync_file_range(im->pages_fd, (off64_t)im->written_out, (off64_t)(end - im->written_out),
			SYNC_FILE_RANGE_WRITE);
	im->written_out = end;
}

int receive_image_write(struct receive_image *im, const void *bytes, size_t len, struct error *e)
{
	int ret = write_whole(im->pages_fd, bytes, len);

	if (ret)
		return error_errno(e, ret, "%s: %#llx", im->pages_name,
				   (unsigned long long)im->vaddr);
	im->vaddr += len;
	im->written += len;
	if (im->written - im->written_out >= WRITE_OUT_BYTES)
		write_out(im);
	return 0;
}

int receive_image_end(struct receive_image *im, struct error *e)
{
	int ret = pagemap_writer_flush(im->pagemap, e);

	if (!ret)
		ret = receive_dir_ended(im->dir, &im->what, e);
	receive_image_close(im);
	return ret;
}

int receive_image_dedup(const struct receive_dir *d, const struct received *r, uint64_t *punched,
			struct error *e)
{
	const struct image_chain *chain = receive_dir_chain(d);
	struct receive_parent *parent;
	struct pagemap_entry n;
	struct pagemap p;
	int ret = receive_parent_open(&parent, chain, r->kind, r->id, e);

	if (ret || !parent)
		return ret;
	ret = receive_pagemap_open(&p, &chain->v[0], r->kind, r->id, e);
	if (ret) {
		receive_parent_close(parent);
		return ret;
	}
	while ((ret = pagemap_next(&p, &n, e)) > 0) {
		if (n.flags & PAGEMAP_PRESENT)
			ret = receive_parent_punch(parent, n.vaddr, n.npages, e);
		if (ret < 0)
			break;
	}
	if (!ret)
		ret = receive_parent_punch_end(parent, e);
	*punched += receive_parent_punched(parent);
	pagemap_close(&p);
	receive_parent_close(parent);
	return ret;
}
