// SPDX-License-Identifier: GPL-2.0-or-later
/* Page maps that we write: what is read back, and both ways to count, as old and new CRIU do. */
#include "test_image_write.h"

#include "image_write.h"

static struct pagemap_writer *writer_new(struct scratch *s, uint32_t pages_id)
{
	struct pagemap_writer *w;
	struct error e = {0};

	assert_int_equal(pagemap_writer_open(&w, s->fd, "pagemap-12.img", pages_id, &e), 0);
	return w;
}

static void add(struct pagemap_writer *w, uint64_t vaddr, uint64_t npages, uint32_t flags)
{
	const struct pagemap_entry n = {vaddr, npages, flags, false};
	struct error e = {0};

	assert_int_equal(pagemap_writer_add(w, &n, &e), 0);
}

static void end(struct pagemap_writer *w)
{
	struct error e = {0};

	assert_int_equal(pagemap_writer_flush(w, &e), 0);
	pagemap_writer_close(w);
}

static void what_was_written_is_read(void **state)
{
	const uint64_t entries = 100000;
	struct scratch s = scratch_new();
	struct image_dir dir = {.fd = s.fd, .version = 2};
	struct pagemap_writer *w = writer_new(&s, 65537);
	struct pagemap_entry n;
	struct pagemap p;
	struct error e;

	(void)state;
	for (uint64_t i = 0; i < entries; i++)
		add(w, AT(4 * i), 1 + i % 3, i % 2 ? HERE : UP);
	add(w, UINT64_MAX - 2 * PAGE_SIZE + 1, 1, PAGEMAP_PRESENT);
	end(w);

	assert_int_equal(pagemap_open(&p, &dir, PID, &e), 0);
	assert_int_equal(p.pages_id, 65537);
	for (uint64_t i = 0; i < entries; i++) {
		assert_int_equal(pagemap_next(&p, &n, &e), 1);
		assert_int_equal(n.vaddr, AT(4 * i));
		assert_int_equal(n.npages, 1 + i % 3);
		assert_int_equal(n.flags, i % 2 ? HERE : UP);
	}
	assert_int_equal(pagemap_next(&p, &n, &e), 1);
	assert_int_equal(pagemap_next(&p, &n, &e), 0);
	pagemap_close(&p);
	scratch_end(&s);
}

/* The bytes themselves: 4.1 takes field 2 and cannot see 5, 4.2 takes 5 and needs 2 to be there. */
static void both_counts_are_there_when_they_fit(void **state)
{
	static const struct {
		uint64_t npages;
		uint32_t compat;
	} cases[] = {{1, 1}, {UINT32_MAX, UINT32_MAX}, {UINT64_C(1) << 32, 0}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scratch s = scratch_new();
		struct pagemap_writer *w = writer_new(&s, 1);
		struct image_dir dir = {.fd = s.fd, .version = 2};
		const void *m;
		struct image *im;
		struct error e;

		add(w, 0x1000, cases[i].npages, HERE);
		end(w);
		assert_int_equal(image_open(&im, &dir, IMAGE_PAGEMAP, PID, &e), 0);
		assert_int_equal(image_next(im, &image__pagemap_head__descriptor, &m, &e), 1);
		assert_int_equal(image_next(im, &image__pagemap_entry__descriptor, &m, &e), 1);
		assert_int_equal(((const Image__PagemapEntry *)m)->nr_pages, cases[i].npages);
		assert_true(((const Image__PagemapEntry *)m)->has_compat_nr_pages);
		assert_int_equal(((const Image__PagemapEntry *)m)->compat_nr_pages,
				 cases[i].compat);
		image_close(im);
		scratch_end(&s);
	}
}

static void what_no_reader_takes_is_not_written(void **state)
{
	static const struct {
		struct pagemap_entry n;
		const char *says;
	} cases[] = {
		{{0x4000, 1, HERE, false}, "below the end of the entry before (0x5000)"},
		{{0x3000, 9, HERE, false}, "below the end"},
		{{0x5001, 1, HERE, false}, "not the address of a page"},
		{{0x5000, 0, HERE, false}, "of no pages"},
		{{0x5000, UINT64_MAX, HERE, false}, "past the end of memory"},
		{{0x5000, UINT64_MAX >> PAGE_SHIFT, HERE, false}, "past the end of memory"},
		{{0x5000, 1, 0, false}, "neither here nor elsewhere"},
		{{0x5000, 1, 5, false}, "both here and in the parent"},
		{{0x5000, 1, 12, false}, "of a later version"},
	};
	struct scratch s = scratch_new();
	struct pagemap_writer *w = writer_new(&s, 1);

	(void)state;
	add(w, 0x4000, 1, HERE);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error e = {0};

		assert_true(pagemap_writer_add(w, &cases[i].n, &e) < 0);
		assert_text(e, "pagemap-12.img: ");
		assert_text(e, cases[i].says);
	}
	add(w, 0x5000, 1, HERE);
	end(w);
	scratch_end(&s);
}

static void a_file_that_is_there_is_not_written_over(void **state)
{
	struct scratch s = scratch_new();
	struct pagemap_writer *w = writer_new(&s, 1);
	struct error e;

	(void)state;
	end(w);
	assert_int_equal(pagemap_writer_open(&w, s.fd, "pagemap-12.img", 2, &e), -EEXIST);
	assert_text(e, "pagemap-12.img");
	scratch_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(both_counts_are_there_when_they_fit),
		cmocka_unit_test(what_no_reader_takes_is_not_written),
		cmocka_unit_test(a_file_that_is_there_is_not_written_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
