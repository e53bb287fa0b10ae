/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lazy pages out of the memory of the tasks that a dump holds: process_vm_readv(2), else
 * /proc/PID/mem, else a GET over the held connection. Pages that the images have are given out of
 * them. Bytes are handed out only when the dump was still holding its tasks after they were read.
 */
#ifndef PROVIDER_FROZEN_H
#define PROVIDER_FROZEN_H

#include "checkpoint.h"
#include "dump.h"
#include "held.h"
#include "provider.h"

/* How many pages the tasks of @c have that are lazy. */
uint64_t frozen_npages(const struct checkpoint *c);
/* Each task of @c with pages that are still in its memory must be held by @d. 0 or -ESRCH. */
int frozen_check_tasks(const struct checkpoint *c, const struct dump *d, struct error *e);
/* What the dump gives and what we read must be the same: the first such page of every task. */
int frozen_compare(const struct checkpoint *c, const struct dump *d, struct held *h,
		   struct error *e);

/* All of these must outlive it. NULL without memory. */
struct provider *provider_frozen_new(const struct checkpoint *c, const struct dump *d,
				     struct held *h);
/* The number of a page that it has read, of all lazy pages: below frozen_npages(). */
uint64_t provider_frozen_number(struct provider *provider, uint64_t pid, uint64_t vaddr);

#endif
