// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Set-up of the page server, in the order in which things can be refused: options, credentials,
 * images, the socket, and only then a dump that is attached to: once it has a connection of ours,
 * to give up is no longer free. See page_server.h.
 */
#include "page_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "attach.h"
#include "checkpoint.h"
#include "client.h"
#include "compiler.h"
#include "daemon.h"
#include "net.h"
#include "provider.h"
#include "receive.h"
#include "serve.h"
#include "stream.h"
#include "tls.h"

struct page_server {
	const struct options *o;
	struct log *log;
	struct tls *tls;	    /* NULL: plain text */
	struct net_address address; /* where it listens, while listen_fd >= 0 */
	int listen_fd;
	struct checkpoint *checkpoint;
	struct provider *images;
};

static int check_options(const struct options *o, const struct log *log, struct error *e)
{
	if (o->attach && o->ps_socket >= 0)
		return error_set(e, -EINVAL, "--attach and --ps-socket: one of the two");
	/* Before there is a dump that depends on us. */
	if (o->attach && o->daemon && o->pidfile && !access(o->pidfile, F_OK))
		return error_set(e, -EEXIST, "pidfile %s is there already: is its daemon running?",
				 o->pidfile);
	if (o->auto_dedup && (o->attach || o->lazy_pages))
		log_info(log, "option --auto-dedup has no effect here: nothing is received");
	return 0;
}

/* Called before there are threads, which inherit the mask: serve_run() has a descriptor for them.
 */
static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* One descriptor a connection. */
static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

static int open_images(struct page_server *s, struct error *e)
{
	const struct checkpoint *c;
	uint64_t pages = 0;
	int ret;

	ret = checkpoint_load(&s->checkpoint, s->o->images_fd, s->o->images_dir, false, e);
	if (ret)
		return ret;
	c = s->checkpoint;
	s->images = provider_images_new(c);
	if (!s->images)
		return error_errno(e, -ENOMEM, "%s", s->o->images_dir);
	for (size_t i = 0; i < c->ntasks; i++)
		pages += c->tasks[i].extents.npages;
	log_info(s->log, "%s: %zu tasks, %llu lazy pages in %zu files", s->o->images_dir, c->ntasks,
		 (unsigned long long)pages, c->nfiles);
	return 0;
}

static uint16_t port_of(const struct net_address *a)
{
	switch (a->sa.ss_family) {
	case AF_INET:
		return ntohs(((const struct sockaddr_in *)&a->sa)->sin_port);
	case AF_INET6:
		return ntohs(((const struct sockaddr_in6 *)&a->sa)->sin6_port);
	default:
		return 0;
	}
}

static int start_listening(struct page_server *s, struct error *e)
{
	int ret;

	ret = net_resolve(&s->address, s->o->address, s->o->port, e);
	if (ret)
		return error_prefix(e, ret, "--address");
	ret = net_listen(&s->address, e);
	if (ret < 0)
		return error_prefix(e, ret, "cannot listen");
	s->listen_fd = ret;
	/* in stock's words: scripts look for them */
	if (!s->o->port && port_of(&s->address))
		log_info(s->log, "Using %u port", port_of(&s->address));
	log_info(s->log, "listens on %s", s->address.text);
	if (!s->tls && !net_is_local(&s->address))
		log_warn(s->log,
			 "%s is not this machine's alone and there is no --tls: whoever reaches it "
			 "can read, or send, the memory of processes unseen",
			 s->address.text);
	return 0;
}

static void stop_listening(struct page_server *s)
{
	if (s->listen_fd < 0)
		return;
	close(s->listen_fd);
	s->listen_fd = -1;
	if (s->address.sa.ss_family == AF_UNIX)
		unlink(((struct sockaddr_un *)&s->address.sa)->sun_path);
}

static int set_up(struct page_server *s, struct error *e)
{
	int ret = check_options(s->o, s->log, e);

	if (!ret && s->o->tls)
		ret = tls_load(&s->tls, s->o, true, e);
	if (!ret && s->o->lazy_pages && !s->o->attach)
		ret = open_images(s, e);
	if (!ret && s->o->ps_socket < 0)
		ret = start_listening(s, e);
	return ret;
}

static void tear_down(struct page_server *s)
{
	stop_listening(s);
	provider_close(s->images);
	checkpoint_free(s->checkpoint);
	tls_free(s->tls);
}

static int run_serve(struct page_server *s, struct error *e)
{
	int ret = daemon_ready(s->o, e);

	if (ret)
		return ret;
	return serve_run(s->o, s->log, s->images, s->listen_fd, s->tls, NULL);
}

/* Waits for the one connection that there will be. */
static int accept_sender(const struct page_server *s, struct error *e)
{
	struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};

	for (;;) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			return fd;
		/* A sender that left before we looked was none. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return error_errno(e, -errno, "accept");
		poll(&p, 1, -1);
	}
}

static int run_receive(struct page_server *s, struct error *e)
{
	struct stream *stream;
	int fd, ret;

	ret = daemon_ready(s->o, e);
	if (ret)
		return ret;
	fd = s->o->ps_socket >= 0 ? s->o->ps_socket : accept_sender(s, e);
	if (fd < 0)
		return fd;
	stop_listening(s);
	stream = stream_new(fd, s->tls, true, NULL);
	if (!stream)
		return error_errno(e, -ENOMEM, "connection");
	ret = receive_run(s->o, s->log, stream, e);
	stream_free(stream);
	return ret ? e->code : 0;
}

static int run_attach(struct page_server *s, struct error *e)
{
	return attach_run(s->o, s->log, s->listen_fd, s->address.text, s->tls, e);
}

int page_server_run(const struct options *o, struct log *log)
{
	struct page_server s = {.o = o, .log = log, .listen_fd = -1};
	struct error e = {0};
	int ret;

	raise_limits();
	if (o->lazy_pages || o->attach)
		block_signals();
	ret = set_up(&s, &e);
	if (!ret && o->attach)
		ret = run_attach(&s, &e);
	else if (!ret && o->lazy_pages)
		ret = run_serve(&s, &e);
	else if (!ret)
		ret = run_receive(&s, &e);
	if (ret < 0) {
		log_error(log, "%s", e.text);
		daemon_failed(o, &e);
		ret = 1;
	}
	tear_down(&s);
	return ret;
}
