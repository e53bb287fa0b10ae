# SPDX-License-Identifier: GPL-2.0-or-later
"""A page server that receives a dump, ours or stock's, and who stands in front of it to record."""

import os
import re
import socket
import subprocess
import threading

from . import paths, processes, wire


def ours():
    return [str(paths.BUILD / "criu-lazy-pages"), "page-server"]


def stock():
    return [paths.real_criu(), "page-server"]


class Receiver:
    """start() returns when it listens at self.port; wait() is its end."""

    def __init__(self, images, work, command=None):
        self.images, self.work = images, work
        self.command = command or ours()
        self.process = self.port = None

    def start(self, *more, at=("--address", "127.0.0.1"), fds=(), **how):
        read, write = os.pipe()
        self.process = subprocess.Popen(
            [*self.command, "-D", self.images, "-W", self.work, "-v4", "-o", "page-server.log",
             "--status-fd", str(write), *at, *map(str, more)], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            pass_fds=[write, *fds], **how)
        os.close(write)
        with os.fdopen(read, "rb") as f:
            told = f.read(1)
        assert told == b"\0", f"it does not listen: {self.process.wait(10)}\n{self.log()}"
        found = re.search(r"Using (\d+) port", self.log())
        self.port = int(found.group(1)) if found else None
        return self

    def options(self, port=None):
        """What criu dump must be given."""
        return ["--page-server", "--address", "127.0.0.1", "--port", str(port or self.port)]

    def client(self, layout=32):
        return wire.Client(("127.0.0.1", self.port), layout)

    def log(self):
        path = self.work / "page-server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def complaints(self):
        return [x for x in self.log().splitlines() if re.search(r"\b(Error|Warn)\b", x)]

    def wait(self, timeout=60):
        return self.process.wait(timeout=timeout)

    def wait_received(self, size, timeout=60):
        """Until that many bytes of pages have come."""
        def received():
            return sum(p.stat().st_size for p in self.images.glob("pages-*.img.incomplete"))
        processes.wait_for(lambda: received() >= size, timeout, f"{size} bytes to come")

    def peak_kib(self):
        """The most memory it has had so far; 0 when it is gone."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
                found = re.search(r"VmHWM:\s+(\d+)", f.read())
        except FileNotFoundError:
            return 0
        return int(found.group(1)) if found else 0

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)


class Recorder(threading.Thread):
    """Hands one connection through and keeps what the one who connects has said: self.said."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.to, self.said = port, bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        near, _ = self.listener.accept()
        self.listener.close()
        far = socket.create_connection(("127.0.0.1", self.to))
        back = threading.Thread(target=self.copy, args=[far, near, None], daemon=True)
        back.start()
        self.copy(near, far, self.said)
        back.join()
        near.close()
        far.close()

    @staticmethod
    def copy(source, target, keep):
        while True:
            data = source.recv(1 << 18)
            if not data:
                break
            if keep is not None:
                keep += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def commands(layout, said):
    """(command, flags, pages, address, id, bytes of the pages) of all that a dump has said."""
    at, view = 0, memoryview(said)
    while at < len(view):
        command, flags, pages, vaddr, id_ = wire.parse(layout, view[at:at + layout])
        at += layout
        has = command == wire.ADD or command == wire.ADD_F and flags & wire.PRESENT
        length = pages * wire.PAGE if has else 0
        yield command, flags, pages, vaddr, id_, view[at:at + length]
        at += length


def replay(server, said):
    """Says it all to a server; what it has answered. The answers are too short to hold it up."""
    with server.client() as c:
        c.send(said)
        c.socket.shutdown(socket.SHUT_WR)
        answers = bytearray()
        while data := c.socket.recv(4096):
            answers += data
    return bytes(answers)
