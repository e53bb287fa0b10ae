// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the kernel can do at most: UFFDIO_COPY into the empty area of another process, and nothing
 * else. Arguments: FILE MIB THREADS PIECE_KIB. FILE is mapped and copied from, out of the page
 * cache; "-" copies one buffer of PIECE_KIB again and again, which stays in the CPU's caches.
 * The threads take pieces in turn. Prints the nanoseconds it took; then every byte is compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576UL

struct loop {
	const char *source;
	char *area; /* the same address in both processes */
	uint64_t bytes, piece;
	bool from_file;
	int uffd;
	atomic_ulong next;
	pthread_barrier_t start;
};

#define must(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "bench_copyloop:%d: %s: %s\n", __LINE__, #condition, \
				strerror(errno)); \
			exit(1); \
		} \
	} while (0)

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static const char *piece_source(const struct loop *l, uint64_t at)
{
	return l->source + (l->from_file ? at : 0);
}

static void *copy_thread(void *arg)
{
	struct loop *l = arg;
	uint64_t at;

	pthread_barrier_wait(&l->start);
	while ((at = atomic_fetch_add(&l->next, l->piece)) < l->bytes) {
		struct uffdio_copy c = {
			.dst = (uintptr_t)(l->area + at),
			.src = (uintptr_t)piece_source(l, at),
			.len = l->piece,
		};

		must(!ioctl(l->uffd, UFFDIO_COPY, &c));
	}
	return NULL;
}

/* The process that has the area: arms it, hands the descriptor over, and compares when told. */
static _Noreturn void target(struct loop *l, int fd)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {
		.range = {(uintptr_t)l->area, l->bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec v = {&byte, 1};
	struct msghdr m = {
		.msg_iov = &v,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	l->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	must(l->uffd >= 0 && !ioctl(l->uffd, UFFDIO_API, &api));
	must(!ioctl(l->uffd, UFFDIO_REGISTER, &reg));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &l->uffd, sizeof(int));
	must(sendmsg(fd, &m, 0) == 1);
	must(read(fd, &byte, 1) == 1);
	for (uint64_t at = 0; at < l->bytes; at += l->piece)
		must(!memcmp(l->area + at, piece_source(l, at), l->piece));
	exit(0);
}

static int receive_uffd(int fd)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&byte, 1};
	struct msghdr m = {
		.msg_iov = &v,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int uffd;

	must(recvmsg(fd, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m));
	memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(uffd));
	return uffd;
}

static void source_open(struct loop *l, const char *path)
{
	uint64_t bytes = l->from_file ? l->bytes : l->piece;
	int fd = l->from_file ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p;

	if (l->from_file) {
		must(fd >= 0);
		p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	} else {
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	must(p != MAP_FAILED);
	if (!l->from_file)
		memset(p, 0xa5, bytes);
	must(!madvise(p, bytes, MADV_POPULATE_READ));
	l->source = p;
}

int main(int argc, char **argv)
{
	struct loop l = {0};
	pthread_t thread[64];
	uint64_t began, took;
	int nthreads, pair[2], status;
	pid_t pid;

	must(argc == 5);
	l.from_file = strcmp(argv[1], "-");
	l.bytes = strtoull(argv[2], NULL, 0) * MIB;
	nthreads = atoi(argv[3]);
	l.piece = strtoull(argv[4], NULL, 0) * 1024;
	must(l.piece && l.bytes % l.piece == 0 && nthreads > 0 && nthreads <= 64);
	l.area = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(l.area != MAP_FAILED && !madvise(l.area, l.bytes, MADV_NOHUGEPAGE));
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	source_open(&l, argv[1]);
	pid = fork();
	must(pid >= 0);
	if (!pid)
		target(&l, pair[1]);
	l.uffd = receive_uffd(pair[0]);

	must(!pthread_barrier_init(&l.start, NULL, (unsigned)nthreads + 1));
	for (int i = 0; i < nthreads; i++)
		must(!pthread_create(&thread[i], NULL, copy_thread, &l));
	pthread_barrier_wait(&l.start);
	began = clock_ns();
	for (int i = 0; i < nthreads; i++)
		pthread_join(thread[i], NULL);
	took = clock_ns() - began;

	must(write(pair[0], "", 1) == 1);
	must(waitpid(pid, &status, 0) == pid && !status);
	printf("%lu\n", took);
	return 0;
}
