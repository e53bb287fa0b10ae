// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * When a restored task has all its memory, and which threads ran on which CPUs meanwhile.
 * Reads one line from standard input, "TASK PAGES MANAGER", and looks from then on how much
 * anonymous memory TASK has, at first seldom and near the end ten times a millisecond: a look costs
 * microseconds, and nothing is asked of either manager. Prints the CLOCK_MONOTONIC nanoseconds at
 * which PAGES were there ("end 123"; 0: TASK has ended before), then a line a thread and CPU:
 * "ran NAME CPU TIMES", of the times it was seen running, every 20 milliseconds.
 */
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define LEAST_NS  100000
#define MOST_NS	  5000000
#define SAMPLE_NS 20000000
#define SEEN	  256

struct seen {
	char name[32];
	int cpu;
	unsigned times;
};

struct watch {
	struct seen seen[SEEN];
	int nseen;
};

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool file_read(const char *path, char *text, size_t room)
{
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(text, 1, room - 1, f) : 0;

	text[n] = 0;
	if (f)
		fclose(f);
	return n;
}

/* Anonymous pages, or -1 when the task has gone. */
static int64_t task_pages(int pid)
{
	char path[64], text[256];
	long size, resident, shared;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	if (!file_read(path, text, sizeof(text)) ||
	    sscanf(text, "%ld %ld %ld", &size, &resident, &shared) != 3 || !size)
		return -1;
	return resident - shared;
}

static void count(struct watch *w, const char *name, int cpu)
{
	int i = 0;

	while (i < w->nseen && (w->seen[i].cpu != cpu || strcmp(w->seen[i].name, name)))
		i++;
	if (i == SEEN)
		return;
	if (i == w->nseen) {
		snprintf(w->seen[i].name, sizeof(w->seen[i].name), "%s", name);
		w->seen[i].cpu = cpu;
		w->nseen++;
	}
	w->seen[i].times++;
}

/* Counts those threads of the process that run or could; @role goes before their names. */
static void sample_process(struct watch *w, int pid, const char *role)
{
	char path[300], text[1024], name[32];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		char state = 0, *open, *close;
		int cpu = -1;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, e->d_name);
		if (e->d_name[0] == '.' || !file_read(path, text, sizeof(text)))
			continue;
		open = strchr(text, '(');
		close = strrchr(text, ')');
		/* state is the third word, the CPU the 39th */
		if (!open || !close ||
		    sscanf(close + 1,
			   " %c%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s"
			   "%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s%*s %d",
			   &state, &cpu) != 2 ||
		    state != 'R')
			continue;
		*close = 0;
		snprintf(name, sizeof(name), "%s:%.16s", role, open + 1);
		for (char *c = name; *c; c++)
			if (*c == ' ')
				*c = '_';
		count(w, name, cpu);
	}
	if (d)
		closedir(d);
}

static void sample(struct watch *w, int task, int manager)
{
	char path[64], text[1024], *word, *rest;

	sample_process(w, task, "task");
	sample_process(w, manager, "manager");
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", manager, manager);
	if (!file_read(path, text, sizeof(text)))
		return;
	for (word = strtok_r(text, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
		sample_process(w, atoi(word), "manager");
}

/* An eighth of what is still to be expected at the pace so far. */
static uint64_t pause_ns(uint64_t elapsed, int64_t have, int64_t want)
{
	double ns = (double)elapsed * (double)(want - have) / (double)(have + 1) / 8;

	return ns < LEAST_NS ? LEAST_NS : ns > MOST_NS ? MOST_NS : (uint64_t)ns;
}

int main(void)
{
	const struct sched_param priority = {.sched_priority = 1};
	struct watch w = {0};
	uint64_t began, now, sampled = 0;
	int64_t pages, have;
	int task, manager;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It must see the end when it comes, also on a machine that is busy. */
	sched_setscheduler(0, SCHED_FIFO, &priority);
	if (scanf("%d %ld %d", &task, &pages, &manager) != 3)
		return 2;
	began = clock_ns();
	while ((have = task_pages(task)) >= 0 && have < pages) {
		uint64_t ns;

		now = clock_ns();
		if (now - sampled > SAMPLE_NS) {
			sample(&w, task, manager);
			sampled = now;
		}
		ns = pause_ns(now - began, have, pages);
		nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
	}
	now = clock_ns();
	printf("end %lu\n", have < 0 ? 0 : now);
	for (int i = 0; i < w.nseen; i++)
		printf("ran %s %d %u\n", w.seen[i].name, w.seen[i].cpu, w.seen[i].times);
	return 0;
}
