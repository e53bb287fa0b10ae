// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two processes with memory of all kinds that can be read and that cannot. Neither ends before all
 * of it has arrived, so that whoever serves the pages has served every one. The argument: MiB.
 */
#include "lazytest.h"

struct areas {
	char *plain, *none;
	size_t bytes;
};

static void areas_fill(struct areas *a, size_t bytes)
{
	a->bytes = bytes;
	a->plain = pages_map(bytes);
	a->none = pages_map(bytes / 8);
	pages_fill(a->plain, bytes, page_key(a->plain));
	pages_fill(a->none, bytes / 8, page_key(a->none));
	must(!mprotect(a->none, bytes / 8, PROT_NONE));
}

static void areas_check(const struct areas *a)
{
	pages_check("memory", a->plain, a->bytes, page_key(a->plain));
	test_wait_finished();
	must(!mprotect(a->none, a->bytes / 8, PROT_READ));
	pages_check("PROT_NONE memory", a->none, a->bytes / 8, page_key(a->none));
	pages_check("memory, again", a->plain, a->bytes, page_key(a->plain));
}

int main(int argc, char **argv)
{
	struct areas a;
	size_t bytes;
	pid_t child;

	test_init(argc, argv);
	bytes = strtoul(test_arg(0), NULL, 0) * MIB;
	must(bytes);
	child = fork();
	must(child >= 0);
	areas_fill(&a, child ? bytes : bytes / 4);
	if (!child) {
		must(!close(creat("child", 0600)));
		test_wait_go();
		areas_check(&a);
		_exit(0);
	}
	while (access("child", F_OK))
		test_sleep_ms(5);

	test_ready();

	areas_check(&a);
	child_wait(child);
	test_pass();
}
