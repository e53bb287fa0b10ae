// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control thread: starts the owners, takes the hand-off, answers the control socket, keeps time
 * and notices the end. It never places a page, so nothing that it does can hold up a fault.
 */
#include "worker.h"

#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "collapse.h"
#include "compiler.h"
#include "control.h"
#include "handoff.h"
#include "owner.h"
#include "report.h"
#include "source_remote.h"

#define PROGRESS_MS 500

struct controller {
	struct worker *w;
	int epoll_fd;
	int signal_fd;
	bool watching_conn, watching_listen;
	struct report_progress progress;
	bool ended, lost; /* everything is over; and no copy may be here */
};

void worker_adopt(struct worker *w, int slot)
{
	struct owner *best = w->owners[0];

	for (unsigned i = 1; i < w->nowners; i++)
		if (atomic_load(&w->owners[i]->load) < atomic_load(&best->load))
			best = w->owners[i];
	while (owner_give(best, slot)) {
		log_error(w->log, "no memory to hand a task to its thread; trying again");
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
}

void worker_task_finished(struct worker *w)
{
	uint64_t one = 1;

	atomic_fetch_sub(&w->live, 1);
	if (write(w->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error(w->log, "eventfd: %m");
}

bool worker_background(const struct worker *w, uint64_t now, uint64_t *from)
{
	const struct journal *j = w->journal;
	uint64_t begin;

	*from = 0;
	if (!__atomic_load_n(&j->restore_finished, __ATOMIC_ACQUIRE))
		return false;
	begin = j->finished_ns + w->background_delay_ns;
	if (now >= begin || __atomic_load_n(&j->finish_asked, __ATOMIC_RELAXED))
		return true;
	*from = begin;
	return false;
}

void worker_tally(const struct worker *w, struct tally *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < JOURNAL_THREADS; i++)
		tally_add(sum, &w->journal->tally[i]);
}

static void wake_owners(struct worker *w)
{
	for (unsigned i = 0; i < w->nowners; i++)
		owner_wake(w->owners[i]);
}

static void over(struct worker *w, int status)
{
	w->journal->exit_status = status;
	__atomic_store_n(&w->journal->over, true, __ATOMIC_SEQ_CST);
}

static void ask_finish(struct worker *w)
{
	__atomic_store_n(&w->journal->finish_asked, true, __ATOMIC_RELAXED);
	wake_owners(w);
}

static void watch(struct controller *c, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &ev) && errno != EEXIST)
		log_error(c->w->log, "descriptor %d cannot be watched: %m", fd);
}

/* The plugin's restore is over, and it was not a lazy one: as if we had never been. */
static void leave_quietly(struct worker *w)
{
	if (w->options->log_file)
		unlink(w->options->log_file);
	over(w, 0);
}

static void handoff_step(struct controller *c, enum handoff result, const struct error *e)
{
	struct worker *w = c->w;
	struct handoff_record *h = &w->journal->handoff;

	if (result == HANDOFF_NOTHING && w->options->restore_pidfd >= 0) {
		leave_quietly(w);
		return;
	}
	if (result == HANDOFF_FAILED && w->journal->restore_finished) {
		/* The tasks run: whatever else comes, they get their memory. */
		log_warn(w->log, "%s; ignored, the restore has finished", e->text);
		close(h->conn_fd);
		h->conn_fd = -1;
		return;
	}
	if (result == HANDOFF_FAILED || result == HANDOFF_NOTHING) {
		log_error(w->log, "%s", e->text);
		over(w, 1);
		return;
	}
	if (h->connected && h->listen_fd >= 0) {
		int fd = h->listen_fd;

		/* One restore a manager: its name is free for the next. */
		handoff_unlink();
		h->listen_fd = -1;
		close(fd);
	}
	if (h->conn_fd >= 0 && !c->watching_conn) {
		c->watching_conn = true;
		watch(c, h->conn_fd);
	}
	if (result == HANDOFF_FINISHED)
		wake_owners(w);
}

static void control_status_op(void *ctx, struct json_object *into)
{
	report_status(ctx, into);
}

static ino_t pidfd_inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

/* pidfds of one process share an inode since 6.9; before, all have the same: then the answer is
 * "maybe", which only costs an early finish. */
static enum control_holds control_holds_op(void *ctx, int pidfd)
{
	struct worker *w = ctx;
	struct journal *j = w->journal;
	enum control_holds result = CONTROL_NO;
	ino_t asked = pidfd_inode(pidfd);

	pthread_mutex_lock(&w->slot_lock);
	for (uint32_t i = 0; i < j->nslots && result != CONTROL_YES; i++) {
		const struct task_record *r = j->slot[i];
		_cleanup_close_ int fd = -1;

		if (!r)
			continue;
		if (r->real_pid)
			fd = (int)syscall(SYS_pidfd_open, r->real_pid, 0);
		if (fd >= 0 && pidfd_inode(fd) == asked)
			result = CONTROL_YES;
		else if (!r->real_pid)
			result = CONTROL_MAYBE;
	}
	pthread_mutex_unlock(&w->slot_lock);
	return result;
}

static void control_finish_op(void *ctx)
{
	struct worker *w = ctx;

	log_info(w->log, "asked to finish without limits");
	ask_finish(w);
}

static bool everything_placed(const struct worker *w)
{
	return w->journal->restore_finished && !atomic_load(&w->live);
}

static void on_signal(struct controller *c)
{
	struct worker *w = c->w;
	struct signalfd_siginfo si;

	if (read(c->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (!w->journal->handoff.connected) {
		log_info(w->log, "stopped by a signal before a restore came");
		over(w, 1);
		return;
	}
	if (everything_placed(w)) {
		log_warn(w->log, "stopped before the page server was told that every page is held");
		over(w, w->journal->exit_status);
		return;
	}
	/* To leave now would give the tasks zeros for what has not come. */
	log_warn(w->log, "asked to stop while %u tasks wait for memory: finishing first",
		 atomic_load(&w->live));
	ask_finish(w);
}

static void dispatch(struct controller *c, int fd)
{
	static const struct control_ops ops = {control_status_op, control_holds_op,
					       control_finish_op, NULL};
	struct worker *w = c->w;
	struct handoff_record *h = &w->journal->handoff;
	struct error e = {0};
	uint64_t count;

	if (fd == h->listen_fd)
		handoff_step(c, handoff_accept(w, &e), &e);
	else if (fd == h->conn_fd)
		handoff_step(c, handoff_receive(w, &e), &e);
	else if (fd == c->signal_fd)
		on_signal(c);
	else if (fd == w->event_fd)
		(void)!read(w->event_fd, &count, sizeof(count));
	else if (w->control && fd == control_fd(w->control))
		control_serve(w->control, &ops, w);
	else if (fd == w->options->restore_pidfd) {
		/* It stays readable. A restore that ended quickly may have a connection waiting. */
		epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		if (!h->connected)
			handoff_step(c, handoff_accept(w, &e), &e);
		if (!h->connected)
			leave_quietly(w);
	}
}

/* How long the control thread may sleep; takes the timeout of the restore into account. */
static int next_wait_ms(struct controller *c)
{
	struct worker *w = c->w;
	const struct options *o = w->options;
	uint64_t now = now_ns(),
		 end = w->journal->began_ns + o->timeout_seconds * UINT64_C(1000000000);
	int ms = -1;

	if (o->timeout_seconds && !w->journal->handoff.connected) {
		if (now >= end) {
			log_error(w->log, "no restore has come within %u seconds",
				  o->timeout_seconds);
			over(w, 1);
			return 0;
		}
		ms = (int)MIN((end - now) / 1000000 + 1, 3600000u);
	}
	if (o->progress && w->journal->handoff.connected && (ms < 0 || ms > PROGRESS_MS))
		ms = PROGRESS_MS;
	return ms;
}

/* The last page is in its place: who has to know is told, then all is over. */
static bool has_ended(struct controller *c)
{
	struct worker *w = c->w;

	if (w->collapser)
		collapser_finish(w->collapser);
	w->collapser = NULL;
	if (!c->ended && w->remote)
		c->lost = root_was_lost(&w->journal->root);
	c->ended = true;
	if (source_finish(w->source, !c->lost, w->event_fd) == -EAGAIN)
		return false;
	if (c->progress.shown)
		fputc('\n', stderr);
	report_summary(w);
	over(w, w->journal->exit_status);
	return true;
}

static void control_loop(struct controller *c)
{
	struct worker *w = c->w;
	struct journal *j = w->journal;
	struct epoll_event ev[16];

	while (!j->over) {
		int n;

		/* Before the wait: a worker may begin when all is done but the end. */
		if (everything_placed(w) && has_ended(c))
			break;
		n = epoll_wait(c->epoll_fd, ev, ARRAY_SIZE(ev), next_wait_ms(c));
		for (int i = 0; i < n && !j->over; i++)
			dispatch(c, ev[i].data.fd);
		if (w->options->progress && j->handoff.connected)
			report_progress(w, &c->progress);
	}
}

/*
 * Tasks that a worker before us had. All are found before the first is given away: from then on
 * owners make new records themselves. An embryo is given away by its parent's owner.
 */
static void adopt_all(struct worker *w)
{
	struct journal *j = w->journal;
	uint32_t n = j->nslots, live = 0, ready = 0;
	int *slots = calloc(n + 1, sizeof(*slots));

	if (!slots)
		abort(); /* the keeper tries again */
	for (uint32_t i = 0; i < n; i++) {
		live += j->slot[i] != NULL;
		if (j->slot[i] && !j->slot[i]->embryo)
			slots[ready++] = (int)i;
	}
	atomic_store(&w->live, live);
	for (uint32_t i = 0; i < ready; i++)
		worker_adopt(w, slots[i]);
	free(slots);
}

static void start(struct worker *w)
{
	struct error e = {0};

	pthread_mutex_init(&w->slot_lock, NULL);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->source = source_image_new(w->checkpoint);
	if (w->remote)
		w->source = source_chain_new(
			w->checkpoint, w->source,
			source_remote_new(w->remote, w->checkpoint, w->journal, w->log));
	w->collapser = collapser_start(w->log, w->options->thp == THP_AUTO);
	w->owners = calloc(w->options->threads, sizeof(*w->owners));
	if (!w->source || !w->owners || w->event_fd < 0)
		abort();
	for (unsigned i = 0; i < w->options->threads; i++) {
		w->owners[w->nowners] = owner_start(w, w->nowners);
		w->nowners += w->owners[w->nowners] != NULL;
	}
	if (!w->nowners)
		abort();
	if (w->control && control_start(w->control, &e)) {
		log_warn(w->log, "control socket: %s", e.text);
		w->control = NULL;
	}
}

int worker_run(const struct options *o, const struct log *log, const struct checkpoint *c,
	       struct journal *j, struct control_server *control, struct remote_start *remote)
{
	struct worker w = {.options = o,
			   .log = log,
			   .checkpoint = c,
			   .journal = j,
			   .control = control,
			   .remote = remote};
	struct controller ctl = {.w = &w};
	const char *delay = getenv("LAZY_PAGES_TEST_BACKGROUND_DELAY_MS");
	struct error e = {0};
	sigset_t set;

	arena_reset_lock(j->arena);
	if (j->workers++) {
		journal_recount(j);
		journal_settle_forks(j);
	}
	if (j->handoff.conn_fd >= 0)
		j->handoff.connected = true;
	if (delay)
		w.background_delay_ns = strtoull(delay, NULL, 10) * 1000000;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	ctl.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ctl.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	start(&w);
	adopt_all(&w);

	watch(&ctl, w.event_fd);
	watch(&ctl, ctl.signal_fd);
	if (w.control)
		watch(&ctl, control_fd(w.control));
	if (o->restore_pidfd >= 0 && !j->handoff.connected)
		watch(&ctl, o->restore_pidfd);
	if (j->handoff.listen_fd >= 0)
		watch(&ctl, j->handoff.listen_fd);
	if (j->handoff.conn_fd >= 0)
		handoff_step(&ctl, handoff_receive(&w, &e), &e);
	control_loop(&ctl);
	/* Everything else ends with the process. */
	return j->exit_status;
}
