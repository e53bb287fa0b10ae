/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS session: what stream.c does with a connection that has credentials. Only stream.c includes
 * this. All of it returns as stream.h says, and puts into *events what an -EAGAIN waits for.
 */
#ifndef CRIU_TLS_SESSION_H
#define CRIU_TLS_SESSION_H

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

#define TLS_RECORD_MAX 16384

/* The credentials of tls.h. */
struct tls {
	gnutls_certificate_credentials_t credentials;
	bool verify_name;
};

struct tls_session;

/* @fd stays the caller's. @host is copied. */
struct tls_session *tls_session_new(int fd, struct tls *t, bool server, const char *host);
void tls_session_free(struct tls_session *t);
int tls_session_handshake(struct tls_session *t, uint32_t *events, struct error *e);
ssize_t tls_session_read(struct tls_session *t, void *to, size_t len, uint32_t *events);
/* Each call makes a record of its own: see stream_has_records(). */
ssize_t tls_session_write(struct tls_session *t, const void *from, size_t len, bool more,
			  uint32_t *events);
bool tls_session_pending(const struct tls_session *t);
int tls_session_bye(struct tls_session *t, uint32_t *events);

#endif
