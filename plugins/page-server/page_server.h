/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page server: `criu-lazy-pages page-server` from its options to the exit status. Listens, tells
 * who waits that it does, and hands the rest to one of three:
 *
 *	receive.h	the default: images of one criu dump --page-server
 *	serve.h		--lazy-pages: images to lazy restores
 *	attach.h	--attach: serve.h over the memory of frozen tasks
 */
#ifndef PAGE_SERVER_H
#define PAGE_SERVER_H

#include "log.h"
#include "options.h"

/* Returns the exit status. The current directory is the work directory; one thread. */
int page_server_run(const struct options *o, struct log *log);

#endif
