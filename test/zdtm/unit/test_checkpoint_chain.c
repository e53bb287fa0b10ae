// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Chains of parents: which bytes stand behind a page that is in a parent, however far up, and what
 * is refused and how.
 */
#include "test_image_write.h"

#define LAZY PAGEMAP_LAZY

/* @depth directories d0 (top), d1 ..., each the parent of the one before. */
static void chain_new(struct scratch *dirs, const struct scratch *s, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++) {
		char name[16], up[32];

		snprintf(name, sizeof(name), "d%u", i);
		snprintf(up, sizeof(up), "../d%u", i + 1);
		assert_int_equal(mkdirat(s->fd, name, 0700), 0);
		dirs[i].fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(dirs[i].fd >= 0);
		if (i + 1 < depth)
			assert_int_equal(symlinkat(up, dirs[i].fd, "parent"), 0);
	}
	write_task(dirs[0].fd, &one_vma, 1);
}

static void chain_end(struct scratch *dirs, struct scratch *s, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++)
		close(dirs[i].fd);
	scratch_end(s);
}

/* Page @page of the task must be page @at of @file. */
static void assert_where(const struct checkpoint *c, unsigned page, const char *file, uint64_t at)
{
	const struct extents *x = &c->tasks[0].extents;
	uint64_t index = extents_index(x, AT(page)), where;

	assert_true(index < x->npages);
	assert_int_equal(extents_vaddr(x, index), AT(page));
	where = extents_where(x, index);
	assert_true(WHERE_FILE(where) < c->nfiles);
	assert_string_equal(c->files[WHERE_FILE(where)].name, file);
	assert_int_equal(WHERE_PAGE(where), at);
}

static void a_parent_gives_what_the_child_has_not_itself(void **state)
{
	struct scratch s = scratch_new(), d[2];
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	chain_new(d, &s, 2);
	f = pagemap_new(d[0].fd, PID, 1);
	pagemap_add(f, AT(0), 1, PAGEMAP_PRESENT);
	pagemap_add(f, AT(1), 6, UP); /* over three entries of the parent */
	pagemap_add(f, AT(7), 1, HERE);
	pagemap_add(f, AT(9), 2, PAGEMAP_PARENT); /* stock restores these itself */
	image_end(f);
	write_file(d[0].fd, "pages-1.img", 2 * PAGE_SIZE);
	f = pagemap_new(d[1].fd, PID, 5);
	pagemap_add(f, AT(0), 2, PAGEMAP_PRESENT);
	pagemap_add_compat(f, AT(2), 1, HERE);
	pagemap_add(f, AT(3), 20, PAGEMAP_PRESENT);
	image_end(f);
	write_file(d[1].fd, "pages-5.img", 23 * PAGE_SIZE);

	if (load_scratch(&c, &d[0], false, &e))
		fail_msg("%s", e.text);
	assert_int_equal(c->tasks[0].extents.npages, 7);
	/* Contiguous in both: one extent, though the parent has it in three entries. */
	assert_int_equal(c->tasks[0].extents.n, 2);
	for (unsigned page = 1; page < 7; page++)
		assert_where(c, page, "parent/pages-5.img", page);
	assert_where(c, 7, "pages-1.img", 1);
	checkpoint_free(c);
	chain_end(d, &s, 2);
}

/* Each directory has one page of its own, and all that the deeper ones have from its parent. */
static void a_chain_is_followed_to_its_end(void **state)
{
	const unsigned depths[] = {2, 5, 40};

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(depths); n++) {
		unsigned depth = depths[n];
		struct scratch s = scratch_new(), d[40];
		struct checkpoint *c;
		struct error e;

		chain_new(d, &s, depth);
		for (unsigned i = 0; i < depth; i++) {
			FILE *f = pagemap_new(d[i].fd, PID, 1);

			pagemap_add(f, AT(2 * i), 2, HERE);
			if (i + 1 < depth)
				pagemap_add(f, AT(2 * i + 2), 2 * (depth - i - 1), UP);
			image_end(f);
			write_file(d[i].fd, "pages-1.img", 2 * PAGE_SIZE);
		}
		if (load_scratch(&c, &d[0], false, &e))
			fail_msg("%s", e.text);
		assert_int_equal(c->tasks[0].extents.npages, 2 * depth);
		assert_int_equal(c->nfiles, depth);
		assert_where(c, 0, "pages-1.img", 0);
		assert_where(c, 3, "parent/pages-1.img", 1);
		if (depth == 5)
			assert_where(c, 9, "parent/parent/parent/parent/pages-1.img", 1);
		if (depth == 40)
			assert_where(c, 79, "(39 times parent)/pages-1.img", 1);
		checkpoint_free(c);
		chain_end(d, &s, depth);
	}
}

/* The middle directory's entries: what the top finds there, and what it says. */
static void what_a_chain_lacks_is_refused_where_it_is_asked_for(void **state)
{
	static const struct {
		uint64_t page, npages;
		uint32_t flags;
		const char *says;
		int ret;
	} cases[] = {
		{1, 3, HERE, NULL, 0},
		{0, 8, HERE, NULL, 0},
		{2, 2, HERE, "0x100001000: is to be in the parent, and is not there", -EBADMSG},
		{1, 2, HERE, "0x100003000: is to be in the parent, and is not there", -EBADMSG},
		{5, 2, HERE, "0x100001000: is to be in the parent, and is not there", -EBADMSG},
		{1, 3, LAZY, "is in a parent whose pages were left at their source", -EREMOTE},
		{1, 3, UP, "0x100001000: is to be in the parent, and is not there", -EBADMSG},
		/* Nobody asks for the page that the parent's parent does not have. */
		{9, 1, UP, "0x100001000: is to be in the parent", -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scratch s = scratch_new(), d[2];
		struct checkpoint *c;
		struct error e;
		FILE *f;

		chain_new(d, &s, 2);
		f = pagemap_new(d[0].fd, PID, 1);
		pagemap_add(f, AT(1), 3, UP);
		image_end(f);
		f = pagemap_new(d[1].fd, PID, 1);
		pagemap_add(f, AT(cases[i].page), cases[i].npages, cases[i].flags);
		pagemap_add(f, AT(100), 1, PAGEMAP_PARENT); /* lacks, and is not asked for */
		image_end(f);
		write_file(d[1].fd, "pages-1.img",
			   cases[i].flags == HERE ? cases[i].npages * PAGE_SIZE : 0);
		assert_int_equal(load_scratch(&c, &d[0], true, &e), cases[i].ret);
		if (cases[i].says) {
			assert_text(e, "dir: pagemap-12.img: entry 1: ");
			assert_text(e, cases[i].says);
		}
		checkpoint_free(c);
		chain_end(d, &s, 2);
	}
}

/* A task that began after a pre-dump has no pagemap there, and nothing behind it either. */
static void a_chain_ends_where_the_task_is_not(void **state)
{
	struct scratch s = scratch_new(), d[3];
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	chain_new(d, &s, 3);
	f = pagemap_new(d[0].fd, PID, 1);
	pagemap_add(f, AT(0), 1, UP);
	image_end(f);
	f = pagemap_new(d[2].fd, PID, 1);
	pagemap_add(f, AT(0), 1, HERE);
	image_end(f);
	write_file(d[2].fd, "pages-1.img", PAGE_SIZE);
	assert_int_equal(load_scratch(&c, &d[0], false, &e), -ENOENT);
	assert_text(e, "pagemap-12.img: entry 1: 0x100000000: is in the parent, and there is none");
	chain_end(d, &s, 3);
}

static void damage_in_a_parent_names_the_parents_file(void **state)
{
	struct scratch s = scratch_new(), d[2];
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	chain_new(d, &s, 2);
	f = pagemap_new(d[0].fd, PID, 1);
	pagemap_add(f, AT(0), 1, UP);
	image_end(f);
	f = pagemap_new(d[1].fd, PID, 1);
	pagemap_add(f, AT(0), 2, HERE);
	image_end(f);
	write_file(d[1].fd, "pages-1.img", PAGE_SIZE);
	assert_int_equal(load_scratch(&c, &d[0], false, &e), -EBADMSG);
	assert_text(e, "dir: parent/pagemap-12.img: entry 1: ");
	assert_text(e, "past the end of parent/pages-1.img");
	chain_end(d, &s, 2);
}

static void loops_of_parents_are_refused(void **state)
{
	static const char *const links[] = {".", "parent", "../d0", "../d1"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		struct scratch s = scratch_new(), d[3];
		struct checkpoint *c;
		struct error e;

		chain_new(d, &s, 3);
		assert_int_equal(symlinkat(links[i], d[2].fd, "parent"), 0);
		assert_int_equal(load_scratch(&c, &d[0], false, &e), -ELOOP);
		chain_end(d, &s, 3);
	}
}

/* A whole dump may have been moved away from its parent; one that needs it may not. */
static void a_broken_parent_link_matters_if_pages_are_behind_it(void **state)
{
	struct scratch s = scratch_new();
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	write_task(s.fd, &one_vma, 1);
	assert_int_equal(symlinkat("../gone", s.fd, "parent"), 0);
	f = pagemap_new(s.fd, PID, 1);
	pagemap_add(f, AT(0), 1, HERE);
	image_end(f);
	write_file(s.fd, "pages-1.img", PAGE_SIZE);
	assert_int_equal(load_scratch(&c, &s, false, &e), 0);
	checkpoint_free(c);

	f = pagemap_new(s.fd, PID, 1);
	pagemap_add(f, AT(0), 1, HERE);
	pagemap_add(f, AT(1), 1, UP);
	image_end(f);
	assert_int_equal(load_scratch(&c, &s, false, &e), -ENOENT);
	assert_text(e, "entry 2: 0x100001000: is in the parent, whose link is broken");

	assert_int_equal(unlinkat(s.fd, "parent", 0), 0);
	write_file(s.fd, "parent", 0);
	assert_int_equal(load_scratch(&c, &s, false, &e), -ENOTDIR);
	scratch_end(&s);
}

static unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void nothing_stays_open_after_a_failure(void **state)
{
	struct scratch s = scratch_new(), d[3];
	unsigned before;
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	chain_new(d, &s, 3);
	for (unsigned i = 0; i < 3; i++) {
		f = pagemap_new(d[i].fd, PID, 1);
		pagemap_add(f, AT(0), 1, HERE);
		if (!i)
			pagemap_add(f, AT(1), 1, UP);
		image_end(f);
		write_file(d[i].fd, "pages-1.img", PAGE_SIZE);
	}
	before = open_files();
	assert_int_equal(load_scratch(&c, &d[0], false, &e), -EBADMSG);
	assert_int_equal(open_files(), before);
	assert_true(fcntl(d[0].fd, F_GETFD) >= 0);
	chain_end(d, &s, 3);
}

static void a_million_entries_resolve_through_a_parent(void **state)
{
	const uint64_t n = 1000000;
	const struct test_vma v = {BASE, AT(2 * n), ANON};
	struct scratch s = scratch_new(), d[2];
	struct checkpoint *c;
	struct error e;
	uint64_t start;

	(void)state;
	chain_new(d, &s, 2);
	write_mm(d[0].fd, PID, &v, 1);
	for (unsigned i = 0; i < 2; i++) {
		FILE *f = pagemap_new(d[i].fd, PID, 1);

		for (uint64_t j = 0; j < n; j++)
			pagemap_add(f, AT(2 * j), 1, i ? HERE : UP);
		image_end(f);
	}
	write_file(d[1].fd, "pages-1.img", n * PAGE_SIZE);
	start = cpu_ns();
	assert_int_equal(load_scratch(&c, &d[0], false, &e), 0);
	assert_true(cpu_ns() - start < UINT64_C(2000000000) * SLOWNESS);
	assert_int_equal(c->tasks[0].extents.n, n);
	assert_int_equal(extents_where(&c->tasks[0].extents, n - 1), WHERE(0, n - 1));
	checkpoint_free(c);
	chain_end(d, &s, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_parent_gives_what_the_child_has_not_itself),
		cmocka_unit_test(a_chain_is_followed_to_its_end),
		cmocka_unit_test(what_a_chain_lacks_is_refused_where_it_is_asked_for),
		cmocka_unit_test(a_chain_ends_where_the_task_is_not),
		cmocka_unit_test(damage_in_a_parent_names_the_parents_file),
		cmocka_unit_test(loops_of_parents_are_refused),
		cmocka_unit_test(a_broken_parent_link_matters_if_pages_are_behind_it),
		cmocka_unit_test(nothing_stays_open_after_a_failure),
		cmocka_unit_test(a_million_entries_resolve_through_a_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
