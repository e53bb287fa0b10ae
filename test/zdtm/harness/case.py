# SPDX-License-Identifier: GPL-2.0-or-later
"""One program on its way through dump, lazy restore and end. See the package's docstring."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from . import paths, processes

HOLD_MS = 1000
HOLD_MS_REMOTE = 1500  # faults take longer there
# Of the manager, and of the sanitizers that it may be built with.
COMPLAINT = re.compile(r"\b(Error|Warn)\b|Sanitizer|runtime error:")


class Case:
    """Scratch directory with images/, work/ (logs, socket) and run/ (where the program lives)."""

    def __init__(self, directory, seed, program, *arguments, remote=None):
        self.dir = pathlib.Path(directory)
        self.images, self.work, self.home = (self.dir / n for n in ("images", "work", "run"))
        for d in (self.images, self.work, self.home):
            d.mkdir(exist_ok=True)
        self.seed = seed
        self.command = [paths.program(program) if "/" not in program else program,
                        str(seed), *map(str, arguments)]
        self.process = None      # Popen of the program's first life
        self.manager = None      # Popen of the manager
        self.root = None         # pid of the restored root, as seen from here
        self.init = None         # Popen of the pid namespace's init, if there is one
        self.status = None       # exit status of the restored root
        self.held = False
        self.remote = remote     # who has the memory, if not the images: see remote.py
        self.remote_ended = False
        self.source_images = self.dir / "source-images"
        # What commands are run under at either side: nsenter and a network namespace, say.
        self.at_source, self.at_destination = [], []

    # The steps

    def run(self, held=False, pidns=False, timeout=60):
        self.start()
        self.dump()
        self.serve(held=held)
        self.restore(pidns=pidns)
        self.finish(timeout=timeout)

    def start(self, timeout=60):
        self.process = subprocess.Popen(
            [*self.at_source, *self.command], cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self._wait(lambda: (self.home / "ready").exists(), timeout, "the program to be ready",
                   gone=lambda: self.process.poll() is not None)

    def dump(self, *extra, leave=False):
        """criu dump with more options; leave=True: the program goes on (--leave-running)."""
        if self.remote:
            assert not leave
            self.remote.dump(self, *extra)
        else:
            self.dump_here(*extra, leave=leave)

    def dump_here(self, *extra, leave=False, version=None):
        """All of it into the images, by that version of CRIU."""
        extra = [*extra, "--leave-running"] if leave else extra
        tree = processes.descendants(self.process.pid)
        self._criu("dump", "-t", self.process.pid, *extra, version=version)
        if not leave:
            self.process.wait(timeout=10)
            # Its children are ours now. Their pids must be free for the restore.
            self._wait(lambda: not [p for p in tree if not processes.reap(p) and processes.stat(p)],
                       10, "the dumped tree to be gone")

    def serve(self, *extra, held=False, env=None, manager=None):
        """The manager, from here on in self.manager; returns when it listens.

        manager: another command in its place.
        """
        environ = dict(os.environ)
        if held:
            hold = HOLD_MS_REMOTE if self.remote else HOLD_MS
            environ["LAZY_PAGES_TEST_BACKGROUND_DELAY_MS"] = str(hold)
        environ.update(env or {})
        # Stock knows nothing of holding: there everything races.
        self.held = held and paths.manager_name() == "ours" and manager is None
        if self.remote:
            self.remote.serve(self)
            extra = [*self.remote.options(), *extra]
        out = open(self.work / "manager.out", "wb")
        read, write = os.pipe()
        try:
            self.manager = subprocess.Popen(
                [*self.at_destination, *(manager or paths.manager_command()), "-D",
                 str(self.images), "-W", str(self.work), "-vvvv", "-o", "lazy-pages.log",
                 "--status-fd", str(write), *map(str, extra)],
                cwd=self.dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                pass_fds=[write], env=environ, start_new_session=True)
        finally:
            os.close(write)
            out.close()
        with os.fdopen(read, "rb") as f:
            told = f.read()
        if told != b"\0":
            code = self.manager.wait(timeout=10)
            raise AssertionError(f"the manager did not listen: exit status {code}, "
                                 f"status-fd gave {told!r}")

    def restore(self, *extra, pidns=False, check=True, timeout=60):
        """criu restore --lazy-pages -d; its exit status, which must be 0 when check is set."""
        command = [*self.at_destination, *self.restore_command(*extra)]
        pidns = pidns or (self.remote is not None and self.remote.pidns)
        pidfile = self.work / "restored.pid"
        self.root = self.status = None
        if pidns:
            code = self._restore_in_pidns(command, pidfile, timeout)
        else:
            code = self._call(command, timeout)
            if not code:
                self.root = int(pidfile.read_text())
        if check and code:
            raise AssertionError(f"criu restore: exit status {code}")
        return code

    def restore_command(self, *extra):
        """What restore() runs, for those who want to run it otherwise; the program may go on."""
        (self.home / "go").write_bytes(b"h" if self.held else b"r")
        pidfile = self.work / "restored.pid"
        pidfile.unlink(missing_ok=True)
        return self._command("restore", "--lazy-pages", "-d", "--pidfile", pidfile, *extra)

    def finish(self, timeout=60, complaints=()):
        """The program's result, its exit, the manager's exit; the logs have no complaint.

        complaints: regular expressions of lines with Warn or Error that belong there.
        """
        self.wait_result(timeout)
        self.wait_exit()
        self.wait_manager(timeout)
        self.check_log(complaints)
        if self.result().startswith("SKIP: "):
            pytest.skip(self.result()[6:])

    # The parts of finish()

    def result(self):
        try:
            return (self.home / "result").read_text()
        except FileNotFoundError:
            return None

    def wait_result(self, timeout=60):
        """The program must say PASS, or SKIP, which finish() hands on."""
        self._wait(lambda: self.result() is not None, timeout, "the program's result",
                   gone=lambda: self._root_gone() and self.result() is None)
        text = self.result()
        assert text == "PASS" or text.startswith("SKIP: "), f"the program says: {text}"

    def wait_exit(self, expected=0, timeout=20):
        """The restored root must exit with that status (-9: killed by signal 9)."""
        self._wait(self._root_gone, timeout, "the program to exit")
        assert self.status == expected, f"the program's exit status is {self.status}"

    def wait_manager(self, timeout=60, expected=0):
        """The manager must exit by itself with that status."""
        try:
            code = self.manager.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the manager is still there after {timeout} s") from None
        assert code == expected, f"the manager's exit status is {code}, not {expected}"
        if self.remote and not code and not self.remote_ended:
            self.remote.ended(self)
            self.remote_ended = True

    def log(self, name="lazy-pages"):
        path = self.work / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def check_log(self, complaints=(), name="lazy-pages"):
        known = [re.compile(c) for c in complaints]
        lines = self.log(name).splitlines()
        out = self.work / "manager.out"  # not there when the plugin started the manager
        if out.exists():
            lines += out.read_text(errors="replace").splitlines()
        bad = [line for line in lines
               if COMPLAINT.search(line) and not any(k.search(line) for k in known)]
        assert not bad, f"{name}.log complains:\n" + "\n".join(bad[:20])

    def worker(self):
        """pid of the manager's worker, or None while there is none."""
        for pid in processes.descendants():
            if processes.comm(pid) == "lazy-worker" and processes.alive(pid):
                return pid
        return None

    def manager_pids(self):
        return [self.manager.pid, *processes.descendants(self.manager.pid)]

    def stop_manager(self):
        """SIGSTOP for all of it: whoever touches an owed page from here on waits."""
        for pid in self.manager_pids():
            processes.kill(pid, signal.SIGSTOP)

    def continue_manager(self):
        for pid in self.manager_pids():
            processes.kill(pid, signal.SIGCONT)

    def kill_manager(self):
        """SIGKILL for all of it at once; stopped first, so that nobody can take another's place."""
        self.stop_manager()
        for pid in self.manager_pids():
            processes.kill(pid)
        self.manager.wait(timeout=10)

    # Help for those who look into a failure

    def diagnostics(self, lines=25):
        text = [f"scratch directory: {self.dir}", f"program: {' '.join(self.command)}",
                f"result: {self.result()}"]
        if self.manager:
            text.append(f"manager: pid {self.manager.pid}, exit status {self.manager.poll()}")
        if self.root:
            text.append(f"restored root: pid {self.root}, {processes.stat(self.root)}, "
                        f"exit status {self.status}")
        for name in ("dump.log", "dump.out", "restore.log", "lazy-pages.log", "manager.out",
                     "page-server.log", "page-server.out", "criu.out"):
            path = self.work / name
            if path.exists() and path.stat().st_size:
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                text += [f"-- {name}", *tail]
        return "\n".join(text)

    # Inner parts

    def _command(self, action, *extra, version=None):
        """The real CRIU, doing that with this case's directories."""
        return [paths.real_criu(version), action, "-D", str(self.images), "-W", str(self.work),
                "-v4", "-o", f"{action}.log", *map(str, extra)]

    def _call(self, command, timeout):
        with open(self.work / "criu.out", "ab") as out:
            return subprocess.run(command, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=out, timeout=timeout, check=False).returncode

    def _criu(self, action, *extra, timeout=120, version=None):
        command = self._command(action, *extra, version=version)
        code = self._call([*self.at_source, *command], timeout)
        assert code == 0, f"criu {action}: exit status {code}"

    def _restore_in_pidns(self, command, pidfile, timeout):
        rc = self.work / "restore.rc"
        with open(self.work / "criu.out", "ab") as out:
            self.init = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                 str(pathlib.Path(__file__).with_name("pidns_init.py")), str(rc), str(pidfile),
                 str(self.work / "status"), *command],
                cwd=self.dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._wait(rc.exists, timeout, "criu restore in its pid namespace",
                   gone=lambda: self.init.poll() is not None and not rc.exists())
        code = int(rc.read_text())
        if not code:
            inner = pidfile.read_text().strip()
            # None when it has ended by now: then its status has been reported.
            self.root = next((p for p in processes.descendants(self.init.pid)
                              if self._inner_pid(p) == inner), None)
            assert self.root or self._root_gone(), "the restored root is not to be found"
        return code

    @staticmethod
    def _inner_pid(pid):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                line = next(x for x in f if x.startswith("NSpid:"))
        except (FileNotFoundError, ProcessLookupError):
            return None
        return line.split()[-1]

    def _root_gone(self):
        if self.status is None and self.init:
            path = self.work / "status"
            self.status = int(path.read_text()) if path.exists() else None
        elif self.status is None:
            self.status = processes.reap(self.root)
        return self.status is not None

    def _wait(self, condition, timeout, what, gone=lambda: False):
        def check():
            if condition():
                return True
            if gone():
                raise AssertionError(f"waited for {what}, but the process is gone")
            return False
        try:
            processes.wait_for(check, timeout, what)
        except TimeoutError as e:
            raise AssertionError(str(e)) from None
