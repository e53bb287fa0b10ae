// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A worker is killed at any one instruction of the hand-off, and another goes on: each task has one
 * record, its descriptor is open and named, and nothing else that came over the socket is.
 */
#include "restore_peer.h"

#include <dirent.h>
#include <errno.h>

#include "handoff.h"
#include "step.h"

#define A UINT64_C(0x10000000)

#if defined(__SANITIZE_ADDRESS__)
#define KILLS 20
#else
#define KILLS 40
#endif

static void begin(struct parts *p, int *peer)
{
	struct checkpoint_task *t;
	int sk[2], on = 1;

	parts_begin(p);
	t = parts_task(p, 100);
	parts_vma(t, A, 10);
	parts_lazy(t, A, 7, WHERE(0, 0));
	assert_int_equal(extents_seal(&t->extents, NULL), 0);
	t = parts_task(p, 101);
	t->no_mm = true;
	assert_int_equal(extents_seal(&t->extents, NULL), 0);
	t = parts_task(p, 102);
	parts_vma(t, A, 10);
	parts_lazy(t, A, 9, WHERE(0, 7));
	assert_int_equal(extents_seal(&t->extents, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk), 0);
	assert_int_equal(setsockopt(sk[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	assert_int_equal(fcntl(sk[1], F_SETFL, O_NONBLOCK), 0);
	*peer = sk[0];
	p->w.journal->handoff.conn_fd = sk[1];
	p->w.journal->handoff.connected = true;
	peer_item(*peer, 100);
	peer_word(*peer, -101);
	peer_item(*peer, 102);
	peer_word(*peer, RESTORE_FINISHED);
}

/* Like fork(), but what the child opens is open here, too. */
static pid_t worker_start(struct parts *p)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	struct error e;

	if (pid)
		return pid;
	step_begin();
	_exit(handoff_receive(&p->w, &e) == HANDOFF_FINISHED ? 0 : 1);
}

/* Open userfaultfds. Those that the journal does not name are closed, as the keeper does it. */
static unsigned uffds(const struct journal *j)
{
	DIR *dir = opendir("/proc/self/fd");
	char target[64];
	struct dirent *d;
	unsigned n = 0;

	while ((d = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), d->d_name, target, sizeof(target) - 1);
		int fd = atoi(d->d_name);

		if (len < 0 || strncmp(target, "anon_inode:[userfaultfd]", (size_t)len))
			continue;
		if (journal_names_fd(j, fd))
			n++;
		else
			close(fd);
	}
	closedir(dir);
	return n;
}

static unsigned records(const struct journal *j)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < j->nslots; i++)
		n += j->slot[i] != NULL;
	return n;
}

static void take_over(struct parts *p)
{
	struct journal *j = p->w.journal;
	unsigned named = uffds(j);
	struct error e = {0};
	int last_fd = -1;

	parts_worker_end(p);
	parts_worker(p);
	journal_recount(j);
	assert_true(named >= records(j));
	/* it says so only when it is this one that has taken the end off the socket */
	if (handoff_receive(&p->w, &e) == HANDOFF_FAILED)
		fail_msg("%s", e.text);
	assert_int_equal(records(j), 2);
	assert_int_equal(uffds(j), 2);
	for (uint32_t i = 0; i < j->nslots; i++) {
		struct task_record *r = j->slot[i];

		assert_int_equal(r->pid, i ? 102 : 100);
		assert_int_equal(owed_left(r->owed), i ? 9 : 7);
		assert_int_equal(r->log[r->active]->nregions, 1);
		assert_int_not_equal(r->uffd, last_fd);
		last_fd = r->uffd;
	}
	assert_true(j->restore_finished);
	assert_int_equal(j->handoff.word, 0);
}

static void end(struct parts *p, int peer)
{
	struct journal *j = p->w.journal;

	for (uint32_t i = 0; i < j->nslots; i++)
		close(j->slot[i]->uffd);
	close(j->handoff.conn_fd);
	close(peer);
	parts_end(p);
}

/* Whether the journal says a thing that has been done is still to come, at this instruction. */
static void check_state(const struct journal *j)
{
	const struct cmsghdr *first = (const struct cmsghdr *)j->handoff.control;

	if (j->handoff.word <= 0 || first->cmsg_len)
		return; /* no item, or one whose descriptor is here */
	for (uint32_t i = 0; i < j->nslots; i++)
		if (j->slot[i] && j->slot[i]->pid == j->handoff.word)
			fail_msg("task %d waits for a descriptor that has come", j->handoff.word);
}

static uint64_t count_instructions(void)
{
	struct parts p;
	uint64_t n = 0;
	int peer, status;
	pid_t pid;

	/* Once here, so that what is counted does not go into binding symbols. */
	begin(&p, &peer);
	take_over(&p);
	end(&p, peer);
	begin(&p, &peer);
	pid = worker_start(&p);
	assert_true(step_wait(pid, &status));
	for (; step_one(pid, &status); n++)
		check_state(p.w.journal);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	end(&p, peer);
	return n;
}

static void a_worker_killed_at_any_instruction_is_followed_by_one_that_goes_on(void **state)
{
	uint64_t total = count_instructions();
	unsigned seen[3] = {0};

	(void)state;
	assert_true(total > 1000);
	for (uint64_t k = 0; k < KILLS; k++) {
		uint64_t steps = total * k / KILLS;
		struct parts p;
		int peer, status;
		pid_t pid;

		begin(&p, &peer);
		pid = worker_start(&p);
		assert_true(step_wait(pid, &status));
		for (uint64_t i = 0; i < steps; i++)
			if (!step_one(pid, &status))
				break;
		if (WIFSTOPPED(status))
			step_kill(pid);
		seen[records(p.w.journal)]++;
		take_over(&p);
		end(&p, peer);
	}
	print_message("%llu instructions; killed with 0, 1, 2 records: %u %u %u\n",
		      (unsigned long long)total, seen[0], seen[1], seen[2]);
	for (int i = 0; i < 3; i++)
		assert_true(seen[i] > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_worker_killed_at_any_instruction_is_followed_by_one_that_goes_on),
	};

	(void)argc;
	step_init(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
