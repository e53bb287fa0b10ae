// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A dump that comes in over a socket pair: what is waited for and how long, what lies in the
 * directory at which moment, and senders that are gone when they are to be answered.
 */
#include "test_image_write.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "options.h"
#include "receive.h"
#include "wire.h"

#define TASK WIRE_ID(PID, WIRE_KIND_TASK)

struct dump {
	struct scratch s;
	struct options o;
	struct log log;
	struct stream *stream;
	struct receive_limits limits;
	int peer;
	pthread_t thread;
	struct error e;
	int status;
};

static void *receive_thread(void *arg)
{
	struct dump *d = arg;

	d->status = receive_run_limited(&d->o, &d->log, d->stream, &d->limits, &d->e);
	return NULL;
}

static void prepare(struct dump *d)
{
	int pair[2];

	memset(d, 0, sizeof(*d));
	signal(SIGPIPE, SIG_IGN);
	d->s = scratch_new();
	options_init(&d->o);
	d->o.images_fd = d->s.fd;
	log_init(&d->log, "page-server", LOG_MSG);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	d->peer = pair[0];
	d->stream = stream_new(pair[1], NULL, true, NULL);
	assert_non_null(d->stream);
	d->limits = (struct receive_limits){.within = 20000, .between = 20000};
}

static void begin(struct dump *d)
{
	assert_int_equal(pthread_create(&d->thread, NULL, receive_thread, d), 0);
}

static int end(struct dump *d)
{
	assert_int_equal(pthread_join(d->thread, NULL), 0);
	stream_free(d->stream);
	if (d->peer >= 0)
		close(d->peer);
	return d->status;
}

static void say(struct dump *d, uint16_t command, uint16_t flags, uint64_t npages, uint64_t vaddr,
		uint64_t id)
{
	const struct wire_header h = {command, flags, npages, vaddr, id};
	char bytes[WIRE_HEADER_MAX];

	assert_int_equal(send(d->peer, bytes, wire_encode(WIRE_32, &h, bytes), MSG_NOSIGNAL),
			 WIRE_32);
}

static void hear(struct dump *d, size_t len)
{
	char bytes[4];

	assert_int_equal(recv(d->peer, bytes, len, MSG_WAITALL), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(bytes[i], 0);
}

static void send_page(struct dump *d, int byte, size_t len)
{
	char page[PAGE_SIZE];

	memset(page, byte, sizeof(page));
	assert_int_equal(send(d->peer, page, len, MSG_NOSIGNAL), len);
}

static bool exists(struct dump *d, const char *name)
{
	return !faccessat(d->s.fd, name, F_OK, 0);
}

static bool is_marked(struct dump *d)
{
	return exists(d, "pagemap-12.img.incomplete") && exists(d, "pages-65537.img.incomplete") &&
	       !exists(d, "pagemap-12.img") && !exists(d, "pages-65537.img");
}

static bool is_whole(struct dump *d)
{
	return !exists(d, "pagemap-12.img.incomplete") &&
	       !exists(d, "pages-65537.img.incomplete") && exists(d, "pagemap-12.img") &&
	       exists(d, "pages-65537.img");
}

static void open_task(struct dump *d)
{
	say(d, WIRE_OPEN2, 0, 0, 0, TASK);
	hear(d, 1);
}

static void names_are_real_when_close_is_answered_and_not_before(void **state)
{
	struct dump d;

	(void)state;
	prepare(&d);
	begin(&d);
	open_task(&d);
	assert_true(is_marked(&d));
	say(&d, WIRE_ADD, 0, 1, 0x1000, TASK);
	send_page(&d, 'x', PAGE_SIZE);
	/* An answer to anything else shows that all of that has been dealt with. */
	say(&d, WIRE_PARENT, 0, 0, 0, TASK);
	hear(&d, 4);
	assert_true(is_marked(&d));
	say(&d, WIRE_CLOSE, 0, 0, 0, 0);
	hear(&d, 4);
	assert_true(is_whole(&d));
	close(d.peer);
	d.peer = -1;
	assert_int_equal(end(&d), 0);
	scratch_end(&d.s);
}

static void a_stall_ends_it(void **state)
{
	/* Where the sender falls silent: in a header, in pages, between headers. */
	for (int where = 0; where < 3; where++) {
		struct dump d;

		(void)state;
		prepare(&d);
		if (where == 2)
			d.limits.between = 200;
		else
			d.limits.within = 200;
		begin(&d);
		open_task(&d);
		if (where == 0)
			send_page(&d, WIRE_ADD, 7);
		if (where == 1) {
			say(&d, WIRE_ADD, 0, 1, 0x1000, TASK);
			send_page(&d, 'x', 100);
		}
		assert_int_equal(end(&d), 1);
		assert_text(d.e, "the dump is incomplete, nothing of it can be restored");
		assert_text(d.e, "the sender has said nothing for");
		assert_true(is_marked(&d));
		scratch_end(&d.s);
	}
}

static void slow_is_no_stall(void **state)
{
	struct dump d;

	(void)state;
	prepare(&d);
	d.limits.within = 400;
	begin(&d);
	open_task(&d);
	say(&d, WIRE_ADD, 0, 1, 0x1000, TASK);
	for (int i = 0; i < 16; i++) {
		usleep(50000);
		send_page(&d, 'x', PAGE_SIZE / 16);
	}
	say(&d, WIRE_FORCE_CLOSE, 0, 0, 0, 0);
	hear(&d, 4);
	assert_int_equal(end(&d), 0);
	assert_true(is_whole(&d));
	scratch_end(&d.s);
}

static void a_sender_that_is_gone_before_the_answer_was_not_told(void **state)
{
	struct dump d;

	(void)state;
	prepare(&d);
	/* All is said before anybody listens. */
	say(&d, WIRE_OPEN, 0, 0, 0, TASK);
	say(&d, WIRE_ADD, 0, 1, 0x1000, TASK);
	send_page(&d, 'x', PAGE_SIZE);
	say(&d, WIRE_CLOSE, 0, 0, 0, 0);
	close(d.peer);
	d.peer = -1;
	begin(&d);
	assert_int_equal(end(&d), 1);
	assert_text(d.e, "the dump is complete, but its sender was not told");
	assert_true(is_whole(&d));
	scratch_end(&d.s);
}

static void what_cannot_get_its_name_is_not_answered(void **state)
{
	struct dump d;
	char c;

	(void)state;
	prepare(&d);
	assert_int_equal(mkdirat(d.s.fd, "pagemap-12.img", 0700), 0);
	begin(&d);
	open_task(&d);
	say(&d, WIRE_CLOSE, 0, 0, 0, 0);
	assert_int_equal(end(&d), 1);
	assert_text(d.e, "CLOSE: pagemap-12.img: ");
	assert_true(exists(&d, "pagemap-12.img.incomplete"));
	assert_true(exists(&d, "pages-65537.img.incomplete"));
	assert_true(recv(d.peer, &c, 1, 0) <= 0);
	scratch_end(&d.s);
}

/* The one before is as it was until CLOSE; after it, pages and page map are the new ones. */
static void an_earlier_dump_is_whole_until_the_next_one_is(void **state)
{
	struct dump d;
	FILE *f;

	(void)state;
	prepare(&d);
	f = pagemap_new(d.s.fd, PID, 65541);
	pagemap_add(f, 0x1000, 1, PAGEMAP_PRESENT);
	image_end(f);
	write_file(d.s.fd, "pages-65541.img", PAGE_SIZE);
	begin(&d);
	open_task(&d);
	assert_true(exists(&d, "pagemap-12.img") && exists(&d, "pages-65541.img"));
	assert_true(exists(&d, "pages-65542.img.incomplete"));
	say(&d, WIRE_FORCE_CLOSE, 0, 0, 0, 0);
	hear(&d, 4);
	assert_int_equal(end(&d), 0);
	assert_true(exists(&d, "pagemap-12.img") && exists(&d, "pages-65542.img"));
	assert_false(exists(&d, "pages-65541.img"));
	scratch_end(&d.s);
}

/* Then its number is free, and the new dump takes it. */
static void an_earlier_dump_without_its_pages_costs_the_new_one_nothing(void **state)
{
	struct dump d;
	FILE *f;

	(void)state;
	prepare(&d);
	f = pagemap_new(d.s.fd, PID, 65537);
	pagemap_add(f, 0x1000, 1, PAGEMAP_PRESENT);
	image_end(f);
	begin(&d);
	open_task(&d);
	say(&d, WIRE_ADD, 0, 1, 0x1000, TASK);
	send_page(&d, 'x', PAGE_SIZE);
	say(&d, WIRE_FORCE_CLOSE, 0, 0, 0, 0);
	hear(&d, 4);
	assert_int_equal(end(&d), 0);
	assert_true(is_whole(&d));
	scratch_end(&d.s);
}

static void only_marks_of_ours_are_removed(void **state)
{
	static const char *const left_over[] = {"pagemap-7.img.incomplete",
						"pagemap-shmem-9.img.incomplete",
						"pages-70000.img.incomplete"};
	static const char *const others[] = {"core-7.img.incomplete", "pages-1.img",
					     "pagemap-7.img.incomplete2", "pages-x.incomplete",
					     ".img.incomplete"};
	struct dump d;

	(void)state;
	prepare(&d);
	for (size_t i = 0; i < ARRAY_SIZE(left_over); i++)
		write_file(d.s.fd, left_over[i], 1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		write_file(d.s.fd, others[i], 1);
	begin(&d);
	open_task(&d);
	for (size_t i = 0; i < ARRAY_SIZE(left_over); i++)
		assert_false(exists(&d, left_over[i]));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_true(exists(&d, others[i]));
	say(&d, WIRE_FORCE_CLOSE, 0, 0, 0, 0);
	assert_int_equal(end(&d), 0);
	scratch_end(&d.s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_real_when_close_is_answered_and_not_before),
		cmocka_unit_test(a_stall_ends_it),
		cmocka_unit_test(slow_is_no_stall),
		cmocka_unit_test(a_sender_that_is_gone_before_the_answer_was_not_told),
		cmocka_unit_test(what_cannot_get_its_name_is_not_answered),
		cmocka_unit_test(an_earlier_dump_is_whole_until_the_next_one_is),
		cmocka_unit_test(an_earlier_dump_without_its_pages_costs_the_new_one_nothing),
		cmocka_unit_test(only_marks_of_ours_are_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
