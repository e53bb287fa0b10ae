// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which tasks of a tree are armed, as the kernel tells it: "um" (or "ui", for shared memory) among
 * the VmFlags of an area in /proc/PID/smaps. The kernel takes the flag away when the last reference
 * to the userfaultfd is closed. In CRIU's thread, at dump (see plugin.h).
 */
#include "plugin.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "compiler.h"

/* Gone or never there: no reason to fail, the tree changes while we look. */
static bool is_gone(int err)
{
	return err == ENOENT || err == ESRCH;
}

static int task_armed(pid_t pid, struct error *e)
{
	_cleanup_fclose_ FILE *smaps = NULL;
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	smaps = fopen(path, "re");
	if (!smaps)
		return is_gone(errno) ? 0 : error_errno(e, -errno, "task %d: %s", pid, path);
	errno = 0;
	while (getline(&line, &room, smaps) > 0) {
		if (strncmp(line, "VmFlags:", 8))
			continue;
		/* Every flag has a space on both sides. */
		if (strstr(line, " um ") || strstr(line, " ui "))
			return 1;
	}
	if (ferror(smaps) && !is_gone(errno))
		return error_errno(e, -errno, "task %d: %s", pid, path);
	return 0;
}

static int pids_add(struct armed *list, pid_t pid)
{
	pid_t *grown = reallocarray(list->pids, list->count + 1, sizeof(pid));

	if (!grown)
		return -ENOMEM;
	list->pids = grown;
	list->pids[list->count++] = pid;
	return 0;
}

static int thread_children(pid_t pid, const char *tid, struct armed *all)
{
	_cleanup_fclose_ FILE *children = NULL;
	char path[128];
	pid_t child;
	int err = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, tid);
	children = fopen(path, "re");
	while (children && !err && fscanf(children, "%d", &child) == 1)
		err = pids_add(all, child);
	return err;
}

static int task_children(pid_t pid, struct armed *all)
{
	struct dirent *thread;
	char path[64];
	int err = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return is_gone(errno) ? 0 : -errno;
	while (!err && (thread = readdir(dir)))
		if (*thread->d_name != '.')
			err = thread_children(pid, thread->d_name, all);
	closedir(dir);
	return err;
}

void armed_free(struct armed *armed)
{
	free(armed->pids);
	*armed = (struct armed){0};
}

/*
 * A task is looked at before its children are listed: who is not armed then cannot fork an armed
 * child later, and one forked before is in the list.
 */
int armed_find(pid_t task, bool below, struct armed *armed, struct error *e)
{
	_cleanup_(armed_free) struct armed all = {0};
	int err = pids_add(&all, task), is = 0;

	*armed = (struct armed){0};
	for (size_t i = 0; !err && i < all.count; i++) {
		is = task_armed(all.pids[i], e);
		if (is < 0)
			break;
		if (is)
			err = pids_add(armed, all.pids[i]);
		if (!err && below)
			err = task_children(all.pids[i], &all);
	}
	if (err)
		is = error_errno(e, err, "task %d: the tree beneath it", task);
	if (is < 0)
		armed_free(armed);
	return MIN(is, 0);
}
