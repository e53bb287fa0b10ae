// SPDX-License-Identifier: GPL-2.0-or-later
/* Sums and quantiles over tallies: see tally.h. Pure. */
#include "tally.h"

#include <stddef.h>

void tally_add(struct tally *to, const struct tally *from)
{
	for (int i = 0; i < CAUSES; i++)
		to->placed[i] += from->placed[i];
	to->zero += from->zero;
	to->existed += from->existed;
	to->forgiven += from->forgiven;
	to->faults += from->faults;
	to->zero_faults += from->zero_faults;
	to->events += from->events;
	to->again += from->again;
	to->stalls += from->stalls;
	to->stall_ns += from->stall_ns;
	if (from->stall_max_ns > to->stall_max_ns)
		to->stall_max_ns = from->stall_max_ns;
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

uint64_t tally_quantile(const struct tally *t, unsigned permille)
{
	uint64_t want = (t->stalls * permille + 999) / 1000, seen = 0;

	for (size_t i = 0; i < TALLY_BUCKETS; i++) {
		seen += t->bucket[i];
		if (t->bucket[i] && seen >= want)
			return UINT64_C(1) << (i + 1);
	}
	return 0;
}
