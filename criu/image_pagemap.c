// SPDX-License-Identifier: GPL-2.0-or-later
/* Pagemaps and the files of pages that they name: see image_pagemap.h. */
#include "image_pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "compiler.h"
#include "images/pagemap.pb-c.h"

#define FLAGS_KNOWN (PAGEMAP_PARENT | PAGEMAP_LAZY | PAGEMAP_PRESENT)

static int open_type(struct pagemap *p, const struct image_dir *dir, enum image_type type,
		     uint64_t id, struct error *e)
{
	const Image__PagemapHead *head;
	int ret;

	memset(p, 0, sizeof(*p));
	ret = image_open(&p->image, dir, type, id, e);
	if (ret)
		return ret;
	ret = image_next(p->image, &image__pagemap_head__descriptor, (const void **)&head, e);
	if (!ret) {
		error_set(e, -EBADMSG, "truncated: has no entry");
		ret = image_blame(p->image, e);
	}
	if (ret < 0) {
		pagemap_close(p);
		return ret;
	}
	p->pages_id = head->pages_id;
	return 0;
}

int pagemap_open(struct pagemap *p, const struct image_dir *dir, uint32_t pid, struct error *e)
{
	return open_type(p, dir, IMAGE_PAGEMAP, pid, e);
}

int pagemap_open_shmem(struct pagemap *p, const struct image_dir *dir, uint64_t id, struct error *e)
{
	return open_type(p, dir, IMAGE_PAGEMAP_SHMEM, id, e);
}

void pagemap_close(struct pagemap *p)
{
	image_close(p->image);
	p->image = NULL;
}

/* Before there were flags, what was not in the parent was in the file. */
static uint32_t entry_flags(const Image__PagemapEntry *r)
{
	if (r->has_in_parent && r->in_parent)
		return r->flags | PAGEMAP_PARENT;
	return r->has_flags ? r->flags : PAGEMAP_PRESENT;
}

int pagemap_entry_check(const struct pagemap_entry *n, uint64_t end, struct error *e)
{
	unsigned long long at = n->vaddr, pages = n->npages;

	if (n->flags & ~(uint32_t)FLAGS_KNOWN)
		return error_set(e, -EOPNOTSUPP, "%#llx: flags %#x of a later version", at,
				 n->flags);
	if (n->vaddr % PAGE_SIZE)
		return error_set(e, -EBADMSG, "%#llx: not the address of a page", at);
	if (!n->npages)
		return error_set(e, -EBADMSG, "%#llx: of no pages", at);
	if (n->npages > (UINT64_MAX - n->vaddr) / PAGE_SIZE)
		return error_set(e, -EBADMSG, "%#llx: %llu pages reach past the end of memory", at,
				 pages);
	if (n->vaddr < end)
		return error_set(e, -EBADMSG, "%#llx: below the end of the entry before (%#llx)",
				 at, (unsigned long long)end);
	if ((n->flags & (PAGEMAP_PARENT | PAGEMAP_PRESENT)) == (PAGEMAP_PARENT | PAGEMAP_PRESENT))
		return error_set(e, -EBADMSG, "%#llx: both here and in the parent", at);
	if (!n->flags)
		return error_set(e, -EBADMSG, "%#llx: neither here nor elsewhere", at);
	return 0;
}

int pagemap_next(struct pagemap *p, struct pagemap_entry *entry, struct error *e)
{
	const Image__PagemapEntry *r;
	int ret;

	ret = image_next(p->image, &image__pagemap_entry__descriptor, (const void **)&r, e);
	if (ret <= 0)
		return ret;
	*entry = (struct pagemap_entry){
		.vaddr = r->vaddr,
		.npages = r->has_nr_pages ? r->nr_pages : r->compat_nr_pages,
		.flags = entry_flags(r),
		.long_count = r->has_nr_pages,
	};
	/* Fields that we do not know may say that the bytes are not in the file as they are. */
	if (r->base.n_unknown_fields)
		ret = error_set(e, -EOPNOTSUPP, "has field %u, of a later version",
				r->base.unknown_fields[0].tag);
	else
		ret = pagemap_entry_check(entry, p->end, e);
	if (ret) {
		image_blame(p->image, e);
		return ret;
	}
	p->end = entry->vaddr + entry->npages * PAGE_SIZE;
	return 1;
}

int pages_open(int *fd, uint64_t *npages, const struct image_dir *dir, uint32_t pages_id,
	       struct error *e)
{
	_cleanup_close_ int file = -1;
	char name[IMAGE_NAME_MAX], path[32];
	struct stat st;

	snprintf(path, sizeof(path), "pages-%u.img", pages_id);
	image_name(dir, path, name);
	file = openat(dir->fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (file < 0 || fstat(file, &st))
		return error_errno(e, -errno, "%s", name);
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EBADMSG, "%s: not a regular file", name);
	if ((uint64_t)st.st_size % PAGE_SIZE)
		return error_set(e, -EBADMSG, "%s: truncated: %llu bytes are no whole pages", name,
				 (unsigned long long)st.st_size);
	/* No lock is no reason to stop: not every file system has them, and what is being punched
	 * out just now is no worse than what was a moment ago. */
	(void)flock(file, LOCK_SH | LOCK_NB);
	*npages = (uint64_t)st.st_size / PAGE_SIZE;
	*fd = steal_fd(&file);
	return 0;
}
