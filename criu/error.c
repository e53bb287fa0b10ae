// SPDX-License-Identifier: GPL-2.0-or-later
/* Errors with context: see error.h. Long texts are cut at the end, never refused. */
#include "error.h"

#include <stdio.h>
#include <string.h>

static void put(struct error *e, int code, const char *fmt, va_list args)
{
	e->code = code;
	vsnprintf(e->text, sizeof(e->text), fmt, args);
}

int error_set(struct error *e, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (e)
		put(e, code, fmt, args);
	va_end(args);
	return code;
}

int error_errno(struct error *e, int code, const char *fmt, ...)
{
	va_list args;
	size_t n;

	va_start(args, fmt);
	if (e) {
		put(e, code, fmt, args);
		n = strlen(e->text);
		snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerrordesc_np(-code));
	}
	va_end(args);
	return code;
}

int error_prefix(struct error *e, int code, const char *fmt, ...)
{
	char old[sizeof(e->text)];
	va_list args;
	size_t n;

	if (!e)
		return code;
	memcpy(old, e->text, sizeof(old));
	va_start(args, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, args);
	va_end(args);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", old);
	return e->code;
}
