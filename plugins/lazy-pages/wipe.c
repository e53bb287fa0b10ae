// SPDX-License-Identifier: GPL-2.0-or-later
/* Which areas a child does not inherit: see wipe.h. */
#include "wipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler.h"

/* By the advice at dump time, an image address; regions say where that is now. */
static int wipe_as_dumped(const struct task *t, struct space *child)
{
	const struct region *v;
	size_t n = space_regions(child, &v);

	for (size_t i = 0; i < t->image->nvmas; i++) {
		const struct checkpoint_vma *vma = &t->image->vmas[i];

		if (!(vma->madv & (MADV_BIT_WIPEONFORK | MADV_BIT_DONTFORK)))
			continue;
		for (size_t k = 0; k < n; k++) {
			uint64_t len = v[k].end - v[k].start;
			uint64_t from = MAX(v[k].image, vma->start);
			uint64_t to = MIN(v[k].image + len, vma->end);
			int ret;

			if (from >= to)
				continue;
			/* Forgiving changes bits, never regions, so @v stays as it is. */
			ret = space_remove(child, v[k].start + (from - v[k].image),
					   v[k].start + (to - v[k].image));
			if (ret)
				return ret;
		}
	}
	return 0;
}

static int add(struct wipes *w, uint64_t start, uint64_t end)
{
	if (w->n == w->room) {
		size_t room = w->room ? w->room * 2 : 16;
		struct range *v = reallocarray(w->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		w->v = v;
		w->room = room;
	}
	w->v[w->n++] = (struct range){start, end};
	return 0;
}

void wipes_free(struct wipes *w)
{
	free(w->v);
	*w = (struct wipes){0};
}

/* A process that has exited has an empty list of mappings, and one that is exiting a cut one. */
static bool is_alive(int pid)
{
	_cleanup_close_ int fd = -1;
	char path[32], c;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &c, 1) == 1;
}

int wipes_read(struct wipes *w, int pid)
{
	_cleanup_free_ char *line = NULL;
	_cleanup_fclose_ FILE *f = NULL;
	uint64_t start = 0, end = 0;
	char path[32];
	size_t room = 0;
	int ret = 0;

	w->n = 0;
	w->known = false;
	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT || errno == ESRCH || errno == EACCES ? 0 : -ENOMEM;
	while (!ret && getline(&line, &room, f) > 0) {
		char *p;

		if (line[0] >= 'a' || (line[0] >= '0' && line[0] <= '9')) {
			start = strtoull(line, &p, 16);
			end = *p == '-' ? strtoull(p + 1, NULL, 16) : start;
		} else if (!strncmp(line, "VmFlags:", 8) &&
			   (strstr(line, " wf") || strstr(line, " dc")) && start < end) {
			ret = add(w, start, end);
		}
	}
	if (!ret && !feof(f) && errno == ENOMEM)
		ret = -ENOMEM;
	w->known = !ret && is_alive(pid);
	return ret;
}

int wipes_apply(const struct wipes *w, const struct task *t, struct space *child)
{
	for (size_t i = 0; i < w->n; i++) {
		int ret = space_remove(child, w->v[i].start, w->v[i].end);

		if (ret)
			return ret;
	}
	return w->known ? 0 : wipe_as_dumped(t, child);
}
