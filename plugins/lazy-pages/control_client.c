// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The asking side of the control socket, and where the sockets are: see control.h. Blocking, every
 * step with a deadline, because the manager asked may be stopped or dying. Used by the status
 * command and by the plugin inside CRIU; any thread.
 */
#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "compiler.h"

#define REPLY_MAX (UINT64_C(64) << 20)

const char *control_rundir(void)
{
	const char *dir = secure_getenv("CRIU_LAZY_PAGES_RUNDIR");

	return dir && *dir ? dir : "/run/criu-lazy-pages";
}

int control_path(char path[CONTROL_PATH_MAX], pid_t pid, struct error *e)
{
	int n = snprintf(path, CONTROL_PATH_MAX, "%s/%d.sock", control_rundir(), pid);

	if (n < 0 || n >= CONTROL_PATH_MAX)
		return error_errno(e, -ENAMETOOLONG, "control socket in %s", control_rundir());
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int pid_compare(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

/* The pid of "PID.sock", or 0. */
static pid_t name_pid(const char *name)
{
	char again[32];
	pid_t pid;

	if (sscanf(name, "%d", &pid) != 1 || pid <= 0)
		return 0;
	snprintf(again, sizeof(again), "%d.sock", pid);
	return strcmp(again, name) ? 0 : pid;
}

int control_list(struct control_list *list, struct error *e)
{
	DIR *dir = opendir(control_rundir());
	struct dirent *entry;
	pid_t *grown, pid;
	int err = 0;

	*list = (struct control_list){0};
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return error_errno(e, -errno, "control directory %s", control_rundir());
	while ((entry = readdir(dir))) {
		pid = name_pid(entry->d_name);
		if (!pid)
			continue;
		grown = reallocarray(list->pids, list->count + 1, sizeof(pid));
		if (!grown) {
			err = error_errno(e, -ENOMEM, "control directory %s", control_rundir());
			control_list_free(list);
			break;
		}
		list->pids = grown;
		list->pids[list->count++] = pid;
	}
	closedir(dir);
	if (list->count)
		qsort(list->pids, list->count, sizeof(pid), pid_compare);
	return err;
}

void control_list_free(struct control_list *list)
{
	free(list->pids);
	*list = (struct control_list){0};
}

int control_connect(pid_t manager, int timeout_ms, struct error *e)
{
	/* connect(2) waits by SO_SNDTIMEO while the backlog of a stopped manager is full. */
	struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	char proc[32];
	int err;

	err = control_path(addr.sun_path, manager, e);
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)))
		return error_errno(e, -errno, "control socket %s", addr.sun_path);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return steal_fd(&fd);
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	snprintf(proc, sizeof(proc), "/proc/%d", manager);
	if (err == -ECONNREFUSED && access(proc, F_OK))
		unlink(addr.sun_path);
	return error_errno(e, err, "control socket %s", addr.sun_path);
}

static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left;
	int n;

	do {
		left = deadline - now_ms();
		n = left > 0 ? poll(&p, 1, (int)left) : 0;
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n ? 0 : -ETIMEDOUT;
}

static int request_send(int fd, const char *request, int pidfd, int64_t deadline)
{
	char line[128], control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {line, 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *h;
	ssize_t sent;
	int n, err;

	n = snprintf(line, sizeof(line), "%s\n", request);
	if (n < 0 || n >= (int)sizeof(line))
		return -EINVAL;
	iov.iov_len = (size_t)n;
	if (pidfd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &pidfd, sizeof(pidfd));
	}
	while (iov.iov_len) {
		err = wait_for(fd, POLLOUT, deadline);
		if (err)
			return err;
		sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (sent < 0)
			return -errno;
		iov.iov_base = (char *)iov.iov_base + sent;
		iov.iov_len -= (size_t)sent;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
	}
	return 0;
}

/* One line into *@line, without the newline; the caller frees it. */
static int reply_read(int fd, char **line, int64_t deadline)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, room = 0;
	char *grown;
	ssize_t n;
	int err;

	for (;;) {
		if (len + 1 >= room) {
			room = room ? room * 2 : 4096;
			grown = room > REPLY_MAX ? NULL : realloc(text, room);
			if (!grown)
				return room > REPLY_MAX ? -EPROTO : -ENOMEM;
			text = grown;
		}
		err = wait_for(fd, POLLIN, deadline);
		if (err)
			return err;
		n = recv(fd, text + len, room - len - 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ECONNRESET;
		len += (size_t)n;
		if (text[len - 1] == '\n')
			break;
	}
	text[len - 1] = 0;
	*line = steal_pointer(&text);
	return 0;
}

int control_ask(int fd, const char *request, int pidfd, int timeout_ms, struct json_object **reply,
		struct error *e)
{
	int64_t deadline = now_ms() + timeout_ms;
	_cleanup_free_ char *line = NULL;
	struct json_object *said, *why;
	int err;

	*reply = NULL;
	err = request_send(fd, request, pidfd, deadline);
	if (!err)
		err = reply_read(fd, &line, deadline);
	if (err)
		return error_errno(e, err, "control: %s", request);
	said = json_tokener_parse(line);
	if (!json_object_is_type(said, json_type_object)) {
		json_object_put(said);
		return error_set(e, -EPROTO, "control: %s: the answer is not an object", request);
	}
	if (json_object_object_get_ex(said, "error", &why)) {
		err = error_set(e, -EREMOTEIO, "control: %s: %s", request,
				json_object_get_string(why));
		json_object_put(said);
		return err;
	}
	*reply = said;
	return 0;
}
