# SPDX-License-Identifier: GPL-2.0-or-later
"""A Redis in a runc container moves from one host to another while a client keeps writing to it.

    with Move(directory) as move:
        move.fill(keys, size)
        move.post_copy(["criu", "lazy-pages"])      # or eager(), or attach=True
        move.check(); move.downtime

The hosts are two network namespaces, a cable between them, and a directory each. The client talks
to a forwarder outside of both, which is switched over when the container is frozen. Images other
than the memory are copied from directory to directory; memory goes over the cable.
"""

import os
import shutil
import socket
import time

from . import paths, processes
from .container import PORT, Host
from .forwarder import Forwarder
from .network import Network
from .redis import Redis, Writer, check_filled, fill

# What the client's connections come to: they are closed, and the client connects again.
CRIU_OPTIONS = "tcp-close\n"
DUMP_PORT, SERVER_PORT = 7000, 7001
OURS = str(paths.BUILD / "criu-lazy-pages")


class Move:
    def __init__(self, directory, rate=None):
        self.network = Network()
        self.source = self.destination = self.forwarder = self.writer = None
        self.filled = (0, 0)
        self.steps = []          # (what, seconds since the checkpoint began)
        self.began = None
        self.processes = {}      # name: Popen
        try:
            if rate:
                self.network.rate(rate)
            self.source = Host(directory / "source", self.network.far, criu_options=CRIU_OPTIONS)
            self.destination = Host(directory / "destination", self.network.near,
                                    criu_options=CRIU_OPTIONS)
            self.source.run()
            self.forwarder = Forwarder(("127.0.0.1", PORT), self.source.namespace.socket)
        except BaseException:
            self.close()
            raise

    def connect(self):
        s = socket.create_connection(self.forwarder.address, timeout=10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def fill(self, keys, size):
        """What is there before; then the client begins."""
        def connected():
            try:
                return self.source.connect()
            except ConnectionRefusedError:
                return None
        redis = Redis(processes.wait_for(connected, 20, "Redis to listen"))
        fill(redis, keys, size)
        redis.close()
        self.filled = (keys, size)
        self.writer = Writer(self.connect)
        self.writer.wait_for(200)

    # The ways to move

    def post_copy(self, manager, attach=False, disturb=None):
        """The container runs at the destination before its memory is there."""
        self.start()
        at = ("127.0.0.1", DUMP_PORT) if attach else (self.source.address, DUMP_PORT)
        self.checkpoint("--lazy-pages", "--page-server", f"{at[0]}:{at[1]}")
        if attach:
            at = self.attach(at)
        self.hand_over()
        self.serve([*manager, "--page-server", "--address", at[0], "--port", at[1]],
                   self.destination, "lazy-pages")
        self.restore("--lazy-pages")
        if disturb:
            disturb()
        self.ended("lazy-pages", 120)
        if attach:
            self.ended("page-server", 20)
        self.ended("checkpoint", 20)
        self.writer.wait_for(200)

    def eager(self):
        """All memory goes to a page server at the destination, and then the container."""
        images = ["-D", self.destination.images]
        self.serve([paths.real_criu(), "page-server", "--address", self.destination.address,
                    "--port", SERVER_PORT, *images], self.destination, "page-server")
        self.start()
        self.processes["checkpoint"] = self.source.checkpoint(
            "--page-server", f"{self.destination.address}:{SERVER_PORT}")
        self.ended("checkpoint", 120)
        self.ended("page-server", 20)
        self.hand_over()
        self.restore()
        self.writer.wait_for(200)

    # The steps

    def start(self):
        self.began = time.monotonic()

    def done(self, what):
        self.steps.append((what, time.monotonic() - self.began))

    def ended(self, name, timeout):
        code = self.processes[name].wait(timeout=timeout)
        assert code == 0, f"{name}: exit status {code}"
        self.done(f"{name} has ended")

    def checkpoint(self, *options):
        """Returns when all of the container but its lazy memory is in the images."""
        read, write = os.pipe()
        try:
            self.processes["checkpoint"] = self.source.checkpoint(
                *options, "--status-fd", write, pass_fds=[write])
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as f:
            assert f.read(1) == b"\0", "runc checkpoint failed"
        self.done("the container is frozen")

    def attach(self, at):
        """Our page server beside the dump."""
        self.serve([OURS, "page-server", "--lazy-pages", "--attach", f"{at[0]}:{at[1]}",
                    "--address", self.source.address, "--port", SERVER_PORT, "--once",
                    "-D", self.source.images], self.source, "page-server")
        return self.source.address, SERVER_PORT

    def hand_over(self):
        """The client is sent to the destination, where nobody listens yet; images follow."""
        self.forwarder.switch(("127.0.0.1", PORT), self.destination.namespace.socket)
        self.forwarder.cut()
        shutil.copytree(self.source.images, self.destination.images, dirs_exist_ok=True)
        self.done("images are copied")

    def serve(self, command, host, name):
        """Starts what says by --status-fd when it listens."""
        read, write = os.pipe()
        extra = [] if "-D" in command else ["-D", host.images]
        try:
            self.processes[name] = host.popen(
                [*command, *extra, "-W", host.work, "-v4", "-o", f"{name}.log", "--status-fd",
                 write], pass_fds=[write])
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as f:
            assert f.read(1) == b"\0", f"{name} does not listen"

    def restore(self, *options):
        self.processes["restore"] = self.destination.restore(*options)
        self.ended("restore", 60)

    # The end

    @property
    def downtime(self):
        """The longest time without an acknowledgement, in seconds."""
        return self.writer.longest_pause()

    def check(self):
        """Nothing that was acknowledged is lost, nor anything that was there before."""
        self.writer.stop()
        redis = Redis(self.destination.connect(timeout=60))
        self.writer.check(redis)
        check_filled(redis, *self.filled)
        redis.close()

    def diagnostics(self):
        return "\n".join(
            [f"{when:8.3f} s: {what}" for what, when in self.steps] +
            [host.tail("out", "runc.log", "work/dump.log", "work/restore.log",
                       "work/page-server.log", "work/lazy-pages.log")
             for host in (self.source, self.destination) if host])

    def close(self):
        if self.writer:
            self.writer.stopped = True
        if self.forwarder:
            self.forwarder.close()
        if self.writer:
            self.writer.thread.join(timeout=20)
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
        for host in (self.destination, self.source):
            if host:
                host.close()
        self.network.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
