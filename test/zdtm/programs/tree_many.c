// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tree of 64 processes, seven deep. Each has memory of its own, memory that all have from the
 * root and never changed, and memory from its parent of which it changed every third page.
 */
#include "lazytest.h"

#define OWN	(512 * 1024UL)
#define COMMON	(1 * MIB)
#define CHANGED (256 * 1024UL)

static char *common, *changed;
static uint32_t *count;

static void check_changed(uint64_t key, uint64_t parents_key)
{
	for (size_t i = 0; i < CHANGED; i += PAGE)
		pages_check("memory that a child changed", changed + i, PAGE,
			    (i / PAGE % 3 ? parents_key : key) + i / PAGE);
}

/* Process number @id has the children 2 * id and 2 * id + 1, as in a heap. */
static void live(unsigned id, unsigned total)
{
	uint64_t key = (uint64_t)id << 20;
	pid_t child[2] = {0, 0};
	char *own = pages_map(OWN);

	pages_fill(own, OWN, key + 10000);
	if (id > 1)
		for (size_t i = 0; i < CHANGED; i += 3 * PAGE)
			pages_fill(changed + i, PAGE, key + i / PAGE);
	for (unsigned k = 0; k < 2; k++) {
		unsigned next = 2 * id + k;

		if (next > total)
			continue;
		child[k] = fork();
		must(child[k] >= 0);
		if (!child[k]) {
			live(next, total);
			_exit(0);
		}
	}
	__atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
	if (id == 1) {
		while (__atomic_load_n(count, __ATOMIC_SEQ_CST) != total)
			test_sleep_ms(5);
		test_ready();
	} else {
		test_wait_go();
	}
	pages_must_be_owed("own memory", own, OWN);
	pages_check("own memory", own, OWN, key + 10000);
	pages_check("common memory", common, COMMON, 1);
	if (id == 1) {
		pages_check("the root's memory", changed, CHANGED, key);
	} else {
		/* What is not a multiple of three is the nearest ancestor's that wrote it: the
		 * root's. */
		check_changed(key, UINT64_C(1) << 20);
	}
	for (unsigned k = 0; k < 2; k++)
		if (child[k])
			child_wait(child[k]);
}

int main(int argc, char **argv)
{
	test_init(argc, argv);
	common = pages_map(COMMON);
	changed = pages_map(CHANGED);
	count = shared_map(PAGE);
	pages_fill(common, COMMON, 1);
	pages_fill(changed, CHANGED, UINT64_C(1) << 20);
	live(1, 64);
	test_pass();
}
