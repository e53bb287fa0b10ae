// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages that are not lazy stand between lazy ones in the image: private file mappings with written
 * pages, locked memory and shared memory. Everything comes back from its own place in the file.
 */
#include "lazytest.h"

#define AREAS 16
#define BYTES (64 * PAGE)

static char *file_map(void)
{
	int fd = open("private", O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p;

	must(fd >= 0 && !ftruncate(fd, BYTES));
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	pages_fill(p, BYTES, 7);
	munmap(p, BYTES);
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(p != MAP_FAILED);
	close(fd);
	return p;
}

int main(int argc, char **argv)
{
	char *area[AREAS];

	test_init(argc, argv);
	for (int i = 0; i < AREAS; i++) {
		switch (i % 4) {
		case 0:
		case 2:
			area[i] = pages_map(BYTES);
			break;
		case 1:
			if (i == 1)
				area[i] = file_map();
			else
				area[i] = shared_map(BYTES);
			break;
		case 3:
			area[i] = pages_map(BYTES);
			must(!mlock(area[i], BYTES));
			break;
		}
		for (size_t at = 0; at < BYTES; at += 2 * PAGE)
			pages_fill(area[i] + at, PAGE, page_key(area[i] + at));
	}

	test_ready();

	pages_must_be_owed("anonymous", area[0], BYTES);
	for (int i = 0; i < AREAS; i++) {
		for (size_t at = 0; at < BYTES; at += 2 * PAGE) {
			char *p = area[i] + at;

			pages_check("written", p, PAGE, page_key(p));
			if (i == 1)
				pages_check("file", p + PAGE, PAGE, 7 + at / PAGE + 1);
			else
				pages_check_zero("not written", p + PAGE, PAGE);
		}
	}
	test_pass();
}
