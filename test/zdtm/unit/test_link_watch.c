// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Link watch (link_watch.h), in a network namespace of its own: what comes is news, what goes is
 * not, and where nothing happens nothing is heard.
 */
#include "unit.h"

#include <poll.h>
#include <sched.h>

#include "compiler.h"
#include "link_watch.h"

static void run(const char *command)
{
	if (system(command))
		fail_msg("%s", command);
}

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	run("ip link set lo up");
	/* no routers, no duplicates: what the test does is all that happens */
	run("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
	return 0;
}

static bool readable(struct link_watch *w, int ms)
{
	struct pollfd p = {.fd = link_watch_fd(w), .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

/* Whether good news come before it has been quiet for a while. */
static bool news(struct link_watch *w)
{
	bool good = false;

	while (readable(w, 300))
		good |= link_watch_read(w);
	return good;
}

/* What the test has done before has been heard. */
static struct link_watch *watch(void)
{
	struct error e = {0};
	struct link_watch *w = link_watch_open(&e);

	if (!w)
		fail_msg("%s", e.text);
	news(w);
	return w;
}

static void a_link_that_comes_up_is_news_and_one_that_goes_down_is_not(void **state)
{
	struct link_watch *w;

	(void)state;
	run("ip link add name veth0 type veth peer name veth1 && ip link set veth1 up");
	w = watch();
	assert_false(readable(w, 300));
	run("ip link set veth0 up");
	assert_true(news(w));
	run("ip link set veth0 down");
	assert_true(readable(w, 1000));
	assert_false(news(w));
	run("ip link set veth0 up");
	assert_true(news(w));
	/* its other end: no carrier */
	run("ip link set veth1 down");
	assert_true(readable(w, 1000));
	assert_false(news(w));
	run("ip link set veth1 up");
	assert_true(news(w));
	link_watch_close(w);
	run("ip link del veth0");
}

static void addresses_and_routes_are_news_when_they_come(void **state)
{
	static const char *const come_and_go[][2] = {
		{"ip addr add 192.0.2.1/24 dev veth0", "ip addr del 192.0.2.1/24 dev veth0"},
		{"ip addr add 2001:db8::1/64 dev veth0", "ip addr del 2001:db8::1/64 dev veth0"},
		{"ip route add 198.51.100.0/24 dev veth0",
		 "ip route del 198.51.100.0/24 dev veth0"},
		{"ip route add 2001:db8:1::/64 dev veth0",
		 "ip route del 2001:db8:1::/64 dev veth0"},
	};
	struct link_watch *w;

	(void)state;
	run("ip link add name veth0 type veth peer name veth1 && ip link set veth1 up && "
	    "ip link set veth0 up");
	w = watch();
	for (size_t i = 0; i < ARRAY_SIZE(come_and_go); i++) {
		run(come_and_go[i][0]);
		if (!news(w))
			fail_msg("%s: no news", come_and_go[i][0]);
		run(come_and_go[i][1]);
		assert_true(readable(w, 1000));
		if (news(w))
			fail_msg("%s: good news", come_and_go[i][1]);
	}
	link_watch_close(w);
	run("ip link del veth0");
}

/* More than the socket holds: some may have been good. */
static void what_was_lost_counts_as_news(void **state)
{
	struct link_watch *w = watch();

	(void)state;
	run("ip link add name veth0 type veth peer name veth1 && ip link set veth1 up && "
	    "ip link set veth0 up");
	run("{ for i in 1 2 3 4 5 6 7 8; do for k in $(seq 200); do"
	    " echo addr add 10.0.$i.$k/32 dev veth0; done; done; } | ip -batch -");
	news(w);
	run("for i in 1 2 3 4 5 6 7 8; do for k in $(seq 200); do"
	    " echo addr del 10.0.$i.$k/32 dev veth0; done; done | ip -batch -");
	assert_true(news(w));
	link_watch_close(w);
	run("ip link del veth0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_link_that_comes_up_is_news_and_one_that_goes_down_is_not),
		cmocka_unit_test(addresses_and_routes_are_news_when_they_come),
		cmocka_unit_test(what_was_lost_counts_as_news),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
