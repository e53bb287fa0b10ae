// SPDX-License-Identifier: GPL-2.0-or-later
/* The window of the background: see pace.h. */
#include "pace.h"

#include "compiler.h"

#define RATE_OLD_NS UINT64_C(1000000000) /* a rate is believed that long */

struct pace_stamp pace_asked(struct pace *p, uint64_t bytes, uint64_t now)
{
	p->outstanding += bytes;
	return (struct pace_stamp){now, p->arrived};
}

void pace_first_byte(struct pace *p, struct pace_stamp stamp, uint64_t now)
{
	uint64_t rtt = MAX(now - stamp.ns, UINT64_C(1));

	/* Never up again: a longer one is what our own requests in front of it have cost. */
	if (!p->rtt_ns || rtt < p->rtt_ns)
		p->rtt_ns = rtt;
}

void pace_answered(struct pace *p, struct pace_stamp stamp, uint64_t bytes, uint64_t asked,
		   uint64_t now)
{
	uint64_t took = MAX(now - stamp.ns, UINT64_C(1)), rate;

	p->outstanding -= MIN(asked, p->outstanding);
	p->arrived += bytes;
	rate = (uint64_t)((double)(p->arrived - stamp.arrived) * 1e9 / (double)took);
	if (rate < p->rate && now - p->rate_at_ns < RATE_OLD_NS)
		return;
	p->rate = rate;
	p->rate_at_ns = now;
}

static uint64_t window(const struct pace *p, double products, uint64_t least, uint64_t most)
{
	double full = products * (double)p->rate * (double)p->rtt_ns / 1e9;

	if (full >= (double)most)
		return most;
	return MAX((uint64_t)full, least);
}

/*
 * The product of rate and round trip fills the link; twice of it finds out whether more is to be
 * had, because both are measured with what is in the window.
 */
uint64_t pace_window(const struct pace *p, uint64_t least, uint64_t most)
{
	return window(p, 2, least, most);
}

uint64_t pace_window_busy(const struct pace *p, uint64_t least, uint64_t most)
{
	return window(p, 1, least, most);
}
