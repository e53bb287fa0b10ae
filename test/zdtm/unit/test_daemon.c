// SPDX-License-Identifier: GPL-2.0-or-later
/* Readiness told to a parent, a --status-fd and a pidfile; what the parent says when it is not. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "daemon.h"

static void new_pipe(int fds[2])
{
	if (pipe2(fds, O_CLOEXEC))
		fail_msg("pipe: %s", strerror(errno));
}

static char *pidfile_name(void)
{
	static char name[64];

	snprintf(name, sizeof(name), "/tmp/test-daemon-%d.pid", (int)getpid());
	unlink(name);
	return name;
}

static void ready_is_one_nul_byte_and_the_end(void **state)
{
	int report[2], status[2];
	struct options o;
	char buf[8];

	(void)state;
	new_pipe(report);
	new_pipe(status);
	options_init(&o);
	o.report_fd = report[1];
	o.status_fd = status[1];
	assert_int_equal(daemon_ready(&o, NULL), 0);
	assert_int_equal(read(report[0], buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], 0);
	assert_int_equal(read(report[0], buf, sizeof(buf)), 0);
	assert_int_equal(read(status[0], buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], 0);
	assert_int_equal(read(status[0], buf, sizeof(buf)), 0);
	close(report[0]);
	close(status[0]);
}

static void pidfile_is_written_for_a_daemon_only(void **state)
{
	char text[32] = "", expected[32];
	struct options o;
	FILE *f;

	(void)state;
	options_init(&o);
	o.pidfile = pidfile_name();
	assert_int_equal(daemon_ready(&o, NULL), 0);
	assert_int_equal(access(o.pidfile, F_OK), -1);
	o.daemon = true;
	assert_int_equal(daemon_ready(&o, NULL), 0);
	f = fopen(o.pidfile, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	snprintf(expected, sizeof(expected), "%d", (int)getpid());
	assert_string_equal(text, expected);
	assert_int_equal(daemon_ready(&o, NULL), -EEXIST);
	unlink(o.pidfile);
}

/* Whoever killed the starter wants no daemon; nothing says that there is one. */
static void starter_that_has_gone_is_a_failure_that_leaves_no_pidfile(void **state)
{
	struct error e = {0};
	struct options o;
	int report[2];

	(void)state;
	new_pipe(report);
	close(report[0]);
	options_init(&o);
	o.daemon = true;
	o.report_fd = report[1];
	o.pidfile = pidfile_name();
	assert_int_equal(daemon_ready(&o, &e), -EPIPE);
	assert_int_equal(access(o.pidfile, F_OK), -1);
	close(report[1]);
}

enum child { BECOMES_READY, FAILS, EXITS, IS_KILLED };

static void child_of_daemon(struct options *o, enum child what)
{
	struct error e = {.code = -EIO, .text = "the reason"};

	if (what == BECOMES_READY)
		daemon_ready(o, NULL);
	else if (what == FAILS)
		daemon_failed(o, &e);
	else if (what == IS_KILLED)
		raise(SIGKILL);
	_exit(what == BECOMES_READY ? 0 : 7);
}

/* Exit status of the starter; what it said on stderr in @said. */
static int start_daemon(struct options *o, enum child what, char *said, size_t size)
{
	int out[2], status;
	ssize_t n;
	pid_t pid;

	new_pipe(out);
	pid = fork();
	if (!pid) {
		dup2(out[1], STDERR_FILENO);
		if (daemon_start(o, NULL))
			_exit(9);
		child_of_daemon(o, what);
	}
	close(out[1]);
	n = read(out[0], said, size - 1);
	said[n > 0 ? n : 0] = 0;
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void starter_exits_as_the_daemon_fares(void **state)
{
	struct options o;
	char said[256];

	(void)state;
	options_init(&o);
	o.daemon = true;
	o.log_file = "the.log";
	assert_int_equal(start_daemon(&o, BECOMES_READY, said, sizeof(said)), 0);
	assert_string_equal(said, "");
	assert_int_equal(start_daemon(&o, FAILS, said, sizeof(said)), 1);
	assert_string_equal(said, "Error: the reason\n");
	assert_int_equal(start_daemon(&o, EXITS, said, sizeof(said)), 1);
	assert_string_equal(said, "Error: the daemon ended before it listened, see the.log\n");
	assert_int_equal(start_daemon(&o, IS_KILLED, said, sizeof(said)), 1);
	assert_non_null(strstr(said, "killed by signal 9"));
	/* the log has said it on stderr */
	o.log_file = NULL;
	assert_int_equal(start_daemon(&o, FAILS, said, sizeof(said)), 1);
	assert_string_equal(said, "");
}

static void without_daemon_nothing_forks(void **state)
{
	pid_t me = getpid();
	struct options o;

	(void)state;
	options_init(&o);
	assert_int_equal(daemon_start(&o, NULL), 0);
	assert_int_equal(getpid(), me);
	assert_int_equal(o.report_fd, -1);
}

static void socket_on_a_descriptor_that_a_daemon_closes_is_refused(void **state)
{
	struct error e = {0};
	struct options o;

	(void)state;
	options_init(&o);
	o.daemon = true;
	o.ps_socket = 2;
	assert_int_equal(daemon_start(&o, &e), -EINVAL);
	assert_non_null(strstr(e.text, "--ps-socket 2"));
}

static void log_of_a_daemon_leaves_the_standard_descriptors(void **state)
{
	int fd = STDERR_FILENO, file;
	struct stat a, b;
	struct options o;

	(void)state;
	options_init(&o);
	assert_int_equal(daemon_keep_log(&o, &fd, NULL), 0);
	assert_int_equal(fd, STDERR_FILENO);
	o.daemon = true;
	assert_int_equal(daemon_keep_log(&o, &fd, NULL), 0);
	assert_in_range(fd, 3, 1000000);
	fstat(fd, &a);
	fstat(STDERR_FILENO, &b);
	assert_int_equal(a.st_ino, b.st_ino);
	file = fd;
	assert_int_equal(daemon_keep_log(&o, &file, NULL), 0);
	assert_int_equal(file, fd);
	close(fd);
}

static void closed_standard_descriptors_are_filled(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		int pair[2];

		close(0);
		close(1);
		close(2);
		standard_fds_fill();
		_exit(pipe(pair) ? 1 : pair[0] > 2 && fcntl(0, F_GETFD) == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ready_is_one_nul_byte_and_the_end),
		cmocka_unit_test(pidfile_is_written_for_a_daemon_only),
		cmocka_unit_test(starter_that_has_gone_is_a_failure_that_leaves_no_pidfile),
		cmocka_unit_test(starter_exits_as_the_daemon_fares),
		cmocka_unit_test(without_daemon_nothing_forks),
		cmocka_unit_test(socket_on_a_descriptor_that_a_daemon_closes_is_refused),
		cmocka_unit_test(log_of_a_daemon_leaves_the_standard_descriptors),
		cmocka_unit_test(closed_standard_descriptors_are_filled),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
