// SPDX-License-Identifier: GPL-2.0-or-later
/* Addresses (net.h): what is understood, what it is called, who can reach it. */
#include "unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "compiler.h"
#include "net.h"

static void numbers_and_names_are_resolved(void **state)
{
	static const struct {
		const char *host;
		int family;
		const char *text;
		bool local;
	} good[] = {
		{"192.0.2.1", AF_INET, "192.0.2.1:27", false},
		{"127.3.2.1", AF_INET, "127.3.2.1:27", true},
		{"2001:db8::1", AF_INET6, "[2001:db8::1]:27", false},
		{"::1", AF_INET6, "[::1]:27", true},
		{"::ffff:127.0.0.1", AF_INET6, "[::ffff:127.0.0.1]:27", true},
		{"::ffff:192.0.2.1", AF_INET6, "[::ffff:192.0.2.1]:27", false},
		{"localhost", AF_INET, "127.0.0.1:27", true},
		{"0.0.0.0", AF_INET, "0.0.0.0:27", false},
		{"::", AF_INET6, "[::]:27", false},
		{NULL, AF_INET, "0.0.0.0:27", false},
		{"/run/ps.sock", AF_UNIX, "/run/ps.sock", true},
		{"./ps.sock", AF_UNIX, "./ps.sock", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct error e = {0};
		struct net_address a;

		if (net_resolve(&a, good[i].host, 27, &e))
			fail_msg("%s", e.text);
		assert_int_equal(a.sa.ss_family, good[i].family);
		assert_string_equal(a.text, good[i].text);
		assert_int_equal(net_is_local(&a), good[i].local);
	}
}

static void what_is_nowhere_is_refused_by_name(void **state)
{
	struct net_address a;
	struct error e = {0};
	char path[256];

	(void)state;
	assert_int_equal(net_resolve(&a, "no such host", 27, &e), -EADDRNOTAVAIL);
	assert_non_null(strstr(e.text, "no such host: "));
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(struct sockaddr_un) - sizeof(sa_family_t)] = 0;
	assert_int_equal(net_resolve(&a, path, 27, &e), -ENAMETOOLONG);
	path[sizeof(struct sockaddr_un) - sizeof(sa_family_t) - 1] = 0;
	assert_int_equal(net_resolve(&a, path, 27, &e), 0);
}

static void one_word_names_host_and_port(void **state)
{
	static const char *const good[][2] = {
		{"192.0.2.1:27", "192.0.2.1:27"},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535"},
		{"localhost:1", "127.0.0.1:1"},
		{"/run/a:1", "/run/a:1"},
		{"./a", "./a"},
	};
	static const char *const bad[] = {
		"",	   "192.0.2.1", ":27",	 "192.0.2.1:", "192.0.2.1:0",
		"h:65536", "h:-1",	"h:+1",	 "h: 1",       "h:1x",
		"::1:27",  "[::1]",	"[]:27", "[::1:27",    "h:99999999999999999999",
		"h:27:27", "[::1]x:27",
	};
	struct net_address a;
	struct error e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (net_parse(&a, good[i][0], &e))
			fail_msg("%s", e.text);
		assert_string_equal(a.text, good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (net_parse(&a, bad[i], &e) == 0)
			fail_msg("%s: taken for %s", bad[i], a.text);
}

/* A byte from one end to the other. */
static void meet(const char *host)
{
	struct net_address a;
	struct error e = {0};
	_cleanup_close_ int listener = -1, client = -1, server = -1;
	struct pollfd p = {.events = POLLIN};
	char c = 0;

	if (net_resolve(&a, host, 0, &e) || (listener = net_listen(&a, &e)) < 0 ||
	    (client = net_connect(&a, &e)) < 0)
		fail_msg("%s", e.text);
	assert_null(strstr(a.text, ":0"));
	p.fd = listener;
	assert_int_equal(poll(&p, 1, 5000), 1);
	server = accept(listener, NULL, NULL);
	assert_int_equal(write(server, "x", 1), 1);
	p.fd = client;
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(client, &c, 1), 1);
	assert_int_equal(c, 'x');
}

static void who_connects_meets_who_listens(void **state)
{
	char dir[] = "/tmp/test-net-XXXXXX", path[64];

	(void)state;
	meet("127.0.0.1");
	meet("::1");
	meet(NULL);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	meet(path);
	meet(path); /* the file of before is there, and nobody listens on it */
	unlink(path);
	rmdir(dir);
}

static void an_address_in_use_and_a_file_are_left_alone(void **state)
{
	char dir[] = "/tmp/test-net-XXXXXX", path[64];
	_cleanup_close_ int listener = -1;
	struct net_address a, b;
	struct error e = {0};
	struct stat st;

	(void)state;
	assert_int_equal(net_resolve(&a, "127.0.0.1", 0, &e), 0);
	listener = net_listen(&a, &e);
	assert_true(listener >= 0);
	b = a;
	assert_int_equal(net_listen(&b, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, a.text));
	close(steal_fd(&listener));

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	assert_int_equal(net_resolve(&a, path, 0, &e), 0);
	listener = net_listen(&a, &e);
	assert_true(listener >= 0);
	assert_int_equal(net_listen(&a, &e), -EADDRINUSE);
	unlink(path);
	fclose(fopen(path, "w"));
	assert_int_equal(net_listen(&a, &e), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	unlink(path);
	assert_int_equal(net_connect(&a, &e), -ENOENT);
	assert_non_null(strstr(e.text, path));
	rmdir(dir);
}

/* Many clients at once on a unix socket: whoever finds no room is told to come again. */
static void a_full_queue_of_a_unix_socket_is_later(void **state)
{
	char path[64];
	_cleanup_close_ int listener = -1;
	struct net_address a;
	struct error e = {0};
	int fds[8], n = 0;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/test-net-%d.socket", getpid());
	assert_int_equal(net_resolve(&a, path, 0, &e), 0);
	listener = net_listen(&a, &e);
	listen(listener, 1);
	while (n < 8 && (fds[n] = net_connect(&a, &e)) >= 0)
		n++;
	assert_in_range(n, 1, 7);
	assert_int_equal(fds[n], -EAGAIN);
	while (n--)
		close(fds[n]);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_and_names_are_resolved),
		cmocka_unit_test(what_is_nowhere_is_refused_by_name),
		cmocka_unit_test(one_word_names_host_and_port),
		cmocka_unit_test(who_connects_meets_who_listens),
		cmocka_unit_test(an_address_in_use_and_a_file_are_left_alone),
		cmocka_unit_test(a_full_queue_of_a_unix_socket_is_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
