/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of attach.c have in common. Not for others. */
#ifndef ATTACH_SERVER_H
#define ATTACH_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "attach.h"
#include "checkpoint.h"
#include "control.h"
#include "dump.h"
#include "held.h"
#include "holder.h"
#include "provider.h"

/* See the head of attach.c. */
enum attach_phase {
	PHASE_ATTACHED = 0,
	PHASE_GIVEN_UP,
	PHASE_CALLED_OFF,
	PHASE_LOST,
};

/* In shared memory. */
struct attach_state {
	int phase; /* enum attach_phase; changed by phase_change() alone */
	bool busy; /* see held.h */
	struct holder_state holder;
};

struct attach {
	const struct options *o;
	const struct log *log;
	int listen_fd;
	const char *where; /* the address of listen_fd, in words */
	struct tls *tls;
	struct checkpoint *checkpoint;
	uint64_t npages; /* lazy pages of all tasks */
	struct dump *dump;
	enum wire_layout layout;
	int dump_fd; /* the connection to it */
	struct attach_state *state;
	struct control_server *control; /* NULL: could not be had */
	int holder_pidfd;
	/* Of one server. */
	struct held held;
	struct provider *provider;
	int watch_fd;	/* an epoll of control, dump, holder and timer */
	int timer_fd;	/* ends serving */
	bool by_client; /* GIVEN_UP because a client said so */
	pthread_mutex_t clients_lock;
	struct attach_client *clients; /* all who are connected */
};

enum attach_phase phase_now(const struct attach *a);
/* From ATTACHED to @phase, for good. False: it was not ATTACHED any more. */
bool phase_change(struct attach *a, enum attach_phase phase);

/* Gives the source up. 0, or why the dump could not be told, and then it is LOST. */
int attach_give_up(struct attach *a, struct error *e);
/* Has the source go on. Not when another phase has come first. */
int attach_call_off(struct attach *a, struct error *e);

/* One server, from its start to the exit status. @context is a struct attach. */
int attach_serve(void *context);
/* The most pages that any one client has been sent. */
uint64_t attach_given(struct attach *a);
/* The control socket's requests. */
void attach_control_serve(struct attach *a);

#endif
