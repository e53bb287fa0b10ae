// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The thread that accepts: see serve.h. It waits for connections, signals, the hooks' descriptor
 * and the word of the workers that a client has ended, and gives each connection to the worker
 * that has the fewest. It never touches one itself.
 */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "client.h"
#include "clock.h"
#include "compiler.h"
#include "serve_summary.h"
#include "serve_worker.h"

#define PAUSE_MS 100 /* without descriptors: until the next try */

struct serve {
	const struct options *o;
	const struct log *log;
	const struct serve_hooks *hooks;
	struct client_shared shared;
	struct tls *tls;
	struct serve_worker *workers[THREADS_MAX];
	unsigned nworkers;
	int listen_fd, signal_fd, event_fd;
	bool refusing; /* whoever comes */
	bool paused;   /* no descriptors, and somebody waits: tried again every now and then */
	pthread_mutex_t hook_lock;
};

enum { POLL_SIGNAL, POLL_EVENT, POLL_HOOK, POLL_LISTEN, POLLS };

/* A client has everything: what its worker asks. */
static int close_hook(void *context, void *client, const char *peer, bool sure, struct error *e)
{
	struct serve *s = context;
	int verdict = SERVE_ON;

	if (s->hooks && s->hooks->confirmed) {
		pthread_mutex_lock(&s->hook_lock);
		verdict = s->hooks->confirmed(s->hooks->context, client, peer, sure, e);
		pthread_mutex_unlock(&s->hook_lock);
	}
	return verdict == SERVE_ON && s->o->once ? SERVE_END : verdict;
}

static void start_connection(struct serve *s, int fd)
{
	struct serve_worker *least = s->workers[0];
	char peer[CLIENT_NAME_MAX];
	struct error e = {0};
	struct stream *stream;

	peer_name(fd, peer);
	if (s->refusing) {
		log_info(s->log, "%s: is refused: nobody is served any more", peer);
		close(fd);
		return;
	}
	for (unsigned i = 1; i < s->nworkers; i++)
		if (serve_worker_load(s->workers[i]) < serve_worker_load(least))
			least = s->workers[i];
	stream = stream_new(fd, s->tls, true, NULL);
	if (!stream)
		log_error(s->log, "%s: no memory for its connection", peer);
	else if (serve_worker_add(least, stream, peer, &e))
		log_error(s->log, "%s", e.text);
}

/* Out of descriptors or memory; the connection waits in the kernel. */
static void pause_accepting(struct serve *s, int code)
{
	if (!s->paused)
		log_warn(s->log, "%s: new connections wait until others end",
			 strerrordesc_np(-code));
	s->paused = true;
}

static void accept_all(struct serve *s)
{
	/* Others want to be seen to as well: whoever is left shows in the next poll. */
	for (int i = 0; i < 64; i++) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			start_connection(s, fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			   errno == ENOMEM) {
			pause_accepting(s, -errno);
			return;
		} else if (errno == EAGAIN) {
			s->paused = false;
			return;
		}
		/* anything else is about that one connection, which has gone already */
	}
}

static void refuse_all(struct serve *s)
{
	s->refusing = true;
	for (unsigned i = 0; i < s->nworkers; i++)
		serve_worker_drop_all(s->workers[i]);
}

/* The hooks' descriptor. True: stop. */
static bool take_hook(struct serve *s)
{
	enum serve_verdict verdict;

	pthread_mutex_lock(&s->hook_lock);
	verdict = s->hooks->readable(s->hooks->context);
	pthread_mutex_unlock(&s->hook_lock);
	if (verdict == SERVE_REFUSE)
		refuse_all(s);
	return verdict == SERVE_END;
}

static int best_verdict(const struct serve *s)
{
	int best = -1;

	for (unsigned i = 0; i < s->nworkers; i++)
		best = MAX(best, serve_worker_verdict(s->workers[i]));
	return best;
}

static unsigned load(const struct serve *s)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < s->nworkers; i++)
		sum += serve_worker_load(s->workers[i]);
	return sum;
}

/* Clients have ended. True: stop, with *@status. */
static bool take_event(struct serve *s, int *status)
{
	uint64_t told;

	if (read(s->event_fd, &told, sizeof(told)) < 0)
		return false;
	if (best_verdict(s) == SERVE_END)
		return true;
	if (s->listen_fd >= 0 || load(s))
		return false;
	/* --ps-socket: there was but one */
	if (best_verdict(s) < 0) {
		log_error(s->log, "the client has gone without saying that it has everything");
		*status = 1;
	}
	return true;
}

static void take_signal(struct serve *s)
{
	struct signalfd_siginfo info;

	if (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
		log_info(s->log, "signal %u: ends", info.ssi_signo);
}

static int loop(struct serve *s)
{
	struct pollfd p[POLLS] = {
		[POLL_SIGNAL] = {.fd = s->signal_fd, .events = POLLIN},
		[POLL_EVENT] = {.fd = s->event_fd, .events = POLLIN},
		[POLL_HOOK] = {.fd = s->hooks ? s->hooks->fd : -1, .events = POLLIN},
		[POLL_LISTEN] = {.events = POLLIN},
	};
	int status = 0;

	for (;;) {
		p[POLL_LISTEN].fd = s->paused ? -1 : s->listen_fd;
		if (poll(p, POLLS, s->paused ? PAUSE_MS : -1) < 0) {
			if (errno == EINTR)
				continue;
			log_error(s->log, "poll: %s", strerrordesc_np(errno));
			return 1;
		}
		if (p[POLL_SIGNAL].revents) {
			take_signal(s);
			return 0;
		}
		if (p[POLL_EVENT].revents && take_event(s, &status))
			return status;
		if (p[POLL_HOOK].revents && take_hook(s))
			return 0;
		if (p[POLL_LISTEN].revents || s->paused)
			accept_all(s);
	}
}

static int set_up(struct serve *s, struct error *e)
{
	sigset_t set;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->signal_fd < 0 || s->event_fd < 0)
		return error_errno(e, -errno, "descriptors of the page server");
	while (s->nworkers < s->o->threads) {
		ret = serve_worker_new(&s->workers[s->nworkers], &s->shared, s->event_fd, e);
		if (ret)
			return ret;
		s->nworkers++;
	}
	return 0;
}

int serve_run(const struct options *o, const struct log *log, struct provider *p, int listen_fd,
	      struct tls *tls, const struct serve_hooks *hooks)
{
	struct serve s = {
		.o = o,
		.log = log,
		.hooks = hooks,
		.tls = tls,
		.listen_fd = listen_fd,
		.signal_fd = -1,
		.event_fd = -1,
		.hook_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	struct serve_count count = {0};
	uint64_t began = now_ns();
	struct error e = {0};
	int status = 1;

	s.shared = (struct client_shared){p,	      log, (enum wire_layout)o->ps_layout,
					  close_hook, &s,  hooks};
	if (set_up(&s, &e)) {
		log_error(log, "%s", e.text);
	} else {
		if (listen_fd < 0)
			start_connection(&s, o->ps_socket);
		status = loop(&s);
	}
	for (unsigned i = 0; i < s.nworkers; i++)
		serve_worker_free(s.workers[i], &count);
	cleanup_close(&s.signal_fd);
	cleanup_close(&s.event_fd);
	serve_summary(o, log, &count, now_ns() - began);
	return status;
}
