// SPDX-License-Identifier: GPL-2.0-or-later
/* A worker that starts in the middle of the hand-off goes on where the dead one was. */
#include "handoff_pair.h"

/* The worker has been killed; this is the next one. */
static void next_worker(struct fixture *f)
{
	parts_worker_end(&f->p);
	parts_worker(&f->p);
	journal_recount(f->p.w.journal);
}

static void a_word_that_the_dead_worker_took_is_kept(void **state)
{
	struct fixture *f = *state;

	peer_word(f->peer, 100);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	next_worker(f);
	peer_uffd(f->peer);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_record_100(f);
	assert_int_equal(f->p.w.journal->handoff.items, 1);
}

/* As the kernel has filled word and control, and then the worker died. */
static void fill_item(struct fixture *f, int pid)
{
	struct handoff_record *h = &f->p.w.journal->handoff;
	struct iovec v = {&h->byte, 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = h->control,
			   .msg_controllen = sizeof(h->control)};

	h->word = pid;
	peer_uffd(f->peer);
	assert_int_equal(recvmsg(h->conn_fd, &m, MSG_CMSG_CLOEXEC), 1);
}

static void an_item_that_came_whole_gets_its_record(void **state)
{
	struct fixture *f = *state;

	fill_item(f, 100);
	next_worker(f);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 1);
	assert_record_100(f);
	assert_int_equal(f->p.w.journal->handoff.items, 1);
	assert_int_equal(f->p.w.journal->handoff.word, 0);
}

static void a_record_that_was_made_is_not_made_again(void **state)
{
	struct fixture *f = *state;
	struct handoff_record *h = &f->p.w.journal->handoff, before;
	int uffd;

	fill_item(f, 100);
	before = *h;
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	uffd = record_of(f, 100)->uffd;
	*h = before; /* it died before it could say so */
	next_worker(f);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 1);
	assert_int_equal(record_of(f, 100)->uffd, uffd);
	assert_int_equal(h->items, 1);
	assert_int_equal(h->word, 0);
	/* and the next item is another one */
	peer_item(f->peer, 102);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 2);
}

static void an_item_half_cleared_up_is_counted_once(void **state)
{
	struct fixture *f = *state;
	struct handoff_record *h = &f->p.w.journal->handoff;
	char control[sizeof(h->control)];

	fill_item(f, 100);
	memcpy(control, h->control, sizeof(control));
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	for (size_t cleared = 0; cleared <= sizeof(control); cleared += 16) {
		h->word = INT32_MIN;
		memcpy(h->control, control, sizeof(control));
		memset(h->control, 0, cleared);
		next_worker(f);
		assert_int_equal(receive(f), HANDOFF_GOES_ON);
		assert_int_equal(h->word, 0);
		assert_int_equal(h->items, 1);
		assert_int_equal(records(f), 1);
	}
	peer_word(f->peer, -101);
	peer_item(f->peer, 102);
	peer_word(f->peer, RESTORE_FINISHED);
	assert_int_equal(receive(f), HANDOFF_FINISHED);
	assert_int_equal(h->items, 3);
}

static void an_end_or_a_zombie_that_the_dead_worker_took_counts(void **state)
{
	struct fixture *f = *state;
	struct handoff_record *h = &f->p.w.journal->handoff;

	peer_item(f->peer, 100);
	peer_item(f->peer, 102);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	h->word = -101;
	next_worker(f);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(h->items, 3);
	h->word = RESTORE_FINISHED;
	next_worker(f);
	assert_int_equal(receive(f), HANDOFF_FINISHED);
	assert_true(f->p.w.journal->restore_finished);
	assert_int_equal(h->word, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		handoff_test(a_word_that_the_dead_worker_took_is_kept),
		handoff_test(an_item_that_came_whole_gets_its_record),
		handoff_test(a_record_that_was_made_is_not_made_again),
		handoff_test(an_item_half_cleared_up_is_counted_once),
		handoff_test(an_end_or_a_zombie_that_the_dead_worker_took_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
