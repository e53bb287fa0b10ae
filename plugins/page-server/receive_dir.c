// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The directory that a dump comes into: see receive_dir.h. Completing is: data to the disk; old
 * page maps away; pages get their names; page maps get theirs; names to the disk. Whenever it is
 * cut short, no page map names pages that are not its own, and old and new ones never stand
 * together.
 */
#include "receive_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "compiler.h"
#include "receive_sync.h"
#include "wire.h"

#define MARK ".incomplete"

/*
 * Pages files of a page server are numbered from here on, as stock CRIU does, so that they never
 * meet those of a dump that writes its own into the same directory.
 */
#define PAGES_ID_BASE UINT32_C(0x10000)

struct receive_dir {
	int fd; /* of our own, for the lock hangs on it */
	const struct log *log;
	struct image_chain chain;
	uint32_t last_pages_id;
	struct receive_sync *sync;
	struct received *v;
	size_t n, room;
};

int receive_pagemap_open(struct pagemap *p, const struct image_dir *dir, unsigned kind, uint64_t id,
			 struct error *e)
{
	if (kind == WIRE_KIND_SHMEM)
		return pagemap_open_shmem(p, dir, id, e);
	return pagemap_open(p, dir, (uint32_t)id, e);
}

const char *receive_name_pagemap(const struct received *r, bool marked, char name[RECEIVE_NAME_MAX])
{
	snprintf(name, RECEIVE_NAME_MAX, "pagemap-%s%llu.img%s",
		 r->kind == WIRE_KIND_SHMEM ? "shmem-" : "", (unsigned long long)r->id,
		 marked ? MARK : "");
	return name;
}

const char *receive_name_pages(const struct received *r, bool marked, char name[RECEIVE_NAME_MAX])
{
	snprintf(name, RECEIVE_NAME_MAX, "pages-%u.img%s", r->pages_id, marked ? MARK : "");
	return name;
}

/* Not every file system has locks on directories (NFS); there it is left to the operator. */
static int take_lock(struct receive_dir *d, struct error *e)
{
	if (!flock(d->fd, LOCK_EX | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return error_set(e, -EBUSY,
				 "another page server is receiving into this images directory");
	log_info(d->log, "images directory cannot be locked: %s", strerror(errno));
	return 0;
}

static bool is_left_over(const char *name)
{
	size_t len = strlen(name), mark = strlen(".img" MARK);

	return (!strncmp(name, "pagemap-", 8) || !strncmp(name, "pages-", 6)) && len > mark &&
	       !strcmp(name + len - mark, ".img" MARK);
}

/* Left-overs go; the highest number of a pages file is found. */
static int look_around(struct receive_dir *d, struct error *e)
{
	_cleanup_close_ int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *entry;
	unsigned left_over = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int ret = 0;

	if (!dir)
		return error_errno(e, -errno, "images directory");
	steal_fd(&fd);
	while (!ret && (errno = 0, entry = readdir(dir))) {
		unsigned id;
		int len = 0;

		if (is_left_over(entry->d_name)) {
			if (unlinkat(d->fd, entry->d_name, 0))
				ret = error_errno(e, -errno, "%s", entry->d_name);
			left_over++;
		} else if (sscanf(entry->d_name, "pages-%9u.img%n", &id, &len) == 1 && len &&
			   !entry->d_name[len]) {
			d->last_pages_id = MAX(d->last_pages_id, id);
		}
	}
	if (!ret && errno)
		ret = error_errno(e, -errno, "images directory");
	closedir(dir);
	if (left_over)
		log_info(d->log, "removed %u files of a dump that was never complete", left_over);
	return ret;
}

int receive_dir_open(struct receive_dir **out, int images_fd, const struct log *log,
		     struct error *e)
{
	struct receive_dir *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return error_errno(e, -ENOMEM, "images directory");
	d->log = log;
	d->last_pages_id = PAGES_ID_BASE;
	d->fd = openat(images_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret = d->fd < 0 ? error_errno(e, -errno, "images directory") : 0;
	if (!ret)
		ret = image_chain_open(&d->chain, d->fd, e);
	if (!ret)
		ret = take_lock(d, e);
	if (!ret)
		ret = look_around(d, e);
	if (!ret)
		ret = receive_sync_start(&d->sync, d->fd, e);
	if (ret) {
		receive_dir_close(d);
		return ret;
	}
	if (d->chain.broken)
		log_warn(log, "the parent link of the images directory leads nowhere");
	/* Inventories, which tell the version, come when the dump is over: it is that of today. */
	for (size_t i = 0; i < d->chain.n; i++)
		d->chain.v[i].version = 2;
	*out = d;
	return 0;
}

void receive_dir_close(struct receive_dir *d)
{
	if (!d)
		return;
	receive_sync_stop(d->sync);
	image_chain_close(&d->chain);
	if (d->fd >= 0)
		close(d->fd);
	free(d->v);
	free(d);
}

int receive_dir_fd(const struct receive_dir *d)
{
	return d->fd;
}

const struct image_chain *receive_dir_chain(const struct receive_dir *d)
{
	return &d->chain;
}

const struct received *receive_dir_images(const struct receive_dir *d, size_t *n)
{
	*n = d->n;
	return d->v;
}

int receive_dir_add(struct receive_dir *d, unsigned kind, uint64_t id, struct received *r,
		    struct error *e)
{
	if (d->n == d->room) {
		size_t room = d->room ? 2 * d->room : 64;
		struct received *v = reallocarray(d->v, room, sizeof(*v));

		if (!v)
			return error_errno(e, -ENOMEM, "images");
		d->v = v;
		d->room = room;
	}
	if (d->last_pages_id == UINT32_MAX)
		return error_set(e, -EOVERFLOW, "no number is left for a pages file");
	*r = (struct received){kind, id, ++d->last_pages_id};
	d->v[d->n++] = *r;
	return 0;
}

int receive_dir_ended(struct receive_dir *d, const struct received *r, struct error *e)
{
	return receive_sync_add(d->sync, r, e);
}

static int sync_names(const struct receive_dir *d, struct error *e)
{
	return fsync(d->fd) ? error_errno(e, -errno, "images directory") : 0;
}

/*
 * What the image of an earlier dump by the name of @r has for pages: 0 when there is no such image,
 * or when it cannot be read.
 */
static uint32_t earlier_pages(const struct receive_dir *d, const struct received *r)
{
	struct pagemap p;
	uint32_t id;

	if (receive_pagemap_open(&p, &d->chain.v[0], r->kind, r->id, NULL))
		return 0;
	id = p.pages_id;
	pagemap_close(&p);
	return id;
}

/* Page maps of an earlier dump go; @pages gets the numbers of their pages files. */
static int remove_earlier(const struct receive_dir *d, uint32_t *pages, struct error *e)
{
	char name[RECEIVE_NAME_MAX];
	unsigned removed = 0;

	for (size_t i = 0; i < d->n; i++) {
		pages[i] = earlier_pages(d, &d->v[i]);
		if (!unlinkat(d->fd, receive_name_pagemap(&d->v[i], false, name), 0))
			removed++;
		else if (errno != ENOENT)
			return error_errno(e, -errno, "%s", name);
	}
	if (!removed)
		return 0;
	log_info(d->log, "%u images of an earlier dump are replaced", removed);
	return sync_names(d, e);
}

static int rename_all(const struct receive_dir *d, bool to_marked, struct error *e)
{
	static const char *(*const names[])(const struct received *, bool,
					    char *) = {receive_name_pages, receive_name_pagemap};
	char from[RECEIVE_NAME_MAX], to[RECEIVE_NAME_MAX];

	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		for (size_t i = 0; i < d->n; i++) {
			names[k](&d->v[i], !to_marked, from);
			names[k](&d->v[i], to_marked, to);
			if (renameat(d->fd, from, d->fd, to) && !to_marked)
				return error_errno(e, -errno, "%s", from);
		}
	}
	return 0;
}

int receive_dir_complete(struct receive_dir *d, struct error *e)
{
	_cleanup_free_ uint32_t *earlier = calloc(d->n + 1, sizeof(*earlier));
	char name[RECEIVE_NAME_MAX];
	int ret;

	if (!earlier)
		return error_errno(e, -ENOMEM, "images");
	ret = receive_sync_wait(d->sync, e);
	if (!ret)
		ret = remove_earlier(d, earlier, e);
	if (ret)
		return ret;
	ret = rename_all(d, false, e);
	if (!ret)
		ret = sync_names(d, e);
	if (ret) {
		rename_all(d, true, NULL);
		return ret;
	}
	for (size_t i = 0; i < d->n; i++) {
		/* Where that file was missing, its number may have gone to one of the new ones. */
		if (!earlier[i] || earlier[i] >= d->v[0].pages_id)
			continue;
		snprintf(name, sizeof(name), "pages-%u.img", earlier[i]);
		unlinkat(d->fd, name, 0);
	}
	return 0;
}
