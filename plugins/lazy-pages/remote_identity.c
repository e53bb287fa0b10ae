// SPDX-License-Identifier: GPL-2.0-or-later
/* What the pages of a source look like: see remote_identity.h. */
#include "remote_identity.h"

#include <string.h>

#include "compiler.h"

/* FNV-1a by words; 0 for a page of zeros. */
static uint64_t hash(const void *page)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325), any = 0, word;

	for (size_t i = 0; i < PAGE_SIZE; i += sizeof(word)) {
		memcpy(&word, (const char *)page + i, sizeof(word));
		h = (h ^ word) * UINT64_C(0x100000001b3);
		any |= word;
	}
	return any ? h | 1 : 0;
}

void identity_learn(struct remote_identity *id, uint64_t where, const void *page)
{
	uint64_t h;

	if (id->n == IDENTITY_PAGES)
		return;
	h = hash(page);
	for (uint32_t i = 0; i < id->n; i++)
		if (id->page[i].hash == h)
			return;
	if (!h)
		return;
	id->page[id->n] = (struct identity_page){where, h};
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	id->n++;
}

bool identity_same(const struct remote_identity *id, uint64_t where, const void *page)
{
	for (uint32_t i = 0; i < id->n; i++)
		if (id->page[i].where == where)
			return id->page[i].hash == hash(page);
	return true;
}
