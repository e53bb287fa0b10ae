// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One slice of the background: gather owed runs that lie together in a file, get their bytes with
 * one read, place run by run. See sweep.h.
 */
#include "sweep.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "compiler.h"
#include "guard.h"
#include "owner.h"
#include "place.h"
#include "worker.h"

#define PAUSE_NS     1000000u	 /* after a call that could not be done just now */
#define RETRY_NS     1000000000u /* after a read error */
#define AGAIN_MIN_NS UINT64_C(50000)
#define AGAIN_MAX_NS UINT64_C(5000000)
#define GUARD_NS     1000000u	 /* how long a look for guards is believed */
#define GUARD_PAGES  64		 /* looked at together */
#define NEAR_PAGES   16		 /* asked for together with a page that a task waits for */
#define ASK_RUNS     128	 /* asked for ahead in one go */
#define STUCK_NS     1000000000u /* owed, in no armed mapping and no event for so long: forgiven */

bool bytes_are_zero(const void *p, size_t len)
{
	const uint64_t *w = p;

	/* A block is zero when its first word is and when it equals itself, one word further on. */
	return !w[0] && !memcmp(w, w + 1, len - sizeof(*w));
}

/* One go at placing: of which task, by which thread, and what has come of it. */
struct mover {
	struct task *t;
	struct owner *by; /* whose tally, buffers: the owner, or a borrower */
	bool lent;	  /* others are placing pages of this task, too */
	enum cause cause;
	uint64_t now;
	uint64_t settled; /* pages */
	uint64_t pages;	  /* gone through since the last look at the descriptor */
};

static void settle(struct mover *m, uint64_t index, uint64_t npages)
{
	struct task *t = m->t;

	m->settled += npages;
	if (m->lent) {
		owed_clear_shared(t->rec->owed, index, index + npages);
		return;
	}
	task_settle(t, index, npages);
	t->stuck_since_ns = 0;
}

/* The pages at the start of @bytes that are alike in being zero or not. */
static uint64_t alike(const char *bytes, uint64_t npages, bool *zero)
{
	uint64_t n = 1;

	for (uint64_t i = 1; i < npages; i++)
		__builtin_prefetch(bytes + i * PAGE_SIZE);
	*zero = bytes_are_zero(bytes, PAGE_SIZE);
	while (n < npages && bytes_are_zero(bytes + n * PAGE_SIZE, PAGE_SIZE) == *zero)
		n++;
	return n;
}

/*
 * A page that we owe and that is in no armed mapping. The event that explains it may not be in the
 * queue yet, so it is passed over; only when nothing else is left to do and nothing has come
 * for a long time is it taken for a page that the task cannot have (MADV_DONTFORK in a child).
 */
static void no_mapping(struct task *t, const struct run *r, uint64_t now)
{
	if (!t->stuck_since_ns)
		t->stuck_since_ns = now;
	if (!t->schedule.fruitless || now - t->stuck_since_ns < STUCK_NS)
		return;
	log_debug(t->worker->log, "%s: 0x%llx is in no lazy mapping; given up", task_name(t).text,
		  (unsigned long long)r->addr);
	t->owner->tally->forgiven++;
	task_settle(t, r->index, 1);
}

/* What the kernel refused. Returns true when the rest of the slice can go on. */
static bool refused(struct mover *m, const struct run *r, struct placed p)
{
	struct task *t = m->t;

	if (p.outcome == PLACE_AGAIN)
		m->by->tally->again++;
	/* Whatever it is, the owner will meet it, too; the task's state is its own. */
	if (m->lent)
		return false;
	switch (p.outcome) {
	case PLACE_NO_MAPPING:
		no_mapping(t, r, m->now);
		return true;
	case PLACE_AGAIN:
		/* The event that will be read ends the pause; if none comes, look less and less. */
		t->again_wait_ns = MIN(MAX(t->again_wait_ns * 2, AGAIN_MIN_NS), AGAIN_MAX_NS);
		t->not_before_ns = m->now + t->again_wait_ns;
		return false;
	case PLACE_GONE:
		t->gone = true;
		return false;
	default:
		m->by->window[0].bytes = m->by->window[1].bytes = NULL;
		if (!t->noted)
			log_error(t->worker->log, "%s: 0x%llx cannot be placed: %s; waiting",
				  task_name(t).text, (unsigned long long)r->addr, strerror(p.err));
		t->noted = true;
		t->not_before_ns = m->now + PAUSE_NS;
		return false;
	}
}

/* Whether somebody waits for the task's descriptor. */
static bool interrupted(const struct mover *m)
{
	struct pollfd p = {.fd = m->t->rec->uffd, .events = POLLIN};

	if (m->by != m->t->owner)
		return !atomic_load_explicit(&m->t->owner->loan.open, memory_order_relaxed);
	return poll(&p, 1, 0) > 0;
}

/* Places one run. Returns false when the slice must stop. */
static bool place_run(struct mover *m, struct run r, const char *bytes)
{
	struct tally *tally = m->by->tally;
	int uffd = m->t->rec->uffd;
	uint64_t most = r.npages; /* shrinks where a mapping ends or begins inside the run */

	while (r.npages) {
		struct placed p;
		uint64_t n;
		bool zero;

		if (m->pages >= SWEEP_PAGES) {
			m->pages = 0;
			if (interrupted(m))
				return false;
		}
		n = alike(bytes, MIN(r.npages, MIN(most, SWEEP_PAGES)), &zero);
		p = zero ? place_zero(uffd, r.addr, n * PAGE_SIZE)
			 : place_copy(uffd, r.addr, bytes, n * PAGE_SIZE);

		if (p.outcome == PLACE_DONE) {
			n = p.bytes / PAGE_SIZE;
			tally->placed[m->cause] += n;
			tally->zero += zero ? n : 0;
		} else if (p.outcome == PLACE_EXISTS) {
			n = 1;
			tally->existed++;
		} else if (p.outcome == PLACE_NO_MAPPING && n > 1) {
			most = n / 2;
			continue;
		} else if (!refused(m, &r, p)) {
			return false;
		} else {
			n = 0;
		}
		if (n)
			settle(m, r.index, n);
		most = n ? most * 2 : 1;
		n = MAX(n, UINT64_C(1));
		m->pages += n;
		r.index += n;
		r.addr += n * PAGE_SIZE;
		r.npages -= n;
		bytes += n * PAGE_SIZE;
	}
	return true;
}

/* Asks the source for pages that are not here yet. Owner only. */
static void ask_for(struct mover *m, uint64_t where, uint64_t npages)
{
	struct task *t = m->t;
	int ret = source_want(t->worker->source, where, npages, false, t->owner->wake_fd);

	if (!ret || ret == -EAGAIN)
		t->cold = true;
	else
		t->not_before_ns = m->now + PAUSE_NS;
}

static bool is_remote(const struct task *t, uint64_t where)
{
	return t->worker->checkpoint->files[WHERE_FILE(where)].pid;
}

/* What the sweep will need next is asked for while it places: as much as the source takes. Not all
 * in one go, for a fault waits meanwhile, and there may be terabytes that are here. */
static void ask_ahead(struct task *t, uint64_t now)
{
	uint64_t most = schedule_busy(&t->schedule, now) ? NEAR_PAGES : SCHEDULE_MAX_PAGES;
	struct worker *w = t->worker;
	struct run r;

	t->ask = MAX(t->ask, t->schedule.sweep);
	for (int i = 0; i < ASK_RUNS; i++) {
		if (!space_gather(t->space, t->ask, most, most, &r, 1)) {
			t->ask = UINT64_MAX & ~(PAGE_SIZE - 1);
			return;
		}
		/* Who has to be woken is known when the sweep gets there and finds nothing. */
		if (is_remote(t, r.where) && source_want(w->source, r.where, r.npages, false, -1))
			return;
		t->ask = r.addr + r.npages * PAGE_SIZE;
	}
}

/* Something in the span cannot be read: page by page, so that the rest comes nevertheless. */
static void place_what_can_be_read(struct mover *m, size_t n)
{
	struct task *t = m->t;
	struct worker *w = t->worker;

	for (size_t i = 0; i < n; i++) {
		for (uint64_t k = 0; k < m->by->runs[i].npages; k++) {
			const struct run *r = &m->by->runs[i];
			struct run page = {r->addr + k * PAGE_SIZE, r->index + k, 1, r->where + k};
			const void *bytes;
			int ret = source_fetch(w->source, page.where, 1, m->by->scratch, &bytes);

			if (!ret) {
				place_run(m, page, bytes);
				continue;
			}
			if (!t->noted)
				log_error(w->log,
					  "%s: page 0x%llx: %s cannot be read at page %llu: %s; "
					  "trying again",
					  task_name(t).text, (unsigned long long)page.addr,
					  w->checkpoint->files[WHERE_FILE(page.where)].name,
					  (unsigned long long)WHERE_PAGE(page.where),
					  strerror(-ret));
			t->noted = true;
		}
	}
}

/*
 * The bytes of @npages pages at @where without a copy. A window of the source is mapped at a time,
 * so that small slices cost no system call. NULL: not wholly in memory.
 */
static const void *in_window(struct mover *m, uint64_t where, uint64_t npages)
{
	bool near = m->cause == CAUSE_NEIGHBOUR;
	struct window *win = &m->by->window[near];
	struct worker *w = m->t->worker;
	uint64_t left;

	if (!win->bytes || where < win->where || where + npages > win->where + win->npages) {
		left = w->checkpoint->files[WHERE_FILE(where)].npages - WHERE_PAGE(where);
		win->where = where;
		win->npages = MIN(left, near ? MAX(npages, SWEEP_PAGES) : SCHEDULE_MAX_PAGES);
		win->bytes = win->npages < npages ? NULL
						  : source_in_memory(w->source, where, win->npages);
		if (!win->bytes)
			return NULL;
	}
	return win->bytes + ((where - win->where) << PAGE_SHIFT);
}

void sweep_ask_near(struct task *t, uint64_t addr)
{
	struct run r;

	if (space_gather(t->space, addr, NEAR_PAGES, NEAR_PAGES, &r, 1) && is_remote(t, r.where) &&
	    r.addr - addr < NEAR_PAGES * PAGE_SIZE)
		source_want(t->worker->source, r.where, r.npages, false, -1);
}

/* Places the first @n runs that have been gathered. Returns the address behind the last one. */
static uint64_t place_runs(struct mover *m, size_t n)
{
	const struct run *runs = m->by->runs;
	uint64_t first = runs[0].where, span = runs[n - 1].where + runs[n - 1].npages - first;
	const void *bytes = in_window(m, first, span);
	uint64_t end = 0;
	int ret = 0;

	if (!bytes)
		ret = source_fetch(m->t->worker->source, first, span, m->by->scratch, &bytes);
	if (ret && m->lent)
		return 0;
	if (ret == -EAGAIN) {
		ask_for(m, first, span);
		return 0;
	}
	if (ret) {
		place_what_can_be_read(m, n);
		return runs[n - 1].addr + runs[n - 1].npages * PAGE_SIZE;
	}
	for (size_t i = 0; i < n; i++) {
		const struct run *r = &runs[i];

		if (!place_run(m, *r, (const char *)bytes + (r->where - first) * PAGE_SIZE))
			break;
		end = r->addr + r->npages * PAGE_SIZE;
	}
	return end;
}

void sweep_watch_guards(struct task *t)
{
	if (t->guard_tried || !t->rec->real_pid)
		return;
	t->guard_fd = guard_open(t->rec->real_pid);
	t->guard_tried = t->guard_fd >= 0 || errno != EMFILE;
}

/*
 * Looks for guards from @addr to @end, and somewhat further, to look less often. What is guarded
 * has been discarded: it is forgiven, and true says that what was gathered is out of date.
 */
static bool guards_found(struct task *t, uint64_t addr, uint64_t end, uint64_t now, bool near)
{
	struct unguarded *g = &t->unguarded[near];
	uint64_t from, to, left = task_left(t);

	sweep_watch_guards(t);
	if (t->guard_fd < 0 || (addr >= g->from && end <= g->to && now - g->ns < GUARD_NS))
		return false;
	g->from = addr;
	g->to = near ? end : MAX(end, addr + GUARD_PAGES * PAGE_SIZE);
	g->ns = now;
	if (!guard_scan(t->guard_fd, addr, g->to, &from, &to))
		return false;
	g->to = addr;
	while (space_remove(t->space, from, to))
		sched_yield();
	t->owner->tally->forgiven += left - task_left(t);
	return left != task_left(t);
}

bool sweep_slice(struct task *t, uint64_t now)
{
	struct owner *o = t->owner;
	struct slice s = schedule_next(&t->schedule, now);
	struct mover m = {.t = t, .by = o, .cause = s.cause, .now = now};
	size_t n = space_gather(t->space, s.addr, s.pages, SCHEDULE_MAX_PAGES, o->runs,
				ARRAY_SIZE(o->runs));
	bool remote = n && is_remote(t, o->runs[0].where);
	uint64_t end;

	if (!n) {
		t->ask = 0;
		schedule_done(&t->schedule, &s, 0, false);
		if (t->schedule.fruitless)
			t->not_before_ns = now + (t->noted ? RETRY_NS : 20 * PAUSE_NS);
		return false;
	}
	if (guards_found(t, o->runs[0].addr,
			 o->runs[n - 1].addr + o->runs[n - 1].npages * PAGE_SIZE, now,
			 s.cause == CAUSE_NEIGHBOUR))
		return true;
	/* What lies between two runs is not to be asked for. */
	end = place_runs(&m, remote ? 1 : n);
	if (remote && !end && s.cause == CAUSE_NEIGHBOUR) {
		/* On their way. The sweep does not wait for them. */
		end = o->runs[0].addr + o->runs[0].npages * PAGE_SIZE;
		t->cold = false;
	}
	if (remote)
		ask_ahead(t, now);
	if (m.settled)
		t->again_wait_ns = 0;
	if (end > s.addr)
		schedule_done(&t->schedule, &s, end, m.settled);
	return m.settled;
}

uint64_t sweep_lent(struct task *t, struct owner *by, uint64_t addr, uint64_t end)
{
	struct mover m = {.t = t, .by = by, .lent = true, .cause = CAUSE_BACKGROUND};
	size_t n = space_gather(t->space, addr, (end - addr) / PAGE_SIZE, SCHEDULE_MAX_PAGES,
				by->runs, ARRAY_SIZE(by->runs));
	uint64_t from, to;

	/* What lies beyond is somebody else's piece. */
	while (n && by->runs[n - 1].addr >= end)
		n--;
	if (!n)
		return 0;
	by->runs[n - 1].npages =
		MIN(by->runs[n - 1].npages, (end - by->runs[n - 1].addr) / PAGE_SIZE);
	/* The owner forgives what is guarded, in a sweep of its own. */
	if (guard_scan(t->guard_fd, addr, end, &from, &to))
		return 0;
	place_runs(&m, n);
	return m.settled;
}
