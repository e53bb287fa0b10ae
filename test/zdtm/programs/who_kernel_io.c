// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel reads and writes owed memory for the task: read, readv, pread into the middle of owed
 * pages (what is around stays), write and writev from them, a path and an argument that are in
 * them, vmsplice out of them.
 */
#include <sys/uio.h>

#include "lazytest.h"

#define PAGES 256

static int file_with(const char *name, size_t bytes, uint64_t key)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p;

	must(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	pages_fill(p, bytes, key);
	must(!munmap(p, bytes));
	return fd;
}

static void check_file(const char *what, int fd, size_t bytes, uint64_t key)
{
	char *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

	must(p != MAP_FAILED);
	pages_check(what, p, bytes, key);
	must(!munmap(p, bytes));
}

/* The middle half of the page is of @inner, the rest as it was filled. */
static void check_middle(const char *what, char *page, uint64_t inner)
{
	uint64_t *w = (uint64_t *)(void *)page;

	for (unsigned i = 0; i < 512; i++) {
		bool middle = i >= 128 && i < 384;
		uint64_t expected =
			middle ? page_word(inner, i - 128) : page_word(page_key(page), i);

		if (w[i] != expected)
			test_fail("%s: at %p: expected %016lx, got %016lx", what, (void *)(w + i),
				  expected, w[i]);
	}
}

int main(int argc, char **argv)
{
	enum { READ, PREAD, READV, WRITE, WRITEV, PATH, SPLICE, AREAS };
	const size_t bytes = PAGES * PAGE;
	char *area[AREAS], *hole, buffer[PAGE];
	struct iovec v[PAGES];
	int fd, out, pipefd[2];

	test_init(argc, argv);
	for (int i = 0; i < AREAS; i++) {
		area[i] = pages_map(bytes);
		pages_fill(area[i], bytes, page_key(area[i]));
		hole = pages_map_flags(PAGE, PROT_NONE, 0);
		must(hole);
	}
	strcpy(area[PATH] + PAGE - 3, "some-file");

	test_ready();

	fd = file_with("in", bytes, 1000);
	for (int i = 0; i < AREAS; i++)
		pages_must_be_owed("area", area[i], bytes);

	must(read(fd, area[READ] + PAGE / 4, PAGE / 2) == PAGE / 2);
	check_middle("read", area[READ], 1000);
	must(pread(fd, area[PREAD] + PAGE, bytes - PAGE, 0) == (ssize_t)(bytes - PAGE));
	pages_check("before pread", area[PREAD], PAGE, page_key(area[PREAD]));
	pages_check("pread", area[PREAD] + PAGE, bytes - PAGE, 1000);

	for (size_t i = 0; i < PAGES; i++)
		v[i] = (struct iovec){area[READV] + (PAGES - 1 - i) * PAGE + PAGE / 4, PAGE / 2};
	for (size_t i = 0; i < PAGES; i += 64) {
		must(lseek(fd, 0, SEEK_SET) == 0);
		for (size_t k = i; k < i + 64; k++)
			must(readv(fd, v + k, 1) == PAGE / 2 && lseek(fd, 0, SEEK_SET) == 0);
	}
	for (size_t i = 0; i < PAGES; i++)
		check_middle("readv", area[READV] + i * PAGE, 1000);

	out = open("out", O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(out >= 0 && write(out, area[WRITE], bytes) == (ssize_t)bytes);
	check_file("write", out, bytes, page_key(area[WRITE]));

	for (size_t i = 0; i < PAGES; i++)
		v[i] = (struct iovec){area[WRITEV] + i * PAGE, PAGE};
	must(lseek(out, 0, SEEK_SET) == 0 && writev(out, v, PAGES) == (ssize_t)bytes);
	check_file("writev", out, bytes, page_key(area[WRITEV]));

	/* The name lies across two owed pages. */
	must(open(area[PATH] + PAGE - 3, O_WRONLY | O_CREAT, 0600) >= 0);
	must(!access("some-file", F_OK));

	must(!pipe(pipefd));
	for (size_t i = 0; i < PAGES; i++) {
		v[0] = (struct iovec){area[SPLICE] + i * PAGE, PAGE};
		must(vmsplice(pipefd[1], v, 1, 0) == PAGE);
		must(read(pipefd[0], buffer, PAGE) == PAGE);
		pages_check("vmsplice", buffer, PAGE, page_key(area[SPLICE] + i * PAGE));
	}
	test_pass();
}
