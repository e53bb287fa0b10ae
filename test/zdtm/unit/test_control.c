// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control socket (control.h): a server whose control_serve() is called by hand against raw
 * clients, and one in a thread against the blocking client side.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "compiler.h"
#include "control.h"

#define ASK_MS 5000

struct fixture {
	char dir[64];
	struct control_server *server;
	size_t padding; /* bytes by which the status is blown up */
	unsigned finished;
	pid_t asked;
	enum control_holds holds;
	pthread_t thread;
	atomic_bool stop;
};

static void status(void *ctx, struct json_object *into)
{
	struct fixture *f = ctx;
	_cleanup_free_ char *text = malloc(f->padding + 1);

	memset(text, 'x', f->padding);
	text[f->padding] = 0;
	json_object_object_add(into, "images", json_object_new_string(text));
}

static enum control_holds holds(void *ctx, int pidfd)
{
	struct fixture *f = ctx;
	struct error e;

	assert_int_equal(control_pidfd_pid(pidfd, &f->asked, &e), 0);
	return f->holds;
}

static void finish(void *ctx)
{
	((struct fixture *)ctx)->finished++;
}

static const struct control_ops ops = {status, holds, finish, NULL};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	strcpy(f->dir, "/tmp/test-control-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	strcat(f->dir, "/run");
	setenv("CRIU_LAZY_PAGES_RUNDIR", f->dir, 1);
	if (control_server_open(&f->server, getpid(), &e) || control_start(f->server, &e))
		fail_msg("%s", e.text);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	control_server_close(f->server, true);
	assert_int_equal(rmdir(f->dir), 0); /* nothing is left in it */
	*strrchr(f->dir, '/') = 0;
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static int client(void)
{
	struct error e;
	int fd = control_connect(getpid(), ASK_MS, &e);

	if (fd < 0)
		fail_msg("%s", e.text);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void serve(struct fixture *f)
{
	struct pollfd p = {.fd = control_fd(f->server), .events = POLLIN};

	while (poll(&p, 1, 0) > 0)
		control_serve(f->server, &ops, f);
}

/* What @fd has to read now; "" for nothing, NULL when the server has hung up. */
static const char *heard(int fd, char *buf, size_t size)
{
	ssize_t n = recv(fd, buf, size - 1, MSG_DONTWAIT);

	if (n < 0)
		assert_true(errno == EAGAIN || errno == ECONNRESET);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return NULL;
	buf[n < 0 ? 0 : n] = 0;
	return buf;
}

static void *serve_until_stop(void *arg)
{
	struct fixture *f = arg;
	struct pollfd p = {.fd = control_fd(f->server), .events = POLLIN};

	while (!atomic_load(&f->stop))
		if (poll(&p, 1, 10) > 0)
			control_serve(f->server, &ops, f);
	return NULL;
}

static void thread_start(struct fixture *f)
{
	assert_int_equal(pthread_create(&f->thread, NULL, serve_until_stop, f), 0);
}

static void thread_stop(struct fixture *f)
{
	atomic_store(&f->stop, true);
	pthread_join(f->thread, NULL);
}

static void only_the_owner_can_reach_socket_and_directory(void **state)
{
	struct fixture *f = *state;
	char path[CONTROL_PATH_MAX];
	struct stat st;

	assert_int_equal(stat(f->dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(control_path(path, getpid(), NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void a_directory_that_others_can_write_to_is_refused(void **state)
{
	struct fixture *f = *state;
	struct control_server *second;
	struct error e = {0};

	assert_int_equal(chmod(f->dir, 0777), 0);
	assert_int_equal(control_server_open(&second, 1, &e), -EPERM);
	assert_null(second);
	assert_int_equal(chmod(f->dir, 0700), 0);
}

static void several_requests_on_one_connection_are_answered_in_order(void **state)
{
	char buf[1024], expected[256];
	int fd = client();

	say(fd, "finish\nstat");
	serve(*state);
	assert_string_equal(heard(fd, buf, sizeof(buf)), "{\"finishing\":true}\n");
	say(fd, "us\nnonsense\nstatus\n");
	serve(*state);
	snprintf(expected, sizeof(expected),
		 "{\"version\":1,\"pid\":%d,\"images\":\"\"}\n"
		 "{\"error\":\"unknown request\"}\n"
		 "{\"version\":1,\"pid\":%d,\"images\":\"\"}\n",
		 getpid(), getpid());
	assert_string_equal(heard(fd, buf, sizeof(buf)), expected);
	assert_int_equal(((struct fixture *)*state)->finished, 1);
	close(fd);
	serve(*state);
}

static void a_client_that_has_said_its_last_word_gets_its_answer(void **state)
{
	char buf[1024];
	int fd = client();

	say(fd, "finish\n");
	shutdown(fd, SHUT_WR);
	serve(*state);
	assert_string_equal(heard(fd, buf, sizeof(buf)), "{\"finishing\":true}\n");
	assert_null(heard(fd, buf, sizeof(buf)));
	close(fd);
}

static void a_line_without_end_is_cut_off(void **state)
{
	char buf[1024];
	int fd = client();

	memset(buf, 'a', 600);
	buf[600] = 0;
	say(fd, buf);
	serve(*state);
	assert_null(heard(fd, buf, sizeof(buf)));
	close(fd);
}

static void a_client_that_does_not_read_holds_up_nobody(void **state)
{
	struct fixture *f = *state;
	int slow = client(), quick = client();
	char buf[1024];
	size_t got = 0;
	ssize_t n;

	f->padding = 4 << 20;
	say(slow, "status\nfinish\nfinish\n");
	serve(f);
	assert_int_equal(f->finished, 0); /* the reply before is still on its way */
	say(quick, "finish\n");
	serve(f);
	assert_string_equal(heard(quick, buf, sizeof(buf)), "{\"finishing\":true}\n");
	for (int i = 0; i < 1000000 && f->finished < 3; i++) {
		n = recv(slow, buf, sizeof(buf), MSG_DONTWAIT);
		got += n > 0 ? (size_t)n : 0;
		serve(f);
	}
	assert_int_equal(f->finished, 3);
	assert_true(got > 3 << 20);
	close(slow);
	close(quick);
	serve(f);
}

static void the_longest_silent_of_too_many_clients_gives_way(void **state)
{
	struct fixture *f = *state;
	int fds[17];
	char buf[64];

	for (size_t i = 0; i < 16; i++)
		fds[i] = client();
	serve(f);
	say(fds[0], "finish\n");
	serve(f);
	assert_non_null(heard(fds[0], buf, sizeof(buf)));
	fds[16] = client();
	serve(f);
	assert_null(heard(fds[1], buf, sizeof(buf)));
	say(fds[0], "finish\n");
	say(fds[16], "finish\n");
	serve(f);
	assert_string_equal(heard(fds[0], buf, sizeof(buf)), "{\"finishing\":true}\n");
	assert_string_equal(heard(fds[16], buf, sizeof(buf)), "{\"finishing\":true}\n");
	for (size_t i = 0; i < 17; i++)
		close(fds[i]);
	serve(f);
}

static size_t descriptors_open(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void descriptors_sent_unasked_do_not_pile_up(void **state)
{
	char control[CMSG_SPACE(8 * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {(char[]){"finish\n"}, 7};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
	size_t before = descriptors_open();
	int zeros[8] = {0}, fd = client();

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(zeros));
	memcpy(CMSG_DATA(h), zeros, sizeof(zeros));
	for (int i = 0; i < 20; i++)
		sendmsg(fd, &msg, MSG_NOSIGNAL);
	serve(*state);
	close(fd);
	serve(*state);
	assert_int_equal(descriptors_open(), before);
}

static void ask_holds(struct fixture *f, int fd, enum control_holds answer, const char *word)
{
	_cleanup_close_ int pidfd = pidfd_open(getppid(), 0);
	struct json_object *reply, *value;
	struct error e;

	f->holds = answer;
	f->asked = 0;
	if (control_ask(fd, "holds", pidfd, ASK_MS, &reply, &e))
		fail_msg("%s", e.text);
	assert_true(json_object_object_get_ex(reply, "holds", &value));
	assert_string_equal(json_object_get_string(value), word);
	assert_int_equal(f->asked, getppid());
	json_object_put(reply);
}

static void holds_names_the_task_by_its_pidfd(void **state)
{
	struct fixture *f = *state;
	struct json_object *reply;
	struct error e;
	int fd = client();

	thread_start(f);
	ask_holds(f, fd, CONTROL_NO, "no");
	ask_holds(f, fd, CONTROL_YES, "yes");
	ask_holds(f, fd, CONTROL_MAYBE, "maybe");
	f->asked = 0;
	assert_int_equal(control_ask(fd, "holds", -1, ASK_MS, &reply, &e), -EREMOTEIO);
	assert_int_equal(control_ask(fd, "holds", 0, ASK_MS, &reply, &e), -EREMOTEIO);
	assert_int_equal(f->asked, 0);
	thread_stop(f);
	close(fd);
}

static void a_large_status_arrives_whole(void **state)
{
	struct fixture *f = *state;
	struct json_object *reply, *value;
	struct error e;
	int fd = client();

	f->padding = 3 << 20;
	thread_start(f);
	if (control_ask(fd, "status", -1, ASK_MS, &reply, &e))
		fail_msg("%s", e.text);
	assert_true(json_object_object_get_ex(reply, "images", &value));
	assert_int_equal(json_object_get_string_len(value), f->padding);
	json_object_put(reply);
	thread_stop(f);
	close(fd);
}

static void a_manager_that_does_not_answer_is_given_up(void **state)
{
	struct json_object *reply;
	struct error e;
	int fd = client();

	(void)state;
	assert_int_equal(control_ask(fd, "status", -1, 50, &reply, &e), -ETIMEDOUT);
	assert_null(reply);
	close(fd);
}

static void sockets_of_dead_managers_are_listed_refused_and_removed(void **state)
{
	struct control_server *dead;
	struct control_list list;
	char path[CONTROL_PATH_MAX];
	struct error e;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(control_server_open(&dead, pid, &e), 0);
	control_server_close(dead, false);
	assert_int_equal(control_list(&list, &e), 0);
	assert_int_equal(list.count, 2);
	assert_true(list.pids[0] < list.pids[1]);
	control_list_free(&list);
	assert_int_equal(control_connect(pid, ASK_MS, &e), -ECONNREFUSED);
	assert_int_equal(control_path(path, pid, &e), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void no_directory_is_no_managers(void **state)
{
	struct control_list list;
	struct error e;

	(void)state;
	setenv("CRIU_LAZY_PAGES_RUNDIR", "/nonexistent/lazy-pages", 1);
	assert_int_equal(control_list(&list, &e), 0);
	assert_int_equal(list.count, 0);
}

static void closing_leaves_a_successors_socket_alone(void **state)
{
	struct fixture *f = *state;
	struct control_server *first = f->server;
	struct error e;

	assert_int_equal(control_server_open(&f->server, getpid(), &e), 0);
	control_server_close(first, true);
	close(client());
}

/* A worker as the keeper makes it: shared descriptors, memory of its own. */
static int worker(void *arg)
{
	struct fixture *f = arg;
	struct pollfd p = {.events = POLLIN};

	if (control_start(f->server, NULL))
		return 1;
	p.fd = control_fd(f->server);
	for (;;)
		if (poll(&p, 1, -1) > 0)
			control_serve(f->server, &ops, f);
}

static pid_t worker_start(struct fixture *f, char *stack, size_t size)
{
	pid_t pid = clone(worker, stack + size, CLONE_FILES | SIGCHLD, f);

	assert_true(pid > 0);
	return pid;
}

static void the_socket_outlives_a_worker(void **state)
{
	static char stack[1 << 20] __attribute__((aligned(16)));
	struct fixture *f = *state;
	struct json_object *reply;
	struct error e;
	pid_t pid = worker_start(f, stack, sizeof(stack));
	int fd = client(), waiting;

	if (control_ask(fd, "finish", -1, ASK_MS, &reply, &e))
		fail_msg("%s", e.text);
	json_object_put(reply);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	waiting = client(); /* between two workers: the backlog keeps it */
	pid = worker_start(f, stack, sizeof(stack));
	if (control_ask(waiting, "finish", -1, ASK_MS, &reply, &e))
		fail_msg("%s", e.text);
	json_object_put(reply);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	close(waiting);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_the_owner_can_reach_socket_and_directory),
		TEST(a_directory_that_others_can_write_to_is_refused),
		TEST(several_requests_on_one_connection_are_answered_in_order),
		TEST(a_client_that_has_said_its_last_word_gets_its_answer),
		TEST(a_line_without_end_is_cut_off),
		TEST(a_client_that_does_not_read_holds_up_nobody),
		TEST(the_longest_silent_of_too_many_clients_gives_way),
		TEST(descriptors_sent_unasked_do_not_pile_up),
		TEST(holds_names_the_task_by_its_pidfd),
		TEST(a_large_status_arrives_whole),
		TEST(a_manager_that_does_not_answer_is_given_up),
		TEST(sockets_of_dead_managers_are_listed_refused_and_removed),
		TEST(no_directory_is_no_managers),
		TEST(closing_leaves_a_successors_socket_alone),
		TEST(the_socket_outlives_a_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
