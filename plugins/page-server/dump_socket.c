// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * From an address to the process behind it: /proc/net/tcp has the inode of the socket, and a
 * descriptor that is a link to that inode tells the process. See dump_socket.h.
 */
#include "dump_socket.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler.h"

#define STATE_ESTABLISHED 1
#define STATE_LISTEN	  10

struct row {
	unsigned char address[16]; /* IPv4 in the first four */
	unsigned port, state;
	uint64_t inode;
};

/* Words of 32 bits, each as the machine has it in memory. */
static bool read_address(const char *hex, size_t words, unsigned char *to)
{
	for (size_t i = 0; i < words; i++) {
		uint32_t word;

		if (sscanf(hex + i * 8, "%8" SCNx32, &word) != 1)
			return false;
		memcpy(to + i * 4, &word, 4);
	}
	return true;
}

static bool read_row(const char *line, bool v6, struct row *r)
{
	char hex[40];

	memset(r, 0, sizeof(*r));
	return sscanf(line,
		      " %*u: %32[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u "
		      "%" SCNu64,
		      hex, &r->port, &r->state, &r->inode) == 4 &&
	       strlen(hex) == (v6 ? 32u : 8u) && read_address(hex, v6 ? 4 : 1, r->address);
}

/* 2: this very address; 1: any address, this one included; 0: another. */
static int match(const struct row *r, bool v6, const struct net_address *a)
{
	static const unsigned char any[16];
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&a->sa;
	const struct sockaddr_in *four = (const struct sockaddr_in *)&a->sa;
	bool want6 = a->sa.ss_family == AF_INET6;

	if (r->port != ntohs(want6 ? six->sin6_port : four->sin_port))
		return 0;
	if (!memcmp(r->address, any, sizeof(any)))
		return want6 && !v6 ? 0 : 1;
	if (v6 && want6)
		return memcmp(r->address, &six->sin6_addr, 16) ? 0 : 2;
	if (!v6 && !want6)
		return memcmp(r->address, &four->sin_addr, 4) ? 0 : 2;
	if (v6 && !want6)
		return IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)r->address) &&
				       !memcmp(r->address + 12, &four->sin_addr, 4)
			       ? 2
			       : 0;
	return 0;
}

/* The inode of the socket that fits best, or 0. */
static uint64_t find_inode(const struct net_address *a, unsigned state)
{
	static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
	uint64_t inode = 0;
	int best = 0;

	for (unsigned v6 = 0; v6 < ARRAY_SIZE(tables); v6++) {
		_cleanup_fclose_ FILE *f = fopen(tables[v6], "re");
		char line[512];
		struct row r;

		while (f && fgets(line, sizeof(line), f)) {
			if (!read_row(line, v6, &r) || r.state != state || !r.inode)
				continue;
			if (match(&r, v6, a) > best) {
				best = match(&r, v6, a);
				inode = r.inode;
			}
		}
	}
	return inode;
}

/* Whether @pid has the socket open. */
static bool has_socket(const char *pid, uint64_t inode)
{
	char path[280], target[64], want[64];
	struct dirent *d;
	bool has = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	snprintf(want, sizeof(want), "socket:[%" PRIu64 "]", inode);
	dir = opendir(path);
	while (dir && !has && (d = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof(target) - 1);

		if (n > 0) {
			target[n] = 0;
			has = !strcmp(target, want);
		}
	}
	if (dir)
		closedir(dir);
	return has;
}

static pid_t find_owner(uint64_t inode)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	pid_t pid = 0;

	while (dir && !pid && (d = readdir(dir)))
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && has_socket(d->d_name, inode))
			pid = atoi(d->d_name);
	if (dir)
		closedir(dir);
	return pid;
}

int socket_listener(const struct net_address *a, pid_t *pid, struct error *e)
{
	uint64_t inode;

	if (a->sa.ss_family != AF_INET && a->sa.ss_family != AF_INET6)
		return error_set(e, -EINVAL, "%s: a criu dump listens on TCP alone", a->text);
	inode = find_inode(a, STATE_LISTEN);
	if (!inode && find_inode(a, STATE_ESTABLISHED))
		return error_set(e, -EBUSY,
				 "%s: has its connection already, and a criu dump takes only one",
				 a->text);
	if (!inode)
		return error_set(e, -ENOENT, "%s: nobody listens there on this machine", a->text);
	*pid = find_owner(inode);
	if (!*pid)
		return error_set(e, -ESRCH, "%s: the process that listens there is not to be seen",
				 a->text);
	return 0;
}
