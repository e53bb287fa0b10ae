// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * io_uring on owed memory, set up after the restore because CRIU dumps no rings: buffers that are
 * registered (and pinned) while owed, then read into and written from; and a read that a kernel
 * thread does.
 */
#include <linux/io_uring.h>
#include <sys/uio.h>

#include "lazytest.h"

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void ring_open(struct ring *r)
{
	struct io_uring_params p = {0};
	char *sq, *cq;

	r->fd = (int)syscall(SYS_io_uring_setup, 8, &p);
	if (r->fd < 0 && (errno == EPERM || errno == ENOSYS))
		test_skip("this kernel does not allow io_uring");
	must(r->fd >= 0);
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	must(sq != MAP_FAILED && cq != MAP_FAILED && (void *)r->sqes != MAP_FAILED);
	r->sq_tail = (unsigned *)(void *)(sq + p.sq_off.tail);
	r->sq_mask = (unsigned *)(void *)(sq + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(void *)(sq + p.sq_off.array);
	r->cq_head = (unsigned *)(void *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(void *)(cq + p.cq_off.tail);
	r->cq_mask = (unsigned *)(void *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(void *)(cq + p.cq_off.cqes);
}

/* One request, and its result. */
static int ring_do(struct ring *r, const struct io_uring_sqe *sqe)
{
	unsigned tail = *r->sq_tail, at = tail & *r->sq_mask;
	int result;

	r->sqes[at] = *sqe;
	r->sq_array[at] = at;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	must(syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == *r->cq_head)
		syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	result = r->cqes[*r->cq_head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	return result;
}

static struct io_uring_sqe request(unsigned char op, int fd, void *p, size_t bytes)
{
	return (struct io_uring_sqe){
		.opcode = op, .fd = fd, .addr = (uint64_t)(uintptr_t)p, .len = (unsigned)bytes};
}

int main(int argc, char **argv)
{
	const size_t bytes = 2 * MIB;
	char *fixed, *plain, *map;
	struct io_uring_sqe sqe;
	struct iovec v;
	struct ring r;
	int fd;

	test_init(argc, argv);
	fixed = pages_map(bytes);
	pages_map_flags(PAGE, PROT_NONE, 0);
	plain = pages_map(bytes);
	pages_fill(fixed, bytes, page_key(fixed));
	pages_fill(plain, bytes, page_key(plain));

	test_ready();

	fd = open("io", O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && !ftruncate(fd, (off_t)bytes));
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(map != MAP_FAILED);
	ring_open(&r);

	pages_must_be_owed("registered buffer", fixed, bytes);
	v = (struct iovec){fixed, bytes};
	must(!syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &v, 1));

	sqe = request(IORING_OP_WRITE_FIXED, fd, fixed, bytes);
	must(ring_do(&r, &sqe) == (int)bytes);
	pages_check("written from the registered buffer", map, bytes, page_key(fixed));

	/* Into the first half of a page that has been pinned while it was owed. */
	pages_fill(map, bytes, 5000);
	sqe = request(IORING_OP_READ_FIXED, fd, fixed + PAGE, PAGE / 2);
	must(ring_do(&r, &sqe) == PAGE / 2);
	pages_check("read into the registered buffer", fixed + PAGE, PAGE / 2, 5000);
	must(*(uint64_t *)(void *)(fixed + PAGE + PAGE / 2) ==
	     page_word(page_key(fixed + PAGE), 256));
	pages_check("rest of the registered buffer", fixed + 2 * PAGE, bytes - 2 * PAGE,
		    page_key(fixed + 2 * PAGE));

	pages_must_be_owed("plain buffer", plain, bytes);
	sqe = request(IORING_OP_READ, fd, plain + PAGE, PAGE / 2);
	sqe.flags = IOSQE_ASYNC;
	must(ring_do(&r, &sqe) == PAGE / 2);
	pages_check("read by a kernel thread", plain + PAGE, PAGE / 2, 5000);
	must(*(uint64_t *)(void *)(plain + PAGE + PAGE / 2) ==
	     page_word(page_key(plain + PAGE), 256));
	sqe = request(IORING_OP_WRITE, fd, plain + 2 * PAGE, bytes - 2 * PAGE);
	sqe.flags = IOSQE_ASYNC;
	must(ring_do(&r, &sqe) == (int)(bytes - 2 * PAGE));
	pages_check("written by a kernel thread", map, bytes - 2 * PAGE,
		    page_key(plain + 2 * PAGE));
	test_pass();
}
