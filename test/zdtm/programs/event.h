/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the event_*.c programs stand on: arenas of page slots, and beside each arena a model of what
 * every page of it must read as. Each act on memory (map, unmap, move, discard, fork ...) is a
 * function that does the system call and the same to the model, so a check is possible at any time.
 * The model lies in shared memory until the checkpoint, which is never lazy, and in memory mapped
 * after the restore from then on: private, so a forked child takes along what it must find.
 * An arena is used by one thread at a time; arenas lie far from where the kernel puts mappings.
 */
#ifndef EVENT_H
#define EVENT_H

#include "event_page.h"

/* ---- arenas ---- */

EV struct arena *ev_arena(int k, uint32_t n)
{
	uint64_t at = 0x100000000000ULL + (uint64_t)k * 0x10000000000ULL;
	size_t len = sizeof(struct arena) + n * sizeof(struct slot);
	struct arena *a = shared_map(len);

	a->base = (unsigned char *)at;
	a->n = n;
	a->next_tag = 1;
	a->seed = test_context.seed * ARENAS_MAX + (uint64_t)k;
	arena[k] = a;
	return a;
}

/* After the restore: the model moves to memory that cannot be lazy, and everything may be owed. */
EV void ev_arenas_restored(void)
{
	for (int k = 0; k < ARENAS_MAX; k++) {
		struct arena *a = arena[k], *b;
		size_t len;

		if (!a)
			continue;
		len = sizeof(*a) + a->n * sizeof(struct slot);
		b = (struct arena *)pages_map(len);
		memcpy(b, a, len);
		munmap(a, len);
		for (uint32_t s = 0; s < b->n; s++)
			b->slot[s].flags &= (uint16_t)~S_PAID;
		arena[k] = b;
	}
}

EV void ev_map(struct arena *a, uint32_t s, uint32_t n, int prot)
{
	ev_op(a, "mmap slot %u, %u pages, prot %d", s, n, prot);
	if (mmap(ev_at(a, s), n * PAGE, prot,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		ev_fail(a, "mmap: %s", strerror(errno));
	for (; n; n--, s++)
		a->slot[s] = (struct slot){0, S_MAPPED | S_PAID, (uint16_t)prot};
}

EV int ev_writable(const struct slot *p)
{
	return (p->flags & (S_MAPPED | S_GUARD)) == S_MAPPED && (p->prot & PROT_WRITE);
}

/* New contents for every page of the range that can be written. */
EV void ev_write(struct arena *a, uint32_t s, uint32_t n)
{
	ev_op(a, "write slot %u, %u pages", s, n);
	for (; n; n--, s++) {
		struct slot *p = &a->slot[s];

		if (!ev_writable(p))
			continue;
		p->tag = a->next_tag++;
		ev_put(a, s, p->tag);
		p->flags = (uint16_t)((p->flags & ~(S_LOOSE | S_FREED)) | S_PAID);
	}
}

EV void ev_check(struct arena *a, uint32_t s, uint32_t n)
{
	char got[64];

	for (; n; n--, s++) {
		struct slot *p = &a->slot[s];
		uint64_t word;
		int sig = ev_probe(ev_at(a, s), &word);

		if (!sig && ev_guard_soft && (p->flags & S_GUARD) && (p->flags & S_SOFT))
			p->flags &= (uint16_t)~S_GUARD;
		if (!(p->flags & S_MAPPED) || (p->flags & S_GUARD) || !(p->prot & PROT_READ)) {
			if (sig != SIGSEGV)
				ev_fail(a, "%p (slot %u): expected SIGSEGV (flags %#x), got %s",
					ev_at(a, s), s, p->flags,
					sig ? strsignal(sig)
					    : ev_describe(a, ev_at(a, s), got, sizeof(got)));
			continue;
		}
		if (sig)
			ev_fail(a, "%p (slot %u): expected contents %u, got %s", ev_at(a, s), s,
				p->tag, strsignal(sig));
		if (ev_differs(a, ev_at(a, s), p->tag) < 0) {
			if (!(p->flags & S_FREED))
				p->flags &= (uint16_t)~S_LOOSE;
		} else if ((p->flags & S_LOOSE) && ev_differs(a, ev_at(a, s), 0) < 0) {
			p->tag = 0;
			p->flags &= (uint16_t) ~(S_LOOSE | S_FREED);
		} else {
			ev_fail(a, "%p (slot %u): expected contents %u%s, got %s", ev_at(a, s), s,
				p->tag, p->flags & S_LOOSE ? " or zeros" : "",
				ev_describe(a, ev_at(a, s), got, sizeof(got)));
		}
		p->flags |= S_PAID;
	}
}

EV void ev_check_all(void)
{
	for (int k = 0; k < ARENAS_MAX; k++)
		if (arena[k])
			ev_check(arena[k], 0, arena[k]->n);
}

EV void ev_unmap(struct arena *a, uint32_t s, uint32_t n)
{
	ev_op(a, "munmap slot %u, %u pages", s, n);
	if (munmap(ev_at(a, s), n * PAGE))
		ev_fail(a, "munmap: %s", strerror(errno));
	memset(&a->slot[s], 0, n * sizeof(struct slot));
}

/*
 * mremap of @n pages at @from to @m pages at @to; from == to stays in place. The source lies in one
 * mapping and does not overlap the target. 0 or -errno; only ENOMEM (no room to grow) is let
 * through.
 */
EV int ev_remap(struct arena *a, uint32_t from, uint32_t n, uint32_t to, uint32_t m, int flags)
{
	struct slot like = a->slot[from + n - 1];
	void *want = ev_at(a, to), *got;
	int err;

	ev_op(a, "mremap slot %u, %u pages, to slot %u, %u pages, flags %d", from, n, to, m, flags);
	got = mremap(ev_at(a, from), n * PAGE, m * PAGE, flags, want);
	err = errno;
	if (got == MAP_FAILED && err == ENOMEM && from == to && m > n)
		return -ENOMEM;
	if (got != want)
		ev_fail(a, "mremap: %p, expected %p: %s", got, want,
			got == MAP_FAILED ? strerror(err) : "moved elsewhere");
	if (from != to) {
		uint32_t keep = n < m ? n : m;

		memcpy(&a->slot[to], &a->slot[from], keep * sizeof(like));
		memset(&a->slot[from], 0, n * sizeof(like));
		if (flags & MREMAP_DONTUNMAP)
			for (uint32_t s = 0; s < n; s++) {
				like = a->slot[to + s];
				like.tag = 0;
				like.flags &= S_MAPPED | S_WIPE | S_NOFORK;
				like.flags |= S_PAID;
				a->slot[from + s] = like;
			}
	} else if (m < n) {
		memset(&a->slot[from + m], 0, (n - m) * sizeof(like));
	}
	like.tag = 0;
	like.flags &= S_MAPPED | S_WIPE | S_NOFORK | S_LOCKED;
	like.flags |= S_PAID;
	for (uint32_t s = n; s < m; s++)
		a->slot[to + s] = like;
	return 0;
}

EV void ev_move(struct arena *a, uint32_t from, uint32_t n, uint32_t to)
{
	ev_remap(a, from, n, to, n, MOVE);
}

/* mlock, munlock: the range is mapped and readable. */
EV void ev_lock(struct arena *a, uint32_t s, uint32_t n, int on)
{
	ev_op(a, "%s slot %u, %u pages", on ? "mlock" : "munlock", s, n);
	if (on ? mlock(ev_at(a, s), n * PAGE) : munlock(ev_at(a, s), n * PAGE))
		ev_fail(a, "mlock: %s", strerror(errno));
	for (; n; n--, s++)
		a->slot[s].flags = (uint16_t)((a->slot[s].flags & ~S_LOCKED) | (on ? S_LOCKED : 0));
}

EV void ev_protect(struct arena *a, uint32_t s, uint32_t n, int prot)
{
	ev_op(a, "mprotect slot %u, %u pages, prot %d", s, n, prot);
	if (mprotect(ev_at(a, s), n * PAGE, prot))
		ev_fail(a, "mprotect: %s", strerror(errno));
	for (; n; n--, s++)
		a->slot[s].prot = (uint16_t)prot;
}

/* madvise of any kind on a range that is mapped throughout; 0 or -errno for advice unknown here. */
EV int ev_advise(struct arena *a, uint32_t s, uint32_t n, int advice)
{
	ev_op(a, "madvise slot %u, %u pages, advice %d", s, n, advice);
	if (madvise(ev_at(a, s), n * PAGE, advice)) {
		if (errno == EINVAL &&
		    (advice == MADV_GUARD_INSTALL || advice == MADV_GUARD_REMOVE))
			return -EINVAL;
		ev_fail(a, "madvise %d: %s", advice, strerror(errno));
	}
	for (; n; n--, s++) {
		struct slot *p = &a->slot[s];
		unsigned f = p->flags;

		switch (advice) {
		case MADV_DONTNEED:
			p->tag = 0;
			f = (f & ~(S_LOOSE | S_FREED)) | S_PAID;
			break;
		case MADV_FREE:
			if (p->tag && (!(f & S_GUARD) || (f & S_SOFT)))
				f |= S_LOOSE | S_FREED;
			else
				p->tag = 0, f &= ~(S_LOOSE | S_FREED);
			f |= S_PAID;
			break;
		case MADV_GUARD_INSTALL:
			/* What is still owed may come after a GUARD_REMOVE. */
			if (f & S_PAID)
				p->tag = 0, f &= ~(S_LOOSE | S_FREED);
			else
				f |= S_LOOSE | S_SOFT;
			f |= S_GUARD;
			break;
		case MADV_GUARD_REMOVE:
			f &= ~(S_GUARD | S_SOFT);
			break;
		case MADV_WIPEONFORK:
			f |= S_WIPE;
			break;
		case MADV_KEEPONFORK:
			f &= ~S_WIPE;
			break;
		case MADV_DONTFORK:
			f |= S_NOFORK;
			break;
		case MADV_DOFORK:
			f &= ~S_NOFORK;
			break;
		}
		p->flags = (uint16_t)f;
	}
	return 0;
}

/* ---- processes ---- */

/* What fork does to @a, as the child finds it. */
EV void ev_forked(struct arena *a)
{
	for (uint32_t s = 0; s < a->n; s++) {
		struct slot *p = &a->slot[s];

		p->flags &= (uint16_t)~S_LOCKED;
		if (p->flags & S_NOFORK) {
			*p = (struct slot){0, 0, 0};
		} else if (p->flags & S_WIPE) {
			p->tag = 0;
			p->flags = S_MAPPED | S_WIPE | S_PAID;
		}
	}
}

/* Forks a child that does @fn(@arg) and exits 0. @only: the arena it may look at, NULL for all. */
EV pid_t ev_fork(struct arena *only, void (*fn)(void *), void *arg)
{
	pid_t pid;

	if (only)
		ev_op(only, "fork");
	pid = fork();
	if (pid < 0)
		ev_fail(only, "fork: %s", strerror(errno));
	if (pid)
		return pid;
	for (int k = 0; k < ARENAS_MAX; k++) {
		if (only && arena[k] != only)
			arena[k] = NULL;
		if (arena[k])
			ev_forked(arena[k]);
	}
	fn(arg);
	_exit(0);
}

EV void ev_child_checks(void *unused)
{
	(void)unused;
	ev_check_all();
}

/* ---- the program ---- */

struct act {
	const char *name;
	void (*setup)(void); /* before the dump; NULL: never dumped */
	void (*run)(void);   /* in the restored life */
};

/* Opens what is closed, and proves every page, now and once the manager has left. */
EV void ev_finish(void)
{
	for (int k = 0; k < ARENAS_MAX; k++)
		for (uint32_t s = 0; arena[k] && s < arena[k]->n; s++)
			if ((arena[k]->slot[s].flags & S_MAPPED) && arena[k]->slot[s].prot != RW)
				ev_protect(arena[k], s, 1, RW);
	ev_check_all();
	test_wait_finished();
	ev_check_all();
}

/* Shows nothing if it has come already: when the background is held, most of it must be missing. */
EV void ev_must_be_owed(void)
{
	for (int k = 0; k < ARENAS_MAX; k++) {
		uint32_t full = 0, missing = 0;

		for (uint32_t s = 0; arena[k] && s < arena[k]->n; s += 64) {
			if (!arena[k]->slot[s].tag)
				continue;
			full++;
			missing += pages_missing(ev_at(arena[k], s), PAGE) != 0;
		}
		if (missing < full - full / 8)
			ev_fail(arena[k], "only %u of %u pages are owed", missing, full);
	}
}

/* Runs the act that the first argument names. */
EV int ev_main(int argc, char **argv, const struct act *acts, size_t n)
{
	test_init(argc, argv);
	ev_catch_segv();
	for (size_t i = 0; i < n; i++) {
		if (strcmp(test_arg(0), acts[i].name))
			continue;
		if (acts[i].setup) {
			acts[i].setup();
			test_ready();
			ev_arenas_restored();
			if (test_held())
				ev_must_be_owed();
		}
		acts[i].run();
		ev_finish();
		test_pass();
	}
	test_fail("no act named \"%s\"", test_arg(0));
}

#define EV_MAIN(acts) \
	int main(int argc, char **argv) \
	{ \
		return ev_main(argc, argv, acts, sizeof(acts) / sizeof((acts)[0])); \
	}

#endif
