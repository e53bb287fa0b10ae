// SPDX-License-Identifier: GPL-2.0-or-later
/* The journal: what is written is there, what is given back is free, and every descriptor that may
 * not be closed has a name in it. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "compiler.h"
#include "journal.h"

#define PAGES 100 /* owed by each task */

struct fixture {
	struct arena *a;
	struct journal *j;
	uint64_t empty; /* bytes in use with nothing but the journal */
};

static int setup(void **state)
{
	static struct fixture f;

	if (arena_new(&f.a, UINT64_C(16) << 20, NULL))
		return -1;
	f.j = journal_new(f.a);
	f.empty = arena_used(f.a);
	*state = &f;
	return !f.j;
}

static int teardown(void **state)
{
	arena_free(((struct fixture *)*state)->a);
	return 0;
}

/* @n regions that can be told from those of another @mark. */
static void fill(struct region *v, size_t n, uint64_t mark)
{
	for (size_t i = 0; i < n; i++)
		v[i] = (struct region){(2 * i + 1) * mark * PAGE_SIZE,
				       (2 * i + 2) * mark * PAGE_SIZE, mark * PAGE_SIZE};
}

static struct task_record *record(struct fixture *f, size_t nregions, uint64_t mark)
{
	struct owed *owed = owed_new(f->a, PAGES);
	struct region v[600];
	struct task_record *r;

	assert_non_null(owed);
	fill(v, nregions, mark);
	r = journal_record_new(f->j, owed, v, nregions);
	assert_non_null(r);
	return r;
}

static void assert_log(const struct task_log *log, uint64_t base, size_t n, uint64_t mark)
{
	struct region v[600];

	fill(v, n, mark);
	assert_int_equal(log->base, base);
	assert_int_equal(log->nregions, n);
	if (n)
		assert_memory_equal(log->regions, v, n * sizeof(*v));
	for (size_t i = 0; i < JOURNAL_MESSAGES; i++)
		assert_int_equal(log->msg[i].event, 0);
}

static void a_new_journal_names_no_descriptor(void **state)
{
	struct fixture *f = *state;

	for (int fd = 0; fd < 1000; fd++)
		assert_false(journal_names_fd(f->j, fd));
	assert_int_equal(f->j->handoff.word, 0);
	assert_false(f->j->over);
}

static void a_record_begins_with_its_regions_and_no_message(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 3, 7);

	assert_int_equal(r->uffd, -1);
	assert_int_equal(owed_left(r->owed), PAGES);
	assert_false(r->embryo);
	assert_log(r->log[r->active], 0, 3, 7);
	journal_record_free(f->j, r);
	assert_int_equal(arena_used(f->a), f->empty);
}

static void a_record_may_have_no_region_or_very_many(void **state)
{
	struct fixture *f = *state;
	struct task_record *none = record(f, 0, 1), *many = record(f, 600, 3);

	assert_log(none->log[none->active], 0, 0, 1);
	assert_log(many->log[many->active], 0, 600, 3); /* four pages of regions */
	journal_record_free(f->j, many);
	journal_record_free(f->j, none);
	assert_int_equal(arena_used(f->a), f->empty);
}

/* A recycled record must not hold messages of the one before. */
static void a_record_in_used_memory_is_as_new(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 3, 7);

	for (int i = 0; i < 2; i++)
		memset(r->log[i]->msg, 0xff, sizeof(r->log[i]->msg));
	r->active = 1;
	r->embryo = true;
	r->parent = 5;
	r->log[1]->regions = NULL;
	journal_record_free(f->j, r);
	r = record(f, 2, 9);
	assert_int_equal(r->active, 0);
	assert_false(r->embryo);
	assert_int_equal(r->parent, 0);
	assert_log(r->log[0], 0, 2, 9);
	assert_int_equal(journal_snapshot(f->j, r, NULL, 0), 0);
	assert_log(r->log[1], JOURNAL_MESSAGES, 0, 0);
	journal_record_free(f->j, r);
}

static void no_two_records_have_one_number(void **state)
{
	struct fixture *f = *state;
	uint64_t last = 0; /* means "no parent" */

	for (int i = 0; i < 100; i++) {
		struct task_record *r = record(f, 1, 1);

		assert_true(r->unique > last);
		last = r->unique;
		journal_record_free(f->j, r); /* the next one is at the same place */
	}
}

static void a_full_arena_takes_nothing(void **state)
{
	struct fixture *f = *state;
	struct task_record *made[2000] = {0};
	struct owed *owed = NULL;
	struct region v[600];
	size_t n = 0;
	uint64_t others = 0;

	fill(v, 600, 1);
	for (;; n++) {
		assert_true(n < ARRAY_SIZE(made));
		owed = owed_new(f->a, PAGES);
		made[n] = owed ? journal_record_new(f->j, owed, v, 600) : NULL;
		if (!made[n])
			break;
	}
	assert_true(n > 10);
	/* What failed has left nothing, and the caller still has its bits. */
	if (owed)
		owed_free(f->a, owed);
	while (arena_page_new(f->a, 0))
		others += ARENA_PAGE;
	assert_int_equal(journal_snapshot(f->j, made[0], v, 600), -ENOMEM);
	assert_log(made[0]->log[made[0]->active], 0, 600, 1);
	for (size_t i = 0; i < n; i++)
		journal_record_free(f->j, made[i]);
	assert_int_equal(arena_used(f->a), f->empty + others);
}

static void slots_are_used_again_from_the_bottom(void **state)
{
	struct fixture *f = *state;
	struct task_record *r[4];

	for (int i = 0; i < 4; i++) {
		r[i] = record(f, 1, 1);
		assert_int_equal(journal_slot_take(f->j, r[i]), i);
		assert_ptr_equal(f->j->slot[i], r[i]);
	}
	assert_int_equal(f->j->nslots, 4);
	f->j->slot[2] = NULL;
	f->j->slot[1] = NULL;
	assert_int_equal(journal_slot_take(f->j, r[2]), 1);
	assert_int_equal(journal_slot_take(f->j, r[1]), 2);
	assert_int_equal(f->j->nslots, 4);
}

static void slots_come_to_an_end(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1);

	f->j->nslots = JOURNAL_TASKS - 1;
	for (uint32_t i = 0; i < JOURNAL_TASKS - 1; i++)
		f->j->slot[i] = r;
	assert_int_equal(journal_slot_take(f->j, r), JOURNAL_TASKS - 1);
	assert_int_equal(f->j->nslots, JOURNAL_TASKS);
	assert_int_equal(journal_slot_take(f->j, r), -ENOSPC);
	assert_int_equal(f->j->nslots, JOURNAL_TASKS);
	f->j->slot[4711] = NULL;
	assert_int_equal(journal_slot_take(f->j, r), 4711);
}

static void snapshots_take_turns_and_leave_nothing(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1);
	struct region v[600];

	for (uint64_t k = 1; k <= 20; k++) {
		size_t n = k % 3 ? 30 * k : 0;
		struct task_log *log = r->log[r->active];

		for (size_t i = 0; i < JOURNAL_MESSAGES; i++)
			log->msg[i].event = UFFD_EVENT_UNMAP;
		fill(v, n, k);
		assert_int_equal(journal_snapshot(f->j, r, v, n), 0);
		assert_ptr_not_equal(r->log[r->active], log);
		assert_log(r->log[r->active], k * JOURNAL_MESSAGES, n, k);
	}
	journal_record_free(f->j, r);
	assert_int_equal(arena_used(f->a), f->empty);
}

static void every_descriptor_of_the_journal_has_a_name(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1), *lone = record(f, 1, 1);
	int *fields[] = {&f->j->handoff.listen_fd, &f->j->handoff.conn_fd, &f->j->worker_pidfd,
			 &f->j->keeper_pidfd[0],   &f->j->keeper_pidfd[1], &r->uffd};

	journal_slot_take(f->j, record(f, 1, 1));
	journal_slot_take(f->j, r);
	f->j->slot[0] = NULL; /* a gap before it */
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		assert_false(journal_names_fd(f->j, 100));
		*fields[i] = 100;
		assert_true(journal_names_fd(f->j, 100));
		assert_false(journal_names_fd(f->j, 101));
		assert_false(journal_names_fd(f->j, 0));
		*fields[i] = -1;
	}
	lone->uffd = 100; /* in no slot yet: nobody will find it */
	assert_false(journal_names_fd(f->j, 100));
}

static void put_fork(struct task_log *log, size_t i, uint8_t event, unsigned ufd)
{
	log->msg[i].event = event;
	log->msg[i].arg.fork.ufd = ufd;
}

static void descriptors_in_fork_messages_have_names(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1);
	struct task_log *log = r->log[r->active];

	journal_slot_take(f->j, r);
	put_fork(log, 0, UFFD_EVENT_UNMAP, 50);
	put_fork(log, 1, UFFD_EVENT_FORK, 51);
	put_fork(log, 2, JOURNAL_EVENT_DONE, 52);
	put_fork(log, 3, UFFD_EVENT_PAGEFAULT, 53);
	put_fork(log, 4, UFFD_EVENT_FORK, 54);
	put_fork(log, 6, UFFD_EVENT_FORK, 56); /* behind the end: left by nobody */
	for (int fd = 48; fd < 60; fd++)
		assert_int_equal(journal_names_fd(f->j, fd), fd == 51 || fd == 54);
	/* dealt with: the child's record has it from then on */
	log->msg[1].event = JOURNAL_EVENT_DONE;
	assert_false(journal_names_fd(f->j, 51));
}

static void the_last_message_of_a_full_log_counts(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1);
	struct task_log *log = r->log[r->active];

	journal_slot_take(f->j, r);
	for (size_t i = 0; i < JOURNAL_MESSAGES; i++)
		put_fork(log, i, JOURNAL_EVENT_DONE, 60);
	assert_false(journal_names_fd(f->j, 60));
	put_fork(log, JOURNAL_MESSAGES - 1, UFFD_EVENT_FORK, 61);
	assert_true(journal_names_fd(f->j, 61));
}

static void the_log_not_in_force_names_nothing(void **state)
{
	struct fixture *f = *state;
	struct task_record *r = record(f, 1, 1);

	journal_slot_take(f->j, r);
	put_fork(r->log[!r->active], 0, UFFD_EVENT_FORK, 70);
	assert_false(journal_names_fd(f->j, 70));
	put_fork(r->log[r->active], 0, UFFD_EVENT_FORK, 71);
	assert_true(journal_names_fd(f->j, 71));
	assert_int_equal(journal_snapshot(f->j, r, NULL, 0), 0);
	assert_false(journal_names_fd(f->j, 71));
}

/* The kernel itself writes the control buffer, with the sender's credentials beside it or not. */
static void receive_descriptor(struct journal *j, bool credentials)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int on = credentials, sk[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk), 0);
	assert_int_equal(setsockopt(sk[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &null, sizeof(null));
	assert_int_equal(sendmsg(sk[0], &m, 0), 1);
	m.msg_control = j->handoff.control;
	m.msg_controllen = sizeof(j->handoff.control);
	assert_int_equal(recvmsg(sk[1], &m, MSG_CMSG_CLOEXEC), 1);
	close(null);
	close(sk[0]);
	close(sk[1]);
}

static void a_descriptor_in_the_control_buffer_has_a_name(void **state)
{
	struct fixture *f = *state;

	for (int credentials = 0; credentials <= 1; credentials++) {
		int found = -1;

		receive_descriptor(f->j, credentials);
		for (int fd = 3; fd < 1000; fd++) {
			if (!journal_names_fd(f->j, fd))
				continue;
			assert_int_equal(found, -1);
			found = fd;
		}
		assert_true(found >= 0);
		assert_int_equal(fcntl(found, F_GETFD), FD_CLOEXEC);
		/* the sender's pid is a number in the buffer, too */
		assert_false(journal_names_fd(f->j, getpid()));
		memset(f->j->handoff.control, 0, sizeof(f->j->handoff.control));
		assert_false(journal_names_fd(f->j, found));
		close(found);
	}
}

/* Standard input is descriptor 0, and an empty buffer is full of zeros. */
static void an_empty_control_buffer_does_not_name_descriptor_0(void **state)
{
	struct fixture *f = *state;

	assert_false(journal_names_fd(f->j, 0));
	receive_descriptor(f->j, true);
	assert_false(journal_names_fd(f->j, 0));
	for (int fd = 3; fd < 1000; fd++)
		if (journal_names_fd(f->j, fd))
			close(fd);
}

static void a_recount_keeps_what_is_named_and_frees_the_rest(void **state)
{
	struct fixture *f = *state;
	struct task_record *kept = record(f, 600, 5), *parent = record(f, 1, 1), *child, *lost;
	uint64_t used;

	journal_slot_take(f->j, kept);
	journal_slot_take(f->j, parent);
	child = journal_record_new(f->j, owed_fork(f->a, parent->owed), NULL, 0);
	journal_slot_take(f->j, child);
	owed_clear(f->a, kept->owed, 0, 10);
	used = arena_used(f->a);
	/* by a worker that died: a record in no slot, bits in no record, a page of nobody */
	lost = record(f, 300, 2);
	assert_int_equal(journal_snapshot(f->j, lost, NULL, 0), 0);
	assert_non_null(owed_fork(f->a, parent->owed));
	assert_non_null(arena_run_new(f->a, 5));
	assert_true(arena_used(f->a) > used);

	journal_recount(f->j);
	assert_int_equal(arena_used(f->a), used);
	assert_int_equal(owed_left(kept->owed), PAGES - 10);
	assert_log(kept->log[kept->active], 0, 600, 5);
	for (int i = 0; i < 3; i++) {
		struct task_record *r = f->j->slot[i];

		f->j->slot[i] = NULL;
		journal_record_free(f->j, r);
	}
	assert_int_equal(arena_used(f->a), f->empty);
}

#define journal_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		journal_test(a_new_journal_names_no_descriptor),
		journal_test(a_record_begins_with_its_regions_and_no_message),
		journal_test(a_record_may_have_no_region_or_very_many),
		journal_test(a_record_in_used_memory_is_as_new),
		journal_test(no_two_records_have_one_number),
		journal_test(a_full_arena_takes_nothing),
		journal_test(slots_are_used_again_from_the_bottom),
		journal_test(slots_come_to_an_end),
		journal_test(snapshots_take_turns_and_leave_nothing),
		journal_test(every_descriptor_of_the_journal_has_a_name),
		journal_test(descriptors_in_fork_messages_have_names),
		journal_test(the_last_message_of_a_full_log_counts),
		journal_test(the_log_not_in_force_names_nothing),
		journal_test(a_descriptor_in_the_control_buffer_has_a_name),
		journal_test(an_empty_control_buffer_does_not_name_descriptor_0),
		journal_test(a_recount_keeps_what_is_named_and_frees_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
