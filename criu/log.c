// SPDX-License-Identifier: GPL-2.0-or-later
/* Log lines: see log.h. A line longer than the buffer is cut; a failing write is ignored. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

void log_init(struct log *log, const char *module, int level)
{
	*log = (struct log){
		.fd = STDERR_FILENO, .level = level, .start_ns = now_ns(), .module = module};
}

int log_open(struct log *log, const char *path, struct error *e)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_errno(e, -errno, "log file %s", path);
	log->fd = fd;
	return 0;
}

void log_write(const struct log *log, enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = {"", "Error ", "Warn  ", "", ""};
	uint64_t us = (now_ns() - log->start_ns) / 1000;
	struct pollfd p = {.fd = log->fd, .events = POLLOUT};
	char line[1024];
	va_list args;
	size_t n;
	int saved = errno;

	if ((int)level > log->level)
		return;
	n = (size_t)snprintf(line, sizeof(line), "(%02u.%06u) ", (unsigned)(us / 1000000),
			     (unsigned)(us % 1000000));
	if (log->with_pid)
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%6d ", (int)getpid());
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%s: ", words[level], log->module);
	va_start(args, fmt);
	n += (size_t)vsnprintf(line + n, sizeof(line) - n, fmt, args);
	va_end(args);
	if (n > sizeof(line) - 1)
		n = sizeof(line) - 1;
	line[n++] = '\n';
	/* A reader that does not read must not hold up a fault: then the line is lost. */
	if (poll(&p, 1, 0) == 1 && write(log->fd, line, n) < 0)
		errno = saved;
	errno = saved;
}
