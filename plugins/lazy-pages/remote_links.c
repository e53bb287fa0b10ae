// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The links to a page server and the thread that serves them. Slot 0 is the first connection and
 * carries the background; slot 1 is tried once slot 0 has given an answer. A stock server refuses
 * it; one that gives an answer there, too, is ours: from then on faults have slot 1 to themselves
 * (remote_fast.c), and any link may be lost without harm (link_record.replaceable).
 *
 * The first connection may be to a frozen source, for which a plain end means that all is well, and
 * which takes no other. So until it is known to be replaceable it is never closed here before every
 * page is held: a server that does not keep to the protocol, or a place in the stream that a new
 * worker cannot find, parks it: open, and unused. If all of the manager dies, its end is a reset,
 * on which a source goes on.
 *
 *   none -> slot 0 connected          by the keeper, before there is a worker
 *   slot 0 answers                    slot 1 is tried once
 *   slot 1 answers                    replaceable; a parked slot 0 is closed
 *   lost, or silent and replaceable   its requests go back into the queue; connect again
 *   finish asked                      CLOSE on slot 0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "compiler.h"
#include "remote.h"
#include "remote_links.h"
#include "wake.h"

#define END_NS	   UINT64_C(10000000000) /* to reach a server that has to be told the end */
#define END_ONE_NS UINT64_C(2000000000)	 /* the same, one that may take no other connection */
#define ONE_LEAST  (UINT64_C(256) << 10)
#define ONE_MOST   (UINT64_C(4) << 20)
#define BUSY_LEAST (UINT64_C(64) << 10)
#define TWO_LEAST  (UINT64_C(1) << 20)
#define TWO_MOST   (UINT64_C(16) << 20)
#define LINKS_NICE (-10) /* as the owners, who wait for it */

const char *links_address(const struct links *l)
{
	return l->r->start->peer.address.text;
}

static void state_changed(struct links *l, const struct error *e)
{
	struct source_state *s = &l->r->state;
	unsigned n = (l->link[0] != NULL) + l->fast;

	pthread_mutex_lock(&l->r->lock);
	if (s->lost != !n || s->parked != l->parked)
		s->since_ns = now_ns();
	s->lost_times += e != NULL;
	s->lost = !n;
	s->parked = l->parked;
	s->links = n;
	if (e)
		snprintf(s->why, sizeof(s->why), "%s", e->text);
	pthread_mutex_unlock(&l->r->lock);
}

bool links_can_be_lost(const struct links *l, unsigned slot)
{
	return slot == 1 || l->record[0]->remade || l->record[0]->replaceable;
}

static void connect_again(struct links *l)
{
	if (l->r->start->peer.known && !connector_busy(l->connector))
		connector_want(l->connector, true);
}

/* Whether an error says that a connection has ended, and not that we had no memory, say. */
static bool is_dead(int code)
{
	return code == -ECONNRESET || code == -EPIPE || code == -ETIMEDOUT || code == -ENOTCONN ||
	       code == -ECONNABORTED || code == -EHOSTUNREACH || code == -ENETUNREACH ||
	       code == -EACCES;
}

/* The link in @slot is of no use any more. */
void links_lose(struct links *l, unsigned slot, const struct error *e)
{
	const struct log *log = l->r->log;
	bool proven = slot == 0 || l->fast;
	bool over;

	/* A server that hears that all is held may end at once, and the second link with it. */
	pthread_mutex_lock(&l->r->lock);
	over = slot == 1 && l->r->end != END_NOT_ASKED;
	pthread_mutex_unlock(&l->r->lock);

	if (slot == 1 && l->fast) {
		remote_fast_withdraw(l->r);
		l->fast = false;
	}
	if (!is_dead(e->code) && !links_can_be_lost(l, slot)) {
		log_error(log,
			  "%s: %s; the connection is kept and not used any more, tasks that need "
			  "its pages wait",
			  links_address(l), e->text);
		l->parked = true;
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, link_fd(l->link[slot]), NULL);
		link_park(l->link[slot]);
	} else {
		/* A second connection that never answered was never one of ours. */
		if (proven && !over)
			log_warn(log, "%s: link lost: %s; tasks that need its pages wait",
				 links_address(l), e->text);
		link_free(l->link[slot]);
	}
	l->link[slot] = NULL;
	l->silence_said = false;
	if (proven)
		l->second_tried = false;
	state_changed(l, proven ? e : NULL);
	if (slot == 0 || l->parked)
		connect_again(l);
	/* What it owed is queued again, perhaps after the queue has been looked at. */
	remote_kick(l->r);
}

static void watch(struct links *l, unsigned slot, int op)
{
	struct epoll_event ev = {.events = link_events(l->link[slot]), .data.u32 = slot};

	if (epoll_ctl(l->epoll_fd, op, link_fd(l->link[slot]), &ev))
		log_error(l->r->log, "%s: epoll: %m", links_address(l));
}

static void use(struct links *l, unsigned slot, struct stream *s)
{
	l->link[slot] = link_new(l->record[slot], s, &remote_arrivals, l->r);
	if (!l->link[slot])
		abort(); /* no memory: the next worker tries again */
	watch(l, slot, EPOLL_CTL_ADD);
}

/* To see whether it answers: what the first link has owed for longest. */
static void ask_on_second(struct links *l, const struct link_request *q)
{
	struct chunk *c;

	if (!q)
		return;
	pthread_mutex_lock(&l->r->lock);
	c = store_find(l->r->store, q->where);
	c->inflight++;
	pthread_mutex_unlock(&l->r->lock);
	link_ask(l->link[1], q->where, q->npages, true, now_ns());
}

/* Before anything else: whether the same source is at the other end. */
static void check_identity(struct links *l, unsigned slot)
{
	const struct remote_identity *id = &l->r->j->identity;
	uint64_t where[IDENTITY_PAGES];
	uint32_t n;

	pthread_mutex_lock(&l->r->lock);
	n = id->n;
	for (uint32_t i = 0; i < n; i++)
		where[i] = id->page[i].where;
	pthread_mutex_unlock(&l->r->lock);
	for (uint32_t i = 0; i < n; i++)
		link_check(l->link[slot], where[i], now_ns());
}

/* A connection has been made. */
static void connected(struct links *l, struct stream *s)
{
	unsigned slot = l->link[0] || l->parked;
	const struct link_record *first = l->record[0];

	if (l->link[slot]) {
		stream_free(s);
		return;
	}
	if (!slot) {
		log_info(l->r->log, "%s: connected again", links_address(l));
		link_record_open(l->record[0], stream_fd(s), first->layout,
				 l->r->start->peer.tls != NULL);
	} else {
		link_record_open(l->record[1], stream_fd(s), first->layout, true);
	}
	/* It may be another's frozen source: a reset lets that one go on. */
	stream_reset_on_close(s, true);
	use(l, slot, s);
	check_identity(l, slot);
	if (slot && l->link[0])
		ask_on_second(l, link_oldest(l->link[0]));
	state_changed(l, NULL);
}

/* An answer on a connection that is not the first: the server takes several. */
static void look_for_proof(struct links *l)
{
	struct link_record *first = l->record[0];
	bool second = l->fast || (l->link[1] && link_proven(l->link[1]));

	/* What it owes yet is taken here: owners look only for what they have asked. Its end is
	 * noticed here, too, for there may be no owner that looks. */
	if (second && !l->fast && !link_outstanding(l->link[1])) {
		struct epoll_event ev = {.events = EPOLLRDHUP, .data.u32 = 1};

		epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, link_fd(l->link[1]), &ev);
		l->fast = true;
		link_reset_on_close(l->link[1], false);
		remote_fast_publish(l->r, l->link[1]);
		state_changed(l, NULL);
	}
	if (!first->replaceable &&
	    (second || (first->remade && l->link[0] && link_proven(l->link[0])))) {
		first->replaceable = true;
		state_changed(l, NULL);
		if (second)
			log_info(l->r->log, "%s: takes several connections", links_address(l));
	}
	if (l->parked && first->replaceable) {
		l->parked = false;
		first->open = false;
		close(first->fd);
		connect_again(l);
	}
	if (!l->second_tried && l->link[0] && link_proven(l->link[0]) && !l->link[1] &&
	    !connector_busy(l->connector) && l->r->start->peer.known) {
		l->second_tried = true;
		connector_want(l->connector, false);
	}
}

static void take_connection(struct links *l)
{
	struct error e = {0};
	bool failed;
	struct stream *s = connector_take(l->connector, &failed, &e);

	if (s)
		connected(l, s);
	else if (failed)
		log_debug(l->r->log, "no second connection: %s", e.text);
	/* Lost while the connector was busy with that. */
	if (failed && !l->link[0] && !(l->parked && l->link[1]))
		connect_again(l);
}

/* Moves requests from a queue to a link; and, to see whether it answers, one to @probe as well. */
static void send_queue(struct links *l, struct remote_queue *q, struct link *to, struct link *probe,
		       uint64_t now)
{
	struct link_request one;

	while (to && link_outstanding(to) < LINK_RING) {
		struct chunk *c;

		pthread_mutex_lock(&l->r->lock);
		if (!remote_pop(q, &one)) {
			pthread_mutex_unlock(&l->r->lock);
			return;
		}
		c = store_find(l->r->store, one.where);
		if (probe)
			c->inflight++;
		pthread_mutex_unlock(&l->r->lock);
		link_ask(to, one.where, one.npages, one.urgent, now);
		if (probe)
			link_ask(probe, one.where, one.npages, true, now);
		probe = NULL;
	}
}

static void send_all(struct links *l, uint64_t now)
{
	struct link *first = l->link[0], *probe = l->fast ? NULL : l->link[1];

	/* A source that reads anything behind CLOSE takes it for a failure, and goes on. */
	if (l->end_ns)
		return;
	if (probe && link_outstanding(probe))
		probe = NULL;
	if (l->parked && probe) {
		/* Nothing else is left to ask. */
		first = probe;
		probe = NULL;
	}
	/* What owners have not sent themselves: came short, or was on a link that is lost. */
	if (!l->fast || !remote_fast_watched(l->r) || !remote_fast_send(l->r, -1))
		send_queue(l, &l->r->urgent, first, probe, now);
	if (probe && link_outstanding(probe))
		probe = NULL;
	send_queue(l, &l->r->bulk, first, probe, now);
}

static void flush(struct links *l)
{
	for (unsigned i = 0; i < 2; i++) {
		struct error e = {0};
		uint32_t before;

		if (!l->link[i] || (i && l->fast))
			continue;
		before = link_events(l->link[i]);
		if (link_flush(l->link[i], &e))
			links_lose(l, i, &e);
		else if (link_events(l->link[i]) != before)
			watch(l, i, EPOLL_CTL_MOD);
	}
}

/* How much background may be under way; who waited for room is told when there is some. */
static void set_window(struct links *l)
{
	struct link *bulk = l->link[0];
	struct remote *r = l->r;
	uint64_t askers = 0, window = 0, busy = 0, limit;

	if (!bulk && l->parked && l->link[1])
		window = busy = ONE_LEAST;
	if (bulk) {
		window = pace_window(link_pace(bulk), l->fast ? TWO_LEAST : ONE_LEAST,
				     l->fast ? TWO_MOST : ONE_MOST);
		busy = pace_window_busy(link_pace(bulk), BUSY_LEAST, window);
	}
	pthread_mutex_lock(&r->lock);
	r->bulk_limit = window >> PAGE_SHIFT;
	r->busy_limit = busy >> PAGE_SHIFT;
	r->state.window = window;
	r->state.rtt_ns = bulk ? link_pace(bulk)->rtt_ns : 0;
	r->state.rate = bulk ? link_pace(bulk)->rate : 0;
	/* Neither in the window nor in the store; or the next one who asks makes some in the store.
	 */
	limit = remote_bulk_limit(r, now_ns());
	if (r->bulk_pages < limit - limit / 4 &&
	    (!r->bulk_pages || store_fresh(r->store) < store_chunks(r->store) / 2)) {
		askers = r->room_waiters;
		r->room_waiters = 0;
	}
	pthread_mutex_unlock(&r->lock);
	remote_tell(r, askers);
}

static void end_told(struct links *l)
{
	int fd;

	pthread_mutex_lock(&l->r->lock);
	l->r->end = END_TOLD;
	fd = l->r->end_fd;
	pthread_mutex_unlock(&l->r->lock);
	if (fd >= 0)
		wake_fd(fd);
}

/* Every page is held, and the server is to know it. Returns how long to sleep at most, or -1. */
static int say_end(struct links *l, uint64_t now)
{
	struct link *first = l->link[0];
	enum remote_end end;
	bool held;

	pthread_mutex_lock(&l->r->lock);
	end = l->r->end;
	held = l->r->end_held;
	if (end == END_ASKED)
		l->r->urgent.n = l->r->bulk.n = 0;
	pthread_mutex_unlock(&l->r->lock);
	if (end != END_ASKED)
		return -1;
	if (!l->end_ns)
		l->end_ns = now;
	if (first && link_closed(first)) {
		if (link_refused(first))
			log_warn(l->r->log,
				 "%s: keeps the source (%s); there, confirm ends it and abort "
				 "resumes it",
				 links_address(l),
				 held ? strerror(abs(link_refused(first)))
				      : "the restored root was killed while pages were owed");
		else
			log_debug(l->r->log, "%s: told that every page is held", links_address(l));
		link_say_bye(first);
		link_free(first);
		l->link[0] = NULL;
		end_told(l);
	} else if (first) {
		if (!link_closing(first))
			link_close(first, held, now);
	} else if (!l->r->start->peer.known ||
		   now - l->end_ns > (l->record[0]->replaceable ? END_NS : END_ONE_NS)) {
		log_warn(l->r->log, "%s: cannot be told that every page is held: %s",
			 links_address(l), l->r->state.why);
		end_told(l);
	} else {
		connect_again(l);
		return 100;
	}
	return -1;
}

static void receive(struct links *l, unsigned slot, uint64_t now)
{
	struct error e = {0};
	uint64_t since;

	if (!l->link[slot])
		return;
	if (slot && l->fast)
		error_set(&e, -ECONNRESET, "the server closed the connection");
	else
		link_pump(l->link[slot], now, &e);
	if (e.code) {
		links_lose(l, slot, &e);
		return;
	}
	since = link_waits_since(l->link[slot]);
	if (!since || now - since < SILENT_MIN_NS) {
		l->silent_ns[slot] = SILENT_MIN_NS;
		l->silence_said = false;
	}
}

static void register_request(void *ctx, const struct link_request *q)
{
	struct remote *r = ctx;
	struct chunk *c;

	pthread_mutex_lock(&r->lock);
	c = store_make(r->store, q->where);
	if (!c)
		abort(); /* each had its chunk with the other worker, so there is one for each */
	c->inflight++;
	c->asked |= chunk_mask(q->where, q->npages);
	r->bulk_pages += q->urgent ? 0 : q->npages;
	pthread_mutex_unlock(&r->lock);
}

/* Slot 0 as it is found in the journal. */
static void take_over(struct links *l)
{
	struct link_record *first = l->record[0];
	struct remote_start *start = l->r->start;
	struct error e = {0};
	struct stream *s;
	bool untouched;

	if (!first->open) {
		connect_again(l);
		return;
	}
	/* One that was made later was with the worker that died, but can be lost. */
	if (first->replaceable || first->remade || link_is_gone(first->fd)) {
		first->open = false;
		close(first->fd);
		connect_again(l);
		return;
	}
	/* Unused, it can be taken as it is, if it is plain or if its TLS is here. */
	untouched = !first->used && (start->stream || !start->peer.tls);
	if (!untouched && !first->exact) {
		error_set(&e, -ENOTSUP, "its place in the stream was with the worker that died");
	} else {
		s = !first->used && start->stream ? steal_pointer(&start->stream)
						  : stream_new(first->fd, NULL, false, NULL);
		if (!s)
			abort();
		use(l, 0, s);
		link_each(l->link[0], register_request);
		if (!link_resume(l->link[0], now_ns(), &e))
			return;
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, first->fd, NULL);
		link_park(l->link[0]);
		l->link[0] = NULL;
	}
	l->parked = true;
	log_error(l->r->log, "%s: %s; the connection is kept, tasks that need its pages wait",
		  links_address(l), e.text);
	connect_again(l);
}

static void start(struct links *l)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = 2};

	l->silent_ns[0] = l->silent_ns[1] = SILENT_MIN_NS;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->record[0] = &l->r->j->link;
	l->record[1] = calloc(1, sizeof(*l->record[1]));
	l->connector = connector_new(&l->r->start->peer, l->r->event_fd);
	if (!l->connector || !l->record[1] || l->epoll_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->r->event_fd, &ev))
		abort();
	pthread_mutex_lock(&l->r->lock);
	l->r->state.remote = true;
	snprintf(l->r->state.address, sizeof(l->r->state.address), "%s", links_address(l));
	pthread_mutex_unlock(&l->r->lock);
	take_over(l);
	state_changed(l, NULL);
}

static void stop(struct links *l)
{
	connector_free(l->connector);
	if (l->fast)
		remote_fast_withdraw(l->r);
	link_free(l->link[1]);
	if (l->link[0])
		link_park(l->link[0]);
	free(l->record[1]);
	close(l->epoll_fd);
}

void *remote_links_thread(void *remote)
{
	struct links l = {.r = remote};
	struct epoll_event ev[4];

	prctl(PR_SET_NAME, "lazy-links");
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), LINKS_NICE);
	start(&l);
	for (;;) {
		uint64_t now = now_ns(), count;
		int wait, n;

		atomic_store(&l.r->asleep, true);
		if (atomic_load(&l.r->stop))
			break;
		send_all(&l, now);
		wait = say_end(&l, now);
		flush(&l);
		wait = sooner(wait, links_look_for_silence(&l, now));
		set_window(&l);
		n = epoll_wait(l.epoll_fd, ev, ARRAY_SIZE(ev), wait);
		atomic_store(&l.r->asleep, false);
		now = now_ns();
		for (int i = 0; i < n; i++) {
			if (ev[i].data.u32 < 2)
				receive(&l, ev[i].data.u32, now);
			else
				(void)!read(l.r->event_fd, &count, sizeof(count));
		}
		take_connection(&l);
		look_for_proof(&l);
	}
	stop(&l);
	return NULL;
}
