// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Checkpoints of one directory: what golden images hold, which bytes stand behind which page, and
 * what is refused and how. Directories are written by the tests themselves except for the golden
 * ones, which stock CRIU wrote.
 */
#include "test_image_write.h"

#include <sys/resource.h>

#define LAZY PAGEMAP_LAZY

static struct checkpoint *load_golden(const char *name, bool remote)
{
	struct checkpoint *c;
	char path[256];
	struct error e;
	int fd;

	golden_path(path, name);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	if (checkpoint_load(&c, fd, name, remote, &e))
		fail_msg("%s", e.text);
	close(fd);
	return c;
}

/* The first byte of the page at @vaddr, which must be one of the task's lazy ones. */
static int byte_at(const struct checkpoint *c, const struct checkpoint_task *t, uint64_t vaddr)
{
	uint64_t index = extents_index(&t->extents, vaddr), where;
	unsigned char byte;

	assert_true(index < t->extents.npages);
	assert_int_equal(extents_vaddr(&t->extents, index), vaddr);
	where = extents_where(&t->extents, index);
	assert_true(WHERE_FILE(where) < c->nfiles);
	assert_int_equal(pread(c->files[WHERE_FILE(where)].fd, &byte, 1,
			       (off_t)(WHERE_PAGE(where) << PAGE_SHIFT)),
			 1);
	return byte;
}

/* What golden/tree.c writes; @dense is the first byte of its second area. */
static void check_areas(const struct checkpoint *c, const struct checkpoint_task *t, int dense)
{
	for (int i = 0; i < 8; i += 2) {
		uint64_t vaddr = 0x10000000 + (uint64_t)i * PAGE_SIZE, next = vaddr + PAGE_SIZE;

		assert_int_equal(byte_at(c, t, vaddr), i + 1);
		/* The page behind is not in the image at all. */
		assert_true(extents_vaddr(&t->extents, extents_index(&t->extents, next)) > next);
	}
	assert_int_equal(byte_at(c, t, 0x20000000), dense);
	assert_int_equal(byte_at(c, t, 0x20001000), 0x42);
}

static const struct checkpoint_vma *vma_at(const struct checkpoint_task *t, uint64_t start)
{
	for (size_t i = 0; i < t->nvmas; i++)
		if (t->vmas[i].start == start)
			return &t->vmas[i];
	fail_msg("no mapping at %#llx", (unsigned long long)start);
	return NULL;
}

static void a_tree_that_4_2_dumped_is_read(void **state)
{
	struct checkpoint *c = load_golden("v42-tree", false);
	const struct checkpoint_vma *v;

	(void)state;
	assert_true(c->long_counts);
	assert_int_equal(c->ntasks, 4);
	assert_int_equal(c->nfiles, 3);
	check_areas(c, &c->tasks[0], 0x41);
	check_areas(c, &c->tasks[1], 'z');  /* changed it after the fork */
	check_areas(c, &c->tasks[2], 0x41); /* is stopped */
	for (size_t i = 0; i < 3; i++) {
		assert_false(c->tasks[i].no_mm);
		assert_false(c->tasks[i].no_thp);
		assert_ptr_equal(checkpoint_task(c, c->tasks[i].pid), &c->tasks[i]);
	}
	assert_true(c->tasks[3].no_mm); /* a zombie */
	assert_int_equal(c->tasks[3].extents.npages, 0);
	assert_int_equal(c->tasks[3].nvmas, 0);
	assert_null(checkpoint_task(c, 1));

	v = vma_at(&c->tasks[0], 0x30000000);
	assert_int_equal(v->end, 0x30004000);
	assert_int_equal(v->prot, PROT_READ | PROT_WRITE);
	assert_int_equal(v->flags, ANON);
	assert_int_equal(v->madv, MADV_BIT_HUGEPAGE | MADV_BIT_WIPEONFORK);
	assert_int_equal(byte_at(c, &c->tasks[0], 0x30001000), 1);
	/* Wiped on fork: the children have nothing there. */
	assert_true(extents_vaddr(&c->tasks[1].extents,
				  extents_index(&c->tasks[1].extents, 0x30000000)) > 0x40000000);
	checkpoint_free(c);
}

static void a_task_that_4_1_dumped_is_read(void **state)
{
	struct checkpoint *c = load_golden("v41", false);

	(void)state;
	assert_false(c->long_counts);
	assert_int_equal(c->ntasks, 1);
	check_areas(c, &c->tasks[0], 0x41);
	checkpoint_free(c);
}

static void assert_at_page_server(const struct checkpoint *c, uint64_t where, uint64_t vaddr)
{
	assert_true(WHERE_FILE(where) < c->nfiles);
	assert_int_equal(c->files[WHERE_FILE(where)].pid, c->tasks[0].pid);
	assert_int_equal(c->files[WHERE_FILE(where)].fd, -1);
	assert_int_equal(WHERE_PAGE(where), vaddr >> PAGE_SHIFT);
}

static void a_lazy_dump_needs_its_source(void **state)
{
	struct checkpoint *c;
	char path[256], says[96];
	uint64_t index;
	struct error e;
	int fd;

	(void)state;
	c = load_golden("v42-lazy", true);
	assert_int_equal(c->ntasks, 1);
	index = extents_index(&c->tasks[0].extents, 0x20001000);
	assert_int_equal(extents_vaddr(&c->tasks[0].extents, index), 0x20001000);
	assert_at_page_server(c, extents_where(&c->tasks[0].extents, index), 0x20001000);
	snprintf(says, sizeof(says),
		 ".img: entry 2: pages of PID %d are still at the source; give --page-server",
		 c->tasks[0].pid);
	checkpoint_free(c);

	golden_path(path, "v42-lazy");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(checkpoint_load(&c, fd, path, false, &e), -EREMOTE);
	assert_text(e, says);
	assert_int_equal(strncmp(e.text, path, strlen(path)), 0);
	close(fd);
}

/* The offset in the file moves on over what is in the file, lazy or not, and over nothing else. */
static void offsets_advance_over_present_entries_only(void **state)
{
	struct scratch s = scratch_new();
	const struct extents *x;
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	write_task(s.fd, &one_vma, 1);
	f = pagemap_new(s.fd, PID, 4);
	pagemap_add(f, AT(0), 2, PAGEMAP_PRESENT);
	pagemap_add(f, AT(2), 3, HERE);
	pagemap_add(f, AT(8), 10, LAZY);
	pagemap_add(f, AT(18), 1, PAGEMAP_PRESENT);
	pagemap_add(f, AT(19), 1, HERE);
	pagemap_add(f, AT(20), 4, HERE);
	image_end(f);
	write_file(s.fd, "pages-4.img", 11 * PAGE_SIZE);

	assert_int_equal(load_scratch(&c, &s, true, &e), 0);
	x = &c->tasks[0].extents;
	assert_int_equal(x->n, 3);
	assert_int_equal(x->npages, 18);
	assert_int_equal(x->v[0].vaddr, AT(2));
	assert_int_equal(x->v[0].where, WHERE(0, 2));
	assert_int_equal(x->v[1].vaddr, AT(8));
	assert_at_page_server(c, x->v[1].where, AT(8));
	assert_int_equal(x->v[2].vaddr, AT(19));
	assert_int_equal(x->v[2].where, WHERE(0, 6));
	assert_int_equal(extent_npages(x, 2), 5);
	checkpoint_free(c);
	scratch_end(&s);
}

static void tasks_share_a_file_that_is_opened_once(void **state)
{
	const uint32_t pids[] = {12, 13, 14};
	struct scratch s = scratch_new();
	struct checkpoint *c;
	struct error e;

	(void)state;
	write_inventory(s.fd, 2);
	write_pstree(s.fd, pids, 3);
	for (uint32_t i = 0; i < 3; i++) {
		FILE *f = pagemap_new(s.fd, pids[i], i == 1 ? 9 : 4);

		pagemap_add(f, AT(i), 2, HERE);
		image_end(f);
		write_core(s.fd, pids[i], 1, 1);
		write_mm(s.fd, pids[i], &one_vma, 1);
	}
	write_file(s.fd, "pages-4.img", 2 * PAGE_SIZE);
	write_file(s.fd, "pages-9.img", 2 * PAGE_SIZE);
	assert_int_equal(load_scratch(&c, &s, false, &e), 0);
	assert_int_equal(c->nfiles, 2);
	assert_int_equal(c->tasks[0].extents.v[0].where, WHERE(0, 0));
	assert_int_equal(c->tasks[1].extents.v[0].where, WHERE(1, 0));
	assert_int_equal(c->tasks[2].extents.v[0].where, WHERE(0, 0));
	assert_string_equal(c->files[1].name, "pages-9.img");
	checkpoint_free(c);
	scratch_end(&s);
}

/* A pagemap's entries, and how the checkpoint is to be taken. */
struct verdict {
	struct {
		uint64_t page, npages;
		uint32_t flags;
	} entries[3];
	uint64_t file_pages;
	const char *says;
	int ret;
};

static void what_cannot_be_whole_is_refused(void **state)
{
	static const struct verdict cases[] = {
		{{{0, 3, HERE}, {8, 2, HERE}}, 5, NULL, 0},
		{{{0, 3, HERE}, {8, 2, HERE}},
		 4,
		 "entry 2: 0x100008000: its 2 pages are past the end of pages-1.img (1 of 4",
		 -EBADMSG},
		{{{0, 3, HERE}, {8, 2, PAGEMAP_PRESENT}}, 4, "entry 2: ", -EBADMSG},
		{{{0, 3, HERE}, {8, 2, HERE}}, 3, "entry 2: ", -EBADMSG},
		{{{0, 3, HERE}}, 0, "entry 1: ", -EBADMSG},
		{{{0, UINT64_C(1) << 20, HERE}}, 5, "entry 1: ", -EBADMSG},
		{{{0, 3, HERE}, {8, 2, HERE}},
		 6,
		 "entry 2: truncated: is the last, and pages-1.img has 1 pages more",
		 -EBADMSG},
		{{{0, 3, LAZY}}, 0, "entry 1: pages of PID 12 are still at the source", -EREMOTE},
		{{{0, 3, UP}},
		 0,
		 "entry 1: 0x100000000: is in the parent, and there is none",
		 -ENOENT},
		{{{0, 3, PAGEMAP_PARENT}}, 0, "is in the parent, and there is none", -ENOENT},
		{{{-4096ull, 1, HERE}},
		 1,
		 "entry 1: 0xff000000: lazy, and in no mapping",
		 -EBADMSG},
		{{{(1 << 20) - 1, 2, HERE}}, 2, "0x200000000: lazy, and in no mapping", -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scratch s = scratch_new();
		struct checkpoint *c;
		struct error e;
		FILE *f;

		write_task(s.fd, &one_vma, 1);
		f = pagemap_new(s.fd, PID, 1);
		for (size_t j = 0; j < 3 && cases[i].entries[j].npages; j++)
			pagemap_add(f, AT(cases[i].entries[j].page), cases[i].entries[j].npages,
				    cases[i].entries[j].flags);
		image_end(f);
		write_file(s.fd, "pages-1.img", cases[i].file_pages * PAGE_SIZE);
		assert_int_equal(load_scratch(&c, &s, false, &e), cases[i].ret);
		if (cases[i].says) {
			assert_text(e, "dir: pagemap-12.img: entry ");
			assert_text(e, cases[i].says);
		}
		checkpoint_free(c);
		scratch_end(&s);
	}
}

static void lazy_pages_are_in_private_anonymous_mappings(void **state)
{
	static const struct {
		uint32_t flags;
		int ret;
	} cases[] = {
		{ANON, 0},
		{ANON | MAP_GROWSDOWN | MAP_NORESERVE | MAP_STACK, 0},
		{MAP_PRIVATE, -EBADMSG},
		{MAP_SHARED | MAP_ANONYMOUS, -EBADMSG},
		{ANON | MAP_HUGETLB, -EBADMSG},
		{ANON | MAP_LOCKED, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct test_vma v[] = {{AT(0), AT(2), ANON}, {AT(2), AT(4), cases[i].flags}};
		struct scratch s = scratch_new();
		struct checkpoint *c;
		struct error e;
		FILE *f;

		write_task(s.fd, v, 2);
		f = pagemap_new(s.fd, PID, 1);
		pagemap_add(f, AT(1), 3, HERE);
		image_end(f);
		write_file(s.fd, "pages-1.img", 3 * PAGE_SIZE);
		assert_int_equal(load_scratch(&c, &s, false, &e), cases[i].ret);
		if (cases[i].ret)
			assert_text(e,
				    "entry 1: 0x100002000: lazy, and in a mapping that cannot be");
		checkpoint_free(c);
		scratch_end(&s);
	}
}

static void each_missing_image_is_named(void **state)
{
	static const char *const files[] = {"inventory.img", "pstree.img",     "core-12.img",
					    "mm-12.img",     "pagemap-12.img", "pages-1.img"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct scratch s = scratch_new();
		struct checkpoint *c;
		struct error e;
		FILE *f;

		write_task(s.fd, &one_vma, 1);
		f = pagemap_new(s.fd, PID, 1);
		pagemap_add(f, AT(0), 1, HERE);
		image_end(f);
		write_file(s.fd, "pages-1.img", PAGE_SIZE);
		assert_int_equal(load_scratch(&c, &s, false, &e), 0);
		checkpoint_free(c);
		assert_int_equal(unlinkat(s.fd, files[i], 0), 0);
		assert_int_equal(load_scratch(&c, &s, false, &e), -ENOENT);
		assert_null(c);
		assert_text(e, files[i]);
		scratch_end(&s);
	}
}

static void a_zombie_needs_no_images_of_memory(void **state)
{
	const uint32_t pids[] = {5, PID};
	struct scratch s = scratch_new();
	struct checkpoint *c;
	struct error e;
	FILE *f;

	(void)state;
	write_task(s.fd, &one_vma, 1);
	write_pstree(s.fd, pids, 2);
	write_core(s.fd, 5, 1, 2);
	f = pagemap_new(s.fd, PID, 1);
	image_end(f); /* without pages, and so without pages-1.img */
	assert_int_equal(load_scratch(&c, &s, false, &e), 0);
	assert_true(checkpoint_task(c, 5)->no_mm);
	assert_false(checkpoint_task(c, PID)->no_mm);
	assert_int_equal(checkpoint_task(c, PID)->extents.npages, 0);
	checkpoint_free(c);
	scratch_end(&s);
}

static long peak_kib(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

static void a_million_entries_load_in_a_moment_and_in_place(void **state)
{
	const uint64_t n = 1000000, limit_ns = UINT64_C(600000000) * SLOWNESS;
	const struct test_vma v = {BASE, AT(2 * n), ANON};
	struct scratch s = scratch_new();
	uint64_t best = UINT64_MAX;
	struct checkpoint *c;
	struct error e;
	long before;
	FILE *f;

	(void)state;
	write_task(s.fd, &v, 1);
	f = pagemap_new(s.fd, PID, 1);
	for (uint64_t i = 0; i < n; i++)
		pagemap_add(f, AT(2 * i), 1, HERE);
	image_end(f);
	write_file(s.fd, "pages-1.img", n * PAGE_SIZE);

	before = peak_kib();
	for (int i = 0; i < 3; i++) {
		uint64_t start = cpu_ns();

		assert_int_equal(load_scratch(&c, &s, false, &e), 0);
		best = MIN(best, cpu_ns() - start);
		assert_int_equal(c->tasks[0].extents.n, n);
		assert_int_equal(extents_where(&c->tasks[0].extents, n - 1), WHERE(0, n - 1));
		checkpoint_free(c);
	}
	print_message("a million entries: %.3f s of CPU, %ld KiB more at the peak\n",
		      (double)best / 1e9, peak_kib() - before);
	assert_true(best < limit_ns);
	if (SLOWNESS == 1) /* an extent is 24 bytes, and growing holds old and new for a moment */
		assert_true(peak_kib() - before < 48 << 10);
	scratch_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tree_that_4_2_dumped_is_read),
		cmocka_unit_test(a_task_that_4_1_dumped_is_read),
		cmocka_unit_test(a_lazy_dump_needs_its_source),
		cmocka_unit_test(offsets_advance_over_present_entries_only),
		cmocka_unit_test(tasks_share_a_file_that_is_opened_once),
		cmocka_unit_test(what_cannot_be_whole_is_refused),
		cmocka_unit_test(lazy_pages_are_in_private_anonymous_mappings),
		cmocka_unit_test(each_missing_image_is_named),
		cmocka_unit_test(a_zombie_needs_no_images_of_memory),
		cmocka_unit_test(a_million_entries_load_in_a_moment_and_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
