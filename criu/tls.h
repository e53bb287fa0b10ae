/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials, X.509 on both sides, with the files and defaults of stock CRIU. Once loaded
 * immutable; shared by all streams and threads.
 */
#ifndef CRIU_TLS_H
#define CRIU_TLS_H

#include <stdbool.h>

#include "error.h"

struct options;
struct tls;

/* Loads what --tls-* name, or the default files. Errors name the file. 0 or -errno. */
int tls_load(struct tls **out, const struct options *o, bool server, struct error *e);
void tls_free(struct tls *t);

#endif
