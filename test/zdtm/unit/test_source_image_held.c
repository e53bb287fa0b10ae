// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The image source while its reads take long: who goes first, when the queue is full, what a failed
 * read means, how it closes. Reads are held up, in a known order, by fanotify, which asks before
 * each of them.
 */
#include "image_files.h"

#include <stdatomic.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		source_test(urgent_requests_go_before_bulk_ones_in_order),
		source_test(nobody_is_woken_before_the_read_is_over),
		source_test(a_full_queue_is_busy_and_the_other_is_not),
		source_test(a_failed_read_is_remembered_for_its_pages),
		source_test(close_waits_for_reads_and_drops_what_is_queued),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
