// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The first connection to the page server, made by the keeper so that a server that cannot be
 * reached is told of before a restore begins. See source_remote.h.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "compiler.h"
#include "source_remote.h"
#include "stream.h"
#include "tls.h"

#define START_MS 10000

/* A descriptor that the caller of the program has connected. */
static struct stream *given(const struct peer *p, int fd, struct error *e)
{
	struct stream *s;
	int ret;

	if (p->tls) {
		error_set(e, -EOPNOTSUPP, "--ps-socket and --tls do not go together");
		return NULL;
	}
	s = stream_new(fd, NULL, false, NULL);
	ret = s ? stream_handshake(s, e) : -ENOMEM;
	if (!ret)
		return s;
	error_prefix(e, ret, "--ps-socket %d", fd);
	stream_free(s);
	return NULL;
}

int remote_connect(struct remote_start *start, const struct options *o, const struct checkpoint *c,
		   struct journal *j, struct error *e)
{
	enum wire_layout layout = o->ps_layout == 24   ? WIRE_24
				  : o->ps_layout == 32 ? WIRE_32
				  : c->long_counts     ? WIRE_32
						       : WIRE_24;
	struct peer *p = &start->peer;
	int ret = 0;

	if (o->tls) {
		ret = tls_load(&p->tls, o, false, e);
		if (ret)
			return ret;
		p->host = o->tls_no_cn_verify ? NULL : o->address;
	}
	if (o->ps_socket >= 0) {
		snprintf(p->address.text, sizeof(p->address.text), "socket %d", o->ps_socket);
		start->stream = given(p, o->ps_socket, e);
	} else {
		if (!o->address && !o->port)
			return error_set(e, -EINVAL,
					 "--page-server: --address and --port say where");
		ret = net_resolve(&p->address, o->address ? o->address : "127.0.0.1", o->port, e);
		if (ret)
			return ret;
		p->known = true;
		start->stream = peer_connect(p, START_MS, e);
	}
	if (!start->stream)
		return error_prefix(e, e->code, "page server");
	/* If all of the manager dies, the source is to go on, not to think that all is well. */
	stream_reset_on_close(start->stream, true);
	link_record_open(&j->link, stream_fd(start->stream), layout, o->tls);
	return 0;
}

void remote_disconnect(struct remote_start *start)
{
	stream_free(start->stream);
	start->stream = NULL;
	tls_free(start->peer.tls);
	start->peer.tls = NULL;
}
