// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The arena: see arena.h. The mapping holds, in this order, the struct, one count word a page, and
 * the pages. A count word is the number of references, or FREE; the first and last word of a free
 * run also carry its length, so that neighbours join in constant time. Free runs hang in lists by
 * the power of two below their length; what was never handed out lies above `top`.
 *
 * Every list can be rebuilt from the count words and `top`, and that is what a recount does:
 * whatever a killed holder of the lock left half changed is thrown away.
 */
#include "arena.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "compiler.h"

#define FREE	UINT32_C(0x80000000)
#define NONE	UINT32_MAX
#define CLASSES 31
/* Had in advance, because a task waits while its fork is handled. */
#define WARM_BYTES (UINT64_C(1) << 20)
#define TRIES	   8 /* runs looked at in the one class whose runs may be too short */

struct arena {
	pthread_mutex_t lock; /* guards all that follows, and the words of free pages */
	uint32_t *count;
	char *pages;
	uint64_t map_bytes;
	uint32_t npages;
	uint32_t top;	/* pages from here on are in no list */
	uint32_t fresh; /* pages from here on were never handed out: they read as zeros */
	uint32_t used;
	uint32_t nonempty; /* bit c: list c has runs */
	uint32_t list[CLASSES];
};

/* Lives in the first page of a free run. */
struct free_run {
	uint32_t prev, next;
};

static struct free_run *run_at(struct arena *a, uint32_t page)
{
	return (struct free_run *)(a->pages + (uint64_t)page * ARENA_PAGE);
}

static uint32_t page_number(const struct arena *a, const void *page)
{
	uint64_t offset = (uint64_t)((const char *)page - a->pages);

	if (offset / ARENA_PAGE >= a->npages || offset % ARENA_PAGE)
		abort();
	return (uint32_t)(offset / ARENA_PAGE);
}

/* The length of the free run that starts or ends at @page; 0 when the page is in use. */
static uint32_t free_length(const struct arena *a, uint32_t page)
{
	uint32_t word = __atomic_load_n(&a->count[page], __ATOMIC_RELAXED);

	return word & FREE ? word & ~FREE : 0;
}

static int class_of(uint32_t npages)
{
	return 31 - __builtin_clz(npages);
}

static void list_remove(struct arena *a, uint32_t page, uint32_t npages)
{
	struct free_run *run = run_at(a, page);
	int c = class_of(npages);

	if (run->prev != NONE)
		run_at(a, run->prev)->next = run->next;
	else
		a->list[c] = run->next;
	if (run->next != NONE)
		run_at(a, run->next)->prev = run->prev;
	if (a->list[c] == NONE)
		a->nonempty &= ~(UINT32_C(1) << c);
}

static void list_push(struct arena *a, uint32_t page, uint32_t npages)
{
	struct free_run *run = run_at(a, page);
	int c = class_of(npages);

	run->prev = NONE;
	run->next = a->list[c];
	if (run->next != NONE)
		run_at(a, run->next)->prev = page;
	a->list[c] = page;
	a->nonempty |= UINT32_C(1) << c;
	a->count[page] = FREE | npages;
	a->count[page + npages - 1] = FREE | npages;
}

/*
 * A killed process must leave `top` above every page that somebody may have, and `fresh` above
 * every page that may be dirty: hence the order, and stores that the compiler may not move.
 */
static void raise_top(struct arena *a, uint32_t top)
{
	if (top > a->fresh)
		__atomic_store_n(&a->fresh, top, __ATOMIC_RELEASE);
	__atomic_store_n(&a->top, top, __ATOMIC_RELEASE);
}

/* Takes a run out of the lists, NONE when no listed one is long enough. */
static uint32_t take_listed(struct arena *a, uint32_t npages)
{
	bool exact = !(npages & (npages - 1));
	int c = class_of(npages) + !exact;
	uint32_t mask = c < CLASSES ? a->nonempty >> c : 0;
	uint32_t page, length;

	if (mask) {
		page = a->list[c + __builtin_ctz(mask)];
	} else if (!exact) {
		int tries = TRIES;

		for (page = a->list[c - 1]; page != NONE; page = run_at(a, page)->next)
			if (free_length(a, page) >= npages || !--tries)
				break;
		if (page == NONE || !tries)
			return NONE;
	} else {
		return NONE;
	}
	length = free_length(a, page);
	list_remove(a, page, length);
	if (length > npages)
		list_push(a, page + npages, length - npages);
	return page;
}

/* Returns the page's number or NONE. *@dirty: how many of the run's first pages may not be zero. */
static uint32_t take(struct arena *a, uint32_t npages, uint32_t *dirty)
{
	uint32_t page;

	pthread_mutex_lock(&a->lock);
	page = take_listed(a, npages);
	if (page == NONE && npages <= a->npages - a->top)
		page = a->top;
	if (page != NONE) {
		*dirty = page >= a->fresh ? 0 : MIN(npages, a->fresh - page);
		if (page == a->top)
			raise_top(a, page + npages);
		for (uint32_t i = 0; i < npages; i++)
			__atomic_store_n(&a->count[page + i], 1, __ATOMIC_RELAXED);
		__atomic_store_n(&a->used, a->used + npages, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&a->lock);
	return page;
}

/* Joins a run with its free neighbours and lists it, or lowers `top`. The lock is held. */
static void give_back(struct arena *a, uint32_t page, uint32_t npages)
{
	uint32_t before = page ? free_length(a, page - 1) : 0;
	uint32_t after = page + npages < a->top ? free_length(a, page + npages) : 0;

	for (uint32_t i = 0; i < npages; i++)
		__atomic_store_n(&a->count[page + i], FREE, __ATOMIC_RELAXED);
	if (before)
		list_remove(a, page - before, before);
	if (after)
		list_remove(a, page + npages, after);
	page -= before;
	npages += before + after;
	if (page + npages == a->top)
		__atomic_store_n(&a->top, page, __ATOMIC_RELEASE);
	else
		list_push(a, page, npages);
}

static void give(struct arena *a, uint32_t page, uint32_t npages)
{
	pthread_mutex_lock(&a->lock);
	give_back(a, page, npages);
	__atomic_store_n(&a->used, a->used - npages, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&a->lock);
}

static void lists_empty(struct arena *a)
{
	a->nonempty = 0;
	for (int c = 0; c < CLASSES; c++)
		a->list[c] = NONE;
}

int arena_new(struct arena **out, uint64_t max_bytes, struct error *e)
{
	_cleanup_close_ int fd = -1;
	uint64_t npages = max_bytes / ARENA_PAGE;
	uint64_t head, map_bytes;
	struct arena *a;

	if (!npages || npages >= FREE)
		return error_set(e, -EINVAL, "arena: %llu bytes", (unsigned long long)max_bytes);
	head = sizeof(*a) + npages * sizeof(uint32_t);
	head = (head + ARENA_PAGE - 1) / ARENA_PAGE * ARENA_PAGE;
	map_bytes = head + npages * ARENA_PAGE;

	fd = memfd_create("lazy-pages-arena", MFD_CLOEXEC);
	if (fd < 0)
		return error_errno(e, -errno, "arena: memfd_create");
	if (ftruncate(fd, (off_t)map_bytes))
		return error_errno(e, -errno, "arena: %llu bytes", (unsigned long long)map_bytes);
	a = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (a == MAP_FAILED)
		return error_errno(e, -errno, "arena: map %llu bytes",
				   (unsigned long long)map_bytes);
	a->count = (uint32_t *)((char *)a + sizeof(*a));
	a->pages = (char *)a + head;
	a->map_bytes = map_bytes;
	a->npages = (uint32_t)npages;
	lists_empty(a);
	arena_reset_lock(a);
	(void)madvise(a->pages, MIN(WARM_BYTES, npages * ARENA_PAGE), MADV_POPULATE_WRITE);
	*out = a;
	return 0;
}

void arena_free(struct arena *a)
{
	if (a)
		munmap(a, a->map_bytes);
}

void *arena_run_new(struct arena *a, size_t npages)
{
	uint32_t page, dirty;
	char *run;

	if (!npages || npages > a->npages)
		return NULL;
	page = take(a, (uint32_t)npages, &dirty);
	if (page == NONE)
		return NULL;
	run = (char *)run_at(a, page);
	memset(run, 0, (size_t)dirty * ARENA_PAGE);
	return run;
}

void arena_run_free(struct arena *a, void *run, size_t npages)
{
	uint32_t page;

	if (!run || !npages)
		return;
	page = page_number(a, run);
	if (npages > a->npages - page)
		abort();
	for (size_t i = 0; i < npages; i++)
		if (__atomic_load_n(&a->count[page + i], __ATOMIC_ACQUIRE) != 1)
			abort();
	give(a, page, (uint32_t)npages);
}

void *arena_page_new(struct arena *a, int zero)
{
	uint32_t dirty;
	uint32_t page = take(a, 1, &dirty);

	if (page == NONE)
		return NULL;
	if (zero && dirty)
		memset(run_at(a, page), 0, ARENA_PAGE);
	return run_at(a, page);
}

void arena_page_ref(struct arena *a, void *page)
{
	/* Whoever refers to a page has it already: nothing needs to be seen before this. */
	if (__atomic_fetch_add(&a->count[page_number(a, page)], 1, __ATOMIC_RELAXED) & FREE)
		abort();
}

void arena_page_put(struct arena *a, void *page)
{
	uint32_t number = page_number(a, page);
	/* Release: our reads of the page are over before the next owner writes to it. Acquire: so
	 * are those of all who put it before us, when it is we who free it. */
	uint32_t old = __atomic_fetch_sub(&a->count[number], 1, __ATOMIC_ACQ_REL);

	if (!old || (old & FREE))
		abort();
	if (old == 1)
		give(a, number, 1);
}

uint32_t arena_page_refs(const struct arena *a, const void *page)
{
	uint32_t word = __atomic_load_n(&a->count[page_number(a, page)], __ATOMIC_ACQUIRE);

	return word & FREE ? 0 : word;
}

void arena_reset_lock(struct arena *a)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&a->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	/* Best effort, and again in each process, for a fork does not hand locks on: bitmaps that
	 * are swapped out would make a fault wait for the disk. */
	(void)mlock2(a, a->map_bytes, MLOCK_ONFAULT);
}

void arena_recount_begin(struct arena *a)
{
	memset(a->count, 0, (size_t)a->top * sizeof(*a->count));
}

void arena_run_ref(struct arena *a, void *run, size_t npages)
{
	uint32_t page = page_number(a, run);

	if (npages > a->npages - page)
		abort();
	for (size_t i = 0; i < npages; i++)
		a->count[page + i]++;
}

void arena_recount_end(struct arena *a)
{
	uint32_t top = a->top;
	uint32_t page = 0;

	lists_empty(a);
	a->used = 0;
	while (page < top) {
		uint32_t end = page;

		while (end < top && !a->count[end])
			a->count[end++] = FREE;
		if (end == top)
			break;
		if (end > page)
			list_push(a, page, end - page);
		for (page = end; page < top && a->count[page]; page++)
			a->used++;
	}
	a->top = page;
}

uint64_t arena_used(const struct arena *a)
{
	return (uint64_t)__atomic_load_n(&a->used, __ATOMIC_RELAXED) * ARENA_PAGE;
}
