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

static int child_wipe(struct task *t, struct task_record *r)
{
	struct space *child = space_new(t->worker->journal->arena, &t->image->extents, r->owed);
	const struct region *v;
	size_t n = space_regions(t->space, &v);
	int ret = child ? space_set_regions(child, v, n) : -ENOMEM;

	if (!ret)
		ret = wipe_on_fork(t, child);
	space_free(child);
	return ret;
}

/*
 * In steps that a dying worker may stop between: the child's record is committed, as an embryo,
 * with what the parent owes; what is wiped on fork is forgiven; the child is no embryo any more;
 * the message is marked. Who replays begins where the other has stopped. Finding the parent's pid
 * may place pages of the parent, and so must come after the child has its copy of the owed bits.
 */
static void apply_fork(struct task *t, struct uffd_msg *m, uint64_t serial, bool replay)
{
	struct task_record *r = NULL;
	bool adopt = true;
	int slot = -1;

	if (replay)
		r = child_known(t, serial, &slot);
	while (!r && !(r = child_make(t, (int)m->arg.fork.ufd, serial, &slot)))
		wait_for_memory(t, "take over a forked child");
	if (r->embryo) {
		if (owed_left(r->owed))
			kin_find_pid(t);
		while (child_wipe(t, r))
			wait_for_memory(t, "see what a forked child inherits");
		__atomic_store_n(&r->embryo, false, __ATOMIC_SEQ_CST);
	} else {
		adopt = false; /* has been, with all others, when this worker began */
	}
	__atomic_store_n(&m->event, JOURNAL_EVENT_DONE, __ATOMIC_SEQ_CST);
	if (adopt)
		worker_adopt(t->worker, slot);
}

static void apply(struct task *t, struct uffd_msg *m, uint64_t serial, bool replay)
{
	const struct log *log = t->worker->log;
	uint64_t left = task_left(t);
	int ret = 0;

	do {
		switch (m->event) {
		case UFFD_EVENT_FORK:
			apply_fork(t, m, serial, replay);
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
	if (m->event != JOURNAL_EVENT_DONE)
		t->owner->tally->forgiven += left - task_left(t);
	t->stuck_since_ns = 0;
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

	if (t->tail + JOURNAL_READ <= JOURNAL_MESSAGES)
		return;
	n = space_regions(t->space, &v);
	while (journal_snapshot(t->worker->journal, t->rec, v, n))
		wait_for_memory(t, "write the journal");
	t->tail = 0;
}

size_t events_read(struct task *t, uint64_t now, bool *drained)
{
	struct task_log *log = t->rec->log[t->rec->active];
	struct uffd_msg *m = &log->msg[t->tail];
	struct tally *tally = t->owner->tally;
	ssize_t bytes = read(t->rec->uffd, m, JOURNAL_READ * sizeof(*m));
	size_t n = bytes > 0 ? (size_t)bytes / sizeof(*m) : 0, keep = 0;

	*drained = n < JOURNAL_READ;
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
	make_room(t);
	return n;
}

void events_replay(struct task *t)
{
	struct task_log *log = t->rec->log[t->rec->active];

	for (t->tail = 0; t->tail < JOURNAL_MESSAGES && log->msg[t->tail].event; t->tail++)
		if (is_event(&log->msg[t->tail]))
			apply(t, &log->msg[t->tail], log->base + t->tail, true);
	make_room(t);
}
