# SPDX-License-Identifier: GPL-2.0-or-later
"""A living source, our page server in front of it (--attach), and destinations.

    m = Migration(case, "program", arguments...)
    m.freeze()                    # criu dump --lazy-pages; the source stands still from here on
    m.attach()                    # criu-lazy-pages page-server --attach, where m.port is
    d = m.destination()           # criu lazy-pages (ours: stock=False) and criu restore, in a pid
    d.finish()                    #   namespace of its own, because the source's pids are taken
    m.completed()                 # dump and server have exited with 0, the source has gone
"""

import os
import signal
import socket
import subprocess

from . import Case, images, paths, processes, wire

COMMAND = paths.BUILD / "criu-lazy-pages"
PAGE = 4096


def criu_listens(command, out, cwd):
    """Popen of a command, and whether it has said by --status-fd that it listens."""
    read, write = os.pipe()
    with open(out, "ab") as f:
        process = subprocess.Popen([*map(str, command), "--status-fd", str(write)], cwd=cwd,
                                   stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                   pass_fds=[write], start_new_session=True)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        told = f.read(1)
    return process, told == b"\0"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Migration:
    def __init__(self, case, program, *arguments, version=None):
        self.make, self.program, self.arguments = case, program, arguments
        self.source = case(program, *arguments)
        self.version = version
        self.layout = 24 if version == "4.1" else 32
        self.dump = None           # Popen of criu dump
        self.server = None         # Popen of the server's first process, the holder
        self.dump_port, self.port = free_port(), free_port()
        self.pids = []             # of the source

    # The source's side

    def freeze(self, *extra):
        s = self.source
        s.start()
        self.pids = [s.process.pid, *processes.descendants(s.process.pid)]
        self.dump, listens = criu_listens(
            [paths.real_criu(self.version), "dump", "--lazy-pages", "-t", s.process.pid, "-D",
             s.images, "-W", s.work, "-v4", "-o", "dump.log", "--address", "127.0.0.1", "--port",
             self.dump_port, *extra], s.work / "criu.out", s.dir)
        assert listens, f"criu dump: exit status {self.dump.wait(timeout=20)}"
        assert self.is_frozen()
        return self

    def attach_command(self, *extra):
        s = self.source
        return [COMMAND, "page-server", "--lazy-pages", "--attach", f"127.0.0.1:{self.dump_port}",
                "--address", "127.0.0.1", "--port", self.port, "-D", s.images, "-W", s.work,
                "-v4", "-o", "lazy-pages.log", *extra]

    def attach(self, *extra):
        s = self.source
        self.server, listens = criu_listens(self.attach_command(*extra), s.work / "manager.out",
                                            s.dir)
        assert listens, f"the server: exit status {self.server.wait(timeout=20)}\n{self.log()}"
        return self

    def log(self):
        return self.source.log()

    def is_frozen(self):
        """Every process of the source is traced by the dump, which lives."""
        return self.dump.poll() is None and all(self.tracer(p) == self.dump.pid
                                                for p in self.pids)

    @staticmethod
    def tracer(pid):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                return int(next(x for x in f if x.startswith("TracerPid")).split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return None

    def servers(self):
        """pids of server processes that live, but the holder."""
        return [p for p in processes.descendants()
                if processes.comm(p) == "lazy-ps-server" and processes.alive(p)]

    def wait_server(self, but=None, timeout=10):
        return processes.wait_for(lambda: [p for p in self.servers() if p != but], timeout,
                                  "a server")[0]

    def command(self, action, *selector):
        """(exit status, output) of criu-lazy-pages abort or confirm."""
        got = subprocess.run([COMMAND, action, *map(str, selector or ["--port", self.port])],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=90, check=False)
        return got.returncode, got.stdout

    def completed(self, status=0, timeout=30):
        """The migration is over, and the source with it."""
        assert self.dump.wait(timeout=timeout) == 0, "criu dump failed"
        if self.server:
            assert self.server.wait(timeout=timeout) == status, self.log()
        assert self.source.process.wait(timeout=10) == -signal.SIGKILL
        processes.wait_for(lambda: not [p for p in self.pids if not processes.reap(p) and
                                        processes.stat(p)], 10, "the source to be gone")

    def goes_on(self, server_status=3, timeout=30):
        """The source runs again and finds its memory as it was; the dump has failed, as it must."""
        assert self.dump.wait(timeout=timeout) != 0
        if server_status is not None:
            assert self.server.wait(timeout=timeout) == server_status, self.log()
        s = self.source
        (s.home / "go").write_bytes(b"r")
        # not 0 either when another copy has handed out a result before
        assert s.process.wait(timeout=30) == 0
        assert s.result() == "PASS"

    def refused(self):
        try:
            with self.client(timeout=2) as c:
                c.ask(1, 4096)
                return c.is_closed()
        except OSError:
            return True

    # Destinations

    def client(self, **how):
        return wire.Client(("127.0.0.1", self.port), self.layout, **how)

    def ranges(self):
        """(pid, address, pages) of what is at the source alone."""
        for path in sorted(self.source.images.glob("pagemap-[0-9]*.img")):
            _, *records = [images.numbers(r) for r in images.read_records(path)]
            for r in records:
                if r.get(4, 0) == images.LAZY:
                    yield int(path.stem.split("-")[1]), r[1], r.get(5) or r[2]

    def pages(self):
        """(pid, address, bytes), page by page, as the source's memory has them."""
        for pid, vaddr, count in self.ranges():
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as f:
                for i in range(count):
                    f.seek(vaddr + i * PAGE)
                    yield pid, vaddr + i * PAGE, f.read(PAGE)

    def destination(self, stock=True, port=None, restore=True, options=()):
        d = Destination(self.make(self.program, *self.arguments), self, stock, port or self.port)
        d.start(*options)
        if restore:
            d.case.restore(pidns=True)
        return d


class Destination:
    """Another work directory over the source's images; the program lives where it did."""

    def __init__(self, case, migration, stock, port):
        self.case, self.stock, self.port = case, stock, port
        case.images, case.home = migration.source.images, migration.source.home

    def start(self, *options):
        c = self.case
        command = [paths.real_criu() if self.stock else COMMAND, "lazy-pages", "--page-server",
                   "--address", "127.0.0.1", "--port", self.port, "-D", c.images, "-W", c.work,
                   "-v4", "-o", "lazy-pages.log", *options]
        c.manager, listens = criu_listens(command, c.work / "manager.out", c.dir)
        assert listens, f"lazy-pages: exit status {c.manager.wait(timeout=20)}"

    def finish(self):
        self.case.wait_result()
        self.case.wait_exit()
        self.case.wait_manager()

    def kill(self):
        """All of it in one instant, as when its machine goes down."""
        c = self.case
        below = processes.descendants(c.init.pid) if c.init else []
        for pid in [c.manager.pid, *processes.descendants(c.manager.pid), *below]:
            processes.kill(pid, signal.SIGSTOP)
        for pid in [c.manager.pid, *processes.descendants(c.manager.pid), *below[:1]]:
            processes.kill(pid)
        c.manager.wait(timeout=10)
        if c.init:
            c.init.kill()
            c.init.wait(timeout=10)
