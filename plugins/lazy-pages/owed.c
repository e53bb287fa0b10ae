// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Owed: see owed.h. A table of slots, one for each chunk of 32768 bits. A chunk is one arena page
 * that several tables may refer to: it is written to only while its count is 1, and because only
 * the owner of a table forks it, a count of 1 that we have seen stays 1. Where all bits of a chunk
 * are set, or none is, there is no page.
 *
 * A process may be killed between any two instructions, so a slot always names a chunk with the
 * right bits in it: new chunks are filled before they are named and put after they are not.
 * The sums may then be off; owed_recount() makes them anew.
 */
#include "owed.h"

#include <errno.h>
#include <string.h>

#include "compiler.h"

#define CHUNK_BITS  (UINT64_C(8) * ARENA_PAGE)
#define CHUNK_WORDS (ARENA_PAGE / 8)

#define ALL_CLEAR ((uint64_t *)0)
#define ALL_SET	  ((uint64_t *)1)

struct slot {
	uint64_t *bits; /* ALL_CLEAR, ALL_SET or a page of the arena */
	uint64_t left;	/* bits set; never below the truth, while others clear */
};

struct owed {
	uint64_t npages;
	uint64_t left;
	uint64_t nslots;
	uint64_t run; /* pages that this struct and its slots take in the arena */
	struct slot slots[];
};

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static bool has_page(const uint64_t *bits)
{
	return bits != ALL_CLEAR && bits != ALL_SET;
}

/* Bits that slot @i stands for; only the last one may have fewer than CHUNK_BITS. */
static uint64_t slot_bits(const struct owed *o, uint64_t i)
{
	return MIN(CHUNK_BITS, o->npages - i * CHUNK_BITS);
}

static void slot_set(struct slot *s, uint64_t *bits)
{
	__atomic_store_n(&s->bits, bits, __ATOMIC_RELEASE);
}

/* The bits of word @w that lie in [lo, hi). */
static uint64_t word_mask(uint64_t w, uint64_t lo, uint64_t hi)
{
	uint64_t mask = ~UINT64_C(0);

	if (lo > w * 64)
		mask &= ~UINT64_C(0) << (lo - w * 64);
	if (hi < w * 64 + 64)
		mask &= ~(~UINT64_C(0) << (hi - w * 64));
	return mask;
}

/* First bit from @lo on that is set after the xor with @flip; not below @hi when there is none. */
static uint64_t scan(const uint64_t *bits, uint64_t lo, uint64_t hi, uint64_t flip)
{
	uint64_t word = (load(&bits[lo / 64]) ^ flip) & ~UINT64_C(0) << lo % 64;

	for (uint64_t w = lo / 64;;) {
		if (word)
			return w * 64 + (uint64_t)__builtin_ctzll(word);
		if (++w * 64 >= hi)
			return hi;
		word = load(&bits[w]) ^ flip;
	}
}

struct owed *owed_new(struct arena *a, uint64_t npages)
{
	uint64_t nslots = npages / CHUNK_BITS + !!(npages % CHUNK_BITS);
	uint64_t run = (sizeof(struct owed) + nslots * sizeof(struct slot) - 1) / ARENA_PAGE + 1;
	struct owed *o = arena_run_new(a, run);

	if (!o)
		return NULL;
	o->npages = npages;
	o->left = npages;
	o->nslots = nslots;
	o->run = run;
	for (uint64_t i = 0; i < nslots; i++)
		o->slots[i] = (struct slot){ALL_SET, slot_bits(o, i)};
	return o;
}

static void slot_drop(struct arena *a, struct slot *s)
{
	uint64_t *bits = s->bits;

	slot_set(s, ALL_CLEAR);
	__atomic_store_n(&s->left, 0, __ATOMIC_RELAXED);
	if (has_page(bits))
		arena_page_put(a, bits);
}

struct owed *owed_fork(struct arena *a, struct owed *from)
{
	struct owed *o = arena_run_new(a, from->run);

	if (!o)
		return NULL;
	o->npages = from->npages;
	o->left = from->left;
	o->nslots = from->nslots;
	o->run = from->run;
	for (uint64_t i = 0; i < o->nslots; i++) {
		struct slot *s = &from->slots[i];

		if (!s->left && has_page(s->bits))
			slot_drop(a, s);
		if (has_page(s->bits))
			arena_page_ref(a, s->bits);
		o->slots[i] = *s;
	}
	return o;
}

void owed_free(struct arena *a, struct owed *o)
{
	if (!o)
		return;
	for (uint64_t i = 0; i < o->nslots; i++)
		if (has_page(o->slots[i].bits))
			arena_page_put(a, o->slots[i].bits);
	arena_run_free(a, o, o->run);
}

void owed_recount(struct arena *a, struct owed *o)
{
	arena_run_ref(a, o, o->run);
	o->left = 0;
	for (uint64_t i = 0; i < o->nslots; i++) {
		struct slot *s = &o->slots[i];

		s->left = s->bits == ALL_SET ? slot_bits(o, i) : 0;
		if (has_page(s->bits)) {
			arena_page_ref(a, s->bits);
			for (int w = 0; w < CHUNK_WORDS; w++)
				s->left += (uint64_t)__builtin_popcountll(s->bits[w]);
		}
		o->left += s->left;
	}
}

uint64_t owed_npages(const struct owed *o)
{
	return o->npages;
}

uint64_t owed_left(const struct owed *o)
{
	return load(&o->left);
}

bool owed_test(const struct owed *o, uint64_t index)
{
	const uint64_t *bits;

	if (index >= o->npages)
		return false;
	bits = o->slots[index / CHUNK_BITS].bits;
	if (!has_page(bits))
		return bits == ALL_SET;
	return load(&bits[index % CHUNK_BITS / 64]) >> index % 64 & 1;
}

uint64_t owed_next(const struct owed *o, uint64_t from, uint64_t to)
{
	uint64_t end = MIN(to, o->npages);

	while (from < end) {
		uint64_t i = from / CHUNK_BITS, base = i * CHUNK_BITS;
		uint64_t hi = MIN(end - base, CHUNK_BITS);

		if (load(&o->slots[i].left)) {
			const uint64_t *bits = o->slots[i].bits;
			uint64_t found;

			if (bits == ALL_SET)
				return from;
			found = scan(bits, from - base, hi, 0);
			if (found < hi)
				return base + found;
		}
		from = base + hi;
	}
	return to;
}

uint64_t owed_next_clear(const struct owed *o, uint64_t from, uint64_t to)
{
	uint64_t end = MIN(to, o->npages);

	while (from < end) {
		uint64_t i = from / CHUNK_BITS, base = i * CHUNK_BITS;
		uint64_t hi = MIN(end - base, CHUNK_BITS);
		const uint64_t *bits = o->slots[i].bits;

		if (bits == ALL_CLEAR)
			return from;
		if (bits != ALL_SET) {
			uint64_t found = scan(bits, from - base, hi, ~UINT64_C(0));

			if (found < hi)
				return base + found;
		}
		from = base + hi;
	}
	return MIN(from, to);
}

/* Gives slot @i a chunk that nobody else refers to. */
static int slot_own(struct arena *a, struct owed *o, uint64_t i)
{
	struct slot *s = &o->slots[i];
	uint64_t *old = s->bits;
	uint64_t *bits;

	if (old == ALL_CLEAR || (old != ALL_SET && arena_page_refs(a, old) == 1))
		return 0;
	bits = arena_page_new(a, 0);
	if (!bits)
		return -ENOMEM;
	if (old == ALL_SET)
		for (uint64_t w = 0; w < CHUNK_WORDS; w++)
			bits[w] = w * 64 < slot_bits(o, i) ? word_mask(w, 0, slot_bits(o, i)) : 0;
	else
		memcpy(bits, old, ARENA_PAGE);
	slot_set(s, bits);
	if (old != ALL_SET)
		arena_page_put(a, old);
	return 0;
}

/*
 * Clears [lo, hi) of a private chunk. The words at both ends may hold bits that another thread
 * clears now; those between are ours alone.
 */
static uint64_t clear_bits(struct owed *o, struct slot *s, uint64_t lo, uint64_t hi)
{
	uint64_t cleared = 0;

	for (uint64_t w = lo / 64; w * 64 < hi; w++) {
		uint64_t mask = word_mask(w, lo, hi);
		uint64_t old = load(&s->bits[w]);

		if (!(old & mask))
			continue;
		if (~mask)
			old = __atomic_fetch_and(&s->bits[w], ~mask, __ATOMIC_RELAXED);
		else
			__atomic_store_n(&s->bits[w], 0, __ATOMIC_RELAXED);
		cleared += (uint64_t)__builtin_popcountll(old & mask);
	}
	if (cleared) {
		__atomic_fetch_sub(&s->left, cleared, __ATOMIC_RELAXED);
		__atomic_fetch_sub(&o->left, cleared, __ATOMIC_RELAXED);
	}
	return cleared;
}

/* Does [from, to) cover only a part of the slot that @index is in, with something set in it? */
static bool needs_page(const struct owed *o, uint64_t index, uint64_t from, uint64_t to)
{
	uint64_t base = index / CHUNK_BITS * CHUNK_BITS;
	uint64_t end = base + slot_bits(o, index / CHUNK_BITS);

	if (from <= base && to >= end)
		return false;
	from = MAX(from, base);
	to = MIN(to, end);
	return owed_next(o, from, to) < to;
}

int owed_prepare(struct arena *a, struct owed *o, uint64_t from, uint64_t to)
{
	int ret = 0;

	to = MIN(to, o->npages);
	if (from >= to)
		return 0;
	if (needs_page(o, from, from, to))
		ret = slot_own(a, o, from / CHUNK_BITS);
	if (!ret && needs_page(o, to - 1, from, to))
		ret = slot_own(a, o, (to - 1) / CHUNK_BITS);
	return ret;
}

int64_t owed_clear(struct arena *a, struct owed *o, uint64_t from, uint64_t to)
{
	uint64_t cleared = 0;

	if (owed_prepare(a, o, from, to))
		return -ENOMEM;
	to = MIN(to, o->npages);
	while (from < to) {
		uint64_t i = from / CHUNK_BITS, base = i * CHUNK_BITS;
		uint64_t hi = MIN(to - base, CHUNK_BITS);
		struct slot *s = &o->slots[i];

		if (from == base && hi == slot_bits(o, i)) {
			uint64_t left = load(&s->left);

			slot_drop(a, s);
			__atomic_fetch_sub(&o->left, left, __ATOMIC_RELAXED);
			cleared += left;
		} else if (load(&s->left) && owed_next(o, from, base + hi) < base + hi) {
			cleared += clear_bits(o, s, from - base, hi);
		}
		from = base + hi;
	}
	return (int64_t)cleared;
}

int owed_own(struct arena *a, struct owed *o, uint64_t from, uint64_t to)
{
	to = MIN(to, o->npages);
	while (from < to) {
		uint64_t i = from / CHUNK_BITS;

		if (load(&o->slots[i].left) && slot_own(a, o, i))
			return -ENOMEM;
		from = (i + 1) * CHUNK_BITS;
	}
	return 0;
}

uint64_t owed_clear_shared(struct owed *o, uint64_t from, uint64_t to)
{
	uint64_t cleared = 0;

	to = MIN(to, o->npages);
	while (from < to) {
		uint64_t i = from / CHUNK_BITS, base = i * CHUNK_BITS;
		uint64_t hi = MIN(to - base, CHUNK_BITS);
		struct slot *s = &o->slots[i];

		/* Ranges are lent only after owed_own(): there is no way on from here. */
		if (s->bits == ALL_SET)
			abort();
		if (s->bits != ALL_CLEAR && load(&s->left))
			cleared += clear_bits(o, s, from - base, hi);
		from = base + hi;
	}
	return cleared;
}
