// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two sources as one: what the images here have comes from them (a local parent, what was dumped
 * whole), everything else from the page server. Which it is is known by the file that a page is in.
 */
#include <stdlib.h>

#include "source.h"

struct source_chain {
	struct source source;
	const struct checkpoint *c;
	struct source *image, *remote;
};

static struct source *has(struct source *source, uint64_t where)
{
	struct source_chain *s = (struct source_chain *)source;

	return s->c->files[WHERE_FILE(where)].pid ? s->remote : s->image;
}

static int chain_fetch(struct source *s, uint64_t where, uint64_t npages, void *scratch,
		       const void **bytes)
{
	return source_fetch(has(s, where), where, npages, scratch, bytes);
}

static const void *chain_in_memory(struct source *s, uint64_t where, uint64_t npages)
{
	return source_in_memory(has(s, where), where, npages);
}

static int chain_want(struct source *s, uint64_t where, uint64_t npages, bool urgent, int event_fd)
{
	return source_want(has(s, where), where, npages, urgent, event_fd);
}

static void chain_watch(struct source *s, int event_fd, int epoll_fd, void *tag)
{
	source_watch(((struct source_chain *)s)->remote, event_fd, epoll_fd, tag);
}

static void chain_pump(struct source *s)
{
	source_pump(((struct source_chain *)s)->remote);
}

static int chain_finish(struct source *s, bool held, int event_fd)
{
	return source_finish(((struct source_chain *)s)->remote, held, event_fd);
}

static void chain_state(struct source *s, struct source_state *state)
{
	source_state(((struct source_chain *)s)->remote, state);
}

static void chain_close(struct source *source)
{
	struct source_chain *s = (struct source_chain *)source;

	source_close(s->image);
	source_close(s->remote);
	free(s);
}

struct source *source_chain_new(const struct checkpoint *c, struct source *image,
				struct source *remote)
{
	static const struct source_ops ops = {
		.fetch = chain_fetch,
		.in_memory = chain_in_memory,
		.want = chain_want,
		.watch = chain_watch,
		.pump = chain_pump,
		.finish = chain_finish,
		.state = chain_state,
		.close = chain_close,
	};
	struct source_chain *s = calloc(1, sizeof(*s));

	if (!s || !image || !remote) {
		source_close(image);
		source_close(remote);
		free(s);
		return NULL;
	}
	*s = (struct source_chain){{&ops}, c, image, remote};
	return &s->source;
}
