// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Transparent huge pages: the bytes come back. With the argument "collapse" huge pages must have
 * come back once the manager has finished, with "never" not.
 */
#include "lazytest.h"

static unsigned long collapsed_by_kernel(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed", "re");
	unsigned long n = 0;

	must(!f || fscanf(f, "%lu", &n) == 1);
	if (f)
		fclose(f);
	return n;
}

static size_t huge_bytes(const void *p)
{
	char line[512], start[32];
	FILE *f = fopen("/proc/self/smaps", "re");
	bool here = false;
	size_t kib = 0;

	must(f);
	snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)p);
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, start, strlen(start)))
			here = true;
		if (here && sscanf(line, "AnonHugePages: %zu kB", &kib) == 1)
			break;
	}
	fclose(f);
	return kib * 1024;
}

int main(int argc, char **argv)
{
	const size_t bytes = 32 * MIB;
	unsigned long before;
	char *p;

	test_init(argc, argv);
	/* On a boundary of 2 MiB, in a mapping that begins there. */
	p = mmap((void *)0x200000000000, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	must(p == (void *)0x200000000000);
	if (madvise(p, bytes, MADV_HUGEPAGE))
		test_skip("this kernel has no transparent huge pages");
	pages_fill(p, bytes, page_key(p));
	if (!huge_bytes(p))
		test_skip("this kernel gave no transparent huge page");

	test_ready();

	before = collapsed_by_kernel();
	pages_must_be_owed("area", p, bytes);
	pages_check("area", p, bytes, page_key(p));
	test_wait_finished();
	/* The manager may still be at it; khugepaged would need longer. */
	for (int i = 0; !strcmp(test_arg(0), "collapse") && !huge_bytes(p); i++) {
		if (i == 300)
			test_fail("no huge page came back");
		test_sleep_ms(10);
	}
	/* khugepaged is allowed to, and counts. */
	if (!strcmp(test_arg(0), "never") && huge_bytes(p) && collapsed_by_kernel() == before)
		test_fail("huge pages came back");
	pages_check("area, when all is there", p, bytes, page_key(p));
	pages_fill(p, bytes, 5);
	pages_check("area, written anew", p, bytes, 5);
	test_pass();
}
