// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Background and readiness: see daemon.h. What parent and child agree on: a pipe on which the child
 * writes one NUL byte when it is ready, or the text of its failure; nothing at all means that it
 * died. The child writes the pidfile itself, before anybody is told: whoever sees the parent exit
 * or the status byte finds it written.
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "log.h"

void standard_fds_fill(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			_exit(1); /* not even /dev/null, and no place to say so */
}

static int standard_fds_to_null(struct error *e)
{
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return error_errno(e, -errno, "/dev/null");
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (dup2(null, fd) < 0)
			return error_errno(e, -errno, "descriptor %d to /dev/null", fd);
	return 0;
}

static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = read(fd, buf + got, size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int write_all(int fd, const char *buf, size_t size)
{
	while (size) {
		ssize_t n = write(fd, buf, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		size -= (size_t)n;
	}
	return 0;
}

/* The parent's whole life after the fork; returns its exit status. */
static int wait_for_child(const struct options *o, pid_t pid, int fd)
{
	char text[sizeof(((struct error *)0)->text)] = "";
	ssize_t n = read_all(fd, text, sizeof(text) - 1);
	int status = 0;

	if (n > 0 && !text[0])
		return 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* a log on stderr has the text already */
	if (n > 0 && (o->log_file || o->log_level < LOG_ERROR))
		fprintf(stderr, "Error: %s\n", text);
	else if (n > 0)
		return 1;
	else if (WIFSIGNALED(status))
		fprintf(stderr, "Error: the daemon was killed by signal %d before it listened\n",
			WTERMSIG(status));
	else
		fprintf(stderr, "Error: the daemon ended before it listened%s%s\n",
			o->log_file ? ", see " : "", o->log_file ? o->log_file : "");
	return 1;
}

int daemon_start(struct options *o, struct error *e)
{
	int fds[2];
	pid_t pid;

	if (!o->daemon)
		return 0;
	if (o->ps_socket >= 0 && o->ps_socket <= STDERR_FILENO)
		return error_set(e, -EINVAL, "--ps-socket %d: --daemon closes this descriptor",
				 o->ps_socket);
	if (pipe2(fds, O_CLOEXEC))
		return error_errno(e, -errno, "pipe to the daemon");
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int code = -errno;

		close(fds[0]);
		close(fds[1]);
		return error_errno(e, code, "fork of the daemon");
	}
	if (pid > 0) {
		close(fds[1]);
		/* exit handlers and buffers belong to the child */
		_exit(wait_for_child(o, pid, fds[0]));
	}
	close(fds[0]);
	o->report_fd = fds[1];
	setsid();
	return standard_fds_to_null(e);
}

int daemon_keep_log(const struct options *o, int *log_fd, struct error *e)
{
	int fd;

	if (!o->daemon || *log_fd > STDERR_FILENO)
		return 0;
	fd = fcntl(*log_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (fd < 0)
		return error_errno(e, -errno, "the log's descriptor");
	*log_fd = fd;
	return 0;
}

/* As stock's: no newline, readable by the owner, and never over a file that is there. */
static int write_pidfile(const char *path, struct error *e)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char text[16];
	int ret;

	if (fd < 0 && errno == EEXIST)
		return error_set(e, -EEXIST, "pidfile %s is there already: is its daemon running?",
				 path);
	if (fd < 0)
		return error_errno(e, -errno, "pidfile %s", path);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	ret = write_all(fd, text, strlen(text));
	if (ret) {
		unlink(path);
		return error_errno(e, ret, "pidfile %s", path);
	}
	return 0;
}

void close_for_good(int fd)
{
	int null;

	if (fd > STDERR_FILENO) {
		close(fd);
		return;
	}
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return;
	dup2(null, fd);
	close(null);
}

static int tell(const struct options *o, struct error *e)
{
	int ret;

	if (o->status_fd >= 0) {
		ret = write_all(o->status_fd, "", 1);
		if (ret)
			return error_errno(e, ret, "--status-fd %d", o->status_fd);
		close_for_good(o->status_fd);
	}
	if (o->report_fd >= 0) {
		ret = write_all(o->report_fd, "", 1);
		if (ret)
			return error_errno(e, ret, "whoever started the daemon has gone");
		close(o->report_fd);
	}
	return 0;
}

int daemon_ready(const struct options *o, struct error *e)
{
	int ret;

	if (o->daemon && o->pidfile) {
		ret = write_pidfile(o->pidfile, e);
		if (ret)
			return ret;
	}
	ret = tell(o, e);
	if (ret && o->daemon && o->pidfile)
		unlink(o->pidfile);
	return ret;
}

void daemon_failed(const struct options *o, const struct error *why)
{
	if (o->report_fd >= 0 && why->text[0])
		(void)write_all(o->report_fd, why->text, strlen(why->text));
}
