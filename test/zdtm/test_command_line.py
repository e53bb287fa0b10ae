# SPDX-License-Identifier: GPL-2.0-or-later
"""The command as callers meet it: help and manual, stock's options, being called as criu, the
background, descriptors. What a single option means is in unit/test_options.c."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess

import pytest

from harness import paths, processes

COMMAND = paths.BUILD / "criu-lazy-pages"
MAN = paths.TOP / "man"
IMAGES = paths.TOP / "test/zdtm/golden/v42-tree"
ACTIONS = ["lazy-pages", "page-server", "status", "abort", "confirm"]

FAKE_CRIU = """#!/usr/bin/python3
import json, os, sys
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        fds[fd] = os.readlink("/proc/self/fd/" + fd)
    except FileNotFoundError:
        pass
ignored = next(x for x in open("/proc/self/status") if x.startswith("SigIgn")).split()[1]
with open(os.environ["FAKE_OUT"], "w") as f:
    json.dump({"argv": sys.argv[1:], "fds": fds, "ignored": int(ignored, 16)}, f)
sys.exit(23)
"""

pytestmark = pytest.mark.skipif(paths.manager_name() != "ours", reason="about our own command")


def environment(**changes):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CRIU_")}
    env["HOME"] = "/nonexistent"
    env.update(changes)
    return env


def call(*words, cwd=None, env=None, **more):
    return subprocess.run([str(w) for w in words], cwd=cwd, env=env or environment(), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
                          **more)


def options_in(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


# Help and manual


def help_of(action):
    done = call(COMMAND, action, "--help")
    assert done.returncode == 0 and not done.stderr
    return done.stdout


def options_of_page(action):
    """Names in the OPTIONS section of a page, as roff has them."""
    text = (MAN / f"criu-lazy-pages-{action}.8").read_text().replace("\\-", "-")
    section = re.search(r"^\.SH OPTIONS$(.*?)^\.SH ", text, re.M | re.S).group(1)
    tags = [line for line in section.splitlines() if re.match(r"\.BR? (-|auto)", line)]
    return options_in("\n".join(tags))


@pytest.mark.parametrize("action", ACTIONS)
def test_help_and_manual_page_name_the_same_options(action):
    # --lazy-pages is restore's there, and --page-server dump's, where it is said what they are for
    of_others = {"lazy-pages": {"--lazy-pages"}, "page-server": {"--page-server"}}
    in_help = options_in(help_of(action)) - of_others.get(action, set())
    assert len(in_help) > 3
    assert in_help == options_of_page(action)


def test_every_action_has_a_manual_page():
    listed = call(COMMAND, "--help").stdout
    actions = re.findall(r"^  ([a-z-]+) +\S", listed, re.M)
    assert set(actions) == set(ACTIONS)
    overview = (MAN / "criu-lazy-pages.8").read_text().replace("\\-", "-")
    for action in actions:
        assert f".B {action}\n" in overview
        assert (MAN / f"criu-lazy-pages-{action}.8").exists()


@pytest.mark.parametrize("page", sorted(p.name for p in MAN.glob("*.8")))
def test_manual_page_has_no_mistakes_and_fits(page):
    done = call("man", "--warnings", "-l", MAN / page, env=environment(MANWIDTH="100"))
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 500


# Options


@pytest.mark.parametrize("action", ["lazy-pages", "page-server"])
def test_every_option_of_the_real_criu_is_accepted(action):
    """With an images directory that is not there: an option that is refused says so before."""
    told = call(paths.real_criu(), "--help").stdout
    names = options_in(told) - {"--help", "--version", "--no"}
    letters = set(re.findall(r"(?<=  -)[a-zA-Z](?=\|--)", told)) - {"h", "V"}
    assert len(names) > 60 and len(letters) > 10

    def accepted(*words):
        done = call(COMMAND, action, *words, "-D", "/nonexistent/images", "-W", "/tmp")
        assert done.returncode == 1
        return "/nonexistent/images" in done.stderr

    refused = [n for n in sorted(names)
               if not any(accepted(*form) for form in ([n], [n + "=7"], [n + "=auto"]))]
    refused += [x for x in sorted(letters) if not accepted("-" + x) and not accepted("-" + x, "7")]
    assert refused == []


@pytest.mark.parametrize("action", ["lazy-pages", "page-server"])
@pytest.mark.parametrize("words", [["--frobnicate"], ["-D"], ["--threads", "none"], ["surplus"]])
def test_mistake_in_the_options_is_one_line_a_hint_and_exit_status_1(action, words):
    done = call(COMMAND, action, *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"Error: .+\nTry criu-lazy-pages {action} --help\n", done.stderr)


def test_options_of_one_action_are_not_in_the_help_of_the_other():
    lazy, server = (re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", help_of(a), re.M)
                    for a in ("lazy-pages", "page-server"))
    assert {"--thp", "--progress", "--timeout", "--page-server"} <= set(lazy) - set(server)
    assert {"--lazy-pages", "--once", "--attach", "--auto-dedup"} <= set(server) - set(lazy)


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["dump", "-t", "1"], ["-vv"]])
def test_without_an_action_of_ours_nothing_runs(words):
    done = call(COMMAND, *words)
    assert done.returncode == 1
    assert "criu-lazy-pages" in done.stderr and done.stdout == ""


def test_version_is_told_with_and_without_an_action():
    told = call(COMMAND, "--version")
    assert told.returncode == 0 and re.fullmatch(r"criu-lazy-pages \S+\n", told.stdout)
    assert call(COMMAND, "-V", "lazy-pages").stdout == told.stdout


# Called as criu


class Calls:
    """A fake real criu that tells how it was called, and our link before it in PATH."""

    def __init__(self, directory):
        self.dir = directory
        self.ours, self.real = directory / "ours", directory / "real"
        self.ours.mkdir()
        self.real.mkdir()
        (self.ours / "criu").symlink_to(COMMAND)
        fake = self.real / "criu"
        fake.write_text(FAKE_CRIU)
        fake.chmod(0o755)

    def __call__(self, *words, path=None, program="criu", **more):
        out = self.dir / "out.json"
        out.unlink(missing_ok=True)
        env = environment(PATH=f"{path or ''}{':' if path else ''}{self.ours}:{self.real}",
                          FAKE_OUT=str(out), **more.pop("env", {}))
        executable = more.pop("executable", str(self.ours / "criu"))
        done = subprocess.run([program, *words], executable=executable, env=env, text=True,
                              capture_output=True, timeout=60, check=False, **more)
        done.seen = json.loads(out.read_text()) if out.exists() else None
        return done


@pytest.fixture
def calls(tmp_path):
    return Calls(tmp_path)


@pytest.mark.parametrize("words", [
    ["dump", "-t", "1", "-D", "some dir", ""], ["swrk", "3"], ["--version"], ["-h"], [],
    ["-D", "lazy-pages", "restore"], ["check", "lazy-pages"], ["service", "--port", "7"],
    ["-vvv", "--new-option", "restore", "--", "-x"], ["status"]])
def test_other_actions_reach_the_real_criu_untouched(calls, words):
    done = calls(*words)
    assert done.seen["argv"] == words
    assert done.returncode == 23
    assert done.stdout == done.stderr == ""


def test_page_server_is_ours(calls):
    done = calls("-vvv", "page-server", "--help")
    assert done.seen is None
    assert done.stdout.startswith("Usage: criu-lazy-pages page-server")


@pytest.mark.parametrize("words", [
    ["lazy-pages"], ["-vvv", "lazy-pages"], ["-D", "dump", "lazy-pages"], ["-v", "lazy-pages"],
    ["--no-default-config", "lazy-pages"], ["--images-dir=x", "-t", "5", "lazy-pages"]])
def test_lazy_pages_is_ours_wherever_its_options_stand(calls, words):
    done = calls(*words, "--help")
    assert done.seen is None
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: criu-lazy-pages lazy-pages")


def test_descriptors_and_ignored_signals_reach_the_real_criu(calls, tmp_path):
    read, write = os.pipe()
    with open(tmp_path / "file", "wb") as f:
        os.set_inheritable(read, True)
        done = calls("check", pass_fds=[read, f.fileno()],
                     preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))
        expected = {str(read), str(f.fileno()), "0", "1", "2"}
    os.close(read)
    os.close(write)
    opened_by_fake = {fd for fd, to in done.seen["fds"].items() if to.startswith("/proc/")}
    assert set(done.seen["fds"]) - opened_by_fake == expected
    assert done.seen["fds"][str(read)].startswith("pipe:")
    assert done.seen["ignored"] & 1 << signal.SIGUSR1 - 1
    assert not done.seen["ignored"] & 1 << signal.SIGCHLD - 1


def test_we_are_not_the_real_criu_under_any_other_name(calls, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    shutil.copy2(COMMAND, first / "criu")
    os.link(first / "criu", second / "program")
    (second / "criu").symlink_to("program")
    done = calls("check", path=f"{first}:{second}:{calls.real}", executable=str(second / "criu"))
    assert done.seen["argv"] == ["check"]


def test_criu_real_is_taken_first(calls, tmp_path):
    other = tmp_path / "other program"
    other.write_text(FAKE_CRIU.replace("23", "24"))
    other.chmod(0o755)
    assert calls("check", env={"CRIU_REAL": str(other)}).returncode == 24


@pytest.mark.parametrize("real", ["/nonexistent/criu", str(COMMAND), "/etc/passwd"])
def test_criu_real_that_cannot_be_it_is_127_and_names_it(calls, real):
    done = calls("check", env={"CRIU_REAL": real})
    assert done.returncode == 127
    assert done.seen is None
    assert real in done.stderr and done.stderr.count("\n") == 1


def test_no_real_criu_is_127_and_says_what_to_do(calls):
    (calls.real / "criu").unlink()
    done = calls("check")
    assert done.returncode == 127
    assert "CRIU_REAL" in done.stderr and done.stderr.count("\n") == 1


def test_script_that_leads_back_to_us_ends(calls):
    (calls.real / "criu").write_text(f'#!/bin/sh\nexec "{calls.ours}/criu" "$@"\n')
    done = calls("check")
    assert done.returncode == 127
    assert "CRIU_REAL" in done.stderr and done.stderr.count("\n") == 1


def test_real_criu_works_through_us(tmp_path):
    (tmp_path / "criu").symlink_to(COMMAND)
    env = environment(CRIU_REAL=paths.real_criu())
    through = call(tmp_path / "criu", "--version", env=env)
    assert through.returncode == 0
    assert through.stdout == call(paths.real_criu(), "--version").stdout != ""
    through = call(tmp_path / "criu", "check", env=env)
    assert through.returncode == call(paths.real_criu(), "check").returncode


# Start and background


@pytest.fixture
def dirs(tmp_path, nothing_left):
    """Images and a work directory; managers that still wait for a restore are told to end."""
    images, work = tmp_path / "images", tmp_path / "work"
    shutil.copytree(IMAGES, images)
    work.mkdir()
    before = processes.descendants()
    yield images, work
    for pid in processes.descendants():
        if pid not in before and processes.comm(pid) == "lazy-keeper":
            processes.kill(pid, signal.SIGTERM)


def words_for(dirs, *more):
    images, work = dirs
    return [str(COMMAND), "lazy-pages", "-D", str(images), "-W", str(work), "-v4", *map(str, more)]


def daemon(dirs, *more, **how):
    return call(*words_for(dirs, "--daemon", "-o", "l.log", *more), **how)


def listens(work):
    """Somebody answers there: a restore, for the manager, that ends at once."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(str(work / "lazy-pages.socket"))
            return True
        except OSError:
            return False


def test_daemon_returns_when_it_listens_and_its_pid_is_in_the_work_directory(dirs):
    done = daemon(dirs, "--pidfile", "the.pid")
    pidfile = dirs[1] / "the.pid"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int(pidfile.read_text())
    assert pidfile.read_text() == str(pid)
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o600
    assert processes.alive(pid) and os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == str(dirs[1])
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    assert (dirs[1] / "lazy-pages.socket").is_socket()
    assert listens(dirs[1])


def test_daemon_that_cannot_start_makes_the_command_fail_with_the_reason(dirs):
    (dirs[0] / "pstree.img").unlink()
    done = daemon(dirs, "--pidfile", "the.pid")
    assert done.returncode == 1
    assert re.fullmatch(r"Error: .*pstree\.img.*\n", done.stderr)
    assert not (dirs[1] / "the.pid").exists()
    assert not (dirs[1] / "lazy-pages.socket").exists()


def test_reason_comes_once_when_the_log_is_on_standard_error(dirs):
    (dirs[0] / "pstree.img").unlink()
    done = call(*words_for(dirs, "--daemon"))
    assert done.returncode == 1
    assert done.stderr.count("pstree.img") == 1


def test_pidfile_that_exists_is_not_overwritten(dirs):
    (dirs[1] / "the.pid").write_text("1")
    done = daemon(dirs, "--pidfile", "the.pid")
    assert done.returncode == 1
    assert "the.pid" in done.stderr
    assert (dirs[1] / "the.pid").read_text() == "1"
    assert not listens(dirs[1])


class Foreground:
    """A manager that was told a --status-fd; gone at the end of the block."""

    def __init__(self, dirs, *more, status_fd=None, **how):
        read, write = os.pipe()
        if status_fd is None:
            how["pass_fds"] = [write]
        else:
            how[("stdin", "stdout", "stderr")[status_fd]] = write
        self.process = subprocess.Popen(
            words_for(dirs, "--status-fd", write if status_fd is None else status_fd, *more),
            env=environment(), **how)
        os.close(write)
        with os.fdopen(read, "rb") as f:
            self.told = f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)

    def fd(self, number):
        return os.readlink(f"/proc/{self.process.pid}/fd/{number}")


def test_status_fd_gets_one_nul_byte_and_is_closed_once_the_socket_listens(dirs):
    with Foreground(dirs, "-o", "l.log", "--pidfile", "the.pid") as m:
        assert m.told == b"\0"
        assert m.process.poll() is None
        assert listens(dirs[1])
        assert not (dirs[1] / "the.pid").exists()  # without --daemon, as stock


def test_status_fd_is_closed_without_a_word_when_it_cannot_start(dirs):
    (dirs[0] / "pstree.img").unlink()
    with Foreground(dirs, "-o", "l.log", stderr=subprocess.DEVNULL) as m:
        assert m.told == b""
        assert m.process.wait(timeout=20) == 1


@pytest.mark.parametrize("fd", [1, 2])
def test_status_fd_may_be_a_standard_descriptor(dirs, fd):
    with Foreground(dirs, "-o", "l.log", status_fd=fd) as m:
        assert m.told == b"\0"
        assert m.fd(fd) == "/dev/null"


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_standard_descriptors_are_not_taken_by_anything(dirs, closed):
    def close():
        for fd in closed:
            os.close(fd)
    with Foreground(dirs, "-o", "l.log", preexec_fn=close) as m:
        assert m.told == b"\0"
        assert all(m.fd(fd) == "/dev/null" for fd in closed)
        assert m.fd(3) != "/dev/null"


def test_closed_standard_error_does_not_hide_the_failure_of_a_daemon(dirs):
    (dirs[0] / "pstree.img").unlink()
    done = subprocess.run(words_for(dirs, "--daemon"), env=environment(), check=False,
                          preexec_fn=lambda: os.close(2), timeout=60)
    assert done.returncode == 1


def test_log_is_in_the_work_directory_and_names_what_has_no_effect(dirs, tmp_path):
    with Foreground(dirs, "-o", "l.log", "--tcp-established", "--ghost-limit", "1M", "-j",
                    cwd=tmp_path):
        log = (dirs[1] / "l.log").read_text()
    for name in ("tcp-established", "ghost-limit", "shell-job"):
        assert f"--{name} has no effect" in log
    assert not re.search("Error|Warn", log)
    assert not (tmp_path / "l.log").exists()


def test_log_goes_to_standard_output_when_asked(dirs):
    with Foreground(dirs, "-o", "-", "--link-remap", stdout=subprocess.PIPE) as m:
        assert b"--link-remap has no effect" in os.read(m.process.stdout.fileno(), 65536)
        m.process.stdout.close()


def test_relative_images_directory_is_not_taken_from_the_work_directory(dirs):
    images, work = dirs
    done = subprocess.run([COMMAND, "lazy-pages", "-D", images.name, "-W", work.name, "-d", "-o",
                           "l.log"], cwd=images.parent, env=environment(), timeout=60, check=False)
    assert done.returncode == 0
    assert listens(work)


def test_configuration_file_is_read_like_the_command_line(dirs, tmp_path):
    conf = tmp_path / "c.conf"
    conf.write_text("# ours\nlog-file \"the log\"  # here\ntcp-established\nverbosity 4\ndaemon\n")
    images, work = dirs
    done = call(COMMAND, "lazy-pages", "--config", conf, "-D", images, "-W", work)
    assert done.returncode == 0
    assert "--tcp-established has no effect" in (work / "the log").read_text()


# The examples of the manual pages


def examples(page):
    text = (MAN / page).read_text()
    return [block.replace("\\-", "-").replace("\\e", "\\")
            for block in re.findall(r"^\.EX\n(.*?)^\.EE$", text, re.M | re.S)]


def all_examples():
    return [pytest.param(page.name, n, id=f"{page.stem}-{n}")
            for page in sorted(MAN.glob("*.8")) for n in range(len(examples(page.name)))]


@pytest.mark.parametrize("page,number", all_examples())
def test_example_of_the_manual_page_works(case, page, number):
    c = case("content_heap")
    c.start()
    c.dump()
    (c.home / "go").write_bytes(b"r")
    links = c.dir / "links"
    links.mkdir()
    for name in ("criu-lazy-pages", "criu"):
        (links / name).symlink_to(COMMAND)
    env = environment(PATH=f"{links}:{os.environ['PATH']}", CRIU_REAL=paths.real_criu())
    text = examples(page)[number]
    with open(c.work / "criu.out", "ab") as out:
        done = subprocess.run(["sh", "-exc", text], cwd=c.dir, env=env, stdout=out, stderr=out,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 0, (c.work / "criu.out").read_text()
    if "restore" in text:
        c._wait(lambda: c.result() is not None, 60, "the program's result")
        assert c.result() == "PASS"
