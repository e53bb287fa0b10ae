// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lending and borrowing: see loan.h. The order that makes a recall safe: a borrower counts itself
 * inside before it looks whether the loan is open; the owner closes the loan before it looks
 * whether anybody is inside. Both with sequential consistency, so at least one sees the other.
 */
#include "loan.h"

#include <sched.h>

#include "compiler.h"
#include "owner.h"
#include "sweep.h"
#include "task.h"
#include "worker.h"

#define LOAN_LEAST  1024      /* pages owed below which lending is not worth it */
#define REST_NS	    100000000 /* no new loan of a task after one that brought nothing */
#define RECALL_SPIN 2000      /* looks before the core is given away; a piece takes some 20 us */

static bool anybody_idle(const struct owner *o)
{
	const struct worker *w = o->worker;

	for (unsigned i = 0; i < w->nowners; i++)
		if (w->owners[i] != o &&
		    atomic_load_explicit(&w->owners[i]->idle, memory_order_relaxed))
			return true;
	return false;
}

static void wake_idle(const struct owner *o)
{
	const struct worker *w = o->worker;

	for (unsigned i = 0; i < w->nowners; i++)
		if (w->owners[i] != o && atomic_load(&w->owners[i]->idle))
			owner_wake(w->owners[i]);
}

/* Lends from the first page owed at the sweep's place on, in one region. */
static bool loan_open(struct task *t, const struct slice *s)
{
	struct owner *o = t->owner;
	struct loan *l = &o->loan;
	struct run first;
	uint64_t from, to;

	if (!space_gather(t->space, s->addr, 1, 1, &first, 1))
		return false;
	sweep_watch_guards(t);
	l->end = MIN(space_region_end(t->space, first.addr), first.addr + LOAN_RANGE);
	from = first.index;
	to = extents_index(&t->image->extents,
			   extents_vaddr(&t->image->extents, from) + (l->end - first.addr));
	if (to - from < LOAN_LEAST || owed_own(t->worker->journal->arena, t->rec->owed, from, to))
		return false;
	l->task = t;
	l->start = first.addr;
	atomic_store(&l->settled, 0);
	atomic_store(&l->next, first.addr);
	atomic_store(&l->open, true);
	wake_idle(o);
	return true;
}

void loan_recall(struct owner *o)
{
	struct loan *l = &o->loan;

	if (!l->task)
		return;
	atomic_store(&l->open, false);
	for (unsigned i = 0; atomic_load(&l->inside); i++) {
		if (i > RECALL_SPIN)
			sched_yield();
		else
			__builtin_ia32_pause();
	}
	l->task = NULL;
}

/* One piece of loan @l by @by. False when there is no piece left. */
static bool loan_piece(struct loan *l, struct owner *by)
{
	uint64_t addr = atomic_fetch_add(&l->next, LOAN_PIECE);

	if (addr >= l->end)
		return false;
	atomic_fetch_add(&l->settled,
			 sweep_lent(l->task, by, addr, MIN(addr + LOAN_PIECE, l->end)));
	return true;
}

/* All pieces have been given out: on to what follows, unless it was all in vain. */
static void loan_close(struct task *t, const struct slice *s, uint64_t now)
{
	struct loan *l = &t->owner->loan;

	loan_recall(t->owner);
	if (atomic_load(&l->settled))
		schedule_done(&t->schedule, s, l->end, true);
	else
		t->lend_not_before_ns = now + REST_NS;
}

bool loan_slice(struct task *t, uint64_t now)
{
	struct owner *o = t->owner;
	struct slice s = schedule_next(&t->schedule, now);
	bool busy = s.cause != CAUSE_BACKGROUND || schedule_busy(&t->schedule, now);

	/* Behind a link one thread places as fast as pages come. */
	if (o->worker->remote)
		return false;
	if (o->loan.task != t) {
		if (busy || now < t->lend_not_before_ns || task_left(t) < LOAN_LEAST ||
		    !anybody_idle(o))
			return false;
		loan_recall(o);
		if (!loan_open(t, &s))
			return false;
	} else if (busy) {
		loan_recall(o);
		return false;
	}
	if (!loan_piece(&o->loan, o))
		loan_close(t, &s, now);
	return true;
}

bool loan_help(struct owner *o)
{
	struct worker *w = o->worker;
	bool helped = false;

	for (unsigned i = 0; i < w->nowners && !helped; i++) {
		struct loan *l = &w->owners[i]->loan;

		if (w->owners[i] == o || !atomic_load_explicit(&l->open, memory_order_relaxed))
			continue;
		atomic_fetch_add(&l->inside, 1);
		if (atomic_load(&l->open))
			helped = loan_piece(l, o);
		atomic_fetch_sub(&l->inside, 1);
	}
	return helped;
}
