// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Somebody else looks at owed memory. The address is in the file `area`; every fourth page of it is
 * a hole. The program touches nothing until the file `looked` is there. With the argument "core" it
 * touches the first quarter and aborts.
 */
#include <sys/resource.h>

#include "lazytest.h"

int main(int argc, char **argv)
{
	const size_t bytes = 4 * MIB;
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	char text[64];
	char *p;
	int fd;

	test_init(argc, argv);
	p = pages_map(bytes);
	for (size_t i = 0; i < bytes; i += PAGE)
		if (i / PAGE % 4 != 3)
			pages_fill(p + i, PAGE, page_key(p + i));
	snprintf(text, sizeof(text), "%lu %lu\n", (unsigned long)(uintptr_t)p, bytes);
	fd = open("area", O_WRONLY | O_CREAT, 0600);
	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	must(!setrlimit(RLIMIT_CORE, &unlimited));

	test_ready();

	if (!strcmp(test_arg(0), "core")) {
		pages_must_be_owed("area", p, bytes);
		for (size_t i = 0; i < bytes / 4; i += PAGE)
			if (i / PAGE % 4 != 3)
				pages_check("page", p + i, PAGE, page_key(p + i));
		abort();
	}
	while (access("looked", F_OK))
		test_sleep_ms(5);
	for (size_t i = 0; i < bytes; i += PAGE) {
		if (i / PAGE % 4 != 3)
			pages_check("page", p + i, PAGE, page_key(p + i));
		else
			pages_check_zero("hole", p + i, PAGE);
	}
	test_pass();
}
