/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small helpers that every file may use: pages, scoped clean-up, rounding. No policy. */
#ifndef CRIU_COMPILER_H
#define CRIU_COMPILER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE  (UINT64_C(1) << PAGE_SHIFT)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define _cleanup_(f)	 __attribute__((cleanup(f)))
#define _cleanup_free_	 _cleanup_(cleanup_free)
#define _cleanup_close_	 _cleanup_(cleanup_close)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)

/* Moves ownership out of a variable that cleans up after itself. */
static inline int steal_fd(int *fd)
{
	int moved = *fd;

	*fd = -1;
	return moved;
}

static inline void *steal_pointer_(void *p)
{
	void *moved = *(void **)p;

	*(void **)p = NULL;
	return moved;
}
#define steal_pointer(p) ((__typeof__(*(p)))steal_pointer_(p))

#endif
