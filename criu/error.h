/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An error that a person can act on: a negative errno and a sentence that grows on the way up
 * ("task 1234: pagemap-1234.img: entry 17: ..."). A fallible function takes a struct error *,
 * fills it where it fails and returns the code; callers add what they know in front of it. The
 * message is printed once, by whoever handles the failure. Pure; any thread, one error a thread.
 */
#ifndef CRIU_ERROR_H
#define CRIU_ERROR_H

#include <stdarg.h>

struct error {
	int code; /* 0, or a negative errno */
	char text[512];
};

/* Sets the text and returns @code, which must be a negative errno. @e may be NULL. */
int error_set(struct error *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Like error_set() with ": " and the words for @code behind the text. */
int error_errno(struct error *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the text and returns the code that is in @e (or @code of NULL). */
int error_prefix(struct error *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
