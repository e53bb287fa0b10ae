// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The journal's memory: records, slots, snapshots, and what a new worker has to put right. The
 * order of stores matters wherever a comment says "commit"; a compiler barrier is enough, because
 * the reader is a process that starts after the writer has died.
 */
#include "journal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "compiler.h"

#define JOURNAL_PAGES ((sizeof(struct journal) + ARENA_PAGE - 1) / ARENA_PAGE)
#define LOG_PAGES     ((sizeof(struct task_log) + ARENA_PAGE - 1) / ARENA_PAGE)
#define RECORD_PAGES  (1 + 2 * LOG_PAGES)

_Static_assert(sizeof(struct task_log) == 16384, "a log is four pages");
_Static_assert(sizeof(struct task_record) <= ARENA_PAGE, "a record is one page");

#define commit_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)

struct journal *journal_new(struct arena *a)
{
	struct journal *j = arena_run_new(a, JOURNAL_PAGES);

	if (!j)
		return NULL;
	j->arena = a;
	j->handoff.listen_fd = j->handoff.conn_fd = -1;
	j->worker_pidfd = j->keeper_pidfd[0] = j->keeper_pidfd[1] = -1;
	return j;
}

static int log_start(struct journal *j, struct task_log *log, uint64_t base, const struct region *v,
		     size_t n)
{
	uint64_t bytes = n * sizeof(*v), pages = (bytes + ARENA_PAGE - 1) / ARENA_PAGE;
	struct region *copy = NULL;

	if (pages) {
		copy = arena_run_new(j->arena, pages);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, v, bytes);
	}
	memset(log, 0, sizeof(*log));
	log->base = base;
	log->regions = copy;
	log->nregions = n;
	log->run_pages = pages;
	return 0;
}

static void log_drop(struct journal *j, struct task_log *log)
{
	if (log->regions)
		arena_run_free(j->arena, log->regions, log->run_pages);
	log->regions = NULL;
	log->nregions = log->run_pages = 0;
}

struct task_record *journal_record_new(struct journal *j, struct owed *owed, const struct region *v,
				       size_t n)
{
	char *run = arena_run_new(j->arena, RECORD_PAGES);
	struct task_record *r = (struct task_record *)run;

	if (!run)
		return NULL;
	r->uffd = -1;
	r->owed = owed;
	r->unique = __atomic_add_fetch(&j->unique, 1, __ATOMIC_RELAXED);
	r->log[0] = (struct task_log *)(run + ARENA_PAGE);
	r->log[1] = (struct task_log *)(run + ARENA_PAGE + sizeof(struct task_log));
	if (log_start(j, r->log[0], 0, v, n)) {
		arena_run_free(j->arena, run, RECORD_PAGES);
		return NULL;
	}
	return r;
}

void journal_record_free(struct journal *j, struct task_record *r)
{
	log_drop(j, r->log[0]);
	log_drop(j, r->log[1]);
	owed_free(j->arena, r->owed);
	arena_run_free(j->arena, r, RECORD_PAGES);
}

int journal_slot_take(struct journal *j, struct task_record *r)
{
	uint32_t i;

	for (i = 0; i < j->nslots; i++)
		if (!j->slot[i])
			break;
	if (i == JOURNAL_TASKS)
		return -ENOSPC;
	if (i == j->nslots)
		j->nslots++;
	commit_barrier();
	j->slot[i] = r;
	commit_barrier();
	return (int)i;
}

int journal_snapshot(struct journal *j, struct task_record *r, const struct region *v, size_t n)
{
	struct task_log *old = r->log[r->active], *log = r->log[!r->active];
	int ret = log_start(j, log, old->base + JOURNAL_MESSAGES, v, n);

	if (ret)
		return ret;
	commit_barrier();
	r->active = !r->active;
	commit_barrier();
	log_drop(j, old);
	return 0;
}

void journal_recount(struct journal *j)
{
	arena_reset_lock(j->arena);
	arena_recount_begin(j->arena);
	arena_run_ref(j->arena, j, JOURNAL_PAGES);
	for (uint32_t i = 0; i < j->nslots; i++) {
		struct task_record *r = j->slot[i];
		struct task_log *log, *spare;

		if (!r)
			continue;
		log = r->log[r->active];
		spare = r->log[!r->active];
		arena_run_ref(j->arena, r, RECORD_PAGES);
		if (log->regions)
			arena_run_ref(j->arena, log->regions, log->run_pages);
		spare->regions = NULL;
		spare->nregions = spare->run_pages = 0;
		owed_recount(j->arena, r->owed);
	}
	arena_recount_end(j->arena);
}

static bool child_is_ready(const struct journal *j, uint64_t parent, uint64_t born)
{
	for (uint32_t i = 0; i < j->nslots; i++) {
		const struct task_record *r = j->slot[i];

		if (r && r->parent == parent && r->born == born)
			return !r->embryo;
	}
	return false;
}

void journal_settle_forks(struct journal *j)
{
	for (uint32_t i = 0; i < j->nslots; i++) {
		struct task_record *r = j->slot[i];
		struct task_log *log = r ? r->log[r->active] : NULL;

		for (size_t k = 0; log && k < JOURNAL_MESSAGES && log->msg[k].event; k++)
			if (log->msg[k].event == UFFD_EVENT_FORK &&
			    child_is_ready(j, r->unique, log->base + k))
				log->msg[k].event = JOURNAL_EVENT_DONE;
	}
}

static bool log_names_fd(const struct task_log *log, int fd)
{
	for (size_t i = 0; i < JOURNAL_MESSAGES && log->msg[i].event; i++)
		if (log->msg[i].event == UFFD_EVENT_FORK && (int)log->msg[i].arg.fork.ufd == fd)
			return true;
	return false;
}

static bool handoff_names_fd(const struct handoff_record *h, int fd)
{
	struct msghdr m = {.msg_control = (void *)(uintptr_t)h->control,
			   .msg_controllen = sizeof(h->control)};
	struct cmsghdr *c;

	if (fd == h->listen_fd || fd == h->conn_fd)
		return true;
	for (c = CMSG_FIRSTHDR(&m); c && c->cmsg_len >= sizeof(*c); c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    !memcmp(CMSG_DATA(c), &fd, sizeof(fd)))
			return true;
	return false;
}

bool journal_names_fd(const struct journal *j, int fd)
{
	if (fd == j->worker_pidfd || fd == j->keeper_pidfd[0] || fd == j->keeper_pidfd[1])
		return true;
	if (handoff_names_fd(&j->handoff, fd) || (j->root.pid && fd == j->root.pidfd) ||
	    (j->link.open && fd == j->link.fd))
		return true;
	for (uint32_t i = 0; i < j->nslots; i++) {
		const struct task_record *r = j->slot[i];

		if (r && (r->uffd == fd || log_names_fd(r->log[r->active], fd)))
			return true;
	}
	return false;
}
