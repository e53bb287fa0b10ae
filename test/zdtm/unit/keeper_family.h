/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A keeper, its deputy and tiny workers. keeper_run() is called in a child of the test; whoever
 * loses its parent becomes a child of the test, which checks in the end that nobody is left.
 * Workers report through a shared page.
 */
#ifndef KEEPER_FAMILY_H
#define KEEPER_FAMILY_H

#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compiler.h"
#include "keeper.h"

#define LIVES	16
#define WAIT_MS 20000 /* only a failing test waits so long */

/* What workers leave for the test. */
struct notes {
	unsigned lives;	       /* workers that have begun */
	unsigned beats;	       /* of the one that is alive */
	pid_t worker;	       /* the last one that began */
	unsigned together;     /* found another one alive */
	bool end;	       /* asks the worker to end everything */
	int status;	       /* with this */
	int fd[16];	       /* descriptors of the first worker */
	bool open[LIVES][16];  /* which of them a later one finds open */
	unsigned nfds[2];      /* open in the first, in the last */
	int signal;	       /* that came */
	unsigned clock_factor; /* how fast time goes by */
};

struct fixture {
	struct arena *a;
	struct journal *j;
	struct log log;
	struct notes *n;
	int before; /* a descriptor from before the first worker */
	pid_t pid;  /* the first keeper */
};

static struct notes *clock_notes;

/* In place of libc's, so that a life of milliseconds can be a long one. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	long ret = syscall(SYS_clock_gettime, id, t);
	unsigned factor = clock_notes ? clock_notes->clock_factor : 1;
	uint64_t ns = ((uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec) * factor;

	t->tv_sec = (time_t)(ns / 1000000000u);
	t->tv_nsec = (long)(ns % 1000000000u);
	return (int)ret;
}

static inline void log_file(struct log *log)
{
	log_init(log, "test", LOG_WARN);
	log->fd = memfd_create("log", MFD_CLOEXEC);
}

static inline int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	f.n = mmap(NULL, sizeof(*f.n), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f.n == MAP_FAILED || arena_new(&f.a, UINT64_C(4) << 20, NULL))
		return -1;
	f.n->clock_factor = 1;
	clock_notes = f.n;
	f.j = journal_new(f.a);
	f.before = eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK);
	log_file(&f.log);
	*state = &f;
	return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* Waits for the last process. Returns the status of the one that ended last but was not killed. */
static inline int everybody_ends(struct fixture *f)
{
	int status, result = -1;
	pid_t pid;

	for (int ms = 0; (pid = waitpid(-1, &status, WNOHANG)) >= 0 && ms < WAIT_MS;) {
		if (pid > 0 && WIFEXITED(status) && pid != f->n->worker)
			result = WEXITSTATUS(status);
		if (!pid) {
			usleep(1000);
			ms++;
		}
	}
	assert_int_equal(pid, -1);
	assert_int_equal(errno, ECHILD);
	return result;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	/* A test that failed half-way leaves nobody behind: deputies and keepers first. */
	for (int i = 0; i < 1000 && waitpid(-1, NULL, WNOHANG) >= 0; i++) {
		pid_t pids[] = {f->j->keeper_pid[0], f->j->keeper_pid[1], f->j->worker_pid};

		for (size_t k = 0; k < ARRAY_SIZE(pids); k++)
			if (pids[k] > 0 && waitpid(pids[k], NULL, WNOHANG) == 0)
				kill(pids[k], SIGKILL);
		usleep(1000);
	}
	close(f->before);
	close(f->log.fd);
	arena_free(f->a);
	clock_notes = NULL;
	return munmap(f->n, sizeof(*f->n));
}

static inline void begin(struct fixture *f, worker_fn *fn)
{
	f->pid = fork();
	if (!f->pid)
		_exit(keeper_run(f->j, &f->log, fn, f));
}

static inline bool logged(const struct fixture *f, const char *words)
{
	char text[8192];
	ssize_t n = pread(f->log.fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return strstr(text, words);
}

/* The state letter in /proc, or 0. */
static inline char process_state(pid_t pid)
{
	char path[32], text[256], *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	p = strrchr(text, ')');
	return p && p[1] ? p[2] : 0;
}

static inline bool alive(pid_t pid)
{
	char c = pid > 0 ? process_state(pid) : 0;

	return c && c != 'Z' && c != 'X';
}

#define wait_until(condition) \
	do { \
		bool met_ = false; \
\
		for (int ms_ = 0; !met_ && ms_ < WAIT_MS; ms_++) \
			if (!(met_ = (condition))) \
				usleep(1000); \
		if (!met_) \
			fail_msg("not within %d s: %s", WAIT_MS / 1000, #condition); \
	} while (0)

/* Nobody is meant when there is no pid: kill(0) would be for all of us. */
static inline void kill_one(pid_t pid)
{
	if (pid > 0)
		kill(pid, SIGKILL);
}

static inline unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* What every worker does first. Returns which life this is, from 1. */
static inline unsigned worker_begins(struct fixture *f)
{
	struct notes *n = f->n;

	if (n->worker && alive(n->worker))
		n->together++;
	n->worker = getpid();
	return ++n->lives;
}

static inline int worker_ends(struct fixture *f, int status)
{
	f->j->exit_status = status;
	__atomic_store_n(&f->j->over, true, __ATOMIC_SEQ_CST);
	return status;
}

/* Beats until it is asked to end. */
static inline int beats(void *arg)
{
	struct fixture *f = arg;
	unsigned life = worker_begins(f);
	/* What a worker has open and no journal knows. */
	int fds[3] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), dup(0)};

	f->n->nfds[life > 1] = count_fds();
	while (!__atomic_load_n(&f->n->end, __ATOMIC_SEQ_CST)) {
		__atomic_fetch_add(&f->n->beats, 1, __ATOMIC_SEQ_CST);
		usleep(200);
	}
	return worker_ends(f, f->n->status + 0 * fds[0]);
}

/* Keeper, deputy and worker are there, and the worker works. */
static inline void all_three_are_there(struct fixture *f)
{
	struct journal *j = f->j;
	unsigned beats_before;

	wait_until(alive(j->keeper_pid[0]) && alive(j->keeper_pid[1]));
	wait_until(alive(j->worker_pid) && f->n->worker == j->worker_pid);
	beats_before = __atomic_load_n(&f->n->beats, __ATOMIC_SEQ_CST);
	wait_until(__atomic_load_n(&f->n->beats, __ATOMIC_SEQ_CST) != beats_before);
}

static inline void end_with(struct fixture *f, int status)
{
	f->n->status = status;
	__atomic_store_n(&f->n->end, true, __ATOMIC_SEQ_CST);
	assert_int_equal(everybody_ends(f), status);
}

static inline pid_t senior(const struct fixture *f)
{
	return f->j->keeper_pid[f->j->senior];
}

static inline pid_t deputy(const struct fixture *f)
{
	return f->j->keeper_pid[!f->j->senior];
}

#define keeper_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
