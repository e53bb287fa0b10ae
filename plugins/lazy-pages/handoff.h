/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handoff: takes the tasks' userfaultfds from `criu restore --lazy-pages`. The first step of the
 * way of a page. Facts: design notes on the hand-off socket; one connection, one item per entry of
 * pstree.img, then the word "restore finished".
 *
 * Items are received into the journal, so a worker that dies in the middle of one is followed by
 * one that knows what has been taken off the socket. Control thread only.
 */
#ifndef HANDOFF_H
#define HANDOFF_H

#include "error.h"
#include "journal.h"

struct worker;

enum handoff {
	HANDOFF_GOES_ON,
	HANDOFF_FINISHED, /* the word has just come: tasks run, background may begin */
	HANDOFF_NOTHING,  /* the connection ended without a word: @e says so */
	HANDOFF_FAILED,	  /* the restore failed or does not speak the protocol: @e says which */
};

/* Binds and listens on lazy-pages.socket in the current directory. The descriptor, or -errno. */
int handoff_listen(struct error *e);
/* Makes a socket that somebody else has bound ready: its flags, and SO_PASSCRED. 0 or -errno. */
int handoff_adopt_listener(int fd, struct error *e);
/* Removes the socket's file. Only while the listener is ours: later the name may be another's. */
void handoff_unlink(void);

/* The listening socket is readable: accepts the restore's connection. */
enum handoff handoff_accept(struct worker *w, struct error *e);
/* The connection is readable, or a worker has just started: takes what there is. */
enum handoff handoff_receive(struct worker *w, struct error *e);

#endif
