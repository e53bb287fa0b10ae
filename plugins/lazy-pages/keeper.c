// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Three processes, two of which wait: see keeper.h. Pids and pidfds are written into the journal by
 * the kernel during clone3(), before the child runs, so that there is never a process that the
 * journal does not name, whoever dies when.
 *
 * A worker is waited for by pidfd: it becomes readable only when all its threads are gone, and so
 * two workers never place pages at one time.
 */
#include "keeper.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"

#define FDS_MAX	       1048576
#define BACKOFF_MAX_MS 1000
#define NO_DEPUTY_MS   1000 /* between attempts to start one */
#define SHORT_LIFE_NS  1000000000u

struct keeper {
	struct journal *j;
	const struct log *log;
	worker_fn *fn;
	void *arg;
	unsigned me;	     /* 0 or 1: index in the journal */
	unsigned char *base; /* bitmap of descriptors that were open before the first worker */
	unsigned backoff_ms;
	uint64_t started_ns;
	int signal_fd;
};

/*
 * Like fork(), but sharing the descriptor table. Returns 0 in the child, its pid, or -errno. The
 * kernel stores the pidfd early, and takes it back without a word if the clone fails later; the pid
 * is stored only when the child exists. So it is the pid that says whether the pidfd is one.
 */
static pid_t clone_sharing_files(pid_t *pid, int *pidfd)
{
	struct clone_args a = {
		.flags = CLONE_FILES | CLONE_PIDFD | CLONE_PARENT_SETTID,
		.exit_signal = SIGCHLD,
		.parent_tid = (uint64_t)(uintptr_t)pid,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
	};
	void *tid = NULL;
	long ret;

	/* glibc keeps the thread's id where fork() would have the kernel update it. */
	if (!prctl(PR_GET_TID_ADDRESS, &tid) && tid) {
		a.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
		a.child_tid = (uint64_t)(uintptr_t)tid;
	}
	*pid = 0;
	__atomic_store_n(pidfd, -1, __ATOMIC_SEQ_CST);
	ret = syscall(SYS_clone3, &a, sizeof(a));
	if (ret >= 0)
		return (pid_t)ret;
	ret = -errno;
	*pidfd = -1;
	return (pid_t)ret;
}

/* Forgets a process that has ended. */
static void forget(pid_t *pid, int *pidfd)
{
	int old = *pid ? *pidfd : -1;

	__atomic_store_n(pid, 0, __ATOMIC_SEQ_CST);
	*pidfd = -1;
	if (old >= 0)
		close(old);
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

static void base_remember(struct keeper *k)
{
	struct dirent *d;
	DIR *dir;

	dir = opendir("/proc/self/fd");
	/* Without it, nothing is ever closed on behalf of a dead worker. */
	k->base = dir ? calloc(1, FDS_MAX / 8) : NULL;
	while (k->base && dir && (d = readdir(dir))) {
		int fd = atoi(d->d_name);

		if (d->d_name[0] != '.' && fd != dirfd(dir) && fd < FDS_MAX &&
		    !journal_names_fd(k->j, fd))
			k->base[fd / 8] |= (unsigned char)(1 << fd % 8);
	}
	if (dir)
		closedir(dir);
}

/* A connection that the dead worker had accepted and not yet written down. */
static bool is_lost_connection(const struct journal *j, int fd)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	int domain = 0, listening = 1;

	if (j->handoff.connected || getpeername(fd, (struct sockaddr *)&a, &len))
		return false;
	len = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX)
		return false;
	len = sizeof(a);
	memset(&a, 0, sizeof(a));
	if (getsockname(fd, (struct sockaddr *)&a, &len) ||
	    !strstr(((struct sockaddr *)&a)->sa_data, "lazy-pages.socket"))
		return false;
	len = sizeof(listening);
	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) && !listening;
}

/* Closes what a dead worker has left in the table: epoll and event descriptors, clients. */
static void close_unnamed(struct keeper *k)
{
	struct journal *j = k->j;
	struct dirent *d;
	DIR *dir = opendir("/proc/self/fd");

	while (k->base && dir && (d = readdir(dir))) {
		int fd = atoi(d->d_name);

		if (d->d_name[0] == '.' || fd == dirfd(dir) || fd >= FDS_MAX ||
		    k->base[fd / 8] & 1 << fd % 8 || journal_names_fd(j, fd))
			continue;
		if (is_lost_connection(j, fd)) {
			j->handoff.conn_fd = fd;
			j->handoff.connected = true;
			continue;
		}
		close(fd);
	}
	if (dir)
		closedir(dir);
}

static void start_worker(struct keeper *k)
{
	struct journal *j = k->j;
	pid_t pid;

	k->started_ns = now_ns();
	while ((pid = clone_sharing_files(&j->worker_pid, &j->worker_pidfd)) < 0) {
		log_error(k->log, "a worker cannot be started: %s; trying again", strerror(-pid));
		sleep_ms(100);
	}
	if (pid)
		return;
	prctl(PR_SET_NAME, "lazy-worker");
	_exit(k->fn(k->arg));
}

static _Noreturn void deputy_main(struct keeper *k);

static void start_deputy(struct keeper *k)
{
	unsigned other = !k->me;
	pid_t pid = clone_sharing_files(&k->j->keeper_pid[other], &k->j->keeper_pidfd[other]);

	if (pid < 0)
		log_warn(k->log, "no deputy could be started: %s", strerror(-pid));
	if (pid)
		return;
	k->me = other;
	deputy_main(k);
}

static bool has_ended(pid_t pid, int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return !pid || pidfd < 0 || (poll(&p, 1, 0) == 1 && p.revents & POLLIN);
}

static void worker_ended(struct keeper *k)
{
	struct journal *j = k->j;
	int status = 0;

	/* Not ours when we were the deputy at the time; then it is only known to be dead. */
	if (j->worker_pid && waitpid(j->worker_pid, &status, 0) == j->worker_pid &&
	    WIFSIGNALED(status))
		log_warn(k->log, "worker %d was killed by signal %d; the next one takes over",
			 j->worker_pid, WTERMSIG(status));
	else
		log_warn(k->log, "worker %d died; the next one takes over", j->worker_pid);
	if (now_ns() - k->started_ns < SHORT_LIFE_NS)
		k->backoff_ms = MIN(k->backoff_ms ? k->backoff_ms * 2 : 1, BACKOFF_MAX_MS);
	else
		k->backoff_ms = 0;
	if (k->backoff_ms > 8)
		sleep_ms(k->backoff_ms);
	forget(&j->worker_pid, &j->worker_pidfd);
	close_unnamed(k);
	start_worker(k);
}

/* A signal to the manager is for the worker, which knows whether it may leave. */
static void pass_signals(const struct keeper *k)
{
	struct signalfd_siginfo si;

	while (read(k->signal_fd, &si, sizeof(si)) == sizeof(si))
		if (k->j->worker_pid)
			syscall(SYS_pidfd_send_signal, k->j->worker_pidfd, (int)si.ssi_signo, NULL,
				0);
}

static int keep(struct keeper *k)
{
	struct journal *j = k->j;
	unsigned other = !k->me;

	for (;;) {
		struct pollfd p[3] = {{.events = POLLIN}, {.events = POLLIN}, {.events = POLLIN}};
		bool deputy;

		if (has_ended(j->worker_pid, j->worker_pidfd)) {
			if (j->over)
				break;
			worker_ended(k);
		}
		if (has_ended(j->keeper_pid[other], j->keeper_pidfd[other])) {
			if (j->keeper_pid[other])
				waitpid(j->keeper_pid[other], NULL, 0);
			forget(&j->keeper_pid[other], &j->keeper_pidfd[other]);
			start_deputy(k);
		}
		deputy = j->keeper_pid[other] != 0;
		p[0].fd = j->worker_pidfd;
		p[1].fd = deputy ? j->keeper_pidfd[other] : -1;
		p[2].fd = k->signal_fd;
		if (poll(p, ARRAY_SIZE(p), deputy ? -1 : NO_DEPUTY_MS) < 0 && errno != EINTR)
			sleep_ms(10);
		pass_signals(k);
	}
	if (j->worker_pid)
		waitpid(j->worker_pid, NULL, 0);
	if (j->keeper_pid[other]) {
		syscall(SYS_pidfd_send_signal, j->keeper_pidfd[other], SIGKILL, NULL, 0);
		waitpid(j->keeper_pid[other], NULL, 0);
	}
	return j->exit_status;
}

static _Noreturn void deputy_main(struct keeper *k)
{
	struct journal *j = k->j;
	unsigned senior = !k->me;

	prctl(PR_SET_NAME, "lazy-deputy");
	while (!has_ended(j->keeper_pid[senior], j->keeper_pidfd[senior])) {
		struct pollfd p = {.fd = j->keeper_pidfd[senior], .events = POLLIN};

		poll(&p, 1, -1);
	}
	if (j->over)
		_exit(j->exit_status);
	log_warn(k->log, "the keeper died; its deputy takes over");
	prctl(PR_SET_NAME, "lazy-keeper");
	j->senior = k->me;
	/* The keeper may have died while it started a worker: then this is no descriptor, and its
	 * number must not be taken for the one that comes next. */
	if (!j->worker_pid)
		j->worker_pidfd = -1;
	forget(&j->keeper_pid[senior], &j->keeper_pidfd[senior]);
	start_deputy(k);
	_exit(keep(k));
}

int keeper_run(struct journal *j, const struct log *log, worker_fn *fn, void *arg)
{
	struct keeper k = {.j = j, .log = log, .fn = fn, .arg = arg};
	sigset_t set;
	int status;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	k.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	j->keeper_pid[0] = getpid();
	j->keeper_pidfd[0] = (int)syscall(SYS_pidfd_open, getpid(), 0);
	base_remember(&k);
	prctl(PR_SET_NAME, "lazy-keeper");
	start_deputy(&k);
	start_worker(&k);
	status = keep(&k);
	free(k.base);
	return status;
}
