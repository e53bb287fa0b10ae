// SPDX-License-Identifier: GPL-2.0-or-later
/* Finding guard regions of a task: see guard.h. */
#include "guard.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* linux/fs.h of 6.15; Debian 12's does not have it. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN	       _IOWR('f', 16, struct scan_arg)
#define CATEGORY_GUARD (UINT64_C(1) << 8)

bool guard_scan(int fd, uint64_t start, uint64_t end, uint64_t *from, uint64_t *to)
{
	struct scan_region r;
	struct scan_arg a = {
		.size = sizeof(a),
		.start = start,
		.end = end,
		.vec = (uint64_t)(uintptr_t)&r,
		.vec_len = 1,
		.category_mask = CATEGORY_GUARD,
		.return_mask = CATEGORY_GUARD,
	};

	if (fd < 0 || ioctl(fd, SCAN, &a) <= 0)
		return false;
	*from = r.start;
	*to = r.end;
	return true;
}

int guard_open(int pid)
{
	char path[32];
	int fd;

	if (!pid)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		struct scan_arg a = {.size = sizeof(a),
				     .start = 4096,
				     .end = 8192,
				     .category_mask = CATEGORY_GUARD,
				     .return_mask = CATEGORY_GUARD};

		/* an older kernel does not know the category */
		if (ioctl(fd, SCAN, &a) < 0) {
			close(fd);
			return -1;
		}
	}
	return fd;
}
