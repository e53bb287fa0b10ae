// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who listens at an address, whom he holds, and what the images call them. We listen and trace
 * ourselves, and so stand for the dump.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "compiler.h"
#include "dump.h"
#include "dump_socket.h"

/* A socket that listens on @host, and the port that it got. */
static int listen_on(const char *host, bool v6_alone, uint16_t *port)
{
	struct net_address a;
	struct error e = {0};
	socklen_t len;
	int fd, flag = v6_alone;

	assert_int_equal(net_resolve(&a, host, 0, &e), 0);
	fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	if (a.sa.ss_family == AF_INET6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &flag, sizeof(flag)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a.sa, a.len), 0);
	assert_int_equal(listen(fd, 1), 0);
	len = a.len;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a.sa, &len), 0);
	*port = ntohs(a.sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a.sa)->sin6_port
						 : ((struct sockaddr_in *)&a.sa)->sin_port);
	return fd;
}

static int ask(const char *host, uint16_t port, pid_t *pid)
{
	struct net_address a;
	struct error e = {0};

	assert_int_equal(net_resolve(&a, host, port, &e), 0);
	return socket_listener(&a, pid, &e);
}

static void a_listener_is_found_at_each_address_that_reaches_it(void **state)
{
	static const struct {
		const char *listens, *asked;
		int found;
	} cases[] = {
		{"127.0.0.1", "127.0.0.1", 0},
		{"0.0.0.0", "127.0.0.1", 0},
		{"::", "127.0.0.1", 0},
		{"::1", "::1", 0},
		{"::", "::1", 0},
		{"0.0.0.0", "::1", -ENOENT},
		{"127.0.0.1", "127.0.0.2", -ENOENT},
		{"::1", "127.0.0.1", -ENOENT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint16_t port;
		int fd = listen_on(cases[i].listens, false, &port);
		pid_t pid = 0;

		assert_int_equal(ask(cases[i].asked, port, &pid), cases[i].found);
		assert_int_equal(pid, cases[i].found ? 0 : getpid());
		close(fd);
		assert_int_equal(ask(cases[i].asked, port, &pid), -ENOENT);
	}
}

static void one_that_has_taken_its_connection_is_told_from_none(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), taken, listener;
	uint16_t port;
	pid_t pid;

	(void)state;
	listener = listen_on("127.0.0.1", false, &port);
	in.sin_port = htons(port);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	taken = accept(listener, NULL, NULL);
	close(listener);
	assert_int_equal(ask("127.0.0.1", port, &pid), -EBUSY);
	close(fd);
	close(taken);
}

/* A child that waits, in a pid namespace of its own or not; we trace it. */
static pid_t traced_child(bool in_namespace)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	} args = {.flags = in_namespace ? CLONE_NEWPID : 0, .exit_signal = SIGCHLD};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	return pid;
}

static void tasks_are_known_by_their_pids_in_the_images(void **state)
{
	pid_t pids[2] = {traced_child(false), traced_child(true)};
	struct net_address a;
	struct error e = {0};
	struct dump *d;
	uint16_t port;
	int fd = listen_on("127.0.0.1", false, &port);

	(void)state;
	assert_int_equal(net_resolve(&a, "127.0.0.1", port, &e), 0);
	assert_int_equal(dump_find(&d, &a, &e), 0);
	assert_int_equal(d->pid, getpid());
	assert_int_equal(d->ntasks, 2);
	assert_int_equal(dump_task(d, pids[0])->pid, pids[0]);
	assert_int_equal(dump_task(d, 1)->pid, pids[1]);
	assert_null(dump_task(d, 2));
	assert_true(dump_lives(d) && !dump_has_ended(d));
	assert_true(task_is_traced(pids[0], getpid()) && !task_is_gone(pids[0]));
	ptrace(PTRACE_INTERRUPT, pids[0], NULL, NULL);
	waitpid(pids[0], NULL, __WALL);
	ptrace(PTRACE_DETACH, pids[0], NULL, NULL);
	assert_false(task_is_traced(pids[0], getpid()));
	for (int i = 0; i < 2; i++) {
		kill(pids[i], SIGKILL);
		waitid(P_PID, (id_t)pids[i], &(siginfo_t){0}, WEXITED | WNOWAIT);
		assert_true(task_is_gone(pids[i]));
		waitpid(pids[i], NULL, __WALL);
		assert_true(task_is_gone(pids[i]));
	}
	/* Now we hold nobody. */
	assert_int_equal(dump_find(&(struct dump *){NULL}, &a, &e), -EINVAL);
	dump_free(d);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_listener_is_found_at_each_address_that_reaches_it),
		cmocka_unit_test(one_that_has_taken_its_connection_is_told_from_none),
		cmocka_unit_test(tasks_are_known_by_their_pids_in_the_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
