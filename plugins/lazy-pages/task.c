// SPDX-License-Identifier: GPL-2.0-or-later
/* Tasks: made from the journal, given back to it at the end. See task.h. */
#include "task.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "collapse.h"
#include "compiler.h"
#include "events.h"
#include "kin.h"
#include "owner.h"
#include "place.h"
#include "worker.h"

struct task_name task_name(const struct task *t)
{
	struct task_name n;

	if (t->rec->parent)
		snprintf(n.text, sizeof(n.text), "task %d (forked, #%llu)", t->rec->pid,
			 (unsigned long long)t->rec->unique);
	else
		snprintf(n.text, sizeof(n.text), "task %d", t->rec->pid);
	return n;
}

uint64_t task_left(const struct task *t)
{
	return space_left(t->space);
}

struct task *task_open(struct worker *w, int slot)
{
	struct task *t = calloc(1, sizeof(*t));
	struct task_record *r = w->journal->slot[slot];
	const struct task_log *log = r->log[r->active];

	if (!t)
		return NULL;
	t->worker = w;
	t->guard_fd = -1;
	t->rec = r;
	t->slot = slot;
	t->image = &w->checkpoint->tasks[r->image];
	t->space = space_new(w->journal->arena, &t->image->extents, r->owed);
	if (!t->space || space_set_regions(t->space, log->regions, log->nregions)) {
		task_free(t);
		return NULL;
	}
	return t;
}

void task_free(struct task *t)
{
	kin_free(t->kin);
	cleanup_close(&t->guard_fd);
	space_free(t->space);
	free(t->faults);
	free(t);
}

void task_finish(struct task *t)
{
	struct worker *w = t->worker;
	struct task_record *r = t->rec;
	int uffd = r->uffd;

	if (t->gone && task_left(t) && !r->parent && !r->image)
		__atomic_store_n(&w->journal->root.owing, true, __ATOMIC_SEQ_CST);
	if (t->gone)
		t->owner->tally->forgiven += task_left(t);
	log_debug(w->log, "%s: %s", task_name(t).text,
		  t->gone ? "has exited" : "has all its pages");
	if (!t->gone)
		collapse_task(w->collapser, t);

	/* First the slot: a worker that dies between the two leaves a descriptor without a name,
	 * and the keeper closes it. */
	pthread_mutex_lock(&w->slot_lock);
	w->journal->slot[t->slot] = NULL;
	pthread_mutex_unlock(&w->slot_lock);
	close(uffd);
	journal_record_free(w->journal, r);
	task_free(t);
	worker_task_finished(w);
}

void task_settle(struct task *t, uint64_t index, uint64_t npages)
{
	while (owed_clear(t->worker->journal->arena, t->rec->owed, index, index + npages) < 0)
		sched_yield();
}

int task_register(struct worker *w, struct task_record *r)
{
	int slot;

	pthread_mutex_lock(&w->slot_lock);
	slot = journal_slot_take(w->journal, r);
	w->journal->tasks_seen += slot >= 0;
	w->journal->tasks_forked += slot >= 0 && r->parent;
	pthread_mutex_unlock(&w->slot_lock);
	if (slot >= 0)
		atomic_fetch_add(&w->live, 1);
	return slot;
}
