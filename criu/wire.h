/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wire: the page-server protocol of CRIU, both layouts of its header. Native byte order, no
 * negotiation, nothing announces which layout it is: whoever speaks first decides. Pure: bytes in,
 * bytes out; reading and writing is stream.h's.
 *
 *   24 bytes, CRIU up to 4.1:  u32 cmd, u32 nr_pages, u64 vaddr, u64 dst_id
 *   32 bytes, CRIU from 4.2:   u32 cmd, u32 padding, u64 nr_pages, u64 vaddr, u64 dst_id
 *
 * The low half of cmd is the command, the high half flags of the page map (image_pagemap.h).
 */
#ifndef CRIU_WIRE_H
#define CRIU_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HEADER_MAX 32

enum wire_layout {
	WIRE_UNKNOWN = 0,
	WIRE_24 = 24, /* the value is the header's length in bytes */
	WIRE_32 = 32,
};

enum wire_command {
	WIRE_ADD = 1,
	WIRE_HOLE = 2,
	WIRE_OPEN = 3,
	WIRE_OPEN2 = 4,	 /* answered by one byte: whether a parent has the same image */
	WIRE_PARENT = 5, /* answered by an int32: the same */
	WIRE_ADD_F = 6,
	WIRE_GET = 7,	     /* answered by ADD_F with PRESENT, then the bytes */
	WIRE_CLOSE = 0x1023, /* answered by an int32, 0 */
	WIRE_FORCE_CLOSE = 0x1024,
};

/*
 * CLOSE of our own manager: vaddr and id are this, so that bytes 16 to 23 are it in both layouts.
 * It says that every page is in its place or was given up by its task. Stock sends zeros, and sends
 * CLOSE also when its restore has failed; nobody's server but ours looks.
 */
#define WIRE_HELD UINT64_C(0x646c65682d6c6c61) /* "all-held" */

/* dst_id of images that are written: the image's id and its kind. GET has the plain pid. */
#define WIRE_ID(id, kind) ((uint64_t)(id) << 8 | (kind))
#define WIRE_ID_KIND(dst) ((unsigned)((dst)&0xff))
#define WIRE_ID_ID(dst)	  ((dst) >> 8)
#define WIRE_KIND_TASK	  1
#define WIRE_KIND_SHMEM	  2

struct wire_header {
	uint16_t command; /* enum wire_command, or anything else that came */
	uint16_t flags;	  /* enum pagemap_flag */
	uint64_t npages;
	uint64_t vaddr; /* bytes */
	uint64_t id;
};

/* Writes @h to @to (WIRE_HEADER_MAX bytes of room). Returns the length in bytes. */
size_t wire_encode(enum wire_layout layout, const struct wire_header *h, void *to);
/* Reads a header of @layout bytes. What it says is not checked. */
void wire_decode(enum wire_layout layout, const void *from, struct wire_header *h);

/*
 * A server's guess from the first WIRE_HEADER_MAX bytes or fewer (@len) that a client has sent:
 * WIRE_UNKNOWN when more bytes are needed. A CLOSE that comes first is the same in both, and taken
 * for the long one: answer it when 24 bytes are there.
 */
enum wire_layout wire_guess(const void *first, size_t len);

/* For messages: "GET", "ADD_F" ..., or "command 0x..." in @room. */
const char *wire_command_name(uint16_t command, char room[16]);

#endif
