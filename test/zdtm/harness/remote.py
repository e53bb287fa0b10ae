# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory from another machine: who has the pages that a Case's manager asks for.

    OurServer     criu-lazy-pages page-server --lazy-pages, over the images of an ordinary dump
    StockServer   criu page-server --lazy-pages, the same
    LivingSource  criu dump --lazy-pages: the source stands still, frozen, and has them itself; it
                  is killed when the manager has said that all of them are held

A Case that is made with one of them (remote=OurServer(), say) goes the same steps as any other:
dump() and serve() do what is needed here as well, the manager gets options() more, and a manager
that ends well must leave the other side as ended() wants it. What the destination's images lack is
what the manager must ask for: see images.strip().

Everything that is started here runs under Case.at_source, a prefix of the command (nsenter, say),
and is of the given version of CRIU. forward() puts a forwarder in between.
"""

import os
import socket
import subprocess
import threading

from . import images, paths, processes
from .forwarder import Forwarder

PIPE_MAX_SIZE = "/proc/sys/fs/pipe-max-size"
PIPES_FOR_STOCK = 4 << 20


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def started(command, case, name):
    """Popen of a command that says over --status-fd when it listens, at the source of the case."""
    read, write = os.pipe()
    out = open(case.work / f"{name}.out", "ab")
    try:
        process = subprocess.Popen(
            [*case.at_source, *map(str, command), "--status-fd", str(write)], cwd=case.dir,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[write],
            start_new_session=True)
    finally:
        os.close(write)
        out.close()
    with os.fdopen(read, "rb") as f:
        told = f.read(1)
    if told != b"\0":
        raise AssertionError(f"{name} does not listen: exit status {process.wait(timeout=20)}")
    return process


class Remote:
    """What the three have in common."""

    pidns = False  # whether the source's pids are taken, so that the restore needs others

    def __init__(self, address="127.0.0.1", version=None):
        self.address, self.port = address, free_port()
        self.version = version   # of CRIU at the source
        self.server = None       # Popen
        # Lines of our server's log that belong there, see Case.check_log().
        self.complaints = [r"Warn.*is not this machine's alone"]
        self.forwarder = None

    def forward(self):
        self.forwarder = Forwarder((self.address, self.port))
        return self.forwarder

    def options(self):
        address, port = self.forwarder.address if self.forwarder else (self.address, self.port)
        return ["--page-server", "--address", address, "--port", str(port)]

    def dump(self, case, *extra):
        case.dump_here(*extra, version=self.version)

    def serve(self, case):
        """Before the manager of the case starts, each time."""

    def ended(self, case, timeout=20):
        """The manager has exited with status 0; the other side must have seen that."""

    def kill(self):
        """SIGKILL for the server; start() brings another."""
        self.server.kill()
        self.server.wait(timeout=10)

    def close(self):
        """Whatever has become of it all: nothing is left."""
        if self.forwarder:
            self.forwarder.close()
        if self.server and self.server.poll() is None:
            self.kill()


class ImageServer(Remote):
    """A page server over the whole images; the manager gets what remains of them."""

    @staticmethod
    def hide_pages(case):
        """The destination's images have no lazy pages from here on; source_images have."""
        if not case.source_images.exists():
            case.images.rename(case.source_images)
            images.strip(case.source_images, case.images)

    def serve(self, case):
        self.hide_pages(case)
        if self.server is None:
            self.start(case)

    def start(self, case):
        self.server = started(
            [*self.command(), "-D", case.source_images, "-W", case.work, "-v4", "-o",
             "page-server.log", "--lazy-pages", "--address", self.address, "--port", self.port],
            case, "page-server")


class StockServer(ImageServer):
    name = "stock-server"

    def command(self):
        return [paths.real_criu(self.version), "page-server"]

    def ended(self, case, timeout=20):
        assert self.server.wait(timeout=timeout) == 0, "criu page-server failed"


class TirelessStock(StockServer):
    """Stock serves one connection and ends. Here the next one starts each time, until the end."""

    name = "stock-again-and-again"

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.wanted, self.thread = True, None

    def start(self, case):
        super().start(case)
        self.wanted = True
        self.thread = threading.Thread(target=self.start_again, args=[case], daemon=True)
        self.thread.start()

    def start_again(self, case):
        while self.server.wait() is not None and self.wanted:
            super().start(case)

    def kill(self):
        self.wanted = False
        while self.thread.is_alive():
            super().kill()
            self.thread.join(timeout=0.1)

    def ended(self, case, timeout=20):
        """Without CLOSE it is not over; after CLOSE there is one more by now."""
        self.kill()


class OurServer(ImageServer):
    name = "our-server"

    def command(self):
        return [str(paths.BUILD / "criu-lazy-pages"), "page-server"]

    def ended(self, case, timeout=20):
        """It stays for others until it is told to go."""
        assert self.server.poll() is None, f"the page server ended: {self.server.poll()}"
        self.server.terminate()
        assert self.server.wait(timeout=timeout) == 0, "our page server failed"
        case.check_log(self.complaints, name="page-server")


class LivingSource(Remote):
    name = "living-source"
    pidns = True

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.tree = []  # pids at the source

    def dump(self, case, *extra):
        self.tree = [case.process.pid, *processes.descendants(case.process.pid)]
        self.server = started(
            [*case._command("dump", "-t", case.process.pid, *extra, version=self.version),
             "--lazy-pages", "--address", self.address, "--port", self.port], case, "dump")

    def ended(self, case, timeout=20):
        assert self.server.wait(timeout=timeout) == 0, "criu dump --lazy-pages failed"
        assert case.process.wait(timeout=10) == -9, "the source was not killed by the dump"
        processes.wait_for(
            lambda: not [p for p in self.tree if not processes.reap(p) and processes.stat(p)], 10,
            "the source's tree to be gone")

    def goes_on(self, case, timeout=20):
        """The dump has given up: the source is no longer frozen, and says that it is well."""
        processes.wait_for(lambda: self.server.poll() is not None, timeout, "the dump to give up")
        processes.wait_for(lambda: case.process.poll() is not None, 60, "the source to finish")
        assert case.process.returncode == 0, f"the source's status is {case.process.returncode}"
        assert case.result() == "PASS", f"the source says: {case.result()}"


MODES = {c.name: c for c in (OurServer, StockServer, LivingSource)}
