// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Areas that cannot be written, read or run come back with what was in them: a read-only one, a
 * PROT_NONE one that is opened by parts, and one whose code is called.
 */
#include "lazytest.h"

int main(int argc, char **argv)
{
	/* mov edi, eax; add 42; ret, at the end of each page */
	static const unsigned char code[] = {0x89, 0xf8, 0x83, 0xc0, 0x2a, 0xc3};
	const size_t bytes = 8 * MIB;
	char *ro, *none, *jit;

	test_init(argc, argv);
	ro = pages_map(bytes);
	none = pages_map(bytes);
	jit = pages_map(bytes);
	pages_fill(ro, bytes, page_key(ro));
	pages_fill(none, bytes, page_key(none));
	for (size_t i = 0; i < bytes; i += PAGE)
		memcpy(jit + i + PAGE - sizeof(code), code, sizeof(code));
	must(!mprotect(ro, bytes, PROT_READ));
	must(!mprotect(none, bytes, PROT_NONE));
	must(!mprotect(jit, bytes, PROT_READ | PROT_EXEC));

	test_ready();

	pages_must_be_owed("read-only", ro, bytes);
	pages_must_be_owed("PROT_NONE", none, bytes);
	pages_must_be_owed("code", jit, bytes);
	for (size_t i = 0; i < bytes; i += 16 * PAGE) {
		int (*add42)(int) = (int (*)(int))(void *)(jit + i + PAGE - sizeof(code));

		must(add42((int)i) == (int)i + 42);
	}
	/* Half of it while owed, the other half when everything is there. */
	must(!mprotect(none, bytes / 2, PROT_READ));
	pages_check("PROT_NONE, opened", none, bytes / 2, page_key(none));
	pages_check("read-only", ro, bytes, page_key(ro));
	test_wait_finished();
	must(!mprotect(none, bytes, PROT_READ | PROT_WRITE));
	pages_check("PROT_NONE, opened late", none, bytes, page_key(none));
	pages_check("read-only, again", ro, bytes, page_key(ro));
	test_pass();
}
