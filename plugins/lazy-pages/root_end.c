// SPDX-License-Identifier: GPL-2.0-or-later
/* The end of the restored root: see root_end.h. Not our child, so nobody hands us its status. */
#include "root_end.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler.h"

#define TRIES	   200
#define PAUSE_NS   5000000
#define PF_EXITING 0x4 /* of the flags in /proc/PID/stat */

/* PIDFD_GET_INFO, since Linux 6.13, the exit code since 6.15: pidfd.h of Debian 12 lacks it. */
struct pidfd_info_64 {
	uint64_t mask, cgroupid;
	uint32_t ids[11];
	int32_t exit_code;
};
#define PIDFD_INFO_EXIT_BIT (UINT64_C(1) << 3)
#define PIDFD_GET_INFO_64   _IOWR(0xff, 11, struct pidfd_info_64)

void root_note(struct root_record *r, int pid)
{
	r->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (r->pidfd >= 0)
		__atomic_store_n(&r->pid, pid, __ATOMIC_SEQ_CST);
}

enum root { LIVES, EXITING, ENDED, REAPED };

static enum root look(int pid, int *code)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[32], line[1024], *p, state = 0;
	unsigned flags = 0;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	n = f ? fread(line, 1, sizeof(line) - 1, f) : 0;
	line[n] = 0;
	for (p = line + n; p > line && *p != ')'; p--)
		;
	/* State is the 3rd field, flags the 9th, the exit code the 52nd and last. */
	if (p == line || sscanf(p, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return REAPED;
	if (state != 'Z' && state != 'X')
		return flags & PF_EXITING ? EXITING : LIVES;
	for (p = line + n - 1; p > line && p[-1] != ' '; p--)
		;
	*code = atoi(p);
	return ENDED;
}

bool root_was_lost(const struct root_record *r)
{
	struct pidfd_info_64 info = {.mask = PIDFD_INFO_EXIT_BIT};
	enum root now = EXITING;
	int code = 0;

	if (!r->owing)
		return false;
	if (!r->pid)
		return true;
	for (int i = 0; i < TRIES && (now = look(r->pid, &code)) == EXITING; i++)
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	if (now == LIVES)
		return false;
	if (now == ENDED)
		return !WIFEXITED(code);
	if (ioctl(r->pidfd, PIDFD_GET_INFO_64, &info) || !(info.mask & PIDFD_INFO_EXIT_BIT))
		return true;
	return !WIFEXITED(info.exit_code);
}
