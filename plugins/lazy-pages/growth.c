// SPDX-License-Identifier: GPL-2.0-or-later
/* Releasing an mremap() that waits for a page of its own growth: see growth.h. */
#include "growth.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compiler.h"
#include "owner.h"
#include "place.h"
#include "worker.h"

struct mremap_call {
	uint64_t old, old_len, new_len, flags, new;
};

/* Whether thread @tid of process @pid is inside mremap(), and its arguments. */
static bool read_call(int pid, const char *tid, struct mremap_call *c)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64];
	long nr;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/syscall", pid, tid);
	f = fopen(path, "re");
	return f &&
	       fscanf(f, "%ld %lx %lx %lx %lx %lx", &nr, &c->old, &c->old_len, &c->new_len,
		      &c->flags, &c->new) == 6 &&
	       nr == SYS_mremap;
}

/* Whether a thread waits for a page: past everything else that mremap() does. "0": not known. */
static bool waits_for_page(int pid, const char *tid)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], where[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/wchan", pid, tid);
	f = fopen(path, "re");
	return f && fscanf(f, "%63s", where) == 1 && !strcmp(where, "handle_userfault");
}

/*
 * The part of what @c adds that begins at @addr, if @addr can be in what it adds. Where the kernel
 * chose the place, which nobody knows before the call returns, that is one page and not certain.
 */
static bool covers(const struct mremap_call *c, uint64_t addr, bool certain, uint64_t *end)
{
	uint64_t old_len = (c->old_len + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	uint64_t new_len = (c->new_len + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	uint64_t base = c->flags & MREMAP_FIXED ? c->new : c->old;

	if (new_len <= old_len)
		return false;
	if (addr >= base + old_len && addr < base + new_len) {
		*end = base + new_len;
		return true;
	}
	*end = addr + PAGE_SIZE;
	return !certain && c->flags & MREMAP_MAYMOVE && !(c->flags & MREMAP_FIXED);
}

static bool find_call(int pid, uint64_t addr, bool certain, uint64_t *end)
{
	bool found = false;
	struct dirent *d;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (!found && dir && (d = readdir(dir))) {
		struct mremap_call c;

		found = d->d_name[0] != '.' && read_call(pid, d->d_name, &c) &&
			waits_for_page(pid, d->d_name) && covers(&c, addr, certain, end);
	}
	if (dir)
		closedir(dir);
	return found;
}

/*
 * The same for a forked child whose pid is not known, and cannot be found by placing pages now: how
 * many processes are in such a call there. More than one are siblings that do the same.
 */
static unsigned find_callers(uint64_t addr, bool certain, uint64_t *end)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	unsigned n = 0;

	while (dir && (d = readdir(dir)))
		n += atoi(d->d_name) > 0 && find_call(atoi(d->d_name), addr, certain, end);
	if (dir)
		closedir(dir);
	return n;
}

bool growth_release(struct task *t, uint64_t addr, bool owed)
{
	struct range *r = &t->disarmed[t->ndisarmed];
	uint64_t end;
	unsigned n;

	if (t->ndisarmed == TASK_DISARMED)
		return false;
	if (t->rec->real_pid)
		n = find_call(t->rec->real_pid, addr, owed, &end);
	else
		n = find_callers(addr, true, &end);
	if (!n || (n > 1 && owed) || place_disarm(t->rec->uffd, addr, end - addr))
		return false;
	log_info(t->worker->log, "%s: mremap of locked memory goes on at 0x%llx", task_name(t).text,
		 (unsigned long long)addr);
	/* Page by page, one range is enough. */
	if (t->ndisarmed && r[-1].end == addr)
		r[-1].end = end;
	else
		t->disarmed[t->ndisarmed++] = (struct range){addr, end};
	return true;
}

void growth_rearm(struct task *t)
{
	while (t->ndisarmed) {
		struct range *r = &t->disarmed[--t->ndisarmed];

		/* It may have been unmapped since; then there is nothing to arm. */
		place_arm(t->rec->uffd, r->start, r->end - r->start);
	}
}
