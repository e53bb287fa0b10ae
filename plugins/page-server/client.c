// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One client: see client.h. Each state has a function that goes on as far as it can and returns 0
 * when the state changed or something was done, -EAGAIN when the socket must be waited for, or
 * another error, which ends the connection.
 *
 * A short reply leaves in one write, with its header. Of a long one the kernel sends the bytes out
 * of their file; where there is no file (the memory of a task) they go through the buffer, piece
 * by piece.
 */
#include "client.h"

#include <errno.h>
#include <string.h>

#include "compiler.h"
#include "image_pagemap.h"

#define COPY_PAGES 16 /* at most so many go through the buffer at once */
#define COPY_FILE \
	8 /* of a file: so many pages or fewer are copied, more are sent by the kernel \
	   */
#define REPLY_MAX  (UINT64_C(1) << 18) /* pages in one reply: 1 GiB */
#define BULK_BYTES (UINT64_C(128) << 10)
#define BEGUN_NS   (UINT64_C(30) * 1000000000) /* to finish a header or a handshake */
#define LEAVING_NS (UINT64_C(10) * 1000000000) /* to go, after CLOSE */
#define SEND_MIN   ((size_t)64 << 10)
#define HEADERS	   (16 * WIRE_HEADER_MAX)

enum state {
	HANDSHAKE,
	HEADER,	 /* reading one, or idle before one */
	REPLY,	 /* sending pages */
	STATUS,	 /* sending the answer to CLOSE */
	LEAVING, /* the other side should close now */
};

struct client {
	const struct client_shared *shared;
	struct stream *stream;
	void *hooked; /* what the hooks call it */
	enum state state;
	enum wire_layout layout;
	uint64_t deadline;
	int verdict;
	struct client_count count;
	/* Headers that have come: [in_done, in_len) of @in. */
	char in[HEADERS];
	size_t in_len, in_done;
	/* The reply: [out_done, out_len) of the buffer, then what is left of the span. */
	struct span span;
	uint64_t pid, vaddr, left; /* left: bytes of the span that are not in the buffer */
	bool by_kernel;		   /* they are sent from span.fd */
	size_t out_len, out_done;
	size_t head_len; /* of the reply's header, at the front of the buffer */
	char *out;	 /* OUT_SIZE, or NULL: made when needed, given back when idle */
	char peer[CLIENT_NAME_MAX];
};

#define OUT_SIZE (WIRE_HEADER_MAX + COPY_PAGES * PAGE_SIZE)

static int refuse(const struct client *c, const char *why)
{
	log_warn(c->shared->log, "%s: %s; its connection is closed", c->peer, why);
	return -EPROTO;
}

/* The client has gone, or its connection has: an ordinary thing. */
static int gone(const struct client *c, int code)
{
	struct error e;

	error_errno(&e, code ? code : -EPIPE, "has gone");
	log_info(c->shared->log, "%s: %s; %llu pages were sent to it", c->peer,
		 code ? e.text : "has gone", (unsigned long long)c->count.pages);
	return -EPIPE;
}

static int shake_hands(struct client *c)
{
	struct error e = {0};
	int ret = stream_handshake(c->stream, &e);

	if (!ret) {
		c->state = HEADER;
		c->deadline = 0;
	} else if (ret == -ECONNRESET || ret == -EPIPE) {
		return gone(c, ret);
	} else if (ret != -EAGAIN) {
		log_warn(c->shared->log, "%s: %s; its connection is closed", c->peer, e.text);
	}
	return ret;
}

/* Refuses what can be seen to be wrong before the layout is known: it may never become so. */
static int check_command(const struct client *c, const char *bytes)
{
	char name[16], text[128];
	uint16_t command;

	memcpy(&command, bytes, sizeof(command)); /* the low half of cmd comes first */
	switch (command) {
	case WIRE_GET:
	case WIRE_CLOSE:
	case WIRE_FORCE_CLOSE:
		return 0;
	case WIRE_ADD:
	case WIRE_ADD_F:
	case WIRE_HOLE:
	case WIRE_OPEN:
	case WIRE_OPEN2:
	case WIRE_PARENT:
		snprintf(text, sizeof(text), "sends a dump (%s), but this server serves pages",
			 wire_command_name(command, name));
		return refuse(c, text);
	default:
		snprintf(text, sizeof(text), "does not speak the page-server protocol (%s)",
			 wire_command_name(command, name));
		return refuse(c, text);
	}
}

static bool is_close(const char *bytes)
{
	uint16_t command;

	memcpy(&command, bytes, sizeof(command));
	return command == WIRE_CLOSE || command == WIRE_FORCE_CLOSE;
}

/* Puts the next header in @h: 1, or 0 when some of it has not come. */
static int take_header(struct client *c, struct wire_header *h)
{
	const char *bytes = c->in + c->in_done;
	size_t len = c->in_len - c->in_done, need;
	int ret;

	if (len < sizeof(uint32_t))
		return 0;
	ret = check_command(c, bytes);
	if (ret)
		return ret;
	if (!c->layout) {
		c->layout = wire_guess(bytes, len);
		if (c->layout && !is_close(bytes))
			log_debug(c->shared->log, "%s: has headers of %u bytes", c->peer,
				  (unsigned)c->layout);
	}
	/* The shorter one will do: nothing in it counts, and the rest is not looked at. */
	need = is_close(bytes) ? WIRE_24 : (size_t)c->layout;
	if (!need || len < need)
		return 0;
	wire_decode(is_close(bytes) ? WIRE_24 : c->layout, bytes, h);
	c->in_done += need;
	return 1;
}

static char *get_buffer(struct client *c)
{
	if (!c->out)
		c->out = malloc(OUT_SIZE);
	return c->out;
}

static int refuse_get(const struct client *c, const struct wire_header *h, const char *why)
{
	char text[640];

	snprintf(text, sizeof(text), "GET of %llu pages at %#llx of pid %llu: %s",
		 (unsigned long long)h->npages, (unsigned long long)h->vaddr,
		 (unsigned long long)h->id, why);
	return refuse(c, text);
}

/* Appends pages of the span to what is in the buffer. */
static int copy_pages(struct client *c, uint64_t npages)
{
	struct error e = {0};
	int ret = provider_read(c->shared->provider, c->pid, c->vaddr, &c->span,
				c->out + c->out_len, npages, &e);

	if (ret) {
		log_write(c->shared->log, ret == -ESHUTDOWN ? LOG_INFO : LOG_ERROR,
			  "%s: pid %llu: %llu pages at %#llx: %s; its connection is closed",
			  c->peer, (unsigned long long)c->pid, (unsigned long long)npages,
			  (unsigned long long)c->vaddr, e.text);
		return ret;
	}
	if (c->shared->hooks && c->shared->hooks->given)
		c->shared->hooks->given(c->shared->hooks->context, c->hooked, c->pid, c->vaddr,
					npages);
	c->out_len += npages << PAGE_SHIFT;
	c->left -= npages << PAGE_SHIFT;
	c->vaddr += npages << PAGE_SHIFT;
	if (c->span.fd >= 0)
		c->span.offset += npages << PAGE_SHIFT;
	c->span.npages -= npages;
	return 0;
}

/* GET: the header of the reply and the first of its pages go into the buffer. */
static int begin_reply(struct client *c, const struct wire_header *h)
{
	struct wire_header reply = {
		.command = WIRE_ADD_F, .flags = PAGEMAP_PRESENT, .vaddr = h->vaddr, .id = h->id};
	struct error e = {0};

	if (!h->npages)
		return refuse_get(c, h, "there is nothing in it");
	if (h->vaddr % PAGE_SIZE)
		return refuse_get(c, h, "not the address of a page");
	if (h->npages > (UINT64_MAX - h->vaddr) / PAGE_SIZE)
		return refuse_get(c, h, "it reaches past the end of memory");
	if (provider_find(c->shared->provider, h->id, h->vaddr, MIN(h->npages, REPLY_MAX), &c->span,
			  &e))
		return refuse_get(c, h, e.text);
	if (!get_buffer(c))
		return refuse_get(c, h, "no memory for the reply");
	reply.npages = c->span.npages;
	c->out_len = c->head_len = wire_encode(c->layout, &reply, c->out);
	c->out_done = 0;
	c->pid = h->id;
	c->vaddr = h->vaddr;
	c->left = c->span.npages << PAGE_SHIFT;
	c->by_kernel = c->span.fd >= 0 && c->span.npages > COPY_FILE;
	c->count.replies++;
	c->count.pages += c->span.npages;
	c->state = REPLY;
	return c->by_kernel ? 0 : copy_pages(c, MIN(c->span.npages, COPY_PAGES));
}

static int begin_close(struct client *c, bool sure)
{
	struct error e = {0};
	int32_t status = 0;

	c->verdict = c->shared->close(c->shared->context, c->hooked, c->peer, sure, &e);
	if (c->verdict < 0) {
		status = c->verdict;
		log_warn(c->shared->log, "%s: %s", c->peer, e.text);
	} else {
		log_info(c->shared->log, "%s: has everything; %llu pages were sent to it", c->peer,
			 (unsigned long long)c->count.pages);
	}
	if (!get_buffer(c))
		return refuse(c, "no memory for the answer to CLOSE");
	memcpy(c->out, &status, sizeof(status));
	c->out_len = c->head_len = sizeof(status);
	c->out_done = 0;
	c->state = STATUS;
	return 0;
}

static int handle_header(struct client *c, const struct wire_header *h)
{
	c->deadline = 0;
	return h->command == WIRE_GET ? begin_reply(c, h) : begin_close(c, h->id == WIRE_HELD);
}

static int read_header(struct client *c, uint64_t now_ns)
{
	struct wire_header h;
	ssize_t n;
	int ret = take_header(c, &h);

	if (ret)
		return ret < 0 ? ret : handle_header(c, &h);
	memmove(c->in, c->in + c->in_done, c->in_len - c->in_done);
	c->in_len -= c->in_done;
	c->in_done = 0;
	n = stream_read(c->stream, c->in + c->in_len, sizeof(c->in) - c->in_len);
	if (n > 0) {
		c->in_len += (size_t)n;
		return 0;
	}
	if (n != -EAGAIN)
		return c->in_len ? refuse(c, "has gone in the middle of a header")
				 : gone(c, (int)n);
	if (c->in_len && !c->deadline)
		c->deadline = now_ns + BEGUN_NS;
	if (!c->in_len) {
		free(c->out);
		c->out = NULL;
	}
	return -EAGAIN;
}

/* Sends from the buffer. 0: all of it has gone. */
static int flush(struct client *c, bool more, size_t *budget)
{
	while (c->out_done < c->out_len) {
		bool apart = stream_has_records(c->stream) && c->out_done < c->head_len;
		size_t end = apart ? c->head_len : c->out_len;
		ssize_t n = stream_write(c->stream, c->out + c->out_done, end - c->out_done,
					 more || end < c->out_len);

		if (n < 0)
			return n == -EAGAIN ? -EAGAIN : gone(c, (int)n);
		c->out_done += (size_t)n;
		*budget -= MIN(*budget, (size_t)n);
	}
	c->out_done = c->out_len = c->head_len = 0;
	return 0;
}

static int send_span(struct client *c, size_t *budget)
{
	/* TLS sends records of 16 KiB. After -EAGAIN it must get the same one, so the rest of a
	 * budget may not make one shorter. */
	uint64_t len = MIN(c->left, MAX(*budget, SEND_MIN));
	ssize_t n = stream_send_file(c->stream, c->span.fd, c->span.offset, len);

	if (n == 0 || n == -ENODATA) {
		log_error(c->shared->log,
			  "%s: pid %llu: the file of pages has been cut short; its connection is "
			  "closed",
			  c->peer, (unsigned long long)c->pid);
		return -EIO;
	}
	if (n < 0)
		return n == -EAGAIN ? -EAGAIN : gone(c, (int)n);
	c->span.offset += (uint64_t)n;
	c->left -= (uint64_t)n;
	*budget -= MIN(*budget, (size_t)n);
	return 0;
}

static int send_reply(struct client *c, size_t *budget)
{
	int ret = flush(c, c->left > 0, budget);

	if (ret)
		return ret;
	if (!c->left) {
		c->state = HEADER;
		return 0;
	}
	if (!*budget)
		return 0;
	if (c->by_kernel)
		return send_span(c, budget);
	return copy_pages(c, MIN(c->left >> PAGE_SHIFT, COPY_PAGES));
}

static int send_status(struct client *c, size_t *budget, uint64_t now_ns)
{
	int ret = flush(c, false, budget);

	if (!ret) {
		c->state = LEAVING;
		c->deadline = now_ns + LEAVING_NS;
	} else if (ret == -EAGAIN && !c->deadline) {
		c->deadline = now_ns + LEAVING_NS;
	}
	return ret;
}

/* The other side closes first; what it still says is not looked at. */
static int leave(struct client *c)
{
	ssize_t n = stream_read(c->stream, c->in, sizeof(c->in));

	if (n > 0)
		return 0;
	if (n == -EAGAIN)
		return -EAGAIN;
	stream_bye(c->stream);
	return -EPIPE;
}

enum client_turn client_run(struct client *c, size_t budget, uint64_t now_ns)
{
	int ret = 0;

	while (!ret && budget) {
		/* headers and handshakes are not for nothing either */
		budget -= MIN(budget, (size_t)WIRE_HEADER_MAX);
		switch (c->state) {
		case HANDSHAKE:
			ret = shake_hands(c);
			break;
		case HEADER:
			ret = read_header(c, now_ns);
			break;
		case REPLY:
			ret = send_reply(c, &budget);
			break;
		case STATUS:
			ret = send_status(c, &budget, now_ns);
			break;
		case LEAVING:
			ret = leave(c);
			break;
		}
	}
	if (!ret)
		return CLIENT_GOES_ON;
	if (ret != -EAGAIN)
		return CLIENT_ENDED;
	/* Bytes that TLS has got already cannot be in the way: reading went on until there were
	 * none. */
	return CLIENT_WAITS;
}

struct client *client_new(const struct client_shared *shared, struct stream *s, const char *peer,
			  uint64_t now_ns)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c) {
		stream_free(s);
		return NULL;
	}
	c->shared = shared;
	c->stream = s;
	c->state = HANDSHAKE;
	c->layout = shared->layout;
	c->verdict = -1;
	c->deadline = now_ns + BEGUN_NS;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	if (shared->hooks && shared->hooks->joined)
		c->hooked = shared->hooks->joined(shared->hooks->context);
	log_info(shared->log, "%s: connected", c->peer);
	return c;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	if (c->shared->hooks && c->shared->hooks->left)
		c->shared->hooks->left(c->shared->hooks->context, c->hooked);
	stream_free(c->stream);
	free(c->out);
	free(c);
}

uint64_t client_deadline(const struct client *c)
{
	return c->deadline;
}

void client_expire(const struct client *c)
{
	static const char *const late[] = {
		[HANDSHAKE] = "has not finished its handshake in 30 seconds",
		[HEADER] = "has begun a header and not finished it in 30 seconds",
		[REPLY] = "", /* has no deadline */
		[STATUS] = "does not read the answer to its CLOSE",
		[LEAVING] = "does not close its connection after CLOSE",
	};

	if (c->state == LEAVING)
		log_info(c->shared->log, "%s: %s", c->peer, late[c->state]);
	else
		refuse(c, late[c->state]);
}

bool client_is_bulk(const struct client *c)
{
	return c->state == REPLY && c->left > BULK_BYTES;
}

int client_verdict(const struct client *c)
{
	return c->state == LEAVING ? c->verdict : -1;
}

struct client_count client_count(const struct client *c)
{
	return c->count;
}
