// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Set-up in the order in which things can be refused: images first, then the socket, so that a
 * damaged checkpoint is refused before a restore can begin.
 */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena.h"
#include "checkpoint.h"
#include "compiler.h"
#include "control.h"
#include "daemon.h"
#include "handoff.h"
#include "journal.h"
#include "keeper.h"
#include "source_remote.h"
#include "worker.h"

#define ARENA_MAX (UINT64_C(64) << 30) /* address space, not memory */

struct manager {
	const struct options *o;
	struct log *log;
	struct checkpoint *checkpoint;
	struct arena *arena;
	struct journal *journal;
	struct control_server *control;
	struct remote_start remote;
};

static int worker_main(void *arg)
{
	struct manager *m = arg;

	return worker_run(m->o, m->log, m->checkpoint, m->journal, m->control,
			  m->o->page_server ? &m->remote : NULL);
}

/* One descriptor a task, and one a forked child. */
static void raise_limits(void)
{
	struct rlimit r;
	int fd;

	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
	/* If memory runs out, the manager is the last that should die. Needs CAP_SYS_RESOURCE. */
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "-1000", 5);
		close(fd);
	}
}

static int open_images(struct manager *m, struct error *e)
{
	uint64_t pages = 0;
	int ret;

	ret = checkpoint_load(&m->checkpoint, m->o->images_fd, m->o->images_dir, m->o->page_server,
			      e);
	if (ret)
		return ret;
	for (size_t i = 0; i < m->checkpoint->ntasks; i++)
		pages += m->checkpoint->tasks[i].extents.npages;
	log_info(m->log, "%s: %zu tasks, %llu lazy pages in %zu files", m->o->images_dir,
		 m->checkpoint->ntasks, (unsigned long long)pages, m->checkpoint->nfiles);
	return 0;
}

static int set_up(struct manager *m, struct error *e)
{
	int ret, fd = m->o->listen_fd;
	sigset_t set;

	/* From here on a signal waits for the keeper, which has a descriptor for it. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise_limits();
	ret = open_images(m, e);
	if (ret)
		return ret;
	ret = arena_new(&m->arena, ARENA_MAX, e);
	if (ret)
		return ret;
	m->journal = journal_new(m->arena);
	if (!m->journal)
		return error_set(e, -ENOMEM, "no memory for the journal");
	m->journal->began_ns = now_ns();
	if (m->o->page_server) {
		ret = remote_connect(&m->remote, m->o, m->checkpoint, m->journal, e);
		if (ret)
			return ret;
		log_info(m->log, "page server %s: connected", m->remote.peer.address.text);
	}
	if (fd >= 0)
		ret = handoff_adopt_listener(fd, e);
	else
		ret = fd = handoff_listen(e);
	if (ret < 0)
		return ret;
	m->journal->handoff.listen_fd = fd;
	return 0;
}

int manager_run(const struct options *o, struct log *log)
{
	struct manager m = {.o = o, .log = log};
	struct error e = {0};
	int status;

	if (set_up(&m, &e)) {
		log_error(log, "%s", e.text);
		daemon_failed(o, &e);
		if (o->listen_fd >= 0)
			handoff_unlink();
		return 1;
	}
	if (control_server_open(&m.control, getpid(), &e))
		log_info(log, "no control socket: %s", e.text);
	if (daemon_ready(o, &e)) {
		log_error(log, "%s", e.text);
		daemon_failed(o, &e);
		handoff_unlink();
		control_server_close(m.control, true);
		return 1;
	}
	log_info(log, "waiting for a restore");
	status = keeper_run(m.journal, log, worker_main, &m);
	if (m.journal->handoff.listen_fd >= 0)
		handoff_unlink();
	control_server_close(m.control, true);
	remote_disconnect(&m.remote);
	checkpoint_free(m.checkpoint);
	return status;
}
