/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What event.h is made of: the arena with its model, how an event_*.c program fails, what a page
 * with given contents holds, and how to touch a page that may not be there. The first word of a
 * page tells which contents it has, so a failure can say what was found. Any thread, any child.
 */
#ifndef EVENT_PAGE_H
#define EVENT_PAGE_H

#include <setjmp.h>

#include "lazytest.h"

#define EV __attribute__((unused)) static

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#define RW   (PROT_READ | PROT_WRITE)
#define MOVE (MREMAP_MAYMOVE | MREMAP_FIXED)

enum {
	S_MAPPED = 1,
	S_LOOSE = 2, /* zeros are right as well as the tag */
	S_PAID = 4,  /* cannot be owed any more: seen, written or discarded since the restore */
	S_GUARD = 8,
	S_WIPE = 16,
	S_NOFORK = 32,
	S_LOCKED = 64,
	S_SOFT = 256, /* was owed when the guard came: the guard may be gone, see ev_guard_soft */
	S_FREED =
		128, /* loose for as long as it is not written: the kernel frees it when it likes */
};

struct slot {
	uint32_t tag; /* names the contents; 0: zeros */
	uint16_t flags;
	uint16_t prot;
};

struct arena {
	unsigned char *base;
	uint32_t n; /* slots */
	uint32_t next_tag;
	uint64_t seed;
	uint64_t ops;
	char op[96]; /* the last act, for the report of a failure */
	struct slot slot[];
};

#define ARENAS_MAX 8
static struct arena *arena[ARENAS_MAX];

/*
 * No event tells of a guard, and UFFDIO_COPY takes one away (seen on Linux 6.18): a guard over a
 * page that is owed holds if the manager looks before it copies, but not when it has just looked.
 * With this set, the page's own contents are right in place of the signal.
 */
static bool ev_guard_soft;

/* ---- failing ---- */

/* Ends the program as failed, with the reason and the last act; from any thread, any child. */
EV __attribute__((noreturn, format(printf, 2, 3))) void ev_fail(const struct arena *a,
								const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!a)
		test_fail("%s (pid %d)", text, (int)getpid());
	test_fail("%s (pid %d, seed %llu, act %llu: %s)", text, (int)getpid(),
		  (unsigned long long)test_context.seed, (unsigned long long)a->ops, a->op);
}

static bool ev_tracing;

/* All acts from here on go to the file "trace", each with its process and arena. */
EV void ev_trace(void)
{
	ev_tracing = true;
}

EV void ev_trace_line(const struct arena *a)
{
	char line[160];
	int fd = open("trace", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int n = snprintf(line, sizeof(line), "%d %p %llu %s\n", (int)getpid(), a->base,
			 (unsigned long long)a->ops, a->op);

	must(fd >= 0 && write(fd, line, (size_t)n) == n);
	close(fd);
}

/* Names the act that comes; the text is what a failure reports. */
EV __attribute__((format(printf, 2, 3))) void ev_op(struct arena *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->op, sizeof(a->op), fmt, ap);
	va_end(ap);
	a->ops++;
	if (ev_tracing)
		ev_trace_line(a);
}

/* ---- contents ---- */

/* Word @i of a page with contents @tag; @w is its ev_key(). Word 0 tells the tag. */
static inline uint64_t ev_word(const struct arena *a, uint32_t tag, uint64_t w, unsigned i)
{
	if (!tag)
		return 0;
	if (!i)
		return (0x1a2b0000ULL | (a->seed & 0xffff)) << 32 | tag;
	return w + i * 0x2545f4914f6cdd1dULL;
}

static inline uint64_t ev_key(const struct arena *a, uint32_t tag)
{
	return random_mix(a->seed << 32 | tag);
}

static inline unsigned char *ev_at(const struct arena *a, uint32_t s)
{
	return a->base + (uint64_t)s * PAGE;
}

EV void ev_put(const struct arena *a, uint32_t s, uint32_t tag)
{
	volatile uint64_t *p = (volatile uint64_t *)ev_at(a, s);
	uint64_t key = ev_key(a, tag);

	for (unsigned i = 0; i < PAGE / 8; i++)
		p[i] = ev_word(a, tag, key, i);
}

/* The first word that differs from @tag's contents, or -1. */
EV int ev_differs(const struct arena *a, const void *page, uint32_t tag)
{
	const volatile uint64_t *p = page;
	uint64_t key = ev_key(a, tag);

	for (unsigned i = 0; i < PAGE / 8; i++)
		if (p[i] != ev_word(a, tag, key, i))
			return (int)i;
	return -1;
}

/* Words for what a page holds. */
EV const char *ev_describe(const struct arena *a, const void *page, char *buf, size_t len)
{
	uint64_t first = *(const volatile uint64_t *)page;
	uint32_t tag = (uint32_t)first;
	int i;

	if (!first)
		tag = 0;
	else if (first != ev_word(a, tag, 0, 0)) {
		snprintf(buf, len, "foreign word %#llx", (unsigned long long)first);
		return buf;
	}
	i = ev_differs(a, page, tag);
	if (i < 0)
		snprintf(buf, len, tag ? "contents %u" : "zeros", tag);
	else
		snprintf(buf, len, "%s %u, torn at offset %d", tag ? "contents" : "zeros", tag,
			 i * 8);
	return buf;
}

/* ---- touching what may not be there ---- */

static __thread sigjmp_buf ev_jump;
static __thread volatile int ev_jumping;

EV void ev_on_segv(int sig)
{
	if (!ev_jumping) {
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(ev_jump, sig);
}

EV void ev_catch_segv(void)
{
	struct sigaction sa = {.sa_handler = ev_on_segv, .sa_flags = SA_NODEFER};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* 0 and the word, or the signal that reading it raised. */
EV int ev_probe(const void *addr, uint64_t *word)
{
	int sig = sigsetjmp(ev_jump, 0);

	if (!sig) {
		ev_jumping = 1;
		*word = *(const volatile uint64_t *)addr;
	}
	ev_jumping = 0;
	return sig;
}

#endif
