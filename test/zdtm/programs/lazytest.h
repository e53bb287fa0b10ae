/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every checkpointed program needs: memory with a pattern that can be checked to the byte, a
 * way to say "dump me now", and a way to hand out the result. Header only; one program a behaviour:
 *
 *	int main(int argc, char **argv)
 *	{
 *		test_init(argc, argv);			// argv[1] is the seed, test_arg(0) comes
 *after char *p = pages_map(N); pages_fill(p, N, page_key(p));
 *		test_ready();				// dumped, killed and restored in here
 *		pages_check("after", p, N, page_key(p));
 *		test_pass();
 *	}
 *
 * The harness starts it in a scratch directory of its own, as a session leader without terminal,
 * with /dev/null for stdin, stdout and stderr. The file `ready` says it is ready, `go` that it has
 *been dumped, `result` holds PASS or "FAIL: words". Pages are 4096 bytes. The pattern of page i of
 *an area is a function of (seed, key + i): after a move, check with the key of the place it was
 *filled at. All functions may be called from any thread and any child process. The one static below
 *is written by test_init() alone.
 */
#ifndef LAZYTEST_H
#define LAZYTEST_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB  (1UL << 20)
#define GIB  (1UL << 30)

static struct {
	uint64_t seed;
	int argc;
	char **argv;
} test_context;

/* Hands out the result, once for the whole tree: the first one counts. */
static inline bool test_result(const char *text)
{
	char name[64];
	bool first;
	int fd;

	snprintf(name, sizeof(name), "result.%d", (int)syscall(SYS_gettid));
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		_exit(3);
	close(fd);
	first = !link(name, "result");
	unlink(name);
	return first;
}

static inline _Noreturn __attribute__((format(printf, 1, 2))) void test_fail(const char *fmt, ...)
{
	char text[1024] = "FAIL: ";
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + 6, sizeof(text) - 6, fmt, args);
	va_end(args);
	test_result(text);
	_exit(1);
}

/* Ends the whole program well, unless one of its processes has failed before. */
static inline _Noreturn void test_pass(void)
{
	_exit(test_result("PASS") ? 0 : 1);
}

/* Ends the whole program; pytest reports the test as skipped for the reason that is given. */
static inline _Noreturn void test_skip(const char *why)
{
	char text[256];

	snprintf(text, sizeof(text), "SKIP: %s", why);
	_exit(test_result(text) ? 0 : 1);
}

/* For what must hold: system calls that must succeed, values that must be equal. */
#define must(condition) \
	do { \
		if (!(condition)) \
			test_fail("%s:%d: %s (errno: %s)", __FILE__, __LINE__, #condition, \
				  strerror(errno)); \
	} while (0)

static inline void test_init(int argc, char **argv)
{
	must(argc >= 2);
	test_context.seed = strtoull(argv[1], NULL, 0);
	test_context.argc = argc - 2;
	test_context.argv = argv + 2;
}

/* The i-th argument behind the seed, or "". */
static inline const char *test_arg(int i)
{
	return i < test_context.argc ? test_context.argv[i] : "";
}

static inline void test_sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

/* Returns at once in the restored life. For children and threads; the main one uses test_ready().
 */
static inline void test_wait_go(void)
{
	while (access("go", F_OK))
		test_sleep_ms(5);
}

/* Everything is set up, children too: dump us. Returns in the restored life. */
static inline void test_ready(void)
{
	int fd = open("ready", O_WRONLY | O_CREAT, 0600);

	must(fd >= 0);
	close(fd);
	test_wait_go();
}

/* Whether the background waits, so that a page nobody has touched is still missing. */
static inline bool test_held(void)
{
	char c = 0;
	int fd = open("go", O_RDONLY);

	must(fd >= 0 && read(fd, &c, 1) == 1);
	close(fd);
	return c == 'h';
}

/* Waits for a child that must exit with status 0. */
static inline void child_wait(pid_t pid)
{
	int status;
	pid_t got;

	while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	if (got != pid)
		test_fail("waitpid(%d): %s", (int)pid, strerror(errno));
	if (status)
		test_fail("child %d ended with wait status 0x%x", (int)pid, status);
}

/* Numbers as random as the seed: equal states give equal numbers. */
static inline uint64_t random_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static inline uint64_t random_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15;
	return random_mix(*state ^ test_context.seed);
}

/* Private anonymous memory. */
static inline char *pages_map_flags(size_t bytes, int prot, int flags)
{
	char *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

static inline char *pages_map(size_t bytes)
{
	return pages_map_flags(bytes, PROT_READ | PROT_WRITE, 0);
}

/* Memory that the children share: never lazy, so it can hold barriers and counters. */
static inline void *shared_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	return p;
}

static inline uint64_t page_key(const void *p)
{
	return (uintptr_t)p / PAGE;
}

/* The word at @index (0..511) of the page with that key. */
static inline uint64_t page_word(uint64_t key, unsigned index)
{
	return random_mix(test_context.seed ^ (key << 9) ^ index);
}

static inline void pages_fill(void *area, size_t bytes, uint64_t key)
{
	uint64_t *w = area;

	for (size_t i = 0; i < bytes / sizeof(*w); i++)
		w[i] = page_word(key + i / 512, i % 512);
}

static inline void pages_check(const char *what, const void *area, size_t bytes, uint64_t key)
{
	const volatile uint64_t *w = area;

	for (size_t i = 0; i < bytes / sizeof(*w); i++) {
		uint64_t expected = page_word(key + i / 512, i % 512), got = w[i];

		if (got != expected)
			test_fail("%s: at %p (page %zu of the area): expected %016lx, got %016lx%s",
				  what, (const void *)(w + i), i / 512, expected, got,
				  got ? "" : " (zero)");
	}
}

static inline void pages_check_zero(const char *what, const void *area, size_t bytes)
{
	const volatile uint64_t *w = area;

	for (size_t i = 0; i < bytes / sizeof(*w); i++) {
		uint64_t got = w[i];

		if (got)
			test_fail("%s: at %p (page %zu of the area): expected zero, got %016lx",
				  what, (const void *)(w + i), i / 512, got);
	}
}

/* How many pages of the area are neither present nor swapped. Touches none of them. */
static inline size_t pages_missing(const void *area, size_t bytes)
{
	uint64_t entry[512];
	size_t left = bytes / PAGE, missing = 0;
	off_t at = (off_t)((uintptr_t)area / PAGE * 8);
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	must(fd >= 0);
	while (left) {
		size_t n = left < 512 ? left : 512;

		must(pread(fd, entry, n * 8, at) == (ssize_t)(n * 8));
		for (size_t i = 0; i < n; i++)
			missing += !(entry[i] >> 62);
		left -= n;
		at += (off_t)(n * 8);
	}
	close(fd);
	return missing;
}

/* Whether any mapping of this process is still armed: the manager has not finished with it. */
static inline bool test_armed(void)
{
	char line[512];
	bool armed = false;
	FILE *f = fopen("/proc/self/smaps", "re");

	must(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "VmFlags:", 8) && strstr(line, " um"))
			armed = true;
	fclose(f);
	return armed;
}

static inline void test_wait_finished(void)
{
	while (test_armed())
		test_sleep_ms(10);
}

/*
 * Makes sure that what follows acts on memory that has not arrived: when the background is held, at
 * least one page of the area must be missing. Call it right before the act.
 */
static inline void pages_must_be_owed(const char *what, const void *area, size_t bytes)
{
	if (test_held() && !pages_missing(area, bytes))
		test_fail("%s: all pages have arrived before the act: nothing is shown", what);
}

#endif
