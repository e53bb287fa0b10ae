/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waking whoever waits for an eventfd that does not block. Any thread. */
#ifndef CRIU_WAKE_H
#define CRIU_WAKE_H

#include <stdint.h>
#include <unistd.h>

static inline void wake_fd(int event_fd)
{
	uint64_t one = 1;

	if (write(event_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so it is being woken anyway. */
	}
}

#endif
