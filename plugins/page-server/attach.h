/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attach: stands in front of a `criu dump --lazy-pages` on this machine. Holds the one connection
 * that the dump takes, serves the frozen tasks' memory to any number of clients, and lets the dump
 * end only when one of them has confirmed that it holds everything, or aborts it. Set-up thread.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include "error.h"
#include "log.h"
#include "options.h"
#include "provider.h"
#include "serve.h"

struct attach;

/* Connects to o->attach and finds the tasks of the images. Clients are told of only after this. */
int attach_open(struct attach **out, const struct options *o, const struct log *log,
		struct error *e);
/* Belongs to @a. */
struct provider *attach_provider(struct attach *a);
void attach_hooks(struct attach *a, struct serve_hooks *hooks);
/* Behind serve_run(), which gave @status. Returns the exit status. */
int attach_close(struct attach *a, int status);

#endif
