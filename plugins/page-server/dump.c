// SPDX-License-Identifier: GPL-2.0-or-later
/* The dump and its tasks out of /proc: see dump.h. */
#include "dump.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "compiler.h"
#include "dump_socket.h"

#define PF_EXITING 0x4u /* of the kernel's task flags, the ninth field of stat */

struct status {
	char state;
	pid_t tracer;
	int inner_pid;
};

/* Of /proc/@path/status. False: there is no such process. */
static bool status_read(const char *path, struct status *s)
{
	_cleanup_fclose_ FILE *f = NULL;
	char name[300], line[512];

	*s = (struct status){0};
	snprintf(name, sizeof(name), "/proc/%s/status", path);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof(line), f)) {
		char *last;

		if (sscanf(line, "State: %c", &s->state) == 1 ||
		    sscanf(line, "TracerPid: %d", &s->tracer) == 1)
			continue;
		if (strncmp(line, "NSpid:", 6))
			continue;
		last = strrchr(line, '\t');
		s->inner_pid = last ? atoi(last + 1) : 0;
		break;
	}
	return s->state != 0;
}

/* What is at /proc/@entry, if the dump traces it. */
static int look_at(struct dump *d, const char *entry)
{
	struct dump_task t = {.pid = atoi(entry)}, *grown;
	struct status s;

	if (!status_read(entry, &s) || s.tracer != d->pid)
		return 0;
	grown = reallocarray(d->tasks, d->ntasks + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	d->tasks = grown;
	t.pidfd = (int)syscall(SYS_pidfd_open, t.pid, 0);
	if (t.pidfd < 0 && errno != ESRCH)
		return -errno;
	/* Once more, so that it is the pidfd's process that is traced. */
	if (t.pidfd < 0 || !status_read(entry, &s) || s.tracer != d->pid) {
		cleanup_close(&t.pidfd);
		return 0;
	}
	t.image_pid = s.inner_pid;
	d->tasks[d->ntasks++] = t;
	return 0;
}

static int by_image_pid(const void *a, const void *b)
{
	const struct dump_task *x = a, *y = b;

	return (x->image_pid > y->image_pid) - (x->image_pid < y->image_pid);
}

static int find_tasks(struct dump *d, struct error *e)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return error_errno(e, -errno, "/proc");
	while (!ret && (entry = readdir(dir)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			ret = look_at(d, entry->d_name);
	closedir(dir);
	if (ret)
		return error_errno(e, ret, "tasks of the dump");
	if (d->ntasks)
		qsort(d->tasks, d->ntasks, sizeof(*d->tasks), by_image_pid);
	return 0;
}

static int not_a_dump(const struct dump *d, const struct net_address *a, struct error *e)
{
	char path[64], comm[32] = "?\n";
	_cleanup_fclose_ FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/comm", d->pid);
	f = fopen(path, "re");
	if (f && !fgets(comm, sizeof(comm), f))
		comm[0] = '?';
	comm[strcspn(comm, "\n")] = 0;
	return error_set(e, -EINVAL,
			 "%s: process %d (%s), which listens there, holds no tasks: it is no criu "
			 "dump --lazy-pages",
			 a->text, d->pid, comm);
}

static int open_process(struct dump *d, struct error *e)
{
	char path[64];

	d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
	if (d->pidfd < 0)
		return error_errno(e, -errno, "dump %d", d->pid);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", d->pid, d->pid);
	d->stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	return d->stat_fd < 0 ? error_errno(e, -errno, "%s", path) : 0;
}

/* It would take our silence, or our first word, for a handshake that fails, and let its tasks go.
 */
static int check_tls(const struct dump *d, struct error *e)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *word = NULL;
	size_t room = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cmdline", d->pid);
	f = fopen(path, "re");
	while (f && getdelim(&word, &room, 0, f) > 0)
		if (!strcmp(word, "--tls"))
			return error_set(e, -EPROTONOSUPPORT,
					 "dump %d has --tls: leave that to the server that stands "
					 "in front of it",
					 d->pid);
	return 0;
}

int dump_find(struct dump **out, const struct net_address *a, struct error *e)
{
	struct dump *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return error_errno(e, -ENOMEM, "%s", a->text);
	d->pidfd = d->stat_fd = -1;
	ret = socket_listener(a, &d->pid, e);
	if (!ret)
		ret = open_process(d, e);
	if (!ret)
		ret = find_tasks(d, e);
	if (!ret && !d->ntasks)
		ret = not_a_dump(d, a, e);
	if (!ret)
		ret = check_tls(d, e);
	if (ret) {
		dump_free(d);
		return ret;
	}
	*out = d;
	return 0;
}

void dump_free(struct dump *d)
{
	if (!d)
		return;
	cleanup_close(&d->pidfd);
	cleanup_close(&d->stat_fd);
	for (size_t i = 0; i < d->ntasks; i++)
		cleanup_close(&d->tasks[i].pidfd);
	free(d->tasks);
	free(d);
}

const struct dump_task *dump_task(const struct dump *d, int image_pid)
{
	struct dump_task key = {.image_pid = image_pid};

	return bsearch(&key, d->tasks, d->ntasks, sizeof(key), by_image_pid);
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) != 0;
}

bool dump_task_lives(const struct dump_task *t)
{
	return !is_readable(t->pidfd);
}

bool dump_lives(const struct dump *d)
{
	unsigned flags = PF_EXITING;
	char text[1024], *p;
	ssize_t n;

	n = pread(d->stat_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return false;
	text[n] = 0;
	/* behind the name, which may have anything in it */
	p = strrchr(text, ')');
	return p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       !(flags & PF_EXITING);
}

bool dump_has_ended(const struct dump *d)
{
	return is_readable(d->pidfd);
}

bool task_is_traced(pid_t pid, pid_t tracer)
{
	char path[300];
	struct dirent *d;
	bool traced = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && !traced && (d = readdir(dir))) {
		struct status s;

		snprintf(path, sizeof(path), "%d/task/%s", pid, d->d_name);
		traced = d->d_name[0] != '.' && status_read(path, &s) && s.tracer == tracer;
	}
	if (dir)
		closedir(dir);
	return traced;
}

bool task_is_gone(pid_t pid)
{
	struct status s;
	char name[32];

	snprintf(name, sizeof(name), "%d", pid);
	return !status_read(name, &s) || s.state == 'Z' || s.state == 'X';
}
