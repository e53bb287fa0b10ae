// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One process waits for the other: see holder.h. The server is forked while there is one thread,
 * and inherits what is open; nothing that it opens itself has to outlive it.
 */
#include "holder.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"

#define BACKOFF_MAX_MS 1000
#define SHORT_LIFE_NS  UINT64_C(1000000000)

struct holder {
	struct holder_state *state;
	const struct log *log;
	holder_fn *fn;
	void *arg;
	int signal_fd;
	int told; /* a signal that every server is to have, or 0 */
	pid_t server;
	uint64_t started_ns;
	unsigned backoff_ms;
};

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static _Noreturn void server_main(struct holder *h)
{
	sigset_t set;

	close(h->signal_fd);
	/* SIGTERM and SIGINT stay blocked: the server has a descriptor for them. */
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	prctl(PR_SET_NAME, "lazy-ps-server");
	h->state->exit_status = h->fn(h->arg);
	__atomic_store_n(&h->state->over, true, __ATOMIC_SEQ_CST);
	_exit(h->state->exit_status);
}

static void start_server(struct holder *h)
{
	h->started_ns = now_ns();
	while ((h->server = fork()) < 0) {
		log_error(h->log, "a page server cannot be started: %s; trying again",
			  strerrordesc_np(errno));
		sleep_ms(100);
	}
	if (!h->server)
		server_main(h);
	if (h->told)
		kill(h->server, h->told);
}

static void take_signals(struct holder *h)
{
	struct signalfd_siginfo si;

	while (read(h->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			continue;
		h->told = (int)si.ssi_signo;
		kill(h->server, h->told);
	}
}

static void server_died(struct holder *h, int status)
{
	log_warn(h->log, "page server %d was killed by signal %d; the next one takes over",
		 h->server, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	if (now_ns() - h->started_ns < SHORT_LIFE_NS)
		h->backoff_ms = MIN(h->backoff_ms ? h->backoff_ms * 2 : 1, BACKOFF_MAX_MS);
	else
		h->backoff_ms = 0;
	if (h->backoff_ms > 8)
		sleep_ms(h->backoff_ms);
	start_server(h);
}

int holder_run(struct holder_state *state, const struct log *log, holder_fn *fn, void *arg)
{
	struct holder h = {.state = state, .log = log, .fn = fn, .arg = arg};
	sigset_t set;
	int status;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Whoever started us may have it ignored: then nobody hears of the server's death. */
	signal(SIGCHLD, SIG_DFL);
	h.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	prctl(PR_SET_NAME, "lazy-ps-holder");
	start_server(&h);
	for (;;) {
		struct pollfd p = {.fd = h.signal_fd, .events = POLLIN};
		pid_t ended = waitpid(h.server, &status, WNOHANG);

		if (ended == h.server && __atomic_load_n(&state->over, __ATOMIC_SEQ_CST))
			break;
		if (ended == h.server)
			server_died(&h, status);
		poll(&p, 1, -1);
		take_signals(&h);
	}
	close(h.signal_fd);
	return state->exit_status;
}
