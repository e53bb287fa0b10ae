// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A random mix of everything that the other event programs do one by one, from a seed, for a time:
 * event_torture SEED mix THREADS MILLISECONDS [trace]. Every thread has an arena of its own;
 * children go on with the mix for a while, with children of their own. Few pages are looked at
 * meanwhile, so that much stays owed; all of them at the end. With "trace" the acts are in the file
 * of that name.
 */
#include <sys/ioctl.h>

#include "event.h"

#define PAGES	    6144
#define THREADS_MAX 4
#define FAMILY	    3

static char *fence; /* a page that is armed until everything has come */

struct torture {
	struct arena *a;
	uint64_t random;
	int depth;
	int maps; /* /proc/self/maps of this very process */
	pid_t child[FAMILY];
	struct timespec end;
};

/* PROCMAP_QUERY of Linux 6.11, which the headers in use may not have. */
struct procmap_query_args {
	uint64_t size, flags, addr, start, end, vma_flags, page_size, offset, inode;
	uint32_t major, minor, name_size, build_id_size;
	uint64_t name, build_id;
};
#define PROCMAP_QUERY_CALL _IOWR('f', 17, struct procmap_query_args)

static uint32_t pick(struct torture *t, uint32_t below)
{
	return (uint32_t)(random_next(&t->random) % below);
}

/* The slot behind the last one of the mapping that holds slot @s; s + 1 where one cannot tell. */
static uint32_t mapping_end(struct torture *t, uint32_t s)
{
	struct procmap_query_args q = {.size = sizeof(q), .addr = (uint64_t)ev_at(t->a, s)};
	uint64_t end;

	if (ioctl(t->maps, PROCMAP_QUERY_CALL, &q))
		return s + 1;
	end = (q.end - (uint64_t)t->a->base) / PAGE;
	return end < t->a->n ? (uint32_t)end : t->a->n;
}

/* How many slots from @s on, at most @n, are mapped; with @open, can be locked too. */
static uint32_t run_of(const struct arena *a, uint32_t s, uint32_t n, bool open)
{
	uint32_t i;

	for (i = 0; i < n && s + i < a->n; i++) {
		const struct slot *p = &a->slot[s + i];

		if (!(p->flags & S_MAPPED) ||
		    (open && (!(p->prot & PROT_READ) || (p->flags & S_GUARD))))
			break;
	}
	return i;
}

static void advise(struct torture *t, uint32_t s, uint32_t n, int advice)
{
	n = run_of(t->a, s, n, false);
	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++)
		if (t->a->slot[s + i].flags & S_LOCKED) {
			ev_lock(t->a, s, n, 0);
			break;
		}
	ev_advise(t->a, s, n, advice);
}

/*
 * Only by the task of the checkpoint. No event tells of it and no pid comes with a forked child:
 * the manager may not have found out which process that is. "wipe_in_child" of event_fork gives it
 * time.
 */
static void advise_inheritance(struct torture *t, uint32_t s, uint32_t n, int advice)
{
	if (!t->depth)
		advise(t, s, n, advice);
}

static void remap(struct torture *t, uint32_t s, uint32_t n, int kind)
{
	struct arena *a = t->a;
	uint32_t end, to, m;

	if (!run_of(a, s, 1, false))
		return;
	end = mapping_end(t, s);
	if (n > end - s)
		n = end - s;
	to = pick(t, a->n - n);
	m = 1 + pick(t, 2 * n);
	if (kind == 0) { /* in place */
		if (pick(t, 2))
			n = end - s;
		if (m < n || s + m <= a->n)
			ev_remap(a, s, n, s, m, 0);
	} else if (kind == 1) {
		if (to + n <= s || s + n <= to)
			ev_remap(a, s, n, to, n, MOVE | MREMAP_DONTUNMAP);
	} else {
		if (kind == 2 || to + m > a->n)
			m = n;
		if (to + m <= s || s + n <= to)
			ev_remap(a, s, n, to, m, MOVE);
	}
}

static void act(struct torture *t);

static void child(void *arg)
{
	struct torture *t = arg;

	close(t->maps);
	t->maps = open("/proc/self/maps", O_RDONLY);
	must(t->maps >= 0);
	memset(t->child, 0, sizeof(t->child));
	t->depth++;
	t->random ^= (uint64_t)t->depth << 56;
	for (int i = 0; i < 60; i++) {
		uint32_t s = pick(t, t->a->n - 8);

		ev_check(t->a, s, 8);
		act(t);
	}
	for (int i = 0; i < FAMILY; i++)
		if (t->child[i])
			child_wait(t->child[i]);
	if (pick(t, 4) == 0)
		ev_check(t->a, 0, t->a->n);
}

static void have_child(struct torture *t)
{
	int i = (int)pick(t, FAMILY);

	if (t->depth >= 4)
		return;
	if (t->child[i])
		child_wait(t->child[i]);
	t->child[i] = ev_fork(t->a, child, t);
	/*
	 * What the child does not inherit is looked up when the manager has been told of the fork,
	 * which is when we already go on. One act that it is told of, and it has looked. Without:
	 * "wipe_then_changed" of event_fork.
	 */
	must(!madvise(fence, PAGE, MADV_DONTNEED));
}

static void act(struct torture *t)
{
	static const int prots[] = {PROT_NONE, PROT_READ, RW, RW};
	struct arena *a = t->a;
	uint32_t s = pick(t, a->n - 8), n = 1 + pick(t, pick(t, 8) ? 24 : 300);
	uint32_t what = pick(t, 100);

	if (n > a->n - s)
		n = a->n - s;
	if (what < 18)
		ev_write(a, s, 1 + n / 4);
	else if (what < 36)
		ev_check(a, s, 1 + n / 8);
	else if (what < 44)
		advise(t, s, n, MADV_DONTNEED);
	else if (what < 50)
		advise(t, s, n, MADV_FREE);
	else if (what < 54)
		ev_unmap(a, s, n);
	else if (what < 61)
		ev_map(a, s, n, prots[pick(t, 4)]);
	else if (what < 66)
		remap(t, s, n, 0);
	else if (what < 69)
		remap(t, s, n, 1);
	else if (what < 75)
		remap(t, s, n, 2);
	else if (what < 79)
		remap(t, s, n, 3);
	else if (what < 84 && (n = run_of(a, s, n, false)))
		ev_protect(a, s, n, prots[pick(t, 4)]);
	else if (what < 86)
		advise(t, s, n, MADV_GUARD_INSTALL);
	else if (what < 89)
		advise(t, s, n, MADV_GUARD_REMOVE);
	else if (what < 91)
		advise_inheritance(t, s, n, pick(t, 2) ? MADV_WIPEONFORK : MADV_KEEPONFORK);
	else if (what < 93)
		advise_inheritance(t, s, n, pick(t, 3) ? MADV_DOFORK : MADV_DONTFORK);
	else if (what < 95 && (n = run_of(a, s, n, true)))
		ev_lock(a, s, n, pick(t, 2) != 0);
	else if (what < 96)
		advise(t, s, n, pick(t, 2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	else if (what < 98)
		have_child(t);
}

static bool over(const struct torture *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > t->end.tv_sec ||
	       (now.tv_sec == t->end.tv_sec && now.tv_nsec >= t->end.tv_nsec);
}

static void *mix(void *number)
{
	uint32_t k = (uint32_t)(uintptr_t)number;
	unsigned long ms = strtoul(test_arg(2), NULL, 0);
	struct torture t = {.a = arena[k], .random = k};

	t.maps = open("/proc/self/maps", O_RDONLY);
	must(t.maps >= 0);
	clock_gettime(CLOCK_MONOTONIC, &t.end);
	t.end.tv_sec +=
		(time_t)(ms / 1000) + (t.end.tv_nsec + (long)(ms % 1000) * 1000000) / 1000000000;
	t.end.tv_nsec = (t.end.tv_nsec + (long)(ms % 1000) * 1000000) % 1000000000;
	while (!over(&t))
		act(&t);
	for (int i = 0; i < FAMILY; i++)
		if (t.child[i])
			child_wait(t.child[i]);
	close(t.maps);
	return NULL;
}

static int threads(void)
{
	int n = atoi(test_arg(1));

	must(n >= 1 && n <= THREADS_MAX);
	return n;
}

/* Not one even mapping: holes, other protections, advices, so that the images have them too. */
static void setup(void)
{
	for (int k = 0; k < threads(); k++) {
		struct arena *a = ev_arena(k, PAGES);

		ev_map(a, 0, PAGES, RW);
		ev_write(a, 0, PAGES);
		for (uint32_t s = 0; s + 1024 <= PAGES; s += 1024) {
			ev_unmap(a, s + 100, 20);
			ev_advise(a, s + 200, 50, MADV_DONTNEED);
			ev_protect(a, s + 300, 30, PROT_READ);
			ev_protect(a, s + 330, 30, PROT_NONE);
			ev_advise(a, s + 400, 40, MADV_WIPEONFORK);
			ev_advise(a, s + 420, 40, MADV_DONTFORK);
		}
	}
	fence = pages_map(PAGE);
	pages_fill(fence, PAGE, 0);
	ev_guard_soft = true;
	if (!strcmp(test_arg(3), "trace"))
		ev_trace();
}

static void run(void)
{
	pthread_t t[THREADS_MAX];

	for (int i = 1; i < threads(); i++)
		must(!pthread_create(&t[i], NULL, mix, (void *)(uintptr_t)i));
	mix(NULL);
	for (int i = 1; i < threads(); i++)
		pthread_join(t[i], NULL);
}

static const struct act acts[] = {
	{"mix", setup, run},
};

EV_MAIN(acts)
