// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Links that are there and give no answer: a route that is gone, a server that is stopped. One that
 * can be made again is given up; beside the one that cannot, a second is tried. See remote_links.c.
 */
#include <errno.h>

#include "compiler.h"
#include "remote_links.h"

#define SILENT_MAX_NS UINT64_C(10000000000)
#define AGAIN_NS      UINT64_C(1000000000) /* between attempts beside a silent link */

/* Links that owe an answer for too long. Returns how long to sleep at most, in ms, or -1. */
int links_look_for_silence(struct links *l, uint64_t now)
{
	int wait = -1;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t since = 0, rtt = 0, end;
		struct error e = {0};

		if (i && l->fast && remote_fast_failed(l->r, &e)) {
			links_lose(l, i, &e);
			continue;
		}
		if (i && l->fast)
			since = remote_fast_waits_since(l->r, &rtt);
		else if (l->link[i])
			since = link_waits_since(l->link[i]);
		if (since && !(i && l->fast))
			rtt = link_pace(l->link[i])->rtt_ns;
		if (!since) {
			/* Owners ask there without a word to us. */
			if (i && l->fast) {
				l->silent_ns[i] = SILENT_MIN_NS;
				wait = sooner(wait, (int)(SILENT_MIN_NS / 1000000));
			}
			continue;
		}
		end = since + l->silent_ns[i] + 4 * rtt;
		if (now < end) {
			wait = sooner(wait, (int)((end - now) / 1000000) + 1);
			continue;
		}
		if (links_can_be_lost(l, i)) {
			error_set(&e, -ETIMEDOUT, "silent for %.1f s", (double)(now - since) / 1e9);
			l->silent_ns[i] = MIN(l->silent_ns[i] * 2, SILENT_MAX_NS);
			links_lose(l, i, &e);
			continue;
		}
		if (!l->silence_said)
			log_warn(l->r->log, "%s: silent for %.1f s; tasks that need its pages wait",
				 links_address(l), (double)(now - since) / 1e9);
		l->silence_said = true;
		if (!l->link[1] && now >= l->try_ns && l->r->start->peer.known &&
		    !connector_busy(l->connector))
			connector_want(l->connector, false);
		if (now >= l->try_ns)
			l->try_ns = now + AGAIN_NS;
		wait = sooner(wait, (int)(AGAIN_NS / 1000000));
	}
	return wait;
}
