// SPDX-License-Identifier: GPL-2.0-or-later
/* The summary: see serve_summary.h. */
#include "serve_summary.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "compiler.h"

static void add_number(struct json_object *in, const char *key, uint64_t value)
{
	json_object_object_add(in, key, json_object_new_uint64(value));
}

static int write_json(const char *path, const struct serve_count *n, uint64_t took_ns)
{
	struct json_object *j = json_object_new_object();
	int ret;

	add_number(j, "clients", n->clients);
	add_number(j, "confirmed", n->confirmed);
	add_number(j, "replies", n->replies);
	add_number(j, "pages", n->pages);
	add_number(j, "bytes", n->pages << PAGE_SHIFT);
	add_number(j, "milliseconds", took_ns / 1000000);
	errno = 0;
	ret = json_object_to_file_ext(path, j, JSON_C_TO_STRING_PRETTY);
	json_object_put(j);
	return ret ? (errno ? -errno : -EIO) : 0;
}

void serve_summary(const struct options *o, const struct log *log, const struct serve_count *n,
		   uint64_t took_ns)
{
	char text[200];
	int ret;

	snprintf(text, sizeof(text),
		 "served %llu clients, of which %llu have everything: %llu pages (%llu MiB) in "
		 "%llu replies",
		 (unsigned long long)n->clients, (unsigned long long)n->confirmed,
		 (unsigned long long)n->pages, (unsigned long long)(n->pages << PAGE_SHIFT >> 20),
		 (unsigned long long)n->replies);
	log_info(log, "%s", text);
	if (o->display_stats) {
		printf("%s\n", text);
		fflush(stdout);
	}
	if (!o->json_file)
		return;
	ret = write_json(o->json_file, n, took_ns);
	if (ret)
		log_error(log, "summary %s: %s", o->json_file, strerrordesc_np(-ret));
}
