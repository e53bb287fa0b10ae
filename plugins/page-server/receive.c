// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a dump says, obeyed: see receive.h. Commands come one after another; the only state between
 * them is which image is open. Everything that is said is checked here or in receive_image.c.
 */
#include "receive.h"

#include <errno.h>

#include "client.h"
#include "clock.h"
#include "compiler.h"
#include "receive_image.h"
#include "receive_link.h"
#include "receive_parent.h"

/* A dump that is silent for longer than this will not go on; a host that is gone never does. */
static const struct receive_limits default_limits = {.within = 60 * 1000, .between = 600 * 1000};

struct receive {
	const struct log *log;
	struct receive_link *link;
	struct receive_dir *dir;
	struct receive_image *image; /* the open one, or NULL */
	uint64_t image_id;	     /* its id as on the wire */
	uint64_t bytes, start_ns;
	bool complete; /* files have their real names; the sender may not know yet */
	char peer[CLIENT_NAME_MAX];
};

static const char *name_image(uint64_t id, char name[48])
{
	if (WIRE_ID_KIND(id) == WIRE_KIND_SHMEM)
		snprintf(name, 48, "shared memory %llu", (unsigned long long)WIRE_ID_ID(id));
	else
		snprintf(name, 48, "task %llu", (unsigned long long)WIRE_ID_ID(id));
	return name;
}

/* Pids have 31 bits; the number of shared memory is whatever CRIU made of it. */
static int check_id(uint64_t id, struct error *e)
{
	unsigned kind = WIRE_ID_KIND(id);

	if (kind != WIRE_KIND_TASK && kind != WIRE_KIND_SHMEM)
		return error_set(e, -EBADMSG, "image id %#llx is of an unknown kind",
				 (unsigned long long)id);
	if (kind == WIRE_KIND_TASK && (!WIRE_ID_ID(id) || WIRE_ID_ID(id) > INT32_MAX))
		return error_set(e, -EBADMSG, "image id %#llx is that of no pid",
				 (unsigned long long)id);
	return 0;
}

static int end_image(struct receive *r, struct error *e)
{
	struct receive_image *im = steal_pointer(&r->image);

	return im ? receive_image_end(im, e) : 0;
}

static int on_open(struct receive *r, const struct wire_header *h, struct error *e)
{
	char name[48];
	int ret = check_id(h->id, e);

	if (!ret)
		ret = end_image(r, e);
	if (ret)
		return ret;
	log_debug(r->log, "%s: %s", r->peer, name_image(h->id, name));
	r->image_id = h->id;
	ret = receive_image_open(&r->image, r->dir, WIRE_ID_KIND(h->id), WIRE_ID_ID(h->id), e);
	if (ret == -EEXIST)
		error_set(e, ret, "opened twice");
	if (!ret && h->command == WIRE_OPEN2) {
		char has_parent = receive_image_has_parent(r->image);

		ret = receive_link_answer(r->link, &has_parent, sizeof(has_parent), e);
	}
	return ret;
}

static int on_parent(struct receive *r, const struct wire_header *h, struct error *e)
{
	struct receive_parent *parent;
	int ret = check_id(h->id, e);
	int32_t answer;

	if (ret)
		return ret;
	ret = receive_parent_open(&parent, receive_dir_chain(r->dir), WIRE_ID_KIND(h->id),
				  WIRE_ID_ID(h->id), e);
	if (ret)
		return ret;
	answer = parent != NULL;
	receive_parent_close(parent);
	return receive_link_answer(r->link, &answer, sizeof(answer), e);
}

static int take_pages(struct receive *r, const struct pagemap_entry *n, struct error *e)
{
	uint64_t left = n->npages << PAGE_SHIFT;

	while (left) {
		const void *bytes;
		ssize_t got = receive_link_bytes(r->link, &bytes, left, e);
		int ret;

		if (got < 0)
			return error_prefix(
				e, (int)got, "%#llx",
				(unsigned long long)(n->vaddr + (n->npages << PAGE_SHIFT) - left));
		ret = receive_image_write(r->image, bytes, (size_t)got, e);
		if (ret)
			return ret;
		left -= (uint64_t)got;
		r->bytes += (uint64_t)got;
	}
	return 0;
}

static int on_add(struct receive *r, const struct wire_header *h, struct error *e)
{
	struct pagemap_entry n = {.vaddr = h->vaddr, .npages = h->npages, .flags = h->flags};
	char open[48];
	int ret;

	if (!r->image)
		return error_set(e, -EBADMSG, "%#llx: no image is open",
				 (unsigned long long)h->vaddr);
	if (h->id != r->image_id)
		return error_set(e, -EBADMSG, "%#llx: the open image is %s",
				 (unsigned long long)h->vaddr, name_image(r->image_id, open));
	/* The older commands have no flags. */
	if (h->command == WIRE_ADD)
		n.flags = PAGEMAP_PRESENT;
	else if (h->command == WIRE_HOLE)
		n.flags = PAGEMAP_PARENT;
	ret = receive_image_add(r->image, &n, e);
	if (!ret && n.flags & PAGEMAP_PRESENT)
		ret = take_pages(r, &n, e);
	return ret;
}

/* Only space is at stake: the dump is complete with or without. */
static void dedup(const struct receive *r)
{
	const struct received *v;
	uint64_t punched = 0;
	size_t n;

	v = receive_dir_images(r->dir, &n);
	for (size_t i = 0; i < n; i++) {
		struct error e = {0};

		if (receive_image_dedup(r->dir, &v[i], &punched, &e)) {
			log_warn(r->log, "what came anew stays in the parent too: %s", e.text);
			break;
		}
	}
	log_info(r->log, "%llu KiB punched out of parents", (unsigned long long)punched >> 10);
}

/*
 * The socket of a sender that says FORCE_CLOSE is held by somebody else as well (--ps-socket), so
 * that its end need not come: that is the one difference.
 */
static int on_close(struct receive *r, const struct wire_header *h, bool dedups, struct error *e)
{
	const int32_t status = 0;
	size_t n;
	int ret = end_image(r, e);

	if (!ret)
		ret = receive_dir_complete(r->dir, e);
	r->complete = !ret;
	if (!ret)
		ret = receive_link_answer(r->link, &status, sizeof(status), e);
	if (ret)
		return ret;
	receive_dir_images(r->dir, &n);
	log_info(r->log, "%s: complete: %zu images, %llu MiB in %.3f s", r->peer, n,
		 (unsigned long long)r->bytes >> 20, (double)(now_ns() - r->start_ns) / 1e9);
	if (h->command == WIRE_CLOSE)
		receive_link_bye(r->link);
	if (dedups)
		dedup(r);
	return 0;
}

static int obey(struct receive *r, const struct wire_header *h, struct error *e)
{
	switch (h->command) {
	case WIRE_OPEN:
	case WIRE_OPEN2:
		return on_open(r, h, e);
	case WIRE_PARENT:
		return on_parent(r, h, e);
	case WIRE_ADD:
	case WIRE_ADD_F:
	case WIRE_HOLE:
		return on_add(r, h, e);
	case WIRE_GET:
		return error_set(e, -EOPNOTSUPP, "pages are given only with --lazy-pages");
	default:
		return error_set(e, -EBADMSG, "there is no such command");
	}
}

/* Puts in front which command of which image it was. */
static int blame(const struct wire_header *h, struct error *e)
{
	char command[16], image[48];
	bool known =
		WIRE_ID_KIND(h->id) == WIRE_KIND_TASK || WIRE_ID_KIND(h->id) == WIRE_KIND_SHMEM;

	return error_prefix(e, e->code, "%s%s%s", known ? name_image(h->id, image) : "",
			    known ? ": " : "", wire_command_name(h->command, command));
}

static int receive_all(struct receive *r, bool dedups, struct error *e)
{
	struct wire_header h;

	for (;;) {
		int ret = receive_link_header(r->link, &h, e);

		if (!ret)
			return error_set(e, -EPIPE, "the connection ended without CLOSE");
		if (ret < 0)
			return ret;
		if (h.command == WIRE_CLOSE || h.command == WIRE_FORCE_CLOSE) {
			ret = on_close(r, &h, dedups, e);
			return ret ? blame(&h, e) : 0;
		}
		ret = obey(r, &h, e);
		if (ret)
			return blame(&h, e);
	}
}

int receive_run_limited(const struct options *o, const struct log *log, struct stream *s,
			const struct receive_limits *limits, struct error *e)
{
	struct receive r = {.log = log, .start_ns = now_ns()};
	int ret;

	peer_name(stream_fd(s), r.peer);
	ret = receive_dir_open(&r.dir, o->images_fd, log, e);
	if (ret)
		return 1;
	ret = receive_link_open(&r.link, s, (enum wire_layout)o->ps_layout, limits, e);
	if (!ret)
		ret = receive_all(&r, o->auto_dedup, e);
	if (ret)
		error_prefix(e, ret, "%s: the dump is %s", r.peer,
			     r.complete ? "complete, but its sender was not told"
					: "incomplete, nothing of it can be restored");
	receive_image_close(r.image);
	receive_link_close(r.link);
	receive_dir_close(r.dir);
	return ret ? 1 : 0;
}

int receive_run(const struct options *o, const struct log *log, struct stream *s, struct error *e)
{
	return receive_run_limited(o, log, s, &default_limits, e);
}
