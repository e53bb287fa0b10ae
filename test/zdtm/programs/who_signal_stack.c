// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Signals whose frame the kernel writes on an alternate stack that is owed, in four threads; what
 * is in the stack below the frame is as it was.
 */
#include "lazytest.h"

#define THREADS 4
#define STACK	(64 * PAGE)

static pthread_barrier_t barrier;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	char frame[2 * PAGE];

	must(sig == SIGUSR1 && info->si_pid == getpid() && context);
	memset(frame, 1, sizeof(frame));
	must(write(-1, frame, sizeof(frame)) == -1 && errno == EBADF);
}

static void *thread_main(void *arg)
{
	char *stack = pages_map(STACK);
	stack_t alt = {.ss_sp = stack, .ss_size = STACK};

	(void)arg;
	pages_fill(stack, STACK, page_key(stack));
	must(!sigaltstack(&alt, NULL));
	pthread_barrier_wait(&barrier);
	test_wait_go();
	pages_must_be_owed("alternate stack", stack, STACK);
	for (int i = 0; i < 10; i++)
		must(!syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
	pages_check("below the frame", stack, STACK / 2, page_key(stack));
	if (*(uint64_t *)(void *)(stack + STACK - PAGE) ==
	    page_word(page_key(stack + STACK - PAGE), 0))
		test_fail("no frame was written on the alternate stack");
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	pthread_t t[THREADS];

	test_init(argc, argv);
	must(!sigaction(SIGUSR1, &act, NULL));
	must(!pthread_barrier_init(&barrier, NULL, THREADS + 1));
	for (int i = 0; i < THREADS; i++)
		must(!pthread_create(&t[i], NULL, thread_main, NULL));
	pthread_barrier_wait(&barrier);

	test_ready();

	for (int i = 0; i < THREADS; i++)
		must(!pthread_join(t[i], NULL));
	test_pass();
}
