// SPDX-License-Identifier: GPL-2.0-or-later
/* Plain connections (stream.h): what does not go now is -EAGAIN, and nothing is lost by it. */
#include "stream_pair.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>

#define BIG (8 << 20)

int main(void);

static void plain(struct pair *p, void (*make)(int fds[2]))
{
	struct error e = {0};
	int fds[2];

	make(fds);
	p->client = stream_new(fds[0], NULL, false, NULL);
	p->server = stream_new(fds[1], NULL, true, NULL);
	assert_int_equal(stream_handshake(p->client, &e), 0);
	assert_int_equal(stream_handshake(p->server, &e), 0);
}

static int option(const struct stream *s, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(stream_fd(s), level, name, &value, &len), 0);
	return value;
}

static void sockets_are_made_ready(void **state)
{
	struct pair p;

	(void)state;
	plain(&p, tcp_pair);
	assert_true(fcntl(stream_fd(p.server), F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(stream_fd(p.server), F_GETFD) & FD_CLOEXEC);
	assert_int_equal(option(p.server, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(p.server, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(p.server, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
	assert_false(stream_pending(p.server));
	pair_free(&p);
}

static void nothing_there_is_later_and_an_end_is_zero(void (*make)(int fds[2]))
{
	struct pair p;
	char room[8];

	plain(&p, make);
	assert_int_equal(stream_read(p.server, room, sizeof(room)), -EAGAIN);
	assert_int_equal(stream_events(p.server), EPOLLIN);
	assert_int_equal(stream_write(p.client, "abc", 3, true), 3);
	assert_int_equal(stream_write(p.client, "def", 3, false), 3);
	read_all(p.server, room, 6);
	assert_memory_equal(room, "abcdef", 6);
	assert_int_equal(stream_bye(p.client), 0);
	assert_int_equal(read_some(p.server, room, sizeof(room)), 0);
	/* only one direction has ended */
	assert_int_equal(stream_write(p.server, "answer", 6, false), 6);
	read_all(p.client, room, 6);
	assert_memory_equal(room, "answer", 6);
	pair_free(&p);
}

static void nothing_there_is_later_and_an_end_is_zero_by_tcp(void **state)
{
	(void)state;
	nothing_there_is_later_and_an_end_is_zero(tcp_pair);
}

static void nothing_there_is_later_and_an_end_is_zero_by_unix(void **state)
{
	(void)state;
	nothing_there_is_later_and_an_end_is_zero(unix_pair);
}

/* Writes until nothing more goes; the rest goes while the other side reads. */
static void a_full_connection_takes_a_part_and_then_says_later(void **state)
{
	_cleanup_free_ char *out = malloc(BIG), *in = malloc(BIG);
	struct random r = random_from(1, 1);
	size_t sent = 0, got = 0;
	struct pair p;
	ssize_t n;

	(void)state;
	fill(&r, out, BIG);
	plain(&p, tcp_pair);
	while ((n = stream_write(p.client, out + sent, BIG - sent, false)) > 0)
		sent += (size_t)n;
	assert_int_equal(n, -EAGAIN);
	assert_int_equal(stream_events(p.client), EPOLLOUT);
	assert_in_range(sent, 1, BIG - 1);
	while (got < BIG) {
		n = read_some(p.server, in + got, BIG - got);
		assert_true(n > 0);
		got += (size_t)n;
		n = stream_write(p.client, out + sent, BIG - sent, false);
		sent += n > 0 ? (size_t)n : 0;
	}
	assert_memory_equal(in, out, BIG);
	pair_free(&p);
}

static int file_of(const char *bytes, size_t len)
{
	int fd = memfd_create("pages", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, 0), len);
	return fd;
}

static void a_file_is_sent(void (*make)(int fds[2]))
{
	_cleanup_free_ char *out = malloc(BIG), *in = malloc(BIG);
	size_t from = 3 * 4096, sent = from, got = from;
	struct random r = random_from(2, 1);
	_cleanup_close_ int fd = -1;
	struct pair p;
	ssize_t n;

	fill(&r, out, BIG);
	fd = file_of(out, BIG);
	plain(&p, make);
	while (got < BIG) {
		n = sent < BIG ? stream_send_file(p.client, fd, sent, BIG - sent) : 0;
		assert_true(n >= 0 || n == -EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		n = read_some(p.server, in + got, BIG - got);
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_memory_equal(in + from, out + from, BIG - from);
	assert_int_equal(stream_send_file(p.client, fd, BIG, 4096), -ENODATA);
	pair_free(&p);
}

static void a_file_is_sent_by_tcp(void **state)
{
	(void)state;
	a_file_is_sent(tcp_pair);
}

static void a_file_is_sent_by_unix(void **state)
{
	(void)state;
	a_file_is_sent(unix_pair);
}

static void a_file_that_cannot_be_spliced_is_copied(void **state)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t offset = (uintptr_t)main / PAGE_SIZE * 8, expected, got;
	struct pair p;

	(void)state;
	plain(&p, tcp_pair);
	assert_int_equal(pread(fd, &expected, 8, (off_t)offset), 8);
	assert_int_not_equal(expected, 0);
	assert_int_equal(sendfile(stream_fd(p.client), fd, &(off_t){(off_t)offset}, 8), -1);
	assert_int_equal(stream_send_file(p.client, fd, offset, 8), 8);
	read_all(p.server, &got, 8);
	assert_int_equal(got, expected);
	pair_free(&p);
}

static void what_is_sent_after_the_peer_has_gone_is_an_error_and_no_signal(void **state)
{
	struct pair p;
	char c = 0;
	ssize_t n;

	(void)state;
	plain(&p, tcp_pair);
	stream_free(p.server);
	for (n = 1; n > 0; usleep(1000))
		n = stream_write(p.client, &c, 1, false);
	assert_true(n == -EPIPE || n == -ECONNRESET);
	stream_free(p.client);
}

static void a_close_is_an_end_or_a_reset_as_told(void **state)
{
	struct pair p;
	char c;

	(void)state;
	plain(&p, tcp_pair);
	stream_free(p.client);
	assert_int_equal(read_some(p.server, &c, 1), 0);
	stream_free(p.server);

	plain(&p, tcp_pair);
	assert_int_equal(stream_reset_on_close(p.client, true), 0);
	stream_free(p.client);
	assert_int_equal(read_some(p.server, &c, 1), -ECONNRESET);
	stream_free(p.server);

	plain(&p, tcp_pair);
	assert_int_equal(stream_reset_on_close(p.client, true), 0);
	assert_int_equal(stream_reset_on_close(p.client, false), 0);
	stream_free(p.client);
	assert_int_equal(read_some(p.server, &c, 1), 0);
	stream_free(p.server);

	plain(&p, unix_pair);
	assert_int_equal(stream_reset_on_close(p.client, true), -EOPNOTSUPP);
	pair_free(&p);
}

static void a_killed_process_resets_too(void **state)
{
	struct pair p;
	pid_t pid;
	char c;

	(void)state;
	plain(&p, tcp_pair);
	assert_int_equal(stream_reset_on_close(p.client, true), 0);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	close(stream_detach(p.client)); /* the child has the last descriptor */
	assert_int_equal(stream_read(p.server, &c, 1), -EAGAIN);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(read_some(p.server, &c, 1), -ECONNRESET);
	stream_free(p.server);
}

static void a_connection_that_is_refused_fails_with_the_reason(void **state)
{
	struct net_address a;
	struct error e = {0};
	struct stream *s;
	int ret, fd = tcp_listen(&a);

	(void)state;
	close(fd);
	fd = net_connect(&a, &e);
	if (fd < 0) { /* at once, as the loopback may */
		assert_int_equal(fd, -ECONNREFUSED);
		return;
	}
	s = stream_new(fd, NULL, false, NULL);
	while ((ret = stream_handshake(s, &e)) == -EAGAIN) {
		assert_int_equal(stream_events(s), EPOLLOUT);
		stream_wait(s, stream_events(s));
	}
	assert_int_equal(ret, -ECONNREFUSED);
	assert_string_equal(e.text, "connect: Connection refused");
	stream_free(s);
}

static void what_is_no_connection_is_refused(void **state)
{
	struct error e = {0};
	struct stream *s = stream_new(open("/dev/null", O_RDWR), NULL, false, NULL);

	(void)state;
	assert_int_equal(stream_handshake(s, &e), -ENOTSOCK);
	stream_free(s);
	s = stream_new(socket(AF_INET, SOCK_STREAM, 0), NULL, false, NULL);
	assert_int_equal(stream_handshake(s, &e), -ENOTCONN);
	stream_free(s);
	stream_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_are_made_ready),
		cmocka_unit_test(nothing_there_is_later_and_an_end_is_zero_by_tcp),
		cmocka_unit_test(nothing_there_is_later_and_an_end_is_zero_by_unix),
		cmocka_unit_test(a_full_connection_takes_a_part_and_then_says_later),
		cmocka_unit_test(a_file_is_sent_by_tcp),
		cmocka_unit_test(a_file_is_sent_by_unix),
		cmocka_unit_test(a_file_that_cannot_be_spliced_is_copied),
		cmocka_unit_test(what_is_sent_after_the_peer_has_gone_is_an_error_and_no_signal),
		cmocka_unit_test(a_close_is_an_end_or_a_reset_as_told),
		cmocka_unit_test(a_killed_process_resets_too),
		cmocka_unit_test(a_connection_that_is_refused_fails_with_the_reason),
		cmocka_unit_test(what_is_no_connection_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
