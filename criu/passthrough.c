// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Finds and becomes the real CRIU: see passthrough.h. "Is it us" is asked by device and inode of
 * the program file, not by name. A script named criu that calls us back would go round for ever;
 * a count in the environment ends that.
 */
#include "passthrough.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler.h"

#define DEPTH_VARIABLE "CRIU_LAZY_PAGES_DEPTH"
#define DEPTH_MAX      16
#define DEFAULT_PATH   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int stat_self(struct stat *st)
{
	const char *name = (const char *)getauxval(AT_EXECFN);

	if (!stat("/proc/self/exe", st))
		return 0;
	return name ? stat(name, st) : -1;
}

static bool is_program(const char *path, struct stat *st)
{
	return !stat(path, st) && S_ISREG(st->st_mode) && !access(path, X_OK);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int find_in_path(char *path, size_t size, const struct stat *self, struct error *e)
{
	const char *dir = getenv("PATH");
	struct stat st;
	int len;

	for (dir = dir ? dir : DEFAULT_PATH;; dir += len + 1) {
		int n;

		/* an empty part is the current directory */
		len = (int)strcspn(dir, ":");
		n = snprintf(path, size, "%.*s%scriu", len, dir, len ? "/" : "./");
		if (n > 0 && (size_t)n < size && is_program(path, &st) && !same_file(&st, self))
			return 0;
		if (!dir[len])
			break;
	}
	return error_set(e, -ENOENT,
			 "no other criu in PATH: install CRIU, or name its program in CRIU_REAL");
}

int passthrough_find(char *path, size_t size, struct error *e)
{
	const char *real = getenv("CRIU_REAL");
	struct stat self, st;

	if (stat_self(&self))
		return error_errno(e, -errno, "cannot find out which program this is");
	if (!real || !*real)
		return find_in_path(path, size, &self, e);
	if (!is_program(real, &st))
		return error_set(e, -ENOENT, "CRIU_REAL is %s, which is not a program", real);
	if (same_file(&st, &self))
		return error_set(e, -ELOOP, "CRIU_REAL is %s, which is this very program", real);
	if ((size_t)snprintf(path, size, "%s", real) >= size)
		return error_errno(e, -ENAMETOOLONG, "CRIU_REAL");
	return 0;
}

static int count_depth(struct error *e)
{
	const char *text = getenv(DEPTH_VARIABLE);
	int depth = text ? atoi(text) + 1 : 1;
	char next[16];

	if (depth > DEPTH_MAX)
		return error_set(
			e, -ELOOP,
			"called by itself %d times over: the criu in PATH leads back here; "
			"name the real one in CRIU_REAL",
			DEPTH_MAX);
	snprintf(next, sizeof(next), "%d", depth);
	if (setenv(DEPTH_VARIABLE, next, 1))
		return error_errno(e, -errno, "environment");
	return 0;
}

int passthrough_exec(char **argv)
{
	char path[PATH_MAX];
	struct error e = {0};

	if (passthrough_find(path, sizeof(path), &e) || count_depth(&e)) {
		fprintf(stderr, "criu: %s\n", e.text);
		return EXIT_NOT_FOUND;
	}
	execv(path, argv);
	fprintf(stderr, "criu: cannot run %s: %s\n", path, strerror(errno));
	return EXIT_CANNOT_EXECUTE;
}
