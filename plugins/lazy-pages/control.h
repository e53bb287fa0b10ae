/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control: the socket by which a manager is asked how far it is and told to hurry. It stands beside
 * the way of a page. Each manager listens on RUNDIR/PID.sock (mode 0600, the directory 0700), PID
 * being the manager's first process, RUNDIR /run/criu-lazy-pages or $CRIU_LAZY_PAGES_RUNDIR. The
 * keeper opens it, so the socket outlives a worker; the worker serves it. Only root and the
 * manager's own user are answered. A client can neither block the server nor make it grow.
 *
 * One stream connection, any number of requests, each a line and each answered by one line of JSON:
 *
 *   status   the document below
 *   holds    with a pidfd of a task as SCM_RIGHTS: {"holds": "yes" | "no" | "maybe"}
 *   finish   bring in the rest without background limits: {"finishing": true}
 *
 * or {"error": "words"}. The document of status (control_ops.status fills all but version and pid;
 * a key that is missing counts as unknown):
 *
 *   version   1
 *   pid       the manager's first process
 *   images    absolute path of the images directory
 *   work      absolute path of the work directory
 *   state     "waiting" (no restore yet), "restoring", "running", "finishing", "done"
 *   seconds   since the restore connected, fractional
 *   bytes     brought in so far
 *   rate      bytes a second of late
 *   tasks     [{"pid": in the image, "real_pid": as the manager sees it or 0, "state": "waiting",
 *             "lazy", "finished" or "gone", "pages_total", "pages_left"}]
 *   pages     {"fault", "neighbour", "background", "zero", "already_there", "forgiven"}: the first
 *             three add up to the pages placed, "zero" says how many of those were all zeros
 *   faults    messages read
 *   latency   {"count", "sum_ns", "max_ns", "buckets": [n, ...]}; buckets[i] counts stalls of
 *             [2^i, 2^(i+1)) nanoseconds
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "error.h"

struct control_server;
struct json_object;

#define CONTROL_PATH_MAX 108 /* sizeof(sun_path) */

enum control_holds {
	CONTROL_NO,
	CONTROL_YES,
	CONTROL_MAYBE, /* a task that was forked after the restore: its pid is not known here */
};

/* Called by control_serve() in its thread; they must not block. */
struct control_ops {
	void (*status)(void *ctx, struct json_object *into);
	enum control_holds (*holds)(void *ctx, int pidfd); /* the pidfd stays control's */
	void (*finish)(void *ctx);			   /* may be called again and again */
	/* Any other request: fills the answer, or returns false. NULL: there are none. */
	bool (*other)(void *ctx, const char *request, struct json_object *into);
};

/* The pid, in this process's namespace, that a pidfd stands for; -1 dead, 0 not seen from here. */
int control_pidfd_pid(int pidfd, pid_t *pid, struct error *e);

/* Where managers listen, without a slash at the end. */
const char *control_rundir(void);
/* RUNDIR/PID.sock into @path; -ENAMETOOLONG when it does not fit into a socket's address. */
int control_path(char path[CONTROL_PATH_MAX], pid_t pid, struct error *e);

/*
 * Server. Makes the directory on demand, binds, listens. Call it before the clone, in the process
 * whose pid is @pid. A manager whose control socket cannot be had can work on without: the caller
 * decides. control_listen_fd() is the one descriptor that must be kept over a worker's death.
 */
int control_server_open(struct control_server **server, pid_t pid, struct error *e);
int control_listen_fd(const struct control_server *server);
/* Closes; removes the socket's file when @remove (the manager ends). NULL is fine. */
void control_server_close(struct control_server *server, bool remove);

/*
 * In the worker, once in its life, before the others: forgets without closing what a worker before
 * it had open (its descriptors are closed by the keeper, or by now are somebody else's).
 */
int control_start(struct control_server *server, struct error *e);
/* An epoll descriptor, to be polled for reading, that stays the same until the worker ends. */
int control_fd(const struct control_server *server);
/* Does what there is to do and returns at once. One thread. */
void control_serve(struct control_server *server, const struct control_ops *ops, void *ctx);

/*
 * Client: blocking, each step for at most @timeout_ms. control_connect() gives -ECONNREFUSED when
 * the manager of that socket is dead, and then removes the file if no process has the pid.
 */
struct control_list {
	pid_t *pids; /* ascending */
	size_t count;
};

/* The managers that have a socket in RUNDIR, dead ones included. No directory: an empty list. */
int control_list(struct control_list *list, struct error *e);
void control_list_free(struct control_list *list);
/* A connected descriptor, or -errno. */
int control_connect(pid_t manager, int timeout_ms, struct error *e);
/*
 * Sends @request, with @pidfd unless it is -1, and waits for the answer: *@reply is a JSON object
 * that the caller puts. -EPROTO for anything else, -EREMOTEIO with its words for {"error": ...}.
 */
int control_ask(int fd, const char *request, int pidfd, int timeout_ms, struct json_object **reply,
		struct error *e);

#endif
