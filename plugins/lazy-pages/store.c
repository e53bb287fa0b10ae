// SPDX-License-Identifier: GPL-2.0-or-later
/* Pages that have arrived: see store.h. A hash of chunks, and a list of them by use. */
#include "store.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "compiler.h"

#define SPARED	    2
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_SIZE)

struct store {
	size_t n, used; /* chunks, and those that have ever been made */
	struct chunk *chunks;
	struct chunk **hash; /* n of them */
	struct chunk *newest, *oldest;
	char *bytes;
	bool forget; /* what has been fetched */
};

struct store *store_new(size_t n)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->n = n;
	s->chunks = calloc(n, sizeof(*s->chunks));
	s->hash = calloc(n, sizeof(*s->hash));
	s->bytes = mmap(NULL, n * CHUNK_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->chunks && s->hash && s->bytes != MAP_FAILED)
		return s;
	store_free(s);
	return NULL;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	if (s->bytes != MAP_FAILED)
		munmap(s->bytes, s->n * CHUNK_BYTES);
	free(s->chunks);
	free(s->hash);
	free(s);
}

static uint64_t base_of(uint64_t where)
{
	return where & ~(uint64_t)(CHUNK_PAGES - 1);
}

static struct chunk **slot(struct store *s, uint64_t base)
{
	return &s->hash[(base / CHUNK_PAGES * UINT64_C(0x9e3779b97f4a7c15) >> 20) % s->n];
}

static void list_remove(struct store *s, struct chunk *c)
{
	*(c->newer ? &c->newer->older : &s->newest) = c->older;
	*(c->older ? &c->older->newer : &s->oldest) = c->newer;
}

static void list_add(struct store *s, struct chunk *c)
{
	c->newer = NULL;
	c->older = s->newest;
	*(c->older ? &c->older->newer : &s->oldest) = c;
	s->newest = c;
}

struct chunk *store_find(struct store *s, uint64_t where)
{
	uint64_t base = base_of(where);
	struct chunk *c = *slot(s, base);

	while (c && c->base != base)
		c = c->next;
	if (c && c != s->newest) {
		list_remove(s, c);
		list_add(s, c);
	}
	return c;
}

static bool can_go(const struct chunk *c)
{
	return !c->inflight && !c->pins && !c->asked;
}

static bool is_fetched(const struct chunk *c)
{
	return can_go(c) && c->here && c->here == c->taken;
}

void store_keep(struct store *s, bool fetched)
{
	s->forget = !fetched;
}

/* Room for a chunk: see store_keep(); else one that was never used, or the oldest that can go. */
static struct chunk *room(struct store *s)
{
	struct chunk *c = s->forget ? s->newest : NULL, **p;
	unsigned spared = 0;

	/* What was fetched just now may have to be placed once more. */
	while (c && (!is_fetched(c) || spared++ < SPARED))
		c = c->older;
	if (!c && s->used < s->n) {
		c = &s->chunks[s->used];
		c->bytes = s->bytes + s->used++ * CHUNK_BYTES;
		return c;
	}
	if (!c)
		c = s->oldest;
	while (c && !can_go(c))
		c = c->newer;
	if (!c)
		return NULL;
	list_remove(s, c);
	for (p = slot(s, c->base); *p != c; p = &(*p)->next)
		;
	*p = c->next;
	return c;
}

struct chunk *store_make(struct store *s, uint64_t where)
{
	struct chunk *c = store_find(s, where), **p;

	if (c)
		return c;
	c = room(s);
	if (!c)
		return NULL;
	*c = (struct chunk){.base = base_of(where), .bytes = c->bytes};
	p = slot(s, c->base);
	c->next = *p;
	*p = c;
	list_add(s, c);
	return c;
}

uint64_t chunk_mask(uint64_t where, uint64_t npages)
{
	uint64_t bits = npages == CHUNK_PAGES ? ~UINT64_C(0) : (UINT64_C(1) << npages) - 1;

	return bits << (where - base_of(where));
}

char *chunk_bytes(const struct chunk *c, uint64_t where)
{
	return c->bytes + ((where - c->base) << PAGE_SHIFT);
}

uint64_t chunk_rest(uint64_t where)
{
	return CHUNK_PAGES - (where - base_of(where));
}

size_t store_fresh(const struct store *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->used; i++)
		n += s->chunks[i].asked || s->chunks[i].here & ~s->chunks[i].taken;
	return n;
}

size_t store_chunks(const struct store *s)
{
	return s->n;
}

void store_forget_fresh(struct store *s)
{
	for (size_t i = 0; i < s->used; i++)
		s->chunks[i].taken = s->chunks[i].here;
}
