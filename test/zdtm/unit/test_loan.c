// SPDX-License-Identifier: GPL-2.0-or-later
/* Lending: who has time helps, every page is placed once, and who calls a loan back gets it back
 * with nobody inside. */
#include "lazy_area.h"

#include "loan.h"
#include "place.h"
#include "sweep.h"

#define PAGES	4096 /* 16 MiB */
#define PIECES	(PAGES * PAGE_SIZE / LOAN_PIECE)
#define WAIT_MS 20000

static struct owner *lender(struct lazy_area *a)
{
	return a->p.owners[0];
}

static struct owner *helper(struct lazy_area *a)
{
	return a->p.owners[1];
}

static void begin(struct lazy_area *a)
{
	area_begin(a, PAGES, 1);
	atomic_store(&helper(a)->idle, true);
}

static bool lend(struct lazy_area *a)
{
	return loan_slice(a->t, now_ns());
}

static bool is_woken(const struct owner *o)
{
	uint64_t count;

	return read(o->wake_fd, &count, sizeof(count)) == sizeof(count);
}

static void nothing_is_lent_when_nobody_has_time(void **state)
{
	struct lazy_area a;

	(void)state;
	begin(&a);
	atomic_store(&helper(&a)->idle, false);
	atomic_store(&lender(&a)->idle, true); /* oneself does not count */
	assert_false(lend(&a));
	assert_false(loan_help(helper(&a)));
	assert_int_equal(area_placed(&a), 0);
	area_end(&a);
}

static void nothing_is_lent_while_faults_are_recent(void **state)
{
	struct lazy_area a;

	(void)state;
	begin(&a);
	schedule_fault(&a.t->schedule, (uint64_t)a.p0 + 100 * PAGE_SIZE, now_ns());
	assert_false(lend(&a));
	/* neighbours of a fault are the owner's, too, however long ago it was */
	assert_false(loan_slice(a.t, now_ns() + UINT64_C(10000000000)));
	assert_false(loan_help(helper(&a)));
	area_end(&a);
}

static void a_fault_ends_a_loan(void **state)
{
	struct lazy_area a;

	(void)state;
	begin(&a);
	assert_true(lend(&a));
	assert_true(loan_help(helper(&a)));
	schedule_fault(&a.t->schedule, (uint64_t)a.p0, now_ns());
	assert_false(lend(&a));
	assert_false(loan_help(helper(&a)));
	assert_null(lender(&a)->loan.task);
	area_end(&a);
}

static void little_is_not_worth_a_loan(void **state)
{
	struct lazy_area a;

	(void)state;
	area_begin(&a, 64, 1);
	atomic_store(&helper(&a)->idle, true);
	assert_false(lend(&a));
	area_end(&a);
}

static void little_in_one_mapping_is_not_worth_a_loan(void **state)
{
	struct lazy_area a;

	(void)state;
	area_begin(&a, PAGES, 16);
	atomic_store(&helper(&a)->idle, true);
	assert_false(lend(&a));
	assert_int_equal(area_placed(&a), 0);
	area_end(&a);
}

static void a_loan_wakes_those_who_have_time(void **state)
{
	struct lazy_area a;

	(void)state;
	begin(&a);
	assert_true(lend(&a));
	assert_true(is_woken(helper(&a)));
	assert_false(is_woken(a.p.owners[2]));
	assert_false(is_woken(lender(&a)));
	loan_recall(lender(&a));
	area_end(&a);
}

static void owner_and_helper_take_pieces_in_turn(void **state)
{
	struct lazy_area a;
	const struct tally *tally;

	(void)state;
	begin(&a);
	for (unsigned n = 1; n <= PIECES; n++) {
		assert_true(n & 1 ? lend(&a) : loan_help(helper(&a)));
		assert_int_equal(area_placed(&a), n * LOAN_PIECE / PAGE_SIZE);
	}
	assert_false(loan_help(helper(&a)));
	tally = a.p.w.journal->tally;
	assert_int_equal(tally[0].placed[CAUSE_BACKGROUND], PAGES / 2);
	assert_int_equal(tally[1].placed[CAUSE_BACKGROUND], PAGES / 2);
	assert_int_equal(task_left(a.t), 0);
	area_end(&a);
}

/* The bits may be a parent's, too, who still owes all. */
static void a_lent_task_may_share_its_bits_with_another(void **state)
{
	struct lazy_area a;
	struct owed *parent;

	(void)state;
	begin(&a);
	parent = owed_fork(a.p.arena, a.t->rec->owed);
	while (task_left(a.t)) {
		assert_true(lend(&a));
		loan_help(helper(&a));
	}
	assert_int_equal(owed_left(parent), PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_true(owed_test(parent, i));
	owed_free(a.p.arena, parent);
	area_end(&a);
}

static void a_loan_stays_in_one_mapping(void **state)
{
	struct lazy_area a;

	(void)state;
	area_begin(&a, PAGES, 2);
	atomic_store(&helper(&a)->idle, true);
	assert_true(lend(&a));
	while (loan_help(helper(&a))) {
	}
	assert_int_equal(area_placed(&a), PAGES / 2);
	assert_true(lend(&a)); /* notices that all is given out */
	while (task_left(a.t))
		assert_true(lend(&a));
	assert_int_equal(area_placed(&a), PAGES);
	area_end(&a);
}

static void a_loan_that_brings_nothing_is_not_made_again_at_once(void **state)
{
	struct lazy_area a;
	uint64_t now;

	(void)state;
	begin(&a);
	atomic_store(&a.source.error, -EAGAIN);
	for (unsigned n = 0; n <= PIECES; n++)
		assert_true(lend(&a));
	now = now_ns();
	assert_false(loan_slice(a.t, now));
	assert_false(loan_help(helper(&a)));
	assert_int_equal(a.t->schedule.sweep, 0); /* the sweep has it all to do */
	atomic_store(&a.source.error, 0);
	assert_true(loan_slice(a.t, now + UINT64_C(1000000000)));
	assert_true(area_placed(&a) > 0);
	loan_recall(lender(&a));
	area_end(&a);
}

struct thread {
	struct lazy_area *a;
	struct owner *o;
	pthread_t id;
	atomic_bool done, stop;
};

static void *help_once(void *arg)
{
	struct thread *t = arg;

	loan_help(t->o);
	atomic_store(&t->done, true);
	return NULL;
}

static void *recall(void *arg)
{
	struct thread *t = arg;

	loan_recall(t->o);
	atomic_store(&t->done, true);
	return NULL;
}

static void start(struct thread *t, struct lazy_area *a, struct owner *o, void *(*fn)(void *))
{
	*t = (struct thread){.a = a, .o = o};
	assert_int_equal(pthread_create(&t->id, NULL, fn, t), 0);
}

/* A helper is in the middle of a piece: it has its bytes, but has placed nothing. */
static void a_recall_waits_for_who_is_inside_and_who_is_inside_soon_leaves(void **state)
{
	struct thread h, r;
	struct lazy_area a;
	uint64_t before;

	(void)state;
	begin(&a);
	assert_true(lend(&a));
	before = area_placed(&a);
	atomic_store(&a.source.hold, true);
	start(&h, &a, helper(&a), help_once);
	for (int ms = 0; !atomic_load(&a.source.waiting); ms++) {
		assert_true(ms < WAIT_MS);
		usleep(1000);
	}
	start(&r, &a, lender(&a), recall);
	usleep(50000);
	assert_false(atomic_load(&r.done));
	/* nobody else comes in */
	assert_false(loan_help(a.p.owners[2]));
	atomic_store(&a.source.hold, false);
	pthread_join(r.id, NULL);
	/* from now on the owner may read the descriptor: what is placed stays as it is */
	assert_in_range(area_placed(&a) - before, 0, SWEEP_PAGES);
	before = area_placed(&a);
	pthread_join(h.id, NULL);
	usleep(10000);
	assert_int_equal(area_placed(&a), before);
	/* and what is left is found again */
	while (task_left(a.t))
		if (!lend(&a))
			sweep_slice(a.t, now_ns());
	assert_int_equal(area_placed(&a), PAGES);
	assert_int_equal(area_tally(&a), PAGES);
	area_end(&a);
}

static void *help_always(void *arg)
{
	struct thread *t = arg;

	while (!atomic_load(&t->stop)) {
		atomic_store(&t->o->idle, true);
		if (!loan_help(t->o))
			usleep(50);
	}
	return NULL;
}

static void a_task_is_drained_by_several_in_spite_of_recalls(void **state)
{
	for (uint64_t round = 0; round < 10; round++) {
		struct random r = random_from(71, round);
		struct thread h[2];
		struct lazy_area a;

		(void)state;
		begin(&a);
		for (unsigned i = 0; i < 2; i++)
			start(&h[i], &a, a.p.owners[1 + i], help_always);
		while (task_left(a.t)) {
			if (random_one_in(&r, 5)) {
				loan_recall(lender(&a));
				/* nobody is inside: what is placed does not change */
				uint64_t left = task_left(a.t);

				usleep((useconds_t)random_below(&r, 300));
				assert_int_equal(task_left(a.t), left);
			}
			if (!lend(&a))
				sweep_slice(a.t, now_ns());
		}
		loan_recall(lender(&a));
		for (unsigned i = 0; i < 2; i++) {
			atomic_store(&h[i].stop, true);
			pthread_join(h[i].id, NULL);
		}
		assert_int_equal(area_placed(&a), PAGES);
		assert_int_equal(area_tally(&a), PAGES);
		area_end(&a);
	}
}

static void a_recall_without_a_loan_is_nothing(void **state)
{
	struct lazy_area a;

	(void)state;
	begin(&a);
	loan_recall(lender(&a));
	loan_recall(helper(&a));
	assert_false(loan_help(helper(&a)));
	assert_true(lend(&a));
	loan_recall(lender(&a));
	loan_recall(lender(&a));
	assert_false(loan_help(helper(&a)));
	area_end(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lent_when_nobody_has_time),
		cmocka_unit_test(nothing_is_lent_while_faults_are_recent),
		cmocka_unit_test(a_fault_ends_a_loan),
		cmocka_unit_test(little_is_not_worth_a_loan),
		cmocka_unit_test(little_in_one_mapping_is_not_worth_a_loan),
		cmocka_unit_test(a_loan_wakes_those_who_have_time),
		cmocka_unit_test(owner_and_helper_take_pieces_in_turn),
		cmocka_unit_test(a_lent_task_may_share_its_bits_with_another),
		cmocka_unit_test(a_loan_stays_in_one_mapping),
		cmocka_unit_test(a_loan_that_brings_nothing_is_not_made_again_at_once),
		cmocka_unit_test(a_recall_waits_for_who_is_inside_and_who_is_inside_soon_leaves),
		cmocka_unit_test(a_task_is_drained_by_several_in_spite_of_recalls),
		cmocka_unit_test(a_recall_without_a_loan_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
