# SPDX-License-Identifier: GPL-2.0-or-later
"""A page server that receives a dump, ours or stock's; dumps to it, and who records their words."""

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


def criu(case, version, action, *options):
    """Popen of a real CRIU over the directories of a case."""
    with open(case.work / "criu.out", "ab") as out:
        return subprocess.Popen(
            [paths.real_criu(version), action, "-D", case.images, "-W", case.work, "-v4", "-o",
             f"{action}.log", *map(str, options)], cwd=case.dir, stdin=subprocess.DEVNULL,
            stdout=out, stderr=out)


def start_dump(case, server, *options, port=None, version=None):
    return criu(case, version, "dump", "-t", case.process.pid, *server.options(port), *options)


def dump_to(case, server, *options, port=None, version=None):
    """criu dump, the pages to the server; both must succeed and the program be gone."""
    tree = [case.process.pid, *processes.descendants(case.process.pid)]
    dump = start_dump(case, server, *options, port=port, version=version)
    assert dump.wait(timeout=120) == 0, "criu dump failed"
    assert server.wait() == 0, f"the page server failed:\n{server.log()}"
    assert not server.complaints()
    if "--leave-running" not in options:
        case.process.wait(timeout=10)
        processes.wait_for(lambda: not [p for p in tree if not processes.reap(p) and
                                        processes.stat(p)], 10, "the dumped tree to be gone")


def restore_eagerly(case, version=None):
    """criu restore without any manager; the program looks at all its memory."""
    (case.home / "go").write_bytes(b"r")
    pidfile = case.work / "eager.pid"
    pidfile.unlink(missing_ok=True)
    restore = criu(case, version, "restore", "-d", "--pidfile", pidfile)
    assert restore.wait(timeout=60) == 0, "criu restore failed"
    case.root = int(pidfile.read_text())
    case.wait_result()
    case.wait_exit()


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
