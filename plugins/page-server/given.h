/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Given: which of a number of pages one client has been sent, one bit a page. Pure; one thread at
 * a time, but for given_count(), whose answer may then be out of date.
 */
#ifndef GIVEN_H
#define GIVEN_H

#include <stdint.h>

struct given;

/* Nothing has been given of @npages pages. NULL without memory. */
struct given *given_new(uint64_t npages);
void given_free(struct given *g);

/* Pages from number @first on, all of them below npages. A page may be given again. */
void given_note(struct given *g, uint64_t first, uint64_t npages);
/* How many different pages. */
uint64_t given_count(const struct given *g);

#endif
