/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Identity: a few pages as they came first, in the journal. Whatever answers at the address of the
 * page server after a link was lost has to have the same ones: another dump on that port, or a
 * server that was started again with other images, would give bytes of another task with the same
 * pid and addresses. Caller holds the lock of the remote.
 */
#ifndef REMOTE_IDENTITY_H
#define REMOTE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#define IDENTITY_PAGES 8

struct remote_identity {
	uint32_t n; /* the commit point of the next */
	struct identity_page {
		uint64_t where, hash;
	} page[IDENTITY_PAGES];
};

/* Takes the page at @where for one that is looked at later, if it is not zero and one is lacking.
 */
void identity_learn(struct remote_identity *id, uint64_t where, const void *page);
/* False: it is one of them, and not what it was. */
bool identity_same(const struct remote_identity *id, uint64_t where, const void *page);

#endif
