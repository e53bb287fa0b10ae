// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a path carries, for scripts/bench, without any memory manager at either end:
 *
 *	serve ADDR PORT FILE	sends bytes of FILE with sendfile() to whoever asks; prints the port
 *	ping ADDR PORT COUNT	asks for 4 KiB again and again; prints each round trip
 *	pull ADDR PORT MIB	asks for all of that at once and receives it into one buffer
 *	place ADDR PORT MIB	the same; a second thread places what has come with UFFDIO_COPY
 *
 * Times are nanoseconds from the question to the last byte.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ANSWER 4096UL
#define BUFFER (1UL << 20)
#define PIECE  (256L << 10)
#define PIECES 8

struct question {
	uint64_t offset, length;
	uint64_t as_long_as_a_header[2];
};

struct guest {
	int fd, file;
};

struct placing {
	uint64_t bytes;
	char *area;
	int uffd;
	sem_t empty, full; /* pieces */
	char piece[PIECES][PIECE];
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *guest_serve(void *arg)
{
	struct guest *g = arg;
	struct question q;

	while (recv(g->fd, &q, sizeof(q), MSG_WAITALL) == sizeof(q)) {
		off_t at = (off_t)q.offset;

		while (at < (off_t)(q.offset + q.length) &&
		       sendfile(g->fd, g->file, &at, q.offset + q.length - (uint64_t)at) > 0)
			;
	}
	close(g->fd);
	free(g);
	return NULL;
}

static void serve(struct sockaddr_in *at, const char *path)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), file = open(path, O_RDONLY), one = 1;
	socklen_t len = sizeof(*at);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (file < 0 || bind(fd, (struct sockaddr *)at, len) || listen(fd, 8) ||
	    getsockname(fd, (struct sockaddr *)at, &len))
		die(path);
	printf("%d\n", ntohs(at->sin_port));
	fflush(stdout);
	for (;;) {
		struct guest *g = malloc(sizeof(*g));
		pthread_t thread;

		if (!g)
			die("malloc");
		*g = (struct guest){accept(fd, NULL, NULL), file};
		if (g->fd < 0)
			die("accept");
		setsockopt(g->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&thread, NULL, guest_serve, g))
			die("pthread_create");
		pthread_detach(thread);
	}
}

static int reach(const struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || connect(fd, (const struct sockaddr *)at, sizeof(*at)))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void ask(int fd, uint64_t offset, uint64_t length)
{
	struct question q = {.offset = offset, .length = length};

	if (send(fd, &q, sizeof(q), MSG_NOSIGNAL) != sizeof(q))
		die("send");
}

static void ping(int fd, unsigned long count)
{
	char answer[ANSWER];

	for (unsigned long i = 0; i < count; i++) {
		uint64_t began = clock_ns();

		ask(fd, i % 16 * ANSWER, ANSWER);
		if (recv(fd, answer, ANSWER, MSG_WAITALL) != ANSWER)
			die("recv");
		printf("%lu\n", clock_ns() - began);
	}
}

/* What is not placed ends in the one buffer, which stays hot. */
static void pull(int fd, uint64_t bytes)
{
	char *buffer = malloc(BUFFER);
	uint64_t began = clock_ns(), got = 0;
	ssize_t n;

	if (!buffer)
		die("malloc");
	ask(fd, 0, bytes);
	while (got < bytes) {
		n = recv(fd, buffer, bytes - got < BUFFER ? bytes - got : BUFFER, 0);
		if (n <= 0)
			die("recv");
		got += (uint64_t)n;
	}
	printf("%lu\n", clock_ns() - began);
}

static void *place_thread(void *arg)
{
	struct placing *p = arg;

	for (uint64_t at = 0; at < p->bytes; at += PIECE) {
		struct uffdio_copy c = {
			.dst = (uintptr_t)(p->area + at),
			.src = (uintptr_t)p->piece[at / PIECE % PIECES],
			.len = PIECE,
		};

		sem_wait(&p->full);
		if (ioctl(p->uffd, UFFDIO_COPY, &c))
			die("UFFDIO_COPY");
		sem_post(&p->empty);
	}
	return NULL;
}

static void placing_start(struct placing *p)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	p->area = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	reg.range = (struct uffdio_range){(uintptr_t)p->area, p->bytes};
	if (p->area == MAP_FAILED || madvise(p->area, p->bytes, MADV_NOHUGEPAGE) || p->uffd < 0 ||
	    ioctl(p->uffd, UFFDIO_API, &api) || ioctl(p->uffd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	sem_init(&p->empty, 0, PIECES);
	sem_init(&p->full, 0, 0);
}

/* One thread receives, another one places; they take turns with a few pieces. */
static void pull_and_place(int fd, uint64_t bytes)
{
	struct placing *p = calloc(1, sizeof(*p));
	uint64_t began;
	pthread_t thread;

	if (!p)
		die("calloc");
	p->bytes = bytes;
	placing_start(p);
	if (pthread_create(&thread, NULL, place_thread, p))
		die("pthread_create");
	began = clock_ns();
	ask(fd, 0, bytes);
	for (uint64_t at = 0; at < bytes; at += PIECE) {
		sem_wait(&p->empty);
		if (recv(fd, p->piece[at / PIECE % PIECES], PIECE, MSG_WAITALL) != PIECE)
			die("recv");
		sem_post(&p->full);
	}
	pthread_join(thread, NULL);
	printf("%lu\n", clock_ns() - began);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 5 || inet_pton(AF_INET, argv[2], &at.sin_addr) != 1)
		return 2;
	at.sin_port = htons((uint16_t)atoi(argv[3]));
	if (!strcmp(argv[1], "serve"))
		serve(&at, argv[4]);
	else if (!strcmp(argv[1], "ping"))
		ping(reach(&at), strtoul(argv[4], NULL, 0));
	else if (!strcmp(argv[1], "pull"))
		pull(reach(&at), strtoull(argv[4], NULL, 0) << 20);
	else if (!strcmp(argv[1], "place"))
		pull_and_place(reach(&at), strtoull(argv[4], NULL, 0) << 20);
	else
		return 2;
	return 0;
}
