// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bytes out of image files: at once when they are in the page cache, later and with a wake when
 * they are not. Reads are held up, in a known order, by fanotify, which asks before each of them.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

static void file_path(const struct fixture *f, unsigned i, char *path)
{
	sprintf(path, "%s/pages-%u.img", f->dir, i);
}

/* What byte @offset of file @i holds. */
static unsigned char byte_of(unsigned i, uint64_t offset)
{
	return (unsigned char)((offset >> PAGE_SHIFT) * 7 + offset + i * 31 + 1);
}

static void file_open(struct fixture *f, unsigned i)
{
	char path[128];

	file_path(f, i, path);
	if (f->files[i].fd > 0)
		close(f->files[i].fd);
	f->files[i].fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	f->files[i].npages = FILE_PAGES;
	assert_true(f->files[i].fd >= 0);
}

static int setup(void **state)
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

static int teardown(void **state)
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

static int fetch(struct fixture *f, unsigned file, uint64_t page, uint64_t npages)
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

static size_t cached_pages(struct fixture *f, unsigned file)
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
static void evict(struct fixture *f, unsigned file)
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
static int fetch_cold(struct fixture *f, unsigned file, uint64_t page, uint64_t npages)
{
	int ret = 0;

	for (int tries = 0; !ret && tries < 200; tries++) {
		evict(f, file);
		ret = fetch(f, file, page, npages);
	}
	return ret;
}

/* Waits until @event_fd has been written, and returns what was. */
static uint64_t woken(int event_fd)
{
	struct pollfd p = {.fd = event_fd, .events = POLLIN};
	uint64_t count = 0;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(event_fd, &count, sizeof(count)), sizeof(count));
	return count;
}

static void assert_not_woken(int event_fd)
{
	struct pollfd p = {.fd = event_fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 50), 0);
}

static void cached_pages_are_there_at_once(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < FILES; i++) {
		assert_int_equal(fetch(f, i, 0, FILE_PAGES), 0);
		assert_int_equal(fetch(f, i, 13, 1), 0);
		assert_int_equal(fetch(f, i, FILE_PAGES - 2, 2), 0);
	}
	assert_not_woken(f->event_fd);
}

/* One page is cold in a fetch of many: none of it counts. */
static void cold_pages_are_wanted_and_then_there(void **state)
{
	struct fixture *f = *state;

	for (int urgent = 0; urgent <= 1; urgent++) {
		unsigned file = (unsigned)urgent;
		uint64_t began = cpu_ns();

		assert_int_equal(fetch_cold(f, file, 0, FILE_PAGES), -EAGAIN);
		assert_true(cpu_ns() - began < 100000000u * SLOWNESS);
		assert_int_equal(source_want(f->s, WHERE(file, 0), FILE_PAGES, urgent, f->event_fd),
				 0);
		assert_int_equal(woken(f->event_fd), 1);
		assert_int_equal(fetch(f, file, 0, FILE_PAGES), 0);
	}
}

static void each_request_wakes_its_own_asker(void **state)
{
	struct fixture *f = *state;
	int other = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(source_want(f->s, WHERE(i % FILES, i), 1, i & 1,
					     i < 7 ? f->event_fd : other),
				 0);
	for (uint64_t n = 0; n < 7;)
		n += woken(f->event_fd);
	for (uint64_t n = 0; n < 3;)
		n += woken(other);
	assert_not_woken(f->event_fd);
	assert_not_woken(other);
	close(other);
}

/* Nobody can wait for an asker who has not looked for a long time. */
static void a_full_eventfd_holds_up_nobody(void **state)
{
	struct fixture *f = *state;
	int full = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t most = UINT64_MAX - 1;

	assert_int_equal(write(full, &most, sizeof(most)), sizeof(most));
	for (int i = 0; i < 4; i++)
		assert_int_equal(source_want(f->s, WHERE(0, 0), 1, true, full), 0);
	assert_int_equal(source_want(f->s, WHERE(0, 0), 1, true, f->event_fd), 0);
	assert_int_equal(woken(f->event_fd), 1);
	close(full);
}

static void a_truncated_file_has_no_data(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fetch(f, 0, FILE_PAGES, 1), -ENODATA);
	/* in the middle of page 9 */
	assert_int_equal(ftruncate(f->files[0].fd, 9 * PAGE_SIZE + 100), 0);
	assert_int_equal(fetch(f, 0, 0, 9), 0);
	assert_int_equal(fetch(f, 0, 9, 1), -ENODATA);
	assert_int_equal(fetch(f, 0, 5, 10), -ENODATA);
	assert_int_equal(fetch(f, 0, 40, 1), -ENODATA);
	/* to be wanted does no harm: the asker is woken, tries again and is told */
	assert_int_equal(source_want(f->s, WHERE(0, 40), 4, true, f->event_fd), 0);
	assert_int_equal(woken(f->event_fd), 1);
	assert_int_equal(fetch(f, 0, 40, 4), -ENODATA);
	assert_int_equal(fetch(f, 0, 0, 9), 0);
	assert_int_equal(fetch(f, 1, 40, 4), 0);
}

/* Linux has no such thing as a look into the cache for /proc. */
static void a_file_that_cannot_be_asked_is_read_plainly(void **state)
{
	struct fixture *f = *state;
	const void *bytes;
	char *p = mmap(NULL, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	close(f->files[0].fd);
	f->files[0].fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	memset(p, 'p', 3 * PAGE_SIZE);
	assert_int_equal(
		source_fetch(f->s, WHERE(0, (uint64_t)p / PAGE_SIZE), 3, f->scratch, &bytes), 0);
	assert_memory_equal(bytes, p, 3 * PAGE_SIZE);
	/* from then on, all files */
	evict(f, 1);
	assert_int_equal(fetch(f, 1, 0, FILE_PAGES), 0);
	munmap(p, 3 * PAGE_SIZE);
}

static void a_read_error_is_an_error(void **state)
{
	struct fixture *f = *state;

	close(f->files[0].fd);
	f->files[0].fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fetch(f, 0, 0, 1), -EISDIR);
}

/* From here on: files whose reads wait until the test lets them go. */

static int hold(struct fixture *f)
{
	int fan = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY);
	char path[128];

	if (fan < 0) {
		print_message("skipped: fanotify_init: %s\n", strerror(errno));
		skip();
	}
	for (unsigned i = 0; i < FILES; i++) {
		file_path(f, i, path);
		assert_int_equal(fanotify_mark(fan, FAN_MARK_ADD, FAN_ACCESS_PERM, AT_FDCWD, path),
				 0);
		file_open(f, i); /* only what is opened from now on is asked about */
	}
	return fan;
}

/* A read that is held up. Returns the number of its file. */
static unsigned held_read(struct fixture *f, int fan, int *fd)
{
	struct pollfd p = {.fd = fan, .events = POLLIN};
	struct fanotify_event_metadata m;
	struct stat a, b;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(fan, &m, sizeof(m)), sizeof(m));
	assert_true(m.mask & FAN_ACCESS_PERM);
	assert_int_equal(fstat(m.fd, &a), 0);
	for (unsigned i = 0; i < FILES; i++) {
		assert_int_equal(fstat(f->files[i].fd, &b), 0);
		if (a.st_ino == b.st_ino) {
			*fd = m.fd;
			return i;
		}
	}
	fail_msg("a read of another file");
	return 0;
}

static void let_go(int fan, int fd, uint32_t answer)
{
	struct fanotify_response r = {.fd = fd, .response = answer};

	assert_int_equal(write(fan, &r, sizeof(r)), sizeof(r));
	close(fd);
}

static void assert_no_read(int fan)
{
	assert_not_woken(fan);
}

static void want(struct fixture *f, unsigned file, bool urgent)
{
	assert_int_equal(source_want(f->s, WHERE(file, 0), 1, urgent, f->event_fd), 0);
}

static void urgent_requests_go_before_bulk_ones_in_order(void **state)
{
	static const unsigned order[] = {6, 7, 2, 3, 4, 5};
	struct fixture *f = *state;
	int fan = hold(f), busy[2], fd;
	unsigned a, b;

	/* two threads are kept busy */
	want(f, 0, false);
	want(f, 1, false);
	a = held_read(f, fan, &busy[0]);
	b = held_read(f, fan, &busy[1]);
	assert_int_equal(a + b, 1);
	for (unsigned i = 2; i < 6; i++)
		want(f, i, false);
	want(f, 6, true);
	want(f, 7, true);
	assert_no_read(fan); /* two at a time */
	let_go(fan, busy[0], FAN_ALLOW);
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		assert_int_equal(held_read(f, fan, &fd), order[i]);
		let_go(fan, fd, FAN_ALLOW);
	}
	let_go(fan, busy[1], FAN_ALLOW);
	for (uint64_t n = 0; n < 8;)
		n += woken(f->event_fd);
	close(fan);
}

/* An asker is woken when its own pages are there, not when somebody else's are. */
static void nobody_is_woken_before_the_read_is_over(void **state)
{
	struct fixture *f = *state;
	int fan = hold(f), other = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), fd, second;

	want(f, 0, true);
	assert_int_equal(held_read(f, fan, &fd), 0);
	assert_int_equal(source_want(f->s, WHERE(1, 0), 1, true, other), 0);
	assert_int_equal(held_read(f, fan, &second), 1);
	let_go(fan, second, FAN_ALLOW);
	assert_int_equal(woken(other), 1);
	assert_not_woken(f->event_fd);
	let_go(fan, fd, FAN_ALLOW);
	assert_int_equal(woken(f->event_fd), 1);
	close(other);
	close(fan);
}

static void a_full_queue_is_busy_and_the_other_is_not(void **state)
{
	struct fixture *f = *state;
	uint64_t accepted = 2, n = 0;
	int fan = hold(f), fd[2], ret;

	want(f, 0, true);
	want(f, 1, true);
	held_read(f, fan, &fd[0]);
	held_read(f, fan, &fd[1]);
	while (!(ret = source_want(f->s, WHERE(2, 0), 1, false, f->event_fd)))
		assert_true(++accepted < 100000);
	assert_int_equal(ret, -EBUSY);
	assert_true(accepted >= 2 + 64);
	assert_int_equal(source_want(f->s, WHERE(2, 0), 1, false, f->event_fd), -EBUSY);
	want(f, 3, true);
	accepted++;
	/* All that were taken are served, and then there is room again. */
	let_go(fan, fd[0], FAN_ALLOW);
	let_go(fan, fd[1], FAN_ALLOW);
	close(fan); /* reads are not held up any more */
	while (n < accepted)
		n += woken(f->event_fd);
	assert_int_equal(n, accepted);
	want(f, 2, false);
	assert_int_equal(woken(f->event_fd), 1);
	assert_not_woken(f->event_fd);
}

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The read of pages 8 to 11 fails. Returns when that was, or just before. */
static uint64_t fail_read(struct fixture *f)
{
	int fan = hold(f), fd;
	uint64_t when = monotonic_ns();

	assert_int_equal(source_want(f->s, WHERE(0, 8), 4, true, f->event_fd), 0);
	assert_int_equal(held_read(f, fan, &fd), 0);
	let_go(fan, fd, FAN_DENY);
	assert_int_equal(woken(f->event_fd), 1);
	close(fan);
	return when;
}

/* What could not be read is not "try again" for ever: it is said, for a second, of those pages. */
static void a_failed_read_is_remembered_for_its_pages(void **state)
{
	static const struct {
		unsigned file;
		uint64_t page, npages;
		int ret;
	} looks[] = {{0, 8, 4, -EPERM},	 {0, 11, 2, -EPERM},  {0, 7, 2, -EPERM},
		     {0, 0, 8, -EAGAIN}, {0, 12, 4, -EAGAIN}, {1, 8, 4, -EAGAIN}};
	struct fixture *f = *state;
	size_t known = 0;
	int ret;

	/* On a busy machine the second may be over before all has been looked at. */
	for (int tries = 0; known < ARRAY_SIZE(looks) && tries < 50; tries++) {
		uint64_t when = fail_read(f);

		ret = fetch_cold(f, looks[known].file, looks[known].page, looks[known].npages);
		if (monotonic_ns() - when > 900000000)
			continue;
		assert_int_equal(ret, looks[known].ret);
		known++;
	}
	assert_int_equal(known, ARRAY_SIZE(looks));
	/* Then it is worth another try. */
	fail_read(f);
	for (int tries = 0; tries < 500; tries++) {
		ret = fetch_cold(f, 0, 8, 4);
		if (ret != -EPERM)
			break;
		usleep(20000);
	}
	assert_int_equal(ret, -EAGAIN);
	assert_int_equal(source_want(f->s, WHERE(0, 8), 4, true, f->event_fd), 0);
	assert_int_equal(woken(f->event_fd), 1);
	assert_int_equal(fetch(f, 0, 8, 4), 0);
}

struct closer {
	struct source *s;
	atomic_bool closed;
};

static void *close_source(void *arg)
{
	struct closer *c = arg;

	source_close(c->s);
	atomic_store(&c->closed, true);
	return NULL;
}

static void close_waits_for_reads_and_drops_what_is_queued(void **state)
{
	struct fixture *f = *state;
	struct closer c = {.s = f->s};
	int fan = hold(f), fd[2];
	pthread_t t;

	want(f, 0, true);
	want(f, 1, true);
	held_read(f, fan, &fd[0]);
	held_read(f, fan, &fd[1]);
	for (int i = 0; i < 100; i++)
		want(f, 2, i & 1);
	assert_int_equal(pthread_create(&t, NULL, close_source, &c), 0);
	assert_no_read(fan); /* and some time goes by */
	assert_false(atomic_load(&c.closed));
	let_go(fan, fd[0], FAN_ALLOW);
	assert_no_read(fan);
	assert_false(atomic_load(&c.closed));
	let_go(fan, fd[1], FAN_ALLOW);
	pthread_join(t, NULL);
	assert_no_read(fan);
	assert_int_equal(woken(f->event_fd), 2);
	f->s = NULL;
	close(fan);
}

static void a_source_nobody_has_used_closes(void **state)
{
	struct fixture *f = *state;

	source_close(f->s);
	f->s = NULL;
	source_close(NULL);
}

struct asker {
	struct fixture *f;
	struct random r;
	unsigned waited, right;
};

#define QUESTIONS 300

/* Fetch, want, sleep, fetch. Returns what the last fetch did. */
static int ask_once(struct asker *a, uint64_t where, uint64_t n, void *scratch, int event_fd)
{
	struct pollfd p = {.fd = event_fd, .events = POLLIN};
	const void *bytes;
	uint64_t count;
	int ret;

	while ((ret = source_fetch(a->f->s, where, n, scratch, &bytes)) == -EAGAIN) {
		if (source_want(a->f->s, where, n, random_one_in(&a->r, 2), event_fd) ||
		    poll(&p, 1, WAIT_MS) != 1 || read(event_fd, &count, sizeof(count)) < 0)
			return -EIO;
		a->waited++;
	}
	for (uint64_t k = 0; !ret && k < n * PAGE_SIZE; k += 61)
		if (((const unsigned char *)bytes)[k] !=
		    byte_of(WHERE_FILE(where), WHERE_PAGE(where) * PAGE_SIZE + k))
			ret = -EILSEQ;
	return ret;
}

/* As an owner thread does it. */
static void *ask(void *arg)
{
	struct asker *a = arg;
	int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	char *scratch = malloc(16 * PAGE_SIZE);

	for (int i = 0; i < QUESTIONS; i++) {
		unsigned file = (unsigned)random_below(&a->r, FILES);
		uint64_t n = 1 + random_below(&a->r, 16);
		uint64_t page = random_below(&a->r, FILE_PAGES - n + 1);

		if (random_one_in(&a->r, 4))
			posix_fadvise(a->f->files[file].fd, 0, 0, POSIX_FADV_DONTNEED);
		a->right += !ask_once(a, WHERE(file, page), n, scratch, event_fd);
	}
	free(scratch);
	close(event_fd);
	return NULL;
}

static void many_askers_get_their_own_bytes(void **state)
{
	struct asker a[4];
	pthread_t t[4];
	unsigned waited = 0;

	for (unsigned i = 0; i < 4; i++) {
		a[i] = (struct asker){.f = *state, .r = random_from(23, i)};
		assert_int_equal(pthread_create(&t[i], NULL, ask, &a[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(a[i].right, QUESTIONS);
		waited += a[i].waited;
	}
	assert_true(waited > 0);
}

#define source_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		source_test(cached_pages_are_there_at_once),
		source_test(cold_pages_are_wanted_and_then_there),
		source_test(each_request_wakes_its_own_asker),
		source_test(a_full_eventfd_holds_up_nobody),
		source_test(a_truncated_file_has_no_data),
		source_test(a_file_that_cannot_be_asked_is_read_plainly),
		source_test(a_read_error_is_an_error),
		source_test(urgent_requests_go_before_bulk_ones_in_order),
		source_test(nobody_is_woken_before_the_read_is_over),
		source_test(a_full_queue_is_busy_and_the_other_is_not),
		source_test(a_failed_read_is_remembered_for_its_pages),
		source_test(close_waits_for_reads_and_drops_what_is_queued),
		source_test(a_source_nobody_has_used_closes),
		source_test(many_askers_get_their_own_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
