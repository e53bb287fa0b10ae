/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a page server that serves says at its end: in the log, on standard output, as JSON. */
#ifndef SERVE_SUMMARY_H
#define SERVE_SUMMARY_H

#include <stdint.h>

#include "log.h"
#include "options.h"
#include "serve_worker.h"

/* @took_ns: from when it listened to now. */
void serve_summary(const struct options *o, const struct log *log, const struct serve_count *n,
		   uint64_t took_ns);

#endif
