// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Link watch: see link_watch.h. Only the groups of rtnetlink are listened to, nothing is asked, so
 * there is nothing to wait for. Messages that were lost because too many came count as good news: a
 * try too many costs little.
 */
#include "link_watch.h"

#include <errno.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdlib.h>

struct link_watch {
	struct nl_sock *socket;
	bool better; /* set by the callback while link_watch_read() runs */
};

static bool link_is_up(struct nlmsghdr *h)
{
	const struct ifinfomsg *info = nlmsg_data(h);

	return nlmsg_valid_hdr(h, sizeof(*info)) && (info->ifi_flags & IFF_UP) &&
	       (info->ifi_flags & IFF_RUNNING);
}

static int take(struct nl_msg *m, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(m);
	struct link_watch *w = arg;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
		w->better |= link_is_up(h);
		break;
	case RTM_NEWADDR:
	case RTM_NEWROUTE:
		w->better = true;
		break;
	default: /* what has gone helps nobody */
		break;
	}
	return NL_OK;
}

static int join(struct nl_sock *s)
{
	int ret = nl_connect(s, NETLINK_ROUTE);

	if (ret == 0)
		ret = nl_socket_set_nonblocking(s);
	if (ret == 0)
		ret = nl_socket_add_memberships(s, RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR,
						RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR,
						RTNLGRP_IPV6_ROUTE, 0);
	return ret;
}

struct link_watch *link_watch_open(struct error *e)
{
	struct link_watch *w = calloc(1, sizeof(*w));
	int ret = -NLE_NOMEM;

	if (w)
		w->socket = nl_socket_alloc();
	if (w && w->socket) {
		nl_socket_disable_seq_check(w->socket);
		nl_socket_modify_cb(w->socket, NL_CB_VALID, NL_CB_CUSTOM, take, w);
		ret = join(w->socket);
	}
	if (ret == 0)
		return w;
	link_watch_close(w);
	error_set(e, ret == -NLE_NOMEM ? -ENOMEM : -EPROTO, "rtnetlink: %s", nl_geterror(ret));
	return NULL;
}

void link_watch_close(struct link_watch *w)
{
	if (!w)
		return;
	nl_socket_free(w->socket);
	free(w);
}

int link_watch_fd(const struct link_watch *w)
{
	return nl_socket_get_fd(w->socket);
}

bool link_watch_read(struct link_watch *w)
{
	int ret;

	w->better = false;
	do
		ret = nl_recvmsgs_default(w->socket);
	while (ret == 0);
	return w->better || ret == -NLE_NOMEM;
}
