// SPDX-License-Identifier: GPL-2.0-or-later
/* The actions abort and confirm: see abort.h. */
#include "abort.h"

#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "control.h"
#include "dump.h"

#define ASK_MS	 15000 /* the server may have to wait for the dump */
#define WAIT_SEC 60
#define TRIES	 10 /* servers that die under our question */

enum exit_code {
	EXIT_DONE = 0,
	EXIT_NOT = 1,
	EXIT_USAGE = 2,
	EXIT_REFUSED = 3,
};

struct wanted {
	const char *action; /* "abort" or "confirm" */
	pid_t pid;	    /* of the server, the dump, or one of its tasks; 0: any */
	char *images;	    /* real path, owned; NULL: any */
	const char *address;
	unsigned port; /* 0: any */
	unsigned seconds;
};

/* The server that is meant. */
struct server {
	int fd;
	struct json_object *document;
	size_t matches;
};

static const char *text_of(struct json_object *document, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(document, key, &value) ? json_object_get_string(value)
								: "";
}

static pid_t pid_of(struct json_object *document, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(document, key, &value) ? json_object_get_int(value) : 0;
}

static size_t tasks_of(struct json_object *document, struct json_object **tasks)
{
	if (!json_object_object_get_ex(document, "tasks", tasks) ||
	    !json_object_is_type(*tasks, json_type_array))
		return 0;
	return json_object_array_length(*tasks);
}

static bool is_wanted_pid(struct json_object *document, pid_t pid)
{
	struct json_object *tasks;
	size_t n = tasks_of(document, &tasks);

	if (pid_of(document, "pid") == pid || pid_of(document, "dump") == pid)
		return true;
	for (size_t i = 0; i < n; i++)
		if (pid_of(json_object_array_get_idx(tasks, i), "real_pid") == pid)
			return true;
	return false;
}

/* "HOST:PORT", as the server shows it, against what was asked for. */
static bool is_wanted_address(const struct wanted *w, const char *shown)
{
	const char *colon = strrchr(shown, ':');
	size_t len;

	if (!w->address && !w->port)
		return true;
	if (w->address && strchr(w->address, '/'))
		return !strcmp(shown, w->address);
	if (!colon || (w->port && strtoul(colon + 1, NULL, 10) != w->port))
		return false;
	if (!w->address)
		return true;
	len = (size_t)(colon - shown);
	if (len > 2 && shown[0] == '[') {
		shown++;
		len -= 2;
	}
	return strlen(w->address) == len && !strncmp(shown, w->address, len);
}

static bool is_wanted(const struct wanted *w, struct json_object *document)
{
	return !strcmp(text_of(document, "role"), "page-server") &&
	       (!w->pid || is_wanted_pid(document, w->pid)) &&
	       (!w->images || !strcmp(text_of(document, "images"), w->images)) &&
	       is_wanted_address(w, text_of(document, "address"));
}

/*
 * Asks whoever serves on the control socket of process @pid, over *@fd if that is a connection. A
 * server that dies meanwhile is followed by another, which the same request goes to.
 */
static int ask_server(int *fd, pid_t pid, const char *request, struct json_object **reply,
		      struct error *e)
{
	int ret = -ECONNRESET;

	for (int i = 0; i < TRIES && (ret == -ECONNRESET || ret == -EPIPE); i++) {
		if (*fd < 0)
			*fd = control_connect(pid, ASK_MS, e);
		if (*fd < 0)
			return *fd;
		ret = control_ask(*fd, request, -1, ASK_MS, reply, e);
		if (ret)
			close(steal_fd(fd));
	}
	return ret;
}

/* Keeps the first one that is wanted and counts the others. */
static void look_at(const struct wanted *w, pid_t pid, struct server *s)
{
	struct json_object *document = NULL;
	_cleanup_close_ int fd = -1;
	struct error e = {0};
	int ret = ask_server(&fd, pid, "status", &document, &e);

	if (ret == -ECONNREFUSED || ret == -ENOENT)
		return;
	if (ret) {
		fprintf(stderr, "Warn: process %d: %s\n", pid, e.text);
		return;
	}
	if (!is_wanted(w, document)) {
		json_object_put(document);
		return;
	}
	if (s->matches++) {
		fprintf(stderr, "Error: there is also server %d, of dump %d, at %s\n",
			pid_of(document, "pid"), pid_of(document, "dump"),
			text_of(document, "address"));
		json_object_put(document);
		return;
	}
	s->fd = steal_fd(&fd);
	s->document = document;
}

static int find_server(const struct wanted *w, struct server *s)
{
	struct control_list list;
	struct error e = {0};

	if (control_list(&list, &e)) {
		fprintf(stderr, "Error: %s\n", e.text);
		return EXIT_NOT;
	}
	for (size_t i = 0; i < list.count; i++)
		look_at(w, list.pids[i], s);
	control_list_free(&list);
	if (!s->matches) {
		fprintf(stderr, "Error: no page server with --attach%s answers in %s\n",
			w->pid || w->images || w->port || w->address ? " of that name" : "",
			control_rundir());
		return EXIT_NOT;
	}
	if (s->matches > 1) {
		fprintf(stderr, "Error: say which: by pid, --images-dir or --port\n");
		return EXIT_USAGE;
	}
	return EXIT_DONE;
}

static int ask(const struct wanted *w, struct server *s)
{
	struct json_object *reply, *done;
	struct error e = {0};
	int code = EXIT_DONE;
	int ret = ask_server(&s->fd, pid_of(s->document, "pid"), w->action, &reply, &e);

	/* All of it has gone, as it does when it is done: the source tells. */
	if (ret == -ECONNREFUSED || ret == -ENOENT)
		return EXIT_DONE;
	if (ret) {
		fprintf(stderr, "Error: %s\n", e.text);
		return EXIT_NOT;
	}
	if (!json_object_object_get_ex(reply, "done", &done) || !json_object_get_boolean(done)) {
		fprintf(stderr, "Error: refused: %s\n", text_of(reply, "why"));
		code = EXIT_REFUSED;
	}
	json_object_put(reply);
	return code;
}

static bool all_gone(const struct server *s)
{
	struct json_object *tasks;
	size_t n = tasks_of(s->document, &tasks);

	for (size_t i = 0; i < n; i++)
		if (!task_is_gone(pid_of(json_object_array_get_idx(tasks, i), "real_pid")))
			return false;
	return true;
}

/* What abort waits for: none of the tasks is held. Confirm: none of them is there any more. */
static bool is_done(const struct wanted *w, const struct server *s)
{
	struct json_object *tasks;
	size_t n = tasks_of(s->document, &tasks);

	if (!strcmp(w->action, "confirm"))
		return all_gone(s);
	for (size_t i = 0; i < n; i++)
		if (task_is_traced(pid_of(json_object_array_get_idx(tasks, i), "real_pid"),
				   pid_of(s->document, "dump")))
			return false;
	return true;
}

static int wait_done(const struct wanted *w, const struct server *s)
{
	uint64_t until = now_ns() + w->seconds * UINT64_C(1000000000);
	bool abort = !strcmp(w->action, "abort");

	while (!is_done(w, s)) {
		if (now_ns() > until) {
			fprintf(stderr,
				"Error: dump %d has been told, and its tasks %s after %u seconds\n",
				pid_of(s->document, "dump"),
				abort ? "are still held" : "are still there", w->seconds);
			return EXIT_NOT;
		}
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	if (abort && all_gone(s)) {
		fprintf(stderr, "Error: the tasks of dump %d have ended\n",
			pid_of(s->document, "dump"));
		return EXIT_REFUSED;
	}
	printf(abort ? "the source of dump %d runs again\n" : "the source of dump %d has ended\n",
	       pid_of(s->document, "dump"));
	return EXIT_DONE;
}

static void usage(FILE *f, const char *action)
{
	fprintf(f,
		"Usage: criu-lazy-pages %s [PID | OPTION...]\n"
		"\n"
		"%s\n"
		"\n"
		"  PID                 the server with this pid, of the dump or of the task with "
		"it\n"
		"  -D, --images-dir DIR  the server of these images\n"
		"      --port N        the server that destinations reach at this port\n"
		"      --address A     and at this address\n"
		"      --timeout SECS  wait so long for the source (default: 60)\n"
		"  -h, --help          this text\n",
		action,
		!strcmp(action, "abort")
			? "Calls a migration off: the source of a page server that is attached "
			  "runs on."
			: "Lets the source of a page server that is attached end, because a\n"
			  "destination holds every page although it cannot say so.");
}

static bool read_number(const char *text, unsigned long max, unsigned *to)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	*to = (unsigned)n;
	return *text >= '0' && *text <= '9' && !*end && n > 0 && n <= max;
}

/* -1: go on; else the exit code. */
static int options_read(struct wanted *w, int argc, char **argv)
{
	static const struct option longs[] = {
		{"images-dir", required_argument, NULL, 'D'},
		{"port", required_argument, NULL, 'p'},
		{"address", required_argument, NULL, 'a'},
		{"timeout", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	unsigned pid = 0;
	int c;

	*w = (struct wanted){.action = argv[0], .seconds = WAIT_SEC};
	optind = 0;
	while ((c = getopt_long(argc, argv, "D:h", longs, NULL)) != -1) {
		bool fine = true;

		if (c == 'D') {
			free(w->images);
			w->images = realpath(optarg, NULL);
			if (!w->images) {
				fprintf(stderr, "Error: %s: %m\n", optarg);
				return EXIT_USAGE;
			}
		} else if (c == 'p') {
			fine = read_number(optarg, UINT16_MAX, &w->port);
		} else if (c == 't') {
			fine = read_number(optarg, INT_MAX, &w->seconds);
		} else if (c == 'a') {
			w->address = optarg;
		} else {
			usage(c == 'h' ? stdout : stderr, w->action);
			return c == 'h' ? EXIT_DONE : EXIT_USAGE;
		}
		if (!fine) {
			fprintf(stderr, "Error: %s: not a number that can be\n", optarg);
			return EXIT_USAGE;
		}
	}
	if (optind < argc && (!read_number(argv[optind], INT_MAX, &pid) || optind + 1 < argc)) {
		usage(stderr, w->action);
		return EXIT_USAGE;
	}
	w->pid = (pid_t)pid;
	return -1;
}

int abort_main(int argc, char **argv)
{
	struct server s = {.fd = -1};
	struct wanted w;
	int code = options_read(&w, argc, argv);

	if (code < 0)
		code = find_server(&w, &s);
	if (s.matches == 1 && !code)
		code = ask(&w, &s);
	if (s.matches == 1 && !code)
		code = wait_done(&w, &s);
	cleanup_close(&s.fd);
	json_object_put(s.document);
	free(w.images);
	return code;
}
