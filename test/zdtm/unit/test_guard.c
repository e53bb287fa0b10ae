// SPDX-License-Identifier: GPL-2.0-or-later
/* Guard regions of this and of another process are found where they are, and nowhere else. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "guard.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#define PAGES 64

struct area {
	char *p;
	int fd;
};

static void guard(const struct area *a, size_t page, size_t npages)
{
	assert_int_equal(madvise(a->p + page * PAGE_SIZE, npages * PAGE_SIZE, MADV_GUARD_INSTALL),
			 0);
}

/* Looks at [page, end) and expects [from, to). */
static void assert_found(const struct area *a, size_t page, size_t end, size_t from, size_t to)
{
	uint64_t base = (uint64_t)a->p, found_from = 0, found_to = 0;

	assert_true(guard_scan(a->fd, base + page * PAGE_SIZE, base + end * PAGE_SIZE, &found_from,
			       &found_to));
	assert_int_equal((found_from - base) / PAGE_SIZE, from);
	assert_int_equal((found_to - base) / PAGE_SIZE, to);
	assert_int_equal((found_from | found_to) % PAGE_SIZE, 0);
}

static void assert_nothing(const struct area *a, size_t page, size_t end)
{
	uint64_t base = (uint64_t)a->p, from, to;

	assert_false(
		guard_scan(a->fd, base + page * PAGE_SIZE, base + end * PAGE_SIZE, &from, &to));
}

/* MADV_GUARD_INSTALL is of 6.13; PAGEMAP_SCAN tells of guards since 6.15. */
static bool kernel_shows_guards(void)
{
	struct utsname u;
	int major = 0, minor = 0;

	assert_int_equal(uname(&u), 0);
	assert_int_equal(sscanf(u.release, "%d.%d", &major, &minor), 2);
	return major > 6 || (major == 6 && minor >= 15);
}

static int area_setup(void **state)
{
	static struct area a;

	a.p = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	a.fd = guard_open(getpid());
	*state = &a;
	return a.p == MAP_FAILED;
}

static int area_teardown(void **state)
{
	struct area *a = *state;

	if (a->fd >= 0)
		close(a->fd);
	return munmap(a->p, PAGES * PAGE_SIZE);
}

static struct area *area_or_skip(void **state)
{
	if (!kernel_shows_guards()) {
		print_message("skipped: Linux before 6.15 does not show guard regions\n");
		skip();
	}
	assert_true(((struct area *)*state)->fd >= 0);
	return *state;
}

static void without_guards_nothing_is_found(void **state)
{
	struct area *a = area_or_skip(state);

	assert_nothing(a, 0, PAGES);
	memset(a->p, 1, PAGES * PAGE_SIZE);
	assert_nothing(a, 0, PAGES);
	assert_int_equal(mprotect(a->p, PAGE_SIZE, PROT_NONE), 0);
	assert_nothing(a, 0, PAGES);
}

static void the_first_guarded_range_is_found(void **state)
{
	struct area *a = area_or_skip(state);

	memset(a->p, 1, PAGES * PAGE_SIZE);
	guard(a, 5, 3);
	guard(a, 20, 1);
	assert_found(a, 0, PAGES, 5, 8);
	assert_found(a, 8, PAGES, 20, 21);
	assert_nothing(a, 21, PAGES);
	assert_nothing(a, 0, 5);
	assert_nothing(a, 8, 20);
}

static void what_is_found_lies_in_what_was_asked(void **state)
{
	struct area *a = area_or_skip(state);

	guard(a, 10, 10);
	assert_found(a, 12, 15, 12, 15);
	assert_found(a, 0, 13, 10, 13);
	assert_found(a, 19, PAGES, 19, 20);
}

static void guards_are_found_where_no_page_ever_was(void **state)
{
	struct area *a = area_or_skip(state);

	guard(a, 63, 1);
	assert_found(a, 0, PAGES, 63, 64);
}

static void a_removed_guard_is_not_found(void **state)
{
	struct area *a = area_or_skip(state);

	guard(a, 5, 3);
	assert_int_equal(madvise(a->p + 6 * PAGE_SIZE, PAGE_SIZE, MADV_GUARD_REMOVE), 0);
	assert_found(a, 0, PAGES, 5, 6);
	assert_found(a, 6, PAGES, 7, 8);
	assert_int_equal(madvise(a->p, PAGES * PAGE_SIZE, MADV_GUARD_REMOVE), 0);
	assert_nothing(a, 0, PAGES);
}

static void guards_of_another_process_are_found(void **state)
{
	struct area *a = area_or_skip(state), other = *a;
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		guard(a, 30, 2);
		(void)!write(ready[1], "", 1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	other.fd = guard_open(pid);
	assert_true(other.fd >= 0);
	assert_true(fcntl(other.fd, F_GETFD) & FD_CLOEXEC);
	assert_found(&other, 0, PAGES, 30, 32);
	assert_nothing(a, 0, PAGES); /* ours has none */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* the task has ended: no error, nothing to be found */
	assert_nothing(&other, 0, PAGES);
	close(other.fd);
	close(ready[0]);
	close(ready[1]);
}

static void without_a_process_nothing_is_opened_or_found(void **state)
{
	uint64_t from, to;

	(void)state;
	assert_int_equal(guard_open(0), -1);
	assert_int_equal(guard_open(0x3fffffff), -1);
	assert_false(guard_scan(-1, 0, PAGE_SIZE, &from, &to));
}

static void an_old_kernel_is_not_asked(void **state)
{
	struct area *a = *state;

	if (kernel_shows_guards())
		assert_true(a->fd >= 0);
	else
		assert_int_equal(a->fd, -1);
}

#define area_test(f) cmocka_unit_test_setup_teardown(f, area_setup, area_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		area_test(without_guards_nothing_is_found),
		area_test(the_first_guarded_range_is_found),
		area_test(what_is_found_lies_in_what_was_asked),
		area_test(guards_are_found_where_no_page_ever_was),
		area_test(a_removed_guard_is_not_found),
		area_test(guards_of_another_process_are_found),
		cmocka_unit_test(without_a_process_nothing_is_opened_or_found),
		area_test(an_old_kernel_is_not_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
