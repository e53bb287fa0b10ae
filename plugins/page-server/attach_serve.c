// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One server process of --attach: serves while the phase is ATTACHED, and then does what the phase
 * says, wherever a server before it has stopped doing so. See attach.c. The hooks run in the
 * threads of serve.h, the rest in the first thread.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "attach_server.h"
#include "clock.h"
#include "compiler.h"
#include "given.h"
#include "provider_frozen.h"
#include "serve.h"

#define PATIENCE_NS (UINT64_C(60) * 1000000000) /* for the dump to do what it has been told */
#define LOOK_MS	    10
#define ANSWER_SEC  3 /* for a client to take the answer to its CLOSE */

struct attach_client {
	struct given *given; /* NULL: no memory; then nothing counts as given */
	struct attach_client *next, **link;
};

enum { WATCH_TIMER, WATCH_CONTROL, WATCH_CONNECTION, WATCH_DUMP, WATCH_HOLDER };

static void *joined(void *context)
{
	struct attach_client *c = calloc(1, sizeof(*c));
	struct attach *a = context;

	if (!c)
		return NULL;
	c->given = given_new(a->npages);
	pthread_mutex_lock(&a->clients_lock);
	c->next = a->clients;
	c->link = &a->clients;
	if (c->next)
		c->next->link = &c->next;
	a->clients = c;
	pthread_mutex_unlock(&a->clients_lock);
	return c;
}

static void given(void *context, void *client, uint64_t pid, uint64_t vaddr, uint64_t npages)
{
	struct attach_client *c = client;
	struct attach *a = context;

	if (c && c->given)
		given_note(c->given, provider_frozen_number(a->provider, pid, vaddr), npages);
}

static void left(void *context, void *client)
{
	struct attach_client *c = client;
	struct attach *a = context;

	if (!c)
		return;
	pthread_mutex_lock(&a->clients_lock);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	pthread_mutex_unlock(&a->clients_lock);
	given_free(c->given);
	free(c);
}

uint64_t attach_given(struct attach *a)
{
	uint64_t most = 0;

	pthread_mutex_lock(&a->clients_lock);
	for (struct attach_client *c = a->clients; c; c = c->next)
		most = MAX(most, c->given ? given_count(c->given) : 0);
	pthread_mutex_unlock(&a->clients_lock);
	return most;
}

/*
 * Stock's manager says CLOSE also when its restore has failed. It is believed when every page has
 * gone to it, by this very connection; ours says so (@sure), and knows which pages tasks gave up.
 */
static int confirmed(void *context, void *client, const char *peer, bool sure, struct error *e)
{
	struct attach_client *c = client;
	struct attach *a = context;
	uint64_t has = c && c->given ? given_count(c->given) : 0;
	int ret;

	if (phase_now(a) == PHASE_ATTACHED && !sure && has < a->npages)
		return error_set(e, -EAGAIN,
				 "says that it has everything, but of %llu pages only %llu were "
				 "sent to it: its restore has failed, or its tasks gave pages up. "
				 "The source stays as it is until criu-lazy-pages abort or confirm",
				 (unsigned long long)a->npages, (unsigned long long)has);
	ret = attach_give_up(a, e);
	if (ret)
		return ret;
	a->by_client = true;
	timerfd_settime(a->timer_fd, 0, &(struct itimerspec){.it_value.tv_sec = ANSWER_SEC}, NULL);
	log_info(a->log, "%s holds every page: dump %d has been told to end", peer, a->dump->pid);
	return SERVE_END;
}

static void watch(struct attach *a, int fd, uint32_t events, uint32_t what)
{
	struct epoll_event ev = {.events = events, .data.u32 = what};

	if (fd >= 0)
		epoll_ctl(a->watch_fd, EPOLL_CTL_ADD, fd, &ev);
}

static void forget(struct attach *a, int fd)
{
	epoll_ctl(a->watch_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* The connection or the dump has ended, by our doing or not. */
static void dump_ended(struct attach *a)
{
	forget(a, a->dump_fd);
	forget(a, a->dump->pidfd);
	if (phase_change(a, PHASE_LOST))
		log_error(a->log,
			  "dump %d has ended: its tasks run again, or are dead; all "
			  "clients are dropped",
			  a->dump->pid);
}

static enum serve_verdict readable(void *context)
{
	struct attach *a = context;
	struct epoll_event ev[8];
	int n = epoll_wait(a->watch_fd, ev, ARRAY_SIZE(ev), 0);

	for (int i = 0; i < n; i++) {
		switch (ev[i].data.u32) {
		case WATCH_TIMER:
			return SERVE_END;
		case WATCH_CONTROL:
			attach_control_serve(a);
			break;
		case WATCH_HOLDER:
			log_warn(a->log, "the holder died; this server goes on, and nobody comes "
					 "after it");
			forget(a, a->holder_pidfd);
			break;
		default:
			dump_ended(a);
		}
	}
	/* Who gave it up by CLOSE still waits for the answer; then serving ends by itself. */
	if (phase_now(a) == PHASE_GIVEN_UP && a->by_client)
		return SERVE_ON;
	return phase_now(a) == PHASE_ATTACHED ? SERVE_ON : SERVE_END;
}

/* Waits for something, and goes on answering on the control socket. */
static bool wait_until(struct attach *a, bool (*condition)(const struct attach *a))
{
	uint64_t until = now_ns() + PATIENCE_NS;
	struct pollfd p = {.fd = a->control ? control_fd(a->control) : -1, .events = POLLIN};

	while (!condition(a)) {
		if (now_ns() > until)
			return false;
		if (poll(&p, 1, LOOK_MS) > 0)
			attach_control_serve(a);
	}
	return true;
}

static bool tasks_run(const struct attach *a)
{
	for (size_t i = 0; i < a->dump->ntasks; i++)
		if (task_is_traced(a->dump->tasks[i].pid, a->dump->pid))
			return false;
	return true;
}

static bool dump_is_over(const struct attach *a)
{
	return dump_has_ended(a->dump);
}

/* A large process takes its time to die after it was killed. */
static bool tasks_are_gone(const struct attach *a)
{
	for (size_t i = 0; i < a->dump->ntasks; i++)
		if (!task_is_gone(a->dump->tasks[i].pid))
			return false;
	return true;
}

static int given_up(struct attach *a, bool again)
{
	struct error e = {0};

	if (again && held_finish(&a->held, true, &e))
		log_warn(a->log, "%s", e.text);
	if (!wait_until(a, dump_is_over)) {
		log_error(a->log, "dump %d has been told to end and still runs", a->dump->pid);
		return 1;
	}
	if (!wait_until(a, tasks_are_gone)) {
		log_error(a->log,
			  "dump %d has ended and not all of its tasks have, although a "
			  "destination holds everything: there may be two copies of them",
			  a->dump->pid);
		return 1;
	}
	log_info(a->log, "the source has ended; the migration is complete");
	return 0;
}

static int called_off(struct attach *a)
{
	struct error e = {0};

	if (held_reset(&a->held, &e))
		log_error(a->log, "%s", e.text);
	if (!wait_until(a, tasks_run)) {
		log_error(a->log, "dump %d has been told to let its tasks run, and does not",
			  a->dump->pid);
		return 1;
	}
	log_info(a->log, "called off: the source runs again");
	return ATTACH_CALLED_OFF;
}

static int server_set_up(struct attach *a, struct error *e)
{
	pthread_mutex_init(&a->clients_lock, NULL);
	held_init(&a->held, a->dump_fd, a->layout, &a->state->busy);
	a->provider = provider_frozen_new(a->checkpoint, a->dump, &a->held);
	if (!a->provider)
		return error_errno(e, -ENOMEM, "provider");
	a->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	if (a->watch_fd < 0)
		return error_errno(e, -errno, "epoll");
	a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (a->timer_fd < 0)
		return error_errno(e, -errno, "timer");
	watch(a, a->timer_fd, EPOLLIN, WATCH_TIMER);
	watch(a, a->dump_fd, EPOLLRDHUP, WATCH_CONNECTION);
	watch(a, a->dump->pidfd, EPOLLIN, WATCH_DUMP);
	watch(a, a->holder_pidfd, EPOLLIN, WATCH_HOLDER);
	if (a->control && !control_start(a->control, e))
		watch(a, control_fd(a->control), EPOLLIN, WATCH_CONTROL);
	return 0;
}

/* Serves until the phase is another. */
static void serve(struct attach *a)
{
	struct serve_hooks hooks = {
		.context = a,
		.joined = joined,
		.given = given,
		.left = left,
		.confirmed = confirmed,
		.readable = readable,
		.fd = a->watch_fd,
	};
	struct error e = {0};

	serve_run(a->o, a->log, a->provider, a->listen_fd, a->tls, &hooks);
	/* A signal, or it could not serve at all: whoever stops this server decides so. */
	if (phase_now(a) == PHASE_ATTACHED && attach_call_off(a, &e))
		log_error(a->log, "%s", e.text);
}

int attach_serve(void *context)
{
	struct attach *a = context;
	bool again = phase_now(a) != PHASE_ATTACHED;
	struct error e = {0};
	int status = 1;

	if (server_set_up(a, &e))
		log_error(a->log, "%s", e.text);
	else if (!again)
		serve(a);
	/* The socket is the holder's, too: this ends it for both. */
	shutdown(a->listen_fd, SHUT_RDWR);
	switch (phase_now(a)) {
	case PHASE_ATTACHED:
		break;
	case PHASE_GIVEN_UP:
		status = given_up(a, again);
		break;
	case PHASE_CALLED_OFF:
		status = called_off(a);
		break;
	case PHASE_LOST:
		status = 1;
		break;
	}
	control_server_close(a->control, true);
	return status;
}
