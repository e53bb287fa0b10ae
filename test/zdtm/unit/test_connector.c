// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The thread that makes connections, in a network namespace of its own: refused, unanswered,
 * unreachable, there later, and told to stop.
 */
#include "page_peer.h"

#include <sched.h>
#include <sys/eventfd.h>

#include "clock.h"
#include "connector.h"

#define MS UINT64_C(1000000)

static void run(const char *command)
{
	if (system(command))
		fail_msg("%s", command);
}

/* What is sent to 192.0.2.0/24 vanishes; to any other address there is no way. */
static int set_up(void **state)
{
	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	run("ip link set lo up");
	run("ip link add hole type veth peer name bottom && ip link set bottom up");
	run("ip addr add 192.0.2.1/24 dev hole && ip link set hole arp off up");
	return 0;
}

struct bench {
	struct peer peer;
	int event_fd;
	struct connector *c;
	bool failed;
	struct error e;
};

static void begin(struct bench *b, const char *host, uint16_t port)
{
	memset(b, 0, sizeof(*b));
	if (net_resolve(&b->peer.address, host, port, &b->e))
		fail_msg("%s", b->e.text);
	b->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->c = connector_new(&b->peer, b->event_fd);
	assert_non_null(b->c);
	assert_false(connector_busy(b->c));
}

static void end(struct bench *b)
{
	connector_free(b->c);
	close(b->event_fd);
}

/* What is delivered within @ms. */
static struct stream *wait_for(struct bench *b, uint64_t ms)
{
	struct pollfd p = {.fd = b->event_fd, .events = POLLIN};
	uint64_t count;

	if (poll(&p, 1, (int)ms) != 1)
		return NULL;
	assert_int_equal(read(b->event_fd, &count, sizeof(count)), sizeof(count));
	return connector_take(b->c, &b->failed, &b->e);
}

static int listen_everywhere(struct net_address *a)
{
	struct error e = {0};
	int fd = -1;

	if (net_resolve(a, "0.0.0.0", 0, &e) || (fd = net_listen(a, &e)) < 0)
		fail_msg("%s", e.text);
	return fd;
}

/* Where nobody listens yet. */
static uint16_t quiet_port(struct net_address *a)
{
	close(tcp_listen(a));
	return ntohs(((struct sockaddr_in *)&a->sa)->sin_port);
}

static void one_attempt_is_one_attempt(void **state)
{
	struct net_address a;
	struct error e = {0};
	struct bench b;
	int listener;

	(void)state;
	begin(&b, "127.0.0.1", quiet_port(&a));
	connector_want(b.c, false);
	assert_true(connector_busy(b.c));
	assert_null(wait_for(&b, 1000 * SLOWNESS));
	assert_true(b.failed);
	assert_int_equal(b.e.code, -ECONNREFUSED);
	assert_non_null(strstr(b.e.text, a.text));
	assert_false(connector_busy(b.c));
	assert_null(connector_take(b.c, &b.failed, &b.e));
	assert_false(b.failed); /* told once */
	listener = net_listen(&a, &e);
	assert_true(listener >= 0);
	assert_null(wait_for(&b, 700)); /* it does not try again by itself */
	assert_int_equal(accept4(listener, NULL, NULL, SOCK_NONBLOCK), -1);
	close(listener);
	end(&b);
}

static void a_connection_is_delivered(void **state)
{
	struct net_address a;
	int listener = tcp_listen(&a), fd;
	struct stream *s;
	struct bench b;
	char c;

	(void)state;
	begin(&b, "127.0.0.1", ntohs(((struct sockaddr_in *)&a.sa)->sin_port));
	for (int i = 0; i < 20; i++) {
		connector_want(b.c, i % 2);
		s = wait_for(&b, 1000 * SLOWNESS);
		assert_non_null(s);
		assert_false(b.failed || connector_busy(b.c));
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		assert_true(fd >= 0);
		write_all(s, "x", 1);
		assert_int_equal(recv(fd, &c, 1, 0), 1);
		stream_free(s);
		close(fd);
	}
	close(listener);
	end(&b);
}

/* Pauses do not grow without bound: whoever comes late is found soon. */
static void a_server_that_comes_later_is_found_within_half_a_second(void **state)
{
	struct net_address a;
	struct error e = {0};
	struct bench b;

	(void)state;
	begin(&b, "127.0.0.1", quiet_port(&a));
	for (int i = 0; i < 3; i++) {
		struct stream *s;
		int listener;

		connector_want(b.c, true);
		assert_null(wait_for(&b, 1700));
		assert_true(connector_busy(b.c));
		listener = net_listen(&a, &e);
		assert_true(listener >= 0);
		s = wait_for(&b, 500 * SLOWNESS);
		assert_non_null(s);
		stream_free(s);
		close(listener);
	}
	end(&b);
}

/* The pauses are at their longest; news of an address end one. */
static void news_of_the_network_are_acted_upon_at_once(void **state)
{
	struct net_address a;
	int listener;
	struct bench b;

	(void)state;
	listener = listen_everywhere(&a);
	begin(&b, "198.51.100.1", ntohs(((struct sockaddr_in *)&a.sa)->sin_port));
	for (int i = 0; i < 3; i++) {
		struct stream *s;

		connector_want(b.c, true);
		assert_null(wait_for(&b, 1700));
		run("ip addr add 198.51.100.1/32 dev lo");
		s = wait_for(&b, 100 * SLOWNESS);
		assert_non_null(s);
		stream_free(s);
		run("ip addr del 198.51.100.1/32 dev lo");
	}
	close(listener);
	end(&b);
}

static void no_answer_is_a_failure_after_a_while(void **state)
{
	uint64_t began, took;
	struct bench b;

	(void)state;
	begin(&b, "192.0.2.9", 27);
	began = now_ns();
	connector_want(b.c, false);
	assert_null(wait_for(&b, 3000 * SLOWNESS));
	took = now_ns() - began;
	assert_true(b.failed);
	assert_int_equal(b.e.code, -ETIMEDOUT);
	assert_in_range(took, 450 * MS, 2000 * SLOWNESS * MS);
	end(&b);
}

/* The thread has come back from the attempt before, or has not: the next one gets its full time. */
static void a_kick_does_not_cut_the_next_attempt_short(void **state)
{
	struct bench b;

	(void)state;
	for (int i = 0; i < 5; i++) {
		uint64_t began = now_ns();

		begin(&b, "192.0.2.9", 27);
		connector_want(b.c, false);
		assert_null(wait_for(&b, 3000 * SLOWNESS));
		assert_in_range(now_ns() - began, 450 * MS, UINT64_MAX);
		end(&b);
	}
}

static void no_answer_for_long_is_tried_again_when_there_are_news(void **state)
{
	struct stream *s;
	struct bench b;
	struct net_address a;
	int listener;

	(void)state;
	listener = listen_everywhere(&a);
	begin(&b, "192.0.2.9", ntohs(((struct sockaddr_in *)&a.sa)->sin_port));
	connector_want(b.c, true);
	/* in the third attempt, which is to take two seconds, after its second packet */
	assert_null(wait_for(&b, 2800));
	assert_true(connector_busy(b.c));
	run("ip addr add 192.0.2.9/32 dev lo");
	s = wait_for(&b, 500 * SLOWNESS); /* and not when the attempt of now is over */
	assert_non_null(s);
	stream_free(s);
	run("ip addr del 192.0.2.9/32 dev lo");
	close(listener);
	end(&b);
}

/* Wherever it is: connecting, pausing, idle, or with something that nobody has taken. */
static void it_stops_at_once(void **state)
{
	struct net_address a;
	uint16_t port = quiet_port(&a);
	struct error e = {0};
	uint64_t began;
	struct bench b;
	int listener;

	(void)state;
	for (int i = 0; i < 8; i++) {
		begin(&b, i & 1 ? "192.0.2.9" : "127.0.0.1", port);
		connector_want(b.c, i & 2);
		usleep(i & 4 ? 50000 : 700000);
		began = now_ns();
		end(&b);
		assert_in_range(now_ns() - began, 0, 100 * SLOWNESS * MS);
	}
	listener = net_listen(&a, &e);
	begin(&b, "127.0.0.1", port);
	connector_want(b.c, true);
	wait_until(connector_busy(b.c));
	usleep(50000);
	end(&b);
	close(listener);
	begin(&b, "127.0.0.1", port);
	end(&b);
	connector_free(NULL);
}

static void one_thread_can_connect_by_itself(void **state)
{
	struct net_address a;
	struct peer p = {0};
	struct error e = {0};
	int listener = tcp_listen(&a);
	struct stream *s;

	(void)state;
	p.address = a;
	s = peer_connect(&p, 1000, &e);
	assert_non_null(s);
	stream_free(s);
	close(listener);
	assert_null(peer_connect(&p, 1000, &e));
	assert_int_equal(e.code, -ECONNREFUSED);
	assert_int_equal(net_resolve(&p.address, "192.0.2.9", 27, &e), 0);
	assert_null(peer_connect(&p, 50, &e));
	assert_int_equal(e.code, -ETIMEDOUT);
	assert_string_equal(e.text, "192.0.2.9:27: no answer within 50 ms: Connection timed out");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_attempt_is_one_attempt),
		cmocka_unit_test(a_connection_is_delivered),
		cmocka_unit_test(a_server_that_comes_later_is_found_within_half_a_second),
		cmocka_unit_test(news_of_the_network_are_acted_upon_at_once),
		cmocka_unit_test(no_answer_is_a_failure_after_a_while),
		cmocka_unit_test(a_kick_does_not_cut_the_next_attempt_short),
		cmocka_unit_test(no_answer_for_long_is_tried_again_when_there_are_news),
		cmocka_unit_test(it_stops_at_once),
		cmocka_unit_test(one_thread_can_connect_by_itself),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
