// SPDX-License-Identifier: GPL-2.0-or-later
/* The keeper: who dies is replaced, descriptors that the journal names survive it and others do
 * not, signals and the exit status get through. */
#include "keeper_family.h"

static int ends_with_42(void *arg)
{
	worker_begins(arg);
	return worker_ends(arg, 42);
}

static void the_exit_status_gets_through(void **state)
{
	struct fixture *f = *state;
	int status;

	begin(f, ends_with_42);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	assert_int_equal(f->n->lives, 1);
	/* when the keeper has gone, so have the others */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_false(logged(f, "Warn"));
}

/* Names are what the operator sees in ps(1). */
static int looks_at_names(void *arg)
{
	struct fixture *f = arg;
	char name[16];

	worker_begins(f);
	prctl(PR_GET_NAME, name);
	f->n->open[0][0] = !strcmp(name, "lazy-worker");
	f->n->open[0][1] = getpid() == f->j->worker_pid && gettid() == getpid();
	f->n->open[0][2] = getppid() == f->j->keeper_pid[0];
	f->n->open[0][3] = alive(f->j->keeper_pid[1]);
	return worker_ends(f, 0);
}

static void a_worker_knows_its_place(void **state)
{
	struct fixture *f = *state;

	begin(f, looks_at_names);
	assert_int_equal(everybody_ends(f), 0);
	for (int i = 0; i < 4; i++)
		assert_true(f->n->open[0][i]);
}

static int dies_twice(void *arg)
{
	switch (worker_begins(arg)) {
	case 1:
		raise(SIGKILL);
		break;
	case 2:
		return 0; /* without saying that everything is over */
	case 3:
		signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would talk */
		raise(SIGSEGV);
		break;
	}
	return worker_ends(arg, 3);
}

static void a_worker_that_dies_is_replaced_however_it_died(void **state)
{
	struct fixture *f = *state;

	begin(f, dies_twice);
	assert_int_equal(everybody_ends(f), 3);
	assert_int_equal(f->n->lives, 4);
	assert_int_equal(f->n->together, 0);
	assert_true(logged(f, "was killed by signal 9"));
	assert_true(logged(f, "was killed by signal 11"));
}

/* Opens one descriptor of each kind of place in the journal, and some with no name. */
enum { CONN, UFFD, FORK_UNREAD, FORK_DONE, CONTROL, UNNAMED, SOCKET, LISTEN, FDS };

static void receive_into_control(struct journal *j, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int sk[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk))
		_exit(9);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(sk[0], &m, 0) != 1)
		_exit(9);
	m.msg_control = j->handoff.control;
	m.msg_controllen = sizeof(j->handoff.control);
	if (recvmsg(sk[1], &m, MSG_CMSG_CLOEXEC) != 1)
		_exit(9);
	close(sk[0]);
	close(sk[1]);
}

static void open_all(struct fixture *f)
{
	struct journal *j = f->j;
	struct region v = {PAGE_SIZE, 2 * PAGE_SIZE, PAGE_SIZE};
	struct task_record *r = journal_record_new(j, owed_new(f->a, 10), &v, 1);
	int *fd = f->n->fd;

	for (int i = 0; i < FDS; i++)
		fd[i] = eventfd((unsigned)(100 + i), EFD_CLOEXEC | EFD_NONBLOCK);
	if (!r || journal_slot_take(j, r) < 0 || fd[FDS - 1] < 0)
		_exit(9);
	j->handoff.conn_fd = fd[CONN];
	j->handoff.connected = true;
	j->handoff.listen_fd = fd[LISTEN];
	r->uffd = fd[UFFD];
	r->log[0]->msg[0].event = JOURNAL_EVENT_DONE;
	r->log[0]->msg[0].arg.fork.ufd = (unsigned)fd[FORK_DONE];
	r->log[0]->msg[1].event = UFFD_EVENT_FORK;
	r->log[0]->msg[1].arg.fork.ufd = (unsigned)fd[FORK_UNREAD];
	receive_into_control(j, fd[CONTROL]);
	close(fd[CONTROL]);
	for (int i = 3; i < 1000; i++)
		if (journal_names_fd(j, i) && i != j->worker_pidfd && i != j->keeper_pidfd[0] &&
		    i != j->keeper_pidfd[1] && i != fd[CONN] && i != fd[UFFD] && i != fd[LISTEN] &&
		    i != fd[FORK_UNREAD])
			fd[CONTROL] = i;
}

/* Whether the descriptor is open, and the one that it was. */
static bool same_eventfd(int fd, uint64_t value)
{
	uint64_t v = 0;

	if (read(fd, &v, sizeof(v)) != sizeof(v) || v != value)
		return false;
	return write(fd, &v, sizeof(v)) == sizeof(v);
}

static int opens_and_looks(void *arg)
{
	struct fixture *f = arg;
	unsigned life = worker_begins(f);

	if (life == 1) {
		open_all(f);
		raise(SIGKILL);
	}
	for (int i = 0; i < FDS; i++)
		f->n->open[life][i] = same_eventfd(f->n->fd[i], (uint64_t)(100 + i));
	f->n->open[life][FDS] = same_eventfd(f->before, 7);
	if (life < 4)
		raise(SIGKILL);
	return worker_ends(f, 0);
}

static void only_descriptors_that_the_journal_names_survive(void **state)
{
	struct fixture *f = *state;

	begin(f, opens_and_looks);
	assert_int_equal(everybody_ends(f), 0);
	assert_int_equal(f->n->lives, 4);
	for (unsigned life = 2; life <= 4; life++) {
		const bool *open = f->n->open[life];

		assert_true(open[CONN]);
		assert_true(open[UFFD]);
		assert_true(open[FORK_UNREAD]);
		assert_true(open[CONTROL]);
		assert_true(open[LISTEN]);
		assert_true(open[FDS]); /* older than all workers */
		assert_false(open[FORK_DONE]);
		assert_false(open[UNNAMED]);
		assert_false(open[SOCKET]);
	}
}

static void the_deputy_takes_over_from_a_dead_keeper(void **state)
{
	struct fixture *f = *state;
	pid_t first_worker, first_deputy;

	begin(f, beats);
	all_three_are_there(f);
	first_worker = f->j->worker_pid;
	first_deputy = deputy(f);
	assert_int_equal(senior(f), f->pid);
	kill(f->pid, SIGKILL);
	wait_until(senior(f) == first_deputy);
	assert_int_equal(waitpid(f->pid, NULL, 0), f->pid);
	all_three_are_there(f);
	assert_true(deputy(f) != f->pid);
	/* The worker has not noticed. */
	assert_int_equal(f->j->worker_pid, first_worker);
	assert_int_equal(f->n->lives, 1);
	assert_true(logged(f, "its deputy takes over"));
	/* A worker that was the dead one's child is replaced like any other. */
	kill(first_worker, SIGKILL);
	wait_until(f->n->lives == 2);
	all_three_are_there(f);
	end_with(f, 9);
	assert_int_equal(f->n->together, 0);
}

/* As the journal is after worker_ended() has closed the pidfd and before the next clone. */
static int dies_with_a_keeper_between_workers(void *arg)
{
	struct fixture *f = arg;

	if (worker_begins(f) == 1) {
		pid_t keeper = f->j->keeper_pid[0];
		int fd;

		while (!alive(f->j->keeper_pid[1]))
			usleep(1000);
		kill(keeper, SIGSTOP);
		while (process_state(keeper) != 'T')
			usleep(1000);
		fd = f->j->worker_pidfd;
		f->j->worker_pidfd = -1;
		close(fd);
		kill(keeper, SIGKILL);
		raise(SIGKILL);
	}
	return worker_ends(f, 8);
}

static void a_keeper_that_dies_between_two_workers_is_followed(void **state)
{
	struct fixture *f = *state;

	begin(f, dies_with_a_keeper_between_workers);
	wait_until(f->n->lives == 2);
	assert_int_equal(everybody_ends(f), 8);
}

static void a_deputy_is_replaced(void **state)
{
	struct fixture *f = *state;

	begin(f, beats);
	for (int i = 0; i < 5; i++) {
		pid_t old;

		all_three_are_there(f);
		old = deputy(f);
		kill(old, SIGKILL);
		wait_until(deputy(f) != old && alive(deputy(f)));
	}
	assert_int_equal(senior(f), f->pid);
	assert_int_equal(f->n->lives, 1);
	end_with(f, 5);
}

static int waits_for_signal(void *arg)
{
	struct fixture *f = arg;
	sigset_t set;

	worker_begins(f);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	f->n->beats++;
	f->n->signal = sigwaitinfo(&set, NULL);
	return worker_ends(f, 0);
}

static void a_signal_to_the_keeper_is_for_the_worker(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(signals); i++) {
		struct fixture *f = *state;

		begin(f, waits_for_signal);
		wait_until(f->n->beats && alive(f->j->keeper_pid[1]));
		if (i & 1) { /* also to one that was a deputy */
			kill(f->pid, SIGKILL);
			wait_until(senior(f) != f->pid);
		}
		kill(senior(f), signals[i / 2]);
		assert_int_equal(everybody_ends(f), 0);
		assert_int_equal(f->n->signal, signals[i / 2]);
		assert_int_equal(f->n->lives, 1);
		teardown(state);
		setup(state);
	}
}

static int dies_at_once(void *arg)
{
	struct fixture *f = arg;

	worker_begins(f);
	if (f->n->end)
		return worker_ends(f, 0);
	raise(SIGKILL);
	return 0;
}

/* A worker that cannot live must not take the machine's time away. */
static void a_worker_that_dies_at_once_comes_back_ever_more_slowly(void **state)
{
	struct fixture *f = *state;

	begin(f, dies_at_once);
	usleep(1500000);
	assert_in_range(f->n->lives, 5, 15);
	f->n->end = true;
	assert_int_equal(everybody_ends(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		keeper_test(the_exit_status_gets_through),
		keeper_test(a_worker_knows_its_place),
		keeper_test(a_worker_that_dies_is_replaced_however_it_died),
		keeper_test(only_descriptors_that_the_journal_names_survive),
		keeper_test(the_deputy_takes_over_from_a_dead_keeper),
		keeper_test(a_keeper_that_dies_between_two_workers_is_followed),
		keeper_test(a_deputy_is_replaced),
		keeper_test(a_signal_to_the_keeper_is_for_the_worker),
		keeper_test(a_worker_that_dies_at_once_comes_back_ever_more_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
