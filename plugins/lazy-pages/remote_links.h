/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of the thread of the links: remote_links.c, remote_silence.c. That thread only. */
#ifndef REMOTE_LINKS_H
#define REMOTE_LINKS_H

#include "remote.h"

#define SILENT_MIN_NS UINT64_C(1000000000)

struct links {
	struct remote *r;
	int epoll_fd;
	struct connector *connector;
	struct link *link[2];
	struct link_record *record[2]; /* 0: in the journal */
	bool fast;		       /* slot 1 has answered, and is in the hands of the owners */
	bool parked;
	bool second_tried; /* slot 1 has been tried, or is useless */
	bool silence_said;
	uint64_t silent_ns[2]; /* after so long without an answer a link is given up */
	uint64_t try_ns;       /* not before: another attempt beside a silent link */
	uint64_t end_ns;       /* when the end has been asked for */
};

/* Of two waits in ms, -1 is for ever. */
static inline int sooner(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* For messages. */
const char *links_address(const struct links *l);
/* Whether the link in @slot can be made again, or was never needed. */
bool links_can_be_lost(const struct links *l, unsigned slot);
/* The link in @slot is of no use any more, for the reason @e. */
void links_lose(struct links *l, unsigned slot, const struct error *e);
/* Gives up links that owe an answer for too long. Returns how long to sleep at most, in ms, or -1.
 */
int links_look_for_silence(struct links *l, uint64_t now_ns);

#endif
