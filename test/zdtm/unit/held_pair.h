/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A held connection over TCP, with its other end, the dump's, in our hands. */
#ifndef HELD_PAIR_H
#define HELD_PAIR_H

#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "held.h"
#include "image_pagemap.h"

struct held_pair {
	struct held held;
	bool busy;
	int dump; /* the other end, which waits */
};

static inline void held_pair_open(struct held_pair *p)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
	struct net_address a = {.len = sizeof(in), .text = "the dump"};
	socklen_t len = sizeof(in);
	struct error e = {0};

	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &len), 0);
	memcpy(&a.sa, &in, sizeof(in));
	fd = held_connect(&a, &e);
	assert_true(fd >= 0);
	p->dump = accept(listener, NULL, NULL);
	assert_true(p->dump >= 0);
	close(listener);
	p->busy = false;
	held_init(&p->held, fd, WIRE_32, &p->busy);
}

static inline void held_pair_close(struct held_pair *p)
{
	cleanup_close(&p->held.fd);
	cleanup_close(&p->dump);
}

/* The dump's answer to a GET; may be sent before it is asked. */
static inline void dump_answers(struct held_pair *p, uint64_t pid, uint64_t vaddr, uint64_t npages,
				int byte)
{
	struct wire_header h = {WIRE_ADD_F, PAGEMAP_PRESENT, npages, vaddr, pid};
	char header[WIRE_HEADER_MAX], page[PAGE_SIZE];

	memset(page, byte, sizeof(page));
	assert_int_equal(send(p->dump, header, wire_encode(WIRE_32, &h, header), 0), WIRE_32);
	for (uint64_t i = 0; i < npages; i++)
		assert_int_equal(send(p->dump, page, sizeof(page), 0), sizeof(page));
}

/* The dump reads a header. */
static inline struct wire_header dump_reads(struct held_pair *p)
{
	char bytes[WIRE_32];
	struct wire_header h;

	assert_int_equal(recv(p->dump, bytes, sizeof(bytes), MSG_WAITALL), sizeof(bytes));
	wire_decode(WIRE_32, bytes, &h);
	return h;
}

/* What the dump finds behind all that it has read: 0, a plain end, or ECONNRESET. */
static inline int dump_finds_end(struct held_pair *p)
{
	char byte;
	ssize_t n = recv(p->dump, &byte, 1, 0);

	assert_true(n <= 0);
	return n ? errno : 0;
}

#endif
