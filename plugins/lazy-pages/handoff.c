// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The hand-off as a state machine over journal->handoff:
 *
 *   word == 0                        the next 4 bytes are a word
 *   word == RESTORE_FINISHED         the restore is finished
 *   word < 0                         a zombie; nothing follows
 *   word > 0, control empty          a byte with a descriptor follows
 *   word > 0, control filled         the item is complete; a record is to be made
 *   word == WORD_DONE                it has its record; both are to be zero again
 *
 * The kernel fills word and control; both are zero before. Every store is ordered so that a worker
 * that starts here finds one of these states.
 */
#include "handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "compiler.h"
#include "owner.h"
#include "worker.h"

#define SOCKET_NAME	 "lazy-pages.socket"
#define RESTORE_FINISHED 0x52535446
#define WORD_DONE	 INT32_MIN /* of an item: only clearing up is left */

int handoff_adopt_listener(int fd, struct error *e)
{
	int on = 1, listening = 0;
	socklen_t len = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) || !listening)
		return error_set(e, -EINVAL, "descriptor %d is not a listening socket", fd);
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return error_errno(e, -errno, "%s", SOCKET_NAME);
	return 0;
}

int handoff_listen(struct error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
	/* As CRIU has it: the address ends before the NUL. */
	socklen_t len = offsetof(struct sockaddr_un, sun_path) + strlen(SOCKET_NAME);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return error_errno(e, -errno, "socket");
	unlink(SOCKET_NAME);
	if (bind(fd, (struct sockaddr *)&a, len) || chmod(SOCKET_NAME, 0600) || listen(fd, 4))
		return error_errno(e, -errno, "%s", SOCKET_NAME);
	ret = handoff_adopt_listener(fd, e);
	return ret ?: steal_fd(&fd);
}

void handoff_unlink(void)
{
	unlink(SOCKET_NAME);
}

enum handoff handoff_accept(struct worker *w, struct error *e)
{
	struct handoff_record *h = &w->journal->handoff;
	int fd = accept4(h->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
			return HANDOFF_GOES_ON;
		error_errno(e, -errno, "%s: accept", SOCKET_NAME);
		return HANDOFF_FAILED;
	}
	h->conn_fd = fd;
	h->connected = true;
	w->journal->connected_ns = now_ns();
	log_info(w->log, "the restore has connected");
	return HANDOFF_GOES_ON;
}

static struct cmsghdr *find_control(struct handoff_record *h, int type)
{
	struct msghdr m = {.msg_control = h->control, .msg_controllen = sizeof(h->control)};
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(&m); c && c->cmsg_len >= sizeof(*c); c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == type)
			return c;
	return NULL;
}

static void item_done(struct handoff_record *h)
{
	h->items++;
	__atomic_store_n(&h->word, WORD_DONE, __ATOMIC_SEQ_CST);
	memset(h->control, 0, sizeof(h->control));
	__atomic_store_n(&h->word, 0, __ATOMIC_SEQ_CST);
}

static int check_uffd(int fd, int pid, struct error *e)
{
	char path[32], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = 0;
	if (strcmp(target, "anon_inode:[userfaultfd]"))
		return error_set(e, -EPROTO,
				 "the descriptor that came for task %d is no userfaultfd: %s", pid,
				 target);
	/* CRIU opens it so; a read that blocks would stop everything. */
	if (fcntl(fd, F_SETFL, O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return error_errno(e, -errno, "userfaultfd of task %d", pid);
	return 0;
}

static bool already_registered(const struct journal *j, int fd)
{
	for (uint32_t i = 0; i < j->nslots; i++) {
		const struct task_record *r = __atomic_load_n(&j->slot[i], __ATOMIC_ACQUIRE);

		/* Memory of the arena stays readable, also when the record has just been freed. */
		if (r && r->uffd == fd)
			return true;
	}
	return false;
}

/* The regions of a fresh task: its mappings that have lazy pages. */
static int initial_space(struct worker *w, const struct checkpoint_task *image, struct owed *owed,
			 struct space **out)
{
	const struct extents *x = &image->extents;
	struct space *s = space_new(w->journal->arena, x, owed);
	int ret = s ? 0 : -ENOMEM;

	for (size_t i = 0; !ret && i < image->nvmas; i++) {
		const struct checkpoint_vma *v = &image->vmas[i];

		if (extents_index(x, v->start) != extents_index(x, v->end))
			ret = space_add(s, v->start, v->end);
	}
	if (ret) {
		space_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

static bool came_before(const struct journal *j, int pid)
{
	for (uint32_t i = 0; i < j->nslots; i++) {
		const struct task_record *r = __atomic_load_n(&j->slot[i], __ATOMIC_ACQUIRE);

		if (r && !r->parent && r->pid == pid)
			return true;
	}
	return false;
}

/* Tasks with memory for which no userfaultfd has come. */
static uint64_t missing(const struct worker *w)
{
	const struct journal *j = w->journal;
	uint64_t n = 0;

	for (size_t i = 0; i < w->checkpoint->ntasks; i++)
		n += !w->checkpoint->tasks[i].no_mm;
	return n - MIN(n, j->tasks_seen - j->tasks_forked);
}

/* Returns the slot, or -errno. */
static int register_task(struct worker *w, int fd, int pid, int real_pid, struct error *e)
{
	struct journal *j = w->journal;
	const struct checkpoint_task *image = checkpoint_task(w->checkpoint, pid);
	struct task_record *r = NULL;
	struct space *space = NULL;
	const struct region *v;
	struct owed *owed;
	size_t n;
	int slot = -ENOMEM;

	if (image && came_before(j, pid))
		return error_set(e, -EPROTO, "task %d: a second userfaultfd came", pid);
	if (!image || image->no_mm)
		return error_set(e, -EPROTO, "a userfaultfd came for task %d, which %s", pid,
				 image ? "has no memory in the checkpoint"
				       : "the checkpoint does not have");
	owed = owed_new(j->arena, image->extents.npages);
	if (owed && !initial_space(w, image, owed, &space)) {
		n = space_regions(space, &v);
		r = journal_record_new(j, owed, v, n);
	}
	space_free(space);
	if (!r) {
		if (owed)
			owed_free(j->arena, owed);
		return error_set(e, -ENOMEM, "no memory for task %d", pid);
	}
	r->uffd = fd;
	r->pid = pid;
	r->real_pid = real_pid;
	r->image = (uint32_t)(image - w->checkpoint->tasks);
	if (!r->image && real_pid)
		root_note(&j->root, real_pid);
	slot = task_register(w, r);
	if (slot < 0) {
		journal_record_free(j, r);
		return error_errno(e, slot, "task %d", pid);
	}
	log_debug(w->log, "task %d: userfaultfd %d, real pid %d, %llu lazy pages", pid, fd,
		  real_pid, (unsigned long long)image->extents.npages);
	return slot;
}

/* An item with a descriptor has come whole. */
static int take_item(struct worker *w, struct error *e)
{
	struct handoff_record *h = &w->journal->handoff;
	struct cmsghdr *rights = find_control(h, SCM_RIGHTS);
	struct cmsghdr *creds = find_control(h, SCM_CREDENTIALS);
	struct ucred peer = {0};
	int fd, ret, slot = -1;

	if (!rights)
		return error_set(e, -EPROTO, "no descriptor came for task %d", h->word);
	memcpy(&fd, CMSG_DATA(rights), sizeof(fd));
	if (creds)
		memcpy(&peer, CMSG_DATA(creds), sizeof(peer));
	/* The worker before us may have made the record and died before it could say so. */
	if (!already_registered(w->journal, fd)) {
		ret = check_uffd(fd, h->word, e);
		slot = ret ? ret : register_task(w, fd, h->word, peer.pid, e);
		if (slot < 0)
			return slot;
	}
	/* Before an owner can close the descriptor, which would then be another's number. */
	item_done(h);
	if (slot >= 0)
		worker_adopt(w, slot);
	return 0;
}

static enum handoff end_of_connection(struct worker *w, struct error *e)
{
	struct handoff_record *h = &w->journal->handoff;
	int fd = h->conn_fd;

	if (h->word) {
		error_set(e, -EPROTO,
			  "the restore closed the connection in the middle of the item of "
			  "task %d",
			  h->word);
		return HANDOFF_FAILED;
	}
	if (!w->journal->restore_finished) {
		error_set(e, -ECONNRESET,
			  "the restore failed: it closed the connection after %u items", h->items);
		return h->items ? HANDOFF_FAILED : HANDOFF_NOTHING;
	}
	h->conn_fd = -1;
	close(fd);
	return HANDOFF_FINISHED;
}

static enum handoff take_word(struct worker *w, struct error *e)
{
	struct handoff_record *h = &w->journal->handoff;
	const struct checkpoint_task *t;

	if (h->word == WORD_DONE) {
		h->items--;
		item_done(h);
		return HANDOFF_GOES_ON;
	}
	if (h->word == RESTORE_FINISHED) {
		w->journal->finished_ns = now_ns();
		__atomic_store_n(&w->journal->restore_finished, true, __ATOMIC_RELEASE);
		h->word = 0;
		if (missing(w)) {
			/* Those that came are served all the same. */
			w->journal->exit_status = 1;
			log_error(w->log,
				  "the restore has finished, but %llu task(s) have not come",
				  (unsigned long long)missing(w));
		}
		log_info(w->log, "the restore has finished; %u tasks", h->items);
		return HANDOFF_FINISHED;
	}
	t = checkpoint_task(w->checkpoint, abs(h->word));
	if (!t) {
		error_set(e, -EPROTO,
			  "%s: %d (0x%x) is neither a task of the checkpoint nor the end",
			  SOCKET_NAME, h->word, (unsigned)h->word);
		return HANDOFF_FAILED;
	}
	if (h->word < 0) {
		log_debug(w->log, "task %d: no memory", -h->word);
		item_done(h);
	}
	return HANDOFF_GOES_ON;
}

enum handoff handoff_receive(struct worker *w, struct error *e)
{
	struct handoff_record *h = &w->journal->handoff;
	enum handoff result = HANDOFF_GOES_ON;

	/* A word that a worker before us took off the socket. */
	if (h->word) {
		result = take_word(w, e);
		if (result == HANDOFF_FAILED)
			return result;
	}
	while (h->conn_fd >= 0) {
		bool word = !h->word;
		struct iovec v = {word ? (void *)&h->word : &h->byte, word ? sizeof(h->word) : 1};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		ssize_t n;

		if (!word && find_control(h, SCM_RIGHTS)) {
			if (take_item(w, e))
				return HANDOFF_FAILED;
			continue;
		}
		if (!word) {
			m.msg_control = h->control;
			m.msg_controllen = sizeof(h->control);
		}
		n = recvmsg(h->conn_fd, &m, MSG_CMSG_CLOEXEC);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return result;
		if (n <= 0)
			return end_of_connection(w, e);
		if (!word) {
			if (take_item(w, e))
				return HANDOFF_FAILED;
			continue;
		}
		if (n != sizeof(h->word)) {
			error_set(e, -EPROTO, "%s: %zd bytes instead of a 4-byte pid", SOCKET_NAME,
				  n);
			return HANDOFF_FAILED;
		}
		result = take_word(w, e);
		if (result == HANDOFF_FAILED)
			return result;
	}
	return result;
}
