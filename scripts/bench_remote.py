# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs whose memory comes from a page server, over a way that is known; and page servers alone.

Ours asks ours, stock's asks stock's. The way between the two is
    loopback   nothing at all
    far        loopback through bench_forward, which holds every byte back for 5 ms each way
    gigabit    veth between two network namespaces, with tbf (1gbit) at the server's end
What a way carries without any manager is measured on it in the same rounds, by bench_stream. A way
is made anew for every run, so a run that fails cannot spoil the next.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

from bench_rows_remote import CROWD
from bench_run import PATIENCE, Failure, Run, Workload, children, manager_pids, settle

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(TOP / "test/zdtm"))

# pylint: disable=wrong-import-position
from harness import images
from harness.remote import PIPE_MAX_SIZE, PIPES_FOR_STOCK
from harness.network import Network
from harness.remote import free_port
from harness.wire import Client

FAR_US = 5000         # of each direction
PAGE = images.PAGE
PINGS = 1000          # over ways that are not far
STALL_S = 3           # how long the idle manager is looked at
START_RANGES, START_PAGES = 65536, 32    # 8 GiB
START_CHECKED = 256   # of the pages are asked for
CROWD_MS = 3000


@contextlib.contextmanager
def pipes_for_stock():
    """Stock's page server splices through pipes that it cannot make larger than this allows."""
    with open(PIPE_MAX_SIZE, encoding="ascii") as f:
        old = int(f.read())
    try:
        with open(PIPE_MAX_SIZE, "w", encoding="ascii") as f:
            f.write(str(max(old, PIPES_FOR_STOCK)))
        yield
    finally:
        with open(PIPE_MAX_SIZE, "w", encoding="ascii") as f:
            f.write(str(old))



def started(command, out, said, cwd=None):
    """Popen of a program that says one line on its standard output when it is ready."""
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, cwd=cwd,
                               stdout=subprocess.PIPE, stderr=out, text=True)
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise Failure(f"{said} has ended: exit status {process.returncode}")
    return process, line.strip()


def end(process):
    if process and process.returncode is None:
        process.kill()
        process.wait()


class Way:
    """From the one who wants pages to the one who has them. A context: it ends with the run."""

    def __init__(self, kind, programs):
        self.kind, self.programs = kind, programs
        self.address = "127.0.0.1"   # where the server is to listen
        self.at_server, self.at_client = [], []    # prefixes of commands
        self.network = self.forward = None

    def __enter__(self):
        if self.kind == "gigabit":
            self.network = Network()
            self.network.rate("1gbit")
            self.address = self.network.far.address
            self.at_server, self.at_client = self.network.far.prefix, self.network.near.prefix
        return self

    def reach(self, port):
        """The address and port at which a client finds the server that listens there."""
        if self.kind != "far":
            return self.address, port
        end(self.forward)
        self.forward, port = started(
            [self.programs / "bench_forward", self.address, port, FAR_US], None, "bench_forward")
        return "127.0.0.1", int(port)

    def __exit__(self, *_):
        end(self.forward)
        if self.network:
            self.network.close()


class Server:
    """A page server over images, ours or stock's, for one run."""

    def __init__(self, command, served, place, address, prefix=()):
        self.log = place / "page-server.log"
        self.port = free_port() if address == "127.0.0.1" else 27000
        read, write = os.pipe()
        began = time.monotonic_ns()
        with open(place / "page-server.out", "wb") as out:
            self.process = subprocess.Popen(
                [*prefix, *command, "--lazy-pages", "-D", served, "-W", place, "-v2", "-o",
                 self.log.name, "--address", address, "--port", str(self.port),
                 "--status-fd", str(write)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                pass_fds=[write], start_new_session=True)
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as f:
            listens = f.read(1) == b"\0"
        self.start_ns = time.monotonic_ns() - began
        if not listens:
            self.process.kill()
            raise Failure(f"the page server does not listen: exit status {self.process.wait()}; "
                          f"see {self.log}")

    def resident(self):
        """Bytes of memory, what it shares with other programs too."""
        total = 0
        for pid in manager_pids(self.process.pid):
            with open(f"/proc/{pid}/statm", encoding="ascii") as f:
                total += int(f.read().split()[1]) * PAGE
        return total

    def wait(self, seconds=20):
        """It has been told to end, by its client or by a signal."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"the page server has not ended within {seconds} s") from error
        if code:
            raise Failure(f"the page server: exit status {code}; see {self.log}")

    def close(self):
        end(self.process)


def cpu_ns(pid):
    """CPU time of all threads of a process and of its descendants, to the nanosecond."""
    total = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(path.read_text(encoding="ascii").split()[0])
    return total + sum(cpu_ns(child) for child in children(pid))


class RemoteWorkload(Workload):
    """Its destination has the images without the pages; the server has all of them."""

    def __init__(self, *arguments, way, **more):
        super().__init__(*arguments, **more)
        self.way_kind = way   # of the class Way
        self.served, self.serving = self.dir / "served", self.dir / "serving"

    def dump(self, seed):
        super().dump(seed)
        self.images.rename(self.served)
        images.strip(self.served, self.images)
        os.sync()

    def image_dirs(self):
        return [self.served, self.images]

    def pages_file(self):
        return max(self.served.glob("pages-*.img"), key=lambda p: p.stat().st_size)

    def way(self):
        return Way(self.way_kind, self.programs)

    def clean(self):
        shutil.rmtree(self.serving, ignore_errors=True)
        self.serving.mkdir()


class RemoteRun(Run):
    """The manager gets its pages from a page server that runs only for this run."""

    def __init__(self, workload, commands, cap, patience=0):
        command, self.server_command = commands
        super().__init__(workload, command, cap, patience)
        self.server = self.way = None

    def go(self):
        self.w.clean()
        with self.w.way() as self.way:
            return super().go()

    def start_manager(self):
        self.server = Server(self.server_command, self.w.served, self.w.serving, self.way.address,
                             self.way.at_server)
        address, port = self.way.reach(self.server.port)
        self.command = [*self.way.at_client, *self.command, "--page-server", "--address", address,
                        "--port", str(port)]
        super().start_manager()

    def finish(self):
        super().finish()
        self.server.wait()   # for its client has everything

    def clean_up(self):
        super().clean_up()
        if self.server:
            self.server.close()


class StalledRun(RemoteRun):
    """What the manager costs while nothing comes: the way stands still in mid-drain."""

    def wait_restored(self):
        super().wait_restored()
        self.way.forward.send_signal(signal.SIGSTOP)
        try:
            time.sleep(1)   # what has arrived goes into its place
            before, began = cpu_ns(self.manager.pid), time.monotonic_ns()
            time.sleep(STALL_S)
            used, took = cpu_ns(self.manager.pid) - before, time.monotonic_ns() - began
            with open(f"/proc/{self.relay.pid}/statm", encoding="ascii") as f:
                _, resident, shared = map(int, f.read().split()[:3])
            if resident - shared >= self.w.pages:
                raise Failure("everything had come before the way stood still")
        finally:
            self.way.forward.send_signal(signal.SIGCONT)
        self.result["idle"] = used / took


def stream(workload, patience, verb, *arguments):
    """The numbers that bench_stream prints, on a way that has nothing else to do."""
    settle(patience)
    program = workload.programs / "bench_stream"
    with workload.way() as way:
        server, port = started([*way.at_server, program, "serve", way.address, 0,
                                workload.pages_file()], None, "bench_stream")
        try:
            address, port = way.reach(port)
            done = subprocess.run(
                [*way.at_client, program, verb, address, str(port), *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
                check=False)
        finally:
            end(server)
    if done.returncode:
        raise Failure(done.stderr.strip() or f"bench_stream: exit status {done.returncode}")
    return list(map(int, done.stdout.split()))


def task_range(served):
    """Of the largest range of pages: pid, address, pages, path of the file, offset in it."""
    found = []
    for path in served.glob("pagemap-[0-9]*.img"):
        head, entries = images.entries_of(path)
        offset = 0
        for vaddr, count, flags, _ in entries:
            found.append((count, int(path.stem.split("-")[1]), vaddr,
                          served / f"pages-{images.numbers(head)[1]}.img", offset))
            offset += count * PAGE if flags & images.PRESENT else 0
    count, pid, vaddr, path, offset = max(found)
    return pid, vaddr, count, path, offset


class ServerRun:
    """A page server and no restore. Like Run: go() gives the figures, or raises Failure."""

    def __init__(self, workload, commands, _, patience=0):
        self.w, self.command, self.patience = workload, commands[1], patience
        self.result = {}

    def go(self):
        self.w.clean()
        self.w.warm()
        self.result["others"] = settle(self.patience)
        server = Server(self.command, self.w.served, self.w.serving, "127.0.0.1")
        try:
            self.result["start_ns"] = server.start_ns
            self.measure(server)
            return self.result
        finally:
            server.close()


class StartWorkload(RemoteWorkload):
    """8 GiB in many ranges, made of a small checkpoint: a sparse file, each range with its word."""

    FIRST, APART = 0x200000000000, START_PAGES + 1   # address; pages from range to range

    def __init__(self, *arguments, mib, **more):
        super().__init__(*arguments, mib=4, **more)
        self.ranges = START_RANGES * mib // (8 << 10)
        self.pid = None

    def dump(self, seed):
        Workload.dump(self, seed)
        self.images.rename(self.served)
        self.pid = task_range(self.served)[0]
        images.add_mapping(self.served, self.pid, self.FIRST, self.address(self.ranges))
        images.insert_pages(self.served, self.pid,
                            [(self.address(i), START_PAGES) for i in range(self.ranges)],
                            ((self.address(i), self.word(i)) for i in range(self.ranges)))
        os.sync()

    def address(self, number):
        return self.FIRST + number * self.APART * PAGE

    @staticmethod
    def word(number):
        return struct.pack("Q", number + 1)

    def image_dirs(self):
        return []    # what is read at the start has just been written; the pages are holes


class StartRun(ServerRun):
    def measure(self, server):
        self.result["memory"] = server.resident()
        w, nothing = self.w, bytes(PAGE)
        with Client(("127.0.0.1", server.port)) as client:
            for number in range(0, w.ranges, max(1, w.ranges // START_CHECKED)):
                for page in (0, START_PAGES - 1):
                    got = client.get(w.pid, w.address(number) + page * PAGE)
                    if got != (w.word(number) + nothing[8:] if page == 0 else nothing):
                        raise Failure(f"range {number}, page {page}: wrong bytes")
            self.result["memory"] = max(self.result["memory"], server.resident())
            if client.say_close():
                raise Failure("CLOSE was not heard")
        server.wait()


class CrowdWorkload(RemoteWorkload):
    """All of one range, over and over again, to one client or to many at once."""

    def dump(self, seed):
        Workload.dump(self, seed)
        self.images.rename(self.served)

    def image_dirs(self):
        return [self.served]


class CrowdRun(ServerRun):
    def __init__(self, workload, commands, cap, patience=0, clients=CROWD):
        super().__init__(workload, commands, cap, patience)
        self.clients = clients

    def measure(self, server):
        pid, vaddr, count, path, offset = task_range(self.w.served)
        before = cpu_ns(server.process.pid)
        done = subprocess.run(
            [self.w.programs / "bench_clients", "127.0.0.1", str(server.port), path, str(offset),
             str(pid), str(vaddr), str(count), str(self.clients), str(CROWD_MS)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
            check=False)
        if done.returncode:
            raise Failure(done.stderr.strip() or f"bench_clients: status {done.returncode}")
        *clients, (cpu, total) = [tuple(map(int, line.split()))
                                  for line in done.stdout.splitlines()]
        rates = [got * 1e9 / ns for ns, got in clients]
        self.result.update(
            bytes_per_s=sum(rates), slowest=min(rates), fastest=max(rates),
            server_cpu_ns=cpu_ns(server.process.pid) - before, client_cpu_ns=cpu, bytes=total)
        server.process.terminate()
        server.wait()


KINDS = {"remote": (RemoteWorkload, RemoteRun), "stalled": (RemoteWorkload, StalledRun),
         "start": (StartWorkload, StartRun), "crowd": (CrowdWorkload, CrowdRun)}
