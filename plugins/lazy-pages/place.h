/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Place: the only file that issues userfaultfd ioctls on a task's descriptor. The last step of the
 * way of a page. Every errno that the kernel can give has a row in the table of place.c and becomes
 * one typed outcome. For one descriptor, these calls and read(2) must exclude each other: only the
 * owner thread calls them, or a borrower while the owner has lent to it (loan.h).
 */
#ifndef PLACE_H
#define PLACE_H

#include <stdbool.h>
#include <stdint.h>

enum place {
	PLACE_DONE,	  /* the first .bytes (> 0, perhaps fewer than asked) are there now */
	PLACE_EXISTS,	  /* the first page was there already; its waiters have been woken */
	PLACE_AGAIN,	  /* the layout is changing: read the events first */
	PLACE_NO_MAPPING, /* the range is not inside one armed mapping */
	PLACE_GONE,	  /* the address space is gone: the task has exited */
	PLACE_NO_MEMORY,  /* the kernel has no page for the task now: try later */
	PLACE_BAD_SOURCE, /* the bytes to copy could not be read */
	PLACE_FAILED,	  /* anything else: a bug in us, or a kernel that we do not know */
};

struct placed {
	enum place outcome;
	int err;	/* positive errno for outcomes other than PLACE_DONE */
	uint64_t bytes; /* 0 unless PLACE_DONE */
};

/* Copies @len bytes from @src to @addr in the task, which wakes who waits there. */
struct placed place_copy(int uffd, uint64_t addr, const void *src, uint64_t len);
/* The same with zeros; the pages are shared with the kernel's zero page until written. */
struct placed place_zero(int uffd, uint64_t addr, uint64_t len);
/* Makes waiters in the range ask again. 0 or -errno. */
int place_wake(int uffd, uint64_t addr, uint64_t len);
/* Takes a range out of the descriptor's care, which lets its waiters go on, and puts it back. */
int place_disarm(int uffd, uint64_t addr, uint64_t len);
int place_arm(int uffd, uint64_t addr, uint64_t len);
/* Makes every waiter of the address space ask again: after a change of workers. */
int place_wake_all(int uffd);

#endif
