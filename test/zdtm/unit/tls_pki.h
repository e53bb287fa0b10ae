/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Certificates of make-pki in a directory of their own, and streams that use them. */
#ifndef TLS_PKI_H
#define TLS_PKI_H

#include "stream_pair.h"

#include "options.h"
#include "tls.h"

/* The test's directory is where the files are. */
static inline int pki_set_up(void **state)
{
	char dir[] = "/tmp/test-pki-XXXXXX", command[512];

	assert_non_null(mkdtemp(dir));
	snprintf(command, sizeof(command), "%.*s../make-pki %s",
		 (int)(strrchr(__FILE__, '/') + 1 - __FILE__), __FILE__, dir);
	if (system(command))
		fail_msg("%s: run tests in the top directory", command);
	assert_int_equal(chdir(dir), 0);
	*state = strdup(dir);
	return 0;
}

static inline int pki_tear_down(void **state)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", (char *)*state);
	assert_int_equal(system(command), 0);
	free(*state);
	return 0;
}

/* What --tls-cert NAME.pem --tls-key NAME-key.pem --tls-cacert CA.pem loads. */
static inline struct tls *pki_load(const char *name, const char *ca, const char *crl,
				   bool no_cn_verify)
{
	char cert[32], key[32], cacert[32];
	const struct options o = {.tls = true,
				  .tls_no_cn_verify = no_cn_verify,
				  .tls_cert = cert,
				  .tls_key = key,
				  .tls_cacert = cacert,
				  .tls_cacrl = crl};
	struct error e = {0};
	struct tls *t;

	snprintf(cert, sizeof(cert), "%s.pem", name);
	snprintf(key, sizeof(key), "%s-key.pem", name);
	snprintf(cacert, sizeof(cacert), "%s.pem", ca);
	if (tls_load(&t, &o, false, &e))
		fail_msg("%s", e.text);
	return t;
}

/* One step of each side's handshake; what is -EAGAIN is tried again. Both errors are kept. */
struct handshake {
	int client, server;
	struct error client_error, server_error;
};

static inline void handshake_step(struct pair *p, struct handshake *h)
{
	if (h->client == -EAGAIN)
		h->client = stream_handshake(p->client, &h->client_error);
	if (h->server == -EAGAIN)
		h->server = stream_handshake(p->server, &h->server_error);
}

static inline struct handshake handshake(struct pair *p)
{
	struct handshake h = {.client = -EAGAIN, .server = -EAGAIN};

	for (int i = 0; i < 10000 && (h.client == -EAGAIN || h.server == -EAGAIN); i++) {
		handshake_step(p, &h);
		if (h.client == -EAGAIN && h.server == -EAGAIN)
			usleep(100);
		/* one that has failed is closed by whoever has it; so does the test's end */
		if (h.client == -EAGAIN && h.server < 0 && h.server != -EAGAIN)
			shutdown(stream_fd(p->server), SHUT_RDWR);
		if (h.server == -EAGAIN && h.client < 0 && h.client != -EAGAIN)
			shutdown(stream_fd(p->client), SHUT_RDWR);
	}
	assert_int_not_equal(h.client, -EAGAIN);
	assert_int_not_equal(h.server, -EAGAIN);
	return h;
}

#endif
