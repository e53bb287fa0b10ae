/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Growth: a knot that the kernel ties. mremap() of locked memory that grows populates the new part
 * before it posts its REMAP event, and until that event is read every UFFDIO_COPY and ZEROPAGE
 * answers EAGAIN: the caller waits for a page that nobody can place (Linux 6.18). What grows has no
 * contents, so the way out is to disarm just that, and to arm it again when the event has come, so
 * that the mapping keeps its shape. Owner thread only.
 */
#ifndef GROWTH_H
#define GROWTH_H

#include <stdbool.h>
#include <stdint.h>

#include "task.h"

/*
 * Somebody waits for the page at @addr, and EAGAIN has been the answer for a while, with no event
 * to read. If that is a growing mremap() of this task, lets it go on and returns true. @owed: the
 * map, which does not know of the mremap() yet, has contents for this page; then only if the page
 * is certainly part of what grows.
 */
bool growth_release(struct task *t, uint64_t addr, bool owed);
/* Events have been read: arms again what growth_release() has disarmed. */
void growth_rearm(struct task *t);

#endif
