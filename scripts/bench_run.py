# SPDX-License-Identifier: GPL-2.0-or-later
"""One measured run: a checkpoint is restored lazily, once, beside a manager of either kind.

Both kinds are treated alike and are watched from outside. The drain begins with the moment at which
"restore finished" passes through a relay between criu and the manager (two directories, two
sockets, the relay in between), and ends when bench_watch sees that the restored task has all its
pages. Nothing of it depends on what a manager writes about itself.
"""

import array
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
PIDNS_INIT = TOP / "test/zdtm/harness/pidns_init.py"
RESTORE_FINISHED = 0x52535446
PAGE = 4096
PATIENCE = 120     # seconds for what is not measured
MEMORY_PAUSE = 0.2
QUIET = 0.1        # of the machine's CPU time used by others


class Failure(Exception):
    """A sentence that says what was not as it should be."""


class Workload:
    """A program, checkpointed once; what is restored from it is the same every time."""

    def __init__(self, place, programs, criu, name, mode, mib, stride=1, count=0, load=0,
                 memory=False):
        self.dir, self.programs = place / name, programs
        self.criu, self.name, self.mode = criu, name, mode
        self.mib, self.stride, self.count = mib, stride, count
        self.pages = mib * 256 // stride
        self.load = load          # busy threads beside it
        self.memory = memory      # whether the manager's memory is looked at
        self.images, self.home = self.dir / "images", self.dir / "home"

    def dump(self, seed):
        shutil.rmtree(self.dir, ignore_errors=True)
        for d in (self.images, self.home):
            d.mkdir(parents=True)
        program = subprocess.Popen(
            [self.programs / "bench_touch", str(seed), self.mode, str(self.mib), str(self.stride),
             str(self.count)], cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until((self.home / "ready").exists, PATIENCE, f"{self.name}: the program is ready",
                       lambda: program.poll() is not None)
            with open(self.dir / "dump.out", "wb") as out:
                code = subprocess.run(
                    [self.criu, "dump", "-t", str(program.pid), "-D", self.images, "-W", self.dir,
                     "-o", "dump.log", "-v2"], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    check=False).returncode
            if code:
                raise Failure(f"criu dump: exit status {code}; see {self.dir}/dump.log")
        finally:
            program.kill()
            program.wait()
        os.sync()   # so that writing back does not disturb what is measured

    def pages_file(self):
        return max(self.images.glob("pages-*.img"), key=lambda p: p.stat().st_size)

    def warm(self):
        """Brings the images into the page cache."""
        buffer = bytearray(1 << 20)
        for path in (path for d in self.image_dirs() for path in d.iterdir()):
            with open(path, "rb", buffering=0) as f:
                while f.readinto(buffer):
                    pass

    def image_dirs(self):
        return [self.images]

    def forget(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def wait_until(condition, seconds, what, gone=lambda: False):
    end = time.monotonic() + seconds
    while not condition():
        if gone() and not condition():
            raise Failure(f"waited until {what}, but it has ended")
        if time.monotonic() > end:
            raise Failure(f"waited until {what}: not within {seconds} s")
        time.sleep(0.01)


def busy_share(seconds=0.25):
    """What others use of the machine, from 0 to 1, while we sleep."""
    def jiffies():
        with open("/proc/stat", encoding="ascii") as f:
            words = [int(word) for word in f.readline().split()[1:9]]
        return sum(words), words[3] + words[4]
    total, idle = jiffies()
    time.sleep(seconds)
    total_after, idle_after = jiffies()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def settle(seconds):
    """Waits for a quiet moment, up to that long. Returns how busy the machine still is."""
    end = time.monotonic() + seconds
    while (share := busy_share()) > QUIET and time.monotonic() < end:
        pass
    return share


class Relay(threading.Thread):
    """Listens where criu connects, hands everything on, and notes when the last word came."""

    def __init__(self, listen, connect, told):
        super().__init__(daemon=True)
        self.connect_to, self.told = connect, told
        self.pid = self.finished_ns = self.error = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.listener.bind(str(listen))
        self.listener.listen(1)
        self.listener.settimeout(0.5)
        self.stop = False

    def run(self):
        try:
            self.relay()
        except (OSError, Failure) as error:
            self.error = error

    def accept(self):
        while not self.stop:
            with contextlib.suppress(TimeoutError):
                return self.listener.accept()[0]
        raise Failure("criu restore has not connected")

    def relay(self):
        with contextlib.ExitStack() as stack:
            criu = stack.enter_context(self.accept())
            criu.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            manager.connect(str(self.connect_to))
            while True:
                word, control, _, _ = criu.recvmsg(4, 256, socket.MSG_WAITALL)
                if len(word) != 4:
                    return
                if struct.unpack("I", word)[0] == RESTORE_FINISHED:
                    self.finished_ns = time.monotonic_ns()
                    manager.sendall(word)
                    self.told(self.pid)
                    return
                manager.sendmsg([word], self.credentials(control))
                if struct.unpack("i", word)[0] > 0:
                    self.hand_over(criu, manager)

    def hand_over(self, criu, manager):
        byte, control, _, _ = criu.recvmsg(1, 256)
        fds = [struct.unpack("i", data[:4])[0] for level, kind, data in control
               if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
        if len(byte) != 1 or len(fds) != 1:
            raise Failure("criu hands over something strange")
        manager.sendmsg([byte], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                  array.array("i", fds))] + self.credentials(control))
        os.close(fds[0])
        for _, _, data in self.credentials(control):
            self.pid = struct.unpack("3i", data)[0]

    @staticmethod
    def credentials(control):
        return [c for c in control
                if (c[0], c[1]) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]


def children(pid):
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text(encoding="ascii").split())
    return found


def end_all():
    """Ends whatever is left below us, which is a manager that does not end by itself.

    Its processes replace each other when they die, so they are stopped first. What loses its parent
    comes to us, for we are a subreaper.
    """
    while left := children(os.getpid()):
        for pid in left:
            left += children(pid)
        for sig in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def manager_pids(pid):
    return [pid, *children(pid)]


def own_memory(pids):
    """Bytes of anonymous and shared memory; what several of them share counts once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                total += sum(int(line.split()[1]) * 1024 for line in f
                             if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


class Run:
    """What one run needs, and what it leaves behind: nothing."""

    def __init__(self, workload, command, cap, patience=0):
        self.w, self.command, self.cap, self.patience = workload, command, cap, patience
        self.work = workload.dir / "work"        # criu restore
        self.managed = workload.dir / "managed"  # the manager
        self.manager = self.init = self.watch = self.load = self.relay = None
        self.over = threading.Event()
        self.result = {}

    def go(self):
        """The measurements as a dictionary. Raises Failure when anything is wrong."""
        w = self.w
        for d in (self.work, self.managed):
            shutil.rmtree(d, ignore_errors=True)
            d.mkdir()
        for name in ("go", "drained", "result", "lazy", "resident"):
            (w.home / name).unlink(missing_ok=True)
        w.warm()
        self.result["others"] = settle(self.patience)
        try:
            self.start_load()
            self.start_manager()
            self.start_watch()
            if w.mode != "idle":
                (w.home / "go").write_bytes(b"r")
            self.restore()
            if self.drain():
                self.finish()
            return self.result
        finally:
            self.clean_up()

    def start_load(self):
        if self.w.load:
            self.load = subprocess.Popen([self.w.programs / "bench_load", str(self.w.load)],
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self.load.stdout.readline()

    def start_manager(self):
        read, write = os.pipe()
        began = time.monotonic_ns()
        with open(self.managed / "manager.out", "wb") as out:
            self.manager = subprocess.Popen(
                [*self.command, "-D", self.w.images, "-W", self.managed, "-v2",
                 "-o", "lazy-pages.log", "--status-fd", str(write)], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, pass_fds=[write], start_new_session=True)
        os.close(write)
        if self.w.memory:
            threading.Thread(target=self.look_at_memory, daemon=True).start()
        with os.fdopen(read, "rb", buffering=0) as f:
            if f.read(1) != b"\0":
                raise Failure(f"the manager does not listen: {self.command}")
        self.result["start_ns"] = time.monotonic_ns() - began

    def start_watch(self):
        self.watch = subprocess.Popen([self.w.programs / "bench_watch"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        # Only the filled pages count; a handful of others come and go beside them.
        self.relay = Relay(self.work / "lazy-pages.socket", self.managed / "lazy-pages.socket",
                           self.tell_watch)
        self.relay.start()

    def tell_watch(self, pid):
        self.watch.stdin.write(f"{pid} {self.w.pages} {self.manager.pid}\n")
        self.watch.stdin.close()

    def restore(self):
        rc = self.work / "restore.rc"
        command = [self.w.criu, "restore", "--lazy-pages", "-d", "-D", self.w.images,
                   "-W", self.work, "-o", "restore.log", "-v2",
                   "--pidfile", self.work / "restored.pid"]
        with open(self.work / "restore.out", "wb") as out:
            self.init = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                 PIDNS_INIT, rc, self.work / "restored.pid", self.work / "status", *command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait_restored(self):
        end = time.monotonic() + PATIENCE
        while self.relay.is_alive() and time.monotonic() < end:
            self.relay.join(timeout=1)
            self.relay.stop = self.init.poll() is not None
        if self.relay.finished_ns is None:
            raise Failure(f"criu restore has not finished ({self.relay.error or 'no word'}); see "
                          f"{self.work}/restore.log")

    def drain(self):
        """Waits, asleep, until all pages are there. False: that took longer than the cap."""
        self.wait_restored()
        timer = threading.Timer(self.cap, self.watch.kill)
        timer.start()
        lines = self.watch.stdout.read().splitlines()
        code = self.watch.wait()
        timer.cancel()
        if self.load:
            self.load.kill()
        if code < 0:
            self.result["over_cap"] = self.cap
            return False
        words = [line.split() for line in lines]
        end = next((int(w[1]) for w in words if w[0] == "end"), 0)
        if not end:
            raise Failure("the restored program ended before its memory was there: "
                          + self.program_result())
        self.result["drain_ns"] = end - self.relay.finished_ns
        self.result["ran"] = [(w[1], int(w[2]), int(w[3])) for w in words if w[0] == "ran"]
        return True

    def look_at_memory(self):
        while not self.over.is_set():
            pids = manager_pids(self.manager.pid)
            self.result["memory"] = max(self.result.get("memory", 0), own_memory(pids))
            self.over.wait(MEMORY_PAUSE)

    def finish(self):
        """Both end well, and every page was right."""
        w = self.w
        if w.mode == "random":
            # It reads on; the manager ends meanwhile.
            wait_until((w.home / "result").exists, PATIENCE, "the program has checked its pages",
                       lambda: (self.work / "status").exists())
        self.wait_manager()
        for name in ("drained", "go"):
            (w.home / name).write_bytes(b"r")
        wait_until((self.work / "status").exists, PATIENCE, "the program has checked its pages",
                   lambda: self.init.poll() is not None)
        status = int((self.work / "status").read_text(encoding="ascii"))
        if self.program_result() != "PASS" or status:
            raise Failure(f"the program says {self.program_result()}, exit status {status}")
        if w.mode != "idle":
            for name in ("lazy", "resident"):
                took = array.array("I")
                took.frombytes((w.home / name).read_bytes())
                self.result[name] = took

    def program_result(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.w.home / "result").read_text(encoding="utf-8")
        return "nothing"

    def wait_manager(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status, usage = os.wait4(self.manager.pid, os.WNOHANG)
            if pid:
                self.manager.returncode = os.waitstatus_to_exitcode(status)
                self.result["exit_ns"] = time.monotonic_ns() - self.relay.finished_ns
                self.result["manager_cpu_ns"] = int((usage.ru_utime + usage.ru_stime) * 1e9)
                if self.manager.returncode:
                    raise Failure(f"the manager: exit status {self.manager.returncode}; see "
                                  f"{self.managed}/lazy-pages.log")
                return
            time.sleep(0.01)
        raise Failure(f"the manager is still there {PATIENCE} s after the last page")

    def clean_up(self):
        for p in (self.watch, self.load, self.init):
            if p and p.poll() is None:
                p.kill()
        for p in (self.watch, self.load, self.init):
            if p:
                p.wait()
        if self.manager and self.manager.returncode is None:
            # With its tasks gone it has nothing left to do.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.manager.wait(timeout=2)
            if self.manager.returncode is None:
                end_all()
                self.manager.wait()
        self.over.set()
        if self.relay:
            self.relay.stop = True
            self.relay.join(timeout=5)
            self.relay.listener.close()


def copy_loop(programs, source, mib, threads, piece_kib):
    """Nanoseconds of a bare UFFDIO_COPY loop; source: a file, or "-" for one hot buffer."""
    done = subprocess.run([programs / "bench_copyloop", source, str(mib), str(threads),
                           str(piece_kib)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip() or f"bench_copyloop: exit status {done.returncode}")
    return int(done.stdout)
