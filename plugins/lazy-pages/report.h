/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Report: what the manager tells a person: the progress line on a terminal, the summary at the end,
 * the same as JSON, and the document of the control socket. Reads counters without a lock; a
 * number may be a moment old. Control thread only.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stdint.h>

struct worker;
struct json_object;

/* The document of control.h. */
void report_status(const struct worker *w, struct json_object *into);
/* One line to stderr, over the last one. @last_bytes and @last_ns carry the rate along. */
struct report_progress {
	uint64_t last_ns, last_bytes;
	bool shown;
};
void report_progress(const struct worker *w, struct report_progress *p);
/* At the end: to the log, and to options->json_file. */
void report_summary(const struct worker *w);

#endif
