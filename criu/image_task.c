// SPDX-License-Identifier: GPL-2.0-or-later
/* The images of a tree and its tasks: see image_task.h. All are read once, before a restore. */
#include "image_task.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "compiler.h"
#include "images/core.pb-c.h"
#include "images/inventory.pb-c.h"
#include "images/pstree.pb-c.h"

#define VERSION_MIN 1
#define VERSION_MAX 2

#define MACHINE_X86_64 1

/* Values of task_state. Helpers and threads are never written. */
#define STATE_ALIVE   1
#define STATE_DEAD    2
#define STATE_STOPPED 3
#define STATE_ZOMBIE  6

static void cleanup_image(struct image **im)
{
	image_close(*im);
}
#define _cleanup_image_ _cleanup_(cleanup_image)

int image_inventory(const struct image_dir *dir, uint32_t *version, struct error *e)
{
	_cleanup_image_ struct image *im = NULL;
	const Image__Inventory *record;
	int ret;

	ret = image_open(&im, dir, IMAGE_INVENTORY, 0, e);
	if (ret)
		return ret;
	ret = image_only(im, &image__inventory__descriptor, (const void **)&record, e);
	if (ret)
		return ret;
	*version = record->img_version;
	if (*version >= VERSION_MIN && *version <= VERSION_MAX)
		return 0;
	error_set(e, -EOPNOTSUPP, "images of format %u; formats %u to %u are known%s", *version,
		  VERSION_MIN, VERSION_MAX,
		  *version == VERSION_MAX + 1 ? " (later ones may hold compressed pages)" : "");
	image_blame(im, e);
	return -EOPNOTSUPP;
}

static int compare_pids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int check_unique(const uint32_t *pids, size_t n, struct error *e)
{
	_cleanup_free_ uint32_t *sorted = malloc(n * sizeof(*sorted));

	if (!sorted)
		return error_errno(e, -ENOMEM, "pstree.img");
	memcpy(sorted, pids, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_pids);
	for (size_t i = 1; i < n; i++)
		if (sorted[i] == sorted[i - 1])
			return error_set(e, -EBADMSG, "pstree.img: PID %u is there twice",
					 sorted[i]);
	return 0;
}

int image_pstree(const struct image_dir *dir, uint32_t **pids, size_t *npids, struct error *e)
{
	_cleanup_image_ struct image *im = NULL;
	_cleanup_free_ uint32_t *v = NULL;
	const Image__Pstree *record;
	size_t n = 0, room = 0;
	int ret;

	ret = image_open(&im, dir, IMAGE_PSTREE, 0, e);
	if (ret)
		return ret;
	while ((ret = image_next(im, &image__pstree__descriptor, (const void **)&record, e)) > 0) {
		if (!record->pid || record->pid > INT_MAX) {
			error_set(e, -EBADMSG, "no such PID: %u", record->pid);
			return image_blame(im, e);
		}
		if (n == room) {
			uint32_t *more = reallocarray(v, room = room ? 2 * room : 64, sizeof(*v));

			if (!more)
				return error_errno(e, -ENOMEM, "pstree.img");
			v = more;
		}
		v[n++] = record->pid;
	}
	if (ret)
		return ret;
	if (!n)
		return error_set(e, -EBADMSG, "pstree.img: truncated: has no entry");
	ret = check_unique(v, n, e);
	if (ret)
		return ret;
	*pids = steal_pointer(&v);
	*npids = n;
	return 0;
}

int image_core(const struct image_dir *dir, uint32_t pid, bool *has_mm, struct error *e)
{
	_cleanup_image_ struct image *im = NULL;
	const Image__Core *record;
	int ret;

	ret = image_open(&im, dir, IMAGE_CORE, pid, e);
	if (ret)
		return ret;
	ret = image_only(im, &image__core__descriptor, (const void **)&record, e);
	if (ret)
		return ret;
	if (record->mtype != MACHINE_X86_64) {
		error_set(e, -EOPNOTSUPP, "of another machine (type %u)", record->mtype);
		image_blame(im, e);
		return -EOPNOTSUPP;
	}
	if (!record->tc) {
		error_set(e, -EBADMSG, "of a thread, not of a task");
		return image_blame(im, e);
	}
	switch (record->tc->task_state) {
	case STATE_ALIVE:
	case STATE_STOPPED:
		*has_mm = true;
		return 0;
	case STATE_DEAD:
	case STATE_ZOMBIE:
		*has_mm = false;
		return 0;
	}
	error_set(e, -EBADMSG, "unknown task state %u", record->tc->task_state);
	return image_blame(im, e);
}

static int check_vmas(const Image__Mm *mm, struct error *e)
{
	uint64_t below = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Image__Vma *v = mm->vmas[i];

		if (v->start >= v->end || (v->start | v->end) % PAGE_SIZE)
			return error_set(e, -EBADMSG,
					 "mapping %zu: %#llx-%#llx is no range of pages", i,
					 (unsigned long long)v->start, (unsigned long long)v->end);
		if (v->start < below)
			return error_set(
				e, -EBADMSG,
				"mapping %zu: %#llx is below the end of the one before (%#llx)", i,
				(unsigned long long)v->start, (unsigned long long)below);
		below = v->end;
	}
	return 0;
}

int image_mm_open(struct image_mm *mm, const struct image_dir *dir, uint32_t pid, struct error *e)
{
	_cleanup_image_ struct image *im = NULL;
	const Image__Mm *record;
	int ret;

	ret = image_open(&im, dir, IMAGE_MM, pid, e);
	if (ret)
		return ret;
	ret = image_only(im, &image__mm__descriptor, (const void **)&record, e);
	if (ret)
		return ret;
	if (check_vmas(record, e))
		return image_blame(im, e);
	mm->record = record;
	mm->image = steal_pointer(&im);
	return 0;
}

void image_mm_close(struct image_mm *mm)
{
	image_close(mm->image);
	memset(mm, 0, sizeof(*mm));
}
