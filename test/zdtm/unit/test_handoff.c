// SPDX-License-Identifier: GPL-2.0-or-later
/* The hand-off: what a restore sends, in pieces and in any order, becomes records; whatever else is
 * sent is refused by name. */
#include "handoff_pair.h"

#include <sys/stat.h>
#include <sys/un.h>

static void a_task_becomes_a_record_with_its_lazy_mappings(void **state)
{
	struct fixture *f = *state;

	peer_item(f->peer, 100);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 1);
	assert_record_100(f);
	assert_int_equal(given(f), 1);
	assert_int_equal(atomic_load(&f->p.w.live), 1);
	assert_int_equal(f->p.w.journal->handoff.items, 1);
}

/* CRIU opens it so; another caller may not, and then a read would hold up everything. */
static void a_blocking_userfaultfd_is_made_not_to_block(void **state)
{
	struct fixture *f = *state;
	int fd = parts_uffd();

	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	peer_word(f->peer, 100);
	peer_fd(f->peer, fd);
	close(fd);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_uffd(record_of(f, 100)->uffd);
}

static void a_whole_tree_comes_in_any_order(void **state)
{
	static const int orders[][3] = {{100, -101, 102}, {-101, 102, 100}, {102, 100, -101}};

	for (size_t k = 0; k < ARRAY_SIZE(orders); k++) {
		struct fixture *f = *state;

		for (size_t i = 0; i < 3; i++) {
			if (orders[k][i] < 0)
				peer_word(f->peer, orders[k][i]);
			else
				peer_item(f->peer, orders[k][i]);
		}
		assert_int_equal(receive(f), HANDOFF_GOES_ON);
		assert_false(f->p.w.journal->restore_finished);
		peer_word(f->peer, RESTORE_FINISHED);
		assert_int_equal(receive(f), HANDOFF_FINISHED);
		assert_true(f->p.w.journal->restore_finished);
		assert_int_equal(records(f), 2);
		assert_record_100(f);
		assert_int_equal(owed_left(record_of(f, 102)->owed), 1);
		assert_int_equal(f->p.w.journal->handoff.items, 3);
		restore_closes(f);
		assert_int_equal(receive(f), HANDOFF_FINISHED);
		assert_int_equal(f->p.w.journal->handoff.conn_fd, -1);
		teardown(state);
		setup(state);
	}
}

/* A word may come long before the descriptor, and an item long before the next. */
static void what_has_not_come_is_waited_for(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	peer_word(f->peer, 100);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 0);
	assert_int_equal(f->p.w.journal->handoff.items, 0);
	peer_uffd(f->peer);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(records(f), 1);
	peer_word(f->peer, -101);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_int_equal(f->p.w.journal->handoff.items, 2);
	assert_int_equal(records(f), 1);
}

static void tasks_are_spread_over_the_owners(void **state)
{
	struct fixture *f = *state;

	peer_item(f->peer, 100);
	peer_item(f->peer, 102);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	for (unsigned i = 0; i < PARTS_OWNERS; i++)
		assert_true(f->p.owner[i].ninbox <= 1);
	assert_int_equal(given(f), 2);
}

static void a_word_in_two_pieces_is_refused(void **state)
{
	struct fixture *f = *state;
	int32_t word = 100;

	peer_bytes(f->peer, &word, 2);
	assert_refused(f, "2 bytes instead of a 4-byte pid");
}

static void garbage_is_refused(void **state)
{
	struct fixture *f = *state;

	peer_bytes(f->peer, "GET / HTTP/1.1\r\n\r\n", 18);
	assert_refused(f, "neither a task of the checkpoint nor the end");
	assert_int_equal(records(f), 0);
}

static void words_at_the_edges_are_refused(void **state)
{
	static const int32_t words[] = {1,
					-1,
					99,
					-100000,
					INT32_MAX,
					0x7fffff00,
					-INT32_MAX,
					RESTORE_FINISHED + 1,
					-RESTORE_FINISHED};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		struct fixture *f = *state;

		peer_word(f->peer, words[i]);
		assert_refused(f, "neither a task of the checkpoint nor the end");
		teardown(state);
		setup(state);
	}
}

static void an_unknown_pid_with_a_descriptor_is_refused(void **state)
{
	struct fixture *f = *state;

	peer_item(f->peer, 4711);
	assert_refused(f, "4711");
	assert_int_equal(records(f), 0);
}

static void memory_of_a_zombie_is_refused(void **state)
{
	struct fixture *f = *state;

	peer_item(f->peer, 101);
	assert_refused(f, "task 101");
	assert_int_equal(records(f), 0);
}

static void a_byte_without_descriptor_is_refused(void **state)
{
	struct fixture *f = *state;

	peer_word(f->peer, 100);
	peer_bytes(f->peer, "", 1);
	assert_refused(f, "no descriptor came for task 100");
}

static void another_kind_of_descriptor_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = eventfd(0, EFD_CLOEXEC);

	peer_word(f->peer, 100);
	peer_fd(f->peer, fd);
	close(fd);
	assert_refused(f, "no userfaultfd: anon_inode:[eventfd]");
	assert_int_equal(records(f), 0);
}

static void a_connection_closed_too_early_is_a_failed_restore(void **state)
{
	for (int sent = 1; sent <= 2; sent++) {
		struct fixture *f = *state;

		peer_item(f->peer, 100);
		if (sent > 1)
			peer_word(f->peer, -101);
		restore_closes(f);
		assert_refused(f, sent == 1 ? "after 1 items" : "after 2 items");
		teardown(state);
		setup(state);
	}
}

/* A restore that was not a lazy one, perhaps. */
static void a_connection_closed_without_a_word_is_told_apart(void **state)
{
	struct fixture *f = *state;

	restore_closes(f);
	assert_int_equal(receive(f), HANDOFF_NOTHING);
	assert_non_null(strstr(f->e.text, "the restore failed"));
}

static void a_connection_closed_inside_an_item_names_the_task(void **state)
{
	struct fixture *f = *state;

	peer_word(f->peer, 102);
	restore_closes(f);
	assert_refused(f, "task 102");
}

/* Another owner thread must not be given what cannot be had. */
static void no_memory_for_a_record_is_an_error_and_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	while (arena_page_new(f->p.arena, 0)) {
	}
	peer_item(f->peer, 100);
	assert_refused(f, "no memory for task 100");
	assert_int_equal(records(f), 0);
	assert_int_equal(given(f), 0);
}

static void the_listener_is_found_by_name_and_accepts_with_credentials(void **state)
{
	struct fixture *f = *state;
	struct handoff_record *h = &f->p.w.journal->handoff;
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "lazy-pages.socket"};
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(a.sun_path));
	char dir[] = "/tmp/lazy-pages-unit-XXXXXX";
	struct stat st;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	close(open(a.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* a stale one */
	h->listen_fd = handoff_listen(&f->e);
	assert_true(h->listen_fd >= 0);
	assert_true(fcntl(h->listen_fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(stat(a.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	close(h->conn_fd);
	h->conn_fd = -1;
	h->connected = false;
	close(f->peer);
	/* nobody is there: no error, no waiting */
	assert_int_equal(handoff_accept(&f->p.w, &f->e), HANDOFF_GOES_ON);
	assert_false(h->connected);
	f->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(f->peer, (struct sockaddr *)&a, len), 0);
	assert_int_equal(handoff_accept(&f->p.w, &f->e), HANDOFF_GOES_ON);
	assert_true(h->connected);
	peer_item(f->peer, 100);
	assert_int_equal(receive(f), HANDOFF_GOES_ON);
	assert_record_100(f); /* with the sender's pid */
	close(h->listen_fd);
	h->listen_fd = -1;
	handoff_unlink();
	assert_int_equal(stat(a.sun_path, &st), -1);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void only_a_listening_socket_is_adopted(void **state)
{
	struct fixture *f = *state;
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_true(handoff_adopt_listener(fd, &f->e) < 0);
	assert_true(handoff_adopt_listener(f->peer, &f->e) < 0);
	assert_true(handoff_adopt_listener(-1, &f->e) < 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		handoff_test(a_task_becomes_a_record_with_its_lazy_mappings),
		handoff_test(a_blocking_userfaultfd_is_made_not_to_block),
		handoff_test(a_whole_tree_comes_in_any_order),
		handoff_test(what_has_not_come_is_waited_for),
		handoff_test(tasks_are_spread_over_the_owners),
		handoff_test(a_word_in_two_pieces_is_refused),
		handoff_test(garbage_is_refused),
		handoff_test(words_at_the_edges_are_refused),
		handoff_test(an_unknown_pid_with_a_descriptor_is_refused),
		handoff_test(memory_of_a_zombie_is_refused),
		handoff_test(a_byte_without_descriptor_is_refused),
		handoff_test(another_kind_of_descriptor_is_refused),
		handoff_test(a_connection_closed_too_early_is_a_failed_restore),
		handoff_test(a_connection_closed_without_a_word_is_told_apart),
		handoff_test(a_connection_closed_inside_an_item_names_the_task),
		handoff_test(no_memory_for_a_record_is_an_error_and_leaves_nothing),
		handoff_test(the_listener_is_found_by_name_and_accepts_with_credentials),
		handoff_test(only_a_listening_socket_is_adopted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
