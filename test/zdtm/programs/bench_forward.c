// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A long way on one machine, for scripts/bench: forwards TCP connections to ADDR PORT and holds
 * every byte back for MICROSECONDS, in either direction. Prints the port on 127.0.0.1 where it
 * listens. As on a wire, what is on its way takes its time however much it is, and nothing more
 * enters an end whose other end does not empty: latency is added, queues are not.
 * One thread, of the real-time class: wires do not get slower when the machine is busy.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAIRS  16
#define RING   (64UL << 20) /* bytes of a direction that may be on their way */
#define PIECES 4096
#define PIECE  (256UL << 10)

struct piece {
	uint64_t due; /* nanoseconds, CLOCK_MONOTONIC */
	uint64_t end; /* bytes of the direction that have gone when this one has */
};

struct way {
	int from, to;
	char *ring;
	uint64_t in, out; /* bytes so far */
	struct piece pieces[PIECES];
	unsigned head, n;
	bool blocked, ended, told;
};

struct pair {
	bool used;
	struct way way[2];
};

struct forward {
	struct sockaddr_in to;
	uint64_t delay; /* nanoseconds */
	int listener;
	struct pair pairs[PAIRS];
};

static void die(const char *what)
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

static bool way_may_read(const struct way *w)
{
	return !w->ended && !w->blocked && w->in - w->out < RING && w->n < PIECES;
}

/* Both return false when the connection is broken. */
static bool way_read(struct way *w, uint64_t delay)
{
	while (way_may_read(w)) {
		uint64_t at = w->in % RING, room = RING - (w->in - w->out);
		ssize_t n;

		room = room < RING - at ? room : RING - at;
		n = recv(w->from, w->ring + at, room < PIECE ? room : PIECE, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN;
		if (!n) {
			w->ended = true;
			return true;
		}
		w->in += (uint64_t)n;
		w->pieces[(w->head + w->n++) % PIECES] = (struct piece){clock_ns() + delay, w->in};
	}
	return true;
}

static bool way_write(struct way *w)
{
	while (w->n && w->pieces[w->head].due <= clock_ns()) {
		uint64_t at = w->out % RING, n = w->pieces[w->head].end - w->out;
		ssize_t sent = send(w->to, w->ring + at, n < RING - at ? n : RING - at,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		w->blocked = sent < 0 && errno == EAGAIN;
		if (sent < 0)
			return w->blocked;
		w->out += (uint64_t)sent;
		if (w->out == w->pieces[w->head].end) {
			w->head = (w->head + 1) % PIECES;
			w->n--;
		}
	}
	if (w->ended && !w->n && !w->told) {
		shutdown(w->to, SHUT_WR);
		w->told = true;
	}
	return true;
}

static void pair_close(struct pair *p)
{
	close(p->way[0].from);
	close(p->way[1].from);
	p->used = false;
}

static void pair_begin(struct forward *f, struct pair *p)
{
	int client = accept(f->listener, NULL, NULL), server, one = 1;

	if (client < 0)
		return;
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 || connect(server, (struct sockaddr *)&f->to, sizeof(f->to))) {
		close(server);
		close(client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < 2; i++) {
		struct way *w = &p->way[i];
		char *ring = w->ring;

		if (!ring)
			ring = mmap(NULL, RING, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (ring == MAP_FAILED)
			die("mmap");
		*w = (struct way){
			.from = i ? server : client, .to = i ? client : server, .ring = ring};
	}
	p->used = true;
}

/* Fills @fds, two for each pair that is used; returns the nanoseconds to wait, or UINT64_MAX. */
static uint64_t forward_watch(struct forward *f, struct pollfd *fds, nfds_t *nfds)
{
	uint64_t now = clock_ns(), wait = UINT64_MAX;

	fds[0] = (struct pollfd){.fd = f->listener, .events = POLLIN};
	*nfds = 1;
	for (struct pair *p = f->pairs; p < f->pairs + PAIRS; p++) {
		for (int i = 0; p->used && i < 2; i++) {
			struct way *w = &p->way[i], *back = &p->way[!i];
			short events =
				(way_may_read(w) ? POLLIN : 0) | (back->blocked ? POLLOUT : 0);
			uint64_t due = w->n ? w->pieces[w->head].due : 0;

			/* An end that is silent for good would be reported as hung up for ever. */
			fds[(*nfds)++] =
				(struct pollfd){.fd = events ? w->from : -1, .events = events};
			if (w->n && !w->blocked && (due > now ? due - now : 0) < wait)
				wait = due > now ? due - now : 0;
		}
	}
	return wait;
}

static void forward_run(struct forward *f)
{
	struct pollfd fds[1 + 2 * PAIRS];
	struct pair *idle = NULL;
	nfds_t nfds;

	for (;;) {
		uint64_t wait = forward_watch(f, fds, &nfds);
		struct timespec t = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)};

		if (ppoll(fds, nfds, wait == UINT64_MAX ? NULL : &t, NULL) < 0)
			die("ppoll");
		idle = NULL;
		for (struct pair *p = f->pairs; p < f->pairs + PAIRS; p++) {
			bool good = true;

			if (!p->used) {
				idle = p;
				continue;
			}
			for (struct way *w = p->way; good && w < p->way + 2; w++)
				good = way_write(w) && way_read(w, f->delay) && way_write(w);
			if (!good || (p->way[0].told && p->way[1].told))
				pair_close(p);
		}
		if (fds[0].revents && idle)
			pair_begin(f, idle);
	}
}

int main(int argc, char **argv)
{
	const struct sched_param priority = {.sched_priority = 1};
	struct sockaddr_in here = {.sin_family = AF_INET};
	socklen_t len = sizeof(here);
	struct forward *f = calloc(1, sizeof(*f));

	if (argc != 4 || !f)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_TIMERSLACK, 1);
	sched_setscheduler(0, SCHED_FIFO, &priority);
	f->to.sin_family = AF_INET;
	f->to.sin_port = htons((uint16_t)atoi(argv[2]));
	f->delay = strtoull(argv[3], NULL, 0) * 1000;
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (inet_pton(AF_INET, argv[1], &f->to.sin_addr) != 1 || f->listener < 0 ||
	    bind(f->listener, (struct sockaddr *)&here, sizeof(here)) || listen(f->listener, 64) ||
	    getsockname(f->listener, (struct sockaddr *)&here, &len))
		die(argv[1]);
	printf("%d\n", ntohs(here.sin_port));
	fflush(stdout);
	forward_run(f);
}
