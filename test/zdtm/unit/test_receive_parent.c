// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Parents of an image that comes in, against arrays with one element a page: whether a page is
 * there, and which bytes of which file --auto-dedup may punch out.
 */
#include "test_image_write.h"

#include "receive_parent.h"
#include "wire.h"

#define PAGES	    400
#define GENERATIONS 3
#define ROUNDS	    150

struct model {
	uint32_t flags[GENERATIONS][PAGES];  /* 0: in no entry */
	uint64_t offset[GENERATIONS][PAGES]; /* in the pages file */
	uint64_t filled[GENERATIONS];	     /* pages of the file */
	bool dead[GENERATIONS][PAGES];	     /* by offset: punched */
};

struct family {
	struct scratch s;
	struct image_chain chain;
	struct image_dir dirs[GENERATIONS + 1];
};

/* 1 .. @most, and not past the last page. */
static uint64_t random_run(struct random *r, uint64_t most, uint64_t at)
{
	uint64_t n = 1 + random_below(r, most);

	return MIN(n, PAGES - at);
}

/* A page map of random runs, each in entries of random length. */
static void generation_write(struct random *r, struct model *m, int g, int dirfd)
{
	static const uint32_t kinds[] = {
		0, PAGEMAP_PRESENT, HERE, UP, PAGEMAP_PARENT, PAGEMAP_PRESENT, PAGEMAP_LAZY};
	char bytes[PAGE_SIZE];
	FILE *f = pagemap_new(dirfd, PID, (uint32_t)g + 1), *pages;
	char name[32];

	snprintf(name, sizeof(name), "pages-%d.img", g + 1);
	pages = fdopen(openat(dirfd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600), "w");
	assert_non_null(pages);
	memset(bytes, 'x', sizeof(bytes));
	for (uint64_t at = 0; at < PAGES;) {
		uint64_t n = random_run(r, 12, at);
		uint32_t flags = kinds[random_below(r, ARRAY_SIZE(kinds))];

		if (flags)
			pagemap_add(f, AT(at), n, flags);
		for (; n; n--, at++) {
			m->flags[g][at] = flags;
			m->offset[g][at] = m->filled[g];
			if (!(flags & PAGEMAP_PRESENT))
				continue;
			m->filled[g]++;
			assert_int_equal(fwrite(bytes, PAGE_SIZE, 1, pages), 1);
		}
	}
	image_end(f);
	assert_int_equal(fclose(pages), 0);
}

static void family_new(struct family *f, struct random *r, struct model *m)
{
	memset(m, 0, sizeof(*m));
	f->s = scratch_new();
	f->chain = (struct image_chain){.v = f->dirs, .n = GENERATIONS + 1};
	f->dirs[0] = (struct image_dir){.fd = f->s.fd, .version = 2};
	for (int g = 0; g < GENERATIONS; g++) {
		char name[8];

		snprintf(name, sizeof(name), "%d", g);
		assert_int_equal(mkdirat(f->s.fd, name, 0700), 0);
		f->dirs[g + 1] = (struct image_dir){
			.fd = openat(f->s.fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
			.depth = (unsigned)g + 1,
			.version = 2,
		};
		generation_write(r, m, g, f->dirs[g + 1].fd);
	}
}

static void family_end(struct family *f)
{
	for (int g = 1; g <= GENERATIONS; g++)
		close(f->dirs[g].fd);
	scratch_end(&f->s);
}

static struct receive_parent *parent_of(struct family *f)
{
	struct receive_parent *p;
	struct error e = {0};

	if (receive_parent_open(&p, &f->chain, WIRE_KIND_TASK, PID, &e))
		fail_msg("%s", e.text);
	assert_non_null(p);
	return p;
}

static bool model_has(const struct model *m, uint64_t page)
{
	for (int g = 0; g < GENERATIONS; g++)
		if (!(m->flags[g][page] & PAGEMAP_PARENT))
			return m->flags[g][page] & PAGEMAP_PRESENT;
	return false;
}

static void a_page_is_there_when_some_generation_has_it(void **state)
{
	uint64_t there = 0, missed = 0;

	(void)state;
	for (uint64_t round = 0; round < ROUNDS; round++) {
		struct random r = random_from(3, round);
		struct receive_parent *p;
		struct family f;
		struct model m;

		family_new(&f, &r, &m);
		p = parent_of(&f);
		for (uint64_t at = random_below(&r, 5); at < PAGES; at += random_below(&r, 5)) {
			uint64_t n = random_run(&r, 4, at);
			bool all = true;
			struct error e;
			int ret;

			for (uint64_t i = 0; i < n; i++)
				all = all && model_has(&m, at + i);
			ret = receive_parent_check(p, AT(at), n, &e);
			if (ret != (all ? 0 : -ENOENT))
				fail_msg("round %llu, page %llu: %d", (unsigned long long)round,
					 (unsigned long long)at, ret);
			if (ret)
				assert_text(e, "is to be in the parent");
			there += all;
			missed += !all;
			at += n;
		}
		receive_parent_close(p);
		family_end(&f);
	}
	assert_true(there > 1000 && missed > 1000);
}

/* As stock does: in each generation below one whose entry was met. */
static void model_punch(struct model *m, uint64_t page)
{
	for (int g = 0; g < GENERATIONS && m->flags[g][page]; g++)
		if (m->flags[g][page] & PAGEMAP_PRESENT)
			m->dead[g][m->offset[g][page]] = true;
}

static void compare(const struct family *f, const struct model *m, int g)
{
	char name[32], page[PAGE_SIZE];
	int fd;

	snprintf(name, sizeof(name), "pages-%d.img", g + 1);
	fd = openat(f->dirs[g + 1].fd, name, O_RDONLY | O_CLOEXEC);
	for (uint64_t i = 0; i < m->filled[g]; i++) {
		char want = m->dead[g][i] ? 0 : 'x';

		assert_int_equal(pread(fd, page, PAGE_SIZE, (off_t)(i << PAGE_SHIFT)), PAGE_SIZE);
		for (size_t k = 0; k < PAGE_SIZE; k++)
			if (page[k] != want)
				fail_msg("generation %d, page %llu of its file", g,
					 (unsigned long long)i);
	}
	assert_int_equal(lseek(fd, 0, SEEK_END), m->filled[g] << PAGE_SHIFT);
	close(fd);
}

static void just_what_came_anew_is_punched_out(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < ROUNDS / 10; round++) {
		struct random r = random_from(4, round);
		struct receive_parent *p;
		uint64_t dead = 0;
		struct error e;
		struct family f;
		struct model m;

		family_new(&f, &r, &m);
		p = parent_of(&f);
		for (uint64_t at = 0; at < PAGES; at += random_below(&r, 9)) {
			uint64_t n = random_run(&r, 30, at);

			assert_int_equal(receive_parent_punch(p, AT(at), n, &e), 0);
			for (uint64_t i = 0; i < n; i++)
				model_punch(&m, at + i);
			at += n;
		}
		assert_int_equal(receive_parent_punch_end(p, &e), 0);
		for (int g = 0; g < GENERATIONS; g++) {
			compare(&f, &m, g);
			for (uint64_t i = 0; i < m.filled[g]; i++)
				dead += m.dead[g][i];
		}
		assert_int_equal(receive_parent_punched(p), dead << PAGE_SHIFT);
		assert_true(dead > 100);
		receive_parent_close(p);
		family_end(&f);
	}
}

/* Holes would be pages of zeros to who serves from the parents. */
static void nothing_is_punched_out_of_what_is_being_served(void **state)
{
	struct random r = random_from(6, 0);
	struct receive_parent *p;
	int served[GENERATIONS];
	struct error e = {0};
	struct family f;
	struct model m;
	uint64_t n;

	(void)state;
	family_new(&f, &r, &m);
	for (int g = 0; g < GENERATIONS; g++)
		assert_int_equal(pages_open(&served[g], &n, &f.dirs[g + 1], (uint32_t)g + 1, &e),
				 0);
	for (int again = 1; again >= 0; again--) {
		int ret;

		p = parent_of(&f);
		ret = receive_parent_punch(p, AT(0), PAGES, &e);
		if (!ret)
			ret = receive_parent_punch_end(p, &e);
		assert_int_equal(ret, again ? -EBUSY : 0);
		assert_int_equal(!receive_parent_punched(p), again);
		receive_parent_close(p);
		for (int g = 0; again && g < GENERATIONS; g++) {
			compare(&f, &m, g);
			close(served[g]);
		}
	}
	family_end(&f);
}

static void the_chain_ends_where_the_image_is_not(void **state)
{
	struct random r = random_from(5, 0);
	struct receive_parent *p;
	struct family f;
	struct model m;
	struct error e;

	(void)state;
	family_new(&f, &r, &m);
	assert_int_equal(receive_parent_open(&p, &f.chain, WIRE_KIND_TASK, PID + 1, &e), 0);
	assert_null(p);
	assert_int_equal(receive_parent_open(&p, &f.chain, WIRE_KIND_SHMEM, PID, &e), 0);
	assert_null(p);
	assert_int_equal(unlinkat(f.dirs[2].fd, "pagemap-12.img", 0), 0);
	p = parent_of(&f);
	for (uint64_t at = 0; at < PAGES; at++) {
		bool here = !(m.flags[0][at] & PAGEMAP_PARENT) && m.flags[0][at] & PAGEMAP_PRESENT;

		assert_int_equal(receive_parent_check(p, AT(at), 1, &e), here ? 0 : -ENOENT);
	}
	receive_parent_close(p);
	f.chain.n = 1;
	assert_int_equal(receive_parent_open(&p, &f.chain, WIRE_KIND_TASK, PID, &e), 0);
	assert_null(p);
	family_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_is_there_when_some_generation_has_it),
		cmocka_unit_test(just_what_came_anew_is_punched_out),
		cmocka_unit_test(nothing_is_punched_out_of_what_is_being_served),
		cmocka_unit_test(the_chain_ends_where_the_image_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
