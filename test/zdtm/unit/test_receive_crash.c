// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A server that replaces an earlier dump is killed at each system call of the completion in turn.
 * Whatever has a name that CRIU restores is whole, and old and new images never stand together.
 */
#include "test_image_write.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "receive_dir.h"
#include "receive_image.h"
#include "wire.h"

#define TASKS  3
#define OLD_ID 65537u

static void write_old(int dirfd, unsigned i)
{
	char name[32], page[PAGE_SIZE];
	FILE *f = pagemap_new(dirfd, PID + i, OLD_ID + i);
	int fd;

	pagemap_add(f, AT(0), 1, PAGEMAP_PRESENT);
	image_end(f);
	snprintf(name, sizeof(name), "pages-%u.img", OLD_ID + i);
	fd = openat(dirfd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	memset(page, 'a', sizeof(page));
	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	close(fd);
}

/* What the server does, up to the completion, for whose system calls it stops. */
static _Noreturn void child(int dirfd)
{
	const struct pagemap_entry n = {.vaddr = AT(0), .npages = 1, .flags = PAGEMAP_PRESENT};
	struct receive_dir *d;
	char page[PAGE_SIZE];
	struct error e = {0};
	struct log log;

	log_init(&log, "page-server", LOG_MSG);
	memset(page, 'b', sizeof(page));
	if (receive_dir_open(&d, dirfd, &log, &e))
		_exit(2);
	for (unsigned i = 0; i < TASKS; i++) {
		struct receive_image *im;

		if (receive_image_open(&im, d, WIRE_KIND_TASK, PID + i, &e) ||
		    receive_image_add(im, &n, &e) ||
		    receive_image_write(im, page, sizeof(page), &e) || receive_image_end(im, &e))
			_exit(3);
	}
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	_exit(receive_dir_complete(d, &e) ? 4 : 0);
}

/* Lets it make @calls system calls, and kills it at the next. Whether it was through before. */
static bool run_until(int dirfd, int calls)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		child(dirfd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	/* Two stops a call: before it and behind it. */
	for (int i = 0; i < 2 * calls + 1; i++) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return true;
		}
		assert_true(WIFSTOPPED(status));
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
		;
	return false;
}

/* 'a', 'b', or 0 when the image is not there under its real name. */
static char generation_of(int dirfd, unsigned i)
{
	struct image_dir dir = {.fd = dirfd, .version = 2};
	struct pagemap_entry n;
	char page[PAGE_SIZE];
	struct pagemap p;
	uint64_t npages;
	struct error e;
	int fd;

	if (pagemap_open(&p, &dir, PID + i, &e) == -ENOENT)
		return 0;
	assert_int_equal(pagemap_next(&p, &n, &e), 1);
	assert_int_equal(n.vaddr, AT(0));
	assert_int_equal(pagemap_next(&p, &n, &e), 0);
	if (pages_open(&fd, &npages, &dir, p.pages_id, &e))
		fail_msg("task %u: %s", PID + i, e.text);
	assert_int_equal(npages, 1);
	assert_int_equal(read(fd, page, sizeof(page)), sizeof(page));
	for (size_t k = 1; k < sizeof(page); k++)
		assert_int_equal(page[k], page[0]);
	close(fd);
	pagemap_close(&p);
	return page[0];
}

static void no_kill_leaves_a_mixture(void **state)
{
	int calls = 0, old = 0, partly = 0;
	bool through = false;

	(void)state;
	for (; !through; calls++) {
		struct scratch s = scratch_new();
		unsigned na = 0, nb = 0;

		for (unsigned i = 0; i < TASKS; i++)
			write_old(s.fd, i);
		through = run_until(s.fd, calls);
		for (unsigned i = 0; i < TASKS; i++) {
			char g = generation_of(s.fd, i);

			na += g == 'a';
			nb += g == 'b';
		}
		if (na && nb)
			fail_msg("after %d calls: %u old images and %u new ones", calls, na, nb);
		if (through)
			assert_int_equal(nb, TASKS);
		old += na == TASKS;
		partly += na + nb < TASKS;
		scratch_end(&s);
	}
	/* All of it was met: before it began, and in the middle of both renamings. */
	assert_true(old > 2 && partly > 2 * TASKS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_kill_leaves_a_mixture),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
