// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Answering page faults: see fault.h. What the kernel says to an attempt decides: AGAIN means that
 * an event is on its way which may change what this address is, so the fault is kept and the queue
 * read. A wrong guess is thereby impossible; it is the kernel that refuses it.
 */
#include "fault.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"
#include "events.h"
#include "growth.h"
#include "kin.h"
#include "owner.h"
#include "place.h"
#include "sweep.h"
#include "worker.h"

#define KNOT_NS	     20000000 /* of EAGAIN and no event, before growth.h is asked */
#define KNOT_MORE_NS 100000   /* the same, while one is being undone */
#define WANTED_NS    200000000
#define IDLE_ROUNDS  16 /* of EAGAIN without a message, before others have their turn */
#define ROUNDS	     64 /* of reading and answering, before others have their turn */
#define ZERO_WINDOW  16 /* pages made zero around a page that has no contents */

enum answer { ANSWERED, KEEP, KEEP_AND_READ };

void fault_add(struct task *t, uint64_t addr, bool write, uint64_t now)
{
	for (size_t i = 0; i < t->nfaults; i++) {
		if (t->faults[i].addr == addr) {
			t->faults[i].write |= write;
			return;
		}
	}
	if (t->nfaults == t->faults_room) {
		size_t room = t->faults_room ? t->faults_room * 2 : 16;
		struct fault *v = realloc(t->faults, room * sizeof(*v));

		if (!v) {
			/* The thread that waits is made to ask again. */
			place_wake(t->rec->uffd, addr, PAGE_SIZE);
			return;
		}
		t->faults = v;
		t->faults_room = room;
	}
	t->faults[t->nfaults++] = (struct fault){.addr = addr, .read_ns = now, .write = write};
}

static enum answer trouble(struct task *t, struct fault *f, struct placed p, bool owed)
{
	const struct log *log = t->worker->log;

	switch (p.outcome) {
	case PLACE_AGAIN:
		t->owner->tally->again++;
		if (!f->again_ns)
			f->again_ns = now_ns();
		if (now_ns() - f->again_ns > (t->ndisarmed ? KNOT_MORE_NS : KNOT_NS)) {
			if (growth_release(t, f->addr, owed))
				return ANSWERED;
			f->again_ns = now_ns(); /* not so soon again: it looks at processes */
		}
		return KEEP_AND_READ;
	case PLACE_GONE:
		t->gone = true;
		return ANSWERED;
	case PLACE_NO_MAPPING:
		/* Unmapped since, and the event is read next; who still waits must ask again. */
		place_wake(t->rec->uffd, f->addr, PAGE_SIZE);
		return ANSWERED;
	default:
		if (!t->noted)
			log_error(log, "%s: page 0x%llx cannot be placed: %s; it waits",
				  task_name(t).text, (unsigned long long)f->addr, strerror(p.err));
		t->noted = true;
		return KEEP;
	}
}

static enum answer answer_owed(struct task *t, struct fault *f, uint64_t index)
{
	struct owner *o = t->owner;
	struct worker *w = t->worker;
	uint64_t where = extents_where(&t->image->extents, index), now;
	const void *bytes;
	struct placed p;
	bool zero;
	int ret = source_fetch(w->source, where, 1, o->scratch, &bytes);

	if (ret == -EAGAIN) {
		/* Asked again after a while: the page may have left the cache before we came. */
		if (f->wanted && now_ns() - f->wanted_ns > WANTED_NS)
			f->wanted = false;
		f->wanted_ns = f->wanted ? f->wanted_ns : now_ns();
		if (!f->wanted) {
			f->wanted = !source_want(w->source, where, 1, true, o->wake_fd);
			sweep_ask_near(t, f->addr + PAGE_SIZE);
		}
		return KEEP;
	}
	f->wanted = false;
	if (ret) {
		if (!t->noted)
			log_error(w->log,
				  "%s: page 0x%llx: %s cannot be read at page %llu: %s; "
				  "the task waits",
				  task_name(t).text, (unsigned long long)f->addr,
				  w->checkpoint->files[WHERE_FILE(where)].name,
				  (unsigned long long)WHERE_PAGE(where), strerror(-ret));
		t->noted = true;
		return KEEP;
	}
	zero = !f->write && bytes_are_zero(bytes, PAGE_SIZE);
	kin_before(t, f->addr);
	p = zero ? place_zero(t->rec->uffd, f->addr, PAGE_SIZE)
		 : place_copy(t->rec->uffd, f->addr, bytes, PAGE_SIZE);
	if (p.outcome != PLACE_DONE && p.outcome != PLACE_EXISTS)
		return trouble(t, f, p, true);
	now = now_ns();
	if (p.outcome == PLACE_DONE) {
		kin_after(t, f->addr);
		o->tally->placed[CAUSE_FAULT]++;
		o->tally->zero += zero;
		tally_stall(o->tally, now - f->read_ns);
	} else {
		o->tally->existed++;
	}
	task_settle(t, index, 1);
	schedule_fault(&t->schedule, f->addr, now);
	t->noted = false;
	t->stuck_since_ns = 0;
	return ANSWERED;
}

/* How many pages from @addr on have no contents that are owed, to make zero with one call. */
static uint64_t zero_window(const struct task *t, uint64_t addr)
{
	uint64_t n, index;

	for (n = 1; n < ZERO_WINDOW; n++)
		if (space_lookup(t->space, addr + n * PAGE_SIZE, &index) == PAGE_OWED)
			break;
	return n;
}

static enum answer answer_zero(struct task *t, struct fault *f)
{
	static const char zeros[PAGE_SIZE] __attribute__((aligned(4096)));
	uint64_t more = zero_window(t, f->addr) - 1;
	struct placed p;

	/* A page that is about to be written gets memory of its own at once: one fault, not two. */
	if (f->write)
		p = place_copy(t->rec->uffd, f->addr, zeros, PAGE_SIZE);
	else
		p = place_zero(t->rec->uffd, f->addr, PAGE_SIZE);
	if (p.outcome != PLACE_DONE && p.outcome != PLACE_EXISTS)
		return trouble(t, f, p, false);
	t->owner->tally->zero_faults++;
	/* Only if the page itself was missing are its neighbours likely to be. A window that
	 * crosses the end of the mapping is refused whole, which does no harm. */
	if (p.outcome == PLACE_DONE && more)
		place_zero(t->rec->uffd, f->addr + PAGE_SIZE, more * PAGE_SIZE);
	t->schedule.last_fault_ns = now_ns();
	return ANSWERED;
}

/* Answers what can be answered; returns true when the queue must be read again first. */
static bool answer_all(struct task *t, bool drained)
{
	bool read_again = false;
	size_t kept = 0;

	for (size_t i = 0; i < t->nfaults; i++) {
		struct fault *f = &t->faults[i];
		enum answer a = KEEP_AND_READ;
		uint64_t index;

		if (t->gone) {
			a = ANSWERED;
		} else {
			enum page_state state = space_lookup(t->space, f->addr, &index);

			if (state == PAGE_OWED)
				a = answer_owed(t, f, index);
			else if (state == PAGE_CLEAR || drained)
				a = answer_zero(t, f);
		}
		read_again |= a == KEEP_AND_READ;
		if (a != ANSWERED)
			t->faults[kept++] = *f;
	}
	t->nfaults = kept;
	return read_again;
}

void fault_serve(struct task *t)
{
	int idle = 0;

	for (int round = 0; round < ROUNDS && idle < IDLE_ROUNDS && !t->gone; round++) {
		bool drained, read_again;
		size_t n = events_read(t, now_ns(), &drained);

		read_again = answer_all(t, drained);
		if (drained && !read_again)
			break;
		if (!n) {
			idle++;
			sched_yield();
		}
	}
}
