// SPDX-License-Identifier: GPL-2.0-or-later
/* Bytes out of image files: at once when they are in the page cache, later and with a wake when
 * they are not, and an error when they cannot be had. */
#include "image_files.h"

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
		source_test(a_source_nobody_has_used_closes),
		source_test(many_askers_get_their_own_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
