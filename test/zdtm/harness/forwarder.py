# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP forwarder that does to connections what networks do.

    f = Forwarder(("127.0.0.1", port))      # f.address is where to connect to
    f.delay(0.005)                          # seconds in each direction
    f.cut_after(UP, 12)                     # the next connection ends after 12 bytes of requests
    f.stall(); f.go(); f.cut(); f.reset(); f.shut(); f.open(); f.switch(elsewhere)

UP is from the one who connects to the server, DOWN from the server back. One thread does it all;
methods may be called from any thread. dial makes the socket that is connected to the server, in
another network namespace, say.
"""

import collections
import errno
import os
import selectors
import socket
import struct
import threading
import time

UP, DOWN = "up", "down"
AT_MOST = 1 << 20    # bytes of one direction that are on their way in here
LINGER_RESET = struct.pack("ii", 1, 0)


class Direction:
    """Bytes from one socket to the other, each piece with the time from when on it may go."""

    def __init__(self, source, target, budget):
        self.source, self.target = source, target
        self.pieces = collections.deque()
        self.waiting = 0
        self.passed = 0          # bytes that have been taken in
        self.budget = budget     # how many bytes this may become, None: no end
        self.ended = False       # the source has said its last word
        self.told = False        # and the target knows

    def may_read(self):
        return not self.ended and self.waiting < AT_MOST and self.budget != self.passed

    def read(self, delay):
        size = 65536 if self.budget is None else min(65536, self.budget - self.passed)
        data = self.source.recv(size)
        self.ended = not data
        self.passed += len(data)
        self.waiting += len(data)
        if data:
            self.pieces.append((time.monotonic() + delay, data))

    def due(self):
        """Seconds until there is something to write, None: there is nothing."""
        if self.pieces:
            return max(0, self.pieces[0][0] - time.monotonic())
        return 0 if self.ended and not self.told else None

    def write(self):
        while self.pieces and self.due() == 0:
            when, data = self.pieces.popleft()
            sent = self.target.send(data)
            self.waiting -= sent
            if sent < len(data):
                self.pieces.appendleft((when, data[sent:]))
                return
        if self.ended and not self.pieces and not self.told:
            self.told = True
            self.target.shutdown(socket.SHUT_WR)

    def used_up(self):
        return self.budget is not None and self.passed >= self.budget and not self.pieces


class Pair:
    """A connection here and the one that was made to the server for it."""

    def __init__(self, client, server, budgets):
        self.sockets = (client, server)
        self.ways = {UP: Direction(client, server, budgets.get(UP)),
                     DOWN: Direction(server, client, budgets.get(DOWN))}
        for s in self.sockets:
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def interest(self, s, stalled):
        """What to wait for at one of the two sockets, and for how long until there is more."""
        if stalled:
            return 0, None
        wanted, wait = 0, None
        for way in self.ways.values():
            if way.source is s and way.may_read():
                wanted |= selectors.EVENT_READ
            if way.target is s:
                wait = way.due()
                if wait == 0:
                    wanted |= selectors.EVENT_WRITE
        return wanted, wait or None

    def work(self, s, events, delay):
        for way in self.ways.values():
            if way.source is s and events & selectors.EVENT_READ and way.may_read():
                way.read(delay)
            if way.target is s and events & selectors.EVENT_WRITE:
                way.write()

    def over(self):
        return all(way.told for way in self.ways.values()) or \
            any(way.used_up() for way in self.ways.values())

    def close(self, reset=False):
        for s in self.sockets:
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            s.close()


class Forwarder:
    def __init__(self, to, dial=socket.socket):
        self.to, self.dial = to, dial
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.port = self.address[1]
        self.pairs = []
        self.connections = 0     # how many there have been
        self.refused = 0         # how many of them the server did not want
        self.passed = {UP: 0, DOWN: 0}  # bytes of connections that are over
        self._delay = 0
        self._stalled = self._closed = self._shut = False
        self._budgets = []       # of the next connections
        self._lock = threading.RLock()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # What the test says

    def delay(self, seconds):
        """Of each direction, from now on."""
        self._change(_delay=seconds)

    def stall(self):
        """No byte goes any further; connections stay, and new ones are taken."""
        self._change(_stalled=True)

    def go(self):
        self._change(_stalled=False)

    def shut(self):
        """Nobody listens any more; what is connected stays."""
        self._change(_shut=True)

    def open(self):
        self._change(_shut=False)

    def cut_after(self, way, count):
        """Of the connections to come the next one ends when that many bytes have passed."""
        with self._lock:
            self._budgets.append({way: count})

    def cut(self, reset=False):
        """Ends all connections, in good order or with a reset."""
        with self._lock:
            while self.pairs:
                self._end(self.pairs[0], reset)
        self._poke()

    def reset(self):
        self.cut(reset=True)

    def switch(self, to, dial=None):
        """Connections go to another server from now on."""
        self._change(to=to, dial=dial or self.dial)

    def count(self, way):
        """Bytes that have passed in that direction so far."""
        with self._lock:
            return self.passed[way] + sum(p.ways[way].passed for p in self.pairs)

    def close(self):
        self._change(_closed=True)
        self.thread.join(timeout=10)
        self.cut()
        self.listener.close()
        os.close(self._wake)
        os.close(self._woken)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # The thread

    def _change(self, **what):
        with self._lock:
            vars(self).update(what)
        self._poke()

    def _poke(self):
        try:
            os.write(self._wake, b"x")
        except BlockingIOError:
            pass

    def _end(self, pair, reset=False):
        self.pairs.remove(pair)
        for way in (UP, DOWN):
            self.passed[way] += pair.ways[way].passed
        pair.close(reset)

    def _accept(self):
        try:
            client, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.connections += 1
        server = self.dial()
        try:
            server.settimeout(2)
            server.connect(self.to)
        except OSError:
            self.refused += 1
            server.close()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            client.close()
            return
        pair = Pair(client, server, self._budgets.pop(0) if self._budgets else {})
        self.pairs.append(pair)
        if pair.over():  # before its first byte
            self._end(pair)

    def _listen_or_not(self):
        """A closed door is a closed socket: who knocks is refused at once."""
        if self._shut and self.listener.fileno() >= 0:
            self.listener.close()
        elif not self._shut and self.listener.fileno() < 0:
            self.listener = socket.create_server(self.address)
            self.listener.setblocking(False)

    def _watch(self, selector):
        """Registers who has something to do; seconds until somebody else may have."""
        soonest = None
        selector.register(self._woken, selectors.EVENT_READ)
        if self.listener.fileno() >= 0:
            selector.register(self.listener, selectors.EVENT_READ)
        for pair in self.pairs:
            for s in pair.sockets:
                wanted, wait = pair.interest(s, self._stalled)
                if wanted:
                    selector.register(s, wanted, pair)
                if wait is not None:
                    soonest = wait if soonest is None else min(soonest, wait)
        return soonest

    def _serve(self, key, events):
        pair = key.data
        if pair not in self.pairs:
            return
        try:
            pair.work(key.fileobj, events, self._delay)
        except BlockingIOError:
            pass
        except OSError as e:
            self._end(pair, reset=e.errno in (errno.ECONNRESET, errno.EPIPE))
            return
        if pair.over():
            self._end(pair)

    def _run(self):
        while not self._closed:
            with self._lock, selectors.PollSelector() as selector:
                self._listen_or_not()
                soonest = self._watch(selector)
                self._lock.release()
                try:
                    ready = selector.select(soonest)
                finally:
                    self._lock.acquire()
                for key, events in ready:
                    if key.fileobj == self._woken:
                        os.read(self._woken, 4096)
                    elif key.fileobj is self.listener:
                        self._accept()
                    else:
                        self._serve(key, events)
