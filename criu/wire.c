// SPDX-License-Identifier: GPL-2.0-or-later
/* Headers of the page-server protocol, to and from bytes: see wire.h. */
#include "wire.h"

#include <stdio.h>
#include <string.h>

#include "compiler.h"

struct header_24 {
	uint32_t cmd, npages;
	uint64_t vaddr, id;
};

struct header_32 {
	uint32_t cmd, padding;
	uint64_t npages, vaddr, id;
};

_Static_assert(sizeof(struct header_24) == WIRE_24, "as on the wire");
_Static_assert(sizeof(struct header_32) == WIRE_32, "as on the wire");

size_t wire_encode(enum wire_layout layout, const struct wire_header *h, void *to)
{
	uint32_t cmd = (uint32_t)h->flags << 16 | h->command;
	struct header_24 small = {cmd, (uint32_t)h->npages, h->vaddr, h->id};
	struct header_32 large = {cmd, 0, h->npages, h->vaddr, h->id};

	memcpy(to, layout == WIRE_24 ? (void *)&small : (void *)&large, layout);
	return layout;
}

void wire_decode(enum wire_layout layout, const void *from, struct wire_header *h)
{
	struct header_24 small;
	struct header_32 large;
	uint32_t cmd;

	if (layout == WIRE_24) {
		memcpy(&small, from, sizeof(small));
		cmd = small.cmd;
		*h = (struct wire_header){
			.npages = small.npages, .vaddr = small.vaddr, .id = small.id};
	} else {
		memcpy(&large, from, sizeof(large));
		cmd = large.cmd;
		*h = (struct wire_header){
			.npages = large.npages, .vaddr = large.vaddr, .id = large.id};
	}
	h->command = (uint16_t)cmd;
	h->flags = (uint16_t)(cmd >> 16);
}

/* The largest pid of any Linux, PID_MAX_LIMIT: an address is larger, or it is not aligned. */
#define PID_LIMIT (UINT64_C(1) << 22)

/*
 * CRIU does not clear the padding of the long header: what lies there is chance. Known are the two
 * words behind it, and that senders of CRIU clear those that a command does not use.
 */
enum wire_layout wire_guess(const void *first, size_t len)
{
	uint32_t word[2];
	uint64_t middle, last; /* short layout: address and id; long layout: count and address */

	if (len < WIRE_24)
		return WIRE_UNKNOWN;
	memcpy(word, first, sizeof(word));
	memcpy(&middle, (const char *)first + 8, sizeof(middle));
	memcpy(&last, (const char *)first + 16, sizeof(last));
	switch ((uint16_t)word[0]) {
	case WIRE_GET:
	case WIRE_ADD:
	case WIRE_ADD_F:
	case WIRE_HOLE:
		if (!word[1] || middle % PAGE_SIZE)
			return WIRE_32; /* a short one would have a count, and an address here */
		if (last % PAGE_SIZE)
			return WIRE_24;
		return last > PID_LIMIT ? WIRE_32 : WIRE_24;
	default:
		/* No address: only its id ends a short one. */
		return last ? WIRE_24 : WIRE_32;
	}
}

const char *wire_command_name(uint16_t command, char room[16])
{
	static const struct {
		uint16_t command;
		const char *name;
	} names[] = {
		{WIRE_ADD, "ADD"},     {WIRE_HOLE, "HOLE"},	{WIRE_OPEN, "OPEN"},
		{WIRE_OPEN2, "OPEN2"}, {WIRE_PARENT, "PARENT"}, {WIRE_ADD_F, "ADD_F"},
		{WIRE_GET, "GET"},     {WIRE_CLOSE, "CLOSE"},	{WIRE_FORCE_CLOSE, "FORCE_CLOSE"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].command == command)
			return names[i].name;
	snprintf(room, 16, "command %#x", command);
	return room;
}
