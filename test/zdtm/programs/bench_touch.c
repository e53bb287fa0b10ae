// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What scripts/bench has checkpointed: one area with every STRIDE-th page filled, and then
 *	idle		nothing, until `go` comes, which is when the drain is over
 *	random		reads each page once, in an order that looks random, and times each touch
 *	sequential	the same from the bottom up
 *	forks		forks COUNT times and times each fork; again when `drained` is there
 * At the end every page is checked, the empty ones too. Arguments: SEED MODE MIB STRIDE [COUNT].
 * Times go to the files `lazy` (owed memory) and `resident` (the same, all of it there): 32-bit
 * nanoseconds, in the order of the touches. What is timed is not written to before it is over.
 */
#include "lazytest.h"

struct bench {
	char *area;
	uint64_t npages; /* filled ones */
	uint64_t stride;
	bool random;
	uint32_t *lazy, *resident; /* in shared memory, which is never lazy */
};

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static char *page_at(const struct bench *b, uint64_t number)
{
	return b->area + number * b->stride * PAGE;
}

/* The @step-th page of an order that meets each of 2^k pages once. */
static uint64_t page_number(const struct bench *b, uint64_t step)
{
	uint64_t mask = b->npages - 1;
	int half = __builtin_ctzll(b->npages) / 2;

	if (!b->random)
		return step;
	for (int round = 0; round < 3; round++) {
		step = (step * 0x9e3779b97f4a7c15 + 0x1234567) & mask;
		step ^= step >> half;
	}
	return step;
}

static uint32_t short_ns(uint64_t ns)
{
	return ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static void touch_all(const struct bench *b, uint32_t *took)
{
	for (uint64_t step = 0; step < b->npages; step++) {
		char *page = page_at(b, page_number(b, step));
		uint64_t began, got;

		began = clock_ns();
		got = *(volatile uint64_t *)page;
		took[step] = short_ns(clock_ns() - began);
		if (got != page_word(page_key(page), 0))
			test_fail("touch %lu: page at %p: expected %016lx, got %016lx", step, page,
				  page_word(page_key(page), 0), got);
	}
}

static void fork_all(uint32_t *took, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t began = clock_ns();
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		took[i] = short_ns(clock_ns() - began);
		must(pid > 0);
		child_wait(pid);
	}
}

static void save(const char *name, const uint32_t *took, uint64_t count)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0 && write(fd, took, count * sizeof(*took)) == (ssize_t)(count * sizeof(*took)));
	close(fd);
}

static void check_all(const struct bench *b)
{
	for (uint64_t i = 0; i < b->npages; i++) {
		char *page = page_at(b, i);

		pages_check("filled", page, PAGE, page_key(page));
		pages_check_zero("empty", page + PAGE, (b->stride - 1) * PAGE);
	}
}

static void wait_for_file(const char *name)
{
	while (access(name, F_OK))
		test_sleep_ms(5);
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	const char *mode;
	uint64_t bytes, count;
	bool forks, touches;

	test_init(argc, argv);
	mode = test_arg(0);
	bytes = strtoull(test_arg(1), NULL, 0) * MIB;
	b.stride = strtoull(test_arg(2), NULL, 0);
	forks = !strcmp(mode, "forks");
	b.random = !strcmp(mode, "random");
	touches = b.random || !strcmp(mode, "sequential");
	must(b.stride && bytes && (forks || touches || !strcmp(mode, "idle")));
	b.npages = bytes / PAGE / b.stride;
	must(!b.random || !(b.npages & (b.npages - 1)));
	count = forks ? strtoull(test_arg(3), NULL, 0) : touches ? b.npages : 1;

	/* Huge pages would fill the gaps, and make the second life differ from the first. */
	b.area = pages_map(bytes);
	must(!madvise(b.area, bytes, MADV_NOHUGEPAGE));
	for (uint64_t i = 0; i < b.npages; i++)
		pages_fill(page_at(&b, i), PAGE, page_key(page_at(&b, i)));
	b.lazy = shared_map(count * sizeof(*b.lazy));
	b.resident = shared_map(count * sizeof(*b.resident));

	test_ready();
	/* Not only in memory: in the page table. */
	must(!madvise(b.lazy, count * sizeof(*b.lazy), MADV_POPULATE_WRITE));
	must(!madvise(b.resident, count * sizeof(*b.resident), MADV_POPULATE_WRITE));
	if (touches) {
		touch_all(&b, b.lazy);
		touch_all(&b, b.resident);
	} else if (forks) {
		fork_all(b.lazy, count);
		wait_for_file("drained");
		fork_all(b.resident, count);
	}
	if (touches || forks) {
		save("lazy", b.lazy, count);
		save("resident", b.resident, count);
	}
	check_all(&b);
	test_pass();
}
