// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One slice of the background: gather owed runs that lie together in a file, get their bytes with
 * one read, place run by run. See sweep.h.
 */
#include "sweep.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "compiler.h"
#include "owner.h"
#include "place.h"
#include "worker.h"

#define PAUSE_NS 1000000u    /* after a call that could not be done just now */
#define RETRY_NS 1000000000u /* after a read error */
#define STUCK_NS 1000000000u /* owed, in no armed mapping and no event for so long: forgiven */

bool bytes_are_zero(const void *p, size_t len)
{
	const uint64_t *w = p;

	/* A block is zero when its first word is and when it equals itself, one word further on. */
	return !w[0] && !memcmp(w, w + 1, len - sizeof(*w));
}

static void settle(struct task *t, uint64_t index, uint64_t npages)
{
	while (owed_clear(t->worker->journal->arena, t->rec->owed, index, index + npages) < 0)
		sched_yield();
	t->stuck_since_ns = 0;
}

/* The pages at the start of @bytes that are alike in being zero or not. */
static uint64_t alike(const char *bytes, uint64_t npages, bool *zero)
{
	uint64_t n = 1;

	*zero = bytes_are_zero(bytes, PAGE_SIZE);
	while (n < npages && bytes_are_zero(bytes + n * PAGE_SIZE, PAGE_SIZE) == *zero)
		n++;
	return n;
}

/*
 * Pages that we owe and that are in no armed mapping. The event that explains it may not be in the
 * queue yet, so they are passed over; only when nothing else is left to do and nothing has
 * come for a long time are they taken for pages that the task cannot have (MADV_DONTFORK in a
 * child, a mapping that was never armed because CRIU filled it itself).
 */
static void no_mapping(struct task *t, const struct run *r, uint64_t now)
{
	if (!t->stuck_since_ns)
		t->stuck_since_ns = now;
	if (!schedule_exhausted(&t->schedule) || now - t->stuck_since_ns < STUCK_NS)
		return;
	log_info(t->worker->log, "%s: 0x%llx and %llu pages are in no lazy mapping; given up",
		 task_name(t).text, (unsigned long long)r->addr, (unsigned long long)r->npages);
	t->owner->tally->forgiven += r->npages;
	while (owed_clear(t->worker->journal->arena, t->rec->owed, r->index, r->index + r->npages) <
	       0)
		sched_yield();
}

/* Places one run. Returns false when the slice must stop. *progress counts settled pages. */
static bool place_run(struct task *t, struct run r, const char *bytes, enum cause cause,
		      uint64_t now, uint64_t *progress)
{
	struct tally *tally = t->owner->tally;
	uint64_t most = r.npages; /* shrinks where a mapping ends inside the run */

	while (r.npages) {
		bool zero;
		uint64_t n = alike(bytes, MIN(r.npages, most), &zero);
		struct placed p = zero ? place_zero(t->rec->uffd, r.addr, n * PAGE_SIZE)
				       : place_copy(t->rec->uffd, r.addr, bytes, n * PAGE_SIZE);

		switch (p.outcome) {
		case PLACE_DONE:
			n = p.bytes / PAGE_SIZE;
			tally->placed[cause] += n;
			tally->zero += zero ? n : 0;
			break;
		case PLACE_EXISTS:
			n = 1;
			tally->existed++;
			break;
		case PLACE_NO_MAPPING:
			if (n > 1) {
				most = n / 2;
				continue;
			}
			no_mapping(t, &r, now);
			return true;
		case PLACE_AGAIN:
			tally->again++;
			return false;
		case PLACE_GONE:
			t->gone = true;
			return false;
		default:
			if (!t->noted)
				log_error(t->worker->log,
					  "%s: 0x%llx cannot be placed: %s; waiting",
					  task_name(t).text, (unsigned long long)r.addr,
					  strerror(p.err));
			t->noted = true;
			t->not_before_ns = now + PAUSE_NS;
			return false;
		}
		settle(t, r.index, n);
		*progress += n;
		r.index += n;
		r.addr += n * PAGE_SIZE;
		r.npages -= n;
		bytes += n * PAGE_SIZE;
		most = MAX(most, UINT64_C(1)) * 2;
	}
	return true;
}

static int fetch(struct task *t, uint64_t where, uint64_t npages, const void **bytes, uint64_t now)
{
	struct worker *w = t->worker;
	int ret = source_fetch(w->source, where, npages, t->owner->scratch, bytes);

	if (!ret)
		return 0;
	if (ret == -EAGAIN) {
		if (!source_want(w->source, where, npages, false, t->owner->wake_fd))
			t->cold = true;
		else
			t->not_before_ns = now + PAUSE_NS;
		return ret;
	}
	if (!t->noted)
		log_error(w->log, "%s: %s cannot be read at page %llu: %s; trying again",
			  task_name(t).text, w->checkpoint->files[WHERE_FILE(where)].name,
			  (unsigned long long)WHERE_PAGE(where), strerror(-ret));
	t->noted = true;
	t->not_before_ns = now + RETRY_NS;
	return ret;
}

bool sweep_slice(struct task *t, uint64_t now)
{
	struct owner *o = t->owner;
	struct slice s = schedule_next(&t->schedule, now);
	size_t n = space_gather(t->space, s.addr, s.pages, SCHEDULE_MAX_PAGES, o->runs,
				ARRAY_SIZE(o->runs));
	uint64_t progress = 0, first, span, end;
	const void *bytes;

	if (!n) {
		schedule_done(&t->schedule, &s, 0);
		if (t->stuck_since_ns)
			t->not_before_ns = now + 20 * PAUSE_NS;
		return false;
	}
	first = o->runs[0].where;
	span = o->runs[n - 1].where + o->runs[n - 1].npages - first;
	if (fetch(t, first, span, &bytes, now))
		return false;
	end = s.addr;
	for (size_t i = 0; i < n; i++) {
		const struct run *r = &o->runs[i];

		if (!place_run(t, *r, (const char *)bytes + (r->where - first) * PAGE_SIZE, s.cause,
			       now, &progress))
			break;
		end = r->addr + r->npages * PAGE_SIZE;
	}
	if (progress)
		t->noted = false;
	if (end > s.addr)
		schedule_done(&t->schedule, &s, end);
	return progress > 0;
}
