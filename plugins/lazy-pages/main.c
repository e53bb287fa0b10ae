// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command: a table of actions. Called as `criu` it takes the actions that stand in for stock's
 * and becomes the real CRIU for all others. Options may stand before the action, as in stock.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abort.h"
#include "compiler.h"
#include "daemon.h"
#include "error.h"
#include "log.h"
#include "manager.h"
#include "options.h"
#include "page_server.h"
#include "passthrough.h"
#include "status.h"

#define PROGRAM "criu-lazy-pages"
#define VERSION "0.1"

struct action {
	const char *name;
	const char *summary;
	/*
	 * @argv[0] is the action's name; the program's name is gone, but whether it was criu.
	 * Returns the exit status.
	 */
	int (*run)(int argc, char **argv, bool as_criu);
	bool as_criu; /* ours, too, when the program is called as criu */
};

static void lazy_pages_help(void)
{
	printf("Usage: " PROGRAM " lazy-pages -D DIR [OPTION...]\n"
	       "\n"
	       "Serves the memory of one lazy restore (criu restore --lazy-pages) out of the "
	       "images in\n"
	       "DIR, or from a page server, until every page is in its place.\n"
	       "\n");
}

static void page_server_help(void)
{
	printf("Usage: " PROGRAM " page-server -D DIR [OPTION...]\n"
	       "\n"
	       "Receives the memory of one dump (criu dump --page-server) into images in DIR; "
	       "with\n"
	       "--lazy-pages serves the images in DIR to lazy restores on other machines; with "
	       "--attach\n"
	       "serves the memory of tasks that a dump has frozen.\n"
	       "\n");
}

/* Directories, log, background: all that has to be in order before the manager runs. */
static int prepare(struct options *o, struct log *log, struct error *e)
{
	int ret = options_enter(o, e);

	if (!ret && o->log_file && !strcmp(o->log_file, "-"))
		log->fd = STDOUT_FILENO;
	else if (!ret && o->log_file)
		ret = log_open(log, o->log_file, e);
	if (!ret)
		ret = daemon_keep_log(o, &log->fd, e);
	return ret ? ret : daemon_start(o, e);
}

/* Says on standard error what the log says, or where it is. */
static void say_failure(const struct options *o)
{
	if (o->log_file && !o->daemon)
		fprintf(stderr, "Error: %s failed, see %s\n", o->action, o->log_file);
}

/* Both daemons: options, log, background, then @run. @o is initialised and has its action. */
static int daemon_main(struct options *o, int argc, char **argv, void (*help)(void),
		       int (*run)(const struct options *o, struct log *log))
{
	struct error e = {0};
	struct log log;
	int status;

	if (options_parse(o, argc, argv, &e)) {
		fprintf(stderr, "Error: %s\nTry " PROGRAM " %s --help\n", e.text, o->action);
		return 1;
	}
	if (o->version) {
		printf(PROGRAM " " VERSION "\n");
		return 0;
	}
	if (o->help) {
		help();
		options_help(o, stdout);
		printf("\n"
		       "A switch can be put off with no- in front of its name. The other options "
		       "of "
		       "criu(8) are\n"
		       "accepted and have no effect.\n");
		return 0;
	}
	log_init(&log, o->action, o->log_level);
	log.with_pid = o->log_pid;
	/* a vanished reader is an error of write(2), not the end of the daemon */
	signal(SIGPIPE, SIG_IGN);
	if (prepare(o, &log, &e)) {
		fprintf(stderr, "Error: %s\n", e.text);
		daemon_failed(o, &e);
		return 1;
	}
	options_log(o, &log);
	status = run(o, &log);
	if (status)
		say_failure(o);
	return status;
}

static int lazy_pages_main(int argc, char **argv, bool as_criu)
{
	_cleanup_(options_free) struct options o;

	(void)as_criu;
	options_init(&o);
	o.action = "lazy-pages";
	return daemon_main(&o, argc, argv, lazy_pages_help, manager_run);
}

/* Who calls criu page-server waits for it to end with its client. */
static int page_server_main(int argc, char **argv, bool as_criu)
{
	_cleanup_(options_free) struct options o;

	options_init(&o);
	o.action = "page-server";
	o.once = as_criu;
	return daemon_main(&o, argc, argv, page_server_help, page_server_run);
}

static int status_command(int argc, char **argv, bool as_criu)
{
	(void)as_criu;
	return status_main(argc, argv);
}

static int abort_command(int argc, char **argv, bool as_criu)
{
	(void)as_criu;
	return abort_main(argc, argv);
}

static const struct action actions[] = {
	{"lazy-pages", "serve the memory of a lazy restore", lazy_pages_main, true},
	{"status", "how far lazy restores on this machine are", status_command, false},
	{"abort", "call a migration off: the source runs on", abort_command, false},
	{"confirm", "let a source end that waits for a word", abort_command, false},
	{"page-server", "serve or receive the memory of a checkpoint", page_server_main, true},
};

static void print_usage(FILE *f)
{
	fprintf(f, "Usage: " PROGRAM " ACTION [OPTION...]\n\nActions:\n");
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		fprintf(f, "  %-12s %s\n", actions[i].name, actions[i].summary);
	fprintf(f, "\n" PROGRAM
		   " ACTION --help tells more. Called as criu, this program becomes the real CRIU\n"
		   "for every action that is not its own.\n");
}

static const struct action *find_action(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (!strcmp(actions[i].name, name))
			return &actions[i];
	return NULL;
}

static int run_without_action(int argc, char **argv)
{
	struct error e = {0};
	struct options o;

	options_init(&o);
	if (argc < 2) {
		print_usage(stderr);
		return 1;
	}
	if (options_parse(&o, argc, argv, &e))
		fprintf(stderr, "Error: %s\n", e.text);
	else if (o.version)
		printf(PROGRAM " " VERSION "\n");
	else if (o.help)
		print_usage(stdout);
	else
		fprintf(stderr, "Error: an action is required; try " PROGRAM " --help\n");
	options_free(&o);
	return o.version || o.help ? 0 : 1;
}

static bool is_called_criu(const char *name)
{
	const char *slash = name ? strrchr(name, '/') : NULL;

	return name && !strcmp(slash ? slash + 1 : name, "criu");
}

static int run_action(const struct action *action, int at, int argc, char **argv)
{
	bool as_criu = is_called_criu(argv[0]);

	argv[0] = argv[at];
	/* with the NULL behind the last */
	memmove(&argv[at], &argv[at + 1], sizeof(*argv) * (size_t)(argc - at));
	return action->run(argc - 1, argv, as_criu);
}

int main(int argc, char **argv)
{
	int at = options_find_action(argc, argv);
	const struct action *action = at ? find_action(argv[at]) : NULL;

	if (is_called_criu(argv[0]) && !(action && action->as_criu))
		return passthrough_exec(argv);
	standard_fds_fill();
	if (action)
		return run_action(action, at, argc, argv);
	if (!at)
		return run_without_action(argc, argv);
	fprintf(stderr, "Error: %s is no action of " PROGRAM "; try " PROGRAM " --help\n",
		argv[at]);
	return 1;
}
