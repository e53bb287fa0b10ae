// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The map against the page-array model (space_model.h): two million random operations over worlds
 * of a few tasks, each compared after each operation. A failure prints the command that runs the
 * world in question again, operation by operation.
 *
 *	test_space_random [SEED [WORLD]]	default: another seed each time, all worlds
 */
#include "space_model.h"

#include <errno.h>
#include <unistd.h>

#define OPERATIONS    2000000
#define WORLD_OPS     1000
#define TASKS_MAX     6
#define RUNS_MAX      32
#define CHUNK_PAGES   32768 /* as in owed.c: cells of this kind of size reach over chunks */
#define ROOMY_ARENA   (UINT64_C(64) << 20)
#define CROWDED_ARENA (UINT64_C(14) * ARENA_PAGE)

struct task {
	struct owed *owed;
	struct space *space;
	struct model model;
};

struct world {
	struct random r;
	struct picture picture;
	struct arena *arena;
	bool crowded; /* allocations fail now and then, and must leave all as it was */
	struct extents x;
	struct task task[TASKS_MAX];
	int ntasks;
	uint64_t failed; /* operations that ran out of memory */
	const char *again;
	bool verbose;
};

struct run_options {
	uint64_t seed;
	int64_t only; /* a world, or -1 */
};

#define check(w, what) \
	do { \
		if (!(what)) \
			fail_msg("%s\n  run again: %s", #what, (w)->again); \
	} while (0)

#define tell(w, ...) \
	do { \
		if ((w)->verbose) \
			print_message(__VA_ARGS__); \
	} while (0)

static uint64_t pick_base(struct random *r, uint64_t bytes)
{
	switch (random_below(r, 4)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX - PAGE_SIZE + 1 - bytes; /* the end is the last one allowed */
	case 2:
		return 0x7fff00000000 - bytes / 2 / PAGE_SIZE * PAGE_SIZE;
	default:
		return random_below(r, UINT64_C(1) << 50) * PAGE_SIZE;
	}
}

/* Lazy cells, their places in two or three files, forwards, with gaps, or anyhow. */
static void picture_draw(struct world *w)
{
	struct picture *p = &w->picture;
	uint64_t density = 1 + random_below(&w->r, 8);
	uint64_t order = random_below(&w->r, 3);
	uint64_t page = random_below(&w->r, 100), file = random_below(&w->r, 3), index = 0;

	p->cells = 2 + (int)random_below(&w->r, random_one_in(&w->r, 8) ? CELLS_MAX - 1 : 40);
	switch (random_below(&w->r, 4)) {
	case 0:
		p->unit = CHUNK_PAGES / 4 + random_below(&w->r, 3) - 1;
		break;
	case 1:
		p->unit = CHUNK_PAGES * (1 + random_below(&w->r, 2)) + random_below(&w->r, 3) - 1;
		break;
	default:
		p->unit = 1;
	}
	p->base = pick_base(&w->r, (uint64_t)p->cells * p->unit * PAGE_SIZE);
	for (int c = 0; c < p->cells; c++) {
		if (order && random_one_in(&w->r, 4))
			page += p->unit * random_below(&w->r, 5);
		if (order == 2 && random_one_in(&w->r, 4)) {
			page = random_below(&w->r, 1000);
			file = random_one_in(&w->r, 5) ? WHERE_REMOTE : random_below(&w->r, 3);
		}
		p->lazy[c] = density > 6 || !random_one_in(&w->r, density);
		if (!p->lazy[c])
			continue;
		p->where[c] = WHERE(file, page);
		p->index[c] = index;
		page += p->unit;
		index += p->unit;
	}
}

/* Mappings of the image: some cells have none, and then the image has no lazy pages there. */
static void world_map(struct world *w, struct task *t)
{
	struct picture *p = &w->picture;
	uint64_t gaps = 2 + random_below(&w->r, 30);
	bool pieces = random_one_in(&w->r, 2);

	for (int c = 0; c < p->cells; c++) {
		t->model.image[c] = p->lazy[c] || !random_one_in(&w->r, gaps) ? c : -1;
		t->model.owed[c] = p->lazy[c];
	}
	for (int from = 0, to; from < p->cells; from = to) {
		to = from + 1;
		if (t->model.image[from] < 0)
			continue;
		while (!pieces && to < p->cells && t->model.image[to] >= 0)
			to++;
		check(w, !space_add(t->space, cell_addr(p, from), cell_addr(p, to)));
	}
}

static void world_begin(struct world *w)
{
	struct picture *p = &w->picture;
	struct task *t = &w->task[0];

	picture_draw(w);
	w->crowded = random_one_in(&w->r, 4);
	check(w, !arena_new(&w->arena, w->crowded ? CROWDED_ARENA : ROOMY_ARENA, NULL));
	extents_init(&w->x);
	for (int c = 0; c < p->cells; c++)
		if (p->lazy[c])
			check(w, !extents_add(&w->x, cell_addr(p, c), p->unit, p->where[c], NULL));
	check(w, !extents_seal(&w->x, NULL));
	t->owed = owed_new(w->arena, w->x.npages);
	check(w, t->owed);
	t->space = space_new(w->arena, &w->x, t->owed);
	check(w, t->space);
	w->ntasks = 1;
	world_map(w, t);
	tell(w, "world: %d cells of %lu pages at %#lx, %zu extents%s\n", p->cells, p->unit, p->base,
	     w->x.n, w->crowded ? ", crowded" : "");
}

static void task_end(struct world *w, int i)
{
	space_free(w->task[i].space);
	owed_free(w->arena, w->task[i].owed);
	w->task[i] = w->task[--w->ntasks];
}

static void world_end(struct world *w)
{
	while (w->ntasks)
		task_end(w, 0);
	check(w, arena_used(w->arena) == 0);
	extents_free(&w->x);
	arena_free(w->arena);
}

/* Regions as the model has them, which is also the fewest that will do. */
static void check_regions(struct world *w, struct task *t)
{
	const struct picture *p = &w->picture;
	const struct region *v;
	size_t n = space_regions(t->space, &v), i = 0;

	for (int from = 0, to; from < p->cells; from = to) {
		to = from + 1;
		if (t->model.image[from] < 0)
			continue;
		while (to < p->cells && model_same_region(&t->model, to))
			to++;
		check(w, i < n);
		check(w, v[i].start == cell_addr(p, from) && v[i].end == cell_addr(p, to));
		check(w, v[i].image == cell_addr(p, t->model.image[from]));
		i++;
	}
	check(w, i == n);
}

static void check_cells(struct world *w, struct task *t)
{
	const struct picture *p = &w->picture;

	for (int c = 0; c < p->cells; c++) {
		uint64_t into = random_below(&w->r, p->unit * PAGE_SIZE), index = 0;
		int image = t->model.image[c];
		enum page_state state = space_lookup(t->space, cell_addr(p, c) + into, &index);

		check(w, (state == PAGE_UNKNOWN) == (image < 0));
		check(w, (state == PAGE_OWED) == model_owes(&t->model, c));
		if (state == PAGE_OWED)
			check(w, index == p->index[image] + into / PAGE_SIZE);
	}
	check(w, space_left(t->space) == model_left(p, &t->model));
}

/* A range of cells, [*from, *to), small ones more often. */
static void pick_range(struct world *w, int *from, int *to)
{
	int cells = w->picture.cells;
	int most = random_one_in(&w->r, 4) ? cells : MIN(cells, 1 + cells / 8);
	int len = 1 + (int)random_below(&w->r, (uint64_t)most);

	*from = (int)random_below(&w->r, (uint64_t)(cells - len + 1));
	*to = *from + len;
}

/* An operation may lack memory only in a small arena; then nothing is to change. */
static bool done(struct world *w, int ret)
{
	check(w, ret == 0 || (ret == -ENOMEM && w->crowded));
	w->failed += ret != 0;
	return ret == 0;
}

static void do_unmap_or_remove(struct world *w, struct task *t, bool unmap)
{
	const struct picture *p = &w->picture;
	uint64_t start, end;
	int from, to, ret;

	pick_range(w, &from, &to);
	start = cell_addr(p, from);
	end = cell_addr(p, to);
	/* Ranges reach far past all that is mapped. */
	if (to == p->cells && random_one_in(&w->r, 2))
		end = MAX(end, UINT64_MAX - PAGE_SIZE + 1);
	if (from == 0 && random_one_in(&w->r, 2))
		start = 0;
	tell(w, "%s %d..%d\n", unmap ? "unmap" : "remove", from, to);
	ret = unmap ? space_unmap(t->space, start, end) : space_remove(t->space, start, end);
	if (!done(w, ret))
		return;
	if (unmap)
		model_unmap(&t->model, from, to);
	else
		model_forgive(&t->model, from, to);
}

static void do_remap(struct world *w, struct task *t)
{
	const struct picture *p = &w->picture;
	int from, end, to, len, ret;
	bool overlap;

	pick_range(w, &from, &end);
	len = end - from;
	to = (int)random_below(&w->r, (uint64_t)(p->cells - len + 1));
	if (random_one_in(&w->r, 20))
		to = from;
	overlap = from != to && abs(from - to) < len;
	tell(w, "remap %d..%d to %d\n", from, end, to);
	ret = space_remap(t->space, cell_addr(p, from), cell_addr(p, to),
			  (uint64_t)len * p->unit * PAGE_SIZE);
	if (overlap)
		check(w, ret == -EINVAL);
	else if (done(w, ret))
		model_remap(&t->model, from, to, len);
}

static void do_fork(struct world *w, struct task *t)
{
	struct task *child = &w->task[w->ntasks];

	child->owed = owed_fork(w->arena, t->owed);
	tell(w, "fork of %ld: %s\n", t - w->task, child->owed ? "done" : "no room");
	if (!done(w, child->owed ? 0 : -ENOMEM))
		return;
	child->space = space_fork(t->space, child->owed);
	check(w, child->space);
	child->model = t->model;
	w->ntasks++;
}

static void do_gather(struct world *w, struct task *t)
{
	const struct picture *p = &w->picture;
	struct run want[RUNS_MAX], got[RUNS_MAX];
	int cell = (int)random_below(&w->r, (uint64_t)p->cells);
	uint64_t most = random_one_in(&w->r, 3) ? UINT64_MAX : 1 + random_below(&w->r, 9 * p->unit);
	uint64_t span = random_one_in(&w->r, 3) ? UINT64_MAX : 1 + random_below(&w->r, 9 * p->unit);
	size_t room = 1 + random_below(&w->r, RUNS_MAX);
	size_t k = space_gather(t->space, cell_addr(p, cell) + random_below(&w->r, PAGE_SIZE), most,
				span, got, room);

	tell(w, "gather %zu from %d, %#lx pages, span %#lx\n", k, cell, most, span);
	check(w, k == model_gather(p, &t->model, cell, most, span, want, room));
	for (size_t i = 0; i < k; i++) {
		check(w, got[i].addr == want[i].addr && got[i].index == want[i].index);
		check(w, got[i].npages == want[i].npages && got[i].where == want[i].where);
	}
}

/* Pages are placed, whole cells at a time, from anywhere, by the owner or by helpers. */
static void do_place(struct world *w, struct task *t)
{
	const struct picture *p = &w->picture;
	int cell = (int)random_below(&w->r, (uint64_t)p->cells), image = t->model.image[cell];
	int last = image;
	uint64_t owed = 0, from, to;
	int64_t cleared;

	if (image < 0 || !p->lazy[image])
		return;
	while (last + 1 < p->cells && p->lazy[last + 1] && !random_one_in(&w->r, 4))
		last++;
	for (int c = image; c <= last; c++)
		owed += t->model.owed[c] ? p->unit : 0;
	from = p->index[image];
	to = p->index[last] + p->unit;
	tell(w, "place image cells %d..%d\n", image, last + 1);
	if (random_one_in(&w->r, 2))
		cleared = owed_clear(w->arena, t->owed, from, to);
	else if (owed_own(w->arena, t->owed, from, to))
		cleared = -ENOMEM;
	else
		cleared = (int64_t)owed_clear_shared(t->owed, from, to);
	if (!done(w, cleared < 0 ? (int)cleared : 0))
		return;
	check(w, cleared == (int64_t)owed);
	for (int c = image; c <= last; c++)
		t->model.owed[c] = false;
}

/* A new worker: the regions from a snapshot, the counts from what the journal names. */
static void do_recover(struct world *w)
{
	uint64_t used = arena_used(w->arena);

	tell(w, "recover\n");
	if (!w->crowded && random_one_in(&w->r, 2)) {
		check(w, arena_page_new(w->arena, 0)); /* one that nobody knows of any more */
		check(w, arena_used(w->arena) == used + ARENA_PAGE);
	}
	arena_reset_lock(w->arena);
	arena_recount_begin(w->arena);
	for (int i = 0; i < w->ntasks; i++)
		owed_recount(w->arena, w->task[i].owed);
	arena_recount_end(w->arena);
	check(w, arena_used(w->arena) == used);

	for (int i = 0; i < w->ntasks; i++) {
		struct task *t = &w->task[i];
		struct space *space = space_new(w->arena, &w->x, t->owed);
		const struct region *v;
		size_t n = space_regions(t->space, &v);

		check(w, space && !space_set_regions(space, v, n));
		space_free(t->space);
		t->space = space;
	}
}

static void do_nonsense(struct world *w, struct task *t)
{
	uint64_t start = cell_addr(&w->picture, 0), len = 4 * PAGE_SIZE;

	tell(w, "nonsense\n");
	check(w, space_unmap(t->space, start + 1, start + len) == -EINVAL);
	check(w, space_unmap(t->space, start, start + len - 1) == -EINVAL);
	check(w, space_unmap(t->space, start, start) == -EINVAL);
	check(w, space_unmap(t->space, start, 0) == -EINVAL);
	check(w, space_remove(t->space, start + PAGE_SIZE, start) == -EINVAL);
	check(w, space_remap(t->space, start, start + len, 0) == -EINVAL);
	check(w, space_remap(t->space, start, start + 1, len) == -EINVAL);
	check(w, space_remap(t->space, start, UINT64_MAX - PAGE_SIZE + 1, len) == -EINVAL);
	check(w, space_add(t->space, start + PAGE_SIZE, start) == -EINVAL);
}

static void world_step(struct world *w)
{
	struct task *t = &w->task[random_below(&w->r, (uint64_t)w->ntasks)];
	uint64_t dice = random_below(&w->r, 100);

	if (w->verbose)
		print_message("task %ld: ", t - w->task);
	if (dice < 10)
		do_unmap_or_remove(w, t, true);
	else if (dice < 20)
		do_unmap_or_remove(w, t, false);
	else if (dice < 45)
		do_remap(w, t);
	else if (dice < 70)
		do_gather(w, t);
	else if (dice < 84)
		do_place(w, t);
	else if (dice < 85)
		do_nonsense(w, t);
	else if (dice < 87)
		do_recover(w);
	else if (dice < 94 && w->ntasks < TASKS_MAX)
		do_fork(w, t);
	else if (w->ntasks > 1)
		return task_end(w, (int)(t - w->task));
	else
		do_gather(w, t);
	check_cells(w, t);
	check_regions(w, t);
}

static void map_agrees_with_a_page_array(void **state)
{
	const struct run_options *options = *state;
	uint64_t worlds = OPERATIONS / WORLD_OPS, failed = 0;

	print_message("seed %lu\n", options->seed);
	for (uint64_t i = 0; i < worlds; i++) {
		char again[80];
		struct world w = {
			.r = random_from(options->seed, i),
			.again = again,
			.verbose = options->only >= 0,
		};

		if (options->only >= 0 && i != (uint64_t)options->only)
			continue;
		snprintf(again, sizeof(again), "build/test/unit/test_space_random %lu %lu",
			 options->seed, i);
		world_begin(&w);
		for (int n = 0; n < WORLD_OPS; n++) {
			world_step(&w);
			if (n % 16)
				continue;
			/* The others must not have felt anything. */
			for (int j = 0; j < w.ntasks; j++)
				check_cells(&w, &w.task[j]);
		}
		failed += w.failed;
		world_end(&w);
	}
	/* Crowded worlds are there to run out of memory. */
	if (options->only < 0)
		assert_in_range(failed, worlds, OPERATIONS / 10);
}

int main(int argc, char **argv)
{
	struct run_options options = {
		.seed = argc > 1 ? strtoull(argv[1], NULL, 0)
				 : (uint64_t)time(NULL) * 1000 % 1000003,
		.only = argc > 2 ? strtoll(argv[2], NULL, 0) : -1,
	};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(map_agrees_with_a_page_array, &options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
