// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Damaged checkpoints: golden images cut off at every length, and with random bytes changed. What
 * is damaged is refused or, where nothing can tell, read as a checkpoint that is sound in itself;
 * never is anything read beside it (the same tests run with sanitizers).
 *
 * TEST_SEED=N repeats a run, TEST_ROUNDS=N makes it longer.
 */
#include "test_image_write.h"

#include <dirent.h>

#define FILES_MAX 24

struct golden_file {
	char name[32];
	uint8_t *bytes; /* NULL for files of pages */
	size_t size;
};

/* A copy of golden images that can be damaged and mended. */
struct golden {
	struct scratch dir;
	bool remote;
	struct golden_file files[FILES_MAX];
	size_t n;
};

static void file_write(const struct golden *g, const struct golden_file *f, const void *bytes,
		       size_t size)
{
	int fd = openat(g->dir.fd, f->name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(
		bytes ? write(fd, bytes, size) : ftruncate(fd, (off_t)size) + (ssize_t)size, size);
	close(fd);
}

/* Of files of pages only the length matters here. */
static void file_mend(const struct golden *g, const struct golden_file *f)
{
	file_write(g, f, f->bytes, f->size);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct golden_file *)a)->name, ((const struct golden_file *)b)->name);
}

static struct golden golden_open(const char *name, bool remote)
{
	struct golden g = {.dir = scratch_new(), .remote = remote};
	struct dirent *entry;
	char path[256];
	DIR *d;

	golden_path(path, name);
	d = opendir(path);
	assert_non_null(d);
	while ((entry = readdir(d))) {
		struct golden_file *f = &g.files[g.n];
		struct stat st;
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		assert_true(g.n < FILES_MAX);
		snprintf(f->name, sizeof(f->name), "%.31s", entry->d_name);
		fd = openat(dirfd(d), f->name, O_RDONLY | O_CLOEXEC);
		assert_int_equal(fstat(fd, &st), 0);
		f->size = (size_t)st.st_size;
		if (strncmp(f->name, "pages-", 6)) {
			f->bytes = malloc(f->size);
			assert_int_equal(read(fd, f->bytes, f->size), f->size);
		}
		close(fd);
		file_mend(&g, f);
		g.n++;
	}
	closedir(d);
	/* readdir's order is the disk's: seeds must mean the same everywhere. */
	qsort(g.files, g.n, sizeof(g.files[0]), by_name);
	return g;
}

static void golden_close(struct golden *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->files[i].bytes);
	scratch_end(&g->dir);
}

static bool is_mapped(const struct checkpoint_task *t, uint64_t vaddr)
{
	for (size_t i = 0; i < t->nvmas; i++)
		if (vaddr >= t->vmas[i].start && vaddr < t->vmas[i].end)
			return (t->vmas[i].flags & ANON) == ANON;
	return false;
}

/* Whatever was read, what the manager relies on holds. */
static void check_sound(const struct checkpoint *c)
{
	assert_true(c->ntasks > 0);
	for (size_t i = 0; i < c->ntasks; i++) {
		const struct checkpoint_task *t = &c->tasks[i];
		const struct extents *x = &t->extents;
		uint64_t end = 0, npages = 0;

		assert_true(t->pid > 0);
		for (size_t j = 1; j < t->nvmas; j++)
			assert_true(t->vmas[j].start >= t->vmas[j - 1].end);
		for (size_t j = 0; j < x->n; j++) {
			uint64_t n = extent_npages(x, j), where = x->v[j].where;

			assert_true(n > 0 && x->v[j].vaddr >= end);
			assert_int_equal(x->v[j].first, npages);
			end = x->v[j].vaddr + n * PAGE_SIZE;
			npages += n;
			assert_true(is_mapped(t, x->v[j].vaddr) && is_mapped(t, end - 1));
			assert_true(WHERE_FILE(where) < c->nfiles);
			assert_true(WHERE_PAGE(where) + n <= c->files[WHERE_FILE(where)].npages);
		}
		assert_int_equal(npages, x->npages);
	}
}

static int load_golden(const struct golden *g, struct checkpoint **c, struct error *e)
{
	int ret;

	*c = NULL;
	memset(e, 0, sizeof(*e));
	ret = checkpoint_load(c, g->dir.fd, "dir", g->remote, e);
	if (ret) {
		assert_true(ret < 0 && e->code == ret && !*c);
		assert_int_equal(strncmp(e->text, "dir: ", 5), 0);
	} else {
		check_sound(*c);
	}
	return ret;
}

/* Whether @size is where a record of @f begins or the last one ends. */
static bool at_record(const struct golden_file *f, size_t size)
{
	size_t at = strcmp(f->name, "inventory.img") ? 8 : 4;

	while (at < size) {
		uint32_t len;

		memcpy(&len, f->bytes + at, sizeof(len));
		at += sizeof(len) + len;
	}
	return at == size;
}

/*
 * A shorter pstree or pagemap may be a whole one of less: only those, only between records, and of
 * pagemaps only if all pages of the file are named, which is to say, if lazy ones are lacking.
 */
static bool may_be_whole(const struct golden *g, const struct golden_file *f, size_t size)
{
	if (!f->bytes || size <= 8 || !at_record(f, size))
		return false;
	return !strcmp(f->name, "pstree.img") || (g->remote && !strncmp(f->name, "pagemap-", 8));
}

static unsigned cut_at_every_length(struct golden *g, const struct golden_file *f)
{
	unsigned accepted = 0;

	for (size_t size = f->size; size-- > 0;) {
		struct checkpoint *c;
		struct error e;
		int ret;

		/* Of pages, lengths beside whole ones and a sample of the rest. */
		if (!f->bytes && (size + 1) % PAGE_SIZE > 2 && size % 509)
			continue;
		cut_file(g->dir.fd, f->name, size);
		ret = load_golden(g, &c, &e);
		if (!ret && !may_be_whole(g, f, size))
			fail_msg("%s cut at %zu was accepted", f->name, size);
		if (ret && !strstr(e.text, f->name))
			fail_msg("%s cut at %zu: \"%s\"", f->name, size, e.text);
		accepted += !ret;
		checkpoint_free(c);
	}
	file_mend(g, f);
	return accepted;
}

/* Entries at the end of the only pagemap of which this directory has no bytes. */
static unsigned lazy_at_the_end(const struct golden *g, uint32_t pid)
{
	struct image_dir dir = {.fd = g->dir.fd, .version = 2};
	struct pagemap_entry n;
	unsigned lazy = 0;
	struct pagemap p;
	struct error e;

	assert_int_equal(pagemap_open(&p, &dir, pid, &e), 0);
	while (pagemap_next(&p, &n, &e) > 0)
		lazy = n.flags & PAGEMAP_PRESENT ? 0 : lazy + 1;
	pagemap_close(&p);
	return lazy;
}

static void every_truncation(const char *name, bool remote)
{
	struct golden g = golden_open(name, remote);
	unsigned may_accept, accepted = 0;
	struct checkpoint *c;
	struct error e;

	assert_int_equal(load_golden(&g, &c, &e), 0);
	/* A tree of fewer tasks is one, too; that is all that nothing here can tell. */
	may_accept = (unsigned)c->ntasks - 1;
	if (remote)
		may_accept += lazy_at_the_end(&g, (uint32_t)c->tasks[0].pid);
	checkpoint_free(c);
	for (size_t i = 0; i < g.n; i++)
		accepted += cut_at_every_length(&g, &g.files[i]);
	assert_int_equal(accepted, may_accept);
	assert_int_equal(load_golden(&g, &c, &e), 0);
	checkpoint_free(c);
	golden_close(&g);
}

static void every_truncation_of_a_4_2_tree_is_refused(void **state)
{
	(void)state;
	every_truncation("v42-tree", false);
}

static void every_truncation_of_a_4_1_task_is_refused(void **state)
{
	(void)state;
	every_truncation("v41", false);
}

static void every_truncation_of_a_lazy_dump_is_refused(void **state)
{
	(void)state;
	every_truncation("v42-lazy", true);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

/* One to four changes: a bit, a byte, a byte of consequence, or a run moved. */
static void damage(struct random *r, uint8_t *bytes, size_t size)
{
	static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, 0x08, 0x12, 0x72};

	for (uint64_t n = 1 + random_below(r, 4); n; n--) {
		size_t at = random_below(r, size), from = random_below(r, size);
		size_t run = random_below(r, 16), room = size - MAX(at, from);

		switch (random_below(r, 4)) {
		case 0:
			bytes[at] ^= (uint8_t)(1 << random_below(r, 8));
			break;
		case 1:
			bytes[at] = (uint8_t)random_next(r);
			break;
		case 2:
			bytes[at] = telling[random_below(r, sizeof(telling))];
			break;
		case 3:
			memmove(bytes + at, bytes + from, MIN(run, room));
			break;
		}
	}
}

static void random_damage_is_refused_or_read_soundly(void **state)
{
	static const struct {
		const char *name;
		bool remote;
	} sets[] = {{"v42-tree", false}, {"v41", false}, {"v42-lazy", true}};
	const uint64_t seed = number("TEST_SEED", (uint64_t)time(NULL));
	const uint64_t rounds = number("TEST_ROUNDS", 3000);
	uint64_t refused = 0;

	(void)state;
	print_message("TEST_SEED=%llu\n", (unsigned long long)seed);
	for (size_t set = 0; set < ARRAY_SIZE(sets); set++) {
		struct golden g = golden_open(sets[set].name, sets[set].remote);
		struct random r = random_from(seed, set);

		for (uint64_t round = 0; round < rounds; round++) {
			const struct golden_file *f;
			struct checkpoint *c;
			struct error e;
			uint8_t *bytes;

			do {
				f = &g.files[random_below(&r, g.n)];
			} while (!f->bytes);
			bytes = malloc(f->size);
			memcpy(bytes, f->bytes, f->size);
			damage(&r, bytes, f->size);
			file_write(&g, f, bytes, f->size);
			free(bytes);
			refused += load_golden(&g, &c, &e) != 0;
			checkpoint_free(c);
			file_mend(&g, f);
		}
		golden_close(&g);
	}
	print_message("%llu of %llu refused\n", (unsigned long long)refused,
		      (unsigned long long)(rounds * ARRAY_SIZE(sets)));
	/* Most damage hits registers and the like, which are not ours; a good part must be seen. */
	assert_in_range(refused, rounds * ARRAY_SIZE(sets) / 4, rounds * ARRAY_SIZE(sets) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_truncation_of_a_4_2_tree_is_refused),
		cmocka_unit_test(every_truncation_of_a_4_1_task_is_refused),
		cmocka_unit_test(every_truncation_of_a_lazy_dump_is_refused),
		cmocka_unit_test(random_damage_is_refused_or_read_soundly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
