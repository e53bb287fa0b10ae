# SPDX-License-Identifier: GPL-2.0-or-later
"""lazy_pages_plugin.so inside real CRIU: on restore it brings the manager, and takes it away when
the restore is not lazy; at dump it waits for memory that is still arriving, or refuses."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import paths, processes

# The plugin is in CRIU's process, and so never built with sanitizers: always from build/.
PLUGINS = paths.TOP / "build" / "plugins"
HOLD_MS = 60_000  # longer than any test: only finishing without limits gets pages in before

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own manager")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Control sockets of our own, and the manager of this build, wherever CRIU is started."""
    rundir = tmp_path / "run"
    monkeypatch.setenv("CRIU_LAZY_PAGES_RUNDIR", str(rundir))
    monkeypatch.setenv("CRIU_LAZY_PAGES_BIN", str(paths.BUILD / "criu-lazy-pages"))
    for name in ("CRIU_LIBS_DIR", "CRIU_LAZY_PAGES_CONFIG", "CRIU_LAZY_PAGES_DUMP_WAIT"):
        monkeypatch.delenv(name, raising=False)
    return rundir


@pytest.fixture(params=["", "4.1"], ids=["criu", "criu-4.1"])
def criu(request, monkeypatch):
    """Both interfaces that CRIU has had for its plugins since 4.0."""
    path = paths.real_criu(request.param or None)
    monkeypatch.setattr(paths, "real_criu", lambda version=None: path)


@pytest.fixture
def hold(monkeypatch):
    monkeypatch.setenv("LAZY_PAGES_TEST_BACKGROUND_DELAY_MS", str(HOLD_MS))


def managers():
    """pids of keepers and workers below this process."""
    found = []
    for pid in processes.descendants():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0].endswith(b"criu-lazy-pages") and processes.alive(pid):
            found.append(pid)
    return found


def call(c, action, *extra, timeout=60):
    """Exit status of CRIU with the plugin."""
    # pylint: disable=protected-access
    return c._call(c._command(action, "-L", PLUGINS, *extra), timeout)


def dumped(case, program="content_heap"):
    c = case(program)
    c.start()
    c.dump()
    return c


def restored(case, program="content_heap"):
    """A lazily restored program that has not been told to go: it waits, and owes all its memory."""
    c = dumped(case, program)
    restore_waiting(c, "--lazy-pages")
    return c


def restore_waiting(c, *extra):
    pidfile = c.work / "restored.pid"
    pidfile.unlink(missing_ok=True)
    assert call(c, "restore", "-d", "--pidfile", pidfile, *extra) == 0
    c.root, c.status = int(pidfile.read_text()), None


def go(c):
    """At once whole: the program looks for the file all the time."""
    (c.home / "go.new").write_bytes(b"r")
    (c.home / "go.new").rename(c.home / "go")


def wait_managers_gone(timeout=10):
    processes.wait_for(lambda: not managers(), timeout, "the managers to leave")


def assert_no_trace(c, rundir):
    assert not (c.work / "lazy-pages.socket").exists()
    assert not (c.work / "lazy-pages.log").exists()
    assert not rundir.exists() or not os.listdir(rundir)


def log(c, action):
    path = c.work / f"{action}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def armed(pid):
    return any(line.startswith("VmFlags:") and " um " in line
               for line in open(f"/proc/{pid}/smaps", encoding="utf-8"))


def second_dump(c, *extra, action="dump", timeout=60):
    """Exit status of a dump of the restored program into images of its own, which c then has."""
    c.images = c.dir / "images2"
    c.images.mkdir(exist_ok=True)
    tree = [c.root, *processes.descendants(c.root)]
    status = call(c, action, "-t", c.root, *extra, timeout=timeout)
    if status == 0 and action == "dump":
        wait_dead(tree)
    return status


def wait_dead(tree):
    """So that their pids can be used again."""
    for pid in tree:
        processes.wait_for(lambda p=pid: processes.reap(p) is not None or not processes.stat(p), 10,
                           "the program to die")


def finish_eagerly(c):
    """Restores the second dump, all of it at once and without us; the program checks every byte."""
    # pylint: disable=protected-access
    pidfile = c.work / "restored.pid"
    pidfile.unlink()
    assert c._call(c._command("restore", "-d", "--pidfile", pidfile), 60) == 0
    c.root, c.status = int(pidfile.read_text()), None
    go(c)
    c.wait_result()
    c.wait_exit()


# Restore


def test_lazy_restore_needs_nothing_but_the_plugin(case, criu, held, monkeypatch, environment):
    if held:
        monkeypatch.setenv("LAZY_PAGES_TEST_BACKGROUND_DELAY_MS", "1000")
    c = dumped(case)
    c.held = held
    c.restore("-L", PLUGINS)
    c.wait_result()
    c.wait_exit()
    wait_managers_gone()
    c.check_log()
    assert "all their memory" in c.log()
    assert not (c.work / "lazy-pages.socket").exists()
    assert not os.listdir(environment)


def test_the_manager_is_detached_from_criu(case, environment, hold):
    c = restored(case)
    pid = min(managers())
    assert os.getsid(pid) != os.getsid(0)
    assert processes.stat(pid)[2] == os.getpid()  # adopted: not CRIU's child
    targets = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
    assert targets.count("/dev/null") == 3
    assert not any("restore.log" in t or "criu.out" in t for t in targets), targets
    finish_lazily(c, environment)


def cpu_seconds(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_the_manager_is_idle_while_there_is_nothing_to_do(case, environment, hold):
    c = restored(case)
    pids = managers()
    time.sleep(0.2)
    before = sum(map(cpu_seconds, pids))
    time.sleep(1)
    assert sum(map(cpu_seconds, pids)) - before < 0.2
    finish_lazily(c, environment)


def request(*fields):
    """Protobuf of (number, value) pairs: int and bool as varint, bytes and str as they are."""
    def varint(n):
        out = b""
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])
    text = b""
    for number, value in fields:
        if isinstance(value, int):
            text += varint(number << 3) + varint(int(value))
        else:
            value = value.encode() if isinstance(value, str) else value
            text += varint(number << 3 | 2) + varint(len(value)) + value
    return text


def swrk_restore(c, lazy):
    """Restores as runc has it done: `criu swrk`, one request over a socket. Its exit status."""
    images = os.open(c.images, os.O_RDONLY | os.O_DIRECTORY)
    work = os.open(c.work, os.O_RDONLY | os.O_DIRECTORY)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # criu_opts: images_dir_fd, log_level, log_file, work_dir_fd, lazy_pages; criu_req: RESTORE
    opts = request((1, images), (9, 4), (10, "restore.log"), (17, work), (48, lazy))
    p = subprocess.Popen([paths.real_criu(), "swrk", str(theirs.fileno())],
                         pass_fds=[theirs.fileno(), images, work],
                         env={**os.environ, "CRIU_LIBS_DIR": str(PLUGINS)})
    theirs.close()
    ours.settimeout(30)
    ours.send(request((1, 2), (2, opts)))
    answer = ours.recv(4096)
    ours.close()
    status = p.wait(timeout=30)
    os.close(images)
    os.close(work)
    assert request((2, True)) in answer, f"criu swrk answers {answer!r}"
    c.root = c.process.pid
    return status


def test_lazy_restore_through_swrk(case):
    c = dumped(case)
    go(c)
    assert swrk_restore(c, lazy=True) == 0
    c.wait_result()
    c.wait_exit()
    wait_managers_gone()
    c.check_log()
    assert "all their memory" in c.log()


def test_eager_restore_through_swrk_leaves_no_trace(case, environment):
    c = dumped(case)
    go(c)
    assert swrk_restore(c, lazy=False) == 0
    wait_managers_gone()
    assert_no_trace(c, environment)
    c.wait_result()
    c.wait_exit()


def test_eager_restore_leaves_no_trace(case, criu, environment):
    c = dumped(case)
    restore_waiting(c)
    wait_managers_gone()
    assert_no_trace(c, environment)
    go(c)
    c.wait_result()
    c.wait_exit()


def test_eager_restore_that_criu_stays_with_has_no_manager(case, environment):
    c = dumped(case)
    # pylint: disable=protected-access
    p = subprocess.Popen(c._command("restore", "-L", PLUGINS))
    processes.wait_for(lambda: "the manager may leave" in log(c, "restore"), 20, "the restore")
    wait_managers_gone()
    assert p.poll() is None
    assert_no_trace(c, environment)
    c.root = c.process.pid
    go(c)
    c.wait_result()
    assert p.wait(timeout=20) == 0


def test_eager_restore_works_when_there_is_no_manager_to_start(case, monkeypatch):
    monkeypatch.setenv("CRIU_LAZY_PAGES_BIN", "/nonexistent/criu-lazy-pages")
    c = dumped(case)
    go(c)
    restore_waiting(c)
    assert not (c.work / "lazy-pages.socket").exists()
    assert "no manager: starting criu-lazy-pages: No such file" in log(c, "restore")
    c.wait_result()
    c.wait_exit()


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_failing_restore_leaves_no_manager(case, lazy, environment):
    c = case("content_heap")
    c.start()
    c.dump(leave=True)  # its pid is in use
    extra = ["--lazy-pages"] if lazy else []
    assert call(c, "restore", "-d", *extra) != 0
    wait_managers_gone()
    assert not (c.work / "lazy-pages.socket").exists()
    assert not os.listdir(environment)
    go(c)
    c.root = c.process.pid
    c.wait_result()
    c.wait_exit()


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_killed_restore_leaves_no_manager(case, lazy, environment):
    c = dumped(case)
    script = c.dir / "stop"
    script.write_text("#!/bin/sh\n"
                      "[ $CRTOOLS_SCRIPT_ACTION != pre-restore ] || { echo >stopped; sleep 60; }\n")
    script.chmod(0o755)
    extra = ["--lazy-pages"] if lazy else []
    # pylint: disable=protected-access
    command = c._command("restore", "-d", "-L", PLUGINS, "--action-script", script, *extra)
    p = subprocess.Popen(command, start_new_session=True)
    processes.wait_for((c.work / "stopped").exists, 20, "CRIU to run its script")
    assert managers()
    os.killpg(p.pid, signal.SIGKILL)
    p.wait(timeout=10)
    wait_managers_gone()
    assert_no_trace(c, environment)


def test_manager_that_listens_already_stays_in_charge(case):
    c = dumped(case)
    c.serve()
    c.restore("-L", PLUGINS)
    c.finish()
    assert "the manager is started" not in log(c, "restore")


def test_stock_manager_that_listens_already_stays_in_charge(case):
    """It takes a single connection: the plugin must not look with one."""
    c = dumped(case)
    # pylint: disable=protected-access
    p = subprocess.Popen(c._command("lazy-pages"))
    processes.wait_for((c.work / "lazy-pages.socket").exists, 10, "stock to listen")
    c.restore("-L", PLUGINS)
    c.wait_result()
    c.wait_exit()
    assert p.wait(timeout=20) == 0
    assert "the manager is started" not in log(c, "restore")


def test_socket_file_that_nobody_listens_on_is_replaced(case):
    c = dumped(case)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(c.work / "lazy-pages.socket"))
    go(c)
    restore_waiting(c, "--lazy-pages")
    c.wait_result()
    c.wait_exit()
    wait_managers_gone()


def test_file_that_is_no_socket_is_left_alone(case):
    c = dumped(case)
    (c.work / "lazy-pages.socket").write_text("mine")
    go(c)
    restore_waiting(c)
    assert (c.work / "lazy-pages.socket").read_text() == "mine"
    c.wait_result()
    c.wait_exit()


def test_images_do_not_ask_for_the_plugin(case):
    c = case("content_heap")
    c.start()
    assert call(c, "dump", "-t", c.process.pid) == 0
    c.process.wait(timeout=10)
    assert b"lazy_pages" not in (c.images / "inventory.img").read_bytes()
    # pylint: disable=protected-access
    (c.work / "restored.pid").touch()
    finish_eagerly(c)


# Dump


def test_dump_in_mid_transfer_waits_and_is_whole(case, criu, hold):
    c = restored(case)
    assert armed(c.root)
    began = time.monotonic()
    assert second_dump(c) == 0
    assert time.monotonic() - began < HOLD_MS / 1000
    assert "memory is still arriving" in log(c, "dump")
    assert "all memory has arrived" in log(c, "dump")
    wait_managers_gone()
    finish_eagerly(c)


def test_dump_waits_for_every_task_of_a_tree(case, hold):
    """Before any is frozen: CRIU asks for the children only after it has frozen their parents."""
    c = restored(case, "tree_many")
    tree = [c.root, *processes.descendants(c.root)]
    assert len(tree) > 32 and all(map(armed, tree))
    assert second_dump(c) == 0
    arrived = log(c, "dump").index("all memory has arrived")
    assert arrived < log(c, "dump").index("Seized task")
    assert log(c, "dump").count("memory is still arriving") == 1
    wait_managers_gone()
    finish_eagerly(c)


def test_dump_waits_longer_than_criu_gives_itself_to_freeze(case, environment, hold):
    c = restored(case)
    path = control_socket(environment)
    with unreachable(path):
        with FakeManager(path, "yes"):
            letting = threading.Timer(4, lambda: ask(hidden(path), b"finish\n"))
            letting.start()
            assert second_dump(c, "--timeout", "2") == 0
            letting.join()
    finish_eagerly(c)


def test_pre_dump_in_mid_transfer_waits(case, hold):
    c = restored(case)
    status = second_dump(c, action="pre-dump")
    assert "all memory has arrived" in log(c, "pre-dump")
    if status:
        # Without soft-dirty bits in the kernel CRIU ends itself here, right after us.
        assert "BUG at criu/mem.c" in log(c, "pre-dump")
        wait_managers_gone()
        processes.kill(c.root)
        return
    before = c.images
    c.images = c.dir / "images3"
    c.images.mkdir()
    assert call(c, "dump", "-t", c.root, "--track-mem",
                "--prev-images-dir", os.path.relpath(before, c.images)) == 0
    wait_dead([c.root])
    finish_eagerly(c)


def test_dump_with_nothing_to_wait_for_says_nothing(case, criu):
    c = case("content_heap")
    c.start()
    assert call(c, "dump", "-t", c.process.pid) == 0
    c.process.wait(timeout=10)
    assert "lazy-pages-plugin:" not in log(c, "dump")


def refused(c, reason, timeout=60):
    """The dump must fail with that reason, and the program go on as if nothing had been."""
    assert second_dump(c, timeout=timeout) != 0
    lines = [x for x in log(c, "dump").splitlines() if "Error (lazy-pages-plugin)" in x]
    assert len(lines) == 1 and reason in lines[0], lines
    assert armed(c.root)
    assert processes.stat(c.root)[1] in "SR"
    assert "TracerPid:\t0" in pathlib.Path(f"/proc/{c.root}/status").read_text(encoding="ascii")


def control_socket(rundir):
    (name,) = os.listdir(rundir)
    return rundir / name


def hidden(path):
    return path.with_name("hidden")


@contextlib.contextmanager
def unreachable(path):
    os.rename(path, hidden(path))
    yield
    os.rename(hidden(path), path)


def ask(path, line):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        s.send(line)
        return s.makefile().readline()


def finish_lazily(c, rundir):
    """The hold taken off, the program checks every byte, and the manager ends."""
    assert json.loads(ask(control_socket(rundir), b"finish\n")) == {"finishing": True}
    end_lazily(c)


def end_lazily(c):
    """The same for a manager that has been asked to finish."""
    go(c)
    c.wait_result()
    c.wait_exit()
    wait_managers_gone()


def test_dump_is_refused_when_the_manager_does_not_answer(case, criu, environment, hold):
    c = restored(case)
    for pid in managers():
        os.kill(pid, signal.SIGSTOP)
    refused(c, "no manager in")
    for pid in managers():
        os.kill(pid, signal.SIGCONT)
    finish_lazily(c, environment)


class FakeManager:
    """Answers on a control socket as a manager that never gets on; self.said are the requests."""

    def __init__(self, path, holds):
        self.answers = {"holds": {"holds": holds}, "finish": {"finishing": True},
                        "status": {"tasks": [{"pages_left": 512, "pages_total": 1024}]}}
        self.path, self.said = path, []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()
        self.path.unlink()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, connection.makefile() as lines:
                for line in lines:
                    self.said.append(line.strip())
                    connection.send(json.dumps(self.answers[line.strip()]).encode() + b"\n")


def test_dump_is_refused_when_no_manager_can_be_found(case, environment, hold):
    c = restored(case)
    with unreachable(control_socket(environment)):
        refused(c, "no manager in")
    finish_lazily(c, environment)


def test_dump_is_refused_when_the_only_manager_holds_other_tasks(case, environment, hold):
    c = restored(case)
    path = control_socket(environment)
    with unreachable(path), FakeManager(path, "no") as fake:
        refused(c, "no manager in")
        assert set(fake.said) == {"holds"}
    finish_lazily(c, environment)


@pytest.mark.parametrize("how", ["environment", "file"])
def test_dump_waits_no_longer_than_configured(case, environment, how, hold, monkeypatch):
    c = restored(case)
    if how == "environment":
        monkeypatch.setenv("CRIU_LAZY_PAGES_DUMP_WAIT", "3")
    else:
        config = c.dir / "lazy-pages.conf"
        config.write_text("# comment\nthreads 4\ndump-wait-seconds = 3 # more\n")
        monkeypatch.setenv("CRIU_LAZY_PAGES_CONFIG", str(config))
    path = control_socket(environment)
    with unreachable(path), FakeManager(path, "maybe") as fake:
        began = time.monotonic()
        refused(c, "has not arrived within 3 s")
        assert 3 <= time.monotonic() - began < 10
        assert set(fake.said) == {"holds", "finish", "status"}
    assert "waiting for 2 of 4 MiB" in log(c, "dump")
    finish_lazily(c, environment)


def test_dump_with_no_time_to_wait_is_refused_at_once(case, hold, monkeypatch):
    monkeypatch.setenv("CRIU_LAZY_PAGES_DUMP_WAIT", "0")
    c = restored(case)
    assert call(c, "dump", "-t", c.root) != 0
    assert "Error (lazy-pages-plugin): refusing to dump" in log(c, "dump")
    end_lazily(c)


# The manual page


def examples():
    """The example blocks of lazy-pages-plugin(7), as typed."""
    page = (paths.TOP / "man" / "lazy-pages-plugin.7").read_text(encoding="utf-8")
    return [block.split(".EE")[0].replace("\\-", "-")
            for block in page[page.index(".SH EXAMPLES"):].split(".EX\n")[1:]]


@pytest.mark.parametrize("number", range(len(examples())))
def test_examples_of_the_manual_page_do_what_they_say(case, number):
    c = dumped(case)
    (c.dir / "build").symlink_to(PLUGINS.parent)
    (c.dir / "bin").mkdir()
    (c.dir / "bin" / "criu").symlink_to(paths.real_criu())
    environ = {**os.environ, "PATH": f"{c.dir}/bin:{os.environ['PATH']}",
               "CRIU_LIBS_DIR": str(PLUGINS)}
    subprocess.run(["sh", "-e", "-c", examples()[number]], cwd=c.dir, env=environ,
                   stdin=subprocess.DEVNULL, timeout=60, check=True)
    assert "all their memory" in (c.images / "lazy-pages.log").read_text(encoding="utf-8") \
        or "criu dump" not in examples()[number]
    c.root = c.process.pid
    if "criu dump" in examples()[number]:
        wait_dead([c.root])
        c.images = c.dir / "images2"
        restore_waiting(c)
    go(c)
    c.wait_result()
    c.wait_exit()
    wait_managers_gone()
