/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pace: how many bytes of background may be on the way from a page server, so that the link is full
 * and a fault that is asked behind them still does not wait for megabytes. From the shortest round
 * trip of a connection and its highest rate of late. Pure: time comes in as nanoseconds of
 * CLOCK_MONOTONIC.
 */
#ifndef PACE_H
#define PACE_H

#include <stdint.h>

struct pace {
	uint64_t outstanding;	   /* bytes asked and not arrived */
	uint64_t arrived;	   /* bytes, all in all */
	uint64_t rtt_ns;	   /* shortest of this connection; 0: not known */
	uint64_t rate, rate_at_ns; /* bytes a second, highest of late */
};

/* What a request remembers of the moment when it was asked. */
struct pace_stamp {
	uint64_t ns;
	uint64_t arrived;
};

struct pace_stamp pace_asked(struct pace *p, uint64_t bytes, uint64_t now_ns);
/* The first byte of the answer to the request that @stamp is of. */
void pace_first_byte(struct pace *p, struct pace_stamp stamp, uint64_t now_ns);
/* An answer is complete: @bytes of it came, @asked had been asked for. */
void pace_answered(struct pace *p, struct pace_stamp stamp, uint64_t bytes, uint64_t asked,
		   uint64_t now_ns);
/* Bytes that may be outstanding, between @least and @most. */
uint64_t pace_window(const struct pace *p, uint64_t least, uint64_t most);
/* The same while somebody waits for pages: as much as is on the way, and nothing queues. */
uint64_t pace_window_busy(const struct pace *p, uint64_t least, uint64_t most);

#endif
