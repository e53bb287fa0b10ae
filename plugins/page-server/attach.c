// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Set-up of --attach, and what is true at each instant. The phase is in shared memory and says what
 * has been decided; what the source does hangs on the connection to the dump alone (held.h):
 *
 *	phase		how it begins			what then happens to the source
 *	ATTACHED	connected			frozen; whatever clients do changes nothing
 *	GIVEN_UP	a client holds everything	linger off, CLOSE: the dump ends, tasks die
 *	CALLED_OFF	abort, a signal, a failure	reset: the tasks run on
 *	LOST		the dump has gone		the tasks run on; nobody can help that
 *
 * ATTACHED is left once, by one compare-and-swap, so of a CLOSE and an abort one wins and the other
 * is refused. (GIVEN_UP becomes LOST when the dump turns out to have died before it could be told.)
 *A client learns that its CLOSE was taken only after the dump has learned of it.
 *
 *	dies		before the swap		after it
 *	server		the next one serves	the next one does what the phase says
 *	holder		the server goes on, and nobody comes after it
 *	both		reset: tasks run on	GIVEN_UP: plain end from "linger off" on, reset for
 *						the instant before; the client has no answer then
 *						CALLED_OFF: reset, as decided
 *
 * So the source is never killed before somebody holds everything, and never runs on after that
 * somebody has been told.
 */
#include "attach.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "attach_server.h"
#include "compiler.h"
#include "daemon.h"
#include "provider_frozen.h"

enum attach_phase phase_now(const struct attach *a)
{
	return (enum attach_phase)__atomic_load_n(&a->state->phase, __ATOMIC_SEQ_CST);
}

bool phase_change(struct attach *a, enum attach_phase phase)
{
	int from = PHASE_ATTACHED;

	return __atomic_compare_exchange_n(&a->state->phase, &from, (int)phase, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

int attach_give_up(struct attach *a, struct error *e)
{
	int ret;

	if (!phase_change(a, PHASE_GIVEN_UP))
		return error_set(e, -EALREADY,
				 phase_now(a) == PHASE_GIVEN_UP
					 ? "somebody holds everything already"
					 : "this migration has been called off");
	log_debug(a->log, "the source is given up");
	ret = held_finish(&a->held, false, e);
	/* It is stopped, perhaps; it will find the end of the connection. */
	if (ret == -ETIMEDOUT) {
		log_warn(a->log, "%s; it is told all the same", e->text);
		ret = 0;
	}
	if (ret)
		__atomic_store_n(&a->state->phase, (int)PHASE_LOST, __ATOMIC_SEQ_CST);
	return ret;
}

int attach_call_off(struct attach *a, struct error *e)
{
	if (!phase_change(a, PHASE_CALLED_OFF) && phase_now(a) == PHASE_GIVEN_UP)
		return error_set(
			e, -EALREADY,
			"a destination holds everything, and the source has been given up");
	return held_reset(&a->held, e);
}

static int find_dump(struct attach *a, struct net_address *address, struct error *e)
{
	int ret = checkpoint_load(&a->checkpoint, a->o->images_fd, a->o->images_dir, true, e);

	if (ret)
		return ret;
	a->npages = frozen_npages(a->checkpoint);
	/* --ps-layout is about clients, who need not be as old as the dump. */
	a->layout = a->checkpoint->long_counts ? WIRE_32 : WIRE_24;
	ret = net_parse(address, a->o->attach, e);
	if (!ret)
		ret = dump_find(&a->dump, address, e);
	if (!ret)
		ret = frozen_check_tasks(a->checkpoint, a->dump, e);
	return ret;
}

/* From here on the source depends on us; and if we fail, it goes on. */
static int connect_dump(struct attach *a, const struct net_address *address, struct error *e)
{
	int ret;

	a->dump_fd = held_connect(address, e);
	if (a->dump_fd < 0)
		return a->dump_fd;
	held_init(&a->held, a->dump_fd, a->layout, &a->state->busy);
	ret = frozen_compare(a->checkpoint, a->dump, &a->held, e);
	if (ret)
		return error_prefix(e, ret, "dump %d", a->dump->pid);
	log_info(a->log,
		 "attached to dump %d at %s: %zu tasks, %llu lazy pages, headers of %d "
		 "bytes; the source waits",
		 a->dump->pid, address->text, a->dump->ntasks, (unsigned long long)a->npages,
		 (int)a->layout);
	return 0;
}

static int set_up(struct attach *a, struct error *e)
{
	struct net_address address;
	struct error why = {0};
	int ret;

	a->state = mmap(NULL, sizeof(*a->state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (a->state == MAP_FAILED) {
		a->state = NULL;
		return error_errno(e, -ENOMEM, "--attach");
	}
	ret = find_dump(a, &address, e);
	if (!ret)
		ret = connect_dump(a, &address, e);
	if (ret)
		return error_prefix(e, ret, "--attach");
	a->holder_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (control_server_open(&a->control, getpid(), &why))
		log_warn(a->log, "%s: abort will not find this server; a SIGTERM does the same",
			 why.text);
	return daemon_ready(a->o, e);
}

static void tear_down(struct attach *a)
{
	control_server_close(a->control, true);
	cleanup_close(&a->holder_pidfd);
	cleanup_close(&a->dump_fd);
	dump_free(a->dump);
	checkpoint_free(a->checkpoint);
	if (a->state)
		munmap(a->state, sizeof(*a->state));
}

int attach_run(const struct options *o, const struct log *log, int listen_fd, const char *where,
	       struct tls *tls, struct error *e)
{
	struct attach a = {
		.o = o,
		.log = log,
		.listen_fd = listen_fd,
		.where = where,
		.tls = tls,
		.dump_fd = -1,
		.holder_pidfd = -1,
		.watch_fd = -1,
		.clients_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int ret = set_up(&a, e);

	if (!ret)
		ret = holder_run(&a.state->holder, log, attach_serve, &a);
	tear_down(&a);
	return ret;
}
