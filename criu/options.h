/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line that stock CRIU defines for its daemons, with our own options beside it. Every
 * option of stock is known: those that mean nothing here are noted and said in the log, because
 * callers pass one set of options to all of CRIU's actions. Command line and configuration files go
 * through the same code (config_file.h). Before any thread exists; nothing here is global.
 */
#ifndef CRIU_OPTIONS_H
#define CRIU_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

#define OPTIONS_MAX_IGNORED 128
#define THREADS_DEFAULT	    2
#define THREADS_MAX	    64

enum thp {
	THP_AUTO, /* collapse what was eligible when dumped */
	THP_NEVER,
};

enum progress {
	PROGRESS_AUTO, /* when stderr is a terminal */
	PROGRESS_ALWAYS,
	PROGRESS_NEVER,
};

enum option_source {
	FROM_COMMAND_LINE,
	FROM_CONFIG,	     /* --config FILE */
	FROM_DEFAULT_CONFIG, /* nobody named it for this run: /etc, $HOME, $CRIU_CONFIG_FILE */
};

struct options {
	const char *action; /* "lazy-pages", "page-server", or NULL */
	bool help, version;

	/* Stock's, with stock's meaning. Paths are as given; see options_enter(). */
	const char *images_dir; /* -D, "." */
	const char *work_dir;	/* -W, the images directory */
	const char *log_file;	/* -o, relative to the work directory; "-" is stdout; NULL stderr */
	int log_level;		/* -v, as enum log_level */
	bool log_pid;
	bool daemon;
	const char *pidfile; /* relative to the work directory; written with --daemon only */
	int status_fd;	     /* -1: none */
	bool display_stats;
	unsigned timeout_seconds; /* 0: wait for a restore for ever */
	bool page_server;
	const char *address; /* NULL: any */
	uint16_t port;	     /* of a server 0: one that is free */
	int ps_socket;	     /* -1: none */
	bool tls, tls_no_cn_verify;
	unsigned ps_layout; /* ours: bytes of a header on the wire, 24 or 32; 0: inferred */
	const char *tls_cacert, *tls_cacrl, *tls_cert, *tls_key; /* NULL: the default files */

	/* Of the page server. */
	bool lazy_pages;    /* serve, else receive */
	bool auto_dedup;    /* receive: punch out of the parent what has come anew */
	const char *attach; /* ours: "ADDR:PORT" of a criu dump --lazy-pages, or NULL */
	bool once;	    /* ours: end when a client has said that it has everything */

	/* Ours. */
	unsigned threads;      /* 1..THREADS_MAX */
	const char *json_file; /* relative to the work directory; NULL: none */
	enum thp thp;
	enum progress progress_when;
	int listen_fd;	   /* an already listening lazy-pages.socket, or -1 */
	int restore_pidfd; /* the restore that will connect, or -1 */

	/* Set by options_enter() and daemon_start(). */
	bool progress; /* progress_when, decided */
	int images_fd; /* the images directory, or -1 */
	int report_fd; /* to the waiting parent of --daemon, or -1 */

	/* What to say once the log is open. Names are static. */
	const char *ignored[OPTIONS_MAX_IGNORED];
	unsigned nr_ignored;
	const char *config_unread; /* a configuration file that was named and is not there */
	const char *config;	   /* --config */
	bool no_default_config;
	struct owned *owned; /* strings out of configuration files */
};

void options_init(struct options *o);
void options_free(struct options *o);

/*
 * Reads the default configuration files, --config, then the words of @argv from 1 on, as stock
 * does: later ones win. A word that is no option is an error: the action is taken out before. With
 * --help or --version nothing else is read. 0 or -EINVAL, or what reading a file gave.
 */
int options_parse(struct options *o, int argc, char **argv, struct error *e);

/* One option by its long name (with or without no-), from a configuration file. @value or NULL. */
int options_set_by_name(struct options *o, const char *name, const char *value,
			enum option_source source, struct error *e);

/*
 * The index in @argv of the first word that is neither option nor an option's value, or 0. Unknown
 * options are taken to have no value: it is for others to complain.
 */
int options_find_action(int argc, char **argv);

/*
 * Opens the images directory, goes to the work directory, decides progress. From then on log_file,
 * pidfile and json_file are right as they stand. Logs nothing.
 */
int options_enter(struct options *o, struct error *e);

struct log;
/* Says at info level what was accepted without effect. */
void options_log(const struct options *o, const struct log *log);

/* The table of options that have a meaning for @o->action, as --help shows it. */
void options_help(const struct options *o, FILE *f);

#endif
