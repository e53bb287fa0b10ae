// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Futexes, mutexes and condition variables that live in owed memory: the kernel compares, wakes and
 * requeues there. Each pair of threads counts to 100 in turns, on pages of its own.
 */
#include <linux/futex.h>

#include "lazytest.h"

#define PAIRS 8
#define TURNS 100

/* Each member on a page of its own, far from the others. */
struct meeting {
	uint32_t word __attribute__((aligned(128 * 4096)));
	pthread_mutex_t mutex __attribute__((aligned(128 * 4096)));
	pthread_cond_t turned __attribute__((aligned(128 * 4096)));
	pthread_mutex_t inherit __attribute__((aligned(128 * 4096)));
	int turn, count;
};

struct party {
	struct meeting *m;
	int side;
};

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *t)
{
	return syscall(SYS_futex, word, op, value, t, NULL, 0);
}

static void *party_main(void *arg)
{
	struct party *p = arg;
	struct meeting *m = p->m;

	test_wait_go();
	if (p->side) {
		test_sleep_ms(20);
		must(futex(&m->word, FUTEX_WAKE, 1, NULL) >= 0);
		__atomic_store_n(&m->word, 78, __ATOMIC_SEQ_CST);
		must(futex(&m->word, FUTEX_WAKE, 1, NULL) >= 0);
	} else {
		while (__atomic_load_n(&m->word, __ATOMIC_SEQ_CST) != 78)
			must(!futex(&m->word, FUTEX_WAIT, 77, NULL) || errno == EAGAIN ||
			     errno == EINTR);
	}
	pthread_mutex_lock(&m->mutex);
	for (int i = 0; i < TURNS; i++) {
		while (m->turn != p->side)
			pthread_cond_wait(&m->turned, &m->mutex);
		pthread_mutex_lock(&m->inherit);
		m->count++;
		pthread_mutex_unlock(&m->inherit);
		m->turn = !p->side;
		pthread_cond_signal(&m->turned);
	}
	pthread_mutex_unlock(&m->mutex);
	return NULL;
}

int main(int argc, char **argv)
{
	struct party party[PAIRS][2];
	struct timespec at_once = {0, 0};
	pthread_t t[PAIRS][2];
	pthread_mutexattr_t inherit;
	struct meeting *m;
	uint32_t *alone;

	test_init(argc, argv);
	m = (struct meeting *)(void *)pages_map((PAIRS + 1) * sizeof(*m));
	m = (struct meeting *)(((uintptr_t)m + 128 * PAGE - 1) / (128 * PAGE) * (128 * PAGE));
	must(!pthread_mutexattr_init(&inherit));
	must(!pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT));
	for (int i = 0; i < PAIRS; i++) {
		m[i].word = 77;
		must(!pthread_mutex_init(&m[i].mutex, NULL));
		must(!pthread_cond_init(&m[i].turned, NULL));
		must(!pthread_mutex_init(&m[i].inherit, &inherit));
		for (int side = 0; side < 2; side++) {
			party[i][side] = (struct party){&m[i], side};
			must(!pthread_create(&t[i][side], NULL, party_main, &party[i][side]));
		}
	}
	alone = (uint32_t *)(void *)pages_map(MIB);
	alone[0] = 5;
	alone[64 * 1024] = 6;

	test_ready();

	/* The kernel is the first to look at the word. */
	pages_must_be_owed("futex", alone, PAGE);
	must(futex(alone, FUTEX_WAIT, 4, &at_once) == -1 && errno == EAGAIN);
	must(futex(alone + 64 * 1024, FUTEX_WAIT, 6, &at_once) == -1 && errno == ETIMEDOUT);
	for (int i = 0; i < PAIRS; i++) {
		for (int side = 0; side < 2; side++)
			must(!pthread_join(t[i][side], NULL));
		if (m[i].count != 2 * TURNS)
			test_fail("pair %d counted to %d", i, m[i].count);
	}
	test_pass();
}
