// SPDX-License-Identifier: GPL-2.0-or-later
/* The program's own data, bss and thread-local variables come back. */
#include "lazytest.h"

#define WORDS (4 * MIB / 8)

static uint64_t data[WORDS] = {[0] = 1, [WORDS / 2] = 2, [WORDS - 1] = 3};
static uint64_t bss[WORDS];
static __thread uint64_t tls[8192];

int main(int argc, char **argv)
{
	test_init(argc, argv);
	for (size_t i = 1; i < WORDS; i += 2) {
		bss[i] = page_word(1, (unsigned)i);
		tls[i % 8192] = page_word(2, (unsigned)(i % 8192));
	}

	test_ready();

	must(data[0] == 1 && data[WORDS / 2] == 2 && data[WORDS - 1] == 3);
	for (size_t i = 1; i < WORDS; i += 2) {
		if (bss[i] != page_word(1, (unsigned)i))
			test_fail("bss at %p: %016lx", (void *)&bss[i], bss[i]);
		if (tls[i % 8192] != page_word(2, (unsigned)(i % 8192)))
			test_fail("tls at %p: %016lx", (void *)&tls[i % 8192], tls[i % 8192]);
		if (bss[i - 1] || (data[i] && i != WORDS - 1))
			test_fail("a word near %zu should be zero", i);
	}
	test_pass();
}
