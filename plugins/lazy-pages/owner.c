// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The loop of an owner thread: look at the descriptors, answer faults, take new tasks, place one
 * slice, look again. It sleeps only when no task of its own can be helped.
 */
#include "owner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"
#include "events.h"
#include "fault.h"
#include "loan.h"
#include "place.h"
#include "sweep.h"
#include "worker.h"

#define EPOLL_EVENTS 32
#define WANTED_MS    200 /* a page may have left the cache again before we came */
#define OWNER_NICE \
	-10 /* somebody waits for each page; fails without CAP_SYS_NICE, then it is 0 \
	     */

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Takes the task over; until it can, nothing is lost: the descriptor is in the journal. */
static void owner_take(struct owner *o, int slot)
{
	struct worker *w = o->worker;
	struct epoll_event ev = {.events = EPOLLIN};
	struct task *t;

	while (!(t = task_open(w, slot))) {
		log_error(w->log, "no memory to take over a task; trying again");
		pause_ms(20);
	}
	t->owner = o;
	if (o->ntasks == o->tasks_room) {
		size_t room = o->tasks_room ? o->tasks_room * 2 : 16;
		struct task **v;

		while (!(v = realloc(o->tasks, room * sizeof(*v))))
			pause_ms(20);
		o->tasks = v;
		o->tasks_room = room;
	}
	o->tasks[o->ntasks++] = t;
	events_replay(t);
	ev.data.ptr = t;
	while (epoll_ctl(o->epoll_fd, EPOLL_CTL_ADD, t->rec->uffd, &ev)) {
		log_error(w->log, "%s: descriptor %d cannot be watched: %m", task_name(t).text,
			  t->rec->uffd);
		pause_ms(20);
	}
	/* Faults that a dead worker had read are not in the queue any more. */
	if (w->journal->workers > 1)
		place_wake_all(t->rec->uffd);
}

/* Faults and events of one task. What is lent comes back before its descriptor is read. */
static void owner_serve_task(struct owner *o, struct task *t)
{
	if (o->loan.task == t)
		loan_recall(o);
	fault_serve(t);
}

static void owner_inbox(struct owner *o)
{
	uint64_t count;
	int slot;

	if (read(o->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error(o->worker->log, "eventfd: %m");
	for (size_t i = 0; i < o->ntasks; i++)
		o->tasks[i]->cold = false;
	for (;;) {
		pthread_mutex_lock(&o->inbox_lock);
		slot = o->ninbox ? o->inbox[--o->ninbox] : -1;
		pthread_mutex_unlock(&o->inbox_lock);
		if (slot < 0)
			break;
		owner_take(o, slot);
	}
}

static bool task_is_over(const struct task *t)
{
	const struct journal *j = t->worker->journal;

	return t->gone ||
	       (!task_left(t) && __atomic_load_n(&j->restore_finished, __ATOMIC_ACQUIRE));
}

static void owner_reap(struct owner *o)
{
	for (size_t i = o->ntasks; i-- > 0;) {
		if (!task_is_over(o->tasks[i]))
			continue;
		if (o->loan.task == o->tasks[i])
			loan_recall(o);
		task_finish(o->tasks[i]);
		o->tasks[i] = o->tasks[--o->ntasks];
		atomic_fetch_sub(&o->load, 1);
	}
}

/* The next task whose background can go on now; else *wait_ms says when to look again. */
static struct task *owner_turn(struct owner *o, uint64_t now, int *wait_ms)
{
	uint64_t from;

	if (!worker_background(o->worker, now, &from)) {
		if (from)
			*wait_ms = (int)((from - now) / 1000000) + 1;
		return NULL;
	}
	for (size_t i = 0; i < o->ntasks; i++) {
		struct task *t = o->tasks[o->turn++ % o->ntasks];

		if (t->cold || !task_left(t))
			continue;
		if (t->not_before_ns <= now)
			return t;
		if (*wait_ms < 0)
			*wait_ms = (int)((t->not_before_ns - now) / 1000000) + 1;
	}
	return NULL;
}

static void count_faults(struct owner *o, const struct task *t)
{
	bool waiting = false;

	for (size_t i = 0; i < t->nfaults; i++)
		waiting |= !t->faults[i].wanted;
	o->nwaiting += waiting;
	o->nwanted += t->nfaults > 0 && !waiting;
}

static bool owner_serve(struct owner *o, int timeout_ms)
{
	struct epoll_event ev[EPOLL_EVENTS];
	int n = epoll_wait(o->epoll_fd, ev, EPOLL_EVENTS, timeout_ms);
	bool look_for_ends = false, inbox = false, pumped = false;

	for (int i = 0; i < n; i++) {
		struct task *t = ev[i].data.ptr;

		if (!t) {
			inbox = true;
			continue;
		}
		if (ev[i].data.ptr == o) {
			source_pump(o->worker->source);
			pumped = true;
			continue;
		}
		owner_serve_task(o, t);
		look_for_ends |= task_is_over(t);
	}
	if (inbox) {
		owner_inbox(o);
		look_for_ends = true;
	}
	/* Those that had to wait: for an event, a disk, a link, memory. */
	if (o->nwaiting || inbox || pumped || (o->nwanted && !n)) {
		for (size_t i = 0; i < o->ntasks; i++)
			if (o->tasks[i]->nfaults)
				owner_serve_task(o, o->tasks[i]);
	}
	if (n > 0 || o->nwaiting || o->nwanted) {
		o->nwaiting = o->nwanted = 0;
		for (size_t i = 0; i < o->ntasks; i++) {
			count_faults(o, o->tasks[i]);
			look_for_ends |= o->tasks[i]->gone;
		}
	}
	return look_for_ends;
}

static void *owner_thread(void *arg)
{
	struct owner *o = arg;
	struct task *turn = NULL;
	char name[16];

	snprintf(name, sizeof(name), "lazy-owner-%u", o->id);
	prctl(PR_SET_NAME, name);
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), OWNER_NICE);
	while (!atomic_load(&o->stop)) {
		int wait_ms = -1;
		uint64_t now = now_ns();
		bool worked = true;

		turn = owner_turn(o, now, &wait_ms);
		if (!turn) {
			/* First idle, then one more look: who lends wakes only those who are idle.
			 */
			worked = loan_help(o);
			atomic_store(&o->idle, !worked);
			if (!worked)
				worked = loan_help(o);
		} else {
			if (!loan_slice(turn, now))
				sweep_slice(turn, now);
			if (task_is_over(turn))
				owner_reap(o);
		}
		if (o->nwaiting && (wait_ms < 0 || wait_ms > 1))
			wait_ms = 1;
		if (o->nwanted && (wait_ms < 0 || wait_ms > WANTED_MS))
			wait_ms = WANTED_MS;
		if (owner_serve(o, worked ? 0 : wait_ms))
			owner_reap(o);
		atomic_store(&o->idle, false);
	}
	return NULL;
}

struct owner *owner_start(struct worker *w, unsigned id)
{
	struct owner *o = calloc(1, sizeof(*o));
	struct epoll_event ev = {.events = EPOLLIN};

	if (!o)
		return NULL;
	o->worker = w;
	o->id = id;
	o->tally = &w->journal->tally[id];
	o->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	o->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&o->inbox_lock, NULL);
	o->scratch = aligned_alloc(PAGE_SIZE, SCHEDULE_MAX_PAGES * PAGE_SIZE);
	if (o->epoll_fd >= 0 && o->wake_fd >= 0)
		source_watch(w->source, o->wake_fd, o->epoll_fd, o);
	if (o->scratch && o->epoll_fd >= 0 && o->wake_fd >= 0 &&
	    !epoll_ctl(o->epoll_fd, EPOLL_CTL_ADD, o->wake_fd, &ev) &&
	    !pthread_create(&o->thread, NULL, owner_thread, o))
		return o;
	cleanup_close(&o->epoll_fd);
	cleanup_close(&o->wake_fd);
	free(o->scratch);
	free(o);
	return NULL;
}

void owner_stop(struct owner *o)
{
	atomic_store(&o->stop, true);
	owner_wake(o);
	pthread_join(o->thread, NULL);
	for (size_t i = 0; i < o->ntasks; i++)
		task_free(o->tasks[i]);
	close(o->epoll_fd);
	close(o->wake_fd);
	pthread_mutex_destroy(&o->inbox_lock);
	free(o->inbox);
	free(o->tasks);
	free(o->scratch);
	free(o);
}

void owner_wake(struct owner *o)
{
	uint64_t one = 1;

	if (write(o->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error(o->worker->log, "eventfd: %m");
}

int owner_give(struct owner *o, int slot)
{
	int ret = 0;

	pthread_mutex_lock(&o->inbox_lock);
	if (o->ninbox == o->inbox_room) {
		size_t room = o->inbox_room ? o->inbox_room * 2 : 16;
		int *v = realloc(o->inbox, room * sizeof(*v));

		if (v) {
			o->inbox = v;
			o->inbox_room = room;
		} else {
			ret = -ENOMEM;
		}
	}
	if (!ret) {
		o->inbox[o->ninbox++] = slot;
		atomic_fetch_add(&o->load, 1);
	}
	pthread_mutex_unlock(&o->inbox_lock);
	if (!ret)
		owner_wake(o);
	return ret;
}
