// SPDX-License-Identifier: GPL-2.0-or-later
/* Headers of the page-server protocol, and the guess at their layout, padding being chance. */
#include "unit.h"

#include "compiler.h"
#include "wire.h"

static const uint32_t paddings[] = {0, 1, 32764, 0x1000, 0xffffffff};

/* What stock peers begin with: the ends of what is possible, and ids that look like addresses. */
static const struct wire_header firsts[] = {
	{.command = WIRE_OPEN2, .id = WIRE_ID(1, WIRE_KIND_TASK)},
	{.command = WIRE_OPEN2, .id = WIRE_ID(4194303, WIRE_KIND_TASK)},
	{.command = WIRE_OPEN, .id = WIRE_ID(4096, WIRE_KIND_SHMEM)},
	{.command = WIRE_PARENT, .id = WIRE_ID(16311, WIRE_KIND_TASK)},
	{.command = WIRE_GET, .npages = 1, .vaddr = 0x55ec29d5b000, .id = 12},
	{.command = WIRE_GET, .npages = 4096, .vaddr = 0x7ffff7ff0000, .id = 4096},
	{.command = WIRE_GET, .npages = 1024, .vaddr = 0x400000, .id = 65536},
	{.command = WIRE_GET, .npages = 1, .vaddr = 0x10000, .id = 4194303},
	{.command = WIRE_ADD_F, .flags = 4, .npages = 1, .vaddr = 0, .id = WIRE_ID(1, 2)},
	{.command = WIRE_ADD_F, .flags = 6, .npages = 256, .vaddr = 0x7000, .id = WIRE_ID(1, 1)},
};

static void both_layouts_are_told_apart_whatever_the_padding(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(firsts); i++) {
		char bytes[WIRE_HEADER_MAX];

		assert_int_equal(wire_encode(WIRE_24, &firsts[i], bytes), 24);
		assert_int_equal(wire_guess(bytes, 24), WIRE_24);
		for (size_t k = 0; k < ARRAY_SIZE(paddings); k++) {
			/* the one case in which nothing tells: 16 MiB asked for below 4 MiB */
			if (firsts[i].npages % PAGE_SIZE == 0 && firsts[i].npages &&
			    firsts[i].vaddr <= 1 << 22)
				continue;
			assert_int_equal(wire_encode(WIRE_32, &firsts[i], bytes), 32);
			memcpy(bytes + 4, &paddings[k], 4);
			assert_int_equal(wire_guess(bytes, 24), WIRE_32);
			assert_int_equal(wire_guess(bytes, 32), WIRE_32);
		}
	}
}

static void fewer_than_24_bytes_tell_nothing(void **state)
{
	char bytes[WIRE_HEADER_MAX];

	(void)state;
	wire_encode(WIRE_32, &firsts[4], bytes);
	for (size_t len = 0; len < 24; len++)
		assert_int_equal(wire_guess(bytes, len), WIRE_UNKNOWN);
}

static void headers_come_back_as_they_were(void **state)
{
	const struct wire_header h = {WIRE_ADD_F, 6, 0xfffffff0, 0x7ffffffff000, WIRE_ID(77, 2)};
	char bytes[WIRE_HEADER_MAX];

	(void)state;
	for (enum wire_layout l = WIRE_24; l <= WIRE_32; l += 8) {
		struct wire_header back;

		assert_int_equal(wire_encode(l, &h, bytes), l);
		wire_decode(l, bytes, &back);
		assert_int_equal(back.command, h.command);
		assert_int_equal(back.flags, h.flags);
		assert_int_equal(back.npages, h.npages);
		assert_int_equal(back.vaddr, h.vaddr);
		assert_int_equal(back.id, h.id);
		assert_int_equal(WIRE_ID_ID(back.id), 77);
		assert_int_equal(WIRE_ID_KIND(back.id), WIRE_KIND_SHMEM);
	}
}

/* Zeros, or commands that nobody has: taken for what is current, so that an answer is not late. */
static void a_first_word_without_more_is_taken_for_long(void **state)
{
	static const uint16_t commands[] = {WIRE_CLOSE, WIRE_FORCE_CLOSE, 0, 8, 0xffff};
	char bytes[WIRE_HEADER_MAX], room[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct wire_header h = {.command = commands[i]};

		wire_encode(WIRE_32, &h, bytes);
		assert_int_equal(wire_guess(bytes, 23), WIRE_UNKNOWN);
		assert_int_equal(wire_guess(bytes, 24), WIRE_32);
	}
	assert_string_equal(wire_command_name(WIRE_CLOSE, room), "CLOSE");
	assert_string_equal(wire_command_name(0xffff, room), "command 0xffff");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_layouts_are_told_apart_whatever_the_padding),
		cmocka_unit_test(fewer_than_24_bytes_tell_nothing),
		cmocka_unit_test(headers_come_back_as_they_were),
		cmocka_unit_test(a_first_word_without_more_is_taken_for_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
