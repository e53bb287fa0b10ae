// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A worker that dies at any one instruction of its work on the journal leaves a journal that the
 * next one can use: records are whole or not there, and nothing is lost or freed twice.
 */
#include "unit.h"

#include <errno.h>
#include <sys/mman.h>

#include "compiler.h"
#include "journal.h"
#include "step.h"

#define PAGES	    100
#define MAX_REGIONS 600

#if defined(__SANITIZE_ADDRESS__)
#define STRIDE 101
#else
#define STRIDE 11
#endif
#define GENERATIONS 4

struct fixture {
	struct arena *a;
	struct journal *j;
	uint64_t empty;
	uint64_t bytes; /* of the mapping */
	void *saved;
	/* what was met: so many records in slots, logs of each generation */
	unsigned records_seen[4], logs_seen[GENERATIONS];
	/* The regions with which each log of a record begins. */
	struct region regions[GENERATIONS][MAX_REGIONS];
};

/* None, some, or several pages full. */
static const size_t nregions[GENERATIONS] = {3, 0, MAX_REGIONS, 10};

static void make_regions(struct fixture *f)
{
	for (uint64_t g = 0; g < GENERATIONS; g++)
		for (uint64_t i = 0; i < nregions[g]; i++)
			f->regions[g][i] =
				(struct region){(2 * i + 1) * PAGE_SIZE, (2 * i + 2) * PAGE_SIZE,
						(g + 1) * PAGE_SIZE};
}

static struct task_record *record_new(struct fixture *f, struct owed *owed)
{
	struct task_record *r =
		owed ? journal_record_new(f->j, owed, f->regions[0], nregions[0]) : NULL;

	if (!r)
		_exit(2);
	r->uffd = 5;
	if (journal_slot_take(f->j, r) < 0)
		_exit(3);
	return r;
}

static void snapshot(struct fixture *f, struct task_record *r, uint64_t generation)
{
	r->log[r->active]->msg[0].event = UFFD_EVENT_UNMAP;
	if (journal_snapshot(f->j, r, f->regions[generation], nregions[generation]))
		_exit(4);
}

static void record_end(struct fixture *f, struct task_record *r)
{
	for (uint32_t i = 0; i < f->j->nslots; i++)
		if (f->j->slot[i] == r)
			f->j->slot[i] = NULL;
	journal_record_free(f->j, r);
}

static _Noreturn void worker(struct fixture *f)
{
	struct task_record *r, *child;

	step_begin();
	for (int i = 0; i < 2; i++) {
		r = record_new(f, owed_new(f->a, PAGES));
		snapshot(f, r, 1);
		owed_clear(f->a, r->owed, 3, 9);
		child = record_new(f, owed_fork(f->a, r->owed));
		owed_clear(f->a, child->owed, 20, 30);
		snapshot(f, r, 2);
		snapshot(f, r, 3);
		record_end(f, i ? child : r);
	}
	/* and one that dies while it puts right what another has left */
	f->j->slot[0] = NULL;
	journal_recount(f->j);
	_exit(0);
}

static void check_record(struct fixture *f, const struct task_record *r)
{
	const struct task_log *log = r->log[r->active];
	uint64_t generation = log->base / JOURNAL_MESSAGES, left = owed_left(r->owed), bits = 0;
	size_t n;

	assert_int_equal(log->base % JOURNAL_MESSAGES, 0);
	assert_in_range(generation, 0, GENERATIONS - 1);
	n = nregions[generation];
	assert_int_equal(log->nregions, n);
	if (n)
		assert_memory_equal(log->regions, f->regions[generation],
				    n * sizeof(struct region));
	assert_true(log->msg[0].event == 0 || log->msg[0].event == UFFD_EVENT_UNMAP);
	for (size_t i = 1; i < JOURNAL_MESSAGES; i++)
		assert_int_equal(log->msg[i].event, 0);
	assert_int_equal(r->uffd, 5);
	for (uint64_t i = 0; i < PAGES; i++)
		bits += owed_test(r->owed, i);
	assert_int_equal(left, bits);
	assert_in_range(left, PAGES - 16, PAGES);
	f->logs_seen[generation]++;
}

/* The next worker: looks at everything, works on with it, and frees it to see that all is free. */
static void take_over(struct fixture *f)
{
	unsigned records = 0;

	journal_recount(f->j);
	for (uint32_t i = 0; i < f->j->nslots; i++)
		if (f->j->slot[i]) {
			check_record(f, f->j->slot[i]);
			records++;
		}
	assert_in_range(records, 0, 3);
	f->records_seen[records]++;
	record_new(f, owed_new(f->a, PAGES));
	for (uint32_t i = 0; i < f->j->nslots; i++) {
		struct task_record *r = f->j->slot[i];

		if (!r)
			continue;
		snapshot(f, r, 2);
		f->j->slot[i] = NULL;
		journal_record_free(f->j, r);
	}
	assert_int_equal(arena_used(f->a), f->empty);
}

/* The length of the mapping that begins at @p. */
static uint64_t mapping_bytes(const void *p)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start == (unsigned long)p)
			return end - start;
	fail_msg("no mapping at %p", p);
	return 0;
}

static void a_crash_at_any_instruction_can_be_taken_over(void **state)
{
	static struct fixture f;
	uint64_t steps = 0;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(arena_new(&f.a, UINT64_C(1) << 20, NULL), 0);
	f.j = journal_new(f.a);
	assert_non_null(f.j);
	f.empty = arena_used(f.a);
	f.bytes = mapping_bytes(f.a);
	f.saved = malloc(f.bytes);
	make_regions(&f);

	pid = fork();
	if (!pid)
		worker(&f);
	assert_true(step_wait(pid, &status));
	while (step_one(pid, &status)) {
		if (steps++ % STRIDE)
			continue;
		/* The worker is as good as dead; what the next one does is undone afterwards. */
		memcpy(f.saved, f.a, f.bytes);
		take_over(&f);
		memcpy(f.a, f.saved, f.bytes);
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	take_over(&f);
	print_message("%llu instructions, records %u %u %u %u, logs %u %u %u %u\n",
		      (unsigned long long)steps, f.records_seen[0], f.records_seen[1],
		      f.records_seen[2], f.records_seen[3], f.logs_seen[0], f.logs_seen[1],
		      f.logs_seen[2], f.logs_seen[3]);
	assert_true(steps > 2000);
	for (int i = 0; i < 4; i++) {
		assert_true(f.records_seen[i] > 0);
		assert_true(f.logs_seen[i] > 0);
	}
	free(f.saved);
	arena_free(f.a);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_crash_at_any_instruction_can_be_taken_over),
	};

	(void)argc;
	step_init(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
