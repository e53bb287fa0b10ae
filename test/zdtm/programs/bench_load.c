// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Threads that compute and never sleep, to measure beside. Argument: how many. Says "busy" when all
 * run; ends with whoever started it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static void *spin(void *arg)
{
	for (volatile uint64_t i = 0;; i++)
		;
	return arg;
}

int main(int argc, char **argv)
{
	int n = argc == 2 ? atoi(argv[1]) : 0;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (n < 1)
		return 2;
	for (int i = 0; i < n; i++)
		if (pthread_create(&thread, NULL, spin, NULL))
			return 1;
	puts("busy");
	fflush(stdout);
	pause();
	return 0;
}
