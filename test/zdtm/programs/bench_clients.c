// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Many clients of a page server at once, for scripts/bench.
 * Arguments: ADDR PORT FILE OFFSET PID VADDR PAGES CLIENTS MILLISECONDS. The pages of task PID from
 * VADDR on are those of FILE from OFFSET on. Each client, a thread of its own, gets them over and
 * over again, with a few questions under way, and compares every page, until the time is up. Then
 * it takes what is under way and goes. Prints nanoseconds and bytes of each client, a line each,
 * and in the end the CPU nanoseconds of all of them and the bytes that these were for.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define SLICE	64UL /* pages of a question */
#define DEPTH	4    /* questions under way */
#define CLIENTS 1024
#define GET	7
#define ADD_F	(4u << 16 | 6) /* PRESENT */

struct header { /* as CRIU has it from 4.2 on */
	uint32_t command, padding;
	uint64_t npages, vaddr, pid;
};

struct work {
	struct sockaddr_in server;
	uint64_t pid, vaddr, npages, duration;
	uint64_t *sums; /* of each page */
	pthread_barrier_t start;
};

struct client {
	struct work *work;
	pthread_t thread;
	uint64_t first;	      /* page that it begins with */
	uint64_t took, bytes; /* until the time was up */
	uint64_t all_bytes;
};

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Different for pages that differ in one word, or in the order of two: their places count. */
static uint64_t page_sum(const uint64_t *page)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PAGE / sizeof(*page); i++)
		sum += page[i] ^ (i * UINT64_C(0x9e3779b97f4a7c15));
	return sum;
}

static uint64_t ask(const struct client *c, int fd, uint64_t page)
{
	const struct work *w = c->work;
	struct header h = {.command = GET,
			   .vaddr = w->vaddr + page * PAGE,
			   .pid = w->pid,
			   .npages = w->npages - page < SLICE ? w->npages - page : SLICE};

	if (send(fd, &h, sizeof(h), MSG_NOSIGNAL) != sizeof(h))
		die("send");
	return (page + h.npages) % w->npages;
}

/* Returns the page behind those of the answer. */
static uint64_t take(struct client *c, int fd, uint64_t page, uint64_t *buffer)
{
	const struct work *w = c->work;
	uint64_t expected = w->npages - page < SLICE ? w->npages - page : SLICE;
	struct header h;

	if (recv(fd, &h, sizeof(h), MSG_WAITALL) != sizeof(h))
		die("recv");
	if (h.command != ADD_F || h.pid != w->pid || h.vaddr != w->vaddr + page * PAGE ||
	    h.npages != expected) {
		fprintf(stderr, "not the answer: %lu pages at %lx, command %x\n", h.npages, h.vaddr,
			h.command);
		exit(1);
	}
	if (recv(fd, buffer, h.npages * PAGE, MSG_WAITALL) != (ssize_t)(h.npages * PAGE))
		die("recv");
	for (uint64_t i = 0; i < h.npages; i++) {
		if (page_sum(buffer + i * PAGE / sizeof(*buffer)) != w->sums[page + i]) {
			fprintf(stderr, "page %lu: wrong bytes\n", page + i);
			exit(1);
		}
	}
	c->all_bytes += h.npages * PAGE;
	return (page + h.npages) % w->npages;
}

static void *client_run(void *arg)
{
	struct client *c = arg;
	struct work *w = c->work;
	uint64_t asked = c->first, taken = c->first, began, *buffer = malloc(SLICE * PAGE);
	int fd = socket(AF_INET, SOCK_STREAM, 0), under_way = 0, one = 1;

	if (!buffer || fd < 0 || connect(fd, (struct sockaddr *)&w->server, sizeof(w->server)))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	pthread_barrier_wait(&w->start);
	began = clock_ns(CLOCK_MONOTONIC);
	do {
		while (under_way < DEPTH) {
			asked = ask(c, fd, asked);
			under_way++;
		}
		taken = take(c, fd, taken, buffer);
		under_way--;
	} while (clock_ns(CLOCK_MONOTONIC) - began < w->duration);
	c->took = clock_ns(CLOCK_MONOTONIC) - began;
	c->bytes = c->all_bytes;
	for (; under_way; under_way--)
		taken = take(c, fd, taken, buffer);
	close(fd);
	free(buffer);
	return NULL;
}

static void work_read(struct work *w, const char *path, off_t offset)
{
	int fd = open(path, O_RDONLY);
	const uint64_t *bytes = mmap(NULL, w->npages * PAGE, PROT_READ, MAP_SHARED, fd, offset);

	w->sums = calloc(w->npages, sizeof(*w->sums));
	if (bytes == MAP_FAILED || !w->sums)
		die(path);
	for (uint64_t i = 0; i < w->npages; i++)
		w->sums[i] = page_sum(bytes + i * PAGE / sizeof(*bytes));
	close(fd);
}

int main(int argc, char **argv)
{
	struct work w = {.server.sin_family = AF_INET};
	struct client clients[CLIENTS];
	uint64_t began, bytes = 0;
	unsigned n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 10 || inet_pton(AF_INET, argv[1], &w.server.sin_addr) != 1)
		return 2;
	w.server.sin_port = htons((uint16_t)atoi(argv[2]));
	w.pid = strtoull(argv[5], NULL, 0);
	w.vaddr = strtoull(argv[6], NULL, 0);
	w.npages = strtoull(argv[7], NULL, 0);
	n = (unsigned)strtoul(argv[8], NULL, 0);
	w.duration = strtoull(argv[9], NULL, 0) * 1000000;
	if (!n || n > CLIENTS || w.npages < DEPTH * SLICE)
		return 2;
	work_read(&w, argv[3], (off_t)strtoull(argv[4], NULL, 0));
	pthread_barrier_init(&w.start, NULL, n);
	began = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (unsigned i = 0; i < n; i++) {
		clients[i] = (struct client){.work = &w, .first = w.npages / n * i};
		if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]))
			die("pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(clients[i].thread, NULL);
	began = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - began;
	for (unsigned i = 0; i < n; i++) {
		printf("%lu %lu\n", clients[i].took, clients[i].bytes);
		bytes += clients[i].all_bytes;
	}
	printf("%lu %lu\n", began, bytes);
	return 0;
}
