/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A child that the test lets go on one machine instruction at a time, so that a crash can be tried
 * at each of them. The child calls step_begin() and, at the end, _exit(0).
 */
#ifndef STEP_H
#define STEP_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * First thing in main(). A long "rep stos" stops after each of its rounds; the C library is told to
 * do without them.
 */
static inline void step_init(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES",
	       "glibc.cpu.x86_rep_stosb_threshold=1000000:glibc.cpu.x86_rep_movsb_threshold="
	       "1000000",
	       1);
	execv("/proc/self/exe", argv);
}

static inline void step_begin(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
}

/* Waits until the child has stopped; false when it has ended, and then *status says how. */
static inline bool step_wait(pid_t pid, int *status)
{
	assert_int_equal(waitpid(pid, status, __WALL), pid);
	return WIFSTOPPED(*status);
}

/*
 * Executes one instruction; of one that repeats itself (rep movs and the like) it is all. False
 * when the child has ended.
 */
static inline bool step_one(pid_t pid, int *status)
{
	long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);

	do {
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		if (!step_wait(pid, status))
			return false;
		assert_int_equal(WSTOPSIG(*status), SIGTRAP);
	} while (ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL) == at);
	return true;
}

static inline void step_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	while (step_wait(pid, &status)) {
	}
}

#endif
