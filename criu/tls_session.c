// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS of one connection, by GnuTLS: see tls_session.h. The peer's certificate is verified within
 * the handshake, on both sides; a client that has none is refused. A connection that ends without
 * TLS's goodbye was cut: that is a reset, never an orderly end.
 */
#include "tls_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "compiler.h"

/* What a peer may send between two pieces of data and is no data: warnings. */
#define IDLE_RECORDS_MAX 16

struct tls_session {
	int fd;
	bool server;
	bool more;
	bool ended;	/* the socket has; whether TLS has is another thing */
	bool ready;	/* the handshake is done */
	int io_errno;	/* of the last call that failed on the socket */
	char host[256]; /* "": not compared */
	gnutls_session_t gnutls;
};

static ssize_t pull(gnutls_transport_ptr_t p, void *to, size_t len)
{
	struct tls_session *t = p;
	ssize_t n = recv(t->fd, to, len, 0);

	t->ended = n == 0;
	if (n < 0) {
		t->io_errno = errno;
		gnutls_transport_set_errno(t->gnutls, errno);
	}
	return n;
}

static ssize_t push(gnutls_transport_ptr_t p, const giovec_t *iov, int n)
{
	struct tls_session *t = p;
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	ssize_t done = sendmsg(t->fd, &m, MSG_NOSIGNAL | (t->more ? MSG_MORE : 0));

	if (done < 0) {
		t->io_errno = errno;
		gnutls_transport_set_errno(t->gnutls, errno);
	}
	return done;
}

static bool is_number(const char *host)
{
	char room[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, room) == 1 || inet_pton(AF_INET6, host, room) == 1;
}

static int set_up(struct tls_session *t, struct tls *with)
{
	gnutls_session_t g = t->gnutls;
	const char *host = t->host[0] ? t->host : NULL;
	int ret = gnutls_set_default_priority(g);

	if (ret == 0)
		ret = gnutls_credentials_set(g, GNUTLS_CRD_CERTIFICATE, with->credentials);
	if (ret == 0 && host && !is_number(host))
		ret = gnutls_server_name_set(g, GNUTLS_NAME_DNS, host, strlen(host));
	if (ret < 0)
		return ret;
	gnutls_session_set_verify_cert(g, host, 0);
	if (t->server) {
		gnutls_certificate_server_set_request(g, GNUTLS_CERT_REQUIRE);
		/* Told who is trusted, a client with another's certificate would send none. */
		gnutls_certificate_send_x509_rdn_sequence(g, 1);
	}
	gnutls_transport_set_ptr(g, t);
	gnutls_transport_set_pull_function(g, pull);
	gnutls_transport_set_vec_push_function(g, push);
	return 0;
}

struct tls_session *tls_session_new(int fd, struct tls *with, bool server, const char *host)
{
	struct tls_session *t = calloc(1, sizeof(*t));
	unsigned side = server ? GNUTLS_SERVER : GNUTLS_CLIENT;

	if (!t)
		return NULL;
	t->fd = fd;
	t->server = server;
	/* A name that does not fit is no certificate's: cut, it will not match. */
	if (!server && host && with->verify_name)
		strncpy(t->host, host, sizeof(t->host) - 1);
	if (gnutls_init(&t->gnutls, side | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS) < 0) {
		free(t);
		return NULL;
	}
	if (set_up(t, with) < 0) {
		tls_session_free(t);
		return NULL;
	}
	return t;
}

void tls_session_free(struct tls_session *t)
{
	if (!t)
		return;
	gnutls_deinit(t->gnutls);
	free(t);
}

static int wait_for(const struct tls_session *t, uint32_t *events)
{
	*events = gnutls_record_get_direction(t->gnutls) ? EPOLLOUT : EPOLLIN;
	return -EAGAIN;
}

/* Alerts that say that the peer does not like our certificate, or that we sent none. */
static bool alert_is_refusal(gnutls_alert_description_t alert)
{
	switch (alert) {
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
		return true;
	default:
		return false;
	}
}

static int to_errno(const struct tls_session *t, int ret)
{
	switch (ret) {
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return t->io_errno ? -t->io_errno : -EIO;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_is_refusal(gnutls_alert_get(t->gnutls)) ? -EACCES : -EPROTO;
	case GNUTLS_E_CERTIFICATE_ERROR:
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return -EACCES;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	default:
		return t->ended ? -ECONNRESET : -EPROTO;
	}
}

/* "the certificate is NOT trusted. The certificate issuer is unknown." in GnuTLS's own words. */
static int refused(const struct tls_session *t, struct error *e)
{
	unsigned status = gnutls_session_get_verify_cert_status(t->gnutls);
	const char *peer = t->server ? "client" : "server";
	gnutls_datum_t words = {0};

	if (gnutls_certificate_verification_status_print(
		    status, gnutls_certificate_type_get(t->gnutls), &words, 0) < 0)
		return error_set(e, -EACCES, "TLS: the %s's certificate does not verify", peer);
	error_set(e, -EACCES, "TLS: the %s's certificate%s%s: %s", peer,
		  t->host[0] ? " does not do for " : "", t->host, (char *)words.data);
	gnutls_free(words.data);
	return -EACCES;
}

static int handshake_failed(const struct tls_session *t, int ret, struct error *e)
{
	int code = to_errno(t, ret);

	switch (ret) {
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		return refused(t, e);
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return error_set(e, code, "TLS handshake: the peer says: %s",
				 gnutls_alert_get_name(gnutls_alert_get(t->gnutls)));
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return error_errno(e, code, "TLS handshake");
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return error_set(e, code, "TLS handshake: the peer has sent no certificate");
	default:
		return error_set(e, code, "TLS handshake: %s",
				 t->ended ? "the peer has closed the connection"
					  : gnutls_strerror(ret));
	}
}

/* Neither data nor an end. */
static bool is_interruption(ssize_t ret)
{
	return ret == GNUTLS_E_INTERRUPTED || ret == GNUTLS_E_WARNING_ALERT_RECEIVED;
}

int tls_session_handshake(struct tls_session *t, uint32_t *events, struct error *e)
{
	int ret = GNUTLS_E_INTERRUPTED;

	if (t->ready)
		return 0;
	/* A peer could go on with warnings for ever, and others wait for this thread. */
	for (int i = 0; i < IDLE_RECORDS_MAX && is_interruption(ret); i++)
		ret = gnutls_handshake(t->gnutls);
	if (ret == GNUTLS_E_AGAIN)
		return wait_for(t, events);
	if (ret == 0) {
		t->ready = true;
		return 0;
	}
	/* So that the peer knows why. If it cannot be sent now, it is not sent. */
	gnutls_alert_send_appropriate(t->gnutls, ret);
	return handshake_failed(t, ret, e);
}

ssize_t tls_session_read(struct tls_session *t, void *to, size_t len, uint32_t *events)
{
	ssize_t ret;

	for (int i = 0; i < IDLE_RECORDS_MAX; i++) {
		ret = gnutls_record_recv(t->gnutls, to, len);
		if (ret >= 0)
			return ret;
		if (ret == GNUTLS_E_AGAIN)
			return wait_for(t, events);
		if (!is_interruption(ret))
			return to_errno(t, (int)ret);
	}
	return -EPROTO;
}

/* A record that could not be sent stays with GnuTLS, which then does not look at @from again. */
ssize_t tls_session_write(struct tls_session *t, const void *from, size_t len, bool more,
			  uint32_t *events)
{
	ssize_t ret;

	t->more = more || len > TLS_RECORD_MAX;
	do
		ret = gnutls_record_send(t->gnutls, from, MIN(len, (size_t)TLS_RECORD_MAX));
	while (ret == GNUTLS_E_INTERRUPTED);
	t->more = false;
	if (ret >= 0)
		return ret;
	return ret == GNUTLS_E_AGAIN ? wait_for(t, events) : to_errno(t, (int)ret);
}

bool tls_session_pending(const struct tls_session *t)
{
	return gnutls_record_check_pending(t->gnutls) > 0;
}

int tls_session_bye(struct tls_session *t, uint32_t *events)
{
	int ret;

	if (!t->ready)
		return 0;
	do
		ret = gnutls_bye(t->gnutls, GNUTLS_SHUT_WR);
	while (ret == GNUTLS_E_INTERRUPTED);
	if (ret == GNUTLS_E_AGAIN)
		return wait_for(t, events);
	return ret < 0 ? to_errno(t, ret) : 0;
}
