// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Ends in the middle of the transfer: exit, exec and SIGKILL of one task or of all, with and
 * without threads whose faults wait. What lives on is right to the byte; the manager takes it as
 * normal.
 */
#include "event.h"

#define PAGES	 4096
#define CHILDREN 6

static pid_t *pids; /* shared: written by the parent before the dump */

static void setup_one(void)
{
	ev_arena(0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_write(arena[0], 0, PAGES);
}

static void *reads_for_ever(void *number)
{
	struct arena *a = arena[0];

	for (uint32_t s = (uint32_t)(uintptr_t)number;; s = (s + 4) % a->n)
		ev_check(a, s, 1);
	return NULL;
}

static void start_readers(void)
{
	for (int i = 0; i < 4; i++) {
		pthread_t t;

		must(!pthread_create(&t, NULL, reads_for_ever, (void *)(uintptr_t)i));
	}
	test_sleep_ms(2);
}

/* ---- exit ---- */

static void run_exit(void)
{
	ev_check(arena[0], 1000, 20);
	test_pass();
}

static void run_exit_with_threads(void)
{
	start_readers();
	test_pass();
}

/* The parent goes, the child, forked while all was owed, proves the memory alone. */
static void orphan(void *unused)
{
	(void)unused;
	while (getppid() == pids[0])
		test_sleep_ms(1);
	ev_check_all();
	test_wait_finished();
	ev_check_all();
	test_pass();
}

static void setup_parent_exits(void)
{
	setup_one();
	pids = shared_map(PAGE);
}

static void run_parent_exits(void)
{
	pids[0] = getpid();
	ev_fork(NULL, orphan, NULL);
	_exit(0);
}

/* ---- exec ---- */

static void become(const char *act)
{
	char seed[32];

	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)test_context.seed);
	execl("/proc/self/exe", "event_end", seed, act, (char *)NULL);
	test_fail("exec: %s", strerror(errno));
}

static void run_exec(void)
{
	ev_check(arena[0], 1000, 20);
	become("became");
}

static void run_exec_with_threads(void)
{
	start_readers();
	become("became");
}

/* In the new image: memory at the old addresses is new. */
static void run_became(void)
{
	setup_one();
	ev_unmap(arena[0], 0, PAGES);
	ev_map(arena[0], 0, PAGES, RW);
	ev_check_all();
	ev_write(arena[0], 0, PAGES);
	test_sleep_ms(50);
}

static void child_becomes(void *unused)
{
	(void)unused;
	become("became_child");
}

static void run_became_child(void)
{
	run_became();
	ev_check_all();
	_exit(0);
}

static void run_child_execs(void)
{
	pid_t pid[CHILDREN];

	for (int i = 0; i < CHILDREN; i++)
		pid[i] = ev_fork(NULL, child_becomes, NULL);
	ev_check(arena[0], 0, 1000);
	for (int i = 0; i < CHILDREN; i++)
		child_wait(pid[i]);
}

/* ---- SIGKILL ---- */

static void reap_killed(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		test_fail("child %d: expected death by SIGKILL, got status %#x", (int)pid, status);
}

static void doomed(void *unused)
{
	(void)unused;
	start_readers();
	for (;;)
		pause();
}

static void kill_some(pid_t *pid)
{
	uint64_t random = 0;

	for (int i = 0; i < CHILDREN; i++) {
		ev_check(arena[0], (uint32_t)i * 100, 50);
		if (i & 1)
			test_sleep_ms((unsigned)(random_next(&random) % 8));
		must(!kill(pid[i], SIGKILL));
		reap_killed(pid[i]);
	}
}

static void run_kill_forked(void)
{
	pid_t pid[CHILDREN];

	for (int i = 0; i < CHILDREN; i++)
		pid[i] = ev_fork(NULL, doomed, NULL);
	kill_some(pid);
	child_wait(ev_fork(NULL, ev_child_checks, NULL));
}

/* Children of the checkpoint: each has its own image. */
static void setup_kill_restored(void)
{
	setup_one();
	pids = shared_map(PAGE);
	for (int i = 0; i < CHILDREN; i++) {
		pid_t pid = fork();

		must(pid >= 0);
		if (pid) {
			pids[i] = pid;
			continue;
		}
		test_wait_go();
		ev_arenas_restored();
		doomed(NULL);
	}
}

static void run_kill_restored(void)
{
	kill_some(pids);
}

/* Someone else ends us. */
static void run_waits(void)
{
	doomed(NULL);
}

static const struct act acts[] = {
	{"exit", setup_one, run_exit},
	{"exit_with_threads", setup_one, run_exit_with_threads},
	{"parent_exits", setup_parent_exits, run_parent_exits},
	{"exec", setup_one, run_exec},
	{"exec_with_threads", setup_one, run_exec_with_threads},
	{"child_execs", setup_one, run_child_execs},
	{"kill_forked", setup_one, run_kill_forked},
	{"kill_restored", setup_kill_restored, run_kill_restored},
	{"waits", setup_one, run_waits},
	{"became", NULL, run_became},
	{"became_child", NULL, run_became_child},
};

EV_MAIN(acts)
