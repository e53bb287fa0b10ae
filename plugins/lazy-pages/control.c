// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The serving side of the control socket: see control.h. Everything is non-blocking; a client has
 * one request and one reply in memory at a time, and while its reply has not gone out nothing is
 * read from it. When all places are taken, the client that has been silent longest gives way. One
 * thread, the worker's control thread, except for control_server_open().
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "compiler.h"

#define CLIENTS_MAX  16
#define REQUEST_MAX  256
#define ACCEPTS_MAX  64 /* in one control_serve() */
#define LISTENER     CLIENTS_MAX
#define STATUS_MAJOR 1

struct client {
	int fd; /* -1: the place is free */
	int pidfd;
	bool ended;	/* the peer sends no more */
	uint64_t heard; /* serial of the last sign of life */
	size_t in_len;
	char in[REQUEST_MAX];
	char *out; /* owned; the reply that has not gone out */
	size_t out_len, out_done;
};

struct control_server {
	int listen_fd, epoll_fd;
	pid_t pid;
	uid_t uid;
	dev_t dev; /* of the socket's file, so that only our own is removed */
	ino_t ino;
	uint64_t serial;
	char path[CONTROL_PATH_MAX];
	struct client clients[CLIENTS_MAX];
};

int control_pidfd_pid(int pidfd, pid_t *pid, struct error *e)
{
	_cleanup_fclose_ FILE *info = NULL;
	char line[128];

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", pidfd);
	info = fopen(line, "re");
	if (!info)
		return error_errno(e, -errno, "%s", line);
	while (fgets(line, sizeof(line), info))
		if (sscanf(line, "Pid: %d", pid) == 1)
			return 0;
	return error_set(e, -EINVAL, "the descriptor is not a pidfd");
}

static int directory_make(const char *dir, struct error *e)
{
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return error_errno(e, -errno, "control directory %s", dir);
	if (lstat(dir, &st))
		return error_errno(e, -errno, "control directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return error_errno(e, -ENOTDIR, "control directory %s", dir);
	if ((st.st_uid && st.st_uid != geteuid()) || st.st_mode & 022)
		return error_set(e, -EPERM, "control directory %s: others can write to it", dir);
	return 0;
}

/*
 * Under a name of its own first: who finds PID.sock finds it listening, so that a refused
 * connection means a dead manager and nothing else. The mode is given to the descriptor because
 * bind(2) takes it from there, whatever the umask.
 */
static int server_bind(struct control_server *s, struct error *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int err;

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%d.new", control_rundir(), s->pid) >=
	    (int)sizeof(addr.sun_path))
		return error_errno(e, -ENAMETOOLONG, "control socket %s", s->path);
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0 || fchmod(s->listen_fd, 0600))
		return error_errno(e, -errno, "control socket %s", s->path);
	unlink(addr.sun_path);
	if (bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)))
		return error_errno(e, -errno, "control socket %s", s->path);
	if (listen(s->listen_fd, CLIENTS_MAX) || stat(addr.sun_path, &st) ||
	    rename(addr.sun_path, s->path)) {
		err = -errno;
		unlink(addr.sun_path);
		return error_errno(e, err, "control socket %s", s->path);
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

int control_server_open(struct control_server **server, pid_t pid, struct error *e)
{
	struct control_server *s = calloc(1, sizeof(*s));
	int err;

	*server = NULL;
	if (!s)
		return error_errno(e, -ENOMEM, "control socket");
	s->listen_fd = s->epoll_fd = -1;
	s->pid = pid;
	s->uid = geteuid();
	for (int i = 0; i < CLIENTS_MAX; i++)
		s->clients[i].fd = s->clients[i].pidfd = -1;
	err = control_path(s->path, pid, e);
	if (!err)
		err = directory_make(control_rundir(), e);
	if (!err)
		err = server_bind(s, e);
	if (err) {
		control_server_close(s, false);
		return err;
	}
	*server = s;
	return 0;
}

int control_listen_fd(const struct control_server *server)
{
	return server->listen_fd;
}

int control_fd(const struct control_server *server)
{
	return server->epoll_fd;
}

static void client_forget(struct client *c)
{
	free(c->out);
	memset(c, 0, sizeof(*c));
	c->fd = c->pidfd = -1;
}

static void client_drop(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	client_forget(c);
}

void control_server_close(struct control_server *server, bool remove)
{
	struct stat st;

	if (!server)
		return;
	for (int i = 0; i < CLIENTS_MAX; i++)
		client_drop(&server->clients[i]);
	if (server->epoll_fd >= 0)
		close(server->epoll_fd);
	if (server->listen_fd >= 0)
		close(server->listen_fd);
	if (remove && !lstat(server->path, &st) && st.st_dev == server->dev &&
	    st.st_ino == server->ino)
		unlink(server->path);
	free(server);
}

int control_start(struct control_server *server, struct error *e)
{
	/*
	 * Edge-triggered: when accept(2) fails for want of descriptors, a level would have the
	 * control thread spin until somebody frees one.
	 */
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = LISTENER};

	for (int i = 0; i < CLIENTS_MAX; i++)
		client_forget(&server->clients[i]);
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->epoll_fd < 0 ||
	    epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &ev))
		return error_errno(e, -errno, "control socket %s", server->path);
	return 0;
}

static bool peer_allowed(const struct control_server *s, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
	       (cred.uid == 0 || cred.uid == s->uid);
}

static struct client *place_for_client(struct control_server *s)
{
	struct client *silent = &s->clients[0];

	for (int i = 0; i < CLIENTS_MAX; i++) {
		if (s->clients[i].fd < 0)
			return &s->clients[i];
		if (s->clients[i].heard < silent->heard)
			silent = &s->clients[i];
	}
	client_drop(silent);
	return silent;
}

static void clients_accept(struct control_server *s)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct client *c;
	int fd;

	for (int i = 0; i < ACCEPTS_MAX; i++) {
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0)
			return;
		if (!peer_allowed(s, fd)) {
			close(fd);
			continue;
		}
		c = place_for_client(s);
		ev.data.u32 = (uint32_t)(c - s->clients);
		c->fd = fd;
		c->heard = ++s->serial;
		if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev))
			client_drop(c);
	}
	/* More may wait: have the edge again. */
	ev = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u32 = LISTENER};
	epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->listen_fd, &ev);
}

static void reply_error(struct json_object *into, const char *text)
{
	json_object_object_add(into, "error", json_object_new_string(text));
}

static void holds_answer(struct client *c, const struct control_ops *ops, void *ctx,
			 struct json_object *into)
{
	static const char *const words[] = {
		[CONTROL_NO] = "no", [CONTROL_YES] = "yes", [CONTROL_MAYBE] = "maybe"};
	struct error e;
	pid_t pid;

	if (c->pidfd < 0) {
		reply_error(into, "holds needs a pidfd");
		return;
	}
	if (control_pidfd_pid(c->pidfd, &pid, &e))
		reply_error(into, e.text);
	else
		json_object_object_add(into, "holds",
				       json_object_new_string(words[ops->holds(ctx, c->pidfd)]));
	close(c->pidfd);
	c->pidfd = -1;
}

/* 0, or -ENOMEM when there is no reply. */
static int request_answer(struct control_server *s, struct client *c, const char *request,
			  const struct control_ops *ops, void *ctx)
{
	struct json_object *into = json_object_new_object();
	const char *text = NULL;

	if (!into)
		return -ENOMEM;
	if (!strcmp(request, "status")) {
		json_object_object_add(into, "version", json_object_new_int(STATUS_MAJOR));
		json_object_object_add(into, "pid", json_object_new_int(s->pid));
		ops->status(ctx, into);
	} else if (!strcmp(request, "holds")) {
		holds_answer(c, ops, ctx, into);
	} else if (!strcmp(request, "finish")) {
		ops->finish(ctx);
		json_object_object_add(into, "finishing", json_object_new_boolean(true));
	} else if (!ops->other || !ops->other(ctx, request, into)) {
		reply_error(into, "unknown request");
	}
	text = json_object_to_json_string_ext(into, JSON_C_TO_STRING_PLAIN);
	if (text && asprintf(&c->out, "%s\n", text) >= 0)
		c->out_len = strlen(c->out);
	else
		c->out = NULL;
	c->out_done = 0;
	json_object_put(into);
	return c->out ? 0 : -ENOMEM;
}

/* All of the reply: 0. What is left waits for the peer: -EAGAIN. */
static int reply_send(struct client *c)
{
	ssize_t n;

	while (c->out_done < c->out_len) {
		n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		c->out_done += (size_t)n;
	}
	free(c->out);
	c->out = NULL;
	return 0;
}

/* Descriptors come unasked: all are taken out of the message, the first is kept for holds. */
static void descriptors_take(struct client *c, struct msghdr *msg)
{
	int fds[2], n;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = (int)MIN((h->cmsg_len - CMSG_LEN(0)) / sizeof(int), ARRAY_SIZE(fds));
		memcpy(fds, CMSG_DATA(h), (size_t)n * sizeof(int));
		for (int i = 0; i < n; i++) {
			if (c->pidfd < 0)
				c->pidfd = fds[i];
			else
				close(fds[i]);
		}
	}
}

/* 0, also when there is nothing to read or no more to come; else the client is to be dropped. */
static int request_read(struct client *c)
{
	/* CMSG_SPACE() of one int has room for two, because of its padding. */
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {c->in + c->in_len, sizeof(c->in) - 1 - c->in_len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n;

	if (!iov.iov_len)
		return -EMSGSIZE;
	n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	descriptors_take(c, &msg);
	if (msg.msg_flags & MSG_CTRUNC)
		return -EMSGSIZE;
	if (!n)
		c->ended = true;
	c->in_len += (size_t)n;
	return 0;
}

static int client_serve(struct control_server *s, struct client *c, const struct control_ops *ops,
			void *ctx)
{
	char request[REQUEST_MAX], *end;
	size_t len;
	int err = 0;

	if (c->out)
		err = reply_send(c);
	else
		err = request_read(c);
	while (!err && (end = memchr(c->in, '\n', c->in_len))) {
		len = (size_t)(end - c->in);
		memcpy(request, c->in, len);
		request[len] = 0;
		c->in_len -= len + 1;
		memmove(c->in, end + 1, c->in_len);
		err = request_answer(s, c, request, ops, ctx);
		if (!err)
			err = reply_send(c);
	}
	return !err && c->ended ? -ECONNRESET : err;
}

void control_serve(struct control_server *server, const struct control_ops *ops, void *ctx)
{
	struct epoll_event events[CLIENTS_MAX + 1], ev = {0};
	bool accept_more = false;
	struct client *c;
	int n, err;

	n = epoll_wait(server->epoll_fd, events, ARRAY_SIZE(events), 0);
	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == LISTENER) {
			/* Last, lest an event of this round meet a new client in the place. */
			accept_more = true;
			continue;
		}
		c = &server->clients[events[i].data.u32];
		c->heard = ++server->serial;
		err = client_serve(server, c, ops, ctx);
		if (err && err != -EAGAIN) {
			client_drop(c);
			continue;
		}
		ev.events = c->out ? EPOLLOUT : EPOLLIN;
		ev.data.u32 = events[i].data.u32;
		epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
	}
	if (accept_more)
		clients_accept(server);
}
