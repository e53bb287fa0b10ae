/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A worker with a connection to a restore that the test plays, and a checkpoint of three tasks. */
#ifndef HANDOFF_PAIR_H
#define HANDOFF_PAIR_H

#include "restore_peer.h"

#include <errno.h>

#include "handoff.h"

#define A UINT64_C(0x10000000)
#define B UINT64_C(0x20000000)
#define C UINT64_C(0x30000000)

struct fixture {
	struct parts p;
	int peer; /* the restore's end of the connection */
	struct error e;
};

/* Tasks 100 and 102 have memory, 101 is a zombie. */
static inline int setup(void **state)
{
	static struct fixture f;
	struct parts *p = &f.p;
	struct checkpoint_task *t;
	int sk[2], on = 1;

	parts_begin(p);
	memset(&f.e, 0, sizeof(f.e));
	t = parts_task(p, 100);
	parts_vma(t, A, 10);
	parts_vma(t, B, 10); /* no lazy page in it */
	parts_vma(t, C, 10);
	parts_lazy(t, A + 2 * PAGE_SIZE, 4, WHERE(0, 0));
	parts_lazy(t, C, 3, WHERE(0, 4));
	assert_int_equal(extents_seal(&t->extents, NULL), 0);
	parts_task(p, 101)->no_mm = true;
	t = parts_task(p, 102);
	parts_vma(t, A, 1);
	parts_lazy(t, A, 1, WHERE(0, 7));
	assert_int_equal(extents_seal(&t->extents, NULL), 0);
	assert_int_equal(extents_seal(&p->tasks[1].extents, NULL), 0);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk), 0);
	assert_int_equal(setsockopt(sk[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	assert_int_equal(fcntl(sk[1], F_SETFL, O_NONBLOCK), 0);
	f.peer = sk[0];
	p->w.journal->handoff.conn_fd = sk[1];
	p->w.journal->handoff.connected = true;
	*state = &f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	struct journal *j = f->p.w.journal;

	for (uint32_t i = 0; i < j->nslots; i++)
		if (j->slot[i])
			close(j->slot[i]->uffd);
	if (j->handoff.conn_fd >= 0)
		close(j->handoff.conn_fd);
	if (f->peer >= 0)
		close(f->peer);
	parts_end(&f->p);
	return 0;
}

static inline void restore_closes(struct fixture *f)
{
	close(f->peer);
	f->peer = -1;
}

static inline enum handoff receive(struct fixture *f)
{
	return handoff_receive(&f->p.w, &f->e);
}

static inline void assert_refused(struct fixture *f, const char *words)
{
	assert_int_equal(receive(f), HANDOFF_FAILED);
	if (!strstr(f->e.text, words))
		fail_msg("\"%s\" does not say \"%s\"", f->e.text, words);
	assert_true(f->e.code < 0);
}

static inline unsigned records(const struct fixture *f)
{
	const struct journal *j = f->p.w.journal;
	unsigned n = 0;

	for (uint32_t i = 0; i < j->nslots; i++)
		n += j->slot[i] != NULL;
	return n;
}

static inline struct task_record *record_of(const struct fixture *f, int pid)
{
	const struct journal *j = f->p.w.journal;
	struct task_record *found = NULL;

	for (uint32_t i = 0; i < j->nslots; i++)
		if (j->slot[i] && j->slot[i]->pid == pid) {
			assert_null(found);
			found = j->slot[i];
		}
	assert_non_null(found);
	return found;
}

/* In how many owners' inboxes slots wait. */
static inline unsigned given(const struct fixture *f)
{
	size_t n = 0;

	for (unsigned i = 0; i < PARTS_OWNERS; i++)
		n += f->p.owner[i].ninbox;
	return (unsigned)n;
}

static inline void assert_uffd(int fd)
{
	char path[32], target[64] = {0};

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_true(readlink(path, target, sizeof(target) - 1) > 0);
	assert_string_equal(target, "anon_inode:[userfaultfd]");
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static inline void assert_record_100(const struct fixture *f)
{
	const struct region expected[] = {{A, A + 10 * PAGE_SIZE, A}, {C, C + 10 * PAGE_SIZE, C}};
	struct task_record *r = record_of(f, 100);
	const struct task_log *log = r->log[r->active];

	assert_uffd(r->uffd);
	assert_int_equal(r->real_pid, getpid());
	assert_int_equal(r->image, 0);
	assert_int_equal(r->parent, 0);
	assert_false(r->embryo);
	assert_int_equal(owed_left(r->owed), 7);
	assert_int_equal(log->nregions, 2);
	assert_memory_equal(log->regions, expected, sizeof(expected));
}

#define handoff_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
