// SPDX-License-Identifier: GPL-2.0-or-later
/* The status command: see status.h. Collects the documents, then prints them in one of the forms.
 */
#include "status.h"

#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "compiler.h"
#include "control.h"

#define TIMEOUT_MS   2000
#define BAR_WIDTH    30
#define LINE_MAX_LEN 512

enum form {
	FORM_LINE,
	FORM_JSON,
	FORM_OPENMETRICS,
};

struct status_options {
	enum form form;
	bool watch, terminal;
	double every; /* seconds between two looks */
	pid_t pid;    /* only the manager with this pid, or of a task with this pid; 0: all */
	char *work;   /* only the manager of this work directory; owned */
};

/* What was collected in one look. */
struct view {
	struct json_object **documents; /* owned, each */
	size_t count;
	double at; /* monotonic seconds */
};

uint64_t status_number(struct json_object *document, const char *key, const char *sub)
{
	struct json_object *value;

	if (!json_object_object_get_ex(document, key, &value))
		return 0;
	if (sub)
		return status_number(value, sub, NULL);
	return json_object_get_uint64(value);
}

const char *status_text(struct json_object *document, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(document, key, &value) || !value)
		return "?";
	return json_object_get_string(value);
}

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

size_t status_tasks(struct json_object *document, struct json_object **tasks)
{
	if (!json_object_object_get_ex(document, "tasks", tasks) ||
	    !json_object_is_type(*tasks, json_type_array))
		return 0;
	return json_object_array_length(*tasks);
}

uint64_t status_pages_left(struct json_object *document)
{
	struct json_object *tasks;
	size_t n = status_tasks(document, &tasks);
	uint64_t pages = 0;

	for (size_t i = 0; i < n; i++)
		pages += status_number(json_object_array_get_idx(tasks, i), "pages_left", NULL);
	return pages;
}

static bool is_wanted(const struct status_options *o, struct json_object *document)
{
	struct json_object *tasks;
	size_t n;

	if (o->work)
		return !strcmp(status_text(document, "work"), o->work);
	if (!o->pid || status_number(document, "pid", NULL) == (uint64_t)o->pid)
		return true;
	n = status_tasks(document, &tasks);
	for (size_t i = 0; i < n; i++)
		if (status_number(json_object_array_get_idx(tasks, i), "real_pid", NULL) ==
		    (uint64_t)o->pid)
			return true;
	return false;
}

static void view_free(struct view *v)
{
	for (size_t i = 0; i < v->count; i++)
		json_object_put(v->documents[i]);
	free(v->documents);
	*v = (struct view){0};
}

/* A manager that does not answer is said so on stderr and left out, unless it is just dead. */
static void manager_look(const struct status_options *o, pid_t manager, struct view *v)
{
	struct json_object *document = NULL;
	_cleanup_close_ int fd = -1;
	struct error e = {0};

	fd = control_connect(manager, TIMEOUT_MS, &e);
	if (fd == -ECONNREFUSED || fd == -ENOENT)
		return;
	if (fd < 0 || control_ask(fd, "status", -1, TIMEOUT_MS, &document, &e)) {
		fprintf(stderr, "Warn: manager %d: %s\n", manager, e.text);
		return;
	}
	if (is_wanted(o, document))
		v->documents[v->count++] = document;
	else
		json_object_put(document);
}

static int look(const struct status_options *o, struct view *v, struct error *e)
{
	struct control_list managers;
	int err = control_list(&managers, e);

	*v = (struct view){.at = now_seconds()};
	if (err)
		return err;
	v->documents = calloc(managers.count + 1, sizeof(struct json_object *));
	for (size_t i = 0; v->documents && i < managers.count; i++)
		manager_look(o, managers.pids[i], v);
	control_list_free(&managers);
	return v->documents ? 0 : error_errno(e, -ENOMEM, "status");
}

/* Of all that was owed, what is settled: brought in, found there, or given up by the task. */
static double fraction_done(struct json_object *document)
{
	uint64_t left = status_pages_left(document) << PAGE_SHIFT,
		 done = status_number(document, "bytes", NULL);

	done += status_number(document, "pages", "already_there") << PAGE_SHIFT;
	done += status_number(document, "pages", "forgiven") << PAGE_SHIFT;
	return done + left ? (double)done / (double)(done + left) : 0;
}

/* Since the last look when this manager was in it, else what it says, else since its start. */
static double rate_of(struct json_object *document, const struct view *before, double at)
{
	uint64_t bytes = status_number(document, "bytes", NULL);
	struct json_object *value;
	double seconds = 0;

	for (size_t i = 0; i < before->count; i++) {
		struct json_object *old = before->documents[i];

		if (status_number(old, "pid", NULL) == status_number(document, "pid", NULL) &&
		    at > before->at && bytes >= status_number(old, "bytes", NULL))
			return (double)(bytes - status_number(old, "bytes", NULL)) /
			       (at - before->at);
	}
	if (json_object_object_get_ex(document, "rate", &value))
		return json_object_get_double(value);
	if (json_object_object_get_ex(document, "seconds", &value))
		seconds = json_object_get_double(value);
	return seconds > 0 ? (double)bytes / seconds : 0;
}

static void bar_format(char *bar, double fraction)
{
	int full = (int)(fraction * BAR_WIDTH);

	for (int i = 0; i < BAR_WIDTH; i++)
		bar[i] = i < full ? '#' : '-';
	bar[BAR_WIDTH] = 0;
}

static void line_format(char line[LINE_MAX_LEN], struct json_object *document, bool with_bar,
			double rate)
{
	double mib = (double)(1 << 20), fraction = fraction_done(document);
	double in = (double)status_number(document, "bytes", NULL) / mib;
	struct json_object *tasks;
	char bar[BAR_WIDTH + 1];

	bar_format(bar, fraction);
	snprintf(line, LINE_MAX_LEN,
		 "%d %s%s%s%s %.0f%% %.1f MiB in, %.1f MiB to come, %.1f MiB/s, %zu tasks, %llu "
		 "faults, %s",
		 (int)status_number(document, "pid", NULL), status_text(document, "state"),
		 with_bar ? " [" : "", with_bar ? bar : "", with_bar ? "]" : "", fraction * 100, in,
		 (double)(status_pages_left(document) << PAGE_SHIFT) / mib, rate / mib,
		 status_tasks(document, &tasks),
		 (unsigned long long)status_number(document, "faults", NULL),
		 status_text(document, "images"));
}

/* Behind the line of a manager whose page server is not there. */
static void link_format(char *text, size_t len, struct json_object *document)
{
	struct json_object *link, *state, *seconds, *why;

	*text = 0;
	if (!json_object_object_get_ex(document, "page_server", &link) ||
	    !json_object_object_get_ex(link, "state", &state) ||
	    !json_object_object_get_ex(link, "seconds", &seconds) ||
	    !json_object_object_get_ex(link, "why", &why) ||
	    !strcmp(json_object_get_string(state), "up"))
		return;
	snprintf(text, len, ", page server %s for %.1f s: %s", json_object_get_string(state),
		 json_object_get_double(seconds), json_object_get_string(why));
}

/* @redraw: the lines of the look before are on the screen above, and are written over. */
static void lines_print(const struct status_options *o, const struct view *now,
			const struct view *before, bool redraw)
{
	char line[LINE_MAX_LEN], link[LINE_MAX_LEN];
	struct winsize size;
	int columns = LINE_MAX_LEN;

	/* A line that wraps could not be written over. */
	if (o->watch && o->terminal && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		columns = size.ws_col - 1;
	if (redraw && before->count)
		printf("\033[%zuA\033[J", before->count);
	for (size_t i = 0; i < now->count; i++) {
		line_format(line, now->documents[i], o->watch,
			    rate_of(now->documents[i], before, now->at));
		link_format(link, sizeof(link), now->documents[i]);
		strncat(line, link, sizeof(line) - strlen(line) - 1);
		printf("%.*s\n", columns, line);
	}
}

static void view_print(const struct status_options *o, const struct view *now,
		       const struct view *before)
{
	switch (o->form) {
	case FORM_LINE:
		lines_print(o, now, before, o->watch && o->terminal);
		break;
	case FORM_JSON:
		for (size_t i = 0; i < now->count; i++)
			puts(json_object_to_json_string_ext(now->documents[i],
							    JSON_C_TO_STRING_PLAIN));
		break;
	case FORM_OPENMETRICS:
		status_openmetrics(stdout, now->documents, now->count);
		break;
	}
	fflush(stdout);
}

static void usage(FILE *f)
{
	fprintf(f, "Usage: criu-lazy-pages status [PID | -W DIR] [OPTION...]\n"
		   "\n"
		   "Prints a line for each manager on this machine that answers.\n"
		   "\n"
		   "  PID                 only the manager with this pid, or of the task with this "
		   "pid\n"
		   "  -W, --work-dir DIR  only the manager of this work directory\n"
		   "  -w, --watch[=SECS]  look again every SECS seconds (default: 1) until no "
		   "manager is left,\n"
		   "                      with a progress bar\n"
		   "      --json          the managers' own documents, one a line\n"
		   "      --openmetrics   as OpenMetrics text, for a collector\n"
		   "  -h, --help          this text\n");
}

/* -1: go on; else the exit code. */
static int options_read(struct status_options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"work-dir", required_argument, NULL, 'W'}, {"watch", optional_argument, NULL, 'w'},
		{"json", no_argument, NULL, 'j'},	    {"openmetrics", no_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},	    {0},
	};
	char *end;
	int c;

	*o = (struct status_options){.every = 1, .terminal = isatty(STDOUT_FILENO)};
	optind = 0;
	while ((c = getopt_long(argc, argv, "W:w::h", longs, NULL)) != -1) {
		if (c == 'W') {
			free(o->work);
			o->work = realpath(optarg, NULL);
			if (!o->work) {
				fprintf(stderr, "Error: %s: %m\n", optarg);
				return 2;
			}
		} else if (c == 'w') {
			o->watch = true;
			o->every = optarg ? strtod(optarg, &end) : 1;
			if (!(o->every >= 0.05 && o->every <= 86400) || (optarg && *end)) {
				fprintf(stderr, "Error: --watch=%s: not 0.05 to 86400\n", optarg);
				return 2;
			}
		} else if (c == 'j' || c == 'm') {
			o->form = c == 'j' ? FORM_JSON : FORM_OPENMETRICS;
		} else {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (optind < argc) {
		long pid = strtol(argv[optind], &end, 10);

		if (*end || pid <= 0 || pid > INT_MAX || optind + 1 < argc || o->work) {
			usage(stderr);
			return 2;
		}
		o->pid = (pid_t)pid;
	}
	return -1;
}

static int show(const struct status_options *o)
{
	struct view before = {0}, now;
	struct error e = {0};
	bool any = false;
	int err;

	for (;;) {
		err = look(o, &now, &e);
		if (err)
			break;
		any |= now.count > 0;
		if (now.count || o->form == FORM_OPENMETRICS)
			view_print(o, &now, &before);
		view_free(&before);
		before = now;
		now = (struct view){0};
		if (!o->watch || !before.count || ferror(stdout))
			break;
		nanosleep(&(struct timespec){(time_t)o->every,
					     (long)((o->every - (double)(time_t)o->every) * 1e9)},
			  NULL);
	}
	view_free(&before);
	if (err)
		fprintf(stderr, "Error: %s\n", e.text);
	else if (!any)
		fprintf(stderr, "no manager%s answers in %s\n",
			o->pid || o->work ? " of that name" : "", control_rundir());
	return err || !any;
}

int status_main(int argc, char **argv)
{
	struct status_options o;
	int code = options_read(&o, argc, argv);

	if (code < 0)
		code = show(&o);
	free(o.work);
	return code;
}
