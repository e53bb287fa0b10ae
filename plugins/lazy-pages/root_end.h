/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Root end: how the root of the restored tree has ended, if it has. When it was killed before it
 * had all its memory there is no copy of the container here any more, and a source that can be kept
 * has to be. When it has exited by itself, or lives on after an exec, the restore was a success.
 */
#ifndef ROOT_END_H
#define ROOT_END_H

#include <stdbool.h>

/* In the journal. */
struct root_record {
	int pid;    /* as we see it; 0: not come yet, or not known */
	int pidfd;  /* valid when pid is set */
	bool owing; /* its address space has gone and did not have all its pages */
};

/* Notes the process that restored the root. */
void root_note(struct root_record *r, int pid);
/* Whether it was killed, or may have been, while pages were owed. Waits for the end of a process
 * that is exiting, a second at most. */
bool root_was_lost(const struct root_record *r);

#endif
