/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Under the name `criu` we take over the actions that are ours; all others belong to the real CRIU,
 * which gets arguments, descriptors and signal dispositions just as they came. So: to be called
 * before anything has been opened or changed in this process.
 */
#ifndef CRIU_PASSTHROUGH_H
#define CRIU_PASSTHROUGH_H

#include <stddef.h>

#include "error.h"

/* Exit statuses, as a shell has them. */
#define EXIT_CANNOT_EXECUTE 126
#define EXIT_NOT_FOUND	    127

/*
 * The path of the real CRIU: $CRIU_REAL, else the next `criu` in $PATH that is not this very
 * program, however many links lead to it. -ENOENT when there is none, -ELOOP when $CRIU_REAL is us.
 */
int passthrough_find(char *path, size_t size, struct error *e);

/* Becomes the real CRIU. Returns an exit status after a message when that fails. */
int passthrough_exec(char **argv);

#endif
