// SPDX-License-Identifier: GPL-2.0-or-later
/* Telling a forked child by its page table: see kin.h. */
#include "kin.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"
#include "owner.h"
#include "place.h"
#include "worker.h"

#define TRIALS	       16
#define PLACE_TRIES    40 /* of all trials of one call together */
#define PLACE_WAIT_NS  50000
#define CANDIDATES_MAX 1024
#define FEW	       16 /* candidates that may be looked at while a fault waits */
#define PRESENT	       (UINT64_C(3) << 62) /* in memory, or in swap */
#define GUARD	       (UINT64_C(1) << 58) /* since 6.15 */

/* Who it can be. */
struct kin {
	int *pid;
	size_t n, room;
	size_t without; /* those in front, which have nothing at the page in question */
	unsigned trials;
	bool alone;	/* there was one left after the last trial */
	bool everybody; /* not just the parent's children */
};

void kin_free(struct kin *k)
{
	if (k)
		free(k->pid);
	free(k);
}

static void add(struct kin *k, int pid)
{
	if (k->n == k->room && k->room < CANDIDATES_MAX) {
		size_t room = k->room ? k->room * 2 : 64;
		int *v = reallocarray(k->pid, room, sizeof(*v));

		if (!v)
			return;
		k->pid = v;
		k->room = room;
	}
	if (pid > 0 && k->n < k->room)
		k->pid[k->n++] = pid;
}

static void add_children(struct kin *k, int parent)
{
	struct dirent *d;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", parent);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		_cleanup_fclose_ FILE *f = NULL;
		int pid;

		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/children", parent, d->d_name);
		f = fopen(path, "re");
		while (f && fscanf(f, "%d", &pid) == 1)
			add(k, pid);
	}
	if (dir)
		closedir(dir);
}

static void add_everybody(struct kin *k)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		add(k, atoi(d->d_name));
	if (dir)
		closedir(dir);
}

enum look { NOTHING, PAGE, GUARDED, NO_ANSWER };

/* What the page table of process @pid has at @addr. */
static enum look look(int pid, uint64_t addr)
{
	_cleanup_close_ int fd = -1;
	uint64_t entry;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &entry, sizeof(entry), (off_t)(addr / PAGE_SIZE * sizeof(entry))) !=
			      (ssize_t)sizeof(entry))
		return NO_ANSWER;
	if (entry & GUARD)
		return GUARDED;
	return entry & PRESENT ? PAGE : NOTHING;
}

static bool kin_open(struct task *t, bool everybody)
{
	struct kin *k = t->kin;

	if (!k)
		k = t->kin = calloc(1, sizeof(*k));
	if (!k)
		return false;
	if (k->n)
		return true;
	if (!k->trials && t->rec->parent_pid)
		add_children(k, t->rec->parent_pid);
	if (!k->n && everybody && !k->everybody) {
		/* The parent is not known, or has died. */
		k->everybody = true;
		add_everybody(k);
	}
	return k->n;
}

/* False when this page cannot tell, or must not be placed: a guard would be overwritten. */
static bool before(struct kin *k, uint64_t addr)
{
	k->without = 0;
	for (size_t i = 0; i < k->n; i++) {
		int pid = k->pid[i];
		enum look there = look(pid, addr);

		if (there == GUARDED) {
			k->without = 0;
			return false;
		}
		if (there != NOTHING)
			continue;
		k->pid[i] = k->pid[k->without];
		k->pid[k->without++] = pid;
	}
	return k->without;
}

/*
 * The child is one of those in whose page table the page has appeared, if it is a candidate at
 * all. Another can be there by chance, when its owner has filled the same page at that moment: so
 * the last one has to pass twice. A trial that nobody passes says nothing, but too many of them say
 * that the child is not among them.
 */
static void after(struct task *t, uint64_t addr)
{
	struct kin *k = t->kin;
	size_t kept = 0;

	for (size_t i = 0; i < k->without; i++)
		if (look(k->pid[i], addr) == PAGE)
			k->pid[kept++] = k->pid[i];
	if (++k->trials % TRIALS == 0 && !kept)
		k->n = 0;
	if (!kept) {
		k->without = 0;
		return;
	}
	k->n = kept;
	if (kept == 1 && k->alone) {
		t->rec->real_pid = k->pid[0];
		log_debug(t->worker->log, "%s: is process %d", task_name(t).text, k->pid[0]);
	}
	k->alone = kept == 1;
	k->without = 0;
}

static bool is_sought(const struct task *t)
{
	return t->rec->parent && !t->rec->real_pid && (!t->kin || t->kin->trials < 2 * TRIALS);
}

void kin_before(struct task *t, uint64_t addr)
{
	if (is_sought(t) && kin_open(t, false) && t->kin->n <= FEW)
		before(t->kin, addr);
}

void kin_after(struct task *t, uint64_t addr)
{
	if (is_sought(t) && t->kin && t->kin->without)
		after(t, addr);
}

/* Places the page of @r, as the sweep would. */
static bool place(struct task *t, const struct run *r, int *tries)
{
	struct worker *w = t->worker;
	struct placed p = {.outcome = PLACE_AGAIN};
	const void *bytes;

	if (source_fetch(w->source, r->where, 1, t->owner->scratch, &bytes)) {
		*tries = 0; /* not here: nothing is known by it */
		return false;
	}
	/* The fork whose event has just been read may not have got to its end. */
	while (p.outcome == PLACE_AGAIN && (*tries)-- > 0) {
		p = place_copy(t->rec->uffd, r->addr, bytes, PAGE_SIZE);
		if (p.outcome == PLACE_AGAIN)
			nanosleep(&(struct timespec){.tv_nsec = PLACE_WAIT_NS}, NULL);
	}
	if (p.outcome == PLACE_GONE)
		t->gone = true;
	if (p.outcome != PLACE_DONE)
		return false;
	t->owner->tally->placed[CAUSE_BACKGROUND]++;
	task_settle(t, r->index, 1);
	return true;
}

/* An owed page at a place that nobody else is likely to be filling at this moment. */
static bool some_page(const struct task *t, struct run *r)
{
	const struct region *v;
	size_t n = space_regions(t->space, &v);
	uint64_t mix = (t->rec->unique * 64 + t->kin->trials + 1) * 0x9e3779b97f4a7c15;
	const struct region *in = n ? &v[mix % n] : NULL;
	uint64_t offset = in ? (mix >> 20) % (in->end - in->start) & ~(PAGE_SIZE - 1) : 0;

	return in && (space_gather(t->space, in->start + offset, 1, 1, r, 1) ||
		      space_gather(t->space, 0, 1, 1, r, 1));
}

int kin_find_pid(struct task *t)
{
	int tries = PLACE_TRIES;

	while (is_sought(t) && !t->gone && tries > 0 && kin_open(t, true)) {
		struct run r;

		if (!some_page(t, &r))
			break;
		if (before(t->kin, r.addr) && place(t, &r, &tries))
			after(t, r.addr);
		else if (tries > 0)
			t->kin->trials++;
	}
	return t->rec->real_pid;
}
