/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of a dump that comes in go to the disk while the next ones are still coming, by a thread of
 * their own: the tasks stand still until the last of them is there, and a disk takes milliseconds
 * for each file, however small. All functions are for the thread that receives.
 */
#ifndef RECEIVE_SYNC_H
#define RECEIVE_SYNC_H

#include "error.h"
#include "receive_dir.h"

struct receive_sync;

/* @dirfd is not owned. */
int receive_sync_start(struct receive_sync **out, int dirfd, struct error *e);
/* Stops after the file that it is at. NULL is fine. */
void receive_sync_stop(struct receive_sync *s);

/* Nothing more will be written to the marked files of this image. */
int receive_sync_add(struct receive_sync *s, const struct received *r, struct error *e);
/* Waits until all of them are on the disk. What went wrong with any of them comes out here. */
int receive_sync_wait(struct receive_sync *s, struct error *e);

#endif
