// SPDX-License-Identifier: GPL-2.0-or-later
/* Directories of images and their parents: see image_dir.h. Links are followed once, at the start.
 */
#include "image_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler.h"

/* Deeper than this, messages count the parents instead of spelling them. */
#define SPELLED_DEPTH 8

const char *image_name(const struct image_dir *dir, const char *file, char name[IMAGE_NAME_MAX])
{
	size_t n = 0;

	if (dir->depth > SPELLED_DEPTH)
		n = (size_t)snprintf(name, IMAGE_NAME_MAX, "(%u times parent)/", dir->depth);
	else
		for (unsigned i = 0; i < dir->depth; i++)
			n += (size_t)snprintf(name + n, IMAGE_NAME_MAX - n, "parent/");
	snprintf(name + n, IMAGE_NAME_MAX - n, "%s", file);
	return name;
}

/* Takes over @fd, also when it fails. */
static int append(struct image_chain *c, int fd, struct error *e)
{
	_cleanup_close_ int dir = fd;
	struct image_dir *v;
	struct stat st;

	if (fstat(dir, &st))
		return error_errno(e, -errno, "images directory");
	if (!S_ISDIR(st.st_mode))
		return error_errno(e, -ENOTDIR, "images directory");
	for (size_t i = 0; i < c->n; i++)
		if (c->v[i].dev == st.st_dev && c->v[i].ino == st.st_ino)
			return error_set(e, -ELOOP, "the parent links form a loop");
	v = reallocarray(c->v, c->n + 1, sizeof(*v));
	if (!v)
		return error_errno(e, -ENOMEM, "images directory");
	c->v = v;
	c->v[c->n] = (struct image_dir){
		.fd = steal_fd(&dir), .depth = (unsigned)c->n, .dev = st.st_dev, .ino = st.st_ino};
	c->n++;
	return 0;
}

int image_chain_open(struct image_chain *c, int dirfd, struct error *e)
{
	char name[IMAGE_NAME_MAX];
	int fd, ret;

	memset(c, 0, sizeof(*c));
	fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return error_errno(e, -errno, "images directory");

	while (!(ret = append(c, fd, e))) {
		const struct image_dir *last = &c->v[c->n - 1];
		struct stat st;

		fd = openat(last->fd, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			continue;
		if (errno == ENOENT) {
			/* A link to nowhere matters only if a page is behind it. */
			if (!fstatat(last->fd, "parent", &st, AT_SYMLINK_NOFOLLOW))
				c->broken = -ENOENT;
			return 0;
		}
		ret = error_errno(e, -errno, "%s", image_name(last, "parent", name));
		break;
	}
	image_chain_close(c);
	return ret;
}

void image_chain_close(struct image_chain *c)
{
	for (size_t i = 0; i < c->n; i++)
		close(c->v[i].fd);
	free(c->v);
	memset(c, 0, sizeof(*c));
}
