// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages out of a real process that is stopped, as its tracer sees them: protected ones, one that
 * only the dump can give, some that the images have, and none once the dump does not hold the
 * process any more. The process that traces stands for the dump.
 */
#include "held_pair.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "provider_frozen.h"

#define PAGES	  8
#define NONE	  2 /* this page has no protection that lets it be read */
#define GONE	  5 /* this one is not mapped any more */
#define IMAGE_PID 7
#define FROM_FILE UINT64_C(0x700000000000) /* pages that the images have */

struct fixture {
	struct held_pair pair;
	struct checkpoint c;
	struct checkpoint_task task;
	struct pages_file files[2];
	struct dump dump;
	struct dump_task dump_task;
	struct provider *provider;
	char *area; /* in us and, with other bytes, in the process */
	pid_t pid;
};

static void process_main(struct fixture *f)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < PAGES; i++)
		memset(f->area + i * PAGE_SIZE, 'a' + i, PAGE_SIZE);
	mprotect(f->area + NONE * PAGE_SIZE, PAGE_SIZE, PROT_NONE);
	munmap(f->area + GONE * PAGE_SIZE, PAGE_SIZE);
	raise(SIGSTOP);
	for (;;)
		pause();
}

static void process_start(struct fixture *f)
{
	int status;

	f->area = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	f->pid = fork();
	if (!f->pid)
		process_main(f);
	assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid);
	assert_int_equal(ptrace(PTRACE_SEIZE, f->pid, NULL, NULL), 0);
	f->dump_task =
		(struct dump_task){IMAGE_PID, f->pid, (int)syscall(SYS_pidfd_open, f->pid, 0)};
	f->dump = (struct dump){.pid = getpid(),
				.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0),
				.stat_fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC),
				.tasks = &f->dump_task,
				.ntasks = 1};
}

static void checkpoint_make(struct fixture *f)
{
	uint64_t at = (uint64_t)(uintptr_t)f->area;
	char page[PAGE_SIZE];
	struct error e = {0};

	f->files[0] = (struct pages_file){.fd = -1, .pid = IMAGE_PID, .name = (char *)"far"};
	f->files[1] = (struct pages_file){.fd = memfd_create("pages", MFD_CLOEXEC),
					  .name = (char *)"pages-1.img",
					  .npages = 2};
	for (int i = 0; i < 2; i++) {
		memset(page, '0' + i, sizeof(page));
		assert_int_equal(write(f->files[1].fd, page, sizeof(page)), sizeof(page));
	}
	f->task.pid = IMAGE_PID;
	extents_init(&f->task.extents);
	/* mmap gives addresses above FROM_FILE. */
	assert_int_equal(extents_add(&f->task.extents, FROM_FILE, 2, WHERE(1, 0), &e), 0);
	assert_int_equal(extents_add(&f->task.extents, at, PAGES, WHERE(0, at >> PAGE_SHIFT), &e),
			 0);
	assert_int_equal(extents_seal(&f->task.extents, &e), 0);
	f->c = (struct checkpoint){.tasks = &f->task, .ntasks = 1, .files = f->files, .nfiles = 2};
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	process_start(f);
	checkpoint_make(f);
	held_pair_open(&f->pair);
	f->provider = provider_frozen_new(&f->c, &f->dump, &f->pair.held);
	assert_non_null(f->provider);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	provider_close(f->provider);
	held_pair_close(&f->pair);
	extents_free(&f->task.extents);
	close(f->files[1].fd);
	close(f->dump.pidfd);
	close(f->dump_task.pidfd);
	close(f->dump.stat_fd);
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, __WALL);
	munmap(f->area, PAGES * PAGE_SIZE);
	free(f);
	return 0;
}

/* Reads pages of the area; what they hold must be byte @first, and so on, a page. */
static int read_pages(struct fixture *f, unsigned page, unsigned npages, char *to, struct error *e)
{
	uint64_t vaddr = (uint64_t)(uintptr_t)f->area + page * PAGE_SIZE;
	struct span span;

	assert_int_equal(provider_find(f->provider, IMAGE_PID, vaddr, npages, &span, e), 0);
	assert_int_equal(span.npages, npages);
	assert_int_equal(span.fd, -1);
	return provider_read(f->provider, IMAGE_PID, vaddr, &span, to, npages, e);
}

static void protected_pages_are_read_like_others(void **state)
{
	struct fixture *f = *state;
	char to[GONE * PAGE_SIZE];
	struct error e = {0};

	assert_int_equal(read_pages(f, 0, GONE, to, &e), 0);
	for (unsigned i = 0; i < GONE * PAGE_SIZE; i++)
		assert_int_equal(to[i], 'a' + i / PAGE_SIZE);
	/* without a word to the dump */
	assert_int_equal(recv(f->pair.dump, to, 1, MSG_DONTWAIT), -1);
}

static void a_page_that_cannot_be_read_comes_from_the_dump(void **state)
{
	struct fixture *f = *state;
	uint64_t vaddr = (uint64_t)(uintptr_t)f->area + GONE * PAGE_SIZE;
	char to[PAGES * PAGE_SIZE];
	struct error e = {0};

	dump_answers(&f->pair, IMAGE_PID, vaddr, 1, '!');
	assert_int_equal(read_pages(f, 0, PAGES, to, &e), 0);
	for (unsigned i = 0; i < PAGES * PAGE_SIZE; i++)
		assert_int_equal(to[i], i / PAGE_SIZE == GONE ? '!' : 'a' + i / PAGE_SIZE);
	assert_int_equal(dump_reads(&f->pair).vaddr, vaddr);
}

/* The process with the pid is another one than the dump had stopped; that had been killed. */
static void a_pid_that_is_used_again_is_not_read(void **state)
{
	struct fixture *f = *state;
	uint64_t vaddr = (uint64_t)(uintptr_t)f->area;
	pid_t killed = fork();
	char to[2 * PAGE_SIZE];
	struct error e = {0};

	if (!killed)
		_exit(0);
	close(f->dump_task.pidfd);
	f->dump_task.pidfd = (int)syscall(SYS_pidfd_open, killed, 0);
	assert_int_equal(waitpid(killed, NULL, 0), killed);
	dump_answers(&f->pair, IMAGE_PID, vaddr, 1, 'y');
	dump_answers(&f->pair, IMAGE_PID, vaddr + PAGE_SIZE, 1, 'z');
	assert_int_equal(read_pages(f, 0, 2, to, &e), 0);
	assert_true(to[0] == 'y' && to[PAGE_SIZE - 1] == 'y');
	assert_true(to[PAGE_SIZE] == 'z' && to[2 * PAGE_SIZE - 1] == 'z');
}

static void pages_of_the_images_come_from_there(void **state)
{
	struct fixture *f = *state;
	char to[PAGE_SIZE];
	struct error e = {0};
	struct span span;

	assert_int_equal(provider_find(f->provider, IMAGE_PID, FROM_FILE + PAGE_SIZE, 9, &span, &e),
			 0);
	assert_int_equal(span.npages, 1);
	assert_int_equal(
		provider_read(f->provider, IMAGE_PID, FROM_FILE + PAGE_SIZE, &span, to, 1, &e), 0);
	assert_int_equal(to[PAGE_SIZE - 1], '1');
	assert_int_equal(provider_frozen_number(f->provider, IMAGE_PID, FROM_FILE + PAGE_SIZE), 1);
}

static void what_is_not_there_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t end = (uint64_t)(uintptr_t)f->area + PAGES * PAGE_SIZE;
	struct error e = {0};
	struct span span;

	assert_int_equal(provider_find(f->provider, 8, FROM_FILE, 1, &span, &e), -ESRCH);
	assert_int_equal(provider_find(f->provider, (uint64_t)f->pid, FROM_FILE, 1, &span, &e),
			 -ESRCH);
	assert_int_equal(provider_find(f->provider, IMAGE_PID, end, 1, &span, &e), -EFAULT);
	assert_int_equal(provider_find(f->provider, IMAGE_PID, end - PAGE_SIZE, 9, &span, &e), 0);
	assert_int_equal(span.npages, 1);
}

static void nothing_is_given_out_once_the_connection_has_ended(void **state)
{
	struct fixture *f = *state;
	char to[PAGE_SIZE];
	struct error e = {0};

	close(f->pair.dump);
	f->pair.dump = -1;
	assert_int_equal(read_pages(f, 0, 1, to, &e), -ESHUTDOWN);
}

static void nothing_is_given_out_once_the_dump_has_ended(void **state)
{
	struct fixture *f = *state;
	pid_t other = fork();
	char to[PAGE_SIZE], path[32];
	struct error e = {0};

	if (!other)
		for (;;)
			pause();
	snprintf(path, sizeof(path), "/proc/%d/stat", other);
	close(f->dump.stat_fd);
	f->dump.stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read_pages(f, 0, 1, to, &e), 0);
	kill(other, SIGKILL);
	/* a zombie: not gone, and yet it holds nobody */
	waitid(P_PID, (id_t)other, &(siginfo_t){0}, WEXITED | WNOWAIT);
	assert_int_equal(read_pages(f, 0, 1, to, &e), -ESHUTDOWN);
	waitpid(other, NULL, 0);
	assert_int_equal(read_pages(f, 0, 1, to, &e), -ESHUTDOWN);
}

static void tasks_that_nobody_holds_are_missed(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	assert_int_equal(frozen_check_tasks(&f->c, &f->dump, &e), 0);
	f->dump_task.image_pid = 8;
	assert_int_equal(frozen_check_tasks(&f->c, &f->dump, &e), -ESRCH);
	assert_non_null(strstr(e.text, "task 7"));
}

static void another_page_of_the_dump_than_in_memory_is_found_out(void **state)
{
	struct fixture *f = *state;
	uint64_t vaddr = (uint64_t)(uintptr_t)f->area;
	struct error e = {0};

	dump_answers(&f->pair, IMAGE_PID, vaddr, 1, 'a');
	assert_int_equal(frozen_compare(&f->c, &f->dump, &f->pair.held, &e), 0);
	dump_answers(&f->pair, IMAGE_PID, vaddr, 1, 'x');
	assert_int_equal(frozen_compare(&f->c, &f->dump, &f->pair.held, &e), -EBADMSG);
}

#define frozen_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		frozen_test(protected_pages_are_read_like_others),
		frozen_test(a_page_that_cannot_be_read_comes_from_the_dump),
		frozen_test(a_pid_that_is_used_again_is_not_read),
		frozen_test(pages_of_the_images_come_from_there),
		frozen_test(what_is_not_there_is_refused),
		frozen_test(nothing_is_given_out_once_the_connection_has_ended),
		frozen_test(nothing_is_given_out_once_the_dump_has_ended),
		frozen_test(tasks_that_nobody_holds_are_missed),
		frozen_test(another_page_of_the_dump_than_in_memory_is_found_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
