// SPDX-License-Identifier: GPL-2.0-or-later
/* Names of those who connect, for the log. Any thread. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#include "client.h"

static void unix_name(int fd, char name[CLIENT_NAME_MAX])
{
	struct ucred who = {0};
	socklen_t len = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || !who.pid)
		snprintf(name, CLIENT_NAME_MAX, "descriptor %d", fd);
	else
		snprintf(name, CLIENT_NAME_MAX, "process %d (descriptor %d)", (int)who.pid, fd);
}

const char *peer_name(int fd, char name[CLIENT_NAME_MAX])
{
	char host[64], port[NI_MAXSERV];
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (getpeername(fd, (struct sockaddr *)&sa, &len) ||
	    (sa.ss_family != AF_INET && sa.ss_family != AF_INET6) ||
	    getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		unix_name(fd, name);
	else
		snprintf(name, CLIENT_NAME_MAX, sa.ss_family == AF_INET6 ? "[%s]:%.8s" : "%s:%.8s",
			 host, port);
	return name;
}
