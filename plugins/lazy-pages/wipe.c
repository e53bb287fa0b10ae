// SPDX-License-Identifier: GPL-2.0-or-later
/* Which areas a child does not inherit: see wipe.h. */
#include "wipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"
#include "owner.h"
#include "worker.h"

/* By the advice at dump time, an image address; regions say where that is now. */
static int wipe_as_dumped(const struct task *t, struct space *child)
{
	const struct region *v;
	size_t n = space_regions(child, &v);

	for (size_t i = 0; i < t->image->nvmas; i++) {
		const struct checkpoint_vma *vma = &t->image->vmas[i];

		if (!(vma->madv & MADV_BIT_WIPEONFORK))
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

int wipe_on_fork(const struct task *t, struct space *child)
{
	_cleanup_free_ char *line = NULL;
	_cleanup_fclose_ FILE *f = NULL;
	uint64_t start = 0, end = 0;
	char path[32];
	size_t room = 0;
	int ret = 0;

	if (!space_left(child))
		return 0;
	if (t->rec->real_pid) {
		snprintf(path, sizeof(path), "/proc/%d/smaps", t->rec->real_pid);
		f = fopen(path, "re");
	}
	if (!f) {
		log_info(t->worker->log,
			 "%s: not known which process it is; what its child does not "
			 "inherit is taken from the images",
			 task_name(t).text);
		return wipe_as_dumped(t, child);
	}
	while (!ret && getline(&line, &room, f) > 0) {
		char *p;

		if (line[0] >= 'a' || (line[0] >= '0' && line[0] <= '9')) {
			start = strtoull(line, &p, 16);
			end = *p == '-' ? strtoull(p + 1, NULL, 16) : start;
		} else if (!strncmp(line, "VmFlags:", 8) && strstr(line, " wf") && start < end) {
			ret = space_remove(child, start, end);
		}
	}
	return ret;
}
