# SPDX-License-Identifier: GPL-2.0-or-later
"""A Redis as a client sees it: commands and answers, and a client that never stops writing."""

import hashlib
import threading
import time

BATCH = 500


class Gone(Exception):
    """The connection is over; what was asked last may or may not have been done."""


class Redis:
    """One connection. Commands are sent together; answers come back as a list."""

    def __init__(self, connected):
        self.socket = connected
        self.stream = connected.makefile("rb")

    def close(self):
        self.stream.close()
        self.socket.close()

    def ask(self, *commands):
        words = []
        for command in commands:
            words.append(b"*%d\r\n" % len(command))
            words += [b"$%d\r\n%s\r\n" % (len(word), word) for word in command]
        try:
            self.socket.sendall(b"".join(words))
            return [self.answer() for _ in commands]
        except OSError as e:
            raise Gone(str(e)) from None

    def answer(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise Gone("closed")
        kind, rest = line[:1], line[1:-2]
        assert kind != b"-", f"Redis says: {rest}"
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self.stream.read(size + 2)
            if len(data) < size + 2:
                raise Gone("closed")
            return data[:-2]
        return int(rest) if kind == b":" else rest


def value(number, size):
    return b"%d:" % number + hashlib.shake_128(b"%d" % number).digest(size)


def fill(redis, count, size):
    for start in range(0, count, BATCH):
        redis.ask(*((b"SET", b"old:%d" % n, value(n, size))
                    for n in range(start, min(start + BATCH, count))))


def check_filled(redis, count, size):
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        for n, got in zip(numbers, redis.ask(*((b"GET", b"old:%d" % n) for n in numbers))):
            assert got == value(n, size), f"old:{n} is {got and got[:20]}"


class Writer:
    """Writes one number after the other, each until it is acknowledged, over what is connect()ed.

    Keys are used again and again; the last acknowledged number of each must be there in the end,
    or a later one. One key in between is a counter: no acknowledged increment may be lost.
    """

    KEYS = 1000
    SIZE = 200

    def __init__(self, connect):
        self.connect = connect
        self.acknowledged = {}    # key: number
        self.increments = self.tries = self.number = 0
        self.times = []           # of acknowledgements
        self.reconnects = 0
        self.failure = None
        self.stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stopped:
                self.write_until_the_connection_ends()
        except Exception as e:  # pylint: disable=broad-except
            self.failure = e

    def write_until_the_connection_ends(self):
        try:
            redis = Redis(self.connect())
        except OSError:
            time.sleep(0.001)
            return
        self.reconnects += 1
        try:
            while not self.stopped:
                self.write_one(redis)
        except Gone:
            time.sleep(0.001)
        finally:
            redis.close()

    def write_one(self, redis):
        number = self.number
        key = b"new:%d" % (number % self.KEYS)
        self.tries += 1
        redis.ask((b"SET", key, value(number, self.SIZE)), (b"INCR", b"count"))
        self.times.append(time.monotonic())
        self.acknowledged[key] = number
        self.increments += 1
        self.number += 1

    def wait_for(self, more, timeout=60):
        """Returns when that many more writes have been acknowledged."""
        until, end = len(self.times) + more, time.monotonic() + timeout
        while len(self.times) < until:
            assert self.failure is None, f"the client: {self.failure}"
            assert time.monotonic() < end, f"not {more} writes in {timeout} s"
            time.sleep(0.002)

    def stop(self):
        self.stopped = True
        self.thread.join(timeout=20)
        assert not self.thread.is_alive() and self.failure is None, f"the client: {self.failure}"

    def longest_pause(self):
        return max(b - a for a, b in zip(self.times, self.times[1:]))

    def check(self, redis):
        """Everything that was acknowledged is there."""
        keys = list(self.acknowledged)
        for key, got in zip(keys, redis.ask(*((b"GET", k) for k in keys))):
            assert got is not None, f"{key} is lost"
            number = int(got.split(b":", 1)[0])
            assert got == value(number, self.SIZE), f"{key} is damaged"
            assert number >= self.acknowledged[key], \
                f"{key} is {number}, and {self.acknowledged[key]} was acknowledged"
        (count,) = redis.ask((b"GET", b"count"))
        assert self.increments <= int(count) <= self.tries
