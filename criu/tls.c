// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS credentials out of PEM files: see tls.h. As with stock CRIU, a file that was named must be
 * there and good; of the default files, the authority's may be missing (the system's authorities
 * are trusted beside it) and so may the revocation list.
 */
#include "tls.h"

#include <errno.h>
#include <stdlib.h>

#include "compiler.h"
#include "options.h"
#include "tls_session.h"

#define DEFAULT_CACERT "/etc/pki/CA/cacert.pem"
#define DEFAULT_CACRL  "/etc/pki/CA/cacrl.pem"
#define DEFAULT_CERT   "/etc/pki/criu/cert.pem"
#define DEFAULT_KEY    "/etc/pki/criu/private/key.pem"

static int failed(struct error *e, const char *file, int ret)
{
	return error_set(e, -EINVAL, "TLS: %s: %s", file, gnutls_strerror(ret));
}

static int readable(const char *file, struct error *e)
{
	return access(file, R_OK) ? error_errno(e, -errno, "TLS: %s", file) : 0;
}

static int load_authority(struct tls *t, const char *named, struct error *e)
{
	const char *file = named ? named : DEFAULT_CACERT;
	int ret;

	if (!named) {
		ret = gnutls_certificate_set_x509_system_trust(t->credentials);
		if (ret < 0)
			return failed(e, "the system's authorities", ret);
		if (access(file, F_OK))
			return 0;
	}
	ret = readable(file, e);
	if (ret)
		return ret;
	ret = gnutls_certificate_set_x509_trust_file(t->credentials, file, GNUTLS_X509_FMT_PEM);
	if (ret < 0)
		return failed(e, file, ret);
	return ret ? 0 : error_set(e, -EINVAL, "TLS: %s: no certificate in it", file);
}

static int load_revoked(struct tls *t, const char *named, struct error *e)
{
	const char *file = named ? named : DEFAULT_CACRL;
	int ret;

	if (!named && access(file, F_OK))
		return 0;
	ret = readable(file, e);
	if (ret)
		return ret;
	ret = gnutls_certificate_set_x509_crl_file(t->credentials, file, GNUTLS_X509_FMT_PEM);
	return ret < 0 ? failed(e, file, ret) : 0;
}

static int load_own(struct tls *t, const char *cert, const char *key, struct error *e)
{
	int ret;

	cert = cert ? cert : DEFAULT_CERT;
	key = key ? key : DEFAULT_KEY;
	ret = readable(cert, e);
	if (ret == 0)
		ret = readable(key, e);
	if (ret)
		return ret;
	ret = gnutls_certificate_set_x509_key_file(t->credentials, cert, key, GNUTLS_X509_FMT_PEM);
	if (ret < 0)
		return error_set(e, -EINVAL, "TLS: %s with key %s: %s", cert, key,
				 gnutls_strerror(ret));
	return 0;
}

int tls_load(struct tls **out, const struct options *o, bool server, struct error *e)
{
	struct tls *t = calloc(1, sizeof(*t));
	int ret;

	(void)server; /* both sides need all of it */
	*out = NULL;
	if (!t || gnutls_certificate_allocate_credentials(&t->credentials) < 0) {
		free(t);
		return error_errno(e, -ENOMEM, "TLS");
	}
	t->verify_name = !o->tls_no_cn_verify;
	ret = load_authority(t, o->tls_cacert, e);
	if (ret == 0)
		ret = load_revoked(t, o->tls_cacrl, e);
	if (ret == 0)
		ret = load_own(t, o->tls_cert, o->tls_key, e);
	if (ret) {
		tls_free(t);
		return ret;
	}
	*out = t;
	return 0;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	gnutls_certificate_free_credentials(t->credentials);
	free(t);
}
