// SPDX-License-Identifier: GPL-2.0-or-later
/* Each errno that the kernel gives for COPY and ZEROPAGE, made to happen, becomes its outcome. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "compiler.h"
#include "place.h"

#define PAGES 8

static char bytes[PAGES * PAGE_SIZE] __attribute__((aligned(4096)));

static int open_uffd_with(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	return fd;
}

static int open_uffd(void)
{
	return open_uffd_with(0);
}

static char *armed(int fd, size_t pages)
{
	char *p = mmap(NULL, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	struct uffdio_register r = {.range = {(uint64_t)p, pages * PAGE_SIZE},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(ioctl(fd, UFFDIO_REGISTER, &r), 0);
	return p;
}

static void assert_outcome(struct placed p, enum place outcome, int err, uint64_t bytes_done)
{
	assert_int_equal(p.outcome, outcome);
	assert_int_equal(p.err, err);
	assert_int_equal(p.bytes, bytes_done);
}

static void copy_and_zero_place_all_bytes(void **state)
{
	int fd = open_uffd();
	char *p = armed(fd, PAGES);

	(void)state;
	memset(bytes, 7, sizeof(bytes));
	assert_outcome(place_copy(fd, (uint64_t)p, bytes, 4 * PAGE_SIZE), PLACE_DONE, 0,
		       4 * PAGE_SIZE);
	assert_outcome(place_zero(fd, (uint64_t)p + 4 * PAGE_SIZE, 4 * PAGE_SIZE), PLACE_DONE, 0,
		       4 * PAGE_SIZE);
	assert_int_equal(p[0], 7);
	assert_int_equal(p[4 * PAGE_SIZE - 1], 7);
	assert_int_equal(p[4 * PAGE_SIZE], 0);
	assert_int_equal(p[8 * PAGE_SIZE - 1], 0);
	munmap(p, PAGES * PAGE_SIZE);
	close(fd);
}

static void eexist_is_exists(void **state)
{
	int fd = open_uffd();
	char *p = armed(fd, PAGES);

	(void)state;
	place_copy(fd, (uint64_t)p, bytes, PAGE_SIZE);
	assert_outcome(place_copy(fd, (uint64_t)p, bytes, PAGE_SIZE), PLACE_EXISTS, EEXIST, 0);
	assert_outcome(place_zero(fd, (uint64_t)p, PAGE_SIZE), PLACE_EXISTS, EEXIST, 0);
	munmap(p, PAGES * PAGE_SIZE);
	close(fd);
}

static void a_page_in_the_way_ends_a_copy_early(void **state)
{
	int fd = open_uffd();
	char *p = armed(fd, PAGES);

	(void)state;
	place_copy(fd, (uint64_t)p + 3 * PAGE_SIZE, bytes, PAGE_SIZE);
	assert_outcome(place_copy(fd, (uint64_t)p, bytes, PAGES * PAGE_SIZE), PLACE_DONE, 0,
		       3 * PAGE_SIZE);
	munmap(p, PAGES * PAGE_SIZE);
	close(fd);
}

static void enoent_is_no_mapping(void **state)
{
	int fd = open_uffd();
	char *p = armed(fd, PAGES);
	char *plain = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_outcome(place_copy(fd, (uint64_t)plain, bytes, PAGE_SIZE), PLACE_NO_MAPPING, ENOENT,
		       0);
	/* past the end of the mapping: refused whole */
	assert_outcome(place_copy(fd, (uint64_t)p + 7 * PAGE_SIZE, bytes, 2 * PAGE_SIZE),
		       PLACE_NO_MAPPING, ENOENT, 0);
	munmap(plain, PAGE_SIZE);
	munmap(p, PAGES * PAGE_SIZE);
	close(fd);
}

static void einval_is_no_mapping(void **state)
{
	int fd = open_uffd();

	(void)state;
	assert_outcome(place_copy(fd, 12345, bytes, PAGE_SIZE), PLACE_NO_MAPPING, EINVAL, 0);
	close(fd);
}

static void efault_is_bad_source(void **state)
{
	int fd = open_uffd();
	char *p = armed(fd, PAGES);
	char *hole = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_outcome(place_copy(fd, (uint64_t)p, hole, PAGE_SIZE), PLACE_BAD_SOURCE, EFAULT, 0);
	munmap(hole, PAGE_SIZE);
	munmap(p, PAGES * PAGE_SIZE);
	close(fd);
}

struct unmapper {
	char *p;
};

static void *unmap(void *arg)
{
	struct unmapper *u = arg;

	munmap(u->p, PAGE_SIZE);
	return NULL;
}

static void eagain_while_an_event_is_unread(void **state)
{
	int fd = open_uffd_with(UFFD_FEATURE_EVENT_UNMAP);
	char *p = armed(fd, PAGES);
	struct unmapper u = {.p = p + 7 * PAGE_SIZE};
	struct placed placed;
	struct uffd_msg m;
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, unmap, &u), 0);
	do {
		placed = place_copy(fd, (uint64_t)p, bytes, PAGE_SIZE);
		usleep(1000);
	} while (placed.outcome == PLACE_DONE || placed.outcome == PLACE_EXISTS);
	assert_outcome(placed, PLACE_AGAIN, EAGAIN, 0);
	assert_int_equal(read(fd, &m, sizeof(m)), sizeof(m));
	assert_int_equal(m.event, UFFD_EVENT_UNMAP);
	pthread_join(t, NULL);
	assert_outcome(place_copy(fd, (uint64_t)p + PAGE_SIZE, bytes, PAGE_SIZE), PLACE_DONE, 0,
		       PAGE_SIZE);
	close(fd); /* first: with events on, munmap() waits for a reader */
	munmap(p, 7 * PAGE_SIZE);
}

/* A descriptor of a process that is gone, as it reaches a manager: over a socket. */
static int uffd_of_the_dead(uint64_t *addr)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec v = {addr, sizeof(*addr)};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int sk[2], fd;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sk), 0);
	pid = fork();
	if (!pid) {
		fd = open_uffd();
		*addr = (uint64_t)armed(fd, PAGES);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		_exit(sendmsg(sk[0], &m, 0) < 0);
	}
	assert_int_equal(recvmsg(sk[1], &m, 0), sizeof(*addr));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(sk[0]);
	close(sk[1]);
	return fd;
}

static void esrch_is_gone(void **state)
{
	uint64_t addr;
	int fd = uffd_of_the_dead(&addr);

	(void)state;
	assert_outcome(place_copy(fd, addr, bytes, PAGE_SIZE), PLACE_GONE, ESRCH, 0);
	assert_outcome(place_zero(fd, addr, PAGE_SIZE), PLACE_GONE, ESRCH, 0);
	close(fd);
}

static void another_errno_is_failed(void **state)
{
	(void)state;
	assert_outcome(place_copy(-1, 4096, bytes, PAGE_SIZE), PLACE_FAILED, EBADF, 0);
}

static void wake_all_takes_every_address(void **state)
{
	int fd = open_uffd();

	(void)state;
	assert_int_equal(place_wake_all(fd), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copy_and_zero_place_all_bytes),
		cmocka_unit_test(eexist_is_exists),
		cmocka_unit_test(a_page_in_the_way_ends_a_copy_early),
		cmocka_unit_test(enoent_is_no_mapping),
		cmocka_unit_test(einval_is_no_mapping),
		cmocka_unit_test(efault_is_bad_source),
		cmocka_unit_test(eagain_while_an_event_is_unread),
		cmocka_unit_test(esrch_is_gone),
		cmocka_unit_test(another_errno_is_failed),
		cmocka_unit_test(wake_all_takes_every_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
