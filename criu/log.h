/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log lines in the manner of CRIU: "(seconds) lazy-pages: task: text", one write(2) a line, so
 * that lines of several threads and of keeper and worker never mix. The word Error is in lines of
 * level LOG_ERROR only and Warn in those of LOG_WARN only: test harnesses grep for them.
 *
 * A struct log hangs off the context of whoever logs. Any thread may log; nothing is allocated.
 */
#ifndef CRIU_LOG_H
#define CRIU_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum log_level {
	LOG_MSG = 0,   /* always */
	LOG_ERROR = 1, /* "Error" is put in front */
	LOG_WARN = 2,  /* "Warn" is put in front; stock's default level */
	LOG_INFO = 3,
	LOG_DEBUG = 4,
};

struct log {
	int fd;		    /* where lines go; not owned unless opened by log_open() */
	int level;	    /* lines above it are dropped */
	bool with_pid;	    /* put the pid in front (--log-pid) */
	uint64_t start_ns;  /* CLOCK_MONOTONIC; seconds in lines count from here */
	const char *module; /* "lazy-pages", "page-server", "plugin" */
};

/* Logs to stderr at @level until log_open() is called. */
void log_init(struct log *log, const char *module, int level);

/* Opens (creates, truncates) @path and logs there. */
int log_open(struct log *log, const char *path, struct error *e);

void log_write(const struct log *log, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(log, ...) log_write(log, LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...)  log_write(log, LOG_WARN, __VA_ARGS__)
#define log_info(log, ...)  log_write(log, LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_write(log, LOG_DEBUG, __VA_ARGS__)

#endif
