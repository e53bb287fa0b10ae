// SPDX-License-Identifier: GPL-2.0-or-later
/* Pagemaps: both ways to count, flags old and new, and everything that is no sound entry. */
#include "test_image_write.h"

struct fields {
	int compat, parent, flags; /* -1: left out */
	int64_t count;
};

static void add_fields(FILE *f, uint64_t vaddr, struct fields n)
{
	Image__PagemapEntry m = IMAGE__PAGEMAP_ENTRY__INIT;

	m.vaddr = vaddr;
	m.has_compat_nr_pages = n.compat >= 0;
	m.compat_nr_pages = (uint32_t)n.compat;
	m.has_in_parent = n.parent >= 0;
	m.in_parent = n.parent > 0;
	m.has_flags = n.flags >= 0;
	m.flags = (uint32_t)n.flags;
	m.has_nr_pages = n.count >= 0;
	m.nr_pages = (uint64_t)n.count;
	image_record(f, &m);
}

/* Reads @n entries, and says how the next one goes. */
static int read_after(struct scratch *s, unsigned n, struct pagemap_entry *entry, struct error *e)
{
	struct image_dir dir = {.fd = s->fd, .version = 2};
	struct pagemap p;
	int ret;

	memset(e, 0, sizeof(*e));
	assert_int_equal(pagemap_open(&p, &dir, PID, e), 0);
	while (n--)
		assert_int_equal(pagemap_next(&p, entry, e), 1);
	ret = pagemap_next(&p, entry, e);
	pagemap_close(&p);
	return ret;
}

static void both_counts_and_all_flags_are_understood(void **state)
{
	static const struct {
		struct fields in;
		uint64_t npages;
		uint32_t flags;
		bool long_count;
	} cases[] = {
		{{3, -1, 4, -1}, 3, PAGEMAP_PRESENT, false},
		{{3, -1, 6, -1}, 3, HERE, false},
		{{0, -1, 6, 5}, 5, HERE, true},
		{{3, -1, 6, 5}, 5, HERE, true},
		{{-1, -1, 6, 0x100000001}, 0x100000001, HERE, true},
		{{3, -1, 2, -1}, 3, PAGEMAP_LAZY, false},
		{{3, -1, -1, -1}, 3, PAGEMAP_PRESENT, false},
		{{3, 0, -1, -1}, 3, PAGEMAP_PRESENT, false},
		{{3, 1, -1, -1}, 3, PAGEMAP_PARENT, false},
		{{3, 1, 1, -1}, 3, PAGEMAP_PARENT, false},
		{{3, -1, 1, -1}, 3, PAGEMAP_PARENT, false},
		{{3, 1, 2, -1}, 3, PAGEMAP_PARENT | PAGEMAP_LAZY, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scratch s = scratch_new();
		FILE *f = pagemap_new(s.fd, PID, 1);
		struct pagemap_entry n;
		struct error e;

		add_fields(f, 0x5000, cases[i].in);
		image_end(f);
		assert_int_equal(read_after(&s, 0, &n, &e), 1);
		assert_int_equal(n.vaddr, 0x5000);
		assert_int_equal(n.npages, cases[i].npages);
		assert_int_equal(n.flags, cases[i].flags);
		assert_int_equal(n.long_count, cases[i].long_count);
		assert_int_equal(read_after(&s, 1, &n, &e), 0);
		scratch_end(&s);
	}
}

static void unsound_entries_are_refused_by_number(void **state)
{
	static const struct {
		uint64_t vaddr;
		struct fields in;
		const char *says;
		int ret;
	} cases[] = {
		{0x9000, {0, -1, 6, -1}, "of no pages", -EBADMSG},
		{0x9000, {3, -1, 6, 0}, "of no pages", -EBADMSG},
		{0x9000, {-1, -1, 6, -1}, "of no pages", -EBADMSG},
		{0x9001, {1, -1, 6, -1}, "not the address of a page", -EBADMSG},
		{0x9000, {1, -1, 5, -1}, "both here and in the parent", -EBADMSG},
		{0x9000, {1, 1, 6, -1}, "both here and in the parent", -EBADMSG},
		{0x9000, {1, -1, 0, -1}, "neither here nor elsewhere", -EBADMSG},
		{0x9000, {1, -1, 8 | 6, -1}, "flags 0xe of a later version", -EOPNOTSUPP},
		{0x8000, {1, -1, 6, -1}, "below the end of the entry before", -EBADMSG},
		{0x1000, {1, -1, 6, -1}, "below the end of the entry before", -EBADMSG},
		{-0x1000ull, {1, -1, 6, -1}, "past the end of memory", -EBADMSG},
		{-0x2000ull, {2, -1, 6, -1}, "past the end of memory", -EBADMSG},
		{0x9000, {0, -1, 6, INT64_MAX}, "past the end of memory", -EBADMSG},
		{-0x2000ull, {1, -1, 6, -1}, NULL, 1},
		{0x9000, {1, -1, 6, -1}, NULL, 1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scratch s = scratch_new();
		FILE *f = pagemap_new(s.fd, PID, 1);
		struct pagemap_entry n;
		struct error e;

		pagemap_add(f, 0x5000, 4, HERE);
		add_fields(f, cases[i].vaddr, cases[i].in);
		image_end(f);
		assert_int_equal(read_after(&s, 1, &n, &e), cases[i].ret);
		if (cases[i].says) {
			assert_text(e, "pagemap-12.img: entry 2: ");
			assert_text(e, cases[i].says);
		}
		scratch_end(&s);
	}
}

/* Later versions say in further fields that the bytes in the file are compressed. */
static void fields_of_later_versions_are_refused(void **state)
{
	struct scratch s = scratch_new();
	FILE *f = pagemap_new(s.fd, PID, 1);
	struct pagemap_entry n;
	struct error e;

	(void)state;
	image_bytes(f, (const uint8_t[]){1 << 3, 0x80, 0x20, 4 << 3, 6, 5 << 3, 1, 6 << 3, 9}, 9);
	image_end(f);
	assert_int_equal(read_after(&s, 0, &n, &e), -EOPNOTSUPP);
	assert_text(e, "pagemap-12.img: entry 1: has field 6, of a later version");
	scratch_end(&s);
}

static void a_pagemap_has_a_head(void **state)
{
	struct scratch s = scratch_new();
	struct image_dir dir = {.fd = s.fd, .version = 2};
	struct pagemap p;
	struct error e;
	FILE *f;

	(void)state;
	assert_int_equal(pagemap_open(&p, &dir, PID, &e), -ENOENT);
	image_end(image_new(s.fd, "pagemap-12.img", MAGIC_COMMON, MAGIC_PAGEMAP));
	assert_int_equal(pagemap_open(&p, &dir, PID, &e), -EBADMSG);
	assert_text(e, "pagemap-12.img: truncated");

	f = pagemap_new(s.fd, PID, 77);
	image_end(f);
	assert_int_equal(pagemap_open(&p, &dir, PID, &e), 0);
	assert_int_equal(p.pages_id, 77);
	pagemap_close(&p);
	scratch_end(&s);
}

static void files_of_pages_hold_whole_pages(void **state)
{
	struct scratch s = scratch_new();
	struct image_dir dir = {.fd = s.fd, .depth = 2, .version = 2};
	uint64_t npages;
	struct error e;
	int fd = -1;

	(void)state;
	assert_int_equal(pages_open(&fd, &npages, &dir, 3, &e), -ENOENT);
	assert_text(e, "parent/parent/pages-3.img: ");
	write_file(s.fd, "pages-3.img", 4096 * 3 + 1);
	assert_int_equal(pages_open(&fd, &npages, &dir, 3, &e), -EBADMSG);
	assert_text(e, "parent/parent/pages-3.img: truncated: 12289 bytes");
	assert_int_equal(fd, -1);
	cut_file(s.fd, "pages-3.img", 4096 * 3);
	assert_int_equal(pages_open(&fd, &npages, &dir, 3, &e), 0);
	assert_int_equal(npages, 3);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
	scratch_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_counts_and_all_flags_are_understood),
		cmocka_unit_test(unsound_entries_are_refused_by_number),
		cmocka_unit_test(fields_of_later_versions_are_refused),
		cmocka_unit_test(a_pagemap_has_a_head),
		cmocka_unit_test(files_of_pages_hold_whole_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
