// SPDX-License-Identifier: GPL-2.0-or-later
/* The reader of images: magics, lengths, records, and each small image's own rules. */
#include "test_image_write.h"

#include <signal.h>

#include "image_task.h"

static struct image_dir top(const struct scratch *s)
{
	return (struct image_dir){.fd = s->fd, .version = 2};
}

static int open_pstree(struct scratch *s, struct image **im, struct error *e)
{
	struct image_dir dir = top(s);

	*im = NULL;
	return image_open(im, &dir, IMAGE_PSTREE, 0, e);
}

static void records_come_in_order_and_then_the_end(void **state)
{
	const uint32_t pids[] = {7, 1, 4000000};
	struct scratch s = scratch_new();
	const Image__Pstree *m;
	struct image *im;
	struct error e;

	(void)state;
	write_pstree(s.fd, pids, 3);
	assert_int_equal(open_pstree(&s, &im, &e), 0);
	for (int i = 0; i < 3; i++) {
		const void *p;

		assert_int_equal(image_next(im, &image__pstree__descriptor, &p, &e), 1);
		m = p;
		assert_int_equal(m->pid, pids[i]);
	}
	assert_int_equal(image_next(im, &image__pstree__descriptor, (const void **)&m, &e), 0);
	assert_int_equal(image_next(im, &image__pstree__descriptor, (const void **)&m, &e), 0);
	image_close(im);
	scratch_end(&s);
}

static void records_longer_than_the_buffer_are_whole(void **state)
{
	static const unsigned counts[] = {1, 5000, 3, 40000, 2};
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	FILE *f = image_new(s.fd, "mm-12.img", MAGIC_COMMON, MAGIC_MM);
	struct image *im;
	struct error e;

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		Image__Vma **list = calloc(counts[c], sizeof(*list));
		Image__Mm m = IMAGE__MM__INIT;
		Image__Vma *v = calloc(counts[c], sizeof(*v));

		for (unsigned i = 0; i < counts[c]; i++) {
			image__vma__init(&v[i]);
			v[i].start = i;
			list[i] = &v[i];
		}
		m.n_vmas = counts[c];
		m.vmas = list;
		image_record(f, &m);
		free(list);
		free(v);
	}
	image_end(f);

	assert_int_equal(image_open(&im, &dir, IMAGE_MM, PID, &e), 0);
	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		const void *p;
		const Image__Mm *m;

		assert_int_equal(image_next(im, &image__mm__descriptor, &p, &e), 1);
		m = p;
		assert_int_equal(m->n_vmas, counts[c]);
		for (unsigned i = 0; i < counts[c]; i++)
			assert_int_equal(m->vmas[i]->start, i);
	}
	image_close(im);
	scratch_end(&s);
}

static void missing_foreign_and_odd_files_are_refused_by_name(void **state)
{
	struct scratch s = scratch_new();
	struct image *im;
	struct error e;

	(void)state;
	assert_int_equal(open_pstree(&s, &im, &e), -ENOENT);
	assert_text(e, "pstree.img: ");

	image_end(image_new(s.fd, "pstree.img", MAGIC_COMMON, MAGIC_MM));
	assert_int_equal(open_pstree(&s, &im, &e), -EBADMSG);
	assert_text(e, "pstree.img: not such an image");

	image_end(image_new(s.fd, "pstree.img", MAGIC_PSTREE, 0));
	assert_int_equal(open_pstree(&s, &im, &e), -EBADMSG);

	for (unsigned bytes = 0; bytes < 8; bytes++) {
		image_end(image_new(s.fd, "pstree.img", MAGIC_COMMON, MAGIC_PSTREE));
		cut_file(s.fd, "pstree.img", bytes);
		assert_int_equal(open_pstree(&s, &im, &e), -EBADMSG);
		assert_text(e, "truncated");
	}

	assert_int_equal(unlinkat(s.fd, "pstree.img", 0), 0);
	assert_int_equal(mkfifoat(s.fd, "pstree.img", 0600), 0);
	alarm(10); /* a reader that opens it the plain way waits forever */
	assert_int_equal(open_pstree(&s, &im, &e), -EBADMSG);
	alarm(0);
	assert_text(e, "not a regular file");

	assert_int_equal(unlinkat(s.fd, "pstree.img", 0), 0);
	assert_int_equal(mkdirat(s.fd, "pstree.img", 0700), 0);
	assert_int_equal(open_pstree(&s, &im, &e), -EBADMSG);
	scratch_end(&s);
}

/* A length is believed only as far as the file and sense go: nothing is allocated for the rest. */
static void lengths_are_checked_before_they_are_used(void **state)
{
	static const struct {
		uint32_t len;
		uint64_t file;
		const char *says;
	} cases[] = {
		{0xffffffff, 100, "4294967295 bytes long, and 88 are left"},
		{89, 100, "89 bytes long, and 88 are left"},
		{0x7fffffff, UINT64_C(3) << 30, "more than the 33554432 that it may have"},
	};
	struct scratch s = scratch_new();
	const void *m;
	struct image *im;
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		FILE *f = image_new(s.fd, "pstree.img", MAGIC_COMMON, MAGIC_PSTREE);

		assert_int_equal(fwrite(&cases[i].len, 4, 1, f), 1);
		assert_int_equal(fflush(f), 0);
		assert_int_equal(ftruncate(fileno(f), (off_t)cases[i].file), 0);
		image_end(f);
		assert_int_equal(open_pstree(&s, &im, &e), 0);
		assert_int_equal(image_next(im, &image__pstree__descriptor, &m, &e), -EBADMSG);
		assert_text(e, "pstree.img: entry 0: ");
		assert_text(e, cases[i].says);
		image_close(im);
	}
	scratch_end(&s);
}

/* Two-byte fields that nobody knows take the most memory per byte: all in bounds, all freed. */
static void a_record_full_of_unknown_fields_is_read(void **state)
{
	const uint32_t len = 1 << 20;
	struct scratch s = scratch_new();
	uint8_t *bytes = malloc(len);
	const void *m;
	struct image *im;
	struct error e;
	FILE *f;

	(void)state;
	for (uint32_t i = 0; i < len; i += 2) {
		bytes[i] = 15 << 3;
		bytes[i + 1] = 1;
	}
	memcpy(bytes, (const uint8_t[]){1 << 3, 5, 2 << 3, 1}, 4);
	f = image_new(s.fd, "pstree.img", MAGIC_COMMON, MAGIC_PSTREE);
	image_bytes(f, bytes, len);
	image_bytes(f, bytes, 4);
	image_end(f);
	free(bytes);

	assert_int_equal(open_pstree(&s, &im, &e), 0);
	assert_int_equal(image_next(im, &image__pstree__descriptor, &m, &e), 1);
	assert_int_equal(((const ProtobufCMessage *)m)->n_unknown_fields, len / 2 - 2);
	assert_int_equal(image_next(im, &image__pstree__descriptor, &m, &e), 1);
	assert_int_equal(((const Image__Pstree *)m)->pid, 5);
	image_close(im);
	scratch_end(&s);
}

static void a_record_without_its_required_fields_is_refused(void **state)
{
	struct scratch s = scratch_new();
	const void *m;
	struct image *im;
	struct error e;
	FILE *f = image_new(s.fd, "pstree.img", MAGIC_COMMON, MAGIC_PSTREE);

	(void)state;
	image_bytes(f, (const uint8_t[]){1 << 3, 5, 2 << 3, 1}, 4);
	image_bytes(f, "", 0);
	image_end(f);
	assert_int_equal(open_pstree(&s, &im, &e), 0);
	assert_int_equal(image_next(im, &image__pstree__descriptor, &m, &e), 1);
	assert_int_equal(image_next(im, &image__pstree__descriptor, &m, &e), -EBADMSG);
	assert_text(e, "pstree.img: entry 1: damaged");
	image_close(im);
	scratch_end(&s);
}

static void formats_1_and_2_are_known_and_no_others(void **state)
{
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	struct error e;

	(void)state;
	for (uint32_t version = 0; version < 5; version++) {
		uint32_t read = 99;
		int ret;

		write_inventory(s.fd, version);
		ret = image_inventory(&dir, &read, &e);
		assert_int_equal(read, version);
		assert_int_equal(ret, version == 1 || version == 2 ? 0 : -EOPNOTSUPP);
		if (ret)
			assert_text(e, "inventory.img: entry 0: images of format ");
	}
	scratch_end(&s);
}

static void format_1_has_no_common_magic(void **state)
{
	struct scratch s = scratch_new();
	struct image_dir dir = {.fd = s.fd, .version = 1};
	Image__Pstree m = IMAGE__PSTREE__INIT;
	uint32_t *pids;
	struct error e;
	size_t n;
	FILE *f = image_new(s.fd, "pstree.img", MAGIC_PSTREE, 0);

	(void)state;
	m.pid = 3;
	image_record(f, &m);
	image_end(f);
	assert_int_equal(image_pstree(&dir, &pids, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(pids[0], 3);
	free(pids);
	dir.version = 2;
	assert_int_equal(image_pstree(&dir, &pids, &n, &e), -EBADMSG);
	scratch_end(&s);
}

static void pids_are_valid_and_there_once(void **state)
{
	static const struct {
		uint32_t pids[3];
		size_t n;
		int ret;
	} cases[] = {
		{{5, 4, 6}, 3, 0},	  {{5, 4, 5}, 3, -EBADMSG},
		{{5, 0, 6}, 3, -EBADMSG}, {{5, 0x80000000u, 6}, 3, -EBADMSG},
		{{0x7fffffff}, 1, 0},	  {{0}, 0, -EBADMSG},
	};
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t *pids = NULL;
		size_t n = 0;

		write_pstree(s.fd, cases[i].pids, cases[i].n);
		assert_int_equal(image_pstree(&dir, &pids, &n, &e), cases[i].ret);
		if (!cases[i].ret) {
			assert_int_equal(n, cases[i].n);
			assert_memory_equal(pids, cases[i].pids, n * sizeof(*pids));
		}
		free(pids);
	}
	scratch_end(&s);
}

static void the_alive_and_the_stopped_have_memory(void **state)
{
	static const struct {
		uint32_t machine, task_state;
		int ret;
		bool has_mm;
	} cases[] = {
		{1, 1, 0, true},
		{1, 3, 0, true},
		{1, 2, 0, false},
		{1, 6, 0, false},
		{1, 0, -EBADMSG, false},
		{1, 4, -EBADMSG, false},
		{3, 1, -EOPNOTSUPP, false},
	};
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool has_mm = !cases[i].has_mm;

		write_core(s.fd, PID, cases[i].machine, cases[i].task_state);
		assert_int_equal(image_core(&dir, PID, &has_mm, &e), cases[i].ret);
		if (!cases[i].ret)
			assert_int_equal(has_mm, cases[i].has_mm);
		else
			assert_text(e, "core-12.img: entry 0: ");
	}
	scratch_end(&s);
}

static void mappings_must_ascend_and_be_pages(void **state)
{
	static const struct {
		struct test_vma v[2];
		int ret;
	} cases[] = {
		{{{0x1000, 0x3000, 0}, {0x3000, 0x4000, 0}}, 0},
		{{{0x1000, 0x3000, 0}, {-0x2000ull, -0x1000ull, 0}}, 0},
		{{{0x1000, 0x3000, 0}, {0x2000, 0x4000, 0}}, -EBADMSG},
		{{{0x3000, 0x4000, 0}, {0x1000, 0x2000, 0}}, -EBADMSG},
		{{{0x1000, 0x1000, 0}, {0x3000, 0x4000, 0}}, -EBADMSG},
		{{{0x2000, 0x1000, 0}, {0x3000, 0x4000, 0}}, -EBADMSG},
		{{{0x1001, 0x2000, 0}, {0x3000, 0x4000, 0}}, -EBADMSG},
		{{{0x1000, 0x2fff, 0}, {0x3000, 0x4000, 0}}, -EBADMSG},
	};
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct image_mm mm = {0};

		write_mm(s.fd, PID, cases[i].v, 2);
		assert_int_equal(image_mm_open(&mm, &dir, PID, &e), cases[i].ret);
		if (cases[i].ret)
			assert_text(e, "mm-12.img: entry 0: mapping ");
		image_mm_close(&mm);
	}
	scratch_end(&s);
}

static void images_of_one_record_hold_just_one(void **state)
{
	struct scratch s = scratch_new();
	struct image_dir dir = top(&s);
	Image__Inventory m = IMAGE__INVENTORY__INIT;
	uint32_t version;
	struct error e;
	FILE *f;

	(void)state;
	m.img_version = 2;
	f = image_new(s.fd, "inventory.img", MAGIC_INVENTORY, 0);
	image_end(f);
	assert_int_equal(image_inventory(&dir, &version, &e), -EBADMSG);
	assert_text(e, "inventory.img: truncated: has no entry");

	f = image_new(s.fd, "inventory.img", MAGIC_INVENTORY, 0);
	image_record(f, &m);
	image_record(f, &m);
	image_end(f);
	assert_int_equal(image_inventory(&dir, &version, &e), -EBADMSG);
	assert_text(e, "goes on behind its only entry");
	scratch_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_in_order_and_then_the_end),
		cmocka_unit_test(records_longer_than_the_buffer_are_whole),
		cmocka_unit_test(missing_foreign_and_odd_files_are_refused_by_name),
		cmocka_unit_test(lengths_are_checked_before_they_are_used),
		cmocka_unit_test(a_record_full_of_unknown_fields_is_read),
		cmocka_unit_test(a_record_without_its_required_fields_is_refused),
		cmocka_unit_test(formats_1_and_2_are_known_and_no_others),
		cmocka_unit_test(format_1_has_no_common_magic),
		cmocka_unit_test(pids_are_valid_and_there_once),
		cmocka_unit_test(the_alive_and_the_stopped_have_memory),
		cmocka_unit_test(mappings_must_ascend_and_be_pages),
		cmocka_unit_test(images_of_one_record_hold_just_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
