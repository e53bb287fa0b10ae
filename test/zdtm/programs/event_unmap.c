// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mappings that go, shrink, change and are replaced while memory is owed: munmap of any size, new
 * mappings at old addresses, brk, mprotect, mlock. Nothing old may show up at a new mapping.
 */
#include "event.h"

#define PAGES 4096

static void setup_one(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_write(arena[0], 0, PAGES);
}

/* ---- munmap ---- */

static void run_part(void)
{
	struct arena *a = arena[0];
	uint64_t random = 0;

	ev_unmap(a, 0, 1);
	ev_unmap(a, PAGES - 1, 1);
	for (int i = 0; i < 60; i++) {
		uint32_t n = 1 + (uint32_t)(random_next(&random) % 40);
		uint32_t s = (uint32_t)(random_next(&random) % (PAGES - 64));

		ev_unmap(a, s, n);
		ev_check(a, s < 10 ? 0 : s - 10, n + 20);
	}
}

static void setup_all(void)
{
	setup_one();
	ev_arena(1, 64);
	ev_map(arena[1], 0, 64, RW);
	ev_write(arena[1], 0, 64);
}

static void run_all(void)
{
	ev_check(arena[0], 17, 1);
	ev_unmap(arena[0], 0, PAGES);
	ev_unmap(arena[1], 0, 64);
}

/* ---- areas of several GiB with a few pages in them ---- */

static char *big;
static uint64_t big_bytes;

static uint64_t big_page(unsigned i)
{
	static const uint64_t first[] = {0, PAGE, 2 * GIB - PAGE, 2 * GIB};

	if (i < 4)
		return first[i];
	return i == 4 ? big_bytes - PAGE : (i - 4) * (big_bytes / 32) + 3 * PAGE;
}

#define BIG_PAGES 36

static void setup_big(void)
{
	setup_one();
	big_bytes = strtoull(test_arg(1), NULL, 0) * GIB;
	big = pages_map_flags(big_bytes + 2 * PAGE, RW, MAP_NORESERVE);
	/* Mappings that merge with neighbours would hide where it ends. */
	must(!mprotect(big, PAGE, PROT_NONE));
	must(!mprotect(big + PAGE + big_bytes, PAGE, PROT_NONE));
	big += PAGE;
	for (unsigned i = 0; i < BIG_PAGES; i++)
		pages_fill(big + big_page(i), PAGE, page_key(big + big_page(i)));
}

/* @from, @to: what is gone, from the start of the area. */
static void big_check(uint64_t from, uint64_t to, bool mapped)
{
	for (unsigned i = 0; i < BIG_PAGES; i++) {
		char *p = big + big_page(i);
		uint64_t word;

		if (big_page(i) < from || big_page(i) >= to)
			pages_check("kept", p, PAGE, page_key(p));
		else if (mapped)
			pages_check_zero("gone", p, PAGE);
		else if (ev_probe(p, &word) != SIGSEGV)
			test_fail("gone: %p can be read", (void *)p);
	}
}

static void run_big_unmap(void)
{
	pages_check("before", big + 2 * GIB, PAGE, page_key(big + 2 * GIB));
	must(!munmap(big + PAGE, big_bytes - 2 * PAGE));
	big_check(PAGE, big_bytes - PAGE, false);
	must(mmap(big + PAGE, big_bytes - 2 * PAGE, RW,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == big + PAGE);
	big_check(PAGE, big_bytes - PAGE, true);
	ev_check_all();
	must(!munmap(big, big_bytes));
	big_check(0, big_bytes, false);
}

static void run_big_dontneed(void)
{
	must(!madvise(big + PAGE, big_bytes - 2 * PAGE, MADV_DONTNEED));
	big_check(PAGE, big_bytes - PAGE, true);
	ev_check_all();
	big_check(PAGE, big_bytes - PAGE, true);
}

static void run_big_move(void)
{
	char *to = mmap(NULL, big_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			0);

	must(to != MAP_FAILED);
	must(mremap(big, big_bytes, big_bytes, MOVE, to) == to);
	for (unsigned i = 0; i < BIG_PAGES; i++)
		pages_check("moved", to + big_page(i), PAGE, page_key(big + big_page(i)));
	pages_check_zero("moved", to + big_bytes / 2 + 2 * PAGE, PAGE);
	must(!munmap(to, big_bytes));
}

/* ---- new mappings at once where old ones were ---- */

static void run_replaced(void)
{
	struct arena *a = arena[0];

	for (uint32_t i = 0; i < 200; i++) {
		uint32_t s = i * 20;

		if (i & 1)
			ev_unmap(a, s, 12);
		ev_map(a, s, 12, RW);
		if (i & 2)
			ev_write(a, s + 4, 4);
		ev_check(a, s, 20);
	}
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* Threads read what comes where old contents were: never the old. */
static volatile uint32_t replaced;

static void *reads_new_mappings(void *unused)
{
	struct arena *a = arena[0];
	uint32_t i, last = 0;

	while ((i = replaced) < 200) {
		uint64_t word;

		/* The round may go on while we read, but a replaced page stays replaced. */
		if (i != last && !ev_probe(ev_at(a, (i - 1) * 20 + 5), &word) && word)
			ev_fail(a, "%p: expected zero, got %#llx", ev_at(a, (i - 1) * 20 + 5),
				(unsigned long long)word);
		last = i;
	}
	return unused;
}

static void run_replaced_while_read(void)
{
	struct arena *a = arena[0];
	pthread_t t[2];

	for (int i = 0; i < 2; i++)
		must(!pthread_create(&t[i], NULL, reads_new_mappings, NULL));
	for (uint32_t i = 0; i < 200; i++) {
		ev_unmap(a, i * 20, 12);
		ev_map(a, i * 20, 12, RW);
		replaced = i + 1;
		ev_check(a, i * 20, 20);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* A file's pages, and shared ones, in the middle of what is owed. */
static void run_replaced_by_file(void)
{
	struct arena *a = arena[0];
	int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p = (char *)ev_at(a, 1000);

	must(fd >= 0 && !ftruncate(fd, 256 * PAGE));
	must(mmap(p, 256 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0) == p);
	pages_check_zero("file", p, 128 * PAGE);
	pages_fill(p, 256 * PAGE, 7);
	must(mmap(p + 300 * PAGE, 256 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
	     p + 300 * PAGE);
	ev_check(a, 0, 1000);
	ev_check(a, 1256, 44);
	test_wait_finished();
	pages_check("file, shared", p, 256 * PAGE, 7);
	pages_check("file, private", p + 300 * PAGE, 256 * PAGE, 7);
	ev_map(a, 1000, 256, RW);
	ev_map(a, 1300, 256, RW);
}

/* ---- brk ---- */

static char *heap;

static void setup_brk(void)
{
	setup_one();
	heap = sbrk(0);
	heap = sbrk((intptr_t)(8 * MIB + PAGE - (uintptr_t)heap % PAGE));
	must(heap != (void *)-1);
	heap = (char *)(((uintptr_t)heap + PAGE - 1) / PAGE * PAGE);
	pages_fill(heap, 8 * MIB, 1);
}

/* No allocation between shrinking and growing: the heap's memory belongs to the test. */
static void run_brk(void)
{
	pages_must_be_owed("brk", heap, 8 * MIB);
	must(!brk(heap + 6 * MIB));
	must(!brk(heap + 10 * MIB));
	pages_check("brk, kept", heap + 4 * MIB, 2 * MIB, 1 + 1024);
	pages_check_zero("brk, grown", heap + 6 * MIB, 4 * MIB);
	for (size_t left = 4 * MIB; left; left -= 64 * PAGE) {
		must(!brk(heap + left));
		must(!brk(heap + 9 * MIB));
		pages_check_zero("brk, again", heap + left, 64 * PAGE);
		pages_check("brk, kept", heap + left - PAGE, PAGE, left / PAGE);
	}
	pages_check("brk, kept", heap, 64 * PAGE, 1);
}

/* ---- mprotect ---- */

static void run_protect(void)
{
	struct arena *a = arena[0];
	static const int prots[] = {PROT_NONE, PROT_READ, RW, PROT_READ};

	for (uint32_t i = 0; i < 64; i++) {
		ev_protect(a, i * 64, 48, prots[i & 3]);
		ev_check(a, i * 64 + 30, 30);
		ev_write(a, i * 64 + 40, 16);
	}
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	for (uint32_t i = 0; i < 64; i++)
		ev_protect(a, i * 64, 32, prots[(i + 1) & 3]);
	for (uint32_t i = 0; i < 32; i++)
		ev_protect(a, i * 128, 128, RW);
	ev_check(a, 0, PAGES / 2);
}

/* ---- mlock ---- */

static void run_lock(void)
{
	struct arena *a = arena[0];

	ev_lock(a, 100, 1000, 1);
	if (pages_missing(ev_at(a, 100), 1000 * PAGE))
		ev_fail(a, "locked, but %zu pages are missing",
			pages_missing(ev_at(a, 100), 1000 * PAGE));
	ev_check(a, 0, 1200);
	ev_lock(a, 500, 100, 0);
	ev_advise(a, 500, 100, MADV_DONTNEED);
	ev_move(a, 700, 100, 2000);
	ev_unmap(a, 900, 100);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
	ev_write(a, 2000, 50);
	ev_lock(a, 2050, 1000, 1);
	ev_lock(a, 2050, 1000, 0);
}

static const struct act acts[] = {
	{"part", setup_one, run_part},
	{"all", setup_all, run_all},
	{"big_unmap", setup_big, run_big_unmap},
	{"big_dontneed", setup_big, run_big_dontneed},
	{"big_move", setup_big, run_big_move},
	{"replaced", setup_one, run_replaced},
	{"replaced_while_read", setup_one, run_replaced_while_read},
	{"replaced_by_file", setup_one, run_replaced_by_file},
	{"brk", setup_brk, run_brk},
	{"protect", setup_one, run_protect},
	{"lock", setup_one, run_lock},
};

EV_MAIN(acts)
