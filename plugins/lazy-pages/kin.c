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

#define TRIALS	       32
#define PLACE_TRIES    2000
#define PLACE_WAIT_NS  50000
#define CANDIDATES_MAX 32768
#define PRESENT	       (UINT64_C(3) << 62) /* in memory, or in swap */
#define GUARD	       (UINT64_C(1) << 58) /* since 6.15 */

struct candidates {
	int *pid;
	size_t n, room;
};

static void candidates_free(struct candidates *c)
{
	free(c->pid);
}

static void add(struct candidates *c, int pid)
{
	if (c->n == c->room && c->room < CANDIDATES_MAX) {
		size_t room = c->room ? c->room * 2 : 64;
		int *v = reallocarray(c->pid, room, sizeof(*v));

		if (!v)
			return;
		c->pid = v;
		c->room = room;
	}
	if (pid > 0 && c->n < c->room)
		c->pid[c->n++] = pid;
}

static void add_children(struct candidates *c, int parent)
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
			add(c, pid);
	}
	if (dir)
		closedir(dir);
}

static void add_everybody(struct candidates *c)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		add(c, atoi(d->d_name));
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

/* Places the page of @r, as the sweep would. */
static bool place(struct task *t, const struct run *r)
{
	struct worker *w = t->worker;
	const void *bytes;
	struct placed p = {.outcome = PLACE_AGAIN};

	if (source_fetch(w->source, r->where, 1, t->owner->scratch, &bytes))
		return false;
	/* The fork whose event has just been read may not have got to its end. */
	for (int i = 0; i < PLACE_TRIES && p.outcome == PLACE_AGAIN; i++) {
		if (i)
			nanosleep(&(struct timespec){.tv_nsec = PLACE_WAIT_NS}, NULL);
		p = place_copy(t->rec->uffd, r->addr, bytes, PAGE_SIZE);
	}
	if (p.outcome == PLACE_GONE)
		t->gone = true;
	if (p.outcome != PLACE_DONE)
		return false;
	t->owner->tally->placed[CAUSE_BACKGROUND]++;
	while (owed_clear(w->journal->arena, t->rec->owed, r->index, r->index + 1) < 0)
		sched_yield();
	return true;
}

/* An owed page at a place that nobody else is likely to be filling at this moment. */
static bool some_page(const struct task *t, int trial, struct run *r)
{
	const struct region *v;
	size_t n = space_regions(t->space, &v);
	uint64_t mix = (t->rec->unique * 64 + (uint64_t)trial + 1) * 0x9e3779b97f4a7c15;
	const struct region *in = n ? &v[mix % n] : NULL;
	uint64_t offset = in ? (mix >> 20) % (in->end - in->start) & ~(PAGE_SIZE - 1) : 0;

	return in && (space_gather(t->space, in->start + offset, 1, 1, r, 1) ||
		      space_gather(t->space, 0, 1, 1, r, 1));
}

/* Moves those that have nothing at @addr to the front; returns how many. -1: one has a guard. */
static ssize_t without_page(struct candidates *c, uint64_t addr)
{
	size_t front = 0;

	for (size_t i = 0; i < c->n; i++) {
		int pid = c->pid[i];
		enum look there = look(pid, addr);

		if (there == GUARDED)
			return -1; /* it could be the child, and the guard would be overwritten */
		if (there != NOTHING)
			continue;
		c->pid[i] = c->pid[front];
		c->pid[front++] = pid;
	}
	return (ssize_t)front;
}

/*
 * The child is among the candidates or not. If it is, it is one of those in whose page table the
 * page appears; one that is not the child may be, too, by chance, when its owner fills the same
 * page at that moment: so the last one has to pass twice. A trial that nobody passes says nothing.
 */
static int find_among(struct task *t, struct candidates *c)
{
	bool alone = false;

	for (int i = 0; i < TRIALS && c->n && !t->gone; i++) {
		size_t kept = 0;
		ssize_t before;
		struct run r;

		if (!some_page(t, i, &r))
			return 0;
		before = without_page(c, r.addr);
		if (before <= 0 || !place(t, &r))
			continue;
		for (size_t k = 0; k < (size_t)before; k++)
			if (look(c->pid[k], r.addr) == PAGE)
				c->pid[kept++] = c->pid[k];
		if (!kept)
			continue;
		c->n = kept;
		if (kept == 1 && alone)
			return c->pid[0];
		alone = kept == 1;
	}
	return 0;
}

int kin_find_pid(struct task *t)
{
	_cleanup_(candidates_free) struct candidates near = {0};
	_cleanup_(candidates_free) struct candidates all = {0};
	int pid = 0;

	if (t->rec->real_pid)
		return t->rec->real_pid;
	if (t->rec->parent_pid) {
		add_children(&near, t->rec->parent_pid);
		pid = find_among(t, &near);
	}
	/* Its parent is not known or has died. */
	if (!pid && !t->gone) {
		add_everybody(&all);
		pid = find_among(t, &all);
	}
	t->rec->real_pid = pid;
	log_debug(t->worker->log, "%s: is process %d", task_name(t).text, pid);
	return pid;
}
