// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A session leader with children in groups and sessions of their own, zombies that nobody has
 * waited for, and a stopped child whose memory arrives while it cannot ask for it. Ids, exit
 * statuses and memory come back.
 */
#include "lazytest.h"

#define BYTES (2 * MIB)

enum { GROUP, SESSION, STOPPED, LIVING };

static char *memory;
static uint32_t *count;

static void check_ids(int kind, pid_t root)
{
	pid_t me = getpid();

	must(getppid() == root);
	must(getsid(0) == (kind == SESSION ? me : root));
	must(getpgid(0) == (kind == LIVING ? root : me));
}

static pid_t child_start(int kind, pid_t root)
{
	pid_t pid = fork();

	must(pid >= 0);
	if (pid)
		return pid;
	if (kind == SESSION)
		must(setsid() == getpid());
	else if (kind != LIVING)
		must(!setpgid(0, 0));
	pages_fill(memory, BYTES / 2, 100 + (uint64_t)kind * 10000);
	check_ids(kind, root);
	__atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
	if (kind == STOPPED)
		must(!raise(SIGSTOP));
	test_wait_go();
	if (kind != STOPPED)
		pages_must_be_owed("a child's memory", memory, BYTES);
	check_ids(kind, root);
	pages_check("a child's own memory", memory, BYTES / 2, 100 + (uint64_t)kind * 10000);
	pages_check("memory of its parent", memory + BYTES / 2, BYTES / 2,
		    page_key(memory + BYTES / 2));
	_exit(kind);
}

static void expect_status(pid_t pid, int expected)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	if (status != expected)
		test_fail("child %d: wait status 0x%x, not 0x%x", (int)pid, status, expected);
}

int main(int argc, char **argv)
{
	pid_t child[4], zombie[3], root = getpid();
	siginfo_t info;
	int status;

	test_init(argc, argv);
	must(getsid(0) == root);
	memory = pages_map(BYTES);
	count = shared_map(PAGE);
	pages_fill(memory, BYTES, page_key(memory));
	for (int i = 0; i < 3; i++) {
		zombie[i] = fork();
		must(zombie[i] >= 0);
		if (!zombie[i]) {
			if (i == 2)
				raise(SIGKILL);
			_exit(10 + i);
		}
		must(!waitid(P_PID, (id_t)zombie[i], &info, WEXITED | WNOWAIT));
	}
	for (int i = 0; i < 4; i++)
		child[i] = child_start(i, root);
	while (__atomic_load_n(count, __ATOMIC_SEQ_CST) != 4)
		test_sleep_ms(5);
	must(waitpid(child[STOPPED], &status, WUNTRACED) == child[STOPPED] && WIFSTOPPED(status));

	test_ready();

	pages_must_be_owed("the root's memory", memory, BYTES);
	expect_status(zombie[0], 10 << 8);
	expect_status(zombie[1], 11 << 8);
	expect_status(zombie[2], SIGKILL);
	for (int i = 0; i < 4; i++) {
		if (i == STOPPED) {
			test_sleep_ms(50);
			must(!kill(child[i], SIGCONT));
		}
		expect_status(child[i], i << 8);
	}
	pages_check("the root's memory", memory, BYTES, page_key(memory));
	test_pass();
}
