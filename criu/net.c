// SPDX-License-Identifier: GPL-2.0-or-later
/* Addresses and the sockets for them: see net.h. */
#include "net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "compiler.h"

static bool is_path(const char *host)
{
	return strchr(host, '/') != NULL;
}

static int path_address(struct net_address *a, const char *path, struct error *e)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&a->sa;
	size_t len = strlen(path);

	if (len >= sizeof(un->sun_path))
		return error_set(e, -ENAMETOOLONG, "%.64s...: %zu characters, a socket has %zu",
				 path, len, sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	snprintf(a->text, sizeof(a->text), "%s", path);
	return 0;
}

static void write_text(struct net_address *a)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo((struct sockaddr *)&a->sa, a->len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(a->text, sizeof(a->text), "?");
	else if (a->sa.ss_family == AF_INET6)
		snprintf(a->text, sizeof(a->text), "[%.120s]:%.8s", host, port);
	else
		snprintf(a->text, sizeof(a->text), "%.120s:%.8s", host, port);
}

/* Of a name that has both, the IPv4 address: without --address stock CRIU listens on IPv4 alone. */
static const struct addrinfo *choose(const struct addrinfo *found)
{
	for (const struct addrinfo *i = found; i; i = i->ai_next)
		if (i->ai_family == AF_INET)
			return i;
	return found;
}

int net_resolve(struct net_address *a, const char *host, uint16_t port, struct error *e)
{
	struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
	char service[8];
	int ret;

	memset(a, 0, sizeof(*a));
	if (host && is_path(host))
		return path_address(a, host, e);
	if (!host)
		host = "0.0.0.0";
	snprintf(service, sizeof(service), "%u", port);
	ret = getaddrinfo(host, service, &want, &found);
	if (ret == EAI_MEMORY)
		return error_errno(e, -ENOMEM, "%s", host);
	if (ret)
		return error_set(e, -EADDRNOTAVAIL, "%s: %s", host,
				 ret == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(ret));
	memcpy(&a->sa, choose(found)->ai_addr, choose(found)->ai_addrlen);
	a->len = choose(found)->ai_addrlen;
	freeaddrinfo(found);
	write_text(a);
	return 0;
}

static int parse_port(const char *text, uint16_t *port)
{
	unsigned long value;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	value = strtoul(text, &end, 10);
	if (*end || value == 0 || value > UINT16_MAX)
		return -EINVAL;
	*port = (uint16_t)value;
	return 0;
}

int net_parse(struct net_address *a, const char *text, struct error *e)
{
	const char *colon = strrchr(text, ':');
	char host[256];
	uint16_t port;
	size_t len;

	if (is_path(text))
		return net_resolve(a, text, 0, e);
	if (!colon || parse_port(colon + 1, &port))
		return error_set(e, -EINVAL, "%s: not HOST:PORT, [ADDRESS]:PORT or a path", text);
	len = (size_t)(colon - text);
	if (text[0] == '[' && len > 2 && text[len - 1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len)) {
		return error_set(e, -EINVAL, "%s: an IPv6 address goes in brackets", text);
	}
	if (len == 0 || len >= sizeof(host))
		return error_set(e, -EINVAL, "%.64s: no host", text);
	memcpy(host, text, len);
	host[len] = 0;
	return net_resolve(a, host, port, e);
}

static int open_socket(const struct net_address *a)
{
	int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

int net_connect(const struct net_address *a, struct error *e)
{
	_cleanup_close_ int fd = open_socket(a);

	if (fd < 0)
		return error_errno(e, fd, "%s", a->text);
	if (connect(fd, (const struct sockaddr *)&a->sa, a->len) && errno != EINPROGRESS)
		return error_errno(e, -errno, "%s", a->text);
	return steal_fd(&fd);
}

/* Whether @path is a socket that nobody listens on: what a server that was killed leaves. */
static bool is_stale(const char *path, const struct net_address *a)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	/* connecting to any other file is refused just the same */
	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = open_socket(a);
	return fd >= 0 && connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0 &&
	       errno == ECONNREFUSED;
}

static int bind_to(int fd, const struct net_address *a)
{
	const struct sockaddr *sa = (const struct sockaddr *)&a->sa;
	const char *path;

	if (bind(fd, sa, a->len) == 0)
		return 0;
	if (errno != EADDRINUSE || a->sa.ss_family != AF_UNIX)
		return -errno;
	path = ((const struct sockaddr_un *)sa)->sun_path;
	if (!is_stale(path, a))
		return -EADDRINUSE;
	unlink(path);
	return bind(fd, sa, a->len) ? -errno : 0;
}

int net_listen(struct net_address *a, struct error *e)
{
	_cleanup_close_ int fd = open_socket(a);
	bool unix_socket = a->sa.ss_family == AF_UNIX;
	int one = 1, ret;

	if (fd < 0)
		return error_errno(e, fd, "%s", a->text);
	if (!unix_socket)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret = bind_to(fd, a);
	if (ret == 0 && listen(fd, SOMAXCONN))
		ret = -errno;
	if (ret)
		return error_errno(e, ret, "%s", a->text);
	if (!unix_socket) {
		a->len = sizeof(a->sa);
		if (getsockname(fd, (struct sockaddr *)&a->sa, &a->len))
			return error_errno(e, -errno, "%s", a->text);
		write_text(a);
	}
	return steal_fd(&fd);
}

bool net_is_local(const struct net_address *a)
{
	const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&a->sa)->sin6_addr;
	const struct in_addr *v4 = &((const struct sockaddr_in *)&a->sa)->sin_addr;

	switch (a->sa.ss_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return (ntohl(v4->s_addr) >> 24) == IN_LOOPBACKNET;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(v6) ||
		       (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
	default:
		return false;
	}
}
