/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A task with an arena, extents, owed bits and a map of its own, as tests of the map need it. */
#ifndef SPACE_TASK_H
#define SPACE_TASK_H

#include "unit.h"

#include "compiler.h"
#include "space.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

struct task {
	struct arena *arena;
	struct extents x;
	struct owed *owed;
	struct space *s;
};

static inline void begin(struct task *t)
{
	memset(t, 0, sizeof(*t));
	assert_int_equal(arena_new(&t->arena, 64 * MIB, NULL), 0);
	extents_init(&t->x);
}

static inline void lazy(struct task *t, uint64_t vaddr, uint64_t bytes, uint64_t where)
{
	assert_int_equal(extents_add(&t->x, vaddr, bytes / PAGE_SIZE, where, NULL), 0);
}

static inline void ready(struct task *t)
{
	assert_int_equal(extents_seal(&t->x, NULL), 0);
	t->owed = owed_new(t->arena, t->x.npages);
	assert_non_null(t->owed);
	t->s = space_new(t->arena, &t->x, t->owed);
	assert_non_null(t->s);
}

static inline void end(struct task *t)
{
	space_free(t->s);
	owed_free(t->arena, t->owed);
	assert_int_equal(arena_used(t->arena), 0);
	extents_free(&t->x);
	arena_free(t->arena);
}

static inline void place(struct task *t, uint64_t index, uint64_t npages)
{
	assert_int_equal(owed_clear(t->arena, t->owed, index, index + npages), npages);
}

#endif
