// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The userfaultfd ioctls and the table of their errors. A call that stops part-way answers EAGAIN
 * and says in its result field how much it did; that is PLACE_DONE with fewer bytes, and the
 * caller's next call from there learns the reason. The field is read only after the errno, because
 * with ESRCH the kernel leaves it as it was.
 */
#include "place.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "compiler.h"

static const struct {
	int err;
	enum place outcome;
} table[] = {
	{EEXIST, PLACE_EXISTS},	    {EAGAIN, PLACE_AGAIN},	{ENOENT, PLACE_NO_MAPPING},
	{EINVAL, PLACE_NO_MAPPING}, /* e.g. the mapping was replaced by one of another kind */
	{ESRCH, PLACE_GONE},	    {ENOSPC, PLACE_GONE}, /* before 4.13 */
	{ENOMEM, PLACE_NO_MEMORY},  {EFAULT, PLACE_BAD_SOURCE},
};

static enum place outcome_of(int err)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].err == err)
			return table[i].outcome;
	return PLACE_FAILED;
}

static struct placed finish(int uffd, uint64_t addr, int ret, int64_t done, uint64_t len)
{
	int err = errno;

	if (ret == 0)
		return (struct placed){.outcome = PLACE_DONE, .bytes = len};
	if (err == EAGAIN && done > 0)
		return (struct placed){.outcome = PLACE_DONE, .bytes = (uint64_t)done};
	/* EEXIST wakes nobody, and the fault that brought us here may wait on that very page. */
	if (err == EEXIST)
		place_wake(uffd, addr, PAGE_SIZE);
	return (struct placed){.outcome = outcome_of(err), .err = err};
}

struct placed place_copy(int uffd, uint64_t addr, const void *src, uint64_t len)
{
	struct uffdio_copy c = {.dst = addr, .src = (uint64_t)(uintptr_t)src, .len = len};
	int ret = ioctl(uffd, UFFDIO_COPY, &c);

	return finish(uffd, addr, ret, c.copy, len);
}

struct placed place_zero(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_zeropage z = {.range = {.start = addr, .len = len}};
	int ret = ioctl(uffd, UFFDIO_ZEROPAGE, &z);

	return finish(uffd, addr, ret, z.zeropage, len);
}

int place_wake(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_range r = {.start = addr, .len = len};

	return ioctl(uffd, UFFDIO_WAKE, &r) ? -errno : 0;
}

int place_disarm(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_range r = {.start = addr, .len = len};

	return ioctl(uffd, UFFDIO_UNREGISTER, &r) ? -errno : 0;
}

int place_arm(int uffd, uint64_t addr, uint64_t len)
{
	struct uffdio_register r = {.range = {.start = addr, .len = len},
				    .mode = UFFDIO_REGISTER_MODE_MISSING};

	return ioctl(uffd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

int place_wake_all(int uffd)
{
	/* The top of user space with five and with four levels of page tables. */
	static const uint64_t tops[] = {UINT64_C(1) << 56, UINT64_C(1) << 47};
	const uint64_t low = 1 << 16; /* at or above vm.mmap_min_addr */
	int ret = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(tops) && ret == -EINVAL; i++)
		ret = place_wake(uffd, low, tops[i] - PAGE_SIZE - low);
	return ret;
}
