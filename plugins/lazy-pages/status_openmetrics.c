// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The managers' documents as OpenMetrics text: every family once, with a sample for each manager,
 * and an end marker, as the format wants it. See status.h.
 */
#include "status.h"

#include <json-c/json.h>
#include <string.h>

#include "compiler.h"

#define PREFIX "criu_lazy_pages_"

struct exposition {
	FILE *out;
	struct json_object *const *documents;
	size_t count;
};

static void family(const struct exposition *x, const char *name, const char *type, const char *help)
{
	fprintf(x->out, "# TYPE " PREFIX "%s %s\n# HELP " PREFIX "%s %s\n", name, type, name, help);
}

/* The labels that every sample has; a label's value has \, " and line ends escaped. */
static void labels(const struct exposition *x, struct json_object *document)
{
	fprintf(x->out, "{manager=\"%llu\",images=\"",
		(unsigned long long)status_number(document, "pid", NULL));
	for (const char *s = status_text(document, "images"); *s; s++) {
		if (*s == '\n')
			fputs("\\n", x->out);
		else if (*s == '"' || *s == '\\')
			fprintf(x->out, "\\%c", *s);
		else
			fputc(*s, x->out);
	}
	fputc('"', x->out);
}

/* One sample a manager; @suffix "_total" for counters. */
static void numbers(const struct exposition *x, const char *name, const char *suffix,
		    const char *key, const char *sub)
{
	for (size_t i = 0; i < x->count; i++) {
		fprintf(x->out, PREFIX "%s%s", name, suffix);
		labels(x, x->documents[i]);
		fprintf(x->out, "} %llu\n",
			(unsigned long long)status_number(x->documents[i], key, sub));
	}
}

static void pages_settled(const struct exposition *x)
{
	static const char *const outcomes[] = {"fault", "neighbour", "background", "already_there",
					       "forgiven"};

	family(x, "pages", "counter", "Pages that are no longer owed, by what became of them.");
	for (size_t i = 0; i < x->count; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(outcomes); k++) {
			fprintf(x->out, PREFIX "pages_total");
			labels(x, x->documents[i]);
			fprintf(x->out, ",outcome=\"%s\"} %llu\n", outcomes[k],
				(unsigned long long)status_number(x->documents[i], "pages",
								  outcomes[k]));
		}
	}
}

static void gauges(const struct exposition *x)
{
	struct json_object *tasks;

	family(x, "pages_left", "gauge", "Pages that are still owed.");
	for (size_t i = 0; i < x->count; i++) {
		fprintf(x->out, PREFIX "pages_left");
		labels(x, x->documents[i]);
		fprintf(x->out, "} %llu\n", (unsigned long long)status_pages_left(x->documents[i]));
	}
	family(x, "tasks", "gauge", "Tasks that the manager serves.");
	for (size_t i = 0; i < x->count; i++) {
		fprintf(x->out, PREFIX "tasks");
		labels(x, x->documents[i]);
		fprintf(x->out, "} %zu\n", status_tasks(x->documents[i], &tasks));
	}
}

/* Only managers that have a page server. */
static void links(const struct exposition *x)
{
	struct json_object *link, *state;

	family(x, "page_server_up", "gauge", "Whether the link to the page server is there.");
	for (size_t i = 0; i < x->count; i++) {
		if (!json_object_object_get_ex(x->documents[i], "page_server", &link) ||
		    !json_object_object_get_ex(link, "state", &state))
			continue;
		fprintf(x->out, PREFIX "page_server_up");
		labels(x, x->documents[i]);
		fprintf(x->out, "} %d\n", !strcmp(json_object_get_string(state), "up"));
	}
	family(x, "page_server_losses", "counter", "How often that link was lost.");
	for (size_t i = 0; i < x->count; i++) {
		if (!json_object_object_get_ex(x->documents[i], "page_server", &link))
			continue;
		fprintf(x->out, PREFIX "page_server_losses_total");
		labels(x, x->documents[i]);
		fprintf(x->out, "} %llu\n",
			(unsigned long long)status_number(x->documents[i], "page_server",
							  "lost_times"));
	}
}

/* Bucket i ends, exclusively, at 2^(i+1) ns; whole nanoseconds make that no difference. */
static void stalls_of(const struct exposition *x, struct json_object *document)
{
	uint64_t sum = 0, count = status_number(document, "latency", "count");
	struct json_object *latency, *buckets;

	if (!json_object_object_get_ex(document, "latency", &latency) ||
	    !json_object_object_get_ex(latency, "buckets", &buckets) ||
	    !json_object_is_type(buckets, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(buckets); i++) {
		sum += json_object_get_uint64(json_object_array_get_idx(buckets, i));
		fprintf(x->out, PREFIX "stall_seconds_bucket");
		labels(x, document);
		fprintf(x->out, ",le=\"%.9g\"} %llu\n", (double)(UINT64_C(2) << i) / 1e9,
			(unsigned long long)sum);
	}
	/* The counters are read while they grow: the histogram must agree with itself. */
	count = MAX(count, sum);
	fprintf(x->out, PREFIX "stall_seconds_bucket");
	labels(x, document);
	fprintf(x->out, ",le=\"+Inf\"} %llu\n" PREFIX "stall_seconds_count",
		(unsigned long long)count);
	labels(x, document);
	fprintf(x->out, "} %llu\n" PREFIX "stall_seconds_sum", (unsigned long long)count);
	labels(x, document);
	fprintf(x->out, "} %.9f\n", (double)status_number(document, "latency", "sum_ns") / 1e9);
}

void status_openmetrics(FILE *out, struct json_object *const *documents, size_t count)
{
	const struct exposition x = {out, documents, count};

	family(&x, "bytes", "counter", "Memory brought in.");
	numbers(&x, "bytes", "_total", "bytes", NULL);
	pages_settled(&x);
	family(&x, "zero_pages", "counter", "Pages brought in that were all zeros.");
	numbers(&x, "zero_pages", "_total", "pages", "zero");
	gauges(&x);
	family(&x, "faults", "counter", "Faults of the tasks.");
	numbers(&x, "faults", "_total", "faults", NULL);
	family(&x, "stall_seconds", "histogram", "Time from a fault to its page.");
	for (size_t i = 0; i < count; i++)
		stalls_of(&x, documents[i]);
	links(&x);
	fprintf(out, "# EOF\n");
}
