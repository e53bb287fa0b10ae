// SPDX-License-Identifier: GPL-2.0-or-later
/* Set-up of the page server: see page_server.h. */
#include "page_server.h"

int page_server_run(const struct options *o, struct log *log)
{
	(void)o;
	log_error(log, "not built in yet; use the page-server of criu");
	return 1;
}
