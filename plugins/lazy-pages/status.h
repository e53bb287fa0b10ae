/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `criu-lazy-pages status`: asks the managers of this machine through their control sockets how far
 * they are, and prints it (see control.h for the document they answer with). One thread.
 */
#ifndef STATUS_H
#define STATUS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_object;

/* The whole command; @argv[0] is "status". Returns the exit code: 0, 1 (nobody there), 2 (usage).
 */
int status_main(int argc, char **argv);

/* Number @key of @document, or of the object @key.@sub when @sub is given; 0 when it is unknown. */
uint64_t status_number(struct json_object *document, const char *key, const char *sub);
const char *status_text(struct json_object *document, const char *key);

/* The document's tasks: how many in *@tasks, an array that stays the document's. */
size_t status_tasks(struct json_object *document, struct json_object **tasks);
/* Pages still owed, of all tasks. */
uint64_t status_pages_left(struct json_object *document);

/* All documents as one OpenMetrics exposition. */
void status_openmetrics(FILE *out, struct json_object *const *documents, size_t count);

#endif
