// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reading and applying what the kernel says about a task's layout. The caller of the system call
 * that caused an event goes on as soon as the event is read, so from then on the map must be
 * brought up to date before anything is placed: that is why this file does both.
 *
 * Applying a message twice is harmless: regions are rebuilt from the same beginning, and owed bits
 * only ever go from set to clear. Only a fork must happen once, see apply_fork().
 */
#include "events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"
#include "fault.h"
#include "growth.h"
#include "kin.h"
#include "owner.h"
#include "wipe.h"
#include "worker.h"

/* Waits a little when there is no memory: the task waits too, which is better than a wrong map. */
static void wait_for_memory(const struct task *t, const char *what)
{
	log_error(t->worker->log, "%s: no memory to %s; trying again", task_name(t).text, what);
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* The record of a child that the worker before us made and may not have got further with. */
static struct task_record *child_known(const struct task *t, uint64_t serial, int *slot)
{
	const struct journal *j = t->worker->journal;

	for (uint32_t i = 0; i < j->nslots; i++) {
		struct task_record *r = __atomic_load_n(&j->slot[i], __ATOMIC_ACQUIRE);

		if (r && r->parent == t->rec->unique && r->born == serial) {
			*slot = (int)i;
			return r;
		}
	}
	return NULL;
}

/* The child owes what the parent owes at this moment, and has its regions. NULL without memory. */
static struct task_record *child_make(struct task *t, int uffd, uint64_t serial, int *slot)
{
	struct worker *w = t->worker;
	const struct region *v;
	size_t n = space_regions(t->space, &v);
	struct owed *owed = owed_fork(w->journal->arena, t->rec->owed);
	struct task_record *r = owed ? journal_record_new(w->journal, owed, v, n) : NULL;

	if (!r) {
		if (owed)
			owed_free(w->journal->arena, owed);
		return NULL;
	}
	r->uffd = uffd;
	r->pid = t->rec->pid;
	r->image = t->rec->image;
	r->parent = t->rec->unique;
	r->parent_pid = t->rec->real_pid;
	r->born = serial;
	r->embryo = true;
	*slot = task_register(w, r);
	if (*slot >= 0)
		return r;
	journal_record_free(w->journal, r);
	return NULL;
}

static int child_wipe(struct task *t, struct task_record *r, const struct wipes *wipes,
		      const struct uffd_msg *later, size_t n)
{
	struct space *child = space_new(t->worker->journal->arena, &t->image->extents, r->owed);
	const struct task_log *log = r->log[r->active];
	int ret = child ? space_set_regions(child, log->regions, log->nregions) : -ENOMEM;

	if (!ret)
		ret = wipes_apply(wipes, t, child, later, n);
	space_free(child);
	return ret;
}

/*
 * A fork is taken over in steps that a dying worker may stop between; who replays begins where the
 * other has stopped. First, in its place among the events: the child's record is committed, as an
 * embryo, with what the parent owes at this moment.
 */
static void fork_begin(struct task *t, const struct uffd_msg *m, uint64_t serial, bool replay)
{
	int slot;

	if (replay && child_known(t, serial, &slot))
		return;
	while (!child_make(t, (int)m->arg.fork.ufd, serial, &slot))
		wait_for_memory(t, "take over a forked child");
}

/*
 * Then, when all events that were read are in the map, because finding the parent's pid may place
 * pages of the parent: what is wiped on fork is forgiven; the child is no embryo any more; the
 * message is marked, and the child gets an owner.
 */
static void fork_end(struct task *t, struct uffd_msg *m, uint64_t serial, const struct wipes *wipes,
		     size_t nlater)
{
	int slot, ret;
	struct task_record *r = child_known(t, serial, &slot);

	while ((ret = child_wipe(t, r, wipes, m + 1, nlater)) == -ENOMEM)
		wait_for_memory(t, "see what a forked child inherits");
	if (ret)
		log_error(t->worker->log, "%s: what a forked child does not inherit: %s",
			  task_name(t).text, strerror(-ret));
	__atomic_store_n(&r->embryo, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&m->event, JOURNAL_EVENT_DONE, __ATOMIC_SEQ_CST);
	worker_adopt(t->worker, slot);
}

static void read_wipes(struct task *t, struct wipes *w)
{
	while (t->rec->real_pid && task_left(t) && wipes_read(w, t->rec->real_pid))
		wait_for_memory(t, "see what a forked child inherits");
}

/* Ends the forks among the @n messages at @first in the log, all of which have been applied. */
static void forks_end(struct task *t, uint32_t first, size_t n, struct wipes *wipes)
{
	struct task_log *log = t->rec->log[t->rec->active];
	struct uffd_msg *m = &log->msg[first];

	if (!t->rec->real_pid && task_left(t) && kin_find_pid(t))
		read_wipes(t, wipes);
	if (!wipes->known && task_left(t))
		log_info(t->worker->log,
			 "%s: its mappings cannot be read; what its child does not inherit is "
			 "taken from the images",
			 task_name(t).text);
	for (size_t i = 0; i < n; i++)
		if (m[i].event == UFFD_EVENT_FORK)
			fork_end(t, &m[i], log->base + first + i, wipes, n - i - 1);
}

static void apply(struct task *t, struct uffd_msg *m, uint64_t serial, bool replay)
{
	const struct log *log = t->worker->log;
	uint64_t left = task_left(t);
	int ret = 0;

	do {
		switch (m->event) {
		case UFFD_EVENT_FORK:
			fork_begin(t, m, serial, replay);
			break;
		case UFFD_EVENT_REMAP:
			ret = space_remap(t->space, m->arg.remap.from, m->arg.remap.to,
					  m->arg.remap.len);
			break;
		case UFFD_EVENT_REMOVE:
			ret = space_remove(t->space, m->arg.remove.start, m->arg.remove.end);
			break;
		case UFFD_EVENT_UNMAP:
			ret = space_unmap(t->space, m->arg.remove.start, m->arg.remove.end);
			break;
		default:
			break;
		}
		if (ret == -ENOMEM)
			wait_for_memory(t, "follow a change of the layout");
	} while (ret == -ENOMEM);
	if (ret)
		log_error(log, "%s: event 0x%x cannot be applied (%llx %llx %llx): %s",
			  task_name(t).text, m->event, m->arg.remap.from, m->arg.remap.to,
			  m->arg.remap.len, strerror(-ret));
	t->owner->tally->forgiven += left - task_left(t);
	t->stuck_since_ns = t->again_wait_ns = t->not_before_ns = 0;
	growth_rearm(t);
}

static bool is_event(const struct uffd_msg *m)
{
	return m->event != UFFD_EVENT_PAGEFAULT && m->event != JOURNAL_EVENT_DONE;
}

static void make_room(struct task *t)
{
	const struct region *v;
	size_t n;

	/* for the two reads of events_read() */
	if (t->tail + 2 * JOURNAL_READ <= JOURNAL_MESSAGES)
		return;
	n = space_regions(t->space, &v);
	while (journal_snapshot(t->worker->journal, t->rec, v, n))
		wait_for_memory(t, "write the journal");
	t->tail = 0;
}

static bool any_fork(const struct uffd_msg *m, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (m[i].event == UFFD_EVENT_FORK)
			return true;
	return false;
}

/* Out of descriptors, most likely, for a forked child: its parent waits until there is one. */
static void cannot_read(struct task *t, int err, uint64_t now)
{
	if (now - t->unread_ns > 1000000000u) {
		t->unread_ns = now;
		log_error(t->worker->log, "%s: events cannot be read: %s; the task waits",
			  task_name(t).text, strerror(err));
	}
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/*
 * One read, applied. With a fork among the messages, the parent's mappings are read at once.
 */
static size_t read_batch(struct task *t, uint64_t now, struct wipes *wipes, bool *forks)
{
	struct task_log *log = t->rec->log[t->rec->active];
	struct uffd_msg *m = &log->msg[t->tail];
	struct tally *tally = t->owner->tally;
	ssize_t bytes = read(t->rec->uffd, m, JOURNAL_READ * sizeof(*m));
	size_t n = bytes > 0 ? (size_t)bytes / sizeof(*m) : 0, keep = 0;

	if (bytes < 0 && errno != EAGAIN)
		cannot_read(t, errno, now);
	if (!*forks && any_fork(m, n)) {
		*forks = true;
		read_wipes(t, wipes);
	}
	for (size_t i = 0; i < n; i++) {
		if (m[i].event == UFFD_EVENT_PAGEFAULT) {
			tally->faults++;
			fault_add(t, m[i].arg.pagefault.address & ~(PAGE_SIZE - 1),
				  m[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE, now);
			continue;
		}
		tally->events++;
		apply(t, &m[i], log->base + t->tail + i, false);
		keep = i + 1;
	}
	/* Faults are asked again when need be; only events stay. */
	if (n > keep)
		memset(&m[keep], 0, (n - keep) * sizeof(*m));
	t->tail += (uint32_t)keep;
	return n;
}

size_t events_read(struct task *t, uint64_t now, bool *drained)
{
	_cleanup_(wipes_free) struct wipes wipes = {0};
	uint32_t first = t->tail;
	bool forks = false;
	size_t n = read_batch(t, now, &wipes, &forks), more;

	*drained = n < JOURNAL_READ;
	if (forks) {
		/* What the parent has done since, and now waits for us to hear of. */
		more = read_batch(t, now, &wipes, &forks);
		*drained = more < JOURNAL_READ;
		n += more;
		forks_end(t, first, t->tail - first, &wipes);
	}
	make_room(t);
	return n;
}

void events_replay(struct task *t)
{
	struct task_log *log = t->rec->log[t->rec->active];
	_cleanup_(wipes_free) struct wipes wipes = {0};

	for (t->tail = 0; t->tail < JOURNAL_MESSAGES && log->msg[t->tail].event; t->tail++)
		if (is_event(&log->msg[t->tail]))
			apply(t, &log->msg[t->tail], log->base + t->tail, true);
	if (any_fork(log->msg, t->tail)) {
		read_wipes(t, &wipes);
		forks_end(t, 0, t->tail, &wipes);
	}
	make_room(t);
}
