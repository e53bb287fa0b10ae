/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Image files on a real file system, an image source over them, and what their bytes must be. */
#ifndef IMAGE_FILES_H
#define IMAGE_FILES_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "compiler.h"
#include "source.h"

#define FILES	   8
#define FILE_PAGES 64
#define WAIT_MS	   20000 /* longer than any disk; only a failing test waits for it */

struct fixture {
	struct checkpoint c;
	struct pages_file files[FILES];
	char dir[64];
	struct source *s;
	int event_fd;
	char scratch[FILE_PAGES * PAGE_SIZE];
};

static inline void file_path(const struct fixture *f, unsigned i, char *path)
{
	sprintf(path, "%s/pages-%u.img", f->dir, i);
}

/* What byte @offset of file @i holds. */
static inline unsigned char byte_of(unsigned i, uint64_t offset)
{
	return (unsigned char)((offset >> PAGE_SHIFT) * 7 + offset + i * 31 + 1);
}

static inline void file_open(struct fixture *f, unsigned i)
{
	char path[128];

	file_path(f, i, path);
	if (f->files[i].fd > 0)
		close(f->files[i].fd);
	f->files[i].fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	f->files[i].npages = FILE_PAGES;
	assert_true(f->files[i].fd >= 0);
}

static inline int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	/* A real file system: what is in tmpfs never leaves the page cache. */
	strcpy(f.dir, "/var/tmp/lazy-pages-unit-XXXXXX");
	if (!mkdtemp(f.dir))
		return -1;
	for (unsigned i = 0; i < FILES; i++) {
		file_open(&f, i);
		for (uint64_t k = 0; k < FILE_PAGES * PAGE_SIZE; k++)
			f.scratch[k] = (char)byte_of(i, k);
		assert_int_equal(pwrite(f.files[i].fd, f.scratch, sizeof(f.scratch), 0),
				 sizeof(f.scratch));
		assert_int_equal(fsync(f.files[i].fd), 0);
	}
	f.c.files = f.files;
	f.c.nfiles = FILES;
	f.s = source_image_new(&f.c);
	f.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	*state = &f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];

	source_close(f->s);
	close(f->event_fd);
	for (unsigned i = 0; i < FILES; i++) {
		close(f->files[i].fd);
		file_path(f, i, path);
		unlink(path);
	}
	return rmdir(f->dir);
}

static inline int fetch(struct fixture *f, unsigned file, uint64_t page, uint64_t npages)
{
	const void *bytes = NULL;
	int ret;

	memset(f->scratch, 0, sizeof(f->scratch));
	ret = source_fetch(f->s, WHERE(file, page), npages, f->scratch, &bytes);
	if (ret)
		return ret;
	for (uint64_t k = 0; k < npages * PAGE_SIZE; k++)
		assert_int_equal(((const unsigned char *)bytes)[k],
				 byte_of(file, page * PAGE_SIZE + k));
	return 0;
}

static inline size_t cached_pages(struct fixture *f, unsigned file)
{
	unsigned char in_core[FILE_PAGES];
	void *p = mmap(NULL, sizeof(f->scratch), PROT_READ, MAP_SHARED, f->files[file].fd, 0);
	size_t n = 0;

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mincore(p, sizeof(f->scratch), in_core), 0);
	for (size_t i = 0; i < FILE_PAGES; i++)
		n += in_core[i] & 1;
	munmap(p, sizeof(f->scratch));
	return n;
}

/* Also what the kernel has just begun to read ahead. */
static inline void evict(struct fixture *f, unsigned file)
{
	for (int tries = 0; tries < 5000; tries++) {
		assert_int_equal(posix_fadvise(f->files[file].fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		if (!cached_pages(f, file))
			return;
		usleep(1000);
	}
	fail_msg("the pages of a file in %s never leave the page cache", f->dir);
}

/*
 * Evicts the file, then fetches. A look into the cache makes the kernel read, and a fast disk may
 * have done it before the look is over; then once more.
 */
static inline int fetch_cold(struct fixture *f, unsigned file, uint64_t page, uint64_t npages)
{
	int ret = 0;

	for (int tries = 0; !ret && tries < 200; tries++) {
		evict(f, file);
		ret = fetch(f, file, page, npages);
	}
	return ret;
}

/* Waits until @event_fd has been written, and returns what was. */
static inline uint64_t woken(int event_fd)
{
	struct pollfd p = {.fd = event_fd, .events = POLLIN};
	uint64_t count = 0;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(event_fd, &count, sizeof(count)), sizeof(count));
	return count;
}

static inline void assert_not_woken(int event_fd)
{
	struct pollfd p = {.fd = event_fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 50), 0);
}

#define source_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
