// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS (tls.h, stream.h): who is let in, who is not and with which words; that data goes through
 * whole; and that an end is told from a cut.
 */
#include "tls_pki.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "tls_session.h"

#define BIG (16 << 20)

struct tls_pair {
	struct pair p;
	struct tls *client, *server;
};

static void connect_with(struct tls_pair *t, struct tls *client, struct tls *server,
			 const char *host, void (*make)(int fds[2]))
{
	int fds[2];

	make(fds);
	t->client = client;
	t->server = server;
	t->p.client = stream_new(fds[0], client, false, host);
	t->p.server = stream_new(fds[1], server, true, "never compared");
}

static void tls_pair_free(struct tls_pair *t)
{
	pair_free(&t->p);
	tls_free(t->client);
	tls_free(t->server);
}

/* A good pair, handshake done. */
static void connect_well(struct tls_pair *t, void (*make)(int fds[2]))
{
	struct handshake h;

	connect_with(t, pki_load("client", "ca", NULL, false),
		     pki_load("server", "ca", "crl.pem", false), "127.0.0.1", make);
	h = handshake(&t->p);
	if (h.client || h.server)
		fail_msg("client: %s; server: %s", h.client_error.text, h.server_error.text);
}

static void data_goes_through_both_ways(void (*make)(int fds[2]))
{
	_cleanup_free_ char *out = malloc(BIG), *in = malloc(BIG);
	struct random r = random_from(3, 1);
	size_t sent = 0, got = 0, late = 0;
	struct tls_pair t;
	ssize_t n;

	fill(&r, out, BIG);
	connect_well(&t, make);
	assert_int_equal(stream_read(t.p.server, in, 1), -EAGAIN);
	assert_int_equal(stream_events(t.p.server), EPOLLIN);
	for (int way = 0; way < 2; way++, sent = got = 0) {
		struct stream *from = way ? t.p.server : t.p.client;
		struct stream *to = way ? t.p.client : t.p.server;

		while (got < BIG) {
			n = sent < BIG ? stream_write(from, out + sent, BIG - sent, false) : 0;
			if (n > 0) {
				sent += (size_t)n;
				continue; /* until it is full */
			}
			assert_true(n == 0 || n == -EAGAIN);
			late += n == -EAGAIN;
			n = read_some(to, in + got, BIG - got);
			assert_true(n > 0);
			got += (size_t)n;
		}
		assert_memory_equal(in, out, BIG);
		memset(in, 0, BIG);
	}
	assert_true(late > 0);
	tls_pair_free(&t);
}

static void data_goes_through_by_tcp(void **state)
{
	(void)state;
	data_goes_through_both_ways(tcp_pair);
}

static void data_goes_through_by_unix(void **state)
{
	(void)state;
	data_goes_through_both_ways(unix_pair);
}

static void a_file_is_sent_encrypted(void **state)
{
	_cleanup_free_ char *out = malloc(BIG), *in = malloc(BIG);
	_cleanup_close_ int fd = memfd_create("pages", MFD_CLOEXEC);
	struct random r = random_from(4, 1);
	size_t sent = 4096, got = sent;
	struct tls_pair t;
	ssize_t n;

	(void)state;
	fill(&r, out, BIG);
	assert_int_equal(pwrite(fd, out, BIG, 0), BIG);
	connect_well(&t, tcp_pair);
	while (got < BIG) {
		n = sent < BIG ? stream_send_file(t.p.server, fd, sent, BIG - sent) : -EAGAIN;
		if (n > 0) {
			sent += (size_t)n;
			continue;
		}
		assert_int_equal(n, -EAGAIN);
		n = read_some(t.p.client, in + got, BIG - got);
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_memory_equal(in + 4096, out + 4096, BIG - 4096);
	assert_int_equal(stream_send_file(t.p.server, fd, BIG, 4096), -ENODATA);
	tls_pair_free(&t);
}

/* Waiting for the descriptor would be for ever: the bytes are in the stream. */
static void what_was_read_of_a_record_in_part_is_pending(void **state)
{
	struct tls_pair t;
	char room[4096] = {0};

	(void)state;
	connect_well(&t, tcp_pair);
	assert_false(stream_pending(t.p.server));
	write_all(t.p.client, room, sizeof(room));
	read_all(t.p.server, room, 32);
	assert_true(stream_pending(t.p.server));
	read_all(t.p.server, room, sizeof(room) - 32);
	assert_false(stream_pending(t.p.server));
	tls_pair_free(&t);
}

static void an_end_with_goodbye_is_zero_and_one_without_is_a_reset(void **state)
{
	struct tls_pair t;
	char room[8];

	(void)state;
	connect_well(&t, tcp_pair);
	assert_int_equal(stream_bye(t.p.client), 0);
	assert_int_equal(read_some(t.p.server, room, sizeof(room)), 0);
	write_all(t.p.server, "answer", 6);
	read_all(t.p.client, room, 6);
	assert_int_equal(stream_bye(t.p.server), 0);
	assert_int_equal(read_some(t.p.client, room, sizeof(room)), 0);
	tls_pair_free(&t);

	connect_well(&t, tcp_pair);
	shutdown(stream_fd(t.p.client), SHUT_WR);
	assert_int_equal(read_some(t.p.server, room, sizeof(room)), -ECONNRESET);
	tls_pair_free(&t);
}

/* Expects the client to say @words, and the server to hear of it. */
static void client_refuses(struct tls_pair *t, const char *words)
{
	struct handshake h = handshake(&t->p);

	assert_int_equal(h.client, -EACCES);
	if (!strstr(h.client_error.text, words))
		fail_msg("%s", h.client_error.text);
	assert_int_equal(h.server, -EACCES);
	assert_non_null(strstr(h.server_error.text, "the peer says"));
	tls_pair_free(t);
}

static void servers_that_do_not_do_are_refused(void **state)
{
	struct tls_pair t;

	(void)state;
	connect_with(&t, pki_load("client", "ca", NULL, false),
		     pki_load("stranger", "ca", NULL, false), "127.0.0.1", tcp_pair);
	client_refuses(&t, "issuer is unknown");
	connect_with(&t, pki_load("client", "other-ca", NULL, false),
		     pki_load("server", "ca", NULL, false), "127.0.0.1", tcp_pair);
	client_refuses(&t, "issuer is unknown");
	connect_with(&t, pki_load("client", "ca", NULL, false),
		     pki_load("server", "ca", NULL, false), "127.0.0.2", tcp_pair);
	client_refuses(&t, "does not do for 127.0.0.2");
	connect_with(&t, pki_load("client", "ca", NULL, false),
		     pki_load("client", "ca", NULL, false), "localhost", tcp_pair);
	client_refuses(&t, "does not do for localhost");
	connect_with(&t, pki_load("client", "ca", NULL, false),
		     pki_load("expired", "ca", NULL, false), "127.0.0.1", tcp_pair);
	client_refuses(&t, "expired");
	connect_with(&t, pki_load("client", "ca", "crl.pem", true),
		     pki_load("revoked", "ca", NULL, false), "127.0.0.1", tcp_pair);
	client_refuses(&t, "revoked");
}

static void accepted(struct tls_pair *t)
{
	struct handshake h = handshake(&t->p);
	char room[2];

	if (h.client || h.server)
		fail_msg("client: %s; server: %s", h.client_error.text, h.server_error.text);
	write_all(t->p.client, "ok", 2);
	read_all(t->p.server, room, 2);
	tls_pair_free(t);
}

static void a_name_is_compared_only_when_it_is_to_be(void **state)
{
	static const char *const hosts[] = {"127.0.0.1", "::1", "localhost"};
	struct tls_pair t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		connect_with(&t, pki_load("client", "ca", NULL, false),
			     pki_load("server", "ca", NULL, false), hosts[i], tcp_pair);
		accepted(&t);
	}
	connect_with(&t, pki_load("client", "ca", NULL, false),
		     pki_load("client", "ca", NULL, false), NULL, tcp_pair);
	accepted(&t);
	connect_with(&t, pki_load("client", "ca", NULL, true),
		     pki_load("client", "ca", NULL, false), "127.0.0.1", tcp_pair);
	accepted(&t);
	/* the list of revoked ones is what refuses */
	connect_with(&t, pki_load("client", "ca", NULL, true),
		     pki_load("revoked", "ca", NULL, false), "127.0.0.1", tcp_pair);
	accepted(&t);
}

/* Credentials that tls_load() does not make: authority only. */
static struct tls *without_certificate(void)
{
	struct tls *t = calloc(1, sizeof(*t));

	assert_int_equal(gnutls_certificate_allocate_credentials(&t->credentials), 0);
	assert_int_equal(gnutls_certificate_set_x509_trust_file(t->credentials, "ca.pem",
								GNUTLS_X509_FMT_PEM),
			 1);
	return t;
}

/* In TLS 1.3 a client has done with its handshake before it is refused. */
static void server_refuses(struct tls_pair *t, const char *words)
{
	struct handshake h = handshake(&t->p);
	char room[8];

	assert_int_equal(h.server, -EACCES);
	if (!strstr(h.server_error.text, words))
		fail_msg("%s", h.server_error.text);
	if (h.client == 0)
		h.client = (int)read_some(t->p.client, room, sizeof(room));
	assert_int_equal(h.client, -EACCES);
	tls_pair_free(t);
}

static void clients_that_do_not_do_are_refused(void **state)
{
	struct tls_pair t;

	(void)state;
	connect_with(&t, without_certificate(), pki_load("server", "ca", NULL, true), "127.0.0.1",
		     tcp_pair);
	server_refuses(&t, "no certificate");
	connect_with(&t, pki_load("revoked", "ca", NULL, false),
		     pki_load("server", "ca", "crl.pem", true), "127.0.0.1", tcp_pair);
	server_refuses(&t, "revoked");
	connect_with(&t, pki_load("expired", "ca", NULL, false),
		     pki_load("server", "ca", NULL, true), "127.0.0.1", tcp_pair);
	server_refuses(&t, "expired");
	connect_with(&t, pki_load("stranger", "ca", NULL, false),
		     pki_load("server", "ca", NULL, true), "127.0.0.1", tcp_pair);
	server_refuses(&t, "issuer is unknown");
}

static void load_fails(const struct options *o, const char *file)
{
	struct error e = {0};
	struct tls *t;

	assert_true(tls_load(&t, o, true, &e) < 0);
	assert_null(t);
	if (!strstr(e.text, file) || strlen(e.text) < strlen(file) + 10)
		fail_msg("%s", e.text);
}

static void files_that_do_not_do_are_named(void **state)
{
	static const struct {
		struct options o;
		const char *words;
	} bad[] = {
#define FILES(cert, key, ca, crl) \
	{.tls_cert = cert, .tls_key = key, .tls_cacert = ca, .tls_cacrl = crl}
		{FILES("none", "server-key.pem", "ca.pem", "crl.pem"), "none: No such file"},
		{FILES("server.pem", "none", "ca.pem", "crl.pem"), "none: No such file"},
		{FILES("server.pem", "server-key.pem", "none", "crl.pem"), "none: No such file"},
		{FILES("server.pem", "server-key.pem", "ca.pem", "none"), "none: No such file"},
		{FILES("ca-key.pem", "server-key.pem", "ca.pem", NULL), "ca-key.pem"},
		{FILES("server.pem", "client-key.pem", "ca.pem", NULL), "client-key.pem: "},
		{FILES("server.pem", "server-key.pem", "ca-key.pem", NULL), "ca-key.pem: "},
		{FILES("server.pem", "server-key.pem", "ca.pem", "ca-key.pem"), "ca-key.pem: "},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		load_fails(&bad[i].o, bad[i].words);
}

/* In a mount namespace of its own: /etc has what the test puts there. */
static int child_uses_default_files(void)
{
	const struct options none = {.tls = true};
	struct error e = {0};
	struct tls_pair t;
	struct tls *own;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/etc", "tmpfs", 0, NULL))
		return 1;
	load_fails(&none, "/etc/pki/criu/cert.pem");
	if (system("mkdir -p /etc/pki/CA /etc/pki/criu/private && "
		   "cp server.pem /etc/pki/criu/cert.pem && cp ca.pem /etc/pki/CA/cacert.pem && "
		   "cp server-key.pem /etc/pki/criu/private/key.pem") ||
	    tls_load(&own, &none, true, &e))
		return 2;
	connect_with(&t, pki_load("revoked", "ca", NULL, false), own, "127.0.0.1", tcp_pair);
	accepted(&t);
	if (system("cp crl.pem /etc/pki/CA/cacrl.pem") || tls_load(&own, &none, true, &e))
		return 3;
	connect_with(&t, pki_load("revoked", "ca", NULL, false), own, "127.0.0.1", tcp_pair);
	server_refuses(&t, "revoked");
	return 0;
}

static void without_options_the_files_are_those_of_stock_criu(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(child_uses_default_files());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_goes_through_by_tcp),
		cmocka_unit_test(data_goes_through_by_unix),
		cmocka_unit_test(a_file_is_sent_encrypted),
		cmocka_unit_test(what_was_read_of_a_record_in_part_is_pending),
		cmocka_unit_test(an_end_with_goodbye_is_zero_and_one_without_is_a_reset),
		cmocka_unit_test(servers_that_do_not_do_are_refused),
		cmocka_unit_test(a_name_is_compared_only_when_it_is_to_be),
		cmocka_unit_test(clients_that_do_not_do_are_refused),
		cmocka_unit_test(files_that_do_not_do_are_named),
		cmocka_unit_test(without_options_the_files_are_those_of_stock_criu),
	};

	return cmocka_run_group_tests(tests, pki_set_up, pki_tear_down);
}
