/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Manager: `criu-lazy-pages lazy-pages` from loading the images to the exit status. Sets up what
 * keeper and worker share and becomes the keeper.
 */
#ifndef MANAGER_H
#define MANAGER_H

#include "log.h"
#include "options.h"

/* Returns the exit status. The current directory is the work directory; one thread. */
int manager_run(const struct options *o, struct log *log);

#endif
